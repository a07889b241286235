//! Users of whole nodes: what they ask, whom, and what they are told.

use std::collections::BTreeMap;

use super::{KEYS, NODES, World, draw, index, space};
use crate::base::Incarnation;
use crate::data::Outcome;
use crate::data::register::OpId;
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
        let id = OpId { node: Incarnation(99), n: number, issued: self.time().wall };
        let operation = Operation { id, command, again: false };
        self.asked.insert(number, Asked { key, op, operation, at: None, tries: 0 });
        self.try_once(number);
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
