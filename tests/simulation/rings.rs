//! Worlds and rings that scenarios begin with.

use chordkv::base::Span;
use chordkv::node::Wishes;
use chordkv::sim::clients::Clients;
use chordkv::sim::{Check, HostId, World, WorldConfig};

/// A world whose rings have few slots: moving a thousand of them takes most of the time of a run.
pub fn world(seed: u64) -> World {
    let mut config = WorldConfig::new(seed);
    config.wishes.slot_bits = Some(6);
    World::new(config)
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

/// Users do so many things, each through any of these hosts.
pub fn write_for_a_while(world: &mut World, clients: &mut Clients, hosts: &[HostId], operations: u64) {
    for _ in 0..operations {
        let host = hosts[world.rng().index(hosts.len())];
        clients.act(world, host, 60);
        let pause = world.rng().below(5_000);
        world.run_for(Span(pause));
        clients.judge(world);
    }
}

/// Every key that was touched is read through this host, and each read is answered.
pub fn read_all(world: &mut World, clients: &mut Clients, host: HostId) {
    world.run_until(Span::secs(12), |_| false);
    clients.judge(world);
    clients.read_all(world, host);
    let asked = clients.waiting();
    world.run_for(Span::secs(12));
    clients.judge(world);
    assert!(asked > 0 && clients.waiting() == 0, "{} of {asked} reads without an answer", clients.waiting());
}
