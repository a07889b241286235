//! The store: an ordered map from [`Place`] to [`Record`], behind a narrow trait so that the engine is replaceable.
//!
//! It keeps what [`super::apply`] decided and answers scans. It knows no views, no peers and no clocks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::key::{Key, KeySpace, Place, Slot};
use super::record::Record;
use super::user::{Item, ListQuery, Page};
use crate::base::{Id, Wall};

/// Where a scan of a slot goes on: after this id and key.
pub type Cursor = (Id, Key);

/// Part of a slot, in the order of (id, key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Keys and records.
    pub entries: Vec<(Key, Record)>,
    /// Where to go on, `None` at the slot's end.
    pub next: Option<Cursor>,
}

/// A page of a listing and where it ends.
pub type Listed = Page;

/// How much is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of keys.
    pub keys: u64,
    /// Bytes of keys, values and content types.
    pub bytes: u64,
}

/// An ordered map from place to record.
pub trait Store {
    /// The record at `place`, also an expired one.
    fn get(&self, place: &Place) -> Option<Record>;
    /// Stores `record` at `place`.
    fn put(&mut self, place: Place, record: Record);
    /// Forgets what is at `place`.
    fn remove(&mut self, place: &Place);
    /// Entries of `slot` after the cursor, until their user bytes reach `budget_bytes`; at least one if there is one.
    fn scan(&self, slot: Slot, after: Option<&Cursor>, budget_bytes: usize) -> Chunk;
    /// Keys that `query` asks for, in the order of their bytes, of the slots that `keep` accepts, without the expired.
    fn list(&self, query: &ListQuery, now: Wall, keep: &dyn Fn(Slot) -> bool) -> Listed;
    /// Forgets all of `slot`.
    fn clear(&mut self, slot: Slot);
    /// What is in `slot`.
    fn usage_of(&self, slot: Slot) -> Usage;
    /// What is in the store.
    fn usage(&self) -> Usage;
    /// When the next record expires.
    fn next_expiry(&self) -> Option<Wall>;
    /// Some records, at most `limit`, that have expired at `now`.
    fn expired(&self, now: Wall, limit: usize) -> Vec<Place>;
}

/// A [`Store`] in memory. Nothing survives the process.
#[derive(Debug)]
pub struct MemoryStore {
    space: KeySpace,
    records: BTreeMap<Place, Record>,
    // Keys in the order of their bytes: a listing reads one page of it, where a scan of `records` would read all.
    by_key: BTreeSet<Key>,
    by_expiry: BTreeSet<(Wall, Place)>,
    usage: Usage,
    usage_of: BTreeMap<Slot, Usage>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(space: KeySpace) -> Self {
        Self {
            space,
            records: BTreeMap::new(),
            by_key: BTreeSet::new(),
            by_expiry: BTreeSet::new(),
            usage: Usage::default(),
            usage_of: BTreeMap::new(),
        }
    }

    fn first_place(slot: Slot) -> Bound<Place> {
        // No key is empty, but the smallest one-byte key is not smaller than any other: include it.
        Bound::Included(Place { slot, id: Id::ZERO, key: smallest_key() })
    }

    fn slot_range(slot: Slot) -> (Bound<Place>, Bound<Place>) {
        let end = Place { slot: Slot(slot.0 + 1), id: Id::ZERO, key: smallest_key() };
        (Self::first_place(slot), Bound::Excluded(end))
    }

    fn account(&mut self, place: &Place, record: &Record, add: bool) {
        let bytes = (place.key.as_bytes().len() + record.user_bytes()) as u64;
        let of_slot = self.usage_of.entry(place.slot).or_default();
        for usage in [&mut self.usage, &mut *of_slot] {
            if add {
                usage.keys += 1;
                usage.bytes += bytes;
            } else {
                usage.keys -= 1;
                usage.bytes -= bytes;
            }
        }
        if *of_slot == Usage::default() {
            self.usage_of.remove(&place.slot);
        }
    }
}

fn smallest_key() -> Key {
    // One zero byte is within the bounds of a key.
    Key::new([0]).unwrap_or_else(|_| unreachable!("one byte is a key"))
}

impl Store for MemoryStore {
    fn get(&self, place: &Place) -> Option<Record> {
        self.records.get(place).cloned()
    }

    fn put(&mut self, place: Place, record: Record) {
        self.remove(&place);
        self.account(&place, &record, true);
        if let Some(at) = record.expires {
            self.by_expiry.insert((at, place.clone()));
        }
        self.by_key.insert(place.key.clone());
        self.records.insert(place, record);
    }

    fn remove(&mut self, place: &Place) {
        let Some(record) = self.records.remove(place) else { return };
        self.account(place, &record, false);
        self.by_key.remove(&place.key);
        if let Some(at) = record.expires {
            self.by_expiry.remove(&(at, place.clone()));
        }
    }

    fn scan(&self, slot: Slot, after: Option<&Cursor>, budget_bytes: usize) -> Chunk {
        let (first, end) = Self::slot_range(slot);
        let first = match after {
            Some((id, key)) => Bound::Excluded(Place { slot, id: *id, key: key.clone() }),
            None => first,
        };
        let mut chunk = Chunk::default();
        let mut bytes = 0;
        let mut last = None;
        for (place, record) in self.records.range((first, end)) {
            if bytes >= budget_bytes && !chunk.entries.is_empty() {
                chunk.next = last;
                return chunk;
            }
            bytes += place.key.as_bytes().len() + record.user_bytes();
            chunk.entries.push((place.key.clone(), record.clone()));
            last = Some((place.id, place.key.clone()));
        }
        chunk
    }

    fn list(&self, query: &ListQuery, now: Wall, keep: &dyn Fn(Slot) -> bool) -> Listed {
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
            let Some(record) = self.records.get(&place).filter(|record| !record.is_expired(now)) else { continue };
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
        page
    }

    fn clear(&mut self, slot: Slot) {
        let places: Vec<Place> = self.records.range(Self::slot_range(slot)).map(|(place, _)| place.clone()).collect();
        for place in &places {
            self.remove(place);
        }
    }

    fn usage_of(&self, slot: Slot) -> Usage {
        self.usage_of.get(&slot).copied().unwrap_or_default()
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn next_expiry(&self) -> Option<Wall> {
        self.by_expiry.first().map(|(at, _)| *at)
    }

    fn expired(&self, now: Wall, limit: usize) -> Vec<Place> {
        let due = self.by_expiry.iter().take_while(|(at, _)| *at <= now);
        due.take(limit).map(|(_, place)| place.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::base::{Capacity, Incarnation};
    use crate::data::Version;

    const NOW: Wall = Wall(50);

    fn record(n: u64, size: usize, expires: Option<u64>) -> Record {
        Record {
            value: vec![b'v'; size].into(),
            content_type: None,
            version: Version { epoch: 1, n, node: Incarnation(1) },
            modified: Wall(0),
            expires: expires.map(Wall),
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(Vec<u8>, usize, Option<u64>),
        Remove(Vec<u8>),
        Clear(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || prop::collection::vec(0_u8..3, 1..4);
        prop_oneof![
            6 => (key(), 0_usize..40, prop::option::of(0_u64..100)).prop_map(|(k, s, e)| Step::Put(k, s, e)),
            3 => key().prop_map(Step::Remove),
            1 => (0_u32..4).prop_map(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn the_memory_store_does_what_a_plain_map_does(steps in prop::collection::vec(step(), 0..60)) {
            let space = KeySpace::new(Capacity::MAX, 2).unwrap();
            let place = |key: &[u8]| space.place(Key::new(key).unwrap());
            let mut store = MemoryStore::new(space);
            let mut model: BTreeMap<Vec<u8>, Record> = BTreeMap::new();
            for (n, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(key, size, expires) => {
                        store.put(place(&key), record(n as u64, size, expires));
                        model.insert(key, record(n as u64, size, expires));
                    }
                    Step::Remove(key) => {
                        store.remove(&place(&key));
                        model.remove(&key);
                    }
                    Step::Clear(slot) => {
                        store.clear(Slot(slot));
                        model.retain(|key, _| place(key).slot != Slot(slot));
                    }
                }
            }
            for (key, record) in &model {
                prop_assert_eq!(store.get(&place(key)), Some(record.clone()));
            }
            let bytes: usize = model.iter().map(|(key, record)| key.len() + record.user_bytes()).sum();
            prop_assert_eq!(store.usage(), Usage { keys: model.len() as u64, bytes: bytes as u64 });
            prop_assert_eq!(store.next_expiry(), model.values().filter_map(|record| record.expires).min());
            let due = model.values().filter(|record| record.is_expired(NOW)).count();
            prop_assert_eq!(store.expired(NOW, usize::MAX).len(), due);

            // Scans by chunks of any size meet every key of a slot once, in the order of the ids.
            let mut scanned = 0;
            for slot in space.all_slots() {
                let mut cursor = None;
                let mut ids = Vec::new();
                loop {
                    let chunk = store.scan(slot, cursor.as_ref(), 20);
                    ids.extend(chunk.entries.iter().map(|(key, _)| place(key.as_bytes()).id));
                    cursor = chunk.next;
                    if cursor.is_none() { break; }
                }
                prop_assert!(ids.is_sorted());
                prop_assert_eq!(ids.len() as u64, store.usage_of(slot).keys);
                scanned += ids.len();
            }
            prop_assert_eq!(scanned, model.len());

            // Pages of any size meet every live key of a prefix once, in order.
            let prefix = vec![1];
            let mut after = None;
            let mut listed = Vec::new();
            loop {
                let query = ListQuery { prefix: prefix.clone(), after: after.clone(), limit: 2 };
                let page = store.list(&query, NOW, &|_| true);
                listed.extend(page.items.iter().map(|item| item.key.as_bytes().to_vec()));
                after = listed.last().cloned();
                if !page.more { break; }
            }
            let expected: Vec<_> = model.iter()
                .filter(|(key, record)| key.starts_with(&prefix) && !record.is_expired(NOW))
                .map(|(key, _)| key.clone()).collect();
            prop_assert_eq!(listed, expected);
        }
    }

    #[test]
    fn a_listing_skips_slots_that_are_not_kept() {
        let space = KeySpace::new(Capacity::MAX, 1).unwrap();
        let mut store = MemoryStore::new(space);
        for n in 0..20_u8 {
            store.put(space.place(Key::new([n]).unwrap()), record(1, 1, None));
        }
        let query = ListQuery { prefix: vec![], after: None, limit: 100 };
        let kept = store.list(&query, NOW, &|slot| slot == Slot(1)).items.len() as u64;
        assert_eq!(kept, store.usage_of(Slot(1)).keys);
        assert!(kept > 0 && kept < 20);
    }
}
