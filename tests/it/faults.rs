//! A device on a bad day, through the front: errors, never a wrong result, a lost key or a key too many.

mod falsified;
mod issuing;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use signet::client::PageRequest;
use signet::error::{Error, Kind};
use signet::types::{Context, Residency, State, Version};
use signet::wire::{Base64, MakeMac, RevokeCertificate, RotateKey, ScheduleDestruction, Sign};

use crate::crash::resident_ids;
use crate::issuers::{root, server};
use crate::process::{eventually, house_ids};
use crate::server::{Devices, TestServer, name, new_key};
use crate::skip::skipped;
use crate::softhsm::copy_all;
use crate::wrap::{plain, sealed};

fn message(text: &[u8]) -> Sign {
    Sign { message: Some(Base64(text.to_vec())), ..Sign::default() }
}

/// Whether another program sees exactly the objects that the service knows.
async fn no_orphans(t: &TestServer) {
    let expected = resident_ids(&t.client).await;
    assert_eq!(t.hsm.ids(), expected.union(&house_ids(t.data())).cloned().collect());
}

#[tokio::test]
async fn a_falsified_result_is_an_error() {
    let t = TestServer::with(Devices::Faulty).await;
    let none = Context::default();
    for (key, algorithm) in [
        ("p256", "ecdsa-p256-sha256"),
        ("ed25519", "ed25519"),
        ("rsa", "rsa2048-pss-sha256"),
        ("data", "aes256-gcm-derived"),
    ] {
        t.key(key, algorithm).await;
    }
    t.key("codes", "hmac-sha256").await;
    let blob = t.client.wrap(&name("data"), &plain(b"secret", &none)).await.unwrap().ciphertext;
    let impatient = t.impatient_client();
    for fault in ["flip", "empty"] {
        for key in ["p256", "ed25519", "rsa", "wrap", "mac", "unwrap"] {
            // The sentinel may be the victim as well, and then the device is down for a moment.
            eventually("the device is sound", async || t.client(None).ready().await.ok()).await;
            t.hsm.plan(&format!("C_Sign {fault}\n"));
            let error: Error = match key {
                "wrap" => impatient.wrap(&name("data"), &plain(b"x", &none)).await.unwrap_err(),
                "mac" => impatient.mac(&name("codes"), &MakeMac { message: Base64(b"x".to_vec()) }).await.unwrap_err(),
                "unwrap" => impatient.unwrap(&name("data"), &sealed(&blob, &none)).await.unwrap_err(),
                key => impatient.sign(&name(key), &message(b"x")).await.unwrap_err(),
            };
            let expected =
                matches!(error.kind(), Kind::Tampered | Kind::Unavailable | Kind::DoesNotOpen | Kind::Internal);
            assert!(expected && !(key == "wrap" && error.kind() == Kind::DoesNotOpen), "{fault} {key}: {error:?}");
            t.hsm.plan("");
        }
    }
    eventually("it works again", async || t.client(None).ready().await.ok()).await;
    let opened = t.client.unwrap(&name("data"), &sealed(&blob, &none)).await.unwrap();
    assert_eq!(opened.plaintext.0.expose(), b"secret");
}

/// Faults while a key is made: a plan, and what is made under it.
const BIRTHS: &[(&str, &str, Residency)] = &[
    ("C_GenerateKeyPair pre=0x30 once", "ecdsa-p256-sha256", Residency::Resident),
    ("C_GenerateKeyPair post=0x30 once", "ecdsa-p256-sha256", Residency::Resident),
    ("C_GenerateKeyPair abort once", "ecdsa-p256-sha256", Residency::Resident),
    ("C_GenerateKeyPair abort_after once", "ecdsa-p256-sha256", Residency::Resident),
    ("C_GenerateKey pre=0x30 once", "aes256-gcm-derived", Residency::Resident),
    ("C_GenerateKey post=0x30 once", "aes256-gcm-derived", Residency::Resident),
    ("C_GenerateKey abort_after once", "aes256-gcm-derived", Residency::Resident),
    ("C_GenerateKey post=0x30 once", "aes256-gcm-derived", Residency::Wrapped),
    ("C_WrapKey pre=0x30 once", "aes256-gcm-derived", Residency::Wrapped),
    ("C_WrapKey post=0x30 once", "aes256-gcm-derived", Residency::Wrapped),
    ("C_UnwrapKey pre=0x30 once", "aes256-gcm-derived", Residency::Wrapped),
    ("C_UnwrapKey post=0x30 once", "aes256-gcm-derived", Residency::Wrapped),
    // The probe of the new key, or the sentinel.
    ("C_Sign pre=0x30 once", "ecdsa-p256-sha256", Residency::Resident),
    ("C_Sign flip once", "aes256-gcm-derived", Residency::Resident),
    // What was made cannot be destroyed, either.
    ("C_GenerateKeyPair post=0x30 once\nC_DestroyObject pre=0x30 once", "ecdsa-p256-sha256", Residency::Resident),
    ("C_GenerateKeyPair post=0x30 once\nC_DestroyObject post=0x30 once", "ecdsa-p256-sha256", Residency::Resident),
    ("C_GenerateKey post=0x30 once\nC_DestroyObject abort_after once", "aes256-gcm-derived", Residency::Resident),
];

#[tokio::test]
async fn a_key_is_made_once_whatever_fails_on_the_way() {
    let t = TestServer::with(Devices::Faulty).await;
    t.client.status().await.unwrap(); // What the device can do is found out by making keys: that comes first.
    for (number, (plan, algorithm, residency)) in BIRTHS.iter().enumerate() {
        let key = format!("key-{number}");
        let mut new = new_key(&key, algorithm);
        new.residency = Some(*residency);
        for latest in [1, 2] {
            t.hsm.plan(&format!("{plan}\n# {number} {latest}\n"));
            // The client tries again by itself, with the same idempotency key, where it is told that it may.
            let again = async || {
                let made = match latest {
                    1 => t.client.create_key(&new).await,
                    _ => t.client.rotate_key(&name(&key), &RotateKey::default()).await,
                };
                if let Err(error) = &made {
                    assert!(matches!(error.kind(), Kind::Unavailable | Kind::Tampered), "{plan}: {error:?}");
                }
                made.ok()
            };
            let made = eventually("the key is made", again).await;
            assert_eq!(made.latest.number(), latest, "{plan}");
            t.hsm.plan("");
            eventually("the device is sound", async || t.client(None).ready().await.ok()).await;
        }
    }
    // What could not be cleaned up at once was meanwhile, or is at the next tick.
    t.advance(SignedDuration::ZERO).await;
    no_orphans(&t).await;
    crate::crash::all_keys_work(&t.client).await;
}

#[tokio::test]
async fn a_wrapped_key_is_loaded_again_whatever_fails_on_the_way() {
    let mut t = TestServer::with(Devices::Faulty).await;
    let none = Context::default();
    let mut new = new_key("data", "aes256-gcm-derived");
    new.residency = Some(Residency::Wrapped);
    t.client.create_key(&new).await.unwrap();
    let blob = t.client.wrap(&name("data"), &plain(b"secret", &none)).await.unwrap().ciphertext;
    for plan in ["C_UnwrapKey pre=0x30 once", "C_UnwrapKey post=0x30 once", "C_UnwrapKey abort once"] {
        t.restart().await;
        t.hsm.plan(&format!("{plan}\n"));
        let opened = t.client.unwrap(&name("data"), &sealed(&blob, &none)).await.unwrap();
        assert_eq!(opened.plaintext.0.expose(), b"secret", "{plan}");
        t.hsm.plan("");
    }
}

#[tokio::test]
async fn a_version_is_destroyed_whatever_fails_on_the_way() {
    let t = TestServer::with(Devices::Faulty).await;
    let plans = [
        "C_DestroyObject pre=0x30 once",
        "C_DestroyObject post=0x30 once",
        "C_DestroyObject abort once",
        "C_DestroyObject abort_after once",
    ];
    for (number, plan) in plans.iter().enumerate() {
        let key = format!("key-{number}");
        t.key(&key, "ecdsa-p256-sha256").await;
        t.client.rotate_key(&name(&key), &RotateKey::default()).await.unwrap();
        let wait = ScheduleDestruction { after: Some("1d".parse().unwrap()) };
        t.client.schedule_destruction(&name(&key), Version::FIRST, &wait).await.unwrap();
        t.hsm.plan(&format!("{plan}\n"));
        let first = t.advance(SignedDuration::from_hours(25)).await;
        assert_eq!(first.destroyed + first.failed, 1, "{plan}: {first:?}");
        t.hsm.plan("");
        eventually("the version is destroyed", async || {
            t.advance(SignedDuration::ZERO).await;
            let version = t.client.version(&name(&key), Version::FIRST).await.unwrap();
            (version.state == State::Destroyed).then_some(())
        })
        .await;
        // The number is never given again.
        let rotated = t.client.rotate_key(&name(&key), &RotateKey::default()).await.unwrap();
        assert_eq!(rotated.latest.number(), 3);
    }
    no_orphans(&t).await;
}

#[tokio::test]
async fn a_token_that_is_taken_out_costs_errors_and_nothing_else() {
    let t = TestServer::with(Devices::WithTpm).await;
    let none = Context::default();
    t.key("data", "aes256-gcm-derived").await;
    t.key("release", "ecdsa-p256-sha256").await;
    let mut new = new_key("elsewhere", "aes256-gcm-derived");
    new.device = Some("tpm".parse().unwrap());
    t.client.create_key(&new).await.unwrap();
    let blob = t.client.wrap(&name("data"), &plain(b"secret", &none)).await.unwrap().ciphertext;
    let other = t.client.wrap(&name("elsewhere"), &plain(b"secret", &none)).await.unwrap().ciphertext;
    eventually("it is ready", async || t.client(None).ready().await.ok()).await;
    let (ids, impatient) = (t.hsm.ids(), t.impatient_client());
    let keys = t.client.keys(None, &PageRequest::default()).await.unwrap().items.len();
    for _ in 0..2 {
        let began = Instant::now();
        t.hsm.take_out();
        eventually("it is not ready any more", async || t.client(None).ready().await.err()).await;
        // Five seconds, and some for a machine that is busy with other tests.
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        for _ in 0..10 {
            let errors = [
                impatient.wrap(&name("data"), &plain(b"x", &none)).await.unwrap_err(),
                impatient.unwrap(&name("data"), &sealed(&blob, &none)).await.unwrap_err(),
                impatient.sign(&name("release"), &message(b"x")).await.unwrap_err(),
                impatient.create_key(&new_key("new", "hmac-sha256")).await.unwrap_err(),
                impatient.rotate_key(&name("data"), &RotateKey::default()).await.unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
            }
            assert_eq!(unavailable(&t).await, (503, true));
            impatient.live().await.unwrap();
            // The other device does not notice.
            let opened = impatient.unwrap(&name("elsewhere"), &sealed(&other, &none)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), b"secret");
            impatient.key(&name("data")).await.unwrap();
        }
        t.hsm.put_back();
        eventually("it is ready by itself", async || t.client(None).ready().await.ok()).await;
        let opened = t.client.unwrap(&name("data"), &sealed(&blob, &none)).await.unwrap();
        assert_eq!(opened.plaintext.0.expose(), b"secret");
        t.client.wrap(&name("data"), &plain(b"x", &none)).await.unwrap();
        // Unfinished versions are looked at with each tick.
        t.advance(SignedDuration::ZERO).await;
        assert_eq!(t.hsm.ids(), ids);
        assert_eq!(t.client.keys(None, &PageRequest::default()).await.unwrap().items.len(), keys);
    }
}

/// The status of an answer as it goes over the wire, and whether it says when to come back.
async fn unavailable(t: &TestServer) -> (u16, bool) {
    // Another test may have done so before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = std::fs::read(t.server().own_authority().unwrap()).unwrap();
    let authority = reqwest::Certificate::from_pem(&authority).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let url = format!("https://{}/api/v1/keys/data/rotate", t.server().address());
    let answer = http.post(url).bearer_auth(t.token()).send().await.unwrap();
    (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
}

#[tokio::test]
async fn a_library_that_hangs_keeps_nobody_waiting_beyond_the_deadline() {
    let t = TestServer::with(Devices::FaultyWithTpm).await;
    let none = Context::default();
    t.key("data", "aes256-gcm-derived").await;
    t.key("release", "ecdsa-p256-sha256").await;
    let mut new = new_key("elsewhere", "aes256-gcm-derived");
    new.device = Some("tpm".parse().unwrap());
    t.client.create_key(&new).await.unwrap();
    let other = t.client.wrap(&name("elsewhere"), &plain(b"secret", &none)).await.unwrap().ciphertext;
    eventually("it is ready", async || t.client(None).ready().await.ok()).await;
    let impatient = t.impatient_client();
    t.hsm.plan("C_Sign hang once\n");
    let hung = async {
        let (began, key, body) = (Instant::now(), name("data"), plain(b"x", &none));
        let outcome = impatient.wrap(&key, &body).await;
        (outcome, began.elapsed())
    };
    let meanwhile = async {
        for _ in 0..20 {
            let opened = t.client.unwrap(&name("elsewhere"), &sealed(&other, &none)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), b"secret");
        }
    };
    let ((outcome, took), ()) = tokio::join!(hung, meanwhile);
    if let Err(error) = outcome {
        assert!(matches!(error.kind(), Kind::Unavailable | Kind::Busy), "{error:?}");
    }
    // Two seconds for the call and as much for its check, and some for a machine that is busy with other tests.
    assert!(took < Duration::from_secs(10), "{took:?}");
    // By itself, for everybody.
    eventually("it is ready by itself", async || t.client(None).ready().await.ok()).await;
    t.client.wrap(&name("data"), &plain(b"x", &none)).await.unwrap();
    t.client.sign(&name("release"), &message(b"x")).await.unwrap();
}

#[tokio::test]
async fn looking_after_unfinished_versions_takes_none_that_was_finished_meanwhile() {
    let t = TestServer::with(Devices::Faulty).await;
    t.key("release", "ecdsa-p256-sha256").await;
    let impatient = t.impatient_client();
    for round in 0..4 {
        // 1. Some versions that failed and could not be cleaned up.
        t.hsm.plan("C_GenerateKeyPair post=0x30\nC_DestroyObject pre=0x30\n");
        for number in 0..4 {
            let new = new_key(&format!("failed-{round}-{number}"), "ecdsa-p256-sha256");
            impatient.create_key(&new).await.unwrap_err();
        }
        // 2. They are looked after one by one, while one that was unfinished when that began is finished.
        t.hsm.plan("C_GenerateKeyPair delay_ms=200\nC_DestroyObject delay_ms=50\n");
        let rotate = async { t.client.rotate_key(&name("release"), &RotateKey::default()).await.unwrap() };
        let look = async {
            tokio::time::sleep(Duration::from_millis(100)).await; // The device is at it.
            t.advance(SignedDuration::ZERO).await
        };
        tokio::join!(rotate, look);
        t.hsm.plan("");
        t.client.sign(&name("release"), &message(b"x")).await.unwrap();
    }
    t.advance(SignedDuration::ZERO).await;
    no_orphans(&t).await;
    crate::crash::all_keys_work(&t.client).await;
}

/// A file system of half a megabyte at a folder, with what stood there before.
struct SmallDisk<'p>(&'p Path);

impl<'p> SmallDisk<'p> {
    fn under(folder: &'p Path) -> Option<Self> {
        let aside = folder.with_extension("aside");
        std::fs::rename(folder, &aside).unwrap();
        std::fs::create_dir(folder).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs"]).arg(folder).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            skipped("no right to mount a tmpfs");
            return None;
        }
        copy_all(&aside, folder);
        Some(Self(folder))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}

#[tokio::test]
async fn a_revocation_that_finds_no_room_in_the_log_counts_and_is_recorded_in_the_end() {
    let mut t = TestServer::start().await;
    root(&t, "ca").await;
    let leaf = server(&t, "ca", "dns:a.example").await;
    t.stop().await;
    let audit = t.data().join("audit");
    let Some(_disk) = SmallDisk::under(&audit) else { return };
    t.start_again().await.unwrap();
    let ballast = audit.join("ballast");
    let mut file = File::create(&ballast).unwrap();
    while file.write_all(&[7; 1024]).is_ok() {}
    while file.write_all(&[7]).is_ok() {}
    let client = t.impatient_client();
    // The last page of the log has room for some records.
    while client.certificate(&leaf.serial).await.is_ok() {}
    let refused = client.revoke(&leaf.serial, &RevokeCertificate::default()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Unavailable, "{refused}");
    // It was made, so it counts: nobody is told that the certificate is good.
    let (ca, serial) = ("ca".parse().unwrap(), leaf.serial.parse().unwrap());
    let revoked = || t.server().service().authority().revocation(&ca, leaf.version, &serial).is_some();
    let made = revoked();
    // Nothing is acknowledged before the log knows of it.
    assert_eq!(client.certificate(&leaf.serial).await.unwrap_err().kind(), Kind::Unavailable);
    drop(file);
    std::fs::remove_file(&ballast).unwrap();
    eventually("the service goes on by itself", async || client.certificate(&leaf.serial).await.ok()).await;
    let records = client.audit_records(0, Some(1000)).await.unwrap().records;
    let changes = records.iter().filter(|one| one["phase"] == "change" && one["action"] == "RevokeCertificate").count();
    assert_eq!((made, changes), (revoked(), usize::from(made)), "made, and on record");
}
