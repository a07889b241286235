//! What lookups, peace and change cost: time, bytes, and how evenly keys lie.

use super::{BOTH, Lab, SEED, Section, ms, put, two};
use crate::base::Span;
use crate::cli::sim::plot::{Mark, Plot, Scale};
use crate::sim::Latency;
use crate::sim::experiment::load::{Load, keys_per_node};
use crate::sim::experiment::rings::{Joins, Split, joins, merge};
use crate::sim::experiment::stats::ratio;
use crate::sim::experiment::{NoRing, Plan, Tally};

/// The set-up of Li et al. 2005.
pub(super) fn latency(lab: &Lab) -> Result<Section, NoRing> {
    let nodes = lab.size(1_024, 64);
    let duration = Span::secs(lab.size(600, 120));
    let seconds = duration.as_millis() / 1_000;
    let plan = Plan {
        latency: Latency::Plane { median_round_trip: Span::millis(156) },
        settle: Span::secs(120),
        // Sessions of an hour: each hour as many nodes end as there are.
        churn_per_hour: nodes as u64,
        duration,
        // A lookup per node and 600 s.
        lookups: nodes * usize::try_from(seconds).unwrap_or(0) / 600,
        ..Plan::new(SEED, nodes)
    };
    let found = lab.runs("latency", &BOTH.map(|(routing, _)| plan.clone().with_routing(routing)))?;
    let mut section = Section::new(
        "Time of a lookup",
        "Published (Li et al., INFOCOM 2005): one-hop tables 160 ms at 10 B per node and second, Chord of base 2 226 ms at \
         40 B. Set-up: hosts on a plane with a median round trip of 156 ms, sessions of an hour on average, a lookup per \
         node and 600 s, the defaults of `chordkv node` otherwise, its 1,024 slots included. The paper ran for hours and \
         counted its own message format over UDP; what is counted here is the payload of every message, maintenance of the \
         slots included. Peers speak TCP: where a lookup meets a peer that nothing was said to for a minute, which at this \
         rate is nearly always, it first waits a round trip for the connection and one for the hello.",
    );
    put(&mut section.text, format_args!("{nodes} nodes for {seconds} s.\n\n"));
    let mut rows = vec![
        ["one-hop tables, published", "160 ms", "", "", "", "10", ""].map(str::to_owned).to_vec(),
        ["Chord base 2, published", "226 ms", "", "", "", "40", ""].map(str::to_owned).to_vec(),
    ];
    for ((_, routing), got) in BOTH.iter().zip(&found) {
        let (lookups, traffic) = (&got.lookups, &got.traffic);
        rows.push(vec![
            (*routing).to_owned(),
            ms(lookups.took.mean()),
            ms(ratio(lookups.took.percentile(500), 1)),
            ms(ratio(lookups.took.percentile(990), 1)),
            two(lookups.hops.mean()),
            format!("{:.0}", traffic.bytes_per_node()),
            format!("{} of {}", lookups.failed, lookups.asked),
        ]);
    }
    section.table(&["routing", "mean", "median", "99th percentile", "hops", "B per node and s", "no answer"], &rows);
    let mut plot =
        Plot::new("Time of a lookup", ("at most so many ms", Scale::Log(10)), ("% of lookups", Scale::Linear));
    for ((_, routing), got) in BOTH.iter().zip(&found) {
        let at = |percent: usize| (ratio(got.lookups.took.percentile(percent * 10), 1_000), ratio(percent as u64, 1));
        plot = plot.with(routing, Mark::Line, (1..=100).map(at));
    }
    section.plot("latency.svg", plot);
    Ok(section)
}

/// Bytes per node and second.
pub(super) fn traffic(lab: &Lab) -> Result<Section, NoRing> {
    let sizes: &[usize] = lab.size(&[5, 20, 100, 300, 1_000], &[5, 20]);
    let (settle, duration) = (Span::secs(lab.size(300, 60)), Span::secs(lab.size(120, 60)));
    let rest = |nodes| Plan { settle, duration, ..Plan::new(SEED, nodes) };
    // Each node lives for half an hour on average.
    let churn = |nodes: usize| Plan { churn_per_hour: nodes as u64 * 2, settle: Span::secs(60), ..rest(nodes) };
    let plans: Vec<Plan> = sizes.iter().rev().flat_map(|nodes| [rest(*nodes), churn(*nodes)]).collect();
    let found = lab.runs("traffic", &plans)?;
    let mut section = Section::new(
        "Bytes per node and second",
        "Promised: under 400 B in a ring of 5 at rest, under 1 kB in a ring of 1,000, maintenance and membership together. \
         Set-up: the defaults of `chordkv node`, nobody asks anything; *at rest* from five minutes after the last join on, \
         *under churn* while each node lives for half an hour on average and its host then vanishes. Counted is the payload \
         of all messages sent.",
    );
    let mut rows = Vec::new();
    let mut drawn: [Vec<(f64, f64)>; 2] = Default::default();
    for (nodes, pair) in sizes.iter().zip(found.chunks(2).rev()) {
        let [rest, churn] = [0, 1].map(|at| &pair[at].traffic);
        rows.push(vec![
            nodes.to_string(),
            format!("{:.0}", rest.bytes_per_node()),
            two(rest.messages_per_node()),
            format!("{:.0}", churn.bytes_per_node()),
            two(churn.messages_per_node()),
        ]);
        for (points, traffic) in drawn.iter_mut().zip([rest, churn]) {
            points.push((ratio(*nodes as u64, 1), traffic.bytes_per_node()));
        }
    }
    section.table(&["N", "B at rest", "messages at rest", "B under churn", "messages under churn"], &rows);
    let [rest, churn] = drawn;
    let plot = Plot::new("Traffic", ("nodes", Scale::Log(10)), ("payload bytes per node and second", Scale::Linear))
        .with("at rest", Mark::Line, rest)
        .with("under churn", Mark::Line, churn);
    section.plot("traffic.svg", plot);
    Ok(section)
}

/// How long nodes take to get in, and rings to become one.
pub(super) fn joins_and_merges(lab: &Lab) -> Result<Section, NoRing> {
    let sizes: &[usize] = lab.size(&[8, 64, 512, 1_000], &[8, 32]);
    let count = lab.size(50, 5);
    let joined =
        lab.each("joins", sizes, |nodes| joins(&Plan { settle: Span::secs(60), ..Plan::new(SEED, *nodes) }, count));
    let joined: Vec<Joins> = joined.into_iter().collect::<Result<_, _>>()?;
    let mut section = Section::new(
        "Joins and merges",
        "Set-up: nodes join a ring at rest one after the other, through one random seed; one way takes 0.1 to 20 ms. \
         *Member*: it has its place and answers. *Whole*: every successor list of the ring names it.",
    );
    put(&mut section.text, format_args!("{count} joiners for each N.\n\n"));
    let times = |tally: &Tally| [500, 990].map(|at| ms(ratio(tally.percentile(at), 1)));
    let rows: Vec<Vec<String>> = sizes
        .iter()
        .zip(&joined)
        .map(|(nodes, got)| {
            let [[m50, m99], [w50, w99]] = [times(&got.member), times(&got.whole)];
            vec![nodes.to_string(), m50, m99, w50, w99]
        })
        .collect();
    section.table(&["N", "member, median", "99th", "whole, median", "99th"], &rows);
    merges(lab, &mut section)?;
    Ok(section)
}

fn merges(lab: &Lab, section: &mut Section) -> Result<(), NoRing> {
    let nodes = lab.size(1_024, 48);
    let splits = [
        (Split::Arcs(2), "two arcs", 150),
        (Split::Interleaved(2), "two, interleaved", 150),
        (Split::Interleaved(3), "three, interleaved", 250),
    ];
    let seeds: Vec<(usize, u64)> =
        (0..splits.len()).flat_map(|at| (1..=lab.size(3, 1)).map(move |seed| (at, seed))).collect();
    let took = lab.each("merges", &seeds, |(at, seed)| {
        let plan = Plan { slot_bits: 3, ..Plan::new(*seed, nodes) };
        merge(&plan, splits[*at].0, Span::secs(splits[*at].2))
    });
    let took: Vec<Option<Span>> = took.into_iter().collect::<Result<_, _>>()?;
    put(
        &mut section.text,
        format_args!(
            "Rings that were apart for 90 s and can reach each other again; a round is a second. A prototype of this \
             project took a median of 70 rounds for two interleaved rings, 98 for three, 12 for two arcs. {nodes} nodes in \
             all, one column for each seed.\n\n"
        ),
    );
    let of = |at: usize| took.iter().zip(&seeds).filter(move |(_, (split, _))| *split == at);
    let seconds = |took: &Option<Span>| took.map_or("not one".to_owned(), |took| took.to_string());
    let rows: Vec<Vec<String>> = splits
        .iter()
        .enumerate()
        .map(|(at, (_, name, most))| {
            let fixed = [(*name).to_owned(), format!("{most} s")];
            fixed.into_iter().chain(of(at).map(|(took, _)| seconds(took))).collect()
        })
        .collect();
    let head: Vec<String> = (1..=of(0).count()).map(|seed| format!("seed {seed}")).collect();
    let head: Vec<&str> = ["rings", "promised"].into_iter().chain(head.iter().map(String::as_str)).collect();
    section.table(&head, &rows);
    Ok(())
}

/// Keys per node.
#[allow(clippy::unnecessary_wraps)] // One of a table of sections, most of which can fail.
pub(super) fn load(lab: &Lab) -> Result<Section, NoRing> {
    let (nodes, keys) = (lab.size(10_000, 500), lab.size(1_000_000, 20_000));
    let places = [1, 2, 5, 10, 20];
    let loads = places.map(|places| Load { seed: SEED, nodes, places, slot_bits: None, keys });
    let mut section = Section::new(
        "Keys per node",
        "Published (Chord, SIGCOMM 2001): with 10^4 nodes and 10^6 keys the 99th percentile of keys per node falls from \
         4.8 to 1.6 times the mean as a node takes 1 to 20 places on the circle (virtual nodes).",
    );
    put(&mut section.text, format_args!("{nodes} nodes, {keys} keys, by consistent hashing as published:\n\n"));
    let times = |tally: &Tally, at| two(ratio(tally.percentile(at), 1) / tally.mean());
    let found = lab.each("keys per node", &loads, keys_per_node);
    let rows: Vec<Vec<String>> = places
        .iter()
        .zip(&found)
        .map(|(places, got)| {
            let published = match places {
                1 => "4.8",
                20 => "1.6",
                _ => "",
            };
            let mut row = vec![places.to_string(), published.to_owned()];
            row.extend([times(got, 990), times(got, 10), times(got, 1_000)]);
            row
        })
        .collect();
    section.table(&["virtual nodes", "99th / mean, published", "99th / mean", "1st / mean", "most / mean"], &rows);
    let points = |at: usize| {
        places
            .iter()
            .zip(&found)
            .map(move |(places, got)| (ratio(*places as u64, 1), ratio(got.percentile(at), 1) / got.mean()))
    };
    let plot = Plot::new("Keys per node", ("virtual nodes", Scale::Linear), ("times the mean", Scale::Linear))
        .with("99th percentile, published", Mark::Broken, [(1.0, 4.8), (20.0, 1.6)])
        .with("99th percentile", Mark::Line, points(990))
        .with("1st percentile", Mark::Line, points(10));
    section.plot("load.svg", plot);
    slots(lab, keys, &mut section);
    Ok(section)
}

fn slots(lab: &Lab, keys: usize, section: &mut Section) {
    section.text.push_str(
        "chordkv has no virtual nodes: keys lie in slots, 1,024 unless the ring was created with others, and a slot with the \
         first node after its last id. Of the paper's spread that keeps the arcs between nodes and rounds them to whole \
         slots, so rings that are large for their slots have nodes without keys. The busiest node and the least busy one of \
         ten, times the mean:\n\n",
    );
    let cases: Vec<(usize, Option<u32>)> = [5, 10, 100, 1_000]
        .into_iter()
        .flat_map(|nodes| [None, Some(10), Some(16)].map(|bits| (nodes, bits)))
        .collect();
    let most = lab.each("keys per node, by slots", &cases, |(nodes, slot_bits)| {
        // Small rings differ much from each other: the mean of some.
        let rings = (1_000 / nodes).clamp(1, 50);
        let times = |seed, at| {
            let load = Load { seed, nodes: *nodes, places: 1, slot_bits: *slot_bits, keys: keys / 10 };
            let tally = keys_per_node(&load);
            ratio(tally.percentile(at), 1) / tally.mean()
        };
        let mean = |at| (1..=rings as u64).map(|seed| times(seed, at)).sum::<f64>() / ratio(rings as u64, 1);
        (mean(1_000), mean(100))
    });
    let rows: Vec<Vec<String>> = cases
        .chunks(3)
        .zip(most.chunks(3))
        .map(|(cases, spreads)| {
            let cells = spreads.iter().map(|(most, least)| format!("{most:.2} / {least:.2}"));
            std::iter::once(cases[0].0.to_string()).chain(cells).collect()
        })
        .collect();
    section.table(&["N", "by key, as published", "1,024 slots (default)", "65,536 slots"], &rows);
}
