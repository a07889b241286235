//! Every node is told which keys are watched here, one after the other around the ring.

use std::collections::{BTreeMap, BTreeSet};

use super::{FOLLOW_EVERY, Followed};
use crate::base::limits::{FILTER_BYTES_MAX, FILTERS_MAX, SUCCESSORS_MAX};
use crate::base::{Contact, Incarnation, Now, Span};
use crate::data::{Filter, UserReply};
use crate::node::chord_node::ChordNode;
use crate::node::message::{Call, Reply};
use crate::node::task::{Next, Wake};

/// Telling them, in progress.
#[derive(Debug)]
pub(in crate::node) struct FollowTask {
    // The latest feed whose keys are named.
    feeds: u64,
    named: BTreeSet<Incarnation>,
    waiting: Vec<Contact>,
    open: BTreeMap<u64, Contact>,
    reached: BTreeSet<Incarnation>,
    missed: bool,
}

/// Nodes told at the same time.
const ASKED_MAX: usize = 64;
/// Silence after which a node counts as unreachable.
const SILENCE: Span = Span::secs(2);
/// For how long a node remembers what it was told, beside the time until it is told again.
const LASTS: Span = Span::secs(10);

impl FollowTask {
    pub fn new(feeds: u64) -> Self {
        Self {
            feeds,
            named: BTreeSet::new(),
            waiting: Vec::new(),
            open: BTreeMap::new(),
            reached: BTreeSet::new(),
            missed: false,
        }
    }

    fn name(&mut self, contacts: impl IntoIterator<Item = Contact>) {
        for contact in contacts {
            if self.named.insert(contact.incarnation) {
                self.waiting.push(contact);
            }
        }
    }
}

impl ChordNode {
    pub(in crate::node) fn run_follow(&mut self, now: Now, id: u64, task: &mut FollowTask, wake: Wake) -> Next {
        match wake {
            Wake::Go if task.named.is_empty() => {
                if let Some(inside) = &self.inside {
                    task.named.insert(inside.overlay.me().incarnation);
                }
                task.name(self.neighbours());
            }
            // The pause is over: whoever has not answered by now will not.
            Wake::Go => {
                for request in std::mem::take(&mut task.open).into_keys() {
                    self.drop_call(request);
                }
            }
            Wake::Reply { request, from, reply } => {
                task.open.remove(&request);
                if let Reply::Following { number, neighbours } = reply {
                    task.name(neighbours);
                    task.reached.insert(from.incarnation);
                    let followed = Followed { contact: from, number };
                    let before = self.watching.followed.insert(from.incarnation, followed);
                    task.missed |= before.is_none_or(|before| before.number != number);
                }
            }
            Wake::Undelivered { request, .. } | Wake::Lost { request, .. } => {
                task.open.remove(&request);
            }
            _ => {}
        }
        while task.open.len() < ASKED_MAX
            && let Some(contact) = task.waiting.pop()
        {
            let call = Call::Follow { filters: self.filters(), lasts: self.lasts() };
            task.open.insert(self.call(id, contact, call), contact);
        }
        if !task.open.is_empty() {
            return Next::Pause(SILENCE);
        }
        if task.missed {
            self.missed(now);
        }
        self.followed(now, task.feeds, &task.reached);
        super::over()
    }

    /// Time is up before all were told.
    pub(in crate::node) fn on_followed(&mut self, now: Now, reply: &UserReply) {
        if matches!(reply, UserReply::Failed(_)) {
            self.watching.is_following = false;
            self.watching.follow_at = now.mono + FOLLOW_EVERY;
            // Whatever was found out so far is forgotten.
            self.missed(now);
            self.arm_watch();
        }
    }

    /// Those right around this node.
    pub(in crate::node) fn neighbours(&self) -> Vec<Contact> {
        let overlay = self.inside.as_ref().map(|inside| &inside.overlay);
        let all =
            overlay.into_iter().flat_map(|of| of.predecessor().into_iter().chain(of.successors().iter().copied()));
        all.take(SUCCESSORS_MAX).collect()
    }

    /// What is watched here; where that is too much to be told, everything.
    fn filters(&self) -> Vec<Filter> {
        let all = || self.watching.feeds.values().map(|of| &of.feed.filter);
        let bytes: usize = all().map(|filter| filter.bytes().len()).sum();
        if all().count() > FILTERS_MAX || bytes > FILTER_BYTES_MAX {
            return vec![Filter::Prefix(Vec::new())];
        }
        all().cloned().collect()
    }

    fn lasts(&self) -> Span {
        let many = u64::try_from(self.watching.followed.len()).unwrap_or(u64::MAX);
        LASTS + FOLLOW_EVERY.max(super::FOLLOWED_EACH * many) * 5
    }
}
