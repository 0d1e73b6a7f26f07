//! Deaths of `signet init` and `signet restore`.

use std::fs;

use super::past::{self, Past};
use crate::process::{Installation, eventually};
use crate::server::{Devices, lasting, name, new_key, pkcs11_stanza, tpm_stanza};
use crate::softhsm::{MODULE, SoftHsm};
use crate::swtpm::Swtpm;

/// All points of this module, for the register.
pub(super) const POINTS: &[&str] = &[
    "init.before_enrol",
    "init.enrolled",
    "init.before_generate",
    "init.generated",
    "init.before_store",
    "init.before_make_anchor",
    "init.anchor_made",
    "start.before_make_anchor",
    "start.anchor_made",
    "upgrade.before_attestation_key",
    "upgrade.attestation_key_made",
    "upgrade.before_missing_keks",
    "upgrade.missing_keks_made",
    "init.stored",
    "root.written",
    "root.renamed",
    "tls.before_write",
    "tls.written",
    "restore.before_mark",
    "restore.marked",
    "restore.unpacked",
    "restore.before_unmark",
    "restore.unmarked",
];

/// The points of a first `init`, and whether an installation is there afterwards.
const INIT: &[(&str, bool)] = &[
    ("init.before_enrol", false),
    ("init.enrolled", false),
    ("init.before_generate:1", false),
    ("init.generated:1", false),
    ("init.generated:2", false),
    ("init.before_generate:3", false),
    ("init.generated:3", false),
    ("init.before_store", false),
    ("init.before_make_anchor", false),
    ("init.anchor_made", false),
    ("init.stored", false),
    ("root.written", false),
    ("root.renamed", true),
    ("tls.before_write:1", true),
    ("tls.before_write:3", true),
    ("tls.written:3", true),
];

#[tokio::test]
async fn an_installation_is_whole_or_not_there() {
    for devices in [Devices::SoftHsm, Devices::Tpm] {
        // A TPM keeps no second key of the log.
        let points = INIT.iter().filter(|(point, _)| {
            devices != Devices::Tpm || !point.ends_with("generate:3") && !point.ends_with("generated:3")
        });
        past::all(points.copied().collect(), async |(point, there)| init(devices, point, there).await).await;
    }
}

async fn init(devices: Devices, point: &str, there: bool) {
    let mut t = Installation::bare(devices);
    let config = t.config().to_str().unwrap().to_owned();
    t.command(&["init", "--config", &config], Some(point)).dies(point).await;
    // A second `init` never builds on what is there, and without an installation nothing starts.
    let mut again = t.command(&["init", "--config", &config], None);
    assert!(!again.ended().await.success() && again.said().contains("is not empty"), "{}", again.said());
    if there {
        let token = t.command(&["init", "--config", &config, "--new-administrator"], None).succeeds().await;
        t.token = token.trim().to_owned();
    } else {
        let mut early = t.command(&["serve", "--config", &config], None);
        assert!(!early.ended().await.success(), "{}", early.said());
        fs::remove_dir_all(t.data()).unwrap();
        let token = t.command(&["init", "--config", &config], None).succeeds().await;
        t.token = token.trim().to_owned();
    }
    let service = t.serve().await;
    t.token = lasting(&t.client(Some(&t.token))).await;
    let client = t.client(Some(&t.token));
    eventually("the service is ready", async || client.ready().await.ok()).await;
    client.create_key(&new_key("first", "ecdsa-p256-sha256")).await.unwrap();
    past::all_keys_work(&client).await;
    // What the first try left in the token is no part of the second one, and is reported.
    let expected = past::resident_ids(&client).await;
    let problems = client.status().await.unwrap().problems;
    service.kill().await;
    t.audit_is_good();
    let mine = expected.union(&t.house_ids()).cloned().collect();
    for stranger in t.hsm.ids().difference(&mine) {
        let id = &stranger[..32];
        assert!(problems.iter().any(|text| text.contains(id)), "{id} is not reported: {problems:?}");
    }
}

/// The points of `init --enrol`.
const ENROL: &[&str] = &[
    "init.before_enrol",
    "init.enrolled",
    "init.before_make_anchor",
    "init.anchor_made",
    "ledger.before_commit:1",
    "ledger.committed:1",
    "ledger.before_anchor:1",
    "root.written",
    "root.renamed",
    "ledger.before_commit:2",
    "ledger.committed:2",
    "ledger.anchored:3",
];

#[tokio::test]
async fn a_service_starts_whatever_moment_an_enrolment_dies_at() {
    let past = Past::make(false).await;
    past::all(ENROL.to_vec(), async |point| {
        let second = SoftHsm::new();
        enrol(&past, point, &pkcs11_stanza("second", MODULE.as_ref(), &second)).await;
    })
    .await;
    past::all(ENROL.to_vec(), async |point| {
        let second = Swtpm::start();
        enrol(&past, point, &tpm_stanza("second", &second)).await;
    })
    .await;
}

async fn enrol(past: &Past, point: &str, second: &str) {
    let t = past.installation.copy();
    let config = t.config().to_str().unwrap().to_owned();
    let without = fs::read_to_string(&config).unwrap();
    let with = format!("{without}\n{second}");
    fs::write(&config, &with).unwrap();
    let enrol = ["init", "--config", &config, "--enrol", "second"];
    t.command(&enrol, Some(point)).dies(point).await;
    // Without the new device the service is what it was.
    fs::write(&config, &without).unwrap();
    let service = t.serve().await;
    past.is_there(&t, &t.client(Some(&t.token))).await;
    service.kill().await;
    // Enrolled now, unless it was.
    fs::write(&config, &with).unwrap();
    let mut again = t.command(&enrol, None);
    assert!(again.ended().await.success() || again.said().contains("is enrolled already"), "{}", again.said());
    let service = t.serve().await;
    let client = t.client(Some(&t.token));
    let mut new = new_key("elsewhere", "ecdsa-p256-sha256");
    new.device = Some("second".parse().unwrap());
    client.create_key(&new).await.unwrap();
    past::all_keys_work(&client).await;
    service.kill().await;
    t.audit_is_good();
}

/// The points of an upgrade.
const UPGRADE: &[&str] = &[
    "upgrade.before_attestation_key",
    "upgrade.attestation_key_made",
    "upgrade.before_missing_keks",
    "upgrade.missing_keks_made",
    "init.before_make_anchor",
    "init.anchor_made",
    "init.before_generate",
    "init.generated",
    "ledger.before_commit:1",
    "ledger.committed:1",
    "root.written",
    "root.renamed",
    "ledger.before_commit:2",
    "ledger.committed:2",
];

#[tokio::test]
async fn an_upgrade_is_ended_by_the_next_try_whatever_moment_it_dies_at() {
    let past = Past::make(false).await;
    past::all(UPGRADE.to_vec(), async |point| {
        let t = past.installation.copy();
        let config = t.config().to_str().unwrap().to_owned();
        crate::attest::make_older(&t.data(), &t.hsm).await;
        let upgrade = ["init", "--config", &config, "--upgrade"];
        t.command(&upgrade, Some(point)).dies(point).await;
        // It serves as it is, and once it is upgraded.
        for upgraded in [false, true] {
            if upgraded {
                t.command(&upgrade, None).succeeds().await;
            }
            let service = t.serve().await;
            let client = t.client(Some(&t.token));
            past::all_keys_work(&client).await;
            // Attestation keys, keys of the log and key-encryption keys that nothing names stay in the token and are reported: those of
            // before it was made older, and those of the try that died.
            let known =
                |one: &String| one.contains("that no record names") || one.contains("no device holds an anchor");
            let problems = eventually("heads are signed", async || {
                let problems = client.status().await.unwrap().problems;
                (!problems.iter().any(|one| one.contains("no head of the audit log"))).then_some(problems)
            })
            .await;
            assert!(problems.iter().all(known) && !(upgraded && problems.len() > 8), "{problems:?}");
            service.kill().await;
        }
        let mut again = t.command(&upgrade, None);
        assert!(again.ended().await.success() && again.said().contains("nothing was missing"), "{}", again.said());
        t.audit_is_good();
    })
    .await;
}

/// The points of a restore and of the first start after it, and whether the folder starts after a death there.
const RESTORE: &[(&str, bool)] = &[
    ("restore.before_mark:1", false),
    ("restore.marked:1", false),
    ("restore.unpacked", false),
    ("restore.before_mark:2", false),
    ("restore.marked:2", true),
];
const FIRST_START: &[&str] = &["ledger.committed", "admission.closed", "restore.before_unmark", "restore.unmarked"];

#[tokio::test]
async fn a_restore_that_is_cut_short_never_serves_as_if_nothing_had_happened() {
    let past = Past::make(false).await;
    let source = past.installation.copy();
    let service = source.serve().await;
    let archive = source.folder().join("backup.tar");
    fs::write(&archive, crate::backup::download(&source.client(Some(&source.token))).await).unwrap();
    service.kill().await;
    let mut cases: Vec<_> = RESTORE.iter().map(|(point, starts)| (*point, false, *starts)).collect();
    cases.extend(FIRST_START.iter().map(|point| (*point, true, true)));
    past::all(cases, async |(point, at_start, starts)| restore(&past, &archive, point, at_start, starts).await).await;
}

async fn restore(past: &Past, archive: &std::path::Path, point: &str, at_start: bool, starts: bool) {
    let mut t = past.installation.copy();
    fs::remove_dir_all(t.data()).unwrap();
    let (data, config) = (t.data(), t.config().to_str().unwrap().to_owned());
    let restore = ["restore", "--from", archive.to_str().unwrap(), "--data", data.to_str().unwrap()];
    if at_start {
        t.command(&restore, None).succeeds().await;
        t.command(&["restore", "--accept-rollback", "--config", &config], Some(point)).dies(point).await;
    } else {
        t.command(&restore, Some(point)).dies(point).await;
    }
    if !starts {
        let mut early = t.command(&["serve", "--config", &config], None);
        assert!(!early.ended().await.success(), "half a restore serves: {}", early.said());
        fs::remove_dir_all(&data).unwrap();
        t.command(&restore, None).succeeds().await;
    }
    let old = std::mem::take(&mut t.token);
    t.command(&["restore", "--accept-rollback", "--config", &config], None).succeeds().await;
    t.token = t.command(&["init", "--config", &config, "--new-administrator"], None).succeeds().await.trim().to_owned();
    let service = t.serve().await;
    t.token = lasting(&t.client(Some(&t.token))).await;
    let client = t.client(Some(&t.token));
    assert!(t.client(Some(&old)).whoami().await.is_err(), "a token of before the restore is good");
    eventually("the service is ready", async || client.ready().await.ok()).await;
    past.is_there(&t, &client).await;
    assert!(client.key(&name("counted")).await.unwrap().latest.number() >= 2);
    past::all_keys_work(&client).await;
    service.kill().await;
    t.audit_is_good();
}

#[tokio::test]
async fn an_anchor_is_made_again_whatever_moment_that_dies_at() {
    let past = Past::make(false).await;
    past::all(vec!["start.before_make_anchor", "start.anchor_made"], async |point| {
        let t = past.installation.copy();
        let config = t.config().to_str().unwrap().to_owned();
        crate::rollback::remove_anchor(&t.hsm, &t.data());
        let mut early = t.command(&["serve", "--config", &config], None);
        assert!(!early.ended().await.success(), "it serves without its anchor: {}", early.said());
        let accept = ["restore", "--accept-rollback", "--config", &config];
        t.command(&accept, Some(point)).dies(point).await;
        t.command(&accept, None).succeeds().await;
        let service = t.serve().await;
        past.is_there(&t, &t.client(Some(&t.token))).await;
        service.kill().await;
        t.audit_is_good();
    })
    .await;
}
