//! The closed segments of a log, compressed, in another folder: a tenth of the bytes, for the years that nobody reads.
//!
//! ```text
//! DIR/log-00000000000000000000.jsonl.gz    a segment as gzip: `zcat` shows it
//! DIR/heads                                the signed heads over what is there
//! ```
//!
//! It is made of a log's folder, also of one that is written, and verified as a log is: see [`super::verify()`]. Each segment is written
//! beside its name, made durable, read back, and only then renamed; then the heads over it are added: what they sign is there. So it can be
//! repeated at any time, after a crash too, and adds what is new. What is there already is compared with the log, byte by byte, and never
//! written over.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::archiving::{Closed, Shelf, closed, missing};
use super::files::sync_folder;
use super::heads::{self, Entries, Step};
use super::point::{tampered, unreadable};
use super::segment;
use super::verify::verify;
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::types::PublicKey;

/// So much is compared at once.
const STEP: usize = 256 * 1024;

/// What [`archive`] made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    /// The segments that are there now.
    pub segments: u64,
    /// Those that were not there before.
    pub written: u64,
    /// The records in all of them.
    pub records: u64,
    /// Their bytes in the log.
    pub plain_bytes: u64,
    /// Their bytes in the archive.
    pub packed_bytes: u64,
    /// The records of the last head over them.
    pub signed: u64,
}

/// Brings the closed segments of the log in `folder` to `to`, which must be there. With keys the signatures of the heads are checked.
///
/// # Errors
/// [`Kind::NotFound`] where there is no log; [`Kind::Tampered`] where the log does not hold, or what is in `to` is not an archive of it:
/// then nothing is written; [`Kind::Unavailable`] where a disk refuses.
pub fn archive<'k>(folder: &Path, to: &Path, keys: impl IntoIterator<Item = &'k PublicKey>) -> Result<Archived> {
    let refused = |e: io::Error| unwritable(to, &e);
    if !fs::metadata(to).map_err(refused)?.is_dir() {
        return Err(Error::new(Kind::Invalid, format!("{} is no folder", to.display())));
    }
    if !segment::list(to).map_err(refused)?.segments.is_empty() {
        return Err(Error::new(Kind::Invalid, format!("{} holds a log, not an archive", to.display()))
            .hint("name a folder of its own for the archive"));
    }
    let done = bring_all(folder, &mut Folder(to.to_owned()), keys)?;
    if done.segments > 0 {
        // It must hold by itself. Its heads are the very ones whose signatures were checked.
        let report = verify(to, None)?;
        if let Some(problem) = report.problems.first() {
            return Err(other(to, "", &problem.to_string()));
        }
    }
    Ok(done)
}

/// Brings all closed segments of a log that holds. What is there is compared with it first, all of it.
pub(super) fn bring_all<'k>(
    folder: &Path,
    shelf: &mut dyn Shelf,
    keys: impl IntoIterator<Item = &'k PublicKey>,
) -> Result<Archived> {
    let report = verify(folder, keys)?;
    if let Some(problem) = report.problems.first() {
        return Err(tampered(problem));
    }
    let Some(signed) = report.head.map(|head| head.size()) else { return Ok(Archived::default()) };
    let length = fs::metadata(folder.join(heads::NAME)).map_err(|e| unreadable(heads::NAME, e))?.len();
    let mut all = closed(folder, (0, 0), length)?;
    // What a head does not sign yet is not brought away before it does; and a head that came after the check is not known to be good.
    all.retain(|one| one.end <= signed);
    let Some(last) = all.last() else { return Ok(Archived::default()) };
    let missing = missing(folder, shelf, &all, true)?;
    for one in &missing {
        shelf.bring(folder, one)?;
    }
    let mut done = Archived { segments: all.len() as u64, written: missing.len() as u64, ..Archived::default() };
    for one in &all {
        let path = segment::path(folder, one.first);
        done.plain_bytes += fs::metadata(&path).map_err(|e| unreadable(path.display(), e))?.len();
    }
    (done.records, done.signed, done.packed_bytes) = (last.end, last_signed(folder, &all)?, shelf.bytes()?);
    Ok(done)
}

/// The records of the last head over these segments. There may be segments that end before a head came.
fn last_signed(log: &Path, all: &[Closed]) -> Result<u64> {
    let unreadable = |e| unreadable(heads::NAME, e);
    let Some(closed) = all.iter().rfind(|one| !one.heads.is_empty()) else { return Ok(0) };
    let file = File::open(log.join(heads::NAME)).map_err(unreadable)?;
    let mut entries = Entries::new(file, closed.heads.start, closed.heads.end).map_err(unreadable)?;
    let mut signed = closed.first;
    while let Step::Entry(entry) = entries.next().map_err(unreadable)? {
        signed = entry.head.size();
    }
    Ok(signed)
}

/// A folder as an archive.
#[derive(Debug)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    /// Adds heads up to those over a segment, where they are not there. A crash may have cut them anywhere.
    fn sign(&self, log: &Path, closed: &Closed) -> Result<()> {
        let path = self.0.join(heads::NAME);
        let refused = |e: io::Error| unwritable(&path, &e);
        let is_new = !path.exists();
        let mut file = File::options().append(true).create(true).open(&path).map_err(refused)?;
        let there = file.metadata().map_err(refused)?.len();
        // What they are added to is theirs: looked at a little way back, since all of it was, segment by segment.
        let from = closed.heads.start.min(there).saturating_sub(STEP as u64);
        self.compare_heads(log, from..closed.heads.end.min(there))?;
        if there >= closed.heads.end {
            return Ok(());
        }
        let mut own = File::open(log.join(heads::NAME)).map_err(|e| unreadable(heads::NAME, e))?;
        let added = own.seek(SeekFrom::Start(there)).and_then(|_| {
            let mut missing = own.take(closed.heads.end - there);
            io::copy(&mut missing, &mut file)?;
            file.sync_all()?;
            if is_new { sync_folder(&self.0) } else { Ok(()) }
        });
        added.map_err(refused)
    }

    fn compare_heads(&self, log: &Path, range: Range<u64>) -> Result<()> {
        let length = range.end - range.start;
        let part = |folder: &Path| {
            let mut file = File::open(folder.join(heads::NAME))?;
            file.seek(SeekFrom::Start(range.start))?;
            Ok(file.take(length))
        };
        let own = part(log).map_err(|e| unreadable(heads::NAME, e))?;
        let theirs = part(&self.0).map_err(|e| unwritable(&self.0, &e))?;
        if same(own, theirs).map_err(|e| unreadable(heads::NAME, e))? {
            return Ok(());
        }
        Err(self.other(heads::NAME, "are not those of this log"))
    }
}

impl Shelf for Folder {
    fn segments(&mut self) -> Result<Vec<u64>> {
        let there = segment::list_packed(&self.0).map_err(|e| unwritable(&self.0, &e))?;
        match there.strangers.first() {
            Some(stranger) => Err(self.other(stranger, "does not belong in it")),
            None => Ok(there.segments),
        }
    }

    fn open(&mut self, first: u64, _: u64) -> Result<Box<dyn Read + Send>> {
        let name = segment::packed_name(first);
        let there = segment::unpacked(&self.0.join(&name)).map_err(|e| unreadable(&name, e))?;
        Ok(Box::new(there))
    }

    fn check_heads(&mut self, log: &Path, closed: &Closed) -> Result<()> {
        self.compare_heads(log, closed.heads.clone())
    }

    fn compare(&mut self, log: &Path, closed: &Closed) -> Result<()> {
        compare(log, closed.first, &self.0.join(segment::packed_name(closed.first)))?;
        // Where somebody died between both.
        self.sign(log, closed)
    }

    fn bring(&mut self, log: &Path, closed: &Closed) -> Result<()> {
        pack(log, closed.first, &self.0)?;
        self.sign(log, closed)
    }

    fn bytes(&mut self) -> Result<u64> {
        let bytes = |first| fs::metadata(self.0.join(segment::packed_name(first))).map(|meta| meta.len());
        let listed = segment::list_packed(&self.0).and_then(|there| there.segments.into_iter().map(bytes).sum());
        listed.map_err(|e| unwritable(&self.0, &e))
    }

    fn other(&self, file: &str, what: &str) -> Error {
        other(&self.0, file, what)
    }
}

/// Compresses a segment, and reads it back before it has its name.
fn pack(folder: &Path, first: u64, to: &Path) -> Result<()> {
    let name = segment::packed_name(first);
    let write = |file: &mut File| {
        let mut plain = File::open(segment::path(folder, first))?;
        let mut packed = GzEncoder::new(BufWriter::new(file), Compression::default());
        io::copy(&mut plain, &mut packed)?;
        packed.finish()?.flush()
    };
    put(to, &name, write, |part| compare(folder, first, part))
}

/// Writes a file beside its name, makes it durable, and gives it its name where it is as it should be.
pub(super) fn put(
    to: &Path,
    name: &str,
    write: impl FnOnce(&mut File) -> io::Result<()>,
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let (part, path) = (to.join(format!("{name}{}", segment::PART)), to.join(name));
    let refused = |e: io::Error| unwritable(&path, &e);
    // What a crash left of an earlier attempt is written over.
    let mut file = File::create(&part).map_err(refused)?;
    write(&mut file).and_then(|()| file.sync_all()).map_err(refused)?;
    check(&part)?;
    crash_point!("archive.before_name");
    let named = fs::rename(&part, &path).and_then(|()| sync_folder(to)).map_err(refused);
    crash_point!("archive.named");
    named
}

/// Whether a file of the archive is a segment of the log.
fn compare(folder: &Path, first: u64, packed: &Path) -> Result<()> {
    let name = segment::packed_name(first);
    let there = segment::unpacked(packed).map_err(|e| unreadable(&name, e))?;
    if is_same(folder, first, there)? {
        return Ok(());
    }
    Err(other(packed.parent().unwrap_or(packed), &name, "is not the segment of the log"))
}

/// Whether what is there, unpacked, is a segment of the log.
pub(super) fn is_same(folder: &Path, first: u64, there: impl Read) -> Result<bool> {
    let plain = File::open(segment::path(folder, first));
    plain.and_then(|plain| same(plain, there)).map_err(|e| unreadable(segment::name(first), e))
}

/// Whether theirs is ours, byte by byte; theirs is not where it cannot be read.
fn same(mut ours: impl Read, mut theirs: impl Read) -> io::Result<bool> {
    let (mut own, mut other) = (vec![0; STEP], vec![0; STEP]);
    loop {
        let read = fill(&mut ours, &mut own)?;
        let same = fill(&mut theirs, &mut other).is_ok_and(|there| own.get(..read) == other.get(..there));
        if !same || read == 0 {
            return Ok(same);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

pub(super) fn unwritable(path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::Unavailable, format!("{} cannot be written: {error}", path.display()))
        .hint("make the folder of the archive, or room in it, and run the command again: it goes on where it ended")
}

/// The error of an archive that is not the one of this log.
pub(super) fn other(to: &Path, file: &str, what: &str) -> Error {
    Error::new(
        Kind::Tampered,
        format!("the archive in {} is not of this log: {file} {what}", to.display()).replace(":  ", ": "),
    )
    .hint("it was changed, or is another log's: verify it by `signet audit verify`; nothing was written")
}
