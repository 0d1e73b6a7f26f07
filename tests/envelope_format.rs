//! The ciphertext format against an independent implementation, and against everybody who changes it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail as loudly as it likes"
)]

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self as lc, ECDH_P256, PrivateKey, UnparsedPublicKey};
use aws_lc_rs::hmac;
use aws_lc_rs::kem::{DecapsulationKey, ML_KEM_768};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use proptest::prelude::*;
use serde_json::Value;
use signet::ciphertext::derived::{Header, OVERHEAD, device_input, open, seal};
use signet::ciphertext::{Label, MAX_PLAINTEXT, OpenFailure, gcm, hpke, oaep};
use signet::error::{Error, Kind};
use signet::types::{Algorithm, CipherCall, Context, Curve, Direction, KeyId, PublicKey, SecretBytes, Version};

fn vectors(file: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(format!("tests/vectors/{file}")).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().unwrap()
}

/// What the device does.
fn device(key: &[u8], input: &[u8]) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, input).as_ref().try_into().unwrap()
}

#[test]
fn contexts_are_encoded_as_others_encode_them() {
    let vectors = vectors("context.json");
    for case in vectors["encoded"].as_array().unwrap() {
        let context: Context = serde_json::from_value(case["context"].clone()).unwrap();
        assert_eq!(hex::encode(context.encode()), case["encoding"], "{case}");
        assert_eq!(hex::encode(context.hash()), case["sha256"], "{case}");
    }
    for entries in vectors["refused"].as_array().unwrap() {
        serde_json::from_value::<Context>(entries.clone()).unwrap_err();
    }
    assert_eq!(vectors["encoded"].as_array().unwrap().len(), 10);
}

#[test]
fn blobs_are_made_and_opened_as_others_do() {
    let vectors = vectors("envelope.json");
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let context: Context = serde_json::from_value(case["context"].clone()).unwrap();
        let number = u32::try_from(case["version"].as_u64().unwrap()).unwrap();
        let header = Header {
            key_id: KeyId::from_bytes(array(&case["key_id"])),
            version: Version::new(number).unwrap(),
            salt: array(&case["salt"]),
        };
        let blob = bytes(&case["blob"]);
        let (parsed, rest) = Header::parse(&blob).unwrap();
        assert_eq!(parsed, header);
        assert_eq!([header.encode().as_slice(), rest].concat(), blob);

        let input = device_input(&header, &context.hash());
        assert_eq!(input, bytes(&case["device_input"]));
        let ikm = device(&bytes(&case["device_key"]), &input);
        assert_eq!(ikm, array(&case["ikm"]));
        assert_eq!(rest[..32], bytes(&case["commitment"]));
        assert_eq!(open(&ikm, &blob, &context.hash()).unwrap().expose(), bytes(&case["plaintext"]));
        assert_eq!(seal(&ikm, &header, &context.hash(), &bytes(&case["plaintext"])).unwrap(), blob);
    }
}

#[test]
fn the_golden_ciphertext_opens_for_ever() {
    let golden = include_bytes!("golden/ciphertext-v1.bin");
    let case = &vectors("envelope.json")["cases"][2];
    let context: Context = serde_json::from_value(case["context"].clone()).unwrap();
    let (header, _) = Header::parse(golden).unwrap();
    let ikm = device(&bytes(&case["device_key"]), &device_input(&header, &context.hash()));
    assert_eq!(open(&ikm, golden, &context.hash()).unwrap().expose(), b"data key of 32 bytes, or so long");
}

/// The private half of a pair, and what it agrees on.
fn agree(private: &Value, point: &[u8]) -> SecretBytes {
    let private = PrivateKey::from_private_key(&ECDH_P256, &bytes(private)).unwrap();
    let point = UnparsedPublicKey::new(&ECDH_P256, point);
    lc::agree(&private, point, (), |secret| Ok(SecretBytes::new(secret.to_vec()))).unwrap()
}

fn hpke_case(case: &Value) -> (PublicKey, Label, Context, Vec<u8>) {
    let number = u32::try_from(case["version"].as_u64().unwrap()).unwrap();
    let (key_id, version) = (KeyId::from_bytes(array(&case["key_id"])), Version::new(number).unwrap());
    (
        PublicKey::ec(Curve::P256, &bytes(&case["public_key"])).unwrap(),
        Label { algorithm: Algorithm::HpkeP256, key_id, version },
        serde_json::from_value(case["context"].clone()).unwrap(),
        bytes(&case["blob"]),
    )
}

#[test]
fn hpke_blobs_of_others_open_and_ours_have_their_form() {
    let vectors = vectors("hpke.json");
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let (public, label, context, blob) = hpke_case(case);
        assert_eq!(Label::parse(&blob).unwrap().0, label);
        assert_eq!(bytes(&case["info"]), [b"signet hpke v1".as_slice(), &label.encode()].concat());
        let secret = agree(&case["private_key"], hpke::enc(&blob).unwrap());
        assert_eq!(hpke::open(&secret, &public, &blob, &context.hash()).unwrap().expose(), bytes(&case["plaintext"]));
        // Ours open in the same way, and no two are alike.
        let [one, two] = [(); 2].map(|()| hpke::seal(&public, &label, &context.hash(), b"ours").unwrap());
        assert_ne!(one, two);
        for ours in [one, two] {
            let secret = agree(&case["private_key"], hpke::enc(&ours).unwrap());
            assert_eq!(hpke::open(&secret, &public, &ours, &context.hash()).unwrap().expose(), b"ours");
            assert_eq!(ours.len(), 4 + hpke::OVERHEAD + 65);
        }
    }
}

#[test]
fn the_golden_hpke_ciphertext_opens_for_ever() {
    let golden = include_bytes!("golden/ciphertext-hpke-v1.bin");
    let case = &vectors("hpke.json")["cases"][2];
    let (public, _, context, _) = hpke_case(case);
    let secret = agree(&case["private_key"], hpke::enc(golden).unwrap());
    let opened = hpke::open(&secret, &public, golden, &context.hash()).unwrap();
    assert_eq!(opened.expose(), b"data key of 32 bytes, or so long");
}

#[test]
fn no_flipped_bit_of_an_hpke_blob_goes_unnoticed() {
    let case = &vectors("hpke.json")["cases"][1];
    let (public, _, context, blob) = hpke_case(case);
    let secret = agree(&case["private_key"], hpke::enc(&blob).unwrap());
    for at in 0..blob.len() {
        for bit in 0..8 {
            let mut bad = blob.clone();
            bad[at] ^= 1 << bit;
            // Even with the right secret.
            let reason = hpke::open(&secret, &public, &bad, &context.hash()).unwrap_err();
            let expected = match at {
                0..=1 => OpenFailure::UnknownMagic,
                2 => OpenFailure::UnknownFormat(bad[2]),
                3 => reason,
                _ if bad[20..24] == [0; 4] => OpenFailure::NoVersion,
                _ => OpenFailure::Damaged,
            };
            assert_eq!(reason, expected, "byte {at}, bit {bit}");
            if (24..89).contains(&at) {
                assert_eq!(hpke::enc(&bad).unwrap_err(), OpenFailure::NoPoint);
            }
        }
    }
    for length in 0..blob.len() {
        let reason = hpke::open(&secret, &public, &blob[..length], &context.hash()).unwrap_err();
        let expected = if length < hpke::OVERHEAD + 65 { OpenFailure::Truncated } else { OpenFailure::Damaged };
        assert_eq!(reason, expected, "{length} bytes");
    }
    let other = hpke::open(&secret, &public, &blob, &[7; 32]).unwrap_err();
    assert_eq!(other, OpenFailure::WrongKeyOrContext, "the context is sealed");
    let huge = [blob.as_slice(), &vec![0; MAX_PLAINTEXT]].concat();
    assert_eq!(hpke::open(&secret, &public, &huge, &context.hash()).unwrap_err(), OpenFailure::TooLong);
}

fn ml_kem_case(case: &Value) -> (PublicKey, Label, Context, SecretBytes, Vec<u8>) {
    let number = u32::try_from(case["version"].as_u64().unwrap()).unwrap();
    let (key_id, version) = (KeyId::from_bytes(array(&case["key_id"])), Version::new(number).unwrap());
    (
        PublicKey::ml_kem_768(&bytes(&case["public_key"])).unwrap(),
        Label { algorithm: Algorithm::MlKem768, key_id, version },
        serde_json::from_value(case["context"].clone()).unwrap(),
        SecretBytes::new(bytes(&case["secret"])),
        bytes(&case["blob"]),
    )
}

#[test]
fn ml_kem_blobs_of_others_open() {
    let vectors = vectors("ml-kem.json");
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let (public, label, context, secret, blob) = ml_kem_case(case);
        assert_eq!(Label::parse(&blob).unwrap().0, label);
        assert_eq!(bytes(&case["info"]), [b"signet hpke v1".as_slice(), &label.encode()].concat());
        assert_eq!(hpke::enc(&blob).unwrap(), &blob[24..24 + 1088]);
        let plaintext = bytes(&case["plaintext"]);
        assert_eq!(hpke::open(&secret, &public, &blob, &context.hash()).unwrap().expose(), plaintext);
        assert_eq!(blob.len(), plaintext.len() + hpke::OVERHEAD + 1088);
        // A secret of another length is none.
        let short = SecretBytes::new(secret.expose()[1..].to_vec());
        assert_eq!(hpke::open(&short, &public, &blob, &context.hash()).unwrap_err(), OpenFailure::Damaged);
    }
}

#[test]
fn the_golden_ml_kem_ciphertext_opens_for_ever() {
    let golden = include_bytes!("golden/ciphertext-ml-kem-v1.bin");
    let (public, _, context, secret, _) = ml_kem_case(&vectors("ml-kem.json")["cases"][2]);
    let opened = hpke::open(&secret, &public, golden, &context.hash()).unwrap();
    assert_eq!(opened.expose(), b"data key of 32 bytes, or so long");
}

#[test]
fn no_flipped_bit_of_an_ml_kem_blob_goes_unnoticed() {
    let private = DecapsulationKey::generate(&ML_KEM_768).unwrap();
    let raw = private.encapsulation_key().unwrap().key_bytes().unwrap().as_ref().to_vec();
    let public = PublicKey::ml_kem_768(&raw).unwrap();
    let (key_id, version) = (KeyId::from_bytes([9; 16]), Version::new(3).unwrap());
    let label = Label { algorithm: Algorithm::MlKem768, key_id, version };
    let context = [5; 32];
    // What the device does, whatever was changed.
    let open = |blob: &[u8]| {
        let secret = private.decapsulate(hpke::enc(blob)?.into()).unwrap();
        hpke::open(&SecretBytes::new(secret.as_ref().to_vec()), &public, blob, &context)
    };
    let [blob, other] = [(); 2].map(|()| hpke::seal(&public, &label, &context, b"ours").unwrap());
    assert_ne!(blob, other);
    assert_eq!((open(&blob).unwrap().expose(), open(&other).unwrap().expose()), (&b"ours"[..], &b"ours"[..]));
    for at in 0..blob.len() {
        let mut bad = blob.clone();
        bad[at] ^= 1 << (at % 8);
        let reason = open(&bad).unwrap_err();
        let expected = match at {
            0..=1 => OpenFailure::UnknownMagic,
            2 => OpenFailure::UnknownFormat(bad[2]),
            3 => reason,
            _ => OpenFailure::Damaged,
        };
        assert_eq!(reason, expected, "byte {at}");
    }
    for length in 0..blob.len() {
        let expected = if length < hpke::OVERHEAD + 1088 { OpenFailure::Truncated } else { OpenFailure::Damaged };
        assert_eq!(open(&blob[..length]).unwrap_err(), expected, "{length} bytes");
    }
    assert_eq!(
        open(&[&blob[..24], &other[24..24 + 1088], &blob[24 + 1088..]].concat()).unwrap_err(),
        OpenFailure::Damaged
    );
    let huge = [blob.as_slice(), &vec![0; MAX_PLAINTEXT]].concat();
    assert_eq!(open(&huge).unwrap_err(), OpenFailure::TooLong);
    // Keys of other sizes and types, and one whose numbers are too large (FIPS 203, 7.2).
    for bad in [
        PublicKey::from_der(raw.clone()),
        PublicKey::ml_kem_768(&[0xff; 1184]).unwrap(),
        PublicKey::ed25519(&[7; 32]).unwrap(),
    ] {
        assert_eq!(hpke::seal(&bad, &label, &context, b"ours").unwrap_err().kind(), Kind::Invalid);
    }
    for bad in [&raw[1..], &[]] {
        assert_eq!(PublicKey::ml_kem_768(bad).unwrap_err().kind(), Kind::Invalid);
    }
}

fn decrypt(vectors: &Value, blob: &[u8]) -> SecretBytes {
    let private = PrivateDecryptingKey::from_pkcs8(&bytes(&vectors["private_key"])).unwrap();
    let private = OaepPrivateDecryptingKey::new(private).unwrap();
    let mut seed = vec![0; private.min_output_size()];
    let sent = oaep::encrypted_seed(blob).unwrap();
    let seed = private.decrypt(&OAEP_SHA256_MGF1SHA256, sent, &mut seed, None).unwrap();
    SecretBytes::new(seed.to_vec())
}

#[test]
fn oaep_blobs_of_others_open_and_ours_have_their_form() {
    let vectors = vectors("oaep.json");
    let public = PublicKey::from_der(bytes(&vectors["public_key"]));
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let context: Context = serde_json::from_value(case["context"].clone()).unwrap();
        let blob = bytes(&case["blob"]);
        let (label, _) = Label::parse(&blob).unwrap();
        assert_eq!(
            (label.algorithm, label.key_id),
            (Algorithm::Rsa2048Oaep, KeyId::from_bytes(array(&case["key_id"])))
        );
        let opened = oaep::open(&decrypt(&vectors, &blob), &blob, &context.hash()).unwrap();
        assert_eq!(opened.expose(), bytes(&case["plaintext"]));
        let ours = oaep::seal(&public, &label, &context.hash(), b"ours").unwrap();
        assert_eq!(oaep::open(&decrypt(&vectors, &ours), &ours, &context.hash()).unwrap().expose(), b"ours");
        let other = oaep::open(&decrypt(&vectors, &ours), &ours, &[7; 32]).unwrap_err();
        assert_eq!(other, OpenFailure::WrongKeyOrContext);
        // The size of the key is that of the algorithm.
        let label = Label { algorithm: Algorithm::Rsa3072Oaep, ..label };
        assert_eq!(oaep::seal(&public, &label, &context.hash(), b"ours").unwrap_err().kind(), Kind::Invalid);
    }
    let golden = include_bytes!("golden/ciphertext-oaep-v1.bin");
    let context: Context = serde_json::from_value(cases[2]["context"].clone()).unwrap();
    let opened = oaep::open(&decrypt(&vectors, golden), golden, &context.hash()).unwrap();
    assert_eq!(opened.expose(), b"data key of 32 bytes, or so long");
}

#[test]
fn no_flipped_bit_of_an_oaep_blob_goes_unnoticed() {
    let vectors = vectors("oaep.json");
    let case = &vectors["cases"][1];
    let context: Context = serde_json::from_value(case["context"].clone()).unwrap();
    let blob = bytes(&case["blob"]);
    let seed = decrypt(&vectors, &blob);
    for at in 0..blob.len() {
        let mut bad = blob.clone();
        bad[at] ^= 1 << (at % 8);
        oaep::open(&seed, &bad, &context.hash()).unwrap_err();
    }
    for length in 0..blob.len() {
        oaep::open(&seed, &blob[..length], &context.hash()).unwrap_err();
    }
}

/// What a device does by `aes256-gcm`; `None` for what it does not decrypt.
fn cipher(key: &[u8], input: &[u8]) -> Option<SecretBytes> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let (direction, CipherCall { nonce, aad, data }) = CipherCall::parse(input).unwrap();
    let (nonce, mut data) = (Nonce::assume_unique_for_key(*nonce), data.to_vec());
    match direction {
        Direction::Encrypt => key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut data).unwrap(),
        Direction::Decrypt => {
            let length = key.open_in_place(nonce, Aad::from(aad), &mut data).ok()?.len();
            data.truncate(length);
        }
    }
    Some(SecretBytes::new(data))
}

fn gcm_case(case: &Value) -> (Vec<u8>, gcm::Header, Context, Vec<u8>) {
    let number = u32::try_from(case["version"].as_u64().unwrap()).unwrap();
    let (key_id, version) = (KeyId::from_bytes(array(&case["key_id"])), Version::new(number).unwrap());
    let header = gcm::Header { key_id, version, nonce: array(&case["nonce"]) };
    let context = serde_json::from_value(case["context"].clone()).unwrap();
    (bytes(&case["device_key"]), header, context, bytes(&case["blob"]))
}

#[test]
fn gcm_blobs_are_made_and_opened_as_others_do() {
    let vectors = vectors("gcm.json");
    let cases = vectors["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let (key, header, context, blob) = gcm_case(case);
        let plaintext = bytes(&case["plaintext"]);
        assert_eq!(gcm::Header::parse(&blob).unwrap().0, header);
        let sealed = cipher(&key, &gcm::to_seal(&header, &context.hash(), &plaintext).unwrap()).unwrap();
        assert_eq!(gcm::blob(&header, sealed.expose()), blob);
        assert_eq!(blob.len(), plaintext.len() + gcm::OVERHEAD);
        let opened = cipher(&key, &gcm::to_open(&blob, &context.hash()).unwrap()).unwrap();
        assert_eq!(opened.expose()[..32], bytes(&case["sum"]));
        assert_eq!(gcm::open(&opened, &blob, &context.hash()).unwrap().expose(), plaintext);
    }
    let golden = include_bytes!("golden/ciphertext-gcm-v1.bin");
    let (key, _, context, _) = gcm_case(&cases[2]);
    let opened = cipher(&key, &gcm::to_open(golden, &context.hash()).unwrap()).unwrap();
    let opened = gcm::open(&opened, golden, &context.hash()).unwrap();
    assert_eq!(opened.expose(), b"data key of 32 bytes, or so long");
}

#[test]
fn no_flipped_bit_of_a_gcm_blob_or_of_what_the_device_says_goes_unnoticed() {
    let (key, _, context, blob) = gcm_case(&vectors("gcm.json")["cases"][1]);
    let hash = context.hash();
    let said = cipher(&key, &gcm::to_open(&blob, &hash).unwrap()).unwrap();
    for at in 0..blob.len() {
        for bit in 0..8 {
            let mut bad = blob.clone();
            bad[at] ^= 1 << bit;
            match gcm::to_open(&bad, &hash) {
                Err(reason) => {
                    let expected = match at {
                        0..=1 => OpenFailure::UnknownMagic,
                        2 => OpenFailure::UnknownFormat(bad[2]),
                        3 => reason,
                        _ => OpenFailure::NoVersion,
                    };
                    assert_eq!(reason, expected, "byte {at}, bit {bit}");
                }
                Ok(asked) => assert!(cipher(&key, &asked).is_none(), "byte {at}, bit {bit}"),
            }
            // A device that looks at no tag gives the same for a blob with another header, and the sum tells.
            if at < gcm::Header::LEN {
                gcm::open(&said, &bad, &hash).unwrap_err();
            }
        }
    }
    assert_eq!(gcm::open(&said, &blob, &[7; 32]).unwrap_err(), OpenFailure::Damaged, "another context");
    assert!(cipher(&key, &gcm::to_open(&blob, &[7; 32]).unwrap()).is_none(), "another context");
    let whole = said.expose().to_vec();
    for at in 0..whole.len() {
        let mut spoilt = whole.clone();
        spoilt[at] ^= 1 << (at % 8);
        assert_eq!(gcm::open(&SecretBytes::new(spoilt), &blob, &hash).unwrap_err(), OpenFailure::Damaged);
        let short = SecretBytes::new(whole[..at].to_vec());
        assert_eq!(gcm::open(&short, &blob, &hash).unwrap_err(), OpenFailure::Damaged);
    }
    for length in 0..gcm::OVERHEAD {
        assert_eq!(gcm::to_open(&blob[..length], &hash).unwrap_err(), OpenFailure::Truncated, "{length} bytes");
    }
    let huge = [blob.as_slice(), &vec![0; MAX_PLAINTEXT]].concat();
    assert_eq!(gcm::to_open(&huge, &hash).unwrap_err(), OpenFailure::TooLong);
    let (header, _) = gcm::Header::parse(&blob).unwrap();
    let over = gcm::to_seal(&header, &hash, &vec![0; MAX_PLAINTEXT + 1]).unwrap_err();
    assert_eq!(over.kind(), Kind::Limit);
}

fn sample() -> ([u8; 32], [u8; 32], Vec<u8>) {
    let (ikm, context) = ([7; 32], [9; 32]);
    let header = Header::fresh(KeyId::from_bytes([3; 16]), Version::FIRST).unwrap();
    (ikm, context, seal(&ikm, &header, &context, b"a plaintext").unwrap())
}

/// What becomes of a blob when it is opened with the device in between, as the service does.
fn open_through_device(blob: &[u8], context: &[u8; 32]) -> Result<Vec<u8>, OpenFailure> {
    let (header, _) = Header::parse(blob)?;
    let ikm = device(b"device key", &device_input(&header, context));
    open(&ikm, blob, context).map(|plaintext| plaintext.expose().to_vec())
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let context = [9; 32];
    let header = Header::fresh(KeyId::from_bytes([3; 16]), Version::FIRST).unwrap();
    let ikm = device(b"device key", &device_input(&header, &context));
    let blob = seal(&ikm, &header, &context, b"a plaintext").unwrap();
    assert_eq!(open_through_device(&blob, &context).unwrap(), b"a plaintext");
    for at in 0..blob.len() {
        for bit in 0..8 {
            let mut bad = blob.clone();
            bad[at] ^= 1 << bit;
            let reason = open_through_device(&bad, &context).unwrap_err();
            let expected = match at {
                0..=1 => OpenFailure::UnknownMagic,
                2 => OpenFailure::UnknownFormat(bad[2]),
                // The number of another algorithm, or of none.
                3 => reason,
                _ if bad[20..24] == [0; 4] => OpenFailure::NoVersion,
                4..88 => OpenFailure::WrongKeyOrContext,
                _ => OpenFailure::Damaged,
            };
            assert_eq!(reason, expected, "byte {at}, bit {bit}");
            // Even with the right `ikm` a changed header does not open: it is in the associated data as well.
            open(&ikm, &bad, &context).unwrap_err();
        }
    }
    let mut other = context;
    other[31] ^= 1;
    assert_eq!(open_through_device(&blob, &other).unwrap_err(), OpenFailure::WrongKeyOrContext);
    assert_eq!(open(&ikm, &blob, &other).unwrap_err(), OpenFailure::Damaged, "the context is in the associated data");
}

#[test]
fn nothing_shorter_or_longer_opens() {
    let (ikm, context, blob) = sample();
    for length in 0..blob.len() {
        let reason = open(&ikm, &blob[..length], &context).unwrap_err();
        let expected = if length < OVERHEAD { OpenFailure::Truncated } else { OpenFailure::Damaged };
        assert_eq!(reason, expected, "{length} bytes");
    }
    let longer = [blob.as_slice(), b"\0"].concat();
    assert_eq!(open(&ikm, &longer, &context).unwrap_err(), OpenFailure::Damaged);
    let huge = [blob.as_slice(), &vec![0; MAX_PLAINTEXT]].concat();
    assert_eq!(open(&ikm, &huge, &context).unwrap_err(), OpenFailure::TooLong);
}

#[test]
fn a_blob_made_for_two_keys_opens_under_one() {
    let case = &vectors("envelope.json")["salamander"];
    let blob = bytes(&case["blob"]);
    let context = array(&case["context_hash"]);
    // The forgery is real: AES-GCM alone opens it under both keys.
    let aad = [&blob[..88], &context[..]].concat();
    let plaintexts: Vec<_> = case["encryption_keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| {
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes(key)).unwrap());
            let mut body = blob[88..].to_vec();
            key.open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::from(&aad), &mut body).unwrap().to_vec()
        })
        .collect();
    assert_ne!(plaintexts[0], plaintexts[1]);

    assert_eq!(open(&array(&case["first_ikm"]), &blob, &context).unwrap().expose(), plaintexts[0]);
    assert_eq!(open(&array(&case["second_ikm"]), &blob, &context).unwrap_err(), OpenFailure::WrongKeyOrContext);
}

#[test]
fn every_reason_is_one_answer_to_the_caller() {
    let reasons = [
        OpenFailure::Truncated,
        OpenFailure::TooLong,
        OpenFailure::UnknownMagic,
        OpenFailure::UnknownFormat(2),
        OpenFailure::UnknownAlgorithm(9),
        OpenFailure::NoVersion,
        OpenFailure::NoPoint,
        OpenFailure::WrongKeyOrContext,
        OpenFailure::Damaged,
    ];
    for reason in reasons {
        let error = Error::from(reason);
        assert_eq!((error.kind(), error.public()), (Kind::DoesNotOpen, "the ciphertext does not open"));
        assert!(error.chain().contains(&reason.to_string()));
    }
}

#[test]
fn the_longest_plaintext_is_sealed_and_no_longer_one() {
    let header = Header::fresh(KeyId::from_bytes([3; 16]), Version::FIRST).unwrap();
    let longest = vec![1; MAX_PLAINTEXT];
    let blob = seal(&[7; 32], &header, &[9; 32], &longest).unwrap();
    assert_eq!(blob.len(), signet::ciphertext::derived::MAX_BLOB);
    assert_eq!(open(&[7; 32], &blob, &[9; 32]).unwrap().expose(), longest);
    let error = seal(&[7; 32], &header, &[9; 32], &[longest, vec![1]].concat()).unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
}

#[test]
fn no_salt_is_drawn_twice() {
    let header = || Header::fresh(KeyId::from_bytes([3; 16]), Version::FIRST).unwrap().salt;
    let salts: std::collections::BTreeSet<_> = (0..1000).map(|_| header()).collect();
    assert_eq!(salts.len(), 1000);
}

proptest! {
    #[test]
    fn what_was_sealed_opens(ikm: [u8; 32], context: [u8; 32], plaintext in proptest::collection::vec(any::<u8>(), 0..300)) {
        let header = Header::fresh(KeyId::from_bytes([3; 16]), Version::FIRST).unwrap();
        let blob = seal(&ikm, &header, &context, &plaintext).unwrap();
        prop_assert_eq!(blob.len(), plaintext.len() + OVERHEAD);
        let opened = open(&ikm, &blob, &context).unwrap();
        prop_assert_eq!(opened.expose(), &plaintext);
    }

    #[test]
    fn no_input_makes_the_parser_panic(blob in proptest::collection::vec(any::<u8>(), 0..200)) {
        open(&[7; 32], &blob, &[9; 32]).unwrap_err();
        let ours = [b"SE\x01\x01".as_slice(), &blob].concat();
        open(&[7; 32], &ours, &[9; 32]).unwrap_err();
    }
}
