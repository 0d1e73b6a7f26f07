//! `signet init`.

use std::path::PathBuf;

use clap::Args;

use super::output::note;
use super::serve::ConfigFile;
use super::sink::{self, Access};
use super::{App, service_runtime};
use crate::cli::input::parsed;
use crate::config::Config;
use crate::device::PinSource;
use crate::error::{Error, Kind, Result};
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
  signet init --config signet.toml --share hsm-a --share hsm-b
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
    /// Have two devices share key-encryption keys, in an installation that is not running: a key of residency `shared` is in both then,
    /// and outlives either. A device that was replaced gets them from the one that is left, by leave of that one's security officer.
    #[arg(long, value_name = "DEVICE", value_parser = parsed::<Name>, conflicts_with_all = ["enrol", "token_out", "new_administrator"])]
    share: Vec<Name>,
    /// The file with the PIN of the security officer, of the device that shares keys already.
    #[arg(long, value_name = "FILE", requires = "share")]
    officer_pin: Option<PathBuf>,
    /// Make another token of an administrator, where nobody has one any more. The service must not be running.
    #[arg(long, conflicts_with = "enrol")]
    new_administrator: bool,
    /// Make what newer installations are born with, in an installation that is older and not running: an attestation key,
    /// key-encryption keys and an anchor in each device, and an Ed25519 key of the audit log where a device keeps one.
    #[arg(long, conflicts_with_all = ["enrol", "share", "new_administrator", "token_out"])]
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
        if !self.share.is_empty() {
            return self.share(&config, &options);
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

impl Init {
    fn share(&self, config: &Config, options: &Options) -> Result<()> {
        let [one, other] = self.share.as_slice() else {
            return Err(Error::new(Kind::Invalid, "two devices share keys").hint("`--share ONE --share OTHER`"));
        };
        let officer = self.officer_pin.clone().map(PinSource::File);
        note(match service_runtime(server::share(config, options, [one, other], officer))? {
            server::Shared::Anew => format!("devices {one} and {other} share key-encryption keys"),
            server::Shared::PassedOn => {
                format!("devices {one} and {other} have all shared keys now, old ones included")
            }
            server::Shared::Already => "nothing was to be done: they share already".to_owned(),
        });
        note("make keys that outlive either: `signet key create NAME --residency shared`");
        Ok(())
    }
}
