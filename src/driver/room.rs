//! Who gives way when there are too many connections to peers, or when what they have begun to send takes too much memory.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::connection::{Connection, Phase};
use super::offenders::network;
use super::peers::Peers;
use super::refusals::Reason;
use crate::base::{Span, Time};

/// Of those who speak to this node, one address may take so large a part of all places before others need them.
const SHARE_OF_ALL: usize = 8;
/// Nobody who has spoken since then gives way to others.
const QUIET: Span = Span::secs(5);
/// A host that has not answered a call for so long may wait for another one.
const CALL: Span = Span::secs(1);
/// What peers may have begun to send, in all: some of the largest frames at once.
const BEGUN_BYTES_MAX: usize = 32 << 20;
/// Whoever has begun to send less is not worth a look.
const BEGUN_BYTES: usize = 128 << 10;

impl Peers {
    /// Whether one more connection may be, for which another may have to go: a connection is made again when there is
    /// something to say.
    pub(super) fn makes_room(&mut self, now: Time) -> bool {
        if self.count() < self.connections_max {
            return true;
        }
        if let Some(at) = self.stranger() {
            self.gives_way(now, at, "it has not said who it is, and others need the place");
        } else if let Some(at) = self.unanswered_call(now) {
            self.end(at, &io::Error::other("others need its place"));
        } else if let Some(at) = self.one_of_a_crowd() {
            self.gives_way(now, at, "its address has many connections, and others need the place");
        } else if let Some(at) = self.quiet_one(now) {
            self.retire_at_once(at);
        } else {
            return false;
        }
        true
    }

    /// Of those that others have opened and that have not said who they are the one that has not shown the ring key, if one
    /// is needed, and is the oldest: members never wait for strangers.
    fn stranger(&self) -> Option<usize> {
        let strangers = self.connections().filter(|(_, it)| it.from.is_some() && it.phase == Phase::Greeting);
        strangers.map(|(at, it)| (it.is_through_tunnel(), it.phase_since, at)).min().map(|(.., at)| at)
    }

    /// Somebody may have had this node call addresses that nobody has.
    fn unanswered_call(&self, now: Time) -> Option<usize> {
        let calls = self.connections().filter(|(_, it)| it.phase == Phase::Connecting);
        let (since, at) = calls.map(|(at, it)| (it.phase_since, at)).min()?;
        (now.since(since) >= CALL).then_some(at)
    }

    /// The quietest of the address that has opened most, if that is too many. Not of loopback, where all nodes of a host look
    /// alike.
    fn one_of_a_crowd(&self) -> Option<usize> {
        let mut crowds: BTreeMap<IpAddr, (usize, Time, usize)> = BTreeMap::new();
        for (at, connection) in self.connections() {
            let Some(from) = connection.from.map(|from| network(from.ip())).filter(|ip| !ip.is_loopback()) else {
                continue;
            };
            let (count, quiet_since, quietest) = crowds.entry(from).or_insert((0, connection.last_heard, at));
            *count += 1;
            if connection.last_heard < *quiet_since {
                (*quiet_since, *quietest) = (connection.last_heard, at);
            }
        }
        let (count, _, at) = crowds.into_values().max_by_key(|(count, ..)| *count)?;
        (count > (self.connections_max / SHARE_OF_ALL).max(1)).then_some(at)
    }

    /// The one over which nothing has gone for longest.
    fn quiet_one(&self, now: Time) -> Option<usize> {
        let open = self.connections().filter(|(_, it)| it.peer().is_some() && it.is_flushed());
        let (since, at) = open.map(|(at, it)| (it.last_traffic, at)).min()?;
        (now.since(since) >= QUIET).then_some(at)
    }

    /// After a connection was read: what all have begun to send is bounded, and the one goes that has begun to send most.
    pub(super) fn bound_what_is_begun(&mut self, now: Time, at: usize) {
        let begun = |connection: &Connection| connection.begun_bytes();
        if self.slots[at].connection.as_ref().is_none_or(|it| begun(it) < BEGUN_BYTES)
            || self.connections().map(|(_, it)| begun(it)).sum::<usize>() <= BEGUN_BYTES_MAX
        {
            return;
        }
        if let Some((_, at)) = self.connections().map(|(at, it)| (begun(it), at)).max() {
            self.gives_way(now, at, "what peers have begun to send takes too much memory");
        }
    }

    fn connections(&self) -> impl Iterator<Item = (usize, &Connection)> {
        self.slots.iter().enumerate().filter_map(|(at, slot)| Some((at, slot.connection.as_ref()?)))
    }

    fn gives_way(&mut self, now: Time, at: usize, why: &str) {
        if let Some(from) = self.slots[at].connection.as_ref().and_then(Connection::remote_addr) {
            self.refusals.note(now, Reason::Busy, from, why);
        }
        self.end(at, &io::Error::other(why.to_owned()));
    }
}
