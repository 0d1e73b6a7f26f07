//! Alternative names of the subject.

use der::Tag;

use super::rule::{ALL, Kind, Rule, SERVERS, Seen, Verdict, must};
use super::value::{Value, context};
use super::view::{ALTERNATIVE_NAMES, View};

pub(super) const EMAIL: Tag = context(1);
pub(super) const DNS: Tag = context(2);
pub(super) const URI: Tag = context(6);
pub(super) const IP: Tag = context(7);

/// What must have names that relying parties compare with what they connect to.
const NAMED: &[Kind] = &[Kind::Server, Kind::Peer, Kind::Svid];

#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    Rule::error("san_structure", "RFC 5280, 4.2.1.6", ALL,
        "The alternative names are a sequence of at least one name.", san_structure),
    Rule::error("san_present", "CA/B BR, 7.1.2.7.12; RFC 6125, 6.4; X509-SVID, 2", NAMED,
        "Servers, peers and SVIDs have alternative names.", san_present),
    Rule::notice("san_critical", "RFC 5280, 4.2.1.6; CA/B BR, 7.1.2.7.12", ALL,
        "Alternative names are critical only where the subject is empty.", san_critical),
    Rule::error("san_kind", "RFC 5280, 4.2.1.6", ALL,
        "An alternative name is a DNS name, an address, a mailbox or a URI.", san_kind),
    Rule::notice("server_san_kind", "CA/B BR, 7.1.2.7.12", &[Kind::Server],
        "The alternative names of a server are DNS names and addresses.", server_san_kind),
    Rule::error("server_reachable", "CA/B BR, 7.1.2.7.12; RFC 6125, 6.4", SERVERS,
        "A server or peer has a DNS name, an address or a URI.", server_reachable),
    Rule::notice("san_once", "X.509, 9.3.2.1", ALL,
        "No alternative name stands there twice.", san_once),
    Rule::error("dns_syntax", "RFC 5280, 4.2.1.6; RFC 1034, 3.5", ALL,
        "A DNS name is labels of letters, digits and hyphens, none at an end, without a dot at the end.", dns_syntax),
    Rule::error("dns_label_length", "RFC 1034, 3.1", ALL,
        "A label of a DNS name has at most 63 characters.", dns_label_length),
    Rule::error("dns_length", "RFC 1034, 3.1", ALL,
        "A DNS name has at most 253 characters.", dns_length),
    Rule::error("dns_lower_case", "RFC 5890, 2.3.2.1; RFC 4343", ALL,
        "A DNS name is in lower case: there is one spelling of each.", dns_lower_case),
    Rule::error("dns_wildcard", "RFC 6125, 6.4.3; CA/B BR, 1.6.1", ALL,
        "A wildcard is the whole first label and stands nowhere else.", dns_wildcard),
    Rule::error("dns_wildcard_depth", "CA/B BR, 3.2.2.6", ALL,
        "At least two labels follow a wildcard.", dns_wildcard_depth),
    Rule::error("dns_reserved_label", "RFC 5890, 2.3.1; CA/B BR, 7.1.2.7.12", ALL,
        "A label with hyphens in third and fourth place is an A-label.", dns_reserved_label),
    Rule::error("dns_no_address", "CA/B BR, 7.1.2.7.12", ALL,
        "An address is not written as a DNS name.", dns_no_address),
    Rule::error("ip_length", "RFC 5280, 4.2.1.6", ALL,
        "An address has 4 bytes or 16.", ip_length),
    Rule::error("email_syntax", "RFC 5280, 4.2.1.6; RFC 5321, 4.1.2", ALL,
        "A mailbox is one local part and one host, in ASCII, without a comment or display name.", email_syntax),
    Rule::error("uri_absolute", "RFC 5280, 4.2.1.6; RFC 3986, 4.3", ALL,
        "A URI is absolute, and in ASCII without spaces or control characters.", uri_absolute),
    Rule::error("uri_host", "RFC 5280, 4.2.1.6", ALL,
        "A URI with an authority has a host.", uri_host),
];

/// The texts of the names of one kind. What is not ASCII becomes something that no rule takes.
pub(super) fn texts<'a>(view: &View<'a>, tag: Tag) -> Vec<&'a str> {
    let names = view.sans().into_iter().filter(|name| name.tag == tag);
    names.map(|name| name.ascii().unwrap_or("\u{fffd}")).collect()
}

fn each(seen: &Seen<'_>, tag: Tag, wrong: &str, good: impl Fn(&str) -> bool) -> Verdict {
    match texts(seen.certificate, tag).into_iter().find(|name| !good(name)) {
        Some(name) => Err(format!("{name:?} {wrong}")),
        None => Ok(()),
    }
}

fn san_structure(seen: &Seen<'_>) -> Verdict {
    let Some(extension) = seen.certificate.extension(ALTERNATIVE_NAMES) else { return Ok(()) };
    let names = Value::read(extension.value).and_then(|value| value.sequence());
    must(names.is_some_and(|names| !names.is_empty()), "the alternative names are empty or no sequence")
}

fn san_present(seen: &Seen<'_>) -> Verdict {
    must(seen.certificate.extension(ALTERNATIVE_NAMES).is_some(), "there are no alternative names")
}

fn san_critical(seen: &Seen<'_>) -> Verdict {
    let view = seen.certificate;
    must(view.subject.content.is_empty() || !view.is_critical(ALTERNATIVE_NAMES), "critical beside a subject")
}

fn san_kind(seen: &Seen<'_>) -> Verdict {
    let known = |name: &Value<'_>| [EMAIL, DNS, URI, IP].contains(&name.tag);
    must(seen.certificate.sans().iter().all(known), "a name is of a kind that is not issued")
}

fn server_san_kind(seen: &Seen<'_>) -> Verdict {
    let other = |name: &Value<'_>| [EMAIL, URI].contains(&name.tag);
    must(!seen.certificate.sans().iter().any(other), "a server is named by a mailbox or URI")
}

fn server_reachable(seen: &Seen<'_>) -> Verdict {
    let sans = seen.certificate.sans();
    let found = sans.is_empty() || sans.iter().any(|name| [DNS, URI, IP].contains(&name.tag));
    must(found, "no name is one that a client connects to")
}

fn san_once(seen: &Seen<'_>) -> Verdict {
    let mut all: Vec<_> = seen.certificate.sans().iter().map(|name| name.whole).collect();
    all.sort_unstable();
    must(all.windows(2).all(|pair| matches!(pair, [one, next] if one != next)), "a name stands there twice")
}

/// A host name: letters, digits, hyphens and dots where they may stand.
pub(super) fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.split('.').all(label)
}

fn dns_syntax(seen: &Seen<'_>) -> Verdict {
    // Where a star may stand is another rule.
    each(seen, DNS, "is no host name", |name| is_host(&name.replace('*', "x")))
}

fn dns_label_length(seen: &Seen<'_>) -> Verdict {
    each(seen, DNS, "has a label that is too long", |name| name.split('.').all(|label| label.len() <= 63))
}

fn dns_length(seen: &Seen<'_>) -> Verdict {
    each(seen, DNS, "is too long", |name| name.len() <= 253)
}

fn dns_lower_case(seen: &Seen<'_>) -> Verdict {
    each(seen, DNS, "has capital letters", |name| !name.bytes().any(|byte| byte.is_ascii_uppercase()))
}

fn dns_wildcard(seen: &Seen<'_>) -> Verdict {
    each(seen, DNS, "has a star in the wrong place", |name| !name.strip_prefix("*.").unwrap_or(name).contains('*'))
}

fn dns_wildcard_depth(seen: &Seen<'_>) -> Verdict {
    each(seen, DNS, "is a wildcard over too much", |name| name.strip_prefix("*.").is_none_or(|rest| rest.contains('.')))
}

fn dns_reserved_label(seen: &Seen<'_>) -> Verdict {
    let reserved = |label: &str| label.get(2..4) == Some("--") && !label.starts_with("xn--");
    each(seen, DNS, "has a label that is reserved", |name| {
        !name.split('.').any(|label| reserved(label) || label == "xn--")
    })
}

fn dns_no_address(seen: &Seen<'_>) -> Verdict {
    // The last label of a host name is never all digits.
    let address = |name: &str| {
        name.rsplit('.').next().is_some_and(|last| !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()))
    };
    each(seen, DNS, "is an address", |name| !address(name))
}

fn ip_length(seen: &Seen<'_>) -> Verdict {
    let sans = seen.certificate.sans();
    let good = sans.iter().filter_map(|name| name.of(IP)).all(|octets| [4, 16].contains(&octets.len()));
    must(good, "an address has neither 4 bytes nor 16")
}

/// Local part and host of a mailbox.
pub(super) fn mailbox(text: &str) -> Option<(&str, &str)> {
    let (local, host) = text.rsplit_once('@')?;
    // "atext" of RFC 5322, 3.2.3, and dots within.
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&byte);
    let dots = local.starts_with('.') || local.ends_with('.') || local.contains("..");
    (!local.is_empty() && local.len() <= 64 && local.bytes().all(atom) && !dots && is_host(host))
        .then_some((local, host))
}

fn email_syntax(seen: &Seen<'_>) -> Verdict {
    each(seen, EMAIL, "is no mailbox", |name| mailbox(name).is_some())
}

fn uri_absolute(seen: &Seen<'_>) -> Verdict {
    each(seen, URI, "is no absolute URI", |name| {
        let scheme = |scheme: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
            scheme.starts_with(|first: char| first.is_ascii_alphabetic()) && scheme.bytes().all(allowed)
        };
        let visible = name.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte));
        visible && name.split_once(':').is_some_and(|(before, after)| scheme(before) && !after.is_empty())
    })
}

/// The host of a URI with an authority, without user and port; `None` where there is no authority.
pub(super) fn host(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    // An address of version 6 stands in brackets, with colons of its own.
    match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => Some(address),
        None => Some(place.split_once(':').map_or(place, |(host, _)| host)),
    }
}

fn uri_host(seen: &Seen<'_>) -> Verdict {
    each(seen, URI, "has no host", |name| host(name).is_none_or(|host| !host.is_empty()))
}
