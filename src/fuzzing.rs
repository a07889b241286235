//! What is fuzzed, by the names of the targets in `fuzz/`; here their corpora are played again, and changed a little.
//!
//! Only in tests and under a fuzzer.

use crate::cli::fuzzing::{config, import};
use crate::driver::fuzzing::{handshake, http};
use crate::sim::fuzzing::machine;
use crate::wire::fuzzing::{frames, message};

/// Takes any bytes, and panics at a finding.
pub type Target = fn(&[u8]);

/// All of them.
pub const TARGETS: [(&str, Target); 7] = [
    ("frames", frames),
    ("message", message),
    ("handshake", handshake),
    ("http", http),
    ("import", import),
    ("config", config),
    ("machine", machine),
];

/// Runs one by name.
///
/// # Panics
/// There is none of that name, or it has found something.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(of, _)| *of == name).expect("a target");
    target(bytes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::base::Rng;

    /// Changed inputs for each of the corpus.
    const CHANGES: usize = 40;

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files: Vec<_> =
            fs::read_dir(dir).expect("a corpus").map(|entry| entry.expect("a file").path()).collect();
        files.sort();
        files.iter().map(|file| fs::read(file).expect("it can be read")).collect()
    }

    /// Some bytes others, some more or fewer, or the rest of another input.
    fn changed(rng: &mut Rng, all: &[Vec<u8>], of: &[u8]) -> Vec<u8> {
        let mut bytes = of.to_vec();
        for _ in 0..=rng.below(4) {
            let at = rng.index(bytes.len() + 1);
            let any = u8::try_from(rng.below(256)).unwrap_or_default();
            match rng.below(4) {
                0 => bytes.insert(at, any),
                1 => bytes.truncate(at.max(1)),
                2 => {
                    let other = &all[rng.index(all.len())];
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[rng.index(other.len() + 1)..]);
                }
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = any;
                    }
                }
            }
        }
        bytes
    }

    #[test]
    fn corpora_and_what_is_close_to_them_find_nothing() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        let fresh = u64::try_from(now % u128::from(u64::MAX)).expect("below");
        let seed = std::env::var("CHORDKV_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fresh);
        eprintln!("replay: CHORDKV_SEED={seed} cargo test --lib corpora");
        for (name, target) in TARGETS {
            let all = corpus(name);
            assert!(all.len() > 3, "the corpus of {name} is as good as empty");
            let mut rng = Rng::new(seed);
            for bytes in &all {
                target(bytes);
                for _ in 0..CHANGES {
                    target(&changed(&mut rng, &all, bytes));
                }
            }
        }
    }
}
