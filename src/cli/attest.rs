//! `signet attest`: what devices said of keys, judged without them.

use std::path::{Path, PathBuf};

use clap::Args;

use der::pem::{LineEnding, decode_vec, encode_string};

use super::input::{parsed, read_bytes, read_text};
use super::key::version;
use super::output::{json, note, table};
use super::serve::ConfigFile;
use super::sign::artifact;
use super::sink::{self, Access, To};
use super::{App, noun, service_runtime};
use crate::attestation::endorsement::{self, Kept, Trust};
use crate::attestation::{self, Attestation, Evidence, Expected, Nonce, Report};
use crate::audit::{HeadKeys, public_key_from_pem, public_keys_from_pem};
use crate::bundle::{self, Bundle};
use crate::error::{Error, Kind, Result};
use crate::server::{self, Options};
use crate::types::{Clock, KeyName, Name, PublicKey, Version};

noun! {
    /// Judge what devices say of keys, offline.
    Attest: Verb {
        Key(Key),
        Verify(Verify),
        VerifyBundle(VerifyBundle),
        Endorsement(Endorsement),
        Challenge(Challenge),
        Answer(Answer),
        Accept(Accept),
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

/// Judge a bundle of `signet sign --bundle` offline: the artifact, its signature, the attestation of the key and the record in the log.
///
/// Exits with 6 and the first thing that does not hold.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  signet attest verify-bundle app.tar --bundle app.tar.bundle --attestation-key attestation.pem --log-key log.pem")]
struct VerifyBundle {
    /// The artifact.
    file: PathBuf,
    /// The bundle.
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    #[command(flatten)]
    pinned: Pinned,
    /// The keys of the audit log, in PEM, as `signet audit head --public-key` prints it.
    #[arg(long, value_name = "FILE")]
    log_key: PathBuf,
    /// The key that must have signed.
    #[arg(long, value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: Option<KeyName>,
}

impl VerifyBundle {
    fn run(self, app: &App) -> Result<()> {
        let Self { file, bundle, pinned, log_key, name } = self;
        let expected = Expected { key: name, ..pinned.expected()? };
        let bundle = Bundle::parse(&read_bytes(&bundle, bundle::MAX_BYTES, false)?)?;
        let log = public_keys_from_pem(&read_text(&log_key)?).map_err(|e| e.context(log_key.display().to_string()))?;
        let report = bundle.verify(&artifact(&file, bundle.algorithm())?, &expected, &HeadKeys::new(&log)?)?;
        app.out.answer(&report, |report| shown(report, app.out.terminal))
    }
}

/// Whose word counts.
#[derive(Args, Debug)]
struct Pinned {
    /// The attestation key of the device, in PEM.
    #[arg(long, value_name = "FILE", required_unless_present = "trust")]
    attestation_key: Option<PathBuf>,
    /// What `signet attest accept` wrote: the attestation key, and that it is in a TPM.
    #[arg(long, value_name = "FILE", conflicts_with = "attestation_key")]
    trust: Option<PathBuf>,
}

impl Pinned {
    fn expected(&self) -> Result<Expected> {
        let Some(trust) = &self.trust else {
            let key = self.attestation_key.as_deref().ok_or_else(|| Error::internal("neither key nor trust"))?;
            return Ok(Expected::of(pem(key)?));
        };
        let (key, name) = Trust::parse(&small(trust)?)?.attestation_key()?;
        Ok(Expected { tpm_name: Some(name), ..Expected::of(key) })
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

/// Write the certificate of a TPM's endorsement key, in PEM.
///
/// Works on the machine of the service, which must not be running: a TPM does one thing at a time.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet attest endorsement tpm --config signet.toml --out ek.pem")]
struct Endorsement {
    /// The device.
    #[arg(value_parser = parsed::<Name>)]
    device: Name,
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    to: To,
}

impl Endorsement {
    fn run(self, app: &App) -> Result<()> {
        let Self { device, config, to } = self;
        to.check()?;
        let der = service_runtime(server::endorsement(&config.read()?, &Options::new()?, &device))?;
        to.text(
            app.out,
            &encode_string("CERTIFICATE", LineEnding::LF, &der).map_err(|e| Error::internal(format!("pem: {e}")))?,
        )
    }
}

/// Challenge a TPM to prove that an attestation key is in it.
///
/// For the verifier, offline: the chain of the endorsement certificate must lead to a root that its maker published. The challenge
/// goes to the service, the secret stays here.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  signet attest challenge release.attestation --endorsement ek.pem --roots maker.pem --secret challenge.secret --out challenge.json")]
struct Challenge {
    /// Any attestation of the TPM: its attestation key is asked about.
    file: PathBuf,
    /// The certificate of the endorsement key, and below it those between it and a root, in PEM.
    #[arg(long, value_name = "FILE")]
    endorsement: PathBuf,
    /// The roots of makers, in PEM.
    #[arg(long, value_name = "FILE")]
    roots: PathBuf,
    /// Where the secret is kept: a new file.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    #[command(flatten)]
    to: To,
}

impl Challenge {
    fn run(self, app: &App) -> Result<()> {
        let Self { file, endorsement, roots, secret, to } = self;
        to.check()?;
        let attestation = Attestation::parse(&read_bytes(&file, attestation::MAX_BYTES, false)?)?;
        let Evidence::Tpm(certified) = &attestation.evidence else {
            return Err(Error::new(Kind::Unsupported, "the attestation is a token's, which has no endorsement key")
                .hint("pin its attestation key: `signet attest key` prints it"));
        };
        let (chain, roots) = (certificates(&endorsement)?, certificates(&roots)?);
        let none = || Error::new(Kind::Invalid, format!("{} holds no certificate", endorsement.display()));
        let (leaf, between) = chain.split_first().ok_or_else(none)?;
        let endorsement = endorsement::Endorsement::verify(leaf, between, &roots, Clock::System.now())?;
        let (challenge, kept) = endorsement::Challenge::new(&endorsement, &certified.signer.0)?;
        sink::write(&secret, &json(&kept, false)?, Access::Owner, to.force())?;
        note(format!(
            "the endorsement certificate {} leads to {}",
            hex::encode(endorsement.fingerprint()),
            endorsement.root()
        ));
        to.body(app.out, &challenge)
    }
}

/// Have a TPM answer a challenge.
///
/// Works on the machine of the service, which must not be running.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet attest answer challenge.json tpm --config signet.toml --out answer.json")]
struct Answer {
    /// The challenge.
    challenge: PathBuf,
    /// The device.
    #[arg(value_parser = parsed::<Name>)]
    device: Name,
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    to: To,
}

impl Answer {
    fn run(self, app: &App) -> Result<()> {
        let Self { challenge, device, config, to } = self;
        to.check()?;
        let challenge = endorsement::Challenge::parse(&small(&challenge)?)?;
        let answered = service_runtime(server::answer(&config.read()?, &Options::new()?, &device, &challenge))?;
        to.body(app.out, &answered)
    }
}

/// Compare the answer of a TPM with the secret of the challenge, and write what `signet attest verify --trust` takes.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet attest accept answer.json --secret challenge.secret --out tpm.trust")]
struct Accept {
    /// The answer.
    answer: PathBuf,
    /// The secret of the challenge.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    #[command(flatten)]
    to: To,
}

impl Accept {
    fn run(self, app: &App) -> Result<()> {
        let Self { answer, secret, to } = self;
        let trust = Kept::parse(&small(&secret)?)?.accept(&endorsement::Answer::parse(&small(&answer)?)?)?;
        to.body(app.out, &trust)
    }
}

/// A small file.
fn small(path: &Path) -> Result<Vec<u8>> {
    read_bytes(path, endorsement::MAX_BYTES, false)
}

/// All certificates of a PEM file.
fn certificates(path: &Path) -> Result<Vec<Vec<u8>>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let (text, mut found) = (read_text(path)?, Vec::new());
    for (at, _) in text.match_indices(BEGIN) {
        const END: &str = "-----END CERTIFICATE-----";
        let rest = text.get(at..).unwrap_or_default();
        let one = rest.find(END).and_then(|end| rest.get(..end + END.len()));
        let read = one.and_then(|one| decode_vec(one.as_bytes()).ok());
        let wrong = || Error::new(Kind::Invalid, format!("{} has a certificate that cannot be read", path.display()));
        found.push(read.map(|(_, der)| der).ok_or_else(wrong)?);
    }
    Ok(found)
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
