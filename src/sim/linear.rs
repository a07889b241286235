//! Is what users were told of one key linearizable? (Wing and Gong 1993, in the form of Lowe 2017: one answer after the
//! other, with every state that the key may be in remembered once.)
//!
//! An operation takes effect at one moment between its call and its answer; one without an answer at any later moment,
//! or never. [`History`] keeps what the key may be at the end of what was checked, so a run may be checked in parts.

use std::collections::{BTreeMap, BTreeSet};

/// The value of a key: the number of the operation that put it; `None` where there is none.
pub type State = Option<u64>;

/// What an operation does, and what its user was told; `None`: nothing yet, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Tells what is there.
    Read(Option<State>),
    /// Puts its own number if what is there is as wanted.
    Put {
        /// What must be there.
        wanted: Wanted,
        /// How it ended.
        told: Option<Told>,
    },
    /// Removes what is there. Told whether there was something.
    Delete(Option<bool>),
}

/// The condition of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Whatever is there.
    Any,
    /// Nothing is there.
    Nothing,
    /// This value is there.
    Value(u64),
}

/// How a put ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// There was nothing before.
    Created,
    /// There was something before.
    Replaced,
    /// The condition did not hold: this was there.
    Refused(State),
    /// The condition did not hold: something was there, and nobody has been told yet what.
    RefusedBySomething,
}

/// What happened to one key, in order.
#[derive(Clone, Debug)]
pub struct History {
    ops: BTreeMap<u64, Op>,
    // Calls and answers since the last check.
    events: Vec<Event>,
    // Called and not answered at the last check.
    open: BTreeSet<u64>,
    // What the key may have been then.
    may_be: BTreeSet<Config>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Call(u64),
    Answer(u64),
}

/// A state that the key may be in, with the open operations that have brought it there.
type Config = (State, BTreeSet<u64>);

impl Default for History {
    /// A key that nobody has put.
    fn default() -> Self {
        Self {
            ops: BTreeMap::new(),
            events: Vec::new(),
            open: BTreeSet::new(),
            may_be: BTreeSet::from([(None, BTreeSet::new())]),
        }
    }
}

impl History {
    /// An operation begins. Numbers are not used twice, not even for different keys.
    pub fn call(&mut self, number: u64, op: Op) {
        self.ops.insert(number, op);
        self.events.push(Event::Call(number));
    }

    /// The user of an operation is told how it ended.
    pub fn answer(&mut self, number: u64, op: Op) {
        self.ops.insert(number, op);
        self.events.push(Event::Answer(number));
    }

    /// An operation certainly has no effect, ever.
    pub fn never(&mut self, number: u64) {
        self.ops.remove(&number);
        self.events.retain(|event| !matches!(event, Event::Call(of) if *of == number));
        self.open.remove(&number);
        self.may_be.retain(|(_, done)| !done.contains(&number));
    }

    /// How an operation was called, if it was and is not known to be without effect.
    pub fn op(&self, number: u64) -> Option<Op> {
        self.ops.get(&number).copied()
    }

    /// What the key may be now; to be asked after a check.
    pub fn may_be(&self) -> impl Iterator<Item = State> {
        self.may_be.iter().map(|(state, _)| *state)
    }

    /// Judges what happened since the last check. The error says what cannot be true. To be asked only when no answer is to
    /// come any more: whatever is open then stays so for ever.
    pub fn check(&mut self) -> Result<(), String> {
        let mut done_with = Vec::new();
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Call(number) => {
                    self.open.insert(number);
                }
                Event::Answer(number) => {
                    let before = std::mem::take(&mut self.may_be);
                    self.may_be = self.explained(&before, number);
                    if self.may_be.is_empty() {
                        return Err(self.contradiction(&before, number));
                    }
                    self.open.remove(&number);
                    done_with.push(number);
                }
            }
        }
        for number in done_with {
            self.ops.remove(&number);
        }
        Ok(())
    }

    /// What the key may be once this operation has taken effect, perhaps after others that are open.
    fn explained(&self, before: &BTreeSet<Config>, number: u64) -> BTreeSet<Config> {
        let mut seen = before.clone();
        let mut to_see: Vec<Config> = before.iter().cloned().collect();
        let mut after = BTreeSet::new();
        while let Some((state, mut done)) = to_see.pop() {
            if done.remove(&number) {
                after.insert((state, done));
                continue;
            }
            for other in self.open.iter().filter(|other| !done.contains(other)) {
                let Some(next) = self.ops.get(other).and_then(|op| op.applied_to(state, *other)) else { continue };
                let mut done = done.clone();
                done.insert(*other);
                if seen.insert((next, done.clone())) {
                    to_see.push((next, done));
                }
            }
        }
        after
    }

    fn contradiction(&self, before: &BTreeSet<Config>, number: u64) -> String {
        let open: Vec<_> = self.open.iter().filter_map(|number| self.ops.get(number).map(|op| (number, op))).collect();
        let states: BTreeSet<State> = before.iter().map(|(state, _)| *state).collect();
        format!(
            "operation {number} cannot have ended so: {:?}\nthe key was one of {states:?}; open: {open:#?}",
            self.ops[&number]
        )
    }
}

impl Op {
    /// What is there after it, if it can take effect on `state`.
    fn applied_to(self, state: State, number: u64) -> Option<State> {
        match self {
            Self::Read(told) => told.filter(|told| *told == state),
            Self::Delete(told) => told.is_none_or(|told| told == state.is_some()).then_some(None),
            Self::Put { wanted, told } => {
                let holds = match wanted {
                    Wanted::Any => true,
                    Wanted::Nothing => state.is_none(),
                    Wanted::Value(value) => state == Some(value),
                };
                match told {
                    Some(Told::Refused(there)) => (!holds && there == state).then_some(state),
                    Some(Told::RefusedBySomething) => (!holds && state.is_some()).then_some(state),
                    Some(Told::Created) => (holds && state.is_none()).then_some(Some(number)),
                    Some(Told::Replaced) => (holds && state.is_some()).then_some(Some(number)),
                    None => holds.then_some(Some(number)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    fn put(told: Option<Told>) -> Op {
        Op::Put { wanted: Wanted::Any, told }
    }

    #[test]
    fn reads_must_not_go_back() {
        let mut history = History::default();
        history.call(1, put(None));
        history.answer(1, put(Some(Told::Created)));
        history.call(2, put(None));
        history.call(3, Op::Read(None));
        history.answer(3, Op::Read(Some(Some(2))));
        assert_eq!(history.check(), Ok(()));
        // The put has no answer and never will, but its value was seen.
        history.call(4, Op::Read(None));
        history.answer(4, Op::Read(Some(Some(1))));
        assert!(history.check().is_err());
    }

    #[test]
    fn what_was_never_answered_may_happen_late_or_never_but_once() {
        let history = || {
            let mut history = History::default();
            history.call(1, put(None));
            history.call(2, put(None));
            history.answer(2, put(Some(Told::Created)));
            history
        };
        for seen in [1, 2] {
            let mut late = history();
            late.call(3, Op::Read(None));
            late.answer(3, Op::Read(Some(Some(seen))));
            assert_eq!(late.check(), Ok(()), "{seen}");
        }
        let mut twice = history();
        for (number, seen) in [(3, 1), (4, 2)] {
            twice.call(number, Op::Read(None));
            twice.answer(number, Op::Read(Some(Some(seen))));
        }
        assert!(twice.check().is_err());
        let mut never = history();
        never.never(1);
        never.call(3, Op::Read(None));
        never.answer(3, Op::Read(Some(Some(1))));
        assert!(never.check().is_err());
    }

    /// Against trying all orders: small random histories, some of them wrong.
    #[test]
    fn agrees_with_trying_every_order() {
        let (mut right, mut wrong) = (0, 0);
        for seed in 0..20_000 {
            let mut rng = Rng::new(seed);
            let (history, spans) = random_history(&mut rng);
            let verdict = history.clone().check().is_ok();
            assert_eq!(verdict, some_order_fits(&spans, &mut Vec::new(), None), "seed {seed}: {spans:?}");
            *(if verdict { &mut right } else { &mut wrong }) += 1;
        }
        assert!(right > 2_000 && wrong > 2_000, "{right} right, {wrong} wrong");
    }

    /// Call, answer, number, operation.
    type SpanOf = (usize, Option<usize>, u64, Op);

    fn random_history(rng: &mut Rng) -> (History, Vec<SpanOf>) {
        let mut history = History::default();
        let mut spans: Vec<SpanOf> = Vec::new();
        let mut waiting: Vec<(u64, Op, usize)> = Vec::new();
        let mut state = None;
        for at in 0..12 {
            let number = at as u64 + 1;
            if waiting.len() < 3 && rng.chance(600) {
                let op = match rng.below(5) {
                    0 | 1 => Op::Read(None),
                    2 => Op::Put { wanted: Wanted::Nothing, told: None },
                    3 => Op::Put { wanted: state.map_or(Wanted::Any, Wanted::Value), told: None },
                    _ => Op::Delete(None),
                };
                history.call(number, op);
                waiting.push((number, op, at));
            } else if !waiting.is_empty() {
                let (number, op, called) = waiting.swap_remove(rng.index(waiting.len()));
                // Mostly as it would be if it took effect now.
                let seen = if rng.chance(850) { state } else { Some(rng.below(12)) };
                let told = answered(op, seen);
                state = told.applied_to(seen, number).unwrap_or(state);
                history.answer(number, told);
                spans.push((called, Some(at), number, told));
            }
        }
        spans.extend(waiting.into_iter().map(|(number, op, called)| (called, None, number, op)));
        (history, spans)
    }

    fn answered(op: Op, state: State) -> Op {
        match op {
            Op::Read(_) => Op::Read(Some(state)),
            Op::Delete(_) => Op::Delete(Some(state.is_some())),
            Op::Put { wanted, .. } => {
                let holds = op.applied_to(state, 0).is_some();
                let done = if state.is_some() { Told::Replaced } else { Told::Created };
                Op::Put { wanted, told: Some(if holds { done } else { Told::Refused(state) }) }
            }
        }
    }

    fn some_order_fits(spans: &[SpanOf], taken: &mut Vec<u64>, state: State) -> bool {
        let left = || spans.iter().filter(|(.., number, _)| !taken.contains(number)).collect::<Vec<_>>();
        if left().iter().all(|(_, answer, ..)| answer.is_none()) {
            return true;
        }
        // Whoever was answered first among those that are left bounds who may come next.
        let first_answer = left().iter().filter_map(|(_, answer, ..)| *answer).min();
        for (called, _, number, op) in left() {
            if first_answer.is_some_and(|at| *called > at) {
                continue;
            }
            if let Some(next) = op.applied_to(state, *number) {
                taken.push(*number);
                let fits = some_order_fits(spans, taken, next);
                taken.pop();
                if fits {
                    return true;
                }
            }
        }
        false
    }
}
