//! A read of whatever copy can be had: perhaps an old one, and also where no majority of its members answers.

use std::collections::BTreeSet;

use super::chord_node::ChordNode;
use super::job::Asker;
use super::message::{Call, Reply};
use super::task::{Next, Wake};
use crate::base::{Contact, Incarnation, Now, Span, Time};
use crate::data::{Failure, Place, UserReply};

/// Such a read in progress.
#[derive(Debug)]
pub(super) struct StaleTask {
    place: Place,
    // Who was asked since the members were looked up last.
    asked: BTreeSet<Incarnation>,
    call: Option<u64>,
    asked_at: Time,
    looked: bool,
    // A lookup or the own store is at work.
    waits: bool,
}

/// After everybody was asked in vain.
const ROUND_PAUSE: Span = Span::millis(50);

impl StaleTask {
    pub fn new(place: Place) -> Self {
        Self { place, asked: BTreeSet::new(), call: None, asked_at: Time::default(), looked: false, waits: false }
    }

    pub fn timed_out() -> Failure {
        Failure::Unavailable("no node that has a copy of this key was reached in time".to_owned())
    }
}

impl ChordNode {
    pub(super) fn run_stale(&mut self, now: Now, id: u64, task: &mut StaleTask, wake: Wake) -> Next {
        match wake {
            Wake::Go if task.waits => return Next::Wait,
            Wake::Go => {
                // It took too long.
                if let Some(request) = task.call.take() {
                    self.drop_call(request);
                }
            }
            Wake::Peeked(Some((outcome, age))) => return Next::Done(UserReply::Stale { outcome, age }),
            Wake::Reply { reply: Reply::Peeked(Some((outcome, age))), .. } => {
                // It took as long at most to be told.
                let age = age.map(|age| age + now.mono.since(task.asked_at));
                return Next::Done(UserReply::Stale { outcome, age });
            }
            Wake::Peeked(None) => task.waits = false,
            Wake::Found(found) => {
                task.waits = false;
                let me = self.inside.as_ref().map(|inside| inside.overlay.me());
                if let Some(answer) = found.ok().filter(|answer| Some(answer.owner) != me) {
                    return self.ask_stale(now, id, task, answer.owner, Call::Holder(task.place.slot));
                }
            }
            Wake::Reply { reply: Reply::Holder(Some(view)), .. } => {
                task.call = None;
                if let Some(inside) = &mut self.inside {
                    inside.learn(now, task.place.slot, view);
                }
            }
            Wake::Reply { .. } | Wake::Undelivered { .. } | Wake::Lost { .. } => task.call = None,
            _ => return Next::Wait,
        }
        self.try_stale(now, id, task)
    }

    /// Asks the own store, then members of the newest view that is known, those first that should answer.
    fn try_stale(&mut self, now: Now, id: u64, task: &mut StaleTask) -> Next {
        let Some(inside) = &mut self.inside else { return self.pause(ROUND_PAUSE) };
        let me = inside.overlay.me();
        if task.asked.insert(me.incarnation) && self.peek_here(now, Asker::Task(id), &task.place) {
            task.waits = true;
            return Next::Wait;
        }
        let Some(inside) = &mut self.inside else { return self.pause(ROUND_PAUSE) };
        let view = inside.copies.view(task.place.slot);
        let members = view.iter().flat_map(|view| view.members.iter());
        let mut left: Vec<Contact> = members.filter(|m| !task.asked.contains(&m.incarnation)).copied().collect();
        left.sort_by_key(|member| !inside.overlay.answers(member));
        if let Some(member) = left.first() {
            task.asked.insert(member.incarnation);
            let call = Call::Peek(task.place.key.clone());
            let member = *member;
            return self.ask_stale(now, id, task, member, call);
        }
        if !std::mem::replace(&mut task.looked, true) && inside.overlay.standing().is_member() {
            task.waits = true;
            inside.overlay.lookup(now.mono, id, inside.owner_target(task.place.slot));
            return Next::Wait;
        }
        task.asked.clear();
        task.looked = false;
        self.pause(ROUND_PAUSE)
    }

    fn ask_stale(&mut self, now: Now, id: u64, task: &mut StaleTask, to: Contact, call: Call) -> Next {
        task.asked_at = now.mono;
        task.call = Some(self.call(id, to, call));
        Next::Pause(self.inside.as_ref().map_or(ROUND_PAUSE, |inside| inside.overlay.patience(&to, 0)))
    }
}
