//! The extensions of a certificate, from what its template says.
//!
//! Criticality is that of [RFC 5280, 4.2](https://www.rfc-editor.org/rfc/rfc5280#section-4.2): critical are basicConstraints, keyUsage,
//! nameConstraints, and the alternative names of a subject without a name of its own. An extension with nothing to say is
//! left out.

use std::net::IpAddr;

use der::Encode;
use der::asn1::{AnyRef, Ia5String, ObjectIdentifier, OctetString};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::certpolicy::PolicyInformation;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::crl::dp::DistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{
    AccessDescription, AuthorityKeyIdentifier, BasicConstraints, KeyUsages, NameConstraints as Constraints,
};

use super::template::{ExtendedUsage, KeyUsage, NameConstraints, Subtree, Template};
use super::{San, key};
use crate::error::{Error, Result};

pub(super) const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
pub(super) const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
pub(super) const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
pub(super) const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
pub(super) const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
pub(super) const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
pub(super) const POLICIES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.32");
pub(super) const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
pub(super) const CRL_DISTRIBUTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.31");
pub(super) const AUTHORITY_ACCESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.1");
pub(super) const TLS_FEATURE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.1.24");
pub(super) const OCSP_NO_CHECK: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.5");
pub(super) const ACCESS_OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
pub(super) const ACCESS_ISSUERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.2");

/// A SEQUENCE with the one number 5, `status_request` ([RFC 7633, 4.1](https://www.rfc-editor.org/rfc/rfc7633#section-4.1)).
pub(super) const MUST_STAPLE: &[u8] = b"\x30\x03\x02\x01\x05";

/// All extensions that `template` asks for, under an issuer with this key identifier.
pub(super) fn encode(template: &Template, issuer_key_id: &[u8]) -> Result<Vec<Extension>> {
    let Template {
        subject,
        sans,
        public_key,
        validity: _,
        usages,
        extended,
        authority,
        policies,
        distribution,
        must_staple,
        no_check,
    } = template;
    let mut all = Vec::new();
    let path_length = authority.as_ref().and_then(|authority| authority.path_length);
    all.push(basic_constraints(authority.is_some(), path_length)?);
    all.push(key_usage(usages)?);
    if !extended.is_empty() {
        let oids: Vec<_> = extended.iter().copied().map(extended_usage_oid).collect();
        all.push(extension(EXTENDED_KEY_USAGE, false, &oids)?);
    }
    if !sans.is_empty() {
        all.push(alternative_names(sans, subject.is_empty())?);
    }
    all.push(extension(SUBJECT_KEY_ID, false, &octets(&key::key_id(public_key)?)?)?);
    let issuer = AuthorityKeyIdentifier { key_identifier: Some(octets(issuer_key_id)?), ..Default::default() };
    all.push(extension(AUTHORITY_KEY_ID, false, &issuer)?);
    if !policies.is_empty() {
        let information =
            |oid: &ObjectIdentifier| PolicyInformation { policy_identifier: *oid, policy_qualifiers: None };
        all.push(extension(POLICIES, false, &policies.iter().map(information).collect::<Vec<_>>())?);
    }
    if let Some(constraints) = authority.as_ref().and_then(|authority| name_constraints(&authority.constraints)) {
        all.push(extension(NAME_CONSTRAINTS, true, &constraints?)?);
    }
    if !distribution.crl.is_empty() {
        // One list at several places is one point with several names.
        let names = distribution.crl.iter().map(|url| uri(url)).collect::<Result<Vec<_>>>()?;
        let distribution_point = Some(DistributionPointName::FullName(names));
        let point = DistributionPoint { distribution_point, reasons: None, crl_issuer: None };
        all.push(extension(CRL_DISTRIBUTION, false, &vec![point])?);
    }
    let access = |oid| move |url: &String| Ok(AccessDescription { access_method: oid, access_location: uri(url)? });
    let places = distribution.ocsp.iter().map(access(ACCESS_OCSP));
    let places = places.chain(distribution.issuer.iter().map(access(ACCESS_ISSUERS))).collect::<Result<Vec<_>>>()?;
    if !places.is_empty() {
        all.push(extension(AUTHORITY_ACCESS, false, &places)?);
    }
    if *must_staple {
        all.push(Extension { extn_id: TLS_FEATURE, critical: false, extn_value: octets(MUST_STAPLE)? });
    }
    if *no_check {
        all.push(extension(OCSP_NO_CHECK, false, &AnyRef::NULL)?);
    }
    Ok(all)
}

pub(super) fn basic_constraints(ca: bool, path_len_constraint: Option<u8>) -> Result<Extension> {
    extension(BASIC_CONSTRAINTS, true, &BasicConstraints { ca, path_len_constraint })
}

pub(super) fn key_usage(usages: &[KeyUsage]) -> Result<Extension> {
    let mut bits = der::flagset::FlagSet::<KeyUsages>::default();
    for usage in usages {
        bits |= key_usage_bit(*usage);
    }
    extension(KEY_USAGE, true, &bits)
}

pub(super) fn alternative_names(sans: &[San], critical: bool) -> Result<Extension> {
    let names = sans.iter().map(general_name).collect::<Result<Vec<_>>>()?;
    extension(SUBJECT_ALT_NAME, critical, &names)
}

pub(super) fn extension(extn_id: ObjectIdentifier, critical: bool, value: &impl Encode) -> Result<Extension> {
    Ok(Extension { extn_id, critical, extn_value: octets(&value.to_der().map_err(defect)?)? })
}

/// The object identifier of an extended usage.
pub(super) const fn extended_usage_oid(usage: ExtendedUsage) -> ObjectIdentifier {
    match usage {
        ExtendedUsage::ServerAuth => ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"),
        ExtendedUsage::ClientAuth => ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2"),
        ExtendedUsage::CodeSigning => ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3"),
        ExtendedUsage::EmailProtection => ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.4"),
        ExtendedUsage::OcspSigning => ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.9"),
    }
}

const fn key_usage_bit(usage: KeyUsage) -> KeyUsages {
    match usage {
        KeyUsage::DigitalSignature => KeyUsages::DigitalSignature,
        KeyUsage::KeyEncipherment => KeyUsages::KeyEncipherment,
        KeyUsage::CertSign => KeyUsages::KeyCertSign,
        KeyUsage::CrlSign => KeyUsages::CRLSign,
    }
}

/// A name as it stands in the alternative names.
fn general_name(name: &San) -> Result<GeneralName> {
    Ok(match name {
        San::Dns(text) => GeneralName::DnsName(ia5(text)?),
        San::Email(text) => GeneralName::Rfc822Name(ia5(text)?),
        San::Uri(text) => uri(text)?,
        San::Ip(IpAddr::V4(four)) => GeneralName::IpAddress(octets(&four.octets())?),
        San::Ip(IpAddr::V6(six)) => GeneralName::IpAddress(octets(&six.octets())?),
    })
}

fn name_constraints(constraints: &NameConstraints) -> Option<Result<Constraints>> {
    let NameConstraints { permitted, excluded } = constraints;
    if permitted.is_empty() && excluded.is_empty() {
        return None;
    }
    let trees = |trees: &[Subtree]| -> Result<_> {
        let trees = trees.iter().map(subtree).collect::<Result<Vec<_>>>()?;
        Ok(Some(trees).filter(|trees| !trees.is_empty()))
    };
    let encode = || Ok(Constraints { permitted_subtrees: trees(permitted)?, excluded_subtrees: trees(excluded)? });
    Some(encode())
}

/// [RFC 5280, 4.2.1.10](https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.10): an address is followed by its mask.
fn subtree(tree: &Subtree) -> Result<GeneralSubtree> {
    let ones = |width: u8, length: u8| u128::MAX.checked_shl(u32::from(width.saturating_sub(length))).unwrap_or(0);
    let base = match tree {
        Subtree::Dns(text) => GeneralName::DnsName(ia5(text)?),
        Subtree::Email(text) => GeneralName::Rfc822Name(ia5(text)?),
        Subtree::Uri(text) => uri(text)?,
        Subtree::Ip(IpAddr::V4(four), length) => {
            let mask = ones(32, *length).to_be_bytes();
            let mask = mask.last_chunk::<4>().copied().unwrap_or_default();
            GeneralName::IpAddress(octets(&[four.octets(), mask].concat())?)
        }
        Subtree::Ip(IpAddr::V6(six), length) => {
            GeneralName::IpAddress(octets(&[six.octets(), ones(128, *length).to_be_bytes()].concat())?)
        }
    };
    Ok(GeneralSubtree { base, minimum: 0, maximum: None })
}

pub(super) fn uri(text: &str) -> Result<GeneralName> {
    Ok(GeneralName::UniformResourceIdentifier(ia5(text)?))
}

fn ia5(text: &str) -> Result<Ia5String> {
    Ia5String::new(text).map_err(defect)
}

pub(super) fn octets(bytes: &[u8]) -> Result<OctetString> {
    OctetString::new(bytes).map_err(defect)
}

fn defect(error: der::Error) -> Error {
    Error::internal(format!("der of an extension: {error}"))
}
