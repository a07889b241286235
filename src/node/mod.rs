//! ChordNode: Data, Overlay and the copies joined into one state machine that does no I/O.
//!
//! User requests are functions of Data; peer services need both parts, so they are functions of [`ChordNode`]. The same
//! code runs under the mio driver and in the simulator.

pub mod chord_node;
mod copies;
mod inside;
pub mod io;
mod job;
mod list;
pub mod message;
mod operate;
pub mod params;
mod recover;
pub mod report;
mod seek;
mod stale;
mod task;
mod trace;
mod walk;
mod watch;

pub use chord_node::ChordNode;
pub use io::{Event, Hope, Input, Memory, NodeConfig, Output, Stop};
pub use message::{Call, Lane, Message, NodeInfo, Reply};
pub use params::{RingParams, Wishes};
