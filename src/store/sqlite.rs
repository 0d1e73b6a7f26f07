//! The embedded database: one SQLite file with its `-wal` and `-shm` beside it, mode 0600.
//!
//! The journal is a write-ahead log and `synchronous=FULL`: a commit is on the disk before it returns, and readers never wait
//! for the writer. [`Sqlite::create`] makes a database only where nothing stands, [`Sqlite::open`] opens only one that is
//! there: a missing file is an error to look into, never an empty database to go on with.
//!
//! `PRAGMA quick_check` runs at each open. It reads the whole file, and that is worth its price:
//! a value that was changed fails its seal, but a damaged tree *hides* rows, and an absent row has no seal to fail.
//!
//! What it does not do: it does not notice an older file put in its place while the service was down (that is for the anchor
//! of the ledger), and the `-wal` file is part of the database: who copies one copies both, or asks [`Store::copy_to`].

mod certificates;

use std::fmt;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::certificates::{Counts, Cursor, Ending, Found, Page, Row as PublicRow, Search, Serial};
use super::{Change, Encode, MAX_VALUE, Record, Store, check_batch, check_expected, check_path, check_prefix, schema};
use crate::error::{Error, Kind, Result};
use crate::types::{IssuerName, Version};

/// How long another process may hold the database before the answer is *busy*.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// How many reads may run at once.
const READERS: usize = 4;

/// A SQLite database: see the module.
pub struct Sqlite {
    path: PathBuf,
    /// Device and inode of the file that was opened.
    identity: (u64, u64),
    /// Each read takes the first that is free, or waits for the next in turn. Held alone, never with the writer.
    readers: [Mutex<Connection>; READERS],
    turn: AtomicUsize,
    /// The one writer. Held alone, never with a reader. Stands last to be dropped last: the last connection to close moves
    /// the log into the database, and a reader may not write.
    writer: Mutex<Connection>,
}

impl Sqlite {
    /// Makes an empty database at `path` and opens it. It appears there whole or not at all.
    ///
    /// # Errors
    /// [`Kind::Conflict`] where a file of that name, or the remains of one, stands already; [`Kind::Unavailable`] where it
    /// cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        for place in [path.to_path_buf(), beside(path, "-wal"), beside(path, "-shm"), beside(path, "-journal")] {
            if place.symlink_metadata().is_ok() {
                return Err(taken(&place));
            }
        }
        write_whole(path, |unfinished| {
            let mut db = connect(unfinished, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            db.pragma_update(None, "journal_mode", "WAL").map_err(trouble)?;
            schema::create(&mut db)?;
            db.close().map_err(|(_, e)| trouble(e))
        })?;
        Self::open(path)
    }

    /// Opens the database at `path`, brings its schema up to date and checks its structure.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where no file is there, or it cannot be read; [`Kind::Invalid`] for a file that is not ours;
    /// [`Kind::State`] for one of a newer program; [`Kind::Tampered`] where its structure is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let identity = identify(path)?;
        let mut writer = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        schema::recognise(&writer)?;
        writer.pragma_update(None, "journal_mode", "WAL").map_err(trouble)?;
        writer.pragma_update(None, "synchronous", "FULL").map_err(trouble)?;
        schema::migrate(&mut writer)?;
        quick_check(&writer)?;
        let reader = || connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map(Mutex::new);
        let readers = [reader()?, reader()?, reader()?, reader()?];
        let path = path.to_path_buf();
        Ok(Self { path, identity, readers, turn: AtomicUsize::new(0), writer: Mutex::new(writer) })
    }

    /// SQLite goes on working with a file that was deleted or replaced, and everything acknowledged would be lost with it.
    fn still_there(&self) -> Result<()> {
        if identify(&self.path)? == self.identity {
            Ok(())
        } else {
            Err(Error::new(Kind::Unavailable, "the database file was replaced while it was open")
                .hint(format!("put the right file back at {} and restart", self.path.display())))
        }
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        if let Some(free) = self.readers.iter().find_map(|reader| reader.try_lock().ok()) {
            return free;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % READERS;
        lock(self.readers.get(turn).unwrap_or(&self.readers[0]))
    }
}

impl Store for Sqlite {
    fn get(&self, path: &str) -> Result<Option<Record>> {
        check_path(path)?;
        let reader = self.reader();
        let mut statement = reader
            .prepare_cached("SELECT path, revision, value FROM records WHERE path = ?1")
            .map_err(|e| trouble(e).context(path))?;
        statement.query_row([path], record).optional().map_err(|e| trouble(e).context(path))
    }

    fn visit(&self, prefix: &str, look: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        check_prefix(prefix)?;
        let reader = self.reader();
        // A range, not LIKE: `_` is a character of paths and a wildcard of LIKE. Paths compare by their bytes, and no path
        // has a byte above `z`, so all that start with the prefix lie below the prefix and a `~`.
        let mut statement = reader
            .prepare_cached("SELECT path, revision, value FROM records WHERE path >= ?1 AND path < ?2 ORDER BY path")
            .map_err(|e| trouble(e).context(prefix))?;
        let rows = statement.query_map([prefix, &format!("{prefix}~")], record);
        for found in rows.map_err(|e| trouble(e).context(prefix))? {
            look(found.map_err(|e| trouble(e).context(prefix))?)?;
        }
        Ok(())
    }

    fn paths(&self, prefix: &str) -> Result<Vec<String>> {
        check_prefix(prefix)?;
        let reader = self.reader();
        let mut statement = reader
            .prepare_cached("SELECT path FROM records WHERE path >= ?1 AND path < ?2 ORDER BY path")
            .map_err(|e| trouble(e).context(prefix))?;
        let rows = statement.query_map([prefix, &format!("{prefix}~")], |row| row.get(0));
        rows.and_then(Iterator::collect).map_err(|e| trouble(e).context(prefix))
    }

    fn commit_with(&self, changes: &[Change], rows: &[PublicRow], encode: &Encode<'_>) -> Result<u64> {
        check_batch(changes)?;
        let mut writer = lock(&self.writer);
        self.still_there()?;
        // The transaction rolls back when it is dropped without its commit.
        let batch = writer.transaction_with_behavior(TransactionBehavior::Immediate).map_err(trouble)?;
        let revision = next_revision(&batch)?;
        for change in changes {
            apply(&batch, change, revision, encode)?;
        }
        for row in rows {
            certificates::add(&batch, row)?;
        }
        batch.commit().map_err(trouble)?;
        self.still_there()?;
        Ok(revision)
    }

    fn copy_to(&self, file: &Path) -> Result<()> {
        self.still_there()?;
        // A connection of its own, so that a long copy takes no reader away. VACUUM INTO reads one moment of the database,
        // and leaves behind what was removed from it.
        let source = connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        write_whole(file, |unfinished| {
            let name = unfinished.to_str().ok_or_else(|| Error::new(Kind::Invalid, "the path is not UTF-8"))?;
            source.execute("VACUUM INTO ?1", [name]).map_err(trouble)?;
            Ok(())
        })
    }

    fn certificate(&self, serial: &Serial) -> Result<Option<Found>> {
        certificates::find(&self.reader(), serial)
    }

    fn certificates(&self, search: &Search) -> Result<Page> {
        certificates::search(&self.reader(), search)
    }

    fn open_reservations(&self) -> Result<Vec<Found>> {
        certificates::open(&self.reader())
    }

    fn last_end(&self, issuer: &IssuerName, version: Version, but: &str) -> Result<Option<jiff::Timestamp>> {
        certificates::last_end(&self.reader(), issuer, version, but)
    }

    fn endings(&self, after: Cursor, until: jiff::Timestamp, limit: usize) -> Result<Vec<Ending>> {
        certificates::endings(&self.reader(), after, until, limit)
    }

    fn count_certificates(&self) -> Result<Counts> {
        certificates::counts(&self.reader())
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sqlite({})", self.path.display())
    }
}

/// Takes the next revision; the row it stands in is read and written in the same transaction as the records.
fn next_revision(batch: &Transaction<'_>) -> Result<u64> {
    let next = "UPDATE meta SET value = value + 1 WHERE name = 'revision' RETURNING value";
    let revision = batch.prepare_cached(next).and_then(|mut next| next.query_row([], |row| unsigned(row, 0)));
    revision.map_err(trouble)
}

fn apply(batch: &Transaction<'_>, change: &Change, revision: u64, encode: &Encode<'_>) -> Result<()> {
    let path = change.path.as_str();
    let current = batch
        .prepare_cached("SELECT revision FROM records WHERE path = ?1")
        .and_then(|mut current| current.query_row([path], |row| unsigned(row, 0)).optional())
        .map_err(|e| trouble(e).context(path))?;
    check_expected(change, current)?;
    let Some(value) = &change.value else {
        let remove = batch.prepare_cached("DELETE FROM records WHERE path = ?1");
        remove.and_then(|mut remove| remove.execute([path])).map_err(|e| trouble(e).context(path))?;
        return Ok(());
    };
    let stored = encode(path, revision, value)?;
    if stored.len() > MAX_VALUE {
        return Err(Error::new(Kind::Limit, format!("{path}: a record has at most {MAX_VALUE} bytes")));
    }
    let signed = i64::try_from(revision).map_err(|_| Error::new(Kind::Limit, "the store has used up its revisions"))?;
    let write = "INSERT INTO records (path, revision, value) VALUES (?1, ?2, ?3)
                 ON CONFLICT (path) DO UPDATE SET revision = excluded.revision, value = excluded.value";
    batch
        .prepare_cached(write)
        .and_then(|mut write| write.execute(params![path, signed, stored]))
        .map_err(|e| trouble(e).context(path))?;
    Ok(())
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record { path: row.get(0)?, revision: unsigned(row, 1)?, value: row.get(2)? })
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// A connection to a file that must be there. Nothing in the schema is trusted to call functions.
fn connect(path: &Path, mode: OpenFlags) -> Result<Connection> {
    let db = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(trouble)?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(trouble)?;
    db.pragma_update(None, "trusted_schema", false).map_err(trouble)?;
    db.pragma_update(None, "cell_size_check", true).map_err(trouble)?;
    Ok(db)
}

fn quick_check(db: &Connection) -> Result<()> {
    let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(trouble)?;
    if found == "ok" { Ok(()) } else { Err(damaged().because(found)) }
}

/// Lets `write` fill an unfinished file in the folder of `path`, then puts it there durably, never over another.
fn write_whole(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unwritable =
        |e: std::io::Error| Error::new(Kind::Unavailable, format!("{} cannot be written", path.display())).because(e);
    // Mode 0600, which SQLite gives to the files beside it too. The handle is closed before SQLite opens the file: closing
    // any handle of a file gives up this process's locks on it.
    let unfinished = tempfile::Builder::new().prefix(".signet-").tempfile_in(folder).map_err(unwritable)?;
    let unfinished = unfinished.into_temp_path();
    write(&unfinished)?;
    File::open(&unfinished).and_then(|file| file.sync_all()).map_err(unwritable)?;
    unfinished.persist_noclobber(path).map_err(|e| {
        if e.error.kind() == std::io::ErrorKind::AlreadyExists { taken(path) } else { unwritable(e.error) }
    })?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritable)
}

fn identify(path: &Path) -> Result<(u64, u64)> {
    let facts = path.metadata().map_err(|e| {
        Error::new(Kind::Unavailable, format!("the database is gone: no readable file at {}", path.display()))
            .hint("mount or restore it, then restart; `signet init` makes a new one in an empty place")
            .because(e)
    })?;
    Ok((facts.dev(), facts.ino()))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn taken(path: &Path) -> Error {
    Error::new(Kind::Conflict, format!("{} exists already", path.display()))
}

fn damaged() -> Error {
    Error::new(Kind::Tampered, "the database file is damaged").hint("restore it from a backup")
}

/// A thread that panicked left no transaction open (it rolls back when dropped), so its connection is good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an error of SQLite means to a caller.
#[expect(clippy::wildcard_enum_match_arm, reason = "the codes are SQLite's, and most mean a defect of ours")]
pub(super) fn trouble(error: rusqlite::Error) -> Error {
    use rusqlite::Error as Trouble;
    let code = match &error {
        Trouble::SqliteFailure(failure, _) => failure.code,
        // The columns have fixed types: a row that does not fit was not written by us.
        Trouble::InvalidColumnType(..) | Trouble::IntegralValueOutOfRange(..) | Trouble::QueryReturnedNoRows => {
            return damaged().because(error);
        }
        Trouble::FromSqlConversionFailure(..) | Trouble::Utf8Error(..) => return damaged().because(error),
        _ => return Error::internal(format!("sqlite: {error}")),
    };
    match code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TypeMismatch => damaged().because(error),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            Error::new(Kind::Busy, "another process holds the database").because(error)
        }
        ErrorCode::DiskFull => Error::new(Kind::Unavailable, "the disk of the database is full")
            .hint("make room; nothing needs a restart")
            .because(error),
        ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::ReadOnly
        | ErrorCode::PermissionDenied
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::NoLargeFileSupport
        | ErrorCode::OutOfMemory => {
            Error::new(Kind::Unavailable, "the database cannot be read or written").because(error)
        }
        _ => Error::internal(format!("sqlite: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a test that pulls no plug cannot see: without these a commit would survive a crash of ours, but not of the machine.
    #[test]
    fn commits_are_synced_and_readers_cannot_write() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::create(&folder.path().join("signet.db")).unwrap();
        let writer = lock(&store.writer);
        let synchronous: i32 = writer.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        let journal: String = writer.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!((synchronous, journal.as_str()), (2, "wal"), "2 is FULL");
        for reader in &store.readers {
            lock(reader).execute("DELETE FROM records", []).unwrap_err();
        }
    }
}
