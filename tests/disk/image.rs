//! What is on a disk after a power cut, from a log of what was written to it (`log_writes.c`).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The least that a disk writes in one piece.
const SECTOR_BYTES: u64 = 512;
const HEAD_BYTES: usize = 16;

/// Something that a node did to a file.
pub struct Record {
    kind: u8,
    path: String,
    offset: u64,
    data: Vec<u8>,
    /// Where the log goes on after it.
    pub end: u64,
}

impl Record {
    /// Whether it made a file safe whose name ends so.
    pub fn is_sync_of(&self, ending: &str) -> bool {
        self.kind == b'S' && self.path.ends_with(ending)
    }
}

/// The library to preload, built into `dir`.
pub fn preload(dir: &Path) -> String {
    let library = dir.join("log_writes.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/disk/log_writes.c");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(source)
        .args(["-ldl", "-lpthread"]);
    assert!(cc.status().expect("a C compiler").success(), "the library is built");
    library.to_str().expect("UTF-8").to_owned()
}

/// Reads a log as far as it is whole.
pub fn read(log: &Path) -> Vec<Record> {
    let bytes = fs::read(log).expect("a log");
    let mut records = Vec::new();
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
        let path_bytes = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let data_bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let offset = u64::from_le_bytes(head[8..].try_into().expect("8 bytes"));
        let path_end = at + HEAD_BYTES + path_bytes;
        let Some(data) = bytes.get(path_end..path_end + data_bytes) else { break };
        let path = String::from_utf8(bytes[at + HEAD_BYTES..path_end].to_vec()).expect("UTF-8");
        let kind = head[0];
        at = path_end + data_bytes;
        records.push(Record { kind, path, offset, data: data.to_vec(), end: at as u64 });
    }
    records
}

#[derive(Default)]
struct File<'a> {
    safe: Vec<u8>,
    is_safe: bool,
    waiting: Vec<&'a Record>,
}

/// Writes to `to` what a disk may have that lost power after these records: whatever was made safe, and of the rest any
/// sectors. `chance` draws from below a number.
pub fn crash(records: &[Record], to: &Path, mut chance: impl FnMut(u64) -> u64) {
    let mut files: BTreeMap<&str, File<'_>> = BTreeMap::new();
    for record in records {
        let file = files.entry(&record.path).or_default();
        match record.kind {
            b'W' | b'T' => file.waiting.push(record),
            b'S' => {
                for record in std::mem::take(&mut file.waiting) {
                    apply(&mut file.safe, record, |_| true);
                }
                file.is_safe = true;
            }
            b'U' => drop(files.remove(record.path.as_str())),
            _ => {}
        }
    }
    // How much of it got there: nothing, all, or some.
    let of_four = [0, 1, 2, 4][usize::try_from(chance(4)).expect("small")];
    for (path, mut file) in files {
        if !file.is_safe && chance(2) == 0 {
            continue;
        }
        for record in file.waiting {
            apply(&mut file.safe, record, |_| chance(4) < of_four);
        }
        let name = Path::new(path).file_name().expect("a file");
        fs::write(to.join(name), &file.safe).expect("a file of the image");
    }
}

fn apply(file: &mut Vec<u8>, record: &Record, mut is_there: impl FnMut(u64) -> bool) {
    let resize = |file: &mut Vec<u8>, len: u64| file.resize(usize::try_from(len).expect("in memory"), 0);
    if record.kind == b'T' {
        if is_there(0) {
            resize(file, record.offset);
        }
        return;
    }
    let end = record.offset + record.data.len() as u64;
    let mut from = record.offset;
    while from < end {
        let to = ((from / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        if is_there(from) {
            resize(file, to.max(file.len() as u64));
            let of = |at: u64| usize::try_from(at - record.offset).expect("in memory");
            let place = usize::try_from(from).expect("in memory")..usize::try_from(to).expect("in memory");
            file[place].copy_from_slice(&record.data[of(from)..of(to)]);
        }
        from = to;
    }
}
