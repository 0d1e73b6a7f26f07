//! `signet issuer rotate`, `activate`, `import` and `cross-sign`: how versions come.

use std::path::PathBuf;

use clap::Args;

use super::show::shown;
use crate::cli::App;
use crate::cli::input::{parsed, read_text};
use crate::cli::key::version;
use crate::cli::output::note;
use crate::error::{Error, Kind, Result};
use crate::types::{IssuerName, Version};
use crate::wire::{ActivateIssuer, CrossSign as CrossSigned, ImportIssuer, RotateIssuer};

/// Make the next version of an issuer: a new key and its certificate.
///
/// It is published at once, so that everybody may trust it before it issues; `signet issuer activate`, or the issuer's own
/// rollover, puts it in force.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet issuer rotate fleet
  signet issuer rotate fleet --expected-version 1 --activate")]
pub(in crate::cli) struct Rotate {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// Only if this is the newest version, so that of several at once exactly one rotates.
    #[arg(long, value_name = "N", value_parser = version)]
    expected_version: Option<Version>,
    /// Put it in force at once.
    #[arg(long)]
    activate: bool,
}

impl Rotate {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { name, expected_version, activate } = self;
        let issuer = app.online(async |client| {
            let made = client.rotate_issuer(&name, &RotateIssuer { expected_version }).await?;
            match made.versions.iter().map(|version| version.version).max() {
                Some(version) if activate => client.activate_issuer(&name, &ActivateIssuer { version }).await,
                Some(_) | None => Ok(made),
            }
        })?;
        if issuer.outside {
            note(format_args!("signet issuer request {} writes what its authority has to sign", issuer.name));
        }
        app.out.answer(&issuer, shown)
    }
}

/// Put a prepared version of an issuer in force; the one before it still tells of revocation.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet issuer activate fleet 2")]
pub(in crate::cli) struct Activate {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// The version.
    #[arg(id = "number", value_name = "VERSION", value_parser = version)]
    version: Version,
}

impl Activate {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let body = ActivateIssuer { version: self.version };
        let issuer = app.online(async |client| client.activate_issuer(&self.name, &body).await)?;
        app.out.answer(&issuer, shown)
    }
}

/// Give an issuer the certificate that its outside authority made for it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet issuer import office office-chain.pem")]
pub(in crate::cli) struct Import {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// Its certificate in PEM, and below it that of the authority that signed it, and those above; - for standard input.
    file: PathBuf,
}

impl Import {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let body = ImportIssuer { chain: read_text(&self.file)? };
        let issuer = app.online(async |client| client.import_issuer(&self.name, &body).await)?;
        app.out.answer(&issuer, shown)
    }
}

/// Have another issuer certify the newest version of this one as well, and write that certificate.
///
/// Whoever trusts only the other one then trusts this one, too: the way from an old root to a new one.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet issuer cross-sign new-root --by old-root > bridge.pem")]
pub(in crate::cli) struct CrossSign {
    /// The issuer that is certified.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// The issuer that signs.
    #[arg(long = "by", value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    signer: IssuerName,
}

impl CrossSign {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let body = CrossSigned { signer: self.signer };
        let issuer = app.online(async |client| client.cross_sign(&self.name, &body).await)?;
        let cross = issuer.versions.iter().max_by_key(|version| version.version).map(|version| version.cross.clone());
        let cross = cross
            .filter(|cross| !cross.is_empty())
            .ok_or_else(|| Error::new(Kind::Internal, "the server left the certificate out of its answer"))?;
        app.out.answer(&issuer, |_| cross)
    }
}
