//! Which slots have lost so many of their members that they cannot go on by themselves, and who is left: put together from
//! what every living node says of the views that it keeps. Pure; what is done about it stands in `copies/recover.rs`.

use std::collections::{BTreeMap, BTreeSet};

use super::chain::{Members, is_majority};
use super::runs::SlotRun;
use super::view::View;
use crate::base::{Contact, Id, Incarnation};
use crate::data::{KeySpace, Slot};

/// What one node says of one of the views of a slot: the view, and whether its records are there.
pub type Surveyed = (View, bool);

/// What one node says of a slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The views that it keeps something of, or has heard of.
    pub views: Vec<Surveyed>,
    /// It has dropped the slot when the view of this epoch was known; 0: it never had it.
    pub over: u64,
}

/// What all living nodes have said.
#[derive(Debug)]
pub struct Survey {
    space: KeySpace,
    living: BTreeMap<Incarnation, Contact>,
    slots: BTreeMap<Slot, BTreeMap<u64, Epoch>>,
    over: BTreeMap<Slot, u64>,
}

#[derive(Debug)]
struct Epoch {
    members: Members,
    // Who has its records.
    complete: BTreeSet<Incarnation>,
}

/// A slot that cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Which.
    pub slot: Slot,
    /// The newest epoch that anybody knows of it, or has heard to be over; 0: nobody knows of any.
    pub epoch: u64,
    /// How many members that view has; 0: nobody knows it any more.
    pub members: usize,
    /// Members of it, and of those before whose records may be needed, who are not among the living.
    pub missing: Vec<Contact>,
    /// The latest epoch whose records anybody has, and who has them; nobody: they are gone.
    pub of: u64,
    /// See there.
    pub sources: Vec<Contact>,
    /// Who is to go on with what the sources have: the first of them, or the slot's owner.
    pub heir: Contact,
}

impl Survey {
    /// Of the living, who must all be in it.
    pub fn new(space: KeySpace, living: impl IntoIterator<Item = Contact>) -> Self {
        let living = living.into_iter().map(|contact| (contact.incarnation, contact)).collect();
        Self { space, living, slots: BTreeMap::new(), over: BTreeMap::new() }
    }

    /// One of the living says this of some slots.
    pub fn add(&mut self, who: Incarnation, said: Vec<(SlotRun, Said)>) {
        for (run, said) in said {
            for slot in run.slots(self.space) {
                let over = self.over.entry(slot).or_default();
                *over = said.over.max(*over);
                for (view, is_complete) in &said.views {
                    let epochs = self.slots.entry(slot).or_default();
                    let new = || Epoch { members: view.members.clone(), complete: BTreeSet::new() };
                    let epoch = epochs.entry(view.epoch).or_insert_with(new);
                    if *is_complete && view.has(who) {
                        epoch.complete.insert(who);
                    }
                }
            }
        }
    }

    /// The slots that cannot go on, in order.
    pub fn cases(&self) -> Vec<Case> {
        self.space.all_slots().filter_map(|slot| self.case(slot)).collect()
    }

    fn case(&self, slot: Slot) -> Option<Case> {
        let owner = self.owner(self.space.last_id(slot))?;
        let over = self.over.get(&slot).copied().unwrap_or(0);
        let none = BTreeMap::new();
        let epochs = self.slots.get(&slot).unwrap_or(&none);
        let newest = epochs.last_key_value().filter(|(epoch, _)| **epoch >= over);
        if newest.is_some() && self.can_go_on(epochs) {
            return None;
        }
        let latest = epochs.iter().rev().find(|(_, epoch)| !epoch.complete.is_empty());
        let sources = latest.map(|(_, epoch)| {
            let has = |member: &&Contact| epoch.complete.contains(&member.incarnation);
            epoch
                .members
                .iter()
                .filter(has)
                .filter_map(|member| self.living.get(&member.incarnation))
                .copied()
                .collect()
        });
        let sources: Vec<Contact> = sources.unwrap_or_default();
        let of = latest.map_or(0, |(of, _)| *of);
        // Whoever was a member since then may have what nobody else has.
        let members = epochs.range(of..).flat_map(|(_, epoch)| epoch.members.iter());
        let missing: BTreeSet<Contact> =
            members.filter(|member| !self.living.contains_key(&member.incarnation)).copied().collect();
        if newest.is_some() && missing.is_empty() {
            // A matter of time.
            return None;
        }
        Some(Case {
            slot,
            epoch: newest.map_or(over, |(epoch, _)| *epoch),
            members: newest.map_or(0, |(_, newest)| newest.members.len()),
            missing: missing.into_iter().collect(),
            of,
            heir: sources.first().copied().unwrap_or(owner),
            sources,
        })
    }

    /// Whether there is a way from records that a majority has to the newest view.
    fn can_go_on(&self, epochs: &BTreeMap<u64, Epoch>) -> bool {
        for (number, epoch) in epochs.iter().rev() {
            let view = View { epoch: *number, members: epoch.members.clone() };
            let living = view.members.iter().filter(|member| self.living.contains_key(&member.incarnation)).count();
            if !is_majority(living, &view) {
                return false;
            }
            if is_majority(epoch.complete.len(), &view) {
                return true;
            }
        }
        false
    }

    /// Whoever of the living comes first at or after an id.
    fn owner(&self, target: Id) -> Option<Contact> {
        let capacity = self.space.capacity();
        self.living.values().min_by_key(|contact| capacity.distance(target, contact.id)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Capacity;

    fn who(n: u16) -> Contact {
        Contact::new(Capacity::MAX, ([10, 0, 0, 1], n).into(), Incarnation(u128::from(n)))
    }

    fn view(epoch: u64, members: &[u16]) -> View {
        View { epoch, members: members.iter().map(|n| who(*n)).collect() }
    }

    // An epoch, its members, and whether its records are there.
    type Kept<'a> = (u64, &'a [u16], bool);

    /// One slot; each of the living with what it says of it. To the newest epoch, who is missing, of which epoch the
    /// records are, and the sources.
    fn case(said: &[(u16, &[Kept<'_>])]) -> Option<(u64, Vec<u16>, u64, Vec<u16>)> {
        let space = KeySpace::new(Capacity::MAX, 0).unwrap();
        let mut survey = Survey::new(space, said.iter().map(|(n, _)| who(*n)));
        for (n, views) in said {
            let views = views.iter().map(|(epoch, members, complete)| (view(*epoch, members), *complete)).collect();
            survey.add(who(*n).incarnation, vec![(SlotRun { first: Slot(0), count: 1 }, Said { views, over: 0 })]);
        }
        let ports = |contacts: &[Contact]| {
            let mut ports: Vec<u16> = contacts.iter().map(|contact| contact.addr.port()).collect();
            ports.sort_unstable();
            ports
        };
        let mut cases = survey.cases();
        assert!(cases.len() <= 1);
        let case = cases.pop()?;
        assert!(said.iter().any(|(n, _)| who(*n) == case.heir), "a living heir");
        Some((case.epoch, ports(&case.missing), case.of, ports(&case.sources)))
    }

    #[test]
    fn a_slot_needs_help_only_if_it_cannot_go_on_by_itself() {
        assert_eq!(case(&[(1, &[(5, &[1, 2, 3], true)]), (2, &[(5, &[1, 2, 3], true)])]), None, "a majority lives");
        let all = [(5, [1, 2, 3].as_slice(), true)];
        assert_eq!(case(&[(1, &all), (9, &[])]), Some((5, vec![2, 3], 5, vec![1])));
        assert_eq!(case(&[(9, &[(5, &[1, 2, 3], false)])]), Some((5, vec![1, 2, 3], 0, vec![])), "only heard of");
        assert_eq!(case(&[(9, &[])]), Some((0, vec![], 0, vec![])), "nobody knows of any");
        let last = [(5, [1, 2, 3].as_slice(), true), (6, [1, 4].as_slice(), false)];
        let next = [(5, [1, 2, 3].as_slice(), false), (6, [1, 4].as_slice(), false)];
        let other = [(5, [1, 2, 3].as_slice(), true)];
        assert_eq!(case(&[(1, &last), (4, &next), (2, &other)]), None, "a matter of time");
        assert_eq!(
            case(&[(1, &last), (4, &next)]),
            Some((6, vec![2, 3], 5, vec![1])),
            "nobody has a majority's records"
        );
        let ahead = [(6, [1, 4].as_slice(), true)];
        assert_eq!(case(&[(2, &other), (4, &ahead)]), Some((6, vec![1], 6, vec![4])), "the latest records count");
        assert_eq!(case(&[(1, &last), (4, &next), (2, &[]), (3, &[])]), None, "nobody is missing");
    }
}
