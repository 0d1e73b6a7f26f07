//! Extensions as such, and the identifiers of keys.

use der::Tag;
use der::asn1::ObjectIdentifier;

use super::rule::{ALL, AUTHORITIES, ISSUED, ROOT, Rule, Seen, Verdict, must};
use super::value::{Value, context};
use super::view::{
    ALTERNATIVE_NAMES, AUTHORITY_KEY_ID, BASIC_CONSTRAINTS, CRL_POINTS, EXTENDED_USAGE, INFORMATION_ACCESS, KEY_USAGE,
    NAME_CONSTRAINTS, OCSP_NO_CHECK, POLICIES, SUBJECT_KEY_ID, TLS_FEATURE, oid,
};

/// What we issue.
const KNOWN: &[ObjectIdentifier] = &[
    SUBJECT_KEY_ID,
    KEY_USAGE,
    ALTERNATIVE_NAMES,
    BASIC_CONSTRAINTS,
    NAME_CONSTRAINTS,
    CRL_POINTS,
    POLICIES,
    AUTHORITY_KEY_ID,
    EXTENDED_USAGE,
    INFORMATION_ACCESS,
    TLS_FEATURE,
    OCSP_NO_CHECK,
];

/// Known to standards, but not issued: a relying party that must understand it may not.
const UNDERSTOOD: &[ObjectIdentifier] = &[oid("2.5.29.36"), oid("2.5.29.54"), oid("2.5.29.33")];

#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    Rule::error("extension_once", "RFC 5280, 4.2", ALL,
        "No extension stands there twice.", extension_once),
    Rule::error("extension_critical", "RFC 5280, 4.2", ALL,
        "What is critical is an extension that every relying party understands.", extension_critical),
    Rule::error("extension_known", "CA/B BR, 7.1.2.11.5", ALL,
        "There is no extension but those that are issued here, each of which has its rules.", extension_known),
    Rule::error("authority_key_id", "RFC 5280, 4.2.1.1", ISSUED,
        "The authority key identifier is there and holds the identifier of a key.", authority_key_id),
    Rule::error("authority_key_id_matches", "RFC 5280, 4.2.1.1; CA/B BR, 7.1.2.11.1", ISSUED,
        "The authority key identifier is the issuer's subject key identifier.", authority_key_id_matches),
    Rule::error("authority_key_id_of_root", "RFC 5280, 4.2.1.1; CA/B BR, 7.1.2.1.3", ROOT,
        "The authority key identifier of a root, where there is one, is its own.", authority_key_id_of_root),
    Rule::error("authority_key_id_alone", "CA/B BR, 7.1.2.11.1", ALL,
        "The authority key identifier names no issuer and serial number beside the key.", authority_key_id_alone),
    Rule::error("authority_key_id_critical", "RFC 5280, 4.2.1.1", ALL,
        "The authority key identifier is not critical.",
        |s| must(!s.certificate.is_critical(AUTHORITY_KEY_ID), "the authority key identifier is critical")),
    Rule::error("subject_key_id", "RFC 5280, 4.2.1.2", AUTHORITIES,
        "An authority has a subject key identifier.", subject_key_id),
    Rule::error("subject_key_id_structure", "RFC 5280, 4.2.1.2; RFC 7093, 2", ALL,
        "A subject key identifier is a byte string of 1 to 64 bytes.", subject_key_id_structure),
    Rule::error("subject_key_id_critical", "RFC 5280, 4.2.1.2", ALL,
        "The subject key identifier is not critical.",
        |s| must(!s.certificate.is_critical(SUBJECT_KEY_ID), "the subject key identifier is critical")),
    Rule::error("subject_key_id_own", "RFC 5280, 4.2.1.2", ISSUED,
        "The subject key identifier is not the issuer's: chains would loop.", subject_key_id_own),
];

fn extension_once(seen: &Seen<'_>) -> Verdict {
    let mut all: Vec<_> = seen.certificate.extensions.iter().map(|extension| extension.id).collect();
    all.sort_unstable();
    must(all.windows(2).all(|pair| matches!(pair, [one, next] if one != next)), "an extension stands there twice")
}

fn name(id: &[u8]) -> String {
    ObjectIdentifier::from_bytes(id).map_or_else(|_| "of an unreadable identifier".to_owned(), |id| id.to_string())
}

fn extension_critical(seen: &Seen<'_>) -> Verdict {
    let understood = |id: &[u8]| KNOWN.iter().chain(UNDERSTOOD).any(|known| known.as_bytes() == id);
    match seen.certificate.extensions.iter().find(|one| one.is_critical() && !understood(one.id)) {
        Some(one) => Err(format!("the critical extension {} is not understood everywhere", name(one.id))),
        None => Ok(()),
    }
}

fn extension_known(seen: &Seen<'_>) -> Verdict {
    match seen.certificate.extensions.iter().find(|one| !KNOWN.iter().any(|known| known.as_bytes() == one.id)) {
        Some(one) => Err(format!("the extension {} is not one that is issued", name(one.id))),
        None => Ok(()),
    }
}

fn authority_key_id(seen: &Seen<'_>) -> Verdict {
    must(seen.certificate.authority_key_id().is_some_and(|id| !id.is_empty()), "no key of the issuer is named")
}

fn authority_key_id_matches(seen: &Seen<'_>) -> Verdict {
    let (Some(own), Some(issuer)) = (seen.certificate.authority_key_id(), seen.issuer) else { return Ok(()) };
    must(issuer.key_id() == Some(own), "the authority key identifier is not the issuer's")
}

fn authority_key_id_of_root(seen: &Seen<'_>) -> Verdict {
    let view = seen.certificate;
    if view.extension(AUTHORITY_KEY_ID).is_none() {
        return Ok(());
    }
    let same = view.authority_key_id().is_some() && view.authority_key_id() == view.key_id();
    must(same, "the authority key identifier of the root is not its own")
}

fn authority_key_id_alone(seen: &Seen<'_>) -> Verdict {
    let fields = seen.certificate.elements(AUTHORITY_KEY_ID);
    must(fields.iter().all(|field: &Value<'_>| field.tag == context(0)), "there is more than the identifier of a key")
}

fn subject_key_id(seen: &Seen<'_>) -> Verdict {
    must(seen.certificate.extension(SUBJECT_KEY_ID).is_some(), "there is no subject key identifier")
}

fn subject_key_id_structure(seen: &Seen<'_>) -> Verdict {
    let Some(extension) = seen.certificate.extension(SUBJECT_KEY_ID) else { return Ok(()) };
    let id = Value::read(extension.value).and_then(|value| value.of(Tag::OctetString));
    must(
        id.is_some_and(|id| (1..=64).contains(&id.len())),
        "the subject key identifier is no byte string of a known length",
    )
}

fn subject_key_id_own(seen: &Seen<'_>) -> Verdict {
    let (Some(own), Some(issuer)) = (seen.certificate.key_id(), seen.issuer.and_then(super::view::View::key_id)) else {
        return Ok(());
    };
    must(own != issuer, "the subject key identifier is the issuer's")
}
