//! `signet issuer list`, `show`, `bundle` and `request`.

use clap::Args;

use crate::cli::input::parsed;
use crate::cli::key::version;
use crate::cli::output::{facts, joined, or_dash, table, time, yes_no};
use crate::cli::sink::To;
use crate::cli::{App, all};
use crate::error::{Error, Kind, Result};
use crate::types::{IssuerName, Name, Version};
use crate::wire::{Issuer, IssuerRules, IssuerVersion};

/// List issuers.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet issuer list --namespace fleet")]
pub(in crate::cli) struct List {
    /// Only the issuers of this namespace.
    #[arg(long, value_name = "NAME", value_parser = parsed::<Name>)]
    namespace: Option<Name>,
}

impl List {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let issuers =
            app.online(async |client| all(async |page| client.issuers(self.namespace.as_ref(), page).await).await)?;
        let header = ["NAME", "SUBJECT", "PARENT", "ALGORITHM", "DEVICE", "ACTIVE", "ENDS", "ISSUES"];
        app.out.list(&issuers, &issuers.items, &header, row)
    }
}

fn row(issuer: &Issuer) -> Vec<String> {
    vec![
        issuer.name.to_string(),
        issuer.subject.clone(),
        parent(issuer),
        issuer.algorithm.to_string(),
        issuer.device.to_string(),
        or_dash(issuer.active),
        or_dash(active(issuer).and_then(|version| version.not_after).map(time)),
        yes_no(issuer.enabled && issuer.active.is_some()).to_owned(),
    ]
}

fn parent(issuer: &Issuer) -> String {
    if issuer.outside { "(outside)".to_owned() } else { or_dash(issuer.parent.as_ref()) }
}

fn active(issuer: &Issuer) -> Option<&IssuerVersion> {
    issuer.versions.iter().find(|version| Some(version.version) == issuer.active)
}

/// Show an issuer and its versions, or write its certificate and those above it by --pem.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet issuer show fleet
  signet issuer show fleet --pem > fleet-chain.pem
  signet issuer show fleet --pem --version 2 --out fleet-2.pem")]
pub(in crate::cli) struct Show {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    /// Write the certificate and those above it in PEM, without the root's.
    #[arg(long)]
    pem: bool,
    /// Of this version, instead of the active one.
    #[arg(long = "version", id = "number", value_name = "N", value_parser = version, requires = "pem")]
    version: Option<Version>,
    #[command(flatten)]
    to: To,
}

impl Show {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { name, pem, version, to } = self;
        let issuer = app.online(async |client| client.issuer(&name).await)?;
        if app.out.json {
            return to.body(app.out, &issuer);
        }
        if !pem {
            return app.out.text(&shown(&issuer));
        }
        let found = match version {
            Some(number) => issuer.versions.iter().find(|version| version.version == number),
            None => active(&issuer),
        };
        let version = found.filter(|version| version.certificate.is_some()).ok_or_else(|| {
            Error::new(Kind::NotFound, format!("{name} has no such certificate"))
                .hint(format!("signet issuer show {name} lists its versions"))
        })?;
        let certificate = version.certificate.as_deref().unwrap_or_default();
        to.line(app.out, format!("{certificate}{}", version.chain).trim_end())
    }
}

/// An issuer for people.
pub(super) fn shown(issuer: &Issuer) -> String {
    let IssuerRules { lifetime, path_length, permitted, excluded, policies, distribution, rollover, .. } =
        &issuer.rules;
    let mut rows = vec![
        ("name", issuer.name.to_string()),
        ("subject", issuer.subject.clone()),
        ("parent", parent(issuer)),
        ("algorithm", issuer.algorithm.to_string()),
        ("device", issuer.device.to_string()),
        ("issues", yes_no(issuer.enabled && issuer.active.is_some()).to_owned()),
        ("lifetime", or_dash(*lifetime)),
        ("path length", or_dash(*path_length)),
        ("permitted", joined(permitted)),
        ("excluded", joined(excluded)),
        ("policies", joined(policies)),
    ];
    if let Some(places) = distribution {
        let all = [&places.crl, &places.ocsp, &places.issuer];
        let all: Vec<_> = all.into_iter().flatten().collect();
        rows.push(("distribution", if all.is_empty() { "(none)".to_owned() } else { joined(all) }));
    }
    rows.extend([
        (
            "next version",
            rollover
                .map_or("by hand".to_owned(), |at| format!("made at {} %, issues at {} %", at.prepare, at.activate)),
        ),
        ("created", time(issuer.created)),
        ("etag", issuer.etag.clone()),
    ]);
    let header = ["VERSION", "STATE", "BEGINS", "ENDS"];
    let versions = issuer.versions.iter().map(|version| {
        let IssuerVersion { version, state, not_before, not_after, .. } = version;
        vec![version.to_string(), state.clone(), or_dash(not_before.map(time)), or_dash(not_after.map(time))]
    });
    format!("{}\n\n{}", facts(rows), table(&header, versions, false))
}

/// Write the certificates that those who trust an issuer should trust, in PEM.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet issuer bundle fleet --out trust.pem")]
pub(in crate::cli) struct Bundle {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    #[command(flatten)]
    to: To,
}

impl Bundle {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let bundle = app.online(async |client| client.trust_bundle(&self.name).await)?;
        self.to.line(app.out, bundle.trim_end())
    }
}

/// Write the newest request of an issuer to its outside authority, in PEM.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet issuer request office --out office.csr")]
pub(in crate::cli) struct Request {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    name: IssuerName,
    #[command(flatten)]
    to: To,
}

impl Request {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let issuer = app.online(async |client| client.issuer(&self.name).await)?;
        let request = issuer.versions.iter().rev().find_map(|version| version.request.as_deref()).ok_or_else(|| {
            Error::new(Kind::State, format!("{} has no request", issuer.name))
                .hint("only an issuer that was made with --outside has one")
        })?;
        self.to.line(app.out, request.trim_end())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::cli::issuer) fn example() -> Issuer {
        serde_json::from_value(serde_json::json!({
            "name": "default:fleet", "subject": "CN=Fleet", "parent": "default:root", "outside": false,
            "algorithm": "ecdsa-p256-sha256", "device": "tpm", "enabled": true, "active": 1,
            "rules": {"permitted": ["dns:fleet.example"], "rollover": {"prepare": 50, "activate": 67}},
            "versions": [{"version": 1, "state": "active", "created": "2026-01-02T03:04:05Z",
                          "not_before": "2026-01-02T03:04:05Z", "not_after": "2031-01-02T03:04:05Z"}],
            "created": "2026-01-02T03:04:05Z", "etag": "e1",
        }))
        .unwrap()
    }

    #[test]
    fn an_issuer_is_shown_in_words() {
        let text = shown(&example());
        assert!(text.contains("\npermitted     dns:fleet.example\n"), "{text}");
        assert!(text.contains("\nnext version  made at 50 %, issues at 67 %\n"), "{text}");
        assert!(text.ends_with("\n1        active  2026-01-02T03:04:05Z  2031-01-02T03:04:05Z"), "{text}");
        assert_eq!(row(&example()).len(), 8);
    }
}
