//! What an answer says of its own record: kept by whoever asked, it shows later whether the log still is what it was.
//!
//! ```text
//! Signet-Log: log="signet/5f0c2a41", index=4711, leaf=:gSKy…TlQ=:, size=4700, root=:CsUY…q2I=:
//! ```
//!
//! A dictionary of [RFC 9651](https://www.rfc-editor.org/rfc/rfc9651#section-3.2): which log, the index and the leaf hash of the
//! record, and of the newest head whose hashes are stored its size and root, where there is one. With the leaf the log cannot lose
//! or change that record, with the root nothing before that head.
//!
//! It is not signed: it convinces whoever kept it. What convinces others is a proof, see [`super::proof`].

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::checkpoint::Origin;
use super::merkle::Hash;
use super::verify::Problem;
use crate::error::{Error, Kind, Result};

/// The place of a record in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which log.
    pub origin: Origin,
    /// Which record.
    pub index: u64,
    /// The hash of its line.
    pub leaf: Hash,
    /// The size and the root of a head.
    pub head: Option<(u64, Hash)>,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, index, leaf, head } = self;
        write!(f, "log=\"{origin}\", index={index}, leaf=:{}:", BASE64.encode(leaf))?;
        match head {
            Some((size, root)) => write!(f, ", size={size}, root=:{}:", BASE64.encode(root)),
            None => Ok(()),
        }
    }
}

impl FromStr for Receipt {
    type Err = Error;

    /// Reads what is written here; there is one spelling.
    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let mut words = text.split(", ");
            let mut word = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
            let hash = |text: &str| BASE64.decode(text.strip_prefix(':')?.strip_suffix(':')?).ok()?.try_into().ok();
            let origin = word("log")?.strip_prefix("\"signet/")?.strip_suffix('"')?;
            let (index, leaf) = (word("index")?.parse().ok()?, hash(word("leaf")?)?);
            let head = match word("size") {
                Some(size) => Some((size.parse().ok()?, hash(word("root")?)?)),
                None => None,
            };
            let receipt = Self { origin: Origin::of_instance(origin).ok()?, index, leaf, head };
            (receipt.to_string() == text).then_some(receipt)
        };
        parse().ok_or_else(|| Error::new(Kind::Invalid, "not a receipt of an audit log"))
    }
}

/// Receipts that were kept, to be held against a log.
#[derive(Clone, Debug, Default)]
pub struct Receipts {
    file: String,
    /// Index, leaf and line of each, the last first.
    leaves: Vec<(u64, Hash, u64)>,
    /// Size, root and line of the head that each names, the largest first.
    roots: Vec<(u64, Hash, u64)>,
    origins: Vec<(Origin, u64)>,
    checked: u64,
}

impl Receipts {
    /// Reads receipts, one a line, as the client keeps them in `file`. A last line without an end was never whole.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the line that is none.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let mut kept = Self { file: file.to_owned(), ..Self::default() };
        let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
        for (number, line) in (1..).zip(whole.lines()) {
            let Receipt { origin, index, leaf, head } =
                line.parse().map_err(|e: Error| e.context(format!("{file} line {number}")))?;
            kept.leaves.push((index, leaf, number));
            kept.roots.extend(head.map(|(size, root)| (size, root, number)));
            if kept.origins.last().is_none_or(|(last, _)| *last != origin) {
                kept.origins.push((origin, number));
            }
        }
        kept.leaves.sort_unstable_by(|a, b| b.cmp(a));
        kept.roots.sort_unstable_by(|a, b| b.cmp(a));
        Ok(kept)
    }

    /// How many were held against the log.
    pub(super) const fn checked(&self) -> u64 {
        self.checked
    }

    /// The size of the next head to be compared.
    pub(super) fn next_root(&self) -> Option<u64> {
        self.roots.last().map(|(size, ..)| *size)
    }

    /// Holds the log of `origin` against them.
    pub(super) fn origin(&mut self, origin: &Origin, mut report: impl FnMut(Problem)) {
        for (other, line) in self.origins.drain(..).filter(|(other, _)| other != origin) {
            report(problem(&self.file, line, format!("is of {other}, and this log is {origin}")));
        }
    }

    /// Record `index` has this hash. Records come in order; those that never came are missing.
    pub(super) fn leaf(&mut self, index: u64, leaf: &Hash, mut report: impl FnMut(Problem)) {
        while let Some((own, kept, line)) = self.leaves.pop_if(|(own, ..)| *own <= index) {
            self.checked += 1;
            if own < index {
                report(problem(&self.file, line, format!("record {own} is not in the log")));
            } else if kept != *leaf {
                report(problem(
                    &self.file,
                    line,
                    format!("record {own} is another one than the one that was answered"),
                ));
            }
        }
    }

    /// The first `size` records have this root; none where they cannot be had any more.
    pub(super) fn root(&mut self, size: u64, root: Option<Hash>, mut report: impl FnMut(Problem)) {
        while let Some((own, kept, line)) = self.roots.pop_if(|(own, ..)| *own <= size) {
            if own < size || root != Some(kept) {
                let what = format!("the first {own} records are not those that were there when this was answered");
                report(problem(&self.file, line, what));
            }
        }
    }

    /// The log ends after `size` records.
    pub(super) fn end(&mut self, size: u64, mut report: impl FnMut(Problem)) {
        while let Some((own, _, line)) = self.leaves.pop() {
            self.checked += 1;
            report(problem(
                &self.file,
                line,
                format!("record {own} is not in the log, which ends after {size} records"),
            ));
        }
        while let Some((own, _, line)) = self.roots.pop() {
            report(problem(&self.file, line, format!("the log had {own} records, and now ends after {size}")));
        }
    }
}

fn problem(file: &str, line: u64, what: String) -> Problem {
    Problem { file: file.to_owned(), line: Some(line), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(head: Option<(u64, Hash)>) -> Receipt {
        Receipt { origin: Origin::of_instance("a1").unwrap(), index: 4711, leaf: [1; 32], head }
    }

    #[test]
    fn a_receipt_has_one_spelling() {
        for whole in [receipt(None), receipt(Some((4700, [2; 32])))] {
            let text = whole.to_string();
            assert_eq!(text.parse::<Receipt>().unwrap(), whole);
            for at in 0..text.len() {
                assert!(
                    text[..at].parse::<Receipt>().map_or(true, |cut| cut.head.is_none() && cut.index == 4711),
                    "{at}"
                );
            }
        }
        let text = receipt(Some((4700, [2; 32]))).to_string();
        for (from, to) in [
            ("4711", "04711"),
            ("4711", "+4711"),
            ("4711", "-1"),
            (", ", ","),
            ("log=", "l="),
            ("signet/", "x/"),
            ("a1\"", "a1"),
            ("size=4700, ", ""),
            ("leaf=:", "leaf="),
            ("=:, size", "=, size"),
            ("AQ", ""),
            ("root", "leaf"),
        ] {
            assert!(text.replacen(from, to, 1).parse::<Receipt>().is_err(), "{from} to {to}");
        }
        assert!(format!("{text} ").parse::<Receipt>().is_err());
        assert!(format!("{text}, more=1").parse::<Receipt>().is_err());
    }
}
