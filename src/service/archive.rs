//! The archive of a backup.
//!
//! ```text
//! manifest.json     Manifest: what the archive holds and what it cannot bring back
//! signet.db         a consistent copy of the store, sealed as it is
//! root.json         how the store is unsealed: by a key in the device
//! audit/...         the segments and heads of the log
//! ```
//! a tar archive, in this order.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Manifest, SCRATCH_PREFIX};
use crate::crash_point;
use crate::error::{Error, Kind, Result};

/// Puts an archive together from a copy of the store and the folder of the log.
pub(super) fn build(
    mut manifest: Manifest,
    database: (tempfile::TempDir, PathBuf),
    log: &Path,
    scratch: &Path,
) -> Result<tempfile::NamedTempFile> {
    let (_folder, database) = database;
    manifest.audit_size = crate::audit::count(log)?;
    let mut files = vec![("signet.db".to_owned(), database, u64::MAX)];
    if let Some(root) = scratch.parent().map(|data| data.join("root.json")) {
        files.push(("root.json".to_owned(), root, u64::MAX));
    }
    let mut segments: Vec<_> = std::fs::read_dir(log)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>())
        .map_err(unwritable)?;
    segments.sort();
    for path in segments {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        // The hashes are made of the records again; what begins with a dot is being written.
        if name == "lock" || name.starts_with('.') || name.ends_with(".part") || name.starts_with(crate::audit::TILES) {
            continue;
        }
        // What is appended while the archive is written stays out: up to here it is whole lines and whole heads.
        let length = whole_length(&path)?;
        files.push((format!("audit/{name}"), path, length));
    }
    // Those of what was pruned cannot be.
    for (path, length) in crate::audit::kept_hashes(log)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        files.push((format!("audit/{name}"), path, length));
    }
    let mut archive = tempfile::Builder::new().prefix(SCRATCH_PREFIX).tempfile_in(scratch).map_err(unwritable)?;
    for (name, path, limit) in &files {
        manifest.files.insert(name.clone(), hash(path, *limit)?);
    }
    let mut tar = tar::Builder::new(archive.as_file_mut());
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| Error::internal(format!("manifest: {e}")))?;
    append(&mut tar, "manifest.json", &mut text.as_slice(), text.len() as u64)?;
    for (name, path, limit) in &files {
        let file = File::open(path).map_err(unwritable)?;
        let length = file.metadata().map_err(unwritable)?.len().min(*limit);
        append(&mut tar, name, &mut file.take(length), length)?;
    }
    tar.into_inner().and_then(|file| file.flush()).map_err(unwritable)?;
    archive.as_file_mut().seek(SeekFrom::Start(0)).map_err(unwritable)?;
    crash_point!("backup.archived");
    Ok(archive)
}

fn unwritable(error: std::io::Error) -> Error {
    Error::new(Kind::Unavailable, "the backup cannot be written").because(error)
}

/// The length of a file up to its last line feed: a record or head that is being written is not whole yet.
fn whole_length(path: &Path) -> Result<u64> {
    let bytes = std::fs::read(path).map_err(unwritable)?;
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok(end as u64)
}

fn hash(path: &Path, limit: u64) -> Result<String> {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut file = File::open(path).map_err(unwritable)?.take(limit);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = file.read(&mut buffer).map_err(unwritable)?;
        if read == 0 {
            return Ok(hex::encode(digest.finish()));
        }
        digest.update(buffer.get(..read).unwrap_or_default());
    }
}

fn append(tar: &mut tar::Builder<&mut File>, name: &str, content: &mut dyn Read, length: u64) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o600);
    header.set_cksum();
    tar.append_data(&mut header, name, content).map_err(unwritable)
}
