//! `signet mac`.

use std::path::PathBuf;

use clap::Args;

use super::App;
use super::input::{MAX_MESSAGE, parsed, read, read_bytes};
use super::key::version;
use super::sign::judge;
use super::sink::To;
use crate::error::Result;
use crate::types::{KeyName, Version};
use crate::wire::{Base64, MakeMac, VerifyMac};

/// The longest code, with room.
const MAX_MAC: usize = 256;

/// Make a message authentication code, or check one by --verify.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet mac sessions cookie.txt --out cookie.mac
  signet mac sessions cookie.txt --verify cookie.mac")]
pub(super) struct Mac {
    /// The key.
    #[arg(value_name = "KEY", value_parser = parsed::<KeyName>)]
    name: KeyName,
    /// The message, up to 64 KiB; - for standard input.
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Check this code instead: prints VALID, INVALID or COMPROMISED, and exits with 6 unless it is valid.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["out", "force"])]
    verify: Option<PathBuf>,
    /// The version that made the code, instead of the primary one.
    #[arg(long = "version", id = "number", value_name = "N", value_parser = version, requires = "verify")]
    version: Option<Version>,
    #[command(flatten)]
    to: To,
    /// The code is in base64.
    #[arg(long)]
    base64: bool,
}

impl Mac {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let Self { name, file, verify, version, to, base64 } = self;
        let message = Base64(read(&file, MAX_MESSAGE)?.expose().to_vec());
        if let Some(code) = verify {
            let mac = Base64(read_bytes(&code, MAX_MAC, base64)?);
            let body = VerifyMac { message, mac, version };
            let verified = app.online(async |client| client.verify_mac(&name, &body).await)?;
            return judge(app, &verified, "code");
        }
        let made = app.online(async |client| client.mac(&name, &MakeMac { message }).await)?;
        if app.out.json { to.body(app.out, &made) } else { to.public(app.out, &made.mac.0, base64) }
    }
}
