//! Hosts, the queue of events, and the one loop that runs them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::checker::RingFault;
use super::counters::Counters;
use super::disk::{Disk, DiskConfig};
use super::network::{Blocked, Frame, Link, NetworkConfig, Spot, is_severed};
use super::queue::Queue;
use super::transport::message_of;
use super::watch::RingWatch;
use crate::base::limits::SUCCESSORS_DEFAULT;
use crate::base::{Capacity, Contact, Id, Ids, Incarnation, Now, Rng, Span, Time, Wall, Weight, between};
use crate::data::{Store, UserReply, UserRequest, Work, gauge};
use crate::node::{ChordNode, Event, Input, Memory, NodeConfig, Output, Stop, Wishes};
use crate::overlay::{Answer, LookupFailed, OverlayConfig};

/// A host, for the life of the world; its processes come and go.
pub type HostId = u32;

/// Where most nodes listen.
const PORT: u16 = 4000;

/// What the world is like.
#[derive(Clone, Debug)]
pub struct WorldConfig {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Delays and faults.
    pub network: NetworkConfig,
    /// Ring parameters that the first node insists on.
    pub wishes: Wishes,
    /// Settings of every node's overlay.
    pub overlay: OverlayConfig,
    /// Where nodes keep their records.
    pub disk: DiskConfig,
    /// What must hold after every step.
    pub check: Check,
}

/// What must hold after every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The ring invariant, and every answer to a lookup. It takes for granted what Zave's proof does: nobody counts as
    /// dead who lives, and enough members stay.
    Ring,
    /// Only what each node can see for itself: for worlds in which anything may happen.
    Nodes,
}

impl WorldConfig {
    /// A world of this seed, with the invariant checked.
    pub fn new(seed: u64) -> Self {
        let (network, wishes) = (NetworkConfig::default(), Wishes::default());
        let (overlay, disk) = (OverlayConfig::default(), DiskConfig::default());
        Self { seed, network, wishes, overlay, disk, check: Check::Ring }
    }
}

/// The world. Drive it with [`World::run_until`] and friends.
pub struct World {
    pub(super) config: WorldConfig,
    pub(super) now: Time,
    pub(super) rng: Rng,
    pub(super) hosts: Vec<Host>,
    pub(super) blocked: Blocked,
    pub(super) queue: Queue<Happening>,
    pub(super) ids: Ids,
    pub(super) watch: RingWatch,
    pub(super) counters: Counters,
    pub(super) lookups: BTreeMap<u64, Asked>,
    pub(super) answers: Vec<LookupReport>,
    pub(super) hash: u64,
    pub(super) replies: Vec<(HostId, u64, UserReply)>,
    pub(super) resumed: Vec<(HostId, u64)>,
    /// When processes crashed and hosts vanished, in order.
    pub(super) crashes: Vec<Time>,
    // Of its own, so that the network is the same whatever disks there are.
    pub(super) disk_rng: Rng,
    outputs: Vec<Output>,
    fault: Option<RingFault>,
}

pub(super) struct Host {
    pub addr: SocketAddr,
    pub node: Option<Box<ChordNode>>,
    pub incarnation: Incarnation,
    pub disk: Option<Box<Disk>>,
    /// Counts the lives of the host: what was meant for an earlier one is not delivered.
    pub life: u32,
    pub links: BTreeMap<HostId, Link>,
    pub condition: Condition,
    /// Hosts of different sides cannot reach each other.
    pub side: u8,
    /// Frames from and to it take so many times as long.
    pub slowness: u64,
    pub wall_offset_ms: i64,
    pub spot: Spot,
    pub weight: Weight,
    /// What its disk remembers.
    pub memory: Option<Memory>,
    // The earliest wake-up that is planned.
    wake_at: Option<Time>,
    started: Time,
    pub stopped: Option<Stop>,
    // Of the overlay's neighbours, when the watch last heard of them.
    seen: u64,
}

pub(super) enum Condition {
    Up,
    /// Without power, or off the network.
    Dark,
    /// Its process is stopped; what happens to it meanwhile waits.
    Frozen(Vec<Happening>),
}

pub(super) enum Happening {
    Wake { host: HostId, life: u32 },
    Dialled { from: HostId, from_life: u32, to: HostId, seed: Option<String> },
    DialTimedOut { from: HostId, from_life: u32, to: HostId, seed: Option<String> },
    Arrives { from: HostId, from_life: u32, to: HostId, life: u32, frame: Frame },
    LinkBroken { host: HostId, life: u32, peer: SocketAddr, refused: bool, undelivered: Vec<Frame> },
    Unheard { from: HostId, from_life: u32, to: HostId, since: Time },
    Act { host: HostId, life: u32, input: Box<Input> },
    Worked { host: HostId, life: u32, read: Option<Box<(u64, Work)>> },
}

/// A lookup in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    host: HostId,
    target: Id,
    at: Time,
}

/// How a lookup went.
#[derive(Clone, Copy, Debug)]
pub struct LookupReport {
    /// Who asked.
    pub host: HostId,
    /// What was looked up.
    pub target: Id,
    /// The answer.
    pub result: Result<Answer, LookupFailed>,
    /// Whether the answer was right at some moment since the question, in a world with one ring.
    pub right: bool,
}

/// The wall clock at the start of every world.
const WALL_START: Wall = Wall(1_700_000_000_000);
/// Addresses whose ids are remembered, as a power of two.
const IDS: u32 = 13;
/// The oldest list that anybody takes as its own: joiners refuse what was longer on its way.
const WORD_AGE_MAX: Span = Span::secs(1);
/// How often [`World::run_until`] looks.
const LOOK: Span = Span::millis(5);

impl World {
    /// An empty world.
    pub fn new(config: WorldConfig) -> Self {
        let successors = config.wishes.successors.unwrap_or(SUCCESSORS_DEFAULT);
        let capacity = config.wishes.capacity.and_then(Capacity::new).unwrap_or_default();
        Self {
            now: Time::default(),
            rng: Rng::new(config.seed),
            hosts: Vec::new(),
            blocked: Blocked::default(),
            queue: Queue::new(),
            ids: Ids::new(capacity, Some(IDS)),
            watch: RingWatch::new(successors, config.check == Check::Ring),
            counters: Counters::default(),
            lookups: BTreeMap::new(),
            answers: Vec::new(),
            hash: FNV_OFFSET,
            replies: Vec::new(),
            resumed: Vec::new(),
            crashes: Vec::new(),
            disk_rng: Rng::new(config.seed ^ 0x00d1_5c00),
            outputs: Vec::new(),
            fault: None,
            config,
        }
    }

    // ----- what a test does to it -----

    /// Starts a node on a new host. Without seeds it creates a ring.
    pub fn start(&mut self, seeds: &[HostId]) -> HostId {
        let ip = self.next_ip();
        self.start_at(SocketAddr::new(ip, PORT), seeds)
    }

    /// Starts a node on a new host, at a port that gives it a place after that of one host and before that of another.
    ///
    /// # Panics
    /// No port does: hardly anything lies between the two.
    pub fn start_between(&mut self, before: HostId, after: HostId, seeds: &[HostId]) -> HostId {
        let (ip, capacity) = (self.next_ip(), self.ids.capacity());
        let [before, after] = [before, after].map(|host| Contact::id_of(capacity, self.host(host).addr));
        let mut places = (PORT..=u16::MAX).map(|port| SocketAddr::new(ip, port));
        let addr = places.find(|addr| between(before, Contact::id_of(capacity, *addr), after));
        self.start_at(addr.expect("a port whose place lies between the two"), seeds)
    }

    fn next_ip(&self) -> IpAddr {
        let [_, b, c, d] = HostId::try_from(self.hosts.len()).unwrap_or(HostId::MAX).to_be_bytes();
        IpAddr::from([10, b, c, d])
    }

    fn start_at(&mut self, addr: SocketAddr, seeds: &[HostId]) -> HostId {
        let host = HostId::try_from(self.hosts.len()).unwrap_or(HostId::MAX);
        let spot = Spot::draw(&mut self.rng);
        self.hosts.push(Host {
            addr,
            node: None,
            incarnation: Incarnation(0),
            disk: None,
            life: 0,
            links: BTreeMap::new(),
            condition: Condition::Up,
            side: 0,
            slowness: 1,
            wall_offset_ms: 0,
            spot,
            weight: self.config.overlay.weight,
            memory: None,
            wake_at: None,
            started: self.now,
            stopped: None,
            seen: 0,
        });
        self.launch(host, seeds);
        host
    }

    /// Starts a new process, with nothing remembered, on a host whose process is over.
    pub fn restart(&mut self, host: HostId, seeds: &[HostId]) {
        self.host_mut(host).memory = None;
        self.host_mut(host).disk = None;
        self.restart_remembering(host, seeds);
    }

    /// The same with what the disk of the host remembers.
    pub fn restart_remembering(&mut self, host: HostId, seeds: &[HostId]) {
        self.counters.restarted += 1;
        self.light_up(host);
        self.launch(host, seeds);
    }

    fn launch(&mut self, host: HostId, seeds: &[HostId]) {
        let fresh = Incarnation(self.rng.next_u128());
        // A member is whoever has its data.
        let incarnation = if self.host(host).disk.is_some() { self.host(host).incarnation } else { fresh };
        let seed = self.rng.next_u64();
        let seeds = seeds.iter().map(|seed| self.host(*seed).addr.to_string()).collect();
        let mut config = NodeConfig::new(self.host(host).addr, incarnation, seeds);
        config.wishes = self.config.wishes;
        config.overlay = self.config.overlay.clone();
        config.overlay.first_request = seed & 0x0fff_ffff;
        (config.overlay.durable, config.overlay.weight) = (self.config.disk.durable, self.host(host).weight);
        let now = self.now;
        let of = self.host_mut(host);
        config.memory.clone_from(&of.memory);
        if let Some(disk) = &of.disk {
            config.views = disk.store.kept().unwrap_or_default();
            config.gauge = gauge(&disk.store);
        }
        of.node = Some(Box::new(ChordNode::new(config, seed)));
        of.incarnation = incarnation;
        of.life += 1;
        of.started = now;
        of.stopped = None;
        of.wake_at = None;
        of.seen = 0;
        self.act(host, Input::Start);
    }

    /// Whether this host's process may end now without breaking what Zave's proof takes for granted: that the ring
    /// keeps its invariant, and a base of r+1 principals (all members, if there are no more). A node that has begun to
    /// leave counts as gone already, because it will be. A list on its way to somebody may name all who crashed since it
    /// was sent: one of its r entries must live.
    pub fn may_crash(&self, host: HostId) -> bool {
        let on_their_way = self.crashes.iter().filter(|at| self.now.since(**at) < WORD_AGE_MAX).count();
        if on_their_way + 1 >= self.successors() {
            return false;
        }
        let (mut ring, settled, base) = self.watch.snapshot(self.now);
        ring.remove(self.host(host).incarnation);
        ring.remove_leavers();
        let count = ring.members().len();
        let wanted = count.min(self.successors() + 1);
        count > 0 && ring.check(&settled, &base).is_ok_and(|verdict| verdict.principals.len() >= wanted)
    }

    /// Whether this host's node may leave without taking the last entry of somebody's list that lives and stays. Who leaves
    /// is passed by in order by those that the ring knows of; a newcomer whose successor has just died is not among them, and
    /// for it a leaver fails like any other.
    pub fn may_leave(&self, host: HostId) -> bool {
        let (mut ring, ..) = self.watch.snapshot(self.now);
        ring.remove(self.host(host).incarnation);
        ring.remove_leavers();
        let nobody = BTreeSet::new();
        !matches!(ring.check(&nobody, &nobody), Err(RingFault::NoLiveSuccessor(_)))
    }

    /// Tells a node to leave.
    pub fn leave(&mut self, host: HostId) {
        self.act(host, Input::Leave);
    }

    /// A user asks a node; the answer appears in [`World::take_replies`].
    pub fn ask(&mut self, host: HostId, token: u64, request: UserRequest) {
        self.act(host, Input::User { token, request });
    }

    /// A node looks an id up; the answer appears in [`World::take_answers`].
    pub fn look_up(&mut self, host: HostId, target: Id) {
        let ticket = self.counters.lookups + self.counters.lookups_failed + self.lookups.len() as u64;
        let ticket = self.lookups.last_key_value().map_or(ticket, |(last, _)| ticket.max(last + 1));
        self.lookups.insert(ticket, Asked { host, target, at: self.now });
        self.act(host, Input::Lookup { ticket, target });
    }

    pub(super) fn act(&mut self, host: HostId, input: Input) {
        let life = self.host(host).life;
        self.schedule(self.now, Happening::Act { host, life, input: Box::new(input) });
    }

    // ----- time passes -----

    /// Runs for so long.
    pub fn run_for(&mut self, span: Span) {
        let end = self.now + span;
        while self.queue.next_at().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until `done` or for at most `limit`. True if done. It looks every few ms.
    pub fn run_until(&mut self, limit: Span, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            if done(self) {
                return true;
            }
            if self.now >= end {
                return false;
            }
            let pause = LOOK.min(end.since(self.now));
            self.run_for(pause);
        }
    }

    /// Runs the next event.
    pub fn step(&mut self) {
        let Some((at, happening)) = self.queue.pop() else { return };
        self.now = at;
        self.counters.events += 1;
        self.note(at.0);
        if let Some(host) = happening.at()
            && let Condition::Frozen(waiting) = &mut self.host_mut(host).condition
        {
            waiting.push(happening);
            return;
        }
        match happening {
            Happening::Wake { host, life } => self.wake(host, life),
            Happening::Act { host, life, input } if self.lives(host, life) => {
                self.with_node(host, |node, now| node.handle_input(now, *input));
            }
            Happening::Dialled { from, from_life, to, seed } => self.dialled(from, from_life, to, seed),
            Happening::DialTimedOut { from, from_life, to, seed } => self.dial_timed_out(from, from_life, to, seed),
            Happening::Arrives { from, from_life, to, life, frame } => {
                self.arrives(from, from_life, to, life, &frame.bytes);
            }
            Happening::Unheard { from, from_life, to, since } => self.unheard(from, from_life, to, since),
            // Only the end of the last connection to a peer is told, as in the driver.
            Happening::LinkBroken { host, life, peer, refused, undelivered }
                if self.lives(host, life) && (refused || !undelivered.is_empty() || !self.is_linked(host, peer)) =>
            {
                let ids = &mut self.ids;
                let undelivered = undelivered.iter().filter_map(|frame| message_of(&frame.bytes, ids)).collect();
                let input = Input::Unreachable { addr: peer, refused, undelivered };
                self.with_node(host, |node, now| node.handle_input(now, input));
            }
            Happening::Worked { host, life, read } if self.lives(host, life) => self.worked(host, read),
            Happening::Act { .. } | Happening::LinkBroken { .. } | Happening::Worked { .. } => {}
        }
        if let Some(fault) = self.fault.take() {
            let ring = self.watch.snapshot(self.now).0;
            panic!("the ring invariant is broken at {:?}: {fault:?}\n{ring}", self.now);
        }
    }

    fn wake(&mut self, host: HostId, life: u32) {
        let now = self.now;
        let of = self.host_mut(host);
        if of.life != life || of.wake_at.is_none_or(|due| due > now) {
            return;
        }
        of.wake_at = None;
        let due =
            of.node.as_ref().and_then(|node| node.poll_timeout()).is_some_and(|at| of.started + Span(at.0) <= now);
        if due {
            self.with_node(host, ChordNode::handle_timeout);
        } else {
            self.plan_wake(host);
        }
    }

    /// One wake-up is planned for each host, never later than its node wants.
    fn plan_wake(&mut self, host: HostId) {
        let now = self.now;
        let of = self.host_mut(host);
        let Some(at) = of.node.as_ref().and_then(|node| node.poll_timeout()) else { return };
        let at = (of.started + Span(at.0)).max(now);
        if of.wake_at.is_none_or(|planned| at < planned) {
            of.wake_at = Some(at);
            let life = of.life;
            self.schedule(at, Happening::Wake { host, life });
        }
    }

    pub(super) fn host(&self, host: HostId) -> &Host {
        &self.hosts[host as usize]
    }

    pub(super) fn host_mut(&mut self, host: HostId) -> &mut Host {
        &mut self.hosts[host as usize]
    }

    pub(super) fn at_addr(&self, addr: SocketAddr) -> Option<HostId> {
        let SocketAddr::V4(v4) = addr else { return None };
        let [_, b, c, d] = v4.ip().octets();
        let host = HostId::from_be_bytes([0, b, c, d]);
        self.hosts.get(host as usize).filter(|host| host.addr == addr).map(|_| host)
    }

    fn is_linked(&self, host: HostId, peer: SocketAddr) -> bool {
        self.at_addr(peer).is_some_and(|peer| self.host(host).links.contains_key(&peer))
    }

    pub(super) fn lives(&self, host: HostId, life: u32) -> bool {
        let of = self.host(host);
        of.life == life && of.node.is_some()
    }

    pub(super) fn schedule(&mut self, at: Time, happening: Happening) {
        self.queue.push(at, happening);
    }

    /// Whether frames from one host arrive at the other.
    pub fn reaches(&self, from: HostId, to: HostId) -> bool {
        let (sender, receiver) = (self.host(from), self.host(to));
        sender.side == receiver.side
            && !matches!(sender.condition, Condition::Dark)
            && !matches!(receiver.condition, Condition::Dark)
            && !self.blocked.blocks(from, to)
            && !is_severed(&self.config.network, self.config.seed, from, to)
    }

    pub(super) fn note(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(FNV_PRIME).rotate_left(23);
    }

    pub(super) fn note_bytes(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            self.note(u64::from_le_bytes(word));
        }
    }

    // ----- one node acts -----

    /// Lets a node act, carries out what it wants, checks it.
    pub(super) fn with_node(&mut self, host: HostId, act: impl FnOnce(&mut ChordNode, Now)) {
        let world_now = self.now;
        let of = &mut self.hosts[host as usize];
        let Some(mut node) = of.node.take() else { return };
        let mono = Time(world_now.0 - of.started.0);
        let wall = (WALL_START.0 + world_now.0 / 1_000).saturating_add_signed(of.wall_offset_ms);
        act(&mut node, Now { mono, wall: Wall(wall) });
        let mut outputs = std::mem::take(&mut self.outputs);
        while let Some(output) = node.poll_output() {
            outputs.push(output);
        }
        node.check_invariants();
        if let Some(overlay) = node.overlay().filter(|overlay| overlay.neighbours_version() != of.seen) {
            of.seen = overlay.neighbours_version();
            overlay.check_pointers();
            self.counters.checks += 1;
            if let Err(fault) = self.watch.update(world_now, overlay) {
                self.fault.get_or_insert(fault);
            }
        }
        of.node = Some(node);
        self.plan_wake(host);
        for output in outputs.drain(..) {
            self.carry_out(host, output);
        }
        self.outputs = outputs;
    }

    fn carry_out(&mut self, host: HostId, output: Output) {
        match output {
            Output::Send { to, message } => self.send(host, to, message),
            Output::Dial { seed } => {
                if let Some(to) = seed.parse().ok().and_then(|addr| self.at_addr(addr)) {
                    self.dial(host, to, Some(seed));
                }
            }
            Output::Reply { token, reply } => self.replies.push((host, token, reply)),
            Output::Resume(parked) => self.resumed.push((host, parked)),
            Output::LookedUp { ticket, result } => self.looked_up(ticket, result),
            Output::Event(event) => self.count(&event),
            // Whoever makes a hello asks the node itself.
            Output::Ring(params) => self.open_disk(host, &params),
            Output::Store { job, work } => self.ask_disk(host, job, work),
            Output::Remember(memory) => self.host_mut(host).memory = Some(*memory),
            Output::Stop(stop) => {
                if stop == Stop::Left {
                    self.counters.left += 1;
                    // It has nothing any more, and is nobody.
                    self.host_mut(host).disk = None;
                }
                match stop {
                    Stop::Left | Stop::DrainTimeout { .. } | Stop::Stranded { .. } => self.say_goodbye(host),
                    Stop::Fatal(_) => self.break_links(host),
                }
                self.host_mut(host).stopped = Some(stop);
                self.end_process(host);
            }
        }
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::Joined(_) => self.counters.joined += 1,
            Event::Orphaned => self.counters.orphaned += 1,
            Event::Reformed => self.counters.reformed += 1,
            Event::Gone(_) => self.counters.gone += 1,
            Event::Slots { took, .. } => self.counters.slots_taken += *took as u64,
            _ => {}
        }
    }

    fn looked_up(&mut self, ticket: u64, result: Result<Answer, LookupFailed>) {
        let Some(Asked { host, target, at }) = self.lookups.remove(&ticket) else { return };
        let right = result.is_ok_and(|answer| self.watch.was_owner(&answer.owner, target, at, self.now));
        let count = if result.is_ok() { &mut self.counters.lookups } else { &mut self.counters.lookups_failed };
        *count += 1;
        if self.config.check == Check::Ring
            && let (Ok(answer), false) = (&result, right)
        {
            self.fault.get_or_insert(RingFault::WrongOwner { target, answer: answer.owner });
        }
        self.answers.push(LookupReport { host, target, result, right });
    }

    /// A process is over, however it ended.
    pub(super) fn end_process(&mut self, host: HostId) {
        let now = self.now;
        let of = self.host_mut(host);
        of.node = None;
        of.wake_at = None;
        let (addr, incarnation) = (of.addr, of.incarnation);
        let me = self.ids.contact(addr, incarnation);
        if let Err(fault) = self.watch.remove(now, &me) {
            self.fault.get_or_insert(fault);
        }
        self.lookups.retain(|_, asked| asked.host != host);
        self.close_disk(host);
    }
}

impl Happening {
    /// The host that it happens to, if that has to run for it.
    fn at(&self) -> Option<HostId> {
        match self {
            Self::Wake { host, .. }
            | Self::LinkBroken { host, .. }
            | Self::Act { host, .. }
            | Self::Worked { host, .. } => Some(*host),
            Self::Arrives { to, .. } => Some(*to),
            Self::Dialled { from, .. } | Self::DialTimedOut { from, .. } => Some(*from),
            Self::Unheard { .. } => None,
        }
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;
