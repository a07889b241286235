//! The messages of a handover, at both of its ends.

use super::handover::Receiving;
use super::holdings::{Awaited, DECLINED_FOR, FETCHES_MAX, Held, Holdings, HoldingsEffect, Neighbourhood};
use super::message::HoldingMessage;
use super::runs::{SlotRun, runs_of};
use super::view::View;
use crate::base::limits::{BULK_CREDIT_BYTES, CHUNK_BYTES};
use crate::base::{Contact, Time};
use crate::data::{Cursor, Done, Entry, Record, Slot, Work};

impl Holdings {
    // ----- the new holder -----

    pub(super) fn on_offer(
        &mut self,
        now: Time,
        from: Contact,
        runs: &[(SlotRun, u64)],
        leaving: bool,
        around: &Neighbourhood<'_>,
    ) {
        let (mut declined, mut empty) = (Vec::new(), Vec::new());
        for (run, epoch) in runs {
            for slot in run.slots(self.space) {
                self.learn(slot, View::of_one(*epoch, from));
                let held = self.held.get(&slot);
                let taken = held.map_or(self.passed_on.get(&slot).copied(), |held| held.taken);
                if let Some(view) = self.views.get(slot).filter(|_| taken == Some((from.incarnation, *epoch))) {
                    // Once it is known to be written down that it was taken.
                    let message = HoldingMessage::Taken { slot, epoch: *epoch, view: view.clone() };
                    self.store_and(self.rows(vec![slot]), Awaited::Say { to: from, message });
                    continue;
                }
                // What was begun is finished, unless its holder starts anew or somebody has a newer epoch.
                let keeps = |r: &Receiving| if r.from == from { r.epoch == *epoch } else { r.epoch >= *epoch };
                if self.receiving.get(&slot).is_some_and(keeps) {
                    continue;
                }
                let sending = held.is_some_and(|held| held.sending.is_some());
                let wanted = leaving || held.is_some() || self.is_mine(slot, around);
                if around.leaving || sending || !wanted {
                    declined.push((slot, *epoch));
                    continue;
                }
                if held.is_none() {
                    empty.push(slot);
                }
                self.receiving.insert(slot, Receiving::new(from, *epoch));
            }
        }
        self.clear(empty);
        self.decline(from, declined);
        self.fetch_more(now);
    }

    /// Declines slots that were offered in these epochs. A holder of old is told first who came after it.
    fn decline(&mut self, from: Contact, declined: Vec<(Slot, u64)>) {
        if declined.is_empty() {
            return;
        }
        let newer = declined.iter().filter_map(|(slot, epoch)| {
            let view = self.views.get(*slot)?;
            view.replaces(&View::of_one(*epoch, from)).then(|| (*slot, view.clone()))
        });
        let views = runs_of(newer);
        if !views.is_empty() {
            self.send(from, HoldingMessage::Notice { views, answer: false });
        }
        let runs = runs_of(declined.into_iter().map(|(slot, _)| (slot, ()))).into_iter().map(|(run, ())| run).collect();
        self.send(from, HoldingMessage::Decline { runs });
    }

    /// Asks for chunks as far as the credit goes.
    pub(super) fn fetch_more(&mut self, now: Time) {
        let credit = (BULK_CREDIT_BYTES / self.chunk_bytes.max(1)).clamp(1, FETCHES_MAX);
        let under_way = self.receiving.values().filter(|receiving| receiving.asked.is_some()).count();
        let waiting = self.receiving.iter_mut().filter(|(_, receiving)| receiving.asked.is_none());
        for (&slot, receiving) in waiting.take(credit.saturating_sub(under_way)) {
            receiving.asked = Some(now);
            let (epoch, serial, after) = (receiving.epoch, receiving.serial, receiving.after.clone());
            let message = HoldingMessage::Fetch { slot, epoch, serial, after };
            self.effects.push_back(HoldingsEffect::Send { to: receiving.from, message });
        }
    }

    #[allow(clippy::too_many_arguments)] // The fields of one message.
    pub(super) fn on_chunk(
        &mut self,
        from: Contact,
        slot: Slot,
        epoch: u64,
        serial: u64,
        entries: Vec<Entry>,
        next: Option<Cursor>,
        last: Option<u64>,
    ) {
        let ticket = self.next_ticket + 1;
        let merge = self.held.contains_key(&slot);
        let Some(receiving) = self.receiving.get_mut(&slot) else { return };
        let is_awaited = receiving.asked.is_some() && receiving.absorbing.is_none();
        if receiving.from != from || receiving.epoch != epoch || receiving.serial != serial || !is_awaited {
            return;
        }
        receiving.absorbing = Some(ticket);
        let bytes: usize = entries.iter().map(|(_, record)| record.as_ref().map_or(0, Record::user_bytes)).sum();
        self.chunk_bytes = bytes.max(CHUNK_BYTES / 4).max(self.chunk_bytes / 2);
        self.store_and(Work::Absorb { slot, entries, merge }, Awaited::Absorbed { slot, next, last });
    }

    /// A chunk is in the store, or could not be put there: then it is asked for again in a while.
    pub(super) fn on_absorbed(
        &mut self,
        now: Time,
        ticket: u64,
        slot: Slot,
        next: Option<Cursor>,
        last: Option<u64>,
        done: &Done,
    ) {
        let Some(receiving) = self.receiving.get_mut(&slot).filter(|r| r.absorbing == Some(ticket)) else { return };
        receiving.absorbing = None;
        if *done != Done::Changed {
            receiving.asked = Some(now);
            return;
        }
        receiving.serial += 1;
        receiving.after = next;
        receiving.asked = None;
        receiving.attempts = 0;
        let (from, epoch) = (receiving.from, receiving.epoch);
        if let Some(n) = last {
            self.activate(from, slot, epoch, n);
        }
        self.fetch_more(now);
    }

    fn activate(&mut self, from: Contact, slot: Slot, epoch: u64, n: u64) {
        self.receiving.remove(&slot);
        let before = self.held.get(&slot).map_or((0, 0), |held| (held.epoch, held.n));
        let newest = self.views.newest_epoch(slot);
        let mut held = Held::new(epoch.max(before.0).max(newest) + 1);
        held.n = n.max(before.1);
        held.taken = Some((from.incarnation, epoch));
        let view = self.keep(slot, held);
        // From now on this node serves, and whatever it acknowledges is written down after this.
        let message = HoldingMessage::Taken { slot, epoch, view };
        self.store_and(self.rows(vec![slot]), Awaited::Say { to: from, message });
        self.effects.push_back(HoldingsEffect::Took(slot));
    }

    /// Takes a slot for held; the caller writes that down.
    pub(super) fn keep(&mut self, slot: Slot, held: Held) -> View {
        let view = View::of_one(held.epoch, self.me);
        self.views.learn(slot, view.clone());
        self.missing.remove(&slot);
        self.passed_on.remove(&slot);
        self.held.insert(slot, held);
        view
    }

    // ----- the old holder -----

    pub(super) fn on_decline(&mut self, now: Time, from: Contact, runs: &[SlotRun]) {
        self.declined.insert(from.incarnation, now + DECLINED_FOR);
        self.refused_by.insert(from.incarnation);
        let space = self.space;
        let mut thawed = Vec::new();
        for slot in runs.iter().flat_map(|run| run.slots(space)) {
            if self.receiving.get(&slot).is_some_and(|receiving| receiving.from == from) {
                self.stop_receiving(slot);
            }
            if let Some(held) = self.held.get_mut(&slot)
                && held.sending.as_ref().is_some_and(|sending| sending.to == from)
                && held.stop_sending()
            {
                thawed.push(slot);
            }
        }
        self.write_down(thawed);
    }

    pub(super) fn on_fetch(
        &mut self,
        now: Time,
        from: Contact,
        slot: Slot,
        epoch: u64,
        serial: u64,
        after: Option<&Cursor>,
    ) {
        let ticket = self.next_ticket + 1;
        let held = self.held.get_mut(&slot).filter(|held| held.epoch == epoch);
        let sending = held.and_then(|held| held.sending.as_mut().filter(|sending| sending.to == from));
        let Some(sending) = sending else {
            self.send(from, HoldingMessage::Decline { runs: vec![SlotRun { first: slot, count: 1 }] });
            return;
        };
        sending.last_word = now;
        // Whose answer is still to come needs no second one.
        let part = if sending.is_reading() { None } else { sending.begin(ticket, slot, serial, after) };
        self.stranded_since = None;
        self.refused_by.clear();
        if let Some(part) = part {
            self.store_and(Work::Read(part), Awaited::Part { slot, to: from, epoch, serial });
        }
    }

    /// The store has read a part of a slot.
    pub(super) fn on_part(&mut self, ticket: u64, slot: Slot, to: Contact, epoch: u64, serial: u64, done: Done) {
        let (entries, next, changed) = match done {
            Done::Read { entries, next, changed } => (entries, next, Some(changed)),
            _ => (Vec::new(), None, None),
        };
        let Some(held) = self.held.get_mut(&slot) else { return };
        let (n, is_current) = (held.n, held.epoch == epoch && changed.is_some());
        let Some(sending) = held.sending.as_mut().filter(|sending| sending.to == to) else { return };
        let ended = sending.end(ticket, changed.map(|changed| (next.as_ref(), changed)));
        let Some(is_last) = ended.filter(|_| is_current) else { return };
        let last = is_last.then_some(n);
        let message = HoldingMessage::Chunk { slot, epoch, serial, entries, next, last };
        if is_last {
            // The new holder may serve as soon as it has this: not before it is certain that this one does not any more.
            self.store_and(self.rows(vec![slot]), Awaited::Say { to, message });
        } else {
            self.send(to, message);
        }
    }

    pub(super) fn on_taken(&mut self, from: Contact, slot: Slot, epoch: u64, view: View) {
        let given = self.held.get(&slot).is_some_and(|held| {
            held.epoch == epoch && held.sending.as_ref().is_some_and(|sending| sending.to == from && sending.frozen)
        });
        if given {
            if let Some(taken) = self.held.remove(&slot).and_then(|held| held.taken) {
                self.passed_on.insert(slot, taken);
            }
            self.write_down(vec![slot]);
            self.clear(vec![slot]);
            self.views.end(slot, epoch);
            self.effects.push_back(HoldingsEffect::Gave(slot));
        }
        self.learn(slot, view);
    }
}
