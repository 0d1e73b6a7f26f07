//! How a log is made, and how it is opened again.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use super::checkpoint::HeadKeys;
use super::files::{self, Files, Parts, Watched};
use super::heads::{self, Entry};
use super::log::Settings;
use super::merkle::leaf_hash;
use super::point::{Point, tampered, unreadable};
use super::pruned::{self, Pruned};
use super::queue::Signed;
use super::segment::{self, Line, Lines, Stamp};
use super::tiles;
use super::verify::verify;
use crate::error::{Error, Kind, Result};
use crate::types::PublicKey;

const LOCK: &str = "lock";

/// Makes a new log. The first segment is made last: without it there is no log yet, and this may be tried again.
pub(super) fn create(settings: &Settings) -> Result<Files> {
    let folder = &settings.folder;
    let refused = |e| unwritable(folder, e);
    DirBuilder::new().recursive(true).mode(0o750).create(folder).map_err(refused)?;
    for entry in fs::read_dir(folder).map_err(refused)? {
        let entry = entry.map_err(refused)?;
        let unfinished = entry.file_name() == heads::NAME && entry.metadata().is_ok_and(|meta| meta.len() == 0);
        if entry.file_name() != LOCK && !unfinished {
            let name = entry.file_name().to_string_lossy().into_owned();
            let hint = "a log is made once; to go on with one that exists, open it";
            return Err(Error::new(Kind::Conflict, format!("the folder for the audit log holds {name:?}")).hint(hint));
        }
    }
    let lock = lock(folder)?;
    let make = || {
        let heads = folder.join(heads::NAME);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(&heads)?;
        opened.sync_all()?;
        let first = segment::path(folder, 0);
        let current = files::create(&first)?;
        current.sync_all()?;
        files::sync_folder(folder)?;
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        files::sync_folder(parent)?;
        io::Result::Ok((Watched::open(current, first)?, Watched::open(opened, heads)?))
    };
    let (current, heads) = make().map_err(refused)?;
    let (begin, point) = (Point::default(), Point::default());
    let parts = Parts { lock, current, closed: Vec::new(), heads, pruned: None, begin, point, signed: None };
    Ok(Files::new(settings, None, parts))
}

/// Opens a log, and says what it mended.
pub(super) fn open(settings: &Settings, key: Option<&PublicKey>) -> Result<(Files, Vec<String>)> {
    let folder = &settings.folder;
    // 1. Is there one? Asked before the lock is made, so that a wrong path stays an empty folder.
    if list(folder)?.segments.is_empty() {
        let gone = format!("the audit log is gone: there is none in {}", folder.display());
        return Err(Error::new(Kind::Tampered, gone).hint("check the path; restore the folder from a backup"));
    }
    let lock = lock(folder)?;
    open_locked(settings, key, lock)
}

/// The lock of a folder for a process that has it already; it may have to be taken anew, where the folder is another one now.
pub(super) fn lock_again(folder: &Path, held: &File) -> Result<File> {
    let same = Stamp::of(held).is_ok_and(|held| Stamp::at(&folder.join(LOCK)).is_ok_and(|now| now.is_same_file(&held)));
    if same { held.try_clone().map_err(|e| unwritable(folder, e)) } else { lock(folder) }
}

/// Opens a log whose folder is locked.
pub(super) fn open_locked(settings: &Settings, key: Option<&PublicKey>, lock: File) -> Result<(Files, Vec<String>)> {
    let folder = &settings.folder;
    let listing = list(folder)?;
    if let Some(stranger) = listing.strangers.first() {
        return Err(tampered(format!("{stranger} is no segment")));
    }
    let mut recovered = Vec::new();
    let pruned = Pruned::read(folder)?;
    let begin = pruned.as_ref().map(Pruned::point).unwrap_or_default();
    let (gone, segments): (Vec<_>, Vec<_>) = listing.segments.into_iter().partition(|first| *first < begin.size());

    // 2. The last head: its signature, its name, its root.
    let path = folder.join(heads::NAME);
    let mut heads = OpenOptions::new().read(true).write(true).open(&path).map_err(|e| {
        if e.kind() == ErrorKind::NotFound { tampered("heads is missing") } else { unreadable("heads", e) }
    })?;
    let tail = heads::tail(&mut heads)
        .map_err(|e| unreadable("heads", e))?
        .map_err(|(at, what)| tampered(format!("what starts at byte {at} of heads {what}")))?;
    if let Some(entry) = &tail.last {
        check_head(entry, settings, key)?;
    }
    if let Some(pruned) = &pruned {
        check_begin(pruned, settings, key, tail.last.as_ref())?;
    }

    // 3. The records: up to the head by sizes, from there on each one.
    let signed = tail.last.map(|entry| locate(folder, &begin, &segments, entry)).transpose()?;
    let start = signed.as_ref().map_or_else(|| begin.clone(), |signed| signed.point.clone());
    let (point, torn) = read_on(folder, &segments, &start)?;
    if signed.is_none() && point.size() > 0 {
        recovered.push(format!("no head was signed yet: {} records are vouched for by nobody", point.size()));
    }

    // 4. What was never acknowledged is cut off, and what may be only in memory is written once more.
    if let Some(at) = tail.torn_at {
        let bytes = cut(&heads, at).map_err(|e| unwritable(folder, e))?;
        recovered.push(format!("the last head was never finished: {bytes} bytes of heads were cut off"));
    }
    let path_of_current = segment::path(folder, point.segment);
    let current = OpenOptions::new().read(true).write(true).open(&path_of_current);
    let mut current = current.map_err(|e| unwritable(folder, e))?;
    if torn {
        let bytes = cut(&current, point.offset).map_err(|e| unwritable(folder, e))?;
        recovered.push(format!("the last record was never finished: {bytes} bytes at {point} were cut off"));
    }
    let since = if start.segment == point.segment { start.offset } else { 0 };
    rewrite(&mut current, since).and_then(|()| rewrite(&mut heads, tail.last_at)).map_err(|e| unwritable(folder, e))?;
    files::sync_folder(folder).map_err(|e| unwritable(folder, e))?;
    if !gone.is_empty() {
        let gone: Vec<_> = gone.iter().map(|first| segment::path(folder, *first)).collect();
        let removed = pruned::clear(folder, &gone).map_err(|e| unwritable(folder, e))?;
        recovered.push(format!(
            "{removed} segments below record {} were pruned and still there: they were removed",
            begin.size()
        ));
    }

    let closed = segments.iter().filter(|first| **first != point.segment);
    let closed = closed.map(|first| Watched::closed(segment::path(folder, *first))).collect::<io::Result<_>>();
    let watched = |file, path| Watched::open(file, path).map_err(|e| unreadable(folder.display(), e));
    let pruned = pruned.map(|_| Watched::closed(folder.join(pruned::NAME))).transpose();
    let parts = Parts {
        lock,
        current: watched(current, path_of_current)?,
        closed: closed.map_err(|e| unreadable(folder.display(), e))?,
        heads: watched(heads, path)?,
        pruned: pruned.map_err(|e| unreadable(pruned::NAME, e))?,
        begin,
        point,
        signed,
    };
    Ok((Files::new(settings, key, parts), recovered))
}

fn list(folder: &Path) -> Result<segment::Listing> {
    match segment::list(folder) {
        Ok(listing) => Ok(listing),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(segment::Listing::default()),
        Err(e) => Err(unreadable(folder.display(), e)),
    }
}

/// A program that is just being started holds a copy of each lock of the process that starts it, for some milliseconds.
const STARTING: Duration = Duration::from_secs(1);
/// How often the lock is tried meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// Takes the folder for this process, as long as the file is open.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(&path);
    let mut file = open.map_err(|e| unwritable(folder, e))?;
    let until = Instant::now() + STARTING;
    let mut taken = file.try_lock();
    while matches!(taken, Err(TryLockError::WouldBlock)) && Instant::now() < until {
        std::thread::park_timeout(LOOK);
        taken = file.try_lock();
    }
    match taken {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // The number is a help only: whoever holds the lock may be just about to write it.
            drop(file.take(20).read_to_string(&mut owner));
            let message = format!("the audit log in {} is in use by process {}", folder.display(), owner.trim());
            return Err(Error::new(Kind::Conflict, message).hint("one process writes a log; stop the other one"));
        }
        Err(TryLockError::Error(e)) => return Err(unwritable(folder, e)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(|e| unwritable(folder, e))?;
    Ok(file)
}

fn check_head(entry: &Entry, settings: &Settings, key: Option<&PublicKey>) -> Result<()> {
    let head = &entry.head;
    if *head.origin() != settings.origin {
        return Err(tampered(format!("its heads are of {}, not of {}", head.origin(), settings.origin)));
    }
    let Some(key) = key else { return Ok(()) };
    let second = settings.second_key.as_ref();
    let all = HeadKeys::new(std::iter::once(key).chain(second.map(|second| &second.public)))?;
    let promised = second.is_some_and(|second| head.size() > second.since);
    let flaw = head.flaw(&HeadKeys::new([key])?);
    let flaw = flaw.or_else(|| if promised { head.flaw(&all) } else { head.flaw_of_older(&all) });
    match flaw {
        Some(flaw) => Err(tampered(format!("the last head, of {} records, {flaw}", head.size()))),
        None => Ok(()),
    }
}

/// Whether the log may begin where it says: the signed record of it, and the hashes of what is gone.
fn check_begin(pruned: &Pruned, settings: &Settings, key: Option<&PublicKey>, last: Option<&Entry>) -> Result<()> {
    let second = settings.second_key.as_ref().map(|second| &second.public);
    let keys = key.map(|key| HeadKeys::new(std::iter::once(key).chain(second))).transpose()?;
    if let Some(flaw) = pruned.flaw(&settings.origin, keys.as_ref()) {
        return Err(tampered(format!("pruned {flaw}")));
    }
    let signed = last.map_or(0, |entry| entry.head.size());
    if signed < pruned.head() {
        let head = pruned.head();
        return Err(tampered(format!("pruned names a head of {head} records, and the last one is of {signed}")));
    }
    tiles::lead_to(&settings.folder, &pruned.point())
}

/// Finds the place of the last head by counting lines in its segment, and compares the sizes of all before.
fn locate(folder: &Path, begin: &Point, segments: &[u64], entry: Entry) -> Result<Signed> {
    let Entry { head, log_bytes, frontier } = entry;
    let (earlier, segment) = match segments.partition_point(|first| *first <= head.size()).checked_sub(1) {
        Some(at) => (segments.get(..at).unwrap_or_default(), segments.get(at).copied().unwrap_or_default()),
        None => return Err(tampered(format!("{} is missing", segment::name(begin.segment)))),
    };
    let name = segment::name(segment);
    let mut before = begin.before;
    for first in earlier {
        let path = segment::path(folder, *first);
        before += fs::metadata(&path).map_err(|e| unreadable(segment::name(*first), e))?.len();
    }
    let mut lines = Lines::open(&segment::path(folder, segment), 0).map_err(|e| unreadable(&name, e))?;
    let wanted = head.size() - segment;
    let there = lines.skip(wanted).map_err(|e| unreadable(&name, e))?;
    let offset = lines.offset();
    if there < wanted || before + offset != log_bytes || segments.first() != Some(&begin.segment) {
        // Slow, but now somebody must know where.
        let found = verify(folder, None)?.problems.into_iter().next();
        let found =
            found.map_or_else(|| format!("{name} ends at line {there}, too soon"), |problem| problem.to_string());
        return Err(tampered(found));
    }
    Ok(Signed { head, point: Point { frontier, segment, offset, before } })
}

/// Reads from `start` to the end of the log; true where the last line is torn.
fn read_on(folder: &Path, segments: &[u64], start: &Point) -> Result<(Point, bool)> {
    let mut at = start.clone();
    let mut rest = segments.iter().skip_while(|first| **first < start.segment).peekable();
    while let Some(first) = rest.next() {
        if *first != at.segment {
            return Err(tampered(format!(
                "{} is missing: {} comes instead",
                segment::name(at.segment),
                segment::name(*first)
            )));
        }
        let name = segment::name(at.segment);
        let mut lines = Lines::open(&segment::path(folder, at.segment), at.offset).map_err(|e| unreadable(&name, e))?;
        loop {
            match lines.next().map_err(|e| unreadable(&name, e))? {
                Line::Whole if segment::is_record(lines.bytes()) => {}
                Line::Whole => return Err(tampered(format!("{at} is no record"))),
                Line::Torn if rest.peek().is_none() => return Ok((at, true)),
                Line::Torn => return Err(tampered(format!("{at} has no end, but more segments follow"))),
                Line::End => break,
            }
            at.frontier.push(leaf_hash(lines.bytes()));
            at.offset = lines.offset();
        }
        if rest.peek().is_some() {
            at = at.rotated();
        }
    }
    Ok((at, false))
}

/// Cuts a file off at `at`, and says how many bytes that were.
fn cut(file: &File, at: u64) -> io::Result<u64> {
    let bytes = file.metadata()?.len().saturating_sub(at);
    file.set_len(at)?;
    file.sync_all()?;
    Ok(bytes)
}

/// Writes what is there once more and syncs. After a failed sync the system may show bytes that never reached the disk,
/// and takes them for clean: only writing them again brings them there.
pub(super) fn rewrite(file: &mut File, from: u64) -> io::Result<()> {
    let mut at = file.seek(SeekFrom::Start(from))?;
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        file.take(1024 * 1024).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return file.sync_all();
        }
        file.write_all_at(&chunk, at)?;
        at += chunk.len() as u64;
    }
}

fn unwritable(folder: &Path, error: io::Error) -> Error {
    Error::new(Kind::Unavailable, format!("the audit log cannot be written in {}", folder.display())).because(error)
}
