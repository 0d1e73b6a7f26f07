//! Keys of `ml-kem-768` in a token that has them: Kryoptic with a newer OpenSSL, where `SIGNET_TEST_PQC` asks for it; and those that
//! have them not. The judge is the HPKE of another project.

use std::collections::BTreeSet;
use std::process::Command;

use signet::attestation::{Attestation, Expected};
use signet::ciphertext::{Label, hpke};
use signet::error::Kind;
use signet::types::{Algorithm, Context, PublicKey, Residency};
use signet::wire::{Base64, CreateKey, MakeMac, Rewrap};

use crate::attest::run;
use crate::judges::judge;
use crate::kryoptic::Kryoptic;
use crate::ml_dsa::server;
use crate::process::eventually;
use crate::proof::proven;
use crate::server::{Devices, TestServer, name, new_key};
use crate::wrap::{context, plain, sealed};

const KEY: &str = "inbox";

#[tokio::test]
async fn what_a_foreign_hpke_sealed_opens_in_a_token() {
    let Some(token) = Kryoptic::full() else { return };
    let Some(python) = judge("python") else { return };
    let mut t = server(token.settings()).await;
    assert_eq!(t.key(KEY, "ml-kem-768").await.algorithm, Algorithm::MlKem768);
    let own = context(&[("tenant", "a"), ("file", "2026/ü")]);
    let mut opened = 0;
    // 1. The service wraps as everybody does.
    for size in [0, 1, 32, 65_536] {
        let secret = vec![7; size];
        let wrapped = t.client.wrap(&name(KEY), &plain(&secret, &own)).await.unwrap();
        assert_eq!(wrapped.ciphertext.0.len(), size + hpke::OVERHEAD + 1088);
        let found = t.client.unwrap(&name(KEY), &sealed(&wrapped.ciphertext, &own)).await.unwrap();
        assert_eq!(found.plaintext.0.expose(), secret, "{size}");
        opened += 1;
    }
    // 2. By the public key alone: our program, and a library that knows nothing of us.
    let info = t.client.public_key(&name(KEY), None).await.unwrap();
    assert_eq!(
        (&info.jwk["kty"], &info.jwk["alg"], &info.jwk["use"]),
        (&"AKP".into(), &"ML-KEM-768".into(), &"enc".into())
    );
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let [public, text, out] = ["key.json", "text", "out"].map(file);
    std::fs::write(&public, serde_json::to_vec(&info).unwrap()).unwrap();
    std::fs::write(&text, "größe").unwrap();
    let entries = ["--context", "tenant=a", "--context", "file=2026/ü"];
    let words = [&["wrap", KEY, text.as_str(), "--public-key", &public, "--out", &out][..], &entries].concat();
    run(None, &words, 0).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/hpke_judge.py");
    let mut blobs = vec![std::fs::read(&out).unwrap()];
    for _ in 0..10 {
        let mut command = Command::new(&python);
        let said =
            command.args([script, "cryptography", &public, "größe", "tenant=a", "file=2026/ü"]).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        blobs.push(said.stdout);
    }
    for blob in blobs {
        let blob = Base64(blob);
        let found = t.client.unwrap(&name(KEY), &sealed(&blob, &own)).await.unwrap();
        assert_eq!(found.plaintext.0.expose(), "größe".as_bytes());
        let error = t.client.unwrap(&name(KEY), &sealed(&blob, &Context::default())).await.unwrap_err();
        assert_eq!(error.kind(), Kind::DoesNotOpen);
        opened += 1;
    }
    // 3. It opens after a rotation and a restart as well, and moves on to the next version and to other algorithms.
    let key = PublicKey::from_pem(&info.pem).unwrap();
    let label = Label { algorithm: info.algorithm, key_id: info.id, version: info.version };
    let blob = Base64(hpke::seal(&key, &label, &own.hash(), b"offline").unwrap());
    t.client.rotate_key(&name(KEY), &Default::default()).await.unwrap();
    t.key("other", "hpke-p256").await;
    let rewrap = |to: Option<&str>, ciphertext: &Base64| Rewrap {
        ciphertext: ciphertext.clone(),
        context: own.clone(),
        to: to.map(name),
    };
    let moved = t.client.rewrap(&name(KEY), &rewrap(None, &blob)).await.unwrap();
    assert_eq!(moved.version.number(), 2);
    let there = t.client.rewrap(&name(KEY), &rewrap(Some("other"), &blob)).await.unwrap();
    let back = t.client.rewrap(&name("other"), &rewrap(Some(KEY), &there.ciphertext)).await.unwrap();
    t.restart().await;
    for blob in [&blob, &moved.ciphertext, &back.ciphertext] {
        let found = t.client.unwrap(&name(KEY), &sealed(blob, &own)).await.unwrap();
        assert_eq!(found.plaintext.0.expose(), b"offline");
        opened += 1;
    }
    proven("ciphertexts of ml-kem-768 opened in a token", opened, "10 of them by another HPKE library");
}

#[tokio::test]
async fn everything_wrong_with_it_is_one_answer() {
    let Some(token) = Kryoptic::full() else { return };
    let t = server(token.settings()).await;
    let right = context(&[("tenant", "a")]);
    for key in [KEY, "other"] {
        t.key(key, "ml-kem-768").await;
    }
    let blob = t.client.wrap(&name(KEY), &plain(b"secret", &right)).await.unwrap().ciphertext;
    let other = t.client.wrap(&name("other"), &plain(b"secret", &right)).await.unwrap().ciphertext;
    let mut wrong = vec![
        ("another context", blob.clone(), context(&[("tenant", "b")])),
        ("no context", blob.clone(), Context::default()),
        ("another key's under our label", Base64([&blob.0[..24], &other.0[24..]].concat()), right.clone()),
        ("another key's", other, right.clone()),
    ];
    for position in [0, 3, 10, 23, 24, 600, 1111, 1112, 1150, blob.0.len() - 1] {
        let mut damaged = blob.clone();
        damaged.0[position] ^= 1;
        wrong.push(("a flipped bit", damaged, right.clone()));
    }
    for length in [24, 1111, 1112, 1159, blob.0.len() - 1] {
        wrong.push(("cut off", Base64(blob.0[..length].to_vec()), right.clone()));
    }
    let mut answers = BTreeSet::new();
    for (what, blob, context) in wrong {
        let error = t.client.unwrap(&name(KEY), &sealed(&blob, &context)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::DoesNotOpen, "{what}: {error:?}");
        answers.insert(error.public().split(" (").next().unwrap().to_owned());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    let opened = t.client.unwrap(&name(KEY), &sealed(&blob, &right)).await.unwrap();
    assert_eq!(opened.plaintext.0.expose(), b"secret");
}

#[tokio::test]
async fn what_the_token_says_of_such_a_key() {
    let Some(token) = Kryoptic::full() else { return };
    let t = server(token.settings()).await;
    t.key(KEY, "ml-kem-768").await;
    // 1. It cannot be wrapped in this token, and is refused by name, with what can.
    let wrapped = CreateKey { residency: Some(Residency::Wrapped), ..new_key("other", "ml-kem-768") };
    let error = t.client.create_key(&wrapped).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.public().contains("this token cannot wrap ml-kem-768 keys"), "{error}");
    assert!(error.mend().is_some_and(|mend| mend.contains("ml-kem-768 (resident)")), "{error:?}");
    // 2. It makes no codes and has no domain.
    let error = t.client.mac(&name(KEY), &MakeMac { message: Base64(vec![1]) }).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    // 3. It decapsulates and does nothing else, says the token, and signs that.
    let pinned = signet::server::attestation_key(&t.config, &"hsm".parse().unwrap()).unwrap();
    let text = t.client.attestation(&name(KEY), None, None).await.unwrap();
    Attestation::parse(text.as_bytes()).unwrap().verify(&Expected::of(pinned.clone())).unwrap();
    let other = text.replace(r#""CKA_DECAPSULATE": "true""#, r#""CKA_DECAPSULATE": "false""#);
    assert_ne!(text, other);
    let error = Attestation::parse(other.as_bytes()).unwrap().verify(&Expected::of(pinned)).unwrap_err();
    assert_eq!(error.kind(), Kind::DoesNotOpen);
}

#[tokio::test]
async fn devices_without_it_say_so() {
    let t = TestServer::with(Devices::WithTpm).await;
    let reasons = [
        ("hsm", Residency::Resident, "this token cannot make ml-kem-768 keys"),
        ("hsm", Residency::Wrapped, "this token cannot make ml-kem-768 keys"),
        ("tpm", Residency::Wrapped, "this driver knows no TPM that has ML-KEM"),
    ];
    for (device, residency, reason) in reasons {
        let new = CreateKey {
            device: Some(device.parse().unwrap()),
            residency: Some(residency),
            ..new_key("refused", "ml-kem-768")
        };
        let error = t.client.create_key(&new).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error:?}");
        assert!(error.public().contains(reason), "{error:?}");
        assert!(error.mend().is_some_and(|mend| mend.contains("hpke-p256")), "{error:?}");
    }
}

#[tokio::test]
async fn a_token_that_finds_a_wrong_secret_is_found_out() {
    let Some(token) = Kryoptic::full() else { return };
    let t = server(token.faulty_settings()).await;
    let none = Context::default();
    t.key(KEY, "ml-kem-768").await;
    let blob = t.client.wrap(&name(KEY), &plain(b"secret", &none)).await.unwrap().ciphertext;
    let open = async || t.client.unwrap(&name(KEY), &sealed(&blob, &none)).await;
    open().await.unwrap();
    // 1. The value of the secret is what is read of the object: one bit of it is another.
    token.plan("C_GetAttributeValue after=1 count=1 flip");
    let error = open().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Tampered, "{error:?}");
    token.plan("");
    assert_eq!(open().await.unwrap().plaintext.0.expose(), b"secret");
    // 2. The call fails once, before or after it was done: it is done again.
    for fault in ["pre=0x30", "post=0x30", "pre=0x05", "post=0x05"] {
        token.plan(&format!("C_DecapsulateKey count=1 {fault}"));
        let opened = eventually("it opens again", async || open().await.ok()).await;
        assert_eq!(opened.plaintext.0.expose(), b"secret", "{fault}");
        token.plan("");
    }
}
