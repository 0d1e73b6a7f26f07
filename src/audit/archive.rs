//! The closed segments of a log, compressed, in another folder: a tenth of the bytes, for the years that nobody reads.
//!
//! ```text
//! DIR/log-00000000000000000000.jsonl.gz    a segment as gzip: `zcat` shows it
//! DIR/heads                                the signed heads over what is there
//! ```
//!
//! It is made of a log's folder, also of one that is written, and verified as a log is: see [`super::verify()`]. Each file is written
//! beside its name, made durable, read back, and only then renamed, the heads last: what they sign is there. So it can be repeated at any
//! time, after a crash too, and adds what is new. What is there already is compared with the log, byte by byte, and never written over.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::archiving::{Closed, Shelf};
use super::files::sync_folder;
use super::heads::{self, Entries, Step};
use super::point::{tampered, unreadable};
use super::verify::verify;
use super::{pruned, segment};
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
    let report = verify(folder, keys)?;
    if let Some(problem) = report.problems.first() {
        return Err(tampered(problem));
    }
    let signed = report.head.map_or(0, |head| head.size());
    let begin = pruned::begin(folder)?.size();
    let mut segments = segment::list(folder).map_err(|e| unreadable(folder.display(), e))?.segments;
    segments.retain(|first| *first >= begin);
    if !segment::list(to).map_err(refused)?.segments.is_empty() {
        return Err(Error::new(Kind::Invalid, format!("{} holds a log, not an archive", to.display()))
            .hint("name a folder of its own for the archive"));
    }

    // 1. What is there is the same: also what a head does not sign yet is not brought away before it does.
    let closed: Vec<_> = segments.windows(2).filter_map(|two| Some((*two.first()?, *two.get(1)?))).collect();
    let closed: Vec<_> = closed.into_iter().take_while(|(_, end)| *end <= signed).collect();
    let mut missing = Vec::new();
    if closed.is_empty() {
        return Ok(Archived::default());
    }
    let there = segment::list_packed(to).map_err(refused)?;
    if let Some(stranger) = there.strangers.first() {
        return Err(other(to, stranger, "does not belong in it"));
    }
    if begin > 0 && there.segments.first() != Some(&0) {
        return Err(Error::new(
            Kind::State,
            format!("the log was pruned below record {begin}, and {} does not hold what is gone", to.display()),
        )
        .hint("go on with the archive that it was pruned into, or begin with a copy of that"));
    }
    for first in there.segments.into_iter().filter(|first| *first >= begin) {
        if !closed.iter().any(|(own, _)| *own == first) {
            return Err(other(to, &segment::packed_name(first), "is no closed segment of this log"));
        }
    }
    for (first, _) in &closed {
        let path = to.join(segment::packed_name(*first));
        if path.exists() {
            compare(folder, *first, &path)?;
        } else {
            missing.push(*first);
        }
    }
    let end = closed.last().map_or(0, |(_, end)| *end);
    let heads = heads_below(folder, end)?;
    let before = read_or_empty(&to.join(heads::NAME)).map_err(refused)?;
    if !heads.starts_with(&before) {
        return Err(other(to, heads::NAME, "are not those of this log"));
    }

    // 2. What is new.
    for first in &missing {
        pack(folder, *first, to)?;
    }
    if heads != before || !to.join(heads::NAME).exists() {
        put(to, heads::NAME, |file| file.write_all(&heads), |_| Ok(()))?;
    }

    // 3. It must hold by itself. Its heads are the very ones whose signatures were checked.
    let report = verify(to, None)?;
    if let Some(problem) = report.problems.first() {
        return Err(other(to, "", &problem.to_string()));
    }
    let mut done = Archived { records: end, written: missing.len() as u64, ..Archived::default() };
    done.signed = report.head.map_or(0, |head| head.size());
    for (first, _) in &closed {
        done.segments += 1;
        done.plain_bytes += fs::metadata(segment::path(folder, *first)).map_err(refused)?.len();
        done.packed_bytes += fs::metadata(to.join(segment::packed_name(*first))).map_err(refused)?.len();
    }
    Ok(done)
}

/// A folder as an archive.
#[derive(Debug)]
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    /// Brings the heads up to those of a segment, where they are not.
    fn sign(&self, log: &Path, closed: &Closed) -> Result<()> {
        let (to, end) = (&self.0, usize::try_from(closed.heads.end).unwrap_or(usize::MAX));
        let mut own = fs::read(log.join(heads::NAME)).map_err(|e| unreadable(heads::NAME, e))?;
        own.truncate(end);
        let there = read_or_empty(&to.join(heads::NAME)).map_err(|e| unwritable(to, &e))?;
        if there.starts_with(&own) {
            return Ok(());
        }
        if !own.starts_with(&there) {
            return Err(self.other(heads::NAME, "are not those of this log"));
        }
        put(to, heads::NAME, |file| file.write_all(&own), |_| Ok(()))
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

    fn compare(&mut self, log: &Path, closed: &Closed) -> Result<()> {
        compare(log, closed.first, &self.0.join(segment::packed_name(closed.first)))?;
        // Where somebody died between both.
        self.sign(log, closed)
    }

    fn bring(&mut self, log: &Path, closed: &Closed) -> Result<()> {
        pack(log, closed.first, &self.0)?;
        self.sign(log, closed)
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
pub(super) fn is_same(folder: &Path, first: u64, mut there: impl Read) -> Result<bool> {
    let plain = File::open(segment::path(folder, first)).map_err(|e| unreadable(segment::name(first), e))?;
    let mut plain = BufReader::new(plain);
    let (mut own, mut theirs) = (vec![0; STEP], vec![0; STEP]);
    loop {
        let read = fill(&mut plain, &mut own).map_err(|e| unreadable(segment::name(first), e))?;
        let same = fill(&mut there, &mut theirs).is_ok_and(|other| own.get(..read) == theirs.get(..other));
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

/// The bytes of the heads of at most `size` records.
fn heads_below(folder: &Path, size: u64) -> Result<Vec<u8>> {
    let unreadable = |e| unreadable(heads::NAME, e);
    let mut bytes = fs::read(folder.join(heads::NAME)).map_err(unreadable)?;
    let file = File::open(folder.join(heads::NAME)).map_err(unreadable)?;
    let mut entries = Entries::new(file, 0, bytes.len() as u64).map_err(unreadable)?;
    let mut end = 0;
    while let Step::Entry(entry) = entries.next().map_err(unreadable)? {
        if entry.head.size() > size {
            break;
        }
        end = entries.offset();
    }
    bytes.truncate(usize::try_from(end).unwrap_or_default());
    Ok(bytes)
}

fn read_or_empty(path: &Path) -> io::Result<Vec<u8>> {
    match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read,
    }
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
