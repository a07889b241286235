//! Valid messages made of bytes that somebody else has chosen.
//!
//! Everything comes from small sets (five peers, four slots, few epochs), so that messages are about the same things and
//! meet what earlier ones have brought about.

use std::sync::Arc;

use crate::base::{Capacity, Contact, Id, Incarnation, Span, Wall, Weight};
use crate::data::register::{Accepted, OpId, Recent, State};
use crate::data::{
    Answer, Ask, Command, Condition, Cursor, Difference, Digest, Filter, Hint, Item, Key, ListQuery, Outcome, Page,
    Put, Range, Record, Resume, Seen, Slot, Tag, Trouble, UserRequest, Version, WatchQuery, Watched,
};
use crate::node::{Call, Message, NodeInfo, Reply};
use crate::overlay::{Aim, Found, JoinVerdict, Lookup, NextHop, RingMessage, Standing, Want};
use crate::replication::chain::{Promise, Turn};
use crate::replication::copies::{CopyMessage, Operation, Part, Ran, Recovery};
use crate::replication::survey::{Said, Surveyed};
use crate::replication::{SlotRun, View};

/// Peers, the node itself the first.
pub const PEERS: u8 = 5;
/// Slots of the ring.
pub const SLOTS: u32 = 4;

/// Takes choices from the bytes, zeros after their end.
pub struct Draw<'a>(pub &'a [u8]);

/// The peer of this number; from 8 on the same address as another process.
pub fn peer(number: u8) -> Contact {
    let addr = ([10, 0, 0, 1], 4000 + u16::from(number % 8)).into();
    Contact::new(Capacity::MAX, addr, Incarnation(1 + u128::from(number)))
}

impl Draw<'_> {
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: u8) -> u8 {
        self.byte() % n
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn some<T>(&mut self, draw: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| draw(self))
    }

    fn few<T>(&mut self, mut draw: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(5)).map(|_| draw(self)).collect()
    }

    /// Small, large, or anything.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX,
            254 => u64::MAX - 1,
            253 => u64::from_be_bytes([0; 8].map(|_: u8| self.byte())),
            small => u64::from(small % 16),
        }
    }

    pub fn contact(&mut self) -> Contact {
        let byte = self.byte();
        peer(if byte >= 240 { byte } else { byte % PEERS })
    }

    fn node(&mut self) -> Incarnation {
        self.contact().incarnation
    }

    fn id(&mut self) -> Id {
        match self.byte() {
            255 => Capacity::MAX.highest(),
            254 => Id::ZERO,
            byte if byte & 1 == 0 => peer(byte / 2 % PEERS).id,
            byte => Capacity::MAX.hash(&[byte]),
        }
    }

    fn slot(&mut self) -> Slot {
        match self.byte() {
            255 => Slot(u32::MAX),
            254 => Slot(SLOTS),
            byte => Slot(u32::from(byte) % SLOTS),
        }
    }

    fn run(&mut self) -> SlotRun {
        let count = if self.byte() == 255 { u32::MAX } else { 1 + u32::from(self.below(4)) };
        SlotRun { first: self.slot(), count }
    }

    fn key(&mut self) -> Key {
        let byte = self.byte();
        let bytes = if byte == 255 { vec![b'k'; 1_024] } else { vec![b'a' + byte % 8] };
        Key::new(bytes).unwrap_or_else(|_| unreachable!("neither empty nor too long"))
    }

    fn wall(&mut self) -> Wall {
        match self.byte() {
            255 => Wall(u64::MAX),
            254 => Wall(0),
            byte => Wall(1_700_000_000_000 + u64::from(byte) * 1_000),
        }
    }

    fn span(&mut self) -> Span {
        Span(self.number())
    }

    fn version(&mut self) -> Version {
        Version { epoch: self.number(), round: self.number(), node: self.node(), n: self.number() }
    }

    fn op_id(&mut self) -> OpId {
        OpId { node: self.node(), n: self.number(), issued: self.wall() }
    }

    fn view(&mut self) -> View {
        let members: Vec<Contact> = (0..=self.below(4)).map(|_| self.contact()).collect();
        View { epoch: self.number(), members: members.into() }
    }

    fn views(&mut self) -> Vec<View> {
        let mut views = self.few(Self::view);
        if self.below(8) > 0 {
            views.sort_by_key(|view| view.epoch);
        }
        views
    }

    fn turn(&mut self) -> Turn {
        Turn { n: self.number(), node: self.node() }
    }

    fn record(&mut self) -> Record {
        Record {
            value: Arc::from(vec![b'v'; usize::from(self.byte())]),
            content_type: self.some(|_| Arc::from("text/plain")),
            version: self.version(),
            modified: self.wall(),
            expires: self.some(Self::wall),
        }
    }

    fn outcome(&mut self) -> Outcome {
        match self.below(6) {
            0 => Outcome::Found(self.record()),
            1 => Outcome::NotFound,
            2 => Outcome::Created(self.version()),
            3 => Outcome::Replaced(self.version()),
            4 => Outcome::Deleted,
            _ => Outcome::PreconditionFailed(self.some(Self::version)),
        }
    }

    /// What a register remembers of an operation.
    fn ended(&mut self) -> (OpId, Outcome) {
        let outcome = match self.outcome() {
            Outcome::Found(record) => Outcome::Created(record.version),
            outcome => outcome,
        };
        (self.op_id(), outcome)
    }

    fn state(&mut self) -> State {
        let recent = Recent::new(self.few(Self::ended), self.some(Self::wall));
        let recent = recent.with_gone(self.few(|draw| (draw.node(), draw.number())));
        State { record: self.some(Self::record), recent, doubtful: self.below(8) == 1 }
    }

    fn accepted(&mut self) -> Accepted {
        Accepted { ballot: self.version(), copied: self.flag(), state: self.state() }
    }

    fn condition(&mut self) -> Condition {
        let tag = |draw: &mut Self| if draw.flag() { Tag::Any } else { Tag::Of(vec![draw.version()]) };
        Condition { if_match: self.some(tag), if_none_match: self.some(tag) }
    }

    fn command(&mut self) -> Command {
        match self.below(3) {
            0 => Command::Get,
            1 => Command::Delete(self.condition()),
            _ => Command::Put(Put {
                value: Arc::from(vec![b'w'; usize::from(self.byte())]),
                content_type: None,
                ttl_ms: self.some(|draw| 1 + u64::from(draw.byte())),
                condition: self.condition(),
            }),
        }
    }

    fn operation(&mut self) -> Operation {
        Operation { id: self.op_id(), command: self.command(), again: self.flag() }
    }

    fn ask(&mut self) -> Ask {
        match self.below(4) {
            0 => Ask::Peek,
            1 => Ask::Prepare(self.version()),
            2 => Ask::Accept(self.version(), self.state()),
            _ => Ask::Lead {
                ballot: self.version(),
                id: self.op_id(),
                command: self.command(),
                again: self.flag(),
                now: self.wall(),
            },
        }
    }

    fn trouble(&mut self) -> Trouble {
        match self.below(3) {
            0 => Trouble::Full("full".to_owned()),
            1 => Trouble::Damaged(self.key()),
            _ => Trouble::Broken("broken".to_owned()),
        }
    }

    fn answer(&mut self) -> Result<Answer, Trouble> {
        Ok(match self.below(8) {
            0 => Answer::Told(self.some(Self::accepted)),
            1 => Answer::Promised(self.some(Self::accepted), self.some(Self::wall)),
            2 => Answer::Accepted,
            3 => Answer::Led(self.state(), self.outcome()),
            4 => Answer::Refused(self.version()),
            5 => Answer::Forgotten,
            6 => Answer::Doubtful,
            _ => return Err(self.trouble()),
        })
    }

    fn cursor(&mut self) -> Cursor {
        (self.id(), self.key())
    }

    fn digest(&mut self) -> Digest {
        Digest { keys: self.number(), sum: self.number() }
    }

    fn range(&mut self) -> Range {
        Range { after: self.some(Self::cursor), to: self.some(Self::cursor), digest: self.some(Self::digest) }
    }

    fn named(&mut self) -> (Key, Version) {
        (self.key(), self.version())
    }

    fn difference(&mut self) -> Difference {
        Difference { items: self.few(Self::named), ranges: self.few(Self::range), damaged: self.few(Self::key) }
    }

    fn copies(&mut self) -> CopyMessage {
        let (slot, epoch) = (self.slot(), self.number());
        match self.below(25) {
            0 => CopyMessage::Query { runs: self.few(Self::run) },
            1 | 2 => CopyMessage::Notice { views: self.few(|draw| (draw.run(), draw.views())) },
            3 => CopyMessage::Summary { sum: self.number(), of: self.few(Self::run) },
            4 => CopyMessage::Epochs { runs: self.few(|draw| (draw.run(), draw.number())), answer: self.flag() },
            5 => CopyMessage::Wish { slot, epoch, members: self.few(Self::contact) },
            6 => CopyMessage::Elect { slot, epoch, turn: self.turn(), views: self.views() },
            7 => {
                let accepted = self.some(|draw| (draw.turn(), draw.few(Self::contact).into()));
                CopyMessage::Elected {
                    slot,
                    epoch,
                    turn: self.turn(),
                    promise: Promise { accepted, complete: self.flag() },
                }
            }
            8 => CopyMessage::Vote { slot, epoch, turn: self.turn(), members: self.few(Self::contact).into() },
            9 => CopyMessage::Voted { slot, epoch, turn: self.turn() },
            10 => CopyMessage::Overruled { slot, epoch, turn: self.turn() },
            11 => CopyMessage::Invite { slot, views: self.views() },
            12 => CopyMessage::Ready { slot, epoch },
            13 => CopyMessage::Fetch {
                slot,
                epoch,
                views: self.views(),
                ahead: self.flag(),
                digest: self.some(Self::digest),
                serial: self.number(),
                after: self.some(Self::cursor),
            },
            14 => CopyMessage::Part {
                slot,
                epoch,
                serial: self.number(),
                part: Part {
                    entries: self.few(|draw| (draw.key(), draw.accepted())),
                    damaged: self.few(Self::key),
                    next: self.some(Self::cursor),
                    evicted: self.some(Self::wall),
                    same: self.flag(),
                },
            },
            15 => CopyMessage::Complete { slot, epoch, has: self.flag(), ask: self.flag() },
            16 | 17 => CopyMessage::Ask { number: self.number(), slot, epoch, key: self.key(), ask: self.ask() },
            18 => CopyMessage::Answered { number: self.number(), answer: self.answer() },
            19 => CopyMessage::Collect { slot, epoch, serial: self.number(), keys: self.few(Self::named) },
            20 => CopyMessage::Collectable { slot, epoch, serial: self.number(), keys: self.few(Self::key) },
            21 => CopyMessage::Drop { slot, epoch, keys: self.few(Self::named) },
            22 => {
                let slots = self.few(|draw| (draw.slot(), draw.number(), draw.few(Self::range)));
                CopyMessage::Compare { serial: self.number(), slots }
            }
            23 => {
                let slots = self.few(|draw| (draw.slot(), draw.difference()));
                CopyMessage::Compared { serial: self.number(), slots }
            }
            _ => CopyMessage::Leaving,
        }
    }

    fn standing(&mut self) -> Standing {
        [Standing::Joining, Standing::Member, Standing::Leaving, Standing::Orphan, Standing::Left]
            [usize::from(self.below(5))]
    }

    fn lookup(&mut self) -> Lookup {
        let want = if self.flag() { Want::Owner } else { Want::Before };
        let aim = [Aim::Way, Aim::Listed, Aim::Neighbour, Aim::Walk][usize::from(self.below(4))];
        Lookup {
            aim,
            hops: u32::from(self.byte()),
            silent: u32::from(self.byte()),
            silent_last: self.some(Self::node),
            ..Lookup::new(self.number(), self.contact(), self.id(), want)
        }
    }

    fn ring(&mut self) -> RingMessage {
        let request = self.number();
        match self.below(18) {
            0 => RingMessage::GetNeighbours { request },
            1 => RingMessage::Neighbours {
                request,
                standing: self.standing(),
                predecessor: self.some(Self::contact),
                successors: self.few(Self::contact),
                weights: self.few(|draw| if draw.flag() { Weight::ONE } else { Weight::MAX }),
            },
            2 => RingMessage::Notify,
            3 => RingMessage::Lookup { hop: request, lookup: self.lookup() },
            4 => RingMessage::LookupAck { hops: self.few(Self::number) },
            5 => RingMessage::LookupRefused { hop: request },
            6 => RingMessage::Found(Found {
                request,
                owner: self.contact(),
                before: self.contact(),
                hops: u32::from(self.byte()),
                silent: u32::from(self.byte()),
            }),
            7 => RingMessage::GetNextHop { request, target: self.id() },
            8 => {
                let next = match self.below(3) {
                    0 => NextHop::Owner(self.contact()),
                    1 => NextHop::Closer(self.contact()),
                    _ => NextHop::Refused,
                };
                RingMessage::NextHop { request, next }
            }
            9 => RingMessage::Join { request },
            10 => {
                let verdict = match self.below(4) {
                    0 => JoinVerdict::Granted(self.few(Self::contact)),
                    1 => JoinVerdict::NotHere,
                    2 => JoinVerdict::RetryAfter(u32::from(self.byte())),
                    _ => JoinVerdict::DuplicateId(self.contact()),
                };
                RingMessage::JoinReply { request, verdict }
            }
            11 => RingMessage::Offer { contact: self.contact() },
            12 => RingMessage::GetContacts { request, after: self.id() },
            13 => RingMessage::Contacts { request, contacts: self.few(|draw| (draw.contact(), draw.span())) },
            14 => RingMessage::ProbeFor { contact: self.contact() },
            15 => RingMessage::Vouch { contact: self.contact() },
            16 => RingMessage::Leave { request, successors: self.few(Self::contact) },
            _ => RingMessage::LeaveReply { request, released: self.flag() },
        }
    }

    fn filter(&mut self) -> Filter {
        if self.flag() { Filter::Key(self.key()) } else { Filter::Prefix(self.few(|draw| b'a' + draw.below(8))) }
    }

    fn resume(&mut self) -> Resume {
        Resume { sum: u128::from(self.number()), node: u32::from(self.byte()) }
    }

    fn hint(&mut self) -> Hint {
        if self.flag() {
            Hint::Accepted { ballot: self.version(), there: self.some(Self::version) }
        } else {
            Hint::Unknown
        }
    }

    fn query(&mut self) -> ListQuery {
        ListQuery {
            prefix: self.few(|draw| b'a' + draw.below(8)),
            after: self.some(|draw| draw.key().as_bytes().to_vec()),
            limit: 1 + usize::from(self.byte()),
        }
    }

    fn recovery(&mut self) -> Recovery {
        Recovery {
            run: self.run(),
            epoch: self.number(),
            of: self.number(),
            sources: self.few(Self::contact),
            next: self.number(),
        }
    }

    fn call(&mut self) -> Call {
        match self.below(9) {
            0 => Call::Operate { key: self.key(), operation: self.operation() },
            1 => Call::List { query: self.query(), all: self.flag() },
            2 => Call::Peek(self.key()),
            3 => Call::Holder(self.slot()),
            4 => Call::Info,
            5 => Call::Survey(self.slot()),
            6 => Call::Recover(self.few(Self::recovery)),
            7 => Call::Follow { filters: self.few(Self::filter), lasts: self.span() },
            _ => Call::Watch { prefix: self.few(|draw| b'a' + draw.below(8)), from: self.resume() },
        }
    }

    fn ran(&mut self) -> Ran {
        match self.below(4) {
            0 => Ran::Done(self.outcome()),
            1 => Ran::Unknown,
            2 => Ran::Failed(self.trouble()),
            _ => Ran::NotNow { elsewhere: self.some(Self::view), again: self.flag() },
        }
    }

    fn item(&mut self) -> Item {
        Item {
            key: self.key(),
            size: self.number(),
            version: self.version(),
            content_type: None,
            expires: self.some(Self::wall),
        }
    }

    fn info(&mut self) -> NodeInfo {
        NodeInfo {
            contact: self.contact(),
            http: None,
            standing: self.standing(),
            predecessor: self.some(Self::contact),
            successors: self.few(Self::contact),
            weight: Weight::ONE,
            slots: u32::from(self.byte()),
            slots_moving: u32::from(self.byte()),
            keys: self.number(),
            bytes: self.number(),
            uptime_ms: self.number(),
            version: Arc::from("0"),
        }
    }

    fn said(&mut self) -> Said {
        let views: Vec<Surveyed> = self.views().into_iter().map(|view| (view, self.flag())).collect();
        Said { views, over: self.number() }
    }

    fn watched(&mut self) -> Watched {
        let seen = self.few(|draw| Seen { key: draw.key(), record: draw.some(Self::record) });
        Watched { seen, resume: self.resume() }
    }

    fn reply(&mut self) -> Reply {
        match self.below(9) {
            0 => Reply::Ran(self.ran()),
            1 => Reply::List {
                served: self.few(|draw| (draw.run(), draw.number())),
                page: Page { items: self.few(Self::item), more: self.flag() },
            },
            2 => Reply::Peeked(self.some(|draw| (draw.outcome(), draw.some(Self::span)))),
            3 => Reply::Holder(self.some(Self::view)),
            4 => Reply::Info(Box::new(self.info())),
            5 => Reply::Survey(self.few(|draw| (draw.run(), draw.said()))),
            6 => Reply::Recovering,
            7 => Reply::Following { number: self.number(), neighbours: self.few(Self::contact) },
            _ => Reply::Watched(self.some(|draw| Box::new(draw.watched()))),
        }
    }

    /// One of any kind.
    pub fn message(&mut self) -> Message {
        match self.below(8) {
            0..=3 => Message::Copies(Box::new(self.copies())),
            4 | 5 => Message::Ring(self.ring()),
            6 if self.flag() => Message::Call { request: self.number(), call: self.call() },
            6 => Message::Reply { request: self.number(), reply: self.reply() },
            _ => Message::Notice { number: self.number(), hints: self.few(|draw| (draw.key(), draw.hint())) },
        }
    }

    /// What a user may ask.
    pub fn request(&mut self) -> UserRequest {
        match self.below(8) {
            0..=2 => UserRequest::Kv { key: self.key(), command: self.command() },
            3 => UserRequest::ReadAny(self.key()),
            4 => UserRequest::List(self.query()),
            5 => UserRequest::Watch(WatchQuery {
                filter: self.filter(),
                from: self.some(Self::resume),
                wait: Span::secs(u64::from(self.byte())),
                parked: None,
            }),
            6 => UserRequest::Lookup(self.key()),
            _ => [UserRequest::Ring, UserRequest::Node, UserRequest::Recover { lost: None }, UserRequest::Leave]
                [usize::from(self.below(4))]
            .clone(),
        }
    }
}
