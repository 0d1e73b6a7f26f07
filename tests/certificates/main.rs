//! Certificates and requests between bytes and types, judged by OpenSSL, rustls-webpki and Python's `cryptography`. The keys are
//! of this test, in software: that devices sign the same bytes is for `tests/it`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test may fail as loudly as it likes"
)]

#[path = "../support/judges.rs"]
mod judges;
#[path = "../support/skip.rs"]
mod skip;

mod chains;
mod hostile;
mod keys;
mod mutated;
mod welcome;
