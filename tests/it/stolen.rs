//! Who steals the data folder learns no secret; who changes it is noticed.

use std::path::Path;

use signet::error::Kind;
use signet::types::Context;
use signet::wire::GenerateDataKey;

use crate::server::{TestServer, name};
use crate::wrap::{context, plain};

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

#[tokio::test]
async fn a_stolen_folder_holds_no_plaintext_no_token_and_no_data_key() {
    let mut t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    let mut canaries = vec![t.token().as_bytes().to_vec()];
    for n in 0..50 {
        let canary = format!("canary-{n}-plaintext-that-must-not-be-seen").into_bytes();
        t.client.wrap(&name("data"), &plain(&canary, &context(&[("n", "1")]))).await.unwrap();
        canaries.push(canary);
        let ask = GenerateDataKey { length: 32, context: Context::default(), plaintext: true };
        canaries.push(t.client.datakey(&name("data"), &ask).await.unwrap().plaintext.unwrap().0.expose().to_vec());
    }
    let pin = std::fs::read_to_string(t.hsm.pin_file()).unwrap().trim().as_bytes().to_vec();
    canaries.push(pin);
    t.stop().await;
    let mut all = Vec::new();
    files(t.data(), &mut all);
    let contents: Vec<_> =
        all.iter().filter(|path| !path.ends_with("server.key")).map(|path| std::fs::read(path).unwrap()).collect();
    let mut control = 0;
    for content in &contents {
        control += usize::from(content.windows(4).any(|part| part == b"data"));
        for canary in &canaries {
            assert!(
                !content.windows(canary.len()).any(|part| part == canary),
                "found {:?}",
                String::from_utf8_lossy(canary)
            );
        }
    }
    assert!(control > 0, "the search finds nothing at all");
}

#[tokio::test]
async fn a_changed_folder_does_not_start() {
    let mut t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    t.key("other", "aes256-gcm-derived").await;
    t.stop().await;
    let database = t.data().join("signet.db");
    let untouched = std::fs::read(&database).unwrap();
    let sql = |statement: &str| {
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.execute_batch(statement).unwrap();
    };
    let swap = "CREATE TEMP TABLE t AS SELECT * FROM records WHERE path IN ('keys/default/data', 'keys/default/other');
        UPDATE records SET value = (SELECT value FROM t WHERE t.path <> records.path),
                           revision = (SELECT revision FROM t WHERE t.path <> records.path)
        WHERE path IN ('keys/default/data', 'keys/default/other');";
    let cases = [
        ("a flipped byte", "UPDATE records SET value = CAST(value || x'00' AS BLOB) WHERE path = 'keys/default/data';"),
        ("two rows swapped", swap),
        ("a revision changed", "UPDATE records SET revision = revision + 1 WHERE path = 'keys/default/data';"),
        (
            "a version removed",
            "DELETE FROM records WHERE path LIKE 'versions/%' AND rowid IS NULL OR path = (SELECT path FROM records WHERE path LIKE 'versions/%' LIMIT 1);",
        ),
        ("a key removed", "DELETE FROM records WHERE path = 'keys/default/data';"),
        ("a policy changed", "UPDATE records SET value = x'00' WHERE path LIKE 'policies/%';"),
    ];
    for (what, statement) in cases {
        sql(statement.replace(" AND rowid IS NULL OR", " AND 0 OR").as_str());
        let error = t.start_again().await.expect_err(what);
        assert_eq!(error.kind(), Kind::Tampered, "{what}: {error:?}");
        restore(&database, &untouched);
    }
    let root = t.data().join("root.json");
    let text = std::fs::read_to_string(&root).unwrap();
    std::fs::write(&root, text.replacen("\"instance\": \"", "\"instance\": \"0", 1)).unwrap();
    assert_eq!(t.start_again().await.expect_err("another instance").kind(), Kind::Tampered);
    std::fs::write(&root, text).unwrap();
    std::fs::rename(t.data().join("audit"), t.data().join("elsewhere")).unwrap();
    assert_eq!(t.start_again().await.expect_err("no log").kind(), Kind::Tampered);
    std::fs::rename(t.data().join("elsewhere"), t.data().join("audit")).unwrap();
    // Put back, it starts as if nothing had happened.
    t.start_again().await.unwrap();
    t.client.key(&name("data")).await.unwrap();
}

fn restore(database: &Path, content: &[u8]) {
    for side in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{side}", database.display()));
    }
    std::fs::write(database, content).unwrap();
}

#[tokio::test]
async fn a_log_that_is_changed_under_the_running_service_is_noticed() {
    for what in ["edited", "truncated", "removed", "replaced"] {
        let t = TestServer::start().await;
        t.key("data", "aes256-gcm-derived").await;
        let folder = t.data().join("audit");
        let segment = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|e| e == "jsonl"))
            .unwrap();
        let bytes = std::fs::read(&segment).unwrap();
        match what {
            "edited" => {
                let mut edited = bytes.clone();
                edited[30] ^= 1;
                use std::os::unix::fs::FileExt;
                let file = std::fs::File::options().write(true).open(&segment).unwrap();
                file.write_all_at(&edited[30..31], 30).unwrap();
            }
            "truncated" => std::fs::File::options().write(true).open(&segment).unwrap().set_len(100).unwrap(),
            "removed" => std::fs::remove_file(&segment).unwrap(),
            _ => {
                std::fs::remove_file(&segment).unwrap();
                std::fs::write(&segment, &bytes).unwrap();
            }
        }
        // Noticed at the next look, at most a second later; from then on nothing is done that could not be recorded.
        let refused = async {
            loop {
                match t.client.wrap(&name("data"), &plain(b"x", &Context::default())).await {
                    Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
                    Err(error) => return error,
                }
            }
        };
        let error = tokio::time::timeout(std::time::Duration::from_secs(20), refused).await.expect(what);
        assert!(matches!(error.kind(), Kind::Tampered | Kind::Internal), "{what}: {error:?}");
        assert!(t.client(None).ready().await.is_err(), "{what}");
    }
}
