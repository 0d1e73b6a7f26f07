//! What a certificate says, read by `x509-parser`, which had no part in writing it.

use std::net::IpAddr;

use der::asn1::ObjectIdentifier;
use jiff::Timestamp;
use x509_parser::extensions::{
    DistributionPointName, ExtendedKeyUsage, GeneralName, GeneralSubtree, ParsedExtension, X509Extension,
};
use x509_parser::prelude::{X509Certificate, X509Version};

use super::extensions as oid;
use super::template::{Authority, ExtendedUsage, KeyUsage, NameConstraints, Serial, Subtree, Template, Validity};
use super::{San, Subject};
use crate::error::{Error, Kind, Result};
use crate::types::{Distribution, PublicKey};

/// What is of interest in anybody's certificate.
pub(super) struct Said {
    pub(super) validity: Validity,
    pub(super) sans: Vec<San>,
    pub(super) key_id: Option<Vec<u8>>,
    pub(super) authority_key_id: Option<Vec<u8>>,
    pub(super) authority: Option<Authority>,
}

/// The serial number, with zeros before it.
pub(super) fn serial(certificate: &X509Certificate<'_>) -> Result<Serial> {
    let wrong = || Error::new(Kind::Invalid, "the serial number is not positive, or longer than 20 bytes");
    let raw = certificate.raw_serial();
    let negative = raw.first().is_none_or(|first| *first >= 0x80);
    let missing = 20_usize.checked_sub(raw.len()).filter(|_| !negative).ok_or_else(wrong)?;
    let padded = std::iter::repeat_n(0, missing).chain(raw.iter().copied()).collect::<Vec<_>>();
    let bytes = <[u8; 20]>::try_from(padded).ok().filter(|bytes| *bytes != [0; 20]).ok_or_else(wrong)?;
    Ok(Serial::from_bytes(bytes))
}

/// Reads leniently what others may ask of any certificate.
pub(super) fn read(certificate: &X509Certificate<'_>) -> Result<Said> {
    if certificate.version() != X509Version::V3 {
        return Err(Error::new(Kind::Invalid, "the certificate is not of version 3"));
    }
    let mut said = Said {
        validity: validity(certificate)?,
        sans: Vec::new(),
        key_id: None,
        authority_key_id: None,
        authority: None,
    };
    let mut constraints = NameConstraints::default();
    for (at, extension) in certificate.extensions().iter().enumerate() {
        let before = certificate.extensions().iter().take(at);
        if before.into_iter().any(|before| before.oid == extension.oid) {
            return Err(Error::new(Kind::Invalid, format!("the certificate has two extensions {}", extension.oid)));
        }
        let parsed = extension.parsed_extension();
        if parsed.error().is_some() {
            return Err(malformed(extension));
        }
        if let ParsedExtension::SubjectAlternativeName(names) = parsed {
            said.sans = names.general_names.iter().filter_map(|name| san(name).ok()).collect();
        } else if let ParsedExtension::SubjectKeyIdentifier(id) = parsed {
            said.key_id = Some(id.0.to_vec());
        } else if let ParsedExtension::AuthorityKeyIdentifier(id) = parsed {
            said.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
        } else if let ParsedExtension::BasicConstraints(basic) = parsed {
            let path_length = basic.path_len_constraint.map(|length| u8::try_from(length).unwrap_or(u8::MAX));
            said.authority = basic.ca.then(|| Authority { path_length, constraints: NameConstraints::default() });
        } else if let ParsedExtension::NameConstraints(trees) = parsed {
            constraints.permitted = subtrees(trees.permitted_subtrees.as_deref())?;
            constraints.excluded = subtrees(trees.excluded_subtrees.as_deref())?;
        }
    }
    if let Some(authority) = &mut said.authority {
        authority.constraints = constraints;
    }
    Ok(said)
}

/// The two key identifiers of a certificate.
pub(super) struct KeyIds {
    pub(super) own: Option<Vec<u8>>,
    pub(super) issuer: Option<Vec<u8>>,
}

/// Reads strictly: a certificate that says more, or says it otherwise, than a template can, is refused.
pub(super) fn template(certificate: &X509Certificate<'_>) -> Result<(Template, KeyIds)> {
    let Said { validity, sans: _, key_id, authority_key_id, authority } = read(certificate)?;
    let more = |what: &str| Error::new(Kind::Invalid, format!("the certificate has {what}"));
    if certificate.issuer_uid.is_some() || certificate.subject_uid.is_some() {
        return Err(more("unique identifiers"));
    }
    let mut template = Template {
        subject: Subject::from_der(certificate.subject().as_raw())?,
        sans: Vec::new(),
        public_key: PublicKey::from_der(certificate.public_key().raw.to_vec()),
        validity,
        usages: Vec::new(),
        extended: Vec::new(),
        authority,
        policies: Vec::new(),
        distribution: Distribution::default(),
        must_staple: false,
        no_check: false,
    };
    for extension in certificate.extensions() {
        let critical = extension_into(extension, &mut template)?;
        if extension.critical != critical {
            return Err(more(&format!("an extension {} of the wrong criticality", extension.oid)));
        }
    }
    Ok((template, KeyIds { own: key_id, issuer: authority_key_id }))
}

/// Takes over what one extension says; the answer is whether it has to be critical.
fn extension_into(extension: &X509Extension<'_>, template: &mut Template) -> Result<bool> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the list of another crate; what is not named is refused")]
    match extension.parsed_extension() {
        ParsedExtension::BasicConstraints(basic) => {
            if !basic.ca && basic.path_len_constraint.is_some() || basic.path_len_constraint.is_some_and(|n| n > 255) {
                return Err(malformed(extension));
            }
            Ok(true)
        }
        ParsedExtension::KeyUsage(usage) => {
            template.usages = KeyUsage::ALL.iter().copied().filter(|one| usage.flags & flag(*one) != 0).collect();
            let known = KeyUsage::ALL.iter().fold(0, |all, one| all | flag(*one));
            if usage.flags & !known == 0 { Ok(true) } else { Err(malformed(extension)) }
        }
        ParsedExtension::ExtendedKeyUsage(usage) => {
            template.extended = extended(usage).ok_or_else(|| malformed(extension))?;
            Ok(false)
        }
        ParsedExtension::SubjectAlternativeName(names) => {
            template.sans = names.general_names.iter().map(san).collect::<Result<_>>()?;
            Ok(template.subject.is_empty())
        }
        ParsedExtension::SubjectKeyIdentifier(_) => Ok(false),
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            let more = id.authority_cert_issuer.is_some() || id.authority_cert_serial.is_some();
            if more { Err(malformed(extension)) } else { Ok(false) }
        }
        ParsedExtension::CertificatePolicies(policies) => {
            for policy in policies.iter() {
                let oid =
                    ObjectIdentifier::from_bytes(policy.policy_id.as_bytes()).map_err(|_| malformed(extension))?;
                template.policies.push(oid);
                if policy.policy_qualifiers.is_some() {
                    return Err(malformed(extension));
                }
            }
            Ok(false)
        }
        // Read by `read` already.
        ParsedExtension::NameConstraints(_) => {
            if template.authority.is_some() {
                Ok(true)
            } else {
                Err(malformed(extension))
            }
        }
        ParsedExtension::CRLDistributionPoints(points) => {
            let [point] = points.points.as_slice() else { return Err(malformed(extension)) };
            let Some(DistributionPointName::FullName(names)) = &point.distribution_point else {
                return Err(malformed(extension));
            };
            if point.reasons.is_some() || point.crl_issuer.is_some() {
                return Err(malformed(extension));
            }
            template.distribution.crl =
                names.iter().map(url).collect::<Option<_>>().ok_or_else(|| malformed(extension))?;
            Ok(false)
        }
        ParsedExtension::AuthorityInfoAccess(places) => {
            for place in places.iter() {
                let url = url(&place.access_location).ok_or_else(|| malformed(extension))?;
                let method = place.access_method.as_bytes();
                if method == oid::ACCESS_OCSP.as_bytes() {
                    template.distribution.ocsp.push(url);
                } else if method == oid::ACCESS_ISSUERS.as_bytes() {
                    template.distribution.issuer.push(url);
                } else {
                    return Err(malformed(extension));
                }
            }
            Ok(false)
        }
        _ if extension.oid.as_bytes() == oid::TLS_FEATURE.as_bytes() && extension.value == oid::MUST_STAPLE => {
            template.must_staple = true;
            Ok(false)
        }
        _ if extension.oid.as_bytes() == oid::OCSP_NO_CHECK.as_bytes() && extension.value == [5, 0] => {
            template.no_check = true;
            Ok(false)
        }
        _ => Err(malformed(extension)),
    }
}

fn malformed(extension: &X509Extension<'_>) -> Error {
    Error::new(Kind::Invalid, format!("the certificate has an extension {} that is none of ours", extension.oid))
}

const fn flag(usage: KeyUsage) -> u16 {
    match usage {
        KeyUsage::DigitalSignature => 1,
        KeyUsage::KeyEncipherment => 1 << 2,
        KeyUsage::CertSign => 1 << 5,
        KeyUsage::CrlSign => 1 << 6,
    }
}

/// `None` where it lists what we do not know.
fn extended(usage: &ExtendedKeyUsage<'_>) -> Option<Vec<ExtendedUsage>> {
    let ExtendedKeyUsage {
        any,
        server_auth,
        client_auth,
        code_signing,
        email_protection,
        time_stamping,
        ocsp_signing,
        other,
    } = usage;
    let set = |one: &ExtendedUsage| match one {
        ExtendedUsage::ServerAuth => *server_auth,
        ExtendedUsage::ClientAuth => *client_auth,
        ExtendedUsage::CodeSigning => *code_signing,
        ExtendedUsage::EmailProtection => *email_protection,
        ExtendedUsage::OcspSigning => *ocsp_signing,
    };
    let known = !*any && !*time_stamping && other.is_empty();
    known.then(|| ExtendedUsage::ALL.iter().copied().filter(set).collect())
}

fn validity(certificate: &X509Certificate<'_>) -> Result<Validity> {
    let at = |seconds: i64| {
        Timestamp::from_second(seconds)
            .or(if seconds > 0 { Ok(Timestamp::MAX) } else { Err(()) })
            .map_err(|()| Error::new(Kind::Invalid, "the validity of the certificate cannot be read"))
    };
    let times = certificate.validity();
    Ok(Validity { not_before: at(times.not_before.timestamp())?, not_after: at(times.not_after.timestamp())? })
}

fn san(name: &GeneralName<'_>) -> Result<San> {
    let made = if let GeneralName::DNSName(text) = name {
        San::Dns((*text).to_owned())
    } else if let GeneralName::RFC822Name(text) = name {
        San::Email((*text).to_owned())
    } else if let GeneralName::URI(text) = name {
        San::Uri((*text).to_owned())
    } else if let GeneralName::IPAddress(bytes) = name {
        San::Ip(address(bytes).ok_or_else(|| Error::new(Kind::Invalid, "an address has 4 or 16 bytes"))?)
    } else {
        return Err(Error::new(Kind::Invalid, "the certificate has a name of a kind that we do not issue"));
    };
    made.check()?;
    Ok(made)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    four.or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

fn url(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::URI(text) = name { Some((*text).to_owned()) } else { None }
}

fn subtrees(trees: Option<&[GeneralSubtree<'_>]>) -> Result<Vec<Subtree>> {
    let unknown = || {
        Error::new(Kind::Unsupported, "the certificate constrains names in a way that we could not hold")
            .hint("constraints of DNS names, addresses with a mask that is a prefix, mailboxes' hosts and URIs' hosts")
    };
    let read = |tree: &GeneralSubtree<'_>| {
        let made = if let GeneralName::DNSName(text) = &tree.base {
            Subtree::Dns((*text).to_owned())
        } else if let GeneralName::RFC822Name(text) = &tree.base {
            Subtree::Email((*text).to_owned())
        } else if let GeneralName::URI(text) = &tree.base {
            Subtree::Uri((*text).to_owned())
        } else if let GeneralName::IPAddress(bytes) = &tree.base {
            network(bytes).ok_or_else(unknown)?
        } else {
            return Err(unknown());
        };
        made.check().map_err(|e| unknown().because(e))?;
        Ok(made)
    };
    trees.unwrap_or_default().iter().map(read).collect()
}

fn network(bytes: &[u8]) -> Option<Subtree> {
    let (network, mask) = bytes.split_at_checked(bytes.len() / 2)?;
    let (network, mask) = (address(network)?, address(mask)?);
    let (ones, width, zeros) = match mask {
        IpAddr::V4(four) => (four.to_bits().leading_ones(), 32, four.to_bits().trailing_zeros()),
        IpAddr::V6(six) => (six.to_bits().leading_ones(), 128, six.to_bits().trailing_zeros()),
    };
    let prefix = ones + zeros == width || ones == width;
    prefix.then(|| u8::try_from(ones).ok()).flatten().map(|length| Subtree::Ip(network, length))
}
