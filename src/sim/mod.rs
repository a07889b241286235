//! The simulated world: many nodes in one thread, a virtual clock, a seeded network, and checkers.
//!
//! The nodes are the production state machines and talk through the real codec. Everything is drawn from one seed, so
//! two runs of it are the same run: [`World::trace_hash`] says whether they were. No files, no sockets, no threads.

#[cfg(test)]
mod agreement;
pub mod checker;
pub mod clients;
#[cfg(test)]
mod copies;
mod counters;
mod disk;
mod eras;
pub mod experiment;
mod faults;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod linear;
#[cfg(test)]
mod loopy;
#[cfg(test)]
mod mutants;
pub mod network;
mod observe;
mod queue;
pub mod scenario;
pub mod swarm;
mod transport;
pub mod watch;
pub mod watchers;
pub mod world;
mod worn;

pub use checker::{Ring, RingFault};
pub use counters::Counters;
pub use disk::DiskConfig;
pub use network::{Latency, NetworkConfig};
pub use watch::RingWatch;
pub use world::{Check, HostId, LookupReport, World, WorldConfig};
