//! Users who watch keys while others change them and nodes come and go: in the end each knows what is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use chordkv::base::Span;
use chordkv::data::{Command, Condition, Filter, Key, Outcome, Put, UserReply, UserRequest, Version};
use chordkv::node::Wishes;
use chordkv::sim::watchers::Watchers;
use chordkv::sim::{Check, DiskConfig, HostId, World, WorldConfig};

use crate::rings::grow;
use crate::seeds::for_seeds;

const KEYS: u64 = 30;

fn world(seed: u64) -> World {
    let mut config = WorldConfig::new(seed);
    config.wishes = Wishes { successors: Some(4), slot_bits: Some(3), ..Wishes::default() };
    config.check = Check::Nodes;
    config.disk =
        DiskConfig { work_max: Span::millis([0, 1, 5][usize::try_from(seed % 3).expect("below 3")]), durable: true };
    World::new(config)
}

fn key(n: u64) -> Key {
    Key::new(format!("key {n}").into_bytes()).expect("a key")
}

/// Somebody puts, lets expire, or deletes keys, whatever is there.
fn write(world: &mut World, watchers: &mut Watchers, hosts: &[HostId], operations: u64, token: &mut u64) {
    for _ in 0..operations {
        let host = hosts[world.rng().index(hosts.len())];
        let key = key(world.rng().below(KEYS));
        let ttl_ms = (world.rng().below(5) == 0).then(|| 500 + world.rng().below(3_000));
        let value = Arc::from(token.to_string().into_bytes());
        let condition = Condition::default();
        let put = Command::Put(Put { value, content_type: None, ttl_ms, condition: condition.clone() });
        let command = if world.rng().below(4) == 0 { Command::Delete(condition) } else { put };
        *token += 1;
        world.ask(host, *token, UserRequest::Kv { key, command });
        let pause = world.rng().below(30_000);
        world.run_for(Span(pause));
        watchers.go_on(world);
    }
}

fn go_on(world: &mut World, watchers: &mut Watchers, span: Span) {
    let until = world.now() + span;
    while world.now() < until {
        world.run_for(Span::millis(20));
        watchers.go_on(world);
    }
}

/// What is there, as users read it; in quiet.
fn truth(world: &mut World, watchers: &mut Watchers, host: HostId, token: &mut u64) -> BTreeMap<Key, Version> {
    let mut asked = BTreeMap::new();
    for n in 0..KEYS {
        *token += 1;
        asked.insert(*token, key(n));
        world.ask(host, *token, UserRequest::Kv { key: key(n), command: Command::Get });
    }
    let mut there = BTreeMap::new();
    let until = world.now() + Span::secs(10);
    while !asked.is_empty() {
        assert!(world.now() < until, "no answer: {asked:?}");
        go_on(world, watchers, Span::millis(20));
        for (_, of, reply) in world.take_replies() {
            let Some(key) = asked.remove(&of) else { continue };
            match reply {
                UserReply::Kv(Outcome::Found(record)) => drop(there.insert(key, record.version)),
                UserReply::Kv(Outcome::NotFound) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    there
}

fn all_know(world: &mut World, watchers: &mut Watchers, host: HostId, token: &mut u64) {
    // Everything with a time to live has expired, and what has changed was told a second later at the latest.
    go_on(world, watchers, Span::secs(9));
    let there = truth(world, watchers, host, token);
    for (filter, known) in watchers.known() {
        let there: BTreeMap<_, _> = there
            .iter()
            .filter(|(key, _)| filter.is_about(key))
            .map(|(key, version)| (key.clone(), *version))
            .collect();
        assert_eq!(*known, there, "who watches {filter:?}: {:?}", watchers.tally);
    }
}

#[test]
fn watchers_know_what_is_there_through_crashes_joins_and_leaves() {
    let name = "watchers_know_what_is_there_through_crashes_joins_and_leaves";
    for_seeds(name, 20, |seed| {
        let mut world = world(seed);
        let mut hosts = grow(&mut world, 4);
        assert!(world.run_until(Span::secs(30), |world| world.is_ideal()), "{}", world.describe());
        let (mut watchers, mut token) = (Watchers::of((0..KEYS).map(key).collect()), 0);
        for (at, filter) in [
            Filter::Prefix(Vec::new()),
            Filter::Prefix(b"key 1".to_vec()),
            Filter::Key(key(3)),
            Filter::Prefix(Vec::new()),
            Filter::Key(key(7)),
        ]
        .into_iter()
        .enumerate()
        {
            watchers.add(hosts[at % hosts.len()], filter);
        }
        write(&mut world, &mut watchers, &hosts, 60, &mut token);
        all_know(&mut world, &mut watchers, hosts[0], &mut token);
        for round in 0..4 {
            let through = hosts.clone();
            write(&mut world, &mut watchers, &through, 10, &mut token);
            match world.rng().below(4) {
                0 => {
                    let seeds = [hosts[0]];
                    hosts.push(world.start(&seeds));
                }
                1 if hosts.len() > 4 => {
                    let leaver = hosts.remove(world.rng().index(hosts.len()));
                    world.leave(leaver);
                    write(&mut world, &mut watchers, &hosts.clone(), 20, &mut token);
                    assert!(world.run_until(Span::secs(40), |world| world.node(leaver).is_none()), "it did not leave");
                    watchers.move_from(&[leaver], hosts[0]);
                }
                _ => {
                    let victim = hosts[world.rng().index(hosts.len())];
                    if world.remembers(victim) {
                        world.crash(victim);
                        let living: Vec<HostId> = hosts.iter().copied().filter(|host| *host != victim).collect();
                        watchers.move_from(&[victim], living[world.rng().index(living.len())]);
                        write(&mut world, &mut watchers, &living, 30, &mut token);
                        let pause = world.rng().below(20_000_000);
                        go_on(&mut world, &mut watchers, Span(pause));
                        let seeds = [living[0]];
                        world.restart_remembering(victim, &seeds);
                    }
                }
            }
            write(&mut world, &mut watchers, &through, 20, &mut token);
            let until = world.now() + Span::secs(90);
            while !world.is_ideal() && world.now() < until {
                go_on(&mut world, &mut watchers, Span::secs(1));
            }
            assert!(world.is_ideal(), "in round {round}: {}", world.describe());
            all_know(&mut world, &mut watchers, hosts[0], &mut token);
        }
        let tally = watchers.tally;
        assert!(tally.events > 200 && tally.parked > 20, "{tally:?}");
    });
}

/// Who watches hears nothing from some nodes for a while, and then knows what happened meanwhile.
fn nothing_comes_from(name: &str, deaf_to_all: bool) {
    for_seeds(name, 20, |seed| {
        let mut world = world(seed);
        let hosts = grow(&mut world, 5);
        assert!(world.run_until(Span::secs(30), |world| world.is_ideal()), "{}", world.describe());
        let (mut watchers, mut token) = (Watchers::of((0..KEYS).map(key).collect()), 0);
        watchers.add(hosts[0], Filter::Prefix(Vec::new()));
        write(&mut world, &mut watchers, &hosts, 30, &mut token);
        all_know(&mut world, &mut watchers, hosts[2], &mut token);
        let silent = if deaf_to_all { &hosts[1..] } else { &hosts[1..2] };
        for host in silent {
            world.block(*host, hosts[0]);
        }
        let others = hosts[1..].to_vec();
        write(&mut world, &mut watchers, &others, 60, &mut token);
        if deaf_to_all {
            go_on(&mut world, &mut watchers, Span::secs(3));
            world.heal();
        }
        all_know(&mut world, &mut watchers, hosts[2], &mut token);
        assert_eq!(watchers.tally.too_old, 0);
    });
}

/// Whoever coordinates does not get through to it, as if it had died right after it has told its users. The other members
/// have accepted what it did, and tell so.
#[test]
fn what_a_coordinator_cannot_tell_the_other_members_do() {
    nothing_comes_from("what_a_coordinator_cannot_tell_the_other_members_do", false);
}

/// Notices are numbered, so it finds out that it has missed some, and lists.
#[test]
fn whoever_has_missed_notices_finds_out() {
    nothing_comes_from("whoever_has_missed_notices_finds_out", true);
}

fn put(world: &mut World, host: HostId, token: u64, key: Key) {
    let put = Put { value: Arc::from(*b"v"), content_type: None, ttl_ms: None, condition: Condition::default() };
    world.ask(host, token, UserRequest::Kv { key, command: Command::Put(put) });
}

fn delete(world: &mut World, host: HostId, token: u64, key: Key) {
    world.ask(host, token, UserRequest::Kv { key, command: Command::Delete(Condition::default()) });
}

/// The state is as at the beginning, and yet nobody has to be told, or to ask again and again.
#[test]
fn a_watched_key_that_came_and_went_is_waited_for_in_peace() {
    let mut world = world(3);
    let hosts = grow(&mut world, 3);
    assert!(world.run_until(Span::secs(30), |world| world.is_ideal()), "{}", world.describe());
    let mut watchers = Watchers::of(vec![key(0), key(1)]);
    watchers.add(hosts[0], Filter::Key(key(0)));
    watchers.add(hosts[1], Filter::Prefix(b"key".to_vec()));
    go_on(&mut world, &mut watchers, Span::secs(5));
    for token in 0..3 {
        put(&mut world, hosts[2], token * 2, key(0));
        go_on(&mut world, &mut watchers, Span::secs(2));
        delete(&mut world, hosts[2], token * 2 + 1, key(0));
        go_on(&mut world, &mut watchers, Span::secs(2));
    }
    let events = watchers.tally.events;
    assert!(events >= 12, "{:?}", watchers.tally);
    go_on(&mut world, &mut watchers, Span::secs(60));
    assert_eq!((watchers.tally.events, watchers.tally.failed), (events, 0), "{:?}", watchers.tally);
    assert!(watchers.tally.parked < 50, "{:?}", watchers.tally);
}

/// Whoever begins to watch, reads a key that was put since, and goes on through another node is told when it is gone, though
/// that node has never seen it.
#[test]
fn what_was_read_after_the_first_token_is_told_as_gone_at_every_node() {
    let mut world = world(3);
    let hosts = grow(&mut world, 3);
    assert!(world.run_until(Span::secs(30), |world| world.is_ideal()), "{}", world.describe());
    let mut watchers = Watchers::of(vec![key(0)]);
    watchers.add(hosts[0], Filter::Prefix(b"key".to_vec()));
    while watchers.tokens() == 0 {
        go_on(&mut world, &mut watchers, Span::millis(20));
    }
    put(&mut world, hosts[2], 1, key(0));
    world.run_for(Span::secs(1));
    while watchers.known().all(|(_, known)| known.is_empty()) {
        go_on(&mut world, &mut watchers, Span::millis(1));
    }
    watchers.move_from(&hosts[..1], hosts[1]);
    delete(&mut world, hosts[2], 2, key(0));
    world.run_for(Span::secs(3));
    go_on(&mut world, &mut watchers, Span::secs(10));
    assert!(watchers.known().all(|(_, known)| known.is_empty()), "{:?}", watchers.tally);
    assert_eq!((watchers.tally.moved, watchers.tally.too_old), (1, 0));
}
