//! Deaths while old records are removed from the log.

use std::path::Path;

use signet::audit::{archive, verify_archived};
use signet::types::Context;
use signet::wire::{Base64, Batch, Unwrap};

use super::mended;
use super::past::{self, Past, Request};
use crate::process::{Installation, eventually};
use crate::server::name;

/// What stands in the configuration of such a service. A batch of large contexts fills a segment.
fn configure(t: &Installation, archive: &Path) {
    let mut text = std::fs::read_to_string(t.config()).unwrap();
    text.push_str(&format!("[audit]\nsegment_bytes = 1048576\n[audit.retention]\narchive = {archive:?}\n"));
    std::fs::write(t.config(), text).unwrap();
}

/// The points on the way, and whether the log begins later then, and with something left to remove.
const WAY: &[(&str, bool, bool)] = &[
    ("admission.before_intent", false, false),
    ("admission.intended", false, false),
    ("prune.before_start", false, false),
    ("prune.started", true, true),
    ("prune.removed:1", true, true),
    ("prune.removed:2", true, false),
    ("prune.done", true, false),
    ("admission.before_close", true, false),
    ("admission.closed", true, false),
];

/// All points of this module, for the register.
pub(super) fn points() -> impl Iterator<Item = &'static str> {
    WAY.iter().map(|(point, ..)| *point)
}

#[tokio::test]
async fn a_log_is_pruned_or_not_and_never_taken_for_another() {
    let past = Past::make(false).await;
    let home = tempfile::tempdir().unwrap();
    configure(&past.installation, home.path());
    let service = past.installation.serve().await;
    let client = past.installation.client(Some(&past.installation.token));
    let context = Context::new([("filler".to_owned(), "x".repeat(4000))].into()).unwrap();
    let item = || Unwrap { ciphertext: Base64(vec![0]), context: context.clone(), danger_allow_compromised: false };
    for _ in 0..2 {
        let batch = Batch { items: (0..1000).map(|_| item()).collect() };
        client.unwrap_batch(&name("data"), &batch).await.unwrap();
    }
    client.whoami().await.unwrap();
    let folder = past.installation.data().join("audit");
    let archived = async || archive(&folder, home.path(), None).ok().filter(|done| done.segments >= 2);
    eventually("two segments are archived", archived).await;
    service.kill().await;
    // Two go.
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut segments: Vec<_> = files.filter(|name| name.ends_with(".jsonl")).collect();
    segments.sort();
    let records = segments[2].trim_start_matches("log-").trim_end_matches(".jsonl").parse().unwrap();
    past::all(WAY.to_vec(), async |case| cut_short(&past, home.path(), records, case).await).await;
}

async fn cut_short(past: &Past, archive: &Path, records: u64, (point, begun, left): (&str, bool, bool)) {
    let t = past.installation.copy();
    configure(&t, archive);
    // 1. The service dies, and the client gets no answer.
    let mut first = t.serve_until(point);
    first.serves().await.unwrap();
    let body = format!(r#"{{"below":{records}}}"#);
    let request = Request { method: "POST".to_owned(), path: "audit/prune".to_owned(), body, if_match: None };
    assert!(request.send(&t, "once").await.is_err(), "an answer in spite of a death at {point}");
    first.dies(point).await;
    t.audit_is_good();
    // 2. It starts again, with a log that begins where it did or where it should, and nothing else to mend.
    let second = t.serve().await;
    let client = t.client(Some(&t.token));
    past.is_there(&t, &client).await;
    let mend: &[&str] = if left { &["were pruned and still there"] } else { &[] };
    mended(&client, mend).await;
    let first = client.audit_records(0, Some(1)).await.unwrap().first;
    assert_eq!(first, if begun { records } else { 0 }, "{point}");
    // 3. The repetition does what is left to do.
    eventually("it is pruned", async || {
        let (status, text) = request.send(&t, "twice").await.unwrap();
        assert!(status == 200 || status == 503, "{status} {text}");
        (client.audit_records(0, Some(1)).await.unwrap().first == records).then_some(())
    })
    .await;
    past::all_keys_work(&client).await;
    second.kill().await;
    t.audit_is_good();
    let report = verify_archived(&t.data().join("audit"), None, Default::default(), Some(archive)).unwrap();
    assert!(report.is_good() && report.gone.is_some_and(|gone| gone.records == records), "{:?}", report.problems);
}
