//! What a log promises in fair weather.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use signet::audit::checkpoint::public_key_from_pem;
use signet::audit::merkle::{self, leaf_hash};
use signet::audit::{self, HeadSigner, Log, verify};
use signet::error::{Kind, Result};
use signet::types::PublicKey;

use super::{Bench, Signer, has, record};

#[tokio::test]
async fn a_log_is_made_once_and_opened_after() {
    let bench = Bench::new();
    let log = bench.create();
    for n in 0..25 {
        assert_eq!(log.append(&record(n)).await.unwrap(), n);
    }
    let (size, root) = log.root();
    let head = log.sign_head(&bench.signer).await.unwrap();
    assert_eq!((size, &root), (head.size(), head.root()));
    assert_eq!(log.sign_head(&bench.signer).await.unwrap(), head, "nothing came, so no new head");
    log.append(&record(25)).await.unwrap();
    drop(log);

    let opened = bench.open().unwrap();
    assert_eq!(opened.head, Some(head));
    assert_eq!(opened.recovered, Vec::<String>::new());
    assert_eq!(opened.log.append(&record(26)).await.unwrap(), 26);
    opened.log.inspect().await.unwrap();
    opened.log.scrub().await.unwrap();
    opened.log.sign_head(&bench.signer).await.unwrap();
    assert_eq!(Log::create(bench.settings.clone()).unwrap_err().kind(), Kind::Conflict);

    let report = bench.verify();
    assert!(report.is_good(), "{report:?}");
    assert_eq!((report.records, report.heads, report.unsigned_tail), (27, 2, 0));
    assert_eq!(report.root, Some(opened.log.root().1));
}

#[tokio::test]
async fn what_is_read_is_what_was_written_also_while_it_is_written() {
    let bench = Bench::new().small_segments();
    let log = bench.filled(3).await;
    let folder = &bench.settings.folder;
    assert_eq!(audit::count(folder).unwrap(), 30);
    let mut records = audit::read(folder, 17).unwrap();
    for n in 17..30 {
        assert_eq!(records.next().unwrap().unwrap(), (n, record(n)));
    }
    assert!(records.next().is_none());
    log.append(&record(30)).await.unwrap();
    assert_eq!(records.next().unwrap().unwrap(), (30, record(30)), "it follows");
    // An unfinished line is not seen.
    OpenOptions::new().append(true).open(bench.segments().last().unwrap()).unwrap().write_all(b"{\"time").unwrap();
    assert!(records.next().is_none());
    assert_eq!(audit::read(folder, 40).unwrap().count(), 0);
    assert_eq!(audit::count(folder).unwrap(), 31);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_acknowledged_record_of_many_appenders_is_there() {
    let bench = Bench::new();
    let mut settings = bench.settings.clone();
    settings.segment_bytes = 64 * 1024;
    let log = Arc::new(Log::create(settings.clone()).unwrap());
    let done = Arc::new(AtomicBool::new(false));

    // The watch runs beside it all the time, and so do the heads: neither may see a ghost.
    let watch = tokio::spawn({
        let (log, done) = (Arc::clone(&log), Arc::clone(&done));
        async move {
            while !done.load(Ordering::Relaxed) {
                log.inspect().await.unwrap();
                tokio::task::yield_now().await;
            }
        }
    });
    let appenders: Vec<_> = (0..32u64)
        .map(|who| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for n in 0..100 {
                    let number = who * 1000 + n;
                    mine.push((log.append(&record(number)).await.unwrap(), number));
                }
                mine
            })
        })
        .collect();
    while log.size() < 3000 {
        log.sign_head(&bench.signer).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut all = Vec::new();
    for appender in appenders {
        all.extend(appender.await.unwrap());
    }
    done.store(true, Ordering::Relaxed);
    watch.await.unwrap();
    log.scrub().await.unwrap();
    log.sign_head(&bench.signer).await.unwrap();
    drop(log);

    assert!(bench.segments().len() > 3);
    let report = bench.verify();
    assert!(report.is_good(), "{report:?}");
    assert_eq!(report.records, 3200);
    let opened = Log::open(settings, Some(&bench.signer.public)).unwrap();
    assert_eq!(opened.log.size(), 3200);
    all.sort_unstable();
    let mut records = audit::read(&bench.settings.folder, 0).unwrap();
    for (index, number) in all {
        assert_eq!(records.next().unwrap().unwrap(), (index, record(number)));
    }
}

#[tokio::test]
async fn a_second_opener_is_refused_with_the_reason() {
    let bench = Bench::new();
    let log = bench.create();
    let refused = bench.open().unwrap_err();
    assert_eq!(refused.kind(), Kind::Conflict);
    assert!(refused.public().contains(&format!("in use by process {}", std::process::id())), "{refused}");
    drop(log);
    bench.open().unwrap();
}

#[tokio::test]
async fn a_log_that_is_gone_is_not_made_again() {
    let bench = Bench::new();
    for _ in 0..2 {
        let gone = bench.open().unwrap_err();
        assert_eq!(gone.kind(), Kind::Tampered);
        assert!(gone.public().contains("the audit log is gone"), "{gone}");
        fs::create_dir_all(&bench.settings.folder).unwrap();
    }
    assert_eq!(fs::read_dir(&bench.settings.folder).unwrap().count(), 0, "a refusal leaves nothing behind");
    assert_eq!(verify(&bench.settings.folder, None).unwrap_err().kind(), Kind::NotFound);
    // A creation that was interrupted may be repeated; a folder with something in it may not be used.
    fs::write(bench.path("heads"), "").unwrap();
    drop(bench.create());
    let other = Bench::new();
    fs::create_dir_all(&other.settings.folder).unwrap();
    fs::write(other.path("notes.txt"), "mine").unwrap();
    assert_eq!(Log::create(other.settings.clone()).unwrap_err().kind(), Kind::Conflict);
}

#[tokio::test]
async fn proofs_from_the_stored_lines_verify() {
    let bench = Bench::new().small_segments();
    let log = bench.create();
    let mut heads = Vec::new();
    for n in 0..40 {
        log.append(&record(n)).await.unwrap();
        if n % 13 == 12 {
            heads.push(log.sign_head(&bench.signer).await.unwrap());
        }
    }
    let [old, .., new] = heads.as_slice() else { panic!("two heads") };
    let leaves = audit::leaves(&bench.settings.folder, new.size()).unwrap();
    let line = serde_json::to_vec(&record(7)).unwrap();
    let proof = merkle::inclusion_proof(leaves.as_slice(), new.size(), 7).unwrap();
    assert!(merkle::verify_inclusion(&leaf_hash(&line), 7, new.size(), &proof, new.root()));
    let proof = merkle::consistency_proof(leaves.as_slice(), old.size(), new.size()).unwrap();
    assert!(merkle::verify_consistency(old.size(), old.root(), new.size(), new.root(), &proof));
    assert_eq!(audit::leaves(&bench.settings.folder, 41).unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn openssl_agrees_with_every_head() {
    if !has("openssl") {
        return;
    }
    let bench = Bench::new();
    drop(bench.filled(3).await);
    let pem = bench.signer.public.to_pem().unwrap();
    assert_eq!(public_key_from_pem(&pem).unwrap(), bench.signer.public);
    fs::write(bench.path("../key.pem"), pem).unwrap();
    // The notes are cut out of the file with a text tool's eyes only.
    let heads = fs::read_to_string(bench.path("heads")).unwrap();
    let notes: Vec<&str> =
        heads.split("signet-head 1 ").skip(1).map(|entry| entry.split_once('\n').unwrap().1).collect();
    assert_eq!(notes.len(), 3);
    for note in notes {
        let (text, signature) = note.split_once("\n\n").unwrap();
        let base64 = signature.trim_end().rsplit(' ').next().unwrap();
        let signature = base64::engine::general_purpose::STANDARD.decode(base64).unwrap();
        fs::write(bench.path("../text"), format!("{text}\n")).unwrap();
        fs::write(bench.path("../signature"), &signature[4..]).unwrap();
        let verdict = Command::new("openssl")
            .args(["dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "text"])
            .current_dir(bench.path(".."))
            .output()
            .unwrap();
        assert!(verdict.status.success(), "{verdict:?}");
    }
}

#[test]
fn only_keys_of_the_right_kind_are_read() {
    let ed25519 = PublicKey::ed25519(&[7; 32]).unwrap().to_pem().unwrap();
    for pem in ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", &ed25519] {
        assert_eq!(public_key_from_pem(pem).unwrap_err().kind(), Kind::Invalid);
    }
}

/// A device that signs with another key than it shows.
struct Liar(Signer, Signer);

impl HeadSigner for Liar {
    fn sign<'a>(&'a self, note: &'a [u8]) -> Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send + 'a>> {
        self.0.sign(note)
    }
    fn public_key(&self) -> &PublicKey {
        &self.1.public
    }
}

#[tokio::test]
async fn a_head_whose_signature_does_not_verify_is_not_kept() {
    let bench = Bench::new();
    let log = bench.create();
    log.append(&record(0)).await.unwrap();
    let refused = log.sign_head(&Liar(Signer::new(), Signer::new())).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Internal);
    assert_eq!((log.last_head(), fs::metadata(bench.path("heads")).unwrap().len()), (None, 0));
    log.sign_head(&bench.signer).await.unwrap();
    assert!(bench.verify().is_good());
}
