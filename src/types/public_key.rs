//! Public keys: one form to keep (SubjectPublicKeyInfo), and the judge of signatures.

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::{self as lc, ParsedPublicKey};
use der::asn1::{AnyRef, BitString, BitStringRef, ObjectIdentifier};
use der::{Decode, Encode};
use serde::{Deserialize, Serialize};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};

use super::{Algorithm, Curve, Encapsulated, Hash, Role};
use crate::error::{Error, Kind, Result};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const ML_DSA_65: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.3.18");
const ML_KEM_768: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.4.2");

/// A public key as DER of SubjectPublicKeyInfo ([RFC 5280](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.7)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// A point `04 || X || Y` on `curve`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for another length or form; whether the point is on the curve is checked by [`Verifier::new`].
    pub fn ec(curve: Curve, point: &[u8]) -> Result<Self> {
        if point.len() != 1 + 2 * curve.size() || point.first() != Some(&4) {
            return Err(Error::new(Kind::Invalid, format!("not an uncompressed point of {curve}")));
        }
        let oid = curve_oid(curve);
        encode(EC_PUBLIC_KEY, Some(AnyRef::from(&oid)), point)
    }

    /// The 32 bytes of an Ed25519 key ([RFC 8410](https://www.rfc-editor.org/rfc/rfc8410#section-4)).
    ///
    /// # Errors
    /// [`Kind::Invalid`] for another length.
    pub fn ed25519(key: &[u8]) -> Result<Self> {
        if key.len() != 32 {
            return Err(Error::new(Kind::Invalid, "an Ed25519 public key has 32 bytes"));
        }
        encode(ED25519, None, key)
    }

    /// The 1,952 bytes of an ML-DSA-65 key ([RFC 9881](https://www.rfc-editor.org/rfc/rfc9881#section-4)).
    ///
    /// # Errors
    /// [`Kind::Invalid`] for another length.
    pub fn ml_dsa_65(key: &[u8]) -> Result<Self> {
        if key.len() != 1952 {
            return Err(Error::new(Kind::Invalid, "an ML-DSA-65 public key has 1952 bytes"));
        }
        encode(ML_DSA_65, None, key)
    }

    /// The 1,184 bytes of an ML-KEM-768 key ([RFC 9935](https://www.rfc-editor.org/rfc/rfc9935)).
    ///
    /// # Errors
    /// [`Kind::Invalid`] for another length; what is in them is checked by [`Encapsulated::to`].
    pub fn ml_kem_768(key: &[u8]) -> Result<Self> {
        if key.len() != 1184 {
            return Err(Error::new(Kind::Invalid, "an ML-KEM-768 public key has 1184 bytes"));
        }
        encode(ML_KEM_768, None, key)
    }

    /// An RSA key of big-endian modulus and exponent ([RFC 8017](https://www.rfc-editor.org/rfc/rfc8017#appendix-A.1.1)).
    ///
    /// # Errors
    /// [`Kind::Invalid`] where the numbers cannot be encoded.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self> {
        let key = pkcs1::RsaPublicKey {
            modulus: der::asn1::UintRef::new(modulus).map_err(malformed)?,
            public_exponent: der::asn1::UintRef::new(exponent).map_err(malformed)?,
        };
        encode(RSA_ENCRYPTION, Some(AnyRef::NULL), &key.to_der().map_err(malformed)?)
    }

    /// Modulus and exponent of an RSA key, big-endian and without leading zeros.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is none.
    pub fn rsa_numbers(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let raw = self.raw()?;
        let key = pkcs1::RsaPublicKeyRef::from_der(&raw).map_err(malformed)?;
        Ok((key.modulus.as_bytes().to_vec(), key.public_exponent.as_bytes().to_vec()))
    }

    /// Reads PEM with the label `PUBLIC KEY`; whoever uses the key judges it.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for anything else.
    pub fn from_pem(pem: &str) -> Result<Self> {
        let (label, der) = der::pem::decode_vec(pem.trim_ascii().as_bytes()).map_err(malformed)?;
        SubjectPublicKeyInfoRef::from_der(&der).map_err(malformed)?;
        if label == "PUBLIC KEY" { Ok(Self(der)) } else { Err(Error::new(Kind::Invalid, "this PEM is no public key")) }
    }

    /// Takes DER that was made by this type and kept; [`Verifier::new`] judges it before it is used.
    #[must_use]
    pub const fn from_der(der: Vec<u8>) -> Self {
        Self(der)
    }

    /// Whether this is a public key of `algorithm`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is of another type or size, or its point is not on the curve; [`Kind::Unsupported`] for an
    /// algorithm without public keys.
    pub fn check(&self, algorithm: Algorithm) -> Result<()> {
        match algorithm.role() {
            Role::Sign => Verifier::new(algorithm, self).map(drop),
            Role::Agree | Role::Decrypt | Role::Decapsulate => Encapsulated::to(algorithm, self).map(drop),
            Role::Mac | Role::Cipher => Err(Error::new(Kind::Unsupported, format!("{algorithm} has no public keys"))),
        }
    }

    /// The DER bytes.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.0
    }

    /// PEM with the label `PUBLIC KEY` ([RFC 7468](https://www.rfc-editor.org/rfc/rfc7468#section-13)).
    ///
    /// # Errors
    /// [`Kind::Internal`] where the encoder refuses.
    pub fn to_pem(&self) -> Result<String> {
        der::pem::encode_string("PUBLIC KEY", der::pem::LineEnding::LF, &self.0)
            .map_err(|e| Error::internal(format!("pem: {e}")))
    }

    /// The bytes within the BIT STRING: a point, the bytes of an Ed25519, ML-DSA or ML-KEM key, or an RSAPublicKey.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where this is not an SPKI.
    pub fn raw(&self) -> Result<Vec<u8>> {
        let info = SubjectPublicKeyInfo::<AnyRef<'_>, BitString>::from_der(&self.0).map_err(malformed)?;
        Ok(info.subject_public_key.raw_bytes().to_vec())
    }
}

fn curve_oid(curve: Curve) -> ObjectIdentifier {
    match curve {
        Curve::P256 => ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"),
        Curve::P384 => ObjectIdentifier::new_unwrap("1.3.132.0.34"),
        Curve::P521 => ObjectIdentifier::new_unwrap("1.3.132.0.35"),
    }
}

fn encode(oid: ObjectIdentifier, parameters: Option<AnyRef<'_>>, key: &[u8]) -> Result<PublicKey> {
    let info = SubjectPublicKeyInfoRef {
        algorithm: AlgorithmIdentifierRef { oid, parameters },
        subject_public_key: BitStringRef::from_bytes(key).map_err(malformed)?,
    };
    Ok(PublicKey(info.to_der().map_err(malformed)?))
}

fn malformed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(Kind::Invalid, "not a public key of a known form").because(error)
}

/// A signature that was verified, with all that it is a proof of. Only [`Verifier::prove`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    algorithm: Algorithm,
    key: PublicKey,
    /// What was signed: a digest by the algorithm's own hash, or the message where it has none.
    input: Vec<u8>,
    signature: Vec<u8>,
}

impl Verified {
    /// The signature in the raw form of the device.
    #[must_use]
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// As [`Self::signature`], where the proof is not asked for again.
    #[must_use]
    pub fn into_signature(self) -> Vec<u8> {
        self.signature
    }

    /// Whether it is one over that very message, by this key and algorithm: what verifying it again would answer.
    #[must_use]
    pub fn is_over(&self, message: &[u8], algorithm: Algorithm, key: &PublicKey) -> bool {
        let input = algorithm.hash().map(|hash| hash.digest(message));
        self.algorithm == algorithm && self.key == *key && self.input == input.as_deref().unwrap_or(message)
    }
}

/// A parsed public key with the one algorithm it may be used with. Parse once, verify often.
#[derive(Debug)]
pub struct Verifier {
    algorithm: Algorithm,
    key: PublicKey,
    der: Option<ParsedPublicKey>,
    raw: Option<ParsedPublicKey>,
}

impl Verifier {
    /// Parses `key` for `algorithm`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where the key is of another type or size, or its point is not on the curve;
    /// [`Kind::Unsupported`] for an algorithm without signatures.
    pub fn new(algorithm: Algorithm, key: &PublicKey) -> Result<Self> {
        type Judge = &'static dyn lc::VerificationAlgorithm;
        let (der, raw): (Option<Judge>, Option<Judge>) = match algorithm {
            Algorithm::EcdsaP256 => (Some(&lc::ECDSA_P256_SHA256_ASN1), Some(&lc::ECDSA_P256_SHA256_FIXED)),
            Algorithm::EcdsaP384 => (Some(&lc::ECDSA_P384_SHA384_ASN1), Some(&lc::ECDSA_P384_SHA384_FIXED)),
            Algorithm::EcdsaP521 => (Some(&lc::ECDSA_P521_SHA512_ASN1), Some(&lc::ECDSA_P521_SHA512_FIXED)),
            Algorithm::Ed25519 => (None, Some(&lc::ED25519)),
            Algorithm::MlDsa65 => (None, Some(&lc::ML_DSA_65)),
            Algorithm::Rsa2048Pkcs1 | Algorithm::Rsa3072Pkcs1 | Algorithm::Rsa4096Pkcs1 => {
                (None, Some(&lc::RSA_PKCS1_2048_8192_SHA256))
            }
            Algorithm::Rsa2048Pss | Algorithm::Rsa3072Pss | Algorithm::Rsa4096Pss => {
                (None, Some(&lc::RSA_PSS_2048_8192_SHA256))
            }
            Algorithm::HmacSha256
            | Algorithm::HmacSha384
            | Algorithm::HmacSha512
            | Algorithm::Aes256GcmDerived
            | Algorithm::Aes256Gcm
            | Algorithm::HpkeP256
            | Algorithm::MlKem768
            | Algorithm::Rsa2048Oaep
            | Algorithm::Rsa3072Oaep
            | Algorithm::Rsa4096Oaep => {
                return Err(Error::new(Kind::Unsupported, format!("{algorithm} makes no signatures")));
            }
        };
        let parse = |judge: Judge| {
            ParsedPublicKey::new(judge, key.as_der())
                .map_err(|e| Error::new(Kind::Invalid, format!("not a public key of {algorithm}")).because(e))
        };
        if let Some(bits) = algorithm.rsa_bits() {
            let raw = key.raw()?;
            let rsa = pkcs1::RsaPublicKeyRef::from_der(&raw).map_err(malformed)?;
            if rsa.modulus.as_bytes().len() * 8 != bits as usize {
                return Err(Error::new(Kind::Invalid, format!("not a modulus of {bits} bits")));
            }
        }
        // The library takes the bare bytes of such a key, too.
        if algorithm == Algorithm::MlDsa65 && PublicKey::ml_dsa_65(&key.raw()?)? != *key {
            return Err(Error::new(Kind::Invalid, format!("not a public key of {algorithm}")));
        }
        Ok(Self { algorithm, key: key.clone(), der: der.map(parse).transpose()?, raw: raw.map(parse).transpose()? })
    }

    /// The algorithm that decides what is hashed and how.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether `signature`, in the raw form of the device (P1363 for ECDSA), is one over `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.raw.as_ref().is_some_and(|key| key.verify_sig(message, signature).is_ok())
    }

    /// As [`Self::verifies`], for a digest by the algorithm's own hash.
    #[must_use]
    pub fn verifies_digest(&self, digest: &[u8], signature: &[u8]) -> bool {
        let imported = self.import(digest);
        let (Some(digest), Some(key)) = (imported, self.raw.as_ref()) else { return false };
        key.verify_digest_sig(&digest, signature).is_ok()
    }

    /// As [`Self::verifies`], for what a device signs: a digest by the algorithm's own hash, or the message where it has none. A
    /// right signature is a proof from then on.
    #[must_use]
    pub fn prove(&self, input: Vec<u8>, signature: Vec<u8>) -> Option<Verified> {
        let right = match self.algorithm.hash() {
            Some(_) => self.verifies_digest(&input, &signature),
            None => self.verifies(&input, &signature),
        };
        right.then(|| Verified { algorithm: self.algorithm, key: self.key.clone(), input, signature })
    }

    /// As [`Self::verifies`], for an ECDSA signature in DER ([RFC 3279](https://www.rfc-editor.org/rfc/rfc3279#section-2.2.3)).
    #[must_use]
    pub fn verifies_der(&self, message: &[u8], signature: &[u8]) -> bool {
        self.der.as_ref().is_some_and(|key| key.verify_sig(message, signature).is_ok())
    }

    /// As [`Self::verifies_digest`], for an ECDSA signature in DER.
    #[must_use]
    pub fn verifies_digest_der(&self, digest: &[u8], signature: &[u8]) -> bool {
        let imported = self.import(digest);
        let (Some(digest), Some(key)) = (imported, self.der.as_ref()) else { return false };
        key.verify_digest_sig(&digest, signature).is_ok()
    }

    fn import(&self, digest: &[u8]) -> Option<Digest> {
        let algorithm = match self.algorithm.hash()? {
            Hash::Sha256 => &aws_lc_rs::digest::SHA256,
            Hash::Sha384 => &aws_lc_rs::digest::SHA384,
            Hash::Sha512 => &aws_lc_rs::digest::SHA512,
        };
        Digest::import_less_safe(digest, algorithm).ok()
    }
}
