//! What the store was asked for, and who waits for it.

use std::collections::BTreeMap;

use super::chord_node::{ChordNode, NodeTimer};
use super::io::Output;
use super::message::{Message, Reply};
use super::task::Wake;
use crate::base::{Contact, Now, Span, Time};
use crate::data::register::grant;
use crate::data::{Answer, Ask, Done, Gauge, ListQuery, Outcome, Place, Slot, Vote, Work};
use crate::replication::SlotRun;

/// Jobs of the store that are not done.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    waiting: BTreeMap<u64, Waiter>,
    next: u64,
    // Expired records are being removed: until that is done nobody needs to be woken for them.
    collecting: bool,
    // Since when there are expired records here that others should remove.
    others_expired: Option<Time>,
    /// How the store stood after the latest one.
    pub gauge: Gauge,
}

impl Jobs {
    pub fn new(gauge: Gauge) -> Self {
        Self { gauge, ..Self::default() }
    }

    /// Whether others should have removed their expired records by now. Then they have as long again.
    pub fn is_late(&mut self, now: Time, are_any: bool) -> bool {
        let since = self.others_expired.filter(|_| are_any).unwrap_or(now);
        let is_late = now.since(since) >= OTHERS_LATE;
        self.others_expired = are_any.then_some(if is_late { now } else { since });
        is_late
    }
}

/// A job in progress.
#[derive(Debug)]
enum Waiter {
    /// The copies wait.
    Copies { ticket: u64 },
    /// A page, of slots that were held in these epochs.
    List { asker: Asker, served: Vec<(SlotRun, u64)> },
    /// What is under a key. A copy of it was the latest at that time, as far as that is known.
    Peek { asker: Asker, slot: Slot, until: Option<Time> },
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
/// So long an expired record of others is left to them.
const OTHERS_LATE: Span = Span::secs(3);
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

    pub(super) fn store_for_copies(&mut self, ticket: u64, work: Work) {
        self.start_job(Waiter::Copies { ticket }, work);
    }

    /// Lists the keys of the slots that this node is to tell of, or of all that it serves; the asker hears of it.
    pub(super) fn list_here(&mut self, now: Now, asker: Asker, query: &ListQuery, all: bool) {
        let Some(inside) = &self.inside else { return };
        let served = inside.served(all);
        let space = inside.params.space;
        let slots = served.iter().flat_map(|(run, _)| run.slots(space)).collect();
        self.start_job(Waiter::List { asker, served }, Work::List { query: query.clone(), slots, now: now.wall });
    }

    /// Looks what this node has under a key, old or new; the asker hears of it. False if it has no whole copy of the slot.
    pub(super) fn peek_here(&mut self, now: Now, asker: Asker, place: &Place) -> bool {
        let Some(inside) = self.inside.as_ref().filter(|inside| inside.copies.has_copy(place.slot)) else {
            return false;
        };
        // A peek promises nothing, whatever the view.
        let grant = grant(0, inside.overlay.me().incarnation);
        let vote = Vote { place: place.clone(), grant, ask: Ask::Peek };
        let age = inside.copies.age(now.mono, place.slot);
        let until = age.map(|age| Time(now.mono.0.saturating_sub(age.0)));
        self.start_job(Waiter::Peek { asker, slot: place.slot, until }, Work::Vote(Box::new(vote)));
        true
    }

    /// The store has done something.
    pub(super) fn on_stored(&mut self, now: Now, job: u64, done: Done, gauge: Option<Gauge>) {
        self.jobs.gauge = gauge.unwrap_or(self.jobs.gauge);
        match self.jobs.waiting.remove(&job) {
            Some(Waiter::Copies { ticket }) => {
                if let Some(inside) = &mut self.inside {
                    inside.copies.stored(now.mono, ticket, done);
                }
            }
            Some(Waiter::List { asker, served }) => {
                let page = match done {
                    Done::Listed(page) => Some((served, page)),
                    _ => None,
                };
                let (served, page) = page.map(|(served, page)| (self.served_since(&served), page)).unwrap_or_default();
                self.tell(now, asker, Wake::Listed { served, page });
            }
            Some(Waiter::Peek { asker, slot, until }) => {
                // Meanwhile the slot may have been dropped, and nothing found that was there.
                let is_here = self.copies().is_some_and(|copies| copies.has_copy(slot));
                let told = peeked(now, done).filter(|_| is_here);
                let age = until.map(|until| now.mono.since(until));
                self.tell(now, asker, Wake::Peeked(told.map(|(of, is_doubtful)| (of, age.filter(|_| !is_doubtful)))));
            }
            Some(Waiter::Expired) => match done {
                Done::Expired(due) => {
                    // Those of others are their matter.
                    let pause = if self.remove_expired(now, due) { Span::millis(10) } else { EXPIRY_PAUSE_IN_TROUBLE };
                    self.collect_expired_in(now, pause);
                }
                Done::Failed(_) => self.collect_expired_in(now, EXPIRY_PAUSE_IN_TROUBLE),
                _ => self.jobs.collecting = false,
            },
            None => {}
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
            (Asker::Peer { to, request }, Wake::Listed { served, page }) => {
                self.reply(to, request, Reply::List { served, page });
            }
            (Asker::Peer { to, request }, Wake::Peeked(outcome)) => self.reply(to, request, Reply::Peeked(outcome)),
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
            self.start_job(Waiter::Expired, Work::FindExpired { now: now.wall, limit: EXPIRED_BATCH });
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

/// What is there, and whether that is in doubt. `None`: nobody can read it, or it is doubtful and there is nothing.
fn peeked(now: Now, done: Done) -> Option<(Outcome, bool)> {
    let Done::Voted(Answer::Told(accepted)) = done else { return None };
    let state = accepted.map(|accepted| accepted.state).unwrap_or_default();
    match state.record.filter(|record| !record.is_expired(now.wall)) {
        Some(record) => Some((Outcome::Found(record), state.doubtful)),
        None => (!state.doubtful).then_some((Outcome::NotFound, false)),
    }
}
