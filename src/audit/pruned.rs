//! The file `pruned`: where a log begins whose first records were pruned.
//!
//! ```text
//! signet-pruned 1 262144 73400320 q83v…=,mBnk…=     records and bytes that are gone, and the right edge of their tree
//! gSKy…=,CsUY…=                                     that they are the beginning of the head below: RFC 9162, section 2.1.4
//! c2sp.org/tlog-proof@v1                            the record that says who pruned them, below a signed head: see `proof`
//! …
//! ```
//!
//! It proves itself by the key of the log: the hashes must lead to the signed head, and the record must stand below it and say the very
//! number. So nobody makes one, or moves one, who cannot sign heads; and records that are missing without one were not pruned.
//! The hashes of what is gone stay in the [tiles](super::tiles), which from then on cannot be made anew.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::checkpoint::{HeadKeys, Origin};
use super::files::sync_folder;
use super::merkle::{Frontier, Hash, verify_consistency};
use super::point::{Point, tampered, unreadable};
use super::proof::Proof;
use super::record::{Phase, Record};
use super::segment::PART;
use super::tiles;
use super::tree::Tree;
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::types::Action;

/// The name of the file.
pub(super) const NAME: &str = "pruned";

const MAGIC: &str = "signet-pruned 1 ";
/// The fact of the record that says how many records are pruned.
pub const BELOW: &str = "below";

/// Where a log begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pruned {
    /// The tree of what is gone.
    frontier: Frontier,
    /// The bytes of it.
    bytes: u64,
    /// That it is the beginning of the head of `act`.
    path: Vec<Hash>,
    /// The record that says so.
    act: Proof,
}

impl Pruned {
    /// Of the first `below` records, of so many bytes, as record `act` says.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where the stored hashes do not hold, or the head is not above that record.
    pub(super) fn new(tree: &Tree, below: u64, bytes: u64, act: u64) -> Result<Self> {
        let (frontier, path) = (tree.frontier(below)?, tree.consistency(below)?.path);
        let pruned = Self { frontier, bytes, path, act: tree.prove(act)? };
        pruned.flaw(tree.head().origin(), None).map_or(Ok(pruned), |flaw| Err(Error::internal(flaw)))
    }

    /// What is pruned of the log in `folder`; none where nothing is. It is taken as it stands there: see [`Self::flaw`].
    ///
    /// # Errors
    /// [`Kind::Tampered`] for a file of another form; [`Kind::Unavailable`] where it cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(folder.join(NAME)) {
            Ok(text) => Self::parse(&text).map(Some).ok_or_else(|| tampered("pruned is not of the form that it has")),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == ErrorKind::InvalidData => Err(tampered("pruned is no text")),
            Err(e) => Err(unreadable(NAME, e)),
        }
    }

    /// What is wrong with it: by itself, and with keys by its signatures.
    pub(super) fn flaw(&self, origin: &Origin, keys: Option<&HeadKeys>) -> Option<String> {
        let Self { frontier, path, act, .. } = self;
        let (below, head) = (frontier.size(), &act.head);
        if head.origin() != origin {
            return Some(format!("is of {}", head.origin()));
        }
        // It may be older than the second key of the log.
        if let Some(flaw) = keys.and_then(|keys| head.flaw_of_older(keys)) {
            return Some(format!("has a head of {} records that {flaw}", head.size()));
        }
        if !act.holds() {
            return Some(format!("names record {} with a proof that does not hold", act.index));
        }
        if !verify_consistency(below, &frontier.root(), head.size(), head.root(), path) {
            return Some(format!("has hashes of {below} records that do not lead to its head"));
        }
        let said = self
            .record()
            .filter(|record| record.phase == Phase::Intent && record.action == Action::PruneAudit.as_str());
        let said = said.and_then(|record| record.facts.get(BELOW)?.parse::<u64>().ok());
        if said != Some(below) || below == 0 {
            return Some(format!("says that the first {below} records were pruned, and record {} does not", act.index));
        }
        None
    }

    /// The record that says who pruned.
    pub(super) fn record(&self) -> Option<Record> {
        serde_json::from_slice(&self.act.record).ok()
    }

    /// The size of the head that it was pruned under.
    pub(super) const fn head(&self) -> u64 {
        self.act.head.size()
    }

    /// Where the log begins.
    pub(super) fn point(&self) -> Point {
        Point { segment: self.frontier.size(), frontier: self.frontier.clone(), offset: 0, before: self.bytes }
    }

    /// Writes it durably, whole or not at all. What fails after the last step may have come to be.
    pub(super) fn write(&self, folder: &Path) -> std::io::Result<()> {
        let (part, path) = (folder.join(format!("{NAME}{PART}")), folder.join(NAME));
        let mut file = File::create(&part)?;
        file.write_all(self.encode().as_bytes())?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o640))?;
        file.sync_all()?;
        crash_point!("prune.before_start");
        fs::rename(&part, &path)?;
        sync_folder(folder)?;
        crash_point!("prune.started");
        Ok(())
    }

    fn encode(&self) -> String {
        let Self { frontier, bytes, path, act } = self;
        format!("{MAGIC}{} {bytes} {}\n{}\n{}", frontier.size(), hashes(frontier.nodes()), hashes(path), act.encode())
    }

    fn parse(text: &str) -> Option<Self> {
        let (first, rest) = text.strip_prefix(MAGIC)?.split_once('\n')?;
        let (path, act) = rest.split_once('\n')?;
        let mut words = first.split(' ');
        let (below, bytes, nodes) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
        let pruned = Self {
            frontier: Frontier::from_parts(below, parse_hashes(nodes)?)?,
            bytes,
            path: parse_hashes(path)?,
            act: Proof::parse(act).ok()?,
        };
        // One spelling, so that nothing can hide in another one.
        (pruned.encode() == text).then_some(pruned)
    }
}

fn hashes(list: &[Hash]) -> String {
    list.iter().map(|hash| BASE64.encode(hash)).collect::<Vec<_>>().join(",")
}

fn parse_hashes(text: &str) -> Option<Vec<Hash>> {
    let hash = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
    text.split(',').filter(|text| !text.is_empty()).map(hash).collect()
}

/// Where the log in `folder` begins: at its first record, or behind what was pruned.
///
/// # Errors
/// As [`Pruned::read`].
pub(super) fn begin(folder: &Path) -> Result<Point> {
    Ok(Pruned::read(folder)?.map_or_else(Point::default, |pruned| pruned.point()))
}

/// The files with the hashes of what was pruned from the log in `folder`, and how many bytes of each those are: they are made of nothing
/// that is still there, so a copy of the log needs them.
///
/// # Errors
/// As those of a file that cannot be read.
pub fn kept_hashes(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    Ok(tiles::files_below(folder, begin(folder)?.size()))
}

/// The error of a record that is not there any more.
pub(super) fn is_pruned(index: u64, first: u64) -> Error {
    Error::new(Kind::NotFound, format!("record {index} was pruned: the log begins with record {first}"))
        .hint("it is in the archive of the log, and `signet audit verify --archive` holds it against the log")
}

/// What of pruned segments is still there: a crash came between, or they were put back. Answers what was removed.
pub(super) fn clear(folder: &Path, segments: &[PathBuf]) -> std::io::Result<usize> {
    let mut removed = 0;
    for path in segments {
        match fs::remove_file(path) {
            Ok(()) => removed += 1,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        crash_point!("prune.removed");
    }
    sync_folder(folder)?;
    crash_point!("prune.done");
    Ok(removed)
}
