//! Rotation by hand, by age, by uses and by bytes; retention and destruction.

use jiff::SignedDuration;
use signet::client::Transition;
use signet::error::Kind;
use signet::types::{Context, Retention, Rotation, State, Version};
use signet::wire::{RotateKey, ScheduleDestruction, UpdateKey};

use crate::server::{Devices, TestServer, name, new_key};
use crate::wrap::{plain, sealed};

#[tokio::test]
async fn of_eight_rotations_at_once_exactly_one_wins() {
    let t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    let body = RotateKey { expected_version: Some(Version::FIRST), prepare: false };
    let key = name("data");
    let all = (0..8).map(|_| t.client.rotate_key(&key, &body));
    let results = futures_util::future::join_all(all).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().flat_map(|result| result.as_ref().err()).all(|e| e.kind() == Kind::Stale));
    assert_eq!(t.client.key(&key).await.unwrap().latest.number(), 2);
}

#[tokio::test]
async fn a_key_rotates_by_age_without_a_human() {
    let mut t = TestServer::start().await;
    let mut new = new_key("data", "aes256-gcm-derived");
    new.rotation = Rotation { every: Some("30d".parse().unwrap()), ..Rotation::default() };
    t.client.create_key(&new).await.unwrap();
    let day = SignedDuration::from_hours(24);
    assert_eq!(t.advance(day * 29).await.rotated, 0);
    assert_eq!(t.advance(day * 2).await.rotated, 1);
    assert_eq!(t.advance(day).await.rotated, 0);
    // A service that was down for many periods rotates once, not once for each.
    t.stop().await;
    t.clock.advance(day * 100);
    t.start_again().await.unwrap();
    assert_eq!(t.advance(SignedDuration::ZERO).await.rotated, 1);
    assert_eq!(t.advance(SignedDuration::ZERO).await.rotated, 0);
    assert_eq!(t.client.key(&name("data")).await.unwrap().latest.number(), 3);
}

#[tokio::test]
async fn a_rotation_that_is_not_possible_shows_as_overdue() {
    let t = TestServer::with(Devices::Faulty).await;
    let mut new = new_key("data", "aes256-gcm-derived");
    new.rotation = Rotation { every: Some("1d".parse().unwrap()), ..Rotation::default() };
    t.client.create_key(&new).await.unwrap();
    t.hsm.plan("C_GenerateKey pre=0x31\n"); // CKR_DEVICE_MEMORY: the token is full.
    let tick = t.advance(SignedDuration::from_hours(25)).await;
    assert_eq!((tick.rotated, tick.failed), (0, 1));
    assert_eq!(t.client.status().await.unwrap().rotations_overdue, [name("data")]);
    assert!(t.client.key(&name("data")).await.unwrap().rotation_overdue);
    // The old version goes on, and the rotation is made up for as soon as there is room.
    t.client.wrap(&name("data"), &plain(b"x", &Context::default())).await.unwrap();
    t.hsm.plan("");
    assert_eq!(t.advance(SignedDuration::ZERO).await.rotated, 1);
    assert!(t.client.status().await.unwrap().rotations_overdue.is_empty());
}

#[tokio::test]
async fn a_version_never_serves_more_than_its_limit() {
    let mut t = TestServer::start().await;
    let mut new = new_key("data", "aes256-gcm-derived");
    new.rotation = Rotation { after_uses: Some(20), ..Rotation::default() };
    t.client.create_key(&new).await.unwrap();
    let none = Context::default();
    let mut uses = std::collections::BTreeMap::new();
    for round in 0..50 {
        if round == 25 {
            t.restart().await; // What was leased counts as spent.
        }
        let wrapped = t.client.wrap(&name("data"), &plain(b"x", &none)).await.unwrap();
        *uses.entry(wrapped.version.number()).or_insert(0) += 1;
        t.client.unwrap(&name("data"), &sealed(&wrapped.ciphertext, &none)).await.unwrap();
    }
    assert!(uses.len() >= 3 && uses.values().all(|count| *count <= 20), "{uses:?}");
    let mut new = new_key("bytes", "aes256-gcm-derived");
    new.rotation = Rotation { after_bytes: Some(1000), ..Rotation::default() };
    t.client.create_key(&new).await.unwrap();
    for _ in 0..10 {
        t.client.wrap(&name("bytes"), &plain(&[0; 300], &none)).await.unwrap();
    }
    assert_eq!(t.client.key(&name("bytes")).await.unwrap().latest.number(), 4);
    let over = t.client.wrap(&name("bytes"), &plain(&[0; 1001], &none)).await.unwrap_err();
    assert_eq!(over.kind(), Kind::Limit);
}

#[tokio::test]
async fn retention_schedules_and_destruction_waits_and_can_be_cancelled() {
    let t = TestServer::start().await;
    let mut new = new_key("data", "aes256-gcm-derived");
    new.retention = Retention { versions: Some(1), period: None };
    t.client.create_key(&new).await.unwrap();
    let (key, none) = (name("data"), Context::default());
    let blob = t.client.wrap(&key, &plain(b"old", &none)).await.unwrap().ciphertext;
    for _ in 0..2 {
        t.client.rotate_key(&key, &RotateKey::default()).await.unwrap();
    }
    assert_eq!(t.advance(SignedDuration::ZERO).await.scheduled, 1);
    let state = async |number| t.client.version(&key, Version::new(number).unwrap()).await.unwrap().state;
    assert_eq!(state(1).await, State::DestroyScheduled);
    assert_eq!(t.client.unwrap(&key, &sealed(&blob, &none)).await.unwrap_err().kind(), Kind::State);
    // Brought back, it opens again; a rule that would schedule it at once is lifted first.
    let keep = UpdateKey { retention: Some(Retention::default()), ..UpdateKey::default() };
    let etag = t.client.key(&key).await.unwrap().etag;
    t.client.update_key(&key, &etag, &keep).await.unwrap();
    t.client.change_version(&key, Version::FIRST, Transition::CancelDestruction).await.unwrap();
    t.client.unwrap(&key, &sealed(&blob, &none)).await.unwrap();
    // Scheduled by hand and left alone, it is gone after the waiting period, and not before.
    let soon = ScheduleDestruction { after: Some("1h".parse().unwrap()) };
    assert_eq!(t.client.schedule_destruction(&key, Version::FIRST, &soon).await.unwrap_err().kind(), Kind::Invalid);
    let wait = ScheduleDestruction { after: Some("7d".parse().unwrap()) };
    t.client.schedule_destruction(&key, Version::FIRST, &wait).await.unwrap();
    let day = SignedDuration::from_hours(24);
    assert_eq!(t.advance(day * 6).await.destroyed, 0);
    assert_eq!(t.advance(day * 2).await.destroyed, 1);
    assert_eq!(state(1).await, State::Destroyed);
    let gone = t.client.change_version(&key, Version::FIRST, Transition::CancelDestruction).await.unwrap_err();
    assert_eq!(gone.kind(), Kind::State);
    assert_eq!(t.client.unwrap(&key, &sealed(&blob, &none)).await.unwrap_err().kind(), Kind::State);
}

#[tokio::test]
async fn deletion_protection_holds_until_it_is_lifted() {
    let t = TestServer::start().await;
    let mut new = new_key("data", "hmac-sha256");
    new.deletion_protection = true;
    let made = t.client.create_key(&new).await.unwrap();
    let key = name("data");
    let refused = t.client.schedule_destruction(&key, Version::FIRST, &Default::default()).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::State);
    assert_eq!(t.client.delete_key(&key).await.unwrap_err().kind(), Kind::State);
    let lift = UpdateKey { deletion_protection: Some(false), ..UpdateKey::default() };
    t.client.update_key(&key, &made.etag, &lift).await.unwrap();
    // The ETag was used up by the change.
    assert_eq!(t.client.update_key(&key, &made.etag, &lift).await.unwrap_err().kind(), Kind::Stale);
    t.client.delete_key(&key).await.unwrap();
    let version = t.client.version(&key, Version::FIRST).await.unwrap();
    assert_eq!(version.state, State::DestroyScheduled);
}

#[tokio::test]
async fn a_prepared_version_protects_once_it_is_activated() {
    let t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    let (key, none) = (name("data"), Context::default());
    let prepare = RotateKey { expected_version: None, prepare: true };
    let prepared = t.client.rotate_key(&key, &prepare).await.unwrap();
    assert_eq!((prepared.latest.number(), prepared.primary.unwrap().number()), (2, 1));
    assert_eq!(t.client.wrap(&key, &plain(b"x", &none)).await.unwrap().version.number(), 1);
    t.client.change_version(&key, prepared.latest, Transition::Activate).await.unwrap();
    assert_eq!(t.client.wrap(&key, &plain(b"x", &none)).await.unwrap().version.number(), 2);
    assert_eq!(t.client.version(&key, Version::FIRST).await.unwrap().state, State::Deactivated);
}

#[tokio::test]
async fn a_suspended_primary_protects_nothing_until_it_is_resumed() {
    let t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    let (key, none) = (name("data"), Context::default());
    let blob = t.client.wrap(&key, &plain(b"x", &none)).await.unwrap().ciphertext;
    t.client.change_version(&key, Version::FIRST, Transition::Suspend).await.unwrap();
    assert_eq!(t.client.wrap(&key, &plain(b"x", &none)).await.unwrap_err().kind(), Kind::State);
    assert_eq!(t.client.unwrap(&key, &sealed(&blob, &none)).await.unwrap_err().kind(), Kind::State);
    t.client.change_version(&key, Version::FIRST, Transition::Resume).await.unwrap();
    t.client.wrap(&key, &plain(b"x", &none)).await.unwrap();
    t.client.unwrap(&key, &sealed(&blob, &none)).await.unwrap();
}
