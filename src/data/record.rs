//! What is stored under a key.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::base::{Incarnation, Wall};

/// Names one state of one key; the user sees it as the `ETag`. Never used twice, also not after a delete: it is the
/// ballot (epoch of the slot's view, counter, coordinating member) that first applied the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The epoch of the slot's view.
    pub epoch: u64,
    /// Counts the operations on the slot.
    pub n: u64,
    /// The member that coordinated.
    pub node: Incarnation,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{}", self.epoch, self.n, self.node)
    }
}

impl FromStr for Version {
    type Err = NotAVersion;

    /// Reads what `Display` wrote, and nothing else: each version has one spelling.
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(NotAVersion);
        let (epoch, n, node) = (next()?, next()?, next()?);
        let version = Self {
            epoch: u64::from_str_radix(epoch, 16).map_err(|_| NotAVersion)?,
            n: u64::from_str_radix(n, 16).map_err(|_| NotAVersion)?,
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
        let version = Version { epoch: 1, n: 42, node: Incarnation(0xabc) };
        let text = version.to_string();
        assert_eq!(text, "1-2a-00000000000000000000000000000abc");
        assert_eq!(text.parse(), Ok(version));
        for bad in
            ["", "1-2a-abc", "1-2A-00000000000000000000000000000abc", "1-2a", "01-2a-00000000000000000000000000000abc"]
        {
            assert_eq!(bad.parse::<Version>(), Err(NotAVersion), "{bad}");
        }
    }
}
