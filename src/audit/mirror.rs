//! The files of an exact copy of the log: what they hold is, byte for byte, the beginning of what the log holds.
//!
//! A copy is written from the files of the log, which are durable before. So it may be behind, and never has anything of its own;
//! whatever a crash left of it is compared with the log when it is opened again, and goes on from there.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::files::{self, Watched};
use super::point::unreadable;
use super::queue::Reached;
use super::sink::{Follower, LOOK};
use super::{heads, open, pruned, segment, tiles};
use crate::error::{Error, Kind, Result};

/// So much is copied before it is made durable.
const STEP: u64 = 1024 * 1024;
/// So much of the end of `heads` is compared when a copy is opened.
const WINDOW: u64 = 64 * 1024;

/// How much longer than an attempt to open the copy the wait after it is.
const REST: u32 = 10;

/// A copy that follows its log: it is opened, brought up to it, looked at, and opened again after an error.
#[derive(Debug)]
pub(super) struct Copying {
    log: PathBuf,
    folder: PathBuf,
    mirror: Option<Mirror>,
    looked: Instant,
    /// Whether somebody else's hand showed in it: then all of it is compared.
    suspect: bool,
    size: u64,
}

impl Copying {
    /// The copy in `folder` of the log in `log`, which is not opened yet.
    pub(super) fn new(log: PathBuf, folder: PathBuf) -> Self {
        Self { log, folder, mirror: None, looked: Instant::now(), suspect: false, size: 0 }
    }

    fn advance(&mut self, to: &Reached) -> Result<bool> {
        let Some(open) = &mut self.mirror else {
            let open = Mirror::open(&self.log, &self.folder, to, self.suspect)?;
            self.size = open.size();
            self.mirror = Some(open);
            return Ok(true);
        };
        if self.looked.elapsed() >= LOOK {
            open.check()?;
            self.looked = Instant::now();
        }
        let more = open.step(to)?;
        self.size = open.size();
        Ok(more)
    }
}

impl Follower for Copying {
    fn step(&mut self, to: &Reached) -> Result<bool> {
        let step = self.advance(to);
        match &step {
            Ok(true) => {}
            Ok(false) => self.suspect = false,
            Err(error) => {
                self.suspect = error.kind() == Kind::Tampered;
                self.mirror = None;
            }
        }
        step
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn rest(&self, took: Duration) -> Duration {
        LOOK.max(took * REST)
    }
}

/// A copy in the hands of who writes it.
#[derive(Debug)]
pub(super) struct Mirror {
    log: PathBuf,
    folder: PathBuf,
    /// The segment of the log that is being copied.
    source: File,
    /// The first record of that segment.
    segment: u64,
    /// The bytes of it that are durable here.
    offset: u64,
    /// The records that are durable here.
    size: u64,
    current: Watched,
    closed: Vec<Watched>,
    heads: Watched,
    _lock: File,
}

impl Mirror {
    /// Opens a copy in `folder`, or begins one where it is empty. Its last segment and the end of its heads are compared with the
    /// log, the others by their sizes; with `all` every byte.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where there is no such folder, or its disk refuses; [`Kind::Tampered`] where it holds anything else
    /// than the beginning of the log.
    pub(super) fn open(log: &Path, folder: &Path, to: &Reached, all: bool) -> Result<Self> {
        let refused = |e| unusable(folder, e);
        let own = segment::list(folder).map_err(refused)?;
        if let Some(stranger) = own.strangers.first() {
            return Err(other(format!("{stranger} is no segment")));
        }
        let lock = open::lock(folder)?;
        let mut there = segment::list(log).map_err(|e| unreadable(log.display(), e))?.segments;
        let first = pruned::begin(log)?.size();
        there.retain(|segment| *segment >= first);
        let begin = own.segments.first().or(there.first()).copied().unwrap_or_default();
        if own.segments.is_empty() {
            begin_pruned(log, folder, begin)?;
            drop(files::create(&segment::path(folder, begin)).map_err(refused)?);
            files::sync_folder(folder).map_err(refused)?;
        }
        let segments = if own.segments.is_empty() { vec![begin] } else { own.segments };
        let last = segments.last().copied().unwrap_or_default();

        // 1. The segments that the log has, too: those before its first were pruned from it.
        let mut expected = there.iter().copied().filter(|first| *first >= begin);
        let mut end = Prefix::default();
        let mut closed = Vec::new();
        for first in segments {
            let (name, path) = (segment::name(first), segment::path(folder, first));
            let in_log = there.first().is_some_and(|oldest| first >= *oldest);
            if in_log && expected.next() != Some(first) {
                return Err(other(format!("{name} is not the segment that comes next in the log")));
            }
            let length = match fs::metadata(segment::path(log, first)) {
                Ok(_) if first == to.point.segment => to.point.offset,
                Ok(meta) => meta.len(),
                Err(_) => fs::metadata(&path).map_err(refused)?.len(),
            };
            let have = fs::metadata(&path).map_err(refused)?.len();
            if first != last && have != length {
                return Err(other(format!("{name} has {have} bytes, and the log has {length} of it")));
            }
            if in_log && (all || first == last) {
                end = prefix((&segment::path(log, first), length), (&path, have), 0)?;
            }
            if first != last {
                closed.push(Watched::closed(path).map_err(refused)?);
            }
        }

        // 2. The heads.
        let path = folder.join(heads::NAME);
        let mut head_file = open_file(&path, true).map_err(refused)?;
        let have = head_file.metadata().map_err(refused)?.len();
        let from = if all { 0 } else { have.min(to.heads).saturating_sub(WINDOW) };
        let signed = prefix((&log.join(heads::NAME), to.heads), (&path, have), from)?;

        // 3. What a crash tore is cut off, and what may be only in memory is written once more.
        let path_of_last = segment::path(folder, last);
        let mut file = open_file(&path_of_last, false).map_err(refused)?;
        let durable = || {
            file.set_len(end.length)?;
            open::rewrite(&mut file, 0)?;
            head_file.set_len(signed.length)?;
            open::rewrite(&mut head_file, from)?;
            files::sync_folder(folder)
        };
        let mut durable = durable;
        durable().map_err(refused)?;
        Ok(Self {
            source: open_source(log, last)?,
            log: log.to_owned(),
            folder: folder.to_owned(),
            segment: last,
            offset: end.length,
            size: last + end.lines,
            current: Watched::open(file, path_of_last).map_err(refused)?,
            closed,
            heads: Watched::open(head_file, path).map_err(refused)?,
            _lock: lock,
        })
    }

    /// The records that are durable here.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// Copies what comes next, records before the heads that sign them, and makes it durable. False where nothing is missing.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where a disk refuses; [`Kind::Tampered`] where somebody else's hand shows. Then the copy is opened
    /// again.
    pub(super) fn step(&mut self, to: &Reached) -> Result<bool> {
        let end = if self.segment == to.point.segment {
            to.point.offset
        } else {
            let length = self.source.metadata().map_err(|e| unreadable(segment::name(self.segment), e))?.len();
            if self.offset == length {
                return self.rotate().map(|()| true);
            }
            length
        };
        if self.offset < end {
            let bytes = read(&self.source, self.offset, end.min(self.offset + STEP))
                .map_err(|e| unreadable(segment::name(self.segment), e))?;
            self.current.check().map_err(Error::from)?;
            self.current.append(&bytes, self.offset).map_err(Error::from)?;
            self.offset += bytes.len() as u64;
            self.size += lines(&bytes);
            return Ok(true);
        }
        let (have, end) = (self.heads.length(), to.heads);
        if have < end {
            let source = File::open(self.log.join(heads::NAME)).map_err(|e| unreadable(heads::NAME, e))?;
            let bytes = read(&source, have, end.min(have + STEP)).map_err(|e| unreadable(heads::NAME, e))?;
            self.heads.check().map_err(Error::from)?;
            self.heads.append(&bytes, have).map_err(Error::from)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Goes on with the next segment, which is named by the record that comes next.
    fn rotate(&mut self) -> Result<()> {
        let refused = |e| unusable(&self.folder, e);
        let source = open_source(&self.log, self.size)?;
        let path = segment::path(&self.folder, self.size);
        let file = files::create(&path).map_err(refused)?;
        files::sync_folder(&self.folder).map_err(refused)?;
        let current = Watched::open(file, path).map_err(refused)?;
        self.closed.push(std::mem::replace(&mut self.current, current).put_away());
        (self.source, self.segment, self.offset) = (source, self.size, 0);
        Ok(())
    }

    /// Whether all files are as they were left.
    ///
    /// # Errors
    /// [`Kind::Tampered`] with the file that is not.
    pub(super) fn check(&self) -> Result<()> {
        let mut all = [&self.current, &self.heads].into_iter().chain(&self.closed);
        all.try_for_each(Watched::check).map_err(Error::from)
    }
}

/// Where the log was pruned, a copy that is begun gets what vouches for what is gone, too: the hashes first.
fn begin_pruned(log: &Path, folder: &Path, begin: u64) -> Result<()> {
    if begin == 0 {
        return Ok(());
    }
    let refused = |e| unusable(folder, e);
    let copy = |path: &Path, bytes: u64| -> Result<()> {
        let source = File::open(path).map_err(|e| unreadable(path.display(), e))?;
        let mut to = open_file(&folder.join(path.file_name().unwrap_or_default()), true).map_err(refused)?;
        to.set_len(0).and_then(|()| io::copy(&mut source.take(bytes), &mut to)).map_err(refused)?;
        to.sync_all().map_err(refused)
    };
    for (path, bytes) in tiles::files_below(log, begin) {
        copy(&path, bytes)?;
    }
    copy(&log.join(pruned::NAME), u64::MAX)
}

/// How far a file is the same as that of the log.
#[derive(Clone, Copy, Debug, Default)]
struct Prefix {
    /// In bytes.
    length: u64,
    /// The line feeds in what was compared.
    lines: u64,
}

/// Compares a file of the copy with that of the log, each with its length, from a byte on. What differs within an unfinished line
/// at the very end was torn by a crash; what differs elsewhere is another's.
fn prefix((log, limit): (&Path, u64), (copy, length): (&Path, u64), from: u64) -> Result<Prefix> {
    let name = copy.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let open = |path: &Path| File::open(path).map_err(|e| unreadable(&name, e));
    if length == from {
        return Ok(Prefix { length, lines: 0 });
    }
    let (log, copy) = (open(log)?, open(copy)?);
    let mut at = Prefix { length: from, lines: 0 };
    while at.length < length {
        let end = length.min(at.length + STEP);
        let theirs = read(&log, at.length, end.min(limit)).map_err(|e| unreadable(&name, e))?;
        let own = read(&copy, at.length, end).map_err(|e| unreadable(&name, e))?;
        let same = own.iter().zip(&theirs).take_while(|(own, theirs)| own == theirs).count();
        at.lines += lines(own.get(..same).unwrap_or_default());
        at.length += same as u64;
        if same < own.len() {
            let rest = read(&copy, at.length, length).map_err(|e| unreadable(&name, e))?;
            if rest.contains(&b'\n') {
                return Err(other(format!("{name} is another than that of the log from byte {} on", at.length)));
            }
            return Ok(at);
        }
    }
    Ok(at)
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn read(file: &File, from: u64, until: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(until - from).unwrap_or_default()];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

fn open_source(log: &Path, first: u64) -> Result<File> {
    match File::open(segment::path(log, first)) {
        Ok(file) => Ok(file),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Err(Error::new(Kind::Unavailable, format!("the log does not hold record {first} any more"))
                .hint("it was pruned before it was copied: keep this copy, and give the sink an empty folder"))
        }
        Err(e) => Err(unreadable(segment::name(first), e)),
    }
}

fn open_file(path: &Path, make: bool) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().read(true).write(true).create(make).truncate(false).mode(0o640).open(path)
}

fn unusable(folder: &Path, error: io::Error) -> Error {
    Error::new(Kind::Unavailable, format!("{} cannot be written", folder.display()))
        .because(error)
        .hint("mount it, or make it: an empty folder gets all of the log")
}

/// The error of a copy that holds something else than the log.
fn other(what: String) -> Error {
    Error::new(Kind::Tampered, format!("it is no copy of the log: {what}"))
        .hint("compare both by `signet audit verify`; keep that folder, and give the sink an empty one")
}
