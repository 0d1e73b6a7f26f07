//! `signet init`.

use std::path::PathBuf;

use clap::Args;

use super::output::note;
use super::serve::ConfigFile;
use super::sink::{self, Access};
use super::{App, service_runtime};
use crate::cli::input::parsed;
use crate::error::Result;
use crate::server::{self, Options};
use crate::types::Name;

/// Set up a new installation in an empty data folder.
///
/// Enrols each configured device, makes the root key in one of them, the sealed store and the audit log, and prints a token
/// of the first administrator, once. It is valid for an hour: make lasting credentials with it. Nothing else ever makes these:
/// a service whose data folder or token is gone refuses to start.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet init --config signet.toml
  signet init --config signet.toml --token-out first.token
  signet init --config signet.toml --enrol tpm
  signet init --config signet.toml --new-administrator")]
pub(super) struct Init {
    #[command(flatten)]
    config: ConfigFile,
    /// Write the token to a new file that only its owner can read, instead of standard output.
    #[arg(long, value_name = "FILE")]
    token_out: Option<PathBuf>,
    /// Enrol one more device in an installation that exists and is not running.
    #[arg(long, value_name = "DEVICE", value_parser = parsed::<Name>, conflicts_with = "token_out")]
    enrol: Option<Name>,
    /// Make another token of an administrator, where nobody has one any more. The service must not be running.
    #[arg(long, conflicts_with = "enrol")]
    new_administrator: bool,
}

impl Init {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let config = self.config.read()?;
        let options = Options::new()?;
        if let Some(device) = &self.enrol {
            service_runtime(server::enrol(&config, &options, device))?;
            note(format!("device {device} is enrolled"));
            return Ok(());
        }
        let token = if self.new_administrator {
            service_runtime(server::new_administrator(&config, &options))?
        } else {
            let created = service_runtime(server::create(&config, &options))?;
            note(format!("{} is set up", config.data.display()));
            created.token
        };
        match &self.token_out {
            Some(path) => sink::write(path, token.as_bytes(), Access::Owner, false)?,
            None => app.out.bytes(format!("{}\n", token.as_str()).as_bytes())?,
        }
        let server = format!("https://{}", config.listen);
        let ca = config.data.join("tls/ca.pem");
        note("this token of the first administrator is valid for an hour and shown once; next:");
        note(format!("  signet serve --config {}", self.config.path().display()));
        if config.certificate.is_none() {
            note(format!("  signet login --server {server} --ca {}", ca.display()));
        } else {
            note(format!("  signet login --server {server} --ca CA.PEM"));
        }
        note("  signet token create NAME --group administrators --ttl 90d --out admin.token");
        Ok(())
    }
}
