//! The ciphertexts of `hpke-p256` and `ml-kem-768`: [RFC 9180](https://www.rfc-editor.org/rfc/rfc9180) in base mode, one message, with
//! HKDF-SHA256, AES-256-GCM, and as its KEM DHKEM(P-256, HKDF-SHA256) or ML-KEM-768
//! ([draft-ietf-hpke-pq](https://datatracker.ietf.org/doc/html/draft-ietf-hpke-pq-05#section-3)).
//!
//! ```text
//! info = "signet hpke v1" || label
//! enc || ct = Seal(public key, info, aad = nothing, SHA-256(context) || plaintext)
//! blob = label (24) || enc (65 or 1088) || ct (32 + n + 16)
//! ```
//!
//! * Whoever has the public key makes blobs: a blob says nothing of who made it.
//! * The context stands sealed before the plaintext, so every library serves that has `Seal` with `info` alone; and since the
//!   key depends on nothing but the pair of keys and the label, one blob has one key, one context and one plaintext, though
//!   AES-GCM does not commit to its key.
//! * To open one, the device finds a secret by `enc`; all that follows is done here. A point is looked at before: one that is not on the
//!   curve would tell about the private key. ML-KEM looks itself, and gives for what nobody made a secret that nobody knows.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::{Label, MAX_PLAINTEXT, OpenFailure, check_length};
use crate::error::{Error, Result};
use crate::types::{Algorithm, Encapsulated, PublicKey, Role, SecretBytes, is_point, same};

/// How much longer a blob is than its plaintext and `enc`.
pub const OVERHEAD: usize = Label::LEN + HASH + TAG;

const INFO: &[u8] = b"signet hpke v1";
const HASH: usize = 32;
const TAG: usize = 16;

/// "I2OSP(kem_id, 2)" of DHKEM(P-256, HKDF-SHA256), after "KEM".
const KEM: &[u8] = b"KEM\x00\x10";

/// "I2OSP(kem_id, 2), I2OSP(kdf_id, 2), I2OSP(aead_id, 2)", after "HPKE".
const fn suite(algorithm: Algorithm) -> Option<&'static [u8]> {
    match algorithm.role() {
        Role::Agree => Some(b"HPKE\x00\x10\x00\x01\x00\x02"),
        Role::Decapsulate => Some(b"HPKE\x00\x41\x00\x01\x00\x02"),
        Role::Sign | Role::Mac | Role::Decrypt | Role::Cipher => None,
    }
}

/// Seals `plaintext` for whoever holds the private half of `public`.
///
/// # Errors
/// `Limit` past [`MAX_PLAINTEXT`], `Invalid` for another public key than one of the label's algorithm.
pub fn seal(public: &PublicKey, label: &Label, context_hash: &[u8; HASH], plaintext: &[u8]) -> Result<Vec<u8>> {
    check_length(plaintext)?;
    let Encapsulated { sent, secret } = Encapsulated::to(label.algorithm, public)?;
    let (key, nonce) = schedule(label, &secret, &sent, public).ok_or_else(defect)?;
    // Room for all from the start: a vector that grows would leave a copy of the plaintext behind.
    let mut blob = Vec::with_capacity(OVERHEAD + sent.len() + plaintext.len());
    for part in [label.encode().as_slice(), &sent, context_hash, plaintext] {
        blob.extend_from_slice(part);
    }
    let body = blob.get_mut(Label::LEN + sent.len()..).ok_or_else(defect)?;
    let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), body).map_err(|_| defect())?;
    blob.extend_from_slice(tag.as_ref());
    Ok(blob)
}

/// What the device must find a secret by to open `blob`: a point to agree with, or a ciphertext of ML-KEM.
///
/// # Errors
/// What is wrong with it.
pub fn enc(blob: &[u8]) -> Result<&[u8], OpenFailure> {
    let (Label { algorithm, .. }, enc, _) = parts(blob)?;
    if algorithm.role() == Role::Agree && !is_point(enc) {
        return Err(OpenFailure::NoPoint);
    }
    Ok(enc)
}

/// Opens `blob` with the secret that the device found by [`enc`].
///
/// # Errors
/// Why it does not open: for the auditor alone.
pub fn open(
    secret: &SecretBytes,
    public: &PublicKey,
    blob: &[u8],
    context_hash: &[u8; HASH],
) -> Result<SecretBytes, OpenFailure> {
    let (label, enc, sealed) = parts(blob)?;
    let (key, nonce) = schedule(&label, secret, enc, public).ok_or(OpenFailure::Damaged)?;
    let (ciphertext, tag) = sealed.split_at_checked(sealed.len() - TAG).ok_or(OpenFailure::Truncated)?;
    let mut opened = Zeroizing::new(vec![0; ciphertext.len()]);
    key.open_separate_gather(nonce, Aad::empty(), ciphertext, tag, &mut opened).map_err(|_| OpenFailure::Damaged)?;
    let (context, plaintext) = opened.split_at_checked(HASH).ok_or(OpenFailure::Truncated)?;
    if !same(context, context_hash) {
        return Err(OpenFailure::WrongKeyOrContext);
    }
    Ok(SecretBytes::new(plaintext.to_vec()))
}

/// The label, `enc` and `ct`, of which the last has at least a context and a tag.
fn parts(blob: &[u8]) -> Result<(Label, &[u8], &[u8]), OpenFailure> {
    let (label, rest) = Label::parse(blob)?;
    let length = suite(label.algorithm).and_then(|_| Encapsulated::length(label.algorithm));
    let (enc, sealed) =
        rest.split_at_checked(length.ok_or(OpenFailure::WrongKeyOrContext)?).ok_or(OpenFailure::Truncated)?;
    match sealed.len().checked_sub(HASH + TAG) {
        None => Err(OpenFailure::Truncated),
        Some(length) if length > MAX_PLAINTEXT => Err(OpenFailure::TooLong),
        Some(_) => Ok((label, enc, sealed)),
    }
}

/// Key and nonce of the one message, from what the device found by `enc`.
fn schedule(label: &Label, found: &SecretBytes, enc: &[u8], public: &PublicKey) -> Option<(LessSafeKey, Nonce)> {
    let shared = if label.algorithm.role() == Role::Agree {
        extract_and_expand(found.expose(), enc, &public.raw().ok()?)?
    } else {
        // "The Decap function corresponds to the function ML-KEM.Decaps": what that finds is the secret of the KEM.
        Zeroizing::new(found.expose().try_into().ok()?)
    };
    let info = [INFO, &label.encode()].concat();
    let (key, nonce) = key_and_nonce::<32>(suite(label.algorithm)?, &shared, &info)?;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).ok()?);
    Some((key, Nonce::assume_unique_for_key(nonce)))
}

/// Key and nonce of the first message ([RFC 9180, 5.1](https://www.rfc-editor.org/rfc/rfc9180#section-5.1) in base mode).
fn key_and_nonce<const K: usize>(
    suite: &[u8],
    shared: &[u8; 32],
    info: &[u8],
) -> Option<(Zeroizing<[u8; K]>, [u8; NONCE_LEN])> {
    let id_hash = extract(suite, b"", b"psk_id_hash", b"");
    let info_hash = extract(suite, b"", b"info_hash", info);
    let context = [&[0], id_hash.as_slice(), info_hash.as_slice()].concat();
    let secret = extract(suite, shared, b"secret", b"");
    let nonce = expand(suite, &secret, b"base_nonce", &context)?;
    Some((expand(suite, &secret, b"key", &context)?, *nonce))
}

/// "ExtractAndExpand(dh, kem_context)", where "kem_context = concat(enc, pkRm)"
/// ([RFC 9180, 4.1](https://www.rfc-editor.org/rfc/rfc9180#section-4.1) from `dh` on).
fn extract_and_expand(dh: &[u8], enc: &[u8], public: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
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
        let shared = extract_and_expand(&secret, &enc, &public).unwrap();
        assert_eq!(hex::encode(*shared), "c0d26aeab536609a572b07695d933b589dcf363ff9d93c93adea537aeabb8cb8");
    }

    /// The whole suite by the vectors that go with RFC 9180 (test-vectors.json: mode 0, KEM 16, KDF 1, AEAD 2).
    #[test]
    fn the_suite_is_that_of_the_working_group() {
        let enc = bytes(
            "04c06b4f6bebc7bb495cb797ab753f911aff80aefb86fd8b6fcc35525f3ab5f03e0b21bd31a86c6048af3cb2d98e0d3bf01da5cc4c39ff5370d331a4f1f7d5a4e0",
        );
        let (secret, public) = dh("317f915db7bc629c48fe765587897e01e282d3e8445f79f27f65d031a88082b2", &enc);
        let shared = extract_and_expand(&secret, &enc, &public).unwrap();
        assert_eq!(hex::encode(*shared), "48893fecd82f7c3456af6a42d8f56325d21e08c10fa81299986aaff54cde7b49");
        let suite = suite(Algorithm::HpkeP256).unwrap();
        let (key, nonce) = key_and_nonce::<32>(suite, &shared, b"Ode on a Grecian Urn").unwrap();
        assert_eq!(hex::encode(*key), "ee16802a936d5f544771131900ee6973d0551de9e852ece2ef34bf0d5f9e1d1d");
        assert_eq!(hex::encode(nonce), "9bc50980832a7b4b58c40161");
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_slice()).unwrap());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let mut message = b"Beauty is truth, truth beauty".to_vec();
        key.seal_in_place_append_tag(nonce, Aad::from(b"Count-0"), &mut message).unwrap();
        assert_eq!(
            hex::encode(message),
            "58c61a45059d0c5704560e9d88b564a8b63f1364b8d1fcb3c4c6ddc1d291742465e902cd216f8908da49f8f96f"
        );
    }

    /// The schedule behind ML-KEM-768 by [draft-ietf-hpke-pq-05, A.2.1](https://datatracker.ietf.org/doc/html/draft-ietf-hpke-pq-05#appendix-A.2.1),
    /// which has it with AES-128-GCM.
    #[test]
    fn the_secret_of_ml_kem_is_scheduled_as_in_the_draft() {
        let shared = bytes("750477fb7421ec8e787e4505a99278b0c8aa15b9783453e90939cf1527617dac");
        let info = bytes("34663634363532303666366532303631323034373732363536333639363136653230353537323665");
        let mut suite = suite(Algorithm::MlKem768).unwrap().to_vec();
        *suite.last_mut().unwrap() = 1;
        let (key, nonce) = key_and_nonce::<16>(&suite, &shared.try_into().unwrap(), &info).unwrap();
        assert_eq!(hex::encode(*key), "7d1031a2d6d232331f70495250fabb0d");
        assert_eq!(hex::encode(nonce), "5974495634213151b309dfd3");
    }
}
