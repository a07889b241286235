//! One key at one member of its slot's view: what it has promised and accepted (`protocol.md` section 4; `CASPaxos`,
//! Rystsov 2018). Pure functions, run where the record is.
//!
//! A view gives the word to its first member from the start: every register behaves as if it had promised that one round
//! 0 of the epoch ([`grant`]). Who has the word goes from one chosen value to the next with one accept each, as no
//! ballot of another lies between its own.

use super::command::{Change, Command, Outcome, apply};
use super::record::{Record, Version};
use crate::base::{Incarnation, Wall};

/// Orders proposals; see [`Version`].
pub type Ballot = Version;

/// The ballot that every member of a view of this epoch has promised its first member.
pub fn grant(epoch: u64, first: Incarnation) -> Ballot {
    Ballot { epoch, round: 0, node: first, n: 0 }
}

/// Names one operation, so that trying it again does nothing twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId {
    /// Who passed it on for a user.
    pub node: Incarnation,
    /// Its number there.
    pub n: u64,
    /// When it was asked, by that one's clock.
    pub issued: Wall,
}

/// What is under a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The record; `None`: it was removed.
    pub record: Option<Record>,
    /// The latest operations and how they ended.
    pub recent: Recent,
    /// Copies of it were damaged, and too few were left to tell whether this is the latest: nobody is told that it is.
    pub doubtful: bool,
}

/// Operations that a key remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    // The oldest first. Most keys have one or none.
    ended: Vec<(OpId, Outcome)>,
    // When the latest of those was asked that are forgotten.
    evicted: Option<Wall>,
    // And of each node's the highest number, those last that were forgotten last.
    gone: Vec<(Incarnation, u64)>,
}

/// Operations remembered for each key, at most.
pub const RECENT_MAX: usize = 16;
/// Nodes of which a key knows up to which number their operations are forgotten, at most.
pub const GONE_MAX: usize = 8;
/// Operations that were asked so long before another are remembered no more: whoever tries one again is told that nobody knows.
/// Longer than a request takes by default; what is remembered of a key that changes often must fit beside its record.
const RECENT_FOR_MS: u64 = 15_000;

/// What a member has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// In which ballot it was proposed.
    pub ballot: Ballot,
    /// It was fetched from members of an earlier view, and is nobody's vote here.
    pub copied: bool,
    /// What was proposed.
    pub state: State,
}

/// One key at one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    // Only above what it has accepted, which promises as much.
    promised: Option<Ballot>,
    accepted: Option<Accepted>,
}

impl From<Record> for Register {
    /// Of a record that was put without a vote, as the only copy there is.
    fn from(record: Record) -> Self {
        let state = State { record: Some(record.clone()), ..State::default() };
        Self::new(None, Some(Accepted { ballot: record.version, copied: false, state }))
    }
}

impl Register {
    /// What was written down.
    pub fn new(promised: Option<Ballot>, accepted: Option<Accepted>) -> Self {
        let ballot = accepted.as_ref().map(|accepted| accepted.ballot);
        Self { promised: promised.filter(|promised| Some(*promised) > ballot), accepted }
    }

    /// What it has promised above what it has accepted.
    pub fn promised(&self) -> Option<Ballot> {
        self.promised
    }

    /// The record under the key, if there is any.
    pub fn record(&self) -> Option<&Record> {
        self.accepted.as_ref()?.state.record.as_ref()
    }

    /// The same of a register that is not needed any more.
    pub fn into_record(self) -> Option<Record> {
        self.accepted?.state.record
    }

    /// What it has accepted.
    pub fn accepted(&self) -> Option<&Accepted> {
        self.accepted.as_ref()
    }

    /// What it has accepted, of a register that is not needed any more.
    pub fn into_accepted(self) -> Option<Accepted> {
        self.accepted
    }

    /// The ballot of a removal, if nothing else is here: no record, no doubt of what was there, and no promise of the view of
    /// this epoch.
    pub fn tombstone(&self, epoch: u64) -> Option<Ballot> {
        let is_free = self.promised.is_none_or(|promised| promised.epoch < epoch);
        let accepted = self.accepted.as_ref().filter(|_| is_free)?;
        (accepted.state.record.is_none() && !accepted.state.doubtful).then_some(accepted.ballot)
    }

    /// The least that a ballot must be to be accepted.
    pub fn floor(&self, grant: Ballot) -> Ballot {
        let accepted = self.accepted.as_ref().map(|accepted| accepted.ballot);
        self.promised.into_iter().chain(accepted).fold(grant, Ballot::max)
    }

    /// Whether who has the word of this ballot has proposed what is here, or nobody has since the view gave that word.
    pub fn is_led_by(&self, ballot: Ballot) -> bool {
        let word = |ballot: Ballot| (ballot.epoch, ballot.round, ballot.node);
        match &self.accepted {
            Some(own) if word(own.ballot) == word(ballot) => true,
            // A round that was won begins with an accept, which may have missed this register.
            _ if ballot.round > 0 => false,
            own => own.as_ref().is_none_or(|own| own.copied || own.ballot.epoch < ballot.epoch),
        }
    }

    /// Promises to accept nothing below this ballot and tells what was accepted; the error is what was promised before.
    pub fn prepare(&mut self, grant: Ballot, ballot: Ballot) -> Result<Option<&Accepted>, Ballot> {
        let floor = self.floor(grant);
        if ballot <= floor {
            return Err(floor);
        }
        self.promised = Some(ballot);
        Ok(self.accepted.as_ref())
    }

    /// Accepts a state, unless another ballot was promised: then that one is the error.
    pub fn accept(&mut self, grant: Ballot, ballot: Ballot, state: State) -> Result<(), Ballot> {
        let floor = self.floor(grant);
        if ballot < floor {
            return Err(floor);
        }
        *self = Self::new(self.promised, Some(Accepted { ballot, copied: false, state }));
        Ok(())
    }

    /// Takes what a member of an earlier view has accepted, if it is newer; true if so. Only before this member serves.
    pub fn copy(&mut self, theirs: &Accepted) -> bool {
        let is_newer = self.accepted.as_ref().is_none_or(|own| own.ballot < theirs.ballot);
        if is_newer {
            *self = Self::new(self.promised, Some(Accepted { copied: true, ..theirs.clone() }));
        }
        is_newer
    }

    /// Of what members of the view of this epoch had accepted too little can be read: this may be the latest of it, or not.
    /// Only before this member serves.
    pub fn doubt(&mut self, epoch: u64) {
        let state = self.accepted.take().map_or_else(State::default, |accepted| accepted.state);
        // Above whatever anybody can have accepted in that view.
        let ballot = Ballot { epoch, round: u64::MAX, node: Incarnation(0), n: 0 };
        let state = State { doubtful: true, ..state };
        *self = Self::new(self.promised, Some(Accepted { ballot, copied: true, state }));
    }
}

impl State {
    /// There is nothing, and operations that were asked for until then may have been carried out and be forgotten.
    pub fn forgotten(evicted: Wall) -> Self {
        Self { recent: Recent::new(Vec::new(), Some(evicted)), ..Self::default() }
    }

    /// How an operation ended that this state remembers.
    pub fn outcome_of(&self, id: OpId) -> Option<&Outcome> {
        self.recent.find(id)
    }
}

impl Recent {
    /// What was written down: operations, the oldest first, and when the latest was asked of those that are forgotten.
    pub fn new(ended: Vec<(OpId, Outcome)>, evicted: Option<Wall>) -> Self {
        Self { ended, evicted, gone: Vec::new() }
    }

    /// The same with what was written down of forgotten operations of single nodes.
    pub fn with_gone(self, gone: Vec<(Incarnation, u64)>) -> Self {
        Self { gone, ..self }
    }

    /// Nodes, and the highest number of an operation of theirs that is forgotten.
    pub fn gone(&self) -> &[(Incarnation, u64)] {
        &self.gone
    }

    /// The operations and how they ended, the oldest first.
    pub fn ended(&self) -> &[(OpId, Outcome)] {
        &self.ended
    }

    /// Of those that are remembered no more, when the latest was asked.
    pub fn evicted(&self) -> Option<Wall> {
        self.evicted
    }

    /// When the latest of all was asked that are remembered or forgotten here.
    pub fn latest(&self) -> Option<Wall> {
        self.ended.iter().map(|(id, _)| id.issued).chain(self.evicted).max()
    }

    /// How an operation ended that was carried out before.
    pub fn find(&self, id: OpId) -> Option<&Outcome> {
        self.ended.iter().find(|(of, _)| *of == id).map(|(_, outcome)| outcome)
    }

    /// Whether it is forgotten whether an operation was carried out. A node counts its operations, so that one of them is known
    /// that comes late, after it was carried out at another try; without that those count that are tried again (`again`).
    pub fn may_have_forgotten(&self, id: OpId, again: bool) -> bool {
        let gone = self.gone.iter().any(|(node, n)| *node == id.node && id.n <= *n);
        gone || again && self.evicted.is_some_and(|evicted| id.issued <= evicted)
    }

    fn remember(&mut self, id: OpId, outcome: &Outcome) {
        let old = Wall(id.issued.0.saturating_sub(RECENT_FOR_MS));
        let surplus = (self.ended.len() + 1).saturating_sub(RECENT_MAX);
        let mut at = 0;
        let (evicted, gone) = (&mut self.evicted, &mut self.gone);
        self.ended.retain(|(op, _)| {
            at += 1;
            let stays = at > surplus && op.issued >= old;
            if !stays {
                *evicted = (*evicted).max(Some(op.issued));
                forget(gone, op);
            }
            stays
        });
        self.ended.reserve_exact(1);
        self.ended.push((id, outcome.clone()));
    }
}

/// An operation is remembered no more.
fn forget(gone: &mut Vec<(Incarnation, u64)>, op: &OpId) {
    let known = gone.iter().position(|(node, _)| *node == op.node).map(|at| gone.remove(at).1);
    if gone.len() == GONE_MAX {
        gone.remove(0);
    }
    gone.push((op.node, known.map_or(op.n, |n| n.max(op.n))));
}

/// What comes of an operation on a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operated {
    /// To be proposed: what is there now, and for a write that it was carried out. `None`: there is nothing, and a get
    /// leaves it so.
    pub state: Option<State>,
    /// To be told once that is chosen.
    pub outcome: Outcome,
}

/// Why an operation cannot be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It cannot be told any more whether it was carried out at an earlier try.
    Forgotten,
    /// It cannot be told what is there.
    Doubtful,
}

/// Carries out an operation on what is under a key. `version` is what a put gives it; `again`: it may have been proposed
/// before.
pub fn operate(
    current: Option<&State>,
    (id, command): (OpId, &Command),
    again: bool,
    version: Version,
    now: Wall,
) -> Result<Operated, Refusal> {
    if let Some(outcome) = current.and_then(|state| state.recent.find(id)) {
        return Ok(Operated { state: current.cloned(), outcome: outcome.clone() });
    }
    let may_have_forgotten = |state: &State| again && state.doubtful || state.recent.may_have_forgotten(id, again);
    if command.is_write() && current.is_some_and(may_have_forgotten) {
        return Err(Refusal::Forgotten);
    }
    if let Some(doubtful) = current.filter(|state| state.doubtful) {
        return operate_in_doubt(doubtful, (id, command), version, now);
    }
    let applied = apply(current.and_then(|state| state.record.as_ref()), command, version, now);
    let mut state = current.cloned();
    match applied.change {
        Change::None => {}
        Change::Put(record) => state.get_or_insert_default().record = Some(record),
        Change::Remove => state.get_or_insert_default().record = None,
    }
    if command.is_write() {
        state.get_or_insert_default().recent.remember(id, &applied.outcome);
    }
    Ok(Operated { state, outcome: applied.outcome })
}

/// Whatever was there, it can be overwritten or removed.
fn operate_in_doubt(
    current: &State,
    (id, command): (OpId, &Command),
    version: Version,
    now: Wall,
) -> Result<Operated, Refusal> {
    if !command.is_unconditional_write() {
        return Err(Refusal::Doubtful);
    }
    let applied = apply(None, command, version, now);
    let record = if let Change::Put(record) = applied.change { Some(record) } else { None };
    // Something was there, as somebody knows by its damage.
    let outcome = if record.is_some() { Outcome::Replaced(version) } else { Outcome::Deleted };
    let mut recent = current.recent.clone();
    // Operations before this moment may have been forgotten with what cannot be read, also such that were asked after this
    // one, which may have waited for long.
    recent.evicted = recent.evicted.max(Some(id.issued.max(now)));
    recent.remember(id, &outcome);
    Ok(Operated { state: Some(State { record, recent, doubtful: false }), outcome })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::data::{Condition, Put};

    fn ballot(round: u64, n: u64) -> Ballot {
        Ballot { epoch: 2, round, node: Incarnation(5), n }
    }

    fn put(text: &str) -> Command {
        let value = Arc::from(text.as_bytes());
        Command::Put(Put { value, content_type: None, ttl_ms: None, condition: Condition::default() })
    }

    fn id(n: u64) -> OpId {
        OpId { node: Incarnation(1), n, issued: Wall(n) }
    }

    #[test]
    fn a_promise_is_kept_and_what_was_accepted_is_told() {
        let grant = grant(2, Incarnation(9));
        let mut register = Register::default();
        assert_eq!(register.prepare(grant, grant), Err(grant), "the word is given already");
        assert_eq!(register.accept(grant, Ballot { n: 1, ..grant }, State::default()), Ok(()));
        let seen = register.prepare(grant, ballot(1, 0)).map(|accepted| accepted.map(|a| a.ballot));
        assert_eq!(seen, Ok(Some(Ballot { n: 1, ..grant })));
        assert_eq!(register.accept(grant, Ballot { n: 2, ..grant }, State::default()), Err(ballot(1, 0)));
        assert_eq!(register.accept(grant, ballot(1, 0), State::default()), Ok(()));
        assert_eq!(register.accept(grant, ballot(1, 0), State::default()), Ok(()), "said twice");
        assert_eq!(register.prepare(grant, ballot(1, 0)), Err(ballot(1, 0)));
    }

    #[test]
    fn a_copy_is_no_vote_and_never_older_than_what_is_there() {
        let old = grant(1, Incarnation(9));
        let theirs = |n| Accepted { ballot: Ballot { n, ..old }, copied: false, state: State::default() };
        let mut register = Register::default();
        register.copy(&theirs(4));
        register.copy(&theirs(3));
        assert_eq!(register.accepted(), Some(&Accepted { copied: true, ..theirs(4) }));
        assert_eq!(register.accept(old, Ballot { n: 3, ..old }, State::default()), Err(Ballot { n: 4, ..old }));
    }

    #[test]
    fn an_operation_that_is_tried_again_does_nothing_twice() {
        let first = operate(None, (id(1), &put("a")), false, ballot(0, 1), Wall(7)).expect("it is new");
        assert_eq!(first.outcome, Outcome::Created(ballot(0, 1)));
        let again = operate(first.state.as_ref(), (id(1), &put("a")), true, ballot(0, 2), Wall(8));
        assert_eq!(again, Ok(first.clone()));
        let mut state = first.state;
        for n in 2..20 {
            state = operate(state.as_ref(), (id(n), &put("b")), false, ballot(0, n), Wall(9)).expect("new").state;
        }
        for again in [true, false] {
            let late = operate(state.as_ref(), (id(1), &put("a")), again, ballot(0, 30), Wall(9));
            assert_eq!(late, Err(Refusal::Forgotten), "also where its first try comes last");
        }
        let stranger = OpId { node: Incarnation(2), ..id(1) };
        assert!(operate(state.as_ref(), (stranger, &put("a")), false, ballot(0, 30), Wall(9)).is_ok());
        let again = operate(state.as_ref(), (stranger, &put("a")), true, ballot(0, 30), Wall(9));
        assert_eq!(again, Err(Refusal::Forgotten), "nobody knows up to which number");
        let read = operate(state.as_ref(), (id(1), &Command::Get), true, ballot(0, 30), Wall(9)).expect("a read");
        assert_eq!(read.state, state, "a read leaves no trace");
        let mut register =
            Register::new(None, Some(Accepted { ballot: ballot(0, 9), copied: false, state: state.expect("a state") }));
        register.doubt(2);
        assert!(register.accepted().is_some_and(|accepted| accepted.copied && accepted.ballot > ballot(7, 7)));
        let doubtful = register.accepted().map(|accepted| &accepted.state);
        let told = |command: Command, again| operate(doubtful, (id(41), &command), again, ballot(0, 31), Wall(9));
        assert_eq!(told(Command::Get, false), Err(Refusal::Doubtful));
        assert_eq!(told(put("c"), true), Err(Refusal::Forgotten), "it may be what cannot be read");
        let certain = told(put("c"), false).expect("whatever was there");
        assert_eq!(certain.outcome, Outcome::Replaced(ballot(0, 31)));
        let certain = certain.state.as_ref();
        let tried_before = operate(certain, (id(40), &put("d")), true, ballot(0, 32), Wall(9));
        assert_eq!(tried_before, Err(Refusal::Forgotten));
        // What ended the doubt was asked at 41 and carried out at 60: until then anything may have been.
        let waited =
            operate(doubtful, (id(41), &put("c")), false, ballot(0, 31), Wall(60)).expect("whatever was there");
        for (n, expected) in [(59, Some(Refusal::Forgotten)), (61, None)] {
            let again = operate(
                waited.state.as_ref(),
                (id(n), &Command::Delete(Condition::default())),
                true,
                ballot(0, 32),
                Wall(62),
            );
            assert_eq!(again.err(), expected, "asked at {n}");
        }
        assert!(operate(certain, (id(42), &Command::Get), false, ballot(0, 32), Wall(9)).is_ok());
        let nothing = operate(None, (id(40), &Command::Get), false, ballot(0, 1), Wall(9)).expect("a read");
        assert_eq!(nothing, Operated { state: None, outcome: Outcome::NotFound });
    }
}
