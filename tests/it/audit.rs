//! The audit log, read through the front.

use signet::audit::checkpoint::{Head, HeadKeys, public_key_from_pem};
use signet::audit::merkle::leaf_hash;
use signet::audit::proof::{Consistency, Proof};
use signet::audit::{entries, verify};
use signet::error::Kind;
use signet::types::Context;
use signet::wire::{Base64, Batch, Sign, Unwrap};

use crate::judges;
use crate::process::eventually;
use crate::server::{TestServer, name};

#[tokio::test]
async fn a_page_of_the_log_ends_by_its_bytes_and_tells_where_to_go_on() {
    /// The bound of `docs/limits.md`.
    const MOST: usize = 8 << 20;
    let t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    // Each item of a batch is recorded with its context, which makes records of four megabytes.
    let context = Context::new([("filler".to_owned(), "x".repeat(4000))].into()).unwrap();
    let item = || Unwrap { ciphertext: Base64(vec![0]), context: context.clone(), danger_allow_compromised: false };
    for _ in 0..4 {
        let items = (0..1000).map(|_| item()).collect();
        t.client.unwrap_batch(&name("data"), &Batch { items }).await.unwrap();
    }
    let (mut next, mut pages) = (0, 0);
    loop {
        let page = t.client.audit_records(next, Some(1000)).await.unwrap();
        let bytes = serde_json::to_vec(&page.records).unwrap().len();
        assert!(bytes < MOST + 1024 || page.records.len() == 1, "{} records, {bytes} bytes", page.records.len());
        assert_eq!((page.first, page.next), (next, next + page.records.len() as u64));
        (next, pages) = (page.next, pages + 1);
        if next == page.size {
            break;
        }
    }
    assert!(pages > 1, "{pages}");
}

/// The records of a batch with long contexts: one would be longer than other tools read.
#[tokio::test]
async fn the_record_of_a_large_batch_comes_in_parts() {
    let t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    let context = Context::new([("filler".to_owned(), "x".repeat(8000))].into()).unwrap();
    let item = || Unwrap { ciphertext: Base64(vec![0]), context: context.clone(), danger_allow_compromised: false };
    let first = t.client.audit_records(0, Some(1)).await.unwrap().size;
    t.client.unwrap_batch(&name("data"), &Batch { items: (0..20).map(|_| item()).collect() }).await.unwrap();
    let records = t.client.audit_records(first, None).await.unwrap().records;
    let parts: Vec<_> = records.iter().filter(|record| record["action"] == "Unwrap").collect();
    assert_eq!(parts.iter().map(|part| part["items"].as_array().unwrap().len()).sum::<usize>(), 20);
    let named: Vec<_> = parts.iter().map(|part| part["facts"]["part"].as_str().unwrap()).collect();
    assert_eq!(named, ["1/3", "2/3", "3/3"]);
    assert!(parts.iter().all(|part| part["request"] == parts[0]["request"] && part["outcome"] == parts[0]["outcome"]));
    assert!(parts.iter().all(|part| part.to_string().len() <= 65_535));
}

#[tokio::test]
async fn what_was_done_is_proven_to_an_auditor_who_has_neither_log_nor_service() {
    let mut t = TestServer::start().await;
    t.key("release", "ecdsa-p256-sha256").await;
    let kept =
        eventually("a first head", async || t.client.audit_head().await.ok().filter(|head| !head.note.is_empty()))
            .await;
    let index = t.client.audit_records(0, Some(1)).await.unwrap().size;
    let sign = Sign { message: Some(Base64(b"m".to_vec())), ..Sign::default() };
    t.client.sign(&name("release"), &sign).await.unwrap();
    // 1. The record of a moment ago: the client waits for the head above it.
    let page = t.client.audit_records(index, None).await.unwrap();
    let at = page.records.iter().position(|record| record["action"] == "Sign").unwrap();
    let index = index + at as u64;
    let proven = t.client.audit_proof(index).await.unwrap();
    let proof = Proof::parse(&proven.proof).unwrap();
    let key = HeadKeys::new([&public_key_from_pem(&kept.public_key).unwrap()]).unwrap();
    proof.verify(Some(&key)).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&proof.record).unwrap(), page.records[at]);
    // 2. Today's log goes on where the head that was kept ends.
    let earlier = Head::parse(&kept.note).unwrap();
    let grown = t.client.audit_consistency(earlier.size()).await.unwrap();
    Consistency::parse(&grown.proof).unwrap().verify(&earlier, Some(&key)).unwrap();
    // 3. As a tiled log: a head, its tile of hashes, its records.
    let note = String::from_utf8(t.client.audit_resource("checkpoint").await.unwrap()).unwrap();
    let head = Head::parse(&note).unwrap();
    assert!(head.is_signed_by(&key) && head.size() < 256, "{note}");
    let hashes = t.client.audit_resource(&format!("tile/0/000.p/{}", head.size())).await.unwrap();
    let bundle = t.client.audit_resource(&format!("tile/entries/000.p/{}", head.size())).await.unwrap();
    let leaves: Vec<_> = entries(&bundle).unwrap().into_iter().map(leaf_hash).collect();
    assert_eq!(leaves.as_flattened(), hashes);
    assert_eq!(signet::audit::merkle::root(&leaves), *head.root());
    // 4. A judge of another house says that the signature is one, over the text that C2SP says.
    if let Some(python) = judges::judge("python") {
        let folder = tempfile::tempdir().unwrap();
        let (file, pem) = (folder.path().join("checkpoint"), folder.path().join("log.pem"));
        std::fs::write(&file, &note).unwrap();
        std::fs::write(&pem, &kept.public_key).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/checkpoint_judge.py");
        let said = std::process::Command::new(python).arg(script).args([file, pem]).output().unwrap();
        let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert_eq!(said.trim(), format!("{} {}", head.origin(), head.size()));
    }
    // 5. What is not there.
    for (path, kind) in [
        ("tile/0/000", Kind::NotFound),
        ("tile/0/1", Kind::NotFound),
        ("tile/0/../../../records", Kind::NotFound),
        ("tile/9/000.p/1", Kind::NotFound),
    ] {
        assert_eq!(t.client.audit_resource(path).await.unwrap_err().kind(), kind, "{path}");
    }
    assert_eq!(t.client.audit_proof(1_000_000).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(t.client.audit_consistency(1_000_000).await.unwrap_err().kind(), Kind::NotFound);
    // 6. After a restart, also where the stored hashes were deleted or changed.
    for hashes in [None, Some([7; 32 * 40])] {
        t.stop().await;
        let stored = t.data().join("audit/tiles-0");
        hashes.map_or_else(|| std::fs::remove_file(&stored), |bytes| std::fs::write(&stored, bytes)).unwrap();
        t.start_again().await.unwrap();
        let again = t.client(Some(t.token())).audit_proof(index).await.unwrap();
        let again = Proof::parse(&again.proof).unwrap();
        again.verify(Some(&key)).unwrap();
        assert_eq!(again.record, proof.record);
    }
    assert!(verify(&t.data().join("audit"), None).unwrap().is_good());
}
