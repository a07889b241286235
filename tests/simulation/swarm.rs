//! Thousands of random runs, each some hundred events long. See `chordkv::sim::swarm` for the two modes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use chordkv::sim::Counters;
use chordkv::sim::swarm::{Event, Mode, Outcome, play, script, shrink};

use crate::seeds::for_fresh_seeds_on_all_cores;

/// Seeds that once found a wrong answer to a lookup; the last but two found a member that left while the checks at the end
/// ran, the last but one two rings with one contact between them, whose turn comes with that of thirty others, the last one
/// a newcomer whose successor died and all whose other neighbours left before it had noticed.
const FOUND: [u64; 13] = [
    1_795_686_069_135_877_849,
    1_795_685_756_141_372_677,
    5_000_030,
    5_001_241,
    6_001_539,
    6_001_677,
    7_001_209,
    8_000_849,
    8_001_256,
    12_002_846,
    1_795_659_375_208_749_200,
    1_795_697_657_667_220_156,
    1_795_708_540_022_937_697,
];
const EVENTS: usize = 500;
/// Runs that may be spent on making a failing script short.
const TRIES: usize = 150;

/// Plays the script of a seed, or of it the events that `CHORDKV_KEEP` lists. One that fails is made short and printed.
fn run(name: &str, seed: u64, mode: Mode) -> Outcome {
    let mut events = script(seed, mode, EVENTS);
    if let Ok(keep) = std::env::var("CHORDKV_KEEP") {
        events = keep.split(',').filter_map(|place| events.get(place.parse::<usize>().ok()?).copied()).collect();
        return play(seed, mode, &events);
    }
    catch_unwind(AssertUnwindSafe(|| play(seed, mode, &events))).unwrap_or_else(|_| {
        let fails = |part: &[Event]| catch_unwind(AssertUnwindSafe(|| play(seed, mode, part))).is_err();
        let keep = shrink(&events, TRIES, fails);
        eprintln!("\n{} of {} events are enough:", keep.len(), events.len());
        for place in &keep {
            eprintln!("{place:>4} {}", events[*place]);
        }
        let places: Vec<String> = keep.iter().map(ToString::to_string).collect();
        panic!(
            "replay the short one: CHORDKV_SEED={seed} CHORDKV_KEEP={} cargo test --test simulation {name}",
            places.join(",")
        );
    })
}

fn sum(name: &str, mode: Mode) -> Counters {
    let outcomes = Mutex::new(Vec::new());
    for_fresh_seeds_on_all_cores(name, &FOUND, 1_000, |seed| {
        let outcome = run(name, seed, mode);
        outcomes.lock().expect("nobody fails here").push(outcome);
    });
    let outcomes = outcomes.into_inner().expect("nobody fails here");
    let mut total = Counters::default();
    for outcome in &outcomes {
        total.add(&outcome.counters);
    }
    let slowest = outcomes.iter().map(|outcome| outcome.whole_after).max().unwrap_or_default();
    println!("{name}: {total:?}; whole at the latest {slowest} after the last fault");
    let introduced = outcomes.iter().filter(|outcome| outcome.introduced).count();
    assert!(introduced * 20 <= outcomes.len(), "rings lose sight of each other: {introduced} times");
    total
}

/// Every fault that a mode knows was met.
fn assert_all_met(faults: &[(&str, u64)]) {
    if std::env::var_os("CHORDKV_SEED").is_none() {
        let missed: Vec<_> = faults.iter().filter(|(_, times)| *times == 0).collect();
        assert!(missed.is_empty(), "never met: {missed:?}");
    }
}

#[test]
fn safe_swarm_keeps_the_invariant_at_every_step_and_answers_every_lookup_right() {
    let c = sum("safe_swarm_keeps_the_invariant_at_every_step_and_answers_every_lookup_right", Mode::Safe);
    assert_all_met(&[
        ("join", c.joined),
        ("leave", c.left),
        ("crash", c.crashed),
        ("restart", c.restarted),
        ("doubled frame", c.doubled),
        ("overtaken frame", c.passed),
        ("wall clock", c.wall_jumps),
        ("lookup", c.lookups),
        ("check", c.checks),
    ]);
}

#[test]
fn wild_swarm_is_one_ring_again_when_the_faults_are_over() {
    let c = sum("wild_swarm_is_one_ring_again_when_the_faults_are_over", Mode::Wild);
    assert_all_met(&[
        ("join", c.joined),
        ("leave", c.left),
        ("crash", c.crashed),
        ("dark host", c.vanished),
        ("restart", c.restarted),
        ("stopped process", c.frozen),
        ("orphan", c.orphaned),
        ("gone member", c.gone),
        ("lost frame", c.lost),
        ("doubled frame", c.doubled),
        ("overtaken frame", c.passed),
        ("blocked frame", c.blocked),
        ("broken connection", c.unheard),
        ("dial without an answer", c.dials_timed_out),
        ("wall clock", c.wall_jumps),
        ("lookup", c.lookups),
    ]);
}

#[test]
fn equal_seeds_give_equal_runs_in_both_modes() {
    for mode in [Mode::Safe, Mode::Wild] {
        let runs: Vec<Outcome> = [5, 5, 6].map(|seed| play(seed, mode, &script(seed, mode, 150))).into();
        assert_eq!(runs[0], runs[1], "{mode:?}");
        assert_ne!(runs[0].trace_hash, runs[2].trace_hash, "{mode:?}");
    }
}
