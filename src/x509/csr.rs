//! Certificate signing requests ([PKCS#10, RFC 2986](https://www.rfc-editor.org/rfc/rfc2986)): the one thing here that strangers write.
//!
//! ```text
//! CertificationRequest ::= SEQUENCE {
//!     certificationRequestInfo  SEQUENCE { version 0, subject Name, subjectPKInfo, attributes [0] SET OF Attribute },
//!     signatureAlgorithm        AlgorithmIdentifier,
//!     signature                 BIT STRING }          -- over the bytes of the first part, as they came
//! ```
//!
//! What is parsed is what was signed: the proof of possession is verified over the received bytes, and a request that is not in
//! the one form of DER is refused, so that no two readers see two requests in it. A request is only a wish: which parts of it
//! count is for the profile.

use std::fmt;
use std::net::IpAddr;

use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use der::{Class, Decode, Encode, Reader, SliceReader, Tag, Tagged};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::BasicConstraints;

use super::extensions as oid;
use super::key::{self, KeyKind};
use super::signature::Signed;
use super::{ExtendedUsage, San, Subject};
use crate::error::{Error, Kind, Result};
use crate::types::{PublicKey, SecretBytes};

/// The largest request, in bytes, in DER or PEM.
pub const MAX_CSR: usize = 64 * 1024;
/// The most alternative names of one request.
pub const MAX_NAMES: usize = super::certificate::MAX_NAMES;
/// The most attributes, and the most extensions, of one request.
pub const MAX_PARTS: usize = 32;

const CHALLENGE_PASSWORD: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.7");
pub(super) const EXTENSION_REQUEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.14");
const MICROSOFT_EXTENSIONS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.14");

/// A request whose sender holds the private key.
pub struct Csr {
    der: Vec<u8>,
    public_key: PublicKey,
    key_kind: KeyKind,
    subject: Subject,
    wishes: Wishes,
    challenge_password: Option<SecretBytes>,
}

/// What a request asks for in its extensions.
#[derive(Default)]
struct Wishes {
    sans: Vec<San>,
    wants_ca: bool,
    extended: Vec<ExtendedUsage>,
    other_usages: bool,
    must_staple: bool,
}

impl Csr {
    /// Reads a request in DER or PEM and verifies that its sender holds the private key.
    ///
    /// # Errors
    /// [`Kind::Limit`] for one that is too large or has too many parts, [`Kind::Unsupported`] for keys, algorithms and names
    /// that we do not know, [`Kind::Invalid`] for all else that is wrong, each with its reason.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes, |signed, kind, key| signed.verify(kind, key))
    }

    /// A fuzzer proves nothing, and what stands behind the proof is what it is to reach.
    #[cfg(fuzzing)]
    pub fn parse_without_proof(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes, |_, _, _| Ok(()))
    }

    fn read(bytes: &[u8], prove: fn(&Signed<'_>, KeyKind, &PublicKey) -> Result<()>) -> Result<Self> {
        if bytes.len() > MAX_CSR {
            return Err(Error::new(Kind::Limit, format!("a request has at most {MAX_CSR} bytes")));
        }
        let der = if bytes.starts_with(b"-----") { from_pem(bytes)? } else { bytes.to_vec() };
        let signed = Signed::parse(&der).map_err(|e| not_a_request().because(e))?;
        let Info { subject, public_key, attributes } = Info::parse(signed.body)?;
        let (public_key, key_kind) = key::accept(public_key)?;
        // Before anything that it says is looked at.
        prove(&signed, key_kind, &public_key)
            .map_err(|e| e.context("the request does not prove that its sender has the key"))?;
        let subject = Subject::from_der(subject)?;
        let (wishes, challenge_password) = read_attributes(attributes)?;
        Ok(Self { public_key, key_kind, subject, wishes, challenge_password, der })
    }

    /// The key that is to be certified.
    #[must_use]
    pub const fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    /// Its kind.
    #[must_use]
    pub const fn key_kind(&self) -> KeyKind {
        self.key_kind
    }

    /// The subject that is asked for.
    #[must_use]
    pub const fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The alternative names that are asked for, each once, in their order.
    #[must_use]
    pub fn sans(&self) -> &[San] {
        &self.wishes.sans
    }

    /// Whether it asks to be an authority.
    #[must_use]
    pub const fn wants_ca(&self) -> bool {
        self.wishes.wants_ca
    }

    /// The extended usages that are asked for and that we know.
    #[must_use]
    pub fn extended(&self) -> &[ExtendedUsage] {
        &self.wishes.extended
    }

    /// Whether it asks for extended usages that we do not know besides.
    #[must_use]
    pub const fn wants_other_usages(&self) -> bool {
        self.wishes.other_usages
    }

    /// Whether it asks that TLS servers must staple.
    #[must_use]
    pub const fn must_staple(&self) -> bool {
        self.wishes.must_staple
    }

    /// The challenge password ([RFC 2985, 5.4.1](https://www.rfc-editor.org/rfc/rfc2985#section-5.4.1)), by which EST binds a request to its
    /// connection.
    #[must_use]
    pub const fn challenge_password(&self) -> Option<&SecretBytes> {
        self.challenge_password.as_ref()
    }

    /// The common name, where it is none of the alternative names: a client that knows only the old ways asks for its host so.
    #[must_use]
    pub fn lone_common_name(&self) -> Option<&str> {
        let name = self.subject.common_name.as_deref()?;
        let said = |san: &San| matches!(san, San::Dns(_) | San::Email(_)) && san.value().eq_ignore_ascii_case(name);
        (!self.wishes.sans.iter().any(said)).then_some(name)
    }

    /// The request as it came, in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

impl fmt::Debug for Csr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { der: _, public_key: _, key_kind, subject, wishes, challenge_password: _ } = self;
        f.debug_struct("Csr")
            .field("key", key_kind)
            .field("subject", subject)
            .field("sans", &wishes.sans)
            .finish_non_exhaustive()
    }
}

/// [RFC 7468, 7](https://www.rfc-editor.org/rfc/rfc7468#section-7), and the label of old tools.
fn from_pem(text: &[u8]) -> Result<Vec<u8>> {
    let (label, der) = der::pem::decode_vec(text).map_err(|e| {
        Error::new(Kind::Invalid, "the request is not PEM that can be read")
            .hint("one block from BEGIN CERTIFICATE REQUEST to END, in lines of 64, and nothing else")
            .because(e)
    })?;
    match label {
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Ok(der),
        _ => Err(Error::new(Kind::Invalid, "the PEM is not of a certificate request")
            .hint("send the request, never a private key")),
    }
}

fn not_a_request() -> Error {
    Error::new(Kind::Invalid, "not a certificate request in DER")
        .hint("make it with: openssl req -new -key FILE -outform DER")
}

fn malformed(error: der::Error) -> Error {
    not_a_request().because(error)
}

/// The first part, taken apart.
struct Info<'a> {
    subject: &'a [u8],
    public_key: &'a [u8],
    attributes: &'a [u8],
}

impl<'a> Info<'a> {
    fn parse(body: &'a [u8]) -> Result<Self> {
        let mut reader = inside(body, Tag::Sequence).map_err(malformed)?;
        let mut split = || {
            let version = u8::decode(&mut reader)?;
            let (subject, public_key) = (reader.tlv_bytes()?, reader.tlv_bytes()?);
            let attributes = AnyRef::decode(&mut reader)?;
            Ok((version, subject, public_key, attributes))
        };
        let (version, subject, public_key, attributes) = split().map_err(malformed)?;
        reader.finish().map_err(malformed)?;
        let tag = attributes.tag();
        let right = tag.class() == Class::ContextSpecific && tag.is_constructed() && tag.number().value() == 0;
        if version != 0 || !right {
            return Err(not_a_request());
        }
        Ok(Self { subject, public_key, attributes: attributes.value() })
    }
}

/// A reader of what is within the one value of `bytes`, which has this tag.
fn inside(bytes: &[u8], tag: Tag) -> der::Result<SliceReader<'_>> {
    let any = AnyRef::from_der(bytes)?;
    any.tag().assert_eq(tag)?;
    SliceReader::new(any.value())
}

/// The values one after the other, at most `most` of them.
fn values<'a>(mut reader: SliceReader<'a>, most: usize, what: &str) -> Result<Vec<&'a [u8]>> {
    let mut found = Vec::new();
    while !reader.is_finished() {
        if found.len() == most {
            return Err(Error::new(Kind::Limit, format!("the request has more than {most} {what}")));
        }
        // Read whole, for its length and tag to be those of DER.
        let value = reader.tlv_bytes().map_err(malformed)?;
        AnyRef::from_der(value).map_err(malformed)?;
        found.push(value);
    }
    Ok(found)
}

fn read_attributes(attributes: &[u8]) -> Result<(Wishes, Option<SecretBytes>)> {
    let all = values(SliceReader::new(attributes).map_err(malformed)?, MAX_PARTS, "attributes")?;
    // "The encodings of the component values of a set-of value shall appear in ascending order" (X.690, 11.6).
    if !all.is_sorted() {
        return Err(not_a_request().context("its attributes are not in the order of DER"));
    }
    let (mut seen, mut wishes, mut password) = (Vec::new(), Wishes::default(), None);
    for attribute in all {
        let mut reader = inside(attribute, Tag::Sequence).map_err(malformed)?;
        let kind = ObjectIdentifier::decode(&mut reader).map_err(malformed)?;
        let set = reader.tlv_bytes().map_err(malformed)?;
        reader.finish().map_err(malformed)?;
        let found = values(inside(set, Tag::Set).map_err(malformed)?, MAX_PARTS, "values of one attribute")?;
        if seen.contains(&kind) {
            return Err(Error::new(Kind::Invalid, format!("the request has two attributes {kind}")));
        }
        seen.push(kind);
        let known = [CHALLENGE_PASSWORD, EXTENSION_REQUEST, MICROSOFT_EXTENSIONS].contains(&kind);
        let [value] = found.as_slice() else {
            if known {
                return Err(Error::new(
                    Kind::Invalid,
                    format!("the attribute {kind} of the request has not one value"),
                ));
            }
            continue;
        };
        match kind {
            CHALLENGE_PASSWORD => password = Some(challenge_password(value)?),
            EXTENSION_REQUEST => wishes = read_extensions(value)?,
            MICROSOFT_EXTENSIONS => {
                return Err(Error::new(Kind::Unsupported, "the request asks for extensions in Microsoft's attribute")
                    .hint("use the extensionRequest of PKCS#9"));
            }
            // Others are wishes that nobody grants.
            _ => {}
        }
    }
    Ok((wishes, password))
}

fn challenge_password(value: &[u8]) -> Result<SecretBytes> {
    let text = AnyRef::from_der(value).map_err(malformed)?;
    if !matches!(text.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String) || text.value().len() > 255 {
        return Err(Error::new(
            Kind::Invalid,
            "the challenge password of the request is not a text of at most 255 bytes",
        ));
    }
    Ok(SecretBytes::new(text.value().to_vec()))
}

fn read_extensions(value: &[u8]) -> Result<Wishes> {
    let (mut wishes, mut seen) = (Wishes::default(), Vec::new());
    for bytes in values(inside(value, Tag::Sequence).map_err(malformed)?, MAX_PARTS, "extensions")? {
        let extension = Extension::from_der(bytes).map_err(malformed)?;
        // A criticality of FALSE is left out in DER.
        if extension.to_der().map_err(malformed)? != bytes {
            return Err(not_a_request().context("an extension is not in the one form of DER"));
        }
        let Extension { extn_id, critical, extn_value } = extension;
        if seen.contains(&extn_id) {
            return Err(Error::new(Kind::Invalid, format!("the request has two extensions {extn_id}")));
        }
        seen.push(extn_id);
        let value = extn_value.as_bytes();
        match extn_id {
            oid::SUBJECT_ALT_NAME => wishes.sans = alternative_names(value)?,
            oid::BASIC_CONSTRAINTS => {
                wishes.wants_ca = BasicConstraints::from_der(value).map_err(|e| wrong(extn_id, e))?.ca;
            }
            oid::EXTENDED_KEY_USAGE => {
                let usages = Vec::<ObjectIdentifier>::from_der(value).map_err(|e| wrong(extn_id, e))?;
                let known = |usage: &ExtendedUsage| usages.contains(&oid::extended_usage_oid(*usage));
                wishes.extended = ExtendedUsage::ALL.iter().copied().filter(known).collect();
                wishes.other_usages = wishes.extended.len() != usages.len();
            }
            oid::KEY_USAGE => drop(BitStringRef::from_der(value).map_err(|e| wrong(extn_id, e))?),
            oid::TLS_FEATURE => wishes.must_staple = value == oid::MUST_STAPLE,
            _ if critical => {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!("the request has a critical extension {extn_id}, which we do not issue"),
                )
                .hint("leave it out, or make it not critical: then it is passed over"));
            }
            _ => {}
        }
    }
    Ok(wishes)
}

fn wrong(extension: ObjectIdentifier, cause: der::Error) -> Error {
    Error::new(Kind::Invalid, format!("the extension {extension} of the request cannot be read")).because(cause)
}

/// GeneralNames ([RFC 5280, 4.2.1.6](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.6)) of the four kinds that we issue.
fn alternative_names(value: &[u8]) -> Result<Vec<San>> {
    let malformed = |e| wrong(oid::SUBJECT_ALT_NAME, e);
    let mut names = Vec::new();
    for bytes in values(inside(value, Tag::Sequence).map_err(malformed)?, MAX_NAMES, "alternative names")? {
        let name = general_name(AnyRef::from_der(bytes).map_err(malformed)?)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn general_name(name: AnyRef<'_>) -> Result<San> {
    let unsupported = |what: &str| {
        Err(Error::new(
            Kind::Unsupported,
            format!("the request has an alternative name of a kind that we do not issue: {what}"),
        )
        .hint("DNS names, addresses, mailboxes and URIs"))
    };
    let tag = name.tag();
    if tag.class() != Class::ContextSpecific {
        return Err(Error::new(Kind::Invalid, "the request has an alternative name without a kind"));
    }
    let text = || {
        std::str::from_utf8(name.value())
            .map_err(|_| Error::new(Kind::Invalid, "the request has an alternative name that is no text"))
    };
    match (tag.number().value(), tag.is_constructed()) {
        (1, false) => San::email(text()?),
        (2, false) => San::dns(text()?),
        (6, false) => San::uri(text()?),
        (7, false) => {
            let four = <[u8; 4]>::try_from(name.value()).map(IpAddr::from);
            let address = four.or_else(|_| <[u8; 16]>::try_from(name.value()).map(IpAddr::from));
            San::ip(
                address
                    .map_err(|_| Error::new(Kind::Invalid, "the request has an address that has not 4 or 16 bytes"))?,
            )
        }
        (0, true) => unsupported("otherName"),
        (3, true) => unsupported("x400Address"),
        (4, true) => unsupported("directoryName"),
        (5, true) => unsupported("ediPartyName"),
        (8, false) => unsupported("registeredID"),
        _ => Err(Error::new(Kind::Invalid, "the request has an alternative name of a kind that does not exist")),
    }
}
