//! A [`Store`] in one `SQLite` file: anybody can open it with the sqlite3 shell.
//!
//! `SQLite` notices no flipped bit by itself, so each record carries a checksum over all that it says. Rows are kept short,
//! as a change costs the pages that it touches: the place of a record is the top of its key's id (the slot is the top of
//! that), and who gave out its version is a number. What was voted on a key stands in one column, if it says anything
//! that the record does not.

use std::cell::RefCell;
use std::collections::BTreeMap;

use rusqlite::{Connection, InterruptHandle, OptionalExtension, Row, params};

use super::file::PAGE_BYTES;
pub use super::file::{Syncs, Unusable, open};
use super::rows::{checksum, key_at, trouble};
use super::votes;
use crate::base::{Id, Incarnation, Wall};
use crate::data::register::Register;
use crate::data::{
    Chunk, Cursor, Item, Key, KeySpace, ListQuery, Page, Place, Record, Slot, Store, Trouble, Usage, Version,
};

/// Bits of an id that the place of a record has: as many as a number of `SQLite` that is not negative.
const PLACE_BITS: u32 = 63;
/// Stands for when a record was put where there is none: it was removed, or nothing was accepted yet.
const NO_RECORD: i64 = -1;

const GET: &str =
    "SELECT epoch, n, node, modified, expires, type, value, sum, vote FROM records WHERE place = ?1 AND key = ?2";
const SCAN: &str = "SELECT epoch, n, node, modified, expires, type, value, sum, vote, key, place FROM records \
                    WHERE place BETWEEN ?1 AND ?2 ORDER BY place, key";
const SCAN_ON: &str = "SELECT epoch, n, node, modified, expires, type, value, sum, vote, key, place FROM records \
                       WHERE (place, key) > (?1, ?3) AND place <= ?2 ORDER BY place, key";
const INSERT: &str = "INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
const UPDATE: &str = "UPDATE records SET epoch = ?3, n = ?4, node = ?5, modified = ?6, expires = ?7, type = ?8, \
                      value = ?9, sum = ?10, vote = ?11 WHERE place = ?1 AND key = ?2";

/// See the module.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    space: KeySpace,
    // Below zero while what was there at the start is not counted.
    usage: Signed,
    // What was found where a command looked last: it is about to write there.
    latest: RefCell<Option<(Place, Option<There>)>>,
    // What is in the table of nodes, as far as it was needed.
    nodes: RefCell<BTreeMap<Incarnation, i64>>,
    // What `evicted` has said of slots.
    evicted: RefCell<BTreeMap<Slot, Option<Wall>>>,
}

/// A row: the user bytes of its record, if it has one.
#[derive(Clone, Copy, Debug)]
struct There(Option<u64>);

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
        Self {
            connection,
            space,
            usage: Signed::default(),
            latest: RefCell::new(None),
            nodes: RefCell::default(),
            evicted: RefCell::default(),
        }
    }

    /// Whether counting takes so long that it is done beside the work.
    pub fn must_be_told(&self) -> Result<bool, Trouble> {
        Ok(self.file_bytes()?.0 > COUNTED_AT_ONCE)
    }

    /// What this connection sees from now on stays as it is at this moment; for [`SqliteStore::count_all`].
    pub(super) fn hold_still(&self) -> Result<(), Trouble> {
        self.connection.execute_batch("BEGIN; SELECT 1 FROM records LIMIT 1").map_err(trouble)
    }

    /// Ends [`SqliteStore::hold_still`].
    pub(super) fn let_go(&self) {
        // Nothing was written, so nothing can be lost.
        let _ = self.connection.execute_batch("COMMIT");
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

    /// Puts as much of the log where it belongs as nobody is reading.
    pub(super) fn checkpoint(&self) -> Result<(), Trouble> {
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(trouble)
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
        self.evicted.replace(BTreeMap::new());
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
        let sums = "count(*) FILTER (WHERE modified >= 0), ifnull(sum(length(key) + length(value) + \
                    ifnull(octet_length(type), 0)) FILTER (WHERE modified >= 0), 0)";
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
    fn read_register(&self, key: &Key, row: &Row<'_>) -> Result<Register, Trouble> {
        // Whatever has another type than it was written with is damaged, too.
        let read = || -> rusqlite::Result<Option<Register>> {
            let vote = row.get_ref(8)?.as_blob_or_null()?;
            let modified: i64 = row.get(3)?;
            let record = if modified == NO_RECORD { None } else { Some(self.read_record(row, modified, vote)?) };
            let sum: i32 = row.get(7)?;
            if checksum(key, record.as_ref(), vote).cast_signed() != sum {
                return Ok(None);
            }
            Ok(votes::read(record, vote, &|number| self.node_of(number).ok()))
        };
        read().ok().flatten().ok_or_else(|| Trouble::Damaged(key.clone()))
    }

    fn read_record(&self, row: &Row<'_>, modified: i64, vote: Option<&[u8]>) -> rusqlite::Result<Record> {
        let content_type: Option<String> = row.get(5)?;
        let value = row.get_ref(6)?.as_blob()?;
        Ok(Record {
            value: value.into(),
            content_type: content_type.map(Into::into),
            version: self.read_version(row, vote)?,
            modified: Wall(modified.cast_unsigned()),
            expires: row.get::<_, Option<i64>>(4)?.map(|at| Wall(at.cast_unsigned())),
        })
    }

    fn read_version(&self, row: &Row<'_>, vote: Option<&[u8]>) -> rusqlite::Result<Version> {
        let (epoch, n): (i64, i64) = (row.get(0)?, row.get(1)?);
        let round = votes::round_of(vote).ok_or(rusqlite::Error::InvalidQuery)?;
        Ok(Version { epoch: epoch.cast_unsigned(), round, n: n.cast_unsigned(), node: self.node_of(row.get(2)?)? })
    }

    fn read_item(&self, key: &Key, row: &Row<'_>) -> Result<Item, Trouble> {
        let read = || -> rusqlite::Result<Item> {
            Ok(Item {
                key: key.clone(),
                version: self.read_version(row, row.get_ref(6)?.as_blob_or_null()?)?,
                expires: row.get::<_, Option<i64>>(3)?.map(|at| Wall(at.cast_unsigned())),
                content_type: row.get::<_, Option<String>>(4)?.map(Into::into),
                size: row.get::<_, i64>(5)?.cast_unsigned(),
            })
        };
        read().map_err(|_| Trouble::Damaged(key.clone()))
    }

    fn count_change(&mut self, before: Option<There>, after: Option<u64>) {
        let before = before.and_then(|There(size)| size);
        let keys = i64::from(after.is_some()) - i64::from(before.is_some());
        self.usage.add(keys, after.unwrap_or(0).cast_signed() - before.unwrap_or(0).cast_signed());
    }

    fn remove_at(&mut self, at: i64, key: &Key) -> Result<(), Trouble> {
        let Some(before) = self.there_at(at, key)? else { return Ok(()) };
        self.latest.replace(None);
        let remove = || {
            let mut statement = self.connection.prepare_cached("DELETE FROM records WHERE place = ?1 AND key = ?2")?;
            statement.execute(params![at, key.as_bytes()])?;
            self.connection.prepare_cached("DELETE FROM keys WHERE key = ?1")?.execute([key.as_bytes()])
        };
        remove().map_err(trouble)?;
        self.count_change(Some(before), None);
        Ok(())
    }

    /// The row of `place`, if there is one.
    fn there(&self, place: &Place) -> Result<Option<There>, Trouble> {
        match &*self.latest.borrow() {
            Some((at, there)) if at == place => Ok(*there),
            _ => self.there_at(self.place(place.id), &place.key),
        }
    }

    fn there_at(&self, at: i64, key: &Key) -> Result<Option<There>, Trouble> {
        let size = "SELECT modified, length(key) + length(value) + ifnull(octet_length(type), 0) FROM records \
                    WHERE place = ?1 AND key = ?2";
        let read = |row: &Row<'_>| {
            let (modified, size): (i64, i64) = (row.get(0)?, row.get(1)?);
            Ok(There((modified != NO_RECORD).then_some(size.cast_unsigned())))
        };
        let get = || {
            let mut statement = self.connection.prepare_cached(size)?;
            statement.query_row(params![at, key.as_bytes()], read).optional()
        };
        get().map_err(trouble)
    }
}

/// Under which it is in the meta table.
fn evicted_name(slot: Slot) -> String {
    format!("evicted {}", slot.0)
}

fn size_of(key: &Key, record: &Record) -> u64 {
    (key.as_bytes().len() + record.user_bytes()) as u64
}

impl Store for SqliteStore {
    fn space(&self) -> KeySpace {
        self.space
    }

    fn register(&self, place: &Place) -> Result<Option<Register>, Trouble> {
        let at = params![self.place(place.id), place.key.as_bytes()];
        let get = || {
            let mut statement = self.connection.prepare_cached(GET)?;
            statement.query_row(at, |row| Ok(self.read_register(&place.key, row))).optional()
        };
        let register = get().map_err(trouble)?.transpose()?;
        let size = |register: &Register| There(register.record().map(|record| size_of(&place.key, record)));
        self.latest.replace(Some((place.clone(), register.as_ref().map(size))));
        Ok(register)
    }

    fn set(&mut self, place: Place, register: Register) -> Result<(), Trouble> {
        let before = self.there(&place)?;
        self.latest.replace(None);
        let vote = votes::write(&register, &|node| self.number_of(node))?;
        let record = register.record();
        let version = record.map(|record| record.version);
        let node = version.map_or(Ok(0), |version| self.number_of(version.node))?;
        let set = || {
            // What is there is overwritten in its place, and most often is as long as before.
            let mut statement = self.connection.prepare_cached(if before.is_some() { UPDATE } else { INSERT })?;
            statement.execute(params![
                self.place(place.id),
                place.key.as_bytes(),
                version.map_or(0, |version| version.epoch.cast_signed()),
                version.map_or(0, |version| version.n.cast_signed()),
                node,
                record.map_or(NO_RECORD, |record| record.modified.0.cast_signed()),
                record.and_then(|record| record.expires).map(|at| at.0.cast_signed()),
                record.and_then(|record| record.content_type.as_deref()),
                record.map_or(&[][..], |record| &record.value),
                checksum(&place.key, record, vote.as_deref()).cast_signed(),
                vote,
            ])?;
            if before.is_none() {
                let mut statement = self.connection.prepare_cached("INSERT OR IGNORE INTO keys VALUES (?1)")?;
                statement.execute([place.key.as_bytes()])?;
            }
            Ok(())
        };
        set().map_err(trouble)?;
        self.count_change(before, record.map(|record| size_of(&place.key, record)));
        Ok(())
    }

    fn remove(&mut self, place: &Place) -> Result<(), Trouble> {
        self.remove_at(self.place(place.id), &place.key)
    }

    fn sweep(&mut self, slot: Slot, keys: &[Key]) -> Result<(), Trouble> {
        let damaged = || {
            let mut statement = self.connection.prepare_cached(SCAN)?;
            let mut rows = statement.query(self.places(slot))?;
            let mut damaged = Vec::new();
            while let Some(row) = rows.next()? {
                if let Ok(key) = key_at(row, 9)
                    && keys.contains(&key)
                    && self.read_register(&key, row).is_err()
                {
                    // Its key may be what is damaged: then it stands where no other of that key does.
                    damaged.push((row.get::<_, i64>(10)?, key));
                }
            }
            Ok(damaged)
        };
        for (at, key) in damaged().map_err(trouble)? {
            self.remove_at(at, &key)?;
        }
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
            let (mut chunk, mut bytes, mut last) = (Chunk::default(), 0, None);
            while let Some(row) = rows.next()? {
                if bytes >= budget_bytes && last.is_some() {
                    chunk.next = last;
                    break;
                }
                let key = match key_at(row, 9) {
                    Ok(key) => key,
                    Err(trouble) => return Ok(Err(trouble)),
                };
                bytes += key.as_bytes().len();
                last = Some((self.space.place(key.clone()).id, key.clone()));
                match self.read_register(&key, row) {
                    Ok(register) => {
                        bytes += register.record().map_or(0, Record::user_bytes);
                        chunk.entries.push((key, register));
                    }
                    Err(_) => chunk.damaged.push(key),
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
                "SELECT epoch, n, node, expires, type, length(value), vote FROM records \
                 WHERE place = ?1 AND key = ?2 AND modified >= 0",
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
        self.latest.replace(None);
        let clear = || {
            let keys = "DELETE FROM keys WHERE key IN (SELECT key FROM records WHERE place BETWEEN ?1 AND ?2)";
            self.connection.prepare_cached(keys)?.execute(self.places(slot))?;
            self.connection
                .prepare_cached("DELETE FROM records WHERE place BETWEEN ?1 AND ?2")?
                .execute(self.places(slot))
        };
        clear().map_err(trouble)?;
        let forget = "DELETE FROM meta WHERE name = ?1";
        self.connection.prepare_cached(forget).and_then(|mut it| it.execute([evicted_name(slot)])).map_err(trouble)?;
        self.evicted.borrow_mut().insert(slot, None);
        self.usage.add(-gone.keys.cast_signed(), -gone.bytes.cast_signed());
        Ok(())
    }

    fn evicted(&self, slot: Slot) -> Result<Option<Wall>, Trouble> {
        if let Some(known) = self.evicted.borrow().get(&slot) {
            return Ok(*known);
        }
        let at = self.recall(&evicted_name(slot))?.and_then(|text| text.parse().ok()).map(Wall);
        self.evicted.borrow_mut().insert(slot, at);
        Ok(at)
    }

    fn set_evicted(&mut self, slot: Slot, at: Wall) -> Result<(), Trouble> {
        self.remember(&evicted_name(slot), &at.0.to_string())?;
        self.evicted.borrow_mut().insert(slot, Some(at));
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

    fn kept(&self) -> Result<Vec<(Slot, String)>, Trouble> {
        let get = || {
            let mut statement = self.connection.prepare("SELECT slot, views FROM slots ORDER BY slot")?;
            let rows = statement.query_map([], |row| Ok((Slot(row.get(0)?), row.get(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        get().map_err(trouble)
    }

    fn keep(&mut self, slot: Slot, row: Option<String>) -> Result<(), Trouble> {
        let set = || match row {
            Some(row) => {
                let mut statement = self.connection.prepare_cached("INSERT OR REPLACE INTO slots VALUES (?1, ?2)")?;
                statement.execute(params![slot.0, row])
            }
            None => self.connection.prepare_cached("DELETE FROM slots WHERE slot = ?1")?.execute([slot.0]),
        };
        set().map(drop).map_err(trouble)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

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
