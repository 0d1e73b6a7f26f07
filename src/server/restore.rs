//! Restores a backup into an empty folder, and draws the consequences at the next start.
//!
//! The folder is marked before the first file is in it, so that a restore that was cut short, or whose archive did not hold,
//! never starts; the mark then says from when the backup is until the consequences are drawn.
//!
//! A restore goes back in time. What was revoked or counted after the backup is unknown, so at the first start every bearer
//! token is revoked, every counted key gets a new version, and a record of the gap is written that stays for ever.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path};

use super::RESTORED_MARK;
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::service::{Manifest, Restoration, Service};

/// The largest file of an archive.
const MAX_FILE: u64 = 64 << 30;
/// The longest manifest: older programs named every version in it.
const MAX_MANIFEST: u64 = 256 << 20;

/// What the mark says until all files are there and are those of the manifest.
const UNFINISHED: &str = "unfinished";

/// What a restore brought back.
#[derive(Debug)]
pub struct Restored {
    /// The manifest of the backup.
    pub manifest: Manifest,
}

/// Unpacks `archive` into `data`, which must be empty, and checks every file against the manifest.
///
/// # Errors
/// `Conflict` for a folder that is not empty, `Tampered` for an archive that is not whole.
pub fn restore(archive: &Path, data: &Path) -> Result<Restored> {
    let unwritable = |e: std::io::Error| Error::new(Kind::Unavailable, format!("{}: {e}", data.display()));
    std::fs::create_dir_all(data).map_err(unwritable)?;
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(data, private).map_err(unwritable)?;
    if std::fs::read_dir(data).map_err(unwritable)?.next().is_some() {
        return Err(Error::new(Kind::Conflict, format!("{} is not empty", data.display()))
            .hint("a backup is restored into an empty folder, never over an installation"));
    }
    let file = File::open(archive).map_err(|e| Error::new(Kind::Invalid, format!("{}: {e}", archive.display())))?;
    let mut tar = tar::Archive::new(file);
    let broken = |what: &str| Error::new(Kind::Tampered, format!("not a whole backup: {what}"));
    let mut manifest: Option<Manifest> = None;
    let mut seen = BTreeMap::new();
    for entry in tar.entries().map_err(|e| broken("it is no archive").because(e))? {
        let mut entry = entry.map_err(|e| broken("it is cut off").because(e))?;
        let path = entry.path().map_err(|e| broken("a name").because(e))?.into_owned();
        let name = path.to_str().unwrap_or_default().to_owned();
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        if !plain || entry.size() > MAX_FILE || !entry.header().entry_type().is_file() {
            return Err(broken(&format!("{name:?} does not belong in it")));
        }
        if manifest.is_none() {
            let mut text = Vec::new();
            entry.by_ref().take(MAX_MANIFEST).read_to_end(&mut text).map_err(|e| broken("the manifest").because(e))?;
            manifest = Some(serde_json::from_slice(&text).map_err(|e| broken("the manifest").because(e))?);
            mark(data, UNFINISHED)?;
            continue;
        }
        seen.insert(name.clone(), unpack(&mut entry, &data.join(&path))?);
    }
    let manifest = manifest.ok_or_else(|| broken("it is empty"))?;
    if seen != manifest.files {
        return Err(broken("its files are not those of its manifest")
            .hint("nothing was started; remove the folder and take another copy of the backup"));
    }
    crash_point!("restore.unpacked");
    mark(data, &manifest.taken.to_string())?;
    Ok(Restored { manifest })
}

/// Writes the mark, whole or not at all.
fn mark(data: &Path, text: &str) -> Result<()> {
    let unwritable = |e: std::io::Error| Error::new(Kind::Unavailable, format!("{}: {e}", data.display()));
    let mut file = tempfile::Builder::new().prefix(".restored").tempfile_in(data).map_err(unwritable)?;
    file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(unwritable)?;
    crash_point!("restore.before_mark");
    file.persist(data.join(RESTORED_MARK)).map_err(|e| unwritable(e.error))?;
    crash_point!("restore.marked");
    File::open(data).and_then(|folder| folder.sync_all()).map_err(unwritable)
}

/// What the mark says; `None` for a folder that is not fresh from a restore.
///
/// # Errors
/// [`Kind::Tampered`] for a restore that did not come to its end.
pub(super) fn restored_from(data: &Path) -> Result<Option<String>> {
    let path = data.join(RESTORED_MARK);
    match std::fs::read_to_string(&path) {
        Ok(text) if text == UNFINISHED => {
            Err(Error::new(Kind::Tampered, format!("{} holds a restore that did not come to its end", data.display()))
                .hint("remove the folder and restore again"))
        }
        Ok(taken) => Ok(Some(taken)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::new(Kind::Unavailable, format!("{}: {e}", path.display()))),
    }
}

/// Writes one file durably and answers its SHA-256.
fn unpack(content: &mut dyn Read, path: &Path) -> Result<String> {
    let unwritable = |e: std::io::Error| Error::new(Kind::Unavailable, format!("{}: {e}", path.display()));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(unwritable)?;
    }
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.write(true).create_new(true).open(path).map_err(unwritable)?;
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = content.read(&mut buffer).map_err(unwritable)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else { break };
        digest.update(part);
        file.write_all(part).map_err(unwritable)?;
    }
    file.sync_all().map_err(unwritable)?;
    Ok(hex::encode(digest.finish()))
}

/// At the first start after a restore: revokes tokens, makes new versions of counted keys, records the gap. And after an older
/// state was accepted: makes those versions.
pub(super) async fn draw_consequences(data: &Path, service: &Service) -> Result<()> {
    let Some(taken) = restored_from(data)? else {
        let rotated = service.after_gap().await?;
        if rotated > 0 {
            tracing::warn!(rotated, "an older state was accepted: counted keys rotated");
        }
        return Ok(());
    };
    let mark = data.join(RESTORED_MARK);
    let Restoration { tokens, buried, rotated } = service.after_restore(&taken).await?;
    tracing::warn!(taken, tokens, buried, rotated, "started from a backup: tokens revoked, counted keys rotated");
    crash_point!("restore.before_unmark");
    std::fs::remove_file(&mark).map_err(|e| Error::new(Kind::Unavailable, format!("{}: {e}", mark.display())))?;
    crash_point!("restore.unmarked");
    Ok(())
}
