//! tls-alpn-01: a certificate for this one purpose, shown to who asks for the protocol `acme-tls/1`
//! ([RFC 8737](https://www.rfc-editor.org/rfc/rfc8737)).

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs::default_provider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::network::Networks;
use super::{Failure, FailureKind, Host, Outcome, Validator};
use crate::types::same;

/// "id-pe-acmeIdentifier OBJECT IDENTIFIER ::= { id-pe 31 }"
const ACME_IDENTIFIER: &str = "1.3.6.1.5.5.7.1.31";
const PROTOCOL: &[u8] = b"acme-tls/1";

pub(super) async fn check(validator: &Validator, host: &Host, digest: &[u8; 32], networks: &Networks) -> Outcome<()> {
    let stream = validator.connect(host, validator.ports.https, networks).await?;
    let connector = TlsConnector::from(Arc::new(danger_any_certificate(&[PROTOCOL])?));
    let stream = connector
        .connect(server_name(host)?, stream)
        .await
        .map_err(|_| Failure::new(FailureKind::Tls, format!("the handshake with {host} failed")))?;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(PROTOCOL) {
        return Err(Failure::new(FailureKind::Tls, format!("{host} does not speak acme-tls/1")));
    }
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.map(AsRef::as_ref).unwrap_or_default();
    examine(certificate, host, digest)
        .map_err(|why| Failure::new(FailureKind::Incorrect, format!("the certificate of {host} {why}")))
}

/// "contains … the identifier being validated … as the only entry in the subjectAltName", and "a critical acmeIdentifier
/// extension" with the digest ([RFC 8737, 3](https://www.rfc-editor.org/rfc/rfc8737#section-3)).
fn examine(der: &[u8], host: &Host, digest: &[u8; 32]) -> Result<(), &'static str> {
    let Ok(([], certificate)) = X509Certificate::from_der(der) else { return Err("cannot be read") };
    let names = certificate.subject_alternative_name().map_err(|_| "has crooked names")?.ok_or("has no names")?;
    let named = match (names.value.general_names.as_slice(), host) {
        ([GeneralName::DNSName(own)], Host::Name(name)) => own.eq_ignore_ascii_case(name),
        ([GeneralName::IPAddress(own)], Host::Address(IpAddr::V4(address))) => *own == address.octets(),
        ([GeneralName::IPAddress(own)], Host::Address(IpAddr::V6(address))) => *own == address.octets(),
        ([..], Host::Name(_) | Host::Address(_)) => false,
    };
    if !named {
        return Err("does not have the name that is asked for as its only one");
    }
    let mut proofs =
        certificate.extensions().iter().filter(|extension| extension.oid.to_id_string() == ACME_IDENTIFIER);
    let (Some(proof), None) = (proofs.next(), proofs.next()) else { return Err("has no acmeIdentifier") };
    let unknown = matches!(proof.parsed_extension(), ParsedExtension::UnsupportedExtension { .. });
    // An OCTET STRING of 32 bytes.
    let value = proof.value.strip_prefix(&[4, 32]).filter(|value| value.len() == digest.len());
    match value {
        Some(value) if unknown && proof.critical && same(value, digest) => Ok(()),
        Some(_) | None => Err("has another acmeIdentifier"),
    }
}

/// What is sent as the server's name. An address has one in reverse ([RFC 8738, 6](https://www.rfc-editor.org/rfc/rfc8738#section-6)).
pub(super) fn server_name(host: &Host) -> Outcome<ServerName<'static>> {
    let name = match host {
        Host::Name(name) => name.clone(),
        Host::Address(address) => reverse(*address),
    };
    ServerName::try_from(name).map_err(|_| Failure::new(FailureKind::Tls, format!("{host} is no name in TLS")))
}

fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let digits = address.octets().into_iter().rev().flat_map(|byte| [byte & 0x0f, byte >> 4]);
            digits.map(|digit| format!("{digit:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

/// A client that takes any certificate, TLS 1.3 alone: what is proven is who answers at the address, not by which authority.
pub(super) fn danger_any_certificate(protocols: &[&[u8]]) -> Outcome<ClientConfig> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| Failure::new(FailureKind::Tls, "TLS cannot be spoken"))?;
    let mut config =
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// Asks only that whoever shows a certificate has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // By its bare key: the usual way refuses a certificate with a critical extension that it does not know, and this one has one.
        let unreadable = |_| rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding);
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(unreadable)?;
        let key = SubjectPublicKeyInfoDer::from(parsed.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair};

    use super::*;

    fn certificate(names: &[&str], digest: &[u8; 32], critical: bool) -> Vec<u8> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let mut extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 31], [&[4, 32], digest.as_slice()].concat());
        extension.set_criticality(critical);
        params.custom_extensions = vec![extension];
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn one_name_and_the_right_digest_are_asked_for() {
        let (digest, name) = ([7; 32], Host::Name("a.test".to_owned()));
        assert_eq!(examine(&certificate(&["a.test"], &digest, true), &name, &digest), Ok(()));
        assert_eq!(examine(&certificate(&["A.test"], &digest, true), &name, &digest), Ok(()));
        let address = Host::Address("192.0.2.7".parse().unwrap());
        assert_eq!(examine(&certificate(&["192.0.2.7"], &digest, true), &address, &digest), Ok(()));
        let bad = [
            certificate(&["a.test"], &[8; 32], true),
            certificate(&["a.test"], &digest, false),
            certificate(&["b.test"], &digest, true),
            certificate(&["a.test", "b.test"], &digest, true),
            certificate(&["192.0.2.7"], &digest, true),
            certificate(&[], &digest, true),
            [certificate(&["a.test"], &digest, true).as_slice(), &[0]].concat(),
            vec![],
        ];
        for der in bad {
            assert!(examine(&der, &name, &digest).is_err());
        }
    }

    #[test]
    fn addresses_have_names_in_reverse() {
        assert_eq!(reverse("192.0.2.7".parse().unwrap()), "7.2.0.192.in-addr.arpa");
        let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(reverse("2001:db8::1".parse().unwrap()), six);
    }
}
