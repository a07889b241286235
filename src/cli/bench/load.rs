//! The connections of a load: each asks, waits for the answer and asks again, all on one thread.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// One request.
pub(super) struct Request {
    /// As it is sent.
    pub bytes: Vec<u8>,
    /// Told again when it has ended.
    pub kind: Kind,
    /// From when its time counts.
    pub since: Instant,
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Get,
    Put,
    Delete,
}

/// What a connection that is free is to do.
pub(super) enum Next {
    Ask(Request),
    /// Nothing before then.
    Wait(Instant),
    /// Nothing any more.
    Over,
}

/// One request has ended.
pub(super) struct Ended {
    pub kind: Kind,
    pub took: Duration,
    /// `None`: no connection, it broke off, what came is no HTTP, or nothing came in time.
    pub status: Option<u16>,
}

struct Connection {
    stream: Option<TcpStream>,
    out: Vec<u8>,
    sent: usize,
    seen: Vec<u8>,
    asked: Option<(Kind, Instant)>,
    // After a failure it rests, so that a node that is gone is not asked a million times a second.
    rests_until: Option<Instant>,
}

/// How the answer stands.
enum Answer {
    NotYet,
    Is { status: u16, closes: bool },
    No,
}

/// The longest that a node may take by default is 10 s.
const TIMEOUT: Duration = Duration::from_secs(15);
const REST: Duration = Duration::from_millis(100);
const HEADERS_MAX: usize = 32;

/// Lets so many connections ask whatever `next` gives them, until that is over and all is answered.
///
/// # Errors
/// The system gives no sockets.
pub(super) fn run(
    to: SocketAddr,
    connections: usize,
    next: &mut dyn FnMut(Instant) -> Next,
    ended: &mut dyn FnMut(Ended),
) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(connections);
    let mut all: Vec<Connection> = (0..connections).map(|_| Connection::new()).collect();
    let mut free: VecDeque<usize> = (0..connections).collect();
    let mut looked = Instant::now();
    loop {
        let now = Instant::now();
        let mut wake = now + REST;
        let mut over = false;
        while let Some(&at) = free.front() {
            match next(now) {
                Next::Ask(request) => {
                    free.pop_front();
                    all[at].ask(request, to, &poll, Token(at))?;
                }
                Next::Wait(until) => {
                    wake = wake.min(until);
                    break;
                }
                Next::Over => {
                    over = true;
                    break;
                }
            }
        }
        if over && all.iter().all(|connection| connection.asked.is_none()) {
            return Ok(());
        }
        match poll.poll(&mut events, Some(wake.saturating_duration_since(Instant::now()))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => other?,
        }
        for event in &events {
            let at = event.token().0;
            all[at].go_on(at, ended, &mut free);
        }
        if looked.elapsed() >= REST {
            looked = Instant::now();
            for (at, connection) in all.iter_mut().enumerate() {
                connection.look(looked, at, ended, &mut free);
            }
        }
    }
}

impl Connection {
    fn new() -> Self {
        Self { stream: None, out: Vec::new(), sent: 0, seen: Vec::new(), asked: None, rests_until: None }
    }

    fn ask(&mut self, request: Request, to: SocketAddr, poll: &Poll, token: Token) -> io::Result<()> {
        (self.out, self.sent) = (request.bytes, 0);
        self.seen.clear();
        self.asked = Some((request.kind, request.since));
        if self.stream.is_none() {
            let mut stream = TcpStream::connect(to)?;
            poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            self.stream = Some(stream);
        } else if self.write().is_err() {
            // What it was is found out by reading.
            self.sent = self.out.len();
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while self.sent < self.out.len() {
            match stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                // Not connected yet, if it is new.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// False once nothing more can come.
    fn read(&mut self) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let mut part = [0; 16_384];
        loop {
            match stream.read(&mut part) {
                Ok(0) => return false,
                Ok(count) => self.seen.extend_from_slice(&part[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    fn go_on(&mut self, at: usize, ended: &mut dyn FnMut(Ended), free: &mut VecDeque<usize>) {
        let is_open = self.write().is_ok() && self.read();
        if self.asked.is_none() {
            // Closed by the other end while nothing was asked, perhaps: then the next request opens another.
            if !is_open {
                self.stream = None;
            }
            return;
        }
        match answer(&self.seen) {
            Answer::Is { status, closes } => {
                if closes || !is_open {
                    self.stream = None;
                }
                self.end(Some(status), ended);
                free.push_back(at);
            }
            Answer::NotYet if is_open => {}
            Answer::NotYet | Answer::No => self.fail(ended),
        }
    }

    fn end(&mut self, status: Option<u16>, ended: &mut dyn FnMut(Ended)) {
        if let Some((kind, since)) = self.asked.take() {
            ended(Ended { kind, took: since.elapsed(), status });
        }
    }

    fn fail(&mut self, ended: &mut dyn FnMut(Ended)) {
        self.stream = None;
        self.rests_until = Some(Instant::now() + REST);
        self.end(None, ended);
    }

    /// What takes too long is given up, and who has rested goes on.
    fn look(&mut self, now: Instant, at: usize, ended: &mut dyn FnMut(Ended), free: &mut VecDeque<usize>) {
        if self.asked.is_some_and(|(_, since)| now.saturating_duration_since(since) >= TIMEOUT) {
            self.fail(ended);
        } else if self.rests_until.is_some_and(|until| now >= until) {
            self.rests_until = None;
            free.push_back(at);
        }
    }
}

fn answer(seen: &[u8]) -> Answer {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(seen) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Answer::NotYet,
        Err(_) => return Answer::No,
    };
    let header = |name: &str| {
        let of_name = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        of_name.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    let status = response.code.unwrap_or(0);
    let has_none = matches!(status, 204 | 304);
    // A node always says how long its answers are.
    let Some(body) = header("content-length").map_or(has_none.then_some(0), |text| text.trim().parse().ok()) else {
        return Answer::No;
    };
    let closes = header("connection").is_some_and(|text| text.trim().eq_ignore_ascii_case("close"));
    if seen.len() >= head.saturating_add(body) { Answer::Is { status, closes } } else { Answer::NotYet }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let of = |text: &str| match answer(text.as_bytes()) {
            Answer::NotYet => (0, false),
            Answer::Is { status, closes } => (status, closes),
            Answer::No => (1, false),
        };
        assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab"), (200, false));
        assert_eq!(of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"), (0, false));
        assert_eq!(of("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"), (204, true));
        assert_eq!(of("HTTP/1.1 200 OK\r\n\r\n"), (1, false), "nobody says how long it is");
        assert_eq!(of("SSH-2.0\r\n"), (1, false));
    }

    #[test]
    fn whatever_happens_to_a_request_it_is_told_once() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("an address");
        // It answers the first request, and breaks off at the second.
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut part = [0; 64];
            assert!(stream.read(&mut part).expect("a request") > 0);
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").expect("it listens");
            assert!(stream.read(&mut part).expect("another") > 0);
        });
        let (mut asked, mut told) = (0, Vec::new());
        let mut next = |now| {
            asked += 1;
            let request = Request { bytes: b"GET / HTTP/1.1\r\n\r\n".to_vec(), kind: Kind::Get, since: now };
            // The third finds nobody.
            if asked <= 3 { Next::Ask(request) } else { Next::Over }
        };
        run(to, 1, &mut next, &mut |ended| told.push(ended.status)).expect("sockets");
        server.join().expect("it served");
        assert_eq!(told, [Some(404), None, None]);
    }
}
