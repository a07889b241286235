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
    // Until when it does so often.
    active_until: Time,
    last: Slot,
    // Bytes of a slot, usually; once that is known.
    usual: Option<u64>,
    running: BTreeMap<u64, Comparison>,
    suspects: BTreeMap<Slot, Suspects>,
    seen: BTreeMap<Slot, BTreeMap<Incarnation, Seen>>,
    // Keys that are behind, to be read; how many are being read; and which were read before, and before when not again.
    behind: VecDeque<Key>,
    under_way: usize,
    again: BTreeMap<Key, (Time, u32)>,
    settled: u64,
}

/// What comparing a slot with a member came to.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    tried: Time,
    // Until when this member has all that the other had.
    matched: Option<Time>,
}

/// Slots that are being compared with a member.
#[derive(Debug)]
struct Comparison {
    with: Contact,
    since: Time,
    heard: Time,
    slots: BTreeMap<Slot, Compared>,
}

#[derive(Debug)]
struct Compared {
    epoch: u64,
    behind: Vec<(Key, Ballot)>,
    // More than can be kept.
    is_cut: bool,
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
    is_cut: bool,
    // Names the look that is under way.
    look: Option<u64>,
}

/// How often some slots are compared, and how long it takes until all were.
const TICK: Span = Span::secs(1);
const TICKS: usize = 10;
/// The same where nothing was accepted for a while: then nothing can have been missed, and an idle node is to be quiet.
const TICKS_IDLE: usize = 300;
const ACTIVE_FOR: Span = Span::secs(90);
/// What is not over by then is given up.
const GIVE_UP: Span = Span::secs(10);
/// What is on its way has arrived by then.
const LOOK_AGAIN: Span = Span::secs(1);
/// Slots in one message, and how many bytes of records they should have.
pub const COMPARED_SLOTS_MAX: usize = 8;
const BYTES_AT_ONCE: u64 = 64 << 10;
/// Parts of a slot that are asked for at once: with the longest keys the answer still fits into a frame.
pub const COMPARED_RANGES_MAX: usize = 4;
/// Parts that are kept to be asked for: where more differ, little is the same.
const RANGES_KEPT_MAX: usize = 1_024;
/// Keys that are read at once because they are behind, how soon the next ones are, and how many wait for it.
const SETTLED_AT_ONCE: usize = 8;
const SETTLE_ON: Span = Span::millis(50);
const BEHIND_MAX: usize = 4_096;
/// A key that is still behind after it was read is read again after this time, then after twice that, and so on; if it was not
/// behind for so long, as at first.
const READ_AGAIN: Span = Span::secs(20);
const FORGET_AFTER: Span = Span::secs(1_800);
/// Bytes that may be looked through in a second unless it is said.
pub const REPAIR_RATE_DEFAULT: u64 = 4 << 20;

impl Default for Repair {
    fn default() -> Self {
        Self {
            rate: REPAIR_RATE_DEFAULT,
            active_until: Time::default() + ACTIVE_FOR,
            last: Slot(0),
            usual: None,
            running: BTreeMap::new(),
            suspects: BTreeMap::new(),
            seen: BTreeMap::new(),
            behind: VecDeque::new(),
            under_way: 0,
            again: BTreeMap::new(),
            settled: 0,
        }
    }
}

impl Repair {
    /// Nothing is here of a slot any more.
    pub fn forget(&mut self, slot: Slot) {
        self.seen.remove(&slot);
    }

    /// Something was accepted here, or a view is complete.
    pub fn is_active(&mut self, now: Time) {
        self.active_until = now + ACTIVE_FOR;
    }

    /// A read of a key that was behind is over.
    pub fn is_read(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }
}

impl Copies {
    /// So many bytes may be looked through in a second. 0: nothing is compared.
    pub fn repair_at(&mut self, rate: u64) {
        self.repair.rate = rate;
    }

    /// The machine was suspended for a while that nobody counted: what was known of ages is not true any more.
    pub fn forget_ages(&mut self) {
        self.repair.seen.values_mut().flat_map(BTreeMap::values_mut).for_each(|seen| seen.matched = None);
        self.repair.running.clear();
        self.repair.suspects.clear();
    }

    /// Keys that were found to be behind, and read.
    pub fn repaired(&self) -> u64 {
        self.repair.settled
    }

    /// For how long what is here of a slot may have missed something that was chosen; `None`: that is not known.
    pub fn age(&self, now: Time, slot: Slot) -> Option<Span> {
        let view = self.view(slot)?;
        let me = self.me.incarnation;
        let seen = self.repair.seen.get(&slot);
        let until = |member: &Contact| match seen.and_then(|of| of.get(&member.incarnation)) {
            _ if member.incarnation == me => Some(now),
            seen => seen?.matched,
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
        self.repair.running.retain(|_, of| now.since(of.heard) < GIVE_UP);
        self.repair.again.retain(|_, (until, _)| now.since(*until) < FORGET_AFTER);
        let served: Vec<(Slot, u64)> = self.serving().collect();
        // As many as may be looked through in a second, or few until it is known how large they are.
        let usual = self.repair.usual.unwrap_or(self.repair.rate / COMPARED_SLOTS_MAX as u64).max(1);
        let may = usize::try_from(self.repair.rate / usual).unwrap_or(usize::MAX).max(1);
        let ticks = if now < self.repair.active_until { TICKS } else { TICKS_IDLE };
        let some = served.len().div_ceil(ticks).min(may);
        let at_once = (BYTES_AT_ONCE / usual).clamp(1, COMPARED_SLOTS_MAX as u64);
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
        let bytes = usual.saturating_mul(some as u64);
        let pause = Span(bytes.saturating_mul(1_000_000) / self.repair.rate.max(1));
        self.repair_later(now, TICK.max(pause));
    }

    /// The member of a slot's view that it was not compared with for longest, be it in vain.
    fn longest_not_compared(&self, slot: Slot) -> Option<Contact> {
        let seen = self.repair.seen.get(&slot);
        let until = |member: &&Contact| seen.and_then(|of| of.get(&member.incarnation)).map(|seen| seen.tried);
        let me = self.me.incarnation;
        let view = self.served(slot)?;
        view.members.iter().filter(|member| member.incarnation != me).min_by_key(until).copied()
    }

    fn begin_comparison(&mut self, now: Time, with: Contact, slots: &[(Slot, u64)]) {
        for (slot, _) in slots {
            self.saw(*slot, with.incarnation).tried = now;
        }
        let compared = |epoch| Compared { epoch, behind: Vec::new(), is_cut: false, ranges: Vec::new() };
        let all = slots.iter().map(|(slot, epoch)| (*slot, compared(*epoch))).collect();
        let whole = || Difference { ranges: vec![Range::default()], ..Difference::default() };
        let look = slots.iter().map(|(slot, _)| (*slot, whole())).collect();
        self.look_up(Comparison { with, since: now, heard: now, slots: all }, look);
    }

    /// Finds out what a difference means here.
    fn look_up(&mut self, of: Comparison, differences: Vec<(Slot, Difference)>) {
        let serial = self.any_serial();
        self.repair.running.insert(serial, of);
        self.store_and(Work::Resolve(differences), Awaited::Resolved { serial });
    }

    /// What is remembered of comparing a slot with a member; of those who are members no more nothing.
    fn saw(&mut self, slot: Slot, with: Incarnation) -> &mut Seen {
        let view = self.view(slot).cloned();
        let seen = self.repair.seen.entry(slot).or_default();
        seen.retain(|member, _| view.as_ref().is_some_and(|view| view.has(*member)));
        seen.entry(with).or_default()
    }

    /// What is here was summed up: the other is asked, or nothing is left to ask for.
    pub(super) fn resolved(&mut self, now: Time, serial: u64, done: Done) {
        let Some(mut of) = self.repair.running.remove(&serial) else { return };
        let Done::Resolved(all) = done else { return };
        let (mut ask, mut over) = (Vec::new(), Vec::new());
        for (slot, Resolved { behind, ranges, bytes, damaged }) in all {
            if !damaged.is_empty() {
                self.found_damage(slot);
                of.slots.remove(&slot);
            }
            let Some(compared) = of.slots.get_mut(&slot) else { continue };
            if ranges.iter().any(|range| range.after.is_none() && range.to.is_none()) {
                // Of a slot as a whole.
                self.repair.usual = Some(self.repair.usual.map_or(bytes, |usual| (usual * 7 + bytes) / 8));
            }
            compared.behind.extend(behind);
            compared.ranges.extend(ranges);
            if compared.behind.len() > BEHIND_MAX || compared.ranges.len() > RANGES_KEPT_MAX {
                compared.behind.truncate(BEHIND_MAX);
                compared.ranges.clear();
                compared.is_cut = true;
            }
            if compared.ranges.is_empty() {
                over.extend(of.slots.remove(&slot).map(|compared| (slot, compared)));
            } else {
                let ranges = compared.ranges.split_off(compared.ranges.len().saturating_sub(COMPARED_RANGES_MAX));
                ask.push((slot, compared.epoch, ranges));
            }
        }
        let (with, since) = (of.with, of.since);
        if !ask.is_empty() {
            // An answer to an earlier question must not be taken for one to this.
            let serial = self.any_serial();
            self.repair.running.insert(serial, of);
            self.send(with, CopyMessage::Compare { serial, slots: ask });
        }
        for (slot, compared) in over {
            self.end_comparison(now, slot, (with.incarnation, since), compared);
        }
    }

    /// Another member has told how it differs.
    pub(super) fn on_compared(&mut self, now: Time, from: Contact, serial: u64, slots: Vec<(Slot, Difference)>) {
        if self.repair.running.get(&serial).is_none_or(|of| of.with != from) {
            return;
        }
        let Some(mut of) = self.repair.running.remove(&serial) else { return };
        of.heard = now;
        let (with, since) = (of.with.incarnation, of.since);
        let (mut over, mut on, mut kept) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (slot, difference) in slots {
            // Of what is not named it is no member in that view, or cannot read it.
            let Some(compared) = of.slots.remove(&slot) else { continue };
            if difference == Difference::default() && compared.ranges.is_empty() {
                over.push((slot, compared));
            } else {
                kept.insert(slot, compared);
                on.push((slot, difference));
            }
        }
        of.slots = kept;
        if !on.is_empty() {
            self.look_up(of, on);
        }
        for (slot, compared) in over {
            self.end_comparison(now, slot, (with, since), compared);
        }
    }

    /// A slot was compared to its end.
    fn end_comparison(&mut self, now: Time, slot: Slot, (with, since): (Incarnation, Time), compared: Compared) {
        let Compared { epoch, behind: keys, is_cut, .. } = compared;
        if self.served(slot).is_none_or(|view| view.epoch != epoch) {
            return;
        }
        if keys.is_empty() && !is_cut {
            self.saw(slot, with).matched = Some(since);
        } else {
            let due = now + LOOK_AGAIN;
            let fresh = Suspects { with, epoch, since, due, keys, is_cut, look: None };
            // Those that wait already are looked at first.
            self.repair.suspects.entry(slot).or_insert(fresh);
            self.timers.set_no_later(Timer::LookAgain, due);
        }
    }

    /// Another member would compare.
    pub(super) fn on_compare(&mut self, from: Contact, serial: u64, slots: Vec<(Slot, u64, Vec<Range>)>) {
        let mut asked = BTreeMap::new();
        for (slot, epoch, ranges) in slots {
            let view = self.served(slot).filter(|view| view.epoch == epoch && view.has(from.incarnation));
            if view.is_some() && ranges.len() <= COMPARED_RANGES_MAX {
                asked.insert(slot, ranges);
            }
        }
        self.store_and(Work::Differ(asked.into_iter().collect()), Awaited::Differs { to: from, serial });
    }

    pub(super) fn differs(&mut self, to: Contact, serial: u64, done: Done) {
        let Done::Differs(slots) = done else { return };
        let (whole, damaged): (Vec<_>, Vec<_>) = slots.into_iter().partition(|(_, of)| of.damaged.is_empty());
        for (slot, _) in damaged {
            self.found_damage(slot);
        }
        self.send(to, CopyMessage::Compared { serial, slots: whole });
    }

    // ----- what is behind -----

    /// Looks again at what is due, and reads what was behind the second time, too.
    pub(super) fn look_again(&mut self, now: Now) {
        self.repair.suspects.retain(|_, of| now.mono.since(of.due) < GIVE_UP);
        let due = self.repair.suspects.iter().filter(|(_, of)| of.due <= now.mono && of.look.is_none());
        let due: Vec<(Slot, Vec<(Key, Ballot)>)> = due.map(|(slot, of)| (*slot, of.keys.clone())).collect();
        for (slot, items) in due {
            self.store_and(
                Work::Resolve(vec![(slot, Difference { items, ..Difference::default() })]),
                Awaited::Suspected { slot },
            );
            let look = self.next_ticket;
            self.repair.suspects.entry(slot).and_modify(|of| of.look = Some(look));
        }
        while self.repair.under_way < SETTLED_AT_ONCE
            && let Some(key) = self.repair.behind.pop_front()
        {
            self.settle(now, key);
        }
        let due = self.repair.suspects.values().filter(|of| of.look.is_none()).map(|of| of.due).min();
        let next = if self.repair.behind.is_empty() { due } else { Some(now.mono + SETTLE_ON) };
        if let Some(next) = next {
            self.timers.set_no_later(Timer::LookAgain, next);
        }
    }

    /// Keys were looked at again that another member had something later of.
    pub(super) fn suspected(&mut self, now: Time, slot: Slot, ticket: u64, done: Done) {
        if self.repair.suspects.get(&slot).is_none_or(|of| of.look != Some(ticket)) {
            return;
        }
        let Some(of) = self.repair.suspects.remove(&slot) else { return };
        let Done::Resolved(mut resolved) = done else { return };
        let Some((_, Resolved { behind, damaged, .. })) = resolved.pop() else { return };
        if !damaged.is_empty() {
            self.found_damage(slot);
            return;
        }
        if self.served(slot).is_none_or(|view| view.epoch != of.epoch) {
            return;
        }
        if behind.is_empty() && !of.is_cut {
            self.saw(slot, of.with).matched = Some(of.since);
            return;
        }
        for (key, theirs) in behind {
            // Of a key that is in doubt nothing comes by reading it; of one that a member cannot take neither, so it is read
            // again ever more seldom.
            let (until, times) = self.repair.again.get(&key).copied().unwrap_or((now, 0));
            if theirs.round < u64::MAX && until <= now && self.repair.behind.len() < BEHIND_MAX {
                if self.repair.again.len() < BEHIND_MAX {
                    self.repair.again.insert(key.clone(), (now + READ_AGAIN * (1 << times.min(6)), times + 1));
                }
                self.repair.behind.push_back(key);
            }
        }
        self.timers.set_no_later(Timer::LookAgain, now);
    }

    /// Reads a key in such a way that all members accept what comes of it. Where a majority has nothing, as of a removal that it
    /// has forgotten, nothing is accepted: a member that still has it knows more of what was carried out there.
    fn settle(&mut self, now: Now, key: Key) {
        let place = self.space.place(key);
        // What this member has is not the latest.
        self.lose_word(&place);
        self.repair.settled += 1;
        let id = OpId { node: self.me.incarnation, n: self.repair.settled, issued: now.wall };
        let operation = Operation { id, command: Command::Get, again: false };
        if self.run_alone(now, &place, operation) {
            self.repair.under_way += 1;
        }
    }
}
