//! Chains of every algorithm, and what the constraints in them forbid, before three judges.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use signet::types::{Algorithm, Verifier};
use signet::x509::certificate::{self, Certificate, IssuerView};
use signet::x509::{
    Authority, Distribution, ExtendedUsage, KeyUsage, NameConstraints, San, Serial, Subject, Template, Validity,
};
use tempfile::TempDir;

use crate::judges::judge;
use crate::keys::{ALGORITHMS, Key};

const NOW: &str = "2026-11-21T12:00:00Z";

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A certificate and the key that it is for.
struct Made {
    key: Key,
    view: IssuerView,
    der: Vec<u8>,
}

impl Made {
    fn root(algorithm: Algorithm, authority: Authority) -> Self {
        let key = Key::new(algorithm);
        let template = authority_template(&key, "Root", authority, "2056-01-01T00:00:00Z");
        let view = IssuerView::of_root(&template, algorithm).unwrap();
        let der = sign(&key, &view, &template);
        Self { key, view, der }
    }

    fn below(&self, algorithm: Algorithm, name: &str, authority: Authority) -> Self {
        let key = Key::new(algorithm);
        let der = sign(&self.key, &self.view, &authority_template(&key, name, authority, "2030-01-01T00:00:00Z"));
        let view = Certificate::parse(&der).unwrap().issuer_view(algorithm).unwrap();
        Self { key, view, der }
    }

    fn leaf(&self, key: &Key, names: &[&str]) -> Vec<u8> {
        let sans: Vec<San> = names.iter().map(|name| name.parse().unwrap()).collect();
        let template = Template {
            subject: Subject::default(),
            sans,
            public_key: key.public(),
            validity: Validity { not_before: time("2026-11-21T00:00:00Z"), not_after: time("2026-11-21T23:59:59Z") },
            usages: vec![KeyUsage::DigitalSignature],
            extended: vec![ExtendedUsage::ServerAuth],
            authority: None,
            policies: Vec::new(),
            distribution: Distribution {
                crl: vec!["http://pki.example/1.crl".to_owned()],
                ocsp: vec!["http://ocsp.example/".to_owned()],
                issuer: vec!["http://pki.example/1.cer".to_owned()],
            },
            must_staple: false,
            no_check: false,
        };
        sign(&self.key, &self.view, &template)
    }
}

fn authority_template(key: &Key, name: &str, authority: Authority, end: &str) -> Template {
    Template {
        subject: Subject {
            country: Some("DE".to_owned()),
            organization: Some("Example".to_owned()),
            ..Subject::common(name)
        },
        sans: Vec::new(),
        public_key: key.public(),
        validity: Validity { not_before: time("2026-01-01T00:00:00Z"), not_after: time(end) },
        usages: vec![KeyUsage::CertSign, KeyUsage::CrlSign],
        extended: Vec::new(),
        authority: Some(authority),
        policies: Vec::new(),
        distribution: Distribution::default(),
        must_staple: false,
        no_check: false,
    }
}

/// Signs, and checks as issuing does.
fn sign(key: &Key, issuer: &IssuerView, template: &Template) -> Vec<u8> {
    let serial = Serial::random().unwrap();
    let body = certificate::to_be_signed(template, &serial, issuer).unwrap();
    let input = issuer.algorithm.hash().map_or_else(|| body.clone(), |hash| hash.digest(&body));
    let proof = Verifier::new(issuer.algorithm, &issuer.public_key).unwrap().prove(input, key.sign(&body)).unwrap();
    let der = certificate::assemble(&body, issuer.algorithm, proof.signature()).unwrap();
    certificate::check(&der, template, &serial, issuer, &proof).unwrap();
    Certificate::parse(&der).unwrap().verify(&issuer.public_key).unwrap();
    der
}

fn any(path_length: Option<u8>) -> Authority {
    Authority { path_length, constraints: NameConstraints::default() }
}

/// A question to the judges: root, what stands between, leaf, and the host that was called.
struct Case<'a> {
    root: &'a [u8],
    between: Vec<&'a [u8]>,
    leaf: &'a [u8],
    host: &'a str,
}

impl Case<'_> {
    fn openssl(&self) -> Result<(), String> {
        let folder = TempDir::new().unwrap();
        let file = |name: &str, all: &[&[u8]]| {
            let pem = |der: &&[u8]| Certificate::parse(der).unwrap().to_pem().unwrap();
            fs::write(folder.path().join(name), all.iter().map(pem).collect::<String>()).unwrap();
        };
        file("root.pem", &[self.root]);
        file("between.pem", &self.between);
        file("leaf.pem", &[self.leaf]);
        let at = time(NOW).as_second().to_string();
        let option = if self.host.parse::<std::net::IpAddr>().is_ok() { "-verify_ip" } else { "-verify_hostname" };
        let mut command = Command::new("openssl");
        command.current_dir(folder.path()).args(["verify", "-x509_strict", "-purpose", "sslserver", "-attime", &at]);
        command.args([option, self.host, "-CAfile", "root.pem"]);
        if !self.between.is_empty() {
            command.args(["-untrusted", "between.pem"]);
        }
        let verdict = command.arg("leaf.pem").output().unwrap();
        let said = String::from_utf8_lossy(&verdict.stderr).into_owned();
        if verdict.status.success() { Ok(()) } else { Err(said) }
    }

    fn webpki(&self) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.root.to_vec())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let between: Vec<_> = self.between.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let name = ServerName::try_from(self.host).unwrap();
        let seconds = u64::try_from(time(NOW).as_second()).unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let leaf = CertificateDer::from(self.leaf.to_vec());
        verifier.verify_server_cert(&leaf, &between, &name, &[], now).map(drop).map_err(|e| e.to_string())
    }

    /// `None` where the judge is not at hand; that is said aloud.
    fn cryptography(&self) -> Option<Result<(), String>> {
        let python = judge("python")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/certificates/verify.py");
        let hex: Vec<_> =
            [self.root, self.leaf].into_iter().chain(self.between.iter().copied()).map(hex::encode).collect();
        let mut child = Command::new(python)
            .args([script, self.host, NOW])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(hex.join("\n").as_bytes()).unwrap();
        let verdict = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&verdict.stdout).into_owned();
        match verdict.status.code() {
            Some(0) => Some(Ok(())),
            Some(3) => Some(Err(said)),
            _ => panic!("{}", String::from_utf8_lossy(&verdict.stderr)),
        }
    }

    fn is_good(&self, what: &str) {
        self.openssl().unwrap_or_else(|e| panic!("{what}: openssl: {e}"));
        self.webpki().unwrap_or_else(|e| panic!("{what}: webpki: {e}"));
        if let Some(verdict) = self.cryptography() {
            verdict.unwrap_or_else(|e| panic!("{what}: cryptography: {e}"));
        }
    }

    fn is_bad(&self, what: &str) {
        assert!(self.openssl().is_err(), "{what}: openssl accepts it");
        assert!(self.webpki().is_err(), "{what}: webpki accepts it");
        assert!(self.cryptography().is_none_or(|verdict| verdict.is_err()), "{what}: cryptography accepts it");
    }
}

#[test]
fn chains_of_every_algorithm_are_accepted() {
    let leaf_key = Key::new(Algorithm::EcdsaP256);
    for algorithm in ALGORITHMS {
        let root = Made::root(algorithm, any(None));
        let between = root.below(algorithm, "Intermediate", any(Some(0)));
        let leaf = between.leaf(&leaf_key, &["dns:web.example.com", "ip:10.0.0.1"]);
        for host in ["web.example.com", "10.0.0.1"] {
            Case { root: &root.der, between: vec![&between.der], leaf: &leaf, host }.is_good(algorithm.as_str());
        }
        Case { root: &root.der, between: vec![&between.der], leaf: &leaf, host: "db.example.com" }
            .is_bad("another host");
    }
}

#[test]
fn keys_of_every_kind_are_certified() {
    let root = Made::root(Algorithm::EcdsaP384, any(None));
    for algorithm in ALGORITHMS {
        let leaf = root.leaf(&Key::new(algorithm), &["dns:*.example.com"]);
        let case = Case { root: &root.der, between: vec![], leaf: &leaf, host: "web.example.com" };
        case.openssl().unwrap();
        case.webpki().unwrap();
    }
}

#[test]
fn the_path_length_is_honoured() {
    let leaf_key = Key::new(Algorithm::EcdsaP256);
    for (length, good) in [(Some(1), true), (None, true), (Some(0), false)] {
        let root = Made::root(Algorithm::EcdsaP256, any(None));
        let first = root.below(Algorithm::EcdsaP256, "First", any(length));
        let second = first.below(Algorithm::EcdsaP256, "Second", any(Some(0)));
        let leaf = second.leaf(&leaf_key, &["dns:web.example.com"]);
        let between = vec![second.der.as_slice(), &first.der];
        let case = Case { root: &root.der, between, leaf: &leaf, host: "web.example.com" };
        if good { case.is_good("a path with room") } else { case.is_bad("a path too long") }
    }
}

#[test]
fn name_constraints_are_honoured() {
    let leaf_key = Key::new(Algorithm::EcdsaP256);
    let trees = |all: &[&str]| all.iter().map(|tree| tree.parse().unwrap()).collect();
    let constraints = NameConstraints {
        permitted: trees(&["dns:example.com", "ip:10.0.0.0/8", "ip:2001:db8::/32"]),
        excluded: trees(&["dns:secret.example.com", "ip:10.9.0.0/16"]),
    };
    let root = Made::root(Algorithm::EcdsaP256, any(None));
    let between = root.below(
        Algorithm::EcdsaP256,
        "Constrained",
        Authority { path_length: Some(0), constraints: constraints.clone() },
    );
    for (names, host, good) in [
        (&["dns:web.example.com"][..], "web.example.com", true),
        (&["dns:example.com", "ip:10.1.2.3"], "example.com", true),
        (&["ip:10.1.2.3"], "10.1.2.3", true),
        (&["ip:2001:db8::1"], "2001:db8::1", true),
        (&["dns:web.example.net"], "web.example.net", false),
        (&["dns:web.example.com", "dns:web.example.net"], "web.example.com", false),
        (&["dns:a.secret.example.com"], "a.secret.example.com", false),
        (&["ip:11.1.2.3"], "11.1.2.3", false),
        (&["ip:10.9.2.3"], "10.9.2.3", false),
        (&["ip:2001:db9::1"], "2001:db9::1", false),
    ] {
        let permitted = names.iter().all(|name| constraints.permit(&name.parse().unwrap()));
        assert_eq!(permitted, good, "{names:?}");
        let leaf = between.leaf(&leaf_key, names);
        let case = Case { root: &root.der, between: vec![&between.der], leaf: &leaf, host };
        if good { case.is_good(&format!("{names:?}")) } else { case.is_bad(&format!("{names:?}")) }
    }
}

#[test]
fn validity_is_written_as_the_standard_says() {
    let key = Key::new(Algorithm::EcdsaP256);
    for (end, shown, tag) in [
        ("2049-12-31T23:59:59Z", "20491231235959Z", 0x17_u8),
        ("2050-01-01T00:00:00Z", "20500101000000Z", 0x18),
        ("9999-12-30T21:00:00Z", "99991230210000Z", 0x18),
    ] {
        let template = authority_template(&key, "Root", any(None), end);
        let view = IssuerView::of_root(&template, Algorithm::EcdsaP256).unwrap();
        let body = certificate::to_be_signed(&template, &Serial::random().unwrap(), &view).unwrap();
        let text = if tag == 0x17 { &shown[2..] } else { shown };
        let written = [&[tag, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        assert!(body.windows(written.len()).any(|window| window == written), "{end}");
    }
}
