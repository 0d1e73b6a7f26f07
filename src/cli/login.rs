//! `signet login`: keeps a token for later commands.

use std::path::Path;

use clap::Args;

use super::connection::{Profile, make_folder, text_of_token};
use super::sink::{self, Access};
use super::{App, ask, block_on, output};
use crate::client::Client;
use crate::error::Result;
use crate::wire::SecretText;

/// Check a token and keep it, with server and authority, in the profile.
///
/// The token is read from standard input, or asked for without being shown. The profile is
/// ~/.config/signet/client.toml; the token is kept beside it, readable by its owner only.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet login --server https://kms.example:8443 --ca ca.pem
  signet login < token.txt")]
pub(super) struct Login {}

impl Login {
    pub(super) fn run(self, app: &App) -> Result<()> {
        let Self {} = self;
        let mut options = app.global.without_credential()?;
        let token = text_of_token(&ask::secret("Token:")?)?;
        options.token = Some(SecretText(token.0.clone()));
        let client = Client::new(options)?;
        let who = block_on(client.whoami())?;
        let path = app.global.profile_path()?;
        keep(&path, &token, app.global.found()?)?;
        output::note(format_args!("logged in; kept in {}", path.display()));
        app.out.answer(&who, super::whoami::shown)
    }
}

/// The token first: a profile never names a file that is not there.
fn keep(path: &Path, token: &SecretText, found: Profile) -> Result<()> {
    make_folder(path)?;
    let token_file = path.with_file_name("token");
    sink::write(&token_file, token.0.as_bytes(), Access::Owner, true)?;
    let Profile { server, ca, token_file: _, cert, key } = found;
    let absolute = |file: Option<std::path::PathBuf>| file.map(|file| std::path::absolute(&file).unwrap_or(file));
    Profile { server, ca: absolute(ca), token_file: Some(token_file), cert: absolute(cert), key: absolute(key) }
        .save(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_kept_beside_the_profile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signet/client.toml");
        let found = Profile { server: Some("https://a".into()), ca: Some("/ca.pem".into()), ..Profile::default() };
        keep(&path, &SecretText("sgt_x".into()), found).unwrap();
        let profile = Profile::load(&path).unwrap();
        assert_eq!(std::fs::read(profile.token_file.unwrap()).unwrap(), b"sgt_x");
        assert_eq!((profile.server.as_deref(), profile.ca), (Some("https://a"), Some("/ca.pem".into())));
        assert!(!std::fs::read_to_string(&path).unwrap().contains("sgt_x"));
    }
}
