//! Simulated users: many of them read, put, swap and delete the same keys at the same time, and what they were told is
//! judged ([`History`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::linear::{History, Op, Told, Wanted};
use super::world::{HostId, World};
use crate::base::{Span, Time};
use crate::data::{Command, Condition, Failure, Key, Outcome, Put, Tag, UserReply, UserRequest, Version};

/// A population of users.
#[derive(Debug, Default)]
pub struct Clients {
    keys: BTreeMap<u64, Of>,
    // Which key each operation without an answer is about, and since when.
    busy: BTreeMap<u64, (u64, Time)>,
    next: u64,
    /// What was counted.
    pub tally: Tally,
}

/// How the users fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes acknowledged.
    pub writes: u64,
    /// Reads answered.
    pub reads: u64,
    /// Reads without an answer.
    pub reads_failed: u64,
    /// Writes without an answer.
    pub writes_failed: u64,
    /// Compare-and-swaps that failed as they should.
    pub conflicts: u64,
    /// The longest from when something was asked until its answer was judged.
    pub slowest: Span,
}

/// One key.
#[derive(Debug, Default)]
struct Of {
    history: History,
    /// The latest version that somebody was told of.
    version: Option<Version>,
    /// The value that each version names, as far as somebody was told.
    versions: BTreeMap<Version, u64>,
    /// Operations under way.
    open: usize,
}

/// Operations on one key at the same time: all orders of them are tried.
const OPEN_MAX: usize = 4;

impl Clients {
    /// One user does one thing through `host`.
    pub fn act(&mut self, world: &mut World, host: HostId, keys: u64) {
        let key = world.rng().below(keys);
        let of = self.keys.entry(key).or_default();
        if of.open >= OPEN_MAX {
            return;
        }
        let dice = world.rng().below(12);
        let (op, command) = match (dice, of.version) {
            (0..=3, _) => (Op::Read(None), Command::Get),
            (4..=6, Some(version)) => {
                let wanted = of.versions.get(&version).map_or(Wanted::Any, |value| Wanted::Value(*value));
                let condition = Condition { if_match: Some(Tag::Of(vec![version])), if_none_match: None };
                (Op::Put { wanted, told: None }, put(self.next + 1, condition))
            }
            (7, _) => {
                let condition = Condition { if_match: None, if_none_match: Some(Tag::Any) };
                (Op::Put { wanted: Wanted::Nothing, told: None }, put(self.next + 1, condition))
            }
            (8, _) => (Op::Delete(None), Command::Delete(Condition::default())),
            _ => (Op::Put { wanted: Wanted::Any, told: None }, put(self.next + 1, Condition::default())),
        };
        self.ask(world, host, key, op, command);
    }

    fn ask(&mut self, world: &mut World, host: HostId, key: u64, op: Op, command: Command) {
        self.next += 1;
        let of = self.keys.entry(key).or_default();
        of.open += 1;
        of.history.call(self.next, op);
        self.busy.insert(self.next, (key, world.now()));
        world.ask(host, self.next, UserRequest::Kv { key: name(key), command });
    }

    /// Judges the answers that have come.
    ///
    /// # Panics
    /// An answer cannot be true.
    pub fn judge(&mut self, world: &mut World) {
        for (_, token, reply) in world.take_replies() {
            let Some((key, asked)) = self.busy.remove(&token) else { continue };
            self.tally.slowest = self.tally.slowest.max(world.now().since(asked));
            let Some(of) = self.keys.get_mut(&key) else { continue };
            of.open -= 1;
            let Some(op) = of.history.op(token) else { continue };
            let is_read = matches!(op, Op::Read(_));
            match reply {
                UserReply::Kv(outcome) => {
                    let told = told(op, token, &outcome, &mut of.versions);
                    self.tally.count(told);
                    of.version = version_in(&outcome).or(of.version);
                    of.history.answer(token, told);
                }
                UserReply::Failed(Failure::Timeout { maybe_applied: true }) => self.tally.writes_failed += 1,
                UserReply::Failed(_) => {
                    of.history.never(token);
                    *(if is_read { &mut self.tally.reads_failed } else { &mut self.tally.writes_failed }) += 1;
                }
                other => panic!("no answer to an operation: {other:?}"),
            }
            of.check(key);
        }
    }

    /// A process ended: its users are never answered.
    pub fn forget_unanswered(&mut self) {
        for (token, (key, _)) in std::mem::take(&mut self.busy) {
            let of = self.keys.entry(key).or_default();
            of.open -= 1;
            if matches!(of.history.op(token), Some(Op::Read(_))) {
                of.history.never(token);
            }
            of.check(key);
        }
    }

    /// Operations without an answer so far.
    pub fn waiting(&self) -> usize {
        self.busy.len()
    }

    /// Asks for every key through `host`.
    pub fn read_all(&mut self, world: &mut World, host: HostId) {
        let keys: Vec<u64> = self.keys.keys().copied().collect();
        for key in keys {
            self.ask(world, host, key, Op::Read(None), Command::Get);
        }
    }

    /// Puts a key anew through `host`, whatever is there.
    pub fn rewrite(&mut self, world: &mut World, host: HostId, key: &Key) {
        if let Some(of) = self.keys.keys().copied().find(|of| name(*of) == *key) {
            let command = put(self.next + 1, Condition::default());
            self.ask(world, host, of, Op::Put { wanted: Wanted::Any, told: None }, command);
        }
    }
}

impl Of {
    /// Judges, unless the answer to something that is under way may still explain what was told.
    fn check(&mut self, key: u64) {
        if self.open == 0
            && let Err(why) = self.history.check()
        {
            panic!("what users were told of key {key} cannot be true: {why}");
        }
    }
}

impl Tally {
    fn count(&mut self, op: Op) {
        let of = match op {
            Op::Put { told: Some(Told::Refused(_) | Told::RefusedBySomething), .. } => &mut self.conflicts,
            Op::Put { .. } | Op::Delete(Some(true)) => &mut self.writes,
            Op::Read(_) | Op::Delete(_) => &mut self.reads,
        };
        *of += 1;
    }
}

/// What the user of an operation was told.
///
/// # Panics
/// That is no answer to it, or a version names two values.
pub fn told(op: Op, number: u64, outcome: &Outcome, versions: &mut BTreeMap<Version, u64>) -> Op {
    let mut names = |version: Version, value: u64| {
        let known = *versions.entry(version).or_insert(value);
        assert_eq!(known, value, "version {version} was given out twice");
    };
    match (op, outcome) {
        (Op::Read(_), Outcome::Found(record)) => {
            let value = value_of(&record.value);
            names(record.version, value);
            Op::Read(Some(Some(value)))
        }
        (Op::Read(_), Outcome::NotFound) => Op::Read(Some(None)),
        (Op::Delete(_), Outcome::Deleted) => Op::Delete(Some(true)),
        (Op::Delete(_), Outcome::NotFound) => Op::Delete(Some(false)),
        (Op::Put { wanted, .. }, Outcome::Created(version)) => {
            names(*version, number);
            Op::Put { wanted, told: Some(Told::Created) }
        }
        (Op::Put { wanted, .. }, Outcome::Replaced(version)) => {
            names(*version, number);
            Op::Put { wanted, told: Some(Told::Replaced) }
        }
        (Op::Put { wanted, .. }, Outcome::PreconditionFailed(there)) => {
            // Of a version that nobody has been told of yet the value is not known; it is no read.
            let there = there.map(|version| versions.get(&version).copied());
            match there {
                Some(None) => Op::Put { wanted, told: Some(Told::RefusedBySomething) },
                Some(Some(value)) => Op::Put { wanted, told: Some(Told::Refused(Some(value))) },
                None => Op::Put { wanted, told: Some(Told::Refused(None)) },
            }
        }
        (op, outcome) => panic!("{op:?} ended in {outcome:?}"),
    }
}

fn version_in(outcome: &Outcome) -> Option<Version> {
    match outcome {
        Outcome::Found(record) => Some(record.version),
        Outcome::Created(version) | Outcome::Replaced(version) => Some(*version),
        Outcome::NotFound | Outcome::Deleted | Outcome::PreconditionFailed(_) => None,
    }
}

fn name(key: u64) -> Key {
    Key::new(format!("key {key}").into_bytes()).unwrap_or_else(|_| unreachable!("short and not empty"))
}

fn put(value: u64, condition: Condition) -> Command {
    Command::Put(Put { value: Arc::from(value.to_string().into_bytes()), content_type: None, ttl_ms: None, condition })
}

fn value_of(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
