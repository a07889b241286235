//! Members compare their copies: whoever was silent for a while comes to what the others have, and whoever reads any copy is
//! told how old it may be.

use std::collections::BTreeMap;
use std::sync::Arc;

use chordkv::base::{Span, Time};
use chordkv::data::{Command, Condition, Key, Outcome, Put, UserReply, UserRequest, Version};
use chordkv::node::Wishes;
use chordkv::replication::copies::Copies;
use chordkv::sim::{Check, DiskConfig, HostId, World, WorldConfig};

use crate::rings::grow;
use crate::seeds::for_seeds;

const KEYS: u64 = 40;
/// Answers are looked for so often.
const STEP: Span = Span::millis(1);

fn world(seed: u64) -> World {
    let mut config = WorldConfig::new(seed);
    config.wishes = Wishes { successors: Some(4), slot_bits: Some(3), ..Wishes::default() };
    config.check = Check::Nodes;
    let work_max = Span::millis([0, 1, 5][usize::try_from(seed % 3).expect("below 3")]);
    config.disk = DiskConfig { work_max, durable: true };
    World::new(config)
}

fn key(n: u64) -> Key {
    Key::new(format!("key {n}").into_bytes()).expect("a key")
}

/// Users who put keys and read any copy of them, and what they were told.
#[derive(Default)]
struct Users {
    next: u64,
    puts: BTreeMap<u64, Key>,
    reads: BTreeMap<u64, (HostId, Key)>,
    acknowledged: BTreeMap<Key, Vec<(Time, Version)>>,
    told: u64,
    told_age: u64,
    oldest: Span,
}

impl Users {
    fn put(&mut self, world: &mut World, host: HostId) {
        self.next += 1;
        let key = key(world.rng().below(KEYS));
        let value = Arc::from(self.next.to_string().into_bytes());
        let put = Put { value, content_type: None, ttl_ms: None, condition: Condition::default() };
        world.ask(host, self.next, UserRequest::Kv { key: key.clone(), command: Command::Put(put) });
        self.puts.insert(self.next, key);
    }

    fn read_any(&mut self, world: &mut World, host: HostId, key: Key) {
        self.next += 1;
        world.ask(host, self.next, UserRequest::ReadAny(key.clone()));
        self.reads.insert(self.next, (host, key));
    }

    fn run_for(&mut self, world: &mut World, span: Span) {
        let until = world.now() + span;
        while world.now() < until {
            world.run_for(STEP);
            for (_, token, reply) in world.take_replies() {
                match (reply, self.puts.remove(&token)) {
                    (UserReply::Kv(Outcome::Created(version) | Outcome::Replaced(version)), Some(key)) => {
                        self.acknowledged.entry(key).or_default().push((world.now(), version));
                    }
                    (UserReply::Stale { outcome, age }, None) => self.judge(world.now(), token, &outcome, age),
                    _ => {}
                }
            }
        }
    }

    /// What was acknowledged longer ago than the answer says that it may be old is in it.
    fn judge(&mut self, now: Time, token: u64, outcome: &Outcome, age: Option<Span>) {
        let Some((host, key)) = self.reads.remove(&token) else { return };
        self.told += 1;
        let Some(age) = age else { return };
        self.told_age += 1;
        self.oldest = self.oldest.max(age);
        let found = if let Outcome::Found(record) = outcome { Some(record.version) } else { None };
        for (at, version) in self.acknowledged.get(&key).into_iter().flatten() {
            if now.since(*at) > age + STEP {
                let ago = now.since(*at);
                assert!(
                    found >= Some(*version),
                    "host {host:?} says of {key:?} that it is {age} old at most, and missed {version} of {ago} ago"
                );
            }
        }
    }

    /// Every copy of every key is the latest, and is known to be so.
    fn all_are_new(&mut self, world: &mut World, hosts: &[HostId]) {
        for host in hosts {
            for n in 0..KEYS {
                self.read_any(world, *host, key(n));
            }
        }
        let (told, told_age) = (self.told, self.told_age);
        self.oldest = Span::ZERO;
        self.run_for(world, Span::secs(5));
        let asked = hosts.len() as u64 * KEYS;
        assert_eq!((self.told - told, self.told_age - told_age), (asked, asked), "all were told how old");
        assert!(self.oldest <= Span::secs(25), "some copy may be {} old", self.oldest);
    }
}

/// One of five after the other hears nothing for a while in which the others write. It is not replaced, hears again, and then
/// has what they have.
#[test]
fn a_member_that_was_silent_catches_up() {
    for_seeds("a_member_that_was_silent_catches_up", 10, |seed| {
        let mut world = world(seed);
        let hosts = grow(&mut world, 5);
        assert!(world.run_until(Span::secs(30), |world| world.is_ideal()), "{}", world.describe());
        let mut users = Users::default();
        for silent in &hosts {
            for host in &hosts {
                world.block(*host, *silent);
            }
            let others: Vec<HostId> = hosts.iter().copied().filter(|host| host != silent).collect();
            for _ in 0..40 {
                let host = others[world.rng().index(others.len())];
                users.put(&mut world, host);
                users.run_for(&mut world, Span::millis(60));
            }
            world.heal();
            users.run_for(&mut world, Span::secs(30));
            users.all_are_new(&mut world, &hosts);
        }
        let repaired = hosts.iter().filter_map(|host| world.node(*host)?.copies()).map(Copies::repaired).sum::<u64>();
        assert!(repaired > 0, "nothing was behind");
    });
}

/// Users read any copy in a ring whose nodes stand still, are cut off, and come.
#[test]
fn a_copy_is_never_older_than_it_says() {
    for_seeds("a_copy_is_never_older_than_it_says", 20, |seed| {
        let mut world = world(seed);
        let mut hosts = grow(&mut world, 5);
        assert!(world.run_until(Span::secs(30), |world| world.is_ideal()), "{}", world.describe());
        let mut users = Users::default();
        for round in 0..5 {
            let victim = hosts[world.rng().index(hosts.len())];
            match world.rng().below(4) {
                0 => world.freeze(victim),
                1 => world.put_on_side(victim, 1),
                2 => {
                    let other = hosts[world.rng().index(hosts.len())];
                    world.block(other, victim);
                }
                _ => {
                    let seeds = [hosts[0]];
                    hosts.push(world.start(&seeds));
                }
            }
            for _ in 0..150 {
                let host = hosts[world.rng().index(hosts.len())];
                if world.rng().below(2) == 0 {
                    users.put(&mut world, host);
                } else {
                    let key = key(world.rng().below(KEYS));
                    users.read_any(&mut world, host, key);
                }
                let pause = world.rng().below(200_000);
                users.run_for(&mut world, Span(pause));
            }
            world.heal();
            users.run_for(&mut world, Span::secs(if round == 4 { 60 } else { 5 }));
        }
        users.all_are_new(&mut world, &hosts);
        assert!(users.told > 200, "{} told", users.told);
    });
}
