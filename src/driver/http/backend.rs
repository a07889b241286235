//! `tiny_http` behind the gate, on a Unix socket in a directory of its own: one thread takes requests, one gives answers.
//!
//! Only the gate can reach the socket, so requests here are canonical, bounded and whole. It does not decide anything
//! about them; what it checks once more, it checks because the cost of being wrong is the process.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Cursor, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, fstat, lstat, open};
use rustix::io::Errno;
use rustix::process::geteuid;
use tiny_http::{Header, Request, Response, Server, StatusCode};
use tracing::{debug, error, warn};

use super::gate::Control;
use super::head::Kind;
use super::lane::PROBE_FIELD;
use super::limits::REOPEN_PAUSE;
use super::refusal;
use super::{HttpRequest, HttpResponse, Ticket};

/// Longest path that fits a Unix socket's address on every system, with room for the file's name.
const SOCKET_DIR_MAX: usize = 80;
/// Names tried before giving up on a fresh directory.
const DIR_ATTEMPTS: usize = 16;

/// Directories of others looked at in one start.
const ORPHANS_MAX: usize = 4_096;

/// What the answering thread is told.
pub(super) enum Work {
    /// A request waits under this ticket.
    Asked(Ticket, Request),
    /// Its answer.
    Answer(Ticket, HttpResponse),
    /// End.
    Stop,
}

/// A fresh directory that only this user may enter; removed when dropped. It is locked for as long, so that whoever finds
/// it unlocked knows that its process was killed.
pub(super) struct SocketDir {
    path: PathBuf,
    _lock: OwnedFd,
}

impl SocketDir {
    pub(super) fn create() -> io::Result<Self> {
        let temp = std::env::temp_dir();
        let fits = temp.as_os_str().len() <= SOCKET_DIR_MAX / 2;
        Self::create_in(if fits { &temp } else { Path::new("/tmp") })
    }

    fn create_in(temp: &Path) -> io::Result<Self> {
        remove_orphans(temp);
        let mut failure = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..DIR_ATTEMPTS {
            // Seeded by the system anew each time: enough to not be guessed and taken beforehand.
            let unique = RandomState::new().build_hasher().finish();
            let path = temp.join(format!("chordkv-{}-{unique:016x}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) => failure = error,
                Ok(()) => match lock(&path) {
                    Ok(held) => return Ok(SocketDir { path, _lock: held }),
                    // Another node that starts took it for an orphan, and was faster.
                    Err(error) => failure = error.into(),
                },
            }
        }
        let place = temp.display();
        let advice =
            format!("nothing can be made in {place} ({failure}): name a directory that can be used with TMPDIR");
        Err(io::Error::new(failure.kind(), advice))
    }

    pub(super) fn socket(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number}.sock"))
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            debug!(%error, path = %self.path.display(), "the socket directory could not be removed");
        }
    }
}

/// Removes directories of processes that were killed: those with such a name that are this user's, private and unlocked.
/// Nothing but sockets is removed with them.
fn remove_orphans(temp: &Path) {
    let Ok(entries) = std::fs::read_dir(temp) else { return };
    let ours = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_socket_dir));
    for path in ours.take(ORPHANS_MAX).map(|entry| entry.path()) {
        // The lock is held until the directory is gone.
        let Ok(_held) = lock(&path) else { continue };
        let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
        for socket in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket())) {
            let _ = std::fs::remove_file(socket.path());
        }
        let _ = std::fs::remove_dir(&path);
    }
}

/// Locks a private directory of this user; an error if it is another's, no directory, locked, or gone by then.
fn lock(dir: &Path) -> rustix::io::Result<OwnedFd> {
    let held = open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&held)?;
    if stat.st_uid != geteuid().as_raw() || stat.st_mode & 0o777 != 0o700 {
        return Err(Errno::PERM);
    }
    flock(&held, FlockOperation::NonBlockingLockExclusive)?;
    // Between the two, whoever held the lock may have removed it: the lock would be on what has no name any more.
    let named = lstat(dir)?;
    if (named.st_dev, named.st_ino) == (stat.st_dev, stat.st_ino) { Ok(held) } else { Err(Errno::NOENT) }
}

/// Whether a name is one that [`SocketDir::create`] gives.
fn is_socket_dir(name: &str) -> bool {
    let digits = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    let parts = name.strip_prefix("chordkv-").and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(process, unique)| digits(process, 10) && unique.len() == 16 && digits(unique, 16))
}

/// `tiny_http` and where it listens. Field order matters: the server removes its socket before the directory goes.
pub(super) struct Backend {
    server: Mutex<(Arc<Server>, u64)>,
    stopping: AtomicBool,
    dir: SocketDir,
}

impl Backend {
    pub(super) fn new(dir: SocketDir) -> io::Result<Self> {
        let server = listen(&dir.socket(0))?;
        Ok(Backend { server: Mutex::new((server, 0)), stopping: AtomicBool::new(false), dir })
    }

    pub(super) fn path(&self) -> PathBuf {
        let number = self.server.lock().unwrap_or_else(PoisonError::into_inner).1;
        self.dir.socket(number)
    }

    /// Ends [`receive`].
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.server().unblock();
    }

    fn server(&self) -> Arc<Server> {
        Arc::clone(&self.server.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    /// Listens anew: after one failed accept `tiny_http` never accepts again.
    fn rebuild(&self) -> io::Result<PathBuf> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        // Another name: the old server removes its own file whenever its last owner lets go.
        let number = server.1 + 1;
        let path = self.dir.socket(number);
        *server = (listen(&path)?, number);
        Ok(path)
    }
}

fn listen(path: &Path) -> io::Result<Arc<Server>> {
    // A left-over of a failed attempt; the directory is ours alone.
    let _ = std::fs::remove_file(path);
    let failed = |error| io::Error::other(format!("nothing can listen at {}: {error}", path.display()));
    Server::http_unix(path).map(Arc::new).map_err(failed)
}

/// Takes requests until stopped: numbers each, hands it to the answering thread, then calls `deliver`.
pub(super) fn receive(
    backend: &Backend,
    control: &Control,
    body_max: usize,
    work: &Sender<Work>,
    mut deliver: impl FnMut(Ticket, HttpRequest),
) {
    let mut ticket: Ticket = 0;
    loop {
        let received = backend.server().recv();
        if backend.stopping.load(Ordering::SeqCst) {
            return;
        }
        match received {
            Ok(request) if is_probe(&request) => respond(request, HttpResponse::empty(204)),
            Ok(mut request) => {
                let Some(understood) = understand(&mut request, body_max) else {
                    continue;
                };
                ticket += 1;
                // In this order: the answering thread must know the ticket before its answer can come.
                if work.send(Work::Asked(ticket, request)).is_err() {
                    return;
                }
                deliver(ticket, understood);
            }
            Err(error) => {
                error!(%error, "tiny_http ended accepting; it is built anew");
                rebuild_until_stopped(backend, control);
            }
        }
    }
}

/// `tiny_http` reports the end of accepting once only, so this goes on until a new one listens.
fn rebuild_until_stopped(backend: &Backend, control: &Control) {
    while !backend.stopping.load(Ordering::SeqCst) {
        match backend.rebuild() {
            Ok(path) => return control.move_to(path),
            Err(error) => error!(%error, "tiny_http could not be built anew"),
        }
        std::thread::sleep(REOPEN_PAUSE);
    }
}

fn is_probe(request: &Request) -> bool {
    request.headers().iter().any(|header| header.field.equiv(PROBE_FIELD))
}

/// Reads the body. `None`: it is not as long as was declared, so the gate is gone and nobody waits for an answer.
fn understand(request: &mut Request, body_max: usize) -> Option<HttpRequest> {
    let declared = request.body_length().unwrap_or(0);
    if declared > body_max {
        error!(declared, "the gate let an oversized body through");
        return None;
    }
    let mut body = Vec::with_capacity(declared);
    if let Err(error) = request.as_reader().take(body_max as u64 + 1).read_to_end(&mut body) {
        debug!(%error, "a request was cut off");
        return None;
    }
    // tiny_http reads a body that ends early as if it were whole.
    if body.len() != declared {
        return None;
    }
    let headers = request.headers().iter();
    Some(HttpRequest {
        method: request.method().as_str().to_owned(),
        target: request.url().to_owned(),
        headers: headers
            .map(|header| (header.field.as_str().as_str().to_ascii_lowercase(), header.value.as_str().to_owned()))
            .filter(|(name, _)| name != "content-length")
            .collect(),
        body,
    })
}

/// Gives answers until stopped. A ticket whose answer does not come within `timeout` is answered with 504.
pub(super) fn answer(work: &Receiver<Work>, timeout: Duration) {
    let mut waiting: BTreeMap<Ticket, (Request, Instant)> = BTreeMap::new();
    loop {
        // Tickets are numbered in the order of their deadlines.
        let first = waiting.first_key_value().map(|(_, (_, deadline))| *deadline);
        let item = match first {
            Some(deadline) => work.recv_deadline(deadline),
            None => work.recv().map_err(RecvTimeoutError::from),
        };
        match item {
            Ok(Work::Asked(ticket, request)) => {
                waiting.insert(ticket, (request, Instant::now() + timeout));
            }
            Ok(Work::Answer(ticket, response)) => {
                if let Some((request, _)) = waiting.remove(&ticket) {
                    respond(request, response);
                } else {
                    debug!(ticket, "an answer came too late or twice");
                }
            }
            Ok(Work::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        while let Some(entry) = waiting.first_entry()
            && entry.get().1 <= Instant::now()
        {
            let (request, _) = entry.remove();
            warn!(method = %request.method(), "no answer to an HTTP request came in time");
            let safe = Kind::of(request.method().as_str()).safe;
            respond(request, refusal::too_late(safe).answer());
        }
    }
}

/// Gives answers to requests; cheap to clone. See [`Responder::answer`].
#[derive(Clone, Debug)]
pub struct Responder {
    work: Sender<Work>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Work")
    }
}

impl Responder {
    pub(super) fn new(work: Sender<Work>) -> Self {
        Responder { work }
    }

    /// Sends the answer to the request that came with `ticket`. Never blocks: the channel has room for one answer to
    /// every request that can be in flight, so only repeated answers can find it full, and those are dropped.
    pub fn answer(&self, ticket: Ticket, response: HttpResponse) {
        match self.work.try_send(Work::Answer(ticket, response)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => error!(ticket, "more HTTP answers than requests; one is dropped"),
        }
    }
}

/// Writes an answer. The gate always reads, so this never waits for a client.
fn respond(request: Request, response: HttpResponse) {
    let response = if (200..=599).contains(&response.status) {
        response
    } else {
        error!(status = response.status, "the application gave no valid HTTP status");
        refusal::BAD_STATUS.answer()
    };
    let length = response.body_len;
    let mut headers = Vec::with_capacity(response.headers.len());
    for (name, value) in &response.headers {
        if name.eq_ignore_ascii_case("content-length") {
            // tiny_http would believe it; only the answer's own length counts.
            warn!("an HTTP answer with a length among its headers");
        } else if let Some(header) = checked_header(name, value) {
            headers.push(header);
        } else {
            warn!(name, "a header of an HTTP answer has a forbidden byte and is left out");
        }
    }
    let status = StatusCode(response.status);
    let response = Response::new(status, headers, Cursor::new(response.body), Some(length), None)
        // A length always, never chunks: the gate needs to know where the answer ends.
        .with_chunked_threshold(usize::MAX);
    if let Err(error) = request.respond(response) {
        debug!(%error, "an answer could not be given to the gate");
    }
}

/// `tiny_http` writes whatever it is given, a line end included (CVE-2026-66753).
fn checked_header(name: &str, value: &str) -> Option<Header> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let good_name = !name.is_empty() && name.bytes().all(token);
    let good_value = value.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    if good_name && good_value { Header::from_bytes(name, value).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_a_line_end_or_a_bad_name_is_left_out() {
        assert!(checked_header("etag", "\"1\"").is_some());
        for (name, value) in
            [("etag", "a\r\nb: c"), ("etag", "a\nb"), ("etag", "\0"), ("etag", "é"), ("e tag", "a"), ("", "a")]
        {
            assert!(checked_header(name, value).is_none(), "{name:?} {value:?}");
        }
    }

    #[test]
    fn the_socket_directory_is_private_and_goes_with_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let dir = SocketDir::create().unwrap();
        let path = dir.path.clone();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn nodes_that_start_at_once_take_no_directory_from_each_other() {
        let temp = tempfile::tempdir().unwrap();
        let start_often = || {
            for _ in 0..300 {
                let dir = SocketDir::create_in(temp.path()).unwrap();
                assert!(dir.path.exists(), "removed before it was locked");
            }
        };
        std::thread::scope(|threads| (0..4).for_each(|_| drop(threads.spawn(start_often))));
    }

    #[test]
    fn directories_of_killed_processes_are_removed_and_no_others() {
        use std::os::unix::net::UnixListener;
        let temp = tempfile::tempdir().unwrap();
        let make = |name: &str, mode: u32| {
            let dir = temp.path().join(name);
            std::fs::DirBuilder::new().mode(mode).create(&dir).unwrap();
            UnixListener::bind(dir.join("0.sock")).unwrap();
            dir
        };
        let alive = make("chordkv-1-0123456789abcdef", 0o700);
        let _held = lock(&alive).unwrap();
        let dead = make("chordkv-2-0123456789abcdef", 0o700);
        let noted = make("chordkv-3-0123456789abcdef", 0o700);
        std::fs::write(noted.join("notes"), "").unwrap();
        let open = make("chordkv-4-0123456789abcdef", 0o755);
        let other = make("chordkv-data", 0o700);
        let target = make("elsewhere", 0o700);
        std::os::unix::fs::symlink(&target, temp.path().join("chordkv-5-0123456789abcdef")).unwrap();
        remove_orphans(temp.path());
        assert!(!dead.exists());
        for kept in [&alive, &open, &other, &target] {
            assert!(kept.join("0.sock").exists(), "{}", kept.display());
        }
        assert!(noted.join("notes").exists(), "only sockets are removed");
    }
}
