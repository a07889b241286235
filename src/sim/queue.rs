//! What is still to happen, in the order of time; what was planned first comes first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::Time;

/// A queue of events.
#[derive(Debug)]
pub(super) struct Queue<T> {
    // (when, serial, place): the events themselves stay where they are while the heap is sorted.
    heap: BinaryHeap<Reverse<(Time, u64, usize)>>,
    places: Vec<Option<T>>,
    free: Vec<usize>,
    serial: u64,
}

impl<T> Queue<T> {
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), places: Vec::new(), free: Vec::new(), serial: 0 }
    }

    pub fn push(&mut self, at: Time, event: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(event);
        self.serial += 1;
        self.heap.push(Reverse((at, self.serial, place)));
    }

    pub fn pop(&mut self) -> Option<(Time, T)> {
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        Some((at, self.places[place].take()?))
    }

    pub fn next_at(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_time_then_of_planning() {
        let mut queue = Queue::new();
        for (at, event) in [(5, 'a'), (3, 'b'), (5, 'c')] {
            queue.push(Time(at), event);
        }
        assert_eq!(queue.pop(), Some((Time(3), 'b')));
        queue.push(Time(5), 'd');
        let rest: Vec<char> = std::iter::from_fn(|| queue.pop()).map(|(_, event)| event).collect();
        assert_eq!(rest, ['a', 'c', 'd']);
        assert_eq!(queue.next_at(), None);
    }
}
