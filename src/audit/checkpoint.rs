//! Signed heads: what the log was at one moment, in words that any transparency tool reads.
//!
//! A head is a [C2SP tlog-checkpoint](https://c2sp.org/tlog-checkpoint), which is a
//! [C2SP signed note](https://c2sp.org/signed-note):
//!
//! ```text
//! signet/5f0c2a41                                       origin: which log
//! 1204                                                  size: how many records
//! CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=          root of the Merkle tree over them
//!                                                       the text that is signed ends before this empty line
//! — signet/5f0c2a41 A2VkYzEwRQIhAK…                     base64(key id (4) || ECDSA P-256 signature in DER)
//! ```
//!
//! The signature is over SHA-256 of the text. The key id of an ECDSA key is not the usual hash over name and type:
//! "the key ID for these signatures is the truncated SHA-256 hash of the DER encoded public key in SPKI format"
//! ([signature type 0x02](https://c2sp.org/signed-note#signature-types)).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::merkle::Hash;
use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, Curve, PublicKey, Verifier, sha256};

/// Signs heads: the key of domain `log` in a device, which signs nothing else.
pub trait HeadSigner: Send + Sync {
    /// The ECDSA P-256 signature, in DER, over SHA-256 of `note`.
    fn sign<'a>(&'a self, note: &'a [u8]) -> Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send + 'a>>;

    /// The key that verifies it.
    fn public_key(&self) -> &PublicKey;
}

/// The name of a log: `signet/` and the id of the instance that writes it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin(Arc<str>);

impl Origin {
    const PREFIX: &str = "signet/";

    /// The origin of the log of `instance`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for an id that is empty, longer than 100 bytes, or has other than visible ASCII without `+`.
    pub fn of_instance(instance: &str) -> Result<Self> {
        // "Key names MUST be non-empty and MUST NOT contain any Unicode spaces or plus (U+002B) characters."
        let good = (1..=100).contains(&instance.len()) && instance.bytes().all(|c| c.is_ascii_graphic() && c != b'+');
        if good {
            Ok(Self(format!("{}{instance}", Self::PREFIX).into()))
        } else {
            Err(Error::new(Kind::Invalid, "not the id of an instance: 1 to 100 visible ASCII characters without '+'"))
        }
    }

    /// The origin as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A head, well-formed; whose signature it bears is for [`Self::is_signed_by`] to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    origin: Origin,
    size: u64,
    root: Hash,
    note: String,
    signatures: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// The most bytes of a note that are read.
    pub const MAX: usize = 16 * 1024;

    /// The text to sign.
    #[must_use]
    pub fn text(origin: &Origin, size: u64, root: &Hash) -> String {
        format!("{origin}\n{size}\n{}\n", BASE64.encode(root))
    }

    /// Signs the head of a log and checks the signature.
    ///
    /// # Errors
    /// The signer's own, or [`Kind::Internal`] where what it returned does not verify.
    pub async fn sign(origin: &Origin, size: u64, root: &Hash, signer: &dyn HeadSigner) -> Result<Self> {
        let text = Self::text(origin, size, root);
        let key = HeadKey::new(signer.public_key())?;
        let signature =
            signer.sign(text.as_bytes()).await.map_err(|e| e.context("signing the head of the audit log"))?;
        let line = BASE64.encode([&key.id, signature.as_slice()].concat());
        let head = Self::parse(&format!("{text}\n— {origin} {line}\n"))?;
        if head.is_signed_by(&key) {
            Ok(head)
        } else {
            Err(Error::internal("the device signed the head of the audit log, but its signature does not verify"))
        }
    }

    /// Reads a note.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is not a checkpoint of such a log.
    pub fn parse(note: &str) -> Result<Self> {
        Self::parse_parts(note).ok_or_else(|| Error::new(Kind::Invalid, "not a signed head of an audit log"))
    }

    fn parse_parts(note: &str) -> Option<Self> {
        let (text, signatures) = note.split_once("\n\n")?;
        let mut lines = text.split('\n');
        let origin = Origin::of_instance(lines.next()?.strip_prefix(Origin::PREFIX)?).ok()?;
        let digits = lines.next()?;
        let size: u64 = digits.parse().ok()?;
        let root: Hash = BASE64.decode(lines.next()?).ok()?.try_into().ok()?;
        // No extension lines: they "are not auditable by log monitors". The digits must be the only way to write the size.
        if lines.next().is_some() || digits != size.to_string() {
            return None;
        }
        let signatures = signatures.strip_suffix('\n')?.split('\n').map(signature).collect::<Option<_>>()?;
        Some(Self { origin, size, root, note: note.to_owned(), signatures })
    }

    /// Whether a signature by `key` in the name of the origin is on it and verifies.
    #[must_use]
    pub fn is_signed_by(&self, key: &HeadKey) -> bool {
        let text = Self::text(&self.origin, self.size, &self.root);
        self.signatures.iter().any(|(name, signature)| {
            *name == self.origin.as_str()
                && signature.strip_prefix(&key.id).is_some_and(|der| key.verifier.verifies_der(text.as_bytes(), der))
        })
    }

    /// Which log.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How many records.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The root over them.
    #[must_use]
    pub const fn root(&self) -> &Hash {
        &self.root
    }

    /// The whole note: text and signatures.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// The names and key ids of its signatures, as `name+id`.
    #[must_use]
    pub fn signers(&self) -> Vec<String> {
        let id = |signature: &[u8]| hex::encode(signature.get(..4).unwrap_or_default());
        self.signatures.iter().map(|(name, signature)| format!("{name}+{}", id(signature))).collect()
    }
}

/// `— name base64` as its name and bytes.
fn signature(line: &str) -> Option<(String, Vec<u8>)> {
    let (name, base64) = line.strip_prefix("— ")?.split_once(' ')?;
    let bytes = BASE64.decode(base64).ok()?;
    (!name.is_empty() && bytes.len() > 4).then(|| (name.to_owned(), bytes))
}

/// A public key to verify heads with.
#[derive(Debug)]
pub struct HeadKey {
    id: [u8; 4],
    verifier: Verifier,
}

impl HeadKey {
    /// Takes an ECDSA P-256 key.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for any other.
    pub fn new(key: &PublicKey) -> Result<Self> {
        let [a, b, c, d, ..] = sha256(&[key.as_der()]);
        let verifier = Verifier::new(Algorithm::EcdsaP256, key).map_err(|e| e.context("the key of the audit log"))?;
        Ok(Self { id: [a, b, c, d], verifier })
    }
}

/// Reads the PEM file of a log's public key, as `openssl` and [`PublicKey::to_pem`] write it.
///
/// # Errors
/// [`Kind::Invalid`] for anything but an ECDSA P-256 key.
pub fn public_key_from_pem(pem: &str) -> Result<PublicKey> {
    let parse = || {
        let (label, der) = der::pem::decode_vec(pem.as_bytes()).ok()?;
        let info: spki::SubjectPublicKeyInfoRef<'_> = der::Decode::from_der(&der).ok()?;
        let key = PublicKey::ec(Curve::P256, info.subject_public_key.as_bytes()?).ok()?;
        (label == "PUBLIC KEY" && key.as_der() == der).then_some(key)
    };
    parse().ok_or_else(|| {
        Error::new(Kind::Invalid, "not the PEM of an ECDSA P-256 public key")
            .hint("it starts with -----BEGIN PUBLIC KEY-----")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: &str = "signet/a1\n12\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n— signet/a1 AAECAwQF\n";

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let head = Head::parse(NOTE).unwrap();
        assert_eq!((head.origin().as_str(), head.size(), head.note()), ("signet/a1", 12, NOTE));
        assert_eq!(head.signers(), ["signet/a1+00010203"]);
        let two = format!("{NOTE}— witness.example/w BAECAwQF\n");
        assert_eq!(Head::parse(&two).unwrap().signers().len(), 2);
    }

    #[test]
    fn other_notes_are_refused() {
        let wrong = [
            ("signet/a1\n", "other/a1\n"),
            ("\n12\n", "\n012\n"),
            ("\n12\n", "\n+12\n"),
            ("\n12\n", "\n-1\n"),
            ("q2I=\n", "q2I=\nextension\n"),
            ("q2I=\n", "q2I\n"),
            ("Cs", ""),
            ("\n\n", "\n"),
            ("— ", "- "),
            ("AAECAwQF\n", "AAECAwQF"),
            ("AAECAwQF\n", "AAECAw==\n"),
            ("AAECAwQF\n", "AAECAwQF\n\n"),
        ];
        for (from, to) in wrong {
            let note = NOTE.replacen(from, to, 1);
            assert!(Head::parse(&note).is_err(), "{note}");
        }
    }

    #[test]
    fn origins_have_one_alphabet() {
        for bad in ["", "a b", "a+b", "ä", "a\n", &"x".repeat(101)] {
            assert!(Origin::of_instance(bad).is_err(), "{bad:?}");
        }
    }
}
