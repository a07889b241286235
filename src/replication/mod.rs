//! Who holds which slot, and how a slot moves from one holder to the next.
//!
//! Membership of the ring confers no authority; only a [`View`] does. For now a view has one member, so there is one
//! copy of each key, and a change of view is a [handover](holdings): the old holder serves until it has frozen the slot
//! for the last chunk, the new one serves from its activation on, and the old one deletes only after it was told.
//! The shape (slot, epoch, view, fetch) is that of `protocol.md` section 4, which replaces the single copy later: its core is
//! in [`chain`] and [`proposal`], and tried alone in the simulator.

pub mod chain;
pub mod copies;
pub mod handover;
pub mod holdings;
mod maintain;
pub mod message;
pub mod proposal;
mod row;
pub mod runs;
#[cfg(test)]
mod tests;
mod transfer;
pub mod view;

pub use holdings::{Execution, Holdings, HoldingsEffect, Neighbourhood, Settled};
pub use message::HoldingMessage;
pub use runs::{SlotRun, runs_of};
pub use view::{View, Views};
