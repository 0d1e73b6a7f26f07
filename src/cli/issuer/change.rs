//! `signet issuer update` and `revoke`.

use clap::Args;

use super::create::Rules;
use super::show::shown;
use crate::cli::cert::{REASONS, SUPERSEDED};
use crate::cli::input::parsed;
use crate::cli::key::version;
use crate::cli::{App, ask};
use crate::error::{Error, Kind, Result};
use crate::types::{IssuerName, Version};
use crate::wire::{Issuer, RevokeCertificates, UpdateIssuer};

/// Change the rules of an issuer from its next version on, or stop it; what is not named stays.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet issuer update fleet --lifetime 730d --permit dns:fleet.example
  signet issuer update fleet --disable")]
pub(in crate::cli) struct Update {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    #[command(flatten)]
    rules: Rules,
    /// Issue nothing until it is enabled again; it still tells of revocation.
    #[arg(long)]
    disable: bool,
    /// Issue again.
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
}

impl Update {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let issuer = app.online(async |client| {
            let issuer = client.issuer(&self.name).await?;
            // The ETag of what the change was made from: a change in between is an error, not lost.
            client.update_issuer(&self.name, &issuer.etag, &self.body(&issuer)?).await
        })?;
        app.out.answer(&issuer, shown)
    }

    fn body(&self, issuer: &Issuer) -> Result<UpdateIssuer> {
        let Self { name: _, rules, disable, enable } = self;
        let rules = rules.over(issuer.rules.clone());
        let enabled = (*enable || *disable).then_some(*enable);
        let body = UpdateIssuer {
            enabled: enabled.filter(|wanted| *wanted != issuer.enabled),
            rules: (rules != issuer.rules).then_some(rules),
        };
        if body.enabled.is_none() && body.rules.is_none() {
            return Err(Error::new(Kind::Invalid, "nothing would change").hint("signet issuer show prints what is set"));
        }
        Ok(body)
    }
}

/// Revoke every certificate of an issuer that is not over. This cannot be undone.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet issuer revoke fleet --version 1 --reason key-compromise --yes")]
pub(in crate::cli) struct Revoke {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// Only those of this version.
    #[arg(long = "version", id = "number", value_name = "N", value_parser = version)]
    version: Option<Version>,
    /// Why.
    #[arg(long, value_name = "REASON", value_parser = REASONS, default_value = SUPERSEDED)]
    reason: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Revoke {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { name, version, reason, yes } = self;
        ask::confirm(&format!("this revokes all certificates of {name}, for good"), &name.to_string(), yes)?;
        let body = RevokeCertificates { version, reason: Some(reason) };
        let count = app.online(async |client| client.revoke_all(&name, &body).await)?;
        app.out.answer(&count, |count| format!("revoked {}", count.revoked))
    }
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::example;
    use super::*;

    #[test]
    fn an_update_that_changes_nothing_is_a_mistake() {
        let update =
            |disable, enable| Update { name: "fleet".parse().unwrap(), rules: Rules::default(), disable, enable };
        for same in [update(false, false), update(false, true)] {
            assert_eq!(same.body(&example()).unwrap_err().kind(), Kind::Invalid);
        }
        let body = update(true, false).body(&example()).unwrap();
        assert_eq!((body.enabled, body.rules), (Some(false), None));
    }
}
