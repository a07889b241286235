//! What stands in single rows, and what may be wrong with it.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, Row};

use crate::data::{Key, Record, Trouble};

/// What the checksum of a row is over: everything but where it is.
pub(super) fn checksum(key: &Key, record: Option<&Record>, vote: Option<&[u8]>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    match record {
        Some(record) => add_record(&mut hasher, key, record),
        None => hasher.update(key.as_bytes()),
    }
    // Nothing of a row that says nothing, as in files of format 1.
    hasher.update(vote.unwrap_or_default());
    hasher.finalize()
}

fn add_record(hasher: &mut crc32fast::Hasher, key: &Key, record: &Record) {
    let Record { value, content_type, version, modified, expires } = record;
    let lengths = [key.as_bytes().len(), value.len(), content_type.as_ref().map_or(usize::MAX, |text| text.len())];
    for length in lengths {
        hasher.update(&(length as u64).to_le_bytes());
    }
    hasher.update(key.as_bytes());
    hasher.update(content_type.as_deref().unwrap_or_default().as_bytes());
    for number in [version.epoch, version.n, modified.0, expires.map_or(u64::MAX, |at| at.0)] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(&{ version.node.0 }.to_le_bytes());
    hasher.update(value);
}

pub(super) fn key_at(row: &Row<'_>, at: usize) -> Result<Key, Trouble> {
    let Ok(ValueRef::Blob(bytes)) = row.get_ref(at) else {
        return Err(Trouble::Broken("the index of keys is damaged".to_owned()));
    };
    Key::new(bytes).map_err(|error| Trouble::Broken(format!("the index of keys is damaged: {error}")))
}

#[allow(clippy::needless_pass_by_value)] // For map_err.
pub(super) fn trouble(error: rusqlite::Error) -> Trouble {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Trouble::Full("the disk is full".to_owned()),
        _ => Trouble::Broken(error.to_string()),
    }
}

/// Whether there are any records.
pub(super) fn has_records(connection: &Connection) -> Result<bool, Trouble> {
    connection.query_row("SELECT EXISTS (SELECT 1 FROM records)", [], |row| row.get(0)).map_err(trouble)
}
