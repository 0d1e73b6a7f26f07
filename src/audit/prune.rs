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
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;

use jiff::Timestamp;

use super::archive::other;
use super::heads;
use super::log::Log;
use super::merkle::leaf_hash;
use super::point::{Point, unreadable};
use super::read::read;
use super::segment::{self, Line, Lines};
use super::tiles::{Stored, damaged, rows_hold};
use super::tree::Tree;
use crate::error::Result;

/// The most segments of one act: reading them takes some seconds.
const MOST_SEGMENTS: usize = 16;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The archive that holds what is to go: a folder.
    pub archive: PathBuf,
    /// Nothing from that time on.
    pub before: Option<Timestamp>,
    /// Nothing from these records on, by what asks for that.
    pub limits: BTreeMap<String, u64>,
}

/// What may go.
#[derive(Clone, Debug)]
pub struct Prune {
    archive: PathBuf,
    folder: PathBuf,
    /// Where the log begins now.
    begin: Point,
    /// The segments that go: first record, the one after the last, and bytes.
    pieces: Vec<(u64, u64, u64)>,
    limits: BTreeMap<String, u64>,
    head: u64,
    more: bool,
}

impl Prune {
    /// What may go of `log`. Nothing is read of the archive but its names: see [`Self::check`].
    ///
    /// # Errors
    /// `Unavailable` where a folder cannot be read, or the hashes of the log are not stored yet.
    pub fn plan(log: &Log, wanted: Wanted) -> Result<Self> {
        let Wanted { archive, before, mut limits } = wanted;
        let (folder, begin) = (log.folder().to_owned(), log.begin());
        let list = |listed: std::io::Result<segment::Listing>, of: &PathBuf| {
            listed.map(|listing| listing.segments).map_err(|e| unreadable(of.display(), e))
        };
        let mut own = list(segment::list(&folder), &folder)?;
        own.retain(|first| *first >= begin.size());
        let packed = list(segment::list_packed(&archive), &archive)?;
        limits.insert("segments that are closed".into(), own.last().copied().unwrap_or_default());
        let head = log.tree()?.head().size();
        limits.insert("signed head".into(), head);
        let archived = own.windows(2).take_while(|two| two.first().is_some_and(|first| packed.contains(first)));
        limits.insert("archive".into(), archived.last().and_then(|two| two.last()).copied().unwrap_or(begin.size()));
        if let Some(before) = before {
            let ends = own.get(1..).unwrap_or_default();
            let old = ends.partition_point(|end| time(log, *end).is_some_and(|time| time <= before));
            let old = old.checked_sub(1).and_then(|at| ends.get(at)).copied().unwrap_or(begin.size());
            limits.insert("age".into(), old);
        }

        let below = limits.values().min().copied().unwrap_or_default();
        let bytes = |first| fs::metadata(segment::path(&folder, first)).map(|meta| meta.len());
        let mut pieces = Vec::new();
        for two in own.windows(2) {
            let [first, end] = two else { break };
            if *end > below {
                break;
            }
            pieces.push((*first, *end, bytes(*first).map_err(|e| unreadable(segment::name(*first), e))?));
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
        let mut frontier = self.begin.frontier.clone();
        for (first, end, bytes) in &self.pieces {
            let name = segment::packed_name(*first);
            let not = |what: String| other(&self.archive, &name, &what);
            let broken = |e: std::io::Error| not(format!("cannot be unpacked: {e}"));
            let mut lines = Lines::open_packed(&self.archive.join(&name), 0).map_err(broken)?;
            let mut leaves = Vec::new();
            while lines.next().map_err(broken)? == Line::Whole {
                leaves.push(leaf_hash(lines.bytes()));
            }
            leaves.iter().for_each(|leaf| frontier.push(*leaf));
            if frontier.size() != *end || lines.offset() != *bytes || !lines.bytes().is_empty() {
                return Err(not("does not hold so many records".into()));
            }
            if tree.frontier(*end)? != frontier {
                return Err(not("holds other records than the log".into()));
            }
            if Stored(&self.folder).hashes(0, *first, end - first)? != leaves {
                return Err(damaged());
            }
        }
        // Where these do not hold they can still be made anew.
        rows_hold(&self.folder, self.begin.size(), self.below()).map_err(|_| damaged())?;
        self.check_heads()
    }

    /// The heads of the archive are those of the log.
    fn check_heads(&self) -> Result<()> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let missing = |_| other(&self.archive, heads::NAME, "are missing");
        let archived = fs::read(self.archive.join(heads::NAME)).map_err(missing)?;
        let mut own = Vec::new();
        let read = File::open(self.folder.join(heads::NAME))
            .and_then(|file| file.take(archived.len() as u64).read_to_end(&mut own));
        read.map_err(|e| unreadable(heads::NAME, e))?;
        if archived.is_empty() || archived != own {
            return Err(other(&self.archive, heads::NAME, "are not those of this log"));
        }
        Ok(())
    }

    /// The first record that is there now.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.begin.size()
    }

    /// The first record that stays.
    #[must_use]
    pub fn below(&self) -> u64 {
        self.pieces.last().map_or(self.begin.size(), |(_, end, _)| *end)
    }

    /// The segments that go.
    #[must_use]
    pub const fn segments(&self) -> usize {
        self.pieces.len()
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(.., bytes)| bytes).sum()
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
    pub fn archive(&self) -> String {
        self.archive.display().to_string()
    }
}

/// When a record was made.
fn time(log: &Log, index: u64) -> Option<Timestamp> {
    let (_, record) = read(log.folder(), index).ok()?.next()?.ok()?;
    record.time.parse().ok()
}
