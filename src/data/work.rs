//! What a node asks of its store, and what it hears back: whole operations, each carried out where the records are.
//!
//! The order is that of asking, and each is carried out in full or not at all. What changes something is answered once
//! the change is as safe as the store makes it; what only reads may be answered before what was asked earlier.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::command::{Change, Command, Condition, Outcome, apply};
use super::key::{Key, Place, Slot, SlotSet};
use super::record::{Record, Version};
use super::register::{Accepted, Ballot, Register};
use super::store::{Cursor, HoldRow, Store, Trouble, Usage};
use super::user::{ListQuery, Page};
use super::vote::{Answer, Ask, Vote};
use crate::base::Wall;
use crate::base::limits::CHUNK_BYTES;

/// A key with its record, or with `None`: removed since it was sent.
pub type Entry = (Key, Option<Record>);

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Runs a user's command on one key. Answered by [`Done::Ran`].
    Run {
        /// Where.
        place: Place,
        /// What.
        command: Command,
        /// The version that the key has afterwards, if the command puts something.
        version: Version,
        /// What counts as expired.
        now: Wall,
    },
    /// One page of the keys of some slots. Answered by [`Done::Listed`].
    List {
        /// Which keys.
        query: ListQuery,
        /// Of which slots.
        slots: SlotSet,
        /// What counts as expired.
        now: Wall,
    },
    /// A part of a slot that is on its way to another holder. Answered by [`Done::Read`].
    Read(Part),
    /// Stores what another holder sent. Answered by [`Done::Changed`].
    Absorb {
        /// Of which slot; what belongs to another is left out.
        slot: Slot,
        /// Keys and records.
        entries: Vec<Entry>,
        /// There are records of this node's own: the higher version stays, and removals are not believed.
        merge: bool,
    },
    /// Asks one register, as a member of a view. Answered by [`Done::Voted`].
    Vote(Box<Vote>),
    /// What has been accepted in a slot, a part of it: after this cursor or from the start, until these user bytes are
    /// enough. Answered by [`Done::Scanned`].
    Scan {
        /// The slot.
        slot: Slot,
        /// Where the part before ended.
        after: Option<Cursor>,
        /// How much is enough.
        budget_bytes: usize,
        /// Whoever asks has what this sums up: nothing is scanned if it is the same here.
        unless: Option<Digest>,
    },
    /// Sums up what has been accepted in a slot. Answered by [`Done::Summed`].
    Digest(Slot),
    /// Takes what members of an earlier view have accepted, where it is newer; what belongs to another slot is left out.
    /// Answered by [`Done::Changed`].
    Copy {
        /// The slot.
        slot: Slot,
        /// Keys and what was accepted there.
        entries: Vec<(Key, Accepted)>,
    },
    /// Forgets all records of some slots. Answered by [`Done::Changed`].
    Clear(Vec<Slot>),
    /// Writes down which slots this node holds from now on, and how; `None`: it does not. Answered by [`Done::Changed`].
    Hold(Vec<(Slot, Option<HoldRow>)>),
    /// Keeps these of slots, whatever they mean; `None`: nothing. Answered by [`Done::Changed`].
    Keep(Vec<(Slot, Option<String>)>),
    /// Records that have expired, at most so many. Answered by [`Done::Expired`].
    FindExpired {
        /// What counts as expired.
        now: Wall,
        /// How many.
        limit: usize,
    },
    /// Removes records that have expired, at most so many. Answered by [`Done::Collected`].
    CollectExpired {
        /// What counts as expired.
        now: Wall,
        /// How many.
        limit: usize,
    },
}

/// Which part of a slot is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// The slot.
    pub slot: Slot,
    /// Scan it, after this cursor or from the start; `None`: only the keys below.
    pub scan: Option<Option<Cursor>>,
    /// Keys that are read in any case.
    pub again: Vec<Cursor>,
    /// Keys that are read after these and after the end of the scan, while there is room.
    pub changed: Vec<Cursor>,
    /// How many user bytes are enough.
    pub budget_bytes: usize,
}

/// Sums up which ballot each key of a slot was accepted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// How many keys.
    pub keys: u64,
    /// A sum over them.
    pub sum: u64,
}

impl Digest {
    fn add(&mut self, key: &Key, ballot: Ballot) {
        // Programs of two versions of Rust may differ here: then they copy what both have.
        let mut hasher = DefaultHasher::new();
        (key.as_bytes(), ballot.epoch, ballot.round, { ballot.node.0 }, ballot.n).hash(&mut hasher);
        self.keys += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }
}

/// How an operation went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// A command was run.
    Ran(Outcome),
    /// A page.
    Listed(Page),
    /// A part of a slot.
    Read {
        /// Keys and records.
        entries: Vec<Entry>,
        /// Where the scan goes on; `None` at its end.
        next: Option<Cursor>,
        /// How many of [`Part::changed`] were read.
        changed: usize,
    },
    /// A register has answered.
    Voted(Answer),
    /// A part of a slot.
    Scanned {
        /// Keys and what was accepted there.
        entries: Vec<(Key, Accepted)>,
        /// Where the scan goes on; `None` at its end.
        next: Option<Cursor>,
    },
    /// What a slot sums up to.
    Summed(Digest),
    /// Something was changed.
    Changed,
    /// These have expired.
    Expired(Vec<Place>),
    /// So many records had expired.
    Collected(usize),
    /// Nothing was done.
    Failed(Trouble),
}

/// How a store stands after an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauge {
    /// How much is stored.
    pub usage: Usage,
    /// When the next record expires.
    pub next_expiry: Option<Wall>,
    /// Only removals are taken.
    pub is_full: bool,
    /// The number of the latest commit: they grow, also from one process of a node to the next. 0 in memory.
    pub commit: u64,
}

impl Work {
    /// Whether it changes nothing and may be answered before what was asked earlier. Parts of slots are read in turn:
    /// what was written before must be in them.
    pub fn is_read(&self) -> bool {
        match self {
            Self::Vote(vote) => vote.ask == Ask::Peek,
            other => matches!(other, Self::Run { command: Command::Get, .. } | Self::List { .. }),
        }
    }
}

/// Carries out one operation.
pub fn carry_out(work: Work, store: &mut impl Store) -> Done {
    try_out(work, store).unwrap_or_else(Done::Failed)
}

/// How the store stands.
pub fn gauge(store: &impl Store) -> Gauge {
    Gauge {
        usage: store.usage(),
        next_expiry: store.next_expiry().unwrap_or(None),
        is_full: store.is_full(),
        commit: 0,
    }
}

fn try_out(work: Work, store: &mut impl Store) -> Result<Done, Trouble> {
    Ok(match work {
        Work::Run { place, command, version, now } => run(place, &command, version, now, store)?,
        Work::List { query, slots, now } => Done::Listed(store.list(&query, now, &|slot| slots.contains(slot))?),
        Work::Read(part) => read(part, store)?,
        Work::Absorb { slot, entries, merge } => {
            absorb(slot, entries, merge, store)?;
            Done::Changed
        }
        Work::Vote(vote) => Done::Voted(vote.carry_out(store)?),
        Work::Digest(slot) => Done::Summed(digest(slot, store)?),
        Work::Scan { slot, unless: Some(unless), .. } if digest(slot, store)? == unless => {
            Done::Scanned { entries: Vec::new(), next: None }
        }
        Work::Scan { slot, after, budget_bytes, .. } => {
            let chunk = store.scan(slot, after.as_ref(), budget_bytes)?;
            let accepted = |(key, register): (Key, Register)| Some((key, register.into_accepted()?));
            Done::Scanned { entries: chunk.entries.into_iter().filter_map(accepted).collect(), next: chunk.next }
        }
        Work::Copy { slot, entries } => {
            copy(slot, entries, store)?;
            Done::Changed
        }
        Work::Clear(slots) => {
            for slot in slots {
                store.clear(slot)?;
            }
            Done::Changed
        }
        Work::Hold(rows) => {
            for (slot, row) in rows {
                store.set_hold(slot, row)?;
            }
            Done::Changed
        }
        Work::Keep(rows) => {
            for (slot, row) in rows {
                store.keep(slot, row)?;
            }
            Done::Changed
        }
        Work::FindExpired { now, limit } => Done::Expired(store.expired(now, limit)?),
        Work::CollectExpired { now, limit } => {
            let due = store.expired(now, limit)?;
            for place in &due {
                store.remove(place)?;
            }
            Done::Collected(due.len())
        }
    })
}

fn run(place: Place, command: &Command, version: Version, now: Wall, store: &mut impl Store) -> Result<Done, Trouble> {
    let mut is_over_damage = false;
    let current = match store.get(&place) {
        // Nobody can say any more what it was: good riddance.
        Err(Trouble::Damaged(_)) if *command == Command::Delete(Condition::default()) => {
            store.remove(&place)?;
            return Ok(Done::Ran(Outcome::Deleted));
        }
        Err(Trouble::Damaged(_)) if command.is_unconditional_put() => {
            is_over_damage = true;
            None
        }
        current => current?,
    };
    let applied = apply(current.as_ref(), command, version, now);
    match applied.change {
        Change::None => {}
        Change::Put(record) => store.put(place, record)?,
        Change::Remove => store.remove(&place)?,
    }
    Ok(match applied.outcome {
        // Something was there, whatever it was.
        Outcome::Created(version) if is_over_damage => Done::Ran(Outcome::Replaced(version)),
        outcome => Done::Ran(outcome),
    })
}

fn read(part: Part, store: &impl Store) -> Result<Done, Trouble> {
    let Part { slot, scan, again, changed, budget_bytes } = part;
    let size = |key: &Key, record: Option<&Record>| key.as_bytes().len() + record.map_or(0, Record::user_bytes);
    let (mut entries, mut next, mut bytes) = (Vec::new(), None, 0);
    if let Some(after) = scan {
        let chunk = store.scan(slot, after.as_ref(), budget_bytes)?;
        bytes = chunk.entries.iter().map(|(key, register)| size(key, register.record())).sum();
        entries.extend(chunk.entries.into_iter().map(|(key, register)| (key, register.into_record())));
        next = chunk.next;
    }
    let get = |(id, key): Cursor| -> Result<Entry, Trouble> {
        let record = store.get(&Place { slot, id, key: key.clone() })?;
        Ok((key, record))
    };
    for cursor in again {
        entries.push(get(cursor)?);
    }
    let mut taken = 0;
    for cursor in changed {
        if next.is_some() || bytes >= budget_bytes {
            break;
        }
        let entry = get(cursor)?;
        bytes += size(&entry.0, entry.1.as_ref());
        entries.push(entry);
        taken += 1;
    }
    Ok(Done::Read { entries, next, changed: taken })
}

/// Two slots with one digest are taken to have accepted the same.
fn digest(slot: Slot, store: &impl Store) -> Result<Digest, Trouble> {
    let (mut digest, mut after) = (Digest::default(), None);
    loop {
        let chunk = store.scan(slot, after.as_ref(), CHUNK_BYTES)?;
        for (key, register) in &chunk.entries {
            if let Some(accepted) = register.accepted() {
                digest.add(key, accepted.ballot);
            }
        }
        after = chunk.next;
        if after.is_none() {
            return Ok(digest);
        }
    }
}

fn copy(slot: Slot, entries: Vec<(Key, Accepted)>, store: &mut impl Store) -> Result<(), Trouble> {
    let space = store.space();
    let places = entries.into_iter().map(|(key, theirs)| (space.place(key), theirs));
    for (place, theirs) in places.filter(|(place, _)| place.slot == slot) {
        let mut register = store.register(&place)?.unwrap_or_default();
        if register.copy(&theirs) {
            store.set(place, register)?;
        }
    }
    Ok(())
}

fn absorb(slot: Slot, entries: Vec<Entry>, merge: bool, store: &mut impl Store) -> Result<(), Trouble> {
    let space = store.space();
    for (key, record) in entries {
        let place = space.place(key);
        if place.slot != slot {
            continue;
        }
        match record {
            Some(record) => {
                let newer = merge && store.get(&place)?.is_some_and(|present| present.version > record.version);
                if !newer {
                    store.put(place, record)?;
                }
            }
            None if merge => {}
            None => store.remove(&place)?,
        }
    }
    Ok(())
}
