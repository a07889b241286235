//! A ring with a key: its nodes are one ring, and whoever has not the key gets nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chordkv::base::Incarnation;
use chordkv::driver::ring_key::{Identity, RingKeys};
use chordkv::driver::tunnel::{Credentials, Tunnel};
use chordkv::node::Message;
use chordkv::overlay::RingMessage;
use chordkv::wire::{Hello, Packet};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::peer::{bytes_of, hello};
use crate::support::{Node, PATIENCE, Process, Ring, ring_of, side_by_side, wait_until};

/// Files with keys.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Made by the program.
    fn make(&self, name: &str) -> String {
        let path = self.path(name);
        let said = Process::run(&["keygen", text(&path)]).ends_with(0, PATIENCE);
        assert!(said.len() == 1 && said[0].contains("to nobody else"), "{said:?}");
        text(&path).to_owned()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a name in UTF-8")
}

fn ring_with_key(size: usize, key: &str) -> Ring {
    ring_of(size, &["--ring-key-file", key])
}

/// Somebody at a node's door, with this key and a key of its own.
struct Insider {
    stream: TcpStream,
    tunnel: Tunnel,
    identity: Identity,
}

impl Insider {
    fn at(node: SocketAddr, key: &str) -> Self {
        let identity = Identity::draw().expect("random numbers");
        let keys = RingKeys::load(Path::new(key)).expect("a key");
        let tunnel = Tunnel::dial(Arc::new(Credentials { keys, identity: identity.clone() }), None);
        let stream = TcpStream::connect(node).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Self { stream, tunnel, identity }
    }

    fn send_replies(&mut self) -> Vec<u8> {
        let bytes = self.tunnel.take_replies();
        self.stream.write_all(&bytes).expect("it is sent");
        bytes
    }

    /// Ends the handshake.
    fn opened(mut self) -> Self {
        self.send_replies();
        let mut answer = [0; 96];
        self.stream.read_exact(&mut answer).expect("the second message");
        self.tunnel.take(&answer, &mut Vec::new()).expect("it has the key");
        self.send_replies();
        assert!(self.tunnel.is_open());
        self
    }

    fn say(&mut self, packet: &Packet) {
        let mut sealed = Vec::new();
        self.tunnel.seal(&bytes_of(packet), &mut sealed);
        self.stream.write_all(&sealed).expect("it is sent");
    }
}

/// What a node says before it closes the connection.
fn rest_of(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    // With bytes of ours unread the connection is reset.
    let _ = stream.read_to_end(&mut said);
    said
}

fn refusals(node: &Node) -> Vec<String> {
    node.said().into_iter().filter(|line| line.contains("a peer is refused")).collect()
}

#[test]
fn nodes_with_the_key_are_one_ring_and_what_they_send_cannot_be_read() {
    let _turn = side_by_side();
    let keys = Keys::new();
    let key = keys.make("ring.key");
    let ring = ring_with_key(4, &key);
    let mut clients = ring.clients();
    for n in 0..40_usize {
        let name = format!("key-{n}").into_bytes();
        clients[n % 4].put(&name, &name).expect("an answer").is(201);
        assert_eq!(clients[(n + 1) % 4].read(&name).expect("an answer").is(200).body, name);
    }
    // Large values are many records.
    let large = vec![7; 900_000];
    clients[0].put(b"large", &large).expect("an answer").is(201);
    assert_eq!(clients[3].read(b"large").expect("an answer").is(200).body, large);
    for node in &ring.nodes {
        assert_eq!(refusals(node), Vec::<String>::new());
    }
}

#[test]
fn a_node_with_a_key_and_a_directory_comes_back_as_the_same_member() {
    let _turn = side_by_side();
    let (keys, data) = (Keys::new(), tempfile::tempdir().expect("a directory"));
    let key = keys.make("ring.key");
    let dir = text(data.path()).to_owned();
    let args = ["--ring-key-file", key.as_str(), "--data-dir", dir.as_str()];
    let mut node = Node::create(&args);
    node.wait_ready();
    node.client().put(b"k", b"v").expect("an answer").is(201);
    let store = fs::read_dir(data.path()).expect("a directory").filter_map(Result::ok).map(|entry| entry.path());
    for file in store.filter(|path| path.extension().is_some()) {
        let mode = fs::metadata(&file).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file:?} has the node's key and its values");
    }
    node.kill();
    let node = Node::create(&args);
    node.wait_ready();
    node.client().read(b"k").expect("an answer").is(200);
}

#[test]
fn strangers_get_no_answer_one_line_each_and_change_nothing() {
    let _turn = side_by_side();
    let keys = Keys::new();
    let (key, other) = (keys.make("ring.key"), keys.make("other.key"));
    let ring = ring_with_key(3, &key);
    let node = &ring.nodes[0];
    let before = (ring.wait_settled(), node.resident_kib());

    let plain_hello = bytes_of(&Packet::Hello(Box::new(hello(ring.nodes[1].peers))));
    let later = {
        let mut bytes = Insider::at(node.peers, &key).tunnel.take_replies();
        (bytes[5], bytes[6]) = (200, 250);
        bytes
    };
    let wrong_key = Insider::at(node.peers, &other).tunnel.take_replies();
    let firsts: [(&str, &[u8], &str); 6] = [
        ("no key", &plain_hello, "uses no ring key"),
        ("text", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "uses no ring key"),
        ("garbage", &[0xff; 4_000], "uses no ring key"),
        ("a wrong key", &wrong_key, "another ring key"),
        ("another protocol", &later, "another version"),
        ("a wrong key again", &wrong_key, "another ring key"),
    ];
    for (what, bytes, _) in firsts {
        let mut stream = TcpStream::connect(node.peers).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.write_all(bytes).expect("it is sent");
        assert_eq!(rest_of(&mut stream), Vec::<u8>::new(), "{what} is answered");
    }
    // A first message of a member, played again by somebody who read it on its way, and nothing after it.
    let mut member = Insider::at(node.peers, &key);
    let first = member.send_replies();
    let mut replayed = TcpStream::connect(node.peers).expect("a connection");
    replayed.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    replayed.write_all(&first).expect("it is sent");
    replayed.read_exact(&mut [0; 96]).expect("the second message, which only the member can go on from");
    replayed.write_all(&[0x55; 64]).expect("it is sent");
    assert_eq!(rest_of(&mut replayed), Vec::<u8>::new());
    // Half a handshake, dripped, and one that its author does not end.
    let mut half = TcpStream::connect(node.peers).expect("a connection");
    half.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    half.write_all(&first[..30]).expect("it is sent");
    assert_eq!(rest_of(&mut half), Vec::<u8>::new());
    assert_eq!(rest_of(&mut member.stream).len(), 96);

    for says in ["uses no ring key", "another ring key", "another version", "does not end its handshake"] {
        wait_until(says, PATIENCE, || refusals(node).iter().any(|line| line.contains(says)));
        assert_eq!(
            refusals(node).iter().filter(|line| line.contains(says)).count(),
            1,
            "{says}: {:#?}",
            refusals(node)
        );
    }
    for _ in 0..500 {
        let mut stream = TcpStream::connect(node.peers).expect("a connection");
        stream.write_all(&wrong_key).expect("it is sent");
        assert_eq!(rest_of(&mut stream), Vec::<u8>::new());
    }
    let grown = node.resident_kib().saturating_sub(before.1);
    assert!(grown < 2 << 10, "{grown} KiB for strangers who are gone");
    let after = ring.wait_settled();
    let addrs = |report: &chordkv::node::report::RingReport| {
        report.nodes.iter().map(|node| node.addr.clone()).collect::<Vec<_>>()
    };
    assert_eq!(addrs(&after), addrs(&before.0));
    assert!(refusals(node).len() < 12, "{:#?}", refusals(node));
    for node in &ring.nodes {
        node.has_not_panicked();
    }
}

#[test]
fn with_the_key_a_node_speaks_for_itself_only() {
    let _turn = side_by_side();
    let keys = Keys::new();
    let key = keys.make("ring.key");
    let ring = ring_with_key(2, &key);
    let victim = ring.nodes[1].peers;
    let spoofed = Hello { incarnation: Incarnation(7 << 64), ..hello(victim) };
    let mut insider = Insider::at(ring.nodes[0].peers, &key).opened();
    insider.say(&Packet::Hello(Box::new(spoofed)));
    insider.say(&Packet::Message(Message::Ring(RingMessage::Notify)));
    assert_eq!(rest_of(&mut insider.stream), Vec::<u8>::new(), "it is not greeted");
    ring.nodes[0].wait_said("whose key it does not have", 1, PATIENCE);

    // Who it is it may say.
    let mut insider = Insider::at(ring.nodes[0].peers, &key).opened();
    let own = TcpStream::connect(victim).expect("a connection").local_addr().expect("an address");
    let honest = Hello { incarnation: insider.identity.incarnation(), ..hello(own) };
    insider.say(&Packet::Hello(Box::new(honest)));
    insider.stream.shutdown(Shutdown::Write).expect("it ends");
    let mut plain = Vec::new();
    insider.tunnel.take(&rest_of(&mut insider.stream), &mut plain).expect("records");
    assert!(!plain.is_empty(), "it is greeted");
    ring.wait_settled();
}

#[test]
fn whoever_joins_without_the_key_or_with_another_is_told_why_it_cannot() {
    let _turn = side_by_side();
    let keys = Keys::new();
    let (key, other) = (keys.make("ring.key"), keys.make("other.key"));
    let (locked, open) = (ring_with_key(1, &key), ring_of(1, &[]));
    let join = |ring: &Ring, args: &[&str]| {
        let seed = ring.nodes[0].peers.to_string();
        Process::node(&[&["--join", &seed], args].concat())
    };
    let cases = [
        (join(&locked, &[]), "its ring may have a key, and this node was given none (--ring-key-file)"),
        (join(&locked, &["--ring-key-file", &other]), "it has another ring key, or none (--ring-key-file)"),
        (join(&open, &["--ring-key-file", &key]), "it has another ring key, or none (--ring-key-file)"),
    ];
    for (process, says) in cases {
        process.wait_said(says, 1, PATIENCE);
    }
    Process::node(&["--ring-key-file", "/nowhere/ring.key"])
        .fails_with(1, &["--ring-key-file /nowhere/ring.key", "read"]);
    let shared = keys.path("shared.key");
    fs::copy(&key, &shared).expect("a copy");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o644)).expect("a mode");
    Process::node(&["--ring-key-file", text(&shared)]).fails_with(1, &["chmod 600"]);
    Process::run(&["keygen", &key]).ends_with(1, PATIENCE);
}

#[test]
fn the_key_is_changed_without_a_pause() {
    let _turn = side_by_side();
    let keys = Keys::new();
    let (old, new) = (keys.make("old.key"), keys.make("new.key"));
    let [old_text, new_text] = [&old, &new].map(|path| fs::read_to_string(path).expect("a key"));
    let files = ["1", "2", "3"].map(|name| {
        let path = keys.path(name);
        fs::copy(&old, &path).expect("a copy");
        text(&path).to_owned()
    });
    let first = Node::create(&["--ring-key-file", &files[0]]);
    let seed = first.peers;
    let join = |file: &String| Node::join(seed, &["--ring-key-file", file]);
    let mut ring = Ring { nodes: vec![first, join(&files[1]), join(&files[2])] };
    ring.wait_settled();
    let mut clients = ring.clients();
    let mut count = 0;
    let mut serves = || {
        for client in &mut clients {
            count += 1;
            client.put(format!("key-{count}").as_bytes(), b"v").expect("an answer").is(201);
        }
    };
    let both = [[old_text.clone(), new_text.clone()], [new_text.clone(), old_text]].map(|keys| keys.concat());
    for (round, step) in both.into_iter().chain([new_text]).enumerate() {
        for (node, file) in ring.nodes.iter().zip(&files) {
            fs::write(file, &step).expect("a key");
            node.signal(Signal::HUP);
            node.wait_said("the ring key was read again", round + 1, PATIENCE);
            serves();
        }
    }
    // The old one counts no more, the new one does, and everything is still there.
    let late = Process::node(&["--join", &seed.to_string(), "--ring-key-file", &old]);
    late.wait_said("another ring key", 1, PATIENCE);
    drop(late);
    ring.nodes.push(Node::join(seed, &["--ring-key-file", &new]));
    ring.wait_settled();
    let mut client = ring.nodes[3].client();
    for n in 1..=count {
        client.read(format!("key-{n}").as_bytes()).expect("an answer").is(200);
    }
    // A file that makes no sense changes nothing.
    fs::write(&files[0], "nonsense").expect("it is written");
    ring.nodes[0].signal(Signal::HUP);
    ring.nodes[0].wait_said("the ring key stays as it was", 1, PATIENCE);
    ring.wait_settled();
}
