//! The files of the log, as whoever holds the disk may leave them.
#![no_main]

use std::fs;

use signet::audit::{Record, count, leaves, read, verify};

libfuzzer_sys::fuzz_target!(|input: (&[u8], &[u8])| {
    let (segment, heads) = input;
    let _ = serde_json::from_slice::<Record>(segment);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("log-00000000000000000000.jsonl"), segment).unwrap();
    fs::write(folder.path().join("heads"), heads).unwrap();
    let _ = verify(folder.path(), None);
    let size = count(folder.path());
    if let Ok(records) = read(folder.path(), 0) {
        for record in records {
            let _ = record;
        }
    }
    if let Ok(size) = size {
        let _ = leaves(folder.path(), size);
    }
});
