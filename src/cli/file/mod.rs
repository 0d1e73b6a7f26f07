//! `signet file`: encryption of files of any size.
//!
//! The server makes a data key and wraps it; the file is encrypted here, and holds the wrapped data key in its header. To
//! decrypt, the server unwraps it again. The content never travels.

use crate::file as format;

use std::fs::File as Disk;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::input::{ContextArgs, open, parsed};
use super::output::unwritable;
use super::sink::{Access, NewFile};
use super::{App, noun, output};
use crate::error::{Error, Kind, Result};
use crate::types::{Context, KeyName, SecretBytes};
use crate::wire::{Base64, GenerateDataKey, Unwrap};

/// What an encrypted file is called by itself.
const SUFFIX: &str = "signet";
/// The length of the data key in bytes.
const DATA_KEY: usize = 32;

noun! {
    /// Encrypt and decrypt files of any size.
    File: Verb {
        Encrypt(Encrypt),
        Decrypt(Decrypt),
    }
}

/// What both directions need.
#[derive(Args, Debug)]
struct Job {
    /// The key that wraps the file's data key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// The file; - for standard input, which needs --out.
    file: PathBuf,
    #[command(flatten)]
    context: ContextArgs,
    /// Write to FILE instead of beside the input.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the result if it is there.
    #[arg(long)]
    force: bool,
}

/// Encrypt a file, as FILE.signet where --out does not say otherwise.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet file encrypt payments:archive dump.sql --context tenant=acme
  tar c data | signet file encrypt payments:archive - --out data.tar.signet")]
struct Encrypt {
    #[command(flatten)]
    job: Job,
}

impl Encrypt {
    fn run(self, app: &App) -> Result<()> {
        let Job { name, file, context, out, force } = self.job;
        let path = out.or_else(|| beside(&file)).ok_or_else(no_name)?;
        let source = Source::open(&file)?;
        let mut target = NewFile::create(&path, Access::Umask, force)?;
        let body = GenerateDataKey { length: DATA_KEY, context: context.context()?, plaintext: true };
        let key = app.online(async |client| client.datakey(&name, &body).await)?;
        let plaintext = key.plaintext.ok_or_else(|| Error::new(Kind::Internal, "the server made no data key"))?;
        seal(source, target.file(), &plaintext.0, &key.ciphertext.0)?;
        target.finish()?;
        output::note(format_args!("encrypted as {}", path.display()));
        Ok(())
    }
}

/// Decrypt a file; the result appears when all of it was found whole, and is readable by its owner only.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet file decrypt payments:archive dump.sql.signet --context tenant=acme
  signet file decrypt payments:archive dump.sql.signet --out copy.sql")]
struct Decrypt {
    #[command(flatten)]
    job: Job,
}

impl Decrypt {
    fn run(self, app: &App) -> Result<()> {
        let Job { name, file, context, out, force } = self.job;
        let path = out.or_else(|| without_suffix(&file)).ok_or_else(no_name)?;
        let source = Source::open(&file)?;
        let mut target = NewFile::create(&path, Access::Owner, force)?;
        unseal(source, target.file(), |wrapped| data_key(app, &name, wrapped, context.context()?))?;
        target.finish()?;
        output::note(format_args!("decrypted as {}", path.display()));
        Ok(())
    }
}

fn data_key(app: &App, name: &KeyName, wrapped: &[u8], context: Context) -> Result<SecretBytes> {
    let body = Unwrap { ciphertext: Base64(wrapped.to_vec()), context, danger_allow_compromised: false };
    let unwrapped = app.online(async |client| client.unwrap(name, &body).await)?;
    Ok(unwrapped.plaintext.0)
}

/// The one place that encrypts.
fn seal(source: Source, target: &mut Disk, data_key: &SecretBytes, wrapped: &[u8]) -> Result<()> {
    let Source { mut reader, bar } = source;
    let mut writer = BufWriter::new(target);
    format::encrypt(&mut reader, &mut writer, data_key, wrapped, &mut |done| bar.0.set_position(done))?;
    writer.flush().map_err(|e| unwritable("the encrypted file", &e))
}

/// The one place that decrypts.
fn unseal(source: Source, target: &mut Disk, data_key: impl FnOnce(&[u8]) -> Result<SecretBytes>) -> Result<()> {
    let Source { mut reader, bar } = source;
    let header = format::Header::read(&mut reader)?;
    let data_key = data_key(header.wrapped())?;
    let mut writer = BufWriter::new(target);
    format::decrypt(&header, &mut reader, &mut writer, &data_key, &mut |done| bar.0.set_position(done))?;
    writer.flush().map_err(|e| unwritable("the decrypted file", &e))
}

/// What is read, and how far it is.
struct Source {
    reader: Box<dyn Read>,
    bar: Bar,
}

/// A bar that is taken away when the work is over, however it ended.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let reader = Box::new(BufReader::new(open(path)?));
        let size = path.metadata().ok().filter(|found| found.is_file()).map(|found| found.len());
        Ok(Self { reader, bar: Bar(bar(size)) })
    }
}

/// A bar on standard error; hidden by its crate where that is no terminal.
fn bar(size: Option<u64>) -> ProgressBar {
    let (bar, template) = match size {
        Some(size) => (ProgressBar::new(size), "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn beside(file: &Path) -> Option<PathBuf> {
    let mut name = file.file_name().filter(|name| *name != "-")?.to_owned();
    name.push(".");
    name.push(SUFFIX);
    Some(file.with_file_name(name))
}

fn without_suffix(file: &Path) -> Option<PathBuf> {
    (file.extension()? == SUFFIX).then(|| file.with_extension(""))
}

fn no_name() -> Error {
    Error::new(Kind::Invalid, "the result has no name")
        .hint(format!("give --out FILE, or a file that ends in .{SUFFIX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_beside_their_source() {
        assert_eq!(beside(Path::new("a/dump.sql")), Some("a/dump.sql.signet".into()));
        assert_eq!(without_suffix(Path::new("a/dump.sql.signet")), Some("a/dump.sql".into()));
        assert_eq!((beside(Path::new("-")), without_suffix(Path::new("dump.sql"))), (None, None));
    }
}
