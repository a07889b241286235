//! What the members of a view ask each other's registers, and what a register answers: carried out where it is stored.

use super::command::{Command, Outcome};
use super::key::Place;
use super::record::Record;
use super::register::{Accepted, Ballot, OpId, Operated, Refusal, Register, State, operate};
use super::store::{Store, Trouble};
use crate::base::Wall;

/// A question to one register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vote {
    /// Where it is.
    pub place: Place,
    /// What every register of the view has promised from its start.
    pub grant: Ballot,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked of a register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What have you accepted?
    Peek,
    /// Promise to accept nothing below this ballot.
    Prepare(Ballot),
    /// Accept this.
    Accept(Ballot, State),
    /// Carry this out on what you have accepted, and accept what comes of it: whoever asks has the word, and its latest
    /// proposal is known to be chosen.
    Lead {
        /// The next of its ballots.
        ballot: Ballot,
        /// The operation's name.
        id: OpId,
        /// The operation.
        command: Command,
        /// It may have been proposed before.
        again: bool,
        /// What counts as expired.
        now: Wall,
    },
}

/// What a register answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a peek.
    Told(Option<Accepted>),
    /// It promises, and has accepted this so far. Where that is nothing: of removals in the slot that are forgotten, when the
    /// latest of their operations was asked for.
    Promised(Option<Accepted>, Option<Wall>),
    /// It has accepted.
    Accepted,
    /// It has accepted this, which others are to be asked to accept; the user may be told once a majority has.
    Led(State, Outcome),
    /// It has promised more to somebody else, or there is somebody else's proposal.
    Refused(Ballot),
    /// Whether an earlier try was carried out is forgotten.
    Forgotten,
    /// Too few copies are undamaged to tell what is there.
    Doubtful,
}

impl Vote {
    /// Asks.
    pub(super) fn carry_out(self, store: &mut impl Store) -> Result<Answer, Trouble> {
        let mut register = store.register(&self.place)?.unwrap_or_default();
        let is_empty = register.accepted().is_none();
        let evicted = if is_empty { store.evicted(self.place.slot)? } else { None };
        let (answer, is_changed) = answer(&mut register, evicted, self.grant, self.ask);
        if is_changed {
            store.set(self.place, register)?;
        }
        Ok(answer)
    }

    /// User bytes that it may add to a store.
    pub fn added_bytes(&self) -> usize {
        let of = |bytes: usize| self.place.key.as_bytes().len() + bytes;
        match &self.ask {
            Ask::Accept(_, State { record: Some(record), .. }) => of(record.user_bytes()),
            Ask::Lead { command: Command::Put(put), .. } => {
                of(put.value.len() + put.content_type.as_ref().map_or(0, |text| text.len()))
            }
            _ => 0,
        }
    }
}

fn answer(register: &mut Register, evicted: Option<Wall>, grant: Ballot, ask: Ask) -> (Answer, bool) {
    match ask {
        Ask::Peek => (Answer::Told(register.accepted().cloned()), false),
        Ask::Prepare(ballot) => match register.prepare(grant, ballot) {
            Ok(accepted) => (Answer::Promised(accepted.cloned(), evicted), true),
            Err(promised) => (Answer::Refused(promised), false),
        },
        Ask::Accept(ballot, state) => match register.accept(grant, ballot, state) {
            Ok(()) => (Answer::Accepted, true),
            Err(promised) => (Answer::Refused(promised), false),
        },
        Ask::Lead { ballot, id, command, again, now } => {
            let floor = register.floor(grant);
            if ballot <= floor || !register.is_led_by(ballot) {
                return (Answer::Refused(floor), false);
            }
            let forgotten = evicted.map(State::forgotten);
            let state = register.accepted().map(|accepted| &accepted.state).or(forgotten.as_ref());
            let Operated { state, outcome } = match operate(state, (id, &command), again, ballot, now) {
                Ok(operated) => operated,
                Err(Refusal::Forgotten) => return (Answer::Forgotten, false),
                Err(Refusal::Doubtful) => return (Answer::Doubtful, false),
            };
            let state = state.unwrap_or_default();
            match register.accept(grant, ballot, state.clone()) {
                Ok(()) => (Answer::Led(state, outcome), true),
                Err(promised) => (Answer::Refused(promised), false),
            }
        }
    }
}

impl Accepted {
    /// User bytes of its record.
    pub fn user_bytes(&self) -> usize {
        self.state.record.as_ref().map_or(0, Record::user_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::{Capacity, Incarnation};
    use crate::data::register::grant;
    use crate::data::{Condition, Key, KeySpace, MemoryStore, Put};

    const NOW: Wall = Wall(7);

    fn place(store: &MemoryStore) -> Place {
        store.space().place(Key::new(*b"k").expect("a key"))
    }

    fn store() -> MemoryStore {
        MemoryStore::new(KeySpace::new(Capacity::MAX, 3).expect("a space"))
    }

    fn lead(ballot: Ballot, n: u64, text: &str) -> Ask {
        let value = Arc::from(text.as_bytes());
        let command = Command::Put(Put { value, content_type: None, ttl_ms: None, condition: Condition::default() });
        Ask::Lead { ballot, id: OpId { node: Incarnation(3), n, issued: NOW }, command, again: false, now: NOW }
    }

    #[test]
    fn who_has_the_word_goes_on_until_somebody_else_is_promised() {
        let mut store = store();
        let place = place(&store);
        let word = grant(4, Incarnation(1));
        let mut asked = |ask| Vote { place: place.clone(), grant: word, ask }.carry_out(&mut store).expect("memory");
        let first = Ballot { n: 1, ..word };
        let Answer::Led(state, Outcome::Created(version)) = asked(lead(first, 1, "a")) else { panic!("it leads") };
        assert_eq!((version, state.record.as_ref().map(|record| record.version)), (first, Some(first)));
        assert_eq!(asked(lead(first, 2, "b")), Answer::Refused(first), "each ballot once");
        let other = Ballot { epoch: 4, round: 1, node: Incarnation(2), n: 0 };
        let accepted = Accepted { ballot: first, copied: false, state: state.clone() };
        assert_eq!(asked(Ask::Prepare(other)), Answer::Promised(Some(accepted.clone()), None));
        assert_eq!(asked(Ask::Peek), Answer::Told(Some(accepted)));
        assert_eq!(asked(lead(Ballot { n: 2, ..word }, 3, "c")), Answer::Refused(other));
        assert_eq!(asked(Ask::Accept(other, state)), Answer::Accepted);
        // With a round of its own it may lead again, but not on what somebody else has proposed.
        let later = Ballot { epoch: 4, round: 2, node: Incarnation(1), n: 1 };
        assert_eq!(asked(lead(later, 4, "d")), Answer::Refused(other));
        let won = Ballot { n: 0, ..later };
        assert!(matches!(asked(Ask::Prepare(won)), Answer::Promised(Some(_), None)));
        assert_eq!(asked(lead(later, 4, "d")), Answer::Refused(won), "what it proposed is not here");
        assert_eq!(asked(Ask::Accept(won, State::default())), Answer::Accepted);
        assert!(matches!(asked(lead(later, 4, "d")), Answer::Led(_, Outcome::Created(_))));
    }

    #[test]
    fn what_was_copied_may_be_led_on() {
        let mut store = store();
        let place = place(&store);
        let old = grant(3, Incarnation(9));
        let mut asked = |grant, ask| Vote { place: place.clone(), grant, ask }.carry_out(&mut store).expect("memory");
        assert!(matches!(asked(old, lead(Ballot { n: 5, ..old }, 1, "a")), Answer::Led(..)));
        let word = grant(4, Incarnation(1));
        let led = asked(word, lead(Ballot { n: 1, ..word }, 2, "b"));
        assert!(matches!(led, Answer::Led(_, Outcome::Replaced(_))), "{led:?}");
    }
}
