//! One slot on its way from one holder to the next: what either end remembers.
//!
//! The store reads a part of the slot in turn with the writes, so a part holds what was asked for before it. What is
//! written while a part is read comes with a later one, and the slot is frozen with the part that leaves nothing.

use std::collections::BTreeSet;

use crate::base::limits::CHUNK_BYTES;
use crate::base::{Contact, Time};
use crate::data::{Cursor, Part, Place, Slot};

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
    reading: Option<Reading>,
}

/// A part that the store has been asked for.
#[derive(Debug)]
struct Reading {
    ticket: u64,
    scans: bool,
    changed: Vec<Cursor>,
    // Written since.
    meanwhile: BTreeSet<Cursor>,
    // Frozen for this part, which should be the last.
    frozen_for_it: bool,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Passed {
    Nothing,
    UpTo(Cursor),
    Everything,
}

/// Changed keys that are read for one part, at most.
const CHANGED_MAX: usize = 1_024;

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
            reading: None,
        }
    }

    /// One whose last chunk may have arrived before this process began: it is only offered again.
    pub fn resumed(to: Contact, now: Time) -> Self {
        Self { frozen: true, ..Self::new(to, now) }
    }

    /// A record is written or removed while the slot is on its way.
    pub fn touched(&mut self, place: &Place) {
        let cursor = (place.id, place.key.clone());
        if let Some(reading) = &mut self.reading {
            reading.meanwhile.insert(cursor);
        } else if self.is_behind(&cursor) {
            self.dirty.insert(cursor);
        }
    }

    fn is_behind(&self, cursor: &Cursor) -> bool {
        match &self.passed {
            Passed::Nothing => false,
            Passed::UpTo(passed) => cursor <= passed,
            Passed::Everything => true,
        }
    }

    /// Whether a part is being read for an earlier fetch.
    pub fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// The part that a fetch asks for, to be read under this ticket; `None` if it does not fit what was sent before, so
    /// that the receiver has to start anew.
    pub fn begin(&mut self, ticket: u64, slot: Slot, serial: u64, after: Option<&Cursor>) -> Option<Part> {
        let repeated = self.serial == Some(serial);
        if serial == 0 && !repeated {
            self.dirty.append(&mut self.resent);
        } else if self.serial.is_some_and(|last| serial == last + 1) {
            self.resent.clear();
        } else if !repeated {
            return None;
        }
        self.serial = Some(serial);
        let scan = (after.is_some() || serial == 0).then(|| after.cloned());
        // The receiver may have the first answer to a repeated fetch, and acknowledges no more than that held.
        let changed: Vec<Cursor> =
            if repeated { Vec::new() } else { self.dirty.iter().take(CHANGED_MAX).cloned().collect() };
        // A few changes are all that is left: writers wait while they are read, or they would go on for ever.
        let frozen_for_it = scan.is_none() && !repeated && !self.frozen;
        self.frozen |= frozen_for_it;
        let part = Part {
            slot,
            scan,
            again: self.resent.iter().cloned().collect(),
            changed: changed.clone(),
            budget_bytes: CHUNK_BYTES,
        };
        let meanwhile = BTreeSet::new();
        self.reading = Some(Reading { ticket, scans: part.scan.is_some(), changed, meanwhile, frozen_for_it });
        Some(part)
    }

    /// The store has read the part of this ticket: where its scan goes on, and how many of the changed keys are in it;
    /// `None` if it could not. Whether it is the last, with which the slot is frozen; `None` if the ticket is an old one.
    pub fn end(&mut self, ticket: u64, read: Option<(Option<&Cursor>, usize)>) -> Option<bool> {
        let reading = self.reading.take_if(|reading| reading.ticket == ticket)?;
        if let Some((next, changed)) = read {
            let passed = next.cloned().map_or(Passed::Everything, Passed::UpTo);
            if reading.scans && passed > self.passed {
                self.passed = passed;
            }
            for cursor in reading.changed.into_iter().take(changed) {
                self.dirty.remove(&cursor);
                self.resent.insert(cursor);
            }
        }
        for cursor in reading.meanwhile {
            if self.is_behind(&cursor) {
                self.dirty.insert(cursor);
            }
        }
        let is_last = read.is_some_and(|(next, _)| next.is_none()) && self.dirty.is_empty();
        self.frozen = is_last || self.frozen && !reading.frozen_for_it;
        Some(is_last)
    }
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
    /// The store is about to keep the chunk, under this ticket.
    pub absorbing: Option<u64>,
}

impl Receiving {
    pub fn new(from: Contact, epoch: u64) -> Self {
        Self { from, epoch, serial: 0, after: None, asked: None, attempts: 0, absorbing: None }
    }
}
