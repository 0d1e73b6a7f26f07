//! Version, serial number, algorithm and validity.

use der::Tag;
use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;

use super::key::{EC, ED25519, P256, P384, P521, RSA};
use super::rule::{ALL, ISSUED, ROOT, Rule, SERVERS, Seen, Verdict, must};
use super::value::Value;
use super::view::View;

#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    Rule::error("version_three", "RFC 5280, 4.1.2.1", ALL,
        "The version is 3: only that one has extensions.", version_three),
    Rule::error("no_unique_identifiers", "RFC 5280, 4.1.2.8", ALL,
        "There are no unique identifiers of issuer or subject.", |s| must(!s.certificate.unique_ids, "there is a unique identifier")),
    Rule::error("serial_positive", "RFC 5280, 4.1.2.2", ALL,
        "The serial number is greater than zero.", serial_positive),
    Rule::error("serial_length", "RFC 5280, 4.1.2.2", ALL,
        "The serial number has at most 20 bytes.", serial_length),
    Rule::error("serial_entropy", "CA/B BR, 7.1.2.7", ALL,
        "The serial number has room for 64 random bits.", serial_entropy),
    Rule::error("algorithm_known", "CA/B BR, 7.1.3.2; RFC 8410, 3", ALL,
        "The signature is by ECDSA, Ed25519, RSA PKCS #1 or RSA-PSS with SHA-2, its identifier written byte for byte as the standard says.", algorithm_known),
    Rule::error("algorithm_fits_issuer", "CA/B BR, 7.1.3.2; RFC 5480, 4", ALL,
        "The algorithm is one of the issuer's key, with the hash that belongs to its curve.", algorithm_fits_issuer),
    Rule::error("time_syntax", "RFC 5280, 4.1.2.5", ALL,
        "Times are in UTC, with seconds, without fractions, and of days that exist.", time_syntax),
    Rule::error("time_type", "RFC 5280, 4.1.2.5", ALL,
        "Times up to 2049 are UTCTime, later ones GeneralizedTime.", time_type),
    Rule::error("validity_ordered", "RFC 5280, 4.1.2.5", ALL,
        "The validity does not end before it begins.", validity_ordered),
    Rule::error("validity_within_issuer", "RFC 5280, 6.1.3; CA/B BR, 6.3.2", ISSUED,
        "The certificate is not valid before its issuer's or after it.", validity_within_issuer),
    Rule::notice("server_validity", "CA/B BR, 6.3.2", SERVERS,
        "A server is certified for at most 398 days; 200 from 15 March 2026, 100 from 15 March 2027, 47 from 15 March 2029.", server_validity),
    Rule::notice("root_validity", "CA/B BR, 7.1.2.1.1", ROOT,
        "A root is valid for at most 9132 days, which are 25 years.", root_validity),
];

fn version_three(seen: &Seen<'_>) -> Verdict {
    let version = seen.certificate.version.and_then(|version| version.small(Tag::Integer));
    must(version == Some(2), "the version is not 3")
}

fn serial_positive(seen: &Seen<'_>) -> Verdict {
    let serial = seen.certificate.serial.content;
    let negative = serial.first().is_none_or(|first| *first >= 0x80);
    must(!negative && serial.iter().any(|byte| *byte != 0), "the serial number is zero or negative")
}

fn serial_length(seen: &Seen<'_>) -> Verdict {
    let length = seen.certificate.serial.content.len();
    must(length <= 20, format_args!("the serial number has {length} bytes"))
}

fn serial_entropy(seen: &Seen<'_>) -> Verdict {
    let length = seen.certificate.serial.content.len();
    must(length >= 8, format_args!("the serial number has {length} bytes"))
}

/// An AlgorithmIdentifier in DER, and the key that it belongs to: its algorithm, and its curve.
type Signing = (&'static [u8], &'static [u8], Option<&'static [u8]>);

#[rustfmt::skip]
const SIGNING: &[Signing] = &[
    (b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02", EC.as_bytes(), Some(P256.as_bytes())),
    (b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03", EC.as_bytes(), Some(P384.as_bytes())),
    (b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x04", EC.as_bytes(), Some(P521.as_bytes())),
    (b"\x30\x05\x06\x03\x2b\x65\x70", ED25519.as_bytes(), None),
    // PKCS #1 with SHA-256, SHA-384, SHA-512.
    (b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00", RSA.as_bytes(), None),
    (b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c\x05\x00", RSA.as_bytes(), None),
    (b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d\x05\x00", RSA.as_bytes(), None),
    // RSA-PSS with SHA-256 in all places and 32 bytes of salt.
    (b"\x30\x41\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a\x30\x34\
       \xa0\x0f\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
       \xa1\x1c\x30\x1a\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x08\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\
       \xa2\x03\x02\x01\x20", RSA.as_bytes(), None),
];

fn signing(view: &View<'_>) -> Option<&'static Signing> {
    SIGNING.iter().find(|(identifier, ..)| *identifier == view.algorithm.whole)
}

fn algorithm_known(seen: &Seen<'_>) -> Verdict {
    must(signing(seen.certificate).is_some(), "the algorithm of the signature, or its parameters, is not a known one")
}

fn algorithm_fits_issuer(seen: &Seen<'_>) -> Verdict {
    let (Some((_, algorithm, curve)), Some(key)) =
        (signing(seen.certificate), seen.signer().and_then(|signer| signer.public_key))
    else {
        return Ok(());
    };
    let fits = key.algorithm == *algorithm
        && curve.is_none_or(|curve| key.parameters.and_then(|named| named.of(Tag::ObjectIdentifier)) == Some(curve));
    must(fits, "the algorithm of the signature is not one of the issuer's key")
}

fn times<'a>(view: &View<'a>) -> [(Value<'a>, Option<Timestamp>); 2] {
    [(view.not_before, view.begins), (view.not_after, view.ends)]
}

fn time_syntax(seen: &Seen<'_>) -> Verdict {
    let readable = times(seen.certificate).iter().all(|(_, time)| time.is_some());
    must(readable, "a time is not of the form YYMMDDhhmmssZ or YYYYMMDDhhmmssZ")
}

fn time_type(seen: &Seen<'_>) -> Verdict {
    for (value, time) in times(seen.certificate) {
        let late = time.is_none_or(|time| time.to_zoned(TimeZone::UTC).year() >= 2050);
        must(value.tag != Tag::GeneralizedTime || late, "a time before 2050 is no UTCTime")?;
    }
    Ok(())
}

fn validity(view: &View<'_>) -> Option<(Timestamp, Timestamp)> {
    view.begins.zip(view.ends)
}

fn validity_ordered(seen: &Seen<'_>) -> Verdict {
    must(validity(seen.certificate).is_none_or(|(before, after)| before <= after), "the validity ends before it begins")
}

fn validity_within_issuer(seen: &Seen<'_>) -> Verdict {
    let (Some(own), Some(issuer)) = (validity(seen.certificate), seen.issuer.and_then(validity)) else { return Ok(()) };
    must(own.0 >= issuer.0, format_args!("valid from {}, before its issuer is, from {}", own.0, issuer.0))?;
    must(own.1 <= issuer.1, format_args!("valid until {}, after its issuer has ended, at {}", own.1, issuer.1))
}

/// How many days it is valid, begun ones included: both ends are within it.
fn days(view: &View<'_>) -> Option<(Date, i64)> {
    let (before, after) = validity(view)?;
    Some((before.to_zoned(TimeZone::UTC).date(), (after.as_second() - before.as_second()).div_euclid(86_400) + 1))
}

fn server_validity(seen: &Seen<'_>) -> Verdict {
    const LIMITS: &[(Date, i64)] = &[(date(2029, 3, 15), 47), (date(2027, 3, 15), 100), (date(2026, 3, 15), 200)];
    let Some((from, days)) = days(seen.certificate) else { return Ok(()) };
    let most = LIMITS.iter().find(|(since, _)| from >= *since).map_or(398, |(_, most)| *most);
    must(days <= most, format_args!("valid for {days} days, and {most} are the most"))
}

fn root_validity(seen: &Seen<'_>) -> Verdict {
    must(days(seen.certificate).is_none_or(|(_, days)| days <= 9132), "valid for more than 25 years")
}
