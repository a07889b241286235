//! Who is to hold which slot, and the way there, one member at a time.
//!
//! The ring owner of a slot wishes for those of itself and its successors who should hold it by [`Placement`]. That is
//! advice: whoever is a member of the view decides on the next one by vote.

use std::collections::{BTreeMap, BTreeSet};

use super::message::CopyMessage;
use super::{Copies, CopiesEffect, Held, Timer};
use crate::base::{Contact, Incarnation, Span, Time, Weight, between};
use crate::data::Slot;
use crate::replication::chain::is_majority;
use crate::replication::{Neighbourhood, Placement, SlotRun, View, runs_of_slots};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Placing {
    /// Those next to this node, who are told of views.
    pub neighbours: Vec<Contact>,
    /// All around it: members of the slots that belong to it, and owners of those that it is a member of, are among them.
    pub around: Vec<Contact>,
    /// The slots that belong to this node.
    pub own: Vec<SlotRun>,
    // Who leaves, and when it last said so.
    leaving: BTreeMap<Incarnation, Time>,
    wished: BTreeMap<Slot, Wished>,
    // Who should hold what.
    placement: Option<Placement>,
    // Those that this node has in its list, or had and that may come back; who has gone from the ring, and since when.
    seen: BTreeMap<Contact, Weight>,
    // Who came before this node, or does: what belonged to it belongs to this node now.
    before: BTreeSet<Contact>,
    missing: BTreeMap<Incarnation, Time>,
    /// A process of before has written down views that nobody has spoken of since.
    pub restored: bool,
    /// When views changed last, and whom this node compared with last.
    pub changed: Option<Time>,
    pub compared: Option<Contact>,
    queried: Option<Time>,
    // When the owner of a slot was looked up.
    sought: Option<Time>,
    unknown_since: Option<Time>,
    /// Slots that this node has lost track of.
    pub lost: Vec<Slot>,
    /// Slots that this node coordinates and whose owners may not know that; the latest that another was offered of.
    pub untold: BTreeSet<Slot>,
    pub offered: Option<Slot>,
    // Wishes of others for later: the view of which epoch is to be followed by these members.
    put_off: BTreeMap<Slot, (Contact, u64, Vec<Contact>)>,
    // When a key was last read or written here.
    asked: Option<Time>,
    said_leaving: Option<Time>,
    stranded_since: Option<Time>,
    settled: Settled,
}

/// A wish under way.
#[derive(Clone, Copy, Debug)]
struct Wished {
    // What is to follow the view of this epoch.
    epoch: u64,
    since: Time,
    // How many members were told.
    told: usize,
}

/// How far the slots are from where they belong, as far as this node is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Slots that belong to this node and have other members than they should, or nobody knows which.
    pub to_move: usize,
    /// Slots of which this node is a member whose change of view is not over.
    pub changing: usize,
}

/// Changes of view that one node begins at a time.
pub(super) const MOVES_MAX: usize = 32;
/// Wishes that others are to heed at a time.
const WISHES_MAX: usize = 8 * MOVES_MAX;
/// The same while keys of this node are read or written, or were a while ago: users should not notice that slots move.
/// And as many more for each such time that a round trip takes, as changes mostly wait then.
const MOVES_BESIDE_USERS: usize = 2;
const MOVES_WAIT: Span = Span::millis(10);
const WISHES_PER_MOVE: usize = 3;
const USERS_STAY: Span = Span::secs(1);
/// So many times that where round trips take so many times as long as this.
const MOVES_MORE: usize = 4;
const SLOW: Span = Span::millis(100);
/// So often a wish is told before others are asked whether the view is still the newest.
const IN_VAIN: usize = 3;
/// So long after a member went missing others are asked whether they know of a newer view.
const NEW_FOR: Span = Span::secs(3);
/// Silence after which a wish or a query is repeated.
const REPEAT_AFTER: Span = Span::secs(1);
/// After so long everybody known is asked for a view, not only neighbours.
const ASK_ALL_AFTER: Span = Span::secs(2);
/// How long somebody who said that it leaves is not wished for.
const LEAVING_FOR: Span = Span::secs(10);
/// After so long without anybody who takes its slots, a leaver gives up.
const STRANDED_AFTER: Span = Span::secs(2);

impl Placing {
    /// Somebody has read or written a key here.
    pub fn asked(&mut self, now: Time) {
        self.asked = Some(now);
    }

    fn is_asked(&self, now: Time) -> bool {
        self.asked.is_some_and(|at| now.since(at) < USERS_STAY)
    }

    /// This node has begun to leave.
    pub fn is_leaving(&self) -> bool {
        self.said_leaving.is_some()
    }

    /// True if that is news.
    pub fn leaves(&mut self, now: Time, who: Incarnation) -> bool {
        self.leaving.insert(who, now).is_none()
    }
}

/// The members that follow these, to come closer to those that are wished for: at most one comes or goes. `None`: they are
/// as they should be.
fn closer(now: &[Contact], wished: &[Contact], is_gone: &dyn Fn(&Contact) -> bool) -> Option<Vec<Contact>> {
    // Who is at another place than before is the same member.
    let moved = |member: &Contact| wished.iter().find(|contact| contact.incarnation == member.incarnation).copied();
    let mut next: Vec<Contact> = now.iter().map(|member| moved(member).unwrap_or(*member)).collect();
    if next != now {
        return Some(next);
    }
    let newcomer = wished.iter().find(|contact| !now.contains(contact));
    let gone = now.iter().position(is_gone);
    let surplus = || now.iter().rposition(|contact| !wished.contains(contact));
    match (newcomer, gone) {
        (Some(newcomer), Some(at)) => next[at] = *newcomer,
        (Some(newcomer), None) if now.len() < wished.len() => next.push(*newcomer),
        (Some(newcomer), None) => match surplus() {
            Some(at) => next[at] = *newcomer,
            None => return None,
        },
        (None, gone) => {
            if let Some(at) = gone.or_else(surplus).filter(|_| now.len() > 1) {
                next.remove(at);
            }
        }
    }
    let place = |contact: &Contact| wished.iter().position(|of| of == contact).unwrap_or(usize::MAX);
    next.sort_by_key(place);
    (next != now).then_some(next)
}

impl Copies {
    /// Begins, repeats and ends whatever the present ring calls for.
    pub fn maintain(&mut self, now: Time, around: &Neighbourhood<'_>) {
        let me = self.me;
        self.round_trip = around.round_trip;
        self.placing.leaving.retain(|_, at| now.since(*at) < LEAVING_FOR);
        let nearby = around.predecessor.iter().chain(around.successors.iter().take(self.replicas + 1));
        self.placing.neighbours = nearby.filter(|contact| !(around.is_lost)(contact)).copied().collect();
        let all = around.predecessor.iter().chain(around.successors);
        self.placing.around = all.filter(|contact| !(around.is_lost)(contact)).copied().collect();
        let is_away = |who: &Contact| !(around.answers)(who) || around.is_whole && *who != me && !around.has(who);
        let slots: Vec<Slot> = self.held.keys().copied().collect();
        self.placing.settled = Settled::default();
        for slot in slots {
            if !self.mend(now, slot, &is_away) {
                self.placing.settled.changing += 1;
            }
        }
        self.mend_damage(now, around);
        self.recover_more(now);
        self.placing.settled.changing += self.damaged() + self.to_recover();
        let mut budget = self.moves_left(now, around.leaving);
        while budget > 0
            && let Some((slot, (from, epoch, members))) = self.placing.put_off.pop_first()
        {
            self.heed(now, from, slot, epoch, members);
            budget -= 1;
        }
        self.placing.settled.changing += self.placing.put_off.len();
        self.compare_later(now);
        let mut unknown = Vec::new();
        if around.leaving {
            self.give_away(now, around, budget);
        } else {
            unknown = self.place(now, around, budget);
            let stale = self.stale_invitations(now);
            self.ask_for_release(now, stale);
        }
        // Those who could tell how it went on may be others than those whom this node knows of.
        let left_over = self.left_over(around);
        if self.is_at_rest() {
            self.placing.settled.changing = left_over.len();
        }
        let lost: Vec<Slot> = self.lost_track_of(now).union(&left_over).copied().collect();
        self.find_owner(now, &lost);
        unknown.extend(&lost);
        // Others may have gone on while this node was away, without anybody who would tell it.
        let asks_all = self.placing.restored && !around.successors.is_empty();
        if asks_all {
            unknown.extend(self.held.keys());
        }
        self.placing.lost = lost;
        unknown.sort_unstable();
        unknown.dedup();
        let is_asked = self.query(now, around, &unknown);
        if asks_all {
            self.placing.restored = !is_asked;
            self.effects.push_back(CopiesEffect::Restless);
        }
        self.hear_own(now);
    }

    /// How many changes of view this node may begin now.
    fn moves_left(&self, now: Time, is_leaving: bool) -> usize {
        let moving = self.held.values().filter(|held| held.election.is_some() || held.inviting.is_some()).count();
        // Whoever leaves has not long.
        let moves_max = if self.is_beside_users(now) && !is_leaving {
            self.moves_beside_users()
        } else {
            MOVES_MAX * self.slowness()
        };
        moves_max.saturating_sub(moving)
    }

    fn moves_beside_users(&self) -> usize {
        let more = usize::try_from(self.round_trip.0 / MOVES_WAIT.0).unwrap_or(usize::MAX);
        MOVES_BESIDE_USERS.saturating_mul(more.saturating_add(1)).min(MOVES_MAX)
    }

    /// Somebody wishes for other members of a slot: a newcomer for many at once, as it knows of no users yet.
    pub(super) fn on_wish(&mut self, now: Time, from: Contact, slot: Slot, epoch: u64, members: Vec<Contact>) {
        let newest = self.held.get(&slot).and_then(|held| held.chain.newest()).map_or(0, |view| view.epoch);
        if newest != epoch {
            self.compare_views(from, slot, epoch);
        } else if !self.held.contains_key(&slot) {
            // There is nothing to change yet.
        } else if self.is_beside_users(now) && self.moves_left(now, false) == 0 {
            self.placing.put_off.insert(slot, (from, epoch, members));
            self.effects.push_back(CopiesEffect::Restless);
        } else {
            self.heed(now, from, slot, epoch, members);
        }
    }

    /// How many times as many changes as usual may be under way: each takes some round trips.
    fn slowness(&self) -> usize {
        usize::try_from(self.round_trip.0 / SLOW.0).unwrap_or(usize::MAX).clamp(1, MOVES_MORE)
    }

    /// Whether changes of view would be noticed: on slow links they mostly wait.
    fn is_beside_users(&self, now: Time) -> bool {
        self.placing.is_asked(now) && self.slowness() == 1
    }

    /// How far the slots are from where they belong; as of the last [`Copies::maintain`].
    pub fn settled(&self) -> Settled {
        self.placing.settled
    }

    /// Panics if more waits than there is; for tests and the simulator.
    pub fn check_invariants(&self) {
        let slots = usize::try_from(self.space.slots()).unwrap_or(usize::MAX);
        assert!(self.placing.put_off.len() <= slots, "wishes wait for slots that there are not");
        assert!(self.held.len() <= slots, "it keeps slots that there are not");
    }

    /// Whether nothing is left to do until the ring changes.
    pub fn is_at_rest(&self) -> bool {
        self.placing.settled == Settled::default()
    }

    /// Whether a leaver may go: it has no copy of anything.
    pub fn is_drained(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether a leaver has found nobody who takes its slots for a while.
    pub fn is_stranded(&self, now: Time) -> bool {
        self.placing.stranded_since.is_some_and(|since| now.since(since) >= STRANDED_AFTER)
    }

    /// Whether nobody is to wish for this one.
    fn is_unwanted(&self, contact: &Contact, around: &Neighbourhood<'_>) -> bool {
        (around.is_lost)(contact) || self.placing.leaving.contains_key(&contact.incarnation)
    }

    /// Sees to the slots that belong to this node; those whose views it does not know.
    fn place(&mut self, now: Time, around: &Neighbourhood<'_>, mut budget: usize) -> Vec<Slot> {
        let own: Vec<Slot> = around.own_slots(self.space, self.me.id).collect();
        let own_set: BTreeSet<Slot> = own.iter().copied().collect();
        self.placing.own = runs_of_slots(own.iter().copied());
        // A view whose members are all gone is most likely one of long ago.
        let living = |view: &&View| view.members.iter().any(|member| !(around.is_lost)(member));
        let known = |slot: &Slot| Some((*slot, self.view(*slot).filter(living)?.clone()));
        let views: Vec<(Slot, View)> = own.iter().filter_map(known).collect();
        let missing = self.note_missing(now, around, &views);
        self.weigh(around, &missing);
        // What has been heeded is under way no more; whoever was invited wishes for slots of others, too.
        let mut wished = std::mem::take(&mut self.placing.wished);
        wished.retain(|slot, wished| {
            (own_set.contains(slot) || self.invited.contains_key(slot))
                && self.view(*slot).is_none_or(|view| view.epoch <= wished.epoch)
        });
        self.placing.wished = wished;
        let is_told = |wished: &&Wished| now.since(wished.since) < REPEAT_AFTER;
        let beside_users = WISHES_PER_MOVE * self.moves_beside_users();
        let wishes_max = if self.is_beside_users(now) { beside_users } else { WISHES_MAX };
        budget = budget.min(wishes_max.saturating_sub(self.placing.wished.values().filter(is_told).count()));
        // Begun anywhere, so that those that come to nothing are not in the way of the others.
        let from = self.rng.index(views.len().max(1));
        for (slot, view) in views[from..].iter().chain(&views[..from]) {
            let wished = self.wished(view, *slot, around, &missing);
            let next = wished.and_then(|wished| closer(&view.members, &wished, &|who| self.is_unwanted(who, around)));
            let Some(next) = next else {
                self.placing.wished.remove(slot);
                continue;
            };
            self.placing.settled.to_move += 1;
            // Who leaves must replace whoever is missing before it can go, and does so by itself.
            let is_left = view.members.iter().any(|who| self.placing.leaving.contains_key(&who.incarnation));
            let is_left_to_it = is_left && view.members.iter().any(|who| missing.contains(who));
            if budget > 0 && !is_left_to_it && self.wish(now, *slot, view, next) {
                budget -= 1;
            }
        }
        let is_unknown = |slot: &Slot| !self.view(*slot).as_ref().is_some_and(living);
        let mut unknown: Vec<Slot> = own.into_iter().filter(is_unknown).collect();
        self.placing.settled.to_move += unknown.len();
        // Nobody heeds what this node wishes: the view that it knows of is most likely one of long ago.
        let is_vain = |wished: &Wished| wished.told > IN_VAIN;
        unknown.extend(self.placing.wished.iter().filter(|(_, wished)| is_vain(wished)).map(|(slot, _)| *slot));
        // Nor need it be one of now if members of it are missing.
        let is_new =
            |who: &Contact| self.placing.missing.get(&who.incarnation).is_some_and(|at| now.since(*at) < NEW_FOR);
        let has_lost = |(_, view): &&(Slot, View)| view.members.iter().any(is_new);
        unknown.extend(views.iter().filter(has_lost).map(|(slot, _)| *slot));
        unknown
    }

    /// Members of these views, and others that were there, that have gone from the ring and may come back: what they hold
    /// is kept for them for a while.
    fn note_missing(&mut self, now: Time, around: &Neighbourhood<'_>, views: &[(Slot, View)]) -> BTreeSet<Contact> {
        let me = self.me;
        let last = around.successors.last().map_or(me.id, |last| last.id);
        // Others may be there though this node does not know of them, but not between those whom it knows.
        let is_short = around.successors.len() + 1 < around.reach;
        self.placing.before.extend(around.predecessor);
        let would_be_known =
            |who: &Contact| around.is_whole || is_short || between(me.id, who.id, last) || !(around.answers)(who);
        let members = views.iter().flat_map(|(_, view)| view.members.iter());
        let others = self.placing.seen.keys().chain(&self.placing.before);
        let members: BTreeSet<Contact> = members.chain(others).copied().collect();
        let is_missing = |who: &Contact| who.incarnation != me.incarnation && !around.has(who) && would_be_known(who);
        let missing: BTreeSet<Contact> =
            members.into_iter().filter(|who| is_missing(who) && !self.is_unwanted(who, around)).collect();
        let placing = &mut self.placing;
        placing.before.retain(|who| around.predecessor == Some(*who) || missing.contains(who));
        placing.missing.retain(|who, _| missing.iter().any(|contact| contact.incarnation == *who));
        let is_kept =
            |who: &Contact| now.since(*placing.missing.entry(who.incarnation).or_insert(now)) < around.keep_for;
        let kept: BTreeSet<Contact> = missing.into_iter().filter(is_kept).collect();
        let since = kept.iter().filter_map(|who| placing.missing.get(&who.incarnation)).min().copied();
        match since {
            Some(since) => self.timers.set(Timer::Missing, since + around.keep_for),
            None => self.timers.cancel(Timer::Missing),
        }
        kept
    }

    /// Works out who should hold what, if other nodes are there than before.
    fn weigh(&mut self, around: &Neighbourhood<'_>, missing: &BTreeSet<Contact>) {
        let present = around.successors.iter().filter(|who| !self.is_unwanted(who, around) && **who != self.me);
        let present: Option<Vec<(Contact, Weight)>> = std::iter::once(&self.me)
            .filter(|_| !around.leaving)
            .chain(present)
            .map(|who| Some((*who, (around.weight)(who)?)))
            .collect();
        let Some(mut candidates) = present else {
            self.placing.placement = None;
            return;
        };
        let placing = &mut self.placing;
        let weight = |who: &Contact| placing.seen.get(who).copied().unwrap_or_default();
        candidates.extend(missing.iter().map(|who| (*who, weight(who))));
        placing.seen = candidates.iter().copied().collect();
        // With who is missing they may be more than a list names.
        let reach = (!around.is_whole || candidates.len() > around.reach).then_some(around.reach);
        if !placing.placement.as_ref().is_some_and(|placement| placement.is_among(&candidates, reach)) {
            placing.placement = Some(Placement::new(self.space, self.replicas, &candidates, reach));
        }
    }

    /// Who should hold a slot of this view, the first to coordinate first. `None`: it is not known yet.
    fn wished(
        &self,
        view: &View,
        slot: Slot,
        around: &Neighbourhood<'_>,
        missing: &BTreeSet<Contact>,
    ) -> Option<Vec<Contact>> {
        let placement = self.placing.placement.as_ref()?;
        let best = placement.of(slot);
        let wanted = best.len();
        let lacks = best.iter().any(|who| missing.contains(who) && !view.has(who.incarnation));
        // Who is a member already may stay so for a while though it does not answer.
        let may = |who: &Contact| !missing.contains(who) && (view.has(who.incarnation) || (around.answers)(who));
        let kept: Vec<Contact> = view.members.iter().filter(|who| missing.contains(who)).copied().collect();
        let mut wished: Vec<Contact> = best.into_iter().filter(may).take(wanted.saturating_sub(kept.len())).collect();
        // In the place of those who cannot come yet stays who is there, or else the next best come: a place is kept for a
        // missing node only where it holds something.
        let stays = view.members.iter().filter(|who| may(who) && !self.is_unwanted(who, around)).copied();
        let next_best = lacks.then(|| placement.instead(slot)).into_iter().flatten().filter(may);
        let mut others = stays.chain(next_best);
        while wished.len() + kept.len() < wanted
            && let Some(other) = others.next()
        {
            if wished.iter().all(|who| who.incarnation != other.incarnation) {
                wished.push(other);
            }
        }
        wished.extend(kept);
        Some(wished)
    }

    /// Lets a member propose these as the next of a slot: the first, so that several who wish for something do not get into
    /// each other's way, and another if that does nothing. False if that is under way.
    fn wish(&mut self, now: Time, slot: Slot, view: &View, members: Vec<Contact>) -> bool {
        let is_first = view.primary() == Some(self.me);
        if is_first && self.served(slot).is_some() {
            return self.bring_about(now, slot, members.into());
        }
        let wished = self.placing.wished.get(&slot).copied().filter(|wished| wished.epoch == view.epoch);
        if wished.is_some_and(|wished| now.since(wished.since) < self.patience(REPEAT_AFTER)) {
            return false;
        }
        let told = wished.map_or(0, |wished| wished.told);
        self.placing.wished.insert(slot, Wished { epoch: view.epoch, since: now, told: told + 1 });
        match view.members.get(told % view.members.len().max(1)) {
            Some(to) if *to == self.me => self.bring_about(now, slot, members.into()),
            Some(to) => {
                self.send(*to, CopyMessage::Wish { slot, epoch: view.epoch, members });
                true
            }
            None => false,
        }
    }

    /// It has agreed to become a member, and must know whether it is one: the members are to decide on a view without it.
    fn ask_for_release(&mut self, now: Time, invited: Vec<Slot>) {
        for slot in invited {
            if let Some(view) = self.view(slot).cloned() {
                let members = view.members.to_vec();
                self.wish(now, slot, &view, members);
            }
        }
    }

    /// Slots that have not come to rest for long, or for which too few voted: most likely others have gone on without this
    /// node.
    fn lost_track_of(&self, now: Time) -> BTreeSet<Slot> {
        let is_restless = |held: &Held| held.restless_since.is_some_and(|at| now.since(at) >= ASK_ALL_AFTER);
        let is_lost_track_of = |held: &Held| is_restless(held) || held.hopeless_until.is_some();
        self.held.iter().filter(|(_, held)| is_lost_track_of(held)).map(|(slot, _)| *slot).collect()
    }

    /// Slots most of whose members are gone: others may have gone on long ago, and nobody is left of those who would tell.
    fn left_over(&self, around: &Neighbourhood<'_>) -> BTreeSet<Slot> {
        let is_left_over = |held: &Held| {
            let living = |view: &View| view.members.iter().filter(|member| !(around.is_lost)(member)).count();
            held.chain.newest().is_some_and(|view| !is_majority(living(view), view))
        };
        self.held.iter().filter(|(_, held)| is_left_over(held)).map(|(slot, _)| *slot).collect()
    }

    /// Has the owner of one of these looked up: it knows the newest view, or soon will.
    fn find_owner(&mut self, now: Time, slots: &[Slot]) {
        if !slots.is_empty() && self.placing.sought.is_none_or(|at| now.since(at) >= REPEAT_AFTER) {
            self.placing.sought = Some(now);
            let slot = slots[self.rng.index(slots.len())];
            self.effects.push_back(CopiesEffect::FindOwner(slot));
        }
    }

    /// Asks for views that are not known here. False if that is not due.
    fn query(&mut self, now: Time, around: &Neighbourhood<'_>, unknown: &[Slot]) -> bool {
        if unknown.is_empty() {
            self.placing.unknown_since = None;
            return true;
        }
        let since = *self.placing.unknown_since.get_or_insert(now);
        if self.placing.queried.is_some_and(|at| now.since(at) < REPEAT_AFTER) {
            return false;
        }
        self.placing.queried = Some(now);
        let mut to = self.placing.around.clone();
        if now.since(since) >= ASK_ALL_AFTER {
            to.extend((around.members)());
        }
        to.sort_unstable();
        to.dedup();
        for contact in to {
            self.ask_views(contact, unknown);
        }
        true
    }

    /// A leaver is replaced in every view, or left out where there is nobody else.
    fn give_away(&mut self, now: Time, around: &Neighbourhood<'_>, mut budget: usize) {
        let me = self.me;
        if self.placing.said_leaving.is_none_or(|at| now.since(at) >= REPEAT_AFTER) {
            self.placing.said_leaving = Some(now);
            let mut to = self.placing.around.clone();
            to.extend(self.held.keys().filter_map(|slot| self.view(*slot)).flat_map(|view| view.members.to_vec()));
            to.sort_unstable();
            to.dedup();
            for contact in to.into_iter().filter(|contact| *contact != me) {
                self.send(contact, CopyMessage::Leaving);
            }
        }
        self.weigh(around, &BTreeSet::new());
        let is_willing = |c: &Contact| (around.answers)(c) && !self.is_unwanted(c, around) && *c != me;
        // Those next to it may all leave, too.
        let others = around.predecessor.into_iter().chain((around.members)());
        let willing: Vec<Contact> = around.successors.iter().copied().chain(others).filter(is_willing).collect();
        let views: Vec<(Slot, View)> =
            self.held.keys().filter_map(|slot| Some((*slot, self.view(*slot)?.clone()))).collect();
        let mut is_stranded = false;
        for (slot, view) in views {
            let is_member = view.has(me.incarnation);
            if is_member && self.served(slot).is_none() {
                continue;
            }
            // All members of the next view must have the records before this one may forget them: whoever does not answer is
            // replaced first, and also by those who go on without this one.
            let silent = view.members.iter().find(|member| **member != me && !(around.answers)(member));
            let Some(goes) = silent.copied().or(is_member.then_some(me)) else { continue };
            self.placing.settled.to_move += 1;
            let mut next: Vec<Contact> = view.members.iter().filter(|member| **member != goes).copied().collect();
            let best = self.placing.placement.as_ref().map_or_else(Vec::new, |placement| placement.of(slot));
            let best = best.into_iter().filter(|who| willing.contains(who));
            next.extend(best.chain(willing.iter().copied()).find(|contact| !view.has(contact.incarnation)));
            if is_member {
                is_stranded |= next.is_empty();
                let living = next.iter().filter(|contact| !self.is_unwanted(contact, around)).count();
                is_stranded |= living == 0 && is_majority(1, &view);
            }
            if budget > 0 && !next.is_empty() && self.wish(now, slot, &view, next) {
                budget -= 1;
            }
        }
        let invited = self.invitations();
        self.ask_for_release(now, invited);
        if is_stranded {
            self.placing.stranded_since.get_or_insert(now);
        } else {
            self.placing.stranded_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Capacity;

    fn members(all: &[u16]) -> Vec<Contact> {
        let member = |n: &u16| Contact::new(Capacity::MAX, ([10, 0, 0, 1], *n).into(), Incarnation(u128::from(*n)));
        all.iter().map(member).collect()
    }

    fn to(now: &[u16], wished: &[u16], gone: &[u16]) -> Option<Vec<u16>> {
        let gone = members(gone);
        let next = closer(&members(now), &members(wished), &|contact| gone.contains(contact));
        next.map(|next| next.iter().map(|contact| contact.addr.port()).collect())
    }

    #[test]
    fn members_come_and_go_one_at_a_time() {
        assert_eq!(to(&[1], &[1, 2, 3], &[]), Some(vec![1, 2]), "grows");
        assert_eq!(to(&[1, 2], &[2, 1, 3], &[]), Some(vec![2, 1, 3]));
        assert_eq!(to(&[1, 2, 3], &[1, 2, 3], &[]), None);
        assert_eq!(to(&[1, 2, 3], &[4, 1, 2], &[]), Some(vec![4, 1, 2]), "a joiner comes first");
        assert_eq!(to(&[1, 2, 3], &[4, 5, 6], &[]), Some(vec![4, 1, 2]), "one at a time");
        assert_eq!(to(&[1, 2, 3], &[1, 3, 4], &[2]), Some(vec![1, 3, 4]), "who is gone goes first");
        assert_eq!(to(&[1, 2, 3], &[1, 3], &[2]), Some(vec![1, 3]), "nobody is left to replace it");
        assert_eq!(to(&[2, 1], &[1, 2], &[]), Some(vec![1, 2]), "the owner goes first");
        assert_eq!(to(&[1, 2, 3], &[1], &[]), Some(vec![1, 2]), "fewer copies");
        assert_eq!(to(&[1], &[1], &[1]), None, "nobody to go to");
        let elsewhere = Contact { addr: ([10, 0, 0, 2], 9).into(), ..members(&[2])[0] };
        let next = closer(&members(&[1, 2]), &[members(&[1])[0], elsewhere, members(&[3])[0]], &|_| false);
        assert_eq!(
            next,
            Some(vec![members(&[1])[0], elsewhere]),
            "the same member at another place, before anything else"
        );
    }
}
