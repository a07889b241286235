//! A disk that is full: puts are refused, removals work as long as anything can be written, and once there is room again
//! service goes on. The disk is a small one in memory that only the node sees (root on Linux).

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{Node, PATIENCE, Process, side_by_side, wait_until};

/// A node whose data is on a disk of this size, and where this test sees that disk. `None`: this user may not mount.
fn node_on(dir: &tempfile::TempDir, size: &str) -> Option<(Node, PathBuf)> {
    let mut may = Command::new("unshare");
    may.args(["--mount", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    if !may.status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user may not mount a disk of its own (root on Linux with util-linux may)");
        return None;
    }
    let data = dir.path().to_str().expect("UTF-8");
    let node = Process::node_on_small_disk(data, size, &["--data-dir", data]).listening();
    let there = PathBuf::from(format!("/proc/{}/root{data}", node.id()));
    Some((node, there))
}

#[test]
fn a_full_disk_refuses_puts_and_serves_again_after_deletes() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let Some((node, _)) = node_on(&dir, "8m") else { return };
    let mut client = node.client();
    let key = |n: u32| format!("key-{n}").into_bytes();
    let value = vec![b'v'; 10_000];
    let full = (0..2_000).find(|n| client.put(&key(*n), &value).expect("an answer").status != 201);
    let full = full.expect("the disk becomes full");
    assert!(full > 100, "full after {full} keys");
    let refused = client.put(&key(full), &value).expect("an answer");
    refused.is_problem(507, "full");
    assert!(refused.text().contains("disk"), "{}", refused.text());
    client.get("/readyz").expect("an answer").is(503);
    for n in 0..full {
        assert_eq!(client.read(&key(n)).expect("an answer").is(200).body, value);
    }
    for n in 0..full / 2 {
        client.delete(&key(n)).expect("an answer").is(204);
    }
    wait_until("there is room again", PATIENCE, || client.put(&key(full), &value).expect("an answer").status == 201);
    client.get("/readyz").expect("an answer").is(200);
    node.has_not_panicked();
}

/// Somebody else takes the last byte, what is kept for removals too.
#[test]
fn a_disk_without_a_byte_left_loses_nothing_and_serves_again_when_there_is_room() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let Some((node, there)) = node_on(&dir, "8m") else { return };
    let mut client = node.client();
    let key = |n: u32| format!("key-{n}").into_bytes();
    for n in 0..50 {
        client.put(&key(n), b"value").expect("an answer").is(201);
    }
    let filler = there.join("filler");
    let mut file = File::create(&filler).expect("a file on that disk");
    while file.write_all(&[0; 4_096]).is_ok() {}
    client.put(b"another", b"value").expect("an answer").is_problem(507, "full");
    client.put(&key(1), b"other").expect("an answer").is_problem(507, "full");
    // The log may have room left; if not, that is said, and nothing is half done.
    let removed: Vec<bool> = (0..50).map(|n| client.delete(&key(n)).expect("an answer").status == 204).collect();
    for (n, removed) in (0..).zip(&removed) {
        client.read(&key(n)).expect("an answer").is(if *removed { 404 } else { 200 });
    }
    fs::remove_file(filler).expect("the file is there");
    drop(file);
    wait_until("there is room again", PATIENCE, || client.put(b"another", b"value").expect("an answer").status == 201);
    for (n, removed) in (0..).zip(&removed) {
        client.delete(&key(n)).expect("an answer").is(if *removed { 404 } else { 204 });
    }
    client.get("/readyz").expect("an answer").is(200);
    node.has_not_panicked();
}
