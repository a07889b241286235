//! Arcs of the circle.
//!
//! `between` is the relation of Zave 2016 ("How to Make Chord Correct", section 3): open at both ends, and for a = b
//! everything but that point. `in_arc` is the half-open arc `(a, b]` that a node at `b` with predecessor `a` is
//! responsible for: for a = b it is the whole circle. Both need only the order of ids, not the capacity.

use super::id::Id;

/// Whether `x` lies strictly inside the arc that runs clockwise from `a` to `b`.
pub fn between(a: Id, x: Id, b: Id) -> bool {
    if a < b { a < x && x < b } else { x > a || x < b }
}

/// Whether `x` lies in `(a, b]`, the whole circle when `a == b`.
pub fn in_arc(a: Id, x: Id, b: Id) -> bool {
    x == b || between(a, x, b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Walks clockwise from `a`, one id at a time, and notes what it meets before it arrives at `b`.
    fn walk(a: u128, b: u128, size: u128) -> Vec<u128> {
        let mut met = Vec::new();
        let mut at = (a + 1) % size;
        while at != b {
            met.push(at);
            at = (at + 1) % size;
        }
        met
    }

    proptest! {
        #[test]
        fn arcs_agree_with_a_walk_around_a_small_circle(m in 1_u32..=6, a: u8, x: u8, b: u8) {
            let size = 1_u128 << m;
            let (a, x, b) = (u128::from(a) % size, u128::from(x) % size, u128::from(b) % size);
            let met = walk(a, b, size);
            let [ia, ix, ib] = [a, x, b].map(Id::from_u128);
            prop_assert_eq!(between(ia, ix, ib), met.contains(&x));
            prop_assert_eq!(in_arc(ia, ix, ib), met.contains(&x) || x == b);
        }

        #[test]
        fn three_distinct_points_are_in_one_of_two_orders(a: [u8; 20], x: [u8; 20], b: [u8; 20]) {
            let [a, x, b] = [a, x, b].map(Id::from_bytes);
            prop_assume!(a != x && x != b && a != b);
            prop_assert_ne!(between(a, x, b), between(b, x, a));
        }
    }
}
