//! What holders of slots say to each other.
//!
//! ```text
//! S holds slot s in epoch e, T shall hold it       S ── Offer(s, e) ──▶ T
//!   again for each chunk                           S ◀── Fetch(s, e, serial, after) ── T
//!                                                  S ── Chunk(s, e, serial, entries, next) ──▶ T
//!   with the last chunk S freezes the slot         T activates (s, e+1, [T])
//!   S deletes its copy                             S ◀── Taken(s, e, (e+1, [T])) ── T
//! ```
//!
//! Whatever is lost is said again: T repeats a fetch with the same serial, S repeats an offer until it is taken.

use super::runs::SlotRun;
use super::view::View;
use crate::data::{Cursor, Entry, Slot};

/// A message between two holders, or future holders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HoldingMessage {
    /// Who holds these slots? Answered by a notice.
    Query {
        /// Which slots.
        runs: Vec<SlotRun>,
    },
    /// The newest views that the sender knows. `answer`: it was asked, and knows no more than this.
    Notice {
        /// The views.
        views: Vec<(SlotRun, View)>,
        /// Whether this answers a query.
        answer: bool,
    },
    /// Take these slots, which the sender holds in these epochs.
    Offer {
        /// The slots with the sender's epoch.
        runs: Vec<(SlotRun, u64)>,
        /// The sender leaves the ring: take them although they are not yours yet.
        leaving: bool,
    },
    /// Not now: the receiver of an offer does not take these slots, or the receiver of a fetch does not give them.
    Decline {
        /// Which.
        runs: Vec<SlotRun>,
    },
    /// The next part of a slot, please.
    Fetch {
        /// Which slot.
        slot: Slot,
        /// The epoch that was offered.
        epoch: u64,
        /// Counts the chunks; the same again asks for the same chunk again. Zero starts anew.
        serial: u64,
        /// Where the chunk before ended.
        after: Option<Cursor>,
    },
    /// A part of a slot.
    Chunk {
        /// Which slot.
        slot: Slot,
        /// The epoch that was offered.
        epoch: u64,
        /// Of the fetch.
        serial: u64,
        /// Keys and records.
        entries: Vec<Entry>,
        /// Where the next chunk begins; `None` after the end of the scan.
        next: Option<Cursor>,
        /// Nothing follows, the sender has frozen the slot; the counter of its versions.
        last: Option<u64>,
    },
    /// The slot has a new holder: the old copy may go.
    Taken {
        /// Which slot.
        slot: Slot,
        /// The epoch that was offered.
        epoch: u64,
        /// Who holds it now.
        view: View,
    },
}
