//! `signet cert revoke`.

use std::path::{Path, PathBuf};

use clap::Args;
use rcgen::{KeyPair, SigningKey};

use super::show::shown;
use crate::cli::input::{MAX_MESSAGE, parsed, read};
use crate::cli::{App, ask};
use crate::error::{Error, Kind, Result};
use crate::types::IssuerName;
use crate::wire::{Base64, RevokeCertificate};

/// Why certificates are revoked, after RFC 5280, 5.3.1.
pub(in crate::cli) const REASONS: [&str; 6] = [
    "unspecified",
    "key-compromise",
    "affiliation-changed",
    SUPERSEDED,
    "cessation-of-operation",
    "privilege-withdrawn",
];
pub(in crate::cli) const SUPERSEDED: &str = "superseded";

/// Revoke a certificate. This cannot be undone.
///
/// OCSP says it at once, the revocation list within seconds; docs/revocation.md tells what others may have kept. Who has the
/// certified key needs no policy: --proof-key signs the request with it, here; the key is not sent.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signet cert revoke 0123456789abcdef0123456789abcdef01234567 --reason key-compromise --yes
  signet cert revoke 0123456789abcdef0123456789abcdef01234567 --issuer fleet --proof-key web.key --yes")]
pub(in crate::cli) struct Revoke {
    /// Its serial number.
    serial: String,
    /// Why.
    #[arg(long, value_name = "REASON", value_parser = REASONS, default_value = "unspecified")]
    reason: String,
    /// Prove the certified key by this file, PKCS #8 in PEM, instead of a right by policy.
    #[arg(long, value_name = "FILE")]
    proof_key: Option<PathBuf>,
    /// The issuer, which the proof names; asked of the server where not given, if you may read the certificate.
    #[arg(long, value_name = "ISSUER", requires = "proof_key", value_parser = parsed::<IssuerName>)]
    issuer: Option<IssuerName>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Revoke {
    pub(in crate::cli) fn run(self, app: &App) -> Result<()> {
        let Self { serial, reason, proof_key, issuer, yes } = self;
        ask::confirm(&format!("this revokes certificate {serial}, for good"), &serial, yes)?;
        let key = proof_key.as_deref().map(read_key).transpose()?;
        let certificate = app.online(async |client| {
            let proof = match &key {
                None => None,
                Some(key) => {
                    let issuer = match &issuer {
                        Some(issuer) => issuer.clone(),
                        None => client.certificate(&serial).await?.issuer,
                    };
                    Some(Base64(proof(key, &issuer, &serial, &reason)?))
                }
            };
            client.revoke(&serial, &RevokeCertificate { reason: Some(reason.clone()), proof }).await
        })?;
        app.out.answer(&certificate, shown)
    }
}

fn read_key(path: &Path) -> Result<KeyPair> {
    let pem = read(path, MAX_MESSAGE)?;
    // The parser's own words are left out: they may quote the key.
    std::str::from_utf8(pem.expose()).ok().and_then(|pem| KeyPair::from_pem(pem).ok()).ok_or_else(|| {
        Error::new(Kind::Invalid, format!("{} holds no private key that can be read", path.display()))
            .hint("PKCS #8 in PEM: openssl pkcs8 -topk8 -nodes -in KEY; a key in a TPM needs a policy")
    })
}

/// The signature that the service asks for: see `RevokeCertificate` of the API.
fn proof(key: &KeyPair, issuer: &IssuerName, serial: &str, reason: &str) -> Result<Vec<u8>> {
    let text = format!("signet revoke v1\n{issuer}\n{}\n{reason}\n", serial.to_ascii_lowercase());
    key.sign(text.as_bytes()).map_err(|e| Error::internal("signing the proof").because(e))
}
