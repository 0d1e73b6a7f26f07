//! Further places of the audit log, through the front: one hangs, is removed or full, and harms nobody who does not require it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use signet::audit::verify;
use signet::client::Client;
use signet::config::{Sink, SinkKind};
use signet::error::Kind;
use signet::wire::SinkPosition;

use crate::log::{BOUND, Disk, refused, sign};
use crate::process::eventually;
use crate::server::{Devices, TestServer};

/// A server whose log is followed by a copy in a folder of its own.
async fn server(required: bool) -> (TestServer, tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("copy");
    std::fs::create_dir(&folder).unwrap();
    let sink = Sink { name: "elsewhere".parse().unwrap(), kind: SinkKind::Folder(folder.clone()), required };
    let t = TestServer::configured(Devices::SoftHsm, |config| config.sinks = vec![sink]).await;
    t.key("release", "ecdsa-p256-sha256").await;
    (t, home, folder)
}

/// How the copy stands, as the status says.
async fn standing(client: &Client) -> SinkPosition {
    client.status().await.unwrap().audit_sinks.remove(0)
}

/// Waits until the copy has all there is: a status is a record itself, which it may lack for a moment.
async fn whole(client: &Client) {
    let whole = async || Some(standing(client).await).filter(|sink| sink.problem.is_none() && sink.behind <= 2);
    eventually("the copy is whole", whole).await;
}

/// What the log says of the copy: how each record ended, and why.
async fn told(client: &Client) -> Vec<(String, String)> {
    let records = client.audit_records(0, Some(1000)).await.unwrap().records;
    let text = |record: &serde_json::Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let of_log = records.iter().filter(|one| one["principal"] == "system/log");
    of_log.map(|one| (text(one, "outcome"), text(one, "reason"))).collect()
}

/// The copy holds what the log holds, and verifies by itself.
fn same(t: &TestServer, copy: &Path) {
    let (log, copy) = (verify(&t.data().join("audit"), None).unwrap(), verify(copy, None).unwrap());
    assert!(log.is_good() && copy.is_good(), "{copy:?}");
    assert_eq!((copy.records, copy.heads, copy.root), (log.records, log.heads, log.root));
}

#[tokio::test]
async fn a_copy_that_is_gone_or_replaced_harms_nobody_and_is_told() {
    let (mut t, _home, folder) = server(false).await;
    let client = t.impatient_client();
    whole(&client).await;
    // 1. Removed: the service serves, and says so everywhere.
    std::fs::remove_dir_all(&folder).unwrap();
    eventually("it is missed", async || standing(&client).await.problem).await;
    sign(&client, "without").await.unwrap();
    client.ready().await.unwrap();
    let status = client.status().await.unwrap();
    assert!(status.ready && status.problems.iter().any(|one| one.contains("sink elsewhere")), "{:?}", status.problems);
    let metric = async |line: &str| client.metrics().await.unwrap().lines().any(|one| one == line).then_some(());
    eventually("a metric", async || metric("signet_audit_sink_up{sink=\"elsewhere\"} 0").await).await;
    let alarm = eventually("a record", async || told(&client).await.pop()).await;
    assert!(alarm.0 == "tampered" && alarm.1.contains("sink elsewhere") && alarm.1.contains("is gone"), "{alarm:?}");
    let findings = signet::doctor::examine(&t.config, Path::new(crate::server::PROGRAM)).await;
    assert!(findings.iter().any(|one| one.what == "sink elsewhere" && one.mend.is_some()), "{findings:?}");
    // 2. An empty folder gets all.
    std::fs::create_dir(&folder).unwrap();
    whole(&client).await;
    let over = eventually("a record", async || told(&client).await.pop().filter(|one| one.0 == "ok")).await;
    assert!(over.1.contains("again"), "{over:?}");
    eventually("a metric", async || metric("signet_audit_sink_up{sink=\"elsewhere\"} 1").await).await;
    t.stop().await;
    same(&t, &folder);
}

#[tokio::test]
async fn without_a_copy_that_is_required_nothing_is_acknowledged() {
    let (mut t, home, folder) = server(true).await;
    let client = t.impatient_client();
    sign(&client, "with").await.unwrap();
    let aside = home.path().join("aside");
    std::fs::rename(&folder, &aside).unwrap();
    let error = refused(&client, "without").await;
    assert!(error.public().contains("sink elsewhere"), "{error}");
    client.ready().await.unwrap_err();
    // A change that was made in the store meanwhile is not acknowledged either; a repetition after it finds it made.
    let new = crate::server::new_key("later", "ecdsa-p256-sha256");
    client.create_key(&new).await.unwrap_err();
    std::fs::rename(&aside, &folder).unwrap();
    eventually("it goes on by itself", async || sign(&client, "again").await.ok()).await;
    eventually("it is told", async || told(&client).await.pop().filter(|one| one.0 == "ok")).await;
    t.stop().await;
    same(&t, &folder);
    // A service that begins without it is the same: it serves nothing until the copy is back.
    std::fs::rename(&folder, &aside).unwrap();
    t.start_again().await.unwrap();
    let client = t.impatient_client();
    assert!(refused(&client, "begun without").await.public().contains("sink elsewhere"));
    std::fs::rename(&aside, &folder).unwrap();
    eventually("it goes on by itself", async || sign(&client, "after").await.ok()).await;
    t.stop().await;
    same(&t, &folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_hangs_or_is_full_keeps_nobody_waiting() {
    for required in [false, true] {
        let (mut t, _home, folder) = server(required).await;
        t.stop().await;
        let Some(mut disk) = Disk::under(&folder) else { return };
        t.start_again().await.unwrap();
        let client = t.impatient_client();
        sign(&client, "before").await.unwrap();
        // 1. It hangs.
        disk.freeze(true);
        if required {
            assert_eq!(refused(&client, "hung").await.kind(), Kind::Unavailable);
            let began = Instant::now();
            for _ in 0..20 {
                assert!(refused(&client, "behind").await.public().contains("sink elsewhere"));
            }
            assert!(began.elapsed() < BOUND);
        } else {
            let began = Instant::now();
            while standing(&client).await.problem.is_none() {
                sign(&client, "meanwhile").await.unwrap();
                assert!(began.elapsed() < BOUND, "it is not told");
            }
            client.ready().await.unwrap();
        }
        disk.freeze(false);
        eventually("it goes on by itself", async || sign(&client, "after").await.ok()).await;
        whole(&client).await;
        // 2. It is full.
        let ballast = folder.join("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        while std::io::Write::write_all(&mut file, &[7; 1024]).is_ok() {}
        let began = Instant::now();
        let full = loop {
            match sign(&client, "full").await {
                Ok(()) if required => {}
                Ok(()) => {
                    if let Some(problem) = standing(&client).await.problem {
                        break problem;
                    }
                }
                Err(error) => break error.public().to_owned(),
            }
            assert!(began.elapsed() < Duration::from_secs(60), "it is never full");
        };
        assert!(full.contains("sink elsewhere") && full.contains("room"), "{full}");
        drop(file);
        std::fs::remove_file(&ballast).unwrap();
        eventually("it goes on by itself", async || sign(&client, "room").await.ok()).await;
        whole(&client).await;
        t.stop().await;
        same(&t, &folder);
        drop(disk);
    }
}
