//! Finding the ring: through the seeds, and after losing it through every member that is remembered.
//!
//! Only a node without seeds creates a ring. One that lost every neighbour serves nothing and joins again; if no
//! remembered member is in a ring any more, the one with the lowest id among those that answer carries it on.

use std::net::SocketAddr;

use super::chord_node::{ChordNode, NodeTimer};
use super::io::{Event, Hope, Memory, Output, Stop};
use super::params::RingParams;
use crate::base::limits::CONTACTS_REMEMBERED_MAX;
use crate::base::{Contact, Incarnation, Now, Span};
use crate::overlay::Standing;

/// The state of the search.
#[derive(Debug, Default)]
pub(super) struct Seeker {
    /// Rounds of dialling since the last success.
    rounds: u32,
    /// A join through somebody is in progress.
    joining: bool,
    /// Who answered meanwhile and may let this node in if that one does not; the most hopeful last.
    others: Vec<Contact>,
    /// Members that were written down last.
    remembered: usize,
}

/// The first and the longest wait between rounds; the actual wait is drawn below it.
const BACKOFF_MIN: Span = Span::millis(100);
const BACKOFF_MAX: Span = Span::secs(10);
/// The longest wait of one that others carry the ring on for: it may join any moment.
const BACKOFF_MAX_AWAITING: Span = Span::secs(1);
/// Rounds without a ring before the lowest member that answers carries the ring on.
const REFORM_ROUNDS: u32 = 5;
/// Remembered members dialled in one round beside the seeds.
const REMEMBERED_MAX: usize = 32;
/// Between a change of the neighbours and writing it down; more changes may follow.
const REMEMBER_PAUSE: Span = Span::secs(2);
/// Mean time between looks at a seed.
const SEEDS_INTERVAL: Span = Span::secs(60);

impl ChordNode {
    pub(super) fn start_seeking(&mut self, now: Now) {
        let memory = self.config.memory.take();
        if let Some(Memory { params, contacts }) = &memory {
            if let Some((name, wish, has)) = params.first_difference(&self.config.wishes) {
                let text = format!(
                    "this node's ring has --{name} {has}, not {wish}: leave --{name} out, or begin with an empty \
                     --data-dir"
                );
                self.outputs.push_back(Output::Stop(Stop::Fatal(text)));
                return;
            }
            let views = std::mem::take(&mut self.config.views);
            let inside = self.enter(*params);
            inside.overlay.remember(contacts);
            if let Err(slot) = inside.copies.restore(&views) {
                let text = format!("what is written down of {slot:?} is damaged: restore the data directory");
                self.outputs.push_back(Output::Stop(Stop::Fatal(text)));
                return;
            }
        }
        if memory.is_some() || !self.config.seeds.is_empty() {
            self.seek(now);
            return;
        }
        match RingParams::create(self.config.ring_if_created, &self.config.wishes) {
            Ok(params) => {
                let inside = self.enter(params);
                inside.copies.create();
                inside.overlay.create(now.mono);
            }
            Err(text) => self.outputs.push_back(Output::Stop(Stop::Fatal(text))),
        }
    }

    fn is_seeking(&self) -> bool {
        self.inside
            .as_ref()
            .is_none_or(|inside| matches!(inside.overlay.standing(), Standing::Joining | Standing::Orphan))
    }

    /// One round: dials everybody who might know the ring.
    pub(super) fn seek(&mut self, now: Now) {
        if !self.is_seeking() || self.seeker.joining {
            return;
        }
        if self.seeker.rounds >= REFORM_ROUNDS && self.reform(now) {
            return;
        }
        self.seeker.rounds += 1;
        self.seeker.others.clear();
        let remembered = self.inside.as_ref().map(|inside| inside.overlay.contacts().collect::<Vec<_>>());
        let remembered = remembered.unwrap_or_default();
        let first = self.rng.index(remembered.len());
        let some = remembered.iter().cycle().skip(first).take(remembered.len().min(REMEMBERED_MAX));
        let addresses = some.map(|contact| contact.addr.to_string());
        let mut all: Vec<String> = self.config.seeds.iter().cloned().chain(addresses).collect();
        all.dedup();
        for seed in all {
            self.outputs.push_back(Output::Dial { seed });
        }
        self.seek_later(now);
    }

    /// The one who was asked does not let this node in: the next one, or the next round.
    pub(super) fn on_join_failed(&mut self, now: Now) {
        self.seeker.joining = false;
        match self.seeker.others.pop() {
            Some(next) => self.join_through(now, next),
            None => self.seek_later(now),
        }
    }

    fn join_through(&mut self, now: Now, contact: Contact) {
        if let Some(inside) = &mut self.inside {
            self.seeker.joining = true;
            inside.overlay.join(now.mono, contact);
        }
    }

    /// Arms the next round, unless one is armed.
    fn seek_later(&mut self, now: Now) {
        if self.is_seeking() && self.timers.get(NodeTimer::Seek).is_none() {
            let wait = self.seek_backoff();
            self.timers.set(NodeTimer::Seek, now.mono + wait);
        }
    }

    /// Full jitter: between the least wait and one that doubles with each round.
    fn seek_backoff(&mut self) -> Span {
        let awaiting = self.inside.as_ref().is_some_and(|inside| inside.overlay.others_carry_on());
        let cap = if awaiting { BACKOFF_MAX_AWAITING } else { BACKOFF_MAX };
        let longest = (BACKOFF_MIN * (1 << self.seeker.rounds.min(8))).min(cap);
        BACKOFF_MIN + Span(self.rng.below(longest.0))
    }

    pub(super) fn on_seed_failed(&mut self, now: Now, seed: String, reason: String, hope: Hope) {
        if !self.is_seeking() {
            return;
        }
        if hope == Hope::None && self.inside.is_none() {
            self.outputs.push_back(Output::Stop(Stop::Fatal(format!("{seed} refuses this node: {reason}"))));
            return;
        }
        if let (Some(inside), Ok(addr)) = (&mut self.inside, seed.parse()) {
            inside.overlay.forget_standing_at(addr);
        }
        let soon = now.mono + BACKOFF_MAX_AWAITING;
        if hope == Hope::Soon && self.timers.get(NodeTimer::Seek).is_some_and(|at| at > soon) {
            let wait = BACKOFF_MIN + Span(self.rng.below(BACKOFF_MAX_AWAITING.0 - BACKOFF_MIN.0));
            self.timers.set(NodeTimer::Seek, now.mono + wait);
        }
        let retry_in = self.timers.get(NodeTimer::Seek).map_or(Span::ZERO, |at| at.since(now.mono));
        if self.config.seeds.contains(&seed) {
            self.outputs.push_back(Output::Event(Event::SeedFailed { seed, reason, retry_in }));
        }
    }

    /// A handshake ended well: whoever it is, if we are outside it can let us in.
    pub(super) fn on_session(
        &mut self,
        now: Now,
        (addr, incarnation): (SocketAddr, Incarnation),
        params: RingParams,
        dialled_as_seed: bool,
    ) {
        if self.inside.is_none() {
            if !dialled_as_seed {
                return;
            }
            self.enter(params);
        }
        let seeking = self.is_seeking() && dialled_as_seed;
        let Some(inside) = &mut self.inside else { return };
        let contact = Contact::new(inside.params.space.capacity(), addr, incarnation);
        inside.overlay.handle_alive(now.mono, contact);
        if dialled_as_seed && inside.overlay.standing() == Standing::Member {
            inside.overlay.offer_myself_to(contact);
        }
        if inside.overlay.was_member() && matches!(inside.overlay.standing(), Standing::Joining | Standing::Orphan) {
            // Is it in a ring, or might it carry ours on?
            inside.overlay.probe(now.mono, contact);
        }
        if seeking && self.seeker.joining {
            self.seeker.others.insert(0, contact);
        } else if seeking {
            self.join_through(now, contact);
        }
    }

    pub(super) fn on_joined(&mut self, now: Now) {
        self.seeker = Seeker::default();
        self.timers.cancel(NodeTimer::Seek);
        self.remember_soon(now);
        if !self.config.seeds.is_empty() {
            self.timers.set(NodeTimer::Seeds, now.mono + SEEDS_INTERVAL);
        }
        if let Some(inside) = &self.inside {
            let event = if inside.overlay.is_alone() { Event::Created } else { Event::Joined };
            self.outputs.push_back(Output::Event(event(inside.params)));
        }
        self.maintain(now);
    }

    pub(super) fn on_orphaned(&mut self, now: Now) {
        self.outputs.push_back(Output::Event(Event::Orphaned));
        self.seeker = Seeker::default();
        self.seek(now);
    }

    // ----- what is kept beyond the process -----

    pub(super) fn remember_soon(&mut self, now: Now) {
        let few = self.inside.as_ref().map_or(0, |inside| inside.params.successors);
        if self.seeker.remembered < few {
            // Who comes back and knows nobody believes itself to be the ring.
            self.remember();
        }
        self.timers.set_no_later(NodeTimer::Remember, now.mono + REMEMBER_PAUSE);
    }

    pub(super) fn remember(&mut self) {
        if let Some(inside) = self.inside.as_ref().filter(|inside| inside.overlay.standing() == Standing::Member) {
            let contacts = inside.overlay.memorable(CONTACTS_REMEMBERED_MAX);
            self.seeker.remembered = contacts.len();
            let memory = Memory { params: inside.params, contacts };
            self.outputs.push_back(Output::Remember(Box::new(memory)));
        }
    }

    /// A member looks from time to time whether a seed is there that is not known to be in its ring: two rings of one
    /// origin become one again, also when neither remembers the other.
    pub(super) fn look_for_seeds(&mut self, now: Now) {
        let Some(inside) = self.inside.as_ref().filter(|inside| inside.overlay.standing() == Standing::Member) else {
            return;
        };
        let seed = self.config.seeds[self.rng.index(self.config.seeds.len())].clone();
        let capacity = inside.params.space.capacity();
        let in_ring = seed.parse().is_ok_and(|addr| {
            let id = Contact::id_of(capacity, addr);
            id == inside.overlay.me().id || inside.overlay.is_confirmed(id)
        });
        if !in_ring {
            self.outputs.push_back(Output::Dial { seed });
        }
        let wait = Span(SEEDS_INTERVAL.0 / 2 + self.rng.below(SEEDS_INTERVAL.0));
        self.timers.set(NodeTimer::Seeds, now.mono + wait);
    }

    /// Carries the ring on alone, if this node was a member and nobody else answers that does or will.
    fn reform(&mut self, now: Now) -> bool {
        let Some(inside) = &mut self.inside else { return false };
        if !inside.overlay.was_member() || inside.overlay.others_carry_on() {
            return false;
        }
        self.outputs.push_back(Output::Event(Event::Reformed));
        let known: Vec<Contact> = inside.overlay.contacts().take(REMEMBERED_MAX).collect();
        inside.overlay.create(now.mono);
        // Those who wait for it need not wait for their next round.
        for contact in known {
            inside.overlay.offer_myself_to(contact);
        }
        true
    }

    /// The same without waiting for anybody who may be silent for a moment, as nobody is: the whole ring was started
    /// again.
    pub(super) fn reform_at_once(&mut self, now: Now) -> bool {
        let waits = self.is_seeking() && !self.seeker.joining && self.seeker.rounds > 0;
        let Some(inside) = self.inside.as_ref().filter(|_| waits) else { return false };
        // Whoever knows nobody may be told of somebody by the seeds.
        let knows_some = inside.overlay.contacts().next().is_some() || self.config.seeds.is_empty();
        knows_some && inside.overlay.is_first_of_all() && self.reform(now)
    }

    /// A member offers itself to one that looks for its ring.
    pub(super) fn on_offer_while_seeking(&mut self, now: Now, member: Contact) {
        if !self.is_seeking() || member.incarnation == self.config.incarnation {
            return;
        }
        if !self.seeker.joining {
            self.join_through(now, member);
        } else if self.seeker.others.len() < REMEMBERED_MAX {
            self.seeker.others.push(member);
        }
    }
}
