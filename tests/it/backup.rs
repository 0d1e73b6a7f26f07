//! A backup that is taken under load and restored elsewhere.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join;
use signet::client::Client;
use signet::error::Kind;
use signet::server::restore;
use signet::types::{Context, Residency, Rotation};
use signet::wire::{Base64, CreateToken, RotateKey};

use crate::crash::{all_keys_work, resident_ids};
use crate::process::{eventually, house_ids};
use crate::server::{Devices, TestServer, name, new_key};
use crate::wrap::{plain, sealed};

/// The whole archive.
pub(crate) async fn download(client: &Client) -> Vec<u8> {
    let mut download = client.backup().await.unwrap();
    let mut archive = Vec::new();
    while let Some(piece) = download.piece().await.unwrap() {
        archive.extend_from_slice(&piece);
    }
    archive
}

/// A server with keys of every kind, a backup of it that was taken under load, and the ciphertexts of before.
struct Saved {
    t: TestServer,
    archive: PathBuf,
    blobs: Vec<(&'static str, Base64)>,
    folder: tempfile::TempDir,
}

impl Saved {
    async fn make() -> Self {
        let t = TestServer::with(Devices::WithTpm).await;
        let folder = tempfile::tempdir().unwrap();
        let none = Context::default();
        let kinds = [("resident", "hsm", Residency::Resident), ("wrapped", "hsm", Residency::Wrapped)];
        for (key, device, residency) in kinds.into_iter().chain([("tpm", "tpm", Residency::Wrapped)]) {
            let mut new = new_key(key, "aes256-gcm-derived");
            (new.device, new.residency) = (Some(device.parse().unwrap()), Some(residency));
            t.client.create_key(&new).await.unwrap();
        }
        t.key("release", "ecdsa-p256-sha256").await;
        let mut counted = new_key("counted", "aes256-gcm-derived");
        counted.rotation = Rotation { after_uses: Some(1000), ..Rotation::default() };
        t.client.create_key(&counted).await.unwrap();
        t.key("cipher", "aes256-gcm").await;
        let mut blobs = Vec::new();
        for _ in 0..2 {
            for key in ["resident", "wrapped", "tpm", "counted", "cipher"] {
                blobs.push((key, t.client.wrap(&name(key), &plain(b"old", &none)).await.unwrap().ciphertext));
            }
            t.client.rotate_key(&name("resident"), &RotateKey::default()).await.unwrap();
        }
        let over = AtomicBool::new(false);
        let load = async {
            let mut round = 0;
            while !over.load(Ordering::SeqCst) {
                round += 1;
                t.client.wrap(&name("counted"), &plain(b"load", &none)).await.unwrap();
                t.client.rotate_key(&name("wrapped"), &RotateKey::default()).await.unwrap();
                t.key(&format!("load-{round}"), "hmac-sha256").await;
            }
        };
        let take = async {
            let mut archives = Vec::new();
            for _ in 0..3 {
                archives.push(download(&t.client).await);
            }
            over.store(true, Ordering::SeqCst);
            archives.pop().unwrap()
        };
        let ((), bytes) = join(load, take).await;
        let archive = folder.path().join("signet.tar");
        fs::write(&archive, bytes).unwrap();
        Self { t, archive, blobs, folder }
    }

    fn elsewhere(&self) -> PathBuf {
        self.folder.path().join("elsewhere")
    }
}

async fn token(t: &TestServer) -> (String, String) {
    let body = CreateToken { identity: "somebody".parse().unwrap(), groups: vec![], ttl: None, uses: None };
    let made = t.client.create_token(&body).await.unwrap();
    (made.info.id, made.token.unwrap().0.clone())
}

#[tokio::test]
async fn a_backup_brings_back_every_ciphertext_and_no_token() {
    let mut saved = Saved::make().await;
    let t = &saved.t;
    // 1. Tokens of before and after the backup, revoked and not, and a rotation that the backup does not know.
    let (before, spare) = (token(t).await, token(t).await);
    t.client.revoke_token(&before.0).await.unwrap();
    fs::write(&saved.archive, download(&t.client).await).unwrap();
    t.client.revoke_token(&spare.0).await.unwrap();
    let after = token(t).await;
    t.client.rotate_key(&name("counted"), &RotateKey::default()).await.unwrap();
    t.key("after", "hmac-sha256").await;
    let counted = t.client.key(&name("counted")).await.unwrap().latest.number();
    let listed = t.client.keys(None, &signet::client::PageRequest { size: Some(1000), token: None }).await.unwrap();
    let administrator = t.token().to_owned();
    // 2. Restored into an empty folder on another path.
    let manifest = restore(&saved.archive, &saved.elsewhere()).unwrap().manifest;
    for (key, device) in [("resident", "hsm"), ("wrapped", "hsm"), ("tpm", "tpm"), ("release", "hsm")] {
        let bound = manifest.bound_to_device.iter().filter(|one| one.key == name(key));
        let devices: Vec<_> = bound.map(|one| one.device.as_str()).collect();
        assert!(!devices.is_empty() && devices.iter().all(|one| *one == device), "{key}: {devices:?}");
    }
    assert_eq!(manifest.bound_to_device.iter().filter(|one| one.key == name("resident")).count(), 3);
    let again = restore(&saved.archive, &saved.elsewhere()).unwrap_err();
    assert_eq!(again.kind(), Kind::Conflict);
    let objects = t.hsm.ids();
    // 3. Started there with the same devices.
    let elsewhere = saved.elsewhere();
    saved.t.stop().await;
    saved.t.config.data = elsewhere.clone();
    // It is older than what the devices vouch for, and an operator has to say that this is wanted.
    assert_eq!(saved.t.start_again().await.expect_err("an older state").kind(), Kind::Tampered);
    saved.t.accept_rollback().await.unwrap();
    saved.t.renew_administrator().await;
    let t = &saved.t;
    eventually("it is ready", async || t.client(None).ready().await.ok()).await;
    for (key, blob) in &saved.blobs {
        let opened = t.client.unwrap(&name(key), &sealed(blob, &Context::default())).await.unwrap();
        assert_eq!(opened.plaintext.0.expose(), b"old", "{key}");
    }
    for dead in [&before.1, &spare.1, &after.1, &administrator] {
        assert_eq!(t.client(Some(dead)).whoami().await.unwrap_err().kind(), Kind::Unauthenticated);
    }
    // A version of the same number was made after the backup: two objects of one id must never be.
    let now = t.client.key(&name("counted")).await.unwrap();
    assert!(now.latest.number() > counted && now.primary == Some(now.latest), "{now:?}");
    // Nobody knows how often the old version encrypted after the backup.
    assert_eq!(t.client.key(&name("cipher")).await.unwrap().primary.unwrap().number(), 2);
    let lost = t.client.version(&name("counted"), signet::types::Version::new(counted).unwrap()).await.unwrap();
    assert_eq!(lost.state, signet::types::State::Destroyed);
    all_keys_work(&t.client).await;
    assert!(!elsewhere.join("restored").exists());
    // 4. The gap is on record for ever, and what nobody knows any more is reported.
    let records = t.client.audit_records(0, Some(1000)).await.unwrap();
    let gap =
        |record: &serde_json::Value| record["reason"].as_str().is_some_and(|why| why.contains("from a backup of"));
    assert!(records.records.iter().any(gap));
    let problems = t.client.status().await.unwrap().problems;
    let mine = resident_ids(&t.client).await.union(&house_ids(&elsewhere)).cloned().collect();
    for stranger in t.hsm.ids().difference(&mine) {
        assert!(problems.iter().any(|text| text.contains(&stranger[..32])), "{stranger}: {problems:?}");
    }
    // Nothing in the token was destroyed: whoever restored the wrong backup takes another one.
    assert!(objects.is_subset(&t.hsm.ids()));
    let lost = listed.items.iter().find(|key| key.name == name("after")).unwrap();
    assert!(problems.iter().any(|text| text.contains(&lost.id.to_string())), "{problems:?}");
    saved.t.stop().await;
    let report = signet::audit::verify(&elsewhere.join("audit"), None).unwrap();
    assert!(report.is_good(), "{:?}", report.problems);
}

#[tokio::test]
async fn an_archive_that_was_changed_is_refused_and_never_starts() {
    let mut saved = Saved::make().await;
    let whole = fs::read(&saved.archive).unwrap();
    let cases: Vec<(String, Vec<u8>)> = damaged(&whole);
    assert!(cases.len() > 20);
    saved.t.stop().await;
    for (what, bytes) in cases {
        let (archive, data) = (saved.folder.path().join("damaged.tar"), saved.elsewhere());
        fs::write(&archive, bytes).unwrap();
        let error = restore(&archive, &data).expect_err(&what);
        assert!(matches!(error.kind(), Kind::Tampered | Kind::Unavailable), "{what}: {error:?}");
        // What is there by then is no installation.
        saved.t.config.data = data.clone();
        let started = saved.t.start_again().await.expect_err(&what);
        assert!(matches!(started.kind(), Kind::Tampered | Kind::NotFound), "{what}: {started:?}");
        fs::remove_dir_all(&data).unwrap();
    }
    // As it was, it is restored: nothing above was refused for another reason.
    restore(&saved.archive, &saved.elsewhere()).unwrap();
}

/// Archives that are not whole: a byte flipped in each file, cut at each file, a file too many or too few.
fn damaged(whole: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut cases = Vec::new();
    let mut tar = tar::Archive::new(whole);
    let entries: Vec<_> = tar
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            (name, usize::try_from(entry.raw_file_position()).unwrap(), usize::try_from(entry.size()).unwrap())
        })
        .collect();
    for (name, start, size) in &entries {
        for at in [0, size / 2, size.saturating_sub(1)] {
            let mut flipped = whole.to_vec();
            flipped[start + at] ^= 1;
            // A letter of the manifest's own words may change without a change of what it says of the files.
            if name != "manifest.json" {
                cases.push((format!("{name}: byte {at} flipped"), flipped));
            }
        }
        cases.push((format!("cut before {name}"), whole[..start - 512].to_vec()));
        cases.push((format!("cut within {name}"), whole[..start + size / 2].to_vec()));
    }
    let rebuilt = |skip: Option<&str>, extra: Option<&str>| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut append = |name: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o600);
            header.set_cksum();
            tar.append_data(&mut header, name, content).unwrap();
        };
        for (name, start, size) in entries.iter().filter(|(name, ..)| Some(name.as_str()) != skip) {
            append(name, &whole[*start..start + size]);
        }
        if let Some(extra) = extra {
            append(extra, b"extra");
        }
        tar.into_inner().unwrap()
    };
    cases.push(("a file too many".to_owned(), rebuilt(None, Some("extra"))));
    cases.push(("a segment too many".to_owned(), rebuilt(None, Some("audit/99999999999999999999.jsonl"))));
    cases.push(("a mark of its own".to_owned(), rebuilt(None, Some("restored"))));
    for (name, ..) in &entries {
        cases.push((format!("without {name}"), rebuilt(Some(name), None)));
    }
    cases
}
