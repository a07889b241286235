//! What can be set about a ring member's behaviour, and how to choose it.

use crate::base::limits::SUCCESSORS_DEFAULT;
use crate::base::{Capacity, Span, Weight};

/// Which peers a lookup may be sent to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// Every peer that was heard of. Small rings end up at one hop.
    #[default]
    Opportunistic,
    /// Successor list and fingers only, as published: for comparison with the published figures.
    FingersOnly,
}

/// Settings of one overlay node. The defaults suit a network with round trips of up to some hundred ms.
#[derive(Clone, Debug)]
pub struct OverlayConfig {
    /// From where on this process numbers its requests. Answers to what an earlier process at its address asked may
    /// still come, so two processes should not use the same numbers. Below 2^28: four bytes on the wire.
    pub first_request: u64,
    /// Identifier bits m; a ring parameter, all members agree.
    pub capacity: Capacity,
    /// Length r of the successor list; a ring parameter. Bounds how many neighbours may fail at once: with half of all
    /// nodes gone, a node is cut off with probability 2^-r.
    pub successors: usize,
    /// Mean time between rounds of stabilisation. Shorter mends sooner and costs one message pair a round.
    pub stabilize_interval: Span,
    /// The time between rounds after the node's own neighbours changed.
    pub stabilize_interval_busy: Span,
    /// How many such rounds.
    pub busy_rounds: u32,
    /// The longest mean time between rounds, reached when nothing changed for long.
    pub stabilize_interval_rest: Span,
    /// The time between repairs of one finger.
    pub finger_interval: Span,
    /// The same while the first pass over the table is not done.
    pub finger_interval_first: Span,
    /// Mean time between offers of oneself to a random contact (`protocol.md` section 3).
    pub offer_interval: Span,
    /// Requests without an answer before a peer is suspected.
    pub attempts: u32,
    /// How long a suspected peer may stay silent before it counts as gone: out of the ring. Longer while this node's own
    /// health is poor. Mending the ring is cheap, so this is short.
    pub gone_after: Span,
    /// The same if its host refuses connections: the process is not there.
    pub gone_after_refused: Span,
    /// How long before it counts as lost: what it holds is replaced. Moving data is dear, so this is long.
    pub lost_after: Span,
    /// Whether what a member holds outlives its process. Taken for true of others if it is of this node.
    pub durable: bool,
    /// How much of the keys this node is to hold, beside others.
    pub weight: Weight,
    /// How long an acknowledgement of a lookup hop may wait for others to share its frame. Far below the lowest
    /// time-out, so that no hop is skipped for it.
    pub ack_delay: Span,
    /// How long the origin of a lookup waits before it starts again.
    pub lookup_retry: Span,
    /// When a lookup is given up.
    pub lookup_deadline: Span,
    /// How long a predecessor reserves its arc for a joiner that it admitted. A joiner whose answer took more than half
    /// of it asks again: the longest round trip over which a node can join.
    pub admission: Span,
    /// Mean time between exchanges of known peers with a random one.
    pub exchange_interval: Span,
    /// The same while many members are not known.
    pub exchange_interval_first: Span,
    /// Peers remembered beyond neighbours and fingers, about 200 bytes each.
    pub contacts_max: usize,
    /// Where lookups go.
    pub routing: Routing,
    /// A rule that is switched off, to see that it is missed.
    #[cfg(test)]
    pub(crate) mutation: Option<super::mutation::Mutation>,
}

impl Default for OverlayConfig {
    fn default() -> Self {
        Self {
            first_request: 0,
            capacity: Capacity::MAX,
            successors: SUCCESSORS_DEFAULT,
            stabilize_interval: Span::secs(1),
            stabilize_interval_busy: Span::millis(100),
            busy_rounds: 5,
            stabilize_interval_rest: Span::secs(3),
            finger_interval: Span::secs(4),
            finger_interval_first: Span::millis(50),
            offer_interval: Span::secs(10),
            attempts: 3,
            gone_after: Span::secs(10),
            gone_after_refused: Span::secs(1),
            lost_after: Span::secs(60),
            durable: false,
            weight: Weight::ONE,
            ack_delay: Span::millis(10),
            lookup_retry: Span::millis(1_500),
            lookup_deadline: Span::secs(10),
            admission: Span::secs(2),
            exchange_interval: Span::secs(60),
            exchange_interval_first: Span::secs(5),
            contacts_max: 2_048,
            routing: Routing::Opportunistic,
            #[cfg(test)]
            mutation: None,
        }
    }
}
