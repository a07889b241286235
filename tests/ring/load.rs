//! `bench`: it measures, leaves nothing behind and says what failed.

use serde_json::Value;

use crate::backup::{chordkv, text};
use crate::support::{Node, ring_of, side_by_side};

#[test]
fn a_load_is_measured_and_leaves_nothing_behind() {
    let _turn = side_by_side();
    let ring = ring_of(3, &[]);
    let http = ring.nodes[1].http;
    let args = ["bench", "--for", "1s", "--connections", "5", "--keys", "40", "--puts", "30"];
    let output = chordkv(http, &[&args[..], &["--json"]].concat(), None);
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["failed"], serde_json::json!({}));
    for (kind, share) in [("get", 70), ("put", 30)] {
        let requests = report[kind]["requests"].as_u64().expect("a number");
        let all = ["get", "put"].iter().filter_map(|kind| report[kind]["requests"].as_u64()).sum::<u64>();
        assert!((requests * 100 / all).abs_diff(share) < 15, "{report}");
        let at = |name: &str| report[kind][name].as_u64().expect("a number");
        assert!(0 < at("p50_us") && at("p50_us") <= at("p99_us") && at("p99_us") <= at("max_us"), "{report}");
        let bars = report[kind]["histogram"].as_array().expect("a list");
        assert_eq!(bars.iter().filter_map(|bar| bar["requests"].as_u64()).sum::<u64>(), requests);
    }
    let listed = chordkv(http, &["ls"], None);
    assert_eq!(text(&listed.stdout), "", "its keys are removed");

    let kept = chordkv(http, &[&args[..], &["--keep", "--prefix", "mine/", "--rate", "50"]].concat(), None);
    assert!(kept.status.success() && text(&kept.stdout).contains("gets that took less than"), "{kept:?}");
    let listed = chordkv(http, &["ls", "mine/"], None);
    assert_eq!(text(&listed.stdout).lines().count(), 40);
    // Fifty a second for a second.
    let shown: Vec<u64> = ["get", "put"].iter().map(|kind| requests(&text(&kept.stdout), kind)).collect();
    assert_eq!(shown.iter().sum::<u64>(), 50, "{kept:?}");
}

/// Of the table.
fn requests(shown: &str, kind: &str) -> u64 {
    let line = shown.lines().find(|line| line.starts_with(&format!("{kind} "))).expect("a line");
    line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a number")
}

#[test]
fn what_fails_under_load_is_counted() {
    let _turn = side_by_side();
    let mut full = Node::create(&["--max-bytes", "64KiB"]);
    full.wait_ready();
    let failed = chordkv(full.http, &["bench", "--for", "1s", "--keys", "40", "--value", "4000"], None);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(text(&failed.stderr).contains("of 40 keys could not be put"), "{failed:?}");
    full.kill();
    let failed = chordkv(full.http, &["bench", "--for", "1s", "--keys", "4"], None);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(text(&failed.stderr).contains("4 of 4 keys could not be put"), "{failed:?}");
}
