//! The begin of a connection: who the peer is, whether it is let in, and what it is told if not.

use std::io;
use std::net::IpAddr;

use tracing::debug;

use super::connection::{Dialled, Phase};
use super::peers::{IDS_BITS, Peers};
use super::refusals::Reason;
use super::tunnel::Stranger;
use crate::base::{Contact, Ids, Span, Time};
use crate::node::{Input, Lane, RingParams};
use crate::wire::{Hello, Packet, Refusal, RefusalCode, judge};

/// No member gives a handshake up before.
const LEAVES_SOON: Span = Span::secs(1);

impl Peers {
    pub(super) fn on_hello(&mut self, now: Time, at: usize, hello: &Hello) {
        let Some(connection) = &mut self.slots[at].connection else { return };
        // With a ring key a node is who it has shown to be, whatever it says.
        let proven = connection.tunnel.as_ref().and_then(|tunnel| tunnel.peer());
        if proven.is_some_and(|proven| proven != hello.incarnation) {
            let reason = format!("it says that it is node {}, whose key it does not have", hello.incarnation);
            let from = connection.from;
            self.refusals.note(now, Reason::Identity, hello.addr, &reason);
            self.offends(now, from.map(|from| from.ip()));
            self.end(at, &io::Error::new(io::ErrorKind::InvalidData, reason));
            return;
        }
        let verdict = judge(&self.local, hello);
        match verdict {
            Err(refusal) => {
                if connection.dialled.is_some() {
                    self.on_refusal(now, at, &refusal);
                } else {
                    if refusal.code.is_fatal() {
                        self.refusals.note(now, refusal.code.into(), hello.addr, &refusal.reason);
                    } else {
                        // Of nodes that start together.
                        debug!(peer = %hello.addr, reason = refusal.reason, "a peer is refused");
                    }
                    self.refuse(now, at, refusal);
                }
            }
            Ok(params) => {
                let capacity = params.space.capacity();
                let contact = Contact::new(capacity, hello.addr, hello.incarnation);
                connection.open(contact);
                if self.ids.capacity() != capacity {
                    self.ids = Ids::new(capacity, Some(IDS_BITS));
                }
                connection.last_traffic = now;
                let dialled = connection.dialled.take();
                if dialled.is_none() {
                    let answer = Packet::Hello(Box::new(self.local.clone()));
                    let _ = connection.queue(Lane::Maintenance, &answer);
                    self.dirty.insert(at);
                }
                self.opened(at, contact, params, dialled);
            }
        }
    }

    fn opened(&mut self, at: usize, contact: Contact, params: RingParams, dialled: Option<Dialled>) {
        let Dialled { addr, seed, waiting } = dialled.unwrap_or_default();
        if let Some(connection) = &mut self.slots[at].connection {
            connection.ring = Some(params);
        }
        // A seed may be known by another address than the one it advertises.
        if let Some(addr) = addr.filter(|addr| *addr != contact.addr) {
            self.by_addr.remove(&addr);
        }
        // Both may have dialled at the same time. Either connection works; the newer one is known to.
        self.by_addr.insert(contact.addr, at);
        let peer = (contact.addr, contact.incarnation);
        self.inputs.push_back(Input::Session { peer, params, seed });
        for message in waiting {
            self.queue(at, message);
        }
        if self.leaving {
            // It dialled before it heard, or the other way round.
            self.say_goodbye_on(at);
        }
    }

    /// The peer has sent us away, or we it, after we dialled.
    pub(super) fn on_refusal(&mut self, now: Time, at: usize, refusal: &Refusal) {
        let Some(connection) = self.close(at) else { return };
        let Some(Dialled { addr: Some(addr), seed, waiting }) = connection.dialled else { return };
        match seed {
            Some(seed) => {
                let (reason, hope) = (refusal.reason.clone(), refusal.code.hope());
                self.inputs.push_back(Input::SeedFailed { seed, reason, hope });
            }
            None if refusal.code.is_fatal() => {
                self.refusals.note(now, Reason::ByPeer, addr, &refusal.reason);
            }
            None => {}
        }
        self.inputs.push_back(Input::Unreachable { addr, refused: false, undelivered: waiting });
    }

    fn refuse(&mut self, now: Time, at: usize, refusal: Refusal) {
        if let Some(connection) = &mut self.slots[at].connection {
            connection.refuse(now);
            // The first packet always has room.
            let _ = connection.queue(Lane::Maintenance, &Packet::Refusal(refusal));
            self.dirty.insert(at);
        }
    }

    /// Whoever does so again and again is turned away for a while; not whoever speaks another version, or is of another ring.
    fn offends(&mut self, now: Time, from: Option<IpAddr>) {
        if let Some(ip) = from {
            self.offenders.note(now, ip);
        }
    }

    pub(super) fn on_garbage(&mut self, now: Time, at: usize, reason: String) {
        let Some(connection) = &self.slots[at].connection else { return };
        match connection.phase {
            Phase::Open(peer) => {
                let from = connection.remote_ip();
                self.refusals.note(now, Reason::CutOff, peer.addr, &reason);
                self.offends(now, from);
                self.end(at, &io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            _ if connection.dialled.is_some() => {
                self.end(at, &io::Error::new(io::ErrorKind::InvalidData, "it is no chordkv node"));
            }
            _ => {
                if let Some(from) = connection.from {
                    self.refusals.note(now, Reason::Garbage, from, &reason);
                    self.offends(now, Some(from.ip()));
                }
                self.refuse(now, at, Refusal { code: RefusalCode::Malformed, reason });
            }
        }
    }

    /// What comes through the tunnel is nothing that a node with the ring key would send. Nobody is answered.
    pub(super) fn on_stranger(&mut self, now: Time, at: usize, stranger: Stranger) {
        let Some(connection) = &self.slots[at].connection else { return };
        if let Phase::Open(peer) = connection.phase {
            let from = connection.remote_ip();
            self.refusals.note(now, Reason::CutOff, peer.addr, stranger.reason());
            self.offends(now, from);
        } else if let Some(from) = connection.from {
            let reason = match stranger {
                Stranger::NoHandshake => Reason::NoKey,
                Stranger::Version => RefusalCode::Version.into(),
                Stranger::Key => Reason::WrongKey,
                Stranger::Record => Reason::Garbage,
            };
            self.refusals.note(now, reason, from, stranger.reason());
            if stranger != Stranger::Version {
                self.offends(now, Some(from.ip()));
            }
        }
        self.end(at, &io::Error::new(io::ErrorKind::InvalidData, stranger.reason()));
    }

    /// It went away, or time is over, before both knew each other.
    pub(super) fn on_half_greeting(&mut self, now: Time, at: usize, error: io::ErrorKind) {
        let Some(connection) = &self.slots[at].connection else { return };
        let has_key = connection.tunnel.is_some();
        let why = match error {
            io::ErrorKind::TimedOut if connection.phase == Phase::Greeting => "it does not end its handshake",
            io::ErrorKind::TimedOut => "it does not answer",
            _ if connection.phase != Phase::Greeting || connection.dialled.is_none() => "it closed the connection",
            _ if has_key => "it closed the connection: it has another ring key, or none (--ring-key-file)",
            _ => "it closed the connection: its ring may have a key, and this node was given none (--ring-key-file)",
        };
        // Whoever only looks whether somebody listens is not worth a line.
        let is_half = connection.has_spoken() || error == io::ErrorKind::TimedOut;
        if let (Some(from), Phase::Greeting, true) = (connection.from, connection.phase, is_half) {
            self.refusals.note(now, Reason::Silent, from, why);
            // A member may be on a link that carries nothing back: it has shown the key by then, and waits. Whoever plays a
            // first message again has shown it as well, and needs not wait.
            let has_left = error != io::ErrorKind::TimedOut && now.since(connection.phase_since) < LEAVES_SOON;
            if connection.tunnel.as_ref().is_some_and(|tunnel| has_left || !tunnel.has_seen_key()) {
                self.offends(now, Some(from.ip()));
            }
        }
        self.end(at, &io::Error::new(error, why));
    }
}
