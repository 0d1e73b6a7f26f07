//! Fault module.
