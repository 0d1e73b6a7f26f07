//! `signet profile`: what certificates look like.

use std::path::PathBuf;

use clap::Args;

use super::input::{parsed, read_text};
use super::output::{note, or_dash};
use super::{App, all, ask, verbs};
use crate::error::{Error, Kind, Result};
use crate::types::{Name, ProfileName};
use crate::wire;

/// Store, show and remove profiles of certificates.
#[derive(Args, Debug)]
pub(super) struct Profile {
    #[command(subcommand)]
    verb: Verb,
}

impl Profile {
    pub(super) fn run(self, app: &App) -> Result<()> {
        self.verb.run(app)
    }
}

verbs! {
    /// What can be done to profiles.
    Verb {
        Set(Set),
        List(List),
        Show(Show),
        Delete(Delete),
    }
}

/// Store a profile, in place of an older one; the server checks it first.
///
/// A profile is JSON. `signet profile show` writes one to start from; docs/certificates.md tells all fields.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet profile show server > web.json
  signet profile set fleet:web web.json")]
struct Set {
    /// The profile: NAME, or NAMESPACE:NAME.
    #[arg(value_parser = parsed::<ProfileName>)]
    name: ProfileName,
    /// What it says; - for standard input.
    file: PathBuf,
    /// Only over the profile with this ETag, as `signet profile list` showed it.
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

impl Set {
    fn run(self, app: &App) -> Result<()> {
        let Self { name, file, if_match } = self;
        let profile = serde_json::from_str(&read_text(&file)?).map_err(|e| {
            Error::new(Kind::Invalid, format!("{} is not JSON: {e}", file.display()))
                .hint("`signet profile show server` writes a profile to start from")
        })?;
        let body = wire::Profile { name: None, profile, built_in: false, etag: None };
        let stored = app.online(async |client| client.put_profile(&name, if_match.as_deref(), &body).await)?;
        app.out.answer(&stored, text)
    }
}

/// List profiles, those that are built in too.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet profile list --namespace fleet")]
struct List {
    /// Only the profiles of this namespace.
    #[arg(long, value_name = "NAME", value_parser = parsed::<Name>)]
    namespace: Option<Name>,
}

impl List {
    fn run(self, app: &App) -> Result<()> {
        let found =
            app.online(async |client| all(async |page| client.profiles(self.namespace.as_ref(), page).await).await)?;
        app.out.list(&found, &found.items, &["NAME", "KIND", "LIFETIME", "ETAG"], row)
    }
}

fn row(one: &wire::Profile) -> Vec<String> {
    let field = |name: &str| or_dash(one.profile.get(name).and_then(serde_json::Value::as_str));
    let etag = if one.built_in { "built in".to_owned() } else { or_dash(one.etag.as_ref()) };
    vec![or_dash(one.name.as_ref()), field("kind"), field("lifetime"), etag]
}

/// Write a profile.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet profile show server > server.json")]
struct Show {
    /// The profile.
    #[arg(value_parser = parsed::<ProfileName>)]
    name: ProfileName,
}

impl Show {
    fn run(self, app: &App) -> Result<()> {
        let profile = app.online(async |client| client.profile(&self.name).await)?;
        app.out.answer(&profile, text)
    }
}

/// As it was stored, so that it can be stored again.
fn text(profile: &wire::Profile) -> String {
    serde_json::to_string_pretty(&profile.profile).unwrap_or_default()
}

/// Remove a profile. What was issued from it stays; one that is built in shows again.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet profile delete fleet:web --yes")]
struct Delete {
    /// The profile.
    #[arg(value_parser = parsed::<ProfileName>)]
    name: ProfileName,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Delete {
    fn run(self, app: &App) -> Result<()> {
        let name = self.name.to_string();
        ask::confirm(&format!("this removes the profile {name}"), &name, self.yes)?;
        app.online(async |client| client.delete_profile(&self.name).await)?;
        note(format_args!("removed {name}"));
        Ok(())
    }
}
