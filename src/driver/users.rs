//! Users' requests on their way from the HTTP threads to the loop and back.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};
use mio::Waker;

use super::clock;
use super::http::{BodyLimit, Doors, HttpFront, HttpHandle, Responder, Ticket};
use crate::data::http::{Access, Asked, HttpRequest, HttpResponse, Limits, Shape, parse, problem};
use crate::data::{UserReply, UserRequest};

/// The HTTP front, as the loop sees it.
pub(super) struct Users {
    http: HttpHandle,
    responder: Responder,
    asked: Receiver<(Ticket, Asked)>,
    shapes: BTreeMap<Ticket, Shape>,
    body_limit: BodyLimit,
    doors: Doors,
}

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
        let (limit, rules) = (body_limit.clone(), doors.clone());
        let mut limits = Limits { value_bytes_max: limit.get(), origins };
        let http = front.start(move |ticket, request, responder| {
            limits.value_bytes_max = limit.get();
            match understood(request, &limits, &rules) {
                Ok(asked) => deliver(ticket, asked, &sender, responder, &waker),
                Err(response) => responder.answer(ticket, response),
            }
        })?;
        let responder = http.responder();
        Ok(Self { http, responder, asked, shapes: BTreeMap::new(), body_limit, doors })
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
fn understood(request: HttpRequest, limits: &Limits, doors: &Doors) -> Result<Asked, HttpResponse> {
    let access = doors.get();
    if !access.needs_tokens() {
        return parse(request, limits);
    }
    let field = request.headers.iter().find(|(name, _)| name == "authorization");
    let authorization = field.map(|(_, value)| value.clone());
    let asked = parse(request, limits)?;
    access.covers(authorization.as_deref(), &asked.request).map_err(|denied| asked.shape.refused(denied))?;
    Ok(asked)
}

fn deliver(ticket: Ticket, asked: Asked, sender: &Sender<(Ticket, Asked)>, responder: &Responder, waker: &Waker) {
    match sender.try_send((ticket, asked)) {
        Ok(()) => {
            // It fails only once the loop is gone, and then the answer's time-out speaks.
            let _ = waker.wake();
        }
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
            let busy = problem(503, "overloaded", "this node has too many requests in progress; try again");
            responder.answer(ticket, busy.with("Retry-After", "1"));
        }
    }
}
