//! A minimal peer: it introduces itself, is in no ring, and asks.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use chordkv::base::{Capacity, Contact, Id, Incarnation};
use chordkv::node::{Message, RingParams, Wishes};
use chordkv::overlay::{Lookup, NextHop, RingMessage, Want};
use chordkv::wire::handshake::{PROTOCOL_MAX, PROTOCOL_MIN};
use chordkv::wire::{FrameDecoder, Hello, Packet, decode, encode};
use mio::{Events, Interest, Poll, Token};

use super::PATIENCE;

/// A peer with a connection to each of some nodes, so that the answer to a lookup never needs a new one.
pub struct Client {
    me: Contact,
    // Holds the port that is advertised, so that no other process gets it.
    _port: TcpListener,
    poll: Poll,
    events: Events,
    links: Vec<Link>,
    by_addr: BTreeMap<SocketAddr, usize>,
    arrived: VecDeque<Message>,
    request: u64,
    buffer: Vec<u8>,
    frame: Vec<u8>,
    connected: Instant,
}

/// A node gives a connection up whose peer answers nothing for 6 s, and this one never answers: it connects anew before.
const CONNECTED_MAX: Duration = Duration::from_secs(3);

struct Link {
    addr: SocketAddr,
    socket: mio::net::TcpStream,
    decoder: FrameDecoder,
}

impl Client {
    /// Connects to `nodes`, which must be members of a ring of the greatest capacity.
    pub fn connect(nodes: impl IntoIterator<Item = SocketAddr>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = port.local_addr().expect("a bound port");
        let me = Contact::new(Capacity::MAX, addr, Incarnation(u128::from(addr.port())));
        let mut client = Self {
            me,
            _port: port,
            poll: Poll::new().expect("a poll"),
            events: Events::with_capacity(256),
            links: Vec::new(),
            by_addr: BTreeMap::new(),
            arrived: VecDeque::new(),
            request: 0,
            buffer: vec![0; 64 << 10],
            frame: Vec::new(),
            connected: Instant::now(),
        };
        for node in nodes {
            let at = client.links.len();
            let (socket, params, decoder) = introduce(node, me);
            assert_eq!(params.space.capacity(), Capacity::MAX, "contacts are read for this capacity");
            let mut socket = nonblocking(socket);
            client.poll.registry().register(&mut socket, Token(at), Interest::READABLE).expect("a new socket");
            client.links.push(Link { addr: node, socket, decoder });
            client.by_addr.insert(node, at);
        }
        client
    }

    /// Recursive: the owner of `target`, and how many nodes the lookup passed through, `entry` the first.
    pub fn lookup(&mut self, entry: SocketAddr, target: Id) -> (Contact, u32) {
        self.stay_connected();
        self.request += 1;
        let mine = self.request;
        let lookup = Lookup::new(mine, self.me, target, Want::Owner);
        self.send(entry, RingMessage::Lookup { hop: mine, lookup });
        loop {
            match self.receive() {
                Message::Ring(RingMessage::Found(found)) if found.request == mine => return (found.owner, found.hops),
                Message::Ring(RingMessage::LookupRefused { hop }) if hop == mine => panic!("{entry} is in no ring"),
                // Acknowledgements, and what nodes say of themselves.
                _ => {}
            }
        }
    }

    /// Iterative: the owner of `target`, and how many nodes were asked, `entry` the first.
    pub fn walk(&mut self, entry: SocketAddr, target: Id) -> (Contact, u32) {
        let (mut at, mut hops) = (entry, 1);
        loop {
            match self.next_hop(at, target) {
                NextHop::Owner(owner) => return (owner, hops),
                NextHop::Closer(closer) => (at, hops) = (closer.addr, hops + 1),
                NextHop::Refused => panic!("{at} is in no ring"),
            }
        }
    }

    /// What `node` knows of the successor of `target`.
    pub fn next_hop(&mut self, node: SocketAddr, target: Id) -> NextHop {
        self.stay_connected();
        self.request += 1;
        let mine = self.request;
        self.send(node, RingMessage::GetNextHop { request: mine, target });
        loop {
            match self.receive() {
                Message::Ring(RingMessage::NextHop { request, next }) if request == mine => return next,
                _ => {}
            }
        }
    }

    fn stay_connected(&mut self) {
        if self.connected.elapsed() < CONNECTED_MAX {
            return;
        }
        for (at, link) in self.links.iter_mut().enumerate() {
            let (socket, _, decoder) = introduce(link.addr, self.me);
            let mut socket = nonblocking(socket);
            self.poll.registry().register(&mut socket, Token(at), Interest::READABLE).expect("a new socket");
            *link = Link { addr: link.addr, socket, decoder };
        }
        self.connected = Instant::now();
    }

    fn send(&mut self, to: SocketAddr, message: RingMessage) {
        let link = &mut self.links[self.by_addr[&to]];
        self.frame.clear();
        encode(&Packet::Message(Message::Ring(message)), &mut self.frame);
        // One small message in flight always has room.
        link.socket.write_all(&self.frame).expect("the node keeps the connection");
    }

    fn receive(&mut self) -> Message {
        loop {
            if let Some(message) = self.arrived.pop_front() {
                return message;
            }
            self.poll.poll(&mut self.events, Some(PATIENCE)).expect("a poll");
            assert!(!self.events.is_empty(), "no answer in time");
            for event in &self.events {
                read(&mut self.links[event.token().0], &mut self.buffer, &mut self.arrived);
            }
        }
    }
}

fn read(link: &mut Link, buffer: &mut [u8], arrived: &mut VecDeque<Message>) {
    loop {
        match link.socket.read(buffer) {
            Ok(0) => panic!("a node has closed the connection"),
            Ok(count) => {
                link.decoder.push(&buffer[..count]);
                // A short read has emptied the socket.
                if count < buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("a node's connection broke: {error}"),
        }
    }
    while let Some(frame) = link.decoder.next_frame().expect("a frame of ours") {
        match decode(frame, Capacity::MAX).expect("a packet of ours") {
            Packet::Message(message) => arrived.push_back(message),
            packet => panic!("a node says {packet:?}"),
        }
    }
}

/// Connects to `node` as `me` and exchanges hellos; the socket blocks. What came after the hello is in the decoder.
pub fn introduce(node: SocketAddr, me: Contact) -> (TcpStream, RingParams, FrameDecoder) {
    let mut socket = TcpStream::connect(node).expect("the node listens");
    socket.set_nodelay(true).expect("a connected socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a connected socket");
    let mut frame = Vec::new();
    encode(&Packet::Hello(Box::new(hello(me, None))), &mut frame);
    socket.write_all(&frame).expect("the node listens");
    let (mut decoder, mut piece) = (FrameDecoder::default(), [0; 4_096]);
    let params = loop {
        if let Some(frame) = decoder.next_frame().expect("a frame of ours") {
            match decode(frame, Capacity::MAX).expect("a packet of ours") {
                Packet::Hello(hello) => break hello.ring.expect("the node is in a ring"),
                packet => panic!("{node} answers {packet:?}"),
            }
        }
        let count = socket.read(&mut piece).expect("a hello in time");
        assert!(count > 0, "{node} has closed the connection");
        decoder.push(&piece[..count]);
    };
    (socket, params, decoder)
}

/// The hello of a node at `me`.
pub fn hello(me: Contact, ring: Option<RingParams>) -> Hello {
    Hello {
        protocol: (PROTOCOL_MIN, PROTOCOL_MAX),
        addr: me.addr,
        incarnation: me.incarnation,
        ring,
        wishes: Wishes::default(),
        software: "bench".into(),
    }
}

pub fn nonblocking(socket: TcpStream) -> mio::net::TcpStream {
    socket.set_nonblocking(true).expect("a connected socket");
    mio::net::TcpStream::from_std(socket)
}
