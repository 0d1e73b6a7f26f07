//! The file `heads`: every signed head of the log, one after the other, and what is needed to open the log fast.
//!
//! ```text
//! signet-head 1 251 734003 q83v…=,mBnk…=          magic, version, bytes of the note, bytes of the log, frontier
//! signet/5f0c2a41                                 the note, exactly so many bytes: see `checkpoint`
//! 1204
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — signet/5f0c2a41 A2VkYzEwRQIhAK…
//! signet-head 1 251 …                             the next one
//! ```
//!
//! The first line is not signed, and need not be: the frontier is good only if it hashes to the signed root, and the
//! bytes of the log (of all segments up to this head) are only compared. An entry that the file ends within was never
//! acknowledged; any other flaw is tampering.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::checkpoint::Head;
use super::merkle::{Frontier, Hash};
use super::point::unreadable;
use crate::error::Result;

/// The name of the file.
pub(super) const NAME: &str = "heads";

const MAGIC: &str = "signet-head 1 ";
/// The longest first line: 64 hashes of 44 characters, a comma each, and three numbers.
const MAX_LINE: u64 = 4096;
/// Enough at the end of the file to hold two whole entries.
const WINDOW: u64 = 64 * 1024;

/// One head with its helper data, which is checked against the root.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) head: Head,
    /// The bytes of all segments up to this head.
    pub(super) log_bytes: u64,
    pub(super) frontier: Frontier,
}

impl Entry {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { head, log_bytes, frontier } = self;
        let nodes: Vec<String> = frontier.nodes().iter().map(|node| BASE64.encode(node)).collect();
        format!("{MAGIC}{} {log_bytes} {}\n{}", head.note().len(), nodes.join(","), head.note()).into_bytes()
    }
}

/// What [`Entries::next`] found.
#[derive(Debug)]
pub(super) enum Step {
    /// A well-formed entry.
    Entry(Entry),
    /// The file ends within the entry that starts here.
    Torn(u64),
    /// What starts here is no entry.
    Bad(u64, &'static str),
    /// The end of the file.
    End,
}

/// Reads entries one after the other.
#[derive(Debug)]
pub(super) struct Entries {
    reader: io::Take<BufReader<File>>,
    offset: u64,
    /// After a bad entry: look for the next line that can be the first of one.
    lost: bool,
}

impl Entries {
    /// Reads the first `length` bytes of `file` from `offset` on, the start of an entry.
    pub(super) fn new(mut file: File, offset: u64, length: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(offset))?;
        Ok(Self { reader: BufReader::new(file).take(length.saturating_sub(offset)), offset, lost: false })
    }

    /// Where the next entry starts.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn next(&mut self) -> io::Result<Step> {
        let (start, line) = loop {
            let start = self.offset;
            let mut line = Vec::new();
            let read = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
            self.offset += read as u64;
            if line.is_empty() {
                return Ok(Step::End);
            }
            if !self.lost || line.starts_with(MAGIC.as_bytes()) {
                break (start, line);
            }
        };
        self.lost = false;
        let step = self.entry(start, &line)?;
        self.lost = matches!(step, Step::Bad(..));
        Ok(step)
    }

    fn entry(&mut self, start: u64, line: &[u8]) -> io::Result<Step> {
        let Some(line) = line.strip_suffix(b"\n") else {
            let beginning = line.starts_with(MAGIC.as_bytes()) || MAGIC.as_bytes().starts_with(line);
            let whole = line.len() as u64 == MAX_LINE;
            return Ok(if beginning && !whole { Step::Torn(start) } else { Step::Bad(start, "is no head") });
        };
        let Some((length, log_bytes, nodes)) = std::str::from_utf8(line).ok().and_then(first_line) else {
            return Ok(Step::Bad(start, "is no head"));
        };
        let mut note = Vec::new();
        let read = self.reader.by_ref().take(length).read_to_end(&mut note)? as u64;
        self.offset += read;
        let head = std::str::from_utf8(&note).ok().and_then(|note| Head::parse(note).ok());
        let head = match head {
            Some(head) if read == length => head,
            // No true part of a note is a note: somebody edited the length, to make a head look unfinished.
            Some(_) => return Ok(Step::Bad(start, "has a wrong length")),
            None if read < length => return Ok(Step::Torn(start)),
            None => return Ok(Step::Bad(start, "is not a well-formed head")),
        };
        let frontier = Frontier::from_parts(head.size(), nodes).filter(|frontier| frontier.root() == *head.root());
        Ok(match frontier {
            Some(frontier) => Step::Entry(Entry { head, log_bytes, frontier }),
            None => Step::Bad(start, "has a frontier that does not hash to its root"),
        })
    }
}

/// The numbers and hashes of an entry's first line.
fn first_line(line: &str) -> Option<(u64, u64, Vec<Hash>)> {
    let mut words = line.strip_prefix(MAGIC)?.split(' ');
    let (length, log_bytes, nodes) = (words.next()?, words.next()?, words.next()?);
    let length: u64 = length.parse().ok().filter(|length| *length <= Head::MAX as u64)?;
    let hash = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
    let nodes = nodes.split(',').filter(|text| !text.is_empty()).map(hash).collect::<Option<_>>()?;
    words.next().is_none().then_some((length, log_bytes.parse().ok()?, nodes))
}

/// The end of the file: its last entry, and the position of a torn one after it.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) last: Option<Entry>,
    /// Where the last entry starts; 0 without one.
    pub(super) last_at: u64,
    pub(super) torn_at: Option<u64>,
}

/// Reads the end of `file`; the error within says at which byte it is not as it was written.
pub(super) fn tail(file: &mut File) -> io::Result<Result<Tail, (u64, &'static str)>> {
    let length = file.metadata()?.len();
    let start = last_window(file, length, WINDOW)?;
    let mut entries = Entries::new(file.try_clone()?, start, length)?;
    let mut tail = Tail::default();
    loop {
        let at = entries.offset;
        match entries.next()? {
            Step::Entry(entry) => (tail.last, tail.last_at) = (Some(entry), at),
            Step::Torn(at) => tail.torn_at = Some(at),
            Step::Bad(at, what) => return Ok(Err((at, what))),
            Step::End => return Ok(Ok(tail)),
        }
    }
}

/// Whether a head of this size and root stands in the file: searched from its end, in ever larger parts.
pub(super) fn holds(folder: &Path, size: u64, root: &Hash) -> Result<bool> {
    let unreadable = |e| unreadable(NAME, e);
    let mut file = File::open(folder.join(NAME)).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut window = WINDOW;
    loop {
        let start = last_window(&mut file, length, window).map_err(unreadable)?;
        let mut entries = Entries::new(file.try_clone().map_err(unreadable)?, start, length).map_err(unreadable)?;
        let mut first = None;
        while let Step::Entry(entry) = entries.next().map_err(unreadable)? {
            if entry.head.size() == size {
                return Ok(entry.head.root() == root);
            }
            first.get_or_insert(entry.head.size());
        }
        if window >= length || first.is_some_and(|first| first < size) {
            return Ok(false);
        }
        window = window.saturating_mul(16);
    }
}

/// The start of the first entry within the last `window` bytes. A note cannot hold the magic at the start of a line:
/// its lines begin with the origin, a digit, base64 that ends in `=`, or a dash.
fn last_window(file: &mut File, length: u64, window: u64) -> io::Result<u64> {
    let from = length.saturating_sub(window);
    if from == 0 {
        return Ok(0);
    }
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    let magic = format!("\n{MAGIC}");
    let at = bytes.windows(magic.len()).position(|window| window == magic.as_bytes());
    // Without any entry in the window the file is damaged: reading from its start of a line finds out where.
    Ok(at.map_or(from, |at| from + at as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::merkle::leaf_hash;
    use std::io::Write;

    fn entry(size: u64) -> Entry {
        let mut frontier = Frontier::default();
        (0..size).for_each(|n| frontier.push(leaf_hash(&n.to_be_bytes())));
        let origin = crate::audit::checkpoint::Origin::of_instance("a1").unwrap();
        let note = format!("{}\n— signet/a1 AAECAwQF\n", Head::text(&origin, size, &frontier.root()));
        Entry { head: Head::parse(&note).unwrap(), log_bytes: size * 9, frontier }
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn the_last_of_many_heads_is_found() {
        let mut bytes = Vec::new();
        for size in 0..1000 {
            bytes.extend(entry(size).encode());
        }
        let tail = tail(&mut file(&bytes)).unwrap().unwrap();
        let last = tail.last.unwrap();
        assert_eq!((last.head.size(), last.log_bytes, tail.torn_at), (999, 8991, None));
    }

    #[test]
    fn a_head_torn_anywhere_is_not_tampering() {
        let (first, second) = (entry(5).encode(), entry(6).encode());
        for cut in 1..second.len() {
            let bytes = [first.as_slice(), &second[..cut]].concat();
            let tail = tail(&mut file(&bytes)).unwrap().unwrap();
            assert_eq!((tail.last.unwrap().head.size(), tail.torn_at), (5, Some(first.len() as u64)), "cut at {cut}");
        }
    }

    #[test]
    fn an_edited_last_head_is_not_taken_for_torn() {
        let good = entry(5).encode();
        let mut accepted = Vec::new();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x01;
            match tail(&mut file(&bytes)).unwrap() {
                Ok(Tail { last: Some(_), torn_at: None, .. }) => accepted.push(at),
                Ok(Tail { last, torn_at, .. }) => assert!(last.is_none() && torn_at.is_some()),
                Err(_) => {}
            }
        }
        // Left to others: name and signature (the key decides), the bytes of the log (compared with the files).
        let text = String::from_utf8(good).unwrap();
        let (number, name, signature) =
            (text.find("45 ").unwrap(), text.find("a1\n").unwrap(), text.find("— ").unwrap());
        let free = |at: usize| (number..number + 2).contains(&at) || (name..name + 2).contains(&at) || at > signature;
        assert!(accepted.iter().copied().all(free), "{accepted:?}");
    }
}
