//! Users of whole nodes: what they ask, whom, and what they are told.

use std::collections::BTreeMap;

use super::{COLLECT_AFTER, KEYS, NODES, World, draw, index, space};
use crate::base::{Incarnation, Span};
use crate::data::Outcome;
use crate::data::register::OpId;
use crate::replication::View;
use crate::replication::copies::mutation::Mutation;
use crate::replication::copies::{Operation, Ran};
use crate::sim::linear::{History, Op};

/// A user's operation that has no answer.
pub(super) struct Asked {
    pub key: u8,
    pub op: Op,
    pub operation: Operation,
    /// Who coordinates this try; `None`: between two tries.
    pub at: Option<usize>,
    pub tries: u32,
}

/// Of so many operations one is also carried out when nobody waits for it any more.
const LATE_EVERY: u64 = 5;
/// A store takes no longer for what it was asked for.
const MARGIN: Span = Span::millis(200);
/// Operations on one key without an answer: the checker tries all of them.
const OPEN_MAX: usize = 6;
/// Of these, such that nobody waits for.
const GIVEN_UP_MAX: usize = 4;

impl World {
    pub(super) fn ask(&mut self) {
        let at = self.rng.index(KEYS);
        let key = self.keys[at];
        if self.asked.values().filter(|asked| asked.key == key).count() >= OPEN_MAX {
            let given_up = |asked: &&Asked| asked.key == key && asked.at == Some(usize::MAX);
            if self.asked.values().filter(given_up).count() >= GIVEN_UP_MAX {
                // What may still be carried out at any time leaves too little room: on with another key.
                let new = u8::try_from(self.histories.len()).expect("few");
                self.keys[at] = new;
                self.histories.insert(new, History::default());
                self.versions.insert(new, BTreeMap::new());
            }
            return;
        }
        self.next += 1;
        let number = self.next;
        let (op, command) = draw(&mut self.rng, number, &self.versions[&key]);
        self.histories.get_mut(&key).expect("a key").call(number, op);
        let id = OpId { node: Incarnation(90 + u128::from(number % 3)), n: number, issued: self.time().wall };
        let operation = Operation { id, command, again: false };
        let is_late = number.is_multiple_of(LATE_EVERY) && operation.command.is_write();
        let again = is_late;
        if is_late {
            // On its way for as long as may be; its user waits no longer, and asks somebody else.
            self.late.push((key, operation.clone()));
        }
        self.asked.insert(number, Asked { key, op, operation: Operation { again, ..operation }, at: None, tries: 0 });
        self.try_once(number);
    }

    /// A first try arrives long after it was sent, most likely after others.
    pub(super) fn deliver_late(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let at = self.rng.index(self.late.len());
        let (key, operation) = self.late.swap_remove(at);
        // Nothing is on its way for as long as a removal is remembered. And what was carried out on a key that cannot be read is
        // lost with it.
        let age = Span::millis(self.time().wall.0 - operation.id.issued.0);
        if age + MARGIN >= COLLECT_AFTER || self.blurred.contains(&key) {
            return;
        }
        let (now, place) = (self.time(), space().place(Self::key(key)));
        let views = self.nodes.iter().filter_map(|node| node.copies.as_ref()?.served(place.slot));
        let first = views.max_by_key(|view| view.epoch).and_then(View::primary).map(|first| index(&first));
        let Some(at) = first.filter(|at| self.nodes[*at].copies.is_some()) else { return };
        if let Some(copies) = &mut self.nodes[at].copies {
            // Nobody waits for the answer. Nor does it wait in line until the removal is forgotten: in the program that takes six
            // times as long as anything waits there.
            copies.run_until(now, &place, operation, now.mono + (COLLECT_AFTER - age - MARGIN));
        }
        self.hit("late");
        self.drain(at);
    }

    /// Lets some member coordinate: mostly the first of a view that somebody knows.
    pub(super) fn try_once(&mut self, number: u64) {
        let now = self.time();
        let Some(asked) = self.asked.get(&number) else { return };
        let place = space().place(Self::key(asked.key));
        let knows = self.rng.index(NODES);
        let view = self.nodes[knows].copies.as_ref().and_then(|copies| copies.view(place.slot)).cloned();
        let Some(view) = view else { return };
        let to = if self.rng.chance(800) { 0 } else { self.rng.index(view.members.len()) };
        let at = index(&view.members[to]);
        let mut operation = asked.operation.clone();
        if self.without == Some(Mutation::TriesBlindly) {
            (operation.id.n, operation.again) = (operation.id.n + 1_000_000 * u64::from(asked.tries), false);
        }
        let Some(copies) = &mut self.nodes[at].copies else { return };
        let refused = copies.run(now, number, &place, operation);
        if let Some(asked) = self.asked.get_mut(&number) {
            (asked.at, asked.tries) = (Some(at), asked.tries + 1);
        }
        match refused {
            Some(ran) => self.ran(number, ran),
            None => self.drain(at),
        }
    }

    pub(super) fn ran(&mut self, number: u64, ran: Ran) {
        let Some(asked) = self.asked.get_mut(&number) else { return };
        match ran {
            Ran::Done(outcome) => self.answer(number, &outcome),
            Ran::NotNow { again, .. } => {
                asked.at = None;
                asked.operation.again |= again;
            }
            // The checker takes it for open.
            Ran::Unknown | Ran::Failed(_) => self.give_up(number),
        }
    }

    fn answer(&mut self, number: u64, outcome: &Outcome) {
        let is_blurred = |asked: &&Asked| self.blurred.contains(&asked.key) && asked.op != Op::Read(None);
        if self.asked.get(&number).as_ref().is_some_and(is_blurred) {
            // It was carried out; on what, nobody can say.
            self.give_up(number);
            return;
        }
        let Some(Asked { key, op, .. }) = self.asked.remove(&number) else { return };
        let versions = self.versions.get_mut(&key).expect("a key");
        let told = crate::sim::clients::told(op, number, outcome, versions);
        self.histories.get_mut(&key).expect("a key").answer(number, told);
        self.hit("operations answered");
    }

    /// Nobody waits for it any more. A read changes nothing; a write may be carried out at any time.
    pub(super) fn give_up(&mut self, number: u64) {
        let Some(asked) = self.asked.get_mut(&number) else { return };
        asked.at = Some(usize::MAX);
        if asked.op == Op::Read(None)
            && let Some(Asked { key, .. }) = self.asked.remove(&number)
        {
            self.histories.get_mut(&key).expect("a key").never(number);
        }
    }
}
