//! Frames: a 4-byte big-endian length, then that many bytes of one envelope.

use super::handshake::{Hello, Refusal};
use crate::base::limits::FRAME_BYTES_MAX;
use crate::node::Message;

/// What one frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// The first frame of either side.
    Hello(Box<Hello>),
    /// In place of the second one: the connection ends.
    Refusal(Refusal),
    /// The sender has left the ring.
    Goodbye,
    /// Anything between two members.
    Message(Message),
}

/// A frame declares more than [`FRAME_BYTES_MAX`] bytes; the connection is beyond repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTooLarge {
    /// What it declares.
    pub declared: usize,
}

/// Cuts a stream of bytes into frames. Holds only bytes that arrived: a declared length allocates nothing.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    // Bytes before this are done with.
    start: usize,
    limit: Option<usize>,
}

const PREFIX_BYTES: usize = 4;
/// A buffer larger than this is given back once it is empty.
const KEEP_BYTES: usize = 64 << 10;

impl FrameDecoder {
    /// For frames of at most `limit` bytes.
    pub fn with_limit(limit: usize) -> Self {
        Self { limit: Some(limit), ..Self::default() }
    }

    /// Changes the limit for the frames to come.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = Some(limit);
    }

    /// Takes bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.push_with(|buffer| buffer.extend_from_slice(bytes));
    }

    /// Takes bytes that arrived, as `append` adds them to those that wait.
    pub fn push_with<T>(&mut self, append: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.start > 0 && (self.start == self.buffer.len() || self.start >= KEEP_BYTES) {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        append(&mut self.buffer)
    }

    /// The next whole frame, without its prefix; `None` until more bytes arrive.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, FrameTooLarge> {
        if self.start == self.buffer.len() && self.buffer.capacity() > KEEP_BYTES {
            *self = Self { limit: self.limit, ..Self::default() };
        }
        let Some((prefix, rest)) = self.buffer[self.start..].split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length > self.limit.unwrap_or(FRAME_BYTES_MAX) {
            return Err(FrameTooLarge { declared: length });
        }
        if rest.len() < length {
            return Ok(None);
        }
        let begin = self.start + PREFIX_BYTES;
        self.start = begin + length;
        Ok(Some(&self.buffer[begin..begin + length]))
    }

    /// Bytes of memory that it takes.
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Bytes that wait for the rest of their frame.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_survive_any_cut_of_the_stream(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
            cuts in prop::collection::vec(1_usize..64, 1..50),
        ) {
            let mut stream = Vec::new();
            for frame in &frames {
                stream.extend(u32::try_from(frame.len()).unwrap().to_be_bytes());
                stream.extend(frame);
            }
            let (mut decoder, mut got) = (FrameDecoder::default(), Vec::new());
            let (mut rest, mut cut) = (stream.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
                decoder.push(now);
                rest = later;
                while let Some(frame) = decoder.next_frame().unwrap() {
                    got.push(frame.to_vec());
                }
            }
            prop_assert_eq!(got, frames);
            prop_assert_eq!(decoder.pending(), 0);
        }
    }

    #[test]
    fn a_declared_length_allocates_nothing_and_too_large_a_one_is_refused() {
        let mut decoder = FrameDecoder::default();
        decoder.push(&u32::try_from(FRAME_BYTES_MAX).unwrap().to_be_bytes());
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(decoder.buffer.capacity() < 100);
        let mut decoder = FrameDecoder::with_limit(10);
        decoder.push(&11_u32.to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameTooLarge { declared: 11 }));
    }
}
