//! Files of a program that kept one copy of each key: its slots become views of one.

use rusqlite::{Connection, Row, params};

use crate::base::Contact;
use crate::data::Slot;
use crate::replication::View;
use crate::replication::chain::Chain;

/// Makes the one holder, `me`, the only member of each slot that the file says it holds; then the file does not say so any
/// more. A slot that was on its way to another holder, which may have it by now, is not taken.
pub(super) fn take_over(connection: &mut Connection, me: Contact) -> rusqlite::Result<()> {
    let is_there = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'holds')";
    if !connection.query_row(is_there, [], |row| row.get(0))? {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for (slot, epoch) in held(&transaction)? {
        let chain = Chain::create(View::of_one(epoch, me), me.incarnation);
        transaction.execute("INSERT OR REPLACE INTO slots VALUES (?1, ?2)", params![slot.0, chain.to_row()])?;
    }
    transaction.execute_batch("DROP TABLE holds")?;
    transaction.commit()
}

fn held(connection: &Connection) -> rusqlite::Result<Vec<(Slot, u64)>> {
    let mut statement = connection.prepare("SELECT slot, epoch FROM holds WHERE frozen_for IS NULL ORDER BY slot")?;
    let read = |row: &Row<'_>| Ok((Slot(row.get(0)?), row.get::<_, i64>(1)?.cast_unsigned()));
    statement.query_map([], read)?.collect()
}
