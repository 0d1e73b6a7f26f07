//! A request of ours to an outside authority, for the key of an issuer ([RFC 2986](https://www.rfc-editor.org/rfc/rfc2986)).

use der::asn1::AnyRef;
use der::{Decode, Encode, Tag};
use x509_cert::ext::Extension;

use super::template::Authority;
use super::{KeyUsage, San, Subject, extensions};
use crate::error::{Error, Kind, Result};
use crate::types::PublicKey;

/// DER of the CertificationRequestInfo; [`super::signature::assemble`] makes the request of it. With an `authority`, it asks
/// to be one: with its path length, and the usages of issuers.
///
/// # Errors
/// [`Kind::Invalid`] for a subject or name that cannot stand in a certificate.
pub fn to_be_signed(
    subject: &Subject,
    public_key: &PublicKey,
    sans: &[San],
    authority: Option<&Authority>,
) -> Result<Vec<u8>> {
    sans.iter().try_for_each(San::check)?;
    let subject = subject.to_der()?;
    let mut wishes = Vec::new();
    if let Some(Authority { path_length, constraints: _ }) = authority {
        wishes.push(extensions::basic_constraints(true, *path_length)?);
        wishes.push(extensions::key_usage(&[KeyUsage::DigitalSignature, KeyUsage::CertSign, KeyUsage::CrlSign])?);
    }
    if !sans.is_empty() {
        wishes.push(extensions::alternative_names(sans, false)?);
    }
    encode(&subject, public_key, &wishes)
        .map_err(|e| Error::new(Kind::Invalid, "this cannot be written as a request").because(e))
}

fn encode(subject: &[u8], public_key: &PublicKey, wishes: &Vec<Extension>) -> der::Result<Vec<u8>> {
    let attributes = if wishes.is_empty() { Vec::new() } else { extension_request(wishes)? };
    // [0] IMPLICIT SET OF, which is there even when it is empty.
    let tag = Tag::ContextSpecific { constructed: true, number: der::TagNumber(0) };
    let attributes = AnyRef::new(tag, &attributes)?.to_der()?;
    let subject = AnyRef::from_der(subject)?.to_der()?;
    let body = [&0_u8.to_der()?, &subject, public_key.as_der(), &attributes].concat();
    AnyRef::new(Tag::Sequence, &body)?.to_der()
}

/// The attribute extensionRequest ([RFC 2985, 5.4.2](https://www.rfc-editor.org/rfc/rfc2985#section-5.4.2)).
fn extension_request(wishes: &Vec<Extension>) -> der::Result<Vec<u8>> {
    let kind = super::csr::EXTENSION_REQUEST.to_der()?;
    let set = AnyRef::new(Tag::Set, &wishes.to_der()?)?.to_der()?;
    AnyRef::new(Tag::Sequence, &[kind, set].concat())?.to_der()
}
