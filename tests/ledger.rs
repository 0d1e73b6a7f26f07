//! Changes that share a transaction: each is as if it were alone, and the log knows of each.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail as loudly as it likes"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::json;
use signet::audit::{self, Log, Origin, Record, Settings};
use signet::error::Kind;
use signet::ledger::{Anchors, Ledger};
use signet::store::certificates::{Counts, End, Reservation};
use signet::store::{Change, Expected, Sealed, Sqlite, StorageKey, Store};
use signet::types::{Clock, SecretBytes, Version};

fn store(folder: &Path) -> Arc<dyn Store> {
    let file = folder.join("signet.db");
    let driver = if file.exists() { Sqlite::open(&file) } else { Sqlite::create(&file) };
    let key = StorageKey::try_from(SecretBytes::new(vec![1; 32])).unwrap();
    Arc::new(Sealed::new(driver.unwrap(), key))
}

fn settings(folder: &Path) -> Settings {
    Settings::new(folder.join("audit"), Origin::of_instance("test").unwrap())
}

async fn open(store: &Arc<dyn Store>, log: &Arc<Log>) -> (Ledger, Vec<String>) {
    Ledger::open(store.clone(), log.clone(), Clock::System, Anchors::none()).await.unwrap()
}

/// A leaf about `what`.
fn leaf(what: &str) -> Record {
    let value = json!({ "time": "", "phase": "change", "request": "r", "principal": "system/test", "action": "Test", "resource": what });
    serde_json::from_value(value).unwrap()
}

fn put(path: &str, expected: Expected) -> Change {
    Change { path: path.to_owned(), expected, value: Some(b"1".to_vec()) }
}

fn reservation(serial: u8) -> Reservation {
    Reservation {
        number: 0,
        serial: [serial; 20],
        issuer: "fleet:root".parse().unwrap(),
        version: Version::FIRST,
        profile: "default:server".into(),
        requester: "identity/a".into(),
        subject: String::new(),
        names: vec![format!("dns:h{serial}.example"), "dns:all.example".into()],
        not_before: Timestamp::UNIX_EPOCH,
        not_after: Timestamp::UNIX_EPOCH,
        at: Timestamp::UNIX_EPOCH,
        body: vec![1, 2, 3],
        tag: [0; 32],
    }
}

/// What the leaves of the log are about, in order.
fn recorded(folder: &Path) -> Vec<String> {
    audit::read(&folder.join("audit"), 0).unwrap().map(|record| record.unwrap().1.resource).collect()
}

#[tokio::test]
async fn changes_that_wait_together_are_each_as_if_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (store, log) = (store(folder.path()), Arc::new(Log::create(settings(folder.path())).unwrap()));
    let (ledger, _) = open(&store, &log).await;
    ledger.commit(leaf("first"), vec![put("taken", Expected::Absent)]).await.unwrap();

    // 1. Sixty that have nothing to do with each other, all at once: they share transactions.
    let names: Vec<_> = (0..60).map(|number| format!("keys/{number}")).collect();
    let changes = names.iter().map(|name| ledger.commit(leaf(name), vec![put(name, Expected::Absent)]));
    let revisions: BTreeSet<_> = join_all(changes).await.into_iter().map(Result::unwrap).collect();
    assert!(revisions.len() < 10, "sixty changes took {} transactions", revisions.len());
    assert_eq!(recorded(folder.path())[1..], names, "the log knows of each, in order");

    // 2. Of eight that expect the same, one wins; and one that is refused harms nobody.
    let revision = store.get("taken").unwrap().unwrap().revision;
    let eight = (0..8).map(|_| ledger.commit(leaf("eight"), vec![put("taken", Expected::Revision(revision))]));
    let others = (0..8).map(|number| {
        let expected = if number == 5 { "taken".to_owned() } else { format!("other/{number}") };
        ledger.commit(leaf("other"), vec![put(&expected, Expected::Absent)])
    });
    let outcomes = join_all(eight.chain(others)).await;
    let kinds: Vec<_> = outcomes.iter().filter_map(|one| one.as_ref().err().map(signet::error::Error::kind)).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Stale).count(), 7);
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::Conflict).count(), 1);
    assert_eq!(kinds.len(), 8);
    let log_says = recorded(folder.path());
    assert_eq!(log_says.iter().filter(|one| *one == "eight").count(), 1);
    assert_eq!(log_says.iter().filter(|one| *one == "other").count(), 7);

    // 3. Reservations are numbered without a gap, though one of them has a serial number that another one has.
    let serials = [1, 2, 3, 2, 4, 5];
    let made = serials.iter().map(|serial| ledger.reserve(leaf("reserve"), Vec::new(), vec![reservation(*serial)]));
    let made = join_all(made).await;
    assert_eq!(made[3].as_ref().unwrap_err().kind(), Kind::Conflict);
    let numbers: Vec<_> = made.into_iter().flatten().flatten().collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let ends = numbers.iter().map(|number| {
        let end = End { number: *number, at: Timestamp::UNIX_EPOCH, signature: None, tag: [0; 32] };
        ledger.end(leaf("end"), Vec::new(), vec![end])
    });
    for ended in join_all(ends).await {
        ended.unwrap();
    }
    assert_eq!(store.count_certificates().unwrap(), Counts { reserved: 5, names: 10, ended: 5 });
    assert_eq!(ledger.unfinished().await.unwrap(), 0);
    drop(ledger);
    let (_, mended) = open(&store, &log).await;
    assert_eq!(mended, [""; 0]);
}

#[tokio::test]
async fn leaves_that_a_crash_left_open_are_recorded_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (store, log) = (store(folder.path()), Arc::new(Log::create(settings(folder.path())).unwrap()));
    let with_id = |what: &str| {
        let mut leaf = leaf(what);
        leaf.facts.insert("change".to_owned(), format!("id of {what}"));
        leaf
    };
    // Of three changes of one transaction the first reached the log.
    log.append(&with_id("one")).await.unwrap();
    let three = ["one", "two", "three"].map(with_id);
    let three = json!({ "after": 0, "leaves": three });
    // What a program before this one left has one leaf.
    let alone = json!({ "after": 3, "leaf": (with_id("four")) });
    for (open_leaves, after) in [(three, vec!["one", "two", "three"]), (alone, vec!["one", "two", "three", "four"])] {
        let value = Some(serde_json::to_vec(&open_leaves).unwrap());
        store.commit(&[Change { path: "ledger/open".into(), expected: Expected::Any, value }]).unwrap();
        let (_, mended) = open(&store, &log).await;
        assert!(mended.concat().contains("a crash had come between a change and its audit record"));
        assert_eq!(recorded(folder.path()), after);
        let (_, mended) = open(&store, &log).await;
        assert_eq!(mended, [""; 0], "recorded twice");
    }
}

#[tokio::test]
async fn a_leaf_that_found_no_place_in_the_log_is_recorded_before_anything_else() {
    let folder = tempfile::tempdir().unwrap();
    // A log that takes one record at a time.
    let small = Settings { queue: 1, ..settings(folder.path()) };
    let (store, log) = (store(folder.path()), Arc::new(Log::create(small).unwrap()));
    let (ledger, _) = open(&store, &log).await;
    let names: Vec<_> = (0..20).map(|number| format!("keys/{number}")).collect();
    let outcomes = join_all(names.iter().map(|name| ledger.commit(leaf(name), vec![put(name, Expected::Any)]))).await;
    // All were made, and whoever waits for one may go by it. But the log takes nothing else before it knows of all.
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(log.append(&leaf("use")).await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(log.health().unwrap_err().kind(), Kind::Unavailable);
    ledger.settle().await.unwrap();
    log.append(&leaf("use")).await.unwrap();
    ledger.commit(leaf("last"), vec![put("last", Expected::Absent)]).await.unwrap();
    let log_says = recorded(folder.path());
    assert_eq!(log_says[names.len()..], ["use", "last"]);
    let known: BTreeSet<_> = log_says.iter().take(names.len()).cloned().collect();
    let made: BTreeSet<_> = store.scan("keys/").unwrap().into_iter().map(|record| record.path).collect();
    assert_eq!(known, made, "what changed and what the log knows differ");
}
