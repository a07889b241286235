//! Removals are forgotten once every member of a view has them and nothing else (`data/collect.rs`): the view's first member
//! looks for those of earlier views, asks all, and lets all drop what all have. Where many wait that were removed in the
//! present view, it has that one followed by another of the same members.

use std::collections::{BTreeMap, BTreeSet};

use super::message::CopyMessage;
use super::mutation::Mutation;
use super::{Awaited, Copies, Timer};
use crate::base::{Contact, Incarnation, Span, Time, Wall};
use crate::data::collect::Tombstones;
use crate::data::register::Ballot;
use crate::data::{Done, Key, Slot, Work};
use crate::replication::View;
use crate::replication::chain::is_majority;

/// See the module.
#[derive(Debug)]
pub(super) struct Collector {
    /// So old is a removal at least: whoever has asked for it tries no more.
    pub age: Span,
    // Slots in which something was removed: since when, and when they are looked at next.
    due: BTreeMap<Slot, Due>,
    running: Option<Running>,
    last: Slot,
}

#[derive(Clone, Copy, Debug)]
struct Due {
    since: Time,
    next: Time,
    // Something was removed since it was looked at last.
    again: bool,
}

#[derive(Debug)]
struct Running {
    slot: Slot,
    view: View,
    serial: u64,
    keys: BTreeMap<Key, Ballot>,
    heard: BTreeSet<Incarnation>,
    until: Time,
}

/// How often a slot is looked at, one after the other.
const LOOK_EVERY: Span = Span::secs(1);
/// The same while there is more to forget in it.
const LOOK_ON: Span = Span::millis(100);
/// Removals that are dealt with in one go.
const KEYS_MAX: usize = 256;
/// How long members have to answer.
const ANSWER_WITHIN: Span = Span::secs(5);
/// So many removals of the present view are worth another view; or any, after so long.
const PRESENT_MIN: usize = 64;
const PRESENT_FOR: Span = Span::secs(3_600);

impl Default for Collector {
    fn default() -> Self {
        let age = Span::secs(60);
        Self { age, due: BTreeMap::new(), running: None, last: Slot(0) }
    }
}

impl Copies {
    /// Something was removed in a slot, or may have been.
    pub(super) fn has_removed(&mut self, now: Time, slot: Slot) {
        let next = now + self.collector.age;
        self.collector.due.entry(slot).or_insert(Due { since: now, next, again: true }).again = true;
        self.timers.set_no_later(Timer::Collect, next);
    }

    /// The first member of a view looks once what there is from before.
    pub(super) fn may_have_removed(&mut self, now: Time, slot: Slot) {
        let due = self.collector.due.entry(slot).or_insert(Due { since: now, next: now, again: false });
        due.next = now;
        self.timers.set_no_later(Timer::Collect, now + LOOK_EVERY);
    }

    #[cfg(test)]
    pub(crate) fn collect_after(&mut self, age: Span) {
        self.collector.age = age;
    }

    /// Looks at the next slot that is due.
    pub(super) fn collect(&mut self, now: Time, wall: Wall) {
        if self.collector.running.as_ref().is_some_and(|running| now < running.until) {
            self.timers.set(Timer::Collect, now + LOOK_EVERY);
            return;
        }
        self.collector.running = None;
        let me = self.me.incarnation;
        let is_first = |view: &View| view.primary().is_some_and(|first| first.incarnation == me);
        let held = &self.held;
        let is_ours = |slot: &Slot| held.get(slot).and_then(|held| held.chain.newest()).is_some_and(is_first);
        self.collector.due.retain(|slot, _| is_ours(slot));
        let is_due =
            |(slot, due): &(&Slot, &Due)| due.next <= now && held.get(slot).is_some_and(|held| held.chain.is_at_rest());
        let due = &self.collector.due;
        let after = due.range(Slot(self.collector.last.0 + 1)..).find(is_due).or_else(|| due.iter().find(is_due));
        if let Some(slot) = after.map(|(slot, _)| *slot) {
            self.collector.last = slot;
            if let Some(due) = self.collector.due.get_mut(&slot) {
                due.again = false;
            }
            if let Some(view) = self.served(slot).cloned() {
                let before = Wall(wall.0.saturating_sub(self.collector.age.as_millis()));
                let epoch = if self.mutated(Mutation::CollectsThePresent) { view.epoch + 1 } else { view.epoch };
                let work = Work::Tombstones { slot, epoch, before, limit: KEYS_MAX };
                self.store_and(work, Awaited::Tombstones { slot, epoch: view.epoch });
            }
        }
        if let Some(next) = self.collector.due.values().map(|due| due.next).min() {
            self.timers.set(Timer::Collect, next.max(now + LOOK_EVERY));
        }
    }

    /// These removals are in a slot.
    pub(super) fn found_removals(&mut self, now: Time, slot: Slot, epoch: u64, all: Tombstones) {
        let Some(view) = self.served(slot).filter(|view| view.epoch == epoch).cloned() else { return };
        let Some(due) = self.collector.due.get_mut(&slot) else { return };
        let Tombstones { found, present, young } = all;
        due.next = now + if found.is_empty() { self.collector.age } else { LOOK_ON };
        if !found.is_empty() {
            let serial = self.any_serial();
            let until = now + self.patience(ANSWER_WITHIN);
            let keys = found.iter().cloned().collect();
            let heard = BTreeSet::new();
            self.collector.running = Some(Running { slot, view: view.clone(), serial, keys, heard, until });
            for member in view.members.iter() {
                self.send(*member, CopyMessage::Collect { slot, epoch, serial, keys: found.clone() });
            }
        } else if present >= PRESENT_MIN || present > 0 && now.since(due.since) >= PRESENT_FOR {
            due.since = now;
            self.propose(now, slot, view.members);
        } else if present + young == 0 && !due.again {
            self.collector.due.remove(&slot);
        }
    }

    // ----- every member -----

    /// Which of these removals are here? Only the view that is served counts: its members have all that was decided before.
    pub(super) fn on_collect(
        &mut self,
        from: Contact,
        slot: Slot,
        (epoch, serial): (u64, u64),
        keys: Vec<(Key, Ballot)>,
    ) {
        if self.is_fellow(&from, slot, epoch) {
            let until = if self.mutated(Mutation::CollectsThePresent) { epoch + 1 } else { epoch };
            self.store_and(Work::Hold { epoch: until, keys }, Awaited::Held { to: from, slot, epoch, serial });
        }
    }

    pub(super) fn has_held(&mut self, to: Contact, slot: Slot, (epoch, serial): (u64, u64), done: Done) {
        if let Done::Held(keys) = done {
            self.send(to, CopyMessage::Collectable { slot, epoch, serial, keys });
        }
    }

    /// A member has these.
    pub(super) fn on_collectable(
        &mut self,
        now: Time,
        from: Contact,
        slot: Slot,
        (epoch, serial): (u64, u64),
        keys: &[Key],
    ) {
        let by_majority = self.mutated(Mutation::CollectsByMajority);
        let is_it = |running: &&mut Running| running.slot == slot && running.serial == serial;
        let Some(running) = self.collector.running.as_mut().filter(is_it) else { return };
        if running.view.epoch != epoch || !running.view.has(from.incarnation) || !running.heard.insert(from.incarnation)
        {
            return;
        }
        let has: BTreeSet<&Key> = keys.iter().collect();
        running.keys.retain(|key, _| has.contains(key));
        let is_enough = running.heard.len() == running.view.members.len()
            || by_majority && is_majority(running.heard.len(), &running.view);
        if !is_enough {
            return;
        }
        let Some(Running { view, keys, .. }) = self.collector.running.take() else { return };
        let keys: Vec<(Key, Ballot)> = keys.into_iter().collect();
        if keys.is_empty() {
            // Something is under way with them.
            if let Some(due) = self.collector.due.get_mut(&slot) {
                due.next = now + self.collector.age;
            }
        } else {
            for member in view.members.iter() {
                self.send(*member, CopyMessage::Drop { slot, epoch, keys: keys.clone() });
            }
        }
        self.timers.set_no_later(Timer::Collect, now + LOOK_ON);
    }

    /// All members had these removals and nothing else.
    /// Whether both serve a slot in this view.
    fn is_fellow(&self, who: &Contact, slot: Slot, epoch: u64) -> bool {
        self.served(slot).is_some_and(|view| view.epoch == epoch && view.has(who.incarnation))
    }

    pub(super) fn on_drop(&mut self, from: Contact, slot: Slot, epoch: u64, keys: Vec<(Key, Ballot)>) {
        if self.is_fellow(&from, slot, epoch) {
            let until = if self.mutated(Mutation::CollectsThePresent) { epoch + 1 } else { epoch };
            self.store(Work::Drop { slot, epoch: until, keys });
        }
    }
}
