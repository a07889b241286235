//! Simulated users that watch keys: what each of them knows by what it was told.

use std::collections::BTreeMap;

use super::world::{HostId, World};
use crate::base::Span;
use crate::data::{
    Command, Failure, Filter, Key, Outcome, Resume, Seen, UserReply, UserRequest, Version, WatchQuery, Watched,
};

/// Some of them; each through one host at a time.
#[derive(Debug, Default)]
pub struct Watchers {
    // Every key that there may be.
    keys: Vec<Key>,
    all: Vec<Watcher>,
    /// What was counted.
    pub tally: WatchTally,
}

/// How they fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchTally {
    /// Changes told.
    pub events: u64,
    /// Answers after which they had to list.
    pub too_old: u64,
    /// Requests that were put off.
    pub parked: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Tokens that another host took.
    pub moved: u64,
}

#[derive(Debug)]
struct Watcher {
    host: HostId,
    filter: Filter,
    known: BTreeMap<Key, Version>,
    resume: Option<Resume>,
    // The key that is being read.
    reads: Option<usize>,
    state: State,
    // Its token came from another host.
    has_moved: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It asks next.
    Idle,
    /// It reads what is there, the key of this number next. (A listing may miss what was written while a first member was
    /// silent.)
    Reading(usize),
    Parked(u64),
    Waiting,
}

/// Their requests have tokens from this one on; those of other users lie below.
const FIRST_TOKEN: u64 = 1 << 40;
const WAIT: Span = Span::secs(10);

impl Watchers {
    /// Nobody yet, of these keys.
    pub fn of(keys: Vec<Key>) -> Self {
        Self { keys, ..Self::default() }
    }

    /// One more.
    pub fn add(&mut self, host: HostId, filter: Filter) {
        let (known, resume, state) = (BTreeMap::new(), None, State::Idle);
        self.all.push(Watcher { host, filter, known, resume, reads: None, state, has_moved: false });
    }

    /// Those who watch through hosts that do not run go to another one, with their tokens; so does one that is told to.
    pub fn move_from(&mut self, gone: &[HostId], to: HostId) {
        for watcher in self.all.iter_mut().filter(|watcher| gone.contains(&watcher.host)) {
            watcher.host = to;
            watcher.has_moved = watcher.resume.is_some();
            watcher.state = match std::mem::replace(&mut watcher.state, State::Idle) {
                State::Reading(at) => State::Reading(at),
                // A read that was under way is not answered any more.
                State::Waiting if watcher.reads.is_some() => State::Reading(watcher.reads.unwrap_or(0)),
                _ => State::Idle,
            };
        }
    }

    /// Takes the answers that have come, and asks again.
    pub fn go_on(&mut self, world: &mut World) {
        // Whoever is put off may be called at once.
        for (host, token, reply) in world.take_replies_from(FIRST_TOKEN) {
            let at = usize::try_from(token - FIRST_TOKEN).unwrap_or(usize::MAX);
            let is_waiting =
                |watcher: &&mut Watcher| watcher.host == host && !matches!(watcher.state, State::Parked(_));
            if let Some(watcher) = self.all.get_mut(at).filter(is_waiting) {
                watcher.take(reply, &self.keys, &mut self.tally);
            }
        }
        for (host, parked) in world.take_resumed() {
            let is_it = |watcher: &Watcher| watcher.host == host && watcher.state == State::Parked(parked);
            if let Some(at) = self.all.iter().position(is_it) {
                self.ask(world, at, Some(parked));
            }
        }
        for at in 0..self.all.len() {
            match &self.all[at].state {
                State::Idle => self.ask(world, at, None),
                State::Reading(key) => {
                    let key = *key;
                    self.read(world, at, key);
                }
                State::Parked(_) | State::Waiting => {}
            }
        }
    }

    fn ask(&mut self, world: &mut World, at: usize, parked: Option<u64>) {
        let watcher = &mut self.all[at];
        watcher.state = State::Waiting;
        let query = WatchQuery { filter: watcher.filter.clone(), from: watcher.resume, wait: WAIT, parked };
        world.ask(watcher.host, FIRST_TOKEN + at as u64, UserRequest::Watch(query));
    }

    fn read(&mut self, world: &mut World, at: usize, key: usize) {
        let watcher = &mut self.all[at];
        (watcher.state, watcher.reads) = (State::Waiting, Some(key));
        let key = self.keys[key].clone();
        world.ask(watcher.host, FIRST_TOKEN + at as u64, UserRequest::Kv { key, command: Command::Get });
    }

    /// How many have a token.
    pub fn tokens(&self) -> usize {
        self.all.iter().filter(|watcher| watcher.resume.is_some()).count()
    }

    /// What each of them knows of the keys that it watches.
    pub fn known(&self) -> impl Iterator<Item = (&Filter, &BTreeMap<Key, Version>)> {
        self.all.iter().map(|watcher| (&watcher.filter, &watcher.known))
    }
}

impl Watcher {
    fn take(&mut self, reply: UserReply, keys: &[Key], tally: &mut WatchTally) {
        self.state = State::Idle;
        let reads = self.reads.take();
        match reply {
            UserReply::Watched(Watched { seen, resume }) => {
                tally.events += seen.len() as u64;
                tally.moved += u64::from(std::mem::take(&mut self.has_moved));
                for Seen { key, record } in seen {
                    match record {
                        Some(record) => {
                            let before = self.known.insert(key, record.version);
                            assert!(before <= Some(record.version), "{before:?} after {:?}", record.version);
                        }
                        None => drop(self.known.remove(&key)),
                    }
                }
                // What a first answer does not tell is read.
                if self.resume.replace(resume).is_none() && matches!(self.filter, Filter::Prefix(_)) {
                    self.known.clear();
                    self.state = State::Reading(0);
                }
            }
            UserReply::Kv(outcome) => {
                let at = reads.unwrap_or(0);
                if let Outcome::Found(record) = outcome
                    && self.filter.is_about(&keys[at])
                {
                    self.known.insert(keys[at].clone(), record.version);
                }
                if at + 1 < keys.len() {
                    self.state = State::Reading(at + 1);
                }
            }
            UserReply::Parked(number) => {
                tally.parked += 1;
                self.state = State::Parked(number);
            }
            UserReply::Failed(Failure::TooOld) => {
                tally.too_old += 1;
                (self.resume, self.has_moved) = (None, false);
            }
            UserReply::Failed(_) => {
                tally.failed += 1;
                // A read is tried again; so is a watch, with its token.
                if let Some(at) = reads {
                    self.state = State::Reading(at);
                }
            }
            other => panic!("no answer to a watch: {other:?}"),
        }
    }
}
