//! The encryption context (AAD): a map of strings that must be given again to unwrap.
//!
//! Its canonical encoding is what every implementation must hash, so it is drawn here and has test vectors in
//! `tests/vectors/context.json`:
//!
//! ```text
//! count (4) || for each entry, in byte order of the keys: key length (4) || key || value length (4) || value     big-endian
//! ```
//!
//! Keys and values are UTF-8. The empty map is four zero bytes, so "no context" and "an empty context" are the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{entries, sha256};
use crate::error::{Error, Kind, Result};

/// A checked encryption context.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Context(BTreeMap<String, String>);

impl Context {
    /// The most entries.
    pub const MAX_ENTRIES: usize = 32;
    /// The most bytes of the canonical encoding.
    pub const MAX_BYTES: usize = 8192;

    /// Checks the limits.
    ///
    /// # Errors
    /// [`Kind::Limit`] past [`Self::MAX_ENTRIES`] or [`Self::MAX_BYTES`]; [`Kind::Invalid`] for an empty key.
    pub fn new(entries: BTreeMap<String, String>) -> Result<Self> {
        if entries.keys().any(String::is_empty) {
            return Err(Error::new(Kind::Invalid, "a key of the context is empty"));
        }
        let context = Self(entries);
        if context.0.len() > Self::MAX_ENTRIES || context.encode().len() > Self::MAX_BYTES {
            let limit = format!("a context has at most {} entries and {} bytes", Self::MAX_ENTRIES, Self::MAX_BYTES);
            return Err(Error::new(Kind::Limit, limit));
        }
        Ok(context)
    }

    /// The canonical bytes of the module's drawing.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = length(self.0.len()).to_vec();
        for (key, value) in &self.0 {
            for text in [key, value] {
                bytes.extend(length(text.len()));
                bytes.extend(text.as_bytes());
            }
        }
        bytes
    }

    /// SHA-256 of the canonical bytes.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(&[&self.encode()])
    }

    /// The entries, for policy and audit.
    #[must_use]
    pub const fn entries(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

/// Lengths beyond 32 bits cannot pass [`Context::MAX_BYTES`]; saturating keeps the encoding total.
fn length(n: usize) -> [u8; 4] {
    u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes()
}

impl<'de> Deserialize<'de> for Context {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(entries(deserializer)?).map_err(serde::de::Error::custom)
    }
}
