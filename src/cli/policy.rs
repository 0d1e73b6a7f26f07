//! `signet policy`: who may do what.

use std::path::PathBuf;

use clap::Args;

use super::input::{one_of, parsed, read_text};
use super::output::{facts, joined, note, or_dash};
use super::{App, all, ask, noun};
use crate::error::{Kind, Result};
use crate::types::{Action, IssuerName, KeyName, Name, ProfileName};
use crate::wire::{self, Explanation};

noun! {
    /// Store, show and remove policies, and ask why.
    Policy: Verb {
        Set(Set),
        List(List),
        Show(Show),
        Delete(Delete),
        Explain(Explain),
    }
}

/// Store a policy, in place of an older one; the server checks it first.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet policy set builders builders.cedar
  signet policy set builders - < builders.cedar")]
struct Set {
    /// The policy.
    #[arg(value_parser = parsed::<Name>)]
    name: Name,
    /// Its text in Cedar; - for standard input.
    file: PathBuf,
    /// Only over the policy with this ETag, as `signet policy list` showed it.
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

impl Set {
    fn run(self, app: &App) -> Result<()> {
        let Self { name, file, if_match } = self;
        let body = wire::Policy { name: None, text: read_text(&file)?, etag: None };
        let policy = app.online(async |client| {
            let etag = match if_match {
                Some(etag) => Some(etag),
                None => match client.policy(&name).await {
                    Ok(current) => current.etag,
                    Err(error) if error.kind() == Kind::NotFound => None,
                    Err(error) => return Err(error),
                },
            };
            client.put_policy(&name, etag.as_deref(), &body).await
        })?;
        app.out.answer(&policy, |policy| facts([("name", name.to_string()), ("etag", or_dash(policy.etag.as_ref()))]))
    }
}

/// List policies.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet policy list")]
struct List {}

impl List {
    fn run(self, app: &App) -> Result<()> {
        let Self {} = self;
        let policies = app.online(async |client| all(async |page| client.policies(page).await).await)?;
        app.out.list(&policies, &policies.items, &["NAME", "LINES", "ETAG"], |policy| {
            let wire::Policy { name, text, etag } = policy;
            vec![or_dash(name.as_ref()), text.lines().count().to_string(), or_dash(etag.as_ref())]
        })
    }
}

/// Write the text of a policy.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet policy show builders > builders.cedar")]
struct Show {
    /// The policy.
    #[arg(value_parser = parsed::<Name>)]
    name: Name,
}

impl Show {
    fn run(self, app: &App) -> Result<()> {
        let policy = app.online(async |client| client.policy(&self.name).await)?;
        if app.out.json || app.out.terminal {
            return app.out.answer(&policy, |policy| policy.text.clone());
        }
        // As it was stored, so that it can be stored again.
        app.out.bytes(policy.text.as_bytes())
    }
}

/// Remove a policy.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet policy delete builders --yes")]
struct Delete {
    /// The policy.
    #[arg(value_parser = parsed::<Name>)]
    name: Name,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Delete {
    fn run(self, app: &App) -> Result<()> {
        ask::confirm(&format!("this removes the policy {}", self.name), self.name.as_str(), self.yes)?;
        app.online(async |client| client.delete_policy(&self.name).await)?;
        note(format_args!("removed {}", self.name));
        Ok(())
    }
}

/// Ask why somebody may, or may not, do something.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet policy explain ci Sign release --group builders
  signet policy explain web IssueCertificate --issuer fleet --from server --name dns:web.fleet.example
  signet policy explain ci WriteProfile --from fleet:server
  signet policy explain ci Backup")]
struct Explain {
    /// Who.
    #[arg(value_parser = parsed::<Name>)]
    identity: Name,
    /// The operation.
    #[arg(value_parser = one_of(Action::ALL, Action::as_str), hide_possible_values = true)]
    action: Action,
    /// On which key; without KEY, --issuer and --from it is the service itself.
    #[arg(id = "resource", value_name = "KEY", value_parser = parsed::<KeyName>)]
    #[arg(conflicts_with_all = ["issuer", "of", "certified"])]
    key: Option<KeyName>,
    /// On which issuer.
    #[arg(long, value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    issuer: Option<IssuerName>,
    /// For a certificate from this profile; without --issuer, on the profile itself.
    #[arg(long = "from", id = "of", value_name = "PROFILE", value_parser = parsed::<ProfileName>)]
    profile: Option<ProfileName>,
    /// For a certificate with this name, as dns:web.example.com.
    #[arg(long = "name", id = "certified", value_name = "NAME", requires = "issuer")]
    name: Option<String>,
    /// A group to assume.
    #[arg(long = "group", value_name = "NAME", value_parser = parsed::<Name>)]
    groups: Vec<Name>,
}

impl Explain {
    fn run(self, app: &App) -> Result<()> {
        let Self { identity, action, key, issuer, profile, name, groups } = self;
        let body = wire::Explain { identity, groups, action: action.to_string(), key, issuer, profile, name };
        let explanation = app.online(async |client| client.explain(&body).await)?;
        app.out.answer(&explanation, shown)
    }
}

fn shown(explanation: &Explanation) -> String {
    let Explanation { allowed, because, candidates, errors } = explanation;
    facts([
        ("decision", if *allowed { "allowed" } else { "refused" }.to_owned()),
        ("because of", joined(because)),
        ("looked at", joined(candidates)),
        ("not evaluated", joined(errors)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_by_default_says_so() {
        let none = Explanation { allowed: false, because: vec![], candidates: vec!["a#1".into()], errors: vec![] };
        assert_eq!(shown(&none), "decision       refused\nbecause of     -\nlooked at      a#1\nnot evaluated  -");
    }
}
