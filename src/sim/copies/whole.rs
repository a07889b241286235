//! The copies of whole nodes, as they run in the program, without the ring: two slots, a few keys, six nodes of which
//! some are in the ring at a time, every message late, lost or doubled, disks that take their time, processes that crash
//! and come back, nodes that leave and nodes that stay away; in every third world bits flip.

mod directed;
mod named;
mod users;
mod wear;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use self::users::Asked;
use super::draw;
use crate::base::{Capacity, Contact, Incarnation, Now, Rng, Span, Time, Wall, Weight};
use crate::data::{Key, KeySpace, MemoryStore, Place, Store, Version, Work};
use crate::replication::Neighbourhood;
use crate::replication::copies::mutation::Mutation;
use crate::replication::copies::{Copies, CopiesEffect, CopyMessage, Operation, PHASES};
use crate::sim::linear::History;

struct Node {
    contact: Contact,
    /// `None`: its process does not run.
    copies: Option<Copies>,
    store: MemoryStore,
    flipped: BTreeSet<Place>,
    // Work that was asked for: what changes something in its order, what reads at any time.
    writes: VecDeque<(u64, Work)>,
    reads: Vec<(u64, Work)>,
    standing: Standing,
    generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Outside,
    Member,
    Leaving,
    /// Crashed, and out of the ring; it may come back.
    Missing,
    /// Crashed, and everybody has given it up.
    Lost,
}

struct World {
    rng: Rng,
    now: Time,
    nodes: Vec<Node>,
    net: Vec<(Contact, Contact, CopyMessage)>,
    asked: BTreeMap<u64, Asked>,
    /// First tries that are still on their way.
    late: Vec<(u8, Operation)>,
    /// Those that users ask for now.
    keys: [u8; KEYS],
    histories: BTreeMap<u8, History>,
    versions: BTreeMap<u8, BTreeMap<Version, u64>>,
    next: u64,
    calm: bool,
    hit: BTreeMap<&'static str, u64>,
    views: BTreeMap<(u32, u64), Vec<Contact>>,
    /// Bits flip, by this one's will.
    wear: Option<Rng>,
    /// Keys of which too few copies could be read at some time: whether there was anything is nobody's knowledge.
    blurred: BTreeSet<u8>,
    without: Option<Mutation>,
}

const NODES: usize = 6;
const KEYS: usize = 3;
/// Operations of users in one run, at least.
const OPERATIONS_MIN: u64 = 500;
const STORM_STEPS: u32 = 6_000;
/// So old is a removal that is forgotten.
const COLLECT_AFTER: Span = Span::millis(1_500);
const CALM_STEPS_MAX: u32 = 60_000;
const REPLICAS: usize = 3;
const WEIGHTS: [u32; NODES] = [1, 1, 2, 1, 3, 1];
/// What a member holds that is missing is kept for it for so long.
const KEEP_FOR: Span = Span::millis(1_000);
/// Members of the ring, at least.
const MEMBERS_MIN: usize = 2;

fn space() -> KeySpace {
    KeySpace::new(Capacity::MAX, 1).expect("two slots")
}

/// Whoever has left is somebody else when it comes back.
fn contact(node: usize, generation: u64) -> Contact {
    let port = u16::try_from(node + 1).expect("few");
    let incarnation = Incarnation(u128::from(generation) * 100 + node as u128 + 1);
    Contact::new(Capacity::MAX, ([10, 0, 0, 1], port).into(), incarnation)
}

fn index(contact: &Contact) -> usize {
    usize::from(contact.addr.port()) - 1
}

/// A rule that is taken away is to be noticed by itself: members do not compare what they have, and so mend what it has broken.
fn prepare(copies: &mut Copies, without: Option<Mutation>) {
    copies.mutation = without;
    copies.collect_after(COLLECT_AFTER);
    if without.is_some() {
        copies.repair_at(0);
    }
}

impl World {
    fn new(seed: u64, without: Option<Mutation>) -> Self {
        let mut rng = Rng::new(seed);
        let node = |n: usize| Node {
            contact: contact(n, 0),
            copies: Some(Copies::new(contact(n, 0), space(), REPLICAS, Rng::new(seed ^ n as u64))),
            store: MemoryStore::new(space()),
            flipped: BTreeSet::new(),
            writes: VecDeque::new(),
            reads: Vec::new(),
            standing: Standing::Outside,
            generation: 0,
        };
        let mut nodes: Vec<Node> = (0..NODES).map(node).collect();
        let count = 1 + rng.index(4);
        for node in nodes.iter_mut().take(count) {
            node.standing = Standing::Member;
        }
        if let Some(first) = &mut nodes[0].copies {
            first.create();
        }
        let mut world = Self {
            rng,
            now: Time(1),
            nodes,
            net: Vec::new(),
            asked: BTreeMap::new(),
            late: Vec::new(),
            keys: [0, 1, 2],
            histories: (0..3).map(|key| (key, History::default())).collect(),
            versions: (0..3).map(|key| (key, BTreeMap::new())).collect(),
            next: 0,
            calm: false,
            hit: BTreeMap::new(),
            views: BTreeMap::new(),
            wear: seed.is_multiple_of(3).then(|| Rng::new(!seed)),
            blurred: BTreeSet::new(),
            without,
        };
        for copies in world.nodes.iter_mut().filter_map(|node| node.copies.as_mut()) {
            prepare(copies, without);
        }
        world.drain(0);
        // A creator that is gone before it has written anything down has created nothing.
        world.work(0);
        world
    }

    fn hit(&mut self, what: &'static str) {
        *self.hit.entry(what).or_default() += 1;
    }

    fn time(&self) -> Now {
        Now { mono: self.now, wall: Wall(1_000_000 + self.now.0 / 1_000) }
    }

    fn key(key: u8) -> Key {
        Key::new([b'k', key]).expect("a key")
    }

    /// Carries out what a node wants.
    fn drain(&mut self, at: usize) {
        while let Some(effect) = self.nodes[at].copies.as_mut().and_then(Copies::poll_effect) {
            match effect {
                CopiesEffect::Send { to, message } if self.nodes[index(&to)].contact == to => {
                    self.send(at, index(&to), *message);
                }
                CopiesEffect::Send { .. }
                | CopiesEffect::FindOwner(_)
                | CopiesEffect::Restless
                | CopiesEffect::Changed { .. } => {}
                CopiesEffect::Store { ticket, work } if work.is_read() => self.nodes[at].reads.push((ticket, work)),
                CopiesEffect::Store { ticket, work } => self.nodes[at].writes.push_back((ticket, work)),
                CopiesEffect::Ran { asker, ran } => self.ran(asker, ran),
                CopiesEffect::Took(_) => self.hit("slots taken"),
                CopiesEffect::Gave(_) => self.hit("slots dropped"),
            }
        }
        let served: Vec<_> = self.nodes[at]
            .copies
            .iter()
            .flat_map(|copies| copies.serving().filter_map(|(slot, epoch)| Some((slot.0, epoch, copies.served(slot)?))))
            .map(|(slot, epoch, view)| (slot, epoch, view.members.to_vec()))
            .collect();
        for (slot, epoch, members) in served {
            let known = self.views.entry((slot, epoch)).or_insert_with(|| members.clone());
            assert_eq!(*known, members, "two views of slot {slot} in epoch {epoch}");
        }
    }

    fn send(&mut self, from: usize, to: usize, message: CopyMessage) {
        let [from, to] = [from, to].map(|at| self.nodes[at].contact);
        if !self.calm && self.rng.chance(50) {
            return;
        }
        if !self.calm && self.rng.chance(40) {
            self.net.push((from, to, message.clone()));
        }
        self.net.push((from, to, message));
    }

    // ----- what happens -----

    /// The ring as everybody sees it.
    fn maintain(&mut self, at: usize) {
        let me = self.nodes[at].contact;
        let standing = self.nodes[at].standing;
        let mut ring: Vec<Contact> = (0..NODES)
            .filter(|n| matches!(self.nodes[*n].standing, Standing::Member | Standing::Leaving))
            .map(|n| self.nodes[n].contact)
            .collect();
        ring.sort_unstable();
        let there: BTreeSet<Contact> = ring.iter().copied().collect();
        let missing = self.nodes.iter().filter(|node| node.standing == Standing::Missing);
        let missing: Vec<Contact> = missing.map(|node| node.contact).collect();
        let Some(place) = ring.iter().position(|member| *member == me) else { return };
        let mut others = ring.clone();
        others.rotate_left(place);
        others.remove(0);
        let around = Neighbourhood {
            predecessor: others.last().copied(),
            alone: others.is_empty(),
            leaving: standing == Standing::Leaving,
            round_trip: Span::ZERO,
            successors: &others,
            is_whole: true,
            reach: NODES,
            weight: &|contact| Weight::new(WEIGHTS[index(contact)]),
            keep_for: KEEP_FOR,
            members: &|| ring.clone(),
            answers: &|contact| there.contains(contact),
            is_lost: &|contact| !there.contains(contact) && !missing.contains(contact),
        };
        let Some(copies) = &mut self.nodes[at].copies else { return };
        copies.maintain(self.now, &around);
        let has_left = standing == Standing::Leaving && copies.is_drained();
        self.drain(at);
        if has_left {
            // Its process ends, and what it kept is nobody's.
            self.end(at);
            let node = &mut self.nodes[at];
            node.generation += 1;
            node.contact = contact(at, node.generation);
            node.standing = Standing::Outside;
            node.store = MemoryStore::new(space());
            node.flipped.clear();
            self.start(at);
            self.hit("left");
        }
    }

    fn crash(&mut self, at: usize) {
        self.hit("crashed");
        // In the midst of what.
        let phases = self.nodes[at].copies.as_ref().map(Copies::phases).unwrap_or_default();
        for phase in phases {
            self.hit(phase);
        }
        self.end(at);
    }

    fn end(&mut self, at: usize) {
        let done = self.rng.index(self.nodes[at].writes.len() + 1);
        for _ in 0..done {
            // Carried out, and nobody is told.
            if let Some((_, work)) = self.nodes[at].writes.pop_front() {
                self.carry_out(at, work);
            }
        }
        let node = &mut self.nodes[at];
        node.writes.clear();
        node.reads.clear();
        node.copies = None;
        let lost: Vec<u64> = self.asked.iter().filter(|(_, asked)| asked.at == Some(at)).map(|(n, _)| *n).collect();
        for number in lost {
            // Its user asks somebody else, or does not.
            let asked = self.asked.get_mut(&number).expect("it was there");
            (asked.at, asked.operation.again) = (None, true);
            if self.rng.chance(300) {
                self.give_up(number);
            }
        }
    }

    fn start(&mut self, at: usize) {
        let seed = self.rng.next_u64();
        let node = &mut self.nodes[at];
        let mut copies = Copies::new(node.contact, space(), REPLICAS, Rng::new(seed));
        prepare(&mut copies, self.without);
        copies.restore(&node.store.kept().expect("memory")).expect("it is readable");
        node.copies = Some(copies);
        if matches!(node.standing, Standing::Missing | Standing::Lost) {
            node.standing = Standing::Member;
        }
        self.drain(at);
    }

    /// Somebody comes, goes, crashes or comes back.
    fn trouble(&mut self) {
        let at = self.rng.index(NODES);
        let members = self.nodes.iter().filter(|node| node.standing == Standing::Member).count();
        let running = self.nodes[at].copies.is_some();
        match self.nodes[at].standing {
            _ if !running => {
                if self.rng.chance(400) {
                    self.start(at);
                } else if self.nodes[at].standing == Standing::Missing {
                    self.nodes[at].standing = Standing::Lost;
                    self.hit("given up");
                } else if self.nodes[at].standing == Standing::Member && members > MEMBERS_MIN {
                    self.nodes[at].standing = Standing::Missing;
                    self.hit("missing");
                }
            }
            Standing::Outside => self.nodes[at].standing = Standing::Member,
            Standing::Member if members > MEMBERS_MIN && self.rng.chance(500) => {
                self.nodes[at].standing = Standing::Leaving;
            }
            _ => self.crash(at),
        }
    }

    fn work(&mut self, at: usize) {
        let is_write = self.nodes[at].reads.is_empty() || self.rng.chance(500);
        let node = &mut self.nodes[at];
        let (ticket, work) = if is_write {
            let Some(job) = node.writes.pop_front() else { return };
            job
        } else {
            let at = self.rng.index(node.reads.len());
            node.reads.swap_remove(at)
        };
        let done = self.carry_out(at, work);
        let now = self.now;
        if let Some(copies) = &mut self.nodes[at].copies {
            copies.stored(now, ticket, done);
        }
        self.drain(at);
    }

    fn step(&mut self) {
        self.now += Span(1 + self.rng.below(2_000));
        if !self.calm {
            self.wear();
        }
        let at = self.rng.index(NODES);
        match self.rng.below(100) {
            0..45 if !self.net.is_empty() => {
                let (from, to, message) = self.net.swap_remove(self.rng.index(self.net.len()));
                let (now, at) = (self.now, index(&to));
                let node = &mut self.nodes[at];
                if let Some(copies) = node.copies.as_mut().filter(|_| node.contact == to) {
                    copies.handle_message(now, from, message);
                }
                self.drain(at);
            }
            0..85 => self.work(at),
            85..91 => {
                let now = self.time();
                if let Some(copies) = &mut self.nodes[at].copies
                    && copies.poll_timeout().is_some_and(|due| due <= now.mono)
                {
                    copies.handle_timeout(now);
                }
                self.drain(at);
                self.maintain(at);
            }
            91..97 => {
                let waiting: Vec<u64> =
                    self.asked.iter().filter(|(_, asked)| asked.at.is_none()).map(|(n, _)| *n).collect();
                if let Some(number) = (!waiting.is_empty()).then(|| waiting[self.rng.index(waiting.len())]) {
                    if self.asked[&number].tries > 12 && !self.calm {
                        self.give_up(number);
                    } else {
                        self.try_once(number);
                    }
                } else if !self.calm {
                    self.ask();
                }
            }
            97..99 if !self.calm => self.ask(),
            _ if !self.calm && !self.late.is_empty() && self.rng.chance(100) => self.deliver_late(),
            _ if !self.calm && self.rng.chance(150) => self.trouble(),
            _ => {}
        }
    }

    /// Every slot has the copies that it should have, and nobody waits.
    fn is_well(&self) -> bool {
        let members = self.nodes.iter().filter(|node| node.standing == Standing::Member).count();
        let wanted = members.min(REPLICAS);
        let idle = self.asked.values().all(|asked| asked.at == Some(usize::MAX));
        let whole = space().all_slots().all(|slot| {
            let views = self.nodes.iter().filter_map(|node| node.copies.as_ref()?.served(slot));
            let newest = views.clone().map(|view| view.epoch).max();
            let serving = views.filter(|view| Some(view.epoch) == newest).count();
            serving == wanted
        });
        // What was copied ahead for a process that ended is nobody's record.
        let is_held = |node: &Node, place: &Place| node.copies.as_ref().is_some_and(|c| c.chain(place.slot).is_some());
        let mended = self.nodes.iter().all(|node| !node.flipped.iter().any(|place| is_held(node, place)));
        idle && whole && mended
    }

    /// Storms with calms between, until users have asked enough. `Err`: users were told what cannot be true, or nobody serves
    /// in the end.
    fn run(&mut self) -> Result<(), String> {
        while self.next < OPERATIONS_MIN {
            self.calm = false;
            for _ in 0..STORM_STEPS {
                self.step();
            }
            self.calm = true;
            for at in 0..NODES {
                // Of some slot they may be the majority.
                if self.nodes[at].copies.is_none() {
                    self.start(at);
                }
            }
            let well = (0..CALM_STEPS_MAX).any(|_| {
                self.step();
                self.is_well()
            });
            for (key, history) in &mut self.histories {
                history.check().map_err(|why| format!("key {key}: {why}"))?;
            }
            if !well {
                return Err(format!("it does not come to rest:\n{}", self.describe()));
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |args: std::fmt::Arguments<'_>| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{args}");
        };
        for node in &self.nodes {
            let port = node.contact.addr.port();
            line(format_args!("{port}, the {}th, {:?}", node.generation + 1, node.standing));
            let Some(copies) = &node.copies else { continue };
            for (slot, row) in node.store.kept().expect("memory") {
                line(format_args!("  {slot:?} served {:?}\n{row}", copies.served(slot).map(|view| view.epoch)));
            }
        }
        for (number, asked) in self.asked.iter().filter(|(_, asked)| asked.at != Some(usize::MAX)) {
            line(format_args!("{number}: {:?} at {:?}, {} tries", asked.operation, asked.at, asked.tries));
        }
        text
    }
}

fn tried(seed: u64, without: Option<Mutation>) -> (Option<String>, BTreeMap<&'static str, u64>) {
    let mut world = World::new(seed, without);
    let wrong = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(_) => Some("it panicked".to_owned()),
    };
    (wrong, world.hit)
}

/// A leaver that was replaced, and was invited again before it knew of that, left although it had agreed. An owner knew
/// a view of long ago only; so did all members of one that many others had followed. Who had agreed and still waited for
/// the records of earlier views took no part of what it was to copy ahead. A view was told of that its proposer forgot.
/// Who had dropped a slot began an old view of it again, which somebody spoke of who had been away. A record that could not
/// be read was overwritten with what one other member had, and others took it for what had been there. A write that stood in line
/// when its view ended began all the same, and its user was told that it had not. A member of old was at rest in a view whose
/// other members were gone. What had been copied ahead came to light again after its removal was forgotten (3138). Whoever came
/// late to a view met the doubt of those who were in the next, and counted its rounds beyond the last number. A key in doubt was put
/// by an operation that had waited for long, and a delete that was asked after that one and had been carried out before the damage
/// was carried out once more. A member that served fetched the records of views of long ago, and took what was put since for what
/// nobody has. The others show what happens without a rule.
const FOUND: [u64; 15] = [
    1_795_787_625_883_531_557,
    1_795_784_860_862_614_179,
    1_795_692_131_176_819_175,
    1_795_692_355_402_967_905,
    1_795_692_488_475_761_787,
    1_795_692_567_341_086_326,
    367,
    1_795_704_365_018_189_756,
    1_795_724_351_038_140_561,
    1_795_724_605_489_987_890,
    1_795_730_204_447_131_017,
    3_138,
    11_168,
    11_964,
    12_030,
];

/// `CHORDKV_SEED` replays one, `CHORDKV_SEEDS` says how many fresh ones are tried.
#[test]
fn what_users_of_whole_nodes_are_told_is_linearizable_whatever_happens() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let fresh = u64::try_from(clock & u128::from(u64::MAX >> 1)).expect("63 bits");
    let count = number("CHORDKV_SEEDS").unwrap_or(300);
    let seeds: Vec<u64> = match number("CHORDKV_SEED") {
        Some(seed) => vec![seed],
        None => (1..=700).chain(FOUND).chain((0..count).map(|n| fresh.wrapping_add(n))).collect(),
    };
    let mut hit: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in &seeds {
        let (wrong, of_run) = tried(*seed, None);
        for (what, count) in of_run {
            *hit.entry(what).or_default() += count;
        }
        if let Some(why) = wrong {
            panic!("{why}\nreplay: CHORDKV_SEED={seed} cargo test --lib copies::whole");
        }
    }
    println!("{} runs: {hit:?}", seeds.len());
    let runs = seeds.len() as u64;
    for what in [
        "operations answered",
        "slots taken",
        "slots dropped",
        "left",
        "crashed",
        "missing",
        "given up",
        "flipped",
        "mended",
        "forgotten",
        "late",
    ] {
        assert!(runs == 1 || hit.get(what).is_some_and(|count| *count > runs / 4), "{what}: {hit:?}");
    }
    for phase in PHASES {
        assert!(
            runs == 1 || hit.get(phase).is_some_and(|count| *count > runs / 20),
            "never interrupted: {phase} {hit:?}"
        );
    }
}

#[test]
fn each_rule_of_whole_nodes_that_is_taken_away_is_missed() {
    use Mutation::{
        AnswersUnserved, BelievesOne, CollectsThePresent, DamagedIsAbsent, ForgetsAgreements, KeepsTheWord,
        NobodyIsAsked, OneSource, TriesBlindly,
    };
    let all = [
        KeepsTheWord,
        NobodyIsAsked,
        ForgetsAgreements,
        AnswersUnserved,
        OneSource,
        DamagedIsAbsent,
        BelievesOne,
        TriesBlindly,
        CollectsThePresent,
    ];
    for without in all {
        let missed =
            FOUND.into_iter().chain(1..=6_000).find_map(|seed| tried(seed, Some(without)).0.map(|why| (seed, why)));
        let (seed, why) = missed.unwrap_or_else(|| panic!("nobody misses {without:?}"));
        println!("{without:?}: seed {seed}: {}", why.lines().next().unwrap_or_default());
    }
}
