//! Deaths around a version that the device fails to make, or makes after the death of the service that asked for it.

use std::time::Duration;

use signet::types::Version;

use super::past::{self, Past, Request};
use super::{Change, Left, mended};
use crate::process::Installation;
use crate::server::{Devices, name};

/// The points on the way of a birth that fails.
pub(super) const POINTS: &[&str] = &["keyring.before_cleanup", "keyring.cleaned_up"];

/// With what each leaves; none of them makes a key.
const FAILED: &[(&str, Left)] = &[
    (POINTS[0], Left::Unfinished),
    (POINTS[1], Left::Unfinished),
    ("ledger.before_commit:2", Left::Unfinished),
    ("ledger.committed:2", Left::Unrecorded),
    ("ledger.recorded:2", Left::Nothing),
];

#[tokio::test]
async fn a_failed_version_is_cleaned_up_whatever_moment_the_service_dies_at() {
    let past = Past::make(false).await;
    // Made, yet reported as failed.
    past::all(FAILED.to_vec(), async |(point, left)| failed(&past, point, left).await).await;
}

async fn failed(past: &Past, point: &str, left: Left) {
    let t = past.installation.copy_with(Devices::Faulty);
    let mut first = t.serve_until(point);
    first.serves().await.unwrap();
    // What the device can do is found out by making keys: that comes first.
    t.client(Some(&t.token)).status().await.unwrap();
    t.hsm.plan("C_GenerateKeyPair post=0x30\n");
    let request = Change::Create.request(past);
    let answer = request.send(&t, "once").await;
    assert!(answer.is_err(), "{answer:?}");
    first.dies(point).await;
    t.hsm.plan("");
    ends_well(past, &t, &request, &left.mended()).await;
}

/// Starts the service again: the key is not there, nothing is left of it, and the same request makes it.
async fn ends_well(past: &Past, t: &Installation, request: &Request, left: &[&str]) {
    let second = t.serve().await;
    let client = t.client(Some(&t.token));
    past.is_there(t, &client).await;
    mended(&client, left).await;
    assert!(client.key(&name("fresh")).await.is_err());
    let (status, answer) = request.send(t, "once").await.unwrap();
    assert_eq!(status, 201, "{answer}");
    assert_eq!(client.key(&name("fresh")).await.unwrap().latest, Version::FIRST);
    past::all_keys_work(&client).await;
    let expected = past::resident_ids(&client).await;
    second.kill().await;
    t.audit_is_good();
    assert_eq!(t.hsm.ids(), expected.union(&t.house_ids()).cloned().collect());
}

#[tokio::test]
async fn a_version_that_is_made_after_the_death_of_its_service_is_no_orphan() {
    let past = Past::make(false).await;
    let moments = [50, 200, 400].map(Duration::from_millis).to_vec();
    past::all(moments, async |moment| {
        let t = past.installation.copy_with(Devices::Faulty);
        let first = t.serve().await;
        t.client(Some(&t.token)).status().await.unwrap(); // As above.
        // The device worker is at it for a second, and outlives its service by as much.
        t.hsm.plan("C_GenerateKeyPair delay_ms=1000\n");
        let request = Change::Create.request(&past);
        let _ = tokio::time::timeout(moment, request.send(&t, "once")).await.expect_err("it takes a second");
        first.kill().await;
        t.hsm.plan("");
        let second = t.serve().await;
        let found = t.client(Some(&t.token)).status().await.unwrap().recovered;
        second.kill().await;
        let left: Vec<_> = found.iter().map(String::as_str).collect();
        // Whatever the moment left was mended by that start; the next one finds nothing.
        assert!(left.len() <= 2, "{left:?}");
        ends_well(&past, &t, &request, &[]).await;
    })
    .await;
}
