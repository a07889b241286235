//! Users' requests on their way from the HTTP threads to the loop and back.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use mio::Waker;

use super::clock;
use super::http::{BodyLimit, Counts, Doors, HttpFront, HttpHandle, Responder, Ticket};
use crate::data::http::{Access, Asked, HttpRequest, HttpResponse, Limits, Shape, parse, problem};
use crate::data::{Check, Metric, UserReply, UserRequest};

/// The HTTP front, as the loop sees it.
pub(super) struct Users {
    http: HttpHandle,
    responder: Responder,
    asked: Receiver<(Ticket, Asked)>,
    shapes: BTreeMap<Ticket, Shape>,
    body_limit: BodyLimit,
    doors: Doors,
    counts: Counts,
}

/// The check of `/readyz` that is about how much is asked of a node.
const LOAD: &str = "load";

/// Requests between the HTTP threads and the loop. Each private connection has one request in flight, so it is never
/// full in order.
const CHANNEL_MAX: usize = 1_024;

impl Users {
    /// Starts serving. Requests that are understood wake the loop; the others are answered where they are.
    pub fn start(
        front: HttpFront,
        body_limit: BodyLimit,
        (doors, origins): (Doors, Vec<String>),
        waker: Arc<Waker>,
    ) -> io::Result<Self> {
        let (sender, asked) = crossbeam_channel::bounded(CHANNEL_MAX);
        let counts = front.counts();
        let (limit, rules, refused) = (body_limit.clone(), doors.clone(), counts.clone());
        let mut limits = Limits { value_bytes_max: limit.get(), origins };
        let http = front.start(move |ticket, request, responder| {
            limits.value_bytes_max = limit.get();
            match understood(request, &limits, &rules, &refused) {
                Ok(asked) => {
                    if !deliver(ticket, asked, &sender, responder, &waker) {
                        refused.note_overloaded(Instant::now(), OVERLOADED);
                    }
                }
                Err(response) => responder.answer(ticket, response),
            }
        })?;
        let responder = http.responder();
        Ok(Self { http, responder, asked, shapes: BTreeMap::new(), body_limit, doors, counts })
    }

    /// The ring's limit is known.
    pub fn limit_values(&self, bytes: usize) {
        self.body_limit.lower_to(bytes);
    }

    /// Others may ask for other things from now on.
    pub fn set_access(&self, access: Access) {
        self.doors.set(access);
    }

    /// The next request.
    pub fn next(&mut self) -> Option<(Ticket, UserRequest)> {
        let (ticket, Asked { request, shape }) = self.asked.try_recv().ok()?;
        self.shapes.insert(ticket, shape);
        Some((ticket, request))
    }

    /// Answers one.
    pub fn answer(&mut self, ticket: Ticket, reply: UserReply) {
        if let Some(shape) = self.shapes.remove(&ticket) {
            self.responder.answer(ticket, shape.render(reply, clock::wall()));
        }
    }

    /// What is counted of requests that were refused before they were asked.
    pub fn metric(&self) -> Metric {
        let counts = self.counts.by_code();
        let help = "Requests that were refused before they reached the node, by the code of the answer.";
        Metric::counters("chordkv_http_refused", help, "code", counts.into_iter())
    }

    /// Whether too much is asked of this node, which may not notice it itself: then requests do not reach it.
    pub fn judge_load(&self, checks: &mut [Check]) {
        let load = checks.iter_mut().find(|check| check.name == LOAD && check.failed.is_none());
        if let (Some(check), Some(code)) = (load, self.counts.overload(Instant::now())) {
            check.failed = Some(format!("requests were just refused: {code}"));
        }
    }

    /// Has a request asked again that was put off.
    pub fn resume(&self, parked: u64) {
        self.http.resume(parked);
    }

    /// Takes no more requests; those in progress have so long to be answered.
    pub fn begin_stop(&self, grace: Duration) {
        self.http.begin_stop(grace);
    }

    /// Whether the last answer has left.
    pub fn is_quiet(&self) -> bool {
        self.http.is_quiet()
    }

    /// Ends the threads.
    pub fn stop(self) {
        self.http.stop(Duration::ZERO);
    }
}

/// What is asked, or why that is not to be. By method and path the gate has decided already.
fn understood(request: HttpRequest, limits: &Limits, doors: &Doors, counts: &Counts) -> Result<Asked, HttpResponse> {
    let access = doors.get();
    if !access.needs_tokens() {
        return parse(request, limits);
    }
    let field = request.headers.iter().find(|(name, _)| name == "authorization");
    let authorization = field.map(|(_, value)| value.clone());
    let asked = parse(request, limits)?;
    access.covers(authorization.as_deref(), &asked.request).map_err(|denied| {
        counts.note_denied(denied);
        asked.shape.refused(denied)
    })?;
    Ok(asked)
}

/// The code of what the loop has no room for.
const OVERLOADED: &str = "overloaded";

/// False if the node has too much to do.
fn deliver(
    ticket: Ticket,
    asked: Asked,
    sender: &Sender<(Ticket, Asked)>,
    responder: &Responder,
    waker: &Waker,
) -> bool {
    match sender.try_send((ticket, asked)) {
        Ok(()) => {
            // It fails only once the loop is gone, and then the answer's time-out speaks.
            let _ = waker.wake();
            true
        }
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
            let busy = problem(503, OVERLOADED, "this node has too many requests in progress; try again");
            responder.answer(ticket, busy.with("Retry-After", "1"));
            false
        }
    }
}
