//! What stateright says, which others wrote: of our checker, whether it judges small histories alike; of operations on one
//! key, that no order in which messages arrive breaks what users are told (`protocol.md` sections 4 and 5).
#![allow(missing_docs)]

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use chordkv::base::{Capacity, Contact, Incarnation, Rng, Wall};
use chordkv::data::register::{Accepted, Ballot, OpId, Register, State, grant};
use chordkv::data::{Command, Condition, Outcome, Put, Tag};
use chordkv::replication::View;
use chordkv::replication::proposal::{Next, Proposal};
use chordkv::sim::linear::{History, Op, Told, Wanted};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use stateright::{Checker, Model, Property};

// ----- the checker -----

/// A key as stateright is told of it.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
struct Cell(Option<u64>);

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
enum Asked {
    Read,
    Put(u64, Expected),
    Delete,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Expected {
    Any,
    Nothing,
    Value(u64),
}

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
enum Answered {
    Read(Option<u64>),
    Put { replaced: bool },
    Refused(Option<u64>),
    Deleted(bool),
}

impl SequentialSpec for Cell {
    type Op = Asked;
    type Ret = Answered;

    fn invoke(&mut self, op: &Asked) -> Answered {
        match op {
            Asked::Read => Answered::Read(self.0),
            Asked::Put(number, expected) => {
                let holds = match expected {
                    Expected::Any => true,
                    Expected::Nothing => self.0.is_none(),
                    Expected::Value(value) => self.0 == Some(*value),
                };
                if holds {
                    Answered::Put { replaced: self.0.replace(*number).is_some() }
                } else {
                    Answered::Refused(self.0)
                }
            }
            Asked::Delete => Answered::Deleted(self.0.take().is_some()),
        }
    }
}

/// The same for our checker.
fn op(asked: &Asked, answered: Option<&Answered>) -> Op {
    match asked {
        Asked::Read => Op::Read(match answered {
            Some(Answered::Read(value)) => Some(*value),
            _ => None,
        }),
        Asked::Put(_, expected) => {
            let wanted = match expected {
                Expected::Any => Wanted::Any,
                Expected::Nothing => Wanted::Nothing,
                Expected::Value(value) => Wanted::Value(*value),
            };
            let told = match answered {
                Some(Answered::Put { replaced: true }) => Some(Told::Replaced),
                Some(Answered::Put { replaced: false }) => Some(Told::Created),
                Some(Answered::Refused(value)) => Some(Told::Refused(*value)),
                _ => None,
            };
            Op::Put { wanted, told }
        }
        Asked::Delete => Op::Delete(match answered {
            Some(Answered::Deleted(was)) => Some(*was),
            _ => None,
        }),
    }
}

/// An operation on its way.
struct Running {
    number: u64,
    asked: Asked,
    answered: Option<Answered>,
}

/// Three users on a key that is right, but for an answer in some histories. To what our checker says, and stateright's.
fn judged_twice(seed: u64) -> (bool, bool) {
    let mut rng = Rng::new(seed);
    let mut key = Cell::default();
    let (mut ours, mut theirs) = (History::default(), LinearizabilityTester::new(Cell::default()));
    let mut users: [Option<Running>; 3] = [const { None }; 3];
    let mut next = 1;
    let lies = rng.chance(600);
    while next <= 7 {
        let user = rng.index(3);
        match &mut users[user] {
            None => {
                let expected = match rng.index(3) {
                    0 => Expected::Any,
                    1 => Expected::Nothing,
                    _ => Expected::Value(1 + rng.below(next)),
                };
                let asked = match rng.index(5) {
                    0 | 1 => Asked::Read,
                    2 => Asked::Delete,
                    _ => Asked::Put(next, expected),
                };
                ours.call(next, op(&asked, None));
                theirs.on_invoke(user, asked.clone()).expect("a history");
                users[user] = Some(Running { number: next, asked, answered: None });
                next += 1;
            }
            Some(running) if running.answered.is_none() => {
                let told = key.invoke(&running.asked);
                // Of something that may well be, or was a moment ago.
                let wrong = match &told {
                    Answered::Read(_) => Answered::Read((rng.chance(700)).then(|| 1 + rng.below(next))),
                    Answered::Put { replaced } => Answered::Put { replaced: !replaced },
                    Answered::Refused(_) => Answered::Refused((rng.chance(700)).then(|| 1 + rng.below(next))),
                    Answered::Deleted(was) => Answered::Deleted(!was),
                };
                running.answered = Some(if lies && rng.chance(250) { wrong } else { told });
            }
            Some(_) if rng.chance(500) => {
                let done = users[user].take().expect("it was there");
                let answered = done.answered.expect("just seen");
                ours.answer(done.number, op(&done.asked, Some(&answered)));
                theirs.on_return(user, answered).expect("a history");
            }
            Some(_) => {}
        }
    }
    (ours.check().is_ok(), theirs.is_consistent())
}

#[test]
fn small_histories_are_judged_as_stateright_judges_them() {
    let mut verdicts = [0, 0];
    for seed in 0..20_000 {
        let (ours, theirs) = judged_twice(seed);
        assert_eq!(ours, theirs, "seed {seed}");
        verdicts[usize::from(ours)] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 3_000), "{verdicts:?}");
}

// ----- all orders of messages -----

/// Three members of one view, and two users who ask different ones of them for the same key.
#[derive(Clone)]
struct Members {
    view: View,
    scripts: [&'static [Step]; 2],
    /// So often an operation is tried, a read that was not enough counted; then its user waits for ever.
    tries_max: u64,
    /// Members accept whatever they have promised.
    breaks_promises: bool,
    /// A get takes the word of one member.
    believes_one: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put,
    Create,
    Get,
}

#[derive(Clone, Debug)]
struct Now {
    registers: [Register; 3],
    users: [User; 2],
    net: Vec<Message>,
    history: LinearizabilityTester<usize, Cell>,
}

/// A user, and the member that coordinates for it.
#[derive(Clone, Debug)]
struct User {
    at: usize,
    tries: u64,
    // It may propose without asking; false while an outcome of that is open.
    has_word: bool,
    run: Option<Proposal>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    user: usize,
    member: usize,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Read(u64),
    Told(u64, Option<Accepted>),
    Prepare(Ballot),
    Promised(Ballot, Option<Accepted>),
    Accept(Ballot, State),
    Accepted(Ballot),
    Refused(Ballot, Ballot),
}

impl Now {
    // What there is of it is written, and equal if that is.
    fn spelled(&self) -> String {
        let mut net: Vec<String> = self.net.iter().map(|message| format!("{message:?}")).collect();
        net.sort();
        format!("{:?} {:?} {net:?} {:?}", self.registers, self.users, self.history)
    }
}

impl Hash for Now {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spelled().hash(state);
    }
}

impl PartialEq for Now {
    fn eq(&self, other: &Self) -> bool {
        self.spelled() == other.spelled()
    }
}

impl Message {
    fn is_awaited(&self, user: &User) -> bool {
        let ballot = user.run.as_ref().and_then(Proposal::ballot);
        match &self.what {
            What::Accept(..) => true,
            What::Read(of) | What::Told(of, _) => {
                *of == number(self.user, user.at) && ballot.is_none() && user.run.is_some()
            }
            What::Prepare(of) | What::Promised(of, _) | What::Accepted(of) | What::Refused(of, _) => {
                ballot == Some(*of)
            }
        }
    }
}

const NOW: Wall = Wall(1);

fn who(member: usize) -> Incarnation {
    Incarnation(member as u128 + 1)
}

fn view() -> View {
    let member = |n: u16| Contact::new(Capacity::MAX, ([10, 0, 0, 1], n + 1).into(), who(n.into()));
    View { epoch: 1, members: (0..3).map(member).collect() }
}

fn number(user: usize, at: usize) -> u64 {
    (10 * user + at + 1) as u64
}

impl Members {
    fn asked(&self, user: usize, at: usize) -> Option<Asked> {
        Some(match self.scripts[user].get(at)? {
            Step::Put => Asked::Put(number(user, at), Expected::Any),
            Step::Create => Asked::Put(number(user, at), Expected::Nothing),
            Step::Get => Asked::Read,
        })
    }

    fn command(asked: &Asked) -> Command {
        let Asked::Put(number, expected) = asked else { return Command::Get };
        let if_none_match = (*expected == Expected::Nothing).then_some(Tag::Any);
        let condition = Condition { if_none_match, ..Condition::default() };
        Command::Put(Put { value: Arc::from(number.to_be_bytes()), content_type: None, ttl_ms: None, condition })
    }

    /// The next operation of a user begins, if there is one.
    fn begin(&self, now: &mut Now, user: usize) {
        let at = now.users[user].at;
        let Some(asked) = self.asked(user, at) else { return };
        now.history.on_invoke(user, asked.clone()).expect("one at a time");
        let id = OpId { node: who(user), n: number(user, at), issued: NOW };
        now.users[user].run = Some(Proposal::new(id, Self::command(&asked), self.view.clone(), false, NOW));
        now.users[user].tries = 0;
        self.begin_try(now, user, None);
    }

    fn begin_try(&self, now: &mut Now, user: usize, above: Option<Ballot>) {
        let of = &mut now.users[user];
        let Some(run) = &mut of.run else { return };
        if of.tries >= self.tries_max {
            return;
        }
        of.tries += 1;
        let own = now.registers[user].accepted();
        let word = grant(1, who(0));
        let next = if above.is_none() && run.command == Command::Get {
            run.read()
        } else if std::mem::replace(&mut of.has_word, false) && own.is_none_or(|own| own.ballot.round == 0) {
            run.lead(Ballot { n: number(user, of.at), ..word }, own.map(|own| &own.state))
        } else {
            let round = above.map_or(0, |above| above.round) + 1;
            run.prepare(Ballot { epoch: 1, round, node: who(user), n: 0 })
        };
        self.go_on(now, user, next);
    }

    fn go_on(&self, now: &mut Now, user: usize, next: Next) {
        let what = match next {
            Next::Read => What::Read(number(user, now.users[user].at)),
            Next::Prepare(ballot) => What::Prepare(ballot),
            Next::Accept(ballot, state) => What::Accept(ballot, state),
            Next::Done(outcome) => return self.done(now, user, &outcome),
            Next::Outdone(above) => return self.begin_try(now, user, Some(above)),
            Next::Wait => return,
            Next::Unknown | Next::Doubtful => unreachable!("nothing is forgotten or damaged here"),
        };
        for member in (0..3).filter(|member| *member != user) {
            now.net.push(Message { user, member, what: what.clone() });
        }
        // A coordinator is a member itself.
        self.deliver(now, Message { user, member: user, what });
    }

    fn done(&self, now: &mut Now, user: usize, outcome: &Outcome) {
        let value = |value: &[u8]| u64::from_be_bytes(value.try_into().expect("eight bytes"));
        let answered = match outcome {
            Outcome::Found(record) => Answered::Read(Some(value(&record.value))),
            Outcome::NotFound => Answered::Read(None),
            Outcome::Created(_) => Answered::Put { replaced: false },
            Outcome::Replaced(_) => Answered::Put { replaced: true },
            // Only creation can be refused here: what was there is not told, and the history does not depend on it.
            Outcome::PreconditionFailed(_) => {
                let known = self.known_values().find(|value| {
                    let mut with = now.history.clone();
                    with.on_return(user, Answered::Refused(Some(*value))).is_ok() && with.is_consistent()
                });
                Answered::Refused(known)
            }
            Outcome::Deleted => unreachable!("nobody deletes here"),
        };
        now.history.on_return(user, answered).expect("it was asked");
        let of = &mut now.users[user];
        // Only what was led and is settled gives the word back.
        of.has_word =
            user == 0 && of.tries == 1 && !matches!(self.asked(user, of.at), Some(Asked::Read)) || of.has_word;
        (of.run, of.at) = (None, of.at + 1);
        self.begin(now, user);
    }

    fn known_values(&self) -> impl Iterator<Item = u64> {
        (0..2).flat_map(|user| (0..self.scripts[user].len()).map(move |at| number(user, at)))
    }

    fn deliver(&self, now: &mut Now, message: Message) {
        let Message { user, member, what } = message;
        let word = grant(1, who(0));
        let register = &mut now.registers[member];
        let answer = match what {
            What::Read(of) => What::Told(of, register.accepted().cloned()),
            What::Prepare(ballot) => match register.prepare(word, ballot) {
                Ok(accepted) => What::Promised(ballot, accepted.cloned()),
                Err(promised) => What::Refused(ballot, promised),
            },
            What::Accept(ballot, state) => {
                if self.breaks_promises {
                    *register = Register::new(None, Some(Accepted { ballot, copied: false, state: state.clone() }));
                }
                match register.accept(word, ballot, state) {
                    Ok(()) => What::Accepted(ballot),
                    Err(promised) => What::Refused(ballot, promised),
                }
            }
            answer => return self.hear(now, user, member, answer),
        };
        if member == user {
            self.hear(now, user, member, answer);
        } else {
            now.net.push(Message { user, member, what: answer });
        }
    }

    fn hear(&self, now: &mut Now, user: usize, member: usize, answer: What) {
        let at = number(user, now.users[user].at);
        let Some(run) = &mut now.users[user].run else { return };
        let from = who(member);
        let next = match answer {
            What::Told(of, accepted) if of == at && self.believes_one => {
                (0..3).fold(Next::Wait, |next, member| match next {
                    Next::Wait => run.told(who(member), accepted.clone()),
                    next => next,
                })
            }
            What::Told(of, accepted) if of == at => run.told(from, accepted),
            What::Promised(ballot, accepted) => run.promised(from, ballot, accepted, None),
            What::Accepted(ballot) => run.accepted(from, ballot),
            What::Refused(ballot, promised) => run.refused(ballot, promised),
            _ => Next::Wait,
        };
        self.go_on(now, user, next);
    }
}

impl Model for Members {
    type State = Now;
    type Action = Message;

    fn init_states(&self) -> Vec<Now> {
        let user = |user| User { at: 0, tries: 0, has_word: user == 0, run: None };
        let history = LinearizabilityTester::new(Cell::default());
        let mut now = Now { registers: Default::default(), users: [0, 1].map(user), net: Vec::new(), history };
        self.begin(&mut now, 0);
        self.begin(&mut now, 1);
        vec![now]
    }

    fn actions(&self, now: &Now, actions: &mut Vec<Message>) {
        // What never arrives is lost: each state before counts as one in which it was.
        actions.extend(now.net.iter().cloned());
    }

    fn next_state(&self, now: &Now, message: Message) -> Option<Now> {
        let mut now = now.clone();
        let at = now.net.iter().position(|of| *of == message)?;
        now.net.swap_remove(at);
        self.deliver(&mut now, message);
        // Answers that nobody waits for do nothing; a promise for nobody does what any refusal does, and may as well be lost.
        let (users, net) = (&now.users, &mut now.net);
        net.retain(|of| of.is_awaited(&users[of.user]));
        Some(now)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("linearizable", |_, now: &Now| now.history.is_consistent()),
            Property::sometimes("all have an answer", |model: &Self, now: &Now| {
                (0..2).all(|user| now.users[user].at == model.scripts[user].len())
            }),
        ]
    }
}

fn members(scripts: [&'static [Step]; 2], tries_max: u64) -> Members {
    Members { view: view(), scripts, tries_max, breaks_promises: false, believes_one: false }
}

#[test]
fn no_order_of_messages_breaks_what_users_are_told() {
    for (scripts, tries_max) in [
        ([[Step::Put].as_slice(), &[Step::Get]], 2),
        ([&[Step::Put], &[Step::Get, Step::Get]], 2),
        ([&[Step::Put, Step::Get], &[Step::Get]], 2),
        ([&[Step::Put], &[Step::Put]], 1),
        ([&[Step::Create], &[Step::Create, Step::Get]], 1),
        ([&[Step::Put], &[Step::Put, Step::Get]], 1),
    ] {
        let checker = members(scripts, tries_max).checker().threads(2).spawn_dfs().join();
        println!("{scripts:?}: {} states", checker.unique_state_count());
        checker.assert_properties();
        assert!(checker.unique_state_count() > 300, "{scripts:?}");
    }
}

#[test]
fn rules_that_are_taken_away_are_missed() {
    let broken = Members { breaks_promises: true, ..members([&[Step::Put], &[Step::Put, Step::Get]], 1) };
    let found = broken.checker().threads(2).spawn_dfs().join().discovery("linearizable");
    assert!(found.is_some(), "nobody misses promises");
    let broken = Members { believes_one: true, ..members([&[Step::Put, Step::Get], &[Step::Put]], 1) };
    let found = broken.checker().threads(2).spawn_dfs().join().discovery("linearizable");
    assert!(found.is_some(), "nobody misses the majority");
}
