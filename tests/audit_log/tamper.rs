//! Whoever changes a log is noticed, and the place is named.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::SystemTime;

use signet::audit::{Log, Report, verify};
use signet::error::Kind;

use super::{Bench, record, segments};

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// Edits the lines of a file.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let mut lines: Vec<String> = fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
    change(&mut lines);
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// Spoils a copy of a log of 60 records, 6 heads and several segments, and verifies and opens it.
async fn spoiled(spoil: impl Fn(&Path)) -> (Report, Option<Kind>, String) {
    let bench = Bench::new().small_segments();
    drop(bench.filled(6).await);
    let copy = bench.copy("copy");
    spoil(&copy);
    let report = verify(&copy, Some(&bench.signer.public)).unwrap();
    let mut settings = bench.settings.clone();
    settings.folder = copy;
    match Log::open(settings, Some(&bench.signer.public)) {
        Ok(opened) => {
            let found = opened.log.scrub().await;
            (report, None, found.err().map(|e| e.to_string()).unwrap_or_default())
        }
        Err(e) => (report, Some(e.kind()), e.to_string()),
    }
}

#[tokio::test]
async fn one_flipped_bit_anywhere_is_found_and_placed() {
    let bench = Bench::new().small_segments();
    drop(bench.filled(4).await);
    let copy = bench.copy("copy");
    let mut line = 0;
    for segment in segments(&copy) {
        let bytes = fs::read(&segment).unwrap();
        let first = line;
        for at in (0..bytes.len()).step_by(29).chain([bytes.len() - 1]) {
            line = first + bytes[..at].iter().filter(|byte| **byte == b'\n').count();
            flip(&segment, at as u64);
            let report = verify(&copy, Some(&bench.signer.public)).unwrap();
            flip(&segment, at as u64);
            let place = report.problems.first().unwrap_or_else(|| panic!("{segment:?} byte {at}"));
            // The bracket is the ten records of one head, in the segment where it begins.
            let begin: usize = place.file["log-".len()..24].parse().unwrap();
            let begin = begin + usize::try_from(place.line.unwrap()).unwrap() - 1;
            assert!(begin <= line && line <= begin + 10, "byte {at} of line {line}: {place}");
        }
        line = first + bytes.iter().filter(|byte| **byte == b'\n').count();
    }
    let heads = copy.join("heads");
    for at in 0..fs::metadata(&heads).unwrap().len() {
        flip(&heads, at);
        let report = verify(&copy, Some(&bench.signer.public)).unwrap();
        flip(&heads, at);
        assert!(report.problems.iter().any(|problem| problem.file == "heads"), "byte {at} of heads: {report:?}");
    }
    assert!(verify(&copy, Some(&bench.signer.public)).unwrap().is_good());
}

#[tokio::test]
async fn two_edits_are_two_findings() {
    let (report, ..) = spoiled(|folder| {
        for segment in segments(folder).iter().step_by(7) {
            flip(segment, 100);
        }
    })
    .await;
    let edits = report.problems.iter().filter(|problem| problem.what.contains("was edited")).count();
    assert!(edits >= 2, "{report:#?}");
    assert_eq!(report.records, 60);
}

#[tokio::test]
async fn a_line_that_is_gone_is_found() {
    let (report, opened, message) = spoiled(|folder| edit(&segments(folder)[2], |lines| drop(lines.remove(1)))).await;
    assert_eq!(opened, Some(Kind::Tampered));
    assert!(message.contains("log-"), "{message}");
    assert!(report.problems.iter().any(|problem| problem.what.contains("are missing")), "{report:#?}");
}

#[tokio::test]
async fn a_line_that_was_put_in_is_found() {
    let (report, opened, _) = spoiled(|folder| {
        edit(&segments(folder)[2], |lines| lines.insert(1, serde_json::to_string(&record(99)).unwrap()));
    })
    .await;
    assert_eq!(opened, Some(Kind::Tampered));
    assert!(!report.is_good());
}

#[tokio::test]
async fn lines_that_changed_places_are_found() {
    let (report, opened, scrubbed) = spoiled(|folder| edit(&segments(folder)[3], |lines| lines.swap(0, 1))).await;
    assert_eq!(opened, None, "sizes say nothing");
    assert!(scrubbed.contains("was edited"), "{scrubbed}");
    assert!(report.problems[0].what.contains("was edited, moved"), "{report:#?}");
}

#[tokio::test]
async fn a_line_in_another_spelling_is_named() {
    let (report, ..) = spoiled(|folder| {
        edit(&segments(folder)[3], |lines| {
            lines[1] = lines[1].replace("\"version\":3", "\"version\": 3").replace("builders-sign", "builders-sig");
        });
    })
    .await;
    let named =
        |problem: &signet::audit::Problem| problem.what.contains("as the log writes") && problem.line == Some(2);
    assert!(report.problems.iter().any(named), "{report:#?}");
}

#[tokio::test]
async fn a_log_that_was_cut_short_is_found() {
    let (report, opened, message) = spoiled(|folder| {
        let last = segments(folder).pop().unwrap();
        edit(&last, |lines| drop(lines.pop()));
    })
    .await;
    assert_eq!((opened, report.records), (Some(Kind::Tampered), 59));
    assert!(message.contains("the log ends after 59"), "{message}");
    assert!(report.problems[0].what.contains("signs 60 records, but the log ends after 59"), "{report:#?}");
    // In the middle of a line as well: a signed record was acknowledged, so this is no torn tail.
    let (report, opened, _) = spoiled(|folder| {
        let last = segments(folder).pop().unwrap();
        let file = File::options().write(true).open(&last).unwrap();
        file.set_len(fs::metadata(&last).unwrap().len() - 3).unwrap();
    })
    .await;
    assert_eq!(opened, Some(Kind::Tampered));
    assert!(!report.is_good() && report.unfinished_bytes > 0);
}

#[tokio::test]
async fn a_segment_that_is_gone_is_named() {
    for index in [0, 3, usize::MAX] {
        let (report, opened, message) = spoiled(|folder| {
            let segments = segments(folder);
            fs::remove_file(&segments[index.min(segments.len() - 1)]).unwrap();
        })
        .await;
        assert_eq!(opened, Some(Kind::Tampered));
        assert!(message.contains("log-"), "{message}");
        let problem = &report.problems[0];
        assert!(
            problem.what.contains("are missing before it") || problem.what.contains("but the log ends"),
            "{problem}"
        );
    }
    let (report, opened, _) =
        spoiled(|folder| fs::rename(&segments(folder)[1], folder.join("log-1.jsonl")).unwrap()).await;
    assert_eq!((opened, report.is_good()), (Some(Kind::Tampered), false));
}

#[tokio::test]
async fn heads_that_are_gone_or_foreign_are_found() {
    let (report, opened, _) = spoiled(|folder| fs::remove_file(folder.join("heads")).unwrap()).await;
    assert_eq!((opened, report.problems[0].what.as_str()), (Some(Kind::Tampered), "is missing"));
    // A key of the attacker's own.
    let bench = Bench::new();
    drop(bench.filled(2).await);
    let stranger = super::Signer::new();
    let report = verify(&bench.settings.folder, Some(&stranger.public)).unwrap();
    assert_eq!(report.problems.len(), 2);
    assert!(report.problems[0].what.contains("is not signed by the key"), "{report:#?}");
    let refused = Log::open(bench.settings.clone(), Some(&stranger.public)).unwrap_err();
    assert!(refused.public().contains("not signed by the key of this log"), "{refused}");
    // A log of another instance.
    let mut settings = bench.settings.clone();
    settings.origin = signet::audit::Origin::of_instance("other").unwrap();
    assert_eq!(Log::open(settings, None).unwrap_err().kind(), Kind::Tampered);
}

#[tokio::test]
async fn after_the_last_head_a_torn_line_is_cut_off_and_said() {
    let bench = Bench::new();
    let log = bench.filled(1).await;
    log.append(&record(10)).await.unwrap();
    drop(log);
    let segment = bench.segments().remove(0);
    let whole = fs::read(&segment).unwrap();
    for extra in [&b"{\"time\":\"20"[..], b"{", b"\0\0\0"] {
        fs::write(&segment, [whole.as_slice(), extra].concat()).unwrap();
        let opened = bench.open().unwrap();
        assert_eq!(opened.log.size(), 11);
        let said = format!("{} bytes at log-00000000000000000000.jsonl line 12 were cut off", extra.len());
        assert!(opened.recovered[0].ends_with(&said), "{:?}", opened.recovered);
        drop(opened);
        assert_eq!(fs::read(&segment).unwrap(), whole);
    }
    let heads = fs::read(bench.path("heads")).unwrap();
    fs::write(bench.path("heads"), [heads.as_slice(), b"signet-head 1 2"].concat()).unwrap();
    let opened = bench.open().unwrap();
    assert!(opened.recovered[0].contains("15 bytes of heads were cut off"), "{:?}", opened.recovered);
    assert_eq!(fs::read(bench.path("heads")).unwrap(), heads);
    // A whole line that is no record is not torn.
    drop(opened);
    fs::write(&segment, [whole.as_slice(), b"nonsense\n"].concat()).unwrap();
    let refused = bench.open().unwrap_err();
    assert!(refused.public().contains("log-00000000000000000000.jsonl line 12 is no record"), "{refused}");
}

/// Does something to the files of a running log; then the watch finds it, and from then on nothing is accepted.
async fn watched(spoil: impl Fn(&[std::path::PathBuf], &Path), named: &str) {
    let bench = Bench::new().small_segments();
    let log = bench.filled(2).await;
    log.inspect().await.unwrap();
    spoil(&bench.segments(), &bench.path("heads"));
    let found = log.inspect().await.unwrap_err();
    assert_eq!(found.kind(), Kind::Tampered, "{found}");
    assert!(found.public().contains(named), "{found} does not say {named:?}");
    assert_eq!(log.append(&record(1)).await.unwrap_err().kind(), Kind::Tampered);
    assert_eq!(log.sign_head(&bench.signer).await.unwrap_err().kind(), Kind::Tampered);
    assert_eq!(log.health().unwrap_err().kind(), Kind::Tampered);
}

#[tokio::test]
async fn a_running_log_is_watched() {
    let last = |segments: &[std::path::PathBuf]| segments.last().unwrap().clone();
    watched(|segments, _| flip(&segments[1], 50), "somebody else").await;
    watched(|segments, _| flip(&last(segments), 50), "somebody else").await;
    watched(|segments, _| fs::remove_file(&segments[0]).unwrap(), "log-00000000000000000000.jsonl is gone").await;
    watched(|segments, _| fs::remove_file(last(segments)).unwrap(), "is gone").await;
    watched(|_, heads| flip(heads, 50), "heads was changed").await;
    watched(|_, heads| fs::remove_file(heads).unwrap(), "heads is gone").await;
    watched(|segments, _| File::options().write(true).open(last(segments)).unwrap().set_len(3).unwrap(), "3 bytes")
        .await;
    let append = |segments: &[std::path::PathBuf], _: &Path| {
        OpenOptions::new().append(true).open(last(segments)).unwrap().write_all(b"{}\n").unwrap();
    };
    watched(append, "bytes").await;
    // The rename trick: an equal copy in its place, while the log would go on writing to nowhere.
    let replace = |segments: &[std::path::PathBuf], _: &Path| {
        let (file, copy) = (last(segments), last(segments).with_extension("copy"));
        fs::copy(&file, &copy).unwrap();
        fs::rename(&copy, &file).unwrap();
    };
    watched(replace, "was replaced").await;
    let link = |segments: &[std::path::PathBuf], _: &Path| {
        fs::rename(&segments[0], segments[0].with_extension("aside")).unwrap();
        std::os::unix::fs::symlink(segments[0].with_extension("aside"), &segments[0]).unwrap();
    };
    watched(link, "was replaced").await;
    // An edit whose author puts the time back.
    let backdate = |segments: &[std::path::PathBuf], _: &Path| {
        let file = OpenOptions::new().write(true).open(&segments[0]).unwrap();
        let modified: SystemTime = file.metadata().unwrap().modified().unwrap();
        flip(&segments[0], 50);
        file.set_times(FileTimes::new().set_modified(modified)).unwrap();
    };
    watched(backdate, "touched").await;
    watched(|segments, _| fs::set_permissions(&segments[0], Permissions::from_mode(0o644)).unwrap(), "touched").await;
}

#[tokio::test]
async fn nothing_is_acknowledged_into_a_file_that_was_taken_away() {
    let bench = Bench::new();
    let log = bench.filled(1).await;
    fs::rename(&bench.segments()[0], bench.path("aside")).unwrap();
    let refused = log.append(&record(10)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Tampered);
    assert!(refused.public().contains(&format!("{} is gone", name(Path::new("log-00000000000000000000.jsonl")))));
}

#[tokio::test]
async fn no_head_is_signed_over_records_that_changed_on_disk() {
    let bench = Bench::new();
    let log = bench.filled(1).await;
    log.append(&record(10)).await.unwrap();
    let segment = bench.segments().remove(0);
    flip(&segment, fs::metadata(&segment).unwrap().len() - 20);
    let refused = log.sign_head(&bench.signer).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Tampered);
    assert!(refused.public().contains("from log-00000000000000000000.jsonl line 11 up to record 11"), "{refused}");
    assert_eq!(log.append(&record(11)).await.unwrap_err().kind(), Kind::Tampered);
}
