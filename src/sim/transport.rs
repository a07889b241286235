//! What the driver does for a node in the real world: dialling, handshakes, frames, and connections that break.

use std::sync::Arc;

use super::network::{Frame, Link, LinkState};
use super::world::{Condition, Happening, HostId, World};
use crate::base::{Contact, Ids, Span, Time};
use crate::node::{Hope, Input, Message};
use crate::wire::handshake::{PROTOCOL_MAX, PROTOCOL_MIN};
use crate::wire::{FrameDecoder, Hello, Packet, decode_with, encode, judge};

/// How long connecting may take, as in the driver.
const DIAL_TIME: Span = Span::secs(3);
/// After so long without a word from the other end a connection breaks, as in the driver.
const UNHEARD_TIME: Span = Span::secs(6);
/// After so long without traffic a connection is given back, as in the driver.
const IDLE_TIME: Span = Span::secs(60);

impl World {
    pub(super) fn send(&mut self, from: HostId, to: Contact, message: Message) {
        let Some(target) = self.at_addr(to.addr) else { return };
        let of_ring = matches!(message, Message::Ring(_));
        let mut bytes = Vec::new();
        encode(&Packet::Message(message), &mut bytes);
        self.counters.bytes += bytes.len() as u64;
        if of_ring {
            self.counters.bytes_of_ring += bytes.len() as u64;
        }
        let frame = Frame { bytes, of_ring };
        let now = self.now;
        let link = self.host_mut(from).links.get_mut(&target);
        match link.filter(|link| now.since(link.used) < IDLE_TIME).map(|link| &mut link.state) {
            Some(LinkState::Open) => self.transmit(from, target, frame),
            Some(LinkState::Dialling(waiting)) => waiting.push(frame),
            None => {
                self.hang_up(from, target);
                self.dial(from, target, None);
                if let Some(LinkState::Dialling(waiting)) =
                    self.host_mut(from).links.get_mut(&target).map(|link| &mut link.state)
                {
                    waiting.push(frame);
                }
            }
        }
    }

    fn delay(&mut self, from: HostId, to: HostId) -> Span {
        let (sender, receiver) = (self.host(from), self.host(to));
        let (a, b, times) = (sender.spot, receiver.spot, sender.slowness.max(receiver.slowness));
        self.config.network.latency.draw(a, b, &mut self.rng) * times
    }

    fn transmit(&mut self, from: HostId, to: HostId, frame: Frame) {
        let (now, config) = (self.now, self.config.network);
        let (from_life, life) = (self.host(from).life, self.host(to).life);
        let at = now + self.delay(from, to);
        let passes = self.reaches(from, to);
        let [lost, doubled, overtaken] = [
            self.rng.chance(config.loss_per_mille),
            frame.of_ring && self.rng.chance(config.duplicate_per_mille),
            frame.of_ring && self.rng.chance(config.reorder_per_mille),
        ];
        let Some(link) = self.host_mut(from).links.get_mut(&to) else { return };
        link.used = now;
        if !passes {
            if link.unheard_since.is_none() {
                link.unheard_since = Some(now);
                self.schedule(now + UNHEARD_TIME, Happening::Unheard { from, from_life, to, since: now });
            }
            self.counters.blocked += 1;
            return;
        }
        let at = if overtaken { at } else { at.max(link.last_arrival) };
        link.last_arrival = link.last_arrival.max(at);
        self.counters.passed += u64::from(overtaken);
        if lost {
            self.counters.lost += 1;
            return;
        }
        if doubled {
            self.counters.doubled += 1;
            let later = at + self.delay(from, to);
            self.schedule(later, Happening::Arrives { from, from_life, to, life, frame: frame.clone() });
        }
        self.schedule(at, Happening::Arrives { from, from_life, to, life, frame });
    }

    pub(super) fn dial(&mut self, from: HostId, to: HostId, seed: Option<String>) {
        let now = self.now;
        if self.host(from).links.contains_key(&to) && seed.is_none() {
            return;
        }
        let waits = || Link::new(LinkState::Dialling(Vec::new()), now);
        self.host_mut(from).links.entry(to).or_insert_with(waits);
        // Once there and back for the connection, once for the handshake.
        let ways: Vec<Span> = (0..4).map(|_| self.delay(from, to)).collect();
        let at = ways.into_iter().fold(now, |at, way| at + way);
        let from_life = self.host(from).life;
        self.schedule(at, Happening::Dialled { from, from_life, to, seed });
    }

    /// The handshake has made its way there and back.
    pub(super) fn dialled(&mut self, from: HostId, from_life: u32, to: HostId, seed: Option<String>) {
        if !self.lives(from, from_life) {
            return;
        }
        let answers = self.reaches(from, to) && self.reaches(to, from);
        if !answers || matches!(self.host(to).condition, Condition::Frozen(_)) {
            let at = self.now + DIAL_TIME;
            self.schedule(at, Happening::DialTimedOut { from, from_life, to, seed });
            return;
        }
        let (Some(dialler), Some(other)) = (self.hello(from), self.hello(to)) else {
            self.dial_failed(from, to, seed, ("connection refused".to_owned(), Hope::Some), true);
            return;
        };
        match judge(&other, &dialler).and_then(|params| judge(&dialler, &other).map(|_| params)) {
            Err(refusal) => {
                let hope = refusal.code.hope();
                self.dial_failed(from, to, seed, (refusal.reason, hope), false);
            }
            Ok(params) => {
                if !self.host(from).links.contains_key(&to) {
                    return;
                }
                let peer = (other.addr, other.incarnation);
                self.act(from, Input::Session { peer, params, seed });
                let back = (dialler.addr, dialler.incarnation);
                self.act(to, Input::Session { peer: back, params, seed: None });
                for (sender, receiver) in [(from, to), (to, from)] {
                    self.open(sender, receiver);
                }
            }
        }
    }

    fn open(&mut self, from: HostId, to: HostId) {
        let now = self.now;
        let link = self.host_mut(from).links.entry(to).or_insert_with(|| Link::new(LinkState::Open, now));
        link.used = now;
        if let LinkState::Dialling(waiting) = std::mem::replace(&mut link.state, LinkState::Open) {
            for frame in waiting {
                self.transmit(from, to, frame);
            }
        }
    }

    pub(super) fn dial_timed_out(&mut self, from: HostId, from_life: u32, to: HostId, seed: Option<String>) {
        if self.lives(from, from_life) {
            self.counters.dials_timed_out += 1;
            self.dial_failed(from, to, seed, ("it does not answer".to_owned(), Hope::Some), false);
        }
    }

    fn dial_failed(
        &mut self,
        from: HostId,
        to: HostId,
        seed: Option<String>,
        (reason, hope): (String, Hope),
        refused: bool,
    ) {
        if let Some(seed) = seed {
            self.act(from, Input::SeedFailed { seed, reason, hope });
        }
        // The other end may have dialled meanwhile, with more success.
        let dialling = |link: &Link| matches!(link.state, LinkState::Dialling(_));
        if !self.host(from).links.get(&to).is_some_and(dialling) {
            return;
        }
        let undelivered = match self.host_mut(from).links.remove(&to).map(|link| link.state) {
            Some(LinkState::Dialling(waiting)) => waiting,
            _ => Vec::new(),
        };
        let (life, peer) = (self.host(from).life, self.host(to).addr);
        self.schedule(self.now, Happening::LinkBroken { host: from, life, peer, refused, undelivered });
    }

    /// Frames were sent over a blocked way, and nothing came back since.
    pub(super) fn unheard(&mut self, from: HostId, from_life: u32, to: HostId, since: Time) {
        let passes = self.reaches(from, to);
        let Some(link) = self.host_mut(from).links.get_mut(&to) else { return };
        if link.unheard_since != Some(since) {
            return;
        }
        link.unheard_since = None;
        if passes || !self.lives(from, from_life) {
            return;
        }
        self.counters.unheard += 1;
        for (host, peer) in [(from, to), (to, from)] {
            if self.host_mut(host).links.remove(&peer).is_some() {
                self.tell_broken(host, peer, Span::ZERO);
            }
        }
    }

    fn tell_broken(&mut self, host: HostId, peer: HostId, after: Span) {
        let (life, peer) = (self.host(host).life, self.host(peer).addr);
        let broken = Happening::LinkBroken { host, life, peer, refused: false, undelivered: Vec::new() };
        self.schedule(self.now + after, broken);
    }

    /// A process has ended and its host's system closes the connections: the other ends hear of it.
    pub(super) fn break_links(&mut self, host: HostId) {
        let links = std::mem::take(&mut self.host_mut(host).links);
        let after = self.config.network.latency.longest();
        for peer in links.into_keys() {
            if self.host_mut(peer).links.remove(&host).is_some() && self.reaches(host, peer) {
                self.tell_broken(peer, host, after);
            }
        }
        // Those that this host does not know of: their other end's host was away when it closed them.
        for peer in self.all_hosts() {
            let open = |link: &Link| matches!(link.state, LinkState::Open);
            if self.host(peer).links.get(&host).is_some_and(open) {
                self.host_mut(peer).links.remove(&host);
                self.tell_broken(peer, host, after);
            }
        }
    }

    /// Gives an idle connection back, at both ends.
    fn hang_up(&mut self, from: HostId, to: HostId) {
        self.host_mut(from).links.remove(&to);
        if self.host(to).links.get(&from).is_some_and(|link| matches!(link.state, LinkState::Open)) {
            self.host_mut(to).links.remove(&from);
        }
    }

    fn hello(&self, host: HostId) -> Option<Hello> {
        let of = self.host(host);
        let node = of.node.as_ref()?;
        Some(Hello {
            protocol: (PROTOCOL_MIN, PROTOCOL_MAX),
            addr: of.addr,
            incarnation: of.incarnation,
            ring: node.params().copied(),
            wishes: self.config.wishes,
            software: Arc::from("sim"),
        })
    }

    pub(super) fn arrives(&mut self, host: HostId, from_life: u32, to: HostId, life: u32, bytes: &[u8]) {
        let sender = self.host(host);
        // What a dead process sent may still arrive; what was sent to one may not.
        if !self.lives(to, life) || sender.life != from_life {
            return;
        }
        let (addr, incarnation) = (sender.addr, sender.incarnation);
        let mut decoder = FrameDecoder::default();
        decoder.push(bytes);
        let packet = match decoder.next_frame() {
            Ok(Some(frame)) => decode_with(frame, &mut self.ids),
            other => panic!("one frame was sent, {other:?} arrived"),
        };
        let now = self.now;
        if let Some(link) = self.host_mut(to).links.get_mut(&host) {
            link.used = now;
        }
        self.counters.messages += 1;
        self.note(u64::from(to));
        self.note_bytes(bytes);
        let from = self.ids.contact(addr, incarnation);
        let input = match packet {
            Ok(Packet::Message(message)) => Input::Message { from, message },
            Ok(Packet::Goodbye) => {
                self.host_mut(to).links.remove(&host);
                Input::Goodbye(from)
            }
            other => panic!("our own codec does not understand itself: {other:?}"),
        };
        self.with_node(to, |node, now| node.handle_input(now, input));
    }

    /// A leaver tells everybody it is connected to, and closes; the words before it arrive before it. Whoever has heard it and
    /// has still something to say dials, and is refused.
    pub(super) fn say_goodbye(&mut self, host: HostId) {
        let open = |link: &Link| matches!(link.state, LinkState::Open);
        let peers: Vec<HostId> =
            self.host(host).links.iter().filter(|(_, link)| open(link)).map(|(peer, _)| *peer).collect();
        for peer in peers {
            let mut bytes = Vec::new();
            encode(&Packet::Goodbye, &mut bytes);
            self.transmit(host, peer, Frame { bytes, of_ring: false });
        }
        self.host_mut(host).links.clear();
    }
}

pub(super) fn message_of(bytes: &[u8], ids: &mut Ids) -> Option<Message> {
    match decode_with(bytes.get(4..)?, ids) {
        Ok(Packet::Message(message)) => Some(message),
        _ => None,
    }
}
