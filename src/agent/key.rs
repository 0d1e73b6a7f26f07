//! The private key of a service: made here, in a file; or in the TPM of this machine, where the file is of use only there.

use std::fmt;
use std::str::FromStr;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Kind, Result};
use crate::types::{PublicKey, SecretBytes, words};

#[cfg(feature = "tpm")]
use crate::device::tpm::keyfile;

words! {
    /// The kind of a key that is made here.
    KeyType: "type of key" {
        /// NIST P-256.
        EcdsaP256 = "ecdsa-p256",
        /// NIST P-384.
        EcdsaP384 = "ecdsa-p384",
        /// Ed25519, which few browsers take, and no TPM.
        Ed25519 = "ed25519",
    }
}

impl KeyType {
    const fn signature(self) -> &'static SignatureAlgorithm {
        match self {
            Self::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::Ed25519 => &rcgen::PKCS_ED25519,
        }
    }
}

/// Where a key is made: `file`, `tpm` or `tpm:ADDRESS`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// In memory, for a file.
    #[default]
    File,
    /// In the TPM at this address.
    Tpm(String),
}

/// The TPM of a machine with Linux, behind its resource manager.
const USUAL_TPM: &str = "device:/dev/tpmrm0";

impl Home {
    /// That there can be such a key.
    pub(super) fn check(&self, kind: KeyType) -> Result<()> {
        let Self::Tpm(address) = self else { return Ok(()) };
        if kind == KeyType::Ed25519 {
            return Err(
                Error::new(Kind::Unsupported, "a TPM has no Ed25519").hint("take ecdsa-p256 as the type of key")
            );
        }
        in_tpm(address)
    }

    /// Makes a key.
    ///
    /// # Errors
    /// Those of the TPM; without its driver, `Unsupported`.
    pub(super) async fn make(&self, kind: KeyType) -> Result<Key> {
        match self {
            Self::File => {
                let made = KeyPair::generate_for(kind.signature());
                made.map(Key::File).map_err(|e| Error::internal("making a key").because(e))
            }
            Self::Tpm(address) => made_in_tpm(address.clone(), kind).await,
        }
    }
}

#[cfg(feature = "tpm")]
fn in_tpm(address: &str) -> Result<()> {
    keyfile::check(address).map_err(|fault| {
        let error = Error::new(Kind::Invalid, fault.text.clone());
        error.because(fault).hint("write tpm, tpm:device:/dev/tpmrm0 or tpm:swtpm:host=127.0.0.1,port=2321")
    })
}

#[cfg(feature = "tpm")]
async fn made_in_tpm(address: String, kind: KeyType) -> Result<Key> {
    use crate::types::Algorithm;
    let algorithm = match kind {
        KeyType::EcdsaP256 => Algorithm::EcdsaP256,
        KeyType::EcdsaP384 => Algorithm::EcdsaP384,
        KeyType::Ed25519 => return Err(Error::new(Kind::Unsupported, "a TPM has no Ed25519")),
    };
    let made = off_this_thread(move || keyfile::MadeKey::make(&address, algorithm).map_err(local)).await?;
    Ok(Key::Tpm(Box::new(made), kind.signature()))
}

/// It is the TPM of whoever reads this, so that what it said is for him.
#[cfg(feature = "tpm")]
fn local(fault: crate::device::Fault) -> Error {
    let text = match &fault.code {
        Some(code) => format!("the TPM of this machine: {} ({code})", fault.text),
        None => format!("the TPM of this machine: {}", fault.text),
    };
    let hint =
        fault.hint.clone().unwrap_or_else(|| "may this user open /dev/tpmrm0? It belongs to the group tss".to_owned());
    let kind = Error::from(fault).kind();
    Error::new(if kind == Kind::Internal { Kind::Unavailable } else { kind }, text).hint(hint)
}

/// Runs what blocks. A TPM that never answers costs this thread.
#[cfg(feature = "tpm")]
async fn off_this_thread<T: Send + 'static>(run: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
    match tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(run)).await {
        Ok(Ok(done)) => done,
        Ok(Err(e)) => Err(Error::internal("a call of the TPM").because(e)),
        Err(_) => Err(Error::new(Kind::Unavailable, "the TPM of this machine does not answer")),
    }
}

#[cfg(not(feature = "tpm"))]
fn in_tpm(_: &str) -> Result<()> {
    Err(Error::new(Kind::Unsupported, "this program was built without TPMs").hint("build it with --features tpm"))
}

#[cfg(not(feature = "tpm"))]
async fn made_in_tpm(address: String, _: KeyType) -> Result<Key> {
    Err(in_tpm(&address).err().unwrap_or_else(|| Error::internal("no TPM")))
}

impl FromStr for Home {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "file" => Ok(Self::File),
            None if text == "tpm" => Ok(Self::Tpm(USUAL_TPM.to_owned())),
            Some(("tpm", address)) => Ok(Self::Tpm(address.to_owned())),
            Some(_) | None => Err(Error::new(Kind::Invalid, "a key is made in a file, or in the TPM of this machine")
                .hint("write file, tpm, or tpm:device:/dev/tpmrm0")),
        }
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Tpm(address) => write!(f, "tpm:{address}"),
        }
    }
}

impl<'de> Deserialize<'de> for Home {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(|e: Error| serde::de::Error::custom(e.public()))
    }
}

/// A key that was made just now.
#[derive(Debug)]
pub(super) enum Key {
    File(KeyPair),
    #[cfg(feature = "tpm")]
    Tpm(Box<keyfile::MadeKey>, &'static SignatureAlgorithm),
}

impl Key {
    /// What stands in the file.
    pub(super) fn pem(&self) -> SecretBytes {
        match self {
            Self::File(pair) => SecretBytes::new(pair.serialize_pem().into_bytes()),
            #[cfg(feature = "tpm")]
            Self::Tpm(key, _) => SecretBytes::new(key.pem().as_bytes().to_vec()),
        }
    }

    /// A request in PEM that proves the key and says nothing else; and the key.
    pub(super) async fn request(self) -> Result<(Self, String)> {
        match self {
            Self::File(pair) => {
                let text = request(&pair)?;
                Ok((Self::File(pair), text))
            }
            #[cfg(feature = "tpm")]
            Self::Tpm(key, signature) => {
                off_this_thread(move || {
                    let text = request(&InTpm { key: &key, signature })?;
                    Ok((Self::Tpm(key, signature), text))
                })
                .await
            }
        }
    }
}

fn request(key: &impl SigningKey) -> Result<String> {
    let unmade = |e: rcgen::Error| Error::internal("making a request").because(e);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serialize_request(key).map_err(unmade)?.pem().map_err(unmade)
}

/// A key in the TPM in the words of the crate that writes the request.
#[cfg(feature = "tpm")]
struct InTpm<'a> {
    key: &'a keyfile::MadeKey,
    signature: &'static SignatureAlgorithm,
}

#[cfg(feature = "tpm")]
impl PublicKeyData for InTpm<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.key.point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.signature
    }
}

#[cfg(feature = "tpm")]
impl SigningKey for InTpm<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.key.sign(message).map_err(|fault| {
            tracing::error!(%fault, "the TPM of this machine does not sign");
            rcgen::Error::RemoteKeyError
        })
    }
}

/// The public key of the file of a key, and whether its private half is in a TPM; `None` for what is no such file.
pub(super) fn read(pem: &[u8]) -> Option<(PublicKey, bool)> {
    let pem = std::str::from_utf8(pem).ok()?;
    #[cfg(feature = "tpm")]
    if let Ok(public) = keyfile::public_key(pem) {
        return Some((public, true));
    }
    // The parser's own words are left out: they may quote the key.
    let pair = KeyPair::from_pem(pem).ok()?;
    Some((PublicKey::from_der(pair.subject_public_key_info()), false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_a_word_or_an_address() {
        assert_eq!("file".parse::<Home>().unwrap(), Home::File);
        assert_eq!("tpm".parse::<Home>().unwrap().to_string(), "tpm:device:/dev/tpmrm0");
        for bad in ["", "TPM", "tmp:x", "pkcs11:x", "file:x"] {
            assert_eq!(bad.parse::<Home>().unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
        let there: Home = "tpm:swtpm:host=127.0.0.1,port=2321".parse().unwrap();
        there.check(KeyType::EcdsaP384).unwrap();
        assert_eq!(there.check(KeyType::Ed25519).unwrap_err().kind(), Kind::Unsupported);
        let wrong: Home = "tpm:/dev/tpmrm0".parse().unwrap();
        let error = wrong.check(KeyType::EcdsaP256).unwrap_err();
        assert!(error.kind() == Kind::Invalid && error.mend().unwrap().contains("tpm:device:/dev/tpmrm0"), "{error}");
    }

    #[test]
    fn other_files_are_no_keys() {
        assert!(read(b"").is_none() && read(b"\xff").is_none());
        assert!(read(b"-----BEGIN TSS2 PRIVATE KEY-----\nMAA=\n-----END TSS2 PRIVATE KEY-----\n").is_none());
        let pair = KeyPair::generate().unwrap();
        let (public, tpm) = read(pair.serialize_pem().as_bytes()).unwrap();
        assert!(public.as_der() == pair.subject_public_key_info() && !tpm);
    }
}
