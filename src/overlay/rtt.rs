//! The round-trip time of one peer and the time-out that follows from it (RFC 6298, with bounds of our own).
//!
//! Rhea et al. 2004 show that time-outs from measured round trips beat fixed ones by far under churn.

use crate::base::Span;

/// The lowest time-out: a busy host may be late by this much.
pub const RTO_MIN: Span = Span::millis(200);
/// The highest time-out.
pub const RTO_MAX: Span = Span::secs(5);
/// The time-out of a peer that was never measured.
pub const RTO_FIRST: Span = Span::secs(1);

/// Smoothed round-trip time and its variation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rtt {
    // (SRTT, RTTVAR) in µs once there was a sample.
    state: Option<(u32, u32)>,
}

impl Rtt {
    /// Takes a sample. Only from requests that were sent once (Karn): a retry's reply may belong to either sending.
    pub fn sample(&mut self, rtt: Span) {
        // An hour is as good as any longer time here.
        let rtt = u32::try_from(rtt.0).unwrap_or(u32::MAX);
        let average = |old: u32, new: u32, of: u64| {
            let sum = u64::from(old) * (of - 1) + u64::from(new);
            u32::try_from(sum / of).unwrap_or(u32::MAX)
        };
        self.state = Some(match self.state {
            None => (rtt, rtt / 2),
            Some((srtt, var)) => (average(srtt, rtt, 8), average(var, srtt.abs_diff(rtt), 4)),
        });
    }

    /// The smoothed round-trip time, if measured.
    pub fn smoothed(&self) -> Option<Span> {
        self.state.map(|(srtt, _)| Span(u64::from(srtt)))
    }

    /// SRTT + 4 RTTVAR within [`RTO_MIN`] and [`RTO_MAX`], doubled for each attempt (0 for the first) up to the highest.
    pub fn timeout(&self, attempt: u32) -> Span {
        doubled(self.base().unwrap_or(RTO_FIRST), attempt)
    }

    /// The same where to be wrong costs little: three time-outs of all peers together, `others`, stand in for one that was
    /// never measured, [`RTO_FIRST`] at most. Three, as the first word to a peer may wait for a connection and a hello.
    pub fn timeout_or_guess(&self, attempt: u32, others: &Self) -> Span {
        let guess = || others.base().map_or(RTO_FIRST, |base| (base * 3).min(RTO_FIRST));
        doubled(self.base().unwrap_or_else(guess), attempt)
    }

    fn base(&self) -> Option<Span> {
        self.state.map(|(srtt, var)| Span(u64::from(srtt) + u64::from(var) * 4))
    }
}

fn doubled(base: Span, attempt: u32) -> Span {
    (base.clamp(RTO_MIN, RTO_MAX) * (1 << attempt.min(8))).min(RTO_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_follow_the_samples_within_bounds() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.timeout(0), RTO_FIRST);
        rtt.sample(Span::millis(100));
        assert_eq!(rtt.timeout(0), Span::millis(300));
        assert_eq!(rtt.timeout(1), Span::millis(600));
        assert_eq!(rtt.timeout(30), RTO_MAX);
        for _ in 0..100 {
            rtt.sample(Span(50));
        }
        assert_eq!(rtt.timeout(0), RTO_MIN);
        assert!(rtt.smoothed().is_some_and(|srtt| srtt.0 < 100));
    }

    #[test]
    fn who_was_never_measured_gets_three_times_what_others_take_and_a_second_at_most() {
        let of = |millis: u64| {
            let mut others = Rtt::default();
            (0..50).for_each(|_| others.sample(Span::millis(millis)));
            Rtt::default().timeout_or_guess(0, &others)
        };
        assert_eq!(of(1), RTO_MIN);
        assert!((Span::millis(300)..Span::millis(310)).contains(&of(100)), "{:?}", of(100));
        assert_eq!(of(900), RTO_FIRST);
    }
}
