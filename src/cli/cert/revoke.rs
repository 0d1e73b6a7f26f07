//! `signet cert revoke`.

use clap::Args;

use super::show::shown;
use crate::cli::{App, ask};
use crate::error::Result;
use crate::wire::RevokeCertificate;

/// Why certificates are revoked, after RFC 5280, 5.3.1.
pub(in crate::cli) const REASONS: [&str; 6] = [
    "unspecified",
    "key-compromise",
    "affiliation-changed",
    SUPERSEDED,
    "cessation-of-operation",
    "privilege-withdrawn",
];
pub(in crate::cli) const SUPERSEDED: &str = "superseded";

/// Revoke a certificate. This cannot be undone.
///
/// OCSP says it at once, the revocation list within seconds; docs/revocation.md tells what others may have kept.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  signet cert revoke 0123456789abcdef0123456789abcdef01234567 --reason key-compromise --yes")]
pub(in crate::cli) struct Revoke {
    /// Its serial number.
    #[arg(value_parser = super::serial)]
    serial: String,
    /// Why.
    #[arg(long, value_name = "REASON", value_parser = REASONS, default_value = "unspecified")]
    reason: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Revoke {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { serial, reason, yes } = self;
        ask::confirm(&format!("this revokes certificate {serial}, for good"), &serial, yes)?;
        let body = RevokeCertificate { reason: Some(reason), proof: None };
        let certificate = app.online(async |client| client.revoke(&serial, &body).await)?;
        app.out.answer(&certificate, shown)
    }
}
