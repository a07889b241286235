//! The slots that this node holds, those on their way, and the views of the others.
//!
//! What is safe here rests on two rules: only the holder of a slot in epoch e gives it away, and it does so to one
//! node at a time, by freezing the slot with the last chunk. A node that takes over a slot whose holder is gone starts
//! it empty in a higher epoch: with one copy of each key nothing else can be done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::handover::{Receiving, Sending};
use super::message::HoldingMessage;
use super::runs::{SlotRun, runs_of};
use super::view::{View, Views};
use crate::base::limits::CHUNK_BYTES;
use crate::base::{Contact, Id, Incarnation, Now, Span, Time, in_arc};
use crate::data::{Command, Cursor, Done, HoldRow, KeySpace, Place, Slot, Version, Work};

/// What the holdings need to know of the ring around them, at one moment.
pub struct Neighbourhood<'a> {
    /// The predecessor, the start of this node's arc; `None` when alone or not known.
    pub predecessor: Option<Contact>,
    /// This node is the only member.
    pub alone: bool,
    /// This node leaves: everything goes.
    pub leaving: bool,
    /// The successor list, nearest first.
    pub successors: &'a [Contact],
    /// Members of the ring that this node knows of, its neighbours among them: whoever might hold something.
    pub members: &'a dyn Fn() -> Vec<Contact>,
    /// Whether a member counts as lost: silent for so long that what it holds is given up.
    pub is_lost: &'a dyn Fn(&Contact) -> bool,
    /// Some member does not answer and does not count as lost yet: it may hold whatever nobody else does.
    pub in_doubt: bool,
}

impl Neighbourhood<'_> {
    /// The slots that belong to the node at this place, from the first after its predecessor on.
    pub(super) fn own_slots(&self, space: KeySpace, me: Id) -> impl Iterator<Item = Slot> + use<> {
        let after = match self.predecessor {
            Some(predecessor) => Some(predecessor.id),
            // An arc from a place to itself is the whole circle.
            None => self.alone.then_some(me),
        };
        after.into_iter().flat_map(move |after| {
            let of = space.slot_of(after);
            let first = if space.last_id(of) == after { of.0 + 1 } else { of.0 };
            let from_first = (0..space.slots()).map(move |n| Slot((first + n) % space.slots()));
            from_first.take_while(move |slot| in_arc(after, space.last_id(*slot), me))
        })
    }
}

/// What the holdings want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldingsEffect {
    /// Send this.
    Send {
        /// To whom.
        to: Contact,
        /// What.
        message: HoldingMessage,
    },
    /// Look up the owner of this slot and tell it to [`Holdings::owner_found`].
    FindOwner(Slot),
    /// Find out whether this holder of a slot that belongs here still lives.
    Probe(Contact),
    /// Ask the store, and tell [`Holdings::stored`] how it went. In this order.
    Store {
        /// For the answer.
        ticket: u64,
        /// What.
        work: Work,
    },
    /// This node holds one slot more.
    Took(Slot),
    /// This node started a slot empty, as its holder is gone.
    Claimed(Slot),
    /// This node holds one slot less.
    Gave(Slot),
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Execution {
    /// This node holds the slot: let the store do this, after what was asked of it before.
    Here(Work),
    /// The slot is frozen for a moment: try again.
    Busy,
    /// Somebody else holds the slot: the newest view known here.
    Elsewhere(Option<View>),
}

/// Whether every slot is where it belongs, as far as this node is concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Slots that this node holds.
    pub held: usize,
    /// Held slots that belong elsewhere.
    pub to_give: usize,
    /// Slots that belong here and are held elsewhere, or by nobody.
    pub to_take: usize,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) epoch: u64,
    // The counter of the last version given out. It begins anew with every epoch, and so with every process.
    pub(super) n: u64,
    // Apart, as few of a thousand slots are on their way at a time.
    pub(super) sending: Option<Box<Sending>>,
    // The handover that brought it: a repeated offer of that one needs only to be told so.
    pub(super) taken: Option<(Incarnation, u64)>,
    // Another holder has a newer view: serve nothing, hand the records to it.
    pub(super) superseded: bool,
}

impl Held {
    pub(super) fn new(epoch: u64) -> Self {
        Self { epoch, n: 0, sending: None, taken: None, superseded: false }
    }

    /// What is to be known of it after a restart.
    pub(super) fn row(&self) -> HoldRow {
        let frozen_for = self.sending.as_ref().filter(|sending| sending.frozen).map(|sending| sending.to);
        HoldRow { epoch: self.epoch, taken: self.taken, frozen_for }
    }

    /// The holder to be does not take it, and does not answer for it. True if that is to be written down.
    pub(super) fn stop_sending(&mut self) -> bool {
        let frozen = self.sending.take().is_some_and(|sending| sending.frozen);
        if frozen {
            // It may have given out versions of the next epoch before it died; and a last chunk that is still on its
            // way must not be taken for one of the next attempt.
            self.epoch += 2;
        }
        frozen
    }
}

/// What the holdings do once the store has done something.
#[derive(Debug)]
pub(super) enum Awaited {
    /// Sends a part of a slot.
    Part { slot: Slot, to: Contact, epoch: u64, serial: u64 },
    /// Says what has become safe to say.
    Say { to: Contact, message: HoldingMessage },
    /// Goes on with what comes after a chunk, whose scan ended here.
    Absorbed { slot: Slot, next: Option<Cursor>, last: Option<u64> },
}

/// The slots of one node. Order of calls: any `handle_*` or command, then [`Holdings::poll_effect`] until it gives
/// nothing; [`Holdings::maintain`] after every change of the ring around it and every [`MAINTAIN_INTERVAL`] while it is
/// not settled.
#[derive(Debug)]
pub struct Holdings {
    pub(super) me: Contact,
    pub(super) space: KeySpace,
    pub(super) held: BTreeMap<Slot, Held>,
    pub(super) receiving: BTreeMap<Slot, Receiving>,
    pub(super) views: Views,
    // Slots that belong here and whose holder is not known to live, since when.
    pub(super) missing: BTreeMap<Slot, Time>,
    // When a peer last answered a query.
    pub(super) answered: BTreeMap<Incarnation, Time>,
    // Peers that declined an offer, until when they are not offered anything.
    pub(super) declined: BTreeMap<Incarnation, Time>,
    // Bytes of the largest chunk lately seen: how many may be under way.
    pub(super) chunk_bytes: usize,
    // The handovers that brought slots which have been given away since: the old holder may not have heard yet.
    pub(super) passed_on: BTreeMap<Slot, (Incarnation, u64)>,
    pub(super) asked_owner: Option<Time>,
    pub(super) probed: Option<Time>,
    // A leaver's: who has taken nothing since anybody took something, and since when that is everybody.
    pub(super) refused_by: BTreeSet<Incarnation>,
    pub(super) stranded_since: Option<Time>,
    pub(super) settled: Settled,
    pub(super) effects: VecDeque<HoldingsEffect>,
    pub(super) awaited: BTreeMap<u64, Awaited>,
    pub(super) next_ticket: u64,
}

/// How often unsettled holdings look after themselves.
pub const MAINTAIN_INTERVAL: Span = Span::millis(200);
/// After so long without anybody who takes a slot, a leaver gives up.
const STRANDED_AFTER: Span = Span::secs(2);
/// How long a peer that declined is left alone.
pub(super) const DECLINED_FOR: Span = Span::millis(500);
/// Slots fetched at the same time, at most; fewer if their chunks are large.
pub(super) const FETCHES_MAX: usize = 64;

impl Holdings {
    /// Holds nothing.
    pub fn new(me: Contact, space: KeySpace) -> Self {
        Self {
            me,
            space,
            held: BTreeMap::new(),
            receiving: BTreeMap::new(),
            views: Views::default(),
            missing: BTreeMap::new(),
            answered: BTreeMap::new(),
            declined: BTreeMap::new(),
            chunk_bytes: CHUNK_BYTES,
            passed_on: BTreeMap::new(),
            asked_owner: None,
            probed: None,
            refused_by: BTreeSet::new(),
            stranded_since: None,
            settled: Settled::default(),
            effects: VecDeque::new(),
            awaited: BTreeMap::new(),
            next_ticket: 0,
        }
    }

    /// The creator of a ring holds every slot, in epoch 1.
    pub fn create(&mut self) {
        for slot in self.space.all_slots() {
            self.keep(slot, Held::new(1));
        }
        self.write_down(self.space.all_slots().collect());
    }

    /// Holds what an earlier process of this node held, as it wrote it down. Nobody knows how many versions that one
    /// has given out: those of this process are of a later epoch.
    pub fn restore(&mut self, now: Time, rows: &[(Slot, HoldRow)]) {
        let space = self.space;
        for (slot, row) in rows.iter().filter(|(slot, _)| space.holds(*slot)) {
            let mut held = Held::new(row.epoch + u64::from(row.frozen_for.is_none()));
            held.taken = row.taken;
            held.sending = row.frozen_for.map(|to| Box::new(Sending::resumed(to, now)));
            self.keep(*slot, held);
        }
        self.write_down(rows.iter().map(|(slot, _)| *slot).collect());
    }

    /// The next effect, in order.
    pub fn poll_effect(&mut self) -> Option<HoldingsEffect> {
        self.effects.pop_front()
    }

    /// How far from settled; as of the last [`Holdings::maintain`].
    pub fn settled(&self) -> Settled {
        self.settled
    }

    /// Whether nothing is left to do until the ring changes.
    pub fn is_at_rest(&self) -> bool {
        self.settled.to_give + self.settled.to_take == 0 && self.receiving.is_empty()
    }

    /// Whether a leaver may go: it holds nothing, and nothing is on its way to it. What is on its way may have no other
    /// holder any more.
    pub fn is_drained(&self) -> bool {
        self.held.is_empty() && self.receiving.is_empty()
    }

    /// Whether a leaver has found nobody to take its slots for a while: all others leave too, or are gone.
    pub fn is_stranded(&self, now: Time) -> bool {
        self.stranded_since.is_some_and(|since| now.since(since) >= STRANDED_AFTER)
    }

    /// The slots that this node answers for, in order.
    pub fn serving(&self) -> impl Iterator<Item = Slot> {
        self.held.iter().filter(|(_, held)| !held.superseded).map(|(slot, _)| *slot)
    }

    /// Whether this node answers for `slot`.
    pub fn serves(&self, slot: Slot) -> bool {
        self.held.get(&slot).is_some_and(|held| !held.superseded)
    }

    /// How many slots this node holds.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The newest view of a slot that this node has heard of.
    pub fn view(&self, slot: Slot) -> Option<&View> {
        self.views.get(slot)
    }

    /// Hears of a view.
    pub fn learn(&mut self, slot: Slot, view: View) {
        if let Some(held) = self.held.get_mut(&slot)
            && view.primary().is_some_and(|primary| primary.incarnation != self.me.incarnation)
            && view.replaces(&View::of_one(held.epoch, self.me))
        {
            // Somebody thought that we were gone. It has the newer view; what we have goes to it.
            held.superseded = true;
        }
        if !self.held.contains_key(&slot)
            && view.primary().is_some_and(|primary| primary.incarnation == self.me.incarnation)
        {
            // Whoever believes so waits for us in vain, and so would we for ourselves.
            self.views.end(slot, view.epoch);
        } else {
            self.views.learn(slot, view);
        }
    }

    /// What was heard of a slot led nowhere.
    pub fn forget(&mut self, slot: Slot) {
        if !self.held.contains_key(&slot) {
            self.views.forget(slot);
        }
    }

    // ----- serving -----

    /// What the store is to do for a command on a key of a slot that this node holds.
    pub fn execute(&mut self, now: Now, place: &Place, command: &Command) -> Execution {
        let Some(held) = self.held.get_mut(&place.slot).filter(|held| !held.superseded) else {
            return Execution::Elsewhere(self.views.get(place.slot).cloned());
        };
        if held.sending.as_ref().is_some_and(|sending| sending.frozen) {
            return Execution::Busy;
        }
        if command.is_write() {
            // Also if nothing is put in the end: versions need not follow each other closely.
            held.n += 1;
            if let Some(sending) = &mut held.sending {
                sending.touched(place);
            }
        }
        let version = Version { epoch: held.epoch, round: 0, n: held.n, node: self.me.incarnation };
        Execution::Here(Work::Run { place: place.clone(), command: command.clone(), version, now: now.wall })
    }

    /// Whether the slot has been served without a break since `epoch`: what was read meanwhile is right.
    pub fn serves_still(&self, slot: Slot, epoch: u64) -> bool {
        self.held.get(&slot).is_some_and(|held| !held.superseded && held.epoch == epoch)
    }

    // ----- the store -----

    fn store(&mut self, work: Work) -> u64 {
        self.next_ticket += 1;
        self.effects.push_back(HoldingsEffect::Store { ticket: self.next_ticket, work });
        self.next_ticket
    }

    pub(super) fn store_and(&mut self, work: Work, then: Awaited) {
        let ticket = self.store(work);
        self.awaited.insert(ticket, then);
    }

    pub(super) fn clear(&mut self, slots: Vec<Slot>) {
        if !slots.is_empty() {
            self.store(Work::Clear(slots));
        }
    }

    pub(super) fn rows(&self, slots: Vec<Slot>) -> Work {
        Work::Hold(slots.into_iter().map(|slot| (slot, self.held.get(&slot).map(Held::row))).collect())
    }

    /// Writes down how these slots are held now.
    pub(super) fn write_down(&mut self, slots: Vec<Slot>) {
        if !slots.is_empty() {
            let work = self.rows(slots);
            self.store(work);
        }
    }

    /// The store has answered.
    pub fn stored(&mut self, now: Time, ticket: u64, done: Done) {
        match (self.awaited.remove(&ticket), done) {
            (Some(Awaited::Part { slot, to, epoch, serial }), done) => {
                self.on_part(ticket, slot, to, epoch, serial, done);
            }
            (Some(Awaited::Say { to, message }), Done::Changed) => self.send(to, message),
            (Some(Awaited::Absorbed { slot, next, last }), done) => {
                self.on_absorbed(now, ticket, slot, next, last, &done);
            }
            // What could not be done is asked for again by whoever waits for it.
            (Some(Awaited::Say { .. }) | None, _) => {}
        }
    }

    // ----- messages -----

    /// A message of another holder arrived.
    pub fn handle_message(&mut self, now: Time, from: Contact, message: HoldingMessage, around: &Neighbourhood<'_>) {
        match message {
            HoldingMessage::Query { runs } => self.on_query(from, &runs),
            HoldingMessage::Notice { views, answer } => self.on_notice(now, from, views, answer),
            HoldingMessage::Offer { runs, leaving } => self.on_offer(now, from, &runs, leaving, around),
            HoldingMessage::Decline { runs } => self.on_decline(now, from, &runs),
            HoldingMessage::Fetch { slot, epoch, serial, after } => {
                self.on_fetch(now, from, slot, epoch, serial, after.as_ref());
            }
            HoldingMessage::Chunk { slot, epoch, serial, entries, next, last } => {
                self.on_chunk(from, slot, epoch, serial, entries, next, last);
            }
            HoldingMessage::Taken { slot, epoch, view } => self.on_taken(from, slot, epoch, view),
        }
    }

    fn on_query(&mut self, from: Contact, runs: &[SlotRun]) {
        let slots = runs.iter().flat_map(|run| run.slots(self.space)).take(self.space.slots() as usize);
        // Where nobody is known to have come after this node, the asker is named, who knows best that it is no holder:
        // it must not wait for this node.
        let vacant = |slot| Some(View::of_one(self.views.over(slot)?, from));
        let known = slots.filter_map(|slot| Some((slot, self.views.get(slot).cloned().or_else(|| vacant(slot))?)));
        let views = runs_of(known);
        self.send(from, HoldingMessage::Notice { views, answer: true });
    }

    fn on_notice(&mut self, now: Time, from: Contact, views: Vec<(SlotRun, View)>, answer: bool) {
        for (run, view) in views {
            for slot in run.slots(self.space) {
                self.learn(slot, view.clone());
            }
        }
        if answer {
            self.answered.insert(from.incarnation, now);
        }
    }

    pub(super) fn is_mine(&self, slot: Slot, around: &Neighbourhood<'_>) -> bool {
        match around.predecessor {
            Some(predecessor) => in_arc(predecessor.id, self.space.last_id(slot), self.me.id),
            None => around.alone,
        }
    }

    pub(super) fn is_declined(&self, now: Time, contact: Contact) -> bool {
        self.declined.get(&contact.incarnation).is_some_and(|until| *until > now)
    }

    pub(super) fn send(&mut self, to: Contact, message: HoldingMessage) {
        self.effects.push_back(HoldingsEffect::Send { to, message });
    }
}
