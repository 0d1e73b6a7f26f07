//! `signet dev`.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, ValueEnum};

use super::connection::Profile;
use super::output::note;
use super::sink::{self, Access};
use super::{App, service_runtime};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::server::{self, Options, Server};
use crate::types::{Name, Period};

/// The scripts that make the software devices: the ones the tests use.
const TOKEN_SCRIPT: &str = include_str!("../../softhsm/token.sh");
const SWTPM_SCRIPT: &str = include_str!("../../softhsm/swtpm.sh");

/// Try Signet: start everything in a temporary folder, on a software device.
///
/// Makes a token, an installation, an administrator and a profile, serves until Ctrl-C, and removes it all. The keys are in
/// software: this is to try things, not to keep them.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet dev
  signet dev --device swtpm
  signet dev --device both --listen 127.0.0.1:9443")]
pub(super) struct Dev {
    /// The software device.
    #[arg(long, value_enum, default_value_t = Device::Softhsm)]
    device: Device,
    /// Where to listen; a free port of this machine where not given.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: std::net::SocketAddr,
    /// Use this folder, which must be new, and keep it.
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Device {
    /// A SoftHSM token.
    Softhsm,
    /// A software TPM.
    Swtpm,
    /// Both.
    Both,
}

impl Dev {
    pub(super) fn run(self, _: &App) -> Result<()> {
        if !self.listen.ip().is_loopback() {
            return Err(Error::new(Kind::Invalid, "signet dev listens on this machine only")
                .hint("set up a real installation with `signet init`"));
        }
        let unusable =
            |e: std::io::Error| Error::new(Kind::Unavailable, "a temporary folder cannot be made").because(e);
        let (folder, _temporary) = match &self.keep {
            Some(folder) => {
                std::fs::create_dir(folder).map_err(unusable)?;
                (std::fs::canonicalize(folder).map_err(unusable)?, None)
            }
            None => {
                let temporary = tempfile::Builder::new().prefix("signet-dev-").tempdir().map_err(unusable)?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let devices = Software::start(&folder, self.device)?;
        // The certificates name this place, so its port cannot be left to the listener.
        let public = format!("127.0.0.1:{}", free_port_pair()?);
        let text = format!(
            "[server]\nlisten = \"{}\"\n\n[storage]\ndata = \"{}\"\n\n\
             [pki]\nlisten = \"{public}\"\nurl = \"http://{public}\"\n\n{}",
            self.listen,
            folder.join("data").display(),
            devices.stanzas
        );
        let file = folder.join("signet.toml");
        sink::write(&file, text.as_bytes(), Access::Owner, false)?;
        let config = Config::read(&file)?;
        service_runtime(async {
            let options = Options::new()?;
            // The first administrator's token is used up here: a lasting one takes its place.
            let created = server::create(&config, &options).await?;
            drop(created);
            let server = Server::start(&config, options).await?;
            let profile = write_profile(&folder, &server).await?;
            greet(&server, &profile, &public, self.device);
            super::serve::serve_until_asked(server).await
        })
    }
}

/// Software devices, ended on drop.
struct Software {
    folder: PathBuf,
    swtpm: bool,
    stanzas: String,
}

impl Software {
    fn start(folder: &Path, device: Device) -> Result<Self> {
        let mut software = Self { folder: folder.to_owned(), swtpm: false, stanzas: String::new() };
        if matches!(device, Device::Softhsm | Device::Both) {
            let pin = folder.join("pin");
            let token = folder.join("token");
            let paths = [token.as_os_str(), "signet".as_ref(), pin.as_os_str()];
            script(folder, "token.sh", TOKEN_SCRIPT, &paths)?;
            software.stanzas.push_str(&format!(
                "[devices.softhsm]\nkind = \"pkcs11\"\nmodule = \"/usr/lib/softhsm/libsofthsm2.so\"\ntoken_label = \"signet\"\n\
                 pin_file = \"{}\"\nsync_dir = \"{}\"\nenvironment = {{ SOFTHSM2_CONF = \"{}\" }}\n\n",
                pin.display(),
                token.join("tokens").display(),
                token.join("softhsm2.conf").display(),
            ));
        }
        if matches!(device, Device::Swtpm | Device::Both) {
            let port = free_port_pair()?.to_string();
            let state = folder.join("tpm");
            script(folder, "swtpm.sh", SWTPM_SCRIPT, &["start".as_ref(), state.as_os_str(), port.as_ref()])?;
            software.swtpm = true;
            software
                .stanzas
                .push_str(&format!("[devices.tpm]\nkind = \"tpm\"\ntcti = \"swtpm:host=127.0.0.1,port={port}\"\n\n"));
        }
        Ok(software)
    }
}

impl Drop for Software {
    fn drop(&mut self) {
        if self.swtpm {
            let state = self.folder.join("tpm");
            // It is ending: there is nobody left to tell.
            let _ = script(&self.folder, "swtpm.sh", SWTPM_SCRIPT, &["stop".as_ref(), state.as_os_str()]);
        }
    }
}

fn script(folder: &Path, name: &str, text: &str, arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let path = folder.join(name);
    sink::write(&path, text.as_bytes(), Access::Owner, true)?;
    let output = Command::new("sh").arg(&path).args(arguments).output();
    let output = output.map_err(|e| Error::new(Kind::Unavailable, format!("{name}: {e}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
    Err(Error::new(Kind::Unavailable, format!("{name}: {}", said.trim()))
        .hint("apt-get install softhsm2 opensc swtpm tpm2-tools libtss2-tcti-swtpm0"))
}

/// Two ports side by side below those that the system hands out to outgoing connections.
fn free_port_pair() -> Result<u16> {
    let mut seed = [0; 2];
    getrandom::fill(&mut seed).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
    let start = u16::from_le_bytes(seed) % 10_000;
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    (0..1000)
        .map(|step| 10_000 + 2 * ((start + step) % 10_000))
        .find(|port| free(*port) && free(port + 1))
        .ok_or_else(|| Error::new(Kind::Unavailable, "no two free ports were found"))
}

/// A lasting administrator, and a profile that finds it.
async fn write_profile(folder: &Path, server: &Server) -> Result<PathBuf> {
    let token = server.administrator(Name::new("developer")?, Period::seconds(30 * 86_400)).await?;
    let token_file = folder.join("admin.token");
    sink::write(&token_file, token.as_bytes(), Access::Owner, false)?;
    let profile = Profile {
        server: Some(format!("https://{}", server.address())),
        ca: server.own_authority(),
        token_file: Some(token_file),
        ..Profile::default()
    };
    let path = folder.join("client.toml");
    profile.save(&path)?;
    Ok(path)
}

fn greet(server: &Server, profile: &Path, public: &str, device: Device) {
    note(format!("signet dev serves on https://{}", server.address()));
    note(format!("revocation lists and OCSP are on http://{public}/pki/"));
    note("in another terminal:");
    note(format!("  export SIGNET_PROFILE={}", profile.display()));
    for line in [
        "signet status",
        "signet key create data --algorithm aes256-gcm-derived",
        "echo secret | signet wrap data --out secret.wrapped && signet unwrap data secret.wrapped --force",
        "signet key create release --algorithm ecdsa-p256-sha256 --domain raw",
        "signet sign release /bin/ls --out ls.sig && signet verify release /bin/ls --signature ls.sig",
        "signet issuer create root --subject CN=Root --algorithm ecdsa-p256-sha256",
        "signet cert issue root server --new-key web.key --name dns:localhost --out web.pem",
    ] {
        note(format!("  {line}"));
    }
    if device == Device::Both {
        note("  signet key create tpm-data --algorithm aes256-gcm-derived --device tpm");
    }
    note("Ctrl-C ends it");
}
