//! Several nodes as one ring.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use chordkv::node::report::RingReport;

use super::process::{Node, Process};
use super::{Client, PATIENCE, pause};

/// Nodes that were one ring when it was made.
pub struct Ring {
    pub nodes: Vec<Node>,
}

/// A settled ring of so many nodes; `args` are everybody's.
#[track_caller]
pub fn ring_of(size: usize, args: &[&str]) -> Ring {
    let creator = Node::create(args);
    let seed = creator.peers.to_string();
    let joiners: Vec<Process> = (1..size).map(|_| Process::node(&[&["--join", &seed], args].concat())).collect();
    let ring = Ring { nodes: std::iter::once(creator).chain(joiners.into_iter().map(Process::listening)).collect() };
    ring.wait_settled();
    ring
}

impl Ring {
    /// Waits until every node sees exactly these nodes as one ordered cycle, each slot with its copies where they belong.
    #[track_caller]
    pub fn wait_settled(&self) -> RingReport {
        let mut reports = self.nodes.iter().map(|node| wait_settled(node.http, self.nodes.len(), PATIENCE));
        let first = reports.next().expect("a node");
        reports.for_each(drop);
        first
    }

    /// The same client for each node.
    pub fn clients(&self) -> Vec<Client> {
        self.nodes.iter().map(Node::client).collect()
    }

    pub fn https(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.http).collect()
    }
}

/// Waits until the node there sees a settled ring of so many.
#[track_caller]
pub fn wait_settled(http: SocketAddr, size: usize, limit: Duration) -> RingReport {
    let mut client = Client::new(http);
    let end = Instant::now() + limit;
    loop {
        if let Some(report) = whole(&mut client, size).filter(is_in_place) {
            return report;
        }
        if Instant::now() >= end {
            let [ring, node] = ["/v1/ring", "/v1/node"]
                .map(|target| client.get(target).map_or_else(|error| error.to_string(), |answer| answer.text()));
            panic!("{http} does not see a settled ring of {size} within {limit:?}:\n{ring}\n{node}");
        }
        pause();
    }
}

/// The ring as this node sees it, if it is one ordered cycle of so many.
pub fn whole(client: &mut Client, size: usize) -> Option<RingReport> {
    let answer = client.get("/v1/ring").ok().filter(|answer| answer.status == 200)?;
    let report: RingReport = answer.json();
    (report.whole && report.nodes.len() == size && report.unreachable.is_empty()).then_some(report)
}

/// Whether every slot has its copies, nothing is left to move, and no node has more than its share and a quarter where all
/// know all. Said for nodes of equal weight.
fn is_in_place(report: &RingReport) -> bool {
    let count = u32::try_from(report.nodes.len()).expect("few");
    let copies = report.slots * u32::try_from(report.replicas).expect("few").min(count);
    let held: u32 = report.nodes.iter().map(|node| node.slots).sum();
    let bound = (copies / count) * 5 / 4 + 1;
    let is_even = report.nodes.iter().all(|node| node.slots <= bound);
    report.settled && held == copies && (is_even || report.nodes.len() > report.successors + 1)
}
