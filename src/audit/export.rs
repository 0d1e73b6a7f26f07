//! A log as a folder that any web server can show and any client of tiled logs can read
//! ([C2SP tlog-tiles](https://c2sp.org/tlog-tiles)), and the check of such a folder.
//!
//! ```text
//! DIR/checkpoint               the newest signed head, with the cosignatures of it that are kept
//! DIR/tile/0/000               hashes of leaves, then of full tiles: see `tile`
//! DIR/tile/entries/000         the records; without those that were pruned before
//! DIR/pruned                   which those are: see `pruned`
//! ```
//!
//! It is made of a log's folder, or of a copy, without the service. Made again over an older export, it adds what is new. The
//! head is written last: what it signs is there.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::checkpoint::{Head, HeadKeys, Mark};
use super::cosigned::with_cosignatures;
use super::heads;
use super::merkle::{Frontier, Hash, leaf_hash, root};
use super::point::{tampered, unreadable};
use super::pruned::{self, Pruned};
use super::read::Lined;
use super::tile::{Content, Tile, WIDTH};
use super::tiles::Stored;
use super::tree::entries;
use super::verify::{Problem, Report, Signed, note};
use crate::error::{Error, Kind, Result};

/// The name of the head.
pub const CHECKPOINT: &str = "checkpoint";

/// What [`export`] made.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The head.
    pub head: Head,
    /// The files that were not there before.
    pub written: u64,
    /// Records that no bundle can hold, so that theirs is missing.
    pub too_long: Vec<u64>,
}

/// Writes the log in `folder` up to its last head to `to`. With keys it is checked that each of them signed the head.
///
/// # Errors
/// [`Kind::NotFound`] where there is no log or no head; [`Kind::Tampered`] where the records are not those that the head signs:
/// then there is no new head in `to`; [`Kind::Unavailable`] where a disk refuses.
pub fn export(folder: &Path, to: &Path, keys: Option<&HeadKeys>) -> Result<Exported> {
    let head = last_head(folder)?;
    if let Some(flaw) = keys.and_then(|keys| head.flaw(keys)) {
        return Err(tampered(format!("the last head, of {} records, {flaw}", head.size())));
    }
    let mut out = Out { to: to.to_owned(), written: 0 };
    let (mut tree, mut too_long) = (Rows::default(), Vec::new());
    // Of what was pruned there are hashes, and the records only where an earlier export wrote them.
    let begin = pruned::begin(folder)?;
    let mut lines = Lined::open(folder, begin.size())?;
    for bundle in Tile::of(Content::Entries, head.size(), 0) {
        let gone = begin.size().saturating_sub(bundle.start()).min(bundle.width());
        let leaves = if gone > 0 { Stored(folder).hashes(0, bundle.start(), gone)? } else { Vec::new() };
        for leaf in leaves {
            tree.push(leaf, |tile, hashes| out.write(tile, hashes.as_flattened()))?;
        }
        let (mut bytes, mut fits) = (Vec::new(), gone == 0);
        for index in bundle.start() + gone..bundle.start() + bundle.width() {
            let line =
                lines.next()?.ok_or_else(|| tampered(format!("record {index} of {} is missing", head.size())))?;
            tree.push(leaf_hash(line), |tile, hashes| out.write(tile, hashes.as_flattened()))?;
            if let Ok(length) = u16::try_from(line.len()) {
                bytes.extend(length.to_be_bytes());
                bytes.extend(line);
            } else {
                fits = false;
                too_long.push(index);
            }
        }
        if fits {
            out.write(bundle, &bytes)?;
        }
    }
    tree.end(|tile, hashes| out.write(tile, hashes.as_flattened()))?;
    if tree.frontier.root() != *head.root() {
        return Err(tampered(format!("its records are not those of the head of {} records", head.size())));
    }
    if begin.size() > 0 {
        out.put(pruned::NAME, &fs::read(folder.join(pruned::NAME)).map_err(|e| unreadable(pruned::NAME, e))?)?;
    }
    let head = with_cosignatures(folder, head);
    out.put(CHECKPOINT, head.note().as_bytes())?;
    Ok(Exported { head, written: out.written, too_long })
}

/// Checks such a folder: the head and its signature, each tile, each record. Without keys the signatures are not checked.
///
/// # Errors
/// [`Kind::NotFound`] where there is none; [`Kind::Unavailable`] where the disk refuses. What is wrong is in the report.
pub fn verify_export(folder: &Path, keys: Option<&HeadKeys>) -> Result<Report> {
    let mut report = Report { signatures_checked: keys.is_some(), ..Report::default() };
    let head = fs::read(folder.join(CHECKPOINT)).map_err(|e| {
        if e.kind() == ErrorKind::NotFound {
            Error::new(Kind::NotFound, format!("there is no tiled log in {}", folder.display()))
        } else {
            unreadable(CHECKPOINT, e)
        }
    })?;
    let problems = &mut report.problems;
    let Some(head) = String::from_utf8(head).ok().and_then(|note| Head::parse(&note).ok()) else {
        wrong(problems, CHECKPOINT, "is no signed head");
        return Ok(report);
    };
    if let Some(flaw) = keys.and_then(|keys| head.flaw(keys)) {
        wrong(problems, CHECKPOINT, flaw);
    }
    let right = keys.into_iter().flat_map(HeadKeys::iter).filter(|key| head.mark(key) == Mark::Right);
    report.signatures = right.map(|key| Signed { algorithm: key.algorithm(), heads: 1, from: head.size() }).collect();
    let mut begin = 0;
    match Pruned::read(folder) {
        Ok(None) => {}
        Err(error) => wrong(problems, pruned::NAME, error.public()),
        Ok(Some(pruned)) => match pruned.flaw(head.origin(), keys) {
            Some(flaw) => wrong(problems, pruned::NAME, flaw),
            None => begin = pruned.point().size(),
        },
    }
    let mut tree = Rows::default();
    let compare = |problems: &mut Vec<Problem>, tile: Tile, hashes: &[Hash]| -> Result<()> {
        match read(folder, tile)? {
            None => wrong(problems, tile, "is missing"),
            Some(bytes) if bytes == hashes.as_flattened() => {}
            Some(bytes) => wrong(problems, tile, difference(&bytes, hashes)),
        }
        Ok(())
    };
    for bundle in Tile::of(Content::Entries, head.size(), 0) {
        let leaves = read(folder, bundle)?.map(|bytes| {
            let leaves: Option<Vec<Hash>> =
                entries(&bytes).ok().map(|lines| lines.iter().map(|line| leaf_hash(line)).collect());
            leaves.filter(|leaves| leaves.len() as u64 == bundle.width())
        });
        let leaves = match leaves {
            Some(Some(leaves)) => leaves,
            missing => {
                if missing.is_some() || bundle.start() >= begin {
                    wrong(
                        problems,
                        bundle,
                        if missing.is_some() { "does not hold so many records" } else { "is missing" },
                    );
                }
                // The hashes of its records stand in for them, so that what else is wrong is found.
                let hashes = read(
                    folder,
                    Tile::of(Content::Hashes(0), bundle.start() + bundle.width(), bundle.index())
                        .next()
                        .unwrap_or(bundle),
                )?;
                hashes.unwrap_or_default().as_chunks().0.to_vec()
            }
        };
        for leaf in leaves {
            tree.push(leaf, |tile, hashes| compare(problems, tile, hashes))?;
        }
    }
    tree.end(|tile, hashes| compare(problems, tile, hashes))?;
    report.records = tree.frontier.size();
    report.heads = 1;
    report.root = Some(tree.frontier.root());
    if tree.frontier.size() != head.size() || tree.frontier.root() != *head.root() {
        wrong(problems, CHECKPOINT, "signs other records than those that are there");
    }
    report.signed_by = head.signers().into_iter().next();
    report.head = Some(head);
    Ok(report)
}

fn wrong(problems: &mut Vec<Problem>, file: impl ToString, what: impl Into<String>) {
    note(problems, Problem { file: file.to_string(), line: None, what: what.into() });
}

/// What a tile has that its records do not say.
fn difference(bytes: &[u8], hashes: &[Hash]) -> String {
    if bytes.len() != hashes.as_flattened().len() {
        return format!("has {} bytes, and the records make {}", bytes.len(), hashes.as_flattened().len());
    }
    let at = bytes.as_chunks().0.iter().zip(hashes).position(|(stored, made)| stored != made).unwrap_or_default();
    format!("has another hash {at} than the records below it")
}

fn read(folder: &Path, tile: Tile) -> Result<Option<Vec<u8>>> {
    match fs::read(folder.join(tile.to_string())) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(unreadable(tile, e)),
    }
}

/// The last head of a log's folder.
fn last_head(folder: &Path) -> Result<Head> {
    let none = || Error::new(Kind::NotFound, format!("there is no signed head in {}", folder.display()));
    let mut file = match fs::File::open(folder.join(heads::NAME)) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(none()),
        Err(e) => return Err(unreadable(heads::NAME, e)),
    };
    let tail = heads::tail(&mut file).map_err(|e| unreadable(heads::NAME, e))?;
    let tail = tail.map_err(|(at, what)| tampered(format!("what starts at byte {at} of heads {what}")))?;
    tail.last.map(|entry| entry.head).ok_or_else(none)
}

/// The hashes of a tree as its leaves come, tile by tile.
#[derive(Debug, Default)]
struct Rows {
    frontier: Frontier,
    /// Of each level: the full tiles so far, and the hashes since.
    rows: Vec<(u64, Vec<Hash>)>,
}

impl Rows {
    /// Adds a leaf, and gives each tile that is full now to `full`.
    fn push(&mut self, leaf: Hash, mut full: impl FnMut(Tile, &[Hash]) -> Result<()>) -> Result<()> {
        self.frontier.push(leaf);
        let mut hash = leaf;
        for level in 0.. {
            if self.rows.len() == usize::from(level) {
                self.rows.push((0, Vec::new()));
            }
            let Some((tiles, hashes)) = self.rows.get_mut(usize::from(level)) else { break };
            hashes.push(hash);
            if (hashes.len() as u64) < WIDTH {
                break;
            }
            full(Tile::full(Content::Hashes(level), *tiles), hashes)?;
            hash = root(hashes);
            *tiles += 1;
            hashes.clear();
        }
        Ok(())
    }

    /// Gives the tiles that are not full to `rest`.
    fn end(&self, mut rest: impl FnMut(Tile, &[Hash]) -> Result<()>) -> Result<()> {
        for (level, (tiles, hashes)) in (0..).zip(&self.rows) {
            if !hashes.is_empty()
                && let Some(tile) = Tile::of(Content::Hashes(level), self.frontier.size(), *tiles).next()
            {
                rest(tile, hashes)?;
            }
        }
        Ok(())
    }
}

/// The folder that is written.
struct Out {
    to: PathBuf,
    written: u64,
}

impl Out {
    fn write(&mut self, tile: Tile, bytes: &[u8]) -> Result<()> {
        self.put(&tile.to_string(), bytes)
    }

    /// Writes a file as a whole, unless it is there already.
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.to.join(name);
        let write = || -> io::Result<bool> {
            if fs::read(&path).is_ok_and(|there| there == bytes) {
                return Ok(false);
            }
            let parent = path.parent().unwrap_or(&self.to);
            fs::create_dir_all(parent)?;
            let mut file = tempfile::NamedTempFile::new_in(parent)?;
            io::Write::write_all(&mut file, bytes)?;
            // What is shown to others may be read by others: the web server is another user.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            file.as_file().set_permissions(mode)?;
            file.persist(&path)?;
            Ok(true)
        };
        let fresh =
            write().map_err(|e| Error::new(Kind::Unavailable, format!("{} cannot be written: {e}", path.display())))?;
        self.written += u64::from(fresh);
        Ok(())
    }
}
