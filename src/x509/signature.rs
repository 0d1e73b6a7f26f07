//! Signatures on certificates and requests: their algorithm identifiers, and whether they are right.

use aws_lc_rs::signature::{self as lc, ParsedPublicKey, VerificationAlgorithm};
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};

use super::key::KeyKind;
use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, PublicKey, SignatureFormat};

const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const ECDSA_SHA384: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";
const ECDSA_SHA512: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04";
const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";
const RSA_SHA256: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";
const RSA_SHA384: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00";
const RSA_SHA512: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00";
/// Hash and MGF1 with the same hash, a salt as long as it.
const PSS_SHA256: &[u8] = b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
    \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
    \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
    \xa2\x03\x02\x01\x20";
const PSS_SHA384: &[u8] = b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
    \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
    \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x02\x05\x00\
    \xa2\x03\x02\x01\x30";
const PSS_SHA512: &[u8] = b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
    \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\
    \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x03\x05\x00\
    \xa2\x03\x02\x01\x40";

/// DER of the AlgorithmIdentifier of signatures by `algorithm`: no parameters for ECDSA
/// ([RFC 5758, 3.2](https://www.rfc-editor.org/rfc/rfc5758#section-3.2)) and Ed25519 ([RFC 8410, 3](https://www.rfc-editor.org/rfc/rfc8410#section-3)),
/// NULL for PKCS#1 ([RFC 4055, 5](https://www.rfc-editor.org/rfc/rfc4055#section-5)), all of them for PSS
/// ([RFC 4055, 3.1](https://www.rfc-editor.org/rfc/rfc4055#section-3.1)).
///
/// # Errors
/// [`Kind::Unsupported`] for an algorithm that signs no certificates.
pub fn algorithm_identifier(algorithm: Algorithm) -> Result<&'static [u8]> {
    match algorithm {
        Algorithm::EcdsaP256 => Ok(ECDSA_SHA256),
        Algorithm::EcdsaP384 => Ok(ECDSA_SHA384),
        Algorithm::EcdsaP521 => Ok(ECDSA_SHA512),
        Algorithm::Ed25519 => Ok(ED25519),
        Algorithm::Rsa2048Pkcs1 | Algorithm::Rsa3072Pkcs1 | Algorithm::Rsa4096Pkcs1 => Ok(RSA_SHA256),
        Algorithm::Rsa2048Pss | Algorithm::Rsa3072Pss | Algorithm::Rsa4096Pss => Ok(PSS_SHA256),
        Algorithm::MlDsa65 => Err(Error::new(Kind::Unsupported, format!("{algorithm} keys sign no certificates here"))
            .hint("take an algorithm of ECDSA, RSA or Ed25519 for an issuer")),
        Algorithm::HmacSha256
        | Algorithm::HmacSha384
        | Algorithm::HmacSha512
        | Algorithm::Aes256GcmDerived
        | Algorithm::Aes256Gcm
        | Algorithm::HpkeP256
        | Algorithm::MlKem768
        | Algorithm::Rsa2048Oaep
        | Algorithm::Rsa3072Oaep
        | Algorithm::Rsa4096Oaep => Err(Error::new(Kind::Unsupported, format!("{algorithm} makes no signatures"))),
    }
}

/// The judge of a signature whose AlgorithmIdentifier, in DER, is `identifier`, by a key of this kind.
fn judge(kind: KeyKind, identifier: &[u8]) -> Option<&'static dyn VerificationAlgorithm> {
    let judge: &'static dyn VerificationAlgorithm = match (kind, identifier) {
        (KeyKind::EcdsaP256, ECDSA_SHA256) => &lc::ECDSA_P256_SHA256_ASN1,
        (KeyKind::EcdsaP256, ECDSA_SHA384) => &lc::ECDSA_P256_SHA384_ASN1,
        (KeyKind::EcdsaP256, ECDSA_SHA512) => &lc::ECDSA_P256_SHA512_ASN1,
        (KeyKind::EcdsaP384, ECDSA_SHA256) => &lc::ECDSA_P384_SHA256_ASN1,
        (KeyKind::EcdsaP384, ECDSA_SHA384) => &lc::ECDSA_P384_SHA384_ASN1,
        (KeyKind::EcdsaP384, ECDSA_SHA512) => &lc::ECDSA_P384_SHA512_ASN1,
        (KeyKind::EcdsaP521, ECDSA_SHA256) => &lc::ECDSA_P521_SHA256_ASN1,
        (KeyKind::EcdsaP521, ECDSA_SHA384) => &lc::ECDSA_P521_SHA384_ASN1,
        (KeyKind::EcdsaP521, ECDSA_SHA512) => &lc::ECDSA_P521_SHA512_ASN1,
        (KeyKind::Ed25519, ED25519) => &lc::ED25519,
        (KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096, RSA_SHA256) => &lc::RSA_PKCS1_2048_8192_SHA256,
        (KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096, RSA_SHA384) => &lc::RSA_PKCS1_2048_8192_SHA384,
        (KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096, RSA_SHA512) => &lc::RSA_PKCS1_2048_8192_SHA512,
        (KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096, PSS_SHA256) => &lc::RSA_PSS_2048_8192_SHA256,
        (KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096, PSS_SHA384) => &lc::RSA_PSS_2048_8192_SHA384,
        (KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096, PSS_SHA512) => &lc::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    };
    Some(judge)
}

/// A signed structure of X.509 in its three parts: what was signed, by which algorithm, and the signature.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The bytes that were signed, as they came.
    pub body: &'a [u8],
    /// DER of the AlgorithmIdentifier.
    pub algorithm: &'a [u8],
    /// The content of the BIT STRING.
    pub signature: &'a [u8],
}

impl<'a> Signed<'a> {
    /// Takes a certificate, a request, a revocation list or a BasicOCSPResponse without responder's certificates apart.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what is not DER of that shape, or has bytes after its end.
    pub fn parse(der: &'a [u8]) -> Result<Self> {
        let split = || {
            let whole = AnyRef::from_der(der)?;
            whole.tag().assert_eq(Tag::Sequence)?;
            let mut reader = SliceReader::new(whole.value())?;
            let (body, algorithm) = (reader.tlv_bytes()?, reader.tlv_bytes()?);
            let signature = BitStringRef::decode(&mut reader)?;
            reader.finish()?;
            Ok((body, algorithm, signature))
        };
        let (body, algorithm, signature) = split().map_err(|e: der::Error| malformed().because(e))?;
        Ok(Self { body, algorithm, signature: signature.as_bytes().ok_or_else(malformed)? })
    }

    /// Verifies the signature over the bytes that came.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for an algorithm that is too weak or does not belong to this kind of key, [`Kind::Invalid`] for a
    /// signature that is not one of `key`.
    pub fn verify(&self, kind: KeyKind, key: &PublicKey) -> Result<()> {
        let judge = judge(kind, self.algorithm).ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("the signature's algorithm is none that a key of {kind} may use"))
                .hint("SHA-256, SHA-384 or SHA-512, with PKCS#1 or PSS (salt as long as the hash) for RSA keys")
        })?;
        ParsedPublicKey::new(judge, key.as_der())
            .ok()
            .filter(|key| key.verify_sig(self.body, self.signature).is_ok())
            .map(drop)
            .ok_or_else(|| Error::new(Kind::Invalid, "the signature is not one of this key"))
    }
}

fn malformed() -> Error {
    Error::new(Kind::Invalid, "not DER of a signed structure")
}

/// Puts body, algorithm and signature together. `raw` is the device's form of the signature, as in
/// [`SignatureFormat::Raw`].
///
/// # Errors
/// [`Kind::Invalid`] for a signature of another length than `algorithm` makes or a body that is not DER.
pub fn assemble(body: &[u8], algorithm: Algorithm, raw: &[u8]) -> Result<Vec<u8>> {
    let signature = SignatureFormat::Der.encode(algorithm, raw)?;
    let put = || {
        let body = AnyRef::from_der(body)?.to_der()?;
        let signature = BitStringRef::from_bytes(&signature)?.to_der()?;
        let parts = [&body, algorithm_identifier(algorithm).unwrap_or_default(), &signature].concat();
        AnyRef::new(Tag::Sequence, &parts)?.to_der()
    };
    algorithm_identifier(algorithm)?;
    put().map_err(|e: der::Error| malformed().because(e))
}
