//! Watching keys: what the users of this node wait for, and what other nodes wait for here.
//!
//! ```text
//!   user ── GET /v1/watch ──▶ poll ──▶ feed: versions of these keys, and in which order they changed
//!                               │        ▲ hints that a key may have changed
//!                               ▼        │
//!                     a read of each     follow: every 2 s each node is told which keys are watched here
//!                     key that may              │                         ▲
//!                     have changed              ▼                         │ notices
//!                                        interests at the others: whoever coordinates a change tells at once,
//!                                        whoever has only accepted it a second later
//! ```
//!
//! Every change that is chosen was accepted by a majority of a slot's members, so that it is heard of although one of them
//! has died meanwhile. Notices are numbered: whoever misses one, or meets a node that it did not follow before, asks all
//! for their keys and compares. What a user is told is what a read says, never what a notice says.

mod feed;
mod follow;
mod interests;
mod listing;
mod poll;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::feed::Feed;
pub(super) use self::follow::FollowTask;
use self::interests::Interests;
pub(super) use self::listing::FeedTask;
pub(super) use self::poll::WatchTask;
use super::chord_node::{ChordNode, NodeTimer};
use super::io::Output;
use super::message::{Message, Reply};
use super::task::{Kind, Next, Wake, Whose};
use crate::base::{Contact, Incarnation, Now, Rng, Span, Time};
use crate::data::{Filter, Hint, Key, UserReply};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watching {
    feeds: BTreeMap<u64, Watched>,
    by_filter: BTreeMap<Filter, u64>,
    // Feeds of prefixes.
    wide: BTreeSet<u64>,
    next_feed: u64,
    parked: BTreeMap<u64, Parked>,
    parked_of: BTreeSet<(u64, u64)>,
    parked_until: BTreeSet<(Time, u64)>,
    next_parked: u64,
    // Nodes that are told what is watched here, and the number of their latest notice.
    followed: BTreeMap<Incarnation, Followed>,
    // When they are told again, unless they are just being told.
    follow_at: Time,
    is_following: bool,
    interests: Interests,
}

/// A node that tells of changes.
#[derive(Debug)]
struct Followed {
    contact: Contact,
    // Of its latest notice.
    number: u64,
}

/// A feed and what becomes of it.
#[derive(Debug)]
struct Watched {
    feed: Feed,
    stage: Stage,
    // Something may have been missed.
    list_again: bool,
    // Listings that failed, one after the other, and before when there is no other.
    failures: u32,
    not_before: Time,
    // Tasks that wait for its beginning.
    waiting: Vec<u64>,
    used: Time,
}

#[derive(Debug)]
enum Stage {
    /// Not all nodes know of it yet.
    Following,
    /// Its keys are asked for.
    Beginning,
    /// It is usable.
    Ready,
    /// The same, and its keys are asked for once more.
    Listing,
}

impl Watched {
    fn is_usable(&self) -> bool {
        matches!(self.stage, Stage::Ready | Stage::Listing)
    }
}

/// A request that was put off.
#[derive(Debug)]
struct Parked {
    feed: u64,
    until: Time,
    is_resumed: bool,
}

impl Parked {
    /// When it is told to come again, or was told in vain.
    fn due(&self) -> Time {
        if self.is_resumed { self.until + COME_AGAIN } else { self.until }
    }
}

/// How often others are told what is watched here; more seldom where they are many.
const FOLLOW_EVERY: Span = Span::secs(2);
const FOLLOWED_EACH: Span = Span::millis(20);
/// For so long at most a node is told of changes without having asked again.
const FOLLOWED_MAX: Span = Span::secs(600);
/// What nobody has asked about for so long is watched no more.
const KEPT_FOR: Span = Span::secs(120);
/// After a listing that did not end.
const LIST_AGAIN: Span = Span::secs(1);
/// Requests that may be put off.
const PARKED_MAX: usize = 16_384;
/// A request that was told to come again has so long for it.
const COME_AGAIN: Span = Span::secs(30);
/// Keys that may be watched by prefix, and their bytes, and different things that may be watched.
pub const KEYS_MAX: usize = 65_536;
const BYTES_MAX: usize = 8 << 20;
const FEEDS_MAX: usize = 1_024;

impl Watching {
    /// What watches these keys; begun if there is nothing yet. `None`: too much is watched.
    fn feed_for(&mut self, now: Time, filter: &Filter, rng: &mut Rng) -> Option<u64> {
        if let Some(feed) = self.by_filter.get(filter) {
            return Some(*feed);
        }
        if self.feeds.len() >= FEEDS_MAX {
            return None;
        }
        self.next_feed += 1;
        let feed = Feed::new(filter.clone(), rng.next_u64());
        let stage = Stage::Following;
        self.feeds.insert(
            self.next_feed,
            Watched { feed, stage, list_again: false, failures: 0, not_before: now, waiting: Vec::new(), used: now },
        );
        self.by_filter.insert(filter.clone(), self.next_feed);
        if matches!(filter, Filter::Prefix(_)) {
            self.wide.insert(self.next_feed);
        }
        Some(self.next_feed)
    }

    fn end_feed(&mut self, id: u64) -> Vec<u64> {
        let Some(of) = self.feeds.remove(&id) else { return Vec::new() };
        self.by_filter.remove(&of.feed.filter);
        self.wide.remove(&id);
        of.waiting
    }

    fn is_too_much(&self) -> bool {
        let (keys, bytes) =
            self.feeds.values().fold((0, 0), |(keys, bytes), of| (keys + of.feed.len(), bytes + of.feed.bytes()));
        keys > KEYS_MAX || bytes > BYTES_MAX
    }

    /// Whether anybody waits for changes, here or elsewhere.
    fn is_any(&self) -> bool {
        !self.feeds.is_empty() || !self.interests.is_empty()
    }

    /// `None`: too many are put off.
    fn park(&mut self, feed: u64, until: Time) -> Option<u64> {
        if self.parked.len() >= PARKED_MAX {
            return None;
        }
        self.next_parked += 1;
        self.parked.insert(self.next_parked, Parked { feed, until, is_resumed: false });
        self.parked_of.insert((feed, self.next_parked));
        self.parked_until.insert((until, self.next_parked));
        Some(self.next_parked)
    }

    fn unpark(&mut self, parked: u64) -> Option<Parked> {
        let of = self.parked.remove(&parked)?;
        self.parked_of.remove(&(of.feed, parked));
        self.parked_until.remove(&(of.due(), parked));
        Some(of)
    }

    /// Requests that wait for this feed, to be asked again.
    fn resume_all(&mut self, feed: u64) -> Vec<u64> {
        let all: Vec<u64> = self.parked_of.range((feed, 0)..=(feed, u64::MAX)).map(|(_, parked)| *parked).collect();
        all.into_iter().filter(|parked| self.resumes(*parked)).collect()
    }

    /// Whether a request was not told yet to come again.
    fn resumes(&mut self, parked: u64) -> bool {
        let Some(of) = self.parked.get_mut(&parked).filter(|of| !of.is_resumed) else { return false };
        self.parked_until.remove(&(of.due(), parked));
        of.is_resumed = true;
        self.parked_until.insert((of.due(), parked));
        true
    }

    /// Feeds that are about a key.
    fn about(&self, key: &Key) -> Vec<u64> {
        let exact = self.by_filter.get(&Filter::Key(key.clone()));
        let is_about = |feed: &&u64| self.feeds.get(feed).is_some_and(|of| of.feed.filter.is_about(key));
        exact.into_iter().chain(self.wide.iter().filter(is_about)).copied().collect()
    }

    fn next(&self) -> Option<Time> {
        let feeds = self.feeds.values().map(|of| of.used + KEPT_FOR);
        let parked = self.parked_until.first().map(|(at, _)| *at);
        let follow = (!self.is_following && !self.feeds.is_empty()).then_some(self.follow_at);
        let full = self.is_too_much().then(Time::default);
        feeds.chain(parked).chain(follow).chain(full).chain(self.interests.next()).min()
    }
}

impl ChordNode {
    /// Others are told what is watched here, requests that have waited long enough are to be asked again, and what nobody
    /// watches any more is forgotten.
    pub(super) fn watch_due(&mut self, now: Now) {
        self.watching.interests.expire(now.mono);
        self.tell_later(now.mono);
        while let Some((at, parked)) = self.watching.parked_until.first().copied().filter(|(at, _)| *at <= now.mono) {
            if self.watching.resumes(parked) {
                self.outputs.push_back(Output::Resume(parked));
            } else {
                self.watching.parked_until.remove(&(at, parked));
                self.watching.unpark(parked);
            }
        }
        if self.watching.is_too_much() {
            let largest = self.watching.feeds.iter().max_by_key(|(_, of)| of.feed.bytes()).map(|(id, _)| *id);
            if let Some(id) = largest {
                self.give_up_feed(now, id);
            }
        }
        let parked_of = &self.watching.parked_of;
        let is_idle = |(id, of): (&u64, &Watched)| {
            let is_parked = parked_of.range((*id, 0)..=(*id, u64::MAX)).next().is_some();
            (of.used + KEPT_FOR <= now.mono && !is_parked).then_some(*id)
        };
        let idle: Vec<u64> = self.watching.feeds.iter().filter_map(is_idle).collect();
        for feed in idle {
            self.watching.end_feed(feed);
        }
        for of in self.watching.feeds.values_mut().filter(|of| of.used + KEPT_FOR <= now.mono) {
            of.used = now.mono;
        }
        if self.watching.follow_at <= now.mono {
            self.follow(now);
        }
        self.arm_watch();
    }

    /// Tells what was accepted here long enough ago, or is too much to be kept.
    fn tell_later(&mut self, now: Time) {
        while let Some((key, hint)) = self.watching.interests.due(now) {
            self.watching.interests.tell(&key, hint);
            self.take_hint(&key, hint);
        }
    }

    /// Looks who waits for what, and when something is to be done for it.
    pub(super) fn arm_watch(&mut self) {
        let is_any = self.watching.is_any();
        if let Some(inside) = &mut self.inside {
            inside.copies.tell_changes(is_any);
        }
        if let Some(at) = self.watching.next() {
            self.timers.set(NodeTimer::Watch, at);
        }
    }

    /// Tells every node what is watched here.
    fn follow(&mut self, now: Now) {
        if self.watching.feeds.is_empty() || std::mem::replace(&mut self.watching.is_following, true) {
            return;
        }
        let task = FollowTask::new(self.watching.next_feed);
        self.start_task(now, Whose::Watching, Kind::Follow(task));
    }

    /// All nodes that were reached know which keys are watched here, those of feeds up to this one.
    fn followed(&mut self, now: Now, feeds: u64, reached: &BTreeSet<Incarnation>) {
        self.watching.followed.retain(|node, _| reached.contains(node));
        self.watching.is_following = false;
        let many = u64::try_from(reached.len()).unwrap_or(u64::MAX);
        self.watching.follow_at = now.mono + FOLLOW_EVERY.max(FOLLOWED_EACH * many);
        let begun: Vec<u64> = self.watching.feeds.range(..=feeds).map(|(id, _)| *id).collect();
        for id in begun {
            self.begin_feed(now, id);
        }
        // Others were begun meanwhile.
        if self.watching.feeds.range(feeds + 1..).next().is_some() {
            self.follow(now);
        }
        self.arm_watch();
    }

    fn begin_feed(&mut self, now: Now, id: u64) {
        let Some(of) = self.watching.feeds.get_mut(&id) else { return };
        match (&of.stage, &of.feed.filter) {
            (Stage::Following, Filter::Key(key)) => {
                // What is there says the first read.
                let key = key.clone();
                of.feed.hint(&key, Hint::Unknown);
                of.stage = Stage::Ready;
                for task in std::mem::take(&mut of.waiting) {
                    self.wake(now, task, Wake::Go);
                }
            }
            (Stage::Following | Stage::Ready, Filter::Prefix(_)) if now.mono < of.not_before => {}
            (Stage::Following, Filter::Prefix(_)) => {
                of.stage = Stage::Beginning;
                of.list_again = false;
                self.list_feed(now, id);
            }
            (Stage::Ready, _) if of.list_again => self.list_again(now, id),
            _ => {}
        }
    }

    /// Something may have been missed.
    fn missed(&mut self, now: Now) {
        let all: Vec<u64> = self.watching.feeds.keys().copied().collect();
        for id in all {
            let Some(of) = self.watching.feeds.get_mut(&id) else { continue };
            of.list_again = true;
            if matches!(of.stage, Stage::Ready) && of.not_before <= now.mono {
                self.list_again(now, id);
            }
        }
    }

    fn list_again(&mut self, now: Now, id: u64) {
        let Some(of) = self.watching.feeds.get_mut(&id) else { return };
        of.list_again = false;
        match of.feed.filter.clone() {
            Filter::Key(key) => self.take_hint(&key, Hint::Unknown),
            Filter::Prefix(_) => {
                of.stage = Stage::Listing;
                self.list_feed(now, id);
            }
        }
    }

    /// Asks for the keys of a feed.
    fn list_feed(&mut self, now: Now, id: u64) {
        let Some(of) = self.watching.feeds.get_mut(&id) else { return };
        of.feed.begin_listing();
        let task = FeedTask::new(id, of.feed.filter.bytes().to_vec());
        self.start_task(now, Whose::Feed(id), Kind::Feed(task));
    }

    /// The keys of a feed were told, or not.
    pub(super) fn on_feed_listed(&mut self, now: Now, id: u64, reply: &UserReply) {
        let Some(of) = self.watching.feeds.get_mut(&id) else { return };
        let is_beginning = matches!(of.stage, Stage::Beginning);
        if matches!(reply, UserReply::Failed(_)) {
            // They are asked for again when all nodes have been told again.
            of.stage = if is_beginning { Stage::Following } else { Stage::Ready };
            of.list_again = true;
            of.not_before = now.mono + LIST_AGAIN * (1 << of.failures.min(5));
            of.failures += 1;
            self.watching.follow_at = self.watching.follow_at.min(of.not_before);
            // What was told already is to be read.
            self.resume_watchers(id);
            self.arm_watch();
            return;
        }
        of.stage = Stage::Ready;
        of.failures = 0;
        if is_beginning {
            of.feed.begin();
            for task in std::mem::take(&mut of.waiting) {
                self.wake(now, task, Wake::Go);
            }
        } else {
            self.resume_watchers(id);
        }
        if self.watching.feeds.get(&id).is_some_and(|of| of.list_again) {
            self.list_again(now, id);
        }
    }

    /// More is to be watched than there is room for.
    fn give_up_feed(&mut self, now: Now, id: u64) {
        for task in self.watching.end_feed(id) {
            self.wake(now, task, Wake::TooMuch);
        }
        self.resume_watchers(id);
    }

    fn resume_watchers(&mut self, feed: u64) {
        let parked = self.watching.resume_all(feed);
        self.outputs.extend(parked.into_iter().map(Output::Resume));
    }

    /// A key may have changed.
    fn take_hint(&mut self, key: &Key, hint: Hint) {
        for feed in self.watching.about(key) {
            let of = self.watching.feeds.get_mut(&feed);
            if of.is_some_and(|of| of.feed.hint(key, hint)) {
                self.resume_watchers(feed);
                let is_full = |of: &Watched| of.feed.len() > KEYS_MAX || of.feed.bytes() > BYTES_MAX;
                if self.watching.feeds.get(&feed).is_some_and(is_full) {
                    // It is given up once nothing is under way.
                    self.arm_watch();
                }
            }
        }
    }

    // ----- what others watch, and what they tell -----

    /// A key has changed here, or may have.
    pub(super) fn on_changed(&mut self, now: Now, key: Key, hint: Hint, coordinated: bool) {
        if coordinated {
            self.watching.interests.tell(&key, hint);
            self.take_hint(&key, hint);
        } else {
            let is_first = self.watching.interests.tell_later(now.mono, key, hint);
            self.tell_later(Time::default());
            if is_first {
                self.arm_watch();
            }
        }
    }

    /// Another node wants to hear of changes.
    pub(super) fn follow_here(&mut self, now: Now, from: Contact, filters: Vec<Filter>, lasts: Span) -> Reply {
        let until = now.mono + lasts.min(FOLLOWED_MAX);
        let number = self.watching.interests.want(from, filters, until, &mut self.rng);
        self.arm_watch();
        Reply::Following { number, neighbours: self.neighbours() }
    }

    /// Keys may have changed at another node.
    pub(super) fn on_changed_elsewhere(&mut self, now: Now, from: Contact, number: u64, hints: Vec<(Key, Hint)>) {
        if let Some(followed) = self.watching.followed.get_mut(&from.incarnation) {
            let before = std::mem::replace(&mut followed.number, number);
            if before.wrapping_add(1) != number {
                self.missed(now);
            }
        }
        for (key, hint) in hints {
            self.take_hint(&key, hint);
        }
    }

    /// What is here may be older than what was told.
    pub(super) fn watchers_have_missed(&mut self, now: Now) {
        self.watching.interests.skip();
        self.missed(now);
    }

    /// Sends what others are to hear of.
    pub(super) fn send_notices(&mut self) {
        for (to, number, hints) in self.watching.interests.notices() {
            self.outputs.push_back(Output::Send { to, message: Message::Notice { number, hints } });
        }
    }
}

/// What the node did for itself is done; nobody reads the answer.
fn over() -> Next {
    Next::Done(UserReply::Watched(crate::data::Watched::default()))
}
