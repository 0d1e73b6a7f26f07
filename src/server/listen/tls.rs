//! TLS: what the server offers, whom it believes, and certificates for those who have none yet.

use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WantsServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ConfigBuilder, RootCertStore, ServerConfig};

use super::handshake::DeviceKey;
use crate::error::{Error, Kind, Result};
use crate::types::{Clock, Period, SecretBytes};

/// What new connections are served with.
#[derive(Debug)]
pub struct Tls {
    pub(super) config: Arc<ServerConfig>,
    /// Whether the key is in a device, which takes its time.
    pub(super) waits: bool,
}

impl Tls {
    /// As [`tls_config`], with a key that a device keeps.
    ///
    /// # Errors
    /// As [`tls_config`].
    pub fn by_device(chain: &[u8], key: DeviceKey, authorities: Option<&[u8]>) -> Result<Self> {
        let key = CertifiedKey::new(certificates(chain, "the server's certificate")?, Arc::new(key));
        key.keys_match().map_err(|e| foreign(&e))?;
        let config = builder(authorities)?.with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        Ok(Self { config: Arc::new(finished(config)), waits: true })
    }
}

/// The configuration of a listener: TLS 1.3 alone, the hybrid X25519MLKEM768 first, HTTP/2 before HTTP/1.1.
///
/// With `authorities` a client may show a certificate. One that is shown must lead to an authority, be in its time and be
/// meant for clients, or the handshake fails. Sessions are not resumed and no early data is taken, so that all of this is
/// looked at in each handshake.
///
/// # Errors
/// [`Kind::Invalid`] for what is not PEM, for a key that is not that of the certificate, and for an empty list of authorities.
pub fn tls_config(chain: &[u8], key: &SecretBytes, authorities: Option<&[u8]>) -> Result<Tls> {
    let builder = builder(authorities)?;
    let chain = certificates(chain, "the server's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(|_| malformed("the server's key"))?;
    let config = builder.with_single_cert(chain, key).map_err(|e| foreign(&e))?;
    Ok(Tls { config: Arc::new(finished(config)), waits: false })
}

fn foreign(error: &rustls::Error) -> Error {
    Error::new(Kind::Invalid, "the server's key does not belong to its certificate, or cannot be used")
        .because(error.clone())
}

fn builder(authorities: Option<&[u8]>) -> Result<ConfigBuilder<ServerConfig, WantsServerCert>> {
    let mut provider = default_provider();
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    let provider = Arc::new(provider);
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::internal("TLS 1.3").because(e))?;
    Ok(match authorities {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authorities)?), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|e| Error::new(Kind::Invalid, "the clients' authorities cannot be used").because(e))?;
            builder.with_client_cert_verifier(verifier)
        }
    })
}

fn finished(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config
}

fn roots(pem: &[u8]) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem, "the clients' authority")? {
        store.add(certificate).map_err(|_| malformed("the clients' authority"))?;
    }
    Ok(store)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) | Err(_) => Err(malformed(what)),
    }
}

/// The parser's own words are left out: they may quote a private key.
fn malformed(what: &str) -> Error {
    Error::new(Kind::Invalid, format!("{what} is not PEM of that kind"))
        .hint("the file must hold a block that starts with -----BEGIN")
}

/// A server certificate and the authority that was made for it alone.
#[derive(Debug)]
pub struct SelfMade {
    /// The authority, in PEM: what clients are given to trust.
    pub authority: String,
    /// The server's certificate, in PEM.
    pub chain: String,
    /// Its private key, in PEM.
    pub key: SecretBytes,
}

/// How long such a certificate lives: ten years, because another one means telling all clients of its authority.
const LIFETIME: Period = Period::seconds(10 * 365 * 86_400);

/// Makes a certificate for `names` (DNS names and addresses), with an authority of its own whose key is thrown away: clients
/// refuse a certificate that is its own authority, and nobody can issue a second one.
///
/// # Errors
/// [`Kind::Invalid`] for a name that no certificate can hold, or none.
pub fn self_signed(names: &[String], clock: &Clock) -> Result<SelfMade> {
    let first = names.first().ok_or_else(|| Error::new(Kind::Invalid, "a server certificate needs a name"))?;
    let unmade = |e: rcgen::Error| Error::internal("making a certificate").because(e);
    let now = u64::try_from(clock.now().as_second()).unwrap_or(0);
    // An hour for clocks that are behind.
    let not_before = Duration::from_secs(now.saturating_sub(3600));
    let not_after = Duration::from_secs(now.saturating_add(LIFETIME.as_secs()));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);

    let mut authority = CertificateParams::default();
    authority.distinguished_name = named("Signet local authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (authority.not_before, authority.not_after) = (epoch + not_before, epoch + not_after);
    let authority_key = KeyPair::generate().map_err(unmade)?;
    let authority_pem = authority.self_signed(&authority_key).map_err(unmade)?.pem();

    let unnamed = |e: rcgen::Error| Error::new(Kind::Invalid, "this is not a name for a server").because(e);
    let mut server = CertificateParams::new(names).map_err(unnamed)?;
    server.distinguished_name = named(first);
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    (server.not_before, server.not_after) = (epoch + not_before, epoch + not_after);
    let key = KeyPair::generate().map_err(unmade)?;
    let chain = server.signed_by(&key, &Issuer::new(authority, authority_key)).map_err(unmade)?.pem();
    Ok(SelfMade { authority: authority_pem, chain, key: SecretBytes::new(key.serialize_pem().into_bytes()) })
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ManualClock;

    fn made() -> SelfMade {
        let clock = Clock::Manual(ManualClock::at("2026-03-04T05:06:07Z".parse().unwrap()));
        self_signed(&["kms.example".into(), "127.0.0.1".into()], &clock).unwrap()
    }

    #[test]
    fn a_certificate_of_our_own_lives_as_long_as_it_should() {
        let made = made();
        let der = CertificateDer::from_pem_slice(made.chain.as_bytes()).unwrap();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        let validity = certificate.validity();
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
        assert_eq!(validity.not_before.timestamp(), at("2026-03-04T04:06:07Z"));
        assert_eq!(validity.not_after.timestamp(), at("2036-03-01T05:06:07Z"));
        assert!(!certificate.is_ca());
        assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
        assert!(tls_config(made.chain.as_bytes(), &made.key, Some(made.authority.as_bytes())).is_ok());
    }

    #[test]
    fn what_does_not_fit_is_refused_without_quoting_it() {
        let (one, other) = (made(), made());
        let chain = one.chain.as_bytes();
        let secret = SecretBytes::new(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----".to_vec());
        let cases: [(&[u8], _, Option<&[u8]>); 5] = [
            (chain, &other.key, None),
            (b"", &one.key, None),
            (chain, &secret, None),
            (chain, &one.key, Some(b"")),
            (chain, &one.key, Some(b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----")),
        ];
        for (chain, key, authorities) in cases {
            let error = tls_config(chain, key, authorities).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(!error.chain().contains("c2VjcmV0"), "{}", error.chain());
        }
        assert_eq!(self_signed(&[], &Clock::default()).unwrap_err().kind(), Kind::Invalid);
        let bad = self_signed(&["k\u{e9}y".into()], &Clock::default());
        assert_eq!(bad.unwrap_err().kind(), Kind::Invalid);
    }
}
