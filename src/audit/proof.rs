//! Proofs as files, for somebody who has neither the log nor the service.
//!
//! A record with the proof that it is in the log is a [C2SP tlog-proof](https://c2sp.org/tlog-proof):
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! extra eyJ0aW1lIjoi…                                   the record itself: the bytes of its line
//! index 4711
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=          the siblings, from the leaf's own up to the root's child
//! …
//!
//! signet/5f0c2a41                                       the signed head
//! …
//! ```
//!
//! That a head is the beginning of a later one has no format of files of its own; what a log sends to a
//! [C2SP tlog-witness](https://c2sp.org/tlog-witness) says the same, and is taken for it:
//!
//! ```text
//! old 1204                                              the records of the earlier head
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=          the hashes of RFC 6962, section 2.1.2
//! …
//!
//! signet/5f0c2a41                                       the later signed head
//! …
//! ```

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::checkpoint::{Head, HeadKeys};
use super::merkle::{Hash, leaf_hash, verify_consistency, verify_inclusion};
use crate::error::{Error, Kind, Result};

const MAGIC: &str = "c2sp.org/tlog-proof@v1\n";
/// A tree of 2^64 leaves has no longer path, and no longer proof of consistency.
const MAX_PATH: usize = 65;

/// A record, and the proof that it is below a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Which record.
    pub index: u64,
    /// The bytes of its line.
    pub record: Vec<u8>,
    /// The siblings, from the leaf up.
    pub path: Vec<Hash>,
    /// The head.
    pub head: Head,
}

impl Proof {
    /// The first line of a file.
    pub const MAGIC: &str = MAGIC;

    /// As a file.
    #[must_use]
    pub fn encode(&self) -> String {
        let Self { index, record, path, head } = self;
        let mut text = format!("{MAGIC}extra {}\nindex {index}\n", BASE64.encode(record));
        write_path(&mut text, path);
        text + head.note()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is none, or holds no record.
    pub fn parse(text: &str) -> Result<Self> {
        let parse = || {
            let (record, rest) = text.strip_prefix(MAGIC)?.strip_prefix("extra ")?.split_once('\n')?;
            let (index, rest) = rest.strip_prefix("index ")?.split_once('\n')?;
            let (path, head) = parse_path(rest)?;
            Some(Self { index: number(index)?, record: BASE64.decode(record).ok()?, path, head })
        };
        parse().ok_or_else(|| Error::new(Kind::Invalid, "not a proof of a record of an audit log"))
    }

    /// Whether the record is below the head. Who signed the head is for [`Self::verify`] to say.
    #[must_use]
    pub fn holds(&self) -> bool {
        let Self { index, record, path, head } = self;
        verify_inclusion(&leaf_hash(record), *index, head.size(), path, head.root())
    }

    /// Checks the proof, and where keys are given that each of them signed the head.
    ///
    /// # Errors
    /// [`Kind::DoesNotOpen`] with what does not hold.
    pub fn verify(&self, keys: Option<&HeadKeys>) -> Result<()> {
        signed(&self.head, keys.and_then(|keys| self.head.flaw(keys)))?;
        if self.holds() {
            Ok(())
        } else {
            Err(broken("the record is not the one that the signed head has at that index"))
        }
    }
}

/// The proof that the log of an earlier head is the beginning of that of a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consistency {
    /// The records of the earlier head.
    pub old: u64,
    /// The hashes.
    pub path: Vec<Hash>,
    /// The later head.
    pub head: Head,
}

impl Consistency {
    /// How a file begins.
    pub const MAGIC: &str = "old ";

    /// As a file.
    #[must_use]
    pub fn encode(&self) -> String {
        let Self { old, path, head } = self;
        let mut text = format!("{}{old}\n", Self::MAGIC);
        write_path(&mut text, path);
        text + head.note()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let parse = || {
            let (old, rest) = text.strip_prefix(Self::MAGIC)?.split_once('\n')?;
            let (path, head) = parse_path(rest)?;
            Some(Self { old: number(old)?, path, head })
        };
        parse().ok_or_else(|| Error::new(Kind::Invalid, "not a proof that one head of an audit log follows another"))
    }

    /// Checks that the later head follows `earlier`, and where keys are given that each of them signed the later one, and at least one of
    /// them the earlier one, which may be older than the other.
    ///
    /// # Errors
    /// [`Kind::DoesNotOpen`] with what does not hold.
    pub fn verify(&self, earlier: &Head, keys: Option<&HeadKeys>) -> Result<()> {
        let Self { old, path, head } = self;
        signed(earlier, keys.and_then(|keys| earlier.flaw_of_older(keys)))?;
        signed(head, keys.and_then(|keys| head.flaw(keys)))?;
        if earlier.origin() != head.origin() {
            return Err(broken(format!("the heads are of two logs: {} and {}", earlier.origin(), head.origin())));
        }
        if earlier.size() != *old {
            return Err(broken(format!(
                "the proof begins at {old} records, and the earlier head has {}",
                earlier.size()
            )));
        }
        if verify_consistency(*old, earlier.root(), head.size(), head.root(), path) {
            return Ok(());
        }
        Err(broken(
            "the earlier head is not the beginning of the later one: the log was rewritten, or the proof is another's",
        ))
    }
}

fn signed(head: &Head, flaw: Option<String>) -> Result<()> {
    flaw.map_or(Ok(()), |flaw| Err(broken(format!("the head of {} records {flaw}", head.size()))))
}

fn broken(what: impl Into<String>) -> Error {
    Error::new(Kind::DoesNotOpen, what.into())
}

/// The lines of a path, and the empty one after it.
fn write_path(text: &mut String, path: &[Hash]) {
    for hash in path {
        // Writing to a text does not fail.
        let _ = writeln!(text, "{}", BASE64.encode(hash));
    }
    text.push('\n');
}

fn parse_path(text: &str) -> Option<(Vec<Hash>, Head)> {
    let (mut path, mut rest) = (Vec::new(), text);
    loop {
        let (line, after) = rest.split_once('\n')?;
        rest = after;
        if line.is_empty() {
            return Some((path, Head::parse(rest).ok()?));
        }
        if path.len() == MAX_PATH {
            return None;
        }
        path.push(BASE64.decode(line).ok()?.try_into().ok()?);
    }
}

/// "an ASCII decimal with no leading zeroes (unless the index is 0)"
fn number(digits: &str) -> Option<u64> {
    digits.parse::<u64>().ok().filter(|number| number.to_string() == digits)
}
