//! `signet announcement`: what will become of certificates.

use clap::Args;
use jiff::Timestamp;

use super::cert::{REASONS, moment};
use super::input::parsed;
use super::key::version;
use super::output::{facts, note, or_dash, time, yes_no};
use super::{App, all, noun};
use crate::error::Result;
use crate::types::{IssuerName, ProfileName, Version};
use crate::wire::{self, Announce};

noun! {
    /// Announce that certificates will be revoked or are to be replaced, so that their hosts renew before.
    Announcement: Verb {
        Create(Create),
        List(List),
        Cancel(Cancel),
    }
}

/// Announce what will become of the certificates that an issuer has made until now.
///
/// Conditions hold together; without any it is about all of them. Clients that ask when to renew are told to do it before that
/// time, each at another moment. With --revoke the service revokes them when the time has come.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet announcement create fleet --version 1 --at 2027-01-01T00:00:00Z
  signet announcement create fleet --from server --at 2027-01-01T00:00:00Z --revoke superseded --explanation https://wiki.example/17")]
struct Create {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// When.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Timestamp,
    /// Only certificates of this version of the issuer.
    #[arg(long = "version", id = "number", value_name = "N", value_parser = version)]
    version: Option<Version>,
    /// Only certificates from this profile.
    #[arg(long = "from", id = "of", value_name = "PROFILE", value_parser = parsed::<ProfileName>)]
    profile: Option<ProfileName>,
    /// Only the certificate with this serial number; can be repeated.
    #[arg(long = "serial", value_name = "SERIAL")]
    serials: Vec<String>,
    /// Revoke them at that time, for this reason.
    #[arg(long, value_name = "REASON", value_parser = REASONS)]
    revoke: Option<String>,
    /// Where people read about it.
    #[arg(long, value_name = "URL")]
    explanation: Option<String>,
}

impl Create {
    fn run(self, app: &App) -> Result<()> {
        let Self { name, at, version, profile, serials, revoke, explanation } = self;
        let body = Announce { version, profile, serials, at, revoke, explanation };
        let made = app.online(async |client| client.announce(&name, &body).await)?;
        app.out.answer(&made, |made| {
            facts([
                ("id", made.id.clone()),
                ("issuer", made.issuer.to_string()),
                ("at", time(made.at)),
                ("revokes", or_dash(made.revoke.as_ref())),
            ])
        })
    }
}

/// List the announcements of an issuer.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet announcement list fleet")]
struct List {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
}

impl List {
    fn run(self, app: &App) -> Result<()> {
        let found = app.online(async |client| all(async |page| client.announcements(&self.name, page).await).await)?;
        let header = ["ID", "AT", "VERSION", "PROFILE", "SERIALS", "REVOKES", "BY", "DONE"];
        app.out.list(&found, &found.items, &header, row)
    }
}

fn row(announcement: &wire::Announcement) -> Vec<String> {
    let wire::Announcement { id, version, profile, serials, at, revoke, by, done, .. } = announcement;
    vec![
        id.clone(),
        time(*at),
        or_dash(*version),
        or_dash(profile.as_ref()),
        or_dash(Some(serials.len()).filter(|count| *count > 0)),
        or_dash(revoke.as_ref()),
        by.clone(),
        yes_no(*done).to_owned(),
    ]
}

/// Take an announcement back before its time.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet announcement cancel fleet 0123456789abcdef")]
struct Cancel {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// Its id, as `signet announcement list` shows it.
    id: String,
}

impl Cancel {
    fn run(self, app: &App) -> Result<()> {
        let Self { name, id } = self;
        app.online(async |client| client.cancel_announcement(&name, &id).await)?;
        note(format_args!("cancelled {id}"));
        Ok(())
    }
}
