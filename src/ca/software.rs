//! Keys that are made outside any device: for profiles that say so, shown once and kept nowhere; and for the service's own
//! certificate. Erased from memory in either case.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature as lc;
use aws_lc_rs::signature::KeyPair;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::types::{PublicKey, SecretBytes};
use crate::x509::KeyKind;

/// A key pair in memory.
#[derive(Debug)]
pub struct SoftwareKey {
    /// The public half.
    pub public: PublicKey,
    /// The private half: PKCS #8 in PEM ([RFC 5958](https://www.rfc-editor.org/rfc/rfc5958), [RFC 7468, 10](https://www.rfc-editor.org/rfc/rfc7468#section-10)).
    pub pem: SecretBytes,
}

impl SoftwareKey {
    /// Makes a key of that kind.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] where the generator fails.
    pub fn generate(kind: KeyKind) -> Result<Self> {
        match kind {
            KeyKind::EcdsaP256 => ecdsa(&lc::ECDSA_P256_SHA256_ASN1_SIGNING),
            KeyKind::EcdsaP384 => ecdsa(&lc::ECDSA_P384_SHA384_ASN1_SIGNING),
            KeyKind::EcdsaP521 => ecdsa(&lc::ECDSA_P521_SHA512_ASN1_SIGNING),
            KeyKind::Ed25519 => {
                let pair = lc::Ed25519KeyPair::generate().map_err(failed)?;
                let private = pair.to_pkcs8v1().map_err(failed)?;
                Self::new(PublicKey::ed25519(pair.public_key().as_ref())?, private.as_ref())
            }
            KeyKind::Rsa2048 => rsa(KeySize::Rsa2048),
            KeyKind::Rsa3072 => rsa(KeySize::Rsa3072),
            KeyKind::Rsa4096 => rsa(KeySize::Rsa4096),
        }
    }

    fn new(public: PublicKey, private: &[u8]) -> Result<Self> {
        let pem = der::pem::encode_string("PRIVATE KEY", der::pem::LineEnding::LF, private)
            .map(Zeroizing::new)
            .map_err(|e| Error::internal(format!("pem: {e}")))?;
        Ok(Self { public, pem: SecretBytes::new(pem.as_bytes().to_vec()) })
    }
}

fn ecdsa(algorithm: &'static lc::EcdsaSigningAlgorithm) -> Result<SoftwareKey> {
    let pair = lc::EcdsaKeyPair::generate(algorithm).map_err(failed)?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
    let private = pair.to_pkcs8v1().map_err(failed)?;
    SoftwareKey::new(PublicKey::from_der(public.as_ref().to_vec()), private.as_ref())
}

fn rsa(size: KeySize) -> Result<SoftwareKey> {
    let pair = aws_lc_rs::rsa::KeyPair::generate(size).map_err(failed)?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(failed)?;
    let private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
    SoftwareKey::new(PublicKey::from_der(public.as_ref().to_vec()), private.as_ref())
}

fn failed(error: aws_lc_rs::error::Unspecified) -> Error {
    Error::internal(format!("a key could not be made: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_made_and_is_of_that_kind() {
        for kind in KeyKind::ALL {
            let key = SoftwareKey::generate(*kind).unwrap();
            assert_eq!(KeyKind::of(&key.public).unwrap(), *kind);
            assert!(key.pem.expose().starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
        }
    }
}
