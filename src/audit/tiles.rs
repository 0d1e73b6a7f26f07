//! The hashes of the tree, stored beside the log: with them a proof or a tile costs a few reads, however long the log is.
//!
//! ```text
//! tiles-0      the hashes of all leaves, 32 bytes each
//! tiles-1      the root over each 256 of them that are there
//! tiles-2      the root over each 65,536, and so on
//! ```
//!
//! A C2SP tile is a piece of such a file: tile `n` of level `l` are the bytes of `tiles-l` from `n * 8192` on, and what a tile
//! that is not full lacks comes later in the same place. See [`super::tile`].
//!
//! They are derived from the records, and prove nothing by themselves: they are written after a head is signed, never on the
//! way of a request, are not synced, may be deleted, and are made anew where they do not hash to a signed root. What is made
//! of them is checked against that root before it leaves: see [`super::tree`].
//!
//! Where the log was pruned that is so no more of what is gone: its hashes are all that is left of it, are durable before, are never
//! cut, and are part of a backup.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::checkpoint::Head;
use super::merkle::{Frontier, Hash, Nodes, frontier, leaf_hash, range_root, root};
use super::point::{Point, tampered, unreadable};
use super::pruned;
use super::read::Lined;
use super::tile::WIDTH;
use crate::error::{Error, Kind, Result};

/// How the names of the files begin. Nothing of the log itself does.
pub const PREFIX: &str = "tiles-";

const HASH: u64 = 32;
/// How many records are read before their hashes are written.
const STEP: u64 = 1 << 16;

fn path(folder: &Path, level: u32) -> PathBuf {
    folder.join(format!("{PREFIX}{level}"))
}

/// The files in the hands of who writes them. After an error they are opened afresh.
#[derive(Debug)]
pub(super) struct Tiles {
    folder: PathBuf,
    rows: Vec<Row>,
}

/// The hashes of one level.
#[derive(Debug)]
struct Row {
    file: File,
    /// The hashes in the file.
    count: u64,
    /// The last ones, which do not make a full tile yet.
    last: Vec<Hash>,
    /// What is not in the file yet.
    fresh: Vec<u8>,
}

impl Row {
    /// Opens a file of `count` hashes, and cuts off what is beyond.
    fn open(path: &Path, count: u64) -> io::Result<Self> {
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).clone();
        let file = options.open(path)?;
        file.set_len(count * HASH)?;
        let mut bytes = vec![0; usize::try_from(count % WIDTH * HASH).unwrap_or_default()];
        file.read_exact_at(&mut bytes, (count - count % WIDTH) * HASH)?;
        Ok(Self { file, count, last: hashes(&bytes), fresh: Vec::new() })
    }
}

impl Tiles {
    /// Takes up what is stored for a log of at most `size` records: all of it, or full tiles only, or no more than those of the first
    /// `least` records, which are there.
    fn open(folder: &Path, least: u64, size: u64) -> io::Result<Self> {
        let mut usable = stored(folder, 0)?;
        if usable < size {
            usable -= usable % WIDTH;
        }
        usable = usable.min(size).max(least);
        for level in 1..=level_of(usable) {
            if stored(folder, level)? < usable >> (8 * level) {
                usable = least;
            }
        }
        Self::cut(folder, usable)
    }

    /// Opens the files as those of what was pruned: nothing else need be believed.
    ///
    /// # Errors
    /// [`Kind::Tampered`] where not even that is there.
    pub(super) fn least(folder: &Path) -> Result<Self> {
        let begin = pruned::begin(folder)?;
        lead_to(folder, &begin)?;
        Self::cut(folder, begin.size()).map_err(unwritable)
    }

    /// Opens the files as those of `size` records.
    fn cut(folder: &Path, size: u64) -> io::Result<Self> {
        let row = |level| Row::open(&path(folder, level), size >> (8 * level));
        let rows = (0..=level_of(size)).map(row).collect::<io::Result<_>>()?;
        Ok(Self { folder: folder.to_owned(), rows })
    }

    /// The records whose hashes are there.
    pub(super) fn size(&self) -> u64 {
        self.rows.first().map_or(0, |row| row.count)
    }

    /// Adds the leaves that follow.
    pub(super) fn extend(&mut self, leaves: &[Hash]) -> io::Result<()> {
        for leaf in leaves {
            self.push(*leaf)?;
        }
        for row in &mut self.rows {
            row.file.write_all_at(&row.fresh, row.count * HASH)?;
            row.count += row.fresh.len() as u64 / HASH;
            row.fresh.clear();
        }
        Ok(())
    }

    fn push(&mut self, leaf: Hash) -> io::Result<()> {
        let (mut hash, mut level) = (leaf, 0);
        loop {
            if self.rows.len() == level as usize {
                self.rows.push(Row::open(&path(&self.folder, level), 0)?);
            }
            let Some(row) = self.rows.get_mut(level as usize) else { return Ok(()) };
            row.fresh.extend(hash);
            row.last.push(hash);
            if (row.last.len() as u64) < WIDTH {
                return Ok(());
            }
            hash = root(&row.last);
            row.last.clear();
            level += 1;
        }
    }

    /// Brings what is stored in `folder` up to `head`: from the records on disk, and from the first one where what is there does
    /// not hash to its root. Ends early once `stop` says so.
    ///
    /// # Errors
    /// [`Kind::Tampered`] where the records themselves do not; [`Kind::Unavailable`] where the disk refuses.
    pub(super) fn grown(folder: &Path, head: &Head, stop: &AtomicBool) -> Result<Option<Self>> {
        let begin = pruned::begin(folder)?;
        lead_to(folder, &begin)?;
        let mut tiles = Self::open(folder, begin.size(), head.size()).map_err(unwritable)?;
        loop {
            let from = tiles.size();
            if !tiles.read_on(head.size(), stop)? {
                return Ok(None);
            }
            if range_root(&Stored(folder), 0, head.size()).is_ok_and(|root| root == *head.root()) {
                return Ok(Some(tiles));
            }
            hold_below(folder, &begin)?;
            if from == begin.size() {
                return Err(tampered(format!("its records are not those of the head of {} records", head.size())));
            }
            tiles = Self::cut(folder, begin.size()).map_err(unwritable)?;
        }
    }

    /// Adds the leaves of the records up to `size`; false where it was stopped.
    fn read_on(&mut self, size: u64, stop: &AtomicBool) -> Result<bool> {
        let mut lines = Lined::open(&self.folder, self.size())?;
        while self.size() < size {
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let wanted = (size - self.size()).min(STEP);
            let mut leaves = Vec::new();
            while (leaves.len() as u64) < wanted {
                let at = self.size() + leaves.len() as u64;
                let line = lines.next()?.ok_or_else(|| tampered(format!("record {at} of {size} is missing")))?;
                leaves.push(leaf_hash(line));
            }
            self.extend(&leaves).map_err(unwritable)?;
        }
        Ok(true)
    }
}

/// The hashes of one level that are there.
fn stored(folder: &Path, level: u32) -> io::Result<u64> {
    match path(folder, level).metadata() {
        Ok(meta) => Ok(meta.len() / HASH),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}

/// The files that hold something of the first `size` records, and how many bytes that are.
pub(super) fn files_below(folder: &Path, size: u64) -> Vec<(PathBuf, u64)> {
    let levels = (0..=level_of(size)).filter(|_| size > 0);
    levels.map(|level| (path(folder, level), (size >> (8 * level)) * HASH)).collect()
}

/// Makes the hashes of the first `size` records durable.
pub(super) fn sync(folder: &Path, size: u64) -> io::Result<()> {
    files_below(folder, size).iter().try_for_each(|(path, _)| File::open(path)?.sync_all())
}

/// Whether the hashes of what was pruned are all there, and lead to where the log begins: a few reads.
///
/// # Errors
/// [`Kind::Tampered`] where not.
pub(super) fn lead_to(folder: &Path, begin: &Point) -> Result<()> {
    let size = begin.size();
    for (level, (path, bytes)) in (0_u32..).zip(files_below(folder, size)) {
        if stored(folder, level).map_err(|e| unreadable(path.display(), e))? * HASH < bytes {
            return Err(altered(level, size));
        }
    }
    if frontier(&Stored(folder), size)? == begin.frontier { Ok(()) } else { Err(altered(0, size)) }
}

/// Whether each hash of what was pruned is the one that it was: reads all of them.
///
/// # Errors
/// [`Kind::Tampered`] where not.
pub(super) fn hold_below(folder: &Path, begin: &Point) -> Result<()> {
    let size = begin.size();
    lead_to(folder, begin)?;
    let mut leaves = Frontier::default();
    leaves_below(folder, size, |leaf| leaves.push(leaf))?;
    if leaves != begin.frontier {
        return Err(altered(0, size));
    }
    rows_hold(folder, 0, size)
}

/// The hashes of the first `size` records, one after the other.
pub(super) fn leaves_below(folder: &Path, size: u64, mut leaf: impl FnMut(Hash)) -> Result<()> {
    let mut at = 0;
    while at < size {
        let count = (size - at).min(STEP);
        Stored(folder).hashes(0, at, count)?.into_iter().for_each(&mut leaf);
        at += count;
    }
    Ok(())
}

/// Whether what stands above the leaves from `from` up to `to` are the roots over them.
///
/// # Errors
/// [`Kind::Tampered`] where not.
pub(super) fn rows_hold(folder: &Path, from: u64, to: u64) -> Result<()> {
    for level in 1..=level_of(to) {
        for at in from >> (8 * level)..to >> (8 * level) {
            let below = Stored(folder).hashes(level - 1, at * WIDTH, WIDTH)?;
            if Stored(folder).hashes(level, at, 1)?.first() != Some(&root(&below)) {
                return Err(altered(level, to));
            }
        }
    }
    Ok(())
}

/// The error of hashes that cannot be made anew.
fn altered(level: u32, size: u64) -> Error {
    tampered(format!("{PREFIX}{level} does not hold the hashes of the first {size} records, which were pruned"))
        .hint("put the files tiles-* back from a backup; or put the segments back from the archive, and remove the file pruned: then nothing is pruned any more")
}

/// The level of the root over `size` records: no file above it has anything.
const fn level_of(size: u64) -> u32 {
    if size == 0 { 0 } else { size.ilog2() / 8 }
}

/// What is stored in a folder, to be read. Another hand may have written it: who uses it compares roots.
#[derive(Debug)]
pub(super) struct Stored<'a>(pub(super) &'a Path);

impl Stored<'_> {
    /// Hashes of one level, from the one of number `start` on.
    pub(super) fn hashes(&self, level: u32, start: u64, count: u64) -> Result<Vec<Hash>> {
        let read = || {
            let mut bytes = vec![0; usize::try_from(count * HASH).unwrap_or_default()];
            File::open(path(self.0, level))?.read_exact_at(&mut bytes, start * HASH)?;
            Ok(hashes(&bytes))
        };
        read().map_err(|e: io::Error| {
            if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) {
                damaged()
            } else {
                unreadable(format!("{PREFIX}{level}"), e)
            }
        })
    }
}

impl Nodes for Stored<'_> {
    fn node(&self, level: u32, index: u64) -> Result<Hash> {
        let (row, height) = (level / 8, level % 8);
        Ok(root(&self.hashes(row, index << height, 1 << height)?))
    }
}

fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks().0.to_vec()
}

const DAMAGE: &str = "the stored hashes of the audit log do not hold, and are made anew";

/// The error of stored hashes that do not hash to a signed root.
pub(super) fn damaged() -> Error {
    Error::new(Kind::Unavailable, DAMAGE).hint("try again in a moment")
}

/// Whether that is what an error says.
pub(super) fn is_damage(error: &Error) -> bool {
    error.public() == DAMAGE
}

fn unwritable(error: io::Error) -> Error {
    Error::new(Kind::Unavailable, "the hashes of the audit log cannot be stored").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(from: u64, to: u64) -> Vec<Hash> {
        (from..to).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]
        #[test]
        fn what_is_stored_has_the_roots_of_the_tree(sizes in proptest::collection::vec(1u64..40_000, 1..4), more in 0u64..600) {
            let folder = tempfile::tempdir().unwrap();
            let mut sizes = sizes;
            sizes.sort_unstable();
            for size in sizes.iter().copied() {
                // Opened afresh each time, also for a log that has grown since.
                let mut tiles = Tiles::open(folder.path(), 0, size + more).unwrap();
                prop_assert!(tiles.size() <= size);
                let from = tiles.size();
                tiles.extend(&leaves(from, size)).unwrap();
                prop_assert_eq!(tiles.size(), size);
                prop_assert_eq!(range_root(&Stored(folder.path()), 0, size).unwrap(), root(&leaves(0, size)));
            }
            // A log that is shorter than what is stored.
            let short = Tiles::open(folder.path(), 0, sizes[0]).unwrap();
            prop_assert_eq!(short.size(), sizes[0]);
            prop_assert_eq!(range_root(&Stored(folder.path()), 0, sizes[0]).unwrap(), root(&leaves(0, sizes[0])));
        }
    }

    #[test]
    fn a_file_that_is_short_or_gone_is_not_taken_up() {
        let folder = tempfile::tempdir().unwrap();
        Tiles::cut(folder.path(), 0).unwrap().extend(&leaves(0, 1000)).unwrap();
        assert_eq!(Tiles::open(folder.path(), 0, 1000).unwrap().size(), 1000);
        std::fs::remove_file(path(folder.path(), 1)).unwrap();
        assert_eq!(Stored(folder.path()).node(8, 0).unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(Tiles::open(folder.path(), 0, 1000).unwrap().size(), 0);
    }
}
