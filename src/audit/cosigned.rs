//! The newest head that each witness cosigned, beside the heads of the log.
//!
//! ```text
//! cosigned-1f2e3d4c       by the witness whose key has that id: a C2SP checkpoint with the signature of the log and that cosignature
//! ```
//!
//! The cosignature is its own proof, so nothing depends on the file: where it is gone, or torn, the witness is asked again.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::checkpoint::Head;
use super::heads;
use super::note::Note;
use crate::error::{Error, Kind, Result};
use crate::types::NoteKey;

const PREFIX: &str = "cosigned-";

/// A head, and when a witness cosigned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigned {
    /// The head, with the cosignature below it.
    pub head: Head,
    /// In seconds since 1970.
    pub time: u64,
}

impl Cosigned {
    /// What the witness of `key` says of a head, where it does.
    #[must_use]
    pub fn of(head: Head, key: &NoteKey) -> Option<Self> {
        let time = Note::parse(head.note()).ok()?.cosigned(key)?;
        Some(Self { head, time })
    }
}

/// The newest head of the log in `folder` that the witness of `key` cosigned; `None` where none is kept.
#[must_use]
pub fn cosigned(folder: &Path, key: &NoteKey) -> Option<Cosigned> {
    let note = std::fs::read_to_string(path(folder, key)).ok()?;
    Cosigned::of(Head::parse(&note).ok()?, key)
}

/// The newest head of the log in `folder` that all of `keys` cosigned, or something after it: what is below is vouched for by
/// each of them. `None` where one of them vouches for nothing, or there is none.
#[must_use]
pub fn witnessed(folder: &Path, keys: &[NoteKey]) -> Option<Head> {
    let heads: Vec<_> = keys.iter().map(|key| cosigned(folder, key).map(|one| one.head)).collect::<Option<_>>()?;
    heads.into_iter().min_by_key(Head::size)
}

/// The newest head that the witness of `key` cosigned, where the log in `folder` holds it.
///
/// # Errors
/// `DoesNotOpen` where there is none, or the log does not hold it; `Unavailable` where the heads cannot be read.
pub fn vouched(folder: &Path, key: &NoteKey) -> Result<Cosigned> {
    let missing = || Error::new(Kind::DoesNotOpen, format!("no head is kept that witness {} cosigned", key.name()));
    let found = cosigned(folder, key).ok_or_else(missing)?;
    if heads::holds(folder, found.head.size(), found.head.root())? {
        return Ok(found);
    }
    let text = format!("witness {} cosigned {} records that this log does not hold", key.name(), found.head.size());
    Err(Error::new(Kind::DoesNotOpen, text))
}

/// Keeps a head that the witness of `key` cosigned.
///
/// # Errors
/// `Unavailable` where the disk refuses.
pub(super) fn keep(folder: &Path, key: &NoteKey, head: &Head) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".cosigned").tempfile_in(folder)?;
        file.write_all(head.note().as_bytes())?;
        // As the heads: whoever reads the log reads it.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        file.as_file().set_permissions(mode)?;
        file.persist(path(folder, key))?;
        Ok(())
    };
    write().map_err(|e| Error::new(Kind::Unavailable, "a cosignature cannot be kept beside the audit log").because(e))
}

/// `head` with all cosignatures of it that are kept.
pub(super) fn with_cosignatures(folder: &Path, head: Head) -> Head {
    let Ok(entries) = std::fs::read_dir(folder) else { return head };
    let kept = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    let mut lines: Vec<_> = kept
        .filter_map(|entry| Head::parse(&std::fs::read_to_string(entry.path()).ok()?).ok())
        .filter(|other| (other.origin(), other.size(), other.root()) == (head.origin(), head.size(), head.root()))
        .filter_map(|other| Some(other.note().strip_prefix(head.note())?.to_owned()))
        .collect();
    lines.sort();
    Head::parse(&format!("{}{}", head.note(), lines.concat())).unwrap_or(head)
}

fn path(folder: &Path, key: &NoteKey) -> PathBuf {
    folder.join(format!("{PREFIX}{}", hex::encode(key.id())))
}
