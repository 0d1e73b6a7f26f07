//! What a log does when the process dies, the disk is full, slow or broken.
//!
//! Real faults where a test can have them: `kill -9`, a small tmpfs, and system calls that strace makes fail or hang.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use signet::audit::{self, Log, Origin, Settings, SinkKind, SinkSettings, verify};
use signet::error::Kind;

use super::{Bench, Signer, has, record};

/// Where a child of this test finds its log.
const FOLDER: &str = "SIGNET_TEST_AUDIT_FOLDER";

fn settings(folder: &Path) -> Settings {
    // Where there is such a folder beside it, it is a sink that is required.
    let sink = folder.with_extension("sink");
    let there = sink.exists();
    let sink = SinkSettings { name: "copy".parse().unwrap(), kind: SinkKind::Folder(sink), required: true };
    let sinks = if there { vec![sink] } else { Vec::new() };
    Settings { segment_bytes: 20_000, sinks, ..Settings::new(folder, Origin::of_instance("test").unwrap()) }
}

/// A key that parent and child share through a file beside the folder.
fn shared_signer(folder: &Path) -> Signer {
    let path = folder.with_extension("key");
    if !path.exists() {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap().to_pkcs8v1().unwrap();
        fs::write(&path, key.as_ref()).unwrap();
    }
    Signer::from_pair(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &fs::read(&path).unwrap()).unwrap())
}

/// Runs `test` of this binary in a process of its own, perhaps under another program.
fn child(under: &[&str], test: &str, folder: &Path) -> Child {
    let this = std::env::current_exe().unwrap();
    let mut words = under.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    words.extend([
        this.to_string_lossy().into_owned(),
        format!("faults::{test}"),
        "--exact".into(),
        "--nocapture".into(),
    ]);
    let (program, arguments) = words.split_first().unwrap();
    Command::new(program)
        .args(arguments)
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn folder_of_child() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

// ---- the process dies ----

/// The child: appends with four hands for ever, signs heads beside it, and says what was acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_appends_for_ever() {
    let Some(folder) = folder_of_child() else { return };
    let signer = shared_signer(&folder);
    let log = Arc::new(match folder.exists() {
        true => Log::open(settings(&folder), Some(&signer.public)).unwrap().log,
        false => Log::create(settings(&folder)).unwrap(),
    });
    for who in 0..4u64 {
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            for n in 0u64.. {
                let number = who * 1_000_000 + n;
                let index = log.append(&record(number)).await.unwrap();
                println!("acknowledged {index} {number}");
            }
        });
    }
    loop {
        log.sign_head(&signer).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn after_kill_9_everything_acknowledged_is_there() {
    let (acknowledged, mended) = kill_9(&Bench::new().settings.folder);
    println!("{acknowledged} acknowledged records survived 20 kills; {mended} things were mended");
}

#[test]
fn after_kill_9_everything_acknowledged_is_in_a_required_sink() {
    let bench = Bench::new();
    let folder = &bench.settings.folder;
    let sink = folder.with_extension("sink");
    fs::create_dir(&sink).unwrap();
    let (acknowledged, mended) = kill_9(folder);
    println!("{acknowledged} acknowledged records survived 20 kills in both places; {mended} things were mended");
}

/// Answers how many records were acknowledged in 20 lives, and how many things were mended after them.
fn kill_9(folder: &Path) -> (usize, usize) {
    let signer = shared_signer(folder);
    let mut acknowledged = Vec::new();
    let mut mended = 0;
    for round in 0..20 {
        // 1. Kill it somewhere, after a number of answers that nobody chose.
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let answers = usize::from(u16::from_be_bytes(random)) % 400;
        let mut child = child(&[], "child_appends_for_ever", folder);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut note = |line: String| {
            let answer = line.split("acknowledged ").nth(1)?;
            let (index, number) = answer.split_once(' ')?;
            acknowledged.push((index.parse::<u64>().ok()?, number.parse::<u64>().ok()?));
            Some(())
        };
        let heard = lines.by_ref().filter_map(&mut note).take(answers + 1).count();
        assert_eq!(heard, answers + 1, "the child of round {round} lives until it is killed");
        child.kill().unwrap();
        child.wait().unwrap();
        // The last line may be torn; the answers before it count, even those that arrived after the kill.
        lines.filter_map(&mut note).for_each(drop);

        // 2. It opens, and nothing that was acknowledged is missing or different.
        let opened = Log::open(settings(folder), Some(&signer.public)).unwrap();
        mended += opened.recovered.len();
        let size = opened.log.size();
        drop(opened);
        let report = verify(folder, Some(&signer.public)).unwrap();
        assert!(report.is_good() && report.records == size, "round {round}: {report:?}");
        let sink = folder.with_extension("sink");
        if sink.exists() {
            let report = verify(&sink, Some(&signer.public)).unwrap();
            assert!(report.is_good() && report.records == size, "round {round}: {report:?}");
        }
        let records: Vec<_> = audit::read(folder, 0).unwrap().map(Result::unwrap).collect();
        for (index, number) in &acknowledged {
            let (at, found) = &records[usize::try_from(*index).unwrap()];
            assert_eq!((at, found.request.as_str()), (index, format!("request-{number}").as_str()), "round {round}");
        }
    }
    (acknowledged.len(), mended)
}

// ---- the disk is full ----

/// A file system of 128 KiB.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        super::skip::skipped("no right to mount a tmpfs");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers_by_itself() {
    let bench = Bench::new();
    let disk = bench.home.path().join("disk");
    let Some(_disk) = SmallDisk::mount(&disk) else { return };
    let folder = disk.join("audit");
    let ballast = disk.join("ballast");
    fs::write(&ballast, vec![7; 60_000]).unwrap();
    let log = Log::create(settings(&folder)).unwrap();

    // 1. Until it is full, with heads on the way.
    let mut count = 0;
    let full = loop {
        match log.append(&record(count)).await {
            Ok(index) => assert_eq!(index, count),
            Err(e) => break e,
        }
        count += 1;
        if count % 50 == 0 {
            log.sign_head(&bench.signer).await.unwrap();
        }
    };
    assert_eq!((full.kind(), full.public()), (Kind::Unavailable, "there is no room left for the audit log"));
    assert!(count > 50);

    // 2. It stays refused, acknowledges nothing, and is whole all the time.
    for _ in 0..50 {
        assert_eq!(log.append(&record(7)).await.unwrap_err().kind(), Kind::Unavailable);
        log.inspect().await.unwrap();
    }
    assert_eq!(log.size(), count);
    assert!(verify(&folder, Some(&bench.signer.public)).unwrap().is_good());

    // 3. With room it goes on, without a hand.
    fs::remove_file(&ballast).unwrap();
    for n in count..count + 100 {
        assert_eq!(log.append(&record(n)).await.unwrap(), n);
    }
    log.sign_head(&bench.signer).await.unwrap();
    log.scrub().await.unwrap();
    drop(log);
    let report = verify(&folder, Some(&bench.signer.public)).unwrap();
    assert!(report.is_good() && report.records == count + 100 && report.unfinished_bytes == 0, "{report:?}");
    assert_eq!(Log::open(settings(&folder), Some(&bench.signer.public)).unwrap().recovered, Vec::<String>::new());
}

// ---- the disk is broken or hangs ----

/// The child: appends ten records one after the other, slowly answered ones within 300 ms, and says how each ended.
#[tokio::test]
async fn child_appends_ten() {
    let Some(folder) = folder_of_child() else { return };
    let settings = Settings { deadline: Duration::from_millis(300), queue: 4, ..settings(&folder) };
    let log = Log::create(settings).unwrap();
    for n in 0..10 {
        let start = Instant::now();
        let answer = log.append(&record(n)).await;
        assert!(start.elapsed() < Duration::from_secs(1), "no answer may take longer than the deadline");
        match answer {
            Ok(index) => println!("answer ok {index}"),
            Err(e) => println!("answer {} {e}", e.kind().code()),
        }
    }
    // While it hangs, as many as the queue holds may wait; a disk that is known to hang refuses at once.
    let all: Vec<_> = (0..6).map(|n| log.append(&record(n))).collect();
    for answer in futures_util::future::join_all(all).await {
        println!("then {}", answer.map_or_else(|e| e.kind().code().to_owned(), |_| "ok".into()));
    }
}

/// The answers of such a child, under a strace that spoils the third group's sync.
fn answers_under(fault: &str, folder: &Path) -> Option<(Vec<String>, Vec<String>)> {
    answers_of("child_appends_ten", fault, folder)
}

fn answers_of(test: &str, fault: &str, folder: &Path) -> Option<(Vec<String>, Vec<String>)> {
    if !has("strace") {
        return None;
    }
    let inject = format!("inject=fdatasync:{fault}");
    let mut child =
        child(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject], test, folder);
    let lines: Vec<_> = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(child.wait().unwrap().success(), "{lines:?}");
    let with = |word: &str| lines.iter().filter_map(|line| Some(line.split_once(word)?.1.to_owned())).collect();
    Some((with("answer "), with("then ")))
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_until_it_is_opened_again() {
    let bench = Bench::new();
    let folder = &bench.settings.folder;
    // Once only: a second sync that succeeds would mean nothing.
    let Some((answers, then)) = answers_under("error=EIO:when=3", folder) else { return };
    assert_eq!(answers[..2], ["ok 0", "ok 1"]);
    for answer in &answers[2..] {
        assert_eq!(answer, "unavailable the audit log could not be written");
    }
    assert!(then.iter().all(|answer| answer == "unavailable"), "{then:?}");
    let opened = Log::open(settings(folder), None).unwrap();
    assert!((2..=3).contains(&opened.log.size()), "the record without an answer may be there or not");
    assert_eq!(audit::read(folder, 0).unwrap().count() as u64, opened.log.size());
}

/// The child: appends ten records one after the other, and has the log mended where one is refused.
#[tokio::test]
async fn child_mends() {
    let Some(folder) = folder_of_child() else { return };
    let log = Log::create(settings(&folder)).unwrap();
    for n in 0..10 {
        match log.append(&record(n)).await {
            Ok(index) => println!("answer {n} at {index}"),
            Err(e) => {
                println!("answer {n} refused: {e}");
                log.mend();
                while log.health().is_err() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                println!("answer {}", log.news().unwrap().what);
            }
        }
    }
}

#[test]
fn after_a_failed_sync_a_log_that_is_whole_goes_on_without_a_restart() {
    let bench = Bench::new();
    let folder = &bench.settings.folder;
    let Some((answers, _)) = answers_of("child_mends", "error=EIO:when=3", folder) else { return };
    assert_eq!(answers[..3], ["0 at 0", "1 at 1", "2 refused: the audit log could not be written"]);
    assert!(answers[3].contains("holds all that was acknowledged"), "{answers:?}");
    // The one that was refused may have come to stand there, as after a restart.
    let next = audit::read(folder, 0).unwrap().count() - 7;
    assert!((2..=3).contains(&next));
    for (n, answer) in (3..10).zip(&answers[4..]) {
        assert_eq!(*answer, format!("{n} at {}", n + next - 3));
    }
    assert!(verify(folder, None).unwrap().is_good());
}

#[test]
fn a_write_that_fails_is_not_a_full_disk() {
    let bench = Bench::new();
    let Some((answers, _)) = answers_under("error=ENOSPC:when=1", &bench.settings.folder) else { return };
    assert!(
        answers.iter().all(|answer| answer.contains("could not be written")),
        "a sync without room is a failed sync"
    );
}

#[test]
fn a_disk_that_hangs_is_an_answer_by_the_deadline() {
    let bench = Bench::new();
    let Some((answers, then)) = answers_under("delay_enter=1500000:when=3", &bench.settings.folder) else { return };
    assert_eq!(answers[..2], ["ok 0", "ok 1"]);
    for answer in &answers[2..] {
        assert_eq!(answer, "unavailable the disk of the audit log does not answer");
    }
    assert!(then.iter().all(|answer| answer == "unavailable"), "{then:?}");
    // It was slow, not broken: what was written while nobody waited any more is there.
    let opened = Log::open(settings(&bench.settings.folder), None).unwrap();
    assert!(opened.log.size() >= 3);
}

#[tokio::test]
async fn a_full_queue_is_busy_at_once() {
    let bench = Bench::new();
    let log = Log::create(Settings { queue: 0, ..bench.settings.clone() }).unwrap();
    let refused = log.append(&record(0)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
    assert!(refused.wait().is_some());
}

#[tokio::test]
async fn a_record_beyond_the_limit_is_refused_and_harms_nobody() {
    let bench = Bench::new();
    let log = bench.create();
    let mut large = record(0);
    large.reason = "x".repeat(17 * 1024 * 1024);
    assert_eq!(log.append(&large).await.unwrap_err().kind(), Kind::Limit);
    large.reason = "x".repeat(15 * 1024 * 1024);
    assert_eq!(log.append(&large).await.unwrap(), 0);
    assert_eq!(log.append(&record(1)).await.unwrap(), 1);
    drop(log);
    assert_eq!(bench.verify().records, 2);
}
