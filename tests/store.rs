//! The contract of `store::Store`, held by every driver, and what the seal adds to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of a test may fail as loudly as the test"
)]

#[path = "support/skip.rs"]
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

mod files {
    //! The file of the embedded database.

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signet.db");
        (folder, file)
    }

    /// Runs `sql` on a database that no store has open.
    pub(super) fn sql(file: &Path, sql: &str) {
        rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap();
    }

    #[test]
    fn only_create_makes_a_file_and_only_where_nothing_is() {
        let (_folder, file) = folder();
        let gone = Sqlite::open(&file).unwrap_err();
        assert_eq!(gone.kind(), Kind::Unavailable);
        assert!(gone.public().starts_with("the database is gone"), "{gone}");
        assert!(!file.exists());

        let store = Sqlite::create(&file).unwrap();
        store.commit(&[put("a", Expected::Absent, "1")]).unwrap();
        assert_eq!(store.scan("").unwrap().len(), 1);
        assert_eq!(Sqlite::create(&file).unwrap_err().kind(), Kind::Conflict);
        for beside in ["signet.db", "signet.db-wal", "signet.db-shm"] {
            let mode = file.with_file_name(beside).metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{beside}");
        }
        drop(store);
        let names: Vec<_> =
            std::fs::read_dir(file.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["signet.db"], "something was left beside the database");

        std::fs::remove_file(&file).unwrap();
        std::fs::write(file.with_file_name("signet.db-wal"), "the remains of a database").unwrap();
        assert_eq!(Sqlite::create(&file).unwrap_err().kind(), Kind::Conflict);
    }

    #[test]
    fn a_file_that_vanishes_or_is_replaced_takes_no_more_commits() {
        let (_folder, file) = folder();
        let store = Sqlite::create(&file).unwrap();
        store.commit(&[put("a", Expected::Absent, "1")]).unwrap();
        let aside = file.with_extension("aside");
        std::fs::rename(&file, &aside).unwrap();
        assert_eq!(store.commit(&[put("b", Expected::Any, "1")]).unwrap_err().kind(), Kind::Unavailable);
        Sqlite::create(&file.with_extension("other")).unwrap();
        std::fs::rename(file.with_extension("other"), &file).unwrap();
        assert_eq!(store.commit(&[put("b", Expected::Any, "1")]).unwrap_err().kind(), Kind::Unavailable);
        std::fs::rename(&aside, &file).unwrap();
        store.commit(&[put("b", Expected::Any, "1")]).unwrap();
    }

    #[test]
    fn foreign_newer_and_altered_files_are_refused_unchanged() {
        let (_folder, file) = folder();
        sql(&file, "CREATE TABLE t (x); INSERT INTO t VALUES (1)");
        let bytes = std::fs::read(&file).unwrap();
        assert_eq!(Sqlite::open(&file).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "a foreign file was written to");

        std::fs::write(&file, "not a database at all, but long enough to have a header of a hundred bytes").unwrap();
        assert_eq!(Sqlite::open(&file).unwrap_err().kind(), Kind::Invalid);
        std::fs::write(&file, "").unwrap();
        assert_eq!(Sqlite::open(&file).unwrap_err().kind(), Kind::Invalid);

        std::fs::remove_file(&file).unwrap();
        Sqlite::create(&file).unwrap();
        sql(&file, "PRAGMA user_version = 99");
        let newer = Sqlite::open(&file).unwrap_err();
        assert_eq!(newer.kind(), Kind::State);
        assert!(newer.public().contains("99"), "{newer}");
        sql(&file, "PRAGMA user_version = 3");
        Sqlite::open(&file).unwrap();

        for altered in [
            "CREATE TRIGGER t AFTER INSERT ON records BEGIN DELETE FROM records; END",
            "DROP TRIGGER t; CREATE VIEW v AS SELECT 1",
            "DROP VIEW v; DROP TABLE meta",
        ] {
            sql(&file, altered);
            assert_eq!(Sqlite::open(&file).unwrap_err().kind(), Kind::Tampered, "{altered}");
        }
    }

    #[test]
    fn a_damaged_page_is_tampered_and_never_an_absent_record() {
        let (_folder, file) = folder();
        let store = Sqlite::create(&file).unwrap();
        let many: Vec<_> = (0..400).map(|n| put(&format!("keys/{n:03}"), Expected::Absent, &"v".repeat(100))).collect();
        store.commit(&many).unwrap();
        drop(store);
        let good = std::fs::read(&file).unwrap();
        let mut refused = 0;
        for at in (100..good.len()).step_by(97) {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            std::fs::write(&file, &bad).unwrap();
            let store = match Sqlite::open(&file) {
                Ok(store) => store,
                Err(error) => {
                    assert!(matches!(error.kind(), Kind::Tampered | Kind::Invalid), "at {at}: {error:?}");
                    refused += 1;
                    continue;
                }
            };
            // Without a seal a changed letter goes unnoticed, here a path or a value; a vanished row must not.
            match store.scan("") {
                Ok(records) => assert_eq!(records.len(), 400, "at {at} rows vanished"),
                Err(error) => assert_eq!(error.kind(), Kind::Tampered, "at {at}"),
            }
        }
        assert!(refused > 10, "only {refused} damages were noticed by their structure");
    }
}

mod seals {
    //! What the seal adds: who can write the database cannot change what it says.

    use super::files::sql;
    use super::*;

    /// A closed database with three sealed records.
    fn sealed() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signet.db");
        let store = Sealed::new(Sqlite::create(&file).unwrap(), key());
        store
            .commit(&[put("keys/a", Expected::Absent, "value of a"), put("keys/b", Expected::Absent, "value of b")])
            .unwrap();
        store.commit(&[put("keys/c", Expected::Absent, "canary-4711")]).unwrap();
        drop(store);
        (folder, file)
    }

    fn reopen(file: &Path) -> Sealed<Sqlite> {
        Sealed::new(Sqlite::open(file).unwrap(), key())
    }

    fn assert_tampered(file: &Path, path: &str) {
        let store = reopen(file);
        for error in [store.get(path).unwrap_err(), store.scan("").unwrap_err()] {
            assert_eq!(error.kind(), Kind::Tampered, "{error:?}");
            assert!(error.public().contains(path), "{error} does not name {path}");
        }
    }

    #[test]
    fn no_value_is_in_the_file() {
        let (_folder, file) = sealed();
        let copy = file.with_extension("copy");
        reopen(&file).copy_to(&copy).unwrap();
        for file in [file, copy] {
            let bytes = std::fs::read(&file).unwrap();
            assert!(!bytes.windows(11).any(|window| window == b"canary-4711"));
        }
    }

    #[test]
    fn every_flipped_byte_of_every_value_is_noticed() {
        let (_folder, file) = sealed();
        let records = Sqlite::open(&file).unwrap().scan("").unwrap();
        assert_eq!(records.len(), 3);
        let write = |path: &str, value: &[u8]| {
            let db = rusqlite::Connection::open(&file).unwrap();
            db.execute("UPDATE records SET value = ?1 WHERE path = ?2", rusqlite::params![value, path]).unwrap();
        };
        for record in records {
            for at in 0..record.value.len() {
                let mut value = record.value.clone();
                value[at] ^= 1;
                write(&record.path, &value);
                let error = reopen(&file).get(&record.path).unwrap_err();
                assert_eq!(error.kind(), Kind::Tampered, "{} at {at}", record.path);
            }
            write(&record.path, &record.value);
            reopen(&file).get(&record.path).unwrap().unwrap();
        }
    }

    #[test]
    fn shortened_values_and_other_types_are_noticed() {
        for change in ["value = substr(value, 1, length(value) - 1)", "value = x''", "value = substr(value, 1, 20)"] {
            let (_folder, file) = sealed();
            sql(&file, &format!("UPDATE records SET {change} WHERE path = 'keys/b'"));
            assert_tampered(&file, "keys/b");
        }
    }

    #[test]
    fn swapped_moved_and_relabelled_records_are_noticed() {
        // 1. The values of two paths swapped, both written by the same commit.
        let (_folder, file) = sealed();
        sql(
            &file,
            "UPDATE records SET path = 'x' WHERE path = 'keys/a';
                    UPDATE records SET path = 'keys/a' WHERE path = 'keys/b';
                    UPDATE records SET path = 'keys/b' WHERE path = 'x'",
        );
        assert_tampered(&file, "keys/a");
        // 2. Moved to a path where nothing was.
        let (_folder, file) = sealed();
        sql(&file, "UPDATE records SET path = 'keys/a2' WHERE path = 'keys/a'");
        assert_tampered(&file, "keys/a2");
        // 3. Given another revision, so that it would look new.
        let (_folder, file) = sealed();
        sql(&file, "UPDATE records SET revision = 2 WHERE path = 'keys/a'");
        assert_tampered(&file, "keys/a");
        // 4. A negative revision, which no commit has.
        let (_folder, file) = sealed();
        sql(&file, "UPDATE records SET revision = -1 WHERE path = 'keys/a'");
        assert_eq!(reopen(&file).get("keys/a").unwrap_err().kind(), Kind::Tampered);
        // 5. An older value under the newer revision.
        let (_folder, file) = sealed();
        let old = Sqlite::open(&file).unwrap().get("keys/a").unwrap().unwrap().value;
        reopen(&file).commit(&[put("keys/a", Expected::Revision(1), "newer")]).unwrap();
        let db = rusqlite::Connection::open(&file).unwrap();
        db.execute("UPDATE records SET value = ?1 WHERE path = 'keys/a'", [old]).unwrap();
        drop(db);
        assert_tampered(&file, "keys/a");
    }

    #[test]
    fn another_storage_key_opens_nothing() {
        let (_folder, file) = sealed();
        let store = Sealed::new(Sqlite::open(&file).unwrap(), StorageKey::generate().unwrap());
        assert_eq!(store.get("keys/a").unwrap_err().kind(), Kind::Tampered);
        assert_eq!(StorageKey::try_from(SecretBytes::new(vec![0; 31])).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(format!("{:?}", key()), "StorageKey");
    }

    #[test]
    fn the_golden_record_opens_for_ever() {
        let golden = include_bytes!("golden/record-v1.bin");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signet.db");
        let plain = Sqlite::create(&file).unwrap();
        let revision = plain.commit(&[Change {
            path: "keys/default/release".into(),
            expected: Expected::Absent,
            value: Some(golden.to_vec()),
        }]);
        assert_eq!(revision.unwrap(), 1);
        let store = Sealed::new(plain, key());
        assert_eq!(value(&store, "keys/default/release").as_deref(), Some("a record of format 1"));
    }
}

mod certificates {
    //! The table of certificates: written once, found by what it says, and not to be changed unseen.

    use jiff::{SignedDuration, Timestamp};
    use proptest::prelude::*;
    use signet::store::certificates::{Counts, End, Found, Page, Reservation, Row, Search};
    use signet::types::Version;

    use super::files::sql;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    /// The `number`th certificate, which ends in second `number * 10`.
    fn reservation(number: u64, issuer: &str, names: &[&str]) -> Reservation {
        let mut serial = [7; 20];
        serial[12..].copy_from_slice(&number.to_be_bytes());
        Reservation {
            number,
            serial,
            issuer: issuer.parse().unwrap(),
            version: Version::FIRST,
            profile: "default:server".into(),
            requester: format!("identity/r{}", number % 2),
            subject: String::new(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            not_before: at(1),
            not_after: at(i64::try_from(number).unwrap() * 10),
            at: at(2),
            body: vec![1, 2, 3],
            tag: [0; 32],
        }
    }

    fn end(number: u64, signature: Option<&[u8]>) -> Row {
        Row::End(End { number, at: at(3), signature: signature.map(<[u8]>::to_vec), tag: [0; 32] })
    }

    /// Ten certificates of two issuers, of which the first seven are signed.
    fn fill(store: &dyn Store) {
        for number in 1..=10 {
            let issuer = if number <= 5 { "a:one" } else { "b:two" };
            let own = format!("dns:h{number}.example");
            let row = Row::Reserve(reservation(number, issuer, &[own.as_str(), "dns:shared.example"]));
            store.commit_rows(&[put("ledger/x", Expected::Any, "1")], &[row]).unwrap();
        }
        let ends: Vec<_> = (1..=7).map(|number| end(number, Some(&[9, 9]))).collect();
        store.commit_rows(&[], &ends).unwrap();
    }

    fn numbers(found: &[Found]) -> Vec<u64> {
        found.iter().map(|one| one.reservation.number).collect()
    }

    #[test]
    fn certificates_are_found_by_what_they_say() {
        each_driver(|store, _, _| {
            fill(store);
            let all = Search { limit: 100, ..Search::default() };
            let find = |search: Search| numbers(&store.certificates(&search).unwrap().found);
            assert_eq!(find(all.clone()), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
            assert_eq!(find(Search { issuer: Some("a:one".parse().unwrap()), ..all.clone() }), [5, 4, 3, 2, 1]);
            assert_eq!(find(Search { namespace: Some("b".parse().unwrap()), ..all.clone() }), [10, 9, 8, 7, 6]);
            assert_eq!(find(Search { name: Some("dns:h3.example".into()), ..all.clone() }), [3]);
            assert!(find(Search { name: Some("dns:h3".into()), ..all.clone() }).is_empty());
            assert_eq!(find(Search { requester: Some("identity/r0".into()), ..all.clone() }), [10, 8, 6, 4, 2]);
            let both =
                Search { requester: Some("identity/r1".into()), issuer: Some("b:two".parse().unwrap()), ..all.clone() };
            assert_eq!(find(both), [9, 7]);
            assert_eq!(find(Search { ends: Some((at(30), at(60))), ..all.clone() }), [3, 4, 5]);
            let shared = Search { name: Some("dns:shared.example".into()), ends: Some((at(0), at(35))), ..all };
            assert_eq!(find(shared), [3, 2, 1]);
            let found = store.certificate(&reservation(3, "a:one", &[]).serial).unwrap().unwrap();
            assert_eq!(found.end.unwrap().signature, Some(vec![9, 9]));
            assert_eq!(store.certificate(&[0; 20]).unwrap(), None);
            assert_eq!(numbers(&store.open_reservations().unwrap()), [8, 9, 10]);
            assert_eq!(store.count_certificates().unwrap(), Counts { reserved: 10, names: 20, ended: 7 });
        });
    }

    #[test]
    fn pages_of_a_search_follow_each_other_without_a_gap() {
        each_driver(|store, _, _| {
            fill(store);
            let searches = [
                Search { limit: 3, ..Search::default() },
                Search { limit: 3, name: Some("dns:shared.example".into()), ..Search::default() },
                Search { limit: 3, ends: Some((at(0), at(1000))), ..Search::default() },
            ];
            for search in searches {
                let mut seen = all_pages(store, &search);
                seen.sort_unstable();
                assert_eq!(seen, (1..=10).collect::<Vec<_>>(), "{search:?}");
            }
        });
    }

    /// The numbers on all pages of a search, in their order.
    fn all_pages(store: &dyn Store, search: &Search) -> Vec<u64> {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let Page { found, next } = store.certificates(&Search { after, ..search.clone() }).unwrap();
            assert!(found.len() <= search.limit);
            seen.extend(numbers(&found));
            if next.is_none() {
                return seen;
            }
            after = next;
        }
    }

    /// How many certificates the next test looks for.
    const MANY: u64 = 10_000;

    /// The `number`th of many: issuers, versions, profiles and requesters that go together in some ways and not in others, names
    /// of few and of many, and ends of which many are the same.
    fn one_of_many(number: u64) -> Reservation {
        let issuer = ["a:one", "a:two", "a-b:one", "b:one"][usize::try_from(number % 7 % 4).unwrap()];
        let own = format!("dns:h{}.example", number % 900);
        let all = "dns:all.example".to_owned();
        Reservation {
            version: Version::new(1 + u32::try_from(number / 4000).unwrap()).unwrap(),
            profile: format!("default:p{}", number % 3),
            // Who asks for one profile never asks for another.
            requester: format!("identity/r{}", number % 12),
            names: if number.is_multiple_of(5) { vec![own] } else { vec![own, all] },
            not_after: at(i64::try_from(number * 7919 % 10_007 / 100 * 100).unwrap()),
            ..reservation(number, issuer, &[])
        }
    }

    fn many(folder: &tempfile::TempDir) -> Sealed<Sqlite> {
        let store = Sealed::new(Sqlite::create(&folder.path().join("signet.db")).unwrap(), key());
        let rows: Vec<_> = (1..=MANY).map(|number| Row::Reserve(one_of_many(number))).collect();
        for rows in rows.chunks(1000) {
            store.commit_rows(&[], rows).unwrap();
        }
        store
    }

    /// Sometimes one of `texts`.
    fn maybe(texts: &'static [&'static str]) -> impl Strategy<Value = Option<String>> {
        prop_oneof![Just(None), proptest::sample::select(texts).prop_map(|text| Some(text.to_owned()))]
    }

    #[test]
    fn any_search_among_many_finds_what_a_plain_filter_finds() {
        let folder = tempfile::tempdir().unwrap();
        let store = many(&folder);
        let all: Vec<_> = (1..=MANY).map(one_of_many).collect();
        let conditions = (
            maybe(&["a:one", "a:two", "b:one", "b:none"]),
            maybe(&["a", "a-b", "b", "c"]),
            maybe(&["default:p0", "default:p2", "default:p"]),
            maybe(&["identity/r0", "identity/r11", "identity/r"]),
            maybe(&["dns:all.example", "dns:h7.example", "dns:h"]),
            proptest::option::of((0..10_100_i64, 0..10_100_i64)),
            150..=1000_usize,
        );
        // Each case reads up to ten thousand certificates.
        let config = ProptestConfig::with_cases(ProptestConfig::default().cases / 8);
        proptest!(ProptestConfig { failure_persistence: None, ..config }, |(conditions in conditions)| {
            let (issuer, namespace, profile, requester, name, ends, limit) = conditions;
            let search = Search {
                issuer: issuer.map(|issuer| issuer.parse().unwrap()),
                namespace: namespace.map(|namespace| namespace.parse().unwrap()),
                profile,
                requester,
                name,
                ends: ends.map(|(from, until)| (at(from), at(until))),
                after: None,
                limit,
            };
            let mut expected: Vec<_> = all.iter().filter(|one| search.fits(one)).collect();
            if search.ends.is_some() && search.name.is_none() {
                expected.sort_by_key(|one| (one.not_after, one.number));
            } else {
                expected.reverse();
            }
            let expected: Vec<_> = expected.into_iter().map(|one| one.number).collect();
            prop_assert_eq!(all_pages(&store, &search), expected, "{:?}", search);
        });
    }

    #[test]
    fn the_last_end_of_a_version_is_that_of_all_its_profiles() {
        let folder = tempfile::tempdir().unwrap();
        let store = many(&folder);
        for (issuer, version) in [("a:one", 1), ("a:two", 2), ("b:one", 3), ("a:none", 1)] {
            let of = |one: &Reservation| one.issuer.to_string() == issuer && one.version.number() == version;
            let expected = (1..=MANY).map(one_of_many).filter(of).map(|one| one.not_after).max();
            let version = Version::new(version).unwrap();
            assert_eq!(
                store.last_end(&issuer.parse().unwrap(), version, "[ocsp]").unwrap(),
                expected,
                "{issuer} {version}"
            );
        }
    }

    /// What `tests/vectors/make.py` writes of the same two rows.
    #[test]
    fn the_tags_of_rows_are_as_they_are_drawn() {
        let golden = include_str!("golden/certificate-row-v1.txt");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signet.db");
        let store = Sealed::new(Sqlite::create(&file).unwrap(), key());
        let names = ["dns:web.example.com", "ip:10.0.0.1"];
        let row = Reservation { subject: "CN=web".into(), ..reservation(1, "fleet:root", &names) };
        store.commit_rows(&[], &[Row::Reserve(row.clone()), end(1, Some(&[9, 9]))]).unwrap();
        drop(store);
        let found = Sqlite::open(&file).unwrap().certificate(&row.serial).unwrap().unwrap();
        let tags =
            [found.reservation.tag, found.end.unwrap().tag].map(|tag| tag.map(|byte| format!("{byte:02x}")).concat());
        assert_eq!(golden.lines().collect::<Vec<_>>(), tags);
    }

    #[test]
    fn a_serial_is_never_there_twice_and_an_end_is_final() {
        each_driver(|store, _, _| {
            fill(store);
            let again = Reservation { number: 11, ..reservation(3, "a:one", &[]) };
            let change = put("keys/a", Expected::Absent, "1");
            let refused = store.commit_rows(&[change], &[Row::Reserve(again)]).unwrap_err();
            assert_eq!(refused.kind(), Kind::Conflict);
            assert_eq!(value(store, "keys/a"), None, "a batch is made whole or not at all");
            assert_eq!(store.commit_rows(&[], &[end(3, None)]).unwrap_err().kind(), Kind::Conflict);
            store.commit_rows(&[], &[end(8, None)]).unwrap();
            let found = store.certificate(&reservation(8, "b:two", &[]).serial).unwrap().unwrap();
            assert_eq!(found.end.unwrap().signature, None);
        });
    }

    #[test]
    fn a_copy_holds_the_certificates() {
        each_driver(|store, driver, file| {
            fill(store);
            let copy = file.with_extension("copy");
            store.copy_to(&copy).unwrap();
            let copied = (driver.open)(&copy).unwrap();
            let all = Search { limit: 100, ..Search::default() };
            assert_eq!(copied.certificates(&all).unwrap(), store.certificates(&all).unwrap());
        });
    }

    #[test]
    fn rows_stay_as_they_are_and_whoever_changes_the_file_is_seen() {
        let changes = [
            "UPDATE certificates SET requester = 'identity/other' WHERE number = 3",
            "UPDATE certificates SET not_after = not_after + 1 WHERE number = 3",
            "UPDATE certificates SET names = 'dns:other.example' WHERE number = 3",
            "UPDATE certificates SET body = x'00' WHERE number = 3",
            "UPDATE certificate_ends SET signature = x'00' WHERE number = 3",
            "UPDATE certificate_ends SET signature = NULL WHERE number = 3",
            "UPDATE certificate_ends SET number = 10 WHERE number = 3",
            "UPDATE certificates SET tag = (SELECT tag FROM certificates WHERE number = 4) WHERE number = 3",
        ];
        for change in changes {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("signet.db");
            let store = Sealed::new(Sqlite::create(&file).unwrap(), key());
            fill(&store);
            drop(store);
            // The triggers hold whoever keeps to SQL...
            let refused = rusqlite::Connection::open(&file).unwrap().execute(change, []).unwrap_err();
            assert!(refused.to_string().contains("rows stay"), "{change}: {refused}");
            // ...and whoever does not is seen when the row is read.
            sql(&file, "DROP TRIGGER certificates_are_final; DROP TRIGGER certificate_ends_are_final");
            sql(&file, change);
            let triggers = "CREATE TRIGGER certificates_are_final BEFORE UPDATE ON certificates BEGIN SELECT RAISE(ABORT, 'rows stay'); END;
                CREATE TRIGGER certificate_ends_are_final BEFORE UPDATE ON certificate_ends BEGIN SELECT RAISE(ABORT, 'rows stay'); END;";
            sql(&file, triggers);
            let store = Sealed::new(Sqlite::open(&file).unwrap(), key());
            let moved = if change.contains("number = 10") { 10 } else { 3 };
            let serial = reservation(moved, "a:one", &[]).serial;
            assert_eq!(store.certificate(&serial).unwrap_err().kind(), Kind::Tampered, "{change}");
        }
    }

    #[test]
    fn a_certificate_under_a_foreign_name_and_a_gap_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signet.db");
        let store = Sealed::new(Sqlite::create(&file).unwrap(), key());
        fill(&store);
        drop(store);
        sql(&file, "INSERT INTO certificate_names VALUES ('dns:bank.example', 3)");
        let store = Sealed::new(Sqlite::open(&file).unwrap(), key());
        let search = Search { name: Some("dns:bank.example".into()), limit: 10, ..Search::default() };
        assert_eq!(store.certificates(&search).unwrap_err().kind(), Kind::Tampered);
        drop(store);
        sql(&file, "PRAGMA foreign_keys = OFF; DROP TRIGGER certificates_stay; DELETE FROM certificates WHERE number = 4;
            CREATE TRIGGER certificates_stay BEFORE DELETE ON certificates BEGIN SELECT RAISE(ABORT, 'rows stay'); END;");
        let store = Sealed::new(Sqlite::open(&file).unwrap(), key());
        assert_eq!(store.count_certificates().unwrap_err().kind(), Kind::Tampered);
    }
}
