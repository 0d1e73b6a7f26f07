//! Database, log, token and service that do not belong together: each refused with the reason and the mend, and nothing made anew.

use std::path::Path;

use signet::config::Config;
use signet::device::Settings;
use signet::error::{Error, Kind};
use signet::server::{Server, create};

use crate::process::Installation;
use crate::proof::proven;
use crate::server::{Devices, TestServer, client, lasting, name, new_key, options};
use crate::softhsm::{SoftHsm, copy_all};

/// What the folder holds, by name and content.
fn contents(data: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            // Which process holds it, and what SQLite keeps beside its file while it is open.
            let passing = ["lock", "signet.db-wal", "signet.db-shm"];
            if path.is_dir() {
                folders.push(path);
            } else if !passing.contains(&path.file_name().unwrap().to_str().unwrap()) {
                all.push((path.display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
    }
    all.sort();
    all
}

/// A start that has to fail: with a reason and a mend, and without a change of the folder.
async fn refused(t: &TestServer, config: &Config, what: &str) -> Error {
    let before = contents(&config.data);
    let error = Server::start(config, options(&t.clock)).await.expect_err(what);
    assert!(error.mend().is_some(), "{what}: no mend: {error:?}");
    assert!(!matches!(error.kind(), Kind::Internal), "{what}: {error:?}");
    assert!(contents(&config.data) == before, "{what}: the folder was changed");
    println!("{what}: {error}\n  {}", error.mend().unwrap());
    error
}

fn with_token(config: &Config, hsm: &SoftHsm) -> Config {
    let mut config = config.clone();
    config.devices.insert("hsm".parse().unwrap(), Settings::Pkcs11(hsm.settings()));
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_belong_together_is_refused() {
    let (mut t, mut other) = (TestServer::start().await, TestServer::start().await);
    t.key("ours", "aes256-gcm-derived").await;
    other.key("theirs", "aes256-gcm-derived").await;
    t.stop().await;
    other.stop().await;
    let good = tempfile::tempdir().unwrap();
    copy_all(t.data(), &good.path().join("data"));
    let restore = || {
        std::fs::remove_dir_all(t.data()).unwrap();
        copy_all(&good.path().join("data"), t.data());
    };
    let objects = t.hsm.ids();

    // 1. No folder, an empty one, one without its parts; the token is full.
    std::fs::remove_dir_all(t.data()).unwrap();
    std::fs::create_dir(t.data()).unwrap();
    let error = refused(&t, &t.config, "an empty folder with a full token").await;
    assert!(error.kind() == Kind::NotFound && error.mend().unwrap().contains("signet init"), "{error:?}");
    for (missing, kind) in [("root.json", Kind::NotFound), ("signet.db", Kind::Unavailable), ("audit", Kind::Tampered)]
    {
        restore();
        let path = t.data().join(missing);
        if path.is_dir() {
            std::fs::remove_dir_all(&path).unwrap()
        } else {
            std::fs::remove_file(&path).unwrap()
        }
        for side in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{side}", path.display()));
        }
        let error = refused(&t, &t.config, &format!("no {missing} with a full token")).await;
        assert_eq!(error.kind(), kind, "{missing}: {error:?}");
    }
    restore();
    // 2. A full folder with an empty token, and with that of another installation.
    let empty = SoftHsm::new();
    let error = refused(&t, &with_token(&t.config, &empty), "a full folder with an empty token").await;
    assert!(error.public().contains("hsm"), "{error}");
    assert!(empty.ids().is_empty(), "something was made in the empty token");
    let error = refused(&t, &with_token(&t.config, &other.hsm), "the token of another installation").await;
    assert!(error.public().contains("hsm"), "{error}");
    // 3. Parts of another installation in our folder.
    for part in ["signet.db", "root.json", "audit"] {
        restore();
        let (from, to) = (other.data().join(part), t.data().join(part));
        for side in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{side}", to.display()));
        }
        if to.is_dir() {
            std::fs::remove_dir_all(&to).unwrap();
            copy_all(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
        refused(&t, &t.config, &format!("{part} of another installation")).await;
    }
    // 4. All of another installation, with our token.
    refused(&t, &with_token(&other.config, &t.hsm), "another installation with our token").await;
    // 5. Nothing was made or destroyed in the token meanwhile, and what belongs together starts.
    restore();
    assert_eq!(t.hsm.ids(), objects);
    t.start_again().await.unwrap();
    t.client.key(&name("ours")).await.unwrap();
    // 6. A second service on the same folder is refused at once, and the first one goes on.
    let error = Server::start(&t.config, options(&t.clock)).await.expect_err("two services on one folder");
    assert!(error.kind() == Kind::Conflict && error.mend().is_some(), "{error:?}");
    t.key("more", "aes256-gcm-derived").await;
    proven("mixtures of folder, log, token and service", 12, "each refused with its reason, nothing changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_installations_share_a_token_and_not_each_other_s_keys() {
    let mut t = TestServer::start().await;
    t.key("ours", "ecdsa-p256-sha256").await;
    let folder = tempfile::tempdir().unwrap();
    let config = Config { data: folder.path().join("data"), ..t.config.clone() };
    let first = create(&config, &options(&t.clock)).await.unwrap();
    assert!(first.software.len() == 1 && first.anchors == first.software);
    let second = Server::start(&config, options(&t.clock)).await.unwrap();
    let token = lasting(&client(&second, Some(first.token.as_str()))).await;
    let theirs = client(&second, Some(&token));
    theirs.create_key(&new_key("theirs", "ecdsa-p256-sha256")).await.unwrap();
    // Each has an anchor of its own, and sees the other one's keys as strangers that it leaves alone.
    t.key("more", "ecdsa-p256-sha256").await;
    second.stop().await.unwrap();
    t.restart().await;
    let problems = t.client.status().await.unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains("hsm")), "{problems:?}");
    t.client.rotate_key(&name("ours"), &signet::wire::RotateKey::default()).await.unwrap();
    let second = Server::start(&config, options(&t.clock)).await.unwrap();
    let theirs = client(&second, Some(&token));
    theirs.rotate_key(&name("theirs"), &signet::wire::RotateKey::default()).await.unwrap();
    assert_eq!(theirs.key(&name("ours")).await.unwrap_err().kind(), Kind::NotFound);
    second.stop().await.unwrap();
    let devices = t.client.status().await.unwrap().devices;
    assert!(devices[0].software && devices[0].anchor.is_some(), "{devices:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_said_that_a_software_device_proves_nothing() {
    for devices in [Devices::SoftHsm, Devices::Tpm] {
        let t = Installation::bare(devices);
        let config = t.config().to_str().unwrap().to_owned();
        let mut init = t.command(&["init", "--config", &config], None);
        assert!(init.ended().await.success());
        assert!(init.said().contains("is software: its anchor proves nothing"), "{}", init.said());
        let doctor = t.command(&["doctor", "--config", &config], None).succeeds().await;
        assert!(doctor.contains("it is software: an anchor in it proves nothing"), "{doctor}");
    }
    let t = TestServer::with(Devices::WithTpm).await;
    assert!(t.client.status().await.unwrap().devices.iter().all(|device| device.software));
}
