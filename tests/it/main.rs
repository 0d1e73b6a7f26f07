//! Signet through the front: a real server on a real device, a real client over TLS.
#![cfg(test)]

#[path = "../support/acme.rs"]
mod acme_client;
#[path = "../support/dns.rs"]
mod dns;
#[path = "../support/golden.rs"]
mod golden;
#[path = "../support/judges.rs"]
mod judges;
#[path = "../support/kryoptic.rs"]
mod kryoptic;
#[path = "../support/pkilint.rs"]
mod pkilint;
#[path = "../support/proof.rs"]
mod proof;
#[path = "../support/skip.rs"]
mod skip;
#[path = "../support/softhsm.rs"]
mod softhsm;
#[path = "../support/swtpm.rs"]
mod swtpm;

mod acme;
mod agent;
mod announcements;
mod archives;
mod attack;
mod attest;
mod audit;
mod backup;
mod bulk;
mod bundle;
mod calls;
mod copies;
mod crash;
mod est;
mod expiry;
mod faults;
mod fencing;
mod gcm;
mod heads;
mod health;
mod issuers;
mod keys;
mod log;
mod mac;
mod matrix;
mod memory;
mod ml_dsa;
mod ml_kem;
mod mutations;
mod notices;
mod otlp;
mod own;
mod pcrs;
mod process;
mod prune;
mod recovery;
mod revocation;
mod rollback;
mod rotation;
mod server;
mod services;
mod shell;
mod sign;
mod sinks;
mod stolen;
mod strict;
mod tokens;
mod tracer;
mod trials;
mod witness;
mod witnessed;
mod wrap;
