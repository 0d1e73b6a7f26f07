//! Whoever kept the receipts of their answers finds out what the log lost.

use std::fs;
use std::path::Path;

use signet::audit::{Log, Receipt, Receipts, Report, verify, verify_with};
use signet::error::Kind;

use super::{Bench, record};

/// Appends records from `from` up to `to`, with a head after each tenth, and gives their receipts, one a line.
async fn kept(bench: &Bench, log: &Log, from: u64, to: u64) -> String {
    let mut text = String::new();
    for n in from..to {
        let receipt = log.append_for(&record(n)).await.unwrap();
        assert_eq!((receipt.index, receipt.origin.as_str()), (n, "signet/test"));
        text += &format!("{receipt}\n");
        if n % 10 == 9 {
            log.sign_head(&bench.signer).await.unwrap();
            log.tend().await.unwrap();
        }
    }
    text
}

fn held(bench: &Bench, folder: &Path, receipts: &str) -> Report {
    let receipts = Receipts::parse("receipts.txt", receipts).unwrap();
    verify_with(folder, Some(&bench.signer.public), receipts).unwrap()
}

fn problems(report: &Report) -> Vec<String> {
    report.problems.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_log_that_is_whole_honours_every_receipt() {
    let bench = Bench::new().small_segments();
    let log = bench.create();
    let mut text = kept(&bench, &log, 0, 25).await;
    drop(log);
    // Also what was answered after the last head, over a start, and in any order and number.
    let log = bench.open().unwrap().log;
    text += &kept(&bench, &log, 25, 47).await;
    let lines: Vec<_> = text.lines().rev().chain(text.lines()).collect();
    let report = held(&bench, &bench.settings.folder, &(lines.join("\n") + "\n"));
    assert!(report.is_good(), "{report:#?}");
    assert_eq!((report.receipts, report.records), (94, 47));
    // A line that was being written when the client died is none.
    assert!(held(&bench, &bench.settings.folder, &format!("{text}log=\"signet/te")).is_good());
    assert_eq!(Receipts::parse("r", "nonsense\n").unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test]
async fn a_log_that_was_put_back_is_found_by_receipts_alone() {
    let bench = Bench::new().small_segments();
    let log = bench.create();
    let mut text = kept(&bench, &log, 0, 20).await;
    let older = bench.copy("older");
    text += &kept(&bench, &log, 20, 35).await;
    let report = verify(&older, Some(&bench.signer.public)).unwrap();
    assert!(report.is_good(), "in itself it is whole");
    let found = problems(&held(&bench, &older, &text));
    assert!(
        found.contains(&"receipts.txt line 21: record 20 is not in the log, which ends after 20 records".to_owned()),
        "{found:?}"
    );
    assert!(
        found.contains(&"receipts.txt line 31: the log had 30 records, and now ends after 20".to_owned()),
        "{found:?}"
    );
    assert_eq!(found.len(), 15 + 5, "{found:#?}");
    // Records that nobody has signed yet are cut as silently.
    let tail = bench.copy("tail");
    let last = super::segments(&tail).pop().unwrap();
    let lines = fs::read_to_string(&last).unwrap();
    let cut = lines.trim_end().rfind('\n').map_or("", |end| &lines[..=end]);
    fs::write(&last, cut).unwrap();
    assert!(verify(&tail, Some(&bench.signer.public)).unwrap().is_good());
    assert_eq!(
        problems(&held(&bench, &tail, &text)),
        ["receipts.txt line 35: record 34 is not in the log, which ends after 34 records"]
    );
}

#[tokio::test]
async fn a_history_that_was_rewritten_and_signed_again_is_found() {
    let bench = Bench::new();
    let log = bench.create();
    let text = kept(&bench, &log, 0, 30).await;
    // The forger has the key: one record is another, and every head is signed anew.
    let forged = Bench::new();
    let log = forged.create();
    for n in 0..40 {
        log.append(&record(if n == 12 { 99 } else { n })).await.unwrap();
        if n % 10 == 9 {
            log.sign_head(&bench.signer).await.unwrap();
        }
    }
    drop(log);
    assert!(verify(&forged.settings.folder, Some(&bench.signer.public)).unwrap().is_good());
    let found = problems(&held(&bench, &forged.settings.folder, &text));
    assert!(
        found.contains(&"receipts.txt line 13: record 12 is another one than the one that was answered".to_owned()),
        "{found:?}"
    );
    // Also by whoever asked only later: the root of the head in each later receipt covers what was before.
    let later = text.lines().last().unwrap();
    let found = problems(&held(&bench, &forged.settings.folder, &format!("{later}\n")));
    assert_eq!(
        found,
        ["receipts.txt line 1: the first 20 records are not those that were there when this was answered"]
    );
}

#[tokio::test]
async fn a_receipt_that_was_changed_is_not_honoured() {
    let bench = Bench::new();
    let log = bench.create();
    let text = kept(&bench, &log, 0, 30).await;
    let good: Receipt = text.lines().nth(25).unwrap().parse().unwrap();
    let (size, root) = good.head.unwrap();
    let mut leaf = good.leaf;
    leaf[31] ^= 1;
    let other = signet::audit::Origin::of_instance("other").unwrap();
    let changed = [
        (Receipt { leaf, ..good.clone() }, "is another one"),
        (Receipt { index: 24, ..good.clone() }, "is another one"),
        (Receipt { index: 30, ..good.clone() }, "ends after 30"),
        (Receipt { head: Some((size + 1, root)), ..good.clone() }, "are not those that were there"),
        (Receipt { head: Some((31, root)), ..good.clone() }, "now ends after 30"),
        (Receipt { head: Some((size, leaf)), ..good.clone() }, "are not those that were there"),
        (Receipt { origin: other, ..good.clone() }, "is of signet/other, and this log is signet/test"),
    ];
    for (receipt, what) in changed {
        let found = problems(&held(&bench, &bench.settings.folder, &format!("{good}\n{receipt}\n")));
        assert!(
            found.len() == 1 && found[0].starts_with("receipts.txt line 2: ") && found[0].contains(what),
            "{found:?}"
        );
    }
    // In a log with a gap, what is gone is not honoured and the rest is.
    let bench = Bench::new().small_segments();
    let log = bench.create();
    let text = kept(&bench, &log, 0, 30).await;
    let copy = bench.copy("gap");
    let gone = super::segments(&copy).remove(1);
    let count = fs::read_to_string(&gone).unwrap().lines().count();
    fs::remove_file(gone).unwrap();
    let found = problems(&held(&bench, &copy, &text));
    let lost = found.iter().filter(|problem| problem.ends_with("is not in the log")).count();
    assert_eq!(lost, count, "{found:#?}");
}
