//! One slot on its way from one holder to the next: what either end remembers.

use std::collections::BTreeSet;

use super::message::Entry;
use crate::base::limits::CHUNK_BYTES;
use crate::base::{Contact, Time};
use crate::data::{Cursor, KeySpace, Place, Record, Slot, Store};

/// The old holder's side.
#[derive(Debug)]
pub(super) struct Sending {
    /// The holder to be.
    pub to: Contact,
    /// When it was last offered or last asked for a chunk.
    pub last_word: Time,
    /// The slot serves no more: the last chunk may have arrived.
    pub frozen: bool,
    // Of the latest fetch; `None` before the first.
    serial: Option<u64>,
    // How far any scan of this transfer has come. It never goes back: of two answers to a repeated fetch the receiver
    // uses the first, and starts anew only with a slot that it has emptied.
    passed: Passed,
    // Changed behind the scan, so to be sent again; what was sent again but is not acknowledged by the next fetch.
    dirty: BTreeSet<Cursor>,
    resent: BTreeSet<Cursor>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Passed {
    Nothing,
    UpTo(Cursor),
    Everything,
}

/// A part of a slot, ready to be sent.
pub(super) struct Part {
    pub entries: Vec<Entry>,
    pub next: Option<Cursor>,
    pub is_last: bool,
}

impl Sending {
    pub fn new(to: Contact, now: Time) -> Self {
        Self {
            to,
            last_word: now,
            frozen: false,
            serial: None,
            passed: Passed::Nothing,
            dirty: BTreeSet::new(),
            resent: BTreeSet::new(),
        }
    }

    /// A record was written or removed while the slot is on its way.
    pub fn touched(&mut self, place: &Place) {
        let cursor = (place.id, place.key.clone());
        let behind = match &self.passed {
            Passed::Nothing => false,
            Passed::UpTo(passed) => cursor <= *passed,
            Passed::Everything => true,
        };
        if behind {
            self.dirty.insert(cursor);
        }
    }

    /// The part that a fetch asks for; `None` if it does not fit what was sent before, so that the receiver has to
    /// start anew.
    pub fn part(&mut self, slot: Slot, serial: u64, after: Option<&Cursor>, store: &impl Store) -> Option<Part> {
        let repeated = self.serial == Some(serial);
        if serial == 0 && !repeated {
            self.dirty.append(&mut self.resent);
        } else if self.serial.is_some_and(|last| serial == last + 1) {
            self.resent.clear();
        } else if !repeated {
            return None;
        }
        self.serial = Some(serial);
        let mut part = Part { entries: Vec::new(), next: None, is_last: false };
        let mut bytes = 0;
        if after.is_some() || serial == 0 {
            let chunk = store.scan(slot, after, CHUNK_BYTES);
            bytes = chunk.entries.iter().map(|(key, record)| key.as_bytes().len() + record.user_bytes()).sum();
            part.entries = chunk.entries.into_iter().map(|(key, record)| (key, Some(record))).collect();
            let passed = chunk.next.clone().map_or(Passed::Everything, Passed::UpTo);
            if passed > self.passed {
                self.passed = passed;
            }
            part.next = chunk.next;
        }
        for cursor in &self.resent {
            part.entries.push(read(slot, cursor.clone(), store));
        }
        if part.next.is_none() {
            // The receiver may have the first answer to a repeated fetch, and acknowledges no more than that held.
            if !repeated {
                self.add_changes(slot, &mut part, bytes, store);
            }
            part.is_last = self.dirty.is_empty();
            self.frozen |= part.is_last;
        }
        Some(part)
    }

    /// Adds what changed behind the scan, as far as the chunk has room.
    fn add_changes(&mut self, slot: Slot, part: &mut Part, mut bytes: usize, store: &impl Store) {
        while bytes < CHUNK_BYTES
            && let Some(cursor) = self.dirty.pop_first()
        {
            let entry = read(slot, cursor.clone(), store);
            bytes += entry.0.as_bytes().len() + entry.1.as_ref().map_or(0, Record::user_bytes);
            part.entries.push(entry);
            self.resent.insert(cursor);
        }
    }
}

fn read(slot: Slot, (id, key): Cursor, store: &impl Store) -> Entry {
    let record = store.get(&Place { slot, id, key: key.clone() });
    (key, record)
}

/// The new holder's side.
#[derive(Debug)]
pub(super) struct Receiving {
    /// The holder until then.
    pub from: Contact,
    /// Its epoch.
    pub epoch: u64,
    /// The chunk that is wanted.
    pub serial: u64,
    /// Where it begins.
    pub after: Option<Cursor>,
    /// When it was asked for; `None` while it waits for its turn.
    pub asked: Option<Time>,
    /// How often it was asked for.
    pub attempts: u32,
}

impl Receiving {
    pub fn new(from: Contact, epoch: u64) -> Self {
        Self { from, epoch, serial: 0, after: None, asked: None, attempts: 0 }
    }
}

/// Stores entries that another holder sent. With `merge` the receiver holds records of its own for the slot: the
/// higher version stays, and removals are not believed.
pub(super) fn absorb(space: KeySpace, slot: Slot, entries: Vec<Entry>, merge: bool, store: &mut impl Store) {
    for (key, record) in entries {
        let place = space.place(key);
        if place.slot != slot {
            continue;
        }
        match record {
            Some(record) => {
                let newer = store.get(&place).is_some_and(|present| present.version > record.version);
                if !(merge && newer) {
                    store.put(place, record);
                }
            }
            None if merge => {}
            None => store.remove(&place),
        }
    }
}
