//! Whoever has dropped a slot takes no part in votes of the time before, as which process ever: found by a random run, and
//! too rare to wait for another.

use super::{Mutation, contact, space};
use crate::base::{Rng, Time};
use crate::data::{MemoryStore, Slot, Store, carry_out};
use crate::replication::View;
use crate::replication::chain::Turn;
use crate::replication::copies::{Copies, CopiesEffect, CopyMessage};

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
