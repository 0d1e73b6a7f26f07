//! Who may be the server, and who we are to it: TLS 1.3 and nothing older.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::{Certificate, Options};
use crate::error::{Error, Kind, Result};

/// The provider is named here, rather than installed for the whole process, so that no other part can change it.
pub(super) fn config(options: &Options) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::internal("TLS 1.3").because(e))?
        .with_root_certificates(roots(&options.authorities)?);
    let mut config = match &options.certificate {
        None => builder.with_no_client_auth(),
        Some(Certificate { chain, key }) => {
            let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|_| malformed("the client's key"))?;
            builder
                .with_client_auth_cert(certificates(chain, "the client's certificate")?, key)
                .map_err(|_| Error::new(Kind::Invalid, "the client's key does not belong to its certificate"))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(pem: &[u8]) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem, "the authority's certificate")? {
        store.add(certificate).map_err(|_| malformed("the authority's certificate"))?;
    }
    Ok(store)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<std::result::Result<_, _>>().map_err(|_| malformed(what))?;
    if found.is_empty() { Err(malformed(what)) } else { Ok(found) }
}

/// The parser's own words are left out: they may quote a private key.
fn malformed(what: &str) -> Error {
    Error::new(Kind::Invalid, format!("{what} is not PEM of that kind"))
        .hint("the file must hold a block that starts with -----BEGIN")
}

/// What TLS had against the connection, where it was TLS: trying again would not help.
pub(super) fn refusal(error: &(dyn StdError + 'static)) -> Option<Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = inner(error) {
            return Some(describe(found));
        }
        next = error.source();
    }
    None
}

/// An `io::Error` hides what it was made of from `source`.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut error: &'a (dyn StdError + 'static) = error;
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.downcast_ref::<io::Error>()?.get_ref()?;
    }
}

fn describe(error: &rustls::Error) -> Error {
    let unauthenticated = |sentence: &'static str, hint: &'static str| {
        Error::new(Kind::Unauthenticated, sentence).hint(hint).because(error.clone())
    };
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum of another house, and not exhaustive")]
    match error {
        rustls::Error::InvalidCertificate(_) => unauthenticated(
            "the server's certificate does not prove that it is this server",
            "compare --ca with the authority of the server, and the name in --server with those of its certificate",
        ),
        rustls::Error::AlertReceived(_) => unauthenticated(
            "the server refused the TLS connection",
            "it may want a client certificate (--cert and --key), or does not know the authority of this one",
        ),
        _ => Error::new(Kind::Unsupported, "no TLS 1.3 connection could be agreed with the server")
            .hint("check that --server names Signet's API port")
            .because(error.clone()),
    }
}
