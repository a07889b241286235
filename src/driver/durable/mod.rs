//! The durable store: a file, a thread that writes to it and one that reads.
//!
//! The file also says who this node is: its incarnation, its ring and members of it. It is made once the ring is known.

mod file;
mod kept;
mod rows;
mod single;
pub mod sqlite;
mod votes;
mod writer;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use mio::Waker;
use rusqlite::{Connection, InterruptHandle};
use tracing::debug;

use super::ring_key::Identity;
use super::settings::{Fsync, RunError};
use crate::base::{Contact, Incarnation};
use crate::data::{Gauge, KeySpace, Slot, Store, Trouble, Work, gauge};
use crate::node::{Input, Memory, RingParams};
use sqlite::{SqliteStore, Syncs};
use writer::{Answers, Budget, Job, Writer};

const FILE: &str = "store.db";
/// Names in the meta table.
const INCARNATION: &str = "incarnation";
const IDENTITY: &str = "identity";
const RING: &str = "ring";
const ADDRESS: &str = "address";
/// Counts the processes that this node has been.
const LIFE: &str = "life";
/// Commits of one process, at most: the next one counts on above them.
const COMMITS_BITS: u32 = 40;
/// Of each thread; virtual, what is not used costs nothing.
const STACK_BYTES: usize = 1_024 * 1_024;

/// A node's durable store.
pub(super) struct Durable {
    path: PathBuf,
    fsync: Fsync,
    bytes_max: Option<u64>,
    // Opened at the start, if there was one, and for which ring.
    // For a file that is made.
    drawn: Identity,
    opened: Option<(SqliteStore, RingParams)>,
    threads: Option<Threads>,
}

struct Threads {
    writes: Sender<Job>,
    reads: Sender<(u64, Work)>,
    answers: Receiver<Input>,
    counting: Option<InterruptHandle>,
    last: JoinHandle<()>,
    // The reader, and who counts.
    handles: Vec<JoinHandle<()>>,
}

/// What an earlier process of this node left.
#[derive(Debug)]
pub(super) struct Loaded {
    pub incarnation: Incarnation,
    /// Its own key; files of earlier versions have none.
    pub identity: Option<Identity>,
    /// Where it was.
    pub addr: Option<SocketAddr>,
    pub memory: Memory,
    pub views: Vec<(Slot, String)>,
    pub gauge: Gauge,
}

impl Durable {
    /// Looks what there is in the directory. `drawn` is who the node becomes if nothing is there.
    pub fn load(
        dir: &Path,
        fsync: Fsync,
        bytes_max: Option<u64>,
        drawn: Identity,
    ) -> Result<(Self, Option<Loaded>), RunError> {
        let path = dir.join(FILE);
        let mut durable = Self { path, fsync, bytes_max, drawn, opened: None, threads: None };
        if !durable.path.exists() {
            return Ok((durable, None));
        }
        let loaded = durable.open_there().map_err(|why| durable.unusable(&why))?;
        Ok((durable, loaded))
    }

    fn unusable(&self, why: &str) -> RunError {
        let path = self.path.display();
        RunError { message: format!("{path} cannot be used: {why}. Restore it, or name an empty --data-dir") }
    }

    fn open_there(&mut self) -> Result<Option<Loaded>, String> {
        let mut connection = sqlite::open(&self.path, self.syncs())?;
        let meta = |name| SqliteStore::meta(&connection, name).map_err(said);
        // Neither is there if the process ended before it was written: then nothing else is.
        let (Some(incarnation), Some(ring)) = (meta(INCARNATION)?, meta(RING)?) else {
            let has_records = rows::has_records(&connection).map_err(said)?;
            let why = "it has records and does not say of which node and ring they are";
            return if has_records { Err(why.to_owned()) } else { Ok(None) };
        };
        let incarnation = Incarnation(kept::hex(&incarnation)?);
        let identity = meta(IDENTITY)?.map(|text| Identity::from_text(&text).ok_or("the node's key is damaged"));
        let identity = identity.transpose()?;
        if identity.as_ref().is_some_and(|identity| identity.incarnation() != incarnation) {
            return Err("the node's key is not that of the node".to_owned());
        }
        let addr = meta(ADDRESS)?.and_then(|addr| addr.parse().ok());
        let memory = kept::read(&ring)?;
        // Whoever finds itself at another place than written down moves there.
        let somewhere = addr.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
        let me = Contact::new(memory.params.space.capacity(), somewhere, incarnation);
        single::take_over(&mut connection, me).map_err(|error| error.to_string())?;
        let store = SqliteStore::new(connection, memory.params.space).map_err(said)?;
        let views = store.kept().map_err(said)?;
        let gauge = gauge(&store);
        self.opened = Some((store, memory.params));
        Ok(Some(Loaded { incarnation, identity, addr, memory, views, gauge }))
    }

    fn syncs(&self) -> Syncs {
        match self.fsync {
            Fsync::Always => Syncs::EachCommit,
            // Also where values need not be safe: views always are.
            Fsync::Interval(_) | Fsync::Never => Syncs::Told,
        }
    }

    /// The ring is known: takes what there is, or makes a new file, and starts to work.
    pub fn start(
        &mut self,
        params: &RingParams,
        me: (Incarnation, SocketAddr),
        waker: &Arc<Waker>,
    ) -> Result<(), RunError> {
        let mut store = match self.opened.take() {
            Some((store, of)) if of.ring == params.ring => store,
            Some((_, of)) => {
                let why = format!("it belongs to the ring {:032x}, and this is {:032x}", of.ring, params.ring);
                return Err(self.unusable(&why));
            }
            None => self.create(params).map_err(|why| self.unusable(&why))?,
        };
        let life = begin_life(&mut store, me.1).map_err(|trouble| self.unusable(&said(trouble)))?;
        self.start_threads(store, params.space, life << COMMITS_BITS, waker).map_err(|why| self.unusable(&why))
    }

    fn create(&self, params: &RingParams) -> Result<SqliteStore, String> {
        self.remove_files().map_err(|error| error.to_string())?;
        let connection = sqlite::open(&self.path, self.syncs())?;
        let write = |connection: &Connection| -> Result<(), Trouble> {
            SqliteStore::set_meta(connection, INCARNATION, &self.drawn.incarnation().to_string())?;
            SqliteStore::set_meta(connection, IDENTITY, &self.drawn.to_text())?;
            SqliteStore::set_meta(connection, RING, &kept::write(&Memory { params: *params, contacts: Vec::new() }))
        };
        write(&connection).map_err(said)?;
        // Who this node is must not depend on a log that may be damaged.
        file::checkpoint(&connection)?;
        sync_dir(&self.path).map_err(|error| error.to_string())?;
        SqliteStore::new(connection, params.space).map_err(said)
    }

    fn start_threads(
        &mut self,
        store: SqliteStore,
        space: KeySpace,
        latest: u64,
        waker: &Arc<Waker>,
    ) -> Result<(), String> {
        let reader = || Ok::<_, String>(SqliteStore::uncounted(file::open_reader(&self.path)?, space));
        let counter = if store.must_be_told().map_err(said)? { Some(reader()?) } else { None };
        // Before anything is written.
        counter.as_ref().map_or(Ok(()), SqliteStore::hold_still).map_err(said)?;
        let reader = reader()?;
        let (writes, to_write) = unbounded();
        let (reads, to_read) = unbounded();
        let (sender, answers) = unbounded();
        let to = || Answers { sender: sender.clone(), waker: Arc::clone(waker) };
        let dir = self.path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        let budget = Budget { bytes_max: self.bytes_max, dir };
        let log = || Some(beside(&self.path, "-wal"));
        let sync = match self.fsync {
            Fsync::Always => (None, None),
            Fsync::Interval(interval) => (log(), Some(interval)),
            Fsync::Never => (log(), None),
        };
        let committer = Writer::new(store, budget, to(), sync, latest);
        let read_to = to();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(work).map_err(|error| error.to_string())
        };
        let (mut handles, mut counting) = (Vec::new(), None);
        if let Some(counter) = counter {
            counting = Some(counter.interrupt_handle());
            let tell = writes.clone();
            handles.push(spawn("store-counter", Box::new(move || count(&counter, &tell)))?);
        }
        handles.push(spawn("store-reader", Box::new(move || writer::read(reader, &read_to, &to_read)))?);
        let last = spawn("store-writer", Box::new(move || committer.run(&to_write)))?;
        self.threads = Some(Threads { writes, reads, answers, counting, last, handles });
        Ok(())
    }

    /// Does this soon; [`Durable::poll`] gives the answer.
    pub fn ask(&self, job: u64, work: Work) {
        let Some(threads) = &self.threads else { return };
        // Both fail only once the threads are gone, and they go last.
        if work.is_read() {
            let _ = threads.reads.send((job, work));
        } else {
            let _ = threads.writes.send(Job::Work { job, work });
        }
    }

    /// Keeps what the node knows of its ring.
    pub fn remember(&self, memory: &Memory) {
        if let Some(threads) = &self.threads {
            let _ = threads.writes.send(Job::Remember { name: RING, value: kept::write(memory) });
        }
    }

    /// The next answer.
    pub fn poll(&self) -> Option<Input> {
        self.threads.as_ref()?.answers.try_recv().ok()
    }

    /// The node has left its ring, and is nobody any more.
    pub fn forget(&mut self) -> io::Result<()> {
        self.stop();
        self.opened = None;
        self.remove_files()
    }

    fn remove_files(&self) -> io::Result<()> {
        for path in [self.path.clone(), beside(&self.path, "-wal"), beside(&self.path, "-shm")] {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Waits until everything is done.
    fn stop(&mut self) {
        if let Some(Threads { writes, reads, counting, handles, last, .. }) = self.threads.take() {
            // Its number is not worth waiting for.
            counting.iter().for_each(InterruptHandle::interrupt);
            // The writer last: the last connection that is closed puts the log where it belongs, if it may write.
            drop(reads);
            for handle in handles {
                drop(handle.join());
            }
            drop(writes);
            drop(last.join());
        }
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Writes down that a process begins, and where it is; gives its number, from 1 on.
fn begin_life(store: &mut SqliteStore, addr: SocketAddr) -> Result<u64, Trouble> {
    let life = store.recall(LIFE)?.and_then(|life| life.parse::<u64>().ok()).unwrap_or(0) + 1;
    store.begin()?;
    store.remember(LIFE, &life.to_string())?;
    store.remember(ADDRESS, &addr.to_string())?;
    store.commit()?;
    Ok(life)
}

fn count(counter: &SqliteStore, tell: &Sender<Job>) {
    match counter.count_all() {
        // Fails only once the writer is gone.
        Ok(there) => drop(tell.send(Job::Counted(there))),
        // Or it was interrupted.
        Err(trouble) => debug!("the keys are not counted: {trouble}"),
    }
}

#[allow(clippy::needless_pass_by_value)] // For map_err.
fn said(trouble: Trouble) -> String {
    trouble.to_string()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A new file is there after a power cut only if its directory is safe.
fn sync_dir(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}
