//! What the holdings do by themselves: give away what belongs elsewhere, get what belongs here, and notice who is gone.

use std::collections::{BTreeMap, BTreeSet};

use super::handover::Sending;
use super::holdings::{Held, Holdings, HoldingsEffect, Neighbourhood, Settled};
use super::message::HoldingMessage;
use super::runs::{SlotRun, runs_of};
use super::view::View;
use crate::base::{Contact, Incarnation, Span, Time, in_arc};
use crate::data::Slot;

/// Silence after which a fetch, an offer or a lookup of an owner is repeated.
const REPEAT_AFTER: Span = Span::secs(1);
/// How long a slot must be without a known holder before it is started empty.
const CLAIM_AFTER: Span = Span::millis(1_500);
/// Holders probed at the same time.
const PROBES_MAX: usize = 16;

impl Holdings {
    /// Starts, repeats and ends whatever the present ring calls for.
    pub fn maintain(&mut self, now: Time, around: &Neighbourhood<'_>) {
        self.drop_dead_ends(now, around);
        self.settled = Settled { held: self.held.len(), to_give: 0, to_take: 0 };
        self.give(now, around);
        if !around.leaving {
            self.take(now, around);
        }
        self.fetch_more(now);
    }

    /// The owner of a slot, as asked for, and the node before it: every slot between them belongs to the owner.
    pub fn owner_found(&mut self, now: Time, before: Contact, owner: Contact, around: &Neighbourhood<'_>) {
        self.asked_owner = None;
        if owner.incarnation == self.me.incarnation || self.is_declined(now, owner) || around.leaving {
            return;
        }
        let theirs: Vec<Slot> = self
            .held
            .iter()
            .filter(|(slot, held)| held.sending.is_none() && !self.is_mine(**slot, around))
            .map(|(slot, _)| *slot)
            .filter(|slot| in_arc(before.id, self.space.last_id(*slot), owner.id))
            .collect();
        self.offer(now, owner, &theirs, false);
    }

    fn offer(&mut self, now: Time, to: Contact, slots: &[Slot], leaving: bool) {
        let mut offered = Vec::new();
        for slot in slots {
            // Another holder's records are on their way here: first those.
            let receiving = self.receiving.contains_key(slot);
            if let Some(held) = self.held.get_mut(slot).filter(|held| held.sending.is_some() || !receiving) {
                match &mut held.sending {
                    Some(sending) => sending.last_word = now,
                    None => held.sending = Some(Box::new(Sending::new(to, now))),
                }
                offered.push((*slot, held.epoch));
            }
        }
        if !offered.is_empty() {
            self.send(to, HoldingMessage::Offer { runs: runs_of(offered), leaving });
        }
    }

    /// Gives up what waits for members that are gone, and repeats what went unanswered.
    fn drop_dead_ends(&mut self, now: Time, around: &Neighbourhood<'_>) {
        self.declined.retain(|_, until| *until > now);
        let silent = |since: Time| now.since(since) >= REPEAT_AFTER;
        let dead: Vec<Slot> =
            self.receiving.iter().filter(|(_, r)| (around.is_lost)(&r.from)).map(|(slot, _)| *slot).collect();
        for slot in dead {
            self.stop_receiving(slot);
        }
        let mut anew = Vec::new();
        for (&slot, receiving) in &mut self.receiving {
            if receiving.asked.is_some_and(silent) && receiving.absorbing.is_none() {
                receiving.asked = None;
                receiving.attempts += 1;
                if receiving.attempts.is_multiple_of(3) {
                    // Perhaps it does not remember: begin again, without what may have been removed meanwhile.
                    receiving.serial = 0;
                    receiving.after = None;
                    if !self.held.contains_key(&slot) {
                        anew.push(slot);
                    }
                }
            }
        }
        self.clear(anew);
        let mut thawed = Vec::new();
        for (&slot, held) in &mut self.held {
            let Some(sending) = &held.sending else { continue };
            if (around.is_lost)(&sending.to) && held.stop_sending() {
                thawed.push(slot);
            }
        }
        self.write_down(thawed);
        self.outlive_successors(around);
        let held: Vec<(Slot, u64)> = self.held.iter().map(|(slot, held)| (*slot, held.epoch)).collect();
        for (slot, epoch) in held {
            self.views.learn(slot, View::of_one(epoch, self.me));
        }
    }

    /// A newer holder that is gone supersedes nobody: the records here are the best there are.
    fn outlive_successors(&mut self, around: &Neighbourhood<'_>) {
        let mut outlived = Vec::new();
        for (slot, held) in self.held.iter_mut().filter(|(_, held)| held.superseded) {
            if let Some(view) = self.views.get(*slot)
                && view.primary().is_none_or(|newer| (around.is_lost)(&newer))
            {
                held.epoch = held.epoch.max(view.epoch) + 2;
                held.superseded = false;
                outlived.push(*slot);
            }
        }
        self.write_down(outlived);
    }

    pub(super) fn stop_receiving(&mut self, slot: Slot) {
        self.receiving.remove(&slot);
        if !self.held.contains_key(&slot) {
            self.clear(vec![slot]);
        }
    }

    /// Offers what belongs elsewhere.
    fn give(&mut self, now: Time, around: &Neighbourhood<'_>) {
        let mut again: BTreeMap<Contact, Vec<Slot>> = BTreeMap::new();
        let mut waiting = Vec::new();
        for (&slot, held) in &self.held {
            let newer = self.views.get(slot).and_then(View::primary).filter(|_| held.superseded);
            if !(around.leaving || held.superseded) && self.is_mine(slot, around) && held.sending.is_none() {
                continue;
            }
            self.settled.to_give += 1;
            match (&held.sending, newer) {
                (Some(sending), _) if now.since(sending.last_word) >= REPEAT_AFTER => {
                    again.entry(sending.to).or_default().push(slot);
                }
                (Some(_), _) => {}
                (None, Some(to)) => again.entry(to).or_default().push(slot),
                (None, None) => waiting.push(slot),
            }
        }
        for (to, slots) in again {
            self.offer(now, to, &slots, around.leaving);
        }
        if waiting.is_empty() {
            return;
        }
        if around.leaving {
            let willing = |contact: &&Contact| !(around.is_lost)(contact) && !self.is_declined(now, **contact);
            // Whoever was not asked yet comes first.
            let asked = |contact: &&Contact| self.refused_by.contains(&contact.incarnation);
            if let Some(&next) = around.successors.iter().filter(willing).min_by_key(asked) {
                self.offer(now, next, &waiting, true);
            }
            let mut living = around.successors.iter().filter(|contact| !(around.is_lost)(contact));
            if living.all(|contact| self.refused_by.contains(&contact.incarnation)) {
                self.stranded_since.get_or_insert(now);
            }
        } else if around.predecessor.is_some() && self.asked_owner.is_none_or(|at| now.since(at) >= REPEAT_AFTER) {
            self.asked_owner = Some(now);
            self.effects.push_back(HoldingsEffect::FindOwner(waiting[0]));
        }
    }

    /// Looks after the slots that belong here and are not here.
    fn take(&mut self, now: Time, around: &Neighbourhood<'_>) {
        let absent: Vec<Slot> =
            around.own_slots(self.space, self.me.id).filter(|slot| !self.held.contains_key(slot)).collect();
        self.settled.to_take = absent.len();
        self.probe_holders(now, &absent, around);
        let lost: BTreeSet<Slot> = absent
            .into_iter()
            .filter(|slot| !self.receiving.contains_key(slot))
            .filter(|slot| {
                let holder = self.views.get(*slot).and_then(View::primary);
                holder.is_none_or(|holder| holder.incarnation == self.me.incarnation || (around.is_lost)(&holder))
            })
            .collect();
        self.missing.retain(|slot, _| lost.contains(slot));
        for slot in &lost {
            self.missing.entry(*slot).or_insert(now);
        }
        if lost.is_empty() {
            return;
        }
        // Whoever might hold one of them is asked; only when all have answered and nobody does, it starts empty.
        let living: Vec<Contact> = around.successors.iter().filter(|c| !(around.is_lost)(c)).copied().collect();
        let heard_since =
            |contact: &Contact, since: Time| self.answered.get(&contact.incarnation).is_some_and(|at| *at > since);
        let claimed: Vec<Slot> = self
            .missing
            .iter()
            .filter(|(_, since)| !around.in_doubt && (around.alone || now.since(**since) >= CLAIM_AFTER))
            .filter(|(_, since)| living.iter().all(|contact| heard_since(contact, **since)))
            .map(|(slot, _)| *slot)
            .collect();
        // A holder need not be a neighbour: it may have created the ring, or be about to leave and give to others. So before
        // anything begins empty, everybody known is asked.
        let others = |c: &Contact| !(around.is_lost)(c) && !living.contains(c) && c.incarnation != self.me.incarnation;
        let wide: Vec<Contact> =
            if claimed.is_empty() { Vec::new() } else { (around.members)().into_iter().filter(others).collect() };
        let known = |slot: &Slot| {
            let since = self.missing.get(slot).copied().unwrap_or(now);
            wide.iter().all(|contact| heard_since(contact, since))
        };
        let claimed: Vec<Slot> = claimed.into_iter().filter(known).collect();
        for slot in &claimed {
            let epoch = self.views.newest_epoch(*slot) + 2;
            self.keep(*slot, Held::new(epoch));
            self.effects.push_back(HoldingsEffect::Claimed(*slot));
        }
        self.write_down(claimed);
        let runs: Vec<SlotRun> =
            runs_of(self.missing.keys().map(|slot| (*slot, ()))).into_iter().map(|r| r.0).collect();
        if !runs.is_empty() {
            for contact in living {
                self.send(contact, HoldingMessage::Query { runs: runs.clone() });
            }
            for contact in &wide {
                self.send(*contact, HoldingMessage::Query { runs: runs.clone() });
                // One that is dead must not be waited for.
                self.effects.push_back(HoldingsEffect::Probe(*contact));
            }
        }
        let asked = around.successors.iter().chain(&wide);
        let remembered: BTreeSet<Incarnation> = asked.map(|contact| contact.incarnation).collect();
        self.answered.retain(|incarnation, _| remembered.contains(incarnation));
    }

    /// Holders of what belongs here should offer it. From one that is dead nothing comes, and from one that gave the
    /// slot to somebody who died neither: both are asked.
    fn probe_holders(&mut self, now: Time, absent: &[Slot], around: &Neighbourhood<'_>) {
        if absent.is_empty() || self.probed.is_some_and(|at| now.since(at) < REPEAT_AFTER) {
            return;
        }
        self.probed = Some(now);
        let mut of_holder: BTreeMap<Contact, Vec<Slot>> = BTreeMap::new();
        for slot in absent.iter().filter(|slot| !self.receiving.contains_key(slot)) {
            let holder = self.views.get(*slot).and_then(View::primary);
            let living = |c: &Contact| c.incarnation != self.me.incarnation && !(around.is_lost)(c);
            if let Some(holder) = holder.filter(living) {
                of_holder.entry(holder).or_default().push(*slot);
            }
        }
        for (holder, slots) in of_holder.into_iter().take(PROBES_MAX) {
            let runs = runs_of(slots.into_iter().map(|slot| (slot, ()))).into_iter().map(|(run, ())| run).collect();
            self.effects.push_back(HoldingsEffect::Probe(holder));
            self.send(holder, HoldingMessage::Query { runs });
        }
    }
}
