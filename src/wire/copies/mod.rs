//! The messages of the copies, both ways.

mod compare;
mod decode;
mod encode;
#[cfg(test)]
pub(super) mod samples;

pub(super) use decode::operation;
pub(super) use encode::{copies, op_id, ran};
