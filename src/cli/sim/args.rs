//! The grammar of `chordkv sim`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::super::values;
use super::figures::NAMES;
use crate::base::Span;
use crate::data::http::duration;
use crate::overlay::Routing;
use crate::sim::Latency;
use crate::sim::experiment::{Departure, Plan};

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SimArgs {
    #[command(subcommand)]
    pub(super) command: Option<SimCommand>,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum SimCommand {
    /// Measure what papers published in the same set-ups, and write it down with plots
    #[command(after_help = FIGURES_EXAMPLES)]
    Figures(FiguresArgs),
}

#[derive(Clone, Debug, Args)]
pub(super) struct RunArgs {
    /// Nodes at the beginning
    #[arg(long, value_name = "N", default_value = "100", value_parser = nodes)]
    nodes: usize,
    /// Virtual time after the ring has formed
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = time)]
    duration: Span,
    /// Everything is drawn from it: equal seeds give equal runs
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Joins per second, and as many nodes that end without a word
    #[arg(long, value_name = "RATE", default_value = "0", value_parser = churn_per_hour, allow_negative_numbers = true)]
    churn: u64,
    /// Share of the nodes that end at one moment, at the beginning of the duration
    #[arg(long, value_name = "FRACTION", default_value = "0", value_parser = per_mille)]
    kill: u64,
    /// How long a message takes: drawn evenly for each, or by places on a plane with this median round trip
    #[arg(
        long,
        value_name = "uniform:MIN..MAX|plane:MEDIAN",
        default_value = "uniform:100us..20ms",
        value_parser = latency
    )]
    latency: Latency,
    /// Where lookups go: to every node that was heard of, or as published
    #[arg(long, value_name = "opportunistic|fingers", default_value = "opportunistic", value_parser = values::routing)]
    routing: Routing,
    /// Lookups of random ids at random nodes, spread over the duration
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(..=LOOKUPS_MAX))]
    lookups: u32,
    /// Length of the successor lists
    #[arg(long, value_name = "R", default_value = "16", value_parser = values::successors)]
    successors: usize,
    /// Print a JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// Also draw plots, as SVG files in this directory
    #[arg(long, value_name = "DIR")]
    pub(super) svg: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct FiguresArgs {
    /// Directory for figures.md and its plots
    #[arg(long, value_name = "DIR", default_value = "docs")]
    pub out: PathBuf,
    /// Small rings and few lookups: seconds instead of minutes, for a first look
    #[arg(long)]
    pub quick: bool,
    /// Only these sections
    #[arg(long, value_name = "SECTION,...", value_delimiter = ',', value_parser = PossibleValuesParser::new(NAMES))]
    pub only: Vec<String>,
}

/// A node takes up to half a megabyte.
const NODES_MAX: usize = 100_000;
const LOOKUPS_MAX: i64 = 10_000_000;
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3_600);

pub(in crate::cli) const SIM_EXAMPLES: &str = "\
Runs a ring of real nodes in one thread with a virtual clock: what takes an hour on
machines takes seconds here, and can be run again exactly. The exit code is 1 if no ring
came to be or a lookup ended at a wrong owner.

Examples:
  chordkv sim
  chordkv sim --nodes 1000 --kill 0.5 --successors 20 --duration 0s --lookups 10000
  chordkv sim --nodes 500 --churn 0.4 --duration 10m --latency plane:156ms --svg plots
  chordkv sim --nodes 50 --seed 7 --routing fingers --json
  chordkv sim figures --out docs";

const FIGURES_EXAMPLES: &str = "\
Examples:
  chordkv sim figures --out docs
  chordkv sim figures --out /tmp/figures --quick";

impl RunArgs {
    /// What is to be done.
    pub(super) fn plan(&self) -> Plan {
        let plan = Plan {
            successors: self.successors,
            latency: self.latency,
            killed_per_mille: self.kill,
            departure: Departure::Mixed,
            churn_per_hour: self.churn,
            duration: self.duration,
            lookups: usize::try_from(self.lookups).unwrap_or(0),
            mend: Span::secs(120),
            ..Plan::new(self.seed, self.nodes)
        };
        plan.with_routing(self.routing)
    }
}

fn nodes(text: &str) -> Result<usize, String> {
    let wrong = || format!("it is a number of nodes from 1 to {NODES_MAX}");
    values::decimal(text).filter(|n| (1..=NODES_MAX).contains(n)).ok_or_else(wrong)
}

fn time(text: &str) -> Result<Span, String> {
    let time = duration(text).map_err(|reason| format!("{reason}; such as 60s or 10m"))?;
    if time > LONGEST {
        return Err("it is 0s to 30days".to_owned());
    }
    u64::try_from(time.as_micros()).map(Span).map_err(|error| error.to_string())
}

fn decimal_number(text: &str, least: f64, most: f64) -> Option<f64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    text.parse().ok().filter(|n| plain && (least..=most).contains(n))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within the bounds that were checked before.
fn churn_per_hour(text: &str) -> Result<u64, String> {
    let rate = decimal_number(text, 0.0, 50.0).ok_or("write joins per second from 0 to 50, such as 0.05 or 2")?;
    Ok((rate * 3_600.0).round() as u64)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within the bounds that were checked before.
fn per_mille(text: &str) -> Result<u64, String> {
    let share = decimal_number(text, 0.0, 0.95).ok_or("write a share from 0 to 0.95, such as 0.5")?;
    Ok((share * 1_000.0).round() as u64)
}

fn latency(text: &str) -> Result<Latency, String> {
    let wrong = || "write uniform:MIN..MAX or plane:MEDIAN, such as uniform:1ms..20ms or plane:156ms".to_owned();
    let span = |text: &str| time(text).ok().filter(|span| (Span(1)..=Span::secs(10)).contains(span)).ok_or_else(wrong);
    match text.split_once(':').ok_or_else(wrong)? {
        ("plane", median) => Ok(Latency::Plane { median_round_trip: span(median)? }),
        ("uniform", range) => {
            let (min, max) = range.split_once("..").ok_or_else(wrong)?;
            let (min, max) = (span(min)?, span(max)?);
            if min > max { Err(wrong()) } else { Ok(Latency::Uniform { min, max }) }
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_shares_are_bounded_decimal_numbers() {
        assert_eq!((churn_per_hour("0.05"), churn_per_hour("2")), (Ok(180), Ok(7_200)));
        assert_eq!((per_mille("0.5"), per_mille("0")), (Ok(500), Ok(0)));
        for text in ["", "-1", "1e1", "nan", "inf", "51", "+1"] {
            assert!(churn_per_hour(text).unwrap_err().contains("such as"), "{text}");
            assert!(per_mille(text).unwrap_err().contains("such as"), "{text}");
        }
    }

    #[test]
    fn latencies_are_ranges_or_planes() {
        let uniform = latency("uniform:100us..20ms").unwrap();
        assert!(matches!(uniform, Latency::Uniform { min: Span(100), max: Span(20_000) }));
        assert!(matches!(latency("plane:156ms"), Ok(Latency::Plane { median_round_trip: Span(156_000) })));
        for text in ["", "20ms", "plane", "plane:", "plane:0s", "uniform:5ms", "uniform:9ms..1ms", "round:1ms..2ms"] {
            assert!(latency(text).unwrap_err().contains("plane:156ms"), "{text}");
        }
    }
}
