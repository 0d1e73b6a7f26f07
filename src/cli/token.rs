//! `signet token`: bearer tokens.

use clap::Args;

use super::input::parsed;
use super::output::{facts, joined, note, or_dash, time};
use super::sink::To;
use super::{App, all, noun};
use crate::error::{Error, Kind, Result};
use crate::types::{Name, Period};
use crate::wire::{CreateToken, TokenInfo};

noun! {
    /// Make, list and revoke bearer tokens.
    Token: Verb {
        Create(Create),
        List(List),
        Show(Show),
        Revoke(Revoke),
    }
}

/// Make a token; its secret is written once, to standard output or --out.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet token create ci --group builders --ttl 12h --out ci.token
  signet token create bootstrap --uses 1 --ttl 15m | ssh host signet login")]
struct Create {
    /// The identity it speaks for.
    #[arg(value_parser = parsed::<Name>)]
    identity: Name,
    /// A group that policies may name.
    #[arg(long = "group", value_name = "NAME", value_parser = parsed::<Name>)]
    groups: Vec<Name>,
    /// How long it lives: 24h where not given, at most 365d.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    ttl: Option<Period>,
    /// How many requests it serves; without limit where not given.
    #[arg(long, value_name = "N")]
    uses: Option<u64>,
    #[command(flatten)]
    to: To,
}

impl Create {
    fn run(self, app: &App) -> Result<()> {
        let Self { identity, groups, ttl, uses, to } = self;
        let body = CreateToken { identity, groups, ttl, uses };
        let created = app.online(async |client| client.create_token(&body).await)?;
        let Some(token) = &created.token else {
            let sentence = format!("token {} was made, but the answer with its secret was lost", created.info.id);
            let hint = format!("signet token revoke {}, then make another", created.info.id);
            return Err(Error::new(Kind::Unavailable, sentence).hint(hint));
        };
        let written = if app.out.json {
            to.shown_once(app.out, &super::output::json(&created, false)?)
        } else {
            let line = zeroize::Zeroizing::new(format!("{}\n", token.0));
            to.shown_once(app.out, line.as_bytes())
        };
        let told = |error: Error| {
            let hint = format!("its secret is lost: signet token revoke {}, then make another", created.info.id);
            error.hint(hint)
        };
        written.map_err(told)?;
        note(format_args!("token {}, until {}", created.info.id, time(created.info.expires)));
        Ok(())
    }
}

/// List tokens, without their secrets.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet token list")]
struct List {}

impl List {
    fn run(self, app: &App) -> Result<()> {
        let Self {} = self;
        let tokens = app.online(async |client| all(async |page| client.tokens(page).await).await)?;
        let header = ["ID", "IDENTITY", "GROUPS", "CREATED", "EXPIRES", "USES LEFT", "REVOKED"];
        app.out.list(&tokens, &tokens.items, &header, row)
    }
}

fn row(token: &TokenInfo) -> Vec<String> {
    let TokenInfo { id, identity, groups, created, expires, uses_left, revoked } = token;
    vec![
        id.clone(),
        identity.to_string(),
        joined(groups),
        time(*created),
        time(*expires),
        or_dash(*uses_left),
        or_dash(revoked.map(time)),
    ]
}

fn shown(token: &TokenInfo) -> String {
    let names = ["id", "identity", "groups", "created", "expires", "uses left", "revoked"];
    facts(names.into_iter().zip(row(token)))
}

/// Show what is known of a token.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet token show 1f0c2a")]
struct Show {
    /// Its public id, not its secret.
    id: String,
}

impl Show {
    fn run(self, app: &App) -> Result<()> {
        let token = app.online(async |client| client.token(public(&self.id)?).await)?;
        app.out.answer(&token, shown)
    }
}

/// Revoke a token: it is refused from now on.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet token revoke 1f0c2a")]
struct Revoke {
    /// Its public id, not its secret.
    id: String,
}

impl Revoke {
    fn run(self, app: &App) -> Result<()> {
        let token = app.online(async |client| client.revoke_token(public(&self.id)?).await)?;
        app.out.answer(&token, shown)
    }
}

/// Refuses a secret that was given for an id, before it travels in an address.
fn public(id: &str) -> Result<&str> {
    if id.starts_with("sgt_") {
        return Err(Error::new(Kind::Invalid, "this is the secret of a token, not its id")
            .hint("other users of this machine could read it: revoke it by its id, which signet token list shows"));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_given_for_an_id_is_refused_unseen() {
        let error = public("sgt_secret").unwrap_err();
        assert!(!format!("{error:?}{:?}", error.mend()).contains("sgt_secret"));
        assert_eq!(public("1f0c2a").unwrap(), "1f0c2a");
    }
}
