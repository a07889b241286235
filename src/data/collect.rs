//! What deletes leave behind, and its end (`protocol.md` section 4, deletes).
//!
//! A removal of an earlier view may be forgotten once every member of the present one has it and nothing else: whatever was
//! proposed before is refused by its epoch, and whatever is proposed now lies above. What was carried out is forgotten with
//! it, so the slot keeps up to when such operations were asked for: one that is tried again must not be taken for new.

use std::collections::BTreeSet;

use super::key::{Key, Slot};
use super::register::Ballot;
use super::store::{Store, Trouble};
use crate::base::Wall;
use crate::base::limits::CHUNK_BYTES;

/// Removals in a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tombstones {
    /// Those that may go, as far as this member can see.
    pub found: Vec<(Key, Ballot)>,
    /// Those that may go once the view is followed by another.
    pub present: usize,
    /// All others.
    pub young: usize,
}

/// Removals in a slot: of views before this epoch, whose operations were asked for before that time, at most so many.
pub(super) fn tombstones(
    slot: Slot,
    epoch: u64,
    before: Wall,
    limit: usize,
    store: &impl Store,
) -> Result<Tombstones, Trouble> {
    let mut all = Tombstones::default();
    let mut after = None;
    loop {
        let chunk = store.scan(slot, after.as_ref(), CHUNK_BYTES)?;
        for (key, register) in chunk.entries {
            let latest = || register.accepted().and_then(|accepted| accepted.state.recent.latest());
            match register.tombstone(epoch) {
                None => {}
                Some(_) if latest().is_some_and(|latest| latest >= before) => all.young += 1,
                Some(ballot) if ballot.epoch >= epoch => all.present += 1,
                Some(ballot) if all.found.len() < limit => all.found.push((key, ballot)),
                Some(_) => all.young += 1,
            }
        }
        after = chunk.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

/// Of these keys those under which there is exactly that removal, or nothing.
pub(super) fn holds(epoch: u64, keys: Vec<(Key, Ballot)>, store: &impl Store) -> Result<Vec<Key>, Trouble> {
    let mut held = Vec::with_capacity(keys.len());
    for (key, ballot) in keys {
        let place = store.space().place(key);
        match store.register(&place) {
            Ok(None) => held.push(place.key),
            Ok(Some(register)) if register.tombstone(epoch) == Some(ballot) => held.push(place.key),
            Ok(Some(_)) | Err(Trouble::Damaged(_)) => {}
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(held)
}

/// Forgets those of these removals that are still there as they were. How many.
pub(super) fn drop_all(
    slot: Slot,
    epoch: u64,
    keys: Vec<(Key, Ballot)>,
    store: &mut impl Store,
) -> Result<usize, Trouble> {
    let (mut dropped, mut latest) = (0, None);
    for (key, ballot) in keys {
        let place = store.space().place(key);
        let Ok(Some(register)) = store.register(&place) else { continue };
        if register.tombstone(epoch) == Some(ballot) && place.slot == slot {
            latest = latest.max(register.accepted().and_then(|accepted| accepted.state.recent.latest()));
            store.remove(&place)?;
            dropped += 1;
        }
    }
    evict(slot, latest, store)?;
    Ok(dropped)
}

/// Forgets all in a slot but these.
pub(super) fn retain(slot: Slot, keys: &BTreeSet<Key>, store: &mut impl Store) -> Result<(), Trouble> {
    let mut after = None;
    loop {
        let chunk = store.scan(slot, after.as_ref(), CHUNK_BYTES)?;
        for (key, _) in chunk.entries.into_iter().filter(|(key, _)| !keys.contains(key)) {
            store.remove(&store.space().place(key))?;
        }
        after = chunk.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// Operations in a slot that were asked for until then may be forgotten.
pub(super) fn evict(slot: Slot, latest: Option<Wall>, store: &mut impl Store) -> Result<(), Trouble> {
    let known = store.evicted(slot)?;
    match latest.max(known) {
        Some(latest) if Some(latest) != known => store.set_evicted(slot, latest),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Capacity, Incarnation};
    use crate::data::register::{Accepted, OpId, Recent, Register, State};
    use crate::data::{KeySpace, MemoryStore, Outcome};

    const SLOT: Slot = Slot(0);

    fn ballot(epoch: u64, n: u64) -> Ballot {
        Ballot { epoch, round: 0, node: Incarnation(1), n }
    }

    fn key(text: &str) -> Key {
        Key::new(text.as_bytes()).expect("a key")
    }

    fn removal(ballot: Ballot, issued: u64) -> Accepted {
        let id = OpId { node: Incarnation(9), n: issued, issued: Wall(issued) };
        let recent = Recent::new(vec![(id, Outcome::Deleted)], None);
        Accepted { ballot, copied: true, state: State { recent, ..State::default() } }
    }

    fn store(keys: &[(&str, Register)]) -> MemoryStore {
        let mut store = MemoryStore::new(KeySpace::new(Capacity::MAX, 0).expect("one slot"));
        for (text, register) in keys {
            store.set(store.space().place(key(text)), register.clone()).expect("memory");
        }
        store
    }

    #[test]
    fn only_removals_of_earlier_views_that_are_old_and_unpromised_may_go() {
        let of = |promised, accepted| Register::new(promised, Some(accepted));
        let doubtful = Accepted { state: State { doubtful: true, ..State::default() }, ..removal(ballot(4, 9), 5) };
        let mut store = store(&[
            ("old", of(None, removal(ballot(4, 1), 5))),
            ("promised", of(Some(ballot(5, 7)), removal(ballot(4, 2), 5))),
            ("promised before", of(Some(ballot(4, 7)), removal(ballot(4, 3), 6))),
            ("young", of(None, removal(ballot(4, 4), 50))),
            ("present", of(None, removal(ballot(5, 1), 5))),
            ("doubtful", of(None, doubtful)),
        ]);
        let all = tombstones(SLOT, 5, Wall(20), 10, &store).expect("memory");
        let mut found: Vec<_> = all.found.iter().map(|(key, ballot)| (key.clone(), *ballot)).collect();
        found.sort();
        assert_eq!(found, [(key("old"), ballot(4, 1)), (key("promised before"), ballot(4, 3))]);
        assert_eq!((all.present, all.young), (1, 1));
        let other = vec![(key("old"), ballot(4, 8)), (key("never"), ballot(4, 1)), (key("present"), ballot(5, 1))];
        assert_eq!(holds(5, other.clone(), &store), Ok(vec![key("never"), key("present")]));
        assert_eq!(drop_all(SLOT, 5, other[..2].to_vec(), &mut store), Ok(0));
        assert_eq!(store.evicted(SLOT), Ok(None));
        assert_eq!(drop_all(SLOT, 5, found, &mut store), Ok(2));
        assert_eq!(store.evicted(SLOT), Ok(Some(Wall(6))), "the latest that is forgotten");
        assert_eq!(evict(SLOT, Some(Wall(3)), &mut store), Ok(()));
        assert_eq!(store.evicted(SLOT), Ok(Some(Wall(6))), "it never goes back");
        store.clear(SLOT).expect("memory");
        assert_eq!(store.evicted(SLOT), Ok(None));
    }
}
