//! A disk that gives errors for a while: writes are refused, reads go on, and so do writes as soon as they can.

use std::fs;

use crate::image::preload;
use crate::support::{PATIENCE, Process, side_by_side, wait_until};

#[test]
fn while_the_disk_gives_errors_writes_are_refused_and_afterwards_they_go_on() {
    let _turn = side_by_side();
    let dir = tempfile::tempdir().expect("a directory");
    let [data, fail, log] =
        ["data", "fail", "log"].map(|name| dir.path().join(name).to_str().expect("UTF-8").to_owned());
    let library = preload(dir.path());
    let env = [
        ("LD_PRELOAD", &*library),
        ("CHORDKV_TEST_DIR", &*data),
        ("CHORDKV_TEST_LOG", &*log),
        ("CHORDKV_TEST_FAIL", &*fail),
    ];
    let mut node = Process::node_in(&env, &["--data-dir", &data]).listening();
    node.wait_ready();
    let mut client = node.client();
    let key = |n: u32| format!("key-{n}").into_bytes();
    for round in 0..3 {
        let value = format!("value {round}").into_bytes();
        for n in 0..20 {
            client.put(&key(n), &value).expect("an answer");
        }
        fs::write(&fail, "").expect("a file");
        for n in 0..20 {
            client.put(&key(n), b"lost").expect("an answer").is_problem(500, "store_failed");
            client.delete(&key(n)).expect("an answer").is_problem(500, "store_failed");
            assert_eq!(client.read(&key(n)).expect("an answer").is(200).body, value);
        }
        fs::remove_file(&fail).expect("the file is there");
        let works = || client.put(b"another", &value).expect("an answer").status < 300;
        wait_until("the disk works again", PATIENCE, works);
    }
    assert_eq!(
        node.said().iter().filter(|line| line.contains("nothing can be written")).count(),
        3,
        "said once each time"
    );
    node.kill();
    let node = Process::node(&["--data-dir", &data]).listening();
    node.wait_ready();
    for n in 0..20 {
        assert_eq!(node.client().read(&key(n)).expect("an answer").is(200).text(), "value 2");
    }
    node.has_not_panicked();
}
