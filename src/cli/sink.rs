//! Where the result of a command goes: a file that is whole or not there, or standard output.

use std::fs::{OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Serialize;
use tempfile::NamedTempFile;

use super::output::{Out, json, unwritable};
use crate::error::{Error, Kind, Result};

/// Where the result goes.
#[derive(Args, Debug)]
pub(super) struct To {
    /// Write to FILE instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace FILE if it is there; where the result is a secret, show it on a terminal.
    #[arg(long)]
    force: bool,
}

impl To {
    /// Whether files may be replaced.
    pub(super) const fn force(&self) -> bool {
        self.force
    }

    /// The FILE.
    pub(super) fn file(&self) -> Option<&Path> {
        self.out.as_deref()
    }

    /// Refuses a FILE that is there already, before anything is done that could not be written down.
    pub(super) fn check(&self) -> Result<()> {
        match &self.out {
            Some(path) if !self.force && path.metadata().is_ok_and(|found| found.is_file()) => Err(taken(path)),
            Some(_) | None => Ok(()),
        }
    }

    /// Writes a secret: to a file that only its owner can read, or to standard output unless a person would read it.
    pub(super) fn secret(&self, out: Out, bytes: &[u8]) -> Result<()> {
        match &self.out {
            Some(path) => write(path, bytes, Access::Owner, self.force),
            None if out.terminal && !self.force => {
                Err(Error::new(Kind::Invalid, "a secret is not shown on a terminal")
                    .hint("use --out FILE or a pipe, or --force to show it"))
            }
            None => out.bytes(bytes),
        }
    }

    /// Writes a secret that cannot be had again, and that a person may want to see.
    pub(super) fn shown_once(&self, out: Out, bytes: &[u8]) -> Result<()> {
        match &self.out {
            Some(path) => write(path, bytes, Access::Owner, self.force),
            None => out.bytes(bytes),
        }
    }

    /// Writes a body that holds a secret.
    pub(super) fn secret_body(&self, out: Out, body: &impl Serialize) -> Result<()> {
        self.secret(out, &json(body, false)?)
    }

    /// Writes public bytes: as they are, or in base64 where asked, and always so on a terminal.
    pub(super) fn public(&self, out: Out, bytes: &[u8], base64: bool) -> Result<()> {
        let base64 = base64 || (self.out.is_none() && out.terminal);
        if base64 { self.line(out, &STANDARD.encode(bytes)) } else { self.write(out, bytes) }
    }

    /// Writes a line of text that is no secret.
    pub(super) fn line(&self, out: Out, text: &str) -> Result<()> {
        self.write(out, format!("{text}\n").as_bytes())
    }

    /// Writes a text that is no secret, as it is.
    pub(super) fn text(&self, out: Out, text: &str) -> Result<()> {
        self.write(out, text.as_bytes())
    }

    /// Writes a body without secrets.
    pub(super) fn body(&self, out: Out, body: &impl Serialize) -> Result<()> {
        self.write(out, &json(body, self.out.is_none() && out.terminal)?)
    }

    fn write(&self, out: Out, bytes: &[u8]) -> Result<()> {
        match &self.out {
            Some(path) => write(path, bytes, Access::Umask, self.force),
            None => out.bytes(bytes),
        }
    }
}

/// Who may read a new file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// Its owner.
    Owner,
    /// Whom the process's umask allows.
    Umask,
}

/// A file that appears under its name when it is whole, and not at all otherwise.
#[derive(Debug)]
pub(super) struct NewFile {
    temporary: NamedTempFile,
    path: PathBuf,
    replace: bool,
}

impl NewFile {
    /// Begins a file beside `path`, so that the last step is a rename.
    pub(super) fn create(path: &Path, access: Access, replace: bool) -> Result<Self> {
        if !replace && path.symlink_metadata().is_ok() {
            return Err(taken(path));
        }
        let mode = match access {
            Access::Owner => 0o600,
            Access::Umask => 0o666,
        };
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = tempfile::Builder::new()
            .prefix(".signet-")
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(folder)
            .map_err(|e| unwritable(folder.display(), &e))?;
        Ok(Self { temporary, path: path.to_owned(), replace })
    }

    /// Where to write, and read back.
    pub(super) fn file(&mut self) -> &mut std::fs::File {
        self.temporary.as_file_mut()
    }

    /// Makes the file durable under its name.
    pub(super) fn finish(self) -> Result<()> {
        let Self { temporary, path, replace } = self;
        temporary.as_file().sync_all().map_err(|e| unwritable(path.display(), &e))?;
        let renamed = if replace { temporary.persist(&path) } else { temporary.persist_noclobber(&path) };
        match renamed {
            Ok(_) => sync_folder(&path),
            Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Err(taken(&path)),
            Err(e) => Err(unwritable(path.display(), &e.error)),
        }
    }
}

/// Makes the new name durable.
fn sync_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| unwritable(path.display(), &e))
}

fn taken(path: &Path) -> Error {
    Error::new(Kind::Invalid, format!("{} is there already", path.display())).hint("choose another name, or --force")
}

/// Writes a whole file. What is no file, such as `/dev/fd/3`, is written to as it stands.
pub(super) fn write(path: &Path, bytes: &[u8], access: Access, replace: bool) -> Result<()> {
    if path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let mut device = OpenOptions::new().write(true).open(path).map_err(|e| unwritable(path.display(), &e))?;
        return device.write_all(bytes).map_err(|e| unwritable(path.display(), &e));
    }
    let mut file = NewFile::create(path, access, replace)?;
    file.file().write_all(bytes).map_err(|e| unwritable(path.display(), &e))?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERSON: Out = Out { json: false, terminal: true };

    #[test]
    fn a_secret_goes_to_a_file_of_its_owner_and_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plain");
        let mut to = To { out: Some(path.clone()), force: false };
        to.secret(PERSON, b"secret").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"secret");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(to.secret(PERSON, b"other").unwrap_err().kind(), Kind::Invalid);
        to.force = true;
        to.secret(PERSON, b"other").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"other");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_secret_is_not_shown_to_a_person() {
        let error = To { out: None, force: false }.secret(PERSON, b"secret").unwrap_err();
        assert!(error.mend().unwrap().contains("--force"));
    }

    #[test]
    fn a_file_that_was_not_finished_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        drop(NewFile::create(&folder.path().join("half"), Access::Umask, false).unwrap());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_device_is_written_to_as_it_stands() {
        write(Path::new("/dev/null"), b"x", Access::Owner, false).unwrap();
    }
}
