//! The service on Kryoptic, a second PKCS#11 module: it is stricter than SoftHSM, wraps by another mechanism, and locks a PIN for
//! ever after ten wrong ones.

use std::path::Path;

use signet::config::Config;
use signet::device::{Outcome, Settings};
use signet::doctor::{Verdict, attack, examine};
use signet::error::Kind;
use signet::types::{Algorithm, Context, Purpose, Residency};
use signet::wire::{Base64, MakeMac, Sign, Verify, VerifyMac};

use crate::kryoptic::Kryoptic;
use crate::process::eventually;
use crate::proof::proven;
use crate::server::{Devices, PROGRAM, TestServer, name, new_key};
use crate::sign::{base64, openssl_accepts};
use crate::wrap::{plain, sealed};

const MESSAGE: &[u8] = b"what was meant";

fn with_token(config: &mut Config, token: &Kryoptic) {
    config.devices.insert("hsm".parse().unwrap(), Settings::Pkcs11(token.settings()));
}

async fn server(token: &Kryoptic) -> TestServer {
    TestServer::configured(Devices::SoftHsm, |config| with_token(config, token)).await
}

/// What a key made, to be judged by itself later.
enum Made {
    Signature(Verify),
    Code(VerifyMac),
    Ciphertext(Base64),
}

/// Has the latest version of a key do its one thing; a signature is judged by openssl.
async fn use_key(t: &TestServer, key: &str, algorithm: Algorithm) -> Made {
    let message = Base64(MESSAGE.to_vec());
    match algorithm.purpose() {
        Purpose::Sign => {
            let body = Sign { message: Some(message.clone()), ..Sign::default() };
            let signed = t.client.sign(&name(key), &body).await.unwrap();
            let public = t.client.public_key(&name(key), None).await.unwrap();
            assert!(openssl_accepts(algorithm, &public.pem, MESSAGE, &base64(&signed.signature)), "{key}");
            assert!(!openssl_accepts(algorithm, &public.pem, b"another", &base64(&signed.signature)), "{key}");
            let version = Some(signed.version);
            Made::Signature(Verify {
                message: Some(message),
                signature: signed.signature,
                version,
                ..Verify::default()
            })
        }
        Purpose::Mac => {
            let made = t.client.mac(&name(key), &MakeMac { message: message.clone() }).await.unwrap();
            Made::Code(VerifyMac { message, mac: made.mac, version: Some(made.version) })
        }
        Purpose::Wrap => {
            let wrapped = t.client.wrap(&name(key), &plain(MESSAGE, &Context::default())).await.unwrap();
            Made::Ciphertext(wrapped.ciphertext)
        }
    }
}

async fn holds(t: &TestServer, key: &str, made: &Made) {
    match made {
        Made::Signature(body) => assert!(t.client.verify(&name(key), body).await.unwrap().valid, "{key}"),
        Made::Code(body) => assert!(t.client.verify_mac(&name(key), body).await.unwrap().valid, "{key}"),
        Made::Ciphertext(blob) => {
            let opened = t.client.unwrap(&name(key), &sealed(blob, &Context::default())).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), MESSAGE, "{key}");
        }
    }
}

#[tokio::test]
async fn every_algorithm_lives_through_rotation_and_restart() {
    let Some(token) = Kryoptic::new() else { return };
    let mut t = server(&token).await;
    let device = t.client.status().await.unwrap().devices.remove(0);
    assert!(device.up && device.software && device.model.contains("Kryoptic"), "{device:?}");
    let mut kept = Vec::new();
    for ability in &device.abilities {
        let (algorithm, residency) = (ability.algorithm, ability.residency);
        let key = format!("{residency}-{algorithm}");
        let mut new = new_key(&key, algorithm.as_str());
        new.residency = Some(residency);
        if let Some(refusal) = &ability.refusal {
            // 1. What it cannot is refused by name, with what it could do instead.
            let error = t.client.create_key(&new).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Unsupported, "{error:?}");
            assert!(error.public().contains(refusal.as_str()), "{error}");
            assert!(error.mend().is_some_and(|mend| mend.contains("ecdsa-p256-sha256")), "{error:?}");
        } else if algorithm.rsa_bits() != Some(4096) {
            // 2. What it can is made, used, rotated, and used again. RSA 4096 is made by the contract suite of the devices.
            t.client.create_key(&new).await.unwrap();
            let first = use_key(&t, &key, algorithm).await;
            t.client.rotate_key(&name(&key), &Default::default()).await.unwrap();
            let second = use_key(&t, &key, algorithm).await;
            kept.extend([(key.clone(), first), (key, second)]);
        }
    }
    let refused = device.abilities.iter().filter(|one| one.refusal.is_some());
    let needs_openssl = |algorithm| matches!(algorithm, Algorithm::Ed25519 | Algorithm::MlDsa65 | Algorithm::MlKem768);
    assert!(refused.clone().all(|one| needs_openssl(one.algorithm)), "{:?}", refused.collect::<Vec<_>>());
    // 3. All of it is there after a restart.
    t.restart().await;
    for (key, made) in &kept {
        holds(&t, key, made).await;
    }
    proven(
        "versions of keys in Kryoptic, used, and good after rotation and restart",
        kept.len(),
        "openssl judged the signatures",
    );
    assert_eq!(kept.len(), 2 * 2 * 15);
}

#[tokio::test]
async fn doctor_sees_the_token_and_attacks_it() {
    let Some(token) = Kryoptic::new() else { return };
    let mut t = server(&token).await;
    t.stop().await;
    // Its worker may be at its last words.
    let findings = eventually("the service has ended", async || {
        let findings = examine(&t.config, Path::new(PROGRAM)).await;
        findings.iter().all(|one| one.what != "service").then_some(findings)
    })
    .await;
    let bad: Vec<_> = findings.iter().filter(|one| one.verdict == Verdict::Wrong).collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert!(findings.iter().any(|one| one.what.contains("hsm") && one.text.contains("Kryoptic")), "{findings:?}");
    // What works on ordinary keys is refused on ours, but for what the design names.
    let attempts = attack(&t.config, &"hsm".parse().unwrap(), Path::new(PROGRAM)).await.unwrap();
    for one in &attempts {
        println!("{:<50}{:<70}{:?}", one.attack, format!("{:?}", one.ordinary), one.ours);
    }
    let works = |outcome: &Outcome| *outcome == Outcome::Works;
    let ordinary = attempts.iter().filter(|one| works(&one.ordinary)).count();
    let ours: Vec<_> = attempts.iter().filter(|one| works(&one.ours)).collect();
    assert!(ours.iter().all(|one| one.owned), "{ours:#?}");
    for one in &attempts {
        if let Outcome::Refused(by) = &one.ours {
            assert!(!by.starts_with("C_GenerateKey"), "{one:?}");
        }
    }
    let came = format!("{ordinary} work on an ordinary key, {} on ours, which the design names", ours.len());
    proven("attacks by the holder of a PIN on Kryoptic", attempts.len(), &came);
}

/// Ten wrong PINs lock this token for good. A start spends one, and none at all where one is left.
#[tokio::test]
async fn a_wrong_pin_is_tried_once_and_the_last_try_never() {
    let Some(token) = Kryoptic::new() else { return };
    let mut t = server(&token).await;
    assert!(token.keys() > 0);
    let made = {
        t.key("kept", "aes256-gcm-derived").await;
        use_key(&t, "kept", Algorithm::Aes256GcmDerived).await
    };
    t.stop().await;
    // 1. Somebody else spends six of the ten tries.
    let spend = |tries: usize| (0..tries).for_each(|_| assert!(token.login("00000000").is_err()));
    spend(6);
    // 2. With a wrong PIN the service does not start, says why, and has spent one; the next start spends none.
    token.set_pin_file("00000000");
    let error = t.start_again().await.expect_err("a wrong PIN");
    assert!(error.chain().contains("CKR_PIN_INCORRECT") && error.mend().is_some(), "{}", error.chain());
    let error = t.start_again().await.expect_err("the same PIN");
    assert!(error.mend().is_some() && !error.chain().contains("00000000"), "{}", error.chain());
    // 3. So two more leave the last one, which is a person's: the right PIN is not tried by itself either.
    spend(2);
    token.mend_pin_file();
    let error = t.start_again().await.expect_err("one try is left");
    assert!(error.chain().contains("one try left"), "{}", error.chain());
    // 4. So the token is not locked: the person logs in, and all is well again.
    token.login(&std::fs::read_to_string(token.pin_file()).unwrap()).unwrap();
    t.start_again().await.unwrap();
    holds(&t, "kept", &made).await;
    t.stop().await;
    // 5. A locked token is said to be one.
    spend(10);
    let error = t.start_again().await.expect_err("a locked PIN");
    assert!(error.chain().contains("CKR_PIN_LOCKED") && error.mend().is_some(), "{}", error.chain());
}

/// A token that lacks what everything stands on, and one that lacks something that only some keys need.
#[tokio::test]
async fn a_poor_token_is_refused_by_what_it_lacks() {
    // 1. Without key wrapping there are no wrapped keys, and a word on what there is.
    let Some(token) = Kryoptic::without(&["CKM_AES_KEY_WRAP_KWP", "CKM_RSA_PKCS_OAEP", "CKM_ECDH1_DERIVE"]) else {
        return;
    };
    let t = server(&token).await;
    for (algorithm, residency, can) in [
        ("ecdsa-p256-sha256", Residency::Resident, true),
        ("aes256-gcm-derived", Residency::Resident, true),
        ("ecdsa-p256-sha256", Residency::Wrapped, false),
        ("aes256-gcm-derived", Residency::Wrapped, false),
        ("rsa2048-oaep-sha256", Residency::Resident, false),
        ("hpke-p256", Residency::Resident, false),
    ] {
        let key = format!("{residency}-{algorithm}");
        let mut new = new_key(&key, algorithm);
        new.residency = Some(residency);
        match (can, t.client.create_key(&new).await) {
            (true, made) => drop(made.unwrap()),
            (false, Ok(_)) => panic!("{key} was made"),
            (false, Err(error)) => {
                println!("{key}: {error}; {}", error.mend().unwrap_or_default());
                assert_eq!(error.kind(), Kind::Unsupported, "{error:?}");
                assert!(
                    error.public().contains(algorithm) && error.public().contains("CKR_MECHANISM_INVALID"),
                    "{error}"
                );
                assert!(error.mend().is_some_and(|mend| mend.contains("hmac-sha256 (resident)")), "{error:?}");
            }
        }
    }
    // 2. Without ECDSA there is no sentinel, and so no enrolment; nothing is left behind.
    let Some(token) = Kryoptic::without(&["CKM_ECDSA"]) else { return };
    let mut bare = t.config.clone();
    bare.data = t.data().join("../bare");
    with_token(&mut bare, &token);
    let error = signet::server::create(&bare, &crate::server::options(&t.clock)).await.expect_err("no sentinel");
    println!("without ECDSA: {error}; {}", error.mend().unwrap_or_default());
    assert_eq!(error.kind(), Kind::Unsupported, "{}", error.chain());
    assert!(error.public().contains("no sentinel") && error.public().contains("CKR_MECHANISM_INVALID"), "{error}");
    assert!(error.mend().is_some_and(|mend| mend.contains("rsa2048-pss-sha256")), "{error:?}");
    assert_eq!(token.keys(), 0, "something was left in the token");
}
