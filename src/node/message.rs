//! Everything that one node says to another once the handshake is done.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::base::{Contact, Span, Weight};
use crate::data::{Filter, Hint, Key, ListQuery, Outcome, Page, Resume, Slot, Watched};
use crate::overlay::{RingMessage, Standing};
use crate::replication::copies::{CopyMessage, Operation, Ran, Recovery};
use crate::replication::survey::Said;
use crate::replication::{SlotRun, View};

/// A message between two nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Of the ring.
    Ring(RingMessage),
    /// Of the copies.
    Copies(Box<CopyMessage>),
    /// Keys have changed that the receiver watches, or may have.
    Notice {
        /// Counts what it is told.
        number: u64,
        /// The keys, at most [`HINTS_MAX`](crate::base::limits::HINTS_MAX).
        hints: Vec<(Key, Hint)>,
    },
    /// A question on behalf of a user.
    Call {
        /// Chosen by the caller, repeated in the reply.
        request: u64,
        /// What is asked.
        call: Call,
    },
    /// The answer to a call.
    Reply {
        /// Of the call.
        request: u64,
        /// What is said.
        reply: Reply,
    },
}

/// What a node asks another on behalf of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Coordinate this operation on this key, if you are a member of its slot's view.
    Operate {
        /// The key.
        key: Key,
        /// The operation.
        operation: Operation,
    },
    /// List the keys of slots that you hold.
    List {
        /// Which page.
        query: ListQuery,
        /// Of all slots, not only of those that you are to tell of.
        all: bool,
    },
    /// What do you have under this key, old or new?
    Peek(Key),
    /// Who holds this slot, as far as you know?
    Holder(Slot),
    /// Tell about yourself.
    Info,
    /// What do you keep of views of the slots from this one on, and what have you heard?
    Survey(Slot),
    /// Go on with what is left of these slots.
    Recover(Vec<Recovery>),
    /// Tell me of changes of these keys.
    Follow {
        /// Which.
        filters: Vec<Filter>,
        /// Not longer, unless asked again.
        lasts: Span,
    },
    /// What has changed since you gave this token?
    Watch {
        /// Of which keys.
        prefix: Vec<u8>,
        /// The token.
        from: Resume,
    },
}

/// The answer to a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Call::Operate`].
    Ran(Ran),
    /// To [`Call::List`].
    List {
        /// The slots that the page covers, with their epochs.
        served: Vec<(SlotRun, u64)>,
        /// The keys.
        page: Page,
    },
    /// To [`Call::Peek`]: found or not found, and for how long the copy may have missed something, as far as that is known;
    /// `None`: there is no whole copy of its slot.
    Peeked(Option<(Outcome, Option<Span>)>),
    /// To [`Call::Holder`].
    Holder(Option<View>),
    /// To [`Call::Info`].
    Info(Box<NodeInfo>),
    /// To [`Call::Survey`], of [`SURVEYED_AT_ONCE`](crate::replication::copies::SURVEYED_AT_ONCE) slots.
    Survey(Vec<(SlotRun, Said)>),
    /// To [`Call::Recover`]: it is about to.
    Recovering,
    /// To [`Call::Follow`].
    Following {
        /// Of the latest [`Message::Notice`] that was sent.
        number: u64,
        /// Who else may have to be told.
        neighbours: Vec<Contact>,
    },
    /// To [`Call::Watch`]: changes, perhaps none; `None`: that is not known any more.
    Watched(Option<Box<Watched>>),
}

/// A node, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Who.
    pub contact: Contact,
    /// Where its HTTP interface listens.
    pub http: Option<SocketAddr>,
    /// How it stands to the ring.
    pub standing: Standing,
    /// Its predecessor.
    pub predecessor: Option<Contact>,
    /// Its successor list.
    pub successors: Vec<Contact>,
    /// How much of the keys it is to hold, beside others.
    pub weight: Weight,
    /// Slots of which it keeps a copy.
    pub slots: u32,
    /// Slots whose members are not yet what they should be, as far as it can tell.
    pub slots_moving: u32,
    /// Keys that it stores.
    pub keys: u64,
    /// Bytes of keys, values and content types.
    pub bytes: u64,
    /// Since its start.
    pub uptime_ms: u64,
    /// Of the program.
    pub version: Arc<str>,
}

/// Which queue a message waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Small and urgent: without it the ring falls apart.
    Maintenance,
    /// For users.
    Request,
    /// Large and patient.
    Bulk,
}

impl Message {
    /// The queue that this message waits in.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Copies(message) => match **message {
                CopyMessage::Ask { .. } | CopyMessage::Answered { .. } => Lane::Request,
                // A thousand slots may be on the move, and the ring must not wait for them.
                _ => Lane::Bulk,
            },
            Self::Ring(_) => Lane::Maintenance,
            Self::Notice { .. } | Self::Call { .. } | Self::Reply { .. } => Lane::Request,
        }
    }
}
