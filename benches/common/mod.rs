//! What the benchmarks share. Each uses a part of it.
#![allow(dead_code)]

pub mod client;
pub mod echo;
pub mod nodes;
pub mod records;

use std::time::Duration;

/// How long a benchmark waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Whether everything is to run once, as in `cargo test --benches` and `cargo bench -- --test`; criterion decides alike.
pub fn is_test_mode() -> bool {
    let has = |wanted: &str| std::env::args().any(|arg| arg == wanted);
    has("--test") || !has("--bench")
}

/// The value below which so many thousandths of the samples lie. Sorts them.
pub fn quantile(samples: &mut [Duration], per_mille: usize) -> Duration {
    samples.sort_unstable();
    samples.get((samples.len() * per_mille / 1_000).min(samples.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// In µs, for tables.
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
