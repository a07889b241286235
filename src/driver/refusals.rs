//! Who was not let in and why: counted by reason, and told in few lines however many there are.

use std::collections::BTreeMap;
use std::fmt::Display;

use tracing::warn;

use crate::base::{Span, Time};
use crate::wire::RefusalCode;

/// Why a peer was sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// It does not speak the handshake of a ring key.
    NoKey,
    /// It has another ring key.
    WrongKey,
    /// What it sends makes no sense.
    Garbage,
    /// It says that it is a node that it has not shown to be.
    Identity,
    /// It did not end its handshake in time.
    Silent,
    /// There are too many connections.
    Busy,
    /// What it said of itself, see [`RefusalCode`].
    Judged(&'static str),
    /// The other side has sent this node away.
    ByPeer,
    /// It was let in, and then sent what makes no sense.
    CutOff,
    /// From its address somebody was refused too often.
    TurnedAway,
}

/// What was refused since the start.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<Reason, Told>);

#[derive(Debug, Default)]
struct Told {
    count: u64,
    // Since the last line.
    untold: u64,
    last_line: Option<Time>,
}

/// Between two lines of one reason.
const LINE_INTERVAL: Span = Span::secs(10);

impl Refusals {
    /// One more. It is told at once, or with the next one that comes when a line is due again.
    pub fn note(&mut self, now: Time, reason: Reason, who: impl Display, why: &str) {
        if let Some(untold) = self.told(now, reason) {
            let what = match reason {
                Reason::ByPeer => "a peer refuses this node",
                Reason::CutOff => "a peer makes no sense and is cut off",
                _ => "a peer is refused",
            };
            if untold == 0 {
                warn!(peer = %who, reason = why, "{what}");
            } else {
                warn!(peer = %who, reason = why, "{what}, and {untold} more like it since the last line");
            }
        }
    }

    /// How many since the start, by reason.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(reason, told)| (reason.name(), told.count))
    }

    /// Whether a line is due, and how many it stands for beside the one that it names.
    fn told(&mut self, now: Time, reason: Reason) -> Option<u64> {
        let told = self.0.entry(reason).or_default();
        told.count += 1;
        if told.last_line.is_some_and(|last| now.since(last) < LINE_INTERVAL) {
            told.untold += 1;
            return None;
        }
        told.last_line = Some(now);
        Some(std::mem::take(&mut told.untold))
    }
}

impl Reason {
    /// As metrics name it.
    fn name(self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::WrongKey => "wrong_key",
            Self::Garbage => "garbage",
            Self::Identity => "identity",
            Self::Silent => "silent",
            Self::Busy => "busy",
            Self::Judged(why) => why,
            Self::ByPeer => "by_peer",
            Self::CutOff => "cut_off",
            Self::TurnedAway => "turned_away",
        }
    }
}

impl From<RefusalCode> for Reason {
    fn from(code: RefusalCode) -> Self {
        Self::Judged(match code {
            RefusalCode::Version => "version",
            RefusalCode::Ring => "ring",
            RefusalCode::Parameter => "parameter",
            RefusalCode::NotReady => "not_ready",
            RefusalCode::SelfDial => "itself",
            RefusalCode::Malformed => return Self::Garbage,
            RefusalCode::Busy => return Self::Busy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_reason_is_told_and_then_one_line_for_many() {
        let mut refusals = Refusals::default();
        let at = |seconds| Time::default() + Span::secs(seconds);
        assert_eq!(refusals.told(at(0), Reason::WrongKey), Some(0));
        assert_eq!(refusals.told(at(1), Reason::NoKey), Some(0));
        for _ in 0..1_000 {
            assert_eq!(refusals.told(at(9), Reason::WrongKey), None);
        }
        assert_eq!(refusals.told(at(10), Reason::WrongKey), Some(1_000));
        assert_eq!(refusals.told(at(11), Reason::WrongKey), None);
        assert_eq!(refusals.told(at(30), Reason::WrongKey), Some(1));
        assert_eq!(refusals.counts().collect::<Vec<_>>(), [("no_key", 1), ("wrong_key", 1_004)]);
    }
}
