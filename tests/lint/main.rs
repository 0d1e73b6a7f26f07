//! The lint: each rule has a sample that breaks it, good certificates break none, and pkilint thinks the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test may stop")]

#[path = "../support/golden.rs"]
mod golden;
#[path = "../support/judges.rs"]
mod judges;
#[path = "../support/pkilint.rs"]
mod pkilint;
#[path = "../support/skip.rs"]
mod skip;

mod der;
mod draft;
mod good;
mod ours;
mod page;
mod panics;
mod rules;
mod samples;
mod second_judge;
