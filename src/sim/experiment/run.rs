//! One ring at work: grown, perhaps broken at once, then under churn, while nodes look ids up.

use super::grow::{NoRing, grow};
use super::stats::{Tally, ratio};
use crate::base::{Capacity, Rng, Span, Time};
use crate::node::{ChordNode, Wishes};
use crate::overlay::{Overlay, OverlayConfig, Routing};
use crate::sim::{Check, Counters, HostId, Latency, LookupReport, NetworkConfig, World, WorldConfig};

/// What is done to a ring.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Members at the beginning.
    pub nodes: usize,
    /// Length r of the successor lists.
    pub successors: usize,
    /// The ring has 2^p slots.
    pub slot_bits: u32,
    /// Settings of every node.
    pub overlay: OverlayConfig,
    /// How long a frame takes.
    pub latency: Latency,
    /// What must hold after every step.
    pub check: Check,
    /// Rest between the last join and what follows.
    pub settle: Span,
    /// Members of a thousand that end at one moment.
    pub killed_per_mille: u64,
    /// How nodes end, here and later.
    pub departure: Departure,
    /// So many joins and as many ends an hour, at random moments.
    pub churn_per_hour: u64,
    /// For so long; the lookups are spread over it. Zero: all at the moment after the kill.
    pub duration: Span,
    /// Lookups of random ids at random members.
    pub lookups: usize,
    /// How long to wait in the end for the ring to be whole.
    pub mend: Span,
}

/// How a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The host with it: nobody is told, as in the papers.
    Silent,
    /// The process alone: its connections break.
    Crash,
    /// Either.
    Mixed,
}

/// What came of a [`Plan`].
#[derive(Clone, Debug)]
pub struct Outcome {
    /// From the first node to the whole ring.
    pub grown_in: Span,
    /// How the lookups went.
    pub lookups: Lookups,
    /// Members in the end.
    pub members: usize,
    /// What the whole run saw.
    pub counters: Counters,
    /// What was seen from the kill to the end of the duration.
    pub traffic: Traffic,
    /// From the end of the duration until the ring was whole; `None`: it was not, or not waited for.
    pub whole_after: Option<Span>,
    /// Equal for equal runs.
    pub trace_hash: u64,
}

/// How lookups went.
#[derive(Clone, Debug, Default)]
pub struct Lookups {
    /// Asked of a node that lived until the answer.
    pub asked: usize,
    /// Not answered before their deadline.
    pub failed: usize,
    /// Answered, but not before the origin began again: without that, they might have failed.
    pub retried: usize,
    /// Answered by a node that was not the owner at any moment since the question.
    pub wrong: usize,
    /// Nodes that each answered one passed through, origin not counted.
    pub hops: Tally,
    /// Nodes that did not answer in time on its way, of each answered one.
    pub silent: Tally,
    /// All such nodes while there were lookups, those of attempts that came to nothing and of the upkeep of fingers too.
    pub silent_in_all: u64,
    /// How long each answered one took, in µs.
    pub took: Tally,
}

/// What nodes sent.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Messages delivered.
    pub messages: u64,
    /// Payload bytes of all messages.
    pub bytes: u64,
    /// Those of the ring among them.
    pub bytes_of_ring: u64,
    /// Members added up over time, in member-milliseconds.
    pub member_ms: u64,
    /// Every few seconds: when, members then, bytes since the sample before per node and second.
    pub samples: Vec<Sample>,
}

/// A look at a run.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Since the kill.
    pub at: Span,
    /// Members.
    pub members: usize,
    /// Payload bytes per node and second since the last look.
    pub bytes: f64,
}

/// How often joins, ends and lookups are drawn.
const TICK: Span = Span::millis(10);
const TICKS_AN_HOUR: u64 = 360_000;
/// Samples in one run, about.
const SAMPLES: u64 = 100;
/// Beyond the deadline of the last lookup.
const GRACE: Span = Span::secs(2);

impl Plan {
    /// A ring at rest with the settings of `chordkv node`.
    pub fn new(seed: u64, nodes: usize) -> Self {
        Self {
            seed,
            nodes,
            successors: 16,
            slot_bits: 10,
            overlay: OverlayConfig::default(),
            latency: NetworkConfig::default().latency,
            check: Check::Nodes,
            settle: Span::secs(30),
            killed_per_mille: 0,
            departure: Departure::Silent,
            churn_per_hour: 0,
            duration: Span::ZERO,
            lookups: 0,
            mend: Span::ZERO,
        }
    }

    /// The same with this routing.
    pub fn with_routing(mut self, routing: Routing) -> Self {
        self.overlay.routing = routing;
        self
    }
}

impl Traffic {
    /// Payload bytes per node and second.
    pub fn bytes_per_node(&self) -> f64 {
        ratio(self.bytes * 1_000, self.member_ms)
    }

    /// Those of the ring.
    pub fn ring_bytes_per_node(&self) -> f64 {
        ratio(self.bytes_of_ring * 1_000, self.member_ms)
    }

    /// Messages per node and second.
    pub fn messages_per_node(&self) -> f64 {
        ratio(self.messages * 1_000, self.member_ms)
    }
}

/// Runs a plan. `progress` is told how far it is, in thousandths.
pub fn run(plan: &Plan, progress: &mut dyn FnMut(u64)) -> Result<Outcome, NoRing> {
    let mut stage = Stage::build(plan, progress)?;
    let grown_in = stage.world.now().since(Time::default());
    stage.world.run_for(plan.settle);
    stage.kill();
    let time_outs = stage.time_outs();
    let traffic = stage.work(progress);
    let ended = stage.world.now();
    let patience = plan.overlay.lookup_deadline + GRACE;
    stage.world.run_until(patience, |world| world.lookups_waiting() == 0);
    stage.judge();
    let silent_in_all = stage.time_outs().saturating_sub(time_outs);
    let whole = plan.mend > Span::ZERO && stage.world.run_until(plan.mend, |world| world.is_whole());
    let world = &stage.world;
    Ok(Outcome {
        grown_in,
        lookups: Lookups { silent_in_all, ..Lookups::of(&stage.reports, plan.overlay.lookup_retry) },
        members: world.ring().len(),
        counters: world.counters(),
        traffic,
        whole_after: whole.then(|| world.now().since(ended)),
        trace_hash: world.trace_hash(),
    })
}

/// A world of this plan, with nobody in it.
pub fn world_of(plan: &Plan) -> World {
    let mut config = WorldConfig::new(plan.seed);
    config.wishes = Wishes { successors: Some(plan.successors), slot_bits: Some(plan.slot_bits), ..Wishes::default() };
    config.overlay = plan.overlay.clone();
    config.network.latency = plan.latency;
    config.check = plan.check;
    World::new(config)
}

struct Stage<'a> {
    plan: &'a Plan,
    world: World,
    // The world's own draws must not depend on what the script draws.
    script: Rng,
    // Hosts whose process runs.
    running: Vec<HostId>,
    asked: usize,
    reports: Vec<LookupReport>,
}

impl<'a> Stage<'a> {
    fn build(plan: &'a Plan, progress: &mut dyn FnMut(u64)) -> Result<Self, NoRing> {
        let mut world = world_of(plan);
        let share = if plan.duration > Span::ZERO { GROWTH_SHARE } else { 1_000 };
        let running = grow(&mut world, plan.nodes, &mut |count| progress(share * count as u64 / plan.nodes as u64))?;
        let script = Rng::new(plan.seed ^ 0x5eed);
        Ok(Self { plan, world, script, running, asked: 0, reports: Vec::new() })
    }

    fn kill(&mut self) {
        let victims = self.running.len() * usize::try_from(self.plan.killed_per_mille).unwrap_or(0) / 1_000;
        for _ in 0..victims {
            self.end_one();
        }
    }

    /// Ends a random node; the last one stays.
    fn end_one(&mut self) {
        if self.running.len() < 2 {
            return;
        }
        let host = self.running.swap_remove(self.script.index(self.running.len()));
        let silent = match self.plan.departure {
            Departure::Silent => true,
            Departure::Crash => false,
            Departure::Mixed => self.script.chance(500),
        };
        if silent {
            self.world.vanish(host);
        } else {
            self.world.crash(host);
        }
    }

    fn join_one(&mut self) {
        let seeds: Vec<HostId> = (0..3).filter_map(|_| self.member()).collect();
        let host = self.world.start(&seeds);
        self.running.push(host);
    }

    /// A random member, if one is found soon.
    fn member(&mut self) -> Option<HostId> {
        let is_member = |world: &World, host| {
            world.node(host).and_then(ChordNode::overlay).is_some_and(|overlay| overlay.standing().is_member())
        };
        let draws = self.running.len() * 4;
        (0..draws)
            .map(|_| self.running[self.script.index(self.running.len())])
            .find(|host| is_member(&self.world, *host))
    }

    fn look_up(&mut self) {
        let target = Capacity::MAX.random(&mut self.script);
        if let Some(host) = self.member() {
            self.world.look_up(host, target);
            self.asked += 1;
        }
    }

    fn time_outs(&self) -> u64 {
        let overlays = self.running.iter().filter_map(|host| self.world.node(*host).and_then(ChordNode::overlay));
        overlays.map(Overlay::time_outs).sum()
    }

    fn judge(&mut self) {
        self.reports.extend(self.world.take_answers());
    }

    /// The duration of the plan, with its churn and its lookups.
    fn work(&mut self, progress: &mut dyn FnMut(u64)) -> Traffic {
        let plan = self.plan;
        let (start, before) = (self.world.now(), self.world.counters());
        let mut traffic = Traffic::default();
        let pause = Span((plan.duration.0 / SAMPLES).max(TICK.0));
        let mut last = (Span::ZERO, before.bytes, 0);
        loop {
            let passed = self.world.now().since(start).min(plan.duration);
            let is_over = passed == plan.duration;
            let due = if is_over { plan.lookups } else { share_of(plan.lookups, passed, plan.duration) };
            while self.asked < due && self.member().is_some() {
                self.look_up();
            }
            self.judge();
            let members = self.world.ring().len();
            if passed >= last.0 + pause || is_over && passed > last.0 {
                let bytes = self.world.counters().bytes;
                let bytes_per_ms = ratio((bytes - last.1) * 1_000, traffic.member_ms - last.2);
                traffic.samples.push(Sample { at: passed, members, bytes: bytes_per_ms });
                last = (passed, bytes, traffic.member_ms);
                progress(GROWTH_SHARE + (1_000 - GROWTH_SHARE) * passed.0 / plan.duration.0.max(1));
            }
            if is_over {
                break;
            }
            // One draw for each kind and tick: more than one event a tick is too rare to matter.
            if self.script.below(TICKS_AN_HOUR) < plan.churn_per_hour {
                self.join_one();
            }
            if self.script.below(TICKS_AN_HOUR) < plan.churn_per_hour {
                self.end_one();
            }
            traffic.member_ms += members as u64 * TICK.as_millis();
            self.world.run_for(TICK);
        }
        let after = self.world.counters();
        traffic.messages = after.messages - before.messages;
        traffic.bytes = after.bytes - before.bytes;
        traffic.bytes_of_ring = after.bytes_of_ring - before.bytes_of_ring;
        traffic
    }
}

impl Lookups {
    fn of(reports: &[LookupReport], retry: Span) -> Self {
        let answers = || reports.iter().filter_map(|report| report.result.ok());
        Self {
            asked: reports.len(),
            failed: reports.len() - answers().count(),
            retried: answers().filter(|answer| answer.took >= retry).count(),
            wrong: reports.iter().filter(|report| report.result.is_ok() && !report.right).count(),
            hops: Tally::of(answers().map(|answer| u64::from(answer.hops)).collect()),
            silent: Tally::of(answers().map(|answer| u64::from(answer.silent)).collect()),
            silent_in_all: 0,
            took: Tally::of(answers().map(|answer| answer.took.0).collect()),
        }
    }

    /// Time-outs for each lookup, at most: see [`Lookups::silent_in_all`].
    pub fn time_outs_at_most(&self) -> f64 {
        ratio(self.silent_in_all, self.asked as u64)
    }

    /// How many of 10,000 had no answer.
    pub fn failed_of_10_000(&self) -> f64 {
        ratio(self.failed as u64 * 10_000, self.asked as u64)
    }

    /// How many of 10,000 had none before the origin began again, or none at all.
    pub fn unanswered_at_first_of_10_000(&self) -> f64 {
        ratio((self.failed + self.retried) as u64 * 10_000, self.asked as u64)
    }
}

fn share_of(lookups: usize, passed: Span, all: Span) -> usize {
    let due = u128::from(passed.0) * lookups as u128 / u128::from(all.0.max(1));
    usize::try_from(due).unwrap_or(lookups)
}

/// Of the time that a run takes, for a bar: thousandths that growing is taken to be.
const GROWTH_SHARE: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn small(seed: u64) -> Plan {
        Plan { settle: Span::secs(20), duration: Span::secs(20), lookups: 200, slot_bits: 3, ..Plan::new(seed, 40) }
    }

    #[test]
    fn a_ring_at_rest_answers_every_lookup_in_one_hop_and_right() {
        let outcome = run(&small(1), &mut |_| {}).unwrap();
        let lookups = &outcome.lookups;
        assert_eq!((lookups.asked, lookups.failed, lookups.wrong, lookups.silent.sum()), (200, 0, 0, 0));
        assert!(lookups.hops.max() <= 2 && lookups.hops.mean() < 1.1, "{:?}", lookups.hops.counts());
        assert_eq!(outcome.members, 40);
        assert!(outcome.traffic.bytes_per_node() > 10.0 && outcome.traffic.samples.len() >= 90);
    }

    #[test]
    fn equal_plans_give_equal_runs_and_progress_only_grows() {
        let churned = |seed| Plan { churn_per_hour: 3_600, killed_per_mille: 200, mend: Span::secs(60), ..small(seed) };
        let mut told = Vec::new();
        let [a, b, c] = [4, 4, 5].map(|seed| run(&churned(seed), &mut |at| told.push(at)).unwrap());
        assert_eq!((a.trace_hash, a.lookups.took.clone()), (b.trace_hash, b.lookups.took));
        assert_ne!(a.trace_hash, c.trace_hash);
        assert!(a.counters.vanished > 8 && a.counters.joined > 45 && a.whole_after.is_some(), "{:?}", a.counters);
        assert_eq!(a.lookups.wrong, 0);
        assert!(told.iter().all(|at| *at <= 1_000) && told.contains(&1_000));
    }

    #[test]
    fn with_fingers_only_half_the_ring_may_vanish_and_no_lookup_ends_at_a_wrong_owner() {
        let plan = Plan { killed_per_mille: 500, duration: Span::ZERO, ..small(2) }.with_routing(Routing::FingersOnly);
        let outcome = run(&plan, &mut |_| {}).unwrap();
        assert_eq!((outcome.members, outcome.lookups.asked, outcome.lookups.wrong), (20, 200, 0));
        assert!(outcome.lookups.silent.sum() > 50 && outcome.lookups.failed == 0, "{:?}", outcome.lookups);
    }
}
