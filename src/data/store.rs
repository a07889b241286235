//! The store: an ordered map from [`Place`] to [`Register`], behind a narrow trait so that the engine is replaceable.
//!
//! It keeps what was decided elsewhere and answers scans, and it keeps a line of text for each slot, without knowing what
//! that means. It knows no peers and no clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;

use super::key::{Key, KeySpace, Place, Slot};
use super::record::Record;
use super::register::Register;
use super::user::{Item, ListQuery, Page};
use crate::base::{Id, Wall};

/// Where a scan of a slot goes on: after this id and key.
pub type Cursor = (Id, Key);

/// Part of a slot, in the order of (id, key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Keys and what is there.
    pub entries: Vec<(Key, Register)>,
    /// Those of which that cannot be read.
    pub damaged: Vec<Key>,
    /// Where to go on, `None` at the slot's end.
    pub next: Option<Cursor>,
}

/// How much is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of keys with a record.
    pub keys: u64,
    /// Bytes of keys, values and content types.
    pub bytes: u64,
}

/// Why a store did not do what it was asked to. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no room, on the device or within the node's budget.
    Full(String),
    /// The record of this key is damaged.
    Damaged(Key),
    /// Anything else, in the words of the system.
    Broken(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(why) => write!(f, "no room: {why}"),
            Self::Damaged(key) => write!(f, "the record of {key:?} is damaged on disk"),
            Self::Broken(why) => write!(f, "the store failed: {why}"),
        }
    }
}

/// An ordered map from place to register.
pub trait Store {
    /// How keys fall into slots.
    fn space(&self) -> KeySpace;
    /// What is at `place`, if anything is.
    fn register(&self, place: &Place) -> Result<Option<Register>, Trouble>;
    /// Stores this at `place`.
    fn set(&mut self, place: Place, register: Register) -> Result<(), Trouble>;
    /// The record at `place`, also an expired one.
    fn get(&self, place: &Place) -> Result<Option<Record>, Trouble> {
        Ok(self.register(place)?.and_then(Register::into_record))
    }
    /// Stores `record` at `place`, as the only copy there is.
    fn put(&mut self, place: Place, record: Record) -> Result<(), Trouble> {
        self.set(place, record.into())
    }
    /// Forgets what is at `place`.
    fn remove(&mut self, place: &Place) -> Result<(), Trouble>;
    /// Forgets those of these keys in `slot` that cannot be read, wherever they stand there.
    fn sweep(&mut self, slot: Slot, keys: &[Key]) -> Result<(), Trouble>;
    /// Entries of `slot` after the cursor, until their user bytes reach `budget_bytes`; at least one if there is one.
    fn scan(&self, slot: Slot, after: Option<&Cursor>, budget_bytes: usize) -> Result<Chunk, Trouble>;
    /// Keys that `query` asks for, in the order of their bytes, of the slots that `keep` accepts, without the expired.
    fn list(&self, query: &ListQuery, now: Wall, keep: &dyn Fn(Slot) -> bool) -> Result<Page, Trouble>;
    /// Forgets all that is in `slot`.
    fn clear(&mut self, slot: Slot) -> Result<(), Trouble>;
    /// Of removals in `slot` that are forgotten, when the latest of their operations was asked for.
    fn evicted(&self, slot: Slot) -> Result<Option<Wall>, Trouble>;
    /// Keeps that, until the slot is cleared.
    fn set_evicted(&mut self, slot: Slot, at: Wall) -> Result<(), Trouble>;
    /// What is in the store.
    fn usage(&self) -> Usage;
    /// Only removals are taken.
    fn is_full(&self) -> bool {
        false
    }
    /// When the next record expires.
    fn next_expiry(&self) -> Result<Option<Wall>, Trouble>;
    /// Some records, at most `limit`, that have expired at `now`.
    fn expired(&self, now: Wall, limit: usize) -> Result<Vec<Place>, Trouble>;
    /// What was kept of slots, in order.
    fn kept(&self) -> Result<Vec<(Slot, String)>, Trouble>;
    /// Keeps this of a slot, whatever it means; `None`: nothing.
    fn keep(&mut self, slot: Slot, row: Option<String>) -> Result<(), Trouble>;
}

/// A [`Store`] in memory. Nothing survives the process.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    space: KeySpace,
    registers: BTreeMap<Place, Register>,
    // Keys in the order of their bytes: a listing reads one page of it, where a scan of `registers` would read all.
    by_key: BTreeSet<Key>,
    by_expiry: BTreeSet<(Wall, Place)>,
    usage: Usage,
    kept: BTreeMap<Slot, String>,
    evicted: BTreeMap<Slot, Wall>,
    bytes_max: Option<u64>,
    refused: bool,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(space: KeySpace) -> Self {
        Self {
            space,
            registers: BTreeMap::new(),
            by_key: BTreeSet::new(),
            by_expiry: BTreeSet::new(),
            usage: Usage::default(),
            kept: BTreeMap::new(),
            evicted: BTreeMap::new(),
            bytes_max: None,
            refused: false,
        }
    }

    /// The same with a budget of so many bytes, as [`Usage`] counts them.
    pub fn with_bytes_max(mut self, bytes_max: Option<u64>) -> Self {
        self.bytes_max = bytes_max;
        self
    }

    /// How many keys it says something of, removed ones too.
    pub fn rows(&self) -> usize {
        self.registers.len()
    }

    fn first_place(slot: Slot) -> Bound<Place> {
        // No key is empty, but the smallest one-byte key is not smaller than any other: include it.
        Bound::Included(Place { slot, id: Id::ZERO, key: smallest_key() })
    }

    fn slot_range(slot: Slot) -> (Bound<Place>, Bound<Place>) {
        let end = Place { slot: Slot(slot.0 + 1), id: Id::ZERO, key: smallest_key() };
        (Self::first_place(slot), Bound::Excluded(end))
    }

    fn take(&mut self, place: &Place) {
        let Some(register) = self.registers.remove(place) else { return };
        self.by_key.remove(&place.key);
        let Some(record) = register.record() else { return };
        self.usage.keys -= 1;
        self.usage.bytes -= size(place, Some(record));
        if let Some(at) = record.expires {
            self.by_expiry.remove(&(at, place.clone()));
        }
    }
}

/// What counts of a key with this record, in bytes.
fn size(place: &Place, record: Option<&Record>) -> u64 {
    record.map_or(0, |record| (place.key.as_bytes().len() + record.user_bytes()) as u64)
}

fn smallest_key() -> Key {
    // One zero byte is within the bounds of a key.
    Key::new([0]).unwrap_or_else(|_| unreachable!("one byte is a key"))
}

impl Store for MemoryStore {
    fn space(&self) -> KeySpace {
        self.space
    }

    fn register(&self, place: &Place) -> Result<Option<Register>, Trouble> {
        Ok(self.registers.get(place).cloned())
    }

    fn set(&mut self, place: Place, register: Register) -> Result<(), Trouble> {
        let added = size(&place, register.record());
        let present = size(&place, self.registers.get(&place).and_then(Register::record));
        let bytes_max = self.bytes_max.unwrap_or(u64::MAX);
        self.refused = self.usage.bytes - present + added > bytes_max && added > present;
        if self.refused {
            return Err(Trouble::Full(format!("this node's budget of {bytes_max} bytes (--max-bytes) is used up")));
        }
        self.take(&place);
        if let Some(record) = register.record() {
            self.usage.keys += 1;
            if let Some(at) = record.expires {
                self.by_expiry.insert((at, place.clone()));
            }
        }
        self.usage.bytes += added;
        self.by_key.insert(place.key.clone());
        self.registers.insert(place, register);
        Ok(())
    }

    fn remove(&mut self, place: &Place) -> Result<(), Trouble> {
        self.take(place);
        self.refused = false;
        Ok(())
    }

    fn sweep(&mut self, _: Slot, _: &[Key]) -> Result<(), Trouble> {
        Ok(())
    }

    fn scan(&self, slot: Slot, after: Option<&Cursor>, budget_bytes: usize) -> Result<Chunk, Trouble> {
        let (first, end) = Self::slot_range(slot);
        let first = match after {
            Some((id, key)) => Bound::Excluded(Place { slot, id: *id, key: key.clone() }),
            None => first,
        };
        let mut chunk = Chunk::default();
        let mut bytes = 0;
        let mut last = None;
        for (place, register) in self.registers.range((first, end)) {
            if bytes >= budget_bytes && !chunk.entries.is_empty() {
                chunk.next = last;
                return Ok(chunk);
            }
            bytes += place.key.as_bytes().len() + register.record().map_or(0, Record::user_bytes);
            chunk.entries.push((place.key.clone(), register.clone()));
            last = Some((place.id, place.key.clone()));
        }
        Ok(chunk)
    }

    fn list(&self, query: &ListQuery, now: Wall, keep: &dyn Fn(Slot) -> bool) -> Result<Page, Trouble> {
        let first = match &query.after {
            Some(after) if after.as_slice() >= query.prefix.as_slice() => Bound::Excluded(after.as_slice()),
            _ => Bound::Included(query.prefix.as_slice()),
        };
        let mut page = Page::default();
        for key in self.by_key.range::<[u8], _>((first, Bound::Unbounded)) {
            if !key.as_bytes().starts_with(&query.prefix) {
                break;
            }
            let place = self.space.place(key.clone());
            let record = self.registers.get(&place).and_then(Register::record);
            let Some(record) = record.filter(|record| !record.is_expired(now)) else { continue };
            if !keep(place.slot) {
                continue;
            }
            if page.items.len() == query.limit {
                page.more = true;
                break;
            }
            page.items.push(Item {
                key: place.key,
                size: record.value.len() as u64,
                version: record.version,
                content_type: record.content_type.clone(),
                expires: record.expires,
            });
        }
        Ok(page)
    }

    fn clear(&mut self, slot: Slot) -> Result<(), Trouble> {
        let places: Vec<Place> = self.registers.range(Self::slot_range(slot)).map(|(place, _)| place.clone()).collect();
        for place in &places {
            self.take(place);
        }
        self.evicted.remove(&slot);
        Ok(())
    }

    fn evicted(&self, slot: Slot) -> Result<Option<Wall>, Trouble> {
        Ok(self.evicted.get(&slot).copied())
    }

    fn set_evicted(&mut self, slot: Slot, at: Wall) -> Result<(), Trouble> {
        self.evicted.insert(slot, at);
        Ok(())
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn is_full(&self) -> bool {
        self.refused
    }

    fn next_expiry(&self) -> Result<Option<Wall>, Trouble> {
        Ok(self.by_expiry.first().map(|(at, _)| *at))
    }

    fn expired(&self, now: Wall, limit: usize) -> Result<Vec<Place>, Trouble> {
        let due = self.by_expiry.iter().take_while(|(at, _)| *at <= now);
        Ok(due.take(limit).map(|(_, place)| place.clone()).collect())
    }

    fn kept(&self) -> Result<Vec<(Slot, String)>, Trouble> {
        Ok(self.kept.iter().map(|(slot, row)| (*slot, row.clone())).collect())
    }

    fn keep(&mut self, slot: Slot, row: Option<String>) -> Result<(), Trouble> {
        match row {
            Some(row) => self.kept.insert(slot, row),
            None => self.kept.remove(&slot),
        };
        Ok(())
    }
}
