//! Keys: made, read, listed, kept apart; what they cost the token; what becomes of a thousand versions.

use signet::client::Transition;
use signet::error::Kind;
use signet::types::{Context, Residency};
use signet::wire::{Base64, RotateKey, Sign};

use crate::server::{Devices, TestServer, name, new_key};
use crate::wrap::{plain, sealed};

/// How often a key is rotated while its first ciphertext waits.
const ROTATIONS: u32 = 1000;

#[tokio::test]
async fn a_device_refuses_by_name_what_it_cannot_do() {
    let t = TestServer::with(Devices::WithTpm).await;
    let cases = [
        ("tpm", "ed25519", None, "tpm"),
        ("tpm", "rsa4096-pss-sha256", None, "tpm"),
        ("tpm", "ecdsa-p256-sha256", Some(Residency::Resident), "resident"),
        ("hsm", "ed25519", Some(Residency::Wrapped), "wrapped"),
    ];
    for (device, algorithm, residency, part) in cases {
        let mut new = new_key("never", algorithm);
        (new.device, new.residency) = (Some(device.parse().unwrap()), residency);
        let error = t.client.create_key(&new).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{algorithm} on {device}: {error:?}");
        assert!(error.public().contains(part), "{error}");
        assert!(error.mend().unwrap().contains("it can keep"), "{error:?}");
    }
    assert_eq!(t.client.key(&name("never")).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn names_are_refused_and_never_normalised() {
    let t = TestServer::start().await;
    t.key("data", "hmac-sha256").await;
    for bad in ["Data", "data ", "da/ta", "-data", "dåta", "", "a:b:c", &"x".repeat(64), "data%00", "../data"] {
        assert!(bad.parse::<signet::types::KeyName>().is_err(), "{bad:?}");
    }
    assert_eq!(t.client.create_key(&new_key("data", "hmac-sha256")).await.unwrap_err().kind(), Kind::Conflict);
    // A namespace is a tenant: the same name in another one is another key.
    t.key("other:data", "hmac-sha256").await;
    let (own, other) = (t.client.key(&name("data")).await.unwrap(), t.client.key(&name("other:data")).await.unwrap());
    assert_ne!(own.id, other.id);
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let mut t = TestServer::with(Devices::WithTpm).await;
    let none = Context::default();
    let mut blobs = Vec::new();
    for (device, residency) in [("hsm", "resident"), ("hsm", "wrapped"), ("tpm", "wrapped")] {
        let key = format!("{device}-{residency}");
        let mut new = new_key(&key, "aes256-gcm-derived");
        (new.device, new.residency) = (Some(device.parse().unwrap()), Some(residency.parse().unwrap()));
        t.client.create_key(&new).await.unwrap();
        let blob = t.client.wrap(&name(&key), &plain(b"before", &none)).await.unwrap().ciphertext;
        t.client.rotate_key(&name(&key), &RotateKey::default()).await.unwrap();
        blobs.push((key, blob));
    }
    t.restart().await;
    for (key, blob) in &blobs {
        let opened = t.client.unwrap(&name(key), &sealed(blob, &none)).await.unwrap();
        assert_eq!(opened.plaintext.0.expose(), b"before");
    }
    let status = t.client.status().await.unwrap();
    assert!(status.problems.is_empty() && status.recovered.is_empty(), "{status:?}");
}

/// The calls of one operation on the token, the connection and all caches being warm. What the service does beside it, once a
/// second each (the sentinel, the head of the audit log), can only add calls: the fewest of some tries are those of the operation.
async fn calls_of_one(t: &TestServer, work: impl AsyncFn()) -> Vec<(String, usize)> {
    work().await;
    let mut tries = Vec::new();
    for _ in 0..8 {
        t.hsm.calls();
        work().await;
        let calls: Vec<_> = t.hsm.calls().into_iter().filter(|(function, _)| function != "C_GetSessionInfo").collect();
        tries.push(calls);
    }
    tries.into_iter().min_by_key(|calls| calls.iter().map(|(_, count)| count).sum::<usize>()).unwrap()
}

#[tokio::test]
async fn an_operation_makes_the_same_calls_whatever_the_token_holds() {
    let t = TestServer::with(Devices::Faulty).await;
    t.key("sign", "ecdsa-p256-sha256").await;
    t.key("data", "aes256-gcm-derived").await;
    let none = Context::default();
    let blob = t.client.wrap(&name("data"), &plain(b"first", &none)).await.unwrap().ciphertext;
    let sign = async || {
        let body = Sign { message: Some(Base64(b"m".to_vec())), ..Sign::default() };
        t.client.sign(&name("sign"), &body).await.unwrap();
    };
    let unwrap = async || drop(t.client.unwrap(&name("data"), &sealed(&blob, &none)).await.unwrap());
    let once = vec![("C_Sign".to_owned(), 1), ("C_SignInit".to_owned(), 1)];
    let mut keys = 2;
    for target in [10, 100, 1000] {
        while keys < target {
            t.key(&format!("filler-{keys}"), "hmac-sha256").await;
            keys += 1;
        }
        assert_eq!(calls_of_one(&t, sign).await, once, "sign with {keys} keys");
        assert_eq!(calls_of_one(&t, unwrap).await, once, "unwrap with {keys} keys");
    }
}

#[tokio::test]
async fn the_first_of_many_versions_opens_with_one_device_operation() {
    let t = TestServer::with(Devices::Faulty).await;
    let mut new = new_key("data", "aes256-gcm-derived");
    new.residency = Some(Residency::Wrapped);
    t.client.create_key(&new).await.unwrap();
    let none = Context::default();
    let blob = t.client.wrap(&name("data"), &plain(b"first", &none)).await.unwrap().ciphertext;
    for _ in 0..ROTATIONS {
        t.client.rotate_key(&name("data"), &RotateKey::default()).await.unwrap();
    }
    let newest = t.client.wrap(&name("data"), &plain(b"newest", &none)).await.unwrap();
    assert_eq!(newest.version.number(), ROTATIONS + 1);
    let once = vec![("C_Sign".to_owned(), 1), ("C_SignInit".to_owned(), 1)];
    for (blob, text) in [(&blob, b"first".as_slice()), (&newest.ciphertext, b"newest")] {
        let unwrap = async || {
            let opened = t.client.unwrap(&name("data"), &sealed(blob, &none)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), text);
        };
        assert_eq!(calls_of_one(&t, unwrap).await, once);
    }
}

#[tokio::test]
async fn a_change_that_is_sent_twice_happens_once() {
    let t = TestServer::start().await;
    let send = async |path: &str, key: &str, body: &str| t.post(t.token(), key, path, body).await;
    let body = r#"{"name":"data","algorithm":"aes256-gcm-derived"}"#;
    let first = send("keys", "k1", body).await;
    let again = send("keys", "k1", body).await;
    assert_eq!((first.0, &first.1), (201, &again.1), "{again:?}");
    let other = send("keys", "k1", r#"{"name":"data2","algorithm":"aes256-gcm-derived"}"#).await;
    assert_eq!(other.0, 409);
    for _ in 0..3 {
        assert_eq!(send("keys/data/rotate", "r1", "{}").await.0, 200);
    }
    assert_eq!(t.client.key(&name("data")).await.unwrap().latest.number(), 2);
    // A token is shown once: the repetition tells which one it was, not what it is.
    let body = r#"{"identity":"ci"}"#;
    let (made, repeated) = (send("tokens", "t1", body).await, send("tokens", "t1", body).await);
    assert!(made.1.contains("sgt_") && !repeated.1.contains("sgt_"), "{repeated:?}");
}

#[tokio::test]
async fn a_repetition_waits_for_the_first_and_gets_its_outcome() {
    let t = TestServer::with(Devices::Faulty).await;
    t.hsm.plan("C_GenerateKeyPair count=1 delay_ms=500\n");
    let send = async || t.post(t.token(), "k1", "keys", r#"{"name":"release","algorithm":"ecdsa-p256-sha256"}"#).await;
    let answers = futures_util::future::join_all([send(), send(), send()]).await;
    assert!(answers.iter().all(|answer| answer.0 == 201 && answer == &answers[0]), "{answers:?}");
    // Where the first fails, the one that waited is the one to try again.
    t.hsm.plan("C_GenerateKeyPair count=1 delay_ms=500 pre=0x30\n");
    let rotate = async || t.post(t.token(), "r1", "keys/release/rotate", "{}").await.0;
    let mut answers = futures_util::future::join_all([rotate(), rotate()]).await;
    answers.sort_unstable();
    assert_eq!(answers, [200, 503]);
    assert_eq!(t.client.key(&name("release")).await.unwrap().latest.number(), 2);
}

#[tokio::test]
async fn a_deletion_that_is_sent_twice_does_not_undo_what_came_between() {
    let t = TestServer::start().await;
    t.key("release", "ecdsa-p256-sha256").await;
    let delete = async |key: &str| {
        let path = format!("https://{}/api/v1/keys/release", t.server().address());
        t.http().delete(path).bearer_auth(t.token()).header("Idempotency-Key", key).send().await.unwrap().status()
    };
    assert_eq!(delete("d1").await, 200);
    // There is nothing left to do for this one.
    assert_eq!(delete("d2").await, 200);
    let first = signet::types::Version::FIRST;
    t.client.change_version(&name("release"), first, Transition::CancelDestruction).await.unwrap();
    assert_eq!(delete("d1").await, 200);
    assert_eq!(delete("d2").await, 200);
    let version = t.client.version(&name("release"), first).await.unwrap();
    assert_eq!(version.state, signet::types::State::Deactivated);
}

#[tokio::test]
async fn a_name_that_is_there_twice_is_refused_with_the_name() {
    let t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    let labels = r#"{"name":"other","algorithm":"hmac-sha256","labels":{"team":"a","team":"b"}}"#;
    let context = r#"{"plaintext":"eA==","context":{"team":"a","order":"1","team":"a"}}"#;
    let batch = format!(r#"{{"items":[{context}]}}"#);
    for (path, body) in [("keys", labels), ("keys/data/wrap", context), ("keys/data/wrap-batch", &batch)] {
        let (status, text) = t.post(t.token(), "k1", path, body).await;
        assert!(status == 400 && text.contains("\\\"team\\\" is there twice"), "{path}: {status} {text}");
    }
}
