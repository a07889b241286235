//! Nodes that end without a word, and come back.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;

use crate::support::{
    Client, Node, PATIENCE, Process, Reserved, Ring, ring::wait_settled, ring_of, side_by_side, wait_until,
};

/// A ring of five, and the reserved port of the last.
fn five_with_one_on_a_reserved_port() -> (Ring, Reserved) {
    let mut ring = ring_of(4, &[]);
    let port = Reserved::port();
    ring.nodes.push(Node::join(ring.nodes[0].peers, &["--listen", &port.addr.to_string()]));
    ring.wait_settled();
    (ring, port)
}

fn put_all(client: &mut Client, count: usize) {
    for n in 0..count {
        let answer = client.put(format!("key-{n}").as_bytes(), b"v").expect("an answer");
        assert!(matches!(answer.status, 201 | 204), "{answer:?}");
    }
}

#[test]
fn one_of_five_killed_is_replaced_in_every_slot_within_seconds_and_joins_again_at_its_address() {
    let _turn = side_by_side();
    let (mut ring, port) = five_with_one_on_a_reserved_port();
    put_all(&mut ring.nodes[1].client(), 200);
    let mut killed = ring.nodes.pop().expect("five nodes");
    killed.kill();
    for node in &ring.nodes {
        wait_settled(node.http, 4, Duration::from_secs(12));
    }
    put_all(&mut ring.nodes[2].client(), 200);
    for n in 0..200 {
        ring.nodes[0].client().read(format!("key-{n}").as_bytes()).expect("an answer").is(200);
    }
    ring.nodes.push(Node::join(ring.nodes[0].peers, &["--listen", &port.addr.to_string()]));
    ring.wait_settled();
    for n in 0..200 {
        ring.nodes[4].client().read(format!("key-{n}").as_bytes()).expect("an answer").is(200);
    }
    ring.nodes.iter().for_each(|node| node.has_not_panicked());
}

#[test]
fn one_of_five_killed_and_restarted_at_once_is_let_in_again() {
    let _turn = side_by_side();
    let (mut ring, port) = five_with_one_on_a_reserved_port();
    ring.nodes.pop().expect("five nodes").kill();
    ring.nodes.push(Node::join(ring.nodes[0].peers, &["--listen", &port.addr.to_string()]));
    ring.wait_settled();
    put_all(&mut ring.nodes[4].client(), 100);
    ring.nodes.iter().for_each(|node| node.has_not_panicked());
}

#[test]
fn the_creator_killed_is_no_more_missed_than_any_other() {
    let _turn = side_by_side();
    let mut ring = ring_of(3, &[]);
    ring.nodes.remove(0).kill();
    ring.wait_settled();
    ring.nodes.push(Node::join(ring.nodes[0].peers, &[]));
    ring.wait_settled();
    put_all(&mut ring.nodes[2].client(), 100);
}

#[test]
fn one_of_three_that_is_stopped_for_a_while_holds_nobody_up_for_long_and_serves_again_when_it_goes_on() {
    let _turn = side_by_side();
    let ring = ring_of(3, &["--request-timeout", "3s"]);
    put_all(&mut ring.nodes[0].client(), 50);
    ring.wait_settled();
    ring.nodes[1].signal(Signal::STOP);
    // Two of three hold every key: whatever the stopped one coordinates is had from the others. Until it is noticed time-outs
    // pass that were learned while slots moved, and those are long on a busy machine.
    let mut client = ring.nodes[0].client();
    let read = |n: u32| {
        let start = Instant::now();
        client.read(format!("key-{n}").as_bytes()).expect("an answer").is(200);
        start.elapsed()
    };
    let slow: Vec<Duration> = (0..50).map(read).filter(|took| *took >= Duration::from_secs(1)).collect();
    assert!(slow.len() <= 2, "{slow:?}");
    put_all(&mut client, 50);
    ring.nodes[1].signal(Signal::CONT);
    for node in &ring.nodes {
        wait_settled(node.http, 3, PATIENCE);
    }
    for n in 0..50 {
        ring.nodes[2].client().read(format!("key-{n}").as_bytes()).expect("an answer").is(200);
    }
    put_all(&mut ring.nodes[1].client(), 50);
    ring.nodes.iter().for_each(|node| node.has_not_panicked());
}

#[test]
fn without_a_majority_any_copy_can_still_be_read_and_the_missing_are_named() {
    let _turn = side_by_side();
    let ring = ring_of(3, &["--request-timeout", "2s"]);
    put_all(&mut ring.nodes[0].client(), 20);
    ring.wait_settled();
    for node in &ring.nodes[1..] {
        node.signal(Signal::STOP);
    }
    let mut client = ring.nodes[0].client();
    // Once it is known that they do not answer.
    wait_until("the missing are named", PATIENCE, || {
        let answer = client.read(b"key-0").expect("an answer");
        answer.is_problem(503, "unavailable");
        ring.nodes[1..].iter().all(|node| answer.text().contains(&node.peers.to_string()))
    });
    let start = Instant::now();
    for n in 0..20 {
        let any = client.get(&format!("/v1/kv/key-{n}?consistency=stale")).expect("an answer");
        assert_eq!(any.is(200).field("x-chord-stale-age"), Some("unknown"));
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    client.get("/v1/kv/nothing?consistency=stale").expect("an answer").is_problem(404, "key_not_found");
    for node in &ring.nodes[1..] {
        node.signal(Signal::CONT);
    }
    for node in &ring.nodes {
        wait_settled(node.http, 3, PATIENCE);
    }
    put_all(&mut client, 20);
}

/// Votes that nobody gives are waited for, and slots for which too few vote left alone for seconds. A leaver that takes
/// longer than its drain time-out, half of this, ends with 1.
const MOVES_WITH_ONE_DEAD: Duration = Duration::from_secs(60);

#[test]
fn a_node_with_a_data_directory_finds_its_ring_again_though_every_seed_is_dead() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let mut ring = ring_of(3, &[]);
    let seed = ring.nodes[0].peers.to_string();
    let dir_flags = ["--data-dir", dir.path().to_str().expect("UTF-8"), "--replace-after", "2s"];
    let flags = [&["--join", &seed], &dir_flags[..]].concat();
    let mut with_dir = Process::node(&flags).listening();
    let kept = dir.path().join("store.db");
    let survivor = ring.nodes[2].peers.to_string();
    wait_until("the others are written down", PATIENCE, || {
        // Anew each time, and never made here: the node makes it once it knows its ring.
        let store = Connection::open_with_flags(&kept, OpenFlags::SQLITE_OPEN_READ_ONLY);
        let text = store.and_then(|store| {
            store.query_row("SELECT value FROM meta WHERE name = 'ring'", [], |row| row.get::<_, String>(0))
        });
        text.is_ok_and(|text| text.contains(&survivor))
    });
    // Its part of the slots has arrived: what is killed is a member, and no handover.
    wait_settled(ring.nodes[2].http, 4, MOVES_WITH_ONE_DEAD);
    with_dir.kill();
    // In order, as their keys are in memory: where members have disks, nobody replaces them for a minute.
    for _ in 0..2 {
        let mut seed = ring.nodes.remove(0);
        seed.signal(Signal::TERM);
        seed.ends_with(0, MOVES_WITH_ONE_DEAD);
    }
    ring.nodes.push(Process::node(&flags).listening());
    for node in &ring.nodes {
        wait_settled(node.http, ring.nodes.len(), MOVES_WITH_ONE_DEAD);
    }
    put_all(&mut ring.nodes[1].client(), 20);
    ring.nodes.iter().for_each(|node| node.has_not_panicked());
}
