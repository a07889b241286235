//! The overlay node: its pointers, the requests it waits for, and the dispatch of what arrives.
//!
//! Order of calls: any `handle_*` or command, then [`Overlay::poll_effect`] until it gives nothing, then sleep until
//! [`Overlay::poll_timeout`] at the latest, then [`Overlay::handle_timeout`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use super::config::{OverlayConfig, Routing};
use super::fingers::FingerTable;
use super::join::Joining;
use super::lookup::{Answer, Directness, HOPS_WAITING_MAX, Hops, LookupFailed, Origins, Step};
use super::maintain::Rounds;
use super::message::{NextHop, RingMessage, Standing};
use super::mutation::{Mutation, is_on};
use super::peers::{PeerReport, Peers};
use super::successors::SuccessorList;
use super::suspects::Health;
use super::weights::Weights;
use crate::base::limits::REQUESTS_MAX;
use crate::base::{Contact, Id, Incarnation, Rng, Time, Timers, between, in_arc};

/// What the overlay wants done, or tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this.
    Send {
        /// To whom.
        to: Contact,
        /// What.
        message: RingMessage,
    },
    /// This node is in the ring.
    Joined,
    /// Joining through that contact did not work; the node is still outside.
    JoinFailed(JoinFailed),
    /// The successor list ran out: this node is outside and must join again.
    Orphaned,
    /// The ring has closed behind this node.
    Left,
    /// The predecessor or the successor list is another than before.
    NeighboursChanged,
    /// A lookup has ended.
    LookupDone {
        /// As given to [`Overlay::lookup`].
        ticket: u64,
        /// How.
        result: Result<Answer, LookupFailed>,
    },
    /// A step of an iterative lookup has ended.
    StepDone {
        /// As given to [`Overlay::step`].
        ticket: u64,
        /// How.
        step: Step,
    },
    /// A peer counts as gone: it was silent for too long, or is certainly over.
    Gone(Contact),
}

/// Why a join did not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinFailed {
    /// Nobody answered in time.
    Silent,
    /// This living node has the same id. Trying again does not help.
    DuplicateId(Contact),
}

/// A node of the ring. See the module for the order of calls.
#[derive(Debug)]
pub struct Overlay {
    pub(super) me: Contact,
    pub(super) config: OverlayConfig,
    pub(super) standing: Standing,
    pub(super) was_member: bool,
    /// Somebody has this member as its successor. Until then it hangs beside the ring, and what it knows may be stale:
    /// it lets nobody in and releases nobody.
    pub(super) linked: bool,
    /// When it came in.
    pub(super) entered: Time,
    /// The successor once it has said that this node comes before it.
    pub(super) vouched_by: Option<Incarnation>,
    /// The successor whose word is awaited by whoever wants to come in, and since when.
    pub(super) vouch_awaited: Option<(Incarnation, Time)>,
    pub(super) predecessor: Option<Contact>,
    // The latest one, while there is none.
    pub(super) predecessor_before: Option<Contact>,
    pub(super) successors: SuccessorList,
    pub(super) weights: Weights,
    pub(super) fingers: FingerTable,
    pub(super) peers: Peers,
    pub(super) rounds: Rounds,
    pub(super) joining: Option<Joining>,
    /// Who wanted to come in through this node before it was in itself.
    pub(super) turned_away: BTreeSet<Contact>,
    pub(super) hops: Hops,
    pub(super) origins: Origins,
    pub(super) directness: Directness,
    pub(super) health: Health,
    pub(super) timers: Timers<Timer>,
    pub(super) rng: Rng,
    /// The time of the latest input.
    pub(super) now: Time,
    pending: BTreeMap<u64, Pending>,
    next_request: u64,
    // Counts the changes of standing, predecessor and successor list.
    neighbours_version: u64,
    effects: VecDeque<Effect>,
}

/// Everything that happens by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Stabilize,
    Finger,
    Offer,
    Exchange,
    Probe,
    Acks,
    Join,
    Depart,
    /// A request's reply is overdue.
    Request(u64),
    /// A hop's acknowledgement is overdue.
    Hop(u64),
    /// A lookup of ours should be tried again.
    Lookup(u64),
}

/// Why something was asked; decides what the reply, or its absence, means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Stabilise, first step.
    Successor,
    /// Stabilise, second step: the successor's predecessor.
    Between,
    /// Rectify: does the present predecessor live? The candidate takes its place if not.
    Rectify(Contact),
    /// Does the predecessor, silent for long, live?
    Predecessor,
    /// A node that was offered.
    Offered,
    /// Does a suspected peer live after all?
    Probe,
    /// Let me in.
    Join,
    /// Let me go.
    Depart,
    /// The successor leaves: take this one in its place, then answer the leaver's request.
    Replace { leaver: Contact, request: u64 },
    /// One step of an iterative lookup.
    Step { ticket: u64 },
    /// Whom do you know? `tour`: on the way around the circle.
    Contacts { after: Id, tour: bool },
    /// Somebody else gets no answer and wants to know.
    OnBehalf(Contact),
}

#[derive(Debug)]
struct Pending {
    to: Contact,
    ask: Ask,
    message: RingMessage,
    attempt: u32,
    sent: Time,
    /// The time until the reply says something about the network.
    measures: bool,
}

impl Overlay {
    /// A node that is in no ring yet. `rng` is its only source of randomness.
    pub fn new(me: Contact, config: OverlayConfig, rng: Rng) -> Self {
        Self {
            me,
            standing: Standing::Joining,
            was_member: false,
            linked: false,
            entered: Time::default(),
            vouched_by: None,
            vouch_awaited: None,
            predecessor: None,
            predecessor_before: None,
            successors: SuccessorList::new(me.id, config.successors),
            weights: Weights::default(),
            fingers: FingerTable::new(config.capacity, me.id),
            peers: Peers::new(config.capacity, config.contacts_max),
            rounds: Rounds::default(),
            joining: None,
            turned_away: BTreeSet::new(),
            hops: Hops::default(),
            origins: Origins::default(),
            directness: Directness::default(),
            health: Health::default(),
            timers: Timers::new(),
            rng,
            now: Time::default(),
            pending: BTreeMap::new(),
            next_request: config.first_request,
            neighbours_version: 1,
            effects: VecDeque::new(),
            config,
        }
    }

    // ----- what others may know -----

    /// This node.
    pub fn me(&self) -> Contact {
        self.me
    }

    /// How it stands to the ring.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether it is the only member it knows of.
    pub fn is_alone(&self) -> bool {
        self.standing.is_member() && self.successors.first().is_none()
    }

    /// Its predecessor.
    pub fn predecessor(&self) -> Option<Contact> {
        self.predecessor
    }

    /// Its successor list, nearest first.
    pub fn successors(&self) -> &[Contact] {
        self.successors.as_slice()
    }

    /// Its finger table.
    pub fn fingers(&self) -> &FingerTable {
        &self.fingers
    }

    /// How a peer looks from here; `None` if it was never heard of.
    pub fn peer(&self, contact: &Contact) -> Option<PeerReport> {
        self.peers.get(contact).map(|peer| PeerReport { rtt: peer.rtt.smoothed(), suspect: peer.is_suspect() })
    }

    /// Who lives at `id`, as far as this node has heard.
    pub fn contact_at(&self, id: Id) -> Option<Contact> {
        self.peers.at(id).map(|peer| peer.contact)
    }

    /// Whether this node was in the ring before it lost its neighbours.
    pub fn was_member(&self) -> bool {
        self.was_member
    }

    /// A dial while joining again has failed: whoever was there carries nothing on.
    pub fn forget_standing_at(&mut self, addr: SocketAddr) {
        self.peers.forget_standing_of(Contact::id_of(self.config.capacity, addr));
    }

    /// Whether somebody carries the ring on for this node that lost it: one who answers and is in a ring, or a member of
    /// old with a lower id that is in none either.
    pub fn others_carry_on(&self) -> bool {
        self.peers.carries_on(self.me.id)
    }

    /// Whether nobody is left to wait for: every known peer has said that it lost the ring too, and has an id above this
    /// node's.
    pub fn is_first_of_all(&self) -> bool {
        self.peers.all_lost_it() && !self.others_carry_on()
    }

    /// Where a member is now: its process may have come back at another place than it was known at.
    pub fn whereabouts(&self, member: Contact) -> Contact {
        if member == self.me || self.peers.get(&member).is_some_and(|peer| !peer.is_suspect()) {
            return member;
        }
        let is_it = |contact: &Contact| contact.incarnation == member.incarnation && *contact != member;
        self.peers.contacts().find(|contact| is_it(contact) && self.answers(contact)).unwrap_or(member)
    }

    /// Whether the predecessor was asked to close the ring behind this node.
    pub fn is_departing(&self) -> bool {
        self.timers.get(Timer::Depart).is_some() || self.is_asking(|ask| *ask == Ask::Depart)
    }

    /// Everyone ever heard of, in the order of the ids, for as long as there is room.
    pub fn contacts(&self) -> impl Iterator<Item = Contact> {
        self.peers.contacts()
    }

    /// Counts the changes of this node's standing, predecessor and successor list.
    pub fn neighbours_version(&self) -> u64 {
        self.neighbours_version
    }

    /// Whether `id` lies in this node's arc, `(predecessor, me]`: everything when alone. While it has no predecessor the
    /// arc reaches to the latest one, as nobody is in the ring between them without having become the predecessor.
    pub fn is_mine(&self, id: Id) -> bool {
        match self.predecessor {
            _ if !self.standing.is_member() => false,
            Some(p) => in_arc(p.id, id, self.me.id),
            None => self.is_alone() || self.predecessor_before.is_some_and(|p| in_arc(p.id, id, self.me.id)),
        }
    }

    /// When [`Overlay::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// The next effect, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    // ----- what happens -----

    /// Starts a ring of one.
    pub fn create(&mut self, now: Time) {
        self.awake(now);
        self.set_standing(Standing::Member);
        self.was_member = true;
        self.linked = true;
        self.weights.begin();
        self.joining = None;
        self.start_maintenance(now);
        self.effect(Effect::Joined);
        self.call_in();
    }

    /// A message arrived. `from` is what the connection's handshake established.
    pub fn handle_message(&mut self, now: Time, from: Contact, message: RingMessage) {
        self.awake(now);
        if from.id == self.me.id && from.addr != self.me.addr {
            self.on_twin(from, &message);
            return;
        }
        if !self.handle_alive(now, from) {
            return;
        }
        match message {
            RingMessage::GetNeighbours { request } => {
                // One that was a member once may carry the ring on, whatever it tries at the moment.
                let lost = self.standing == Standing::Joining && self.was_member;
                let reply = RingMessage::Neighbours {
                    request,
                    standing: if lost { Standing::Orphan } else { self.standing },
                    predecessor: self.predecessor,
                    successors: self.successors.as_slice().to_vec(),
                    weights: self.told_weights(),
                };
                self.send(from, reply);
            }
            RingMessage::Neighbours { request, standing, predecessor, successors, weights } => {
                // In a ring at rest a neighbour's list is this node's own, moved by one: nothing is news.
                let own = self.successors.as_slice();
                let news = successors.iter().enumerate().filter(|(at, contact)| own.get(at + 1) != Some(contact));
                let news: Vec<Contact> = news.map(|(_, contact)| *contact).chain(predecessor).collect();
                self.hear_of_neighbours(now, from, news);
                self.peers.note_standing(&from, standing);
                if let Some(ask) = self.take_reply(now, from, request) {
                    if self.successors.first() == Some(from) {
                        self.vouched_by = (predecessor == Some(self.me)).then_some(from.incarnation);
                    }
                    self.on_neighbours(now, from, &ask, standing, predecessor, &successors);
                    if standing.is_member() {
                        self.hear_weights(from, &successors, &weights);
                    }
                }
            }
            RingMessage::Notify => self.on_notify(now, from),
            RingMessage::Lookup { hop, lookup } => self.on_lookup(now, from, hop, lookup),
            RingMessage::LookupAck { hops } => self.on_lookup_ack(now, from, &hops),
            RingMessage::LookupRefused { hop } => self.on_lookup_refused(now, from, hop),
            RingMessage::Found(found) => {
                self.hear_of_neighbours(now, from, [found.owner, found.before]);
                self.on_found(now, from, found);
            }
            RingMessage::GetNextHop { request, target } => {
                let next = self.next_hop(target);
                self.send(from, RingMessage::NextHop { request, next });
            }
            RingMessage::NextHop { request, next } => self.on_next_hop(now, from, request, next),
            RingMessage::Join { request } => self.on_join(now, from, request),
            RingMessage::JoinReply { request, verdict } => self.on_join_reply(now, from, request, verdict),
            RingMessage::Offer { contact } => self.on_offer(now, from, contact),
            RingMessage::GetContacts { request, after } => self.on_get_contacts(now, from, request, after),
            RingMessage::Contacts { request, contacts } => self.on_contacts(now, from, request, &contacts),
            RingMessage::ProbeFor { contact } => self.on_probe_for(now, from, contact),
            RingMessage::Vouch { contact } => self.on_vouch(now, from, &contact),
            RingMessage::Leave { request, successors } => self.on_leave(now, from, request, &successors),
            RingMessage::LeaveReply { request, released } => self.on_leave_reply(now, from, request, released),
        }
    }

    pub(super) fn requests_to(&self, addr: SocketAddr) -> Vec<u64> {
        self.pending.iter().filter(|(_, pending)| pending.to.addr == addr).map(|(&request, _)| request).collect()
    }

    /// Runs whatever is due. Afterwards [`Overlay::poll_timeout`] is later than `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        self.awake(now);
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Stabilize => self.stabilize(now),
                Timer::Finger => self.repair_finger(now),
                Timer::Offer => self.offer_myself(now),
                Timer::Exchange => self.exchange_contacts(now),
                Timer::Probe => self.probe_suspects(now),
                Timer::Acks => self.flush_acks(),
                Timer::Join => self.continue_join(now),
                Timer::Depart => self.depart(now),
                Timer::Request(request) => self.request_overdue(now, request),
                Timer::Hop(hop) => self.hop_overdue(now, hop),
                Timer::Lookup(request) => self.lookup_overdue(now, request),
            }
        }
        assert!(self.timers.next().is_none_or(|next| next > now), "a timer was armed for the past");
    }

    /// Panics if a pointer breaks its own rule; for tests and the simulator, which check the whole ring beside it.
    pub fn check_pointers(&self) {
        self.successors.check();
        assert!(self.predecessor.is_none_or(|p| p.id != self.me.id), "a node precedes itself only by having nobody");
        assert!(self.standing.is_member() || self.successors.first().is_none(), "only members have successors");
    }

    /// Panics if a queue has outgrown its bound or was not drained.
    pub fn check_invariants(&self) {
        let bounds = [
            (self.peers.len(), self.peers.bound()),
            (self.hops_waiting(), HOPS_WAITING_MAX),
            (self.pending.len(), PENDING_MAX),
        ];
        assert!(bounds.iter().all(|(len, bound)| len <= bound), "something has grown past its bound: {bounds:?}");
        assert!(self.effects.is_empty(), "effects were not drained");
    }

    // ----- shared by the parts -----

    pub(super) fn mutated(&self, mutation: Mutation) -> bool {
        is_on(&self.config, mutation)
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(super) fn send(&mut self, to: Contact, message: RingMessage) {
        self.effects.push_back(Effect::Send { to, message });
    }

    pub(super) fn fresh_request(&mut self) -> u64 {
        self.next_request += 1;
        self.next_request
    }

    /// Sends a request and remembers why. `message` is made from the request's number.
    pub(super) fn ask(&mut self, now: Time, to: Contact, ask: Ask, message: impl FnOnce(u64) -> RingMessage) {
        let request = self.fresh_request();
        let message = message(request);
        self.send(to, message.clone());
        self.timers.set(Timer::Request(request), now + self.peers.timeout(&to, 0));
        self.pending.insert(request, Pending { to, ask, message, attempt: 0, sent: now, measures: true });
    }

    /// A reply is still being waited for after a gap in this node's own time: it gets its time anew.
    pub(super) fn ask_anew(&mut self, now: Time, request: u64) {
        let Some(pending) = self.pending.get_mut(&request) else { return };
        pending.measures = false;
        let timeout = self.peers.timeout(&pending.to, pending.attempt);
        self.timers.set(Timer::Request(request), now + timeout);
    }

    pub(super) fn ask_neighbours(&mut self, now: Time, to: Contact, ask: Ask) {
        self.ask(now, to, ask, |request| RingMessage::GetNeighbours { request });
    }

    /// When a request that waits for its reply was first sent.
    pub(super) fn sent_at(&self, request: u64) -> Option<Time> {
        self.pending.get(&request).map(|pending| pending.sent)
    }

    pub(super) fn is_asking(&self, wanted: impl Fn(&Ask) -> bool) -> bool {
        self.pending.values().any(|pending| wanted(&pending.ask))
    }

    pub(super) fn count_asked(&self, wanted: impl Fn(&Ask) -> bool) -> usize {
        self.pending.values().filter(|pending| wanted(&pending.ask)).count()
    }

    pub(super) fn is_asking_of(&self, to: &Contact, ask: &Ask) -> bool {
        self.pending.values().any(|pending| pending.to == *to && pending.ask == *ask)
    }

    /// Whom a request that waits for its reply was sent to.
    pub(super) fn asked(&self, request: u64) -> Option<Contact> {
        self.pending.get(&request).map(|pending| pending.to)
    }

    pub(super) fn set_standing(&mut self, standing: Standing) {
        self.standing = standing;
        self.neighbours_version += 1;
    }

    pub(super) fn note_neighbours(&mut self) {
        self.neighbours_version += 1;
        let head = self.successors.first().map(|head| head.incarnation);
        self.vouched_by = self.vouched_by.filter(|who| Some(*who) == head);
        // One that is the successor again has its time anew.
        self.vouch_awaited = self.vouch_awaited.filter(|(who, _)| Some(*who) == head);
    }

    /// Takes the request that a reply belongs to; `None` if it was answered, given up, or asked of somebody else.
    pub(super) fn take_reply(&mut self, now: Time, from: Contact, request: u64) -> Option<Ask> {
        if self.pending.get(&request)?.to.incarnation != from.incarnation {
            return None;
        }
        let pending = self.pending.remove(&request)?;
        self.timers.cancel(Timer::Request(request));
        if pending.attempt == 0 && pending.measures {
            self.peers.sample(&from, now.since(pending.sent));
            self.answered_in_time();
        }
        Some(pending.ask)
    }

    pub(super) fn request_overdue(&mut self, now: Time, request: u64) {
        let Some(pending) = self.pending.get_mut(&request) else { return };
        let attempts = if matches!(pending.ask, Ask::Probe | Ask::OnBehalf(_)) { 1 } else { self.config.attempts };
        pending.attempt += 1;
        if pending.attempt >= attempts {
            self.give_up(now, request);
            return;
        }
        let (to, message, attempt) = (pending.to, pending.message.clone(), pending.attempt);
        self.send(to, message);
        self.timers.set(Timer::Request(request), now + self.peers.timeout(&to, attempt));
    }

    pub(super) fn give_up(&mut self, now: Time, request: u64) {
        let Some(pending) = self.pending.remove(&request) else { return };
        self.timers.cancel(Timer::Request(request));
        self.suspect(now, pending.to, false);
        match pending.ask {
            Ask::Probe => {}
            Ask::Contacts { .. } => self.contacts_silent(now),
            Ask::Join => self.join_silent(),
            Ask::Step { ticket } => self.effect(Effect::StepDone { ticket, step: Step::Silent }),
            Ask::Depart => self.timers.set_no_later(Timer::Depart, now + self.config.stabilize_interval_busy),
            ask => self.on_silent(now, pending.to, &ask),
        }
    }

    fn on_next_hop(&mut self, now: Time, from: Contact, request: u64, next: NextHop) {
        let sent = self.pending.get(&request).map(|pending| pending.sent);
        if let (Some(Ask::Step { ticket }), Some(sent)) = (self.take_reply(now, from, request), sent) {
            let step = Step::Answered { next, rtt: now.since(sent) };
            self.effect(Effect::StepDone { ticket, step });
        }
    }

    /// The known node closest before `target`, other than `tried`; of those that are about as close, the one with the
    /// shortest round trip. `None` if there is nobody between.
    pub(super) fn closest_before(&self, target: Id, tried: &[Incarnation]) -> Option<Contact> {
        let fits = |contact: &Contact| {
            between(self.me.id, contact.id, target)
                && !tried.contains(&contact.incarnation)
                && self.peers.is_usable(contact)
        };
        let far = |contact: &Contact| self.config.capacity.distance(self.me.id, contact.id);
        // Both are in the order of the circle.
        let finger = self.fingers.farthest_first().find(fits);
        let own = self.successors.as_slice().iter().rev().find(|contact| fits(contact)).copied();
        let own = own.into_iter().chain(finger).max_by_key(far);
        if self.config.routing == Routing::FingersOnly {
            return own;
        }
        // Whoever lies within three quarters of a successor list of the target has its owner in its own list.
        let list = self.successors.as_slice();
        let reach = list.last().map_or(Id::ZERO, |last| far(last).divided_by(4));
        let reach = self.config.capacity.times(reach, 3);
        let heard = self.peers.nearest_before(self.now, self.me.id, target, tried, reach);
        let near = |contact: &Contact| self.config.capacity.distance(contact.id, target) <= reach;
        match (own, heard) {
            (Some(own), Some(heard)) if far(&own) > far(&heard) && !near(&heard) => Some(own),
            (own, heard) => heard.or(own),
        }
    }
}

/// Requests that wait for a reply, at most: a few of each kind, and one for each step of a user's trace.
const PENDING_MAX: usize = 2 * REQUESTS_MAX;
