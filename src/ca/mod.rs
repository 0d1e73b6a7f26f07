//! Certificates: who may get which, and what becomes of them.

pub mod acme;
pub mod pattern;
pub mod profile;
