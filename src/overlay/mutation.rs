//! Rules of the ring that a test can switch off, one at a time, to see that the simulator's checkers notice.
//!
//! Outside the library's own tests nothing is ever switched off: [`is_on`] is a constant there.

#[cfg(test)]
use super::fingers::FingerTable;
use super::message::Standing;
#[cfg(test)]
use super::peers::Peers;
use super::{Effect, Overlay, OverlayConfig};
use crate::base::Contact;

/// A rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A joiner takes its successor only, not the whole list of the node before it.
    JoinCopiesOnePointer,
    /// Stabilise takes the successor's predecessor without asking it.
    UnaskedPredecessor,
    /// A restarted node goes on with the pointers that it remembers.
    RestartWithOldPointers,
    /// A node whose successor list ran out declares itself the ring.
    OrphanIsTheRing,
    /// A member lets a second joiner in while the first is on its way, and releases neighbours meanwhile.
    AdmitsTwo,
    /// A newcomer is taken although its list skips somebody.
    TakesWhoSkips,
    /// A lookup is answered by the node before the owner, which does not ask whether it lives.
    AnswersForSuccessor,
    /// A process that was stopped blames others for what it did not hear meanwhile.
    IgnoresGaps,
    /// Members that count as gone are forgotten.
    ForgetsTheGone,
}

impl Overlay {
    /// What [`Mutation::RestartWithOldPointers`] does instead of a fresh join.
    pub(super) fn resume(&mut self, contacts: &[Contact]) {
        let mut circle: Vec<Contact> = contacts.iter().filter(|contact| contact.id != self.me.id).copied().collect();
        circle.sort();
        let first = circle.partition_point(|contact| contact.id < self.me.id);
        circle.rotate_left(first);
        let Some((head, tail)) = circle.split_first() else { return };
        self.set_standing(Standing::Member);
        self.linked = true;
        self.predecessor = circle.last().copied();
        self.start_maintenance(self.now);
        self.adopt(self.now, *head, tail);
        self.effect(Effect::Joined);
    }
}

#[cfg(test)]
impl Overlay {
    /// Puts a member elsewhere: it knows these neighbours and nobody else.
    pub fn place(&mut self, before: Contact, list: &[Contact]) {
        self.peers = Peers::new(self.config.capacity, self.config.contacts_max);
        self.fingers = FingerTable::new(self.config.capacity, self.me.id);
        self.predecessor = Some(before);
        self.successors.clear();
        let (head, tail) = list.split_first().expect("a successor");
        self.adopt(self.now, *head, tail);
        for contact in list.iter().chain([&before]) {
            self.handle_alive(self.now, *contact);
        }
    }
}

#[cfg(test)]
pub(super) fn is_on(config: &OverlayConfig, mutation: Mutation) -> bool {
    config.mutation == Some(mutation)
}

#[cfg(not(test))]
pub(super) fn is_on(_: &OverlayConfig, _: Mutation) -> bool {
    false
}
