//! What each domain signs, with real structures of each kind.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail as loudly as it likes"
)]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use signet::error::Kind;
use signet::signing::domain::{allows, allows_digest, is_own_handshake};
use signet::types::{Algorithm, Domain};
use x509_parser::prelude::FromDer;

const P256: Algorithm = Algorithm::EcdsaP256;

fn artifact(message: &[u8]) -> Option<String> {
    allows(Domain::Artifact, P256, message).err().map(|error| {
        assert_eq!(error.kind(), Kind::Invalid);
        error.public().to_owned()
    })
}

/// A DER element with the shortest length.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = match content.len() {
        short @ 0..128 => vec![u8::try_from(short).unwrap()],
        long => [&[0x84][..], &u32::try_from(long).unwrap().to_be_bytes()].concat(),
    };
    [&[tag][..], &length, &content].concat()
}

fn ssh(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&u32::try_from(part.len()).unwrap().to_be_bytes(), *part].concat()).collect()
}

fn jws(header: &str, payload: &str) -> Vec<u8> {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload)).into_bytes()
}

/// The bodies that X.509 signs, as a real library writes them, each with a word of the refusal.
fn x509_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["example.org".into()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign, rcgen::KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key).unwrap();
    let request = params.serialize_request(&key).unwrap();
    let day = |day| rcgen::date_time_ymd(2030, 1, day);
    let list = rcgen::CertificateRevocationListParams {
        this_update: day(1),
        next_update: day(2),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let issuer = rcgen::Issuer::new(params, &key);
    let list = list.signed_by(&issuer).unwrap();
    let (_, parsed_certificate) = x509_parser::certificate::X509Certificate::from_der(certificate.der()).unwrap();
    let (_, parsed_list) = x509_parser::revocation_list::CertificateRevocationList::from_der(list.der()).unwrap();
    let (_, parsed_request) =
        x509_parser::certification_request::X509CertificationRequest::from_der(request.der()).unwrap();
    vec![
        ("certificate", parsed_certificate.tbs_certificate.as_ref().to_vec()),
        ("revocation list", parsed_list.tbs_cert_list.as_ref().to_vec()),
        ("certificate request", parsed_request.certification_request_info.raw.to_vec()),
        ("OCSP", der(0x30, &[&der(0xa2, &[&[4, 20], &[7; 20]]), &der(0x18, &[b"20300101000000Z"]), &der(0x30, &[])])),
        (
            "OCSP",
            der(0x30, &[&der(0xa0, &[&[2, 1, 0]]), &der(0xa1, &[]), &der(0x18, &[b"20300101000000Z"]), &[0x30, 0]]),
        ),
    ]
}

#[test]
fn an_artifact_key_signs_no_x509_in_any_encoding() {
    for (word, body) in x509_bodies() {
        let refused = |message: &[u8], how| {
            let sentence = artifact(message).unwrap_or_else(|| panic!("{word} was allowed, {how}"));
            assert!(sentence.contains(word), "{sentence} does not say {word}");
        };
        refused(&body, "as it is");
        // The same content under longer and open lengths, which lenient readers take.
        let skip = if body[1] < 0x80 { 2 } else { 2 + usize::from(body[1] & 0x7f) };
        let content = &body[skip..];
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        refused(&[&[0x30, 0x84][..], &length, content].concat(), "with a long length");
        refused(&[&[0x30, 0x8c][..], &[0; 8], &length, content].concat(), "with a very long length");
        refused(&[&[0x30, 0x80][..], content, &[0, 0]].concat(), "with an open length");
        refused(&[&[0x30, 0x80][..], content, &[0x9f, 0x81, 0x01, 0, 0, 0]].concat(), "with a long tag at its end");
        // A first child of open length must not hide the rest.
        let (first, rest) = (content[0], content);
        if first == 0xa0 {
            let inner = usize::from(rest[1]);
            let open = [&[0xa0, 0x80][..], &rest[2..2 + inner], &[0, 0], &rest[2 + inner..]].concat();
            refused(&der(0x30, &[&open]), "with a child of open length");
        }
    }
    // Version 1 of each: without the version at the start.
    let six = [0x30, 0].repeat(5);
    assert!(artifact(&der(0x30, &[&[2, 1, 1], &six])).unwrap().contains("certificate"));
    assert!(
        artifact(&der(0x30, &[&[0x30, 0, 0x30, 0], &der(0x17, &[b"300101000000Z"])])).unwrap().contains("revocation")
    );
    assert!(artifact(&der(0x30, &[&[2, 1, 0, 0x30, 0, 0x30, 0]])).unwrap().contains("request"));
}

#[test]
fn an_artifact_key_signs_nothing_of_ssh() {
    let certificate = ssh(&[b"ecdsa-sha2-nistp256-cert-v01@openssh.com", &[7; 32], b"nistp256", &[4; 65]]);
    assert!(artifact(&certificate).unwrap().contains("SSH certificate"));
    let signature = [b"SSHSIG".to_vec(), ssh(&[b"file", b"", b"sha512", &[1; 64]])].concat();
    assert!(artifact(&signature).unwrap().contains("SSH signature"));
    assert!(artifact(b"SSHKRL\n\0\0\0\0\x01").unwrap().contains("revocation"));
    let login = [ssh(&[&[9; 32]]), vec![50], ssh(&[b"root", b"ssh-connection", b"publickey"])].concat();
    assert!(artifact(&login).unwrap().contains("login"));
}

#[test]
fn an_artifact_key_signs_no_token() {
    let header = r#"{"alg":"ES256"}"#;
    let token = jws(header, r#"{"sub":"admin"}"#);
    assert!(artifact(&token).unwrap().contains("JWS"));
    let lenient = [
        jws("\n {\"typ\":\"JWT\",\"\\u0061lg\":\"ES256\"}", "{}"),
        jws("\u{feff}{\"alg\":\"ES256\"}", "{}"),
        jws("{\"alg\":\"ES256\",}", "{}"),
        format!("{}.{{\"not\":\"encoded\"}}", URL_SAFE_NO_PAD.encode(header)).into_bytes(),
        format!("{}.e30", STANDARD.encode(format!("{header}   "))).into_bytes(),
        format!("{}.e30", STANDARD.encode("{\"alg\":\"ES256\",\"kid\":\"\u{fbff}???>>>\"}")).into_bytes(),
        format!("{}\n.e30", URL_SAFE_NO_PAD.encode(header)).into_bytes(),
        format!("{}.", URL_SAFE_NO_PAD.encode(header)).into_bytes(),
    ];
    for message in lenient {
        assert!(artifact(&message).is_some(), "{}", String::from_utf8_lossy(&message));
    }
}

#[test]
fn an_artifact_key_signs_no_log_head_and_no_handshake() {
    let root = STANDARD.encode([7; 32]);
    for message in [
        format!("kms/0011223344556677\n42\n{root}\n"),
        format!("example.org/log\n0\n{root}\nextension\n"),
        format!("cosignature/v1\ntime 1679315147\nexample.org/log\n42\n{root}\n"),
        format!("{}TLS 1.3, server CertificateVerify\0{}", " ".repeat(64), "h".repeat(32)),
    ] {
        assert!(artifact(message.as_bytes()).is_some(), "{message}");
    }
}

#[test]
fn an_artifact_key_signs_artifacts() {
    let p8 = rcgen::KeyPair::generate().unwrap().serialize_der();
    let artifacts: &[&[u8]] = &[
        b"",
        b"0",
        b"a text",
        b"\x7fELF\x02\x01\x01",
        b"PK\x03\x04",
        b"{\"alg\":\"ES256\"}.x",
        b"e30",
        b"www.example.org",
        b"1.0.0",
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world",
        b"Manifest-Version: 1.0\n42\nnot a hash\n",
        b"subtree/of/files\n",
        &[b' '; 100],
        &[0x30, 0x80],
        &[0x30, 6, 2, 1, 1, 2, 1, 1],
        &[0x30; 200],
        &[0; 64],
        &p8,
        &[0, 0, 0, 4, b'a', b'b', b'c', b'd', 50, 0],
    ];
    for message in artifacts {
        assert_eq!(artifact(message), None, "{}", String::from_utf8_lossy(message));
    }
    let nested = [0x30, 0x80].repeat(100_000);
    assert_eq!(artifact(&nested), None, "deep nesting must cost nothing");
}

#[test]
fn a_jwt_key_signs_tokens_that_name_its_algorithm() {
    for (algorithm, alg) in [
        (Algorithm::EcdsaP256, "ES256"),
        (Algorithm::EcdsaP521, "ES512"),
        (Algorithm::Ed25519, "EdDSA"),
        (Algorithm::MlDsa65, "ML-DSA-65"),
        (Algorithm::Rsa3072Pss, "PS256"),
        (Algorithm::Rsa2048Pkcs1, "RS256"),
    ] {
        let header = format!(r#"{{"typ":"JWT","alg":"{alg}","kid":"x"}}"#);
        allows(Domain::Jwt, algorithm, &jws(&header, "{}")).unwrap();
        allows(Domain::Jwt, algorithm, &jws(&header, "")).unwrap();
        let other = header.replace(alg, "ES384");
        allows(Domain::Jwt, algorithm, &jws(&other, "{}")).unwrap_err();
    }
    let refused = [
        r#"{"alg":"none"}"#,
        r#"{"alg":"es256"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["ES256"]}"#,
        r#"{"typ":"JWT"}"#,
        "{}",
        "[]",
        "",
        r#""ES256""#,
        r#"{"alg":"ES256"} x"#,
        r#"{"alg":"ES256","alg":"ES256"}"#,
        r#"{"alg":"none","\u0061lg":"ES256"}"#,
        r#"{"alg":"ES256","kid":"a","kid":"b"}"#,
        r#"{"alg":"ES256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"ES256","b64":true}"#,
        r#"{"alg":"ES256","b64":false,"crit":["b64"]}"#,
    ];
    for header in refused {
        let error = allows(Domain::Jwt, P256, &jws(header, "{}")).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{header}");
    }
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#);
    for message in [
        header.clone(),
        format!("{header}.e30.e30"),
        format!("{header}.e30="),
        format!("{header}.{{}}"),
        format!("{header}=.e30"),
        format!(" {header}.e30"),
        format!("{header}.e30\n"),
        format!("{header}.e3"),
        ".".into(),
        String::new(),
    ] {
        allows(Domain::Jwt, P256, message.as_bytes()).unwrap_err();
    }
}

#[test]
fn digests_are_for_raw_keys_and_messages_for_the_others() {
    let error = allows(Domain::Raw, P256, b"a message").unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.mend().unwrap().contains("digest"));
    allows_digest(Domain::Raw, P256, &[1; 32]).unwrap();
    assert_eq!(allows_digest(Domain::Raw, P256, &[1; 48]).unwrap_err().kind(), Kind::Invalid);
    for whole in [Algorithm::Ed25519, Algorithm::MlDsa65] {
        assert_eq!(allows_digest(Domain::Raw, whole, &[1; 64]).unwrap_err().kind(), Kind::Unsupported);
    }
    for domain in Domain::ALL.iter().copied().filter(|domain| *domain != Domain::Raw) {
        let error = allows_digest(domain, P256, &[1; 32]).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.mend().is_some());
    }
    for domain in [Domain::X509, Domain::Ssh, Domain::Log, Domain::Tls] {
        for (_, body) in x509_bodies() {
            assert_eq!(allows(domain, P256, &body).unwrap_err().kind(), Kind::Invalid);
        }
        allows(domain, P256, b"anything").unwrap_err();
    }
}

proptest! {
    #[test]
    fn no_message_makes_the_judges_panic(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        for start in [&b""[..], &[0x30, 0x80], &[0x30, 0x84, 0, 0, 0], &[0, 0, 0], b"eyJhbGciOiJFUzI1NiJ9."] {
            let message = [start, &message].concat();
            for domain in Domain::ALL {
                let _ = allows(*domain, P256, &message);
                let _ = allows_digest(*domain, P256, &message);
            }
        }
    }
}

#[test]
fn a_tls_key_signs_what_a_server_of_tls_signs() {
    let message = |context: &str, hash: usize| [&[b' '; 64][..], context.as_bytes(), &[0], &vec![7; hash]].concat();
    let server = "TLS 1.3, server CertificateVerify";
    assert!(is_own_handshake(&message(server, 32)) && is_own_handshake(&message(server, 48)));
    let good = message(server, 32);
    for bad in [
        message("TLS 1.3, client CertificateVerify", 32),
        message(server, 0),
        message(server, 31),
        message(server, 64),
        good[1..].to_vec(),
        [&[b' '][..], &good].concat(),
        [&good[..97], &good[98..]].concat(),
        Vec::new(),
    ] {
        assert!(!is_own_handshake(&bad), "{bad:?}");
    }
    // And what it signs is nobody else's.
    assert!(artifact(&good).is_some_and(|said| said.contains("TLS")));
}
