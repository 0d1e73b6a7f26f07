//! Wrap, unwrap, rewrap, data keys.

use std::collections::BTreeMap;

use signet::ciphertext::{Label, hpke};
use signet::error::Kind;
use signet::types::{Context, PublicKey, SecretBytes};
use signet::wire::{Base64, Batch, GenerateDataKey, Rewrap, SecretBase64, Unwrap, Wrap};

use crate::server::{Devices, TestServer, name, new_key};

pub(crate) fn context(entries: &[(&str, &str)]) -> Context {
    let entries: BTreeMap<_, _> = entries.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Context::new(entries).unwrap()
}

pub(crate) fn plain(text: &[u8], context: &Context) -> Wrap {
    Wrap { plaintext: SecretBase64(SecretBytes::new(text.to_vec())), context: context.clone() }
}

pub(crate) fn sealed(blob: &Base64, context: &Context) -> Unwrap {
    Unwrap { ciphertext: blob.clone(), context: context.clone(), danger_allow_compromised: false }
}

#[tokio::test]
async fn what_was_wrapped_unwraps_on_both_devices() {
    let t = TestServer::with(Devices::WithTpm).await;
    let none = Context::default();
    for (device, residency) in [("hsm", "resident"), ("hsm", "wrapped"), ("tpm", "wrapped")] {
        let text = format!("{device}-{residency}");
        let mut new = new_key(&text, "aes256-gcm-derived");
        (new.device, new.residency) = (Some(device.parse().unwrap()), Some(residency.parse().unwrap()));
        let key = t.client.create_key(&new).await.unwrap();
        assert_eq!(key.primary, Some(signet::types::Version::FIRST));
        for size in [0, 1, 32, 65_536] {
            let secret = vec![7; size];
            let wrapped = t.client.wrap(&name(&text), &plain(&secret, &none)).await.unwrap();
            let opened = t.client.unwrap(&name(&text), &sealed(&wrapped.ciphertext, &none)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), secret, "{text} {size}");
        }
        let over = t.client.wrap(&name(&text), &plain(&vec![0; 65_537], &none)).await.unwrap_err();
        assert_eq!(over.kind(), Kind::Limit);
    }
}

#[tokio::test]
async fn everything_wrong_with_a_ciphertext_is_one_answer() {
    let t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    t.key("other", "aes256-gcm-derived").await;
    let right = context(&[("tenant", "a")]);
    let blob = t.client.wrap(&name("data"), &plain(b"secret", &right)).await.unwrap().ciphertext;
    let mut wrong = vec![
        ("another context", name("data"), blob.clone(), context(&[("tenant", "b")])),
        ("no context", name("data"), blob.clone(), Context::default()),
        ("another key", name("other"), blob.clone(), right.clone()),
        ("nothing", name("data"), Base64(Vec::new()), right.clone()),
        ("noise", name("data"), Base64(vec![7; 200]), right.clone()),
    ];
    for position in [0, 2, 3, 10, 22, 30, 60, 100, blob.0.len() - 1] {
        let mut damaged = blob.clone();
        damaged.0[position] ^= 1;
        wrong.push(("a flipped bit", name("data"), damaged, right.clone()));
    }
    for length in [1, 55, 56, 88, blob.0.len() - 1] {
        wrong.push(("cut off", name("data"), Base64(blob.0[..length].to_vec()), right.clone()));
    }
    let mut answers = std::collections::BTreeSet::new();
    for (what, key, blob, context) in wrong {
        let error = t.client.unwrap(&key, &sealed(&blob, &context)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::DoesNotOpen, "{what}: {error:?}");
        answers.insert(error.public().split(" (").next().unwrap().to_owned());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    // The precise reason is in the audit record only.
    let records = t.client.audit_records(0, Some(1000)).await.unwrap();
    let reasons: std::collections::BTreeSet<_> = records
        .records
        .iter()
        .filter(|record| record["outcome"] == "does_not_open")
        .map(|record| record["reason"].as_str().unwrap().to_owned())
        .collect();
    assert!(reasons.len() > 4, "{reasons:?}");
}

#[tokio::test]
async fn a_ciphertext_moves_to_the_newest_version_and_to_another_key() {
    let t = TestServer::start().await;
    t.key("old", "aes256-gcm-derived").await;
    t.key("new", "aes256-gcm-derived").await;
    let own = context(&[("file", "1")]);
    let first = t.client.wrap(&name("old"), &plain(b"secret", &own)).await.unwrap();
    t.client.rotate_key(&name("old"), &Default::default()).await.unwrap();
    let rewrap =
        |to: Option<&str>| Rewrap { ciphertext: first.ciphertext.clone(), context: own.clone(), to: to.map(name) };
    let second = t.client.rewrap(&name("old"), &rewrap(None)).await.unwrap();
    assert_eq!((first.version.number(), second.version.number()), (1, 2));
    let moved = t.client.rewrap(&name("old"), &rewrap(Some("new"))).await.unwrap();
    for (key, blob) in [("old", &first), ("old", &second), ("new", &moved)] {
        let opened = t.client.unwrap(&name(key), &sealed(&blob.ciphertext, &own)).await.unwrap();
        assert_eq!(opened.plaintext.0.expose(), b"secret");
    }
    let wrong = Rewrap { context: Context::default(), ..rewrap(None) };
    assert_eq!(t.client.rewrap(&name("old"), &wrong).await.unwrap_err().kind(), Kind::DoesNotOpen);
}

#[tokio::test]
async fn data_keys_come_with_and_without_their_plaintext() {
    let t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    let none = Context::default();
    let ask = |length, plaintext| GenerateDataKey { length, context: Context::default(), plaintext };
    let with = t.client.datakey(&name("data"), &ask(32, true)).await.unwrap();
    let opened = t.client.unwrap(&name("data"), &sealed(&with.ciphertext, &none)).await.unwrap();
    assert_eq!(opened.plaintext.0.expose(), with.plaintext.unwrap().0.expose());
    let without = t.client.datakey(&name("data"), &ask(64, false)).await.unwrap();
    assert!(without.plaintext.is_none());
    let opened = t.client.unwrap(&name("data"), &sealed(&without.ciphertext, &none)).await.unwrap();
    assert_eq!(opened.plaintext.0.expose().len(), 64);
    for length in [0, 15, 65] {
        assert_eq!(t.client.datakey(&name("data"), &ask(length, true)).await.unwrap_err().kind(), Kind::Invalid);
    }
}

#[tokio::test]
async fn a_batch_of_a_thousand_opens_across_versions() {
    let t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    let none = Context::default();
    let mut blobs = Vec::new();
    for version in 0..4 {
        let items = (0..250).map(|n| plain(format!("{version}-{n}").as_bytes(), &none)).collect();
        let results = t.client.wrap_batch(&name("data"), &Batch { items }).await.unwrap().results;
        blobs.extend(results.into_iter().map(|one| one.ok.unwrap()));
        t.client.rotate_key(&name("data"), &Default::default()).await.unwrap();
    }
    let mut items: Vec<_> = blobs.iter().map(|blob| sealed(&blob.ciphertext, &none)).collect();
    items[500].ciphertext.0[70] ^= 1;
    let results = t.client.unwrap_batch(&name("data"), &Batch { items }).await.unwrap().results;
    for (n, result) in results.iter().enumerate() {
        match &result.ok {
            Some(opened) => {
                assert_eq!(opened.plaintext.0.expose(), format!("{}-{}", n / 250, n % 250).as_bytes());
                assert_eq!(opened.version.number() as usize, 1 + n / 250);
            }
            None => assert_eq!((n, result.error.as_ref().unwrap().code.as_str()), (500, "does_not_open")),
        }
    }
}

#[tokio::test]
async fn a_compromised_version_opens_only_by_an_explicit_override() {
    let t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    let none = Context::default();
    let wrapped = t.client.wrap(&name("data"), &plain(b"secret", &none)).await.unwrap();
    t.client.rotate_key(&name("data"), &Default::default()).await.unwrap();
    t.client.change_version(&name("data"), wrapped.version, signet::client::Transition::Compromise).await.unwrap();
    let ask = |danger_allow_compromised| Unwrap { danger_allow_compromised, ..sealed(&wrapped.ciphertext, &none) };
    assert_eq!(t.client.unwrap(&name("data"), &ask(false)).await.unwrap_err().kind(), Kind::State);
    assert_eq!(t.client.unwrap(&name("data"), &ask(true)).await.unwrap().plaintext.0.expose(), b"secret");
}

/// Keys of `hpke-p256` in each device and residency.
async fn inboxes(t: &TestServer) -> Vec<String> {
    let mut all = Vec::new();
    for (device, residency) in [("hsm", "resident"), ("hsm", "wrapped"), ("tpm", "wrapped")] {
        let text = format!("inbox-{device}-{residency}");
        let mut new = new_key(&text, "hpke-p256");
        (new.device, new.residency) = (Some(device.parse().unwrap()), Some(residency.parse().unwrap()));
        t.client.create_key(&new).await.unwrap();
        all.push(text);
    }
    all
}

#[tokio::test]
async fn whoever_has_the_public_key_wraps_and_the_device_unwraps() {
    let t = TestServer::with(Devices::WithTpm).await;
    let own = context(&[("tenant", "a"), ("file", "2026/ü")]);
    for inbox in inboxes(&t).await {
        // 1. The service wraps as everybody does, and its own batches, data keys and rewraps work.
        for size in [0, 1, 32, 65_536] {
            let secret = vec![7; size];
            let wrapped = t.client.wrap(&name(&inbox), &plain(&secret, &own)).await.unwrap();
            let opened = t.client.unwrap(&name(&inbox), &sealed(&wrapped.ciphertext, &own)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), secret, "{inbox} {size}");
        }
        // 2. By the public key alone.
        let info = t.client.public_key(&name(&inbox), None).await.unwrap();
        assert_eq!((info.key.clone(), info.jwk["use"].as_str()), (name(&inbox), Some("enc")));
        let public = PublicKey::from_pem(&info.pem).unwrap();
        let label = Label { algorithm: info.algorithm, key_id: info.id, version: info.version };
        let blob = Base64(hpke::seal(&public, &label, &own.hash(), b"offline").unwrap());
        let opened = t.client.unwrap(&name(&inbox), &sealed(&blob, &own)).await.unwrap();
        assert_eq!(opened.plaintext.0.expose(), b"offline");
        // 3. It opens after a rotation as well, and moves on to the next version.
        t.client.rotate_key(&name(&inbox), &Default::default()).await.unwrap();
        let rewrap = Rewrap { ciphertext: blob.clone(), context: own.clone(), to: None };
        let moved = t.client.rewrap(&name(&inbox), &rewrap).await.unwrap();
        assert_eq!(moved.version.number(), 2);
        for blob in [&blob, &moved.ciphertext] {
            let opened = t.client.unwrap(&name(&inbox), &sealed(blob, &own)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), b"offline");
        }
        // 4. It signs nothing, and makes no codes.
        let error = t.client.mac(&name(&inbox), &signet::wire::MakeMac { message: Base64(vec![1]) }).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

#[tokio::test]
async fn everything_wrong_with_an_hpke_ciphertext_is_one_answer() {
    let t = TestServer::with(Devices::WithTpm).await;
    let right = context(&[("tenant", "a")]);
    for inbox in inboxes(&t).await {
        t.key(&format!("{inbox}-other"), "hpke-p256").await;
        let blob = t.client.wrap(&name(&inbox), &plain(b"secret", &right)).await.unwrap().ciphertext;
        let other =
            t.client.wrap(&name(&format!("{inbox}-other")), &plain(b"secret", &right)).await.unwrap().ciphertext;
        let swapped = Base64([&blob.0[..24], &other.0[24..]].concat());
        let mut wrong = vec![
            ("another context", blob.clone(), context(&[("tenant", "b")])),
            ("no context", blob.clone(), Context::default()),
            ("another key's", other, right.clone()),
            ("another key's under our label", swapped, right.clone()),
        ];
        for position in [0, 3, 10, 23, 24, 25, 60, 88, 89, 120, blob.0.len() - 1] {
            let mut damaged = blob.clone();
            damaged.0[position] ^= 1;
            wrong.push(("a flipped bit", damaged, right.clone()));
        }
        for length in [24, 88, 89, 136, blob.0.len() - 1] {
            wrong.push(("cut off", Base64(blob.0[..length].to_vec()), right.clone()));
        }
        let mut answers = std::collections::BTreeSet::new();
        for (what, blob, context) in wrong {
            let error = t.client.unwrap(&name(&inbox), &sealed(&blob, &context)).await.unwrap_err();
            assert_eq!(error.kind(), Kind::DoesNotOpen, "{what}: {error:?}");
            answers.insert(error.public().split(" (").next().unwrap().to_owned());
        }
        assert_eq!(answers.len(), 1, "{answers:?}");
    }
}

#[tokio::test]
async fn a_token_that_agrees_on_a_wrong_secret_is_found_out() {
    let t = TestServer::with(Devices::Faulty).await;
    let none = Context::default();
    t.key("inbox", "hpke-p256").await;
    let blob = t.client.wrap(&name("inbox"), &plain(b"secret", &none)).await.unwrap().ciphertext;
    let open = async || t.client.unwrap(&name("inbox"), &sealed(&blob, &none)).await;
    open().await.unwrap();
    // The value of the secret is what is read of the object: one bit of it is another.
    t.hsm.plan("C_GetAttributeValue after=1 count=1 flip");
    let error = open().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Tampered, "{error:?}");
    t.hsm.plan("");
    assert_eq!(open().await.unwrap().plaintext.0.expose(), b"secret");
}

#[tokio::test]
async fn blobs_of_two_hpke_libraries_open() {
    let Some(python) = crate::judges::judge("python") else { return };
    let t = TestServer::with(Devices::WithTpm).await;
    let own = context(&[("tenant", "a"), ("file", "2026/ü")]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/hpke_judge.py");
    let folder = tempfile::tempdir().unwrap();
    for inbox in inboxes(&t).await {
        let info = t.client.public_key(&name(&inbox), None).await.unwrap();
        let file = folder.path().join("key.json");
        std::fs::write(&file, serde_json::to_vec(&info).unwrap()).unwrap();
        for library in ["cryptography", "pyhpke"] {
            let mut judge = std::process::Command::new(&python);
            let said = judge.arg(script).arg(library).arg(&file).args(["größe", "tenant=a", "file=2026/ü"]).output();
            let said = said.unwrap();
            assert!(said.status.success(), "{library}: {}", String::from_utf8_lossy(&said.stderr));
            let blob = Base64(said.stdout);
            let opened = t.client.unwrap(&name(&inbox), &sealed(&blob, &own)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), "größe".as_bytes(), "{library}");
            let error = t.client.unwrap(&name(&inbox), &sealed(&blob, &Context::default())).await.unwrap_err();
            assert_eq!(error.kind(), Kind::DoesNotOpen, "{library}");
        }
    }
}

#[tokio::test]
async fn rsa_oaep_opens_in_the_tpm_and_a_token_without_it_says_so() {
    let t = TestServer::with(Devices::WithTpm).await;
    // 1. SoftHSM knows OAEP with SHA-1 only: refused by name, with what it can do.
    let mut new = new_key("refused", "rsa2048-oaep-sha256");
    new.device = Some("hsm".parse().unwrap());
    let error = t.client.create_key(&new).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error:?}");
    assert!(error.public().contains("rsa2048-oaep-sha256"), "{error:?}");
    assert!(error.mend().unwrap().contains("hpke-p256 (resident)"), "{error:?}");
    // 2. The TPM takes it.
    let own = context(&[("tenant", "a"), ("file", "2026/ü")]);
    let mut new = new_key("inbox", "rsa2048-oaep-sha256");
    new.device = Some("tpm".parse().unwrap());
    t.client.create_key(&new).await.unwrap();
    for size in [0, 1, 65_536] {
        let secret = vec![7; size];
        let wrapped = t.client.wrap(&name("inbox"), &plain(&secret, &own)).await.unwrap();
        let opened = t.client.unwrap(&name("inbox"), &sealed(&wrapped.ciphertext, &own)).await.unwrap();
        assert_eq!(opened.plaintext.0.expose(), secret, "{size}");
    }
    // 3. Everything wrong is one answer, and the TPM goes on.
    let blob = t.client.wrap(&name("inbox"), &plain(b"secret", &own)).await.unwrap().ciphertext;
    let mut wrong = vec![("no context", blob.clone(), Context::default())];
    for position in [3, 10, 23, 24, 100, 279, 280, 300, blob.0.len() - 1] {
        let mut damaged = blob.clone();
        damaged.0[position] ^= 1;
        wrong.push(("a flipped bit", damaged, own.clone()));
    }
    for length in [24, 200, 280, 312, blob.0.len() - 1] {
        wrong.push(("cut off", Base64(blob.0[..length].to_vec()), own.clone()));
    }
    let mut answers = std::collections::BTreeSet::new();
    for (what, blob, context) in wrong {
        let error = t.client.unwrap(&name("inbox"), &sealed(&blob, &context)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::DoesNotOpen, "{what}: {error:?}");
        answers.insert(error.public().split(" (").next().unwrap().to_owned());
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    let opened = t.client.unwrap(&name("inbox"), &sealed(&blob, &own)).await.unwrap();
    assert_eq!(opened.plaintext.0.expose(), b"secret");
    // 4. What openssl encrypts opens.
    let Some(python) = crate::judges::judge("python") else { return };
    let info = t.client.public_key(&name("inbox"), None).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.json");
    std::fs::write(&file, serde_json::to_vec(&info).unwrap()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/oaep_judge.py");
    let said =
        std::process::Command::new(python).arg(script).arg(&file).args(["größe", "tenant=a", "file=2026/ü"]).output();
    let said = said.unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let opened = t.client.unwrap(&name("inbox"), &sealed(&Base64(said.stdout), &own)).await.unwrap();
    assert_eq!(opened.plaintext.0.expose(), "größe".as_bytes());
}

#[tokio::test]
async fn a_ciphertext_moves_between_all_algorithms() {
    let t = TestServer::with(Devices::WithTpm).await;
    let own = context(&[("file", "1")]);
    let kinds = [
        ("hsm", "aes256-gcm-derived"),
        ("hsm", "aes256-gcm"),
        ("hsm", "hpke-p256"),
        ("tpm", "hpke-p256"),
        ("tpm", "rsa2048-oaep-sha256"),
    ];
    let keys: Vec<_> = kinds.iter().map(|(device, algorithm)| format!("{device}-{algorithm}")).collect();
    for (key, (device, algorithm)) in keys.iter().zip(kinds) {
        let mut new = new_key(key, algorithm);
        new.device = Some(device.parse().unwrap());
        t.client.create_key(&new).await.unwrap();
    }
    for from in &keys {
        let blob = t.client.wrap(&name(from), &plain(b"secret", &own)).await.unwrap().ciphertext;
        for to in &keys {
            let rewrap = Rewrap { ciphertext: blob.clone(), context: own.clone(), to: Some(name(to)) };
            let moved = t.client.rewrap(&name(from), &rewrap).await.unwrap();
            let opened = t.client.unwrap(&name(to), &sealed(&moved.ciphertext, &own)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), b"secret", "{from} to {to}");
            let wrong = t.client.unwrap(&name(to), &sealed(&moved.ciphertext, &Context::default())).await.unwrap_err();
            assert_eq!(wrong.kind(), Kind::DoesNotOpen, "{from} to {to}");
        }
    }
}
