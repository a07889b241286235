//! What users watch, and what members of slots tell of changes.

use std::fmt;
use std::str::FromStr;

use super::key::Key;
use super::record::{Record, Version};
use super::register::{Ballot, State};
use crate::base::{Incarnation, Span};

/// Which keys somebody watches.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// One key.
    Key(Key),
    /// Those that begin so; all where it is empty.
    Prefix(Vec<u8>),
}

impl Filter {
    /// Whether it is about this key.
    pub fn is_about(&self, key: &Key) -> bool {
        match self {
            Self::Key(own) => own == key,
            Self::Prefix(prefix) => key.as_bytes().starts_with(prefix),
        }
    }

    /// Bytes that name it.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Key(key) => key.as_bytes(),
            Self::Prefix(prefix) => prefix,
        }
    }
}

/// Up to where somebody has watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resume {
    /// The state of the keys, summed up, so every node knows it that has seen the same state; or a place within a longer
    /// answer, which only the node knows that gave it.
    pub sum: u128,
    /// Names that node; 0: none.
    pub node: u32,
}

impl Resume {
    /// How a node is named here.
    pub fn name_of(node: Incarnation) -> u32 {
        let low = u32::try_from(node.0 & u128::from(u32::MAX));
        low.ok().filter(|name| *name > 0).unwrap_or(1)
    }
}

impl fmt::Display for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}{:08x}", self.sum, self.node)
    }
}

impl FromStr for Resume {
    type Err = NoResume;

    /// Reads what `Display` wrote, and nothing else.
    fn from_str(text: &str) -> Result<Self, NoResume> {
        let (sum, node) = text.split_at_checked(32).ok_or(NoResume)?;
        let sum = u128::from_str_radix(sum, 16).map_err(|_| NoResume)?;
        let resume = Self { sum, node: u32::from_str_radix(node, 16).map_err(|_| NoResume)? };
        if resume.to_string() == text { Ok(resume) } else { Err(NoResume) }
    }
}

/// The text is not one that a [`Resume`] prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoResume;

/// A request to be told of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchQuery {
    /// Of which keys.
    pub filter: Filter,
    /// Since when; `None`: from now on, which is answered at once.
    pub from: Option<Resume>,
    /// How long to wait for the first change.
    pub wait: Span,
    /// It was asked before and put off ([`UserReply::Parked`](super::UserReply::Parked)), under this number.
    pub parked: Option<u64>,
}

/// The latest state of a key that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which key.
    pub key: Key,
    /// What is there; `None`: it was deleted, or has expired.
    pub record: Option<Record>,
}

/// Changes, the earliest first; of each key only its latest state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// What has changed.
    pub seen: Vec<Seen>,
    /// Where to go on from.
    pub resume: Resume,
}

/// What a member says of a key that may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// This was accepted.
    Accepted {
        /// In which ballot: those of a key follow each other.
        ballot: Ballot,
        /// What was there then; `None`: nothing.
        there: Option<Version>,
    },
    /// It cannot tell.
    Unknown,
}

impl Hint {
    /// Of what was proposed.
    pub fn of(ballot: Ballot, state: &State) -> Self {
        let there = state.record.as_ref().map(|record| record.version);
        if state.doubtful { Self::Unknown } else { Self::Accepted { ballot, there } }
    }
}
