//! Keeping the ring: stabilise, rectify, fingers, offers, and who counts as gone (`protocol.md` sections 1 to 3).
//!
//! The two rules on which all rests: a pointer is adopted only after the node it names was itself asked, and a reply
//! counts only if what it was asked for still holds.

use super::contacts::Tour;
use super::message::{RingMessage, Standing};
use super::mutation::Mutation;
use super::ring::{Ask, Effect, Overlay, Timer};
use crate::base::{Contact, Span, Time, between};

/// The pace of stabilisation.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// Rounds to go at the busy pace.
    busy: u32,
    /// Rounds since the neighbours changed.
    quiet: u32,
    /// The finger to repair next.
    finger: u32,
    /// Whether every finger was looked up once.
    fingers_known: bool,
    /// Since when nodes turn up before the successor whose lists skip it.
    skipping: Option<Time>,
    /// How far the way around the circle is.
    pub(super) tour: Tour,
}

/// How long news from the successor may wait for more.
const NEWS_PAUSE: Span = Span::millis(20);
/// A node before the successor whose list skips it is taken after so long.
const SKIPPING_ACCEPTED: Span = Span::secs(3);
/// Unless that was so long ago.
const SKIPPING_FORGOTTEN: Span = Span::secs(30);

/// After so many quiet rounds the pace slows down.
const QUIET_ROUNDS: u32 = 20;

impl Overlay {
    pub(super) fn start_maintenance(&mut self, now: Time) {
        self.hurry(now);
        self.timers.set(Timer::Finger, now + self.config.finger_interval_first);
        let offer = self.around(self.config.offer_interval);
        self.timers.set(Timer::Offer, now + offer);
        self.timers.set(Timer::Exchange, now + self.config.stabilize_interval);
    }

    pub(super) fn stop_maintenance(&mut self) {
        for timer in [Timer::Stabilize, Timer::Finger, Timer::Offer, Timer::Exchange] {
            self.timers.cancel(timer);
        }
    }

    /// A span drawn from `mean` x (0.5..1.5), so that nodes do not act in step.
    pub(super) fn around(&mut self, mean: Span) -> Span {
        Span(mean.0 / 2 + self.rng.below(mean.0.max(1)))
    }

    /// The neighbours changed: the next rounds follow fast.
    fn hurry(&mut self, now: Time) {
        self.rounds.busy = self.config.busy_rounds;
        self.rounds.quiet = 0;
        self.timers.set_no_later(Timer::Stabilize, now + self.config.stabilize_interval_busy);
    }

    pub(super) fn neighbours_changed(&mut self, now: Time) {
        self.note_neighbours();
        self.hurry(now);
        self.effect(Effect::NeighboursChanged);
    }

    /// Takes `[head] + tail` as the successor list. The caller has just heard `head` say so.
    pub(super) fn adopt(&mut self, now: Time, head: Contact, tail: &[Contact]) {
        let tail: Vec<Contact> = tail.iter().filter(|c| !self.peers.is_buried(c.incarnation)).copied().collect();
        if self.successors.adopt(head, &tail) {
            self.neighbours_changed(now);
            // Whoever has this node at the head of its list should not find out at its next round only.
            if let Some(before) = self.predecessor {
                self.offer_myself_to(before);
            }
        }
        self.peers.confirm(&head);
        self.end_admission();
    }

    pub(super) fn set_predecessor(&mut self, now: Time, predecessor: Option<Contact>) {
        if self.predecessor != predecessor {
            self.predecessor_before = self.predecessor.filter(|_| predecessor.is_none());
            self.predecessor = predecessor;
            self.neighbours_changed(now);
        }
    }

    // ----- stabilise -----

    pub(super) fn stabilize(&mut self, now: Time) {
        if !self.standing.is_member() {
            return;
        }
        let mean = if self.rounds.busy > 0 {
            self.rounds.busy -= 1;
            self.config.stabilize_interval_busy
        } else if self.rounds.quiet < QUIET_ROUNDS {
            self.config.stabilize_interval
        } else {
            self.config.stabilize_interval_rest
        };
        self.rounds.quiet += 1;
        let next = self.around(mean);
        self.timers.set(Timer::Stabilize, now + next);
        self.check_predecessor(now);
        self.ask_successor(now);
    }

    fn ask_successor(&mut self, now: Time) {
        if self.is_asking(|ask| matches!(ask, Ask::Successor | Ask::Between)) {
            return;
        }
        match (self.successors.first(), self.predecessor) {
            (Some(successor), _) => self.ask_neighbours(now, successor, Ask::Successor),
            // Alone, a node is its own successor, and the predecessor that notified it is what it finds there.
            (None, Some(candidate)) => self.ask_neighbours(now, candidate, Ask::Between),
            (None, None) => {}
        }
    }

    fn check_predecessor(&mut self, now: Time) {
        let Some(predecessor) = self.predecessor else { return };
        // A live predecessor stabilises with us at least every 1.5 rest intervals.
        let silence_max = self.config.stabilize_interval_rest * 3;
        let silent = self
            .peers
            .get(&predecessor)
            .is_none_or(|peer| peer.is_suspect() || peer.last_heard.is_none_or(|at| now.since(at) > silence_max));
        if silent && !self.is_asking(|ask| *ask == Ask::Predecessor) {
            self.ask_neighbours(now, predecessor, Ask::Predecessor);
        }
    }

    /// Whether `id` would come before the present successor.
    pub(super) fn is_before_successor(&self, contact: &Contact) -> bool {
        contact.id != self.me.id
            && match self.successors.first() {
                Some(successor) => between(self.me.id, contact.id, successor.id),
                None => self.is_alone(),
            }
    }

    pub(super) fn on_neighbours(
        &mut self,
        now: Time,
        from: Contact,
        ask: &Ask,
        standing: Standing,
        predecessor: Option<Contact>,
        list: &[Contact],
    ) {
        if let Ask::OnBehalf(asker) = *ask {
            self.send(asker, RingMessage::Vouch { contact: from });
            return;
        }
        if !standing.is_member() {
            // It lives, but its pointers mean nothing: to the ring it is as good as dead.
            if *ask != Ask::Probe {
                self.on_silent(now, from, ask);
            }
            return;
        }
        // The predecessor of a leaver was told who comes after it: nobody may come in between any more.
        let closing = self.is_asking(|ask| *ask == Ask::Depart);
        match *ask {
            Ask::Successor if self.successors.first() == Some(from) => {
                self.adopt(now, from, list);
                match predecessor.filter(|p| self.is_before_successor(p) && !self.peers.is_buried(p.incarnation)) {
                    Some(candidate) if self.mutated(Mutation::UnaskedPredecessor) => {
                        let list: Vec<Contact> = self.successors.as_slice().to_vec();
                        self.adopt(now, candidate, &list);
                        self.send(candidate, RingMessage::Notify);
                    }
                    Some(candidate) => self.ask_neighbours(now, candidate, Ask::Between),
                    None => self.send(from, RingMessage::Notify),
                }
            }
            Ask::Between => {
                if self.is_before_successor(&from) && !closing {
                    self.insert(now, from, list);
                }
                self.notify_successor();
            }
            // The guard takes it in; what is left to do is to say so.
            Ask::Offered if self.is_before_successor(&from) && !closing && self.insert(now, from, list) => {
                self.send(from, RingMessage::Notify);
            }
            Ask::Replace { leaver, request } => {
                if self.successors.first() == Some(leaver) {
                    self.adopt(now, from, list);
                    self.send(from, RingMessage::Notify);
                }
                self.release(now, leaver, request);
            }
            // Rectify, Predecessor, Probe: it lives, all stays as it is. Others: too late to matter.
            _ => {}
        }
    }

    /// Takes `head`, which lies before the present successor and has just given its list, as the new one. False if it
    /// would skip the present one, or one after it that answers: then `head` has come in with a stale list, or belongs to
    /// another ring. It is told if it misses the present one; a joiner mends its list at once and is taken when it is
    /// next heard of. Two rings that interleave would wait for each other for ever, so after a while it is taken as it
    /// is (`protocol.md` section 3).
    fn insert(&mut self, now: Time, head: Contact, list: &[Contact]) -> bool {
        let Some(present) = self.successors.first() else {
            self.adopt(now, head, list);
            return true;
        };
        let next = list.iter().find(|contact| !self.peers.is_buried(contact.incarnation));
        let skips = next.is_none_or(|next| *next != present && !between(head.id, next.id, present.id));
        if skips {
            self.send(head, RingMessage::Offer { contact: present });
        }
        if (skips || self.misses_one(head, list)) && !self.mutated(Mutation::TakesWhoSkips) {
            let first = self.rounds.skipping.filter(|first| now.since(*first) < SKIPPING_FORGOTTEN);
            self.rounds.skipping = Some(first.unwrap_or(now));
            if first.is_none_or(|first| now.since(first) < SKIPPING_ACCEPTED) {
                return false;
            }
        }
        self.rounds.skipping = None;
        self.adopt(now, head, list);
        true
    }

    /// Whether a list passes by somebody in this node's own who answers: it would be off the ring as soon as whoever lets
    /// it in dies.
    fn misses_one(&self, head: Contact, list: &[Contact]) -> bool {
        let mut list = list.iter().filter(|contact| !self.peers.is_buried(contact.incarnation));
        let mut from = head;
        list.any(|to| {
            let gap = (std::mem::replace(&mut from, *to).id, to.id);
            let own = self.successors.as_slice().iter();
            own.filter(|mine| between(gap.0, mine.id, gap.1)).any(|mine| self.peers.is_usable(mine))
        })
    }

    fn notify_successor(&mut self) {
        if let Some(successor) = self.successors.first() {
            self.send(successor, RingMessage::Notify);
        }
    }

    /// A peer did not answer what was asked of it.
    pub(super) fn on_silent(&mut self, now: Time, peer: Contact, ask: &Ask) {
        match *ask {
            Ask::Successor => self.drop_successor(now, peer),
            Ask::Between => {
                self.notify_successor();
                if self.is_alone() && self.predecessor == Some(peer) {
                    self.set_predecessor(now, None);
                }
            }
            Ask::Rectify(candidate) if self.predecessor == Some(peer) => self.set_predecessor(now, Some(candidate)),
            Ask::Predecessor if self.predecessor == Some(peer) => self.set_predecessor(now, None),
            Ask::Replace { leaver, request } => {
                let released = self.successors.first() != Some(leaver);
                self.send(leaver, RingMessage::LeaveReply { request, released });
            }
            _ => {}
        }
    }

    /// Forgets a successor; if it was the first, the next is asked at once.
    pub(super) fn drop_successor(&mut self, now: Time, peer: Contact) {
        let was_first = self.successors.first() == Some(peer);
        if !self.successors.remove(peer.incarnation) {
            return;
        }
        // Nobody has it for a successor, and its place is kept no more: others may have come in that its list does not name.
        let is_outside = !self.linked && now.since(self.entered) > self.config.admission;
        if self.successors.first().is_none() || was_first && is_outside {
            self.successors.clear();
            self.orphan(now);
        } else {
            self.neighbours_changed(now);
            if was_first {
                self.ask_successor(now);
            }
        }
    }

    fn orphan(&mut self, now: Time) {
        if self.standing == Standing::Leaving {
            // Nobody is left who would have to close the ring.
            self.finish_leaving();
            return;
        }
        self.predecessor = None;
        self.predecessor_before = None;
        if self.mutated(Mutation::OrphanIsTheRing) {
            self.neighbours_changed(now);
            return;
        }
        self.set_standing(Standing::Orphan);
        // Who was in the ring that is lost need not be in one now.
        self.peers.forget_standings();
        self.stop_maintenance();
        self.rounds = Rounds::default();
        self.timers.set_no_later(Timer::Probe, now + self.config.stabilize_interval_busy);
        self.effect(Effect::Orphaned);
    }

    // ----- rectify -----

    pub(super) fn on_notify(&mut self, now: Time, from: Contact) {
        self.linked |= self.standing.is_member();
        self.rectify(now, from);
    }

    /// `candidate` thinks that it is the predecessor.
    pub(super) fn rectify(&mut self, now: Time, candidate: Contact) {
        if !self.standing.is_member() {
            return;
        }
        match self.predecessor {
            Some(present) if present == candidate => {}
            Some(present) if between(present.id, candidate.id, self.me.id) => {
                self.set_predecessor(now, Some(candidate));
                self.send(present, RingMessage::Offer { contact: candidate });
            }
            Some(present) => {
                if !self.is_asking(|ask| matches!(ask, Ask::Rectify(_))) {
                    self.ask_neighbours(now, present, Ask::Rectify(candidate));
                }
            }
            None => self.set_predecessor(now, Some(candidate)),
        }
        if self.is_alone() {
            self.ask_successor(now);
        }
    }

    // ----- offers: two rings that meet become one -----

    pub(super) fn on_offer(&mut self, now: Time, from: Contact, contact: Contact) {
        if self.successors.first() == Some(contact) && self.standing.is_member() {
            // It has news.
            self.timers.set_no_later(Timer::Stabilize, now + NEWS_PAUSE);
            return;
        }
        if contact.id == self.me.id || !self.standing.is_member() || self.peers.is_buried(contact.incarnation) {
            return;
        }
        if !self.peers.hearsay.admits_offer(now, &from, &contact) {
            return;
        }
        self.peers.told(now, &from, [(contact, None)], &mut self.rng);
        if self.is_before_successor(&contact) {
            if !self.is_asking(|ask| *ask == Ask::Offered) {
                self.ask_neighbours(now, contact, Ask::Offered);
            }
        } else if let Some(next) = self.closest_before(contact.id, &[]) {
            self.send(next, RingMessage::Offer { contact });
        }
    }

    pub(super) fn offer_myself(&mut self, now: Time) {
        let next = self.around(self.config.offer_interval);
        self.timers.set(Timer::Offer, now + next);
        if self.standing == Standing::Member {
            // Every round also one that does not answer, so that a partition is over soon after its links are mended.
            for contact in self.peers.silent_in_turn().into_iter().chain(self.peers.in_turn()) {
                self.send(contact, RingMessage::Offer { contact: self.me });
            }
        }
    }

    /// The same to somebody who may be in another ring.
    pub fn offer_myself_to(&mut self, contact: Contact) {
        self.send(contact, RingMessage::Offer { contact: self.me });
    }

    // ----- fingers -----

    pub(super) fn repair_finger(&mut self, now: Time) {
        if !self.standing.is_member() {
            return;
        }
        let m = self.config.capacity.bits();
        // Fingers that start before the successor are the successor: no lookup.
        while let Some(successor) = self.successors.first() {
            let k = self.rounds.finger;
            if k >= m || self.fingers.start(k) == self.me.id {
                break;
            }
            let start = self.fingers.start(k);
            if start != successor.id && !between(self.me.id, start, successor.id) {
                break;
            }
            self.rounds.finger = self.fingers.learn(k, successor, None);
        }
        let interval = if self.rounds.fingers_known {
            let mean = self.config.finger_interval;
            self.around(mean)
        } else {
            self.config.finger_interval_first
        };
        self.timers.set(Timer::Finger, now + interval);
        if self.rounds.finger >= m {
            self.rounds.finger = 0;
            self.rounds.fingers_known = !self.is_alone();
        } else if !self.is_alone() {
            self.lookup_finger(now, self.rounds.finger);
        }
    }

    pub(super) fn learn_finger(&mut self, k: u32, owner: Contact, before: Contact) {
        let next = self.fingers.learn(k, owner, Some(before));
        if self.rounds.finger == k {
            self.rounds.finger = next;
        }
    }
}
