//! SPIFFE ids.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, Result};

/// The SPIFFE id of a workload: `spiffe://trust-domain/path`, compared byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId(String);

impl SpiffeId {
    /// The longest id, in bytes.
    pub const MAX: usize = 2048;

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SpiffeId {
    type Err = Error;

    /// [SPIFFE-ID, 2](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md): trust domain of `a-z 0-9 . - _`,
    /// segments of letters, digits and `. - _`, none of them empty, `.` or `..`; no query, port, user or escapes.
    fn from_str(text: &str) -> Result<Self> {
        let common = |b: u8| matches!(b, b'.' | b'-' | b'_') || b.is_ascii_digit();
        let trust_domain =
            |t: &str| (1..=255).contains(&t.len()) && t.bytes().all(|b| common(b) || b.is_ascii_lowercase());
        let segment =
            |s: &str| !matches!(s, "" | "." | "..") && s.bytes().all(|b| common(b) || b.is_ascii_alphabetic());
        let parts = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
        match parts {
            Some((domain, path)) if text.len() <= Self::MAX && trust_domain(domain) && path.split('/').all(segment) => {
                Ok(Self(text.to_owned()))
            }
            Some(_) | None => Err(Error::new(Kind::Invalid, "this is not the SPIFFE id of a workload")
                .hint("write it as spiffe://trust-domain/path")),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
