//! Measurements in simulated worlds: what `protocol.md` section 7 lists, and what an issue promises.
//!
//! Each is a function from its set-up to its figures, the same for the same seed on every machine. Nothing here writes,
//! draws or takes real time: `chordkv sim` does. The paths of rings too large to run are counted over the production
//! finger table alone ([`fixed`]); everything else runs the whole protocol ([`mod@run`]).

pub mod fixed;
pub mod grow;
pub mod load;
pub mod rings;
pub mod run;
pub mod stats;

pub use grow::{NoRing, grow};
pub use run::{Departure, Outcome, Plan, run};
pub use stats::Tally;
