//! `sim figures`: what papers published, measured again in the same set-ups and written down with plots.
//!
//! Every number in the report comes from a run of this program but those in columns that say *published*. Runs are
//! independent of each other and of the machine, so they share its processors; what is timed by a real clock runs alone,
//! first.

mod cost;
mod failures;
mod paths;
mod speed;

use std::fmt::Write as _;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::args::FiguresArgs;
use super::plot::Plot;
use super::{note, save};
use crate::cli::failure::Failure;
use crate::cli::progress::Bar;
use crate::overlay::Routing;
use crate::sim::experiment::{NoRing, Outcome, Plan, run};

/// One part of the report.
#[derive(Default)]
struct Section {
    text: String,
    plots: Vec<(&'static str, Plot)>,
}

/// What the sections are made with.
struct Lab {
    /// Small rings and few lookups.
    quick: bool,
    bar: Bar,
    /// Sections done, and all that there will be.
    sections: AtomicUsize,
    of: usize,
}

/// The sections by name, in the order of the report.
const SECTIONS: [(&str, Make); 9] = [
    ("paths-fixed", paths::fixed_ring),
    ("paths", paths::running_ring),
    ("killed", failures::killed_at_once),
    ("churn", failures::under_churn),
    ("latency", cost::latency),
    ("traffic", cost::traffic),
    ("merges", cost::joins_and_merges),
    ("load", cost::load),
    (SPEED, speed::speed),
];
/// Their names.
pub(super) const NAMES: [&str; SECTIONS.len()] = {
    let mut names = [""; SECTIONS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = SECTIONS[at].0;
        at += 1;
    }
    names
};
const SPEED: &str = "speed";
/// Drawn from it, unless a section says otherwise.
const SEED: u64 = 1;
const BOTH: [(Routing, &str); 2] = [(Routing::Opportunistic, "as shipped"), (Routing::FingersOnly, "fingers only")];

/// Measures everything and writes `figures.md` and its plots.
pub(super) fn write(args: &FiguresArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let is_wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let (wanted, left_out): (Vec<_>, Vec<_>) = SECTIONS.into_iter().partition(|(name, _)| is_wanted(name));
    let lab = Lab { quick: args.quick, bar: Bar::new(), sections: AtomicUsize::new(0), of: wanted.len() };
    let made =
        sections(&lab, &wanted).map_err(|why| Failure::Failed(format!("{why}; the figures were not written")))?;
    drop(lab);
    let mut report = format!("{HEAD}\n");
    if args.quick {
        report.push_str("**Made with `--quick`: small rings and few lookups. Not to be compared with anything.**\n\n");
    }
    if !left_out.is_empty() {
        let names: Vec<&str> = left_out.iter().map(|(name, _)| *name).collect();
        put(&mut report, format_args!("Left out here (`--only`): {}.\n\n", names.join(", ")));
    }
    for section in made {
        report.push_str(&section.text);
        for (name, plot) in &section.plots {
            save(&args.out.join("figures").join(name), plot.svg().as_bytes())?;
            put(&mut report, format_args!("![{}](figures/{name})\n\n", plot.title));
        }
    }
    let path = args.out.join("figures.md");
    save(&path, report.trim_end().as_bytes()).and_then(|()| Ok(writeln!(out, "{}", path.display())?))
}

/// Runs one experiment and writes its section.
type Make = fn(&Lab) -> Result<Section, NoRing>;

fn sections(lab: &Lab, wanted: &[(&str, Make)]) -> Result<Vec<Section>, NoRing> {
    // The timed one first, while this process is small and nothing else runs; it is shown last.
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|at| (wanted[*at].0 != SPEED, *at));
    let mut made = Vec::new();
    for at in order {
        made.push((at, lab.section(wanted[at].1)?));
    }
    made.sort_by_key(|(at, _)| *at);
    Ok(made.into_iter().map(|(_, section)| section).collect())
}

impl Lab {
    fn section(&self, make: Make) -> Result<Section, NoRing> {
        let section = make(self)?;
        self.sections.fetch_add(1, Ordering::Relaxed);
        Ok(section)
    }

    /// One of two sizes.
    fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// What `work` makes of each item, in their order; as many at a time as there are processors.
    fn each<T: Sync, R: Send>(&self, doing: &str, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let worker = || {
            let mut made = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else { return made };
                made.push((at, work(item)));
                self.show(doing, done.fetch_add(1, Ordering::Relaxed) + 1, items.len());
            }
        };
        self.show(doing, 0, items.len());
        let mut made: Vec<(usize, R)> = thread::scope(|scope| {
            let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
            // A worker that panicked has found what must not be: so does its caller.
            workers.into_iter().flat_map(|worker| worker.join().expect("a simulated ring broke a rule")).collect()
        });
        made.sort_by_key(|(at, _)| *at);
        made.into_iter().map(|(_, result)| result).collect()
    }

    /// Runs plans, in their order.
    fn runs(&self, doing: &str, plans: &[Plan]) -> Result<Vec<Outcome>, NoRing> {
        self.each(doing, plans, |plan| run(plan, &mut |_| {})).into_iter().collect()
    }

    fn show(&self, doing: &str, done: usize, of: usize) {
        let whole = self.sections.load(Ordering::Relaxed) * 1_000 + done * 1_000 / of.max(1);
        self.bar.show((whole / self.of.max(1)) as u64, doing);
    }
}

impl Section {
    fn new(title: &str, set_up: &str) -> Self {
        Self { text: format!("## {title}\n\n{set_up}\n\n"), plots: Vec::new() }
    }

    fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
        self.text.push_str(&line(&head));
        self.text.push('|');
        self.text.push_str(&"---:|".repeat(head.len()));
        self.text.push('\n');
        for row in rows {
            self.text.push_str(&line(row));
        }
        self.text.push('\n');
    }

    fn plot(&mut self, name: &'static str, plot: Plot) {
        self.plots.push((name, plot));
    }
}

fn put(text: &mut String, args: std::fmt::Arguments<'_>) {
    // A string takes all that is written to it.
    let _ = text.write_fmt(args);
}

/// Two digits after the point.
fn two(value: f64) -> String {
    format!("{value:.2}")
}

/// µs as ms.
fn ms(us: f64) -> String {
    format!("{:.0} ms", us / 1_000.0)
}

const HEAD: &str = "\
# Figures

What papers about Chord published, measured again in the simulator with the code that `chordkv node` runs. Made by
`make figures`; nothing here is typed in by hand but the text and the columns that say *published*. The same seed gives
the same figures on every machine, but for the last section, which is timed by a real clock.

*As shipped* is `chordkv node` with its defaults: every node that was heard of is a candidate for a route. *Fingers only*
is `--routing fingers`: successor list and finger table, as published, and for each finger the member before it, who
stands in for it. In both a node stabilises every 1 to 3 s, not every 30 s as in the papers. A hop is a node that a lookup
passes through, the owner counted and the origin not.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let lab = Lab { quick: true, bar: Bar::new(), sections: AtomicUsize::new(0), of: 1 };
        let items: Vec<u64> = (0..100).collect();
        assert_eq!(lab.each("squares", &items, |n| n * n), items.iter().map(|n| n * n).collect::<Vec<_>>());
        assert!(lab.each("nothing", &[0_u8; 0], |n| *n).is_empty());
    }

    #[test]
    fn tables_have_a_cell_for_every_column() {
        let mut section = Section::new("T", "Set-up.");
        section.table(&["a", "b"], &[vec!["1".to_owned(), "2".to_owned()]]);
        assert_eq!(section.text, "## T\n\nSet-up.\n\n| a | b |\n|---:|---:|\n| 1 | 2 |\n\n");
    }
}
