//! Certificates: an issuer, and a request for one that is sent again and again.

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde_json::{Value, json};
use signet::client::Client;
use signet::types::{Algorithm, IssuerName, Residency, Subject};
use signet::wire::{CreateIssuer, IssuerRules};
use signet::x509::Certificate;
use signet::x509::lint::{Kind, Subjectmatter, lint};

/// A root that issues.
pub(crate) struct Issuing {
    pub(crate) name: IssuerName,
    certificate: Certificate,
    /// What is asked for: each time the same key and the same name.
    request: Value,
}

impl Issuing {
    pub(crate) async fn new(client: &Client, name: &str, algorithm: Algorithm, residency: Residency) -> Self {
        let new = CreateIssuer {
            name: name.parse().expect("a name"),
            subject: Subject { common_name: Some(format!("Root {name}")), ..Subject::default() },
            parent: None,
            outside: false,
            algorithm,
            device: None,
            residency: Some(residency),
            rules: IssuerRules::default(),
        };
        let made = client.create_issuer(&new).await.expect("an issuer");
        let pem = made.versions[0].certificate.as_deref().expect("its certificate");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key).and_then(|csr| csr.pem()).expect("a request");
        let request = json!({ "csr": csr, "names": ["dns:web.fleet.example"] });
        Self { name: made.name, certificate: parse(pem), request }
    }

    /// The path and the body that ask for one, or for so many.
    pub(crate) fn ask(&self, items: Option<usize>) -> (String, Value) {
        let name = &self.name;
        match items {
            None => (format!("issuers/{name}/issue"), json!({ "profile": "server", "request": self.request })),
            Some(items) => (
                format!("issuers/{name}/issue-batch"),
                json!({ "profile": "server", "items": vec![&self.request; items] }),
            ),
        }
    }

    /// Judges a certificate that came of it.
    pub(crate) fn judge(&self, answer: &Value) -> Certificate {
        let certificate = parse(answer["certificate"].as_str().expect("a certificate"));
        certificate.verify(self.certificate.public_key()).expect("it is signed by its issuer");
        certificate
    }

    /// Holds a certificate that came of it against all rules.
    pub(crate) fn lint(&self, certificate: &Certificate) {
        let matter = Subjectmatter { kind: Kind::Server, issuer: Some(self.certificate.der()) };
        std::hint::black_box(lint(certificate.der(), &matter));
    }
}

fn parse(pem: &str) -> Certificate {
    Certificate::parse(&der::pem::decode_vec(pem.as_bytes()).expect("PEM").1).expect("a certificate")
}
