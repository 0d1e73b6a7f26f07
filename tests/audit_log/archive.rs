//! The archive: compressed, verified as a log is, repeated at any time, whole after any crash, and never another's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use signet::audit::{Archived, archive, verify, verify_with};
use signet::error::Kind;

use super::{Bench, has, record, segments};

/// A log of some segments, the last of which is open, and an empty folder.
async fn made() -> (Bench, PathBuf) {
    let bench = Bench::new().small_segments();
    drop(bench.filled(5).await);
    let to = bench.home.path().join("archive");
    fs::create_dir(&to).unwrap();
    (bench, to)
}

fn run(bench: &Bench, to: &Path) -> Archived {
    archive(&bench.settings.folder, to, Some(&bench.signer.public)).unwrap()
}

/// The files of a folder, with what they hold.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[tokio::test]
async fn an_archive_holds_the_closed_segments_and_verifies_by_itself() {
    let (bench, to) = made().await;
    // 1. All but the segment that is open, a fraction of the bytes.
    let done = run(&bench, &to);
    let plain = segments(&bench.settings.folder);
    assert_eq!((done.segments, done.written), (plain.len() as u64 - 1, plain.len() as u64 - 1));
    assert!(done.packed_bytes * 2 < done.plain_bytes, "{done:?}");
    // 2. By itself, with the key alone.
    let report = verify(&to, Some(&bench.signer.public)).unwrap();
    assert!(report.is_good() && report.records == done.records && report.unsigned_tail < 10, "{report:?}");
    assert_eq!(report.head.unwrap().size(), done.signed);
    // 3. Another's tool unpacks the very bytes.
    if has("gzip") {
        for path in &plain[..plain.len() - 1] {
            let packed = to.join(format!("{}.gz", path.file_name().unwrap().to_str().unwrap()));
            let said = Command::new("gzip").args(["--decompress", "--stdout"]).arg(packed).output().unwrap();
            assert_eq!(said.stdout, fs::read(path).unwrap());
        }
    }
    // 4. Again: nothing is new, and nothing is written. Later: what is new.
    let before = content(&to);
    assert_eq!(run(&bench, &to), Archived { written: 0, ..done });
    assert_eq!(content(&to), before);
    let log = bench.open().unwrap().log;
    for n in 50..80 {
        log.append(&record(n)).await.unwrap();
    }
    log.sign_head(&bench.signer).await.unwrap();
    // Also while the log is written.
    let more = run(&bench, &to);
    assert!(more.written > 0 && more.segments == done.segments + more.written);
    assert!(verify(&to, Some(&bench.signer.public)).unwrap().is_good());
}

#[tokio::test]
async fn receipts_are_held_against_an_archive() {
    let (bench, to) = made().await;
    run(&bench, &to);
    let log = bench.open().unwrap().log;
    log.tend().await.unwrap();
    let mut text = String::new();
    for n in 0..3 {
        text.push_str(&format!("{}\n", log.append_for(&record(n)).await.unwrap()));
    }
    let receipts = || signet::audit::Receipts::parse("receipts.txt", &text).unwrap();
    let missed = verify_with(&to, None, receipts()).unwrap();
    assert!(missed.problems.iter().all(|one| one.file == "receipts.txt") && missed.receipts == 3, "{missed:?}");
    for n in 53..70 {
        log.append(&record(n)).await.unwrap();
    }
    log.sign_head(&bench.signer).await.unwrap();
    run(&bench, &to);
    let held = verify_with(&to, None, receipts()).unwrap();
    assert!(held.is_good() && held.receipts == 3, "{held:?}");
}

#[tokio::test]
async fn an_archive_that_was_altered_is_named_and_never_written_over() {
    let (bench, to) = made().await;
    run(&bench, &to);
    let good = content(&to);
    let second = good.iter().position(|(name, _)| name.to_str().unwrap().starts_with("log-")).unwrap() + 1;
    let packed = |text: &[u8]| {
        let mut child = Command::new("gzip").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text).unwrap();
        child.wait_with_output().unwrap().stdout
    };
    let mut edited = fs::read(segments(&bench.settings.folder).remove(1)).unwrap();
    edited[20] ^= 1;
    let mut flipped = good[second].1.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    let mut wrongs =
        vec![("flipped", Some(flipped)), ("cut", Some(good[second].1[..middle].to_vec())), ("removed", None)];
    if has("gzip") {
        wrongs.push(("edited", Some(packed(&edited))));
    }
    for (what, wrong) in wrongs {
        let path = to.join(&good[second].0);
        match &wrong {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let report = verify(&to, Some(&bench.signer.public)).unwrap();
        // Of one that is missing, the next one says so.
        let named = report.problems.iter().any(|problem| problem.file.ends_with(".jsonl.gz") || what == "edited");
        assert!(!report.is_good() && named, "{what}: {report:?}");
        if wrong.is_some() {
            let before = content(&to);
            let error = archive(&bench.settings.folder, &to, None).unwrap_err();
            assert_eq!(error.kind(), Kind::Tampered, "{what}: {error}");
            assert!(error.public().contains(good[second].0.to_str().unwrap()), "{what}: {error}");
            assert_eq!(content(&to), before, "{what}");
            fs::write(&path, &good[second].1).unwrap();
        } else {
            // What the log still has is brought back.
            assert_eq!(run(&bench, &to).written, 1);
        }
        assert_eq!(content(&to), good);
    }
    // Another log's; a log that does not hold; a folder that is not there, or is the log itself.
    let (other, _) = made().await;
    assert_eq!(archive(&other.settings.folder, &to, None).unwrap_err().kind(), Kind::Tampered);
    let broken = bench.copy("broken");
    let path = segments(&broken).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(archive(&broken, &to, None).unwrap_err().kind(), Kind::Tampered);
    assert_eq!(content(&to), good);
    assert_eq!(archive(&bench.settings.folder, &to.join("nowhere"), None).unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(archive(&bench.settings.folder, &bench.settings.folder, None).unwrap_err().kind(), Kind::Invalid);
}

/// `signet audit archive` under a strace that kills it at a system call.
fn killed(bench: &Bench, to: &Path, fault: &str) -> Output {
    Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=write,fsync,rename", "-e", fault])
        .arg(env!("CARGO_BIN_EXE_signet"))
        .args(["audit", "archive"])
        .args([&bench.settings.folder, to])
        .output()
        .unwrap()
}

#[tokio::test]
async fn an_archive_is_whole_after_a_crash_at_any_call() {
    if !has("strace") {
        return;
    }
    let (bench, to) = made().await;
    run(&bench, &to);
    let whole = content(&to);
    let mut crashes = 0;
    for call in ["write", "fsync", "rename"] {
        for nth in 1.. {
            fs::remove_dir_all(&to).unwrap();
            fs::create_dir(&to).unwrap();
            let ended = killed(&bench, &to, &format!("inject={call}:signal=KILL:when={nth}")).status.success();
            // 1. Whatever was there by then verifies: no head signs what is not there.
            match verify(&to, Some(&bench.signer.public)) {
                Ok(report) => assert!(report.is_good() || report.heads == 0, "{call} {nth}: {report:?}"),
                Err(error) => assert_eq!(error.kind(), Kind::NotFound, "{call} {nth}: {error}"),
            }
            // 2. It goes on, and in the end it is the same.
            run(&bench, &to);
            let left: Vec<_> =
                content(&to).into_iter().filter(|(name, _)| !name.to_str().unwrap().ends_with(".part")).collect();
            assert_eq!(left, whole, "{call} {nth}");
            if ended {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 20, "{crashes}");
    println!("{crashes} crashes");
}
