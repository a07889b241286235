//! How much of the ring's keys a node is to hold, beside the others.

/// A node's share is its weight by the sum of all weights, up to a copy of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u16);

impl Weight {
    /// The default.
    pub const ONE: Self = Self(1);
    /// The highest.
    pub const MAX: Self = Self(100);

    /// `None` outside 1 to 100.
    pub fn new(weight: u32) -> Option<Self> {
        let weight = u16::try_from(weight).ok()?;
        (Self::ONE.0..=Self::MAX.0).contains(&weight).then_some(Self(weight))
    }

    /// As a number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}
