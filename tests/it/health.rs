//! Devices that hang, go and come back, or refuse their PIN, through the front: who waits, what is said, and what is on record.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use signet::config::Config;
use signet::error::Kind;
use signet::server::{Server, create};
use signet::types::Context;
use signet::wire::{Base64, DeviceStatus, Sign};

use crate::process::eventually;
use crate::proof::proven;
use crate::server::{Devices, TestServer, configuration, name, new_key, options};
use crate::wrap::{plain, sealed};

fn message() -> Sign {
    Sign { message: Some(Base64(b"x".to_vec())), ..Sign::default() }
}

async fn device(t: &TestServer) -> DeviceStatus {
    let devices = t.client.status().await.unwrap().devices;
    devices.into_iter().find(|device| device.name.as_str() == "hsm").unwrap()
}

/// How often each event of the device is on record.
async fn recorded(t: &TestServer) -> BTreeMap<String, usize> {
    let records = t.client.audit_records(0, Some(1000)).await.unwrap().records;
    let mut counts = BTreeMap::new();
    for record in records.iter().filter(|one| one["principal"] == "system/device") {
        assert_eq!(record["facts"]["device"], "hsm");
        assert!(record["reason"].as_str().is_some_and(|why| !why.is_empty()), "{record}");
        *counts.entry(record["facts"]["event"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

async fn metric(t: &TestServer, line: &str) -> Option<u64> {
    let text = t.client.metrics().await.unwrap();
    let found = text.lines().find_map(|one| one.strip_prefix(line))?;
    found.trim().parse().ok()
}

#[tokio::test]
async fn a_device_that_hangs_again_and_again_is_refused_at_once_and_taken_up_by_itself() {
    let t = TestServer::with(Devices::FaultyWithTpm).await;
    let none = Context::default();
    t.key("release", "ecdsa-p256-sha256").await;
    let mut new = new_key("elsewhere", "aes256-gcm-derived");
    new.device = Some("tpm".parse().unwrap());
    t.client.create_key(&new).await.unwrap();
    let other = t.client.wrap(&name("elsewhere"), &plain(b"secret", &none)).await.unwrap().ciphertext;
    let impatient = t.impatient_client();
    let worker = t.server().service().keyring().devices().first_key_value().unwrap().1.clone();
    // 1. Each new worker finds its sentinel, and hangs in the next call.
    t.hsm.plan("C_Sign after=1 hang\n");
    eventually("the breaker is open", async || {
        if let Err(error) = impatient.sign(&name("release"), &message()).await {
            assert!(matches!(error.kind(), Kind::Unavailable | Kind::Busy), "{error:?}");
        }
        worker
            .state()
            .is_err_and(|fault| fault.wait.is_some_and(|wait| wait > Duration::from_millis(400)))
            .then_some(())
    })
    .await;
    drop(worker);
    // 2. Nobody waits for it, it is said when to come back, and the other device does not notice.
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let began = Instant::now();
        let (status, retry_after) = refused(&t).await;
        longest = longest.max(began.elapsed());
        assert_eq!(status, 503);
        assert!((1..=30).contains(&retry_after), "{retry_after}");
        let opened = impatient.unwrap(&name("elsewhere"), &sealed(&other, &none)).await.unwrap();
        assert_eq!(opened.plaintext.0.expose(), b"secret");
    }
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert!(metric(&t, "signet_device_breaker{device=\"hsm\"}").await.is_some_and(|state| state > 0));
    let status = device(&t).await;
    assert!(!status.up && status.problem.is_some() && ["open", "half-open"].contains(&status.breaker.as_str()));
    // 3. By itself, and all of it is on record.
    t.hsm.plan("");
    eventually("it is ready by itself", async || t.client(None).ready().await.ok()).await;
    t.client.sign(&name("release"), &message()).await.unwrap();
    let told = eventually("it is on record", async || {
        let told = recorded(&t).await;
        (told.get("opened") == told.get("closed") && told.contains_key("closed")).then_some(told)
    })
    .await;
    assert!(told["worker replaced"] >= 3, "{told:?}");
    let counted = metric(&t, "signet_device_events_total{device=\"hsm\",event=\"opened\"}").await;
    assert_eq!(counted, Some(told["opened"] as u64));
    println!("longest refusal {longest:?}; on record: {told:?}");
    proven("devices that hang again and again", 20, "calls refused at once, with the time of the next try");
}

/// The status of a signature's answer, and after how many seconds to come back.
async fn refused(t: &TestServer) -> (u16, u64) {
    let url = format!("https://{}/api/v1/keys/release/sign", t.server().address());
    let request = t.http().post(url).bearer_auth(t.token()).header("Content-Type", "application/json");
    let answer = request.body(r#"{"message":"eA=="}"#).send().await.unwrap();
    let after = answer.headers().get("retry-after").map(|after| after.to_str().unwrap().parse().unwrap());
    (answer.status().as_u16(), after.unwrap_or(0))
}

#[tokio::test]
async fn a_token_that_comes_and_goes_is_on_record_each_time_and_loses_nothing() {
    let t = TestServer::start().await;
    t.key("release", "ecdsa-p256-sha256").await;
    let ids = t.hsm.ids();
    const TIMES: usize = 4;
    for _ in 0..TIMES {
        t.hsm.take_out();
        eventually("it is missed", async || t.client(None).ready().await.err()).await;
        t.hsm.put_back();
        eventually("it is ready by itself", async || t.client(None).ready().await.ok()).await;
        t.client.sign(&name("release"), &message()).await.unwrap();
    }
    let told = eventually("it is on record", async || {
        let told = recorded(&t).await;
        (told.get("closed") == Some(&TIMES)).then_some(told)
    })
    .await;
    assert_eq!(told["opened"], TIMES, "{told:?}");
    assert_eq!(t.hsm.ids(), ids);
    proven("times that a token went and came back", TIMES, "each on record once, no key lost or made");
}

/// A second service on the same token.
async fn second(t: &TestServer, folder: &std::path::Path) -> (Config, Server) {
    let config = Config::parse(&configuration(&t.hsm, None, Devices::Faulty, folder)).unwrap();
    drop(create(&config, &options(&t.clock)).await.unwrap());
    let server = Server::start(&config, options(&t.clock)).await.unwrap();
    (config, server)
}

#[tokio::test]
async fn a_wrong_pin_is_tried_once_by_all_services_on_a_token() {
    let mut t = TestServer::with(Devices::Faulty).await;
    let folder = tempfile::tempdir().unwrap();
    let (config, other) = second(&t, folder.path()).await;
    t.key("release", "ecdsa-p256-sha256").await;
    let right = std::fs::read(t.hsm.pin_file()).unwrap();
    let devices = |server: &Server| server.service().keyring().devices().clone();
    let logins = |t: &TestServer| t.hsm.calls().get("C_Login").copied().unwrap_or_default();
    // 1. While they run: the PIN is spoilt, and both lose their workers.
    t.hsm.spoil_pin();
    logins(&t);
    t.hsm.plan("C_Sign abort\n");
    for server in [t.server(), &other] {
        let (_, worker) = devices(server).into_iter().next().unwrap();
        eventually("it is down for want of a PIN", async || {
            worker.state().is_err_and(|fault| fault.class == signet::device::Class::PinRefused).then_some(())
        })
        .await;
    }
    t.hsm.plan("");
    assert_eq!(logins(&t), 1);
    // However long, and whoever asks.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        let error = t.impatient_client().sign(&name("release"), &message()).await.unwrap_err();
        assert_eq!((error.kind(), error.wait()), (Kind::Unavailable, Some(Duration::from_secs(60))), "{error:?}");
    }
    assert_eq!(logins(&t), 0);
    // 2. Ended and started again and again, as a supervisor of services does, both at once.
    t.stop_somehow().await;
    let _ = other.stop().await;
    for _ in 0..3 {
        let (one, two) =
            tokio::join!(Server::start(&t.config, options(&t.clock)), Server::start(&config, options(&t.clock)),);
        for error in [one.err().unwrap(), two.err().unwrap()] {
            assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
            assert!(error.public().contains("PIN") && error.mend().is_some(), "{error:?}");
        }
    }
    assert_eq!(logins(&t), 0);
    // 3. Another wrong one is tried once too: by the service whose try it was.
    std::fs::write(t.hsm.pin_file(), "000000001\n").unwrap();
    for _ in 0..3 {
        let (one, two) =
            tokio::join!(Server::start(&t.config, options(&t.clock)), Server::start(&config, options(&t.clock)),);
        assert!(one.is_err() && two.is_err());
    }
    assert_eq!(logins(&t), 1);
    // 4. The right one is taken by the service whose try it was, and then by the other.
    std::fs::write(t.hsm.pin_file(), &right).unwrap();
    let (mut one, mut two) = (None, None);
    eventually("both are up", async || {
        if one.is_none() {
            one = Server::start(&t.config, options(&t.clock)).await.ok();
        }
        if two.is_none() {
            two = Server::start(&config, options(&t.clock)).await.ok();
        }
        (one.is_some() && two.is_some()).then_some(())
    })
    .await;
    assert_eq!(logins(&t), 2);
    one.unwrap().stop().await.unwrap();
    two.unwrap().stop().await.unwrap();
    t.start_again().await.unwrap();
    t.client.sign(&name("release"), &message()).await.unwrap();
    let told = recorded(&t).await;
    assert_eq!(told.get("pin refused"), Some(&1), "{told:?}");
    proven("wrong PINs with two services on a token", 2, "each tried once by both together, through eight starts");
}
