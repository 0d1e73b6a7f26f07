//! Devices through their front: [`signet::device::Worker`], with this very program as the worker process, a real SoftHSM
//! token or a real software TPM behind it, and a fault module in between where a day is to go bad.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test may end in a panic, and says what it measured"
)]

#[path = "../support/kryoptic.rs"]
mod kryoptic;
#[path = "../support/proof.rs"]
mod proof;
#[path = "../support/skip.rs"]
mod skip;
#[path = "../support/softhsm.rs"]
mod softhsm;
#[cfg(feature = "tpm")]
#[path = "../support/swtpm.rs"]
mod swtpm;

mod away;
mod bench;
mod breaker;
mod contract;
mod damage;
mod faults;
mod flat;
mod front;
mod kills;
mod matrix;
mod quirks;
mod share;
mod strict;
#[cfg(feature = "tpm")]
mod tpm_away;
