//! `signet agent`: what runs beside a service.

use std::path::PathBuf;

use clap::Args;

use super::input::{one_of, parsed, unreadable};
use super::output::{note, time};
use super::{App, block_on, noun, subject};
use crate::agent::{Agent as Keeper, Home, KeyType, Looked, San, Settings, Signal, Tell, usual_key, usual_share};
use crate::client::{Certificate, Client};
use crate::error::{Error, Kind, Result};
use crate::types::{Clock, IssuerName, Period, ProfileName, Subject};

noun! {
    /// Keep a service in certificates.
    Agent: Verb {
        Cert(Box<Cert>),
    }
}

/// Keep one certificate: the key is made here, and the next certificate is asked for in time, for ever or --once.
///
/// FOLDER/current/ holds tls.key, tls.crt (leaf first) and ca.crt, all of one certificate at any moment: `current` is a link that
/// changes in one rename. Point the service there, and say how it is told to read its files again. Whatever fails, the last
/// certificate stays and the agent tries again; it ends by SIGTERM at any moment.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet agent cert fleet:web server /etc/nginx/tls --name dns:web.example.com --command /etc/nginx/reload
  signet agent cert fleet:db server /var/lib/postgresql/tls --name dns:db.example.com --pid-file /run/postgresql/main.pid
  signet agent cert fleet:web server /etc/nginx/tls --name dns:web.example.com --key-in tpm --pid-file /run/nginx.pid
  signet agent cert --config /etc/signet/web.toml --once")]
struct Cert {
    /// The issuer that signs.
    #[arg(value_parser = parsed::<IssuerName>, required_unless_present = "config")]
    issuer: Option<IssuerName>,
    /// The profile of the certificate.
    #[arg(id = "kind", value_name = "PROFILE", value_parser = parsed::<ProfileName>, required_unless_present = "config")]
    profile: Option<ProfileName>,
    /// Where files are put.
    #[arg(required_unless_present = "config")]
    folder: Option<PathBuf>,
    /// A TOML file that says all of this, in place of the options.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["issuer", "kind", "folder", "names", "subject", "lifetime", "key_type", "key_in"])]
    #[arg(conflicts_with_all = ["renew_at", "command", "pid_file", "signal", "kubernetes_secret", "renew_by_certificate"])]
    config: Option<PathBuf>,
    /// A name, as dns:web.example.com or uri:spiffe://td/web; may be given several times.
    #[arg(long = "name", id = "names", value_name = "NAME", value_parser = parsed::<San>)]
    names: Vec<San>,
    /// The subject, as CN=web.example.com, where the profile lets it be asked for.
    #[arg(long, value_name = "SUBJECT", value_parser = subject::parsed)]
    subject: Option<Subject>,
    /// How long each certificate is to live; as the profile says where not given.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    lifetime: Option<Period>,
    /// The type of the key.
    #[arg(long, value_name = "TYPE", value_parser = one_of(KeyType::ALL, KeyType::as_str), default_value = "ecdsa-p256")]
    key_type: Option<KeyType>,
    /// Where the key is made: file, or tpm for the TPM of this machine, or tpm:ADDRESS.
    ///
    /// tls.key of a TPM is a TSS2 PRIVATE KEY, which programs read that use OpenSSL's tpm2 provider. docs/agent.md shows nginx.
    #[arg(long, value_name = "HOME", value_parser = parsed::<Home>)]
    key_in: Option<Home>,
    /// Ask for the next one after so many hundredths of the life of this one.
    #[arg(long, value_name = "N", default_value = "66")]
    renew_at: Option<u8>,
    /// Tell the service by this command of the shell, which finds the folder in SIGNET_FOLDER.
    #[arg(long, value_name = "COMMAND")]
    command: Option<String>,
    /// Tell the process whose number stands in this file.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// By this signal, hup where not given.
    #[arg(long, value_name = "SIGNAL", requires = "pid_file", value_parser = one_of(Signal::ALL, Signal::as_str))]
    signal: Option<Signal>,
    /// Also write FOLDER/current/secret.yaml, a Secret of Kubernetes with this name.
    #[arg(long, value_name = "NAME")]
    kubernetes_secret: Option<String>,
    /// Once there is a certificate, let it be the credential for the next one.
    #[arg(long)]
    renew_by_certificate: bool,
    /// Look once: renew where that is due, tell the service, and end.
    #[arg(long)]
    once: bool,
    /// Renew now, due or not.
    #[arg(long, requires = "once")]
    force: bool,
}

impl Cert {
    fn run(self, app: &App) -> Result<()> {
        let (once, force) = (self.once, self.force);
        let connect = |own: Option<Certificate>| {
            let mut options =
                if own.is_some() { app.global.without_credential()? } else { app.global.client_options()? };
            options.certificate = own.or(options.certificate);
            Client::new(options)
        };
        // What is missing to connect is told at once, not in a log an hour later.
        app.global.without_credential()?;
        let keeper = Keeper::new(self.settings()?, connect, Clock::System)?;
        crate::telemetry::start_logs();
        block_on(async {
            if once {
                let Looked { renewed: _, why, ends, next, ask_again: _ } = keeper.look(force).await?;
                let what = match why {
                    Some(why) => format!("a new certificate is in place ({why})"),
                    None => "the certificate stays".to_owned(),
                };
                note(format!("{what}: it ends {}, and the next one is due {}", time(ends), time(next)));
                return Ok(());
            }
            keeper.run().await
        })
    }

    fn settings(self) -> Result<Settings> {
        if let Some(file) = &self.config {
            let text = std::fs::read_to_string(file).map_err(|e| unreadable(file, &e))?;
            return toml::from_str(&text).map_err(|e| {
                Error::new(Kind::Invalid, format!("{}: {}", file.display(), e.message()))
                    .hint("docs/agent.md tells the words of this file")
            });
        }
        let missing =
            || Error::new(Kind::Invalid, "issuer, profile and folder are needed").hint("or a file by --config");
        let tell = Tell { command: self.command, pid_file: self.pid_file, signal: self.signal };
        Ok(Settings {
            issuer: self.issuer.ok_or_else(missing)?,
            profile: self.profile.ok_or_else(missing)?,
            names: self.names,
            subject: self.subject.unwrap_or_default(),
            lifetime: self.lifetime,
            folder: self.folder.ok_or_else(missing)?,
            key_type: self.key_type.unwrap_or_else(usual_key),
            key_in: self.key_in.unwrap_or_default(),
            renew_at: self.renew_at.unwrap_or_else(usual_share),
            tell,
            kubernetes_secret: self.kubernetes_secret,
            renew_by_certificate: self.renew_by_certificate,
        })
    }
}
