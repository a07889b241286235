//! What waits to be written to one peer: three lanes with bounds, the urgent ones first, many messages to one write.

use std::collections::VecDeque;
use std::io::{self, Write};

use super::tunnel::Tunnel;
use crate::base::limits::{BULK_CREDIT_BYTES, FRAME_BYTES_MAX, PEER_QUEUE_BYTES_MAX, PEER_QUEUE_MESSAGES_MAX};
use crate::node::Lane;
use crate::wire::{Packet, encode};

/// The lanes of one connection.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    // What is being written: whole frames, the first `done` bytes of which are gone.
    writing: Vec<u8>,
    done: usize,
    maintenance: SmallLane,
    request: SmallLane,
    bulk: VecDeque<Vec<u8>>,
    bulk_bytes: usize,
    // A lane is full, and that was said.
    is_said_full: bool,
}

/// Messages that share one buffer.
#[derive(Debug, Default)]
struct SmallLane {
    bytes: Vec<u8>,
    messages: usize,
}

/// The lane is full; the message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// A buffer larger than this is given back once it is empty.
const KEEP_BYTES: usize = 64 << 10;

impl Outbox {
    /// Whether it is the first time that a lane is full since all were empty.
    pub fn is_news_that_it_is_full(&mut self) -> bool {
        !std::mem::replace(&mut self.is_said_full, true)
    }

    /// Queues one packet.
    pub fn push(&mut self, lane: Lane, packet: &Packet) -> Result<(), Full> {
        self.is_said_full &= !self.is_empty();
        let lane = match lane {
            Lane::Maintenance => &mut self.maintenance,
            Lane::Request => &mut self.request,
            Lane::Bulk => {
                if self.bulk_bytes >= BULK_CREDIT_BYTES + FRAME_BYTES_MAX {
                    return Err(Full);
                }
                let mut frame = Vec::new();
                encode(packet, &mut frame);
                self.bulk_bytes += frame.len();
                self.bulk.push_back(frame);
                return Ok(());
            }
        };
        if lane.messages >= PEER_QUEUE_MESSAGES_MAX || lane.bytes.len() >= PEER_QUEUE_BYTES_MAX {
            return Err(Full);
        }
        encode(packet, &mut lane.bytes);
        lane.messages += 1;
        Ok(())
    }

    /// Queues bytes of the handshake before everything else. Nothing else is written meanwhile.
    pub fn push_handshake(&mut self, bytes: &[u8]) {
        if self.done == self.writing.len() {
            self.done = 0;
            self.writing.clear();
        }
        self.writing.extend_from_slice(bytes);
    }

    /// Whether everything was handed to the system.
    pub fn is_empty(&self) -> bool {
        self.done == self.writing.len()
            && self.maintenance.messages == 0
            && self.request.messages == 0
            && self.bulk.is_empty()
    }

    /// Writes until all is gone or the socket takes no more; whether it took anything. Through a tunnel packets go once it
    /// is open.
    pub fn write_to(&mut self, socket: &mut impl Write, mut tunnel: Option<&mut Tunnel>) -> io::Result<bool> {
        let mut any = false;
        loop {
            if self.done == self.writing.len() {
                let is_shut = tunnel.as_ref().is_some_and(|tunnel| !tunnel.is_open());
                if is_shut || !self.next_batch() {
                    return Ok(any);
                }
                if let Some(tunnel) = &mut tunnel {
                    let plain = std::mem::take(&mut self.writing);
                    tunnel.seal(&plain, &mut self.writing);
                }
            }
            match socket.write(&self.writing[self.done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.done += written;
                    any = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes the most urgent lane what is being written. One bulk frame at a time, so that the others wait for no more.
    fn next_batch(&mut self) -> bool {
        self.done = 0;
        self.writing.clear();
        if self.writing.capacity() > KEEP_BYTES {
            self.writing = Vec::new();
        }
        for lane in [&mut self.maintenance, &mut self.request] {
            if lane.messages > 0 {
                std::mem::swap(&mut self.writing, &mut lane.bytes);
                lane.messages = 0;
                return true;
            }
        }
        if let Some(frame) = self.bulk.pop_front() {
            self.bulk_bytes -= frame.len();
            self.writing = frame;
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Call, Message};
    use crate::overlay::RingMessage;
    use crate::wire::{FrameDecoder, decode};

    fn packet(request: u64) -> Packet {
        Packet::Message(Message::Call { request, call: Call::Info })
    }

    /// A socket that takes a few bytes at a time, and then no more for a while.
    struct Narrow(Vec<u8>, usize);

    impl Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.1 == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = bytes.len().min(self.1).min(3);
            self.1 -= count;
            self.0.extend_from_slice(&bytes[..count]);
            Ok(count)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn urgent_messages_pass_the_others_and_short_writes_lose_nothing() {
        let mut outbox = Outbox::default();
        outbox.push(Lane::Bulk, &packet(1)).unwrap();
        outbox.push(Lane::Request, &packet(2)).unwrap();
        outbox.push(Lane::Maintenance, &Packet::Message(Message::Ring(RingMessage::Notify))).unwrap();
        outbox.push(Lane::Request, &packet(3)).unwrap();
        let mut socket = Narrow(Vec::new(), 0);
        while !outbox.is_empty() {
            socket.1 = 7;
            outbox.write_to(&mut socket, None).unwrap();
        }
        let mut decoder = FrameDecoder::default();
        decoder.push(&socket.0);
        let mut order = Vec::new();
        while let Some(frame) = decoder.next_frame().unwrap() {
            order.push(match decode(frame, crate::base::Capacity::MAX).unwrap() {
                Packet::Message(Message::Call { request, .. }) => request,
                _ => 0,
            });
        }
        assert_eq!(order, [0, 2, 3, 1]);
    }

    #[test]
    fn a_lane_takes_a_bounded_number_of_messages_and_the_others_go_on() {
        let mut outbox = Outbox::default();
        let taken = (0..1_000).filter(|n| outbox.push(Lane::Request, &packet(*n)).is_ok()).count();
        assert_eq!(taken, PEER_QUEUE_MESSAGES_MAX);
        assert_eq!(outbox.push(Lane::Maintenance, &packet(0)), Ok(()));
    }
}
