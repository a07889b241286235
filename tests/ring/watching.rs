//! Watching keys with real processes: whoever waits is told, whichever node is killed, and through which node it asks.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::client::Answer;
use crate::support::{Client, Process, ring_of, side_by_side};

const MOMENT: Duration = Duration::from_secs(10);

/// Waits for the next changes, from a token on; the events and the next token.
fn watch(client: &mut Client, what: &str, resume: &str, wait: &str) -> (Vec<Value>, String) {
    let target = format!("/v1/watch?{what}&resume={resume}&wait={wait}");
    told(&client.get(&target).expect("an answer"))
}

fn told(answer: &Answer) -> (Vec<Value>, String) {
    let document: Value = answer.is(200).json();
    let events = document["events"].as_array().expect("events").clone();
    (events, document["resume"].as_str().expect("a token").to_owned())
}

#[test]
fn a_change_is_told_at_once_through_every_node_and_a_token_of_one_is_good_at_all() {
    let _turn = side_by_side();
    let ring = ring_of(3, &[]);
    ring.wait_settled();
    let mut clients = ring.clients();
    let mut token = String::new();
    for client in &mut clients {
        let (events, next) = watch(client, "prefix=a/", "", "0s");
        assert_eq!(events, Vec::<Value>::new());
        token = next;
    }
    for n in 0..9 {
        let (reader, writer) = (n % 3, (n + 1) % 3);
        let mut watcher = ring.nodes[reader].client();
        let target = format!("/v1/watch?prefix=a/&resume={token}&wait=20s");
        watcher.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).expect("it is sent");
        // It may wait already or not: the change is told all the same. After this it most likely does.
        if n % 2 == 0 {
            clients[reader].get("/v1/node").expect("an answer").is(200);
        }
        clients[writer].put(b"b/other", b"v").expect("an answer");
        let written = Instant::now();
        clients[writer].put(format!("a/{n}").as_bytes(), b"value").expect("an answer").is(201);
        let (events, next) = told(&watcher.answer_to("GET").expect("an answer"));
        assert!(written.elapsed() < MOMENT, "{:?}", written.elapsed());
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!((&events[0]["type"], &events[0]["key"]), (&"put".into(), &format!("a/{n}").into()));
        assert_eq!(events[0]["value"], "value");
        token = next;
    }
    clients[1].delete(b"a/3").expect("an answer").is(204);
    let (events, _) = watch(&mut clients[2], "prefix=a/", &token, "20s");
    assert_eq!(events, [serde_json::json!({"type": "delete", "key": "a/3"})]);
    clients[0]
        .get("/v1/watch?prefix=a/&resume=0123456789abcdef0123456789abcdef00000000")
        .expect("an answer")
        .is_problem(410, "resume_too_old");
    clients[0].get("/v1/watch").expect("an answer").is_problem(400, "bad_query");
    ring.nodes.iter().for_each(|node| node.has_not_panicked());
}

/// One of five is killed while keys are written and expire. Whoever watches through another knows all keys in the end.
#[test]
fn nothing_is_missed_when_a_node_is_killed() {
    let _turn = side_by_side();
    let mut ring = ring_of(5, &["--request-timeout", "5s"]);
    ring.wait_settled();
    let mut watcher = ring.nodes[0].client();
    let (_, mut token) = watch(&mut watcher, "prefix=k", "", "0s");
    let mut writer = ring.nodes[1].client();
    let mut known = std::collections::BTreeMap::new();
    let mut wanted = std::collections::BTreeMap::new();
    let mut take = |known: &mut std::collections::BTreeMap<String, String>, wait: &str| {
        let (events, next) = watch(&mut watcher, "prefix=k", &token, wait);
        token = next;
        for event in &events {
            let key = event["key"].as_str().expect("a key").to_owned();
            match event["value"].as_str() {
                Some(value) => known.insert(key, value.to_owned()),
                None => known.remove(&key),
            };
        }
        events.len()
    };
    for n in 0..200 {
        if n == 60 {
            ring.nodes[3].kill();
        }
        let (key, value) = (format!("k{}", n % 50), n.to_string());
        let target = if n % 7 == 0 { format!("/v1/kv/{key}?ttl=1s") } else { format!("/v1/kv/{key}") };
        writer.ask("PUT", &target, &[], value.as_bytes()).expect("an answer");
        if n % 7 == 0 {
            wanted.remove(&key)
        } else {
            wanted.insert(key, value)
        };
        if n % 20 == 0 {
            take(&mut known, "0s");
        }
    }
    // What is accepted is told a second later at the latest, and what has expired when its first member is known to be gone.
    let end = Instant::now() + Duration::from_secs(40);
    while known != wanted {
        assert!(Instant::now() < end, "{known:?} is not {wanted:?}");
        take(&mut known, "1s");
    }
    ring.nodes.iter().for_each(|node| node.has_not_panicked());
}

#[test]
fn the_command_tells_a_line_for_each_change() {
    let _turn = side_by_side();
    let ring = ring_of(2, &[]);
    ring.wait_settled();
    let node = ring.nodes[0].http.to_string();
    let mut client = ring.nodes[1].client();
    client.put(b"app/a", b"1").expect("an answer").is(201);
    let mut one = Process::printing(&["watch", "--node", &node, "app/a"]);
    one.wait_said("put app/a 1B ", 1, MOMENT);
    let mut all = Process::printing(&["watch", "--node", &node, "--prefix", "app/", "--existing", "--json"]);
    all.wait_said("\"type\":\"put\",\"key\":\"app/a\"", 1, MOMENT);
    let mut first = Process::printing(&["watch", "--node", &node, "--once", "app/a"]);
    // Nothing tells that it waits: it is told of this change or of one that follows.
    client.put(b"app/a", b"22").expect("an answer").is(204);
    one.wait_said("put app/a 2B ", 1, MOMENT);
    all.wait_said("\"value\":\"22\"", 1, MOMENT);
    client.delete(b"app/a").expect("an answer").is(204);
    one.wait_said("delete app/a", 1, MOMENT);
    all.wait_said("{\"type\":\"delete\",\"key\":\"app/a\"}", 1, MOMENT);
    crate::support::wait_until("it ends with a change", MOMENT, || {
        client.put(b"app/a", b"333").expect("an answer");
        !first.said().is_empty()
    });
    first.ends_with(0, MOMENT);
    one.kill();
    all.kill();
    Process::run(&["watch", "--node", &node]).ends_with(2, MOMENT);
}
