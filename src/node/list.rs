//! One page of the keys of the whole ring.
//!
//! Of each slot the first member of its view that answers tells: it has coordinated, and so has accepted, all that was
//! decided, but for what others did while it was silent. A slot whose view changes meanwhile is asked for again.

use std::collections::{BTreeMap, BTreeSet};

use super::chord_node::ChordNode;
use super::job::Asker;
use super::message::{Call, Reply};
use super::task::{Next, Wake};
use crate::base::{Contact, Incarnation, Now, Span};
use crate::data::{Failure, Item, Key, ListQuery, Page, Slot, UserReply};
use crate::replication::SlotRun;

/// A listing in progress.
#[derive(Debug)]
pub(super) struct ListTask {
    query: ListQuery,
    // Only what this node holds.
    only_here: bool,
    covered: BTreeSet<Slot>,
    items: BTreeMap<Key, Item>,
    more: bool,
    asking: BTreeMap<u64, Contact>,
    // Asked in this round; asked again only after a pause.
    asked: BTreeSet<Incarnation>,
    // The owner of a slot is looked up, to be asked who holds those of which nobody is known.
    looking: Option<Slot>,
    // Owners looked up so far.
    rounds: usize,
    // This node's own store is at it.
    reading: bool,
}

/// Nodes asked at the same time.
const ASKED_MAX: usize = 32;
/// Between rounds, while slots are on their way.
const ROUND_PAUSE: Span = Span::millis(20);
/// Silence after which a node is asked again.
const ASK_AGAIN: Span = Span::secs(1);

impl ListTask {
    pub fn new(query: ListQuery, only_here: bool) -> Self {
        Self {
            query,
            only_here,
            covered: BTreeSet::new(),
            items: BTreeMap::new(),
            more: false,
            asking: BTreeMap::new(),
            asked: BTreeSet::new(),
            looking: None,
            rounds: 0,
            reading: false,
        }
    }

    pub fn timed_out(&self) -> Failure {
        let silent: Vec<String> = self.asking.values().map(|contact| contact.addr.to_string()).collect();
        Failure::Unavailable(if silent.is_empty() {
            "some keys have no holder that was found in time".to_owned()
        } else {
            format!("no answer from {}", silent.join(", "))
        })
    }

    fn add(&mut self, page: Page) {
        self.more |= page.more;
        for item in page.items {
            let newer = self.items.get(&item.key).is_none_or(|known| item.version > known.version);
            if newer {
                self.items.insert(item.key.clone(), item);
            }
        }
    }

    fn finish(&mut self) -> Page {
        let all = std::mem::take(&mut self.items);
        let more = self.more || all.len() > self.query.limit;
        Page { items: all.into_values().take(self.query.limit).collect(), more }
    }
}

impl ChordNode {
    pub(super) fn run_list(&mut self, now: Now, id: u64, list: &mut ListTask, wake: Wake) -> Next {
        match wake {
            Wake::Go => {
                for request in std::mem::take(&mut list.asking).into_keys() {
                    self.drop_call(request);
                }
                list.asked.clear();
                list.looking = None;
            }
            Wake::Reply { request, from, reply } => {
                list.asking.remove(&request);
                if let Reply::List { served, page } = reply {
                    self.cover(list, &served, page);
                    // What it was thought to hold and did not answer for: if it does not know who does, others must be
                    // asked.
                    let missed = self.forget_views_of(list, from);
                    self.ask_views(from, &missed);
                }
            }
            Wake::Undelivered { request, to } | Wake::Lost { request, to } => {
                list.asking.remove(&request);
                self.forget_views_of(list, to);
            }
            Wake::Found(found) => {
                list.looking = None;
                // It owns more slots than the one that was looked for. What belongs to this node it will hear of.
                if let Ok(answer) = found {
                    let unknown = self.unknown_to(list);
                    self.ask_views(answer.owner, &unknown);
                }
                // Those who are asked already are waited for.
                let waits = !list.asking.is_empty() || list.reading;
                return if waits { Next::Pause(ASK_AGAIN) } else { self.pause(ROUND_PAUSE) };
            }
            Wake::Listed { served, page } => {
                list.reading = false;
                self.cover(list, &served, page);
            }
            _ => {}
        }
        self.list_on(now, id, list)
    }

    fn list_on(&mut self, now: Now, id: u64, list: &mut ListTask) -> Next {
        let Some(inside) = &self.inside else { return Next::Pause(ROUND_PAUSE) };
        let me = inside.overlay.me();
        if !list.asked.contains(&me.incarnation) {
            list.asked.insert(me.incarnation);
            if !std::mem::replace(&mut list.reading, true) {
                self.list_here(now, Asker::Task(id), &list.query, list.only_here);
            }
        }
        if list.only_here {
            let page = (!list.reading).then(|| list.finish());
            return page.map_or(Next::Pause(ASK_AGAIN), |page| Next::Done(UserReply::Page(page)));
        }
        let Some(inside) = &mut self.inside else { return Next::Pause(ROUND_PAUSE) };
        let absent: Vec<Slot> = inside.params.space.all_slots().filter(|slot| !list.covered.contains(slot)).collect();
        if absent.is_empty() {
            return Next::Done(UserReply::Page(list.finish()));
        }
        let mut unknown = Vec::new();
        let mut holders = BTreeSet::new();
        for slot in absent {
            match inside.teller(slot) {
                Some(teller) if teller.incarnation != me.incarnation => {
                    holders.insert(teller);
                }
                // What this node tells of its own store is asked for.
                _ if list.reading && inside.copies.served(slot).is_some() => {}
                _ => unknown.push(slot),
            }
        }
        if !unknown.is_empty() && list.looking.is_none() && inside.overlay.standing().is_member() {
            // Not always the first: its owner may not know either.
            list.rounds += 1;
            let slot = unknown[list.rounds % unknown.len()];
            list.looking = Some(slot);
            inside.overlay.lookup(now.mono, id, inside.owner_target(slot));
        }
        for holder in holders {
            if list.asking.len() < ASKED_MAX && list.asked.insert(holder.incarnation) {
                let request = self.call(id, holder, Call::List { query: list.query.clone(), all: false });
                list.asking.insert(request, holder);
            }
        }
        if list.asking.is_empty() && list.looking.is_none() && !list.reading {
            self.pause(ROUND_PAUSE)
        } else {
            Next::Pause(ASK_AGAIN)
        }
    }

    fn cover(&mut self, list: &mut ListTask, served: &[(SlotRun, u64)], page: Page) {
        let Some(inside) = &self.inside else { return };
        list.covered.extend(served.iter().flat_map(|(run, _)| run.slots(inside.params.space)));
        list.add(page);
    }

    /// The slots that a node was thought to hold, and has not told of.
    fn forget_views_of(&mut self, list: &ListTask, holder: Contact) -> Vec<Slot> {
        let Some(inside) = &mut self.inside else { return Vec::new() };
        let absent = inside.params.space.all_slots().filter(|slot| !list.covered.contains(slot));
        let missed: Vec<Slot> = absent.filter(|slot| inside.teller(*slot) == Some(holder)).collect();
        for slot in &missed {
            inside.copies.forget(*slot);
        }
        missed
    }

    /// The slots that nobody has told of and whose holders are not known.
    fn unknown_to(&self, list: &ListTask) -> Vec<Slot> {
        let Some(inside) = &self.inside else { return Vec::new() };
        let absent = inside.params.space.all_slots().filter(|slot| !list.covered.contains(slot));
        absent.filter(|slot| inside.teller(*slot).is_none()).collect()
    }

    /// Asks a node who holds these slots. The answer is heard by the copies.
    fn ask_views(&mut self, of: Contact, slots: &[Slot]) {
        if let Some(inside) = &mut self.inside {
            inside.copies.ask_views(of, slots);
        }
    }
}
