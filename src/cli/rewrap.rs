//! `signet rewrap`: one ciphertext, or a file of them, as a job that resumes where it stopped.
//!
//! ```text
//! in     {"ciphertext": "…", "context": {"tenant": "a"}}      a line for each; the context may be left out
//! out    {"of": "…", "ciphertext": "…", "version": 3}         the n-th line is what became of the n-th,
//!        {"of": "…", "error": {"code": "…", "title": "…"}}    and `of` is SHA-256 of that, 16 digits
//! ```
//!
//! What stands in the second file is its progress: a job that was cut short counts the whole lines there, looks whether the last is
//! of the same line of the first file, and goes on. Nothing is kept in the service.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::App;
use super::input::{ContextArgs, MAX_CIPHERTEXT, parsed, read_bytes, unreadable};
use super::output::{note, unwritable};
use super::sink::To;
use crate::error::{Error, Kind, Result};
use crate::types::{Context, KeyName, Version, sha256};
use crate::wire::{self, Base64, Batch, ItemError};

/// The most items, and bytes of lines, of one call: a batch of the service has 1,000 items and 8 MiB.
const MOST_ITEMS: usize = 1000;
const MOST_BYTES: usize = 4 << 20;
/// The longest line: a ciphertext in base64 and a context, with room.
const LINE: u64 = 1 << 20;

/// Move a ciphertext to the newest version, or to another key of any algorithm; the plaintext never leaves the server.
///
/// With `--in` it moves a file of ciphertexts, a line of JSON for each: {"ciphertext": "BASE64", "context": {"tenant": "a"}}. A job that was cut
/// short goes on where it stopped, when the same command is given again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet rewrap payments:card-data old.wrapped --out new.wrapped --context tenant=acme
  signet rewrap payments:card-data old.wrapped --out new.wrapped --to archive:card-data
  signet rewrap payments:card-data --in old.jsonl --out new.jsonl")]
pub(super) struct Rewrap {
    /// The key that wrapped it.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// The ciphertext; - for standard input.
    #[arg(default_value = "-", conflicts_with = "many")]
    file: PathBuf,
    #[command(flatten)]
    context: ContextArgs,
    /// The key to move to, instead of the same.
    #[arg(long = "to", id = "target", value_name = "KEY", value_parser = parsed::<KeyName>)]
    target: Option<KeyName>,
    #[command(flatten)]
    to: To,
    /// Both ciphertexts are in base64.
    #[arg(long, conflicts_with = "many")]
    base64: bool,
    /// Move each ciphertext of this file; the results go to the file of --out.
    #[arg(long = "in", id = "many", value_name = "FILE")]
    many: Option<PathBuf>,
}

impl Rewrap {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let Self { name, file, context, target, to, base64, many } = self;
        let context = context.context()?;
        if let Some(source) = many {
            if context != Context::default() {
                return Err(
                    Error::new(Kind::Invalid, "with --in each line names its own context").hint("leave --context out")
                );
            }
            let place = to.file().ok_or_else(|| {
                Error::new(Kind::Invalid, "--in needs --out FILE").hint("a job goes on by what stands in that file")
            })?;
            return Job { name, target }.run(app, &source, place);
        }
        let ciphertext = Base64(read_bytes(&file, MAX_CIPHERTEXT, base64)?);
        let body = wire::Rewrap { ciphertext, context, to: target };
        let wrapped = app.online(async |client| client.rewrap(&name, &body).await)?;
        if app.out.json { to.body(app.out, &wrapped) } else { to.public(app.out, &wrapped.ciphertext.0, base64) }
    }
}

/// A line of the first file. What else stands in it is nobody's business here.
#[derive(Debug, Deserialize)]
struct Line {
    ciphertext: Base64,
    #[serde(default)]
    context: Context,
}

/// A line of the second file.
#[derive(Debug, Serialize, Deserialize)]
struct Moved {
    of: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ciphertext: Option<Base64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<Version>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<ItemError>,
}

/// Which key, and where to.
struct Job {
    name: KeyName,
    target: Option<KeyName>,
}

impl Job {
    fn run(self, app: &App, source: &Path, place: &Path) -> Result<()> {
        let file = File::open(source).map_err(|e| unreadable(source, &e))?;
        let length = file.metadata().map_err(|e| unreadable(source, &e))?.len();
        let mut lines = Lines { reader: BufReader::new(file), path: source, done: 0 };
        let (mut out, mut failed) = resume(&mut lines, place)?;
        if lines.done > 0 {
            note(format_args!("going on after line {}", lines.done));
        }
        let bar = progress(length);
        loop {
            let (ofs, items) = self.take(&mut lines)?;
            if items.is_empty() {
                break;
            }
            let answer = app.online(async |client| client.rewrap_batch(&self.name, &Batch { items }).await)?;
            if answer.results.len() != ofs.len() {
                return Err(Error::new(Kind::Internal, "the server left items out of its answer"));
            }
            let mut text = Vec::new();
            for (of, result) in ofs.into_iter().zip(answer.results) {
                let (ciphertext, version) = result.ok.map(|one| (one.ciphertext, one.version)).unzip();
                failed += u64::from(ciphertext.is_none());
                let moved = Moved { of, ciphertext, version, error: result.error };
                serde_json::to_writer(&mut text, &moved).map_err(|e| Error::internal(format!("JSON: {e}")))?;
                text.push(b'\n');
            }
            // Durable before more is asked for.
            out.write_all(&text).and_then(|()| out.sync_data()).map_err(|e| unwritable(place.display(), &e))?;
            bar.set_position(lines.reader.stream_position().unwrap_or(length));
        }
        bar.finish_and_clear();
        let done = lines.done;
        note(format_args!("{} of {done} moved", done.saturating_sub(failed)));
        if failed == 0 {
            return Ok(());
        }
        Err(Error::new(Kind::DoesNotOpen, format!("{failed} of {done} ciphertexts were not moved"))
            .hint(format!("the lines of {} that say `error` tell why", place.display())))
    }

    /// The next batch, with the marks of its lines.
    fn take(&self, lines: &mut Lines<'_>) -> Result<(Vec<String>, Vec<wire::Rewrap>)> {
        let (mut ofs, mut items, mut bytes) = (Vec::new(), Vec::new(), 0);
        while items.len() < MOST_ITEMS && bytes < MOST_BYTES {
            let Some(text) = lines.next()? else { break };
            let Line { ciphertext, context } = serde_json::from_slice(&text).map_err(|e| {
                Error::new(Kind::Invalid, format!("line {} of {}: {e}", lines.done, lines.path.display()))
                    .hint("a line is {\"ciphertext\": \"BASE64\", \"context\": {\"name\": \"value\"}}")
            })?;
            bytes += text.len();
            ofs.push(mark(&text));
            items.push(wire::Rewrap { ciphertext, context, to: self.target.clone() });
        }
        Ok((ofs, items))
    }
}

/// Whole lines, counted.
struct Lines<'a> {
    reader: BufReader<File>,
    path: &'a Path,
    done: u64,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut text = Vec::new();
        let read = (&mut self.reader).take(LINE).read_until(b'\n', &mut text);
        read.map_err(|e| unreadable(self.path, &e))?;
        if text.is_empty() {
            return Ok(None);
        }
        if text.len() as u64 == LINE && text.last() != Some(&b'\n') {
            let text = format!("line {} of {} is longer than {LINE} bytes", self.done + 1, self.path.display());
            return Err(Error::new(Kind::Limit, text));
        }
        self.done += 1;
        Ok(Some(text.trim_ascii().to_vec()))
    }
}

fn mark(line: &[u8]) -> String {
    hex::encode(sha256(&[line]).get(..8).unwrap_or_default())
}

/// Opens the second file behind its last whole line, and moves the first one on as far. Answers how many failed before, too.
fn resume(lines: &mut Lines<'_>, place: &Path) -> Result<(File, u64)> {
    let broken = |e: &std::io::Error| unwritable(place.display(), e);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(place);
    let mut file = file.map_err(|e| broken(&e))?;
    let other = |line: u64| {
        let text = format!("line {line} of {} is not of line {line} of {}", place.display(), lines_name(lines.path));
        Error::new(Kind::Conflict, text).hint("it belongs to another job: take another file for --out")
    };
    let (mut whole, mut failed) = (0, 0);
    let mut done = BufReader::new(&file);
    loop {
        let mut text = Vec::new();
        let read = (&mut done).take(2 * LINE).read_until(b'\n', &mut text).map_err(|e| broken(&e))?;
        // A line that was cut short is written anew.
        if text.last() != Some(&b'\n') {
            break;
        }
        let at = lines.done + 1;
        let moved: Moved = serde_json::from_slice(&text).map_err(|e| other(at).because(e))?;
        if lines.next()?.is_none_or(|line| mark(&line) != moved.of) {
            return Err(other(at));
        }
        failed += u64::from(moved.error.is_some());
        whole += read as u64;
    }
    file.set_len(whole).and_then(|()| file.seek(SeekFrom::Start(whole))).map_err(|e| broken(&e))?;
    Ok((file, failed))
}

fn lines_name(path: &Path) -> impl std::fmt::Display + '_ {
    path.display()
}

fn progress(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent}% {eta}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
