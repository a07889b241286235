//! `sim`: a simulated ring from the command line, and the published figures measured again.
//!
//! The experiments are in [`crate::sim::experiment`]; here they are set up, timed, drawn and written down.

mod args;
mod chart;
mod figures;
mod plot;

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use self::args::{RunArgs, SimCommand};
use super::failure::{Failure, say};
use super::progress::Bar;
use super::table::{Align, Table};
use super::text::{bytes, micros};
use crate::base::Span;
use crate::sim::experiment::{Outcome, Tally, run};

pub(super) use self::args::SIM_EXAMPLES;
pub use self::args::SimArgs;

/// `chordkv sim`.
pub(super) fn sim(args: &SimArgs, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        Some(SimCommand::Figures(figures)) => figures::write(figures, out),
        None => run_once(&args.run, out),
    }
}

fn run_once(args: &RunArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let plan = args.plan();
    let bar = Bar::new();
    let outcome =
        run(&plan, &mut |done| bar.show(done, "simulating")).map_err(|why| Failure::Failed(why.to_string()))?;
    drop(bar);
    let report = Report::of(&outcome);
    if args.json {
        // Numbers and strings always serialize.
        writeln!(out, "{}", serde_json::to_string_pretty(&report).unwrap_or_default())?;
    } else {
        report.show(out)?;
    }
    if let Some(dir) = &args.svg {
        for (name, plot) in chart::of_run(&outcome) {
            save(&dir.join(name), plot.svg().as_bytes())?;
        }
    }
    match outcome.lookups.wrong {
        0 => Ok(()),
        wrong => Err(Failure::Failed(format!("{wrong} lookups ended at a node that was not the owner"))),
    }
}

/// Writes a file, and the directory around it.
fn save(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let saved = fs::create_dir_all(parent).and_then(|()| fs::write(path, content));
    saved.map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", path.display())))
}

/// What a run showed; the JSON document. Equal for equal runs: nothing in it was measured by a real clock.
#[derive(Serialize)]
struct Report {
    grown_in_us: u64,
    members: usize,
    whole_after_us: Option<u64>,
    lookups: LookupReport,
    traffic: TrafficReport,
    events: EventReport,
    trace_hash: String,
}

#[derive(Serialize)]
struct LookupReport {
    asked: usize,
    failed: usize,
    retried: usize,
    wrong: usize,
    hops: Spread,
    hops_counted: Vec<(u64, usize)>,
    time_outs: Spread,
    took_us: Spread,
}

#[derive(Serialize)]
struct Spread {
    mean: f64,
    p50: u64,
    p99: u64,
    max: u64,
}

#[derive(Serialize)]
struct TrafficReport {
    messages: u64,
    messages_per_node_second: f64,
    bytes_per_node_second: f64,
    ring_bytes_per_node_second: f64,
}

#[derive(Serialize)]
struct EventReport {
    joined: u64,
    ended: u64,
    orphaned: u64,
    messages: u64,
    bytes: u64,
}

impl Spread {
    fn of(tally: &Tally) -> Self {
        let [p50, p99] = [500, 990].map(|at| tally.percentile(at));
        Self { mean: tally.mean(), p50, p99, max: tally.max() }
    }
}

impl Report {
    fn of(outcome: &Outcome) -> Self {
        let (lookups, traffic, counters) = (&outcome.lookups, &outcome.traffic, &outcome.counters);
        Self {
            grown_in_us: outcome.grown_in.0,
            members: outcome.members,
            whole_after_us: outcome.whole_after.map(|span| span.0),
            lookups: LookupReport {
                asked: lookups.asked,
                failed: lookups.failed,
                retried: lookups.retried,
                wrong: lookups.wrong,
                hops: Spread::of(&lookups.hops),
                hops_counted: lookups.hops.counts(),
                time_outs: Spread::of(&lookups.silent),
                took_us: Spread::of(&lookups.took),
            },
            traffic: TrafficReport {
                messages: traffic.messages,
                messages_per_node_second: traffic.messages_per_node(),
                bytes_per_node_second: traffic.bytes_per_node(),
                ring_bytes_per_node_second: traffic.ring_bytes_per_node(),
            },
            events: EventReport {
                joined: counters.joined,
                ended: counters.vanished + counters.crashed,
                orphaned: counters.orphaned,
                messages: counters.messages,
                bytes: counters.bytes,
            },
            trace_hash: format!("{:016x}", outcome.trace_hash),
        }
    }

    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let (lookups, events) = (&self.lookups, &self.events);
        writeln!(out, "ring        formed in {}, {} members at the end", Span(self.grown_in_us), self.members)?;
        writeln!(
            out,
            "events      {} joined, {} ended without a word, {} lost all neighbours",
            events.joined, events.ended, events.orphaned
        )?;
        match self.whole_after_us {
            Some(after) => writeln!(out, "mended      every pointer right {} after the end", Span(after))?,
            None => writeln!(out, "mended      not within two minutes after the end")?,
        }
        writeln!(
            out,
            "lookups     {} asked, {} failed, {} answered after a second attempt, {} wrong",
            lookups.asked, lookups.failed, lookups.retried, lookups.wrong
        )?;
        if self.traffic.messages > 0 {
            writeln!(
                out,
                "traffic     {:.1} messages and {:.0} B per node and second ({:.0} B of them for the ring)",
                self.traffic.messages_per_node_second,
                self.traffic.bytes_per_node_second,
                self.traffic.ring_bytes_per_node_second
            )?;
        }
        writeln!(out, "in all      {} messages, {}", events.messages, bytes(events.bytes))?;
        writeln!(out, "trace       {}\n", self.trace_hash)?;
        self.spreads(out)
    }

    fn spreads(&self, out: &mut dyn Write) -> io::Result<()> {
        let right = Align::Right;
        let mut table =
            Table::new(&[("A LOOKUP", Align::Left), ("MEAN", right), ("P50", right), ("P99", right), ("MAX", right)]);
        let lookups = &self.lookups;
        for (name, spread) in [("hops", &lookups.hops), ("time-outs", &lookups.time_outs)] {
            let whole = [spread.p50, spread.p99, spread.max].map(|n| n.to_string());
            let [p50, p99, max] = whole;
            table.push([name.to_owned(), format!("{:.2}", spread.mean), p50, p99, max]);
        }
        let took = &lookups.took_us;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A mean of unsigned numbers.
        let mean = took.mean.round() as u64;
        let [mean, p50, p99, max] = [mean, took.p50, took.p99, took.max].map(micros);
        table.push(["time".to_owned(), mean, p50, p99, max]);
        table.write(out)
    }
}

/// Says on standard error what is going on.
fn note(text: &str) {
    say(text);
}
