//! Kills at random moments under mixed load: whoever asks never notices but for the time it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use signet::client::{Client, PageRequest};
use signet::error::Kind;
use signet::types::{Context, Residency, Version};
use signet::wire::{Base64, CreateToken, RotateKey, Sign, Verify};

use super::past::{self, Past};
use crate::process::Installation;
use crate::proof::proven;
use crate::server::{name, new_key};
use crate::wrap::{plain, sealed};

/// How many kills, unless `SIGNET_TEST_KILLS` says otherwise.
const KILLS: usize = 20;
/// How long a client goes on trying: longer than a kill and a start take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was acknowledged to one client, to be looked at again after each kill.
#[derive(Default)]
struct Acknowledged {
    blobs: Vec<(String, Base64, Vec<u8>)>,
    signatures: Vec<(Version, Base64, String)>,
    keys: Vec<(String, u32)>,
    revoked: Vec<String>,
    live: Vec<String>,
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_kills_at_random_moments() {
    let kills = std::env::var("SIGNET_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let past = Past::make(false).await;
    let t = Arc::new(past.installation.copy());
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut service = t.serve().await;
    let clients: Vec<_> =
        (0..4).map(|number| tokio::spawn(load(t.clone(), number, over.clone(), done.clone()))).collect();
    for _ in 0..kills {
        // A moment between the start and half a second of work.
        let moment = getrandom::u32().unwrap() % 500;
        tokio::time::sleep(Duration::from_millis(moment.into())).await;
        service.kill().await;
        t.audit_is_good();
        service = t.serve().await;
        let client = t.patient_client(Some(&t.token), Duration::from_secs(5));
        past.is_there(&t, &client).await;
    }
    over.store(true, Ordering::SeqCst);
    let mut all = Vec::new();
    for client in clients {
        all.push(client.await.unwrap());
    }
    // After the last start, all that was ever acknowledged to anybody.
    service.kill().await;
    let service = t.serve().await;
    let client = t.client(Some(&t.token));
    past.is_there(&t, &client).await;
    for acknowledged in &all {
        check(&t, &client, acknowledged).await;
    }
    past::all_keys_work(&client).await;
    let expected = past::resident_ids(&client).await;
    service.kill().await;
    t.audit_is_good();
    assert_eq!(t.hsm.ids(), expected.union(&t.house_ids()).cloned().collect());
    println!("{} operations", done.load(Ordering::SeqCst));
    proven("kills at random moments", kills, "0 acknowledged changes lost");
}

/// Works until the end. Each call succeeds, whatever happens to the service meanwhile.
async fn load(t: Arc<Installation>, number: usize, over: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> Acknowledged {
    let client = t.patient_client(Some(&t.token), PATIENCE);
    let none = Context::default();
    let mut seen = Acknowledged::default();
    let mut round = 0;
    while !over.load(Ordering::SeqCst) {
        round += 1;
        let text = format!("{number}-{round}").into_bytes();
        // 1. Use keys that are there.
        for key in ["data", "wrapped", "counted"] {
            let blob = client.wrap(&name(key), &plain(&text, &none)).await.unwrap().ciphertext;
            let opened = client.unwrap(&name(key), &sealed(&blob, &none)).await.unwrap();
            assert_eq!(opened.plaintext.0.expose(), text);
            seen.blobs.push((key.to_owned(), blob, text.clone()));
        }
        let message = Base64(text.clone());
        let sign = Sign { message: Some(message.clone()), ..Sign::default() };
        let signed = client.sign(&name("release"), &sign).await.unwrap();
        seen.signatures.push((signed.version, message, signed.signature));
        // 2. Make a key, and rotate an own one.
        if round % 3 == 1 {
            let key = format!("own-{number}-{round}");
            let mut new = new_key(&key, "aes256-gcm-derived");
            new.residency = Some(if round % 2 == 0 { Residency::Wrapped } else { Residency::Resident });
            let made = client.create_key(&new).await.unwrap();
            assert_eq!(made.latest, Version::FIRST);
            let blob = client.wrap(&name(&key), &plain(&text, &none)).await.unwrap().ciphertext;
            seen.blobs.push((key.clone(), blob, text.clone()));
            seen.keys.push((key, 1));
        }
        if let Some((key, latest)) = seen.keys.last_mut() {
            let rotated = client.rotate_key(&name(key), &RotateKey::default()).await.unwrap();
            *latest += 1;
            assert_eq!(rotated.latest.number(), *latest, "{key} was rotated more often than it was asked for");
        }
        // 3. Make tokens, and revoke every other one. The text of one whose first answer was lost is lost with it.
        let body =
            CreateToken { identity: format!("own-{number}").parse().unwrap(), groups: vec![], ttl: None, uses: None };
        let made = client.create_token(&body).await.unwrap();
        if let Some(text) = made.token {
            if round % 2 == 0 {
                client.revoke_token(&made.info.id).await.unwrap();
                seen.revoked.push(text.0.clone());
            } else {
                seen.live.push(text.0.clone());
            }
        }
        done.fetch_add(11, Ordering::SeqCst);
    }
    seen
}

/// Whether what was acknowledged to one client is there.
async fn check(t: &Installation, client: &Client, seen: &Acknowledged) {
    let none = Context::default();
    for (key, blob, text) in &seen.blobs {
        let opened = client.unwrap(&name(key), &sealed(blob, &none)).await.unwrap();
        assert_eq!(opened.plaintext.0.expose(), text);
    }
    for (version, message, signature) in &seen.signatures {
        let (message, signature) = (Some(message.clone()), signature.clone());
        let verify = Verify { message, signature, version: Some(*version), ..Verify::default() };
        assert!(client.verify(&name("release"), &verify).await.unwrap().valid);
    }
    for (key, latest) in &seen.keys {
        assert_eq!(client.key(&name(key)).await.unwrap().latest.number(), *latest, "{key}");
        let versions = client.versions(&name(key), &PageRequest::default()).await.unwrap().items;
        assert_eq!(versions.len(), *latest as usize);
    }
    for token in &seen.revoked {
        assert_eq!(t.client(Some(token)).whoami().await.unwrap_err().kind(), Kind::Unauthenticated);
    }
    for token in &seen.live {
        t.client(Some(token)).whoami().await.unwrap();
    }
}
