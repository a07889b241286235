//! What a node makes of the goodbye of a peer that it has asked something.

use std::net::SocketAddr;
use std::sync::Arc;

use chordkv::base::{Capacity, Contact, Incarnation, Now, Span, Time, Wall};
use chordkv::data::{
    Command, Condition, Failure, Key, MemoryStore, Put, Slot, Tag, UserReply, UserRequest, carry_out, gauge,
};
use chordkv::node::{Call, ChordNode, Input, Message, NodeConfig, Output};
use chordkv::replication::copies::{CopyMessage, Operation};
use chordkv::replication::{SlotRun, View};

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

struct Alone {
    node: ChordNode,
    store: Option<MemoryStore>,
    now: Time,
}

impl Alone {
    /// A node that has created its ring.
    fn new() -> Self {
        let config = NodeConfig::new(addr(1), Incarnation(1), Vec::new());
        let mut alone = Alone { node: ChordNode::new(config, 7), store: None, now: Time(0) };
        alone.input(Input::Start);
        alone
    }

    fn now(&self) -> Now {
        Now { mono: self.now, wall: Wall(1_700_000_000_000) }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.node.handle_input(self.now(), input);
        self.outputs()
    }

    /// What the node wants of others, once its store has done what it wants of that.
    fn outputs(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Ring(params) => self.store = Some(MemoryStore::new(params.space)),
                Output::Store { job, work } => {
                    let store = self.store.as_mut().expect("the ring is known first");
                    let done = carry_out(work, store);
                    let gauge = Some(gauge(store));
                    self.node.handle_input(self.now(), Input::Stored { job, done, gauge });
                }
                output => outputs.push(output),
            }
        }
        outputs
    }

    /// What comes out while so much time passes.
    fn pass(&mut self, span: Span) -> Vec<Output> {
        let (end, mut outputs) = (self.now + span, Vec::new());
        while let Some(at) = self.node.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.node.handle_timeout(self.now());
            outputs.extend(self.outputs());
        }
        self.now = end;
        outputs
    }
}

fn create(key: &str) -> UserRequest {
    let condition = Condition { if_match: None, if_none_match: Some(Tag::Any) };
    let put = Put { value: Arc::from(*b"value"), content_type: None, ttl_ms: None, condition };
    UserRequest::Kv { key: Key::new(key.as_bytes()).expect("a key"), command: Command::Put(put) }
}

fn replies(outputs: &[Output]) -> Vec<&UserReply> {
    outputs
        .iter()
        .filter_map(|output| if let Output::Reply { reply, .. } = output { Some(reply) } else { None })
        .collect()
}

/// A node that has heard that two others hold every slot by now.
fn beside(first: Contact, second: Contact) -> Alone {
    let mut alone = Alone::new();
    let view = View { epoch: 5, members: [first, second].into() };
    let views = vec![(SlotRun { first: Slot(0), count: 1_024 }, vec![view])];
    let notice = Message::Copies(Box::new(CopyMessage::Notice { views }));
    alone.input(Input::Message { from: first, message: notice });
    alone
}

fn asked(outputs: &[Output], whom: Contact) -> Vec<Operation> {
    let operation = |output: &Output| match output {
        Output::Send { to, message: Message::Call { call: Call::Operate { operation, .. }, .. } } if *to == whom => {
            Some(operation.clone())
        }
        _ => None,
    };
    outputs.iter().filter_map(operation).collect()
}

#[test]
fn a_write_that_a_leaver_did_not_answer_before_its_goodbye_is_asked_of_another_as_if_for_the_first_time() {
    let [leaver, other] = [2, 3].map(|n| Contact::new(Capacity::MAX, addr(n), Incarnation(n.into())));
    let mut alone = beside(leaver, other);
    let first = asked(&alone.input(Input::User { token: 9, request: create("key") }), leaver);
    assert!(matches!(&first[..], [operation] if !operation.again), "{first:?}");

    let outputs = alone.input(Input::Goodbye(leaver));
    assert!(replies(&outputs).is_empty(), "nothing is known yet: {outputs:?}");
    let outputs = alone.pass(Span::millis(100));
    assert_eq!(asked(&outputs, other), first, "what it has not answered it has not done");
    assert!(asked(&outputs, leaver).is_empty(), "whoever left is asked no more: {outputs:?}");
}

#[test]
fn a_write_that_was_under_way_when_the_connection_broke_is_asked_of_another_under_the_same_name() {
    let [first, other] = [2, 3].map(|n| Contact::new(Capacity::MAX, addr(n), Incarnation(n.into())));
    let mut alone = beside(first, other);
    let before = asked(&alone.input(Input::User { token: 9, request: create("key") }), first);
    let mut outputs = alone.input(Input::Unreachable { addr: first.addr, refused: false, undelivered: Vec::new() });
    outputs.extend(alone.pass(Span::millis(100)));
    let after = asked(&outputs, other);
    assert!(matches!((&before[..], &after[..]), ([a], [b, ..]) if a.id == b.id && b.again), "{before:?} {after:?}");

    // Nobody answers any more: it may have happened, and the user is told so.
    let outputs = alone.pass(Span::secs(6));
    let told = replies(&outputs);
    assert!(matches!(told[..], [UserReply::Failed(Failure::Timeout { maybe_applied: true })]), "{told:?}");
}
