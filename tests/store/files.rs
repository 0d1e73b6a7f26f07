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
    let names: Vec<_> = std::fs::read_dir(file.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
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
