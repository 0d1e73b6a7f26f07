//! What a client certificate claims, and whether that is what an identity's record expects.
//!
//! rustls has verified the chain and that the peer holds the key before anything here is called; this module reads only
//! the leaf. It does not look at common names, and a certificate matches nothing outside its validity: connections
//! outlive certificates, so the time is compared at every request.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::{Error, Kind, Result};
pub use crate::types::SpiffeId;
use crate::types::sha256;

/// The most names of one certificate that are looked at; one with more is refused.
pub const MAX_NAMES: usize = 100;

/// The claims of one certificate that identities can be matched by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    spiffe: Option<SpiffeId>,
    dns: Vec<String>,
    public_key: Pin,
    not_before: Timestamp,
    not_after: Timestamp,
    issuer: Vec<u8>,
    serial: Vec<u8>,
    hash: [u8; 32],
    der: Vec<u8>,
}

impl Claims {
    /// Reads a certificate that was verified.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] for what is not one whole certificate, for names that cannot be read, for more than
    /// [`MAX_NAMES`], and where a SPIFFE id is malformed or not the only URI.
    pub fn read(der: &[u8]) -> Result<Self> {
        let refuse = |why: &str| Error::new(Kind::Unauthenticated, format!("the client certificate {why}"));
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| refuse("cannot be read"))?;
        if !rest.is_empty() {
            return Err(refuse("has bytes after its end"));
        }
        let names =
            certificate.subject_alternative_name().map_err(|_| refuse("has alternative names that cannot be read"))?;
        let names = names.map_or(&[][..], |extension| extension.value.general_names.as_slice());
        if names.len() > MAX_NAMES {
            return Err(refuse("has too many names"));
        }
        if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
            return Err(refuse("has a name that cannot be read"));
        }
        let validity = certificate.validity();
        Ok(Self {
            spiffe: spiffe(names)?,
            dns: names.iter().filter_map(dns).map(str::to_owned).collect(),
            public_key: Pin(sha256(&[certificate.public_key().raw])),
            not_before: timestamp(validity.not_before.timestamp()),
            not_after: timestamp(validity.not_after.timestamp()),
            issuer: certificate.issuer().as_raw().to_vec(),
            serial: certificate.raw_serial().to_vec(),
            hash: sha256(&[der]),
            der: der.to_vec(),
        })
    }

    /// The SPIFFE id, if it has one.
    #[must_use]
    pub const fn spiffe(&self) -> Option<&SpiffeId> {
        self.spiffe.as_ref()
    }

    /// The DNS names, as they stand in the certificate.
    #[must_use]
    pub fn dns(&self) -> &[String] {
        &self.dns
    }

    /// SHA-256 of the public key.
    #[must_use]
    pub const fn public_key(&self) -> &Pin {
        &self.public_key
    }

    /// SHA-256 of the whole certificate: how the audit log names it.
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// DER of the name of whoever signed it.
    #[must_use]
    pub fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// The bytes of its serial number.
    #[must_use]
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The whole certificate.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// When it ends.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Whether it is neither early nor expired. Both ends belong to it
    /// ([RFC 5280, 4.1.2.5](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.5): "through notAfter, inclusive"), in
    /// whole seconds.
    #[must_use]
    pub fn valid_at(&self, now: Timestamp) -> bool {
        (self.not_before.as_second()..=self.not_after.as_second()).contains(&now.as_second())
    }
}

/// [X509-SVID, 2](https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md): "MUST contain exactly one URI SAN";
/// "SVIDs containing more than one URI SAN MUST be rejected". URIs of other kinds alone are nobody's claim here.
fn spiffe(names: &[GeneralName<'_>]) -> Result<Option<SpiffeId>> {
    let uris: Vec<_> = names.iter().filter_map(uri).collect();
    let is_spiffe = |uri: &&str| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"));
    match (uris.iter().copied().find(is_spiffe), uris.len()) {
        (None, _) => Ok(None),
        (Some(id), 1) => id
            .parse()
            .map(Some)
            .map_err(|_| Error::new(Kind::Unauthenticated, "the client certificate has a malformed SPIFFE id")),
        (Some(_), _) => {
            Err(Error::new(Kind::Unauthenticated, "the client certificate has another URI beside its SPIFFE id")
                .hint("a certificate with a SPIFFE id has no other URI"))
        }
    }
}

const fn uri<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::URI(uri) = name { Some(uri) } else { None }
}

const fn dns<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    if let GeneralName::DNSName(name) = name { Some(name) } else { None }
}

/// Dates that no clock of ours can show (the year 9999 means "no end") become the last or first that it can.
fn timestamp(seconds: i64) -> Timestamp {
    let edge = if seconds > 0 { Timestamp::MAX } else { Timestamp::MIN };
    Timestamp::from_second(seconds).unwrap_or(edge)
}

/// What an identity's record expects of a certificate: `{"spiffe": ".."}`, `{"dns": ".."}` or `{"public_key": "hex"}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// This SPIFFE id.
    Spiffe(SpiffeId),
    /// This DNS name among its alternative names. Wildcards of a certificate match nobody.
    Dns(DnsName),
    /// This public key, in whatever certificate.
    PublicKey(Pin),
}

impl Match {
    /// Whether `claims` are those of this identity at this moment.
    #[must_use]
    pub fn matches(&self, claims: &Claims, now: Timestamp) -> bool {
        claims.valid_at(now)
            && match self {
                Self::Spiffe(id) => claims.spiffe.as_ref() == Some(id),
                Self::Dns(name) => claims.dns.iter().any(|claimed| claimed.eq_ignore_ascii_case(name.as_str())),
                Self::PublicKey(pin) => claims.public_key == *pin,
            }
    }
}

/// A DNS name in lower case, without wildcard and without a dot at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DnsName(String);

impl DnsName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(label) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::new(Kind::Invalid, "this is not a DNS name")
                .hint("write it in lower case, without wildcard and without a dot at its end"))
        }
    }
}

/// SHA-256 of a public key (its DER `SubjectPublicKeyInfo`), written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn of(spki: &[u8]) -> Self {
        Self(sha256(&[spki]))
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Pin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| {
            Error::new(Kind::Invalid, "the pin of a public key is 64 hexadecimal digits")
                .hint("SHA-256 of its DER: openssl pkey -pubin -outform DER | sha256sum")
        })?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Serialises a type of this file as its text.
macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
as_text!(DnsName, Pin);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData, SanType, date_time_ymd};

    use super::*;

    fn certificate(names: Vec<SanType>) -> (Vec<u8>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 12, 31);
        (params.self_signed(&key).unwrap().der().to_vec(), key)
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    fn summer() -> Timestamp {
        "2026-07-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn each_claim_matches_itself_alone() {
        let (der, key) = certificate(vec![uri("spiffe://example.org/ci"), dns("ci.example.org"), dns("*.example.net")]);
        let claims = Claims::read(&der).unwrap();
        assert_eq!(claims.hash(), &sha256(&[&der]));
        let pin = Pin::of(&key.subject_public_key_info());
        let other = Pin::of(b"another key");
        let cases = [
            (Match::Spiffe("spiffe://example.org/ci".parse().unwrap()), true),
            (Match::Spiffe("spiffe://example.org/ci/x".parse().unwrap()), false),
            (Match::Spiffe("spiffe://example.org/CI".parse().unwrap()), false),
            (Match::Dns("ci.example.org".parse().unwrap()), true),
            (Match::Dns("example.org".parse().unwrap()), false),
            (Match::Dns("a.example.net".parse().unwrap()), false),
            (Match::PublicKey(pin), true),
            (Match::PublicKey(other), false),
        ];
        for (expected, matches) in cases {
            assert_eq!(expected.matches(&claims, summer()), matches, "{expected:?}");
        }
    }

    #[test]
    fn a_certificate_matches_nothing_outside_its_validity() {
        let (der, _) = certificate(vec![dns("ci.example.org")]);
        let claims = Claims::read(&der).unwrap();
        let expected = Match::Dns("ci.example.org".parse().unwrap());
        for (now, matches) in [
            ("2025-12-31T23:59:59.999999Z", false),
            ("2026-01-01T00:00:00Z", true),
            ("2026-12-31T00:00:00.5Z", true),
            ("2026-12-31T00:00:01Z", false),
        ] {
            assert_eq!(expected.matches(&claims, now.parse().unwrap()), matches, "{now}");
        }
    }

    #[test]
    fn certificates_without_an_end_can_be_read() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["ci.example.org".to_owned()]).unwrap();
        params.not_after = date_time_ymd(9999, 12, 31);
        let claims = Claims::read(params.self_signed(&key).unwrap().der()).unwrap();
        assert_eq!(claims.not_after(), Timestamp::MAX);
        assert!(claims.valid_at(summer()));
    }

    #[test]
    fn doubtful_certificates_are_refused() {
        let many = (0..=MAX_NAMES).map(|n| dns(&format!("h{n}.example.org"))).collect();
        let doubtful = [
            vec![uri("spiffe://example.org/a"), uri("spiffe://example.org/b")],
            vec![uri("https://example.org/"), uri("spiffe://example.org/b")],
            vec![uri("SPIFFE://example.org/a")],
            vec![uri("spiffe://Example.org/a")],
            vec![uri("spiffe://example.org")],
            many,
        ];
        for names in doubtful {
            let (der, _) = certificate(names);
            assert_eq!(Claims::read(&der).unwrap_err().kind(), Kind::Unauthenticated);
        }
        let (mut der, _) = certificate(vec![uri("https://example.org/"), uri("urn:x")]);
        assert_eq!(Claims::read(&der).unwrap().spiffe(), None);
        der.push(0);
        assert!(Claims::read(&der).is_err());
    }

    #[test]
    fn expectations_are_written_plainly() {
        let texts = [
            r#"{"spiffe":"spiffe://example.org/ci"}"#.to_owned(),
            r#"{"dns":"ci.example.org"}"#.to_owned(),
            format!(r#"{{"public_key":"{}"}}"#, "ab".repeat(32)),
        ];
        for text in texts {
            let expected: Match = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_string(&expected).unwrap(), text);
        }
        for text in [
            r#"{"dns":"*.example.org"}"#,
            r#"{"dns":"CI.example.org"}"#,
            r#"{"dns":""}"#,
            r#"{"dns":"a..b"}"#,
            r#"{"spiffe":"spiffe://example.org/a/../b"}"#,
            r#"{"spiffe":"spiffe://example.org/a/"}"#,
            r#"{"spiffe":"spiffe://example.org/a?b"}"#,
            r#"{"spiffe":"spiffe://u@example.org/a"}"#,
            r#"{"public_key":"ab"}"#,
            r#"{"common_name":"ci"}"#,
        ] {
            assert!(serde_json::from_str::<Match>(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Claims::read(&bytes);
        }

        #[test]
        fn damaged_certificates_never_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), cut: prop::sample::Index) {
            static SOUND: std::sync::LazyLock<Vec<u8>> =
                std::sync::LazyLock::new(|| certificate(vec![uri("spiffe://example.org/ci"), dns("ci.example.org")]).0);
            let mut der = SOUND.clone();
            for (at, to) in changes {
                let at = at.index(der.len());
                der[at] = to;
            }
            let _ = Claims::read(&der);
            let _ = Claims::read(&der[..cut.index(der.len())]);
        }
    }
}
