//! What every exchange between two processes costs at least here: a mio loop that decodes each message, answers with one
//! of the same size as a node's and encodes that, and has nothing to do in between.
//!
//! The benchmark runs itself a second time as this server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use chordkv::base::{Capacity, Contact, Incarnation};
use chordkv::data::Outcome;
use chordkv::node::{Message, Reply, RingParams, Wishes};
use chordkv::overlay::{Found, NextHop, RingMessage};
use chordkv::replication::copies::Ran;
use chordkv::wire::{FrameDecoder, Packet, decode, encode};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::client::hello;
use super::nodes::Process;
use super::records;

/// The flag that makes a benchmark this server.
const FLAG: &str = "--serve-echo";
const LISTENER: Token = Token(0);

/// Another process that echoes.
pub struct Echo {
    pub process: Process,
    pub addr: SocketAddr,
}

impl Echo {
    /// Starts it.
    pub fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        let mut process = Process::start(command.arg(FLAG).stdout(Stdio::piped()));
        let mut line = String::new();
        let stdout = process.child().stdout.take().expect("standard output is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the address of the echo");
        Self { process, addr: line.trim().parse().expect("an address") }
    }
}

/// If this process was started to echo: does that, and never returns.
pub fn serve_if_told() {
    if std::env::args().any(|arg| arg == FLAG) {
        // Whoever started this holds the other end of standard input, and is gone when it closes.
        std::thread::spawn(|| {
            let mut scrap = [0; 64];
            while std::io::stdin().read(&mut scrap).is_ok_and(|count| count > 0) {}
            std::process::exit(0);
        });
        serve();
    }
}

struct Link {
    socket: TcpStream,
    decoder: FrameDecoder,
}

fn serve() -> ! {
    let mut listener = TcpListener::bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let addr = listener.local_addr().expect("a bound port");
    println!("{addr}");
    let me = Contact::new(Capacity::MAX, addr, Incarnation(1));
    let mut poll = Poll::new().expect("a poll");
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE).expect("a new listener");
    let mut links: BTreeMap<usize, Link> = BTreeMap::new();
    let (mut events, mut buffer, mut out) = (Events::with_capacity(256), vec![0; 64 << 10], Vec::new());
    loop {
        poll.poll(&mut events, None).expect("a poll");
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut socket, _)) = listener.accept() {
                    let token = Token(links.last_key_value().map_or(1, |(last, _)| last + 1));
                    socket.set_nodelay(true).expect("a connected socket");
                    poll.registry().register(&mut socket, token, Interest::READABLE).expect("a new socket");
                    links.insert(token.0, Link { socket, decoder: FrameDecoder::default() });
                }
            } else if let Some(link) = links.get_mut(&event.token().0)
                && !answer_all(link, me, &mut buffer, &mut out)
            {
                links.remove(&event.token().0);
            }
        }
    }
}

/// Answers what has come, with one write. False once the peer has gone.
fn answer_all(link: &mut Link, me: Contact, buffer: &mut [u8], out: &mut Vec<u8>) -> bool {
    loop {
        match link.socket.read(buffer) {
            Ok(0) => return false,
            Ok(count) => {
                link.decoder.push(&buffer[..count]);
                if count < buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(_) => return false,
        }
    }
    out.clear();
    while let Some(frame) = link.decoder.next_frame().expect("a frame of ours") {
        let answer = answer(me, decode(frame, Capacity::MAX).expect("a packet of ours"));
        encode(&answer, out);
    }
    // The client has at most a window in flight, which fits into the socket's buffer.
    link.socket.write_all(out).is_ok()
}

fn answer(me: Contact, packet: Packet) -> Packet {
    Packet::Message(match packet {
        Packet::Hello(_) => {
            let params = RingParams::create(1, &Wishes::default()).expect("the defaults are allowed");
            return Packet::Hello(Box::new(hello(me, Some(params))));
        }
        Packet::Message(Message::Ring(RingMessage::Lookup { lookup, .. })) => {
            let (request, origin) = (lookup.request, lookup.origin);
            let found = Found { request, owner: origin, before: origin, hops: 1, silent: 0 };
            Message::Ring(RingMessage::Found(found))
        }
        Packet::Message(Message::Ring(RingMessage::GetNextHop { request, .. })) => {
            Message::Ring(RingMessage::NextHop { request, next: NextHop::Owner(me) })
        }
        Packet::Message(Message::Call { request, .. }) => {
            let reply = Reply::Ran(Ran::Done(Outcome::Found(records::record(0))));
            Message::Reply { request, reply }
        }
        packet => panic!("nobody should say {packet:?} to an echo"),
    })
}
