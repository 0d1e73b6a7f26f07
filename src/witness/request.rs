//! What a log sends: `POST add-checkpoint` ([C2SP tlog-witness](https://c2sp.org/tlog-witness#add-checkpoint)).
//!
//! ```text
//! old 1204                                              the records that the witness knows
//! gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=          at most 63 hashes: RFC 6962, section 2.1.2
//! …
//!
//! signet/5f0c2a41                                       the checkpoint
//! 4711
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
//!
//! — signet/5f0c2a41 A2VkYzEwRQIhAK…
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::audit::merkle::Hash;
use crate::audit::note::Note;

/// "The client MUST NOT send more than 63 consistency proof lines."
const MAX_PATH: usize = 63;
/// The most bytes of a request: the longest note, the longest proof and its line.
pub(super) const MAX: usize = Note::MAX + MAX_PATH * 45 + 32;

/// A request, well-formed.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) old: u64,
    pub(super) path: Vec<Hash>,
    pub(super) checkpoint: Checkpoint,
}

impl Request {
    /// Reads one, or says what is no part of one.
    pub(super) fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(body).map_err(|_| "the request is not UTF-8")?;
        let (first, mut rest) = text.split_once('\n').ok_or("the first line has no end")?;
        let old = first.strip_prefix("old ").and_then(number).ok_or("the first line is not `old SIZE`")?;
        let mut path = Vec::new();
        loop {
            let (line, after) = rest.split_once('\n').ok_or("there is no checkpoint")?;
            rest = after;
            if line.is_empty() {
                break;
            }
            if path.len() == MAX_PATH {
                return Err("a proof has at most 63 lines");
            }
            path.push(hash(line).ok_or("a line of the proof is not the base64 of a hash")?);
        }
        let checkpoint = Checkpoint::parse(rest).ok_or("what comes after the empty line is no checkpoint")?;
        Ok(Self { old, path, checkpoint })
    }
}

/// A checkpoint of any log ([C2SP tlog-checkpoint](https://c2sp.org/tlog-checkpoint)).
#[derive(Debug)]
pub(super) struct Checkpoint {
    pub(super) note: Note,
    pub(super) origin: String,
    pub(super) size: u64,
    pub(super) root: Hash,
}

impl Checkpoint {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let note = Note::parse(text).ok()?;
        let mut lines = note.text().strip_suffix('\n')?.split('\n');
        let origin = lines.next().filter(|line| !line.is_empty())?.to_owned();
        let (size, root) = (number(lines.next()?)?, hash(lines.next()?)?);
        // Extension lines are the log's affair: they are signed with the rest, and nothing is said of them.
        if lines.any(str::is_empty) {
            return None;
        }
        Some(Self { note, origin, size, root })
    }
}

fn hash(line: &str) -> Option<Hash> {
    BASE64.decode(line).ok()?.try_into().ok()
}

/// "an ASCII decimal with no leading zeroes (unless the size is zero, in which case the encoding MUST be `0`)"
fn number(digits: &str) -> Option<u64> {
    digits.parse::<u64>().ok().filter(|number| number.to_string() == digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECKPOINT: &str =
        "example.com/log\n7\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— example.com/log AAECAwQF\n";
    const LINE: &str = "gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=\n";

    #[test]
    fn a_request_is_read() {
        let request = Request::parse(format!("old 5\n{LINE}{LINE}\n{CHECKPOINT}").as_bytes()).unwrap();
        assert_eq!((request.old, request.path.len(), request.checkpoint.size), (5, 2, 7));
        let extended = CHECKPOINT.replace("q2I=\n", "q2I=\nan extension\n");
        Request::parse(format!("old 0\n\n{extended}").as_bytes()).unwrap();
        Request::parse(format!("old 5\n{}\n{CHECKPOINT}", LINE.repeat(63)).as_bytes()).unwrap();
    }

    #[test]
    fn what_is_no_request_is_told_apart() {
        let cases = [
            (String::new(), "first line"),
            (format!("new 5\n\n{CHECKPOINT}"), "first line"),
            (format!("old 05\n\n{CHECKPOINT}"), "first line"),
            (format!("old +5\n\n{CHECKPOINT}"), "first line"),
            (format!("old -1\n\n{CHECKPOINT}"), "first line"),
            (format!("old 18446744073709551616\n\n{CHECKPOINT}"), "first line"),
            (format!("old 5\nabc\n\n{CHECKPOINT}"), "base64"),
            (format!("old 5\n{}\n{CHECKPOINT}", LINE.repeat(64)), "63 lines"),
            (format!("old 5\n{LINE}"), "no checkpoint"),
            ("old 5\n\n".to_owned(), "no checkpoint"),
            (format!("old 5\n\n{}", CHECKPOINT.replace("\n7\n", "\n07\n")), "no checkpoint"),
            (format!("old 5\n\n{}", CHECKPOINT.replace("— ", "- ")), "no checkpoint"),
            (format!("old 5\n\n{}", CHECKPOINT.trim_end()), "no checkpoint"),
        ];
        for (text, part) in cases {
            let said = Request::parse(text.as_bytes()).unwrap_err();
            assert!(said.contains(part), "{text}: {said}");
        }
        assert!(Request::parse(b"old 5\n\n\xff").is_err());
    }
}
