//! `signet acme`: where certificates are got by ACME, and for whom.

use clap::Args;

use super::input::parsed;
use super::output::{facts, joined, note, or_dash, time};
use super::sink::To;
use super::{App, all, ask, noun};
use crate::error::{Error, Kind, Result};
use crate::types::{EndpointName, IssuerName, Name, Period, ProfileName};
use crate::wire::{AcmeEndpoint, CreateAcmeEndpoint, CreateEabKey, EabKeyInfo};

noun! {
    /// Run ACME endpoints and the keys that bind their accounts to identities.
    Acme: Verb {
        Endpoint(Endpoint),
        Eab(Eab),
    }
}

noun! {
    /// Make, list, show and remove ACME endpoints.
    Endpoint: EndpointVerb {
        Create(Box<Create>),
        List(List),
        Show(Show),
        Delete(Delete),
    }
}

/// Make an endpoint; its accounts need a key of `signet acme eab`, unless --identity says for whom they all speak.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet acme endpoint create web fleet server --network 10.0.0.0/8
  signet acme endpoint create lab lab server client --identity lab-hosts --challenge dns-01")]
struct Create {
    /// Its name: NAME, or NAMESPACE:NAME.
    #[arg(value_parser = parsed::<EndpointName>)]
    name: EndpointName,
    /// The issuer that signs.
    #[arg(value_parser = parsed::<IssuerName>)]
    issuer: IssuerName,
    /// The profiles that may be asked for; the first where a client names none.
    #[arg(value_name = "PROFILE", required = true, value_parser = parsed::<ProfileName>)]
    profiles: Vec<ProfileName>,
    /// For whom every account speaks, without any binding.
    #[arg(long, value_name = "NAME", value_parser = parsed::<Name>)]
    identity: Option<Name>,
    /// A group of that identity, which policies may name; may be given several times.
    #[arg(long = "group", value_name = "NAME", requires = "identity", value_parser = parsed::<Name>)]
    groups: Vec<Name>,
    /// A kind of challenge: http-01, dns-01 or tls-alpn-01; may be given several times; all where not given.
    #[arg(long = "challenge", value_name = "KIND")]
    challenges: Vec<String>,
    /// A private network where proofs are looked for, such as 10.0.0.0/8; may be given several times. Public addresses always may be.
    #[arg(long = "network", value_name = "NETWORK")]
    networks: Vec<String>,
    /// The terms of service that an account must agree to.
    #[arg(long, value_name = "URL")]
    terms: Option<String>,
    /// Where people read about it.
    #[arg(long, value_name = "URL")]
    website: Option<String>,
    /// A name of this authority in CAA records, such as ca.example.com; without one they are not looked at.
    #[arg(long, value_name = "NAME")]
    caa: Vec<String>,
}

impl Create {
    fn run(self: Box<Self>, app: &App) -> Result<()> {
        let Self { name, issuer, profiles, identity, groups, challenges, networks, terms, website, caa } = *self;
        let challenges = Some(challenges).filter(|challenges| !challenges.is_empty());
        let body =
            CreateAcmeEndpoint { name, issuer, profiles, identity, groups, challenges, networks, terms, website, caa };
        let made = app.online(async |client| client.create_acme_endpoint(&body).await)?;
        app.out.answer(&made, shown)
    }
}

fn shown(endpoint: &AcmeEndpoint) -> String {
    let AcmeEndpoint { endpoint: made, directory, created } = endpoint;
    facts([
        ("name", made.name.to_string()),
        ("directory", directory.clone()),
        ("issuer", made.issuer.to_string()),
        ("profiles", joined(&made.profiles)),
        ("accounts", speaks_for(made)),
        ("challenges", joined(made.challenges.iter().flatten())),
        ("networks", joined(&made.networks)),
        ("terms", or_dash(made.terms.as_ref())),
        ("website", or_dash(made.website.as_ref())),
        ("caa", joined(&made.caa)),
        ("created", time(*created)),
    ])
}

fn speaks_for(endpoint: &CreateAcmeEndpoint) -> String {
    match &endpoint.identity {
        None => "need a binding".to_owned(),
        Some(identity) => format!("speak for {identity}"),
    }
}

/// List endpoints.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet acme endpoint list")]
struct List {}

impl List {
    fn run(self, app: &App) -> Result<()> {
        let Self {} = self;
        let endpoints = app.online(async |client| all(async |page| client.acme_endpoints(page).await).await)?;
        app.out.list(&endpoints, &endpoints.items, &["NAME", "ISSUER", "PROFILES", "ACCOUNTS"], |endpoint| {
            let made = &endpoint.endpoint;
            vec![made.name.to_string(), made.issuer.to_string(), joined(&made.profiles), speaks_for(made)]
        })
    }
}

/// Show an endpoint.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet acme endpoint show web")]
struct Show {
    /// The endpoint.
    #[arg(value_parser = parsed::<EndpointName>)]
    name: EndpointName,
}

impl Show {
    fn run(self, app: &App) -> Result<()> {
        let endpoint = app.online(async |client| client.acme_endpoint(&self.name).await)?;
        app.out.answer(&endpoint, shown)
    }
}

/// Remove an endpoint with its accounts, orders and binding keys; certificates stay as they are.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet acme endpoint delete web --yes")]
struct Delete {
    /// The endpoint.
    #[arg(value_parser = parsed::<EndpointName>)]
    name: EndpointName,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Delete {
    fn run(self, app: &App) -> Result<()> {
        let Self { name, yes } = self;
        let act = format!("this removes the ACME endpoint {name} with its accounts and orders");
        ask::confirm(&act, &name.to_string(), yes)?;
        app.online(async |client| client.delete_acme_endpoint(&name).await)?;
        note(format_args!("removed {name}"));
        Ok(())
    }
}

noun! {
    /// Make, list and revoke the keys that bind accounts to identities.
    Eab: EabVerb {
        Create(CreateEab),
        List(ListEab),
        Revoke(RevokeEab),
    }
}

/// Make a binding key; it is written once, to standard output or --out, and its id is told beside it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet acme eab create web web-servers --uses 1 --ttl 1h
  signet --json acme eab create web web-servers")]
struct CreateEab {
    /// The endpoint.
    #[arg(value_parser = parsed::<EndpointName>)]
    endpoint: EndpointName,
    /// For whom its accounts speak.
    #[arg(value_parser = parsed::<Name>)]
    identity: Name,
    /// A group that policies may name.
    #[arg(long = "group", value_name = "NAME", value_parser = parsed::<Name>)]
    groups: Vec<Name>,
    /// How long accounts can be made with it; without end where not given.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    ttl: Option<Period>,
    /// How many accounts can be made with it; any number where not given.
    #[arg(long, value_name = "N")]
    uses: Option<u64>,
    #[command(flatten)]
    to: To,
}

impl CreateEab {
    fn run(self, app: &App) -> Result<()> {
        let Self { endpoint, identity, groups, ttl, uses, to } = self;
        let body = CreateEabKey { identity, groups, ttl, uses };
        let created = app.online(async |client| client.create_eab_key(&endpoint, &body).await)?;
        let lost = || format!("signet acme eab revoke {endpoint} {}, then make another", created.info.id);
        let Some(key) = &created.key else {
            let sentence = format!("the key {} was made, but the answer with it was lost", created.info.id);
            return Err(Error::new(Kind::Unavailable, sentence).hint(lost()));
        };
        let written = if app.out.json {
            to.shown_once(app.out, &super::output::json(&created, false)?)
        } else {
            let line = zeroize::Zeroizing::new(format!("{}\n", key.0));
            to.shown_once(app.out, line.as_bytes())
        };
        written.map_err(|error| error.hint(lost()))?;
        note(format_args!("binding key {} for {}", created.info.id, created.info.identity));
        Ok(())
    }
}

/// List the binding keys of an endpoint, without the keys themselves.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet acme eab list web")]
struct ListEab {
    /// The endpoint.
    #[arg(value_parser = parsed::<EndpointName>)]
    endpoint: EndpointName,
}

impl ListEab {
    fn run(self, app: &App) -> Result<()> {
        let Self { endpoint } = self;
        let keys = app.online(async |client| all(async |page| client.eab_keys(&endpoint, page).await).await)?;
        let header = ["ID", "IDENTITY", "GROUPS", "CREATED", "EXPIRES", "USES LEFT", "REVOKED"];
        app.out.list(&keys, &keys.items, &header, row)
    }
}

fn row(key: &EabKeyInfo) -> Vec<String> {
    let EabKeyInfo { id, identity, groups, created, expires, uses_left, revoked } = key;
    vec![
        id.clone(),
        identity.to_string(),
        joined(groups),
        time(*created),
        or_dash(expires.map(time)),
        or_dash(*uses_left),
        or_dash(revoked.map(time)),
    ]
}

/// Revoke a binding key: it binds no more accounts, and those that it bound are refused.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet acme eab revoke web 1f0c2a")]
struct RevokeEab {
    /// The endpoint.
    #[arg(value_parser = parsed::<EndpointName>)]
    endpoint: EndpointName,
    /// The id of the key.
    id: String,
}

impl RevokeEab {
    fn run(self, app: &App) -> Result<()> {
        let Self { endpoint, id } = self;
        let key = app.online(async |client| client.revoke_eab_key(&endpoint, &id).await)?;
        let names = ["id", "identity", "groups", "created", "expires", "uses left", "revoked"];
        app.out.answer(&key, |key| facts(names.into_iter().zip(row(key))))
    }
}
