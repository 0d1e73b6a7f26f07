//! Signatures with all that it takes to judge them: made through the front, judged without it.

use std::path::PathBuf;

use signet::attestation::Expected;
use signet::audit::HeadKeys;
use signet::bundle::{Artifact, Bundle};
use signet::types::{Algorithm, Domain, Name, PublicKey, sha256};
use signet::wire::CreateKey;

use crate::attest::run;
use crate::server::{Devices, TestServer, name, new_key};

struct Scene {
    t: TestServer,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn start() -> Self {
        Self { t: TestServer::with(Devices::WithTpm).await, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        self.file(name)
    }

    /// A key, and a bundle of it over a file of that name.
    async fn sign(&self, key: &str, algorithm: &str, device: &str, domain: Option<Domain>) {
        let new = CreateKey { device: Some(device.parse().unwrap()), domain, ..new_key(key, algorithm) };
        self.t.client.create_key(&new).await.unwrap();
        self.put(key, format!("the artifact of {key}"));
        self.bundle(key, key, &format!("{key}.bundle")).await;
    }

    async fn bundle(&self, key: &str, artifact: &str, bundle: &str) {
        let (artifact, bundle, out) = (self.file(artifact), self.file(bundle), self.file(&format!("{key}.sig")));
        let words = ["sign", key, &artifact, "--bundle", &bundle, "--out", &out, "--force"];
        run(Some(&self.t), &words, 0).await;
    }

    fn key_of(&self, device: &str) -> PublicKey {
        signet::server::attestation_key(&self.t.config, &device.parse::<Name>().unwrap()).unwrap()
    }
}

/// What a key signs, as its verifier has it.
fn artifact(bytes: &[u8], algorithm: Algorithm) -> Artifact {
    let input = algorithm.hash().map_or_else(|| bytes.to_vec(), |hash| hash.digest(bytes));
    Artifact { sha256: sha256(&[bytes]), input }
}

#[tokio::test]
async fn a_bundle_is_judged_without_the_service() {
    let mut scene = Scene::start().await;
    let keys: &[(&str, &str, &str, Option<Domain>)] = &[
        ("in-token", "ecdsa-p256-sha256", "hsm", None),
        ("edwards", "ed25519", "hsm", None),
        ("digests", "ecdsa-p384-sha384", "hsm", Some(Domain::Raw)),
        ("in-tpm", "rsa2048-pss-sha256", "tpm", None),
    ];
    for (key, algorithm, device, domain) in keys {
        scene.sign(key, algorithm, device, *domain).await;
    }
    scene.put("other", "another artifact");
    scene.bundle("in-token", "other", "other.bundle").await;
    let head = scene.t.client.audit_head().await.unwrap();
    let log = head.public_key + &head.ed25519_public_key.unwrap();
    let log_file = scene.put("log.pem", &log);
    for device in ["hsm", "tpm"] {
        scene.put(&format!("{device}.pem"), scene.key_of(device).to_pem().unwrap());
    }
    // 1. The service is gone.
    scene.t.stop().await;
    for (key, algorithm, device, _) in keys {
        let (file, bundle, pinned) =
            (scene.file(key), scene.file(&format!("{key}.bundle")), scene.file(&format!("{device}.pem")));
        let words = [
            "attest",
            "verify-bundle",
            &file,
            "--bundle",
            &bundle,
            "--attestation-key",
            &pinned,
            "--log-key",
            &log_file,
        ];
        let said = run(None, &[&words[..], &["--name", key]].concat(), 0).await;
        assert!(said.contains("over the artifact, by the attested key") && said.contains("as record "), "{said}");
        assert!(run(None, &[&words[..], &["--name", "other"]].concat(), 6).await.contains("about another key"));
        let wrong = if *device == "hsm" { "tpm.pem" } else { "hsm.pem" };
        let wrong = scene.file(wrong);
        let words = [
            "attest",
            "verify-bundle",
            &file,
            "--bundle",
            &bundle,
            "--attestation-key",
            &wrong,
            "--log-key",
            &log_file,
        ];
        assert!(run(None, &words, 6).await.contains("another one than was pinned"));
        let other = scene.file("other");
        let words = [
            "attest",
            "verify-bundle",
            &other,
            "--bundle",
            &bundle,
            "--attestation-key",
            &pinned,
            "--log-key",
            &log_file,
        ];
        assert!(run(None, &words, 6).await.contains("not one of the attested key over the artifact"), "{key}");
        let words =
            ["attest", "verify-bundle", &file, "--bundle", &bundle, "--attestation-key", &pinned, "--log-key", &pinned];
        assert!(run(None, &words, 6).await.contains("is not signed by the key"));
        no_byte_can_be_changed(&scene, key, algorithm.parse().unwrap(), device, &log);
    }
    // 2. Another record of the same log and key.
    let text = |name: &str| std::fs::read_to_string(scene.path(name)).unwrap();
    let proof = |text: &str| text.lines().find(|line| line.starts_with("  \"proof\"")).unwrap().to_owned();
    let (mine, other) = (text("in-token.bundle"), text("other.bundle"));
    let mixed = mine.replace(&proof(&mine), &proof(&other));
    let parsed = Bundle::parse(mixed.as_bytes()).unwrap();
    let log = HeadKeys::new(&signet::audit::public_keys_from_pem(&log).unwrap()).unwrap();
    let bytes = std::fs::read(scene.path("in-token")).unwrap();
    let expected = Expected { key: Some(name("in-token")), ..Expected::of(scene.key_of("hsm")) };
    let judged = parsed.verify(&artifact(&bytes, parsed.algorithm()), &expected, &log).unwrap_err();
    assert_eq!(judged.public(), "the record is that of the signing of something else");
    // 3. And that of another key.
    let mixed = mine.replace(&proof(&mine), &proof(&text("edwards.bundle")));
    let parsed = Bundle::parse(mixed.as_bytes()).unwrap();
    let judged = parsed.verify(&artifact(&bytes, parsed.algorithm()), &expected, &log).unwrap_err();
    assert_eq!(judged.public(), "the record is not that of a signing by this version");
}

fn no_byte_can_be_changed(scene: &Scene, key: &str, algorithm: Algorithm, device: &str, log: &str) {
    let (text, bytes) =
        (std::fs::read(scene.path(&format!("{key}.bundle"))).unwrap(), std::fs::read(scene.path(key)).unwrap());
    let (expected, log) = (
        Expected::of(scene.key_of(device)),
        HeadKeys::new(&signet::audit::public_keys_from_pem(log).unwrap()).unwrap(),
    );
    let artifact = artifact(&bytes, algorithm);
    let holds = |bytes: &[u8]| Bundle::parse(bytes).and_then(|one| one.verify(&artifact, &expected, &log)).is_ok();
    assert!(holds(&text));
    for at in 0..text.len() {
        let mut changed = text.clone();
        changed[at] ^= 1 << (at % 7);
        assert!(!holds(&changed), "byte {at} of {key}");
        if at % 16 == 0 {
            assert!(!holds(&text[..at]), "cut at {at}");
        }
    }
}
