//! Foreign programs that judge what we make: Python tools that `tests/judges/install` puts into `target/judges`.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};

use crate::skip::skipped;

/// Finds a program of the judges, such as `python` or `certbot`; or says that the test is skipped for want of it.
pub(crate) fn judge(program: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/judges/bin").join(program);
    if path.exists() {
        return Some(path);
    }
    skipped(&format!("no {program} in target/judges; tests/judges/install puts it there"));
    None
}
