//! What a node has once it knows its ring: the overlay, and its slots.

use super::params::RingParams;
use crate::base::{Id, Now};
use crate::data::Slot;
use crate::overlay::{Overlay, Standing};
use crate::replication::copies::Copies;
use crate::replication::{Execution, Holdings, Neighbourhood, Settled, View, runs_of};

/// What exists once the ring is known.
#[derive(Debug)]
pub(super) struct Inside {
    pub params: RingParams,
    pub overlay: Overlay,
    pub holdings: Holdings,
    /// In place of the holdings, where there are several copies.
    pub copies: Option<Copies>,
}

/// Members that are asked who holds a slot.
const MEMBERS_ASKED_MAX: usize = 64;
impl Inside {
    /// The newest view of a slot that is known here.
    pub fn view(&self, slot: Slot) -> Option<&View> {
        match &self.copies {
            Some(copies) => copies.view(slot),
            None => self.holdings.view(slot),
        }
    }

    /// Hears of a view.
    pub fn learn(&mut self, now: Now, slot: Slot, view: View) {
        match &mut self.copies {
            Some(copies) => copies.hear(now.mono, slot, &[view]),
            None => self.holdings.learn(slot, view),
        }
    }

    /// What was heard of a slot led nowhere.
    pub fn forget(&mut self, slot: Slot) {
        match &mut self.copies {
            Some(copies) => copies.forget(slot),
            None => self.holdings.forget(slot),
        }
    }

    /// Whether the slot has been served without a break since `epoch`: what was read meanwhile is right.
    pub fn serves_still(&self, slot: Slot, epoch: u64) -> bool {
        match &self.copies {
            Some(copies) => copies.served(slot).is_some_and(|view| view.epoch == epoch),
            None => self.holdings.serves_still(slot, epoch),
        }
    }

    /// Whether this node answers for a slot.
    pub fn serves(&self, slot: Slot) -> bool {
        match &self.copies {
            Some(copies) => copies.served(slot).is_some(),
            None => self.holdings.serves(slot),
        }
    }

    /// How many slots this node has a copy of.
    pub fn slots_held(&self) -> usize {
        self.copies.as_ref().map_or_else(|| self.holdings.held(), Copies::held)
    }

    /// How far the slots are from where they belong.
    pub fn settled(&self) -> Settled {
        match &self.copies {
            Some(copies) => {
                let settled = copies.settled();
                Settled { held: copies.held(), to_give: settled.changing, to_take: settled.to_move }
            }
            None => self.holdings.settled(),
        }
    }

    /// Whether nothing is left to do until the ring changes.
    pub fn is_at_rest(&self) -> bool {
        self.copies.as_ref().map_or_else(|| self.holdings.is_at_rest(), Copies::is_at_rest)
    }

    /// Whether a leaver may go.
    pub fn is_drained(&self) -> bool {
        self.copies.as_ref().map_or_else(|| self.holdings.is_drained(), Copies::is_drained)
    }

    /// Whether a leaver has found nobody to take its slots.
    pub fn is_stranded(&self, now: Now) -> bool {
        match &self.copies {
            Some(copies) => copies.is_stranded(now.mono),
            None => self.holdings.is_stranded(now.mono),
        }
    }

    /// Runs a command if this node holds the slot and is in the ring.
    pub fn execute(&mut self, now: Now, place: &crate::data::Place, command: &crate::data::Command) -> Execution {
        if self.overlay.standing().is_member() {
            self.holdings.execute(now, place, command)
        } else {
            // A leaver still knows whom it gave the slot to.
            let me = self.overlay.me().incarnation;
            let others = |view: &&View| view.primary().is_some_and(|primary| primary.incarnation != me);
            Execution::Elsewhere(self.holdings.view(place.slot).filter(others).cloned())
        }
    }

    /// The slots that this node answers for, with their epochs.
    pub fn served(&self) -> Vec<(crate::replication::SlotRun, u64)> {
        if !self.overlay.standing().is_member() {
            return Vec::new();
        }
        if let Some(copies) = &self.copies {
            return runs_of(copies.serving());
        }
        let epoch = |slot| self.holdings.view(slot).map_or(0, |view| view.epoch);
        runs_of(self.holdings.serving().map(|slot| (slot, epoch(slot))))
    }

    /// The id whose successor owns this slot.
    pub fn owner_target(&self, slot: crate::data::Slot) -> Id {
        self.params.space.last_id(slot)
    }
}

/// Lends the holdings what they need to know of the ring.
pub(super) fn with_neighbourhood(overlay: &Overlay, run: impl FnOnce(&Neighbourhood<'_>)) {
    run(&Neighbourhood {
        predecessor: overlay.predecessor(),
        alone: overlay.is_alone(),
        leaving: overlay.standing() == Standing::Leaving,
        successors: overlay.successors(),
        members: &|| overlay.known_members(MEMBERS_ASKED_MAX),
        is_lost: &|contact| overlay.is_lost(contact),
        in_doubt: overlay.is_in_doubt(),
    });
}
