//! The file itself: what it is made of, and how it is opened.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

/// Marks the file as one of ours, for `file` and for us.
const APPLICATION_ID: i32 = 0x6368_6b76;
/// Of the tables. A file of a newer one is refused, one of an older one is brought up to date.
const FORMAT: i32 = 2;
/// Small pages, as little more than a record changes at a time, and each changed page is written twice.
pub(super) const PAGE_BYTES: u32 = 1_024;
/// Pages in the log before they are put where they belong.
const CHECKPOINT_PAGES: u32 = 1_000;
/// What the writer keeps of the file in memory, and what a reader does.
const CACHE_KIB: [u32; 2] = [1_024, 512];

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    place INTEGER NOT NULL, key BLOB NOT NULL,
    epoch INTEGER NOT NULL, n INTEGER NOT NULL, node INTEGER NOT NULL,
    modified INTEGER NOT NULL, expires INTEGER, type TEXT, value BLOB NOT NULL, sum INTEGER NOT NULL, vote BLOB,
    PRIMARY KEY (place, key)
) WITHOUT ROWID;
CREATE TABLE nodes (number INTEGER PRIMARY KEY, incarnation BLOB NOT NULL UNIQUE);
CREATE INDEX by_expiry ON records (expires) WHERE expires IS NOT NULL;
CREATE TABLE keys (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE slots (slot INTEGER PRIMARY KEY, views TEXT NOT NULL);
";

/// Brings a file of format 1 up to date.
const FROM_1: &str = "
BEGIN;
ALTER TABLE records ADD COLUMN vote BLOB;
CREATE TABLE slots (slot INTEGER PRIMARY KEY, views TEXT NOT NULL);
PRAGMA user_version = 2;
COMMIT;";
/// When what is written is safe from a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// Before it is acknowledged.
    EachCommit,
    /// When the owner of the file says so, and when the log is put where it belongs.
    Told,
    /// Whenever the system likes.
    Never,
}

/// Why a file cannot be used, in words.
pub type Unusable = String;

/// Opens the file, made if it is missing, for writing.
pub fn open(path: &Path, syncs: Syncs) -> Result<Connection, Unusable> {
    // Its values and the node's key are for this user only. What SQLite puts beside it gets the same mode.
    let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error.to_string());
    }
    let connection = Connection::open(path).map_err(|error| error.to_string())?;
    prepare(&connection, syncs).map_err(|error| error.to_string())??;
    Ok(connection)
}

/// Another connection to a file that is open for writing.
pub(super) fn open_reader(path: &Path) -> Result<Connection, Unusable> {
    let open = || {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB[1]))?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| error.to_string())
}

/// Puts the log where it belongs.
pub(super) fn checkpoint(connection: &Connection) -> Result<(), Unusable> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(|error| error.to_string())
}

fn prepare(connection: &Connection, syncs: Syncs) -> rusqlite::Result<Result<(), Unusable>> {
    let format: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let is_new: bool = connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
    if !is_new && application != APPLICATION_ID {
        return Ok(Err("it is no store of chordkv".to_owned()));
    }
    if format > FORMAT {
        return Ok(Err(format!(
            "it is of format {format}, and this program knows formats up to {FORMAT}: use a newer one"
        )));
    }
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match syncs {
        Syncs::EachCommit => "FULL",
        Syncs::Told => "NORMAL",
        Syncs::Never => "OFF",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB[0]))?;
    connection.set_prepared_statement_cache_capacity(32);
    if is_new {
        let tables = format!(
            "BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;"
        );
        connection.execute_batch(&tables)?;
    } else if format == 1 {
        connection.execute_batch(FROM_1)?;
    }
    Ok(Ok(()))
}
