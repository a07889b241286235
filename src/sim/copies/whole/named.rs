//! The scenarios of `protocol.md` section 6 that are about keys, by their names, each in its order of messages. Random runs
//! meet them too; here nothing is left to chance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{contact, space};
use crate::base::{Contact, Incarnation, Now, Rng, Span, Time, Wall};
use crate::data::register::{Accepted, Ballot, OpId, Register, State, grant};
use crate::data::{
    Ask, Command, Condition, Key, MemoryStore, Outcome, Place, Put, Record, Slot, Store, Tag, Version, carry_out,
};
use crate::replication::View;
use crate::replication::copies::{Copies, CopiesEffect, CopyMessage, Operation, Ran};

struct Member {
    copies: Copies,
    store: MemoryStore,
    is_running: bool,
    /// What it asks of its store is not carried out.
    is_held: bool,
}

/// Five nodes, of which the first three hold the slot of the key, the first of these in the lead.
struct Cluster {
    members: Vec<Member>,
    net: Vec<(usize, usize, CopyMessage)>,
    ended: BTreeMap<u64, Ran>,
    now: Time,
}

const NODES: usize = 5;
const EPOCH: u64 = 2;

fn place() -> Place {
    space().place(Key::new(*b"k").expect("a key"))
}

fn slot() -> Slot {
    place().slot
}

fn view(epoch: u64, members: &[usize]) -> View {
    View { epoch, members: members.iter().map(|n| contact(*n, 0)).collect() }
}

fn at(contact: &Contact) -> usize {
    usize::from(contact.addr.port()) - 1
}

fn put(text: &str, condition: Condition) -> Command {
    Command::Put(Put { value: Arc::from(text.as_bytes()), content_type: None, ttl_ms: None, condition })
}

fn create(text: &str) -> Command {
    put(text, Condition { if_match: None, if_none_match: Some(Tag::Any) })
}

fn node(n: usize, life: u64) -> Copies {
    Copies::new(contact(n, 0), space(), 3, Rng::new(life * 100 + n as u64))
}

impl Cluster {
    fn new() -> Self {
        let member =
            |n| Member { copies: node(n, 0), store: MemoryStore::new(space()), is_running: true, is_held: false };
        let members = (0..NODES).map(member).collect();
        let mut cluster = Self { members, net: Vec::new(), ended: BTreeMap::new(), now: Time(1) };
        cluster.members[0].copies.create();
        for n in 0..3 {
            let now = cluster.now;
            cluster.members[n].copies.hear(now, slot(), &[view(1, &[0]), view(EPOCH, &[0, 1, 2])]);
        }
        cluster.settle();
        assert_eq!(cluster.serving(), [(0, EPOCH), (1, EPOCH), (2, EPOCH)]);
        cluster
    }

    /// Who serves the slot, and in which epoch.
    fn serving(&self) -> Vec<(usize, u64)> {
        let running = self.members.iter().enumerate().filter(|(_, member)| member.is_running);
        running.filter_map(|(n, member)| Some((n, member.copies.served(slot())?.epoch))).collect()
    }

    fn drain(&mut self, n: usize) {
        let Member { copies, store, is_running, is_held } = &mut self.members[n];
        while let Some(effect) = copies.poll_effect().filter(|_| *is_running) {
            match effect {
                CopiesEffect::Send { to, message } => self.net.push((n, at(&to), *message)),
                CopiesEffect::Store { ticket, work } if !*is_held => {
                    let done = carry_out(work, store);
                    copies.stored(self.now, ticket, done);
                }
                CopiesEffect::Ran { asker, ran } => drop(self.ended.insert(asker, ran)),
                _ => {}
            }
        }
    }

    /// Delivers what is on its way and passes, and what comes of it; the rest stays on its way.
    fn settle_if(&mut self, passes: impl Fn(usize, usize, &CopyMessage) -> bool) {
        for n in 0..NODES {
            self.drain(n);
        }
        while let Some(next) = self.net.iter().position(|(from, to, message)| passes(*from, *to, message)) {
            let (from, to, message) = self.net.remove(next);
            if self.members[to].is_running {
                self.members[to].copies.handle_message(self.now, contact(from, 0), message);
                self.drain(to);
            }
        }
    }

    fn settle(&mut self) {
        self.settle_if(|_, _, _| true);
    }

    /// Time passes for those who wait.
    fn wait(&mut self, span: Span) {
        self.now += span;
        let now = Now { mono: self.now, wall: Wall(1_000 + self.now.0 / 1_000) };
        for member in self.members.iter_mut().filter(|member| member.is_running) {
            member.copies.handle_timeout(now);
        }
    }

    /// Lets a node coordinate an operation; what it says at once, or nothing yet.
    fn begin(&mut self, n: usize, number: u64, command: Command, again: bool) -> Option<Ran> {
        let id = OpId { node: Incarnation(99), n: number, issued: Wall(1_000) };
        let now = Now { mono: self.now, wall: Wall(1_000) };
        let ran = self.members[n].copies.run(now, number, &place(), Operation { id, command, again });
        self.drain(n);
        ran
    }

    /// The same, until it is done.
    #[track_caller]
    fn run(&mut self, n: usize, number: u64, command: Command, again: bool) -> Outcome {
        assert_eq!(self.begin(n, number, command, again), None);
        for _ in 0..10 {
            self.settle();
            if let Some(ran) = self.ended.remove(&number) {
                let Ran::Done(outcome) = ran else { panic!("{ran:?}") };
                return outcome;
            }
            self.wait(Span::millis(600));
        }
        panic!("it does not end");
    }

    #[track_caller]
    fn get(&mut self, n: usize, number: u64) -> Option<String> {
        match self.run(n, number, Command::Get, false) {
            Outcome::Found(record) => Some(String::from_utf8(record.value.to_vec()).expect("a text")),
            Outcome::NotFound => None,
            other => panic!("{other:?}"),
        }
    }

    /// Its process ends; what it has sent is still on its way.
    fn kill(&mut self, n: usize) {
        self.members[n].is_running = false;
    }

    fn restart(&mut self, n: usize) {
        let member = &mut self.members[n];
        member.copies = node(n, 1);
        member.copies.restore(&member.store.kept().expect("memory")).expect("it is readable");
        (member.is_running, member.is_held) = (true, false);
        self.drain(n);
    }

    /// Somebody wishes for these members.
    fn wish(&mut self, n: usize, members: &[usize]) {
        let members = view(0, members).members.to_vec();
        let message = CopyMessage::Wish { slot: slot(), epoch: EPOCH, members };
        self.members[n].copies.handle_message(self.now, contact(4, 0), message);
        self.drain(n);
    }

    fn set(&mut self, n: usize, ballot: Ballot, text: &str) {
        let value = Arc::from(text.as_bytes());
        let record = Record { value, content_type: None, version: ballot, modified: Wall(1), expires: None };
        let state = State { record: Some(record), ..State::default() };
        let register = Register::new(None, Some(Accepted { ballot, copied: true, state }));
        self.members[n].store.set(place(), register).expect("memory");
    }
}

fn between(a: usize, b: usize) -> impl Fn(usize, usize, &CopyMessage) -> bool {
    move |from, to, _| [a, b].contains(&from) && [a, b].contains(&to)
}

fn created(outcome: &Outcome) -> Version {
    let Outcome::Created(version) = outcome else { panic!("{outcome:?}") };
    *version
}

#[test]
fn nonmember_get() {
    let mut cluster = Cluster::new();
    cluster.run(0, 1, create("a"), false);
    let told = cluster.begin(3, 2, Command::Get, false);
    assert_eq!(told, Some(Ran::NotNow { elsewhere: None, again: false }), "it has heard of no view");
    let now = cluster.now;
    cluster.members[3].copies.hear(now, slot(), &[view(EPOCH, &[0, 1, 2])]);
    let elsewhere = Some(view(EPOCH, &[0, 1, 2]));
    assert_eq!(cluster.begin(3, 3, Command::Get, false), Some(Ran::NotNow { elsewhere, again: false }));
}

#[test]
fn get_during_view_change() {
    let mut cluster = Cluster::new();
    cluster.run(0, 1, create("a"), false);
    // It has begun in the view, and is not answered before that ends.
    assert_eq!(cluster.begin(0, 2, Command::Get, false), None);
    cluster.wish(0, &[0, 1, 3]);
    cluster.settle_if(|_, _, message| !matches!(message, CopyMessage::Part { .. } | CopyMessage::Answered { .. }));
    // What was copied ahead.
    cluster.settle_if(|_, to, message| to == 3 && !matches!(message, CopyMessage::Answered { .. }));
    cluster.settle_if(|_, to, message| {
        !matches!(message, CopyMessage::Part { .. } | CopyMessage::Answered { .. })
            || to == 3 && !matches!(message, CopyMessage::Answered { .. })
    });
    assert_eq!(cluster.ended.get(&2), Some(&Ran::NotNow { elsewhere: None, again: false }), "the view is over");
    assert!(matches!(cluster.begin(0, 3, Command::Get, false), Some(Ran::NotNow { .. })), "nobody has all of the next");
    cluster.settle();
    assert_eq!(cluster.serving(), [(0, 3), (1, 3), (3, 3)]);
    for (number, n) in [(4, 0), (5, 1), (6, 3)] {
        assert_eq!(cluster.get(n, number), Some("a".to_owned()));
    }
}

/// Of what was copied in two members have one thing and one a later: what a get tells stays so.
#[test]
fn copied_vote_read() {
    let mut cluster = Cluster::new();
    let older = |n| Ballot { n, ..grant(1, contact(0, 0).incarnation) };
    cluster.set(0, older(4), "x");
    cluster.set(1, older(4), "x");
    cluster.set(2, older(5), "y");
    assert_eq!(cluster.begin(1, 1, Command::Get, false), None);
    cluster.settle_if(between(0, 1));
    for _ in 0..8 {
        cluster.wait(Span::millis(600));
        cluster.settle_if(between(0, 1));
    }
    let Some(Ran::Done(Outcome::Found(first))) = cluster.ended.remove(&1) else { panic!("two of three are enough") };
    cluster.net.clear();
    assert_eq!(cluster.begin(2, 2, Command::Get, false), None);
    for _ in 0..8 {
        cluster.settle_if(between(1, 2));
        cluster.wait(Span::millis(600));
    }
    let Some(Ran::Done(Outcome::Found(second))) = cluster.ended.remove(&2) else { panic!("two of three are enough") };
    assert_eq!(first.value, second.value);
}

/// Two members would have different views next; whatever comes first, there is one of each epoch.
#[test]
fn two_proposers_two_views() {
    let mut chosen = BTreeSet::new();
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut cluster = Cluster::new();
        cluster.run(0, 1, create("a"), false);
        cluster.wish(0, &[0, 1, 3]);
        cluster.wish(1, &[0, 1, 4]);
        let mut views: BTreeMap<u64, BTreeSet<Vec<usize>>> = BTreeMap::new();
        for _ in 0..400 {
            if !cluster.net.is_empty() {
                let (from, to, message) = cluster.net.swap_remove(rng.index(cluster.net.len()));
                cluster.members[to].copies.handle_message(cluster.now, contact(from, 0), message);
                cluster.drain(to);
            }
            for member in &cluster.members {
                if let Some(view) = member.copies.served(slot()) {
                    let members = view.members.iter().map(at).collect();
                    views.entry(view.epoch).or_default().insert(members);
                }
            }
        }
        assert!(views.values().all(|views| views.len() == 1), "{views:?}");
        chosen.extend(views.remove(&3).into_iter().flatten());
        let (n, _) = *cluster.serving().last().expect("somebody serves");
        assert_eq!(cluster.get(n, 2), Some("a".to_owned()));
    }
    assert_eq!(chosen.len(), 2, "each wins at times: {chosen:?}");
}

#[test]
fn fetch_from_incomplete() {
    let mut cluster = Cluster::new();
    cluster.run(0, 1, create("a"), false);
    let views = vec![view(EPOCH, &[0, 1, 2]), view(3, &[0, 1, 3])];
    let now = cluster.now;
    cluster.members[3].copies.hear(now, slot(), &views);
    cluster.drain(3);
    cluster.net.clear();
    let next = [&views[..], &[view(4, &[0, 3, 4])]].concat();
    let fetch =
        CopyMessage::Fetch { slot: slot(), epoch: 3, views: next, ahead: false, digest: None, serial: 1, after: None };
    cluster.members[3].copies.handle_message(now, contact(4, 0), fetch);
    cluster.drain(3);
    let gives =
        |(_, to, message): &(usize, usize, CopyMessage)| *to == 4 && matches!(message, CopyMessage::Part { .. });
    assert!(!cluster.net.iter().any(gives), "{:?}", cluster.net);
}

#[test]
fn late_accept_old_epoch() {
    let mut cluster = Cluster::new();
    cluster.run(0, 1, create("a"), false);
    // The first member has sent this, and its own store has forgotten it with its process.
    let ballot = Ballot { n: 99, ..grant(EPOCH, contact(0, 0).incarnation) };
    let ask = Ask::Accept(ballot, State::default());
    let late = CopyMessage::Ask { number: 7, slot: slot(), epoch: EPOCH, key: place().key, ask };
    cluster.wish(1, &[1, 2, 3]);
    cluster.settle();
    assert_eq!(cluster.serving(), [(1, 3), (2, 3), (3, 3)]);
    cluster.net.extend((1..4).map(|to| (0, to, late.clone())));
    cluster.settle();
    for (number, n) in [(4, 1), (5, 2), (6, 3)] {
        assert_eq!(cluster.get(n, number), Some("a".to_owned()));
        let there = cluster.members[n].store.register(&place()).expect("memory").expect("a register");
        assert!(there.accepted().is_some_and(|accepted| accepted.ballot < ballot || accepted.ballot.epoch == 3));
    }
}

/// What only one member has accepted made a condition fail: from then on it is there.
#[test]
fn cas_fail_observes_uncommitted() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.begin(0, 1, create("a"), false), None);
    cluster.kill(0);
    cluster.net.clear();
    cluster.restart(0);
    assert_eq!(cluster.begin(1, 2, create("b"), false), None);
    for _ in 0..8 {
        cluster.settle_if(between(0, 1));
        cluster.wait(Span::millis(600));
    }
    let Some(Ran::Done(Outcome::PreconditionFailed(Some(version)))) = cluster.ended.remove(&2) else {
        panic!("it meets what the first has: {:?}", cluster.ended)
    };
    cluster.kill(0);
    cluster.net.clear();
    let Outcome::Found(record) = cluster.run(2, 3, Command::Get, false) else { panic!("it was told to be there") };
    assert_eq!((record.version, &*record.value), (version, b"a".as_slice()));
}

#[test]
fn cas_ack_lost_retry() {
    let mut cluster = Cluster::new();
    let version = created(&cluster.run(0, 1, create("a"), false));
    // Nobody was told. The same operation again, through another.
    let again = cluster.run(1, 1, create("a"), true);
    assert_eq!(created(&again), version, "not that there is something already");
    assert_eq!(cluster.get(2, 2), Some("a".to_owned()));
}

#[test]
fn crash_before_sync() {
    let mut cluster = Cluster::new();
    cluster.members[0].is_held = true;
    assert_eq!(cluster.begin(0, 1, create("a"), false), None);
    assert!(cluster.net.is_empty(), "nobody hears of what is not safe: {:?}", cluster.net);
    cluster.kill(0);
    cluster.restart(0);
    assert_eq!(cluster.get(0, 2), None);
    let version = created(&cluster.run(0, 1, create("a"), true));
    assert_eq!(version.epoch, EPOCH);
    assert_eq!(cluster.get(1, 3), Some("a".to_owned()));
}

#[test]
fn kill_coordinator_mid_accept() {
    let mut cluster = Cluster::new();
    assert_eq!(cluster.begin(0, 1, create("a"), false), None);
    let ballot = cluster.members[0].store.register(&place()).expect("memory").and_then(|r| Some(r.accepted()?.ballot));
    cluster.settle_if(|from, to, _| (from, to) == (0, 1));
    cluster.kill(0);
    cluster.net.clear();
    let version = created(&cluster.run(1, 1, create("a"), true));
    assert_eq!(Some(version), ballot, "it was carried out, and once");
    assert_eq!(cluster.get(2, 2), Some("a".to_owned()));
}
