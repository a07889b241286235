//! Users of five nodes with disks, and of a sixth, read, write, swap and delete while nodes are killed, stopped, cut off, started,
//! and leave. What they were told is judged by the checker of the simulator: linearizable for each key, and nothing that was
//! acknowledged is lost.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use chordkv::base::{Rng, Wall};
use chordkv::data::{Outcome, Record, Version};
use chordkv::sim::clients::told;
use chordkv::sim::linear::{History, Op, Wanted};
use rustix::process::Signal;
use tempfile::TempDir;

use super::hosts::{HTTP, peer_addr};
use super::net::{Net, report};
use crate::support::client::Answer;
use crate::support::ring::wait_settled;
use crate::support::{Client, Node, PATIENCE, Process, ring_key};

/// Hosts; on the last one a node joins later.
const HOSTS: usize = 6;
const USERS_PER_HOST: u64 = 2;
/// Keys that are used at a time; each part of the test has its own.
const KEYS: u64 = 8;
/// Operations on one key at the same time, and such whose outcome nobody knows: all orders of them are tried.
const OPEN_MAX: usize = 4;
const UNKNOWN_MAX: usize = 3;
/// Between two operations of one user.
const PAUSE: Duration = Duration::from_millis(4);
/// What users must be told in each part, in which somebody is always served.
const ANSWERED_MIN: usize = 100;

/// What users were told.
#[derive(Default)]
struct Book {
    keys: Mutex<BTreeMap<String, Of>>,
    part: AtomicUsize,
    over: AtomicBool,
    next: Mutex<u64>,
    answered: AtomicUsize,
    unknown: AtomicUsize,
    refused: AtomicUsize,
}

#[derive(Default)]
struct Of {
    history: History,
    versions: BTreeMap<Version, u64>,
    latest: Option<Version>,
    open: usize,
    unknown: usize,
}

/// How a request ended for its user.
enum End {
    Told(Outcome),
    /// Nothing was done.
    Never,
    /// Nobody knows.
    Unknown,
}

impl Book {
    fn with<T>(&self, key: &str, act: impl FnOnce(&mut Of) -> T) -> T {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        act(keys.entry(key.to_owned()).or_default())
    }

    fn number(&self) -> u64 {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next += 1;
        *next
    }

    /// Does one thing with a key, if it is not too busy.
    fn act(&self, client: &mut Client, key: &str, dice: u64) {
        let number = self.number();
        let begun = self.with(key, |of| {
            if of.open >= OPEN_MAX || of.unknown >= UNKNOWN_MAX {
                return None;
            }
            let swap = of.latest.and_then(|version| Some((version, *of.versions.get(&version)?)));
            let (op, condition) = match (dice, swap) {
                (0..=3, _) => (Op::Read(None), None),
                (4..=5, Some((version, value))) => {
                    let wanted = Wanted::Value(value);
                    (Op::Put { wanted, told: None }, Some(("If-Match", format!("\"{version}\""))))
                }
                (6, _) => (Op::Put { wanted: Wanted::Nothing, told: None }, Some(("If-None-Match", "*".to_owned()))),
                (7, _) => (Op::Delete(None), None),
                _ => (Op::Put { wanted: Wanted::Any, told: None }, None),
            };
            of.open += 1;
            of.history.call(number, op);
            Some((op, condition))
        });
        let Some((op, condition)) = begun else { return };
        let end = ask(client, key, number, op, condition.as_ref());
        self.with(key, |of| {
            of.open -= 1;
            match end {
                End::Told(outcome) => {
                    if let Outcome::Created(version) | Outcome::Replaced(version) = &outcome {
                        of.latest = Some(*version);
                    }
                    let op = told(op, number, &outcome, &mut of.versions);
                    of.history.answer(number, op);
                    self.answered.fetch_add(1, Ordering::Relaxed);
                }
                End::Never => {
                    of.history.never(number);
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
                End::Unknown if matches!(op, Op::Read(_)) => of.history.never(number),
                End::Unknown => {
                    of.unknown += 1;
                    self.unknown.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }

    /// The user of one node, until it is over.
    fn use_node(&self, seed: u64) {
        let (mut rng, mut client) = (Rng::new(seed), Client::new(HTTP));
        while !self.over.load(Ordering::Relaxed) {
            let part = self.part.load(Ordering::Relaxed);
            let key = format!("{part}-{}", rng.below(KEYS));
            self.act(&mut client, &key, rng.below(12));
            thread::sleep(PAUSE);
        }
    }

    /// Nobody asks any more: what was told must be possible.
    fn judge(&self) {
        for (key, of) in self.keys.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            if let Err(why) = of.history.check() {
                panic!("what users were told of key {key} cannot be true: {why}");
            }
        }
    }
}

fn ask(client: &mut Client, key: &str, number: u64, op: Op, condition: Option<&(&str, String)>) -> End {
    let headers: Vec<(&str, &str)> = condition.into_iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = match op {
        Op::Read(_) => client.read(key.as_bytes()),
        Op::Put { .. } => client.put_if(key.as_bytes(), number.to_string().as_bytes(), &headers),
        Op::Delete(_) => client.delete(key.as_bytes()),
    };
    match answer {
        Ok(answer) => end(op, &answer),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => End::Never,
        Err(_) => End::Unknown,
    }
}

fn end(op: Op, answer: &Answer) -> End {
    let version = || answer.field("etag").and_then(|etag| etag.trim_matches('"').parse::<Version>().ok());
    let given = || version().expect("an ETag");
    End::Told(match (op, answer.status) {
        (Op::Read(_), 200) => {
            let (value, version) = (answer.body.clone().into(), given());
            Outcome::Found(Record { value, content_type: None, version, modified: Wall(0), expires: None })
        }
        (Op::Read(_) | Op::Delete(_), 404) => Outcome::NotFound,
        (Op::Put { .. }, 201) => Outcome::Created(given()),
        (Op::Put { .. }, 204) => Outcome::Replaced(given()),
        (Op::Put { .. }, 412) => Outcome::PreconditionFailed(version()),
        (Op::Delete(_), 204) => Outcome::Deleted,
        (_, 503) => return End::Never,
        (_, 504) => return End::Unknown,
        _ => panic!("{op:?}: {answer:?}"),
    })
}

/// Six hosts, and the nodes on them.
struct Place {
    nodes: Vec<Option<Node>>,
    dirs: Vec<TempDir>,
    key: String,
    net: Net,
}

impl Place {
    fn start(&mut self, host: usize) {
        let (listen, http) = (peer_addr(host).to_string(), HTTP.to_string());
        let dir = self.dirs[host].path().to_str().expect("UTF-8");
        let seeds: Vec<String> =
            (0..HOSTS).filter(|seed| *seed != host && *seed < 2).map(|seed| peer_addr(seed).to_string()).collect();
        let seeds = seeds.join(",");
        let mut args = vec!["--listen", &listen, "--http", &http, "--data-dir", dir, "--request-timeout", "3s"];
        args.extend(["--ring-key-file", &self.key]);
        // The first one creates the ring; afterwards it knows it.
        if host > 0 {
            args.extend(["--join", &seeds]);
        }
        self.nodes[host] = Some(self.net.within(host, || Process::node(&args)).listening());
    }

    fn kill(&mut self, host: usize) {
        if let Some(mut node) = self.nodes[host].take() {
            node.has_not_panicked();
            node.kill();
        }
    }

    fn signal(&self, host: usize, signal: Signal) {
        self.nodes[host].as_ref().expect("it runs").signal(signal);
    }

    fn settles(&self, host: usize, size: usize) {
        self.net.within(host, || wait_settled(HTTP, size, Duration::from_secs(60)));
    }

    fn user<T: Send>(&self, host: usize, act: impl FnOnce(&mut Client) -> T + Send) -> T {
        self.net.within(host, || act(&mut Client::new(HTTP)))
    }
}

fn secs(secs: u64) {
    thread::sleep(Duration::from_secs(secs));
}

#[test]
fn what_users_of_real_nodes_are_told_is_linearizable_whatever_happens_to_those() {
    let name = "judged";
    let net = match Net::of(HOSTS) {
        Ok(net) => net,
        Err(missing) => return report(&format!("{name}: SKIPPED, {missing}")),
    };
    let dirs: Vec<TempDir> = (0..HOSTS).map(|_| tempfile::tempdir().expect("a directory")).collect();
    let key = ring_key(dirs[0].path());
    let mut place = Place { nodes: (0..HOSTS).map(|_| None).collect(), dirs, key, net };
    (0..5).for_each(|host| place.start(host));
    place.settles(0, 5);
    let book = Book::default();
    let hubs: Vec<_> = (0..HOSTS).map(|host| place.net.host(host)).collect();
    thread::scope(|scope| {
        for (host, hub) in hubs.iter().enumerate() {
            for user in 0..USERS_PER_HOST {
                let (book, seed) = (&book, host as u64 * 100 + user);
                scope.spawn(move || super::net::in_namespace(hub, || book.use_node(seed)));
            }
        }
        let _over = Over(&book);
        let part = |what: &str, place: &mut Place, act: &mut dyn FnMut(&mut Place)| {
            let before = book.answered.load(Ordering::Relaxed);
            book.part.fetch_add(1, Ordering::Relaxed);
            act(place);
            let answered = book.answered.load(Ordering::Relaxed) - before;
            report(&format!("{name}: {what}: {answered} operations answered"));
            assert!(answered >= ANSWERED_MIN, "{what}: {answered} operations answered");
        };
        part("a node is killed and started again", &mut place, &mut |place| {
            place.kill(1);
            secs(3);
            place.start(1);
            secs(3);
        });
        part("a node is stopped for 5 s", &mut place, &mut |place| {
            place.signal(2, Signal::STOP);
            secs(5);
            place.signal(2, Signal::CONT);
            secs(3);
        });
        part("two of five are cut off for 6 s", &mut place, &mut |place| {
            place.net.part(&[0, 3]);
            secs(6);
            place.net.unite(&[0, 3]);
            secs(4);
        });
        part("a node joins, and another leaves", &mut place, &mut |place| {
            place.start(5);
            secs(2);
            place.user(4, |client| client.ask("POST", "/v1/node/leave", &[], b"")).expect("an answer").is(202);
            let mut leaver = place.nodes[4].take().expect("it runs");
            leaver.ends_with(0, PATIENCE);
        });
        part("all are killed and started again", &mut place, &mut |place| {
            let all = [0, 1, 2, 3, 5];
            for host in all {
                place.kill(host);
            }
            for host in all {
                place.start(host);
            }
            place.settles(5, 5);
            secs(2);
        });
    });
    let keys: Vec<String> = book.keys.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
    book.with(&keys[0], |of| assert_eq!(of.open, 0, "everybody was answered"));
    let before = book.answered.load(Ordering::Relaxed);
    for (at, key) in keys.iter().enumerate() {
        book.with(key, |of| of.unknown = 0);
        place.user([0, 1, 2, 3, 5][at % 5], |client| book.act(client, key, 0));
    }
    assert_eq!(book.answered.load(Ordering::Relaxed) - before, keys.len(), "every key is read");
    book.judge();
    let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    let (answered, refused, unknown) = (count(&book.answered), count(&book.refused), count(&book.unknown));
    report(&format!("{name}: {answered} answered, {refused} refused, {unknown} unknown; judged"));
    place.nodes.iter().flatten().for_each(|node| node.has_not_panicked());
}

/// Users stop also when the test fails.
struct Over<'a>(&'a Book);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}
