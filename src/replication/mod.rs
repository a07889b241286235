//! Who holds which slot, and how the copies of its keys stay one (`protocol.md` section 4).
//!
//! Membership of the ring confers no authority; only a [`View`] does. What a member may say of a slot is its
//! [chain] of views; how a view follows another is decided by a [proposal]; [copies] is one node's part in all of
//! it.

pub mod chain;
pub mod copies;
mod neighbourhood;
pub mod placement;
pub mod proposal;
mod row;
pub mod runs;
pub mod survey;
pub mod view;

pub use neighbourhood::Neighbourhood;
pub use placement::Placement;
pub use runs::{SlotRun, runs_of, runs_of_slots};
pub use view::{View, Views};
