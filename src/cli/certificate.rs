//! `signet cert`: certificates.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use serde_json::json;

use super::input::{parsed, read_text};
use super::output::{facts, joined, note, or_dash, time};
use super::sink::{self, Access, To};
use super::{App, all, ask, verbs};
use crate::client::CertificateQuery;
use crate::error::{Error, Kind, Result};
use crate::types::{IssuerName, Name, Period, ProfileName, Version};
use crate::wire::{Certificate, CertificateWanted, IssueCertificate, RevokeCertificate, RevokeCertificates, Subject};

/// Ask for certificates, find and revoke them.
#[derive(Args, Debug)]
pub(super) struct Cert {
    #[command(subcommand)]
    verb: Verb,
}

impl Cert {
    pub(super) fn run(self, app: &App) -> Result<()> {
        self.verb.run(app)
    }
}

verbs! {
    /// What can be done to certificates.
    Verb {
        Issue(Issue),
        List(List),
        Show(Show),
        Renew(Renew),
        Revoke(Revoke),
        RevokeAll(RevokeAll),
    }
}

/// Issue a certificate from a profile.
///
/// The key stays where it is: send a CSR, whose names count only where the profile says so, and say the names here. Written
/// are the certificate and those between it and the root, as TLS servers want them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet cert issue fleet:ca server --csr web.csr --name dns:web.fleet.example --out web.pem
  signet cert issue fleet:ca client --make-key ecdsa-p256 --name email:a@b.example --key-out a.key --out a.pem")]
struct Issue {
    /// The issuer.
    #[arg(value_parser = parsed::<IssuerName>)]
    issuer: IssuerName,
    /// The profile: `signet profile list` shows them.
    #[arg(id = "from", value_name = "PROFILE", value_parser = parsed::<ProfileName>)]
    profile: ProfileName,
    /// The CSR in PEM; - for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "make_key", required_unless_present = "make_key")]
    csr: Option<PathBuf>,
    /// Have the service make a key of this kind outside any device, where the profile allows it.
    #[arg(long, value_name = "KIND", requires = "key_out")]
    make_key: Option<String>,
    /// Where that key is written, readable by its owner alone.
    #[arg(long, value_name = "FILE", requires = "make_key")]
    key_out: Option<PathBuf>,
    /// A name: dns:HOST, ip:ADDRESS, email:MAILBOX or uri:URI.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// The common name, where the profile lets it be asked for.
    #[arg(long, value_name = "TEXT")]
    common_name: Option<String>,
    /// How long it is to live, such as 24h.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    lifetime: Option<Period>,
    #[command(flatten)]
    to: To,
}

impl Issue {
    fn run(self, app: &App) -> Result<()> {
        let Self { issuer, profile, csr, make_key, key_out, names, common_name, lifetime, to } = self;
        let csr = csr.map(|file| read_text(&file)).transpose()?;
        let subject = Subject { common_name, ..Subject::default() };
        let request =
            CertificateWanted { csr, key: make_key, names, subject, lifetime, ..CertificateWanted::default() };
        let body = IssueCertificate { profile, request };
        if let Some(file) = &key_out {
            vacant(file, to.force())?;
        }
        let made = app.online(async |client| client.issue(&issuer, &body).await)?;
        if let Some(file) = key_out {
            let key = made.private_key.as_ref().ok_or_else(no_key)?;
            sink::write(&file, key.0.as_bytes(), Access::Owner, to.force())?;
        }
        written(app, &made, &to)
    }
}

fn no_key() -> Error {
    Error::new(Kind::State, "the answer has no key: the first one was lost on the way, and no key is shown twice")
        .hint("revoke that certificate, and ask for another one")
}

/// A key that cannot be written would be lost: that is found out before it is made.
fn vacant(file: &Path, force: bool) -> Result<()> {
    if force || file.symlink_metadata().is_err() {
        return Ok(());
    }
    Err(Error::new(Kind::Conflict, format!("{} exists already", file.display())).hint("--force replaces it"))
}

/// Writes a certificate with its chain, or all that is known of it for programs.
fn written(app: &App, made: &Certificate, to: &To) -> Result<()> {
    if app.out.json {
        return app.out.body(&without_key(made));
    }
    let text = format!("{}{}", made.certificate.as_deref().unwrap_or_default(), made.chain);
    to.public(app.out, text.as_bytes(), false)?;
    note(format_args!("certificate {} is good until {}", made.serial, time(made.not_after)));
    Ok(())
}

/// A certificate for programs: its key stands in its own file.
fn without_key(made: &Certificate) -> serde_json::Value {
    let mut value = json!(made);
    if let Some(fields) = value.as_object_mut() {
        fields.remove("private_key");
    }
    value
}

/// Search certificates: the newest first, or the soonest to end.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet cert list --issuer fleet:ca
  signet cert list --name dns:web.fleet.example
  signet cert list --expires-within 7d --json")]
struct List {
    /// Only those of this issuer.
    #[arg(long, value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    issuer: Option<IssuerName>,
    /// Only those of the issuers of this namespace.
    #[arg(long, value_name = "NAME", value_parser = parsed::<Name>)]
    namespace: Option<Name>,
    /// Only those from this profile.
    #[arg(long = "from", id = "from", value_name = "PROFILE")]
    profile: Option<String>,
    /// Only those that this one asked for, as in the audit log: identity/NAME.
    #[arg(long, value_name = "WHO")]
    requester: Option<String>,
    /// Only those with this name: dns:HOST, ip:ADDRESS, email:MAILBOX or uri:URI.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Only those that end within this time from now on.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    expires_within: Option<Period>,
}

impl List {
    fn run(self, app: &App) -> Result<()> {
        let Self { issuer, namespace, profile, requester, name, expires_within } = self;
        let now = crate::types::Clock::System.now();
        let before = |within: Period| now.checked_add(within.as_signed()).unwrap_or(Timestamp::MAX);
        let query = CertificateQuery {
            issuer,
            namespace,
            profile,
            requester,
            name,
            expires_before: expires_within.map(before),
            expires_after: None,
        };
        let found = app.online(async |client| all(async |page| client.certificates(&query, page).await).await)?;
        let header = ["SERIAL", "ISSUER", "PROFILE", "NAMES", "ENDS", "STATE"];
        app.out.list(&found, &found.items, &header, row)
    }
}

fn row(one: &Certificate) -> Vec<String> {
    vec![
        one.serial.clone(),
        format!("{} v{}", one.issuer, one.version),
        one.profile.clone(),
        if one.names.is_empty() { one.subject.clone() } else { joined(&one.names) },
        time(one.not_after),
        state(one),
    ]
}

fn state(one: &Certificate) -> String {
    if one.revoked.is_some() { "revoked".to_owned() } else { one.state.clone() }
}

/// Show a certificate.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet cert show 3f0c5e3a9d1b7c2e4f60718293a4b5c6d7e8f901
  signet cert show 3f0c5e3a9d1b7c2e4f60718293a4b5c6d7e8f901 --pem > web.pem")]
struct Show {
    /// Its serial number.
    serial: String,
    /// Write it and its chain in PEM.
    #[arg(long)]
    pem: bool,
}

impl Show {
    fn run(self, app: &App) -> Result<()> {
        let Self { serial, pem } = self;
        let found = app.online(async |client| client.certificate(&serial).await)?;
        app.out.answer(&found, |one| {
            if pem { format!("{}{}", one.certificate.as_deref().unwrap_or_default(), one.chain) } else { shown(one) }
        })
    }
}

/// A certificate for people.
fn shown(one: &Certificate) -> String {
    facts([
        ("serial", one.serial.clone()),
        ("state", state(one)),
        ("issuer", format!("{}, version {}", one.issuer, one.version)),
        ("profile", one.profile.clone()),
        ("requester", one.requester.clone()),
        ("subject", one.subject.clone()),
        ("names", joined(&one.names)),
        ("from", time(one.not_before)),
        ("until", time(one.not_after)),
        ("revoked", or_dash(one.revoked.map(time))),
        ("reason", or_dash(one.reason.as_ref())),
        ("sha256", one.fingerprint.clone()),
    ])
}

/// Issue a certificate with the names and the profile of an older one, for a new CSR or the same one.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  signet cert renew 3f0c5e3a9d1b7c2e4f60718293a4b5c6d7e8f901 --csr web.csr --out web.pem --force")]
struct Renew {
    /// The serial number of the older one.
    serial: String,
    /// The CSR in PEM; - for standard input.
    #[arg(long, value_name = "FILE")]
    csr: PathBuf,
    #[command(flatten)]
    to: To,
}

impl Renew {
    fn run(self, app: &App) -> Result<()> {
        let Self { serial, csr, to } = self;
        let csr = Some(read_text(&csr)?);
        let made = app.online(async |client| {
            let old = client.certificate(&serial).await?;
            let profile: ProfileName = old.profile.parse().map_err(|_| {
                Error::new(Kind::Invalid, format!("{serial} was made by the service for itself"))
                    .hint("issuers are renewed by `signet issuer rotate`")
            })?;
            let request = CertificateWanted { csr, names: old.names, ..CertificateWanted::default() };
            client.issue(&old.issuer, &IssueCertificate { profile, request }).await
        })?;
        written(app, &made, &to)
    }
}

/// Revoke a certificate, for good.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet cert revoke 3f0c5e3a9d1b7c2e4f60718293a4b5c6d7e8f901 --reason key-compromise
  signet cert revoke 3f0c5e3a9d1b7c2e4f60718293a4b5c6d7e8f901 --yes")]
struct Revoke {
    /// Its serial number.
    serial: String,
    /// Why: unspecified, key-compromise, affiliation-changed, superseded, cessation-of-operation or privilege-withdrawn.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Revoke {
    fn run(self, app: &App) -> Result<()> {
        let Self { serial, reason, yes } = self;
        ask::confirm(&format!("this revokes certificate {serial} for good"), &serial, yes)?;
        let body = RevokeCertificate { reason, proof: None };
        let revoked = app.online(async |client| client.revoke(&serial, &body).await)?;
        app.out.answer(&revoked, shown)
    }
}

/// Revoke every certificate of an issuer that is not over.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  signet cert revoke-all fleet:ca --version 1 --reason key-compromise --yes")]
struct RevokeAll {
    /// The issuer.
    #[arg(value_parser = parsed::<IssuerName>)]
    issuer: IssuerName,
    /// Only those of this version.
    #[arg(long = "version", id = "number", value_name = "N", value_parser = super::key::version)]
    version: Option<Version>,
    /// Why, as for one.
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl RevokeAll {
    fn run(self, app: &App) -> Result<()> {
        let Self { issuer, version, reason, yes } = self;
        let name = issuer.to_string();
        ask::confirm(&format!("this revokes all certificates of {name} for good"), &name, yes)?;
        let body = RevokeCertificates { version, reason };
        let count = app.online(async |client| client.revoke_all(&issuer, &body).await)?;
        app.out.answer(&count, |count| facts([("revoked", count.revoked.to_string())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Certificate {
        serde_json::from_value(json!({
            "serial": "3f0c5e3a9d1b7c2e4f60718293a4b5c6d7e8f901", "issuer": "fleet:ca", "version": 2,
            "profile": "default:server", "requester": "identity/deployer", "subject": "", "names": ["dns:a.example"],
            "not_before": "2026-01-02T03:04:05Z", "not_after": "2026-01-03T03:04:05Z", "state": "issued",
            "fingerprint": "00", "private_key": "PEM",
        }))
        .unwrap()
    }

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        assert_eq!(row(&example()).len(), 6);
        let revoked = Certificate { revoked: Some(Timestamp::UNIX_EPOCH), ..example() };
        assert_eq!(row(&revoked).last().unwrap(), "revoked");
    }

    #[test]
    fn programs_get_no_key_on_standard_output() {
        assert!(!without_key(&example()).to_string().contains("PEM"));
    }
}
