//! Further places of the log: exact copies, whatever happens to them, and of no harm to the log unless it requires them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use signet::audit::{Log, Settings, SinkKind, SinkSettings, verify};
use signet::error::Kind;

use super::{Bench, record, segments};

/// What comes to pass by itself; a thread of the log is at it.
async fn eventually(what: &str, mut look: impl FnMut() -> bool) {
    let began = Instant::now();
    while !look() {
        assert!(began.elapsed() < Duration::from_secs(20), "never came to pass: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A sink in a folder beside the log.
fn sink(bench: &Bench, name: &str, required: bool) -> SinkSettings {
    let folder = bench.home.path().join(name);
    fs::create_dir_all(&folder).unwrap();
    SinkSettings { name: name.parse().unwrap(), kind: SinkKind::Folder(folder), required }
}

fn place(sink: &SinkSettings) -> &Path {
    let SinkKind::Folder(folder) = &sink.kind else { panic!("{} is no folder", sink.name) };
    folder
}

fn with(bench: &mut Bench, sinks: &[&SinkSettings]) {
    bench.settings.sinks = sinks.iter().map(|sink| (*sink).clone()).collect();
}

/// The files that make a log, with what they hold.
fn content(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = segments(folder).into_iter().chain([folder.join("heads")]);
    files.map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap())).collect()
}

fn trouble(log: &Log, at: usize) -> Option<String> {
    log.sinks()[at].trouble.clone()
}

#[tokio::test]
async fn a_sink_is_an_exact_copy_of_records_and_heads() {
    let mut bench = Bench::new().small_segments();
    let (near, far) = (sink(&bench, "near", true), sink(&bench, "far", false));
    with(&mut bench, &[&near, &far]);
    let log = bench.create();
    for n in 0..200 {
        log.append(&record(n)).await.unwrap();
        // What is acknowledged is in the one that is required: not a moment later.
        assert_eq!(verify(place(&near), None).unwrap().records, n + 1);
        if n % 10 == 0 {
            log.sign_head(&bench.signer).await.unwrap();
        }
    }
    log.sign_head(&bench.signer).await.unwrap();
    eventually("both have all", || log.sinks().iter().all(|sink| sink.behind == 0 && sink.trouble.is_none())).await;
    drop(log);
    for sink in [&near, &far] {
        assert_eq!(content(place(sink)), content(&bench.settings.folder));
        let report = verify(place(sink), Some(&bench.signer.public)).unwrap();
        assert!(report.is_good() && report.records == 200 && report.unsigned_tail == 0, "{report:?}");
    }
    // It goes on after a start, and is a log of its own for whoever needs one.
    let log = bench.open().unwrap().log;
    log.append(&record(200)).await.unwrap();
    drop(log);
    let copy = Settings { folder: place(&far).to_owned(), sinks: Vec::new(), ..bench.settings.clone() };
    assert_eq!(Log::open(copy, Some(&bench.signer.public)).unwrap().log.size(), 201);
}

#[tokio::test]
async fn a_sink_that_was_away_gets_what_it_lacks() {
    let mut bench = Bench::new().small_segments();
    let far = sink(&bench, "far", false);
    with(&mut bench, &[&far]);
    let aside = bench.home.path().join("aside");
    fs::remove_dir(place(&far)).unwrap();
    let log = bench.filled(3).await;
    // 1. Not there at all: nothing is made in its place, and the log goes on.
    eventually("it is missed", || trouble(&log, 0).is_some_and(|what| what.contains("sink far"))).await;
    assert!(!place(&far).exists() && log.health().is_ok());
    let alarm = log.news().unwrap();
    assert!(alarm.trouble == Some(Kind::Unavailable) && alarm.what.contains("sink far"), "{alarm:?}");
    log.news_is_recorded();
    // 2. There, and empty.
    fs::create_dir(place(&far)).unwrap();
    let whole = |log: &Log| log.sinks()[0].behind == 0 && log.sinks()[0].trouble.is_none();
    eventually("it gets all", || whole(&log)).await;
    let over = log.news().unwrap();
    assert!(over.trouble.is_none() && over.what.contains("again"), "{over:?}");
    assert!(verify(place(&far), Some(&bench.signer.public)).unwrap().is_good());
    // 3. Taken away while the log grows, and put back; removed; exchanged by an empty one.
    for what in ["back", "removed", "empty"] {
        fs::rename(place(&far), &aside).unwrap();
        for n in 0..20 {
            log.append(&record(n)).await.unwrap();
        }
        eventually("it is missed", || trouble(&log, 0).is_some()).await;
        log.sign_head(&bench.signer).await.unwrap();
        if what == "back" {
            fs::rename(&aside, place(&far)).unwrap();
        } else {
            fs::remove_dir_all(&aside).unwrap();
            fs::create_dir(place(&far)).unwrap();
        }
        eventually("it gets the rest", || whole(&log)).await;
    }
    // 4. Torn by a crash, at any place.
    drop(log);
    for cut in [1, 100, 500] {
        let last = segments(place(&far)).pop().unwrap();
        let bytes = fs::read(&last).unwrap();
        let mut torn = bytes[..bytes.len().saturating_sub(cut)].to_vec();
        torn.extend([0; 7]);
        fs::write(&last, torn).unwrap();
        let log = bench.open().unwrap().log;
        eventually("it gets the rest", || whole(&log)).await;
        drop(log);
        assert_eq!(content(place(&far)), content(&bench.settings.folder), "cut by {cut}");
    }
}

#[tokio::test]
async fn what_is_no_copy_of_the_log_is_left_alone_and_told() {
    let mut bench = Bench::new().small_segments();
    let (near, far) = (sink(&bench, "near", true), sink(&bench, "far", false));
    with(&mut bench, &[&near, &far]);
    drop(bench.filled(3).await);
    let good = content(place(&far));
    let put = |folder: &Path, content: &[(PathBuf, Vec<u8>)]| {
        fs::remove_dir_all(folder).unwrap();
        fs::create_dir(folder).unwrap();
        content.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
    };
    let other = Bench::new().small_segments();
    drop(other.filled(2).await);
    let (mut edited, mut longer, mut holed, mut head) = (good.clone(), good.clone(), good.clone(), good.clone());
    let last = edited.len() - 2;
    edited[last].1[20] ^= 1;
    longer[last].1.extend(b"{\"time\":\"later\"}\n");
    holed.remove(1);
    head.last_mut().unwrap().1[70] ^= 1;
    for (what, wrong) in [
        ("edited", edited),
        ("longer", longer),
        ("holed", holed),
        ("head", head),
        ("another", content(&other.settings.folder)),
    ] {
        // 1. In a place that only follows: the log goes on.
        put(place(&far), &wrong);
        let log = bench.open().unwrap().log;
        eventually("it is told", || trouble(&log, 1).is_some_and(|text| text.contains("no copy of the log"))).await;
        log.append(&record(7)).await.unwrap();
        assert_eq!(log.news().unwrap().trouble, Some(Kind::Tampered), "{what}");
        drop(log);
        let names = |content: &[(PathBuf, Vec<u8>)]| content.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let left: Vec<_> = content(place(&far)).into_iter().filter(|(name, _)| names(&wrong).contains(name)).collect();
        assert_eq!(left, wrong, "{what}");
        put(place(&far), &good);
        // 2. In one that is required: nothing is acknowledged, at once.
        let keep = content(place(&near));
        put(place(&near), &wrong);
        let log = bench.open().unwrap().log;
        let began = Instant::now();
        assert_eq!(log.append(&record(7)).await.unwrap_err().kind(), Kind::Tampered, "{what}");
        assert!(began.elapsed() < Duration::from_secs(1));
        drop(log);
        put(place(&near), &keep);
    }
    let log = bench.open().unwrap().log;
    log.append(&record(8)).await.unwrap();
    eventually("both are whole", || log.sinks().iter().all(|sink| sink.behind == 0 && sink.trouble.is_none())).await;
}

#[tokio::test]
async fn a_copy_that_is_changed_while_it_is_written_is_told_until_it_is_put_back() {
    let mut bench = Bench::new().small_segments();
    let far = sink(&bench, "far", false);
    with(&mut bench, &[&far]);
    let log = bench.filled(3).await;
    eventually("it has all", || log.sinks()[0].behind == 0).await;
    // One that is closed long since, and has the length it had.
    let path = segments(place(&far)).remove(0);
    let good = fs::read(&path).unwrap();
    let mut edited = good.clone();
    edited[20] ^= 1;
    fs::write(&path, &edited).unwrap();
    eventually("it is told", || trouble(&log, 0).is_some_and(|text| text.contains("another than that of the log")))
        .await;
    log.append(&record(7)).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), edited);
    fs::write(&path, &good).unwrap();
    eventually("it is over", || trouble(&log, 0).is_none() && log.sinks()[0].behind == 0).await;
    assert!(verify(place(&far), Some(&bench.signer.public)).unwrap().is_good());
}
