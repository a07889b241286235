//! One private connection to `tiny_http`, with at most one request in flight.
//!
//! It always reads the answer to its end, whatever becomes of the client: `tiny_http`'s answers are written by one
//! thread, which must never wait for the gate. A lane that meets anything unexpected is broken and is opened anew;
//! it never sends a request twice.

use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use mio::net::UnixStream;

use super::conn::{Readiness, Request};
use super::env::Env;
use super::head::Kind;
use super::limits::{REPLY_HEAD_MAX, SMALL_ANSWER};
use super::reply;
use super::slots::Key;

/// Bodies up to this size travel in one write with their head.
const JOINED_BODY_MAX: usize = 16 * 1024;

/// The field by which the back end knows the gate's own request. It is not on the allow-list, so no client can send it.
pub(super) const PROBE_FIELD: &str = "x-gate-probe";

/// Whom the answer is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    /// Connection and number of its request; `None` for the gate's own first round trip.
    pub client: Option<(Key, u64)>,
    pub kind: Kind,
    pub close: bool,
}

/// What came of a job.
pub(super) enum Outcome {
    /// The answer, as the client gets it, and whether it ends the client's connection.
    Answer(Vec<u8>, bool),
    /// There was one, but no room for it.
    TooLarge,
    /// The application has put the request off; it is to be passed on again when this number is called.
    Parked(u64, Request),
}

/// Why [`Lane::advance`] came back.
pub(super) enum LaneProgress {
    Blocked,
    Done(Job, Outcome),
    /// The connection is of no use any more; the job that was in flight, if any.
    Broken(Option<Job>),
}

enum Reply {
    Head,
    Body {
        bytes: Vec<u8>,
        left: usize,
        close: bool,
    },
    /// Read and thrown away: the budget has no room.
    Discarded {
        left: usize,
    },
    Parked(u64),
}

/// See the module.
pub(super) struct Lane {
    stream: UnixStream,
    job: Option<Job>,
    head: Vec<u8>,
    body: Vec<u8>,
    /// Bytes of head and body that have left.
    sent: usize,
    input: Vec<u8>,
    reply: Reply,
    ready: Readiness,
    charged: usize,
}

impl Lane {
    /// Connects and queues the first round trip, which proves that a thread of `tiny_http` reads this connection.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut lane = Lane {
            stream: UnixStream::connect(path)?,
            job: Some(Job { client: None, kind: Kind::of("GET"), close: false }),
            head: format!("GET / HTTP/1.1\r\n{PROBE_FIELD}: 1\r\n\r\n").into_bytes(),
            body: Vec::new(),
            sent: 0,
            input: Vec::new(),
            reply: Reply::Head,
            ready: Readiness::ALL,
            charged: 0,
        };
        match lane.flush() {
            Ok(()) => Ok(lane),
            // The connection is being made; the event comes.
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(lane),
            Err(error) => Err(error),
        }
    }

    pub(super) fn source(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    pub(super) fn on_event(&mut self, news: Readiness) {
        self.ready.add(news);
    }

    /// Whether it can take no further request.
    pub(super) fn has_ended(&self) -> bool {
        self.ready.ended
    }

    pub(super) fn job(&self) -> Option<Job> {
        self.job
    }

    /// Sends `request`. The lane must be idle.
    pub(super) fn begin(&mut self, job: Job, request: Request, env: &mut Env) -> LaneProgress {
        debug_assert!(self.job.is_none(), "one request in flight");
        self.job = Some(job);
        self.head = request.head;
        self.body = request.body;
        self.sent = 0;
        if self.body.len() <= JOINED_BODY_MAX {
            self.head.append(&mut self.body);
            self.body = Vec::new();
        }
        self.advance(env)
    }

    /// Gives what this lane is charged for back to the budget.
    pub(super) fn release(&mut self, env: &mut Env) {
        env.budget.settle(&mut self.charged, 0);
    }

    /// Writes and reads until the socket would block or the answer is whole.
    pub(super) fn advance(&mut self, env: &mut Env) -> LaneProgress {
        if self.flush().is_err() {
            return LaneProgress::Broken(self.job.take());
        }
        let progress = self.receive(env);
        let reply = match &self.reply {
            Reply::Body { bytes, .. } => bytes.capacity(),
            Reply::Head | Reply::Discarded { .. } | Reply::Parked(_) => 0,
        };
        let held = self.head.capacity() + self.body.capacity() + self.input.capacity() + reply;
        env.budget.settle(&mut self.charged, held);
        progress
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.ready.write && self.sent < self.head.len() + self.body.len() {
            let rest = match self.head.get(self.sent..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => &self.body[self.sent - self.head.len()..],
            };
            match self.stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.ready.write = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A read is kept, as it may be put off.
        if self.is_sent() && !self.job.is_some_and(|job| job.kind.safe) {
            (self.head, self.body, self.sent) = (Vec::new(), Vec::new(), 0);
        }
        Ok(())
    }

    fn is_sent(&self) -> bool {
        self.sent == self.head.len() + self.body.len()
    }

    fn receive(&mut self, env: &mut Env) -> LaneProgress {
        while self.ready.read {
            let count = match self.stream.read(&mut env.scratch) {
                Ok(0) => return LaneProgress::Broken(self.job.take()),
                Ok(count) => {
                    self.ready.after_read(count, env.scratch.len());
                    count
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.ready.read = false;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return LaneProgress::Broken(self.job.take()),
            };
            // Taken out for the while, so that the rest of `env` stays usable.
            let scratch = std::mem::take(&mut env.scratch);
            let accepted = self.accept(&scratch[..count], env);
            env.scratch = scratch;
            match accepted {
                Some(false) => {}
                Some(true) => return self.finish(),
                None => return LaneProgress::Broken(self.job.take()),
            }
        }
        LaneProgress::Blocked
    }

    /// Takes received bytes; whether the answer is whole, or `None` if it cannot be one.
    fn accept(&mut self, mut bytes: &[u8], env: &mut Env) -> Option<bool> {
        let job = self.job?;
        if let Reply::Head = self.reply {
            let seen = self.input.len();
            self.input.extend_from_slice(bytes);
            // The end may straddle what came before by three bytes.
            let from = seen.saturating_sub(3);
            let Some(at) = self.input[from..].windows(4).position(|window| window == b"\r\n\r\n") else {
                return if self.input.len() > REPLY_HEAD_MAX { None } else { Some(false) };
            };
            let head_len = from + at + 4;
            bytes = &bytes[head_len - seen..];
            let close = job.close || env.stopping;
            let head = reply::rewrite(&self.input[..head_len], job.kind, close)?;
            self.input = Vec::new();
            let size = head.bytes.len().saturating_add(head.body_len);
            self.reply = if let Some(parked) = head.parked.filter(|_| head.body_len == 0 && job.kind.safe) {
                Reply::Parked(parked)
            } else if size > SMALL_ANSWER && !env.budget.allows(size) {
                Reply::Discarded { left: head.body_len }
            } else {
                let mut whole = head.bytes;
                whole.reserve_exact(head.body_len);
                Reply::Body { bytes: whole, left: head.body_len, close }
            };
        }
        match &mut self.reply {
            Reply::Body { left, .. } | Reply::Discarded { left } if *left < bytes.len() => None,
            Reply::Body { bytes: whole, left, .. } => {
                whole.extend_from_slice(bytes);
                *left -= bytes.len();
                Some(*left == 0)
            }
            Reply::Discarded { left } => {
                *left -= bytes.len();
                Some(*left == 0)
            }
            Reply::Parked(_) => bytes.is_empty().then_some(true),
            Reply::Head => None,
        }
    }

    fn finish(&mut self) -> LaneProgress {
        let Some(job) = self.job.take() else {
            return LaneProgress::Broken(None);
        };
        // An answer before the request has left would leave the rest of it in the way of the next one.
        if !self.is_sent() {
            return LaneProgress::Broken(Some(job));
        }
        let (head, body) = (std::mem::take(&mut self.head), std::mem::take(&mut self.body));
        self.sent = 0;
        match std::mem::replace(&mut self.reply, Reply::Head) {
            Reply::Body { bytes, close, .. } => LaneProgress::Done(job, Outcome::Answer(bytes, close)),
            Reply::Parked(parked) => {
                let request = Request { head, body, kind: job.kind, close: job.close };
                LaneProgress::Done(job, Outcome::Parked(parked, request))
            }
            Reply::Discarded { .. } | Reply::Head => LaneProgress::Done(job, Outcome::TooLarge),
        }
    }
}
