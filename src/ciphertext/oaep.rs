//! The ciphertext of `rsa2048-oaep-sha256`, `rsa3072-oaep-sha256` and `rsa4096-oaep-sha256`.
//!
//! ```text
//! header   = label (24) || RSA-OAEP(public key, seed)           the seed is random, 32 bytes; the label of OAEP is empty
//! ikm      = HMAC-SHA-256(seed, "signet wrap v1" || header || SHA-256(context))
//! blob     = header || ck (32) || AES-256-GCM(ek, nonce 0, plaintext, aad = header || ck || SHA-256(context)) || tag (16)
//! ```
//!
//! `ek` and `ck` come of `ikm` as in [`super::derived`], which this is with a seed in the place of the device's key. So label and context are bound,
//! and the commitment to the key as well. The device gives the seed back; whoever has the public key makes blobs.

use aws_lc_rs::hmac;

use super::derived::{DEVICE_LABEL, open_under, seal_under};
use super::{Label, OpenFailure, check_length};
use crate::error::{Error, Result};
use crate::types::{Algorithm, Encapsulated, PublicKey, Role, SecretBytes};

/// Seals `plaintext` for whoever holds the private half of `public`.
///
/// # Errors
/// `Limit` past [`super::MAX_PLAINTEXT`], `Invalid` for another public key than one of the label's algorithm.
pub fn seal(public: &PublicKey, label: &Label, context_hash: &[u8; 32], plaintext: &[u8]) -> Result<Vec<u8>> {
    check_length(plaintext)?;
    let Encapsulated { sent, secret } = Encapsulated::to(label.algorithm, public)?;
    let header = [label.encode().as_slice(), &sent].concat();
    let ikm = ikm(&secret, &header, context_hash).ok_or_else(|| Error::internal("a ciphertext cannot be sealed"))?;
    seal_under(&ikm, &header, context_hash, plaintext)
}

/// What the device must decrypt to open `blob`.
///
/// # Errors
/// What is wrong with it.
pub fn encrypted_seed(blob: &[u8]) -> Result<&[u8], OpenFailure> {
    let (Label { algorithm, .. }, rest) = Label::parse(blob)?;
    rest.get(..size(algorithm)?).ok_or(OpenFailure::Truncated)
}

/// Opens `blob` with the seed.
///
/// # Errors
/// Why it does not open: for the auditor alone.
pub fn open(seed: &SecretBytes, blob: &[u8], context_hash: &[u8; 32]) -> Result<SecretBytes, OpenFailure> {
    let (Label { algorithm, .. }, _) = Label::parse(blob)?;
    let length = Label::LEN + size(algorithm)?;
    let header = blob.get(..length).ok_or(OpenFailure::Truncated)?;
    let ikm = ikm(seed, header, context_hash).ok_or(OpenFailure::WrongKeyOrContext)?;
    open_under(&ikm, blob, length, context_hash)
}

/// The length of what RSA makes, in bytes.
fn size(algorithm: Algorithm) -> Result<usize, OpenFailure> {
    Encapsulated::length(algorithm).filter(|_| algorithm.role() == Role::Decrypt).ok_or(OpenFailure::WrongKeyOrContext)
}

fn ikm(seed: &SecretBytes, header: &[u8], context_hash: &[u8; 32]) -> Option<zeroize::Zeroizing<[u8; 32]>> {
    if seed.expose().len() != Encapsulated::SECRET {
        return None;
    }
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, seed.expose()));
    for part in [DEVICE_LABEL, header, context_hash] {
        mac.update(part);
    }
    let mut ikm = zeroize::Zeroizing::new([0; 32]);
    ikm.copy_from_slice(mac.sign().as_ref());
    Some(ikm)
}
