//! How nodes come to hear of views that they have not heard of: those who share slots compare, and owners and those who
//! coordinate look for each other.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::message::CopyMessage;
use super::mutation::Mutation;
use super::{Copies, CopiesEffect, Held, Timer};
use crate::base::{Contact, Span, Time, in_arc};
use crate::data::Slot;
use crate::replication::chain::{Chain, MEMBERS_MAX};
use crate::replication::{SlotRun, View, runs_of, runs_of_slots};

/// Between two comparisons with somebody, from half of it to one and a half; while views change, and for a while after.
const COMPARE_EVERY: Span = Span::secs(10);
const COMPARE_SOON: Span = Span::secs(1);
const CHANGES_LAST: Span = Span::secs(30);
/// Runs of slots whose views are told at once.
const NOTICED_AT_ONCE: usize = 512;
/// Owners that are looked up at once, to be told of views.
const OFFERS_MAX: usize = 8;

/// Of slots and epochs, in order.
fn sum(all: impl Iterator<Item = (Slot, u64)>) -> u64 {
    all.fold(0, |sum, (slot, epoch)| {
        let mixed = (sum ^ (u64::from(slot.0) << 40) ^ epoch).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    })
}

impl Copies {
    /// What this node tells of a slot's views.
    pub(super) fn views_of(&self, slot: Slot) -> Vec<View> {
        match self.held.get(&slot) {
            Some(held) => held.chain.views(),
            None => self.views.get(slot).cloned().into_iter().collect(),
        }
    }

    pub(super) fn tell_views(&mut self, to: Contact, slot: Slot) {
        let views = vec![(SlotRun { first: slot, count: 1 }, self.views_of(slot))];
        self.send(to, CopyMessage::Notice { views });
    }

    /// Somebody speaks of a view that is not the newest here, or not served: it is told, or asked.
    pub(super) fn compare_views(&mut self, with: Contact, slot: Slot, epoch: u64) {
        if self.view(slot).is_some_and(|view| view.epoch >= epoch) {
            self.tell_views(with, slot);
        } else {
            self.ask_views(with, &[slot]);
        }
    }

    pub(super) fn on_query(&mut self, from: Contact, runs: &[SlotRun]) {
        let slots = runs.iter().flat_map(|run| run.slots(self.space)).take(self.space.slots() as usize);
        let known = slots.map(|slot| (slot, self.views_of(slot))).filter(|(_, views)| !views.is_empty());
        let views = runs_of(known);
        self.notify(from, &views);
    }

    /// Tells views, in messages that are not too large for a frame.
    fn notify(&mut self, to: Contact, views: &[(SlotRun, Vec<View>)]) {
        for views in views.chunks(NOTICED_AT_ONCE) {
            self.send(to, CopyMessage::Notice { views: views.to_vec() });
        }
    }

    /// Hears of views of a slot, oldest first.
    pub fn hear(&mut self, now: Time, slot: Slot, views: &[View]) {
        let is_twice = |view: &View, at: usize| {
            view.members[..at].iter().any(|other| other.incarnation == view.members[at].incarnation)
        };
        let is_sane = |view: &View| {
            let count = view.members.len();
            (1..=MEMBERS_MAX).contains(&count) && !(1..count).any(|at| is_twice(view, at))
        };
        if !self.space.holds(slot) || !views.iter().all(is_sane) || !views.is_sorted_by_key(|view| view.epoch) {
            return;
        }
        let Some(newest) = views.last() else { return };
        let is_news = self.views.learn(slot, newest.clone());
        self.give_up_forced(slot, views);
        let me = self.me.incarnation;
        let over = self.over.get(&slot).copied().unwrap_or(0);
        if !self.held.contains_key(&slot) && views.iter().any(|view| view.epoch > over && view.has(me)) {
            let chain = self.fresh_chain(slot);
            self.held.insert(slot, Held::new(chain));
        }
        let Some(held) = self.held.get_mut(&slot) else {
            if is_news && self.placing.own.iter().any(|run| run.has(slot)) {
                // Its owner need not be a member, and may have to wish for others.
                self.effects.push_back(CopiesEffect::Restless);
            }
            return;
        };
        let before = held.chain.served().map(|view| view.epoch);
        if !held.chain.learn(views) {
            return;
        }
        self.placing.changed = Some(now);
        if held.chain.is_free() {
            // It was invited, and others were chosen.
            self.drop_slot(slot);
            return;
        }
        (held.election, held.inviting, held.hopeless_until) = (None, None, None);
        held.recovers_no_longer();
        // Nobody can have its records yet.
        (held.asked, held.asks) = (Some(now), 0);
        if before.is_some() && held.chain.served().map(|view| view.epoch) != before {
            held.leads = None;
            held.lost.clear();
            self.end_operations(now, slot);
        }
        self.write_down(vec![slot]);
        self.effects.push_back(CopiesEffect::Restless);
        self.fetch(now, slot);
    }

    /// Of a slot of which nothing is kept.
    pub(super) fn fresh_chain(&self, slot: Slot) -> Chain {
        let over = self.over.get(&slot).copied().filter(|_| !self.mutated(Mutation::ForgetsTheEnd));
        Chain::after(self.me.incarnation, over.unwrap_or(0))
    }

    pub(super) fn on_notice(&mut self, now: Time, views: Vec<(SlotRun, Vec<View>)>) {
        for (run, views) in views {
            for slot in run.slots(self.space) {
                self.hear(now, slot, &views);
            }
        }
    }

    /// This is the owner of a slot, after that one on the circle. It is asked for those that this node has lost track of,
    /// and told of its own that it was looked up for.
    pub fn owner_found(&mut self, owner: Contact, before: Contact) {
        let belongs = |slot: &Slot| in_arc(before.id, self.space.last_id(*slot), owner.id);
        let (mut its, others) = self.placing.untold.iter().partition::<BTreeSet<Slot>, _>(|slot| belongs(slot));
        self.placing.untold = others;
        its.extend(self.placing.offered.filter(belongs));
        if owner == self.me {
            return;
        }
        let its = its.into_iter().filter_map(|slot| Some((slot, self.served(slot)?)));
        let its = its.filter(|(_, view)| view.primary() == Some(self.me)).map(|(slot, view)| (slot, view.epoch));
        let its = runs_of(its);
        if !its.is_empty() {
            self.send(owner, CopyMessage::Epochs { runs: its, answer: true });
        }
        let lost = self.placing.lost.clone();
        self.ask_views(owner, &lost);
    }

    /// Asks somebody for the views of these slots.
    pub fn ask_views(&mut self, of: Contact, slots: &[Slot]) {
        if of != self.me && !slots.is_empty() {
            self.send(of, CopyMessage::Query { runs: runs_of_slots(slots.iter().copied()) });
        }
    }

    /// This node coordinates a slot from now on.
    pub(super) fn leads_anew(&mut self, slot: Slot) {
        self.placing.untold.insert(slot);
    }

    /// Has the owners of slots looked up that this node coordinates: of new ones first, then of all in turn.
    fn offer_views(&mut self) {
        let mut slots = Vec::new();
        for _ in 0..OFFERS_MAX.min(self.placing.untold.len()) {
            let at = self.rng.index(self.placing.untold.len());
            slots.extend(self.placing.untold.iter().nth(at).copied());
        }
        if slots.is_empty() {
            let leads = |held: &Held| held.chain.served().is_some_and(|view| view.primary() == Some(self.me));
            let after = self.held.range(self.placing.offered.map_or(Slot(0), |slot| Slot(slot.0 + 1))..);
            let next = after.chain(&self.held).find(|(_, held)| leads(held)).map(|(slot, _)| *slot);
            self.placing.offered = next;
            slots.extend(next);
        }
        self.effects.extend(slots.into_iter().map(CopiesEffect::FindOwner));
    }

    pub(super) fn compare_later(&mut self, now: Time) {
        let changes = self.placing.changed.is_some_and(|at| now.since(at) < CHANGES_LAST);
        let every = if changes { COMPARE_SOON } else { COMPARE_EVERY };
        let wait = every.0 / 2 + self.rng.below(every.0);
        if self.timers.get(Timer::Compare).is_none() {
            self.timers.set(Timer::Compare, now + Span(wait));
        }
    }

    /// Compares with somebody what views the two are in, and those of the slots that belong to this node.
    pub(super) fn compare(&mut self, now: Time) {
        self.compare_later(now);
        self.offer_views();
        let views = self.held.values().filter_map(|held| held.chain.newest());
        let shared = views.flat_map(|view| view.members.iter());
        let of_own = self.known_of(&self.placing.own).flat_map(|(_, view)| view.members.iter());
        let of_own = of_own.filter(|who| self.placing.around.contains(who));
        let others: BTreeSet<Contact> = shared.chain(of_own).copied().filter(|who| *who != self.me).collect();
        // In turn, so that none is left out.
        let next = others.iter().find(|contact| Some(**contact) > self.placing.compared).or(others.first());
        if let Some(&to) = next {
            self.placing.compared = Some(to);
            let sum_shared = sum(self.shared_with(to));
            self.send(to, CopyMessage::Summary { sum: sum_shared, of: Vec::new() });
            let of = self.placing.own.clone();
            if !of.is_empty() {
                let sum = sum(self.held_by(&to, &of));
                self.send(to, CopyMessage::Summary { sum, of });
            }
        }
    }

    /// The slots whose newest views have this node and that one for members, with their epochs.
    fn shared_with(&self, other: Contact) -> impl Iterator<Item = (Slot, u64)> {
        let (me, other) = (self.me.incarnation, other.incarnation);
        let newest = self.held.iter().filter_map(|(slot, held)| Some((*slot, held.chain.newest()?)));
        newest.filter(move |(_, view)| view.has(me) && view.has(other)).map(|(slot, view)| (slot, view.epoch))
    }

    /// Those of these slots whose newest views have that one for a member, with their epochs.
    fn held_by(&self, who: &Contact, of: &[SlotRun]) -> impl Iterator<Item = (Slot, u64)> {
        let who = who.incarnation;
        self.known_of(of).filter(move |(_, view)| view.has(who)).map(|(slot, view)| (slot, view.epoch))
    }

    fn known_of(&self, of: &[SlotRun]) -> impl Iterator<Item = (Slot, &View)> {
        let slots = of.iter().flat_map(|run| run.slots(self.space)).take(self.space.slots() as usize);
        slots.filter_map(|slot| Some((slot, self.view(slot)?)))
    }

    pub(super) fn on_summary(&mut self, from: Contact, theirs: u64, of: &[SlotRun]) {
        if of.is_empty() {
            if sum(self.shared_with(from)) != theirs {
                let runs = runs_of(self.shared_with(from));
                self.send(from, CopyMessage::Epochs { runs, answer: false });
            }
        } else if sum(self.held_by(&self.me, of)) != theirs {
            let runs = runs_of(self.known_of(of).map(|(slot, view)| (slot, view.epoch)));
            self.send(from, CopyMessage::Epochs { runs, answer: true });
        }
    }

    pub(super) fn on_epochs(&mut self, from: Contact, runs: &[(SlotRun, u64)], answer: bool) {
        if !answer {
            // Either may have the other for a member where that one knows better.
            let runs = runs_of(self.shared_with(from));
            self.send(from, CopyMessage::Epochs { runs, answer: true });
        }
        let (mut newer, mut older) = (Vec::new(), Vec::new());
        let mut slots = 0..self.space.slots();
        for (run, epoch) in runs {
            // More than there are slots no honest peer names.
            for (slot, _) in run.slots(self.space).zip(&mut slots) {
                match self.view(slot).map_or(0, |view| view.epoch).cmp(epoch) {
                    Ordering::Greater => newer.push((slot, self.views_of(slot))),
                    Ordering::Less => older.push(slot),
                    Ordering::Equal => {}
                }
            }
        }
        if !newer.is_empty() {
            self.notify(from, &runs_of(newer));
        }
        self.ask_views(from, &older);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Capacity, Incarnation, Rng};
    use crate::data::KeySpace;

    /// Else a slot that has lost a member stays so: its owner holds nothing of it and would look no more.
    #[test]
    fn an_owner_that_is_no_member_looks_again_when_it_hears_of_another_view() {
        let member = |n: u16| Contact::new(Capacity::MAX, ([10, 0, 0, 1], n).into(), Incarnation(n.into()));
        let view = |epoch, members: &[u16]| View { epoch, members: members.iter().map(|n| member(*n)).collect() };
        let space = KeySpace::new(Capacity::MAX, 3).expect("eight slots");
        let mut owner = Copies::new(member(9), space, 3, Rng::new(1));
        owner.placing.own = vec![SlotRun { first: Slot(4), count: 2 }];
        let mut is_restless = |slot, view| {
            owner.hear(Time(1), slot, &[view]);
            std::iter::from_fn(|| owner.poll_effect()).any(|effect| matches!(effect, CopiesEffect::Restless))
        };
        assert!(is_restless(Slot(5), view(14, &[1, 2, 3])));
        assert!(is_restless(Slot(5), view(17, &[1, 2])));
        assert!(!is_restless(Slot(5), view(17, &[1, 2])), "no news");
        assert!(!is_restless(Slot(6), view(17, &[1, 2])), "it is another's");
    }
}
