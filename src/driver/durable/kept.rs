//! How a ring and members of it are written down: a JSON text in the store's file.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::base::{Contact, Incarnation};
use crate::node::{Memory, RingParams};

/// As it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    ring: String,
    capacity: u32,
    slot_bits: u32,
    successors: usize,
    replicas: usize,
    max_value: usize,
    members: Vec<KeptMember>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptMember {
    address: SocketAddr,
    incarnation: String,
}

/// The text.
pub(super) fn write(memory: &Memory) -> String {
    let Memory { params, contacts } = memory;
    let member = |contact: &Contact| KeptMember { address: contact.addr, incarnation: contact.incarnation.to_string() };
    let kept = Kept {
        ring: format!("{:032x}", params.ring),
        capacity: params.space.capacity().bits(),
        slot_bits: params.space.slot_bits(),
        successors: params.successors,
        replicas: params.replicas,
        max_value: params.value_bytes_max,
        members: contacts.iter().map(member).collect(),
    };
    // Numbers, strings and a list always serialize; were it otherwise, the text would be refused when it is read.
    serde_json::to_string(&kept).unwrap_or_default()
}

/// What the text says, or what is wrong with it.
pub(super) fn read(text: &str) -> Result<Memory, String> {
    let kept: Kept = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let Kept { capacity, slot_bits, successors, replicas, max_value, .. } = kept;
    let params = RingParams::checked(hex(&kept.ring)?, capacity, slot_bits, successors, replicas, max_value)?;
    let contact = |member: &KeptMember| {
        hex(&member.incarnation).map(|who| Contact::new(params.space.capacity(), member.address, Incarnation(who)))
    };
    let contacts = kept.members.iter().map(contact).collect::<Result<_, _>>()?;
    Ok(Memory { params, contacts })
}

/// 128 bits as they are printed.
pub(super) fn hex(text: &str) -> Result<u128, String> {
    u128::from_str_radix(text, 16).map_err(|error| format!("{text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Wishes;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let params = RingParams::create(7 << 100, &Wishes { capacity: Some(40), ..Wishes::default() }).unwrap();
        let contact = |port| {
            Contact::new(params.space.capacity(), ([10, 0, 0, 1], port).into(), Incarnation(u128::from(port) << 90))
        };
        let memory = Memory { params, contacts: (1..=20).map(contact).collect() };
        let text = write(&memory);
        assert_eq!(read(&text), Ok(memory));
        for (from, to) in [("{", "["), ("\"capacity\":40", "\"capacity\":400"), ("\"ring\":\"0", "\"ring\":\"x")] {
            assert!(text.contains(from), "{text}");
            assert!(read(&text.replacen(from, to, 1)).is_err());
        }
    }
}
