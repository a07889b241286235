//! Rings that experiments begin with, grown by real joins.

use std::fmt;

use crate::base::Span;
use crate::sim::{HostId, World};

/// No ring came to be in good time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRing {
    /// Nodes that were started.
    pub started: usize,
    /// Those of them that were members in the end.
    pub joined: usize,
}

impl fmt::Display for NoRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nodes were started and are no whole ring; {} are members", self.started, self.joined)
    }
}

impl std::error::Error for NoRing {}

/// The most nodes that are started at one moment, until a tenth of the ring is more.
const WAVE_MAX: usize = 128;
/// A wave that takes longer is stuck.
const PATIENCE: Span = Span::secs(120);

/// Starts nodes in waves until `count` are a whole ring. Tells `progress` how many there are. Of their slots it says
/// nothing.
pub fn grow(world: &mut World, count: usize, progress: &mut dyn FnMut(usize)) -> Result<Vec<HostId>, NoRing> {
    let mut hosts = vec![world.start(&[])];
    world.run_for(Span::millis(100));
    while hosts.len() < count {
        let wave = hosts.len().min(count - hosts.len()).min(WAVE_MAX.max(hosts.len() / 10));
        let seeds: Vec<HostId> = (0..wave).map(|_| hosts[world.rng().index(hosts.len())]).collect();
        hosts.extend(seeds.into_iter().map(|seed| world.start(&[seed])));
        // The last few of a wave come in beside the next one.
        if !world.run_until(PATIENCE, |world| world.ring().len() >= hosts.len() * 9 / 10) {
            return Err(NoRing { started: hosts.len(), joined: world.ring().len() });
        }
        progress(hosts.len());
    }
    if world.run_until(PATIENCE, |world| world.is_whole()) {
        Ok(hosts)
    } else {
        Err(NoRing { started: hosts.len(), joined: world.ring().len() })
    }
}
