//! What a device says of a key, in a file that needs neither the device nor the service.
//!
//! ```text
//! {
//!   "format": "signet-attestation@v1",
//!   "claim": { installation, key, id, version, algorithm, residency, public_key, pcrs, nonce },   what is claimed
//!   "attestation_key": "MFkw…",                                                             who says so, as SPKI
//!   "evidence": { "kind": "tpm" or "pkcs11", … }                                            how: see `tpm` and `token`
//! }
//! ```
//!
//! Evidence is signed in the device and carries the *binding*, `SHA-256("signet-attestation@v1\n" || claim as compact JSON)`; so
//! nothing of the claim can be exchanged, and what a device signed for one claim proves no other. A file has one spelling: what
//! is not written exactly as here is no attestation, so no byte of it can be changed.
//!
//! **Promises.** Verifying asks nobody. What holds is told fact by fact, each with whoever vouches for it; what does not is one
//! error with its name. **Limits.** That an attestation key is in hardware is not in this file: a verifier pins the key, or has a
//! TPM prove it ([`endorsement`]).

pub mod endorsement;
mod report;
pub mod token;
pub mod tpm;

pub use report::{Fact, Report};

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Kind, Result};
use crate::types::{
    Algorithm, Base64Bytes, KeyId, KeyName, PcrValues, PublicKey, Residency, Role, Verifier, Version, sha256,
};

/// The format, and the domain of bindings.
pub const FORMAT: &str = "signet-attestation@v1";
/// The most bytes of a file.
pub const MAX_BYTES: usize = 64 * 1024;

/// What a device says of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    format: String,
    /// What is claimed.
    pub claim: Claim,
    /// The attestation key that signed, as DER of SubjectPublicKeyInfo.
    pub attestation_key: Base64Bytes,
    /// What was signed.
    pub evidence: Evidence,
}

/// Which version of which key, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The installation that the key belongs to: the origin of its log is `signet/` and this.
    pub installation: String,
    /// The name of the key.
    pub key: KeyName,
    /// Its id.
    pub id: KeyId,
    /// The version.
    pub version: Version,
    /// What it does.
    pub algorithm: Algorithm,
    /// Where its private part stays.
    pub residency: Residency,
    /// The public half of a signing key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<Base64Bytes>,
    /// What must stand in which registers of the machine for a TPM to use it; none where it is not bound to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pcrs: Option<PcrValues>,
    /// What whoever asked wanted in it; none where it was made at the birth of the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
}

impl Claim {
    /// What evidence for this claim carries.
    ///
    /// # Errors
    /// [`Kind::Internal`] where it cannot be written, which is a defect.
    pub fn binding(&self) -> Result<[u8; 32]> {
        let text = serde_json::to_vec(self).map_err(|e| Error::internal(format!("a claim: {e}")))?;
        Ok(sha256(&[FORMAT.as_bytes(), b"\n", &text]))
    }
}

/// What a device signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Evidence {
    /// A TPM certified the object.
    Tpm(tpm::Certified),
    /// A token's attributes, read by the driver.
    Pkcs11(token::Stated),
}

/// What a verifier knows already, and holds the file against.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The attestation key: nothing is proven by another one.
    pub attestation_key: PublicKey,
    /// The Name of that key in its TPM, where a TPM proved it.
    pub tpm_name: Option<Vec<u8>>,
    /// The nonce that was asked with.
    pub nonce: Option<Nonce>,
    /// The key.
    pub key: Option<KeyName>,
    /// The version.
    pub version: Option<Version>,
    /// The public half.
    pub public_key: Option<PublicKey>,
}

impl Expected {
    /// Nothing but the attestation key.
    #[must_use]
    pub const fn of(attestation_key: PublicKey) -> Self {
        Self { attestation_key, tpm_name: None, nonce: None, key: None, version: None, public_key: None }
    }
}

impl Attestation {
    /// Puts claim and evidence together.
    #[must_use]
    pub fn new(claim: Claim, attestation_key: &PublicKey, evidence: Evidence) -> Self {
        let attestation_key = Base64Bytes(attestation_key.as_der().to_vec());
        Self { format: FORMAT.to_owned(), claim, attestation_key, evidence }
    }

    /// As a file: indented JSON and a line feed.
    ///
    /// # Errors
    /// [`Kind::Internal`] where it cannot be written, which is a defect.
    pub fn encode(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::internal(format!("an attestation: {e}")))?;
        Ok(text + "\n")
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Kind::DoesNotOpen`] for anything that [`Self::encode`] would write otherwise.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let none = |why: &str| broken(format!("the file is no attestation: {why}"));
        if bytes.len() > MAX_BYTES {
            return Err(none("it is too long"));
        }
        let read: Self = serde_json::from_slice(bytes).map_err(|e| none("it cannot be read").because(e))?;
        if read.format != FORMAT {
            return Err(none("its format is another one"));
        }
        if read.encode()?.as_bytes() != bytes {
            return Err(none("it is not spelt as attestations are"));
        }
        Ok(read)
    }

    /// Whether the device signed this claim by that attestation key: what a service asks before it keeps it. What the signed
    /// attributes are worth is for [`Self::verify`] to say.
    ///
    /// # Errors
    /// [`Kind::DoesNotOpen`] with what does not hold.
    pub fn is_signed_by(&self, key: &PublicKey) -> Result<()> {
        if self.attestation_key.0 != key.as_der() {
            return Err(broken("the attestation key is another one than was pinned"));
        }
        let verifier = Verifier::new(Algorithm::EcdsaP256, key)
            .map_err(|e| broken("the attestation key is none of ECDSA P-256").because(e))?;
        let pair = !matches!(self.claim.algorithm.role(), Role::Mac | Role::Cipher);
        if pair != self.claim.public_key.is_some() {
            return Err(broken(format!("a key of {} with that public key cannot be", self.claim.algorithm)));
        }
        let binding = self.claim.binding()?;
        match &self.evidence {
            Evidence::Tpm(certified) => certified.is_signed(&verifier, &self.claim, &binding),
            Evidence::Pkcs11(stated) => stated.is_signed(&verifier, &self.claim, &binding),
        }
    }

    /// Judges all of it.
    ///
    /// # Errors
    /// [`Kind::DoesNotOpen`] with the first thing that does not hold.
    pub fn verify(&self, expected: &Expected) -> Result<Report> {
        self.is_signed_by(&expected.attestation_key)?;
        let Claim { installation, key, id, version, algorithm, nonce, public_key, .. } = &self.claim;
        if expected.nonce.is_some() && expected.nonce != *nonce {
            return Err(broken("the nonce is another one than was asked with"));
        }
        if expected.key.as_ref().is_some_and(|wanted| wanted != key) {
            return Err(broken(format!("it is about another key: {key}")));
        }
        if expected.version.is_some_and(|wanted| wanted != *version) {
            return Err(broken(format!("it is about another version: {version}")));
        }
        let public = public_key.as_ref().map(|bytes| PublicKey::from_der(bytes.0.clone()));
        if expected.public_key.is_some() && expected.public_key != public {
            return Err(broken("the public key is another one"));
        }
        if let Some(public) = &public {
            public.check(*algorithm).map_err(|e| broken("the public key is none of that algorithm").because(e))?;
        }
        let mut report = Report::default();
        report.fact("key", format!("{key} version {version}, id {id}, of installation {installation}"), "the service");
        report.fact("algorithm", algorithm, "the device");
        match nonce {
            Some(_) if expected.nonce.is_some() => {
                report.fact("fresh", "signed for the nonce that was asked with", "the device")
            }
            Some(_) => report.unproven("that it is fresh: it was made for a nonce, and none was given to compare"),
            None => report.unproven("when it was made: it has no nonce, as those of the birth of a version"),
        }
        match &self.evidence {
            Evidence::Tpm(certified) => {
                let (key, trusted) = (&expected.attestation_key, expected.tpm_name.as_deref());
                certified.judge(&self.claim, key, trusted, &mut report)?;
            }
            Evidence::Pkcs11(stated) => {
                if expected.tpm_name.is_some() {
                    return Err(broken("it is a token's, and the attestation key that was trusted is a TPM's"));
                }
                stated.judge(&self.claim, &mut report)?;
            }
        }
        Ok(report)
    }
}

/// An attestation that does not hold.
pub(crate) fn broken(what: impl Into<String>) -> Error {
    Error::new(Kind::DoesNotOpen, what.into())
}

/// What a verifier drew, so that an attestation cannot be an old one: 16 to 64 bytes, in hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Nonce(Vec<u8>);

impl FromStr for Nonce {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bytes = hex::decode(text).ok().filter(|bytes| (16..=64).contains(&bytes.len()));
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        bytes.filter(|_| lower).map(Self).ok_or_else(|| {
            Error::new(Kind::Invalid, "a nonce is 16 to 64 bytes in hexadecimal digits, in lower case")
                .hint("`openssl rand -hex 32` draws one")
        })
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
