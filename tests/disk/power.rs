//! The power fails while a node writes. Its writes are logged, disks that lost any of what was not made safe are made of
//! the log, and the node is started on each.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;

use crate::image::{Record, crash, preload, read};
use crate::support::{Client, PATIENCE, Process, side_by_side, wait_until};

/// Images that are tried; `CHORDKV_KILLS` says another number.
const IMAGES: u64 = 40;
const CLIENTS: u64 = 4;
const KEYS_EACH: u64 = 24;
const WRITES_EACH: u64 = 250;

/// A write to one key, and how long the log was before it and when it was acknowledged.
struct Written {
    value: Option<Vec<u8>>,
    asked: u64,
    acknowledged: u64,
}

/// Of one key, in order.
type History = (String, Vec<Written>);

/// Lets a node be written to; gives all that happened to its disk and to its keys.
fn write(fsync: &[&str]) -> (Vec<Record>, Vec<History>) {
    let dir = tempfile::tempdir().expect("a directory");
    let (data, log) = (dir.path().join("data"), dir.path().join("log"));
    let library = preload(dir.path());
    let [data, log_name] = [&data, &log].map(|path| path.to_str().expect("UTF-8"));
    let env = [("LD_PRELOAD", &*library), ("CHORDKV_TEST_DIR", data), ("CHORDKV_TEST_LOG", log_name)];
    let mut node = Process::node_in(&env, &[&["--data-dir", data], fsync].concat()).listening();
    node.wait_ready();
    let http = node.http;
    let histories = std::thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|client| scope.spawn(move || write_keys(Client::new(http), client, log_name))).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
    });
    node.kill();
    (read(&log), histories)
}

fn write_keys(mut client: Client, number: u64, log: &str) -> Vec<History> {
    let log_bytes = || fs::metadata(log).expect("a log").len();
    let mut all: Vec<History> = (0..KEYS_EACH).map(|key| (format!("key-{number}-{key}"), Vec::new())).collect();
    for n in 0..WRITES_EACH {
        // Some are written once, some again and again, large ones among them.
        let at = if n < KEYS_EACH { n } else { n * n % (KEYS_EACH / 2) };
        let (key, history) = &mut all[usize::try_from(at).expect("small")];
        let len = [9, 90, 900, 9_000].into_iter().cycle().nth(usize::try_from(n).expect("small")).expect("endless");
        let value = (n % 7 != 3).then(|| vec![u8::try_from(n % 251).expect("small"); len]);
        let asked = log_bytes();
        let answer = match &value {
            Some(value) => client.put(key.as_bytes(), value),
            None => client.delete(key.as_bytes()),
        };
        assert!(matches!(answer.expect("an answer").status, 201 | 204 | 404));
        history.push(Written { value, asked, acknowledged: log_bytes() });
    }
    all
}

/// Starts a node on what a disk may have that lost power where the log was `at` long. Gives the keys that are not as
/// somebody wrote them last, or as somebody was about to: all that was acknowledged before `safe` must be there.
fn wrong_after(records: &[Record], histories: &[History], at: u64, safe: u64, dir: &Path) -> Vec<String> {
    let mut random = RandomState::new().build_hasher().finish();
    let chance = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let until = records.partition_point(|record| record.end <= at);
    crash(&records[..until], dir, chance);
    let process = Process::node(&["--data-dir", dir.to_str().expect("UTF-8")]);
    let said = |text: &str| process.said().iter().any(|line| line.contains(text));
    wait_until("it listens or refuses", PATIENCE, || said("\"listening\"") || said("cannot be used"));
    if said("cannot be used") {
        return vec!["the whole store".to_owned()];
    }
    let node = process.listening();
    node.wait_ready();
    let mut client = node.client();
    let wrong = histories.iter().filter(|(key, history)| {
        let answer = client.read(key.as_bytes()).expect("an answer");
        let found = match answer.status {
            200 => Some(answer.body),
            404 => None,
            // Said, at least.
            500 => return true,
            status => panic!("{key}: {status} {}", answer.text()),
        };
        let somebodys = found.is_none() || history.iter().any(|written| written.value == found);
        assert!(somebodys, "{key} has a value that nobody wrote");
        let last = history.iter().rposition(|written| written.acknowledged <= safe);
        let may = history.iter().skip(last.unwrap_or(0)).filter(|written| written.asked < at);
        let is_fresh = last.is_none() && found.is_none();
        !is_fresh && may.map(|written| &written.value).all(|value| *value != found)
    });
    let wrong = wrong.map(|(key, _)| key.clone()).collect();
    node.has_not_panicked();
    wrong
}

/// Tries many images. `safe` says up to where the log must be kept if the power fails at some point of it. Gives the
/// images in which a key is wrong.
fn try_images(fsync: &[&str], safe: impl Fn(&[Record], u64) -> u64) -> Vec<String> {
    let (records, histories) = write(fsync);
    // Not before the node is somebody: until then nothing was acknowledged.
    let first = histories.iter().flat_map(|(_, history)| history).map(|written| written.asked).min().expect("writes");
    let last = records.last().expect("records").end;
    let images = std::env::var("CHORDKV_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(IMAGES);
    let mut all = Vec::new();
    for n in 0..images {
        let at = first + (last - first) * (n + 1) / images;
        let dir = tempfile::tempdir().expect("a directory");
        let wrong = wrong_after(&records, &histories, at, safe(&records, at), dir.path());
        if !wrong.is_empty() {
            all.push(format!("power cut after {at} of {last} bytes of the log: {}", wrong.join(", ")));
        }
    }
    all
}

#[test]
fn what_was_acknowledged_outlives_a_power_cut() {
    let _turn = side_by_side();
    let wrong = try_images(&[], |_, at| at);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What was acknowledged before the sync before the last one is there: the last one may not have covered all that was
/// acknowledged when it ended.
#[test]
fn with_syncs_at_intervals_a_power_cut_takes_the_latest_writes_only() {
    let _turn = side_by_side();
    let before_last_sync = |records: &[Record], at| {
        let syncs = records.iter().filter(|record| record.is_sync_of("-wal") && record.end <= at);
        syncs.rev().nth(1).map_or(0, |record| record.end)
    };
    let wrong = try_images(&["--fsync", "interval", "--fsync-interval", "20ms"], before_last_sync);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The images are worth something: without syncs they lose what was acknowledged.
#[test]
fn without_syncs_a_power_cut_loses_what_was_acknowledged() {
    let _turn = side_by_side();
    let wrong = try_images(&["--fsync", "never"], |_, at| at);
    assert!(!wrong.is_empty(), "nothing was lost though nothing was made safe");
}
