//! What a node asks of its store, and what it hears back: whole operations, each carried out where the records are.
//!
//! The order is that of asking, and each is carried out in full or not at all. What changes something is answered once
//! the change is as safe as the store makes it; what only reads may be answered before what was asked earlier.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};

use super::collect::{self, Tombstones};
use super::compare::{self, Difference, Range, Resolved};
use super::key::{Key, Place, Slot, SlotSet};
use super::register::{Accepted, Ballot, Register};
use super::store::{Cursor, Store, Trouble, Usage};
use super::user::{ListQuery, Page};
use super::vote::{Answer, Ask, Vote};
use crate::base::Wall;
use crate::base::limits::CHUNK_BYTES;

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// One page of the keys of some slots. Answered by [`Done::Listed`].
    List {
        /// Which keys.
        query: ListQuery,
        /// Of which slots.
        slots: SlotSet,
        /// What counts as expired.
        now: Wall,
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
    /// Sums up what has been accepted in a slot, and finds what cannot be read. Answered by [`Done::Summed`].
    Digest(Slot),
    /// How slots here differ from what somebody else has in these parts. Answered by [`Done::Differs`].
    Differ(Vec<(Slot, Vec<Range>)>),
    /// What such differences mean here. Answered by [`Done::Resolved`].
    Resolve(Vec<(Slot, Difference)>),
    /// Takes what members of an earlier view have accepted, where it is newer; what belongs to another slot is left out, and
    /// what stands where nothing can be read.
    /// Answered by [`Done::Changed`].
    Copy {
        /// The slot.
        slot: Slot,
        /// Keys and what was accepted there.
        entries: Vec<(Key, Accepted)>,
        /// Of removals there that are forgotten, when the latest of their operations was asked for.
        evicted: Option<Wall>,
    },
    /// Looks for removals of views before this epoch that may be forgotten. Answered by [`Done::Tombstones`].
    Tombstones {
        /// The slot.
        slot: Slot,
        /// The epoch.
        epoch: u64,
        /// Their operations were asked for before.
        before: Wall,
        /// At most so many.
        limit: usize,
    },
    /// Which of these removals are here, and nothing else under those keys? Answered by [`Done::Held`].
    Hold {
        /// Of the present view.
        epoch: u64,
        /// Keys and removals.
        keys: Vec<(Key, Ballot)>,
    },
    /// Forgets these removals where they are still here. Answered by [`Done::Dropped`].
    Drop {
        /// The slot.
        slot: Slot,
        /// Of the present view.
        epoch: u64,
        /// Keys and removals.
        keys: Vec<(Key, Ballot)>,
    },
    /// Ends the copying of what the members of the view of this epoch had accepted: puts what is known now where nothing
    /// could be read, and marks what may not be the latest. Answered by [`Done::Changed`].
    Mend {
        /// The slot.
        slot: Slot,
        /// The epoch.
        epoch: u64,
        /// What could not be read, and what others have; `None`: nobody has anything.
        damaged: BTreeMap<Key, Option<Accepted>>,
        /// What is to be marked.
        doubtful: Vec<Key>,
        /// All that they have: what else is here is of an earlier time, and was removed and forgotten since. `None`: nothing
        /// else is here.
        all: Option<BTreeSet<Key>>,
    },
    /// Forgets all records of some slots. Answered by [`Done::Changed`].
    Clear(Vec<Slot>),
    /// Keeps these of slots, whatever they mean; `None`: nothing. Answered by [`Done::Changed`].
    Keep(Vec<(Slot, Option<String>)>),
    /// Records that have expired, at most so many. Answered by [`Done::Expired`].
    FindExpired {
        /// What counts as expired.
        now: Wall,
        /// How many.
        limit: usize,
    },
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
    pub(super) fn add(&mut self, key: &Key, ballot: Ballot) {
        // Of bytes alone, so that nodes of any kind agree.
        let mut hasher = DefaultHasher::new();
        for number in [key.as_bytes().len() as u64, ballot.epoch, ballot.round, ballot.n] {
            hasher.write(&number.to_le_bytes());
        }
        hasher.write(&ballot.node.0.to_le_bytes());
        hasher.write(key.as_bytes());
        self.keys += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }
}

/// How an operation went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// A page.
    Listed(Page),
    /// A register has answered.
    Voted(Answer),
    /// A part of a slot.
    Scanned {
        /// Keys and what was accepted there.
        entries: Vec<(Key, Accepted)>,
        /// Keys of which that cannot be read.
        damaged: Vec<Key>,
        /// Where the scan goes on; `None` at its end.
        next: Option<Cursor>,
        /// Of removals in the slot that are forgotten, when the latest of their operations was asked for.
        evicted: Option<Wall>,
        /// It is what whoever asks has, and was left out.
        same: bool,
    },
    /// Removals in a slot.
    Tombstones(Tombstones),
    /// These keys hold what they should.
    Held(Vec<Key>),
    /// So many removals were forgotten.
    Dropped(usize),
    /// What a slot sums up to.
    Summed {
        /// Of what can be read.
        digest: Digest,
        /// Keys of which nothing can.
        damaged: Vec<Key>,
    },
    /// What differs in each of the slots.
    Differs(Vec<(Slot, Difference)>),
    /// What is to be done about each of the slots.
    Resolved(Vec<(Slot, Resolved)>),
    /// Something was changed.
    Changed,
    /// These have expired.
    Expired(Vec<Place>),
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
            other => matches!(other, Self::List { .. }),
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
        Work::List { query, slots, now } => Done::Listed(store.list(&query, now, &|slot| slots.contains(slot))?),
        Work::Vote(vote) => Done::Voted(vote.carry_out(store)?),
        Work::Digest(slot) => {
            let (digest, damaged) = digest(slot, store)?;
            Done::Summed { digest, damaged }
        }
        Work::Differ(slots) => Done::Differs(each(slots, |slot, ranges| compare::differ(slot, ranges, store))?),
        Work::Resolve(slots) => Done::Resolved(each(slots, |slot, of| compare::resolve(slot, of, store))?),
        Work::Scan { slot, unless: Some(unless), .. } if digest(slot, store)? == (unless, Vec::new()) => {
            Done::Scanned {
                entries: Vec::new(),
                damaged: Vec::new(),
                next: None,
                evicted: store.evicted(slot)?,
                same: true,
            }
        }
        Work::Scan { slot, after, budget_bytes, .. } => {
            let chunk = store.scan(slot, after.as_ref(), budget_bytes)?;
            let accepted = |(key, register): (Key, Register)| Some((key, register.into_accepted()?));
            let entries = chunk.entries.into_iter().filter_map(accepted).collect();
            Done::Scanned {
                entries,
                damaged: chunk.damaged,
                next: chunk.next,
                evicted: store.evicted(slot)?,
                same: false,
            }
        }
        Work::Copy { slot, entries, evicted } => {
            copy(slot, entries.into_iter(), store)?;
            collect::evict(slot, evicted, store)?;
            Done::Changed
        }
        Work::Tombstones { slot, epoch, before, limit } => {
            Done::Tombstones(collect::tombstones(slot, epoch, before, limit, store)?)
        }
        Work::Hold { epoch, keys } => Done::Held(collect::holds(epoch, keys, store)?),
        Work::Drop { slot, epoch, keys } => Done::Dropped(collect::drop_all(slot, epoch, keys, store)?),
        Work::Mend { slot, epoch, damaged, doubtful, all } => {
            let keys: Vec<Key> = damaged.keys().cloned().collect();
            store.sweep(slot, &keys)?;
            copy(slot, damaged.into_iter().filter_map(|(key, theirs)| Some((key, theirs?))), store)?;
            if let Some(mut all) = all {
                all.extend(keys);
                collect::retain(slot, &all, store)?;
            }
            doubt(epoch, doubtful, store)?;
            Done::Changed
        }
        Work::Clear(slots) => {
            for slot in slots {
                store.clear(slot)?;
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
    })
}

fn each<T, U>(slots: Vec<(Slot, T)>, what: impl Fn(Slot, T) -> Result<U, Trouble>) -> Result<Vec<(Slot, U)>, Trouble> {
    slots.into_iter().map(|(slot, of)| Ok((slot, what(slot, of)?))).collect()
}

/// Two slots with one digest are taken to have accepted the same.
fn digest(slot: Slot, store: &impl Store) -> Result<(Digest, Vec<Key>), Trouble> {
    let (mut digest, mut damaged, mut after) = (Digest::default(), Vec::new(), None);
    loop {
        let chunk = store.scan(slot, after.as_ref(), CHUNK_BYTES)?;
        damaged.extend(chunk.damaged);
        for (key, register) in &chunk.entries {
            if let Some(accepted) = register.accepted() {
                digest.add(key, accepted.ballot);
            }
        }
        after = chunk.next;
        if after.is_none() {
            return Ok((digest, damaged));
        }
    }
}

fn copy(slot: Slot, entries: impl Iterator<Item = (Key, Accepted)>, store: &mut impl Store) -> Result<(), Trouble> {
    let space = store.space();
    let places = entries.map(|(key, theirs)| (space.place(key), theirs));
    for (place, theirs) in places.filter(|(place, _)| place.slot == slot) {
        let mut register = match store.register(&place) {
            Err(Trouble::Damaged(_)) => continue,
            other => other?.unwrap_or_default(),
        };
        if register.copy(&theirs) {
            store.set(place, register)?;
        }
    }
    Ok(())
}

fn doubt(epoch: u64, keys: Vec<Key>, store: &mut impl Store) -> Result<(), Trouble> {
    for key in keys {
        let place = store.space().place(key);
        let mut register = match store.register(&place) {
            Err(Trouble::Damaged(_)) => Register::default(),
            other => other?.unwrap_or_default(),
        };
        register.doubt(epoch);
        store.set(place, register)?;
    }
    Ok(())
}
