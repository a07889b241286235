//! What is put through one node is there for all: keys, conditions, expiry, listings, documents.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chordkv::node::report::{NodeReport, RingReport, TraceReport};
use serde_json::Value;

use crate::support::{Client, PATIENCE, Ring, ring_of, segment, side_by_side, wait_for, wait_until};

const KEYS: usize = 2_000;
const SLOTS: u32 = 1_024;

/// Every third key with slashes, every third with bytes that are no text.
fn key(n: usize) -> Vec<u8> {
    match n % 3 {
        0 => format!("plain-{n:05}").into_bytes(),
        1 => format!("dir/{n:05}/leaf").into_bytes(),
        _ => [&[0, 0xff, b'%', b'?', b'#', b'+', b' '], n.to_string().as_bytes()].concat(),
    }
}

fn value(n: usize) -> Vec<u8> {
    format!("value {n} ").repeat(n % 20).into_bytes()
}

fn content_type(n: usize) -> String {
    format!("text/x-number-{n}; charset=utf-8")
}

#[test]
fn five_nodes_give_two_thousand_keys_put_through_all_in_turn_through_any_and_list_each_once_in_order() {
    let _turn = side_by_side();
    let ring = ring_of(5, &[]);
    let https = ring.https();
    // One thread for each node: it puts every fifth key and reads all of them.
    let all_put = Barrier::new(https.len());
    thread::scope(|scope| {
        for (at, http) in https.iter().enumerate() {
            let all_put = &all_put;
            scope.spawn(move || {
                let mut client = Client::new(*http);
                for n in (at..KEYS).step_by(5) {
                    let headers = [("Content-Type", content_type(n))];
                    let headers = headers.each_ref().map(|(name, text)| (*name, text.as_str()));
                    client.put_if(&key(n), &value(n), &headers).expect("an answer").is(201);
                }
                all_put.wait();
                for n in 0..KEYS {
                    let answer = client.read(&key(n)).expect("an answer");
                    assert_eq!(answer.is(200).body, value(n), "key {n} through node {at}");
                    assert_eq!(answer.field("content-type"), Some(content_type(n).as_str()));
                }
            });
        }
    });
    let sorted: BTreeMap<Vec<u8>, usize> = (0..KEYS).map(|n| (key(n), n)).collect();
    for (at, limit) in [(0, 1_000), (3, 173)] {
        let listed = listing(&mut ring.nodes[at].client(), b"", limit);
        assert!(listed.iter().map(|(key, _)| key).eq(sorted.keys()), "each key once and in order through node {at}");
        for (key, item) in listed {
            let n = sorted[&key];
            assert_eq!(
                (item["size"].as_u64(), item["content_type"].as_str().map(str::to_owned)),
                (Some(value(n).len() as u64), Some(content_type(n)))
            );
        }
    }
    let below: Vec<Vec<u8>> = sorted.keys().filter(|key| key.starts_with(b"dir/01")).cloned().collect();
    let listed = listing(&mut ring.nodes[2].client(), b"dir/01", 50);
    assert!(below.len() > 300 && listed.into_iter().map(|(key, _)| key).eq(below));
    let report = ring.wait_settled();
    assert_eq!(report.nodes.iter().map(|node| node.keys).sum::<u64>(), 3 * KEYS as u64);
    assert_eq!(report.nodes.iter().map(|node| node.slots).sum::<u32>(), 3 * SLOTS);
}

/// Every page of a listing, one after the other.
fn listing(client: &mut Client, prefix: &[u8], limit: usize) -> Vec<(Vec<u8>, Value)> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let target = format!("/v1/kv?prefix={}&limit={limit}&cursor={cursor}", segment(prefix));
        let page: Value = client.get(&target).expect("an answer").is(200).json();
        let items = page["items"].as_array().expect("items");
        assert!(items.len() <= limit);
        for item in items {
            let text = item["key"].as_str().expect("a key");
            let base64 = item["key_base64"].as_bool().unwrap_or(false);
            let key = if base64 { STANDARD.decode(text).expect("base64") } else { text.as_bytes().to_vec() };
            all.push((key, item.clone()));
        }
        match page["cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return all,
        }
    }
}

#[test]
fn three_nodes_agree_on_head_delete_expiry_slashes_and_conditions() {
    let _turn = side_by_side();
    let ring = ring_of(3, &[]);
    let mut clients = ring.clients();
    let [a, b, c] = clients.as_mut_slice() else { panic!("three nodes") };

    let created = a.put_if(b"x/y z", b"first", &[("Content-Type", "text/plain")]).expect("an answer");
    created.is(201);
    let plain = b.get("/v1/kv/x/y%20z").expect("an answer");
    assert_eq!((plain.is(200).body.as_slice(), plain.etag()), (&b"first"[..], created.etag()));
    assert!(plain.field("last-modified").is_some() && plain.field("x-chord-expires-in").is_none());
    let head = c.ask("HEAD", "/v1/kv/x%2Fy%20z", &[], b"").expect("an answer");
    assert_eq!((head.is(200).field("content-length"), head.etag()), (Some("5"), created.etag()));
    assert_eq!(head.field("content-type"), Some("text/plain"));
    b.ask("GET", "/v1/kv/x/y%20z", &[("If-None-Match", &created.etag())], b"").expect("an answer").is(304);

    let replaced = b.put(b"x/y z", b"second").expect("an answer");
    replaced.is(204);
    assert_ne!(replaced.etag(), created.etag());
    let lost = c.put_if(b"x/y z", b"third", &[("If-Match", &created.etag())]).expect("an answer");
    lost.is_problem(412, "precondition_failed");
    assert_eq!(lost.etag(), replaced.etag());
    let target = format!("/v1/kv/{}", segment(b"x/y z"));
    c.ask("DELETE", &target, &[("If-Match", &created.etag())], b"").expect("an answer").is(412);
    c.ask("DELETE", &target, &[("If-Match", &replaced.etag())], b"").expect("an answer").is(204);
    a.delete(b"x/y z").expect("an answer").is_problem(404, "key_not_found");
    b.read(b"x/y z").expect("an answer").is_problem(404, "key_not_found");
    a.put(b"x/y z", b"fourth").expect("an answer").is(201);

    a.ask("PUT", "/v1/kv/brief?ttl=1s", &[], b"v").expect("an answer").is(201);
    a.ask("PUT", "/v1/kv/lasting?ttl=1h", &[], b"v").expect("an answer").is(201);
    let lasting = b.read(b"lasting").expect("an answer");
    assert!(
        lasting.field("x-chord-expires-in").is_some_and(|left| (3_500..=3_600).contains(&left.parse().unwrap_or(0)))
    );
    for client in [b, c] {
        wait_until("the key expires", PATIENCE, || client.read(b"brief").expect("an answer").status == 404);
        assert_eq!(listing(client, b"brief", 10).len(), 0);
        client.read(b"lasting").expect("an answer").is(200);
    }
}

#[test]
fn five_nodes_draw_the_same_ring_in_all_documents() {
    let _turn = side_by_side();
    let ring = ring_of(5, &[]);
    let report = ring.wait_settled();
    check_cycle(&report);
    for node in &ring.nodes {
        let mut client = node.client();
        let seen: RingReport = client.get("/v1/ring").expect("an answer").is(200).json();
        // The lists behind the first entry arrive with the rounds of stabilisation.
        let own: NodeReport = wait_for("the successor list is full", PATIENCE, || {
            let own: NodeReport = client.get("/v1/node").expect("an answer").is(200).json();
            (own.successors.len() == 4).then_some(own)
        });
        let at = report.nodes.iter().position(|other| other.addr == node.peers.to_string()).expect("a member");
        let (named, next) = (&report.nodes[at], &report.nodes[(at + 1) % 5]);
        assert_eq!((&own.id, &own.addr, &own.ring, &own.http), (&named.id, &named.addr, &report.ring, &named.http));
        assert_eq!((own.standing.as_str(), own.http), ("member", Some(node.http.to_string())));
        assert_eq!(own.predecessor.map(|peer| peer.addr), named.predecessor);
        assert_eq!(own.successors[0].addr, next.addr);
        assert_eq!(own.store.slots, named.slots as usize);
        assert_eq!(seen.nodes[0].addr, own.addr, "it begins with the one that was asked");
        let turned = report.nodes.iter().cycle().skip(at).take(5).map(|node| (&node.addr, &node.incarnation));
        assert!(seen.nodes.iter().map(|node| (&node.addr, &node.incarnation)).eq(turned));
    }
    for n in 0..20 {
        let traces: Vec<TraceReport> = ring.clients().iter_mut().map(|client| trace(client, n)).collect();
        let owner = &traces[0].owner;
        // The first node at or after the slot's last id; ids are hexadecimal of one length.
        let ids = report.nodes.iter().map(|node| &node.id);
        assert!(ids.clone().any(|id| id == &owner.id), "{owner:?}");
        for (trace, node) in traces.iter().zip(&ring.nodes) {
            assert_eq!((&trace.owner, &trace.key_id, trace.slot), (owner, &traces[0].key_id, traces[0].slot));
            assert_eq!((&trace.replicas, trace.replicas.len()), (&traces[0].replicas, 3), "{trace:?}");
            assert!(trace.replicas.iter().all(|holder| ids.clone().any(|id| *id == holder.id)), "{trace:?}");
            assert_eq!(trace.hops[0].addr, node.peers.to_string());
            assert!(trace.hops.iter().all(|hop| !hop.silent));
        }
    }
}

fn trace(client: &mut Client, n: usize) -> TraceReport {
    client.get(&format!("/v1/lookup/{}", segment(&key(n)))).expect("an answer").is(200).json()
}

/// In the order of ids from somewhere on, each between its neighbours, and the shares make one circle.
fn check_cycle(report: &RingReport) {
    let count = report.nodes.len();
    let descents = (0..count).filter(|at| report.nodes[*at].id >= report.nodes[(at + 1) % count].id).count();
    assert_eq!(descents, 1, "the ids go round once");
    for (at, node) in report.nodes.iter().enumerate() {
        let (before, after) = (&report.nodes[(at + count - 1) % count], &report.nodes[(at + 1) % count]);
        assert_eq!((node.predecessor.as_ref(), node.successor.as_ref()), (Some(&before.addr), Some(&after.addr)));
    }
    // Each share is given with four digits.
    assert!((report.nodes.iter().map(|node| node.share).sum::<f64>() - 1.0).abs() < 1e-3);
}

#[test]
fn two_clients_that_race_for_one_version_through_two_nodes_have_one_winner_each_round() {
    const ROUNDS: usize = 150;
    let _turn = side_by_side();
    let ring = ring_of(3, &[]);
    let key = |round: usize| format!("race-{}", round % 7).into_bytes();
    race(&ring, ROUNDS, |client, round, me| {
        let before = client.read(&key(round)).expect("an answer");
        let condition = match before.status {
            404 => ("If-None-Match", "*".to_owned()),
            _ => ("If-Match", before.etag()),
        };
        (condition, key(round), format!("{round} by {me}"))
    });
    // Every round of If-None-Match has a new key.
    race(&ring, ROUNDS, |_, round, me| {
        (("If-None-Match", "*".to_owned()), format!("once-{round}").into_bytes(), format!("{round} by {me}"))
    });
}

type Attempt = ((&'static str, String), Vec<u8>, String);

/// Two clients at different nodes prepare, then write at the same time; a third node shows whose value stays.
fn race(ring: &Ring, rounds: usize, prepare: impl Fn(&mut Client, usize, usize) -> Attempt + Sync) {
    let (prepared, written) = (Barrier::new(2), Barrier::new(2));
    let run = |me: usize| {
        let (mut client, mut judge) = (ring.nodes[me].client(), ring.nodes[2].client());
        let mut won = Vec::new();
        for round in 0..rounds {
            let ((name, condition), key, value) = prepare(&mut client, round, me);
            prepared.wait();
            let answer = client.put_if(&key, value.as_bytes(), &[(name, &condition)]).expect("an answer");
            written.wait();
            let winner = judge.read(&key).expect("an answer");
            assert_eq!(winner.is(200).body == value.as_bytes(), answer.status != 412, "round {round}: {answer:?}");
            match answer.status {
                201 | 204 => assert_eq!(winner.etag(), answer.etag()),
                _ => answer.is_problem(412, "precondition_failed"),
            }
            won.push(answer.status != 412);
            // Nobody prepares the next round before both have seen this one's outcome.
            prepared.wait();
        }
        won
    };
    let (first, second) = thread::scope(|scope| {
        let other = scope.spawn(|| run(1));
        (run(0), other.join().expect("the other client is well"))
    });
    assert!(first.iter().zip(&second).all(|(a, b)| a != b), "exactly one wins: {first:?} {second:?}");
}

#[test]
fn a_node_alone_holds_the_whole_circle_and_answers_at_once() {
    let _turn = side_by_side();
    let ring = ring_of(1, &["--slot-bits", "4"]);
    let report = crate::support::ring::wait_settled(ring.nodes[0].http, 1, Duration::from_secs(2));
    assert_eq!((report.nodes[0].slots, report.slots, report.nodes[0].predecessor.as_ref()), (16, 16, None));
    let mut client = ring.nodes[0].client();
    client.put(b"k", b"v").expect("an answer").is(201);
    assert_eq!(client.read(b"k").expect("an answer").is(200).body, b"v");
}
