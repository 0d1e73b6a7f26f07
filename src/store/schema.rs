//! The tables of a SQLite database, and the steps from each older form to the present one.
//!
//! `PRAGMA user_version` counts the files of `migrations/sqlite/` that were applied, `PRAGMA application_id` says whose
//! database it is. A step runs in one transaction with its new number, so a crash leaves the old form or the new one. A file
//! is never changed once released. After the steps the schema must be exactly what they make of an empty database: a trigger
//! or view that somebody added could drop or change rows unseen, so it is refused.

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use super::sqlite::trouble;
use crate::error::{Error, Kind, Result};

/// "SGNT": what `file` and `PRAGMA application_id` show.
pub(super) const APPLICATION_ID: i32 = 0x5347_4e54;

/// All steps, in order; the first makes the schema of an empty database.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_records.sql"),
    include_str!("../../migrations/sqlite/0002_certificates.sql"),
    include_str!("../../migrations/sqlite/0003_certificate_searches.sql"),
];

/// Lays the schema out in an empty database.
pub(super) fn create(db: &mut Connection) -> Result<()> {
    db.pragma_update(None, "application_id", APPLICATION_ID).map_err(trouble)?;
    migrate(db)
}

/// Refuses what is not a database of ours, or of a newer form. Writes nothing.
pub(super) fn recognise(db: &Connection) -> Result<()> {
    let id = match db.pragma_query_value(None, "application_id", |row| row.get(0)) {
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::NotADatabase) => 0,
        other => other.map_err(trouble)?,
    };
    if id != APPLICATION_ID {
        return Err(Error::new(Kind::Invalid, "this file is not a database of signet")
            .hint("check the path in the configuration; `signet init` makes a new database"));
    }
    let (have, know) = (version(db)?, MIGRATIONS.len());
    if usize::try_from(have).is_ok_and(|have| have > know) {
        let sentence = format!("the database has schema {have}, this program knows schemas up to {know}");
        return Err(Error::new(Kind::State, sentence).hint("start the newer program that wrote it"));
    }
    Ok(())
}

/// Takes the missing steps, then compares the schema with what all steps make.
pub(super) fn migrate(db: &mut Connection) -> Result<()> {
    apply(db, MIGRATIONS)?;
    let mut model = Connection::open_in_memory().map_err(trouble)?;
    apply(&mut model, MIGRATIONS)?;
    if objects(db)? == objects(&model)? {
        Ok(())
    } else {
        Err(Error::new(Kind::Tampered, "the tables of the database are not those that signet makes")
            .hint("compare `SELECT * FROM sqlite_schema` with the files of migrations/sqlite"))
    }
}

/// Takes the steps of `migrations` that `db` has not seen, each in a transaction of its own.
fn apply(db: &mut Connection, migrations: &[&str]) -> Result<()> {
    for (number, sql) in (1..).zip(migrations) {
        let step = db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(trouble)?;
        // Read within the transaction: another process may be taking the same steps.
        if version(&step)? + 1 == number {
            step.execute_batch(sql).map_err(trouble)?;
            step.pragma_update(None, "user_version", number).map_err(trouble)?;
            step.commit().map_err(trouble)?;
        }
    }
    Ok(())
}

fn version(db: &Connection) -> Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(trouble)
}

type Object = (String, String, Option<String>);

fn objects(db: &Connection) -> Result<Vec<Object>> {
    let mut statement = db.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").map_err(trouble)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).map_err(trouble)?;
    rows.collect::<Result<_, _>>().map_err(trouble)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_taken_once_and_in_order() {
        let mut db = Connection::open_in_memory().unwrap();
        let first = ["CREATE TABLE a (x); INSERT INTO a VALUES (1)"];
        let both = [first[0], "ALTER TABLE a ADD COLUMN y; UPDATE a SET y = x + 1"];
        apply(&mut db, &first).unwrap();
        apply(&mut db, &both).unwrap();
        apply(&mut db, &both).unwrap();
        let row: (i32, i32) = db.query_row("SELECT x, y FROM a", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(row, (1, 2));
        assert_eq!(version(&db).unwrap(), 2);
    }

    #[test]
    fn a_step_that_fails_leaves_the_old_form() {
        let mut db = Connection::open_in_memory().unwrap();
        apply(&mut db, &["CREATE TABLE a (x)", "CREATE TABLE b (x); SELECT nonsense FROM b"]).unwrap_err();
        assert_eq!(version(&db).unwrap(), 1);
        assert_eq!(objects(&db).unwrap().len(), 1);
    }
}
