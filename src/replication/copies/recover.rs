//! Slots that have lost the majority of their members for good go on with what is left of them, once an operator has said
//! so. One survivor fetches from all others, and is then the only member of a view far above what was: whoever comes back
//! later hears of that one, and gives up its own. The survivors are chosen by whoever has asked every living node
//! (`replication/survey.rs`).
//!
//! Only some slots at a time are on their way, as all their records are read.

use std::collections::{BTreeMap, BTreeSet};

use super::changes::Fetching;
use super::placing::MOVES_MAX;
use super::{Copies, CopiesEffect, CopyMessage, Held};
use crate::base::{Contact, Time};
use crate::data::Slot;
use crate::replication::survey::{Said, Surveyed};
use crate::replication::{SlotRun, View, runs_of};

/// What the heir of some slots is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// The slots.
    pub run: SlotRun,
    /// The newest epoch that anybody knows of them.
    pub epoch: u64,
    /// The epoch whose records the sources have.
    pub of: u64,
    /// Who has records; nobody: the slots begin empty.
    pub sources: Vec<Contact>,
    /// Of the view to come: above those of all attempts before, and of nobody else's.
    pub next: u64,
}

/// One slot that goes on so.
#[derive(Debug)]
pub(super) struct Recovering {
    // It is no use any more once another epoch is the newest.
    epoch: u64,
    of: View,
    view: View,
}

/// How far a forced view is above the old one, at least: those who are gone may have decided on some that nobody else has
/// heard of.
pub const EPOCHS_SKIPPED: u64 = 1_000_000;
/// Slots that are told of in one answer.
pub const SURVEYED_AT_ONCE: u32 = 256;

/// Slots to recover that wait for their turn.
pub(super) type Waiting = BTreeMap<Slot, Recovering>;

impl Recovering {
    fn is_the_same(&self, other: &Self) -> bool {
        (self.epoch, &self.of) == (other.epoch, &other.of)
    }
}

impl Held {
    /// The views whose records this member lacks, each with the view of those who have them, the most wanted first.
    pub(super) fn wanted(&self) -> Vec<(View, View)> {
        match &self.recovering {
            Some(recovering) => vec![(recovering.view.clone(), recovering.of.clone())],
            None => self.chain.wanted(),
        }
    }

    /// Another view was heard of than the one that was to be recovered from.
    pub(super) fn recovers_no_longer(&mut self) {
        let newest = self.chain.newest().map_or(0, |view| view.epoch);
        if self.recovering.as_ref().is_some_and(|recovering| recovering.epoch < newest) {
            (self.recovering, self.fetching) = (None, None);
        }
    }

    pub(super) fn is_recovering(&self, fetching: &Fetching) -> bool {
        self.recovering.as_ref().is_some_and(|recovering| recovering.view == fetching.view)
    }
}

impl Copies {
    /// What this node keeps of views, or has heard of: of [`SURVEYED_AT_ONCE`] slots from this one on.
    pub fn survey(&self, from: Slot) -> Vec<(SlotRun, Said)> {
        let slots = SlotRun { first: from, count: SURVEYED_AT_ONCE }.slots(self.space);
        let said = slots.map(|slot| {
            let has = |view: &View| self.chain(slot).is_some_and(|chain| chain.has_records(view.epoch));
            let views: Vec<Surveyed> = self.views_of(slot).into_iter().map(|view| (view.clone(), has(&view))).collect();
            (slot, Said { views, over: self.over.get(&slot).copied().unwrap_or(0) })
        });
        runs_of(said.filter(|(_, said)| *said != Said::default()))
    }

    /// Goes on with what is left of some slots, those that `may` be: not those of which it knows a newer view.
    pub fn recover(&mut self, now: Time, recovery: &Recovery, may: &dyn Fn(&View) -> bool) {
        let Recovery { run, epoch, of, sources, next } = recovery;
        for slot in run.slots(self.space) {
            let is_newest = self.view(slot).is_none_or(|view| view.epoch <= *epoch);
            if !is_newest || !self.served(slot).is_none_or(may) {
                continue;
            }
            let view = View::of_one((*next).max(epoch.saturating_add(EPOCHS_SKIPPED)), self.me);
            let of = View { epoch: *of, members: sources.as_slice().into() };
            let recovering = Recovering { epoch: *epoch, of, view };
            let running = self.held.get(&slot).and_then(|held| held.recovering.as_deref());
            if !running.is_some_and(|running| running.is_the_same(&recovering)) {
                self.recoveries.insert(slot, recovering);
            }
        }
        self.recover_more(now);
        self.effects.push_back(CopiesEffect::Restless);
        self.hear_own(now);
    }

    /// Begins with as many as may be on their way.
    pub(super) fn recover_more(&mut self, now: Time) {
        let running = |copies: &Self| copies.held.values().filter(|held| held.recovering.is_some()).count();
        let mut room = if self.recoveries.is_empty() { 0 } else { MOVES_MAX.saturating_sub(running(self)) };
        while room > 0
            && let Some((slot, recovering)) = self.recoveries.pop_first()
        {
            if self.view(slot).is_some_and(|view| view.epoch > recovering.epoch) {
                continue;
            }
            room -= 1;
            if !self.held.contains_key(&slot) {
                let chain = self.fresh_chain(slot);
                self.held.insert(slot, Held::new(chain));
            }
            let Some(held) = self.held.get_mut(&slot) else { continue };
            let served = held.chain.served().is_some();
            held.recovering = Some(Box::new(recovering));
            held.fetching = None;
            self.fetch(now, slot);
            if served {
                self.freeze(now, slot);
            }
        }
    }

    /// How many slots wait for their turn.
    pub(super) fn to_recover(&self) -> usize {
        self.recoveries.len()
    }

    /// All that is left has been fetched: the slot goes on.
    pub(super) fn finish_recovery(&mut self, now: Time, slot: Slot) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        let Some(recovering) = held.recovering.take() else { return };
        let before = held.chain.views();
        held.chain.force(recovering.view.clone());
        (held.election, held.inviting, held.restless_since) = (None, None, None);
        self.end_operations(now, slot);
        self.views.learn(slot, recovering.view.clone());
        // Whoever hears of it gives up its own: only once nothing can take it back.
        let members = before.iter().chain([&recovering.of]).flat_map(|view| view.members.iter());
        let others = members.chain(&self.placing.neighbours).filter(|c| c.incarnation != self.me.incarnation);
        let told: BTreeSet<Contact> = others.copied().collect();
        for contact in told {
            let views = vec![(SlotRun { first: slot, count: 1 }, vec![recovering.view.clone()])];
            self.say_safely(contact, slot, CopyMessage::Notice { views });
        }
    }

    /// Views are heard of that were forced without this node: what it has of the slot may be newer than what the ring went on
    /// with, and must not come to light again.
    pub(super) fn give_up_forced(&mut self, slot: Slot, views: &[View]) {
        let newest = self.held.get(&slot).and_then(|held| held.chain.newest());
        let is_forced =
            |own: &View| views.last().is_some_and(|view| view.epoch >= own.epoch.saturating_add(EPOCHS_SKIPPED));
        if newest.is_some_and(is_forced) {
            self.drop_slot(slot);
        }
    }
}
