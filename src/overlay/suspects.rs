//! Who does not answer, who counts as gone, and whether it is this node that is at fault (`protocol.md` section 2).
//!
//! Three time-outs make a suspect: lookups avoid it and the ring is mended around it. It is asked again and again, by
//! this node and, as the fault may lie on the way, by others. Silent to all for long, it counts as gone; for longer, as
//! lost, and only then data moves. A node that finds itself late or often wrong doubts itself first and gives others
//! more time (Lifeguard, Dadgar et al. 2018).

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::message::RingMessage;
use super::mutation::Mutation;
use super::peers::Peer;
use super::ring::{Ask, Effect, Overlay, Timer};
use crate::base::{Contact, Incarnation, Span, Time};

/// How much this node trusts itself: 0 fully, each step up gives peers as much time again.
#[derive(Debug, Default)]
pub(super) struct Health {
    doubt: u32,
    // Answers in time since the doubt last changed.
    good: u32,
    // Whom others were asked about, and whom; only they can vouch.
    helpers: BTreeMap<Incarnation, Vec<Incarnation>>,
}

/// The most doubt: peers get nine times their time.
const DOUBT_MAX: u32 = 8;
/// Answers in time that take one step of doubt away.
const GOOD_ANSWERS: u32 = 10;
/// A deadline met so much too late means that this process was not running.
const GAP: Span = Span::millis(250);
/// Suspected peers that are probed at the same time.
const PROBES_MAX: usize = 8;
/// Between probes of the same suspects.
const PROBE_INTERVAL: Span = Span::millis(500);
/// Others that are asked about a suspect.
const HELPERS: usize = 3;
/// Between two such questions about one suspect.
const HELP_INTERVAL: Span = Span::secs(2);
/// Probes on behalf of others at the same time.
const ON_BEHALF_MAX: usize = 64;
/// Who was heard from so lately needs no probe to be vouched for.
const JUST_HEARD: Span = Span::secs(1);

impl Overlay {
    // ----- what others may know -----

    /// Whether a member counts as gone: certainly over, or silent past its time.
    pub fn is_gone(&self, contact: &Contact) -> bool {
        self.is_over(contact, Peer::is_gone)
    }

    /// Whether a contact answers, as far as this node knows.
    pub fn answers(&self, contact: &Contact) -> bool {
        !self.is_gone(contact) && self.peers.get(contact).is_none_or(|peer| !peer.is_suspect())
    }

    /// How long it takes at most, by experience, until a contact has asked others and answers: two time-outs.
    pub fn patience(&self, contact: &Contact, attempt: u32) -> Span {
        self.peers.timeout(contact, attempt) * 2
    }

    /// How long a round trip takes, of all that were measured; zero if none was.
    pub fn usual_round_trip(&self) -> Span {
        self.peers.usual_round_trip()
    }

    /// Whether a member counts as lost: what it held must be replaced.
    pub fn is_lost(&self, contact: &Contact) -> bool {
        // With its process went what it held, unless that is on a disk: then it may come back.
        let is_over = |peer: &Peer| peer.is_refused() && !self.config.durable;
        let horizon = |peer: &Peer| if is_over(peer) { Span::ZERO } else { self.config.lost_after };
        self.is_over(contact, |peer| peer.is_gone() && self.silence(peer) >= horizon(peer))
    }

    /// How long what a member holds is kept for it after it has gone from the ring: if it is on a disk, the member may come
    /// back with it.
    pub fn keeps_for(&self) -> Span {
        if self.config.durable { self.config.lost_after } else { Span::ZERO }
    }

    fn is_over(&self, contact: &Contact, enough: impl Fn(&Peer) -> bool) -> bool {
        // Nobody else lives at this node's own address.
        let was_me = contact.id == self.me.id && contact.incarnation != self.me.incarnation;
        was_me
            || self.peers.is_buried(contact.incarnation)
            || self.peers.at(contact.id).is_some_and(|peer| {
                let same = peer.contact.incarnation == contact.incarnation;
                let replaced = peer.contact.addr == contact.addr && !same;
                same && enough(peer) || replaced && peer.last_heard.is_some()
            })
    }

    /// For how long nobody has heard from a suspect.
    fn silence(&self, peer: &Peer) -> Span {
        peer.silent_since().map_or(Span::ZERO, |since| self.now.since(since))
    }

    /// How much this node doubts itself, 0 for not at all.
    pub fn doubt(&self) -> u32 {
        self.health.doubt
    }

    // ----- gaps in this node's own time -----

    /// Called first with every input: notices that this process was stopped, or starved, for a while. What was due
    /// meanwhile was not answered for that reason, so it gets its time anew.
    pub(super) fn awake(&mut self, now: Time) {
        let late = self.timers.next().map_or(Span::ZERO, |next| now.since(next));
        self.now = now;
        if late > GAP && !self.mutated(Mutation::IgnoresGaps) {
            self.void_timeouts(now, late);
        }
    }

    /// The machine slept, or its wall clock was set: nobody knows how long it has really been.
    pub fn handle_jump(&mut self, now: Time) {
        self.awake(now);
        self.void_timeouts(now, Span::ZERO);
    }

    fn void_timeouts(&mut self, now: Time, late: Span) {
        self.raise_doubt();
        self.peers.forgive(late);
        for timer in self.timers.armed() {
            match timer {
                Timer::Request(request) => self.ask_anew(now, request),
                Timer::Hop(hop) => self.wait_anew(now, hop),
                Timer::Lookup(request) => self.timers.set(Timer::Lookup(request), now + self.config.lookup_retry),
                // What is done by the clock is done now; that it is late was noticed.
                other if self.timers.get(other).is_some_and(|at| at < now) => self.timers.set(other, now),
                _ => {}
            }
        }
    }

    fn raise_doubt(&mut self) {
        self.health.doubt = (self.health.doubt + 1).min(DOUBT_MAX);
        self.health.good = 0;
    }

    /// A peer has answered in time.
    pub(super) fn answered_in_time(&mut self) {
        self.health.good += 1;
        if self.health.good >= GOOD_ANSWERS {
            self.health.good = 0;
            self.health.doubt = self.health.doubt.saturating_sub(1);
        }
    }

    // ----- who is heard, who is not -----

    /// A peer was heard from, by whatever kind of message. False if it counts as dead for good and is not believed.
    pub fn handle_alive(&mut self, now: Time, from: Contact) -> bool {
        self.awake(now);
        if from.id == self.me.id || self.peers.is_buried(from.incarnation) {
            return false;
        }
        if self.peers.heard_again(now, &from) {
            return true;
        }
        let suspected = self.peers.get(&from).is_some_and(Peer::is_suspect);
        let refused = self.peers.get(&from).is_some_and(Peer::is_refused);
        if let Some(old) = self.peers.heard(now, from, &mut self.rng) {
            // Another process listens at that address: what was there is over.
            self.bury(now, Contact { incarnation: old, ..from });
        }
        if suspected && !refused {
            // It lived all the time: perhaps this node is the one that is slow.
            self.raise_doubt();
            self.health.helpers.remove(&from.incarnation);
        }
        if suspected && self.successors.as_slice().contains(&from) {
            // It may be given again what it was not while it did not answer.
            self.effect(Effect::NeighboursChanged);
        }
        true
    }

    /// No connection to `addr` could be made, or it broke. `refused`: its host says that nobody listens there.
    pub fn handle_unreachable(&mut self, now: Time, addr: SocketAddr, refused: bool) {
        self.awake(now);
        let known = self.contact_at(Contact::id_of(self.config.capacity, addr));
        if let Some(contact) = known.filter(|_| refused) {
            self.suspect(now, contact, true);
        }
        for request in self.requests_to(addr) {
            if refused {
                self.give_up(now, request);
            } else {
                self.request_overdue(now, request);
            }
        }
        self.fail_hops_to(now, addr);
    }

    /// Asks a peer whether it lives, unless that is being asked. Whoever stays silent is suspected, then [`Effect::Gone`].
    pub fn probe(&mut self, now: Time, contact: Contact) {
        if contact.id != self.me.id && !self.is_asking_of(&contact, &Ask::Probe) {
            self.peers.mention(contact, &mut self.rng);
            self.ask_neighbours(now, contact, Ask::Probe);
        }
    }

    /// A peer has said goodbye, or is otherwise certainly over.
    pub fn bury(&mut self, now: Time, contact: Contact) {
        self.peers.bury(&contact);
        self.fingers.remove(contact.incarnation);
        self.health.helpers.remove(&contact.incarnation);
        for request in self.requests_to(contact.addr) {
            if self.asked(request) == Some(contact) {
                self.give_up(now, request);
            }
        }
        self.fail_hops_to(now, contact.addr);
        if self.predecessor.is_some_and(|p| p.incarnation == contact.incarnation) {
            self.set_predecessor(now, None);
        }
        self.drop_successor(now, contact);
        self.effect(Effect::Gone(contact));
    }

    pub(super) fn suspect(&mut self, now: Time, peer: Contact, refused: bool) {
        if self.peers.suspect(now, &peer, refused) && !refused {
            self.ask_helpers(now, peer);
        }
        self.timers.set_no_later(Timer::Probe, now + PROBE_INTERVAL);
    }

    pub(super) fn probe_suspects(&mut self, now: Time) {
        let patience = u64::from(self.health.doubt) + 1;
        let overdue = |overlay: &Self, peer: &Peer| {
            let (silent, refused) = (overlay.config.gone_after * patience, overlay.config.gone_after_refused);
            overlay.silence(peer) >= if peer.is_refused() { refused } else { silent }
        };
        let waiting: Vec<_> =
            self.peers.suspects().map(|peer| (peer.contact, peer.is_refused(), overdue(self, peer))).collect();
        for (contact, ..) in waiting.iter().filter(|(.., overdue)| *overdue) {
            self.peers.mark_gone(contact);
            if self.mutated(Mutation::ForgetsTheGone) {
                self.peers.remove(contact.id);
            }
            self.fingers.remove(contact.incarnation);
            self.health.helpers.remove(&contact.incarnation);
            self.effect(Effect::Gone(*contact));
        }
        let hopeful: Vec<_> = waiting.iter().filter(|(.., overdue)| !overdue).collect();
        let first = self.rng.index(hopeful.len());
        for (contact, refused, _) in hopeful.iter().cycle().skip(first).take(hopeful.len().min(PROBES_MAX)) {
            self.probe(now, *contact);
            if !refused && self.is_time_for_help(contact) {
                self.ask_helpers(now, *contact);
            }
        }
        if self.peers.suspects().next().is_some() {
            self.timers.set_no_later(Timer::Probe, now + PROBE_INTERVAL);
        }
    }

    // ----- through others -----

    fn is_time_for_help(&self, contact: &Contact) -> bool {
        self.peers.get(contact).is_some_and(|peer| {
            let rounds = self.silence(peer).0 / PROBE_INTERVAL.0;
            rounds.is_multiple_of(HELP_INTERVAL.0 / PROBE_INTERVAL.0)
        })
    }

    fn ask_helpers(&mut self, now: Time, contact: Contact) {
        let mut helpers = Vec::new();
        for _ in 0..HELPERS {
            let helper = self.peers.random_candidate(now, &mut self.rng, &contact);
            if let Some(helper) = helper.filter(|helper| !helpers.contains(&helper.incarnation)) {
                helpers.push(helper.incarnation);
                self.send(helper, RingMessage::ProbeFor { contact });
            }
        }
        self.health.helpers.insert(contact.incarnation, helpers);
    }

    pub(super) fn on_probe_for(&mut self, now: Time, from: Contact, contact: Contact) {
        if contact.id == self.me.id {
            return;
        }
        let heard = self.peers.get(&contact).and_then(|peer| peer.last_heard);
        if heard.is_some_and(|at| now.since(at) < JUST_HEARD) {
            self.send(from, RingMessage::Vouch { contact });
        } else if self.count_asked(|ask| matches!(ask, Ask::OnBehalf(_))) < ON_BEHALF_MAX {
            self.ask_neighbours(now, contact, Ask::OnBehalf(from));
        }
    }

    pub(super) fn on_vouch(&mut self, now: Time, from: Contact, contact: &Contact) {
        let helpers = self.health.helpers.get(&contact.incarnation);
        if helpers.is_some_and(|helpers| helpers.contains(&from.incarnation)) {
            self.peers.vouch(now, contact);
        }
    }
}
