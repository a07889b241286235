//! The ring key, which guards a ring, and a node's own key, which says who it is.
//!
//! A node's incarnation is a digest of the public half of its own key: whoever shows in the handshake of `tunnel` that it
//! has the private half is the node of that incarnation, and nobody else can be.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use snow::params::{DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};

use super::secret_file;
use crate::base::Incarnation;

/// Bytes of every key here.
pub const KEY_BYTES: usize = 32;

/// The keys of one ring: the first is what this node dials with, all of them are accepted.
#[derive(Clone, PartialEq, Eq)]
pub struct RingKeys(Vec<[u8; KEY_BYTES]>);

/// A node's own key.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    secret: [u8; KEY_BYTES],
}

/// During a rotation there is the old one and the new one.
const KEYS_MAX: usize = 2;
/// Of the file: two keys and some words about them.
const FILE_BYTES_MAX: u64 = 4_096;
/// So that no other digest of the same bytes means the same.
const INCARNATION_CONTEXT: &[u8] = b"chordkv incarnation 1";

impl RingKeys {
    /// Reads a file of one or two keys, base64 of 32 bytes, one a line; `#` begins a comment. The error says what to do.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = secret_file::read(path, FILE_BYTES_MAX)?;
        Self::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// What a key file says.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).enumerate();
        let said = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let mut keys = Vec::new();
        for (nth, line) in said {
            // The text itself is never told: it may be a key with a typing error.
            let bytes = STANDARD.decode(line).ok().and_then(|bytes| <[u8; KEY_BYTES]>::try_from(bytes).ok());
            let key = bytes.ok_or_else(|| {
                format!("line {} is no ring key: it is base64 of 32 random bytes, as chordkv keygen makes it", nth + 1)
            })?;
            keys.push(key);
        }
        match keys.len() {
            1..=KEYS_MAX => Ok(Self(keys)),
            0 => Err("there is no key in it; chordkv keygen makes one".to_owned()),
            n => Err(format!("there are {n} keys in it: the one in use, and during a rotation one more, are enough")),
        }
    }

    /// Draws a new key and writes it to a file that is not there yet, for its owner only.
    pub fn create(path: &Path) -> io::Result<()> {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key).map_err(io::Error::other)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        writeln!(file, "{}", STANDARD.encode(key))?;
        file.sync_all()
    }

    /// How many there are: two during a rotation.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn first(&self) -> &[u8; KEY_BYTES] {
        // Never empty, see `parse`.
        &self.0[0]
    }

    pub(super) fn all(&self) -> &[[u8; KEY_BYTES]] {
        &self.0
    }
}

impl fmt::Debug for RingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Identity {
    /// Draws a new one.
    pub fn draw() -> Result<Self, String> {
        let mut secret = [0; KEY_BYTES];
        getrandom::fill(&mut secret).map_err(|error| format!("the system gives no random numbers: {error}"))?;
        Ok(Self { secret })
    }

    /// As it was written down.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let secret = <[u8; KEY_BYTES]>::try_from(STANDARD.decode(text).ok()?).ok()?;
        Some(Self { secret })
    }

    /// To write down where nobody else reads.
    pub(super) fn to_text(&self) -> String {
        STANDARD.encode(self.secret)
    }

    pub(super) fn secret(&self) -> &[u8; KEY_BYTES] {
        &self.secret
    }

    /// Who has this key.
    pub fn incarnation(&self) -> Incarnation {
        // Both are compiled in, by the features of snow that this crate asks for.
        let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("X25519 is compiled in");
        dh.set(&self.secret);
        incarnation_of(dh.pubkey())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the key of {}", self.incarnation())
    }
}

/// Who has the private half of this public key.
pub(super) fn incarnation_of(public: &[u8]) -> Incarnation {
    let mut hash = DefaultResolver.resolve_hash(&HashChoice::Blake2s).expect("BLAKE2s is compiled in");
    let mut digest = [0; KEY_BYTES];
    hash.input(INCARNATION_CONTEXT);
    hash.input(public);
    hash.result(&mut digest);
    let (half, _) = digest.split_first_chunk().expect("128 of 256 bits");
    Incarnation(u128::from_be_bytes(*half))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn a_key_is_made_for_its_owner_only_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring.key");
        RingKeys::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let keys = RingKeys::load(&path).unwrap();
        assert_eq!(keys.all().len(), 1);
        assert_eq!(RingKeys::create(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(RingKeys::load(&path).unwrap(), keys);
        let other = dir.path().join("other.key");
        RingKeys::create(&other).unwrap();
        assert_ne!(RingKeys::load(&other).unwrap(), keys);
    }

    #[test]
    fn a_file_that_others_may_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring.key");
        RingKeys::create(&path).unwrap();
        for (mode, is_fine) in
            [(0o604, false), (0o602, false), (0o644, false), (0o660, false), (0o640, true), (0o400, true)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let loaded = RingKeys::load(&path);
            assert_eq!(loaded.is_ok(), is_fine, "{mode:o}: {loaded:?}");
            assert!(is_fine || loaded.unwrap_err().contains("chmod 600"));
        }
    }

    #[test]
    fn one_or_two_keys_and_nothing_else_are_a_ring_key() {
        let key = STANDARD.encode([7; KEY_BYTES]);
        let other = STANDARD.encode([8; KEY_BYTES]);
        assert_eq!(RingKeys::parse(&format!("# old\n{key}\n\n  {other}\r\n")).unwrap().all().len(), 2);
        let cases = [
            (String::new(), "there is no key"),
            ("# nothing".to_owned(), "there is no key"),
            (STANDARD.encode([7; 31]), "line 1 is no ring key"),
            (format!("{key}\npassword"), "line 2 is no ring key"),
            (format!("{key}\n{key}\n{key}"), "there are 3 keys"),
        ];
        for (text, says) in cases {
            let said = RingKeys::parse(&text).unwrap_err();
            assert!(said.contains(says) && !said.contains("password"), "{said}");
        }
        assert_eq!(format!("{:?}", RingKeys::parse(&key)), "Ok(1 keys)");
    }

    #[test]
    fn who_a_node_is_follows_from_its_key() {
        let identity = Identity::draw().unwrap();
        let read = Identity::from_text(&identity.to_text()).unwrap();
        assert_eq!(read.incarnation(), identity.incarnation());
        assert_ne!(Identity::draw().unwrap().incarnation(), identity.incarnation());
        // Stands in data directories: another digest would make every node another one.
        let known = Identity { secret: [1; KEY_BYTES] };
        assert_eq!(known.incarnation().to_string(), "1f763db2cd4b76aaf9d1ff359595281e");
        assert!(!format!("{known:?}").contains(&known.to_text()));
    }
}
