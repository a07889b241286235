//! Lookups while nodes end without a word, in the set-ups of the Chord papers (`protocol.md` section 7).

use chordkv::base::Span;
use chordkv::overlay::Routing;
use chordkv::sim::experiment::{Outcome, Plan, run};

use crate::seeds::for_fixed_seeds;

const BOTH: [Routing; 2] = [Routing::FingersOnly, Routing::Opportunistic];

fn played(plan: &Plan) -> Outcome {
    let outcome = run(plan, &mut |_| {}).expect("a ring");
    let lookups = &outcome.lookups;
    println!(
        "seed {} {:?}: path {:.2}, time-outs {:.2}, of {} {} in a second attempt, {} not, {} wrong",
        plan.seed,
        plan.overlay.routing,
        lookups.hops.mean(),
        lookups.silent.mean(),
        lookups.asked,
        lookups.retried,
        lookups.failed,
        lookups.wrong
    );
    assert_eq!(lookups.wrong, 0, "wrong owners");
    outcome
}

/// Table II of the journal paper, its last row: path 5.09 and 5.10 time-outs; re-simulated 5.50 and 6.94.
#[test]
fn half_killed_1000_r20() {
    for_fixed_seeds("half_killed_1000_r20", 1, |seed| {
        for routing in BOTH {
            let plan = Plan { successors: 20, killed_per_mille: 500, settle: Span::secs(60), ..Plan::new(seed, 1_000) };
            let outcome = played(&Plan { lookups: 10_000, ..plan }.with_routing(routing));
            let (path, time_outs) = (outcome.lookups.hops.mean(), outcome.lookups.silent.mean());
            let most = if routing == Routing::FingersOnly { (5.09, 2.8, 5.1) } else { (3.0, 2.0, 5.1) };
            assert_eq!(outcome.lookups.asked, 10_000);
            assert_eq!(outcome.lookups.failed, 0, "without an answer");
            assert!(path <= most.0 && time_outs <= most.1, "path {path}, {time_outs} time-outs");
            let in_all = outcome.lookups.time_outs_at_most();
            assert!(in_all <= most.2, "{in_all} time-outs in all attempts");
            println!("{routing:?}: path {path}, {time_outs} time-outs, {in_all} in all attempts");
        }
    });
}

/// Table III, its last row: 0.46 time-outs and 15 failures in 10,000, of which here none is left in the end.
#[test]
fn churn_0_40_per_second() {
    for_fixed_seeds("churn_0_40_per_second", 1, |seed| {
        for routing in BOTH {
            let plan = Plan { successors: 20, churn_per_hour: 1_440, ..Plan::new(seed, 1_000) };
            let plan = Plan { duration: Span::secs(60), lookups: 2_000, ..plan };
            let outcome = played(&plan.with_routing(routing));
            assert!(outcome.counters.vanished > 10, "nobody ended");
            assert_eq!(outcome.lookups.failed, 0, "without an answer");
            let (failures, time_outs) =
                (outcome.lookups.unanswered_at_first_of_10_000(), outcome.lookups.silent.mean());
            assert!(
                failures <= 15.0 && time_outs <= 0.46,
                "{failures} in 10,000 failed at first, {time_outs} time-outs"
            );
        }
    });
}
