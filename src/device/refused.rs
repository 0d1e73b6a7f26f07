//! Which PIN a token refused, so that it is not tried again: not by this process, and not by the next one.
//!
//! A PIN is known by its file (inode and times), and by nothing of what is in it. The memory is one line in the data folder:
//!
//! ```text
//! signet-refused-pin 1 INODE SECONDS NANOSECONDS
//! ```
//!
//! Services that share a token share what the token itself says: that a wrong PIN was entered since its last login
//! (`CKF_USER_PIN_COUNT_LOW`). With that said, only the service whose try it was tries again, and only another PIN.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::{PinSource, Settings};

const MAGIC: &str = "signet-refused-pin 1 ";

/// What tells one PIN file from another, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    /// `None` where the PIN stands in no file that stays.
    pub(super) fn of(settings: &Settings) -> Option<Self> {
        let path = match settings {
            Settings::Pkcs11(settings) => match &settings.pin {
                PinSource::File(path) => path,
                PinSource::Environment(_) | PinSource::Credential(_) => return None,
            },
            Settings::Tpm(_) => return None,
        };
        let file = std::fs::metadata(path).ok()?;
        Some(Self { inode: file.ino(), seconds: file.mtime(), nanoseconds: file.mtime_nsec() })
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.strip_prefix(MAGIC)?.split_whitespace();
        let (inode, seconds, nanoseconds) = (words.next()?, words.next()?, words.next()?);
        Some(Self {
            inode: inode.parse().ok()?,
            seconds: seconds.parse().ok()?,
            nanoseconds: nanoseconds.parse().ok()?,
        })
    }
}

/// Whether a PIN may be tried now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    /// It was refused.
    Not,
    /// Where the token says of no wrong PIN.
    Untouched,
    /// Once, whatever the token says: the wrong one was ours and this is another, or a person asks for it.
    Once,
}

/// The memory.
#[derive(Debug)]
pub(super) struct Refused {
    place: Option<PathBuf>,
    pin: Option<Stamp>,
}

impl Refused {
    /// What is known; without a `place`, nothing outlives the process.
    pub(super) fn read(place: Option<PathBuf>) -> Self {
        let text = place.as_ref().and_then(|place| std::fs::read_to_string(place).ok());
        Self { place, pin: text.and_then(|text| Stamp::read(&text)) }
    }

    /// Whether the present PIN may be tried; `asked` by a person.
    pub(super) fn may(&self, present: Option<Stamp>, asked: bool) -> May {
        match self.pin {
            _ if asked => May::Once,
            None => May::Untouched,
            Some(refused) if present == Some(refused) => May::Not,
            Some(_) => May::Once,
        }
    }

    /// Remembers that this one was refused, or that a login went well.
    pub(super) fn remember(&mut self, pin: Option<Stamp>) {
        if self.pin == pin {
            return;
        }
        self.pin = pin;
        let Some(place) = &self.place else { return };
        let written = match pin {
            Some(Stamp { inode, seconds, nanoseconds }) => {
                // What a crash tears is no memory, and the token itself still tells.
                std::fs::write(place, format!("{MAGIC}{inode} {seconds} {nanoseconds}\n"))
            }
            None => std::fs::remove_file(place),
        };
        if let Err(error) = written {
            tracing::warn!(place = %place.display(), cause = %error, "it cannot be kept which PIN was refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_pin_is_not_tried_again_by_the_next_process() {
        let folder = tempfile::tempdir().unwrap();
        let place = || Some(folder.path().join("refused"));
        let stamp = |inode| Some(Stamp { inode, seconds: -5, nanoseconds: 7 });
        let mut first = Refused::read(place());
        assert_eq!(first.may(stamp(1), false), May::Untouched);
        first.remember(stamp(1));
        let mut next = Refused::read(place());
        assert_eq!(next.may(stamp(1), false), May::Not);
        assert_eq!(next.may(stamp(1), true), May::Once);
        assert_eq!(next.may(stamp(2), false), May::Once);
        next.remember(None);
        assert_eq!(Refused::read(place()).may(stamp(1), false), May::Untouched);
        // What cannot be read is no memory.
        std::fs::write(place().unwrap(), "signet-refused-pin 2 1 1 1\n").unwrap();
        assert_eq!(Refused::read(place()).may(stamp(1), false), May::Untouched);
    }
}
