//! What the ring key costs: round trips of a small question to one node in clear and to another through its tunnel, both real
//! processes, and handshakes.
//!
//! `cargo bench --bench tunnel`, some ten seconds; a table is printed at the end. The two alternate in short rounds, so that load
//! on the machine meets them alike. All processes are bound to one core: across cores each wake-up costs 12 or 40 µs as the system
//! pleases. Target: at most 10 µs more a round trip, both ends together.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chordkv::base::{Capacity, Contact, Id, Incarnation};
use chordkv::driver::ring_key::{Identity, RingKeys};
use chordkv::driver::tunnel::{Credentials, Tunnel};
use chordkv::node::Message;
use chordkv::overlay::RingMessage;
use chordkv::wire::{FrameDecoder, Packet, decode, encode};
use common::client::hello;
use common::nodes::{Node, pin_to_one_core};
use common::{PATIENCE, is_test_mode, micros, quantile};
use criterion::Criterion;

const ROUNDS: usize = 200;
const ASKS_A_ROUND: usize = 100;

/// A peer on a blocking socket, in clear or not.
struct Asker {
    socket: TcpStream,
    tunnel: Option<Tunnel>,
    decoder: FrameDecoder,
    request: u64,
    // Holds the port that is advertised.
    _port: TcpListener,
}

impl Asker {
    fn connect(node: SocketAddr, keys: Option<&RingKeys>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = port.local_addr().expect("a bound port");
        let identity = Identity::draw().expect("random numbers");
        let who = if keys.is_some() { identity.incarnation() } else { Incarnation(addr.port().into()) };
        let me = Contact::new(Capacity::MAX, addr, who);
        let socket = TcpStream::connect(node).expect("the node listens");
        socket.set_nodelay(true).expect("a connected socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a connected socket");
        let credentials = keys.map(|keys| Arc::new(Credentials { keys: keys.clone(), identity }));
        let tunnel = credentials.map(|credentials| Tunnel::dial(credentials, None));
        let mut asker = Self { socket, tunnel, decoder: FrameDecoder::default(), request: 0, _port: port };
        while asker.tunnel.as_ref().is_some_and(|tunnel| !tunnel.is_open()) {
            asker.send_replies();
            asker.fill();
        }
        asker.send_replies();
        asker.send(&Packet::Hello(Box::new(hello(me, None))));
        assert!(matches!(asker.receive(), Packet::Hello(_)));
        asker
    }

    fn send_replies(&mut self) {
        if let Some(tunnel) = &mut self.tunnel {
            self.socket.write_all(&tunnel.take_replies()).expect("the node listens");
        }
    }

    fn send(&mut self, packet: &Packet) {
        let (mut frame, mut sealed) = (Vec::new(), Vec::new());
        encode(packet, &mut frame);
        let bytes = match &mut self.tunnel {
            Some(tunnel) => {
                tunnel.seal(&frame, &mut sealed);
                &sealed
            }
            None => &frame,
        };
        self.socket.write_all(bytes).expect("the node keeps the connection");
    }

    fn fill(&mut self) {
        let mut piece = [0; 4_096];
        let count = self.socket.read(&mut piece).expect("an answer in time");
        assert!(count > 0, "the node has closed the connection");
        let (decoder, bytes) = (&mut self.decoder, &piece[..count]);
        match &mut self.tunnel {
            Some(tunnel) => decoder.push_with(|plain| tunnel.take(bytes, plain)).expect("the node has the key"),
            None => decoder.push(bytes),
        }
    }

    fn receive(&mut self) -> Packet {
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("a frame of ours") {
                return decode(frame, Capacity::MAX).expect("a packet of ours");
            }
            self.fill();
        }
    }

    /// One round trip.
    fn ask(&mut self) -> Duration {
        let start = Instant::now();
        self.request += 1;
        let mine = self.request;
        let question = RingMessage::GetNextHop { request: mine, target: Id::from_u128(u128::from(mine)) };
        self.send(&Packet::Message(Message::Ring(question)));
        loop {
            match self.receive() {
                Packet::Message(Message::Ring(RingMessage::NextHop { request, .. })) if request == mine => {
                    return start.elapsed();
                }
                // What nodes say of themselves.
                _ => {}
            }
        }
    }
}

fn main() {
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let core = pin_to_one_core();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ring.key");
    RingKeys::create(&path).expect("a file");
    let keys = RingKeys::load(&path).expect("a key");
    let (clear, keyed) =
        (Node::start(None, &[]), Node::start(None, &["--ring-key-file", path.to_str().expect("UTF-8")]));
    clear.wait_created();
    keyed.wait_created();

    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut group = criterion.benchmark_group("tunnel");
    group.bench_function("connect_in_clear", |bencher| bencher.iter(|| Asker::connect(clear.addr, None)));
    group.bench_function("connect_with_key", |bencher| bencher.iter(|| Asker::connect(keyed.addr, Some(&keys))));
    group.finish();
    criterion.final_summary();

    let rounds = if is_test_mode() { 1 } else { ROUNDS };
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let askers = [Asker::connect(clear.addr, None), Asker::connect(keyed.addr, Some(&keys))];
        for (mut asker, times) in askers.into_iter().zip(&mut times) {
            times.extend((0..ASKS_A_ROUND).map(|_| asker.ask()));
        }
    }
    let pinned = if core.is_some() { "one core" } else { "any core" };
    println!("\nround trips on {pinned}, {rounds} alternating rounds of {ASKS_A_ROUND}, µs\n\n            p50     p99");
    let [clear, keyed] = times.map(|mut times| [500, 990].map(|per_mille| micros(quantile(&mut times, per_mille))));
    for (name, of) in [("in clear", clear), ("with key", keyed), ("more", [keyed[0] - clear[0], keyed[1] - clear[1]])] {
        println!("{name:8} {:7.1} {:7.1}", of[0], of[1]);
    }
}
