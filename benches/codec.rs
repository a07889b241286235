//! Encoding and decoding of messages, domain value to bytes and back with all checks, and the cutting of a stream into
//! frames next to a bare walk over the same prefixes.
//!
//! `cargo bench --bench codec`. A round trip between two processes takes 14 µs: what is far below costs nothing.

mod common;

use std::hint::black_box;
use std::time::Duration;

use chordkv::base::limits::CHUNK_BYTES;
use chordkv::base::{Capacity, Contact, Incarnation, Wall};
use chordkv::data::register::{Accepted, OpId, State};
use chordkv::data::{Command, Condition, Put, Record, Slot};
use chordkv::node::{Call, Message};
use chordkv::overlay::{Lookup, RingMessage, Standing, Want};
use chordkv::replication::copies::{CopyMessage, Operation, Part};
use chordkv::wire::{FrameDecoder, Packet, decode, encode};
use common::records;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const PREFIX_BYTES: usize = 4;

fn contact(port: u16) -> Contact {
    Contact::new(Capacity::MAX, ([127, 0, 0, 1], port).into(), Incarnation(u128::from(port) << 100 | 7))
}

fn lookup() -> Packet {
    let target = Capacity::MAX.hash(b"target");
    let lookup = Lookup { hops: 3, ..Lookup::new(300_000, contact(40_000), target, Want::Owner) };
    Packet::Message(Message::Ring(RingMessage::Lookup { hop: 900_000, lookup }))
}

fn neighbours() -> Packet {
    Packet::Message(Message::Ring(RingMessage::Neighbours {
        request: 300_000,
        standing: Standing::Member,
        predecessor: Some(contact(39_999)),
        successors: (40_000..40_016).map(contact).collect(),
        weights: Vec::new(),
    }))
}

fn put_call() -> Packet {
    let value = records::record(1).value;
    let put = Put { value, content_type: None, ttl_ms: None, condition: Condition::default() };
    let id = OpId { node: Incarnation(7), n: 300_000, issued: Wall(1_700_000_000_000) };
    let operation = Operation { id, command: Command::Put(put), again: false };
    let call = Call::Operate { key: records::key(1), operation };
    Packet::Message(Message::Call { request: 300_000, call })
}

fn chunk() -> Packet {
    let (mut entries, mut bytes, mut n) = (Vec::new(), 0, 0);
    while bytes < CHUNK_BYTES {
        let (key, record) = (records::key(n), records::record(n));
        bytes += key.as_bytes().len() + record.user_bytes();
        entries.push((key, accepted(record)));
        n += 1;
    }
    let last = entries.last().map(|(key, _)| key.clone());
    let next = last.map(|key| (Capacity::MAX.hash(key.as_bytes()), key));
    let (slot, epoch, serial) = (Slot(17), 4, 9);
    Packet::Message(Message::Copies(Box::new(CopyMessage::Part {
        slot,
        epoch,
        serial,
        part: Part { entries, damaged: Vec::new(), next, evicted: None, same: false },
    })))
}

fn accepted(record: Record) -> Accepted {
    let ballot = record.version;
    Accepted { ballot, copied: false, state: State { record: Some(record), ..State::default() } }
}

fn samples() -> [(&'static str, Packet); 4] {
    [("lookup", lookup()), ("neighbours_16", neighbours()), ("put_100_bytes", put_call()), ("chunk_64_kib", chunk())]
}

fn frame_of(packet: &Packet) -> Vec<u8> {
    let mut frame = Vec::new();
    encode(packet, &mut frame);
    frame
}

fn messages(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    for (name, packet) in samples() {
        let frame = frame_of(&packet);
        group.throughput(Throughput::Bytes(frame.len() as u64));
        let mut out = Vec::with_capacity(frame.len());
        group.bench_with_input(BenchmarkId::new("encode", name), &packet, |bencher, packet| {
            bencher.iter(|| {
                out.clear();
                encode(black_box(packet), &mut out);
            });
        });
        group.bench_with_input(BenchmarkId::new("decode", name), &frame[PREFIX_BYTES..], |bencher, frame| {
            bencher.iter(|| decode(black_box(frame), Capacity::MAX));
        });
    }
    // A contact's id follows from its address and is not sent.
    group.throughput(Throughput::Elements(1));
    group.bench_function("id_of_an_address", |bencher| {
        bencher.iter(|| Contact::id_of(Capacity::MAX, black_box(([127, 0, 0, 1], 40_000).into())));
    });
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames");
    for (name, packet, count) in [("lookup", lookup(), 10_000), ("chunk_64_kib", chunk(), 16)] {
        let stream = frame_of(&packet).repeat(count);
        group.throughput(Throughput::Bytes(stream.len() as u64));
        // What one read of a socket brings: a full buffer, or one packet of Ethernet.
        for piece in [64 << 10, 1_448] {
            group.bench_function(BenchmarkId::new(format!("cut/{name}"), piece), |bencher| {
                bencher.iter(|| assert_eq!(cut(&stream, piece), count));
            });
        }
        group.bench_function(BenchmarkId::new("bare_walk", name), |bencher| {
            bencher.iter(|| assert_eq!(walk(black_box(&stream)), count));
        });
    }
    group.finish();
}

fn cut(stream: &[u8], piece: usize) -> usize {
    let (mut decoder, mut count) = (FrameDecoder::default(), 0);
    for piece in stream.chunks(piece) {
        decoder.push(piece);
        while let Ok(Some(frame)) = decoder.next_frame() {
            black_box(frame);
            count += 1;
        }
    }
    count
}

/// The same for a stream that lies in memory as a whole: nothing is copied.
fn walk(mut stream: &[u8]) -> usize {
    let mut count = 0;
    while let Some((prefix, rest)) = stream.split_first_chunk::<PREFIX_BYTES>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*prefix) as usize);
        black_box(frame);
        stream = rest;
        count += 1;
    }
    count
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = messages, frames
}
criterion_main!(benches);
