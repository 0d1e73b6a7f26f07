//! What people must review stands in files of `tests/golden/`. A test compares; `make golden` renews, and the diff is the
//! review.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs;
use std::path::Path;

/// Set by `make golden`: files are written in place of being compared.
const RENEW: &str = "SIGNET_RENEW_GOLDEN";

/// Compares `text` with a golden file, or renews it.
pub(crate) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os(RENEW).is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let (mut expected, mut found) = (golden.lines(), text.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (expected.next(), found.next()) {
            (None, None) => return,
            (expected, found) if expected == found => {}
            (expected, found) => {
                let (expected, found) = (expected.unwrap_or("(the end)"), found.unwrap_or("(the end)"));
                panic!("{name}:{number}: expected\n  {expected}\nfound\n  {found}\nif that is meant: make golden");
            }
        }
    }
}
