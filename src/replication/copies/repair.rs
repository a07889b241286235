//! Members of a view compare what they have, slot by slot, each with the one that it has not compared with for longest.
//!
//! ```text
//!   this member ── Compare(sums of parts) ──▶ another ── Compared(what differs) ──▶ this member ── .. until few keys are left
//!        │ nothing that the other has is later: it has all that was chosen until the comparison began, with enough others
//!        │ something is, and still is a second later: it is read, and so accepted by all
//! ```
//!
//! Nothing is copied: within a view a register changes by votes alone. A member that was silent for a while so comes to what
//! the others have agreed on meanwhile; a flipped bit is found on the way; and whoever reads any copy is told how old it may
//! be.

use std::collections::{BTreeMap, VecDeque};

use super::message::CopyMessage;
use super::operations::Operation;
use super::{Awaited, Copies, Timer};
use crate::base::{Contact, Incarnation, Now, Span, Time};
use crate::data::register::{Ballot, OpId};
use crate::data::{Command, Difference, Done, Key, Range, Resolved, Slot, Work};
use crate::replication::chain::is_majority;

/// See the module.
#[derive(Debug)]
pub(super) struct Repair {
    // Bytes that may be looked through in a second.
    rate: u64,
    last: Slot,
    // Bytes of a slot, usually.
    usual: u64,
    running: BTreeMap<u64, Comparison>,
    suspects: BTreeMap<Slot, Suspects>,
    // Until when each slot was found to have all that another member has.
    matched: BTreeMap<Slot, BTreeMap<Incarnation, Time>>,
    // Keys that are behind, to be read.
    behind: VecDeque<Key>,
    settled: u64,
}

/// Slots that are being compared with a member.
#[derive(Debug)]
struct Comparison {
    with: Contact,
    since: Time,
    slots: BTreeMap<Slot, Compared>,
}

#[derive(Debug)]
struct Compared {
    epoch: u64,
    behind: Vec<(Key, Ballot)>,
    // Parts that are still to be asked for, the latest last.
    ranges: Vec<Range>,
}

/// What another member had later. Most often it is on its way.
#[derive(Debug)]
struct Suspects {
    with: Incarnation,
    epoch: u64,
    // When the comparison began, and when these are looked at again.
    since: Time,
    due: Time,
    keys: Vec<(Key, Ballot)>,
    is_looked_at: bool,
}

/// How often some slots are compared, and how long it takes until all were.
const TICK: Span = Span::secs(1);
const TICKS: usize = 10;
/// What is not over by then is given up.
const GIVE_UP: Span = Span::secs(10);
/// What is on its way has arrived by then.
const LOOK_AGAIN: Span = Span::secs(1);
/// Slots in one message, and how many bytes of records they should have.
const SLOTS_MAX: usize = 8;
const BYTES_AT_ONCE: u64 = 64 << 10;
/// Parts of a slot that are asked for at once: with the longest keys the answer still fits into a frame.
const RANGES_MAX: usize = 4;
/// Keys that are read at once because they are behind, how soon the next ones are, and how many wait for it.
const SETTLED_AT_ONCE: usize = 32;
const SETTLE_ON: Span = Span::millis(100);
const BEHIND_MAX: usize = 4_096;
/// Bytes that may be looked through in a second unless it is said.
pub const REPAIR_RATE_DEFAULT: u64 = 4 << 20;

impl Default for Repair {
    fn default() -> Self {
        Self {
            rate: REPAIR_RATE_DEFAULT,
            last: Slot(0),
            usual: 0,
            running: BTreeMap::new(),
            suspects: BTreeMap::new(),
            matched: BTreeMap::new(),
            behind: VecDeque::new(),
            settled: 0,
        }
    }
}

impl Repair {
    /// Nothing is here of a slot any more.
    pub fn forget(&mut self, slot: Slot) {
        self.matched.remove(&slot);
    }
}

impl Copies {
    /// So many bytes may be looked through in a second. 0: nothing is compared.
    pub fn repair_at(&mut self, rate: u64) {
        self.repair.rate = rate;
    }

    /// Keys that were found to be behind, and read.
    pub fn repaired(&self) -> u64 {
        self.repair.settled
    }

    /// For how long what is here of a slot may have missed something that was chosen; `None`: that is not known.
    pub fn age(&self, now: Time, slot: Slot) -> Option<Span> {
        let view = self.view(slot)?;
        let me = self.me.incarnation;
        let matched = self.repair.matched.get(&slot);
        let until = |member: &Contact| match matched.and_then(|of| of.get(&member.incarnation)) {
            _ if member.incarnation == me => Some(now),
            until => until.copied(),
        };
        let mut until: Vec<Time> = view.members.iter().filter_map(until).collect();
        until.sort_unstable_by(|a, b| b.cmp(a));
        // Whatever is chosen at least one of a majority has accepted, and this member has what it had then.
        let at = (1..=until.len()).find(|count| is_majority(*count, view))?;
        Some(now.since(until[at - 1]))
    }

    /// Sees to it that the slots are compared from now on.
    pub(super) fn repair_later(&mut self, now: Time, after: Span) {
        if self.repair.rate > 0 && self.timers.get(Timer::Repair).is_none() {
            self.timers.set(Timer::Repair, now + after);
        }
    }

    /// Compares the next slots.
    pub(super) fn repair(&mut self, now: Time) {
        self.repair.running.retain(|_, of| now.since(of.since) < GIVE_UP);
        let served: Vec<(Slot, u64)> = self.serving().collect();
        let some = served.len().div_ceil(TICKS);
        let at_once = (BYTES_AT_ONCE / self.repair.usual.max(1)).clamp(1, SLOTS_MAX as u64);
        let from = served.partition_point(|(slot, _)| *slot <= self.repair.last);
        let mut by_member: BTreeMap<Contact, Vec<(Slot, u64)>> = BTreeMap::new();
        for (slot, epoch) in served.iter().cycle().skip(from).take(some) {
            self.repair.last = *slot;
            if let Some(member) = self.longest_not_compared(*slot) {
                by_member.entry(member).or_default().push((*slot, *epoch));
            }
        }
        for (with, slots) in by_member {
            for slots in slots.chunks(usize::try_from(at_once).unwrap_or(1)) {
                self.begin_comparison(now, with, slots);
            }
        }
        let bytes = self.repair.usual.saturating_mul(some as u64);
        let pause = Span(bytes.saturating_mul(1_000_000) / self.repair.rate.max(1));
        self.repair_later(now, TICK.max(pause));
    }

    /// The member of a slot's view that it was not compared with for longest.
    fn longest_not_compared(&self, slot: Slot) -> Option<Contact> {
        let matched = self.repair.matched.get(&slot);
        let until = |member: &&Contact| matched.and_then(|of| of.get(&member.incarnation)).copied();
        let me = self.me.incarnation;
        let view = self.served(slot)?;
        view.members.iter().filter(|member| member.incarnation != me).min_by_key(until).copied()
    }

    fn begin_comparison(&mut self, now: Time, with: Contact, slots: &[(Slot, u64)]) {
        let serial = self.any_serial();
        let compared =
            |(slot, epoch): &(Slot, u64)| (*slot, Compared { epoch: *epoch, behind: Vec::new(), ranges: Vec::new() });
        let of = Comparison { with, since: now, slots: slots.iter().map(compared).collect() };
        self.repair.running.insert(serial, of);
        let whole = || Difference { items: Vec::new(), ranges: vec![Range::default()] };
        let work = Work::Resolve(slots.iter().map(|(slot, _)| (*slot, whole())).collect());
        self.store_and(work, Awaited::Resolved { serial });
    }

    /// What is here was summed up: the other is asked, or nothing is left to ask for.
    pub(super) fn resolved(&mut self, now: Time, serial: u64, done: Done) {
        let Done::Resolved(all) = done else {
            self.repair.running.remove(&serial);
            return;
        };
        for (slot, resolved) in &all {
            if !resolved.damaged.is_empty() {
                self.found_damage(*slot);
            }
        }
        let Some(of) = self.repair.running.get_mut(&serial) else { return };
        let mut ask = Vec::new();
        let mut over = Vec::new();
        for (slot, Resolved { behind, ranges, bytes, .. }) in all {
            let Some(compared) = of.slots.get_mut(&slot) else { continue };
            let room = BEHIND_MAX.saturating_sub(compared.behind.len());
            compared.behind.extend(behind.into_iter().take(room));
            if ranges.iter().any(|range| range.after.is_none() && range.to.is_none()) {
                // Of a slot as a whole.
                self.repair.usual = (self.repair.usual * 7 + bytes) / 8;
            }
            compared.ranges.extend(ranges);
            if compared.ranges.is_empty() {
                over.extend(of.slots.remove(&slot).map(|compared| (slot, compared)));
            } else {
                let ranges = compared.ranges.split_off(compared.ranges.len().saturating_sub(RANGES_MAX));
                ask.push((slot, compared.epoch, ranges));
            }
        }
        let (with, since) = (of.with, of.since);
        if !ask.is_empty() {
            self.send(with, CopyMessage::Compare { serial, slots: ask });
        } else if of.slots.is_empty() {
            self.repair.running.remove(&serial);
        }
        for (slot, compared) in over {
            self.end_comparison(now, slot, (with.incarnation, since), compared);
        }
    }

    /// Another member has told how it differs.
    pub(super) fn on_compared(&mut self, now: Time, from: Contact, serial: u64, slots: Vec<(Slot, Difference)>) {
        let Some(of) = self.repair.running.get_mut(&serial).filter(|of| of.with == from) else { return };
        let (with, since) = (of.with.incarnation, of.since);
        let (mut over, mut on, mut kept) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (slot, difference) in slots {
            // Of what is not named it is no member in that view.
            let Some(compared) = of.slots.remove(&slot) else { continue };
            if difference == Difference::default() && compared.ranges.is_empty() {
                over.push((slot, compared));
            } else {
                kept.insert(slot, compared);
                on.push((slot, difference));
            }
        }
        of.slots = kept;
        if on.is_empty() {
            self.repair.running.remove(&serial);
        } else {
            self.store_and(Work::Resolve(on), Awaited::Resolved { serial });
        }
        for (slot, compared) in over {
            self.end_comparison(now, slot, (with, since), compared);
        }
    }

    /// A slot was compared to its end.
    fn end_comparison(&mut self, now: Time, slot: Slot, (with, since): (Incarnation, Time), compared: Compared) {
        let Compared { epoch, behind, .. } = compared;
        if self.served(slot).is_none_or(|view| view.epoch != epoch) {
            return;
        }
        if behind.is_empty() {
            self.repair.matched.entry(slot).or_default().insert(with, since);
        } else {
            let due = now + LOOK_AGAIN;
            let of = Suspects { with, epoch, since, due, keys: behind, is_looked_at: false };
            self.repair.suspects.insert(slot, of);
            self.timers.set_no_later(Timer::LookAgain, due);
        }
    }

    /// Another member would compare.
    pub(super) fn on_compare(&mut self, from: Contact, serial: u64, slots: Vec<(Slot, u64, Vec<Range>)>) {
        let is_served = |slot: Slot, epoch: u64| self.served(slot).is_some_and(|view| view.epoch == epoch);
        let slots = slots.into_iter().filter(|(slot, epoch, _)| is_served(*slot, *epoch));
        let slots = slots.map(|(slot, _, ranges)| (slot, ranges)).collect();
        self.store_and(Work::Differ(slots), Awaited::Differs { to: from, serial });
    }

    pub(super) fn differs(&mut self, to: Contact, serial: u64, done: Done) {
        if let Done::Differs(slots) = done {
            self.send(to, CopyMessage::Compared { serial, slots });
        }
    }

    // ----- what is behind -----

    /// Looks again at what is due, and reads what was behind the second time, too.
    pub(super) fn look_again(&mut self, now: Now) {
        let mut looks = Vec::new();
        self.repair.suspects.retain(|_, of| now.mono.since(of.due) < GIVE_UP);
        for (slot, of) in self.repair.suspects.iter_mut().filter(|(_, of)| of.due <= now.mono && !of.is_looked_at) {
            of.is_looked_at = true;
            looks.push((*slot, Difference { items: of.keys.clone(), ranges: Vec::new() }));
        }
        for look in looks {
            let slot = look.0;
            self.store_and(Work::Resolve(vec![look]), Awaited::Suspected { slot });
        }
        for _ in 0..SETTLED_AT_ONCE {
            if let Some(key) = self.repair.behind.pop_front() {
                self.settle(now, key);
            }
        }
        let due = self.repair.suspects.values().filter(|of| !of.is_looked_at).map(|of| of.due).min();
        let next = if self.repair.behind.is_empty() { due } else { Some(now.mono + SETTLE_ON) };
        if let Some(next) = next {
            self.timers.set_no_later(Timer::LookAgain, next);
        }
    }

    /// Keys were looked at again that another member had something later of.
    pub(super) fn suspected(&mut self, now: Time, slot: Slot, done: Done) {
        let Some(of) = self.repair.suspects.remove(&slot) else { return };
        let Done::Resolved(mut resolved) = done else { return };
        let behind = resolved.pop().map(|(_, resolved)| resolved.behind).unwrap_or_default();
        if self.served(slot).is_none_or(|view| view.epoch != of.epoch) {
            return;
        }
        if behind.is_empty() {
            self.repair.matched.entry(slot).or_default().insert(of.with, of.since);
            return;
        }
        // Of a key that is in doubt nothing comes by reading it.
        let behind = behind.into_iter().filter(|(_, theirs)| theirs.round < u64::MAX).map(|(key, _)| key);
        self.repair.behind.extend(behind.take(BEHIND_MAX.saturating_sub(self.repair.behind.len())));
        self.timers.set_no_later(Timer::LookAgain, now);
    }

    /// Reads a key in such a way that all members accept what comes of it.
    fn settle(&mut self, now: Now, key: Key) {
        let place = self.space.place(key);
        // What this member has is not the latest.
        self.lose_word(&place);
        self.repair.settled += 1;
        let id = OpId { node: self.me.incarnation, n: self.repair.settled, issued: now.wall };
        let operation = Operation { id, command: Command::Get, again: false };
        self.run_alone(now, &place, operation);
    }
}
