//! Brings each segment of the log to an archive once it is closed and below a signed head, with the heads over it.
//!
//! It goes on where it ended: what is there is found by its name, the newest of it is compared with the log, and what is missing is brought.
//! Nothing that is there is written over; where it is another's, that is told, and nothing is brought. A segment comes before the heads that
//! sign it, so an archive is whole at any moment.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::heads::{self, Entries, Step};
use super::point::{tampered, unreadable};
use super::pruned;
use super::queue::Reached;
use super::segment;
use super::sink::{Follower, rest_after};
use crate::error::{Error, Kind, Result};

/// So many failures in a row, of the kind that passes, are no news.
const PASSING: u32 = 3;

/// A segment that is closed and below a signed head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Closed {
    /// Its first record.
    pub(super) first: u64,
    /// The record after its last.
    pub(super) end: u64,
    /// The bytes of the file of heads that sign something in it, and nothing after it.
    pub(super) heads: Range<u64>,
}

/// A place that holds the segments of a log, compressed, and the heads over them.
pub(super) trait Shelf: std::fmt::Debug {
    /// The first records of the segments that are there whole, in order.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where it cannot be read, [`Kind::Tampered`] where there is something that does not belong there.
    fn segments(&mut self) -> Result<Vec<u64>>;

    /// A segment that is there, unpacked; it has so many bytes in the log.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where it cannot be read.
    fn open(&mut self, first: u64, plain: u64) -> Result<Box<dyn Read + Send>>;

    /// Compares the heads over a segment that is there with those of the log.
    ///
    /// # Errors
    /// [`Kind::Tampered`] where they are others.
    fn check_heads(&mut self, log: &Path, closed: &Closed) -> Result<()>;

    /// Compares a segment that is there, and its heads, with the log.
    ///
    /// # Errors
    /// [`Kind::Tampered`] where they are others.
    fn compare(&mut self, log: &Path, closed: &Closed) -> Result<()>;

    /// The bytes of all segments that are there, as they are kept.
    ///
    /// # Errors
    /// As [`Self::segments`].
    fn bytes(&mut self) -> Result<u64>;

    /// Brings a segment and its heads, and finds that they are there.
    ///
    /// # Errors
    /// As [`Self::compare`], and [`Kind::Unavailable`] where the place refuses.
    fn bring(&mut self, log: &Path, closed: &Closed) -> Result<()>;

    /// The error of one that is not of this log.
    fn other(&self, file: &str, what: &str) -> Error;
}

/// An archive that follows its log.
#[derive(Debug)]
pub(super) struct Archiving {
    log: PathBuf,
    shelf: Box<dyn Shelf>,
    /// Whether what is there was looked at.
    open: bool,
    /// What is to be brought, in order.
    missing: VecDeque<Closed>,
    /// The record after the last segment that is closed and signed, and the byte after its heads.
    known: (u64, u64),
    /// The segment that was open when closed ones were looked for, and the bytes of the heads then.
    looked: (u64, u64),
    /// The records that are there.
    size: u64,
    failures: u32,
    tampered: bool,
}

impl Archiving {
    pub(super) fn new(log: PathBuf, shelf: Box<dyn Shelf>) -> Self {
        Self {
            log,
            shelf,
            open: false,
            missing: VecDeque::new(),
            known: (0, 0),
            looked: (0, 0),
            size: 0,
            failures: 0,
            tampered: false,
        }
    }

    fn advance(&mut self, to: &Reached) -> Result<bool> {
        if !self.open {
            let all = closed(&self.log, (0, 0), to.heads)?;
            self.missing = missing(&self.log, &mut *self.shelf, &all, false)?.into();
            self.remember(&all, to);
            self.open = true;
            return Ok(true);
        }
        if let Some(next) = self.missing.front() {
            self.shelf.bring(&self.log, next)?;
            self.failures = 0;
            self.missing.pop_front();
            self.size = self.missing.front().map_or(self.known.0, |next| next.first);
            return Ok(true);
        }
        // A look at the folder is worth it where a segment was closed, and then a head came.
        if to.point.segment <= self.known.0 || self.looked == (to.point.segment, to.heads) {
            return Ok(false);
        }
        let new = closed(&self.log, self.known, to.heads)?;
        self.missing.extend(new.iter().cloned());
        self.remember(&new, to);
        Ok(!new.is_empty())
    }

    fn remember(&mut self, closed: &[Closed], to: &Reached) {
        if let Some(last) = closed.last() {
            self.known = (last.end, last.heads.end);
        }
        self.looked = (to.point.segment, to.heads);
        self.size = self.missing.front().map_or(self.known.0, |next| next.first);
    }
}

impl Follower for Archiving {
    fn step(&mut self, to: &Reached) -> Result<bool> {
        let step = self.advance(to);
        if let Err(error) = &step {
            self.failures = self.failures.saturating_add(1);
            self.tampered = error.kind() == Kind::Tampered;
            (self.open, self.known) = (false, (0, 0));
        } else if self.open && self.missing.is_empty() {
            self.failures = 0;
        }
        step
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn rest(&self, took: Duration) -> Duration {
        rest_after(self.failures).max(took)
    }

    fn is_news(&self) -> bool {
        self.tampered || self.failures >= PASSING
    }
}

/// Which closed segments the shelf lacks. The newest that is there is compared with the log, and all of them where `every` says so.
pub(super) fn missing(log: &Path, shelf: &mut dyn Shelf, closed: &[Closed], every: bool) -> Result<Vec<Closed>> {
    let there = shelf.segments()?;
    let begin = pruned::begin(log)?.size();
    if begin > 0 && there.first() != Some(&0) {
        let text = format!("the log was pruned below record {begin}, and its archive does not hold what is gone");
        return Err(Error::new(Kind::State, text)
            .hint("go on with the archive that it was pruned into, or begin with a copy of that"));
    }
    let is_closed = |first: &u64| closed.iter().any(|one| one.first == *first);
    // What lies before the first of the log was pruned from it.
    if let Some(first) = there.iter().find(|first| **first >= begin && !is_closed(first)) {
        return Err(shelf.other(&segment::packed_name(*first), "is no closed segment of this log"));
    }
    let held: Vec<_> = closed.iter().filter(|one| there.binary_search(&one.first).is_ok()).collect();
    let skip = if every { 0 } else { held.len().saturating_sub(1) };
    for one in held.into_iter().skip(skip) {
        shelf.compare(log, one)?;
    }
    Ok(closed.iter().filter(|one| there.binary_search(&one.first).is_err()).cloned().collect())
}

/// The segments after a record that are closed and below a head, of the first `length` bytes of heads. With the record goes the byte after
/// the heads before it.
pub(super) fn closed(log: &Path, (from, at): (u64, u64), length: u64) -> Result<Vec<Closed>> {
    let mut segments = segment::list(log).map_err(|e| unreadable(log.display(), e))?.segments;
    let begin = pruned::begin(log)?.size();
    segments.retain(|first| *first >= begin);
    let unreadable = |e| unreadable(heads::NAME, e);
    let file = File::open(log.join(heads::NAME)).map_err(unreadable)?;
    let mut entries = Entries::new(file, at, length).map_err(unreadable)?;
    let (mut found, mut start, mut ahead) = (Vec::new(), at, None);
    for two in segments.windows(2) {
        let [first, end] = *two else { continue };
        if first < from {
            continue;
        }
        let mut last = start;
        loop {
            let (size, after) = match ahead.take() {
                Some(head) => head,
                None => match entries.next().map_err(unreadable)? {
                    Step::Entry(entry) => (entry.head.size(), entries.offset()),
                    // No head is there yet that signs all of it.
                    Step::Torn(_) | Step::End => return Ok(found),
                    Step::Bad(at, what) => return Err(tampered(format!("what starts at byte {at} of heads {what}"))),
                },
            };
            if size <= first {
                // Of a segment that was pruned: they went with it.
                (start, last) = (after, after);
                continue;
            }
            if size > end {
                ahead = Some((size, after));
                break;
            }
            last = after;
            if size == end {
                break;
            }
        }
        found.push(Closed { first, end, heads: start..last });
        start = last;
    }
    Ok(found)
}

/// The bytes of the heads of a segment, as the log has them.
pub(super) fn own_heads(log: &Path, closed: &Closed) -> Result<Vec<u8>> {
    let unreadable = |e| unreadable(heads::NAME, e);
    let mut bytes = vec![0; usize::try_from(closed.heads.end - closed.heads.start).unwrap_or_default()];
    let file = File::open(log.join(heads::NAME)).map_err(unreadable)?;
    file.read_exact_at(&mut bytes, closed.heads.start).map_err(unreadable)?;
    Ok(bytes)
}
