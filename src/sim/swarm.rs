//! Random runs: a script of some hundred events drawn from a seed, played in a world, then quiet and the reckoning.
//!
//! Two modes (`protocol.md` section 5). *Safe*: only what Zave's proof allows may happen, and the ring invariant and every
//! answer to a lookup are checked at every step. *Wild*: anything may happen, as often as it likes; only what each node
//! can see for itself is checked, and afterwards, when the network is whole again, the ring must become whole too and
//! every lookup right. A script is a list of events that are chosen by numbers, whatever the world looks like by then: so
//! any part of it is a script as well, and a failing one can be made short.

use std::collections::BTreeSet;
use std::fmt;

use super::counters::Counters;
use super::network::Latency;
use super::world::{Check, HostId, World, WorldConfig};
use crate::base::{Rng, Span};
use crate::node::Wishes;
use crate::overlay::Standing;

/// What may happen in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// See the module.
    Safe,
    /// See the module.
    Wild,
}

/// One event and the pause before it. Numbers choose among what there is when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Before it.
    pub pause: Span,
    /// What happens.
    pub action: Action,
    /// Chooses a host, or whatever else the action needs.
    pub choice: u64,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A node joins through some members.
    Join,
    /// Several at once.
    JoinBurst,
    /// A member leaves in order.
    Leave,
    /// A process ends without a word.
    Crash,
    /// A host goes dark without a word.
    Vanish,
    /// A host without a process gets a new one, with nothing remembered.
    Restart,
    /// The same, with what its disk remembers and no seed that need be alive.
    Return,
    /// A process is stopped.
    Freeze,
    /// A stopped process goes on.
    Thaw,
    /// The hosts fall into two or three parts.
    Part,
    /// All parts are one again.
    Unite,
    /// The way from one host to another is blocked, and not back.
    OneWay,
    /// Some pairs of hosts cannot reach each other.
    Sever,
    /// Frames get lost.
    Lose,
    /// Frames arrive twice.
    Double,
    /// Frames pass each other.
    Overtake,
    /// A host becomes slow, or fast again.
    Slow,
    /// A wall clock jumps by up to an hour.
    JumpWall,
    /// The network is what it was in the beginning.
    Mend,
    /// A node looks an id up.
    LookUp,
}

/// What a run showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Of the whole run.
    pub trace_hash: u64,
    /// What happened.
    pub counters: Counters,
    /// Virtual time from the last fault until the ring was whole.
    pub whole_after: Span,
    /// Two rings were left of which neither had heard of any living member of the other.
    pub introduced: bool,
}

const SAFE: &[(Action, u64)] = &[
    (Action::Join, 14),
    (Action::JoinBurst, 3),
    (Action::Leave, 8),
    (Action::Crash, 8),
    (Action::Restart, 6),
    (Action::Double, 2),
    (Action::Overtake, 2),
    (Action::Slow, 3),
    (Action::JumpWall, 2),
    (Action::Mend, 2),
    (Action::LookUp, 50),
];

const WILD: &[(Action, u64)] = &[
    (Action::Join, 9),
    (Action::JoinBurst, 2),
    (Action::Leave, 4),
    (Action::Crash, 5),
    (Action::Vanish, 3),
    (Action::Restart, 5),
    (Action::Return, 5),
    (Action::Freeze, 3),
    (Action::Thaw, 4),
    (Action::Part, 1),
    (Action::Unite, 3),
    (Action::OneWay, 3),
    (Action::Sever, 1),
    (Action::Lose, 2),
    (Action::Double, 2),
    (Action::Overtake, 2),
    (Action::Slow, 2),
    (Action::JumpWall, 2),
    (Action::Mend, 2),
    (Action::LookUp, 40),
];

/// How long a contact's turn to be offered something takes, one like the other: half of the offers go to those who are silent.
const TURN: Span = Span::secs(2 * 15);
/// After so long without a fault the ring must be whole.
const QUIET_MAX: Span = Span::secs(180);
/// Parts and stopped processes last at least about so long now and then: members come to count as gone.
const LONG_PAUSE: Span = Span::secs(15);
/// The ring never has fewer members by a fault.
const MEMBERS_MIN: usize = 3;

/// The script of a seed.
pub fn script(seed: u64, mode: Mode, events: usize) -> Vec<Event> {
    let mut rng = Rng::new(seed ^ 0x5c21_9700);
    let table = if mode == Mode::Safe { SAFE } else { WILD };
    let total: u64 = table.iter().map(|(_, weight)| weight).sum();
    let draw = |rng: &mut Rng| {
        let mut dice = rng.below(total);
        let action = table.iter().find(|(_, weight)| {
            let hit = dice < *weight;
            dice = dice.saturating_sub(*weight);
            hit
        });
        let longest = match rng.below(200) {
            0 if mode == Mode::Wild => LONG_PAUSE,
            1..=8 => Span::secs(2),
            9..=50 => Span::millis(300),
            _ => Span::millis(40),
        };
        let pause = Span(rng.below(longest.0));
        Event { pause, action: action.map_or(Action::LookUp, |(action, _)| *action), choice: rng.next_u64() }
    };
    (0..events).map(|_| draw(&mut rng)).collect()
}

/// Plays a script in the world of a seed.
///
/// # Panics
/// Something that must hold does not.
pub fn play(seed: u64, mode: Mode, script: &[Event]) -> Outcome {
    let mut run = Run::new(seed, mode);
    for event in script {
        run.world.run_for(event.pause);
        run.act(*event);
    }
    run.quiet();
    let (trace_hash, counters) = (run.world.trace_hash(), run.world.counters());
    Outcome { trace_hash, counters, whole_after: run.whole_after, introduced: run.introduced }
}

struct Run {
    world: World,
    mode: Mode,
    nodes_max: usize,
    whole_after: Span,
    introduced: bool,
}

impl Run {
    fn new(seed: u64, mode: Mode) -> Self {
        let mut rng = Rng::new(seed ^ 0x0077_0712);
        let mut config = WorldConfig::new(seed);
        let successors = [3, 4, 8, 16][rng.index(4)];
        config.wishes = Wishes { successors: Some(successors), slot_bits: Some(0), ..Wishes::default() };
        let max = Span::millis([2, 10, 40][rng.index(3)]);
        config.network.latency = Latency::Uniform { min: Span(100), max };
        config.check = if mode == Mode::Safe { Check::Ring } else { Check::Nodes };
        let mut world = World::new(config);
        let first = world.start(&[]);
        world.run_for(Span::millis(200));
        for _ in 0..4 {
            world.start(&[first]);
        }
        let formed = world.run_until(Span::secs(20), |world| world.is_whole());
        assert!(formed, "no ring of 5: {}", world.describe());
        Self { world, mode, nodes_max: 5 + rng.index(36), whole_after: Span::ZERO, introduced: false }
    }

    fn act(&mut self, event: Event) {
        let Event { action, choice, .. } = event;
        match action {
            Action::Join => self.join(choice, 1),
            Action::JoinBurst => self.join(choice, 2 + choice % 5),
            Action::Restart | Action::Return => self.restart(choice, action == Action::Return),
            Action::LookUp => {
                if let Some(host) = pick(&self.members(), choice) {
                    let target = self.world.capacity().random(&mut Rng::new(choice));
                    self.world.look_up(host, target);
                }
            }
            Action::Leave | Action::Crash | Action::Vanish | Action::Freeze => self.lose(action, choice),
            Action::Thaw => {
                let all = self.world.running();
                let frozen: Vec<HostId> = all.into_iter().filter(|host| self.world.is_frozen(*host)).collect();
                if let Some(host) = pick(&frozen, choice) {
                    self.world.thaw(host);
                }
            }
            _ => self.disturb(action, choice),
        }
    }

    fn members(&self) -> Vec<HostId> {
        self.world.members()
    }

    /// Members that have not begun to leave.
    fn staying(&self) -> Vec<HostId> {
        let stays = |host: &HostId| {
            let overlay = self.world.node(*host).and_then(|node| node.overlay());
            overlay.is_some_and(|overlay| overlay.standing() == Standing::Member)
        };
        self.members().into_iter().filter(stays).collect()
    }

    fn seeds(&self, choice: u64) -> Vec<HostId> {
        let members = self.members();
        (0..3).filter_map(|n| pick(&members, choice.rotate_left(n * 13))).collect()
    }

    fn join(&mut self, choice: u64, count: u64) {
        let seeds = self.seeds(choice);
        for _ in 0..count {
            if !seeds.is_empty() && self.world.running().len() < self.nodes_max {
                self.world.start(&seeds);
            }
        }
    }

    fn restart(&mut self, choice: u64, remembering: bool) {
        let (seeds, running) = (self.seeds(choice), self.world.running());
        let idle: Vec<HostId> = self.world.all_hosts().filter(|host| !running.contains(host)).collect();
        let room = running.len() < self.nodes_max;
        let Some(host) = pick(&idle, choice >> 8).filter(|_| room && !seeds.is_empty()) else { return };
        if remembering && self.world.remembers(host) {
            self.world.restart_remembering(host, &[]);
        } else {
            self.world.restart(host, &seeds);
        }
    }

    fn lose(&mut self, action: Action, choice: u64) {
        let members = self.staying();
        let Some(host) = pick(&members, choice).filter(|_| members.len() > MEMBERS_MIN) else { return };
        match action {
            Action::Leave if self.mode == Mode::Wild || self.world.may_leave(host) => self.world.leave(host),
            Action::Crash if self.mode == Mode::Wild || self.world.may_crash(host) => self.world.crash(host),
            Action::Vanish => self.world.vanish(host),
            Action::Freeze => self.world.freeze(host),
            _ => {}
        }
    }

    fn disturb(&mut self, action: Action, choice: u64) {
        let hosts: Vec<HostId> = self.world.all_hosts().collect();
        let (a, b) = (pick(&hosts, choice), pick(&hosts, choice.rotate_left(29)));
        let (Some(a), Some(b)) = (a, b) else { return };
        let per_mille = choice % 100;
        match action {
            Action::Part => {
                let parts = 2 + u8::try_from(choice % 2).unwrap_or(0);
                for host in hosts {
                    let side = Rng::new(choice ^ u64::from(host)).below(u64::from(parts));
                    self.world.put_on_side(host, u8::try_from(side).unwrap_or(0));
                }
            }
            Action::Unite => hosts.iter().for_each(|host| self.world.put_on_side(*host, 0)),
            Action::OneWay if a != b => self.world.block(a, b),
            Action::Sever => self.world.network_mut().severed_per_mille = per_mille,
            Action::Lose => self.world.network_mut().loss_per_mille = per_mille,
            Action::Double => self.world.network_mut().duplicate_per_mille = per_mille,
            Action::Overtake => self.world.network_mut().reorder_per_mille = per_mille,
            // Slower than that, and those who live are taken for dead: the proof does not hold any more.
            Action::Slow if self.mode == Mode::Safe => self.world.slow_down(a, 1 + choice % 2),
            Action::Slow => self.world.slow_down(a, 1 + choice % 10),
            Action::JumpWall => self.world.jump_wall(a, Span::secs(choice % 3_600), choice.is_multiple_of(2)),
            Action::Mend if self.mode == Mode::Wild => self.world.mend(),
            Action::Mend => {
                let network = self.world.network_mut();
                (network.duplicate_per_mille, network.reorder_per_mille) = (0, 0);
            }
            _ => {}
        }
    }

    /// No more faults: the ring becomes whole, and every lookup finds the owner.
    fn quiet(&mut self) {
        self.world.heal();
        let start = self.world.now();
        self.world.run_until(QUIET_MAX, |world| !world.ring().is_empty());
        self.world.run_for(Span::secs(15));
        self.readmit();
        if !self.world.run_until(QUIET_MAX, |world| world.is_whole()) {
            self.introduce();
        }
        // Two rings may have one contact between them, of whom somebody was told once: its turn comes with all others'.
        let turns = self.members().into_iter().filter_map(|host| self.world.node(host)?.overlay());
        let longest = turns.map(|overlay| overlay.contacts().count() as u64).max().unwrap_or(0);
        let limit = QUIET_MAX.max(TURN * longest);
        // Who leaves is a member until its slots are taken: the ring is whole with it, and changes once more when it is gone.
        let whole = self.world.run_until(limit, |world| world.is_whole() && !world.is_left_by_somebody());
        assert!(whole, "the ring is not whole {limit} after the last fault: {}", self.world.describe());
        self.whole_after = self.world.now().since(start);
        self.world.run_until(Span::secs(12), |world| world.lookups_waiting() == 0);
        self.world.take_answers();
        let mut rng = Rng::new(self.world.trace_hash());
        for host in self.members() {
            let target = self.world.capacity().random(&mut rng);
            self.world.look_up(host, target);
        }
        let answered = self.world.run_until(Span::secs(12), |world| world.lookups_waiting() == 0);
        assert!(answered, "lookups in a whole ring are without an answer");
        for report in self.world.take_answers() {
            let owner = report.result.ok().map(|answer| answer.owner);
            assert_eq!(owner, self.world.ring().owner(report.target), "the answer to {report:?}");
        }
    }

    /// Rings of which no member knows the address of a member of another cannot find each other: an operator tells them.
    fn introduce(&mut self) {
        let members = self.members();
        let mut found: BTreeSet<HostId> = members.first().copied().into_iter().collect();
        loop {
            let knows = |a: HostId, b: HostId| self.world.knows(a, b) || self.world.knows(b, a);
            let linked = |host: &&HostId| !found.contains(host) && found.iter().any(|other| knows(**host, *other));
            let Some(host) = members.iter().find(linked) else { break };
            found.insert(*host);
        }
        let strangers: Vec<HostId> = members.iter().filter(|host| !found.contains(host)).copied().collect();
        self.introduced = !strangers.is_empty();
        let seeds: Vec<HostId> = self.staying().into_iter().filter(|host| !strangers.contains(host)).collect();
        for host in strangers {
            self.world.crash(host);
            self.world.restart(host, &seeds);
        }
    }

    /// A node whose seeds are all gone has nobody to ask: its operator names others.
    fn readmit(&mut self) {
        let members = self.members();
        let seeds = self.staying();
        let outside: Vec<HostId> = self.world.running().into_iter().filter(|host| !members.contains(host)).collect();
        for host in outside {
            self.world.crash(host);
            self.world.restart(host, &seeds);
        }
    }
}

fn pick(hosts: &[HostId], choice: u64) -> Option<HostId> {
    let count = u64::try_from(hosts.len()).unwrap_or(1).max(1);
    hosts.get(usize::try_from(choice % count).unwrap_or(0)).copied()
}

/// The shortest part of a failing script that still fails, as the places of its events. Each try is a run, so there are
/// at most `tries`.
pub fn shrink(script: &[Event], mut tries: usize, mut fails: impl FnMut(&[Event]) -> bool) -> Vec<usize> {
    let mut keep: Vec<usize> = (0..script.len()).collect();
    let mut piece = keep.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < keep.len() && tries > 0 {
            let rest: Vec<usize> =
                keep.iter().enumerate().filter(|(n, _)| *n < at || *n >= at + piece).map(|(_, k)| *k).collect();
            tries -= 1;
            let part: Vec<Event> = rest.iter().map(|place| script[*place]).collect();
            if fails(&part) {
                keep = rest;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    keep
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "after {}: {:?} ({})", self.pause, self.action, self.choice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_script_is_shrunk_to_what_makes_it_fail() {
        let events = script(1, Mode::Wild, 300);
        let (first, last) = (events[40], events[211]);
        let needs_both = |part: &[Event]| part.contains(&first) && part.contains(&last);
        assert_eq!(shrink(&events, 200, needs_both), [40, 211]);
        assert_eq!(shrink(&events, 0, needs_both).len(), 300, "without tries nothing is left out");
    }
}
