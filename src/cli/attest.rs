//! `signet attest`: what devices said of keys, judged without them.

use std::path::{Path, PathBuf};

use clap::Args;

use super::input::{parsed, read_bytes, read_text};
use super::key::version;
use super::output::table;
use super::serve::ConfigFile;
use super::{App, noun};
use crate::attestation::{self, Attestation, Expected, Nonce, Report};
use crate::audit::public_key_from_pem;
use crate::error::Result;
use crate::server;
use crate::types::{KeyName, Name, PublicKey, Version};

noun! {
    /// Judge what devices say of keys, offline.
    Attest: Verb {
        Key(Key),
        Verify(Verify),
    }
}

/// Print the public half of a device's attestation key, for a verifier to pin.
///
/// Works on the machine of the service, whether it runs or not. Carry it to the verifier by a way that he trusts: all that an
/// attestation of a PKCS#11 token proves rests on it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet attest key hsm --config signet.toml > attestation.pem")]
struct Key {
    /// The device.
    #[arg(value_parser = parsed::<Name>)]
    device: Name,
    #[command(flatten)]
    config: ConfigFile,
}

impl Key {
    fn run(self, app: &App) -> Result<()> {
        app.out.bytes(server::attestation_key(&self.config.read()?, &self.device)?.to_pem()?.as_bytes())
    }
}

/// Judge an attestation offline: prints what it proves and by whom, and exits with 6 and the first thing that does not hold.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet attest verify release.attestation --attestation-key attestation.pem
  signet attest verify release.attestation --attestation-key attestation.pem --name release --nonce 00112233445566778899aabbccddeeff")]
struct Verify {
    /// The attestation.
    file: PathBuf,
    #[command(flatten)]
    pinned: Pinned,
    /// The nonce that it was asked with.
    #[arg(long, value_name = "HEX", value_parser = parsed::<Nonce>)]
    nonce: Option<Nonce>,
    /// The key that it must be about.
    #[arg(long, value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: Option<KeyName>,
    /// The version that it must be about.
    #[arg(long = "version", id = "number", value_name = "N", value_parser = version)]
    version: Option<Version>,
    /// The public key that it must be about, in PEM.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
}

/// Whose word counts.
#[derive(Args, Debug)]
struct Pinned {
    /// The attestation key of the device, in PEM.
    #[arg(long, value_name = "FILE")]
    attestation_key: PathBuf,
}

impl Pinned {
    fn expected(&self) -> Result<Expected> {
        Ok(Expected::of(pem(&self.attestation_key)?))
    }
}

impl Verify {
    fn run(self, app: &App) -> Result<()> {
        let Self { file, pinned, nonce, name, version, public_key } = self;
        let public_key = public_key.as_deref().map(pem).transpose()?;
        let expected = Expected { nonce, key: name, version, public_key, ..pinned.expected()? };
        let attestation = Attestation::parse(&read_bytes(&file, attestation::MAX_BYTES, false)?)?;
        let report = attestation.verify(&expected)?;
        app.out.answer(&report, |report| shown(report, app.out.terminal))
    }
}

/// A report for people.
fn shown(report: &Report, terminal: bool) -> String {
    let Report { proven, unproven } = report;
    let rows = proven.iter().map(|one| vec![one.about.to_owned(), one.fact.clone(), one.by.to_owned()]);
    let mut text = table(&["ABOUT", "WHAT HOLDS", "WHO SAYS SO"], rows, terminal);
    for what in unproven {
        text.push_str(&format!("\nnot proven: {what}"));
    }
    text
}

fn pem(path: &Path) -> Result<PublicKey> {
    public_key_from_pem(&read_text(path)?).map_err(|e| e.context(path.display().to_string()))
}
