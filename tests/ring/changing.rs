//! Nodes come and go in order while clients read and write.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Client, Node, PATIENCE, Process, ring_of, side_by_side, wait_for};

const PRELOADED: usize = 600;

fn preloaded(n: usize) -> Vec<u8> {
    format!("before/{n}").into_bytes()
}

/// What one client did: acknowledged writes, and requests.
#[derive(Default)]
struct Done {
    put: BTreeMap<Vec<u8>, Vec<u8>>,
    reads: usize,
    slowest: Duration,
}

#[test]
fn two_nodes_join_three_and_two_of_those_leave_by_request_and_by_signal_under_load_without_a_failed_read_or_a_lost_key()
{
    let _turn = side_by_side();
    let mut ring = ring_of(3, &[]);
    let mut loader = ring.nodes[1].client();
    for n in 0..PRELOADED {
        loader.put(&preloaded(n), &preloaded(n)).expect("an answer").is(201);
    }
    let (staying, seed) = (ring.nodes[2].http, ring.nodes[0].peers);
    let (over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    // However slow the machine is at the moment: every step meets clients at work.
    let clients_go_on = || {
        let enough = answers.load(Ordering::Relaxed) + 100;
        wait_for("the clients go on", PATIENCE, || (answers.load(Ordering::Relaxed) >= enough).then_some(()));
    };
    let done: Vec<Done> = thread::scope(|scope| {
        // Two clients of nodes that leave move on to one that stays; the third has it from the beginning.
        let clients: Vec<_> = [ring.nodes[0].http, ring.nodes[1].http, staying]
            .into_iter()
            .enumerate()
            .map(|(me, first)| (me, first, &over, &answers))
            .map(|(me, first, over, answers)| scope.spawn(move || load(me, first, staying, over, answers)))
            .collect();
        // Whatever fails below must also end the clients.
        let _over = OverWhenDropped(&over);

        clients_go_on();
        let joiners: Vec<Process> = (0..2).map(|_| Process::node(&["--join", &seed.to_string()])).collect();
        ring.nodes.extend(joiners.into_iter().map(Process::listening));
        ring.wait_settled();
        clients_go_on();

        let mut creator = ring.nodes.remove(0);
        creator.client().ask("POST", "/v1/node/leave", &[], b"").expect("an answer").is(202);
        creator.ends_with(0, PATIENCE);
        let mut second = ring.nodes.remove(0);
        second.signal(Signal::TERM);
        second.ends_with(0, PATIENCE);
        ring.wait_settled();
        clients_go_on();
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().expect("no request failed")).collect()
    });
    let reads: Vec<usize> = done.iter().map(|done| done.reads).collect();
    assert!(reads.iter().sum::<usize>() > 100 && reads.iter().all(|reads| *reads > 0), "no load: {reads:?}");
    // At most the time that a leaver gives its users to get their last answers, see `load`.
    assert!(done.iter().all(|done| done.slowest < Duration::from_secs(2)), "somebody was held up");
    let mut expected: BTreeMap<Vec<u8>, Vec<u8>> = (0..PRELOADED).map(|n| (preloaded(n), preloaded(n))).collect();
    expected.extend(done.into_iter().flat_map(|done| done.put));
    for node in &ring.nodes {
        let mut client = node.client();
        for (key, value) in &expected {
            let answer = client.read(key).expect("an answer");
            assert_eq!(&answer.is(200).body, value, "{}", String::from_utf8_lossy(key));
        }
        node.has_not_panicked();
    }
    let report = ring.wait_settled();
    assert_eq!(report.nodes.iter().map(|node| node.keys).sum::<u64>(), 3 * expected.len() as u64);
}

struct OverWhenDropped<'a>(&'a AtomicBool);

impl Drop for OverWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads and writes until it is over. A node that is gone is no failure of the ring: the client goes to another.
fn load(me: usize, first: SocketAddr, other: SocketAddr, over: &AtomicBool, answers: &AtomicUsize) -> Done {
    let (mut done, mut at) = (Done::default(), first);
    let mut client = Client::new(first);
    for n in 0_usize.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let key =
            if n % 4 == 0 { format!("during/{me}/{}", n % 80).into_bytes() } else { preloaded(n * 7 % PRELOADED) };
        let value = format!("{n} by {me}").into_bytes();
        let start = Instant::now();
        let answer = if n % 4 == 0 { client.put(&key, &value) } else { client.read(&key) };
        done.slowest = done.slowest.max(start.elapsed());
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                assert_ne!(at, other, "a node that stays does not answer: {error}");
                at = other;
                client = Client::new(at);
                if n % 4 == 0 {
                    // Perhaps it was put; only what is acknowledged afterwards counts.
                    client.put(&key, &value).expect("an answer")
                } else {
                    client.read(&key).expect("an answer")
                }
            }
        };
        if n % 4 == 0 {
            assert!(matches!(answer.status, 201 | 204), "a failed write through {at}: {answer:?}");
            done.put.insert(key, value);
        } else {
            assert_eq!(answer.is(200).body, key, "a wrong read through {at}");
            done.reads += 1;
        }
        answers.fetch_add(1, Ordering::Relaxed);
    }
    done
}

#[test]
fn a_ring_shrinks_from_five_to_one_node_by_node_and_the_last_has_every_key() {
    let _turn = side_by_side();
    let mut ring = ring_of(5, &[]);
    let mut client = ring.nodes[0].client();
    for n in 0..200 {
        client.put(&preloaded(n), &preloaded(n)).expect("an answer").is(201);
    }
    while ring.nodes.len() > 1 {
        let mut leaver = ring.nodes.remove(0);
        leaver.signal(Signal::INT);
        let said = leaver.ends_with(0, PATIENCE);
        assert!(said.iter().any(|line| line.contains("leaving the ring")));
        ring.wait_settled();
    }
    let mut client = ring.nodes[0].client();
    for n in 0..200 {
        assert_eq!(client.read(&preloaded(n)).expect("an answer").is(200).body, preloaded(n));
    }
    assert_eq!(ring.wait_settled().nodes[0].keys, 200);
}

#[test]
fn two_of_two_that_leave_at_the_same_time_both_end() {
    let _turn = side_by_side();
    let mut ring = ring_of(2, &["--drain-timeout", "5s"]);
    ring.nodes.iter().for_each(|node| node.signal(Signal::TERM));
    for node in &mut ring.nodes {
        let (code, said) = node.ended(Duration::from_secs(10));
        assert_eq!(code, Some(0), "{said:#?}");
    }
}

#[test]
fn a_child_whose_starter_is_gone_leaves_in_order() {
    let _turn = side_by_side();
    let mut ring = ring_of(2, &[]);
    ring.nodes[0].client().put(b"k", b"v").expect("an answer").is(201);
    let mut orphan: Node = ring.nodes.remove(0);
    orphan.close_stdin();
    orphan.ends_with(0, PATIENCE);
    ring.wait_settled();
    assert_eq!(ring.nodes[0].client().read(b"k").expect("an answer").is(200).body, b"v");
}
