//! Evidence of a TPM: TPM2_Certify of the object by a key that signs nothing but what the TPM itself says.
//!
//! ```text
//! "evidence": {
//!   "kind": "tpm",
//!   "object": "…",        TPMT_PUBLIC of the key
//!   "attest": "…",        TPMS_ATTEST: that an object of that Name is loaded, with the binding as extraData
//!   "signature": "…",     ECDSA P-256 r || s over it
//!   "signer": "…",        TPMT_PUBLIC of the attestation key
//!   "parent": "…"         the Name of the storage key that both are under
//! }
//! ```
//!
//! The structures are of the [TPM 2.0 Library, Part 2](https://trustedcomputinggroup.org/resource/tpm-library-specification/):
//! 10.12.12 (TPMS_ATTEST), 12.2.4 (TPMT_PUBLIC), 8.3 (TPMA_OBJECT), and Part 1, 16 (Names). Only what our own templates make is read.
//! It rests on the TPM alone: the Name covers the attributes, and a restricted key signs no structure that came from outside.

use serde::{Deserialize, Serialize};

use super::{Claim, Report, broken};
use crate::error::Result;
use crate::types::{Algorithm, Base64Bytes, Curve, Hash, PcrValues, PublicKey, Residency, Role, Verifier, sha256};

/// `fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign`: nothing else of TPMA_OBJECT.
const KEY: u32 = 0x0004_0472;
/// What a key that is bound to registers of the machine does not have: it is used by its policy alone.
const USER_WITH_AUTH: u32 = 0x0000_0040;
/// As a key, with `decrypt` in the place of `sign`.
const OPENS: u32 = 0x0002_0472;
/// As a key, and `restricted`.
const SIGNER: u32 = 0x0005_0472;
/// The exponent of each RSA key, for which the TPM writes 0.
const RSA_EXPONENT: [u8; 3] = [1, 0, 1];

/// What a TPM certified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certified {
    /// TPMT_PUBLIC of the key.
    pub object: Base64Bytes,
    /// TPMS_ATTEST.
    pub attest: Base64Bytes,
    /// `r || s`.
    pub signature: Base64Bytes,
    /// TPMT_PUBLIC of the attestation key.
    pub signer: Base64Bytes,
    /// The Name of the storage key.
    pub parent: Base64Bytes,
}

impl Certified {
    pub(super) fn is_signed(&self, verifier: &Verifier, claim: &Claim, binding: &[u8; 32]) -> Result<()> {
        if !verifier.verifies(&self.attest.0, &self.signature.0) {
            return Err(broken("what the TPM certified is not signed by the attestation key"));
        }
        let attest = Attest::parse(&self.attest.0)?;
        if attest.extra != binding {
            return Err(broken("the TPM certified it for another claim"));
        }
        if attest.name != name(&self.object.0) {
            return Err(broken("the TPM certified another object than this one"));
        }
        let public = Area::parse(&self.object.0)?.public_key()?;
        if public.as_ref().map(PublicKey::as_der) != claim.public_key.as_ref().map(|bytes| bytes.0.as_slice()) {
            return Err(broken("the object is that of another public key"));
        }
        Ok(())
    }

    pub(super) fn judge(
        &self,
        claim: &Claim,
        key: &PublicKey,
        trusted: Option<&[u8]>,
        report: &mut Report,
    ) -> Result<()> {
        const TPM: &str = "the TPM";
        // 1. The object.
        let object = Area::parse(&self.object.0)?;
        let wanted = match claim.algorithm.role() {
            Role::Sign | Role::Mac => KEY,
            Role::Agree | Role::Decrypt => OPENS,
            Role::Cipher | Role::Decapsulate => {
                return Err(broken(format!("a TPM has no keys of {}", claim.algorithm)));
            }
        };
        let wanted = if claim.pcrs.is_some() { wanted & !USER_WITH_AUTH } else { wanted };
        if object.attributes != wanted {
            return Err(broken(format!(
                "the attributes of the object are {:#010x}, and should be {wanted:#010x}",
                object.attributes
            )));
        }
        let policy = claim.pcrs.as_ref().map(PcrValues::policy);
        if object.policy != policy.as_ref().map_or([].as_slice(), <[u8; 32]>::as_slice) {
            return Err(broken("the policy of the object is not that of the PCRs that are claimed"));
        }
        if Some(object.kind) != Scheme::of(claim.algorithm) {
            return Err(broken(format!("the object is no key of {}", claim.algorithm)));
        }
        if claim.residency != Residency::Wrapped {
            return Err(broken("a TPM has no resident keys"));
        }
        // 2. The attestation key.
        let signer = Area::parse(&self.signer.0)?;
        if !signer.is_attestation_key() {
            return Err(broken("the attestation key is none that signs only what its TPM says"));
        }
        if signer.public_key()?.as_ref() != Some(key) {
            return Err(broken("the public area of the attestation key is that of another one"));
        }
        let signer_name = name(&self.signer.0);
        // 3. Both stand under one storage key of the owner's hierarchy.
        let attest = Attest::parse(&self.attest.0)?;
        let above = qualified(&OWNER, &self.parent.0);
        if attest.qualified != qualified(&above, attest.name) || attest.signer != qualified(&above, &signer_name) {
            return Err(broken("the key and the attestation key are not under that storage key"));
        }
        report.fact("made", "in the TPM (sensitiveDataOrigin)", TPM);
        report.fact("kept", "as a blob that only this TPM loads (fixedTPM, fixedParent)", TPM);
        report.fact("does", format!("one thing, by the scheme of {}", claim.algorithm), TPM);
        if claim.public_key.is_some() {
            report.fact("public key", "it is the object's", TPM);
        }
        if let Some(pcrs) = &claim.pcrs {
            let bound = format!(
                "while the PCRs {} hold the values of the claim, and with its authorisation value",
                pcrs.registers()
            );
            report.fact("used", bound, TPM);
            report.unproven("what those values of PCRs stand for: compare them with a log of the boot that you trust");
        }
        report.fact("firmware", format!("{:016x}", attest.firmware), TPM);
        report.fact(
            "attestation key",
            "restricted: it signs nothing that came from outside the TPM",
            "its own public area",
        );
        match trusted {
            Some(trusted) if trusted == signer_name => {
                report.fact(
                    "TPM",
                    "the attestation key is in the TPM of the endorsement certificate",
                    "the challenge that it answered",
                );
                Ok(())
            }
            Some(_) => Err(broken("the attestation key is not the one that answered the challenge")),
            None => {
                report.unproven("that the attestation key is in a TPM: `signet attest challenge` finds out");
                Ok(())
            }
        }
    }
}

/// TPM_RH_OWNER, which is its own Name.
const OWNER: [u8; 4] = [0x40, 0, 0, 1];
const SHA256_ID: [u8; 2] = [0x00, 0x0b];

/// The Name of an object: the id of SHA-256, and the hash of its public area.
#[must_use]
pub fn name(area: &[u8]) -> Vec<u8> {
    [SHA256_ID.as_slice(), &sha256(&[area])].concat()
}

/// "QN_B ≔ H_B(QN_A || NAME_B)"
fn qualified(above: &[u8], name: &[u8]) -> Vec<u8> {
    [SHA256_ID.as_slice(), &sha256(&[above, name])].concat()
}

/// TPMS_ATTEST of TPM2_Certify.
#[derive(Debug, PartialEq, Eq)]
struct Attest<'a> {
    signer: &'a [u8],
    extra: &'a [u8],
    firmware: u64,
    name: &'a [u8],
    qualified: &'a [u8],
}

impl<'a> Attest<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        const GENERATED: [u8; 4] = *b"\xffTCG";
        const CERTIFY: [u8; 2] = [0x80, 0x17];
        /// Clock, resetCount, restartCount, safe.
        const CLOCK: usize = 8 + 4 + 4 + 1;
        let mut rest = Reader(bytes);
        let mut read = || {
            if rest.take(4)? != GENERATED || rest.take(2)? != CERTIFY {
                return None;
            }
            let (signer, extra) = (rest.sized()?, rest.sized()?);
            rest.take(CLOCK)?;
            let firmware = u64::from_be_bytes(rest.take(8)?.try_into().ok()?);
            let (name, qualified) = (rest.sized()?, rest.sized()?);
            rest.0.is_empty().then_some(Self { signer, extra, firmware, name, qualified })
        };
        read().ok_or_else(|| broken("what is signed is no TPMS_ATTEST of TPM2_Certify"))
    }
}

/// What a key is by its public area, but for its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Ecdsa(Curve, Hash),
    Ecdh(Curve, Hash),
    /// Modulus, PSS or PKCS#1, hash.
    Rsa(u32, bool, Hash),
    Oaep(u32, Hash),
    Hmac(Hash),
}

impl Scheme {
    /// None for what no TPM makes: each of its schemes has a hash.
    fn of(algorithm: Algorithm) -> Option<Self> {
        let hash = algorithm.hash()?;
        Some(match (algorithm.curve(), algorithm.rsa_bits()) {
            (Some(curve), _) if algorithm.role() == Role::Agree => Self::Ecdh(curve, hash),
            (Some(curve), _) => Self::Ecdsa(curve, hash),
            (None, Some(bits)) if algorithm.role() == Role::Decrypt => Self::Oaep(bits, hash),
            (None, Some(bits)) => Self::Rsa(bits, algorithm.is_pss(), hash),
            (None, None) => Self::Hmac(hash),
        })
    }
}

/// TPMT_PUBLIC of a key that our templates make.
#[derive(Debug, PartialEq, Eq)]
struct Area<'a> {
    attributes: u32,
    /// The digest of its policy; empty where it has none.
    policy: &'a [u8],
    kind: Scheme,
    /// X and Y, the modulus, or the digest of a secret.
    unique: (&'a [u8], &'a [u8]),
}

impl<'a> Area<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        const NULL: u16 = 0x0010;
        let mut rest = Reader(bytes);
        let mut read = || {
            let (kind, name_hash) = (rest.number()?, rest.take(2)?);
            let attributes = u32::from_be_bytes(rest.take(4)?.try_into().ok()?);
            let policy = rest.sized()?;
            if name_hash != SHA256_ID {
                return None;
            }
            let (kind, unique) = match kind {
                // TPM_ALG_ECC: symmetric, scheme, curve, kdf; a point.
                0x0023 => {
                    let (none, scheme, hash) = (rest.number()?, rest.number()?, rest.hash()?);
                    let (curve, kdf) = (rest.number()?, rest.number()?);
                    let curve = match curve {
                        3 => Curve::P256,
                        4 => Curve::P384,
                        5 => Curve::P521,
                        _ => return None,
                    };
                    if (none, kdf) != (NULL, NULL) {
                        return None;
                    }
                    let kind = match scheme {
                        0x0018 => Scheme::Ecdsa(curve, hash),
                        0x0019 => Scheme::Ecdh(curve, hash),
                        _ => return None,
                    };
                    (kind, (rest.sized()?, rest.sized()?))
                }
                // TPM_ALG_RSA: symmetric, scheme, bits, exponent; a modulus.
                0x0001 => {
                    let (none, scheme, hash) = (rest.number()?, rest.number()?, rest.hash()?);
                    let (bits, exponent) = (rest.number()?, rest.take(4)?);
                    let bits = u32::from(bits);
                    let kind = match scheme {
                        0x0014 => Scheme::Rsa(bits, false, hash),
                        0x0016 => Scheme::Rsa(bits, true, hash),
                        0x0017 => Scheme::Oaep(bits, hash),
                        _ => return None,
                    };
                    if none != NULL || exponent != [0; 4] {
                        return None;
                    }
                    (kind, (rest.sized()?, [].as_slice()))
                }
                // TPM_ALG_KEYEDHASH: HMAC; a digest.
                0x0008 => {
                    let (scheme, hash) = (rest.number()?, rest.hash()?);
                    if scheme != 0x0005 {
                        return None;
                    }
                    (Scheme::Hmac(hash), (rest.sized()?, [].as_slice()))
                }
                _ => return None,
            };
            rest.0.is_empty().then_some(Self { attributes, policy, kind, unique })
        };
        read().ok_or_else(|| broken("the object is no public area of a key that Signet makes"))
    }

    /// Whether such a key signs nothing but what its TPM says.
    fn is_attestation_key(&self) -> bool {
        let alike = self.attributes == SIGNER && Some(self.kind) == Scheme::of(Algorithm::EcdsaP256);
        alike && self.policy.is_empty()
    }

    fn public_key(&self) -> Result<Option<PublicKey>> {
        let (first, second) = self.unique;
        let key = match self.kind {
            Scheme::Ecdsa(curve, _) | Scheme::Ecdh(curve, _) => {
                let mut point = vec![4];
                for number in [first, second] {
                    let missing = curve
                        .size()
                        .checked_sub(number.len())
                        .ok_or_else(|| broken("the object has no point of its curve"))?;
                    point.resize(point.len() + missing, 0);
                    point.extend_from_slice(number);
                }
                PublicKey::ec(curve, &point)
            }
            Scheme::Rsa(..) | Scheme::Oaep(..) => PublicKey::rsa(first, &RSA_EXPONENT),
            Scheme::Hmac(_) => return Ok(None),
        };
        key.map(Some).map_err(|e| broken("the object has no public key").because(e))
    }
}

/// The public key of the attestation key whose TPMT_PUBLIC this is.
///
/// # Errors
/// `DoesNotOpen` for any other object.
pub fn attestation_key(area: &[u8]) -> Result<PublicKey> {
    let parsed = Area::parse(area)?;
    if !parsed.is_attestation_key() {
        return Err(broken("it is no attestation key of a TPM"));
    }
    parsed.public_key()?.ok_or_else(|| broken("it is no attestation key of a TPM"))
}

/// Bytes that are read from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        self.take(usize::from(count))
    }

    fn hash(&mut self) -> Option<Hash> {
        match self.number()? {
            0x000b => Some(Hash::Sha256),
            0x000c => Some(Hash::Sha384),
            0x000d => Some(Hash::Sha512),
            _ => None,
        }
    }
}
