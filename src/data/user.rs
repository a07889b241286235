//! What users ask and what they are told, apart from how HTTP spells it.

use std::sync::Arc;

use super::command::{Command, Outcome};
use super::key::Key;
use super::metrics::Metric;
use super::record::Version;
use super::store::Trouble;
use super::watch::{WatchQuery, Watched};
use crate::base::{Span, Wall};

/// One request of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserRequest {
    /// An operation on one key.
    Kv {
        /// Which key.
        key: Key,
        /// What to do.
        command: Command,
    },
    /// What any copy says of a key, perhaps an old one.
    ReadAny(Key),
    /// One page of the keys.
    List(ListQuery),
    /// The same of the keys that the node asked holds itself.
    ListHere(ListQuery),
    /// Changes of keys, once there are any.
    Watch(WatchQuery),
    /// The way of a lookup, hop by hop.
    Lookup(Key),
    /// Every node of the ring.
    Ring,
    /// This node.
    Node,
    /// Slots that have lost the majority of their copies, and what is left of them.
    Recover {
        /// Go on with what is left: the nodes at these addresses are gone for good. `None`: only tell.
        lost: Option<Vec<String>>,
    },
    /// Leave the ring, then end.
    Leave,
    /// Does the process answer?
    Livez,
    /// Is it ready to serve?
    Readyz,
    /// What this node counts and measures.
    Metrics,
}

/// Which page of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// Only keys that begin so; empty for all.
    pub prefix: Vec<u8>,
    /// Only keys after this one, in the order of their bytes.
    pub after: Option<Vec<u8>>,
    /// At most so many keys, 1 to [`crate::base::limits::LIST_LIMIT_MAX`].
    pub limit: usize,
}

/// The answer to a [`UserRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserReply {
    /// Of an operation on one key.
    Kv(Outcome),
    /// Of a read of any copy.
    Stale {
        /// Found or not found.
        outcome: Outcome,
        /// How long ago the copy was last known to be the same as those of a majority; `None`: not known.
        age: Option<Span>,
    },
    /// Of a listing.
    Page(Page),
    /// Changes of what is watched.
    Watched(Watched),
    /// Nothing has changed yet: to be asked again, with this number, once the node says so
    /// ([`Output::Resume`](crate::node::Output::Resume)).
    Parked(u64),
    /// A JSON document: of a lookup, the ring, the node.
    Json(Vec<u8>),
    /// The node has begun to leave.
    Leaving,
    /// Of `livez` and `readyz`: every check by name.
    Health(Vec<Check>),
    /// What a node counts and measures.
    Metrics(Vec<Metric>),
    /// It could not be done.
    Failed(Failure),
}

/// Keys in the order of their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys.
    pub items: Vec<Item>,
    /// Whether more keys follow the last.
    pub more: bool,
}

/// A key in a listing, without its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Key,
    /// Bytes of the value.
    pub size: u64,
    /// The `ETag`.
    pub version: Version,
    /// The `Content-Type` of the value.
    pub content_type: Option<Arc<str>>,
    /// When it will count as absent.
    pub expires: Option<Wall>,
}

/// One check of a node's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// A stable name.
    pub name: &'static str,
    /// What is wrong, and what to do; `None` if all is well.
    pub failed: Option<String>,
}

/// Why a request could not be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nobody who can answer was reached; nothing was changed. Says who or what is missing.
    Unavailable(String),
    /// The deadline passed. `maybe_applied`: a write may have happened or may yet happen.
    Timeout {
        /// False for reads, and for writes that were certainly not sent.
        maybe_applied: bool,
    },
    /// Too many requests are in progress here; nothing was changed.
    Overloaded,
    /// The value is larger than the ring allows; nothing was changed.
    TooLarge {
        /// The ring's limit in bytes.
        limit: usize,
    },
    /// This node is leaving or has no ring yet; nothing was changed.
    NotServing(String),
    /// What was asked for does not fit what is there; nothing was changed. Says what is there.
    Conflict(String),
    /// Changes since then are not known any more: list, and watch from now on.
    TooOld,
    /// More keys than this are to be watched.
    TooMany {
        /// So many can be.
        limit: usize,
    },
    /// The store of the key's holder could not do it; nothing was changed.
    Trouble(Trouble),
}
