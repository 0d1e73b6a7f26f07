//! Key usage and extended key usage.

use der::Tag;
use der::asn1::ObjectIdentifier;

use super::key::{self, EC, ED25519, RSA};
use super::rule::{ALL, AUTHORITIES, ISSUED, Kind, LEAVES, RESPONDER, ROOT, Rule, SERVERS, Seen, TLS, Verdict, must};
use super::value::Value;
use super::view::{EXTENDED_USAGE, KEY_USAGE, bit, oid};

const ANY: ObjectIdentifier = oid("2.5.29.37.0");
const SERVER_AUTH: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.2");
const CODE_SIGNING: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.3");
const OCSP_SIGNING: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.9");

const CODE: &[Kind] = &[Kind::CodeSigning];
const INTERMEDIATE: &[Kind] = &[Kind::Intermediate];

#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    Rule::error("key_usage", "RFC 5280, 4.2.1.3; CA/B BR, 7.1.2.7.11; X509-SVID, 4.3", ALL,
        "The key usage is there.", |s| must(s.certificate.extension(KEY_USAGE).is_some(), "there is no key usage")),
    Rule::error("key_usage_structure", "RFC 5280, 4.2.1.3", ALL,
        "The key usage is a bit string of at most nine bits, one of them set.", key_usage_structure),
    Rule::error("key_usage_critical", "RFC 5280, 4.2.1.3; CA/B BR, 7.1.2.7.11; X509-SVID, 4.3", ALL,
        "The key usage is critical.", key_usage_critical),
    Rule::error("authority_signs_certificates", "RFC 5280, 4.2.1.3", AUTHORITIES,
        "The key of an authority may sign certificates.", |s| has(s, bit::CERT_SIGN, "certificates")),
    Rule::error("authority_signs_lists", "CA/B BR, 7.1.2.10.7", AUTHORITIES,
        "The key of an authority may sign revocation lists.", |s| has(s, bit::CRL_SIGN, "revocation lists")),
    Rule::error("authority_usage_only", "CA/B BR, 7.1.2.10.7", AUTHORITIES,
        "The key of an authority signs certificates, revocation lists and OCSP responses, and nothing else.", authority_usage_only),
    Rule::error("leaf_certifies_nothing", "RFC 5280, 4.2.1.9; CA/B BR, 7.1.2.7.11", LEAVES,
        "The key of a leaf signs neither certificates nor revocation lists.", leaf_certifies_nothing),
    Rule::error("leaf_signs", "CA/B BR, 7.1.2.7.11; CA/B CSBR, 7.1.2.3; RFC 6960, 4.2.2.2; X509-SVID, 4.3", LEAVES,
        "The key of a leaf makes digital signatures.", |s| has(s, bit::DIGITAL_SIGNATURE, "other messages")),
    Rule::error("usage_of_curve", "RFC 8813, 3; RFC 5480, 3", ALL,
        "A key of an elliptic curve encrypts neither keys nor data.", usage_of_curve),
    Rule::error("usage_of_edwards", "RFC 8410, 5", ALL,
        "An Ed25519 key only signs.", usage_of_edwards),
    Rule::error("usage_of_rsa", "RFC 3279, 2.3.1", ALL,
        "An RSA key agrees on no keys.", usage_of_rsa),
    Rule::error("usage_needs_agreement", "RFC 5280, 4.2.1.3", ALL,
        "That a key only enciphers, or only deciphers, is said of keys that agree.", usage_needs_agreement),
    Rule::error("signer_usage_only", "CA/B CSBR, 7.1.2.3; CA/B BR, 7.1.2.8.7", &[Kind::CodeSigning, Kind::OcspResponder],
        "The key of a code signer or OCSP responder encrypts nothing.", signer_usage_only),
    Rule::error("extended_structure", "RFC 5280, 4.2.1.12", ALL,
        "The extended key usage is a sequence of at least one identifier.", extended_structure),
    Rule::error("extended_once", "CA/B BR, 7.1.2.7.10", ALL,
        "No extended usage stands there twice.", extended_once),
    Rule::error("extended_fits", "CA/B BR, 7.1.2.7.10; CA/B CSBR, 7.1.2.3; RFC 6960, 4.2.2.2", LEAVES,
        "The extended key usage names what the certificate is for.", extended_fits),
    Rule::error("extended_any", "CA/B BR, 7.1.2.7.10", LEAVES,
        "The extended key usage of a leaf is not `any`.", extended_any),
    Rule::error("server_extended_only", "CA/B BR, 7.1.2.7.10", SERVERS,
        "A server's extended usages are TLS server and client.", |s| only(s, &[SERVER_AUTH, CLIENT_AUTH, ANY])),
    Rule::error("code_extended_only", "CA/B CSBR, 7.1.2.3", CODE,
        "A code signer is no TLS server, and signs no OCSP responses.", code_extended_only),
    Rule::error("responder_extended_only", "CA/B BR, 7.1.2.8.5", RESPONDER,
        "An OCSP responder's only extended usage is OCSP.", |s| only(s, &[OCSP_SIGNING])),
    Rule::error("extended_critical", "CA/B BR, 7.1.2.7.6", TLS,
        "The extended key usage of TLS certificates is not critical.",
        |s| must(!s.certificate.is_critical(EXTENDED_USAGE), "the extended key usage is critical")),
    Rule::error("root_extended", "CA/B BR, 7.1.2.1.2", ROOT,
        "A root has no extended key usage.", |s| must(s.certificate.extension(EXTENDED_USAGE).is_none(), "a root has extended usages")),
    Rule::error("authority_extended", "CA/B BR, 7.1.2.10.6", INTERMEDIATE,
        "An authority's extended usages, where there are any, do not hold OCSP.", authority_extended),
    Rule::error("extended_within_issuer", "CA/B BR, 7.1.2.10.6; X.509, 9.2.2.4", ISSUED,
        "Where the issuer has extended usages, the certificate has none beyond them, but OCSP.", extended_within_issuer),
];

fn usage(seen: &Seen<'_>) -> u16 {
    seen.certificate.usage().unwrap_or(0)
}

/// That a bit is set; where there is no key usage at all, another rule says so.
fn has(seen: &Seen<'_>, wanted: u16, what: &str) -> Verdict {
    must(seen.certificate.usage().is_none_or(|bits| bits & wanted != 0), format_args!("the key may not sign {what}"))
}

fn key_usage_structure(seen: &Seen<'_>) -> Verdict {
    let Some(extension) = seen.certificate.extension(KEY_USAGE) else { return Ok(()) };
    let sound = match Value::read(extension.value).and_then(|value| value.of(Tag::BitString)) {
        Some([_, one]) => *one != 0,
        Some([unused, _, two]) => *unused == 7 && two & 0x7f == 0,
        _ => false,
    };
    must(sound && usage(seen) != 0, "the key usage is no bit string of known bits, or has none set")
}

fn key_usage_critical(seen: &Seen<'_>) -> Verdict {
    let view = seen.certificate;
    must(view.extension(KEY_USAGE).is_none() || view.is_critical(KEY_USAGE), "the key usage is not critical")
}

fn authority_usage_only(seen: &Seen<'_>) -> Verdict {
    let others = usage(seen) & !(bit::CERT_SIGN | bit::CRL_SIGN | bit::DIGITAL_SIGNATURE);
    must(others == 0, "an authority has usages of leaves")
}

fn leaf_certifies_nothing(seen: &Seen<'_>) -> Verdict {
    must(usage(seen) & (bit::CERT_SIGN | bit::CRL_SIGN) == 0, "a leaf has usages of authorities")
}

fn usage_of_curve(seen: &Seen<'_>) -> Verdict {
    let encrypts = usage(seen) & (bit::KEY_ENCIPHERMENT | bit::DATA_ENCIPHERMENT) != 0;
    must(!(encrypts && key::is(seen.certificate, EC)), "a key of an elliptic curve is to encrypt")
}

fn usage_of_edwards(seen: &Seen<'_>) -> Verdict {
    let others = usage(seen) & !(bit::DIGITAL_SIGNATURE | bit::CONTENT_COMMITMENT | bit::CERT_SIGN | bit::CRL_SIGN);
    must(!(others != 0 && key::is(seen.certificate, ED25519)), "an Ed25519 key is to do more than sign")
}

fn usage_of_rsa(seen: &Seen<'_>) -> Verdict {
    let agrees = usage(seen) & bit::KEY_AGREEMENT != 0;
    must(!(agrees && key::is(seen.certificate, RSA)), "an RSA key is to agree on keys")
}

fn usage_needs_agreement(seen: &Seen<'_>) -> Verdict {
    let narrowed = usage(seen) & (bit::ENCIPHER_ONLY | bit::DECIPHER_ONLY) != 0;
    must(!narrowed || usage(seen) & bit::KEY_AGREEMENT != 0, "a key that does not agree only enciphers or deciphers")
}

fn signer_usage_only(seen: &Seen<'_>) -> Verdict {
    let encrypts = bit::KEY_ENCIPHERMENT | bit::DATA_ENCIPHERMENT | bit::KEY_AGREEMENT;
    must(usage(seen) & encrypts == 0, "the key of a signer is to encrypt or agree")
}

fn extended_structure(seen: &Seen<'_>) -> Verdict {
    let Some(extension) = seen.certificate.extension(EXTENDED_USAGE) else { return Ok(()) };
    let list = Value::read(extension.value).and_then(|value| value.sequence()).unwrap_or_default();
    let sound = !list.is_empty() && list.iter().all(|usage| usage.tag == Tag::ObjectIdentifier);
    must(sound, "the extended key usage is empty or no sequence of identifiers")
}

fn extended_once(seen: &Seen<'_>) -> Verdict {
    let mut all = seen.certificate.extended();
    all.sort_unstable();
    must(all.windows(2).all(|pair| matches!(pair, [one, next] if one != next)), "an extended usage stands there twice")
}

fn holds(seen: &Seen<'_>, usage: ObjectIdentifier) -> bool {
    seen.certificate.extended().contains(&usage.as_bytes())
}

fn extended_fits(seen: &Seen<'_>) -> Verdict {
    let wanted: &[ObjectIdentifier] = match seen.kind {
        Kind::Root | Kind::Intermediate => &[],
        Kind::Server => &[SERVER_AUTH],
        Kind::Client => &[CLIENT_AUTH],
        Kind::Peer | Kind::Svid => &[SERVER_AUTH, CLIENT_AUTH],
        Kind::CodeSigning => &[CODE_SIGNING],
        Kind::OcspResponder => &[OCSP_SIGNING],
    };
    must(
        wanted.iter().all(|usage| holds(seen, *usage)),
        format_args!("this is no certificate for {}", seen.kind.as_str()),
    )
}

fn extended_any(seen: &Seen<'_>) -> Verdict {
    must(!holds(seen, ANY), "the extended usage is any")
}

fn only(seen: &Seen<'_>, allowed: &[ObjectIdentifier]) -> Verdict {
    let known = |usage: &&[u8]| allowed.iter().any(|id| id.as_bytes() == *usage);
    must(seen.certificate.extended().iter().all(known), "there are extended usages of another trade")
}

fn code_extended_only(seen: &Seen<'_>) -> Verdict {
    must(!holds(seen, SERVER_AUTH) && !holds(seen, OCSP_SIGNING), "a code signer has extended usages of another trade")
}

fn authority_extended(seen: &Seen<'_>) -> Verdict {
    must(!holds(seen, OCSP_SIGNING), "an authority has the extended usage of OCSP")
}

fn extended_within_issuer(seen: &Seen<'_>) -> Verdict {
    let bounds = seen.issuer.map(super::view::View::extended).unwrap_or_default();
    if bounds.is_empty() || bounds.contains(&ANY.as_bytes()) {
        return Ok(());
    }
    let own = seen.certificate.extended();
    // An intermediate that names none is as wide as all.
    must(!own.is_empty(), "the issuer's extended usages bound this certificate, which has none")?;
    let within = |usage: &&[u8]| bounds.contains(usage) || *usage == OCSP_SIGNING.as_bytes();
    must(own.iter().all(within), "there are extended usages beyond the issuer's")
}
