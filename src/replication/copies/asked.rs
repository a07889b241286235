//! What a member is asked about single keys.
//!
//! Whoever asks in a view that is not served here yet is answered once it is: members hear of a view and have its records
//! one after the other, and whoever has them first asks the others at once.

use std::collections::VecDeque;

use super::mutation::Mutation;
use super::{Awaited, Copies};
use crate::base::{Contact, Incarnation, Span, Time};
use crate::data::register::{Ballot, grant};
use crate::data::{Answer, Ask, Command, Done, Hint, Key, Slot, Trouble, Vote, Work};
use crate::replication::View;

/// A question about a key, in a view of its slot.
#[derive(Debug)]
pub(super) struct Asked {
    pub from: Contact,
    pub number: u64,
    pub slot: Slot,
    pub epoch: u64,
    pub key: Key,
    pub ask: Ask,
}

/// Questions in views that are not served here yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Early {
    asked: VecDeque<(Time, Asked)>,
    bytes: usize,
}

/// So many bytes of such questions are kept, their values and keys counted and something for the rest; of more, the oldest
/// go. Whoever asked asks again.
const EARLY_BYTES_MAX: usize = 1 << 20;
const OVERHEAD_BYTES: usize = 256;
/// For how long: who has heard nothing for so long has asked again.
const EARLY_FOR: Span = Span::secs(1);

impl Early {
    fn keep(&mut self, now: Time, asked: Asked) {
        self.bytes += asked.bytes();
        self.asked.push_back((now, asked));
        let is_over = |early: &Self, at: Time| early.bytes > EARLY_BYTES_MAX || now.since(at) >= EARLY_FOR;
        while let Some((at, oldest)) = self.asked.front()
            && is_over(self, *at)
        {
            self.bytes -= oldest.bytes();
            self.asked.pop_front();
        }
    }

    /// Those that are about this slot, each once.
    fn take(&mut self, now: Time, slot: Slot) -> Vec<Asked> {
        let mut taken: Vec<Asked> = Vec::new();
        for (at, asked) in std::mem::take(&mut self.asked) {
            if asked.slot != slot {
                self.asked.push_back((at, asked));
                continue;
            }
            self.bytes -= asked.bytes();
            let is_same = |other: &Asked| (other.from, other.number) == (asked.from, asked.number);
            if now.since(at) < EARLY_FOR && !taken.iter().any(is_same) {
                taken.push(asked);
            }
        }
        taken
    }
}

impl Asked {
    fn bytes(&self) -> usize {
        let value = match &self.ask {
            Ask::Accept(_, state) => state.record.as_ref().map_or(0, |record| record.value.len()),
            Ask::Lead { command: Command::Put(put), .. } => put.value.len(),
            Ask::Lead { .. } | Ask::Peek | Ask::Prepare(_) => 0,
        };
        OVERHEAD_BYTES + self.key.as_bytes().len() + value
    }
}

impl Copies {
    pub(super) fn on_ask(&mut self, now: Time, asked: Asked) {
        let place = self.space.place(asked.key.clone());
        let (slot, epoch) = (asked.slot, asked.epoch);
        if place.slot != slot {
            return;
        }
        let served = match self.held.get(&slot) {
            Some(held) if self.mutated(Mutation::AnswersUnserved) => held.chain.newest(),
            _ => self.served(slot),
        };
        let Some(view) = served.filter(|view| view.epoch == epoch) else {
            self.compare_views(asked.from, slot, epoch);
            if self.view(slot).is_none_or(|newest| newest.epoch <= epoch) {
                self.early.keep(now, asked);
            }
            return;
        };
        if !view.has(asked.from.incarnation) {
            return;
        }
        let grant = grant_of(view);
        let Asked { from: to, number, ask, .. } = asked;
        let changed = match &ask {
            Ask::Accept(ballot, state) if self.tells_changes => {
                Some(Box::new((place.key.clone(), Hint::of(*ballot, state))))
            }
            _ => None,
        };
        self.store_and(Work::Vote(Box::new(Vote { place, grant, ask })), Awaited::Answer { to, number, changed });
    }

    /// A slot is served here from now on: what was asked in its view before is answered.
    pub(super) fn answer_early(&mut self, now: Time, slot: Slot) {
        for asked in self.early.take(now, slot) {
            self.on_ask(now, asked);
        }
    }
}

/// A store has answered for a register. What it has read counts though the view may have ended meanwhile: whoever asked did
/// so before.
pub(super) fn voted(done: Done) -> Option<Result<Answer, Trouble>> {
    match done {
        Done::Voted(answer) => Some(Ok(answer)),
        Done::Failed(trouble) => Some(Err(trouble)),
        _ => None,
    }
}

/// The word that the first member of a view has of every key in it.
pub(super) fn grant_of(view: &View) -> Ballot {
    grant(view.epoch, view.primary().map_or(Incarnation(0), |first| first.incarnation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Capacity, Wall};
    use crate::data::register::OpId;
    use crate::data::{Condition, Put};
    use std::sync::Arc;

    fn asked(number: u64, slot: u32, value_bytes: usize) -> Asked {
        let addr = "10.0.0.1:4000".parse().expect("an address");
        let from = Contact::new(Capacity::MAX, addr, Incarnation(1));
        let put = Put {
            value: Arc::from(vec![0; value_bytes]),
            content_type: None,
            ttl_ms: None,
            condition: Condition::default(),
        };
        let id = OpId { node: Incarnation(1), n: number, issued: Wall(1) };
        let ballot = Ballot { epoch: 1, round: 1, node: Incarnation(1), n: 1 };
        let ask = Ask::Lead { ballot, id, command: Command::Put(put), again: false, now: Wall(1) };
        Asked { from, number, slot: Slot(slot), epoch: 2, key: Key::new(b"key".to_vec()).expect("a key"), ask }
    }

    #[test]
    fn early_questions_are_kept_for_a_while_within_a_budget_and_given_back_once() {
        let mut early = Early::default();
        let numbers = |taken: Vec<Asked>| taken.iter().map(|asked| asked.number).collect::<Vec<_>>();
        for number in [1, 2, 2, 3] {
            early.keep(Time(0), asked(number, u32::from(number == 3), 10));
        }
        assert_eq!(numbers(early.take(Time(10), Slot(0))), [1, 2]);
        assert_eq!(numbers(early.take(Time(10), Slot(0))), [0; 0]);
        assert_eq!(numbers(early.take(Time(0) + EARLY_FOR, Slot(1))), [0; 0], "too late");
        assert_eq!(early.bytes, 0);
        for number in 0..100 {
            early.keep(Time(0), asked(number, 0, EARLY_BYTES_MAX / 10));
            assert!(early.bytes <= EARLY_BYTES_MAX);
        }
        assert_eq!(numbers(early.take(Time(0), Slot(0))), (91..100).collect::<Vec<_>>());
        early.keep(Time(0), asked(1, 0, 2 * EARLY_BYTES_MAX));
        assert_eq!((early.bytes, early.asked.len()), (0, 0), "larger than all");
    }
}
