//! Crowds of strangers on both ports at once: users and members do not wait for them.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Client, Node, PATIENCE, Process, Ring, alone, ring_key, ring_of, wait_until};

/// Connections that are open at a time, half of them to peers' ports.
const CROWD: usize = 800;
/// What a user waits for at most, of a hundred requests all but one.
const P99_MAX: Duration = Duration::from_millis(100);
const GROWTH_MAX_KIB: u64 = 16 << 10;
const SPAN: Duration = Duration::from_secs(3);

fn descriptors_of(node: &Node) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.id())).expect("Linux").count()
}

/// One stranger: what it says at once, and then a byte at a time, for ever.
struct Stranger {
    to: SocketAddr,
    begin: &'static [u8],
    drip: &'static [u8],
    stream: Option<TcpStream>,
}

impl Stranger {
    fn at(ring: &Ring, nth: usize) -> Self {
        let node = &ring.nodes[nth % ring.nodes.len()];
        let (to, begin, drip): (_, &[u8], &[u8]) = match nth % 8 {
            0 => (node.peers, b"", b""),
            1 => (node.peers, b"CHKV\x01\x02\x02", b"\0"),
            2 => (node.peers, &[0, 0, 1, 0], &[8]),
            3 => (node.peers, &[0xff; 600], &[0xff]),
            4 => (node.http, b"", b""),
            5 => (node.http, b"GET /v1/kv/a HTTP/1.1\r\nHost: h\r\nX: ", b"x"),
            6 => (node.http, b"PUT /v1/kv/stranger HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n", b"v"),
            _ => (node.http, b"GET / HTTP/2.0\r\n\r\n", b""),
        };
        Self { to, begin, drip, stream: None }
    }

    /// Comes, comes again where it was sent away, or says a little more.
    fn go_on(&mut self) {
        let Some(stream) = &mut self.stream else {
            if let Ok(mut stream) = TcpStream::connect_timeout(&self.to, Duration::from_secs(1)) {
                stream.set_nonblocking(true).expect("a socket");
                let _ = stream.write(self.begin);
                self.stream = Some(stream);
            }
            return;
        };
        let is_over = match stream.read(&mut [0; 1_024]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        if is_over || stream.write(self.drip).is_err_and(|error| error.kind() != ErrorKind::WouldBlock) {
            self.stream = None;
        }
    }
}

/// Puts and gets through every node in turn until told to stop; how long each took.
fn use_it(ring: &Ring, stop: &AtomicBool) -> Vec<Duration> {
    let mut clients: Vec<Client> = ring.clients();
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let count = times.len();
        let (key, at) = (format!("key-{}", count % 100).into_bytes(), count % clients.len());
        let start = Instant::now();
        let answer = if count.is_multiple_of(2) { clients[at].put(&key, b"value") } else { clients[at].read(&key) };
        let status = answer.expect("an answer").status;
        assert!([200, 201, 204, 404].contains(&status), "{status}");
        times.push(start.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    times
}

/// Some of each kind of stranger, on both ports of all nodes.
fn crowds_do_not_matter(args: &[&str]) {
    let ring = ring_of(3, args);
    let crowd = (0..CROWD).map(|nth| Stranger::at(&ring, nth)).collect();
    crowd_does_not_matter(&ring, crowd);
}

fn crowd_does_not_matter(ring: &Ring, mut crowd: Vec<Stranger>) {
    let size = crowd.len();
    let stop = AtomicBool::new(false);
    let before: Vec<(u64, usize)> = ring.nodes.iter().map(|node| (node.resident_kib(), descriptors_of(node))).collect();
    let (mut times, grown) = thread::scope(|scope| {
        let user = scope.spawn(|| use_it(ring, &stop));
        let (start, mut grown) = (Instant::now(), 0);
        while start.elapsed() < SPAN {
            crowd.iter_mut().for_each(Stranger::go_on);
            for (node, (resident, _)) in ring.nodes.iter().zip(&before) {
                grown = grown.max(node.resident_kib().saturating_sub(*resident));
            }
        }
        let open = crowd.iter().filter(|stranger| stranger.stream.is_some()).count();
        assert!(open > size / 2, "only {open} strangers are there");
        stop.store(true, Ordering::Relaxed);
        (user.join().expect("no failed request"), grown)
    });
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    println!("{} requests, p50 {:?}, p99 {p99:?}, {grown} KiB more", times.len(), times[times.len() / 2]);
    assert!(times.len() > 100 && p99 <= P99_MAX, "{} requests, p99 {p99:?}", times.len());
    assert!(grown <= GROWTH_MAX_KIB, "{grown} KiB");

    crowd.clear();
    ring.wait_settled();
    for (node, (_, descriptors)) in ring.nodes.iter().zip(&before) {
        wait_until("the strangers' descriptors are given back", PATIENCE, || descriptors_of(node) <= descriptors + 40);
        let lines = node.said().iter().filter(|line| line.contains("a peer is refused")).count();
        assert!(lines <= 20, "{lines} lines about strangers");
        node.has_not_panicked();
    }
}

/// Puts and gets values of 4 KiB, each over a connection of its own, until told to stop; how long each took.
fn come_and_go(node: &Node, stop: &AtomicBool) -> Vec<Duration> {
    let value = vec![b'v'; 4 << 10];
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let key = format!("key-{}", times.len() / 2 % 50).into_bytes();
        let (start, mut client) = (Instant::now(), node.client());
        let answer = if times.len().is_multiple_of(2) { client.put(&key, &value) } else { client.read(&key) };
        let answer = answer.expect("an answer");
        assert!([200, 201, 204].contains(&answer.status), "{} {}", answer.status, answer.text());
        times.push(start.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    times
}

/// More than all requests may take together is begun, all but the last byte, and again where it was refused.
#[test]
fn requests_that_are_never_whole_take_no_memory_that_others_need() {
    const BODIES: [usize; 3] = [1 << 20, 128 << 10, 12 << 10];
    let _turn = alone();
    let ring = ring_of(1, &[]);
    let node = &ring.nodes[0];
    let (before, stop) = (node.resident_kib(), AtomicBool::new(false));
    let begun = BODIES.map(|body| {
        let head = format!("PUT /v1/kv/stranger HTTP/1.1\r\nHost: h\r\nContent-Length: {body}\r\n\r\n");
        [head.as_bytes(), &vec![b'v'; body - 1]].concat()
    });
    let (mut refused, mut came) = (0, 0);
    let times = thread::scope(|scope| {
        let user = scope.spawn(|| come_and_go(node, &stop));
        let (start, mut crowd) = (Instant::now(), Vec::new());
        while start.elapsed() < SPAN {
            if crowd.len() < 400 {
                let mut stream = TcpStream::connect(node.http).expect("somebody listens");
                let _ = stream.write_all(&begun[came % BODIES.len()]);
                stream.set_nonblocking(true).expect("a socket");
                crowd.push(stream);
                came += 1;
            }
            let held = crowd.len();
            crowd.retain_mut(|stream| stream.read(&mut [0; 1_024]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
            refused += held - crowd.len();
        }
        stop.store(true, Ordering::Relaxed);
        user.join().expect("no failed request")
    });
    let grown = node.resident_kib().saturating_sub(before);
    println!("{} requests, the slowest {:?}, {refused} refused, {grown} KiB more", times.len(), times.iter().max());
    assert!(times.len() > 100 && refused > 50, "{} requests, {refused} refused", times.len());
    assert!(grown <= 80 << 10, "{grown} KiB");
    node.has_not_panicked();
}

/// As many as one node may have descriptors for: the quietest give way.
#[test]
fn a_thousand_slow_or_silent_connections_to_one_node_keep_nobody_waiting() {
    let _turn = alone();
    // This process has to hold them as well.
    let limits = getrlimit(Resource::Nofile);
    let more = limits.maximum.unwrap_or(4_096).min(4_096);
    setrlimit(Resource::Nofile, Rlimit { current: Some(more), ..limits }).expect("up to the maximum one may");
    let node = Process::node_with_descriptors(1_024, &[]).listening();
    let ring = Ring { nodes: vec![node] };
    ring.wait_settled();
    // Users' ports are for the second half of every eight.
    let crowd = (0..2_000).filter(|nth| nth % 8 >= 4).map(|nth| Stranger::at(&ring, nth)).collect();
    crowd_does_not_matter(&ring, crowd);
}

#[test]
fn eight_hundred_strangers_on_both_ports_of_a_ring_without_a_key_keep_nobody_waiting() {
    let _turn = alone();
    crowds_do_not_matter(&[]);
}

#[test]
fn eight_hundred_strangers_on_both_ports_of_a_ring_with_a_key_keep_nobody_waiting() {
    let _turn = alone();
    let dir = tempfile::tempdir().expect("a directory");
    crowds_do_not_matter(&["--ring-key-file", &ring_key(dir.path())]);
}
