//! What the gate has refused, by code; the loop tells it (`/metrics`), and whether it is too much (`/readyz`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::refusal::Refusal;
use crate::data::http::Denied;

/// Shared by the gate, which counts, and whoever tells.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<Refused>>);

#[derive(Debug, Default)]
struct Refused {
    by_code: BTreeMap<&'static str, u64>,
    // The latest for which this node had too much to do.
    overload: Option<(Instant, &'static str)>,
}

/// For so long after the latest refusal for overload a node says that it has too much to do.
const OVERLOAD_LASTS: Duration = Duration::from_secs(5);

impl Counts {
    /// One more.
    pub(super) fn note(&self, now: Instant, refusal: &Refusal) {
        // Not where it stops, or keeps whoever would wait from waiting.
        self.count(refusal.code, refusal.code.starts_with("http_").then_some(now));
    }

    /// One more, of those that may not ask what they ask.
    pub fn note_denied(&self, denied: Denied) {
        self.count(denied.told().1, None);
    }

    /// One more, of those for which the node itself has too much to do.
    pub fn note_overloaded(&self, now: Instant, code: &'static str) {
        self.count(code, Some(now));
    }

    /// A connection that nobody gives way to.
    pub(super) fn note_full(&self, now: Instant) {
        self.count("connections_full", Some(now));
    }

    /// A quiet connection that gave way to another.
    pub(super) fn note_gave_way(&self) {
        self.count("connection_gave_way", None);
    }

    fn count(&self, code: &'static str, overload: Option<Instant>) {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.by_code.entry(code).or_default() += 1;
        if let Some(now) = overload {
            refused.overload = Some((now, code));
        }
    }

    /// How many since the start, by code.
    pub fn by_code(&self) -> Vec<(&'static str, u64)> {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.by_code.iter().map(|(code, count)| (*code, *count)).collect()
    }

    /// The code of the latest refusal for overload, if that was just now.
    pub fn overload(&self, now: Instant) -> Option<&'static str> {
        let refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        refused.overload.filter(|(at, _)| now.saturating_duration_since(*at) < OVERLOAD_LASTS).map(|(_, code)| code)
    }
}

#[cfg(test)]
mod tests {
    use super::super::refusal;
    use super::*;

    #[test]
    fn refusals_are_counted_by_code_and_those_for_overload_are_remembered_for_a_while() {
        let (counts, now) = (Counts::default(), Instant::now());
        counts.note(now, &refusal::BAD_HOST);
        assert_eq!(counts.overload(now), None);
        counts.note(now, &refusal::QUEUE_FULL);
        counts.note(now, &refusal::BAD_HOST);
        assert_eq!(counts.by_code(), [("bad_host", 2), ("http_queue_full", 1)]);
        assert_eq!(counts.overload(now), Some("http_queue_full"));
        assert_eq!(counts.overload(now + OVERLOAD_LASTS), None);
        counts.note_gave_way();
        counts.note_full(now);
        assert_eq!(counts.overload(now), Some("connections_full"));
        counts.note_overloaded(now, "overloaded");
        assert_eq!(counts.overload(now), Some("overloaded"));
        assert_eq!(counts.by_code().len(), 5);
    }
}
