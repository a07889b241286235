//! Simulated users: each owns some keys and knows what it was told about them.
//!
//! With one writer for each key, linearizable reads are easy to judge: a read sees the last acknowledged write, or one
//! whose outcome the user was not told.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::world::{HostId, World};
use crate::data::{Command, Condition, Failure, Key, Outcome, Put, Tag, UserReply, UserRequest, Version};

/// A population of users.
#[derive(Debug, Default)]
pub struct Clients {
    keys: BTreeMap<u64, Known>,
    busy: BTreeMap<u64, Doing>,
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
}

/// What the writer of a key knows: the possible contents, `None` for absent.
#[derive(Clone, Debug)]
struct Known {
    possible: Vec<Option<u64>>,
    version: Option<Version>,
}

#[derive(Clone, Debug)]
enum Doing {
    Read(u64),
    Write(u64, u64),
    Swap(u64, u64),
    WrongSwap(u64),
    Delete(u64),
}

impl Clients {
    /// One user does one thing through `host`.
    pub fn act(&mut self, world: &mut World, host: HostId, keys: u64) {
        let key = world.rng().below(keys);
        if self.busy.values().any(|doing| doing.key() == key) {
            return;
        }
        self.next += 1;
        let (token, value) = (self.next, self.next);
        let dice = world.rng().below(10);
        let known = self.keys.entry(key).or_insert(Known { possible: vec![None], version: None });
        let certain = known.possible.len() == 1;
        let (doing, command) = match (dice, known.version.filter(|_| certain)) {
            (0..=3, _) => (Doing::Read(key), Command::Get),
            (4, Some(version)) => (Doing::Swap(key, value), put(value, Some(version))),
            (5, Some(version)) => {
                let stale = Version { n: version.n.wrapping_sub(1), ..version };
                (Doing::WrongSwap(key), put(value, Some(stale)))
            }
            (6, _) => (Doing::Delete(key), Command::Delete(Condition::default())),
            _ => (Doing::Write(key, value), put(value, None)),
        };
        match &doing {
            Doing::Write(_, value) | Doing::Swap(_, value) => known.possible.push(Some(*value)),
            Doing::Delete(_) => known.possible.push(None),
            Doing::Read(_) | Doing::WrongSwap(_) => {}
        }
        self.busy.insert(token, doing);
        world.ask(host, token, UserRequest::Kv { key: name(key), command });
    }

    /// Judges the answers that have come.
    ///
    /// # Panics
    /// An answer cannot be true.
    pub fn judge(&mut self, world: &mut World) {
        for (_, token, reply) in world.take_replies() {
            let Some(doing) = self.busy.remove(&token) else { continue };
            let key = doing.key();
            let known = self.keys.entry(key).or_insert(Known { possible: vec![None], version: None });
            match reply {
                UserReply::Kv(outcome) => known.hear(&doing, outcome, &mut self.tally),
                UserReply::Failed(Failure::Timeout { maybe_applied: true }) => self.tally.writes_failed += 1,
                UserReply::Failed(_) if matches!(doing, Doing::Read(_)) => self.tally.reads_failed += 1,
                UserReply::Failed(_) => {
                    // Certainly not run: what was thought possible is not.
                    if !matches!(doing, Doing::WrongSwap(_)) {
                        known.possible.pop();
                    }
                    self.tally.writes_failed += 1;
                }
                other => panic!("no answer to an operation: {other:?}"),
            }
        }
    }

    /// A process ended: its users are never answered.
    pub fn forget_unanswered(&mut self) {
        self.busy.clear();
    }

    /// Operations without an answer so far.
    pub fn waiting(&self) -> usize {
        self.busy.len()
    }

    /// Asks for every key through `host`.
    pub fn read_all(&mut self, world: &mut World, host: HostId) {
        let keys: Vec<u64> = self.keys.keys().copied().collect();
        for key in keys {
            self.next += 1;
            self.busy.insert(self.next, Doing::Read(key));
            world.ask(host, self.next, UserRequest::Kv { key: name(key), command: Command::Get });
        }
    }

    /// Puts a key anew through `host`, whatever is there.
    pub fn rewrite(&mut self, world: &mut World, host: HostId, key: &Key) {
        let Some(of) = self.keys.keys().copied().find(|of| name(*of) == *key) else { return };
        self.next += 1;
        let value = self.next;
        self.keys.entry(of).or_insert(Known { possible: vec![None], version: None }).possible.push(Some(value));
        self.busy.insert(value, Doing::Write(of, value));
        world.ask(host, value, UserRequest::Kv { key: key.clone(), command: put(value, None) });
    }

    /// Names of the keys that are certainly there, in order.
    pub fn present(&self) -> Vec<Key> {
        let mut all: Vec<Key> = self
            .keys
            .iter()
            .filter(|(_, known)| matches!(known.possible.as_slice(), [Some(_)]))
            .map(|(key, _)| name(*key))
            .collect();
        all.sort();
        all
    }
}

impl Doing {
    fn key(&self) -> u64 {
        match self {
            Self::Read(key) | Self::Write(key, _) | Self::Swap(key, _) | Self::WrongSwap(key) | Self::Delete(key) => {
                *key
            }
        }
    }
}

impl Known {
    fn hear(&mut self, doing: &Doing, outcome: Outcome, tally: &mut Tally) {
        match (doing, outcome) {
            (Doing::Read(_), Outcome::Found(record)) => {
                let value = value_of(&record.value);
                assert!(self.possible.contains(&Some(value)), "{doing:?} read {value}, possible: {:?}", self.possible);
                self.set(Some(value), Some(record.version));
                tally.reads += 1;
            }
            (Doing::Read(_) | Doing::Delete(_), Outcome::NotFound) => {
                assert!(self.possible.contains(&None), "{doing:?} found nothing, possible: {:?}", self.possible);
                self.set(None, None);
                tally.reads += 1;
            }
            (
                Doing::Write(_, value) | Doing::Swap(_, value),
                Outcome::Created(version) | Outcome::Replaced(version),
            ) => {
                assert_ne!(self.version, Some(version), "a version was given out twice");
                self.set(Some(*value), Some(version));
                tally.writes += 1;
            }
            (Doing::Delete(_), Outcome::Deleted) => {
                self.set(None, None);
                tally.writes += 1;
            }
            (Doing::WrongSwap(_), Outcome::PreconditionFailed(Some(_))) => tally.conflicts += 1,
            (doing, outcome) => panic!("{doing:?} ended in {outcome:?}; known: {self:?}"),
        }
    }

    fn set(&mut self, value: Option<u64>, version: Option<Version>) {
        self.possible = vec![value];
        self.version = version;
    }
}

fn name(key: u64) -> Key {
    Key::new(format!("key {key}").into_bytes()).unwrap_or_else(|_| unreachable!("short and not empty"))
}

fn put(value: u64, version: Option<Version>) -> Command {
    let condition = Condition { if_match: version.map(|version| Tag::Of(vec![version])), if_none_match: None };
    Command::Put(Put { value: Arc::from(value.to_string().into_bytes()), content_type: None, ttl_ms: None, condition })
}

fn value_of(bytes: &[u8]) -> u64 {
    std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
