//! The forms of a signature. Devices answer raw bytes; some clients want DER, others a part of a JWS.
//!
//! ```text
//! raw   ECDSA: r || s, each as long as the curve's field (IEEE P1363); Ed25519: 64 bytes; ML-DSA-65: 3309 bytes;
//!       RSA: as long as the modulus
//! der   ECDSA: SEQUENCE { r INTEGER, s INTEGER }; the others have no DER of their own, and are as in X.509: the raw bytes
//! jws   base64url of raw, without padding: the third part of a compact JWS
//! ```
//!
//! Reading is strict, because a signature that has two spellings is two signatures to whoever stores or counts them: one DER,
//! minimal integers, nothing after the end, the length of the algorithm. Whether it is a *right* signature is for
//! [`super::Verifier`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::asn1::{AnyRef, UintRef};
use der::{Decode, Encode, Tag};

use super::{Algorithm, Curve, Role, SignatureFormat};
use crate::error::{Error, Kind, Result};

impl SignatureFormat {
    /// A device's signature in this form; the bytes of `jws` are ASCII.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a raw signature of another length than `algorithm` makes, [`Kind::Unsupported`] for an algorithm
    /// without signatures.
    pub fn encode(self, algorithm: Algorithm, raw: &[u8]) -> Result<Vec<u8>> {
        let raw = check_length(algorithm, raw)?;
        match (self, algorithm.curve()) {
            (Self::Raw, _) | (Self::Der, None) => Ok(raw.to_vec()),
            (Self::Der, Some(curve)) => to_der(curve, raw),
            (Self::Jws, _) => Ok(URL_SAFE_NO_PAD.encode(raw).into_bytes()),
        }
    }

    /// The raw bytes of a signature in this form.
    ///
    /// # Errors
    /// As [`Self::encode`], and [`Kind::Invalid`] for any other spelling than the one we make.
    pub fn decode(self, algorithm: Algorithm, signature: &[u8]) -> Result<Vec<u8>> {
        let raw = match (self, algorithm.curve()) {
            (Self::Raw, _) | (Self::Der, None) => signature.to_vec(),
            (Self::Der, Some(curve)) => from_der(curve, signature)?,
            (Self::Jws, _) => URL_SAFE_NO_PAD
                .decode(signature)
                .map_err(|e| Error::new(Kind::Invalid, "the signature is not base64url without padding").because(e))?,
        };
        check_length(algorithm, &raw)?;
        Ok(raw)
    }
}

/// The length of a raw signature, in bytes; `None` for an algorithm without signatures.
#[must_use]
pub fn raw_length(algorithm: Algorithm) -> Option<usize> {
    if algorithm.role() != Role::Sign {
        return None;
    }
    match (algorithm.curve(), algorithm.rsa_bits()) {
        (Some(curve), _) => Some(2 * curve.size()),
        (None, Some(bits)) => usize::try_from(bits / 8).ok(),
        (None, None) if algorithm == Algorithm::MlDsa65 => Some(3309),
        (None, None) => (algorithm == Algorithm::Ed25519).then_some(64),
    }
}

fn check_length(algorithm: Algorithm, raw: &[u8]) -> Result<&[u8]> {
    match raw_length(algorithm) {
        Some(length) if raw.len() == length => Ok(raw),
        Some(length) => Err(Error::new(Kind::Invalid, format!("a signature of {algorithm} has {length} bytes"))),
        None => Err(Error::new(Kind::Unsupported, format!("{algorithm} makes no signatures"))),
    }
}

fn to_der(curve: Curve, raw: &[u8]) -> Result<Vec<u8>> {
    let defect = |e: der::Error| Error::internal(format!("der of a signature: {e}"));
    let (r, s) = raw.split_at_checked(curve.size()).ok_or_else(not_der)?;
    let r = UintRef::new(r).and_then(|r| r.to_der()).map_err(defect)?;
    let s = UintRef::new(s).and_then(|s| s.to_der()).map_err(defect)?;
    AnyRef::new(Tag::Sequence, &[r, s].concat()).and_then(|both| both.to_der()).map_err(defect)
}

/// The decoder refuses integers that are negative or not minimal, other tags and lengths, and what follows the end.
fn from_der(curve: Curve, signature: &[u8]) -> Result<Vec<u8>> {
    let both = AnyRef::from_der(signature).map_err(|e| not_der().because(e))?;
    let numbers = both.sequence(|inner| Ok::<_, der::Error>((UintRef::decode(inner)?, UintRef::decode(inner)?)));
    let (r, s) = numbers.map_err(|e| not_der().because(e))?;
    let mut raw = Vec::with_capacity(2 * curve.size());
    for number in [r.as_bytes(), s.as_bytes()] {
        let missing = curve.size().checked_sub(number.len()).ok_or_else(not_der)?;
        raw.resize(raw.len() + missing, 0);
        raw.extend_from_slice(number);
    }
    Ok(raw)
}

fn not_der() -> Error {
    Error::new(Kind::Invalid, "not a DER signature of this algorithm")
}
