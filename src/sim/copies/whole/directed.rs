//! What random runs found, and is too rare to wait for another.

use std::sync::Arc;

use super::{Mutation, contact, space};
use crate::base::{Contact, Incarnation, Now, Rng, Span, Time, Wall};
use crate::data::register::{Accepted, Ballot, OpId, Recent, Register, State, grant};
use crate::data::{Ask, Command, Condition, Key, MemoryStore, Outcome, Put, Slot, Store, Work, carry_out};
use crate::replication::View;
use crate::replication::chain::{Promise, Turn};
use crate::replication::copies::{Copies, CopiesEffect, CopyMessage, Operation, Part, Ran};

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

/// Whether it promises its vote on what follows its second view, though it has dropped the slot since.
fn votes_again(without: Option<Mutation>) -> bool {
    let (me, other, away) = (contact(0, 0), contact(1, 0), contact(2, 0));
    let mut store = MemoryStore::new(space());
    let mut copies = Copies::new(me, space(), 1, Rng::new(1));
    copies.mutation = without;
    copies.create();
    let second = View { epoch: 2, members: Arc::from([me, away]) };
    copies.hear(NOW, SLOT, &[View::of_one(1, me), second.clone(), View::of_one(3, other)]);
    copies.handle_message(NOW, other, CopyMessage::Complete { slot: SLOT, epoch: 3, has: true, ask: false });
    sent(&mut copies, &mut store);
    assert!(copies.chain(SLOT).is_none(), "it has dropped the slot");
    // Another process, and somebody who has been away since then.
    let mut copies = Copies::new(me, space(), 1, Rng::new(2));
    copies.mutation = without;
    copies.restore(&store.kept().expect("memory")).expect("it is readable");
    let turn = Turn { n: 9, node: away.incarnation };
    copies.handle_message(NOW, away, CopyMessage::Elect { slot: SLOT, epoch: 2, turn, views: vec![second] });
    sent(&mut copies, &mut store).iter().any(|message| matches!(message, CopyMessage::Elected { .. }))
}

#[test]
fn who_has_dropped_a_slot_votes_no_more_on_what_was_before() {
    assert!(!votes_again(None));
    assert!(votes_again(Some(Mutation::ForgetsTheEnd)), "it is this rule that keeps it from voting");
}

/// Whether it goes on with an election once somebody has said that there is a later turn.
fn goes_on(overruled_by: Contact) -> bool {
    let (me, member) = (contact(0, 0), contact(1, 0));
    let mut store = MemoryStore::new(space());
    let mut copies = Copies::new(me, space(), 1, Rng::new(1));
    copies.create();
    copies.hear(NOW, SLOT, &[View::of_one(1, me), View { epoch: 2, members: Arc::from([me, member]) }]);
    let complete = CopyMessage::Complete { slot: SLOT, epoch: 2, has: true, ask: false };
    copies.handle_message(NOW, member, complete);
    sent(&mut copies, &mut store);
    copies.handle_message(NOW, member, CopyMessage::Wish { slot: SLOT, epoch: 2, members: vec![me] });
    let elect = sent(&mut copies, &mut store).into_iter().find_map(|message| match message {
        CopyMessage::Elect { turn, .. } => Some(turn),
        _ => None,
    });
    let turn = elect.expect("it stands");
    let later = Turn { n: 1 << 40, node: overruled_by.incarnation };
    copies.handle_message(NOW, overruled_by, CopyMessage::Overruled { slot: SLOT, epoch: 2, turn: later });
    let promise = Promise { accepted: None, complete: true };
    copies.handle_message(NOW, member, CopyMessage::Elected { slot: SLOT, epoch: 2, turn, promise });
    sent(&mut copies, &mut store).iter().any(|message| matches!(message, CopyMessage::Vote { .. }))
}

#[test]
fn only_members_say_that_there_is_a_later_turn() {
    assert!(goes_on(contact(2, 0)), "a stranger would keep the slot from ever changing hands");
    assert!(!goes_on(contact(1, 0)));
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

/// `delete_gc_delayed_accept`: a write of an earlier view, late on its way, arrives once its removal is forgotten. Nothing is
/// left that says that it is old, but its epoch.
#[test]
fn a_write_from_before_a_forgotten_removal_is_not_accepted() {
    let (me, other) = (contact(0, 0), contact(1, 0));
    let mut store = MemoryStore::new(space());
    let mut copies = Copies::new(me, space(), 2, Rng::new(1));
    copies.create();
    sent(&mut copies, &mut store);
    let key = Key::new(*b"k").expect("a key");
    let place = space().place(key.clone());
    let (before, removal) = (grant(1, other.incarnation), Ballot { n: 5, ..grant(1, other.incarnation) });
    let tombstone = Accepted { ballot: removal, copied: true, state: State::default() };
    store.set(place.clone(), Register::new(None, Some(tombstone))).expect("memory");
    copies.hear(NOW, place.slot, &[View::of_one(1, me), View { epoch: 2, members: [me, other].into() }]);
    sent(&mut copies, &mut store);
    assert_eq!(copies.served(place.slot).map(|view| view.epoch), Some(2));
    let (slot, keys) = (place.slot, vec![(key.clone(), removal)]);
    copies.handle_message(NOW, other, CopyMessage::Drop { slot, epoch: 2, keys });
    sent(&mut copies, &mut store);
    assert_eq!(store.register(&place), Ok(None), "it is forgotten");
    let ask = Ask::Accept(Ballot { n: 4, ..before }, State::default());
    copies.handle_message(NOW, other, CopyMessage::Ask { number: 1, slot, epoch: 1, key, ask });
    let told = sent(&mut copies, &mut store);
    assert!(told.iter().all(|message| matches!(message, CopyMessage::Notice { .. })), "{told:?}");
    assert_eq!(store.register(&place), Ok(None), "and stays so");
}

fn key() -> Key {
    Key::new(*b"k").expect("a key")
}

/// A removal of the view of epoch 1, and its ballot.
fn removal() -> (Ballot, Accepted) {
    let ballot = Ballot { n: 5, ..grant(1, contact(0, 0).incarnation) };
    let id = OpId { node: Incarnation(99), n: 1, issued: Wall(7) };
    let state = State { recent: Recent::new(vec![(id, Outcome::Deleted)], None), ..State::default() };
    (ballot, Accepted { ballot, copied: true, state })
}

/// Whether the first of three has a removal forgotten that only two have told to have, and all three.
fn lets_forget(without: Option<Mutation>) -> [bool; 2] {
    let members = [0, 1, 2].map(|n| contact(n, 0));
    let place = space().place(key());
    let (slot, (ballot, accepted)) = (place.slot, removal());
    let mut store = MemoryStore::new(space());
    let mut copies = Copies::new(members[0], space(), 3, Rng::new(1));
    copies.mutation = without;
    copies.create();
    store.set(place.clone(), Register::new(None, Some(accepted))).expect("memory");
    copies.hear(NOW, slot, &[View::of_one(1, members[0]), View { epoch: 2, members: members.into() }]);
    sent(&mut copies, &mut store);
    for from in &members[1..] {
        copies.handle_message(NOW, *from, CopyMessage::Complete { slot, epoch: 2, has: true, ask: false });
    }
    let later = Now { mono: NOW + Span::secs(1), wall: Wall(100_000) };
    copies.handle_timeout(later);
    let asked = sent(&mut copies, &mut store);
    let serial = asked.iter().find_map(|message| match message {
        CopyMessage::Collect { serial, keys, .. } if *keys == [(key(), ballot)] => Some(*serial),
        _ => None,
    });
    let serial = serial.expect("all are asked");
    [1, 2].map(|n| {
        let told = CopyMessage::Collectable { slot, epoch: 2, serial, keys: vec![key()] };
        copies.handle_message(later.mono, members[n], told);
        sent(&mut copies, &mut store).iter().any(|message| matches!(message, CopyMessage::Drop { .. }))
    })
}

#[test]
fn a_removal_is_forgotten_once_all_members_have_it() {
    assert_eq!(lets_forget(None), [false, true]);
    assert_eq!(lets_forget(Some(Mutation::CollectsByMajority)), [true, false], "it is this rule");
}

/// Whoever is asked for the records of a slot tells up to when operations on forgotten removals were asked for.
fn tells_what_is_forgotten(without: Option<Mutation>) -> Option<Wall> {
    let (me, other) = (contact(0, 0), contact(1, 0));
    let mut store = MemoryStore::new(space());
    let mut copies = Copies::new(me, space(), 2, Rng::new(1));
    copies.mutation = without;
    copies.create();
    sent(&mut copies, &mut store);
    store.set_evicted(SLOT, Wall(7)).expect("memory");
    let views = vec![View::of_one(1, me), View { epoch: 2, members: [me, other].into() }];
    let fetch = CopyMessage::Fetch { slot: SLOT, epoch: 1, views, ahead: false, digest: None, serial: 9, after: None };
    copies.handle_message(NOW, other, fetch);
    sent(&mut copies, &mut store).into_iter().find_map(|message| match message {
        CopyMessage::Part { part, .. } => Some(part.evicted),
        _ => None,
    })?
}

#[test]
fn what_is_forgotten_is_passed_on() {
    assert_eq!(tells_what_is_forgotten(None), Some(Wall(7)));
    assert_eq!(tells_what_is_forgotten(Some(Mutation::EvictedStaysBehind)), None, "it is this rule");
}

/// What a newcomer has of a key that it has copied ahead, and that was removed and forgotten before it fetches.
fn has_after_joining(without: Option<Mutation>) -> (Option<Register>, Option<Wall>) {
    let (me, other) = (contact(1, 0), contact(0, 0));
    let place = space().place(key());
    let slot = place.slot;
    let mut store = MemoryStore::new(space());
    let mut copies = Copies::new(me, space(), 2, Rng::new(1));
    copies.mutation = without;
    let first = View::of_one(1, other);
    copies.handle_message(NOW, other, CopyMessage::Invite { slot, views: vec![first.clone()] });
    let fetch = |sent: Vec<CopyMessage>, is_ahead: bool| {
        let of = sent.into_iter().find_map(|message| match message {
            CopyMessage::Fetch { ahead, serial, .. } if ahead == is_ahead => Some(serial),
            _ => None,
        });
        of.expect("it asks for the records")
    };
    let serial = fetch(sent(&mut copies, &mut store), true);
    let part = Part { entries: vec![(key(), removal().1)], ..Part::default() };
    copies.handle_message(NOW, other, CopyMessage::Part { slot, epoch: 1, serial, part });
    sent(&mut copies, &mut store);
    copies.hear(NOW, slot, &[first, View { epoch: 2, members: [me, other].into() }]);
    let serial = fetch(sent(&mut copies, &mut store), false);
    let part = Part { evicted: Some(Wall(7)), ..Part::default() };
    copies.handle_message(NOW, other, CopyMessage::Part { slot, epoch: 1, serial, part });
    sent(&mut copies, &mut store);
    assert_eq!(copies.served(slot).map(|view| view.epoch), Some(2));
    (store.register(&place).expect("memory"), store.evicted(slot).expect("memory"))
}

#[test]
fn a_newcomer_drops_what_nobody_has_any_more() {
    assert_eq!(has_after_joining(None), (None, Some(Wall(7))));
    assert!(has_after_joining(Some(Mutation::KeepsWhatNobodyHas)).0.is_some(), "it is this rule");
}

/// Two members of a view that are the same node: it would be asked twice, and agree with itself. Found by a fuzzer.
#[test]
fn a_view_with_a_member_twice_is_no_view() {
    let me = contact(0, 0);
    let mut copies = Copies::new(me, space(), 2, Rng::new(1));
    copies.hear(NOW, SLOT, &[View { epoch: 1, members: [me, me].into() }]);
    assert!(copies.view(SLOT).is_none() && copies.held() == 0);
}

/// What comes of a message of somebody: what is said, whether the slot is served still, and whether a removal is there still.
fn after(from: Contact, message: CopyMessage) -> (Vec<CopyMessage>, bool, bool) {
    let (me, member) = (contact(0, 0), contact(1, 0));
    let place = space().place(key());
    let mut store = MemoryStore::new(space());
    let mut copies = Copies::new(me, space(), 2, Rng::new(1));
    copies.create();
    store.set(place.clone(), Register::new(None, Some(removal().1))).expect("memory");
    copies.hear(NOW, place.slot, &[View::of_one(1, me), View { epoch: 2, members: [me, member].into() }]);
    sent(&mut copies, &mut store);
    copies.handle_message(NOW, from, message);
    let said = sent(&mut copies, &mut store);
    (said, copies.served(place.slot).is_some(), store.register(&place) != Ok(None))
}

/// Who is in no view of a slot gets none of its records, keeps nobody from serving it, and has nothing voted on or forgotten.
#[test]
fn a_stranger_to_a_slot_gets_nothing_of_it_and_changes_nothing() {
    let slot = space().place(key()).slot;
    let (member, stranger) = (contact(1, 0), contact(2, 0));
    let own_turn = |who: Contact| Turn { n: 9, node: who.incarnation };
    let messages = |who: Contact| {
        let (turn, members) = (own_turn(who), vec![who].into());
        let ballot = Ballot { epoch: 2, round: 9, node: who.incarnation, n: 0 };
        let keys = vec![(key(), removal().0)];
        let fetch =
            |ahead| CopyMessage::Fetch { slot, epoch: 2, views: vec![], ahead, digest: None, serial: 9, after: None };
        [
            (CopyMessage::Ask { number: 1, slot, epoch: 2, key: key(), ask: Ask::Prepare(ballot) }, true),
            (CopyMessage::Elect { slot, epoch: 2, turn, views: vec![] }, true),
            (CopyMessage::Vote { slot, epoch: 2, turn, members }, true),
            (CopyMessage::Collect { slot, epoch: 2, serial: 1, keys: keys.clone() }, true),
            (fetch(true), true),
            (fetch(false), true),
            (CopyMessage::Drop { slot, epoch: 2, keys }, false),
        ]
    };
    for ((message, is_answered), (of_member, _)) in messages(stranger).into_iter().zip(messages(member)) {
        let (said, serves, is_there) = after(stranger, message.clone());
        let only_views = said.iter().all(|message| matches!(message, CopyMessage::Notice { .. }));
        assert!(only_views && serves && is_there, "{message:?}: {said:?}");
        let (said, serves, is_there) = after(member, of_member);
        assert!(!said.is_empty() && is_answered || !serves || !is_there, "a member is heeded: {message:?}");
    }
    // Nor does a member stand in the turns of another.
    let elect = CopyMessage::Elect { slot, epoch: 2, turn: own_turn(stranger), views: vec![] };
    assert_eq!(after(member, elect).0, []);
}
