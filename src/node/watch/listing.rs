//! The keys of a feed as every node that has a copy of them tells. The members of a slot need not have the same: one that was
//! silent for a while may have missed what the others did. So all are asked, and whatever not a majority tells alike is
//! read.

use std::collections::BTreeMap;

use super::Stage;
use crate::base::limits::LIST_LIMIT_MAX;
use crate::base::{Contact, Now, Span};
use crate::data::{Failure, ListQuery, Page, UserReply};
use crate::node::chord_node::ChordNode;
use crate::node::job::Asker;
use crate::node::message::{Call, Reply};
use crate::node::task::{Next, Wake};
use crate::replication::SlotRun;

/// Asking them, in progress.
#[derive(Debug)]
pub(in crate::node) struct FeedTask {
    feed: u64,
    prefix: Vec<u8>,
    is_begun: bool,
    open: BTreeMap<u64, Contact>,
    // This node's own store is at it.
    reads: bool,
    // By how many each slot was told.
    told: Vec<u8>,
}

/// Silence after which a node is not waited for.
const SILENCE: Span = Span::secs(2);

impl FeedTask {
    pub fn new(feed: u64, prefix: Vec<u8>) -> Self {
        Self { feed, prefix, is_begun: false, open: BTreeMap::new(), reads: false, told: Vec::new() }
    }

    fn query(&self, after: Option<Vec<u8>>) -> ListQuery {
        ListQuery { prefix: self.prefix.clone(), after, limit: LIST_LIMIT_MAX }
    }
}

impl ChordNode {
    pub(in crate::node) fn run_feed(&mut self, now: Now, id: u64, task: &mut FeedTask, wake: Wake) -> Next {
        if !self.watching.feeds.contains_key(&task.feed) {
            return super::over();
        }
        match wake {
            Wake::Go if !std::mem::replace(&mut task.is_begun, true) => {
                let slots = self.inside.as_ref().map_or(0, |inside| inside.params.space.slots());
                task.told = vec![0; slots as usize];
                let nodes: Vec<Contact> = self.watching.followed.values().map(|of| of.contact).collect();
                for node in nodes {
                    self.ask_for_feed(id, task, node, None);
                }
                task.reads = true;
                self.list_here(now, Asker::Task(id), &task.query(None), true);
            }
            // Whoever has not answered by now will not.
            Wake::Go => {
                for request in std::mem::take(&mut task.open).into_keys() {
                    self.drop_call(request);
                }
            }
            Wake::Reply { request, from, reply: Reply::List { served, page } } => {
                task.open.remove(&request);
                if let Some(after) = self.take_page(now, task, &served, &page) {
                    self.ask_for_feed(id, task, from, Some(after));
                }
            }
            Wake::Reply { request, .. } | Wake::Undelivered { request, .. } | Wake::Lost { request, .. } => {
                task.open.remove(&request);
            }
            Wake::Listed { served, page } => {
                let after = self.take_page(now, task, &served, &page);
                task.reads = after.is_some();
                if after.is_some() {
                    self.list_here(now, Asker::Task(id), &task.query(after), true);
                }
            }
            _ => {}
        }
        if !task.open.is_empty() || task.reads {
            return Next::Pause(SILENCE);
        }
        let enough = self.told_by_enough();
        if task.told.iter().any(|count| *count < enough) {
            let text = "too few nodes told which keys there are".to_owned();
            return Next::Done(UserReply::Failed(Failure::Unavailable(text)));
        }
        if let Some(of) = self.watching.feeds.get_mut(&task.feed) {
            of.feed.end_listing(enough);
        }
        super::over()
    }

    fn ask_for_feed(&mut self, id: u64, task: &mut FeedTask, node: Contact, after: Option<Vec<u8>>) {
        let call = Call::List { query: task.query(after), all: true };
        task.open.insert(self.call(id, node, call), node);
    }

    /// Takes what a node has told; after which key it is to go on.
    fn take_page(&mut self, now: Now, task: &mut FeedTask, served: &[(SlotRun, u64)], page: &Page) -> Option<Vec<u8>> {
        let space = self.inside.as_ref()?.params.space;
        let of = self.watching.feeds.get_mut(&task.feed)?;
        let is_beginning = matches!(of.stage, Stage::Beginning);
        page.items.iter().for_each(|item| of.feed.told(item, is_beginning));
        if is_beginning && self.watching.is_too_much() {
            self.give_up_feed(now, task.feed);
            return None;
        }
        let next = page.items.last().filter(|_| page.more).map(|item| item.key.as_bytes().to_vec());
        if next.is_none() {
            // What it has served up to its last page.
            for slot in served.iter().flat_map(|(run, _)| run.slots(space)) {
                if let Some(count) = task.told.get_mut(slot.0 as usize) {
                    *count = count.saturating_add(1);
                }
            }
        }
        next
    }

    /// So many members of a slot are a majority.
    fn told_by_enough(&self) -> u8 {
        let nodes = self.watching.followed.len() + 1;
        let copies = self.inside.as_ref().map_or(1, |inside| inside.params.replicas).min(nodes);
        u8::try_from(copies / 2 + 1).unwrap_or(u8::MAX)
    }
}
