//! The ciphertext of `hpke-p256`: [RFC 9180](https://www.rfc-editor.org/rfc/rfc9180) in base mode, one message, with
//! DHKEM(P-256, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM.
//!
//! ```text
//! info = "signet hpke v1" || label
//! enc || ct = Seal(public key, info, aad = nothing, SHA-256(context) || plaintext)
//! blob = label (24) || enc (65) || ct (32 + n + 16)
//! ```
//!
//! * Whoever has the public key makes blobs: a blob says nothing of who made it.
//! * The context stands sealed before the plaintext, so every library serves that has `Seal` with `info` alone; and since the
//!   key depends on nothing but the pair of keys and the label, one blob has one key, one context and one plaintext, though
//!   AES-GCM does not commit to its key.
//! * To open one, the device agrees with `enc` on a secret; all that follows is done here. `enc` is looked at before: a point that
//!   is not on the curve would tell about the private key.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::{Label, MAX_PLAINTEXT, OpenFailure, check_length};
use crate::error::{Error, Result};
use crate::types::{Agreed, PublicKey, SecretBytes, is_point, same};

/// How much longer a blob is than its plaintext.
pub const OVERHEAD: usize = Label::LEN + Agreed::POINT + HASH + TAG;

const INFO: &[u8] = b"signet hpke v1";
const HASH: usize = 32;
const TAG: usize = 16;

/// "I2OSP(kem_id, 2)" of DHKEM(P-256, HKDF-SHA256), after "KEM".
const KEM: &[u8] = b"KEM\x00\x10";
/// "I2OSP(kem_id, 2), I2OSP(kdf_id, 2), I2OSP(aead_id, 2)", after "HPKE".
const SUITE: &[u8] = b"HPKE\x00\x10\x00\x01\x00\x02";

/// Seals `plaintext` for whoever holds the private half of `public`.
///
/// # Errors
/// `Limit` past [`MAX_PLAINTEXT`], `Invalid` for another public key than one of P-256.
pub fn seal(public: &PublicKey, label: &Label, context_hash: &[u8; HASH], plaintext: &[u8]) -> Result<Vec<u8>> {
    check_length(plaintext)?;
    let Agreed { point, secret } = Agreed::with(public)?;
    let label = label.encode();
    let (key, nonce) = schedule(&secret, &point, &public.raw()?, &[INFO, &label].concat()).ok_or_else(defect)?;
    // Room for all from the start: a vector that grows would leave a copy of the plaintext behind.
    let mut blob = Vec::with_capacity(OVERHEAD + plaintext.len());
    for part in [label.as_slice(), &point, context_hash, plaintext] {
        blob.extend_from_slice(part);
    }
    let body = blob.get_mut(Label::LEN + Agreed::POINT..).ok_or_else(defect)?;
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), body).map_err(|_| defect())?;
    blob.extend_from_slice(tag.as_ref());
    Ok(blob)
}

/// The point that the device must agree with to open `blob`.
///
/// # Errors
/// What is wrong with it.
pub fn point(blob: &[u8]) -> Result<&[u8], OpenFailure> {
    let (point, _) = parts(blob)?;
    if is_point(point) { Ok(point) } else { Err(OpenFailure::NoPoint) }
}

/// Opens `blob` with the secret that the device and [`point`] agree on.
///
/// # Errors
/// Why it does not open: for the auditor alone.
pub fn open(
    secret: &SecretBytes,
    public: &PublicKey,
    blob: &[u8],
    context_hash: &[u8; HASH],
) -> Result<SecretBytes, OpenFailure> {
    let (point, sealed) = parts(blob)?;
    let label = blob.get(..Label::LEN).ok_or(OpenFailure::Truncated)?;
    let public = public.raw().map_err(|_| OpenFailure::Damaged)?;
    let (key, nonce) = schedule(secret, point, &public, &[INFO, label].concat()).ok_or(OpenFailure::Damaged)?;
    let (ciphertext, tag) = sealed.split_at_checked(sealed.len() - TAG).ok_or(OpenFailure::Truncated)?;
    let mut opened = Zeroizing::new(vec![0; ciphertext.len()]);
    key.open_separate_gather(nonce, Aad::empty(), ciphertext, tag, &mut opened).map_err(|_| OpenFailure::Damaged)?;
    let (context, plaintext) = opened.split_at_checked(HASH).ok_or(OpenFailure::Truncated)?;
    if !same(context, context_hash) {
        return Err(OpenFailure::WrongKeyOrContext);
    }
    Ok(SecretBytes::new(plaintext.to_vec()))
}

/// `enc` and `ct`, of which the latter has at least a context and a tag.
fn parts(blob: &[u8]) -> Result<(&[u8], &[u8]), OpenFailure> {
    let (_, rest) = Label::parse(blob)?;
    let (point, sealed) = rest.split_at_checked(Agreed::POINT).ok_or(OpenFailure::Truncated)?;
    match sealed.len().checked_sub(HASH + TAG) {
        None => Err(OpenFailure::Truncated),
        Some(length) if length > MAX_PLAINTEXT => Err(OpenFailure::TooLong),
        Some(_) => Ok((point, sealed)),
    }
}

/// Key and nonce of the first message ([RFC 9180, 4.1](https://www.rfc-editor.org/rfc/rfc9180#section-4.1) from `dh` on, and
/// [5.1](https://www.rfc-editor.org/rfc/rfc9180#section-5.1) in base mode).
fn schedule(dh: &SecretBytes, enc: &[u8], public: &[u8], info: &[u8]) -> Option<(LessSafeKey, Nonce)> {
    let (key, nonce) = key_and_nonce(dh.expose(), enc, public, info)?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).ok()?);
    Some((key, Nonce::assume_unique_for_key(nonce)))
}

fn key_and_nonce(dh: &[u8], enc: &[u8], public: &[u8], info: &[u8]) -> Option<(Zeroizing<[u8; 32]>, [u8; NONCE_LEN])> {
    let shared = shared_secret(dh, enc, public)?;
    let id_hash = extract(SUITE, b"", b"psk_id_hash", b"");
    let info_hash = extract(SUITE, b"", b"info_hash", info);
    let context = [&[0], id_hash.as_slice(), info_hash.as_slice()].concat();
    let secret = extract(SUITE, shared.as_slice(), b"secret", b"");
    let nonce = expand(SUITE, &secret, b"base_nonce", &context)?;
    Some((expand(SUITE, &secret, b"key", &context)?, *nonce))
}

/// "ExtractAndExpand(dh, kem_context)", where "kem_context = concat(enc, pkRm)".
fn shared_secret(dh: &[u8], enc: &[u8], public: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let prk = extract(KEM, b"", b"eae_prk", dh);
    expand(KEM, &prk, b"shared_secret", &[enc, public].concat())
}

/// "LabeledExtract(salt, label, ikm) = Extract(salt, concat("HPKE-v1", suite_id, label, ikm))", and Extract is HMAC.
fn extract(suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, salt));
    for part in [b"HPKE-v1", suite, label, ikm] {
        mac.update(part);
    }
    let mut prk = Zeroizing::new([0; 32]);
    prk.copy_from_slice(mac.sign().as_ref());
    prk
}

/// "LabeledExpand(prk, label, info, L) = Expand(prk, concat(I2OSP(L, 2), "HPKE-v1", suite_id, label, info), L)".
fn expand<const L: usize>(suite: &[u8], prk: &[u8; 32], label: &[u8], info: &[u8]) -> Option<Zeroizing<[u8; L]>> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let length = u16::try_from(L).ok()?.to_be_bytes();
    let mut key = Zeroizing::new([0; L]);
    let parts = [length.as_slice(), b"HPKE-v1", suite, label, info];
    Prk::new_less_safe(HKDF_SHA256, prk).expand(&parts, Length(L)).ok()?.fill(key.as_mut_slice()).ok()?;
    Some(key)
}

fn defect() -> Error {
    Error::internal("a ciphertext cannot be sealed")
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        hex::decode(text).unwrap()
    }

    /// What the device answers.
    fn dh(private: &str, point: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let private = PrivateKey::from_private_key(&ECDH_P256, &bytes(private)).unwrap();
        let public = private.compute_public_key().unwrap().as_ref().to_vec();
        let secret = agree(&private, UnparsedPublicKey::new(&ECDH_P256, point), (), |secret| Ok(secret.to_vec()));
        (secret.unwrap(), public)
    }

    /// The KEM by [RFC 9180, A.3.1](https://www.rfc-editor.org/rfc/rfc9180#appendix-A.3.1).
    #[test]
    fn the_kem_is_that_of_the_rfc() {
        let enc = bytes(
            "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac98536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4",
        );
        let (secret, public) = dh("f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2", &enc);
        let shared = shared_secret(&secret, &enc, &public).unwrap();
        assert_eq!(hex::encode(*shared), "c0d26aeab536609a572b07695d933b589dcf363ff9d93c93adea537aeabb8cb8");
    }

    /// The whole suite by the vectors that go with RFC 9180 (test-vectors.json: mode 0, KEM 16, KDF 1, AEAD 2).
    #[test]
    fn the_suite_is_that_of_the_working_group() {
        let enc = bytes(
            "04c06b4f6bebc7bb495cb797ab753f911aff80aefb86fd8b6fcc35525f3ab5f03e0b21bd31a86c6048af3cb2d98e0d3bf01da5cc4c39ff5370d331a4f1f7d5a4e0",
        );
        let (secret, public) = dh("317f915db7bc629c48fe765587897e01e282d3e8445f79f27f65d031a88082b2", &enc);
        let shared = shared_secret(&secret, &enc, &public).unwrap();
        assert_eq!(hex::encode(*shared), "48893fecd82f7c3456af6a42d8f56325d21e08c10fa81299986aaff54cde7b49");
        let (key, nonce) = key_and_nonce(&secret, &enc, &public, b"Ode on a Grecian Urn").unwrap();
        assert_eq!(hex::encode(*key), "ee16802a936d5f544771131900ee6973d0551de9e852ece2ef34bf0d5f9e1d1d");
        assert_eq!(hex::encode(nonce), "9bc50980832a7b4b58c40161");
        let (key, nonce) = schedule(&SecretBytes::new(secret), &enc, &public, b"Ode on a Grecian Urn").unwrap();
        let mut message = b"Beauty is truth, truth beauty".to_vec();
        key.seal_in_place_append_tag(nonce, Aad::from(b"Count-0"), &mut message).unwrap();
        assert_eq!(
            hex::encode(message),
            "58c61a45059d0c5704560e9d88b564a8b63f1364b8d1fcb3c4c6ddc1d291742465e902cd216f8908da49f8f96f"
        );
    }
}
