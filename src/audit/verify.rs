//! Checks a log without the service: by the auditor, on a copy, with the public keys alone.
//!
//! Each line is hashed again, and each head compared: its signature, and its root with the one over the lines before it.
//! A root covers everything before it, so the first head that does not match says between which two heads something is
//! wrong, and within them the lines that cannot have been written by us are named. From a head that matches its own signed
//! frontier the check goes on, so that a second edit further on is found too.
//!
//! It needs as much memory as the longest line, and may run while the service writes.
//!
//! Of records that were pruned the stored hashes are checked in their place, with the heads and receipts over them, or the records
//! themselves where the archive that holds them is given.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use super::checkpoint::{Head, HeadKeys, Mark};
use super::heads::{self, Entries, Entry, Step};
use super::merkle::{Frontier, Hash, leaf_hash};
use super::point::unreadable;
use super::pruned::{self, Pruned};
use super::receipt::Receipts;
use super::record::Record;
use super::segment::{self, Line, Lines, Listing};
use super::tiles;
use crate::error::{Error, Kind, Result};
use crate::types::{NoteKey, PublicKey};

/// No more problems than these are listed: after so many the rest says nothing new.
const MAX_PROBLEMS: usize = 100;

/// The file of the hashes of records.
const TILES: &str = "tiles-0";

/// What [`verify()`] found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The records that are there.
    pub records: u64,
    /// The well-formed heads that are there.
    pub heads: u64,
    /// The root over all records; `None` where something is missing.
    pub root: Option<Hash>,
    /// The last head that matches, with its signature if a key was given.
    pub head: Option<Head>,
    /// Who signed that head, as `name+key id`; `None` where no head matches.
    pub signed_by: Option<String>,
    /// Whether signatures were checked.
    pub signatures_checked: bool,
    /// What each key signed, of those that were given and signed anything.
    pub signatures: Vec<Signed>,
    /// The records after the last head that matches: nobody vouches for them yet.
    pub unsigned_tail: u64,
    /// The receipts that were held against the log.
    pub receipts: u64,
    /// What was pruned.
    pub gone: Option<Gone>,
    /// The bytes of a last line that is not finished: a record that is being written, or was when the power went.
    pub unfinished_bytes: u64,
    /// What is wrong, at most the first hundred.
    pub problems: Vec<Problem>,
    /// What is worth knowing and proves nothing by itself, at most so much.
    pub notes: Vec<String>,
}

/// What one key of a log signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Its algorithm, for people.
    pub algorithm: &'static str,
    /// How many heads bear its signature, and it verifies.
    pub heads: u64,
    /// The records of the first of them. What came before is vouched for by it as well.
    pub from: u64,
}

impl Report {
    /// Whether everything is as it was written.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.problems.is_empty()
    }
}

/// Records that were pruned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// How many: the log begins with the record of that index.
    pub records: u64,
    /// Who pruned them last, as in a record.
    pub by: String,
    /// When.
    pub time: String,
    /// The size of the head that this was recorded below.
    pub head: u64,
    /// Whether they were read, from the archive.
    pub archived: bool,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// The line in it, from 1, where one can be named.
    pub line: Option<u64>,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, what } = self;
        match line {
            Some(line) => write!(f, "{file} line {line}: {what}"),
            None => write!(f, "{file}: {what}"),
        }
    }
}

/// Checks the log in `folder`, or an archive of one ([`super::archive()`]). Without keys the signatures are not checked, only that the
/// heads match the records. With keys each head is signed by that of ECDSA, and by that of Ed25519 from the first one on that is: a log
/// may have got it later.
///
/// # Errors
/// [`Kind::NotFound`] where there is no log; [`Kind::Unavailable`] where the disk refuses; [`Kind::Invalid`] for a key of
/// another kind. What is wrong with the log itself is in the report.
pub fn verify<'k>(folder: &Path, keys: impl IntoIterator<Item = &'k PublicKey>) -> Result<Report> {
    verify_with(folder, keys, Receipts::default())
}

/// As [`verify()`], and holds receipts against the log: each record that an answer named must be there, and be the same.
///
/// # Errors
/// As [`verify()`].
pub fn verify_with<'k>(
    folder: &Path,
    keys: impl IntoIterator<Item = &'k PublicKey>,
    receipts: Receipts,
) -> Result<Report> {
    verify_archived(folder, keys, receipts, None)
}

/// As [`verify_with()`], and reads what was pruned from an archive of the log.
///
/// # Errors
/// As [`verify()`].
pub fn verify_archived<'k>(
    folder: &Path,
    keys: impl IntoIterator<Item = &'k PublicKey>,
    receipts: Receipts,
    archive: Option<&Path>,
) -> Result<Report> {
    let keys = HeadKeys::given(keys)?;
    loop {
        let before = Pruned::read(folder).ok().flatten();
        match walk(folder, keys.as_ref(), receipts.clone(), archive) {
            // What could not be read was pruned meanwhile.
            Err(_) if Pruned::read(folder).ok().flatten() != before => {}
            walked => return walked,
        }
    }
}

fn walk(folder: &Path, keys: Option<&HeadKeys>, receipts: Receipts, archive: Option<&Path>) -> Result<Report> {
    // The heads first: what they sign is there already, while heads that come later are left to the next time.
    let heads = Heads::open(folder, keys)?;
    let listed = |listing: std::io::Result<_>| listing.map_err(|e| unreadable(folder.display(), e));
    let mut listing: Listing = listed(segment::list(folder))?;
    let packed = listing.segments.is_empty() && !listed(segment::list_packed(folder))?.segments.is_empty();
    if packed {
        listing = listed(segment::list_packed(folder))?;
    } else if listing.segments.is_empty() && heads.missing {
        return Err(Error::new(Kind::NotFound, format!("there is no audit log in {}", folder.display())));
    }
    // Behind the segments: what it says is gone is not read, whether it is or is about to go.
    let pruned = Pruned::read(folder);
    let mut walk = Walk::new(folder, packed, heads, receipts)?;
    for stranger in listing.strangers {
        walk.report(stranger, None, "is no segment");
    }
    if let Some(pruned) = walk.begin(pruned, keys)? {
        listing.segments.retain(|first| *first >= pruned.point().size());
        match archive {
            Some(archive) => walk.archived(&pruned, archive)?,
            None => walk.hashes(&pruned)?,
        }
        walk.arrive(&pruned)?;
    } else if archive.is_some() {
        return Err(Error::new(Kind::Invalid, "nothing was pruned from this log")
            .hint("an archive is verified by itself: name its folder in place of the log's"));
    }
    for (at, first) in listing.segments.iter().enumerate() {
        walk.segment(*first, at + 1 == listing.segments.len())?;
    }
    walk.finish()
}

/// The leaf hashes of the first `size` records: what proofs are made of.
///
/// # Errors
/// [`Kind::NotFound`] where the log is shorter; [`Kind::Unavailable`] where the disk refuses.
pub fn leaves(folder: &Path, size: u64) -> Result<Vec<Hash>> {
    let mut leaves = Vec::new();
    tiles::leaves_below(folder, pruned::begin(folder)?.size().min(size), |leaf| leaves.push(leaf))?;
    let mut left = size - leaves.len() as u64;
    while left > 0 {
        let first = leaves.len() as u64;
        let name = segment::name(first);
        let short = || Error::new(Kind::NotFound, format!("the audit log has only {first} records"));
        let path = segment::path(folder, first);
        if !path.exists() {
            return Err(short());
        }
        let mut lines = Lines::open(&path, 0).map_err(|e| unreadable(&name, e))?;
        while left > 0 && lines.next().map_err(|e| unreadable(&name, e))? == Line::Whole {
            leaves.push(leaf_hash(lines.bytes()));
            left -= 1;
        }
        if leaves.len() as u64 == first {
            return Err(short());
        }
    }
    Ok(leaves)
}

/// The heads, one after the other, each checked by itself.
struct Heads {
    entries: Option<Entries>,
    /// The keys that were given, and what each signed so far.
    keys: Vec<(NoteKey, Option<Signed>)>,
    /// The keys whose signatures each head bore until now, whether they were given or not.
    borne: BTreeSet<[u8; 4]>,
    notes: Vec<String>,
    missing: bool,
    count: u64,
    last: Option<Head>,
}

impl Heads {
    fn open(folder: &Path, keys: Option<&HeadKeys>) -> Result<Self> {
        let read = |file: File| Entries::new(file.try_clone()?, 0, file.metadata()?.len());
        let entries = match File::open(folder.join(heads::NAME)).and_then(read) {
            Ok(entries) => Some(entries),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(unreadable(heads::NAME, e)),
        };
        let keys = keys.into_iter().flat_map(HeadKeys::iter).map(|key| (key.clone(), None)).collect();
        let (missing, borne) = (entries.is_none(), BTreeSet::new());
        Ok(Self { entries, keys, borne, notes: Vec::new(), missing, count: 0, last: None })
    }

    /// The next head that is good by itself; what is wrong with others goes to `problems`.
    fn next(&mut self, problems: &mut Vec<Problem>) -> Result<Option<Entry>> {
        loop {
            let Some(entries) = &mut self.entries else { return Ok(None) };
            let mut problem = |what: String| note(problems, Problem { file: heads::NAME.into(), line: None, what });
            match entries.next().map_err(|e| unreadable(heads::NAME, e))? {
                // A head that is being written, or was when the power went: the log cuts it off when it is opened.
                Step::Torn(_) | Step::End => return Ok(None),
                Step::Bad(at, what) => problem(format!("what starts at byte {at} {what}")),
                Step::Entry(entry) => {
                    self.count += 1;
                    match self.flaw(&entry.head) {
                        Some(flaw) => problem(format!("head {}, of {} records, {flaw}", self.count, entry.head.size())),
                        None => {
                            self.count_signatures(&entry.head);
                            self.last = Some(entry.head.clone());
                            return Ok(Some(entry));
                        }
                    }
                }
            }
        }
    }

    fn flaw(&self, head: &Head) -> Option<String> {
        for (key, signed) in &self.keys {
            let mark = head.mark(key);
            // A log may have got its Ed25519 key when it had heads already; from then on it is on each.
            let earlier = mark == Mark::Missing && !key.is_ecdsa() && signed.is_none();
            if let Some(flaw) = mark.flaw(key).filter(|_| !earlier) {
                return Some(flaw);
            }
        }
        match &self.last {
            Some(last) if last.origin() != head.origin() => Some(format!("is of {}", head.origin())),
            Some(last) if last.size() >= head.size() => Some("does not come after the one before it".into()),
            Some(_) | None => None,
        }
    }
}

impl Heads {
    /// Counts the signatures of a good head, and notes those that are there no more.
    fn count_signatures(&mut self, head: &Head) {
        for (key, signed) in &mut self.keys {
            if head.mark(key) == Mark::Right {
                let new = || Signed { algorithm: key.algorithm(), heads: 0, from: head.size() };
                signed.get_or_insert_with(new).heads += 1;
            }
        }
        let now: BTreeSet<_> = head.ids().collect();
        let (size, room) = (head.size(), MAX_PROBLEMS.saturating_sub(self.notes.len()));
        self.notes.extend(self.borne.difference(&now).take(room).map(|id| {
            let id = hex::encode(id);
            format!("the head of {size} records lacks the signature of key {id}, which those before it bear")
        }));
        self.borne = now;
    }

    /// What each key signed; one that signed nothing is a problem.
    fn signatures(&self, problems: &mut Vec<Problem>) -> Vec<Signed> {
        for (key, signed) in &self.keys {
            if signed.is_none() && self.count > 0 && !key.is_ecdsa() {
                let what = format!("no head is signed by the {} key that was given", key.algorithm());
                note(problems, Problem { file: heads::NAME.into(), line: None, what });
            }
        }
        self.keys.iter().filter_map(|(_, signed)| *signed).collect()
    }
}

/// The way through the log, line by line, with the heads at its side.
struct Walk<'a> {
    folder: &'a Path,
    /// Whether it is an archive.
    packed: bool,
    /// Where what was pruned is read from.
    archive: Option<&'a Path>,
    /// The first record that was not pruned.
    kept: u64,
    heads: Heads,
    /// The head to come.
    next: Option<Entry>,
    /// The tree so far; `None` after something was found, until a head's own frontier is taken up.
    frontier: Option<Frontier>,
    /// Whether to wait for the next segment, whose name says which record it begins with, before a frontier is taken up.
    shifted: bool,
    /// The segment at hand.
    last_segment: u64,
    /// The records and bytes so far.
    index: u64,
    bytes: u64,
    /// The last head that matched, and the place after it.
    good: Place,
    receipts: Receipts,
    report: Report,
}

/// A record's index and where its line is.
#[derive(Clone, Copy, Default)]
struct Place {
    index: u64,
    segment: u64,
    offset: u64,
}

impl<'a> Walk<'a> {
    fn new(folder: &'a Path, packed: bool, heads: Heads, receipts: Receipts) -> Result<Self> {
        let report = Report { signatures_checked: !heads.keys.is_empty(), ..Report::default() };
        let mut walk = Self {
            folder,
            packed,
            archive: None,
            kept: 0,
            heads,
            next: None,
            frontier: Some(Frontier::default()),
            shifted: false,
            last_segment: 0,
            index: 0,
            bytes: 0,
            good: Place::default(),
            receipts,
            report,
        };
        if walk.heads.missing {
            walk.report(heads::NAME.into(), None, "is missing");
        }
        walk.next = walk.heads.next(&mut walk.report.problems)?;
        if let Some(entry) = &walk.next {
            walk.receipts.origin(entry.head.origin(), |problem| note(&mut walk.report.problems, problem));
        }
        Ok(walk)
    }

    fn report(&mut self, file: String, line: Option<u64>, what: impl Into<String>) {
        note(&mut self.report.problems, Problem { file, line, what: what.into() });
    }

    /// Whether a segment is one of an archive.
    const fn is_packed(&self, first: u64) -> bool {
        self.packed || first < self.kept
    }

    fn name(&self, first: u64) -> String {
        if self.is_packed(first) { segment::packed_name(first) } else { segment::name(first) }
    }

    fn open(&self, first: u64, offset: u64) -> std::io::Result<Lines> {
        let folder = self.archive.filter(|_| first < self.kept).unwrap_or(self.folder);
        let path = folder.join(self.name(first));
        if self.is_packed(first) { Lines::open_packed(&path, offset) } else { Lines::open(&path, offset) }
    }

    /// Whether the log may begin where it says. Where not, all is expected to be there.
    fn begin(&mut self, pruned: Result<Option<Pruned>>, keys: Option<&HeadKeys>) -> Result<Option<Pruned>> {
        let pruned = match pruned {
            Ok(None) => return Ok(None),
            Ok(Some(pruned)) => pruned,
            Err(error) if error.kind() == Kind::Tampered => {
                self.report(pruned::NAME.into(), None, error.public());
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let origin = self.next.as_ref().map(|entry| entry.head.origin().clone());
        let none = || Some(format!("names a head of {} records, and there is none", pruned.head()));
        if let Some(flaw) = origin.map_or_else(none, |origin| pruned.flaw(&origin, keys)) {
            self.report(pruned::NAME.into(), None, flaw);
            return Ok(None);
        }
        self.kept = pruned.point().size();
        let record = pruned.record();
        let said = |what: fn(Record) -> String| record.clone().map(what).unwrap_or_default();
        self.report.gone = Some(Gone {
            records: self.kept,
            by: said(|record| record.principal),
            time: said(|record| record.time),
            head: pruned.head(),
            archived: false,
        });
        Ok(Some(pruned))
    }

    /// Reads what was pruned from an archive.
    fn archived(&mut self, pruned: &Pruned, archive: &'a Path) -> Result<()> {
        self.archive = Some(archive);
        let listing = segment::list_packed(archive).map_err(|e| unreadable(archive.display(), e))?;
        let kept = self.kept;
        for first in listing.segments.into_iter().filter(|first| *first < kept) {
            self.segment(first, false)?;
        }
        if self.index < self.kept {
            let what = format!("records {} to {} are missing in the archive", self.index, self.kept - 1);
            self.report(segment::packed_name(self.index), None, what);
            self.frontier = None;
        }
        if let Some(gone) = &mut self.report.gone {
            gone.archived = true;
        }
        if let Err(error) = tiles::hold_below(self.folder, &pruned.point()) {
            self.report(TILES.into(), None, error.public());
        }
        Ok(())
    }

    /// Holds the heads and receipts below what was pruned against the stored hashes.
    fn hashes(&mut self, pruned: &Pruned) -> Result<()> {
        if let Err(error) = tiles::lead_to(self.folder, &pruned.point()) {
            self.report(TILES.into(), None, error.public());
            return Ok(());
        }
        let (folder, kept, mut result) = (self.folder, self.kept, Ok(()));
        tiles::leaves_below(folder, kept, |leaf| {
            if result.is_ok() {
                result = self.heads_here(Place { index: self.index, ..Place::default() });
                self.root_here();
                self.receipts.leaf(self.index, &leaf, |problem| note(&mut self.report.problems, problem));
                if let Some(frontier) = &mut self.frontier {
                    frontier.push(leaf);
                }
                self.index += 1;
            }
        })?;
        result?;
        if let Err(error) = tiles::rows_hold(folder, 0, kept) {
            self.report(TILES.into(), None, error.public());
        }
        Ok(())
    }

    /// Goes on from where the log begins. What came before must have led there.
    fn arrive(&mut self, pruned: &Pruned) -> Result<()> {
        let begin = pruned.point();
        let there = self.index == self.kept && self.frontier.as_ref() == Some(&begin.frontier);
        if !there && self.report.problems.is_empty() {
            let what = format!("does not hold what was pruned below record {}", self.kept);
            self.report(if self.archive.is_some() { "archive" } else { TILES }.into(), None, what);
        }
        while let Some(entry) = self.next.take_if(|entry| entry.head.size() < self.kept) {
            self.report.head = Some(entry.head);
            self.next = self.heads.next(&mut self.report.problems)?;
        }
        if self.archive.is_some() && self.bytes != begin.before && self.report.problems.is_empty() {
            let what =
                format!("says that what was pruned had {} bytes, and the archive holds {}", begin.before, self.bytes);
            self.report(pruned::NAME.into(), None, what);
        }
        (self.index, self.bytes, self.frontier) = (self.kept, begin.before, Some(begin.frontier));
        (self.last_segment, self.shifted) = (self.kept, false);
        self.good = Place { index: self.kept, segment: self.kept, offset: 0 };
        Ok(())
    }

    fn segment(&mut self, first: u64, is_last: bool) -> Result<()> {
        let name = self.name(first);
        let packed = self.is_packed(first);
        if first != self.index {
            self.gap(first);
        }
        self.shifted = false;
        self.last_segment = first;
        if self.good.index == first {
            self.good = Place { index: first, segment: first, offset: 0 };
        }
        let mut lines = self.open(first, 0).map_err(|e| unreadable(&name, e))?;
        let start = self.bytes;
        loop {
            let place = Place { index: self.index, segment: first, offset: lines.offset() };
            self.heads_here(place)?;
            self.root_here();
            let line = match lines.next() {
                Ok(line) => line,
                Err(e) if packed => {
                    let what = format!("cannot be unpacked from there on: {e}");
                    self.report(name.clone(), Some(self.index - first + 1), what);
                    break;
                }
                Err(e) => return Err(unreadable(&name, e)),
            };
            match line {
                Line::Whole => {}
                Line::Torn if is_last && !packed => {
                    self.report.unfinished_bytes = lines.bytes().len() as u64;
                    break;
                }
                Line::Torn => {
                    self.report(name.clone(), Some(self.index - first + 1), "has no end, but more segments follow");
                    break;
                }
                Line::End => break,
            }
            // What a head vouches for needs no second look at its form.
            if self.next.is_none() && !segment::is_record(lines.bytes()) {
                self.report(name.clone(), Some(self.index - first + 1), "is no record");
            }
            let leaf = leaf_hash(lines.bytes());
            self.receipts.leaf(self.index, &leaf, |problem| note(&mut self.report.problems, problem));
            if let Some(frontier) = &mut self.frontier {
                frontier.push(leaf);
            }
            self.index += 1;
            self.report.records += 1;
            self.bytes = start + lines.offset();
        }
        Ok(())
    }

    /// Compares the roots of this size that receipts name with what was read.
    fn root_here(&mut self) {
        if self.receipts.next_root().is_some_and(|size| size <= self.index) {
            let root = self.frontier.as_ref().map(Frontier::root);
            self.receipts.root(self.index, root, |problem| note(&mut self.report.problems, problem));
        }
    }

    /// The segment that comes does not begin where the last one ended.
    fn gap(&mut self, first: u64) {
        let name = self.name(first);
        let what = if first > self.index {
            format!("records {} to {} are missing before it", self.index, first - 1)
        } else {
            format!("begins with record {first}, but {} records come before it", self.index)
        };
        self.report(name, Some(1), what);
        self.frontier = None;
        self.index = first;
    }

    /// Compares the heads of this size with what was read.
    fn heads_here(&mut self, place: Place) -> Result<()> {
        while let Some(entry) = self.next.take_if(|entry| entry.head.size() <= self.index) {
            if entry.head.size() < self.index {
                // It lies within a gap that was reported.
            } else if self.frontier.as_ref().is_some_and(|frontier| frontier.root() == *entry.head.root()) {
                // Of what is gone only the hashes are here.
                let counted = self.index >= self.kept || self.archive.is_some();
                if counted && entry.log_bytes != self.bytes {
                    let what =
                        format!("the head of {} records says that they have {} bytes", self.index, entry.log_bytes);
                    self.report(heads::NAME.into(), None, what);
                }
                self.report.signed_by = entry.head.signers().into_iter().next();
                self.report.head = Some(entry.head);
                self.good = place;
            } else {
                self.mismatch(&entry, place)?;
            }
            self.next = self.heads.next(&mut self.report.problems)?;
        }
        Ok(())
    }

    /// What was read is not what this head signs.
    fn mismatch(&mut self, entry: &Entry, place: Place) -> Result<()> {
        if self.index < self.kept && self.archive.is_none() {
            let (from, size) = (self.good.index, entry.head.size());
            let what = format!(
                "the hashes of records {from} to {} were edited: the head of {size} records signs others",
                size - 1
            );
            self.report(TILES.into(), None, what);
        } else if self.frontier.is_some() {
            let from = self.good;
            let what = format!(
                "something in records {} to {} was edited, moved, added or removed: the head of {} records signs others",
                from.index,
                place.index.saturating_sub(1),
                entry.head.size()
            );
            self.report(self.name(from.segment), Some(from.index - from.segment + 1), what);
            self.suspects(from, place.index)?;
            self.shifted = self.bytes != entry.log_bytes;
        }
        self.frontier = if self.shifted { None } else { Some(entry.frontier.clone()) };
        self.good = place;
        Ok(())
    }

    /// Names the lines between two places that we cannot have written.
    fn suspects(&mut self, from: Place, until: u64) -> Result<()> {
        let Place { mut index, mut segment, mut offset } = from;
        while index < until && self.report.problems.len() < MAX_PROBLEMS {
            let name = self.name(segment);
            let Ok(mut lines) = self.open(segment, offset) else { return Ok(()) };
            loop {
                match lines.next() {
                    Ok(Line::Whole) if index < until => {}
                    Ok(Line::Whole | Line::Torn | Line::End) => break,
                    // That is said where the segment was read.
                    Err(_) if self.is_packed(segment) => return Ok(()),
                    Err(e) => return Err(unreadable(&name, e)),
                }
                if !is_ours(lines.bytes()) {
                    self.report(name.clone(), Some(index - segment + 1), "is no record as the log writes them");
                }
                index += 1;
            }
            if index == segment {
                return Ok(());
            }
            (segment, offset) = (index, 0);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Report> {
        let (index, mut missing) = (self.index, None);
        while let Some(entry) = self.next.take() {
            missing = Some(entry.head.size());
            self.next = self.heads.next(&mut self.report.problems)?;
        }
        if let Some(size) = missing {
            let (file, line) = (self.name(self.last_segment), index - self.last_segment + 1);
            self.report(
                file,
                Some(line),
                format!("the last head signs {size} records, but the log ends after {index}"),
            );
        }
        self.root_here();
        self.receipts.end(index, |problem| note(&mut self.report.problems, problem));
        self.report.receipts = self.receipts.checked();
        self.report.heads = self.heads.count;
        self.report.signatures = self.heads.signatures(&mut self.report.problems);
        self.report.notes = std::mem::take(&mut self.heads.notes);
        self.report.root = self.frontier.as_ref().map(Frontier::root);
        let vouched = self.report.head.as_ref().map_or(0, Head::size);
        if let Some(head) = self.report.gone.as_ref().map(|gone| gone.head).filter(|head| vouched < *head)
            && self.report.problems.is_empty()
        {
            let what = format!("the last head is of {vouched} records, and pruned names one of {head}");
            self.report(heads::NAME.into(), None, what);
        }
        self.report.unsigned_tail = index.saturating_sub(vouched);
        Ok(self.report)
    }
}

pub(super) fn note(problems: &mut Vec<Problem>, problem: Problem) {
    if problems.len() < MAX_PROBLEMS {
        problems.push(problem);
    }
}

/// Whether a line is, byte for byte, as the log writes the record in it.
fn is_ours(line: &[u8]) -> bool {
    let record: Result<Record, _> = serde_json::from_slice(line);
    record.and_then(|record| serde_json::to_vec(&record)).is_ok_and(|again| again == line)
}
