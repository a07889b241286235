//! Two copies of a slot compared: sums over ranges of it, split where they differ until few keys are left, so that of a slot
//! only what differs travels (Meyer 2023, range-based set reconciliation).

use super::key::{Key, Slot};
use super::register::{Ballot, Register};
use super::store::{Cursor, Store, Trouble};
use super::work::Digest;
use crate::base::limits::CHUNK_BYTES;

/// A part of a slot and what somebody has there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// It begins behind this; `None`: where the slot does.
    pub after: Option<Cursor>,
    /// It ends with this; `None`: where the slot does.
    pub to: Option<Cursor>,
    /// What is there; `None`: not known yet.
    pub digest: Option<Digest>,
}

/// What somebody else has of a slot, as far as it differs: keys and what was accepted there, and parts that differ further.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Keys and in which ballots.
    pub items: Vec<(Key, Ballot)>,
    /// Parts.
    pub ranges: Vec<Range>,
    /// Keys that cannot be read there; never sent.
    pub damaged: Vec<Key>,
}

/// What a difference means here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Of these keys somebody else has something later.
    pub behind: Vec<(Key, Ballot)>,
    /// Of these parts it is to tell more: what is here.
    pub ranges: Vec<Range>,
    /// Keys that cannot be read here.
    pub damaged: Vec<Key>,
    /// Bytes looked through.
    pub bytes: u64,
}

/// So few keys are told one by one.
pub const ITEMS_MAX: usize = 32;
/// A part is split into so many.
pub const PARTS: usize = 16;

/// How what is here differs from what somebody else has in these parts.
pub(super) fn differ(slot: Slot, ranges: Vec<Range>, store: &impl Store) -> Result<Difference, Trouble> {
    let mut difference = Difference::default();
    for range in ranges {
        let (mut digest, mut items) = (Digest::default(), Vec::new());
        let damaged = each(slot, &range, store, |key, ballot, _| {
            digest.add(key, ballot);
            if items.len() <= ITEMS_MAX {
                items.push((key.clone(), ballot));
            }
        })?;
        difference.damaged.extend(damaged);
        if range.digest == Some(digest) {
            continue;
        }
        if items.len() <= ITEMS_MAX {
            difference.items.append(&mut items);
        } else {
            split(slot, &range, digest.keys, &mut difference.ranges, store)?;
        }
    }
    Ok(difference)
}

/// Cuts a part with so many keys into parts with about as many each.
fn split(slot: Slot, range: &Range, keys: u64, parts: &mut Vec<Range>, store: &impl Store) -> Result<(), Trouble> {
    let each_has = keys.div_ceil(PARTS as u64);
    let (mut part, mut last) = (Digest::default(), None);
    let mut after = range.after.clone();
    let space = store.space();
    each(slot, range, store, |key, ballot, _| {
        if part.keys == each_has {
            let to = last.take();
            parts.push(Range { after: std::mem::replace(&mut after, to.clone()), to, digest: Some(part) });
            part = Digest::default();
        }
        part.add(key, ballot);
        last = Some((space.place(key.clone()).id, key.clone()));
    })?;
    // What lies behind the last key here may be there elsewhere.
    parts.push(Range { after, to: range.to.clone(), digest: Some(part) });
    Ok(())
}

/// What somebody else's difference means here.
pub(super) fn resolve(slot: Slot, difference: Difference, store: &impl Store) -> Result<Resolved, Trouble> {
    let mut resolved = Resolved::default();
    for (key, theirs) in difference.items {
        let place = store.space().place(key);
        match store.register(&place) {
            Err(Trouble::Damaged(key)) => resolved.damaged.push(key),
            own => {
                let own = own?.as_ref().and_then(Register::accepted).map(|accepted| accepted.ballot);
                if own < Some(theirs) && place.slot == slot {
                    resolved.behind.push((place.key, theirs));
                }
            }
        }
    }
    for range in difference.ranges {
        let mut digest = Digest::default();
        let mut bytes = 0;
        let damaged = each(slot, &range, store, |key, ballot, size| {
            digest.add(key, ballot);
            bytes += size;
        })?;
        resolved.bytes += bytes;
        resolved.damaged.extend(damaged);
        if range.digest != Some(digest) {
            resolved.ranges.push(Range { digest: Some(digest), ..range });
        }
    }
    Ok(resolved)
}

/// Every key in a part, with the ballot and the bytes of what was accepted there. Those that cannot be read.
fn each(
    slot: Slot,
    range: &Range,
    store: &impl Store,
    mut see: impl FnMut(&Key, Ballot, u64),
) -> Result<Vec<Key>, Trouble> {
    let space = store.space();
    let (mut after, mut damaged) = (range.after.clone(), Vec::new());
    loop {
        let chunk = store.scan(slot, after.as_ref(), CHUNK_BYTES)?;
        let is_inside = |key: &Key| match &range.to {
            Some((id, last)) => (space.place(key.clone()).id, key) <= (*id, last),
            None => true,
        };
        damaged.extend(chunk.damaged.into_iter().filter(|key| is_inside(key)));
        for (key, register) in &chunk.entries {
            if !is_inside(key) {
                return Ok(damaged);
            }
            if let Some(accepted) = register.accepted() {
                let size = key.as_bytes().len() + register.record().map_or(0, super::Record::user_bytes);
                see(key, accepted.ballot, size as u64);
            }
        }
        after = chunk.next;
        if after.is_none() {
            return Ok(damaged);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Capacity, Incarnation};
    use crate::data::register::{Accepted, State};
    use crate::data::{KeySpace, MemoryStore};

    fn ballot(n: u64) -> Ballot {
        Ballot { epoch: 2, round: 0, node: Incarnation(1), n }
    }

    fn key(n: u64) -> Key {
        Key::new(format!("key {n}").into_bytes()).expect("a key")
    }

    fn set(store: &mut MemoryStore, key: Key, n: u64) {
        let place = store.space().place(key);
        let accepted = Accepted { ballot: ballot(n), copied: false, state: State::default() };
        store.set(place, Register::new(None, Some(accepted))).expect("room");
    }

    /// Two stores with one slot and so many keys.
    fn stores(keys: u64) -> (MemoryStore, MemoryStore) {
        let space = KeySpace::new(Capacity::MAX, 0).expect("a space");
        let mut store = MemoryStore::new(space);
        (0..keys).for_each(|n| set(&mut store, key(n), 1));
        (store.clone(), store)
    }

    /// Compares: what is behind here, in how many rounds, and how many keys and parts travelled.
    fn compare(here: &MemoryStore, there: &MemoryStore) -> (Vec<(Key, Ballot)>, usize, usize) {
        let (mut difference, mut behind) =
            (Difference { ranges: vec![Range::default()], ..Difference::default() }, Vec::new());
        let (mut rounds, mut travelled) = (0, 0);
        loop {
            let mut resolved = resolve(Slot(0), difference, here).expect("it can be read");
            behind.append(&mut resolved.behind);
            if resolved.ranges.is_empty() {
                return (behind, rounds, travelled);
            }
            rounds += 1;
            travelled += resolved.ranges.len();
            difference = differ(Slot(0), resolved.ranges, there).expect("it can be read");
            travelled += difference.items.len() + difference.ranges.len();
        }
    }

    #[test]
    fn what_is_the_same_is_told_in_one_round() {
        let (here, there) = stores(1_000);
        assert_eq!(compare(&here, &there), (vec![], 1, 1));
    }

    /// `reconcile_1_of_1M`, with as many keys as a test can make at ease: rounds grow with the logarithm.
    #[test]
    fn reconcile_1_of_many_takes_few_rounds_and_little_is_said() {
        for (keys, rounds_max) in [(10, 2), (1_000, 3), (100_000, 5)] {
            let (here, mut there) = stores(keys);
            set(&mut there, key(keys / 3), 5);
            let (behind, rounds, travelled) = compare(&here, &there);
            assert_eq!(behind, [(key(keys / 3), ballot(5))]);
            assert!(rounds <= rounds_max && travelled <= 100, "{keys}: {rounds} rounds, {travelled}");
            let (behind, ..) = compare(&there, &here);
            assert_eq!(behind, [], "there nothing is behind");
        }
    }

    #[test]
    fn whatever_is_missing_or_old_anywhere_is_found() {
        let (mut here, mut there) = stores(3_000);
        let mut wanted = Vec::new();
        for n in (0..3_500).step_by(7) {
            set(&mut there, key(n), 3);
            wanted.push((key(n), ballot(3)));
        }
        for n in (1..3_000).step_by(11) {
            set(&mut here, key(n), 2);
        }
        let (mut behind, ..) = compare(&here, &there);
        behind.sort();
        wanted.sort();
        assert_eq!(behind, wanted);
        let empty = MemoryStore::new(here.space());
        let more = (0..3_500).step_by(7).filter(|n| *n >= 3_000).count();
        assert_eq!(compare(&empty, &there).0.len(), 3_000 + more);
        assert_eq!(compare(&here, &empty).0, []);
    }
}
