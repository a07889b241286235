//! Overlay: the Chord ring as a state machine without I/O.
//!
//! The ring-maintenance operations are those that Zave proved correct ("Reasoning about Identifier Spaces: How to Make
//! Chord Correct", 2016), not the published ones, which lose their ring; `protocol.md` section 1 lists the rules.
//! Lookups are recursive with the reply straight to the origin. Nothing here knows keys, slots or copies.

pub mod config;
mod contacts;
pub mod fingers;
mod hearsay;
mod join;
mod lookup;
mod maintain;
pub mod message;
pub(crate) mod mutation;
mod peers;
mod ring;
pub mod rtt;
pub mod successors;
mod suspects;
#[cfg(test)]
mod tests;
mod weights;

pub use config::{OverlayConfig, Routing};
pub use contacts::CONTACTS_PAGE;
pub use fingers::FingerTable;
pub use lookup::{Answer, LookupFailed, Step};
pub use message::{Aim, Found, JoinVerdict, Lookup, NextHop, RingMessage, Standing, Want};
pub use peers::PeerReport;
pub use ring::{Effect, JoinFailed, Overlay};
pub use successors::SuccessorList;
