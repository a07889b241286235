//! The protocol of the copies alone, tried at random: one slot, a few keys, five nodes of which three hold it, every
//! message late, lost or doubled, nodes that crash and come back, views that change all the time. What users are told is
//! judged, and every rule that is taken away must be missed.

mod members;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::linear::{History, Op, Wanted};
use crate::base::{Contact, Incarnation, Rng, Wall};
use crate::data::register::{Accepted, Ballot, OpId, Register, State, grant};
use crate::data::{Command, Condition, Outcome, Put, Tag, Version};
use crate::replication::View;
use crate::replication::chain::{Chain, Election, Members, Promise, Turn};
use crate::replication::proposal::{Next, Proposal};

/// A rule that is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    Completeness,
    AdoptedBids,
    OperationIds,
    MajorityReads,
    MajorityFetches,
    Promises,
    CommittedRefusals,
    SameBallots,
    Freezing,
    Settling,
    LostWord,
}

#[derive(Clone, Debug)]
enum Message {
    Views,
    Read { try_: u64, key: u8, epoch: u64 },
    Told { try_: u64, accepted: Option<Accepted> },
    Prepare { try_: u64, key: u8, ballot: Ballot },
    Promised { try_: u64, ballot: Ballot, accepted: Option<Accepted> },
    Accept { try_: u64, key: u8, ballot: Ballot, state: State },
    Accepted { try_: u64, ballot: Ballot },
    Refused { try_: u64, ballot: Ballot, promised: Ballot },
    Elect { epoch: u64, turn: Turn },
    Elected { epoch: u64, turn: Turn, promise: Promise },
    Vote { epoch: u64, turn: Turn, members: Members },
    Voted { epoch: u64, turn: Turn },
    Fetch { epoch: u64 },
    Fetched { epoch: u64, registers: Vec<(u8, Accepted)> },
    Complete { epoch: u64 },
}

#[derive(Debug)]
struct Node {
    // On disk.
    chain: Chain,
    registers: BTreeMap<u8, Register>,
    life: u64,
    // Not on disk.
    now: Volatile,
}

#[derive(Debug, Default)]
struct Volatile {
    // The epoch that this process has seen begin as its first member, and its latest ballot for each key.
    leads: Option<u64>,
    steps: BTreeMap<u8, u64>,
    unsettled: BTreeSet<u8>,
    rounds: u64,
    running: BTreeMap<u64, Running>,
    election: Option<Election>,
    fetched: Option<(u64, BTreeSet<Incarnation>)>,
}

#[derive(Debug)]
struct Running {
    key: u8,
    proposal: Proposal,
    leads: bool,
    /// Above which ballot to begin again.
    outdone: Option<Ballot>,
}

struct World {
    rng: Rng,
    without: Without,
    nodes: Vec<Node>,
    net: Vec<(usize, usize, Vec<View>, Message)>,
    histories: BTreeMap<u8, History>,
    versions: BTreeMap<u8, BTreeMap<Version, u64>>,
    asked: BTreeMap<u64, (u8, Op)>,
    next: u64,
    calm: bool,
    answered: u64,
    views: u64,
    decided: BTreeMap<u64, Members>,
    fault: Option<String>,
}

const NODES: usize = 5;
const KEYS: u8 = 3;
/// Operations on one key without an answer.
const OPEN_MAX: usize = 7;
const NOW: Wall = Wall(1);

fn contact(node: usize) -> Contact {
    let port = u16::try_from(node + 1).expect("few");
    Contact::new(crate::base::Capacity::MAX, ([10, 0, 0, 1], port).into(), Incarnation(node as u128 + 1))
}

impl World {
    fn new(seed: u64, without: Without) -> Self {
        let first = View { epoch: 1, members: (0..3).map(contact).collect() };
        let node = |node: usize| {
            let me = contact(node).incarnation;
            let holds = first.has(me);
            let chain = if holds { Chain::create(first.clone(), me) } else { Chain::new(me) };
            let leads = (node == 0).then_some(1);
            Node { chain, registers: BTreeMap::new(), life: 0, now: Volatile { leads, ..Volatile::default() } }
        };
        Self {
            rng: Rng::new(seed),
            without,
            nodes: (0..NODES).map(node).collect(),
            net: Vec::new(),
            histories: (0..KEYS).map(|key| (key, History::default())).collect(),
            versions: (0..KEYS).map(|key| (key, BTreeMap::new())).collect(),
            asked: BTreeMap::new(),
            next: 0,
            calm: false,
            answered: 0,
            views: 1,
            decided: BTreeMap::new(),
            fault: None,
        }
    }

    fn send(&mut self, from: usize, to: Incarnation, message: Message) {
        let to = usize::try_from(to.0 - 1).expect("few");
        let views = self.nodes[from].chain.views();
        if !self.calm && from != to && self.rng.chance(60) {
            return;
        }
        if !self.calm && self.rng.chance(40) {
            self.net.push((from, to, views.clone(), message.clone()));
        }
        self.net.push((from, to, views, message));
    }

    fn send_all(&mut self, from: usize, view: &View, message: &Message) {
        for member in view.members.iter() {
            self.send(from, member.incarnation, message.clone());
        }
    }

    // ----- users -----

    fn ask(&mut self, node: usize) {
        let key = u8::try_from(self.rng.below(u64::from(KEYS))).expect("few");
        let Some(view) = self.nodes[node].chain.newest().cloned() else { return };
        // What was never answered may take effect at any time: the checker tries all of it.
        if self.asked.values().filter(|(of, _)| *of == key).count() >= OPEN_MAX {
            return;
        }
        self.next += 1;
        let number = self.next;
        let (op, command) = draw(&mut self.rng, number, &self.versions[&key]);
        self.histories.get_mut(&key).expect("a key").call(number, op);
        self.asked.insert(number, (key, op));
        let id = OpId { node: contact(node).incarnation, n: number, issued: Wall(number) };
        let proposal = Proposal::new(id, command, view, false, NOW);
        self.nodes[node].now.running.insert(number, Running { key, proposal, leads: false, outdone: None });
        self.begin(node, number);
    }

    /// Begins a try of an operation.
    fn begin(&mut self, at: usize, number: u64) {
        let me = contact(at).incarnation;
        let without = self.without;
        let node = &mut self.nodes[at];
        let Some(newest) = node.chain.newest().cloned() else { return };
        let key = node.now.running[&number].key;
        let others = node.now.running.iter().any(|(n, run)| *n != number && run.key == key && run.leads);
        let Some(run) = node.now.running.get_mut(&number) else { return };
        if run.proposal.view != newest {
            let again = run.proposal.again;
            run.proposal = Proposal::new(run.proposal.id, run.proposal.command.clone(), newest.clone(), again, NOW);
        }
        if without == Without::OperationIds && run.proposal.again {
            run.proposal.again = false;
            run.proposal.id.n += 1_000_000;
        }
        let seen = run.outdone.take();
        run.leads = false;
        if seen.is_none() && run.proposal.command == Command::Get {
            let next = run.proposal.read();
            self.go_on(at, number, next);
            return;
        }
        let granted = node.now.leads == Some(newest.epoch) && node.chain.served() == Some(&newest);
        let own = node.registers.get(&key).and_then(Register::accepted);
        let mine = own.is_none_or(|own| {
            own.copied || own.ballot.epoch < newest.epoch || own.ballot.round == 0 && own.ballot.node == me
        });
        let leads = granted && mine && !others && (without == Without::Settling || !node.now.unsettled.contains(&key));
        let next = if leads {
            let step = node.now.steps.entry(key).or_default();
            *step += 1;
            let ballot = Ballot { n: *step, ..grant(newest.epoch, me) };
            run.leads = true;
            node.now.unsettled.insert(key);
            run.proposal.lead(ballot, own.map(|own| &own.state))
        } else {
            let round = seen.filter(|seen| seen.epoch == newest.epoch).map_or(0, |seen| seen.round >> 8);
            node.now.rounds = node.now.rounds.max(round) + 1;
            let round = node.now.rounds << 8 | node.life & 0xff;
            run.proposal.prepare(Ballot { epoch: newest.epoch, round, node: me, n: 0 })
        };
        self.go_on(at, number, next);
    }

    fn go_on(&mut self, at: usize, number: u64, next: Next) {
        let Some(run) = self.nodes[at].now.running.get(&number) else { return };
        let (key, view) = (run.key, run.proposal.view.clone());
        match next {
            Next::Read => self.send_all(at, &view, &Message::Read { try_: number, key, epoch: view.epoch }),
            Next::Prepare(ballot) => self.send_all(at, &view, &Message::Prepare { try_: number, key, ballot }),
            Next::Accept(ballot, state) => {
                if self.without == Without::CommittedRefusals
                    && let Some(outcome @ Outcome::PreconditionFailed(_)) = state.outcome_of(run.proposal.id)
                {
                    self.done(at, number, outcome);
                    return;
                }
                if self.nodes[at].now.running[&number].leads {
                    // Its own vote goes first: the next operation begins with what is here.
                    let me = contact(at).incarnation;
                    let register = self.nodes[at].registers.entry(key).or_default();
                    if register.accept(grant(ballot.epoch, me), ballot, state.clone()).is_err() {
                        self.give_up(at, number, ballot);
                        return;
                    }
                    let next =
                        self.nodes[at].now.running.get_mut(&number).expect("it runs").proposal.accepted(me, ballot);
                    self.go_on(at, number, next);
                }
                self.send_all(at, &view, &Message::Accept { try_: number, key, ballot, state });
            }
            Next::Done(outcome) => self.done(at, number, &outcome),
            Next::Unknown | Next::Doubtful => {
                self.nodes[at].now.running.remove(&number);
            }
            Next::Outdone(by) => self.give_up(at, number, by),
            Next::Wait => {}
        }
    }

    fn give_up(&mut self, at: usize, number: u64, by: Ballot) {
        if let Some(run) = self.nodes[at].now.running.get_mut(&number) {
            run.outdone = Some(by);
        }
    }

    fn done(&mut self, at: usize, number: u64, outcome: &Outcome) {
        let Some(run) = self.nodes[at].now.running.remove(&number) else { return };
        if run.leads {
            self.nodes[at].now.unsettled.remove(&run.key);
        }
        let Some((key, op)) = self.asked.remove(&number) else { return };
        let versions = self.versions.get_mut(&key).expect("a key");
        let told = super::clients::told(op, number, outcome, versions);
        self.histories.get_mut(&key).expect("a key").answer(number, told);
        self.answered += 1;
    }

    /// What a node does by itself from time to time.
    fn tick(&mut self, at: usize) {
        let numbers: Vec<u64> = self.nodes[at].now.running.keys().copied().collect();
        for number in numbers {
            let run = &self.nodes[at].now.running[&number];
            let moved = self.nodes[at].chain.newest().is_some_and(|newest| *newest != run.proposal.view);
            let stuck = self.rng.chance(if self.calm { 30 } else { 300 });
            if run.outdone.is_some() || moved || stuck {
                if run.proposal.command == Command::Get && run.outdone.is_none() && run.proposal.ballot().is_none() {
                    self.begin(at, number);
                    continue;
                }
                let seen = run.outdone.or(run.proposal.ballot());
                if let Some(run) = self.nodes[at].now.running.get_mut(&number) {
                    run.outdone = Some(seen.unwrap_or(grant(0, Incarnation(0))));
                }
                self.begin(at, number);
            }
        }
        for (_, of) in self.nodes[at].chain.wanted() {
            self.send_all(at, &of, &Message::Fetch { epoch: of.epoch });
        }
        let me = contact(at).incarnation;
        let Some(newest) = self.nodes[at].chain.newest().cloned() else { return };
        if self.nodes[at].chain.has_records(newest.epoch) {
            self.send_all(at, &newest, &Message::Complete { epoch: newest.epoch });
        }
        // Frozen, and nobody who would come next is known; or somebody wants another view.
        let frozen = self.nodes[at].chain.has_records(newest.epoch) && self.nodes[at].chain.served().is_none();
        if newest.has(me) && (frozen || !self.calm && self.rng.chance(90)) {
            let mut members = newest.members.to_vec();
            if !self.calm && self.rng.chance(700) {
                let out = self.rng.index(members.len());
                let others: Vec<Contact> = (0..NODES).map(contact).filter(|c| !members.contains(c)).collect();
                members[out] = others[self.rng.index(others.len())];
            }
            let first = self.rng.index(members.len());
            members.rotate_left(first);
            self.nodes[at].now.rounds += 1;
            // Above all of earlier lives.
            let turn = Turn { n: self.nodes[at].now.rounds << 8 | self.nodes[at].life & 0xff, node: me };
            let wish: Members = Arc::from(members);
            self.nodes[at].now.election = Some(Election::new(newest.clone(), turn, wish));
            self.send_all(at, &newest, &Message::Elect { epoch: newest.epoch, turn });
        }
        for other in 0..NODES {
            if self.rng.chance(100) {
                self.send(at, contact(other).incarnation, Message::Views);
            }
        }
    }

    fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.life += 1;
        // The process has the word no more: it does not know what it has said.
        let leads = node.now.leads.filter(|_| self.without == Without::LostWord);
        node.now = Volatile { leads, ..Volatile::default() };
        if self.without == Without::Promises {
            for register in node.registers.values_mut() {
                let mut again = Register::default();
                if let Some(accepted) = register.accepted().cloned() {
                    let word = grant(0, Incarnation(0));
                    let _ = again.accept(word, accepted.ballot, accepted.state);
                }
                *register = again;
            }
        }
        // Whoever asked through it is never answered.
        let lost: Vec<u64> = self.asked.iter().filter(|(_, (_, op))| *op == Op::Read(None)).map(|(n, _)| *n).collect();
        for number in lost {
            if !self.nodes.iter().any(|node| node.now.running.contains_key(&number))
                && let Some((key, _)) = self.asked.remove(&number)
            {
                self.histories.get_mut(&key).expect("a key").never(number);
            }
        }
    }

    fn step(&mut self) {
        let dice = self.rng.below(100);
        let at = self.rng.index(NODES);
        if dice < if self.calm { 97 } else { 78 } && !self.net.is_empty() {
            let (from, to, views, message) = self.net.swap_remove(self.rng.index(self.net.len()));
            self.deliver(from, to, &views, message);
        } else if self.calm || dice < 90 {
            self.tick(at);
        } else if dice < 99 {
            if self.nodes.iter().map(|node| node.now.running.len()).sum::<usize>() < 5 {
                self.ask(at);
            }
        } else if self.rng.chance(500) {
            self.crash(at);
        }
    }

    /// `Err`: users were told what cannot be true, or nobody serves in the end.
    fn run(&mut self) -> Result<(), String> {
        for _ in 0..3_000 {
            self.step();
        }
        self.calm = true;
        for _ in 0..20_000 {
            self.step();
            let serving =
                self.nodes.iter().filter(|node| node.chain.served().map(|v| v.epoch) == Some(self.views)).count();
            let idle = self.nodes.iter().all(|node| node.now.running.is_empty());
            if serving == 3 && idle {
                break;
            }
        }
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        for (key, history) in &mut self.histories {
            history.check().map_err(|why| format!("key {key}: {why}"))?;
        }
        let idle = self.nodes.iter().all(|node| node.now.running.is_empty());
        let serving = self.nodes.iter().filter(|node| node.chain.served().is_some()).count();
        if idle && serving >= 2 { Ok(()) } else { Err(format!("the slot is stuck: {serving} serve")) }
    }
}

/// What a user does next to a key of which these versions are known.
fn draw(rng: &mut Rng, number: u64, versions: &BTreeMap<Version, u64>) -> (Op, Command) {
    match rng.below(10) {
        0..=3 => (Op::Read(None), Command::Get),
        4..=6 if !versions.is_empty() => {
            let back = rng.index(versions.len().min(3));
            let (version, value) = versions.iter().nth_back(back).expect("one of them");
            let condition = Condition { if_match: Some(Tag::Of(vec![*version])), if_none_match: None };
            (Op::Put { wanted: Wanted::Value(*value), told: None }, put(number, condition))
        }
        7 => (Op::Delete(None), Command::Delete(Condition::default())),
        _ => (Op::Put { wanted: Wanted::Any, told: None }, put(number, Condition::default())),
    }
}

fn put(value: u64, condition: Condition) -> Command {
    Command::Put(Put { value: Arc::from(value.to_string().into_bytes()), content_type: None, ttl_ms: None, condition })
}

/// What is wrong in the run of this seed, if anything is.
fn tried(seed: u64, without: Without) -> (Option<String>, u64, u64) {
    let mut world = World::new(seed, without);
    let wrong = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(_) => Some("it panicked".to_owned()),
    };
    (wrong, world.answered, world.views)
}

/// A delete that was tried again said that it found nothing, and its first try came to light later; who got the word
/// in the midst of an operation took promises of before for an answer.
const FOUND: [u64; 2] = [1_795_684_183_893_771_169, 1_795_684_555_271_955_157];

/// `CHORDKV_SEED` replays one, `CHORDKV_SEEDS` says how many fresh ones are tried.
#[test]
fn what_users_are_told_is_linearizable_whatever_happens() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let fresh = u64::try_from(clock & u128::from(u64::MAX >> 1)).expect("63 bits");
    let count = number("CHORDKV_SEEDS").unwrap_or(500);
    let seeds: Vec<u64> = match number("CHORDKV_SEED") {
        Some(seed) => vec![seed],
        None => (1..=1_500).chain(FOUND).chain((0..count).map(|n| fresh.wrapping_add(n))).collect(),
    };
    let (mut answered, mut views) = (0, 0);
    for seed in &seeds {
        let (wrong, of_answered, of_views) = tried(*seed, Without::Nothing);
        answered += of_answered;
        views += of_views;
        if let Some(why) = wrong {
            panic!("{why}\nreplay: CHORDKV_SEED={seed} cargo test --lib copies::what_users");
        }
    }
    println!("{} runs, {answered} operations answered, {views} views", seeds.len());
    let runs = seeds.len() as u64;
    assert!(runs == 1 || answered > runs * 10 && views > runs * 3, "{answered} operations, {views} views");
}

#[test]
fn each_rule_that_is_taken_away_is_missed() {
    use Without::{
        AdoptedBids, CommittedRefusals, Completeness, Freezing, LostWord, MajorityFetches, MajorityReads, OperationIds,
        Promises, SameBallots, Settling,
    };
    for without in [
        Completeness,
        AdoptedBids,
        OperationIds,
        MajorityReads,
        MajorityFetches,
        Promises,
        CommittedRefusals,
        SameBallots,
        Freezing,
        Settling,
        LostWord,
    ] {
        let missed = (1..=4_000).find_map(|seed| tried(seed, without).0.map(|why| (seed, why)));
        let (seed, why) = missed.unwrap_or_else(|| panic!("nobody misses {without:?}"));
        println!("{without:?}: seed {seed}: {}", why.lines().next().unwrap_or_default());
    }
}
