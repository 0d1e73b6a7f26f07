//! Deaths while two devices come to share keys, and while a shared key is born.

use std::fs;

use super::past::{self, Past, Request};
use super::{Left, mended};
use crate::process::{Installation, eventually};
use crate::server::{name, pkcs11_stanza};
use crate::softhsm::{MODULE, SoftHsm};

/// Points of this module alone, for the register.
pub(super) const POINTS: &[&str] = &[
    "share.before_make",
    "share.made",
    "share.before_pass_on",
    "share.passed_on",
    "share.before_take",
    "share.taken",
    "keyring.probed_elsewhere",
];

/// Between two devices that share nothing yet.
const ANEW: &[&str] = &[
    "share.before_make",
    "share.made",
    "share.before_take:1",
    "share.taken:1",
    "share.before_take:2",
    "share.taken:2",
    "ledger.committed:1",
    "root.written",
    "root.renamed",
    "ledger.committed:2",
];
/// To one that takes the place of another.
const PASSED_ON: &[&str] =
    &["share.before_pass_on", "share.passed_on", "share.before_take", "share.taken", "root.written", "root.renamed"];

/// An installation with further tokens in its configuration, enrolled.
async fn with_tokens(past: &Past, others: &[(&str, &SoftHsm)]) -> Installation {
    let t = past.installation.copy();
    for (name, hsm) in others {
        let without = fs::read_to_string(t.config()).unwrap();
        fs::write(t.config(), format!("{without}\n{}", pkcs11_stanza(name, MODULE.as_ref(), hsm))).unwrap();
        run(&t, &["--enrol", name]).await;
    }
    t
}

async fn run(t: &Installation, words: &[&str]) {
    let config = t.config().to_str().unwrap().to_owned();
    t.command(&[&["init", "--config", &config], words].concat(), None).succeeds().await;
}

/// `init --share` dies; the service is what it was, and the next try shares.
async fn cut_short(t: &Installation, words: &[&str], point: &str) {
    let config = t.config().to_str().unwrap().to_owned();
    t.command(&[&["init", "--config", &config], words].concat(), Some(point)).dies(point).await;
    let service = t.serve().await;
    is_sound(t).await;
    service.kill().await;
    run(t, words).await;
    let service = t.serve().await;
    is_sound(t).await;
    assert!(create("fresh").send(t, "once").await.unwrap().0 < 300);
    past::all_keys_work(&t.client(Some(&t.token))).await;
    service.kill().await;
    t.audit_is_good();
}

/// All keys do what they do. Keys that the try took in before it died, and that nothing names, stay in their token and are reported.
async fn is_sound(t: &Installation) {
    let client = t.client(Some(&t.token));
    eventually("the service is ready", async || client.ready().await.ok()).await;
    past::all_keys_work(&client).await;
    // An anchor that was slow on a busy machine is moved on by itself within moments.
    let only_leftovers = async || {
        let problems = client.status().await.ok()?.problems;
        problems.iter().all(|one| one.contains("that no record names")).then_some(())
    };
    eventually("nothing but leftovers is told", only_leftovers).await;
}

fn create(name: &str) -> Request {
    let body = format!(r#"{{"name":"{name}","algorithm":"ecdsa-p256-sha256","residency":"shared"}}"#);
    Request { method: "POST".to_owned(), path: "keys".to_owned(), body, if_match: None }
}

#[tokio::test]
async fn devices_share_or_do_not_whatever_moment_that_dies_at() {
    let past = Past::make(false).await;
    past::all(ANEW.to_vec(), async |point| {
        let second = SoftHsm::new();
        let t = with_tokens(&past, &[("second", &second)]).await;
        cut_short(&t, &["--share", "hsm", "--share", "second"], point).await;
    })
    .await;
    past::all(PASSED_ON.to_vec(), async |point| {
        let (second, third) = (SoftHsm::new(), SoftHsm::new());
        let t = with_tokens(&past, &[("second", &second), ("third", &third)]).await;
        run(&t, &["--share", "hsm", "--share", "second"]).await;
        let pin = second.folder().join("so-pin");
        let officer = ["--officer-pin", pin.to_str().unwrap()];
        cut_short(&t, &[["--share", "second", "--share", "third"].as_slice(), &officer].concat(), point).await;
    })
    .await;
}

#[tokio::test]
async fn a_shared_key_that_is_cut_short_is_not_there() {
    let past = Past::make(false).await;
    let second = SoftHsm::new();
    let t = with_tokens(&past, &[("second", &second)]).await;
    run(&t, &["--share", "hsm", "--share", "second"]).await;
    let point = "keyring.probed_elsewhere";
    let mut first = t.serve_until(point);
    first.serves().await.unwrap();
    assert!(create("fresh").send(&t, "once").await.is_err());
    first.dies(point).await;
    let again = t.serve().await;
    let client = t.client(Some(&t.token));
    mended(&client, &Left::Unfinished.mended()).await;
    assert!(client.key(&name("fresh")).await.is_err());
    assert_eq!(create("fresh").send(&t, "once").await.unwrap().0, 201);
    past::all_keys_work(&client).await;
    again.kill().await;
    t.audit_is_good();
}
