//! What hosts keep their records on. All work that waits is done in one go, which takes a while; what is under way when a
//! process ends was done whole or not at all, and nobody was told. Bits may flip.

use std::collections::{BTreeSet, VecDeque};

use super::world::{Happening, HostId, World};
use super::worn::Worn;
use crate::base::Span;
use crate::data::{Key, MemoryStore, Place, Record, Store, Work, carry_out, gauge};
use crate::node::{Input, RingParams};

/// What disks are like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskConfig {
    /// How long a commit, or reading something, takes at most; zero: it is done at once, as in memory.
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
    // To be done, in order, and how many of them by the commit that is under way.
    waiting: VecDeque<(u64, Work)>,
    under_way: usize,
    // Whose bits have flipped.
    flipped: BTreeSet<Place>,
}

impl World {
    /// A node knows its ring: from now on it has something to keep.
    pub(super) fn open_disk(&mut self, host: HostId, params: &RingParams) {
        let of = self.host_mut(host);
        if of.disk.as_ref().is_none_or(|disk| disk.ring != params.ring) {
            let (store, waiting) = (MemoryStore::new(params.space), VecDeque::new());
            let disk = Disk { ring: params.ring, store, waiting, under_way: 0, flipped: BTreeSet::new() };
            of.disk = Some(Box::new(disk));
        }
    }

    /// A process is over: so is what it asked for and was not done.
    pub(super) fn close_disk(&mut self, host: HostId) {
        let durable = self.config.disk.durable;
        let got_there = durable && self.disk_rng.chance(500);
        let of = self.host_mut(host);
        match &mut of.disk {
            Some(disk) if durable => {
                let under_way: Vec<(u64, Work)> = disk.waiting.drain(..disk.under_way).collect();
                for (_, work) in under_way.into_iter().filter(|_| got_there) {
                    disk.carry_out(work);
                }
                disk.waiting.clear();
                disk.under_way = 0;
            }
            _ => of.disk = None,
        }
    }

    pub(super) fn ask_disk(&mut self, host: HostId, job: u64, work: Work) {
        let (now, work_max) = (self.now, self.config.disk.work_max);
        if work_max == Span::ZERO {
            self.do_work(host, job, work);
            return;
        }
        let life = self.host(host).life;
        if work.is_read() {
            let takes = Span(1 + self.disk_rng.below(work_max.0));
            self.schedule(now + takes, Happening::Worked { host, life, read: Some(Box::new((job, work))) });
            return;
        }
        if let Some(disk) = &mut self.host_mut(host).disk {
            disk.waiting.push_back((job, work));
            self.begin_commit(host);
        }
    }

    /// Begins to commit all that waits, unless a commit is under way.
    fn begin_commit(&mut self, host: HostId) {
        let takes = Span(1 + self.disk_rng.below(self.config.disk.work_max.0));
        let of = self.host_mut(host);
        let life = of.life;
        let idle = |disk: &&mut Box<Disk>| disk.under_way == 0 && !disk.waiting.is_empty();
        if let Some(disk) = of.disk.as_mut().filter(idle) {
            disk.under_way = disk.waiting.len();
            self.schedule(self.now + takes, Happening::Worked { host, life, read: None });
        }
    }

    /// A commit is done, or this reading.
    pub(super) fn worked(&mut self, host: HostId, read: Option<Box<(u64, Work)>>) {
        if let Some(read) = read {
            self.do_work(host, read.0, read.1);
            return;
        }
        let Some(disk) = &mut self.host_mut(host).disk else { return };
        let done: Vec<(u64, Work)> = disk.waiting.drain(..std::mem::take(&mut disk.under_way)).collect();
        for (job, work) in done {
            self.do_work(host, job, work);
        }
        self.begin_commit(host);
    }

    fn do_work(&mut self, host: HostId, job: u64, work: Work) {
        let Some(disk) = &mut self.host_mut(host).disk else { return };
        let done = disk.carry_out(work);
        let gauge = Some(gauge(&disk.store));
        self.with_node(host, |node, now| node.handle_input(now, Input::Stored { job, done, gauge }));
    }

    /// Rows on the disks of all hosts: records, and what removals have left behind.
    pub fn rows(&self) -> usize {
        self.hosts.iter().filter_map(|host| host.disk.as_ref()).map(|disk| disk.store.rows()).sum()
    }

    /// The records on a host's disk, in the order of slots and keys.
    pub fn records(&self, host: HostId) -> Vec<(Key, Record)> {
        let Some(disk) = &self.host(host).disk else { return Vec::new() };
        let scan = |slot| disk.store.scan(slot, None, usize::MAX).into_iter().flat_map(|chunk| chunk.entries);
        let all = disk.store.space().all_slots().flat_map(scan);
        all.filter_map(|(key, register)| Some((key, register.record()?.clone()))).collect()
    }

    /// Records of all hosts that are not as they were written.
    pub fn damaged(&self) -> usize {
        self.hosts.iter().filter_map(|host| host.disk.as_ref()).map(|disk| disk.flipped.len()).sum()
    }

    /// A bit flips in one of a host's records. `None`: it has none.
    pub fn flip_bit(&mut self, host: HostId) -> Option<Key> {
        let dice = self.rng().below(1 << 32);
        let disk = self.host_mut(host).disk.as_mut()?;
        let space = disk.store.space();
        let all: Vec<Place> = space
            .all_slots()
            .flat_map(|slot| disk.store.scan(slot, None, usize::MAX).into_iter().flat_map(|chunk| chunk.entries))
            .map(|(key, _)| space.place(key))
            .collect();
        let place = all.get(usize::try_from(dice).ok()? % all.len().max(1))?.clone();
        let key = place.key.clone();
        disk.flipped.insert(place);
        Some(key)
    }
}

impl Disk {
    fn carry_out(&mut self, work: Work) -> crate::data::Done {
        carry_out(work, &mut Worn { store: &mut self.store, flipped: &mut self.flipped })
    }
}
