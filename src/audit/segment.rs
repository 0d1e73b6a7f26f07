//! The files that hold the records.
//!
//! ```text
//! log-00000000000000000000.jsonl      records 0 to 140,211
//! log-00000000000000140212.jsonl      records 140,212 and on: named by its first record, 20 digits
//! ```
//!
//! A segment is lines of JSON, one per record, each ended by one newline. The bytes of a line without its newline are the
//! leaf of the Merkle tree. A line without newline at the very end of the log was never acknowledged.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde::de::IgnoredAny;

/// The longest line that is written or read, with its newline: a batch of 1,000 items with the largest contexts fits.
pub(super) const MAX_LINE: usize = 16 * 1024 * 1024;

/// The name of the segment that begins with record `first`.
pub(super) fn name(first: u64) -> String {
    format!("log-{first:020}.jsonl")
}

pub(super) fn path(folder: &Path, first: u64) -> PathBuf {
    folder.join(name(first))
}

/// What is in a folder: the first records of its segments in order, and files that look like segments but are none.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) segments: Vec<u64>,
    pub(super) strangers: Vec<String>,
}

/// Lists the segments of `folder`.
pub(super) fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = file.strip_prefix("log-") else { continue };
        match rest.strip_suffix(".jsonl").and_then(|digits| digits.parse().ok()) {
            Some(first) if name(first) == file && entry.file_type()?.is_file() => listing.segments.push(first),
            Some(_) | None => listing.strangers.push(file),
        }
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

/// How the names of files of an archive end that are not finished.
pub(super) const PART: &str = ".part";

/// The name of an archived segment: see [`super::archive`].
pub(super) fn packed_name(first: u64) -> String {
    format!("{}.gz", name(first))
}

/// Lists the segments of an archive; what another attempt left unfinished is none.
pub(super) fn list_packed(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(folder)? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        let Some(rest) = file.strip_prefix("log-").filter(|rest| !rest.ends_with(PART)) else { continue };
        match rest.strip_suffix(".jsonl.gz").and_then(|digits| digits.parse().ok()) {
            Some(first) if packed_name(first) == file => listing.segments.push(first),
            Some(_) | None => listing.strangers.push(file),
        }
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

/// What an archived segment holds. Whatever follows its end is an error.
pub(super) fn unpacked(path: &Path) -> io::Result<impl Read + Send + use<>> {
    Ok(MultiGzDecoder::new(BufReader::new(File::open(path)?)))
}

/// What [`Lines::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line; its bytes without the newline are in [`Lines::bytes`].
    Whole,
    /// Bytes without a newline up to the end of the file, or more than [`MAX_LINE`] of them.
    Torn,
    /// The end, after a newline.
    End,
}

/// Reads a segment line by line in constant memory.
pub(super) struct Lines {
    reader: BufReader<Box<dyn Read + Send>>,
    line: Vec<u8>,
    offset: u64,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl Lines {
    /// Starts at `offset`, which must be the start of a line.
    pub(super) fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self::of(Box::new(file), offset))
    }

    /// As [`Self::open`], of an archived segment; the offset is one of the segment as it was.
    pub(super) fn open_packed(path: &Path, offset: u64) -> io::Result<Self> {
        let mut plain = unpacked(path)?;
        io::copy(&mut plain.by_ref().take(offset), &mut io::sink())?;
        Ok(Self::of(Box::new(plain), offset))
    }

    /// Of whatever holds lines; the offset is that of the first.
    pub(super) fn of(reader: Box<dyn Read + Send>, offset: u64) -> Self {
        Self { reader: BufReader::with_capacity(256 * 1024, reader), line: Vec::new(), offset }
    }

    /// Reads on. After [`Line::Torn`] or [`Line::End`] it may be called again: there may be more by then.
    pub(super) fn next(&mut self) -> io::Result<Line> {
        // What a torn line had so far stays in the buffer, so that a reader who follows the log gets the rest.
        let room = (MAX_LINE - self.line.len().min(MAX_LINE)) as u64;
        if self.line.last() == Some(&b'\n') {
            self.line.clear();
            return self.next();
        }
        self.reader.by_ref().take(room).read_until(b'\n', &mut self.line)?;
        Ok(match self.line.last() {
            None => Line::End,
            Some(b'\n') => {
                self.offset += self.line.len() as u64;
                Line::Whole
            }
            Some(_) => Line::Torn,
        })
    }

    /// The line without its newline.
    pub(super) fn bytes(&self) -> &[u8] {
        self.line.strip_suffix(b"\n").unwrap_or(&self.line)
    }

    /// The position after the last whole line.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Skips `count` whole lines; the number skipped is smaller at the end of the file.
    pub(super) fn skip(&mut self, count: u64) -> io::Result<u64> {
        for skipped in 0..count {
            if self.next()? != Line::Whole {
                return Ok(skipped);
            }
        }
        Ok(count)
    }
}

/// Whether a line can be a record: of this version or a later one, so only its form is looked at.
pub(super) fn is_record(line: &[u8]) -> bool {
    line.first() == Some(&b'{') && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}

/// What the file system says of a file. Two stamps are equal only where nobody wrote, renamed, replaced, linked or
/// touched the file in between: the change time cannot be set by a program. (Before Linux 6.13 it moves in ticks of some
/// milliseconds; an edit within the tick of our own last write is left to the next head, a scrub, or `verify`.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn new(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Of an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::new(&file.metadata()?))
    }

    /// Of what is at a path now, without following a link.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::new(&fs::symlink_metadata(path)?))
    }

    /// Whether both are of one file, whatever was done to it.
    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// The bytes of the file.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// What the file at `path` has that differs from this, in words.
    pub(super) fn difference(&self, path: &Path) -> Option<String> {
        let now = match Self::at(path) {
            Ok(now) => now,
            Err(e) => return Some(format!("is gone ({e})")),
        };
        let Self { device, inode, length, modified, changed } = *self;
        if (now.device, now.inode) != (device, inode) {
            Some("was replaced by another file".into())
        } else if now.length != length {
            Some(format!("has {} bytes, but {length} were written", now.length))
        } else if now.modified != modified || now.changed != changed {
            Some("was changed or touched by somebody else".into())
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_exact_names_are_segments() {
        let folder = tempfile::tempdir().unwrap();
        for file in [name(7), name(0), "log-7.jsonl".into(), "log-x.jsonl".into(), "lock".into()] {
            File::create(folder.path().join(file)).unwrap();
        }
        let mut listing = list(folder.path()).unwrap();
        listing.strangers.sort();
        assert_eq!(
            (listing.segments, listing.strangers),
            (vec![0, 7], vec!["log-7.jsonl".into(), "log-x.jsonl".into()])
        );
    }

    #[test]
    fn a_torn_line_is_finished_later() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"one\n\ntw").unwrap();
        let mut lines = Lines::open(file.path(), 0).unwrap();
        assert_eq!((lines.next().unwrap(), lines.bytes().to_vec()), (Line::Whole, b"one".to_vec()));
        assert_eq!((lines.next().unwrap(), lines.bytes().to_vec()), (Line::Whole, vec![]));
        assert_eq!((lines.next().unwrap(), lines.offset()), (Line::Torn, 5));
        file.write_all(b"o\n").unwrap();
        assert_eq!((lines.next().unwrap(), lines.bytes().to_vec()), (Line::Whole, b"two".to_vec()));
        assert_eq!((lines.next().unwrap(), lines.offset()), (Line::End, 9));
    }

    #[test]
    fn a_stamp_tells_what_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        let stamp = Stamp::at(&path).unwrap();
        assert_eq!(stamp.difference(&path), None);
        fs::write(&path, "two").unwrap();
        assert!(stamp.difference(&path).unwrap().contains("somebody else"));
        fs::write(&path, "three").unwrap();
        assert!(stamp.difference(&path).unwrap().contains("5 bytes"));
        fs::rename(&path, folder.path().join("aside")).unwrap();
        assert!(stamp.difference(&path).unwrap().contains("gone"));
        fs::write(&path, "one").unwrap();
        assert!(stamp.difference(&path).unwrap().contains("replaced"));
    }
}
