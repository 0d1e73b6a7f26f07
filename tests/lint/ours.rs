//! What our own encoder writes: every kind of certificate, under issuers of every algorithm, before the lint and pkilint.

use std::fs;
use std::process::Command;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self as lc, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaEncoding, RsaKeyPair,
};
use jiff::{Timestamp, ToSpan};
use signet::types::{Algorithm, PublicKey, Verifier};
use signet::x509::lint::{self, Kind, Subjectmatter};
use signet::x509::{
    Authority, Distribution, ExtendedUsage, IssuerView, KeyUsage, NameConstraints, San, Serial, Subject, Subtree,
    Template, Validity, certificate,
};

use crate::pkilint::{Complaint, Subject as Judged, pkilint};
use crate::skip::skipped;

/// From a message to a signature in the raw form of devices.
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key in memory that signs as a device does.
struct Signer {
    algorithm: Algorithm,
    public_key: PublicKey,
    sign: Sign,
}

/// An authority: its certificate, and how others see it.
struct Issuer {
    der: Vec<u8>,
    view: IssuerView,
    signer: Signer,
}

fn ecdsa(algorithm: Algorithm, fixed: &'static EcdsaSigningAlgorithm) -> Signer {
    let key = EcdsaKeyPair::generate(fixed).unwrap();
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let public_key = PublicKey::from_der(der.as_ref().to_vec());
    Signer { algorithm, public_key, sign: Box::new(move |bytes| signed(&key, bytes)) }
}

fn signed(key: &EcdsaKeyPair, bytes: &[u8]) -> Vec<u8> {
    key.sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec()
}

fn ed25519() -> Signer {
    let key = Ed25519KeyPair::generate().unwrap();
    let public_key = PublicKey::ed25519(key.public_key().as_ref()).unwrap();
    Signer { algorithm: Algorithm::Ed25519, public_key, sign: Box::new(move |bytes| key.sign(bytes).as_ref().to_vec()) }
}

fn rsa(algorithm: Algorithm, size: KeySize, padding: &'static dyn RsaEncoding) -> Signer {
    let key = RsaKeyPair::generate(size).unwrap();
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let public_key = PublicKey::from_der(der.as_ref().to_vec());
    let sign = move |bytes: &[u8]| {
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(padding, &SystemRandom::new(), bytes, &mut signature).unwrap();
        signature
    };
    Signer { algorithm, public_key, sign: Box::new(sign) }
}

fn p256() -> Signer {
    ecdsa(Algorithm::EcdsaP256, &lc::ECDSA_P256_SHA256_FIXED_SIGNING)
}

fn signers() -> Vec<Signer> {
    vec![
        p256(),
        ecdsa(Algorithm::EcdsaP384, &lc::ECDSA_P384_SHA384_FIXED_SIGNING),
        ecdsa(Algorithm::EcdsaP521, &lc::ECDSA_P521_SHA512_FIXED_SIGNING),
        ed25519(),
        rsa(Algorithm::Rsa2048Pkcs1, KeySize::Rsa2048, &lc::RSA_PKCS1_SHA256),
        rsa(Algorithm::Rsa3072Pss, KeySize::Rsa3072, &lc::RSA_PSS_SHA256),
    ]
}

/// What a profile of this kind would ask for.
fn template(kind: Kind, public_key: PublicKey) -> Template {
    let start: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
    let hours = match kind {
        Kind::Root => 24 * 3650,
        Kind::Intermediate => 24 * 1800,
        Kind::Server | Kind::Client | Kind::Peer | Kind::CodeSigning | Kind::Svid | Kind::OcspResponder => 24,
    };
    let name = |text: &str| Subject {
        country: Some("DE".to_owned()),
        organization: Some("Müller & Söhne".to_owned()),
        ..Subject::common(text)
    };
    let subject = match kind {
        Kind::Root => name("Root"),
        Kind::Intermediate => name("Intermediate"),
        Kind::OcspResponder => name("Responder"),
        Kind::Client => Subject::common("billing"),
        Kind::CodeSigning => name("Releases"),
        Kind::Server | Kind::Peer | Kind::Svid => Subject::default(),
    };
    let san = |text: &str| text.parse::<San>().unwrap();
    let sans = match kind {
        Kind::Server => vec![san("dns:web.example.com"), san("ip:10.0.0.1"), san("ip:2001:db8::1")],
        Kind::Client => vec![san("email:billing@example.com")],
        Kind::Peer => vec![san("dns:billing.example.com"), san("uri:https://billing.example.com/")],
        Kind::Svid => vec![san("uri:spiffe://example.com/billing")],
        Kind::Root | Kind::Intermediate | Kind::CodeSigning | Kind::OcspResponder => Vec::new(),
    };
    let constraints = NameConstraints {
        permitted: vec![
            Subtree::Dns("example.com".to_owned()),
            Subtree::Ip("10.0.0.0".parse().unwrap(), 8),
            Subtree::Ip("2001:db8::".parse().unwrap(), 32),
        ],
        excluded: vec![Subtree::Dns("secret.example.com".to_owned())],
    };
    let authority = match kind {
        Kind::Root => Some(Authority::default()),
        Kind::Intermediate => Some(Authority { path_length: Some(0), constraints }),
        Kind::Server | Kind::Client | Kind::Peer | Kind::CodeSigning | Kind::Svid | Kind::OcspResponder => None,
    };
    let extended = match kind {
        Kind::Root | Kind::Intermediate => vec![],
        Kind::Server => vec![ExtendedUsage::ServerAuth],
        Kind::Client => vec![ExtendedUsage::ClientAuth],
        Kind::Peer | Kind::Svid => vec![ExtendedUsage::ServerAuth, ExtendedUsage::ClientAuth],
        Kind::CodeSigning => vec![ExtendedUsage::CodeSigning],
        Kind::OcspResponder => vec![ExtendedUsage::OcspSigning],
    };
    let places = |path: &str| vec![format!("http://pki.example.com/{path}")];
    let distribution = if matches!(kind, Kind::Root | Kind::OcspResponder) {
        Distribution::default()
    } else {
        Distribution { crl: places("1.crl"), ocsp: places("ocsp"), issuer: places("1.cer") }
    };
    Template {
        subject,
        sans,
        public_key,
        validity: Validity { not_before: start, not_after: start + hours.hours() },
        usages: if kind.is_authority() {
            vec![KeyUsage::CertSign, KeyUsage::CrlSign]
        } else {
            vec![KeyUsage::DigitalSignature]
        },
        extended,
        authority,
        policies: if kind == Kind::Root { Vec::new() } else { vec!["1.3.6.1.4.1.99999.1".parse().unwrap()] },
        distribution,
        must_staple: kind == Kind::Server,
        no_check: kind == Kind::OcspResponder,
    }
}

/// Goes the way of issuing: to be signed, lint, sign, check, lint again.
fn issue(kind: Kind, public_key: PublicKey, by: &Signer, view: &IssuerView, above: Option<&[u8]>) -> Vec<u8> {
    let (template, serial) = (template(kind, public_key), Serial::random().unwrap());
    let matter = Subjectmatter { kind, issuer: above };
    let tbs = certificate::to_be_signed(&template, &serial, view).unwrap();
    assert!(lint::lint(&tbs, &matter).is_empty(), "{kind:?} by {}: {:#?}", by.algorithm, lint::lint(&tbs, &matter));
    let input = by.algorithm.hash().map_or_else(|| tbs.clone(), |hash| hash.digest(&tbs));
    let proof = Verifier::new(by.algorithm, &view.public_key).unwrap().prove(input, (by.sign)(&tbs)).unwrap();
    let der = certificate::assemble(&tbs, by.algorithm, proof.signature()).unwrap();
    assert!(lint::check(&der, &matter).unwrap().is_empty());
    certificate::check(&der, &template, &serial, view, &proof).unwrap();
    der
}

fn root(signer: Signer) -> Issuer {
    let view = IssuerView::of_root(&template(Kind::Root, signer.public_key.clone()), signer.algorithm).unwrap();
    let der = issue(Kind::Root, signer.public_key.clone(), &signer, &view, None);
    Issuer { der, view, signer }
}

fn intermediate(above: &Issuer, signer: Signer) -> Issuer {
    let key = signer.public_key.clone();
    let der = issue(Kind::Intermediate, key, &above.signer, &above.view, Some(&above.der));
    let view = certificate::Certificate::parse(&der).unwrap().issuer_view(signer.algorithm).unwrap();
    Issuer { der, view, signer }
}

/// Whether openssl takes a leaf, by the strict rules, at the time that it is for.
fn openssl_takes(leaf: &[u8], intermediate: &[u8], root: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, der) in [("leaf", leaf), ("intermediate", intermediate), ("root", root)] {
        fs::write(folder.path().join(name), certificate::Certificate::parse(der).unwrap().to_pem().unwrap()).unwrap();
    }
    let at: Timestamp = "2026-11-21T13:00:00Z".parse().unwrap();
    let output = Command::new("openssl")
        .current_dir(folder.path())
        .args(["verify", "-x509_strict", "-attime", &at.as_second().to_string()])
        .args(["-CAfile", "root", "-untrusted", "intermediate", "leaf"])
        .output()
        .unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// What pkilint says of good certificates, and why we differ.
const TOLERATED: &[(&str, &str)] = &[
    // It takes a URI for one only where the scheme is one of the web's.
    ("svid", "pkix.invalid_uri_syntax"),
    // Its linter of chains forgets the algorithm, and takes each RSA signature for one of PKCS #1.
    ("pss", "pkix.signature_verification_failed"),
];

#[test]
fn what_we_write_breaks_no_rule_and_pkilint_agrees() {
    let openssl = Command::new("openssl").arg("version").output().is_ok();
    let mut judged = Vec::new();
    let mut judge = |name: String, kind: Kind, der: &[u8], above: Option<&Issuer>| {
        judged.push((format!("{name} pkix"), Judged::Certificate(der.to_vec())));
        if let Some(above) = above {
            judged.push((format!("{name} chain"), Judged::Chain(above.der.clone(), der.to_vec())));
        }
        assert!(above.is_some() || kind == Kind::Root);
    };
    for (top, below) in signers().into_iter().zip(signers().into_iter().rev()) {
        let root = root(top);
        let algorithm = root.signer.algorithm;
        judge(format!("root {algorithm}"), Kind::Root, &root.der, None);
        let intermediate = intermediate(&root, below);
        judge(format!("intermediate {algorithm}"), Kind::Intermediate, &intermediate.der, Some(&root));
        for kind in Kind::ALL.iter().filter(|kind| !kind.is_authority()) {
            let leaf = p256();
            let Issuer { der, view, signer } = &intermediate;
            let der = issue(*kind, leaf.public_key, signer, view, Some(der));
            if openssl {
                openssl_takes(&der, &intermediate.der, &root.der).unwrap();
            }
            judge(format!("{} {}", kind.as_str(), signer.algorithm), *kind, &der, Some(&intermediate));
        }
    }
    if !openssl {
        skipped("no openssl");
    }
    let Some(answers) = pkilint(&judged) else { return };
    for (name, complaints) in answers {
        let tolerated = |one: &Complaint| TOLERATED.iter().any(|(of, code)| name.contains(of) && one.code == *code);
        let errors: Vec<_> = complaints.iter().filter(|one| one.is_error() && !tolerated(one)).collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
    }
}
