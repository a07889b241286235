//! How fast the simulator is, by a real clock; what a node costs in it.

use std::fs;
use std::time::{Duration, Instant};

use super::{Lab, SEED, Section, note, put, two};
use crate::base::Span;
use crate::sim::Check;
use crate::sim::experiment::stats::ratio;
use crate::sim::experiment::{NoRing, Outcome, Plan, run};

struct Timed {
    outcome: Outcome,
    /// From the first node on.
    whole: Duration,
    /// Of `whole`, after the ring had grown and come to rest.
    work: Duration,
    /// Resident memory of the process at the end over that before, in bytes, where the system says so.
    memory: Option<u64>,
}

/// Messages per second, what the checker costs, what a node costs as rings grow.
pub(super) fn speed(lab: &Lab) -> Result<Section, NoRing> {
    let sizes: &[usize] = lab.size(&[100, 1_000, 10_000], &[20, 50]);
    let plan = |nodes, check| {
        let (settle, duration) = (Span::secs(10), Span::secs(lab.size(30, 10)));
        Plan { slot_bits: 3, check, settle, duration, lookups: 3_000, ..Plan::new(SEED, nodes) }
    };
    let mut section = Section::new(
        "Speed of the simulator",
        "Promised: 200,000 delivered messages per second on one core at N = 1,000 with the ring invariant checked at every \
         step; N = 10,000 in under 8 GB; a cost per node that grows at most as log N. Timed by the clock of the machine \
         that made this report, one run at a time. Every message passes through the codec.",
    );
    let checked_at = lab.size(1_000, 50);
    let mut rows = Vec::new();
    for (check, name) in [(Check::Ring, "ring invariant"), (Check::Nodes, "nodes only")] {
        let got = timed(lab, &plan(checked_at, check))?;
        let per_second = |messages: u64, time: Duration| format!("{:.0}", ratio(messages, 1) / time.as_secs_f64());
        rows.push(vec![
            name.to_owned(),
            got.outcome.counters.messages.to_string(),
            per_second(got.outcome.counters.messages, got.whole),
            per_second(got.outcome.traffic.messages, got.work),
            got.outcome.counters.checks.to_string(),
        ]);
    }
    put(&mut section.text, format_args!("{checked_at} nodes, with and without the checker:\n\n"));
    section
        .table(&["checked", "messages", "messages/s, with growth", "messages/s, at work", "checks of the ring"], &rows);
    let mut rows = Vec::new();
    for nodes in sizes {
        let got = timed(lab, &plan(*nodes, Check::Nodes))?;
        let (traffic, count) = (&got.outcome.traffic, ratio(*nodes as u64, 1));
        rows.push(vec![
            nodes.to_string(),
            two(traffic.messages_per_node()),
            two(got.work.as_secs_f64() * 1e6 / ratio(traffic.messages, 1)),
            two(got.work.as_secs_f64() * 1e6 / ratio(traffic.member_ms, 1_000)),
            format!("{:.1} s", got.whole.as_secs_f64()),
            got.memory.map_or("not known".to_owned(), |bytes| format!("{:.0} MB", ratio(bytes, 1_000_000))),
            got.memory.map_or("not known".to_owned(), |bytes| format!("{:.0} kB", ratio(bytes, 1_000) / count)),
        ]);
    }
    section.text.push_str("What a node costs as rings grow, 3,000 lookups on the way:\n\n");
    section.table(
        &[
            "N",
            "messages per node and virtual s",
            "µs per message",
            "µs per node and virtual s",
            "whole run",
            "memory",
            "per node",
        ],
        &rows,
    );
    Ok(section)
}

fn timed(lab: &Lab, plan: &Plan) -> Result<Timed, NoRing> {
    let before = resident();
    let begun = Instant::now();
    let mut at_work = None;
    let mut memory = None;
    let outcome = run(plan, &mut |done| {
        lab.show("speed", usize::try_from(done).unwrap_or(0), 1_000);
        // Told first when its work begins to be sampled: of its hundred samples one is missed.
        if done > 300 && at_work.is_none() {
            at_work = Some(Instant::now());
        }
        memory = resident().zip(before).map(|(now, before)| now.saturating_sub(before));
    })?;
    let work = at_work.map_or(Duration::ZERO, |at| at.elapsed());
    if before.is_none() {
        note("this system does not say how much memory a process has");
    }
    Ok(Timed { outcome, whole: begun.elapsed(), work, memory })
}

/// Resident memory of this process, as Linux tells it.
fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1_024)
}
