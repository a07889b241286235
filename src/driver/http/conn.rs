//! One public connection: reads one whole request at a time, waits for its answer, writes it, and goes on.
//!
//! It does not know where answers come from. Bytes of the next requests stay in the kernel, but for at most one
//! buffer's worth, until the present one is answered.
//!
//! ```text
//!   Head -> Body -> Waiting -> Answering -> Head
//!     \______\________________/    \-> Draining -> closed
//! ```

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpStream;
use tracing::debug;

use super::chunked::Chunked;
use super::env::Env;
use super::head::{self, Framing, Kind, Scanner};
use super::limits::{ANSWER_MARGIN, DRAIN_MAX, HEAD_MAX, IDLE_CAPACITY, PARKED_MAX, READ_TURN, reserve};
use super::refusal::{self, Refusal};
use crate::data::http::{Asking, PARKED_FIELD, is_named};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a socket was last known to be ready for. Readiness is a hint and told at its edges only, so it is kept until the
/// socket would block.
#[derive(Clone, Copy)]
pub(super) struct Readiness {
    pub read: bool,
    pub write: bool,
    /// The other side sends no more, so reading will find the end.
    pub ended: bool,
}

impl Readiness {
    pub(super) const ALL: Self = Readiness { read: true, write: true, ended: false };

    pub(super) fn of(event: &Event) -> Self {
        // A broken socket reads as ended: let reading find out.
        let ended = event.is_read_closed() || event.is_error();
        Readiness { read: event.is_readable() || ended, write: event.is_writable(), ended }
    }

    pub(super) fn add(&mut self, news: Self) {
        self.read |= news.read;
        self.write |= news.write;
        self.ended |= news.ended;
    }

    /// Notes that a read brought `count` bytes of the `wanted`. Fewer mean that the socket is empty: what comes next,
    /// even the end, is told anew unless it has been told already.
    pub(super) fn after_read(&mut self, count: usize, wanted: usize) {
        self.read = count == wanted || self.ended;
    }
}

/// A whole request, ready for a private connection.
pub(super) struct Request {
    /// Canonical head, complete.
    pub head: Vec<u8>,
    pub body: Vec<u8>,
    pub kind: Kind,
    /// The client's connection ends with the answer.
    pub close: bool,
}

impl Request {
    /// Says that it was put off, under which number, in place of what was said of that before.
    fn mark_parked(&mut self, number: u64) {
        const EMPTY_LINE: &[u8] = b"\r\n";
        let field = format!("\r\n{PARKED_FIELD}: ").into_bytes();
        let before = self.head.windows(field.len()).rposition(|window| window == field);
        self.head.truncate(before.map_or(self.head.len() - EMPTY_LINE.len(), |at| at + EMPTY_LINE.len()));
        self.head.extend_from_slice(format!("{PARKED_FIELD}: {number}\r\n\r\n").as_bytes());
    }
}

/// Why [`Conn::advance`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing to do before an event, an answer or the deadline.
    Blocked,
    /// Others should have their turn; there is more to do.
    Yielded,
    /// A whole request has come to wait in [`Conn::take_request`].
    Ready,
    /// It is over.
    Closed,
}

enum Phase {
    Head,
    Body(Body),
    Waiting,
    Answering,
    Draining { left: usize },
}

enum Body {
    Length(usize),
    Chunked(Chunked),
}

/// `Break`: leave [`Conn::advance`] with this.
type Step = std::ops::ControlFlow<Progress>;
const AGAIN: Step = Step::Continue(());

/// See the module.
pub(super) struct Conn {
    stream: TcpStream,
    from: IpAddr,
    phase: Phase,
    scanner: Scanner,
    /// Received and not yet used: `input[cursor..]`.
    input: Vec<u8>,
    cursor: usize,
    request: Option<Request>,
    kind: Kind,
    output: Vec<u8>,
    written: usize,
    /// Number of the present request, so that a late answer is never taken for the answer to another.
    serial: u64,
    close: bool,
    /// Something of the next request has been seen.
    begun: bool,
    ready: Readiness,
    turn_left: usize,
    charged: usize,
    deadline: Instant,
    /// When the gate's timer for this connection fires; never later than the deadline.
    pub scheduled: Option<Instant>,
    /// Something arrived since the gate last looked.
    pub heard: bool,
    /// The number that its request waits for.
    pub parked: Option<u64>,
}

impl Conn {
    pub(super) fn new(stream: TcpStream, from: SocketAddr, env: &Env) -> Self {
        Conn {
            stream,
            from: from.ip().to_canonical(),
            phase: Phase::Head,
            scanner: Scanner::default(),
            input: Vec::new(),
            cursor: 0,
            request: None,
            kind: Kind { head: false, safe: true },
            output: Vec::new(),
            written: 0,
            serial: 0,
            close: false,
            begun: false,
            ready: Readiness::ALL,
            turn_left: 0,
            charged: 0,
            deadline: env.now + env.config.head_timeout,
            scheduled: None,
            heard: false,
            parked: None,
        }
    }

    /// Notes readiness.
    pub(super) fn on_event(&mut self, news: Readiness) {
        self.ready.add(news);
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// Whether the request `serial` still waits for its answer.
    pub(super) fn awaits(&self, serial: u64) -> bool {
        self.serial == serial && matches!(self.phase, Phase::Waiting)
    }

    /// The request that waits to be dispatched; `None` when it has been.
    pub(super) fn take_request(&mut self, env: &mut Env) -> Option<Request> {
        let request = self.request.take();
        self.settle(env);
        request
    }

    /// Its request, which was dispatched, is to be dispatched again later.
    pub(super) fn park(&mut self, request: Request, number: u64, env: &mut Env) {
        self.deadline = env.now + PARKED_MAX;
        self.request = Some(request);
        self.parked = Some(number);
        self.settle(env);
    }

    /// Its client sends no more while its request is put off: nobody ends sending and yet waits so long for an answer.
    pub(super) fn is_abandoned(&self) -> bool {
        self.parked.is_some() && self.ready.ended
    }

    /// That is now.
    pub(super) fn unpark(&mut self, env: &mut Env) {
        self.deadline = env.now + env.config.answer_timeout + ANSWER_MARGIN;
        if let (Some(number), Some(request)) = (self.parked.take(), &mut self.request) {
            request.mark_parked(number);
        }
        self.settle(env);
    }

    /// Gives what this connection is charged for back to the budget.
    pub(super) fn release(&mut self, env: &mut Env) {
        env.budget.settle(&mut self.charged, 0);
    }

    /// Reads, parses and writes until something must be waited for.
    pub(super) fn advance(&mut self, env: &mut Env) -> Progress {
        self.turn_left = READ_TURN;
        let progress = loop {
            if let Err(error) = self.flush() {
                debug!(%error, "writing to an HTTP client failed");
                break Progress::Closed;
            }
            let step = match self.phase {
                Phase::Head => self.read_head(env),
                Phase::Body(_) => self.read_body(env),
                Phase::Waiting => Step::Break(Progress::Blocked),
                Phase::Answering => self.end_answer(env),
                Phase::Draining { .. } => self.drain(env),
            };
            if let Step::Break(progress) = step {
                break progress;
            }
        };
        self.settle(env);
        progress
    }

    /// Takes the answer to the request that waits. The caller advances the connection after it.
    pub(super) fn answer(&mut self, response: Vec<u8>, close: bool, env: &Env) {
        debug_assert!(matches!(self.phase, Phase::Waiting), "an answer without a request");
        (self.request, self.parked) = (None, None);
        self.begin_answer(response, close, env);
    }

    /// Answers the request that waits with an error of the gate. It was read whole, so the connection may go on.
    pub(super) fn refuse_waiting(&mut self, refusal: &Refusal, env: &Env) {
        env.config.counts.note(env.now, refusal);
        let close = self.close || env.stopping;
        debug!(status = refusal.status, code = refusal.code, "HTTP request refused");
        self.answer(refusal.response(self.kind.head, close), close, env);
    }

    /// Acts on the passed deadline. `false`: close the connection. Otherwise the caller advances it.
    pub(super) fn on_deadline(&mut self, env: &Env) -> bool {
        match self.phase {
            Phase::Head if self.begun => self.refuse(&refusal::SLOW_HEAD, env),
            Phase::Body(_) => self.refuse(&refusal::SLOW_BODY, env),
            Phase::Waiting if self.request.is_some() => self.refuse_waiting(&refusal::QUEUED_TOO_LONG, env),
            Phase::Waiting => self.refuse_waiting(&refusal::too_late(self.kind.safe), env),
            Phase::Head | Phase::Answering | Phase::Draining { .. } => return false,
        }
        true
    }

    /// Since when it sends a request that takes memory.
    pub(super) fn reading_since(&self, env: &Env) -> Option<Instant> {
        let time = match self.phase {
            Phase::Head if self.begun => env.config.head_timeout,
            Phase::Body(_) => env.config.body_timeout,
            _ => return None,
        };
        if self.charged > IDLE_CAPACITY { self.deadline.checked_sub(time) } else { None }
    }

    fn settle(&mut self, env: &mut Env) {
        let request = self.request.as_ref().map_or(0, |request| request.head.capacity() + request.body.capacity());
        let held = self.input.capacity() + self.output.capacity() + request;
        env.budget.settle(&mut self.charged, held);
    }

    // Reading a request.

    fn read_head(&mut self, env: &mut Env) -> Step {
        if !self.begun {
            // RFC 9112, 2.2: an empty line before the request line is ignored. One is enough.
            if self.input[self.cursor..].starts_with(b"\r\n") {
                self.cursor += 2;
            }
            match &self.input[self.cursor..] {
                [] if env.stopping => return Step::Break(Progress::Closed),
                [] | b"\r" => {}
                _ => {
                    self.begun = true;
                    self.deadline = env.now + env.config.head_timeout;
                }
            }
        }
        if !self.begun {
            return self.fill(env);
        }
        let length = match self.scanner.scan(&self.input[self.cursor..]) {
            Ok(Some(length)) => length,
            Ok(None) => return self.fill(env),
            Err(refusal) => return self.refuse_and_go_on(&refusal, env),
        };
        let bytes = &self.input[self.cursor..self.cursor + length];
        match head::parse(bytes, env.config.max_value.get()) {
            Ok(head) => {
                self.cursor += length;
                match self.admits(&head, env) {
                    Ok(()) => self.begin_body(head, env),
                    Err(refusal) => self.refuse_denied(&refusal, &head, env),
                }
            }
            Err(refusal) => self.refuse_and_go_on(&refusal, env),
        }
    }

    /// Decided before the body, so that nobody fills the budget who may not ask.
    fn admits(&self, head: &head::Head, env: &Env) -> Result<(), Refusal> {
        let (method, target) = head.asked();
        let is_local = self.from.is_loopback() && !head.is_forwarded;
        let asking = Asking { method, target, authorization: head.authorization(), is_local };
        let access = env.config.doors.get();
        access.admits(&asking).map_err(refusal::denied)?;
        if head.has_body() && access.is_open(&asking) { Err(refusal::BODY_UNWANTED) } else { Ok(()) }
    }

    /// A client whose request has no body may go on: a page may ask again with a token.
    fn refuse_denied(&mut self, refusal: &Refusal, head: &head::Head, env: &mut Env) -> Step {
        env.config.counts.note(env.now, refusal);
        let close = head.has_body() || self.close || head.close || env.stopping;
        debug!(status = refusal.status, code = refusal.code, "HTTP request refused");
        (self.scanner, self.begun) = (Scanner::default(), false);
        let origin = head.origin().filter(|origin| is_named(&env.config.origins, origin));
        self.begin_answer(refusal.response_to(origin, head.kind.head, close), close, env);
        AGAIN
    }

    fn begin_body(&mut self, head: head::Head, env: &mut Env) -> Step {
        self.scanner = Scanner::default();
        self.kind = head.kind;
        self.close |= head.close;
        self.deadline = env.now + env.config.body_timeout;
        let body = match head.framing {
            Framing::None | Framing::Length(0) => None,
            Framing::Length(length) => Some(Body::Length(length)),
            Framing::Chunked => Some(Body::Chunked(Chunked::new())),
        };
        let mut request = Request { head: head.canonical, body: Vec::new(), kind: head.kind, close: self.close };
        let Some(body) = body else {
            head::finish(&mut request.head, (head.framing != Framing::None).then_some(0));
            self.request = Some(request);
            return self.begin_waiting(env);
        };
        self.request = Some(request);
        self.phase = Phase::Body(body);
        // A client that has begun to send does not wait.
        if head.expects_continue && self.cursor == self.input.len() {
            self.output.extend_from_slice(CONTINUE);
        }
        AGAIN
    }

    fn read_body(&mut self, env: &mut Env) -> Step {
        match self.take_body(env) {
            Ok(true) => {
                if let Some(request) = &mut self.request {
                    if request.kind.safe {
                        // It has no meaning, and must not be in the way if the request is put off.
                        request.body = Vec::new();
                    }
                    head::finish(&mut request.head, Some(request.body.len()));
                }
                self.begin_waiting(env)
            }
            Ok(false) => {
                self.settle(env);
                self.fill(env)
            }
            Err(refusal) => self.refuse_and_go_on(&refusal, env),
        }
    }

    /// Moves what has arrived of the body to the request; whether the body is whole.
    fn take_body(&mut self, env: &Env) -> Result<bool, Refusal> {
        let (Phase::Body(body), Some(request)) = (&mut self.phase, &mut self.request) else {
            // Not reached: a request is there from the head to the dispatch.
            return Err(refusal::BAD_REQUEST_LINE);
        };
        let pending = &self.input[self.cursor..];
        let body_max = env.config.max_value.get();
        let (ceiling, useful) = match body {
            Body::Length(left) => (request.body.len() + *left, pending.len().min(*left)),
            Body::Chunked(_) => (body_max, pending.len()),
        };
        if !reserve(&mut request.body, useful, ceiling, &env.budget) {
            return Err(refusal::OUT_OF_MEMORY);
        }
        match body {
            Body::Length(left) => {
                request.body.extend_from_slice(&pending[..useful]);
                self.cursor += useful;
                *left -= useful;
                Ok(*left == 0)
            }
            Body::Chunked(chunked) => {
                let (used, whole) = chunked.push(pending, &mut request.body, body_max)?;
                self.cursor += used;
                Ok(whole)
            }
        }
    }

    fn begin_waiting(&mut self, env: &Env) -> Step {
        self.serial += 1;
        self.begun = false;
        self.phase = Phase::Waiting;
        self.deadline = env.now + env.config.answer_timeout + ANSWER_MARGIN;
        Step::Break(Progress::Ready)
    }

    /// Reads once: the body's bytes straight to where they belong, anything else to the input.
    fn fill(&mut self, env: &mut Env) -> Step {
        if self.cursor > 0 {
            // Once for each read, not for each request: what moves is less than one head.
            self.input.drain(..self.cursor);
            self.cursor = 0;
        }
        let direct = match (&self.phase, self.input.is_empty()) {
            (Phase::Body(Body::Length(left)), true) => Some(*left),
            _ => None,
        };
        // The scanner refuses a head of `HEAD_MAX` and a chunked body leaves nothing, so there is room.
        let want = direct.unwrap_or(HEAD_MAX - self.input.len().min(HEAD_MAX)).min(env.scratch.len());
        let count = match self.read(&mut env.scratch[..want]) {
            Ok(count) => count,
            Err(progress) => return progress,
        };
        let target = match (&mut self.phase, &mut self.request) {
            (Phase::Body(Body::Length(left)), Some(request)) if direct.is_some() => {
                let ceiling = request.body.len() + *left;
                *left -= count;
                if reserve(&mut request.body, count, ceiling, &env.budget) { Some(&mut request.body) } else { None }
            }
            _ if reserve(&mut self.input, count, HEAD_MAX, &env.budget) => Some(&mut self.input),
            _ => None,
        };
        let Some(target) = target else {
            return self.refuse_and_go_on(&refusal::OUT_OF_MEMORY, env);
        };
        target.extend_from_slice(&env.scratch[..count]);
        self.settle(env);
        AGAIN
    }

    /// One read. `Err` says how to leave [`Conn::advance`], or to go round again.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Step> {
        if !self.ready.read {
            return Err(Step::Break(Progress::Blocked));
        }
        if self.turn_left == 0 {
            return Err(Step::Break(Progress::Yielded));
        }
        match self.stream.read(buffer) {
            // A client that ends in the middle of a request gets no answer: there is nothing to answer.
            Ok(0) => Err(Step::Break(Progress::Closed)),
            Ok(count) => {
                self.heard = true;
                self.ready.after_read(count, buffer.len());
                self.turn_left = self.turn_left.saturating_sub(count);
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.ready.read = false;
                Err(Step::Break(Progress::Blocked))
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(AGAIN),
            Err(_) => Err(Step::Break(Progress::Closed)),
        }
    }

    // Answering.

    /// Refuses what is being read. Where the next request would begin is unknown, so the connection ends.
    pub(super) fn refuse(&mut self, refusal: &Refusal, env: &Env) {
        env.config.counts.note(env.now, refusal);
        debug!(status = refusal.status, code = refusal.code, "HTTP request refused");
        let head_only = match self.phase {
            Phase::Head => self.input[self.cursor..].starts_with(b"HEAD "),
            _ => self.kind.head,
        };
        self.request = None;
        self.begin_answer(refusal.response(head_only, true), true, env);
    }

    fn refuse_and_go_on(&mut self, refusal: &Refusal, env: &Env) -> Step {
        self.refuse(refusal, env);
        AGAIN
    }

    fn begin_answer(&mut self, response: Vec<u8>, close: bool, env: &Env) {
        if self.written == self.output.len() {
            self.output = response;
            self.written = 0;
        } else {
            // The rest of `100 Continue` is still to leave.
            self.output.extend_from_slice(&response);
        }
        self.close |= close;
        self.phase = Phase::Answering;
        self.deadline = env.now + env.config.write_timeout;
    }

    fn end_answer(&mut self, env: &mut Env) -> Step {
        if self.written < self.output.len() {
            return Step::Break(Progress::Blocked);
        }
        self.output = Vec::new();
        self.written = 0;
        if self.close {
            return self.begin_draining(env);
        }
        self.phase = Phase::Head;
        self.deadline = env.now + env.config.idle_timeout;
        if self.cursor == self.input.len() {
            self.input.clear();
            self.cursor = 0;
            if self.input.capacity() > IDLE_CAPACITY {
                self.input = Vec::new();
            }
        }
        AGAIN
    }

    /// Closing at once with unread input would reset the connection, and the client might never read its answer.
    fn begin_draining(&mut self, env: &Env) -> Step {
        let all_used = self.cursor == self.input.len();
        if (env.stopping && all_used) || self.stream.shutdown(Shutdown::Write).is_err() {
            return Step::Break(Progress::Closed);
        }
        self.input = Vec::new();
        self.cursor = 0;
        self.phase = Phase::Draining { left: DRAIN_MAX };
        self.deadline = env.now + env.config.linger_timeout;
        AGAIN
    }

    fn drain(&mut self, env: &mut Env) -> Step {
        let count = match self.read(&mut env.scratch) {
            Ok(count) => count,
            Err(step) => return step,
        };
        match &mut self.phase {
            Phase::Draining { left } if *left > count => *left -= count,
            _ => return Step::Break(Progress::Closed),
        }
        AGAIN
    }

    /// Writes what there is until the socket takes no more.
    fn flush(&mut self) -> io::Result<()> {
        while self.ready.write && self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready.write = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
