//! What members of views say to each other, and to those who are to become members.
//!
//! ```text
//! an operation   coordinator ── Ask(peek | prepare | accept) ──▶ members ── Answered ──▶ coordinator
//! a view         owner ── Wish ──▶ a member;   proposer ── Elect, Vote ──▶ members of e ── Elected, Voted ──▶ proposer
//!                proposer ── Notice(.., e, e+1) ──▶ members of both
//! a newcomer     proposer ── Invite ──▶ newcomer ── Fetch(ahead) .. Ready ──▶ proposer, before the vote
//! its records    member of e+1 ── Fetch(e) ──▶ members of e, who freeze ── Part, Part, .. ──▶ member of e+1
//!                member of e+1 ── Complete(e+1) ──▶ all;  once all have said so the records of e go
//! a removal      first member ── Collect ──▶ all ── Collectable ──▶ first member ── Drop ──▶ all
//! comparing      a member ── Compare ──▶ another ── Compared ──▶ the member, until few keys are left that differ
//! ```
//!
//! Whatever is lost is said again.

use crate::base::{Contact, Wall};
use crate::data::register::{Accepted, Ballot};
use crate::data::{Answer, Ask, Cursor, Difference, Digest, Key, Range, Slot, Trouble};
use crate::replication::chain::{Members, Promise, Turn};
use crate::replication::{SlotRun, View};

/// A part of a slot, as one of its members has accepted it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Keys and what was accepted there.
    pub entries: Vec<(Key, Accepted)>,
    /// Keys of which that cannot be read.
    pub damaged: Vec<Key>,
    /// Where the next part begins; `None`: nothing follows.
    pub next: Option<Cursor>,
    /// Of removals in the slot that are forgotten, when the latest of their operations was asked for.
    pub evicted: Option<Wall>,
    /// The receiver has the same, and it is left out.
    pub same: bool,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyMessage {
    /// Which are the newest views of these slots? Answered by a notice.
    Query {
        /// Which slots.
        runs: Vec<SlotRun>,
    },
    /// Views of slots, the oldest of which somebody may still have to know first.
    Notice {
        /// The views.
        views: Vec<(SlotRun, Vec<View>)>,
    },
    /// A sum over the slots whose newest views have the sender and the receiver for members, as far as the sender knows.
    /// Whoever comes to another sum answers with its epochs.
    Summary {
        /// See there.
        sum: u64,
        /// If there are any: over those of these slots, which belong to the sender, whose newest views have the receiver for
        /// a member.
        of: Vec<SlotRun>,
    },
    /// The epochs of the newest views of slots that the sender has the receiver for a member of, or of those it was asked for.
    Epochs {
        /// The slots with the epoch.
        runs: Vec<(SlotRun, u64)>,
        /// It answers such a list.
        answer: bool,
    },
    /// Please see to it that this view is followed by one of these members.
    Wish {
        /// The slot.
        slot: Slot,
        /// Of the view.
        epoch: u64,
        /// Of the next.
        members: Vec<Contact>,
    },
    /// Promise to vote for nothing below this turn.
    Elect {
        /// The slot.
        slot: Slot,
        /// Of the view that is to be followed by another.
        epoch: u64,
        /// The proposer's turn.
        turn: Turn,
        /// As in a notice.
        views: Vec<View>,
    },
    /// The promise.
    Elected {
        /// The slot.
        slot: Slot,
        /// As asked.
        epoch: u64,
        /// As asked.
        turn: Turn,
        /// What else the proposer must know.
        promise: Promise,
    },
    /// Vote for these members.
    Vote {
        /// The slot.
        slot: Slot,
        /// Of the view that they are to follow.
        epoch: u64,
        /// The proposer's turn.
        turn: Turn,
        /// The members to be.
        members: Members,
    },
    /// The vote.
    Voted {
        /// The slot.
        slot: Slot,
        /// As asked.
        epoch: u64,
        /// As asked.
        turn: Turn,
    },
    /// Neither promise nor vote: a later turn was promised.
    Overruled {
        /// The slot.
        slot: Slot,
        /// As asked.
        epoch: u64,
        /// Which.
        turn: Turn,
    },
    /// The sender, a member, would have the receiver for a member of the next view: it is to copy the records ahead, and
    /// not to leave before it knows that view.
    Invite {
        /// The slot.
        slot: Slot,
        /// As in a notice.
        views: Vec<View>,
    },
    /// It has, and will not.
    Ready {
        /// The slot.
        slot: Slot,
        /// Of the sender's newest view.
        epoch: u64,
    },
    /// The next part of what you have accepted up to this epoch.
    Fetch {
        /// The slot.
        slot: Slot,
        /// The epoch.
        epoch: u64,
        /// As in a notice.
        views: Vec<View>,
        /// It is only copied ahead: go on serving.
        ahead: bool,
        /// What the sender has, if it has anything: nothing is sent if it is the same.
        digest: Option<Digest>,
        /// Counts the parts.
        serial: u64,
        /// Where the part before ended.
        after: Option<Cursor>,
    },
    /// That.
    Part {
        /// The slot.
        slot: Slot,
        /// As asked.
        epoch: u64,
        /// As asked.
        serial: u64,
        /// What is in it.
        part: Part,
    },
    /// Whether the sender has the records of this epoch.
    Complete {
        /// The slot.
        slot: Slot,
        /// The epoch.
        epoch: u64,
        /// It has.
        has: bool,
        /// It wants to know whether the receiver has.
        ask: bool,
    },
    /// Asks the register of a key.
    Ask {
        /// For the answer.
        number: u64,
        /// The slot of the key.
        slot: Slot,
        /// Of the view that the sender coordinates in.
        epoch: u64,
        /// The key.
        key: Key,
        /// What is asked; never to lead, which only the own store is asked for.
        ask: Ask,
    },
    /// The answer of a register.
    Answered {
        /// As asked.
        number: u64,
        /// How it went.
        answer: Result<Answer, Trouble>,
    },
    /// Which of these removals do you have, and nothing else under those keys?
    Collect {
        /// The slot.
        slot: Slot,
        /// Of the view that the sender is the first member of.
        epoch: u64,
        /// For the answer.
        serial: u64,
        /// Keys and removals.
        keys: Vec<(Key, Ballot)>,
    },
    /// These.
    Collectable {
        /// The slot.
        slot: Slot,
        /// As asked.
        epoch: u64,
        /// As asked.
        serial: u64,
        /// The keys.
        keys: Vec<Key>,
    },
    /// All members have them: forget these removals.
    Drop {
        /// The slot.
        slot: Slot,
        /// Of the view.
        epoch: u64,
        /// Keys and removals.
        keys: Vec<(Key, Ballot)>,
    },
    /// What do you have of these parts of slots, where it is not the same?
    Compare {
        /// For the answer.
        serial: u64,
        /// Slots, the epochs of their views, and what the sender has.
        slots: Vec<(Slot, u64, Vec<Range>)>,
    },
    /// That, of those of the slots that the sender serves in those views.
    Compared {
        /// As asked.
        serial: u64,
        /// Slots and what differs there.
        slots: Vec<(Slot, Difference)>,
    },
    /// The sender leaves: it is to be no member of anything new.
    Leaving,
}
