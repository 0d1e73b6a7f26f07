//! What a witness remembers: of each log the newest checkpoint that it cosigned.
//!
//! ```text
//! signet-witness 1                     magic, version
//! 338                                  the bytes of the note that follows
//! signet/5f0c2a41                      the text of the checkpoint, and the cosignature of this witness
//! …
//! 341
//! …
//! ```
//!
//! One file, written whole and durable before a cosignature leaves. Each note in it bears the cosignature of this very witness, so a
//! note that somebody made up is noticed at the start. That an older file was put in its place is not: the log that holds a newer
//! cosignature notices it, and says so.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::request::Checkpoint;
use crate::audit::merkle::Hash;
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::types::NoteKey;

const NAME: &str = "logs";
const MAGIC: &str = "signet-witness 1\n";
/// The longest file that is read: more logs than a witness of this size should have.
const MAX: u64 = 64 * 1024 * 1024;

/// The newest checkpoint of each log.
#[derive(Clone, Debug)]
pub(super) struct Book {
    folder: PathBuf,
    entries: BTreeMap<String, Entry>,
}

/// The newest checkpoint of a log.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) size: u64,
    pub(super) root: Hash,
    /// Its text and our cosignature.
    pub(super) note: String,
}

impl Book {
    /// Begins an empty one.
    pub(super) fn create(folder: &Path) -> Result<()> {
        Self { folder: folder.to_owned(), entries: BTreeMap::new() }.write()
    }

    /// Reads the one in `folder`, which the witness of `key` wrote.
    ///
    /// # Errors
    /// `Tampered` where it is gone, or holds what that witness did not sign.
    pub(super) fn open(folder: &Path, key: &NoteKey) -> Result<Self> {
        let path = folder.join(NAME);
        let tampered = |what: String| {
            Error::new(Kind::Tampered, format!("{} {what}", path.display())).hint(
                "put the newest copy back; where there is none, this witness can vouch for nothing it said before: \
                 begin with a new key in a new folder, see docs/witness.md",
            )
        };
        let length = std::fs::metadata(&path).map_err(|e| tampered(format!("cannot be read: {e}")))?.len();
        if length > MAX {
            return Err(tampered(format!("has {length} bytes")));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| tampered(format!("cannot be read: {e}")))?;
        let mut rest = text.strip_prefix(MAGIC).ok_or_else(|| tampered("is not what a witness wrote".to_owned()))?;
        let mut entries = BTreeMap::new();
        while !rest.is_empty() {
            let read = || {
                let (length, after) = rest.split_once('\n')?;
                let (note, after) = after.split_at_checked(length.parse().ok()?)?;
                Some((note, Checkpoint::parse(note)?, after))
            };
            let (note, checkpoint, after) = read().ok_or_else(|| tampered("is not whole".to_owned()))?;
            if checkpoint.note.cosigned(key).is_none() {
                return Err(tampered(format!("holds a checkpoint of {} that it never cosigned", checkpoint.origin)));
            }
            let entry = Entry { size: checkpoint.size, root: checkpoint.root, note: note.to_owned() };
            if entries.insert(checkpoint.origin.clone(), entry).is_some() {
                return Err(tampered(format!("holds two checkpoints of {}", checkpoint.origin)));
            }
            rest = after;
        }
        Ok(Self { folder: folder.to_owned(), entries })
    }

    /// What is known of a log.
    pub(super) fn get(&self, origin: &str) -> Option<&Entry> {
        self.entries.get(origin)
    }

    /// The origins and sizes of all.
    pub(super) fn sizes(&self) -> impl Iterator<Item = (&str, u64)> {
        self.entries.iter().map(|(origin, entry)| (origin.as_str(), entry.size))
    }

    /// This book with a newer checkpoint, durable.
    pub(super) fn with(mut self, origin: String, entry: Entry) -> Result<Self> {
        self.entries.insert(origin, entry);
        self.write()?;
        Ok(self)
    }

    /// Writes the file whole or not at all.
    fn write(&self) -> Result<()> {
        let unwritable =
            |e: std::io::Error| Error::new(Kind::Unavailable, "what the witness knows cannot be written").because(e);
        let mut text = MAGIC.to_owned();
        for Entry { note, .. } in self.entries.values() {
            text.push_str(&format!("{}\n{note}", note.len()));
        }
        let mut file = tempfile::Builder::new().prefix(".logs").tempfile_in(&self.folder).map_err(unwritable)?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(unwritable)?;
        crash_point!("witness.before_file");
        file.persist(self.folder.join(NAME)).map_err(|e| unwritable(e.error))?;
        crash_point!("witness.file_written");
        std::fs::File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(unwritable)
    }
}
