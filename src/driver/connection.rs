//! One connection to a peer: its socket, how far the handshake is, what came in and what waits to go out.

use std::io::{self, Read};
use std::net::{IpAddr, Shutdown, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
#[cfg(target_os = "linux")]
use rustix::net::sockopt::set_tcp_user_timeout;

use super::outbox::{Full, Outbox};
use super::tunnel::{Stranger, Tunnel};
use crate::base::{Contact, Ids, Span, Time};
use crate::node::{Lane, Message, RingParams};
use crate::wire::handshake::HELLO_BYTES_MAX;
use crate::wire::{FrameDecoder, Packet, WireError, decode_with};

/// A connection to a peer.
#[derive(Debug)]
pub(super) struct Connection {
    socket: TcpStream,
    /// Whom it was accepted from.
    pub from: Option<SocketAddr>,
    pub phase: Phase,
    /// What this node dialled, if it did.
    pub dialled: Option<Dialled>,
    /// The ring that the handshake agreed on.
    pub ring: Option<RingParams>,
    /// Everything goes through it, if the ring has a key.
    pub tunnel: Option<Box<Tunnel>>,
    // What came through the tunnel last makes no sense.
    stranger: Option<Stranger>,
    decoder: FrameDecoder,
    outbox: Outbox,
    /// When bytes last came or were handed to the system.
    pub last_traffic: Time,
    /// When bytes last came; while none have, when the connection began.
    pub last_heard: Time,
    /// Since when something waits to be answered: the first bytes that were handed over, or would not be taken, after
    /// anything was heard. That the system takes bytes says nothing of the peer.
    pub unanswered_since: Option<Time>,
    /// When the phase began. Traffic does not count against it: whoever drips a hello gets no more time than others.
    pub phase_since: Time,
    /// The peer sends no more: what waits is written, then the connection is closed.
    pub peer_finished: bool,
    /// The peer has said on this connection that it leaves.
    pub peer_left: bool,
    /// This side sends no more.
    finished: bool,
}

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The system is connecting.
    Connecting,
    /// Connected; the peer's hello is awaited.
    Greeting,
    /// Both know each other.
    Open(Contact),
    /// A refusal is on its way out; nothing is read any more.
    Refusing,
}

/// Why a connection was dialled.
#[derive(Debug, Default)]
pub(super) struct Dialled {
    /// Where to.
    pub addr: Option<SocketAddr>,
    /// To join through this seed.
    pub seed: Option<String>,
    /// Messages that wait for the handshake.
    pub waiting: Vec<Message>,
}

/// How a connection came about.
pub(super) enum Way {
    /// This node made it.
    Dialled(Dialled),
    /// Somebody else did, from this address.
    Accepted(SocketAddr),
}

/// What reading found.
pub(super) enum Arrived {
    /// A packet.
    Packet(Packet),
    /// Something that cannot be understood; the connection must end.
    Garbage(String),
    /// The same of the tunnel: nothing can be answered.
    Stranger(Stranger),
}

/// Bytes read from one connection before others get their turn.
const READ_TURN: usize = 256 << 10;
/// The system gives a connection up when what was sent is not acknowledged for so long. Left alone it tries again after
/// pauses that double: half a minute after a network is whole again, messages would still wait on the old connection.
pub(super) const SILENCE_TIME: Span = Span::secs(6);

impl Connection {
    pub fn new(socket: TcpStream, way: Way, tunnel: Option<Tunnel>, now: Time) -> Self {
        let (phase, dialled, from) = match way {
            Way::Dialled(dialled) => (Phase::Connecting, Some(dialled), None),
            Way::Accepted(from) => (Phase::Greeting, None, Some(from)),
        };
        Self {
            socket,
            from,
            phase,
            dialled,
            ring: None,
            tunnel: tunnel.map(Box::new),
            stranger: None,
            decoder: FrameDecoder::with_limit(HELLO_BYTES_MAX),
            outbox: Outbox::default(),
            last_traffic: now,
            last_heard: now,
            unanswered_since: None,
            phase_since: now,
            peer_finished: false,
            peer_left: false,
            finished: false,
        }
    }

    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Before anything is sent.
    pub fn prepare(&self) {
        // One small message is one round trip: waiting for more to send only costs. A socket that refuses either works
        // all the same, only worse.
        let _ = self.socket.set_nodelay(true);
        #[cfg(target_os = "linux")]
        let _ = set_tcp_user_timeout(&self.socket, u32::try_from(SILENCE_TIME.0 / 1_000).unwrap_or(0));
    }

    /// Whether connecting has come to an end: `Ok(true)` when connected.
    pub fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The system has connected.
    pub fn greet(&mut self, now: Time) {
        self.phase = Phase::Greeting;
        self.phase_since = now;
    }

    /// The peer is sent away; whatever it says from now on is thrown away.
    pub fn refuse(&mut self, now: Time) {
        self.phase = Phase::Refusing;
        self.phase_since = now;
        self.decoder = FrameDecoder::default();
    }

    /// The handshake has ended well.
    pub fn open(&mut self, peer: Contact) {
        self.phase = Phase::Open(peer);
        self.decoder.set_limit(crate::base::limits::FRAME_BYTES_MAX);
    }

    pub fn peer(&self) -> Option<Contact> {
        match self.phase {
            Phase::Open(peer) => Some(peer),
            _ => None,
        }
    }

    pub fn queue(&mut self, lane: Lane, packet: &Packet) -> Result<(), Full> {
        self.outbox.push(lane, packet)
    }

    /// Whether it is the first time that its queue is full since it was empty.
    pub fn is_news_that_it_is_full(&mut self) -> bool {
        self.outbox.is_news_that_it_is_full()
    }

    /// Reads for one turn. `Ok(false)`: there may be more, another turn is wanted. `ending`: the system has said that the
    /// peer sends no more, and will not say it again.
    pub fn fill(&mut self, now: Time, buffer: &mut [u8], ending: bool) -> io::Result<bool> {
        let mut read = 0;
        while read < READ_TURN {
            match self.socket.read(buffer) {
                Ok(0) => {
                    self.peer_finished = true;
                    return Ok(true);
                }
                Ok(count) => {
                    self.last_traffic = now;
                    self.last_heard = now;
                    self.unanswered_since = None;
                    if !self.take(&buffer[..count]) {
                        return Ok(true);
                    }
                    read += count;
                    if count < buffer.len() && !ending {
                        // A short read has emptied the socket; what comes later is told anew.
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Whether the bytes make sense so far.
    fn take(&mut self, bytes: &[u8]) -> bool {
        match &mut self.tunnel {
            _ if self.phase == Phase::Refusing => {}
            None => self.decoder.push(bytes),
            Some(tunnel) => {
                self.stranger = self.decoder.push_with(|plain| tunnel.take(bytes, plain)).err().or(self.stranger);
            }
        }
        self.stranger.is_none()
    }

    /// The next packet that has arrived whole.
    pub fn next_packet(&mut self, ids: &mut Ids) -> Option<Arrived> {
        loop {
            return match self.decoder.next_frame() {
                Ok(None) => self.stranger.take().map(Arrived::Stranger),
                Ok(Some(frame)) => match decode_with(frame, ids) {
                    Ok(packet) => Some(Arrived::Packet(packet)),
                    // A newer peer may say more than this one knows.
                    Err(WireError::Unknown) if matches!(self.phase, Phase::Open(_)) => continue,
                    Err(error) => Some(Arrived::Garbage(error.to_string())),
                },
                Err(error) => Some(Arrived::Garbage(format!("a frame of {} bytes is declared", error.declared))),
            };
        }
    }

    /// Writes what waits, as far as the socket takes it.
    pub fn flush(&mut self, now: Time) -> io::Result<()> {
        if let Some(replies) = self.tunnel.as_mut().map(|tunnel| tunnel.take_replies()) {
            self.outbox.push_handshake(&replies);
        }
        if !self.outbox.is_empty() {
            self.unanswered_since.get_or_insert(now);
            if self.outbox.write_to(&mut self.socket, self.tunnel.as_deref_mut())? {
                self.last_traffic = now;
            }
        }
        Ok(())
    }

    /// Whether bytes have come, in the greeting.
    pub fn has_spoken(&self) -> bool {
        self.last_heard > self.phase_since
    }

    /// Where the other side is, whatever it says; unknown while this node dials.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.from.or_else(|| self.socket.peer_addr().ok())
    }

    /// See [`Connection::remote_addr`].
    pub fn remote_ip(&self) -> Option<IpAddr> {
        self.remote_addr().map(|addr| addr.ip())
    }

    /// What has come of frames that are not whole yet takes so much memory.
    pub fn begun_bytes(&self) -> usize {
        self.decoder.held_bytes()
    }

    /// Whether the other side has shown a ring key.
    pub fn is_through_tunnel(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|tunnel| tunnel.is_open())
    }

    /// Whether the handshake has to go on from this side.
    pub fn has_replies(&self) -> bool {
        self.tunnel.as_ref().is_some_and(|tunnel| tunnel.has_replies())
    }

    /// For how long something has waited to be answered.
    pub fn unanswered_for(&self, now: Time) -> Span {
        self.unanswered_since.map_or(Span::default(), |since| now.since(since))
    }

    pub fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Sends no more. What the peer has sent meanwhile is still read, until it has finished too.
    pub fn finish(&mut self) {
        if !self.finished && self.is_flushed() {
            self.finished = true;
            // A connection that is broken already is noticed by the next read.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }

    pub fn is_finished(&self) -> bool {
        self.finished
    }
}
