//! Domain messages of the copies to protobuf.

use super::super::encode::{
    contacts, cursor, epoch_runs, outcome as outcome_pb, record, run, runs, trouble, u128_pb, version, view,
};
use super::super::pb;
use super::super::pb::envelope::Body;
use super::compare::{compare_pb, compared_pb};
use crate::base::Incarnation;
use crate::data::register::{Accepted, OpId, State};
use crate::data::{Answer, Ask, Key, Outcome, Version};
use crate::replication::View;
use crate::replication::chain::Turn;
use crate::replication::copies::{CopyMessage, Ran};

pub(in crate::wire) fn copies(message: &CopyMessage) -> Body {
    match message {
        CopyMessage::Query { runs: of } => Body::CopyQuery(pb::CopyQuery { runs: runs(of) }),
        CopyMessage::Notice { views: all } => {
            let slot = |(of, list): &(_, Vec<View>)| pb::SlotViews { run: Some(run(*of)), views: views(list) };
            Body::CopyNotice(pb::CopyNotice { views: all.iter().map(slot).collect() })
        }
        CopyMessage::Summary { sum, of } => Body::CopySummary(pb::CopySummary { sum: *sum, of: runs(of) }),
        CopyMessage::Epochs { runs, answer } => {
            Body::CopyEpochs(pb::CopyEpochs { runs: epoch_runs(runs), answer: *answer })
        }
        CopyMessage::Fetch { slot, epoch, views: all, ahead, digest, serial, after } => {
            Body::CopyFetch(pb::CopyFetch {
                slot: slot.0,
                epoch: *epoch,
                views: views(all),
                ahead: *ahead,
                digest: digest.map(|digest| pb::Digest { keys: digest.keys, sum: digest.sum }),
                serial: *serial,
                after: after.as_ref().map(cursor),
            })
        }
        CopyMessage::Part { slot, epoch, serial, part } => {
            let entry = |(key, of): &(Key, Accepted)| pb::CopyEntry {
                key: key.as_bytes().to_vec(),
                accepted: Some(accepted(of)),
            };
            let (slot, epoch, serial) = (slot.0, *epoch, *serial);
            let entries = part.entries.iter().map(entry).collect();
            let damaged = part.damaged.iter().map(|key| key.as_bytes().to_vec()).collect();
            let next = part.next.as_ref().map(cursor);
            let evicted = part.evicted.map(|at| at.0);
            Body::CopyPart(pb::CopyPart { slot, epoch, serial, entries, next, damaged, evicted, same: part.same })
        }
        CopyMessage::Compare { serial, slots } => Body::CopyCompare(compare_pb(*serial, slots)),
        CopyMessage::Compared { serial, slots } => Body::CopyCompared(compared_pb(*serial, slots)),
        CopyMessage::Complete { slot, epoch, has, ask } => {
            Body::CopyComplete(pb::CopyComplete { slot: slot.0, epoch: *epoch, has: *has, ask: *ask })
        }
        CopyMessage::Ask { number, slot, epoch, key, ask: of } => {
            let (number, slot, epoch, key) = (*number, slot.0, *epoch, key.as_bytes().to_vec());
            Body::CopyAsk(pb::CopyAsk { number, slot, epoch, key, ask: ask(of) })
        }
        CopyMessage::Answered { number, answer: of } => {
            let answer = match of {
                Ok(of) => answer(of),
                Err(of) => Some(pb::copy_answered::Answer::Trouble(pb::Trouble { kind: Some(trouble(of)) })),
            };
            Body::CopyAnswered(pb::CopyAnswered { number: *number, answer })
        }
        CopyMessage::Leaving => Body::CopyLeaving(pb::CopyLeaving {}),
        CopyMessage::Collect { slot, epoch, serial, keys } => {
            let (slot, epoch, serial) = (slot.0, *epoch, *serial);
            Body::CopyCollect(pb::CopyCollect { slot, epoch, serial, removals: removals(keys) })
        }
        CopyMessage::Collectable { slot, epoch, serial, keys } => {
            let (slot, epoch, serial) = (slot.0, *epoch, *serial);
            let keys = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
            Body::CopyCollectable(pb::CopyCollectable { slot, epoch, serial, keys })
        }
        CopyMessage::Drop { slot, epoch, keys } => {
            Body::CopyDrop(pb::CopyDrop { slot: slot.0, epoch: *epoch, removals: removals(keys) })
        }
        votes => vote(votes),
    }
}

fn removals(keys: &[(Key, Version)]) -> Vec<pb::Removal> {
    let removal =
        |(key, ballot): &(Key, Version)| pb::Removal { key: key.as_bytes().to_vec(), ballot: Some(version(ballot)) };
    keys.iter().map(removal).collect()
}

/// What views are made of.
fn vote(message: &CopyMessage) -> Body {
    match message {
        CopyMessage::Wish { slot, epoch, members } => {
            Body::CopyWish(pb::CopyWish { slot: slot.0, epoch: *epoch, members: contacts(members) })
        }
        CopyMessage::Elect { slot, epoch, turn: of, views: all } => {
            Body::CopyElect(pb::CopyElect { slot: slot.0, epoch: *epoch, turn: Some(turn(of)), views: views(all) })
        }
        CopyMessage::Elected { slot, epoch, turn: of, promise } => Body::CopyElected(pb::CopyElected {
            slot: slot.0,
            epoch: *epoch,
            turn: Some(turn(of)),
            accepted: promise.accepted.as_ref().map(|(of, _)| turn(of)),
            members: promise.accepted.as_ref().map_or_else(Vec::new, |(_, members)| contacts(members)),
            complete: promise.complete,
        }),
        CopyMessage::Vote { slot, epoch, turn: of, members } => Body::CopyVote(pb::CopyVote {
            slot: slot.0,
            epoch: *epoch,
            turn: Some(turn(of)),
            members: contacts(members),
        }),
        CopyMessage::Voted { slot, epoch, turn: of } => {
            Body::CopyVoted(pb::CopyVoted { slot: slot.0, epoch: *epoch, turn: Some(turn(of)) })
        }
        CopyMessage::Overruled { slot, epoch, turn: of } => {
            Body::CopyOverruled(pb::CopyOverruled { slot: slot.0, epoch: *epoch, turn: Some(turn(of)) })
        }
        CopyMessage::Invite { slot, views: all } => {
            Body::CopyInvite(pb::CopyInvite { slot: slot.0, views: views(all) })
        }
        CopyMessage::Ready { slot, epoch } => Body::CopyReady(pb::CopyReady { slot: slot.0, epoch: *epoch }),
        _ => Body::CopyLeaving(pb::CopyLeaving {}),
    }
}

fn views(views: &[View]) -> Vec<pb::View> {
    views.iter().map(view).collect()
}

fn turn(turn: &Turn) -> pb::Turn {
    pb::Turn { n: turn.n, node: Some(u128_pb(turn.node.0)) }
}

pub(in crate::wire) fn op_id(id: &OpId) -> pb::OpId {
    pb::OpId { node: Some(u128_pb(id.node.0)), n: id.n, issued: id.issued.0 }
}

fn accepted(accepted: &Accepted) -> pb::Accepted {
    pb::Accepted {
        ballot: Some(version(&accepted.ballot)),
        copied: accepted.copied,
        state: Some(state(&accepted.state)),
    }
}

fn state(state: &State) -> pb::State {
    let ended =
        |(id, outcome): &(OpId, Outcome)| pb::Ended { operation: Some(op_id(id)), outcome: Some(outcome_pb(outcome)) };
    let gone = |(node, n): &(Incarnation, u64)| pb::Gone { node: Some(u128_pb(node.0)), n: *n };
    pb::State {
        record: state.record.as_ref().map(record),
        recent: state.recent.ended().iter().map(ended).collect(),
        evicted: state.recent.evicted().map(|at| at.0),
        doubtful: state.doubtful,
        gone: state.recent.gone().iter().map(gone).collect(),
    }
}

fn ask(ask: &Ask) -> Option<pb::copy_ask::Ask> {
    use pb::copy_ask::Ask as To;
    match ask {
        Ask::Peek => Some(To::Peek(pb::Peek {})),
        Ask::Prepare(ballot) => Some(To::Prepare(version(ballot))),
        Ask::Accept(ballot, of) => {
            Some(To::Accept(pb::Proposed { ballot: Some(version(ballot)), state: Some(state(of)) }))
        }
        // Only the own store is asked that.
        Ask::Lead { .. } => None,
    }
}

fn answer(answer: &Answer) -> Option<pb::copy_answered::Answer> {
    use pb::copy_answered::Answer as To;
    let maybe = |of: &Option<Accepted>| pb::MaybeAccepted { accepted: of.as_ref().map(accepted), evicted: None };
    match answer {
        Answer::Told(of) => Some(To::Told(maybe(of))),
        Answer::Promised(of, evicted) => {
            Some(To::Promised(pb::MaybeAccepted { evicted: evicted.map(|at| at.0), ..maybe(of) }))
        }
        Answer::Accepted => Some(To::Accepted(pb::Done {})),
        Answer::Refused(by) => Some(To::Refused(version(by))),
        // Only the own store answers so.
        Answer::Led(..) | Answer::Forgotten | Answer::Doubtful => None,
    }
}

pub(in crate::wire) fn ran(ran: &Ran) -> pb::RanReply {
    use pb::ran_reply::Reply as To;
    let reply = match ran {
        Ran::Done(outcome) => To::Done(outcome_pb(outcome)),
        Ran::Unknown => To::Unknown(pb::Unknown {}),
        Ran::Failed(of) => To::Failed(pb::Trouble { kind: Some(trouble(of)) }),
        Ran::NotNow { elsewhere, again } => {
            To::NotNow(pb::NotNow { elsewhere: elsewhere.as_ref().map(view), again: *again })
        }
    };
    pb::RanReply { reply: Some(reply) }
}
