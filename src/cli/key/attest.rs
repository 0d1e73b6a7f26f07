//! `signet key attest`.

use clap::Args;

use super::change::version;
use crate::attestation::{Attestation, Nonce};
use crate::cli::App;
use crate::cli::input::parsed;
use crate::cli::sink::To;
use crate::error::Result;
use crate::types::{KeyName, Version};

/// Write what the device says of a version: that it was made there, and what it may do.
///
/// A file that `signet attest verify` judges offline. Without a nonce it is what was signed at the birth of the version; with one,
/// the device signs anew.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet key attest release --out release.attestation
  signet key attest release --version 3 --nonce 00112233445566778899aabbccddeeff")]
pub(in crate::cli) struct Attest {
    /// The key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// Of this version, instead of the primary one.
    #[arg(long = "version", id = "number", value_name = "N", value_parser = version)]
    version: Option<Version>,
    /// What is to be in it, so that it cannot be an old one: 16 to 64 bytes in hexadecimal digits.
    #[arg(long, value_name = "HEX", value_parser = parsed::<Nonce>)]
    nonce: Option<Nonce>,
    #[command(flatten)]
    to: To,
}

impl Attest {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { name, version, nonce, to } = self;
        to.check()?;
        let said = app.online(async |client| client.attestation(&name, version, nonce.as_ref()).await)?;
        // What is no attestation helps nobody. Who signed it is for a verifier to say, who knows the key.
        Attestation::parse(said.as_bytes())?;
        to.text(app.out, &said)
    }
}
