//! Messages a second through one node's loop: 50 connections that each keep 1 or 16 reads of one key in flight, next to a
//! bare mio + prost loop in another process that decodes the same requests and encodes the same replies.
//!
//! `cargo bench --bench peer_loop`, half a minute; a table is printed at the end, with the processor time that the loop's
//! thread took for a message, which other load on the machine hardly changes. Targets: 120,000/s at depth 1, 1.2 million/s
//! at depth 16, with this client on the same cores. Replies are counted here, and decoded only once at the start.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use chordkv::base::{Capacity, Contact, Incarnation, Wall};
use chordkv::data::register::OpId;
use chordkv::data::{Command, Condition, Outcome, Put};
use chordkv::node::{Call, Message, Reply};
use chordkv::replication::copies::{Operation, Ran};
use chordkv::wire::{FrameDecoder, Packet, decode, encode};
use common::client::{introduce, nonblocking};
use common::echo::{self, Echo};
use common::nodes::{Node, Process};
use common::{PATIENCE, is_test_mode, records};
use criterion::{BenchmarkId, Criterion, Throughput};
use mio::{Events, Interest, Poll, Token};

const CONNECTIONS: u16 = 50;
const DEPTHS: [u32; 2] = [1, 16];
/// Alternations of the table, and how long each server is loaded in one.
const ROUNDS: usize = 7;
const ROUND_TIME: Duration = Duration::from_millis(500);

fn main() {
    echo::serve_if_told();
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let (node, echo) = (Node::start(None, &[]), Echo::start());
    node.wait_created();
    let mut servers = [
        Server { name: "node", process: &node.process, load: Load::connect(node.addr) },
        Server { name: "bare_loop", process: &echo.process, load: Load::connect(echo.addr) },
    ];
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut group = criterion.benchmark_group("peer_loop");
    for depth in DEPTHS {
        // One iteration is a window on every connection.
        group.throughput(Throughput::Elements(u64::from(depth) * u64::from(CONNECTIONS)));
        for server in &mut servers {
            group.bench_function(BenchmarkId::new(server.name, depth), |bencher| {
                bencher.iter_custom(|windows| server.load.run(depth, windows));
            });
        }
    }
    group.finish();
    criterion.final_summary();
    print_table(&mut servers);
}

struct Server<'a> {
    name: &'static str,
    process: &'a Process,
    load: Load,
}

fn print_table(servers: &mut [Server<'_>; 2]) {
    let (rounds, time) = if is_test_mode() { (1, Duration::ZERO) } else { (ROUNDS, ROUND_TIME) };
    println!("\n{CONNECTIONS} connections, medians of {rounds} alternating rounds\n");
    println!("depth       server   messages/s   CPU of the loop, µs a message");
    for depth in DEPTHS {
        let mut figures = [const { Vec::new() }; 2];
        for _ in 0..rounds {
            for (server, figures) in servers.iter_mut().zip(&mut figures) {
                figures.push(loaded_for(server, depth, time));
            }
        }
        for (server, figures) in servers.iter().zip(&mut figures) {
            let mut median = |of: fn(&(f64, f64)) -> f64| {
                figures.sort_by(|a, b| of(a).total_cmp(&of(b)));
                of(&figures[figures.len() / 2])
            };
            let (rate, cpu) = (median(|figures| figures.0), median(|figures| figures.1));
            println!("{depth:>5}   {:>10}   {rate:>10.0}   {cpu:>10.2}", server.name);
        }
    }
}

/// Messages a second, and µs of the loop's processor time for each.
fn loaded_for(server: &mut Server<'_>, depth: u32, time: Duration) -> (f64, f64) {
    let cpu = server.process.cpu_time();
    let (start, mut windows) = (Instant::now(), 0_u32);
    loop {
        server.load.run(depth, 20);
        windows += 20;
        if start.elapsed() >= time {
            break;
        }
    }
    let messages = f64::from(windows) * f64::from(depth) * f64::from(CONNECTIONS);
    let used = server
        .process
        .cpu_time()
        .zip(cpu)
        .map_or(f64::NAN, |(after, before)| after.saturating_sub(before).as_secs_f64());
    (messages / start.elapsed().as_secs_f64(), used * 1e6 / messages)
}

/// Connections that keep a server busy.
struct Load {
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    buffer: Vec<u8>,
}

struct Link {
    socket: mio::net::TcpStream,
    decoder: FrameDecoder,
    /// Replies that are still to come in this window.
    missing: u32,
    /// Windows to go, this one not counted.
    windows: u64,
}

/// The request number of every message: the client tells them apart by their order.
const REQUEST: u64 = 1;

impl Load {
    fn connect(server: SocketAddr) -> Self {
        let poll = Poll::new().expect("a poll");
        let mut links = Vec::new();
        for n in 0..CONNECTIONS {
            // Peers of their own, as far as the server can tell; nobody listens there.
            let me = Contact::new(Capacity::MAX, ([127, 0, 0, 1], n + 1).into(), Incarnation(u128::from(n) + 100));
            let (socket, _, decoder) = introduce(server, me);
            let mut socket = nonblocking(socket);
            poll.registry().register(&mut socket, Token(n.into()), Interest::READABLE).expect("a new socket");
            links.push(Link { socket, decoder, missing: 0, windows: 0 });
        }
        let mut load = Self { poll, events: Events::with_capacity(256), links, buffer: vec![0; 64 << 10] };
        load.prepare();
        load
    }

    /// Puts the record that is read, and checks that a read gives it.
    fn prepare(&mut self) {
        let put =
            Put { value: records::record(0).value, content_type: None, ttl_ms: None, condition: Condition::default() };
        self.ask(Command::Put(put));
        match self.ask(Command::Get) {
            (_, Reply::Ran(Ran::Done(Outcome::Found(record)))) => {
                assert_eq!(record.value, records::record(0).value);
            }
            (_, other) => panic!("the server answers {other:?}"),
        }
    }

    /// One exchange on the first connection: the size of the reply's frame, and the reply.
    fn ask(&mut self, command: Command) -> (usize, Reply) {
        let link = &mut self.links[0];
        link.socket.write_all(&call(command)).expect("the server keeps the connection");
        loop {
            self.poll.poll(&mut self.events, Some(PATIENCE)).expect("a poll");
            assert!(!self.events.is_empty(), "no answer in time");
            link.fill(&mut self.buffer);
            while let Some(frame) = link.decoder.next_frame().expect("a frame of ours") {
                // A member speaks to its peers from time to time; only the reply is waited for.
                let packet = decode(frame, Capacity::MAX).expect("a packet of ours");
                if let Packet::Message(Message::Reply { reply, .. }) = packet {
                    return (frame.len(), reply);
                }
            }
        }
    }

    /// Every connection sends so many windows of `depth` reads, each as soon as the one before is answered.
    fn run(&mut self, depth: u32, windows: u64) -> Duration {
        let (reply_bytes, _) = self.ask(Command::Get);
        let window = call(Command::Get).repeat(depth as usize);
        let start = Instant::now();
        for link in &mut self.links {
            link.missing = depth;
            link.windows = windows - 1;
            link.socket.write_all(&window).expect("a window fits into the socket's buffer");
        }
        let mut busy = self.links.len();
        while busy > 0 {
            self.poll.poll(&mut self.events, Some(PATIENCE)).expect("a poll");
            assert!(!self.events.is_empty(), "no answer in time");
            for event in &self.events {
                let link = &mut self.links[event.token().0];
                link.fill(&mut self.buffer);
                let came = link.take_replies(reply_bytes);
                if came == 0 || link.missing > 0 {
                    continue;
                }
                if link.windows > 0 {
                    link.windows -= 1;
                    link.missing = depth;
                    link.socket.write_all(&window).expect("a window fits into the socket's buffer");
                } else {
                    busy -= 1;
                }
            }
        }
        start.elapsed()
    }
}

impl Link {
    /// Reads what there is.
    fn fill(&mut self, buffer: &mut [u8]) {
        loop {
            match self.socket.read(buffer) {
                Ok(0) => panic!("the server has closed the connection"),
                Ok(count) => {
                    self.decoder.push(&buffer[..count]);
                    if count < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("a connection broke: {error}"),
            }
        }
    }

    /// Counts the replies that came, all of them of this size; nothing else that a member says is.
    fn take_replies(&mut self, reply_bytes: usize) -> u32 {
        let mut came = 0;
        while let Some(frame) = self.decoder.next_frame().expect("a frame of ours") {
            came += u32::from(frame.len() == reply_bytes);
        }
        assert!(came <= self.missing, "more came than was asked for");
        self.missing -= came;
        came
    }
}

fn call(command: Command) -> Vec<u8> {
    // Each is a first try: under a name that is used only if there is a second, and a read leaves none behind.
    let n = if command.is_write() { 1 } else { 2 };
    let id = OpId { node: Incarnation(1), n, issued: Wall(1) };
    let call = Call::Operate { key: records::key(0), operation: Operation { id, command, again: false } };
    let mut frame = Vec::new();
    encode(&Packet::Message(Message::Call { request: REQUEST, call }), &mut frame);
    frame
}
