//! What all nodes of one ring agree on.

use crate::base::Capacity;
use crate::base::limits::{
    REPLICAS_DEFAULT, REPLICAS_MAX, SLOT_BITS_DEFAULT, SLOT_BITS_MAX, SUCCESSORS_DEFAULT, SUCCESSORS_MAX,
    VALUE_BYTES_DEFAULT, VALUE_BYTES_LIMIT,
};
use crate::data::KeySpace;

/// The parameters of a ring: drawn or chosen by its creator, part of every handshake, adopted by joiners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingParams {
    /// Names the ring; random.
    pub ring: u128,
    /// Identifier bits m and slot bits p.
    pub space: KeySpace,
    /// Length r of the successor lists.
    pub successors: usize,
    /// Copies R of each key.
    pub replicas: usize,
    /// The largest value in bytes.
    pub value_bytes_max: usize,
}

/// What an operator said about the parameters; `None` where nothing was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Identifier bits m.
    pub capacity: Option<u32>,
    /// Slot bits p.
    pub slot_bits: Option<u32>,
    /// Length r of the successor lists.
    pub successors: Option<usize>,
    /// Copies R of each key.
    pub replicas: Option<usize>,
    /// The largest value in bytes.
    pub value_bytes_max: Option<usize>,
}

impl RingParams {
    /// The parameters of a new ring. Fails with a sentence for the operator.
    pub fn create(ring: u128, wishes: &Wishes) -> Result<Self, String> {
        let m = wishes.capacity.unwrap_or(Capacity::MAX.bits());
        let p = wishes.slot_bits.unwrap_or(SLOT_BITS_DEFAULT.min(m));
        Self::checked(
            ring,
            m,
            p,
            wishes.successors.unwrap_or(SUCCESSORS_DEFAULT),
            wishes.replicas.unwrap_or(REPLICAS_DEFAULT),
            wishes.value_bytes_max.unwrap_or(VALUE_BYTES_DEFAULT),
        )
    }

    /// Checks each number against its bounds.
    pub fn checked(ring: u128, m: u32, p: u32, r: usize, copies: usize, value: usize) -> Result<Self, String> {
        let capacity = Capacity::new(m).ok_or(format!("the capacity is 1 to 160 bits, not {m}"))?;
        let space = KeySpace::new(capacity, p)
            .ok_or(format!("the slot bits are at most {SLOT_BITS_MAX} and at most the capacity ({m}), not {p}"))?;
        if !(1..=SUCCESSORS_MAX).contains(&r) {
            return Err(format!("the successor list has 1 to {SUCCESSORS_MAX} entries, not {r}"));
        }
        if !(1..=REPLICAS_MAX).contains(&copies) {
            return Err(format!("a ring keeps 1 to {REPLICAS_MAX} copies, not {copies}"));
        }
        if !(1..=VALUE_BYTES_LIMIT).contains(&value) {
            return Err(format!("the largest value is 1 to {VALUE_BYTES_LIMIT} bytes, not {value}"));
        }
        Ok(Self { ring, space, successors: r, replicas: copies, value_bytes_max: value })
    }

    /// The first wish that this ring does not fulfil: its name, what was wished, what the ring has.
    pub fn first_difference(&self, wishes: &Wishes) -> Option<(&'static str, usize, usize)> {
        let bits = |n: u32| n as usize;
        [
            ("capacity", wishes.capacity.map(bits), bits(self.space.capacity().bits())),
            ("slot-bits", wishes.slot_bits.map(bits), bits(self.space.slot_bits())),
            ("successors", wishes.successors, self.successors),
            ("replicas", wishes.replicas, self.replicas),
            ("max-value", wishes.value_bytes_max, self.value_bytes_max),
        ]
        .into_iter()
        .find_map(|(name, wish, has)| wish.filter(|wish| *wish != has).map(|wish| (name, wish, has)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_capacity_brings_its_slot_bits_along() {
        let wishes = Wishes { capacity: Some(6), ..Wishes::default() };
        let params = RingParams::create(1, &wishes).unwrap();
        assert_eq!((params.space.slot_bits(), params.successors), (6, 16));
        assert_eq!(params.first_difference(&wishes), None);
        let other = Wishes { capacity: Some(7), replicas: Some(3), ..Wishes::default() };
        assert_eq!(params.first_difference(&other), Some(("capacity", 7, 6)));
    }

    #[test]
    fn every_bound_is_checked() {
        for (m, p, r, copies, value) in [
            (0, 0, 1, 1, 1),
            (161, 1, 1, 1, 1),
            (4, 5, 1, 1, 1),
            (9, 9, 0, 1, 1),
            (9, 9, 1, 0, 1),
            (9, 9, 1, 1, 4 << 20),
        ] {
            assert!(RingParams::checked(1, m, p, r, copies, value).is_err(), "{m} {p} {r} {copies} {value}");
        }
    }
}
