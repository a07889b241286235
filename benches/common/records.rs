//! Keys of 36 bytes and values of 100, as in the figures for other stores.

use std::sync::Arc;

use chordkv::base::limits::SLOT_BITS_DEFAULT;
use chordkv::base::{Capacity, Incarnation, Wall};
use chordkv::data::{Key, KeySpace, Place, Record, Version};

/// Groups that the keys fall into: the first part of a key.
pub const GROUPS: u64 = 100;

/// The key space of a ring with the default parameters.
pub fn space() -> KeySpace {
    KeySpace::new(Capacity::MAX, SLOT_BITS_DEFAULT).expect("the defaults are allowed")
}

/// What the keys of one group begin with.
pub fn prefix(group: u64) -> Vec<u8> {
    format!("group-{:03}/", group % GROUPS).into_bytes()
}

/// The `n`th key. Neighbours in number are neighbours neither by key nor by place.
pub fn key(n: u64) -> Key {
    let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut text = prefix(n);
    text.extend_from_slice(format!("object-{spread:016x}--{:01}", n % 10).as_bytes());
    Key::new(text).expect("36 bytes are a key")
}

/// Where the `n`th key lives.
pub fn place(n: u64) -> Place {
    space().place(key(n))
}

/// A record of 100 bytes that does not expire.
pub fn record(n: u64) -> Record {
    Record {
        value: Arc::from([b'v'; 100]),
        content_type: None,
        version: Version { epoch: 1, round: 0, n, node: Incarnation(1 << 100) },
        modified: Wall(1_700_000_000_000),
        expires: None,
    }
}
