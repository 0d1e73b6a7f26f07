//! `signet cert issue` and `renew`.

use clap::Args;

use super::key::{KeyArgs, USUAL_KIND};
use crate::cli::input::parsed;
use crate::cli::output::{note, time};
use crate::cli::sink::To;
use crate::cli::{App, subject};
use crate::error::{Error, Kind, Result};
use crate::types::{IssuerName, Period, ProfileName, Subject};
use crate::wire::{Certificate, CertificateWanted, IssueCertificate};

/// Issue a certificate, and write it with the ones between it and the root, in PEM.
///
/// The file is what a TLS server or client sends; `signet issuer bundle` writes what the other side trusts.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet cert issue fleet server --new-key web.key --name dns:web.fleet.example --out web.pem
  signet cert issue fleet appliance --software-key box.key --key-type rsa-3072 --name dns:box.fleet.example --out box.pem
  signet cert issue fleet client --csr robot.csr --name uri:spiffe://fleet.example/robot --lifetime 12h --out robot.pem")]
pub(in crate::cli) struct Issue {
    /// The issuer.
    #[arg(value_name = "ISSUER", value_parser = parsed::<IssuerName>)]
    issuer: IssuerName,
    /// The profile; `signet profile list` shows which there are.
    #[arg(id = "of", value_name = "PROFILE", value_parser = parsed::<ProfileName>)]
    profile: ProfileName,
    #[command(flatten)]
    source: KeyArgs,
    /// The kind of a --software-key: ecdsa-p256 where not told; ecdsa-p384, ed25519, rsa-2048, rsa-3072, rsa-4096.
    #[arg(long, value_name = "TYPE", requires = "software_key")]
    key_type: Option<String>,
    /// A name, as dns:web.example.com, ip:10.0.0.1, email:a@b.example or uri:spiffe://td/x; may be given several times.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// The subject, as CN=web.example.com, where the profile lets it be asked for.
    #[arg(long, value_name = "SUBJECT", value_parser = subject::parsed)]
    subject: Option<Subject>,
    /// How long it is to live, instead of the profile's usual time.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    lifetime: Option<Period>,
    #[command(flatten)]
    to: To,
}

impl Issue {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { issuer, profile, source, key_type, names, subject, lifetime, to } = self;
        to.check()?;
        let ready = source.ready(to.force())?;
        let wanted = CertificateWanted {
            csr: ready.csr.clone(),
            key: ready.csr.is_none().then(|| key_type.unwrap_or_else(|| USUAL_KIND.to_owned())),
            names,
            subject: subject.unwrap_or_default(),
            lifetime,
            ..CertificateWanted::default()
        };
        let body = IssueCertificate { profile, request: wanted };
        let mut certificate = app.online(async |client| client.issue(&issuer, &body).await)?;
        ready.keep(&mut certificate)?;
        written(app, &to, &certificate)
    }
}

/// Issue a certificate with the names, the subject and the profile of another one, for another key.
///
/// The older one stays valid until it ends or is revoked, so that both can be in use while the new one is put in place.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  signet cert renew 0123456789abcdef0123456789abcdef01234567 --new-key web.key --out web.pem --force")]
pub(in crate::cli) struct Renew {
    /// The serial number of the other one.
    #[arg(value_parser = super::serial)]
    serial: String,
    #[command(flatten)]
    source: KeyArgs,
    /// How long it is to live, instead of the profile's usual time.
    #[arg(long, value_name = "PERIOD", value_parser = parsed::<Period>)]
    lifetime: Option<Period>,
    #[command(flatten)]
    to: To,
}

impl Renew {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { serial, source, lifetime, to } = self;
        to.check()?;
        let ready = source.ready(to.force())?;
        let mut certificate = app.online(async |client| {
            let (issuer, body) = again(&client.certificate(&serial).await?, ready.csr.clone(), lifetime)?;
            client.issue(&issuer, &body).await
        })?;
        ready.keep(&mut certificate)?;
        written(app, &to, &certificate)
    }
}

/// What has to be asked for to get such a certificate again.
fn again(old: &Certificate, csr: Option<String>, lifetime: Option<Period>) -> Result<(IssuerName, IssueCertificate)> {
    let profile = old.profile.parse().map_err(|_| {
        Error::new(Kind::Invalid, format!("{} was not issued from a profile", old.serial))
            .hint("what the service makes for itself it renews itself; signet issuer rotate renews an issuer")
    })?;
    let request = CertificateWanted {
        key: csr.is_none().then(|| USUAL_KIND.to_owned()),
        csr,
        names: old.names.clone(),
        subject: subject::subject(&old.subject)?,
        lifetime,
        ..CertificateWanted::default()
    };
    Ok((old.issuer.clone(), IssueCertificate { profile, request }))
}

fn written(app: &App, to: &To, certificate: &Certificate) -> Result<()> {
    note(format_args!("certificate {}, until {}", certificate.serial, time(certificate.not_after)));
    if app.out.json {
        return to.body(app.out, certificate);
    }
    to.line(app.out, &super::show::pem(certificate)?)
}

#[cfg(test)]
mod tests {
    use super::super::show::tests::example;
    use super::*;

    #[test]
    fn a_renewal_asks_for_the_same_again() {
        let (issuer, body) = again(&example(), Some("csr".to_owned()), None).unwrap();
        assert_eq!((issuer.to_string(), body.profile.to_string()), ("default:fleet".into(), "default:server".into()));
        assert_eq!(body.request.names, ["dns:web.fleet.example"]);
        assert_eq!(body.request.subject.common_name.as_deref(), Some("web.fleet.example"));
        let own = Certificate { profile: "(root)".to_owned(), ..example() };
        assert_eq!(again(&own, Some(String::new()), None).unwrap_err().kind(), Kind::Invalid);
    }
}
