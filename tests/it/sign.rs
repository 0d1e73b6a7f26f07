//! Sign and verify, with openssl as the judge.

use std::process::Command;

use signet::error::Kind;
use signet::types::{Algorithm, Hash, Purpose, SignatureFormat, State};
use signet::wire::{Base64, Batch, Digest, Sign, Verify};

use crate::server::{Devices, TestServer, name, new_key};

fn message(text: &str) -> Sign {
    Sign { message: Some(Base64(text.as_bytes().to_vec())), ..Sign::default() }
}

/// Whether openssl accepts a signature in DER over `message`.
pub(crate) fn openssl_accepts(algorithm: Algorithm, pem: &str, message: &[u8], signature: &[u8]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let path = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
    for (file, bytes) in [("key", pem.as_bytes()), ("message", message), ("signature", signature)] {
        std::fs::write(path(file), bytes).unwrap();
    }
    let mut command = Command::new("openssl");
    command.args(["pkeyutl", "-verify", "-pubin", "-inkey", &path("key"), "-rawin", "-in", &path("message")]);
    command.args(["-sigfile", &path("signature")]);
    if let Some(hash) = algorithm.hash() {
        command.args(["-digest", hash.as_str()]);
    }
    if algorithm.is_pss() {
        command.args(["-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", "rsa_pss_saltlen:digest"]);
    }
    command.output().unwrap().status.success()
}

#[tokio::test]
async fn signatures_of_every_algorithm_verify_with_openssl() {
    let t = TestServer::with(Devices::WithTpm).await;
    let devices = t.client.status().await.unwrap().devices;
    let mut checked = 0;
    for device in &devices {
        for ability in device.abilities.iter().filter(|one| one.algorithm.purpose() == Purpose::Sign) {
            if ability.refusal.is_some() || ability.algorithm.rsa_bits() == Some(4096) {
                continue; // RSA-4096 takes seconds to make; the contract suite of the devices makes one.
            }
            let text = format!("{}-{}-{}", device.name, ability.residency, ability.algorithm);
            let mut new = new_key(&text, ability.algorithm.as_str());
            (new.device, new.residency) = (Some(device.name.clone()), Some(ability.residency));
            t.client.create_key(&new).await.unwrap();
            let signed = t.client.sign(&name(&text), &message("what was meant")).await.unwrap();
            let key = t.client.public_key(&name(&text), None).await.unwrap();
            let signature = base64(&signed.signature);
            assert!(openssl_accepts(ability.algorithm, &key.pem, b"what was meant", &signature), "{text}");
            assert!(!openssl_accepts(ability.algorithm, &key.pem, b"something else", &signature), "{text}");
            assert_eq!(key.jwk["kid"], signed.kid);
            checked += 1;
        }
    }
    // 8 resident and 7 wrapped kinds in SoftHSM, 7 in the TPM; without RSA-4096.
    assert_eq!(checked, 8 + 7 + 7);
}

pub(crate) fn base64(text: &str) -> Vec<u8> {
    serde_json::from_value::<Base64>(text.into()).unwrap().0
}

#[tokio::test]
async fn a_signature_verifies_by_the_version_that_made_it() {
    let t = TestServer::start().await;
    t.key("release", "ecdsa-p256-sha256").await;
    let old = t.client.sign(&name("release"), &message("m")).await.unwrap();
    t.client.rotate_key(&name("release"), &Default::default()).await.unwrap();
    let new = t.client.sign(&name("release"), &message("m")).await.unwrap();
    assert_eq!((old.version.number(), new.version.number()), (1, 2));
    let verify = |signature: &str, version| Verify {
        message: Some(Base64(b"m".to_vec())),
        signature: signature.to_owned(),
        version,
        ..Verify::default()
    };
    let key = name("release");
    assert!(t.client.verify(&key, &verify(&old.signature, Some(old.version))).await.unwrap().valid);
    assert!(!t.client.verify(&key, &verify(&old.signature, None)).await.unwrap().valid);
    assert!(t.client.verify(&key, &verify(&new.signature, None)).await.unwrap().valid);
    // A compromised version still verifies, and says so.
    let compromise = signet::client::Transition::Compromise;
    t.client.change_version(&key, old.version, compromise).await.unwrap();
    let verdict = t.client.verify(&key, &verify(&old.signature, Some(old.version))).await.unwrap();
    assert_eq!((verdict.valid, verdict.state), (true, State::Compromised));
}

#[tokio::test]
async fn each_domain_signs_its_own_and_nothing_else() {
    let t = TestServer::start().await;
    t.key("artifact", "ecdsa-p256-sha256").await;
    for domain in ["raw", "jwt", "x509"] {
        let mut new = new_key(domain, "ecdsa-p256-sha256");
        new.domain = Some(domain.parse().unwrap());
        t.client.create_key(&new).await.unwrap();
    }
    let digest =
        |hash: Hash| Sign { digest: Some(Digest { hash, value: Base64(hash.digest(b"m")) }), ..Sign::default() };
    let jwt = message("eyJhbGciOiJFUzI1NiJ9.e30");
    let foreign = message("eyJhbGciOiJSUzI1NiJ9.e30");
    let both = Sign { message: Some(Base64(b"m".to_vec())), ..digest(Hash::Sha256) };
    let cases: [(&str, &Sign, bool); 12] = [
        ("artifact", &message("m"), true),
        ("artifact", &digest(Hash::Sha256), false),
        ("artifact", &jwt, false),
        ("raw", &message("m"), false),
        ("raw", &digest(Hash::Sha256), true),
        ("raw", &digest(Hash::Sha384), false),
        ("jwt", &jwt, true),
        ("jwt", &foreign, false),
        ("jwt", &message("m"), false),
        ("x509", &message("m"), false),
        ("artifact", &both, false),
        ("artifact", &Sign::default(), false),
    ];
    for (key, body, allowed) in cases {
        let signed = t.client.sign(&name(key), body).await;
        match allowed {
            true => drop(signed.unwrap()),
            false => assert_eq!(signed.unwrap_err().kind(), Kind::Invalid, "{key} {body:?}"),
        }
    }
    // The public keys of JWT keys are there for everybody.
    let published = t.client(None).jwks().await.unwrap();
    assert_eq!(published["keys"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_batch_answers_item_by_item() {
    let t = TestServer::start().await;
    t.key("release", "ecdsa-p384-sha384").await;
    let items = (0..100).map(|n| match n {
        50 => message("eyJhbGciOiJFUzI1NiJ9.e30"),
        _ => Sign { format: Some(SignatureFormat::Raw), ..message(&n.to_string()) },
    });
    let batch = Batch { items: items.collect() };
    let results = t.client.sign_batch(&name("release"), &batch).await.unwrap().results;
    assert_eq!(results.len(), 100);
    for (n, result) in results.iter().enumerate() {
        let Some(signed) = &result.ok else {
            assert_eq!((n, result.error.as_ref().unwrap().code.as_str()), (50, "invalid"));
            continue;
        };
        let verify = Verify {
            message: Some(Base64(n.to_string().into_bytes())),
            signature: signed.signature.clone(),
            format: Some(SignatureFormat::Raw),
            ..Verify::default()
        };
        assert!(t.client.verify(&name("release"), &verify).await.unwrap().valid, "{n}");
    }
    let too_many = Batch { items: vec![message("m"); 1001] };
    assert_eq!(t.client.sign_batch(&name("release"), &too_many).await.unwrap_err().kind(), Kind::Limit);
}
