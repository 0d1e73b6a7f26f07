//! The tree below one signed head, as it is shown to others: proofs and tiles, each checked before it leaves.

use std::path::{Path, PathBuf};

use super::checkpoint::Head;
use super::merkle::{Frontier, consistency_proof, frontier, inclusion_proof, range_root, root, verify_consistency};
use super::point::tampered;
use super::proof::{Consistency, Proof};
use super::read::Lined;
use super::tile::{Content, MAX_ENTRY, Tile, WIDTH};
use super::tiles::{Stored, damaged};
use crate::error::{Error, Kind, Result};

/// A signed head, and the stored hashes of all that is below it.
#[derive(Clone, Debug)]
pub struct Tree {
    folder: PathBuf,
    head: Head,
}

impl Tree {
    pub(super) fn new(folder: &Path, head: Head) -> Self {
        Self { folder: folder.to_owned(), head }
    }

    /// The head. What the log got since is below one of the next second.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.head
    }

    /// Record `index`, and the proof that it is below the head.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a record that is not below it, or was pruned; [`Kind::Unavailable`] where what is stored does not hold.
    pub fn prove(&self, index: u64) -> Result<Proof> {
        let size = self.head.size();
        if index >= size {
            return Err(Error::new(
                Kind::NotFound,
                format!("record {index} is not below a signed head yet: the last one is of {size} records"),
            )
            .hint("heads are signed each second: try again"));
        }
        let path = inclusion_proof(&Stored(&self.folder), size, index)?;
        let record = Lined::open(&self.folder, index)?.next()?.map(<[u8]>::to_vec);
        let record = record.ok_or_else(|| tampered(format!("record {index} of {size} is missing")))?;
        let proof = Proof { index, record, path, head: self.head.clone() };
        if proof.holds() {
            return Ok(proof);
        }
        // Whether the record or a stored hash was changed shows when the hashes are made anew.
        Err(damaged().because(format!("record {index} is not proven by what is stored")))
    }

    /// The proof that the first `old` records are the beginning of those below the head.
    ///
    /// # Errors
    /// [`Kind::NotFound`] where it has fewer; [`Kind::Unavailable`] where what is stored does not hold.
    pub fn consistency(&self, old: u64) -> Result<Consistency> {
        let (stored, size) = (Stored(&self.folder), self.head.size());
        let path = consistency_proof(&stored, old, size)?;
        let old_root = range_root(&stored, 0, old)?;
        if verify_consistency(old, &old_root, size, self.head.root(), &path) {
            Ok(Consistency { old, path, head: self.head.clone() })
        } else {
            Err(damaged())
        }
    }

    /// The right edge of the tree of the first `size` records, which are the beginning of those below the head.
    ///
    /// # Errors
    /// As [`Self::consistency`].
    pub(super) fn frontier(&self, size: u64) -> Result<Frontier> {
        let (frontier, proof) = (frontier(&Stored(&self.folder), size)?, self.consistency(size)?);
        if verify_consistency(size, &frontier.root(), self.head.size(), self.head.root(), &proof.path) {
            Ok(frontier)
        } else {
            Err(damaged())
        }
    }

    /// A tile of the log.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for one that is not there below the head, or with records that were pruned; [`Kind::Limit`] for a bundle with a record that is too
    /// long for one; [`Kind::Unavailable`] where what is stored does not hold.
    pub fn tile(&self, tile: Tile) -> Result<Vec<u8>> {
        if !tile.is_in(self.head.size()) {
            return Err(Error::new(Kind::NotFound, format!("a log of {} records has no {tile}", self.head.size())));
        }
        match tile.content() {
            Content::Hashes(level) => self.hashes(tile, u32::from(level)),
            Content::Entries => bundle(&self.folder, tile),
        }
    }

    /// The hashes of a tile. Those of a full one must have the root that the level above knows.
    fn hashes(&self, tile: Tile, level: u32) -> Result<Vec<u8>> {
        let stored = Stored(&self.folder);
        let hashes = stored.hashes(level, tile.start(), tile.width())?;
        if tile.width() == WIDTH && stored.hashes(level + 1, tile.index(), 1)?.first() != Some(&root(&hashes)) {
            return Err(damaged());
        }
        Ok(hashes.as_flattened().to_vec())
    }
}

/// The records of a tile, each after its length.
pub(super) fn bundle(folder: &Path, tile: Tile) -> Result<Vec<u8>> {
    let mut lines = Lined::open(folder, tile.start())?;
    let mut bundle = Vec::new();
    for index in (tile.start()..).take(usize::try_from(tile.width()).unwrap_or_default()) {
        let line = lines.next()?.ok_or_else(|| tampered(format!("record {index} is missing")))?;
        let Ok(length) = u16::try_from(line.len()) else {
            let text =
                format!("record {index} has {} bytes, and a bundle holds records of at most {MAX_ENTRY}", line.len());
            return Err(
                Error::new(Kind::Limit, text).hint("read it with `signet audit proof`, which proves it as well")
            );
        };
        bundle.extend(length.to_be_bytes());
        bundle.extend(line);
    }
    Ok(bundle)
}

/// The records of a bundle.
///
/// # Errors
/// [`Kind::Invalid`] where its lengths do not fit.
pub fn entries(mut bundle: &[u8]) -> Result<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while !bundle.is_empty() {
        let split = bundle
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(u16::from_be_bytes(*length).into()));
        let (entry, rest) =
            split.ok_or_else(|| Error::new(Kind::Invalid, "the lengths in a bundle of records do not fit"))?;
        entries.push(entry);
        bundle = rest;
    }
    Ok(entries)
}
