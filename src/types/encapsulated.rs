//! A secret for whoever holds a private key: the half of it that needs no device.

use aws_lc_rs::kem::{EncapsulationKey, ML_KEM_768};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

use super::{Agreed, Algorithm, PublicKey, Role, SecretBytes};
use crate::error::{Error, Kind, Result};

/// A secret that was drawn for one use, and what tells it to the holder of the private key, and to nobody else.
#[derive(Debug)]
pub struct Encapsulated {
    /// A point for a key that agrees, a ciphertext of RSA-OAEP for one that decrypts, one of ML-KEM for one that decapsulates.
    pub sent: Vec<u8>,
    /// 32 bytes.
    pub secret: SecretBytes,
}

impl Encapsulated {
    /// The length of a secret in bytes.
    pub const SECRET: usize = 32;

    /// The length of what is sent to keys of `algorithm`, in bytes; `None` for those that find no secrets.
    #[must_use]
    pub const fn length(algorithm: Algorithm) -> Option<usize> {
        match (algorithm.role(), algorithm.rsa_bits()) {
            (Role::Agree, _) => Some(Agreed::POINT),
            (Role::Decapsulate, _) => Some(ML_KEM_768_CIPHERTEXT),
            (Role::Decrypt, Some(bits)) => Some(bits as usize / 8),
            (Role::Decrypt, None) | (Role::Sign | Role::Mac | Role::Cipher, _) => None,
        }
    }

    /// Draws a secret for the holder of the private half of `public`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a key of another type or size, [`Kind::Unsupported`] for an algorithm whose keys find no secrets,
    /// [`Kind::Internal`] where the generator fails.
    pub fn to(algorithm: Algorithm, public: &PublicKey) -> Result<Self> {
        match algorithm.role() {
            Role::Agree => Agreed::with(public).map(|Agreed { point, secret }| Self { sent: point.to_vec(), secret }),
            Role::Decrypt => encrypt(algorithm, public),
            Role::Decapsulate => encapsulate(algorithm, public),
            Role::Sign | Role::Mac | Role::Cipher => {
                Err(Error::new(Kind::Unsupported, format!("{algorithm} finds no secrets")))
            }
        }
    }
}

/// The length of a ciphertext of ML-KEM-768 ([FIPS 203, table 3](https://doi.org/10.6028/NIST.FIPS.203)).
const ML_KEM_768_CIPHERTEXT: usize = 1088;

/// ML-KEM.Encaps ([FIPS 203, 7.2](https://doi.org/10.6028/NIST.FIPS.203)), after the check of the key that stands there.
fn encapsulate(algorithm: Algorithm, public: &PublicKey) -> Result<Encapsulated> {
    let other = || Error::new(Kind::Invalid, format!("not a public key of {algorithm}"));
    let raw = public.raw()?;
    if PublicKey::ml_kem_768(&raw)? != *public {
        return Err(other());
    }
    let key = EncapsulationKey::new(&ML_KEM_768, &raw).map_err(|e| other().because(e))?;
    let (sent, secret) = key.encapsulate().map_err(|_| other())?;
    Ok(Encapsulated { sent: sent.as_ref().to_vec(), secret: SecretBytes::new(secret.as_ref().to_vec()) })
}

/// RSA-OAEP with SHA-256, MGF1 with SHA-256 and an empty label ([RFC 8017, 7.1.1](https://www.rfc-editor.org/rfc/rfc8017#section-7.1.1)).
fn encrypt(algorithm: Algorithm, public: &PublicKey) -> Result<Encapsulated> {
    let other = || Error::new(Kind::Invalid, format!("not a public key of {algorithm}"));
    let key = PublicEncryptingKey::from_der(public.as_der()).map_err(|e| other().because(e))?;
    if algorithm.rsa_bits().is_none_or(|bits| bits as usize != key.key_size_bits()) {
        return Err(other());
    }
    let mut secret = zeroize::Zeroizing::new(vec![0; Encapsulated::SECRET]);
    getrandom::fill(&mut secret).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| other())?;
    let mut sent = vec![0; key.ciphertext_size()];
    let failed = |_| Error::internal("RSA-OAEP failed");
    let length = key.encrypt(&OAEP_SHA256_MGF1SHA256, &secret, &mut sent, None).map_err(failed)?.len();
    sent.truncate(length);
    Ok(Encapsulated { sent, secret: SecretBytes::new(std::mem::take(&mut secret)) })
}
