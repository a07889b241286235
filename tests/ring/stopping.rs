//! How a node ends: in order, in time, or at once.

use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use chordkv::wire::Packet;
use rustix::process::Signal;

use crate::support::peer::{Peer, hello};
use crate::support::{Node, PATIENCE, Process, Reserved, Ring, ring_of, side_by_side};

#[test]
fn the_last_node_ends_with_0_on_sigterm_sigint_and_on_request() {
    let _turn = side_by_side();
    let mut nodes: Vec<Node> =
        (0..3).map(|_| Process::node(&[])).collect::<Vec<_>>().into_iter().map(Process::listening).collect();
    for node in &nodes {
        node.client().put(b"k", b"v").expect("an answer").is(201);
    }
    nodes[0].signal(Signal::TERM);
    nodes[1].signal(Signal::INT);
    nodes[2].client().ask("POST", "/v1/node/leave", &[], b"").expect("an answer").is(202);
    for node in &mut nodes {
        let start = Instant::now();
        node.ends_with(0, PATIENCE);
        assert!(start.elapsed() < Duration::from_secs(3));
    }
}

/// Two nodes of which the second does not answer any more, and that the first has something to hand over to.
fn first_cannot_drain(args: &[&str]) -> Ring {
    let mut ring = ring_of(2, args);
    let mut client = ring.nodes[0].client();
    for n in 0..50 {
        client.put(format!("key-{n}").as_bytes(), b"v").expect("an answer").is(201);
    }
    if ring.wait_settled().nodes[0].keys < 25 {
        ring.nodes.swap(0, 1);
    }
    ring.nodes[1].signal(Signal::STOP);
    ring
}

#[test]
fn a_second_sigterm_ends_a_node_that_cannot_drain_at_once_with_1() {
    let _turn = side_by_side();
    let mut ring = first_cannot_drain(&[]);
    let node = &mut ring.nodes[0];
    node.signal(Signal::TERM);
    node.wait_said("told to stop", 1, PATIENCE);
    node.client().get("/readyz").expect("it still serves").is(503);
    node.client().get("/livez").expect("it still serves").is(200);
    let start = Instant::now();
    node.signal(Signal::TERM);
    let said = node.fails_with(1, &["second signal", "handed over"]);
    assert!(start.elapsed() < Duration::from_secs(1), "{said:?}");
}

#[test]
fn a_node_that_cannot_drain_ends_after_its_drain_timeout_and_says_what_is_lost() {
    let _turn = side_by_side();
    let mut ring = first_cannot_drain(&["--drain-timeout", "200ms"]);
    let node = &mut ring.nodes[0];
    let start = Instant::now();
    node.signal(Signal::TERM);
    node.fails_with(1, &["drain time-out", "keys not handed over"]);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(200) && took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn a_node_whose_only_successor_is_silent_does_not_end_with_0_while_it_has_keys() {
    let _turn = side_by_side();
    let mut ring = first_cannot_drain(&["--drain-timeout", "5s"]);
    let node = &mut ring.nodes[0];
    node.signal(Signal::TERM);
    node.fails_with(1, &["keys had nobody to go to"]);
}

#[test]
fn a_node_that_is_still_looking_for_its_seed_ends_at_once_with_0() {
    let _turn = side_by_side();
    let port = Reserved::port();
    let mut joiner = Node::join(port.addr, &[]);
    joiner.signal(Signal::TERM);
    let start = Instant::now();
    joiner.ends_with(0, PATIENCE);
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_peer_with_two_connections_has_left_once_it_has_said_so_on_both() {
    let _turn = side_by_side();
    let (mut node, own) = (Node::create(&[]), Reserved::port());
    let [mut one, mut other] = [(); 2].map(|()| Peer::greeted(node.peers, own.addr).0);
    one.send(&Packet::Goodbye).expect("it is sent");
    one.stream.shutdown(Shutdown::Write).expect("a connection");
    one.wait_closed();
    other.send(&Packet::Goodbye).expect("it is sent");
    node.wait_said("a member has left", 1, PATIENCE);
    node.signal(Signal::TERM);
    drop(other);
    let said = node.ends_with(0, PATIENCE);
    assert_eq!(said.iter().filter(|line| line.contains("a member has left")).count(), 1, "{said:#?}");
}

#[test]
fn whoever_connects_to_a_leaver_after_its_goodbye_is_not_greeted_without_a_goodbye() {
    let _turn = side_by_side();
    let (mut node, own) = (Node::create(&[]), Reserved::port());
    // It waits a second for this one, who has heard the goodbye and does not close.
    let mut slow = Peer::greeted(node.peers, own.addr).0;
    node.signal(Signal::TERM);
    while !matches!(slow.receive().expect("a goodbye comes"), Packet::Goodbye) {}
    // Unless it is gone by now.
    if let Ok(stream) = TcpStream::connect(node.peers) {
        let mut late = Peer::over(stream);
        let _ = late.send(&Packet::Hello(Box::new(hello(own.addr))));
        if matches!(late.receive(), Some(Packet::Hello(_))) {
            assert!(
                matches!(late.receive(), Some(Packet::Goodbye)),
                "what is asked now is not done: it has to be said"
            );
        }
    }
    drop(slow);
    node.ends_with(0, PATIENCE);
}
