//! The plots of one run.

use super::plot::{Mark, Plot, Scale};
use crate::base::Span;
use crate::sim::experiment::Outcome;
use crate::sim::experiment::stats::ratio;

/// File names and plots.
pub(super) fn of_run(outcome: &Outcome) -> Vec<(&'static str, Plot)> {
    let lookups = &outcome.lookups;
    let share = |count: usize| ratio(count as u64 * 100, lookups.hops.count() as u64);
    let hops = lookups.hops.counts().into_iter().map(|(hops, count)| (ratio(hops, 1), share(count)));
    let took = (1..=100).map(|percent| (ratio(lookups.took.percentile(percent * 10), 1_000), ratio(percent as u64, 1)));
    let seconds = |span: Span| ratio(span.as_millis(), 1_000);
    let samples = &outcome.traffic.samples;
    vec![
        (
            "hops.svg",
            Plot::new("Hops of a lookup", ("hops", Scale::Linear), ("% of lookups", Scale::Linear)).with(
                "lookups",
                Mark::Bars,
                hops,
            ),
        ),
        (
            "times.svg",
            Plot::new("Time of a lookup", ("at most so many ms", Scale::Log(10)), ("% of lookups", Scale::Linear))
                .with("lookups", Mark::Line, took),
        ),
        (
            "members.svg",
            Plot::new("Members", ("s", Scale::Linear), ("nodes", Scale::Linear)).with(
                "members",
                Mark::Line,
                samples.iter().map(|sample| (seconds(sample.at), ratio(sample.members as u64, 1))),
            ),
        ),
        (
            "bytes.svg",
            Plot::new("Traffic", ("s", Scale::Linear), ("payload bytes per node and second", Scale::Linear)).with(
                "all messages",
                Mark::Line,
                samples.iter().map(|sample| (seconds(sample.at), sample.bytes)),
            ),
        ),
    ]
}
