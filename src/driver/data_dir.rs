//! The data directory: what a node keeps beyond its process. Today that is the ring it is in and members of it, in
//! `ring.json`, so that it comes back though every seed is dead; keys are in memory.
//!
//! The file is written whole beside its place, synced and then renamed: a crash leaves the old one or the new one. A thread
//! of its own does so, as a disk may take its time and the loop has none.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::settings::RunError;
use crate::base::{Contact, Incarnation};
use crate::node::{Memory, RingParams};

/// A data directory that this process alone uses.
#[derive(Debug)]
pub(super) struct DataDir {
    // Given up by the system when the process ends, however it ends.
    _lock: File,
    writer: Option<(Sender<Memory>, JoinHandle<()>)>,
}

/// As it stands in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
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

const VERSION: u32 = 1;
const LOCK: &str = "lock";
const RING: &str = "ring.json";

impl DataDir {
    /// Takes the directory, made if it is missing, and what is remembered there.
    pub fn open(dir: &Path) -> Result<(Self, Option<Memory>), RunError> {
        let fail = |text: String| RunError { message: format!("--data-dir {}: {text}", dir.display()) };
        let unusable = |error: io::Error| fail(format!("{error}; name a directory that this user may write to"));
        fs::create_dir_all(dir).map_err(unusable)?;
        let lock = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK)).map_err(unusable)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => fail("another process uses it; give every node a directory of its own".to_owned()),
            other => unusable(other.into()),
        })?;
        let path = dir.join(RING);
        let memory = match fs::read(&path) {
            Ok(bytes) => Some(read(&bytes).map_err(|why| {
                fail(format!("{RING} cannot be used ({why}); restore it, or remove it and name a member with --join"))
            })?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unusable(error)),
        };
        let (sender, receiver) = unbounded();
        let write = move || write_all(&path, &receiver);
        let thread = Builder::new().name("data-dir".to_owned()).spawn(write).map_err(unusable)?;
        Ok((Self { _lock: lock, writer: Some((sender, thread)) }, memory))
    }

    /// Keeps `memory` in place of what was kept before, soon.
    pub fn remember(&self, memory: Memory) {
        if let Some((sender, _)) = &self.writer {
            // Fails only once the thread is gone, and it goes last.
            let _ = sender.send(memory);
        }
    }
}

impl Drop for DataDir {
    /// Waits until everything is written.
    fn drop(&mut self) {
        if let Some((sender, thread)) = self.writer.take() {
            drop(sender);
            let _ = thread.join();
        }
    }
}

fn write_all(path: &Path, memories: &Receiver<Memory>) {
    while let Ok(memory) = memories.recv() {
        // Only the latest counts.
        let memory = memories.try_iter().last().unwrap_or(memory);
        if let Err(error) = write(path, &memory) {
            warn!("the ring cannot be remembered in {}: {error}", path.display());
        }
    }
}

fn write(path: &Path, memory: &Memory) -> io::Result<()> {
    let Memory { params, contacts } = memory;
    let member = |contact: &Contact| KeptMember { address: contact.addr, incarnation: contact.incarnation.to_string() };
    let kept = Kept {
        version: VERSION,
        ring: format!("{:032x}", params.ring),
        capacity: params.space.capacity().bits(),
        slot_bits: params.space.slot_bits(),
        successors: params.successors,
        replicas: params.replicas,
        max_value: params.value_bytes_max,
        members: contacts.iter().map(member).collect(),
    };
    let beside: PathBuf = path.with_extension("json.new");
    let mut file = File::create(&beside)?;
    serde_json::to_writer_pretty(&mut file, &kept)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn read(bytes: &[u8]) -> Result<Memory, String> {
    let kept: Kept = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if kept.version != VERSION {
        return Err(format!("it is of version {}, and this program knows version {VERSION}", kept.version));
    }
    let hex = |text: &str| u128::from_str_radix(text, 16).map_err(|error| format!("{text:?}: {error}"));
    let Kept { capacity, slot_bits, successors, replicas, max_value, .. } = kept;
    let params = RingParams::checked(hex(&kept.ring)?, capacity, slot_bits, successors, replicas, max_value)?;
    let contact = |member: &KeptMember| {
        hex(&member.incarnation).map(|who| Contact::new(params.space.capacity(), member.address, Incarnation(who)))
    };
    let contacts = kept.members.iter().map(contact).collect::<Result<_, _>>()?;
    Ok(Memory { params, contacts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Wishes;

    fn memory(members: u16) -> Memory {
        let params = RingParams::create(7 << 100, &Wishes { capacity: Some(40), ..Wishes::default() }).unwrap();
        let contact = |port| {
            Contact::new(params.space.capacity(), ([10, 0, 0, 1], port).into(), Incarnation(u128::from(port) << 90))
        };
        Memory { params, contacts: (1..=members).map(contact).collect() }
    }

    #[test]
    fn what_is_remembered_last_is_there_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("a/b");
        let (opened, before) = DataDir::open(&dir).unwrap();
        assert_eq!(before, None);
        (1..=20).for_each(|members| opened.remember(memory(members)));
        drop(opened);
        let (_opened, after) = DataDir::open(&dir).unwrap();
        assert_eq!(after, Some(memory(20)));
    }

    #[test]
    fn a_directory_in_use_or_that_cannot_be_one_and_a_damaged_file_are_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let said = |dir: &Path| DataDir::open(dir).map(|_| ()).unwrap_err().message;
        let opened = DataDir::open(dir.path()).unwrap();
        assert!(said(dir.path()).contains("another process uses it"));
        opened.0.remember(memory(1));
        drop(opened);
        let file = dir.path().join(RING);
        let text = fs::read_to_string(&file).unwrap();
        for (from, to) in [("{", "["), ("\"version\": 1", "\"version\": 2"), ("\"capacity\": 40", "\"capacity\": 400")]
        {
            assert!(text.contains(from), "{text}");
            fs::write(&file, text.replacen(from, to, 1)).unwrap();
            let said = said(dir.path());
            assert!(said.contains("ring.json cannot be used") && said.contains("--join"), "{said}");
        }
        assert!(said(&file).contains("name a directory"), "{}", said(&file));
    }
}
