//! Certificates ([RFC 5280, 4.1](https://www.rfc-editor.org/rfc/rfc5280#section-4.1)), written by one library and read back by another.
//!
//! ```text
//! Template, Serial, IssuerView ─▶ to_be_signed ─▶ (lint, a device signs) ─▶ assemble ─▶ check ─▶ Certificate
//! ```
//!
//! [`check`] trusts nothing that came before it: it reads the bytes with a parser that had no part in writing them, and
//! compares all that the certificate says with what was asked, and the signature with what was proved of it where the device made it.

use der::asn1::{AnyRef, UintRef};
use der::{DateTime, Decode, Encode, Sequence};
use jiff::Timestamp;
use x509_cert::certificate::Version;
use x509_cert::ext::Extension;
use x509_cert::time::{Time, Validity as Times};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::key::{KeyKind, key_id};
use super::read_back;
use super::signature::Signed;
pub use super::signature::{algorithm_identifier, assemble};
use super::template::{Authority, KeyUsage, Serial, Template, Validity};
use super::{San, extensions};
use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, PublicKey, SignatureFormat, Verified, Verifier, sha256};

/// The largest certificate that is read, in bytes.
pub const MAX_CERTIFICATE: usize = 64 * 1024;
/// The most alternative names of one certificate.
pub const MAX_NAMES: usize = 100;

/// What a certificate takes over from its issuer, and how that one signs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerView {
    /// DER of the issuer's subject, byte for byte as in its own certificate.
    pub subject: Vec<u8>,
    /// The subject key identifier of its certificate.
    pub key_id: Vec<u8>,
    /// The key that signs.
    pub public_key: PublicKey,
    /// How it signs.
    pub algorithm: Algorithm,
}

impl IssuerView {
    /// The view of a root of ours, which is its own issuer.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a subject or key that cannot stand in a certificate.
    pub fn of_root(template: &Template, algorithm: Algorithm) -> Result<Self> {
        let Template { subject, public_key, .. } = template;
        Ok(Self { subject: subject.to_der()?, key_id: key_id(public_key)?, public_key: public_key.clone(), algorithm })
    }
}

#[derive(Sequence)]
struct ToBeSigned<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial: UintRef<'a>,
    signature: AnyRef<'a>,
    issuer: AnyRef<'a>,
    validity: Times,
    subject: AnyRef<'a>,
    public_key: AnyRef<'a>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

/// DER of the TBSCertificate that says what `template` says.
///
/// # Errors
/// [`Kind::Invalid`] for a template that makes no sense: no usage, usages that its key does not have, no name at all, names
/// twice, in another spelling or too many, an end before the beginning, URLs that are not `http`.
pub fn to_be_signed(template: &Template, serial: &Serial, issuer: &IssuerView) -> Result<Vec<u8>> {
    sensible(template)?;
    let IssuerView { subject: issuer_name, key_id, public_key: _, algorithm } = issuer;
    let subject = template.subject.to_der()?;
    let extensions = extensions::encode(template, key_id)?;
    let encode = || {
        let body = ToBeSigned {
            version: Version::V3,
            serial: UintRef::new(serial.as_bytes())?,
            signature: AnyRef::from_der(algorithm_identifier(*algorithm).unwrap_or_default())?,
            issuer: AnyRef::from_der(issuer_name)?,
            validity: Times::new(time(template.validity.not_before)?, time(template.validity.not_after)?),
            subject: AnyRef::from_der(&subject)?,
            public_key: AnyRef::from_der(template.public_key.as_der())?,
            extensions,
        };
        body.to_der()
    };
    algorithm_identifier(*algorithm)?;
    encode().map_err(|e: der::Error| Error::new(Kind::Invalid, "this cannot be written as a certificate").because(e))
}

/// "CAs conforming to this profile MUST always encode certificate validity dates through the year 2049 as UTCTime; certificate
/// validity dates in 2050 or later MUST be encoded as GeneralizedTime"
/// ([RFC 5280, 4.1.2.5](https://www.rfc-editor.org/rfc/rfc5280#section-4.1.2.5)): the conversion does that.
fn time(at: Timestamp) -> der::Result<Time> {
    let since_1970 = std::time::Duration::from_secs(u64::try_from(at.as_second()).unwrap_or(u64::MAX));
    Ok(Time::from(DateTime::from_unix_duration(since_1970)?))
}

/// What no profile may ask for.
fn sensible(template: &Template) -> Result<()> {
    let Template {
        subject,
        sans,
        public_key,
        validity,
        usages,
        extended,
        authority,
        policies,
        distribution,
        must_staple,
        no_check: _,
    } = template;
    let refuse = |why: &str| Err(Error::new(Kind::Invalid, format!("a certificate {why} makes no sense")));
    subject.check()?;
    sans.iter().try_for_each(San::check)?;
    let kind = KeyKind::of(public_key)?;
    if sans.len() > MAX_NAMES {
        return Err(Error::new(Kind::Limit, format!("a certificate has at most {MAX_NAMES} alternative names")));
    }
    if subject.is_empty() && (sans.is_empty() || authority.is_some()) {
        return refuse("without a name");
    }
    if repeats(sans) || repeats(usages) || repeats(extended) || repeats(policies) {
        return refuse("that says something twice");
    }
    if usages.is_empty() || authority.is_some() != usages.contains(&KeyUsage::CertSign) {
        return refuse("whose key usage is not that of its kind");
    }
    if usages.contains(&KeyUsage::KeyEncipherment) && !kind.is_rsa() {
        return refuse(&format!("for key encipherment by {kind}"));
    }
    if authority.is_some() && *must_staple {
        return refuse("of an authority that staples");
    }
    let Validity { not_before, not_after } = validity;
    let whole = not_before.subsec_nanosecond() == 0 && not_after.subsec_nanosecond() == 0;
    if !whole || not_before.as_second() < 0 || not_after < not_before {
        return refuse("with that validity");
    }
    let constraints = authority.as_ref().map(|authority| &authority.constraints);
    let mut trees = constraints.into_iter().flat_map(|all| all.permitted.iter().chain(&all.excluded));
    trees.try_for_each(super::Subtree::check)?;
    for url in distribution.crl.iter().chain(&distribution.ocsp).chain(&distribution.issuer) {
        San::uri(url)?;
        if !url.starts_with("http://") {
            return Err(Error::new(Kind::Invalid, "a place of distribution is not an http URL")
                .hint("what is fetched there is signed, and TLS would need it first: use http://"));
        }
    }
    Ok(())
}

fn repeats<T: PartialEq>(items: &[T]) -> bool {
    items.iter().enumerate().any(|(at, item)| items.iter().take(at).any(|before| before == item))
}

/// A certificate, its bytes and what others ask of it. Nothing in it is believed to be true: see [`Self::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    serial: Serial,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    validity: Validity,
    sans: Vec<San>,
    public_key: PublicKey,
    key_id: Option<Vec<u8>>,
    authority_key_id: Option<Vec<u8>>,
    authority: Option<Authority>,
}

impl Certificate {
    /// Reads a certificate, ours or a stranger's. Alternative names of kinds that we do not issue, and extensions that we do
    /// not know, are passed over; name constraints that we cannot hold are not.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for what is not one whole certificate of version 3, [`Kind::Limit`] for more than
    /// [`MAX_CERTIFICATE`], [`Kind::Unsupported`] for constraints on other kinds of names.
    pub fn parse(der: &[u8]) -> Result<Self> {
        if der.len() > MAX_CERTIFICATE {
            return Err(Error::new(Kind::Limit, format!("a certificate has at most {MAX_CERTIFICATE} bytes")));
        }
        // Strict about lengths and what follows the end, where the parser below is not.
        Signed::parse(der).map_err(|e| e.context("certificate"))?;
        let (rest, certificate) = X509Certificate::from_der(der)
            .map_err(|e| Error::new(Kind::Invalid, "not a certificate that can be read").because(e.to_string()))?;
        if !rest.is_empty() {
            return Err(Error::new(Kind::Invalid, "the certificate has bytes after its end"));
        }
        let said = read_back::read(&certificate)?;
        Ok(Self {
            der: der.to_vec(),
            serial: read_back::serial(&certificate)?,
            subject: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
            validity: said.validity,
            sans: said.sans,
            public_key: PublicKey::from_der(certificate.public_key().raw.to_vec()),
            key_id: said.key_id,
            authority_key_id: said.authority_key_id,
            authority: said.authority,
        })
    }

    /// The bytes.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// PEM with the label `CERTIFICATE` ([RFC 7468, 5](https://www.rfc-editor.org/rfc/rfc7468#section-5)).
    ///
    /// # Errors
    /// [`Kind::Internal`] where the encoder refuses.
    pub fn to_pem(&self) -> Result<String> {
        der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &self.der)
            .map_err(|e| Error::internal(format!("pem: {e}")))
    }

    /// The serial number; shorter ones of strangers have zeros before them.
    #[must_use]
    pub const fn serial(&self) -> &Serial {
        &self.serial
    }

    /// DER of the subject.
    #[must_use]
    pub fn subject_der(&self) -> &[u8] {
        &self.subject
    }

    /// DER of the issuer.
    #[must_use]
    pub fn issuer_der(&self) -> &[u8] {
        &self.issuer
    }

    /// Its time.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// The alternative names of kinds that we issue.
    #[must_use]
    pub fn sans(&self) -> &[San] {
        &self.sans
    }

    /// The certified key.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// The subject key identifier, where it has one.
    #[must_use]
    pub fn key_id(&self) -> Option<&[u8]> {
        self.key_id.as_deref()
    }

    /// The key identifier of its issuer, where it says one.
    #[must_use]
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.authority_key_id.as_deref()
    }

    /// What it may certify, where it is an authority.
    #[must_use]
    pub const fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// SHA-256 of the bytes.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&[&self.der])
    }

    /// The view of this certificate as an issuer whose key signs by `algorithm`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is not an authority, or its key is none of `algorithm`.
    pub fn issuer_view(&self, algorithm: Algorithm) -> Result<IssuerView> {
        if self.authority.is_none() {
            return Err(Error::new(Kind::Invalid, "the certificate is not that of an authority"));
        }
        Verifier::new(algorithm, &self.public_key)?;
        let key_id = self.key_id.clone().map_or_else(|| key_id(&self.public_key), Ok)?;
        Ok(IssuerView { subject: self.subject.clone(), key_id, public_key: self.public_key.clone(), algorithm })
    }

    /// Verifies the signature with the key of its issuer, by whatever algorithm the certificate names and that key may use.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it is not signed by `issuer`, [`Kind::Unsupported`] for keys and algorithms that we do not know.
    pub fn verify(&self, issuer: &PublicKey) -> Result<()> {
        Signed::parse(&self.der)?.verify(KeyKind::of(issuer)?, issuer)
    }
}

/// Reads a signed certificate of ours from its bytes and compares all of it with what was asked. Its signature has to be the one that
/// `proof` is about, over the very bytes that it stands behind, by the key of `issuer`: that is as good as verifying it once more.
///
/// # Errors
/// [`Kind::Internal`] naming the part that differs: such a certificate must not leave.
pub fn check(der: &[u8], template: &Template, serial: &Serial, issuer: &IssuerView, proof: &Verified) -> Result<()> {
    let differs =
        |what: &str| Error::internal(format!("the certificate that was signed is not the one asked for: {what}"));
    let signed = Signed::parse(der).map_err(|e| differs(&e.chain()))?;
    let signature = SignatureFormat::Der.encode(issuer.algorithm, proof.signature())?;
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|e| differs(&e.to_string()))?;
    let IssuerView { subject: issuer_name, key_id: issuer_key_id, public_key, algorithm } = issuer;
    let (said, ids) = read_back::template(&certificate).map_err(|e| differs(&e.chain()))?;
    let mut wanted = template.clone();
    wanted.usages.sort_unstable();
    wanted.extended.sort_unstable();
    let same = [
        ("the end", rest.is_empty()),
        ("serial number", read_back::serial(&certificate)? == *serial),
        ("issuer", certificate.issuer().as_raw() == issuer_name),
        ("authority key identifier", ids.issuer.as_ref() == Some(issuer_key_id)),
        ("subject key identifier", ids.own == Some(key_id(&template.public_key)?)),
        ("subject", said.subject == wanted.subject),
        ("alternative names", said.sans == wanted.sans),
        ("public key", said.public_key == wanted.public_key),
        ("validity", said.validity == wanted.validity),
        ("contents", said == wanted),
        ("algorithm", signed.algorithm == algorithm_identifier(*algorithm)?),
        ("algorithm within", certificate.tbs_certificate.signature == certificate.signature_algorithm),
        ("signature", signed.signature == signature && proof.is_over(signed.body, *algorithm, public_key)),
    ];
    same.into_iter().find(|(_, same)| !same).map_or(Ok(()), |(what, _)| Err(differs(what)))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::*;
    use crate::types::Curve;
    use crate::x509::{Distribution, ExtendedUsage, NameConstraints, Subject};

    fn key() -> (EcdsaKeyPair, PublicKey) {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = PublicKey::ec(Curve::P256, key.public_key().as_ref()).unwrap();
        (key, public)
    }

    fn root(public_key: PublicKey) -> Template {
        Template {
            subject: Subject { organization: Some("Example".to_owned()), ..Subject::common("root") },
            sans: Vec::new(),
            public_key,
            validity: Validity {
                not_before: "2026-11-01T00:00:00Z".parse().unwrap(),
                not_after: "2056-11-01T00:00:00Z".parse().unwrap(),
            },
            usages: vec![KeyUsage::CrlSign, KeyUsage::CertSign],
            extended: Vec::new(),
            authority: Some(Authority {
                path_length: Some(1),
                constraints: NameConstraints {
                    permitted: ["dns:example.com", "ip:10.0.0.0/8", "ip:2001:db8::/33", "email:.example.com"]
                        .map(|tree| tree.parse().unwrap())
                        .to_vec(),
                    excluded: ["uri:example.net", "ip:0.0.0.0/0"].map(|tree| tree.parse().unwrap()).to_vec(),
                },
            }),
            policies: Vec::new(),
            distribution: Distribution::default(),
            must_staple: false,
            no_check: false,
        }
    }

    fn leaf(public_key: PublicKey) -> Template {
        Template {
            subject: Subject::default(),
            sans: [
                "dns:web.example.com",
                "ip:10.0.0.1",
                "ip:2001:db8::1",
                "email:a@b.example.com",
                "uri:spiffe://td/x",
            ]
            .map(|name| name.parse().unwrap())
            .to_vec(),
            validity: Validity {
                not_before: "2026-11-21T00:00:00Z".parse().unwrap(),
                not_after: "2026-11-22T00:00:00Z".parse().unwrap(),
            },
            usages: vec![KeyUsage::DigitalSignature],
            extended: vec![ExtendedUsage::ClientAuth, ExtendedUsage::ServerAuth],
            authority: None,
            policies: vec!["2.23.140.1.2.1".parse().unwrap(), "1.3.6.1.4.1.99999.1".parse().unwrap()],
            distribution: Distribution {
                crl: vec!["http://a.example/1.crl".to_owned(), "http://b.example/1.crl".to_owned()],
                ocsp: vec!["http://ocsp.example/".to_owned()],
                issuer: vec!["http://a.example/1.cer".to_owned()],
            },
            must_staple: true,
            no_check: true,
            ..root(public_key)
        }
    }

    /// A certificate, and the proof of its signature.
    fn sign(key: &EcdsaKeyPair, template: &Template, serial: &Serial, issuer: &IssuerView) -> (Vec<u8>, Verified) {
        let body = to_be_signed(template, serial, issuer).unwrap();
        let proof = prove(key, &body, issuer);
        (assemble(&body, issuer.algorithm, proof.signature()).unwrap(), proof)
    }

    fn prove(key: &EcdsaKeyPair, body: &[u8], issuer: &IssuerView) -> Verified {
        let signature = key.sign(&SystemRandom::new(), body).unwrap().as_ref().to_vec();
        let verifier = Verifier::new(issuer.algorithm, &issuer.public_key).unwrap();
        verifier.prove(issuer.algorithm.hash().unwrap().digest(body), signature).unwrap()
    }

    #[test]
    fn what_was_asked_is_what_is_read_back() {
        let (key, public) = key();
        let template = root(public.clone());
        let view = IssuerView::of_root(&template, Algorithm::EcdsaP256).unwrap();
        let serial = Serial::from_bytes(*b"\0\0\x80bcdefghijklmnopqr");
        let (der, proof) = sign(&key, &template, &serial, &view);
        check(&der, &template, &serial, &view, &proof).unwrap();
        let root = Certificate::parse(&der).unwrap();
        assert_eq!(root.issuer_view(Algorithm::EcdsaP256).unwrap(), view);
        assert_eq!(root.authority(), template.authority.as_ref());
        assert_eq!(root.serial(), &serial);
        root.verify(&public).unwrap();

        let template = leaf(public);
        let serial = Serial::random().unwrap();
        let (der, proof) = sign(&key, &template, &serial, &view);
        check(&der, &template, &serial, &view, &proof).unwrap();
        let leaf = Certificate::parse(&der).unwrap();
        assert_eq!((leaf.sans(), leaf.validity()), (template.sans.as_slice(), template.validity));
        assert_eq!(leaf.authority_key_id(), root.key_id());
        assert!(leaf.issuer_view(Algorithm::EcdsaP256).is_err());
    }

    #[test]
    fn what_differs_from_what_was_asked_is_found() {
        let ((key, public), (_, other)) = (key(), key());
        let view = IssuerView::of_root(&root(public.clone()), Algorithm::EcdsaP256).unwrap();
        let asked = leaf(public.clone());
        let serial = Serial::random().unwrap();
        let changes: [fn(&mut Template); 10] = [
            |t| t.subject = Subject::common("x"),
            |t| t.sans.truncate(4),
            |t| t.sans.reverse(),
            |t| t.validity.not_after = "2026-11-22T00:00:01Z".parse().unwrap(),
            |t| t.extended.truncate(1),
            |t| t.policies.reverse(),
            |t| t.distribution.crl.truncate(1),
            |t| t.distribution.ocsp.clear(),
            |t| t.must_staple = false,
            |t| t.no_check = false,
        ];
        for change in changes {
            let mut made = asked.clone();
            change(&mut made);
            let (der, proof) = sign(&key, &made, &serial, &view);
            check(&der, &made, &serial, &view, &proof).unwrap();
            assert_eq!(check(&der, &asked, &serial, &view, &proof).unwrap_err().kind(), Kind::Internal);
        }
        let (der, proof) = sign(&key, &asked, &serial, &view);
        assert!(check(&der, &asked, &Serial::random().unwrap(), &view, &proof).is_err());
        for wrong in [
            IssuerView { subject: Subject::common("x").to_der().unwrap(), ..view.clone() },
            IssuerView { key_id: vec![0; 20], ..view.clone() },
            IssuerView { public_key: other.clone(), ..view.clone() },
            IssuerView { algorithm: Algorithm::EcdsaP384, ..view.clone() },
        ] {
            assert!(check(&der, &asked, &serial, &wrong, &proof).is_err());
        }
        // Neither does the proof of another signature over the same bytes, nor one of the same key over others.
        let body = Signed::parse(&der).unwrap().body;
        assert!(check(&der, &asked, &serial, &view, &prove(&key, body, &view)).is_err());
        let (_, of_another) = sign(&key, &asked, &Serial::random().unwrap(), &view);
        let mixed = assemble(body, view.algorithm, of_another.signature()).unwrap();
        assert!(check(&mixed, &asked, &serial, &view, &of_another).is_err());
        assert!(check(&mixed, &asked, &serial, &view, &proof).is_err());
        // Each bit counts.
        for at in 0..der.len() {
            let mut damaged = der.clone();
            damaged[at] ^= 1;
            assert!(check(&damaged, &asked, &serial, &view, &proof).is_err(), "byte {at}");
            let _ = Certificate::parse(&damaged);
        }
    }

    #[test]
    fn nonsense_is_not_written() {
        let (_, public) = key();
        let view = IssuerView::of_root(&root(public.clone()), Algorithm::EcdsaP256).unwrap();
        let changes: [fn(&mut Template); 14] = [
            |t| t.sans.clear(),
            |t| t.sans.push(San::Dns("web.example.com".to_owned())),
            |t| t.sans.push(San::Dns("WEB.example.com".to_owned())),
            |t| t.sans = (0..101).map(|n| San::Dns(format!("h{n}.example"))).collect(),
            |t| t.subject = Subject::common("a\0b"),
            |t| t.usages.clear(),
            |t| t.usages.push(KeyUsage::KeyEncipherment),
            |t| t.usages.push(KeyUsage::CertSign),
            |t| t.authority = Some(Authority::default()),
            |t| t.validity.not_after = "2026-11-20T00:00:00Z".parse().unwrap(),
            |t| t.validity.not_after = "2026-11-22T00:00:00.5Z".parse().unwrap(),
            |t| t.validity.not_before = "1969-11-22T00:00:00Z".parse().unwrap(),
            |t| t.distribution.crl.push("https://a.example/1.crl".to_owned()),
            |t| t.public_key = PublicKey::from_der(vec![0x30, 0]),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut template = leaf(public.clone());
            change(&mut template);
            assert!(to_be_signed(&template, &Serial::random().unwrap(), &view).is_err(), "{at}");
        }
    }
}
