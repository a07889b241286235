//! Coming into the ring and going out of it.
//!
//! A joiner looks its own id up, asks the node before it to be let in, takes that node's list as its own and tells its
//! successor. A leaver goes only when its predecessor has another successor that it has itself asked.

use super::message::{Found, JoinVerdict, RingMessage, Standing};
use super::mutation::Mutation;
use super::ring::{Ask, Effect, JoinFailed, Overlay, Timer};
use crate::base::{Contact, Span, Time, between};

/// A join in progress, or what a member remembers of one that it admitted.
#[derive(Debug)]
pub(super) enum Joining {
    /// This node joins, through that contact.
    Through(Contact),
    /// This member reserved its arc for a joiner until then.
    Admitted(Contact, Time),
}

/// A joiner that must wait does so for this long plus as much again at random.
const RETRY_AFTER_MS: u64 = 20;

/// Joiners that one who is on its way in itself remembers.
pub(super) const TURNED_AWAY_MAX: usize = 64;

/// How long joiners wait for the successor to know of the member that lets them in.
const VOUCH_WAIT: Span = Span::secs(3);

impl Overlay {
    // ----- the joiner -----

    /// Joins the ring that `via` belongs to. Ends in [`Effect::Joined`] or [`Effect::JoinFailed`].
    pub fn join(&mut self, now: Time, via: Contact) {
        if self.standing.is_member() || self.standing == Standing::Left {
            return;
        }
        self.awake(now);
        self.peers.mention(via, &mut self.rng);
        self.set_standing(Standing::Joining);
        self.joining = Some(Joining::Through(via));
        self.continue_join(now);
    }

    /// Looks the own id up; the answer comes from the node to ask.
    pub(super) fn continue_join(&mut self, now: Time) {
        if let (Standing::Joining, Some(Joining::Through(via))) = (self.standing, &self.joining) {
            let via = *via;
            self.lookup_own_id(now, via);
        }
    }

    pub(super) fn join_place_found(&mut self, now: Time, before: Contact) {
        if self.standing == Standing::Joining && self.joining.is_some() {
            self.ask(now, before, Ask::Join, |request| RingMessage::Join { request });
        }
    }

    pub(super) fn join_silent(&mut self) {
        if self.standing == Standing::Joining && self.joining.take().is_some() {
            self.effect(Effect::JoinFailed(JoinFailed::Silent));
        }
    }

    pub(super) fn on_join_reply(&mut self, now: Time, from: Contact, request: u64, verdict: JoinVerdict) {
        let asked = self.sent_at(request);
        if self.take_reply(now, from, request) != Some(Ask::Join) || self.standing != Standing::Joining {
            return;
        }
        let late = asked.is_none_or(|at| now.since(at) * 2 >= self.config.admission);
        match verdict {
            // Half of the reservation must be left, for the word that we are in to arrive: afterwards others come and
            // go, and the list is worth nothing.
            JoinVerdict::Granted(_) if late => self.retry_join(now, RETRY_AFTER_MS),
            JoinVerdict::Granted(list) => match list.split_first() {
                // Checked again against the head of the list that came with it (protocol.md section 1).
                Some((head, tail)) if *head == from || between(from.id, self.me.id, head.id) => {
                    let tail = if self.mutated(Mutation::JoinCopiesOnePointer) { &[] } else { tail };
                    self.enter(now, from, *head, tail);
                }
                _ => self.retry_join(now, RETRY_AFTER_MS),
            },
            JoinVerdict::NotHere => self.retry_join(now, RETRY_AFTER_MS),
            JoinVerdict::RetryAfter(ms) => self.retry_join(now, u64::from(ms)),
            JoinVerdict::DuplicateId(other) => {
                self.joining = None;
                self.effect(Effect::JoinFailed(JoinFailed::DuplicateId(other)));
            }
        }
    }

    /// A node at another address has this node's id: whoever is in the ring stays.
    pub(super) fn on_twin(&mut self, twin: Contact, message: &RingMessage) {
        match message {
            RingMessage::Lookup { lookup, .. } if self.standing.is_member() => {
                let found = Found { request: lookup.request, owner: self.me, before: self.me, hops: 1, silent: 0 };
                self.send(twin, RingMessage::Found(found));
            }
            RingMessage::Found(_) if self.standing == Standing::Joining && self.joining.take().is_some() => {
                self.effect(Effect::JoinFailed(JoinFailed::DuplicateId(twin)));
            }
            _ => {}
        }
    }

    fn retry_join(&mut self, now: Time, after_ms: u64) {
        let jitter = self.rng.below(after_ms + 1);
        self.timers.set(Timer::Join, now + Span::millis(after_ms + jitter));
    }

    fn enter(&mut self, now: Time, before: Contact, head: Contact, tail: &[Contact]) {
        self.joining = None;
        self.set_standing(Standing::Member);
        self.was_member = true;
        self.linked = false;
        self.entered = now;
        self.vouched_by = None;
        self.weights.forget();
        self.predecessor = Some(before);
        self.predecessor_before = None;
        self.start_maintenance(now);
        self.adopt(now, head, tail);
        self.effect(Effect::Joined);
        self.send(head, RingMessage::Notify);
        // So that the predecessor need not wait for its next round to find us.
        self.send(before, RingMessage::Offer { contact: self.me });
        self.call_in();
    }

    /// Those who were turned away need not wait until they try again: each waits up to ten seconds, and others for it.
    pub(super) fn call_in(&mut self) {
        for contact in std::mem::take(&mut self.turned_away) {
            self.send(contact, RingMessage::Offer { contact: self.me });
        }
    }

    // ----- the member that lets one in -----

    pub(super) fn on_join(&mut self, now: Time, from: Contact, request: u64) {
        let verdict = self.judge_join(now, from);
        self.send(from, RingMessage::JoinReply { request, verdict });
    }

    fn judge_join(&mut self, now: Time, joiner: Contact) -> JoinVerdict {
        let wait = u32::try_from(RETRY_AFTER_MS + self.rng.below(RETRY_AFTER_MS)).unwrap_or(u32::MAX);
        match self.standing {
            Standing::Member => {}
            Standing::Leaving => return JoinVerdict::RetryAfter(wait * 4),
            _ => return JoinVerdict::NotHere,
        }
        let neighbours = self.successors.as_slice().iter().chain(&self.predecessor);
        if let Some(other) = neighbours.copied().find(|c| c.id == joiner.id && c.incarnation != joiner.incarnation) {
            return JoinVerdict::DuplicateId(other);
        }
        // The list that would be granted is about to change, or may be stale already.
        if !self.linked || self.is_asking(|ask| matches!(ask, Ask::Replace { .. })) {
            return JoinVerdict::RetryAfter(wait);
        }
        if self.successors.first() == Some(joiner) {
            // Its reply was lost, or it was an orphan that we still list.
            let room = self.successors.as_slice().len() <= self.config.successors;
            let rest = self.successors.as_slice()[1..].iter().copied();
            // With this node at its end: the rest may be dead, and the joiner must not be orphaned by that.
            return JoinVerdict::Granted(rest.chain(room.then_some(self.me)).collect());
        }
        if !self.is_before_successor(&joiner) {
            return JoinVerdict::NotHere;
        }
        // While the successor takes another for its predecessor it answers for that whole arc, newcomers in it included.
        if !self.is_vouched_for(now) {
            return JoinVerdict::RetryAfter(wait);
        }
        if let Some(Joining::Admitted(other, until)) = self.joining
            && other.incarnation != joiner.incarnation
            && now < until
            && !self.mutated(Mutation::AdmitsTwo)
        {
            return JoinVerdict::RetryAfter(wait);
        }
        self.joining = Some(Joining::Admitted(joiner, now + self.config.admission));
        JoinVerdict::Granted(self.list_for_joiner())
    }

    /// Whether the successor knows that this node comes before it. One that keeps saying otherwise may reach somebody
    /// whom this node does not: after a while joiners are let in all the same, who may reach both.
    fn is_vouched_for(&mut self, now: Time) -> bool {
        let Some(head) = self.successors.first() else { return true };
        if self.vouched_by == Some(head.incarnation) {
            self.vouch_awaited = None;
            return true;
        }
        match self.vouch_awaited {
            Some((who, since)) if who == head.incarnation => now.since(since) >= VOUCH_WAIT,
            _ => {
                self.vouch_awaited = Some((head.incarnation, now));
                false
            }
        }
    }

    /// This node's list. One that has come round to this node goes on with it for a joiner.
    fn list_for_joiner(&self) -> Vec<Contact> {
        let list = self.successors.as_slice();
        let own = (list.is_empty() || self.successors.is_round()).then_some(self.me);
        list.iter().copied().chain(own).collect()
    }

    /// The arc is free again once the joiner that it was reserved for is the successor.
    pub(super) fn end_admission(&mut self) {
        if matches!(self.joining, Some(Joining::Admitted(joiner, _)) if self.successors.first() == Some(joiner)) {
            self.joining = None;
        }
    }

    /// Whether a joiner with this node's list is on its way in. Until it has arrived, or has taken too long, nobody else
    /// may come or go next to this node: the joiner's list would skip the one, or still name the other.
    fn is_admitting(&self, now: Time) -> bool {
        matches!(self.joining, Some(Joining::Admitted(_, until)) if now < until) && !self.mutated(Mutation::AdmitsTwo)
    }

    // ----- the leaver -----

    /// From now on this node lets nobody in; its data should be handed over before [`Overlay::depart`].
    pub fn begin_leaving(&mut self) {
        match self.standing {
            Standing::Member => self.set_standing(Standing::Leaving),
            Standing::Joining | Standing::Orphan => self.finish_leaving(),
            Standing::Leaving | Standing::Left => {}
        }
    }

    /// Asks the predecessor to close the ring behind this node, and again until it has. Ends in [`Effect::Left`].
    pub fn depart(&mut self, now: Time) {
        if self.standing != Standing::Leaving {
            return;
        }
        let Some(successor) = self.successors.first() else {
            self.finish_leaving();
            return;
        };
        if self.is_admitting(now) {
            self.timers.set(Timer::Depart, now + self.config.stabilize_interval_busy);
            return;
        }
        let list = self.successors.as_slice().to_vec();
        match self.predecessor {
            Some(before) if !self.is_asking(|ask| *ask == Ask::Depart) => {
                let successors = list.clone();
                self.ask(now, before, Ask::Depart, |request| RingMessage::Leave { request, successors });
            }
            // With a request out, its reply decides. Without a predecessor, one will notify us.
            _ => self.timers.set(Timer::Depart, now + self.config.stabilize_interval_busy),
        }
        if self.predecessor != Some(successor) {
            let request = self.fresh_request();
            self.send(successor, RingMessage::Leave { request, successors: list });
        }
    }

    pub(super) fn on_leave_reply(&mut self, now: Time, from: Contact, request: u64, released: bool) {
        if self.take_reply(now, from, request) == Some(Ask::Depart) {
            if released {
                self.finish_leaving();
            } else {
                // Neighbours that leave together wait for each other, but not in step.
                let pause = self.around(self.config.stabilize_interval_busy);
                self.timers.set(Timer::Depart, now + pause);
            }
        }
    }

    pub(super) fn finish_leaving(&mut self) {
        self.set_standing(Standing::Left);
        self.predecessor = None;
        self.successors.clear();
        self.stop_maintenance();
        self.effect(Effect::Left);
    }

    // ----- the neighbours of a leaver -----

    pub(super) fn on_leave(&mut self, now: Time, leaver: Contact, request: u64, list: &[Contact]) {
        if !self.standing.is_member() {
            return;
        }
        // A member that hangs beside the ring does not know who else has the leaver as successor. One that has told its
        // own predecessor who comes after it must not change that; of the last two, the one with the higher id lets the other
        // go first.
        let told = if self.predecessor == Some(leaver) {
            self.is_departing() && self.me.id < leaver.id
        } else {
            self.is_asking(|ask| *ask == Ask::Depart)
        };
        // Nor does one whose predecessor is gone: whoever comes next before it may have the leaver for its last hope.
        let linked = self.linked && self.predecessor.is_some();
        if self.successors.first() == Some(leaver) && linked && !told && !self.is_admitting(now) {
            if !self.is_asking(|ask| matches!(ask, Ask::Replace { leaver: other, .. } if *other == leaver)) {
                self.replace_leaver(now, leaver, request, list);
            }
            return;
        }
        if self.predecessor == Some(leaver) && self.successors.first() != Some(leaver) {
            self.set_predecessor(now, None);
        }
        self.send(leaver, RingMessage::LeaveReply { request, released: false });
    }

    /// Asks the node after `leaver` to be the successor in its place. Only that one: had it died, the rest of the list
    /// might skip somebody whom it let in. The leaver finds out for itself, and asks again with another list.
    fn replace_leaver(&mut self, now: Time, leaver: Contact, request: u64, list: &[Contact]) {
        if let Some(next) = list.first().filter(|next| next.id != self.me.id) {
            self.ask_neighbours(now, *next, Ask::Replace { leaver, request });
        } else {
            // It was the only other member: what else our list names, it has asked in vain.
            self.successors.clear();
            self.note_neighbours();
            self.set_predecessor(now, None);
            self.effect(Effect::NeighboursChanged);
            self.release(now, leaver, request);
        }
    }

    /// The leaver may go: it is no neighbour of ours any more.
    pub(super) fn release(&mut self, now: Time, leaver: Contact, request: u64) {
        self.send(leaver, RingMessage::LeaveReply { request, released: true });
        if self.predecessor == Some(leaver) {
            self.set_predecessor(now, None);
        }
        self.fingers.remove(leaver.incarnation);
    }
}
