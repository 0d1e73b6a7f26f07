//! Which key is certified: one that a CSR proves, or a new one that is made here.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use zeroize::Zeroizing;

use crate::cli::input::read_text;
use crate::cli::output::unwritable;
use crate::cli::sink::{Access, NewFile};
use crate::error::{Error, Kind, Result};
use crate::wire::Certificate;

/// The key that is certified.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct KeyArgs {
    /// A signing request in PEM, which proves a key; - for standard input.
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// Make an ECDSA P-256 key here, and keep it in FILE, which only its owner can read.
    #[arg(long, value_name = "FILE")]
    new_key: Option<PathBuf>,
    /// Have the service make the key, outside any device, and keep it in FILE; for profiles that say `software`.
    #[arg(long, value_name = "FILE")]
    software_key: Option<PathBuf>,
}

/// What a key of the service's is, unless something else is asked for.
pub(super) const USUAL_KIND: &str = "ecdsa-p256";

impl KeyArgs {
    /// The proof of the key; a new one is written, and gets its name when it has a certificate.
    pub(super) fn ready(&self, replace: bool) -> Result<Ready> {
        match (&self.csr, &self.new_key, &self.software_key) {
            (Some(path), ..) => Ok(Ready { csr: Some(read_text(path)?), new: None }),
            (None, Some(path), _) => {
                let (csr, key) = fresh().map_err(|e| Error::internal("making a key").because(e))?;
                let mut file = NewFile::create(path, Access::Owner, replace)?;
                file.file().write_all(key.as_bytes()).map_err(|e| unwritable(path.display(), &e))?;
                Ok(Ready { csr: Some(csr), new: Some(file) })
            }
            (None, None, Some(path)) => {
                Ok(Ready { csr: None, new: Some(NewFile::create(path, Access::Owner, replace)?) })
            }
            (None, None, None) => Err(Error::internal("no key was given")),
        }
    }
}

/// A key that can be certified.
#[derive(Debug)]
pub(super) struct Ready {
    /// In PEM; absent where the service makes the key.
    pub(super) csr: Option<String>,
    new: Option<NewFile>,
}

impl Ready {
    /// Gives a new key its name, as it is certified now. One that the service made is taken out of the answer: it stands in its file
    /// alone.
    pub(super) fn keep(self, certificate: &mut Certificate) -> Result<()> {
        let Some(mut file) = self.new else { return Ok(()) };
        let made = certificate.private_key.take();
        let written = match (&self.csr, made) {
            (Some(_), _) => Ok(()),
            (None, Some(key)) => file.file().write_all(key.0.as_bytes()).map_err(|e| unwritable("the key", &e)),
            (None, None) => {
                Err(Error::new(Kind::Conflict, "the answer that had the key was lost, and it is shown once"))
            }
        };
        written.and_then(|()| file.finish()).map_err(|error| {
            let sentence = format!("certificate {} was issued, but its key was not kept: {error}", certificate.serial);
            Error::new(error.kind(), sentence)
                .hint(format!("signet cert revoke {} --reason superseded, then ask again", certificate.serial))
        })
    }
}

/// A request that proves a new key, and the key in PKCS #8, both in PEM. Names go beside the request.
fn fresh() -> std::result::Result<(String, Zeroizing<String>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let csr = params.serialize_request(&key)?.pem()?;
    Ok((csr, Zeroizing::new(key.serialize_pem())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_key_has_no_name_until_it_is_certified() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.key");
        let args = KeyArgs { csr: None, new_key: Some(path.clone()), software_key: None };
        drop(args.ready(false).unwrap());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "a refusal leaves nothing behind");
        let ready = args.ready(false).unwrap();
        assert!(ready.csr.unwrap().contains("CERTIFICATE REQUEST"));
        ready.new.unwrap().finish().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("-----BEGIN PRIVATE KEY-----"));
        assert!(args.ready(false).is_err(), "and no key is replaced");
    }
}
