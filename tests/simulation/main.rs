//! The simulator: named scenarios, and random ones over a fixed set of seeds and some fresh ones.
//!
//! A failing run prints its seed. `CHORDKV_SEED=<seed> cargo test --test simulation <name>` replays it alone;
//! `CHORDKV_SEEDS=<n>` sets how many fresh seeds are tried.
#![allow(missing_docs)]

mod copies;
mod leaving;
mod listing;
mod lookups;
mod merge;
mod network;
mod placement;
mod repair;
mod ring;
mod rings;
mod seeds;
mod surviving;
mod swarm;
mod watching;
