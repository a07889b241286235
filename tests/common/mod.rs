//! A served front with a trivial application, and a client that reads answers strictly.
#![allow(dead_code, missing_docs)]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chordkv::driver::http::{HttpConfig, HttpFront, HttpHandle, HttpRequest, HttpResponse, Responder, Ticket};

/// How long a test waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const MAX_VALUE: usize = 1024 * 1024;

pub struct Served {
    pub handle: Option<HttpHandle>,
    pub addr: SocketAddr,
    pub seen: Arc<Mutex<Vec<HttpRequest>>>,
    /// Tickets of requests to `/hold`, which get no answer by themselves.
    pub held: Receiver<Ticket>,
    pub responder: Responder,
}

pub fn config() -> HttpConfig {
    let mut config = HttpConfig::new(([127, 0, 0, 1], 0).into(), MAX_VALUE);
    config.workers = 4;
    config
}

pub fn serve_default() -> Served {
    serve(config())
}

/// `/hold` waits, `/park/N` is put off until N is called, `/big/N` gives N bytes, `/split` tries to inject, `/status/N` answers N, all else echoes the body.
pub fn serve(config: HttpConfig) -> Served {
    let front = HttpFront::bind(config).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (work, requests) = mpsc::channel::<(Ticket, HttpRequest)>();
    let handle = front.start(move |ticket, request, _: &Responder| work.send((ticket, request)).unwrap()).unwrap();
    let (holding, held) = mpsc::channel();
    let (responder, log) = (handle.responder(), Arc::clone(&seen));
    std::thread::spawn(move || {
        for (ticket, request) in requests {
            if request.target == "/hold" {
                let _ = holding.send(ticket);
            } else {
                responder.answer(ticket, application(&request));
            }
            log.lock().unwrap().push(request);
        }
    });
    Served { addr: handle.local_addr(), responder: handle.responder(), handle: Some(handle), seen, held }
}

pub fn response(status: u16, body: impl Into<Vec<u8>>) -> HttpResponse {
    let body = body.into();
    HttpResponse { status, headers: vec![("content-type", "text/plain".into())], body_len: body.len(), body }
}

fn application(request: &HttpRequest) -> HttpResponse {
    if let Some(size) = request.target.strip_prefix("/big/") {
        return response(200, vec![b'x'; size.parse().unwrap()]);
    }
    if let Some(number) = request.target.strip_prefix("/park/") {
        let again = request.headers.iter().find(|(name, _)| name == "x-gate-parked").map(|(_, value)| value.clone());
        let mut parked = response(202, "");
        parked.headers.push(("X-Gate-Park", number.to_owned()));
        return again.map_or(parked, |again| response(200, format!("{number} comes again as {again}")));
    }
    if let Some(status) = request.target.strip_prefix("/status/") {
        return response(status.parse().unwrap(), "body");
    }
    if request.target == "/split" {
        let mut split = response(200, "fine");
        split.headers.push(("x-bad", "a\r\nset-cookie: stolen\r\n\r\nHTTP/1.1 200 OK".into()));
        split.headers.push(("x-good", "kept".into()));
        split.headers.push(("connection", "upgrade".into()));
        split.headers.push(("transfer-encoding", "chunked".into()));
        split.headers.push(("content-length", "1".into()));
        return split;
    }
    let text = format!("{} {} {}", request.method, request.target, String::from_utf8_lossy(&request.body));
    response(200, text)
}

impl Served {
    pub fn client(&self) -> Client {
        Client::connect(self.addr)
    }

    /// One request on a connection of its own.
    pub fn ask(&self, request: &str) -> Answer {
        let mut client = self.client();
        client.send(request);
        client.answer()
    }

    pub fn still_serves(&self) {
        let answer = self.ask("GET /alive HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!((answer.status, answer.text().as_str()), (200, "GET /alive "));
    }

    pub fn next_held(&self) -> Ticket {
        self.held.recv_timeout(PATIENCE).expect("a request to /hold arrives")
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn field(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    }

    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value == "close")
    }

    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.field("content-type").as_deref(), Some("application/problem+json"));
        assert!(self.text().contains(&format!("\"code\":\"{code}\"")), "{}", self.text());
    }
}

pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        Client::over(TcpStream::connect(addr).unwrap())
    }

    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client { stream, buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        self.answer()
    }

    /// The next answer, with a body unless its status has none.
    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    pub fn answer_to(&mut self, method: &str) -> Answer {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more() > 0, "no answer: {:?}", String::from_utf8_lossy(&self.buffer));
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        if method != "HEAD" && !matches!(status, 100 | 204 | 304) {
            let length: usize = answer.field("content-length").expect("a length").parse().unwrap();
            while self.buffer.len() < length {
                assert!(self.more() > 0, "the body is cut short");
            }
            answer.body = self.buffer.drain(..length).collect();
        }
        answer
    }

    fn more(&mut self) -> usize {
        let mut piece = vec![0; 65536];
        let count = self.stream.read(&mut piece).expect("an answer in time");
        self.buffer.extend_from_slice(&piece[..count]);
        count
    }

    /// Waits until the server has closed, whether in order or by a reset; nothing may come before.
    pub fn wait_closed(&mut self) {
        assert!(self.buffer.is_empty(), "unread: {:?}", String::from_utf8_lossy(&self.buffer));
        let mut byte = [0; 1];
        match self.stream.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => panic!("more came"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "not closed"),
        }
    }

    /// Another end of the same connection, for a thread that only reads or only writes.
    pub fn twin(&self) -> Self {
        Client { stream: self.stream.try_clone().unwrap(), buffer: Vec::new() }
    }

    pub fn end_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

/// Waits for a condition of the system that nothing announces.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "still not: {what}");
        std::thread::yield_now();
    }
}
