//! `signet cert list` and `show`.

use clap::Args;
use jiff::Timestamp;

use crate::cli::input::parsed;
use crate::cli::output::{facts, joined, or_dash, time, yes_no};
use crate::cli::sink::To;
use crate::cli::{App, all};
use crate::client::CertificateQuery;
use crate::error::{Error, Kind, Result};
use crate::types::{Clock, IssuerName, Name, Period};
use crate::wire::{Certificate, Renewal};

/// Search certificates; all conditions hold together.
///
/// The newest come first, or those that end soonest where it is asked when they end.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet cert list --name dns:web.fleet.example
  signet cert list --issuer fleet --expires-within 30d --json | jq -r '.items[].serial'")]
pub(in crate::cli) struct List {
    /// Of this issuer.
    #[arg(long, value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    issuer: Option<IssuerName>,
    /// Of the issuers of this namespace.
    #[arg(long, value_name = "NAME", value_parser = parsed::<Name>)]
    namespace: Option<Name>,
    /// From this profile.
    #[arg(long = "from", id = "of", value_name = "PROFILE")]
    profile: Option<String>,
    /// Asked for by this one, as the audit log writes it: identity/ci.
    #[arg(long, value_name = "WHO")]
    requester: Option<String>,
    /// With this name, as dns:web.example.com.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// That end before this time, such as 2027-01-01T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    expires_before: Option<Timestamp>,
    /// That end at this time or later; now where only the other end is given.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    expires_after: Option<Timestamp>,
    /// That end within this time from now, such as 14d.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>, conflicts_with = "expires_before")]
    expires_within: Option<Period>,
}

impl List {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { issuer, namespace, profile, requester, name, expires_before, expires_after, expires_within } = self;
        let expires_before = match expires_within {
            Some(period) => Some(from_now(period)?),
            None => expires_before,
        };
        let query = CertificateQuery { issuer, namespace, profile, requester, name, expires_before, expires_after };
        let found = app.online(async |client| all(async |page| client.certificates(&query, page).await).await)?;
        let header = ["SERIAL", "NAMES", "SUBJECT", "PROFILE", "ISSUER", "ENDS", "STATE"];
        app.out.list(&found, &found.items, &header, row)
    }
}

fn from_now(period: Period) -> Result<Timestamp> {
    Clock::System.now().checked_add(period.as_signed()).map_err(|_| Error::new(Kind::Invalid, "that is too far ahead"))
}

pub(in crate::cli) fn moment(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "write a time as 2027-01-01T00:00:00Z".to_owned())
}

fn row(certificate: &Certificate) -> Vec<String> {
    vec![
        certificate.serial.clone(),
        joined(&certificate.names),
        subject(certificate),
        certificate.profile.clone(),
        format!("{} {}", certificate.issuer, certificate.version),
        time(certificate.not_after),
        state(certificate),
    ]
}

fn subject(certificate: &Certificate) -> String {
    or_dash(Some(&certificate.subject).filter(|subject| !subject.is_empty()))
}

fn state(certificate: &Certificate) -> String {
    if certificate.revoked.is_some() { "revoked".to_owned() } else { certificate.state.clone() }
}

/// Show a certificate, or write it and the ones between it and the root by --pem.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet cert show 0123456789abcdef0123456789abcdef01234567
  signet cert show 0123456789abcdef0123456789abcdef01234567 --pem --out web.pem")]
pub(in crate::cli) struct Show {
    /// Its serial number.
    #[arg(value_parser = super::serial)]
    serial: String,
    /// Write it in PEM.
    #[arg(long)]
    pem: bool,
    #[command(flatten)]
    to: To,
}

impl Show {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { serial, pem: as_pem, to } = self;
        let certificate = app.online(async |client| client.certificate(&serial).await)?;
        if app.out.json {
            return to.body(app.out, &certificate);
        }
        if as_pem { to.line(app.out, &pem(&certificate)?) } else { app.out.text(&shown(&certificate)) }
    }
}

/// Tell when a certificate should be renewed: by its age, or earlier where it will be revoked or its issuer is replaced.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  signet cert due 0123456789abcdef0123456789abcdef01234567 --json | jq -r .end")]
pub(in crate::cli) struct Due {
    /// Its serial number.
    serial: String,
}

impl Due {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let renewal = app.online(async |client| client.renewal(&self.serial).await)?;
        app.out.answer(&renewal, |renewal| {
            let Renewal { start, end, early, ask_again, explanation } = renewal;
            facts([
                ("renew from", time(*start)),
                ("until", time(*end)),
                ("early", yes_no(*early).to_owned()),
                ("ask again", format!("in {ask_again} s")),
                ("explanation", or_dash(explanation.as_ref())),
            ])
        })
    }
}

/// A certificate and the ones between it and the root, without a line break at the end.
pub(super) fn pem(certificate: &Certificate) -> Result<String> {
    let own = certificate.certificate.as_deref().ok_or_else(|| {
        Error::new(Kind::State, format!("there is no certificate with the serial number {}", certificate.serial))
            .hint("its making was interrupted; the number counts as revoked")
    })?;
    Ok(format!("{own}{}", certificate.chain).trim_end().to_owned())
}

/// A certificate for people.
pub(super) fn shown(certificate: &Certificate) -> String {
    facts([
        ("serial", certificate.serial.clone()),
        ("names", joined(&certificate.names)),
        ("subject", subject(certificate)),
        ("issuer", format!("{} version {}", certificate.issuer, certificate.version)),
        ("profile", certificate.profile.clone()),
        ("requester", certificate.requester.clone()),
        ("begins", time(certificate.not_before)),
        ("ends", time(certificate.not_after)),
        ("state", state(certificate)),
        ("revoked", or_dash(certificate.revoked.map(time))),
        ("reason", or_dash(certificate.reason.as_ref())),
        ("fingerprint", certificate.fingerprint.clone()),
    ])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::cert) fn example() -> Certificate {
        serde_json::from_value(serde_json::json!({
            "serial": "0123456789abcdef0123456789abcdef01234567", "issuer": "default:fleet", "version": 1,
            "profile": "default:server", "requester": "identity/ci", "subject": "CN=web.fleet.example",
            "names": ["dns:web.fleet.example"], "not_before": "2026-01-02T03:04:05Z",
            "not_after": "2026-01-03T03:04:05Z", "state": "issued", "fingerprint": "00",
            "certificate": "one\n", "chain": "two\n",
        }))
        .unwrap()
    }

    #[test]
    fn a_revoked_certificate_says_so() {
        assert_eq!(row(&example()).last().unwrap(), "issued");
        let revoked = Certificate { revoked: Some("2026-01-02T03:04:05Z".parse().unwrap()), ..example() };
        assert_eq!(row(&revoked).last().unwrap(), "revoked");
        assert!(shown(&revoked).contains("\nrevoked      2026-01-02T03:04:05Z\n"));
    }

    #[test]
    fn a_chain_stands_below_its_certificate() {
        assert_eq!(pem(&example()).unwrap(), "one\ntwo");
        let lost = Certificate { certificate: None, ..example() };
        assert_eq!(pem(&lost).unwrap_err().kind(), Kind::State);
    }
}
