//! Bytes of strangers, as `fuzz/` chooses them.

use super::{FrameDecoder, Packet, decode, encode};
use crate::base::Capacity;

/// A stream of frames, cut anywhere: the first byte says where.
///
/// # Panics
/// What was understood is not what would be said.
pub fn frames(bytes: &[u8]) {
    let Some((cut, stream)) = bytes.split_first() else { return };
    let mut decoder = FrameDecoder::with_limit(1 << 16);
    for piece in stream.chunks(1 + usize::from(*cut)) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => message(frame),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(decoder.pending() <= stream.len());
    }
}

/// One message.
///
/// # Panics
/// What was understood is not what would be said.
pub fn message(bytes: &[u8]) {
    let Ok(packet) = decode(bytes, Capacity::MAX) else { return };
    let mut frame = Vec::new();
    encode(&packet, &mut frame);
    let again: Result<Packet, _> = decode(&frame[4..], Capacity::MAX);
    assert_eq!(again.as_ref(), Ok(&packet));
}
