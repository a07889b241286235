//! The weights of the members in the successor list: they travel with it, from list to list, as each node's own says.

use std::collections::BTreeMap;

use super::ring::{Effect, Overlay};
use crate::base::{Contact, Incarnation, Span, Weight};

/// So long after it came in a node does not wait any more for somebody who knows all weights.
const KNOWN_AFTER: Span = Span::secs(5);

/// What was said of the weights of others.
#[derive(Debug, Default)]
pub(super) struct Weights {
    // Of those in the list; who is not here has the default.
    of: BTreeMap<Incarnation, Weight>,
    // Somebody has said something since this node came in.
    known: bool,
}

impl Weights {
    /// This node is the ring: nobody has a weight that it does not know.
    pub fn begin(&mut self) {
        self.known = true;
    }

    /// This node has come into a ring: whom it has in its list it knows by name only.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Overlay {
    /// The weight of this node or one in its successor list. `None`: nobody has told it any yet.
    pub fn weight(&self, contact: &Contact) -> Option<Weight> {
        if contact.incarnation == self.me.incarnation {
            return Some(self.config.weight);
        }
        self.knows_weights().then(|| self.weights.of.get(&contact.incarnation).copied().unwrap_or_default())
    }

    /// Where all are newcomers nobody can tell, and each begins with those that it has asked.
    fn knows_weights(&self) -> bool {
        self.weights.known || self.now.since(self.entered) >= KNOWN_AFTER
    }

    /// This node's own weight, then those of its successors in their order if it knows them; nothing where all are the
    /// default.
    pub(super) fn told_weights(&self) -> Vec<Weight> {
        if !self.knows_weights() {
            return vec![self.config.weight];
        }
        let of = |contact: &Contact| self.weights.of.get(&contact.incarnation).copied().unwrap_or_default();
        let own = std::iter::once(self.config.weight);
        let all: Vec<Weight> = own.chain(self.successors.as_slice().iter().map(of)).collect();
        if all.iter().all(|weight| *weight == Weight::default()) { Vec::new() } else { all }
    }

    /// A member has told its weight and those of its successors. The list of the first successor is this node's own, moved
    /// by one: of others only its word counts, so that what is new is not undone by whom it has not reached.
    pub(super) fn hear_weights(&mut self, from: Contact, successors: &[Contact], told: &[Weight]) {
        let own = self.successors.as_slice();
        let is_first = own.first() == Some(&from);
        // A newcomer has only its own to tell.
        let tells_all = told.is_empty() || told.len() > successors.len();
        let is_news = !self.weights.known && is_first && tells_all;
        self.weights.known |= is_news;
        if told.is_empty() && self.weights.of.is_empty() && !is_news {
            return;
        }
        let before = self.weights.of.clone();
        self.weights.of.retain(|who, _| own.iter().any(|contact| contact.incarnation == *who));
        let others: &[Contact] = if is_first && tells_all { successors } else { &[] };
        let all = std::iter::once(&from).chain(others);
        for (at, contact) in all.enumerate().filter(|(_, contact)| own.contains(contact)) {
            let weight = told.get(at).copied().unwrap_or_default();
            if weight == Weight::default() {
                self.weights.of.remove(&contact.incarnation);
            } else {
                self.weights.of.insert(contact.incarnation, weight);
            }
        }
        if self.weights.of != before {
            self.neighbours_changed(self.now);
        } else if is_news {
            self.effect(Effect::NeighboursChanged);
        }
    }
}
