//! Fixed and fresh seeds, and what is said of one that fails.

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// Runs `run` for seeds 1 to `fixed`, then for as many fresh ones; names the seed of a failure.
pub fn for_seeds(name: &str, fixed: u64, run: impl Fn(u64)) {
    let fresh = fresh_seeds(fixed);
    each(name, (1..=fixed).chain(fresh), run);
}

/// Runs `run` for seeds 1 to `fixed` alone: what is measured there is a figure, not a rule that holds for every seed.
pub fn for_fixed_seeds(name: &str, fixed: u64, run: impl Fn(u64)) {
    each(name, 1..=fixed, run);
}

/// Runs `run` for a few fixed seeds, for those that once `found` something, and for `fresh` fresh ones; names the seed of
/// a failure.
pub fn for_fresh_seeds(name: &str, found: &[u64], fresh: u64, run: impl Fn(u64)) {
    each(name, (1..=20).chain(found.iter().copied()).chain(fresh_seeds(fresh)), run);
}

/// The same on all cores, for what takes longest: the last of the tests would else have one for itself.
pub fn for_fresh_seeds_on_all_cores(name: &str, found: &[u64], fresh: u64, run: impl Fn(u64) + Sync) {
    let seeds: Vec<u64> = (1..=20).chain(found.iter().copied()).chain(fresh_seeds(fresh)).collect();
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let (run, part) = (&run, |core| seeds.iter().copied().skip(core).step_by(cores));
    if number("CHORDKV_SEED").is_some() {
        return each(name, part(0), run);
    }
    thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|core| scope.spawn(move || each(name, part(core), run))).collect();
        for thread in threads {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
}

fn each(name: &str, seeds: impl Iterator<Item = u64>, run: impl Fn(u64)) {
    if let Some(seed) = number("CHORDKV_SEED") {
        return run(seed);
    }
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(seed))) {
            eprintln!("\nfailed with seed {seed}; replay: CHORDKV_SEED={seed} cargo test --test simulation {name}\n");
            resume_unwind(panic);
        }
    }
}

fn fresh_seeds(count: u64) -> impl Iterator<Item = u64> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos();
    let base = u64::try_from(clock & u128::from(u64::MAX >> 1)).expect("63 bits");
    (0..number("CHORDKV_SEEDS").unwrap_or(count)).map(move |n| base.wrapping_add(n))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}
