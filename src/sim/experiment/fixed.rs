//! Paths on a ring that nothing happens to: up to millions of nodes, as no node is kept.
//!
//! The finger table of a node is made from the sorted ids when a lookup passes through, by the production
//! [`FingerTable`]; the next hop is the one that production chooses with successor list and fingers only.

use std::net::{Ipv4Addr, SocketAddr};

use super::stats::Tally;
use crate::base::{Capacity, Contact, Id, Incarnation, Rng, between, in_arc};
use crate::overlay::FingerTable;

/// A ring of so many nodes at random places.
#[derive(Clone, Copy, Debug)]
pub struct FixedRing {
    /// Places and targets are drawn from it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// Length r of the successor lists.
    pub successors: usize,
    /// How many lookups.
    pub lookups: usize,
}

/// The nodes that each lookup passed through, the origin not counted and the owner counted.
pub fn paths(ring: &FixedRing) -> Tally {
    let mut draws = Rng::new(ring.seed);
    let mut ids: Vec<Id> = (0..ring.nodes).map(|_| Capacity::MAX.random(&mut draws)).collect();
    ids.sort_unstable();
    ids.dedup();
    let path = |_| {
        let (mut at, target) = (draws.index(ids.len()), Capacity::MAX.random(&mut draws));
        let mut hops = 0;
        if owner(&ids, target) != at {
            while let Some(next) = next_hop(&ids, at, target, ring.successors) {
                at = next;
                hops += 1;
            }
        }
        hops
    };
    Tally::of((0..ring.lookups).map(path).collect())
}

/// The place of the successor of `id`.
fn owner(ids: &[Id], id: Id) -> usize {
    ids.partition_point(|other| *other < id) % ids.len()
}

/// Where the node at `at` passes a lookup on to; `None` at the owner.
fn next_hop(ids: &[Id], at: usize, target: Id, successors: usize) -> Option<usize> {
    let (me, count) = (ids[at], ids.len());
    if in_arc(ids[(at + count - 1) % count], target, me) {
        return None;
    }
    let successor = (at + 1) % count;
    if in_arc(me, target, ids[(at + successors.min(count - 1)) % count]) {
        return Some(owner(ids, target));
    }
    let mut table = FingerTable::new(Capacity::MAX, me);
    let mut k = 0;
    while k < Capacity::MAX.bits() {
        let place = owner(ids, table.start(k));
        k = table.learn(k, contact(ids[place], place), None);
    }
    let fits = |id: Id| between(me, id, target);
    let finger = table.farthest_first().map(|finger| finger.id).find(|id| fits(*id));
    let listed = (1..=successors.min(count - 1)).rev().map(|k| ids[(at + k) % count]).find(|id| fits(*id));
    let next = finger.into_iter().chain(listed).max_by_key(|id| Capacity::MAX.distance(me, *id));
    next.map_or(Some(successor), |id| ids.binary_search(&id).ok())
}

fn contact(id: Id, place: usize) -> Contact {
    Contact { id, addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), incarnation: Incarnation(place as u128) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_on_a_fixed_ring_are_half_of_log_n_before_the_owner() {
        for (nodes, half) in [(256, 4.0), (4_096, 6.0)] {
            let paths = paths(&FixedRing { seed: 1, nodes, successors: 1, lookups: 2_000 });
            let before_the_owner = paths.mean() - 1.0;
            assert!((before_the_owner - half).abs() < 0.35, "{nodes} nodes: {before_the_owner}");
        }
    }

    #[test]
    fn a_successor_list_saves_the_last_hops_and_a_node_alone_owns_everything() {
        let paths_of = |nodes, successors| paths(&FixedRing { seed: 2, nodes, successors, lookups: 500 });
        assert!(paths_of(1_000, 20).mean() < paths_of(1_000, 1).mean() - 1.5);
        assert_eq!(paths_of(1, 16).max(), 0);
        assert_eq!(paths_of(2, 16).max(), 1);
    }
}
