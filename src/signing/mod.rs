//! Signing: what a key may sign, and in which form a signature leaves.

pub mod domain;
pub mod format;
pub mod jwk;
