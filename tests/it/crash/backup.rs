//! Deaths while a backup is put together and sent.

use std::fs;

use super::mended;
use super::past::{self, Past, Request};
use crate::backup::download;

/// The points on the way of a backup.
pub(super) const POINTS: &[&str] = &["backup.copied", "backup.archived", "admission.before_close", "admission.closed"];

#[tokio::test]
async fn a_backup_that_is_cut_short_leaves_nothing_and_the_next_one_is_whole() {
    let past = Past::make(false).await;
    past::all(POINTS.to_vec(), async |point| cut_short(&past, point).await).await;
}

async fn cut_short(past: &Past, point: &str) {
    let t = past.installation.copy();
    let scratch = || fs::read_dir(t.data().join("scratch")).unwrap().map(|entry| entry.unwrap().file_name());
    // 1. The service dies, and the client gets no answer.
    let mut first = t.serve_until(point);
    first.serves().await.unwrap();
    let request = Request { method: "POST".to_owned(), path: "backup".to_owned(), body: String::new(), if_match: None };
    assert!(request.send(&t, "once").await.is_err(), "an answer in spite of a death at {point}");
    first.dies(point).await;
    assert_ne!(scratch().count(), 0);
    // What an operator put beside it is none of ours.
    fs::write(t.data().join("scratch/notes"), "").unwrap();
    // 2. It starts again, with nothing to mend and nothing left.
    let second = t.serve().await;
    assert_eq!(scratch().collect::<Vec<_>>(), ["notes"]);
    let client = t.client(Some(&t.token));
    past.is_there(&t, &client).await;
    mended(&client, &[]).await;
    // 3. The next backup can be restored, and leaves as little.
    let archive = t.folder().join("backup.tar");
    fs::write(&archive, download(&client).await).unwrap();
    signet::server::restore(&archive, &t.folder().join("elsewhere")).unwrap();
    assert_eq!(scratch().collect::<Vec<_>>(), ["notes"]);
    past::all_keys_work(&client).await;
    second.kill().await;
    t.audit_is_good();
}
