//! `signet profile`: what certificates look like.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::input::{parsed, read_text};
use super::output::{facts, joined, note, or_dash, yes_no};
use super::{App, all, ask, noun};
use crate::error::{Error, Kind, Result};
use crate::types::{Name, ProfileName};
use crate::wire;

noun! {
    /// Store, show and remove profiles of certificates.
    Profile: Verb {
        Set(Set),
        List(List),
        Show(Show),
        Delete(Delete),
    }
}

/// Store a profile, in place of an older one; what was issued stays as it is.
///
/// docs/profiles.md tells the fields of FILE. With --from, those that FILE leaves out are taken from another profile, such as
/// one of those to start with: server, client, peer, code-signing, intermediate, spiffe.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet profile set web web.json
  echo '{\"names\": [\"dns:*.fleet.example\"]}' | signet profile set web - --from server")]
struct Set {
    /// The profile: NAME, or NAMESPACE:NAME.
    #[arg(id = "stored", value_name = "NAME", value_parser = parsed::<ProfileName>)]
    name: ProfileName,
    /// What it says, in JSON; - for standard input.
    #[arg(required_unless_present = "base")]
    file: Option<PathBuf>,
    /// Begin with this profile.
    #[arg(long = "from", id = "base", value_name = "NAME", value_parser = parsed::<ProfileName>)]
    from: Option<ProfileName>,
    /// Only over the profile with this ETag, as `signet profile list` showed it.
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
}

impl Set {
    fn run(self, app: &App) -> Result<()> {
        let Self { name, file, from, if_match } = self;
        let said = match &file {
            Some(path) => serde_json::from_str(&read_text(path)?)
                .map_err(|e| Error::new(Kind::Invalid, format!("{} is not JSON: {e}", path.display())))?,
            None => Value::Object(serde_json::Map::new()),
        };
        let profile = app.online(async |client| {
            let profile = match &from {
                Some(from) => over(client.profile(from).await?.profile, said),
                None => said,
            };
            let etag = match if_match {
                Some(etag) => Some(etag),
                None => match client.profile(&name).await {
                    Ok(current) => current.etag,
                    Err(error) if error.kind() == Kind::NotFound => None,
                    Err(error) => return Err(error),
                },
            };
            let body = wire::Profile { name: None, profile, built_in: false, etag: None };
            client.put_profile(&name, etag.as_deref(), &body).await
        })?;
        app.out
            .answer(&profile, |profile| facts([("name", name.to_string()), ("etag", or_dash(profile.etag.as_ref()))]))
    }
}

/// The fields of `base`, and in their place those that `said` has.
fn over(base: Value, said: Value) -> Value {
    match (base, said) {
        (Value::Object(mut base), Value::Object(said)) => {
            base.extend(said);
            Value::Object(base)
        }
        (_, said) => said,
    }
}

/// List profiles, those to start with among them.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet profile list")]
struct List {
    /// Only the profiles of this namespace.
    #[arg(long, value_name = "NAME", value_parser = parsed::<Name>)]
    namespace: Option<Name>,
}

impl List {
    fn run(self, app: &App) -> Result<()> {
        let namespace = self.namespace.as_ref();
        let profiles = app.online(async |client| all(async |page| client.profiles(namespace, page).await).await)?;
        let header = ["NAME", "KIND", "LIFETIME", "LONGEST", "NAMES", "BUILT IN", "ETAG"];
        app.out.list(&profiles, &profiles.items, &header, row)
    }
}

fn row(profile: &wire::Profile) -> Vec<String> {
    let wire::Profile { name, profile, built_in, etag } = profile;
    let word = |field: &str| or_dash(profile.get(field).and_then(Value::as_str));
    let names = profile.get("names").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    vec![
        or_dash(name.as_ref()),
        word("kind"),
        word("lifetime"),
        word("longest"),
        joined(names),
        yes_no(*built_in).to_owned(),
        or_dash(etag.as_ref()),
    ]
}

/// Write what a profile says, in JSON that `set` takes.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet profile show server > web.json")]
struct Show {
    /// The profile.
    #[arg(id = "stored", value_name = "NAME", value_parser = parsed::<ProfileName>)]
    name: ProfileName,
}

impl Show {
    fn run(self, app: &App) -> Result<()> {
        let profile = app.online(async |client| client.profile(&self.name).await)?;
        app.out.answer(&profile, |profile| format!("{:#}", profile.profile))
    }
}

/// Remove a profile; one to start with, that had this name, shows again.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet profile delete web --yes")]
struct Delete {
    /// The profile.
    #[arg(id = "stored", value_name = "NAME", value_parser = parsed::<ProfileName>)]
    name: ProfileName,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Delete {
    fn run(self, app: &App) -> Result<()> {
        ask::confirm(&format!("this removes the profile {}", self.name), &self.name.to_string(), self.yes)?;
        app.online(async |client| client.delete_profile(&self.name).await)?;
        note(format_args!("removed {}", self.name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_file_says_stands_in_place_of_what_it_began_with() {
        let base = json!({"kind": "server", "names": ["dns:*"], "lifetime": "24h"});
        let made = over(base, json!({"names": ["dns:*.fleet.example"]}));
        assert_eq!(made, json!({"kind": "server", "names": ["dns:*.fleet.example"], "lifetime": "24h"}));
        let stored = wire::Profile { name: None, profile: made, built_in: true, etag: None };
        assert_eq!(row(&stored), ["-", "server", "24h", "-", "dns:*.fleet.example", "yes", "-"]);
    }
}
