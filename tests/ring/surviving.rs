//! Nodes with a data directory: what was acknowledged is there after the process ended, however it ended.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rusqlite::Connection;
use rustix::process::Signal;

use crate::support::{Client, Node, PATIENCE, Process, ring::wait_settled, side_by_side, wait_until};

fn flags(dir: &Path) -> [&str; 2] {
    ["--data-dir", dir.to_str().expect("UTF-8")]
}

fn file(dir: &Path) -> std::path::PathBuf {
    dir.join("store.db")
}

fn commit_of(node: &Node) -> u64 {
    let answer = node.client().get("/v1/node").expect("an answer");
    answer.json::<serde_json::Value>()["store"]["commit"].as_u64().expect("a number")
}

#[test]
fn keys_and_their_etags_outlive_a_killed_process() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::create(&flags(dir.path()));
    let etags: Vec<String> = (0..100)
        .map(|n| node.client().put(format!("key-{n}").as_bytes(), b"value").expect("an answer").is(201).etag())
        .collect();
    node.client().delete(b"key-7").expect("an answer").is(204);
    let before = commit_of(&node);
    node.kill();
    let node = Node::create(&flags(dir.path()));
    node.wait_ready();
    node.wait_said("another address than before", 1, PATIENCE);
    let mut client = node.client();
    for (n, etag) in etags.iter().enumerate() {
        let answer = client.read(format!("key-{n}").as_bytes()).expect("an answer");
        if n == 7 {
            answer.is_problem(404, "key_not_found");
        } else {
            assert_eq!(&answer.is(200).etag(), etag);
        }
    }
    // A version is never given out twice, also not by the next process.
    let again = client.put(b"key-7", b"value").expect("an answer").is(201).etag();
    assert!(!etags.contains(&again));
    assert!(commit_of(&node) > before, "commits are numbered, also from process to process");
    node.has_not_panicked();
}

/// What happens to containers that get an address on every start: each view names places where nobody is any more.
#[test]
fn nodes_that_all_come_back_at_other_addresses_serve_what_they_stored() {
    let _turn = side_by_side();
    let dirs = [(); 5].map(|()| tempfile::tempdir().expect("a directory"));
    let start = || {
        let first = Node::create(&flags(dirs[0].path()));
        let seed = first.peers;
        let mut nodes = vec![first];
        nodes.extend(dirs[1..].iter().map(|dir| Node::join(seed, &flags(dir.path()))));
        wait_settled(nodes[0].http, 5, PATIENCE);
        nodes
    };
    let mut nodes = start();
    let mut client = nodes[0].client();
    for n in 0..100 {
        client.put(format!("key-{n}").as_bytes(), n.to_string().as_bytes()).expect("an answer").is(201);
    }
    for node in &mut nodes {
        node.kill();
    }
    let nodes = start();
    let mut client = nodes[4].client();
    for n in 0..100 {
        let answer = client.read(format!("key-{n}").as_bytes()).expect("an answer");
        assert_eq!(answer.is(200).text(), n.to_string());
    }
    for node in &nodes {
        node.wait_said("another address than before", 1, PATIENCE);
        node.has_not_panicked();
    }
}

/// SIGTERM does not leave: a reboot moves no data.
#[test]
fn a_stopped_node_stays_a_member_and_one_that_left_is_nobody() {
    let _turn = side_by_side();
    let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let first = Node::create(&flags(dirs[0].path()));
    let mut second = Node::join(first.peers, &flags(dirs[1].path()));
    wait_settled(first.http, 2, PATIENCE);
    for n in 0..50 {
        first.client().put(format!("key-{n}").as_bytes(), b"value").expect("an answer").is(201);
    }
    let incarnation = |http: SocketAddr| -> String {
        Client::new(http).get("/v1/node").expect("an answer").json::<serde_json::Value>()["incarnation"].to_string()
    };
    let before = incarnation(second.http);
    let held = Connection::open(file(dirs[1].path())).expect("the store");
    let keys = || held.query_row("SELECT count(*) FROM records", [], |row| row.get::<_, i64>(0)).expect("a count");
    wait_until("the second node has keys", PATIENCE, || keys() > 0);
    second.signal(Signal::TERM);
    second.ends_with(0, PATIENCE);
    assert!(keys() > 0, "it gave its keys away");
    let listen = second.peers.to_string();
    let again = [&flags(dirs[1].path())[..], &["--listen", &listen]].concat();
    let mut second = Process::node(&again).listening();
    wait_settled(first.http, 2, PATIENCE);
    assert_eq!(incarnation(second.http), before);
    for n in 0..50 {
        second.client().read(format!("key-{n}").as_bytes()).expect("an answer").is(200);
    }
    drop(held);
    second.client().ask("POST", "/v1/node/leave", &[], b"").expect("an answer").is(202);
    second.ends_with(0, PATIENCE);
    assert!(!file(dirs[1].path()).exists(), "whoever left is nobody any more");
    for n in 0..50 {
        first.client().read(format!("key-{n}").as_bytes()).expect("an answer").is(200);
    }
    first.has_not_panicked();
}

#[test]
fn the_last_member_that_leaves_takes_its_keys_along() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::create(&flags(dir.path()));
    node.client().put(b"key", b"value").expect("an answer").is(201);
    node.client().ask("POST", "/v1/node/leave", &[], b"").expect("an answer").is(202);
    node.ends_with(0, PATIENCE);
    let node = Node::create(&flags(dir.path()));
    node.wait_ready();
    assert_eq!(node.client().read(b"key").expect("an answer").is(200).text(), "value");
}

/// Made by a program that wrote format 1.
#[test]
fn a_directory_of_format_1_is_read() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format-1/store.db");
    std::fs::copy(kept, file(dir.path())).expect("a copy");
    let node = Node::create(&flags(dir.path()));
    node.wait_ready();
    let mut client = node.client();
    let kept: [(&[u8], &[u8], &str); 3] = [
        (b"text", b"a value", "text/plain"),
        (b"\xff/\x00", b"\x00\xfe", "application/octet-stream"),
        (b"mortal", b"long", "a/b"),
    ];
    for (key, value, content_type) in kept {
        let answer = client.read(key).expect("an answer");
        assert_eq!((answer.is(200).body.as_slice(), answer.field("content-type")), (value, Some(content_type)));
        assert!(answer.etag().ends_with(ETAG_OF_FORMAT_1), "{}", answer.etag());
    }
    assert!(client.read(b"mortal").expect("an answer").field("x-chord-expires-in").is_some());
    assert_eq!(
        client.get("/v1/kv").expect("an answer").json::<serde_json::Value>()["items"].as_array().map(Vec::len),
        Some(3)
    );
}

/// Of the node that made it.
const ETAG_OF_FORMAT_1: &str = "2fe031ce4f920f70bd9711caa0780c98\"";

/// What a power cut, or a disk, does to the log: some of what was written last may be gone, nothing is made up.
#[test]
fn a_damaged_log_never_yields_a_value_that_nobody_wrote() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::create(&flags(dir.path()));
    let mut client = node.client();
    for version in 0..3 {
        for n in 0..20 {
            let value = format!("{n} in version {version}, and a little more");
            assert!(client.put(format!("key-{n}").as_bytes(), value.as_bytes()).expect("an answer").status < 300);
        }
    }
    node.kill();
    let log = dir.path().join("store.db-wal");
    let whole = std::fs::read(&log).expect("a log");
    for part in 1..8 {
        let again = tempfile::tempdir().expect("a directory");
        std::fs::copy(file(dir.path()), file(again.path())).expect("a copy");
        let mut bytes = whole.clone();
        let at = bytes.len() * part / 8;
        // A flipped bit, or a torn tail.
        if part % 2 == 0 {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1;
        }
        std::fs::write(again.path().join("store.db-wal"), &bytes).expect("a log");
        let node = Node::create(&flags(again.path()));
        node.wait_ready();
        let mut client = node.client();
        for n in 0..20 {
            let answer = client.read(format!("key-{n}").as_bytes()).expect("an answer");
            let written = |version| answer.text() == format!("{n} in version {version}, and a little more");
            assert!(matches!(answer.status, 404 | 500) || (0..3).any(written), "{}", answer.text());
        }
        client.put(b"key-1", b"new").expect("an answer");
        node.has_not_panicked();
    }
}

/// `CHORDKV_KILLS` says how often.
#[test]
fn every_node_is_killed_in_the_midst_of_writes_and_nothing_acknowledged_is_lost() {
    let _turn = side_by_side();
    let kills = std::env::var("CHORDKV_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let dirs = [(); 3].map(|()| tempfile::tempdir().expect("a directory"));
    let first = Node::create(&flags(dirs[0].path()));
    let seed = first.peers;
    let mut nodes = vec![first];
    nodes.extend(dirs[1..].iter().map(|dir| Node::join(seed, &flags(dir.path()))));
    wait_settled(nodes[0].http, 3, PATIENCE);
    let listen: Vec<String> = nodes.iter().map(|node| node.peers.to_string()).collect();
    // What each key was last acknowledged to hold, and what it may hold as nobody knows.
    let known: Vec<Mutex<(u64, u64)>> = (0..40).map(|_| Mutex::new((0, 0))).collect();
    for kill in 1..=kills {
        let https: Vec<SocketAddr> = nodes.iter().map(|node| node.http).collect();
        write_until_killed(&https, &known, &mut nodes);
        let start = Instant::now();
        nodes = dirs
            .iter()
            .zip(&listen)
            .map(|(dir, listen)| Process::node(&[&flags(dir.path())[..], &["--listen", listen]].concat()).listening())
            .collect();
        let last = Instant::now();
        wait_settled(nodes[1].http, 3, PATIENCE);
        println!("kill {kill}: whole {:?} after the first start, {:?} after the last", start.elapsed(), last.elapsed());
        let mut client = nodes[2].client();
        for (key, known) in known.iter().enumerate() {
            let mut known = known.lock().expect("a number");
            let answer = client.read(format!("key-{key}").as_bytes()).expect("an answer");
            let found = if known.1 > 0 && answer.status == 200 { answer.text().parse().expect("a number") } else { 0 };
            assert!((known.0..=known.1).contains(&found), "kill {kill}, key {key}: {found} is not in {known:?}");
            *known = (found, found);
        }
    }
    for node in &nodes {
        node.has_not_panicked();
    }
}

/// Writers count up, each on keys of its own, until all nodes are killed under their hands.
fn write_until_killed(https: &[SocketAddr], known: &[Mutex<(u64, u64)>], nodes: &mut [Node]) {
    let over = AtomicBool::new(false);
    let acknowledged = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (over, acknowledged) = (&over, &acknowledged);
            scope.spawn(move || {
                let mut client = Client::new(https[writer % https.len()]);
                for turn in 0.. {
                    let key = writer + 4 * (turn % (known.len() / 4));
                    let value = {
                        let mut known = known[key].lock().expect("a number");
                        known.1 += 1;
                        known.1
                    };
                    let answer = client.put(format!("key-{key}").as_bytes(), value.to_string().as_bytes());
                    match answer {
                        Ok(answer) if answer.status < 300 => {
                            known[key].lock().expect("a number").0 = value;
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                        }
                        _ if over.load(Ordering::Relaxed) => return,
                        _ => {}
                    }
                }
            });
        }
        wait_until("some writes are acknowledged", PATIENCE, || acknowledged.load(Ordering::Relaxed) > 300);
        over.store(true, Ordering::Relaxed);
        for node in nodes {
            node.kill();
        }
    });
}

#[test]
fn a_full_node_refuses_puts_and_takes_deletes_and_says_so() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    for durable in [true, false] {
        let of_dir = flags(dir.path());
        let flags: Vec<&str> = if durable { of_dir.to_vec() } else { Vec::new() };
        let node = Node::create(&[&flags[..], &["--max-bytes", "256KiB"]].concat());
        let mut client = node.client();
        let mut put = 0;
        let refused = loop {
            let answer = client.put(format!("key-{put}").as_bytes(), &[b'v'; 4_000]).expect("an answer");
            if answer.status != 201 {
                break answer;
            }
            put += 1;
            assert!(put < 100, "nothing is refused");
        };
        refused.is_problem(507, "full");
        assert!(refused.text().contains("--max-bytes"), "{}", refused.text());
        assert!(put > 20, "refused after {put} keys");
        let ready = client.get("/readyz").expect("an answer");
        assert!(ready.status == 503 && ready.text().contains("only removals are taken"), "{}", ready.text());
        for n in 0..10 {
            client.read(format!("key-{n}").as_bytes()).expect("an answer").is(200);
            client.delete(format!("key-{n}").as_bytes()).expect("an answer").is(204);
        }
        client.put(b"another", &[b'v'; 4_000]).expect("an answer").is(201);
        client.get("/readyz").expect("an answer").is(200);
        node.has_not_panicked();
    }
}

#[test]
fn a_flipped_bit_is_an_error_that_names_the_key_and_others_go_on() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let mut node = Node::create(&flags(dir.path()));
    for n in 0..20 {
        node.client().put(format!("key-{n}").as_bytes(), b"value").expect("an answer").is(201);
    }
    node.signal(Signal::TERM);
    node.ends_with(0, PATIENCE);
    let store = Connection::open(file(dir.path())).expect("the store");
    let flipped =
        store.execute("UPDATE records SET value = x'76616c7564' WHERE key IN (x'6b65792d33', x'6b65792d35')", []);
    assert_eq!(flipped, Ok(2));
    drop(store);
    let node = Node::create(&flags(dir.path()));
    node.wait_ready();
    let mut client = node.client();
    for n in 0..20 {
        let answer = client.read(format!("key-{n}").as_bytes()).expect("an answer");
        if n == 3 || n == 5 {
            answer.is_problem(500, "damaged");
            assert!(answer.text().contains(&format!("key-{n}")), "{}", answer.text());
        } else {
            assert_eq!(answer.is(200).text(), "value");
        }
    }
    client.put_if(b"key-3", b"new", &[("If-None-Match", "*")]).expect("an answer").is_problem(500, "damaged");
    client.put(b"key-3", b"new").expect("an answer").is(204);
    assert_eq!(client.read(b"key-3").expect("an answer").is(200).text(), "new");
    client.delete(b"key-5").expect("an answer").is(204);
    client.read(b"key-5").expect("an answer").is_problem(404, "key_not_found");
    node.has_not_panicked();
}

#[test]
fn a_store_that_is_none_or_newer_or_of_another_ring_is_refused_and_left_as_it_is() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let path = file(dir.path());
    let mut node = Node::create(&flags(dir.path()));
    node.client().put(b"key", b"value").expect("an answer").is(201);
    node.signal(Signal::TERM);
    node.ends_with(0, PATIENCE);
    // Of another ring: the parameters differ.
    let other = [&flags(dir.path())[..], &["--capacity", "40"]].concat();
    Process::node(&other).fails_with(1, &["--capacity 160", "not 40", "--data-dir"]);
    let good = std::fs::read(&path).expect("the store");
    Connection::open(&path).and_then(|store| store.execute_batch("PRAGMA user_version = 99")).expect("a pragma");
    Process::node(&flags(dir.path())).fails_with(1, &["store.db", "format 99", "newer"]);
    for bad in [&b"this is no store at all, and it is long enough to be read as one"[..], &good[..500]] {
        std::fs::write(&path, bad).expect("a file");
        Process::node(&flags(dir.path())).fails_with(1, &["store.db cannot be used", "--data-dir"]);
        assert_eq!(std::fs::read(&path).expect("a file"), bad);
    }
    std::fs::write(&path, &good).expect("a file");
    Connection::open(&path).and_then(|store| store.execute_batch("DELETE FROM meta")).expect("it is writable");
    Process::node(&flags(dir.path())).fails_with(1, &["it has records", "--data-dir"]);
    std::fs::write(&path, &good).expect("a file");
    let node = Node::create(&flags(dir.path()));
    node.wait_ready();
    node.client().read(b"key").expect("an answer").is(200);
}

/// A large store is counted beside the work.
#[test]
fn a_large_store_serves_before_its_keys_are_counted_and_counts_right() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let flags = [&flags(dir.path())[..], &["--fsync", "never"]].concat();
    let mut node = Node::create(&flags);
    let mut client = node.client();
    for n in 0..1_500 {
        client.put(format!("key-{n}").as_bytes(), &[b'v'; 4_000]).expect("an answer").is(201);
    }
    node.kill();
    let node = Node::create(&flags);
    node.wait_ready();
    let mut client = node.client();
    for n in 1_000..2_000 {
        client.put(format!("key-{n}").as_bytes(), &[b'v'; 40]).expect("an answer");
    }
    client.delete(b"key-0").expect("an answer").is(204);
    wait_until("the keys are counted", PATIENCE, || {
        client.put(b"key-1999", b"again").expect("an answer").is(204);
        let node: serde_json::Value = client.get("/v1/node").expect("an answer").json();
        node["store"]["keys"] == 1_999
    });
    node.has_not_panicked();
}

/// Without `always` a killed process loses nothing either: the system has it.
#[test]
fn no_mode_of_syncing_loses_anything_when_only_the_process_dies() {
    let _turn = side_by_side();
    for mode in [&["--fsync", "interval", "--fsync-interval", "20ms"][..], &["--fsync", "never"]] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut node = Node::create(&[&flags(dir.path())[..], mode].concat());
        for n in 0..50 {
            node.client().put(format!("key-{n}").as_bytes(), b"value").expect("an answer").is(201);
        }
        node.kill();
        let node = Node::create(&[&flags(dir.path())[..], mode].concat());
        node.wait_ready();
        for n in 0..50 {
            node.client().read(format!("key-{n}").as_bytes()).expect("an answer").is(200);
        }
        node.has_not_panicked();
    }
}
