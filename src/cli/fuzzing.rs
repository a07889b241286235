//! Files of users, as `fuzz/` chooses them.

use super::{backup, config};
use crate::driver::fuzzing::{ring_keys, tokens};

/// Lines of an import.
pub fn import(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        // An error is as good as a key and a value.
        let _ = backup::understand(line);
    }
}

/// Files of a node: its configuration, its ring keys, the tokens of its users.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    config::understand(text);
    ring_keys(text);
    tokens(text);
}
