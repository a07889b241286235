//! Who owned which ids when: what the answer to a lookup is held against.
//!
//! A lookup takes time, and the ring changes meanwhile. Its answer is right if at some moment between question and
//! answer the node was a live member, and nobody who was established then lay between the target and it. A member is
//! established from when both its neighbours point at it: until then one of them may answer without it. It is no more once
//! no living member lists it: those who did have died, and nobody in the ring can know of it before it shows itself.

use std::collections::BTreeMap;

use crate::base::{Contact, Id, Incarnation, Span, Time};

/// The lives of members, for as long as a lookup may still ask about them.
#[derive(Debug, Default)]
pub(super) struct Eras(BTreeMap<Id, Vec<Era>>);

#[derive(Debug)]
struct Era {
    who: Incarnation,
    from: Time,
    until: Option<Time>,
    /// From when to when it was established; the last may go on.
    established: Vec<(Time, Option<Time>)>,
}

/// Longer than any lookup takes.
const REMEMBERED: Span = Span::secs(60);

impl Eras {
    pub fn begin(&mut self, now: Time, who: Contact) {
        let eras = self.0.entry(who.id).or_default();
        eras.retain(|era| era.until.is_none_or(|until| now.since(until) < REMEMBERED));
        eras.push(Era { who: who.incarnation, from: now, until: None, established: Vec::new() });
    }

    fn latest(&mut self, id: Id) -> Option<&mut Era> {
        self.0.get_mut(&id)?.last_mut().filter(|era| era.until.is_none())
    }

    pub fn end(&mut self, now: Time, id: Id) {
        if let Some(era) = self.latest(id) {
            era.until = Some(now);
        }
    }

    pub fn establish(&mut self, now: Time, id: Id) {
        if let Some(era) = self.latest(id)
            && era.established.last().is_none_or(|(_, until)| until.is_some())
        {
            era.established.push((now, None));
        }
    }

    /// It may be passed by, while it still lives.
    pub fn leave_cycle(&mut self, now: Time, id: Id) {
        if let Some((_, until)) = self.latest(id).and_then(|era| era.established.last_mut()) {
            until.get_or_insert(now);
        }
    }

    /// The same for one that nobody lists any more.
    pub fn forget(&mut self, now: Time, who: &Contact) {
        if self.latest(who.id).is_some_and(|era| era.who == who.incarnation) {
            self.leave_cycle(now, who.id);
        }
    }

    /// See the module.
    pub fn was_owner(&self, owner: &Contact, target: Id, since: Time, now: Time) -> bool {
        let lives = self.0.get(&owner.id).into_iter().flatten();
        let Some(life) = lives.rev().find(|era| era.who == owner.incarnation) else { return false };
        let (first, last) = (since.max(life.from), now.min(life.until.unwrap_or(now)));
        if first > last {
            return false;
        }
        let rivals = if target <= owner.id {
            self.0.range(target..owner.id).chain(self.0.range(..Id::ZERO))
        } else {
            self.0.range(target..).chain(self.0.range(..owner.id))
        };
        let rules: Vec<(Time, Time)> = rivals
            .flat_map(|(_, eras)| eras)
            .flat_map(|era| {
                let end = |until: Option<Time>| [era.until, until].into_iter().flatten().min();
                era.established.iter().map(move |(from, until)| (*from, end(*until).unwrap_or(Time(u64::MAX))))
            })
            .collect();
        // If there is a free moment, there is one at the beginning or where a rule ends.
        let moments = rules.iter().map(|(_, end)| *end).chain([first]).filter(|at| first <= *at && *at <= last);
        moments.into_iter().any(|at| !rules.iter().any(|(from, end)| *from <= at && at < *end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(id: u128) -> Contact {
        Contact { id: Id::from_u128(id), addr: ([127, 0, 0, 1], 1).into(), incarnation: Incarnation(id) }
    }

    #[test]
    fn an_answer_is_right_if_it_was_so_at_some_moment_of_the_lookup() {
        let mut eras = Eras::default();
        for id in [10, 20] {
            eras.begin(Time(0), contact(id));
            eras.establish(Time(0), Id::from_u128(id));
        }
        eras.begin(Time(50), contact(15));
        let was = |eras: &Eras, owner, target, since, now| {
            eras.was_owner(&contact(owner), Id::from_u128(target), Time(since), Time(now))
        };
        assert!(was(&eras, 20, 12, 60, 70), "who is not established may be passed over");
        assert!(was(&eras, 15, 12, 60, 70), "and may answer");
        assert!(!was(&eras, 15, 12, 10, 40), "but not before it lived");
        eras.establish(Time(80), Id::from_u128(15));
        assert!(was(&eras, 20, 12, 70, 90), "at 75 it was right");
        assert!(!was(&eras, 20, 12, 80, 90));
        assert!(was(&eras, 10, 25, 0, 1) && !was(&eras, 20, 25, 0, 1), "past zero");
        eras.forget(Time(92), &contact(15));
        eras.establish(Time(94), Id::from_u128(15));
        assert!(was(&eras, 20, 12, 90, 110) && !was(&eras, 20, 12, 95, 99), "for a while nobody knew it");
        eras.end(Time(100), Id::from_u128(15));
        assert!(was(&eras, 20, 12, 90, 110), "its owner died meanwhile");
        assert!(!was(&eras, 20, 12, 85, 91) && !was(&eras, 15, 12, 101, 110));
    }
}
