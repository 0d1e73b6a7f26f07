//! How the command line finds its server and its credential.
//!
//! Options come first, then the environment, then the profile file:
//!
//! ```toml
//! # $SIGNET_PROFILE, or $XDG_CONFIG_HOME/signet/client.toml, or ~/.config/signet/client.toml
//! server = "https://kms.example:8443"
//! ca = "ca.pem"              # paths are relative to the folder of this file
//! token_file = "token"
//! cert = "client.pem"
//! key = "client.key"
//! ```
//!
//! The credentials of a profile belong to its server: they are not sent to another one that an option names.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::input::{parsed, read, unreadable};
use super::sink::{self, Access};
use crate::client::{Certificate, Options};
use crate::error::{Error, Kind, Result};
use crate::types::{Period, SecretBytes};
use crate::wire::SecretText;

/// The longest token, certificate or key file.
const MAX_FILE: usize = 1 << 20;

/// The options of every verb.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Global {
    /// The server.
    #[arg(long, global = true, env = "SIGNET_SERVER", value_name = "URL")]
    #[arg(help_heading = "Connection", hide_short_help = true)]
    server: Option<String>,
    /// The authorities that may vouch for the server, in PEM.
    #[arg(long, global = true, env = "SIGNET_CA", value_name = "FILE")]
    #[arg(help_heading = "Connection", hide_short_help = true)]
    ca: Option<PathBuf>,
    /// A file with a bearer token; the variable SIGNET_TOKEN may hold the token itself.
    #[arg(long, global = true, env = "SIGNET_TOKEN_FILE", value_name = "FILE")]
    #[arg(help_heading = "Connection", hide_short_help = true)]
    token_file: Option<PathBuf>,
    /// The client certificate, in PEM.
    #[arg(long, global = true, env = "SIGNET_CERT", value_name = "FILE")]
    #[arg(help_heading = "Connection", hide_short_help = true)]
    cert: Option<PathBuf>,
    /// The private key of the client certificate, in PEM.
    #[arg(id = "client_key", long = "key", global = true, env = "SIGNET_KEY", value_name = "FILE")]
    #[arg(help_heading = "Connection", hide_short_help = true)]
    key: Option<PathBuf>,
    /// The file with server and credentials that `signet login` wrote, where it is not the usual one; not a profile of certificates.
    #[arg(long, global = true, env = "SIGNET_PROFILE", value_name = "FILE")]
    #[arg(help_heading = "Connection", hide_short_help = true)]
    profile: Option<PathBuf>,
    /// How long one attempt may take.
    #[arg(long, global = true, value_parser = parsed::<Period>, value_name = "PERIOD", default_value = "30s")]
    #[arg(help_heading = "Connection", hide_short_help = true)]
    timeout: Option<Period>,
    /// How long to try again while the server is busy or cannot be reached.
    #[arg(long, global = true, value_parser = parsed::<Period>, value_name = "PERIOD", default_value = "10s")]
    #[arg(help_heading = "Connection", hide_short_help = true)]
    retry_for: Option<Period>,
    /// A file that gets the receipt of each answer, for `signet audit verify --receipts`.
    #[arg(long, global = true, env = "SIGNET_RECEIPTS", value_name = "FILE")]
    #[arg(help_heading = "Connection", hide_short_help = true)]
    keep_receipts: Option<PathBuf>,
    /// Write the body of the API for programs, instead of a table for people.
    #[arg(long, global = true, display_order = 900)]
    pub(super) json: bool,
}

/// A profile file. `init` and `dev` write one, so that no options are needed afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// `https://HOST[:PORT]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) server: Option<String>,
    /// The authorities, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// The file of the bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// The client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<PathBuf>,
    /// Its private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
}

impl Profile {
    /// The usual place.
    pub(crate) fn usual_path(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
        let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
        Some(config.join("signet").join("client.toml"))
    }

    /// Reads a profile, with its paths made whole. No file is an empty profile.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(unreadable(path, &e)),
        };
        let Self { server, ca, token_file, cert, key } = toml::from_str(&text).map_err(|e| {
            let problem = e.message().to_owned();
            Error::new(Kind::Invalid, format!("{} is not a profile: {problem}", path.display()))
        })?;
        let whole = |file: Option<PathBuf>| file.map(|file| path.with_file_name("").join(file));
        Ok(Self { server, ca: whole(ca), token_file: whole(token_file), cert: whole(cert), key: whole(key) })
    }

    /// Writes the profile, readable by its owner only, in place of an older one.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        make_folder(path)?;
        let text = toml::to_string(self).map_err(|e| Error::internal("writing a profile").because(e))?;
        sink::write(path, text.as_bytes(), Access::Owner, true)
    }
}

/// Makes the folder of `path`, closed to others.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| super::output::unwritable(folder.display(), &e))
}

impl Global {
    /// Where the profile is, or would be.
    pub(super) fn profile_path(&self) -> Result<PathBuf> {
        self.profile.clone().or_else(|| Profile::usual_path(|name| std::env::var_os(name))).ok_or_else(|| {
            Error::new(Kind::Invalid, "there is no place for a profile").hint("set HOME or SIGNET_PROFILE")
        })
    }

    /// What the client needs, from options, environment and profile.
    pub(super) fn client_options(&self) -> Result<Options> {
        let mut options = self.without_credential()?;
        let found = self.found()?;
        let typed = std::env::var("SIGNET_TOKEN").ok().filter(|text| !text.is_empty());
        options.token = match (self.token_file.as_ref(), typed, found.token_file) {
            (Some(file), _, _) => Some(token(file)?),
            (None, Some(text), _) => Some(text_of_token(&SecretBytes::new(text.into_bytes()))?),
            (None, None, Some(file)) if file.exists() => Some(token(&file)?),
            (None, None, Some(_) | None) => None,
        };
        options.certificate = match (found.cert, found.key) {
            (Some(cert), Some(key)) => {
                Some(Certificate { chain: read(&cert, MAX_FILE)?.expose().to_vec(), key: read(&key, MAX_FILE)? })
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(Error::new(Kind::Invalid, "a client certificate needs both its parts")
                    .hint("give --cert and --key, or neither"));
            }
        };
        if options.token.is_none() && options.certificate.is_none() {
            return Err(Error::new(Kind::Unauthenticated, "there is no credential for this server")
                .hint("signet login stores a token; or give --token-file, or --cert and --key"));
        }
        Ok(options)
    }

    /// The same, for those who bring a credential of their own.
    pub(super) fn without_credential(&self) -> Result<Options> {
        let found = self.found()?;
        let server = found.server.ok_or_else(|| {
            Error::new(Kind::Invalid, "no server is known")
                .hint("give --server, set SIGNET_SERVER, or run signet login")
        })?;
        let ca = found.ca.ok_or_else(|| {
            Error::new(Kind::Invalid, "no authority is known that could vouch for the server")
                .hint("give --ca FILE, or set SIGNET_CA: those of the system are not trusted")
        })?;
        let mut options = Options::new(server, read(&ca, MAX_FILE)?.expose().to_vec());
        if let Some(timeout) = self.timeout {
            options.timeout = timeout.as_duration();
        }
        if let Some(retry_for) = self.retry_for {
            options.retry_for = retry_for.as_duration();
        }
        options.receipts.clone_from(&self.keep_receipts);
        Ok(options)
    }

    /// Options before profile.
    pub(super) fn found(&self) -> Result<Profile> {
        let profile = match self.profile_path() {
            Ok(path) => Profile::load(&path)?,
            Err(_) => Profile::default(),
        };
        let same_server = self.server.is_none() || self.server == profile.server;
        let base = if same_server { profile } else { Profile::default() };
        // Certificate and key are a pair: half of each source would be none.
        let (cert, key) = if self.cert.is_some() || self.key.is_some() {
            (self.cert.clone(), self.key.clone())
        } else {
            (base.cert, base.key)
        };
        Ok(Profile {
            server: self.server.clone().or(base.server),
            ca: self.ca.clone().or(base.ca),
            token_file: self.token_file.clone().or(base.token_file),
            cert,
            key,
        })
    }
}

fn token(file: &Path) -> Result<SecretText> {
    text_of_token(&read(file, MAX_FILE)?).map_err(|e| e.context(file.display()))
}

/// A token as it stands in a file or is typed.
pub(super) fn text_of_token(bytes: &SecretBytes) -> Result<SecretText> {
    let text = std::str::from_utf8(bytes.expose()).map(str::trim).unwrap_or_default();
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(Error::new(Kind::Invalid, "not a token").hint("a token is one line that starts with sgt_"));
    }
    Ok(SecretText(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_where_people_look() {
        let path = |vars: &'static [(&str, &str)]| {
            Profile::usual_path(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        assert_eq!(path(&[("XDG_CONFIG_HOME", "/c"), ("HOME", "/h")]), Some("/c/signet/client.toml".into()));
        assert_eq!(path(&[("XDG_CONFIG_HOME", ""), ("HOME", "/h")]), Some("/h/.config/signet/client.toml".into()));
        assert_eq!(path(&[]), None);
    }

    fn saved(profile: &Profile) -> (tempfile::TempDir, Global) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/client.toml");
        profile.save(&path).unwrap();
        (folder, Global { profile: Some(path), ..Global::default() })
    }

    #[test]
    fn a_profile_reads_back_with_whole_paths() {
        let profile = Profile {
            server: Some("https://a".into()),
            ca: Some("ca.pem".into()),
            token_file: Some("/etc/token".into()),
            ..Profile::default()
        };
        let (folder, global) = saved(&profile);
        let found = global.found().unwrap();
        assert_eq!(found.ca, Some(folder.path().join("new/ca.pem")));
        assert_eq!(found.token_file, Some("/etc/token".into()));
    }

    #[test]
    fn credentials_stay_with_their_server() {
        let profile = Profile {
            server: Some("https://a".into()),
            token_file: Some("/t".into()),
            cert: Some("/c".into()),
            key: Some("/k".into()),
            ..Profile::default()
        };
        let (_folder, mut global) = saved(&profile);
        global.server = Some("https://b".into());
        assert_eq!(global.found().unwrap(), Profile { server: Some("https://b".into()), ..Profile::default() });
        global.server = Some("https://a".into());
        assert_eq!(global.found().unwrap(), profile);
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let (folder, _) = saved(&Profile::default());
        let path = folder.path().join("bad.toml");
        std::fs::write(&path, "token = 'sgt_secret'").unwrap();
        let error = Profile::load(&path).unwrap_err();
        assert!(error.public().contains("unknown field") && !format!("{error:?}").contains("sgt_secret"), "{error:?}");
    }

    #[test]
    fn a_token_is_one_word() {
        let read = |text: &[u8]| text_of_token(&SecretBytes::new(text.to_vec())).map(|token| token.0.clone());
        assert_eq!(read(b" sgt_x\n").unwrap(), "sgt_x");
        for bad in [&b""[..], b"\n", b"sgt_x sgt_y", b"\xff"] {
            assert!(read(bad).is_err());
        }
    }
}
