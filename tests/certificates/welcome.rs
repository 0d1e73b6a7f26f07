//! Requests that others make, and that are to be read.

use std::fs;
use std::process::Command;

use der::Tag;
use signet::types::{Algorithm, PublicKey};
use signet::x509::{Authority, Csr, ExtendedUsage, KeyKind, San, Subject, request};
use tempfile::TempDir;

use crate::keys::{ALGORITHMS, Key, Parts, attribute, dns, names, subject, tlv};

/// Lets OpenSSL make a key and a request, and answers the request.
fn openssl(folder: &TempDir, key: &[&str], more: &[&str]) -> Vec<u8> {
    let run = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    run(&[&["genpkey", "-out", "key.pem"][..], key].concat());
    run(&[&["req", "-new", "-key", "key.pem", "-out", "csr.pem"][..], more].concat());
    fs::read(folder.path().join("csr.pem")).unwrap()
}

#[test]
fn requests_of_openssl_are_read() {
    let folder = TempDir::new().unwrap();
    let ec = |curve: &'static str| vec!["-algorithm", "EC", "-pkeyopt", curve];
    let rsa = |bits: &'static str| vec!["-algorithm", "RSA", "-pkeyopt", bits];
    let (p256, p384) = ("ec_paramgen_curve:P-256", "ec_paramgen_curve:P-384");
    let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
    let with = |digest| [&[digest][..], &pss].concat();
    let cases = [
        (ec(p256), vec!["-sha256"], KeyKind::EcdsaP256),
        (ec(p256), vec!["-sha512"], KeyKind::EcdsaP256),
        (ec(p384), vec!["-sha384"], KeyKind::EcdsaP384),
        (ec(p384), vec!["-sha256"], KeyKind::EcdsaP384),
        (ec("ec_paramgen_curve:P-521"), vec!["-sha512"], KeyKind::EcdsaP521),
        (vec!["-algorithm", "ED25519"], vec![], KeyKind::Ed25519),
        (rsa("rsa_keygen_bits:2048"), vec!["-sha256"], KeyKind::Rsa2048),
        (rsa("rsa_keygen_bits:2048"), vec!["-sha384"], KeyKind::Rsa2048),
        (rsa("rsa_keygen_bits:3072"), vec!["-sha512"], KeyKind::Rsa3072),
        (rsa("rsa_keygen_bits:2048"), with("-sha256"), KeyKind::Rsa2048),
        (rsa("rsa_keygen_bits:2048"), with("-sha384"), KeyKind::Rsa2048),
        (rsa("rsa_keygen_bits:2048"), with("-sha512"), KeyKind::Rsa2048),
    ];
    let wanted = ["-subj", "/C=DE/ST=Sachsen/L=Dresden/O=Example/OU=Fleet/CN=Web.example.com", "-addext"];
    for (key, more, kind) in cases {
        let san = "subjectAltName=DNS:Web.example.com,DNS:*.example.com,IP:10.0.0.1,IP:2001:db8::1,email:a@b.example,URI:spiffe://td/x";
        let usages = ["-addext", "extendedKeyUsage=serverAuth,1.2.3", "-addext", "tlsfeature=status_request"];
        let pem = openssl(&folder, &key, &[&wanted[..], &[san], &usages, &more].concat());
        let csr = Csr::parse(&pem).unwrap_or_else(|e| panic!("{kind} {more:?}: {e:?}"));
        assert_eq!(csr.key_kind(), kind);
        assert_eq!(csr.subject().to_string(), "CN=Web.example.com, OU=Fleet, O=Example, L=Dresden, ST=Sachsen, C=DE");
        let names: Vec<_> = csr.sans().iter().map(ToString::to_string).collect();
        let expected = [
            "dns:web.example.com",
            "dns:*.example.com",
            "ip:10.0.0.1",
            "ip:2001:db8::1",
            "email:a@b.example",
            "uri:spiffe://td/x",
        ];
        assert_eq!(names, expected);
        assert_eq!((csr.extended(), csr.wants_other_usages()), (&[ExtendedUsage::ServerAuth][..], true));
        assert!(csr.must_staple() && !csr.wants_ca() && csr.lone_common_name().is_none());
        assert_eq!(Csr::parse(csr.der()).unwrap().der(), csr.der());
    }
    // A salt of another length is one more form of the same signature; OpenSSL 3.0 makes the longest.
    let long_salt = ["-subj", "/CN=a", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:20"];
    let pem = openssl(&folder, &rsa("rsa_keygen_bits:2048"), &long_salt);
    assert!(Csr::parse(&pem).unwrap_err().mend().unwrap().contains("salt"));
}

#[test]
fn what_a_request_asks_for_is_reported() {
    let key = Key::new(Algorithm::Ed25519);
    let lone = Parts { subject: subject(&[("2.5.4.3", Tag::Utf8String, b"db.example.com")]), ..Parts::of(&key) };
    let csr = Csr::parse(&lone.signed(&key)).unwrap();
    assert_eq!(csr.lone_common_name(), Some("db.example.com"));

    let mut bound = Parts::of(&key);
    bound.attributes.push(attribute("1.2.840.113549.1.9.7", &[tlv(Tag::PrintableString, &[b"kNjvE1"])]));
    bound.attributes.sort();
    let csr = Csr::parse(&bound.signed(&key)).unwrap();
    assert_eq!(csr.challenge_password().unwrap().expose(), b"kNjvE1");
    assert!(!format!("{csr:?}").contains("kNjvE1"));

    let twice = Parts { attributes: vec![names(&[dns("a.example"), dns("A.example")])], ..Parts::of(&key) };
    assert_eq!(Csr::parse(&twice.signed(&key)).unwrap().sans(), [San::Dns("a.example".to_owned())]);

    let bare = Parts { attributes: Vec::new(), ..Parts::of(&key) };
    assert!(Csr::parse(&bare.signed(&key)).unwrap().sans().is_empty());
}

#[test]
fn our_own_requests_are_read_by_us_and_by_openssl() {
    let folder = TempDir::new().unwrap();
    for algorithm in ALGORITHMS {
        let key = Key::new(algorithm);
        let subject = Subject { organization: Some("Example".to_owned()), ..Subject::common("Example CA 1") };
        let authority = Authority { path_length: Some(1), ..Authority::default() };
        let names = ["uri:spiffe://td".parse().unwrap()];
        let body = request::to_be_signed(&subject, &key.public(), &names, Some(&authority)).unwrap();
        let der = key.finish(&body);
        let csr = Csr::parse(&der).unwrap();
        assert!(
            csr.wants_ca() && *csr.subject() == subject && csr.sans() == names && *csr.public_key() == key.public()
        );
        let path = folder.path().join("own.der");
        fs::write(&path, &der).unwrap();
        let read = Command::new("openssl")
            .args(["req", "-inform", "DER", "-verify", "-noout", "-text", "-in"])
            .arg(&path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&read.stdout);
        assert!(read.status.success(), "{algorithm}: {}", String::from_utf8_lossy(&read.stderr));
        assert!(text.contains("CA:TRUE, pathlen:1") && text.contains("URI:spiffe://td"), "{text}");
        let plain = request::to_be_signed(&subject, &key.public(), &[], None).unwrap();
        assert!(!Csr::parse(&key.finish(&plain)).unwrap().wants_ca());
    }
    assert!(request::to_be_signed(&Subject::common("\0"), &PublicKey::from_der(vec![]), &[], None).is_err());
}
