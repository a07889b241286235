//! What a node's disk may do to it: lose power, break, be full.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod broken;
mod full;
mod image;
mod power;
