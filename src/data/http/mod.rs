//! How HTTP spells the user's requests and their answers: pure functions from the parts of an HTTP request to a
//! [`UserRequest`](crate::data::UserRequest), and from a [`UserReply`](crate::data::UserReply) to status, headers and
//! body.
//!
//! ```text
//!  HttpRequest ──parse──▶ Asked { request ──▶ the node ──▶ UserReply ┐
//!                  │              shape   ──────────────────────────▶ render ──▶ HttpResponse }
//!                  └──▶ HttpResponse, a refusal
//! ```
//!
//! Semantics follow RFC 9110 (methods, preconditions, entity tags), errors RFC 9457. Deliberately not here: sockets,
//! the framing of messages, timeouts and the length of request lines (the gate before the server), and what a
//! request does (the node). No clock is read; the wall time is an argument.
//!
//! # Spelling
//!
//! A key is all of the path after `/v1/kv/`, percent-decoded; plain slashes belong to it. A `+` in a path is a plus.
//! Many clients remove `.` and `..` from a path before they send it; a key with such parts has its slashes written
//! `%2F`. In a query a `+` is a space, as in Consul and etcd: what encodes queries (forms, `URLSearchParams`, Go, Python)
//! writes a space so and a plus as `%2B`. Decoding is strict in both; a `%` without two hexadecimal digits is refused.
//!
//! What could only be a mistake is refused with 400 and never ignored: an unknown or repeated query parameter, a
//! malformed precondition, a part of a value (`Content-Range`). A body where none has a meaning is ignored, and so is
//! a `Range` or an `If-Modified-Since`, as RFC 9110 allows.

mod access;
mod cors;
mod duration;
mod etag;
mod message;
mod metrics;
mod parse;
mod problem;
mod render;
mod target;
mod watch;

pub use access::{Access, Asking, CHALLENGE, CHALLENGE_FIELD, Denied, Role};
pub use cors::is_named;
pub use duration::duration;
pub use message::{HttpRequest, HttpResponse, Limits};
pub use parse::{Asked, parse};
pub use problem::{PROBLEM_TYPE, problem, reason};
pub use render::Shape;
pub use watch::{PARK_FIELD, PARKED_FIELD};
