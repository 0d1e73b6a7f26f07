//! `signet backup`.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, Write};
use std::path::PathBuf;

use clap::Args;

use super::App;
use super::output::{facts, joined, note, table, time, unwritable};
use super::sink::{Access, NewFile};
use crate::error::{Error, Kind, Result};
use crate::wire::{BackupManifest, Bound};

/// The longest manifest.
const MAX_MANIFEST: u64 = 256 << 20;

/// Take a backup, check that it is whole, and tell what it cannot bring back.
///
/// The archive holds no key in the clear. A version that is bound to its device needs that very device to come back: make sure
/// of a second one.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet backup --out signet-backup.tar")]
pub(super) struct Backup {
    /// Where the archive goes; readable by its owner only.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace FILE if it is there.
    #[arg(long)]
    force: bool,
}

impl Backup {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let mut target = NewFile::create(&self.out, Access::Owner, self.force)?;
        app.online(async |client| {
            let mut download = client.backup().await?;
            while let Some(piece) = download.piece().await? {
                target.file().write_all(&piece).map_err(|e| unwritable(self.out.display(), &e))?;
            }
            Ok(())
        })?;
        target.file().rewind().map_err(|e| unwritable(self.out.display(), &e))?;
        let manifest = checked(BufReader::new(target.file()))?;
        target.finish()?;
        note(format_args!("kept in {}", self.out.display()));
        app.out.answer(&manifest, |manifest| shown(manifest, app.out.terminal))
    }
}

/// Reads an archive and compares each file with what the manifest, its first entry, says of it.
fn checked(archive: impl Read) -> Result<BackupManifest> {
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().map_err(|e| damaged().because(e))?;
    let manifest = match entries.next() {
        Some(Ok(entry)) if entry.path_bytes().as_ref() == b"manifest.json" => entry,
        Some(_) | None => return Err(damaged()),
    };
    let manifest: BackupManifest =
        serde_json::from_reader(manifest.take(MAX_MANIFEST)).map_err(|e| damaged().because(e))?;
    let mut found = BTreeMap::new();
    for entry in entries {
        let mut entry = entry.map_err(|e| damaged().because(e))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        found.insert(name, hash(&mut entry)?);
    }
    if found == manifest.files { Ok(manifest) } else { Err(damaged()) }
}

fn hash(file: &mut impl Read) -> Result<String> {
    let mut state = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer).map_err(|e| damaged().because(e))? {
            0 => return Ok(hex::encode(state.finish())),
            n => state.update(buffer.get(..n).unwrap_or_default()),
        }
    }
}

fn damaged() -> Error {
    Error::new(Kind::Tampered, "the backup that arrived is not whole, and was thrown away").hint("take another")
}

fn shown(manifest: &BackupManifest, terminal: bool) -> String {
    let BackupManifest { format, instance, taken, audit_size, files, bound_to_device, bound } = manifest;
    let mut text = facts([
        ("format", format.to_string()),
        ("instance", instance.clone()),
        ("taken", time(*taken)),
        ("audit records", audit_size.to_string()),
        ("files", joined(files.keys())),
    ]);
    if bound_to_device.is_empty() {
        text.push_str("\n\nEvery version can be brought back from this archive and the devices' own backups.");
        return text;
    }
    let rows = bound_to_device.iter().map(|bound| {
        vec![bound.key.to_string(), bound.version.to_string(), bound.device.to_string(), bound.reason.clone()]
    });
    text.push_str("\n\nLost with their device, whatever happens to this archive:\n");
    text.push_str(&table(&["KEY", "VERSION", "DEVICE", "REASON"], rows, terminal));
    for Bound { device, reason, versions } in bound {
        let named = bound_to_device.iter().filter(|one| one.device == *device && one.reason == *reason).count();
        let more = versions.saturating_sub(named as u64);
        if more > 0 {
            text.push_str(&format!("\nand {more} more in {device}: {reason}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::sha256;

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn manifest(content: &[u8]) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({
            "format": 1, "instance": "i", "taken": "2026-01-02T03:04:05Z", "audit_size": 3,
            "files": {"store.db": hex::encode(sha256(&[content]))},
            "bound_to_device": [{"key": "default:a", "version": 1, "device": "tpm", "reason": "sealed to this TPM"}],
            "bound": [{"device": "tpm", "reason": "sealed to this TPM", "versions": 1001}],
        }))
        .unwrap()
    }

    #[test]
    fn a_whole_archive_tells_what_it_cannot_bring_back() {
        let bytes = archive(&[("manifest.json", &manifest(b"rows")), ("store.db", b"rows")]);
        let text = shown(&checked(bytes.as_slice()).unwrap(), false);
        assert!(text.contains("default:a  1        tpm     sealed to this TPM"), "{text}");
        assert!(text.ends_with("and 1000 more in tpm: sealed to this TPM"), "{text}");
    }

    #[test]
    fn a_damaged_archive_is_refused() {
        let whole = archive(&[("manifest.json", &manifest(b"rows")), ("store.db", b"rows")]);
        let changed = archive(&[("manifest.json", &manifest(b"rows")), ("store.db", b"rowz")]);
        let missing = archive(&[("manifest.json", &manifest(b"rows"))]);
        let without = archive(&[("store.db", b"rows")]);
        let cut = whole.get(..whole.len() / 2).unwrap().to_vec();
        for bad in [changed, missing, without, cut, Vec::new()] {
            assert_eq!(checked(bad.as_slice()).unwrap_err().kind(), Kind::Tampered);
        }
    }
}
