//! One message of every kind, by name.

use std::sync::Arc;

use crate::base::{Capacity, Contact, Incarnation, Wall};
use crate::data::register::{Accepted, OpId, Recent, State};
use crate::data::{Answer, Ask, Command, Difference, Digest, Key, Outcome, Range, Record, Slot, Trouble, Version};
use crate::node::Call;
use crate::replication::chain::{Members, Promise, Turn};
use crate::replication::copies::{CopyMessage, Operation, Part};
use crate::replication::{SlotRun, View};

fn member(port: u16) -> Contact {
    Contact::new(Capacity::MAX, ([127, 0, 0, 1], port).into(), Incarnation(u128::from(port) << 64 | 5))
}

fn members() -> Members {
    Members::from([member(1), member(2), member(3)])
}

fn views() -> Vec<View> {
    vec![View { epoch: 4, members: members() }, View { epoch: 5, members: Members::from([member(2)]) }]
}

fn ballot(n: u64) -> Version {
    Version { epoch: 5, round: 300, node: Incarnation(9), n }
}

fn state() -> State {
    let value = Arc::from(*b"value");
    let record = Record { value, content_type: None, version: ballot(1), modified: Wall(7), expires: None };
    let id = |n| OpId { node: Incarnation(8), n, issued: Wall(1_700_000_000_000) };
    let ended = vec![
        (id(1), Outcome::Created(ballot(1))),
        (id(2), Outcome::Deleted),
        (id(3), Outcome::NotFound),
        (id(4), Outcome::PreconditionFailed(None)),
        (id(5), Outcome::Replaced(ballot(2))),
    ];
    State {
        record: Some(record),
        recent: Recent::new(ended, Some(Wall(5))).with_gone(vec![(Incarnation(7), 400)]),
        doubtful: true,
    }
}

fn accepted() -> Accepted {
    Accepted { ballot: ballot(3), copied: true, state: state() }
}

pub(in crate::wire) fn messages() -> Vec<(&'static str, CopyMessage)> {
    let (slot, epoch, number) = (Slot(17), 5, 9);
    let turn = Turn { n: 3, node: Incarnation(8) };
    let key = Key::new(*b"k").expect("a key");
    let cursor = || (Capacity::MAX.hash(b"k"), key.clone());
    let run = SlotRun { first: Slot(1), count: 2 };
    let ask = |ask| CopyMessage::Ask { number, slot, epoch, key: key.clone(), ask };
    let answered = |answer| CopyMessage::Answered { number, answer };
    let none = Promise { accepted: None, complete: false };
    let promise = Promise { accepted: Some((turn, members())), complete: true };
    let removed = Accepted { state: State::default(), ..accepted() };
    let entries = vec![(key.clone(), accepted()), (key.clone(), removed)];
    let removals = vec![(key.clone(), ballot(4))];
    let digest = Some(Digest { keys: 3, sum: u64::MAX });
    let part = Part { entries, damaged: vec![key.clone()], next: Some(cursor()), evicted: Some(Wall(6)), same: true };
    let fetch =
        CopyMessage::Fetch { slot, epoch, views: views(), ahead: true, digest, serial: 6, after: Some(cursor()) };
    let first =
        CopyMessage::Fetch { slot, epoch, views: Vec::new(), ahead: false, digest: None, serial: 0, after: None };
    let range = Range { after: Some(cursor()), to: None, digest };
    let whole = Range { after: None, to: Some(cursor()), digest: None };
    let difference = Difference { items: removals.clone(), ranges: vec![range.clone()], damaged: Vec::new() };
    vec![
        ("copy_compare", CopyMessage::Compare { serial: 6, slots: vec![(slot, epoch, vec![range, whole])] }),
        (
            "copy_compared",
            CopyMessage::Compared { serial: 6, slots: vec![(slot, difference), (Slot(2), Difference::default())] },
        ),
        ("copy_query", CopyMessage::Query { runs: vec![run] }),
        ("copy_notice", CopyMessage::Notice { views: vec![(run, views())] }),
        ("copy_summary", CopyMessage::Summary { sum: 77, of: Vec::new() }),
        ("copy_summary.of", CopyMessage::Summary { sum: 77, of: vec![run] }),
        ("copy_epochs", CopyMessage::Epochs { runs: vec![(run, 4)], answer: true }),
        ("copy_wish", CopyMessage::Wish { slot, epoch, members: members().to_vec() }),
        ("copy_elect", CopyMessage::Elect { slot, epoch, turn, views: views() }),
        ("copy_elected", CopyMessage::Elected { slot, epoch, turn, promise: none }),
        ("copy_elected.voted", CopyMessage::Elected { slot, epoch, turn, promise }),
        ("copy_vote", CopyMessage::Vote { slot, epoch, turn, members: members() }),
        ("copy_voted", CopyMessage::Voted { slot, epoch, turn }),
        ("copy_overruled", CopyMessage::Overruled { slot, epoch, turn }),
        ("copy_invite", CopyMessage::Invite { slot, views: views() }),
        ("copy_ready", CopyMessage::Ready { slot, epoch }),
        ("copy_fetch", fetch),
        ("copy_fetch.first", first),
        ("copy_part", CopyMessage::Part { slot, epoch, serial: 6, part }),
        ("copy_complete", CopyMessage::Complete { slot, epoch, has: true, ask: true }),
        ("copy_ask.peek", ask(Ask::Peek)),
        ("copy_ask.prepare", ask(Ask::Prepare(ballot(0)))),
        ("copy_ask.accept", ask(Ask::Accept(ballot(1), state()))),
        ("copy_answered.told", answered(Ok(Answer::Told(None)))),
        ("copy_answered.promised", answered(Ok(Answer::Promised(Some(accepted()), None)))),
        ("copy_answered.promised.nothing", answered(Ok(Answer::Promised(None, Some(Wall(7)))))),
        ("copy_answered.accepted", answered(Ok(Answer::Accepted))),
        ("copy_answered.refused", answered(Ok(Answer::Refused(ballot(2))))),
        ("copy_answered.trouble", answered(Err(Trouble::Full("no room".to_owned())))),
        ("copy_collect", CopyMessage::Collect { slot, epoch, serial: 6, keys: removals.clone() }),
        ("copy_collectable", CopyMessage::Collectable { slot, epoch, serial: 6, keys: vec![key.clone()] }),
        ("copy_drop", CopyMessage::Drop { slot, epoch, keys: removals }),
        ("copy_leaving", CopyMessage::Leaving),
    ]
}

pub(in crate::wire) fn call(command: Command) -> Call {
    let id = OpId { node: Incarnation(8), n: 1, issued: Wall(1_700_000_000_000) };
    let operation = Operation { id, command, again: true };
    Call::Operate { key: Key::new(*b"a/b").expect("a key"), operation }
}
