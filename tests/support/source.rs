//! Reads our own source, for the tests that hold its shape.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

/// The source files of a module of `src/`, as paths from the root of the repository, sorted.
pub(crate) fn rust_files(module: &str) -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from(format!("src/{module}.rs"))];
    files.extend(rust_files_below(format!("src/{module}")));
    files.retain(|file| file.exists());
    files.sort();
    files
}

/// The source files of a folder and those in it, sorted.
pub(crate) fn rust_files_below(folder: impl Into<PathBuf>) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.into()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The text of a file.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `source` with blanks in place of comments and of what stands between quotes, so that what is found in it is code. Every
/// byte and every line keeps its place.
pub(crate) fn code(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match rest[0] {
            b'/' if rest.starts_with(b"//") => find(rest, b"\n").unwrap_or(rest.len()),
            b'/' if rest.starts_with(b"/*") => block_comment(rest),
            b'"' => quoted(rest, b'"'),
            b'\'' if is_char(rest) => quoted(rest, b'\''),
            b'r' if !continues_word(bytes, at) && raw_string(rest).is_some() => raw_string(rest).unwrap(),
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length;
    }
    String::from_utf8(out).unwrap()
}

/// `code` without the unit tests, which stand at the end of a file.
pub(crate) fn without_tests(code: &str) -> &str {
    code.find("#[cfg(test)]\nmod ").map_or(code, |tests| &code[..tests])
}

/// Whether the byte at `at` goes on a word, as the `r` of `for` does; `br"` begins a raw string all the same.
fn continues_word(bytes: &[u8], at: usize) -> bool {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let before = bytes[..at].iter().rev().take_while(|byte| word(byte)).count();
    before > 0 && !(before == 1 && bytes[at - 1] == b'b')
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of a literal up to and with its closing quote.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Tells `'a'` from the lifetime `'a`.
fn is_char(rest: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&rest[1..rest.len().min(6)]).into_owned();
    text.starts_with('\\') || text.chars().nth(1) == Some('\'')
}

/// The length of `r#"..."#`, where one begins here.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    let open = 1 + hashes;
    (rest.get(open) == Some(&b'"')).then(|| {
        let close = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
        find(&rest[open + 1..], &close).map_or(rest.len(), |end| open + 1 + end + close.len())
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[test]
fn code_is_what_is_neither_comment_nor_text() {
    let source = "a(\"//\\\"b\") /* c /* d */ e */ 'f' '\\'' g<'h>(r#\"i\"j\"#, br\"k\") // l\nfor_r\"m\"";
    let expected = "a(        )                                g<'h>(           ,  b     )     \nfor_r   ";
    let found = code(source);
    assert_eq!(found.len(), source.len());
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(squeezed(&found), squeezed(expected));
}
