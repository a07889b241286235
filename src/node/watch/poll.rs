//! One request to be told of changes: reads the keys that may have changed, and is put off where none has.

use std::collections::{BTreeMap, BTreeSet};

use super::Stage;
use super::feed::{Feed, Found};
use crate::base::limits::{VALUE_BYTES_DEFAULT, WATCHED_AT_ONCE_MAX};
use crate::base::{Contact, Now, Span, Time};
use crate::data::{
    Command, Failure, Filter, Key, Outcome, Record, Resume, Seen, UserReply, Version, WatchQuery, Watched,
};
use crate::node::chord_node::ChordNode;
use crate::node::message::{Call, Reply};
use crate::node::operate::OperateTask;
use crate::node::task::{Kind, Next, Wake, Whose};

/// Such a request in progress.
#[derive(Debug)]
pub(in crate::node) struct WatchTask {
    query: WatchQuery,
    is_for_peer: bool,
    until: Option<Time>,
    // Keys to be read, those that are being read with the number of the read, and what was found.
    todo: Vec<Key>,
    open: BTreeMap<u64, Key>,
    found: BTreeMap<Key, Option<Record>>,
    bytes: usize,
    is_reading: bool,
    // The node is asked that has given the token.
    asked: Option<u64>,
    tries: u32,
    // Keys could not be read: how often, and whether this time.
    failures: u32,
    fails: bool,
}

/// Keys read at the same time.
const READS_MAX: usize = 8;
/// Bytes of keys and values in an answer, unless it has only one.
const BYTES_MAX: usize = VALUE_BYTES_DEFAULT;
/// After keys that could not be read.
const READ_AGAIN: Span = Span::millis(200);
/// So long the node that gave a token is waited for, and before it is asked again.
const SILENCE: Span = Span::secs(2);
const ASK_AGAIN: Span = Span::millis(20);
const TRIES_MAX: u32 = 10;
/// A read that takes longer is tried again later: one whose first member is silent takes up to two seconds more.
const READ_PATIENCE: Span = Span::secs(3);
/// Something has changed while keys were read.
const NEXT_ROUND: Span = Span::millis(1);

impl WatchTask {
    pub fn new(query: WatchQuery) -> Self {
        Self {
            query,
            is_for_peer: false,
            until: None,
            todo: Vec::new(),
            open: BTreeMap::new(),
            found: BTreeMap::new(),
            bytes: 0,
            is_reading: false,
            asked: None,
            tries: 0,
            failures: 0,
            fails: false,
        }
    }

    pub fn timed_out(&self) -> Failure {
        Failure::Unavailable(if self.failures > 0 {
            "a key that may have changed cannot be read: the nodes that hold it do not agree in time".to_owned()
        } else {
            "the keys to be watched were not found in time".to_owned()
        })
    }
}

impl ChordNode {
    pub(in crate::node) fn run_watch(&mut self, now: Now, id: u64, task: &mut WatchTask, wake: Wake) -> Next {
        match wake {
            Wake::Ended { part, reply } => {
                if let Some(key) = task.open.remove(&part) {
                    self.take_read(task, &key, part, reply);
                }
            }
            Wake::Reply { reply: Reply::Watched(Some(watched)), .. } if watched.seen.is_empty() => {
                task.asked = None;
                task.tries += 1;
                if !self.knows(&task.query.filter, watched.resume) {
                    // It has not heard yet what this node has, or the other way round.
                    let is_over = task.tries > TRIES_MAX || task.until.is_some_and(|until| until <= now.mono);
                    return if is_over { told_of(Vec::new(), watched.resume) } else { self.pause(ASK_AGAIN) };
                }
                // Both have seen the same: from there on this node tells.
                task.query.from = Some(watched.resume);
            }
            Wake::Reply { reply: Reply::Watched(Some(watched)), .. } => {
                return Next::Done(UserReply::Watched(*watched));
            }
            Wake::Reply { .. } | Wake::Undelivered { .. } | Wake::Lost { .. } => {
                return Next::Done(UserReply::Failed(Failure::TooOld));
            }
            Wake::Go if task.asked.is_some() => return Next::Done(UserReply::Failed(Failure::TooOld)),
            Wake::TooMuch => return Next::Done(UserReply::Failed(Failure::TooMany { limit: super::KEYS_MAX })),
            // Reads that take so long do not hold up the others.
            Wake::Go => self.abandon_reads(task),
            _ => {}
        }
        let until = match (task.until, task.query.parked) {
            (Some(until), _) => until,
            (None, None) => now.mono + task.query.wait,
            // Where it is not known any more it has waited long enough.
            (None, Some(parked)) => self.watching.unpark(parked).map_or(now.mono, |of| of.until),
        };
        task.until = Some(until);
        let Some(feed) = self.watching.feed_for(now.mono, &task.query.filter, &mut self.rng) else {
            return Next::Done(UserReply::Failed(Failure::TooMany { limit: super::FEEDS_MAX }));
        };
        self.follow_at_once(now, feed);
        let Some(of) = self.watching.feeds.get_mut(&feed) else { return Next::Wait };
        of.used = now.mono;
        if !of.is_usable() {
            of.waiting.push(id);
            return Next::Wait;
        }
        if self.begin_reads(now, id, task, feed) {
            return Next::Pause(READ_PATIENCE);
        }
        self.conclude(now, id, task, feed, until)
    }

    fn follow_at_once(&mut self, now: Now, feed: u64) {
        if self.watching.feeds.get(&feed).is_some_and(|of| matches!(of.stage, Stage::Following)) {
            self.follow(now);
            self.arm_watch();
        }
    }

    /// Reads what may have changed. Whether there is something to wait for.
    fn begin_reads(&mut self, now: Now, id: u64, task: &mut WatchTask, feed: u64) -> bool {
        let Some(of) = self.watching.feeds.get_mut(&feed) else { return false };
        if !std::mem::replace(&mut task.is_reading, true) {
            task.todo = match (&task.query.filter, task.query.from) {
                (Filter::Key(key), from) => {
                    let is_known = from.is_some_and(|from| from.sum == of.feed.sum()) && !of.feed.is_dirty();
                    if is_known { Vec::new() } else { vec![key.clone()] }
                }
                (Filter::Prefix(_), None) => Vec::new(),
                (Filter::Prefix(_), Some(from)) => {
                    // Once this node has read all that it has heard of, it may know the token.
                    let position = of.feed.find(from.sum).unwrap_or(u64::MAX - 1);
                    of.feed.candidates(position, WATCHED_AT_ONCE_MAX)
                }
            };
            task.todo.reverse();
        }
        if task.bytes >= BYTES_MAX {
            task.todo.clear();
        }
        while task.open.len() < READS_MAX
            && let Some(key) = task.todo.pop()
        {
            self.read_for_watch(now, id, task, feed, key);
        }
        !task.open.is_empty()
    }

    fn read_for_watch(&mut self, now: Now, id: u64, task: &mut WatchTask, feed: u64, key: Key) {
        let (Some(inside), Some(of)) = (&self.inside, self.watching.feeds.get_mut(&feed)) else { return };
        let place = inside.params.space.place(key.clone());
        let Ok(read) = OperateTask::new(place, Command::Get, inside.params.value_bytes_max) else { return };
        let part = of.feed.begin_read(&key);
        task.open.insert(part, key);
        self.start_task(now, Whose::Task(id, part), Kind::Operate(read));
    }

    fn take_read(&mut self, task: &mut WatchTask, key: &Key, part: u64, reply: UserReply) {
        let Some(feed) = self.watching.by_filter.get(&task.query.filter).copied() else { return };
        let Some(of) = self.watching.feeds.get_mut(&feed) else { return };
        let before = of.feed.position();
        let record = match reply {
            UserReply::Kv(Outcome::Found(record)) => Some(record),
            UserReply::Kv(Outcome::NotFound) => None,
            _ => {
                (task.fails, task.failures) = (true, task.failures + 1);
                of.feed.end_read(key, part, Found::Unread);
                self.resume_watchers(feed);
                return;
            }
        };
        let found = version_of(record.as_ref()).map_or(Found::Nothing, Found::Is);
        of.feed.end_read(key, part, found);
        task.bytes += record.as_ref().map_or(0, Record::user_bytes);
        task.found.insert(key.clone(), record);
        if of.feed.position() != before {
            self.resume_watchers(feed);
        }
    }

    /// Keys that are being read are not waited for any more: somebody is to read them again.
    pub(in crate::node) fn abandon_reads(&mut self, task: &mut WatchTask) {
        let open = std::mem::take(&mut task.open);
        if open.is_empty() {
            return;
        }
        (task.fails, task.failures) = (true, task.failures + 1);
        let Some(feed) = self.watching.by_filter.get(&task.query.filter).copied() else { return };
        let Some(of) = self.watching.feeds.get_mut(&feed) else { return };
        for (part, key) in open {
            of.feed.end_read(&key, part, Found::Unread);
        }
        self.resume_watchers(feed);
    }

    /// Whether a token says something here.
    fn knows(&self, filter: &Filter, token: Resume) -> bool {
        let feed = self.watching.by_filter.get(filter).and_then(|feed| self.watching.feeds.get(feed));
        feed.is_some_and(|of| of.is_usable() && of.feed.find(token.sum).is_some())
    }

    /// Everything was read: tells what has changed, or puts the request off.
    fn conclude(&mut self, now: Now, id: u64, task: &mut WatchTask, feed: u64, until: Time) -> Next {
        task.is_reading = false;
        task.bytes = 0;
        let node = self.own_name();
        let Some(of) = self.watching.feeds.get_mut(&feed) else { return Next::Wait };
        // What another read has found meanwhile is newer.
        let mut found = std::mem::take(&mut task.found);
        found.retain(|key, record| !of.feed.differs(key, version_of(record.as_ref())));
        let position = match &task.query.filter {
            Filter::Prefix(_) => task.query.from.and_then(|from| of.feed.find(from.sum)),
            Filter::Key(_) => {
                let is_present = task.query.from.is_some_and(|from| from.sum == of.feed.sum());
                (is_present && !of.feed.is_dirty()).then(|| of.feed.position())
            }
        };
        let told = match (&task.query.filter, task.query.from, position) {
            (Filter::Key(key), from, _) => {
                let is_news = from.is_none_or(|from| from.sum != of.feed.sum()) && found.contains_key(key);
                // Whoever begins where there is nothing is not told of a deletion.
                let seen = found.into_iter().filter(|(_, record)| record.is_some() || from.is_some());
                is_news.then(|| (seen.collect(), Resume { sum: of.feed.sum(), node: 0 }))
            }
            (Filter::Prefix(_), None, _) => Some((Vec::new(), Resume { sum: of.feed.first_token(), node })),
            (Filter::Prefix(_), Some(_), Some(position)) => {
                let seen = changes_since(position, found, &of.feed);
                let keys: BTreeSet<Key> = seen.iter().map(|(key, _)| key.clone()).collect();
                let at = of.feed.seen_up_to(position, &keys);
                (!seen.is_empty()).then(|| (seen, Resume { sum: of.feed.token(at), node }))
            }
            (Filter::Prefix(_), Some(from), None) => return self.ask_issuer(id, task, from),
        };
        if let Some((seen, resume)) = told {
            return told_of(seen, resume);
        }
        if let Some(position) = position.filter(|_| now.mono >= until) {
            // Where that is all, in a way that others understand, too; but whoever has just begun may hear of something late
            // that a listing has shown.
            let from = task.query.from.unwrap_or_default();
            let is_first = of.feed.is_first(from.sum, position) && !task.is_for_peer;
            let is_all = position == of.feed.position() && !of.feed.is_dirty() && !is_first;
            let resume = if is_all { Resume { sum: of.feed.token(position), ..from } } else { from };
            return told_of(Vec::new(), resume);
        }
        if std::mem::take(&mut task.fails) {
            return self.pause(READ_AGAIN);
        }
        if position.is_none_or(|position| !of.feed.candidates(position, 1).is_empty()) {
            return self.pause(NEXT_ROUND);
        }
        let parked = self.watching.park(feed, until);
        self.arm_watch();
        let reply = parked.map_or(UserReply::Failed(Failure::Overloaded), UserReply::Parked);
        Next::Done(reply)
    }

    /// Another node has given a token that this one does not know: that one does.
    fn ask_issuer(&mut self, id: u64, task: &mut WatchTask, from: Resume) -> Next {
        let issuer = self.watching.interests.named(from.node).filter(|_| from.node != self.own_name());
        let (Some(issuer), Filter::Prefix(prefix)) = (issuer, &task.query.filter) else {
            return Next::Done(UserReply::Failed(Failure::TooOld));
        };
        task.asked = Some(self.call(id, issuer, Call::Watch { prefix: prefix.clone(), from }));
        Next::Pause(SILENCE)
    }

    fn own_name(&self) -> u32 {
        self.inside.as_ref().map_or(0, |inside| Resume::name_of(inside.overlay.me().incarnation))
    }

    /// A user of another node goes on with a token of this one.
    pub(in crate::node) fn watch_for(&mut self, now: Now, to: Contact, request: u64, prefix: Vec<u8>, from: Resume) {
        let filter = Filter::Prefix(prefix);
        if self.watching.by_filter.contains_key(&filter) && from.node == self.own_name() {
            let query = WatchQuery { filter, from: Some(from), wait: Span::ZERO, parked: None };
            let task = WatchTask { is_for_peer: true, ..WatchTask::new(query) };
            self.start_task(now, Whose::Peer { to, request }, Kind::Watch(Box::new(task)));
        } else {
            self.reply(to, request, Reply::Watched(None));
        }
    }
}

/// Of what was found whatever has changed since, the earliest first, and not more than fits into one answer.
fn changes_since(position: u64, found: BTreeMap<Key, Option<Record>>, feed: &Feed) -> Vec<(Key, Option<Record>)> {
    let is_news = |(key, _): &(Key, Option<Record>)| feed.changed(key).is_some_and(|at| at > position);
    let mut seen: Vec<(Key, Option<Record>)> = found.into_iter().filter(is_news).collect();
    seen.sort_by_key(|(key, _)| feed.changed(key));
    let mut bytes = 0;
    let fits = seen.iter().take_while(|(key, record)| {
        let is_first = bytes == 0;
        bytes += key.as_bytes().len() + record.as_ref().map_or(0, Record::user_bytes);
        is_first || bytes <= BYTES_MAX
    });
    let count = fits.count();
    seen.truncate(count);
    seen
}

fn version_of(record: Option<&Record>) -> Option<Version> {
    record.map(|record| record.version)
}

fn told_of(seen: Vec<(Key, Option<Record>)>, resume: Resume) -> Next {
    let seen = seen.into_iter().map(|(key, record)| Seen { key, record }).collect();
    Next::Done(UserReply::Watched(Watched { seen, resume }))
}
