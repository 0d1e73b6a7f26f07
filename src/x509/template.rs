//! What a certificate says, but for who signs it.

use std::net::IpAddr;

use der::asn1::ObjectIdentifier;
use jiff::Timestamp;

use crate::error::{Error, Result};
use crate::types::PublicKey;

/// The serial number: 20 bytes, positive, of 159 random bits ([RFC 5280, 4.1.2.2](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.2)).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial([u8; 20]);

/// One subject alternative name, in the one spelling that certificates carry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum San {
    /// A host name: A-labels in lower case, the first perhaps `*`.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// A mailbox, in ASCII.
    Email(String),
    /// A URI; a SPIFFE id is one.
    Uri(String),
}

/// The attributes of a subject, each at most once, in the order in which they are encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Two letters of ISO 3166.
    pub country: Option<String>,
    /// The organisation.
    pub organization: Option<String>,
    /// A part of the organisation.
    pub organizational_unit: Option<String>,
    /// The common name.
    pub common_name: Option<String>,
}

/// From when until when, both ends included, in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub not_before: Timestamp,
    /// The last second.
    pub not_after: Timestamp,
}

/// What the key may be used for ([RFC 5280, 4.2.1.3](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.3)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyUsage {
    /// Signatures other than those on certificates and revocation lists.
    DigitalSignature,
    /// Transport of keys, by RSA.
    KeyEncipherment,
    /// Signatures on certificates.
    CertSign,
    /// Signatures on revocation lists.
    CrlSign,
}

/// What the certificate is for ([RFC 5280, 4.2.1.12](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.12)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExtendedUsage {
    /// TLS servers.
    ServerAuth,
    /// TLS clients.
    ClientAuth,
    /// Signed programs.
    CodeSigning,
    /// Mail.
    EmailProtection,
    /// OCSP responses for the issuer of this certificate.
    OcspSigning,
}

/// Which names certificates below this one may carry ([RFC 5280, 4.2.1.10](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.10)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameConstraints {
    /// A name must lie in one of those of its kind, where there is one. A DNS name stands for itself and all below it; an
    /// address for a network, as address and length of its prefix; a mailbox or URI by its host.
    pub permitted: Vec<Subtree>,
    /// A name must lie in none of these.
    pub excluded: Vec<Subtree>,
}

/// A part of the space of names.
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authority {
    /// How many authorities may stand between it and a leaf.
    pub path_length: Option<u8>,
    /// Which names it may certify.
    pub constraints: NameConstraints,
}

/// Where relying parties find what belongs to the issuer. All URLs are `http`: what is fetched is signed, and TLS would need it
/// first ([RFC 5280, 8](https://www.rfc-editor.org/rfc/rfc5280#section-8)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Revocation lists.
    pub crl: Vec<String>,
    /// OCSP responders.
    pub ocsp: Vec<String>,
    /// The issuer's own certificate, in DER.
    pub issuer: Vec<String>,
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

impl std::fmt::Display for Serial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for Serial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}
