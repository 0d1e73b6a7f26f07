//! The trace: a line per call.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;

use crate::report;

/// Appends `function outcome`, in one `write`.
pub(crate) fn line(function: &str, outcome: &str) {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let Some(mut file) = FILE.get_or_init(open).as_ref() else { return };
    if let Err(error) = file.write_all(format!("{function} {outcome}\n").as_bytes()) {
        report(&format!("the trace: {error}"));
    }
}

fn open() -> Option<File> {
    let path = std::env::var_os("SIGNET_FAULT_TRACE")?;
    match OpenOptions::new().append(true).create(true).open(&path) {
        Ok(file) => Some(file),
        Err(error) => {
            // A test that counts calls must not count an empty file.
            report(&format!("{}: {error}", path.display()));
            std::process::abort()
        }
    }
}
