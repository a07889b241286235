//! How much memory a frame would take once it is decoded: two bytes may stand for a message of hundreds.

use super::shapes::SHAPES;

/// A message of the protocol.
pub(super) struct Shape {
    /// Bytes in memory, with all that is not repeated.
    pub size: usize,
    /// Fields by number that are messages, or repeated.
    pub fields: &'static [(u32, Kind, bool)],
}

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Bytes,
    /// One at this place.
    Message(u16),
}

/// A frame of less than this is not looked at: it takes some megabytes at most.
const SMALL: usize = 32 << 10;
/// Frames may take so much, and so many times their own length. Of what nodes say nothing takes six times as much.
const SIZE_MAX: usize = 8 << 20;
const TIMES_MAX: usize = 8;
/// Of text or bytes, beside themselves.
const BYTES_SIZE: usize = 40;

/// Whether decoding a frame takes a moderate amount of memory. Also if it is no protobuf, which decoding will tell.
#[inline(never)]
pub(super) fn is_moderate(frame: &[u8]) -> bool {
    let mut left = SIZE_MAX + TIMES_MAX * frame.len();
    frame.len() < SMALL || weigh(frame, 0, &mut left) != Err(TooHeavy)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TooHeavy;

fn weigh(mut bytes: &[u8], place: u16, left: &mut usize) -> Result<(), TooHeavy> {
    let fields = SHAPES[usize::from(place)].fields;
    while let Some((number, content)) = next_field(&mut bytes) {
        let Some((_, kind, is_repeated)) = fields.iter().find(|(known, ..)| u64::from(*known) == number) else {
            continue;
        };
        let size = match kind {
            _ if !is_repeated => 0,
            Kind::Bytes => BYTES_SIZE,
            Kind::Message(place) => SHAPES[usize::from(*place)].size,
        };
        *left = left.checked_sub(size).ok_or(TooHeavy)?;
        if let Kind::Message(place) = kind {
            weigh(content, *place, left)?;
        }
    }
    Ok(())
}

/// The next field, read by hand: with prost's functions, called from here too, the program was 34 kB larger. Its number, and what it holds if that has a length. `None` at the end, or where this is no protobuf.
fn next_field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let key = varint(bytes)?;
    let length = match key & 7 {
        0 => varint(bytes).map(|_| 0)?,
        1 => 8,
        2 => usize::try_from(varint(bytes)?).ok()?,
        5 => 4,
        // Groups: nodes use none.
        _ => return None,
    };
    let (content, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some((key >> 3, if key & 7 == 2 { content } else { &[] }))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::pb::{self, envelope::Body};
    use super::*;

    fn envelope(body: Body) -> Vec<u8> {
        pb::Envelope { body: Some(body) }.encode_to_vec()
    }

    #[test]
    fn a_frame_of_empty_messages_is_too_heavy_wherever_they_are_and_as_many_full_ones_are_not() {
        let part = |entries| envelope(Body::CopyPart(pb::CopyPart { entries, ..pb::CopyPart::default() }));
        assert!(!is_moderate(&part(vec![pb::CopyEntry::default(); 1 << 20])));
        let recent = vec![pb::Ended::default(); 1 << 20];
        let state = pb::State { recent, ..pb::State::default() };
        let accepted = pb::Accepted { state: Some(state), ..pb::Accepted::default() };
        assert!(!is_moderate(&part(vec![pb::CopyEntry { accepted: Some(accepted), ..pb::CopyEntry::default() }])));
        let damaged = vec![Vec::new(); 1 << 20];
        let frame = envelope(Body::CopyPart(pb::CopyPart { damaged, ..pb::CopyPart::default() }));
        assert!(!is_moderate(&frame));
        let full = pb::CopyEntry { key: vec![0; 60], ..pb::CopyEntry::default() };
        assert!(is_moderate(&part(vec![full; 1 << 16])));
        assert!(is_moderate(&vec![0xff; 1 << 20]), "no protobuf is left to the decoder");
    }

    /// The way down ends whatever a frame says.
    #[test]
    fn no_message_is_within_itself() {
        fn depth(place: usize, so_far: usize) -> usize {
            assert!(so_far < 20, "message {place} is within itself");
            let fields = SHAPES[place].fields.iter();
            let below = fields.filter_map(|(_, kind, _)| match kind {
                Kind::Message(below) => Some(depth(usize::from(*below), so_far + 1)),
                Kind::Bytes => None,
            });
            below.max().unwrap_or(0) + 1
        }
        assert!((5..15).contains(&depth(0, 0)), "{}", depth(0, 0));
    }
}
