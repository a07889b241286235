//! Lookups while nodes end without a word: tables II and III of the Chord journal paper.

use super::{BOTH, Lab, SEED, Section, put, two};
use crate::base::Span;
use crate::cli::sim::plot::{Mark, Plot, Scale};
use crate::sim::experiment::stats::ratio;
use crate::sim::experiment::{Departure, NoRing, Outcome, Plan};

/// Table II of Stoica et al. (`ToN` 2003): per mille killed, mean path, time-outs per lookup.
const TABLE_II: [(u64, f64, f64); 6] =
    [(0, 3.84, 0.0), (100, 4.03, 0.60), (200, 4.22, 1.17), (300, 4.44, 2.02), (400, 4.69, 3.23), (500, 5.09, 5.10)];

/// Table III: joins and leaves an hour, time-outs per lookup, failures per 10,000.
const TABLE_III: [(u64, f64, f64); 8] = [
    (180, 0.05, 0.0),
    (360, 0.11, 0.0),
    (540, 0.16, 2.0),
    (720, 0.23, 5.0),
    (900, 0.30, 6.0),
    (1_080, 0.34, 8.0),
    (1_260, 0.42, 16.0),
    (1_440, 0.46, 15.0),
];

/// The first kind is the one of the paper.
const KINDS: [(Departure, &str); 2] = [(Departure::Silent, "hosts vanish"), (Departure::Crash, "processes crash")];

/// A share of all nodes ends at one moment; lookups right after.
pub(super) fn killed_at_once(lab: &Lab) -> Result<Section, NoRing> {
    let (nodes, lookups) = (lab.size(1_000, 60), lab.size(10_000, 300));
    let cases = || KINDS.into_iter().flat_map(|kind| BOTH.map(|routing| (kind, routing)));
    let plan = |departure, routing, killed_per_mille| {
        let plan = Plan { successors: 20, slot_bits: 3, settle: Span::secs(60), ..Plan::new(SEED, nodes) };
        Plan { killed_per_mille, departure, lookups, ..plan }.with_routing(routing)
    };
    let plans: Vec<Plan> = cases()
        .flat_map(|((kind, _), (routing, _))| TABLE_II.map(|(killed, ..)| plan(kind, routing, killed)))
        .collect();
    let found = lab.runs("nodes killed at once", &plans)?;
    let mut section = Section::new(
        "Nodes killed at once (table II)",
        "Published (Chord, ToN 2003): mean path 3.84 to 5.09 and 0 to 5.10 time-outs per lookup; an independent \
         re-simulation measured 5.50 and 6.94 with half the nodes gone; no lookup failed. Set-up: r = 20, a share of the \
         nodes ends at one moment, all lookups are asked at that moment from random nodes that live, before anybody has \
         noticed. *Hosts vanish*: nobody is told, as in the paper; a time-out is a node on the way that did not answer in \
         time. *Processes crash*: connections break, as when a process is killed. *Of all attempts*: with the time-outs \
         of attempts that came to nothing, and of the upkeep of fingers meanwhile; they are counted at whoever waited.",
    );
    put(&mut section.text, format_args!("{nodes} nodes, {lookups} lookups.\n\n"));
    for (((_, kind), (_, routing)), found) in cases().zip(found.chunks(TABLE_II.len())) {
        put(&mut section.text, format_args!("**{kind}, {routing}**\n\n"));
        let rows: Vec<Vec<String>> =
            TABLE_II.iter().zip(found).map(|(published, got)| row_ii(*published, got)).collect();
        section.table(&HEAD_II, &rows);
    }
    for (name, title, y, of) in PLOTS_II {
        let mut plot = Plot::new(title, ("% of nodes killed at once", Scale::Linear), (y, Scale::Linear));
        plot = plot.with("published", Mark::Broken, TABLE_II.map(|row| (percent(row.0), [row.1, row.2][of])));
        for (((_, kind), (_, routing)), found) in cases().zip(found.chunks(TABLE_II.len())) {
            let value = |got: &Outcome| [got.lookups.hops.mean(), got.lookups.silent.mean()][of];
            let points = TABLE_II.iter().zip(found).map(|(row, got)| (percent(row.0), value(got)));
            plot = plot.with(&format!("{kind}, {routing}"), Mark::Line, points);
        }
        section.plot(name, plot);
    }
    Ok(section)
}

const HEAD_II: [&str; 9] = [
    "killed",
    "path, published",
    "path",
    "time-outs, published",
    "time-outs",
    "99th",
    "time-outs of all attempts, at most",
    "no answer",
    "wrong owner",
];
const PLOTS_II: [(&str, &str, &str, usize); 2] = [
    ("killed-path.svg", "Path length after a kill", "mean hops", 0),
    ("killed-timeouts.svg", "Time-outs after a kill", "time-outs per lookup", 1),
];

fn row_ii((killed, path, time_outs): (u64, f64, f64), got: &Outcome) -> Vec<String> {
    let lookups = &got.lookups;
    vec![
        format!("{} %", killed / 10),
        two(path),
        two(lookups.hops.mean()),
        two(time_outs),
        two(lookups.silent.mean()),
        lookups.silent.percentile(990).to_string(),
        two(lookups.time_outs_at_most()),
        lookups.failed.to_string(),
        lookups.wrong.to_string(),
    ]
}

fn percent(per_mille: u64) -> f64 {
    ratio(per_mille, 10)
}

/// Nodes join and end all the time.
pub(super) fn under_churn(lab: &Lab) -> Result<Section, NoRing> {
    let (nodes, lookups) = (lab.size(1_000, 60), lab.size(10_000, 300));
    let duration = Span::secs(lab.size(300, 60));
    let plan = |routing, churn_per_hour| {
        let plan = Plan { successors: 20, slot_bits: 3, settle: Span::secs(60), ..Plan::new(SEED, nodes) };
        Plan { churn_per_hour, duration, lookups, ..plan }.with_routing(routing)
    };
    let plans: Vec<Plan> =
        BOTH.iter().flat_map(|(routing, _)| TABLE_III.map(|(rate, ..)| plan(*routing, rate))).collect();
    let found = lab.runs("nodes join and end all the time", &plans)?;
    let mut section = Section::new(
        "Nodes join and end all the time (table III)",
        "Published (Chord, ToN 2003): 0.05 to 0.46 time-outs per lookup and up to 16 failures in 10,000 at 0.05 to 0.40 \
         joins and as many ends per second; an independent re-simulation measured 0.08 to 0.67 and 6 to 59. Set-up: \
         r = 20; hosts vanish without a word. *Failures at the first attempt* are lookups that had no answer when their \
         origin began again, after 1.5 s: more than would have failed without that. *No answer* is what users \
         see: none before the deadline of 10 s.",
    );
    let seconds = duration.as_millis() / 1_000;
    put(&mut section.text, format_args!("{nodes} nodes, {lookups} lookups, spread over {seconds} s.\n\n"));
    for ((_, routing), found) in BOTH.iter().zip(found.chunks(TABLE_III.len())) {
        put(&mut section.text, format_args!("**{routing}**\n\n"));
        let rows: Vec<Vec<String>> =
            TABLE_III.iter().zip(found).map(|(published, got)| row_iii(*published, got)).collect();
        section.table(&HEAD_III, &rows);
    }
    for (name, title, y, of) in PLOTS_III {
        let mut plot = Plot::new(title, ("joins, and ends, per second", Scale::Linear), (y, Scale::Linear));
        plot = plot.with("published", Mark::Broken, TABLE_III.map(|row| (ratio(row.0, 3_600), [row.1, row.2][of])));
        for ((_, routing), found) in BOTH.iter().zip(found.chunks(TABLE_III.len())) {
            let value = |got: &Outcome| [got.lookups.silent.mean(), got.lookups.unanswered_at_first_of_10_000()][of];
            let points = TABLE_III.iter().zip(found).map(|(row, got)| (ratio(row.0, 3_600), value(got)));
            plot = plot.with(routing, Mark::Line, points);
        }
        section.plot(name, plot);
    }
    Ok(section)
}

const HEAD_III: [&str; 9] = [
    "rate",
    "path",
    "time-outs, published",
    "time-outs",
    "failures per 10,000, published",
    "failures at the first attempt",
    "no answer",
    "wrong owner",
    "B per node and s",
];
const PLOTS_III: [(&str, &str, &str, usize); 2] = [
    ("churn-timeouts.svg", "Time-outs under churn", "time-outs per lookup", 0),
    ("churn-failures.svg", "Failures under churn", "failures at the first attempt per 10,000", 1),
];

fn row_iii((rate, time_outs, failures): (u64, f64, f64), got: &Outcome) -> Vec<String> {
    let lookups = &got.lookups;
    vec![
        two(ratio(rate, 3_600)),
        two(lookups.hops.mean()),
        two(time_outs),
        format!("{:.3}", lookups.silent.mean()),
        format!("{failures:.0}"),
        format!("{:.1}", lookups.unanswered_at_first_of_10_000()),
        format!("{:.1}", lookups.failed_of_10_000()),
        lookups.wrong.to_string(),
        format!("{:.0}", got.traffic.bytes_per_node()),
    ]
}
