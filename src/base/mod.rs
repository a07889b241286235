//! The vocabulary of every other layer: identifiers and arcs on the circle, time, seeded random numbers, limits.
//!
//! Nothing here does I/O, reads a clock or draws a number that was not seeded by the caller.

pub mod arc;
pub mod contact;
pub mod forget;
pub mod id;
pub mod limits;
pub mod rng;
pub mod time;
pub mod timers;
pub mod weight;

pub use arc::{between, in_arc};
pub use contact::{Contact, Ids};
pub use forget::make_room_for;
pub use id::{Capacity, Id, Incarnation};
pub use rng::Rng;
pub use time::{Now, Span, Time, Wall};
pub use timers::Timers;
pub use weight::Weight;
