//! Deaths before the n-th call that leaves something behind, n + 1, and so on to the last one: of the change, of what follows it
//! within the next second, and of the start that mends it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use signet::client::{Client, PageRequest};
use signet::types::{State, Version};
use signet::wire::{CertificateMatch, CreateToken, Identity, Policy};

use super::past::{self, Past, Request};
use super::{CHANGES, Change};
use crate::process::Installation;
use crate::proof::proven;
use crate::server::name;
use crate::tracer::{Call, Traced};

/// How many deaths about, unless `SIGNET_TEST_DEATHS` says otherwise. A change has some hundred such calls, a start as many.
const DEATHS: usize = 90;
/// How long after its answer a change may have consequences: the checkpoint of the next second.
const CONSEQUENCES: Duration = Duration::from_millis(1300);
/// How long a service may take to die of a request that got no answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How far the places of two deaths in starts are from each other: a prime, so that all have their turn.
const SPREAD: u64 = 61;
/// Of one kind of change, at most so many: the most calls that one has, and half as many again.
const MOST: u64 = 400;

const ALL: PageRequest = PageRequest { size: Some(1000), token: None };

/// A change, ready to be asked for.
struct Wanted {
    kind: Change,
    /// The name of what it makes or ends.
    name: String,
    /// How many versions the key to rotate had, or which number the version to step has.
    before: u32,
    request: Request,
}

impl Wanted {
    /// Makes what it needs.
    async fn prepare(kind: Change, round: u32, client: &Client) -> Self {
        let fresh = format!("fresh-{round}");
        let (mut before, mut if_match) = (0, None);
        let (method, path, body) = match kind {
            Change::Create => {
                ("POST", "keys".to_owned(), format!(r#"{{"name":"{fresh}","algorithm":"ecdsa-p256-sha256"}}"#))
            }
            Change::CreateWrapped => (
                "POST",
                "keys".to_owned(),
                format!(r#"{{"name":"{fresh}","algorithm":"aes256-gcm-derived","residency":"wrapped"}}"#),
            ),
            Change::CreateMany => {
                let item = |part: &str| format!(r#"{{"name":"{fresh}{part}","algorithm":"aes256-gcm-derived"}}"#);
                ("POST", "keys-batch".to_owned(), format!(r#"{{"items":[{},{}]}}"#, item(""), item("-2")))
            }
            Change::Rotate => {
                before = client.key(&name("data")).await.unwrap().latest.number();
                ("POST", "keys/data/rotate".to_owned(), "{}".to_owned())
            }
            Change::Step => {
                let active = client.version(&name("codes"), Version::FIRST).await.unwrap().state == State::Active;
                before = u32::from(active);
                let step = if active { "suspend" } else { "resume" };
                ("POST", format!("keys/codes/versions/1/{step}"), String::new())
            }
            Change::Update => {
                if_match = Some(client.key(&name("data")).await.unwrap().etag);
                ("PATCH", "keys/data".to_owned(), format!(r#"{{"labels":{{"round":"{fresh}"}}}}"#))
            }
            Change::CreateToken => ("POST", "tokens".to_owned(), format!(r#"{{"identity":"{fresh}"}}"#)),
            Change::RevokeToken => {
                let body = CreateToken { identity: fresh.parse().unwrap(), groups: vec![], ttl: None, uses: None };
                let id = client.create_token(&body).await.unwrap().info.id;
                let wanted = Request {
                    method: "DELETE".to_owned(),
                    path: format!("tokens/{id}"),
                    body: String::new(),
                    if_match,
                };
                return Self { kind, name: id, before, request: wanted };
            }
            Change::PutIdentity => {
                let body = format!(r#"{{"certificates":[{{"dns":"{fresh}.example"}}]}}"#);
                ("PUT", format!("identities/{fresh}"), body)
            }
            Change::DeleteIdentity => {
                let certificates = vec![CertificateMatch::Dns(format!("{fresh}.example"))];
                let identity = Identity { name: None, groups: vec![], certificates };
                client.put_identity(&fresh.parse().unwrap(), &identity).await.unwrap();
                ("DELETE", format!("identities/{fresh}"), String::new())
            }
            Change::PutPolicy => {
                let text = r#"permit (principal in Signet::Group::\"g\", action, resource);"#;
                ("PUT", format!("policies/{fresh}"), format!(r#"{{"text":"{text}"}}"#))
            }
            Change::DeletePolicy => {
                let text = r#"forbid (principal in Signet::Group::"g", action, resource);"#.to_owned();
                client
                    .put_policy(&fresh.parse().unwrap(), None, &Policy { name: None, text, etag: None })
                    .await
                    .unwrap();
                ("DELETE", format!("policies/{fresh}"), String::new())
            }
        };
        Self { kind, name: fresh, before, request: Request { method: method.to_owned(), path, body, if_match } }
    }

    /// Whether it shows, whole and once.
    async fn shows(&self, client: &Client) -> bool {
        let fresh = &self.name;
        match self.kind {
            Change::Create | Change::CreateWrapped => client.key(&name(fresh)).await.is_ok_and(|key| {
                assert_eq!(key.latest, Version::FIRST, "{key:?}");
                true
            }),
            Change::CreateMany => {
                let first = client.key(&name(fresh)).await.is_ok();
                assert_eq!(client.key(&name(&format!("{fresh}-2"))).await.is_ok(), first, "a part of the batch");
                first
            }
            Change::Rotate => {
                let key = client.key(&name("data")).await.unwrap();
                assert_eq!(key.primary, Some(key.latest));
                assert!((self.before..=self.before + 1).contains(&key.latest.number()), "rotated twice: {key:?}");
                key.latest.number() > self.before
            }
            Change::Step => {
                let active = client.version(&name("codes"), Version::FIRST).await.unwrap().state == State::Active;
                active == (self.before == 0)
            }
            Change::Update => {
                client.key(&name("data")).await.unwrap().labels.get("round").is_some_and(|own| own == fresh)
            }
            Change::CreateToken => {
                let tokens = client.tokens(&ALL).await.unwrap().items;
                let count = tokens.iter().filter(|token| token.identity.as_str() == fresh).count();
                assert!(count <= 1, "made twice");
                count == 1
            }
            Change::RevokeToken => client.token(fresh).await.unwrap().revoked.is_some(),
            Change::PutIdentity => client.identity(&fresh.parse().unwrap()).await.is_ok(),
            Change::DeleteIdentity => client.identity(&fresh.parse().unwrap()).await.is_err(),
            Change::PutPolicy => client.policy(&fresh.parse().unwrap()).await.is_ok(),
            Change::DeletePolicy => client.policy(&fresh.parse().unwrap()).await.is_err(),
        }
    }
}

/// One kind of change over and over on one installation.
struct Sweep<'a> {
    t: Installation,
    kind: Change,
    service: Traced,
    round: u32,
    /// How many calls a start has.
    start_calls: u64,
    /// How many starts there were that should die, of all kinds.
    starts: &'a AtomicU64,
    deaths: &'a Mutex<BTreeMap<Call, usize>>,
}

impl Sweep<'_> {
    fn note(&self, call: Call) {
        *self.deaths.lock().unwrap().entry(call).or_default() += 1;
    }

    /// Starts the service again: once until it dies before some call of the start, and then for good.
    async fn rise(&mut self) {
        let turn = self.starts.fetch_add(1, Ordering::SeqCst);
        let service = Traced::start(&self.t, 1 + turn * SPREAD % self.start_calls).await;
        let served = service.serves().await;
        service.arm(0);
        // It may have died between its last word and being let off.
        let died = service.died(if served.is_ok() { Duration::ZERO } else { PATIENCE }).await;
        assert!(served.is_ok() || died.is_some(), "it ended by itself:\n{}", service.said());
        self.service = match died {
            Some(call) => {
                self.note(call);
                let service = Traced::start(&self.t, 0).await;
                let served = service.serves().await;
                assert!(served.is_ok(), "it does not start after a death in a start:\n{}", service.said());
                service
            }
            None => service,
        };
    }

    /// One change and a death before its `death`-th call. Answers how many calls there were, where it lived.
    async fn round(&mut self, death: u64) -> Option<u64> {
        self.round += 1;
        let client = patient(&self.t);
        let wanted = Wanted::prepare(self.kind, self.round, &client).await;
        self.service.arm(death);
        let key = format!("round-{}", self.round);
        let answer = wanted.request.send(&self.t, &key).await;
        let acknowledged = match &answer {
            Ok((status, text)) => {
                assert!((200..300).contains(status), "{:?} {death}: {status} {text}", self.kind);
                true
            }
            Err(_) => false,
        };
        let died = self.service.died(if acknowledged { CONSEQUENCES } else { PATIENCE }).await;
        let Some(call) = died else {
            assert!(acknowledged, "{:?} {death}: no answer, and no death\n{}", self.kind, self.service.said());
            let seen = self.service.seen();
            self.service.arm(0);
            return Some(seen);
        };
        let place = format!("{:?} {death}: {call}", self.kind);
        self.note(call);
        self.rise().await;
        let client = patient(&self.t);
        assert!(!acknowledged || wanted.shows(&client).await, "{place}: acknowledged and lost");
        // What is in doubt is so no more once it was asked for again, by the same name.
        let (status, text) = wanted.request.send(&self.t, &key).await.unwrap();
        assert!((200..300).contains(&status), "{place}: {status} {text}");
        assert!(wanted.shows(&client).await, "{place}: not there after the repetition");
        None
    }
}

#[tokio::test]
async fn a_death_before_any_call_that_leaves_something_behind_costs_nothing() {
    let wanted = std::env::var("SIGNET_TEST_DEATHS").ok().and_then(|n| n.parse().ok()).unwrap_or(DEATHS);
    let kinds: Vec<_> = CHANGES.iter().map(|(change, ..)| *change).collect();
    let past = Past::make(false).await;
    let (deaths, starts) = (Mutex::new(BTreeMap::new()), AtomicU64::new(0));
    // Each death of a change is followed by one of the start after it.
    let each = u64::try_from(wanted / kinds.len() / 2 + 1).unwrap();
    past::each(kinds, async |kind| sweep(&past, kind, each, &starts, &deaths).await).await;
    let deaths = deaths.into_inner().unwrap();
    for (call, count) in &deaths {
        println!("{count:5} before {call}");
    }
    let count: usize = deaths.values().sum();
    assert!(count * 10 >= wanted * 8, "only {count} of {wanted} deaths came about");
    println!("{} places", deaths.len());
    proven("deaths before a system call", count, "0 acknowledged changes lost, 0 in doubt after the repetition");
}

/// A client that asks again where the machine has too much to do.
fn patient(t: &Installation) -> Client {
    t.patient_client(Some(&t.token), PATIENCE)
}

/// About `each` deaths of one kind of change, evenly over its calls.
async fn sweep(past: &Past, kind: Change, each: u64, starts: &AtomicU64, deaths: &Mutex<BTreeMap<Call, usize>>) {
    let t = past.installation.copy();
    let service = Traced::start(&t, 0).await;
    service.serves().await.unwrap();
    let start_calls = service.seen();
    assert!((5..MOST).contains(&start_calls), "a start has {start_calls} calls");
    let mut it = Sweep { t, kind, service, round: 0, start_calls, starts, deaths };
    let calls = it.round(0).await.unwrap();
    assert!((5..MOST).contains(&calls), "{kind:?} has {calls} calls");
    println!("{kind:?}: {calls} calls, its start {start_calls}");
    let step = calls.div_ceil(each);
    // From another beginning for each kind, so that a coarse step does not always meet the same calls.
    let first = (kind as u64 * 7) % step + 1;
    let mut death = first;
    while it.round(death).await.is_none() {
        death += step;
    }
    // More than one for each call: the number of calls is not quite the same every time.
    for more in 1..=each.saturating_sub(calls) {
        let _ = it.round(more % calls + 1).await;
    }
    let client = patient(&it.t);
    past.is_there(&it.t, &client).await;
    past::all_keys_work(&client).await;
    let expected = past::resident_ids(&client).await;
    it.service.kill().await;
    it.t.audit_is_good();
    assert_eq!(it.t.hsm.ids(), expected.union(&it.t.house_ids()).cloned().collect());
}
