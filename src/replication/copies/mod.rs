//! The copies of one node: the slots of whose views it is a member, operations on their keys, and how views follow each
//! other (`protocol.md` section 4).
//!
//! What this node may say rests on each slot's [`Chain`] alone, which is written down before anybody is told. What it
//! knows of other slots' views is advice on where to ask. Order of calls: any `handle_*`, `run` or `stored`, then
//! [`Copies::poll_effect`] until it gives nothing; [`Copies::maintain`] after every change of the ring around it and
//! every [`MAINTAIN_INTERVAL`] while it is not at rest.

mod asked;
mod changes;
mod collect;
mod damage;
mod election;
mod invite;
pub mod message;
pub(crate) mod mutation;
mod operations;
#[cfg(test)]
mod phases;
mod placing;
mod recover;
mod repair;
mod telling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::asked::{Asked, Early, voted};
use self::changes::{Fetching, Wanted};
use self::collect::Collector;
use self::damage::Damage;
use self::election::Standing;
use self::invite::{Invited, Inviting};
pub use self::message::{CopyMessage, Part};
use self::mutation::Mutation;
use self::operations::Operations;
pub use self::operations::{Operation, Ran};
#[cfg(test)]
pub(crate) use self::phases::PHASES;
use self::placing::Placing;
pub use self::placing::Settled;
use self::recover::{Recovering, Waiting};
pub use self::recover::{Recovery, SURVEYED_AT_ONCE};
use self::repair::Repair;
pub use self::repair::{COMPARED_RANGES_MAX, COMPARED_SLOTS_MAX, REPAIR_RATE_DEFAULT};
use super::chain::Chain;
use super::view::{View, Views};
use crate::base::{Contact, Incarnation, Now, Rng, Span, Time, Timers};
use crate::data::{Answer, Cursor, Done, Hint, Key, KeySpace, Slot, Work};

/// What the copies want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopiesEffect {
    /// Send this.
    Send {
        /// To whom.
        to: Contact,
        /// What.
        message: Box<CopyMessage>,
    },
    /// Ask the store, and tell [`Copies::stored`] how it went. In this order.
    Store {
        /// For the answer.
        ticket: u64,
        /// What.
        work: Work,
    },
    /// An operation has ended.
    Ran {
        /// Who asked for it.
        asker: u64,
        /// How.
        ran: Ran,
    },
    /// A key has changed, or may have; only where that is to be told ([`Copies::tell_changes`]).
    Changed {
        /// Which key.
        key: Key,
        /// What is there now.
        hint: Hint,
        /// This member has coordinated it. The others have only accepted it: it may not be chosen yet.
        coordinated: bool,
    },
    /// This node serves one slot more.
    Took(Slot),
    /// This node has no copy of a slot any more.
    Gave(Slot),
    /// Look up the owner of this slot, and tell [`Copies::owner_found`].
    FindOwner(Slot),
    /// Something is to be looked after by [`Copies::maintain`].
    Restless,
}

/// What happens once the store has done something.
#[derive(Debug)]
enum Awaited {
    /// A register of an operation of this node's own has answered.
    Own {
        number: u64,
    },
    /// A register has answered a peer.
    Answer {
        to: Contact,
        number: u64,
        changed: Option<Box<(Key, Hint)>>,
    },
    /// What has become safe to say.
    Say {
        to: Contact,
        message: Box<CopyMessage>,
    },
    /// A part of a slot was read.
    Scanned {
        to: Contact,
        slot: Slot,
        epoch: u64,
        serial: u64,
    },
    /// What is here of a slot is summed up, to see what is damaged, or before its records are fetched.
    Summed {
        slot: Slot,
    },
    /// What could not be read of a slot was put right.
    Mended {
        slot: Slot,
        epoch: u64,
    },
    /// Removals in a slot were looked for.
    Tombstones {
        slot: Slot,
        epoch: u64,
    },
    /// What is there of removals that somebody would have forgotten.
    Held {
        to: Contact,
        slot: Slot,
        epoch: u64,
        serial: u64,
    },
    /// A part of a slot was copied ahead.
    CopiedAhead {
        slot: Slot,
        serial: u64,
        next: Option<Cursor>,
    },
    /// What another has of slots was compared with what is here; the same for another.
    Resolved {
        serial: u64,
    },
    Differs {
        to: Contact,
        serial: u64,
    },
    /// What was behind was looked at again.
    Suspected {
        slot: Slot,
    },
    /// A part of a slot was taken.
    Copied {
        from: Incarnation,
        slot: Slot,
        epoch: u64,
        next: Option<Cursor>,
    },
}

/// A slot of which this node is a member, was one or is to become one.
#[derive(Debug)]
struct Held {
    chain: Chain,
    // The epoch that this process has seen begin as its first member; and the keys whose word is lost in it.
    leads: Option<u64>,
    lost: BTreeSet<Key>,
    election: Option<Box<Standing>>,
    inviting: Option<Box<Inviting>>,
    // Who wished for another view last: most likely the owner, which then hears of it.
    wisher: Option<Contact>,
    fetching: Option<Box<Fetching>>,
    // An operator has said so.
    recovering: Option<Box<Recovering>>,
    // When the members were last asked whether they have its records.
    asked: Option<Time>,
    asks: u32,
    // Since when nobody serves it, as far as this node can see; since when it is not at rest.
    idle_since: Option<Time>,
    restless_since: Option<Time>,
    // Too few members voted: until when others are left alone, so that slots that nobody can help do not hold up the rest.
    hopeless_until: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Operation(u64),
    Compare,
    Missing,
    Rescan,
    Collect,
    Repair,
    LookAgain,
}

/// See the module.
#[derive(Debug)]
pub struct Copies {
    me: Contact,
    space: KeySpace,
    replicas: usize,
    held: BTreeMap<Slot, Held>,
    // Up to which epoch the views of slots that were dropped are over here.
    over: BTreeMap<Slot, u64>,
    views: Views,
    operations: Operations,
    early: Early,
    placing: Placing,
    invited: BTreeMap<Slot, Invited>,
    damage: Damage,
    recoveries: Waiting,
    collector: Collector,
    repair: Repair,
    tells_changes: bool,
    // To a peer, usually: what waits for answers waits by so much longer.
    round_trip: Span,
    timers: Timers<Timer>,
    effects: VecDeque<CopiesEffect>,
    // What this node says to itself.
    own: VecDeque<CopyMessage>,
    awaited: BTreeMap<u64, Awaited>,
    next_ticket: u64,
    rng: Rng,
    #[cfg(test)]
    pub(crate) mutation: Option<Mutation>,
}

/// How often copies that are not at rest look after themselves.
pub const MAINTAIN_INTERVAL: Span = Span::millis(25);

impl Held {
    fn new(chain: Chain) -> Self {
        Self {
            chain,
            leads: None,
            lost: BTreeSet::new(),
            election: None,
            inviting: None,
            wisher: None,
            fetching: None,
            recovering: None,
            asked: None,
            asks: 0,
            idle_since: None,
            restless_since: None,
            hopeless_until: None,
        }
    }
}

impl Copies {
    /// Of a node that is a member of nothing. `replicas`: copies of each key, where there are so many nodes.
    pub fn new(me: Contact, space: KeySpace, replicas: usize, rng: Rng) -> Self {
        Self {
            me,
            space,
            replicas,
            held: BTreeMap::new(),
            over: BTreeMap::new(),
            views: Views::default(),
            operations: Operations::default(),
            early: Early::default(),
            placing: Placing::default(),
            invited: BTreeMap::new(),
            damage: Damage::default(),
            recoveries: Waiting::default(),
            collector: Collector::default(),
            repair: Repair::default(),
            tells_changes: false,
            round_trip: Span::ZERO,
            timers: Timers::new(),
            effects: VecDeque::new(),
            own: VecDeque::new(),
            awaited: BTreeMap::new(),
            next_ticket: 0,
            rng,
            #[cfg(test)]
            mutation: None,
        }
    }

    /// The creator of a ring is the only member of the first view of each slot.
    pub fn create(&mut self) {
        for slot in self.space.all_slots() {
            let view = View::of_one(1, self.me);
            self.views.learn(slot, view.clone());
            let mut held = Held::new(Chain::create(view, self.me.incarnation));
            held.leads = Some(1);
            self.held.insert(slot, held);
        }
        self.write_down(self.space.all_slots().collect());
    }

    /// Is a member of what an earlier process of this node was a member of, as that one wrote it down.
    ///
    /// # Errors
    /// The slot of which something else is written down.
    pub fn restore(&mut self, rows: &[(Slot, String)]) -> Result<(), Slot> {
        for (slot, row) in rows {
            let capacity = self.space.capacity();
            let chain = Chain::from_row(self.me.incarnation, capacity, row).filter(|chain| chain.to_row().is_some());
            let chain = chain.filter(|_| self.space.holds(*slot)).ok_or(*slot)?;
            let Some(view) = chain.newest() else {
                self.over.insert(*slot, chain.over());
                continue;
            };
            self.views.learn(*slot, view.clone());
            self.may_have_removed(Time::default(), *slot);
            // Nobody has the word in it: a disk that was not synced may have forgotten what was said last.
            self.held.insert(*slot, Held::new(chain));
            self.placing.restored = true;
        }
        Ok(())
    }

    /// Whether keys that change are to be told ([`CopiesEffect::Changed`]).
    pub fn tell_changes(&mut self, tell: bool) {
        self.tells_changes = tell;
    }

    // ----- what is known -----

    /// The view that this node serves a slot in.
    pub fn served(&self, slot: Slot) -> Option<&View> {
        self.held.get(&slot)?.chain.served()
    }

    /// Whether this node has all records of a slot as of some view, perhaps not the newest.
    pub fn has_copy(&self, slot: Slot) -> bool {
        self.held.get(&slot).is_some_and(|held| held.chain.has_any_records())
    }

    /// The newest view of a slot that this node has heard of.
    pub fn view(&self, slot: Slot) -> Option<&View> {
        self.held.get(&slot).and_then(|held| held.chain.newest()).or_else(|| self.views.get(slot))
    }

    /// The slots that this node serves, with the epoch of each.
    pub fn serving(&self) -> impl Iterator<Item = (Slot, u64)> {
        self.held.iter().filter_map(|(slot, held)| Some((*slot, held.chain.served()?.epoch)))
    }

    /// The views of a slot of which this node keeps something.
    pub fn chain(&self, slot: Slot) -> Option<&Chain> {
        self.held.get(&slot).map(|held| &held.chain)
    }

    /// How many slots this node keeps something of.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Operations in progress.
    pub fn running(&self) -> usize {
        self.operations.len()
    }

    /// The next effect, in order.
    pub fn poll_effect(&mut self) -> Option<CopiesEffect> {
        self.effects.pop_front()
    }

    /// When [`Copies::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Now) {
        let Now { mono: now, wall } = now;
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Operation(id) => self.operation_due(now, id),
                Timer::Compare => self.compare(now),
                // Who was missing for long is missed no longer.
                Timer::Missing => self.effects.push_back(CopiesEffect::Restless),
                Timer::Rescan => self.rescan(now),
                Timer::Collect => self.collect(now, wall),
                Timer::Repair => self.repair(now),
                Timer::LookAgain => self.look_again(Now { mono: now, wall }),
            }
        }
        self.hear_own(now);
    }

    /// How long to wait for answers where round trips take no time, and how long as they are.
    fn patience(&self, span: Span) -> Span {
        span + self.round_trip * 2
    }

    // ----- the store -----

    fn store_and(&mut self, work: Work, then: Awaited) {
        self.store(work);
        self.awaited.insert(self.next_ticket, then);
    }

    fn store(&mut self, work: Work) {
        self.next_ticket += 1;
        self.effects.push_back(CopiesEffect::Store { ticket: self.next_ticket, work });
    }

    fn rows(&self, slots: Vec<Slot>) -> Work {
        let over = |slot: Slot| self.over.get(&slot).and_then(|over| Chain::after(self.me.incarnation, *over).to_row());
        let row = |slot| (slot, self.held.get(&slot).map_or_else(|| over(slot), |held| held.chain.to_row()));
        Work::Keep(slots.into_iter().map(row).collect())
    }

    /// Writes down how these slots stand now.
    fn write_down(&mut self, slots: Vec<Slot>) {
        let work = self.rows(slots);
        self.store(work);
    }

    /// Says this once it is written down how the slot stands.
    fn say_safely(&mut self, to: Contact, slot: Slot, message: CopyMessage) {
        let work = self.rows(vec![slot]);
        self.store_and(work, Awaited::Say { to, message: Box::new(message) });
    }

    /// The store has answered.
    pub fn stored(&mut self, now: Time, ticket: u64, done: Done) {
        if matches!(done, Done::Voted(Answer::Accepted | Answer::Led(..))) {
            self.repair.is_active(now);
        }
        match self.awaited.remove(&ticket) {
            Some(Awaited::Own { number }) => {
                self.look_for_damage(&done);
                if let Some(answer) = voted(done) {
                    self.on_answer(now, self.me.incarnation, number, answer);
                }
            }
            Some(Awaited::Answer { to, number, changed }) => {
                self.placing.asked(now);
                self.look_for_damage(&done);
                if let Some(answer) = voted(done) {
                    if let Some((key, hint)) = changed.filter(|_| answer == Ok(Answer::Accepted)).map(|of| *of) {
                        self.effects.push_back(CopiesEffect::Changed { key, hint, coordinated: false });
                    }
                    self.send(to, CopyMessage::Answered { number, answer });
                }
            }
            Some(Awaited::Say { to, message }) if done == Done::Changed => self.send(to, *message),
            Some(Awaited::Scanned { to, slot, epoch, serial }) => {
                if let Done::Scanned { entries, damaged, next, evicted, same } = done {
                    if !damaged.is_empty() {
                        self.found_damage(slot);
                    }
                    let evicted = evicted.filter(|_| !self.mutated(Mutation::EvictedStaysBehind));
                    let part = Part { entries, damaged, next, evicted, same };
                    self.send(to, CopyMessage::Part { slot, epoch, serial, part });
                }
            }
            Some(Awaited::Summed { slot }) => {
                let summed = if let Done::Summed { digest, damaged } = done { Some((digest, damaged)) } else { None };
                self.summed(now, slot, ticket, summed);
            }
            Some(Awaited::Mended { slot, epoch }) => self.mended(now, slot, epoch, done == Done::Changed),
            Some(Awaited::Tombstones { slot, epoch }) => {
                if let Done::Tombstones(all) = done {
                    self.found_removals(now, slot, epoch, all);
                }
            }
            Some(Awaited::Held { to, slot, epoch, serial }) => self.has_held(to, slot, (epoch, serial), done),
            Some(Awaited::CopiedAhead { slot, serial, next }) => {
                self.copied_ahead(slot, serial, next, done == Done::Changed);
            }
            Some(Awaited::Copied { from, slot, epoch, next }) => {
                self.copied(now, from, slot, epoch, next, done == Done::Changed);
            }
            Some(Awaited::Resolved { serial }) => self.resolved(now, serial, done),
            Some(Awaited::Differs { to, serial }) => self.differs(to, serial, done),
            Some(Awaited::Suspected { slot }) => self.suspected(now, slot, ticket, done),
            // What could not be done is asked for again by whoever waits for it.
            Some(Awaited::Say { .. }) | None => {}
        }
        self.hear_own(now);
    }

    // ----- messages -----

    fn send(&mut self, to: Contact, message: CopyMessage) {
        if to.incarnation == self.me.incarnation {
            self.own.push_back(message);
        } else {
            self.effects.push_back(CopiesEffect::Send { to, message: Box::new(message) });
        }
    }

    fn hear_own(&mut self, now: Time) {
        while let Some(message) = self.own.pop_front() {
            self.hear_message(now, self.me, message);
        }
    }

    /// A message of a peer arrived.
    pub fn handle_message(&mut self, now: Time, from: Contact, message: CopyMessage) {
        self.hear_message(now, from, message);
        self.hear_own(now);
    }

    fn hear_message(&mut self, now: Time, from: Contact, message: CopyMessage) {
        match message {
            CopyMessage::Query { runs } => self.on_query(from, &runs),
            CopyMessage::Notice { views } => self.on_notice(now, views),
            CopyMessage::Summary { sum, of } => self.on_summary(from, sum, &of),
            CopyMessage::Epochs { runs, answer } => self.on_epochs(from, &runs, answer),
            CopyMessage::Wish { slot, epoch, members } => self.on_wish(now, from, slot, epoch, members),
            CopyMessage::Elect { slot, epoch, turn, views } => {
                self.hear(now, slot, &views);
                self.on_elect(from, slot, epoch, turn);
            }
            CopyMessage::Elected { slot, epoch, turn, promise } => self.on_elected(from, slot, (epoch, turn), promise),
            CopyMessage::Vote { slot, epoch, turn, members } => self.on_vote(from, slot, (epoch, turn), &members),
            CopyMessage::Voted { slot, epoch, turn } => self.on_voted(now, from, slot, (epoch, turn)),
            CopyMessage::Overruled { slot, epoch, turn } => self.on_overruled(from, slot, epoch, turn),
            CopyMessage::Invite { slot, views } => {
                self.hear(now, slot, &views);
                self.on_invite(now, from, slot);
            }
            CopyMessage::Ready { slot, epoch } => self.on_ready(now, from, slot, epoch),
            CopyMessage::Fetch { slot, epoch, views, ahead, digest, serial, after } => {
                self.hear(now, slot, &views);
                self.on_fetch(now, from, slot, epoch, &Wanted { ahead, digest, serial, after });
            }
            CopyMessage::Part { slot, epoch, serial, part } => self.on_part(now, from, slot, (epoch, serial), part),
            CopyMessage::Complete { slot, epoch, has, ask } => self.on_complete(from, slot, epoch, has, ask),
            CopyMessage::Ask { number, slot, epoch, key, ask } => {
                self.on_ask(now, Asked { from, number, slot, epoch, key, ask });
            }
            CopyMessage::Answered { number, answer } => self.on_answer(now, from.incarnation, number, answer),
            CopyMessage::Collect { slot, epoch, serial, keys } => self.on_collect(from, slot, (epoch, serial), keys),
            CopyMessage::Collectable { slot, epoch, serial, keys } => {
                self.on_collectable(now, from, slot, (epoch, serial), &keys);
            }
            CopyMessage::Drop { slot, epoch, keys } => self.on_drop(from, slot, epoch, keys),
            CopyMessage::Compare { serial, slots } => self.on_compare(from, serial, slots),
            CopyMessage::Compared { serial, slots } => self.on_compared(now, from, serial, slots),
            CopyMessage::Leaving => {
                if self.placing.leaves(now, from.incarnation) {
                    self.effects.push_back(CopiesEffect::Restless);
                }
            }
        }
    }

    /// What was heard of a slot led nowhere.
    pub fn forget(&mut self, slot: Slot) {
        // Of its own slots nobody knows better than this node.
        let space = self.space;
        if !self.placing.own.iter().any(|run| run.slots(space).any(|own| own == slot)) {
            self.views.forget(slot);
        }
    }
}
