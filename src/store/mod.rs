//! Where records live.
//!
//! A store holds small records under paths such as `keys/default/release`. Everything in it is sealed before it gets here
//! ([`Sealed`] wraps any driver), so no query can look inside: a driver offers reading by path, scanning by prefix, and one
//! atomic, durable batch with expected revisions. Only `ledger` commits.

mod sealed;
mod sqlite;

pub use sealed::{Sealed, StorageKey};
pub use sqlite::Sqlite;

use crate::error::Result;

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
#[derive(Debug)]
pub struct Change {
    /// Where.
    pub path: String,
    /// On what condition.
    pub expected: Expected,
    /// The new bytes; `None` removes the record.
    pub value: Option<Vec<u8>>,
}

/// A driver of a database. Blocking: call it off the request threads.
///
/// **Contract**, held by `tests/it/contract/store.rs` for each driver:
/// * [`Store::commit`] makes all of a batch or nothing of it, and it is durable (survives the loss of power) on return.
/// * A batch whose expectations do not hold changes nothing and is [`crate::error::Kind::Stale`] (or `Conflict` for
///   [`Expected::Absent`]), naming the path.
/// * Reads see every commit that has returned. Any number of readers and one writer may be at work at once.
/// * A full disk, a missing file or a damaged page is `Unavailable` or `Tampered`, never an empty answer.
pub trait Store: Send + Sync {
    /// The record at `path`.
    ///
    /// # Errors
    /// `Unavailable` where the database cannot be read, `Tampered` where a seal or page does not hold.
    fn get(&self, path: &str) -> Result<Option<Record>>;

    /// All records whose path starts with `prefix`, in order of their paths.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn scan(&self, prefix: &str) -> Result<Vec<Record>>;

    /// Makes all `changes`, and answers the revision they have.
    ///
    /// # Errors
    /// `Stale` or `Conflict` where an expectation does not hold, `Unavailable` where nothing could be written.
    fn commit(&self, changes: &[Change]) -> Result<u64>;

    /// Writes a consistent copy of the whole database to a new file while others go on working.
    ///
    /// # Errors
    /// `Unavailable` where the copy cannot be written.
    fn copy_to(&self, file: &std::path::Path) -> Result<()>;
}
