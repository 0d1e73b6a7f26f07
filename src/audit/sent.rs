//! The file `sent-NAME`: how far the receiver of that name has the log.
//!
//! ```text
//! signet-sent 1 4711 2 gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
//!                    magic, version, records that it was given, of them those that it rejected, leaf hash of the last
//! ```
//!
//! It is written after the receiver has answered, so it may be behind, and never ahead: what lies between is sent again. The leaf hash
//! binds it to this log. Without the file all is sent from the first record on that was not pruned.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::merkle::{Hash, leaf_hash};
use super::pruned;
use super::read::Lined;
use super::tiles::Stored;
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::types::Name;

const MAGIC: &str = "signet-sent 1 ";

/// How far a receiver has the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// The records that it was given.
    pub size: u64,
    /// Those of them that it rejected.
    pub rejected: u64,
    /// The leaf hash of the last.
    pub(super) last: Hash,
}

/// How far the receiver of this name has the log in `folder`; nothing where it was never given any.
///
/// # Errors
/// [`Kind::Tampered`] where the file is none of ours, or of another log than the one that is there.
pub fn sent(folder: &Path, name: &Name) -> Result<Sent> {
    let path = path(folder, name);
    let begin = pruned::begin(folder)?.size();
    let gone = |index| -> Result<Option<Hash>> { Ok(Stored(folder).hashes(0, index, 1)?.first().copied()) };
    // Who was given nothing begins where the log does.
    let begun = |sent: Sent| match begin.checked_sub(1) {
        Some(last) if sent.size < begin => Ok(Sent { size: begin, last: gone(last)?.unwrap_or_default(), ..sent }),
        Some(_) | None => Ok(sent),
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return begun(Sent::default()),
        Err(e) => return Err(Error::new(Kind::Unavailable, format!("{} cannot be read", path.display())).because(e)),
    };
    let other = |why: &str| {
        Error::new(Kind::Tampered, format!("{} {why}", path.display())).hint(
            "remove it: then the whole log is sent again, and its receiver knows the repeats by their log.record.uid",
        )
    };
    let sent = parse(&text).ok_or_else(|| other("is not as it was written"))?;
    let Some(last) = sent.size.checked_sub(1) else { return begun(sent) };
    let there = if last < begin { gone(last)? } else { Lined::open(folder, last)?.next()?.map(leaf_hash) };
    if there == Some(sent.last) { Ok(sent) } else { Err(other("tells of records that the log does not hold")) }
}

/// Keeps it. A crash leaves what was there before.
pub(super) fn keep(folder: &Path, name: &Name, sent: &Sent) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".sent").tempfile_in(folder)?;
        file.write_all(encode(sent).as_bytes())?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        file.as_file().set_permissions(mode)?;
        file.as_file().sync_data()?;
        crash_point!("sent.before_name");
        file.persist(path(folder, name))?;
        crash_point!("sent.named");
        Ok(())
    };
    write().map_err(|e| Error::new(Kind::Unavailable, "how far a receiver is cannot be kept beside the log").because(e))
}

fn path(folder: &Path, name: &Name) -> PathBuf {
    folder.join(format!("sent-{name}"))
}

fn encode(Sent { size, rejected, last }: &Sent) -> String {
    format!("{MAGIC}{size} {rejected} {}\n", BASE64.encode(last))
}

fn parse(text: &str) -> Option<Sent> {
    let words: Vec<_> = text.strip_prefix(MAGIC)?.strip_suffix('\n')?.split(' ').collect();
    let [size, rejected, last] = words[..] else { return None };
    let sent = Sent {
        size: size.parse().ok()?,
        rejected: rejected.parse().ok()?,
        last: BASE64.decode(last).ok()?.try_into().ok()?,
    };
    (encode(&sent) == text).then_some(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_kept_for_ever_and_nothing_else_is_read() {
        let sent = Sent { size: 4711, rejected: 2, last: [7; 32] };
        let text = "signet-sent 1 4711 2 BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
        assert_eq!((encode(&sent).as_str(), parse(text)), (text, Some(sent)));
        for bad in ["", "\n", &text[..text.len() - 1], &text.replace(" 1 ", " 2 "), &text.replace("4711", "04711")] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
