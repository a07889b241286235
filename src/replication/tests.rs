//! Holdings that talk to each other by hand: what is lost, and when, is chosen message by message.
#![allow(clippy::cast_possible_truncation)] // Small numbers for short values.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::handover::Sending;
use super::*;
use crate::base::limits::CHUNK_BYTES;
use crate::base::{Capacity, Contact, Id, Incarnation, Now, Rng, Span, Time, Wall};
use crate::data::{
    Command, Condition, Done, Key, KeySpace, MemoryStore, Outcome, Part, Place, Put, Record, Slot, Store, Version,
    carry_out,
};

const SLOT: Slot = Slot(0);

struct Node {
    me: Contact,
    holdings: Holdings,
    store: MemoryStore,
    predecessor: Option<Contact>,
    successors: Vec<Contact>,
    leaving: bool,
    gone: Vec<Contact>,
}

/// Nodes of one ring with one slot. The slot ends at the top of the circle, so the node with the lowest id owns it.
struct Net {
    now: Time,
    nodes: Vec<Node>,
    queue: VecDeque<(Contact, Contact, HoldingMessage)>,
}

fn space() -> KeySpace {
    KeySpace::new(Capacity::MAX, 0).unwrap()
}

fn contact(id: u128) -> Contact {
    Contact { id: Id::from_u128(id), addr: ([127, 0, 0, 1], 1).into(), incarnation: Incarnation(id) }
}

fn place(n: u64) -> Place {
    space().place(Key::new(format!("key {n}").into_bytes()).unwrap())
}

fn record(n: u64) -> Record {
    let version = Version { epoch: 1, round: 0, n, node: Incarnation(1) };
    Record { value: Arc::from([n as u8]), content_type: None, version, modified: Wall(0), expires: None }
}

fn put(value: Vec<u8>) -> Command {
    Command::Put(Put { value: value.into(), content_type: None, ttl_ms: None, condition: Condition::default() })
}

impl Net {
    /// The first of `ids` holds the slot. All know each other in the order of the circle.
    fn new(ids: &[u128]) -> Self {
        let nodes = ids.iter().map(|id| Node {
            me: contact(*id),
            holdings: Holdings::new(contact(*id), space()),
            store: MemoryStore::new(space()),
            predecessor: None,
            successors: Vec::new(),
            leaving: false,
            gone: Vec::new(),
        });
        let mut net = Self { now: Time(1), nodes: nodes.collect(), queue: VecDeque::new() };
        net.nodes[0].holdings.create();
        net.close_ring(ids);
        net
    }

    /// Tells the nodes that the ring consists of these.
    fn close_ring(&mut self, ids: &[u128]) {
        let mut ring: Vec<Contact> = ids.iter().map(|id| contact(*id)).collect();
        ring.sort();
        for node in &mut self.nodes {
            let Some(at) = ring.iter().position(|contact| *contact == node.me) else { continue };
            let count = ring.len();
            node.successors = (1..count).map(|k| ring[(at + k) % count]).collect();
            node.predecessor = node.successors.last().copied();
        }
    }

    fn maintain(&mut self, at: usize) {
        let Node { holdings, predecessor, successors, leaving, gone, .. } = &mut self.nodes[at];
        let is_lost = |contact: &Contact| gone.contains(contact);
        let members = || successors.clone();
        let around = Neighbourhood {
            predecessor: *predecessor,
            alone: successors.is_empty(),
            leaving: *leaving,
            successors,
            members: &members,
            is_lost: &is_lost,
            in_doubt: false,
        };
        holdings.maintain(self.now, &around);
        self.collect(at);
    }

    fn collect(&mut self, at: usize) {
        let lowest = self.nodes[at].successors.iter().chain([&self.nodes[at].me]).min().copied().unwrap();
        let highest = self.nodes[at].successors.iter().chain([&self.nodes[at].me]).max().copied().unwrap();
        while let Some(effect) = self.nodes[at].holdings.poll_effect() {
            match effect {
                HoldingsEffect::Store { ticket, work } => {
                    let Node { holdings, store, .. } = &mut self.nodes[at];
                    holdings.stored(self.now, ticket, carry_out(work, store));
                }
                HoldingsEffect::Send { to, message } => self.queue.push_back((self.nodes[at].me, to, message)),
                HoldingsEffect::FindOwner(_) => {
                    let Node { holdings, predecessor, successors, leaving, .. } = &mut self.nodes[at];
                    let members = || successors.clone();
                    let around = Neighbourhood {
                        predecessor: *predecessor,
                        alone: false,
                        leaving: *leaving,
                        successors,
                        members: &members,
                        is_lost: &|_| false,
                        in_doubt: false,
                    };
                    holdings.owner_found(self.now, highest, lowest, &around);
                }
                _ => {}
            }
        }
    }

    /// Delivers the next message unless `lose` says that it is lost. False if there is none.
    fn step(&mut self, lose: &mut impl FnMut(&HoldingMessage) -> bool) -> bool {
        let Some((from, to, message)) = self.queue.pop_front() else { return false };
        let Some(at) = self.nodes.iter().position(|node| node.me == to) else { return true };
        if lose(&message) {
            return true;
        }
        let Node { holdings, predecessor, successors, leaving, gone, .. } = &mut self.nodes[at];
        let is_lost = |contact: &Contact| gone.contains(contact);
        let members = || successors.clone();
        let around = Neighbourhood {
            predecessor: *predecessor,
            alone: successors.is_empty(),
            leaving: *leaving,
            successors,
            members: &members,
            is_lost: &is_lost,
            in_doubt: false,
        };
        holdings.handle_message(self.now, from, message, &around);
        self.collect(at);
        true
    }

    fn run(&mut self, mut lose: impl FnMut(&HoldingMessage) -> bool) {
        for _ in 0..10_000 {
            if !self.step(&mut lose) {
                return;
            }
        }
        panic!("the nodes talk for ever");
    }

    /// A second passes, everyone looks after itself, nothing is lost any more.
    fn pass(&mut self) {
        self.now += Span::secs(1);
        for at in 0..self.nodes.len() {
            self.maintain(at);
        }
        self.run(|_| false);
    }

    /// The outcome, or why the node does not do it.
    fn execute(&mut self, at: usize, place: &Place, command: &Command) -> Result<Outcome, Box<Execution>> {
        let now = Now { mono: self.now, wall: Wall(1_000) };
        let Node { holdings, store, .. } = &mut self.nodes[at];
        match holdings.execute(now, place, command) {
            Execution::Here(work) => match carry_out(work, store) {
                Done::Ran(outcome) => Ok(outcome),
                other => panic!("{other:?}"),
            },
            other => Err(Box::new(other)),
        }
    }

    fn serving(&mut self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| self.execute(*at, &place(0), &Command::Get).is_ok()).collect()
    }
}

fn is_taken(message: &HoldingMessage) -> bool {
    matches!(message, HoldingMessage::Taken { .. })
}

fn is_last(message: &HoldingMessage) -> bool {
    matches!(message, HoldingMessage::Chunk { last: Some(_), .. })
}

#[test]
fn a_handover_in_chunks_with_writes_and_removals_in_between_arrives_complete() {
    for seed in 0..50 {
        let mut rng = Rng::new(seed);
        let mut net = Net::new(&[20, 10]);
        let mut model: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut change = |net: &mut Net, rng: &mut Rng| {
            let n = rng.below(40);
            let command = if rng.below(3) == 0 {
                Command::Delete(Condition::default())
            } else {
                put(vec![rng.below(256) as u8; rng.index(CHUNK_BYTES / 4)])
            };
            match (net.execute(0, &place(n), &command), &command) {
                (Ok(_), Command::Put(put)) => {
                    model.insert(n, put.value.to_vec());
                }
                (Ok(_), _) => {
                    model.remove(&n);
                }
                (_, _) => {}
            }
        };
        (0..100).for_each(|_| change(&mut net, &mut rng));
        net.maintain(0);
        let mut messages = 0;
        // Fetches and chunks are lost and come twice, in order; after a second they are repeated.
        while net.nodes[0].holdings.held() > 0 {
            let (lossy, mut luck) = (messages < 60, rng.clone());
            if !net.step(&mut |_| lossy && luck.below(8) == 0) {
                net.now += Span::secs(1);
                net.maintain(0);
                net.maintain(1);
            }
            if let Some(message) = net.queue.front().filter(|_| rng.below(4) == 0) {
                let again = message.clone();
                net.queue.push_front(again);
            }
            // A receiver cannot catch up with a writer that never pauses.
            if messages < 100 && rng.below(2) == 0 {
                change(&mut net, &mut rng);
            }
            messages += 1;
            assert!(messages < 2_000, "seed {seed}: the handover does not end");
        }
        assert!(net.nodes[1].holdings.serves(SLOT));
        let arrived = |n: u64| net.nodes[1].store.get(&place(n)).unwrap().map(|record| record.value.to_vec());
        for n in 0..40 {
            assert!(arrived(n) == model.get(&n).cloned(), "seed {seed}: key {n} differs");
        }
        assert_eq!(net.nodes[0].store.usage().keys, 0, "the old holder keeps nothing");
    }
}

#[test]
fn a_lost_taken_is_repaired_by_a_repeated_offer() {
    let mut net = Net::new(&[20, 10]);
    net.execute(0, &place(0), &put(vec![1])).unwrap();
    net.maintain(0);
    net.run(is_taken);
    assert_eq!(net.execute(0, &place(0), &Command::Get), Err(Box::new(Execution::Busy)), "frozen until it hears more");
    assert_eq!(net.serving(), [1]);
    net.pass();
    assert_eq!((net.nodes[0].holdings.held(), net.nodes[1].holdings.held()), (0, 1));
    assert!(matches!(net.execute(1, &place(0), &Command::Get), Ok(Outcome::Found(_))));
}

#[test]
fn a_lost_taken_is_repaired_after_the_slot_has_moved_on_to_a_third_node() {
    let mut net = Net::new(&[30, 20]);
    net.execute(0, &place(0), &put(vec![1])).unwrap();
    net.maintain(0);
    net.run(is_taken);
    assert_eq!(net.serving(), [1]);
    let third = Net::new(&[10]).nodes.remove(0);
    net.nodes.push(Node { holdings: Holdings::new(contact(10), space()), ..third });
    net.close_ring(&[30, 20, 10]);
    net.maintain(1);
    net.run(|_| false);
    assert_eq!(net.serving(), [2]);
    for _ in 0..3 {
        net.pass();
    }
    assert_eq!(net.serving(), [2]);
    assert_eq!(net.nodes.iter().map(|node| node.holdings.held()).sum::<usize>(), 1, "two holders");
}

/// The one that it gave the slot to died, which a user's request found; then a third repeats what was true once.
#[test]
fn a_former_holder_that_is_believed_to_hold_a_slot_that_nobody_holds_is_not_waited_for() {
    for reminded in [false, true] {
        let mut net = Net::new(&[30, 20]);
        net.maintain(0);
        net.run(|_| false);
        assert_eq!(net.serving(), [1]);
        let stale = View::of_one(1, contact(30));
        net.nodes.remove(1);
        net.nodes[0].gone.push(contact(20));
        net.nodes[0].holdings.forget(SLOT);
        if reminded {
            net.nodes[0].holdings.learn(SLOT, stale.clone());
        }
        let owner = Net::new(&[10]).nodes.remove(0);
        net.nodes.push(Node { holdings: Holdings::new(contact(10), space()), ..owner });
        net.nodes[1].holdings.learn(SLOT, stale.clone());
        net.close_ring(&[30, 10]);
        for _ in 0..5 {
            net.pass();
        }
        assert_eq!(net.serving(), [1], "reminded: {reminded}");
        // Epoch 2 was that of the dead one, which may have given out versions.
        match net.execute(1, &place(0), &put(vec![2])) {
            Ok(Outcome::Created(version)) => assert!(version.epoch > 2, "{version:?}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_declined_offer_goes_elsewhere() {
    let mut net = Net::new(&[10, 20, 30]);
    net.execute(0, &place(0), &put(vec![1])).unwrap();
    net.nodes[0].leaving = true;
    net.nodes[1].leaving = true;
    net.maintain(0);
    net.run(|_| false);
    assert_eq!(net.serving(), [0], "the next on the ring leaves too");
    net.maintain(0);
    net.run(|_| false);
    assert_eq!(net.serving(), [2]);
}

#[test]
fn a_receiver_that_dies_frees_the_frozen_slot() {
    let mut net = Net::new(&[20, 10]);
    net.execute(0, &place(0), &put(vec![1])).unwrap();
    net.maintain(0);
    net.run(is_last);
    assert_eq!(net.execute(0, &place(0), &put(vec![2])), Err(Box::new(Execution::Busy)));
    net.close_ring(&[20]);
    net.nodes[0].gone.push(contact(10));
    net.maintain(0);
    // Whatever version the receiver may have given out in epoch 2, this one differs.
    match net.execute(0, &place(0), &put(vec![2])) {
        Ok(Outcome::Replaced(version)) => assert!(version.epoch > 2, "{version:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_receiver_that_declines_a_frozen_slot_frees_it_and_a_late_last_chunk_is_not_believed() {
    let mut net = Net::new(&[20, 10]);
    net.execute(0, &place(0), &put(vec![1])).unwrap();
    net.maintain(0);
    let mut late = None;
    net.run(|message| {
        let last = is_last(message);
        late = last.then(|| message.clone()).or(late.take());
        last
    });
    // The receiver forgets what it was about: it starts anew, and the slot is not its own any more.
    net.nodes[1].holdings = Holdings::new(contact(10), space());
    net.close_ring(&[20, 10, 5]);
    net.pass();
    net.execute(0, &place(0), &put(vec![2])).unwrap();
    net.close_ring(&[20, 10]);
    net.now += Span::secs(1);
    net.maintain(0);
    net.step(&mut |_| false);
    let fetch = net.queue.pop_back().unwrap();
    net.queue.push_back((contact(20), contact(10), late.unwrap()));
    net.step(&mut |_| false);
    assert!(!net.nodes[1].holdings.serves(SLOT), "a chunk of an attempt that was given up");
    net.queue.push_back(fetch);
    net.run(|_| false);
    match net.execute(1, &place(0), &Command::Get) {
        Ok(Outcome::Found(record)) => assert_eq!(record.value[..], [2]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_leaver_is_not_drained_while_a_slot_is_on_its_way_to_it() {
    let mut net = Net::new(&[20, 10]);
    net.maintain(0);
    net.step(&mut |_| false);
    net.nodes[1].leaving = true;
    assert!(!net.nodes[1].holdings.is_drained(), "the chunk that comes may be the last, and then nobody else holds it");
    net.run(|_| false);
    assert_eq!(net.serving(), [1]);
}

#[test]
fn a_holder_that_was_given_up_serves_again_when_the_newer_one_is_lost() {
    let mut net = Net::new(&[10, 20]);
    net.execute(0, &place(0), &put(vec![1])).unwrap();
    net.nodes[0].holdings.learn(SLOT, View::of_one(3, contact(20)));
    assert_eq!(
        net.execute(0, &place(0), &Command::Get),
        Err(Box::new(Execution::Elsewhere(Some(View::of_one(3, contact(20))))))
    );
    net.nodes[0].gone.push(contact(20));
    net.maintain(0);
    match net.execute(0, &place(0), &put(vec![2])) {
        Ok(Outcome::Replaced(version)) => assert!(version.epoch > 3),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_repeated_fetch_gives_the_same_changes_and_those_in_between_come_later() {
    let mut store = MemoryStore::new(space());
    let mut sending = Sending::new(contact(10), Time(0));
    let write = |sending: &mut Sending, store: &mut MemoryStore, key: u64, n: u64| {
        store.put(place(key), record(n)).unwrap();
        sending.touched(&place(key));
    };
    // Enough for two chunks.
    for n in 0..20 {
        let large = Record { value: vec![0; CHUNK_BYTES / 16].into(), ..record(n) };
        store.put(place(n), large).unwrap();
    }
    let keys = |chunk: &Chunk| chunk.0.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let first = chunk(&mut sending, &mut store, 0, None, |_, _| ()).unwrap();
    let scanned = keys(&first);
    let early = (0..20).find(|n| place(*n).key == scanned[0]).unwrap();
    write(&mut sending, &mut store, early, 100);
    let again = chunk(&mut sending, &mut store, 0, None, |_, _| ()).unwrap();
    assert!(keys(&again).starts_with(&[place(early).key]) && !again.2);
    // The receiver has the first answer, so the change must still come.
    let second = chunk(&mut sending, &mut store, 1, first.1.as_ref(), |_, _| ()).unwrap();
    assert!(second.0.contains(&(place(early).key, Some(record(100)))), "the write between is lost");
    assert!(second.2 && sending.frozen);
    assert_eq!(keys(&chunk(&mut sending, &mut store, 1, first.1.as_ref(), |_, _| ()).unwrap()), keys(&second));
    let unsent = chunk(&mut sending, &mut store, 3, None, |_, _| ());
    assert!(unsent.is_none(), "what was never sent is not acknowledged");
}

/// Entries, where the scan goes on, and whether it is the last.
type Chunk = (Vec<crate::data::Entry>, Option<crate::data::Cursor>, bool);

/// The answer to a fetch. `meanwhile` happens after the store was asked and before it answers.
fn chunk(
    sending: &mut Sending,
    store: &mut MemoryStore,
    serial: u64,
    after: Option<&crate::data::Cursor>,
    meanwhile: impl FnOnce(&mut Sending, &mut MemoryStore),
) -> Option<Chunk> {
    let part: Part = sending.begin(7, SLOT, serial, after)?;
    let done = carry_out(crate::data::Work::Read(part), store);
    meanwhile(sending, store);
    let Done::Read { entries, next, changed } = done else { panic!("{done:?}") };
    let is_last = sending.end(7, Some((next.as_ref(), changed))).expect("the ticket of the part");
    Some((entries, next, is_last))
}

#[test]
fn what_is_written_while_a_part_is_read_comes_with_the_next() {
    let mut store = MemoryStore::new(space());
    let mut sending = Sending::new(contact(10), Time(0));
    store.put(place(0), record(0)).unwrap();
    let first = chunk(&mut sending, &mut store, 0, None, |sending, store| {
        assert!(!sending.frozen, "whoever writes need not wait for a scan");
        store.put(place(0), record(1)).unwrap();
        sending.touched(&place(0));
    });
    assert_eq!(first, Some((vec![(place(0).key, Some(record(0)))], None, false)), "the change is missing");
    assert!(!sending.frozen);
    let second = chunk(&mut sending, &mut store, 1, None, |sending, _| {
        assert!(sending.frozen, "a writer that never pauses must wait while the last changes are read");
    });
    assert_eq!(second, Some((vec![(place(0).key, Some(record(1)))], None, true)));
    assert!(sending.frozen);
}

#[test]
fn own_slots_are_those_whose_last_id_lies_in_the_arc_and_no_others() {
    let mut rng = Rng::new(7);
    for round in 0..500 {
        let capacity = Capacity::new([1, 4, 8, 32][round % 4]).unwrap();
        let space = KeySpace::new(capacity, (round as u32 / 4) % (capacity.bits().min(5) + 1)).unwrap();
        let mut node = || Contact { id: capacity.random(&mut rng), ..contact(1) };
        let (me, predecessor) = (node(), node());
        let holdings = Holdings::new(me, space);
        for (predecessor, alone) in [(Some(predecessor), false), (Some(me), false), (None, true), (None, false)] {
            let nobody = |_: &Contact| false;
            let around = Neighbourhood {
                predecessor,
                alone,
                leaving: false,
                successors: &[],
                members: &Vec::new,
                is_lost: &nobody,
                in_doubt: false,
            };
            let mut own: Vec<Slot> = around.own_slots(holdings.space, holdings.me.id).collect();
            own.sort();
            let mine: Vec<Slot> = space.all_slots().filter(|slot| holdings.is_mine(*slot, &around)).collect();
            assert_eq!(own, mine, "{me:?} after {predecessor:?}, alone {alone}, {space:?}");
        }
    }
}
