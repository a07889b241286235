//! What goes into a node and what comes out of it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::message::Message;
use super::params::{RingParams, Wishes};
use crate::base::{Contact, Id, Incarnation, Span};
use crate::data::{Done, Gauge, Slot, UserReply, UserRequest, Work};
use crate::overlay::{Answer, LookupFailed, OverlayConfig, Routing};
use crate::replication::copies::REPAIR_RATE_DEFAULT;

/// What a node is told at its start.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The advertised address.
    pub addr: SocketAddr,
    /// Who it is; random.
    pub incarnation: Incarnation,
    /// Where its HTTP interface listens, for others to know.
    pub http: Option<SocketAddr>,
    /// Whom to join through, as the operator spelled them; empty to create a ring.
    pub seeds: Vec<String>,
    /// What the operator said about the ring's parameters.
    pub wishes: Wishes,
    /// The id of the ring, if it is created; random.
    pub ring_if_created: u128,
    /// After how long a user request is answered in any case.
    pub request_deadline: Span,
    /// After how long a leaver goes even if it still holds slots.
    pub drain_timeout: Span,
    /// Bytes of records that may be looked through in a second to compare copies; 0: copies are not compared.
    pub repair_rate: u64,
    /// Settings of the overlay; its ring parameters are set by the ring.
    pub overlay: OverlayConfig,
    /// What an earlier process of this node knew; `None` the first time.
    pub memory: Option<Memory>,
    /// What its store is called in reports.
    pub store_kind: &'static str,
    /// The views that an earlier process of this node was in, as its store knows them.
    pub views: Vec<(Slot, String)>,
    /// How the store stands at the start.
    pub gauge: Gauge,
    /// Of the program, for reports.
    pub version: Arc<str>,
}

impl NodeConfig {
    /// The defaults for a node at `addr` that joins through `seeds`, or creates a ring if there are none.
    pub fn new(addr: SocketAddr, incarnation: Incarnation, seeds: Vec<String>) -> Self {
        Self {
            addr,
            incarnation,
            http: None,
            seeds,
            wishes: Wishes::default(),
            ring_if_created: incarnation.0,
            request_deadline: Span::secs(5),
            drain_timeout: Span::secs(30),
            repair_rate: REPAIR_RATE_DEFAULT,
            overlay: OverlayConfig::default(),
            memory: None,
            store_kind: "memory",
            views: Vec::new(),
            gauge: Gauge::default(),
            version: Arc::from(env!("CARGO_PKG_VERSION")),
        }
    }

    /// The same with another choice of routes.
    pub fn with_routing(mut self, routing: Routing) -> Self {
        self.overlay.routing = routing;
        self
    }
}

/// What a node keeps beyond its process, so that it comes back even if every seed is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The ring that it was a member of.
    pub params: RingParams,
    /// Members of it, at most [`CONTACTS_REMEMBERED_MAX`](crate::base::limits::CONTACTS_REMEMBERED_MAX).
    pub contacts: Vec<Contact>,
}

/// Whether trying a seed again helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hope {
    /// Never.
    None,
    /// In time.
    Some,
    /// Soon: it answers, and is about to come in itself.
    Soon,
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// It shall run: create a ring or join one.
    Start,
    /// A peer's message. `from` is what the handshake established.
    Message {
        /// Who sent it.
        from: Contact,
        /// What it sent.
        message: Message,
    },
    /// A handshake with a member of the ring ended well. `seed`: it was dialled for this seed.
    Session {
        /// The peer's address and incarnation; its id follows from the capacity.
        peer: (SocketAddr, Incarnation),
        /// The ring's parameters, which fit the wishes.
        params: RingParams,
        /// As in [`Output::Dial`].
        seed: Option<String>,
    },
    /// A seed could not be dialled, or sent us away for now.
    SeedFailed {
        /// As in [`Output::Dial`].
        seed: String,
        /// Why, as a sentence.
        reason: String,
        /// Whether trying again helps.
        hope: Hope,
    },
    /// No connection to a peer could be made, or it broke.
    Unreachable {
        /// Its address.
        addr: SocketAddr,
        /// Its host says that nobody listens there.
        refused: bool,
        /// Messages that were certainly not delivered.
        undelivered: Vec<Message>,
    },
    /// A message was not taken: too many wait for that peer.
    Overflow {
        /// For whom it was.
        to: Contact,
        /// What it was.
        message: Message,
    },
    /// A peer said goodbye: it has left and will not answer any more. What it has not answered it has not done.
    Goodbye(Contact),
    /// A user's request. `token` names it in [`Output::Reply`].
    User {
        /// Chosen by the driver.
        token: u64,
        /// What is asked.
        request: UserRequest,
    },
    /// The operator wants this node to leave the ring and end.
    Leave,
    /// The store has done what [`Output::Store`] asked for.
    Stored {
        /// As in the output.
        job: u64,
        /// How it went.
        done: Done,
        /// How the store stands now, if that may have changed.
        gauge: Option<Gauge>,
    },
    /// Look up the successor of an id, for tools that watch the ring: see [`Output::LookedUp`].
    Lookup {
        /// Chosen by the driver; below 2^63.
        ticket: u64,
        /// What to look up.
        target: Id,
    },
}

/// What a node wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this, over a connection that exists or is to be made.
    Send {
        /// To whom.
        to: Contact,
        /// What.
        message: Message,
    },
    /// Resolve and dial this seed, and tell the outcome.
    Dial {
        /// As the operator spelled it, or the address of a remembered member.
        seed: String,
    },
    /// Answer a user.
    Reply {
        /// As in [`Input::User`].
        token: u64,
        /// The answer.
        reply: UserReply,
    },
    /// Ask again what was put off under this number ([`UserReply::Parked`]).
    Resume(u64),
    /// The answer to [`Input::Lookup`].
    LookedUp {
        /// As in the input.
        ticket: u64,
        /// How it went.
        result: Result<Answer, LookupFailed>,
    },
    /// The parameters of the ring that this node looks for or is in. They stay: hellos name them from now on. The store
    /// is for a ring like this; nothing is asked of it before.
    Ring(RingParams),
    /// Ask the store, and tell the node how it went. Writes and parts of slots in this order, other reads as it comes
    /// ([`Work::is_read`]).
    Store {
        /// For the answer.
        job: u64,
        /// What.
        work: Work,
    },
    /// Keep this in place of what was kept before.
    Remember(Box<Memory>),
    /// Something that an operator should know.
    Event(Event),
    /// End the process.
    Stop(Stop),
}

/// What an operator should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A ring of one was created.
    Created(RingParams),
    /// The node is in the ring.
    Joined(RingParams),
    /// A seed did not let us in.
    SeedFailed {
        /// Which.
        seed: String,
        /// Why.
        reason: String,
        /// When all seeds are tried again.
        retry_in: Span,
    },
    /// Every neighbour is lost; the node joins again.
    Orphaned,
    /// No remembered member is in a ring: this node carries the ring on.
    Reformed,
    /// A member counts as gone.
    Gone(Contact),
    /// A member has left in order.
    Departed(Contact),
    /// Slots changed hands.
    Slots {
        /// Handed over to this node.
        took: usize,
        /// Handed over by this node.
        gave: usize,
    },
    /// The node begins to leave.
    Leaving,
}

/// Why a node ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It left the ring in order.
    Left,
    /// The drain time-out passed; so many keys were still here and are lost.
    DrainTimeout {
        /// How many.
        keys: u64,
    },
    /// Every other member leaves too, or is gone: nobody took so many keys, and they are lost.
    Stranded {
        /// How many.
        keys: u64,
    },
    /// It cannot work; a sentence for the operator.
    Fatal(String),
}
