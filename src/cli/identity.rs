//! `signet identity`: who proves themselves by a client certificate.

use std::path::{Path, PathBuf};

use clap::Args;
use x509_parser::pem::parse_x509_pem;

use super::input::{parsed, read_text};
use super::output::{facts, joined, note};
use super::{App, all, ask, noun};
use crate::error::{Error, Kind, Result};
use crate::types::{Name, sha256};
use crate::wire::{CertificateMatch, Identity as Body};

noun! {
    /// Store, show and remove identities that use client certificates.
    Identity: Verb {
        Set(Set),
        List(List),
        Show(Show),
        Delete(Delete),
    }
}

/// Store an identity, in place of an older one; any one of the certificates named proves it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet identity set deploy --group builders --spiffe spiffe://example.org/deploy
  signet identity set laptop --certificate laptop.pem")]
struct Set {
    /// The identity.
    #[arg(value_parser = parsed::<Name>)]
    name: Name,
    /// A group that policies may name.
    #[arg(long = "group", value_name = "NAME", value_parser = parsed::<Name>)]
    groups: Vec<Name>,
    /// Certificates with this SPIFFE id as their only URI name.
    #[arg(long, value_name = "URI", required_unless_present_any = ["dns", "public_key", "certificate"])]
    spiffe: Vec<String>,
    /// Certificates with this DNS name among their names.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// Certificates with this public key: the SHA-256 of its SPKI, in hex.
    #[arg(long, value_name = "HEX")]
    public_key: Vec<String>,
    /// Certificates with the public key of this one, in PEM.
    #[arg(long, value_name = "FILE")]
    certificate: Vec<PathBuf>,
}

impl Set {
    fn run(self, app: &App) -> Result<()> {
        let Self { name, groups, spiffe, dns, public_key, certificate } = self;
        let pinned: Vec<_> = certificate.iter().map(|file| key_hash(file)).collect::<Result<_>>()?;
        let certificates = spiffe
            .into_iter()
            .map(CertificateMatch::Spiffe)
            .chain(dns.into_iter().map(CertificateMatch::Dns))
            .chain(public_key.into_iter().chain(pinned).map(CertificateMatch::PublicKey))
            .collect();
        let body = Body { name: None, groups, certificates };
        let identity = app.online(async |client| client.put_identity(&name, &body).await)?;
        app.out.answer(&identity, shown)
    }
}

/// SHA-256 of the public key of a certificate, in hex.
fn key_hash(file: &Path) -> Result<String> {
    let text = read_text(file)?;
    let refuse = || Error::new(Kind::Invalid, format!("{} is not a certificate in PEM", file.display()));
    let (_, pem) = parse_x509_pem(text.as_bytes()).map_err(|_| refuse())?;
    let certificate = pem.parse_x509().map_err(|_| refuse())?;
    Ok(hex::encode(sha256(&[certificate.tbs_certificate.subject_pki.raw])))
}

fn matches(identity: &Body) -> String {
    joined(identity.certificates.iter().map(|one| match one {
        CertificateMatch::Spiffe(id) => format!("spiffe {id}"),
        CertificateMatch::Dns(name) => format!("dns {name}"),
        CertificateMatch::PublicKey(hash) => format!("public key {hash}"),
    }))
}

fn shown(identity: &Body) -> String {
    facts([
        ("name", super::output::or_dash(identity.name.as_ref())),
        ("groups", joined(&identity.groups)),
        ("certificates", matches(identity)),
    ])
}

/// List identities.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet identity list")]
struct List {}

impl List {
    fn run(self, app: &App) -> Result<()> {
        let Self {} = self;
        let identities = app.online(async |client| all(async |page| client.identities(page).await).await)?;
        app.out.list(&identities, &identities.items, &["NAME", "GROUPS", "CERTIFICATES"], |identity| {
            vec![super::output::or_dash(identity.name.as_ref()), joined(&identity.groups), matches(identity)]
        })
    }
}

/// Show an identity.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet identity show deploy")]
struct Show {
    /// The identity.
    #[arg(value_parser = parsed::<Name>)]
    name: Name,
}

impl Show {
    fn run(self, app: &App) -> Result<()> {
        let identity = app.online(async |client| client.identity(&self.name).await)?;
        app.out.answer(&identity, shown)
    }
}

/// Remove an identity: its certificates are refused from now on.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  signet identity delete deploy --yes")]
struct Delete {
    /// The identity.
    #[arg(value_parser = parsed::<Name>)]
    name: Name,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Delete {
    fn run(self, app: &App) -> Result<()> {
        ask::confirm(&format!("this removes the identity {}", self.name), self.name.as_str(), self.yes)?;
        app.online(async |client| client.delete_identity(&self.name).await)?;
        note(format_args!("removed {}", self.name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_certificate_is_known_by_its_public_key() {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(made.cert.pem().as_bytes()).unwrap();
        use rcgen::PublicKeyData;
        let spki = made.signing_key.subject_public_key_info();
        assert_eq!(key_hash(file.path()).unwrap(), hex::encode(sha256(&[&spki])));
        file.as_file().set_len(40).unwrap();
        assert_eq!(key_hash(file.path()).unwrap_err().kind(), Kind::Invalid);
    }
}
