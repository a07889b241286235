//! How many hops a lookup takes.

use super::{BOTH, Lab, SEED, Section, put, two};
use crate::base::Span;
use crate::cli::sim::plot::{Mark, Plot, Scale};
use crate::overlay::Routing;
use crate::sim::experiment::fixed::{FixedRing, paths};
use crate::sim::experiment::stats::ratio;
use crate::sim::experiment::{NoRing, Plan};

/// A ring that nothing happens to, up to a million nodes.
#[allow(clippy::unnecessary_wraps)] // One of a table of sections, most of which can fail.
pub(super) fn fixed_ring(lab: &Lab) -> Result<Section, NoRing> {
    let largest = lab.size(20, 8);
    let lookups = lab.size(10_000, 500);
    let lists = [1, 16];
    let rings: Vec<FixedRing> = (3..=largest)
        .flat_map(|power| lists.map(|successors| FixedRing { seed: SEED, nodes: 1 << power, successors, lookups }))
        .collect();
    let found = lab.each("paths on fixed rings", &rings, paths);
    let mut section = Section::new(
        "Path length on a fixed ring",
        "Published (Chord, SIGCOMM 2001): the mean is about ½ log2 N, without the owner itself. Set-up: N nodes at random \
         places, nobody joins or leaves, the finger tables that production would have. With r = 1 the last column before \
         the owner is what was published; a list of 16 successors saves the last hops.",
    );
    put(&mut section.text, format_args!("{lookups} lookups of random ids from random nodes for each N.\n\n"));
    let mut rows = Vec::new();
    let mut drawn: [Vec<(f64, f64)>; 3] = Default::default();
    for (power, pair) in (3..=largest).zip(found.chunks(2)) {
        let (nodes, half) = (1_u64 << power, f64::from(power) / 2.0);
        let (bare, list) = (&pair[0], &pair[1]);
        rows.push(vec![
            nodes.to_string(),
            two(half),
            two(bare.mean() - 1.0),
            format!("{} to {}", bare.percentile(10).saturating_sub(1), bare.percentile(990).saturating_sub(1)),
            two(list.mean()),
        ]);
        for (points, mean) in drawn.iter_mut().zip([half, bare.mean() - 1.0, list.mean()]) {
            points.push((ratio(nodes, 1), mean));
        }
    }
    section.table(
        &["N", "½ log2 N (published)", "r = 1, before the owner", "1st to 99th percentile", "r = 16, owner counted"],
        &rows,
    );
    let [half, bare, list] = drawn;
    let plot = Plot::new("Path length on a fixed ring", ("nodes", Scale::Log(4)), ("mean hops", Scale::Linear))
        .with("½ log2 N (published)", Mark::Broken, half)
        .with("r = 1, before the owner", Mark::Line, bare)
        .with("r = 16, owner counted", Mark::Line, list);
    section.plot("path-fixed.svg", plot);
    Ok(section)
}

/// The whole protocol, from 8 nodes to 16,384.
pub(super) fn running_ring(lab: &Lab) -> Result<Section, NoRing> {
    let largest: u32 = lab.size(14, 6);
    let lookups = lab.size(5_000, 300);
    // The large ones first, so that no processor is left with one in the end.
    let powers: Vec<u32> = (3..=largest).rev().collect();
    let plans: Vec<Plan> =
        powers.iter().flat_map(|power| BOTH.map(|(routing, _)| running(1 << power, routing, lookups))).collect();
    let found = lab.runs("paths with the protocol running", &plans)?;
    let mut section = Section::new(
        "Path length with the protocol running",
        "Published: about ½ log2 N. Set-up: nodes join a ring of the size before it in waves, r = 16, then a minute of \
         rest, then lookups over 20 s while the protocol runs. Fingers-only nodes remember 256 peers, so that large rings \
         fit into memory; it makes no difference to where they route.",
    );
    put(&mut section.text, format_args!("{lookups} lookups for each N. Wrong owners and lookups without an answer: "));
    let wrong: usize = found.iter().map(|outcome| outcome.lookups.wrong + outcome.lookups.failed).sum();
    put(&mut section.text, format_args!("{wrong}.\n\n"));
    let mut rows = Vec::new();
    let mut drawn: [Vec<(f64, f64)>; 3] = Default::default();
    for (power, pair) in powers.iter().zip(found.chunks(2)).rev() {
        let (nodes, half) = (1_u64 << power, f64::from(*power) / 2.0);
        let [shipped, fingers] = [0, 1].map(|at| &pair[at].lookups.hops);
        rows.push(vec![
            nodes.to_string(),
            two(half),
            two(shipped.mean()),
            shipped.percentile(990).to_string(),
            two(fingers.mean()),
            fingers.percentile(990).to_string(),
            pair[0].grown_in.to_string(),
        ]);
        for (points, mean) in drawn.iter_mut().zip([half, shipped.mean(), fingers.mean()]) {
            points.push((ratio(nodes, 1), mean));
        }
    }
    section.table(
        &["N", "½ log2 N (published)", "as shipped", "99th", "fingers only", "99th", "time to grow (virtual)"],
        &rows,
    );
    let [half, shipped, fingers] = drawn;
    let plot =
        Plot::new("Path length with the protocol running", ("nodes", Scale::Log(4)), ("mean hops", Scale::Linear))
            .with("½ log2 N (published)", Mark::Broken, half)
            .with("as shipped", Mark::Line, shipped)
            .with("fingers only", Mark::Line, fingers);
    section.plot("path-running.svg", plot);
    Ok(section)
}

fn running(nodes: usize, routing: Routing, lookups: usize) -> Plan {
    let plan =
        Plan { slot_bits: 3, settle: Span::secs(60), duration: Span::secs(20), lookups, ..Plan::new(SEED, nodes) };
    let mut plan = plan.with_routing(routing);
    if routing == Routing::FingersOnly {
        plan.overlay.contacts_max = 256;
    }
    plan
}
