//! `signet key versions`, and the changes of a version's state.

use clap::Args;

use super::change::version;
use crate::cli::input::parsed;
use crate::cli::output::{facts, joined, or_dash, time, yes_no};
use crate::cli::{App, all, ask};
use crate::client::Transition;
use crate::error::Result;
use crate::types::{KeyName, Period, Version};
use crate::wire::{KeyVersion, ScheduleDestruction};

/// List the versions of a key and their states.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet key versions payments:card-data")]
pub(in crate::cli) struct Versions {
    /// The key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
}

impl Versions {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let versions = app.online(async |client| all(async |page| client.versions(&self.name, page).await).await)?;
        let header =
            ["VERSION", "STATE", "PRIMARY", "PROTECTION", "DEVICES", "PCRS", "CREATED", "CHANGED", "DESTROYED", "USES"];
        app.out.list(&versions, &versions.items, &header, row)
    }
}

fn row(version: &KeyVersion) -> Vec<String> {
    vec![
        version.version.to_string(),
        version.state.to_string(),
        yes_no(version.primary).to_owned(),
        version.protection.to_string(),
        joined(&version.devices),
        pcrs(version),
        time(version.created),
        time(version.changed),
        or_dash(version.destroy_at.map(time)),
        or_dash(version.uses),
    ]
}

/// What a version is bound to, and whether that still holds.
fn pcrs(version: &KeyVersion) -> String {
    let Some(bound) = &version.pcrs else { return or_dash(None::<String>) };
    let registers = bound.registers();
    match version.pcrs_changed.as_deref() {
        None => registers.to_string(),
        Some([]) => format!("{registers} hold"),
        Some(changed) => format!("{registers} CHANGED: {}", joined(changed)),
    }
}

fn shown(version: &KeyVersion) -> String {
    facts([
        ("version", version.version.to_string()),
        ("state", version.state.to_string()),
        ("primary", yes_no(version.primary).to_owned()),
        ("changed", time(version.changed)),
        ("will be destroyed", or_dash(version.destroy_at.map(time))),
    ])
}

/// One version of one key.
#[derive(Args, Debug)]
struct Which {
    /// The key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// The version.
    #[arg(id = "number", value_name = "VERSION", value_parser = version)]
    version: Version,
}

impl Which {
    fn change(&self, app: &App, to: Transition) -> Result<()> {
        let version = app.online(async |client| client.change_version(&self.name, self.version, to).await)?;
        app.out.answer(&version, shown)
    }

    fn confirm(&self, act: &str, yes: bool) -> Result<()> {
        let act = format!("this {act} version {} of {}", self.version, self.name);
        ask::confirm(&act, &self.name.to_string(), yes)
    }
}

/// Writes a verb that only moves a version to another state.
macro_rules! moves {
    ($($(#[$meta:meta])* $verb:ident;)*) => {$(
        #[derive(Args, Debug)]
        $(#[$meta])*
        pub(in crate::cli) struct $verb {
            #[command(flatten)]
            which: Which,
        }

        impl $verb {
            pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
                self.which.change(app, Transition::$verb)
            }
        }
    )*};
}

moves! {
    /// Make a version that was prepared by `key rotate --prepare` the primary one.
    #[command(after_help = "Example:\n  signet key activate payments:card-data 4")]
    Activate;
    /// Stop a version from doing anything until it is resumed.
    #[command(after_help = "Example:\n  signet key suspend payments:card-data 3")]
    Suspend;
    /// Undo a suspension.
    #[command(after_help = "Example:\n  signet key resume payments:card-data 3")]
    Resume;
    /// End a version's use to protect; it still opens and verifies.
    #[command(after_help = "Example:\n  signet key deactivate payments:card-data 3")]
    Deactivate;
}

/// Declare that somebody else may know a version.
///
/// It opens only by an explicit override from then on, and its signatures prove nothing. This cannot be undone.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet key compromise payments:card-data 3 --yes")]
pub(in crate::cli) struct Compromise {
    #[command(flatten)]
    which: Which,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Compromise {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        self.which.confirm("declares compromised, for good,", self.yes)?;
        self.which.change(app, Transition::Compromise)
    }
}

/// Schedule the destruction of a version.
///
/// Until the waiting period is over, `signet key restore` brings it back. Afterwards nothing does: what was wrapped by it is lost.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet key destroy payments:card-data 1
  signet key destroy payments:card-data 1 --after 7d --yes")]
pub(in crate::cli) struct Destroy {
    #[command(flatten)]
    which: Which,
    /// How long it can still be restored: 30d where not given, at least 1d.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    after: Option<Period>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Destroy {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { which, after, yes } = self;
        which.confirm("schedules the destruction of", yes)?;
        let body = ScheduleDestruction { after };
        let version =
            app.online(async |client| client.schedule_destruction(&which.name, which.version, &body).await)?;
        app.out.answer(&version, shown)
    }
}

/// Stop the scheduled destruction of a version.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet key restore payments:card-data 1")]
pub(in crate::cli) struct Restore {
    #[command(flatten)]
    which: Which,
}

impl Restore {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        self.which.change(app, Transition::CancelDestruction)
    }
}
