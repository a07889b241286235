//! Slots that have lost the majority of their members for good go on with what is left of them, once an operator has said
//! so. One survivor fetches from all others, and is then the only member of a view far above what was: whoever comes back
//! later hears of that one, and gives up its own. The survivors are chosen by whoever has asked every living node
//! (`replication/survey.rs`).
//!
//! The heir alone decides whether it begins: two operators who see the same survivors choose the same heir, and it begins
//! only from the newest view that it knows.

use std::collections::BTreeSet;

use super::changes::Fetching;
use super::{Copies, CopiesEffect, CopyMessage, Held};
use crate::base::{Contact, Time};
use crate::data::Slot;
use crate::replication::survey::Surveyed;
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
}

/// That, under way.
#[derive(Debug)]
pub(super) struct Recovering {
    // It is no use any more once another epoch is the newest.
    epoch: u64,
    of: View,
    view: View,
}

/// How far the new view is above the old one: those who are gone may have decided on some that nobody else has heard of.
const EPOCHS_SKIPPED: u64 = 1_000_000;
/// Slots that are told of in one answer.
pub const SURVEYED_AT_ONCE: u32 = 256;

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
    pub fn survey(&self, from: Slot) -> Vec<(SlotRun, Vec<Surveyed>)> {
        let slots = SlotRun { first: from, count: SURVEYED_AT_ONCE }.slots(self.space);
        let views = slots.map(|slot| {
            let has = |view: &View| self.chain(slot).is_some_and(|chain| chain.has_records(view.epoch));
            (slot, self.views_of(slot).into_iter().map(|view| (view.clone(), has(&view))).collect::<Vec<_>>())
        });
        runs_of(views.filter(|(_, views)| !views.is_empty()))
    }

    /// Goes on with what is left of some slots. How many it begins with: not those of which it knows a newer view.
    pub fn recover(&mut self, now: Time, recovery: &Recovery) -> usize {
        let Recovery { run, epoch, of, sources } = recovery;
        let mut begun = 0;
        for slot in run.slots(self.space) {
            if self.view(slot).map_or(0, |view| view.epoch) > *epoch {
                continue;
            }
            if !self.held.contains_key(&slot) {
                let chain = self.fresh_chain(slot);
                self.held.insert(slot, Held::new(chain));
            }
            let Some(held) = self.held.get_mut(&slot) else { continue };
            let view = View::of_one(epoch.saturating_add(EPOCHS_SKIPPED), self.me);
            let of = View { epoch: *of, members: sources.as_slice().into() };
            held.recovering = Some(Box::new(Recovering { epoch: *epoch, of, view }));
            held.fetching = None;
            begun += 1;
            self.fetch(now, slot);
        }
        self.effects.push_back(CopiesEffect::Restless);
        self.hear_own(now);
        begun
    }

    /// All that is left has been fetched.
    pub(super) fn is_recovered(&mut self, slot: Slot) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        let Some(recovering) = held.recovering.take() else { return };
        let before = held.chain.views();
        held.chain.force(recovering.view.clone());
        (held.election, held.inviting, held.restless_since) = (None, None, None);
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
}
