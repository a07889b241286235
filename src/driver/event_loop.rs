//! The loop: one thread that gives the node what happens and carries out what it wants.
//!
//! It sleeps until something is ready or the next deadline is there, never on a tick.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use mio::{Events, Poll, Token, Waker};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use tracing::{info, warn};

use super::clock::Clock;
use super::peers::{FIRST_TOKEN, Peers};
use super::ring_key::RingKeys;
use super::settings::RunError;
use super::storage::Storage;
use super::users::Users;
use crate::base::{Incarnation, Span, Time};
use crate::data::UserReply;
use crate::node::{ChordNode, Event, Hope, Input, Output, Stop};

/// The token of the peers' listener.
pub(super) const LISTENER: Token = Token(0);
/// The token that other threads wake the loop with.
pub(super) const WAKER: Token = Token(1);
const SIGNALS: Token = Token(2);
const _: () = assert!(SIGNALS.0 < FIRST_TOKEN, "connections must not take the tokens of others");

/// What other threads tell the loop, besides users' requests.
pub(super) enum Word {
    /// A seed's name was looked up.
    Resolved { seed: String, addr: Result<SocketAddr, String> },
    /// Standard input has ended, and with it whoever started this process.
    StdinEnded,
}

/// Everything that the loop owns.
pub(super) struct EventLoop {
    pub poll: Poll,
    pub clock: Clock,
    pub node: ChordNode,
    pub me: (Incarnation, SocketAddr),
    pub peers: Peers,
    pub users: Users,
    pub storage: Storage,
    pub signals: Signals,
    pub words: (Sender<Word>, Receiver<Word>),
    pub waker: Arc<Waker>,
    pub files: Files,
    /// Set once the node has left.
    pub parting: Option<Parting>,
    /// A first signal has come.
    pub told_to_stop: bool,
}

/// What is read again on SIGHUP.
pub(super) struct Files {
    pub ring_key: Option<PathBuf>,
    pub tokens: Option<PathBuf>,
}

/// The end of a node that has left: first users get the answers that are still to come, then peers a goodbye.
pub(super) struct Parting {
    /// Until when users may wait for answers.
    users_until: Time,
    /// Set with the goodbye: until when peers may take to hear it.
    peers_until: Option<Time>,
    /// The node is not a member any more. Otherwise peers are told nothing: it comes back.
    has_left: bool,
    result: Result<(), RunError>,
}

/// Events taken from the system in one go.
const EVENTS: usize = 256;
/// How long users have to get their last answers, and then peers to hear a goodbye.
const PARTING_TIME: Span = Span::secs(1);
/// Between two looks at whether the users are gone, which nothing announces.
const PARTING_LOOK: Span = Span::millis(5);
/// The longest sleep; nothing depends on it.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

impl EventLoop {
    /// Runs until the node has ended.
    pub fn run(mut self) -> Result<(), RunError> {
        let broken = |error: io::Error| RunError { message: format!("the event loop failed: {error}") };
        self.poll.registry().register(&mut self.signals, SIGNALS, mio::Interest::READABLE).map_err(broken)?;
        let mut events = Events::with_capacity(EVENTS);
        self.clock.read();
        self.input(Input::Start);
        loop {
            self.end_of_turn();
            if let Some(result) = self.ended() {
                self.users.stop();
                return result;
            }
            match self.poll.poll(&mut events, Some(self.sleep())) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(broken(error)),
                _ => {}
            }
            self.clock.read();
            for (nth, event) in events.iter().enumerate() {
                if nth > 0 {
                    self.clock.read();
                }
                match event.token() {
                    LISTENER => self.peers.accept(self.clock.now().mono, self.poll.registry()),
                    WAKER => self.on_woken(),
                    SIGNALS => self.on_signals()?,
                    _ => self.peers.ready(self.clock.now().mono, event),
                }
                self.drain();
            }
            self.on_time();
        }
    }

    /// How long until something is due.
    fn sleep(&self) -> Duration {
        if self.peers.has_unread() {
            return Duration::ZERO;
        }
        let look = self.clock.now().mono + PARTING_LOOK;
        let parting = self.parting.as_ref().map(|parting| parting.peers_until.unwrap_or(parting.users_until.min(look)));
        let deadlines = [self.node.poll_timeout(), self.peers.poll_timeout(), parting];
        let next = deadlines.into_iter().flatten().min();
        next.map_or(SLEEP_MAX, |at| self.clock.until(at)).min(SLEEP_MAX)
    }

    fn on_time(&mut self) {
        let now = self.clock.now();
        self.peers.read_on(now.mono);
        self.peers.sweep(now.mono, self.poll.registry());
        if self.node.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.node.handle_timeout(now);
        }
        self.drain();
    }

    fn input(&mut self, input: Input) {
        self.node.handle_input(self.clock.now(), input);
        self.drain();
    }

    /// Inputs to the node and outputs of it, until neither is left.
    fn drain(&mut self) {
        loop {
            while let Some(output) = self.node.poll_output() {
                self.carry_out(output);
            }
            let Some(input) = self.storage.poll().or_else(|| self.peers.poll_input()) else { return };
            self.node.handle_input(self.clock.now(), input);
        }
    }

    fn end_of_turn(&mut self) {
        self.peers.flush(self.clock.now().mono, self.has_said_goodbye());
        // Writing may have found broken connections.
        self.drain();
    }

    // ----- what the node wants -----

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send { to, message } => {
                self.peers.send(self.clock.now().mono, self.poll.registry(), to, message);
            }
            Output::Dial { seed } => self.resolve(seed),
            Output::Reply { token, reply } => self.answer(token, reply),
            Output::Resume(parked) => self.users.resume(parked),
            Output::Event(event) => log(&event),
            Output::Ring(params) => {
                if let Err(error) = self.storage.start(&params, self.me, &self.waker) {
                    self.part(Stop::Fatal(error.message));
                    return;
                }
                self.peers.set_ring(params);
                self.users.limit_values(params.value_bytes_max);
            }
            Output::Remember(memory) => self.storage.remember(&memory),
            Output::Store { job, work } => self.storage.ask(job, work),
            // Nobody here looks ids up for its own sake.
            Output::LookedUp { .. } => {}
            Output::Stop(stop) => self.part(stop),
        }
    }

    /// What the node does not know is added: what its peers and users meet before it hears of them.
    fn answer(&mut self, token: u64, mut reply: UserReply) {
        match &mut reply {
            UserReply::Metrics(metrics) => {
                metrics.extend(self.peers.metrics());
                metrics.push(self.users.metric());
            }
            UserReply::Health(checks) => self.users.judge_load(checks),
            _ => {}
        }
        self.users.answer(token, reply);
    }

    /// Finds the address of a seed. Only a name needs a thread: looking it up may take long.
    fn resolve(&mut self, seed: String) {
        if let Ok(addr) = seed.parse() {
            self.peers.dial_seed(self.clock.now().mono, self.poll.registry(), seed, addr);
            return;
        }
        let (sender, waker) = (self.words.0.clone(), Arc::clone(&self.waker));
        let name = seed.clone();
        let look_up = move || {
            let addr = name.to_socket_addrs().map_err(|error| error.to_string());
            let addr = addr.and_then(|mut all| all.next().ok_or("the name has no address".to_owned()));
            // Both fail only once the loop is gone.
            let _ = sender.send(Word::Resolved { seed: name, addr });
            let _ = waker.wake();
        };
        if let Err(error) = std::thread::Builder::new().name("resolve".to_owned()).spawn(look_up) {
            self.input(Input::SeedFailed { seed, reason: error.to_string(), hope: Hope::Some });
        }
    }

    fn part(&mut self, stop: Stop) {
        let lost = if self.storage.is_durable() {
            "they are still in --data-dir: start this node again to hand them over"
        } else {
            "they are lost"
        };
        let (has_left, result) = match stop {
            Stop::Left | Stop::DrainTimeout { keys: 0 } | Stop::Stranded { keys: 0 } => (true, Ok(())),
            Stop::Stranded { keys } => {
                let why = "every other member leaves too or is gone";
                (true, Err(RunError { message: format!("{why}: {keys} keys had nobody to go to; {lost}") }))
            }
            Stop::DrainTimeout { keys } => {
                let message = format!("the drain time-out passed with {keys} keys not handed over; {lost}");
                (true, Err(RunError { message }))
            }
            Stop::Fatal(message) => (false, Err(RunError { message })),
        };
        self.begin_parting(has_left, result);
    }

    fn begin_parting(&mut self, has_left: bool, result: Result<(), RunError>) {
        if self.parting.is_some() {
            return;
        }
        self.users.begin_stop(Duration::from_micros(PARTING_TIME.0));
        let users_until = self.clock.now().mono + PARTING_TIME;
        self.parting = Some(Parting { users_until, peers_until: None, has_left, result });
    }

    fn has_said_goodbye(&self) -> bool {
        self.parting.as_ref().is_some_and(|parting| parting.peers_until.is_some())
    }

    fn ended(&mut self) -> Option<Result<(), RunError>> {
        let now = self.clock.now().mono;
        let parting = self.parting.as_mut()?;
        if parting.peers_until.is_none() && (self.users.is_quiet() || now >= parting.users_until) {
            // Not before: what peers still answer is for these users.
            parting.peers_until = Some(now + PARTING_TIME);
            if parting.has_left {
                self.peers.say_goodbye();
            }
            self.end_of_turn();
        }
        let Parting { peers_until, has_left, result, .. } = self.parting.as_ref()?;
        let over = self.peers.is_quiet() || peers_until.is_some_and(|until| now >= until);
        // The last member takes its keys along: they are there when it comes back.
        let gave_all = self.node.is_drained();
        let (is_nobody, result) = (*has_left && gave_all && result.is_ok(), result.clone());
        (peers_until.is_some() && over).then(|| if is_nobody { self.storage.forget() } else { result })
    }

    // ----- what others want -----

    fn on_woken(&mut self) {
        while let Some((token, request)) = self.users.next() {
            self.input(Input::User { token, request });
        }
        while let Ok(word) = self.words.1.try_recv() {
            match word {
                Word::Resolved { seed, addr: Ok(addr) } => {
                    self.peers.dial_seed(self.clock.now().mono, self.poll.registry(), seed, addr);
                }
                Word::Resolved { seed, addr: Err(reason) } => {
                    self.input(Input::SeedFailed { seed, reason, hope: Hope::Some });
                }
                Word::StdinEnded => self.stop_once(),
            }
        }
    }

    fn on_signals(&mut self) -> Result<(), RunError> {
        let signals: Vec<i32> = self.signals.pending().collect();
        for signal in signals {
            if signal == SIGHUP {
                self.reload();
            }
            if signal == SIGTERM || signal == SIGINT {
                if self.told_to_stop {
                    return Err(RunError {
                        message: "stopped by a second signal before everything was handed over".to_owned(),
                    });
                }
                info!("told to stop; a second signal ends at once");
                self.stop_once();
            }
        }
        Ok(())
    }

    /// Reads what can change while the node runs. What cannot be read changes nothing.
    fn reload(&mut self) {
        match self.files.ring_key.as_deref().map(RingKeys::load) {
            None => info!("told to read files again: there is no ring key (--ring-key-file)"),
            Some(Ok(keys)) => {
                info!(keys = keys.count(), "the ring key was read again");
                self.peers.set_keys(keys);
                self.drain();
            }
            Some(Err(why)) => warn!("the ring key stays as it was: {why}"),
        }
        match self.files.tokens.as_deref().map(super::access) {
            None => info!("told to read files again: there are no tokens (--http-token-file)"),
            Some(Ok(access)) => {
                info!(tokens = access.count(), "the tokens were read again");
                self.users.set_access(access);
            }
            Some(Err(why)) => warn!("the tokens stay as they were: {why}"),
        }
    }

    fn stop_once(&mut self) {
        if !self.told_to_stop {
            self.told_to_stop = true;
            if self.storage.is_durable() {
                // A reboot moves no data: the node stays a member, and comes back.
                self.begin_parting(false, Ok(()));
            } else {
                self.input(Input::Leave);
            }
        }
    }
}

/// One line for what an operator should know.
fn log(event: &Event) {
    match event {
        Event::Created(params) => info!(ring = format!("{:032x}", params.ring), "a new ring"),
        Event::Joined(params) => info!(ring = format!("{:032x}", params.ring), "joined the ring"),
        Event::SeedFailed { seed, reason, retry_in } => {
            warn!("cannot join through {seed}: {reason}; trying again in {retry_in}");
        }
        Event::Orphaned => warn!("every neighbour is lost; joining again"),
        Event::Reformed => warn!("no known member is in a ring; this node carries it on alone"),
        Event::Gone(contact) => warn!(peer = %contact.addr, "a member is gone"),
        Event::Departed(contact) => info!(peer = %contact.addr, "a member has left"),
        Event::Slots { took, gave } => info!(took, gave, "slots changed hands"),
        Event::Leaving => info!("leaving the ring"),
    }
}
