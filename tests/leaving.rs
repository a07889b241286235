//! What a node makes of the goodbye of a peer that it has asked something.
#![allow(missing_docs)]

use std::net::SocketAddr;
use std::sync::Arc;

use chordkv::base::{Capacity, Contact, Incarnation, Now, Span, Time, Wall};
use chordkv::data::{
    Command, Condition, Key, MemoryStore, Outcome, Put, Slot, Tag, UserReply, UserRequest, carry_out, gauge,
};
use chordkv::node::{Call, ChordNode, Input, Message, NodeConfig, Output};
use chordkv::replication::{HoldingMessage, SlotRun, View};

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

#[test]
fn a_write_that_a_leaver_did_not_answer_before_its_goodbye_is_done_by_another_and_reported_done() {
    let mut alone = Alone::new();
    let leaver = Contact::new(Capacity::MAX, addr(2), Incarnation(2));
    // It says that it holds every slot by now, so it is asked.
    let all = SlotRun { first: Slot(0), count: 1_024 };
    let notice = HoldingMessage::Notice { views: vec![(all, View::of_one(5, leaver))], answer: false };
    alone.input(Input::Message { from: leaver, message: Message::Holding(notice) });
    let outputs = alone.input(Input::User { token: 9, request: create("key") });
    let asked = |output: &Output| matches!(output, Output::Send { to, message: Message::Call { call: Call::Kv { .. }, .. } } if *to == leaver);
    assert!(outputs.iter().any(asked), "{outputs:?}");

    let outputs = alone.input(Input::Goodbye(leaver));
    assert!(replies(&outputs).is_empty(), "nothing is known yet: {outputs:?}");
    let outputs = alone.pass(Span::secs(4));
    assert!(matches!(replies(&outputs)[..], [UserReply::Kv(Outcome::Created(_))]), "{outputs:?}");
    assert!(!outputs.iter().any(asked), "whoever left is asked no more: {outputs:?}");
}

#[test]
fn a_write_that_was_under_way_when_the_connection_broke_is_reported_unknown_and_not_repeated() {
    let mut alone = Alone::new();
    let holder = Contact::new(Capacity::MAX, addr(2), Incarnation(2));
    let all = SlotRun { first: Slot(0), count: 1_024 };
    let notice = HoldingMessage::Notice { views: vec![(all, View::of_one(5, holder))], answer: false };
    alone.input(Input::Message { from: holder, message: Message::Holding(notice) });
    alone.input(Input::User { token: 9, request: create("key") });
    let outputs = alone.input(Input::Unreachable { addr: holder.addr, refused: false, undelivered: Vec::new() });
    assert!(matches!(replies(&outputs)[..], [UserReply::Failed(_)]), "{outputs:?}");
    assert!(replies(&alone.pass(Span::secs(4))).is_empty());
}
