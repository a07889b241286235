//! A ring of real nodes, one on each host of a network, and the judgement of it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use chordkv::base::{Capacity, Contact, Incarnation};
use chordkv::node::report::{NodeReport, RingReport};
use chordkv::sim::checker::Ring;

use tempfile::TempDir;

use super::net::{Net, addr, report};
use crate::support::{Client, Node, Process, ring_key};

/// The nodes end before their hosts do.
pub struct Hosts {
    pub nodes: Vec<Node>,
    pub net: Net,
    started: Instant,
    name: &'static str,
    _key: TempDir,
}

const PEER_PORT: u16 = 7000;
/// In every host's own namespace, so that no fault comes between a node and its users.
pub const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);

impl Hosts {
    /// One ring of a node on each host. `None` where there can be no such network: it is said why.
    pub fn start(name: &'static str, net: Result<Net, String>, size: usize, limit: Duration) -> Option<Self> {
        let net = net.inspect_err(|missing| report(&format!("{name}: SKIPPED, {missing}"))).ok()?;
        let dir = tempfile::tempdir().expect("a directory");
        let key = ring_key(dir.path());
        let start = |host| {
            let (listen, http) = (peer_addr(host).to_string(), HTTP.to_string());
            let seeds: String = seeds(host).iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let mut args = vec!["--listen", &listen, "--http", &http, "--ring-key-file", &key];
            if host > 0 {
                args.extend(["--join", &seeds]);
            }
            net.within(host, || Process::node(&args))
        };
        let started = Instant::now();
        let processes: Vec<Process> = (0..size).map(start).collect();
        let nodes = processes.into_iter().map(Process::listening).collect();
        let hosts = Self { nodes, net, started, name, _key: dir };
        hosts.becomes_whole("formed", &hosts.all(), limit);
        hosts.serve(&hosts.all(), "before", limit);
        Some(hosts)
    }

    pub fn all(&self) -> Vec<usize> {
        (0..self.nodes.len()).collect()
    }

    /// The hosts in the order of their nodes on the circle.
    pub fn in_ring_order(&self) -> Vec<usize> {
        let mut order = self.all();
        order.sort_by_key(|host| Contact::id_of(Capacity::MAX, peer_addr(*host)));
        order
    }

    /// Waits until these hosts' nodes are one ring of their own in which every pointer is ideal, and says after how long.
    #[track_caller]
    pub fn becomes_whole(&self, when: &str, hosts: &[usize], limit: Duration) {
        let start = Instant::now();
        while let Err(fault) = self.judge(hosts) {
            let passed = start.elapsed();
            assert!(passed < limit, "{}, {when}: not whole within {limit:?}: {fault}", self.name);
            thread::sleep(LOOK);
        }
        self.say(&format!("{when}: {} nodes are one ring after {:.1?}", hosts.len(), start.elapsed()));
    }

    pub fn say(&self, line: &str) {
        report(&format!("{}: {:>5.1?} {line}", self.name, self.started.elapsed()));
    }

    /// Whether these hosts' nodes are one ordered ring, every pointer ideal, and say so themselves. `Err` is what is wrong.
    pub fn judge(&self, hosts: &[usize]) -> Result<(), String> {
        let reports = together(hosts, |host| self.document::<NodeReport>(*host, "/v1/node"))?;
        let members: Vec<&NodeReport> = reports.iter().filter(|report| report.standing == "member").collect();
        let ring = ring_of(&members)?;
        let nobody = BTreeSet::new();
        let cycle = ring.check(&nobody, &nobody).map_err(|fault| format!("{fault:?}\n{ring}"))?.cycle;
        if cycle.len() != hosts.len() || !ring.is_ideal(SUCCESSORS) {
            return Err(format!("{} of {} on the ring\n{ring}", cycle.len(), hosts.len()));
        }
        together(hosts, |host| {
            let report: RingReport = self.document(*host, "/v1/ring")?;
            let whole = report.whole && report.nodes.len() == hosts.len() && report.unreachable.is_empty();
            if whole { Ok(()) } else { Err(format!("{} reports {report:?}", peer_addr(*host))) }
        })
        .map(drop)
    }

    fn document<T: serde::de::DeserializeOwned>(&self, host: usize, target: &str) -> Result<T, String> {
        let answer = self.ask(host, |client| client.get(target)).map_err(|error| error.to_string());
        let answer = answer.and_then(|answer| if answer.status == 200 { Ok(answer) } else { Err(answer.text()) });
        answer.map(|answer| answer.json()).map_err(|error| format!("{} {target}: {error}", peer_addr(host)))
    }

    /// What a user on that host does.
    pub fn ask<T: Send>(&self, host: usize, act: impl FnOnce(&mut Client) -> io::Result<T> + Send) -> io::Result<T> {
        self.within(host, || act(&mut Client::new(HTTP)))
    }

    /// Does something as that host.
    pub fn within<T: Send>(&self, host: usize, act: impl FnOnce() -> T + Send) -> T {
        self.net.within(host, act)
    }

    /// Waits until what is put through any of these nodes can be got through another.
    #[track_caller]
    pub fn serve(&self, hosts: &[usize], value: &str, limit: Duration) {
        let start = Instant::now();
        while let Err(error) = self.try_serve(hosts, value) {
            let passed = start.elapsed();
            assert!(passed < limit, "{}: {value:?} cannot be stored within {limit:?}: {error}", self.name);
            thread::sleep(LOOK);
        }
        self.say(&format!("{value}: {} nodes serve after {:.1?}", hosts.len(), start.elapsed()));
    }

    fn try_serve(&self, hosts: &[usize], value: &str) -> Result<(), String> {
        let keys: Vec<usize> = (0..KEYS).collect();
        let serve = |n: &usize| {
            let (key, writer, reader) = (format!("key-{n}"), hosts[n % hosts.len()], hosts[(n + 1) % hosts.len()]);
            let failed = |what: &str, host, said: String| Err(format!("{what} {key} at {}: {said}", peer_addr(host)));
            match self.ask(writer, |client| client.put(key.as_bytes(), value.as_bytes())) {
                Ok(answer) if matches!(answer.status, 201 | 204) => {}
                Ok(answer) => return failed("PUT", writer, answer.text()),
                Err(error) => return failed("PUT", writer, error.to_string()),
            }
            match self.ask(reader, |client| client.read(key.as_bytes())) {
                Ok(answer) if answer.status == 200 && answer.body == value.as_bytes() => Ok(()),
                Ok(answer) => failed("GET", reader, answer.text()),
                Err(error) => failed("GET", reader, error.to_string()),
            }
        };
        together(&keys, serve).map(drop)
    }

    pub fn have_not_panicked(&self) {
        self.nodes.iter().for_each(|node| node.has_not_panicked());
    }
}

/// Between two looks at all nodes of a ring.
const LOOK: Duration = Duration::from_millis(50);
/// Keys that are written and read, from every node to every other.
const KEYS: usize = 20;
/// The default; longer than all rings here.
const SUCCESSORS: usize = 16;

pub fn peer_addr(host: usize) -> SocketAddr {
    (addr(host), PEER_PORT).into()
}

/// The first two hosts, as an operator would name two.
fn seeds(host: usize) -> Vec<SocketAddr> {
    (0..2).filter(|seed| *seed < host).map(peer_addr).collect()
}

/// One thread each: with delay between the hosts, one after the other would take minutes.
fn together<I: Sync, T: Send>(items: &[I], act: impl Fn(&I) -> Result<T, String> + Sync) -> Result<Vec<T>, String> {
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| act(item))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// The pointers as the nodes report them.
fn ring_of(reports: &[&NodeReport]) -> Result<Ring, String> {
    let mut contacts = BTreeMap::new();
    for report in reports {
        let addr: SocketAddr = report.addr.parse().map_err(|error| format!("{}: {error}", report.addr))?;
        let incarnation = u128::from_str_radix(&report.incarnation, 16).map_err(|error| error.to_string())?;
        contacts.insert(report.addr.as_str(), Contact::new(Capacity::MAX, addr, Incarnation(incarnation)));
    }
    // Reports name peers by address only. One that does not report is no member, and any incarnation will do for it.
    let contact = |addr: &str| contacts.get(addr).copied().unwrap_or_else(|| stranger(addr));
    let mut ring = Ring::default();
    for report in reports {
        let predecessor = report.predecessor.as_ref().map(|peer| contact(&peer.addr));
        let successors = report.successors.iter().map(|peer| contact(&peer.addr)).collect();
        ring.insert(contact(&report.addr), false, predecessor, successors);
    }
    Ok(ring)
}

fn stranger(addr: &str) -> Contact {
    Contact::new(Capacity::MAX, addr.parse().expect("an address"), Incarnation(0))
}
