//! The bad days of `docs/recovery.md`, each played to its end. The host that is lost is played by `backup`.

use std::fs;

use signet::config::Config;
use signet::device::Settings;
use signet::error::Kind;
use signet::server::restore;
use signet::types::{Context, Residency};
use signet::wire::Base64;

use crate::backup::download;
use crate::server::{Devices, TestServer, configuration, name, new_key, options, tpm_stanza};
use crate::softhsm::{LABEL, MODULE, SoftHsm};
use crate::swtpm::Swtpm;
use crate::wrap::{plain, sealed};

/// A wrapping key and a ciphertext of it.
async fn key_with_blob(t: &TestServer, key: &str, device: &str, residency: Residency) -> Base64 {
    let mut new = new_key(key, "aes256-gcm-derived");
    (new.device, new.residency) = (Some(device.parse().unwrap()), Some(residency));
    t.client.create_key(&new).await.unwrap();
    t.client.wrap(&name(key), &plain(b"old", &Context::default())).await.unwrap().ciphertext
}

async fn opens(t: &TestServer, key: &str, blob: &Base64) {
    let opened = t.client.unwrap(&name(key), &sealed(blob, &Context::default())).await.unwrap();
    assert_eq!(opened.plaintext.0.expose(), b"old", "{key}");
}

fn with_token(config: &Config, hsm: &SoftHsm) -> Config {
    let mut config = config.clone();
    config.devices.insert("hsm".parse().unwrap(), Settings::Pkcs11(hsm.settings()));
    config
}

#[tokio::test]
async fn a_lost_token_is_replaced_by_its_copy() {
    let mut t = TestServer::start().await;
    let before = key_with_blob(&t, "before", "hsm", Residency::Resident).await;
    t.stop().await;
    let copy = t.hsm.copy();
    t.start_again().await.unwrap();
    let wrapped = key_with_blob(&t, "wrapped-after", "hsm", Residency::Wrapped).await;
    let resident = key_with_blob(&t, "resident-after", "hsm", Residency::Resident).await;
    let lost = t.client.key(&name("resident-after")).await.unwrap().id;
    t.stop().await;
    // 1. An empty token in its place is refused, and stays empty.
    let empty = SoftHsm::new();
    t.config = with_token(&t.config, &empty);
    let error = t.start_again().await.expect_err("an empty token");
    assert!(error.mend().is_some(), "{error:?}");
    assert!(empty.ids().is_empty());
    // 2. So is the copy, whose anchor is older, until an operator says that he knows.
    t.config = with_token(&t.config, &copy);
    let error = t.start_again().await.expect_err("an older anchor");
    assert_eq!(error.kind(), Kind::Tampered, "{error:?}");
    t.accept_rollback().await.unwrap().unwrap();
    t.start_again().await.unwrap();
    // 3. What the copy has goes on, and so does what it can unwrap; what was born in the lost token is named.
    opens(&t, "before", &before).await;
    opens(&t, "wrapped-after", &wrapped).await;
    let error = t.client.unwrap(&name("resident-after"), &sealed(&resident, &Context::default())).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Unavailable | Kind::Conflict), "{error:?}");
    let problems = t.client.status().await.unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains(&lost.to_string())), "{problems:?}");
    // 4. It is not made anew in silence, and a new version of it works.
    t.client.rotate_key(&name("resident-after"), &Default::default()).await.unwrap();
    t.client.wrap(&name("resident-after"), &plain(b"new", &Context::default())).await.unwrap();
}

#[tokio::test]
async fn host_and_token_are_replaced_by_backup_and_copy() {
    let mut t = TestServer::start().await;
    let resident = key_with_blob(&t, "resident", "hsm", Residency::Resident).await;
    let wrapped = key_with_blob(&t, "wrapped", "hsm", Residency::Wrapped).await;
    let folder = tempfile::tempdir().unwrap();
    let (archive, elsewhere) = (folder.path().join("signet.tar"), folder.path().join("elsewhere"));
    fs::write(&archive, download(&t.client).await).unwrap();
    t.stop().await;
    let copy = t.hsm.copy();
    // Both are gone; a new host has the archive, the configuration and the copy of the token.
    fs::remove_dir_all(t.data()).unwrap();
    t.hsm.take_out();
    restore(&archive, &elsewhere).unwrap();
    t.config = with_token(&t.config, &copy);
    t.config.data = elsewhere;
    let error = t.start_again().await.expect_err("an older store");
    assert_eq!(error.kind(), Kind::Tampered, "{error:?}");
    t.accept_rollback().await.unwrap().unwrap();
    t.renew_administrator().await;
    opens(&t, "resident", &resident).await;
    opens(&t, "wrapped", &wrapped).await;
}

/// The security officer gives the user another PIN.
fn set_pin(hsm: &SoftHsm, pin: &str) {
    let officer = fs::read_to_string(hsm.folder().join("so-pin")).unwrap();
    let out = std::process::Command::new("pkcs11-tool")
        .envs(hsm.environment())
        .env("SIGNET_SO_PIN", officer.trim())
        .env("SIGNET_PIN", pin)
        .args(["--module", MODULE, "--token-label", LABEL, "--login", "--login-type", "so", "--so-pin"])
        .args(["env:SIGNET_SO_PIN", "--init-pin", "--new-pin", "env:SIGNET_PIN"])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[tokio::test]
async fn a_lost_pin_is_set_anew_by_the_security_officer() {
    const NEW: &str = "8642097531";
    let mut t = TestServer::start().await;
    let blob = key_with_blob(&t, "kept", "hsm", Residency::Resident).await;
    t.stop().await;
    set_pin(&t.hsm, NEW);
    // 1. With the old one the service does not start, and says why without saying the PIN.
    let old = fs::read_to_string(t.hsm.pin_file()).unwrap();
    let error = t.start_again().await.expect_err("the old PIN");
    assert!(error.chain().contains("PIN") && !error.chain().contains(old.trim()), "{error:?}");
    // 2. With the new one it does, and every key is there.
    fs::write(t.hsm.pin_file(), NEW).unwrap();
    t.start_again().await.unwrap();
    opens(&t, "kept", &blob).await;
}

#[tokio::test]
async fn the_last_administrator_is_replaced_at_the_device() {
    let mut t = TestServer::start().await;
    let blob = key_with_blob(&t, "kept", "hsm", Residency::Resident).await;
    // The only token there is revokes itself.
    let own = t.token().to_owned();
    let tokens = t.client.tokens(&signet::client::PageRequest { size: Some(100), token: None }).await.unwrap();
    for token in tokens.items {
        let _ = t.client.revoke_token(&token.id).await;
    }
    assert_eq!(t.client.whoami().await.unwrap_err().kind(), Kind::Unauthenticated);
    t.stop().await;
    t.renew_administrator().await;
    assert_ne!(own, t.token());
    opens(&t, "kept", &blob).await;
}

#[tokio::test]
async fn a_lost_tpm_costs_the_keys_that_were_in_it() {
    let mut t = TestServer::with(Devices::WithTpm).await;
    let in_token = key_with_blob(&t, "in-token", "hsm", Residency::Resident).await;
    let in_tpm = key_with_blob(&t, "in-tpm", "tpm", Residency::Wrapped).await;
    t.stop().await;
    // 1. Another TPM in its place is not the enrolled one.
    let other = Swtpm::start();
    t.tpm = None;
    let folder = t.data().parent().unwrap().to_owned();
    let alone = configuration(&t.hsm, None, Devices::SoftHsm, &folder);
    t.config = Config::parse(&format!("{alone}{}", tpm_stanza("tpm", &other))).unwrap();
    let error = t.start_again().await.expect_err("another TPM");
    assert!(error.public().contains("another TPM") && error.mend().unwrap().contains("another name"), "{error:?}");
    // 2. Without it the service goes on, and says what it misses. Nothing of it is taken for destroyed.
    t.config = Config::parse(&alone).unwrap();
    t.start_again().await.unwrap();
    opens(&t, "in-token", &in_token).await;
    let error = t.impatient_client().unwrap(&name("in-tpm"), &sealed(&in_tpm, &Context::default())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("in device tpm, which is not configured"), "{error}");
    let problems = t.client.status().await.unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains("device tpm")), "{problems:?}");
    t.stop().await;
    // 3. The new one is enrolled by another name, and nothing else makes anything in it.
    t.config = Config::parse(&format!("{alone}{}", tpm_stanza("new-tpm", &other))).unwrap();
    let error = t.start_again().await.expect_err("a TPM that was never enrolled");
    assert!(error.mend().unwrap().contains("signet init --enrol new-tpm"), "{error:?}");
    signet::server::enrol(&t.config, &options(&t.clock), &"new-tpm".parse().unwrap()).await.unwrap();
    t.start_again().await.unwrap();
    let blob = key_with_blob(&t, "in-new-tpm", "new-tpm", Residency::Wrapped).await;
    opens(&t, "in-new-tpm", &blob).await;
}
