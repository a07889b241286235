//! One operation on one key, from any node to the holder of its slot and back.
//!
//! Reads are asked again at will. A write is sent again only if it was certainly not run: refused by the peer, or never
//! delivered. Otherwise its outcome is unknown, and the user is told so.

use super::chord_node::ChordNode;
use super::inside::Inside;
use super::job::Asker;
use super::message::{Call, KvReply, Reply};
use super::task::{Next, Wake};
use crate::base::{Contact, Now, Span};
use crate::data::{Command, Failure, Place, Put, UserReply};
use crate::replication::View;

/// An operation on its way.
#[derive(Debug)]
pub(super) struct KvTask {
    place: Place,
    command: Command,
    asked: Option<(u64, Contact)>,
    looking: bool,
    // This node's own store is at it.
    running: bool,
    // The view that the last asked node was chosen by, to notice when it leads in circles.
    last_view: Option<View>,
}

/// How long a frozen slot is left alone before it is asked again.
const BUSY_PAUSE: Span = Span::millis(3);
/// How long a slot without a known holder is left alone.
const LOST_PAUSE: Span = Span::millis(20);
/// Silence after which a read is asked again from the start.
const READ_AGAIN: Span = Span::secs(1);

impl KvTask {
    pub fn new(place: Place, command: Command, value_bytes_max: usize) -> Result<Self, UserReply> {
        match &command {
            Command::Put(Put { value, .. }) if value.len() > value_bytes_max => {
                Err(UserReply::Failed(Failure::TooLarge { limit: value_bytes_max }))
            }
            _ => Ok(Self { place, command, asked: None, looking: false, running: false, last_view: None }),
        }
    }

    pub fn timed_out(&self) -> Failure {
        match &self.asked {
            asked if (asked.is_some() || self.running) && self.command.is_write() => {
                Failure::Timeout { maybe_applied: true }
            }
            Some((_, to)) => Failure::Unavailable(format!("{}, which holds this key, does not answer", to.addr)),
            None if self.running => Failure::Timeout { maybe_applied: false },
            None => Failure::Unavailable("no node that holds this key was found in time".to_owned()),
        }
    }
}

impl ChordNode {
    pub(super) fn run_kv(&mut self, now: Now, id: u64, kv: &mut KvTask, wake: Wake) -> Next {
        match wake {
            Wake::Go => {
                if kv.looking || kv.running || kv.asked.is_some() && kv.command.is_write() {
                    return Next::Wait;
                }
                if let Some((request, _)) = kv.asked.take() {
                    // A read that took too long.
                    self.drop_call(request);
                    self.forget_view(kv);
                }
                self.find_holder(now, id, kv)
            }
            Wake::Reply { reply: Reply::Kv(reply), .. } => {
                kv.asked = None;
                self.after_reply(now, id, kv, reply)
            }
            Wake::Ran(reply) => {
                kv.running = false;
                self.after_reply(now, id, kv, reply)
            }
            Wake::Found(Ok(answer)) => {
                kv.looking = false;
                let pointless = |inside: &Inside| {
                    // This node should hold it soon, or does by now.
                    answer.owner == inside.overlay.me()
                        // Whoever was asked has not heard yet that the owner left.
                        || inside.overlay.is_gone(&answer.owner)
                };
                if self.inside.as_ref().is_some_and(pointless) {
                    return self.pause(LOST_PAUSE);
                }
                self.ask_kv(id, kv, answer.owner)
            }
            Wake::Found(Err(_)) => {
                kv.looking = false;
                self.pause(LOST_PAUSE)
            }
            Wake::Lost { .. } if kv.command.is_write() => {
                Next::Done(UserReply::Failed(Failure::Timeout { maybe_applied: true }))
            }
            Wake::Undelivered { .. } | Wake::Lost { .. } | Wake::Reply { .. } => {
                kv.asked = None;
                self.forget_view(kv);
                self.pause(LOST_PAUSE)
            }
            Wake::Stepped(_) | Wake::Listed { .. } | Wake::Operated(_) => Next::Wait,
        }
    }

    fn after_reply(&mut self, now: Now, id: u64, kv: &mut KvTask, reply: KvReply) -> Next {
        match reply {
            KvReply::Done(outcome) => Next::Done(UserReply::Kv(outcome)),
            KvReply::Failed(trouble) => Next::Done(UserReply::Failed(Failure::Trouble(trouble))),
            KvReply::Busy => self.pause(BUSY_PAUSE),
            KvReply::Elsewhere(view) => self.follow(now, id, kv, view),
        }
    }

    fn find_holder(&mut self, now: Now, id: u64, kv: &mut KvTask) -> Next {
        if self.inside.is_none() {
            return self.pause(LOST_PAUSE);
        }
        let view = match self.run_here(now, Asker::Task(id), &kv.place, &kv.command) {
            None => {
                kv.running = true;
                return Next::Wait;
            }
            Some(KvReply::Elsewhere(view)) => view,
            Some(_) => return self.pause(BUSY_PAUSE),
        };
        let Some(inside) = &mut self.inside else { return self.pause(LOST_PAUSE) };
        let me = inside.overlay.me().incarnation;
        let answers = |contact: &Contact| {
            contact.incarnation != me
                && !inside.overlay.is_gone(contact)
                && inside.overlay.peer(contact).is_none_or(|peer| !peer.suspect)
        };
        if let Some(holder) = view.as_ref().and_then(View::primary).filter(answers) {
            kv.last_view = view;
            return self.ask_kv(id, kv, holder);
        }
        if !inside.overlay.standing().is_member() {
            return self.pause(LOST_PAUSE);
        }
        kv.looking = true;
        kv.last_view = None;
        inside.overlay.lookup(now.mono, id, inside.owner_target(kv.place.slot));
        Next::Wait
    }

    /// The asked node does not hold the slot: on to the one it names, if that is news.
    fn follow(&mut self, now: Now, id: u64, kv: &mut KvTask, view: Option<View>) -> Next {
        let news = match (&view, &kv.last_view) {
            (Some(view), Some(last)) => view.replaces(last),
            (Some(_), None) => true,
            (None, _) => false,
        };
        match view {
            Some(view) if news => {
                if let Some(inside) = &mut self.inside {
                    inside.learn(now, kv.place.slot, view);
                }
                self.find_holder(now, id, kv)
            }
            _ => {
                self.forget_view(kv);
                self.pause(LOST_PAUSE)
            }
        }
    }

    fn ask_kv(&mut self, id: u64, kv: &mut KvTask, to: Contact) -> Next {
        let call = Call::Kv { key: kv.place.key.clone(), command: kv.command.clone() };
        kv.asked = Some((self.call(id, to, call), to));
        if kv.command.is_write() { Next::Wait } else { Next::Pause(READ_AGAIN) }
    }

    fn forget_view(&mut self, kv: &mut KvTask) {
        kv.last_view = None;
        if let Some(inside) = &mut self.inside {
            inside.forget(kv.place.slot);
        }
    }

    /// A pause of about that length, so that those who wait for the same do not come back together.
    pub(super) fn pause(&mut self, about: Span) -> Next {
        Next::Pause(about + Span(self.rng.below(about.0)))
    }
}
