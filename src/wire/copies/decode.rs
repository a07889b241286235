//! Protobuf to domain messages of the copies. Whatever a peer says ends here in something valid, and bounded.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::decode::{
    Decoded, Reader, WireError, command, epoch_runs, incarnation, key, outcome, record, run, runs, trouble, version,
};
use super::super::pb;
use super::super::pb::envelope::Body;
use crate::base::{Contact, Incarnation, Wall};
use crate::data::register::{Accepted, GONE_MAX, OpId, RECENT_MAX, Recent, State};
use crate::data::{Answer, Ask, Digest, Key, Slot};
use crate::replication::View;
use crate::replication::chain::{MEMBERS_MAX, Promise, Turn};
use crate::replication::copies::{CopyMessage, Operation, Part, Ran};

/// Views of one slot in a message, at most: so many that somebody may have to know are never left.
const VIEWS_MAX: usize = 1_024;
/// As many turns as nobody has.
const TURN_MAX: u64 = 1 << 62;

impl Reader<'_> {
    pub(in crate::wire) fn copies(&mut self, body: Body) -> Decoded<CopyMessage> {
        Ok(match body {
            Body::CopyQuery(of) => CopyMessage::Query { runs: runs(of.runs)? },
            Body::CopyNotice(of) => {
                let slot = |of: pb::SlotViews| Ok((run(of.run)?, self.views(of.views)?));
                CopyMessage::Notice { views: of.views.into_iter().map(slot).collect::<Decoded<_>>()? }
            }
            Body::CopySummary(m) => CopyMessage::Summary { sum: m.sum, of: runs(m.of)? },
            Body::CopyEpochs(of) => CopyMessage::Epochs { runs: epoch_runs(of.runs)?, answer: of.answer },
            Body::CopyFetch(of) => CopyMessage::Fetch {
                slot: Slot(of.slot),
                epoch: of.epoch,
                views: self.views(of.views)?,
                ahead: of.ahead,
                digest: of.digest.map(|digest| Digest { keys: digest.keys, sum: digest.sum }),
                serial: of.serial,
                after: of.after.map(|after| self.cursor(after)).transpose()?,
            },
            Body::CopyPart(of) => {
                let entry = |of: pb::CopyEntry| Ok((key(of.key)?, accepted(of.accepted)?));
                let part = Part {
                    entries: of.entries.into_iter().map(entry).collect::<Decoded<_>>()?,
                    damaged: of.damaged.into_iter().map(key).collect::<Decoded<_>>()?,
                    next: of.next.map(|next| self.cursor(next)).transpose()?,
                    evicted: of.evicted.map(Wall),
                    same: of.same,
                };
                CopyMessage::Part { slot: Slot(of.slot), epoch: of.epoch, serial: of.serial, part }
            }
            Body::CopyComplete(of) => {
                CopyMessage::Complete { slot: Slot(of.slot), epoch: of.epoch, has: of.has, ask: of.ask }
            }
            Body::CopyAsk(of) => CopyMessage::Ask {
                number: of.number,
                slot: Slot(of.slot),
                epoch: of.epoch,
                key: key(of.key)?,
                ask: ask(of.ask.ok_or(WireError::Unknown)?)?,
            },
            Body::CopyAnswered(of) => {
                let answer = match of.answer.ok_or(WireError::Unknown)? {
                    pb::copy_answered::Answer::Trouble(of) => Err(trouble(of.kind.ok_or(WireError::Unknown)?)?),
                    of => Ok(answer(of)?),
                };
                CopyMessage::Answered { number: of.number, answer }
            }
            Body::CopyCompare(of) => self.compare(of)?,
            Body::CopyCompared(of) => self.compared(of)?,
            Body::CopyLeaving(pb::CopyLeaving {}) => CopyMessage::Leaving,
            Body::CopyCollect(of) => CopyMessage::Collect {
                slot: Slot(of.slot),
                epoch: of.epoch,
                serial: of.serial,
                keys: removals(of.removals)?,
            },
            Body::CopyCollectable(of) => CopyMessage::Collectable {
                slot: Slot(of.slot),
                epoch: of.epoch,
                serial: of.serial,
                keys: of.keys.into_iter().map(key).collect::<Decoded<_>>()?,
            },
            Body::CopyDrop(of) => {
                CopyMessage::Drop { slot: Slot(of.slot), epoch: of.epoch, keys: removals(of.removals)? }
            }
            body => self.votes(body)?,
        })
    }

    /// What views are made of.
    fn votes(&mut self, body: Body) -> Decoded<CopyMessage> {
        Ok(match body {
            Body::CopyWish(of) => {
                CopyMessage::Wish { slot: Slot(of.slot), epoch: of.epoch, members: self.members(of.members)? }
            }
            Body::CopyElect(of) => CopyMessage::Elect {
                slot: Slot(of.slot),
                epoch: of.epoch,
                turn: turn(of.turn)?,
                views: self.views(of.views)?,
            },
            Body::CopyElected(of) => {
                let accepted = match of.accepted {
                    Some(accepted) => Some((turn(Some(accepted))?, Arc::from(self.members(of.members)?))),
                    None => None,
                };
                let promise = Promise { accepted, complete: of.complete };
                CopyMessage::Elected { slot: Slot(of.slot), epoch: of.epoch, turn: turn(of.turn)?, promise }
            }
            Body::CopyVote(of) => CopyMessage::Vote {
                slot: Slot(of.slot),
                epoch: of.epoch,
                turn: turn(of.turn)?,
                members: Arc::from(self.members(of.members)?),
            },
            Body::CopyVoted(of) => CopyMessage::Voted { slot: Slot(of.slot), epoch: of.epoch, turn: turn(of.turn)? },
            Body::CopyOverruled(of) => {
                CopyMessage::Overruled { slot: Slot(of.slot), epoch: of.epoch, turn: turn(of.turn)? }
            }
            Body::CopyInvite(of) => CopyMessage::Invite { slot: Slot(of.slot), views: self.views(of.views)? },
            Body::CopyReady(of) => CopyMessage::Ready { slot: Slot(of.slot), epoch: of.epoch },
            _ => return Err(WireError::Unknown),
        })
    }

    /// Each once: who counts twice would be a majority by itself.
    pub(in crate::wire) fn members(&mut self, members: Vec<pb::Contact>) -> Decoded<Vec<Contact>> {
        const WRONG: WireError = WireError::Invalid("the members of a view");
        if !(1..=MEMBERS_MAX).contains(&members.len()) {
            return Err(WRONG);
        }
        let members: Vec<Contact> = members.into_iter().map(|member| self.contact(member)).collect::<Decoded<_>>()?;
        let different: BTreeSet<Incarnation> = members.iter().map(|member| member.incarnation).collect();
        if different.len() == members.len() { Ok(members) } else { Err(WRONG) }
    }

    fn views(&mut self, views: Vec<pb::View>) -> Decoded<Vec<View>> {
        if views.len() > VIEWS_MAX {
            return Err(WireError::TooLarge("a list of views"));
        }
        views.into_iter().map(|view| self.view(view)).collect()
    }

    pub(in crate::wire) fn ran(&mut self, ran: pb::RanReply) -> Decoded<Ran> {
        use pb::ran_reply::Reply as From;
        Ok(match ran.reply.ok_or(WireError::Unknown)? {
            From::Done(of) => Ran::Done(outcome(Some(of))?),
            From::Unknown(pb::Unknown {}) => Ran::Unknown,
            From::Failed(of) => Ran::Failed(trouble(of.kind.ok_or(WireError::Unknown)?)?),
            From::NotNow(of) => {
                let elsewhere = of.elsewhere.map(|view| self.view(view)).transpose()?;
                Ran::NotNow { elsewhere, again: of.again }
            }
        })
    }
}

pub(in crate::wire) fn operation(
    of: Option<pb::operate_call::Command>,
    id: Option<pb::OpId>,
    again: bool,
) -> Decoded<Operation> {
    Ok(Operation { id: op_id(id)?, command: command(of)?, again })
}

fn op_id(id: Option<pb::OpId>) -> Decoded<OpId> {
    let id = id.ok_or(WireError::Missing("an operation"))?;
    Ok(OpId { node: incarnation(id.node)?, n: id.n, issued: Wall(id.issued) })
}

fn removals(removals: Vec<pb::Removal>) -> Decoded<Vec<(Key, crate::data::Version)>> {
    removals.into_iter().map(|of| Ok((key(of.key)?, ballot(of.ballot)?))).collect()
}

fn turn(turn: Option<pb::Turn>) -> Decoded<Turn> {
    // One more must be possible for ever.
    let turn = turn.filter(|turn| turn.n <= TURN_MAX).ok_or(WireError::Missing("a turn"))?;
    Ok(Turn { n: turn.n, node: incarnation(turn.node)? })
}

fn accepted(accepted: Option<pb::Accepted>) -> Decoded<Accepted> {
    let accepted = accepted.ok_or(WireError::Missing("what was accepted"))?;
    Ok(Accepted { ballot: ballot(accepted.ballot)?, copied: accepted.copied, state: state(accepted.state)? })
}

fn ballot(ballot: Option<pb::Version>) -> Decoded<crate::data::Version> {
    version(ballot.ok_or(WireError::Missing("a ballot"))?)
}

fn state(state: Option<pb::State>) -> Decoded<State> {
    let state = state.ok_or(WireError::Missing("a state"))?;
    if state.recent.len() > RECENT_MAX {
        return Err(WireError::TooLarge("a list of operations"));
    }
    if state.gone.len() > GONE_MAX {
        return Err(WireError::TooLarge("a list of nodes"));
    }
    let gone = |of: pb::Gone| Ok((incarnation(of.node)?, of.n));
    let gone = state.gone.into_iter().map(gone).collect::<Decoded<_>>()?;
    let ended = |of: pb::Ended| Ok((op_id(of.operation)?, outcome(of.outcome)?));
    let ended = state.recent.into_iter().map(ended).collect::<Decoded<_>>()?;
    Ok(State {
        record: state.record.map(record).transpose()?,
        recent: Recent::new(ended, state.evicted.map(Wall)).with_gone(gone),
        doubtful: state.doubtful,
    })
}

fn ask(ask: pb::copy_ask::Ask) -> Decoded<Ask> {
    use pb::copy_ask::Ask as From;
    Ok(match ask {
        From::Peek(pb::Peek {}) => Ask::Peek,
        From::Prepare(of) => Ask::Prepare(version(of)?),
        From::Accept(of) => Ask::Accept(ballot(of.ballot)?, state(of.state)?),
    })
}

fn answer(answer: pb::copy_answered::Answer) -> Decoded<Answer> {
    use pb::copy_answered::Answer as From;
    let maybe = |of: pb::MaybeAccepted| of.accepted.map(|of| accepted(Some(of))).transpose();
    Ok(match answer {
        From::Told(of) => Answer::Told(maybe(of)?),
        From::Promised(of) => {
            let evicted = of.evicted.map(Wall);
            Answer::Promised(maybe(of)?, evicted)
        }
        From::Accepted(pb::Done {}) => Answer::Accepted,
        From::Refused(by) => Answer::Refused(version(by)?),
        From::Trouble(_) => return Err(WireError::Invalid("an answer")),
    })
}
