//! Identifiers of `m` bits (1 to 160) and their arithmetic modulo 2^m.
//!
//! An id is the low `m` bits of a SHA-1 digest (Chord, Stoica et al. 2001, section 4.1). The digest spreads keys and
//! nodes evenly; it is no defence against someone who chooses addresses.

use std::fmt;

use sha1::{Digest, Sha1};

use super::rng::Rng;

/// A point on the circle. Ordered as an unsigned integer; which bits are in use is the [`Capacity`]'s matter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Id {
    // Most significant first, so that the derived order is the order of the integer. 24 bytes.
    hi: u32,
    mid: u64,
    lo: u64,
}

impl Id {
    /// The id zero.
    pub const ZERO: Self = Self { hi: 0, mid: 0, lo: 0 };

    const fn new(hi: u32, low: u128) -> Self {
        #[allow(clippy::cast_possible_truncation)] // Splitting a u128 into its halves is the purpose.
        Self { hi, mid: (low >> 64) as u64, lo: low as u64 }
    }

    const fn low(self) -> u128 {
        ((self.mid as u128) << 64) | self.lo as u128
    }

    /// The id with this integer value.
    pub const fn from_u128(value: u128) -> Self {
        Self::new(0, value)
    }

    /// The highest 32 bits and the low 128.
    pub const fn parts(self) -> (u32, u128) {
        (self.hi, self.low())
    }

    /// Puts together what [`Id::parts`] took apart.
    pub const fn from_parts(hi: u32, low: u128) -> Self {
        Self::new(hi, low)
    }

    /// Big-endian, 20 bytes.
    pub fn to_bytes(self) -> [u8; 20] {
        let mut out = [0; 20];
        out[..4].copy_from_slice(&self.hi.to_be_bytes());
        out[4..12].copy_from_slice(&self.mid.to_be_bytes());
        out[12..].copy_from_slice(&self.lo.to_be_bytes());
        out
    }

    /// Reads what [`Id::to_bytes`] wrote. Bits above a capacity are the caller's to check, see [`Capacity::holds`].
    pub fn from_bytes(bytes: [u8; 20]) -> Self {
        let [a, b, c, d, low @ ..] = bytes;
        Self::new(u32::from_be_bytes([a, b, c, d]), u128::from_be_bytes(low))
    }

    fn wrapping_add(self, other: Self) -> Self {
        let (low, carry) = self.low().overflowing_add(other.low());
        Self::new(self.hi.wrapping_add(other.hi).wrapping_add(u32::from(carry)), low)
    }

    fn wrapping_sub(self, other: Self) -> Self {
        let (low, borrow) = self.low().overflowing_sub(other.low());
        Self::new(self.hi.wrapping_sub(other.hi).wrapping_sub(u32::from(borrow)), low)
    }

    /// The number of significant bits: 0 for zero, else the position of the highest set bit plus one.
    pub const fn bit_length(self) -> u32 {
        if self.hi != 0 { 160 - self.hi.leading_zeros() } else { 128 - self.low().leading_zeros() }
    }

    /// The integer divided by `n`, rounded down; unchanged for 0.
    pub fn divided_by(self, n: u32) -> Self {
        let n = u64::from(n.max(1));
        let mut rest = 0;
        let mut divide = |part: u64| {
            let all = (u128::from(rest) << 64) | u128::from(part);
            #[allow(clippy::cast_possible_truncation)] // The rest was below n, so the quotient fits.
            let quotient = (all / u128::from(n)) as u64;
            #[allow(clippy::cast_possible_truncation)] // Below n.
            {
                rest = (all % u128::from(n)) as u64;
            }
            quotient
        };
        let (hi, mid, lo) = (divide(u64::from(self.hi)), divide(self.mid), divide(self.lo));
        #[allow(clippy::cast_possible_truncation)] // At most the hi that it came from.
        Self { hi: hi as u32, mid, lo }
    }

    fn shifted_right(self, bits: u32) -> Self {
        match bits {
            0 => self,
            1..=127 => Self::new(
                if bits < 32 { self.hi >> bits } else { 0 },
                // The low 32 bits of `hi` enter from above.
                (self.low() >> bits) | (u128::from(self.hi)).checked_shl(128 - bits).unwrap_or(0),
            ),
            _ => Self::new(0, u128::from(self.hi).checked_shr(bits - 128).unwrap_or(0)),
        }
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}{:032x}", self.hi, self.low())
    }
}

/// The number of identifier bits `m` of a ring: 1 to 160. All nodes of a ring agree on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capacity(u8);

impl Capacity {
    /// The whole of SHA-1.
    pub const MAX: Self = Self(160);

    /// `None` unless `bits` is 1 to 160.
    pub const fn new(bits: u32) -> Option<Self> {
        if bits >= 1 && bits <= 160 {
            #[allow(clippy::cast_possible_truncation)] // At most 160.
            Some(Self(bits as u8))
        } else {
            None
        }
    }

    /// `m`, 1 to 160.
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// The highest id, 2^m - 1.
    pub const fn highest(self) -> Id {
        let m = self.bits();
        if m > 128 { Id::new(u32::MAX >> (160 - m), u128::MAX) } else { Id::new(0, u128::MAX >> (128 - m)) }
    }

    fn reduce(self, id: Id) -> Id {
        let top = self.highest();
        Id::new(id.hi & top.hi, id.low() & top.low())
    }

    /// Whether no bit above `m` is set.
    pub fn holds(self, id: Id) -> bool {
        id <= self.highest()
    }

    /// The low `m` bits of the SHA-1 digest of `bytes`.
    pub fn hash(self, bytes: &[u8]) -> Id {
        self.reduce(Id::from_bytes(Sha1::digest(bytes).into()))
    }

    /// A uniform id.
    pub fn random(self, rng: &mut Rng) -> Id {
        let [high, mid, low] = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        #[allow(clippy::cast_possible_truncation)] // Any 32 of its bits will do.
        self.reduce(Id { hi: high as u32, mid, lo: low })
    }

    /// `a + b` modulo 2^m.
    pub fn add(self, a: Id, b: Id) -> Id {
        self.reduce(a.wrapping_add(b))
    }

    /// How far `to` lies clockwise from `from`: `to - from` modulo 2^m.
    pub fn distance(self, from: Id, to: Id) -> Id {
        self.reduce(to.wrapping_sub(from))
    }

    /// `n` times a distance, the highest id if that is further than once around.
    pub fn times(self, distance: Id, n: u64) -> Id {
        let mut sum = Id::ZERO;
        for _ in 0..n {
            let next = self.add(sum, distance);
            if next < sum {
                return self.highest();
            }
            sum = next;
        }
        sum
    }

    /// `id + 2^k` modulo 2^m: where finger `k` (0 to m-1) of `id` starts.
    pub fn finger_start(self, id: Id, k: u32) -> Id {
        debug_assert!(k < self.bits());
        let power = if k < 128 { Id::new(0, 1 << k) } else { Id::new(1 << (k - 128), 0) };
        self.add(id, power)
    }

    /// The top `p` bits of `id` (p at most m and at most 32).
    pub fn top_bits(self, id: Id, p: u32) -> u32 {
        debug_assert!(p <= self.bits() && p <= 32);
        let top = id.shifted_right(self.bits() - p);
        #[allow(clippy::cast_possible_truncation)] // At most p <= 32 bits are left.
        {
            top.lo as u32
        }
    }

    /// The highest id whose top `p` bits are `prefix`.
    pub fn last_with_top_bits(self, prefix: u32, p: u32) -> Id {
        debug_assert!(p <= self.bits() && p <= 32);
        let below = self.bits() - p;
        let ones = Capacity::new(below).map_or(Id::ZERO, Capacity::highest);
        let prefix = u128::from(prefix);
        // prefix * 2^below, split at bit 128 (p <= 32, so nothing passes bit 160).
        let low = if below < 128 { prefix << below } else { 0 };
        let high = match below {
            0..97 => 0,
            97..128 => prefix >> (128 - below),
            _ => prefix << (below - 128),
        };
        #[allow(clippy::cast_possible_truncation)] // Bits above 160 cannot be set, see above.
        let high = high as u32;
        Id::new(high | ones.hi, low | ones.low())
    }

    /// `id` in hexadecimal, padded to the digits that `m` bits take.
    pub fn hex(self, id: Id) -> String {
        let all = format!("{id:?}");
        let digits = self.bits().div_ceil(4) as usize;
        all[all.len() - digits..].to_owned()
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self::MAX
    }
}

/// Who a node is: 128 random bits drawn when its data directory was made, or at start without one. A node that lost
/// its data is another member; one that changed its address is still the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
// A u128 would be aligned to 16 bytes, and a table of contacts a tenth larger for it.
#[repr(Rust, packed(8))]
pub struct Incarnation(pub u128);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", { self.0 })
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}..", self.0 >> 96)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn capacity(m: u32) -> Capacity {
        Capacity::new(m).unwrap()
    }

    #[test]
    fn capacity_is_1_to_160() {
        assert_eq!(Capacity::new(0), None);
        assert_eq!(Capacity::new(161), None);
        assert_eq!(Capacity::new(160), Some(Capacity::MAX));
    }

    #[test]
    fn full_capacity_is_the_whole_digest() {
        // FIPS 180-4, the digest of "abc".
        assert_eq!(Capacity::MAX.hex(Capacity::MAX.hash(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(capacity(16).hex(capacity(16).hash(b"abc")), "d89d");
        assert_eq!(capacity(3).hash(b"abc"), Id::from_u128(5));
    }

    #[test]
    fn top_bits_and_their_last_id_at_every_capacity() {
        for m in 1..=160 {
            let c = capacity(m);
            for p in 1..=m.min(20) {
                let prefix = (1_u32 << p) - 1;
                assert_eq!(c.last_with_top_bits(prefix, p), c.highest(), "m {m} p {p}");
                assert_eq!(c.top_bits(c.last_with_top_bits(prefix / 2, p), p), prefix / 2, "m {m} p {p}");
                let next = c.add(c.last_with_top_bits(prefix / 2, p), Id::from_u128(1));
                assert_eq!(c.top_bits(next, p), prefix / 2 + 1, "m {m} p {p}");
            }
        }
    }

    proptest! {
        #[test]
        fn small_capacities_count_as_integers_do(m in 1_u32..=64, a: u64, b: u64, k in 0_u32..64) {
            let (c, modulus) = (capacity(m), 1_u128 << m);
            let (a, b) = (u128::from(a) % modulus, u128::from(b) % modulus);
            let (x, y) = (Id::from_u128(a), Id::from_u128(b));
            prop_assert_eq!(c.add(x, y), Id::from_u128((a + b) % modulus));
            prop_assert_eq!(c.distance(x, y), Id::from_u128((b + modulus - a) % modulus));
            prop_assert_eq!(c.finger_start(x, k % m), Id::from_u128((a + (1 << (k % m))) % modulus));
            prop_assert_eq!(c.top_bits(x, m.min(10)), u32::try_from(a >> (m - m.min(10))).unwrap());
        }

        #[test]
        fn distances_are_divided_and_multiplied_as_integers_are(m in 1_u32..=60, a: u64, n in 1_u32..9) {
            let (c, size) = (capacity(m), 1_u128 << m);
            let a = u128::from(a) % size;
            prop_assert_eq!(Id::from_u128(a).divided_by(n), Id::from_u128(a / u128::from(n)));
            let product = (a * u128::from(n)).min(size - 1);
            prop_assert_eq!(c.times(Id::from_u128(a), u64::from(n)), Id::from_u128(product));
            prop_assert_eq!(Capacity::MAX.highest().divided_by(1 << 31).bit_length(), 129);
        }

        #[test]
        fn wide_ids_add_and_subtract_back(m in 1_u32..=160, a: [u8; 20], b: [u8; 20]) {
            let c = capacity(m);
            let (a, b) = (c.reduce(Id::from_bytes(a)), c.reduce(Id::from_bytes(b)));
            prop_assert_eq!(c.add(a, c.distance(a, b)), b);
            prop_assert_eq!(Id::from_bytes(a.to_bytes()), a);
            prop_assert!(c.holds(a));
            prop_assert!(a.bit_length() <= m);
        }
    }
}
