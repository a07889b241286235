//! The vote on the view that follows the newest of a slot: who stands, who promises, who votes.

use std::collections::BTreeSet;

use super::message::CopyMessage;
use super::{Copies, Held};
use crate::base::{Contact, Time};
use crate::data::Slot;
use crate::replication::View;
use crate::replication::chain::{Election, MEMBERS_MAX, Members, Promise, Turn};

/// An election that this node stands in.
#[derive(Debug)]
pub(super) struct Standing {
    pub election: Election,
    // Its own promise is safe, and the others are asked.
    is_open: bool,
    pub since: Time,
}

impl Held {
    /// Members propose, each in turns of its own.
    fn may_propose(&self, from: &Contact, turn: Turn) -> bool {
        turn.node == from.incarnation && self.chain.newest().is_some_and(|view| view.has(from.incarnation))
    }

    /// Members of any view that is known here, and whoever is invited, may have the records.
    pub(super) fn may_fetch(&self, from: &Contact) -> bool {
        let is_invited = self.inviting.as_ref().is_some_and(|inviting| inviting.newcomer == from.incarnation);
        is_invited || self.chain.views().iter().any(|view| view.has(from.incarnation))
    }
}

impl Standing {
    #[cfg(test)]
    pub fn has_proposed(&self) -> bool {
        self.election.has_proposed()
    }
}

impl Copies {
    /// Proposes the members of the next view of a slot. False if this node cannot, or does already.
    pub(super) fn propose(&mut self, now: Time, slot: Slot, members: Members) -> bool {
        let me = self.me.incarnation;
        let may_stand =
            |held: &&mut Held| held.election.is_none() && held.hopeless_until.is_none_or(|until| now >= until);
        let Some(held) = self.held.get_mut(&slot).filter(may_stand) else { return false };
        let Some(of) = held.chain.newest().filter(|view| view.has(me)).cloned() else { return false };
        let turn = Turn { n: held.chain.turn(of.epoch).map_or(0, |turn| turn.n) + 1, node: me };
        let epoch = of.epoch;
        let election = Election::new(of, turn, members);
        held.election = Some(Box::new(Standing { election, is_open: false, since: now }));
        // Its own promise first: no turn is used twice, whatever happens to the process.
        self.on_elect(self.me, slot, epoch, turn);
        true
    }

    /// Does what somebody has wished for, if the view is still the newest.
    pub(super) fn heed(&mut self, now: Time, from: Contact, slot: Slot, epoch: u64, members: Vec<Contact>) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        let is_newest = held.chain.newest().is_some_and(|view| view.epoch == epoch);
        if is_newest && (1..=MEMBERS_MAX).contains(&members.len()) {
            held.wisher = Some(from);
            self.bring_about(now, slot, members.into());
        }
    }

    pub(super) fn on_elect(&mut self, from: Contact, slot: Slot, epoch: u64, turn: Turn) {
        let Some(held) = self.held.get_mut(&slot) else {
            self.tell_views(from, slot);
            return;
        };
        if held.chain.newest().is_some_and(|view| view.epoch > epoch) {
            self.tell_views(from, slot);
            return;
        }
        if !held.may_propose(&from, turn) {
            return;
        }
        match held.chain.prepare(epoch, turn) {
            Some(Ok(promise)) => self.say_safely(from, slot, CopyMessage::Elected { slot, epoch, turn, promise }),
            Some(Err(turn)) => self.send(from, CopyMessage::Overruled { slot, epoch, turn }),
            None => {}
        }
    }

    fn standing(&mut self, slot: Slot, (epoch, turn): (u64, Turn)) -> Option<&mut Standing> {
        let standing = self.held.get_mut(&slot)?.election.as_mut()?;
        (standing.election.of.epoch == epoch && standing.election.turn == turn).then_some(standing)
    }

    pub(super) fn on_elected(&mut self, from: Contact, slot: Slot, of: (u64, Turn), promise: Promise) {
        let me = self.me.incarnation;
        let Some(standing) = self.standing(slot, of) else { return };
        let view = standing.election.of.clone();
        let opens = from.incarnation == me && !std::mem::replace(&mut standing.is_open, true);
        let members = standing.election.promised(from.incarnation, promise);
        let (epoch, turn) = of;
        if let Some(members) = members {
            self.send_all(&view, &CopyMessage::Vote { slot, epoch, turn, members });
        } else if opens {
            let views = self.views_of(slot);
            for member in view.members.iter().filter(|member| member.incarnation != me) {
                self.send(*member, CopyMessage::Elect { slot, epoch, turn, views: views.clone() });
            }
        }
    }

    pub(super) fn on_vote(&mut self, from: Contact, slot: Slot, (epoch, turn): (u64, Turn), members: &Members) {
        let Some(held) = self.held.get_mut(&slot).filter(|held| held.may_propose(&from, turn)) else { return };
        match held.chain.accept(epoch, turn, members) {
            Some(Ok(())) => self.say_safely(from, slot, CopyMessage::Voted { slot, epoch, turn }),
            Some(Err(turn)) => self.send(from, CopyMessage::Overruled { slot, epoch, turn }),
            None => {}
        }
    }

    pub(super) fn on_voted(&mut self, now: Time, from: Contact, slot: Slot, of: (u64, Turn)) {
        let Some(standing) = self.standing(slot, of) else { return };
        let Some(next) = standing.election.voted(from.incarnation) else { return };
        let before = standing.election.of.clone();
        self.hear(now, slot, std::slice::from_ref(&next));
        self.announce(slot, &[&before, &next]);
    }

    /// Somebody stands in a later turn: this node lets it, and stands again after a while.
    pub(super) fn on_overruled(&mut self, from: Contact, slot: Slot, epoch: u64, turn: Turn) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        if let Some(standing) = held.election.as_ref().filter(|s| s.election.of.epoch == epoch)
            && standing.election.of.has(from.incarnation)
            && standing.election.turn < turn
        {
            // Its promise for that turn is nobody's business, but the next turn must be above it.
            held.chain.prepare(epoch, turn);
            held.election = None;
        }
    }

    fn send_all(&mut self, view: &View, message: &CopyMessage) {
        for member in view.members.iter() {
            self.send(*member, message.clone());
        }
    }

    /// Tells the members of these views, and those who should hear of it, what this node knows of a slot.
    fn announce(&mut self, slot: Slot, of: &[&View]) {
        let me = self.me.incarnation;
        let members: BTreeSet<Contact> = of.iter().flat_map(|view| view.members.iter()).copied().collect();
        let wisher = self.held.get(&slot).and_then(|held| held.wisher);
        let others = self.placing.neighbours.iter().copied().chain(wisher);
        let all: BTreeSet<Contact> = members.into_iter().chain(others).filter(|c| c.incarnation != me).collect();
        for contact in all {
            self.tell_views(contact, slot);
        }
    }
}
