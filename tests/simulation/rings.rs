//! Worlds and rings that scenarios begin with.

use chordkv::base::Span;
use chordkv::node::Wishes;
use chordkv::sim::{Check, HostId, World, WorldConfig};

pub fn world(seed: u64) -> World {
    World::new(WorldConfig::new(seed))
}

/// A ring of `count` nodes, ideal.
pub fn ring_of(world: &mut World, count: u32) -> Vec<HostId> {
    let first = world.start(&[]);
    let mut hosts = vec![first];
    hosts.extend((1..count).map(|_| world.start(&[first])));
    assert!(world.run_until(Span::secs(30), |world| world.is_ideal()), "no ring of {count} after 30 s");
    hosts
}

/// The circle as the hosts on it, from the lowest id on.
pub fn hosts_in_order(world: &World, hosts: &[HostId]) -> Vec<HostId> {
    let id = |host: &HostId| world.node(*host).and_then(|node| node.overlay()).map(|overlay| overlay.me().id);
    let mut ordered = hosts.to_vec();
    ordered.sort_by_key(id);
    ordered
}

/// A world in which anything may happen: nodes that live are taken for dead.
pub fn wild_world(seed: u64, successors: usize) -> World {
    let mut config = WorldConfig::new(seed);
    config.wishes = Wishes { successors: Some(successors), slot_bits: Some(3), ..Wishes::default() };
    config.check = Check::Nodes;
    World::new(config)
}

/// A whole ring of `count` nodes, grown as fast as it can take joiners. Nothing is said of its slots.
pub fn grow(world: &mut World, count: usize) -> Vec<HostId> {
    let mut hosts = vec![world.start(&[])];
    world.run_for(Span::millis(100));
    while hosts.len() < count {
        let wave = hosts.len().min(count - hosts.len()).min(128);
        let seeds: Vec<HostId> = (0..wave).map(|_| hosts[world.rng().index(hosts.len())]).collect();
        hosts.extend(seeds.into_iter().map(|seed| world.start(&[seed])));
        let joined = |world: &World| world.ring().len() >= hosts.len() * 9 / 10;
        assert!(world.run_until(Span::secs(60), |world| joined(world)), "no ring of {} nodes", hosts.len());
    }
    assert!(world.run_until(Span::secs(60), |world| world.is_whole()), "{}", world.describe());
    hosts
}
