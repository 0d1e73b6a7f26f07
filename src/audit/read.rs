//! Reads records, also while the service writes them.

use std::io;
use std::path::{Path, PathBuf};

use super::point::{tampered, unreadable};
use super::pruned;
use super::record::Record;
use super::segment::{self, Line, Lines};
use crate::error::{Error, Kind, Result};

/// Reads the records of the log in `folder` from index `from` on.
///
/// # Errors
/// [`Kind::NotFound`] where there is no log, or that record was pruned; [`Kind::Tampered`] where the segment with that record is
/// missing.
pub fn read(folder: &Path, from: u64) -> Result<Records> {
    let begin = pruned::begin(folder)?.size();
    if from < begin {
        return Err(pruned::is_pruned(from, begin));
    }
    let (first, lines) = segment_of(folder, from)?;
    let mut records = Records { folder: folder.to_owned(), first, index: first, lines };
    let missing = from - first;
    let skipped = records.lines.skip(missing).map_err(|e| unreadable(segment::name(first), e))?;
    records.index += skipped;
    Ok(records)
}

/// The lines of the log from one on, as they stand there.
#[derive(Debug)]
pub(super) struct Lined(Records);

impl Lined {
    /// Starts before record `from`: in its segment, which is named by its first record, so that nothing before it is read.
    pub(super) fn open(folder: &Path, from: u64) -> Result<Self> {
        read(folder, from).map(Self)
    }

    /// The next line without its newline; `None` at the end of the log.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>> {
        let step = self.0.step().map_err(|e| unreadable(segment::name(self.0.first), e))?;
        if step != Line::Whole {
            return Ok(None);
        }
        self.0.index += 1;
        Ok(Some(self.0.lines.bytes()))
    }
}

/// How many records the log in `folder` has now: where `tail` starts to count back.
///
/// # Errors
/// [`Kind::NotFound`] where there is no log.
pub fn count(folder: &Path) -> Result<u64> {
    let (first, mut lines) = segment_of(folder, u64::MAX)?;
    let whole = lines.skip(u64::MAX).map_err(|e| unreadable(segment::name(first), e))?;
    Ok(first + whole)
}

/// Opens the segment that record `index` is in, or would be.
fn segment_of(folder: &Path, index: u64) -> Result<(u64, Lines)> {
    let listing = segment::list(folder).map_err(|e| unreadable(folder.display(), e))?;
    let Some(last) = listing.segments.last() else {
        return Err(Error::new(Kind::NotFound, format!("there is no audit log in {}", folder.display())));
    };
    let first = listing.segments.iter().copied().rfind(|first| *first <= index);
    let first =
        first.ok_or_else(|| tampered(format!("its first segment is missing, the last is {}", segment::name(*last))))?;
    let lines = Lines::open(&segment::path(folder, first), 0).map_err(|e| unreadable(segment::name(first), e))?;
    Ok((first, lines))
}

/// The records one after the other, each with its index. After `None` it can be asked again: that follows a log that is
/// being written. A last line that is not finished yet is not seen.
#[derive(Debug)]
pub struct Records {
    folder: PathBuf,
    /// Of the segment at hand.
    first: u64,
    /// Of the next record.
    index: u64,
    lines: Lines,
}

impl Records {
    /// The next record's index.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many bytes the line of the last record has.
    #[must_use]
    pub fn length(&self) -> usize {
        self.lines.bytes().len()
    }

    fn step(&mut self) -> io::Result<Line> {
        loop {
            let line = self.lines.next()?;
            // An empty segment has no successor: it would have the same name.
            if line != Line::End || self.index == self.first {
                return Ok(line);
            }
            // The next segment is named by this record, so nothing can have come between.
            match Lines::open(&segment::path(&self.folder, self.index), 0) {
                Ok(lines) => (self.lines, self.first) = (lines, self.index),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Line::End),
                Err(e) => return Err(e),
            }
        }
    }
}

impl Iterator for Records {
    type Item = Result<(u64, Record)>;

    fn next(&mut self) -> Option<Self::Item> {
        let name = || format!("{} line {}", segment::name(self.first), self.index - self.first + 1);
        let place = name();
        match self.step() {
            Ok(Line::Whole) => {}
            Ok(Line::Torn | Line::End) => return None,
            Err(e) => return Some(Err(unreadable(place, e))),
        }
        let index = self.index;
        self.index += 1;
        let record = serde_json::from_slice(self.lines.bytes());
        Some(record.map(|record| (index, record)).map_err(|e| tampered(format!("{place} is no record: {e}"))))
    }
}
