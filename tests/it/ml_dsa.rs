//! Keys of `ml-dsa-65` in a token that has them: Kryoptic with a newer OpenSSL, where `SIGNET_TEST_PQC` asks for it. The judge is
//! the OpenSSL of another project.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use signet::device::{Pkcs11Settings, Settings};
use signet::error::Kind;
use signet::types::{Algorithm, Hash, PublicKey, Residency, SignatureFormat, Verifier, Version};
use signet::wire::{Base64, Batch, Digest, ItemResult, Sign, Signed, Verify};

use crate::attest::run;
use crate::issuers::new_issuer;
use crate::judges::judge;
use crate::kryoptic::Kryoptic;
use crate::process::eventually;
use crate::proof::proven;
use crate::server::{Devices, TestServer, name, new_key};
use crate::sign::base64;

const KEY: &str = "release";

pub(crate) async fn server(settings: Pkcs11Settings) -> TestServer {
    TestServer::configured(Devices::SoftHsm, |config| {
        config.devices.insert("hsm".parse().unwrap(), Settings::Pkcs11(settings));
    })
    .await
}

fn message(text: &[u8]) -> Sign {
    Sign { message: Some(Base64(text.to_vec())), ..Sign::default() }
}

/// What OpenSSL says of signatures, and which thumbprint the key has for it.
fn judged(python: &Path, pem: &str, cases: &[(&[u8], Vec<u8>)]) -> (Vec<bool>, String) {
    let case = |(message, signature): &(&[u8], Vec<u8>)| serde_json::json!({"message": STANDARD.encode(message), "signature": STANDARD.encode(signature)});
    let question = serde_json::json!({"pem": pem, "cases": cases.iter().map(case).collect::<Vec<_>>()});
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/ml_dsa_judge.py");
    let mut command = Command::new(python);
    let mut child = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let valid = said["valid"].as_array().unwrap().iter().map(|one| one.as_bool().unwrap()).collect();
    (valid, said["thumbprint"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_token_signs_by_ml_dsa_and_openssl_agrees() {
    let Some(token) = Kryoptic::full() else { return };
    let Some(python) = judge("python") else { return };
    let mut t = server(token.settings()).await;
    let made = t.key(KEY, "ml-dsa-65").await;
    assert_eq!(made.algorithm, Algorithm::MlDsa65);
    // 1. From nothing to the longest message; two over the same are two, since each is drawn with fresh randomness.
    let longest = vec![7; 65_536];
    let texts = [b"".as_slice(), b"m", b"m", &longest];
    let mut signatures = Vec::new();
    for text in texts {
        let signed = t.client.sign(&name(KEY), &message(text)).await.unwrap();
        signatures.push(base64(&signed.signature));
    }
    assert!(signatures.iter().all(|one| one.len() == 3309) && signatures[1] != signatures[2]);
    let public = t.client.public_key(&name(KEY), None).await.unwrap();
    let mut cases: Vec<_> = texts.into_iter().zip(signatures.iter().cloned()).collect();
    cases.extend([(b"another".as_slice(), signatures[1].clone()), (b"m", flipped(&signatures[1]))]);
    let (valid, thumbprint) = judged(&python, &public.pem, &cases);
    assert_eq!(valid, [true, true, true, true, false, false]);
    assert_eq!((&public.jwk["kty"], &public.jwk["alg"]), (&"AKP".into(), &"ML-DSA-65".into()));
    assert_eq!(
        (public.jwk["kid"].as_str(), public.jwk["pub"].as_str().map(str::len)),
        (Some(&*thumbprint), Some(2603))
    );
    // 2. The service says the same of each, in every form, and of what is cut or lengthened.
    let form = |format: SignatureFormat, raw: &[u8]| match format {
        SignatureFormat::Jws => URL_SAFE_NO_PAD.encode(raw),
        SignatureFormat::Der | SignatureFormat::Raw => STANDARD.encode(raw),
    };
    let longer = [signatures[1].as_slice(), &[0]].concat();
    cases.extend([(b"m".as_slice(), signatures[1][1..].to_vec()), (b"m", longer), (b"m", Vec::new())]);
    for (at, (text, signature)) in cases.iter().enumerate() {
        for format in SignatureFormat::ALL.iter().copied() {
            let verify = Verify {
                message: Some(Base64(text.to_vec())),
                signature: form(format, signature),
                format: Some(format),
                ..Verify::default()
            };
            assert_eq!(t.client.verify(&name(KEY), &verify).await.unwrap().valid, at < 4, "{at} {format}");
        }
    }
    // 3. A whole batch: three megabytes of signatures come through in frames of one.
    let texts: Vec<_> = (0..1000).map(|n: u32| n.to_be_bytes()).collect();
    let items = texts.iter().map(|text| message(text)).collect();
    let results = t.client.sign_batch(&name(KEY), &Batch { items }).await.unwrap().results;
    let signature = |one: &ItemResult<Signed>| base64(&one.ok.as_ref().unwrap().signature);
    let batch: Vec<_> = texts.iter().map(|text| text.as_slice()).zip(results.iter().map(signature)).collect();
    assert_eq!(judged(&python, &public.pem, &batch).0, [true; 1000]);
    let verifier = Verifier::new(Algorithm::MlDsa65, &PublicKey::from_pem(&public.pem).unwrap()).unwrap();
    assert!(batch.iter().all(|(text, signature)| verifier.verifies(text, signature)));
    // 4. Rotation and restart: each version judges its own.
    t.client.rotate_key(&name(KEY), &Default::default()).await.unwrap();
    let second = t.client.sign(&name(KEY), &message(b"m")).await.unwrap();
    t.restart().await;
    let verdict = async |version: u32, signature: &str| {
        let version = Some(Version::new(version).unwrap());
        let verify = Verify {
            message: Some(Base64(b"m".to_vec())),
            signature: signature.to_owned(),
            version,
            ..Verify::default()
        };
        t.client.verify(&name(KEY), &verify).await.unwrap().valid
    };
    let first = STANDARD.encode(&signatures[1]);
    assert!(verdict(1, &first).await && verdict(2, &second.signature).await);
    assert!(!verdict(2, &first).await && !verdict(1, &second.signature).await);
    t.client.sign(&name(KEY), &message(b"m")).await.unwrap();
    proven("signatures of ml-dsa-65 made in a token", 4 + batch.len(), "OpenSSL took each, and none that was changed");
}

fn flipped(bytes: &[u8]) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[1000] ^= 1;
    flipped
}

#[tokio::test]
async fn what_such_a_key_does_and_what_it_does_not() {
    let Some(token) = Kryoptic::full() else { return };
    let Some(python) = judge("python") else { return };
    let t = server(token.settings()).await;
    t.key(KEY, "ml-dsa-65").await;
    // 1. It cannot be wrapped in this token, and is refused by name, with what can.
    let wrapped = signet::wire::CreateKey { residency: Some(Residency::Wrapped), ..new_key("other", "ml-dsa-65") };
    let error = t.client.create_key(&wrapped).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.public().contains("this token cannot wrap ml-dsa-65 keys"), "{error}");
    assert!(error.mend().is_some_and(|mend| mend.contains("ml-dsa-65 (resident)")), "{error:?}");
    // 2. It signs tokens that name it, and everybody gets its public key.
    let jwt = signet::wire::CreateKey { domain: Some("jwt".parse().unwrap()), ..new_key("tokens", "ml-dsa-65") };
    t.client.create_key(&jwt).await.unwrap();
    let input = |alg: &str| format!("{}.e30", URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}"}}"#)));
    let (own, other) = (input("ML-DSA-65"), input("ES256"));
    let body = Sign { format: Some(SignatureFormat::Jws), ..message(own.as_bytes()) };
    let signature = t.client.sign(&name("tokens"), &body).await.unwrap().signature;
    let error = t.client.sign(&name("tokens"), &message(other.as_bytes())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    let published = t.client(None).jwks().await.unwrap();
    let [jwk] = published["keys"].as_array().unwrap().as_slice() else { panic!("{published}") };
    let bytes = URL_SAFE_NO_PAD.decode(jwk["pub"].as_str().unwrap()).unwrap();
    let pem = PublicKey::ml_dsa_65(&bytes).unwrap().to_pem().unwrap();
    let raw = URL_SAFE_NO_PAD.decode(&signature).unwrap();
    assert_eq!(judged(&python, &pem, &[(own.as_bytes(), raw)]).0, [true]);
    // 3. No digests, no certificates, no keys of those who sign such.
    let digest = Digest { hash: Hash::Sha256, value: Base64(vec![1; 32]) };
    let error = t.client.sign(&name(KEY), &Sign { digest: Some(digest), ..Sign::default() }).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid, "{error}");
    for (domain, kind) in [("raw", Kind::Invalid), ("x509", Kind::Unsupported), ("ssh", Kind::Unsupported)] {
        let new = signet::wire::CreateKey { domain: Some(domain.parse().unwrap()), ..new_key(domain, "ml-dsa-65") };
        let error = t.client.create_key(&new).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{domain}: {error}");
        assert!(error.public().contains("ml-dsa-65") && error.mend().is_some(), "{error:?}");
    }
    let error = t.client.create_issuer(&new_issuer("ca", "hsm", "ml-dsa-65")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert!(error.public().contains("ml-dsa-65 keys sign no certificates"), "{error}");
    // 4. What the token says of it, in a bundle with a signature, judged without the service.
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let [artifact, bundle, hsm, log] = ["artifact", "bundle", "hsm.pem", "log.pem"].map(file);
    std::fs::write(&artifact, b"what was built").unwrap();
    run(Some(&t), &["sign", KEY, &artifact, "--bundle", &bundle, "--out", &file("signature")], 0).await;
    let pinned = signet::server::attestation_key(&t.config, &"hsm".parse().unwrap()).unwrap();
    std::fs::write(&hsm, pinned.to_pem().unwrap()).unwrap();
    std::fs::write(&log, t.client.audit_head().await.unwrap().public_key).unwrap();
    let mut words = vec!["attest", "verify-bundle", &artifact, "--bundle", &bundle, "--name", KEY];
    words.extend(["--attestation-key", &hsm, "--log-key", &log]);
    let said = run(None, &words, 0).await;
    assert!(said.contains("over the artifact, by the attested key"), "{said}");
    assert!(said.contains("by 0x1c") && said.contains("by the mechanism 0x1d"), "{said}");
    std::fs::write(&artifact, b"what was meant").unwrap();
    run(None, &words, 6).await;
}

#[tokio::test]
async fn a_spoilt_signature_is_not_released() {
    let Some(token) = Kryoptic::full() else { return };
    let t = server(token.faulty_settings()).await;
    t.key(KEY, "ml-dsa-65").await;
    let impatient = t.impatient_client();
    let mut refused = 0;
    for fault in ["flip", "short", "empty", "post=0x30", "pre=0x05"] {
        for _ in 0..5 {
            // The sentinel is the victim as well, and then the device is down for a moment.
            eventually("the device is sound", async || t.client(None).ready().await.ok()).await;
            token.plan(&format!("C_Sign {fault}\n"));
            let error = impatient.sign(&name(KEY), &message(b"m")).await.unwrap_err();
            let expected = matches!(error.kind(), Kind::Tampered | Kind::Unavailable | Kind::Internal);
            assert!(expected, "{fault}: {error:?}");
            token.plan("");
            refused += 1;
        }
    }
    eventually("it works again", async || t.client.sign(&name(KEY), &message(b"m")).await.ok()).await;
    proven("signatures of ml-dsa-65 that a fault spoilt", refused, "none was released");
}
