//! Where records live.
//!
//! A store holds small records under paths such as `keys/default/release`. Everything in it is sealed before it gets here
//! ([`Sealed`] wraps any driver), so no query can look inside: a driver offers reading by path, scanning by prefix, and one
//! atomic, durable batch with expected revisions. Only `ledger` commits.
//!
//! Paths are not sealed: who steals a database learns the names of things and the sizes of their records, nothing else.
//! Certificates are public and stand beside the records, in a table that can be searched: see [`certificates`].

pub mod certificates;
mod schema;
mod sealed;
mod sqlite;

pub use sealed::{Sealed, StorageKey};
pub use sqlite::Sqlite;

use std::collections::BTreeSet;

use certificates::{Counts, Cursor, Ending, Found, Page, Row, Search, Serial};

use crate::error::{Error, Kind, Result};
use crate::types::{IssuerName, Version};

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands: segments of `[a-z0-9._:-]` joined by `/`, at most 512 bytes.
    pub path: String,
    /// Grows by one with every commit of the store: the commit that wrote this.
    pub revision: u64,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// What a path must look like for a change to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing stands there.
    Absent,
    /// The record of this revision stands there.
    Revision(u64),
    /// Whatever stands there.
    Any,
}

/// One change of a batch.
#[derive(Clone, Debug)]
pub struct Change {
    /// Where.
    pub path: String,
    /// On what condition.
    pub expected: Expected,
    /// The new bytes; `None` removes the record.
    pub value: Option<Vec<u8>>,
}

/// What is written for a value, given the path and the revision it will have. Runs while the writer is held: keep it short.
pub type Encode<'a> = dyn Fn(&str, u64, &[u8]) -> Result<Vec<u8>> + 'a;

/// The longest path, in bytes.
pub const MAX_PATH: usize = 512;

/// The longest value as it is stored, in bytes.
pub const MAX_VALUE: usize = 1024 * 1024;

/// A driver of a database. Blocking: call it off the request threads.
///
/// **Contract**, held by `tests/store/` for each driver:
/// * [`Store::commit`] makes all of a batch or nothing of it, and it is durable (survives the loss of power) on return.
/// * A batch whose expectations do not hold changes nothing and is [`Kind::Stale`] (or [`Kind::Conflict`] for
///   [`Expected::Absent`]), naming the path.
/// * Each commit has the next revision, counted from 1; no revision is given twice, whatever was removed in between.
/// * Reads see every commit that has returned. Any number of readers and one writer may be at work at once, and a scan
///   sees one moment.
/// * A full disk or a missing file is [`Kind::Unavailable`], a damaged page [`Kind::Tampered`], never an empty answer.
///   After `Unavailable` a commit may have happened all the same: read before you repeat it.
pub trait Store: Send + Sync {
    /// The record at `path`.
    ///
    /// # Errors
    /// `Unavailable` where the database cannot be read, `Tampered` where a seal or page does not hold, `Invalid` for what
    /// is no path.
    fn get(&self, path: &str) -> Result<Option<Record>>;

    /// All records whose path starts with `prefix`, byte for byte, in the byte order of their paths. The empty prefix is
    /// all there is; `keys/a` also finds `keys/ab`, `keys/a/` does not.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn scan(&self, prefix: &str) -> Result<Vec<Record>>;

    /// The paths of what [`Store::scan`] finds, without reading or opening any of it.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn paths(&self, prefix: &str) -> Result<Vec<String>>;

    /// Makes all `changes`, storing each value as `encode` turns it out, adds `rows`, and answers the revision of the changes.
    /// This is how a layer above binds what it stores to the revision, which only the driver's transaction knows.
    ///
    /// # Errors
    /// `Stale` or `Conflict` where an expectation does not hold or a row is there already, `Unavailable` where nothing could be written, `Busy` where
    /// another process holds the database, `Invalid` for what is no path or a path that stands twice in the batch, `Limit`
    /// past [`MAX_VALUE`], and whatever `encode` answers.
    fn commit_with(&self, changes: &[Change], rows: &[Row], encode: &Encode<'_>) -> Result<u64>;

    /// Writes a consistent copy of the whole database to a new file while others go on working.
    ///
    /// # Errors
    /// `Conflict` where something stands at `file`, `Unavailable` where the copy cannot be written.
    fn copy_to(&self, file: &std::path::Path) -> Result<()>;

    /// Makes all `changes`, and answers the revision they have.
    ///
    /// # Errors
    /// As [`Store::commit_with`].
    fn commit(&self, changes: &[Change]) -> Result<u64> {
        self.commit_rows(changes, &[])
    }

    /// Makes all `changes`, adds `rows`, and answers the revision of the changes.
    ///
    /// # Errors
    /// As [`Store::commit_with`].
    fn commit_rows(&self, changes: &[Change], rows: &[Row]) -> Result<u64> {
        self.commit_with(changes, rows, &|_, _, value| Ok(value.to_vec()))
    }

    /// The certificate with that serial number.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn certificate(&self, serial: &Serial) -> Result<Option<Found>>;

    /// A page of a search.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn certificates(&self, search: &Search) -> Result<Page>;

    /// The reservations that have no end, oldest first. Reads the whole table.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn open_reservations(&self) -> Result<Vec<Found>>;

    /// The last second of the last certificate of that version of an issuer, whatever came of it.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn last_end(&self, issuer: &IssuerName, version: Version, but: &str) -> Result<Option<jiff::Timestamp>>;

    /// At most `limit` certificates with names that were signed and end after `after` and before `until`, the soonest first.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn endings(&self, after: Cursor, until: jiff::Timestamp, limit: usize) -> Result<Vec<Ending>>;

    /// How many certificates there are.
    ///
    /// # Errors
    /// As [`Store::get`]; `Tampered` where their numbers have a gap.
    fn count_certificates(&self) -> Result<Counts>;
}

/// Segments of `[a-z0-9._:-]`, none empty, joined by `/`.
fn check_path(path: &str) -> Result<()> {
    let good = path.len() <= MAX_PATH && path.split('/').all(|segment| !segment.is_empty() && is_alphabet(segment));
    if good { Ok(()) } else { Err(Error::new(Kind::Invalid, "not a path of the store")) }
}

/// The beginning of a path.
fn check_prefix(prefix: &str) -> Result<()> {
    let good = prefix.len() <= MAX_PATH && prefix.split('/').all(is_alphabet);
    if good { Ok(()) } else { Err(Error::new(Kind::Invalid, "not the beginning of a path of the store")) }
}

fn is_alphabet(segment: &str) -> bool {
    segment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._:-".contains(&b))
}

/// A path that stood twice in a batch would leave it to chance what its expectation means.
fn check_batch(changes: &[Change]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for change in changes {
        check_path(&change.path)?;
        if !seen.insert(change.path.as_str()) {
            return Err(Error::new(Kind::Invalid, format!("{} stands twice in one batch", change.path)));
        }
    }
    Ok(())
}

/// Whether what stands at a path is what a change expects there.
fn check_expected(change: &Change, current: Option<u64>) -> Result<()> {
    match (change.expected, current) {
        (Expected::Any, _) | (Expected::Absent, None) => Ok(()),
        (Expected::Revision(expected), Some(current)) if expected == current => Ok(()),
        (Expected::Absent, Some(_)) => Err(Error::new(Kind::Conflict, format!("{} exists already", change.path))),
        (Expected::Revision(_), Some(_)) => {
            Err(Error::new(Kind::Stale, format!("{} was changed in the meantime", change.path)))
        }
        (Expected::Revision(_), None) => {
            Err(Error::new(Kind::Stale, format!("{} was removed in the meantime", change.path)))
        }
    }
}
