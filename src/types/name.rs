//! Names, ids and version numbers.

use std::borrow::Borrow;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::lower_hex;
use crate::error::{Error, Kind, Result};

/// A name of one alphabet, `[a-z0-9][a-z0-9._-]{0,62}`. Everything else is refused, never normalised.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

impl Name {
    /// The longest name, in bytes.
    pub const MAX: usize = 63;

    /// Checks `text`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for anything outside the alphabet.
    pub fn new(text: &str) -> Result<Self> {
        let lower_or_digit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let good = text.len() <= Self::MAX
            && text.starts_with(lower_or_digit)
            && text.chars().all(|c| lower_or_digit(c) || matches!(c, '.' | '_' | '-'));
        if good {
            Ok(Self(text.into()))
        } else {
            Err(Error::new(Kind::Invalid, format!("{:?} is not a name", shorten(text)))
                .hint("a name has 1 to 63 characters of a-z, 0-9, '.', '_' and '-', and starts with a letter or digit"))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// At most 80 characters of what a client sent, for an error text.
fn shorten(text: &str) -> String {
    text.chars().take(80).collect()
}

impl FromStr for Name {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes a type for the full name of one kind of thing, so that the name of a key is never taken for that of an issuer.
macro_rules! full_names {
    ($($(#[$doc:meta])* $type:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type {
            /// The tenant.
            pub namespace: Name,
            /// The name within it.
            pub name: Name,
        }

        impl $type {
            /// The namespace of a name that gives none.
            pub const DEFAULT_NAMESPACE: &'static str = "default";
        }

        impl FromStr for $type {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                let (namespace, name) = text.split_once(':').unwrap_or((Self::DEFAULT_NAMESPACE, text));
                Ok(Self { namespace: namespace.parse()?, name: name.parse()? })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}:{}", self.namespace, self.name)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    )*};
}

full_names! {
    /// The full name of a key: `namespace:name`. `name` alone means the namespace `default`.
    KeyName
    /// The full name of an issuer of certificates, in the same form.
    IssuerName
    /// The full name of a profile of certificates, in the same form.
    ProfileName
    /// The full name of a place where ACME is spoken, in the same form.
    EndpointName
}

impl IssuerName {
    /// The key of this issuer: it has the issuer's own name.
    #[must_use]
    pub fn key(&self) -> KeyName {
        KeyName { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// The key that signs OCSP answers for this issuer: its name is the issuer's with `.ocsp` after it.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for an issuer whose name leaves no room for that, or is such a name itself.
    pub fn responder(&self) -> Result<KeyName> {
        let unfit = || {
            Error::new(Kind::Invalid, format!("{self} is no name for an issuer"))
                .hint("an issuer's name has at most 58 characters and does not end with .ocsp: the key of its OCSP responder does")
        };
        let own = self.name.as_str();
        if own.ends_with(".ocsp") {
            return Err(unfit());
        }
        let name = format!("{own}.ocsp").parse().map_err(|_| unfit())?;
        Ok(KeyName { namespace: self.namespace.clone(), name })
    }
}

/// The random identity of a key: 16 bytes, written in hex, never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 16]);

impl KeyId {
    /// Draws a new one from the operating system's generator.
    ///
    /// # Errors
    /// [`Kind::Internal`] where the generator fails.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        Ok(Self(bytes))
    }

    /// Takes the bytes of a header or record.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::new(Kind::Invalid, "a key id is 32 hexadecimal digits, in lower case");
        lower_hex(text).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The number of a key version, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version(NonZeroU32);

impl Version {
    /// The first version of each key.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// Checks that `number` is not 0.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for 0.
    pub fn new(number: u32) -> Result<Self> {
        NonZeroU32::new(number).map(Self).ok_or_else(|| Error::new(Kind::Invalid, "versions are numbered from 1"))
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0.get()
    }

    /// The version after this one.
    ///
    /// # Errors
    /// [`Kind::Limit`] after the last number of 32 bits.
    pub fn next(self) -> Result<Self> {
        self.0
            .checked_add(1)
            .map(Self)
            .ok_or_else(|| Error::new(Kind::Limit, "this key has used up its version numbers"))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.number())
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u32::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Serialises a type of this file as its text.
macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(Name, KeyName, IssuerName, ProfileName, EndpointName, KeyId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_has_one_spelling() {
        let text = "0123456789abcdef0123456789abcdef";
        assert_eq!(text.parse::<KeyId>().unwrap().to_string(), text);
        for wrong in [
            "",
            "0123456789ABCDEF0123456789abcdef",
            "0123456789abcdef0123456789abcde",
            "0123456789abcdef0123456789abcdeg",
        ] {
            assert_eq!(wrong.parse::<KeyId>().unwrap_err().kind(), Kind::Invalid, "{wrong}");
        }
    }
}
