//! A point of the log: where a record ends, in the tree and in the files.

use std::fmt;
use std::path::Path;

use super::merkle::{Frontier, Hash, leaf_hash};
use super::segment::{self, Line, Lines};
use crate::error::{Error, Kind, Result};

/// A size of the log, with the tree at that size and the place in the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) frontier: Frontier,
    /// The first record of the segment that the point is in.
    pub(super) segment: u64,
    /// The bytes of that segment up to the point.
    pub(super) offset: u64,
    /// The bytes of all segments before it.
    pub(super) before: u64,
}

impl Point {
    /// The number of records up to here.
    pub(super) const fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// The bytes of the log up to here.
    pub(super) const fn log_bytes(&self) -> u64 {
        self.before + self.offset
    }

    /// The start of the next segment.
    pub(super) fn rotated(&self) -> Self {
        Self { frontier: self.frontier.clone(), segment: self.size(), offset: 0, before: self.log_bytes() }
    }

    /// The number, from 1, of the line that comes next.
    pub(super) const fn line(&self) -> u64 {
        self.size() - self.segment + 1
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}", segment::name(self.segment), self.line())
    }
}

/// The error of a log that is not what was written.
pub(super) fn tampered(what: impl fmt::Display) -> Error {
    Error::new(Kind::Tampered, format!("the audit log is not what was written: {what}"))
        .hint("keep a copy, run `signet audit verify`, and put back what was written: a running service then goes on by itself")
}

/// The error of a file that cannot be read or written.
pub(super) fn unreadable(file: impl fmt::Display, error: std::io::Error) -> Error {
    Error::new(Kind::Unavailable, format!("the audit log cannot be read: {file}")).because(error)
}

/// Reads the records between two points from disk and compares them with the tree that was built as they were written; each
/// leaf goes to `leaf`.
///
/// # Errors
/// [`Kind::Tampered`] where they differ.
pub(super) fn reread(folder: &Path, from: &Point, to: &Point, mut leaf: impl FnMut(Hash)) -> Result<()> {
    let mut at = from.clone();
    loop {
        let path = segment::path(folder, at.segment);
        let name = segment::name(at.segment);
        let mut lines = Lines::open(&path, at.offset).map_err(|e| tampered(format!("{name} cannot be read: {e}")))?;
        while at.size() < to.size() && lines.next().map_err(|e| unreadable(&name, e))? == Line::Whole {
            let hash = leaf_hash(lines.bytes());
            at.frontier.push(hash);
            leaf(hash);
            at.offset = lines.offset();
        }
        if at.size() == to.size() {
            break;
        }
        if at.size() <= at.segment || !segment::path(folder, at.size()).exists() {
            return Err(tampered(format!("{at} of {} records is missing", to.size())));
        }
        at = at.rotated();
    }
    // The end of a segment and the start of the next are one point in the tree, and two places.
    if at.frontier == to.frontier && at.log_bytes() == to.log_bytes() {
        Ok(())
    } else {
        Err(tampered(format!("something from {from} up to record {} was edited", to.size())))
    }
}
