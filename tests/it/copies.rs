//! Two devices: a key that is in both outlives either, and a token that was replaced is mended by one act.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use signet::attestation::{Attestation, Expected};
use signet::client::Client;
use signet::config::Config;
use signet::device::{KeySpec, PinSource, Settings, Worker};
use signet::doctor::{Verdict, examine};
use signet::error::{Kind, Result};
use signet::server::{Shared, enrol, share};
use signet::telemetry::Metrics;
use signet::types::{Context, KeyId, Name, Protection, Purpose, Residency, Version};
use signet::wire::{Base64, CreateKey, MakeMac, RotateKey, ScheduleDestruction, Sign, VerifyMac};

use crate::kryoptic::Kryoptic;
use crate::process::eventually;
use crate::server::{Devices, PROGRAM, TestServer, configuration, name, new_key, options, pkcs11_stanza};
use crate::sign::{base64, openssl_accepts};
use crate::softhsm::{LABEL, MODULE, SoftHsm, fault_module, tool};
use crate::wrap::{plain, sealed};

fn device(text: &str) -> Name {
    text.parse().unwrap()
}

/// The configuration of the first token and of others by their names.
fn with_tokens(t: &TestServer, others: &[(&str, &SoftHsm)]) -> Config {
    with_tokens_behind(MODULE.as_ref(), t, others)
}

fn with_tokens_behind(module: &Path, t: &TestServer, others: &[(&str, &SoftHsm)]) -> Config {
    let folder = t.data().parent().unwrap().to_owned();
    let mut text = configuration(&t.hsm, None, Devices::SoftHsm, &folder);
    for (name, hsm) in others {
        text.push_str(&pkcs11_stanza(name, module, hsm));
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
    two_tokens_behind(MODULE.as_ref()).await
}

async fn two_tokens_behind(module: &Path) -> (TestServer, SoftHsm) {
    let mut t = TestServer::start().await;
    t.stop().await;
    let second = SoftHsm::new();
    t.config = with_tokens_behind(module, &t, &[("second", &second)]);
    enrolled(&t, "second").await;
    assert_eq!(shared(&t, "second", "hsm", None).await.unwrap(), Shared::Anew);
    assert_eq!(shared(&t, "hsm", "second", None).await.unwrap(), Shared::Already);
    t.start_again().await.unwrap();
    (t, second)
}

/// A key that one device makes and others have as well.
fn new_shared(name: &str, algorithm: &str, maker: &str) -> CreateKey {
    CreateKey { device: Some(device(maker)), residency: Some(Residency::Shared), ..new_key(name, algorithm) }
}

const ALGORITHMS: [&str; 5] = ["ecdsa-p256-sha256", "hmac-sha256", "aes256-gcm-derived", "aes256-gcm", "hpke-p256"];

/// Keys by their names, with a ciphertext of each that wraps.
type Keys = BTreeMap<String, Option<Base64>>;

/// One key of each kind whose versions that device makes and others have as well.
async fn keys(t: &TestServer, maker: &str) -> Keys {
    let mut made = BTreeMap::new();
    for algorithm in ALGORITHMS {
        let text = format!("{algorithm}-{maker}");
        let key = t.client.create_key(&new_shared(&text, algorithm, maker)).await.unwrap();
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

/// Three clients that never try again use all keys while something happens, and for a while after it.
async fn nobody_notices(t: &TestServer, keys: &Keys, happens: impl AsyncFnOnce()) {
    let keys = Arc::new(keys.clone());
    let (ended, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load = (0..3).map(|_| {
        let (client, keys, ended, done) = (t.impatient_client(), keys.clone(), ended.clone(), done.clone());
        tokio::spawn(async move {
            let (mut failed, mut longest) = (Vec::new(), Duration::ZERO);
            while !ended.load(Ordering::Relaxed) {
                for (key, blob) in &*keys {
                    let began = Instant::now();
                    match serves(&client, key, blob.as_ref()).await {
                        Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failed.push(format!("{key}: {}", error.chain())),
                    }
                    longest = longest.max(began.elapsed());
                }
            }
            (failed, longest)
        })
    });
    let load: Vec<_> = load.collect();
    eventually("there is load", async || (done.load(Ordering::Relaxed) > 15).then_some(())).await;
    happens().await;
    let then = done.load(Ordering::Relaxed);
    eventually("the load goes on", async || (done.load(Ordering::Relaxed) > then + 30).then_some(())).await;
    ended.store(true, Ordering::Relaxed);
    for one in load {
        let (failed, longest) = one.await.unwrap();
        println!("one of three clients: the longest use of a key took {longest:?}");
        assert!(failed.is_empty(), "{failed:#?}");
    }
    println!("{} uses, 0 failed", done.load(Ordering::Relaxed));
}

/// What the doctor says of sharing, of an installation that does not run.
async fn doctor_of_sharing(t: &TestServer) -> Vec<(Verdict, String)> {
    let all = eventually("the service has ended", async || {
        let found = examine(&t.config, Path::new(PROGRAM)).await;
        found.iter().all(|one| one.what != "service").then_some(found)
    })
    .await;
    let found = all.into_iter().filter(|one| one.text.contains("key-encryption keys"));
    found.map(|one| (one.verdict, format!("{}: {}", one.what, one.text))).collect()
}

/// Leaves in a token what a worker leaves that dies while it passes shared keys on: a public key of that name.
fn leave_transport(hsm: &SoftHsm) {
    let (key, public) = (hsm.folder().join("rsa.pem"), hsm.folder().join("rsa.der"));
    let [key, public] = [&key, &public].map(|path| path.to_str().unwrap());
    tool("openssl", &["genrsa", "-out", key, "2048"]);
    tool("openssl", &["rsa", "-in", key, "-pubout", "-outform", "DER", "-out", public]);
    let id = KeyId::from_bytes(*b"signet transport");
    let object = [format!("{id}00000001"), format!("signet {id} v1")];
    let pin = fs::read_to_string(hsm.pin_file()).unwrap();
    let mut write = std::process::Command::new("pkcs11-tool");
    write.args(["--module", MODULE, "--token-label", LABEL, "--login", "--pin", pin.trim()]);
    write.args(["--write-object", public, "--type", "pubkey", "--id", &object[0], "--label", &object[1]]);
    assert!(write.envs(hsm.environment()).output().unwrap().status.success());
}

async fn problems_of_copies(t: &TestServer) -> Vec<String> {
    let problems = t.client.status().await.unwrap().problems;
    problems.into_iter().filter(|problem| problem.contains("fewer than two devices")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_two_tokens_outlive_the_loss_of_either_under_load() {
    let (t, second) = two_tokens().await;
    // 0. A first key of its kind could be under a key that is in one token alone: nothing there would tell.
    second.take_out();
    is_up(&t, "second", false).await;
    let error = t.client.create_key(&new_shared("first", "ecdsa-p256-sha256", "hsm")).await.unwrap_err();
    assert!(error.public().contains("no other device that shares it answers"), "{error:?}");
    t.client.key(&name("first")).await.unwrap_err();
    second.put_back();
    is_up(&t, "second", true).await;
    let keys = keys(&t, "second").await;
    assert!(problems_of_copies(&t).await.is_empty());
    // 1. The token that made them is moved away under load: nobody notices.
    nobody_notices(&t, &keys, async || {
        second.take_out();
        is_up(&t, "second", false).await;
    })
    .await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_hangs_costs_no_request() {
    let (t, second) = two_tokens_behind(&fault_module()).await;
    let keys = keys(&t, "second").await;
    nobody_notices(&t, &keys, async || {
        second.plan("* hang");
        is_up(&t, "second", false).await;
    })
    .await;
    second.plan("");
    is_up(&t, "second", true).await;
    all_serve(&t, &keys).await;
}

#[tokio::test]
async fn a_replaced_token_is_mended_by_one_act_and_nothing_is_made_anew() {
    let (mut t, second) = two_tokens().await;
    let keys = keys(&t, "second").await;
    let attestation = t.client.attestation(&name("ecdsa-p256-sha256-second"), None, None).await.unwrap();
    t.stop().await;
    let said = doctor_of_sharing(&t).await;
    let [hsm, other] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(*hsm, (Verdict::Good, "device hsm: shares key-encryption keys with second".to_owned()));
    assert_eq!(*other, (Verdict::Good, "device second: shares key-encryption keys with hsm".to_owned()));
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
    let said = doctor_of_sharing(&t).await;
    assert!(matches!(said.as_slice(), [(Verdict::Wrong, text)] if text.contains("no other device")), "{said:?}");
    // One more thing that a worker left which died at this before.
    leave_transport(&t.hsm);
    t.start_again().await.unwrap();
    let problems = t.client.status().await.unwrap().problems;
    assert!(problems.iter().any(|one| one.contains("cut short: the next one from hsm removes it")), "{problems:?}");
    t.stop().await;
    let littered = t.hsm.ids();
    // 3. The replacement is another device; it gets the keys only by leave of the security officer of the one that is left.
    t.config = with_tokens(&t, &[("third", &empty)]);
    enrolled(&t, "third").await;
    let enrolled = empty.ids();
    let error = shared(&t, "third", "hsm", None).await.unwrap_err();
    assert!(error.mend().unwrap().contains("--officer-pin"), "{error:?}");
    let wrong = pin_file(empty.folder(), "00000000\n");
    let error = shared(&t, "third", "hsm", Some(wrong)).await.unwrap_err();
    assert!(error.chain().contains("security officer"), "{error:?}");
    let left = t.hsm.ids();
    assert!(left.is_subset(&littered) && empty.ids() == enrolled, "nothing was made by what failed");
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
        let error = t.client.create_key(&new_shared("nowhere", "ecdsa-p256-sha256", device)).await.unwrap_err();
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

/// Who has the PIN of a token can put a key that he knows in the place of the shared one, and destroys that by it. Nothing is made under it.
#[tokio::test]
async fn a_key_in_the_place_of_the_shared_one_wraps_nothing() {
    let Some(python) = crate::judges::judge("python") else { return };
    let (mut t, second) = two_tokens().await;
    keys(&t, "hsm").await;
    t.stop().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/plant_shared_key.py");
    let pin = t.hsm.pin_file();
    let mut planted = std::process::Command::new(python);
    let root: serde_json::Value = serde_json::from_slice(&fs::read(t.data().join("root.json")).unwrap()).unwrap();
    let keks = root["devices"]["hsm"]["keks"].as_array().unwrap();
    let kek = keks.iter().find(|kek| kek["role"] == "Sign" && kek["shared"] == true).unwrap();
    let id = kek["id"].as_str().unwrap();
    planted.args([script, MODULE, LABEL, pin.to_str().unwrap(), id]).env("SOFTHSM2_CONF", t.hsm.conf());
    let said = planted.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    // 1. The token by itself cannot tell.
    let identity = serde_json::from_value(root["devices"]["hsm"].clone()).unwrap();
    let settings = t.config.devices[&device("hsm")].clone();
    let worker = Worker::start("hsm", settings, Some(identity), PROGRAM.into(), Metrics::new());
    worker.settled().await.unwrap();
    let (id, algorithm) = (KeyId::random().unwrap(), "ecdsa-p256-sha256".parse().unwrap());
    let spec = KeySpec { id, version: Version::FIRST, algorithm, residency: Residency::Shared, pcrs: None };
    worker.generate(spec).await.unwrap();
    worker.shutdown().await;
    t.start_again().await.unwrap();
    let fresh = |name| new_shared(name, "ecdsa-p256-sha256", "hsm");
    // 2. The other token does not open it; where that does not answer, this one does not open what was there before.
    assert_eq!(t.client.create_key(&fresh("one")).await.unwrap_err().kind(), Kind::Tampered);
    second.take_out();
    is_up(&t, "second", false).await;
    assert_eq!(t.client.create_key(&fresh("two")).await.unwrap_err().kind(), Kind::Tampered);
    for name in ["one", "two"] {
        assert_eq!(t.client.key(&self::name(name)).await.unwrap_err().kind(), Kind::NotFound);
    }
    serves(&t.impatient_client(), "ecdsa-p256-sha256-hsm", None).await.unwrap_err();
    serves(&t.impatient_client(), "hmac-sha256-hsm", None).await.unwrap();
    second.put_back();
    is_up(&t, "second", true).await;
}
