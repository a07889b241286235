//! Means and percentiles.

/// Whole numbers that were measured, in any order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    sorted: Vec<u64>,
    sum: u64,
}

impl Tally {
    /// Of these.
    pub fn of(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        Self { sum: values.iter().sum(), sorted: values }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// All together.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// 0 for none.
    pub fn mean(&self) -> f64 {
        ratio(self.sum, self.count() as u64)
    }

    /// What so many of a thousand do not exceed; 0 for none.
    pub fn percentile(&self, per_mille: usize) -> u64 {
        let rank = (self.count() * per_mille).div_ceil(1_000).max(1);
        self.sorted.get(rank - 1).or(self.sorted.last()).copied().unwrap_or(0)
    }

    /// The largest; 0 for none.
    pub fn max(&self) -> u64 {
        self.percentile(1_000)
    }

    /// Each value that occurs with how often, ascending.
    pub fn counts(&self) -> Vec<(u64, usize)> {
        self.sorted.chunk_by(|a, b| a == b).map(|equal| (equal[0], equal.len())).collect()
    }
}

/// `a` per `b`; 0 for `b` = 0.
#[allow(clippy::cast_precision_loss)] // Figures are read to three digits.
pub fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let tally = Tally::of((1..=200).rev().collect());
        assert_eq!([10, 500, 990, 1_000].map(|at| tally.percentile(at)), [2, 100, 198, 200]);
        assert!((tally.mean() - 100.5).abs() < 1e-9);
        assert_eq!(Tally::of(vec![3, 1, 3]).counts(), [(1, 1), (3, 2)]);
        let none = Tally::default();
        assert_eq!((none.percentile(500), none.max(), none.mean().to_bits()), (0, 0, 0));
    }
}
