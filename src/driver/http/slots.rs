//! A slab whose keys carry generations, so that a stale key finds nothing, and which knows who was quiet for longest.
//!
//! The order of quietness is a list threaded through the slots: moving one to the end costs the same for one
//! connection and for ten thousand.

use super::limits::INDEX_BITS;

const NONE: usize = usize::MAX;
const INDEX_MASK: usize = (1 << INDEX_BITS) - 1;
/// Tells private connections' keys from public ones; set by [`Key::lane`].
const LANE_BIT: usize = 1 << INDEX_BITS;
const GENERATION_SHIFT: u32 = INDEX_BITS + 1;
/// The topmost bit stays clear, which leaves tokens for the listener and the waker.
const GENERATION_MASK: usize = (usize::MAX >> GENERATION_SHIFT) >> 1;

/// Names one occupant of one slot. Fits a token of the poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(pub usize);

impl Key {
    pub(super) fn new(index: usize, generation: usize) -> Self {
        Key((index & INDEX_MASK) | ((generation & GENERATION_MASK) << GENERATION_SHIFT))
    }

    /// The key of a private connection.
    pub(super) fn lane(index: usize, generation: usize) -> Self {
        Key(Self::new(index, generation).0 | LANE_BIT)
    }

    pub(super) fn is_lane(self) -> bool {
        self.0 & LANE_BIT != 0
    }

    pub(super) fn index(self) -> usize {
        self.0 & INDEX_MASK
    }
}

struct Slot<T> {
    generation: usize,
    value: Option<T>,
    listed: bool,
    older: usize,
    newer: usize,
}

/// See the module.
pub(super) struct Slots<T> {
    entries: Vec<Slot<T>>,
    free: Vec<usize>,
    oldest: usize,
    newest: usize,
}

impl<T> Slots<T> {
    pub(super) fn new() -> Self {
        Slots { entries: Vec::new(), free: Vec::new(), oldest: NONE, newest: NONE }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// The key that the next [`Slots::insert`] gives.
    pub(super) fn next_key(&self) -> Key {
        match self.free.last() {
            Some(&index) => Key::new(index, self.entries[index].generation),
            None => Key::new(self.entries.len(), 0),
        }
    }

    /// Stores `value` as the one heard last.
    pub(super) fn insert(&mut self, value: T) -> Key {
        let key = self.next_key();
        if self.free.pop().is_none() {
            self.entries.push(Slot { generation: 0, value: None, listed: false, older: NONE, newer: NONE });
        }
        self.entries[key.index()].value = Some(value);
        self.touch(key);
        key
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.entries.get_mut(key.index())?;
        if Key::new(key.index(), slot.generation) == key { slot.value.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.get_mut(key)?;
        self.unlist(key);
        let slot = &mut self.entries[key.index()];
        slot.generation = slot.generation.wrapping_add(1) & GENERATION_MASK;
        self.free.push(key.index());
        slot.value.take()
    }

    /// Makes `key` the one heard last.
    pub(super) fn touch(&mut self, key: Key) {
        if self.get_mut(key).is_none() || (self.newest == key.index()) {
            return;
        }
        self.unlist(key);
        let (index, newest) = (key.index(), self.newest);
        let slot = &mut self.entries[index];
        (slot.listed, slot.older, slot.newer) = (true, newest, NONE);
        match newest {
            NONE => self.oldest = index,
            _ => self.entries[newest].newer = index,
        }
        self.newest = index;
    }

    /// Takes `key` out of the order until it is touched again: [`Slots::quietest`] does not name it.
    pub(super) fn unlist(&mut self, key: Key) {
        if self.get_mut(key).is_none() {
            return;
        }
        let slot = &mut self.entries[key.index()];
        if !std::mem::take(&mut slot.listed) {
            return;
        }
        let (older, newer) = (slot.older, slot.newer);
        match older {
            NONE => self.oldest = newer,
            _ => self.entries[older].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            _ => self.entries[newer].older = older,
        }
    }

    /// The one in the order that was touched least recently.
    pub(super) fn quietest(&self) -> Option<Key> {
        let slot = self.entries.get(self.oldest)?;
        Some(Key::new(self.oldest, slot.generation))
    }

    /// All there are.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        let occupied = self.entries.iter().enumerate();
        occupied.filter_map(|(index, slot)| Some((Key::new(index, slot.generation), slot.value.as_ref()?)))
    }

    /// All keys there are.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_former_occupant_finds_nothing() {
        let mut slots = Slots::new();
        let first = slots.insert('a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b');
        assert_eq!(first.index(), second.index());
        assert_eq!(slots.get_mut(first), None);
        assert_eq!(slots.remove(first), None);
        assert_eq!(slots.get_mut(second), Some(&mut 'b'));
        assert_eq!(slots.len(), 1);
    }

    #[test]
    fn the_quietest_is_the_listed_one_touched_least_recently() {
        let mut slots = Slots::new();
        let [a, b, c] = ['a', 'b', 'c'].map(|name| slots.insert(name));
        slots.touch(a);
        assert_eq!(slots.quietest(), Some(b));
        slots.unlist(b);
        assert_eq!(slots.quietest(), Some(c));
        slots.remove(c);
        assert_eq!(slots.quietest(), Some(a));
        slots.touch(b);
        slots.unlist(a);
        assert_eq!(slots.quietest(), Some(b));
        slots.unlist(b);
        assert_eq!(slots.quietest(), None);
        assert_eq!(slots.keys(), vec![a, b]);
    }

    #[test]
    fn keys_of_lanes_and_of_connections_never_meet_nor_reach_the_reserved_tokens() {
        let highest = Key::lane(usize::MAX, usize::MAX);
        assert!(highest.is_lane() && !Key::new(usize::MAX, usize::MAX).is_lane());
        assert!(highest.0 < usize::MAX - 1);
    }
}
