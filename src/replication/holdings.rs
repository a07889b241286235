//! The slots that this node holds, those on their way, and the views of the others.
//!
//! What is safe here rests on two rules: only the holder of a slot in epoch e gives it away, and it does so to one
//! node at a time, by freezing the slot with the last chunk. A node that takes over a slot whose holder is gone starts
//! it empty in a higher epoch: with one copy of each key nothing else can be done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::handover::{Receiving, Sending, absorb};
use super::message::{Entry, HoldingMessage};
use super::runs::{SlotRun, runs_of};
use super::view::{View, Views};
use crate::base::limits::{BULK_CREDIT_BYTES, CHUNK_BYTES};
use crate::base::{Contact, Incarnation, Now, Span, Time, in_arc};
use crate::data::{Change, Command, Cursor, KeySpace, Outcome, Place, Slot, Store, Version, apply};

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
    /// Whether a member counts as lost: silent for so long that what it holds is given up.
    pub is_lost: &'a dyn Fn(&Contact) -> bool,
    /// Some member does not answer and does not count as lost yet: it may hold whatever nobody else does.
    pub in_doubt: bool,
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
    /// Done.
    Done(Outcome),
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
    // The counter of the last version given out.
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

    /// The holder to be does not take it, and does not answer for it.
    pub(super) fn stop_sending(&mut self) {
        if self.sending.take().is_some_and(|sending| sending.frozen) {
            // It may have given out versions of the next epoch before it died; and a last chunk that is still on its
            // way must not be taken for one of the next attempt.
            self.epoch += 2;
        }
    }
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
}

/// How often unsettled holdings look after themselves.
pub const MAINTAIN_INTERVAL: Span = Span::millis(200);
/// After so long without anybody who takes a slot, a leaver gives up.
const STRANDED_AFTER: Span = Span::secs(2);
/// How long a peer that declined is left alone.
const DECLINED_FOR: Span = Span::millis(500);
/// Slots fetched at the same time, at most; fewer if their chunks are large.
const FETCHES_MAX: usize = 64;

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
        }
    }

    /// The creator of a ring holds every slot, in epoch 1.
    pub fn create(&mut self) {
        for slot in self.space.all_slots() {
            self.hold(slot, Held::new(1));
        }
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

    /// Runs a command on a key of a slot that this node holds.
    pub fn execute(&mut self, now: Now, place: &Place, command: &Command, store: &mut impl Store) -> Execution {
        let Some(held) = self.held.get_mut(&place.slot).filter(|held| !held.superseded) else {
            return Execution::Elsewhere(self.views.get(place.slot).cloned());
        };
        if held.sending.as_ref().is_some_and(|sending| sending.frozen) {
            return Execution::Busy;
        }
        let version = Version { epoch: held.epoch, n: held.n + 1, node: self.me.incarnation };
        let applied = apply(store.get(place).as_ref(), command, version, now.wall);
        match applied.change {
            Change::None => return Execution::Done(applied.outcome),
            Change::Put(record) => {
                held.n += 1;
                store.put(place.clone(), record);
            }
            Change::Remove => store.remove(place),
        }
        if let Some(sending) = &mut held.sending {
            sending.touched(place);
        }
        Execution::Done(applied.outcome)
    }

    /// Removes records that have expired, at most `limit`. Frozen slots wait: their new holder does it.
    pub fn collect_expired(&mut self, now: Now, limit: usize, store: &mut impl Store) -> usize {
        let due = store.expired(now.wall, limit);
        for place in &due {
            match self.held.get_mut(&place.slot) {
                Some(Held { sending: Some(sending), .. }) if sending.frozen => continue,
                Some(Held { sending: Some(sending), .. }) => sending.touched(place),
                _ => {}
            }
            store.remove(place);
        }
        due.len()
    }

    // ----- messages -----

    /// A message of another holder arrived.
    pub fn handle_message(
        &mut self,
        now: Time,
        from: Contact,
        message: HoldingMessage,
        around: &Neighbourhood<'_>,
        store: &mut impl Store,
    ) {
        match message {
            HoldingMessage::Query { runs } => self.on_query(from, &runs),
            HoldingMessage::Notice { views, answer } => self.on_notice(now, from, views, answer),
            HoldingMessage::Offer { runs, leaving } => self.on_offer(now, from, &runs, leaving, around, store),
            HoldingMessage::Decline { runs } => self.on_decline(now, from, &runs, store),
            HoldingMessage::Fetch { slot, epoch, serial, after } => {
                self.on_fetch(now, from, slot, epoch, serial, after.as_ref(), store);
            }
            HoldingMessage::Chunk { slot, epoch, serial, entries, next, last } => {
                self.on_chunk(now, from, slot, epoch, serial, entries, next, last, store);
            }
            HoldingMessage::Taken { slot, epoch, view } => self.on_taken(from, slot, epoch, view, store),
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

    // ----- the new holder -----

    fn on_offer(
        &mut self,
        now: Time,
        from: Contact,
        runs: &[(SlotRun, u64)],
        leaving: bool,
        around: &Neighbourhood<'_>,
        store: &mut impl Store,
    ) {
        let mut declined = Vec::new();
        for (run, epoch) in runs {
            for slot in run.slots(self.space) {
                self.learn(slot, View::of_one(*epoch, from));
                let held = self.held.get(&slot);
                let taken = held.map_or(self.passed_on.get(&slot).copied(), |held| held.taken);
                if let Some(view) = self.views.get(slot).filter(|_| taken == Some((from.incarnation, *epoch))) {
                    let view = view.clone();
                    self.send(from, HoldingMessage::Taken { slot, epoch: *epoch, view });
                    continue;
                }
                // What was begun is finished, unless its holder starts anew or somebody has a newer epoch.
                let keeps = |r: &Receiving| if r.from == from { r.epoch == *epoch } else { r.epoch >= *epoch };
                if self.receiving.get(&slot).is_some_and(keeps) {
                    continue;
                }
                let sending = held.is_some_and(|held| held.sending.is_some());
                let wanted = leaving || held.is_some() || self.is_mine(slot, around);
                if around.leaving || sending || !wanted {
                    declined.push((slot, *epoch));
                    continue;
                }
                if held.is_none() {
                    store.clear(slot);
                }
                self.receiving.insert(slot, Receiving::new(from, *epoch));
            }
        }
        self.decline(from, declined);
        self.fetch_more(now);
    }

    /// Declines slots that were offered in these epochs. A holder of old is told first who came after it.
    fn decline(&mut self, from: Contact, declined: Vec<(Slot, u64)>) {
        if declined.is_empty() {
            return;
        }
        let newer = declined.iter().filter_map(|(slot, epoch)| {
            let view = self.views.get(*slot)?;
            view.replaces(&View::of_one(*epoch, from)).then(|| (*slot, view.clone()))
        });
        let views = runs_of(newer);
        if !views.is_empty() {
            self.send(from, HoldingMessage::Notice { views, answer: false });
        }
        let runs = runs_of(declined.into_iter().map(|(slot, _)| (slot, ()))).into_iter().map(|(run, ())| run).collect();
        self.send(from, HoldingMessage::Decline { runs });
    }

    /// Asks for chunks as far as the credit goes.
    pub(super) fn fetch_more(&mut self, now: Time) {
        let credit = (BULK_CREDIT_BYTES / self.chunk_bytes.max(1)).clamp(1, FETCHES_MAX);
        let under_way = self.receiving.values().filter(|receiving| receiving.asked.is_some()).count();
        let waiting = self.receiving.iter_mut().filter(|(_, receiving)| receiving.asked.is_none());
        for (&slot, receiving) in waiting.take(credit.saturating_sub(under_way)) {
            receiving.asked = Some(now);
            let (epoch, serial, after) = (receiving.epoch, receiving.serial, receiving.after.clone());
            let message = HoldingMessage::Fetch { slot, epoch, serial, after };
            self.effects.push_back(HoldingsEffect::Send { to: receiving.from, message });
        }
    }

    #[allow(clippy::too_many_arguments)] // The fields of one message.
    fn on_chunk(
        &mut self,
        now: Time,
        from: Contact,
        slot: Slot,
        epoch: u64,
        serial: u64,
        entries: Vec<Entry>,
        next: Option<Cursor>,
        last: Option<u64>,
        store: &mut impl Store,
    ) {
        let Some(receiving) = self.receiving.get_mut(&slot) else { return };
        if receiving.from != from || receiving.epoch != epoch || receiving.serial != serial || receiving.asked.is_none()
        {
            return;
        }
        let bytes: usize =
            entries.iter().map(|(_, record)| record.as_ref().map_or(0, crate::data::Record::user_bytes)).sum();
        self.chunk_bytes = bytes.max(CHUNK_BYTES / 4).max(self.chunk_bytes / 2);
        receiving.serial += 1;
        receiving.after = next;
        receiving.asked = None;
        receiving.attempts = 0;
        let merge = self.held.contains_key(&slot);
        absorb(self.space, slot, entries, merge, store);
        if let Some(n) = last {
            self.activate(from, slot, epoch, n);
        }
        self.fetch_more(now);
    }

    fn activate(&mut self, from: Contact, slot: Slot, epoch: u64, n: u64) {
        self.receiving.remove(&slot);
        let before = self.held.get(&slot).map_or((0, 0), |held| (held.epoch, held.n));
        let newest = self.views.newest_epoch(slot);
        let mut held = Held::new(epoch.max(before.0).max(newest) + 1);
        held.n = n.max(before.1);
        held.taken = Some((from.incarnation, epoch));
        let view = self.hold(slot, held);
        self.send(from, HoldingMessage::Taken { slot, epoch, view });
        self.effects.push_back(HoldingsEffect::Took(slot));
    }

    pub(super) fn hold(&mut self, slot: Slot, held: Held) -> View {
        let view = View::of_one(held.epoch, self.me);
        self.views.learn(slot, view.clone());
        self.missing.remove(&slot);
        self.passed_on.remove(&slot);
        self.held.insert(slot, held);
        view
    }

    // ----- the old holder -----

    fn on_decline(&mut self, now: Time, from: Contact, runs: &[SlotRun], store: &mut impl Store) {
        self.declined.insert(from.incarnation, now + DECLINED_FOR);
        self.refused_by.insert(from.incarnation);
        let space = self.space;
        for slot in runs.iter().flat_map(|run| run.slots(space)) {
            if self.receiving.get(&slot).is_some_and(|receiving| receiving.from == from) {
                self.stop_receiving(slot, store);
            }
            if let Some(held) = self.held.get_mut(&slot)
                && held.sending.as_ref().is_some_and(|sending| sending.to == from)
            {
                held.stop_sending();
            }
        }
    }

    #[allow(clippy::too_many_arguments)] // The fields of one message.
    fn on_fetch(
        &mut self,
        now: Time,
        from: Contact,
        slot: Slot,
        epoch: u64,
        serial: u64,
        after: Option<&Cursor>,
        store: &impl Store,
    ) {
        let held = self.held.get_mut(&slot).filter(|held| held.epoch == epoch);
        let given =
            held.and_then(|held| Some((held.n, held.sending.as_deref_mut().filter(|sending| sending.to == from)?)));
        let Some((n, sending)) = given else {
            self.send(from, HoldingMessage::Decline { runs: vec![SlotRun { first: slot, count: 1 }] });
            return;
        };
        sending.last_word = now;
        self.stranded_since = None;
        self.refused_by.clear();
        let Some(part) = sending.part(slot, serial, after, store) else { return };
        let (last, entries, next) = (part.is_last.then_some(n), part.entries, part.next);
        self.send(from, HoldingMessage::Chunk { slot, epoch, serial, entries, next, last });
    }

    fn on_taken(&mut self, from: Contact, slot: Slot, epoch: u64, view: View, store: &mut impl Store) {
        let given = self.held.get(&slot).is_some_and(|held| {
            held.epoch == epoch && held.sending.as_ref().is_some_and(|sending| sending.to == from && sending.frozen)
        });
        if given {
            if let Some(taken) = self.held.remove(&slot).and_then(|held| held.taken) {
                self.passed_on.insert(slot, taken);
            }
            store.clear(slot);
            self.views.end(slot, epoch);
            self.effects.push_back(HoldingsEffect::Gave(slot));
        }
        self.learn(slot, view);
    }

    pub(super) fn is_mine(&self, slot: Slot, around: &Neighbourhood<'_>) -> bool {
        match around.predecessor {
            Some(predecessor) => in_arc(predecessor.id, self.space.last_id(slot), self.me.id),
            None => around.alone,
        }
    }

    /// The slots that are this node's, from the first after its predecessor on.
    pub(super) fn own_slots(&self, around: &Neighbourhood<'_>) -> impl Iterator<Item = Slot> + use<> {
        let (space, me) = (self.space, self.me.id);
        let after = match around.predecessor {
            Some(predecessor) => Some(predecessor.id),
            // An arc from a place to itself is the whole circle.
            None => around.alone.then_some(me),
        };
        after.into_iter().flat_map(move |after| {
            let of = space.slot_of(after);
            let first = if space.last_id(of) == after { of.0 + 1 } else { of.0 };
            let from_first = (0..space.slots()).map(move |n| Slot((first + n) % space.slots()));
            from_first.take_while(move |slot| in_arc(after, space.last_id(*slot), me))
        })
    }

    pub(super) fn is_declined(&self, now: Time, contact: Contact) -> bool {
        self.declined.get(&contact.incarnation).is_some_and(|until| *until > now)
    }

    pub(super) fn send(&mut self, to: Contact, message: HoldingMessage) {
        self.effects.push_back(HoldingsEffect::Send { to, message });
    }
}
