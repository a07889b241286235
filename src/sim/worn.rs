//! A store of which some bits have flipped, as the checksums of a real one find out.

use std::collections::BTreeSet;

use crate::base::Wall;
use crate::data::register::Register;
use crate::data::{Chunk, Cursor, Key, KeySpace, ListQuery, MemoryStore, Page, Place, Slot, Store, Trouble, Usage};

/// See the module.
pub(super) struct Worn<'a> {
    pub store: &'a mut MemoryStore,
    /// Records that are not as they were written.
    pub flipped: &'a mut BTreeSet<Place>,
}

impl Store for Worn<'_> {
    fn space(&self) -> KeySpace {
        self.store.space()
    }

    fn register(&self, place: &Place) -> Result<Option<Register>, Trouble> {
        if self.flipped.contains(place) {
            return Err(Trouble::Damaged(place.key.clone()));
        }
        self.store.register(place)
    }

    fn set(&mut self, place: Place, register: Register) -> Result<(), Trouble> {
        self.flipped.remove(&place);
        self.store.set(place, register)
    }

    fn remove(&mut self, place: &Place) -> Result<(), Trouble> {
        self.flipped.remove(place);
        self.store.remove(place)
    }

    fn scan(&self, slot: Slot, after: Option<&Cursor>, budget_bytes: usize) -> Result<Chunk, Trouble> {
        let mut chunk = self.store.scan(slot, after, budget_bytes)?;
        let is_damaged = |key: &Key| self.flipped.contains(&self.store.space().place(key.clone()));
        chunk.damaged = chunk.entries.iter().map(|(key, _)| key).filter(|key| is_damaged(key)).cloned().collect();
        chunk.entries.retain(|(key, _)| !is_damaged(key));
        Ok(chunk)
    }

    fn sweep(&mut self, slot: Slot, keys: &[Key]) -> Result<(), Trouble> {
        let goes = |place: &Place| place.slot == slot && keys.contains(&place.key);
        let (unreadable, left) = std::mem::take(self.flipped).into_iter().partition::<BTreeSet<_>, _>(goes);
        *self.flipped = left;
        unreadable.iter().try_for_each(|place| self.store.remove(place))
    }

    fn list(&self, query: &ListQuery, now: Wall, keep: &dyn Fn(Slot) -> bool) -> Result<Page, Trouble> {
        self.store.list(query, now, keep)
    }

    fn clear(&mut self, slot: Slot) -> Result<(), Trouble> {
        self.flipped.retain(|place| place.slot != slot);
        self.store.clear(slot)
    }

    fn evicted(&self, slot: Slot) -> Result<Option<Wall>, Trouble> {
        self.store.evicted(slot)
    }

    fn set_evicted(&mut self, slot: Slot, at: Wall) -> Result<(), Trouble> {
        self.store.set_evicted(slot, at)
    }

    fn usage(&self) -> Usage {
        self.store.usage()
    }

    fn next_expiry(&self) -> Result<Option<Wall>, Trouble> {
        self.store.next_expiry()
    }

    fn expired(&self, now: Wall, limit: usize) -> Result<Vec<Place>, Trouble> {
        self.store.expired(now, limit)
    }

    fn kept(&self) -> Result<Vec<(Slot, String)>, Trouble> {
        self.store.kept()
    }

    fn keep(&mut self, slot: Slot, row: Option<String>) -> Result<(), Trouble> {
        self.store.keep(slot, row)
    }
}
