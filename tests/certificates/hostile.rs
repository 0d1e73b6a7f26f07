//! Requests of people who mean harm: each ends in a refusal that says why.

use der::{Encode, Tag};
use num_bigint::BigUint;
use signet::error::Kind;
use signet::types::{Algorithm, Curve, PublicKey};
use signet::x509::Csr;
use signet::x509::csr::MAX_CSR;

use crate::keys::{
    Key, Parts, attribute, dns, extension, extensions, names, oid, point, sequence, subject, tagged, tlv,
};

const CN: &str = "2.5.4.3";

/// What it is, the request, and a part of the sentence that refuses it.
type Case = (&'static str, Vec<u8>, &'static str);

#[test]
fn each_hostile_request_is_refused_with_its_reason() {
    let key = Key::new(Algorithm::EcdsaP256);
    let mut cases = shapes(&key);
    cases.extend(bent_names(&key));
    cases.extend(subjects(&key));
    cases.extend(wishes(&key));
    cases.extend(proofs(&key));
    cases.extend(bent_keys(&key));
    assert!(cases.len() > 80, "{}", cases.len());
    for (what, der, why) in cases {
        let refused = match Csr::parse(&der) {
            Ok(csr) => panic!("{what}: accepted as {csr:?}"),
            Err(refused) => refused,
        };
        assert!(refused.public().contains(why), "{what}: {:?}", refused.public());
        assert!(matches!(refused.kind(), Kind::Invalid | Kind::Unsupported | Kind::Limit), "{what}: {refused:?}");
        assert!(refused.public().is_ascii() && refused.public().len() < 700, "{what}: {:?}", refused.public());
    }
    Csr::parse(&Parts::of(&key).signed(&key)).unwrap();
}

fn shapes(key: &Key) -> Vec<Case> {
    let good = Parts::of(key);
    let der = good.signed(key);
    let with = |change: &dyn Fn(&mut Parts)| {
        let mut parts = good.clone();
        change(&mut parts);
        parts.signed(key)
    };
    let mut trailing = der.clone();
    trailing.push(0);
    // A length in the long form that fits the short one, and one without an end.
    let long = [&[0x30, 0x83, 0, 1][..], &der[2..]].concat();
    let open = [&[0x30, 0x80][..], &der[4..], &[0, 0]].concat();
    let pem = |label: &str| der::pem::encode_string(label, der::pem::LineEnding::LF, &der).unwrap();
    let twice = pem("CERTIFICATE REQUEST").repeat(2);
    let unsorted = {
        let mut attributes = vec![names(&[dns("web.example.com")]), attribute("1.2.3", &[vec![5, 0]])];
        attributes.sort();
        attributes.reverse();
        attributes
    };
    vec![
        ("nothing", Vec::new(), "not a certificate request"),
        ("text", b"let me in".to_vec(), "not a certificate request"),
        ("huge", vec![0x30; MAX_CSR + 1], "at most"),
        ("a million sequences", [0x30, 0x80].repeat(MAX_CSR / 2), "not a certificate request"),
        ("a length of 4 GiB", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff], "not a certificate request"),
        ("bytes after the end", trailing, "not a certificate request"),
        ("cut short", der[..der.len() - 1].to_vec(), "not a certificate request"),
        ("a length in a longer form", long, "not a certificate request"),
        ("an indefinite length", open, "not a certificate request"),
        ("a private key in PEM", pem("PRIVATE KEY").into_bytes(), "not of a certificate request"),
        ("a certificate in PEM", pem("CERTIFICATE").into_bytes(), "not of a certificate request"),
        ("two requests in PEM", twice.into_bytes(), "not PEM"),
        ("PEM without an end", b"-----BEGIN CERTIFICATE REQUEST-----\nMA==".to_vec(), "not PEM"),
        ("version 2", with(&|p| p.version = vec![2, 1, 1]), "not a certificate request"),
        ("a negative version", with(&|p| p.version = vec![2, 1, 0xff]), "not a certificate request"),
        ("a version of two bytes", with(&|p| p.version = vec![2, 2, 0, 0]), "not a certificate request"),
        ("attributes out of order", with(&|p| p.attributes.clone_from(&unsorted)), "order of DER"),
        (
            "too many attributes",
            with(&|p| p.attributes = (1..=33).map(|n| attribute(&format!("1.2.{n}"), &[])).collect()),
            "more than 32",
        ),
        (
            "an attribute twice",
            with(&|p| p.attributes = vec![attribute("1.2.3", &[]), attribute("1.2.3", &[vec![5, 0]])]),
            "two attributes",
        ),
        (
            "two extension requests",
            with(&|p| {
                p.attributes = vec![names(&[dns("a.example")]), names(&[dns("web.example.com")])];
                p.attributes.sort();
            }),
            "two attributes",
        ),
        (
            "an extension request of two values",
            with(&|p| {
                let value = sequence(&[]);
                p.attributes = vec![attribute("1.2.840.113549.1.9.14", &[value.clone(), value])];
            }),
            "has not one value",
        ),
        (
            "no attributes at all",
            {
                let body = sequence(&[&good.version, &good.subject, &good.public_key]);
                key.finish(&body)
            },
            "not a certificate request",
        ),
        (
            "more after the attributes",
            {
                let attributes = tagged(0, true, &[]);
                key.finish(&sequence(&[&good.version, &good.subject, &good.public_key, &attributes, &attributes]))
            },
            "not a certificate request",
        ),
        (
            "Microsoft's attribute",
            with(&|p| p.attributes = vec![attribute("1.3.6.1.4.1.311.2.1.14", &[sequence(&[])])]),
            "Microsoft",
        ),
        (
            "a challenge password of a number",
            with(&|p| p.attributes = vec![attribute("1.2.840.113549.1.9.7", &[vec![2, 1, 0]])]),
            "challenge password",
        ),
    ]
}

fn bent_names(key: &Key) -> Vec<Case> {
    let asks = |all: &[Vec<u8>]| {
        let mut parts = Parts::of(key);
        parts.attributes = vec![names(all)];
        parts.signed(key)
    };
    let dns = |name: &str| asks(&[dns(name)]);
    let many: Vec<_> = (0..101).map(|n| crate::keys::dns(&format!("h{n}.example"))).collect();
    let other = sequence(&[]);
    vec![
        ("a NUL in a name", dns("web.example.com\0.evil.example"), "control character"),
        ("a line end in a name", dns("web.example.com\n"), "control character"),
        ("Unicode in a name", dns("bücher.example"), "not ASCII"),
        ("a Cyrillic letter", dns("\u{430}pple.com"), "not ASCII"),
        ("a full-width dot", dns("web\u{ff0e}example"), "not ASCII"),
        ("bytes that are no text", asks(&[tagged(2, false, &[0xff, 0xfe])]), "no text"),
        ("an empty name", dns(""), "empty"),
        ("a blank", dns("web example.com"), "character that host names do not have"),
        ("an underscore", dns("_acme.example.com"), "character that host names do not have"),
        ("two names in one", dns("a.example,b.example"), "character that host names do not have"),
        ("a dot at the end", dns("web.example.com."), "ends with a dot"),
        ("two dots", dns("web..example.com"), "empty"),
        ("a long label", dns(&format!("{}.example", "a".repeat(64))), "empty or too long"),
        ("a long name", dns(&format!("{}example", "abcdefg.".repeat(31))), "empty or too long"),
        ("a hyphen in front", dns("-web.example.com"), "hyphen"),
        ("a wildcard in the middle", dns("a.*.example.com"), "wildcard"),
        ("a wildcard within a label", dns("w*.example.com"), "wildcard"),
        ("two wildcards", dns("*.*.example.com"), "wildcard"),
        ("a wildcard alone", dns("*"), "wildcard"),
        ("a wildcard of a top-level domain", dns("*.com"), "top-level"),
        ("an A-label of nonsense", dns("xn--99999999.example"), "A-label"),
        ("an A-label of ASCII", dns("xn--abc-.example"), "hyphen"),
        ("an A-label that hides ASCII", dns("xn--www-.xn--a.example"), "hyphen"),
        ("a reserved label", dns("ab--cd.example"), "reserved"),
        ("an address as a host name", dns("10.0.0.1"), "is an address"),
        ("an IPv6 address as a host name", dns("2001:db8::1"), "is an address"),
        ("an address in hexadecimal", dns("0x7f.0.0.0x1"), "number"),
        ("a short address", dns("127.1"), "number"),
        ("101 names", asks(&many), "more than 100"),
        ("no names in the extension, but a number", asks(&[vec![2, 1, 5]]), "without a kind"),
        (
            "an otherName",
            asks(&[tagged(0, true, &[&oid("1.2.3")[..], &tagged(0, true, &[5, 0])].concat())]),
            "otherName",
        ),
        ("an x400Address", asks(&[tagged(3, true, &[])]), "x400Address"),
        ("a directoryName", asks(&[tagged(4, true, &other)]), "directoryName"),
        ("an ediPartyName", asks(&[tagged(5, true, &[])]), "ediPartyName"),
        ("a registeredID", asks(&[tagged(8, false, &oid("1.2.3")[2..])]), "registeredID"),
        ("a kind that does not exist", asks(&[tagged(9, false, b"x")]), "does not exist"),
        ("a host name in pieces", asks(&[tagged(2, true, &tlv(Tag::Ia5String, &[b"a.example"]))]), "does not exist"),
        ("an address of 5 bytes", asks(&[tagged(7, false, &[10, 0, 0, 1, 0])]), "4 or 16"),
        ("a network", asks(&[tagged(7, false, &[10, 0, 0, 0, 255, 0, 0, 0])]), "4 or 16"),
        ("nobody's address", asks(&[tagged(7, false, &[0; 4])]), "is no host's"),
        ("an address of a group", asks(&[tagged(7, false, &[224, 0, 0, 1])]), "group"),
        (
            "an IPv4 address in IPv6",
            asks(&[tagged(7, false, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1])]),
            "IPv4",
        ),
        ("a mailbox in quotes", asks(&[tagged(1, false, b"\"a b\"@c.example")]), "quotes"),
        ("a mailbox without a host", asks(&[tagged(1, false, b"root@")]), "empty"),
        ("a URI without a scheme", asks(&[tagged(6, false, b"//a.example/x")]), "scheme"),
        ("a URI with a user", asks(&[tagged(6, false, b"https://a.example@b.example/")]), "user"),
        ("a URI that climbs", asks(&[tagged(6, false, b"https://a.example/x/../y")]), "step"),
        ("a SPIFFE id with an escape", asks(&[tagged(6, false, b"spiffe://td/a%2fb")]), "SPIFFE"),
        ("a SPIFFE id with a port", asks(&[tagged(6, false, b"spiffe://td:1/a")]), "SPIFFE"),
    ]
}

fn subjects(key: &Key) -> Vec<Case> {
    let named = |attributes: &[(&str, Tag, &[u8])]| {
        let mut parts = Parts::of(key);
        parts.subject = subject(attributes);
        parts.signed(key)
    };
    let cn = |value: &str| named(&[(CN, Tag::Utf8String, value.as_bytes())]);
    let raw = |subject: Vec<u8>| Parts { subject, ..Parts::of(key) }.signed(key);
    let pair = sequence(&[&oid(CN), &tlv(Tag::Utf8String, &[b"a"])]);
    vec![
        ("an address as common name", cn("10.0.0.1"), "is an address"),
        ("an IPv6 address as common name", cn("2001:db8::1"), "is an address"),
        ("a NUL in the common name", cn("web.example.com\0.evil.example"), "not to be seen"),
        ("Unicode in the common name", cn("\u{430}pple.com"), "not ASCII"),
        ("a turned direction", named(&[("2.5.4.10", Tag::Utf8String, "a\u{202e}b".as_bytes())]), "not to be seen"),
        ("a zero-width blank", named(&[("2.5.4.10", Tag::Utf8String, "a\u{200b}b".as_bytes())]), "not to be seen"),
        ("an empty common name", cn(""), "empty"),
        ("a blank at the edge", cn("web.example.com "), "edge"),
        ("a common name of 65 characters", cn(&"a".repeat(65)), "too long"),
        ("two common names", named(&[(CN, Tag::Utf8String, b"a"), (CN, Tag::Utf8String, b"b")]), "two attributes CN"),
        (
            "a mailbox in the subject",
            named(&[("1.2.840.113549.1.9.1", Tag::Ia5String, b"a@b.example")]),
            "do not issue",
        ),
        ("a country of three letters", named(&[("2.5.4.6", Tag::PrintableString, b"DEU")]), "too long"),
        ("a string of Teletex", named(&[(CN, Tag::TeletexString, b"a")]), "old type"),
        ("a number as common name", named(&[(CN, Tag::Integer, &[5])]), "old type"),
        ("UTF-8 that is none", named(&[(CN, Tag::Utf8String, &[0xc3, 0x28])]), "UTF-8"),
        ("a star in a PrintableString", named(&[(CN, Tag::PrintableString, b"*.example.com")]), "PrintableString"),
        ("too many attributes", named(&[("2.5.4.10", Tag::Utf8String, b"a" as &[u8]); 1].repeat(17)), "two attributes"),
        ("two attributes in one part", raw(sequence(&[&tlv(Tag::Set, &[&pair, &pair])])), "several attributes"),
        ("a part without attributes", raw(sequence(&[&tlv(Tag::Set, &[])])), "not DER"),
        ("a subject that is no name", raw(vec![5, 0]), "not DER"),
        (
            "more in an attribute",
            raw(sequence(&[&tlv(Tag::Set, &[&sequence(&[&oid(CN), &[5, 0], &[5, 0]])])])),
            "not DER",
        ),
    ]
}

fn wishes(key: &Key) -> Vec<Case> {
    let asks = |all: &[Vec<u8>]| {
        let mut parts = Parts::of(key);
        parts.attributes = vec![extensions(all)];
        parts.signed(key)
    };
    let empty = sequence(&[]);
    // FALSE, where nothing means FALSE.
    let said_false = sequence(&[&oid("2.5.29.17"), &[1, 1, 0], &tlv(Tag::OctetString, &[&empty])]);
    let true_as_one = sequence(&[&oid("2.5.29.17"), &[1, 1, 1], &tlv(Tag::OctetString, &[&empty])]);
    vec![
        (
            "an extension twice",
            asks(&[extension("2.5.29.17", false, &empty), extension("2.5.29.17", true, &empty)]),
            "two extensions",
        ),
        ("a criticality of FALSE", asks(&[said_false]), "one form of DER"),
        ("a TRUE that is 1", asks(&[true_as_one]), "not a certificate request"),
        ("an unknown critical extension", asks(&[extension("1.2.3.4", true, &[5, 0])]), "critical"),
        ("names that are no sequence", asks(&[extension("2.5.29.17", false, &[5, 0])]), "cannot be read"),
        ("constraints that are none", asks(&[extension("2.5.29.19", false, &[5, 0])]), "cannot be read"),
        ("usages that are none", asks(&[extension("2.5.29.37", false, &[5, 0])]), "cannot be read"),
        ("a usage that is none", asks(&[extension("2.5.29.15", false, &[5, 0])]), "cannot be read"),
        (
            "33 extensions",
            asks(&(1..=33).map(|n| extension(&format!("1.2.3.{n}"), false, &[5, 0])).collect::<Vec<_>>()),
            "more than 32",
        ),
        ("bytes after the names", asks(&[extension("2.5.29.17", false, &[0x30, 0, 0])]), "cannot be read"),
    ]
}

fn proofs(key: &Key) -> Vec<Case> {
    let other = Key::new(Algorithm::EcdsaP256);
    let good = Parts::of(key).signed(key);
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let replace = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|window| window == from).unwrap();
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    let body = Parts::of(key).body();
    let zeros = {
        let signature = tlv(Tag::BitString, &[&[0], &sequence(&[&[2, 1, 0], &[2, 1, 0]])]);
        sequence(&[&body, &sequence(&[&oid("1.2.840.10045.4.3.2")]), &signature])
    };
    let unsigned = sequence(&[&body, &sequence(&[&oid("1.2.840.10045.4.3.2")]), &[3, 1, 0]]);
    let sha1 = sequence(&[&body, &sequence(&[&oid("1.2.840.10045.4.1")]), &[3, 2, 0, 0]]);
    let rsa = Key::new(Algorithm::Rsa2048Pkcs1);
    vec![
        ("another name than was signed", replace(b"web.example.com", b"adm.example.com"), "does not prove"),
        ("another key than signed", Parts::of(key).signed(&other), "does not prove"),
        ("a signature with a bit turned", flipped, "does not prove"),
        ("a signature of zeros", zeros, "does not prove"),
        ("no signature", unsigned, "does not prove"),
        ("SHA-1", sha1, "does not prove"),
        ("an algorithm of another key", Parts::of(key).signed(&rsa), "does not prove"),
        (
            "an algorithm that is none",
            replace(&oid("1.2.840.10045.4.3.2"), &oid("1.2.840.10045.4.3.9")),
            "does not prove",
        ),
    ]
}

fn bent_keys(key: &Key) -> Vec<Case> {
    // The key is judged before the proof, so these need none.
    let of = |public_key: Vec<u8>| Parts { public_key, ..Parts::of(key) }.signed(key);
    let ec = |curve: &str, point: &[u8]| {
        let algorithm = sequence(&[&oid("1.2.840.10045.2.1"), &oid(curve)]);
        of(sequence(&[&algorithm, &tlv(Tag::BitString, &[&[0], point])]))
    };
    let edwards = |bytes: [u8; 32]| of(PublicKey::ed25519(&bytes).unwrap().as_der().to_vec());
    let rsa = |modulus: &BigUint, exponent: u32| {
        let exponent = BigUint::from(exponent).to_bytes_be();
        of(PublicKey::rsa(&modulus.to_bytes_be(), &exponent).unwrap().as_der().to_vec())
    };
    let sound = point(key);
    let mut outside = sound.clone();
    outside[64] ^= 1;
    let compressed = [&[2 + (sound[64] & 1)][..], &sound[1..33]].concat();
    let modulus = {
        let spki = Key::new(Algorithm::Rsa2048Pkcs1).public().raw().unwrap();
        let key = <pkcs1::RsaPublicKeyRef<'_> as der::Decode>::from_der(&spki).unwrap();
        BigUint::from_bytes_be(key.modulus.as_bytes())
    };
    let bits = |n: usize| (BigUint::from(1_u32) << (n - 1)) + 1_u32;
    let divisible = (&modulus / 751_u32) * 751_u32;
    let divisible = if divisible.bit(0) { divisible } else { divisible - 751_u32 };
    let close = {
        let root = (BigUint::from(3_u32) << 1022_u32) + 12_345_u32;
        (&root + 14_u32) * (&root - 14_u32)
    };
    let square = {
        let odd = (0_u32..).map(|number| (BigUint::from(3_u32) << 1022_u32) + 2 * number + 1_u32);
        let root = odd.into_iter().find(|root| (3..752_u32).all(|divisor| root % divisor != BigUint::ZERO)).unwrap();
        &root * &root
    };
    let missing_null = {
        let spki = Key::new(Algorithm::Rsa2048Pkcs1).public().raw().unwrap();
        sequence(&[&sequence(&[&oid("1.2.840.113549.1.1.1")]), &tlv(Tag::BitString, &[&[0], &spki])])
    };
    let mut one = [0; 32];
    one[0] = 1;
    let mut not_reduced = [0xff; 32];
    not_reduced[0] = 0xf0;
    not_reduced[31] = 0x7f;
    let order_8 = hex::decode("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85").unwrap();
    vec![
        ("a point outside the curve", ec("1.2.840.10045.3.1.7", &outside), "not a public key"),
        ("the point at infinity", ec("1.2.840.10045.3.1.7", &[0]), "infinity"),
        ("the point 0, 0", ec("1.2.840.10045.3.1.7", &[&[4][..], &[0; 64]].concat()), "not a public key"),
        ("a compressed point", ec("1.2.840.10045.3.1.7", &compressed), "uncompressed"),
        ("a hybrid point", ec("1.2.840.10045.3.1.7", &[&[6][..], &sound[1..]].concat()), "uncompressed"),
        ("a point of another curve", ec("1.3.132.0.34", &sound), "uncompressed"),
        ("secp256k1", ec("1.3.132.0.10", &sound), "another curve"),
        (
            "a curve of one's own",
            {
                let algorithm = sequence(&[&oid("1.2.840.10045.2.1"), &sequence(&[])]);
                of(sequence(&[&algorithm, &tlv(Tag::BitString, &[&[0], &sound])]))
            },
            "without a name",
        ),
        (
            "Ed448",
            of(sequence(&[&sequence(&[&oid("1.3.101.113")]), &tlv(Tag::BitString, &[&[0], &[7; 57]])])),
            "another type",
        ),
        (
            "DSA",
            of(sequence(&[&sequence(&[&oid("1.2.840.10040.4.1")]), &tlv(Tag::BitString, &[&[0], &[2, 1, 5]])])),
            "another type",
        ),
        ("an Ed25519 point of order 1", edwards(one), "small order"),
        ("an Ed25519 point of order 4", edwards([0; 32]), "small order"),
        ("an Ed25519 point of order 8", edwards(order_8.try_into().unwrap()), "small order"),
        ("an Ed25519 point not reduced", edwards(not_reduced), "not reduced"),
        ("RSA of 1024 bits", rsa(&bits(1024), 65537), "1024 bits"),
        ("RSA of 2047 bits", rsa(&bits(2047), 65537), "2047 bits"),
        ("RSA of 2049 bits", rsa(&bits(2049), 65537), "2049 bits"),
        ("RSA of 8192 bits", rsa(&bits(8192), 65537), "8192 bits"),
        ("an exponent of 3", rsa(&modulus, 3), "exponent"),
        ("an exponent of 1", rsa(&modulus, 1), "exponent"),
        ("an even exponent", rsa(&modulus, 65538), "exponent"),
        ("a modulus that 2 divides", rsa(&(&modulus - 1_u32), 65537), "divisible by 2"),
        ("a modulus that 751 divides", rsa(&divisible, 65537), "divisible by"),
        ("primes that are almost the same", rsa(&close, 65537), "weak"),
        ("one prime twice", rsa(&square, 65537), "almost the same"),
        ("a key of ROCA", rsa(&roca(), 65537), "ROCA"),
        (
            "RSA bound to PSS",
            {
                let spki = Key::new(Algorithm::Rsa2048Pkcs1).public().raw().unwrap();
                of(sequence(&[&sequence(&[&oid("1.2.840.113549.1.1.10")]), &tlv(Tag::BitString, &[&[0], &spki])]))
            },
            "PSS",
        ),
        ("RSA without its NULL", of(missing_null), "one form"),
        ("a key that is no structure", of(vec![5, 0]), "not DER"),
        (
            "a key with half a byte",
            of(sequence(&[&sequence(&[&oid("1.3.101.112")]), &tlv(Tag::BitString, &[&[4], &[0xf0; 32]])])),
            "no bytes",
        ),
    ]
}

/// A number with the mark: 65537^a modulo the product of the primes from 3 to 167, and 2048 bits long. That nobody knows its
/// primes, if they are two, is no matter here.
fn roca() -> BigUint {
    let primes: Vec<u32> = (3..168_u32).filter(|n| (2..*n).all(|d| n % d != 0)).collect();
    let product: BigUint = primes.iter().map(|prime| BigUint::from(*prime)).product();
    let mark = BigUint::from(65537_u32).modpow(&BigUint::from(1_234_567_u32), &product);
    // Without small factors it has to be tried.
    let mut candidate = (BigUint::from(3_u32) << 2046_u32) / &product * &product + mark;
    let small: Vec<u32> = (2..752_u32).filter(|n| (2..*n).all(|d| n % d != 0)).collect();
    while small.iter().any(|prime| (&candidate % *prime) == BigUint::ZERO) {
        candidate += &product;
    }
    candidate
}

#[test]
fn sound_keys_are_not_taken_for_weak_ones() {
    for algorithm in [Algorithm::Rsa2048Pkcs1, Algorithm::Rsa3072Pkcs1, Algorithm::Rsa4096Pkcs1] {
        let key = Key::new(algorithm);
        Csr::parse(&Parts::of(&key).signed(&key)).unwrap();
    }
    for _ in 0..100 {
        for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
            let key = Key::new(algorithm);
            Csr::parse(&Parts::of(&key).signed(&key)).unwrap();
        }
    }
    assert_eq!(Curve::P256.size(), 32);
    assert!(sequence(&[]).to_der().is_ok());
}
