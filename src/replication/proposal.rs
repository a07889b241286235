//! One operation on one key, as the member sees it that coordinates it (`protocol.md` section 4, operations).

use std::collections::BTreeMap;

use super::chain::is_majority;
use super::view::View;
use crate::base::{Incarnation, Wall};
use crate::data::register::{Accepted, Ballot, OpId, Operated, Refusal, State, operate};
use crate::data::{Command, Outcome};

/// What the coordinator does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask all members what they have accepted.
    Read,
    /// Ask all members to promise this ballot.
    Prepare(Ballot),
    /// Ask all members to accept this.
    Accept(Ballot, State),
    /// Tell the user.
    Done(Outcome),
    /// Whether an earlier try was carried out is forgotten; tell the user that.
    Unknown,
    /// Too few copies are undamaged to tell what is there; tell the user that.
    Doubtful,
    /// Others are faster: begin again after a while with a ballot above this one.
    Outdone(Ballot),
    /// Wait for more answers.
    Wait,
}

/// See the module. It ends with [`Next::Done`], [`Next::Unknown`], [`Next::Doubtful`], or by being given up: then what it may have sent may
/// take effect at any time.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// Names the operation at every try.
    pub id: OpId,
    /// The operation.
    pub command: Command,
    /// The view whose members are asked.
    pub view: View,
    /// Some member may have accepted it already.
    pub again: bool,
    /// What counts as expired.
    pub now: Wall,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Reading(BTreeMap<Incarnation, Option<Accepted>>),
    Preparing(Ballot, BTreeMap<Incarnation, (Option<Accepted>, Option<Wall>)>),
    Accepting(Ballot, Outcome, Vec<Incarnation>),
    Ended,
}

impl Proposal {
    /// An operation in a view. What to do first is for [`Proposal::read`], [`Proposal::prepare`] or [`Proposal::lead`].
    pub fn new(id: OpId, command: Command, view: View, again: bool, now: Wall) -> Self {
        Self { id, command, view, again, now, stage: Stage::Ended }
    }

    /// Begins with asking what is there, which often is enough for a get.
    pub fn read(&mut self) -> Next {
        self.stage = Stage::Reading(BTreeMap::new());
        Next::Read
    }

    /// Begins with a ballot of one's own.
    pub fn prepare(&mut self, ballot: Ballot) -> Next {
        self.stage = Stage::Preparing(ballot, BTreeMap::new());
        Next::Prepare(ballot)
    }

    /// Begins with accepting: this member has the word, and `own` is what it has accepted last itself, known to be
    /// chosen or copied.
    pub fn lead(&mut self, ballot: Ballot, own: Option<&State>) -> Next {
        // Promises of an earlier try say nothing about what is here.
        self.stage = Stage::Ended;
        self.propose(ballot, own, None)
    }

    /// The same where this member's own register has carried it out, which the others are to accept.
    pub fn led(&mut self, ballot: Ballot, outcome: Outcome) {
        self.again = true;
        self.stage = Stage::Accepting(ballot, outcome, Vec::new());
    }

    /// The ballot that is or was proposed last.
    pub fn ballot(&self) -> Option<Ballot> {
        match &self.stage {
            Stage::Preparing(ballot, _) | Stage::Accepting(ballot, ..) => Some(*ballot),
            Stage::Reading(_) | Stage::Ended => None,
        }
    }

    /// A member told what it has accepted.
    pub fn told(&mut self, from: Incarnation, accepted: Option<Accepted>) -> Next {
        let Stage::Reading(told) = &mut self.stage else { return Next::Wait };
        if self.view.has(from) {
            told.insert(from, accepted);
        }
        if !is_majority(told.len(), &self.view) {
            return Next::Wait;
        }
        let mut all = told.values();
        let first = all.next().cloned().flatten();
        let ballot = |accepted: &Option<Accepted>| accepted.as_ref().map(|accepted| accepted.ballot);
        let same = all.all(|other| ballot(other) == ballot(&first));
        // What was copied in is no vote, unless everybody has it.
        let epoch = self.view.epoch;
        let votes = told.values().all(|a| a.as_ref().is_none_or(|a| !a.copied && a.ballot.epoch == epoch));
        if same && (votes || told.len() == self.view.members.len()) {
            let state = first.map(|accepted| accepted.state);
            let told = operate(state.as_ref(), (self.id, &self.command), false, grant_of(&self.view), self.now);
            // A key that has expired is removed first.
            match told {
                Ok(Operated { state: after, outcome }) if after == state => {
                    self.stage = Stage::Ended;
                    return Next::Done(outcome);
                }
                Err(Refusal::Doubtful) => {
                    self.stage = Stage::Ended;
                    return Next::Doubtful;
                }
                _ => {}
            }
        }
        self.stage = Stage::Ended;
        Next::Outdone(grant_of(&self.view))
    }

    /// A member promised, and told what it had accepted; where that is nothing, up to when operations may have been carried
    /// out there and be forgotten.
    pub fn promised(
        &mut self,
        from: Incarnation,
        of: Ballot,
        accepted: Option<Accepted>,
        evicted: Option<Wall>,
    ) -> Next {
        let Stage::Preparing(ballot, promises) = &mut self.stage else { return Next::Wait };
        if of != *ballot || !self.view.has(from) {
            return Next::Wait;
        }
        promises.insert(from, (accepted, evicted));
        if !is_majority(promises.len(), &self.view) {
            return Next::Wait;
        }
        let ballot = *ballot;
        let newest = promises.values().filter_map(|(accepted, _)| accepted.as_ref()).max_by_key(|of| of.ballot);
        let evicted = promises.values().filter_map(|(_, evicted)| *evicted).max();
        let forgotten = newest.is_none().then_some(evicted).flatten().map(State::forgotten);
        let state = newest.map(|accepted| accepted.state.clone());
        self.propose(ballot, state.as_ref(), forgotten.as_ref())
    }

    fn propose(&mut self, ballot: Ballot, current: Option<&State>, forgotten: Option<&State>) -> Next {
        match operate(current.or(forgotten), (self.id, &self.command), self.again, ballot, self.now) {
            Err(refusal) => {
                self.stage = Stage::Ended;
                if refusal == Refusal::Doubtful { Next::Doubtful } else { Next::Unknown }
            }
            Ok(Operated { state, outcome }) => {
                let state = state.unwrap_or_default();
                // Whoever has promised has told that there is nothing; nobody has, if this member only has the word. An
                // earlier try may be somewhere, and must not come to light after this answer.
                let is_told = matches!(self.stage, Stage::Preparing(..)) && current.is_none();
                if is_told && state.record.is_none() && !(self.again && self.command.is_write()) {
                    self.stage = Stage::Ended;
                    return Next::Done(outcome);
                }
                self.accepting(ballot, state, outcome)
            }
        }
    }

    fn accepting(&mut self, ballot: Ballot, state: State, outcome: Outcome) -> Next {
        self.again = true;
        self.stage = Stage::Accepting(ballot, outcome, Vec::new());
        Next::Accept(ballot, state)
    }

    /// A member has accepted.
    pub fn accepted(&mut self, from: Incarnation, of: Ballot) -> Next {
        let Stage::Accepting(ballot, outcome, by) = &mut self.stage else { return Next::Wait };
        if of != *ballot || !self.view.has(from) || by.contains(&from) {
            return Next::Wait;
        }
        by.push(from);
        if !is_majority(by.len(), &self.view) {
            return Next::Wait;
        }
        let outcome = outcome.clone();
        self.stage = Stage::Ended;
        Next::Done(outcome)
    }

    /// A member has promised somebody else.
    pub fn refused(&mut self, of: Ballot, promised: Ballot) -> Next {
        if self.ballot() != Some(of) {
            return Next::Wait;
        }
        self.stage = Stage::Ended;
        Next::Outdone(promised)
    }
}

/// Below every ballot that anybody prepares in this view.
fn grant_of(view: &View) -> Ballot {
    crate::data::register::grant(view.epoch, view.primary().map_or(Incarnation(0), |first| first.incarnation))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::{Capacity, Contact};
    use crate::data::register::{Register, grant};
    use crate::data::{Condition, Put};

    const NOW: Wall = Wall(1);

    fn who(n: u128) -> Incarnation {
        Incarnation(n)
    }

    fn view() -> View {
        let member = |n: u16| Contact::new(Capacity::MAX, ([10, 0, 0, 1], n).into(), who(u128::from(n)));
        View { epoch: 4, members: (1..=3).map(member).collect() }
    }

    fn ballot(epoch: u64, round: u64) -> Ballot {
        Ballot { epoch, round, node: who(1), n: 0 }
    }

    fn proposal(command: Command, again: bool) -> Proposal {
        Proposal::new(OpId { node: who(9), n: 1, issued: NOW }, command, view(), again, NOW)
    }

    fn put(text: &str) -> Command {
        let value = Arc::from(text.as_bytes());
        Command::Put(Put { value, content_type: None, ttl_ms: None, condition: Condition::default() })
    }

    /// What a member has accepted that was put in this ballot.
    fn accepted(text: &str, ballot: Ballot, copied: bool) -> Accepted {
        let id = OpId { node: who(9), n: 77, issued: NOW };
        let state = operate(None, (id, &put(text)), false, ballot, NOW).expect("new").state.expect("a put");
        Accepted { ballot, copied, state }
    }

    #[test]
    fn a_get_believes_a_majority_of_votes_of_this_epoch() {
        let mut get = proposal(Command::Get, false);
        assert_eq!(get.read(), Next::Read);
        let vote = accepted("w", ballot(4, 1), false);
        assert_eq!(get.told(who(1), Some(vote.clone())), Next::Wait);
        assert_eq!(get.told(who(1), Some(vote.clone())), Next::Wait, "said twice");
        assert_eq!(get.told(who(8), Some(vote.clone())), Next::Wait, "of no member");
        let next = get.told(who(3), Some(vote.clone()));
        assert_eq!(next, Next::Done(Outcome::Found(vote.state.record.expect("a record"))));
    }

    /// `copied_vote_read`: two members have copied a value that was never chosen. Whoever asks the third reads another.
    #[test]
    fn a_get_does_not_believe_a_majority_of_copies() {
        for (epoch, copied) in [(3, true), (3, false), (4, true)] {
            let mut get = proposal(Command::Get, false);
            get.read();
            let copy = || Some(accepted("y", ballot(epoch, 1), copied));
            assert_eq!(get.told(who(1), copy()), Next::Wait);
            let next = get.told(who(2), copy());
            assert!(matches!(next, Next::Outdone(_)), "{next:?} for copies of epoch {epoch}, {copied}");
        }
        let mut get = proposal(Command::Get, false);
        get.read();
        get.told(who(1), Some(accepted("w", ballot(4, 1), false)));
        assert!(matches!(get.told(who(2), Some(accepted("w", ballot(4, 2), false))), Next::Outdone(_)), "two ballots");
    }

    #[test]
    fn the_newest_of_a_majority_is_what_the_next_value_is_made_of() {
        let mut get = proposal(Command::Get, false);
        get.prepare(ballot(4, 9));
        get.promised(who(2), ballot(4, 9), Some(accepted("old", ballot(3, 1), true)), None);
        let next = get.promised(who(3), ballot(4, 9), Some(accepted("new", ballot(4, 1), false)), None);
        let Next::Accept(of, state) = next else { panic!("{next:?}") };
        assert_eq!((of, state.clone()), (ballot(4, 9), accepted("new", ballot(4, 1), false).state));
        assert_eq!(get.accepted(who(2), ballot(4, 8)), Next::Wait, "of another ballot");
        assert_eq!(get.accepted(who(2), of), Next::Wait);
        assert_eq!(get.accepted(who(1), of), Next::Done(Outcome::Found(state.record.expect("a record"))));
    }

    /// Its first try may be with the member that has not promised, and must not come to light after the answer.
    #[test]
    fn a_write_that_is_tried_again_and_met_nothing_is_committed() {
        for again in [false, true] {
            let mut delete = proposal(Command::Delete(Condition::default()), again);
            delete.prepare(ballot(4, 9));
            delete.promised(who(2), ballot(4, 9), None, None);
            let next = delete.promised(who(3), ballot(4, 9), None, None);
            match (again, next) {
                (false, next) => assert_eq!(next, Next::Done(Outcome::NotFound)),
                (true, Next::Accept(_, state)) => {
                    assert_eq!(state.record, None);
                    assert!(state.outcome_of(delete.id).is_some(), "it is remembered");
                }
                (true, next) => panic!("{next:?}"),
            }
        }
    }

    #[test]
    fn who_has_the_word_goes_on_from_what_is_here_and_not_from_promises_of_before() {
        let first = grant(4, who(1));
        let mut register = Register::default();
        let mut delete = proposal(Command::Delete(Condition::default()), false);
        delete.prepare(ballot(4, 1));
        delete.promised(who(2), ballot(4, 1), None, None);
        let next = delete.lead(Ballot { n: 1, ..first }, None);
        let Next::Accept(of, state) = next else { panic!("{next:?}") };
        assert_eq!(register.accept(first, of, state), Ok(()));
        assert_eq!(delete.refused(ballot(4, 1), ballot(4, 2)), Next::Wait, "of another try");
        assert_eq!(delete.refused(of, ballot(4, 2)), Next::Outdone(ballot(4, 2)));
    }
}
