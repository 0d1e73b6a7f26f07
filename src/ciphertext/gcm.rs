//! The ciphertext of `aes256-gcm`: the device encrypts all of it.
//!
//! ```text
//! header = label (24) || nonce (12)                                                                               36 bytes
//! sum    = SHA-256("signet gcm v1" || header || SHA-256(context) || plaintext)
//! blob   = header || AES-256-GCM(device key, nonce, sum (32) || plaintext, aad = header || SHA-256(context)) || tag (16)
//! ```
//!
//! * The nonce is drawn, 96 bits: so a key may seal 2^32 times and no more, and whoever asks the device counts.
//! * The tag is judged in the device, which nobody watches. The sum is judged here: a plaintext that came out otherwise than it
//!   went in, or for another label or context, is not released, whatever the device says of the tag.
//! * The nonce of twelve zeros is never drawn: by it the device shows that it has this key.
//! * A blob is 84 bytes longer than its plaintext and hides nothing of its length.

use super::{Label, MAX_PLAINTEXT, OpenFailure, check_length};
use crate::error::{Error, Result};
use crate::types::{Algorithm, CipherCall, Direction, KeyId, SecretBytes, Version, same, sha256};

/// How much longer a blob is than its plaintext.
pub const OVERHEAD: usize = Header::LEN + SUM + CipherCall::TAG;

const SUM_LABEL: &[u8] = b"signet gcm v1";
const SUM: usize = 32;

/// What stands before each ciphertext.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The key.
    pub key_id: KeyId,
    /// Its version.
    pub version: Version,
    /// Used once.
    pub nonce: [u8; CipherCall::NONCE],
}

impl Header {
    /// Its length in bytes.
    pub const LEN: usize = Label::LEN + CipherCall::NONCE;

    /// A header with a new nonce from the operating system's generator.
    ///
    /// # Errors
    /// `Internal` where the generator fails.
    pub fn fresh(key_id: KeyId, version: Version) -> Result<Self> {
        let mut nonce = [0; CipherCall::NONCE];
        getrandom::fill(&mut nonce).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        if nonce == [0; CipherCall::NONCE] {
            return Err(Error::internal("the generator of random bytes gives zeros"));
        }
        Ok(Self { key_id, version, nonce })
    }

    /// Reads the header of `blob`, and answers it with what follows. Nothing is authenticated yet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(blob: &[u8]) -> Result<(Self, &[u8]), OpenFailure> {
        let (Label { algorithm, key_id, version }, rest) = Label::parse(blob)?;
        if algorithm != Algorithm::Aes256Gcm {
            return Err(OpenFailure::WrongKeyOrContext);
        }
        let (nonce, rest) = rest.split_first_chunk().ok_or(OpenFailure::Truncated)?;
        Ok((Self { key_id, version, nonce: *nonce }, rest))
    }

    /// The bytes of the module's drawing.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { key_id, version, nonce } = self;
        let label = Label { algorithm: Algorithm::Aes256Gcm, key_id: *key_id, version: *version };
        [label.encode().as_slice(), nonce].concat()
    }
}

/// What the device is asked to seal `plaintext`.
///
/// # Errors
/// `Limit` past [`MAX_PLAINTEXT`].
pub fn to_seal(header: &Header, context_hash: &[u8; 32], plaintext: &[u8]) -> Result<Vec<u8>> {
    check_length(plaintext)?;
    let data = zeroize::Zeroizing::new([sum(header, context_hash, plaintext).as_slice(), plaintext].concat());
    Ok(ask(header, context_hash, &data, Direction::Encrypt))
}

/// The blob of what the device answered to [`to_seal`].
#[must_use]
pub fn blob(header: &Header, sealed: &[u8]) -> Vec<u8> {
    [header.encode().as_slice(), sealed].concat()
}

/// What the device is asked to open `blob`.
///
/// # Errors
/// What is wrong with it.
pub fn to_open(blob: &[u8], context_hash: &[u8; 32]) -> Result<Vec<u8>, OpenFailure> {
    let (header, sealed) = Header::parse(blob)?;
    match sealed.len().checked_sub(SUM + CipherCall::TAG) {
        None => Err(OpenFailure::Truncated),
        Some(length) if length > MAX_PLAINTEXT => Err(OpenFailure::TooLong),
        Some(_) => Ok(ask(&header, context_hash, sealed, Direction::Decrypt)),
    }
}

/// The plaintext in what the device answered to [`to_open`] for `blob`.
///
/// # Errors
/// `Damaged` where that is not what was sealed: the device let pass what it should not, or spoilt it.
pub fn open(opened: &SecretBytes, blob: &[u8], context_hash: &[u8; 32]) -> Result<SecretBytes, OpenFailure> {
    let (header, _) = Header::parse(blob)?;
    let (claimed, plaintext) = opened.expose().split_first_chunk::<SUM>().ok_or(OpenFailure::Damaged)?;
    if same(claimed, &sum(&header, context_hash, plaintext)) {
        Ok(SecretBytes::new(plaintext.to_vec()))
    } else {
        Err(OpenFailure::Damaged)
    }
}

fn sum(header: &Header, context_hash: &[u8; 32], plaintext: &[u8]) -> [u8; SUM] {
    sha256(&[SUM_LABEL, &header.encode(), context_hash, plaintext])
}

fn ask(header: &Header, context_hash: &[u8; 32], data: &[u8], direction: Direction) -> Vec<u8> {
    let aad = [header.encode().as_slice(), context_hash].concat();
    CipherCall { nonce: &header.nonce, aad: &aad, data }.encode(direction)
}
