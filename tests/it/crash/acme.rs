//! Deaths while an ACME order is finalized: after the next start it is valid with one certificate, or can be finalized again.

use std::io::Write;

use serde_json::{Value, json};
use signet::client::{CertificateQuery, PageRequest};
use signet::wire::{CreateAcmeEndpoint, Policy};

use super::past;
use crate::acme::{csr, ders};
use crate::acme_client::{AccountKey, Client, Web};
use crate::dns::Dns;
use crate::issuers::new_issuer;
use crate::process::{Installation, eventually};
use crate::server::Devices;

/// The points on the way of a finalization. It commits three times: the order that is being processed, the reservation, and the
/// certificate together with the order that is valid.
const POINTS: &[&str] = &[
    "ledger.before_commit:1",
    "ledger.committed:1",
    "ledger.recorded:1",
    "issue.before_reserve",
    "ledger.committed:2",
    "issue.reserved",
    "issue.signed",
    "issue.before_end",
    "ledger.before_commit:3",
    "ledger.committed:3",
    "ledger.recorded:3",
    "issue.recorded",
];

/// An installation with an order that is ready.
struct Scene {
    base: Installation,
    /// Of the account.
    key: AccountKey,
    kid: String,
    order: String,
    dns: Dns,
    web: Web,
}

impl Scene {
    async fn make() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (dns, web) = (Dns::start(), Web::start());
        let mut base = Installation::bare(Devices::SoftHsm);
        configure(&base, &dns, &web);
        let made = base.command(&["init", "--config", base.config().to_str().unwrap()], None);
        let made = made.succeeds().await;
        let service = base.serve().await;
        let first = base.client(Some(made.trim()));
        base.token = crate::server::lasting(&first).await;
        let client = base.client(Some(&base.token));
        eventually("the service is ready", async || client.ready().await.ok()).await;
        client.create_issuer(&new_issuer("fleet", "hsm", "ecdsa-p256-sha256")).await.unwrap();
        let text = r#"permit (principal == Signet::Identity::"hosts", action == Signet::Action::"IssueCertificate", resource);"#;
        let policy = Policy { name: None, text: text.to_owned(), etag: None };
        client.put_policy(&"hosts".parse().unwrap(), None, &policy).await.unwrap();
        let endpoint = CreateAcmeEndpoint {
            name: "web".parse().unwrap(),
            issuer: "fleet".parse().unwrap(),
            profiles: vec!["server".parse().unwrap()],
            identity: Some("hosts".parse().unwrap()),
            groups: vec![],
            challenges: None,
            networks: vec!["127.0.0.1".to_owned()],
            terms: None,
            website: None,
            caa: vec![],
        };
        client.create_acme_endpoint(&endpoint).await.unwrap();
        super::certificates::responders(&client, 1).await;
        // The order, and the proof of its name.
        let mut acme = Client::new(http(&base), &directory(&base)).await;
        acme.register().await;
        dns.host("a.test");
        let (order, shown) = acme.order(&["a.test"]).await;
        let challenge = acme.challenge(&shown["authorizations"][0], "http-01").await;
        let path = format!("/.well-known/acme-challenge/{}", challenge["token"].as_str().unwrap());
        web.page(&path, &acme.key_authorization(&challenge));
        assert_eq!(acme.answer(&challenge).await["status"], "valid");
        service.kill().await;
        let kid = acme.kid.take().unwrap();
        Self { base, key: acme.key, kid, order, dns, web }
    }
}

fn configure(t: &Installation, dns: &Dns, web: &Web) {
    let mut config = std::fs::OpenOptions::new().append(true).open(t.config()).unwrap();
    let text = format!("[acme]\nresolvers = [\"{}\"]\nhttp_port = {}\n", dns.address(), web.port());
    config.write_all(text.as_bytes()).unwrap();
}

fn http(t: &Installation) -> reqwest::Client {
    let authority = reqwest::Certificate::from_pem(&t.authority()).unwrap();
    reqwest::Client::builder().tls_certs_only([authority]).build().unwrap()
}

fn directory(t: &Installation) -> String {
    format!("{}/acme/default/web/directory", t.address())
}

#[tokio::test]
async fn a_finalization_that_is_cut_short_ends_with_one_certificate() {
    let scene = Scene::make().await;
    past::all(POINTS.to_vec(), async |point| cut_short(&scene, point).await).await;
}

async fn cut_short(scene: &Scene, point: &str) {
    let t = scene.base.copy();
    configure(&t, &scene.dns, &scene.web);
    let there = |url: &str| url.replace(&scene.base.address(), &t.address());
    let order = there(&scene.order);
    let finalize = format!("{order}/finalize");
    // 1. The service dies while it finalizes.
    let mut first = t.serve_until(point);
    first.serves().await.unwrap();
    let mut acme = Client::new(http(&t), &directory(&t)).await;
    (acme.key, acme.kid) = (scene.key.copy(), Some(there(&scene.kid)));
    let shown = acme.read(&order).await;
    assert_eq!((shown["status"].as_str(), shown["finalize"].as_str()), (Some("ready"), Some(finalize.as_str())));
    let body = acme.key.sign(&acme.header(&finalize).await, &json!({"csr": csr(&["a.test"]).0}).to_string());
    let request = http(&t).post(&finalize).header("Content-Type", "application/jose+json").body(body.to_string());
    assert!(request.send().await.is_err(), "an answer in spite of a death at {point}");
    first.dies(point).await;
    // 2. It starts again: the order becomes valid by being read, or can be finalized again.
    let last = t.serve().await;
    let mut shown = acme.read(&order).await;
    if shown["status"] == "ready" {
        shown = acme.post(&finalize, &json!({"csr": csr(&["a.test"]).0})).await.json();
    }
    while shown["status"] == "processing" {
        shown = acme.read(&order).await;
    }
    assert_eq!(shown["status"], "valid", "{point}: {shown}");
    // 3. One certificate, which the client gets; what was lost on the way counts as revoked.
    let chain = acme.post(shown["certificate"].as_str().unwrap(), &Value::Null).await;
    let query = CertificateQuery { name: Some("dns:a.test".to_owned()), ..CertificateQuery::default() };
    let all = t.client(Some(&t.token)).certificates(&query, &PageRequest::default()).await.unwrap().items;
    let issued: Vec<_> = all.iter().filter(|one| one.state == "issued").collect();
    assert_eq!(issued.len(), 1, "{point}: {all:?}");
    assert_eq!(ders(&chain.text)[0], ders(issued[0].certificate.as_deref().unwrap())[0]);
    assert!(all.iter().filter(|one| one.state != "issued").all(|one| one.state == "lost" && one.revoked.is_some()));
    last.kill().await;
    t.audit_is_good();
}
