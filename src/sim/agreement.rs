//! The watch and the checker side by side: after every change both must say the same.
//!
//! The watch is quick because it looks only at what a change touches, and so it may overlook something; the checker looks
//! at everything and remembers nothing. What the watch remembers (who was on the cycle, who is a principal since when) is
//! kept here a second time, the plain way.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;

use super::checker::{Ring, RingFault};
use super::watch::{BASE_AFTER, Pointers, RingWatch};
use super::world::{Check, HostId, World, WorldConfig};
use crate::base::{Contact, Id, Incarnation, Rng, Span, Time};
use crate::node::Wishes;
use crate::overlay::Standing;

/// Both checkers of one ring.
struct Pair {
    watch: RingWatch,
    ring: Ring,
    settled: BTreeSet<Incarnation>,
    principal_since: BTreeMap<Incarnation, Time>,
    successors: usize,
}

impl Pair {
    fn new(successors: usize) -> Self {
        Self {
            watch: RingWatch::new(successors, true),
            ring: Ring::default(),
            settled: BTreeSet::new(),
            principal_since: BTreeMap::new(),
            successors,
        }
    }

    fn note(&mut self, now: Time, pointers: &Pointers<'_>) -> Result<(), RingFault> {
        let at_its_place = self.ring.members().into_iter().find(|other| other.id == pointers.me.id);
        if let Some(other) = at_its_place.filter(|other| other.incarnation != pointers.me.incarnation) {
            self.remove(now, &other)?;
        }
        let Pointers { me, leaving, predecessor, successors } = *pointers;
        self.ring.insert(me, leaving, predecessor, successors.to_vec());
        let seen = self.watch.note(now, pointers);
        self.compare(now, seen)
    }

    fn remove(&mut self, now: Time, gone: &Contact) -> Result<(), RingFault> {
        // Whoever comes back begins anew, if under its old name.
        self.ring.remove(gone.incarnation);
        self.settled.remove(&gone.incarnation);
        self.principal_since.remove(&gone.incarnation);
        let seen = self.watch.remove(now, gone);
        self.compare(now, seen)
    }

    fn compare(&mut self, now: Time, seen: Result<(), RingFault>) -> Result<(), RingFault> {
        let is_old = |since: &Time| now.since(*since) >= BASE_AFTER;
        let base = self.principal_since.iter().filter(|(_, since)| is_old(since)).map(|(who, _)| *who).collect();
        let verdict = match (self.ring.check(&self.settled, &base), seen) {
            (Ok(verdict), Ok(())) => verdict,
            (Err(fault), Err(seen)) => {
                // Whom the watch names first is chance; and that somebody is skipped it sees before all else.
                let same = discriminant(&fault) == discriminant(&seen);
                let skipped =
                    matches!(&seen, RingFault::Skipped(who) if !self.ring.principals().contains(&who.incarnation));
                assert!(same || skipped, "the watch saw {seen:?}, the checker {fault:?}\n{}", self.ring);
                return Err(fault);
            }
            (checked, seen) => panic!("the watch saw {seen:?}, the checker {checked:?}\n{}", self.ring),
        };
        assert_eq!(self.watch.cycle(), verdict.cycle, "the cycle of\n{}", self.ring);
        assert_eq!(self.watch.principals(), verdict.principals.len(), "the principals of\n{}", self.ring);
        assert_eq!(self.watch.is_ideal(), self.ring.is_ideal(self.successors), "whether this is ideal:\n{}", self.ring);
        self.settled.extend(verdict.cycle);
        self.principal_since.retain(|who, _| verdict.principals.contains(who));
        for who in verdict.principals {
            self.principal_since.entry(who).or_insert(now);
        }
        Ok(())
    }
}

/// How often each kind of fault was met.
#[derive(Debug, Default)]
struct Met {
    steps: u32,
    no_live_successor: u32,
    cycles: u32,
    disorder: u32,
    lost: u32,
    skipped: u32,
}

impl Met {
    fn count(&mut self, fault: &RingFault) {
        match fault {
            RingFault::NoLiveSuccessor(_) => self.no_live_successor += 1,
            RingFault::Cycles(_) => self.cycles += 1,
            RingFault::Disorder(_) => self.disorder += 1,
            RingFault::Lost(_) => self.lost += 1,
            RingFault::Skipped(_) => self.skipped += 1,
            RingFault::WrongOwner { .. } => unreachable!("nobody looks anything up"),
        }
    }

    fn least(&self) -> u32 {
        [self.no_live_successor, self.cycles, self.disorder, self.lost, self.skipped].into_iter().min().unwrap_or(0)
    }
}

// ----- pointers that change at random -----

/// Places on the circle of a drawn ring.
const PLACES: u128 = 10;

/// A ring whose pointers change as no protocol would change them.
struct Drawn {
    pair: Pair,
    rng: Rng,
    now: Time,
    /// Who is a member, and whether it leaves.
    members: BTreeMap<Id, (Contact, bool)>,
    lives: u128,
}

fn at_place(place: u128, life: u128) -> Contact {
    let id = Id::from_u128((place + 1) * 1_000);
    Contact { id, addr: ([127, 0, 0, 1], 1).into(), incarnation: Incarnation(life * PLACES + place) }
}

impl Drawn {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let pair = Pair::new(1 + rng.index(4));
        Self { pair, rng, now: Time(0), members: BTreeMap::new(), lives: 0 }
    }

    fn any_place(&mut self) -> Contact {
        let place = u128::from(self.rng.below(u64::try_from(PLACES).unwrap_or(1)));
        let known = at_place(place, self.lives);
        self.members.get(&known.id).map_or(known, |(contact, _)| *contact)
    }

    fn any_member(&mut self) -> Option<Contact> {
        let n = self.rng.index(self.members.len());
        self.members.values().nth(n).map(|(contact, _)| *contact)
    }

    /// Everybody clockwise after `me`.
    fn after(&self, me: &Contact) -> Vec<Contact> {
        let mut all: Vec<Contact> = self.members.values().map(|(contact, _)| *contact).collect();
        all.retain(|contact| contact.id != me.id);
        let first = all.partition_point(|contact| contact.id < me.id);
        all.rotate_left(first);
        all
    }

    fn point(&mut self, me: Contact, before: Option<Contact>, list: &[Contact]) -> Result<(), RingFault> {
        let leaving = self.members.get(&me.id).is_some_and(|(who, leaving)| *leaving && *who == me);
        self.members.insert(me.id, (me, leaving));
        self.pair.note(self.now, &Pointers { me, leaving, predecessor: before, successors: list })
    }

    /// As a protocol would have it: everything right but, of a newcomer, what it skips.
    fn mend(&mut self, me: Contact, skips: bool) -> Result<(), RingFault> {
        let mut list = self.after(&me);
        let before = list.last().copied();
        list.retain(|_| !skips || self.rng.chance(700));
        list.truncate(self.pair.successors);
        self.point(me, before, &list)
    }

    /// Any list in order, of the living and the dead.
    fn scatter(&mut self, me: Contact) -> Result<(), RingFault> {
        let mut places: Vec<Contact> = (0..PLACES).map(|place| at_place(place, self.lives)).collect();
        for place in &mut places {
            if let Some((contact, _)) = self.members.get(&place.id) {
                *place = *contact;
            }
        }
        let first = places.partition_point(|contact| contact.id < me.id);
        places.rotate_left(first);
        let share = [0, 150, 500][self.rng.index(3)];
        places.retain(|contact| contact.id != me.id && self.rng.chance(share));
        places.truncate(self.pair.successors);
        let before = Some(self.any_place()).filter(|before| before.id != me.id);
        self.point(me, before, &places)
    }

    /// Somebody who lies elsewhere comes in between `me` and its successor.
    fn detour(&mut self, me: Contact) -> Result<(), RingFault> {
        let by = self.any_place();
        let next = self.after(&me).first().copied().filter(|next| next.id != by.id && me.id != by.id);
        let Some(next) = next else { return Ok(()) };
        self.point(by, Some(me), &[next])?;
        self.point(me, None, &[by])
    }

    fn step(&mut self, wild: bool) -> Result<(), RingFault> {
        // Where little time passes, nobody is a principal for long.
        let longest = if self.pair.successors.is_multiple_of(2) { 1_500 } else { 50 };
        self.now += Span::millis(self.rng.below(longest));
        let Some(member) = self.any_member() else {
            let first = self.any_place();
            return self.point(first, None, &[]);
        };
        match self.rng.below(10) {
            // Another life at a place, perhaps while the former one is thought to go on.
            0 => {
                self.lives += 1;
                let place = self.any_place();
                self.mend(place, true)
            }
            1 if self.members.len() > 1 => {
                self.members.remove(&member.id);
                self.pair.remove(self.now, &member)
            }
            2 if wild => self.detour(member),
            3 if wild => self.scatter(member),
            2 => {
                let place = self.any_place();
                self.mend(place, true)
            }
            3 => {
                self.members.entry(member.id).and_modify(|(_, leaving)| *leaving = true);
                self.mend(member, false)
            }
            _ => self.mend(member, false),
        }
    }
}

#[test]
fn the_watch_and_the_checker_agree_on_pointers_that_change_at_random() {
    let mut met = Met::default();
    for seed in 0..20_000 {
        let mut ring = Drawn::new(seed);
        let wild = seed % 2 == 0;
        for _ in 0..60 {
            met.steps += 1;
            if let Err(fault) = ring.step(wild) {
                met.count(&fault);
                break;
            }
        }
    }
    println!("{met:?}");
    assert!(met.least() >= 300 && met.steps > 100_000, "hardly anything was compared: {met:?}");
}

// ----- real nodes -----

/// A world in which nodes crash as they like, and what the pair has seen of it.
struct Followed {
    world: World,
    pair: Pair,
    /// Who was a member where, and the version of its neighbours.
    seen: BTreeMap<HostId, (Contact, u64)>,
}

impl Followed {
    fn new(seed: u64) -> Self {
        let mut config = WorldConfig::new(seed);
        let successors = 2 + usize::try_from(seed % 2).unwrap_or(0);
        config.wishes = Wishes { successors: Some(successors), slot_bits: Some(0), ..Wishes::default() };
        config.check = Check::Nodes;
        let mut world = World::new(config);
        world.start(&[]);
        Self { world, pair: Pair::new(successors), seen: BTreeMap::new() }
    }

    fn run_for(&mut self, span: Span) -> Result<(), RingFault> {
        let end = self.world.now() + span;
        while self.world.now() < end {
            self.world.step();
            let now = self.world.now();
            for host in 0..HostId::try_from(self.world.hosts.len()).unwrap_or(0) {
                self.look_at(now, host)?;
            }
        }
        Ok(())
    }

    fn look_at(&mut self, now: Time, host: HostId) -> Result<(), RingFault> {
        let overlay = self.world.hosts[host as usize].node.as_ref().and_then(|node| node.overlay());
        let member = overlay.filter(|overlay| overlay.standing().is_member());
        let current = member.map(|overlay| (overlay.me(), overlay.neighbours_version()));
        let Some(overlay) = member else {
            return self.seen.remove(&host).map_or(Ok(()), |(gone, _)| self.pair.remove(now, &gone));
        };
        if current == self.seen.get(&host).copied() {
            return Ok(());
        }
        self.seen.extend(current.map(|current| (host, current)));
        let leaving = overlay.standing() == Standing::Leaving;
        let (predecessor, successors) = (overlay.predecessor(), overlay.successors());
        self.pair.note(now, &Pointers { me: overlay.me(), leaving, predecessor, successors })
    }

    fn disturb(&mut self) {
        let members = self.world.members();
        let Some(&host) = members.get(self.world.rng().index(members.len().max(1))) else { return };
        match self.world.rng().below(10) {
            0..=5 => _ = self.world.start(&[host]),
            6 | 7 if members.len() > 3 => self.world.leave(host),
            8 if members.len() > 4 => self.world.crash(host),
            9 if members.len() > 4 => self.world.vanish(host),
            _ => {}
        }
    }
}

#[test]
fn the_watch_and_the_checker_agree_on_real_nodes_that_crash_as_they_like() {
    let mut met = Met::default();
    for seed in 0..120 {
        let mut run = Followed::new(seed);
        for _ in 0..60 {
            let pause = run.world.rng().below(700);
            run.disturb();
            met.steps += 1;
            if let Err(fault) = run.run_for(Span::millis(pause)) {
                met.count(&fault);
                break;
            }
        }
    }
    println!("{met:?}");
    assert!(met.steps > 1_000 && met.no_live_successor > 0 && met.lost > 0, "hardly anything was compared: {met:?}");
}
