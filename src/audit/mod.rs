//! The tamper-evident audit log.

pub mod checkpoint;
pub mod merkle;
pub mod record;
