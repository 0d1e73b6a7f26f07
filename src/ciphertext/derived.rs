//! The ciphertext of `aes256-gcm-derived`.
//!
//! ```text
//! header   = label (24) || salt (32)                                                                          56 bytes
//! ikm      = HMAC-SHA-256(device key, "signet wrap v1" || header || SHA-256(context))                the device's one call
//! ek || ck = HKDF-Expand-SHA-256(ikm, "enc", 32), HKDF-Expand-SHA-256(ikm, "commit", 32)
//! blob     = header || ck (32) || AES-256-GCM(ek, nonce 0, plaintext, aad = header || ck || SHA-256(context)) || tag (16)
//! ```
//!
//! The encoding of a context is drawn in [`crate::types::Context`].
//!
//! * The salt is fresh and 256 bits, so each `ek` seals one plaintext: the zero nonce is safe, with no limit on their number.
//! * `ck` commits to the key: AES-GCM alone lets somebody who knows two keys make one blob that opens under both. It is
//!   compared in constant time *before* anything is decrypted.
//! * A blob is 104 bytes longer than its plaintext and hides nothing of its length.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use zeroize::Zeroizing;

use super::{Label, MAX_PLAINTEXT, OpenFailure, check_length};
use crate::error::{Error, Result};
use crate::types::{Algorithm, KeyId, SecretBytes, Version, same};

/// How much longer a blob is than its plaintext.
pub const OVERHEAD: usize = Header::LEN + COMMITMENT + TAG;

/// The longest blob, in bytes.
pub const MAX_BLOB: usize = OVERHEAD + MAX_PLAINTEXT;

pub(super) const DEVICE_LABEL: &[u8] = b"signet wrap v1";
const COMMITMENT: usize = 32;
const TAG: usize = 16;

/// What stands before each ciphertext: which key version opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The key.
    pub key_id: KeyId,
    /// Its version.
    pub version: Version,
    /// What makes the key of this one blob differ from all others.
    pub salt: [u8; 32],
}

impl Header {
    /// Its length in bytes.
    pub const LEN: usize = 56;

    /// A header with a new salt from the operating system's generator.
    ///
    /// # Errors
    /// `Internal` where the generator fails.
    pub fn fresh(key_id: KeyId, version: Version) -> Result<Self> {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        Ok(Self { key_id, version, salt })
    }

    /// Reads the header of `blob`, and answers it with what follows. Nothing is authenticated yet: the header only tells
    /// which key to ask.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(blob: &[u8]) -> Result<(Self, &[u8]), OpenFailure> {
        let (Label { algorithm, key_id, version }, rest) = Label::parse(blob)?;
        if algorithm != Algorithm::Aes256GcmDerived {
            return Err(OpenFailure::WrongKeyOrContext);
        }
        let (salt, rest) = rest.split_first_chunk().ok_or(OpenFailure::Truncated)?;
        Ok((Self { key_id, version, salt: *salt }, rest))
    }

    /// The bytes of the module's drawing.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { key_id, version, salt } = self;
        let label = Label { algorithm: Algorithm::Aes256GcmDerived, key_id: *key_id, version: *version };
        [label.encode().as_slice(), salt].concat()
    }
}

/// What the device's HMAC is asked for; its answer is the `ikm` of [`seal`] and [`open`].
#[must_use]
pub fn device_input(header: &Header, context_hash: &[u8; 32]) -> Vec<u8> {
    [DEVICE_LABEL, &header.encode(), context_hash].concat()
}

/// Seals `plaintext` into a blob that starts with `header`.
///
/// # Errors
/// `Limit` past [`MAX_PLAINTEXT`].
pub fn seal(ikm: &[u8; 32], header: &Header, context_hash: &[u8; 32], plaintext: &[u8]) -> Result<Vec<u8>> {
    check_length(plaintext)?;
    seal_under(ikm, &header.encode(), context_hash, plaintext)
}

/// Seals behind any header; what is derived from `ikm` is used once.
pub(super) fn seal_under(ikm: &[u8; 32], header: &[u8], context_hash: &[u8; 32], plaintext: &[u8]) -> Result<Vec<u8>> {
    let Keys { encryption, commitment } = Keys::derive(ikm).ok_or_else(defect)?;
    let aad = Aad::from([header, &*commitment, context_hash].concat());
    // Room for all from the start: a vector that grows would leave a copy of the plaintext behind.
    let mut blob = Vec::with_capacity(header.len() + COMMITMENT + plaintext.len() + TAG);
    blob.extend_from_slice(header);
    blob.extend_from_slice(&*commitment);
    blob.extend_from_slice(plaintext);
    let body = blob.get_mut(header.len() + COMMITMENT..).ok_or_else(defect)?;
    let tag = encryption.seal_in_place_separate_tag(zero_nonce(), aad, body).map_err(|_| defect())?;
    blob.extend_from_slice(tag.as_ref());
    Ok(blob)
}

/// Opens `blob` with the device's answer to [`device_input`] for its header.
///
/// # Errors
/// Why it does not open: for the auditor alone. The caller reads `DoesNotOpen`, whatever it was.
pub fn open(ikm: &[u8; 32], blob: &[u8], context_hash: &[u8; 32]) -> Result<SecretBytes, OpenFailure> {
    Header::parse(blob)?;
    open_under(ikm, blob, Header::LEN, context_hash)
}

/// Opens what stands behind a header of that length.
pub(super) fn open_under(
    ikm: &[u8; 32],
    blob: &[u8],
    header: usize,
    context_hash: &[u8; 32],
) -> Result<SecretBytes, OpenFailure> {
    let rest = blob.get(header..).ok_or(OpenFailure::Truncated)?;
    let (claimed, body) = rest.split_at_checked(COMMITMENT).ok_or(OpenFailure::Truncated)?;
    let length = body.len().checked_sub(TAG).ok_or(OpenFailure::Truncated)?;
    if length > MAX_PLAINTEXT {
        return Err(OpenFailure::TooLong);
    }
    let Keys { encryption, commitment } = Keys::derive(ikm).ok_or(OpenFailure::Damaged)?;
    if !same(claimed, &*commitment) {
        return Err(OpenFailure::WrongKeyOrContext);
    }
    let bound = blob.get(..header + COMMITMENT).ok_or(OpenFailure::Truncated)?;
    let aad = Aad::from([bound, context_hash].concat());
    let (ciphertext, tag) = body.split_at_checked(length).ok_or(OpenFailure::Truncated)?;
    let mut plaintext = Zeroizing::new(vec![0; length]);
    encryption
        .open_separate_gather(zero_nonce(), aad, ciphertext, tag, &mut plaintext)
        .map_err(|_| OpenFailure::Damaged)?;
    Ok(SecretBytes::new(std::mem::take(&mut plaintext)))
}

/// What is derived from the device's answer for one blob.
struct Keys {
    encryption: LessSafeKey,
    commitment: Zeroizing<[u8; COMMITMENT]>,
}

impl Keys {
    fn derive(ikm: &[u8; 32]) -> Option<Self> {
        let prk = Prk::new_less_safe(HKDF_SHA256, ikm);
        let encryption = expand(&prk, b"enc")?;
        let encryption = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, encryption.as_slice()).ok()?);
        Some(Self { encryption, commitment: expand(&prk, b"commit")? })
    }
}

fn expand(prk: &Prk, label: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    struct Length;
    impl KeyType for Length {
        fn len(&self) -> usize {
            32
        }
    }
    let mut key = Zeroizing::new([0; 32]);
    prk.expand(&[label], Length).ok()?.fill(key.as_mut_slice()).ok()?;
    Some(key)
}

/// Safe because no key seals twice.
fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn defect() -> Error {
    Error::internal("a ciphertext cannot be sealed")
}
