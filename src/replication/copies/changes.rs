//! How one view of a slot follows another once it is decided: the way of the records, and the end of what was before.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{CopyMessage, Part};
use super::mutation::Mutation;
use super::{Awaited, Copies, CopiesEffect};
use crate::base::limits::CHUNK_BYTES;
use crate::base::{Contact, Incarnation, Span, Time};
use crate::data::register::Accepted;
use crate::data::{Cursor, Digest, Key, Slot, Work};
use crate::replication::View;
use crate::replication::chain::{Chain, is_majority};

/// The records of a slot on their way here.
#[derive(Debug)]
pub(super) struct Fetching {
    // What was the newest to be had when it began.
    newest: View,
    // Those of the members of this view, for the next.
    pub of: View,
    pub view: View,
    sources: BTreeMap<Incarnation, Source>,
    // This member is one of those.
    pub is_source: bool,
    // A majority is not enough.
    pub needs_all: bool,
    // Who has given everything, but of these keys.
    pub done: BTreeMap<Incarnation, Vec<Key>>,
    // When something came last, and how often it was asked for in vain since.
    since: Time,
    tries: u32,
    // What is here sums up to, once that is known; and by which answer of the store it will be.
    pub digest: Option<Digest>,
    pub sum_ticket: u64,
    // What cannot be read here, with the newest that others gave in its place.
    pub damaged: BTreeMap<Key, Option<Accepted>>,
    // That is in its place.
    pub mended: Mended,
    // What those have who have given something, where more may be here than any of them has.
    others_have: Option<BTreeSet<Key>>,
}

/// Whether what could not be read was put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mended {
    No,
    UnderWay,
    Yes,
}

/// Which part of a slot is asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub ahead: bool,
    pub digest: Option<Digest>,
    pub serial: u64,
    pub after: Option<Cursor>,
}

#[derive(Debug)]
struct Source {
    // Begins anywhere: an answer to an earlier question must not be taken for one to this.
    serial: u64,
    after: Option<Cursor>,
    // What it could not read so far.
    damaged: Vec<Key>,
    // A part is on its way into the store.
    is_copying: bool,
}

/// Silence after which what was asked is asked again, of others too; twice as long each time, up to 8 s.
const ASK_AGAIN: Span = Span::millis(500);
/// How long a proposer waits for a word of a newcomer: nobody may wish for it any more, and only so many are waited for.
const INVITE_FOR: Span = Span::secs(3);
/// How long a slot is left alone for which too few members voted.
const HOPELESS_FOR: Span = Span::secs(2);
/// Times that nobody gave anything before another view's records are tried.
const TRIES_MAX: u32 = 3;
/// How long a proposer waits for votes.
const VOTE_FOR: Span = Span::secs(2);
/// How long a frozen member waits for a decided view.
const IDLE_FOR: Span = Span::secs(1);

impl Fetching {
    fn new(now: Time, newest: View, (of, view): (View, View), is_source: bool) -> Self {
        Self {
            newest,
            of,
            view,
            sources: BTreeMap::new(),
            is_source,
            needs_all: false,
            done: BTreeMap::new(),
            since: now,
            tries: 0,
            digest: None,
            sum_ticket: 0,
            damaged: BTreeMap::new(),
            mended: Mended::No,
            others_have: None,
        }
    }
}

impl Copies {
    /// Begins to fetch what the newest view needs here.
    pub(super) fn fetch(&mut self, now: Time, slot: Slot) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        let wanted = held.wanted();
        let Some((newest, _)) = wanted.first() else {
            held.fetching = None;
            return;
        };
        if held.fetching.as_ref().is_some_and(|fetching| fetching.mended == Mended::UnderWay) {
            // What is on its way to the store must not come after what another view's records bring there.
            return;
        }
        // What is begun goes on, unless something newer is to be had or nobody gives anything.
        let mut pair = 0;
        if let Some(fetching) = held.fetching.as_ref().filter(|fetching| fetching.newest == *newest) {
            if fetching.tries < TRIES_MAX || fetching.needs_all {
                return;
            }
            let at = wanted.iter().position(|(view, _)| *view == fetching.view);
            pair = at.map_or(0, |at| (at + 1) % wanted.len());
        }
        let newest = newest.clone();
        let Some((view, of)) = wanted.get(pair).cloned() else { return };
        let is_source = held.chain.give(of.epoch);
        let has_any = held.chain.has_any_records();
        // It was copied ahead, or is all that there is of a time long past, and must not come to light again.
        let is_ahead = self.invited.remove(&slot).is_some_and(|invited| invited.is_ready);
        if is_source {
            self.write_down(vec![slot]);
        } else if !has_any && !is_ahead {
            self.store(Work::Clear(vec![slot]));
        }
        let mut fetching = Fetching::new(now, newest, (of, view), is_source);
        if !is_source && (has_any || is_ahead) && !self.mutated(Mutation::KeepsWhatNobodyHas) {
            fetching.others_have = Some(BTreeSet::new());
        }
        if let Some(held) = self.held.get_mut(&slot) {
            fetching.needs_all = held.is_recovering(&fetching);
            held.fetching = Some(Box::new(fetching));
        }
        if is_source || has_any || is_ahead {
            self.sum_up(slot);
        } else if !self.is_fetched(now, slot) {
            self.ask_sources(slot, false);
        }
    }

    /// What is here is summed up: sources need not send the same.
    fn sum_up(&mut self, slot: Slot) {
        self.store_and(Work::Digest(slot), Awaited::Summed { slot });
        if let Some(fetching) = self.held.get_mut(&slot).and_then(|held| held.fetching.as_mut()) {
            fetching.sum_ticket = self.next_ticket;
        }
    }

    /// Asks as many members as are needed, or all, for their next part.
    pub(super) fn ask_sources(&mut self, slot: Slot, all: bool) {
        let me = self.me.incarnation;
        let Some(fetching) = self.held.get_mut(&slot).and_then(|held| held.fetching.as_mut()) else { return };
        let wanted = fetching.of.members.len() / 2 + 1;
        let others =
            fetching.of.members.iter().filter(|m| m.incarnation != me && !fetching.done.contains_key(&m.incarnation));
        let mut others: Vec<Contact> = others.copied().collect();
        // Who comes late in the next view, or not at all, is most likely silent: that is why there is another.
        others.sort_by_key(|member| {
            let at = fetching.view.members.iter().position(|next| next.incarnation == member.incarnation);
            at.unwrap_or(usize::MAX)
        });
        let all = all || fetching.needs_all || !fetching.short().is_empty();
        let count = if all { others.len() } else { wanted.saturating_sub(fetching.done.len()) };
        for to in others.into_iter().take(count) {
            self.ask_source(to, slot);
        }
    }

    fn ask_source(&mut self, to: Contact, slot: Slot) {
        let views = self.views_of(slot);
        let serial = self.any_serial();
        let Some(fetching) = self.held.get_mut(&slot).and_then(|held| held.fetching.as_mut()) else { return };
        let epoch = fetching.of.epoch;
        let source = || Source { serial, after: None, damaged: Vec::new(), is_copying: false };
        let source = fetching.sources.entry(to.incarnation).or_insert_with(source);
        if !source.is_copying {
            let (serial, after) = (source.serial, source.after.clone());
            let digest = fetching.digest.filter(|_| after.is_none());
            self.send(to, CopyMessage::Fetch { slot, epoch, views, ahead: false, digest, serial, after });
        }
    }

    pub(super) fn on_fetch(&mut self, now: Time, from: Contact, slot: Slot, epoch: u64, wanted: &Wanted) {
        let Some(held) = self.held.get_mut(&slot) else {
            self.tell_views(from, slot);
            return;
        };
        if let Some(inviting) = held.inviting.as_mut().filter(|inviting| inviting.newcomer == from.incarnation) {
            inviting.heard = now;
        }
        let served = held.chain.served().map(|view| view.epoch);
        let gives = held.may_fetch(&from) && if wanted.ahead { served == Some(epoch) } else { held.chain.give(epoch) };
        if !gives {
            self.tell_views(from, slot);
            return;
        }
        if served.is_some() && held.chain.served().is_none() {
            held.idle_since = Some(now);
            self.write_down(vec![slot]);
            self.freeze(now, slot);
        }
        let (after, unless) = (wanted.after.clone(), wanted.digest);
        let work = Work::Scan { slot, after, budget_bytes: CHUNK_BYTES, unless };
        self.store_and(work, Awaited::Scanned { to: from, slot, epoch, serial: wanted.serial });
    }

    /// A slot is served no more.
    pub(super) fn freeze(&mut self, now: Time, slot: Slot) {
        if let Some(held) = self.held.get_mut(&slot) {
            held.leads = None;
            held.lost.clear();
        }
        self.end_operations(now, slot);
    }

    pub(super) fn on_part(&mut self, now: Time, from: Contact, slot: Slot, (epoch, serial): (u64, u64), part: Part) {
        let believes = self.mutated(Mutation::BelievesOne);
        let fetching = self.held.get_mut(&slot).and_then(|held| held.fetching.as_mut());
        let is_asked = |fetching: &&mut Box<Fetching>| {
            let source = fetching.sources.get(&from.incarnation);
            fetching.of.epoch == epoch && source.is_some_and(|source| source.serial == serial)
        };
        let Some(fetching) = fetching.filter(is_asked) else {
            self.on_part_ahead(now, from, slot, (epoch, serial), part);
            return;
        };
        let Some(source) = fetching.sources.get_mut(&from.incarnation) else { return };
        if std::mem::replace(&mut source.is_copying, true) {
            return;
        }
        if part.same {
            fetching.others_have = None;
        }
        if let Some(all) = &mut fetching.others_have {
            all.extend(part.entries.iter().map(|(key, _)| key).chain(&part.damaged).cloned());
        }
        source.damaged.extend(part.damaged);
        let entries = fetching.keep_for_damaged(part.entries);
        if let Some(damaged) = believes.then(|| fetching.damaged.clone()) {
            self.store(Work::Mend { slot, epoch, damaged, doubtful: Vec::new(), all: None });
        }
        let then = Awaited::Copied { from: from.incarnation, slot, epoch, next: part.next };
        self.store_and(Work::Copy { slot, entries, evicted: part.evicted }, then);
    }

    /// A part is in the store, or could not be put there: then it is asked for again in a while.
    pub(super) fn copied(
        &mut self,
        now: Time,
        from: Incarnation,
        slot: Slot,
        epoch: u64,
        next: Option<Cursor>,
        is_done: bool,
    ) {
        let Some(fetching) = self.held.get_mut(&slot).and_then(|held| held.fetching.as_mut()) else { return };
        let Some(source) = fetching.sources.get_mut(&from).filter(|_| fetching.of.epoch == epoch) else { return };
        source.is_copying = false;
        if !is_done {
            return;
        }
        (fetching.since, fetching.tries) = (now, 0);
        source.serial += 1;
        if next.is_some() {
            source.after = next;
            let to = fetching.of.members.iter().find(|member| member.incarnation == from).copied();
            if let Some(to) = to {
                self.ask_source(to, slot);
            }
        } else {
            // What is in no slot of this is nobody's record.
            let damaged = std::mem::take(&mut source.damaged).into_iter();
            let damaged = damaged.filter(|key| self.space.place(key.clone()).slot == slot).collect();
            fetching.done.insert(from, damaged);
            if !self.is_fetched(now, slot) {
                self.ask_sources(slot, false);
            }
        }
    }

    /// Whether enough was fetched: then the view is complete here.
    pub(super) fn is_fetched(&mut self, now: Time, slot: Slot) -> bool {
        let me = self.me.incarnation;
        let (one_is_enough, trusts) = (self.mutated(Mutation::OneSource), self.mutated(Mutation::DamagedIsAbsent));
        let enough = |fetching: &Fetching| {
            let is_all = fetching.done.len() == fetching.of.members.len();
            if fetching.needs_all {
                return is_all;
            }
            let all = is_all || fetching.tries >= TRIES_MAX;
            one_is_enough
                || is_majority(fetching.done.len(), &fetching.of) && (all || trusts || fetching.short().is_empty())
        };
        let Some(held) = self.held.get_mut(&slot) else { return false };
        let Some(fetching) = held.fetching.as_mut().filter(|fetching| enough(fetching)) else { return false };
        let doubtful = if trusts { Vec::new() } else { fetching.short() };
        let is_right = doubtful.is_empty() && fetching.damaged.is_empty() && fetching.others_have.is_none();
        if fetching.mended != Mended::Yes && !is_right {
            if std::mem::replace(&mut fetching.mended, Mended::UnderWay) == Mended::No {
                let (of, epoch) = (fetching.of.epoch, fetching.view.epoch);
                let (damaged, all) = (fetching.damaged.clone(), fetching.others_have.clone());
                let work = Work::Mend { slot, epoch: of, damaged, doubtful, all };
                self.store_and(work, Awaited::Mended { slot, epoch });
            }
            return false;
        }
        let (view, is_new, is_forced) = (fetching.view.clone(), !fetching.of.has(me), fetching.needs_all);
        held.fetching = None;
        if is_forced {
            self.finish_recovery(now, slot);
        } else {
            held.chain.complete(view.epoch);
        }
        let Some(held) = self.held.get_mut(&slot) else { return false };
        (held.asked, held.asks) = (None, 0);
        self.repair.is_active(now);
        if held.chain.served() == Some(&view) {
            held.idle_since = None;
            held.lost.clear();
            held.leads = view.primary().filter(|first| first.incarnation == me).map(|_| view.epoch);
            let is_first = held.leads.is_some();
            if is_first {
                self.leads_anew(slot);
                self.may_have_removed(now, slot);
            }
            self.effects.push_back(if is_new { CopiesEffect::Took(slot) } else { CopiesEffect::Restless });
        }
        self.is_undamaged(slot);
        self.write_down(vec![slot]);
        self.answer_early(now, slot);
        // The others will say so, too.
        self.tell_complete(now, slot, false);
        self.fetch(now, slot);
        true
    }

    // ----- the end of what was before -----

    /// Tells the members of all views that are left whether the newest is complete here, and asks who else has it.
    fn tell_complete(&mut self, now: Time, slot: Slot, ask: bool) {
        let me = self.me.incarnation;
        let Some(held) = self.held.get_mut(&slot) else { return };
        held.asked = Some(now);
        let Some(epoch) = held.chain.newest().map(|view| view.epoch) else { return };
        let has = held.chain.has_records(epoch);
        let to: BTreeSet<Contact> = if has {
            held.chain.views().iter().flat_map(|view| view.members.to_vec()).collect()
        } else {
            held.chain.incomplete().into_iter().collect()
        };
        let message = CopyMessage::Complete { slot, epoch, has, ask };
        for contact in to.into_iter().filter(|contact| contact.incarnation != me) {
            if has {
                self.say_safely(contact, slot, message.clone());
            } else {
                self.send(contact, message.clone());
            }
        }
        if has {
            self.note_complete(slot, epoch, me);
        }
    }

    pub(super) fn on_complete(&mut self, from: Contact, slot: Slot, epoch: u64, has: bool, ask: bool) {
        let newest = self.view(slot).map_or(0, |view| view.epoch);
        if newest < epoch {
            self.compare_views(from, slot, epoch);
            return;
        }
        // Whoever lacks the records may lack the views that tell where to fetch them.
        if ask && (newest > epoch || !has) {
            self.tell_views(from, slot);
        }
        if ask && self.held.get(&slot).is_some_and(|held| held.chain.has_records(epoch)) {
            self.say_safely(from, slot, CopyMessage::Complete { slot, epoch, has: true, ask: false });
        }
        if has {
            self.note_complete(slot, epoch, from.incarnation);
        }
    }

    fn note_complete(&mut self, slot: Slot, epoch: u64, who: Incarnation) {
        let Some(held) = self.held.get_mut(&slot) else { return };
        let before = held.chain.views().len();
        held.chain.is_complete_at(epoch, who);
        let is_shorter = held.chain.views().len() < before;
        if held.chain.is_free() {
            self.drop_slot(slot);
        } else if is_shorter {
            self.write_down(vec![slot]);
        }
    }

    /// All members of a later view have the records, and this node is none of them.
    pub(super) fn drop_slot(&mut self, slot: Slot) {
        self.invited.remove(&slot);
        self.repair.forget(slot);
        if let Some(held) = self.held.remove(&slot)
            && !self.mutated(Mutation::ForgetsTheEnd)
        {
            self.over.insert(slot, held.chain.over());
        }
        self.write_down(vec![slot]);
        self.store(Work::Clear(vec![slot]));
        self.effects.push_back(CopiesEffect::Gave(slot));
    }

    // ----- whatever waits too long -----

    /// How long what was asked so many times in vain is not asked again.
    fn later(&self, tries: u32) -> Span {
        self.patience(ASK_AGAIN) * (1 << tries.min(4))
    }

    /// Repeats what was not answered, for one slot. True if the slot is at rest.
    pub(super) fn mend(&mut self, now: Time, slot: Slot, is_away: &dyn Fn(&Contact) -> bool) -> bool {
        let me = self.me.incarnation;
        let pause = HOPELESS_FOR + Span(self.rng.below(HOPELESS_FOR.0));
        let (vote_for, invite_for) = (self.patience(VOTE_FOR), self.patience(INVITE_FOR));
        let Some(held) = self.held.get_mut(&slot) else { return true };
        if held.election.as_ref().is_some_and(|standing| now.since(standing.since) >= vote_for) {
            (held.election, held.hopeless_until) = (None, Some(now + pause));
        }
        if held.inviting.as_ref().is_some_and(|inviting| now.since(inviting.heard) >= invite_for) {
            held.inviting = None;
        }
        // Who is away says by itself that it has the records once it is back and has them.
        let waits_for_others = held.chain.served().is_some() && held.chain.served() == held.chain.newest();
        if held.chain.is_at_rest() || waits_for_others && held.chain.incomplete().iter().all(is_away) {
            held.restless_since = None;
            return held.election.is_none() && held.inviting.is_none();
        }
        held.restless_since.get_or_insert(now);
        let tries = held.fetching.as_ref().map(|fetching| (fetching.since, fetching.tries));
        if tries.is_some_and(|(since, tries)| now.since(since) >= self.later(tries)) {
            if let Some(fetching) = self.held.get_mut(&slot).and_then(|held| held.fetching.as_mut()) {
                fetching.since = now;
                fetching.tries += 1;
            }
            if !self.is_fetched(now, slot) {
                self.repeat_fetch(slot);
            }
        }
        self.fetch(now, slot);
        let asked = self.held.get(&slot).map(|held| (held.asked, held.asks));
        if asked.is_some_and(|(at, asks)| at.is_none_or(|at| now.since(at) >= self.later(asks))) {
            if let Some(held) = self.held.get_mut(&slot) {
                held.asks += 1;
            }
            self.tell_complete(now, slot, true);
        }
        // Frozen, and nothing is known to follow: whoever wanted it may be gone.
        let idle_for = self.patience(IDLE_FOR);
        let Some(held) = self.held.get_mut(&slot) else { return true };
        let newest = held.chain.newest().cloned();
        let is_stuck = |view: &View| view.has(me) && held.chain.has_records(view.epoch) && held.recovering.is_none();
        let stuck = newest.filter(is_stuck);
        match stuck.filter(|_| held.chain.served().is_none()) {
            Some(view) => {
                let since = *held.idle_since.get_or_insert(now);
                if now.since(since) >= idle_for + Span(self.rng.below(IDLE_FOR.0)) {
                    self.propose(now, slot, view.members);
                }
            }
            None => held.idle_since = None,
        }
        false
    }
}

impl Copies {
    fn repeat_fetch(&mut self, slot: Slot) {
        let me = self.me.incarnation;
        let fetching = self.held.get(&slot).and_then(|held| held.fetching.as_ref());
        // What is being summed up is waited for.
        if fetching.is_some_and(|f| f.is_source && !f.done.contains_key(&me) && f.sum_ticket == 0) {
            self.sum_up(slot);
        }
        self.ask_sources(slot, true);
    }
}

impl Chain {
    /// Whether the records of any view are here.
    pub(super) fn has_any_records(&self) -> bool {
        self.views().iter().any(|view| self.has_records(view.epoch))
    }
}
