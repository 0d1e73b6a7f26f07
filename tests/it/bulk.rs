//! Many keys at once: all of a batch or none, each by policy and on record, and more of them than a token has room for.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use signet::client::{Client, PageRequest};
use signet::device::Settings;
use signet::error::Kind;
use signet::types::{Context, Domain, Residency, Rotation};
use signet::wire::{AuditRecords, Base64, Batch, CreateKey, CreateToken, Policy, Sign, Verify};

use crate::process::Installation;
use crate::server::{Devices, PROGRAM, TestServer, lasting, name, new_key, options};
use crate::wrap::{plain, sealed};

/// How many keys the token of these tests has room for.
const ROOM: u32 = 64;

fn batch(first: u32, count: u32) -> Batch<CreateKey> {
    Batch { items: (first..first + count).map(|number| new_key(&text(number), "aes256-gcm-derived")).collect() }
}

fn text(number: u32) -> String {
    format!("many-{number:05}")
}

/// The names of all keys, by pages of an odd size.
async fn listed(client: &Client, namespace: Option<&str>) -> Vec<String> {
    let (mut names, mut token) = (Vec::new(), None);
    let namespace = namespace.map(|name| name.parse().unwrap());
    loop {
        let page = client.keys(namespace.as_ref(), &PageRequest { size: Some(331), token }).await.unwrap();
        assert!(page.items.len() <= 331);
        names.extend(page.items.iter().map(|key| key.name.to_string()));
        token = page.next_page_token;
        if token.is_none() {
            return names;
        }
    }
}

fn small(config: &mut signet::config::Config) {
    for device in config.devices.values_mut() {
        if let Settings::Pkcs11(settings) = device {
            settings.loaded_keys = ROOM;
        }
    }
}

#[tokio::test]
async fn two_thousand_keys_are_made_listed_and_used_in_a_token_with_room_for_few() {
    let mut t = TestServer::configured(Devices::Faulty, small).await;
    t.key("aa:first", "hmac-sha256").await;
    t.key("zz:last", "hmac-sha256").await;
    for first in [0, 1000] {
        let made = t.client.create_keys(&batch(first, 1000), None).await.unwrap();
        assert_eq!(made.len(), 1000);
        assert!(made.iter().zip(first..).all(|(key, number)| key.name == name(&text(number))));
    }
    // 1. Pages: all names once, in order, of all namespaces and of one.
    let own: Vec<_> = (0..2000).map(|number| format!("default:{}", text(number))).collect();
    assert_eq!(listed(&t.client, Some("default")).await, own);
    let all = [vec!["aa:first".to_owned()], own, vec!["zz:last".to_owned()]].concat();
    assert_eq!(listed(&t.client, None).await, all);
    assert_eq!(listed(&t.client, Some("zz")).await, ["zz:last"]);
    assert_eq!(listed(&t.client, Some("between")).await, Vec::<String>::new());
    // 2. Used in turn, each is unwrapped anew and another one goes: the answers are right, before and after a restart.
    let none = Context::default();
    let chosen: Vec<u32> = (0..2000).step_by(10).collect();
    let mut blobs = Vec::new();
    t.hsm.calls();
    for number in &chosen {
        let key = text(*number);
        blobs.push((key.clone(), t.client.wrap(&name(&key), &plain(key.as_bytes(), &none)).await.unwrap().ciphertext));
    }
    let calls = t.hsm.calls();
    let (unwrapped, destroyed) = (calls["C_UnwrapKey"], calls.get("C_DestroyObject").copied().unwrap_or(0));
    assert!(unwrapped >= chosen.len() - ROOM as usize, "{unwrapped}");
    assert!(destroyed + 2 >= unwrapped, "{unwrapped} came and {destroyed} went");
    let open = async |t: &TestServer| {
        for (key, blob) in &blobs {
            let opened = t.client.unwrap(&name(key), &sealed(blob, &none)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), key.as_bytes());
        }
    };
    open(&t).await;
    // Many at once, each of another key.
    let asked =
        blobs.iter().map(|(key, blob)| {
            let (client, none) = (&t.client, &none);
            async move {
                client.unwrap(&name(key), &sealed(blob, none)).await.unwrap().plaintext.0.expose() == key.as_bytes()
            }
        });
    assert!(futures_util::future::join_all(asked).await.into_iter().all(|right| right));
    t.restart().await;
    open(&t).await;
    assert_eq!(listed(&t.client, None).await, all);
    let status = t.client.status().await.unwrap();
    assert!(status.problems.is_empty() && status.recovered.is_empty(), "{status:?}");
}

/// All records of the log.
async fn records(client: &Client) -> Vec<serde_json::Value> {
    let (mut all, mut first) = (Vec::new(), 0);
    loop {
        let AuditRecords { records, .. } = client.audit_records(first, Some(1000)).await.unwrap();
        // Each look is on record itself.
        let last = records.len() < 1000;
        first += records.len() as u64;
        all.extend(records);
        if last {
            return all;
        }
    }
}

#[tokio::test]
async fn each_key_of_a_batch_is_on_record_by_itself() {
    let t = TestServer::start().await;
    let before = records(&t.client).await.len();
    let made = t.client.create_keys(&batch(0, 300), None).await.unwrap();
    let after = records(&t.client).await;
    let of = |phase: &str| -> BTreeSet<(String, String)> {
        let own = after[before..].iter().filter(|one| one["phase"] == phase && one["action"] == "CreateKey");
        own.map(|one| (one["resource"].as_str().unwrap().to_owned(), one["key_id"].as_str().unwrap_or("").to_owned()))
            .collect()
    };
    let expected: BTreeSet<_> = made.iter().map(|key| (format!("key/{}", key.name), key.id.to_string())).collect();
    assert_eq!(of("intent"), expected);
    assert_eq!(of("done"), expected);
    let changes: Vec<_> =
        after[before..].iter().filter(|one| one["phase"] == "change" && one["action"] == "CreateKey").collect();
    assert_eq!((changes.len(), &changes[0]["facts"]["keys"]), (1, &"300".into()), "one transaction");
    // What the device says of each was kept with it.
    for key in [&made[0], &made[299]] {
        assert!(t.client.attestation(&key.name, None, None).await.unwrap().contains(&key.id.to_string()));
    }
}

#[tokio::test]
async fn a_batch_that_is_refused_for_one_key_makes_none() {
    let t = TestServer::start().await;
    t.key("many-00007", "hmac-sha256").await;
    let mut twice = batch(100, 5);
    twice.items.push(new_key(&text(102), "hmac-sha256"));
    let mut resident = batch(100, 5);
    resident.items[3].residency = Some(Residency::Resident);
    let mut unable = batch(100, 5);
    unable.items[3].algorithm = "ed25519".parse().unwrap();
    let mut ours = batch(100, 5);
    ours.items[3] = CreateKey { domain: Some(Domain::Tls), ..new_key(&text(103), "ecdsa-p256-sha256") };
    let mut rules = batch(100, 5);
    rules.items[3].labels = [("team".to_owned(), "x".repeat(129))].into();
    let nowhere = CreateKey { device: Some("other".parse().unwrap()), ..new_key(&text(103), "hmac-sha256") };
    let cases = [
        (batch(5, 5), Kind::Conflict, "many-00007"),
        (twice, Kind::Invalid, "twice"),
        (resident, Kind::Unsupported, "many-00103"),
        (unable, Kind::Unsupported, "many-00103"),
        (ours, Kind::Invalid, "tls"),
        (rules, Kind::Invalid, "many-00103"),
        (Batch { items: vec![nowhere] }, Kind::Invalid, "no device other"),
        (Batch { items: Vec::new() }, Kind::Invalid, "empty"),
        (batch(100, 1001), Kind::Limit, "1000"),
    ];
    for (body, kind, part) in cases {
        let error = t.client.create_keys(&body, None).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{part}: {error:?}");
        assert!(error.public().contains(part), "{part}: {error}");
    }
    assert_eq!(listed(&t.client, None).await, ["default:many-00007"]);
    let status = t.client.status().await.unwrap();
    assert!(status.problems.is_empty(), "{status:?}");
}

#[tokio::test]
async fn policy_is_asked_about_each_key_of_a_batch() {
    let t = TestServer::start().await;
    let text = r#"permit (principal == Signet::Identity::"maker", action == Signet::Action::"CreateKey",
        resource in Signet::Namespace::"a") when { resource.algorithm == "aes256-gcm-derived" };"#;
    let policy = Policy { name: None, text: text.to_owned(), etag: None };
    t.client.put_policy(&"maker".parse().unwrap(), None, &policy).await.unwrap();
    let body = CreateToken { identity: "maker".parse().unwrap(), groups: vec![], ttl: None, uses: None };
    let token = t.client.create_token(&body).await.unwrap().token.unwrap();
    let maker = t.client(Some(&token.0));
    let keys = |names: &[(&str, &str)]| Batch {
        items: names.iter().map(|(name, algorithm)| new_key(name, algorithm)).collect(),
    };
    let good = ("a:one", "aes256-gcm-derived");
    for bad in [("b:two", "aes256-gcm-derived"), ("a:two", "hmac-sha256")] {
        let error = maker.create_keys(&keys(&[good, bad, ("a:three", "aes256-gcm-derived")]), None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "it may not read it either: {error:?}");
        let all = records(&t.client).await;
        let refused: Vec<_> =
            all.iter().filter(|one| one["phase"] == "refused" && one["action"] == "CreateKey").collect();
        assert_eq!(refused.last().unwrap()["resource"], format!("key/{}", bad.0));
    }
    assert_eq!(listed(&t.client, None).await, Vec::<String>::new());
    assert_eq!(maker.create_keys(&keys(&[good]), None).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_batch_that_is_sent_twice_happens_once() {
    let t = TestServer::start().await;
    let first = t.client.create_keys(&batch(0, 40), Some("job.1")).await.unwrap();
    let again = t.client.create_keys(&batch(0, 40), Some("job.1")).await.unwrap();
    let ids = |keys: &[signet::wire::Key]| keys.iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&again));
    assert_eq!(t.client.create_keys(&batch(0, 41), Some("job.1")).await.unwrap_err().kind(), Kind::Conflict);
    // Two at once that share names: one of them makes its keys, and none is lost between them.
    let (one, other) = (batch(100, 30), batch(115, 30));
    let (one, other) = tokio::join!(t.client.create_keys(&one, None), t.client.create_keys(&other, None));
    assert!(one.is_ok() != other.is_ok(), "{:?} {:?}", one.is_ok(), other.is_ok());
    assert_eq!(listed(&t.client, None).await.len(), 70);
}

#[tokio::test]
async fn a_device_that_fails_in_the_middle_leaves_nothing_of_the_batch() {
    let t = TestServer::with(Devices::Faulty).await;
    t.client.status().await.unwrap(); // What the device can do is found out by making keys: that comes first.
    let ids = t.hsm.ids();
    t.hsm.plan("C_WrapKey after=150 count=1 pre=0x30\n");
    let error = t.impatient_client().create_keys(&batch(0, 300), Some("job.1")).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Unavailable | Kind::Internal | Kind::Tampered), "{error:?}");
    t.hsm.plan("");
    assert_eq!(listed(&t.client, None).await, Vec::<String>::new());
    assert_eq!(t.hsm.ids(), ids);
    assert_eq!(t.client.create_keys(&batch(0, 300), Some("job.1")).await.unwrap().len(), 300);
    let none = Context::default();
    let blob = t.client.wrap(&name(&text(299)), &plain(b"m", &none)).await.unwrap().ciphertext;
    t.client.unwrap(&name(&text(299)), &sealed(&blob, &none)).await.unwrap();
}

#[tokio::test]
async fn pairs_and_tpm_keys_are_made_in_batches_too() {
    let t = TestServer::with(Devices::WithTpm).await;
    let mut items: Vec<_> = (0..20).map(|number| new_key(&format!("sign-{number}"), "ecdsa-p256-sha256")).collect();
    items.extend((0..5).map(|number| {
        let device = Some("tpm".parse().unwrap());
        CreateKey { device, ..new_key(&format!("tpm-{number}"), "ecdsa-p256-sha256") }
    }));
    let made = t.client.create_keys(&Batch { items }, None).await.unwrap();
    let message = Some(Base64(b"m".to_vec()));
    for key in &made {
        let sign = Sign { message: message.clone(), ..Sign::default() };
        let signature = t.client.sign(&key.name, &sign).await.unwrap().signature;
        let verify = Verify { message: message.clone(), signature, ..Verify::default() };
        assert!(t.client.verify(&key.name, &verify).await.unwrap().valid, "{}", key.name);
    }
}

#[tokio::test]
async fn what_falls_due_among_many_keys_is_found() {
    let mut t = TestServer::start().await;
    let mut body = batch(0, 200);
    for (item, days) in body.items.iter_mut().zip([1_u32, 2, 3, 4].iter().cycle()) {
        item.rotation = Rotation { every: Some(format!("{days}d").parse().unwrap()), ..Rotation::default() };
    }
    t.client.create_keys(&body, None).await.unwrap();
    assert_eq!(t.advance(SignedDuration::from_hours(23)).await.rotated, 0);
    assert_eq!(t.advance(SignedDuration::from_hours(2)).await.rotated, 50);
    t.restart().await;
    assert_eq!(t.advance(SignedDuration::ZERO).await.rotated, 0);
    // Those of one day again, and those of two.
    assert_eq!(t.advance(SignedDuration::from_hours(24)).await.rotated, 100);
    assert_eq!(t.client.key(&name(&text(0))).await.unwrap().latest.number(), 3);
    assert_eq!(t.client.key(&name(&text(3))).await.unwrap().latest.number(), 1);
}

#[tokio::test]
async fn what_everybody_reads_stays_small() {
    let t = TestServer::start().await;
    let key =
        |number: u32| CreateKey { domain: Some(Domain::Jwt), ..new_key(&format!("jwt-{number}"), "ecdsa-p256-sha256") };
    for first in (0..1000).step_by(250) {
        let items = (first..first + 250).map(key).collect();
        t.client.create_keys(&Batch { items }, None).await.unwrap();
    }
    assert_eq!(t.client.create_key(&key(1000)).await.unwrap_err().kind(), Kind::Limit);
    let error = t.client.create_keys(&Batch { items: vec![key(1000)] }, None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Limit);
    assert_eq!(t.server().service().published_keys().len(), 1000);
}

#[tokio::test]
async fn a_job_that_is_cut_short_by_deaths_is_finished_by_the_same_command() {
    let mut t = Installation::bare(Devices::SoftHsm);
    let config = signet::config::Config::read(&t.config()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the processes of this test live in the time of the system")]
    let clock = signet::types::ManualClock::at(jiff::Timestamp::now());
    let first = signet::server::create(&config, &options(&clock)).await.unwrap().token.to_string();
    let server = signet::server::Server::start(&config, options(&clock)).await.unwrap();
    t.token = lasting(&crate::server::client(&server, Some(&first))).await;
    server.stop().await.unwrap();
    let job = async |t: &Installation| {
        let mut command = tokio::process::Command::new(PROGRAM);
        command.args([
            "key",
            "create",
            "many",
            "--algorithm",
            "aes256-gcm-derived",
            "--count",
            "2000",
            "--batch",
            "500",
            "--job",
            "tenants",
        ]);
        let ca = t.data().join("tls/ca.pem");
        command.env("SIGNET_SERVER", t.address()).env("SIGNET_CA", ca).env("SIGNET_TOKEN", &t.token);
        command.output().await.unwrap()
    };
    // It dies while the second batch is made, before the third is committed, and after that.
    let deaths = ["keyring.generated:700", "ledger.before_commit:2", "ledger.committed:1", "keyring.published:1"];
    let mut before = 0;
    for point in deaths {
        let mut service = t.serve_until(point);
        service.serves().await.unwrap();
        let (ended, ()) = tokio::join!(job(&t), service.dies(point));
        assert!(!ended.status.success(), "{ended:?}");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(said.contains("of 2000 keys are made"), "{said}");
        let service = t.serve().await;
        let there = listed(&t.client(Some(&t.token)), None).await;
        // Whole batches, from the first on.
        assert_eq!(there.len() % 500, 0, "{point}: {}", there.len());
        assert!(there.len() >= before, "{point}: {} after {before}", there.len());
        before = there.len();
        service.kill().await;
        t.audit_is_good();
    }
    assert!(before > 0, "nothing was made before the last death");
    let service = t.serve().await;
    let ended = job(&t).await;
    assert!(ended.status.success(), "{ended:?}");
    let client = t.client(Some(&t.token));
    let expected: Vec<_> = (1..=2000).map(|number| format!("default:many-{number:07}")).collect();
    assert_eq!(listed(&client, None).await, expected);
    let none = Context::default();
    for number in (1..=2000).step_by(97) {
        let key = name(&format!("many-{number:07}"));
        let blob = client.wrap(&key, &plain(b"m", &none)).await.unwrap().ciphertext;
        assert_eq!(client.unwrap(&key, &sealed(&blob, &none)).await.unwrap().plaintext.0.expose(), b"m");
    }
    let status = client.status().await.unwrap();
    assert!(status.problems.is_empty(), "{status:?}");
    service.kill().await;
    t.audit_is_good();
    assert_eq!(t.hsm.ids(), t.house_ids(), "nothing of them is in the token");
}
