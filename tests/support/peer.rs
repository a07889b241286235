//! Somebody who speaks the peers' protocol by hand.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use chordkv::base::limits::FRAME_BYTES_MAX;
use chordkv::base::{Capacity, Incarnation};
use chordkv::node::{Message, RingParams, Wishes};
use chordkv::wire::handshake::{PROTOCOL_MAX, PROTOCOL_MIN};
use chordkv::wire::{FrameDecoder, Hello, Packet, decode, encode};

use super::PATIENCE;

pub struct Peer {
    pub stream: TcpStream,
    decoder: FrameDecoder,
}

/// The hello of somebody at `addr` who is in no ring and wishes nothing.
pub fn hello(addr: SocketAddr) -> Hello {
    Hello {
        protocol: (PROTOCOL_MIN, PROTOCOL_MAX),
        addr,
        incarnation: Incarnation(u128::from(addr.port()) << 32 | 7),
        ring: None,
        wishes: Wishes::default(),
        software: Arc::from("test"),
    }
}

pub fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(packet, &mut bytes);
    bytes
}

impl Peer {
    pub fn connect(addr: SocketAddr) -> Self {
        Self::over(TcpStream::connect(addr).expect("a connection"))
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, decoder: FrameDecoder::with_limit(FRAME_BYTES_MAX) }
    }

    /// A connection on which both have said hello, and the ring's parameters.
    #[track_caller]
    pub fn greeted(node: SocketAddr, own: SocketAddr) -> (Self, RingParams) {
        let mut peer = Self::connect(node);
        peer.send(&Packet::Hello(Box::new(hello(own)))).expect("it is sent");
        match peer.receive() {
            Some(Packet::Hello(hello)) => (peer, hello.ring.expect("a member")),
            other => panic!("no hello but {other:?}"),
        }
    }

    pub fn send(&mut self, packet: &Packet) -> io::Result<()> {
        self.stream.write_all(&bytes_of(packet))
    }

    pub fn say(&mut self, message: Message) -> io::Result<()> {
        self.send(&Packet::Message(message))
    }

    /// The next packet; `None` once the other side has closed, in order or not.
    #[track_caller]
    pub fn receive(&mut self) -> Option<Packet> {
        loop {
            if let Some(frame) = self.decoder.next_frame().expect("a frame of legal size") {
                return Some(decode(frame, Capacity::MAX).expect("a packet"));
            }
            let mut piece = vec![0; 65_536];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => self.decoder.push(&piece[..count]),
                Err(error) if is_broken(&error) => return None,
                Err(error) => panic!("neither a packet nor an end: {error}"),
            }
        }
    }

    /// Reads until the other side has closed.
    #[track_caller]
    pub fn wait_closed(&mut self) {
        while self.receive().is_some() {}
    }
}

fn is_broken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Somebody on a port who answers every connection with these bytes. It ends with the test binary.
pub fn answering(bytes: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.write_all(&bytes);
            // Whatever it says is heard out, so that the answer is not lost with a reset.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = io::copy(&mut stream, &mut io::sink());
        }
    });
    addr
}
