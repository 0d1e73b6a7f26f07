//! An older or another state is put in the place of the present one: the anchors in the devices tell.

use std::path::{Path, PathBuf};

use signet::client::PageRequest;
use signet::error::Kind;

use crate::server::{Devices, TestServer, name, options};
use crate::softhsm::{LABEL, MODULE, SoftHsm, copy_all, tool};

/// Copies of a data folder, taken while no service runs on it.
struct Copies(tempfile::TempDir);

impl Copies {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, which: &str) -> PathBuf {
        self.0.path().join(which)
    }

    /// Takes one.
    fn take(&self, t: &TestServer, which: &str) {
        copy_all(t.data(), &self.path(which));
    }

    /// Puts one back, or only these parts of it.
    fn put_back(&self, t: &TestServer, which: &str, parts: &[&str]) {
        put_back(&self.path(which), t.data(), parts);
    }
}

/// Puts parts of one data folder in the place of those of another, which no service uses.
pub(crate) fn put_back(from: &Path, to: &Path, parts: &[&str]) {
    for part in parts {
        let (from, to) = (from.join(part), to.join(part));
        if from.is_dir() {
            std::fs::remove_dir_all(&to).unwrap();
            copy_all(&from, &to);
            continue;
        }
        for side in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{side}", to.display()));
        }
        std::fs::copy(&from, &to).unwrap();
    }
}

const DATABASE: &[&str] = &["signet.db"];
const LOG: &[&str] = &["audit"];
const ALL: &[&str] = &["signet.db", "audit", "root.json"];

/// The service does not start, and says which of the two it is.
async fn refuses(t: &mut TestServer, what: &str, why: &str) {
    let error = t.start_again().await.expect_err(what);
    assert_eq!(error.kind(), Kind::Tampered, "{what}: {error:?}");
    assert!(error.public().contains(why), "{what}: {error}");
    assert!(error.mend().is_some(), "{what}: {error:?}");
}

#[tokio::test]
async fn what_is_older_than_the_anchor_is_refused_until_an_operator_accepts_it() {
    for devices in [Devices::SoftHsm, Devices::Tpm, Devices::WithTpm] {
        let (mut t, copies) = (TestServer::with(devices).await, Copies::new());
        t.key("first", "aes256-gcm-derived").await;
        t.stop().await;
        copies.take(&t, "old");
        t.start_again().await.unwrap();
        t.key("second", "aes256-gcm-derived").await;
        t.stop().await;
        copies.take(&t, "new");

        // 1. Whatever is put back, alone or together, is noticed.
        copies.put_back(&t, "old", ALL);
        refuses(&mut t, "everything put back", "rollback: the anchor in").await;
        copies.put_back(&t, "new", LOG);
        refuses(&mut t, "the database put back", "rollback: the anchor in").await;
        copies.put_back(&t, "new", DATABASE);
        copies.put_back(&t, "old", LOG);
        refuses(&mut t, "the log put back", "signed head").await;
        // 2. The present state starts: nothing above was refused for another reason, and trying has changed nothing.
        copies.put_back(&t, "new", ALL);
        t.start_again().await.unwrap();
        assert_eq!(t.client.status().await.unwrap().recovered, [""; 0]);
        t.stop().await;

        // 3. Accepted by name, the old one counts, and the gap is on record for ever.
        copies.put_back(&t, "old", ALL);
        let gap = t.accept_rollback().await.unwrap().unwrap();
        assert!(gap.contains("rollback"), "{gap}");
        t.start_again().await.unwrap();
        t.client.key(&name("first")).await.unwrap();
        assert_eq!(t.client.key(&name("second")).await.unwrap_err().kind(), Kind::NotFound);
        let records = t.client.audit_records(0, Some(1000)).await.unwrap().records;
        let told = |record: &serde_json::Value| record["reason"].as_str().is_some_and(|why| why.contains("rollback"));
        assert!(records.iter().any(told), "the gap is not in the log");
        // 4. What came before the gap is now the other history, though it has more in it.
        t.stop().await;
        copies.take(&t, "accepted");
        copies.put_back(&t, "new", ALL);
        let error = t.start_again().await.expect_err("the history that was given up");
        assert_eq!(error.kind(), Kind::Tampered);
        copies.put_back(&t, "accepted", ALL);
        t.start_again().await.unwrap();
        t.stop().await;
        // 5. There is nothing to accept any more.
        assert_eq!(t.accept_rollback().await.unwrap(), None);
    }
}

/// The id of the installation on `data`.
pub(crate) fn instance(data: &Path) -> String {
    let root: serde_json::Value = serde_json::from_slice(&std::fs::read(data.join("root.json")).unwrap()).unwrap();
    root["instance"].as_str().unwrap().to_owned()
}

/// Removes the anchor of the installation on `data` from its token.
pub(crate) fn remove_anchor(hsm: &SoftHsm, data: &Path) {
    let pin = std::fs::read_to_string(hsm.pin_file()).unwrap();
    let name = format!("signet anchor {}", instance(data));
    let mut left = true;
    while left {
        let mut tool = std::process::Command::new("pkcs11-tool");
        tool.env("SOFTHSM2_CONF", hsm.conf());
        tool.args(["--module", MODULE, "--token-label", LABEL, "--login", "--pin", pin.trim()]);
        tool.args(["--delete-object", "--type", "data", "--application-label", &name, "--label", &name]);
        left = tool.output().unwrap().status.success();
    }
}

#[tokio::test]
async fn an_anchor_that_is_removed_from_its_device_is_missed() {
    let mut t = TestServer::with(Devices::WithTpm).await;
    t.key("first", "aes256-gcm-derived").await;
    let devices = t.client.status().await.unwrap().devices;
    let epochs: Vec<_> = devices.iter().map(|device| device.anchor.as_ref().unwrap().epoch.unwrap()).collect();
    assert!(epochs.iter().all(|epoch| *epoch > 1), "{epochs:?}");
    t.stop().await;
    // 1. From the token, by a foreign tool that has the PIN.
    remove_anchor(&t.hsm, t.data());
    refuses(&mut t, "no anchor in the token", "the anchor in hsm cannot be read").await;
    t.accept_rollback().await.unwrap().unwrap();
    // 2. From the TPM, by its owner.
    let tcti = t.tpm.as_ref().unwrap().settings(true).tcti;
    let instance = instance(t.data());
    let handle = u32::from_str_radix(&instance[..8], 16).unwrap() % 0x40_0000 + 0x180_0000;
    tool("tpm2_nvundefine", &["--tcti", &tcti, "-C", "o", &format!("{handle:#x}")]);
    refuses(&mut t, "no anchor in the TPM", "the anchor in tpm cannot be read").await;
    // 3. One of its own in that place takes another authorisation value.
    let attributes = "authread|authwrite|no_da";
    tool(
        "tpm2_nvdefine",
        &["--tcti", &tcti, "-C", "o", "-s", "96", "-a", attributes, "-p", "other", &format!("{handle:#x}")],
    );
    refuses(&mut t, "another index in the TPM", "the anchor in tpm cannot be read").await;
    tool("tpm2_nvundefine", &["--tcti", &tcti, "-C", "o", &format!("{handle:#x}")]);
    t.accept_rollback().await.unwrap().unwrap();
    t.start_again().await.unwrap();
    t.key("second", "aes256-gcm-derived").await;
}

#[tokio::test]
async fn two_services_on_copies_of_one_installation_notice_each_other() {
    let (mut t, copies) = (TestServer::start().await, Copies::new());
    t.key("first", "aes256-gcm-derived").await;
    t.stop().await;
    copies.take(&t, "copy");
    t.start_again().await.unwrap();
    // The second one has a folder of its own, with the same token: no lock stands between the two.
    let mut config = t.config.clone();
    config.data = copies.path("copy");
    let second = signet::server::Server::start(&config, options(&t.clock)).await.unwrap();
    let other = crate::server::client(&second, Some(t.token()));
    other.create_key(&crate::server::new_key("theirs", "aes256-gcm-derived")).await.unwrap();
    // What the first one changes now is not acknowledged, nor anything else; and it says why.
    let client = t.impatient_client();
    let refused = client.create_key(&crate::server::new_key("ours", "aes256-gcm-derived")).await;
    assert!(refused.is_err(), "two histories were both acknowledged");
    let listed = client.keys(None, &PageRequest { size: None, token: None }).await;
    assert!(listed.is_err(), "it goes on as if nothing had happened");
    assert!(t.server().service().ready().is_err());
    // The second one goes on.
    other.create_key(&crate::server::new_key("more", "aes256-gcm-derived")).await.unwrap();
    second.stop().await.unwrap();
    t.stop_somehow().await;
    // The first one does not start again on its folder: it is another history, or an older one.
    assert_eq!(t.start_again().await.expect_err("the loser").kind(), Kind::Tampered);
}

#[tokio::test]
async fn a_change_whose_anchor_is_away_is_not_acknowledged_before_it_is_back() {
    let t = TestServer::with(Devices::WithTpm).await;
    t.key("first", "aes256-gcm-derived").await;
    // 1. With one of two anchors away, changes go on; the other one is moved on when it is back.
    t.hsm.take_out();
    let mut new = crate::server::new_key("in-tpm", "aes256-gcm-derived");
    new.device = Some("tpm".parse().unwrap());
    let changed = t.client.create_key(&new).await;
    t.hsm.put_back();
    changed.unwrap();
    crate::process::eventually("both anchors hold the same", async || {
        let devices = t.client(Some(t.token())).status().await.ok()?.devices;
        let behind: Vec<_> = devices.iter().filter_map(|device| device.anchor.as_ref()).map(|one| one.behind).collect();
        (behind == [0, 0]).then_some(())
    })
    .await;
    // 2. One that hangs holds up no change that the other one vouches for.
    t.tpm.as_ref().unwrap().freeze();
    crate::server::lasting(&t.client).await;
    let devices = t.client.status().await.unwrap().devices;
    let tpm = devices.iter().find(|device| device.name.as_str() == "tpm").unwrap();
    assert!(tpm.anchor.as_ref().unwrap().behind > 0, "{tpm:?}");
    t.tpm.as_ref().unwrap().thaw();
}
