//! What cannot work is said in one clear line, with the right exit code, and nothing is half-started.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use chordkv::base::{Capacity, Contact, Id};
use chordkv::wire::{Hello, Packet, RefusalCode};
use rustix::process::Signal;

use crate::support::peer::{Peer, answering, bytes_of, hello};
use crate::support::{Node, PATIENCE, Process, Reserved, Ring, ring::wait_settled, side_by_side};

/// Nobody listens there any more.
fn is_free(addr: SocketAddr) -> bool {
    TcpListener::bind(addr).is_ok()
}

#[test]
fn a_joiner_that_insists_on_other_parameters_ends_with_1_and_the_ring_does_not_notice() {
    let _turn = side_by_side();
    let seed = Node::create(&["--capacity", "32", "--max-value", "1000"]);
    for (flag, wish, has) in [("--capacity", "160", "32"), ("--replicas", "5", "3"), ("--max-value", "2000", "1000")] {
        let http = Reserved::port();
        let own = http.addr.to_string();
        let mut joiner = Process::node(&["--join", &seed.peers.to_string(), flag, wish, "--http", &own]);
        let says = [seed.peers.to_string(), format!("{flag} {has}, not {wish}"), format!("leave {flag} out")];
        joiner.fails_with(1, &says.each_ref().map(String::as_str));
        assert!(is_free(http.addr));
    }
    wait_settled(seed.http, 1, PATIENCE);
    let same = Node::join(seed.peers, &["--capacity", "32"]);
    wait_settled(same.http, 2, PATIENCE);
}

#[test]
fn a_taken_port_is_named_and_the_other_one_is_given_back() {
    let _turn = side_by_side();
    let node = Node::create(&[]);
    let other = Reserved::port();
    let (peers, http, free) = (node.peers.to_string(), node.http.to_string(), other.addr.to_string());
    let said = Process::node(&["--listen", &peers, "--http", &free]).fails_with(1, &[&peers, "in use", "--listen"]);
    assert_eq!(said.len(), 1, "{said:?}");
    let said = Process::node(&["--listen", &free, "--http", &http]).fails_with(1, &[&http, "in use", "--http"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(is_free(other.addr));
    let said = Process::node(&["--listen", "192.0.2.1:4000", "--insecure"])
        .fails_with(1, &["192.0.2.1:4000", "not an address of"]);
    assert_eq!(said.len(), 1, "{said:?}");
    wait_settled(node.http, 1, PATIENCE);
}

#[test]
fn make_ring_on_the_ports_of_a_running_ring_says_so_and_does_not_show_that_one_as_its_own() {
    let _turn = side_by_side();
    let node = Node::create(&[]);
    let dir = tempfile::tempdir().expect("a directory");
    let output = std::process::Command::new("sh")
        .args(["scripts/ring.sh", env!("CARGO_BIN_EXE_chordkv"), "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PEER_PORT", node.peers.port().to_string())
        .env("HTTP_PORT", node.http.port().to_string())
        .env("RING_DIR", dir.path().join("ring"))
        .output()
        .expect("a shell");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("node 1 did not start") && said.contains("in use"), "{said}");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
}

#[test]
fn wrong_usage_ends_with_2_before_anything_is_opened() {
    let _turn = side_by_side();
    for args in [&["--frobnicate"][..], &["--capacity", "0"], &["--join", "nowhere"]] {
        let said = Process::node(args).ends_with(2, PATIENCE);
        assert!(!said.iter().any(|line| line.contains("listening")), "{said:?}");
    }
}

#[test]
fn a_node_that_is_told_to_join_only_itself_ends_with_1() {
    let _turn = side_by_side();
    let own = Reserved::port();
    let addr = own.addr.to_string();
    let said = Process::node(&["--listen", &addr, "--join", &addr]).fails_with(1, &[&addr, "--join", "only this node"]);
    assert!(!said.iter().any(|line| line.contains("listening")), "{said:?}");
    assert!(is_free(own.addr));
}

/// Ports whose nodes have the same id in a ring of two ids.
fn twins(count: usize) -> Vec<Reserved> {
    let mut sides = [Vec::new(), Vec::new()];
    loop {
        let port = Reserved::port();
        let side = usize::from(id_of_two(port.addr) == id_of_two(SocketAddr::from(([127, 0, 0, 1], 4_000))));
        sides[side].push(port);
        if sides[side].len() == count {
            return sides.into_iter().nth(side).expect("two sides");
        }
    }
}

fn id_of_two(addr: SocketAddr) -> Id {
    Contact::id_of(Capacity::new(1).expect("a capacity"), addr)
}

/// A node at `port` is refused by the ring of `seed`, as `holder` has its id.
fn is_refused_as_twin(port: &Reserved, seed: SocketAddr, holder: SocketAddr) {
    let mut process = Process::node(&["--listen", &port.addr.to_string(), "--join", &seed.to_string()]);
    process.fails_with(1, &["id", &holder.to_string(), "--capacity"]);
    assert!(is_free(port.addr));
}

#[test]
fn a_joiner_with_the_id_of_the_only_member_is_told_whose_it_is() {
    let _turn = side_by_side();
    let ports = twins(3);
    let member = Node::create(&["--listen", &ports[0].addr.to_string(), "--capacity", "1"]);
    for port in &ports[1..] {
        is_refused_as_twin(port, member.peers, member.peers);
    }
    wait_settled(member.http, 1, PATIENCE);
}

#[test]
fn a_joiner_with_the_id_of_another_member_is_told_whose_it_is_and_does_not_disturb_the_ring() {
    let _turn = side_by_side();
    let ports = twins(3);
    let other = loop {
        let port = Reserved::port();
        if id_of_two(port.addr) != id_of_two(ports[0].addr) {
            break port;
        }
    };
    let creator = Node::create(&["--listen", &ports[0].addr.to_string(), "--capacity", "1"]);
    let second = Node::join(creator.peers, &["--listen", &other.addr.to_string()]);
    let ring = Ring { nodes: vec![creator, second] };
    ring.wait_settled();
    for port in &ports[1..] {
        for seed in &ring.nodes {
            is_refused_as_twin(port, seed.peers, ring.nodes[0].peers);
        }
    }
    ring.wait_settled();
}

#[test]
fn a_seed_that_is_no_chordkv_node_is_said_to_be_so_and_tried_again() {
    let _turn = side_by_side();
    let huge = [&u32::MAX.to_be_bytes()[..], b"and more"].concat();
    let answers = [b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), b"\0\0\0\x02hi".to_vec(), huge, Vec::new()];
    for (answer, reason) in answers.into_iter().zip(["no chordkv node", "no chordkv node", "no chordkv node", "closed"])
    {
        let seed = answering(answer).to_string();
        let mut joiner = Node::join(seed.parse().expect("an address"), &[]);
        let line = joiner.wait_said("cannot join through", 2, PATIENCE);
        assert!(line.contains(&seed) && line.contains(reason) && line.contains("trying again in"), "{line}");
        joiner.client().get("/readyz").expect("an answer").is(503);
        joiner.client().read(b"k").expect("an answer").is_problem(503, "not_serving");
        joiner.signal(Signal::TERM);
        joiner.ends_with(0, PATIENCE);
        assert!(is_free(joiner.peers) && is_free(joiner.http));
    }
}

#[test]
fn a_seed_without_a_common_protocol_version_is_no_use_and_is_named() {
    let _turn = side_by_side();
    let future = |addr| Hello { protocol: (7, 9), software: "9.0".into(), ..hello(addr) };
    let own = Reserved::port();
    let seed = answering(bytes_of(&Packet::Hello(Box::new(future(own.addr)))));
    let mut joiner = Process::node(&["--join", &seed.to_string()]);
    joiner.fails_with(1, &["no common protocol version", "7 to 9", "upgrade"]);
}

#[test]
fn a_peer_without_a_common_protocol_version_is_refused_with_the_reason() {
    let _turn = side_by_side();
    let node = Node::create(&[]);
    let own = Reserved::port();
    let mut peer = Peer::connect(node.peers);
    let future = Hello { protocol: (7, 9), software: "9.0".into(), ..hello(own.addr) };
    peer.send(&Packet::Hello(Box::new(future))).expect("it is sent");
    let Some(Packet::Refusal(refusal)) = peer.receive() else { panic!("no refusal") };
    assert_eq!(refusal.code, RefusalCode::Version);
    for part in ["no common protocol version", "7 to 9", &own.addr.to_string(), &node.peers.to_string()] {
        assert!(refusal.reason.contains(part), "{}", refusal.reason);
    }
    peer.wait_closed();
    wait_settled(node.http, 1, PATIENCE);
}

#[test]
fn a_member_of_another_ring_is_refused_with_the_reason() {
    let _turn = side_by_side();
    let (one, other) = (Node::create(&[]), Node::create(&[]));
    let own = Reserved::port();
    let (_, params) = Peer::greeted(other.peers, own.addr);
    let mut peer = Peer::connect(one.peers);
    peer.send(&Packet::Hello(Box::new(Hello { ring: Some(params), ..hello(own.addr) }))).expect("it is sent");
    let Some(Packet::Refusal(refusal)) = peer.receive() else { panic!("no refusal") };
    assert_eq!(refusal.code, RefusalCode::Ring);
    assert!(refusal.reason.contains(&format!("{:032x}", params.ring)), "{}", refusal.reason);
    peer.wait_closed();
}

#[test]
fn an_unreachable_seed_is_tried_again_and_said_so_until_it_appears() {
    let _turn = side_by_side();
    let port = Reserved::port();
    let seed = port.addr.to_string();
    let joiner = Node::join(port.addr, &[]);
    for count in 1..=3 {
        let line = joiner.wait_said("cannot join through", count, PATIENCE);
        assert!(line.contains(&seed) && line.contains("nobody listens there") && line.contains("trying again in"));
    }
    assert!(
        joiner
            .client()
            .get("/readyz")
            .expect("an answer")
            .is(503)
            .body
            .windows(seed.len())
            .any(|w| w == seed.as_bytes())
    );
    joiner.client().get("/livez").expect("an answer").is(200);
    let ring = Ring { nodes: vec![Node::create(&["--listen", &seed]), joiner] };
    ring.nodes[1].wait_ready();
    ring.wait_settled();
    ring.nodes[1].wait_said("joined the ring", 1, Duration::from_secs(1));
}

#[test]
fn a_data_directory_in_use_or_unwritable_is_named_and_nothing_is_left_running() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("UTF-8");
    let _first = Node::create(&["--data-dir", path]);
    Process::node(&["--data-dir", path]).fails_with(1, &["--data-dir", path, "another process uses it"]);
    let file = dir.path().join("lock");
    let file = file.to_str().expect("UTF-8");
    Process::node(&["--data-dir", file]).fails_with(1, &["--data-dir", file, "name a directory"]);
}
