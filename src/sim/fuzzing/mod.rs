//! One node among peers that say anything that is valid: it must not panic, and what it does must stay in its bounds.

mod draw;

use self::draw::{Draw, PEERS, SLOTS, peer};
use crate::base::{Capacity, Now, Span, Time, Wall};
use crate::data::{MemoryStore, Slot, carry_out, gauge};
use crate::node::{ChordNode, Input, Message, NodeConfig, Output, RingParams, Wishes};
use crate::wire::{Packet, decode, encode};

struct Machine {
    node: ChordNode,
    store: Option<MemoryStore>,
    now: Time,
    users: u64,
    is_over: bool,
}

/// Messages and work that one input may lead to: a slot's worth for each peer, many times over.
const OUTPUTS_MAX: usize = 2_000;
/// Inputs of one run.
const STEPS_MAX: usize = 200;

/// Has a node meet what these bytes say.
///
/// # Panics
/// It breaks a rule.
pub fn machine(bytes: &[u8]) {
    let mut config = NodeConfig::new(peer(0).addr, peer(0).incarnation, Vec::new());
    config.wishes = Wishes { slot_bits: Some(SLOTS.ilog2()), successors: Some(4), ..Wishes::default() };
    let mut machine = Machine { node: ChordNode::new(config, 7), store: None, now: Time(0), users: 0, is_over: false };
    machine.input(Input::Start);
    let mut draw = Draw(bytes);
    for _ in 0..STEPS_MAX {
        if draw.is_over() || machine.is_over {
            break;
        }
        machine.step(&mut draw);
    }
}

impl Machine {
    fn step(&mut self, draw: &mut Draw<'_>) {
        match draw.below(16) {
            0 => self.pass(Span::millis(u64::from(draw.below(255)))),
            1 => self.pass(Span::secs(u64::from(draw.below(20)))),
            2 | 3 => {
                self.users += 1;
                self.input(Input::User { token: self.users, request: draw.request() });
            }
            4 => {
                let (addr, refused) = (draw.contact().addr, draw.below(2) == 1);
                self.input(Input::Unreachable { addr, refused, undelivered: vec![draw.message()] });
            }
            5 => self.input(Input::Goodbye(draw.contact())),
            6 => {
                let message = draw.message();
                self.input(Input::Overflow { to: draw.contact(), message });
            }
            7 => {
                let peer = draw.contact();
                let (bits, slots) = (Capacity::MAX.bits(), SLOTS.ilog2());
                let params = RingParams::checked(peer.incarnation.0, bits, slots, 4, 3, 1 << 20).expect("a ring's");
                self.input(Input::Session { peer: (peer.addr, peer.incarnation), params, seed: None });
            }
            _ => {
                let from = peer(1 + draw.below(PEERS - 1));
                // What is drawn need not be within all bounds: then it never gets so far.
                if let Some(message) = carried(&draw.message()) {
                    self.input(Input::Message { from, message });
                }
            }
        }
        self.check();
    }

    fn now(&self) -> Now {
        Now { mono: self.now, wall: Wall(1_700_000_000_000 + self.now.0 / 1_000) }
    }

    fn input(&mut self, input: Input) {
        self.node.handle_input(self.now(), input);
        self.do_as_told();
    }

    /// Time passes, with all that is due meanwhile.
    fn pass(&mut self, span: Span) {
        let end = self.now + span;
        while let Some(at) = self.node.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.node.handle_timeout(self.now());
            let next = self.node.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "what was due is due still: the loop would spin");
            self.do_as_told();
            if self.is_over {
                return;
            }
        }
        self.now = end;
    }

    fn do_as_told(&mut self) {
        let mut count = 0;
        while let Some(output) = self.node.poll_output() {
            count += 1;
            assert!(count <= OUTPUTS_MAX, "one input leads to more than {OUTPUTS_MAX} messages and pieces of work");
            match output {
                Output::Ring(params) => self.store = Some(MemoryStore::new(params.space)),
                Output::Store { job, work } => {
                    let store = self.store.as_mut().expect("the ring is known before anything is stored");
                    let done = carry_out(work, store);
                    let gauge = Some(gauge(store));
                    self.node.handle_input(self.now(), Input::Stored { job, done, gauge });
                }
                Output::Send { to, message } => {
                    assert_ne!(to.incarnation, peer(0).incarnation, "it sends to itself: {message:?}");
                    // Spans are told in whole seconds, or milliseconds.
                    let said = carried(&message).unwrap_or_else(|| panic!("nobody would understand it: {message:?}"));
                    assert_eq!(carried(&said), Some(said.clone()), "it would be understood as something else");
                }
                Output::Stop(_) => self.is_over = true,
                _ => {}
            }
        }
    }

    /// What holds whatever others say.
    fn check(&self) {
        self.node.check_invariants();
        let Some(copies) = self.node.copies() else { return };
        for slot in (0..SLOTS).map(Slot) {
            let served = copies.served(slot);
            assert!(served.is_none_or(|view| view.has(peer(0).incarnation)), "it serves {slot:?} and is no member");
            let newest = copies.view(slot);
            assert!(served.is_none() || served == newest, "it serves {slot:?} in a view that others have followed");
        }
    }
}

/// As it comes out of the wire, if it does.
fn carried(message: &Message) -> Option<Message> {
    let mut frame = Vec::new();
    encode(&Packet::Message(message.clone()), &mut frame);
    match decode(&frame[4..], Capacity::MAX) {
        Ok(Packet::Message(carried)) => Some(carried),
        _ => None,
    }
}
