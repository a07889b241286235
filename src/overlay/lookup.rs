//! Lookups: which node is the successor of an id?
//!
//! Recursive: each hop passes the lookup on to the closest node before the target that it knows, the node before the
//! target to its successor, and that one answers to the origin: so the answer comes from a node that lives, and knows
//! who came in before it. An origin that knows the nodes around the target passes it to the presumed successor at once.
//! A hop that does not acknowledge inside its time-out is skipped for the next closest, so no silent peer costs more than
//! one time-out; the origin starts again if nothing comes. Iterative, one step at a time from the origin, for traces.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::config::Routing;
use super::join::TURNED_AWAY_MAX;
use super::message::{Aim, Found, Lookup, NextHop, RingMessage, Standing, Want};
use super::mutation::Mutation;
use super::ring::{Ask, Effect, Overlay, Timer};
use crate::base::limits::HOPS_MAX;
use crate::base::{Contact, Id, Incarnation, Span, Time, in_arc};

/// The result of a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The successor of the target.
    pub owner: Contact,
    /// The member before the owner: what lies between them is the owner's.
    pub before: Contact,
    /// Nodes that the lookup passed through, the origin not counted.
    pub hops: u32,
    /// Nodes that were tried on the way and did not answer in time.
    pub silent: u32,
    /// From the first attempt to the answer.
    pub took: Span,
}

/// No answer came before the deadline, or this node is in no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupFailed;

/// The result of one step of an iterative lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The node answered.
    Answered {
        /// What it knows.
        next: NextHop,
        /// How long that took.
        rtt: Span,
    },
    /// It did not.
    Silent,
}

/// Lookups that this node passed on and that were not acknowledged yet.
#[derive(Debug, Default)]
pub(super) struct Hops {
    waiting: BTreeMap<u64, Hop>,
    // Hops that did not acknowledge in time, ever.
    time_outs: u64,
    // Acknowledgements that wait to share a frame, by receiver.
    acks: BTreeMap<Contact, Vec<u64>>,
}

#[derive(Debug)]
struct Hop {
    lookup: Lookup,
    to: Contact,
    sent: Time,
    tried: Vec<Incarnation>,
}

/// How well passing lookups straight to the presumed owner has gone.
#[derive(Debug)]
pub(super) struct Directness {
    // Of 256: a moving average over the lookups of this node that were passed so.
    hits: u32,
    // Lookups since the last try, while it does not pay.
    since_try: u32,
}

/// Why a lookup goes to another one than it was passed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skipped {
    /// It had its time.
    Waited,
    /// The connection to it broke, which proves nothing.
    Broken,
    /// It is in no ring, or was not when the lookup came.
    Refused,
}

/// Lookups that this node started.
#[derive(Debug, Default)]
pub(super) struct Origins(BTreeMap<u64, Origin>);

#[derive(Debug)]
struct Origin {
    purpose: Purpose,
    target: Id,
    started: Time,
    attempt: u32,
    /// The latest attempt went straight to the presumed owner.
    direct: bool,
}

#[derive(Clone, Copy, Debug)]
enum Purpose {
    User(u64),
    Finger(u32),
    Join(Contact),
}

/// Hops waited for at the same time; beyond it a lookup is passed on without being watched.
pub(super) const HOPS_WAITING_MAX: usize = 4_096;
/// Acknowledgements in one frame.
const ACKS_MAX: usize = 64;
/// Nodes that one hop tries before it leaves the rest to the origin.
const TRIES_MAX: usize = 16;
/// The most mean distances between nodes that the known nodes around a target may lie apart for the second of them to
/// be taken for the owner. In a ring that is known whole 1 in 50 pairs lies further apart.
const DIRECT_GAP: u64 = 4;
/// Passing straight to the owner pays while so many of 256 tries hit; a miss costs about one hop.
const DIRECT_PAYS: u32 = 128;
/// While it does not pay it is tried once in so many lookups.
const DIRECT_TRY: u32 = 16;

impl Overlay {
    /// Looks up the successor of `target`; ends in [`Effect::LookupDone`] with this ticket.
    pub fn lookup(&mut self, now: Time, ticket: u64, target: Id) {
        self.start_lookup(now, Purpose::User(ticket), target);
    }

    /// What this node knows of the successor of `target`, without asking anybody.
    pub fn next_hop(&self, target: Id) -> NextHop {
        if !self.standing.is_member() {
            return NextHop::Refused;
        }
        if let Some(owner) = self.owner_after_me(target) {
            return NextHop::Owner(owner);
        }
        self.closest_before(target, &[]).or(self.successors.first()).map_or(NextHop::Refused, NextHop::Closer)
    }

    /// Asks `at` for its next hop towards `target`; ends in [`Effect::StepDone`] with this ticket.
    pub fn step(&mut self, now: Time, ticket: u64, at: Contact, target: Id) {
        self.ask(now, at, Ask::Step { ticket }, |request| RingMessage::GetNextHop { request, target });
    }

    pub(super) fn lookup_finger(&mut self, now: Time, k: u32) {
        if !self.origins.0.values().any(|origin| matches!(origin.purpose, Purpose::Finger(_))) {
            self.start_lookup(now, Purpose::Finger(k), self.fingers.start(k));
        }
    }

    pub(super) fn lookup_own_id(&mut self, now: Time, via: Contact) {
        self.start_lookup(now, Purpose::Join(via), self.me.id);
    }

    fn start_lookup(&mut self, now: Time, purpose: Purpose, target: Id) {
        let request = self.fresh_request();
        self.origins.0.insert(request, Origin { purpose, target, started: now, attempt: 0, direct: false });
        self.timers.set(Timer::Lookup(request), now + self.config.lookup_retry);
        self.launch(now, request);
    }

    /// Sends one attempt on its way.
    fn launch(&mut self, now: Time, request: u64) {
        let Some(origin) = self.origins.0.get(&request) else { return };
        let (target, purpose) = (origin.target, origin.purpose);
        let want = if matches!(purpose, Purpose::Join(_)) { Want::Before } else { Want::Owner };
        let lookup = Lookup::new(request, self.me, target, want);
        if let Purpose::Join(via) = purpose {
            self.pass_on(now, lookup, via, Vec::new());
        } else if self.is_mine(target) {
            let before = self.predecessor.or(self.predecessor_before).unwrap_or(self.me);
            self.end_lookup(now, request, Some(Found { request, owner: self.me, before, hops: 0, silent: 0 }));
        } else {
            let direct = self.forward(now, lookup, Vec::new());
            if let Some(origin) = self.origins.0.get_mut(&request) {
                origin.direct = direct;
            }
        }
    }

    /// The successor, if the target lies between this node and it; this node itself if alone.
    fn owner_after_me(&self, target: Id) -> Option<Contact> {
        if !self.standing.is_member() {
            return None;
        }
        match self.successors.first() {
            None => Some(self.me),
            Some(successor) => in_arc(self.me.id, target, successor.id).then_some(successor),
        }
    }

    /// The owner of the target, if the successor list reaches so far and it answers. Where it does not, the last member
    /// before the target that answers decides who comes next, as only that one knows of everybody who has come in. A
    /// joiner has to go to that one anyway.
    fn owner_in_list(&self, lookup: &Lookup, tried: &[Incarnation]) -> Option<(Contact, Lookup)> {
        let (list, target) = (self.successors.as_slice(), lookup.target);
        let at = list.iter().position(|contact| in_arc(self.me.id, target, contact.id))?;
        let is_untried = |contact: &&Contact| !tried.contains(&contact.incarnation);
        let answers = |contact: &&Contact| is_untried(contact) && self.peers.is_usable(contact);
        if !self.standing.is_member() {
            return None;
        }
        if list[..at].iter().all(|contact| self.peers.is_suspect(contact)) {
            // Those who were silent to several probes may be passed by, and after them one more that only did not
            // acknowledge in time: the owner, which comes next, can tell whether that one is silent to it as well.
            let proven = list[at..].iter().take_while(|contact| self.peers.is_suspect(contact)).count();
            let next = || list[at + proven..].iter().take(2);
            let owner = next().find(answers).or_else(|| next().find(is_untried))?;
            let passed_by = list.iter().take_while(|contact| *contact != owner).last();
            let silent_last = passed_by.map(|contact| contact.incarnation);
            // One that still hangs beside the ring does not know who comes next: it is not the member before the target.
            let aim = if self.linked { Aim::Neighbour } else { Aim::Walk };
            return Some((*owner, Lookup { aim, silent_last, ..*lookup }));
        }
        let owner = Some(&list[at]).filter(answers)?;
        let wanted = lookup.want == Want::Owner && lookup.aim != Aim::Walk;
        wanted.then_some((*owner, Lookup { aim: Aim::Listed, ..*lookup }))
    }

    /// Passes a lookup on, or leaves it to its origin to start again. True if it went straight to the presumed owner.
    fn forward(&mut self, now: Time, lookup: Lookup, tried: Vec<Incarnation>) -> bool {
        if tried.len() >= TRIES_MAX {
            return false;
        }
        let untried = |contact: &Contact| !tried.contains(&contact.incarnation);
        if let Some((owner, lookup)) = self.owner_in_list(&lookup, &tried) {
            self.pass_on(now, lookup, owner, tried);
            return false;
        }
        if self.owner_after_me(lookup.target).is_some() {
            return false;
        }
        let before = self.closest_before(lookup.target, &tried);
        if let Some(owner) = self.presumed_owner(&lookup, &tried) {
            // A guess: its word counts only if it knows who comes before it.
            self.pass_on(now, lookup, owner, tried);
            return true;
        }
        if let Some(next) = before.or(self.successors.first().filter(untried)) {
            self.pass_on(now, lookup, next, tried);
        }
        false
    }

    /// The first known node at or after the target, if nobody is likely to lie between.
    fn presumed_owner(&mut self, lookup: &Lookup, tried: &[Incarnation]) -> Option<Contact> {
        let wanted = lookup.want == Want::Owner && self.config.routing == Routing::Opportunistic;
        // Only the origin may guess: from hop to hop a lookup must come closer, or it might go in circles.
        let spacing = self.mean_distance().filter(|_| wanted && lookup.hops == 0 && lookup.silent == 0)?;
        let owner = self.peers.first_from(self.now, self.me.id, lookup.target)?;
        // The closest one before the target, not the one with the shortest round trip among those close to it.
        let before = self.peers.closest_before(self.now, self.me.id, lookup.target, tried)?;
        let gap = self.config.capacity.distance(before.id, owner.id);
        let likely = gap <= self.config.capacity.times(spacing, DIRECT_GAP) && !tried.contains(&owner.incarnation);
        (likely && self.directness.pays()).then_some(owner)
    }

    /// About how far apart two neighbours on the circle lie, going by the successor list.
    pub(super) fn mean_distance(&self) -> Option<Id> {
        let list = self.successors.as_slice();
        let reach = self.config.capacity.distance(self.me.id, list.last()?.id);
        Some(reach.divided_by(u32::try_from(list.len()).ok()?))
    }

    fn pass_on(&mut self, now: Time, lookup: Lookup, to: Contact, tried: Vec<Incarnation>) {
        let hop = self.fresh_request();
        if self.hops.waiting.len() < HOPS_WAITING_MAX {
            self.timers.set(Timer::Hop(hop), now + self.hop_timeout(&lookup, &to));
            self.hops.waiting.insert(hop, Hop { lookup, to, sent: now, tried });
        }
        self.send(to, RingMessage::Lookup { hop, lookup });
    }

    fn hop_timeout(&self, lookup: &Lookup, to: &Contact) -> Span {
        // Whether the predecessor answers decides whether this node may answer in its place.
        let attempt = u32::from(lookup.aim == Aim::Neighbour && self.predecessor == Some(*to));
        self.peers.hop_timeout(to, attempt) + self.config.ack_delay
    }

    // ----- at a hop -----

    pub(super) fn on_lookup(&mut self, now: Time, from: Contact, hop: u64, mut lookup: Lookup) {
        if !self.standing.is_member() {
            if lookup.want == Want::Before && lookup.origin == from && self.turned_away.len() < TURNED_AWAY_MAX {
                self.turned_away.insert(from);
            }
            self.send(from, RingMessage::LookupRefused { hop });
            return;
        }
        lookup.hops += 1;
        // To its origin the answer is acknowledgement enough.
        if !(self.serve_lookup(now, from, lookup) && lookup.origin == from) {
            self.acknowledge(now, from, hop);
        }
    }

    /// Answers a lookup, or passes it on. True if it was answered.
    fn serve_lookup(&mut self, now: Time, from: Contact, lookup: Lookup) -> bool {
        let Lookup { target, hops, .. } = lookup;
        let for_it = self.mutated(Mutation::AnswersForSuccessor) && self.owner_after_me(target).is_some();
        if lookup.want == Want::Before || for_it {
            if let Some(owner) = self.owner_after_me(target) {
                self.answer(now, &lookup, owner, self.me);
                return true;
            }
        } else if self.is_mine(target) || lookup.aim == Aim::Neighbour && self.is_nearest(&lookup) {
            let before = self.predecessor.or(self.predecessor_before).unwrap_or(from);
            self.answer(now, &lookup, self.me, before);
            return true;
        }
        if hops >= HOPS_MAX {
            return false;
        }
        let tried = lookup.silent_last.into_iter().collect();
        match self.predecessor.filter(|before| self.is_overshot(&lookup, before)) {
            // Somebody has come in before this node that the sender does not know.
            Some(before) => self.pass_on(now, lookup, before, tried),
            // Whose list named this node knows those before the target too; for this node that is once around the ring.
            None if lookup.aim == Aim::Listed => self.pass_on(now, lookup.missed(), from, tried),
            None => {
                self.forward(now, lookup.missed(), tried);
            }
        }
        false
    }

    /// Whether nobody who answers is known to lie between the target and this node. That others got no answer from the
    /// predecessor is not enough: a connection that broke looks the same. This node must have waited for it in vain too.
    fn is_nearest(&self, lookup: &Lookup) -> bool {
        let Some(before) = self.predecessor else {
            // The same holds for the latest one; of anybody else this node has waited for nobody.
            let waited = |who| self.predecessor_before.is_some_and(|before| before.incarnation == who);
            return lookup.silent_last.is_none_or(waited);
        };
        self.peers.is_silent(self.now, &before)
            && lookup.silent_last == Some(before.incarnation)
            && self.is_near(lookup.target, &before)
    }

    /// Whether the lookup has come a little too far: to a neighbour's neighbour, or by the origin's guess.
    fn is_overshot(&self, lookup: &Lookup, before: &Contact) -> bool {
        let back = self.config.capacity.distance(lookup.target, before.id);
        let guessed = lookup.hops == 1 && self.mean_distance().is_some_and(|spacing| back <= spacing);
        let aimed = match lookup.aim {
            Aim::Neighbour => true,
            // Only the member before the target can tell who comes after it now.
            Aim::Listed => self.peers.is_usable(before) && lookup.silent_last != Some(before.incarnation),
            Aim::Way | Aim::Walk => guessed,
        };
        aimed && self.owner_after_me(lookup.target).is_none() && self.is_near(lookup.target, before)
    }

    /// Whether the target lies so shortly before the predecessor that going back node by node is the way.
    fn is_near(&self, target: Id, before: &Contact) -> bool {
        let capacity = self.config.capacity;
        let list = self.successors.as_slice();
        let neighbourhood = list.last().map_or(Id::ZERO, |last| capacity.distance(self.me.id, last.id));
        let back = capacity.distance(target, before.id);
        back <= neighbourhood && back < capacity.distance(self.me.id, target)
    }

    fn acknowledge(&mut self, now: Time, to: Contact, hop: u64) {
        let acks = self.hops.acks.entry(to).or_default();
        acks.push(hop);
        if acks.len() >= ACKS_MAX {
            let hops = std::mem::take(acks);
            self.hops.acks.remove(&to);
            self.send(to, RingMessage::LookupAck { hops });
        } else {
            self.timers.set_no_later(Timer::Acks, now + self.config.ack_delay);
        }
    }

    pub(super) fn flush_acks(&mut self) {
        for (to, hops) in std::mem::take(&mut self.hops.acks) {
            self.send(to, RingMessage::LookupAck { hops });
        }
    }

    // ----- at the sender of a hop -----

    pub(super) fn on_lookup_ack(&mut self, _now: Time, from: Contact, hops: &[u64]) {
        for hop in hops {
            if self.hops.waiting.get(hop).is_some_and(|waiting| waiting.to == from) {
                // No sample: the acknowledgement may have waited for company.
                self.drop_hop(*hop);
            }
        }
    }

    pub(super) fn on_lookup_refused(&mut self, now: Time, from: Contact, hop: u64) {
        if self.hops.waiting.get(&hop).is_some_and(|waiting| waiting.to == from) {
            self.skip_hop(now, hop, Skipped::Refused);
        }
    }

    pub(super) fn hop_overdue(&mut self, now: Time, hop: u64) {
        if let Some(to) = self.hops.waiting.get(&hop).map(|waiting| waiting.to) {
            self.hops.time_outs += 1;
            // One missing acknowledgement is no proof; let a probe decide whether it lives. Until then other lookups
            // need not wait for it too.
            self.peers.doubt(now, &to);
            self.probe(now, to);
            self.skip_hop(now, hop, Skipped::Waited);
        }
    }

    /// A hop is still being waited for after a gap in this node's own time: it gets its time anew.
    pub(super) fn wait_anew(&mut self, now: Time, hop: u64) {
        if let Some(Hop { lookup, to, .. }) = self.hops.waiting.get(&hop) {
            self.timers.set(Timer::Hop(hop), now + self.hop_timeout(lookup, to));
        }
    }

    pub(super) fn fail_hops_to(&mut self, now: Time, addr: SocketAddr) {
        let hops: Vec<u64> = self.hops.waiting.iter().filter(|(_, w)| w.to.addr == addr).map(|(&hop, _)| hop).collect();
        for hop in hops {
            self.skip_hop(now, hop, Skipped::Broken);
        }
    }

    /// How many nodes have not acknowledged a lookup that this node passed on, within the time they had.
    pub fn time_outs(&self) -> u64 {
        self.hops.time_outs
    }

    /// How many hops are waited for.
    pub(super) fn hops_waiting(&self) -> usize {
        self.hops.waiting.len()
    }

    /// Answers to the origin, which may be this node itself after a way around the ring.
    fn answer(&mut self, now: Time, lookup: &Lookup, owner: Contact, before: Contact) {
        let Lookup { request, hops, silent, .. } = *lookup;
        let found = Found { request, owner, before, hops, silent };
        if lookup.origin == self.me {
            self.end_lookup(now, request, Some(found));
        } else {
            self.send(lookup.origin, RingMessage::Found(found));
        }
    }

    fn drop_hop(&mut self, hop: u64) -> Option<Hop> {
        self.timers.cancel(Timer::Hop(hop));
        self.hops.waiting.remove(&hop)
    }

    /// Tries the next one.
    fn skip_hop(&mut self, now: Time, hop: u64, why: Skipped) {
        let Some(Hop { mut lookup, to, mut tried, .. }) = self.drop_hop(hop) else { return };
        tried.push(to.incarnation);
        // Of another one that was passed by on the way here this node knows nothing.
        let alone = lookup.silent_last.is_none_or(|other| other == to.incarnation);
        lookup.silent += 1;
        // On the way others may know better: a joiner that refused may be a member when the lookup gets there, and the
        // only way on.
        if lookup.aim != Aim::Way || why != Skipped::Refused {
            lookup.silent_last = Some(to.incarnation);
        }
        match self.origins.0.get(&lookup.request).map(|origin| origin.purpose) {
            Some(Purpose::Join(_)) if lookup.origin == self.me => self.end_lookup(now, lookup.request, None),
            None if lookup.origin == self.me => {}
            // It went back to the predecessor, and this node has now waited for that one itself.
            _ if lookup.aim == Aim::Neighbour
                && alone
                && self.predecessor == Some(to)
                && (why == Skipped::Waited || self.peers.is_suspect(&to))
                && self.is_near(lookup.target, &to) =>
            {
                self.answer(now, &lookup, self.me, to);
            }
            _ => {
                self.forward(now, lookup.missed(), tried);
            }
        }
    }

    // ----- back at the origin -----

    pub(super) fn on_found(&mut self, now: Time, from: Contact, found: Found) {
        let Found { request, hops, .. } = found;
        if !self.origins.0.contains_key(&request) {
            return;
        }
        let mine = |hop: &Hop| hop.lookup.request == request && hop.lookup.origin == self.me;
        let waiting: Vec<u64> = self.hops.waiting.iter().filter(|(_, hop)| mine(hop)).map(|(&id, _)| id).collect();
        for id in waiting {
            if let Some(hop) = self.drop_hop(id)
                && hop.to == from
                && hops == 1
            {
                self.peers.sample(&from, now.since(hop.sent));
            }
        }
        self.end_lookup(now, request, Some(found));
    }

    pub(super) fn lookup_overdue(&mut self, now: Time, request: u64) {
        let deadline = self.config.lookup_deadline;
        let Some(origin) = self.origins.0.get_mut(&request) else { return };
        let is_over = now.since(origin.started) >= deadline;
        if is_over || matches!(origin.purpose, Purpose::Finger(_)) && origin.attempt > 1 {
            self.end_lookup(now, request, None);
            return;
        }
        origin.attempt += 1;
        let left = deadline - now.since(origin.started);
        let wait = (self.config.lookup_retry * u64::from(origin.attempt + 1)).min(left);
        self.timers.set(Timer::Lookup(request), now + wait);
        self.launch(now, request);
    }

    fn end_lookup(&mut self, now: Time, request: u64, found: Option<Found>) {
        let Some(origin) = self.origins.0.remove(&request) else { return };
        self.timers.cancel(Timer::Lookup(request));
        if origin.direct {
            self.directness.learn(found.is_some_and(|found| found.hops == 1));
        } else if let Some(found) = &found {
            // Members of this ring led there; whoever is asked directly may be in another one.
            self.peers.confirm(&found.owner);
        }
        match (origin.purpose, found) {
            (Purpose::User(ticket), found) => {
                let took = now.since(origin.started);
                let answer = |Found { owner, before, hops, silent, .. }| Answer { owner, before, hops, silent, took };
                let result = found.map(answer).ok_or(LookupFailed);
                self.effect(Effect::LookupDone { ticket, result });
            }
            (Purpose::Finger(k), Some(found)) => self.learn_finger(k, found.owner, found.before),
            (Purpose::Join(_), Some(found)) => self.join_place_found(now, found.before),
            (Purpose::Join(_), None) if self.standing == Standing::Joining => self.join_silent(),
            (Purpose::Finger(_) | Purpose::Join(_), None) => {}
        }
    }
}

impl Default for Directness {
    fn default() -> Self {
        Self { hits: DIRECT_PAYS * 3 / 2, since_try: 0 }
    }
}

impl Directness {
    fn pays(&mut self) -> bool {
        self.since_try += 1;
        self.hits >= DIRECT_PAYS || self.since_try >= DIRECT_TRY
    }

    fn learn(&mut self, hit: bool) {
        self.since_try = 0;
        self.hits = self.hits - self.hits / 16 + if hit { 16 } else { 0 };
    }
}
