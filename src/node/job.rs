//! What the store was asked for, and who waits for it.

use std::collections::BTreeMap;

use super::chord_node::{ChordNode, NodeTimer};
use super::io::Output;
use super::message::{KvReply, Message, Reply};
use super::task::Wake;
use crate::base::{Contact, Now, Span};
use crate::data::{Command, Done, Gauge, ListQuery, Place, Slot, Work};
use crate::replication::{Execution, SlotRun};

/// Jobs of the store that are not done.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    waiting: BTreeMap<u64, Waiter>,
    next: u64,
    // Expired records are being removed: until that is done nobody needs to be woken for them.
    collecting: bool,
    /// How the store stood after the latest one.
    pub gauge: Gauge,
}

impl Jobs {
    pub fn new(gauge: Gauge) -> Self {
        Self { gauge, ..Self::default() }
    }
}

/// A job in progress.
#[derive(Debug)]
enum Waiter {
    /// The holdings wait.
    Holdings { ticket: u64 },
    /// A command on a key: for whom, and the slot with the epoch in which it was held when a read was asked for.
    Command { asker: Asker, read_in: Option<(Slot, u64)> },
    /// A page, of slots that were held in these epochs.
    List { asker: Asker, served: Vec<(SlotRun, u64)> },
    /// Expired records are removed.
    Expired,
}

/// For whom something is done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// A task of this node.
    Task(u64),
    /// A peer.
    Peer {
        /// Who.
        to: Contact,
        /// Its number for the call.
        request: u64,
    },
    /// Nobody waits for it.
    Nobody,
}

/// Expired records removed in one go.
const EXPIRED_BATCH: usize = 256;
/// The longest wait for an expiry: wall clocks jump.
const EXPIRY_WAIT_MAX: Span = Span::secs(60);
/// Between two tries while the store takes no removals either.
const EXPIRY_PAUSE_IN_TROUBLE: Span = Span::secs(1);

impl ChordNode {
    fn start_job(&mut self, waiter: Waiter, work: Work) {
        self.jobs.next += 1;
        self.jobs.waiting.insert(self.jobs.next, waiter);
        self.outputs.push_back(Output::Store { job: self.jobs.next, work });
    }

    pub(super) fn store_for_holdings(&mut self, ticket: u64, work: Work) {
        self.start_job(Waiter::Holdings { ticket }, work);
    }

    /// Lets the store run a command if this node holds the slot; the asker hears of it. `Some`: it does not run, for
    /// this reason.
    pub(super) fn run_here(&mut self, now: Now, asker: Asker, place: &Place, command: &Command) -> Option<KvReply> {
        match self.inside.as_mut()?.execute(now, place, command) {
            Execution::Busy => Some(KvReply::Busy),
            Execution::Elsewhere(view) => Some(KvReply::Elsewhere(view)),
            Execution::Here(work) => {
                let epoch = match &work {
                    Work::Run { version, .. } if !command.is_write() => Some(version.epoch),
                    _ => None,
                };
                self.start_job(Waiter::Command { asker, read_in: epoch.map(|epoch| (place.slot, epoch)) }, work);
                None
            }
        }
    }

    /// Lists the keys of the slots that this node serves; the asker hears of it.
    pub(super) fn list_here(&mut self, now: Now, asker: Asker, query: &ListQuery) {
        let Some(inside) = &self.inside else { return };
        let served = inside.served();
        let space = inside.params.space;
        let slots = served.iter().flat_map(|(run, _)| run.slots(space)).collect();
        self.start_job(Waiter::List { asker, served }, Work::List { query: query.clone(), slots, now: now.wall });
    }

    /// The store has done something.
    pub(super) fn on_stored(&mut self, now: Now, job: u64, done: Done, gauge: Option<Gauge>) {
        self.jobs.gauge = gauge.unwrap_or(self.jobs.gauge);
        match self.jobs.waiting.remove(&job) {
            Some(Waiter::Holdings { ticket }) => {
                if let Some(inside) = &mut self.inside {
                    match &mut inside.copies {
                        Some(copies) => copies.stored(now.mono, ticket, done),
                        None => inside.holdings.stored(now.mono, ticket, done),
                    }
                }
            }
            Some(Waiter::Command { asker, read_in }) => {
                let reply = self.after_command(read_in, done);
                self.tell(now, asker, Wake::Ran(reply));
            }
            Some(Waiter::List { asker, served }) => {
                let page = match done {
                    Done::Listed(page) => Some((served, page)),
                    _ => None,
                };
                let (served, page) = page.map(|(served, page)| (self.served_since(&served), page)).unwrap_or_default();
                self.tell(now, asker, Wake::Listed { served, page });
            }
            Some(Waiter::Expired) => match done {
                Done::Expired(due) => {
                    // Those of others are their matter.
                    let pause = if self.remove_expired(now, due) { Span::millis(10) } else { EXPIRY_PAUSE_IN_TROUBLE };
                    self.collect_expired_in(now, pause);
                }
                Done::Collected(EXPIRED_BATCH) => self.collect_expired_in(now, Span::millis(1)),
                Done::Failed(_) => self.collect_expired_in(now, EXPIRY_PAUSE_IN_TROUBLE),
                _ => self.jobs.collecting = false,
            },
            None => {}
        }
    }

    fn after_command(&self, read_in: Option<(Slot, u64)>, done: Done) -> KvReply {
        let serves = |(slot, epoch)| self.inside.as_ref().is_some_and(|i| i.serves_still(slot, epoch));
        match done {
            // The slot has gone elsewhere, and what was read may have gone before.
            _ if !read_in.is_none_or(serves) => KvReply::Busy,
            Done::Ran(outcome) => KvReply::Done(outcome),
            Done::Failed(trouble) => KvReply::Failed(trouble),
            _ => KvReply::Busy,
        }
    }

    /// Of the slots that were served then, those that have been served ever since.
    fn served_since(&self, then: &[(SlotRun, u64)]) -> Vec<(SlotRun, u64)> {
        let Some(inside) = &self.inside else { return Vec::new() };
        let still = |(run, epoch): &(SlotRun, u64)| {
            run.slots(inside.params.space).all(|slot| inside.serves_still(slot, *epoch))
        };
        if then.iter().all(still) {
            return then.to_vec();
        }
        let each = then.iter().flat_map(|(run, epoch)| run.slots(inside.params.space).map(move |slot| (slot, *epoch)));
        crate::replication::runs_of(each.filter(|(slot, epoch)| inside.serves_still(*slot, *epoch)))
    }

    fn tell(&mut self, now: Now, asker: Asker, wake: Wake) {
        match (asker, wake) {
            (Asker::Task(id), wake) => self.wake(now, id, wake),
            (Asker::Peer { to, request }, Wake::Ran(reply)) => self.reply(to, request, Reply::Kv(reply)),
            (Asker::Peer { to, request }, Wake::Listed { served, page }) => {
                self.reply(to, request, Reply::List { served, page });
            }
            (Asker::Peer { .. } | Asker::Nobody, _) => {}
        }
    }

    pub(super) fn reply(&mut self, to: Contact, request: u64, reply: Reply) {
        self.outputs.push_back(Output::Send { to, message: Message::Reply { request, reply } });
    }

    // ----- expiry -----

    pub(super) fn collect_expired(&mut self, now: Now) {
        if self.inside.is_some() {
            self.jobs.collecting = true;
            // Also of frozen slots: who has them by now removes them too.
            let (now, limit) = (now.wall, EXPIRED_BATCH);
            let work = match self.copies() {
                Some(_) => Work::FindExpired { now, limit },
                None => Work::CollectExpired { now, limit },
            };
            self.start_job(Waiter::Expired, work);
        }
    }

    fn collect_expired_in(&mut self, now: Now, wait: Span) {
        self.timers.set(NodeTimer::Expire, now.mono + wait);
    }

    pub(super) fn arm_expiry(&mut self, now: Now) {
        let Some(at) = self.jobs.gauge.next_expiry.filter(|_| !self.jobs.collecting) else { return };
        let wait = Span::millis(at.0.saturating_sub(now.wall.0).max(1)).min(EXPIRY_WAIT_MAX);
        self.timers.set_no_later(NodeTimer::Expire, now.mono + wait);
    }
}
