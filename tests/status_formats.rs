//! Revocation lists and OCSP between bytes and types, judged by OpenSSL and pkilint. The keys are of this test, in software:
//! that devices sign the same bytes is for `tests/it`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test may fail as loudly as it likes"
)]

#[path = "support/skip.rs"]
mod skip;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as lc, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use signet::error::Kind;
use signet::types::{Algorithm, Curve, PublicKey};
use signet::x509::Serial;
use signet::x509::certificate::{Certificate, IssuerView};
use signet::x509::crl::{self, Head, Reason, Revoked};
use signet::x509::ocsp::{
    self, Answer, Answers, CertificateId, Failure, IssuerHash, IssuerId, MAX_CERTIFICATES, MAX_NONCE, MAX_REQUEST,
    Request, Status,
};
use signet::x509::signature::assemble;
use tempfile::TempDir;

/// Where the certificates of the test say that they are listed.
const PLACE: &str = "http://pki.example/pki/default/web/1.crl";

/// A key in software.
enum Key {
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::EcdsaP256 => Self::Ecdsa(EcdsaKeyPair::generate(&lc::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()),
            Algorithm::Rsa2048Pkcs1 => Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
            Algorithm::Ed25519 => Self::Ed25519(Ed25519KeyPair::generate().unwrap()),
            other => panic!("{other} is not made here"),
        }
    }

    fn private(&self) -> Vec<u8> {
        match self {
            Self::Ecdsa(key) => key.to_pkcs8v1().unwrap().as_ref().to_vec(),
            Self::Rsa(key) => AsDer::<Pkcs8V1Der<'_>>::as_der(key).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => AsDer::<Pkcs8V1Der<'_>>::as_der(key).unwrap().as_ref().to_vec(),
        }
    }

    fn public(&self) -> PublicKey {
        match self {
            Self::Ecdsa(key) => PublicKey::ec(Curve::P256, key.public_key().as_ref()).unwrap(),
            Self::Rsa(key) => {
                let key = key.public_key();
                let number = |number: &[u8]| number.to_vec();
                PublicKey::rsa(
                    &number(key.modulus().big_endian_without_leading_zero()),
                    &number(key.exponent().big_endian_without_leading_zero()),
                )
                .unwrap()
            }
            Self::Ed25519(key) => PublicKey::ed25519(key.public_key().as_ref()).unwrap(),
        }
    }

    /// In the form of a device.
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ecdsa(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&lc::RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }
}

/// An authority, a responder of its own and four leaves, whose certificates OpenSSL made in a folder:
/// `ca.pem`, `responder.pem`, `good.pem`, `revoked.pem`, and `placed-good.pem` and `placed-revoked.pem` that name a place.
struct Authority {
    folder: TempDir,
    algorithm: Algorithm,
    key: Key,
    responder: Key,
    view: IssuerView,
    now: Timestamp,
}

impl Authority {
    fn new(algorithm: Algorithm) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (key, responder) = (Key::new(algorithm), Key::new(algorithm));
        for (name, key) in [("ca", &key), ("responder", &responder), ("leaf", &Key::new(Algorithm::EcdsaP256))] {
            fs::write(folder.path().join(format!("{name}.der")), key.private()).unwrap();
            openssl(folder.path(), &format!("pkey -inform DER -in {name}.der -out {name}.key"));
        }
        let extensions = format!(
            "[ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n\
             [responder]\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=OCSPSigning\nnoCheck=ignored\n\
             authorityKeyIdentifier=keyid\n\
             [leaf]\nkeyUsage=critical,digitalSignature\nauthorityKeyIdentifier=keyid\n\
             [placed]\nkeyUsage=critical,digitalSignature\nauthorityKeyIdentifier=keyid\ncrlDistributionPoints=URI:{PLACE}\n"
        );
        fs::write(folder.path().join("extensions"), extensions).unwrap();
        let run = |args: &str| openssl(folder.path(), args);
        run("req -new -key ca.key -subj /O=Example/CN=Root -out ca.csr");
        run("x509 -req -in ca.csr -key ca.key -days 365 -extfile extensions -extensions ca -out ca.pem");
        let leaves = [
            ("responder", "responder", "responder"),
            ("good", "leaf", "leaf"),
            ("revoked", "leaf", "leaf"),
            ("placed-good", "leaf", "placed"),
            ("placed-revoked", "leaf", "placed"),
        ];
        for (name, key, section) in leaves {
            run(&format!("req -new -key {key}.key -subj /CN={name} -out {name}.csr"));
            run(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -set_serial 0x{} -days 30 -extfile extensions \
                 -extensions {section} -out {name}.pem",
                Serial::random().unwrap()
            ));
        }
        run("x509 -in responder.pem -outform DER -out responder.crt");
        run("x509 -in ca.pem -outform DER -out ca.crt");
        let der = fs::read(folder.path().join("ca.crt")).unwrap();
        let view = Certificate::parse(&der).unwrap().issuer_view(algorithm).unwrap();
        #[expect(clippy::disallowed_methods, reason = "OpenSSL judges by its own clock")]
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap();
        Self { folder, algorithm, key, responder, view, now }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, args: &str) -> (bool, String) {
        try_openssl(self.path(), args)
    }

    fn serial(&self, name: &str) -> Serial {
        let text = openssl(self.path(), &format!("x509 -in {name}.pem -noout -serial"));
        let digits = text.trim().strip_prefix("serial=").unwrap();
        Serial::from_bytes(hex::decode(format!("{digits:0>40}")).unwrap().try_into().unwrap())
    }

    fn head<'a>(&'a self, places: &'a [String]) -> Head<'a> {
        let (before, after) = (SignedDuration::from_secs(60), SignedDuration::from_hours(24));
        Head { issuer: &self.view, number: 300, this_update: self.now - before, next_update: self.now + after, places }
    }

    /// Writes a list to `name`.
    fn list(&self, name: &str, places: &[String], revoked: &[Revoked]) -> Vec<u8> {
        let head = self.head(places);
        let body = crl::to_be_signed(&head, revoked.iter().copied()).unwrap();
        let list = assemble(&body, self.algorithm, &self.key.sign(&body)).unwrap();
        crl::check(&list, &head, revoked.iter().copied()).unwrap();
        fs::write(self.path().join(name), &list).unwrap();
        openssl(self.path(), &format!("crl -inform DER -in {name} -out {name}.pem"));
        list
    }

    /// Answers each certificate of a request by `status`, and writes the response to `name`.
    fn respond(&self, request: &Request, name: &str, status: impl Fn(&CertificateId) -> Status) {
        let next_update = self.now + SignedDuration::from_hours(1);
        let answer =
            |certificate| Answer { certificate, status: status(certificate), this_update: self.now, next_update };
        let answers: Vec<_> = request.certificates.iter().map(answer).collect();
        let responder = self.responder.public();
        let all = Answers {
            responder: &responder,
            produced_at: self.now,
            answers: &answers,
            nonce: request.nonce.as_deref(),
        };
        let body = ocsp::to_be_signed(&all).unwrap();
        let certificate = fs::read(self.path().join("responder.crt")).unwrap();
        let response = ocsp::respond(&body, self.algorithm, &self.responder.sign(&body), &certificate).unwrap();
        fs::write(self.path().join(name), response).unwrap();
    }

    fn lint(&self, judge: &str, options: &[&str], name: &str) {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/judges/bin").join(judge);
        if !program.exists() {
            return skip::skipped("pkilint is not installed: tests/judges/install");
        }
        let done = Command::new(program)
            .arg("lint")
            .args(options)
            .args(["--severity", "WARNING"])
            .arg(self.path().join(name))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{name}: {said}");
    }
}

fn try_openssl(folder: &Path, args: &str) -> (bool, String) {
    let done = Command::new("openssl").current_dir(folder).args(args.split_whitespace()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.success(), said)
}

fn openssl(folder: &Path, args: &str) -> String {
    let (fine, said) = try_openssl(folder, args);
    assert!(fine, "openssl {args}: {said}");
    said
}

fn authorities() -> Vec<Authority> {
    if Command::new("openssl").arg("version").output().is_err() {
        skip::skipped("there is no openssl");
        return Vec::new();
    }
    [Algorithm::EcdsaP256, Algorithm::Rsa2048Pkcs1, Algorithm::Ed25519].into_iter().map(Authority::new).collect()
}

#[test]
fn lists_are_believed_by_openssl_and_revoke() {
    for authority in authorities() {
        let at = authority.now - SignedDuration::from_hours(2);
        let places = [PLACE.to_owned()];
        let each = |reason: &Reason| Revoked { serial: Serial::random().unwrap(), at, reason: *reason };
        for (name, places) in [("", &[][..]), ("placed-", &places)] {
            let mut revoked: Vec<_> = Reason::ALL.iter().map(each).collect();
            let serial = authority.serial(&format!("{name}revoked"));
            revoked.push(Revoked { serial, at, reason: Reason::KeyCompromise });
            let list = format!("{name}list");
            let bytes = authority.list(&list, places, &revoked);
            authority.list(&format!("{name}empty"), places, &[]);
            authority.lint("lint_crl", &["--type", "CRL", "--profile", "PKIX"], &list);
            authority.lint("lint_crl", &["--type", "CRL", "--profile", "PKIX"], &format!("{name}empty"));
            let (_, said) = authority.run(&format!("crl -inform DER -in {list} -CAfile ca.pem -verify -noout -text"));
            assert!(said.contains("verify OK"), "{said}");
            assert!(said.contains("X509v3 CRL Number: \n                300"), "{said}");
            assert_eq!(said.contains("critical") && said.contains(PLACE), !places.is_empty(), "{said}");
            let said_reasons = ["Key Compromise", "CA Compromise", "Affiliation Changed", "Superseded", "Privilege"];
            assert!(said_reasons.iter().all(|reason| said.contains(reason)) && !said.contains("Unspecified"), "{said}");
            let (verify, empty) =
                (format!("verify -CAfile ca.pem -crl_check -CRLfile {list}.pem"), format!("{name}empty.pem"));
            assert!(authority.run(&format!("{verify} {name}good.pem")).0);
            let (fine, said) = authority.run(&format!("{verify} {name}revoked.pem"));
            assert!(!fine && said.contains("certificate revoked"), "{said}");
            let all = format!("verify -CAfile ca.pem -crl_check -CRLfile {empty} {name}revoked.pem");
            assert!(authority.run(&all).0, "an empty list revokes nothing");

            // The reader that checks before release sees each difference.
            let head = authority.head(places);
            let asked = |head: &Head<'_>, revoked: &[Revoked]| crl::check(&bytes, head, revoked.iter().copied());
            let other = [PLACE.to_owned()];
            let heads = [
                Head { number: 301, ..head },
                Head { this_update: head.this_update - SignedDuration::from_secs(1), ..head },
                Head { next_update: head.next_update + SignedDuration::from_secs(1), ..head },
                Head { places: if places.is_empty() { &other } else { &[] }, ..head },
            ];
            assert!(heads.iter().all(|head| asked(head, &revoked).unwrap_err().kind() == Kind::Internal));
            let mut others = vec![revoked.clone(); 4];
            others[0].pop();
            others[1].push(each(&Reason::Superseded));
            others[2][0].reason = Reason::KeyCompromise;
            others[3][0].serial = Serial::random().unwrap();
            assert!(others.iter().all(|revoked| asked(&head, revoked).unwrap_err().kind() == Kind::Internal));
            let stranger = IssuerView { public_key: Key::new(authority.algorithm).public(), ..authority.view.clone() };
            let error = asked(&Head { issuer: &stranger, ..head }, &revoked).unwrap_err();
            assert_eq!(error.kind(), Kind::Tampered);
        }
        // A list that names a place does not count for a certificate that names none.
        let (fine, said) = authority.run("verify -CAfile ca.pem -crl_check -CRLfile placed-list.pem good.pem");
        assert!(!fine && said.contains("CRL scope"), "{said}");
    }
}

#[test]
fn a_hundred_thousand_entries_are_read_by_openssl() {
    let Some(authority) = authorities().into_iter().next() else { return };
    let revoked: Vec<_> = (0..100_000)
        .map(|n: i64| Revoked {
            serial: Serial::random().unwrap(),
            at: authority.now - SignedDuration::from_secs(n),
            reason: Reason::ALL[usize::try_from(n).unwrap() % Reason::ALL.len()],
        })
        .collect();
    let list = authority.list("long", &[], &revoked);
    assert!(list.len() < 52 * revoked.len(), "{} bytes", list.len());
    let (_, said) = authority.run("crl -inform DER -in long -CAfile ca.pem -verify -noout");
    assert!(said.contains("verify OK"), "{said}");
}

#[test]
fn times_after_2049_have_four_digits_of_the_year() {
    let Some(authority) = authorities().into_iter().next() else { return };
    let head = Head { next_update: "2050-01-01T00:00:00Z".parse().unwrap(), ..authority.head(&[]) };
    let body = crl::to_be_signed(&head, []).unwrap();
    assert!(body.windows(17).any(|part| part == b"\x18\x0f20500101000000Z"));
    assert!(body.windows(2).any(|part| part == [0x17, 13]));
    let head = Head { this_update: "1969-12-31T23:59:59Z".parse().unwrap(), ..head };
    assert!(crl::to_be_signed(&head, []).is_err());
}

#[test]
fn openssl_asks_and_believes_the_answers() {
    for authority in authorities() {
        let revoked = Status::Revoked { at: authority.now - SignedDuration::from_hours(3), reason: Reason::Superseded };
        let statuses = [("good", Status::Good), ("revoked", revoked), ("unknown", Status::Unknown)];
        for hash in ["sha1", "sha256"] {
            for (word, status) in statuses {
                for nonce in ["-nonce", "-no_nonce"] {
                    let ask = format!("ocsp -issuer ca.pem -{hash} -cert good.pem");
                    openssl(authority.path(), &format!("{ask} {nonce} -reqout request"));
                    let request = Request::parse(&fs::read(authority.path().join("request")).unwrap()).unwrap();
                    assert_eq!(request.nonce.is_some(), nonce == "-nonce");
                    let kind = if hash == "sha1" { IssuerHash::Sha1 } else { IssuerHash::Sha256 };
                    let issuer = IssuerId::new(kind, &authority.view).unwrap();
                    let serial = authority.serial("good");
                    assert_eq!(request.certificates, [CertificateId::new(issuer.clone(), &serial)]);
                    assert_eq!(request.certificates[0].serial(), Some(serial));
                    authority.respond(&request, "response", |_| status);
                    // Without a nonce of its own, so that the one of the request is compared.
                    let read = "-no_nonce -reqin request -respin response -CAfile ca.pem";
                    let (fine, said) = authority.run(&format!("{ask} {read}"));
                    assert!(fine && said.contains("Response verify OK"), "{said}");
                    assert!(said.contains(&format!("good.pem: {word}")), "{said}");
                    assert!(!said.contains("WARNING") || nonce == "-no_nonce", "{said}");
                    assert_eq!(said.contains("Reason: superseded"), word == "revoked", "{said}");
                    // This judge takes his time, so he gets one of each status.
                    if hash == "sha256" && nonce == "-nonce" {
                        authority.lint("lint_ocsp_response", &[], "response");
                    }
                }
            }
        }
        // Many at once, each with its own answer.
        openssl(authority.path(), "ocsp -issuer ca.pem -cert good.pem -cert revoked.pem -reqout request");
        let request = Request::parse(&fs::read(authority.path().join("request")).unwrap()).unwrap();
        let serial = authority.serial("revoked");
        authority.respond(
            &request,
            "response",
            |one| if one.serial() == Some(serial) { revoked } else { Status::Good },
        );
        let ask = "ocsp -issuer ca.pem -cert good.pem -cert revoked.pem -no_nonce -reqin request -respin response -CAfile ca.pem";
        let (_, said) = authority.run(ask);
        assert!(said.contains("good.pem: good") && said.contains("revoked.pem: revoked"), "{said}");
    }
}

#[test]
fn curl_believes_a_stapled_answer_and_refuses_a_revoked_one() {
    let Some(authority) = authorities().into_iter().next() else { return };
    if Command::new("curl").arg("--version").output().is_err() {
        return skip::skipped("there is no curl");
    }
    let revoked = Status::Revoked { at: authority.now - SignedDuration::from_hours(3), reason: Reason::KeyCompromise };
    // 91 is "invalid SSL certificate status".
    for (status, code) in [(Status::Good, 0), (revoked, 91), (Status::Unknown, 91)] {
        let issuer = IssuerId::new(IssuerHash::Sha1, &authority.view).unwrap();
        let request = CertificateId::new(issuer, &authority.serial("good")).request().unwrap();
        authority.respond(&Request::parse(&request).unwrap(), "response", |_| status);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let serve = format!(
            "s_server -accept 127.0.0.1:{port} -cert good.pem -cert_chain ca.pem -key leaf.key -status_file response -www"
        );
        let mut server = Command::new("openssl");
        let server = server.current_dir(authority.path()).args(serve.split(' '));
        let mut server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // curl tries again while nobody listens.
        let ask = format!(
            "--silent --show-error --noproxy * --retry 50 --retry-connrefused --retry-delay 0 --retry-max-time 20 \
             --cacert ca.pem --cert-status --resolve good:{port}:127.0.0.1 https://good:{port}/"
        );
        let done = Command::new("curl").current_dir(authority.path()).args(ask.split_whitespace()).output().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "{said}");
    }
}

#[test]
fn failures_are_the_responses_that_openssl_knows() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        (Failure::MalformedRequest, "malformedrequest (1)"),
        (Failure::InternalError, "internalerror (2)"),
        (Failure::TryLater, "trylater (3)"),
        (Failure::Unauthorized, "unauthorized (6)"),
    ];
    for (failure, text) in cases {
        fs::write(folder.path().join("response"), failure.response()).unwrap();
        let (_, said) = try_openssl(folder.path(), "ocsp -respin response -noverify");
        assert!(said.contains(text), "{said}");
    }
}

/// A request whose parts can be changed.
#[derive(Clone)]
struct Parts {
    version: Option<u8>,
    algorithm: Vec<u8>,
    name: Vec<u8>,
    key: Vec<u8>,
    serial: Vec<u8>,
    count: usize,
    extensions: Vec<Vec<u8>>,
}

impl Parts {
    fn new() -> Self {
        let sha1 = [&[0x06, 5, 0x2b, 14, 3, 2, 26][..], &[5, 0]].concat();
        Self {
            version: None,
            algorithm: sha1,
            name: vec![1; 20],
            key: vec![2; 20],
            serial: vec![7],
            count: 1,
            extensions: vec![],
        }
    }

    fn der(&self) -> Vec<u8> {
        let id = [tlv(0x30, &self.algorithm), tlv(4, &self.name), tlv(4, &self.key), tlv(2, &self.serial)].concat();
        let list = tlv(0x30, &tlv(0x30, &tlv(0x30, &id)).repeat(self.count));
        let version = self.version.map(|version| tlv(0xa0, &tlv(2, &[version]))).unwrap_or_default();
        let extensions = match self.extensions.as_slice() {
            [] => vec![],
            some => tlv(0xa2, &tlv(0x30, &some.concat())),
        };
        tlv(0x30, &tlv(0x30, &[version, list, extensions].concat()))
    }
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = match u8::try_from(length) {
        Ok(short @ 0..0x80) => vec![tag, short],
        _ => vec![tag, 0x82, u8::try_from(length >> 8).unwrap(), u8::try_from(length & 0xff).unwrap()],
    };
    if (0x80..=0xff).contains(&length) {
        out = vec![tag, 0x81, u8::try_from(length).unwrap()];
    }
    out.extend_from_slice(content);
    out
}

fn nonce(bytes: &[u8]) -> Vec<u8> {
    tlv(0x30, &[&[0x06, 9, 0x2b, 6, 1, 5, 5, 7, 48, 1, 2][..], &tlv(4, &tlv(4, bytes))].concat())
}

fn unknown(critical: bool) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    tlv(0x30, &[&[0x06, 3, 0x55, 4, 99], critical, &tlv(4, &[5, 0])].concat())
}

#[test]
fn requests_at_their_limits_are_read() {
    let new = Parts::new;
    let sha256 = [&[0x06, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1][..]].concat();
    let good = [
        new(),
        Parts { version: Some(0), ..new() },
        Parts { algorithm: new().algorithm[..7].to_vec(), ..new() },
        Parts { algorithm: sha256, name: vec![1; 32], key: vec![2; 32], ..new() },
        Parts { serial: vec![0x7f; 20], ..new() },
        Parts { serial: vec![0x80], ..new() },
        Parts { serial: vec![0], ..new() },
        Parts { count: MAX_CERTIFICATES, extensions: vec![nonce(&[9; MAX_NONCE])], ..new() },
        Parts { extensions: vec![nonce(&[9])], ..new() },
        Parts { extensions: vec![unknown(false)], ..new() },
    ];
    for (at, parts) in good.iter().enumerate() {
        let request = Request::parse(&parts.der()).unwrap_or_else(|e| panic!("case {at}: {e:?}"));
        assert_eq!(request.certificates.len(), parts.count, "case {at}");
        let negative = parts.serial[0] >= 0x80;
        assert_eq!(request.certificates[0].serial().is_none(), negative, "case {at}");
        if let (Some(serial), false) = (request.certificates[0].serial(), parts.name.len() == 32) {
            // What we write is what was asked.
            let own = CertificateId::new(request.certificates[0].issuer().clone(), &serial);
            assert_eq!(own, request.certificates[0]);
            assert_eq!(Request::parse(&own.request().unwrap()).unwrap().certificates, [own]);
        }
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let new = Parts::new;
    let bad = [
        ("version 2", Parts { version: Some(1), ..new() }),
        ("no certificate", Parts { count: 0, ..new() }),
        ("too many certificates", Parts { count: MAX_CERTIFICATES + 1, ..new() }),
        ("another hash", Parts { algorithm: vec![0x06, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 13, 2, 5], ..new() }),
        ("parameters of the hash", Parts { algorithm: [&new().algorithm[..7], &[4, 0]].concat(), ..new() }),
        ("a short name", Parts { name: vec![1; 19], ..new() }),
        ("a long key", Parts { key: vec![1; 32], ..new() }),
        ("an empty serial number", Parts { serial: vec![], ..new() }),
        ("a serial number with a zero too many", Parts { serial: vec![0, 1], ..new() }),
        ("a serial number of 21 bytes", Parts { serial: vec![1; 21], ..new() }),
        ("an empty nonce", Parts { extensions: vec![nonce(&[])], ..new() }),
        ("a long nonce", Parts { extensions: vec![nonce(&[9; MAX_NONCE + 1])], ..new() }),
        ("two nonces", Parts { extensions: vec![nonce(&[9]), nonce(&[9])], ..new() }),
        ("a critical extension", Parts { extensions: vec![unknown(true)], ..new() }),
        ("much of nothing", Parts { extensions: vec![unknown(false); 400], ..new() }),
    ];
    for (what, parts) in bad {
        let error = Request::parse(&parts.der()).expect_err(what);
        assert!(matches!(error.kind(), Kind::Invalid | Kind::Limit), "{what}: {error:?}");
    }
    let good = Parts::new().der();
    for end in 0..good.len() {
        assert!(Request::parse(&good[..end]).is_err(), "cut at {end}");
    }
    assert!(Request::parse(&[good, vec![0]].concat()).is_err(), "something follows");
    assert_eq!(Request::parse(&vec![0x30; MAX_REQUEST + 1]).unwrap_err().kind(), Kind::Limit);
}

proptest! {
    #[test]
    fn damaged_requests_do_not_panic(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        raw in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let parts = Parts { count: 2, extensions: vec![nonce(&[9; 32]), unknown(false)], ..Parts::new() };
        let mut bytes = parts.der();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        for bytes in [bytes, raw] {
            if let Ok(request) = Request::parse(&bytes) {
                prop_assert!((1..=MAX_CERTIFICATES).contains(&request.certificates.len()));
                prop_assert!(request.nonce.is_none_or(|nonce| (1..=MAX_NONCE).contains(&nonce.len())));
            }
        }
    }
}
