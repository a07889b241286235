//! Lookups of 1 to 4 hops between real node processes over loopback, recursive and iterative, next to a bare mio + prost
//! ping-pong between two processes with messages of the same size. The target is 1.3 ping-pongs a hop.
//!
//! `cargo bench --bench lookup_hops`, about a minute; a table is printed at the end, and nothing else with
//! `-- table`. All processes, this one included, are bound to one core: across cores each wake-up costs 12 or 40 µs as the
//! system pleases. The nodes route by fingers alone and keep short successor lists, as a ring of this size would answer
//! at the first hop otherwise. The table alternates between all cases, so that load on the machine meets them alike;
//! criterion's figures do not.
//!
//! Besides the one pair of processes there are `k` ping-pongs with `k` bare processes in turn. They show what it costs
//! that a lookup wakes processes whose memory has left the caches meanwhile, whatever they do then.

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use chordkv::base::{Capacity, Contact, Id, Rng};
use chordkv::overlay::NextHop;
use common::client::Client;
use common::echo::{self, Echo};
use common::nodes::{Node, pin_to_one_core};
use common::{PATIENCE, is_test_mode, micros, quantile};
use criterion::{BenchmarkId, Criterion};

const HOPS: [u32; 4] = [1, 2, 3, 4];
const NODES: usize = 24;
const NODES_IN_TEST: usize = 8;
const HOPS_IN_TEST: u32 = 2;
/// Targets kept for each number of hops.
const TARGETS: usize = 32;
/// Lookups that the search for targets may take.
const SEARCH_MAX: usize = 5_000;
/// Alternations of the table, and lookups of each case in one.
const ROUNDS: usize = 100;
const LOOKUPS_A_ROUND: usize = 50;

fn main() {
    echo::serve_if_told();
    if std::env::args().any(|arg| arg == "--list") {
        return;
    }
    let core = pin_to_one_core();
    let mut bench = Bench::start(if is_test_mode() { NODES_IN_TEST } else { NODES });
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    bench.run(&mut criterion);
    criterion.final_summary();
    let rounds = if is_test_mode() { 1 } else { ROUNDS };
    bench.print_table(rounds, core);
}

/// One kind of measurement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    /// So many ping-pongs, each with another bare process.
    Bare(u32),
    Recursive(u32),
    Iterative(u32),
}

struct Bench {
    nodes: Vec<Node>,
    echoes: [Echo; HOPS.len()],
    client: Client,
    entry: SocketAddr,
    /// For each number of hops, ids that are so far from the entry, and whose turn it is: recursively, where the owner
    /// itself answers, and iteratively, where the node before it does.
    targets: [[(Vec<Id>, usize); HOPS.len()]; 2],
    rng: Rng,
}

impl Bench {
    fn start(count: usize) -> Self {
        let flags = ["--routing", "fingers", "--successors", "2"];
        let first = Node::start(None, &flags);
        first.wait_created();
        let mut nodes = vec![first];
        for _ in 1..count {
            nodes.push(Node::start(Some(nodes[0].addr), &flags));
        }
        nodes[1..].iter().for_each(Node::wait_joined);
        let echoes = HOPS.map(|_| Echo::start());
        let mut client = Client::connect(nodes.iter().map(|node| node.addr).chain(echoes.iter().map(|echo| echo.addr)));
        let mut addrs: Vec<SocketAddr> = nodes.iter().map(|node| node.addr).collect();
        wait_whole(&mut client, &mut addrs);
        let entry = addrs[0];
        let mut bench = Self { nodes, echoes, client, entry, targets: Default::default(), rng: Rng::new(1) };
        bench.choose_entry(&addrs);
        bench
    }

    /// The node from which the rarest number of hops is the least rare.
    fn choose_entry(&mut self, addrs: &[SocketAddr]) {
        let mut best = 0;
        for &entry in addrs {
            let mut found = [0; HOPS.len()];
            for _ in 0..100 {
                let target = self.random_id();
                let (_, hops) = self.client.lookup(entry, target);
                if let Some(count) = found.get_mut(hops as usize - 1) {
                    *count += 1;
                }
            }
            let reached = found.iter().filter(|count| **count > 0).count();
            let score = reached * 1_000 + found.iter().min().copied().unwrap_or(0);
            if score > best {
                (best, self.entry) = (score, entry);
            }
        }
        for _ in 0..SEARCH_MAX {
            self.search();
        }
    }

    /// Looks one random id up and keeps it if it is wanted.
    fn search(&mut self) {
        let target = self.random_id();
        let ways = [self.client.lookup(self.entry, target).1, self.client.walk(self.entry, target).1];
        for (targets, hops) in self.targets.iter_mut().zip(ways) {
            if let Some((ids, _)) = targets.get_mut(hops as usize - 1)
                && ids.len() < TARGETS
            {
                ids.push(target);
            }
        }
    }

    fn random_id(&mut self) -> Id {
        Capacity::MAX.hash(&self.rng.next_u64().to_be_bytes())
    }

    fn cases(&self) -> Vec<Case> {
        let [recursive, iterative] = &self.targets;
        let reached = HOPS.into_iter().zip(recursive.iter().zip(iterative));
        let reached = reached.filter(|(_, (a, b))| !a.0.is_empty() && !b.0.is_empty()).map(|(hops, _)| hops);
        // In a ring of a few nodes the long ways are gone once its fingers are found.
        let reached = reached.filter(|hops| *hops <= HOPS_IN_TEST || !is_test_mode());
        reached.flat_map(|hops| [Case::Bare(hops), Case::Recursive(hops), Case::Iterative(hops)]).collect()
    }

    fn run(&mut self, criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("lookup_hops");
        for case in self.cases() {
            let id = match case {
                Case::Bare(hops) => BenchmarkId::new("bare", hops),
                Case::Recursive(hops) => BenchmarkId::new("recursive", hops),
                Case::Iterative(hops) => BenchmarkId::new("iterative", hops),
            };
            self.keep_connections();
            group.bench_function(id, |bencher| bencher.iter_custom(|count| (0..count).map(|_| self.once(case)).sum()));
        }
        group.finish();
    }

    /// Nodes give idle connections back.
    fn keep_connections(&mut self) {
        for node in &self.nodes {
            self.client.next_hop(node.addr, Id::ZERO);
        }
    }

    /// One measurement.
    fn once(&mut self, case: Case) -> Duration {
        let hops = match case {
            Case::Bare(hops) => {
                let start = Instant::now();
                for echo in &self.echoes[..hops as usize] {
                    self.client.lookup(echo.addr, Id::ZERO);
                }
                return start.elapsed();
            }
            Case::Recursive(hops) | Case::Iterative(hops) => hops,
        };
        let began = Instant::now();
        loop {
            let way = usize::from(matches!(case, Case::Iterative(_)));
            let (ids, turn) = &mut self.targets[way][hops as usize - 1];
            if ids.is_empty() {
                assert!(began.elapsed() < PATIENCE, "no more targets at {hops} hops");
                self.search();
                continue;
            }
            *turn = (*turn + 1) % ids.len();
            let (at, target) = (*turn, ids[*turn]);
            let start = Instant::now();
            let (_, passed) = match case {
                Case::Iterative(_) => self.client.walk(self.entry, target),
                _ => self.client.lookup(self.entry, target),
            };
            let took = start.elapsed();
            if passed == hops {
                return took;
            }
            // A finger was repaired: this target is nearer or farther now.
            self.targets[way][hops as usize - 1].0.swap_remove(at);
        }
    }

    fn print_table(&mut self, rounds: usize, core: Option<usize>) {
        self.keep_connections();
        let mut cases: Vec<(Case, Vec<Duration>)> = self.cases().into_iter().map(|case| (case, Vec::new())).collect();
        for _ in 0..rounds {
            for (case, samples) in &mut cases {
                samples.extend((0..LOOKUPS_A_ROUND).map(|_| self.once(*case)));
            }
        }
        let mut of = |wanted: Case| {
            let samples = cases.iter_mut().find(|(case, _)| *case == wanted).map(|(_, samples)| samples);
            samples.map(|samples| (micros(quantile(samples, 500)), micros(quantile(samples, 990))))
        };
        let Some((ping, ping_p99)) = of(Case::Bare(1)) else { return };
        let place = core.map_or("on any core".to_owned(), |core| format!("all on core {core}"));
        println!("\n{} nodes, {place}; {} measurements a cell, µs", self.nodes.len(), rounds * LOOKUPS_A_ROUND);
        println!("a ping-pong: p50 {ping:.1}, p99 {ping_p99:.1}; ratios are p50 / (hops x {ping:.1}), target 1.3\n");
        println!("           k bare processes         recursive              iterative");
        println!("hops      p50      p99  ratio      p50      p99  ratio      p50      p99  ratio");
        for hops in HOPS {
            print!("{hops:>4}");
            for case in [Case::Bare(hops), Case::Recursive(hops), Case::Iterative(hops)] {
                match of(case) {
                    Some((p50, p99)) => print!(" {p50:>8.1} {p99:>8.1} {:>6.2}", p50 / (f64::from(hops) * ping)),
                    None => print!("     no such path in this ring"),
                }
            }
            println!();
        }
    }
}

/// Waits until each node takes the next on the circle for its successor. Sorts `addrs` by that order.
fn wait_whole(client: &mut Client, addrs: &mut [SocketAddr]) {
    addrs.sort_by_key(|&addr| Contact::id_of(Capacity::MAX, addr));
    let end = Instant::now() + PATIENCE;
    for (at, &addr) in addrs.iter().enumerate() {
        let next = addrs[(at + 1) % addrs.len()];
        let id = Contact::id_of(Capacity::MAX, next);
        while !matches!(client.next_hop(addr, id), NextHop::Owner(owner) if owner.addr == next) {
            assert!(Instant::now() < end, "the ring is not whole in time");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
