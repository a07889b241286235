//! How a node comes to know the ring: peers tell each other whom they know.
//!
//! A newcomer asks its way around the circle once; later every node asks a random one for a piece of the circle now and
//! then. Each contact travels with the time since somebody last knew it alive, so that the dead are not passed on for
//! ever. What it costs and how much of a large ring becomes known this way is still to be measured.

use std::collections::BTreeSet;

use super::message::RingMessage;
use super::mutation::Mutation;
use super::ring::{Ask, Overlay, Timer};
use crate::base::{Contact, Id, Span, Time, between};

/// Contacts in one answer.
pub const CONTACTS_PAGE: usize = 64;

/// How old a member is taken to be known alive that another one names as neighbour or owner.
const HEARSAY_AGE: Span = Span::secs(10);
/// Between the questions of a newcomer's way around the circle.
const TOUR_INTERVAL: Span = Span::millis(100);

/// A newcomer's way around the circle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tour {
    /// Not begun.
    #[default]
    Ahead,
    /// So far.
    At(Id),
    /// Once around, or the table is full.
    Done,
}

impl Overlay {
    /// Members of earlier times that this node may come back through: asked in vain they are forgotten in time.
    pub fn remember(&mut self, contacts: &[Contact]) {
        self.was_member = true;
        for contact in contacts.iter().filter(|contact| contact.id != self.me.id) {
            self.peers.mention(*contact, &mut self.rng);
        }
        if self.mutated(Mutation::RestartWithOldPointers) {
            self.resume(contacts);
        }
    }

    /// Whether the peer at this id is known to be in this node's own ring.
    pub fn is_confirmed(&self, id: Id) -> bool {
        self.peers.at(id).is_some_and(|peer| peer.in_ring)
    }

    /// The neighbours and other members of this node's ring, at most `limit` beyond the neighbours.
    pub fn known_members(&self, limit: usize) -> Vec<Contact> {
        let neighbours = self.successors.as_slice().iter().copied().chain(self.predecessor);
        let others = self.peers.confirmed().filter(|contact| !self.is_gone(contact)).take(limit);
        let all: BTreeSet<Contact> = neighbours.chain(others).collect();
        all.into_iter().collect()
    }

    /// Whether the successor list names the whole ring.
    pub fn knows_ring(&self) -> bool {
        self.successors.is_round() || self.is_alone()
    }

    /// Peers worth remembering beyond this process, at most `limit`.
    pub fn memorable(&self, limit: usize) -> Vec<Contact> {
        self.peers.memorable(limit)
    }

    pub(super) fn exchange_contacts(&mut self, now: Time) {
        // A list that has come round names everybody.
        let knows_all = self.knows_ring();
        let pause = match self.rounds.tour {
            Tour::Done if !knows_all && self.knows_few() => self.around(self.config.exchange_interval_first),
            _ if knows_all || self.rounds.tour == Tour::Done => self.around(self.config.exchange_interval),
            _ => TOUR_INTERVAL,
        };
        self.timers.set(Timer::Exchange, now + pause);
        let asking = self.is_asking(|ask| matches!(ask, Ask::Contacts { .. }));
        if !self.standing.is_member() || knows_all || asking {
            return;
        }
        let (from, tour) = match self.rounds.tour {
            Tour::Ahead => (self.me.id, true),
            Tour::At(id) => (id, true),
            Tour::Done => (self.config.capacity.random(&mut self.rng), false),
        };
        let me = self.me;
        if let Some(to) = self.peers.random_candidate(now, &mut self.rng, &me) {
            let ask = Ask::Contacts { after: from, tour };
            self.ask(now, to, ask, |request| RingMessage::GetContacts { request, after: from });
        }
    }

    /// Whether many members are not known, going by how close to each other the neighbours lie.
    fn knows_few(&self) -> bool {
        let capacity = self.config.capacity;
        let known = u32::try_from(self.peers.len() * 5 / 4).unwrap_or(u32::MAX);
        let spacing_if_all = capacity.highest().divided_by(known);
        let room = self.peers.len() < self.config.contacts_max;
        room && self.mean_distance().is_some_and(|spacing| spacing < spacing_if_all)
    }

    pub(super) fn on_get_contacts(&mut self, now: Time, from: Contact, request: u64, after: Id) {
        let mut contacts = self.peers.page(now, after, CONTACTS_PAGE);
        contacts.retain(|(contact, _)| contact.id != from.id);
        if self.standing.is_member() {
            // This node itself, where it belongs.
            let at = contacts.partition_point(|(contact, _)| between(after, contact.id, self.me.id));
            contacts.insert(at, (self.me, Span::ZERO));
            contacts.truncate(CONTACTS_PAGE);
        }
        self.send(from, RingMessage::Contacts { request, contacts });
    }

    /// A peer named members of the ring, and knew them alive so long ago.
    fn hear_of(&mut self, now: Time, from: Contact, told: &[(Contact, Span)]) {
        let others = told.iter().filter(|(contact, _)| contact.id != self.me.id);
        let others = others.map(|(contact, age)| (*contact, Some(*age)));
        self.peers.told(now, &from, others, &mut self.rng);
    }

    /// The same of its neighbours, or of the owner that it found: one who should know.
    pub(super) fn hear_of_neighbours(&mut self, now: Time, from: Contact, told: impl IntoIterator<Item = Contact>) {
        let told: Vec<_> = told.into_iter().map(|contact| (contact, HEARSAY_AGE)).collect();
        self.hear_of(now, from, &told);
    }

    pub(super) fn on_contacts(&mut self, now: Time, from: Contact, request: u64, contacts: &[(Contact, Span)]) {
        let Some(Ask::Contacts { after, tour }) = self.take_reply(now, from, request) else { return };
        self.hear_of(now, from, contacts);
        if !tour {
            return;
        }
        let full = self.peers.len() >= self.config.contacts_max;
        self.rounds.tour = match contacts.last() {
            // The way ends where it has come round to this node.
            Some((last, _)) if !full && (after == self.me.id || between(after, last.id, self.me.id)) => {
                if last.id == after { Tour::Done } else { Tour::At(last.id) }
            }
            _ => Tour::Done,
        };
        if self.rounds.tour != Tour::Done {
            self.timers.set_no_later(Timer::Exchange, now + TOUR_INTERVAL);
        }
    }

    /// Nobody answered on the way around: somebody else is asked, from the same place.
    pub(super) fn contacts_silent(&mut self, now: Time) {
        self.timers.set_no_later(Timer::Exchange, now + TOUR_INTERVAL);
    }
}
