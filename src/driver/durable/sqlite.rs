//! A [`Store`] in one `SQLite` file: anybody can open it with the sqlite3 shell.
//!
//! `SQLite` notices no flipped bit by itself, so each record carries a checksum over all that it says. Rows are kept short,
//! as a change costs the pages that it touches: the place of a record is the top of its key's id (the slot is the top of
//! that), and who gave out its version is a number.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, InterruptHandle, OpenFlags, OptionalExtension, Row, params};

use super::rows::{checksum, key_at, read_hold, trouble};
use crate::base::{Id, Incarnation, Wall};
use crate::data::{
    Chunk, Cursor, HoldRow, Item, Key, KeySpace, ListQuery, Page, Place, Record, Slot, Store, Trouble, Usage, Version,
};

/// Marks the file as one of ours, for `file` and for us.
const APPLICATION_ID: i32 = 0x6368_6b76;
/// Of the tables. A file of a newer one is refused, one of an older one is brought up to date.
const FORMAT: i32 = 1;
/// Small pages, as little more than a record changes at a time, and each changed page is written twice.
const PAGE_BYTES: u32 = 1_024;
/// Pages in the log before they are put where they belong.
const CHECKPOINT_PAGES: u32 = 1_000;
/// Bits of an id that the place of a record has: as many as a number of `SQLite` that is not negative.
const PLACE_BITS: u32 = 63;
/// What the writer keeps of the file in memory, and what a reader does.
const CACHE_KIB: [u32; 2] = [1_024, 512];

const TABLES: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    place INTEGER NOT NULL, key BLOB NOT NULL,
    epoch INTEGER NOT NULL, n INTEGER NOT NULL, node INTEGER NOT NULL,
    modified INTEGER NOT NULL, expires INTEGER, type TEXT, value BLOB NOT NULL, sum INTEGER NOT NULL,
    PRIMARY KEY (place, key)
) WITHOUT ROWID;
CREATE TABLE nodes (number INTEGER PRIMARY KEY, incarnation BLOB NOT NULL UNIQUE);
CREATE INDEX by_expiry ON records (expires) WHERE expires IS NOT NULL;
CREATE TABLE keys (key BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE holds (
    slot INTEGER PRIMARY KEY, epoch INTEGER NOT NULL,
    taken_from BLOB, taken_epoch INTEGER, frozen_for BLOB, frozen_at TEXT
);
";

const GET: &str =
    "SELECT epoch, n, node, modified, expires, type, value, sum FROM records WHERE place = ?1 AND key = ?2";
const SCAN: &str = "SELECT epoch, n, node, modified, expires, type, value, sum, key FROM records \
                    WHERE place BETWEEN ?1 AND ?2 ORDER BY place, key";
const SCAN_ON: &str = "SELECT epoch, n, node, modified, expires, type, value, sum, key FROM records \
                       WHERE (place, key) > (?1, ?3) AND place <= ?2 ORDER BY place, key";
const INSERT: &str = "INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const UPDATE: &str = "UPDATE records SET epoch = ?3, n = ?4, node = ?5, modified = ?6, expires = ?7, type = ?8, \
                      value = ?9, sum = ?10 WHERE place = ?1 AND key = ?2";

/// See the module.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    space: KeySpace,
    // Below zero while what was there at the start is not counted.
    usage: Signed,
    // What was found where a command looked last: it is about to write there.
    latest: RefCell<Option<(Place, Option<u64>)>>,
    // What is in the table of nodes, as far as it was needed.
    nodes: RefCell<BTreeMap<Incarnation, i64>>,
}

/// Keys and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    keys: i64,
    bytes: i64,
}

impl Signed {
    fn add(&mut self, keys: i64, bytes: i64) {
        self.keys += keys;
        self.bytes += bytes;
    }
}

/// A file of more bytes is counted while it is used already.
const COUNTED_AT_ONCE: u64 = 4 * 1_024 * 1_024;

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
    }
    Ok(Ok(()))
}

impl SqliteStore {
    /// Over an open file. How much is in a large one, it has to be told: see [`SqliteStore::must_be_told`].
    pub fn new(connection: Connection, space: KeySpace) -> Result<Self, Trouble> {
        let mut store = Self::uncounted(connection, space);
        if !store.must_be_told()? {
            let there = store.count(None)?;
            store.told(there);
        }
        Ok(store)
    }

    /// For reading: it does not know how much there is.
    pub(super) fn uncounted(connection: Connection, space: KeySpace) -> Self {
        Self { connection, space, usage: Signed::default(), latest: RefCell::new(None), nodes: RefCell::default() }
    }

    /// Whether counting takes so long that it is done beside the work.
    pub fn must_be_told(&self) -> Result<bool, Trouble> {
        Ok(self.file_bytes()?.0 > COUNTED_AT_ONCE)
    }

    /// What this connection sees from now on stays as it is at this moment; for [`SqliteStore::count_all`].
    pub(super) fn hold_still(&self) -> Result<(), Trouble> {
        self.connection.execute_batch("BEGIN; SELECT 1 FROM records LIMIT 1").map_err(trouble)
    }

    /// Ends what this connection is about, from another thread.
    pub(super) fn interrupt_handle(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    /// How much there is.
    pub(super) fn count_all(&self) -> Result<Usage, Trouble> {
        self.count(None)
    }

    /// So much was there at the start.
    pub(super) fn told(&mut self, there: Usage) {
        self.usage.add(there.keys.cast_signed(), there.bytes.cast_signed());
    }

    /// To go back to by [`SqliteStore::roll_back`].
    pub(super) fn mark(&self) -> Signed {
        self.usage
    }

    /// What follows is done as one.
    pub fn begin(&mut self) -> Result<(), Trouble> {
        self.latest.replace(None);
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(trouble)
    }

    /// All since [`SqliteStore::begin`] is done.
    pub fn commit(&mut self) -> Result<(), Trouble> {
        self.connection.execute_batch("COMMIT").map_err(trouble)
    }

    /// Nothing since [`SqliteStore::begin`] is done. `usage` is the mark of that moment.
    pub(super) fn roll_back(&mut self, usage: Signed) {
        self.latest.replace(None);
        self.nodes.replace(BTreeMap::new());
        self.usage = usage;
        // After some errors SQLite has done so already, and says that there is nothing to roll back.
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// A value of the meta table.
    pub(super) fn meta(connection: &Connection, name: &str) -> Result<Option<String>, Trouble> {
        let get = "SELECT value FROM meta WHERE name = ?1";
        connection.query_row(get, [name], |row| row.get(0)).optional().map_err(trouble)
    }

    /// The same of this store.
    pub(super) fn recall(&self, name: &str) -> Result<Option<String>, Trouble> {
        Self::meta(&self.connection, name)
    }

    /// Sets a value of the meta table.
    pub(super) fn set_meta(connection: &Connection, name: &str, value: &str) -> Result<(), Trouble> {
        let set = "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value";
        connection.execute(set, [name, value]).map(drop).map_err(trouble)
    }

    /// Sets a value of the meta table, as part of what was begun, if anything was.
    pub(super) fn remember(&mut self, name: &str, value: &str) -> Result<(), Trouble> {
        Self::set_meta(&self.connection, name, value)
    }

    /// Bytes of the file that are in use, and bytes that are free in it.
    pub(super) fn file_bytes(&self) -> Result<(u64, u64), Trouble> {
        let pages = |name: &str| -> rusqlite::Result<u64> {
            self.connection
                .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
                .map(|n| n.try_into().unwrap_or(0))
        };
        let both = || {
            let (all, free) = (pages("page_count")?, pages("freelist_count")?);
            Ok((all.saturating_sub(free) * u64::from(PAGE_BYTES), free * u64::from(PAGE_BYTES)))
        };
        both().map_err(trouble)
    }

    fn count(&self, slot: Option<Slot>) -> Result<Usage, Trouble> {
        let count = |row: &Row<'_>| {
            let (keys, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(Usage { keys: keys.cast_unsigned(), bytes: bytes.cast_unsigned() })
        };
        let sums = "count(*), ifnull(sum(length(key) + length(value) + ifnull(octet_length(type), 0)), 0)";
        let counted = match slot {
            None => self.connection.query_row(&format!("SELECT {sums} FROM records"), [], count),
            Some(slot) => {
                let of_slot = format!("SELECT {sums} FROM records WHERE place BETWEEN ?1 AND ?2");
                self.connection.query_row(&of_slot, self.places(slot), count)
            }
        };
        counted.map_err(trouble)
    }

    /// Where records of this id stand: its top 63 bits.
    fn place(&self, id: Id) -> i64 {
        let (high, low) = id.parts();
        let bits = self.space.capacity().bits();
        let top = match bits.checked_sub(PLACE_BITS) {
            None => low << (PLACE_BITS - bits),
            Some(below) => low >> below | u128::from(high).checked_shl(128 - below).unwrap_or(0),
        };
        i64::try_from(top & u128::from(u64::MAX >> 1)).unwrap_or(i64::MAX)
    }

    /// The first and the last place of a slot.
    fn places(&self, slot: Slot) -> [i64; 2] {
        let bits = PLACE_BITS - self.space.slot_bits();
        let [first, next] = [slot.0, slot.0 + 1].map(|slot| u64::from(slot) << bits);
        [first.cast_signed(), (next - 1).cast_signed()]
    }

    /// The number that stands for a node; a new one if it has none.
    fn number_of(&self, node: Incarnation) -> Result<i64, Trouble> {
        if let Some(number) = self.nodes.borrow().get(&node) {
            return Ok(*number);
        }
        let bytes = { node.0 }.to_be_bytes();
        let get = || {
            self.connection.execute("INSERT OR IGNORE INTO nodes (incarnation) VALUES (?1)", [bytes])?;
            self.connection.query_row("SELECT number FROM nodes WHERE incarnation = ?1", [bytes], |row| row.get(0))
        };
        let number = get().map_err(trouble)?;
        self.nodes.borrow_mut().insert(node, number);
        Ok(number)
    }

    fn node_of(&self, number: i64) -> rusqlite::Result<Incarnation> {
        if let Some((node, _)) = self.nodes.borrow().iter().find(|(_, known)| **known == number) {
            return Ok(*node);
        }
        let mut statement = self.connection.prepare_cached("SELECT incarnation FROM nodes WHERE number = ?1")?;
        let node =
            statement.query_row([number], |row| row.get(0)).map(|bytes| Incarnation(u128::from_be_bytes(bytes)))?;
        self.nodes.borrow_mut().insert(node, number);
        Ok(node)
    }

    /// Of the columns of [`GET`].
    fn read_record(&self, key: &Key, row: &Row<'_>) -> Result<Record, Trouble> {
        // Whatever has another type than it was written with is damaged, too.
        let damaged = |_| Trouble::Damaged(key.clone());
        let read = || -> rusqlite::Result<(Record, i32)> {
            let content_type: Option<String> = row.get(5)?;
            let value = row.get_ref(6)?.as_blob()?;
            let record = Record {
                value: value.into(),
                content_type: content_type.map(Into::into),
                version: self.read_version(row)?,
                modified: Wall(row.get::<_, i64>(3)?.cast_unsigned()),
                expires: row.get::<_, Option<i64>>(4)?.map(|at| Wall(at.cast_unsigned())),
            };
            Ok((record, row.get(7)?))
        };
        let (record, sum) = read().map_err(damaged)?;
        if checksum(key, &record).cast_signed() == sum { Ok(record) } else { Err(Trouble::Damaged(key.clone())) }
    }

    fn read_version(&self, row: &Row<'_>) -> rusqlite::Result<Version> {
        let (epoch, n): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(Version { epoch: epoch.cast_unsigned(), round: 0, n: n.cast_unsigned(), node: self.node_of(row.get(2)?)? })
    }

    fn read_item(&self, key: &Key, row: &Row<'_>) -> Result<Item, Trouble> {
        let read = || -> rusqlite::Result<Item> {
            Ok(Item {
                key: key.clone(),
                version: self.read_version(row)?,
                expires: row.get::<_, Option<i64>>(3)?.map(|at| Wall(at.cast_unsigned())),
                content_type: row.get::<_, Option<String>>(4)?.map(Into::into),
                size: row.get::<_, i64>(5)?.cast_unsigned(),
            })
        };
        read().map_err(|_| Trouble::Damaged(key.clone()))
    }

    /// User bytes of what is at `place`, its key included; `None` if nothing is.
    fn size_at(&self, place: &Place) -> Result<Option<u64>, Trouble> {
        if let Some((at, size)) = &*self.latest.borrow()
            && at == place
        {
            return Ok(*size);
        }
        let size = "SELECT length(key) + length(value) + ifnull(octet_length(type), 0) FROM records \
                    WHERE place = ?1 AND key = ?2";
        let get = || {
            let mut statement = self.connection.prepare_cached(size)?;
            let at = params![self.place(place.id), place.key.as_bytes()];
            statement.query_row(at, |row| row.get::<_, i64>(0)).optional()
        };
        get().map(|size| size.map(i64::cast_unsigned)).map_err(trouble)
    }
}

fn size_of(key: &Key, record: &Record) -> u64 {
    (key.as_bytes().len() + record.user_bytes()) as u64
}

impl Store for SqliteStore {
    fn space(&self) -> KeySpace {
        self.space
    }

    fn get(&self, place: &Place) -> Result<Option<Record>, Trouble> {
        let at = params![self.place(place.id), place.key.as_bytes()];
        let get = || {
            let mut statement = self.connection.prepare_cached(GET)?;
            statement.query_row(at, |row| Ok(self.read_record(&place.key, row))).optional()
        };
        let record = get().map_err(trouble)?.transpose()?;
        self.latest.replace(Some((place.clone(), record.as_ref().map(|record| size_of(&place.key, record)))));
        Ok(record)
    }

    fn put(&mut self, place: Place, record: Record) -> Result<(), Trouble> {
        let before = self.size_at(&place)?;
        self.latest.replace(None);
        let Record { value, content_type, version, modified, expires } = &record;
        let node = self.number_of(version.node)?;
        let put = || {
            // What is there is overwritten in its place, and most often is as long as before.
            let mut statement = self.connection.prepare_cached(if before.is_some() { UPDATE } else { INSERT })?;
            statement.execute(params![
                self.place(place.id),
                place.key.as_bytes(),
                version.epoch.cast_signed(),
                version.n.cast_signed(),
                node,
                modified.0.cast_signed(),
                expires.map(|at| at.0.cast_signed()),
                content_type.as_deref(),
                &value[..],
                checksum(&place.key, &record).cast_signed(),
            ])?;
            if before.is_none() {
                let mut statement = self.connection.prepare_cached("INSERT OR IGNORE INTO keys VALUES (?1)")?;
                statement.execute([place.key.as_bytes()])?;
            }
            Ok(())
        };
        put().map_err(trouble)?;
        let bytes = size_of(&place.key, &record).cast_signed() - before.unwrap_or(0).cast_signed();
        self.usage.add(i64::from(before.is_none()), bytes);
        Ok(())
    }

    fn remove(&mut self, place: &Place) -> Result<(), Trouble> {
        let Some(before) = self.size_at(place)? else { return Ok(()) };
        self.latest.replace(None);
        let remove = || {
            let mut statement = self.connection.prepare_cached("DELETE FROM records WHERE place = ?1 AND key = ?2")?;
            statement.execute(params![self.place(place.id), place.key.as_bytes()])?;
            self.connection.prepare_cached("DELETE FROM keys WHERE key = ?1")?.execute([place.key.as_bytes()])
        };
        remove().map_err(trouble)?;
        self.usage.add(-1, -before.cast_signed());
        Ok(())
    }

    fn scan(&self, slot: Slot, after: Option<&Cursor>, budget_bytes: usize) -> Result<Chunk, Trouble> {
        let [first, last] = self.places(slot);
        let scan = || {
            let mut statement = self.connection.prepare_cached(if after.is_some() { SCAN_ON } else { SCAN })?;
            let mut rows = match after {
                Some((id, key)) => statement.query(params![self.place(*id), last, key.as_bytes()])?,
                None => statement.query([first, last])?,
            };
            let (mut chunk, mut bytes) = (Chunk::default(), 0);
            while let Some(row) = rows.next()? {
                if bytes >= budget_bytes && !chunk.entries.is_empty() {
                    let last = chunk.entries.last().map(|(key, _)| self.space.place(key.clone()));
                    chunk.next = last.map(|place| (place.id, place.key));
                    break;
                }
                let entry = key_at(row, 8).and_then(|key| Ok((key.clone(), self.read_record(&key, row)?)));
                match entry {
                    Ok((key, record)) => {
                        bytes += key.as_bytes().len() + record.user_bytes();
                        chunk.entries.push((key, record));
                    }
                    Err(trouble) => return Ok(Err(trouble)),
                }
            }
            Ok(Ok(chunk))
        };
        scan().map_err(trouble)?
    }

    fn list(&self, query: &ListQuery, now: Wall, keep: &dyn Fn(Slot) -> bool) -> Result<Page, Trouble> {
        let (first, beyond) = match &query.after {
            Some(after) if after.as_slice() >= query.prefix.as_slice() => (after, ">"),
            _ => (&query.prefix, ">="),
        };
        let list = || {
            let mut keys =
                self.connection.prepare_cached(&format!("SELECT key FROM keys WHERE key {beyond} ?1 ORDER BY key"))?;
            let mut meta = self.connection.prepare_cached(
                "SELECT epoch, n, node, expires, type, length(value) FROM records WHERE place = ?1 AND key = ?2",
            )?;
            let mut rows = keys.query([first])?;
            let mut page = Page::default();
            while let Some(row) = rows.next()? {
                let key = match key_at(row, 0) {
                    Ok(key) if key.as_bytes().starts_with(&query.prefix) => key,
                    Ok(_) => break,
                    Err(trouble) => return Ok(Err(trouble)),
                };
                let place = self.space.place(key);
                if !keep(place.slot) {
                    continue;
                }
                let at = params![self.place(place.id), place.key.as_bytes()];
                let item = meta.query_row(at, |row| Ok(self.read_item(&place.key, row))).optional()?;
                match item {
                    Some(Ok(item)) if item.expires.is_none_or(|at| at > now) => {
                        if page.items.len() == query.limit {
                            page.more = true;
                            break;
                        }
                        page.items.push(item);
                    }
                    Some(Err(trouble)) => return Ok(Err(trouble)),
                    _ => {}
                }
            }
            Ok(Ok(page))
        };
        list().map_err(trouble)?
    }

    fn clear(&mut self, slot: Slot) -> Result<(), Trouble> {
        let gone = self.count(Some(slot))?;
        if gone.keys == 0 {
            return Ok(());
        }
        self.latest.replace(None);
        let clear = || {
            let keys = "DELETE FROM keys WHERE key IN (SELECT key FROM records WHERE place BETWEEN ?1 AND ?2)";
            self.connection.prepare_cached(keys)?.execute(self.places(slot))?;
            self.connection
                .prepare_cached("DELETE FROM records WHERE place BETWEEN ?1 AND ?2")?
                .execute(self.places(slot))
        };
        clear().map_err(trouble)?;
        self.usage.add(-gone.keys.cast_signed(), -gone.bytes.cast_signed());
        Ok(())
    }

    fn usage(&self) -> Usage {
        let Signed { keys, bytes } = self.usage;
        Usage { keys: keys.max(0).cast_unsigned(), bytes: bytes.max(0).cast_unsigned() }
    }

    fn next_expiry(&self) -> Result<Option<Wall>, Trouble> {
        let min = "SELECT min(expires) FROM records WHERE expires IS NOT NULL";
        let get = || self.connection.prepare_cached(min)?.query_row([], |row| row.get::<_, Option<i64>>(0));
        get().map(|at| at.map(|at| Wall(at.cast_unsigned()))).map_err(trouble)
    }

    fn expired(&self, now: Wall, limit: usize) -> Result<Vec<Place>, Trouble> {
        let due = "SELECT key FROM records WHERE expires IS NOT NULL AND expires <= ?1 ORDER BY expires LIMIT ?2";
        let get = || {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut statement = self.connection.prepare_cached(due)?;
            let keys = statement.query_map(params![now.0.cast_signed(), limit], |row| Ok(key_at(row, 0)))?;
            keys.collect::<rusqlite::Result<Vec<_>>>()
        };
        get().map_err(trouble)?.into_iter().map(|key| Ok(self.space.place(key?))).collect()
    }

    fn holds(&self) -> Result<Vec<(Slot, HoldRow)>, Trouble> {
        let all = "SELECT slot, epoch, taken_from, taken_epoch, frozen_for, frozen_at FROM holds ORDER BY slot";
        let get = || {
            let mut statement = self.connection.prepare(all)?;
            let rows = statement.query_map([], |row| Ok(read_hold(self.space, row)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        get().map_err(trouble)?.into_iter().collect()
    }

    fn set_hold(&mut self, slot: Slot, row: Option<HoldRow>) -> Result<(), Trouble> {
        let set = || {
            let Some(HoldRow { epoch, taken, frozen_for }) = row else {
                return self.connection.prepare_cached("DELETE FROM holds WHERE slot = ?1")?.execute([slot.0]);
            };
            let mut statement =
                self.connection.prepare_cached("INSERT OR REPLACE INTO holds VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
            statement.execute(params![
                slot.0,
                epoch.cast_signed(),
                taken.map(|(from, _)| { from.0 }.to_be_bytes()),
                taken.map(|(_, epoch)| epoch.cast_signed()),
                frozen_for.map(|to| { to.incarnation.0 }.to_be_bytes()),
                frozen_for.map(|to| to.addr.to_string()),
            ])
        };
        set().map(drop).map_err(trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::conformance::conform;

    fn store(dir: &Path, name: &str, space: KeySpace) -> SqliteStore {
        SqliteStore::new(open(&dir.join(name), Syncs::Never).unwrap(), space).unwrap()
    }

    #[test]
    fn the_durable_store_does_what_a_plain_map_does() {
        let dir = tempfile::tempdir().unwrap();
        for seed in 0..60 {
            conform(seed, |space| store(dir.path(), &format!("{seed}.db"), space));
        }
    }
}
