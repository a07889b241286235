//! User requests in progress: what each waits for, and by when it must be answered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::list::ListTask;
use super::message::{Call, Message, Reply};
use super::recover::RecoverTask;
use super::stale::StaleTask;
use super::trace::TraceTask;
use super::walk::WalkTask;
use super::watch::{FeedTask, FollowTask, WatchTask};
use crate::base::limits::REQUESTS_MAX;
use crate::base::{Contact, Incarnation, Now, Span, Time};
use crate::data::{Failure, Outcome, Page, UserReply};
use crate::node::chord_node::{ChordNode, NodeTimer};
use crate::node::io::Output;
use crate::node::operate::OperateTask;
use crate::overlay::{Answer, LookupFailed, Step};
use crate::replication::SlotRun;
use crate::replication::copies::Ran;

/// Requests in progress.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    running: BTreeMap<u64, Task>,
    // Calls without a reply: (task, whom); the same by peer and by task.
    calls: BTreeMap<u64, (u64, Contact)>,
    calls_to: BTreeSet<(Incarnation, u64)>,
    calls_of: BTreeSet<(u64, u64)>,
    // What tasks are to hear of others that they have started.
    ended: VecDeque<(u64, u64, UserReply)>,
    next: u64,
}

impl Tasks {
    pub fn new(first_request: u64) -> Self {
        Self { next: first_request, ..Self::default() }
    }
}

#[derive(Debug)]
struct Task {
    whose: Whose,
    deadline: Time,
    kind: Kind,
}

/// Whom the reply is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// A user: the driver's name for the request.
    User(u64),
    /// Another task, with its name for this one.
    Task(u64, u64),
    /// A peer, who calls for a user of its own.
    Peer { to: Contact, request: u64 },
    /// What somebody watches, by its number.
    Feed(u64),
    /// Those who are watched for.
    Watching,
    /// Nobody: it is for what it does.
    Nobody,
}

#[derive(Debug)]
pub(super) enum Kind {
    Operate(OperateTask),
    Stale(StaleTask),
    List(ListTask),
    Walk(WalkTask),
    Trace(TraceTask),
    Recover(Box<RecoverTask>),
    Watch(Box<WatchTask>),
    Follow(FollowTask),
    Feed(FeedTask),
}

/// What a task waited for and has now come.
#[derive(Debug)]
pub(super) enum Wake {
    /// It was just made, or its pause is over.
    Go,
    /// The reply to a call.
    Reply { request: u64, from: Contact, reply: Reply },
    /// A call was certainly not delivered, or not acted on.
    Undelivered { request: u64, to: Contact },
    /// The connection broke while a call was without a reply, or its time is up.
    Lost { request: u64, to: Contact },
    /// A lookup has ended.
    Found(Result<Answer, LookupFailed>),
    /// A step of an iterative lookup has ended.
    Stepped(Step),
    /// This node has coordinated an operation, or did not.
    Operated(Ran),
    /// This node's store has looked what it has under a key; `None`: it has no whole copy of its slot.
    Peeked(Option<(Outcome, Option<Span>)>),
    /// This node's store has listed keys, of the slots named.
    Listed { served: Vec<(SlotRun, u64)>, page: Page },
    /// A task that this one has started is done.
    Ended { part: u64, reply: UserReply },
    /// There is no room for what it watches.
    TooMuch,
}

/// What the node does for itself has so long.
const OWN_DEADLINE: Span = Span::secs(30);

/// What a task does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Waits for something that it has asked for.
    Wait,
    /// What woke it is nothing to it: waits or pauses as before.
    Unmoved,
    /// Goes on after a pause.
    Pause(Span),
    /// Is done.
    Done(UserReply),
}

impl ChordNode {
    pub(super) fn start_task(&mut self, now: Now, whose: Whose, kind: Kind) {
        if self.tasks.running.len() >= REQUESTS_MAX {
            self.deliver(now, whose, UserReply::Failed(Failure::Overloaded));
            return;
        }
        self.tasks.next += 1;
        let id = self.tasks.next;
        let of_users = self.config.request_deadline;
        let limit = if matches!(kind, Kind::Follow(_) | Kind::Feed(_)) { of_users.max(OWN_DEADLINE) } else { of_users };
        let deadline = now.mono + limit;
        self.tasks.running.insert(id, Task { whose, deadline, kind });
        self.wake(now, id, Wake::Go);
    }

    /// Gives a task what it waited for. Nothing happens if it is over.
    pub(super) fn wake(&mut self, now: Now, id: u64, wake: Wake) {
        // Out of the map while it runs: it may use the whole node.
        let Some(mut task) = self.tasks.running.remove(&id) else { return };
        let next = match &mut task.kind {
            Kind::Operate(task) => self.run_operate(now, id, task, wake),
            Kind::Stale(task) => self.run_stale(now, id, task, wake),
            Kind::List(list) => self.run_list(now, id, list, wake),
            Kind::Walk(walk) => self.run_walk(now, id, walk, wake),
            Kind::Trace(trace) => self.run_trace(now, id, trace, wake),
            Kind::Recover(recover) => self.run_recover(now, id, recover, wake),
            Kind::Watch(watch) => self.run_watch(now, id, watch, wake),
            Kind::Follow(follow) => self.run_follow(now, id, follow, wake),
            Kind::Feed(feed) => self.run_feed(now, id, feed, wake),
        };
        let next = match next {
            Next::Pause(span) if now.mono + span >= task.deadline => Next::Wait,
            next => next,
        };
        match next {
            Next::Done(reply) => {
                self.timers.cancel(NodeTimer::Task(id));
                self.forget_calls(id);
                self.deliver(now, task.whose, reply);
                return;
            }
            Next::Pause(span) => self.timers.set(NodeTimer::Task(id), now.mono + span),
            Next::Wait => self.timers.set(NodeTimer::Task(id), task.deadline),
            Next::Unmoved => {}
        }
        self.tasks.running.insert(id, task);
    }

    /// A task's pause is over, or its time.
    pub(super) fn task_due(&mut self, now: Now, id: u64) {
        let Some(task) = self.tasks.running.get(&id) else { return };
        if now.mono < task.deadline {
            self.wake(now, id, Wake::Go);
            return;
        }
        if let Some(mut task) = self.tasks.running.remove(&id) {
            let failure = match &mut task.kind {
                Kind::Operate(task) => task.timed_out(&self.missing_for(task)),
                Kind::Stale(_) => StaleTask::timed_out(),
                Kind::List(list) => list.timed_out(),
                Kind::Recover(recover) => recover.timed_out(),
                Kind::Watch(watch) => {
                    self.abandon_reads(watch);
                    watch.timed_out()
                }
                Kind::Walk(_) | Kind::Trace(_) | Kind::Follow(_) | Kind::Feed(_) => {
                    Failure::Timeout { maybe_applied: false }
                }
            };
            self.forget_calls(id);
            self.deliver(now, task.whose, UserReply::Failed(failure));
        }
    }

    /// Tells one task of another that it has started, if that is done.
    pub(super) fn tell_ended(&mut self, now: Now) -> bool {
        let ended = self.tasks.ended.pop_front();
        let is_any = ended.is_some();
        if let Some((id, part, reply)) = ended {
            self.wake(now, id, Wake::Ended { part, reply });
        }
        is_any
    }

    /// Sends a call for a task. Its reply, or the lack of one, wakes the task.
    pub(super) fn call(&mut self, task: u64, to: Contact, call: Call) -> u64 {
        self.tasks.next += 1;
        let request = self.tasks.next;
        self.tasks.calls.insert(request, (task, to));
        self.tasks.calls_to.insert((to.incarnation, request));
        self.tasks.calls_of.insert((task, request));
        self.outputs.push_back(Output::Send { to, message: Message::Call { request, call } });
        request
    }

    fn take_call(&mut self, request: u64) -> Option<(u64, Contact)> {
        let (task, to) = self.tasks.calls.remove(&request)?;
        self.tasks.calls_to.remove(&(to.incarnation, request));
        self.tasks.calls_of.remove(&(task, request));
        Some((task, to))
    }

    fn forget_calls(&mut self, task: u64) {
        let calls: Vec<_> = self.tasks.calls_of.range((task, 0)..=(task, u64::MAX)).copied().collect();
        for (_, request) in calls {
            self.take_call(request);
        }
    }

    pub(super) fn on_reply(&mut self, now: Now, from: Contact, request: u64, reply: Reply) {
        if self.tasks.calls.get(&request).is_none_or(|(_, to)| to.incarnation != from.incarnation) {
            return;
        }
        if let Some((task, _)) = self.take_call(request) {
            self.wake(now, task, Wake::Reply { request, from, reply });
        }
    }

    pub(super) fn on_undelivered(&mut self, now: Now, request: u64) {
        if let Some((task, to)) = self.take_call(request) {
            self.wake(now, task, Wake::Undelivered { request, to });
        }
    }

    /// Every call to that peer will stay without a reply.
    pub(super) fn lose_calls_to(&mut self, now: Now, peer: Incarnation) {
        for request in self.calls_to(peer) {
            self.lose_call(now, request);
        }
    }

    /// That peer said goodbye: what it has not answered it has not done.
    pub(super) fn return_calls_to(&mut self, now: Now, peer: Incarnation) {
        for request in self.calls_to(peer) {
            self.on_undelivered(now, request);
        }
    }

    fn calls_to(&self, peer: Incarnation) -> Vec<u64> {
        self.tasks.calls_to.range((peer, 0)..=(peer, u64::MAX)).map(|(_, request)| *request).collect()
    }

    /// A task gives up on one call of its own.
    pub(super) fn drop_call(&mut self, request: u64) {
        self.take_call(request);
    }

    fn lose_call(&mut self, now: Now, request: u64) {
        if let Some((task, to)) = self.take_call(request) {
            self.wake(now, task, Wake::Lost { request, to });
        }
    }

    /// A pause of about that length, so that those who wait for the same do not come back together.
    pub(super) fn pause(&mut self, about: Span) -> Next {
        Next::Pause(about + Span(self.rng.below(about.0)))
    }

    pub(super) fn tasks_running(&self) -> usize {
        self.tasks.running.len()
    }

    fn deliver(&mut self, now: Now, whose: Whose, reply: UserReply) {
        match whose {
            Whose::User(token) => self.outputs.push_back(Output::Reply { token, reply }),
            // Whoever started it may just be running.
            Whose::Task(id, part) => self.tasks.ended.push_back((id, part, reply)),
            Whose::Peer { to, request } => {
                let watched = if let UserReply::Watched(watched) = reply { Some(Box::new(watched)) } else { None };
                self.reply(to, request, Reply::Watched(watched));
            }
            Whose::Feed(feed) => self.on_feed_listed(now, feed, &reply),
            Whose::Watching => self.on_followed(now, &reply),
            Whose::Nobody => {}
        }
    }
}
