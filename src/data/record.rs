//! What is stored under a key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::base::{Incarnation, Wall};

/// Names one state of one key; the user sees it as the `ETag`. Never used twice, also not after a delete: it is the
/// ballot that first applied the operation. Ballots are ordered by their fields; a member that has the word in a round
/// counts its ballots, and no other's lie between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The epoch of the slot's view.
    pub epoch: u64,
    /// Of proposing in it; 0 is that of the view's first member, to whom every view gives the word.
    pub round: u64,
    /// The member that coordinated.
    pub node: Incarnation,
    /// Counts the operations of that round.
    pub n: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-", self.epoch)?;
        if self.round > 0 {
            write!(f, "{:x}.", self.round)?;
        }
        write!(f, "{:x}-{}", self.n, self.node)
    }
}

impl FromStr for Version {
    type Err = NotAVersion;

    /// Reads what `Display` wrote, and nothing else: each version has one spelling.
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(NotAVersion);
        let (epoch, n, node) = (next()?, next()?, next()?);
        let (round, n) = n.split_once('.').unwrap_or(("0", n));
        let number = |text| u64::from_str_radix(text, 16).map_err(|_| NotAVersion);
        let version = Self {
            epoch: number(epoch)?,
            round: number(round)?,
            n: number(n)?,
            node: Incarnation(u128::from_str_radix(node, 16).map_err(|_| NotAVersion)?),
        };
        if version.to_string() == text { Ok(version) } else { Err(NotAVersion) }
    }
}

/// The text is not one that a [`Version`] prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAVersion;

/// A value and what is known about it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The raw bytes that the user put.
    pub value: Arc<[u8]>,
    /// The `Content-Type` that came with them.
    pub content_type: Option<Arc<str>>,
    /// The user's `ETag`.
    pub version: Version,
    /// When it was put, by the wall clock of the node that coordinated.
    pub modified: Wall,
    /// From when on it counts as absent.
    pub expires: Option<Wall>,
}

impl Record {
    /// Whether it counts as absent at `now`.
    pub fn is_expired(&self, now: Wall) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// Bytes that the user put; what a byte budget counts, the key's bytes added.
    pub fn user_bytes(&self) -> usize {
        self.value.len() + self.content_type.as_ref().map_or(0, |text| text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_one_spelling() {
        let version = Version { epoch: 1, round: 0, n: 42, node: Incarnation(0xabc) };
        let text = version.to_string();
        assert_eq!(text, "1-2a-00000000000000000000000000000abc");
        assert_eq!(text.parse(), Ok(version));
        let later = Version { round: 0x1f, ..version };
        assert_eq!(later.to_string(), "1-1f.2a-00000000000000000000000000000abc");
        assert_eq!(later.to_string().parse(), Ok(later));
        for bad in [
            "",
            "1-0.2a-00000000000000000000000000000abc",
            "1-2a-abc",
            "1-2A-00000000000000000000000000000abc",
            "1-2a",
            "01-2a-00000000000000000000000000000abc",
        ] {
            assert_eq!(bad.parse::<Version>(), Err(NotAVersion), "{bad}");
        }
    }
}
