//! What a node counts and measures, for whoever looks after many of them.

/// One thing that is counted or measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// As users know it; of a counter without the `_total` at its end.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// Values, each with a label where there are several.
    pub samples: Vec<(Option<Label>, u64)>,
}

/// A label's name and value.
pub type Label = (&'static str, String);

/// Whether a metric only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Goes up and down.
    Gauge,
    /// Grows, from 0 at the start of the process.
    Counter,
}

impl Metric {
    /// One value that goes up and down.
    pub fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, help, kind: MetricKind::Gauge, samples: vec![(None, value)] }
    }

    /// What only grows, by the values of one label.
    pub fn counters(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        counts: impl Iterator<Item = (&'static str, u64)>,
    ) -> Self {
        let samples = counts.map(|(value, count)| (Some((label, value.to_owned())), count)).collect();
        Self { name, help, kind: MetricKind::Counter, samples }
    }
}
