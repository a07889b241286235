//! Where strangers come from again and again: they are turned away at the door for a while, longer each time, and cost
//! next to nothing meanwhile.
//!
//! By address, as nothing else is known of them; of IPv6 by the first 64 bits, which one host has to itself. Not for
//! loopback, where all nodes of a host look alike.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::base::{Span, Time, make_room_for};

/// Who has offended lately.
#[derive(Debug, Default)]
pub(super) struct Offenders(BTreeMap<IpAddr, Offender>);

#[derive(Clone, Copy, Debug)]
struct Offender {
    // Offences, of which one fades after each [`FADES_AFTER`].
    points: u32,
    at: Time,
    until: Time,
}

/// Offences that are borne: somebody may have typed a wrong address, or forgotten the key.
const POINTS_BORNE: u32 = 8;
/// Beyond so many more it does not get worse.
const POINTS_MORE_MAX: u32 = 6;
const FADES_AFTER: Span = Span::secs(10);
/// How long the first one beyond is turned away for; twice as long with each further one.
const AWAY_FOR: Span = Span::secs(1);
/// Addresses that are remembered; of more, those go that have not offended for longest.
const REMEMBERED_MAX: usize = 1_024;

impl Offenders {
    /// Somebody at this address was refused, or was cut off.
    pub fn note(&mut self, now: Time, ip: IpAddr) {
        let ip = network(ip);
        if ip.is_loopback() {
            return;
        }
        make_room_for(&mut self.0, REMEMBERED_MAX, &ip, |offender| offender.at);
        let offender = self.0.entry(ip).or_insert(Offender { points: 0, at: now, until: now });
        let faded = u32::try_from(now.since(offender.at).0 / FADES_AFTER.0).unwrap_or(u32::MAX);
        let points = offender.points.saturating_sub(faded).min(POINTS_BORNE + POINTS_MORE_MAX) + 1;
        let more = points.checked_sub(POINTS_BORNE + 1);
        let until = more.map_or(now, |more| now + AWAY_FOR * (1 << more.min(POINTS_MORE_MAX)));
        *offender = Offender { points, at: now, until };
    }

    /// Whether nobody from this address is to be let in now.
    pub fn is_away(&self, now: Time, ip: IpAddr) -> bool {
        self.0.get(&network(ip)).is_some_and(|offender| now < offender.until)
    }
}

/// The address, or of IPv6 the network that one host has to itself.
pub(super) fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::default() + Span::secs(seconds)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn whoever_offends_again_and_again_is_turned_away_for_longer_and_forgiven_in_time() {
        let (mut offenders, host) = (Offenders::default(), ip("192.0.2.1"));
        for _ in 0..POINTS_BORNE {
            offenders.note(at(0), host);
            assert!(!offenders.is_away(at(0), host));
        }
        for (seconds, now) in [(1, 0), (2, 2), (4, 5), (8, 9)] {
            offenders.note(at(now), host);
            assert!(offenders.is_away(at(now + seconds - 1), host) && !offenders.is_away(at(now + seconds), host));
        }
        assert!(!offenders.is_away(at(9), ip("192.0.2.2")), "its neighbour is somebody else");
        for _ in 0..100 {
            offenders.note(at(20), host);
        }
        assert!(offenders.is_away(at(83), host) && !offenders.is_away(at(84), host), "a minute at most");
        offenders.note(at(20 + 150), host);
        assert!(!offenders.is_away(at(20 + 150), host), "what was is forgiven");
    }

    #[test]
    fn a_host_has_one_score_whatever_its_address_and_loopback_none() {
        let mut offenders = Offenders::default();
        for n in 0..20 {
            offenders.note(at(0), ip(&format!("2001:db8::{n}")));
            offenders.note(at(0), ip("::1"));
            offenders.note(at(0), ip("127.0.0.1"));
            offenders.note(at(0), ip("::ffff:192.0.2.7"));
        }
        assert!(offenders.is_away(at(0), ip("2001:db8::ffff")) && !offenders.is_away(at(0), ip("2001:db8:0:1::1")));
        assert!(!offenders.is_away(at(0), ip("::1")) && !offenders.is_away(at(0), ip("127.0.0.1")));
        assert!(offenders.is_away(at(0), ip("192.0.2.7")));
    }

    #[test]
    fn no_crowd_fills_the_memory() {
        let mut offenders = Offenders::default();
        for n in 0..5_000_u32 {
            offenders.note(Time(n.into()), IpAddr::V4(n.to_be().into()));
        }
        assert_eq!(offenders.0.len(), REMEMBERED_MAX);
    }
}
