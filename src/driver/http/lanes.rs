//! The private connections: opened one at a time, handed out, opened again when lost. A few at first, more when requests
//! wait for one: each is a thread of `tiny_http`.
//!
//! `tiny_http` gives a connection to a thread that it believes idle; two at once may meet the same thread, and one of
//! them is then never read. So each is opened only after the one before has answered a first round trip.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

use mio::{Interest, Registry, Token};
use tracing::{debug, warn};

use super::conn::{Readiness, Request};
use super::env::Env;
use super::lane::{Job, Lane, LaneProgress, Outcome};
use super::limits::{PROBE_TIMEOUT, REOPEN_PAUSE};
use super::slots::Key;

/// A job that has come to its end; `None` for an outcome that never came.
pub(super) type Done = (Job, Option<Outcome>);

struct Slot {
    generation: usize,
    lane: Option<Lane>,
}

/// See the module.
pub(super) struct Lanes {
    path: PathBuf,
    slots: Vec<Slot>,
    idle: Vec<usize>,
    closed: VecDeque<usize>,
    /// So many are to be open.
    wanted: usize,
    /// The one whose first round trip is under way.
    opening: Option<usize>,
    /// Until when that round trip may take or, with none under way, when the next one is tried.
    timer: Option<Instant>,
}

/// So many are open before any request has had to wait.
const WANTED_AT_FIRST: usize = 4;

impl Lanes {
    pub(super) fn new(path: PathBuf, count: usize, now: Instant) -> Self {
        Lanes {
            path,
            slots: (0..count).map(|_| Slot { generation: 0, lane: None }).collect(),
            idle: Vec::new(),
            closed: (0..count).collect(),
            wanted: WANTED_AT_FIRST.min(count),
            opening: None,
            timer: Some(now),
        }
    }

    pub(super) fn has_idle(&self) -> bool {
        !self.idle.is_empty()
    }

    /// A request waits: opens one more, unless one is being opened.
    pub(super) fn grow(&mut self, env: &Env) {
        if self.opening.is_none() && self.timer.is_none() && !self.closed.is_empty() {
            self.wanted = self.wanted.max(self.open() + 1);
            self.timer = Some(env.now);
        }
    }

    fn open(&self) -> usize {
        self.slots.len() - self.closed.len()
    }

    /// When [`Lanes::on_timer`] is due.
    pub(super) fn timer(&self) -> Option<Instant> {
        self.timer
    }

    /// Opens the next one, or gives up on the one that is being opened.
    pub(super) fn on_timer(&mut self, registry: &Registry, env: &mut Env) {
        if self.timer.is_none_or(|at| at > env.now) {
            return;
        }
        self.timer = None;
        match self.opening {
            Some(index) => {
                warn!("tiny_http did not answer on a fresh private connection");
                self.retire(index, env);
            }
            None if self.open() < self.wanted => self.open_next(registry, env),
            None => {}
        }
    }

    /// Sends a request over an idle one. There must be one.
    pub(super) fn begin(&mut self, job: Job, request: Request, env: &mut Env) -> Option<Done> {
        let Some(index) = self.idle.pop() else {
            return Some((job, None));
        };
        let Some(lane) = self.slots[index].lane.as_mut() else {
            return Some((job, None));
        };
        let progress = lane.begin(job, request, env);
        self.settle(index, progress, env)
    }

    /// Handles readiness of the one that `key` names; a stale key does nothing.
    pub(super) fn on_event(&mut self, key: Key, news: Readiness, env: &mut Env) -> Option<Done> {
        let index = key.index();
        let slot = self.slots.get_mut(index).filter(|slot| Key::lane(index, slot.generation) == key)?;
        let lane = slot.lane.as_mut()?;
        lane.on_event(news);
        let progress = lane.advance(env);
        self.settle(index, progress, env)
    }

    /// Closes all, because `tiny_http` was built anew at `path`. Gives the jobs that were in flight.
    pub(super) fn move_to(&mut self, path: PathBuf, env: &mut Env) -> Vec<Done> {
        self.path = path;
        let open: Vec<usize> = (0..self.slots.len()).filter(|&index| self.slots[index].lane.is_some()).collect();
        let mut lost = Vec::new();
        for index in open {
            let job = self.slots[index].lane.as_ref().and_then(Lane::job);
            self.retire(index, env);
            lost.extend(job.filter(|job| job.client.is_some()).map(|job| (job, None)));
        }
        self.timer = Some(env.now);
        lost
    }

    fn settle(&mut self, index: usize, progress: LaneProgress, env: &mut Env) -> Option<Done> {
        match progress {
            LaneProgress::Blocked => None,
            LaneProgress::Done(job, outcome) => {
                let ended = self.slots[index].lane.as_ref().is_none_or(Lane::has_ended);
                if ended {
                    self.retire(index, env);
                } else {
                    self.idle.push(index);
                }
                if self.opening == Some(index) {
                    self.opening = None;
                    self.timer = (self.open() < self.wanted).then_some(env.now);
                }
                job.client.is_some().then_some((job, Some(outcome)))
            }
            LaneProgress::Broken(job) => {
                debug!("a private connection to tiny_http was lost");
                self.retire(index, env);
                job.filter(|job| job.client.is_some()).map(|job| (job, None))
            }
        }
    }

    /// Closes one and sees to it that it is opened again.
    fn retire(&mut self, index: usize, env: &mut Env) {
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        if let Some(mut lane) = slot.lane.take() {
            lane.release(env);
            self.closed.push_back(index);
        }
        self.idle.retain(|&idle| idle != index);
        if self.opening == Some(index) {
            self.opening = None;
            self.timer = None;
        }
        if self.opening.is_none() {
            self.timer = self.timer.or(Some(env.now + REOPEN_PAUSE));
        }
    }

    fn open_next(&mut self, registry: &Registry, env: &mut Env) {
        let Some(index) = self.closed.pop_front() else {
            return;
        };
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        let token = Token(Key::lane(index, slot.generation).0);
        let opened = check_descriptors().and_then(|()| Lane::open(&self.path)).and_then(|mut lane| {
            registry.register(lane.source(), token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(lane)
        });
        match opened {
            Ok(lane) => {
                slot.lane = Some(lane);
                self.opening = Some(index);
                self.timer = Some(env.now + PROBE_TIMEOUT);
            }
            Err(error) => {
                if env.told[1].is_due(env.now) {
                    warn!(%error, "a private connection to tiny_http could not be opened");
                }
                self.closed.push_back(index);
                self.timer = Some(env.now + REOPEN_PAUSE);
            }
        }
    }
}

/// `tiny_http` panics or ends accepting when it gets no descriptor for its two ends, so see first that there are some.
fn check_descriptors() -> std::io::Result<()> {
    let _first = UnixStream::pair()?;
    let _second = UnixStream::pair()?;
    Ok(())
}
