//! `signet key update`, `rotate` and `delete`.

use std::collections::BTreeMap;

use clap::Args;

use super::create::Rules;
use super::show::shown;
use crate::cli::input::{map, pair, parsed};
use crate::cli::{App, ask, output};
use crate::error::{Error, Kind, Result};
use crate::types::{KeyName, Retention, Rotation, Version};
use crate::wire::{Key, RotateKey, UpdateKey};

/// Change rotation, retention, labels or deletion protection; what is not named stays.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet key update release --rotate-every 30d --label team=build
  signet key update release --never-rotate --deletion-protection off")]
pub(in crate::cli) struct Update {
    /// The key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    #[command(flatten)]
    rules: Rules,
    /// Rotate by hand only.
    #[arg(long, conflicts_with_all = ["rotate_every", "rotate_after_uses", "rotate_after_bytes"])]
    never_rotate: bool,
    /// Keep all versions.
    #[arg(long, conflicts_with_all = ["keep_versions", "keep_for"])]
    keep_all: bool,
    /// Set a label.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Remove a label.
    #[arg(long = "remove-label", value_name = "KEY")]
    remove_labels: Vec<String>,
    /// Whether destruction is refused.
    #[arg(long, value_name = "on|off", value_parser = on_off)]
    deletion_protection: Option<bool>,
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write on or off".to_owned()),
    }
}

impl Update {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let key = app.online(async |client| {
            let key = client.key(&self.name).await?;
            // The ETag of what the change was made from: a change in between is an error, not lost.
            client.update_key(&self.name, &key.etag, &self.body(&key)?).await
        })?;
        app.out.answer(&key, shown)
    }

    fn body(&self, key: &Key) -> Result<UpdateKey> {
        let rotation = if self.never_rotate { Rotation::default() } else { self.rules.rotation(key.rotation.clone()) };
        let retention = if self.keep_all { Retention::default() } else { self.rules.retention(key.retention.clone()) };
        let labels = self.labels(&key.labels)?;
        let body = UpdateKey {
            rotation: (rotation != key.rotation).then_some(rotation),
            retention: (retention != key.retention).then_some(retention),
            labels: (labels != key.labels).then_some(labels),
            deletion_protection: self.deletion_protection.filter(|wanted| *wanted != key.deletion_protection),
        };
        let UpdateKey { rotation, retention, labels, deletion_protection } = &body;
        if rotation.is_none() && retention.is_none() && labels.is_none() && deletion_protection.is_none() {
            return Err(Error::new(Kind::Invalid, "nothing would change").hint("signet key show prints what is set"));
        }
        Ok(body)
    }

    fn labels(&self, current: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
        let mut labels = current.clone();
        for name in &self.remove_labels {
            labels.remove(name);
        }
        labels.extend(map(self.labels.clone(), "--label")?);
        Ok(labels)
    }
}

/// Make a new primary version; older ones still open and verify.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet key rotate payments:card-data
  signet key rotate release --expected-version 3")]
pub(in crate::cli) struct Rotate {
    /// The key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// Only if this is the latest version, so that of several at once exactly one rotates.
    #[arg(long, value_name = "N", value_parser = version)]
    expected_version: Option<Version>,
    /// Only make the version, ahead of time: `signet key activate` makes it the primary one.
    #[arg(long)]
    prepare: bool,
}

impl Rotate {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let body = RotateKey { expected_version: self.expected_version, prepare: self.prepare };
        let key = app.online(async |client| client.rotate_key(&self.name, &body).await)?;
        app.out.answer(&key, shown)
    }
}

/// Parses the number of a version.
pub(in crate::cli) fn version(text: &str) -> Result<Version, String> {
    let number: u32 = text.parse().map_err(|_| "a version is a number from 1".to_owned())?;
    Version::new(number).map_err(|error| error.to_string())
}

/// Schedule the destruction of all versions of a key.
///
/// Until the waiting period is over, `signet key restore` brings a version back. Afterwards nothing does: what was wrapped by
/// it is lost.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet key delete payments:card-data --yes")]
pub(in crate::cli) struct Delete {
    /// The key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Delete {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let act = format!("this schedules the destruction of all versions of {}", self.name);
        ask::confirm(&act, &self.name.to_string(), self.yes)?;
        let key = app.online(async |client| client.delete_key(&self.name).await)?;
        output::note("scheduled; signet key versions shows when, signet key restore brings a version back");
        app.out.answer(&key, shown)
    }
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::example;
    use super::*;

    fn update() -> Update {
        Update {
            name: "release".parse().unwrap(),
            rules: Rules::default(),
            never_rotate: false,
            keep_all: false,
            labels: Vec::new(),
            remove_labels: Vec::new(),
            deletion_protection: None,
        }
    }

    #[test]
    fn what_is_not_named_stays() {
        let wanted = Update { labels: vec![("b".into(), "2".into())], never_rotate: true, ..update() };
        let body = wanted.body(&example()).unwrap();
        assert_eq!(body.rotation, Some(Rotation::default()));
        assert_eq!((body.retention, body.deletion_protection), (None, None));
        assert_eq!(body.labels.unwrap().into_keys().collect::<Vec<_>>(), ["b", "team"]);
    }

    #[test]
    fn an_update_that_changes_nothing_is_a_mistake() {
        for same in [update(), Update { deletion_protection: Some(true), ..update() }] {
            assert_eq!(same.body(&example()).unwrap_err().kind(), Kind::Invalid);
        }
    }

    #[test]
    fn versions_start_at_one() {
        assert_eq!(version("7").unwrap().number(), 7);
        assert!(version("0").is_err() && version("x").is_err());
    }
}
