//! Deaths while a receiver outside is told of certificates that end: it is told all the same, and by one id.

use super::past;
use crate::notices::{Receiver, configure, installation};
use crate::process::{Installation, eventually};

/// The points on the way of a notice, and whether the receiver has got it by then.
const TOLD: &[(&str, bool)] =
    &[("notice.before_write", false), ("notice.written", false), ("notice.before_end", true), ("notice.ended", true)];

/// Deaths while a notice is forgotten, whose certificates are over.
const FORGOTTEN: &[&str] = &["notice.before_removal", "notice.removed"];

/// All points of this module, for the register.
pub(super) fn points() -> impl Iterator<Item = &'static str> {
    TOLD.iter().map(|(point, _)| *point).chain(FORGOTTEN.iter().copied())
}

#[tokio::test]
async fn a_receiver_is_told_whatever_moment_the_service_dies_at() {
    let receiver = Receiver::start().await;
    let base = installation(&receiver, false).await;
    past::all(TOLD.to_vec(), async |(point, got)| told(&base, point, got).await).await;
    let base = installation(&receiver, true).await;
    past::all(FORGOTTEN.to_vec(), async |point| forgotten(&base, point).await).await;
}

async fn told(base: &Installation, point: &str, got: bool) {
    let (receiver, t) = (Receiver::start().await, base.copy());
    configure(&t, &receiver);
    t.serve_until(point).dies(point).await;
    assert_eq!(receiver.got().len(), usize::from(got), "{point}");
    let last = t.serve().await;
    // Twice where nobody could write down that it was told; then by one id.
    let count = if point == "notice.before_end" { 2 } else { 1 };
    let all = eventually("the receiver is told", async || Some(receiver.got()).filter(|all| all.len() >= count)).await;
    assert!(all.len() == count && all.iter().all(|one| one.id() == all[0].id() && one.serials().len() == 1), "{all:?}");
    last.kill().await;
    t.audit_is_good();
}

async fn forgotten(base: &Installation, point: &str) {
    let (receiver, t) = (Receiver::start().await, base.copy());
    configure(&t, &receiver);
    t.serve_until(point).dies(point).await;
    let last = t.serve().await;
    let client = t.client(Some(&t.token));
    let forgotten = eventually("the notice is forgotten", async || {
        let records = client.audit_records(0, Some(1000)).await.ok()?.records;
        let own = records.iter().filter(|one| one["principal"] == "system/notice" && one["facts"]["notice"].is_null());
        Some(own.count()).filter(|count| *count > 0)
    })
    .await;
    assert_eq!(forgotten, 1, "{point}");
    // What was over is not told again.
    assert!(receiver.got().is_empty());
    last.kill().await;
    t.audit_is_good();
}
