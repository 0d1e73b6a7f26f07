//! The file of credentials, in the form of the usual one: lines of `name = value`, below at most one `[profile]`.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::types::read_own;

/// The longest file.
const ROOM: usize = 16 * 1024;

/// Who we are to a store.
pub(super) struct Credentials {
    id: String,
    secret: Zeroizing<String>,
    session: Option<Zeroizing<String>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Reads a file that nobody but its owner can. No error holds any of it.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = read_own(path, "credentials file", ROOM)?;
        std::str::from_utf8(&bytes).ok().and_then(Self::parse).ok_or_else(|| {
            let text = format!("the credentials file {} does not hold credentials", path.display());
            Error::new(Kind::Invalid, text).hint(
                "lines of aws_access_key_id = .. and aws_secret_access_key = .., aws_session_token = .. where there is one, \
                 of one profile, mode 600",
            )
        })
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (mut id, mut secret, mut session, mut profiles) = (None, None, None, 0);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
            if line.starts_with('[') {
                profiles += 1;
                continue;
            }
            let (name, value) = line.split_once('=')?;
            let value = value.trim();
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                return None;
            }
            match name.trim() {
                "aws_access_key_id" => id = Some(value.to_owned()),
                "aws_secret_access_key" => secret = Some(Zeroizing::new(value.to_owned())),
                "aws_session_token" => session = Some(Zeroizing::new(value.to_owned())),
                _ => {}
            }
        }
        let (id, secret) = (id?, secret?);
        (profiles <= 1).then_some(Self { id, secret, session })
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn secret(&self) -> &[u8] {
        self.secret.as_bytes()
    }

    /// What goes with credentials that were lent for a while.
    pub(super) fn session(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_profile_is_read_and_nothing_shown() {
        let text = "# comment\n[default]\naws_access_key_id=ID\naws_secret_access_key = hidden=/+\nregion = x\n";
        let read = Credentials::parse(text).unwrap();
        assert_eq!((read.id(), read.secret(), read.session()), ("ID", &b"hidden=/+"[..], None));
        assert_eq!(format!("{read:?}"), "Credentials");
        let lent = Credentials::parse(&format!("{text}aws_session_token = t")).unwrap();
        assert_eq!(lent.session(), Some("t"));
        let two = format!("{text}[other]\n");
        for bad in ["", "aws_access_key_id = a", "hidden", "aws_access_key_id =\naws_secret_access_key = hidden", &two]
        {
            assert!(Credentials::parse(bad).is_none(), "{bad}");
        }
    }
}
