//! Real nodes on hosts that reach each other through a network with faults: partitions, one-way links, delay, loss, pulled
//! cables, stopped processes. The checker of the simulator judges the pointers that the nodes report.
//!
//! The hosts are network namespaces of this test's own (`net.rs`). Where they may not be made, each test says on standard
//! error what is missing, and passes.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod hostile;
mod hosts;
mod judged;
mod lag;
mod net;
