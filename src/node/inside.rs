//! What a node has once it knows its ring: the overlay, and its copies.

use super::params::RingParams;
use crate::base::{Contact, Id, Now};
use crate::data::Slot;
use crate::overlay::{Overlay, Standing};
use crate::replication::copies::Copies;
use crate::replication::{Neighbourhood, SlotRun, View, runs_of};

/// What exists once the ring is known.
#[derive(Debug)]
pub(super) struct Inside {
    pub params: RingParams,
    pub overlay: Overlay,
    pub copies: Copies,
}

/// Members that are asked who holds a slot.
const MEMBERS_ASKED_MAX: usize = 64;

impl Inside {
    /// Hears of a view.
    pub fn learn(&mut self, now: Now, slot: Slot, view: View) {
        self.copies.hear(now.mono, slot, &[view]);
    }

    /// Whether the slot has been served without a break since `epoch`: what was read meanwhile is right.
    pub fn serves_still(&self, slot: Slot, epoch: u64) -> bool {
        self.copies.served(slot).is_some_and(|view| view.epoch == epoch)
    }

    /// The slots that this node is to tell of, or all that it serves, with their epochs.
    pub fn served(&self, all: bool) -> Vec<(SlotRun, u64)> {
        let me = self.overlay.me();
        let counts = |(slot, _): &(Slot, u64)| {
            all || self.teller(*slot).is_some_and(|teller| teller.incarnation == me.incarnation)
        };
        if self.overlay.standing().is_member() { runs_of(self.copies.serving().filter(counts)) } else { Vec::new() }
    }

    /// Who tells of a slot's keys: the first member of its view, as far as known here, that answers.
    pub fn teller(&self, slot: Slot) -> Option<Contact> {
        let view = self.copies.view(slot)?;
        view.members.iter().find(|member| self.overlay.answers(member)).copied()
    }

    /// The id whose successor owns this slot.
    pub fn owner_target(&self, slot: Slot) -> Id {
        self.params.space.last_id(slot)
    }

    /// Lets the copies see the ring around this node.
    pub fn maintain(&mut self, now: Now) {
        let overlay = &self.overlay;
        let around = Neighbourhood {
            predecessor: overlay.predecessor(),
            alone: overlay.is_alone(),
            leaving: overlay.standing() == Standing::Leaving,
            round_trip: overlay.usual_round_trip(),
            successors: overlay.successors(),
            is_whole: overlay.knows_ring(),
            reach: self.params.successors + 1,
            weight: &|contact| overlay.weight(contact),
            keep_for: overlay.keeps_for(),
            members: &|| overlay.known_members(MEMBERS_ASKED_MAX),
            answers: &|contact| overlay.answers(contact),
            is_lost: &|contact| overlay.is_lost(contact),
        };
        self.copies.maintain(now.mono, &around);
    }
}
