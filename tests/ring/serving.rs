//! The HTTP interface of the running program.

use std::thread;

use serde_json::Value;

use crate::support::{Client, Node, ring_of, side_by_side};

const MIB: usize = 1 << 20;

#[test]
fn every_refusal_is_a_problem_document_of_the_right_status() {
    let _turn = side_by_side();
    let node = Node::create(&[]);
    let raw = |request: &str| {
        let mut client = node.client();
        client.send(request.as_bytes()).expect("it is sent");
        client.answer_to("GET").expect("an answer")
    };
    let put = |rest: &str| format!("PUT /v1/kv/k{rest}");
    for (request, status, code) in [
        ("GET /v1/kv/%zz HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400, "bad_key"),
        ("GET /v1/kv/ HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400, "bad_key"),
        (format!("GET /v1/kv/{} HTTP/1.1\r\nHost: h\r\n\r\n", "k".repeat(1_025)), 400, "bad_key"),
        ("GET /v1/kv?limit=0 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400, "bad_query"),
        ("GET /v1/kv/k?consistency=maybe HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 400, "bad_query"),
        (put("?ttl=5 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"), 400, "bad_query"),
        (put(" HTTP/1.1\r\nHost: h\r\nIf-Match: x\r\nContent-Length: 0\r\n\r\n"), 400, "bad_header"),
        (put(" HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n"), 400, "bad_content_length"),
        ("GET /v1/kv/k HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_host"),
        ("GET /v1/kv/k HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 404, "key_not_found"),
        ("GET /v2 HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), 404, "no_such_path"),
        (put(" HTTP/1.1\r\nHost: h\r\n\r\n"), 411, "length_required"),
        (put(" HTTP/1.1\r\nHost: h\r\nIf-Match: *\r\nContent-Length: 1\r\n\r\nv"), 412, "precondition_failed"),
        (put(&format!(" HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", u64::MAX)), 413, "body_too_large"),
        (format!("GET /v1/kv/{} HTTP/1.1\r\nHost: h\r\n\r\n", "k".repeat(9_000)), 414, "target_too_long"),
        (put(" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n"), 501, "bad_transfer_coding"),
        ("GET /v1/kv/k HTTP/2.0\r\nHost: h\r\n\r\n".to_owned(), 505, "bad_version"),
    ] {
        raw(&request).is_problem(status, code);
    }
    for (method, target, allow) in [
        ("POST", "/v1/kv/k", "GET, HEAD, PUT, DELETE"),
        ("DELETE", "/v1/ring", "GET, HEAD"),
        ("GET", "/v1/node/leave", "POST"),
    ] {
        let answer = node.client().ask(method, target, &[], b"").expect("an answer");
        answer.is_problem(405, "method_not_allowed");
        assert_eq!(answer.field("allow"), Some(allow));
    }
    node.has_not_panicked();
}

#[test]
fn a_node_is_alive_and_ready_and_says_of_what() {
    let _turn = side_by_side();
    let ring = ring_of(2, &[]);
    for node in &ring.nodes {
        node.wait_ready();
        for target in ["/livez", "/readyz"] {
            let health: Value = node.client().get(target).expect("an answer").is(200).json();
            assert_eq!(health["ok"], true);
            assert!(health["checks"].as_array().is_some_and(|checks| checks.iter().all(|check| check["ok"] == true)));
        }
    }
}

#[test]
fn a_value_of_exactly_the_rings_limit_passes_through_a_joiner_and_one_byte_more_does_not() {
    let _turn = side_by_side();
    let ring = ring_of(2, &["--max-value", "5000"]);
    let adopted = Node::join(ring.nodes[0].peers, &[]);
    adopted.wait_ready();
    for node in ring.nodes.iter().chain([&adopted]) {
        let mut client = node.client();
        client.put(b"k", &[b'x'; 5_000]).expect("an answer");
        assert_eq!(client.read(b"k").expect("an answer").is(200).body.len(), 5_000);
        let refused = client.put(b"k", &[b'y'; 5_001]).expect("an answer");
        refused.is(413);
        assert_eq!(refused.field("content-type"), Some("application/problem+json"));
        assert_eq!(node.client().read(b"k").expect("an answer").is(200).body, [b'x'; 5_000]);
    }
}

#[test]
fn values_of_a_mebibyte_go_round_through_other_nodes() {
    let _turn = side_by_side();
    let ring = ring_of(3, &[]);
    let mut clients = ring.clients();
    // Enough keys that some value has to cross between each pair of nodes.
    for n in 0..12_usize {
        let value: Vec<u8> = (0..MIB).map(|at| u8::try_from((at * 31 + n * 7) % 251).unwrap_or(0)).collect();
        let key = format!("big-{n}").into_bytes();
        clients[n % 3].put(&key, &value).expect("an answer").is(201);
        let answer = clients[(n + 1) % 3].read(&key).expect("an answer");
        assert!(answer.is(200).body == value, "value {n} came back otherwise");
        assert_eq!(
            clients[(n + 2) % 3]
                .ask("HEAD", &format!("/v1/kv/big-{n}"), &[], b"")
                .expect("an answer")
                .field("content-length"),
            Some("1048576")
        );
    }
    clients[0].put(b"big-0", &vec![0; MIB + 1]).expect("an answer").is(413);
    let report = ring.wait_settled();
    assert_eq!(report.nodes.iter().map(|node| node.bytes / MIB as u64).sum::<u64>(), 36);
}

#[test]
fn pipelined_requests_over_one_connection_are_answered_in_order_whoever_holds_the_keys() {
    const COUNT: usize = 200;
    let _turn = side_by_side();
    let ring = ring_of(3, &[]);
    let mut client = ring.nodes[0].client();
    let put = |n: usize| format!("PUT /v1/kv/p{n} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\n{n:04}");
    let get = |n: usize| format!("GET /v1/kv/p{n} HTTP/1.1\r\nHost: h\r\n\r\n");
    let requests = (0..COUNT).flat_map(|n| [put(n), get(n)]).collect::<String>();
    client.send(requests.as_bytes()).expect("it is sent");
    for n in 0..COUNT {
        client.answer_to("PUT").expect("an answer").is(201);
        assert_eq!(client.answer_to("GET").expect("an answer").is(200).body, format!("{n:04}").into_bytes());
    }
}

#[test]
fn fifty_clients_at_once_are_all_served_by_three_nodes() {
    let _turn = side_by_side();
    let ring = ring_of(3, &[]);
    let https = ring.https();
    thread::scope(|scope| {
        for me in 0..50_usize {
            let mut client = Client::new(https[me % 3]);
            scope.spawn(move || {
                for n in 0..20 {
                    let key = format!("{me}/{n}").into_bytes();
                    client.put(&key, &key).expect("an answer").is(201);
                    assert_eq!(client.read(&key).expect("an answer").is(200).body, key);
                }
            });
        }
    });
    assert_eq!(ring.wait_settled().nodes.iter().map(|node| node.keys).sum::<u64>(), 3_000);
}
