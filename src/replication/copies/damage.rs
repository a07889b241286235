//! Records in which bits have flipped. The member that finds one has the view followed by another of the same members: they
//! fetch from each other, and whoever cannot read a record says so and does not count for that key.
//!
//! What a majority has accepted is with one of any n - n/2 members. A key of which fewer can be read is *doubtful* from then
//! on: users are told, and may put or delete it.

use std::collections::BTreeSet;

use super::changes::{Fetching, Mended};
use super::{Awaited, Copies, CopiesEffect, Timer};
use crate::base::{Contact, Span, Time};
use crate::data::register::Accepted;
use crate::data::{Digest, Done, Key, Slot, Trouble, Work};
use crate::replication::Neighbourhood;

/// Slots that need mending, and the rescan.
#[derive(Debug, Default)]
pub(super) struct Damage {
    found: BTreeSet<Slot>,
    rescanned: Option<Slot>,
}

/// How often a slot is looked through, one after the other.
const RESCAN_EVERY: Span = Span::secs(10);

impl Fetching {
    /// Keys of which too few of those can be read who have given everything.
    pub fn short(&self) -> Vec<Key> {
        let members = self.of.members.len();
        let enough = members - members / 2;
        let all: BTreeSet<&Key> = self.done.values().flatten().collect();
        let readable = |key: &Key| self.done.values().filter(|damaged| !damaged.contains(key)).count();
        all.into_iter().filter(|key| readable(key) < enough).cloned().collect()
    }

    /// Takes out what is for records that cannot be read here. Those stay as they are until enough is known of them: whoever
    /// fetches from here meanwhile must be told that they are damaged, not what a single other member has.
    pub fn keep_for_damaged(&mut self, entries: Vec<(Key, Accepted)>) -> Vec<(Key, Accepted)> {
        let mut readable = Vec::with_capacity(entries.len());
        for (key, theirs) in entries {
            match self.damaged.get_mut(&key) {
                None => readable.push((key, theirs)),
                Some(Some(known)) if known.ballot >= theirs.ballot => {}
                Some(known) => *known = Some(theirs),
            }
        }
        readable
    }
}

impl Copies {
    /// A register may have answered that it cannot be read.
    pub(super) fn look_for_damage(&mut self, done: &Done) {
        if let Done::Failed(Trouble::Damaged(key)) = done {
            self.found_damage(self.space.place(key.clone()).slot);
        }
    }

    /// A record of this slot cannot be read here.
    pub(super) fn found_damage(&mut self, slot: Slot) {
        if self.damage.found.insert(slot) {
            self.effects.push_back(CopiesEffect::Restless);
        }
    }

    /// The records of a slot were fetched anew, or are gone.
    pub(super) fn is_undamaged(&mut self, slot: Slot) {
        self.damage.found.remove(&slot);
    }

    /// How many slots wait to be mended.
    pub(super) fn damaged(&self) -> usize {
        self.damage.found.len()
    }

    /// Begins to mend what can be mended now.
    pub(super) fn mend_damage(&mut self, now: Time, around: &Neighbourhood<'_>) {
        self.rescan_later(now);
        self.repair_later(now, RESCAN_EVERY);
        let me = self.me;
        for slot in self.damage.found.clone() {
            if !self.held.contains_key(&slot) {
                self.is_undamaged(slot);
                continue;
            }
            // With one that is silent there may be too few; either it answers again, or it is replaced.
            let all_answer = |contact: &Contact| *contact == me || (around.answers)(contact);
            let view = self.served(slot).filter(|view| view.members.iter().all(all_answer)).cloned();
            if let Some(view) = view {
                self.propose(now, slot, view.members);
            }
        }
    }

    fn rescan_later(&mut self, now: Time) {
        if self.timers.get(Timer::Rescan).is_none() {
            self.timers.set(Timer::Rescan, now + RESCAN_EVERY);
        }
    }

    /// Looks through the next slot.
    pub(super) fn rescan(&mut self, now: Time) {
        self.rescan_later(now);
        let after = self.held.range(self.damage.rescanned.map_or(Slot(0), |slot| Slot(slot.0 + 1))..).next();
        let next = after.or_else(|| self.held.first_key_value()).map(|(slot, _)| *slot);
        if let Some(slot) = next {
            self.damage.rescanned = Some(slot);
            self.store_and(Work::Digest(slot), Awaited::Summed { slot });
        }
    }

    /// What could not be read was put right, or could not be: then that is tried again in a while.
    pub(super) fn mended(&mut self, now: Time, slot: Slot, epoch: u64, is_done: bool) {
        let fetching = self.held.get_mut(&slot).and_then(|held| held.fetching.as_mut());
        let is_it = |f: &&mut Box<Fetching>| f.view.epoch == epoch && f.mended == Mended::UnderWay;
        if let Some(fetching) = fetching.filter(is_it) {
            fetching.mended = if is_done { Mended::Yes } else { Mended::No };
            if is_done {
                self.is_fetched(now, slot);
            }
        }
    }

    /// What is here of a slot was looked through. `None`: the store could not.
    pub(super) fn summed(&mut self, now: Time, slot: Slot, ticket: u64, summed: Option<(Digest, Vec<Key>)>) {
        let me = self.me.incarnation;
        let Some(held) = self.held.get_mut(&slot) else { return };
        let Some(fetching) = held.fetching.as_mut().filter(|fetching| fetching.sum_ticket == ticket) else {
            if summed.is_some_and(|(_, damaged)| !damaged.is_empty()) {
                self.found_damage(slot);
            }
            return;
        };
        // Where the store could not, it is asked again.
        fetching.sum_ticket = 0;
        if let Some((digest, damaged)) = summed {
            fetching.digest = Some(digest);
            fetching.damaged = damaged.iter().map(|key| (key.clone(), None)).collect();
            if fetching.is_source {
                fetching.done.insert(me, damaged);
            }
        }
        if !self.is_fetched(now, slot) {
            self.ask_sources(slot, false);
        }
    }
}
