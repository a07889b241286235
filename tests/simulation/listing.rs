//! Listings in the simulator: every key once, through every node, after the ring changed and while it changes.

use std::sync::Arc;

use chordkv::base::Span;
use chordkv::data::{Command, Condition, Key, ListQuery, Put, UserReply, UserRequest};
use chordkv::sim::{HostId, World, WorldConfig};

const SEEDS: u64 = 8;
const KEYS: u64 = 60;
const PAGE: usize = 25;

fn key(n: u64) -> Key {
    Key::new(format!("key {n:03}").into_bytes()).expect("short and not empty")
}

/// A ring of `count` nodes, all but the first started at the same moment, with every key put through the last.
pub fn stocked(seed: u64, count: usize) -> (World, Vec<HostId>) {
    let mut world = World::new(WorldConfig::new(seed));
    let first = world.start(&[]);
    let hosts: Vec<HostId> = std::iter::once(first).chain((1..count).map(|_| world.start(&[first]))).collect();
    assert!(world.run_until(Span::secs(30), |world| world.is_ideal()), "seed {seed}: {}", world.describe());
    for n in 0..KEYS {
        let put =
            Put { value: Arc::from(*b"value"), content_type: None, ttl_ms: None, condition: Condition::default() };
        world.ask(hosts[count - 1], n, UserRequest::Kv { key: key(n), command: Command::Put(put) });
    }
    let mut stored = 0;
    let all = world.run_until(Span::secs(10), |world| {
        stored += world.take_replies().iter().filter(|(_, _, reply)| matches!(reply, UserReply::Kv(_))).count();
        stored == usize::try_from(KEYS).expect("few")
    });
    assert!(all, "seed {seed}: only {stored} keys were stored");
    (world, hosts)
}

/// Every page of a listing through `host`, each within `limit`.
fn listing(world: &mut World, host: HostId, limit: Span) -> Vec<Key> {
    let (mut keys, mut more): (Vec<Key>, bool) = (Vec::new(), true);
    while more {
        let after = keys.last().map(|key| key.as_bytes().to_vec());
        world.ask(host, 0, UserRequest::List(ListQuery { prefix: Vec::new(), after, limit: PAGE }));
        let mut reply = None;
        world.run_until(limit, |world| {
            reply = world.take_replies().pop().map(|(_, _, reply)| reply);
            reply.is_some()
        });
        let Some(UserReply::Page(page)) = reply else { panic!("no page through host {host}: {reply:?}") };
        keys.extend(page.items.into_iter().map(|item| item.key));
        more = page.more;
    }
    keys
}

fn all_keys() -> Vec<Key> {
    (0..KEYS).map(key).collect()
}

/// Slots move more than once while a ring forms, and not everybody hears of each move.
#[test]
fn every_node_of_a_ring_that_has_just_formed_lists_every_key_within_a_second() {
    for seed in 1..=SEEDS {
        let (mut world, hosts) = stocked(seed, 3 + usize::try_from(seed % 10).expect("few"));
        for host in hosts {
            assert_eq!(listing(&mut world, host, Span::secs(1)), all_keys(), "seed {seed}, host {host}");
        }
    }
}

#[test]
fn every_listing_while_nodes_join_and_leave_has_each_key_once() {
    for seed in 1..=SEEDS {
        let (mut world, hosts) = stocked(seed, 5);
        for round in 0..6 {
            let stays = hosts[0];
            match round % 3 {
                0 => {
                    world.start(&[stays]);
                }
                1 => world.leave(hosts[1 + round / 3]),
                _ => {
                    world.start(&[stays]);
                    world.start(&[stays]);
                }
            }
            for host in [stays, hosts[4]] {
                let pause = Span::millis(world.rng().below(300));
                world.run_for(pause);
                assert_eq!(listing(&mut world, host, Span::secs(5)), all_keys(), "seed {seed}, round {round}");
            }
        }
    }
}
