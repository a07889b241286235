//! Lines of the log that would be written as often as something goes wrong.

use std::time::{Duration, Instant};

/// When such a line was written last.
#[derive(Debug, Default)]
pub(super) struct Seldom(Option<Instant>);

/// Between two lines.
const PAUSE: Duration = Duration::from_secs(10);

impl Seldom {
    /// Whether to write it now.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_at_first_and_then_every_ten_seconds() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let due = (0..25).filter(|second| seldom.is_due(start + Duration::from_secs(*second)));
        assert_eq!(due.collect::<Vec<_>>(), [0, 10, 20]);
    }
}
