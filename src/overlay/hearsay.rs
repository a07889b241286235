//! How much of what others tell is listened to: no peer, and no network that it speaks of, takes up a node's time and memory.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::contacts::CONTACTS_PAGE;
use crate::base::{Contact, Incarnation, Span, Time, make_room_for};

/// What was told lately, by whom and of which networks.
#[derive(Debug, Default)]
pub(super) struct Hearsay {
    offers_by_peer: BTreeMap<Incarnation, Bucket>,
    offers_by_network: BTreeMap<IpAddr, Bucket>,
    contacts_by_peer: BTreeMap<Incarnation, Bucket>,
}

/// Empties as time goes by.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    level: u64,
    at: Time,
}

/// Offers that a peer may pass on at once, and how long each counts. Two rings of 512 that meet need a handful.
const OFFERS_OF_PEER: (u64, Span) = (64, Span::millis(50));
/// The same of the addresses of one network (/24, /64): a ring may well be in one.
const OFFERS_OF_NETWORK: (u64, Span) = (256, Span::millis(10));
/// Contacts that a peer may name, and that this node did not know: four pages at once.
const CONTACTS_OF_PEER: (u64, Span) = (4 * CONTACTS_PAGE as u64, Span::millis(50));
/// Peers and networks that are remembered; of more, those go that were spoken of longest ago.
const REMEMBERED_MAX: usize = 256;

impl Hearsay {
    /// Whether this offer is to be looked at.
    pub fn admits_offer(&mut self, now: Time, from: &Contact, contact: &Contact) -> bool {
        // Whoever has no room of its own left takes none of a network's.
        take(&mut self.offers_by_peer, now, from.incarnation, OFFERS_OF_PEER)
            && take(&mut self.offers_by_network, now, network(contact), OFFERS_OF_NETWORK)
    }

    /// Whether one more contact that this node did not know may be learnt from that peer.
    pub fn admits_contact(&mut self, now: Time, from: &Contact) -> bool {
        take(&mut self.contacts_by_peer, now, from.incarnation, CONTACTS_OF_PEER)
    }
}

fn take<K: Ord + Copy>(buckets: &mut BTreeMap<K, Bucket>, now: Time, key: K, (size, each): (u64, Span)) -> bool {
    make_room_for(buckets, REMEMBERED_MAX, &key, |bucket| bucket.at);
    let bucket = buckets.entry(key).or_insert(Bucket { level: 0, at: now });
    let emptied = now.since(bucket.at).0 / each.0;
    bucket.level = bucket.level.saturating_sub(emptied);
    bucket.at = if bucket.level == 0 { now } else { bucket.at + each * emptied };
    let has_room = bucket.level < size;
    bucket.level += u64::from(has_room);
    has_room
}

/// The /24 or /64 that its address is in.
pub(super) fn network(contact: &Contact) -> IpAddr {
    match contact.addr.ip().to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) >> 8 << 8).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Capacity;

    fn contact(network: u8, host: u8) -> Contact {
        let incarnation = Incarnation(u128::from(network) << 8 | u128::from(host));
        Contact::new(Capacity::MAX, ([10, 0, network, host], 1).into(), incarnation)
    }

    #[test]
    fn a_peer_is_heard_so_often_and_another_still() {
        let (mut offered, now) = (Hearsay::default(), Time(1));
        let heard = |offered: &mut Hearsay, now, from: u8| {
            (0..=255).filter(|host| offered.admits_offer(now, &contact(0, from), &contact(from, *host))).count()
        };
        assert_eq!(heard(&mut offered, now, 1), 64);
        assert_eq!(heard(&mut offered, now, 1), 0);
        assert_eq!(heard(&mut offered, now, 2), 64);
        assert_eq!(heard(&mut offered, now + Span::millis(520), 1), 10, "one more each 50 ms");
        assert_eq!(heard(&mut offered, now + Span::secs(60), 1), 64);
    }

    #[test]
    fn many_peers_that_speak_of_one_network_are_heard_no_more_than_that() {
        let mut offered = Hearsay::default();
        let all = (0..=255).flat_map(|from| (0..10).map(move |host| (from, host)));
        let heard =
            all.filter(|(from, host)| offered.admits_offer(Time(1), &contact(1, *from), &contact(9, *host))).count();
        assert_eq!(heard, 256);
        assert!(offered.admits_offer(Time(1), &contact(1, 1), &contact(8, 1)), "of another network they are");
    }
}
