//! The node itself: what goes in, what comes out, and the dispatch between.
//!
//! Order of calls: [`ChordNode::handle_input`] or [`ChordNode::handle_timeout`], then [`ChordNode::poll_output`] until
//! it gives nothing, then sleep until [`ChordNode::poll_timeout`] at the latest. It reads no clock, draws no randomness
//! beyond its seed and opens nothing.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use super::copies::OWNER_TICKET;
use super::inside::Inside;
use super::io::{Event, Input, NodeConfig, Output, Stop};
use super::job::{Asker, Jobs};
use super::list::ListTask;
use super::message::{Call, Message, NodeInfo, Reply};
use super::operate::OperateTask;
use super::params::RingParams;
use super::recover::RecoverTask;
use super::seek::Seeker;
use super::stale::StaleTask;
use super::task::{Kind, Tasks, Wake, Whose};
use super::trace::TraceTask;
use super::walk::WalkTask;
use super::watch::{WatchTask, Watching};
use crate::base::{Contact, Incarnation, Now, Rng, Span, Time, Timers};
use crate::data::{Check, Failure, Usage, UserReply, UserRequest};
use crate::overlay::{Answer, Effect, JoinFailed, LookupFailed, Overlay, OverlayConfig, RingMessage, Standing};
use crate::replication::copies::{Copies, MAINTAIN_INTERVAL, Settled};

/// A node. See the module for the order of calls.
#[derive(Debug)]
pub struct ChordNode {
    pub(super) config: NodeConfig,
    pub(super) rng: Rng,
    pub(super) inside: Option<Inside>,
    pub(super) seeker: Seeker,
    pub(super) tasks: Tasks,
    pub(super) timers: Timers<NodeTimer>,
    pub(super) outputs: VecDeque<Output>,
    pub(super) jobs: Jobs,
    pub(super) started: Time,
    // Both clocks at the latest input.
    clocks: Now,
    leaving: bool,
    // It leaves although it still holds something: why, with so many keys.
    gave_up: Option<fn(u64) -> Stop>,
    // Nobody else was in the ring when this node left it.
    last_one: bool,
    // Who said goodbye last.
    departed: Option<Incarnation>,
    pub(super) moved: Moved,
    pub(super) watching: Watching,
    // Operations that this node coordinates, and for whom.
    pub(super) operations: BTreeMap<u64, Asker>,
    pub(super) next_operation: u64,
    /// Who counts the operations of this node's users: another in each process, as it begins anew.
    pub(super) op_node: Incarnation,
    /// The number of the latest one.
    pub(super) next_op: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NodeTimer {
    /// Dial the seeds (again).
    Seek,
    /// Look after the slots.
    Maintain,
    /// A record expires.
    Expire,
    /// Write down who is in the ring.
    Remember,
    /// Look whether a seed is in another ring.
    Seeds,
    /// Leaving has taken too long.
    Drain,
    /// Something is to be done for those who watch keys.
    Watch,
    /// A request's pause, or its time, is over.
    Task(u64),
}

#[derive(Debug, Default)]
pub(super) struct Moved {
    pub took: usize,
    pub gave: usize,
}

impl ChordNode {
    /// A node that has not started. `seed` is the source of all its randomness.
    pub fn new(config: NodeConfig, seed: u64) -> Self {
        Self {
            tasks: Tasks::new(config.overlay.first_request),
            jobs: Jobs::new(config.gauge),
            config,
            op_node: process(seed),
            next_op: 0,
            rng: Rng::new(seed),
            inside: None,
            seeker: Seeker::default(),
            timers: Timers::new(),
            outputs: VecDeque::new(),
            started: Time::default(),
            clocks: Now::default(),
            leaving: false,
            gave_up: None,
            last_one: false,
            departed: None,
            moved: Moved::default(),
            watching: Watching::default(),
            operations: BTreeMap::new(),
            next_operation: 0,
        }
    }

    /// The ring's parameters, once known.
    pub fn params(&self) -> Option<&RingParams> {
        self.inside.as_ref().map(|inside| &inside.params)
    }

    /// The overlay, once there is one.
    pub fn overlay(&self) -> Option<&Overlay> {
        self.inside.as_ref().map(|inside| &inside.overlay)
    }

    /// See [`Overlay::place`].
    #[cfg(test)]
    pub fn place(&mut self, now: Now, before: Contact, list: &[Contact]) {
        self.inside.as_mut().expect("in a ring").overlay.place(before, list);
        self.settle(now);
    }

    /// How many slots this node has a copy of.
    pub fn slots_held(&self) -> usize {
        self.copies().map_or(0, Copies::held)
    }

    /// How far the slots are from where they belong, once there are any.
    pub fn settled(&self) -> Option<Settled> {
        self.copies().map(Copies::settled)
    }

    /// Whether nothing is left to do until the ring changes.
    pub fn is_at_rest(&self) -> bool {
        self.copies().is_some_and(Copies::is_at_rest)
    }

    /// Whether it has given everything away.
    pub fn is_drained(&self) -> bool {
        self.copies().is_none_or(Copies::is_drained)
    }

    /// Its copies, once there are any.
    pub fn copies(&self) -> Option<&Copies> {
        self.inside.as_ref().map(|inside| &inside.copies)
    }

    /// How much the store holds, as far as this node has heard.
    pub fn usage(&self) -> Usage {
        self.jobs.gauge.usage
    }

    /// When [`ChordNode::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        let overlay = self.inside.as_ref().and_then(|inside| inside.overlay.poll_timeout());
        let copies = self.copies().and_then(Copies::poll_timeout);
        self.timers.next().into_iter().chain(overlay).chain(copies).min()
    }

    /// The next output, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Something happened.
    pub fn handle_input(&mut self, now: Now, input: Input) {
        self.look_at_clocks(now);
        match input {
            Input::Start => {
                self.started = now.mono;
                self.start_seeking(now);
            }
            Input::Message { from, message } => self.on_message(now, from, message),
            Input::Session { peer, params, seed } => self.on_session(now, peer, params, seed.is_some()),
            Input::SeedFailed { seed, reason, hope } => self.on_seed_failed(now, seed, reason, hope),
            Input::Unreachable { addr, refused, undelivered } => self.on_unreachable(now, addr, refused, undelivered),
            // Whatever is not asked for a user is said again in time.
            Input::Overflow { message: Message::Call { request, .. }, .. } => self.on_undelivered(now, request),
            Input::Overflow { .. } => {}
            Input::Goodbye(peer) => self.on_goodbye(now, peer),
            Input::User { token, request } => self.on_user(now, token, request),
            Input::Leave => self.leave(now),
            Input::Stored { job, done, gauge } => self.on_stored(now, job, done, gauge),
            Input::Lookup { ticket, target } => match &mut self.inside {
                Some(inside) => inside.overlay.lookup(now.mono, TOOL_TICKETS | ticket, target),
                None => self.outputs.push_back(Output::LookedUp { ticket, result: Err(LookupFailed) }),
            },
        }
        self.settle(now);
    }

    /// Runs whatever is due. Afterwards [`ChordNode::poll_timeout`] is later than `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.look_at_clocks(now);
        if let Some(inside) = &mut self.inside {
            inside.overlay.handle_timeout(now.mono);
            inside.copies.handle_timeout(now);
        }
        while let Some(timer) = self.timers.pop_due(now.mono) {
            match timer {
                NodeTimer::Seek => self.seek(now),
                NodeTimer::Maintain => self.maintain(now),
                NodeTimer::Expire => self.collect_expired(now),
                NodeTimer::Remember => self.remember(),
                NodeTimer::Seeds => self.look_for_seeds(now),
                NodeTimer::Watch => self.watch_due(now),
                NodeTimer::Drain => self.give_up(now, |keys| Stop::DrainTimeout { keys }),
                NodeTimer::Task(id) => self.task_due(now, id),
            }
        }
        self.settle(now);
    }

    /// Between two inputs both clocks go on by the same time, unless the machine slept or a clock was set.
    fn look_at_clocks(&mut self, now: Now) {
        let before = std::mem::replace(&mut self.clocks, now);
        let mono = now.mono.since(before.mono).as_millis();
        let wall = now.wall.0.wrapping_sub(before.wall.0).cast_signed();
        let jump = wall.saturating_sub_unsigned(mono).unsigned_abs();
        if before != Now::default()
            && jump > CLOCK_JUMP.as_millis()
            && let Some(inside) = &mut self.inside
        {
            inside.overlay.handle_jump(now.mono);
            inside.copies.forget_ages();
        }
    }

    // ----- peers -----

    fn on_message(&mut self, now: Now, from: Contact, message: Message) {
        let Some(inside) = &mut self.inside else { return };
        match message {
            Message::Ring(message) => {
                let offered = if let RingMessage::Offer { contact } = &message { Some(*contact) } else { None };
                inside.overlay.handle_message(now.mono, from, message);
                if let Some(member) = offered {
                    self.on_offer_while_seeking(now, member);
                }
            }
            Message::Copies(message) => {
                if inside.overlay.handle_alive(now.mono, from) {
                    inside.copies.handle_message(now.mono, from, *message);
                }
            }
            Message::Notice { number, hints } => {
                if inside.overlay.handle_alive(now.mono, from) {
                    self.on_changed_elsewhere(now, from, number, hints);
                }
            }
            Message::Call { request, call } => {
                if inside.overlay.handle_alive(now.mono, from) {
                    self.serve_call(now, from, request, call);
                }
            }
            Message::Reply { request, reply } => {
                if inside.overlay.handle_alive(now.mono, from) {
                    self.on_reply(now, from, request, reply);
                }
            }
        }
    }

    /// What a peer asks for one of its users.
    fn serve_call(&mut self, now: Now, to: Contact, request: u64, call: Call) {
        let Some(inside) = &self.inside else { return };
        let asker = Asker::Peer { to, request };
        let reply = match call {
            Call::Operate { key, operation } => {
                let place = inside.params.space.place(key);
                self.operate_here(now, asker, &place, operation).map(Reply::Ran)
            }
            Call::List { query, all } => {
                self.list_here(now, asker, &query, all);
                None
            }
            Call::Peek(key) => {
                let place = inside.params.space.place(key);
                (!self.peek_here(now, asker, &place)).then_some(Reply::Peeked(None))
            }
            Call::Holder(slot) => Some(Reply::Holder(inside.copies.view(slot).cloned())),
            Call::Info => self.info(now).map(|info| Reply::Info(Box::new(info))),
            Call::Survey(from) => Some(Reply::Survey(inside.copies.survey(from))),
            Call::Recover(of) => {
                self.recover_here(now, &of);
                Some(Reply::Recovering)
            }
            Call::Watch { prefix, from } => {
                self.watch_for(now, to, request, prefix, from);
                None
            }
            Call::Follow { filters, lasts } => Some(self.follow_here(now, to, filters, lasts)),
        };
        if let Some(reply) = reply {
            self.reply(to, request, reply);
        }
    }

    fn on_unreachable(&mut self, now: Now, addr: SocketAddr, refused: bool, undelivered: Vec<Message>) {
        for message in undelivered {
            if let Message::Call { request, .. } = message {
                self.on_undelivered(now, request);
            }
        }
        let Some(inside) = &mut self.inside else { return };
        let id = Contact::id_of(inside.params.space.capacity(), addr);
        let peer = inside.overlay.contact_at(id);
        inside.overlay.handle_unreachable(now.mono, addr, refused);
        if let Some(peer) = peer {
            self.lose_calls_to(now, peer.incarnation);
        }
    }

    fn on_goodbye(&mut self, now: Now, peer: Contact) {
        let Some(inside) = &mut self.inside else { return };
        inside.overlay.bury(now.mono, peer);
        self.departed = Some(peer.incarnation);
        self.outputs.push_back(Output::Event(Event::Departed(peer)));
        self.return_calls_to(now, peer.incarnation);
    }

    // ----- users -----

    fn on_user(&mut self, now: Now, token: u64, request: UserRequest) {
        let reply = match request {
            UserRequest::Livez => UserReply::Health(vec![Check { name: "loop", failed: None }]),
            UserRequest::Readyz => UserReply::Health(self.readiness()),
            UserRequest::Metrics => UserReply::Metrics(self.metrics(now)),
            UserRequest::Leave => {
                self.leave(now);
                UserReply::Leaving
            }
            request => match self.task_for(now, request) {
                Ok(kind) => {
                    self.start_task(now, Whose::User(token), kind);
                    return;
                }
                Err(reply) => reply,
            },
        };
        self.outputs.push_back(Output::Reply { token, reply });
    }

    fn task_for(&mut self, now: Now, request: UserRequest) -> Result<Kind, UserReply> {
        let Some(inside) = &self.inside else {
            let detail = "this node has not joined a ring yet; /readyz says what it waits for".to_owned();
            return Err(UserReply::Failed(Failure::NotServing(detail)));
        };
        let params = inside.params;
        match request {
            UserRequest::Kv { key, command } => {
                OperateTask::new(params.space.place(key), command, params.value_bytes_max).map(Kind::Operate)
            }
            UserRequest::ReadAny(key) => Ok(Kind::Stale(StaleTask::new(params.space.place(key)))),
            UserRequest::List(query) => Ok(Kind::List(ListTask::new(query, false))),
            UserRequest::ListHere(query) => Ok(Kind::List(ListTask::new(query, true))),
            UserRequest::Watch(query) => Ok(Kind::Watch(Box::new(WatchTask::new(query)))),
            UserRequest::Lookup(key) => Ok(Kind::Trace(TraceTask::new(params.space.place(key), now.mono))),
            UserRequest::Ring => Ok(Kind::Walk(WalkTask::default())),
            UserRequest::Node => Err(self.node_report(now)),
            UserRequest::Recover { lost } => Ok(Kind::Recover(Box::new(RecoverTask::new(lost)))),
            UserRequest::Leave | UserRequest::Livez | UserRequest::Readyz | UserRequest::Metrics => {
                Err(UserReply::Leaving)
            }
        }
    }

    fn readiness(&self) -> Vec<Check> {
        let ring = match self.inside.as_ref().map(|inside| inside.overlay.standing()) {
            Some(Standing::Member) => None,
            Some(Standing::Leaving | Standing::Left) => Some("this node is leaving the ring".to_owned()),
            Some(Standing::Orphan) => Some("every neighbour is lost; joining again".to_owned()),
            _ => Some(format!("not joined yet; trying {}", self.config.seeds.join(", "))),
        };
        let to_move = self.settled().map_or(0, |settled| settled.to_move);
        let slots = (to_move > 0).then(|| format!("{to_move} slots of this node do not have their copies yet"));
        let busy = self.tasks_running() >= crate::base::limits::REQUESTS_MAX;
        let load = busy.then(|| "too many requests are in progress".to_owned());
        let full = self.jobs.gauge.is_full;
        let store = full
            .then(|| "the store is full, and only removals are taken: delete keys, or raise --max-bytes".to_owned());
        [("ring", ring), ("slots", slots), ("load", load), ("store", store)]
            .map(|(name, failed)| Check { name, failed })
            .into()
    }

    pub(super) fn info(&self, now: Now) -> Option<NodeInfo> {
        let inside = self.inside.as_ref()?;
        let usage = self.usage();
        let settled = inside.copies.settled();
        Some(NodeInfo {
            contact: inside.overlay.me(),
            http: self.config.http,
            standing: inside.overlay.standing(),
            predecessor: inside.overlay.predecessor(),
            successors: inside.overlay.successors().to_vec(),
            weight: self.config.overlay.weight,
            slots: u32::try_from(inside.copies.held()).unwrap_or(u32::MAX),
            slots_moving: u32::try_from(settled.changing + settled.to_move).unwrap_or(u32::MAX),
            keys: usage.keys,
            bytes: usage.bytes,
            uptime_ms: now.mono.since(self.started).as_millis(),
            version: Arc::clone(&self.config.version),
        })
    }

    // ----- coming and going -----

    /// The ring is known: sets up what depends on its parameters.
    pub(super) fn enter(&mut self, params: RingParams) -> &mut Inside {
        let space = params.space;
        let me = Contact::new(space.capacity(), self.config.addr, self.config.incarnation);
        let config =
            OverlayConfig { capacity: space.capacity(), successors: params.successors, ..self.config.overlay.clone() };
        let overlay = Overlay::new(me, config, Rng::new(self.rng.next_u64()));
        let mut copies = Copies::new(me, space, params.replicas, Rng::new(self.rng.next_u64()));
        copies.repair_at(self.config.repair_rate);
        self.outputs.push_back(Output::Ring(params));
        self.inside.insert(Inside { params, overlay, copies })
    }

    fn leave(&mut self, now: Now) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        self.timers.set(NodeTimer::Drain, now.mono + self.config.drain_timeout);
        self.outputs.push_back(Output::Event(Event::Leaving));
        match &mut self.inside {
            Some(inside) => {
                inside.overlay.begin_leaving();
                self.maintain(now);
            }
            None => self.outputs.push_back(Output::Stop(Stop::Left)),
        }
    }

    /// Waits no longer for others to take what it holds. The ring is closed behind it all the same, as long as that does
    /// not take as long again.
    fn give_up(&mut self, now: Now, why: fn(u64) -> Stop) {
        if self.gave_up.replace(why).is_some() {
            self.outputs.push_back(Output::Stop(why(self.usage().keys)));
        } else {
            self.timers.set(NodeTimer::Drain, now.mono + DEPARTURE_MAX);
        }
    }

    // ----- slots -----

    pub(super) fn maintain(&mut self, now: Now) {
        let Some(inside) = &mut self.inside else { return };
        if inside.overlay.standing().is_member() {
            inside.maintain(now);
            if !self.is_at_rest() || self.leaving {
                self.timers.set(NodeTimer::Maintain, now.mono + MAINTAIN_INTERVAL);
            }
        }
        self.tell_moved();
    }

    fn tell_moved(&mut self) {
        let at_rest = self.copies().is_none_or(Copies::is_at_rest);
        let Moved { took, gave } = self.moved;
        if took + gave > 0 && (at_rest || self.leaving) {
            self.moved = Moved::default();
            self.outputs.push_back(Output::Event(Event::Slots { took, gave }));
        }
    }

    // ----- effects -----

    /// Carries out what the parts want of each other, until nothing is left.
    fn settle(&mut self, now: Now) {
        while let Some(inside) = &mut self.inside {
            if let Some(effect) = inside.overlay.poll_effect() {
                self.on_effect(now, effect);
            } else if let Some(effect) = inside.copies.poll_effect() {
                self.on_copies_effect(now, effect);
            } else if !self.tell_ended(now) {
                break;
            }
        }
        self.send_notices();
        if self.reform_at_once(now) {
            self.settle(now);
            return;
        }
        self.arm_expiry(now);
        self.depart_if_drained(now);
    }

    fn depart_if_drained(&mut self, now: Now) {
        let Some(inside) = &mut self.inside else { return };
        if self.leaving && inside.overlay.standing() == Standing::Leaving {
            let is_stranded = self.gave_up.is_none() && inside.copies.is_stranded(now.mono);
            let may_go = inside.copies.is_drained() || inside.overlay.is_alone() || self.gave_up.is_some();
            if is_stranded {
                self.give_up(now, |keys| Stop::Stranded { keys });
                self.settle(now);
            } else if may_go && !inside.overlay.is_departing() {
                self.last_one = inside.overlay.is_alone();
                inside.overlay.depart(now.mono);
                self.settle(now);
            }
        }
    }

    fn on_effect(&mut self, now: Now, effect: Effect) {
        match effect {
            Effect::Send { to, message } => {
                self.outputs.push_back(Output::Send { to, message: Message::Ring(message) });
            }
            Effect::Joined => self.on_joined(now),
            Effect::JoinFailed(JoinFailed::Silent) => self.on_join_failed(now),
            Effect::JoinFailed(JoinFailed::DuplicateId(other)) => {
                let text = format!(
                    "the id of this node is already that of {}: choose another --advertise address or port, or a ring \
                     with a larger --capacity",
                    other.addr
                );
                self.outputs.push_back(Output::Stop(Stop::Fatal(text)));
            }
            Effect::Orphaned => self.on_orphaned(now),
            Effect::Left => self.on_left(),
            Effect::NeighboursChanged => {
                self.remember_soon(now);
                self.maintain(now);
            }
            Effect::LookupDone { ticket, result } => self.on_lookup_done(now, ticket, result),
            Effect::StepDone { ticket, step } => self.wake(now, ticket, Wake::Stepped(step)),
            Effect::Gone(contact) => {
                // Whoever said goodbye was told of already.
                if self.departed != Some(contact.incarnation) {
                    self.outputs.push_back(Output::Event(Event::Gone(contact)));
                }
                self.lose_calls_to(now, contact.incarnation);
                self.maintain(now);
            }
        }
    }

    /// The overlay is out of the ring. Unless this node was the last one, its slots should have gone before it.
    fn on_left(&mut self) {
        let keys = if self.last_one || self.slots_held() == 0 { 0 } else { self.usage().keys };
        let stop = match self.gave_up.filter(|_| !self.last_one) {
            Some(why) => why(keys),
            None if keys > 0 => Stop::Stranded { keys },
            None => Stop::Left,
        };
        self.outputs.push_back(Output::Stop(stop));
    }

    fn on_lookup_done(&mut self, now: Now, ticket: u64, result: Result<Answer, LookupFailed>) {
        if ticket & TOOL_TICKETS != 0 {
            self.outputs.push_back(Output::LookedUp { ticket: ticket & !TOOL_TICKETS, result });
            return;
        }
        if ticket != OWNER_TICKET {
            self.wake(now, ticket, Wake::Found(result));
        } else if let (Ok(answer), Some(inside)) = (result, &mut self.inside) {
            inside.copies.owner_found(answer.owner, answer.before);
        }
    }

    /// Panics if the node's parts break their rules; for tests and the simulator.
    pub fn check_invariants(&self) {
        if let Some(inside) = &self.inside {
            inside.overlay.check_invariants();
            inside.copies.check_invariants();
        }
        assert!(self.outputs.is_empty(), "outputs were not drained");
    }
}

/// Names a process in the names of its operations.
fn process(seed: u64) -> Incarnation {
    let mut rng = Rng::new(!seed);
    Incarnation(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()))
}

/// How long a node that has given up waits for its neighbours to let it go.
const DEPARTURE_MAX: Span = Span::secs(5);
/// Marks the tickets of tools.
const TOOL_TICKETS: u64 = 1 << 63;
/// The wall clock has been set, or the machine slept, if it goes on by so much more or less than the monotonic one.
const CLOCK_JUMP: Span = Span::secs(1);
