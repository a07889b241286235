//! Seeded random numbers: xoshiro256++ (Blackman, Vigna 2019), seeded through SplitMix64.
//!
//! Written out here because a failing seed must replay for ever: no library promises its sequence across versions.
//! Not for secrets; incarnations and ring ids come from the operating system.

/// A random source that is a function of its seed.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

impl Rng {
    /// The source that `seed` names.
    pub fn new(mut seed: u64) -> Self {
        let mut next = || {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = seed;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self([next(), next(), next(), next()])
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.0;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// Uniform in `0..n`; 0 for `n` = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        // Lemire's multiply-shift; its bias of at most n / 2^64 does not matter to timers and tests.
        let wide = u128::from(self.next_u64()) * u128::from(n);
        #[allow(clippy::cast_possible_truncation)] // The high half of a 128-bit product.
        {
            (wide >> 64) as u64
        }
    }

    /// A uniform index into something of length `n`; 0 for an empty one.
    pub fn index(&mut self, n: usize) -> usize {
        #[allow(clippy::cast_possible_truncation)] // Below n, which is a usize.
        {
            self.below(n as u64) as usize
        }
    }

    /// Uniform in `low..high`; `low` if the range is empty.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low))
    }

    /// True with probability `per_mille` / 1000.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// 128 uniform bits.
    pub fn next_u128(&mut self) -> u128 {
        (u128::from(self.next_u64()) << 64) | u128::from(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_is_fixed() {
        let mut rng = Rng::new(1);
        let got = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        assert_eq!(got, [0xcfc5_d07f_6f03_c29b, 0xbf42_4132_963f_e08d, 0x19a3_7d57_57aa_f520]);
    }

    #[test]
    fn below_covers_its_range_evenly() {
        let mut rng = Rng::new(7);
        let mut counts = [0_u32; 10];
        for _ in 0..10_000 {
            counts[rng.index(10)] += 1;
        }
        assert!(counts.iter().all(|&c| (850..1150).contains(&c)), "{counts:?}");
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.range(5, 5), 5);
    }
}
