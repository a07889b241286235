//! The simulated network: how long things take, what is lost, who cannot reach whom.
//!
//! Connections deliver in order, as TCP does, unless a fault says otherwise. The faults go beyond what TCP does: frames
//! vanish from, are doubled and pass each other on a connection that stays. A protocol that bears that bears connections
//! that break at any moment.

use std::collections::BTreeSet;

use super::world::HostId;
use crate::base::{Rng, Span, Time};

/// What the network is like.
#[derive(Clone, Copy, Debug)]
pub struct NetworkConfig {
    /// How long a frame takes.
    pub latency: Latency,
    /// Frames of a thousand that vanish.
    pub loss_per_mille: u64,
    /// Frames of a thousand that arrive twice. Only messages of the ring: users' writes rely on TCP not to do that.
    pub duplicate_per_mille: u64,
    /// Frames of a thousand that others may pass. Only messages of the ring.
    pub reorder_per_mille: u64,
    /// Pairs of hosts of a thousand that cannot reach each other, ever, while both reach the others.
    pub severed_per_mille: u64,
}

/// How long a frame takes, one way.
#[derive(Clone, Copy, Debug)]
pub enum Latency {
    /// Uniform, drawn for each frame.
    Uniform {
        /// The shortest.
        min: Span,
        /// The longest.
        max: Span,
    },
    /// Hosts lie on a square at random; a frame takes as long as its way, and up to a tenth more. The median round trip
    /// between two hosts is as given.
    Plane {
        /// Of all pairs of hosts.
        median_round_trip: Span,
    },
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            latency: Latency::Uniform { min: Span(100), max: Span::millis(20) },
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            reorder_per_mille: 0,
            severed_per_mille: 0,
        }
    }
}

/// Where a host lies: for [`Latency::Plane`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    x: u64,
    y: u64,
}

/// The side of the square that hosts lie on.
const SQUARE: u64 = 1 << 16;
/// The median distance between two random points of the unit square, in thousandths.
const MEDIAN_DISTANCE: u64 = 512;

impl Spot {
    pub fn draw(rng: &mut Rng) -> Self {
        Self { x: rng.below(SQUARE), y: rng.below(SQUARE) }
    }
}

impl Latency {
    /// One way between two hosts. Integers only: a trace must not depend on how a compiler rounds.
    pub(super) fn draw(self, from: Spot, to: Spot, rng: &mut Rng) -> Span {
        match self {
            Self::Uniform { min, max } => Span(rng.range(min.0, max.0 + 1)),
            Self::Plane { median_round_trip } => {
                let (dx, dy) = (from.x.abs_diff(to.x), from.y.abs_diff(to.y));
                let distance = (dx * dx + dy * dy).isqrt();
                let way = median_round_trip.0 / 2 * distance * 1_000 / (SQUARE * MEDIAN_DISTANCE);
                Span(way + rng.below(way / 10 + 100))
            }
        }
    }

    /// The longest that a frame takes, about.
    pub(super) fn longest(self) -> Span {
        match self {
            Self::Uniform { max, .. } => max,
            Self::Plane { median_round_trip } => median_round_trip * 2,
        }
    }
}

/// What travels.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub bytes: Vec<u8>,
    /// A message of the ring: may be doubled and passed by others.
    pub of_ring: bool,
}

/// One end of a connection between two hosts.
#[derive(Debug)]
pub(super) struct Link {
    pub state: LinkState,
    /// When the latest frame to the other end arrives: later ones arrive no sooner.
    pub last_arrival: Time,
    /// When a frame was last sent or received.
    pub used: Time,
    /// The first of the frames that the other end cannot have received, because the way was blocked.
    pub unheard_since: Option<Time>,
}

/// How far a connection is.
#[derive(Debug)]
pub(super) enum LinkState {
    /// This end has dialled; its frames wait for the handshake.
    Dialling(Vec<Frame>),
    /// Both sides may speak.
    Open,
}

impl Link {
    pub fn new(state: LinkState, now: Time) -> Self {
        Self { state, last_arrival: Time::default(), used: now, unheard_since: None }
    }
}

/// Ways that are blocked at the moment: from the first host to the second, not back.
#[derive(Debug, Default)]
pub(super) struct Blocked(BTreeSet<(HostId, HostId)>);

impl Blocked {
    pub fn insert(&mut self, from: HostId, to: HostId) {
        self.0.insert((from, to));
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn blocks(&self, from: HostId, to: HostId) -> bool {
        !self.0.is_empty() && self.0.contains(&(from, to))
    }
}

/// Whether two hosts are one of the severed pairs of this world.
pub(super) fn is_severed(config: &NetworkConfig, seed: u64, a: HostId, b: HostId) -> bool {
    if config.severed_per_mille == 0 {
        return false;
    }
    let pair = (u64::from(a.min(b)) << 32) | u64::from(a.max(b));
    Rng::new(seed ^ pair.wrapping_mul(0x9e37_79b9_7f4a_7c15)).chance(config.severed_per_mille)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_on_the_plane_have_the_median_that_was_asked_for() {
        let mut rng = Rng::new(1);
        let spots: Vec<Spot> = (0..200).map(|_| Spot::draw(&mut rng)).collect();
        let latency = Latency::Plane { median_round_trip: Span::millis(156) };
        let mut trips = Vec::new();
        for a in &spots {
            for b in &spots {
                trips.push((latency.draw(*a, *b, &mut rng) + latency.draw(*b, *a, &mut rng)).as_millis());
            }
        }
        trips.sort_unstable();
        let median = trips[trips.len() / 2];
        assert!((145..=180).contains(&median), "{median}");
    }
}
