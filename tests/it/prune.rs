//! Old records go from the log of a service, through the front: what its archive holds, and nothing that something keeps.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use signet::audit::checkpoint::{Head, HeadKeys, public_keys_from_pem};
use signet::audit::proof::{Consistency, Proof};
use signet::audit::{Archived, Receipts, archive, verify, verify_archived};
use signet::config::{Archive, Config, Retention, Sink, SinkKind};
use signet::error::Kind;
use signet::server::restore;
use signet::types::PublicKey;
use signet::wire::{CreateToken, PruneAudit};

use crate::backup::download;
use crate::process::eventually;
use crate::server::{Devices, PROGRAM, TestServer};
use crate::witnessed::{followed, watched};

/// The log is in small segments, of some twenty records.
const SEGMENT: u64 = 8192;

/// What makes the log of a service one that can be pruned.
pub(crate) fn small(config: &mut Config, archive: &Path) {
    std::fs::create_dir_all(archive).unwrap();
    config.segment_bytes = SEGMENT;
    config.retention = Some(Retention { archive: Archive::Folder(archive.to_owned()), keep: None, automatic: false });
}

/// A service, and the folder of its archive.
pub(crate) async fn server() -> (TestServer, tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let archive = home.path().join("archive");
    let t = TestServer::configured(Devices::SoftHsm, |config| small(config, &archive)).await;
    t.key("release", "ecdsa-p256-sha256").await;
    (t, home, archive)
}

fn folder(t: &TestServer) -> PathBuf {
    t.data().join("audit")
}

/// A hundred records more, and what of them can be archived.
pub(crate) async fn grow(t: &TestServer, to: &Path) -> Archived {
    for _ in 0..100 {
        t.client.status().await.unwrap();
    }
    let size = t.client.audit_records(0, Some(1)).await.unwrap().size;
    signed(t, size).await;
    archive(&folder(t), to, None).unwrap()
}

/// Waits for a head over so many records.
async fn signed(t: &TestServer, size: u64) -> Head {
    eventually("a head", async || {
        let head = Head::parse(&t.client.audit_head().await.ok()?.note).ok()?;
        (head.size() >= size).then_some(head)
    })
    .await
}

/// All that is not asked to stay goes.
pub(crate) fn all() -> PruneAudit {
    PruneAudit { below: Some(u64::MAX), ..PruneAudit::default() }
}

async fn log_keys(t: &TestServer) -> Vec<PublicKey> {
    public_keys_from_pem(&t.client.audit_head().await.unwrap().public_key).unwrap()
}

/// The log holds, by its hashes and by its archive.
fn whole(t: &TestServer, archive: &Path, keys: &[PublicKey]) {
    for archive in [None, Some(archive)] {
        let report = verify_archived(&folder(t), keys, Receipts::default(), archive).unwrap();
        assert!(report.is_good() && report.gone.is_some(), "{report:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_records_go_and_all_that_vouches_for_them_stays() {
    let (mut t, home, archive) = server().await;
    let keys = log_keys(&t).await;
    let head_keys = HeadKeys::new(&keys).unwrap();
    let early = signed(&t, 1).await;
    let done = grow(&t, &archive).await;
    assert!(done.segments >= 2, "{done:?}");

    // 1. A dry run says what would go and what keeps the rest; by the command line as well, which asks for more than that.
    let asked = PruneAudit { dry_run: true, ..all() };
    let plan = t.client.audit_prune(&asked).await.unwrap();
    assert!(!plan.done && plan.first == 0 && plan.segments == done.segments, "{plan:?}");
    assert_eq!((plan.below, plan.limits["archive"]), (done.records, done.records));
    let (stdout, stderr) = typed(&t, "signet audit prune --below 100000").await;
    assert!(stdout.contains("would remove records 0 to") && stderr.contains("add --yes"), "{stdout}{stderr}");
    assert!(verify(&folder(&t), &keys).unwrap().gone.is_none());

    // 2. It goes, is recorded, and the head above that record is what the beginning of the log stands on.
    let pruned = t.client.audit_prune(&all()).await.unwrap();
    assert!(pruned.done && pruned.below == done.records && !pruned.more, "{pruned:?}");
    let page = t.client.audit_records(0, Some(1000)).await.unwrap();
    assert_eq!(page.first, pruned.below);
    let acts: Vec<_> = page.records.iter().filter(|record| record["action"] == "PruneAudit").collect();
    let of = |phase: &str| acts.iter().filter(|record| record["phase"] == phase).collect::<Vec<_>>();
    assert_eq!((of("intent").len(), of("done").len()), (1, 3));
    assert_eq!(of("intent")[0]["facts"]["below"], pruned.below.to_string());
    assert_eq!(of("intent")[0]["principal"], "identity/administrator");
    assert_eq!(of("done")[2]["facts"]["segments"], pruned.segments.to_string());
    whole(&t, &archive, &keys);

    // 3. Proofs of what stays, from a head of what is gone; and a plain word about what is gone.
    let grown = t.client.audit_consistency(early.size()).await.unwrap();
    Consistency::parse(&grown.proof).unwrap().verify(&early, Some(&head_keys)).unwrap();
    let proof = t.client.audit_proof(pruned.below).await.unwrap();
    Proof::parse(&proof.proof).unwrap().verify(Some(&head_keys)).unwrap();
    let error = t.client.audit_proof(pruned.below - 1).await.unwrap_err();
    assert!(error.kind() == Kind::NotFound && error.public().contains("was pruned"), "{error}");
    // Nothing more goes.
    assert_eq!(t.client.audit_prune(&all()).await.unwrap().segments, 0);

    // 4. After a restart, and again from the command line, step by step.
    t.restart().await;
    assert_eq!(t.client.status().await.unwrap().problems, [""; 0]);
    // More than one act removes.
    while grow(&t, &archive).await.segments < 18 {}
    let (stdout, _) = typed(&t, "signet audit prune --keep 0s --yes").await;
    assert!(stdout.matches("removed records").count() >= 2, "{stdout}");
    whole(&t, &archive, &keys);
    let later = t.client.audit_records(0, Some(1)).await.unwrap().first;
    assert!(later > pruned.below);

    // 5. A backup holds the hashes of what is gone; what is restored from it starts, proves and is whole.
    let backup = home.path().join("backup.tar");
    std::fs::write(&backup, download(&t.client).await).unwrap();
    t.stop().await;
    let elsewhere = home.path().join("elsewhere");
    restore(&backup, &elsewhere).unwrap();
    t.config.data = elsewhere;
    t.accept_rollback().await.unwrap();
    t.renew_administrator().await;
    whole(&t, &archive, &keys);
    let size = t.client.audit_records(0, Some(1)).await.unwrap().size;
    signed(&t, size).await;
    let grown = eventually("hashes", async || t.client.audit_consistency(early.size()).await.ok()).await;
    Consistency::parse(&grown.proof).unwrap().verify(&early, Some(&head_keys)).unwrap();
    t.stop().await;
}

/// Runs a command that has to succeed: what it writes to both.
async fn typed(t: &TestServer, line: &str) -> (String, String) {
    let mut command = tokio::process::Command::new(PROGRAM);
    command.args(line.split_whitespace().skip(1)).stdin(Stdio::null()).env("SIGNET_TOKEN", t.token());
    command.env("SIGNET_SERVER", format!("https://{}", t.server().address()));
    let output = command.env("SIGNET_CA", t.server().own_authority().unwrap()).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{line}: {stdout}{stderr}");
    (stdout, stderr)
}

#[tokio::test]
async fn nobody_prunes_what_the_operator_does_not_keep() {
    // 1. Without an archive in the configuration nothing goes, whoever asks.
    let mut t = TestServer::start().await;
    let error = t.client.audit_prune(&all()).await.unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.mend().unwrap().contains("audit.retention"), "{error}");
    t.stop().await;
    let home = tempfile::tempdir().unwrap();
    let (archive, copy) = (home.path().join("archive"), home.path().join("copy"));
    small(&mut t.config, &archive);
    t.start_again().await.unwrap();
    // 2. Who may not is refused.
    let body = CreateToken { identity: "somebody".parse().unwrap(), groups: vec![], ttl: None, uses: None };
    let token = t.client.create_token(&body).await.unwrap().token.unwrap().0.clone();
    assert_eq!(t.client(Some(&token)).audit_prune(&all()).await.unwrap_err().kind(), Kind::Forbidden);
    // 3. Where the archive is away, altered or behind.
    let done = grow(&t, &archive).await;
    let aside = home.path().join("aside");
    std::fs::rename(&archive, &aside).unwrap();
    assert_eq!(t.impatient_client().audit_prune(&all()).await.unwrap_err().kind(), Kind::Unavailable);
    std::fs::rename(&aside, &archive).unwrap();
    let piece = archive.join(format!("log-{:020}.jsonl.gz", 0));
    let kept = std::fs::read(&piece).unwrap();
    std::fs::write(&piece, &kept[..kept.len() - 9]).unwrap();
    assert_eq!(t.client.audit_prune(&all()).await.unwrap_err().kind(), Kind::Tampered);
    std::fs::write(&piece, kept).unwrap();
    // 4. What is younger than the configuration says, whatever is asked for.
    t.stop().await;
    t.config.retention.as_mut().unwrap().keep = Some("1d".parse().unwrap());
    t.start_again().await.unwrap();
    let young = PruneAudit { keep: Some("0s".parse().unwrap()), ..PruneAudit::default() };
    assert_eq!(t.client.audit_prune(&young).await.unwrap().limits["age"], 0);
    t.clock.advance(jiff::SignedDuration::from_hours(25));
    // 5. What a sink lacks.
    t.stop().await;
    std::fs::create_dir(&copy).unwrap();
    t.config.sinks = vec![Sink { name: "nas".parse().unwrap(), kind: SinkKind::Folder(copy.clone()), required: false }];
    t.start_again().await.unwrap();
    let sink = async || Some(t.client.status().await.unwrap().audit_sinks.remove(0)).filter(|sink| sink.behind < 3);
    eventually("the copy is whole", sink).await;
    std::fs::remove_dir_all(&copy).unwrap();
    eventually("it is missed", async || t.client.status().await.unwrap().audit_sinks.remove(0).problem).await;
    let plan = t.client.audit_prune(&young).await.unwrap();
    assert!(plan.below <= plan.limits["sink nas"], "{plan:?}");
    // 6. The archive that is there at the end is what everything else is held against.
    t.stop().await;
    t.config.sinks.clear();
    t.start_again().await.unwrap();
    let left = t.client.audit_prune(&young).await.unwrap();
    assert!(left.limits["archive"] == done.records && left.below <= done.records, "{left:?}");
    whole(&t, &archive, &log_keys(&t).await);
    t.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_goes_that_no_witness_cosigned() {
    let (mut t, _place, witness) = watched(false).await;
    t.stop().await;
    let home = tempfile::tempdir().unwrap();
    let archive = home.path().join("archive");
    small(&mut t.config, &archive);
    t.start_again().await.unwrap();
    let done = grow(&t, &archive).await;
    followed(&t).await;
    // 1. What it cosigned goes.
    let first = PruneAudit { below: Some(done.records / 2), ..PruneAudit::default() };
    let pruned = t.client.audit_prune(&first).await.unwrap();
    assert!(pruned.done && pruned.limits["witness witness.example/w1"] >= pruned.below, "{pruned:?}");
    // 2. What came while it was away stays.
    witness.stop().await.unwrap();
    grow(&t, &archive).await;
    grow(&t, &archive).await;
    let plan = t.client.audit_prune(&all()).await.unwrap();
    let cosigned = plan.limits["witness witness.example/w1"];
    assert!(plan.below <= cosigned && cosigned < plan.limits["archive"], "{plan:?}");
    whole(&t, &archive, &log_keys(&t).await);
    // 3. What it cosigned of what is gone is judged by the hashes that stayed, and so is the service at its start.
    t.restart().await;
    t.stop().await;
}
