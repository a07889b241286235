//! Data: the KV map, the ordered key index, and the user's requests.
//!
//! Operations on records are pure functions ([`apply`]); the store keeps what they decide. User requests are pure
//! functions too: HTTP parts to a [`UserRequest`], a [`UserReply`] to HTTP parts ([`http`]). Who holds a key, and how
//! a request reaches it, is not known here.

pub mod collect;
pub mod command;
pub mod compare;
pub mod conformance;
pub mod http;
pub mod key;
pub mod metrics;
pub mod record;
pub mod register;
pub mod store;
pub mod user;
pub mod vote;
pub mod watch;
pub mod work;

pub use command::{Applied, Change, Command, Condition, Outcome, Put, Tag, apply};
pub use compare::{Difference, Range, Resolved};
pub use key::{Key, KeyError, KeySpace, Place, Slot, SlotSet};
pub use metrics::{Label, Metric, MetricKind};
pub use record::{Record, Version};
pub use store::{Chunk, Cursor, MemoryStore, Store, Trouble, Usage};
pub use user::{Check, Failure, Item, ListQuery, Page, UserReply, UserRequest};
pub use vote::{Answer, Ask, Vote};
pub use watch::{Filter, Hint, Resume, Seen, WatchQuery, Watched};
pub use work::{Digest, Done, Gauge, Work, carry_out, gauge};
