//! Bytes of strangers, and of files, as `fuzz/` chooses them.

use std::sync::{Arc, LazyLock};

pub use super::http::fuzzing::{http, tokens};
use super::ring_key::{Identity, RingKeys};
use super::tunnel::{Credentials, Tunnel};

static CREDENTIALS: LazyLock<Arc<Credentials>> = LazyLock::new(|| {
    let keys = RingKeys::parse("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").expect("a key");
    Arc::new(Credentials { keys, identity: Identity::draw().expect("random numbers") })
});

/// What comes from somebody without the ring key, to the side that has dialled and to the one that was: the first byte says
/// where it is cut. With the key of this target in its hands a fuzzer cannot get through either, as it would have to compute.
///
/// # Panics
/// Somebody without the key gets through, or anything out.
pub fn handshake(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    for mut tunnel in [Tunnel::accept(Arc::clone(&CREDENTIALS)), Tunnel::dial(Arc::clone(&CREDENTIALS), Some(9))] {
        let mut plain = Vec::new();
        tunnel.take_replies();
        for piece in stream.chunks(1 + usize::from(*cut)) {
            if tunnel.take(piece, &mut plain).is_err() {
                break;
            }
        }
        assert!(!tunnel.is_open() && plain.is_empty() && !tunnel.has_replies(), "a stranger gets through");
    }
}

/// A file of ring keys.
pub fn ring_keys(text: &str) {
    // An error is as good as keys.
    let _ = RingKeys::parse(text);
}
