//! The successor list: the next r nodes clockwise, the one structure that keeps the ring whole.

use crate::base::{Contact, Id, Incarnation, between};

/// At most r contacts, strictly clockwise, ending before the owner of the list.
#[derive(Clone, Debug)]
pub struct SuccessorList {
    me: Id,
    length_max: usize,
    list: Vec<Contact>,
    // The list ends because it has come round to its owner: it names the whole ring.
    round: bool,
}

impl SuccessorList {
    /// An empty list of the node at `me`.
    pub fn new(me: Id, length_max: usize) -> Self {
        Self { me, length_max, list: Vec::new(), round: false }
    }

    /// The direct successor.
    pub fn first(&self) -> Option<Contact> {
        self.list.first().copied()
    }

    /// Whether the list names the whole ring.
    pub fn is_round(&self) -> bool {
        self.round
    }

    /// All entries, nearest first.
    pub fn as_slice(&self) -> &[Contact] {
        &self.list
    }

    /// Makes the list `[head] + tail`, cut to r and before it would come round to its owner. The tail is a peer's word:
    /// it is cut at the first entry out of order. True if the list is another than before, or names the whole ring now or no
    /// longer.
    pub fn adopt(&mut self, head: Contact, tail: &[Contact]) -> bool {
        if head.id == self.me {
            return false;
        }
        let mut list = Vec::with_capacity(self.length_max.min(tail.len() + 1));
        list.push(head);
        let mut end = head.id;
        let was_round = std::mem::take(&mut self.round);
        for &next in tail {
            if !between(end, next.id, self.me) {
                self.round = next.id == self.me || between(end, self.me, next.id);
                break;
            }
            if list.len() == self.length_max {
                break;
            }
            list.push(next);
            end = next.id;
        }
        let changed = list != self.list || self.round != was_round;
        self.list = list;
        changed
    }

    /// Forgets a member. True if it was there.
    pub fn remove(&mut self, incarnation: Incarnation) -> bool {
        let before = self.list.len();
        self.list.retain(|contact| contact.incarnation != incarnation);
        self.list.len() != before
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Panics if the list breaks its own rule; for tests and the simulator.
    pub fn check(&self) {
        assert!(self.list.len() <= self.length_max, "the list is too long");
        let mut last = self.me;
        for contact in &self.list {
            assert!(between(last, contact.id, self.me), "out of order: {:?}", self.list);
            last = contact.id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(id: u128) -> Contact {
        Contact { id: Id::from_u128(id), addr: ([127, 0, 0, 1], 1).into(), incarnation: Incarnation(id) }
    }

    fn ids(list: &SuccessorList) -> Vec<u128> {
        list.as_slice().iter().map(|contact| contact.incarnation.0).collect()
    }

    #[test]
    fn a_list_is_cut_to_length_before_its_owner_and_at_disorder() {
        let mut list = SuccessorList::new(Id::from_u128(10), 3);
        assert!(list.adopt(contact(20), &[30, 40, 50].map(contact)));
        assert_eq!(ids(&list), [20, 30, 40]);
        assert!(!list.adopt(contact(20), &[30, 40, 60].map(contact)), "the same after the cut");
        list.adopt(contact(40), &[5, 10, 20].map(contact));
        assert_eq!(ids(&list), [40, 5]);
        list.adopt(contact(20), &[40, 30].map(contact));
        assert_eq!(ids(&list), [20, 40]);
        list.adopt(contact(20), &[20].map(contact));
        assert_eq!(ids(&list), [20]);
        assert!(!list.adopt(contact(10), &[20].map(contact)), "a node never succeeds itself in its list");
        list.check();
        assert!(list.remove(Incarnation(20)) && list.first().is_none());
    }
}
