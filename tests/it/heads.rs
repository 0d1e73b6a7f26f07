//! Heads of the log with two signatures: who judges them, what is noticed, and how a log gets its second key.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use signed_note::{Note, StandardVerifier, VerifierList};
use signet::audit::checkpoint::{Head, HeadKeys};
use signet::audit::{Log, Origin, Phase, Record, Settings as LogSettings, public_keys_from_pem};
use signet::device::{KeyRef, KeySpec, Settings, Worker};
use signet::error::Kind;
use signet::service::{HeadKey, Heads};
use signet::telemetry::Metrics;
use signet::types::{Action, Algorithm, Caller, KeyId, Name, Residency, Resource, Version};
use signet::wire::AuditHead;

use crate::attest::{make_older, run};
use crate::judges::judge;
use crate::process::{eventually, house_ids, log_keys};
use crate::proof::proven;
use crate::rollback::put_back;
use crate::server::{Devices, PROGRAM, TestServer, options};
use crate::softhsm::{SoftHsm, copy_all};

/// SoftHSM alone, and a TPM that keeps the keys of the house beside a SoftHSM that keeps the second key of the log.
async fn both() -> [TestServer; 2] {
    let mixed = TestServer::configured(Devices::WithTpm, |config| {
        config.root_device = "tpm".parse().unwrap();
        config.default_device = "tpm".parse().unwrap();
    });
    [TestServer::start().await, mixed.await]
}

/// A head of all that is in the log now.
async fn head(t: &TestServer) -> AuditHead {
    let size = t.client.status().await.unwrap().audit_size;
    eventually("a head of it", async || {
        let head = t.client.audit_head().await.unwrap();
        Head::parse(&head.note).is_ok_and(|head| head.size() >= size).then_some(head)
    })
    .await
}

/// What `signet audit verify` says of a folder.
async fn verified(folder: &Path, pem: &Path, code: i32) -> String {
    let (folder, pem) = (folder.to_str().unwrap(), pem.to_str().unwrap());
    run(None, &["audit", "verify", folder, "--public-key", pem], code).await
}

/// The keys of a log in files: both, and each alone.
struct Pinned(tempfile::TempDir);

impl Pinned {
    fn of(head: &AuditHead) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let second = head.ed25519_public_key.as_deref().unwrap();
        for (name, pem) in [("ecdsa", &head.public_key), ("ed25519", &second.to_owned())] {
            std::fs::write(folder.path().join(name), pem).unwrap();
        }
        std::fs::write(folder.path().join("both"), format!("{}{second}", head.public_key)).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_head_bears_two_signatures_that_others_verify_one_by_one() {
    for (mut t, first) in both().await.into_iter().zip(["hsm", "tpm"]) {
        t.key("release", "ecdsa-p256-sha256").await;
        let kept = head(&t).await;
        let pinned = Pinned::of(&kept);
        let status = t.client.status().await.unwrap();
        let keys: Vec<_> = status.audit_keys.iter().map(|key| format!("{} {}", key.algorithm, key.device)).collect();
        assert_eq!(keys, [format!("ecdsa-p256-sha256 {first}"), "ed25519 hsm".to_owned()]);
        // 1. A verifier of the Go world's notes knows type 1 alone, and with that key it is enough.
        let lines = run(Some(&t), &["audit", "head", "--verifier-key"], 0).await;
        let [_, ed25519] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines}") };
        let verifiers = |vkey: &str| VerifierList::new(vec![Box::new(StandardVerifier::new(vkey).unwrap())]);
        let note = Note::from_bytes(kept.note.as_bytes()).unwrap();
        let (right, unknown) = note.verify(&verifiers(ed25519)).unwrap();
        assert_eq!((right.len(), unknown.len()), (1, 1));
        let forged = kept.note.replacen('\n', "\n1", 1);
        assert!(Note::from_bytes(forged.as_bytes()).unwrap().verify(&verifiers(ed25519)).is_err());
        // 2. So says a program of the specification's words, with either key.
        if let Some(python) = judge("python") {
            let note = pinned.path("note");
            std::fs::write(&note, &kept.note).unwrap();
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/checkpoint_judge.py");
            for key in ["ecdsa", "ed25519"] {
                let said = Command::new(&python).arg(script).args([&note, &pinned.path(key)]).output().unwrap();
                let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
                let (log, size) = (kept.note.lines().next().unwrap(), kept.note.lines().nth(1).unwrap());
                assert_eq!(said.trim(), format!("{log} {size}"), "{key}");
            }
        }
        // 3. Ours, by all that it checks: the log, an export, a proof.
        run(Some(&t), &["audit", "head", "--public-key"], 0).await;
        let proof = run(Some(&t), &["audit", "proof", "0"], 0).await;
        let (file, www) = (pinned.path("proof"), pinned.path("www"));
        std::fs::write(&file, proof).unwrap();
        t.stop().await;
        let audit = t.data().join("audit");
        run(None, &["audit", "export", audit.to_str().unwrap(), www.to_str().unwrap()], 0).await;
        for (key, names) in
            [("ecdsa", &["ECDSA P-256"][..]), ("ed25519", &["Ed25519"]), ("both", &["ECDSA P-256", "Ed25519"])]
        {
            for what in [&audit, &www, &file] {
                let said = verified(what, &pinned.path(key), 0).await;
                let signatures = said.lines().find(|line| line.starts_with("signatures")).unwrap();
                for algorithm in ["ECDSA P-256", "Ed25519"] {
                    assert_eq!(signatures.contains(algorithm), names.contains(&algorithm), "{key}: {said}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_tpm_alone_signs_with_ecdsa_and_says_so() {
    let t = TestServer::with(Devices::Tpm).await;
    let head = head(&t).await;
    assert_eq!((head.ed25519_public_key, Head::parse(&head.note).unwrap().signers().len()), (None, 1));
    let said = run(Some(&t), &["status"], 0).await;
    assert!(said.lines().any(|line| line.starts_with("heads") && line.ends_with("ECDSA only, in tpm")), "{said}");
    assert_eq!(signet::server::upgrade(&t.config, &options(&t.clock)).await.unwrap_err().kind(), Kind::Conflict);
}

/// The notes of a file of heads, and how they are put back into one.
fn notes(heads: &str) -> Vec<(String, String)> {
    let entries = heads.split("signet-head 1 ").skip(1);
    let entry = |entry: &str| {
        let (first, note) = entry.split_once('\n').unwrap();
        (first.split_once(' ').unwrap().1.to_owned(), note.to_owned())
    };
    entries.map(entry).collect()
}

fn joined(notes: &[(String, String)]) -> String {
    let entry = |(rest, note): &(String, String)| format!("signet-head 1 {} {rest}\n{note}", note.len());
    notes.iter().map(entry).collect()
}

/// The note without the signature of that place.
fn stripped(note: &str, at: usize) -> String {
    let (text, signatures) = note.split_once("\n\n").unwrap();
    let rest = signatures.lines().enumerate().filter(|(n, _)| *n != at);
    format!("{text}\n\n{}", rest.map(|(_, line)| format!("{line}\n")).collect::<String>())
}

/// The note with another bit in the signature of that place.
fn falsified(note: &str, at: usize) -> String {
    let (text, signatures) = note.split_once("\n\n").unwrap();
    let lines = signatures.lines().enumerate().map(|(n, line)| {
        let place = line.len() - 20;
        let other = if &line[place..=place] == "A" { "B" } else { "A" };
        if n == at { format!("{}{other}{}\n", &line[..place], &line[place + 1..]) } else { format!("{line}\n") }
    });
    format!("{text}\n\n{}", lines.collect::<String>())
}

#[tokio::test]
async fn a_signature_that_is_wrong_or_gone_is_named() {
    type Change = fn(&str, usize) -> String;
    let mut t = TestServer::start().await;
    for key in ["one", "two", "three"] {
        t.key(key, "hmac-sha256").await;
        head(&t).await;
    }
    let pinned = Pinned::of(&head(&t).await);
    t.stop().await;
    let (audit, kept) = (t.data().join("audit"), tempfile::tempdir().unwrap());
    copy_all(t.data(), kept.path());
    let heads = std::fs::read_to_string(audit.join("heads")).unwrap();
    let all = notes(&heads);
    assert!(all.len() > 3 && joined(&all) == heads);
    let mut tried = 0;
    let last = all.len() - 1;
    for (change, how) in [(stripped as Change, "missing"), (falsified, "wrong")] {
        for (place, (algorithm, alone, other)) in
            [("ECDSA P-256", "ecdsa", "ed25519"), ("Ed25519", "ed25519", "ecdsa")].into_iter().enumerate()
        {
            // In the middle, at the end, and on each.
            for which in [1..2, last..all.len(), 0..all.len()] {
                let mut changed = all.clone();
                changed[which.clone()].iter_mut().for_each(|(_, note)| *note = change(note, place));
                std::fs::write(audit.join("heads"), joined(&changed)).unwrap();
                // 1. Whoever has the key is told; a second key that signed nothing at all may be another log's.
                let named = format!("its {algorithm} signature is {how}");
                let nothing = "no head is signed by the Ed25519 key";
                for key in ["both", alone] {
                    let said = verified(&audit, &pinned.path(key), 6).await;
                    assert!(said.contains(&named) || said.contains(nothing), "{key} {which:?}: {said}");
                }
                // 2. Who has the other one only learns that something is gone.
                let said = verified(&audit, &pinned.path(other), 0).await;
                assert_eq!(said.contains("lacks the signature"), how == "missing" && which.len() == 1, "{said}");
                // 3. Where it is the last head, the service does not start with it.
                if which.contains(&last) {
                    let error = t.start_again().await.expect_err("a head without one of its signatures");
                    assert!(error.kind() == Kind::Tampered && error.public().contains(&named), "{error:?}");
                }
                tried += 1;
                put_back(kept.path(), t.data(), &["audit"]);
            }
        }
    }
    t.start_again().await.unwrap();
    proven("signatures of heads taken away or changed", tried, "named by the auditor, and refused at a start");
}

#[tokio::test]
async fn an_older_log_gets_its_second_key_and_holds_as_a_whole() {
    let mut t = TestServer::start().await;
    t.stop().await;
    make_older(t.data(), &t.hsm).await;
    t.start_again().await.unwrap();
    // 1. As it was: one signature, and no word of another.
    let old = head(&t).await;
    assert_eq!(old.ed25519_public_key, None);
    assert_eq!(Head::parse(&old.note).unwrap().signers().len(), 1);
    t.stop().await;
    // 2. Upgraded, each head bears both, and the heads of before are below them.
    let said = signet::server::upgrade(&t.config, &options(&t.clock)).await.unwrap();
    assert_eq!(said.log_key.unwrap().as_str(), "hsm");
    assert_eq!(signet::server::upgrade(&t.config, &options(&t.clock)).await.unwrap(), Default::default());
    t.start_again().await.unwrap();
    let new = head(&t).await;
    assert_eq!(Head::parse(&new.note).unwrap().signers().len(), 2);
    let pinned = Pinned::of(&new);
    // 3. The log grew from the old head to the new one, for whoever has the old key and for whoever has both.
    let (since, proof) = (pinned.path("since"), pinned.path("consistency"));
    std::fs::write(&since, &old.note).unwrap();
    std::fs::write(&proof, run(Some(&t), &["audit", "consistency", since.to_str().unwrap()], 0).await).unwrap();
    for key in ["ecdsa", "both"] {
        let words = ["audit", "verify", proof.to_str().unwrap(), "--since", since.to_str().unwrap(), "--public-key"];
        let said = run(None, &[&words[..], &[pinned.path(key).to_str().unwrap()]].concat(), 0).await;
        assert!(said.contains("GROWN"), "{said}");
    }
    // 4. It is a key of the house: no key of anybody, and nothing takes it for a stray.
    let id = log_id(t.data());
    assert!(house_ids(t.data()).contains(&format!("{id}00000001")));
    let status = t.client.status().await.unwrap();
    assert!(!status.problems.iter().any(|problem| problem.contains(&id)), "{:?}", status.problems);
    assert_eq!(status.keys, 0);
    t.restart().await;
    t.stop().await;
    let audit = t.data().join("audit");
    for key in ["ecdsa", "ed25519", "both"] {
        verified(&audit, &pinned.path(key), 0).await;
    }
}

fn log_id(data: &Path) -> String {
    let root: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("root.json")).unwrap()).unwrap();
    root["log_ed25519"]["key"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_log_without_the_device_of_its_second_key_waits_for_an_operator() {
    let [_, mut t] = both().await;
    let pinned = Pinned::of(&head(&t).await);
    t.stop().await;
    assert_eq!(log_keys(t.data()).len(), 2);
    // 1. It does not start as if nothing had been promised.
    let hsm: Name = "hsm".parse().unwrap();
    let device = t.config.devices.remove(&hsm).unwrap();
    let error = t.start_again().await.expect_err("a promise that cannot be kept");
    assert!(error.public().contains("hsm") && error.mend().unwrap().contains("--upgrade"), "{error:?}");
    t.config.devices.insert(hsm.clone(), device);
    t.start_again().await.unwrap();
    t.stop().await;
    // 2. An operator who has lost it says so; the log goes on with the one that is left, and whoever has both keys is told.
    t.config.devices.remove(&hsm);
    let said = signet::server::upgrade(&t.config, &options(&t.clock)).await.unwrap();
    assert_eq!((said.lost_log_key, said.log_key), (Some(hsm), None));
    t.start_again().await.unwrap();
    let now = head(&t).await;
    assert_eq!((now.ed25519_public_key, Head::parse(&now.note).unwrap().signers().len()), (None, 1));
    t.stop().await;
    let audit = t.data().join("audit");
    assert!(verified(&audit, &pinned.path("both"), 6).await.contains("its Ed25519 signature is missing"));
    assert!(verified(&audit, &pinned.path("ecdsa"), 0).await.contains("lacks the signature"));
}

#[tokio::test]
async fn a_second_key_that_fails_holds_up_heads_and_nothing_else() {
    let t = TestServer::configured(Devices::FaultyWithTpm, |config| {
        config.root_device = "tpm".parse().unwrap();
        config.default_device = "tpm".parse().unwrap();
    });
    let t = t.await;
    head(&t).await;
    let keys = HeadKeys::new(&log_keys(t.data())).unwrap();
    for fault in ["pre=0x30", "flip", "empty"] {
        eventually("the device is sound", async || t.client(None).ready().await.ok()).await;
        t.hsm.plan(&format!("C_Sign {fault}\n"));
        let before = Head::parse(&t.client.audit_head().await.unwrap().note).unwrap().size();
        t.key(&format!("key-{}", fault.split('=').next().unwrap()), "hmac-sha256").await;
        eventually("it is told", async || t.client(None).ready().await.err()).await;
        let stuck = Head::parse(&t.client.audit_head().await.unwrap().note).unwrap();
        assert!(stuck.is_signed_by(&keys) && stuck.size() <= before + 8, "{fault}: {stuck:?}");
        t.hsm.plan("");
        assert!(Head::parse(&head(&t).await.note).unwrap().is_signed_by(&keys), "{fault}");
    }
}

/// What a head costs with one signature and with two, in a token.
#[tokio::test]
async fn the_second_signature_is_made_beside_the_first() {
    const HEADS: u32 = 100;
    let (hsm, folder) = (SoftHsm::new(), tempfile::tempdir().unwrap());
    let worker = Worker::start("hsm", Settings::Pkcs11(hsm.settings()), None, PROGRAM.into(), Metrics::new());
    let worker = Arc::new(worker);
    worker.settled().await.unwrap();
    let key = async |algorithm| {
        let (id, version, residency) = (KeyId::random().unwrap(), Version::FIRST, Residency::Resident);
        let made = worker.generate(KeySpec { id, version, algorithm, residency, pcrs: None }).await.unwrap();
        let key = KeyRef { id, version, algorithm, locator: made.locator };
        HeadKey::new(worker.clone(), key, made.public.unwrap()).unwrap()
    };
    let mut medians = Vec::new();
    for (name, second) in [("one", None), ("two", Some(key(Algorithm::Ed25519).await))] {
        let settings = LogSettings::new(folder.path().join(name), Origin::of_instance(name).unwrap());
        let log = Arc::new(Log::create(settings).unwrap());
        let heads = Heads::new(log.clone(), key(Algorithm::EcdsaP256).await, second);
        let mut times: Vec<Duration> = Vec::new();
        for _ in 0..HEADS {
            let caller = Caller::system("test", "test");
            log.append(&Record::of(&caller, Action::Start, &Resource::Service, Phase::Done)).await.unwrap();
            let began = Instant::now();
            heads.sign().await.unwrap();
            times.push(began.elapsed());
        }
        times.sort();
        medians.push(times[times.len() / 2]);
    }
    println!("a head with one signature: {:?}, with two: {:?}", medians[0], medians[1]);
    worker.shutdown().await;
    assert!(public_keys_from_pem("").is_err());
}
