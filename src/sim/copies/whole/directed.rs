//! What random runs found, and is too rare to wait for another.

use std::sync::Arc;

use super::{Mutation, contact, space};
use crate::base::{Incarnation, Now, Rng, Time, Wall};
use crate::data::register::OpId;
use crate::data::{Command, Condition, Key, MemoryStore, Put, Slot, Store, Work, carry_out};
use crate::replication::View;
use crate::replication::chain::Turn;
use crate::replication::copies::{Copies, CopiesEffect, CopyMessage, Operation, Ran};

const NOW: Time = Time(1);
const SLOT: Slot = Slot(0);

/// What it sends, once its store has done what it was asked for.
fn sent(copies: &mut Copies, store: &mut MemoryStore) -> Vec<CopyMessage> {
    let mut sent = Vec::new();
    while let Some(effect) = copies.poll_effect() {
        match effect {
            CopiesEffect::Send { message, .. } => sent.push(*message),
            CopiesEffect::Store { ticket, work } => {
                let done = carry_out(work, store);
                copies.stored(NOW, ticket, done);
            }
            _ => {}
        }
    }
    sent
}

/// Whether it promises its vote on what follows its first view, though it has dropped the slot since.
fn votes_again(without: Option<Mutation>) -> bool {
    let (me, other) = (contact(0, 0), contact(1, 0));
    let mut store = MemoryStore::new(space());
    let mut copies = Copies::new(me, space(), 1, Rng::new(1));
    copies.mutation = without;
    copies.create();
    let first = View::of_one(1, me);
    let second = View::of_one(2, other);
    copies.hear(NOW, SLOT, &[first.clone(), second]);
    copies.handle_message(NOW, other, CopyMessage::Complete { slot: SLOT, epoch: 2, has: true, ask: false });
    sent(&mut copies, &mut store);
    assert!(copies.chain(SLOT).is_none(), "it has dropped the slot");
    // Another process, and somebody who has been away since the beginning.
    let mut copies = Copies::new(me, space(), 1, Rng::new(2));
    copies.mutation = without;
    copies.restore(&store.kept().expect("memory")).expect("it is readable");
    let away = contact(2, 0);
    let turn = Turn { n: 9, node: away.incarnation };
    copies.handle_message(NOW, away, CopyMessage::Elect { slot: SLOT, epoch: 1, turn, views: vec![first] });
    sent(&mut copies, &mut store).iter().any(|message| matches!(message, CopyMessage::Elected { .. }))
}

#[test]
fn who_has_dropped_a_slot_votes_no_more_on_what_was_before() {
    assert!(!votes_again(None));
    assert!(votes_again(Some(Mutation::ForgetsTheEnd)), "it is this rule that keeps it from voting");
}

/// Two writes stand in line for one key when the view ends: the second must not begin then, and be told that it has not.
#[test]
fn what_waits_for_its_turn_when_a_view_ends_does_not_begin() {
    let me = contact(0, 0);
    let mut store = MemoryStore::new(space());
    let mut copies = Copies::new(me, space(), 1, Rng::new(1));
    copies.create();
    sent(&mut copies, &mut store);
    let place = space().place(Key::new(*b"k").expect("a key"));
    for n in [1, 2] {
        let put = Put { value: Arc::from([]), content_type: None, ttl_ms: None, condition: Condition::default() };
        let id = OpId { node: Incarnation(99), n, issued: Wall(n) };
        let operation = Operation { id, command: Command::Put(put), again: false };
        assert_eq!(copies.run(Now { mono: NOW, wall: Wall(n) }, n, &place, operation), None);
    }
    copies.hear(NOW, place.slot, &[View::of_one(1, me), View::of_one(2, contact(1, 0))]);
    let (mut begun, mut told) = (0, Vec::new());
    while let Some(effect) = copies.poll_effect() {
        match effect {
            CopiesEffect::Store { work: Work::Vote(_), .. } => begun += 1,
            CopiesEffect::Ran { asker, ran: Ran::NotNow { again, .. } } => told.push((asker, again)),
            _ => {}
        }
    }
    assert_eq!(begun, 1, "only the first");
    assert_eq!(told, [(1, true), (2, false)], "whether it may be carried out");
}
