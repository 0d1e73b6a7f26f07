//! What a test found out, in figures: `make prove` makes one page of them.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs::File;
use std::io::Write;

/// Names the file that `make prove` reads.
const PROOFS: &str = "SIGNET_PROOFS";

/// Notes that `count` cases were tried, and what came of all of them. Counts of one `row` are added up.
pub(crate) fn proven(row: &str, count: usize, outcome: &str) {
    println!("{row}: {count}: {outcome}");
    if let Some(path) = std::env::var_os(PROOFS) {
        // One write, so that the lines of tests that run at once do not mix.
        let line = format!("{row}\t{count}\t{outcome}\n");
        File::options().create(true).append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
}
