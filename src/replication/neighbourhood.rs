//! The ring around a node, as its copies see it.

use crate::base::{Contact, Id, Span, Weight, in_arc};
use crate::data::{KeySpace, Slot};

/// What the copies need to know of the ring around them, at one moment.
pub struct Neighbourhood<'a> {
    /// The predecessor, the start of this node's arc; `None` when alone or not known.
    pub predecessor: Option<Contact>,
    /// This node is the only member.
    pub alone: bool,
    /// This node leaves: everything goes.
    pub leaving: bool,
    /// How long a round trip to a peer takes, usually.
    pub round_trip: Span,
    /// The successor list, nearest first.
    pub successors: &'a [Contact],
    /// The successor list names the whole ring.
    pub is_whole: bool,
    /// How many nodes from the owner of a slot on may hold it: the owner, and as many as a successor list has.
    pub reach: usize,
    /// The weight of this node or a successor; `None`: not known yet.
    pub weight: &'a dyn Fn(&Contact) -> Option<Weight>,
    /// How long what a member holds is kept for it after it went missing.
    pub keep_for: Span,
    /// Members of the ring that this node knows of, its neighbours among them: whoever might hold something.
    pub members: &'a dyn Fn() -> Vec<Contact>,
    /// Whether a member answers, as far as this node knows: whoever does not is not asked to hold anything.
    pub answers: &'a dyn Fn(&Contact) -> bool,
    /// Whether a member counts as lost: silent for so long that what it holds is given up.
    pub is_lost: &'a dyn Fn(&Contact) -> bool,
}

impl Neighbourhood<'_> {
    /// Whether this node has it in its successor list.
    pub fn has(&self, contact: &Contact) -> bool {
        self.successors.iter().any(|successor| successor.incarnation == contact.incarnation)
    }

    /// The slots that belong to the node at this place, from the first after its predecessor on.
    pub fn own_slots(&self, space: KeySpace, me: Id) -> impl Iterator<Item = Slot> + use<> {
        let after = match self.predecessor {
            Some(predecessor) => Some(predecessor.id),
            // An arc from a place to itself is the whole circle.
            None => self.alone.then_some(me),
        };
        after.into_iter().flat_map(move |after| {
            let of = space.slot_of(after);
            let first = if space.last_id(of) == after { of.0 + 1 } else { of.0 };
            let from_first = (0..space.slots()).map(move |n| Slot((first + n) % space.slots()));
            from_first.take_while(move |slot| in_arc(after, space.last_id(*slot), me))
        })
    }
}
