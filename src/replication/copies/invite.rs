//! A newcomer agrees before it is voted for, and copies the records ahead, so that the slot is frozen for a moment only.
//!
//! Whoever has agreed does not leave the ring before it knows the next view: it may be needed for a majority of it.

use super::message::{CopyMessage, Part};
use super::mutation::Mutation;
use super::{Awaited, Copies, Held};
use crate::base::{Contact, Incarnation, Span, Time};
use crate::data::{Cursor, Slot, Work};
use crate::replication::chain::Members;

/// At the member that would propose.
#[derive(Debug)]
pub(super) struct Inviting {
    pub members: Members,
    pub newcomer: Incarnation,
    // When it said something last, or was invited first.
    pub heard: Time,
    // When it was invited last.
    said: Time,
}

/// At the newcomer.
#[derive(Debug)]
pub(super) struct Invited {
    epoch: u64,
    by: Contact,
    // Begins anywhere: an answer to an earlier question must not be taken for one to this.
    serial: u64,
    after: Option<Cursor>,
    is_copying: bool,
    pub is_ready: bool,
    // When it was invited last; when something came of it.
    at: Time,
    heard: Time,
}

/// Silence after which somebody is invited again.
const INVITE_AGAIN: Span = Span::millis(500);
/// So long after something came from one member another's invitation to the same is not heeded.
const HEEDED_FOR: Span = Span::secs(3);
/// After so long without a word whoever was invited asks to be released.
const INVITED_FOR: Span = Span::secs(5);

impl Copies {
    /// Sees to it that the next view of a slot has these members: asks the one that is new, or proposes it at once. False
    /// if this node cannot, or does already.
    pub(super) fn bring_about(&mut self, now: Time, slot: Slot, members: Members) -> bool {
        let asks = !self.mutated(Mutation::NobodyIsAsked);
        let again = self.patience(INVITE_AGAIN);
        let Some(held) = self.held.get_mut(&slot).filter(|held| held.election.is_none()) else { return false };
        let Some(view) = held.chain.newest().cloned() else { return false };
        let newcomer = members.iter().find(|member| !view.has(member.incarnation)).copied();
        let Some(newcomer) = newcomer.filter(|_| asks) else {
            return self.propose(now, slot, members);
        };
        let known = held.inviting.as_ref().filter(|inviting| inviting.newcomer == newcomer.incarnation);
        if known.is_some_and(|inviting| inviting.members == members && now.since(inviting.said) < again) {
            return false;
        }
        let heard = known.map_or(now, |inviting| inviting.heard);
        held.inviting = Some(Box::new(Inviting { members, newcomer: newcomer.incarnation, heard, said: now }));
        let views = self.views_of(slot);
        self.send(newcomer, CopyMessage::Invite { slot, views });
        true
    }

    pub(super) fn on_ready(&mut self, now: Time, from: Contact, slot: Slot, epoch: u64) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        let is_newest = held.chain.newest().is_some_and(|view| view.epoch == epoch);
        let is_asked = held.inviting.as_ref().is_some_and(|inviting| inviting.newcomer == from.incarnation);
        if is_newest
            && is_asked
            && let Some(inviting) = held.inviting.take()
        {
            self.propose(now, slot, inviting.members);
        }
    }

    /// Where a question begins to count.
    pub(super) fn any_serial(&mut self) -> u64 {
        self.rng.next_u64() >> 1
    }

    // ----- the newcomer -----

    pub(super) fn on_invite(&mut self, now: Time, from: Contact, slot: Slot) {
        let Some(view) = self.view(slot).cloned() else { return };
        if self.placing.is_leaving() {
            self.send(from, CopyMessage::Leaving);
            return;
        }
        let is_over = self.over.get(&slot).is_some_and(|over| view.epoch < *over);
        if is_over || !view.has(from.incarnation) || view.has(self.me.incarnation) {
            self.tell_views(from, slot);
            return;
        }
        let known = self.invited.get(&slot).filter(|invited| invited.epoch == view.epoch);
        if known.is_some_and(|invited| invited.by != from && now.since(invited.heard) < HEEDED_FOR) {
            return;
        }
        if known.is_none_or(|invited| invited.by != from) {
            let is_empty =
                |held: &Held| held.fetching.is_none() && !held.chain.has_any_records() && !held.chain.has_agreed();
            if self.held.get(&slot).is_none_or(is_empty) {
                // What is left of a time long past must not come to light again.
                self.store(Work::Clear(vec![slot]));
            }
            if !self.held.contains_key(&slot) {
                let mut chain = self.fresh_chain(slot);
                chain.learn(std::slice::from_ref(&view));
                self.held.insert(slot, Held::new(chain));
            }
            let writes_down = !self.mutated(Mutation::ForgetsAgreements);
            if let Some(held) = self.held.get_mut(&slot).filter(|_| writes_down) {
                held.chain.agree();
            }
            let (serial, after) = (self.any_serial(), None);
            let invited = Invited {
                epoch: view.epoch,
                by: from,
                serial,
                after,
                is_copying: false,
                is_ready: false,
                at: now,
                heard: now,
            };
            self.invited.insert(slot, invited);
        }
        if let Some(invited) = self.invited.get_mut(&slot) {
            invited.at = now;
        }
        self.copy_ahead(slot);
    }

    fn copy_ahead(&mut self, slot: Slot) {
        let views = self.views_of(slot);
        let Some(invited) = self.invited.get(&slot).filter(|invited| !invited.is_copying) else { return };
        let (to, epoch) = (invited.by, invited.epoch);
        if invited.is_ready {
            // Also in a process to come: what it has agreed to is written down.
            self.say_safely(to, slot, CopyMessage::Ready { slot, epoch });
        } else {
            let (serial, after) = (invited.serial, invited.after.clone());
            self.send(to, CopyMessage::Fetch { slot, epoch, views, ahead: true, digest: None, serial, after });
        }
    }

    /// A part that may have been asked for ahead.
    pub(super) fn on_part_ahead(
        &mut self,
        now: Time,
        from: Contact,
        slot: Slot,
        (epoch, serial): (u64, u64),
        part: Part,
    ) {
        let Some(invited) = self.invited.get_mut(&slot) else { return };
        if (invited.epoch, invited.by, invited.serial) != (epoch, from, serial)
            || invited.is_ready
            || invited.is_copying
        {
            return;
        }
        (invited.is_copying, invited.heard) = (true, now);
        // What the other cannot read is fetched from those who can.
        let Part { entries, next, evicted, .. } = part;
        self.store_and(Work::Copy { slot, entries, evicted }, Awaited::CopiedAhead { slot, serial, next });
    }

    pub(super) fn copied_ahead(&mut self, slot: Slot, serial: u64, next: Option<Cursor>, is_done: bool) {
        let Some(invited) = self.invited.get_mut(&slot).filter(|invited| invited.serial == serial) else { return };
        invited.is_copying = false;
        if is_done {
            invited.serial += 1;
            invited.is_ready = next.is_none();
            invited.after = next;
            self.copy_ahead(slot);
        }
    }

    /// Slots for which this node was invited, and nothing comes of it: whoever invited it is gone, or wishes for others.
    pub(super) fn stale_invitations(&self, now: Time) -> Vec<Slot> {
        let last = |slot: &Slot| {
            let invited = self.invited.get(slot).map(|invited| invited.at);
            invited.or_else(|| self.held.get(slot)?.restless_since)
        };
        let is_stale = |slot: &Slot| last(slot).is_some_and(|at| now.since(at) >= INVITED_FOR);
        self.invitations().into_iter().filter(is_stale).collect()
    }

    /// The slots for which this node was invited, and nothing has come of it yet.
    pub(super) fn invitations(&self) -> Vec<Slot> {
        self.held.iter().filter(|(_, held)| held.chain.has_agreed()).map(|(slot, _)| *slot).collect()
    }
}
