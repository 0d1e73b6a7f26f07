//! The contract of `store::Store`, held by every driver, and what the seal adds to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test may fail as loudly as the test"
)]

mod certificates;
mod files;
mod seals;
#[path = "../support/skip.rs"]
mod skip;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use signet::error::Kind;
use signet::store::{Change, Expected, MAX_VALUE, Sealed, Sqlite, StorageKey, Store};
use signet::types::SecretBytes;

/// One way to keep records. A new driver gets a line in [`DRIVERS`] and with it every case of this file.
struct Driver {
    name: &'static str,
    create: fn(&Path) -> signet::error::Result<Box<dyn Store>>,
    open: fn(&Path) -> signet::error::Result<Box<dyn Store>>,
}

const DRIVERS: &[Driver] = &[
    Driver {
        name: "sqlite",
        create: |file| Ok(Box::new(Sqlite::create(file)?)),
        open: |file| Ok(Box::new(Sqlite::open(file)?)),
    },
    Driver {
        name: "sealed sqlite",
        create: |file| Ok(Box::new(Sealed::new(Sqlite::create(file)?, key()))),
        open: |file| Ok(Box::new(Sealed::new(Sqlite::open(file)?, key()))),
    },
];

/// The same at each open, as the wrapped key of a service is.
fn key() -> StorageKey {
    StorageKey::try_from(SecretBytes::new((0..32).collect())).unwrap()
}

/// Runs `case` on a new store of each driver.
fn each_driver(case: impl Fn(&dyn Store, &Driver, &Path)) {
    for driver in DRIVERS {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signet.db");
        let store = (driver.create)(&file).unwrap_or_else(|e| panic!("{}: {e:?}", driver.name));
        case(store.as_ref(), driver, &file);
    }
}

fn put(path: &str, expected: Expected, value: &str) -> Change {
    Change { path: path.into(), expected, value: Some(value.into()) }
}

fn remove(path: &str, expected: Expected) -> Change {
    Change { path: path.into(), expected, value: None }
}

fn paths(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.scan(prefix).unwrap().into_iter().map(|record| record.path).collect()
}

fn value(store: &dyn Store, path: &str) -> Option<String> {
    store.get(path).unwrap().map(|record| String::from_utf8(record.value).unwrap())
}

#[test]
fn records_are_read_as_they_were_written() {
    each_driver(|store, driver, file| {
        assert_eq!(store.get("keys/a").unwrap(), None);
        assert_eq!(store.commit(&[put("keys/a", Expected::Absent, "one")]).unwrap(), 1);
        let changes = [put("keys/a", Expected::Revision(1), "two"), put("keys/b", Expected::Any, "")];
        assert_eq!(store.commit(&changes).unwrap(), 2);
        let record = store.get("keys/a").unwrap().unwrap();
        assert_eq!((record.path.as_str(), record.revision, record.value.as_slice()), ("keys/a", 2, &b"two"[..]));
        assert_eq!(value(store, "keys/b").as_deref(), Some(""));

        let again = (driver.open)(file).unwrap();
        assert_eq!(again.scan("").unwrap(), store.scan("").unwrap());
    });
}

#[test]
fn a_batch_is_made_whole_or_not_at_all() {
    each_driver(|store, _, _| {
        store.commit(&[put("a", Expected::Any, "1"), put("b", Expected::Any, "1")]).unwrap();
        let before = store.scan("").unwrap();
        let cases = [
            (put("b", Expected::Absent, "2"), Kind::Conflict),
            (put("b", Expected::Revision(9), "2"), Kind::Stale),
            (put("c", Expected::Revision(1), "2"), Kind::Stale),
            (remove("c", Expected::Revision(1)), Kind::Stale),
            (put("c", Expected::Any, &"x".repeat(MAX_VALUE + 1)), Kind::Limit),
            (put("a", Expected::Any, "3"), Kind::Invalid),
        ];
        for (bad, kind) in cases {
            let path = bad.path.clone();
            let batch = [put("a", Expected::Any, "2"), remove("d", Expected::Any), bad];
            let error = store.commit(&batch).unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(error.public().contains(&path), "{error} does not name {path}");
            assert_eq!(store.scan("").unwrap(), before);
        }
        let refused =
            store.commit_with(&[put("a", Expected::Any, "2"), put("c", Expected::Any, "2")], &[], &|path, _, value| {
                if path == "c" { Err(signet::error::Error::internal("encoder")) } else { Ok(value.to_vec()) }
            });
        assert_eq!(refused.unwrap_err().kind(), Kind::Internal);
        assert_eq!(store.scan("").unwrap(), before);
    });
}

#[test]
fn no_revision_is_given_twice() {
    each_driver(|store, driver, file| {
        assert_eq!(store.commit(&[put("a", Expected::Absent, "1")]).unwrap(), 1);
        assert_eq!(store.commit(&[remove("a", Expected::Revision(1))]).unwrap(), 2);
        assert_eq!(value(store, "a"), None);
        // Failed batches may or may not use up a number; they never make one stand twice.
        store.commit(&[put("a", Expected::Revision(1), "2")]).unwrap_err();
        let third = store.commit(&[put("a", Expected::Absent, "2")]).unwrap();
        assert!(third > 2);
        assert!((driver.open)(file).unwrap().commit(&[]).unwrap() > third);
    });
}

#[test]
fn of_eight_with_one_expected_revision_one_wins() {
    each_driver(|store, driver, file| {
        // Half of them through a second opening of the same database, as another process would.
        let second = (driver.open)(file).unwrap();
        for round in 0..20 {
            let revision = store.commit(&[put("a", Expected::Any, "0")]).unwrap();
            let attempt = |n: usize| {
                let through = if n.is_multiple_of(2) { store } else { second.as_ref() };
                through.commit(&[put("a", Expected::Revision(revision), &n.to_string())])
            };
            let attempt = &attempt;
            let outcomes: Vec<_> = std::thread::scope(|scope| {
                let attempts: Vec<_> = (0..8).map(|n| scope.spawn(move || attempt(n))).collect();
                attempts.into_iter().map(|one| one.join().unwrap()).collect()
            });
            let (wins, losses): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
            assert_eq!(wins.len(), 1, "round {round}");
            assert!(losses.into_iter().all(|loss| loss.unwrap_err().kind() == Kind::Stale));
        }
    });
}

#[test]
fn a_scan_finds_what_starts_with_the_prefix_in_byte_order() {
    each_driver(|store, _, _| {
        let all = [
            "keys/a",
            "keys/a-b/1",
            "keys/a/1",
            "keys/a/10",
            "keys/a/2",
            "keys/a_b/1",
            "keys/ab",
            "keys/axb/1",
            "keyz",
        ];
        let changes: Vec<_> = all.iter().rev().map(|path| put(path, Expected::Absent, path)).collect();
        store.commit(&changes).unwrap();
        assert_eq!(paths(store, ""), all);
        assert_eq!(paths(store, "keys/a/"), ["keys/a/1", "keys/a/10", "keys/a/2"]);
        assert_eq!(paths(store, "keys/a_"), ["keys/a_b/1"], "`_` is no wildcard");
        assert_eq!(paths(store, "keys/a/1"), ["keys/a/1", "keys/a/10"]);
        assert_eq!(paths(store, "keys/ab"), ["keys/ab"]);
        assert_eq!(paths(store, "keys/zz"), [""; 0]);
        assert_eq!(paths(store, "k").len(), all.len());
        assert_eq!(store.paths("").unwrap(), all);
        assert_eq!(store.paths("keys/a_").unwrap(), ["keys/a_b/1"]);
    });
}

#[test]
fn what_is_no_path_is_refused() {
    each_driver(|store, _, _| {
        let long = "a".repeat(513);
        for bad in ["", "/", "a/", "/a", "a//b", "A", "a%", "a b", "a\0", "ä", "a\\b", long.as_str()] {
            assert_eq!(store.commit(&[put(bad, Expected::Any, "x")]).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
            assert_eq!(store.get(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
        for bad in ["%", "keys/%", "K", "~"] {
            assert_eq!(store.scan(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
            assert_eq!(store.paths(bad).unwrap_err().kind(), Kind::Invalid, "{bad:?}");
        }
        assert!(store.scan("").unwrap().is_empty());
        store.commit(&[put(&"a".repeat(512), Expected::Any, "x")]).unwrap();
    });
}

#[test]
fn readers_see_whole_batches_while_one_writes() {
    each_driver(|store, _, _| {
        let pair =
            |n: u32| [put("pair/a", Expected::Any, &n.to_string()), put("pair/b", Expected::Any, &n.to_string())];
        store.commit(&pair(0)).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        let mut newest = 0;
                        while !done.load(Ordering::Relaxed) {
                            let records = store.scan("pair/").unwrap();
                            assert_eq!(records.len(), 2);
                            assert_eq!(records[0].value, records[1].value, "half of a batch was seen");
                            assert!(records[0].revision >= newest, "a read went back in time");
                            newest = records[0].revision;
                        }
                    })
                })
                .collect();
            for n in 1..=300 {
                let revision = store.commit(&pair(n)).unwrap();
                assert_eq!(store.get("pair/a").unwrap().unwrap().revision, revision, "own commit not seen");
            }
            done.store(true, Ordering::Relaxed);
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
    });
}

#[test]
fn a_copy_is_of_one_moment_while_others_write() {
    each_driver(|store, driver, file| {
        let filler: Vec<_> = (0..500).map(|n| put(&format!("filler/{n}"), Expected::Any, &"x".repeat(2000))).collect();
        store.commit(&filler).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut n = 0u64;
                while !done.load(Ordering::Relaxed) {
                    n += 1;
                    // Two rows that lie far apart in the tree.
                    let both = ["a/pair", "z/pair"].map(|path| put(path, Expected::Any, &n.to_string()));
                    store.commit(&both).unwrap();
                }
            });
            for n in 0..5 {
                let copy = file.with_extension(n.to_string());
                store.copy_to(&copy).unwrap();
                let copied = (driver.open)(&copy).unwrap();
                assert_eq!(value(copied.as_ref(), "a/pair"), value(copied.as_ref(), "z/pair"));
                assert_eq!(copied.scan("filler/").unwrap().len(), 500);
                copied.commit(&[put("a/new", Expected::Absent, "")]).unwrap();
                assert_eq!(store.copy_to(&copy).unwrap_err().kind(), Kind::Conflict, "copied over a file");
            }
            done.store(true, Ordering::Relaxed);
            writer.join().unwrap();
        });
        assert_eq!(store.copy_to(Path::new("/nowhere/at/all.db")).unwrap_err().kind(), Kind::Unavailable);
    });
}

#[test]
fn kill_9_loses_no_acknowledged_commit() {
    for (number, driver) in DRIVERS.iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signet.db");
        (driver.create)(&file).unwrap();
        for round in 1..=4 {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "commit_until_killed", "--nocapture", "--test-threads=1"])
                .env("SIGNET_TEST_STORE", &file)
                .env("SIGNET_TEST_DRIVER", number.to_string())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let acknowledged = BufReader::new(child.stdout.take().unwrap())
                .lines()
                .filter_map(|line| line.unwrap().strip_prefix("acknowledged ")?.parse::<u64>().ok())
                .take(40 * round)
                .last()
                .expect("the child acknowledges");
            child.kill().unwrap();
            child.wait().unwrap();

            let store = (driver.open)(&file).unwrap();
            let first = value(store.as_ref(), "first").unwrap();
            assert!(first.parse::<u64>().unwrap() >= acknowledged, "{}: lost {acknowledged}, has {first}", driver.name);
            assert_eq!(value(store.as_ref(), "second").unwrap(), first, "{}: half a batch", driver.name);
        }
    }
}

#[test]
fn commit_until_killed() {
    // The child of the test above; by itself it has nothing to do.
    let (Ok(file), Ok(number)) = (std::env::var("SIGNET_TEST_STORE"), std::env::var("SIGNET_TEST_DRIVER")) else {
        return;
    };
    let store = (DRIVERS[number.parse::<usize>().unwrap()].open)(Path::new(&file)).unwrap();
    let mut n: u64 = value(store.as_ref(), "first").map_or(0, |text| text.parse().unwrap());
    println!();
    loop {
        n += 1;
        store.commit(&["first", "second"].map(|path| put(path, Expected::Any, &n.to_string()))).unwrap();
        println!("acknowledged {n}");
    }
}

#[test]
fn a_full_disk_is_unavailable_and_works_again_after() {
    let folder = tempfile::tempdir().unwrap();
    let Some(small) = SmallDisk::mount(folder.path()) else {
        skip::skipped("a small tmpfs can be mounted by root only");
        return;
    };
    for (number, driver) in DRIVERS.iter().enumerate() {
        let file = small.0.join(format!("{number}.db"));
        let store = (driver.create)(&file).unwrap();
        store.commit(&[put("kept", Expected::Absent, "yes")]).unwrap();
        let big = "x".repeat(100_000);
        let full = (0..100).find_map(|n| store.commit(&[put(&format!("big/{n}"), Expected::Absent, &big)]).err());
        let error = full.expect("4 MiB are full some time");
        assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
        assert!(error.wait().is_some());
        // What was acknowledged is read as before, and there is room after some is made.
        assert_eq!(value(store.as_ref(), "kept").as_deref(), Some("yes"));
        assert_eq!(store.copy_to(&small.0.join("copy")).unwrap_err().kind(), Kind::Unavailable);
        assert!(!small.0.join("copy").exists(), "half a copy was left");
        small.grow();
        store.commit(&[put("after", Expected::Absent, "yes")]).unwrap();
        drop(store);
        assert_eq!(value((driver.open)(&file).unwrap().as_ref(), "after").as_deref(), Some("yes"));
        std::fs::remove_file(&file).unwrap();
        small.shrink();
    }
}

/// A disk of 4 MiB in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(at).output().ok()?;
        done.status.success().then(|| Self(at.to_path_buf()))
    }

    fn grow(&self) {
        self.remount("size=16m");
    }

    fn shrink(&self) {
        self.remount("size=4m");
    }

    fn remount(&self, size: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{size}")]).arg(&self.0).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
