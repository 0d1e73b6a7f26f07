//! What is read: files, standard input, and the values of options.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::path::Path;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::output::note;
use crate::error::{Error, Kind, Result};
use crate::types::{Context, SecretBytes};

/// The longest message or plaintext of one request.
pub(super) const MAX_MESSAGE: usize = 64 << 10;
/// The longest ciphertext: a message and what a wrapping adds, with room.
pub(super) const MAX_CIPHERTEXT: usize = 2 * MAX_MESSAGE;

/// The encryption context.
#[derive(Args, Debug)]
pub(super) struct ContextArgs {
    /// An entry of the encryption context; the same ones must be given again to unwrap.
    #[arg(long = "context", value_name = "KEY=VALUE", value_parser = pair)]
    entries: Vec<(String, String)>,
}

impl ContextArgs {
    pub(super) fn context(self) -> Result<Context> {
        Context::new(map(self.entries, "the context")?)
    }
}

/// Entries as a map; a key that is given twice is a mistake.
pub(super) fn map(entries: Vec<(String, String)>, what: &str) -> Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for (key, value) in entries {
        if map.contains_key(&key) {
            return Err(Error::new(Kind::Invalid, format!("{what} names {key} twice")));
        }
        map.insert(key, value);
    }
    Ok(map)
}

/// Parses `KEY=VALUE`. The value may hold further `=`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write KEY=VALUE".to_owned()),
    }
}

/// Parses a value of the vocabulary and keeps its hint.
pub(super) fn parsed<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse::<T>().map_err(|error| match error.mend() {
        Some(hint) => format!("{error}: {hint}"),
        None => error.to_string(),
    })
}

/// Parses one of a fixed list of words, which the help shows.
pub(super) fn one_of<T>(all: &'static [T], word: fn(T) -> &'static str) -> impl TypedValueParser<Value = T>
where
    T: Copy + FromStr<Err = Error> + Send + Sync + 'static,
{
    PossibleValuesParser::new(all.iter().copied().map(word)).try_map(|word| word.parse::<T>())
}

/// Opens FILE, or standard input for `-`.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>> {
    if path == Path::new("-") {
        if io::stdin().is_terminal() {
            note("reading from the terminal: end with Ctrl-D on a line of its own");
        }
        return Ok(Box::new(io::stdin()));
    }
    let file = File::open(path).map_err(|e| unreadable(path, &e))?;
    Ok(Box::new(file))
}

/// Reads FILE or standard input, at most `max` bytes.
pub(super) fn read(path: &Path, max: usize) -> Result<SecretBytes> {
    // One buffer of the full size, so that no part of a secret stays behind in a smaller one.
    let mut bytes = Vec::with_capacity(max.saturating_add(64));
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    let outcome = open(path)?.take(limit).read_to_end(&mut bytes);
    let bytes = SecretBytes::new(bytes);
    outcome.map_err(|e| unreadable(path, &e))?;
    if bytes.expose().len() > max {
        return Err(Error::new(Kind::Limit, format!("{} is longer than {max} bytes", path.display())));
    }
    Ok(bytes)
}

/// Reads bytes that may be written in base64, which may be broken into lines.
pub(super) fn read_bytes(path: &Path, max: usize, base64: bool) -> Result<Vec<u8>> {
    if !base64 {
        return Ok(read(path, max)?.expose().to_vec());
    }
    let text = read(path, max.saturating_mul(2))?;
    let text: Vec<u8> = text.expose().iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(text).map_err(|_| Error::new(Kind::Invalid, format!("{} is not base64", path.display())))
}

/// Reads a text file, at most 1 MiB.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let bytes = read_bytes(path, 1 << 20, false)?;
    String::from_utf8(bytes).map_err(|_| Error::new(Kind::Invalid, format!("{} is not UTF-8", path.display())))
}

/// The error of an input that cannot be read.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::new(Kind::Invalid, format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::types::{KeyName, Period};

    #[test]
    fn a_context_is_pairs_each_named_once() {
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert_eq!(pair("a=").unwrap(), ("a".to_owned(), String::new()));
        for bad in ["a", "=b", ""] {
            assert!(pair(bad).is_err(), "{bad}");
        }
        let twice = ContextArgs { entries: vec![("a".into(), "1".into()), ("a".into(), "2".into())] };
        assert_eq!(twice.context().unwrap_err().public(), "the context names a twice");
    }

    #[test]
    fn a_bad_value_says_what_a_good_one_is() {
        assert!(parsed::<Period>("soon").unwrap_err().contains("such as 30s"));
        assert!(parsed::<KeyName>("Ä").unwrap_err().contains("a-z"));
    }

    #[test]
    fn files_are_read_up_to_a_limit() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"aGVs\nbG8=\n").unwrap();
        assert_eq!(read(file.path(), 10).unwrap().expose(), b"aGVs\nbG8=\n");
        assert_eq!(read(file.path(), 9).unwrap_err().kind(), Kind::Limit);
        assert_eq!(read_bytes(file.path(), 9, true).unwrap(), b"hello");
        assert_eq!(read(Path::new("/nonexistent"), 9).unwrap_err().kind(), Kind::Invalid);
    }
}
