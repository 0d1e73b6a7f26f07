//! Revocation, policies and other services around a certificate.

use der::Tag;
use der::asn1::ObjectIdentifier;

use super::rule::{ALL, Kind, LEAVES, RESPONDER, ROOT, Rule, Seen, TLS, Verdict, must};
use super::sans::{URI, host};
use super::value::{Value, context, nested};
use super::view::{CRL_POINTS, INFORMATION_ACCESS, OCSP_NO_CHECK, POLICIES, TLS_FEATURE, View, oid};

const OCSP: ObjectIdentifier = oid("1.3.6.1.5.5.7.48.1");
const ISSUERS: ObjectIdentifier = oid("1.3.6.1.5.5.7.48.2");
const ANY_POLICY: ObjectIdentifier = oid("2.5.29.32.0");

/// The kinds that nobody staples for, and the kinds whose own revocation is looked up.
const NOT_TLS: &[Kind] = &[Kind::Root, Kind::Intermediate, Kind::CodeSigning, Kind::OcspResponder];
const NOT_RESPONDER: &[Kind] =
    &[Kind::Root, Kind::Intermediate, Kind::Server, Kind::Client, Kind::Peer, Kind::CodeSigning, Kind::Svid];
const REVOCABLE: &[Kind] = &[Kind::Intermediate, Kind::Server, Kind::Client, Kind::Peer, Kind::CodeSigning, Kind::Svid];

/// "Short-lived Subscriber Certificate ... less than or equal to 7 days" since 15 March 2026.
const SHORT: i64 = 7 * 86_400;

#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    Rule::error("access_structure", "RFC 5280, 4.2.2.1", ALL,
        "Authority information access is a sequence of at least one method with its location.", access_structure),
    Rule::error("access_critical", "RFC 5280, 4.2.2.1", ALL,
        "Authority information access is not critical.", |s| not_critical(s, INFORMATION_ACCESS)),
    Rule::error("access_method", "CA/B BR, 7.1.2.7.7", ALL,
        "The methods are OCSP and the issuer's certificates.", access_method),
    Rule::error("access_url", "CA/B BR, 7.1.2.7.7; RFC 5280, 8", ALL,
        "The locations are URLs of http with a host: what is fetched is signed, and TLS would need it first.", access_url),
    Rule::error("lists_structure", "RFC 5280, 4.2.1.13", ALL,
        "CRL distribution points are a sequence of at least one point.", lists_structure),
    Rule::error("lists_critical", "RFC 5280, 4.2.1.13; CA/B BR, 7.1.2.11.2", ALL,
        "CRL distribution points are not critical.", |s| not_critical(s, CRL_POINTS)),
    Rule::error("lists_named", "RFC 5280, 4.2.1.13; CA/B BR, 7.1.2.11.2", ALL,
        "Each distribution point has a full name, and names no reasons and no other issuer.", lists_named),
    Rule::error("lists_url", "CA/B BR, 7.1.2.11.2; RFC 5280, 8", ALL,
        "Revocation lists are found at URLs of http with a host.", lists_url),
    Rule::notice("lists_one_point", "CA/B BR, 7.1.2.11.2", ALL,
        "There is one distribution point; it may have several URLs.", lists_one_point),
    Rule::notice("revocable", "CA/B BR, 7.1.2.7.6 and 7.1.2.2.3", REVOCABLE,
        "What is valid for more than seven days says where to look for its revocation.", revocable),
    Rule::notice("root_services", "CA/B BR, 7.1.2.1.2", ROOT,
        "A root has no policies, CRL distribution points or information access: nobody can revoke it for its issuer.", root_services),
    Rule::error("policies_structure", "RFC 5280, 4.2.1.4", ALL,
        "Certificate policies are a sequence of at least one policy.", policies_structure),
    Rule::error("policies_once", "RFC 5280, 4.2.1.4", ALL,
        "No policy stands there twice.", policies_once),
    Rule::error("policies_critical", "CA/B BR, 7.1.2.7.6", ALL,
        "Certificate policies are not critical.", |s| not_critical(s, POLICIES)),
    Rule::error("policies_any", "CA/B BR, 7.1.2.7.9", LEAVES,
        "A leaf is not issued under any policy whatever.", policies_any),
    Rule::notice("policies_plain", "RFC 5280, 4.2.1.4; CA/B BR, 7.1.2.7.9", ALL,
        "A policy is an identifier alone.", policies_plain),
    Rule::notice("policies_within_issuer", "RFC 5280, 6.1.3", REVOCABLE,
        "Where the issuer has policies, the certificate has none beyond them.", policies_within_issuer),
    Rule::error("no_check", "CA/B BR, 4.9.9 and 7.1.2.8.6", RESPONDER,
        "An OCSP responder's revocation is not looked up, and it says so.", no_check),
    Rule::error("no_check_of_responders", "RFC 6960, 4.2.2.2.1", NOT_RESPONDER,
        "Nothing else says that its revocation is not looked up.",
        |s| must(s.certificate.extension(OCSP_NO_CHECK).is_none(), "what is no OCSP responder asks not to be checked")),
    Rule::error("no_check_null", "RFC 6960, 4.2.2.2.1", ALL,
        "What says so is NULL.", no_check_null),
    Rule::error("no_check_critical", "RFC 6960, 4.2.2.2.1; CA/B BR, 7.1.2.8.6", ALL,
        "What says so is not critical.", |s| not_critical(s, OCSP_NO_CHECK)),
    Rule::error("responder_lists", "CA/B BR, 7.1.2.8.2", RESPONDER,
        "An OCSP responder has no CRL distribution points.",
        |s| must(s.certificate.extension(CRL_POINTS).is_none(), "an OCSP responder has CRL distribution points")),
    Rule::notice("responder_access", "CA/B BR, 7.1.2.8.3", RESPONDER,
        "An OCSP responder names no other.", responder_access),
    Rule::error("staple_structure", "RFC 7633, 4.1", ALL,
        "The TLS feature is a sequence of features, and the one feature is that an OCSP response is stapled.", staple_structure),
    Rule::error("staple_critical", "RFC 7633, 4; CA/B BR, 7.1.2.7.6", ALL,
        "The TLS feature is not critical.", |s| not_critical(s, TLS_FEATURE)),
    Rule::error("staple_of_tls", "RFC 7633, 4.2", NOT_TLS,
        "Only what is shown in TLS asks for stapling.",
        |s| must(s.certificate.extension(TLS_FEATURE).is_none(), "this is no certificate that a TLS server shows")),
    Rule::error("staple_responder", "RFC 7633, 4.2; RFC 6960, 3.1", TLS,
        "Where stapling is asked for, there is a responder to ask.", staple_responder),
];

fn not_critical(seen: &Seen<'_>, id: ObjectIdentifier) -> Verdict {
    must(!seen.certificate.is_critical(id), "an extension is critical that must not be")
}

/// Whether an extension, where it is there, is a sequence of elements that are all `sound`, and not empty.
fn list_of(seen: &Seen<'_>, id: ObjectIdentifier, sound: impl Fn(&[Value<'_>]) -> bool) -> Verdict {
    let Some(extension) = seen.certificate.extension(id) else { return Ok(()) };
    let elements = Value::read(extension.value).and_then(|value| value.sequence()).unwrap_or_default();
    let good = |element: &Value<'_>| element.sequence().is_some_and(|fields| sound(&fields));
    must(!elements.is_empty() && elements.iter().all(good), "the extension is empty or of another form")
}

fn is_url(location: &Value<'_>) -> bool {
    let url = location.of(URI).and_then(|_| location.ascii()).filter(|url| url.starts_with("http://"));
    url.and_then(host).is_some_and(|host| !host.is_empty())
}

/// Methods and locations.
fn access<'a>(view: &View<'a>) -> Vec<(&'a [u8], Value<'a>)> {
    let pair = |element: &Value<'a>| match element.sequence()?.as_slice() {
        [method, location] => Some((method.content, *location)),
        _ => None,
    };
    view.elements(INFORMATION_ACCESS).iter().filter_map(pair).collect()
}

fn has_responder(view: &View<'_>) -> bool {
    access(view).iter().any(|(method, _)| *method == OCSP.as_bytes())
}

fn access_structure(seen: &Seen<'_>) -> Verdict {
    list_of(seen, INFORMATION_ACCESS, |fields| matches!(fields, [method, _] if method.tag == Tag::ObjectIdentifier))
}

fn access_method(seen: &Seen<'_>) -> Verdict {
    let known = |method: &[u8]| method == OCSP.as_bytes() || method == ISSUERS.as_bytes();
    must(access(seen.certificate).iter().all(|(method, _)| known(method)), "a method is neither OCSP nor issuers")
}

fn access_url(seen: &Seen<'_>) -> Verdict {
    must(access(seen.certificate).iter().all(|(_, location)| is_url(location)), "a location is no URL of http")
}

/// The fields of each distribution point.
fn points<'a>(view: &View<'a>) -> Vec<Vec<Value<'a>>> {
    view.elements(CRL_POINTS).iter().map(|point| point.sequence().unwrap_or_default()).collect()
}

/// The names in the `fullName` of a distribution point.
fn full_names<'a>(point: &[Value<'a>]) -> Vec<Value<'a>> {
    let choice = point.iter().find_map(|field| field.within(nested(0))).unwrap_or_default();
    choice.iter().find_map(|name| name.within(nested(0))).unwrap_or_default()
}

fn lists_structure(seen: &Seen<'_>) -> Verdict {
    let allowed = |field: &Value<'_>| [nested(0), context(1), nested(2)].contains(&field.tag);
    list_of(seen, CRL_POINTS, |fields| fields.iter().all(allowed))
}

fn lists_named(seen: &Seen<'_>) -> Verdict {
    let named = |point: &Vec<Value<'_>>| point.len() == 1 && !full_names(point).is_empty();
    must(points(seen.certificate).iter().all(named), "a distribution point is more, or less, than its full name")
}

fn lists_url(seen: &Seen<'_>) -> Verdict {
    let points = points(seen.certificate);
    must(points.iter().flat_map(|point| full_names(point)).all(|name| is_url(&name)), "a list is at no URL of http")
}

fn lists_one_point(seen: &Seen<'_>) -> Verdict {
    must(points(seen.certificate).len() <= 1, "there are several distribution points")
}

fn revocable(seen: &Seen<'_>) -> Verdict {
    let view = seen.certificate;
    let found = view.extension(CRL_POINTS).is_some() || has_responder(view);
    let (before, after) = (view.begins, view.ends);
    let short = before.zip(after).is_some_and(|(before, after)| after.as_second() - before.as_second() < SHORT);
    must(found || short, "nobody will find its revocation")
}

fn root_services(seen: &Seen<'_>) -> Verdict {
    let found = [POLICIES, CRL_POINTS, INFORMATION_ACCESS].iter().any(|id| seen.certificate.extension(*id).is_some());
    must(!found, "the root has policies or services")
}

/// The identifiers of policies.
fn policies<'a>(view: &View<'a>) -> Vec<&'a [u8]> {
    let first = |policy: &Value<'a>| policy.sequence()?.first()?.of(Tag::ObjectIdentifier);
    view.elements(POLICIES).iter().filter_map(first).collect()
}

fn policies_structure(seen: &Seen<'_>) -> Verdict {
    list_of(seen, POLICIES, |fields| match fields {
        [id] => id.tag == Tag::ObjectIdentifier,
        [id, qualifiers] => id.tag == Tag::ObjectIdentifier && qualifiers.tag == Tag::Sequence,
        _ => false,
    })
}

fn policies_once(seen: &Seen<'_>) -> Verdict {
    let mut all = policies(seen.certificate);
    all.sort_unstable();
    must(all.windows(2).all(|pair| matches!(pair, [one, next] if one != next)), "a policy stands there twice")
}

fn policies_any(seen: &Seen<'_>) -> Verdict {
    must(!policies(seen.certificate).contains(&ANY_POLICY.as_bytes()), "a leaf is issued under any policy")
}

fn policies_plain(seen: &Seen<'_>) -> Verdict {
    let plain = |policy: &Value<'_>| policy.sequence().is_none_or(|fields| fields.len() == 1);
    must(seen.certificate.elements(POLICIES).iter().all(plain), "a policy has qualifiers")
}

fn policies_within_issuer(seen: &Seen<'_>) -> Verdict {
    let bounds = seen.issuer.map(policies).unwrap_or_default();
    let unbound = bounds.is_empty() || bounds.contains(&ANY_POLICY.as_bytes());
    let within = policies(seen.certificate).iter().all(|policy| bounds.contains(policy));
    must(unbound || within, "there is a policy that the issuer has not")
}

fn no_check(seen: &Seen<'_>) -> Verdict {
    must(seen.certificate.extension(OCSP_NO_CHECK).is_some(), "who checks the OCSP responder would ask the responder")
}

fn no_check_null(seen: &Seen<'_>) -> Verdict {
    let extension = seen.certificate.extension(OCSP_NO_CHECK);
    must(extension.is_none_or(|extension| extension.value == [5, 0]), "the extension is not NULL")
}

fn responder_access(seen: &Seen<'_>) -> Verdict {
    must(!has_responder(seen.certificate), "an OCSP responder names an OCSP responder")
}

fn staple_structure(seen: &Seen<'_>) -> Verdict {
    let extension = seen.certificate.extension(TLS_FEATURE);
    must(extension.is_none_or(|extension| extension.value == [0x30, 3, 2, 1, 5]), "the TLS feature is another one")
}

fn staple_responder(seen: &Seen<'_>) -> Verdict {
    let view = seen.certificate;
    must(view.extension(TLS_FEATURE).is_none() || has_responder(view), "nobody answers what is to be stapled")
}
