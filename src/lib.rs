#![forbid(unsafe_code)]
//! Signet keeps root, wrapping and signing keys inside PKCS#11 HSMs and TPM 2.0s and lets other services use them
//! without ever holding them.
//!
//! The modules, in reading order; each imports only from those above it (`tests/layering.rs` holds the table).

pub mod error;
pub mod types;

pub mod telemetry;

pub mod confine;

pub mod jose;
pub mod outbound;

pub mod bucket;
pub mod otlp;
pub mod validation;
pub mod webhook;
pub mod x509;

pub mod ciphertext;

pub mod attestation;

pub mod wire;

pub mod client;

pub mod device;

pub mod config;

pub mod store;

pub mod policy;

pub mod auth;

pub mod audit;

pub mod ledger;

pub mod admission;

pub mod keyring;

pub mod envelope;
pub mod signing;

pub mod ca;

pub mod service;

pub mod doctor;

pub mod api;

pub mod server;

pub mod agent;
pub mod file;

pub mod bundle;
pub mod witness;

pub mod cli;
