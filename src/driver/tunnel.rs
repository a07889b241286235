//! The encrypted way between two nodes that have the ring key: Noise, pattern `XXpsk0`, as a machine that does no I/O.
//!
//! ```text
//! dialler                                         accepted
//!   preamble (24) | psk, e (48)            ──▶      nothing is computed, kept or answered for whoever has not the key
//!                                          ◀──    e, ee, s, es (96)
//!   s, se (64) | records                   ──▶
//!                                          ◀──    records
//! record: length (2, big-endian) | that many bytes, at least the 16 of the tag
//! ```
//!
//! The ring key is mixed in first (`psk0`): the first message of a stranger cannot be read, and costs a computation for
//! each key. The preamble, with the ring that is looked for and the versions spoken, is the prologue of the handshake:
//! whoever changes it on its way ends it. A first message that is played again is answered, and leads nowhere, as only
//! its author can go on. Both sides show that they have the private half of their own key, and so who they are.
//!
//! What is inside is a stream of frames as without a ring key; nothing of it is looked at before the handshake has
//! ended. The pattern hides who speaks from everybody without the ring key, and what was said from everybody who gets a
//! ring key or a node's own key later.
//!
//! Noise: <https://noiseprotocol.org/noise.html>, sections 7.5 and 9.

use std::sync::Arc;

use snow::params::NoiseParams;
use snow::{Builder, HandshakeState, TransportState};

use super::ring_key::{Identity, KEY_BYTES, RingKeys, incarnation_of};
use crate::base::Incarnation;
use crate::wire::handshake::{PROTOCOL_MAX, PROTOCOL_MIN};

/// What a node shows to others and asks of them.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Of the ring.
    pub keys: RingKeys,
    /// Its own.
    pub identity: Identity,
}

/// One side of one connection.
pub struct Tunnel {
    state: State,
    credentials: Arc<Credentials>,
    // What arrived and is not read yet: less than a handshake message or a record.
    arrived: Vec<u8>,
    // Handshake messages that wait to be sent.
    replies: Vec<u8>,
    peer: Option<Incarnation>,
    // The ring key that it uses; `None` until one was shown.
    key: Option<[u8; KEY_BYTES]>,
}

/// Why a connection is not a tunnel, or none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// What it says is no handshake of chordkv with a ring key.
    NoHandshake,
    /// It speaks another version.
    Version,
    /// It has another ring key, or something was changed on the way.
    Key,
    /// The first record that cannot be read after a handshake.
    Record,
}

impl Stranger {
    /// One sentence about the peer.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoHandshake => "it uses no ring key (--ring-key-file), or is no chordkv node",
            Self::Version => "it speaks another version of the protocol; upgrade the older one",
            Self::Key => "it has another ring key (--ring-key-file)",
            Self::Record => "what it sent was changed on the way",
        }
    }
}

enum State {
    // Waits for the first message.
    Accepting,
    // Waits for the second or third one.
    Shaking(Box<HandshakeState>),
    Open(Box<TransportState>),
    Broken,
}

const PATTERN: &str = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2s";
const PSK_PLACE: u8 = 0;
/// As the length of a frame without a ring key it would be far too large.
const MAGIC: &[u8; 5] = b"CHKV\x01";
const PREAMBLE_BYTES: usize = 24;
const FIRST_BYTES: usize = 48;
const SECOND_BYTES: usize = 96;
const THIRD_BYTES: usize = 64;
const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 2;
/// Of what one record carries: what Noise allows.
const RECORD_PLAIN_MAX: usize = u16::MAX as usize - TAG_BYTES;
/// A buffer larger than this is given back once it is empty.
const KEEP_BYTES: usize = 4 << 10;

impl Tunnel {
    /// The side that has dialled; `ring` is the one that it looks for, if it knows one.
    pub fn dial(credentials: Arc<Credentials>, ring: Option<u128>) -> Self {
        let preamble = preamble(ring);
        let key = *credentials.keys.first();
        let mut state = shaking(&credentials, &key, &preamble, true);
        let mut replies = preamble.to_vec();
        write(&mut state, &mut replies, FIRST_BYTES);
        let state = State::Shaking(Box::new(state));
        Self { state, credentials, arrived: Vec::new(), replies, peer: None, key: Some(key) }
    }

    /// The side that was dialled.
    pub fn accept(credentials: Arc<Credentials>) -> Self {
        Self { state: State::Accepting, credentials, arrived: Vec::new(), replies: Vec::new(), peer: None, key: None }
    }

    /// Whether the handshake has ended well: only then may anything be sealed.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether the other side has shown that it has a ring key, if only by a message that somebody may have recorded.
    pub fn has_seen_key(&self) -> bool {
        self.key.is_some()
    }

    /// Whether it may go on where these are the ring's keys. One that has shown none yet may not: it would be asked for those of
    /// before.
    pub fn is_kept_by(&self, keys: &RingKeys) -> bool {
        self.key.is_some_and(|key| keys.all().contains(&key))
    }

    /// Who the other side has shown to be.
    pub fn peer(&self) -> Option<Incarnation> {
        self.peer
    }

    /// Whether anything is to be sent before all else.
    pub fn has_replies(&self) -> bool {
        !self.replies.is_empty()
    }

    /// What is to be sent before anything else.
    pub fn take_replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.replies)
    }

    /// Takes bytes that arrived; appends what they say to `plain`. After an error nothing is taken any more.
    pub fn take(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Stranger> {
        // Most often whole records come, and nothing waits.
        if self.arrived.is_empty() {
            let used = self.read_all(bytes, plain)?;
            self.arrived.extend_from_slice(&bytes[used..]);
            return Ok(());
        }
        let mut arrived = std::mem::take(&mut self.arrived);
        arrived.extend_from_slice(bytes);
        let used = self.read_all(&arrived, plain)?;
        arrived.drain(..used);
        if !arrived.is_empty() || arrived.capacity() <= KEEP_BYTES {
            self.arrived = arrived;
        }
        Ok(())
    }

    /// Reads what is there whole; how many bytes it had.
    fn read_all(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<usize, Stranger> {
        let mut used = 0;
        loop {
            match self.step(&bytes[used..], plain) {
                Ok(0) => return Ok(used),
                Ok(more) => used += more,
                Err(stranger) => {
                    self.state = State::Broken;
                    return Err(stranger);
                }
            }
        }
    }

    /// Reads one message or record; how many bytes it had, or 0 if it is not there whole.
    fn step(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<usize, Stranger> {
        match &mut self.state {
            State::Accepting => self.first(bytes),
            State::Shaking(state) => {
                let size = if state.is_initiator() { SECOND_BYTES } else { THIRD_BYTES };
                let Some(message) = bytes.get(..size) else { return Ok(0) };
                state.read_message(message, &mut []).map_err(|_| Stranger::Key)?;
                if state.is_initiator() {
                    write(state, &mut self.replies, THIRD_BYTES);
                }
                self.open()?;
                Ok(size)
            }
            State::Open(state) => {
                let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(0) };
                let length = usize::from(u16::from_be_bytes(*length));
                if length < TAG_BYTES {
                    return Err(Stranger::Record);
                }
                let Some(record) = rest.get(..length) else { return Ok(0) };
                let start = plain.len();
                plain.resize(start + length - TAG_BYTES, 0);
                state.read_message(record, &mut plain[start..]).map_err(|_| {
                    plain.truncate(start);
                    Stranger::Record
                })?;
                Ok(LENGTH_BYTES + length)
            }
            State::Broken => Err(Stranger::Record),
        }
    }

    fn first(&mut self, bytes: &[u8]) -> Result<usize, Stranger> {
        // Whoever says something else is told apart by its first bytes, and not waited for.
        let begin = bytes.len().min(MAGIC.len());
        if bytes[..begin] != MAGIC[..begin] {
            return Err(Stranger::NoHandshake);
        }
        let Some(first) = bytes.get(..PREAMBLE_BYTES + FIRST_BYTES) else { return Ok(0) };
        let (preamble, message) = first.split_at(PREAMBLE_BYTES);
        let (min, max) = (u32::from(preamble[5]), u32::from(preamble[6]));
        if max < PROTOCOL_MIN || PROTOCOL_MAX < min {
            return Err(Stranger::Version);
        }
        let tried = self.credentials.keys.all().iter().find_map(|key| {
            let mut state = shaking(&self.credentials, key, preamble, false);
            state.read_message(message, &mut []).is_ok().then_some((state, *key))
        });
        let (mut state, key) = tried.ok_or(Stranger::Key)?;
        self.key = Some(key);
        write(&mut state, &mut self.replies, SECOND_BYTES);
        self.state = State::Shaking(Box::new(state));
        Ok(first.len())
    }

    fn open(&mut self) -> Result<(), Stranger> {
        let State::Shaking(state) = std::mem::replace(&mut self.state, State::Broken) else { return Ok(()) };
        let state = state.into_transport_mode().map_err(|_| Stranger::Key)?;
        self.peer = state.get_remote_static().map(incarnation_of);
        self.state = State::Open(Box::new(state));
        Ok(())
    }

    /// The records that carry `plain`, appended to `out`. Only once open.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        let State::Open(state) = &mut self.state else {
            unreachable!("nothing is sent before the handshake has ended")
        };
        for part in plain.chunks(RECORD_PLAIN_MAX) {
            let length = part.len() + TAG_BYTES;
            out.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
            let start = out.len();
            out.resize(start + length, 0);
            // The buffer has room for the tag, and 2^64 records are never sent.
            state.write_message(part, &mut out[start..]).expect("a record fits");
        }
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = match self.state {
            State::Accepting => "accepting",
            State::Shaking(_) => "shaking hands",
            State::Open(_) => "open",
            State::Broken => "broken",
        };
        write!(f, "Tunnel({state}, {:?})", self.peer)
    }
}

fn preamble(ring: Option<u128>) -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    bytes[..5].copy_from_slice(MAGIC);
    bytes[5] = u8::try_from(PROTOCOL_MIN).unwrap_or(u8::MAX);
    bytes[6] = u8::try_from(PROTOCOL_MAX).unwrap_or(u8::MAX);
    bytes[7] = u8::from(ring.is_some());
    bytes[8..].copy_from_slice(&ring.unwrap_or(0).to_be_bytes());
    bytes
}

fn shaking(credentials: &Credentials, key: &[u8; KEY_BYTES], preamble: &[u8], dials: bool) -> HandshakeState {
    let build = || {
        let params: NoiseParams = PATTERN.parse()?;
        let builder = Builder::new(params)
            .psk(PSK_PLACE, key)?
            .local_private_key(credentials.identity.secret())?
            .prologue(preamble)?;
        if dials { builder.build_initiator() } else { builder.build_responder() }
    };
    // The pattern and the lengths of all keys are constants.
    build().expect("the pattern is well formed")
}

/// Appends the next message of the handshake, which is `size` bytes long.
fn write(state: &mut HandshakeState, out: &mut Vec<u8>, size: usize) {
    let start = out.len();
    out.resize(start + size, 0);
    // It is this side's turn, and the sizes follow from the pattern. The system's random numbers, which were there for the
    // node's own key, are all that could be missing.
    state.write_message(&[], &mut out[start..]).expect("a message of the handshake");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn credentials(keys: &[u8]) -> Arc<Credentials> {
        use base64::Engine;
        let line = |key: &u8| base64::engine::general_purpose::STANDARD.encode([*key; 32]);
        let text = keys.iter().map(line).collect::<Vec<_>>().join("\n");
        Arc::new(Credentials { keys: RingKeys::parse(&text).unwrap(), identity: Identity::draw().unwrap() })
    }

    /// Carries what either side wants to say to the other, `cut` bytes at a time, until nothing is left.
    fn talk(dialler: &mut Tunnel, accepted: &mut Tunnel, cut: usize) -> Result<(), Stranger> {
        loop {
            let (there, back) = (dialler.take_replies(), accepted.take_replies());
            if there.is_empty() && back.is_empty() {
                return Ok(());
            }
            let mut plain = Vec::new();
            there.chunks(cut).try_for_each(|bytes| accepted.take(bytes, &mut plain))?;
            back.chunks(cut).try_for_each(|bytes| dialler.take(bytes, &mut plain))?;
            assert!(plain.is_empty(), "the handshake says nothing");
        }
    }

    fn opened(cut: usize) -> (Tunnel, Tunnel) {
        let (one, other) = (credentials(&[1]), credentials(&[1]));
        let (mut dialler, mut accepted) = (Tunnel::dial(one.clone(), Some(9)), Tunnel::accept(other.clone()));
        assert!(!dialler.is_open() && !accepted.is_open());
        talk(&mut dialler, &mut accepted, cut).unwrap();
        assert!(dialler.is_open() && accepted.is_open());
        assert_eq!(dialler.peer(), Some(other.identity.incarnation()));
        assert_eq!(accepted.peer(), Some(one.identity.incarnation()));
        (dialler, accepted)
    }

    proptest! {
        #[test]
        fn what_is_said_arrives_whatever_the_cuts_and_in_no_clear_text(
            said in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20),
            cut in 1_usize..400,
            large in 0_usize..300_000,
        ) {
            let (mut dialler, mut accepted) = opened(cut);
            let (mut sealed, mut plain) = (Vec::new(), Vec::new());
            for part in said.iter().map(Vec::as_slice).chain([vec![7; large].as_slice()]) {
                dialler.seal(part, &mut sealed);
            }
            for bytes in sealed.chunks(cut * 50) {
                accepted.take(bytes, &mut plain).unwrap();
            }
            prop_assert_eq!(plain, [said.concat(), vec![7; large]].concat());
            prop_assert!(large < 16 || !sealed.windows(16).any(|bytes| bytes == [7; 16]));
        }

        #[test]
        fn garbage_ends_a_handshake_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 1..300), keep in 0_usize..80) {
            let (mut plain, mut accepted) = (Vec::new(), Tunnel::accept(credentials(&[1])));
            // The begin of a true first message, and then something else.
            let mut first = Tunnel::dial(credentials(&[1]), None).take_replies();
            first.truncate(keep);
            first.extend(&bytes);
            let _ = accepted.take(&first, &mut plain);
            prop_assert!(!accepted.is_open() && plain.is_empty());
        }
    }

    #[test]
    fn without_the_key_nothing_is_answered() {
        let mut plain = Vec::new();
        for keys in [[1, 2], [3, 1]] {
            let mut accepted = Tunnel::accept(credentials(&keys));
            let mut stranger = Tunnel::dial(credentials(&[2]), None);
            let taken = accepted.take(&stranger.take_replies(), &mut plain);
            assert_eq!(taken, if keys[1] == 2 { Ok(()) } else { Err(Stranger::Key) });
            assert_eq!(accepted.take_replies().is_empty(), keys[1] != 2);
        }
        let mut accepted = Tunnel::accept(credentials(&[1]));
        assert_eq!(accepted.take(b"GET / HTTP/1.1", &mut plain), Err(Stranger::NoHandshake));
        assert_eq!(
            accepted.take(&Tunnel::dial(credentials(&[1]), None).take_replies(), &mut plain),
            Err(Stranger::Record)
        );
        let mut later = Tunnel::dial(credentials(&[1]), None).take_replies();
        (later[5], later[6]) = (200, 201);
        assert_eq!(Tunnel::accept(credentials(&[1])).take(&later, &mut plain), Err(Stranger::Version));
    }

    #[test]
    fn a_key_that_counts_no_more_opens_nothing_not_even_where_somebody_waits_already() {
        let (old, new) = (credentials(&[1, 2]), credentials(&[2]));
        let mut waits = Tunnel::accept(old.clone());
        assert!(!waits.is_kept_by(&new.keys), "it has shown none, and would be let in with the old one");
        let mut dialler = Tunnel::dial(credentials(&[1]), None);
        talk(&mut dialler, &mut waits, 1_000).unwrap();
        assert!(waits.is_kept_by(&old.keys) && !waits.is_kept_by(&new.keys));
        assert!(Tunnel::dial(new.clone(), None).is_kept_by(&new.keys));
    }

    #[test]
    fn every_byte_of_the_handshake_counts() {
        let (one, other) = (credentials(&[1]), credentials(&[1]));
        let sizes = [PREAMBLE_BYTES + FIRST_BYTES, SECOND_BYTES, THIRD_BYTES];
        for (message, size) in sizes.into_iter().enumerate() {
            for at in 0..size {
                let (mut dialler, mut accepted) = (Tunnel::dial(one.clone(), Some(9)), Tunnel::accept(other.clone()));
                let (mut plain, mut failed) = (Vec::new(), false);
                for (nth, &length) in sizes[..=message].iter().enumerate() {
                    let (from, to) =
                        if nth % 2 == 0 { (&mut dialler, &mut accepted) } else { (&mut accepted, &mut dialler) };
                    let mut bytes = from.take_replies();
                    assert_eq!(bytes.len(), length);
                    if nth == message {
                        bytes[at] ^= 1;
                        failed = to.take(&bytes, &mut plain).is_err() && !to.is_open();
                    } else {
                        to.take(&bytes, &mut plain).unwrap();
                    }
                }
                // Versions of which one is spoken are read in clear, and bound by the prologue like the rest.
                assert!(failed, "message {message}, byte {at}");
            }
        }
    }

    #[test]
    fn a_first_message_that_is_played_again_leads_nowhere() {
        let (one, other) = (credentials(&[1]), credentials(&[1]));
        let (mut dialler, mut accepted) = (Tunnel::dial(one, Some(9)), Tunnel::accept(other.clone()));
        let (mut plain, first) = (Vec::new(), dialler.take_replies());
        accepted.take(&first, &mut plain).unwrap();
        dialler.take(&accepted.take_replies(), &mut plain).unwrap();
        let third = dialler.take_replies();
        accepted.take(&third, &mut plain).unwrap();
        let mut sealed = Vec::new();
        dialler.seal(b"hello", &mut sealed);

        let mut again = Tunnel::accept(other);
        again.take(&first, &mut plain).unwrap();
        assert!(!again.is_open() && again.peer().is_none());
        assert_eq!(again.take(&third, &mut plain), Err(Stranger::Key));
        assert_eq!(again.take(&sealed, &mut plain), Err(Stranger::Record));
        assert!(plain.is_empty());
    }

    #[test]
    fn a_record_that_was_changed_left_out_or_played_again_ends_it() {
        let records = || {
            let (mut dialler, accepted) = opened(1_000);
            let mut sealed = [Vec::new(), Vec::new()];
            for record in &mut sealed {
                dialler.seal(b"hello", record);
            }
            (sealed, accepted)
        };
        let mut plain = Vec::new();
        let ([mut record, _], mut accepted) = records();
        record[5] ^= 1;
        assert_eq!(accepted.take(&record, &mut plain), Err(Stranger::Record));
        let ([_, second], mut accepted) = records();
        assert_eq!(accepted.take(&second, &mut plain), Err(Stranger::Record));
        let ([first, _], mut accepted) = records();
        assert_eq!(accepted.take(&[0, 15], &mut plain), Err(Stranger::Record));
        assert!(plain.is_empty());
        let (_, mut another) = opened(1_000);
        assert_eq!(another.take(&first, &mut plain), Err(Stranger::Record));
        assert!(plain.is_empty());
    }
}
