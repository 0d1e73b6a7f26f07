//! `signet wrap`, `unwrap` and `datakey`.
//!
//! A ciphertext is written as it is, or in base64 by `--base64` and on a terminal. A plaintext is never written to a terminal
//! unasked.

use std::path::{Path, PathBuf};

use clap::Args;

use super::App;
use super::input::{ContextArgs, MAX_CIPHERTEXT, MAX_MESSAGE, parsed, read, read_bytes, read_text};
use super::sink::{Access, To, write};
use crate::ciphertext::{Label, seal_for};
use crate::error::{Error, Kind, Result};
use crate::types::{Context, KeyName, PublicKey, SecretBytes};
use crate::wire::{self, Base64, GenerateDataKey, PublicKeyInfo, SecretBase64};

/// Wrap a plaintext of up to 64 KiB: only the key's device can make it readable again.
///
/// With `--public-key` no service is asked, and nothing is recorded: whoever has the public key can wrap.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet wrap payments:card-data secret.txt --out secret.wrapped --context tenant=acme
  printf %s hunter2 | signet wrap payments:card-data --base64
  signet key public-key payments:inbox --json > inbox.json
  signet wrap payments:inbox secret.txt --public-key inbox.json --out secret.wrapped")]
pub(super) struct Wrap {
    /// The key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// The plaintext; - for standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    to: To,
    /// Write the ciphertext in base64.
    #[arg(long)]
    base64: bool,
    /// Wrap offline, by the public key in this file: what `signet key public-key KEY --json` wrote.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
}

impl Wrap {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let Self { name, file, context, to, base64, public_key } = self;
        let context = context.context()?;
        let plaintext = read(&file, MAX_MESSAGE)?;
        let wrapped = match public_key {
            Some(path) => offline(&name, &path, &context, &plaintext)?,
            None => {
                let body = wire::Wrap { plaintext: SecretBase64(plaintext), context };
                app.online(async |client| client.wrap(&name, &body).await)?
            }
        };
        if app.out.json { to.body(app.out, &wrapped) } else { to.public(app.out, &wrapped.ciphertext.0, base64) }
    }
}

/// Wraps by a public key alone.
fn offline(name: &KeyName, path: &Path, context: &Context, plaintext: &SecretBytes) -> Result<wire::Wrapped> {
    let shown = |e| Error::new(Kind::Invalid, format!("{} is no public key", path.display())).because(e);
    let info: PublicKeyInfo = serde_json::from_str(&read_text(path)?)
        .map_err(|e| shown(e).hint("it is what `signet key public-key KEY --json` writes"))?;
    let PublicKeyInfo { key, id, version, algorithm, pem, .. } = info;
    if key != *name {
        return Err(Error::new(Kind::Invalid, format!("{} is the public key of {key}", path.display())));
    }
    let label = Label { algorithm, key_id: id, version };
    let blob = seal_for(&PublicKey::from_pem(&pem)?, &label, &context.hash(), plaintext.expose())?;
    Ok(wire::Wrapped { ciphertext: Base64(blob), version })
}

/// Unwrap a ciphertext.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet unwrap payments:card-data secret.wrapped --out secret.txt --context tenant=acme
  signet unwrap payments:card-data secret.b64 --base64 | psql-login")]
pub(super) struct Unwrap {
    /// The key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// The ciphertext; - for standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    to: To,
    /// The ciphertext is in base64.
    #[arg(long)]
    base64: bool,
    /// Open it even though its version was declared compromised: somebody else may have made it.
    #[arg(long)]
    danger_allow_compromised: bool,
}

impl Unwrap {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let Self { name, file, context, to, base64, danger_allow_compromised } = self;
        let context = context.context()?;
        let ciphertext = Base64(read_bytes(&file, MAX_CIPHERTEXT, base64)?);
        let body = wire::Unwrap { ciphertext, context, danger_allow_compromised };
        let unwrapped = app.online(async |client| client.unwrap(&name, &body).await)?;
        if app.out.json {
            return to.secret_body(app.out, &unwrapped);
        }
        to.secret(app.out, unwrapped.plaintext.0.expose())
    }
}

/// Make a random data key: its plaintext to use now, its wrapped form to keep beside the data.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet datakey payments:card-data --wrapped-out data.key.wrapped --out data.key
  signet datakey payments:card-data --wrapped-out data.key.wrapped --no-plaintext")]
pub(super) struct Datakey {
    /// The key that wraps it.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// Its length in bytes.
    #[arg(long, value_name = "N", default_value = "32", value_parser = clap::value_parser!(u8).range(16..=64))]
    length: u8,
    #[command(flatten)]
    context: ContextArgs,
    /// Where the wrapped form goes.
    #[arg(long, value_name = "FILE", required_unless_present = "json")]
    wrapped_out: Option<PathBuf>,
    /// Make the wrapped form only.
    #[arg(long)]
    no_plaintext: bool,
    #[command(flatten)]
    to: To,
}

impl Datakey {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let Self { name, length, context, wrapped_out, no_plaintext, to } = self;
        let body =
            GenerateDataKey { length: usize::from(length), context: context.context()?, plaintext: !no_plaintext };
        let key = app.online(async |client| client.datakey(&name, &body).await)?;
        if let Some(path) = &wrapped_out {
            write(path, &key.ciphertext.0, Access::Umask, to.force())?;
        }
        if app.out.json {
            return if no_plaintext { to.body(app.out, &key) } else { to.secret_body(app.out, &key) };
        }
        match &key.plaintext {
            Some(plaintext) => to.secret(app.out, plaintext.0.expose()),
            None if no_plaintext => Ok(()),
            None => Err(Error::new(Kind::Internal, "the server left the plaintext out of its answer")),
        }
    }
}
