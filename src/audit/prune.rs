//! What of a log may be removed: records that an archive holds, below a head that is vouched for.
//!
//! ```text
//! first      below                          size
//!   ├─ gone ───┼──────────── kept ────────────┤
//!              └ named by its first record: whole segments go
//! ```
//!
//! Each limit names the record that it holds, and the lowest counts. That the archive holds exactly these records is found by reading
//! it, just before: their hashes must be those that the signed head covers. So nothing goes that is not in it, whatever its files are
//! called. [`super::Log::prune`] does it then.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;

use super::archiving::{Closed, closed};
use super::heads;
use super::log::Log;
use super::merkle::leaf_hash;
use super::point::{Point, unreadable};
use super::read::read;
use super::segment::{self, Line, Lines};
use super::sink::ArchivePlace;
use super::tiles::{Stored, damaged, rows_hold};
use super::tree::Tree;
use crate::error::Result;

/// The most segments of one act: reading them takes some seconds.
const MOST_SEGMENTS: usize = 16;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The archive that holds what is to go.
    pub archive: ArchivePlace,
    /// Nothing from that time on.
    pub before: Option<Timestamp>,
    /// Nothing from these records on, by what asks for that.
    pub limits: BTreeMap<String, u64>,
}

/// What may go.
#[derive(Clone, Debug)]
pub struct Prune {
    archive: ArchivePlace,
    folder: PathBuf,
    /// Where the log begins now.
    begin: Point,
    /// The segments that go, and their bytes.
    pieces: Vec<(Closed, u64)>,
    limits: BTreeMap<String, u64>,
    head: u64,
    more: bool,
}

impl Prune {
    /// What may go of `log`. Nothing is read of the archive but its names: see [`Self::check`].
    ///
    /// # Errors
    /// `Unavailable` where the log or the archive cannot be read, or the hashes of the log are not stored yet; `Tampered` where something
    /// in the archive does not belong there.
    pub fn plan(log: &Log, wanted: Wanted) -> Result<Self> {
        let Wanted { archive, before, mut limits } = wanted;
        let (folder, begin) = (log.folder().to_owned(), log.begin());
        let heads = fs::metadata(folder.join(heads::NAME)).map_err(|e| unreadable(heads::NAME, e))?.len();
        let own = closed(&folder, (0, 0), heads)?;
        let end = |last: Option<&Closed>| last.map_or(begin.size(), |one| one.end);
        limits.insert("segments that are closed".into(), end(own.last()));
        let head = log.tree()?.head().size();
        limits.insert("signed head".into(), head);
        let there = archive.open()?.segments()?;
        let archived = own.iter().take_while(|one| there.binary_search(&one.first).is_ok());
        limits.insert("archive".into(), end(archived.last()));
        if let Some(before) = before {
            let old = own.partition_point(|one| time(log, one.end).is_some_and(|time| time <= before));
            limits.insert("age".into(), end(old.checked_sub(1).and_then(|last| own.get(last))));
        }

        let below = limits.values().min().copied().unwrap_or_default();
        let mut pieces = Vec::new();
        for one in own.into_iter().take_while(|one| one.end <= below) {
            let bytes = fs::metadata(segment::path(&folder, one.first)).map(|meta| meta.len());
            let bytes = bytes.map_err(|e| unreadable(segment::name(one.first), e))?;
            pieces.push((one, bytes));
        }
        let more = pieces.len() > MOST_SEGMENTS;
        pieces.truncate(MOST_SEGMENTS);
        Ok(Self { archive, folder, begin, pieces, limits, head, more })
    }

    /// Whether the archive holds what may go, record by record, and with the heads that vouch for it; and whether the stored hashes of
    /// it hold, which stay.
    ///
    /// # Errors
    /// `Tampered` with the piece of the archive that is not the one of the log; `Unavailable` where the stored hashes do
    /// not hold, or a disk refuses.
    pub fn check(&self, tree: &Tree) -> Result<()> {
        let (mut shelf, mut frontier) = (self.archive.open()?, self.begin.frontier.clone());
        for (closed, bytes) in &self.pieces {
            let Closed { first, end, .. } = closed;
            let packed = shelf.open(*first, *bytes)?;
            shelf.check_heads(&self.folder, closed)?;
            let not = |what: &str| shelf.other(&segment::packed_name(*first), what);
            let broken = |e: std::io::Error| not(&format!("cannot be unpacked: {e}"));
            let mut lines = Lines::of(packed, 0);
            let mut leaves = Vec::new();
            while lines.next().map_err(broken)? == Line::Whole {
                leaves.push(leaf_hash(lines.bytes()));
            }
            leaves.iter().for_each(|leaf| frontier.push(*leaf));
            if frontier.size() != *end || lines.offset() != *bytes || !lines.bytes().is_empty() {
                return Err(not("does not hold so many records"));
            }
            if tree.frontier(*end)? != frontier {
                return Err(not("holds other records than the log"));
            }
            if Stored(&self.folder).hashes(0, *first, end - first)? != leaves {
                return Err(damaged());
            }
        }
        // Where these do not hold they can still be made anew.
        rows_hold(&self.folder, self.begin.size(), self.below()).map_err(|_| damaged())
    }

    /// The first record that is there now.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.begin.size()
    }

    /// The first record that stays.
    #[must_use]
    pub fn below(&self) -> u64 {
        self.pieces.last().map_or(self.begin.size(), |(last, _)| last.end)
    }

    /// The segments that go.
    #[must_use]
    pub const fn segments(&self) -> usize {
        self.pieces.len()
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, bytes)| bytes).sum()
    }

    /// The bytes of the log below the first record that stays.
    pub(super) fn log_bytes(&self) -> u64 {
        self.begin.before + self.bytes()
    }

    /// What keeps records from going, each with the first that it keeps.
    #[must_use]
    pub const fn limits(&self) -> &BTreeMap<String, u64> {
        &self.limits
    }

    /// The size of the signed head that covers it.
    #[must_use]
    pub const fn head(&self) -> u64 {
        self.head
    }

    /// Whether more may go afterwards.
    #[must_use]
    pub const fn more(&self) -> bool {
        self.more
    }

    /// Where the archive is.
    #[must_use]
    pub const fn archive(&self) -> &ArchivePlace {
        &self.archive
    }
}

/// When a record was made.
fn time(log: &Log, index: u64) -> Option<Timestamp> {
    let (_, record) = read(log.folder(), index).ok()?.next()?.ok()?;
    record.time.parse().ok()
}
