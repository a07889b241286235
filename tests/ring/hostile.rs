//! Whatever a stranger does on the peer port costs one connection; the ring goes on serving.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chordkv::base::{Capacity, Contact, Incarnation, Wall, Weight};
use chordkv::data::register::{Accepted, OpId, Recent, State};
use chordkv::data::{
    Answer, Ask, Command, Condition, Item, Key, ListQuery, Outcome, Page, Put, Record, Slot, Tag, Trouble, Version,
};
use chordkv::node::{Call, Message, NodeInfo, Reply};
use chordkv::overlay::{Found, JoinVerdict, Lookup, NextHop, RingMessage, Standing, Want};
use chordkv::replication::chain::{Promise, Turn};
use chordkv::replication::copies::{CopyMessage, Operation, Part, Ran, Recovery};
use chordkv::replication::{SlotRun, View};
use chordkv::wire::{Hello, Packet, Refusal, RefusalCode};

use crate::support::peer::{Peer, bytes_of, hello};
use crate::support::ring::wait_settled;
use crate::support::{Client, Node, PATIENCE, Process, Reserved, Ring, ring_of, side_by_side};

/// A client who puts and gets all the time; each key is new, so that every slot has its turn.
struct Witness {
    clients: Vec<Client>,
    count: usize,
}

impl Witness {
    fn of(ring: &Ring) -> Self {
        Self { clients: ring.clients(), count: 0 }
    }

    #[track_caller]
    fn is_served(&mut self) {
        for _ in 0..3 {
            self.count += 1;
            let (key, at) = (format!("witness-{}", self.count).into_bytes(), self.count % self.clients.len());
            self.clients[at].put(&key, &key).expect("an answer").is(201);
            self.clients[0].read(&key).expect("an answer").is(200);
        }
    }
}

#[track_caller]
fn is_well(ring: &Ring) {
    for node in &ring.nodes {
        node.wait_ready();
        node.has_not_panicked();
    }
}

#[test]
fn first_frames_that_are_no_hello_are_refused_and_cut_off() {
    let _turn = side_by_side();
    let ring = ring_of(2, &[]);
    let mut witness = Witness::of(&ring);
    let own = Reserved::port();
    let oversized = {
        let long = hello(own.addr);
        let mut bytes = bytes_of(&Packet::Hello(Box::new(long)));
        bytes.extend(vec![0x7a; 5_000]);
        let length = u32::try_from(bytes.len() - 4).expect("short").to_be_bytes();
        bytes[..4].copy_from_slice(&length);
        bytes
    };
    let no_hello = bytes_of(&Packet::Message(Message::Ring(RingMessage::Notify)));
    let firsts: [(&str, Vec<u8>); 8] = [
        ("text", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()),
        ("random bytes", (0..10_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[1]).collect()),
        ("a declared 4 GiB frame", vec![0xff; 4]),
        ("an oversized hello", oversized),
        ("a frame of nothing", vec![0; 4]),
        ("a frame of garbage", [&20_u32.to_be_bytes()[..], &[0xff; 20]].concat()),
        ("a message before hello", no_hello),
        ("a refusal", bytes_of(&Packet::Refusal(Refusal { code: RefusalCode::Ring, reason: "no".to_owned() }))),
    ];
    for (what, bytes) in firsts {
        let mut peer = Peer::connect(ring.nodes[0].peers);
        peer.stream.write_all(&bytes).expect("it is sent");
        let start = Instant::now();
        match peer.receive() {
            Some(Packet::Refusal(refusal)) => assert_eq!(refusal.code, RefusalCode::Malformed, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
        peer.wait_closed();
        assert!(start.elapsed() < Duration::from_secs(2), "{what}: it is refused at once");
        witness.is_served();
    }
    is_well(&ring);
}

#[test]
fn a_stranger_who_never_stops_sending_garbage_is_cut_off_and_costs_no_memory() {
    let _turn = side_by_side();
    let ring = ring_of(1, &[]);
    let before = ring.nodes[0].resident_kib();
    let mut stream = TcpStream::connect(ring.nodes[0].peers).expect("a connection");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    let piece = vec![0xff; 1 << 20];
    let (start, mut sent) = (Instant::now(), 0);
    while stream.write_all(&piece).is_ok() {
        sent += 1;
        assert!(start.elapsed() < Duration::from_secs(6), "it takes garbage for ever");
        let grown = ring.nodes[0].resident_kib().saturating_sub(before);
        assert!(grown < 16 << 10, "{grown} KiB for a stranger who sent {sent} MiB");
    }
    is_well(&ring);
}

#[test]
fn strangers_who_say_half_a_hello_or_drip_it_are_cut_off_after_three_seconds() {
    let _turn = side_by_side();
    let ring = ring_of(1, &[]);
    let own = Reserved::port();
    let whole = bytes_of(&Packet::Hello(Box::new(hello(own.addr))));
    let start = Instant::now();
    let mut half = Peer::connect(ring.nodes[0].peers);
    half.stream.write_all(&whole[..whole.len() / 2]).expect("it is sent");
    let mut slow = TcpStream::connect(ring.nodes[0].peers).expect("a connection");
    slow.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
    let mut cut = false;
    // A byte as often as reading times out: 4,000 would take minutes.
    slow.write_all(&4_000_u32.to_be_bytes()).expect("it is sent");
    while !cut && start.elapsed() < Duration::from_secs(6) {
        cut = slow.write_all(&[0x0a]).is_err() || !matches!(slow.read(&mut [0; 64]), Err(error) if is_timeout(&error));
    }
    assert!(cut, "a dripping stranger is kept for ever");
    assert!(start.elapsed() > Duration::from_secs(2), "a slow network is given its time");
    half.wait_closed();
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    is_well(&ring);
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

#[test]
fn three_hundred_silent_strangers_are_cut_off_while_everybody_else_is_served() {
    let _turn = side_by_side();
    let mut ring = ring_of(2, &[]);
    let mut witness = Witness::of(&ring);
    let start = Instant::now();
    let mut silent: Vec<TcpStream> =
        (0..300).map(|_| TcpStream::connect(ring.nodes[0].peers).expect("a connection")).collect();
    witness.is_served();
    // A node that joins through the besieged one.
    ring.nodes.push(Node::join(ring.nodes[0].peers, &[]));
    ring.nodes[2].wait_ready();
    for stream in &mut silent {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        assert!(matches!(stream.read(&mut [0; 64]), Ok(0)), "cut off without a word");
        if start.elapsed() < Duration::from_secs(2) {
            witness.is_served();
        }
    }
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    witness.is_served();
    ring.wait_settled();
    is_well(&ring);
}

#[test]
fn a_peer_that_turns_to_garbage_after_its_hello_loses_its_connection() {
    let _turn = side_by_side();
    let ring = ring_of(2, &[]);
    let mut witness = Witness::of(&ring);
    let own = Reserved::port();
    let ends: [Vec<u8>; 6] = [
        vec![0xff; 64],
        [&30_u32.to_be_bytes()[..], &[0xff; 30]].concat(),
        bytes_of(&Packet::Hello(Box::new(hello(own.addr)))),
        bytes_of(&Packet::Refusal(Refusal { code: RefusalCode::Busy, reason: "no".to_owned() })),
        (4 << 20 | 1_u32).to_be_bytes().to_vec(),
        [&1_u32.to_be_bytes()[..], &[0]].concat(),
    ];
    for bytes in ends {
        let (mut peer, _) = Peer::greeted(ring.nodes[0].peers, own.addr);
        peer.stream.write_all(&bytes).expect("it is sent");
        let start = Instant::now();
        peer.wait_closed();
        assert!(start.elapsed() < Duration::from_secs(2), "it is cut off at once");
        witness.is_served();
    }
    // What a newer version may say is passed over; a frame that does not end hurts nobody else.
    let (mut peer, _) = Peer::greeted(ring.nodes[0].peers, own.addr);
    peer.stream.write_all(&[0, 0, 0, 3, 0xfa, 0x3f, 0]).expect("it is sent");
    peer.say(Message::Ring(RingMessage::GetNeighbours { request: 5 })).expect("it is sent");
    while !matches!(
        peer.receive().expect("it goes on"),
        Packet::Message(Message::Ring(RingMessage::Neighbours { request: 5, .. }))
    ) {}
    peer.stream.write_all(&[0, 0x20, 0, 0, 1]).expect("it is sent");
    witness.is_served();
    peer.stream.shutdown(Shutdown::Write).expect("a connection");
    peer.wait_closed();
    is_well(&ring);
}

#[test]
fn a_peer_that_says_nothing_more_once_it_was_answered_loses_its_connection_within_ten_seconds() {
    let _turn = side_by_side();
    let ring = ring_of(1, &[]);
    let own = Reserved::port();
    let (mut peer, _) = Peer::greeted(ring.nodes[0].peers, own.addr);
    peer.say(Message::Call { request: 1, call: Call::Info }).expect("it is sent");
    let start = Instant::now();
    peer.wait_closed();
    let passed = start.elapsed();
    assert!(passed > Duration::from_secs(5) && passed < Duration::from_secs(10), "after {passed:?}");
    is_well(&ring);
}

#[test]
fn peers_that_say_hello_and_no_more_take_no_place_that_another_needs() {
    let _turn = side_by_side();
    // A quarter of the descriptors is for peers.
    let first = Process::node_with_descriptors(400, &[]).listening();
    let idle: Vec<Peer> = (1..=100).map(|n| Peer::greeted(first.peers, ([127, 0, 0, 9], n).into()).0).collect();
    let Some(Packet::Refusal(refusal)) = Peer::connect(first.peers).receive() else { panic!("it is not told why") };
    assert_eq!(refusal.code, RefusalCode::Busy);
    let second = Node::join(first.peers, &[]);
    wait_settled(second.http, 2, PATIENCE);
    second.client().put(b"key", b"value").expect("an answer").is(201);
    first.client().read(b"key").expect("an answer").is(200);
    drop(idle);
    first.has_not_panicked();
}

/// Thirty times nearly all of the largest frame.
#[test]
fn frames_that_are_never_whole_take_a_bounded_amount_of_memory() {
    let _turn = side_by_side();
    let ring = ring_of(2, &[]);
    let mut witness = Witness::of(&ring);
    witness.is_served();
    let node = &ring.nodes[0];
    let before = node.resident_kib();
    let most = vec![0; 3_900 << 10];
    let mut begun: Vec<Peer> = (1..=30).map(|n| Peer::greeted(node.peers, ([127, 0, 0, 9], n).into()).0).collect();
    for peer in &mut begun {
        // It may be cut off before it has sent all.
        let _ = peer.stream.write_all(&(4_u32 << 20).to_be_bytes());
        let _ = peer.stream.write_all(&most);
        let more = node.resident_kib().saturating_sub(before);
        assert!(more < 64 << 10, "{more} KiB more, and 114 MiB were sent");
    }
    witness.is_served();
    drop(begun);
    ring.wait_settled();
    is_well(&ring);
}

#[test]
fn a_stranger_with_the_nodes_own_address_is_refused() {
    let _turn = side_by_side();
    let ring = ring_of(3, &[]);
    let mut witness = Witness::of(&ring);
    let mut peer = Peer::connect(ring.nodes[0].peers);
    peer.send(&Packet::Hello(Box::new(hello(ring.nodes[0].peers)))).expect("it is sent");
    let Some(Packet::Refusal(refusal)) = peer.receive() else { panic!("no refusal") };
    assert_eq!(refusal.code, RefusalCode::SelfDial);
    ring.wait_settled();
    witness.is_served();
    is_well(&ring);
}

/// Each ring would take the other's members for its own.
#[test]
fn a_member_of_another_ring_that_spoke_to_a_joiner_is_cut_off_once_that_has_joined() {
    let _turn = side_by_side();
    let (own, seed) = (Reserved::port(), Reserved::port());
    let other = Node::create(&[]);
    let (_, params) = Peer::greeted(other.peers, own.addr);
    let joiner = Node::join(seed.addr, &[]);
    let mut peer = Peer::connect(joiner.peers);
    let member = Hello { ring: Some(params), ..hello(own.addr) };
    peer.send(&Packet::Hello(Box::new(member))).expect("it is sent");
    assert!(matches!(peer.receive(), Some(Packet::Hello(_))), "as long as it is in no ring any member may speak to it");
    let listen = seed.addr.to_string();
    drop(seed);
    let _seed = Node::create(&["--listen", &listen]);
    joiner.wait_ready();
    let ready = Instant::now();
    peer.wait_closed();
    assert!(ready.elapsed() < Duration::from_secs(3), "not for being idle: after {:?}", ready.elapsed());
}

#[test]
fn a_joiner_that_says_every_kind_of_message_out_of_place_disturbs_nobody() {
    let _turn = side_by_side();
    let ring = ring_of(3, &[]);
    let mut witness = Witness::of(&ring);
    witness.is_served();
    let own = Reserved::port();
    for node in &ring.nodes[..2] {
        for message in every_kind(own.addr) {
            let (mut peer, _) = Peer::greeted(node.peers, own.addr);
            peer.say(message.clone()).expect("it is sent");
            witness.is_served();
            // The end of a connection is for a member like any other; and so is a goodbye.
            if matches!(message, Message::Ring(_)) {
                peer.send(&Packet::Goodbye).expect("it is sent");
            }
            drop(peer);
        }
    }
    ring.wait_settled();
    witness.is_served();
    is_well(&ring);
}

#[test]
fn a_joiner_that_hears_of_everything_and_answers_nothing_is_left_out_in_the_end() {
    let _turn = side_by_side();
    let ring = ring_of(3, &[]);
    let mut witness = Witness::of(&ring);
    let own = Reserved::port();
    let (mut peer, params) = Peer::greeted(ring.nodes[0].peers, own.addr);
    // Asks for its place as a joiner does, is let in, and then falls silent.
    let me = Contact::new(params.space.capacity(), own.addr, hello(own.addr).incarnation);
    for (request, node) in (1..).zip(&ring.nodes) {
        let (mut other, _) = Peer::greeted(node.peers, own.addr);
        other.say(Message::Ring(RingMessage::Join { request })).expect("it is sent");
        other.say(Message::Ring(RingMessage::Notify)).expect("it is sent");
        other.say(Message::Ring(RingMessage::Offer { contact: me })).expect("it is sent");
        peer.say(Message::Ring(RingMessage::GetNeighbours { request })).expect("it is sent");
        while !matches!(other.receive(), Some(Packet::Message(Message::Ring(RingMessage::JoinReply { .. }))) | None) {}
    }
    drop(peer);
    witness.is_served();
    ring.wait_settled();
    witness.is_served();
    is_well(&ring);
}

/// One message of every kind, about nodes that do not exist and requests that nobody made. Claims about who holds what
/// are as old as can be: whoever is let in is believed what is newer.
fn every_kind(own: SocketAddr) -> Vec<Message> {
    let mut all: Vec<Message> = ring_messages(own).into_iter().map(Message::Ring).collect();
    all.extend(copy_messages(own).into_iter().map(|message| Message::Copies(Box::new(message))));
    all.extend(calls().into_iter().map(|call| Message::Call { request: 1, call }));
    all.extend(
        replies(own)
            .into_iter()
            .flat_map(|reply| [1, 2, u64::MAX].map(|request| Message::Reply { request, reply: reply.clone() })),
    );
    all
}

fn contact(addr: SocketAddr) -> Contact {
    Contact::new(Capacity::MAX, addr, Incarnation(77))
}

fn ring_messages(own: SocketAddr) -> Vec<RingMessage> {
    let (own, target) = (contact(own), Capacity::MAX.hash(b"target"));
    let lookup = |hops| Lookup { hops, ..Lookup::new(300, own, target, Want::Owner) };
    let request = 7;
    vec![
        RingMessage::GetNeighbours { request },
        RingMessage::Neighbours {
            request,
            standing: Standing::Leaving,
            predecessor: Some(own),
            successors: vec![own],
            weights: Vec::new(),
        },
        RingMessage::Notify,
        RingMessage::Lookup { hop: 9, lookup: lookup(0) },
        RingMessage::Lookup { hop: u64::MAX, lookup: lookup(u32::MAX) },
        RingMessage::LookupAck { hops: vec![1, 200, u64::MAX] },
        RingMessage::LookupRefused { hop: 9 },
        RingMessage::Found(Found { request, owner: own, before: own, hops: 2, silent: 1 }),
        RingMessage::GetNextHop { request, target },
        RingMessage::NextHop { request, next: NextHop::Owner(own) },
        RingMessage::NextHop { request, next: NextHop::Closer(own) },
        RingMessage::NextHop { request, next: NextHop::Refused },
        RingMessage::Join { request },
        RingMessage::JoinReply { request, verdict: JoinVerdict::Granted(vec![own]) },
        RingMessage::JoinReply { request, verdict: JoinVerdict::DuplicateId(own) },
        RingMessage::JoinReply { request, verdict: JoinVerdict::RetryAfter(u32::MAX) },
        RingMessage::Offer { contact: own },
        RingMessage::Leave { request, successors: vec![own] },
        RingMessage::LeaveReply { request, released: true },
    ]
}

fn copy_messages(own: SocketAddr) -> Vec<CopyMessage> {
    let (slot, run, epoch) = (Slot(17), SlotRun { first: Slot(0), count: 1_024 }, 0);
    let outside = SlotRun { first: Slot(u32::MAX), count: u32::MAX };
    let views = vec![View::of_one(epoch, contact(own))];
    let members = vec![contact(own)];
    let key = Key::new(*b"k").expect("a key");
    let after = Some((Capacity::MAX.hash(b"k"), key.clone()));
    let turn = Turn { n: u64::MAX, node: Incarnation(77) };
    let ballot = record().version;
    let state = State { record: Some(record()), recent: Recent::new(Vec::new(), None), doubtful: true };
    let accepted = Accepted { ballot, copied: false, state: state.clone() };
    let promise = Promise { accepted: Some((turn, members.clone().into())), complete: true };
    let fetch = |slot, serial, ahead| CopyMessage::Fetch {
        slot,
        epoch,
        views: views.clone(),
        ahead,
        digest: None,
        serial,
        after: after.clone(),
    };
    let part = |epoch| {
        let entries = vec![(key.clone(), accepted.clone())];
        CopyMessage::Part {
            slot,
            epoch,
            serial: 2,
            part: Part { entries, damaged: vec![key.clone()], next: None, evicted: Some(Wall(u64::MAX)), same: true },
        }
    };
    let ask = |ask| CopyMessage::Ask { number: 9, slot, epoch, key: key.clone(), ask };
    vec![
        CopyMessage::Query { runs: vec![run, outside] },
        CopyMessage::Notice { views: vec![(run, views.clone()), (outside, views.clone())] },
        CopyMessage::Summary { sum: 77, of: Vec::new() },
        CopyMessage::Epochs { runs: vec![(run, epoch), (outside, u64::MAX)], answer: false },
        CopyMessage::Wish { slot, epoch, members: members.clone() },
        CopyMessage::Elect { slot, epoch, turn, views: views.clone() },
        CopyMessage::Elected { slot, epoch, turn, promise },
        CopyMessage::Vote { slot, epoch, turn, members: members.into() },
        CopyMessage::Voted { slot, epoch, turn },
        CopyMessage::Overruled { slot, epoch, turn },
        CopyMessage::Invite { slot, views: views.clone() },
        CopyMessage::Ready { slot, epoch },
        fetch(slot, 2, true),
        fetch(Slot(u32::MAX), u64::MAX, false),
        part(epoch),
        part(u64::MAX),
        CopyMessage::Complete { slot, epoch, has: true, ask: true },
        CopyMessage::Complete { slot: Slot(u32::MAX), epoch: u64::MAX, has: true, ask: true },
        ask(Ask::Peek),
        ask(Ask::Prepare(ballot)),
        ask(Ask::Accept(ballot, state)),
        CopyMessage::Answered { number: 9, answer: Ok(Answer::Accepted) },
        CopyMessage::Answered { number: 1, answer: Err(Trouble::Full("no room".to_owned())) },
        CopyMessage::Leaving,
    ]
}

fn calls() -> Vec<Call> {
    let id = OpId { node: Incarnation(77), n: 1, issued: Wall(0) };
    let key = || Key::new(*b"stranger").expect("a key");
    let kv = |command| Call::Operate { key: key(), operation: Operation { id, command, again: true } };
    let condition = Condition { if_match: Some(Tag::Any), if_none_match: Some(Tag::Of(vec![])) };
    let put = Put { value: Arc::from(*b"v"), content_type: None, ttl_ms: Some(u64::MAX), condition };
    let run = SlotRun { first: Slot(u32::MAX), count: u32::MAX };
    let nowhere = Recovery { run, epoch: u64::MAX, of: 0, sources: vec![], next: u64::MAX };
    vec![
        kv(Command::Get),
        kv(Command::Put(put)),
        kv(Command::Put(Put {
            value: Arc::from([]),
            content_type: None,
            ttl_ms: Some(u64::MAX),
            condition: Condition::default(),
        })),
        kv(Command::Delete(Condition::default())),
        Call::List { query: ListQuery { prefix: Vec::new(), after: None, limit: 1_000 }, all: false },
        Call::Holder(Slot(u32::MAX)),
        Call::Survey(Slot(u32::MAX)),
        Call::Recover(vec![nowhere]),
        Call::Info,
    ]
}

fn replies(own: SocketAddr) -> Vec<Reply> {
    let done = |outcome| Reply::Ran(Ran::Done(outcome));
    let version = record().version;
    let item = Item { key: Key::new(*b"k").expect("a key"), size: 5, version, content_type: None, expires: None };
    let info = NodeInfo {
        contact: contact(own),
        http: None,
        standing: Standing::Member,
        predecessor: None,
        successors: vec![contact(own)],
        weight: Weight::MAX,
        slots: u32::MAX,
        slots_moving: u32::MAX,
        keys: u64::MAX,
        bytes: u64::MAX,
        uptime_ms: u64::MAX,
        version: Arc::from("9"),
    };
    let run = SlotRun { first: Slot(0), count: 1_024 };
    vec![
        done(Outcome::Found(record())),
        done(Outcome::NotFound),
        done(Outcome::Created(version)),
        done(Outcome::PreconditionFailed(None)),
        Reply::Ran(Ran::Unknown),
        Reply::Ran(Ran::NotNow { elsewhere: Some(View::of_one(u64::MAX, contact(own))), again: true }),
        Reply::List { served: vec![(run, u64::MAX)], page: Page { items: vec![item], more: true } },
        Reply::Holder(None),
        Reply::Survey(vec![]),
        Reply::Recovering,
        Reply::Info(Box::new(info)),
    ]
}

fn record() -> Record {
    Record {
        value: Arc::from(*b"value"),
        content_type: None,
        version: Version { epoch: 0, round: 0, n: 1, node: Incarnation(9) },
        modified: Wall(0),
        expires: Some(Wall(1)),
    }
}

/// Hellos that are valid as bytes but make no sense.
#[test]
fn hellos_that_name_impossible_addresses_harm_nobody() {
    let _turn = side_by_side();
    let ring = ring_of(2, &[]);
    let mut witness = Witness::of(&ring);
    for addr in ["0.0.0.0:0", "255.255.255.255:1", "127.0.0.1:0", "[::]:1", "224.0.0.1:5"] {
        let strange = Hello { addr: addr.parse().expect("an address"), ..hello(ring.nodes[1].peers) };
        let mut peer = Peer::connect(ring.nodes[0].peers);
        peer.send(&Packet::Hello(Box::new(strange))).expect("it is sent");
        if matches!(peer.receive(), Some(Packet::Hello(_))) {
            for message in [RingMessage::Notify, RingMessage::Join { request: 1 }] {
                // It may have been cut off by now.
                let _ = peer.say(Message::Ring(message));
            }
        }
        witness.is_served();
    }
    ring.wait_settled();
    witness.is_served();
    is_well(&ring);
}
