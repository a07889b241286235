//! The threads that do the store's work: one writes, one reads.
//!
//! All writes that wait go into one commit, and nothing is answered before it. Reads have a connection of their own and
//! never wait for a commit.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use mio::Waker;
use tracing::{error, info, warn};

use super::sqlite::SqliteStore;
use crate::data::{Done, Gauge, Trouble, Usage, Work, carry_out, gauge};
use crate::node::Input;

/// Something for the writer.
#[derive(Debug)]
pub(super) enum Job {
    /// Do this and answer.
    Work { job: u64, work: Work },
    /// So much was in the store when this process began.
    Counted(Usage),
    /// Keep this under that name of the meta table.
    Remember { name: &'static str, value: String },
}

/// How much may be stored.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// Bytes of the file, as the operator allows.
    pub bytes_max: Option<u64>,
    /// Where the file is.
    pub dir: PathBuf,
}

/// Jobs and bytes of values in one commit.
const GROUP_JOBS_MAX: usize = 512;
const GROUP_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// So many views at once are those of a new ring.
const CHECKPOINT_ROWS: usize = 256;
/// Left free on the device, for removals and for the log that they go through.
const RESERVE_BYTES: u64 = 2 * 1_024 * 1_024;

/// Where answers go.
pub(super) struct Answers {
    pub sender: Sender<Input>,
    pub waker: Arc<Waker>,
}

impl Answers {
    fn give(&self, inputs: impl IntoIterator<Item = Input>) {
        for input in inputs {
            // Fails only once the loop is gone.
            let _ = self.sender.send(input);
        }
        let _ = self.waker.wake();
    }
}

/// The one who writes.
pub(super) struct Writer {
    pub store: SqliteStore,
    pub budget: Budget,
    pub answers: Answers,
    /// The log, where commits do not see to it that they are safe.
    pub log: Option<PathBuf>,
    /// How often it is made safe then; `None`: only when views were written down.
    pub interval: Option<Duration>,
    /// The number of the latest commit.
    pub latest: u64,
    // Since when something is in the log that need not be safe.
    unsafe_since: Option<Instant>,
    // Said once, not for every write.
    in_trouble: bool,
    is_full: bool,
}

impl Writer {
    /// `latest`: above the numbers of all commits of earlier processes.
    pub fn new(
        store: SqliteStore,
        budget: Budget,
        answers: Answers,
        (log, interval): (Option<PathBuf>, Option<Duration>),
        latest: u64,
    ) -> Self {
        Self { store, budget, answers, log, interval, latest, unsafe_since: None, in_trouble: false, is_full: false }
    }

    /// Works until nobody can ask any more.
    pub fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let first = match self.wait() {
                Some(wait) => jobs.recv_timeout(wait),
                None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match first {
                Ok(first) => self.commit(group(first, jobs)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.wait() == Some(Duration::ZERO) {
                self.sync();
            }
        }
        self.sync();
    }

    fn wait(&self) -> Option<Duration> {
        Some(self.interval?.saturating_sub(self.unsafe_since?.elapsed()))
    }

    fn sync(&mut self) {
        if let Some(log) = self.log.as_ref().filter(|_| self.unsafe_since.is_some())
            && let Err(error) = File::open(log).and_then(|file| file.sync_data())
        {
            warn!("{} cannot be synced: {error}", log.display());
        }
        self.unsafe_since = None;
    }

    /// What is said of views rests on what is written down of them, however safe values are to be. Those of a new ring must
    /// not depend on a log that may be damaged.
    fn secure_views(&mut self, group: &[Job]) {
        let rows = |job: &Job| if let Job::Work { work: Work::Keep(rows), .. } = job { rows.len() } else { 0 };
        let most = group.iter().map(rows).max().unwrap_or(0);
        if most > 0 && self.log.is_some() {
            self.sync();
        }
        if most >= CHECKPOINT_ROWS
            && let Err(why) = self.store.checkpoint()
        {
            warn!("the log cannot be put where it belongs: {why}");
        }
    }

    fn commit(&mut self, group: Vec<Job>) {
        let before = self.store.mark();
        match self.try_commit(&group) {
            Ok((done, room)) => {
                if std::mem::take(&mut self.in_trouble) {
                    info!("the store works again");
                }
                if self.log.is_some() {
                    self.unsafe_since.get_or_insert_with(Instant::now);
                }
                self.secure_views(&group);
                self.answer(&group, done, Some(room));
            }
            Err(trouble) => {
                self.store.roll_back(before);
                if group.len() > 1 {
                    // One may be to blame for it all.
                    for job in group {
                        self.commit(vec![job]);
                    }
                    return;
                }
                if !std::mem::replace(&mut self.in_trouble, true) {
                    error!("nothing can be written: {trouble}");
                }
                self.answer(&group, vec![Done::Failed(trouble)], None);
            }
        }
    }

    fn try_commit(&mut self, group: &[Job]) -> Result<(Vec<Done>, Room), Trouble> {
        let mut room = self.budget.room(&self.store);
        self.store.begin()?;
        let mut all = Vec::with_capacity(group.len());
        for job in group {
            let work = match job {
                Job::Work { work, .. } => work,
                Job::Counted(there) => {
                    self.store.told(*there);
                    all.push(Done::Changed);
                    continue;
                }
                Job::Remember { name, value } => {
                    self.store.remember(name, value)?;
                    all.push(Done::Changed);
                    continue;
                }
            };
            let done = room.take(work).map_or_else(Done::Failed, |()| carry_out(work.clone(), &mut self.store));
            match done {
                // Nothing was done for these, so the others need not suffer.
                Done::Failed(Trouble::Damaged(_)) if matches!(work, Work::Vote(_)) => {
                    all.push(done);
                }
                Done::Failed(_) if room.refused => all.push(done),
                Done::Failed(trouble) => return Err(trouble),
                done => all.push(done),
            }
        }
        self.store.commit()?;
        self.latest += 1;
        Ok((all, room))
    }

    fn answer(&mut self, group: &[Job], done: Vec<Done>, left: Option<Room>) {
        // What is left goes by what was asked for: before a word is said of it, it is looked at again.
        let room =
            left.filter(|room| !self.is_full && !room.is_full()).unwrap_or_else(|| self.budget.room(&self.store));
        if self.is_full != room.is_full() {
            self.is_full = room.is_full();
            if self.is_full {
                warn!("the store is full, only removals are taken: {}", room.why());
            } else {
                info!("there is room in the store again");
            }
        }
        let gauge = Gauge { is_full: self.is_full, commit: self.latest, ..gauge(&self.store) };
        let answer = |(job, done): (&Job, Done)| match job {
            Job::Work { job, .. } => Some(Input::Stored { job: *job, done, gauge: Some(gauge) }),
            Job::Remember { .. } | Job::Counted(_) => None,
        };
        self.answers.give(group.iter().zip(done).filter_map(answer));
    }
}

/// The first and what waits behind it, as far as one commit goes.
fn group(first: Job, jobs: &Receiver<Job>) -> Vec<Job> {
    let mut bytes = size(&first);
    let mut group = vec![first];
    while group.len() < GROUP_JOBS_MAX && bytes < GROUP_BYTES_MAX {
        let Ok(job) = jobs.try_recv() else { break };
        bytes += size(&job);
        group.push(job);
    }
    group
}

fn size(job: &Job) -> usize {
    match job {
        Job::Work { work, .. } => added(work),
        Job::Remember { value, .. } => value.len(),
        Job::Counted(_) => 0,
    }
}

/// User bytes that a piece of work may add.
fn added(work: &Work) -> usize {
    match work {
        Work::Vote(vote) => vote.added_bytes(),
        Work::Copy { entries, .. } => {
            entries.iter().map(|(key, accepted)| key.as_bytes().len() + accepted.user_bytes()).sum()
        }
        _ => 0,
    }
}

// ----- room -----

/// What may be added before somebody has to remove something.
struct Room {
    // By the operator's word, and on the device.
    allowed: u64,
    free: u64,
    bytes_max: Option<u64>,
    /// The latest piece of work was refused.
    refused: bool,
}

/// With less room than this a store counts as full; of a small budget, a part of it.
const FULL_BELOW: u64 = 64 * 1_024;

impl Budget {
    fn room(&self, store: &SqliteStore) -> Room {
        let (used, reusable) = store.file_bytes().unwrap_or((0, 0));
        let allowed = self.bytes_max.map_or(u64::MAX, |bytes_max| bytes_max.saturating_sub(used));
        let free = rustix::fs::statvfs(&self.dir).map_or(u64::MAX, |fs| fs.f_bavail.saturating_mul(fs.f_frsize));
        // What was removed leaves room in the file; the log has its own already, or takes it of what is kept free.
        let free = free.saturating_add(reusable).saturating_sub(RESERVE_BYTES);
        Room { allowed, free, bytes_max: self.bytes_max, refused: false }
    }
}

impl Room {
    /// Takes room for a piece of work, if it needs any.
    fn take(&mut self, work: &Work) -> Result<(), Trouble> {
        let added = added(work) as u64;
        // On the device it stands in the log first, and then where it belongs.
        self.refused = added > 0 && (added > self.allowed || added.saturating_mul(2) > self.free);
        if self.refused {
            return Err(Trouble::Full(self.why()));
        }
        self.allowed -= added;
        self.free -= added.saturating_mul(2);
        Ok(())
    }

    fn is_full(&self) -> bool {
        let below = self.bytes_max.map_or(FULL_BELOW, |bytes| FULL_BELOW.min(bytes / 16));
        self.allowed < below || self.free < below
    }

    fn why(&self) -> String {
        match self.bytes_max {
            Some(bytes_max) if self.allowed <= self.free => {
                format!("this node's budget of {bytes_max} bytes (--max-bytes) is used up")
            }
            _ => format!("the disk is almost full, and {RESERVE_BYTES} bytes are kept for removals"),
        }
    }
}

/// Answers what only reads, until nobody can ask any more.
pub(super) fn read(mut store: SqliteStore, answers: &Answers, jobs: &Receiver<(u64, Work)>) {
    while let Ok(first) = jobs.recv() {
        let all: Vec<(u64, Work)> = std::iter::once(first).chain(jobs.try_iter().take(GROUP_JOBS_MAX)).collect();
        // Those that were asked are read as of one moment after that: to begin and end each alone costs as much as to read.
        let together = all.len() > 1;
        if together && store.hold_still().is_err() {
            store.let_go();
        }
        let answer = |(job, work)| Input::Stored { job, done: carry_out(work, &mut store), gauge: None };
        let done: Vec<Input> = all.into_iter().map(answer).collect();
        if together {
            store.let_go();
        }
        answers.give(done);
    }
}
