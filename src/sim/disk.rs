//! What hosts keep their records on. Work is done in turn and takes a while; what is under way when a process ends was
//! never done.

use std::collections::VecDeque;

use super::world::{Happening, HostId, World};
use crate::base::{Span, Time};
use crate::data::{MemoryStore, Work, carry_out, gauge};
use crate::node::{Input, RingParams};

/// What disks are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskConfig {
    /// How long one piece of work takes at most; zero: it is done at once, as in memory.
    pub work_max: Span,
    /// What was done outlives the process.
    pub durable: bool,
}

/// One host's disk.
#[derive(Debug)]
pub(super) struct Disk {
    ring: u128,
    /// What is safe.
    pub store: MemoryStore,
    // To be done, in order.
    waiting: VecDeque<(u64, Work)>,
    free_at: Time,
}

impl World {
    /// A node knows its ring: from now on it has something to keep.
    pub(super) fn open_disk(&mut self, host: HostId, params: &RingParams) {
        let of = self.host_mut(host);
        if of.disk.as_ref().is_none_or(|disk| disk.ring != params.ring) {
            let (store, waiting) = (MemoryStore::new(params.space), VecDeque::new());
            of.disk = Some(Box::new(Disk { ring: params.ring, store, waiting, free_at: Time::default() }));
        }
    }

    /// A process is over: so is what it asked for and was not done.
    pub(super) fn close_disk(&mut self, host: HostId) {
        let durable = self.config.disk.durable;
        let of = self.host_mut(host);
        match &mut of.disk {
            Some(disk) if durable => disk.waiting.clear(),
            _ => of.disk = None,
        }
    }

    pub(super) fn ask_disk(&mut self, host: HostId, job: u64, work: Work) {
        let (now, work_max) = (self.now, self.config.disk.work_max);
        if work_max == Span::ZERO {
            self.do_work(host, job, work);
            return;
        }
        let takes = Span(1 + self.disk_rng.below(work_max.0));
        let of = self.host_mut(host);
        let life = of.life;
        let Some(disk) = &mut of.disk else { return };
        if work.is_read() {
            self.schedule(now + takes, Happening::Worked { host, life, read: Some(Box::new((job, work))) });
        } else {
            disk.waiting.push_back((job, work));
            disk.free_at = disk.free_at.max(now) + takes;
            let at = disk.free_at;
            self.schedule(at, Happening::Worked { host, life, read: None });
        }
    }

    /// The next piece of work of a disk, or this reading, is done.
    pub(super) fn worked(&mut self, host: HostId, read: Option<Box<(u64, Work)>>) {
        let next = || self.host_mut(host).disk.as_mut()?.waiting.pop_front();
        if let Some((job, work)) = read.map(|read| *read).or_else(next) {
            self.do_work(host, job, work);
        }
    }

    fn do_work(&mut self, host: HostId, job: u64, work: Work) {
        let Some(disk) = &mut self.host_mut(host).disk else { return };
        let done = carry_out(work, &mut disk.store);
        let gauge = Some(gauge(&disk.store));
        self.with_node(host, |node, now| node.handle_input(now, Input::Stored { job, done, gauge }));
    }
}
