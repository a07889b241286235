//! The only clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::base::{Now, Time, Wall};

/// Reads both clocks; the monotonic one counts from the start of the process.
///
/// A turn of the loop reads them once an event, not once a question: what an event causes happens at one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    now: Now,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now(), now: Now { mono: Time::default(), wall: wall() } }
    }

    /// Reads the clocks.
    pub fn read(&mut self) {
        // 2^64 µs are 584,000 years.
        let mono = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.now = Now { mono: Time(mono), wall: wall() };
    }

    /// What was last read.
    pub fn now(self) -> Now {
        self.now
    }

    /// How long to sleep until `at`, from this very moment; nothing if that is past.
    pub fn until(self, at: Time) -> Duration {
        Duration::from_micros(at.0).saturating_sub(self.start.elapsed())
    }
}

/// The wall clock; a host whose clock stands before 1970 is taken to be at its beginning.
pub(super) fn wall() -> Wall {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
