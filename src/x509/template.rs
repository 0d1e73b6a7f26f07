//! What a certificate says, but for who signs it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use der::asn1::ObjectIdentifier;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::san::{San, host, quoted};
use crate::error::{Error, Kind, Result};
use crate::types::{Distribution, PublicKey, Subject, lower_hex, words};

/// The serial number: 20 bytes, positive, of 159 random bits ([RFC 5280, 4.1.2.2](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.2)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial([u8; 20]);

/// From when until when, both ends included, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: Timestamp,
    /// The last second.
    pub not_after: Timestamp,
}

words! {
    /// What the key may be used for ([RFC 5280, 4.2.1.3](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.3)).
    KeyUsage: "key usage" {
        /// Signatures other than those on certificates and revocation lists.
        DigitalSignature = "digital_signature",
        /// Transport of keys, by RSA.
        KeyEncipherment = "key_encipherment",
        /// Signatures on certificates.
        CertSign = "cert_sign",
        /// Signatures on revocation lists.
        CrlSign = "crl_sign",
    }
}

words! {
    /// What the certificate is for ([RFC 5280, 4.2.1.12](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.12)).
    ExtendedUsage: "extended key usage" {
        /// TLS servers.
        ServerAuth = "server_auth",
        /// TLS clients.
        ClientAuth = "client_auth",
        /// Signed programs.
        CodeSigning = "code_signing",
        /// Mail.
        EmailProtection = "email_protection",
        /// OCSP responses for the issuer of this certificate.
        OcspSigning = "ocsp_signing",
    }
}

/// Which names certificates below this one may carry ([RFC 5280, 4.2.1.10](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.10)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameConstraints {
    /// A name must lie in one of those of its kind, where there is one. A DNS name stands for itself and all below it; an
    /// address for a network, as address and length of its prefix; a mailbox or URI by its host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<Subtree>,
    /// A name must lie in none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<Subtree>,
}

/// A part of the space of names, written `dns:example.com`, `ip:10.0.0.0/8`, `email:example.com`, `email:.example.com`,
/// `uri:example.com` or `uri:.example.com`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subtree {
    /// This domain and all below it.
    Dns(String),
    /// This network.
    Ip(IpAddr, u8),
    /// Mailboxes at this host, or at all hosts below it where it starts with a dot.
    Email(String),
    /// URIs with this host, or any host below it where it starts with a dot.
    Uri(String),
}

/// That the subject is a certification authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// How many authorities may stand between it and a leaf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_length: Option<u8>,
    /// Which names it may certify.
    #[serde(default)]
    pub constraints: NameConstraints,
}

/// All that a certificate says, but for serial number and issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Whose key it is.
    pub subject: Subject,
    /// Other names of the subject.
    pub sans: Vec<San>,
    /// The key that is certified.
    pub public_key: PublicKey,
    /// Its time.
    pub validity: Validity,
    /// What its key may do; never empty.
    pub usages: Vec<KeyUsage>,
    /// What it is for; empty for authorities that may do all.
    pub extended: Vec<ExtendedUsage>,
    /// Where the subject is an authority.
    pub authority: Option<Authority>,
    /// Under which policies it was issued.
    pub policies: Vec<ObjectIdentifier>,
    /// Where to look for its revocation.
    pub distribution: Distribution,
    /// Whether TLS servers must staple an OCSP response ([RFC 7633](https://www.rfc-editor.org/rfc/rfc7633)).
    pub must_staple: bool,
    /// Whether it is an OCSP responder's whose own revocation is not looked up ([RFC 6960, 4.2.2.2.1](https://www.rfc-editor.org/rfc/rfc6960#section-4.2.2.2.1)).
    pub no_check: bool,
}

impl Serial {
    /// Takes the 20 bytes of a certificate of ours.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Draws a new one: 159 random bits, and a first one that is 0, so that it is positive.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] where the generator fails.
    pub fn random() -> Result<Self> {
        let mut bytes = [0; 20];
        getrandom::fill(&mut bytes).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        let [first, ..] = &mut bytes;
        *first &= 0x7f;
        // Zero is no serial number, and no generator that works draws it.
        if bytes == [0; 20] { Err(Error::internal("the generator answered zeros")) } else { Ok(Self(bytes)) }
    }

    /// The 20 bytes, big-endian.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl FromStr for Serial {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::new(Kind::Invalid, "a serial number is 40 hexadecimal digits, in lower case");
        lower_hex(text).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Subtree {
    /// That it can be written into a certificate and means what it says.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the reason and the mend.
    pub fn check(&self) -> Result<()> {
        match self {
            Self::Dns(name) => host(name).map_err(|why| why.error("domain", name)),
            Self::Email(name) | Self::Uri(name) => {
                host(name.strip_prefix('.').unwrap_or(name)).map_err(|why| why.error("host", name))
            }
            Self::Ip(network, length) => {
                let (width, outside) = match network {
                    IpAddr::V4(four) => (32, u32::from(*four).checked_shl(u32::from(*length)).unwrap_or(0) != 0),
                    IpAddr::V6(six) => (128, u128::from(*six).checked_shl(u32::from(*length)).unwrap_or(0) != 0),
                };
                if *length > width || outside {
                    return Err(Error::new(Kind::Invalid, format!("{network}/{length} is not a network"))
                        .hint("the bits after the prefix are 0, as in 10.0.0.0/8"));
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Subtree {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            Error::new(Kind::Invalid, format!("{} is not a part of the space of names", quoted(text))).hint(
                "write dns:domain, ip:network/length, email:host or uri:host; a dot before the host means all below it",
            )
        };
        let (kind, value) = text.split_once(':').ok_or_else(unknown)?;
        let tree = match kind {
            "dns" => Self::Dns(value.to_owned()),
            "email" => Self::Email(value.to_owned()),
            "uri" => Self::Uri(value.to_owned()),
            "ip" => {
                let (network, length) = value.split_once('/').ok_or_else(unknown)?;
                Self::Ip(network.parse().map_err(|_| unknown())?, length.parse().map_err(|_| unknown())?)
            }
            _ => return Err(unknown()),
        };
        tree.check()?;
        if tree.to_string() == text { Ok(tree) } else { Err(unknown()) }
    }
}

impl fmt::Display for Subtree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Ip(network, length) => write!(f, "ip:{network}/{length}"),
            Self::Email(name) => write!(f, "email:{name}"),
            Self::Uri(name) => write!(f, "uri:{name}"),
        }
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
as_text!(Serial, Subtree);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtrees_are_written_as_they_are_read() {
        for text in [
            "dns:example.com",
            "ip:10.0.0.0/8",
            "ip:0.0.0.0/0",
            "ip:10.0.0.1/32",
            "ip:2001:db8::/32",
            "ip:::/0",
            "email:b.example",
            "email:.b.example",
            "uri:.td",
        ] {
            assert_eq!(text.parse::<Subtree>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "dns:",
            "dns:.example.com",
            "dns:*.example.com",
            "ip:10.0.0.1/8",
            "ip:10.0.0.0/33",
            "ip:10.0.0.0",
            "ip:10.0.0.0/08",
            "email:a@b.c",
            "uri:spiffe://td",
            "x:y",
        ] {
            assert!(text.parse::<Subtree>().is_err(), "{text}");
        }
    }

    #[test]
    fn serial_numbers_are_positive_and_have_one_spelling() {
        for _ in 0..1000 {
            let serial = Serial::random().unwrap();
            assert!(serial.as_bytes()[0] < 0x80);
            assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
        }
        assert!("AB".repeat(20).parse::<Serial>().is_err() && "ab".parse::<Serial>().is_err());
    }
}
