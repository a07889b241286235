//! Nodes that want to hear of changes here, and what they have not been told yet.

use std::collections::{BTreeMap, VecDeque};

use crate::base::limits::HINTS_MAX;
use crate::base::{Contact, Incarnation, Rng, Span, Time};
use crate::data::{Filter, Hint, Key, Resume};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Interests {
    all: BTreeMap<Incarnation, Interest>,
    // What was accepted here, and who coordinated it may not live to tell.
    later: VecDeque<(Time, Key, Hint)>,
    is_pending: bool,
}

#[derive(Debug)]
struct Interest {
    contact: Contact,
    filters: Vec<Filter>,
    until: Time,
    // Counts what it was told, so that it notices if it has missed something.
    sent: u64,
    pending: Vec<(Key, Hint)>,
}

/// A notice, and its number.
pub(super) type Notice = (Contact, u64, Vec<(Key, Hint)>);

/// After what was accepted here has been kept for so long, others are told. Most often the coordinator did so long before.
const LATER: Span = Span::secs(1);
/// So much of it is kept.
const LATER_MAX: usize = 4_096;

impl Interests {
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Somebody wants to hear of these keys until then. The number of what it was told last.
    pub fn want(&mut self, contact: Contact, filters: Vec<Filter>, until: Time, rng: &mut Rng) -> u64 {
        // It begins anywhere, so that nobody takes it for one that was given up in between.
        let fresh = || Interest { contact, filters: Vec::new(), until, sent: rng.next_u64() >> 1, pending: Vec::new() };
        let interest = self.all.entry(contact.incarnation).or_insert_with(fresh);
        (interest.filters, interest.until) = (filters, until);
        interest.sent
    }

    /// Who has given a token that names it so.
    pub fn named(&self, name: u32) -> Option<Contact> {
        self.all.values().map(|interest| interest.contact).find(|of| Resume::name_of(of.incarnation) == name)
    }

    /// Those who did not ask again in time are told no more.
    pub fn expire(&mut self, now: Time) {
        self.all.retain(|_, interest| interest.until > now);
    }

    /// Something has changed.
    pub fn tell(&mut self, key: &Key, hint: Hint) {
        for interest in self.all.values_mut() {
            if interest.filters.iter().any(|filter| filter.is_about(key)) {
                interest.pending.push((key.clone(), hint));
                self.is_pending = true;
            }
        }
    }

    /// Something was accepted, and is to be told later. Whether it is the first.
    pub fn tell_later(&mut self, now: Time, key: Key, hint: Hint) -> bool {
        self.later.push_back((now + LATER, key, hint));
        self.later.len() == 1
    }

    /// What of that is due, or too much to be kept.
    pub fn due(&mut self, now: Time) -> Option<(Key, Hint)> {
        let (at, ..) = self.later.front()?;
        let is_due = *at <= now || self.later.len() > LATER_MAX;
        let (_, key, hint) = if is_due { self.later.pop_front()? } else { return None };
        Some((key, hint))
    }

    /// When [`Interests::due`] or [`Interests::expire`] has something to do.
    pub fn next(&self) -> Option<Time> {
        let until = self.all.values().map(|interest| interest.until);
        self.later.front().map(|(at, ..)| *at).into_iter().chain(until).min()
    }

    /// Something has happened of which not all keys can be named: everybody is to think that it has missed something.
    pub fn skip(&mut self) {
        for interest in self.all.values_mut() {
            interest.sent += 1;
        }
    }

    /// What is to be sent now.
    pub fn notices(&mut self) -> Vec<Notice> {
        let mut notices = Vec::new();
        if std::mem::take(&mut self.is_pending) {
            for interest in self.all.values_mut() {
                for hints in std::mem::take(&mut interest.pending).chunks(HINTS_MAX) {
                    interest.sent += 1;
                    notices.push((interest.contact, interest.sent, hints.to_vec()));
                }
            }
        }
        notices
    }
}
