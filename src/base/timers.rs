//! A set of named deadlines: arm, cancel, take what is due. Order among equal deadlines is that of the names, so that
//! two runs of one seed fire them alike.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::time::Time;

/// Deadlines, at most one for each name `K`.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    by_name: BTreeMap<K, Time>,
    // Also deadlines that were moved or cancelled since; never one of those on top.
    by_time: BinaryHeap<Reverse<(Time, K)>>,
}

/// Outdated deadlines that are kept before the heap is made anew, beside as many as there are names.
const OUTDATED_MAX: usize = 64;

impl<K: Copy + Ord> Timers<K> {
    /// None armed.
    pub fn new() -> Self {
        Self { by_name: BTreeMap::new(), by_time: BinaryHeap::new() }
    }

    /// Arms `name` for `at`, in place of an earlier deadline of that name.
    pub fn set(&mut self, name: K, at: Time) {
        if self.by_name.insert(name, at) != Some(at) {
            self.by_time.push(Reverse((at, name)));
            self.tidy();
        }
    }

    /// Arms `name` unless it is armed for `at` or sooner.
    pub fn set_no_later(&mut self, name: K, at: Time) {
        if self.by_name.get(&name).is_none_or(|&armed| armed > at) {
            self.set(name, at);
        }
    }

    /// Disarms `name`; nothing happens if it is not armed.
    pub fn cancel(&mut self, name: K) {
        if self.by_name.remove(&name).is_some() {
            self.tidy();
        }
    }

    fn tidy(&mut self) {
        while let Some(Reverse((at, name))) = self.by_time.peek()
            && self.by_name.get(name) != Some(at)
        {
            self.by_time.pop();
        }
        if self.by_time.len() > self.by_name.len() * 2 + OUTDATED_MAX {
            self.by_time = self.by_name.iter().map(|(&name, &at)| Reverse((at, name))).collect();
        }
    }

    /// When `name` is armed for.
    pub fn get(&self, name: K) -> Option<Time> {
        self.by_name.get(&name).copied()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Time> {
        self.by_time.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one name whose deadline is `now` or earlier, the earliest first.
    pub fn pop_due(&mut self, now: Time) -> Option<K> {
        let Reverse((at, name)) = *self.by_time.peek()?;
        if at > now {
            return None;
        }
        self.cancel(name);
        Some(name)
    }

    /// All that are armed, in the order of their names.
    pub fn armed(&self) -> Vec<K> {
        self.by_name.keys().copied().collect()
    }

    /// How many are armed.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether none is armed.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

impl<K: Copy + Ord> Default for Timers<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_in_order_and_once() {
        let mut timers = Timers::new();
        timers.set('b', Time(5));
        timers.set('a', Time(5));
        timers.set('c', Time(1));
        timers.set('c', Time(9));
        timers.set_no_later('b', Time(7));
        assert_eq!(timers.next(), Some(Time(5)));
        assert_eq!(timers.pop_due(Time(4)), None);
        assert_eq!(timers.pop_due(Time(6)), Some('a'));
        timers.cancel('b');
        assert_eq!(timers.pop_due(Time(6)), None);
        assert_eq!(timers.pop_due(Time(9)), Some('c'));
        for n in 0..1_000 {
            timers.set('d', Time(n));
        }
        assert!(timers.by_time.len() < 100, "moved deadlines are forgotten");
        timers.cancel('d');
        assert!(timers.is_empty() && timers.next().is_none());
    }
}
