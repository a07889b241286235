//! What every store must do: one suite, run against each. It is part of the library so that the tests of other layers can
//! run it on theirs.

use std::collections::BTreeMap;

use super::command::Outcome;
use super::key::{Key, KeySpace, Place, Slot};
use super::record::{Record, Version};
use super::register::{Accepted, OpId, Recent, Register, State};
use super::store::{Store, Trouble, Usage};
use super::user::ListQuery;
use crate::base::{Capacity, Id, Incarnation, Rng, Wall};

const NOW: Wall = Wall(50);

/// What was set, as a plain map does it.
type Model = BTreeMap<Vec<u8>, Register>;

/// Runs the suite on stores that `make` gives, each empty, with this seed.
///
/// # Panics
/// A store does something else than a plain map.
pub fn conform<S: Store>(seed: u64, mut make: impl FnMut(KeySpace) -> S) {
    // Ids of many widths, also such that fall together.
    let bits = [160, 8, 63, 64, 129, 40][usize::try_from(seed % 6).unwrap_or(0)];
    let space = KeySpace::new(Capacity::new(bits).expect("a width"), 2).expect("two bits of them");
    let mut rng = Rng::new(seed);
    let mut store = make(space);
    let mut model = Model::new();
    assert_eq!(store.space(), space);
    for n in 0..rng.below(60) {
        change(&mut store, &mut model, &mut rng, space, n).expect("a store without faults");
    }
    same_records(&store, &model, space).expect("a store without faults");
    same_scans(&store, &model, space).expect("a store without faults");
    same_pages(&store, &model, space, &mut rng).expect("a store without faults");
    same_rows(&mut store).expect("a store without faults");
    same_evicted(&mut store).expect("a store without faults");
}

fn place(space: KeySpace, key: &[u8]) -> Place {
    space.place(Key::new(key).expect("a key"))
}

fn record(rng: &mut Rng, n: u64) -> Record {
    let value: Vec<u8> = (0..rng.below(40)).map(|_| b'v').chain([u8::try_from(n % 256).unwrap_or(0)]).collect();
    let content_type = (rng.below(3) == 0).then(|| "text/plain".into());
    let expires = (rng.below(3) == 0).then(|| Wall(rng.below(100)));
    let version = Version { round: rng.below(2) * u64::MAX, ..ballot(n) };
    Record { value: value.into(), content_type, version, modified: Wall(n), expires }
}

fn ballot(n: u64) -> Version {
    Version { epoch: u64::MAX - 1, round: 3, n, node: Incarnation(u128::MAX - u128::from(n % 5)) }
}

/// With every kind of vote, also on a key that was removed.
fn register(rng: &mut Rng, n: u64) -> Register {
    let is_plain = rng.below(3) == 0;
    let record = (is_plain || rng.below(4) > 0).then(|| record(rng, n));
    if let Some(record) = record.clone().filter(|_| is_plain) {
        return record.into();
    }
    let outcomes = [
        Outcome::NotFound,
        Outcome::Deleted,
        Outcome::PreconditionFailed(None),
        Outcome::PreconditionFailed(Some(ballot(n))),
        Outcome::Created(ballot(n)),
        Outcome::Replaced(Version { round: 0, ..ballot(n + 1) }),
    ];
    let id = |n: usize| OpId { node: Incarnation(n as u128), n: u64::MAX - n as u64, issued: Wall(300 << n) };
    let ended = (0..rng.index(8)).map(|n| (id(n), outcomes[n % 6].clone())).collect();
    let gone = (0..rng.below(4)).map(|n| (Incarnation(n.into()), u64::MAX - n)).collect();
    let recent = Recent::new(ended, (rng.below(2) == 0).then_some(Wall(n << 20))).with_gone(gone);
    let state = State { record, recent, doubtful: rng.below(4) == 0 };
    let accepted = Accepted { ballot: ballot(n), copied: rng.below(2) == 0, state };
    let promised = (rng.below(2) == 0).then(|| ballot(n + 128));
    Register::new(promised, (rng.below(6) > 0).then_some(accepted))
}

fn change<S: Store>(store: &mut S, model: &mut Model, rng: &mut Rng, space: KeySpace, n: u64) -> Result<(), Trouble> {
    let key: Vec<u8> = (0..=rng.below(3)).map(|_| u8::try_from(rng.below(3)).unwrap_or(0)).collect();
    match rng.below(10) {
        0 => {
            let slot = Slot(u32::try_from(rng.below(4)).unwrap_or(0));
            store.clear(slot)?;
            model.retain(|key, _| place(space, key).slot != slot);
        }
        1..=3 => {
            store.remove(&place(space, &key))?;
            model.remove(&key);
        }
        _ => {
            let register = register(rng, n);
            store.set(place(space, &key), register.clone())?;
            model.insert(key, register);
        }
    }
    Ok(())
}

fn same_records<S: Store>(store: &S, model: &Model, space: KeySpace) -> Result<(), Trouble> {
    for (key, register) in model {
        assert_eq!(store.register(&place(space, key))?.as_ref(), Some(register));
        assert_eq!(store.get(&place(space, key))?.as_ref(), register.record());
    }
    assert_eq!(store.register(&place(space, b"nobody put this"))?, None);
    let records = || model.iter().filter_map(|(key, register)| Some((key, register.record()?)));
    let bytes: usize = records().map(|(key, record)| key.len() + record.user_bytes()).sum();
    assert_eq!(store.usage(), Usage { keys: records().count() as u64, bytes: bytes as u64 });
    assert_eq!(store.next_expiry()?, records().filter_map(|(_, record)| record.expires).min());
    let due = records().filter(|(_, record)| record.is_expired(NOW)).count();
    assert_eq!(store.expired(NOW, usize::MAX)?.len(), due);
    assert_eq!(store.expired(NOW, 1)?.len(), due.min(1));
    Ok(())
}

/// Scans by chunks of any size meet every key of a slot once, in the order of the ids.
fn same_scans<S: Store>(store: &S, model: &Model, space: KeySpace) -> Result<(), Trouble> {
    let mut scanned = 0;
    for slot in space.all_slots() {
        let mut cursor = None;
        let mut ids: Vec<Id> = Vec::new();
        loop {
            let chunk = store.scan(slot, cursor.as_ref(), 20)?;
            for (key, register) in &chunk.entries {
                assert_eq!(model.get(key.as_bytes()), Some(register));
                ids.push(space.place(key.clone()).id);
            }
            cursor = chunk.next;
            if cursor.is_none() {
                break;
            }
        }
        assert!(ids.is_sorted() && ids.iter().all(|id| space.slot_of(*id) == slot));
        scanned += ids.len();
    }
    assert_eq!(scanned, model.len());
    Ok(())
}

/// Pages of any size meet every live key of a prefix once, in order, and no slot that is not wanted.
fn same_pages<S: Store>(store: &S, model: &Model, space: KeySpace, rng: &mut Rng) -> Result<(), Trouble> {
    for prefix in [vec![], vec![1], vec![1, 2]] {
        let kept = Slot(u32::try_from(rng.below(4)).unwrap_or(0));
        let keep = |slot: Slot| slot != kept;
        let mut after = None;
        let mut listed: Vec<Vec<u8>> = Vec::new();
        loop {
            let query = ListQuery { prefix: prefix.clone(), after: after.clone(), limit: 2 };
            let page = store.list(&query, NOW, &keep)?;
            assert!(page.items.len() <= 2 && (!page.more || page.items.len() == 2));
            for item in &page.items {
                let record = model[item.key.as_bytes()].record().expect("only records are listed");
                assert_eq!((item.size, item.version), (record.value.len() as u64, record.version));
                assert_eq!((&item.content_type, item.expires), (&record.content_type, record.expires));
                listed.push(item.key.as_bytes().to_vec());
            }
            after = listed.last().cloned();
            if !page.more {
                break;
            }
        }
        let wanted = |key: &[u8], register: &Register| {
            let is_live = register.record().is_some_and(|record| !record.is_expired(NOW));
            key.starts_with(&prefix) && is_live && keep(place(space, key).slot)
        };
        let expected: Vec<_> =
            model.iter().filter(|(key, register)| wanted(key, register)).map(|(key, _)| key.clone()).collect();
        assert_eq!(listed, expected);
    }
    Ok(())
}

fn same_rows<S: Store>(store: &mut S) -> Result<(), Trouble> {
    assert_eq!(store.kept()?, []);
    for (slot, row) in [(2, Some("two")), (0, Some("none")), (3, Some("three")), (3, Some("3")), (0, None)] {
        store.keep(Slot(slot), row.map(str::to_owned))?;
    }
    assert_eq!(store.kept()?, [(Slot(2), "two".to_owned()), (Slot(3), "3".to_owned())]);
    Ok(())
}

/// Kept of each slot, until it is cleared.
fn same_evicted<S: Store>(store: &mut S) -> Result<(), Trouble> {
    assert_eq!(store.evicted(Slot(1))?, None);
    for (slot, at) in [(1, 7), (2, 8), (1, 9)] {
        store.set_evicted(Slot(slot), Wall(at))?;
    }
    assert_eq!([0, 1, 2].map(|slot| store.evicted(Slot(slot))), [Ok(None), Ok(Some(Wall(9))), Ok(Some(Wall(8)))]);
    store.clear(Slot(1))?;
    assert_eq!([1, 2].map(|slot| store.evicted(Slot(slot))), [Ok(None), Ok(Some(Wall(8)))]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::MemoryStore;

    #[test]
    fn the_memory_store_does_what_a_plain_map_does() {
        (0..200).for_each(|seed| conform(seed, MemoryStore::new));
    }
}
