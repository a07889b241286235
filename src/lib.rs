//! chordkv: a distributed key-value store in one small binary, on a Chord ring.
//!
//! The layers, lowest first; a file uses only what is below it (`tests/layers.rs` keeps it so):
//! [`base`], [`data`], [`overlay`] and [`replication`], [`node`], [`wire`], [`driver`] and [`sim`], [`cli`].

#![forbid(unsafe_code)]

pub mod base;
pub mod cli;
pub mod data;
pub mod driver;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod node;
pub mod overlay;
pub mod replication;
pub mod sim;
pub mod wire;
