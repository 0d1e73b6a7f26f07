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
/// of the first administrator, once. It serves one request within an hour: make a lasting credential with it. Nothing else ever
/// makes these: a service whose data folder or token is gone refuses to start.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet init --config signet.toml
  signet init --config signet.toml --token-out first.token
  signet init --config signet.toml --enrol tpm
  signet init --config signet.toml --upgrade
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
    /// Make what newer installations are born with, in an installation that is older and not running: an attestation key,
    /// key-encryption keys and an anchor in each device, and an Ed25519 key of the audit log where a device keeps one.
    #[arg(long, conflicts_with_all = ["enrol", "new_administrator", "token_out"])]
    upgrade: bool,
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
        if self.upgrade {
            let made = service_runtime(server::upgrade(&config, &options))?;
            if made == server::Upgraded::default() {
                note("nothing was missing");
            }
            let server::Upgraded { attestation_keys, key_encryption_keys, anchors, log_key, lost_log_key } = made;
            if let Some(device) = lost_log_key {
                note(format!("heads of the audit log are not signed any more by the key that device {device} keeps"));
            }
            if let Some(device) = log_key {
                note(format!("made an Ed25519 key of the audit log in device {device}"));
                note(
                    "tell auditors and witnesses of it: `signet audit head --public-key`, `signet audit head --verifier-key`",
                );
            }
            let made = [
                (&attestation_keys, "an attestation key"),
                (&key_encryption_keys, "key-encryption keys for kinds of keys that it did not wrap before"),
                (&anchors, "an anchor of the store"),
            ];
            for (devices, what) in made {
                devices.iter().for_each(|device| note(format!("made {what} in device {device}")));
            }
            return Ok(());
        }
        let token = if self.new_administrator {
            service_runtime(server::new_administrator(&config, &options))?
        } else {
            let created = service_runtime(server::create(&config, &options))?;
            note(format!("{} is set up", config.data.display()));
            for device in &created.software {
                note(format!(
                    "device {device} is software: its anchor proves nothing to whoever can put its files back"
                ));
            }
            created.token
        };
        match &self.token_out {
            Some(path) => sink::write(path, token.as_bytes(), Access::Owner, false)?,
            None => app.out.bytes(format!("{}\n", token.as_str()).as_bytes())?,
        }
        let first = self.token_out.as_deref().unwrap_or_else(|| std::path::Path::new("FILE")).display().to_string();
        let ca = if config.certificate.is_none() { config.data.join("tls/ca.pem") } else { PathBuf::from("CA.PEM") };
        let server = format!("--server https://{} --ca {}", config.listen, ca.display());
        note("the token of the first administrator is shown once and serves one request within an hour; next:");
        note(format!("  signet serve --config {}", self.config.path().display()));
        note(format!(
            "  signet token create NAME --group administrators --ttl 90d --out admin.token {server} --token-file {first}"
        ));
        note(format!("  signet login {server} < admin.token"));
        Ok(())
    }
}
