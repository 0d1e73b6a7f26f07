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
//! — signet/5f0c2a41 A2VkYzEwRQIhAK…                     base64(key id (4) || ECDSA P-256 signature in DER), over SHA-256 of the text
//! — signet/5f0c2a41 0SkuCjyd5m6tWg…                     base64(key id (4) || Ed25519 signature (64)), where a device keeps such a key
//! ```
//!
//! The key id of an ECDSA key is not the usual hash over name and type:
//! "the key ID for these signatures is the truncated SHA-256 hash of the DER encoded public key in SPKI format"
//! ([signature type 0x02](https://c2sp.org/signed-note#signature-types)). That of the Ed25519 key (type 0x01) is. A log that has both
//! keys signs each head with both, or not at all.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::merkle::Hash;
use super::note::Signature;
use crate::error::{Error, Kind, Result};
use crate::types::{Curve, NoteKey, PublicKey};

/// Signs heads: the key of domain `log` in a device, which signs nothing else.
pub trait HeadSigner: Send + Sync {
    /// The signature over `note`: of an ECDSA P-256 key in DER, over its SHA-256; of an Ed25519 key its 64 bytes.
    fn sign<'a>(&'a self, note: &'a [u8]) -> Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send + 'a>>;

    /// The key that verifies it.
    fn public_key(&self) -> &PublicKey;

    /// The second key of the log, where it has one.
    fn second(&self) -> Option<&dyn HeadSigner> {
        None
    }
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

    /// Signs the head of a log with all its keys, at the same time, and checks the signatures.
    ///
    /// # Errors
    /// The signers' own, or [`Kind::Internal`] where what one returned does not verify.
    pub async fn sign(origin: &Origin, size: u64, root: &Hash, signer: &dyn HeadSigner) -> Result<Self> {
        let text = Self::text(origin, size, root);
        let signers: Vec<_> = [Some(signer), signer.second()].into_iter().flatten().collect();
        let keys = HeadKeys::new(signers.iter().map(|one| one.public_key()))?;
        let signatures = futures_util::future::try_join_all(signers.iter().map(|one| one.sign(text.as_bytes()))).await;
        let signatures = signatures.map_err(|e| e.context("signing the head of the audit log"))?;
        let lines =
            keys.0.iter().zip(&signatures).map(|(key, one)| Signature::line(&key.for_log(origin.as_str()), one));
        let head = Self::parse(&format!("{text}\n{}", lines.collect::<String>()))?;
        match head.flaw(&keys) {
            None => Ok(head),
            Some(flaw) => Err(Error::internal(format!("the device signed the head of the audit log, which {flaw}"))),
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

    /// Whether each of `keys` signed it.
    #[must_use]
    pub fn is_signed_by(&self, keys: &HeadKeys) -> bool {
        self.flaw(keys).is_none()
    }

    /// What it lacks to be signed by each of `keys`, as the rest of a sentence about it.
    pub(super) fn flaw(&self, keys: &HeadKeys) -> Option<String> {
        keys.0.iter().find_map(|key| self.mark(key).flaw(key))
    }

    /// As [`Self::flaw`], of a head that may be older than one of the keys: one signature is enough, but none may be wrong.
    pub(super) fn flaw_of_older(&self, keys: &HeadKeys) -> Option<String> {
        let missing = |key: &&NoteKey| self.mark(key) == Mark::Missing;
        let all = keys.0.iter().all(|key| missing(&key));
        keys.0.iter().filter(|key| all || !missing(key)).find_map(|key| self.mark(key).flaw(key))
    }

    /// What it bears of a key of its log.
    pub(super) fn mark(&self, key: &NoteKey) -> Mark {
        let (text, key) = (Self::text(&self.origin, self.size, &self.root), key.for_log(self.origin.as_str()));
        let mut mark = Mark::Missing;
        for (name, bytes) in &self.signatures {
            let Some(signature) = bytes.strip_prefix(&key.id()).filter(|_| *name == key.name()) else { continue };
            if !key.verifies(&text, signature) {
                return Mark::Wrong;
            }
            mark = Mark::Right;
        }
        mark
    }

    /// The ids of the keys of its log that it bears signatures of, right or wrong.
    pub(super) fn ids(&self) -> impl Iterator<Item = [u8; 4]> {
        let own = self.signatures.iter().filter(|(name, _)| *name == self.origin.as_str());
        own.filter_map(|(_, bytes)| bytes.first_chunk().copied())
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

/// What a head bears of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// A signature that verifies.
    Right,
    /// A signature that does not, whatever else is there.
    Wrong,
    /// Nothing.
    Missing,
}

impl Mark {
    /// What is wrong with the head, as the rest of a sentence about it.
    pub(super) fn flaw(self, key: &NoteKey) -> Option<String> {
        let how = match self {
            Self::Right => return None,
            Self::Wrong => "wrong",
            Self::Missing => "missing",
        };
        Some(format!("is not signed by the key of this log: its {} signature is {how}", key.algorithm()))
    }
}

/// The public keys that the heads of a log are verified with: that of ECDSA P-256, that of Ed25519, or both.
#[derive(Clone, Debug)]
pub struct HeadKeys(Vec<NoteKey>);

impl HeadKeys {
    /// Takes the keys of one log, at least one.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for keys of other kinds, and for none.
    pub fn new<'k>(keys: impl IntoIterator<Item = &'k PublicKey>) -> Result<Self> {
        Self::given(keys)?.ok_or_else(|| Error::new(Kind::Invalid, "a log has at least one key"))
    }

    /// As [`Self::new`]; `None` where none is given, so that signatures are not checked.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for keys of other kinds.
    pub fn given<'k>(keys: impl IntoIterator<Item = &'k PublicKey>) -> Result<Option<Self>> {
        // The origin comes with the head.
        let keys = keys.into_iter().map(|key| NoteKey::of_log(Origin::PREFIX, key)).collect::<Result<Vec<_>>>();
        let keys = keys.map_err(|e| e.context("the key of the audit log"))?;
        Ok((!keys.is_empty()).then_some(Self(keys)))
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &NoteKey> {
        self.0.iter()
    }
}

impl fmt::Display for HeadKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(NoteKey::algorithm).collect();
        write!(f, "by {}", names.join(" and "))
    }
}

/// Reads the PEM of the ECDSA P-256 key of a log, as `openssl` and [`PublicKey::to_pem`] write it.
///
/// # Errors
/// [`Kind::Invalid`] for anything but one such key.
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

/// Reads the PEM of the keys of a log, one after the other: ECDSA P-256 and Ed25519.
///
/// # Errors
/// [`Kind::Invalid`] for anything but one or two such keys.
pub fn public_keys_from_pem(pem: &str) -> Result<Vec<PublicKey>> {
    const END: &str = "-----END PUBLIC KEY-----\n";
    let parse = |pem: &str| {
        let (label, der) = der::pem::decode_vec(pem.as_bytes()).ok()?;
        let key = PublicKey::from_der(der);
        (label == "PUBLIC KEY" && NoteKey::of_log(Origin::PREFIX, &key).is_ok()).then_some(key)
    };
    let whole = format!("{}\n", pem.trim_end());
    let keys: Option<Vec<_>> = whole.split_inclusive(END).map(parse).take(3).collect();
    keys.filter(|keys| keys.len() <= 2).ok_or_else(|| {
        Error::new(Kind::Invalid, "not the PEM of the keys of a log: ECDSA P-256, Ed25519, or both")
            .hint("`signet audit head --public-key` prints it; it starts with -----BEGIN PUBLIC KEY-----")
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
