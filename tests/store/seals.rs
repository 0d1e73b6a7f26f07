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
    let golden = include_bytes!("../golden/record-v1.bin");
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

/// Many are opened by several threads.
#[test]
fn of_many_records_each_is_shown_once_in_order_and_a_changed_one_is_noticed() {
    const MANY: usize = 7345;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("signet.db");
    let path = |number: usize| format!("keys/{number:05}");
    let store = Sealed::new(Sqlite::create(&file).unwrap(), key());
    let changes: Vec<_> =
        (0..MANY).map(|number| put(&path(number), Expected::Absent, &format!("value {number}"))).collect();
    store.commit(&changes).unwrap();
    let found = store.scan("").unwrap();
    assert_eq!(found.len(), MANY);
    for (number, record) in found.iter().enumerate() {
        assert_eq!((&record.path, record.value.as_slice()), (&path(number), format!("value {number}").as_bytes()));
    }
    // Who looks may stop.
    let mut seen = 0;
    let stopped = store.visit("keys/", &mut |_| {
        seen += 1;
        if seen == 5000 { Err(signet::error::Error::new(Kind::State, "enough")) } else { Ok(()) }
    });
    assert_eq!((stopped.unwrap_err().kind(), seen), (Kind::State, 5000));
    drop(store);
    for number in [0, 2500, MANY - 1] {
        let file = folder.path().join(format!("{number}.db"));
        reopen(&folder.path().join("signet.db")).copy_to(&file).unwrap();
        sql(&file, &format!("UPDATE records SET revision = revision + 1 WHERE path = '{}'", path(number)));
        assert_tampered(&file, &path(number));
    }
}
