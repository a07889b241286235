//! What a member does with a message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Message, NOW, Volatile, Without, World, contact};
use crate::base::Incarnation;
use crate::data::register::{Accepted, Register, grant, operate};
use crate::replication::View;
use crate::replication::chain::is_majority;

impl World {
    pub(super) fn deliver(&mut self, from: usize, to: usize, views: &[View], message: Message) {
        let (me, sender) = (contact(to).incarnation, contact(from).incarnation);
        self.nodes[to].chain.learn(views);
        let asked_in = match &message {
            Message::Read { epoch, .. } => Some(*epoch),
            Message::Prepare { ballot, .. } | Message::Accept { ballot, .. } => Some(ballot.epoch),
            _ => None,
        };
        if let Some(epoch) = asked_in {
            let serves = match self.without {
                Without::Completeness => self.nodes[to].chain.newest().filter(|view| view.has(me)).cloned(),
                Without::Freezing => {
                    let chain = &self.nodes[to].chain;
                    chain.views().into_iter().find(|view| view.epoch == epoch && chain.has_records(epoch))
                }
                _ => self.nodes[to].chain.served().cloned(),
            };
            let Some(view) = serves.filter(|view| view.epoch == epoch) else {
                self.send(to, sender, Message::Views);
                return;
            };
            self.serve(from, to, &view, message);
            return;
        }
        match message {
            Message::Told { try_, accepted } => {
                if matches!(self.without, Without::MajorityReads) {
                    self.told_by_one(to, try_, accepted);
                    return;
                }
                let without = self.without;
                let Some(run) = self.nodes[to].now.running.get_mut(&try_) else { return };
                let mut accepted = accepted;
                if without == Without::SameBallots
                    && let Some(accepted) = &mut accepted
                {
                    // As if all had told the same.
                    accepted.ballot = grant(run.proposal.view.epoch, Incarnation(0));
                    accepted.copied = false;
                }
                let next = run.proposal.told(sender, accepted);
                self.go_on(to, try_, next);
            }
            Message::Promised { try_, ballot, accepted } => {
                let Some(run) = self.nodes[to].now.running.get_mut(&try_) else { return };
                let next = run.proposal.promised(sender, ballot, accepted, None);
                self.go_on(to, try_, next);
            }
            Message::Accepted { try_, ballot } => {
                let Some(run) = self.nodes[to].now.running.get_mut(&try_) else { return };
                let next = run.proposal.accepted(sender, ballot);
                self.go_on(to, try_, next);
            }
            Message::Refused { try_, ballot, promised } => {
                let Some(run) = self.nodes[to].now.running.get_mut(&try_) else { return };
                let next = run.proposal.refused(ballot, promised);
                self.go_on(to, try_, next);
            }
            message => self.change(from, to, message),
        }
    }

    fn told_by_one(&mut self, at: usize, number: u64, accepted: Option<Accepted>) {
        let Some(run) = self.nodes[at].now.running.get(&number) else { return };
        let state = accepted.map(|accepted| accepted.state);
        let grant = grant(1, Incarnation(1));
        if let Ok(operated) = operate(state.as_ref(), (run.proposal.id, &run.proposal.command), false, grant, NOW) {
            self.done(at, number, &operated.outcome);
        }
    }

    fn serve(&mut self, from: usize, to: usize, view: &View, message: Message) {
        let sender = contact(from).incarnation;
        let word = grant(view.epoch, view.primary().expect("somebody").incarnation);
        let reply = match message {
            Message::Read { try_, key, .. } => {
                let accepted = self.nodes[to].registers.get(&key).and_then(Register::accepted).cloned();
                Message::Told { try_, accepted }
            }
            Message::Prepare { try_, key, ballot } => {
                match self.nodes[to].registers.entry(key).or_default().prepare(word, ballot) {
                    Ok(accepted) => Message::Promised { try_, ballot, accepted: accepted.cloned() },
                    Err(promised) => Message::Refused { try_, ballot, promised },
                }
            }
            Message::Accept { try_, key, ballot, state } => {
                match self.nodes[to].registers.entry(key).or_default().accept(word, ballot, state) {
                    Ok(()) => Message::Accepted { try_, ballot },
                    Err(promised) => Message::Refused { try_, ballot, promised },
                }
            }
            _ => return,
        };
        self.send(to, sender, reply);
    }

    /// What views are made of.
    fn change(&mut self, from: usize, to: usize, message: Message) {
        let sender = contact(from).incarnation;
        match message {
            Message::Elect { epoch, turn } => {
                let promised = self.nodes[to].chain.prepare(epoch, turn);
                if let Some(Ok(mut promise)) = promised {
                    if self.without == Without::AdoptedBids {
                        promise.accepted = None;
                    }
                    self.send(to, sender, Message::Elected { epoch, turn, promise });
                }
            }
            Message::Elected { epoch, turn, promise } => {
                let election = self.nodes[to].now.election.as_mut();
                let Some(election) = election.filter(|e| (e.of.epoch, e.turn) == (epoch, turn)) else { return };
                let of = election.of.clone();
                if let Some(members) = election.promised(sender, promise) {
                    self.send_all(to, &of, &Message::Vote { epoch, turn, members });
                }
            }
            Message::Vote { epoch, turn, members } => {
                let voted = self.nodes[to].chain.accept(epoch, turn, &members);
                if let Some(Ok(())) = voted {
                    self.send(to, sender, Message::Voted { epoch, turn });
                }
            }
            Message::Voted { epoch, turn } => {
                let election = self.nodes[to].now.election.as_mut();
                let Some(election) = election.filter(|e| (e.of.epoch, e.turn) == (epoch, turn)) else { return };
                if let Some(next) = election.voted(sender) {
                    self.views = self.views.max(next.epoch);
                    let decided = self.decided.entry(next.epoch).or_insert_with(|| Arc::clone(&next.members));
                    if *decided != next.members {
                        self.fault = Some(format!("two views of epoch {}", next.epoch));
                    }
                    let of = election.of.clone();
                    self.nodes[to].chain.learn(std::slice::from_ref(&next));
                    for view in [&of, &next] {
                        self.send_all(to, view, &Message::Views);
                    }
                }
            }
            Message::Fetch { epoch } => {
                let gives = self.nodes[to].chain.give(epoch);
                if gives {
                    let all = self.nodes[to].registers.iter();
                    let registers = all.filter_map(|(key, r)| Some((*key, r.accepted()?.clone()))).collect();
                    self.send(to, sender, Message::Fetched { epoch, registers });
                }
            }
            Message::Fetched { epoch, registers } => self.fetched(from, to, epoch, &registers),
            Message::Complete { epoch } => {
                let is_over = self.nodes[to].chain.is_complete_at(epoch, sender);
                if is_over {
                    self.nodes[to].registers.clear();
                }
            }
            _ => {}
        }
    }

    fn fetched(&mut self, from: usize, to: usize, epoch: u64, registers: &[(u8, Accepted)]) {
        let node = &mut self.nodes[to];
        let Some((view, of)) = node.chain.wanted().into_iter().find(|(_, of)| of.epoch == epoch) else { return };
        let (fetching, by) = node.now.fetched.get_or_insert_with(|| (epoch, BTreeSet::new()));
        if *fetching != epoch {
            (*fetching, *by) = (epoch, BTreeSet::new());
        }
        for (key, accepted) in registers {
            node.registers.entry(*key).or_default().copy(accepted);
        }
        by.insert(contact(from).incarnation);
        let enough = is_majority(by.len(), &of) || self.without == Without::MajorityFetches;
        if enough {
            let me = contact(to).incarnation;
            node.now.fetched = None;
            node.chain.complete(view.epoch);
            if view.primary().is_some_and(|first| first.incarnation == me) {
                let (leads, steps, unsettled) = (Some(view.epoch), BTreeMap::new(), BTreeSet::new());
                node.now = Volatile { leads, steps, unsettled, ..std::mem::take(&mut node.now) };
                for run in node.now.running.values_mut() {
                    run.leads = false;
                }
            }
            for view in [view.clone(), of] {
                self.send_all(to, &view, &Message::Complete { epoch: view.epoch.max(epoch + 1) });
            }
        }
    }
}
