//! The keys that can be certified: seven kinds, each with one form of SubjectPublicKeyInfo.

use der::Decode;
use der::asn1::ObjectIdentifier;
use spki::SubjectPublicKeyInfoRef;

use super::weak_key;
use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, Curve, PublicKey, Verifier, sha256, words};

words! {
    /// Type and size of a key.
    KeyKind: "kind of key" {
        /// NIST P-256.
        EcdsaP256 = "ecdsa-p256",
        /// NIST P-384.
        EcdsaP384 = "ecdsa-p384",
        /// NIST P-521.
        EcdsaP521 = "ecdsa-p521",
        /// Ed25519.
        Ed25519 = "ed25519",
        /// RSA with a modulus of 2048 bits.
        Rsa2048 = "rsa-2048",
        /// RSA with a modulus of 3072 bits.
        Rsa3072 = "rsa-3072",
        /// RSA with a modulus of 4096 bits.
        Rsa4096 = "rsa-4096",
    }
}

impl KeyKind {
    /// Whether it is an RSA key, which alone can transport others.
    #[must_use]
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096)
    }

    /// The usual algorithm of such keys: each curve with its own hash, RSA by PKCS#1 v1.5 with SHA-256.
    #[must_use]
    pub const fn algorithm(self) -> Algorithm {
        match self {
            Self::EcdsaP256 => Algorithm::EcdsaP256,
            Self::EcdsaP384 => Algorithm::EcdsaP384,
            Self::EcdsaP521 => Algorithm::EcdsaP521,
            Self::Ed25519 => Algorithm::Ed25519,
            Self::Rsa2048 => Algorithm::Rsa2048Pkcs1,
            Self::Rsa3072 => Algorithm::Rsa3072Pkcs1,
            Self::Rsa4096 => Algorithm::Rsa4096Pkcs1,
        }
    }

    /// The kind of a key that we hold ourselves.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] for an algorithm without public keys.
    pub fn of_algorithm(algorithm: Algorithm) -> Result<Self> {
        match algorithm {
            Algorithm::EcdsaP256 => Ok(Self::EcdsaP256),
            Algorithm::EcdsaP384 => Ok(Self::EcdsaP384),
            Algorithm::EcdsaP521 => Ok(Self::EcdsaP521),
            Algorithm::Ed25519 => Ok(Self::Ed25519),
            Algorithm::Rsa2048Pkcs1 | Algorithm::Rsa2048Pss => Ok(Self::Rsa2048),
            Algorithm::Rsa3072Pkcs1 | Algorithm::Rsa3072Pss => Ok(Self::Rsa3072),
            Algorithm::Rsa4096Pkcs1 | Algorithm::Rsa4096Pss => Ok(Self::Rsa4096),
            Algorithm::MlDsa65
            | Algorithm::HmacSha256
            | Algorithm::HmacSha384
            | Algorithm::HmacSha512
            | Algorithm::Aes256GcmDerived
            | Algorithm::Aes256Gcm
            | Algorithm::HpkeP256
            | Algorithm::MlKem768
            | Algorithm::Rsa2048Oaep
            | Algorithm::Rsa3072Oaep
            | Algorithm::Rsa4096Oaep => {
                Err(Error::new(Kind::Unsupported, format!("{algorithm} has no public keys that are certified")))
            }
        }
    }

    /// The kind of `key`, by its form alone.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what is not DER of one of the seven; [`Kind::Unsupported`] for other types and sizes.
    pub fn of(key: &PublicKey) -> Result<Self> {
        Ok(parse(key.as_der())?.kind)
    }
}

/// Reads the SubjectPublicKeyInfo of a stranger, strictly, and refuses keys that are known to be weak.
///
/// # Errors
/// As [`KeyKind::of`], and [`Kind::Invalid`] for a point outside its curve and for weak keys, with the reason.
pub fn accept(spki: &[u8]) -> Result<(PublicKey, KeyKind)> {
    let Parts { kind, bits, .. } = parse(spki)?;
    let key = PublicKey::from_der(spki.to_vec());
    if kind.is_rsa() {
        weak_key::rsa(&bits)?;
    } else if kind == KeyKind::Ed25519 {
        weak_key::ed25519(&bits)?;
    }
    // Points outside the curve, and whatever else the library that verifies does not take.
    Verifier::new(kind.algorithm(), &key)?;
    Ok((key, kind))
}

/// The identifier of a key: the first 160 bits of SHA-256 over the bytes of its BIT STRING
/// ([RFC 7093, 2, method 1](https://www.rfc-editor.org/rfc/rfc7093#section-2)), so that SHA-1 is used nowhere.
///
/// # Errors
/// [`Kind::Invalid`] where this is not an SPKI.
pub fn key_id(key: &PublicKey) -> Result<Vec<u8>> {
    let hash = sha256(&[&key.raw()?]);
    Ok(hash.into_iter().take(20).collect())
}

struct Parts {
    kind: KeyKind,
    bits: Vec<u8>,
}

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

fn parse(spki: &[u8]) -> Result<Parts> {
    let malformed =
        |e: der::Error| Error::new(Kind::Invalid, "the public key is not DER of a SubjectPublicKeyInfo").because(e);
    let info = SubjectPublicKeyInfoRef::from_der(spki).map_err(malformed)?;
    let bits = info.subject_public_key.as_bytes().ok_or_else(|| other_form("its bits are no bytes"))?;
    let (kind, one_form) = match info.algorithm.oid {
        EC_PUBLIC_KEY => {
            let curve = info.algorithm.parameters.and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
            let (kind, curve) = match curve.map(|oid| oid.to_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => (KeyKind::EcdsaP256, Curve::P256),
                Some("1.3.132.0.34") => (KeyKind::EcdsaP384, Curve::P384),
                Some("1.3.132.0.35") => (KeyKind::EcdsaP521, Curve::P521),
                Some(_) => return Err(unknown("another curve")),
                None => return Err(unknown("a curve without a name")),
            };
            if bits.len() == 1 {
                return Err(other_form("its point is that at infinity"));
            }
            (kind, PublicKey::ec(curve, bits).map_err(|_| other_form("its point is not in the uncompressed form"))?)
        }
        ED25519 => (KeyKind::Ed25519, PublicKey::ed25519(bits)?),
        RSA_ENCRYPTION => {
            let key =
                pkcs1::RsaPublicKeyRef::from_der(bits).map_err(|e| other_form("not an RSAPublicKey").because(e))?;
            let modulus = key.modulus.as_bytes();
            let top = modulus.first().map_or(0, |byte| byte.leading_zeros());
            let kind = match (modulus.len() * 8).saturating_sub(top as usize) {
                2048 => KeyKind::Rsa2048,
                3072 => KeyKind::Rsa3072,
                4096 => KeyKind::Rsa4096,
                size => return Err(unknown(&format!("{size} bits of RSA"))),
            };
            (kind, PublicKey::rsa(modulus, key.public_exponent.as_bytes())?)
        }
        RSA_PSS => {
            return Err(unknown("an RSA key bound to PSS")
                .hint("send it as rsaEncryption: the signature may be PSS all the same"));
        }
        _ => return Err(unknown("another type of key")),
    };
    if one_form.as_der() != spki {
        return Err(other_form("its parameters are not those of RFC 5480, RFC 8017 or RFC 8410"));
    }
    Ok(Parts { kind, bits: bits.to_vec() })
}

fn unknown(what: &str) -> Error {
    let known: Vec<_> = KeyKind::ALL.iter().map(|kind| kind.as_str()).collect();
    Error::new(Kind::Unsupported, format!("the public key is of {what}")).hint(format!("one of: {}", known.join(", ")))
}

fn other_form(why: &str) -> Error {
    Error::new(Kind::Invalid, format!("the public key is not in its one form: {why}"))
}
