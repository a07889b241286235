//! Golden bytes of every message, and what happens to bytes that are none.

use std::collections::BTreeSet;
use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::base::limits::VALUE_BYTES_LIMIT;
use crate::data::{Filter, Hint, Resume, Seen, Watched};
use crate::replication::copies::{Ran, Recovery};
use crate::replication::survey::Said;
use crate::wire::copies::samples;
use crate::wire::{FrameDecoder, Packet, RefusalCode, encode};

const CAPACITY: Capacity = Capacity::MAX;

fn contact(port: u16) -> Contact {
    Contact::new(CAPACITY, ([127, 0, 0, 1], port).into(), Incarnation(u128::from(port) << 64 | 5))
}

fn contact_v6() -> Contact {
    Contact::new(CAPACITY, "[2001:db8::7]:4444".parse().unwrap(), Incarnation(u128::MAX))
}

fn key(text: &str) -> Key {
    Key::new(text.as_bytes()).unwrap()
}

fn version(n: u64) -> Version {
    Version { epoch: 3, round: 0, n, node: Incarnation(9) }
}

fn record() -> Record {
    Record {
        value: Arc::from(*b"value"),
        content_type: Some(Arc::from("text/plain")),
        version: version(1),
        modified: Wall(1_700_000_000_000),
        expires: Some(Wall(1_700_000_001_000)),
    }
}

fn run(first: u32, count: u32) -> SlotRun {
    SlotRun { first: Slot(first), count }
}

fn view() -> View {
    View { epoch: 4, members: [contact(1), contact(2)].into() }
}

fn hello() -> Hello {
    Hello {
        protocol: (1, 2),
        addr: ([127, 0, 0, 1], 4000).into(),
        incarnation: Incarnation(7),
        ring: Some(RingParams::checked(8, 160, 10, 16, 3, 1 << 20).unwrap()),
        wishes: Wishes {
            capacity: Some(160),
            slot_bits: None,
            successors: Some(4),
            replicas: None,
            value_bytes_max: Some(9),
        },
        software: Arc::from("0.1.0"),
    }
}

fn ring_samples() -> Vec<(&'static str, RingMessage)> {
    let lookup = Lookup { hops: 3, ..Lookup::new(300, contact(2), CAPACITY.hash(b"t"), Want::Owner) };
    let last =
        Lookup { want: Want::Before, aim: Aim::Neighbour, silent: 2, silent_last: Some(Incarnation(9)), ..lookup };
    let request = 7;
    vec![
        ("get_neighbours", RingMessage::GetNeighbours { request }),
        (
            "neighbours",
            RingMessage::Neighbours {
                request,
                standing: Standing::Leaving,
                predecessor: Some(contact_v6()),
                successors: vec![contact(1), contact(2)],
                weights: Vec::new(),
            },
        ),
        (
            "neighbours.weights",
            RingMessage::Neighbours {
                request,
                standing: Standing::Member,
                predecessor: None,
                successors: vec![contact(1)],
                weights: vec![Weight::ONE, Weight::MAX],
            },
        ),
        ("notify", RingMessage::Notify),
        ("lookup", RingMessage::Lookup { hop: 9, lookup }),
        ("lookup.last", RingMessage::Lookup { hop: 9, lookup: last }),
        ("lookup_ack", RingMessage::LookupAck { hops: vec![1, 200, 40_000] }),
        ("lookup_refused", RingMessage::LookupRefused { hop: 9 }),
        ("found", RingMessage::Found(Found { request, owner: contact(3), before: contact(2), hops: 2, silent: 1 })),
        ("get_next_hop", RingMessage::GetNextHop { request, target: Id::ZERO }),
        ("next_hop.owner", RingMessage::NextHop { request, next: NextHop::Owner(contact(1)) }),
        ("next_hop.closer", RingMessage::NextHop { request, next: NextHop::Closer(contact(1)) }),
        ("next_hop.refused", RingMessage::NextHop { request, next: NextHop::Refused }),
        ("join", RingMessage::Join { request }),
        ("join_reply.granted", RingMessage::JoinReply { request, verdict: JoinVerdict::Granted(vec![contact(1)]) }),
        ("join_reply.not_here", RingMessage::JoinReply { request, verdict: JoinVerdict::NotHere }),
        ("join_reply.retry_after", RingMessage::JoinReply { request, verdict: JoinVerdict::RetryAfter(40) }),
        ("join_reply.duplicate_id", RingMessage::JoinReply { request, verdict: JoinVerdict::DuplicateId(contact(1)) }),
        ("offer", RingMessage::Offer { contact: contact(1) }),
        ("get_contacts", RingMessage::GetContacts { request, after: CAPACITY.hash(b"t") }),
        ("known_contacts", RingMessage::Contacts { request, contacts: vec![(contact(1), Span::secs(3))] }),
        ("probe_for", RingMessage::ProbeFor { contact: contact(1) }),
        ("vouch", RingMessage::Vouch { contact: contact(1) }),
        ("leave", RingMessage::Leave { request, successors: vec![contact(1)] }),
        ("leave_reply", RingMessage::LeaveReply { request, released: true }),
    ]
}

fn call_samples() -> Vec<(&'static str, Call)> {
    let condition = Condition { if_match: Some(Tag::Of(vec![version(1)])), if_none_match: Some(Tag::Any) };
    let never = Condition { if_match: Some(Tag::Of(vec![])), if_none_match: None };
    let put = Put { value: Arc::from(*b"v"), content_type: None, ttl_ms: Some(30_000), condition };
    let operate = |command| samples::call(command);
    let list = |query, all| Call::List { query, all };
    let recovery = Recovery { run: run(3, 2), epoch: 7, of: 6, sources: vec![contact(1)], next: 8 };
    vec![
        ("call.get", operate(Command::Get)),
        ("call.put", operate(Command::Put(put))),
        ("call.delete", operate(Command::Delete(Condition::default()))),
        ("call.delete_never", operate(Command::Delete(never))),
        ("call.list", list(ListQuery { prefix: b"p".to_vec(), after: Some(vec![]), limit: 5 }, false)),
        ("call.list.all", list(ListQuery { prefix: vec![], after: None, limit: 5 }, true)),
        ("call.peek", Call::Peek(key("k"))),
        ("call.holder", Call::Holder(Slot(3))),
        ("call.info", Call::Info),
        ("call.survey", Call::Survey(Slot(256))),
        ("call.recover", Call::Recover(vec![recovery])),
        ("call.watch", Call::Watch { prefix: b"p".to_vec(), from: Resume { sum: 1 << 100, node: 7 } }),
        (
            "call.follow",
            Call::Follow { filters: vec![Filter::Key(key("k")), Filter::Prefix(vec![])], lasts: Span::secs(9) },
        ),
    ]
}

fn reply_samples() -> Vec<(&'static str, Reply)> {
    let done = |outcome| Reply::Ran(Ran::Done(outcome));
    let seen = |name, record| Seen { key: key(name), record };
    let seen = vec![seen("a", Some(record())), seen("b", None)];
    let watched = Watched { seen, resume: Resume { sum: 1 << 100, node: 7 } };
    let failed = |trouble| Reply::Ran(Ran::Failed(trouble));
    let item = Item { key: key("k"), size: 5, version: version(2), content_type: None, expires: Some(Wall(1)) };
    let info = NodeInfo {
        contact: contact(1),
        http: Some(([127, 0, 0, 1], 8000).into()),
        standing: Standing::Member,
        predecessor: None,
        successors: vec![contact(2)],
        weight: Weight::MAX,
        slots: 512,
        slots_moving: 3,
        keys: 10,
        bytes: 1_000,
        uptime_ms: 5,
        version: Arc::from("0.1.0"),
    };
    vec![
        ("reply.found", done(Outcome::Found(record()))),
        ("reply.not_found", done(Outcome::NotFound)),
        ("reply.created", done(Outcome::Created(version(1)))),
        ("reply.replaced", done(Outcome::Replaced(version(1)))),
        ("reply.replaced_in_a_later_round", done(Outcome::Replaced(Version { round: 300, ..version(1) }))),
        ("reply.deleted", done(Outcome::Deleted)),
        ("reply.precondition_failed", done(Outcome::PreconditionFailed(Some(version(1))))),
        ("reply.full", failed(Trouble::Full("the disk is full".to_owned()))),
        ("reply.damaged", failed(Trouble::Damaged(key("k")))),
        ("reply.broken", failed(Trouble::Broken("I/O error".to_owned()))),
        ("reply.unknown", Reply::Ran(Ran::Unknown)),
        ("reply.not_now", Reply::Ran(Ran::NotNow { elsewhere: Some(view()), again: true })),
        ("reply.list", Reply::List { served: vec![(run(0, 4), 1)], page: Page { items: vec![item], more: true } }),
        ("reply.peeked", Reply::Peeked(Some((Outcome::NotFound, None)))),
        ("reply.peeked.of_some_age", Reply::Peeked(Some((Outcome::NotFound, Some(Span::secs(9)))))),
        ("reply.peeked.nothing", Reply::Peeked(None)),
        ("reply.holder", Reply::Holder(None)),
        ("reply.info", Reply::Info(Box::new(info))),
        ("reply.surveyed", Reply::Survey(vec![(run(0, 4), Said { views: vec![(view(), true)], over: 3 })])),
        ("reply.recovering", Reply::Recovering),
        ("reply.watched", Reply::Watched(Some(Box::new(watched)))),
        ("reply.watched.too_old", Reply::Watched(None)),
        ("reply.following", Reply::Following { number: 300, neighbours: vec![contact(1)] }),
    ]
}

/// One packet of every kind, by name.
fn samples() -> Vec<(&'static str, Packet)> {
    let refusal = Refusal { code: RefusalCode::Ring, reason: "another ring".to_owned() };
    let mut all = vec![
        ("hello", Packet::Hello(Box::new(hello()))),
        ("refusal", Packet::Refusal(refusal)),
        ("goodbye", Packet::Goodbye),
    ];
    let message = |m| Packet::Message(m);
    all.extend(ring_samples().into_iter().map(|(name, m)| (name, message(Message::Ring(m)))));
    all.extend(samples::messages().into_iter().map(|(name, m)| (name, message(Message::Copies(Box::new(m))))));
    let accepted = |there| Hint::Accepted { ballot: version(9), there };
    let hints = vec![(key("a"), accepted(Some(version(1)))), (key("b"), accepted(None)), (key("c"), Hint::Unknown)];
    all.push(("notice", message(Message::Notice { number: 300, hints })));
    all.extend(call_samples().into_iter().map(|(name, call)| (name, message(Message::Call { request: 1, call }))));
    all.extend(reply_samples().into_iter().map(|(name, reply)| (name, message(Message::Reply { request: 1, reply }))));
    all
}

fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, &mut bytes);
    bytes
}

#[test]
fn every_message_has_its_golden_bytes_and_reads_back() {
    let mut text = String::new();
    for (name, packet) in samples() {
        let bytes = bytes_of(&packet);
        write!(text, "{name} ").unwrap();
        for byte in &bytes {
            write!(text, "{byte:02x}").unwrap();
        }
        text.push('\n');
        let mut decoder = FrameDecoder::default();
        decoder.push(&bytes);
        let frame = decoder.next_frame().unwrap().expect("a whole frame");
        assert_eq!(decode(frame, CAPACITY), Ok(packet), "{name}");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/wire/golden.txt");
    if std::env::var("CHORDKV_PROTO").as_deref() == Ok("write") {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    assert!(golden == text, "the bytes of a message changed: deployed peers would not understand it");
}

#[test]
fn no_kind_of_message_is_without_a_sample() {
    let kinds: BTreeSet<u64> = samples()
        .iter()
        .map(|(_, packet)| prost::encoding::decode_key(&mut &bytes_of(packet)[4..]).unwrap().0.into())
        .collect();
    let proto = include_str!("../../proto/peer.proto");
    let envelope = proto.split("message Envelope {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap();
    let declared = envelope.lines().filter(|line| line.contains(" = ") && !line.contains("//")).count();
    assert_eq!(kinds.len(), declared);
}

#[test]
fn what_a_peer_gets_wrong_is_named() {
    use pb::envelope::Body;
    let broken = |body| pb::Envelope { body: Some(body) }.encode_to_vec();
    let big = "x".repeat(300);
    let operation = Some(pb::OpId { node: Some(pb::U128::default()), n: 1, issued: 1 });
    let cases = [
        (vec![0xff; 8], WireError::Malformed),
        (pb::Envelope { body: None }.encode_to_vec(), WireError::Unknown),
        (vec![0xfa, 0x3f, 0], WireError::Unknown),
        (broken(Body::Offer(pb::Offer { contact: None })), WireError::Missing("the contact")),
        (
            broken(Body::CopyPart(pb::CopyPart { entries: vec![pb::CopyEntry::default()], ..Default::default() })),
            WireError::Invalid("a key"),
        ),
        (
            broken(Body::Leave(pb::Leave { request: 1, successors: vec![pb::Contact::default(); 65] })),
            WireError::TooLarge("a list of contacts"),
        ),
        (
            broken(Body::Neighbours(pb::Neighbours { standing: 9, ..Default::default() })),
            WireError::Invalid("the standing"),
        ),
        (
            broken(Body::Call(pb::Call {
                request: 1,
                call: Some(pb::call::Call::Operate(pb::OperateCall {
                    key: b"k".to_vec(),
                    command: Some(pb::operate_call::Command::Put(pb::Put {
                        content_type: Some("a\r\nb: c".into()),
                        ..Default::default()
                    })),
                    operation,
                    ..Default::default()
                })),
            })),
            WireError::Invalid("a content type"),
        ),
        (
            broken(Body::Call(pb::Call {
                request: 1,
                call: Some(pb::call::Call::Operate(pb::OperateCall {
                    key: b"k".to_vec(),
                    command: Some(pb::operate_call::Command::Put(pb::Put {
                        value: vec![0; VALUE_BYTES_LIMIT + 1],
                        ..Default::default()
                    })),
                    operation,
                    ..Default::default()
                })),
            })),
            WireError::TooLarge("a value"),
        ),
        (
            broken(Body::Hello(pb::Hello {
                address: Some(pb::Address { ip: Some(pb::address::Ip::V4(1)), port: 1 }),
                incarnation: Some(pb::U128::default()),
                software: big,
                ..Default::default()
            })),
            WireError::Invalid("the software version"),
        ),
    ];
    for (bytes, error) in cases {
        assert_eq!(decode(&bytes, CAPACITY), Err(error));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes, CAPACITY);
    }

    #[test]
    fn no_damaged_message_makes_the_decoder_panic(which in 0_usize..96, at in 0_usize..400, flip: u8, cut in 0_usize..400) {
        let all = samples();
        let (_, packet) = &all[which % all.len()];
        let mut bytes = bytes_of(packet)[4..].to_vec();
        if let Some(byte) = bytes.get_mut(at) { *byte ^= flip; }
        bytes.truncate(cut.max(1));
        let _ = decode(&bytes, Capacity::new(12).unwrap());
    }
}
