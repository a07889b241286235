//! Operations that this member coordinates: one after the other on each key, gets beside each other.
//!
//! Who has the word of a key, from its view or from a round that it has won, lets its own store carry an operation out
//! and asks the others to accept what came of it. Without the word it asks for promises first. Its own store answers
//! before others are asked for a promise, so that no ballot is used twice, whatever happens to the process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::asked::grant_of;
use super::message::CopyMessage;
use super::mutation::Mutation;
use super::{Awaited, Copies, CopiesEffect, Timer};
use crate::base::{Contact, Incarnation, Now, Span, Time};
use crate::data::register::{Ballot, OpId};
use crate::data::{Answer, Ask, Command, Hint, Outcome, Place, Slot, Trouble, Vote, Work};
use crate::replication::View;
use crate::replication::chain::is_majority;
use crate::replication::proposal::{Next, Proposal};

/// One operation, under the same name at every try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its name.
    pub id: OpId,
    /// What to do.
    pub command: Command,
    /// It was tried before, and may have been carried out.
    pub again: bool,
}

/// How an operation went at a coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It is done.
    Done(Outcome),
    /// Nobody can say whether it was or will be carried out.
    Unknown,
    /// Nothing was done, as members cannot read or store it.
    Failed(Trouble),
    /// Not here now; whether it may be carried out by this try all the same.
    NotNow {
        /// The newest view known here, if this node is none of its members.
        elsewhere: Option<View>,
        /// It may.
        again: bool,
    },
}

#[derive(Debug)]
pub(super) struct Op {
    asker: u64,
    place: Place,
    proposal: Proposal,
    // Of the present try.
    number: u64,
    ballot: Option<Ballot>,
    // What others are asked, and who has not answered.
    ask: Option<Ask>,
    silent: Vec<Contact>,
    // Who is asked only if others do not answer.
    spare: Vec<Contact>,
    failed: BTreeSet<Incarnation>,
    // It needs a ballot.
    alone: bool,
    // This try goes by a word that this member has: its own store may have carried it out.
    leads: bool,
    is_accepting: bool,
    // What is there once this try is chosen.
    hint: Option<Hint>,
    outdone: Option<Ballot>,
    tries: u32,
    until: Time,
}

/// Operations on one key.
#[derive(Debug, Default)]
struct Line {
    running: Vec<u64>,
    // What runs does so alone.
    alone: bool,
    waiting: VecDeque<u64>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Operations {
    ops: BTreeMap<u64, Op>,
    numbers: BTreeMap<u64, u64>,
    lines: BTreeMap<Place, Line>,
    // Rounds that this member has won, and who has proposed what is there since.
    words: BTreeMap<Place, u64>,
    // Members that did not answer a peek in time, and when.
    late: BTreeMap<Incarnation, Time>,
    next: u64,
    // Of the ballots of a word, and the highest round seen or used.
    n: u64,
    round: u64,
}

/// Those who ask count from 1.
const NOBODY: u64 = 0;
/// How long a coordinator tries.
const TRY_FOR: Span = Span::secs(10);
/// Silence after which members are asked again.
const ASK_AGAIN: Span = Span::millis(500);
/// The same of a peek, where round trips take no time: then others are asked.
const PEEK_MORE: Span = Span::millis(30);
/// For so long others are asked first.
const LATE_FOR: Span = Span::secs(1);
/// The pause after having been outdone; up to so many times as long after more tries.
const OUTDONE_PAUSE: Span = Span::millis(4);
const OUTDONE_PAUSES_MAX: u32 = 32;
/// Rounds won that are remembered: a key that is forgotten costs one question more.
const WORDS_MAX: usize = 4_096;
/// Keys of one slot that its view gives this member no word for any more.
const LOST_MAX: usize = 256;

impl Operations {
    /// Operations in progress.
    pub fn len(&self) -> usize {
        self.ops.len()
    }
}

impl Copies {
    /// Coordinates an operation; the asker hears of it by [`CopiesEffect::Ran`], or here and now.
    pub fn run(&mut self, now: Now, asker: u64, place: &Place, operation: Operation) -> Option<Ran> {
        self.placing.asked(now.mono);
        self.enter(now, asker, place, operation, (false, now.mono + TRY_FOR))
    }

    /// The same for nobody, and with a ballot, whatever it is. Whether it runs.
    pub(super) fn run_alone(&mut self, now: Now, place: &Place, operation: Operation) -> bool {
        self.enter(now, NOBODY, place, operation, (true, now.mono + TRY_FOR)).is_none()
    }

    /// The same for nobody, of an operation that is over at that time.
    #[cfg(test)]
    pub(crate) fn run_until(&mut self, now: Now, place: &Place, operation: Operation, until: Time) {
        self.enter(now, NOBODY, place, operation, (false, until));
    }

    fn enter(
        &mut self,
        now: Now,
        asker: u64,
        place: &Place,
        operation: Operation,
        (alone, until): (bool, Time),
    ) -> Option<Ran> {
        let Some(view) = self.served(place.slot).cloned() else {
            let elsewhere = self.view(place.slot).filter(|view| !view.has(self.me.incarnation)).cloned();
            return Some(Ran::NotNow { elsewhere, again: operation.again });
        };
        self.operations.next += 1;
        let id = self.operations.next;
        let Operation { id: name, command, again } = operation;
        let op = Op {
            asker,
            place: place.clone(),
            proposal: Proposal::new(name, command, view, again, now.wall),
            number: 0,
            ballot: None,
            ask: None,
            silent: Vec::new(),
            spare: Vec::new(),
            failed: BTreeSet::new(),
            alone,
            leads: false,
            is_accepting: false,
            hint: None,
            outdone: None,
            tries: 0,
            until,
        };
        self.operations.ops.insert(id, op);
        self.operations.lines.entry(place.clone()).or_default().waiting.push_back(id);
        self.pump(now.mono, place);
        None
    }

    /// Begins whatever may run on a key.
    fn pump(&mut self, now: Time, place: &Place) {
        loop {
            let Some(line) = self.operations.lines.get_mut(place) else { return };
            let Some(&id) = line.waiting.front() else {
                if line.running.is_empty() {
                    self.operations.lines.remove(place);
                }
                return;
            };
            let shares =
                self.operations.ops.get(&id).is_some_and(|op| op.proposal.command == Command::Get && !op.alone);
            if !(line.running.is_empty() || shares && !line.alone) {
                return;
            }
            line.waiting.pop_front();
            line.running.push(id);
            line.alone = !shares;
            self.begin(now, id);
        }
    }

    /// Begins a try, unless its time went by in line.
    fn begin(&mut self, now: Time, id: u64) {
        let again = self.patience(ASK_AGAIN);
        let Some(op) = self.operations.ops.get_mut(&id) else { return };
        if now >= op.until {
            self.out_of_time(now, id);
            return;
        }
        self.operations.numbers.remove(&op.number);
        self.operations.next += 1;
        op.number = self.operations.next;
        self.operations.numbers.insert(op.number, id);
        (op.ballot, op.ask, op.is_accepting, op.leads) = (None, None, false, false);
        op.silent.clear();
        op.spare.clear();
        op.failed.clear();
        op.tries += 1;
        let seen = op.outdone.take();
        if op.proposal.command == Command::Get && !op.alone {
            op.proposal.read();
            self.peek(now, id);
            return;
        }
        let until = op.until;
        self.timers.set(Timer::Operation(id), (now + again).min(until));
        let (view, place, number) = (op.proposal.view.clone(), op.place.clone(), op.number);
        let me = self.me.incarnation;
        let word = self.word(&place, view.epoch);
        let Some(op) = self.operations.ops.get_mut(&id) else { return };
        let ask = if let Some(round) = word {
            self.operations.n += 1;
            let ballot = Ballot { epoch: view.epoch, round, node: me, n: self.operations.n };
            op.ballot = Some(ballot);
            op.leads = true;
            let Proposal { id, command, again, now, .. } = &op.proposal;
            Ask::Lead { ballot, id: *id, command: command.clone(), again: *again, now: *now }
        } else {
            let seen = seen.filter(|seen| seen.epoch == view.epoch).map_or(0, |seen| seen.round);
            self.operations.round = self.operations.round.max(seen) + 1;
            let ballot = Ballot { epoch: view.epoch, round: self.operations.round, node: me, n: 0 };
            op.ballot = Some(ballot);
            op.proposal.prepare(ballot);
            Ask::Prepare(ballot)
        };
        self.ask_own(number, &view, place, ask);
    }

    /// The round in which this member has the word of a key.
    fn word(&self, place: &Place, epoch: u64) -> Option<u64> {
        let held = self.held.get(&place.slot)?;
        let by_view = held.leads == Some(epoch) && !held.lost.contains(&place.key);
        self.operations.words.get(place).copied().or(by_view.then_some(0))
    }

    fn ask_own(&mut self, number: u64, view: &View, place: Place, ask: Ask) {
        let grant = grant_of(view);
        self.store_and(Work::Vote(Box::new(Vote { place, grant, ask })), Awaited::Own { number });
    }

    /// Asks as many as are needed, not always the same; the others if one is late.
    fn peek(&mut self, now: Time, id: u64) {
        let late_after = self.patience(PEEK_MORE);
        let me = self.me.incarnation;
        let Some(op) = self.operations.ops.get_mut(&id) else { return };
        let (number, view, place, until) = (op.number, op.proposal.view.clone(), op.place.clone(), op.until);
        let late = &self.operations.late;
        let is_late = |member: &Contact| late.get(&member.incarnation).is_some_and(|at| now.since(*at) < LATE_FOR);
        let mut others: Vec<Contact> = view.members.iter().filter(|member| member.incarnation != me).copied().collect();
        let turn = usize::try_from(number % others.len().max(1) as u64).unwrap_or(0);
        others.rotate_left(turn);
        others.sort_by_key(is_late);
        op.spare = others.split_off(view.members.len() / 2);
        op.silent = others;
        op.ask = Some(Ask::Peek);
        self.timers.set(Timer::Operation(id), (now + late_after).min(until));
        self.ask_own(number, &view, place, Ask::Peek);
        self.ask_silent(id);
    }

    fn ask_others(&mut self, id: u64, ask: Ask) {
        let me = self.me.incarnation;
        let Some(op) = self.operations.ops.get_mut(&id) else { return };
        op.silent = op.proposal.view.members.iter().filter(|member| member.incarnation != me).copied().collect();
        op.ask = Some(ask);
        self.ask_silent(id);
    }

    fn ask_silent(&mut self, id: u64) {
        let Some(op) = self.operations.ops.get(&id) else { return };
        let Some(ask) = &op.ask else { return };
        let (number, slot, epoch) = (op.number, op.place.slot, op.proposal.view.epoch);
        for to in &op.silent {
            let (key, ask) = (op.place.key.clone(), ask.clone());
            let message = CopyMessage::Ask { number, slot, epoch, key, ask };
            self.effects.push_back(CopiesEffect::Send { to: *to, message: Box::new(message) });
        }
    }

    fn ask_all(&mut self, id: u64, ask: Ask) {
        let Some(op) = self.operations.ops.get(&id) else { return };
        let (number, view, place) = (op.number, op.proposal.view.clone(), op.place.clone());
        self.ask_own(number, &view, place, ask.clone());
        self.ask_others(id, ask);
    }

    /// A register has answered.
    pub(super) fn on_answer(&mut self, now: Time, from: Incarnation, number: u64, answer: Result<Answer, Trouble>) {
        let Some(&id) = self.operations.numbers.get(&number) else { return };
        let Some(op) = self.operations.ops.get_mut(&id) else { return };
        op.silent.retain(|member| member.incarnation != from);
        let answer = match answer {
            Ok(answer) => answer,
            Err(trouble) => {
                self.on_trouble(now, id, from, trouble);
                return;
            }
        };
        let is_own = from == self.me.incarnation;
        let begins = is_own && op.ask.is_none();
        let Some(ballot) = op.ballot else {
            let Answer::Told(accepted) = answer else { return };
            let next = op.proposal.told(from, accepted);
            self.go_on(now, id, next);
            return;
        };
        let (next, ask) = match answer {
            Answer::Promised(accepted, evicted) => {
                (op.proposal.promised(from, ballot, accepted, evicted), begins.then_some(Ask::Prepare(ballot)))
            }
            Answer::Led(state, outcome) if begins => {
                op.proposal.led(ballot, outcome);
                op.is_accepting = true;
                (op.proposal.accepted(from, ballot), Some(Ask::Accept(ballot, state)))
            }
            Answer::Accepted => (op.proposal.accepted(from, ballot), None),
            // Its own store carries nothing out that follows something else.
            Answer::Refused(promised) if begins && op.leads => (Next::Outdone(promised), None),
            Answer::Refused(promised) => (op.proposal.refused(ballot, promised), None),
            Answer::Forgotten => (Next::Unknown, None),
            Answer::Doubtful => (Next::Doubtful, None),
            Answer::Told(_) | Answer::Led(..) => return,
        };
        let proposed = match (&ask, &next) {
            (Some(Ask::Accept(_, state)), _) | (_, Next::Accept(_, state)) => Some(state),
            _ => None,
        };
        op.hint = proposed.map(|state| Hint::of(ballot, state)).or(op.hint);
        if proposed.is_some_and(|state| state.record.is_none()) {
            let slot = op.place.slot;
            self.has_removed(now, slot);
        }
        if let Some(ask) = ask.filter(|_| next == Next::Wait) {
            self.ask_others(id, ask);
        }
        self.go_on(now, id, next);
    }

    /// A member cannot read or store what it was asked for.
    fn on_trouble(&mut self, now: Time, id: u64, from: Incarnation, trouble: Trouble) {
        let Some(op) = self.operations.ops.get_mut(&id) else { return };
        op.failed.insert(from);
        let left = op.proposal.view.members.len() - op.failed.len();
        let begins = from == self.me.incarnation && op.ask.is_none();
        let is_damaged = matches!(trouble, Trouble::Damaged(_));
        if !op.spare.is_empty() {
            op.silent.append(&mut op.spare);
            self.ask_silent(id);
            return;
        }
        if begins && op.ballot.is_some() && is_damaged {
            // Others can coordinate without this member's copy, and it is about to be mended.
            op.leads = false;
            let again = op.proposal.again;
            self.finish(now, id, Ran::NotNow { elsewhere: None, again });
        } else if begins && op.leads {
            // Nothing was carried out, and nobody else was asked.
            op.leads = false;
            self.finish(now, id, Ran::Failed(trouble));
        } else if begins && op.ballot.is_some() || !is_majority(left, &op.proposal.view) {
            let may_be = op.proposal.again;
            self.finish(now, id, if may_be { Ran::Unknown } else { Ran::Failed(trouble) });
        }
    }

    fn go_on(&mut self, now: Time, id: u64, next: Next) {
        let Some(op) = self.operations.ops.get_mut(&id) else { return };
        match next {
            Next::Accept(ballot, state) => {
                op.is_accepting = true;
                self.ask_all(id, Ask::Accept(ballot, state));
            }
            Next::Done(outcome) => {
                self.finish(now, id, Ran::Done(outcome));
            }
            Next::Doubtful => {
                // Its own store carried nothing out.
                op.leads = false;
                let key = op.place.key.clone();
                self.finish(now, id, Ran::Failed(Trouble::Damaged(key)));
            }
            Next::Unknown => self.finish(now, id, Ran::Unknown),
            Next::Outdone(by) => self.outdone(now, id, by),
            Next::Wait | Next::Read | Next::Prepare(_) => {}
        }
    }

    fn outdone(&mut self, now: Time, id: u64, by: Ballot) {
        let Some(op) = self.operations.ops.get_mut(&id) else { return };
        if by.round == u64::MAX {
            // Members of the next view have found that too few copies can be read: in this one nothing comes of it any more.
            let again = op.may_be_done();
            self.finish(now, id, Ran::NotNow { elsewhere: None, again });
            return;
        }
        op.outdone = Some(by);
        self.operations.numbers.remove(&op.number);
        let (place, had_ballot, tries) = (op.place.clone(), op.ballot.is_some(), op.tries);
        if had_ballot {
            self.lose_word(&place);
            let most = OUTDONE_PAUSE * u64::from(tries.min(OUTDONE_PAUSES_MAX));
            let until = self.operations.ops.get(&id).map_or(now, |op| op.until);
            let pause = Span(1 + self.rng.below(most.0));
            self.timers.set(Timer::Operation(id), (now + pause).min(until));
            return;
        }
        // A get that did not find the same with all: it is carried out with a ballot, and alone.
        op.alone = true;
        if let Some(line) = self.operations.lines.get_mut(&place) {
            line.running.retain(|running| *running != id);
            line.waiting.push_front(id);
        }
        self.pump(now, &place);
    }

    /// What was proposed last on a key may have been chosen, or not: whoever goes on has to ask.
    pub(super) fn lose_word(&mut self, place: &Place) {
        if self.mutated(Mutation::KeepsTheWord) {
            return;
        }
        self.operations.words.remove(place);
        if let Some(held) = self.held.get_mut(&place.slot)
            && held.leads.is_some()
        {
            held.lost.insert(place.key.clone());
            if held.lost.len() > LOST_MAX {
                held.leads = None;
                held.lost.clear();
            }
        }
    }

    fn finish(&mut self, now: Time, id: u64, ran: Ran) {
        let Some(op) = self.operations.ops.remove(&id) else { return };
        self.operations.numbers.remove(&op.number);
        self.timers.cancel(Timer::Operation(id));
        match op.ballot {
            Some(ballot) if matches!(ran, Ran::Done(_)) && op.is_accepting && ballot.round > 0 => {
                self.win_word(op.place.clone(), ballot.round);
            }
            Some(_) if matches!(ran, Ran::Done(_)) => {}
            Some(_) if op.is_accepting || op.leads => self.lose_word(&op.place),
            _ => {}
        }
        self.tell_change(&op, &ran);
        if op.asker == NOBODY {
            self.repair.is_read();
        }
        self.effects.push_back(CopiesEffect::Ran { asker: op.asker, ran });
        if let Some(line) = self.operations.lines.get_mut(&op.place) {
            line.running.retain(|running| *running != id);
            line.waiting.retain(|waiting| *waiting != id);
            line.alone &= !line.running.is_empty();
        }
        self.pump(now, &op.place);
    }

    /// Whatever was proposed may be chosen, whether this member knows it or not.
    fn tell_change(&mut self, op: &Op, ran: &Ran) {
        if self.tells_changes && (op.is_accepting || op.leads || op.tries > 1 && op.proposal.again) {
            let is_known = op.tries == 1 && matches!(ran, Ran::Done(_));
            let hint = op.hint.filter(|_| is_known).unwrap_or(Hint::Unknown);
            self.effects.push_back(CopiesEffect::Changed { key: op.place.key.clone(), hint, coordinated: true });
        }
    }

    fn win_word(&mut self, place: Place, round: u64) {
        let words = &mut self.operations.words;
        if words.len() >= WORDS_MAX {
            let next = words.range(&place..).next().or(words.iter().next()).map(|(of, _)| of.clone());
            next.map(|next| words.remove(&next));
        }
        words.insert(place, round);
    }

    fn out_of_time(&mut self, now: Time, id: u64) {
        let may_be_done = self.operations.ops.get(&id).is_some_and(Op::may_be_done);
        let ran = if may_be_done { Ran::Unknown } else { Ran::NotNow { elsewhere: None, again: false } };
        self.finish(now, id, ran);
    }

    /// A pause is over, members are silent, or the time is up.
    pub(super) fn operation_due(&mut self, now: Time, id: u64) {
        let Some(op) = self.operations.ops.get(&id) else { return };
        if now >= op.until {
            self.out_of_time(now, id);
        } else if op.outdone.is_some() {
            self.begin(now, id);
        } else {
            let until = op.until;
            self.timers.set(Timer::Operation(id), (now + self.patience(ASK_AGAIN)).min(until));
            self.ask_spare(now, id);
            self.ask_silent(id);
        }
    }

    /// Those who were asked for a peek do not answer: the others are.
    fn ask_spare(&mut self, now: Time, id: u64) {
        let Some(op) = self.operations.ops.get_mut(&id).filter(|op| !op.spare.is_empty()) else { return };
        let late = &mut self.operations.late;
        late.retain(|_, at| now.since(*at) < LATE_FOR);
        late.extend(op.silent.iter().map(|member| (member.incarnation, now)));
        op.silent.append(&mut op.spare);
    }

    /// This member does not serve a slot any more, or in another view: whoever asked has to ask again.
    pub(super) fn end_operations(&mut self, now: Time, slot: Slot) {
        // Nothing that waits may begin now, in a view that is over.
        self.operations.lines.retain(|place, _| place.slot != slot);
        self.operations.words.retain(|place, _| place.slot != slot);
        let of_slot = self.operations.ops.iter().filter(|(_, op)| op.place.slot == slot);
        let all: Vec<(u64, bool)> = of_slot.map(|(id, op)| (*id, op.may_be_done())).collect();
        let elsewhere = self.view(slot).filter(|view| !view.has(self.me.incarnation)).cloned();
        for (id, again) in all {
            self.finish(now, id, Ran::NotNow { elsewhere: elsewhere.clone(), again });
        }
    }
}

impl Op {
    fn may_be_done(&self) -> bool {
        self.proposal.command.is_write() && (self.proposal.again || self.leads)
    }
}
