//! What a test found out, in figures: `make prove` collects them into one page.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs::File;
use std::io::Write;

/// Names the file that `make prove` makes its page of.
const PROOFS: &str = "SIGNET_PROOFS";

/// Notes a figure: which row of the page, and what was found.
pub(crate) fn proven(row: &str, found: &str) {
    println!("{row}: {found}");
    if let Some(path) = std::env::var_os(PROOFS) {
        // One write, so that the lines of tests that run at once do not mix.
        let line = format!("{row}\t{found}\n");
        File::options().create(true).append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
}
