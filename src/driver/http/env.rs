//! What the connections of the gate and its lanes have in common.

use std::time::Instant;

use super::limits::{Budget, HttpConfig, SCRATCH};
use crate::driver::seldom::Seldom;

/// What all connections of the gate share.
pub(super) struct Env {
    pub config: HttpConfig,
    pub budget: Budget,
    /// Of accepting that fails, and of private connections that cannot be opened.
    pub told: [Seldom; 2],
    pub scratch: Vec<u8>,
    pub now: Instant,
    /// No further request is begun.
    pub stopping: bool,
}

impl Env {
    pub(super) fn new(config: HttpConfig) -> Self {
        let budget = Budget::new(config.memory_max);
        Env {
            config,
            budget,
            told: Default::default(),
            scratch: vec![0; SCRATCH],
            now: Instant::now(),
            stopping: false,
        }
    }
}
