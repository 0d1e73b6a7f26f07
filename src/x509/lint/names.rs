//! The names of issuer and subject.

use der::Tag;
use der::asn1::ObjectIdentifier;

use super::rule::{ALL, AUTHORITIES, ISSUED, Kind, ROOT, Rule, SERVERS, Seen, Verdict, must};
use super::sans::{DNS, IP};
use super::value::Value;
use super::view::{ALTERNATIVE_NAMES, Attribute, View, attributes, oid};

const COMMON_NAME: ObjectIdentifier = oid("2.5.4.3");
const SERIAL_NUMBER: ObjectIdentifier = oid("2.5.4.5");
const COUNTRY: ObjectIdentifier = oid("2.5.4.6");
const LOCALITY: ObjectIdentifier = oid("2.5.4.7");
const STATE: ObjectIdentifier = oid("2.5.4.8");
const STREET: ObjectIdentifier = oid("2.5.4.9");
const ORGANIZATION: ObjectIdentifier = oid("2.5.4.10");
const UNIT: ObjectIdentifier = oid("2.5.4.11");
const POSTAL_CODE: ObjectIdentifier = oid("2.5.4.17");
const DOMAIN_COMPONENT: ObjectIdentifier = oid("0.9.2342.19200300.100.1.25");
pub(super) const EMAIL: ObjectIdentifier = oid("1.2.840.113549.1.9.1");

/// Attributes with the upper bound of their length in characters (RFC 5280, appendix A.1), in the order of CA/B BR, 7.1.4.2.
const KNOWN: &[(ObjectIdentifier, usize)] = &[
    (DOMAIN_COMPONENT, 63),
    (COUNTRY, 2),
    (STATE, 128),
    (LOCALITY, 128),
    (POSTAL_CODE, 40),
    (STREET, 128),
    (ORGANIZATION, 64),
    (UNIT, 64),
    (COMMON_NAME, 64),
    (SERIAL_NUMBER, 64),
    (EMAIL, 255),
];

#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    Rule::error("name_structure", "RFC 5280, 4.1.2.4", ALL,
        "A name is a sequence of sets of attributes, none of the sets empty.", name_structure),
    Rule::error("issuer_named", "RFC 5280, 4.1.2.4", ALL,
        "The issuer has a name.", |s| must(!s.certificate.issuer.content.is_empty(), "the issuer has no name")),
    Rule::error("issuer_matches", "RFC 5280, 6.1.3; CA/B BR, 7.1.4.1", ISSUED,
        "The issuer's name is, byte for byte, the subject of the issuer's certificate.", issuer_matches),
    Rule::error("root_names_itself", "RFC 5280, 3.2; CA/B BR, 7.1.2.1", ROOT,
        "The issuer of a root is its subject.", root_names_itself),
    Rule::error("authority_named", "RFC 5280, 4.1.2.6", AUTHORITIES,
        "An authority has a subject that is not empty.", |s| must(!s.certificate.subject.content.is_empty(), "an authority has no name")),
    Rule::error("subject_somewhere", "RFC 5280, 4.1.2.6", ALL,
        "Where the subject is empty, there are alternative names, and they are critical.", subject_somewhere),
    Rule::error("attribute_type", "RFC 5280, 4.1.2.4 and appendix A.1", ALL,
        "Attributes are UTF8String or PrintableString; countries and serial numbers PrintableString, domain components and mailboxes IA5String.", attribute_type),
    Rule::error("attribute_alphabet", "X.680, 41; RFC 5280, appendix A.1", ALL,
        "Strings have only characters of their type, and UTF-8 is sound.", attribute_alphabet),
    Rule::error("attribute_length", "RFC 5280, appendix A.1", ALL,
        "No attribute is longer than its upper bound.", attribute_length),
    Rule::error("attribute_control", "RFC 5280, 7.1; RFC 4518, 2.2", ALL,
        "No attribute has control characters, such as NUL or a line's end: comparison would not see them.", attribute_control),
    Rule::error("attribute_blank", "CA/B BR, 7.1.2.7.4", ALL,
        "No attribute is empty, or made of spaces and punctuation alone.", attribute_blank),
    Rule::error("attribute_trimmed", "RFC 5280, 7.1; RFC 4518, 2.6.1", ALL,
        "No attribute begins or ends with a space, or has two in a row: comparison would not see them.", attribute_trimmed),
    Rule::error("attribute_single", "CA/B BR, 7.1.4.1", ALL,
        "Each relative name of the subject holds one attribute.", attribute_single),
    Rule::error("attribute_once", "CA/B BR, 7.1.4.1", ALL,
        "No attribute stands in the subject twice, but for domain components.", attribute_once),
    Rule::error("attribute_known", "RFC 5280, 4.1.2.4; CA/B BR, 7.1.4.4", ALL,
        "The subject has only attributes that relying parties must be able to read.", attribute_known),
    Rule::notice("attribute_order", "CA/B BR, 7.1.4.1 and 7.1.4.2", ALL,
        "The attributes of the subject stand from the widest to the narrowest.", attribute_order),
    Rule::error("country_code", "RFC 5280, appendix A.1; ISO 3166-1", ALL,
        "A country is two capital letters.", country_code),
    Rule::error("email_in_subject", "RFC 5280, 4.1.2.6", ALL,
        "Mailboxes are alternative names and do not stand in the subject.", email_in_subject),
    Rule::error("common_name_among_sans", "CA/B BR, 7.1.4.3", SERVERS,
        "The common name of a server is one of its alternative names.", common_name_among_sans),
    Rule::notice("unit_in_subject", "CA/B BR, 7.1.2.7.4", SERVERS,
        "The subject of a server names no organizational unit.", unit_in_subject),
];

fn subject<'a>(view: &View<'a>) -> Vec<Attribute<'a>> {
    attributes(&view.subject).unwrap_or_default().into_iter().flatten().collect()
}

/// Those with an identifier.
pub(super) fn of<'a>(view: &View<'a>, id: ObjectIdentifier) -> Vec<Value<'a>> {
    subject(view).iter().filter(|(own, _)| *own == id.as_bytes()).map(|(_, value)| *value).collect()
}

/// Asks something of each attribute of the subject. The issuer's are those of another certificate, and must equal them.
fn each(seen: &Seen<'_>, wrong: &str, good: impl Fn(&Attribute<'_>) -> bool) -> Verdict {
    match subject(seen.certificate).iter().find(|attribute| !good(attribute)) {
        Some((_, value)) => Err(format!("{:?} {wrong}", String::from_utf8_lossy(value.content))),
        None => Ok(()),
    }
}

fn name_structure(seen: &Seen<'_>) -> Verdict {
    let sound = |name| attributes(name).is_some_and(|sets| sets.iter().all(|set| !set.is_empty()));
    must(sound(&seen.certificate.issuer), "the issuer is not a name")?;
    must(sound(&seen.certificate.subject), "the subject is not a name")
}

fn issuer_matches(seen: &Seen<'_>) -> Verdict {
    let same = seen.issuer.is_none_or(|issuer| issuer.subject.whole == seen.certificate.issuer.whole);
    must(same, "the issuer's name is not the subject of its certificate")
}

fn root_names_itself(seen: &Seen<'_>) -> Verdict {
    must(seen.certificate.issuer.whole == seen.certificate.subject.whole, "the root names another issuer")
}

fn subject_somewhere(seen: &Seen<'_>) -> Verdict {
    let named = !seen.certificate.subject.content.is_empty() || seen.certificate.is_critical(ALTERNATIVE_NAMES);
    must(named, "the subject is empty, and no critical alternative names make up for it")
}

fn attribute_type(seen: &Seen<'_>) -> Verdict {
    each(seen, "is of a string type that it may not have", |(id, value)| {
        let id = *id;
        if id == COUNTRY.as_bytes() || id == SERIAL_NUMBER.as_bytes() {
            value.tag == Tag::PrintableString
        } else if id == DOMAIN_COMPONENT.as_bytes() || id == EMAIL.as_bytes() {
            value.tag == Tag::Ia5String
        } else {
            matches!(value.tag, Tag::Utf8String | Tag::PrintableString)
        }
    })
}

fn attribute_alphabet(seen: &Seen<'_>) -> Verdict {
    each(seen, "has characters that its string type has not", |(_, value)| {
        let printable = |byte: &u8| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(byte);
        if value.tag == Tag::PrintableString {
            value.content.iter().all(printable)
        } else if value.tag == Tag::Ia5String {
            value.content.is_ascii()
        } else {
            std::str::from_utf8(value.content).is_ok()
        }
    })
}

fn attribute_length(seen: &Seen<'_>) -> Verdict {
    each(seen, "is too long", |(id, value)| {
        let most = KNOWN.iter().find(|(known, _)| known.as_bytes() == *id).map_or(64, |(_, most)| *most);
        String::from_utf8_lossy(value.content).chars().count() <= most
    })
}

fn attribute_control(seen: &Seen<'_>) -> Verdict {
    each(seen, "has control characters", |(_, value)| {
        !String::from_utf8_lossy(value.content).chars().any(char::is_control)
    })
}

fn attribute_blank(seen: &Seen<'_>) -> Verdict {
    each(seen, "says nothing", |(_, value)| String::from_utf8_lossy(value.content).chars().any(char::is_alphanumeric))
}

fn attribute_trimmed(seen: &Seen<'_>) -> Verdict {
    each(seen, "has spaces at an end or in a row", |(_, value)| {
        let text = String::from_utf8_lossy(value.content);
        text.trim() == text && !text.contains("  ")
    })
}

fn attribute_single(seen: &Seen<'_>) -> Verdict {
    let sets = attributes(&seen.certificate.subject).unwrap_or_default();
    must(sets.iter().all(|set| set.len() <= 1), "two attributes share a relative name")
}

fn attribute_once(seen: &Seen<'_>) -> Verdict {
    let all = subject(seen.certificate);
    let twice =
        |id: &[u8]| id != DOMAIN_COMPONENT.as_bytes() && all.iter().filter(|(other, _)| *other == id).count() > 1;
    must(!all.iter().any(|(id, _)| twice(id)), "an attribute stands there twice")
}

fn attribute_known(seen: &Seen<'_>) -> Verdict {
    each(seen, "is of an unknown attribute", |(id, _)| KNOWN.iter().any(|(known, _)| known.as_bytes() == *id))
}

fn attribute_order(seen: &Seen<'_>) -> Verdict {
    let places = subject(seen.certificate);
    let places = places.iter().filter_map(|(id, _)| KNOWN.iter().position(|(known, _)| known.as_bytes() == *id));
    must(places.is_sorted(), "the attributes are in another order")
}

fn country_code(seen: &Seen<'_>) -> Verdict {
    let good = |value: &Value<'_>| value.content.len() == 2 && value.content.iter().all(u8::is_ascii_uppercase);
    must(of(seen.certificate, COUNTRY).iter().all(good), "the country is not two capital letters")
}

fn email_in_subject(seen: &Seen<'_>) -> Verdict {
    must(of(seen.certificate, EMAIL).is_empty(), "there is a mailbox in the subject")
}

fn common_name_among_sans(seen: &Seen<'_>) -> Verdict {
    let sans = seen.certificate.sans();
    // A peer may be a client by its common name; only what looks like a host is one.
    let host = |name: &str| seen.kind == Kind::Server || name.contains('.') || name.contains(':');
    let among = |name: &str| {
        let address = name.parse::<std::net::IpAddr>().ok().map(|address| match address {
            std::net::IpAddr::V4(four) => four.octets().to_vec(),
            std::net::IpAddr::V6(six) => six.octets().to_vec(),
        });
        sans.iter().any(|san| match &address {
            Some(octets) => san.of(IP) == Some(octets.as_slice()),
            None => san.of(DNS) == Some(name.as_bytes()),
        })
    };
    for value in of(seen.certificate, COMMON_NAME) {
        let name = String::from_utf8_lossy(value.content);
        must(!host(&name) || among(&name), format_args!("the common name {name:?} is no alternative name"))?;
    }
    Ok(())
}

fn unit_in_subject(seen: &Seen<'_>) -> Verdict {
    must(of(seen.certificate, UNIT).is_empty(), "the subject names an organizational unit")
}
