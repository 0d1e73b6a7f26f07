//! Two devices: a key that is in both outlives either, and a token that was replaced is mended by one act.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signet::attestation::{Attestation, Expected};
use signet::client::Client;
use signet::config::Config;
use signet::device::{PinSource, Settings};
use signet::error::{Kind, Result};
use signet::server::{Shared, enrol, share};
use signet::types::{Context, Name, Protection, Purpose, Residency, Version};
use signet::wire::{Base64, MakeMac, RotateKey, ScheduleDestruction, Sign, VerifyMac};

use crate::kryoptic::Kryoptic;
use crate::process::eventually;
use crate::server::{Devices, TestServer, configuration, name, new_key, options, pkcs11_stanza};
use crate::sign::{base64, openssl_accepts};
use crate::softhsm::{MODULE, SoftHsm};
use crate::wrap::{plain, sealed};

fn device(text: &str) -> Name {
    text.parse().unwrap()
}

/// The configuration of the first token and of others by their names.
fn with_tokens(t: &TestServer, others: &[(&str, &SoftHsm)]) -> Config {
    let folder = t.data().parent().unwrap().to_owned();
    let mut text = configuration(&t.hsm, None, Devices::SoftHsm, &folder);
    for (name, hsm) in others {
        text.push_str(&pkcs11_stanza(name, MODULE.as_ref(), hsm));
    }
    Config::parse(&text).unwrap()
}

async fn enrolled(t: &TestServer, name: &str) {
    enrol(&t.config, &options(&t.clock), &device(name)).await.unwrap();
}

async fn shared(t: &TestServer, one: &str, other: &str, officer: Option<PathBuf>) -> Result<Shared> {
    share(&t.config, &options(&t.clock), [&device(one), &device(other)], officer.map(PinSource::File)).await
}

/// The PIN of a token's security officer.
fn officer_of(hsm: &SoftHsm) -> PathBuf {
    hsm.folder().join("so-pin")
}

/// A file with a PIN that only its owner can read.
fn pin_file(folder: &Path, pin: &str) -> PathBuf {
    let path = folder.join("another-pin");
    fs::write(&path, pin).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// A server whose token `hsm` shares with another one, `second`.
async fn two_tokens() -> (TestServer, SoftHsm) {
    let mut t = TestServer::start().await;
    t.stop().await;
    let second = SoftHsm::new();
    t.config = with_tokens(&t, &[("second", &second)]);
    enrolled(&t, "second").await;
    assert_eq!(shared(&t, "second", "hsm", None).await.unwrap(), Shared::Anew);
    assert_eq!(shared(&t, "hsm", "second", None).await.unwrap(), Shared::Already);
    t.start_again().await.unwrap();
    (t, second)
}

const ALGORITHMS: [&str; 5] = ["ecdsa-p256-sha256", "hmac-sha256", "aes256-gcm-derived", "aes256-gcm", "hpke-p256"];

/// Keys by their names, with a ciphertext of each that wraps.
type Keys = BTreeMap<String, Option<Base64>>;

/// One key of each kind whose versions that device makes and others have as well.
async fn keys(t: &TestServer, maker: &str) -> Keys {
    let mut made = BTreeMap::new();
    for algorithm in ALGORITHMS {
        let text = format!("{algorithm}-{maker}");
        let mut new = new_key(&text, algorithm);
        (new.device, new.residency) = (Some(device(maker)), Some(Residency::Shared));
        let key = t.client.create_key(&new).await.unwrap();
        assert_eq!(key.protection, Protection::HsmShared);
        let blob = match key.purpose {
            Purpose::Wrap => {
                Some(t.client.wrap(&name(&text), &plain(b"old", &Context::default())).await.unwrap().ciphertext)
            }
            Purpose::Sign | Purpose::Mac => None,
        };
        made.insert(text, blob);
    }
    made
}

/// Has a key do what it does.
async fn serves(client: &Client, key: &str, blob: Option<&Base64>) -> Result<()> {
    let (name, none, message) = (name(key), Context::default(), Base64(b"what was meant".to_vec()));
    if let Some(blob) = blob {
        let opened = client.unwrap(&name, &sealed(blob, &none)).await?;
        assert_eq!(opened.plaintext.0.expose(), b"old", "{key}");
        let new = client.wrap(&name, &plain(b"new", &none)).await?.ciphertext;
        assert_eq!(client.unwrap(&name, &sealed(&new, &none)).await?.plaintext.0.expose(), b"new", "{key}");
    } else if key.starts_with("hmac") {
        let made = client.mac(&name, &MakeMac { message: message.clone() }).await?;
        let checked = client.verify_mac(&name, &VerifyMac { message, mac: made.mac, version: None }).await?;
        assert!(checked.valid, "{key}");
    } else {
        let signed = client.sign(&name, &Sign { message: Some(message), ..Sign::default() }).await?;
        let public = client.public_key(&name, Some(signed.version)).await?;
        let signature = base64(&signed.signature);
        assert!(openssl_accepts(signed.algorithm, &public.pem, b"what was meant", &signature), "{key}");
    }
    Ok(())
}

async fn all_serve(t: &TestServer, keys: &Keys) {
    let client = t.impatient_client();
    for (key, blob) in keys {
        serves(&client, key, blob.as_ref()).await.unwrap_or_else(|error| panic!("{key}: {error:?}"));
    }
}

/// Waits until a device answers, or does not.
async fn is_up(t: &TestServer, name: &str, up: bool) {
    let worker = t.server().service().keyring().devices().get(&device(name)).unwrap().clone();
    eventually("the device is as it should be", async || (worker.state().is_ok() == up).then_some(())).await;
}

async fn problems_of_copies(t: &TestServer) -> Vec<String> {
    let problems = t.client.status().await.unwrap().problems;
    problems.into_iter().filter(|problem| problem.contains("fewer than two devices")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_two_tokens_outlive_the_loss_of_either_under_load() {
    let (t, second) = two_tokens().await;
    let keys = Arc::new(keys(&t, "second").await);
    assert!(problems_of_copies(&t).await.is_empty());
    // 1. The token that made them is moved away under load: nobody notices.
    let (ended, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = (0..3).map(|_| {
        let (client, keys, ended, done) = (t.impatient_client(), keys.clone(), ended.clone(), done.clone());
        tokio::spawn(async move {
            let mut failed = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                for (key, blob) in &*keys {
                    match serves(&client, key, blob.as_ref()).await {
                        Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failed.push(format!("{key}: {}", error.chain())),
                    }
                }
            }
            failed
        })
    });
    let load: Vec<_> = load.collect();
    eventually("there is load", async || (done.load(Ordering::Relaxed) > 15).then_some(())).await;
    second.take_out();
    is_up(&t, "second", false).await;
    let then = done.load(Ordering::Relaxed);
    eventually("the load goes on", async || (done.load(Ordering::Relaxed) > then + 30).then_some(())).await;
    ended.store(true, Ordering::Relaxed);
    for one in load {
        let failed = one.await.unwrap();
        assert!(failed.is_empty(), "{failed:#?}");
    }
    let metrics = t.client.metrics().await.unwrap();
    let stood_in = "signet_device_stood_in_total{device=\"hsm\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(stood_in)?.parse::<u64>().ok());
    assert!(count.is_some_and(|count| count > 0), "{metrics}");
    // 2. A new version is made in the other one.
    let rotated = t.client.rotate_key(&name("ecdsa-p256-sha256-second"), &RotateKey::default()).await.unwrap();
    assert_eq!(rotated.latest.number(), 2);
    all_serve(&t, &keys).await;
    // 3. It comes back; then the other one goes. What was made without it, it has as well.
    second.put_back();
    is_up(&t, "second", true).await;
    t.hsm.take_out();
    is_up(&t, "hsm", false).await;
    all_serve(&t, &keys).await;
    t.hsm.put_back();
    is_up(&t, "hsm", true).await;
    // 4. A key that is destroyed is destroyed in both.
    let name = name("hmac-sha256-second");
    let wait = ScheduleDestruction { after: Some("1d".parse().unwrap()) };
    t.client.schedule_destruction(&name, Version::FIRST, &wait).await.unwrap();
    assert_eq!(t.advance(jiff::SignedDuration::from_hours(25)).await.destroyed, 1);
    assert_eq!(t.client.key(&name).await.unwrap().primary, None);
}

#[tokio::test]
async fn a_replaced_token_is_mended_by_one_act_and_nothing_is_made_anew() {
    let (mut t, second) = two_tokens().await;
    let keys = keys(&t, "second").await;
    let attestation = t.client.attestation(&name("ecdsa-p256-sha256-second"), None, None).await.unwrap();
    t.stop().await;
    let root = fs::read(t.data().join("root.json")).unwrap();
    // 1. An empty token in the place of the lost one is refused, and stays empty.
    let empty = SoftHsm::new();
    t.config = with_tokens(&t, &[("second", &empty)]);
    t.start_again().await.expect_err("another token");
    assert!(empty.ids().is_empty());
    assert_eq!(fs::read(t.data().join("root.json")).unwrap(), root);
    // 2. Without it all keys go on, and those that the next loss would take are named.
    t.config = with_tokens(&t, &[]);
    t.start_again().await.unwrap();
    all_serve(&t, &keys).await;
    let problems = problems_of_copies(&t).await;
    assert!(problems.len() == 1 && problems[0].contains("-second version 1"), "{problems:?}");
    t.client.rotate_key(&name("aes256-gcm-derived-second"), &RotateKey::default()).await.unwrap();
    let objects = t.hsm.ids();
    t.stop().await;
    // 3. The replacement is another device; it gets the keys only by leave of the security officer of the one that is left.
    t.config = with_tokens(&t, &[("third", &empty)]);
    enrolled(&t, "third").await;
    let enrolled = empty.ids();
    let error = shared(&t, "third", "hsm", None).await.unwrap_err();
    assert!(error.mend().unwrap().contains("--officer-pin"), "{error:?}");
    let wrong = pin_file(empty.folder(), "00000000\n");
    let error = shared(&t, "third", "hsm", Some(wrong)).await.unwrap_err();
    assert!(error.chain().contains("security officer"), "{error:?}");
    assert_eq!((t.hsm.ids(), empty.ids()), (objects.clone(), enrolled), "nothing was made by what failed");
    assert_eq!(shared(&t, "hsm", "third", Some(officer_of(&t.hsm))).await.unwrap(), Shared::PassedOn);
    // 4. From now on each version is in two tokens again: the very same, in the new one too.
    t.start_again().await.unwrap();
    assert_eq!(t.hsm.ids(), objects, "the trusted key of the moment is gone");
    assert!(problems_of_copies(&t).await.is_empty());
    assert_eq!(t.client.key(&name("aes256-gcm-derived-second")).await.unwrap().latest.number(), 2);
    assert_eq!(t.client.key(&name("ecdsa-p256-sha256-second")).await.unwrap().latest, Version::FIRST);
    // Counted uses are leased while the root device is there.
    all_serve(&t, &keys).await;
    t.hsm.take_out();
    is_up(&t, "hsm", false).await;
    all_serve(&t, &keys).await;
    // 5. What was said of the key at its birth holds; the new token never says that it was born there.
    let nonce = "00112233445566778899aabbccddeeff".parse().unwrap();
    let fresh = t.client.attestation(&name("ecdsa-p256-sha256-second"), None, Some(&nonce)).await.unwrap();
    let [born, fresh] = [attestation, fresh].map(|text| Attestation::parse(text.as_bytes()).unwrap());
    let of = |name: &str| Expected::of(signet::server::attestation_key(&t.config, &device(name)).unwrap());
    let report = format!("{:?}", fresh.verify(&Expected { nonce: Some(nonce), ..of("third") }).unwrap());
    assert!(
        report.contains("that the key was made in the token") && report.contains("several tokens share"),
        "{report}"
    );
    assert!(born.verify(&of("third")).is_err());
    t.hsm.put_back();
    is_up(&t, "hsm", true).await;
    drop(second);
}

#[tokio::test]
async fn only_devices_that_share_keep_shared_keys() {
    let t = TestServer::with(Devices::WithTpm).await;
    for (device, said) in [("hsm", "signet init --share"), ("tpm", "signet init --share")] {
        let mut new = new_key("nowhere", "ecdsa-p256-sha256");
        (new.device, new.residency) = (Some(device.parse().unwrap()), Some(Residency::Shared));
        let error = t.client.create_key(&new).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.public().contains(said), "{error:?}");
    }
}

#[tokio::test]
async fn tokens_of_two_makers_share_keys() {
    let Some(kryoptic) = Kryoptic::new() else { return };
    let mut t = TestServer::start().await;
    t.stop().await;
    t.config.devices.insert(device("second"), Settings::Pkcs11(kryoptic.settings()));
    enrolled(&t, "second").await;
    assert_eq!(shared(&t, "hsm", "second", None).await.unwrap(), Shared::Anew);
    t.start_again().await.unwrap();
    // 1. What either makes, the other one has: it proved so before the key was there, and does it alone.
    let mut all = keys(&t, "hsm").await;
    all.extend(keys(&t, "second").await);
    t.hsm.take_out();
    is_up(&t, "hsm", false).await;
    all_serve(&t, &all).await;
    t.hsm.put_back();
    is_up(&t, "hsm", true).await;
    t.stop().await;
    // 2. Nobody can make a key trusted in Kryoptic, so it passes on nothing, and says so.
    let third = SoftHsm::new();
    t.config.devices.extend(with_tokens(&t, &[("third", &third)]).devices.remove_entry(&device("third")));
    enrolled(&t, "third").await;
    let officer = pin_file(third.folder(), Kryoptic::OFFICER_PIN);
    let error = shared(&t, "second", "third", Some(officer)).await.unwrap_err();
    assert!(error.chain().contains("trusted"), "{error:?}");
    t.start_again().await.unwrap();
    all_serve(&t, &all).await;
}
