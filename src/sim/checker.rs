//! The ring invariant of `protocol.md` section 1, checked over all nodes at once, as only a simulator can.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::base::{Contact, Id, Incarnation, between};

/// The pointers of every live member at one moment.
#[derive(Clone, Default)]
pub struct Ring {
    members: BTreeMap<Incarnation, Pointers>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pointers {
    me: Contact,
    leaving: bool,
    predecessor: Option<Contact>,
    successors: Vec<Contact>,
}

/// What is wrong with a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingFault {
    /// No entry of this member's successor list lives.
    NoLiveSuccessor(Contact),
    /// There is not exactly one cycle; how many.
    Cycles(usize),
    /// The cycle passes zero other than once.
    Disorder(Vec<Contact>),
    /// A member that was on the cycle before is off it.
    Lost(Contact),
    /// A member that was a principal for a while is skipped by somebody's list.
    Skipped(Contact),
    /// A lookup was answered by a node that was not the owner at any moment since the question.
    WrongOwner {
        /// What was looked up.
        target: Id,
        /// Who answered.
        answer: Contact,
    },
}

/// What a check found besides that all is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Who is on the cycle.
    pub cycle: BTreeSet<Incarnation>,
    /// Whom no member's list skips.
    pub principals: BTreeSet<Incarnation>,
}

impl Ring {
    /// Notes a live member and its pointers.
    pub fn insert(&mut self, me: Contact, leaving: bool, predecessor: Option<Contact>, successors: Vec<Contact>) {
        self.members.insert(me.incarnation, Pointers { me, leaving, predecessor, successors });
    }

    /// Takes a node out that died or left.
    pub fn remove(&mut self, incarnation: Incarnation) -> bool {
        self.members.remove(&incarnation).is_some()
    }

    /// Takes those out that have begun to leave.
    pub fn remove_leavers(&mut self) {
        self.members.retain(|_, pointers| !pointers.leaving);
    }

    /// The members, in the order of their ids.
    pub fn members(&self) -> Vec<Contact> {
        let mut all: Vec<Contact> = self.members.values().map(|pointers| pointers.me).collect();
        all.sort();
        all
    }

    /// Whether this contact is a live member.
    pub fn is_member(&self, contact: &Contact) -> bool {
        self.members.contains_key(&contact.incarnation)
    }

    /// Checks the invariant. `settled` are members that were on the cycle before: they stay there for life. `base` are
    /// members that have been principals for a while: nobody skips them any more. (A joiner's list may be a message old,
    /// and skip who came in meanwhile; so a new principal is not yet one for life.)
    pub fn check(&self, settled: &BTreeSet<Incarnation>, base: &BTreeSet<Incarnation>) -> Result<Verdict, RingFault> {
        let cycle = self.the_cycle()?;
        let verdict =
            Verdict { cycle: cycle.iter().map(|contact| contact.incarnation).collect(), principals: self.principals() };
        // A leaver's predecessor passes it by before the leaver hears of it.
        let staying = |incarnation| self.members.get(incarnation).filter(|pointers| !pointers.leaving);
        if let Some(lost) = settled.difference(&verdict.cycle).find_map(staying) {
            return Err(RingFault::Lost(lost.me));
        }
        match base.difference(&verdict.principals).find_map(staying) {
            Some(skipped) => Err(RingFault::Skipped(skipped.me)),
            None => Ok(verdict),
        }
    }

    /// The one ordered cycle that first live successors form.
    fn the_cycle(&self) -> Result<Vec<Contact>, RingFault> {
        let mut next = BTreeMap::new();
        for pointers in self.members.values() {
            let live = pointers.successors.iter().find(|contact| self.is_member(contact));
            // Alone, a member is its own successor.
            let alone = pointers.successors.is_empty().then_some(&pointers.me);
            match live.or(alone) {
                Some(successor) => next.insert(pointers.me.incarnation, *successor),
                // The last two may leave together: the word that lets the other go is on its way.
                None if pointers.leaving => None,
                None => return Err(RingFault::NoLiveSuccessor(pointers.me)),
            };
        }
        // Every walk ends in a cycle; count the distinct ones by their smallest member.
        let mut cycles: BTreeMap<Incarnation, Vec<Contact>> = BTreeMap::new();
        let mut seen: BTreeSet<Incarnation> = BTreeSet::new();
        for start in self.members.values() {
            let (mut path, mut at) = (Vec::new(), start.me);
            while seen.insert(at.incarnation) {
                path.push(at);
                match next.get(&at.incarnation) {
                    Some(successor) => at = *successor,
                    None => path.clear(),
                }
            }
            if let Some(from) = path.iter().position(|contact| contact.incarnation == at.incarnation) {
                let cycle = path.split_off(from);
                let name = cycle.iter().map(|contact| contact.incarnation).min();
                cycles.extend(name.map(|name| (name, cycle)));
            }
        }
        let count = cycles.len();
        match cycles.into_values().next() {
            None => Ok(Vec::new()),
            Some(_) if count > 1 => Err(RingFault::Cycles(count)),
            Some(cycle) => {
                let descents = (0..cycle.len()).filter(|&at| cycle[(at + 1) % cycle.len()].id <= cycle[at].id).count();
                if descents == 1 { Ok(cycle) } else { Err(RingFault::Disorder(cycle)) }
            }
        }
    }

    /// Members that no member's extended successor list skips.
    pub(super) fn principals(&self) -> BTreeSet<Incarnation> {
        let mut gaps: Vec<(Id, Id)> = Vec::new();
        for pointers in self.members.values() {
            let extended = std::iter::once(&pointers.me).chain(&pointers.successors);
            let ends = pointers.successors.iter();
            gaps.extend(extended.zip(ends).map(|(from, to)| (from.id, to.id)));
        }
        gaps.sort_unstable();
        gaps.dedup();
        let skipped = |me: &Contact| gaps.iter().any(|(from, to)| between(*from, me.id, *to));
        let all = self.members.values().map(|pointers| &pointers.me);
        all.filter(|me| !skipped(me)).map(|me| me.incarnation).collect()
    }

    /// Whether every pointer is what it should be: predecessor, and the next r members in order.
    pub fn is_ideal(&self, r: usize) -> bool {
        let all = self.members();
        let count = all.len();
        all.iter().enumerate().all(|(at, me)| {
            let pointers = &self.members[&me.incarnation];
            let wanted = (1..count).take(r).map(|k| all[(at + k) % count]);
            let before = (count > 1).then(|| all[(at + count - 1) % count]);
            pointers.predecessor == before && wanted.eq(pointers.successors.iter().copied())
        })
    }

    /// The true owner of an id.
    pub fn owner(&self, id: Id) -> Option<Contact> {
        let all = self.members();
        all.iter().find(|contact| contact.id >= id).or(all.first()).copied()
    }
}

impl fmt::Display for Ring {
    /// One line for each member, in the order of the circle: `host <- predecessor | successors`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: BTreeMap<Incarnation, usize> =
            self.members().iter().enumerate().map(|(at, contact)| (contact.incarnation, at)).collect();
        let name = |contact: &Contact| match names.get(&contact.incarnation) {
            Some(at) => at.to_string(),
            None => format!("dead {contact:?}"),
        };
        for me in self.members() {
            let pointers = &self.members[&me.incarnation];
            let before = pointers.predecessor.as_ref().map_or("-".to_owned(), name);
            let after: Vec<String> = pointers.successors.iter().map(name).collect();
            let leaving = if pointers.leaving { " (leaving)" } else { "" };
            writeln!(f, "{} {me:?}{leaving} <- {before} | {}", name(&me), after.join(" "))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(id: u128) -> Contact {
        Contact { id: Id::from_u128(id), addr: ([127, 0, 0, 1], 1).into(), incarnation: Incarnation(id) }
    }

    fn ring(lists: &[(u128, &[u128])]) -> Ring {
        let members = lists.iter().map(|(id, list)| {
            let successors = list.iter().map(|id| contact(*id)).collect();
            (Incarnation(*id), Pointers { me: contact(*id), leaving: false, predecessor: None, successors })
        });
        Ring { members: members.collect() }
    }

    fn verdict(lists: &[(u128, &[u128])], settled: &[u128]) -> Result<usize, RingFault> {
        let settled = settled.iter().map(|id| Incarnation(*id)).collect();
        ring(lists).check(&settled, &settled).map(|verdict| verdict.cycle.len())
    }

    #[test]
    fn a_ring_with_an_appendage_is_right_until_the_appendage_was_settled() {
        let lists: &[(u128, &[u128])] = &[(1, &[5, 9]), (5, &[9, 1]), (9, &[1, 5]), (7, &[9, 1, 5])];
        assert_eq!(verdict(lists, &[1, 5, 9]), Ok(3));
        assert_eq!(verdict(lists, &[7]), Err(RingFault::Lost(contact(7))));
        let nothing = BTreeSet::new();
        let base = BTreeSet::from([Incarnation(7)]);
        assert_eq!(ring(lists).check(&nothing, &base), Err(RingFault::Skipped(contact(7))));
    }

    #[test]
    fn two_cycles_disorder_and_dead_ends_are_found() {
        assert_eq!(verdict(&[(1, &[2]), (2, &[1]), (3, &[4]), (4, &[3])], &[]), Err(RingFault::Cycles(2)));
        let loopy: &[(u128, &[u128])] = &[(1, &[3]), (3, &[2]), (2, &[4]), (4, &[1])];
        assert!(matches!(verdict(loopy, &[]), Err(RingFault::Disorder(_))));
        assert_eq!(verdict(&[(1, &[8, 9])], &[]), Err(RingFault::NoLiveSuccessor(contact(1))));
        assert_eq!(verdict(&[(1, &[])], &[1]), Ok(1));
    }
}
