//! The certified key.

use aws_lc_rs::signature::{self as lc, ParsedPublicKey, VerificationAlgorithm};
use der::Tag;
use der::asn1::ObjectIdentifier;

use super::rule::{ALL, ISSUED, Rule, Seen, Verdict, must};
use super::value::Value;
use super::view::{Key, View, oid};

pub(super) const EC: ObjectIdentifier = oid("1.2.840.10045.2.1");
pub(super) const RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.1");
pub(super) const ED25519: ObjectIdentifier = oid("1.3.101.112");
pub(super) const P256: ObjectIdentifier = oid("1.2.840.10045.3.1.7");
pub(super) const P384: ObjectIdentifier = oid("1.3.132.0.34");
pub(super) const P521: ObjectIdentifier = oid("1.3.132.0.35");

#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    Rule::error("key_known", "CA/B BR, 6.1.5; RFC 8410, 3", ALL,
        "The key is one of RSA, of an elliptic curve or of Ed25519.", key_known),
    Rule::error("key_bits", "RFC 5280, 4.1.2.7", ALL,
        "The key is a bit string of whole bytes.", key_bits),
    Rule::error("key_not_the_issuers", "RFC 5280, 3.2", ISSUED,
        "The certified key is not the one that signs: that would be a root.", key_not_the_issuers),
    Rule::error("rsa_parameters", "RFC 3279, 2.3.1", ALL,
        "The parameters of an RSA key are NULL.", rsa_parameters),
    Rule::error("rsa_structure", "RFC 3279, 2.3.1; RFC 8017, A.1.1", ALL,
        "An RSA key is two positive integers in DER.", rsa_structure),
    Rule::error("rsa_size", "CA/B BR, 6.1.5", ALL,
        "An RSA modulus has at least 2048 bits, and at most 8192.", rsa_size),
    Rule::error("rsa_whole_bytes", "CA/B BR, 6.1.5", ALL,
        "The number of bits of an RSA modulus is divisible by 8.", rsa_whole_bytes),
    Rule::error("rsa_exponent", "CA/B BR, 6.1.6", ALL,
        "An RSA exponent is odd, at least 65537 and less than 2^256.", rsa_exponent),
    Rule::error("rsa_modulus", "CA/B BR, 6.1.6; NIST SP 800-89, 5.3.3", ALL,
        "An RSA modulus is odd and has no factor smaller than 752.", rsa_modulus),
    Rule::error("ec_curve", "RFC 5480, 2.1.1; CA/B BR, 6.1.5", ALL,
        "An elliptic curve is named, and is P-256, P-384 or P-521.", ec_curve),
    Rule::error("ec_form", "RFC 5480, 2.2", ALL,
        "A point is uncompressed and as long as its curve asks.", ec_form),
    Rule::error("ec_on_curve", "CA/B BR, 6.1.6; NIST SP 800-56A, 5.6.2.3.3", ALL,
        "A point lies on its curve and is not the one at infinity.", ec_on_curve),
    Rule::error("edwards_parameters", "RFC 8410, 3", ALL,
        "An Ed25519 key has no parameters.", edwards_parameters),
    Rule::error("edwards_length", "RFC 8410, 4; RFC 8032, 5.1.5", ALL,
        "An Ed25519 key has 32 bytes.", edwards_length),
];

/// The key, where it is one of this algorithm.
fn of<'a>(seen: &Seen<'a>, algorithm: ObjectIdentifier) -> Option<Key<'a>> {
    seen.certificate.public_key.filter(|key| key.algorithm == algorithm.as_bytes())
}

/// Modulus and exponent, without the byte that makes them positive.
fn rsa<'a>(seen: &Seen<'a>) -> Option<(&'a [u8], &'a [u8])> {
    let positive = |value: &Value<'a>| {
        let content = value.of(Tag::Integer)?;
        match content {
            [0, second, ..] if *second >= 0x80 => content.get(1..),
            [first, ..] if (1..0x80).contains(first) => Some(content),
            _ => None,
        }
    };
    match Value::read(of(seen, RSA)?.bits.whole_bits()?)?.sequence()?.as_slice() {
        [modulus, exponent] => positive(modulus).zip(positive(exponent)),
        _ => None,
    }
}

/// The name of the curve, and the length of its coordinates.
fn curve<'a>(key: &Key<'a>) -> Option<(&'a [u8], usize)> {
    let name = key.parameters?.of(Tag::ObjectIdentifier)?;
    [(P256, 32), (P384, 48), (P521, 66)].iter().find(|(id, _)| id.as_bytes() == name).map(|(_, size)| (name, *size))
}

fn key_known(seen: &Seen<'_>) -> Verdict {
    let known = [RSA, EC, ED25519].iter().any(|algorithm| of(seen, *algorithm).is_some());
    must(known, "the key is of an unknown algorithm, or no SubjectPublicKeyInfo")
}

fn key_bits(seen: &Seen<'_>) -> Verdict {
    let whole = seen.certificate.public_key.is_none_or(|key| key.bits.whole_bits().is_some());
    must(whole, "the key does not end with a byte")
}

fn key_not_the_issuers(seen: &Seen<'_>) -> Verdict {
    let other = seen.issuer.is_none_or(|issuer| issuer.key.whole != seen.certificate.key.whole);
    must(other, "the certified key is the issuer's own")
}

fn rsa_parameters(seen: &Seen<'_>) -> Verdict {
    let null = of(seen, RSA).is_none_or(|key| key.parameters.is_some_and(|value| value.tag == Tag::Null));
    must(null, "the parameters of the RSA key are not NULL")
}

fn rsa_structure(seen: &Seen<'_>) -> Verdict {
    must(of(seen, RSA).is_none() || rsa(seen).is_some(), "the RSA key is not two positive integers")
}

fn bits(number: &[u8]) -> usize {
    number.len() * 8 - number.first().map_or(0, |first| first.leading_zeros() as usize)
}

fn rsa_size(seen: &Seen<'_>) -> Verdict {
    match rsa(seen).map(|(modulus, _)| bits(modulus)) {
        Some(bits) if !(2048..=8192).contains(&bits) => Err(format!("the RSA modulus has {bits} bits")),
        _ => Ok(()),
    }
}

fn rsa_whole_bytes(seen: &Seen<'_>) -> Verdict {
    match rsa(seen).map(|(modulus, _)| bits(modulus)) {
        Some(bits) if bits % 8 != 0 => Err(format!("the RSA modulus has {bits} bits")),
        _ => Ok(()),
    }
}

fn rsa_exponent(seen: &Seen<'_>) -> Verdict {
    let Some((_, exponent)) = rsa(seen) else { return Ok(()) };
    let odd = exponent.last().is_some_and(|last| last & 1 == 1);
    let large = exponent.len() > 3 || exponent >= [1, 0, 1].as_slice() && exponent.len() == 3;
    must(odd && large && bits(exponent) <= 256, "the RSA exponent is even, too small or too large")
}

fn rsa_modulus(seen: &Seen<'_>) -> Verdict {
    let Some((modulus, _)) = rsa(seen) else { return Ok(()) };
    let rest = |by: u32| modulus.iter().fold(0, |rest, byte| (rest << 8 | u32::from(*byte)) % by);
    match (2..752).find(|factor| rest(*factor) == 0) {
        Some(factor) => Err(format!("the RSA modulus is divisible by {factor}")),
        None => Ok(()),
    }
}

fn ec_curve(seen: &Seen<'_>) -> Verdict {
    must(of(seen, EC).is_none_or(|key| curve(&key).is_some()), "the curve is not named, or not a known one")
}

fn ec_form(seen: &Seen<'_>) -> Verdict {
    let Some(key) = of(seen, EC) else { return Ok(()) };
    let (Some((_, size)), Some(point)) = (curve(&key), key.bits.whole_bits()) else { return Ok(()) };
    must(point.first() == Some(&4) && point.len() == 1 + 2 * size, "the point is not an uncompressed one of its curve")
}

fn ec_on_curve(seen: &Seen<'_>) -> Verdict {
    let Some(key) = of(seen, EC) else { return Ok(()) };
    let (Some((name, _)), Some(point)) = (curve(&key), key.bits.whole_bits()) else { return Ok(()) };
    let judge: &'static dyn VerificationAlgorithm = if name == P256.as_bytes() {
        &lc::ECDSA_P256_SHA256_ASN1
    } else if name == P384.as_bytes() {
        &lc::ECDSA_P384_SHA384_ASN1
    } else {
        &lc::ECDSA_P521_SHA512_ASN1
    };
    must(ParsedPublicKey::new(judge, point).is_ok(), "the point is not on its curve")
}

fn edwards_parameters(seen: &Seen<'_>) -> Verdict {
    must(of(seen, ED25519).is_none_or(|key| key.parameters.is_none()), "the Ed25519 key has parameters")
}

fn edwards_length(seen: &Seen<'_>) -> Verdict {
    let sound = of(seen, ED25519).is_none_or(|key| key.bits.whole_bits().is_none_or(|bytes| bytes.len() == 32));
    must(sound, "the Ed25519 key has not 32 bytes")
}

/// Whether a certificate's key is of this algorithm.
pub(super) fn is(view: &View<'_>, algorithm: ObjectIdentifier) -> bool {
    view.public_key.is_some_and(|key| key.algorithm == algorithm.as_bytes())
}
