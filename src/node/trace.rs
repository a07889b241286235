//! A lookup hop by hop, for people: this node asks each hop itself and notes how long it took.

use super::chord_node::ChordNode;
use super::inside::Inside;
use super::message::{Call, Reply};
use super::report::{NodeName, TraceHop, TraceReport};
use super::task::{Next, Wake};
use super::walk::json;
use crate::base::limits::HOPS_MAX;
use crate::base::{Contact, Now, Span, Time};
use crate::data::{Failure, Place, UserReply};
use crate::overlay::{NextHop, Step};
use crate::replication::View;

/// A trace in progress.
#[derive(Debug)]
pub(super) struct TraceTask {
    place: Place,
    started: Time,
    hops: Vec<TraceHop>,
    asking: Option<Contact>,
    owner: Option<Contact>,
}

/// Before a trace that lost its way starts again.
const RESTART_PAUSE: Span = Span::millis(50);

impl TraceTask {
    pub fn new(place: Place, started: Time) -> Self {
        Self { place, started, hops: Vec::new(), asking: None, owner: None }
    }
}

impl ChordNode {
    pub(super) fn run_trace(&mut self, now: Now, id: u64, trace: &mut TraceTask, wake: Wake) -> Next {
        let Some(inside) = &self.inside else { return Next::Pause(RESTART_PAUSE) };
        let me = inside.overlay.me();
        let next = match wake {
            Wake::Go => {
                self.note_hop(trace, me, Span::ZERO, false);
                self.inside.as_ref().map(|inside| inside.overlay.next_hop(inside.owner_target(trace.place.slot)))
            }
            Wake::Stepped(step) => {
                let Some(asked) = trace.asking.take() else { return Next::Wait };
                match step {
                    Step::Answered { next, rtt } => {
                        self.note_hop(trace, asked, rtt, false);
                        Some(next)
                    }
                    Step::Silent => {
                        self.note_hop(trace, asked, Span::ZERO, true);
                        None
                    }
                }
            }
            Wake::Reply { reply: Reply::Holder(view), .. } => return self.finish_trace(now, trace, view),
            Wake::Reply { .. } | Wake::Undelivered { .. } | Wake::Lost { .. } => {
                return self.finish_trace(now, trace, None);
            }
            _ => return Next::Wait,
        };
        match next {
            _ if trace.hops.len() > HOPS_MAX as usize => {
                Next::Done(UserReply::Failed(Failure::Unavailable("the lookup goes in circles".to_owned())))
            }
            Some(NextHop::Owner(owner)) => {
                trace.owner = Some(owner);
                if owner == me {
                    return self.finish_trace(now, trace, None);
                }
                self.call(id, owner, Call::Holder(trace.place.slot));
                Next::Wait
            }
            Some(NextHop::Closer(closer)) => {
                trace.asking = Some(closer);
                if let Some(Inside { overlay, params, .. }) = &mut self.inside {
                    overlay.step(now.mono, id, closer, params.space.last_id(trace.place.slot));
                }
                Next::Wait
            }
            Some(NextHop::Refused) | None => Next::Pause(RESTART_PAUSE),
        }
    }

    fn note_hop(&self, trace: &mut TraceTask, at: Contact, rtt: Span, silent: bool) {
        if let Some(inside) = &self.inside {
            let id = inside.params.space.capacity().hex(at.id);
            trace.hops.push(TraceHop { id, addr: at.addr.to_string(), rtt_us: rtt.0, silent });
        }
    }

    fn finish_trace(&self, now: Now, trace: &mut TraceTask, told: Option<View>) -> Next {
        let (Some(inside), Some(owner)) = (&self.inside, trace.owner) else { return Next::Pause(RESTART_PAUSE) };
        let capacity = inside.params.space.capacity();
        let name = |contact: &Contact| NodeName { id: capacity.hex(contact.id), addr: contact.addr.to_string() };
        let known = inside.copies.view(trace.place.slot).cloned();
        let newer = |a: View, b: View| if b.epoch > a.epoch { b } else { a };
        let view = told.into_iter().chain(known).reduce(newer);
        Next::Done(json(&TraceReport {
            key: String::from_utf8_lossy(trace.place.key.as_bytes()).into_owned(),
            key_id: capacity.hex(trace.place.id),
            slot: trace.place.slot.0,
            owner: name(&owner),
            replicas: view.iter().flat_map(|view| view.members.iter().map(name)).collect(),
            epoch: view.map(|view| view.epoch),
            hops: std::mem::take(&mut trace.hops),
            total_us: now.mono.since(trace.started).0,
        }))
    }
}
