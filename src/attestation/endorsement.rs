//! That an attestation key is in a TPM, and which: the maker's certificate for its endorsement key, and a challenge that only the
//! TPM with both keys can answer.
//!
//! ```text
//! verifier                                                  service
//! EK certificate ─▶ chain to the maker's roots
//! attestation ─▶ the attestation key's public area
//! challenge: a secret, for the EK, bound to the Name ─────▶ TPM2_ActivateCredential
//! keeps the secret                                  ◀───── the secret
//! same? ─▶ trust: that attestation key is in that TPM
//! ```
//!
//! An endorsement key signs nothing, so no signature of it can vouch for the attestation key; and a service cannot prove this to
//! somebody who did not ask. What is encrypted here is what TPM2_MakeCredential makes
//! ([TPM 2.0 Library, Part 1, 24](https://trustedcomputinggroup.org/resource/tpm-library-specification/)); a TPM opens it only while an
//! object of that very Name is loaded beside the endorsement key, and the Name covers the attributes.
//!
//! **Limits.** Endorsement keys are RSA 2048 (template L-1 of the
//! [TCG EK Credential Profile](https://trustedcomputinggroup.org/resource/tcg-ek-credential-profile-for-tpm-family-2-0/)), which each
//! TPM 2.0 has. Whether a certificate was revoked is not asked.

use std::fmt;

use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};
use zeroize::Zeroizing;

use super::{broken, tpm};
use crate::error::{Error, Kind, Result};
use crate::types::{Base64Bytes, PublicKey, same, sha256};
use crate::x509::KeyKind;
use crate::x509::key::accept;
use crate::x509::signature::Signed;

const CHALLENGE: &str = "signet-tpm-challenge@v1";
const ANSWER: &str = "signet-tpm-answer@v1";
const SECRET: &str = "signet-tpm-secret@v1";
const TRUST: &str = "signet-tpm-trust@v1";
/// The most certificates between that of an endorsement key and a root.
const MAX_CHAIN: usize = 6;
/// The most bytes of a file of this module.
pub const MAX_BYTES: usize = 64 * 1024;
const SECRET_BYTES: usize = 32;

/// An endorsement key that a maker certified.
#[derive(Clone, Debug)]
pub struct Endorsement {
    key: PublicKey,
    certificate: Vec<u8>,
    root: String,
}

impl Endorsement {
    /// Follows the chain from `certificate`, by way of those of `between`, to one of `roots`: DER each.
    ///
    /// # Errors
    /// [`Kind::DoesNotOpen`] with the first thing that does not hold.
    pub fn verify(certificate: &[u8], between: &[Vec<u8>], roots: &[Vec<u8>], now: Timestamp) -> Result<Self> {
        let leaf = parse(certificate)?;
        must_be_valid(&leaf, now)?;
        endorses(&leaf)?;
        let mut below = certificate.to_vec();
        for depth in 0..MAX_CHAIN {
            if let Some(root) = issuer(&below, roots, depth, now)? {
                let key = PublicKey::from_der(leaf.public_key().raw.to_vec());
                let root = parse(&root)?.subject().to_string();
                return Ok(Self { key, certificate: certificate.to_vec(), root });
            }
            let above = issuer(&below, between, depth, now)?;
            below = above.ok_or_else(|| broken("the endorsement certificate leads to none of the roots"))?;
        }
        Err(broken("the chain of the endorsement certificate is too long"))
    }

    /// SHA-256 of the certificate.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&[&self.certificate])
    }

    /// The root that the chain ended at.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }
}

/// The certificate at the beginning of what a TPM keeps, whose memory may be longer.
///
/// # Errors
/// [`Kind::DoesNotOpen`] where there is none.
pub fn certificate_in(memory: &[u8]) -> Result<Vec<u8>> {
    let (rest, _) = X509Certificate::from_der(memory)
        .map_err(|_| broken("what the TPM keeps is no certificate that can be read"))?;
    Ok(memory.get(..memory.len() - rest.len()).unwrap_or_default().to_vec())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(broken("a certificate of the chain cannot be read")),
    }
}

fn must_be_valid(certificate: &X509Certificate<'_>, now: Timestamp) -> Result<()> {
    let validity = certificate.validity();
    if (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now.as_second()) {
        return Ok(());
    }
    Err(broken(format!("the certificate of {} is over, or not valid yet", certificate.subject())))
}

/// The certificate among `candidates` that signed `below`. One that names it and did not sign it is none.
fn issuer(below: &[u8], candidates: &[Vec<u8>], depth: usize, now: Timestamp) -> Result<Option<Vec<u8>>> {
    let named = parse(below)?;
    for candidate in candidates {
        let above = parse(candidate)?;
        if above.subject().as_raw() != named.issuer().as_raw() {
            continue;
        }
        let signs = || {
            let (key, kind) = accept(above.public_key().raw)?;
            Signed::parse(below)?.verify(kind, &key)
        };
        signs().map_err(|e| {
            broken(format!("the certificate of {} is not signed by {}", named.subject(), above.subject())).because(e)
        })?;
        must_be_valid(&above, now)?;
        may_certify(&above, depth)?;
        return Ok(Some(candidate.clone()));
    }
    Ok(None)
}

/// Whether an authority may stand above so many others.
fn may_certify(certificate: &X509Certificate<'_>, depth: usize) -> Result<()> {
    let mut authority = false;
    for extension in certificate.extensions() {
        let parsed = extension.parsed_extension();
        let understood = if let ParsedExtension::BasicConstraints(constraints) = parsed {
            let enough = constraints.path_len_constraint.is_none_or(|length| length as usize >= depth);
            authority = constraints.ca && enough;
            true
        } else if let ParsedExtension::KeyUsage(usage) = parsed {
            usage.key_cert_sign()
        } else {
            matches!(parsed, ParsedExtension::CertificatePolicies(_))
        };
        if extension.critical && !understood {
            return Err(not_understood(certificate));
        }
    }
    if authority { Ok(()) } else { Err(broken(format!("{} may not certify this", certificate.subject()))) }
}

/// Whether the certificate is one of an endorsement key.
fn endorses(certificate: &X509Certificate<'_>) -> Result<()> {
    /// "tcg-kp-EKCertificate"
    const ENDORSEMENT: &str = "2.23.133.8.1";
    for extension in certificate.extensions() {
        let parsed = extension.parsed_extension();
        if let ParsedExtension::ExtendedKeyUsage(usage) = parsed
            && !usage.other.iter().any(|oid| oid.to_id_string() == ENDORSEMENT)
        {
            return Err(broken("the certificate is not one of an endorsement key"));
        }
        // The TPM's maker, model and firmware stand in the alternative name.
        let understood = if let ParsedExtension::BasicConstraints(constraints) = parsed {
            !constraints.ca
        } else if let ParsedExtension::KeyUsage(usage) = parsed {
            usage.key_encipherment()
        } else {
            use ParsedExtension::{CertificatePolicies, ExtendedKeyUsage, SubjectAlternativeName};
            matches!(parsed, ExtendedKeyUsage(_) | SubjectAlternativeName(_) | CertificatePolicies(_))
        };
        if extension.critical && !understood {
            return Err(not_understood(certificate));
        }
    }
    let (_, kind) = accept(certificate.public_key().raw)
        .map_err(|e| broken("the endorsement key is none that can be challenged").because(e))?;
    if kind == KeyKind::Rsa2048 {
        return Ok(());
    }
    Err(Error::new(Kind::Unsupported, format!("the endorsement key is {kind}, and RSA 2048 is what is challenged"))
        .hint("each TPM 2.0 has one of RSA 2048; `signet attest endorsement` writes its certificate"))
}

fn not_understood(certificate: &X509Certificate<'_>) -> Error {
    broken(format!("the certificate of {} has a critical extension that is not understood", certificate.subject()))
}

/// What a TPM is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    format: String,
    /// The content of TPM2B_ID_OBJECT.
    pub credential: Base64Bytes,
    /// The content of TPM2B_ENCRYPTED_SECRET.
    pub seed: Base64Bytes,
}

/// What whoever challenged keeps to himself.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    format: String,
    secret: String,
    signer: Base64Bytes,
    endorsement: String,
    root: String,
}

/// What a TPM answered: the secret of the challenge.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    format: String,
    secret: String,
}

/// An attestation key that answered: what a verifier takes from then on.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    format: String,
    signer: Base64Bytes,
    /// SHA-256 of the endorsement certificate.
    pub endorsement: String,
    /// The root that its chain ended at.
    pub root: String,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("endorsement", &self.endorsement).finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Challenge {
    /// Asks whether the attestation key of that public area is in the TPM of that endorsement key.
    ///
    /// # Errors
    /// [`Kind::DoesNotOpen`] where the area is no attestation key's, [`Kind::Internal`] for a defect.
    pub fn new(endorsement: &Endorsement, signer: &[u8]) -> Result<(Self, Kept)> {
        tpm::attestation_key(signer)?;
        let (mut secret, mut seed) = (Zeroizing::new([0; SECRET_BYTES]), Zeroizing::new([0; 32]));
        for bytes in [&mut secret, &mut seed] {
            getrandom::fill(bytes.as_mut_slice()).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        }
        let (credential, seed) = make_credential(&endorsement.key, &tpm::name(signer), secret.as_slice(), &seed)
            .map_err(|what| Error::internal(format!("a credential: {what}")))?;
        let kept = Kept {
            format: SECRET.to_owned(),
            secret: hex::encode(secret.as_slice()),
            signer: Base64Bytes(signer.to_vec()),
            endorsement: hex::encode(endorsement.fingerprint()),
            root: endorsement.root.clone(),
        };
        Ok((Self { format: CHALLENGE.to_owned(), credential: Base64Bytes(credential), seed: Base64Bytes(seed) }, kept))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        read(bytes, "challenge", |one: &Self| one.format == CHALLENGE)
    }
}

impl Answer {
    /// What the TPM gave.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self { format: ANSWER.to_owned(), secret: hex::encode(secret) }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        read(bytes, "answer", |one: &Self| one.format == ANSWER)
    }
}

impl Kept {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        read(bytes, "secret of a challenge", |one: &Self| one.format == SECRET)
    }

    /// Compares an answer with what was asked.
    ///
    /// # Errors
    /// [`Kind::DoesNotOpen`] for another one.
    pub fn accept(self, answer: &Answer) -> Result<Trust> {
        let Self { secret, signer, endorsement, root, .. } = self;
        if secret.len() != 2 * SECRET_BYTES || !same(secret.as_bytes(), answer.secret.as_bytes()) {
            return Err(broken("the answer is not the secret of this challenge"));
        }
        Ok(Trust { format: TRUST.to_owned(), signer, endorsement, root })
    }
}

impl Trust {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        read(bytes, "trust", |one: &Self| one.format == TRUST)
    }

    /// The attestation key, and its Name.
    ///
    /// # Errors
    /// [`Kind::DoesNotOpen`] where the file holds no such key.
    pub fn attestation_key(&self) -> Result<(PublicKey, Vec<u8>)> {
        Ok((tpm::attestation_key(&self.signer.0)?, tpm::name(&self.signer.0)))
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8], what: &str, is: impl FnOnce(&T) -> bool) -> Result<T> {
    let none = || Error::new(Kind::Invalid, format!("the file is no {what} of signet attest"));
    let read = serde_json::from_slice(bytes).map_err(|e| none().because(e))?;
    if bytes.len() <= MAX_BYTES && is(&read) { Ok(read) } else { Err(none()) }
}

/// What TPM2_MakeCredential makes for an RSA key with a Name algorithm of SHA-256 and AES-128-CFB: the integrity value with the
/// encrypted credential, and the encrypted seed.
fn make_credential(
    key: &PublicKey,
    name: &[u8],
    secret: &[u8],
    seed: &[u8; 32],
) -> Result<(Vec<u8>, Vec<u8>), &'static str> {
    // "IDENTITY", with its zero.
    let public = PublicEncryptingKey::from_der(key.as_der()).map_err(|_| "the endorsement key")?;
    let public = OaepPublicEncryptingKey::new(public).map_err(|_| "the endorsement key")?;
    let mut encrypted = vec![0; public.ciphertext_size()];
    let encrypted = public
        .encrypt(&OAEP_SHA256_MGF1SHA256, seed, &mut encrypted, Some(b"IDENTITY\0"))
        .map_err(|_| "encrypting the seed")?
        .to_vec();
    // "symKey ≔ KDFa (ekNameAlg, seed, "STORAGE", name, NULL, bits)"
    let cipher = kdfa(seed, b"STORAGE\0", name, 128);
    let length = u16::try_from(secret.len()).map_err(|_| "the secret")?.to_be_bytes();
    let mut identity = [length.as_slice(), secret].concat();
    let cipher = UnboundCipherKey::new(&AES_128, cipher.get(..16).unwrap_or_default()).map_err(|_| "the cipher")?;
    let cipher = EncryptingKey::cfb128(cipher).map_err(|_| "the cipher")?;
    cipher
        .less_safe_encrypt(&mut identity, EncryptionContext::Iv128(FixedLength::from([0; 16])))
        .map_err(|_| "encrypting the secret")?;
    // "outerHMAC ≔ HMACekNameAlg (HMACkey, encIdentity || Name)"
    let outer = hmac::Key::new(hmac::HMAC_SHA256, kdfa(seed, b"INTEGRITY\0", &[], 256).as_slice());
    let tag = hmac::sign(&outer, &[identity.as_slice(), name].concat());
    let size = u16::try_from(tag.as_ref().len()).map_err(|_| "the integrity value")?.to_be_bytes();
    Ok(([size.as_slice(), tag.as_ref(), &identity].concat(), encrypted))
}

/// KDFa of at most 256 bits ([TPM 2.0 Library, Part 1, 11.4.10.2](https://trustedcomputinggroup.org/resource/tpm-library-specification/)):
/// "HMAC (K, [i] || Label || 00 || ContextU || ContextV || [L])".
fn kdfa(key: &[u8], label: &[u8], context: &[u8], bits: u32) -> Zeroizing<Vec<u8>> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let input = [1_u32.to_be_bytes().as_slice(), label, context, &bits.to_be_bytes()].concat();
    Zeroizing::new(hmac::sign(&key, &input).as_ref().to_vec())
}
