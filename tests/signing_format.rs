//! The forms of signatures and public keys, judged by OpenSSL and by the examples of the standards.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail as loudly as it likes"
)]

#[path = "support/skip.rs"]
mod skip;

use std::path::Path;
use std::process::Command;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self as lc, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use signet::error::Kind;
use signet::jose::Jwk;
use signet::types::{Algorithm, Curve, PublicKey, SignatureFormat, Verifier, raw_length};

/// The three ECDSA algorithms with a new key of each.
fn ecdsa_keys() -> Vec<(Algorithm, EcdsaKeyPair, Verifier)> {
    let kinds = [
        (Algorithm::EcdsaP256, Curve::P256, &lc::ECDSA_P256_SHA256_FIXED_SIGNING),
        (Algorithm::EcdsaP384, Curve::P384, &lc::ECDSA_P384_SHA384_FIXED_SIGNING),
        (Algorithm::EcdsaP521, Curve::P521, &lc::ECDSA_P521_SHA512_FIXED_SIGNING),
    ];
    let make = |(algorithm, curve, signing)| {
        let key = EcdsaKeyPair::generate(signing).unwrap();
        let public = PublicKey::ec(curve, key.public_key().as_ref()).unwrap();
        let verifier = Verifier::new(algorithm, &public).unwrap();
        (algorithm, key, verifier)
    };
    kinds.into_iter().map(make).collect()
}

#[test]
fn raw_and_der_are_two_forms_of_one_signature() {
    for (algorithm, key, verifier) in ecdsa_keys() {
        // Enough that leading zeros and high bits occur in both numbers.
        for n in 0..300u32 {
            let message = n.to_be_bytes();
            let raw = key.sign(&SystemRandom::new(), &message).unwrap().as_ref().to_vec();
            let der = SignatureFormat::Der.encode(algorithm, &raw).unwrap();
            assert!(n > 3 || verifier.verifies_der(&message, &der));
            assert_eq!(SignatureFormat::Der.decode(algorithm, &der).unwrap(), raw);
            let jws = SignatureFormat::Jws.encode(algorithm, &raw).unwrap();
            assert_eq!(SignatureFormat::Jws.decode(algorithm, &jws).unwrap(), raw);
            assert_eq!(SignatureFormat::Raw.decode(algorithm, &raw).unwrap(), raw);
        }
    }
}

#[test]
fn numbers_with_leading_zeros_and_high_bits_are_minimal_in_der() {
    let mut raw = [0; 64];
    raw[31] = 0x7f;
    raw[32] = 0x80;
    let der = SignatureFormat::Der.encode(Algorithm::EcdsaP256, &raw).unwrap();
    let expected = [&[0x30, 38, 2, 1, 0x7f, 2, 33, 0, 0x80][..], &[0; 31]].concat();
    assert_eq!(der, expected);
    assert_eq!(SignatureFormat::Der.decode(Algorithm::EcdsaP256, &der).unwrap(), raw);
    let longest = SignatureFormat::Der.encode(Algorithm::EcdsaP521, &[0x01; 132]).unwrap();
    assert_eq!(longest[..3], [0x30, 0x81, 136], "the long form of a length, where it is needed");
}

#[test]
fn any_other_spelling_is_refused() {
    let refused: &[&[u8]] = &[
        b"",
        &[0x30],
        &[0x30, 0],
        &[0x30, 3, 2, 1, 1],
        &[0x31, 6, 2, 1, 1, 2, 1, 1],
        &[0x30, 6, 2, 1, 1, 2, 1],
        &[0x30, 6, 2, 1, 1, 2, 1, 1, 0],
        &[0x30, 7, 2, 1, 1, 2, 1, 1, 0],
        &[0x30, 9, 2, 1, 1, 2, 1, 1, 2, 1, 1],
        &[0x30, 0x81, 6, 2, 1, 1, 2, 1, 1],
        &[0x30, 0x80, 2, 1, 1, 2, 1, 1, 0, 0],
        &[0x30, 7, 2, 2, 0, 1, 2, 1, 1],
        &[0x30, 7, 2, 0x81, 1, 1, 2, 1, 1],
        &[0x30, 6, 2, 1, 0xff, 2, 1, 1],
        &[0x30, 5, 2, 0, 2, 1, 1],
        &[0x30, 6, 4, 1, 1, 2, 1, 1],
    ];
    SignatureFormat::Der.decode(Algorithm::EcdsaP256, &[0x30, 6, 2, 1, 1, 2, 1, 1]).unwrap();
    for der in refused {
        let error = SignatureFormat::Der.decode(Algorithm::EcdsaP256, der).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{der:02x?}");
    }
    // A number longer than the curve's field.
    let long = [&[0x30, 38, 2, 33, 1][..], &[0; 32], &[2, 1, 1]].concat();
    SignatureFormat::Der.decode(Algorithm::EcdsaP256, &long).unwrap_err();
    SignatureFormat::Der.decode(Algorithm::EcdsaP384, &long).unwrap();

    let jws = URL_SAFE_NO_PAD.encode([0xff; 64]);
    SignatureFormat::Jws.decode(Algorithm::EcdsaP256, jws.as_bytes()).unwrap();
    for bad in [format!("{jws}=="), format!("{jws}\n"), jws.replace('_', "/"), format!("{}x", &jws[..85])] {
        SignatureFormat::Jws.decode(Algorithm::EcdsaP256, bad.as_bytes()).unwrap_err();
    }
}

#[test]
fn a_signature_has_the_length_of_its_algorithm_in_every_form() {
    for algorithm in Algorithm::ALL.iter().copied() {
        for format in SignatureFormat::ALL.iter().copied() {
            assert_eq!(format.as_str().parse::<SignatureFormat>().unwrap(), format);
            let Some(length) = raw_length(algorithm) else {
                assert_eq!(format.encode(algorithm, &[1; 64]).unwrap_err().kind(), Kind::Unsupported);
                continue;
            };
            let encoded = format.encode(algorithm, &vec![1; length]).unwrap();
            assert_eq!(format.decode(algorithm, &encoded).unwrap(), vec![1; length]);
            for wrong in [0, length - 1, length + 1, 2 * length] {
                assert_eq!(format.encode(algorithm, &vec![1; wrong]).unwrap_err().kind(), Kind::Invalid);
            }
        }
    }
    assert_eq!("DER".parse::<SignatureFormat>().unwrap_err().kind(), Kind::Invalid);
}

fn decode(base64: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(base64).unwrap()
}

#[test]
fn thumbprints_are_those_of_the_standards() {
    // RFC 7638, 3.1
    let n = concat!(
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn",
        "jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qM",
        "QvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJz",
        "KnqDKgw"
    );
    let rsa = PublicKey::rsa(&decode(n), &[1, 0, 1]).unwrap();
    let jwk = Jwk::new(Algorithm::Rsa2048Pkcs1, &rsa).unwrap();
    assert_eq!(jwk.kid(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    let json = serde_json::to_value(&jwk).unwrap();
    let expected = serde_json::json!({
        "kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "use": "sig", "kid": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
    });
    assert_eq!(json, expected);
    // RFC 8037, A.3
    let ed25519 = PublicKey::ed25519(&decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")).unwrap();
    let jwk = Jwk::new(Algorithm::Ed25519, &ed25519).unwrap();
    assert_eq!(jwk.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    let json = serde_json::to_value(&jwk).unwrap();
    assert_eq!((&json["kty"], &json["crv"], &json["alg"]), (&"OKP".into(), &"Ed25519".into(), &"EdDSA".into()));

    // RFC 9964, appendix A.1: the key of a seed of zeros.
    let pair = lc::PqdsaKeyPair::from_seed(&lc::ML_DSA_65_SIGNING, &[0; 32]).unwrap();
    let public = pair.public_key().as_ref();
    let jwk = Jwk::new(Algorithm::MlDsa65, &PublicKey::ml_dsa_65(public).unwrap()).unwrap();
    assert_eq!(jwk.kid(), "Suiu29qbfuaBaR4Ats-c6XQBePB_OpAxAwcTR_0KXVM");
    let expected = serde_json::json!({
        "kty": "AKP", "alg": "ML-DSA-65", "pub": URL_SAFE_NO_PAD.encode(public), "use": "sig", "kid": jwk.kid(),
    });
    assert_eq!(serde_json::to_value(&jwk).unwrap(), expected);

    // RFC 7517, A.1, with a thumbprint computed by hand from RFC 7638.
    let (x, y) = ("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM");
    let point = [&[4][..], &decode(x), &decode(y)].concat();
    let jwk = Jwk::new(Algorithm::EcdsaP256, &PublicKey::ec(Curve::P256, &point).unwrap()).unwrap();
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    assert_eq!(jwk.kid(), URL_SAFE_NO_PAD.encode(signet::types::sha256(&[canonical.as_bytes()])));
    let json = serde_json::to_value(&jwk).unwrap();
    assert_eq!((&json["x"], &json["y"], &json["alg"]), (&x.into(), &y.into(), &"ES256".into()));
}

/// RFC 9881, 4: the parameters are absent. The library that verifies would also take the bare bytes.
#[test]
fn a_key_of_ml_dsa_is_read_in_one_form() {
    let of = |algorithm| lc::PqdsaKeyPair::generate(algorithm).unwrap().public_key().as_ref().to_vec();
    let bytes = of(&lc::ML_DSA_65_SIGNING);
    let good = PublicKey::ml_dsa_65(&bytes).unwrap();
    Verifier::new(Algorithm::MlDsa65, &good).unwrap();
    assert_eq!(good.raw().unwrap(), bytes);
    assert_eq!(PublicKey::from_pem(&good.to_pem().unwrap()).unwrap(), good);
    // SEQUENCE { SEQUENCE { id-ml-dsa-65 } BIT STRING } is 22 bytes longer than the key; the identifier has 9.
    let der = good.as_der();
    assert_eq!((der.len(), &der[4..8]), (bytes.len() + 22, &[0x30, 0x0b, 0x06, 0x09][..]));
    let mut with_null = [&der[..17], &[5, 0], &der[17..]].concat();
    (with_null[3], with_null[5]) = (with_null[3] + 2, 0x0d);
    let other_set = [&der[..16], &[0x11], &der[17..]].concat();
    let longer = [der, &[0]].concat();
    for bad in [bytes.clone(), with_null, other_set, longer, der[..der.len() - 1].to_vec(), Vec::new()] {
        let error = Verifier::new(Algorithm::MlDsa65, &PublicKey::from_der(bad.clone())).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{} bytes", bad.len());
    }
    for other in [of(&lc::ML_DSA_44_SIGNING), of(&lc::ML_DSA_87_SIGNING), Vec::new()] {
        assert_eq!(PublicKey::ml_dsa_65(&other).unwrap_err().kind(), Kind::Invalid);
    }
    for algorithm in Algorithm::ALL.iter().filter(|one| **one != Algorithm::MlDsa65) {
        assert!(Verifier::new(*algorithm, &good).is_err(), "{algorithm}");
    }
}

#[test]
fn coordinates_of_a_jwk_keep_their_leading_zeros() {
    for (algorithm, key, _) in ecdsa_keys() {
        let curve = algorithm.curve().unwrap();
        let public = PublicKey::ec(curve, key.public_key().as_ref()).unwrap();
        let json = serde_json::to_value(Jwk::new(algorithm, &public).unwrap()).unwrap();
        for coordinate in ["x", "y"] {
            assert_eq!(decode(json[coordinate].as_str().unwrap()).len(), curve.size());
        }
        assert_eq!(Jwk::new(Algorithm::Ed25519, &public).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(Jwk::new(Algorithm::HmacSha256, &public).unwrap_err().kind(), Kind::Unsupported);
    }
}

/// Runs `openssl` and says whether it was content.
fn openssl(folder: &Path, args: &str) -> bool {
    Command::new("openssl").current_dir(folder).args(args.split(' ')).output().is_ok_and(|done| done.status.success())
}

#[test]
fn openssl_reads_our_der_and_we_read_its() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    if !openssl(folder.path(), "version") {
        skip::skipped("no openssl");
        return;
    }
    std::fs::write(file("message"), "a message").unwrap();
    for (algorithm, key, verifier) in ecdsa_keys() {
        let hash = algorithm.hash().unwrap();
        let curve = algorithm.curve().unwrap();
        let public = PublicKey::ec(curve, key.public_key().as_ref()).unwrap();
        std::fs::write(file("public.pem"), public.to_pem().unwrap()).unwrap();
        // 1. Ours, judged by OpenSSL; a second message so that it can also say no.
        let raw = key.sign(&SystemRandom::new(), b"a message").unwrap();
        std::fs::write(file("ours.der"), SignatureFormat::Der.encode(algorithm, raw.as_ref()).unwrap()).unwrap();
        let verify = format!("dgst -{hash} -verify public.pem -signature ours.der");
        assert!(openssl(folder.path(), &format!("{verify} message")), "{algorithm}");
        assert!(!openssl(folder.path(), &format!("{verify} public.pem")), "{algorithm}");
        // 2. OpenSSL's, read and verified by us.
        assert!(verifier.verifies(b"a message", raw.as_ref()));
        assert!(openssl(folder.path(), &format!("ecparam -genkey -noout -name {} -out key.pem", openssl_name(curve))));
        assert!(openssl(folder.path(), "ec -in key.pem -pubout -outform DER -out public.der"));
        assert!(openssl(folder.path(), &format!("dgst -{hash} -sign key.pem -out theirs.der message")));
        let spki = std::fs::read(file("public.der")).unwrap();
        let public = PublicKey::ec(curve, &spki[spki.len() - 1 - 2 * curve.size()..]).unwrap();
        assert_eq!(public.as_der(), spki);
        let theirs = std::fs::read(file("theirs.der")).unwrap();
        let raw = SignatureFormat::Der.decode(algorithm, &theirs).unwrap();
        assert!(Verifier::new(algorithm, &public).unwrap().verifies(b"a message", &raw));
        assert_eq!(SignatureFormat::Der.encode(algorithm, &raw).unwrap(), theirs);
    }
}

fn openssl_name(curve: Curve) -> &'static str {
    match curve {
        Curve::P256 => "prime256v1",
        Curve::P384 => "secp384r1",
        Curve::P521 => "secp521r1",
    }
}

proptest! {
    #[test]
    fn what_is_read_is_spelled_as_we_spell_it(rest in proptest::collection::vec(any::<u8>(), 0..160), r in 0..40u8) {
        let der = [&[0x30, u8::try_from(rest.len().min(127)).unwrap(), 2, r][..], &rest].concat();
        for signature in [&rest, &der] {
            for format in SignatureFormat::ALL {
                if let Ok(raw) = format.decode(Algorithm::EcdsaP256, signature) {
                    prop_assert_eq!(&format.encode(Algorithm::EcdsaP256, &raw).unwrap(), signature);
                }
            }
        }
    }

    #[test]
    fn every_raw_signature_comes_back(raw in proptest::collection::vec(any::<u8>(), 132)) {
        for (algorithm, length) in [(Algorithm::EcdsaP256, 64), (Algorithm::EcdsaP384, 96), (Algorithm::EcdsaP521, 132)] {
            for format in SignatureFormat::ALL {
                let encoded = format.encode(algorithm, &raw[..length]).unwrap();
                prop_assert_eq!(format.decode(algorithm, &encoded).unwrap(), &raw[..length]);
            }
        }
    }
}
