//! Majorities that are lost for good, and what an operator makes of it.

use std::time::Duration;

use chordkv::node::report::RecoverReport;

use crate::support::{Process, ring_of, side_by_side, wait_for};

const KEYS: usize = 300;

/// Two of four are killed at once. The keys that lost two of their three copies are out of reach until somebody says that
/// the two are gone for good.
#[test]
fn after_two_of_four_are_killed_at_once_an_operator_brings_every_key_back() {
    let _turn = side_by_side();
    let mut ring = ring_of(4, &["--request-timeout", "2s"]);
    ring.wait_settled();
    let mut client = ring.nodes[0].client();
    for n in 0..KEYS {
        client.put(format!("key-{n}").as_bytes(), b"v").expect("an answer").is(201);
    }
    let node = ring.nodes[0].http.to_string();
    Process::run(&["recover", "--node", &node]).ends_with(0, Duration::from_secs(10));
    client.ask("POST", "/v1/recover", &[], b"").expect("an answer").is_problem(400, "bad_query");
    client.ask("POST", "/v1/recover?lost=10.0.0.1:1", &[], b"").expect("an answer").is(200);

    let mut gone: Vec<_> = ring.nodes.drain(2..).collect();
    for node in &mut gone {
        node.kill();
    }
    let addrs: Vec<String> = gone.iter().map(|node| node.peers.to_string()).collect();
    let lost = addrs.join(",");
    // Once the ring has closed around them.
    let report = wait_for("the survivors are a ring", Duration::from_secs(30), || {
        let found: RecoverReport = client.get("/v1/recover").ok().filter(|answer| answer.status == 200)?.json();
        let refused = client.ask("POST", "/v1/recover?lost=10.0.0.1:1", &[], b"").ok()?;
        refused.is_problem(409, "conflict");
        (found.missing.len() == 2 && refused.text().contains("the nodes that are missing are")).then_some(found)
    });
    assert!(
        report.unavailable > 0 && report.copies_left.iter().all(|left| (left.left, left.of) == (1, 3)),
        "{report:?}"
    );
    wait_for("the operator is heard", Duration::from_secs(30), || {
        let mut said = Process::run(&["recover", "--node", &node, "--lost", &lost]);
        (said.ended(Duration::from_secs(30)).0 == Some(0)).then_some(())
    });
    let left: RecoverReport = client.get("/v1/recover").expect("an answer").is(200).json();
    assert_eq!(left.unavailable, 0, "{left:?}");
    for n in 0..KEYS {
        ring.nodes[n % 2].client().read(format!("key-{n}").as_bytes()).expect("an answer").is(200);
        client.put(format!("key-{n}").as_bytes(), b"w").expect("an answer").is(204);
    }
    Process::run(&["recover", "--node", &node, "--lost", &lost]).ends_with(0, Duration::from_secs(10));
    ring.nodes.iter().for_each(|node| node.has_not_panicked());
}
