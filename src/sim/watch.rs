//! The ring invariant of `protocol.md` section 1, checked after every step of a large world.
//!
//! [`Ring::check`](super::checker::Ring::check) looks at the whole ring at once, which costs more than the step that is
//! checked. This watch hears of every change and looks only at what it touches: the cycle between the changed member and
//! where its path meets the cycle again, and the members inside the gaps that a new successor list has. A test runs both
//! side by side and wants the same verdicts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::checker::{Ring, RingFault};
use super::eras::Eras;
use crate::base::{Contact, Id, Incarnation, Span, Time, between};
use crate::overlay::{Overlay, Standing};

/// What is known of every live member, kept up to date change by change.
pub struct RingWatch {
    /// Length r of the successor lists.
    successors: usize,
    /// Whether faults are looked for. Without, only whether the ring is ideal.
    strict: bool,
    members: BTreeMap<Id, Member>,
    // Who lists a node, member or not.
    listed_by: BTreeMap<Incarnation, BTreeSet<Id>>,
    // Neighbouring entries of the extended lists, with how many lists have them.
    gaps: BTreeMap<(Id, Id), u32>,
    cycle: usize,
    principals: usize,
    // Members with a pointer that is not what it should be.
    wrong: BTreeSet<Id>,
    eras: Eras,
}

#[derive(Clone, Debug)]
struct Member {
    me: Contact,
    leaving: bool,
    predecessor: Option<Contact>,
    successors: Vec<Contact>,
    /// The first live successor; itself when alone.
    next: Option<Id>,
    on_cycle: bool,
    /// Was on the cycle once: stays there for life.
    settled: bool,
    /// Gaps that skip it.
    skipped_by: u32,
    /// Since when nobody skips it.
    principal_since: Option<Time>,
}

/// What one member knows of its place.
pub(super) struct Pointers<'a> {
    pub me: Contact,
    pub leaving: bool,
    pub predecessor: Option<Contact>,
    pub successors: &'a [Contact],
}

/// After so long a principal is one for life. (A joiner's list may be a message old, and skip who came in meanwhile; so
/// a new principal is not yet one for life.)
pub(super) const BASE_AFTER: Span = Span::secs(3);

impl RingWatch {
    /// Nobody yet, in a ring with successor lists of this length.
    pub fn new(successors: usize, strict: bool) -> Self {
        Self {
            successors,
            strict,
            members: BTreeMap::new(),
            listed_by: BTreeMap::new(),
            gaps: BTreeMap::new(),
            cycle: 0,
            principals: 0,
            wrong: BTreeSet::new(),
            eras: Eras::default(),
        }
    }

    /// How many live members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Live members that nobody's list skips.
    pub fn principals(&self) -> usize {
        self.principals
    }

    /// Who is on the cycle.
    #[cfg(test)]
    pub(super) fn cycle(&self) -> BTreeSet<Incarnation> {
        self.members.values().filter(|member| member.on_cycle).map(|member| member.me.incarnation).collect()
    }

    /// Whether every pointer is what it should be: the predecessor, and the next r members in order.
    pub fn is_ideal(&self) -> bool {
        self.wrong.is_empty()
    }

    /// A member with a pointer that is not what it should be.
    pub fn first_wrong(&self) -> Option<Contact> {
        self.wrong.first().map(|id| self.members[id].me)
    }

    /// The true successor of an id.
    pub fn owner(&self, id: Id) -> Option<Contact> {
        self.members.range(id..).chain(&self.members).next().map(|(_, member)| member.me)
    }

    /// Whether `owner` was the right answer to a lookup of `target` at some moment since `since`.
    pub fn was_owner(&self, owner: &Contact, target: Id, since: Time, now: Time) -> bool {
        self.eras.was_owner(owner, target, since, now)
    }

    /// The whole ring as one snapshot, with the members that stay on the cycle and those that nobody may skip.
    pub fn snapshot(&self, now: Time) -> (Ring, BTreeSet<Incarnation>, BTreeSet<Incarnation>) {
        let mut ring = Ring::default();
        for member in self.members.values() {
            ring.insert(member.me, member.leaving, member.predecessor, member.successors.clone());
        }
        let named = |keep: &dyn Fn(&Member) -> bool| {
            self.members.values().filter(|member| keep(member)).map(|member| member.me.incarnation).collect()
        };
        (ring, named(&|member| member.settled), named(&|member| member.is_base(now)))
    }

    // ----- changes -----

    /// Notes what a node's pointers are now.
    pub fn update(&mut self, now: Time, overlay: &Overlay) -> Result<(), RingFault> {
        if !overlay.standing().is_member() {
            return self.remove(now, &overlay.me());
        }
        let leaving = overlay.standing() == Standing::Leaving;
        let (predecessor, successors) = (overlay.predecessor(), overlay.successors());
        self.note(now, &Pointers { me: overlay.me(), leaving, predecessor, successors })
    }

    /// The same for one that lives and is a member.
    pub(super) fn note(&mut self, now: Time, pointers: &Pointers<'_>) -> Result<(), RingFault> {
        let me = pointers.me;
        let mut touched = BTreeSet::from([me.id]);
        if self.members.get(&me.id).is_some_and(|member| member.me.incarnation != me.incarnation) {
            let other = self.members[&me.id].me;
            self.remove(now, &other)?;
        }
        let is_new = !self.members.contains_key(&me.id);
        if is_new {
            self.insert(now, me);
            touched.extend(self.listed_by.get(&me.incarnation).into_iter().flatten());
        }
        self.repoint(now, pointers)?;
        if is_new {
            self.recheck_around(me.id);
        } else {
            self.recheck(me.id);
        }
        self.relink(now, &touched)?;
        self.establish(now, me.id);
        if let Some(next) = self.members.get(&me.id).and_then(|member| member.next) {
            self.establish(now, next);
        }
        if let Some(before) = pointers.predecessor {
            self.establish(now, before.id);
        }
        Ok(())
    }

    /// Takes a node out that died or left; nothing happens if it is no member.
    pub fn remove(&mut self, now: Time, gone: &Contact) -> Result<(), RingFault> {
        if self.members.get(&gone.id).is_none_or(|member| member.me.incarnation != gone.incarnation) {
            return Ok(());
        }
        let Some(member) = self.members.remove(&gone.id) else { return Ok(()) };
        self.cycle -= usize::from(member.on_cycle);
        self.principals -= usize::from(member.skipped_by == 0);
        self.wrong.remove(&gone.id);
        self.eras.end(now, gone.id);
        for gap in member.gaps() {
            self.close_gap(now, gap);
        }
        self.unlist(now, &member.successors, gone.id);
        self.recheck_around(gone.id);
        let touched = self.listed_by.get(&gone.incarnation).cloned().unwrap_or_default();
        self.relink(now, &touched)
    }

    fn insert(&mut self, now: Time, me: Contact) {
        let skipped_by = self.gaps.keys().filter(|(from, to)| between(*from, me.id, *to)).count();
        let skipped_by = u32::try_from(skipped_by).unwrap_or(u32::MAX);
        self.principals += usize::from(skipped_by == 0);
        let member = Member {
            me,
            leaving: false,
            predecessor: None,
            successors: Vec::new(),
            next: None,
            on_cycle: false,
            settled: false,
            skipped_by,
            principal_since: (skipped_by == 0).then_some(now),
        };
        self.members.insert(me.id, member);
        self.eras.begin(now, me);
    }

    fn repoint(&mut self, now: Time, pointers: &Pointers<'_>) -> Result<(), RingFault> {
        let me = pointers.me.id;
        let Some(member) = self.members.get_mut(&me) else { return Ok(()) };
        member.leaving = pointers.leaving;
        member.predecessor = pointers.predecessor;
        if member.leaving {
            // Its successor has been told, and may answer in its place.
            self.eras.leave_cycle(now, me);
        }
        if member.successors == pointers.successors {
            return Ok(());
        }
        let before: BTreeSet<_> = member.gaps().collect();
        let old = std::mem::replace(&mut member.successors, pointers.successors.to_vec());
        let after: BTreeSet<_> = member.gaps().collect();
        for gap in after.difference(&before) {
            self.open_gap(now, *gap)?;
        }
        for gap in before.difference(&after) {
            self.close_gap(now, *gap);
        }
        let dropped: Vec<Contact> = old.into_iter().filter(|contact| !pointers.successors.contains(contact)).collect();
        self.unlist(now, &dropped, me);
        for contact in pointers.successors {
            self.listed_by.entry(contact.incarnation).or_default().insert(me);
        }
        Ok(())
    }

    fn unlist(&mut self, now: Time, list: &[Contact], by: Id) {
        for contact in list {
            if let Some(listers) = self.listed_by.get_mut(&contact.incarnation) {
                listers.remove(&by);
                if listers.is_empty() {
                    self.listed_by.remove(&contact.incarnation);
                    self.eras.forget(now, contact);
                }
            }
        }
    }

    // ----- principals -----

    fn open_gap(&mut self, now: Time, gap: (Id, Id)) -> Result<(), RingFault> {
        let lists = self.gaps.entry(gap).or_default();
        *lists += 1;
        if *lists > 1 {
            return Ok(());
        }
        for id in self.inside(gap) {
            let Some(member) = self.members.get_mut(&id) else { continue };
            if self.strict && member.is_base(now) && !member.leaving {
                return Err(RingFault::Skipped(member.me));
            }
            self.principals -= usize::from(member.skipped_by == 0);
            member.skipped_by += 1;
            member.principal_since = None;
        }
        Ok(())
    }

    fn close_gap(&mut self, now: Time, gap: (Id, Id)) {
        let Some(lists) = self.gaps.get_mut(&gap) else { return };
        *lists -= 1;
        if *lists > 0 {
            return;
        }
        self.gaps.remove(&gap);
        for id in self.inside(gap) {
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.skipped_by -= 1;
            if member.skipped_by == 0 {
                self.principals += 1;
                member.principal_since = Some(now);
            }
        }
    }

    /// The members strictly inside a gap.
    fn inside(&self, (from, to): (Id, Id)) -> Vec<Id> {
        let after = (Bound::Excluded(from), Bound::Unbounded);
        if from < to {
            self.members.range((after.0, Bound::Excluded(to))).map(|(id, _)| *id).collect()
        } else {
            self.members.range(after).chain(self.members.range(..to)).map(|(id, _)| *id).collect()
        }
    }

    // ----- the cycle -----

    fn relink(&mut self, now: Time, touched: &BTreeSet<Id>) -> Result<(), RingFault> {
        let mut changed = Vec::new();
        for id in touched {
            let Some(member) = self.members.get(id) else { continue };
            let live = member.successors.iter().find(|contact| self.is_live(contact)).map(|contact| contact.id);
            let next = live.or(member.successors.is_empty().then_some(*id));
            // The last two may leave together: the word that lets the other go is on its way.
            if self.strict && next.is_none() && !member.leaving {
                return Err(RingFault::NoLiveSuccessor(member.me));
            }
            if next != member.next {
                changed.push(*id);
            }
            if let Some(member) = self.members.get_mut(id) {
                member.next = next;
            }
        }
        if self.strict {
            // The cycle first: what hangs on it is judged by where it leads then.
            changed.sort_by_key(|id| !self.members[id].on_cycle);
            for id in changed {
                self.follow(now, id)?;
            }
        }
        Ok(())
    }

    fn is_live(&self, contact: &Contact) -> bool {
        self.members.get(&contact.id).is_some_and(|member| member.me.incarnation == contact.incarnation)
    }

    /// The path from `id` on has changed: follows it to the cycle.
    fn follow(&mut self, now: Time, id: Id) -> Result<(), RingFault> {
        if self.cycle == 0 {
            // The first member, or all that were on the cycle are gone.
            return self.find_cycle(now, id);
        }
        let Some(member) = self.members.get(&id) else { return Ok(()) };
        let (mut path, mut at, on_cycle) = (Vec::new(), member.next, member.on_cycle);
        let end = loop {
            let Some(next) = at else { return if on_cycle { self.open_cycle(now) } else { Ok(()) } };
            if self.members[&next].on_cycle {
                break next;
            }
            if path.contains(&next) || next == id {
                if !on_cycle {
                    return Err(RingFault::Cycles(2));
                }
                self.open_cycle(now)?;
                return self.find_cycle(now, id);
            }
            path.push(next);
            at = self.members[&next].next;
        };
        if !on_cycle {
            return Ok(());
        }
        self.check_order(id, &path, end)?;
        for skipped in self.inside((id, end)) {
            let Some(member) = self.members.get_mut(&skipped).filter(|member| member.on_cycle) else { continue };
            member.on_cycle = false;
            self.cycle -= 1;
            self.eras.leave_cycle(now, skipped);
            // A leaver's predecessor passes it by before the leaver hears of it.
            if !member.leaving {
                return Err(RingFault::Lost(member.me));
            }
        }
        for id in path.into_iter().chain([id]) {
            if let Some(member) = self.members.get_mut(&id) {
                self.cycle += usize::from(!member.on_cycle);
                member.on_cycle = true;
                member.settled = true;
            }
            self.establish(now, id);
        }
        Ok(())
    }

    /// The cycle ends at a leaver that has nobody left: that is right only if all on it are about to leave.
    fn open_cycle(&mut self, now: Time) -> Result<(), RingFault> {
        self.cycle = 0;
        for member in self.members.values_mut().filter(|member| member.on_cycle) {
            if !member.leaving {
                return Err(RingFault::Lost(member.me));
            }
            member.on_cycle = false;
            self.eras.leave_cycle(now, member.me.id);
        }
        Ok(())
    }

    /// Marks the cycle that the path from `id` ends in.
    fn find_cycle(&mut self, now: Time, id: Id) -> Result<(), RingFault> {
        let mut path = vec![id];
        let begin = loop {
            let Some(next) = path.last().and_then(|last| self.members[last].next) else { return Ok(()) };
            if let Some(at) = path.iter().position(|id| *id == next) {
                break at;
            }
            path.push(next);
        };
        let cycle = path.split_off(begin);
        self.check_order(cycle[0], &cycle[1..], cycle[0])?;
        self.cycle = cycle.len();
        for id in cycle {
            if let Some(member) = self.members.get_mut(&id) {
                member.on_cycle = true;
                member.settled = true;
            }
            self.establish(now, id);
        }
        Ok(())
    }

    fn check_order(&self, from: Id, path: &[Id], end: Id) -> Result<(), RingFault> {
        let mut last = from;
        for id in path {
            if !between(last, *id, end) {
                let members = [from].iter().chain(path).chain([&end]).map(|id| self.members[id].me).collect();
                return Err(RingFault::Disorder(members));
            }
            last = *id;
        }
        Ok(())
    }

    /// From now on lookups must know this member, if it is on the cycle and the next member knows it too: that one may
    /// hang beside the cycle and have come in before this member was found again. (The cycle is only followed where
    /// faults are looked for.)
    fn establish(&mut self, now: Time, id: Id) {
        let counts = |member: &&Member| (member.on_cycle || !self.strict) && !member.leaving;
        let Some(member) = self.members.get(&id).filter(counts) else { return };
        let mut after = self.members.range((Bound::Excluded(id), Bound::Unbounded)).chain(&self.members);
        let Some((_, next)) = after.next() else { return };
        let follows = next.predecessor.is_some_and(|before| before.incarnation == member.me.incarnation);
        if next.me.id == id || follows && self.listed_by.contains_key(&member.me.incarnation) {
            self.eras.establish(now, id);
        }
    }

    // ----- ideal -----

    /// The pointers of everybody for whom a member at `id` matters.
    fn recheck_around(&mut self, id: Id) {
        let before = self.members.range(..id).rev().chain(self.members.range(id..).rev());
        let after = self.members.range(id..).chain(&self.members).take(2);
        let all: Vec<Id> = before.take(self.successors).chain(after).map(|(id, _)| *id).collect();
        for id in all {
            self.recheck(id);
        }
    }

    fn recheck(&mut self, id: Id) {
        let Some(member) = self.members.get(&id) else { return };
        let clockwise = self.members.range((Bound::Excluded(id), Bound::Unbounded)).chain(self.members.range(..id));
        let wanted = clockwise.take(self.successors).map(|(_, other)| &other.me);
        let mut counter = self.members.range(..id).rev().chain(self.members.range(id..).rev());
        let before = counter.next().map(|(_, other)| other.me).filter(|before| before.id != id);
        if member.predecessor == before && member.successors.iter().eq(wanted) {
            self.wrong.remove(&id);
        } else {
            self.wrong.insert(id);
        }
    }
}

impl Member {
    /// Neighbouring entries of the extended list.
    fn gaps(&self) -> impl Iterator<Item = (Id, Id)> {
        let extended = std::iter::once(&self.me).chain(&self.successors);
        extended.zip(&self.successors).map(|(from, to)| (from.id, to.id))
    }

    fn is_base(&self, now: Time) -> bool {
        self.principal_since.is_some_and(|since| now.since(since) >= BASE_AFTER)
    }
}
