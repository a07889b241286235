//! The gate: the only thread that faces the network. It accepts within a cap, drives the public connections, and hands
//! whole requests to the private ones.
//!
//! It does not know what requests mean. Timers are computed deadlines: a gate with nothing to do does not wake.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use tracing::{debug, error, warn};

use super::conn::{Conn, Progress, Readiness, Request};
use super::env::Env;
use super::lane::{Job, Outcome};
use super::lanes::{Done, Lanes};
use super::limits::{ACCEPT_PAUSE, ACCEPT_TURN, CALLED_MAX, HttpConfig, SLOW_WHILE_SHORT};
use super::refusal::{self, Refusal};
use super::slots::{Key, Slots};

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
/// Events taken from the system at once.
const EVENTS: usize = 256;

/// What other threads tell the gate.
pub(super) struct Control {
    orders: Mutex<Orders>,
    waker: Waker,
}

#[derive(Default)]
struct Orders {
    /// Accept no more, and be gone by then.
    stop_by: Option<Instant>,
    /// `tiny_http` listens here from now on.
    moved_to: Option<PathBuf>,
    /// Requests that were put off under these numbers are passed on again.
    called: Vec<u64>,
}

impl Control {
    pub(super) fn new(poll: &Poll) -> io::Result<Self> {
        Ok(Control { orders: Mutex::default(), waker: Waker::new(poll.registry(), WAKER)? })
    }

    pub(super) fn stop(&self, by: Instant) {
        self.give(|orders| orders.stop_by = Some(orders.stop_by.map_or(by, |earlier| earlier.min(by))));
    }

    pub(super) fn move_to(&self, path: PathBuf) {
        self.give(|orders| orders.moved_to = Some(path));
    }

    pub(super) fn resume(&self, parked: u64) {
        self.give(|orders| orders.called.push(parked));
    }

    fn give(&self, order: impl FnOnce(&mut Orders)) {
        order(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        if let Err(error) = self.waker.wake() {
            error!(%error, "the HTTP gate could not be woken");
        }
    }
}

enum Accepting {
    /// There may be connections to accept: edge-triggered readiness is told once.
    Pending,
    Idle,
    /// Accepting failed. `true`: for want of descriptors.
    PausedUntil(Instant, bool),
    /// The pause is over and the system asked to tell once more whether a connection waits.
    Asked(bool),
}

/// See the module.
pub(super) struct Gate {
    poll: Poll,
    listener: Option<TcpListener>,
    accepting: Accepting,
    conns: Slots<Conn>,
    conns_max: usize,
    lanes: Lanes,
    /// Requests that wait for a private connection; may name some that are gone.
    queue: VecDeque<(Key, u64)>,
    /// The same that were put off and are called now: thousands may be at once, so they take turns with the others.
    recalled: VecDeque<(Key, u64)>,
    recalled_last: bool,
    timers: BTreeSet<(Instant, Key)>,
    resume: VecDeque<Key>,
    /// Requests that were put off, by the number that they wait for; and numbers that came before their request did.
    parked: BTreeMap<u64, (Key, u64)>,
    called: VecDeque<u64>,
    env: Env,
    stop_by: Option<Instant>,
}

impl Gate {
    pub(super) fn new(
        poll: Poll,
        mut listener: TcpListener,
        config: HttpConfig,
        conns_max: usize,
        path: PathBuf,
    ) -> io::Result<Self> {
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let workers = config.workers;
        let env = Env::new(config);
        Ok(Gate {
            poll,
            listener: Some(listener),
            accepting: Accepting::Pending,
            conns: Slots::new(),
            conns_max,
            lanes: Lanes::new(path, workers, env.now),
            queue: VecDeque::new(),
            recalled: VecDeque::new(),
            recalled_last: false,
            timers: BTreeSet::new(),
            resume: VecDeque::new(),
            parked: BTreeMap::new(),
            called: VecDeque::new(),
            env,
            stop_by: None,
        })
    }

    /// Runs until stopped.
    pub(super) fn run(mut self, control: &Control) {
        let mut events = Events::with_capacity(EVENTS);
        while !self.finished() {
            if let Err(error) = self.poll.poll(&mut events, self.timeout())
                && error.kind() != ErrorKind::Interrupted
            {
                error!(%error, "polling failed; the HTTP gate ends");
                return;
            }
            self.env.now = Instant::now();
            self.spare_memory();
            for event in &events {
                self.on_event(event, control);
            }
            self.lanes.on_timer(self.poll.registry(), &mut self.env);
            self.expire();
            self.feed_lanes();
            self.resume();
            self.accept();
        }
        debug!(cut_off = self.conns.len(), "the HTTP gate ends");
    }

    fn finished(&self) -> bool {
        self.stop_by.is_some_and(|by| self.conns.len() == 0 || by <= self.env.now)
    }

    /// How long there is nothing to do but for events; `None`: for ever.
    fn timeout(&self) -> Option<std::time::Duration> {
        let paused = match self.accepting {
            Accepting::PausedUntil(until, _) => Some(until),
            Accepting::Pending | Accepting::Idle | Accepting::Asked(_) => None,
        };
        let first = self.timers.first().map(|&(at, _)| at);
        let busy = !self.resume.is_empty() || matches!(self.accepting, Accepting::Pending);
        let next = [first, paused, self.lanes.timer(), self.stop_by, busy.then_some(self.env.now)];
        next.into_iter().flatten().min().map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn on_event(&mut self, event: &Event, control: &Control) {
        match event.token() {
            LISTENER => self.on_listener(),
            WAKER => self.obey(control),
            Token(token) if Key(token).is_lane() => {
                let done = self.lanes.on_event(Key(token), Readiness::of(event), &mut self.env);
                self.on_done(done);
                self.feed_lanes();
            }
            Token(token) => {
                let key = Key(token);
                if event.is_error() || event.is_write_closed() {
                    // Nobody is there to take an answer. A client that only ended sending still is.
                    self.close(key);
                } else if let Some(conn) = self.conns.get_mut(key) {
                    conn.on_event(Readiness::of(event));
                    if conn.is_abandoned() { self.close(key) } else { self.advance(key) }
                }
            }
        }
    }

    fn obey(&mut self, control: &Control) {
        let orders = std::mem::take(&mut *control.orders.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(path) = orders.moved_to {
            for done in self.lanes.move_to(path, &mut self.env) {
                self.on_done(Some(done));
            }
        }
        for number in orders.called {
            self.call(number);
        }
        if let Some(by) = orders.stop_by {
            self.stop_by = Some(self.stop_by.map_or(by, |earlier| earlier.min(by)));
            self.env.stopping = true;
            self.listener = None;
            self.accepting = Accepting::Idle;
            self.resume = self.conns.keys().into();
            for (key, serial) in std::mem::take(&mut self.parked).into_values() {
                self.refuse_parked(key, serial, &refusal::STOPPING);
            }
        }
    }

    // Public connections.

    fn accept(&mut self) {
        match self.accepting {
            Accepting::Pending => {}
            Accepting::PausedUntil(until, exhausted) if until <= self.env.now => return self.ask(exhausted),
            Accepting::PausedUntil(..) | Accepting::Idle | Accepting::Asked(_) => return,
        }
        for _ in 0..ACCEPT_TURN {
            let Some(listener) = &self.listener else {
                self.accepting = Accepting::Idle;
                return;
            };
            match listener.accept() {
                Ok((stream, from)) => self.admit(stream, from),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => {
                        self.accepting = Accepting::Idle;
                        return;
                    }
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset => {}
                    _ => {
                        if self.env.told[0].is_due(self.env.now) {
                            warn!(%error, "accepting an HTTP connection failed; going on shortly");
                        }
                        let until = self.env.now + ACCEPT_PAUSE;
                        self.accepting = Accepting::PausedUntil(until, is_exhaustion(&error));
                        return;
                    }
                },
            }
        }
    }

    /// Registers the listener again, upon which the system tells once more if a connection waits. Accepting would not
    /// tell: without a free descriptor it fails in the same way whether there is one or not.
    fn ask(&mut self, exhausted: bool) {
        self.accepting = Accepting::Asked(exhausted);
        if let Some(listener) = &mut self.listener
            && let Err(error) = self.poll.registry().reregister(listener, LISTENER, Interest::READABLE)
        {
            warn!(%error, "the HTTP listener could not be registered again");
            self.accepting = Accepting::PausedUntil(self.env.now + ACCEPT_PAUSE, exhausted);
        }
    }

    /// A connection waits to be accepted. Where there was no descriptor for it, the quietest one makes room.
    fn on_listener(&mut self) {
        match self.accepting {
            // The end of the pause will ask again.
            Accepting::PausedUntil(..) => return,
            Accepting::Asked(true) => {
                self.evict();
            }
            Accepting::Asked(false) | Accepting::Pending | Accepting::Idle => {}
        }
        self.accepting = Accepting::Pending;
    }

    fn admit(&mut self, mut stream: mio::net::TcpStream, from: SocketAddr) {
        if self.conns.len() >= self.conns_max && !self.evict() {
            self.env.config.counts.note_full(self.env.now);
            return;
        }
        // Without it a client that delays acknowledgements sees 40 ms on every answer of several segments.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "TCP_NODELAY could not be set");
        }
        let token = Token(self.conns.next_key().0);
        if let Err(error) = self.poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE) {
            debug!(%error, "an HTTP connection could not be registered");
            return;
        }
        let key = self.conns.insert(Conn::new(stream, from, &self.env));
        debug_assert_eq!(token.0, key.0, "the token names the slot");
        self.advance(key);
    }

    /// Closes the connection that has sent nothing for longest; those that wait for an answer are spared.
    fn evict(&mut self) -> bool {
        let Some(key) = self.conns.quietest() else {
            return false;
        };
        self.env.config.counts.note_gave_way();
        self.close(key);
        true
    }

    /// While memory is short, whoever takes longest to send a request gives its part back: others come and go meanwhile.
    fn spare_memory(&mut self) {
        while self.env.budget.is_short() {
            let readers = self.conns.iter().filter_map(|(key, conn)| Some((conn.reading_since(&self.env)?, key)));
            let slowest = readers.min().filter(|(since, _)| self.env.now - *since >= SLOW_WHILE_SHORT);
            let Some((_, key)) = slowest else { return };
            if let Some(conn) = self.conns.get_mut(key) {
                conn.refuse(&refusal::OUT_OF_MEMORY, &self.env);
            }
            self.advance(key);
        }
    }

    fn close(&mut self, key: Key) {
        if let Some(mut conn) = self.conns.remove(key) {
            conn.release(&mut self.env);
            if let Some(number) = conn.parked {
                self.parked.remove(&number);
            }
            if let Some(at) = conn.scheduled {
                self.timers.remove(&(at, key));
            }
        }
    }

    fn advance(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let mut progress = conn.advance(&mut self.env);
        let heard = std::mem::take(&mut conn.heard);
        if progress == Progress::Ready {
            let serial = conn.serial();
            progress = self.submit(key, serial);
        } else if heard {
            self.conns.touch(key);
        }
        match progress {
            Progress::Closed => return self.close(key),
            Progress::Yielded => self.resume.push_back(key),
            Progress::Blocked | Progress::Ready => {}
        }
        self.schedule(key);
    }

    /// Sees to it that a timer fires for `key` at its deadline or before. One that fires early is set again, which is
    /// cheaper than moving it with every request.
    fn schedule(&mut self, key: Key) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        let deadline = conn.deadline();
        match conn.scheduled {
            Some(at) if at <= deadline => return,
            Some(at) => {
                self.timers.remove(&(at, key));
            }
            None => {}
        }
        conn.scheduled = Some(deadline);
        self.timers.insert((deadline, key));
    }

    fn expire(&mut self) {
        while let Some(&(at, key)) = self.timers.first()
            && at <= self.env.now
        {
            self.timers.pop_first();
            let Some(conn) = self.conns.get_mut(key) else {
                continue;
            };
            conn.scheduled = None;
            if conn.deadline() > self.env.now {
                self.schedule(key);
            } else if conn.on_deadline(&self.env) {
                self.conns.touch(key);
                self.advance(key);
            } else {
                self.close(key);
            }
        }
    }

    fn resume(&mut self) {
        for _ in 0..self.resume.len() {
            if let Some(key) = self.resume.pop_front() {
                self.advance(key);
            }
        }
    }

    // Requests.

    /// Queues a whole request, or refuses it. The queue is emptied into idle private connections at once.
    fn submit(&mut self, key: Key, serial: u64) -> Progress {
        if self.queue.len() >= self.env.config.queue_max && !self.lanes.has_idle() {
            let conns = &mut self.conns;
            self.queue.retain(|&(key, serial)| conns.get_mut(key).is_some_and(|conn| conn.awaits(serial)));
            if self.queue.len() >= self.env.config.queue_max {
                if let Some(conn) = self.conns.get_mut(key) {
                    conn.refuse_waiting(&refusal::QUEUE_FULL, &self.env);
                }
                return Progress::Yielded;
            }
        }
        self.conns.unlist(key);
        self.queue.push_back((key, serial));
        self.feed_lanes();
        Progress::Blocked
    }

    fn feed_lanes(&mut self) {
        while self.lanes.has_idle() {
            let Some((key, serial)) = self.next_waiting() else {
                return;
            };
            let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.awaits(serial)) else {
                continue;
            };
            let Some(request) = conn.take_request(&mut self.env) else {
                continue;
            };
            let job = Job { client: Some((key, serial)), kind: request.kind, close: request.close };
            if let Some((job, outcome)) = self.lanes.begin(job, request, &mut self.env) {
                self.settle_job(job, outcome);
                self.resume.push_back(key);
            }
        }
        if !self.queue.is_empty() || !self.recalled.is_empty() {
            self.lanes.grow(&self.env);
        }
    }

    fn next_waiting(&mut self) -> Option<(Key, u64)> {
        let (queue, recalled) = (&mut self.queue, &mut self.recalled);
        self.recalled_last = !recalled.is_empty() && (queue.is_empty() || !self.recalled_last);
        if self.recalled_last { recalled.pop_front() } else { queue.pop_front() }
    }

    fn on_done(&mut self, done: Option<Done>) {
        let Some((job, outcome)) = done else {
            return;
        };
        if let Some(key) = self.settle_job(job, outcome) {
            self.advance(key);
        }
    }

    // Requests that were put off.

    fn park(&mut self, (key, serial): (Key, u64), number: u64, request: Request) {
        let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.awaits(serial)) else {
            return;
        };
        conn.park(request, number, &mut self.env);
        if conn.is_abandoned() {
            return self.close(key);
        }
        let called = self.called.iter().position(|called| *called == number);
        if self.env.stopping || self.parked.len() >= self.conns_max / 2 {
            let why = if self.env.stopping { &refusal::STOPPING } else { &refusal::TOO_MANY_PARKED };
            self.refuse_parked(key, serial, why);
        } else if let Some(called) = called {
            self.called.remove(called);
            self.unpark(key, serial);
        } else {
            self.parked.insert(number, (key, serial));
            self.schedule(key);
        }
    }

    fn call(&mut self, number: u64) {
        if let Some((key, serial)) = self.parked.remove(&number) {
            return self.unpark(key, serial);
        }
        if self.called.len() == CALLED_MAX {
            self.called.pop_front();
        }
        self.called.push_back(number);
    }

    fn unpark(&mut self, key: Key, serial: u64) {
        if let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.awaits(serial)) {
            conn.unpark(&mut self.env);
            self.recalled.push_back((key, serial));
            self.schedule(key);
            self.feed_lanes();
        }
    }

    fn refuse_parked(&mut self, key: Key, serial: u64, why: &Refusal) {
        if let Some(conn) = self.conns.get_mut(key).filter(|conn| conn.awaits(serial)) {
            conn.parked = None;
            conn.refuse_waiting(why, &self.env);
            self.conns.touch(key);
            self.resume.push_back(key);
        }
    }

    /// Gives an outcome to the connection that waits for it, if it still does.
    fn settle_job(&mut self, job: Job, outcome: Option<Outcome>) -> Option<Key> {
        let (key, serial) = job.client?;
        let outcome = match outcome {
            Some(Outcome::Parked(number, request)) => {
                self.park((key, serial), number, request);
                return None;
            }
            outcome => outcome,
        };
        let conn = self.conns.get_mut(key).filter(|conn| conn.awaits(serial))?;
        match outcome {
            Some(Outcome::Answer(response, close)) => conn.answer(response, close, &self.env),
            Some(Outcome::TooLarge | Outcome::Parked(..)) => {
                conn.refuse_waiting(&refusal::answer_too_large(job.kind.safe), &self.env);
            }
            // Whether the request was acted on is unknown, so it is never sent again.
            None => conn.refuse_waiting(&refusal::lost(job.kind.safe), &self.env),
        }
        self.conns.touch(key);
        Some(key)
    }
}

/// Whether closing a connection may help.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::sync::{Arc, mpsc};
    use std::thread::JoinHandle;
    use std::time::Duration;

    use super::super::backend::SocketDir;
    use super::super::lane::PROBE_FIELD;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Rig {
        addr: std::net::SocketAddr,
        control: Arc<Control>,
        gate: Option<JoinHandle<()>>,
        dir: SocketDir,
    }

    /// A gate over the socket `path` of a directory that is the test's own.
    fn rig(workers: usize, back_end: impl FnOnce(&Path)) -> Rig {
        let dir = SocketDir::create().unwrap();
        back_end(&dir.socket(0));
        let mut config = HttpConfig::new(([127, 0, 0, 1], 0).into(), 1 << 20);
        config.workers = workers;
        let listener = TcpListener::bind(config.listen).unwrap();
        let addr = listener.local_addr().unwrap();
        let poll = Poll::new().unwrap();
        let control = Arc::new(Control::new(&poll).unwrap());
        let gate = Gate::new(poll, listener, config, 100, dir.socket(0)).unwrap();
        let gate_control = Arc::clone(&control);
        let gate = Some(std::thread::spawn(move || gate.run(&gate_control)));
        Rig { addr, control, gate, dir }
    }

    impl Drop for Rig {
        fn drop(&mut self) {
            self.control.stop(Instant::now());
            self.gate.take().unwrap().join().unwrap();
        }
    }

    /// Answers first round trips; gives the head of every other request to `serve`, which may answer or hang up.
    fn back_end(path: &Path, serve: impl Fn(&str, &mut UnixStream) -> bool + Clone + Send + 'static) {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serve = serve.clone();
                std::thread::spawn(move || {
                    let mut writer = stream.try_clone().unwrap();
                    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
                    loop {
                        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
                        let is_probe = head.iter().any(|line| line.starts_with(PROBE_FIELD));
                        let goes_on = match head.first() {
                            None => false,
                            Some(_) if is_probe => writer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").is_ok(),
                            Some(line) => serve(line, &mut writer),
                        };
                        if !goes_on {
                            let _ = writer.shutdown(std::net::Shutdown::Both);
                            return;
                        }
                    }
                });
            }
        });
    }

    fn ask(rig: &Rig, method: &str, target: &str) -> String {
        let mut client = std::net::TcpStream::connect(rig.addr).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(client, "{method} {target} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_request_lost_with_its_private_connection_is_answered_never_repeated_and_the_connection_opened_anew() {
        let (log, seen) = mpsc::channel();
        let rig = rig(1, |path| {
            back_end(path, move |line, writer| {
                log.send(line.to_owned()).unwrap();
                !line.contains("/lost") && writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_ok()
            });
        });
        for _ in 0..3 {
            let answer = ask(&rig, "PUT", "/lost");
            assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("may have happened"), "{answer}");
            assert!(ask(&rig, "GET", "/lost").starts_with("HTTP/1.1 502 "));
            assert!(ask(&rig, "GET", "/fine").ends_with("\r\n\r\nok"));
        }
        let wanted = ["PUT /lost HTTP/1.1", "GET /lost HTTP/1.1", "GET /fine HTTP/1.1"].repeat(3);
        assert_eq!(seen.try_iter().collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn an_answer_that_cannot_be_relayed_is_502_and_never_reaches_another_client() {
        for crooked in [
            &b"HTTP/1.1 200 OK\r\n\r\nno length"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ntwo",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"garbage\r\n\r\n",
        ] {
            let rig = rig(1, |path| {
                back_end(path, move |line, writer| {
                    let answer = if line.contains("/crooked") { crooked } else { b"HTTP/1.1 204 N\r\n\r\n" };
                    writer.write_all(answer).is_ok()
                });
            });
            assert!(ask(&rig, "GET", "/crooked").starts_with("HTTP/1.1 502 "));
            assert!(ask(&rig, "GET", "/fine").starts_with("HTTP/1.1 204 "));
        }
    }

    #[test]
    fn requests_wait_while_the_back_end_is_away_and_are_served_where_it_comes_back() {
        let rig = rig(2, |path| back_end(path, |_, _| false));
        assert!(ask(&rig, "GET", "/first").starts_with("HTTP/1.1 502 "));
        let new_path = rig.dir.socket(1);
        back_end(&new_path, |_, writer| writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew").is_ok());
        rig.control.move_to(new_path);
        let end = Instant::now() + PATIENCE;
        while !ask(&rig, "GET", "/second").ends_with("\r\n\r\nnew") {
            assert!(Instant::now() < end, "the gate did not move");
        }
        for _ in 0..10 {
            assert!(ask(&rig, "PUT", "/third").ends_with("\r\n\r\nnew"));
        }
    }
}
