//! The audit log, read through the front.

use signet::types::Context;
use signet::wire::{Base64, Batch, Unwrap};

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
