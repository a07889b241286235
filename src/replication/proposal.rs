//! One operation on one key, as the member sees it that coordinates it (`protocol.md` section 4, operations).

use std::collections::BTreeMap;

use super::chain::is_majority;
use super::view::View;
use crate::base::{Incarnation, Wall};
use crate::data::register::{Accepted, Ballot, OpId, Operated, State, operate};
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
    /// Others are faster: begin again after a while with a ballot above this one.
    Outdone(Ballot),
    /// Wait for more answers.
    Wait,
}

/// See the module. It ends with [`Next::Done`], [`Next::Unknown`], or by being given up: then what it may have sent may
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
    now: Wall,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Reading(BTreeMap<Incarnation, Option<Accepted>>),
    Preparing(Ballot, BTreeMap<Incarnation, Option<Accepted>>),
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
        self.propose(ballot, own)
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
            if let Ok(Operated { state: after, outcome }) = told
                && after == state
            {
                self.stage = Stage::Ended;
                return Next::Done(outcome);
            }
        }
        self.stage = Stage::Ended;
        Next::Outdone(grant_of(&self.view))
    }

    /// A member promised, and told what it had accepted.
    pub fn promised(&mut self, from: Incarnation, of: Ballot, accepted: Option<Accepted>) -> Next {
        let Stage::Preparing(ballot, promises) = &mut self.stage else { return Next::Wait };
        if of != *ballot || !self.view.has(from) {
            return Next::Wait;
        }
        promises.insert(from, accepted);
        if !is_majority(promises.len(), &self.view) {
            return Next::Wait;
        }
        let ballot = *ballot;
        let newest = promises.values().flatten().max_by_key(|accepted| accepted.ballot);
        let state = newest.map(|accepted| accepted.state.clone());
        self.propose(ballot, state.as_ref())
    }

    fn propose(&mut self, ballot: Ballot, current: Option<&State>) -> Next {
        match operate(current, (self.id, &self.command), self.again, ballot, self.now) {
            Err(_) => {
                self.stage = Stage::Ended;
                Next::Unknown
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
