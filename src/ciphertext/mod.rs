//! Ciphertexts, byte by byte: one file per algorithm. Pure: no device, no clock.
//!
//! ```text
//! label = magic "SE" (2) || format 1 (1) || algorithm (1) || key id (16) || version (4)          24 bytes, big-endian
//! blob  = label || what the algorithm makes of it
//! ```
//!
//! A label tells which key version opens the blob and how; each algorithm authenticates it. `docs/formats.md` tells other
//! implementations how to make and open blobs, `tests/vectors` has examples.

pub mod derived;
pub mod gcm;
pub mod hpke;
pub mod oaep;

use std::fmt;

use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, KeyId, PublicKey, Role, Version};

/// The longest plaintext, in bytes. Longer things are encrypted by the client under a data key.
pub const MAX_PLAINTEXT: usize = 64 * 1024;

const MAGIC: [u8; 2] = *b"SE";
const FORMAT: u8 = 1;
/// The numbers of the algorithms.
const NUMBERS: [(Algorithm, u8); 7] = [
    (Algorithm::Aes256GcmDerived, 1),
    (Algorithm::HpkeP256, 2),
    (Algorithm::Rsa2048Oaep, 3),
    (Algorithm::Rsa3072Oaep, 4),
    (Algorithm::Rsa4096Oaep, 5),
    (Algorithm::Aes256Gcm, 6),
    (Algorithm::MlKem768, 7),
];

/// What each blob begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// How it was made.
    pub algorithm: Algorithm,
    /// The key.
    pub key_id: KeyId,
    /// Its version.
    pub version: Version,
}

impl Label {
    /// Its length in bytes.
    pub const LEN: usize = 24;

    /// Reads the label of `blob`, and answers it with what follows. Nothing is authenticated yet: the label only tells which key
    /// to ask.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(blob: &[u8]) -> Result<(Self, &[u8]), OpenFailure> {
        let (magic, rest) = blob.split_first_chunk().ok_or(OpenFailure::Truncated)?;
        if *magic != MAGIC {
            return Err(OpenFailure::UnknownMagic);
        }
        let ([format, number], rest) = rest.split_first_chunk().ok_or(OpenFailure::Truncated)?;
        if *format != FORMAT {
            return Err(OpenFailure::UnknownFormat(*format));
        }
        let known = NUMBERS.iter().find(|(_, one)| one == number);
        let (algorithm, _) = known.ok_or(OpenFailure::UnknownAlgorithm(*number))?;
        let (key_id, rest) = rest.split_first_chunk().ok_or(OpenFailure::Truncated)?;
        let (version, rest) = rest.split_first_chunk().ok_or(OpenFailure::Truncated)?;
        let version = Version::new(u32::from_be_bytes(*version)).map_err(|_| OpenFailure::NoVersion)?;
        Ok((Self { algorithm: *algorithm, key_id: KeyId::from_bytes(*key_id), version }, rest))
    }

    /// The bytes of the module's drawing. An algorithm that wraps nothing has number 0, which nothing opens.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LEN] {
        let Self { algorithm, key_id, version } = self;
        let number = NUMBERS.iter().find(|(one, _)| one == algorithm).map_or(0, |(_, number)| *number);
        let [m, n] = MAGIC;
        let mut bytes = [0; Self::LEN];
        let parts = [&[m, n, FORMAT, number], key_id.as_bytes().as_slice(), &version.number().to_be_bytes()].concat();
        bytes.copy_from_slice(&parts);
        bytes
    }
}

/// Seals as whoever has the public key can.
///
/// # Errors
/// [`Kind::Limit`] for a plaintext that is too long, [`Kind::Invalid`] for a public key of another algorithm than the label's,
/// [`Kind::Unsupported`] for an algorithm that does not wrap by a public key.
pub fn seal_for(public: &PublicKey, label: &Label, context_hash: &[u8; 32], plaintext: &[u8]) -> Result<Vec<u8>> {
    match label.algorithm.role() {
        Role::Agree | Role::Decapsulate => hpke::seal(public, label, context_hash, plaintext),
        Role::Decrypt => oaep::seal(public, label, context_hash, plaintext),
        Role::Sign | Role::Mac | Role::Cipher => {
            Err(Error::new(Kind::Unsupported, format!("{} does not wrap by a public key", label.algorithm))
                .hint("make a key of hpke-p256"))
        }
    }
}

/// Refuses a plaintext that is too long.
///
/// # Errors
/// [`Kind::Limit`].
pub fn check_length(plaintext: &[u8]) -> Result<()> {
    if plaintext.len() <= MAX_PLAINTEXT {
        return Ok(());
    }
    Err(Error::new(Kind::Limit, format!("a plaintext has at most {MAX_PLAINTEXT} bytes"))
        .hint("encrypt the data with a data key, and wrap that: `signet file encrypt` does so"))
}

/// Why a blob does not open. For logs and the audit record; to the caller all of them are one answer, because the
/// difference would tell an attacker how far a forgery got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenFailure {
    /// It ends before its tag.
    Truncated,
    /// It is longer than anything that was sealed.
    TooLong,
    /// It does not start with our magic.
    UnknownMagic,
    /// A format that this program does not know.
    UnknownFormat(u8),
    /// An algorithm that this program does not know.
    UnknownAlgorithm(u8),
    /// Version 0, which no key has.
    NoVersion,
    /// What should be a point of the curve is none.
    NoPoint,
    /// It was made under another key or context, or its beginning was changed.
    WrongKeyOrContext,
    /// The tag does not hold: it was changed, or made for another key.
    Damaged,
}

impl fmt::Display for OpenFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("truncated"),
            Self::TooLong => f.write_str("too long"),
            Self::UnknownMagic => f.write_str("not a ciphertext of signet"),
            Self::UnknownFormat(format) => write!(f, "unknown format {format}"),
            Self::UnknownAlgorithm(algorithm) => write!(f, "unknown algorithm {algorithm}"),
            Self::NoVersion => f.write_str("key version 0"),
            Self::NoPoint => f.write_str("no point of the curve"),
            Self::WrongKeyOrContext => f.write_str("wrong key or context"),
            Self::Damaged => f.write_str("damaged"),
        }
    }
}

impl std::error::Error for OpenFailure {}

impl From<OpenFailure> for Error {
    fn from(reason: OpenFailure) -> Self {
        Self::new(Kind::DoesNotOpen, "the ciphertext does not open")
            .hint("give the context that it was wrapped with, and the ciphertext whole and unchanged")
            .because(reason)
    }
}
