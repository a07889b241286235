//! What ring members say to each other. Every message goes to one peer; the sender is known from the connection.
//!
//! ```text
//! stabilise     n ── GetNeighbours ──▶ succ0          n ── Notify ──▶ succ0
//!               n ◀── Neighbours ───── succ0
//! join          j ── Lookup(j) ──▶ .. ──▶ m           j ── Join ──▶ m
//!               j ◀── Found ───────────── m           j ◀── JoinReply ── m
//! lookup        o ── Lookup ──▶ m ── Lookup ──▶ s     each hop acknowledges to the one before it,
//!               o ◀─────────────── Found ────── s     the owner itself answers to the origin
//! contacts      n ── GetContacts(after) ──▶ x         n ◀── Contacts ── x
//! suspicion     n ── ProbeFor(x) ──▶ h                h asks x whether it lives
//!               n ◀── Vouch(x) ───── h                only if it does
//! leave         x ── Leave ──▶ pred, succ0            x ◀── LeaveReply ── pred, once it has another successor
//! ```

use crate::base::{Contact, Id, Incarnation, Span, Weight};

/// A message between two overlays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingMessage {
    /// Asks for a [`RingMessage::Neighbours`]; also serves as a ping.
    GetNeighbours {
        /// Chosen by the asker, repeated in the reply.
        request: u64,
    },
    /// What the replier's pointers are at this moment.
    Neighbours {
        /// Of the request.
        request: u64,
        /// Only a member's pointers mean anything.
        standing: Standing,
        /// Its predecessor.
        predecessor: Option<Contact>,
        /// Its successor list.
        successors: Vec<Contact>,
        /// Its own weight, then those of its successors; nothing where all are 1.
        weights: Vec<Weight>,
    },
    /// "I might be your predecessor" (rectify).
    Notify,
    /// One hop of a recursive lookup.
    Lookup {
        /// Names this hop for the acknowledgement; chosen by the sender.
        hop: u64,
        /// What travels.
        lookup: Lookup,
    },
    /// The hops of these numbers arrived and were passed on.
    LookupAck {
        /// Numbers that the receiver of this message chose.
        hops: Vec<u64>,
    },
    /// A hop cannot be served here: the sender should try the next closest at once.
    LookupRefused {
        /// The number of the hop.
        hop: u64,
    },
    /// The answer to a lookup, to its origin.
    Found(Found),
    /// One step of an iterative lookup.
    GetNextHop {
        /// Chosen by the asker.
        request: u64,
        /// What is looked up.
        target: Id,
    },
    /// The answer to one step.
    NextHop {
        /// Of the request.
        request: u64,
        /// What the replier knows.
        next: NextHop,
    },
    /// "Let me in between you and your successor."
    Join {
        /// Chosen by the joiner.
        request: u64,
    },
    /// The answer to a [`RingMessage::Join`].
    JoinReply {
        /// Of the request.
        request: u64,
        /// What the joiner may do.
        verdict: JoinVerdict,
    },
    /// Here is a node that may belong between you and your successor, or further on (`protocol.md` section 3).
    Offer {
        /// Who.
        contact: Contact,
    },
    /// Asks for peers that the receiver knows, clockwise after an id.
    GetContacts {
        /// Chosen by the asker.
        request: u64,
        /// Where to begin.
        after: Id,
    },
    /// The answer: peers in the order of the circle, none twice.
    Contacts {
        /// Of the request.
        request: u64,
        /// Each with how long ago somebody knew it alive.
        contacts: Vec<(Contact, Span)>,
    },
    /// The sender gets no answer from this peer: does it live? Only a [`RingMessage::Vouch`] is an answer.
    ProbeFor {
        /// Who.
        contact: Contact,
    },
    /// The sender has just heard from this peer.
    Vouch {
        /// Who.
        contact: Contact,
    },
    /// The sender leaves the ring. To its predecessor, which answers once it has another successor, and to its
    /// successor, which forgets it as predecessor.
    Leave {
        /// Chosen by the leaver.
        request: u64,
        /// The leaver's successor list.
        successors: Vec<Contact>,
    },
    /// The answer to a [`RingMessage::Leave`].
    LeaveReply {
        /// Of the request.
        request: u64,
        /// False if the replier does not precede the leaver: it should ask again later.
        released: bool,
    },
}

/// A recursive lookup on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// Chosen by the origin.
    pub request: u64,
    /// Who is answered.
    pub origin: Contact,
    /// Whose successor, or predecessor, is wanted.
    pub target: Id,
    /// Which of the two.
    pub want: Want,
    /// What the sender takes the receiver for.
    pub aim: Aim,
    /// Nodes passed so far, the origin not counted.
    pub hops: u32,
    /// Nodes that were tried on the way and did not answer in time.
    pub silent: u32,
    /// The latest of them: the next node need not try it again.
    pub silent_last: Option<Incarnation>,
}

impl Lookup {
    /// At its origin.
    pub fn new(request: u64, origin: Contact, target: Id, want: Want) -> Self {
        Self { request, origin, target, want, aim: Aim::Way, hops: 0, silent: 0, silent_last: None }
    }

    /// What goes on from a node that was taken for the owner and cannot answer, or to which nobody came through.
    pub(super) fn missed(self) -> Self {
        let aim = if self.aim == Aim::Way { Aim::Way } else { Aim::Walk };
        Self { aim, ..self }
    }
}

/// Who is to answer a lookup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Want {
    /// The successor of the target: nobody else knows better what it owns, and its answer shows that it lives.
    #[default]
    Owner,
    /// The member before the target: whom a joiner has to ask.
    Before,
}

/// What the sender of a lookup takes its receiver for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aim {
    /// A node on the way.
    #[default]
    Way,
    /// The successor of the target, going by a list that reaches so far: newcomers in between may be missing from it.
    Listed,
    /// The successor of the target, and a neighbour: nobody else knows better what lies between.
    Neighbour,
    /// A node on the way to the member before the target: whom a list named cannot answer, so no other list is asked.
    Walk,
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Of the lookup.
    pub request: u64,
    /// The successor of the target.
    pub owner: Contact,
    /// The member before it.
    pub before: Contact,
    /// As in the lookup, the answering node counted.
    pub hops: u32,
    /// As in the lookup.
    pub silent: u32,
}

/// How a node stands to the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not in a ring yet.
    Joining,
    /// In the ring.
    Member,
    /// In the ring, handing over and about to go.
    Leaving,
    /// Its successor list ran out: serves nothing, joins again.
    Orphan,
    /// Gone from the ring for good.
    Left,
}

impl Standing {
    /// Whether the node's pointers are part of the ring.
    pub fn is_member(self) -> bool {
        matches!(self, Self::Member | Self::Leaving)
    }
}

/// What a node says of a target in an iterative lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// The target lies between the replier and this successor of it.
    Owner(Contact),
    /// This node is closer to the target.
    Closer(Contact),
    /// The replier is no member.
    Refused,
}

/// The answer to a joiner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinVerdict {
    /// Come in: this is the replier's successor list (the replier itself if it was alone).
    Granted(Vec<Contact>),
    /// The joiner does not belong between the replier and its successor: look up again.
    NotHere,
    /// Another joiner goes first: ask again after so many ms.
    RetryAfter(u32),
    /// A living node has this id already.
    DuplicateId(Contact),
}
