//! `signet issuer`: certification authorities.

use std::path::PathBuf;

use clap::Args;

use super::input::{one_of, parsed, read_text};
use super::output::{facts, joined, note, or_dash, time, yes_no};
use super::{App, all, verbs};
use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, IssuerName, Name, Period, Residency, Version};
use crate::wire::{
    ActivateIssuer, CreateIssuer, CrossSign, ImportIssuer, Issuer as Shown, IssuerRules, IssuerVersion, RotateIssuer,
    Subject, UpdateIssuer,
};

/// Make issuers of certificates, show them, and roll their keys over.
#[derive(Args, Debug)]
pub(super) struct Issuer {
    #[command(subcommand)]
    verb: Verb,
}

impl Issuer {
    pub(super) fn run(self, app: &App) -> Result<()> {
        self.verb.run(app)
    }
}

verbs! {
    /// What can be done to issuers.
    Verb {
        Create(Create),
        List(List),
        Show(Show),
        Csr(Csr),
        Import(Import),
        Rotate(Rotate),
        CrossSign(Cross),
        Update(Update),
    }
}

/// Make an issuer and its key.
///
/// A root certifies itself; below --parent an issuer of ours does, and with --outside somebody else, who gets the request that
/// `signet issuer csr` prints. Its next versions come by themselves, in good time.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet issuer create fleet:root --common-name 'Fleet-Root' --algorithm ecdsa-p384-sha384 --path-length 1
  signet issuer create fleet:ca --common-name 'Fleet-CA' --algorithm ecdsa-p256-sha256 --parent fleet:root --device tpm
  signet issuer create fleet:sub --common-name 'Fleet-Sub' --algorithm ecdsa-p256-sha256 --outside")]
struct Create {
    /// The new issuer: NAME, or NAMESPACE:NAME; its key gets the same name.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// The common name of its subject.
    #[arg(long, value_name = "TEXT")]
    common_name: String,
    /// The organisation of its subject.
    #[arg(long, value_name = "TEXT")]
    organization: Option<String>,
    /// The country of its subject, two letters.
    #[arg(long, value_name = "CC")]
    country: Option<String>,
    /// How its key signs.
    #[arg(long, value_name = "ALGORITHM", value_parser = one_of(Algorithm::ALL, Algorithm::as_str))]
    algorithm: Algorithm,
    /// The issuer that certifies it, instead of itself.
    #[arg(long, value_name = "ISSUER", value_parser = parsed::<IssuerName>, conflicts_with = "outside")]
    parent: Option<IssuerName>,
    /// Have an outside authority certify it.
    #[arg(long)]
    outside: bool,
    /// The device that keeps its key, instead of the server's default.
    #[arg(long, value_name = "NAME", value_parser = parsed::<Name>)]
    device: Option<Name>,
    /// Where the key stays there, instead of the device's default.
    #[arg(long, value_name = "WHERE", value_parser = one_of(Residency::ALL, Residency::as_str))]
    residency: Option<Residency>,
    #[command(flatten)]
    rules: Rules,
}

/// What counts for an issuer from its next version on.
#[derive(Args, Clone, Debug, Default)]
struct Rules {
    /// How long its certificates live, such as 3650d.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    lifetime: Option<Period>,
    /// How many authorities may stand below it.
    #[arg(long, value_name = "N")]
    path_length: Option<u8>,
    /// Names that it may certify: dns:DOMAIN, ip:NETWORK/LENGTH, email:HOST or uri:HOST.
    #[arg(long = "permit", value_name = "NAMES")]
    permitted: Vec<String>,
    /// Names that it may not certify.
    #[arg(long = "exclude", value_name = "NAMES")]
    excluded: Vec<String>,
    /// A policy under which it is certified, as an object identifier.
    #[arg(long = "policy", value_name = "OID")]
    policies: Vec<String>,
    /// Make its next versions only by hand.
    #[arg(long)]
    manual_rollover: bool,
}

impl Rules {
    fn words(self) -> IssuerRules {
        let Self { lifetime, path_length, permitted, excluded, policies, manual_rollover } = self;
        IssuerRules {
            lifetime,
            path_length,
            permitted,
            excluded,
            policies,
            distribution: None,
            rollover: None,
            manual_rollover,
        }
    }
}

impl Create {
    fn run(self, app: &App) -> Result<()> {
        let Self { name, common_name, organization, country, algorithm, parent, outside, device, residency, rules } =
            self;
        let subject = Subject { common_name: Some(common_name), organization, country, ..Subject::default() };
        let body = CreateIssuer { name, subject, parent, outside, algorithm, device, residency, rules: rules.words() };
        let issuer = app.online(async |client| client.create_issuer(&body).await)?;
        app.out.answer(&issuer, shown)?;
        if outside && !app.out.json {
            note(format_args!("next: `signet issuer csr {}` prints its request", issuer.name));
        }
        Ok(())
    }
}

/// List issuers.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet issuer list --namespace fleet
  signet issuer list --json | jq -r '.items[].name'")]
struct List {
    /// Only the issuers of this namespace.
    #[arg(long, value_name = "NAME", value_parser = parsed::<Name>)]
    namespace: Option<Name>,
}

impl List {
    fn run(self, app: &App) -> Result<()> {
        let found =
            app.online(async |client| all(async |page| client.issuers(self.namespace.as_ref(), page).await).await)?;
        let header = ["NAME", "SUBJECT", "PARENT", "ALGORITHM", "DEVICE", "ACTIVE", "ENDS"];
        app.out.list(&found, &found.items, &header, row)
    }
}

fn row(issuer: &Shown) -> Vec<String> {
    vec![
        issuer.name.to_string(),
        issuer.subject.clone(),
        parent(issuer),
        issuer.algorithm.to_string(),
        issuer.device.to_string(),
        if issuer.enabled { or_dash(issuer.active) } else { "stopped".to_owned() },
        or_dash(active(issuer).and_then(|version| version.not_after).map(time)),
    ]
}

fn parent(issuer: &Shown) -> String {
    match (&issuer.parent, issuer.outside) {
        (Some(parent), _) => parent.to_string(),
        (None, true) => "outside".to_owned(),
        (None, false) => "itself".to_owned(),
    }
}

fn active(issuer: &Shown) -> Option<&IssuerVersion> {
    issuer.versions.iter().find(|version| Some(version.version) == issuer.active)
}

/// Show an issuer, or write its certificate.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet issuer show fleet:ca
  signet issuer show fleet:root --pem > root.pem")]
struct Show {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// Write the certificate of its active version and those above it in PEM, without the root of others.
    #[arg(long)]
    pem: bool,
}

impl Show {
    fn run(self, app: &App) -> Result<()> {
        let Self { name, pem } = self;
        let issuer = app.online(async |client| client.issuer(&name).await)?;
        if !pem {
            return app.out.answer(&issuer, shown);
        }
        let active = active(&issuer).ok_or_else(|| {
            Error::new(Kind::State, format!("{name} has no version that issues"))
                .hint("`signet issuer show` without --pem tells its versions")
        })?;
        app.out.text(&format!("{}{}", active.certificate.as_deref().unwrap_or_default(), active.chain))
    }
}

/// An issuer for people.
fn shown(issuer: &Shown) -> String {
    let rules = &issuer.rules;
    let rollover = rules.rollover.filter(|_| !rules.manual_rollover);
    let mut text = facts([
        ("name", issuer.name.to_string()),
        ("subject", issuer.subject.clone()),
        ("certified by", parent(issuer)),
        ("algorithm", issuer.algorithm.to_string()),
        ("device", issuer.device.to_string()),
        ("issues", yes_no(issuer.enabled && issuer.active.is_some()).to_owned()),
        ("lifetime", or_dash(rules.lifetime)),
        ("path length", or_dash(rules.path_length)),
        ("permitted names", joined(&rules.permitted)),
        ("excluded names", joined(&rules.excluded)),
        ("policies", joined(&rules.policies)),
        (
            "rollover",
            rollover.map_or_else(
                || "by hand".to_owned(),
                |rule| format!("prepared at {} %, activated at {} % of its life", rule.prepare, rule.activate),
            ),
        ),
        ("created", time(issuer.created)),
        ("etag", issuer.etag.clone()),
    ]);
    for version in &issuer.versions {
        let until =
            version.not_after.map_or_else(|| "no certificate yet".to_owned(), |end| format!("until {}", time(end)));
        text.push_str(&format!("\nversion {}            {}, {until}", version.version, version.state));
    }
    text
}

/// Print the request of an issuer to an outside authority, in PEM.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet issuer csr fleet:sub > fleet-sub.csr")]
struct Csr {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
}

impl Csr {
    fn run(self, app: &App) -> Result<()> {
        let issuer = app.online(async |client| client.issuer(&self.name).await)?;
        let waiting = issuer.versions.iter().rev().find(|version| version.state == "requested");
        let request = waiting.and_then(|version| version.request.as_deref()).ok_or_else(|| {
            Error::new(Kind::State, format!("no version of {} waits for a certificate", self.name))
                .hint("`signet issuer rotate` makes the next version and its request")
        })?;
        app.out.text(request)
    }
}

/// Give an issuer the certificate that an outside authority made for it.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet issuer import fleet:sub fleet-sub-chain.pem")]
struct Import {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// PEM: its certificate, and below it those above it, nearest first; - for standard input.
    file: PathBuf,
}

impl Import {
    fn run(self, app: &App) -> Result<()> {
        let body = ImportIssuer { chain: read_text(&self.file)? };
        let issuer = app.online(async |client| client.import_issuer(&self.name, &body).await)?;
        app.out.answer(&issuer, shown)
    }
}

/// Make the next version of an issuer, or put it in force.
///
/// The next version is published at once and issues nothing until it is activated, so that everybody has time to trust it.
/// Both happen by themselves at their time, unless the issuer was made with --manual-rollover.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet issuer rotate fleet:ca
  signet issuer rotate fleet:ca --activate")]
struct Rotate {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// Put the version in force that is prepared.
    #[arg(long)]
    activate: bool,
    /// Refuse unless this is the newest version.
    #[arg(long, value_name = "N", value_parser = super::key::version, conflicts_with = "activate")]
    expected_version: Option<Version>,
}

impl Rotate {
    fn run(self, app: &App) -> Result<()> {
        let Self { name, activate, expected_version } = self;
        let issuer = app.online(async |client| {
            if !activate {
                return client.rotate_issuer(&name, &RotateIssuer { expected_version }).await;
            }
            let now = client.issuer(&name).await?;
            let prepared = now.versions.iter().rev().find(|version| version.state == "prepared");
            let version = prepared.map(|version| version.version).ok_or_else(|| {
                Error::new(Kind::State, format!("no version of {name} is prepared"))
                    .hint("`signet issuer rotate` without --activate makes the next one")
            })?;
            client.activate_issuer(&name, &ActivateIssuer { version }).await
        })?;
        app.out.answer(&issuer, shown)
    }
}

/// Have another issuer certify the newest version of this one as well.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet issuer cross-sign fleet:root --by old:root")]
struct Cross {
    /// The issuer that is certified.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// The issuer that signs.
    #[arg(long, value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    by: IssuerName,
}

impl Cross {
    fn run(self, app: &App) -> Result<()> {
        let body = CrossSign { signer: self.by };
        let issuer = app.online(async |client| client.cross_sign(&self.name, &body).await)?;
        app.out.answer(&issuer, shown)
    }
}

/// Stop an issuer, or let it issue again; change what counts from its next version on.
///
/// Rules that are given replace all of its rules.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet issuer update fleet:ca --enabled false
  signet issuer update fleet:ca --lifetime 365d --path-length 0")]
struct Update {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// Whether it issues; it tells of revocation all the same.
    #[arg(long, value_name = "BOOL")]
    enabled: Option<bool>,
    #[command(flatten)]
    rules: Rules,
}

impl Update {
    fn run(self, app: &App) -> Result<()> {
        let Self { name, enabled, rules } = self;
        let words = rules.words();
        let rules = (words != IssuerRules::default()).then_some(words);
        let issuer = app.online(async |client| {
            let now = client.issuer(&name).await?;
            client.update_issuer(&name, &now.etag, &UpdateIssuer { enabled, rules }).await
        })?;
        app.out.answer(&issuer, shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Shown {
        serde_json::from_value(serde_json::json!({
            "name": "fleet:ca", "subject": "CN=Fleet", "outside": false, "algorithm": "ecdsa-p256-sha256",
            "device": "tpm", "enabled": true, "active": 1, "parent": "fleet:root",
            "rules": {"lifetime": "10d", "rollover": {"prepare": 50, "activate": 67}},
            "versions": [{"version": 1, "state": "active", "created": "2026-01-02T03:04:05Z",
                          "not_after": "2027-01-02T03:04:05Z"}],
            "created": "2026-01-02T03:04:05Z", "etag": "7",
        }))
        .unwrap()
    }

    #[test]
    fn an_issuer_is_shown_in_words() {
        let text = shown(&example());
        assert!(text.contains("prepared at 50 %, activated at 67 % of its life"), "{text}");
        assert!(text.contains("\nversion 1            active, until "), "{text}");
        assert_eq!(row(&example()).len(), 7);
    }
}
