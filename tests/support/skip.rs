//! A test that cannot run here says so aloud; `make test` fails when one did.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fs::File;
use std::io::Write;

/// Names the file that `make test` looks at when all tests have ended: the runner swallows what a passing test prints.
const SKIPS: &str = "SIGNET_TEST_SKIPS";

/// Notes that a test did not run for want of `what`.
pub(crate) fn skipped(what: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("skipped: {what} ({test})\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    if let Some(path) = std::env::var_os(SKIPS) {
        // One write, so that the lines of tests that run at once do not mix.
        File::options().create(true).append(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
}
