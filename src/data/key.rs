//! Keys, the slots they fall into, and the order in which a store keeps them.

use std::fmt;
use std::sync::Arc;

use crate::base::limits::{KEY_BYTES_MAX, SLOT_BITS_MAX};
use crate::base::{Capacity, Id};

/// A key: 1 to 1,024 bytes of any kind. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

/// Why bytes are no key. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// A key has at least one byte.
    Empty,
    /// A key has at most [`KEY_BYTES_MAX`] bytes; this one has so many.
    TooLong(usize),
}

impl Key {
    /// Takes 1 to [`KEY_BYTES_MAX`] bytes.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Result<Self, KeyError> {
        let bytes = bytes.into();
        match bytes.len() {
            0 => Err(KeyError::Empty),
            n if n > KEY_BYTES_MAX => Err(KeyError::TooLong(n)),
            _ => Ok(Self(bytes)),
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the key is empty; a key has 1 to {KEY_BYTES_MAX} bytes"),
            Self::TooLong(n) => write!(f, "the key has {n} bytes; a key has at most {KEY_BYTES_MAX}"),
        }
    }
}

impl std::error::Error for KeyError {}

/// A fixed 1/2^p share of the circle: the unit of transfer and, later, of replication.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A set of slots: a bit for each of a ring's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotSet(Vec<u64>);

impl SlotSet {
    /// Whether `slot` is in it.
    pub fn contains(&self, slot: Slot) -> bool {
        self.0.get(slot.0 as usize / 64).is_some_and(|word| word >> (slot.0 % 64) & 1 == 1)
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<T: IntoIterator<Item = Slot>>(slots: T) -> Self {
        let mut words = Vec::new();
        for slot in slots {
            let at = slot.0 as usize / 64;
            if words.len() <= at {
                words.resize(at + 1, 0);
            }
            words[at] |= 1 << (slot.0 % 64);
        }
        Self(words)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// How keys map onto the circle and into slots: the capacity m and the slot bits p of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpace {
    capacity: Capacity,
    slot_bits: u32,
}

impl KeySpace {
    /// `None` unless `slot_bits` is at most the capacity and at most [`SLOT_BITS_MAX`].
    pub fn new(capacity: Capacity, slot_bits: u32) -> Option<Self> {
        (slot_bits <= capacity.bits() && slot_bits <= SLOT_BITS_MAX).then_some(Self { capacity, slot_bits })
    }

    /// The ring's capacity.
    pub fn capacity(self) -> Capacity {
        self.capacity
    }

    /// The ring's slot bits p.
    pub fn slot_bits(self) -> u32 {
        self.slot_bits
    }

    /// How many slots there are, 2^p.
    pub fn slots(self) -> u32 {
        1 << self.slot_bits
    }

    /// All slots, in the order of the circle.
    pub fn all_slots(self) -> impl Iterator<Item = Slot> {
        (0..self.slots()).map(Slot)
    }

    /// Whether this slot exists.
    pub fn holds(self, slot: Slot) -> bool {
        slot.0 < self.slots()
    }

    /// Where `key` lives.
    pub fn place(self, key: Key) -> Place {
        let id = self.capacity.hash(key.as_bytes());
        Place { slot: self.slot_of(id), id, key }
    }

    /// The slot that `id` falls into.
    pub fn slot_of(self, id: Id) -> Slot {
        Slot(self.capacity.top_bits(id, self.slot_bits))
    }

    /// The last id of `slot`; the Chord successor of it is the slot's ring owner.
    pub fn last_id(self, slot: Slot) -> Id {
        self.capacity.last_with_top_bits(slot.0, self.slot_bits)
    }
}

/// The full address of a key in a store; stores keep records in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The slot of `id`.
    pub slot: Slot,
    /// The id of `key`.
    pub id: Id,
    /// The key.
    pub key: Key,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_1024_bytes() {
        assert_eq!(Key::new(*b""), Err(KeyError::Empty));
        assert!(Key::new(vec![0; 1_024]).is_ok());
        assert_eq!(Key::new(vec![0; 1_025]), Err(KeyError::TooLong(1_025)));
    }

    #[test]
    fn every_slot_ends_where_the_next_begins() {
        for (m, p) in [(160, 10), (160, 16), (10, 10), (3, 3), (3, 0), (1, 1)] {
            let space = KeySpace::new(Capacity::new(m).unwrap(), p).unwrap();
            for slot in space.all_slots() {
                let last = space.last_id(slot);
                assert_eq!(space.slot_of(last), slot, "m {m} p {p}");
                let next = space.capacity().add(last, Id::from_u128(1));
                assert_eq!(space.slot_of(next), Slot((slot.0 + 1) % space.slots()), "m {m} p {p}");
            }
        }
        assert_eq!(KeySpace::new(Capacity::new(3).unwrap(), 4), None);
    }
}
