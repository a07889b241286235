//! All connections to peers: accepting, dialling, the handshake, and what becomes of a connection that ends.
//!
//! What happens is told to the node as inputs; nothing is decided here but how to reach an address.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use tracing::{debug, warn};

use super::connection::{Arrived, Connection, Dialled, Phase, Way};
use super::offenders::Offenders;
use super::refusals::{Reason, Refusals};
use super::ring_key::RingKeys;
use super::seldom::Seldom;
use super::tunnel::{Credentials, Tunnel};
use crate::base::{Capacity, Contact, Ids, Span, Time};
use crate::data::Metric;
use crate::node::{Hope, Input, Lane, Message};
use crate::wire::{Hello, Packet, Refusal, RefusalCode, encode};

/// The listener and every connection.
pub(super) struct Peers {
    listener: TcpListener,
    // The local hello; its ring is filled in once known.
    pub(super) local: Hello,
    // With a ring key everything goes through tunnels.
    credentials: Option<Arc<Credentials>>,
    pub(super) refusals: Refusals,
    pub(super) offenders: Offenders,
    pub(super) slots: Vec<Slot>,
    free: Vec<usize>,
    pub(super) by_addr: BTreeMap<SocketAddr, usize>,
    // Connections with something to write at the end of the turn.
    pub(super) dirty: BTreeSet<usize>,
    // Connections with more to read than one turn takes.
    unread: BTreeSet<usize>,
    // Peers that have said goodbye on one connection, but not yet on another.
    leavers: BTreeSet<Contact>,
    // This node has said goodbye.
    pub(super) leaving: bool,
    pub(super) inputs: VecDeque<Input>,
    pub(super) connections_max: usize,
    // Of accepting that fails.
    told: Seldom,
    pub(super) accept_again: Option<Time>,
    pub(super) next_sweep: Time,
    buffer: Vec<u8>,
    // Makes contacts of the addresses in packets.
    pub(super) ids: Ids,
}

#[derive(Default)]
pub(super) struct Slot {
    // Counts the connections that lived here, so that a late event for an earlier one is not taken for this one's.
    generation: usize,
    pub(super) connection: Option<Connection>,
}

/// Tokens below this are not connections'.
pub(super) const FIRST_TOKEN: usize = 16;
/// Bits of a token that hold the slot; the others hold the generation.
const SLOT_BITS: u32 = 20;
/// Connections accepted in one turn.
const ACCEPT_TURN: usize = 64;
/// Before accepting again after the system had no descriptor left.
const ACCEPT_PAUSE: Span = Span::millis(100);
/// Between looks at idle and slow connections.
pub(super) const SWEEP_INTERVAL: Span = Span::secs(1);
/// The size of the one buffer that sockets are read into.
const BUFFER_BYTES: usize = 64 << 10;
/// Remembers the ids of 2^this addresses, in 14 kB: most that are spoken of often.
pub(super) const IDS_BITS: u32 = 8;

impl Peers {
    pub fn new(
        mut listener: TcpListener,
        token: Token,
        registry: &Registry,
        local: Hello,
        credentials: Option<Credentials>,
        connections_max: usize,
    ) -> io::Result<Self> {
        registry.register(&mut listener, token, Interest::READABLE)?;
        Ok(Self {
            listener,
            local,
            credentials: credentials.map(Arc::new),
            refusals: Refusals::default(),
            offenders: Offenders::default(),
            slots: Vec::new(),
            free: Vec::new(),
            by_addr: BTreeMap::new(),
            dirty: BTreeSet::new(),
            unread: BTreeSet::new(),
            leavers: BTreeSet::new(),
            leaving: false,
            inputs: VecDeque::new(),
            connections_max: connections_max.min((1 << SLOT_BITS) - 1),
            told: Seldom::default(),
            accept_again: None,
            next_sweep: Time::default(),
            buffer: vec![0; BUFFER_BYTES],
            ids: Ids::new(Capacity::MAX, Some(IDS_BITS)),
        })
    }

    /// The next thing that the node should hear.
    pub fn poll_input(&mut self) -> Option<Input> {
        self.inputs.pop_front()
    }

    /// The ring that the node looks for or is in.
    pub fn set_ring(&mut self, ring: crate::node::RingParams) {
        self.local.ring = Some(ring);
        // Members of another one may have spoken to this node while it was in none.
        let is_elsewhere = |connection: &Connection| connection.ring.is_some_and(|other| other.ring != ring.ring);
        for at in 0..self.slots.len() {
            if self.slots[at].connection.as_ref().is_some_and(is_elsewhere) {
                self.end(at, &io::Error::other("it is in another ring"));
            }
        }
    }

    /// The ring has other keys. Whoever has shown only one that counts no more is cut off; it may come again.
    pub fn set_keys(&mut self, keys: RingKeys) {
        let Some(credentials) = &mut self.credentials else { return };
        *credentials = Arc::new(Credentials { keys, identity: credentials.identity.clone() });
        let keys = credentials.keys.clone();
        let is_out = |connection: &Connection| connection.tunnel.as_ref().is_some_and(|it| !it.is_kept_by(&keys));
        for at in 0..self.slots.len() {
            if self.slots[at].connection.as_ref().is_some_and(is_out) {
                self.end(at, &io::Error::other("its ring key counts no more"));
            }
        }
    }

    /// When [`Peers::sweep`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        let busy = self.slots.iter().any(|slot| slot.connection.is_some());
        busy.then_some(self.next_sweep).into_iter().chain(self.accept_again).min()
    }

    /// Whether a turn is wanted at once, as sockets hold more than was read.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    // ----- from the node -----

    /// Sends `message`, over the connection that exists or one that is made.
    pub fn send(&mut self, now: Time, registry: &Registry, to: Contact, message: Message) {
        if let Some(&at) = self.by_addr.get(&to.addr) {
            if let Some(connection) = &mut self.slots[at].connection {
                match (&mut connection.dialled, connection.phase) {
                    (_, Phase::Open(_)) => self.queue(at, message),
                    (Some(dialled), _) => push_waiting(dialled, message, &mut self.inputs, to.addr),
                    (None, _) => {}
                }
            }
            return;
        }
        self.dial(now, registry, to.addr, Dialled { addr: Some(to.addr), seed: None, waiting: vec![message] });
    }

    /// Dials a seed whose address was found.
    pub fn dial_seed(&mut self, now: Time, registry: &Registry, seed: String, addr: SocketAddr) {
        if let Some(connection) = self.by_addr.get(&addr).and_then(|&at| self.slots[at].connection.as_mut()) {
            match (connection.phase, &mut connection.dialled, connection.ring) {
                (Phase::Open(peer), _, Some(params)) => {
                    let peer = (peer.addr, peer.incarnation);
                    self.inputs.push_back(Input::Session { peer, params, seed: Some(seed) });
                }
                (_, Some(dialled), _) => {
                    dialled.seed.get_or_insert(seed);
                }
                _ => {}
            }
            return;
        }
        self.dial(now, registry, addr, Dialled { addr: Some(addr), seed: Some(seed), waiting: Vec::new() });
    }

    fn dial(&mut self, now: Time, registry: &Registry, addr: SocketAddr, dialled: Dialled) {
        let socket =
            if self.makes_room(now) { TcpStream::connect(addr) } else { Err(io::Error::other("too many connections")) };
        let ring = self.local.ring.map(|params| params.ring);
        let tunnel = || self.credentials.clone().map(|credentials| Tunnel::dial(credentials, ring));
        let connection = socket.map(|socket| Connection::new(socket, Way::Dialled(Dialled::default()), tunnel(), now));
        match connection.and_then(|connection| self.add(now, registry, connection)) {
            Ok(at) => {
                if let Some(connection) = &mut self.slots[at].connection {
                    connection.dialled = Some(dialled);
                }
                self.by_addr.insert(addr, at);
            }
            Err(error) => self.dial_failed(dialled, &error),
        }
    }

    fn dial_failed(&mut self, dialled: Dialled, error: &io::Error) {
        let Some(addr) = dialled.addr else { return };
        if let Some(seed) = dialled.seed {
            self.inputs.push_back(Input::SeedFailed { seed, reason: plain(error), hope: Hope::Some });
        }
        let refused = error.kind() == io::ErrorKind::ConnectionRefused;
        self.inputs.push_back(Input::Unreachable { addr, refused, undelivered: dialled.waiting });
    }

    pub(super) fn queue(&mut self, at: usize, message: Message) {
        let Some(connection) = &mut self.slots[at].connection else { return };
        let lane = message.lane();
        let packet = Packet::Message(message);
        if connection.queue(lane, &packet).is_ok() {
            self.dirty.insert(at);
            return;
        }
        let peer = connection.peer();
        if connection.is_news_that_it_is_full() {
            warn!(peer = ?peer.map(|peer| peer.addr), ?lane, "the peer is too slow: its queue is full");
        }
        if let (Packet::Message(message), Some(to)) = (packet, peer) {
            self.inputs.push_back(Input::Overflow { to, message });
        }
    }

    /// Says goodbye to everybody and sends no more.
    pub fn say_goodbye(&mut self) {
        self.leaving = true;
        for at in 0..self.slots.len() {
            self.say_goodbye_on(at);
        }
    }

    pub(super) fn say_goodbye_on(&mut self, at: usize) {
        if let Some(connection) = self.slots[at].connection.as_mut().filter(|c| c.peer().is_some()) {
            // After everything else: what was asked of this node and is not answered before, it has not done.
            // A full queue means that the peer hears of it by the end of the connection.
            let _ = connection.queue(Lane::Bulk, &Packet::Goodbye);
            self.dirty.insert(at);
        }
    }

    /// After a goodbye: whether everybody has heard it and closed.
    pub fn is_quiet(&self) -> bool {
        self.slots.iter().filter_map(|slot| slot.connection.as_ref()).all(|connection| connection.peer().is_none())
    }

    // ----- from the system -----

    pub fn accept(&mut self, now: Time, registry: &Registry) {
        self.accept_again = None;
        for _ in 0..ACCEPT_TURN {
            match self.listener.accept() {
                Ok((socket, from)) => {
                    if self.offenders.is_away(now, from.ip()) && !self.has_member_at(from.ip()) {
                        let why = "somebody at its address was refused again and again";
                        self.refusals.note(now, Reason::TurnedAway, from, why);
                        continue;
                    }
                    if !self.makes_room(now) {
                        self.refusals.note(now, Reason::Busy, from, "there are too many connections");
                        self.say_busy(socket);
                        continue;
                    }
                    let tunnel = self.credentials.clone().map(Tunnel::accept);
                    if let Err(error) =
                        self.add(now, registry, Connection::new(socket, Way::Accepted(from), tunnel, now))
                    {
                        warn!(%error, "a peer's connection could not be used");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => {
                    if self.told.is_due(std::time::Instant::now()) {
                        warn!(%error, "peers cannot be accepted for the moment");
                    }
                    break;
                }
            }
        }
        // Edge-triggered: whoever stops before the queue is empty must come back by itself.
        self.accept_again = Some(now + ACCEPT_PAUSE);
    }

    /// What is counted and measured of peers.
    pub fn metrics(&self) -> [Metric; 2] {
        [
            Metric::gauge("chordkv_peer_connections", "Connections with peers.", self.count() as u64),
            Metric::counters(
                "chordkv_peers_refused",
                "Peers that were not let in, or were cut off.",
                "reason",
                self.refusals.counts(),
            ),
        ]
    }

    /// Says why, as far as it arrives; strangers to the ring key are told nothing.
    fn say_busy(&self, mut socket: TcpStream) {
        if self.credentials.is_none() {
            let (code, reason) = (RefusalCode::Busy, "there are too many connections".to_owned());
            let mut bytes = Vec::new();
            encode(&Packet::Refusal(Refusal { code, reason }), &mut bytes);
            let _ = socket.write(&bytes);
        }
    }

    /// Whether a member is connected from there: whoever shares its address must not keep others of it out.
    fn has_member_at(&self, ip: IpAddr) -> bool {
        let connections = self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        connections
            .filter(|connection| connection.peer().is_some())
            .any(|connection| connection.remote_ip() == Some(ip))
    }

    fn add(&mut self, now: Time, registry: &Registry, mut connection: Connection) -> io::Result<usize> {
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let slot = &mut self.slots[at];
        slot.generation += 1;
        connection.prepare();
        if let Err(error) = connection.register(registry, token_of(at, slot.generation)) {
            self.free.push(at);
            return Err(error);
        }
        slot.connection = Some(connection);
        self.next_sweep = self.next_sweep.max(now + SWEEP_INTERVAL);
        Ok(at)
    }

    /// A socket is ready.
    pub fn ready(&mut self, now: Time, event: &Event) {
        let Some(at) = self.slot_of(event.token()) else { return };
        if event.is_writable() {
            self.writable(now, at);
        }
        if event.is_readable() || event.is_read_closed() {
            self.read(now, at, event.is_read_closed());
        }
    }

    fn slot_of(&self, token: Token) -> Option<usize> {
        let at = (token.0 - FIRST_TOKEN) & ((1 << SLOT_BITS) - 1);
        let slot = self.slots.get(at)?;
        (slot.connection.is_some() && token_of(at, slot.generation) == token).then_some(at)
    }

    fn writable(&mut self, now: Time, at: usize) {
        let Some(connection) = &mut self.slots[at].connection else { return };
        if connection.phase == Phase::Connecting {
            match connection.connected() {
                Ok(false) => return,
                Ok(true) => {
                    connection.greet(now);
                    let hello = Packet::Hello(Box::new(self.local.clone()));
                    // The first packet always has room.
                    let _ = connection.queue(Lane::Maintenance, &hello);
                }
                Err(error) => return self.end(at, &error),
            }
        }
        self.dirty.insert(at);
    }

    /// Reads on where the last turn left more.
    pub fn read_on(&mut self, now: Time) {
        for at in std::mem::take(&mut self.unread) {
            self.read(now, at, false);
        }
    }

    fn read(&mut self, now: Time, at: usize, ending: bool) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let filled = match &mut self.slots[at].connection {
            Some(connection) => connection.fill(now, &mut buffer, ending),
            None => Ok(true),
        };
        self.buffer = buffer;
        if matches!(filled, Ok(false)) {
            self.unread.insert(at);
        }
        // What came before an error still counts.
        while let Some(connection) = &mut self.slots[at].connection {
            let Some(arrived) = connection.next_packet(&mut self.ids) else { break };
            match arrived {
                Arrived::Packet(packet) => self.on_packet(now, at, packet),
                Arrived::Garbage(reason) => {
                    self.on_garbage(now, at, reason);
                    return;
                }
                Arrived::Stranger(stranger) => {
                    self.on_stranger(now, at, stranger);
                    return;
                }
            }
        }
        self.bound_what_is_begun(now, at);
        let Some(connection) = &self.slots[at].connection else { return };
        let peer_finished = connection.peer_finished;
        if connection.has_replies() {
            self.dirty.insert(at);
        }
        if let Err(error) = filled {
            self.end(at, &error);
        } else if peer_finished {
            self.peer_finished(now, at);
        }
    }

    // ----- packets -----

    fn on_packet(&mut self, now: Time, at: usize, packet: Packet) {
        let Some(connection) = &mut self.slots[at].connection else { return };
        match (connection.phase, packet) {
            (Phase::Open(from), Packet::Message(message)) => {
                self.inputs.push_back(Input::Message { from, message });
            }
            // It is said once.
            (Phase::Open(_), Packet::Goodbye) if connection.peer_left => {}
            (Phase::Open(from), Packet::Goodbye) => {
                connection.peer_left = true;
                self.by_addr.retain(|_, slot| *slot != at);
                self.leavers.insert(from);
                self.tell_goodbye(from);
            }
            (Phase::Greeting, Packet::Hello(hello)) => self.on_hello(now, at, &hello),
            (Phase::Greeting, Packet::Refusal(refusal)) if connection.dialled.is_some() => {
                self.on_refusal(now, at, &refusal);
            }
            (Phase::Refusing, _) => {}
            (_, _) => self.on_garbage(now, at, "a packet that has no place here".to_owned()),
        }
    }

    /// A leaver's goodbye counts once it was said on every connection to it: answers may be under way on another one.
    pub(super) fn tell_goodbye(&mut self, peer: Contact) {
        let speaks = |other: &Connection| other.peer() == Some(peer) && !other.peer_left && !other.peer_finished;
        if !self.slots.iter().filter_map(|slot| slot.connection.as_ref()).any(speaks) && self.leavers.remove(&peer) {
            self.inputs.push_back(Input::Goodbye(peer));
        }
    }

    // ----- ends -----

    /// A connection broke.
    pub(super) fn end(&mut self, at: usize, error: &io::Error) {
        let Some(connection) = self.close(at) else { return };
        match (connection.phase, connection.dialled) {
            (_, Some(dialled)) => self.dial_failed(dialled, error),
            (Phase::Open(peer), None) => {
                debug!(peer = %peer.addr, %error, "a connection broke");
                self.lost(peer, connection.peer_left);
            }
            _ => {}
        }
    }

    /// Nothing that was sent over a closed connection will be answered, unless there is another one. Of a leaver that
    /// was said already, or is said with its last connection.
    pub(super) fn lost(&mut self, peer: Contact, left: bool) {
        if !left && !self.by_addr.contains_key(&peer.addr) {
            let lost = Input::Unreachable { addr: peer.addr, refused: false, undelivered: Vec::new() };
            self.inputs.push_back(lost);
        }
        self.tell_goodbye(peer);
    }

    fn peer_finished(&mut self, now: Time, at: usize) {
        let Some(connection) = &self.slots[at].connection else { return };
        match connection.phase {
            // It may have gone in order, as idle or with a goodbye, or its process may be over. New messages need a new
            // connection, and making one tells which.
            Phase::Open(peer) => {
                let (finished, left) = (connection.is_finished(), connection.peer_left);
                self.by_addr.retain(|_, slot| *slot != at);
                if finished {
                    self.close(at);
                    self.tell_goodbye(peer);
                } else {
                    self.dirty.insert(at);
                    self.lost(peer, left);
                }
            }
            _ => self.on_half_greeting(now, at, io::ErrorKind::UnexpectedEof),
        }
    }

    pub(super) fn close(&mut self, at: usize) -> Option<Connection> {
        let connection = self.slots[at].connection.take()?;
        self.free.push(at);
        self.by_addr.retain(|_, slot| *slot != at);
        self.dirty.remove(&at);
        self.unread.remove(&at);
        Some(connection)
    }

    // ----- at the end of a turn -----

    /// Writes what was queued in this turn. `leaving`: every connection is finished once it is written.
    pub fn flush(&mut self, now: Time, leaving: bool) {
        for at in std::mem::take(&mut self.dirty) {
            let Some(connection) = &mut self.slots[at].connection else { continue };
            if connection.phase == Phase::Connecting {
                continue;
            }
            if let Err(error) = connection.flush(now) {
                self.end(at, &error);
                continue;
            }
            if connection.is_flushed() {
                let over = connection.peer_finished || connection.phase == Phase::Refusing;
                if over || leaving {
                    connection.finish();
                }
                if connection.peer_finished {
                    self.close(at);
                }
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

fn push_waiting(dialled: &mut Dialled, message: Message, inputs: &mut VecDeque<Input>, addr: SocketAddr) {
    if dialled.waiting.len() < crate::base::limits::PEER_QUEUE_MESSAGES_MAX {
        dialled.waiting.push(message);
    } else {
        debug!(peer = %addr, "too many messages wait for a connection");
        let to = Contact::new(Capacity::MAX, addr, crate::base::Incarnation(0));
        inputs.push_back(Input::Overflow { to, message });
    }
}

fn token_of(at: usize, generation: usize) -> Token {
    Token(FIRST_TOKEN + (at | (generation << SLOT_BITS)))
}

/// Errors of `accept` that concern the one connection only.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// The system's error without its number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nobody listens there".to_owned(),
        io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "there is no route to it".to_owned(),
        _ => error.to_string(),
    }
}
