//! Evidence of a PKCS#11 token: its attributes, read by the driver and signed in the token.
//!
//! ```text
//! "evidence": {
//!   "kind": "pkcs11",
//!   "statement": {
//!     "binding": "64 digits",
//!     "token": { manufacturer, model, serial, firmware },
//!     "object": { "CKA_LOCAL": "true", … },              the key as it is used
//!     "born": { … },                                     wrapped keys, at birth: the key before it was wrapped
//!     "kek": { "attributes": …, "unwraps": … },          wrapped keys: what opens them, and what it makes of any blob
//!     "public_key": "MFkw…" or "check": "64 digits"      which key: it signed for the one; SHA-256 of its check value
//!   },
//!   "signature": "…"                                     ECDSA P-256 r || s over the prefix and the statement as compact JSON
//! }
//! ```
//!
//! A token has no command that certifies an object. So the worker process reads the attributes, has the key itself prove that it
//! is that key, and signs with a token object that signs nothing else. **What that proves**: the token holds the attestation key,
//! and a driver that was logged in to it read these attributes. It rests on that driver, where a TPM's evidence does not. Who needs more
//! takes the maker's own attestation beside it (docs/attestation.md).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Claim, Report, broken};
use crate::error::{Error, Result};
use crate::types::{Algorithm, Base64Bytes, Hash, Residency, Role, Verifier};

/// What is put before a statement when it is signed: nothing else that a key signs begins so.
pub const PREFIX: &[u8] = b"signet-token-statement@v1\n";

/// Attributes by their name in the standard: `true`, `false`, a number as `0x1041`, several with commas between, bytes as digits.
/// What the token does not show is left out.
pub type Attributes = BTreeMap<String, String>;

/// A statement and its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stated {
    /// What is stated.
    pub statement: Statement,
    /// `r || s`.
    pub signature: Base64Bytes,
}

/// What the driver found in the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The binding of the claim.
    pub binding: String,
    /// The token by its own words.
    pub token: Token,
    /// The object that is used.
    pub object: Attributes,
    /// The object as it was made, before it was wrapped: where the process that made it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub born: Option<Attributes>,
    /// The key-encryption key, for a wrapped key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kek: Option<Kek>,
    /// The public half that the object signs for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<Base64Bytes>,
    /// SHA-256 of the check value, for a secret key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
}

/// What a token says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// The maker.
    pub manufacturer: String,
    /// The model.
    pub model: String,
    /// The serial number.
    pub serial: String,
    /// The firmware's version.
    pub firmware: String,
}

/// A key-encryption key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kek {
    /// Its attributes.
    pub attributes: Attributes,
    /// What it makes of whatever it unwraps: `CKA_UNWRAP_TEMPLATE`.
    pub unwraps: Attributes,
}

impl Statement {
    /// The bytes that are signed.
    ///
    /// # Errors
    /// `Internal` where it cannot be written, which is a defect.
    pub fn signed(&self) -> Result<Vec<u8>> {
        let text = serde_json::to_vec(self).map_err(|e| Error::internal(format!("a statement: {e}")))?;
        Ok([PREFIX, &text].concat())
    }
}

impl Stated {
    pub(super) fn is_signed(&self, verifier: &Verifier, claim: &Claim, binding: &[u8; 32]) -> Result<()> {
        let Self { statement, signature } = self;
        if !verifier.verifies(&statement.signed()?, &signature.0) {
            return Err(broken("the statement is not signed by the attestation key"));
        }
        if statement.binding != hex::encode(binding) {
            return Err(broken("the statement was signed for another claim"));
        }
        if statement.public_key != claim.public_key {
            return Err(broken("the statement is about another public key"));
        }
        if statement.public_key.is_some() == statement.check.is_some() {
            return Err(broken("the statement does not say which key it is about"));
        }
        Ok(())
    }

    pub(super) fn judge(&self, claim: &Claim, report: &mut Report) -> Result<()> {
        const DRIVER: &str = "the driver, by the attestation key";
        let Statement { token, object, born, kek, public_key, check, .. } = &self.statement;
        let id = hex::encode([claim.id.as_bytes().as_slice(), &claim.version.number().to_be_bytes()].concat());
        let Token { manufacturer, model, serial, firmware } = token;
        report.fact(
            "token",
            format!("{manufacturer} {model}, serial {serial}, firmware {firmware}"),
            "the token itself",
        );
        require("the key", object, &of_use(claim, &id))?;
        let kind = kind(claim.algorithm);
        match (claim.residency, kek) {
            (Residency::Resident, None) => {
                require("the key", object, &guarded_from_birth(kind.generator))?;
                report.fact("made", format!("in the token (CKA_LOCAL), by {}", kind.generator), DRIVER);
                report.fact("kept", "always sensitive, never extractable, an object of the token", DRIVER);
            }
            (Residency::Wrapped | Residency::Shared, Some(kek)) => {
                let shared = claim.residency == Residency::Shared;
                let wanted = if shared { of_shared_kek() } else { of_own_kek() };
                require("the key-encryption key", &kek.attributes, &wanted)?;
                require("the unwrap template", &kek.unwraps, &of_unwrapped(claim.algorithm.role(), kind.class))?;
                let of = if shared { "that several tokens share" } else { "of the token" };
                report.fact(
                    "kept",
                    format!("as a blob under a key-encryption key {of}; sensitive, not extractable once loaded"),
                    DRIVER,
                );
                if shared {
                    report.fact("opened by", "a key that leaves the token under keys alone that its security officer made trusted, and makes of every blob a key that is not extractable", DRIVER);
                    report.unproven(
                        "which other tokens open it: each says of itself that it does, and none that no other can",
                    );
                } else {
                    report.fact("opened by", "a key that was made in the token, was never extractable, and makes of every blob a key that is not", DRIVER);
                }
                match born {
                    Some(born) => {
                        require("the key at its birth", born, &at_birth(kind.generator))?;
                        report.fact("made", format!("in the token (CKA_LOCAL), by {}; extractable until it was wrapped and destroyed", kind.generator), DRIVER);
                    }
                    None => report.unproven("that the key was made in the token: only the process that made a wrapped key saw that, and said it at its birth"),
                }
            }
            (Residency::Resident, Some(_)) | (Residency::Wrapped | Residency::Shared, None) => {
                return Err(broken(format!("the statement is not one of a {} key", claim.residency)));
            }
        }
        report.fact("does", format!("one thing, by the mechanism {}, and cannot be changed", kind.mechanism), DRIVER);
        if public_key.is_some() {
            report.fact("public key", "the key proved that it is the other half when this was made", DRIVER);
        }
        if let Some(check) = check {
            report.fact("check value", format!("SHA-256 {check}"), DRIVER);
        }
        report.unproven("that the token is hardware: a software token says the same, and the driver is believed");
        Ok(())
    }
}

/// Class, key type, generator and mechanism of an algorithm, as the texts of a statement.
struct Kind {
    class: &'static str,
    key_type: &'static str,
    generator: &'static str,
    mechanism: &'static str,
}

const PRIVATE: &str = "0x3";
const SECRET: &str = "0x4";

const fn kind(algorithm: Algorithm) -> Kind {
    match algorithm {
        Algorithm::EcdsaP256 | Algorithm::EcdsaP384 | Algorithm::EcdsaP521 => {
            Kind { class: PRIVATE, key_type: "0x3", generator: "0x1040", mechanism: "0x1041" }
        }
        Algorithm::Rsa2048Oaep | Algorithm::Rsa3072Oaep | Algorithm::Rsa4096Oaep => {
            Kind { class: PRIVATE, key_type: "0x0", generator: "0x0", mechanism: "0x9" }
        }
        Algorithm::Aes256Gcm => Kind { class: SECRET, key_type: "0x1f", generator: "0x1080", mechanism: "0x1087" },
        Algorithm::HpkeP256 => Kind { class: PRIVATE, key_type: "0x3", generator: "0x1040", mechanism: "0x1050" },
        Algorithm::MlKem768 => Kind { class: PRIVATE, key_type: "0x49", generator: "0xf", mechanism: "0x17" },
        Algorithm::Ed25519 => Kind { class: PRIVATE, key_type: "0x40", generator: "0x1055", mechanism: "0x1057" },
        Algorithm::MlDsa65 => Kind { class: PRIVATE, key_type: "0x4a", generator: "0x1c", mechanism: "0x1d" },
        Algorithm::Rsa2048Pkcs1 | Algorithm::Rsa3072Pkcs1 | Algorithm::Rsa4096Pkcs1 => {
            Kind { class: PRIVATE, key_type: "0x0", generator: "0x0", mechanism: "0x1" }
        }
        Algorithm::Rsa2048Pss | Algorithm::Rsa3072Pss | Algorithm::Rsa4096Pss => {
            Kind { class: PRIVATE, key_type: "0x0", generator: "0x0", mechanism: "0xd" }
        }
        Algorithm::HmacSha256 | Algorithm::HmacSha384 | Algorithm::HmacSha512 | Algorithm::Aes256GcmDerived => {
            let mechanism = match algorithm.hash() {
                Some(Hash::Sha384) => "0x261",
                Some(Hash::Sha512) => "0x271",
                Some(Hash::Sha256) | None => "0x251",
            };
            Kind { class: SECRET, key_type: "0x10", generator: "0x350", mechanism }
        }
    }
}

type Wanted = Vec<(&'static str, String)>;

fn wanted(all: &[(&'static str, &str)]) -> Wanted {
    all.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// What each key is that is used.
fn of_use(claim: &Claim, id: &str) -> Wanted {
    let kind = kind(claim.algorithm);
    let token = if claim.residency == Residency::Resident { "true" } else { "false" };
    let mut all = wanted(&[
        ("CKA_CLASS", kind.class),
        ("CKA_KEY_TYPE", kind.key_type),
        ("CKA_TOKEN", token),
        ("CKA_ID", id),
        ("CKA_ALLOWED_MECHANISMS", kind.mechanism),
    ]);
    all.extend(closed());
    all.extend(one_role(claim.algorithm.role(), kind.class));
    all
}

/// That it does not leave, and stays as it is.
fn closed() -> Wanted {
    wanted(&[
        ("CKA_PRIVATE", "true"),
        ("CKA_SENSITIVE", "true"),
        ("CKA_EXTRACTABLE", "false"),
        ("CKA_MODIFIABLE", "false"),
        ("CKA_COPYABLE", "false"),
    ])
}

/// That it signs, makes HMACs, agrees on secrets, decrypts, decapsulates, or encrypts and decrypts, and does nothing else.
fn one_role(role: Role, class: &str) -> Wanted {
    let granted: &[&str] = match role {
        Role::Sign | Role::Mac => &["CKA_SIGN"],
        Role::Agree => &["CKA_DERIVE"],
        Role::Decrypt => &["CKA_DECRYPT"],
        Role::Decapsulate => &["CKA_DECAPSULATE"],
        Role::Cipher => &["CKA_ENCRYPT", "CKA_DECRYPT"],
    };
    let of = |name| (name, if granted.contains(&name) { "true" } else { "false" });
    let mut all = wanted(&["CKA_SIGN", "CKA_DECRYPT", "CKA_UNWRAP", "CKA_DERIVE"].map(of));
    if class == PRIVATE {
        all.extend(wanted(&[of("CKA_SIGN_RECOVER")]));
        // Only tokens of version 3.2 know it.
        all.extend(granted.contains(&"CKA_DECAPSULATE").then(|| ("CKA_DECAPSULATE", "true".to_owned())));
    } else {
        all.extend(wanted(&["CKA_ENCRYPT", "CKA_WRAP", "CKA_VERIFY"].map(of)));
    }
    all
}

/// What nobody can set by hand.
fn guarded_from_birth(generator: &str) -> Wanted {
    wanted(&[
        ("CKA_LOCAL", "true"),
        ("CKA_ALWAYS_SENSITIVE", "true"),
        ("CKA_NEVER_EXTRACTABLE", "true"),
        ("CKA_KEY_GEN_MECHANISM", generator),
    ])
}

/// What a wrapped key was before it was wrapped. That it was extractable is no secret.
fn at_birth(generator: &str) -> Wanted {
    wanted(&[
        ("CKA_LOCAL", "true"),
        ("CKA_SENSITIVE", "true"),
        ("CKA_ALWAYS_SENSITIVE", "true"),
        ("CKA_TOKEN", "false"),
        ("CKA_KEY_GEN_MECHANISM", generator),
    ])
}

/// A key-encryption key: AES.
fn of_kek() -> Wanted {
    wanted(&[
        ("CKA_CLASS", SECRET),
        ("CKA_KEY_TYPE", "0x1f"),
        ("CKA_TOKEN", "true"),
        ("CKA_WRAP", "true"),
        ("CKA_UNWRAP", "true"),
        ("CKA_SIGN", "false"),
        ("CKA_VERIFY", "false"),
        ("CKA_ENCRYPT", "false"),
        ("CKA_DECRYPT", "false"),
        ("CKA_DERIVE", "false"),
        ("CKA_PRIVATE", "true"),
        ("CKA_SENSITIVE", "true"),
        ("CKA_MODIFIABLE", "false"),
        ("CKA_COPYABLE", "false"),
    ])
}

/// One that was made here, and never leaves.
fn of_own_kek() -> Wanted {
    let mut all = of_kek();
    all.extend(wanted(&[("CKA_EXTRACTABLE", "false")]));
    all.extend(guarded_from_birth("0x1080"));
    all
}

/// One that came from elsewhere, and goes on under trusted keys alone.
fn of_shared_kek() -> Wanted {
    let mut all = of_kek();
    all.extend(wanted(&[("CKA_EXTRACTABLE", "true"), ("CKA_WRAP_WITH_TRUSTED", "true"), ("CKA_LOCAL", "false")]));
    all
}

/// What an unwrap template fixes.
fn of_unwrapped(role: Role, class: &'static str) -> Wanted {
    let mut all = wanted(&[("CKA_CLASS", class), ("CKA_TOKEN", "false")]);
    all.extend(closed());
    all.extend(one_role(role, class));
    all
}

/// Names the first attribute that is another one.
fn require(what: &str, found: &Attributes, wanted: &Wanted) -> Result<()> {
    for (name, value) in wanted {
        match found.get(*name) {
            Some(found) if found == value => {}
            Some(found) => return Err(broken(format!("{name} of {what} is {found}, and should be {value}"))),
            None => return Err(broken(format!("the token does not show {name} of {what}"))),
        }
    }
    Ok(())
}
