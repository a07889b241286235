//! `bench`: how many requests a ring answers, and how soon.
//!
//! It puts keys of its own, asks for and overwrites them for a while, and removes them. A connection asks again once it
//! was answered; with `--rate` requests are due at fixed times, and a time that a request had to wait for its turn
//! counts.

mod load;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;

use self::load::{Ended, Kind, Next, Request};
use super::client::Client;
use super::failure::{Failure, say};
use super::table::{Align, Table};
use super::url::encode;
use super::values;
use crate::base::Rng;

#[derive(Clone, Debug, Args)]
pub(super) struct BenchArgs {
    /// Connections that ask at the same time
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// How long
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = values::wait)]
    span: Duration,
    /// How many of a hundred requests are puts; the others are gets
    #[arg(long, value_name = "PERCENT", default_value = "50", value_parser = clap::value_parser!(u64).range(0..=100))]
    puts: u64,
    /// How many keys
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// Size of the values
    #[arg(long, value_name = "SIZE", default_value = "100", value_parser = values::max_value)]
    value: usize,
    /// So many requests a second at most, at fixed times [default: as many as are answered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// What the keys begin with: whatever is there is overwritten and removed
    #[arg(long, value_name = "TEXT", default_value = "chordkv-bench/")]
    prefix: String,
    /// Leave the keys there, and put only those at the start that are missing
    #[arg(long)]
    keep: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub(super) const BENCH_EXAMPLES: &str = "\
Percentiles are of the whole requests, seen from here. The exit code is 1 if any request failed.

Examples:
  chordkv bench
  chordkv bench --puts 0 --keys 100000 --keep
  chordkv bench --connections 1 --rate 100 --for 1m --json";

/// `chordkv bench`.
pub(super) fn bench(client: &Client, args: &BenchArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let authority = client.node().authority().to_owned();
    let to = resolve(&authority)?;
    let field = client.authorization().map(|text| format!("Authorization: {text}\r\n")).unwrap_or_default();
    let bench = Bench { args, authority, field, to };
    bench.fill(client)?;
    let measured = bench.measure();
    // What was put is removed whatever became of the measurement.
    let removed = if args.keep { Ok(()) } else { bench.each(Kind::Delete, &[204, 404], "removed") };
    let report = measured?;
    if args.json {
        // Strings and numbers always serialize.
        writeln!(out, "{}", serde_json::to_string(&report).unwrap_or_default())?;
    } else {
        report.write(args, &client.node().to_string(), out)?;
    }
    removed?;
    if report.failed.is_empty() {
        return Ok(());
    }
    let failed: u64 = report.failed.values().sum();
    let kinds: Vec<String> = report.failed.iter().map(|(what, count)| format!("{what}: {count}")).collect();
    Err(Failure::Failed(format!("{failed} requests failed ({})", kinds.join(", "))))
}

fn resolve(authority: &str) -> Result<SocketAddr, Failure> {
    let unknown = |why: String| Failure::Failed(format!("{authority} is not known here: {why}"));
    let mut all = authority.to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
    all.next().ok_or_else(|| unknown("it has no address".to_owned()))
}

struct Bench<'a> {
    args: &'a BenchArgs,
    authority: String,
    // A line of the head that shows who asks, or nothing.
    field: String,
    to: SocketAddr,
}

/// The times of the requests of one kind, in µs.
struct Times(Histogram<u32>);

#[derive(Serialize)]
struct Report {
    connections: u16,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    get: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    put: Option<Summary>,
    /// By status, or why there was none.
    failed: BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct Summary {
    requests: u64,
    per_second: u64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
    histogram: Vec<Bar>,
}

/// How many took less than this, and not less than the one before.
#[derive(Serialize)]
struct Bar {
    below_us: u64,
    requests: u64,
}

impl Bench<'_> {
    /// Sees to it that all keys are there.
    fn fill(&self, client: &Client) -> Result<(), Failure> {
        say(&format!("putting {} keys on {}", self.args.keys, client.node()));
        // Where they are to be kept they may be there from the time before.
        self.each(Kind::Put, &[201, 204, 412], "put")
    }

    /// Does the same with each key once.
    fn each(&self, kind: Kind, wanted: &[u16], done: &str) -> Result<(), Failure> {
        let mut left = 0..self.args.keys;
        let mut failed = Failed::default();
        let mut next = |now| match left.next() {
            Some(n) => Next::Ask(Request { bytes: self.request(kind, n, self.args.keep, n), kind, since: now }),
            None => Next::Over,
        };
        let mut ended = |ended: Ended| {
            failed.note(&ended, wanted);
        };
        self.run(&mut next, &mut ended)?;
        let failed: u64 = failed.0.values().sum();
        if failed > 0 {
            let keys = self.args.keys;
            return Err(Failure::Failed(format!(
                "{failed} of {keys} keys could not be {done} through {}",
                self.authority
            )));
        }
        Ok(())
    }

    fn measure(&self) -> Result<Report, Failure> {
        let (mut gets, mut puts, mut failed) = (Times::new(), Times::new(), Failed::default());
        let mut rng = Rng::new(1);
        let begun = Instant::now();
        let until = begun + self.args.span;
        let mut count: u64 = 0;
        let mut next = |now: Instant| {
            let due = self.args.rate.map_or(now, |rate| begun + Duration::from_micros(count * 1_000_000 / rate));
            if now.max(due) >= until {
                return Next::Over;
            }
            if due > now {
                return Next::Wait(due);
            }
            count += 1;
            let kind = if rng.below(100) < self.args.puts { Kind::Put } else { Kind::Get };
            let bytes = self.request(kind, rng.below(self.args.keys), false, rng.next_u64());
            Next::Ask(Request { bytes, kind, since: due })
        };
        let mut ended = |ended: Ended| {
            if failed.note(&ended, &[200, 201, 204]) {
                let times = if ended.kind == Kind::Put { &mut puts } else { &mut gets };
                times.note(ended.took);
            }
        };
        self.run(&mut next, &mut ended)?;
        let took = begun.elapsed();
        let (get, put) = (gets.summary(took), puts.summary(took));
        Ok(Report { connections: self.args.connections, seconds: took.as_secs_f64(), get, put, failed: failed.0 })
    }

    fn run(&self, next: &mut dyn FnMut(Instant) -> Next, ended: &mut dyn FnMut(Ended)) -> Result<(), Failure> {
        let run = load::run(self.to, usize::from(self.args.connections), next, ended);
        run.map_err(|error| Failure::Failed(format!("this system gives no more connections ({error}); use fewer")))
    }

    fn request(&self, kind: Kind, n: u64, if_missing: bool, salt: u64) -> Vec<u8> {
        let key = encode(format!("{}{n:08}", self.args.prefix).as_bytes());
        let method = match kind {
            Kind::Get => "GET",
            Kind::Put => "PUT",
            Kind::Delete => "DELETE",
        };
        let mut request = format!("{method} /v1/kv/{key} HTTP/1.1\r\nHost: {}\r\n{}", self.authority, self.field);
        if kind != Kind::Put {
            return (request + "\r\n").into_bytes();
        }
        if if_missing {
            request.push_str("If-None-Match: *\r\n");
        }
        let mut bytes = format!("{request}Content-Length: {}\r\n\r\n", self.args.value).into_bytes();
        // Never the same value twice: to write that would be less work.
        let value = format!("{salt:016x}").into_bytes().into_iter().cycle();
        bytes.extend(value.take(self.args.value));
        bytes
    }
}

#[derive(Default)]
struct Failed(BTreeMap<String, u64>);

impl Failed {
    /// True if it did not fail.
    fn note(&mut self, ended: &Ended, wanted: &[u16]) -> bool {
        let what = match ended.status {
            Some(status) if wanted.contains(&status) => return true,
            Some(status) => status.to_string(),
            None => "no answer".to_owned(),
        };
        *self.0.entry(what).or_default() += 1;
        false
    }
}

impl Times {
    fn new() -> Self {
        // Within a tenth of a percent up to a minute; nothing takes so long.
        Self(Histogram::new_with_bounds(1, 60_000_000, 3).unwrap_or_else(|_| unreachable!("sane bounds")))
    }

    fn note(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    fn summary(&self, within: Duration) -> Option<Summary> {
        let requests = self.0.len();
        if requests == 0 {
            return None;
        }
        let at = |quantile| self.0.value_at_quantile(quantile);
        let bars = self
            .0
            .iter_log(FIRST_BAR_US, 2.0)
            .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()));
        let bars = bars.map(|(to, requests)| Bar { below_us: to + 1, requests });
        Some(Summary {
            requests,
            per_second: requests * 1_000_000 / u64::try_from(within.as_micros()).unwrap_or(u64::MAX).max(1),
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max(),
            histogram: bars.skip_while(|bar| bar.requests == 0).collect(),
        })
    }
}

impl Report {
    fn write(&self, args: &BenchArgs, node: &str, out: &mut dyn Write) -> Result<(), Failure> {
        writeln!(
            out,
            "{} connections to {node}, {:.1} s, {} keys, values of {} B",
            self.connections, self.seconds, args.keys, args.value
        )?;
        let mut table = Table::new(&COLUMNS);
        let kinds = [("get", &self.get), ("put", &self.put)];
        let kinds = kinds.into_iter().filter_map(|(name, summary)| Some((name, summary.as_ref()?)));
        for (name, it) in kinds.clone() {
            let times = [it.p50_us, it.p99_us, it.p999_us, it.max_us].map(millis);
            let [p50, p99, p999, max] = times;
            table.push([name.to_owned(), it.requests.to_string(), it.per_second.to_string(), p50, p99, p999, max]);
        }
        table.write(out)?;
        for (name, it) in kinds {
            writeln!(out, "\n{name}s that took less than")?;
            let most = it.histogram.iter().map(|bar| bar.requests).max().unwrap_or(1);
            for bar in &it.histogram {
                let cells = usize::try_from(bar.requests * CELLS / most.max(1)).unwrap_or(0);
                let share = bar.requests * 10_000 / it.requests.max(1);
                let (whole, rest) = (share / 100, share % 100);
                writeln!(out, "{:>10}  {whole:>3}.{rest:02} %  {}", millis(bar.below_us), "#".repeat(cells))?;
            }
        }
        Ok(())
    }
}

fn millis(us: u64) -> String {
    format!("{}.{:02} ms", us / 1_000, us % 1_000 / 10)
}

const FIRST_BAR_US: u64 = 64;
const CELLS: u64 = 50;
const COLUMNS: [(&str, Align); 7] = [
    ("", Align::Left),
    ("REQUESTS", Align::Right),
    ("PER S", Align::Right),
    ("P50", Align::Right),
    ("P99", Align::Right),
    ("P99.9", Align::Right),
    ("MAX", Align::Right),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_summed_up() {
        let mut times = Times::new();
        assert!(times.summary(Duration::from_secs(1)).is_none());
        (1..=1_000).for_each(|n| times.note(Duration::from_micros(n * 10)));
        let summary = times.summary(Duration::from_secs(2)).expect("there are some");
        assert_eq!((summary.requests, summary.per_second), (1_000, 500));
        assert!(summary.p50_us.abs_diff(5_000) <= 5 && summary.p99_us.abs_diff(9_900) <= 10, "{}", summary.p50_us);
        assert_eq!(summary.histogram.iter().map(|bar| bar.requests).sum::<u64>(), 1_000);
        assert!(summary.histogram.is_sorted_by(|a, b| a.below_us < b.below_us));
    }
}
