//! The only place that builds: configuration to parts to listeners.

pub mod listen;
