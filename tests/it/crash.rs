//! The service dies by `kill -9` and starts again: what was acknowledged is there, nothing half-made is visible.

mod acme;
mod agent;
mod backup;
mod birth;
mod certificates;
mod kills;
mod notices;
mod nth;
mod past;
mod prune;
mod setup;
mod share;
mod tpm;

use std::collections::BTreeSet;

use signet::client::{Client, PageRequest};
use signet::types::{State, Version};

use crate::process::eventually;
use crate::server::name;
use past::{Past, Request};
pub(crate) use past::{all_keys_work, resident_ids};

/// What a death at a point leaves for the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Nothing was changed.
    Nothing,
    /// A version was begun: it is removed.
    Unfinished,
    /// A version was begun, and the record of that is missing in the log.
    UnfinishedAndUnrecorded,
    /// The change was made, and its record is missing in the log: it is rolled forward.
    Unrecorded,
    /// The change was made.
    Done,
}

impl Left {
    const fn happened(self) -> bool {
        matches!(self, Self::Unrecorded | Self::Done)
    }

    /// What start-up says that it mended.
    fn mended(self) -> Vec<&'static str> {
        match self {
            Self::Nothing | Self::Done => vec![],
            Self::Unfinished => vec!["was begun and never finished: removed it"],
            Self::UnfinishedAndUnrecorded => {
                vec!["a crash had come between", "was begun and never finished: removed it"]
            }
            Self::Unrecorded => vec!["a crash had come between"],
        }
    }
}

/// The points on the way of a change, and what a death there leaves.
type Way = &'static [(&'static str, Left)];

/// The points on the way of a change that makes a version.
const BIRTH: Way = &[
    ("admission.before_intent", Left::Nothing),
    ("admission.intended", Left::Nothing),
    ("ledger.before_commit:1", Left::Nothing),
    ("ledger.committed:1", Left::UnfinishedAndUnrecorded),
    ("ledger.recorded:1", Left::Unfinished),
    ("keyring.before_generate", Left::Unfinished),
    ("keyring.generated", Left::Unfinished),
    ("keyring.probed", Left::Unfinished),
    ("keyring.attested", Left::Unfinished),
    ("ledger.before_commit:2", Left::Unfinished),
    ("ledger.committed:2", Left::Unrecorded),
    ("ledger.recorded:2", Left::Done),
    ("ledger.before_anchor", Left::Done),
    ("ledger.before_witness", Left::Done),
    ("ledger.witnessed", Left::Done),
    ("ledger.anchored", Left::Done),
    ("keyring.published", Left::Done),
    ("admission.before_close", Left::Done),
    ("admission.closed", Left::Done),
];

/// The points on the way of many keys at once: of what is not committed nothing is left.
const BIRTHS: Way = &[
    ("admission.before_intent:2", Left::Nothing),
    ("admission.intended:2", Left::Nothing),
    ("keyring.before_generate:2", Left::Nothing),
    ("keyring.generated:2", Left::Nothing),
    ("keyring.probed:2", Left::Nothing),
    ("keyring.attested:3", Left::Nothing),
    ("ledger.before_commit", Left::Nothing),
    ("ledger.committed", Left::Unrecorded),
    ("ledger.recorded", Left::Done),
    ("ledger.before_anchor", Left::Done),
    ("ledger.anchored", Left::Done),
    ("keyring.published", Left::Done),
    ("admission.before_close_each", Left::Done),
    ("admission.closed_each", Left::Done),
];

/// The points on the way of a change of a key that needs no device.
const KEY_CHANGE: Way = &[
    ("ledger.before_commit", Left::Nothing),
    ("ledger.committed", Left::Unrecorded),
    ("ledger.recorded", Left::Done),
    ("ledger.before_anchor", Left::Done),
    ("ledger.before_witness", Left::Done),
    ("ledger.witnessed", Left::Done),
    ("ledger.anchored", Left::Done),
    ("keyring.published", Left::Done),
    ("admission.before_close", Left::Done),
    ("admission.closed", Left::Done),
];

/// The points on the way of every other change.
const CHANGE: Way = &[
    ("ledger.before_commit", Left::Nothing),
    ("ledger.committed", Left::Unrecorded),
    ("ledger.recorded", Left::Done),
    ("ledger.before_anchor", Left::Done),
    ("ledger.before_witness", Left::Done),
    ("ledger.witnessed", Left::Done),
    ("ledger.anchored", Left::Done),
    ("admission.closed", Left::Done),
];

/// The points on the way of a destruction. A destruction that is begun is ended by the next start on its own.
const DESTRUCTION: &[&str] = &[
    "admission.before_intent",
    "admission.intended",
    "keyring.before_destroy",
    "keyring.destroyed",
    "ledger.before_commit",
    "ledger.committed",
    "ledger.recorded",
    "ledger.before_anchor",
    "ledger.before_witness",
    "ledger.witnessed",
    "ledger.anchored",
    "keyring.published",
    "admission.before_close",
    "admission.closed",
];

/// A change that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Create,
    CreateWrapped,
    CreateMany,
    Rotate,
    Step,
    Update,
    CreateToken,
    RevokeToken,
    PutIdentity,
    DeleteIdentity,
    PutPolicy,
    DeletePolicy,
}

/// What is tried, with the function of `keyring` that its points stand in.
const CHANGES: &[(Change, Way, &str)] = &[
    (Change::Create, BIRTH, "create"),
    (Change::CreateWrapped, BIRTH, "create"),
    (Change::CreateMany, BIRTHS, "create_many"),
    (Change::Rotate, BIRTH, "rotate"),
    (Change::Step, KEY_CHANGE, "step"),
    (Change::Update, KEY_CHANGE, "update"),
    (Change::CreateToken, CHANGE, ""),
    (Change::RevokeToken, CHANGE, ""),
    (Change::PutIdentity, CHANGE, ""),
    (Change::DeleteIdentity, CHANGE, ""),
    (Change::PutPolicy, CHANGE, ""),
    (Change::DeletePolicy, CHANGE, ""),
];

impl Change {
    fn request(self, past: &Past) -> Request {
        let revoke = format!("tokens/{}", past.spare_token.0);
        let (method, path, body) = match self {
            Self::Create => ("POST", "keys", r#"{"name":"fresh","algorithm":"ecdsa-p256-sha256"}"#),
            Self::CreateWrapped => {
                ("POST", "keys", r#"{"name":"fresh","algorithm":"aes256-gcm-derived","residency":"wrapped"}"#)
            }
            Self::CreateMany => (
                "POST",
                "keys-batch",
                r#"{"items":[{"name":"fresh","algorithm":"aes256-gcm-derived"},{"name":"fresh-2","algorithm":"hmac-sha256"},
                    {"name":"fresh-3","algorithm":"ecdsa-p256-sha256"}]}"#,
            ),
            Self::Rotate => ("POST", "keys/data/rotate", "{}"),
            Self::Step => ("POST", "keys/codes/versions/1/suspend", ""),
            Self::Update => ("PATCH", "keys/data", r#"{"labels":{"team":"a"}}"#),
            Self::CreateToken => ("POST", "tokens", r#"{"identity":"fresh"}"#),
            Self::RevokeToken => ("DELETE", revoke.as_str(), ""),
            Self::PutIdentity => ("PUT", "identities/fresh", r#"{"certificates":[{"dns":"fresh.example"}]}"#),
            Self::DeleteIdentity => ("DELETE", "identities/host", ""),
            Self::PutPolicy => {
                ("PUT", "policies/fresh", r#"{"text":"permit (principal in Signet::Group::\"g\", action, resource);"}"#)
            }
            Self::DeletePolicy => ("DELETE", "policies/spare", ""),
        };
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            body: body.to_owned(),
            if_match: (self == Self::Update).then(|| past.etag.clone()),
        }
    }

    /// Whether the change shows, whole and once.
    async fn shows(self, client: &Client, past: &Past) -> bool {
        match self {
            Self::Create | Self::CreateWrapped => client.key(&name("fresh")).await.is_ok_and(|key| {
                assert_eq!(key.latest, Version::FIRST);
                true
            }),
            Self::CreateMany => {
                let found = async |key: &str| client.key(&name(key)).await.is_ok();
                let found = [found("fresh").await, found("fresh-2").await, found("fresh-3").await];
                assert!(found.iter().all(|one| *one == found[0]), "a part of the batch: {found:?}");
                found[0]
            }
            Self::Rotate => {
                let key = client.key(&name("data")).await.unwrap();
                assert_eq!(key.primary, Some(key.latest));
                assert!((2..=3).contains(&key.latest.number()), "rotated twice: {key:?}");
                key.latest.number() == 3
            }
            Self::Step => client.version(&name("codes"), Version::FIRST).await.unwrap().state == State::Suspended,
            Self::Update => client.key(&name("data")).await.unwrap().labels.contains_key("team"),
            Self::CreateToken => {
                let tokens = client.tokens(&PageRequest::default()).await.unwrap().items;
                let count = tokens.iter().filter(|token| token.identity.as_str() == "fresh").count();
                assert!(count <= 1, "made twice");
                count == 1
            }
            Self::RevokeToken => client.token(&past.spare_token.0).await.unwrap().revoked.is_some(),
            Self::PutIdentity => client.identity(&"fresh".parse().unwrap()).await.is_ok(),
            Self::DeleteIdentity => client.identity(&"host".parse().unwrap()).await.is_err(),
            Self::PutPolicy => client.policy(&"fresh".parse().unwrap()).await.is_ok(),
            Self::DeletePolicy => client.policy(&"spare".parse().unwrap()).await.is_err(),
        }
    }
}

#[tokio::test]
async fn a_change_that_is_cut_short_is_whole_or_not_there() {
    let past = Past::make(false).await;
    let mut cases = Vec::new();
    for (change, points, _) in CHANGES {
        cases.extend(points.iter().map(|(point, left)| (*change, *point, *left)));
    }
    past::all(cases, async |(change, point, left)| cut_short(&past, change, point, left).await).await;
}

async fn cut_short(past: &Past, change: Change, point: &str, left: Left) {
    // 1. The service dies while it works on the change; the client gets no answer.
    let t = past.installation.copy();
    let mut first = t.serve_until(point);
    first.serves().await.unwrap();
    let request = change.request(past);
    let answer = request.send(&t, "once").await;
    assert!(answer.is_err(), "an answer in spite of a death at {point}: {answer:?}");
    first.dies(point).await;
    // 2. It starts again, and says what it mended.
    let second = t.serve().await;
    let client = t.client(Some(&t.token));
    past.is_there(&t, &client).await;
    mended(&client, &left.mended()).await;
    assert_eq!(change.shows(&client, past).await, left.happened());
    all_keys_work(&client).await;
    // 3. The same request again gets the first result, or the change happens now; and not once more after that.
    for _ in 0..2 {
        let (status, answer) = request.send(&t, "once").await.unwrap();
        assert!((200..300).contains(&status), "{status} {answer}");
        assert!(change.shows(&client, past).await);
    }
    all_keys_work(&client).await;
    let expected = resident_ids(&client).await;
    // 4. Another program sees no object that nobody knows, and an auditor a whole log.
    second.kill().await;
    t.audit_is_good();
    assert_eq!(t.hsm.ids(), expected.union(&t.house_ids()).cloned().collect());
}

/// What start-up says that it mended, in the status and in the log.
async fn mended(client: &Client, expected: &[&str]) {
    let status = client.status().await.unwrap();
    assert_eq!(status.recovered.len(), expected.len(), "{:?}", status.recovered);
    let records = client.audit_records(0, Some(1000)).await.unwrap().records;
    for part in expected {
        assert!(status.recovered.iter().any(|text| text.contains(part)), "{part}: {:?}", status.recovered);
        let recorded = |record: &serde_json::Value| {
            record["phase"] == "recovered" && record["reason"].as_str().is_some_and(|why| why.contains(part))
        };
        assert!(records.iter().any(recorded), "no record of: {part}");
    }
}

#[tokio::test]
async fn a_destruction_that_is_cut_short_is_ended_by_the_next_start() {
    let past = Past::make(true).await;
    past::all(DESTRUCTION.to_vec(), async |point| destruction(&past, point).await).await;
}

async fn destruction(past: &Past, point: &str) {
    let t = past.installation.copy();
    let mut first = t.serve_until(point);
    let _ = first.serves().await;
    first.dies(point).await;
    let second = t.serve().await;
    let client = t.client(Some(&t.token));
    eventually("the destruction is ended", async || {
        let version = client.version(&name("due"), Version::FIRST).await.unwrap();
        (version.state == State::Destroyed).then_some(())
    })
    .await;
    past.is_there(&t, &client).await;
    all_keys_work(&client).await;
    let expected = resident_ids(&client).await;
    second.kill().await;
    t.audit_is_good();
    assert_eq!(t.hsm.ids(), expected.union(&t.house_ids()).cloned().collect());
}

/// Deaths while the next start mends what an earlier death left: the first point, and then those of the starts after it.
const MENDING: &[&[&str]] = &[
    &["keyring.generated", "reconcile.before_destroy", "reconcile.destroyed", "ledger.before_commit"],
    &["keyring.probed", "reconcile.destroyed", "ledger.committed", "ledger.before_roll_forward"],
    &["ledger.committed:2", "ledger.before_roll_forward", "ledger.rolled_forward"],
    &["keyring.before_generate", "reconcile.before_destroy", "ledger.recorded"],
];

#[tokio::test]
async fn a_death_while_mending_is_mended_by_the_start_after_it() {
    let past = Past::make(false).await;
    past::all(MENDING.to_vec(), async |points| mending(&past, points).await).await;
}

async fn mending(past: &Past, points: &[&str]) {
    let t = past.installation.copy();
    let mut first = t.serve_until(points[0]);
    first.serves().await.unwrap();
    let request = Change::Rotate.request(past);
    assert!(request.send(&t, "once").await.is_err());
    first.dies(points[0]).await;
    for point in &points[1..] {
        t.serve_until(point).dies(point).await;
    }
    let last = t.serve().await;
    let client = t.client(Some(&t.token));
    past.is_there(&t, &client).await;
    assert!(request.send(&t, "once").await.unwrap().0 < 300);
    assert!(Change::Rotate.shows(&client, past).await);
    all_keys_work(&client).await;
    let expected = resident_ids(&client).await;
    last.kill().await;
    t.audit_is_good();
    assert_eq!(t.hsm.ids(), expected.union(&t.house_ids()).cloned().collect());
}

/// The points on the way of what follows a second later.
const CHECKPOINT: &[&str] =
    &["ledger.before_checkpoint", "ledger.checkpointed", "ledger.before_late_anchor", "ledger.anchored_late"];

#[tokio::test]
async fn a_death_between_two_seconds_costs_nothing() {
    let past = Past::make(false).await;
    past::all(CHECKPOINT.to_vec(), async |point| {
        let t = past.installation.copy();
        let mut first = t.serve_until(point);
        // Where the last life left something to anchor, it dies before it serves.
        if first.serves().await.is_ok() {
            let _ = t.client(Some(&t.token)).status().await;
        }
        first.dies(point).await;
        let second = t.serve().await;
        let client = t.client(Some(&t.token));
        mended(&client, &[]).await;
        past.is_there(&t, &client).await;
        all_keys_work(&client).await;
        second.kill().await;
        t.audit_is_good();
    })
    .await;
}

/// The points of `tests/golden/crash-points.txt` that no running service can reach, and why.
const NOT_REACHED: &[(&str, &str)] = &[
    ("keyring.before_second_try", "needs a cleanup that failed in the same process: tests/it/faults.rs does that"),
    ("keyring.second_try", "as before it: between them only what reconcile does again at each start"),
];

#[test]
fn each_point_of_the_register_is_tried() {
    let mut tried = BTreeSet::new();
    let plain = |point: &str| point.split(':').next().unwrap().to_owned();
    for (_, points, function) in CHANGES {
        tried.extend(points.iter().map(|(point, _)| (plain(point), (*function).to_owned())));
    }
    tried.extend(CHECKPOINT.iter().map(|point| (plain(point), String::new())));
    tried.extend(DESTRUCTION.iter().map(|point| (plain(point), "destroy".to_owned())));
    tried.extend(MENDING.iter().copied().flatten().map(|point| (plain(point), String::new())));
    tried.extend(
        [birth::POINTS, setup::POINTS, backup::POINTS, share::POINTS]
            .concat()
            .iter()
            .map(|point| (plain(point), String::new())),
    );
    tried.extend(agent::points().map(|point| (plain(point), String::new())));
    tried.extend(crate::witness::points().map(|point| (plain(point), String::new())));
    tried.extend(prune::points().map(|point| (plain(point), String::new())));
    tried.extend(crate::archives::points().map(|point| (plain(point), String::new())));
    tried.extend(crate::otlp::points().map(|point| (plain(point), String::new())));
    tried.extend(notices::points().map(|point| (plain(point), String::new())));
    tried.extend(certificates::points().map(|(point, function)| (plain(point), function.to_owned())));
    let register = include_str!("../golden/crash-points.txt");
    let mut missing = Vec::new();
    for line in register.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let [point, _, function] = words[..] else { panic!("{line}") };
        let shared = register.lines().filter(|line| line.split_whitespace().next() == Some(point)).count() > 1;
        let tried = tried.iter().any(|(own, at)| own == point && (!shared || at == function));
        let excused = NOT_REACHED.iter().any(|(own, _)| *own == point);
        if tried == excused {
            missing.push(line);
        }
    }
    assert!(missing.is_empty(), "neither tried nor excused:\n{}", missing.join("\n"));
}
