//! JSON that is signed: keys ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)) and signatures
//! ([RFC 7515](https://www.rfc-editor.org/rfc/rfc7515)) between bytes and types.
//!
//! Nothing here knows a key of ours, a store or a caller. What is read is strict: one spelling of base64url, no member twice,
//! algorithms from a list of five, and the list is chosen by the key, never by the header alone
//! ([RFC 8725, 3.1](https://www.rfc-editor.org/rfc/rfc8725#section-3.1)).

mod json;
mod jwk;
mod jws;

pub use json::strict;
pub use jwk::{Jwk, SignerKey};
pub use jws::{Jws, KeyReference, MAX_JWS};

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::error::{Error, Kind, Result};

/// Which part of what was read does not hold: the cause of each error here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The form.
    Form,
    /// An algorithm that is not on the list, or not that of the key.
    Algorithm,
    /// A key that is not on the list, weak, or not a key at all.
    Key,
    /// The signature or code.
    Signature,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "its form",
            Self::Algorithm => "its algorithm",
            Self::Key => "its key",
            Self::Signature => "its signature",
        })
    }
}

impl std::error::Error for Flaw {}

fn flawed(flaw: Flaw, text: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    let kind = match flaw {
        Flaw::Form | Flaw::Algorithm | Flaw::Key => Kind::Invalid,
        Flaw::Signature => Kind::Unauthenticated,
    };
    Error::new(kind, text).because(flaw)
}

/// The bytes of base64url without padding, in its one spelling ([RFC 7515, 2](https://www.rfc-editor.org/rfc/rfc7515#section-2)).
fn from_base64(text: &str, what: &'static str) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| flawed(Flaw::Form, format!("{what} is not base64url without padding")))
}

fn to_base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
