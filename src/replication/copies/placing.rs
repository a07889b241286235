//! Who is to hold which slot, and the way there, one member at a time.
//!
//! The ring owner of a slot wishes for itself and those who follow it. That is advice: whoever is a member of the view
//! decides on the next one by vote.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::message::CopyMessage;
use super::{Copies, CopiesEffect, Held, Timer};
use crate::base::{Contact, Incarnation, Span, Time};
use crate::data::Slot;
use crate::replication::chain::is_majority;
use crate::replication::{Neighbourhood, SlotRun, View, runs_of};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Placing {
    /// Those around this node, who are told of views.
    pub neighbours: Vec<Contact>,
    // Who leaves, and when it last said so.
    leaving: BTreeMap<Incarnation, Time>,
    wished: BTreeMap<Slot, Wished>,
    // When views changed last, and whom this node compared with last.
    pub changed: Option<Time>,
    compared: Option<Contact>,
    queried: Option<Time>,
    // When the owner of a slot was looked up.
    sought: Option<Time>,
    unknown_since: Option<Time>,
    // Slots that this node has lost track of.
    lost: Vec<Slot>,
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
/// So many times that where round trips take so many times as long as this.
const MOVES_MORE: usize = 4;
const SLOW: Span = Span::millis(100);
/// Silence after which a wish or a query is repeated.
const REPEAT_AFTER: Span = Span::secs(1);
/// After so long everybody known is asked for a view, not only neighbours.
const ASK_ALL_AFTER: Span = Span::secs(2);
/// Between two comparisons with somebody, from half of it to one and a half; while views change, and for a while after.
const COMPARE_EVERY: Span = Span::secs(10);
const COMPARE_SOON: Span = Span::secs(1);
const CHANGES_LAST: Span = Span::secs(30);
/// How long somebody who said that it leaves is not wished for.
const LEAVING_FOR: Span = Span::secs(10);
/// After so long without anybody who takes its slots, a leaver gives up.
const STRANDED_AFTER: Span = Span::secs(2);

impl Placing {
    /// This node has begun to leave.
    pub fn is_leaving(&self) -> bool {
        self.said_leaving.is_some()
    }

    pub fn leaves(&mut self, now: Time, who: Incarnation) {
        self.leaving.insert(who, now);
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

/// Of slots and epochs, in order.
fn sum(all: impl Iterator<Item = (Slot, u64)>) -> u64 {
    all.fold(0, |sum, (slot, epoch)| {
        let mixed = (sum ^ (u64::from(slot.0) << 40) ^ epoch).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 29
    })
}

impl Copies {
    /// Begins, repeats and ends whatever the present ring calls for.
    pub fn maintain(&mut self, now: Time, around: &Neighbourhood<'_>) {
        self.round_trip = around.round_trip;
        self.placing.leaving.retain(|_, at| now.since(*at) < LEAVING_FOR);
        let nearby = around.predecessor.iter().chain(around.successors.iter().take(self.replicas + 1));
        self.placing.neighbours = nearby.filter(|contact| !(around.is_lost)(contact)).copied().collect();
        let slots: Vec<Slot> = self.held.keys().copied().collect();
        self.placing.settled = Settled::default();
        for slot in slots {
            if !self.mend(now, slot) {
                self.placing.settled.changing += 1;
            }
        }
        self.mend_damage(now, around);
        self.recover_more(now);
        self.placing.settled.changing += self.damaged() + self.to_recover();
        let moving = self.held.values().filter(|held| held.election.is_some() || held.inviting.is_some()).count();
        // Each takes some round trips.
        let slow = usize::try_from(around.round_trip.0 / SLOW.0).unwrap_or(usize::MAX);
        let budget = (MOVES_MAX * slow.clamp(1, MOVES_MORE)).saturating_sub(moving);
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
        self.placing.lost = lost;
        unknown.sort_unstable();
        unknown.dedup();
        self.query(now, around, &unknown);
        self.hear_own(now);
    }

    /// How far the slots are from where they belong; as of the last [`Copies::maintain`].
    pub fn settled(&self) -> Settled {
        self.placing.settled
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
        let me = self.me;
        let others = around.successors.iter().filter(|c| !self.is_unwanted(c, around) && **c != me);
        let others: Vec<(Contact, bool)> = others.map(|contact| (*contact, (around.answers)(contact))).collect();
        let own: Vec<Slot> = around.own_slots(self.space, self.me.id).collect();
        let mut unknown = Vec::new();
        for slot in own {
            // Whose members are all gone is most likely a view of long ago.
            let living = |view: &&View| view.members.iter().any(|member| !(around.is_lost)(member));
            let Some(view) = self.view(slot).filter(living).cloned() else {
                unknown.push(slot);
                continue;
            };
            // Who is a member already may stay so for a while though it does not answer.
            let stays = |(contact, answers): &&(Contact, bool)| *answers || view.has(contact.incarnation);
            let others = others.iter().filter(stays).map(|(contact, _)| *contact);
            let wished: Vec<Contact> = std::iter::once(me).chain(others).take(self.replicas).collect();
            let Some(next) = closer(&view.members, &wished, &|contact| self.is_unwanted(contact, around)) else {
                self.placing.wished.remove(&slot);
                continue;
            };
            self.placing.settled.to_move += 1;
            if budget > 0 && self.wish(now, slot, &view, next) {
                budget -= 1;
            }
        }
        self.placing.settled.to_move += unknown.len();
        unknown
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

    /// This is the owner of a slot that this node has lost track of. It most likely owns others of them too.
    pub fn owner_found(&mut self, owner: Contact) {
        let lost = self.placing.lost.iter().map(|slot| (*slot, ()));
        let runs = runs_of(lost).into_iter().map(|(run, ())| run).collect();
        if owner != self.me {
            self.send(owner, CopyMessage::Query { runs });
        }
    }

    /// Asks for views that are not known here.
    fn query(&mut self, now: Time, around: &Neighbourhood<'_>, unknown: &[Slot]) {
        if unknown.is_empty() {
            self.placing.unknown_since = None;
            return;
        }
        let since = *self.placing.unknown_since.get_or_insert(now);
        if self.placing.queried.is_some_and(|at| now.since(at) < REPEAT_AFTER) {
            return;
        }
        self.placing.queried = Some(now);
        let runs: Vec<_> = runs_of(unknown.iter().map(|slot| (*slot, ()))).into_iter().map(|(run, ())| run).collect();
        let mut to = self.placing.neighbours.clone();
        if now.since(since) >= ASK_ALL_AFTER {
            to.extend((around.members)());
        }
        to.sort_unstable();
        to.dedup();
        let me = self.me;
        for contact in to.into_iter().filter(|contact| *contact != me) {
            self.send(contact, CopyMessage::Query { runs: runs.clone() });
        }
    }

    /// A leaver is replaced in every view, or left out where there is nobody else.
    fn give_away(&mut self, now: Time, around: &Neighbourhood<'_>, mut budget: usize) {
        let me = self.me;
        if self.placing.said_leaving.is_none_or(|at| now.since(at) >= REPEAT_AFTER) {
            self.placing.said_leaving = Some(now);
            let mut to = self.placing.neighbours.clone();
            to.extend(self.held.keys().filter_map(|slot| self.view(*slot)).flat_map(|view| view.members.to_vec()));
            to.sort_unstable();
            to.dedup();
            for contact in to.into_iter().filter(|contact| *contact != me) {
                self.send(contact, CopyMessage::Leaving);
            }
        }
        let is_willing = |c: &&Contact| (around.answers)(c) && !self.is_unwanted(c, around) && **c != me;
        let willing: Vec<Contact> = around.successors.iter().filter(is_willing).copied().collect();
        let views: Vec<(Slot, View)> =
            self.held.keys().filter_map(|slot| Some((*slot, self.served(*slot)?.clone()))).collect();
        let mut is_stranded = false;
        for (slot, view) in views {
            self.placing.settled.to_move += 1;
            // All members of the next view must have the records before this one may forget them: whoever does not answer is
            // replaced first.
            let silent = view.members.iter().find(|member| **member != me && !(around.answers)(member));
            let goes = silent.copied().unwrap_or(me);
            let mut next: Vec<Contact> = view.members.iter().filter(|member| **member != goes).copied().collect();
            next.extend(willing.iter().find(|contact| !view.has(contact.incarnation)));
            is_stranded |= next.is_empty();
            let living = next.iter().filter(|contact| !self.is_unwanted(contact, around)).count();
            is_stranded |= living == 0 && is_majority(1, &view);
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

    // ----- views that somebody has not heard of -----

    fn compare_later(&mut self, now: Time) {
        let changes = self.placing.changed.is_some_and(|at| now.since(at) < CHANGES_LAST);
        let every = if changes { COMPARE_SOON } else { COMPARE_EVERY };
        let wait = every.0 / 2 + self.rng.below(every.0);
        if self.timers.get(Timer::Compare).is_none() {
            self.timers.set(Timer::Compare, now + Span(wait));
        }
    }

    /// Compares with somebody what views the two are in.
    pub(super) fn compare(&mut self, now: Time) {
        self.compare_later(now);
        let views = self.held.values().filter_map(|held| held.chain.newest());
        let others: BTreeSet<Contact> =
            views.flat_map(|view| view.members.iter()).copied().filter(|contact| *contact != self.me).collect();
        // In turn, so that none is left out.
        let next = others.iter().find(|contact| Some(**contact) > self.placing.compared).or(others.first());
        if let Some(&to) = next {
            self.placing.compared = Some(to);
            let sum = sum(self.shared_with(to));
            self.send(to, CopyMessage::Summary { sum });
        }
    }

    /// The slots whose newest views have this node and that one for members, with their epochs.
    fn shared_with(&self, other: Contact) -> impl Iterator<Item = (Slot, u64)> {
        let (me, other) = (self.me.incarnation, other.incarnation);
        let newest = self.held.iter().filter_map(|(slot, held)| Some((*slot, held.chain.newest()?)));
        newest.filter(move |(_, view)| view.has(me) && view.has(other)).map(|(slot, view)| (slot, view.epoch))
    }

    pub(super) fn on_summary(&mut self, from: Contact, theirs: u64) {
        if sum(self.shared_with(from)) != theirs {
            let runs = runs_of(self.shared_with(from));
            self.send(from, CopyMessage::Epochs { runs, answer: false });
        }
    }

    pub(super) fn on_epochs(&mut self, from: Contact, runs: &[(SlotRun, u64)], answer: bool) {
        if !answer {
            // Either may have the other for a member where that one knows better.
            let runs = runs_of(self.shared_with(from));
            self.send(from, CopyMessage::Epochs { runs, answer: true });
        }
        let (mut newer, mut older) = (Vec::new(), Vec::new());
        for (run, epoch) in runs {
            for slot in run.slots(self.space) {
                match self.view(slot).map_or(0, |view| view.epoch).cmp(epoch) {
                    Ordering::Greater => newer.push((slot, self.views_of(slot))),
                    Ordering::Less => older.push((slot, ())),
                    Ordering::Equal => {}
                }
            }
        }
        if !newer.is_empty() {
            self.send(from, CopyMessage::Notice { views: runs_of(newer) });
        }
        if !older.is_empty() {
            let runs = runs_of(older).into_iter().map(|(run, ())| run).collect();
            self.send(from, CopyMessage::Query { runs });
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
