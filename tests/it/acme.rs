//! ACME through the front: the ways that lead to a certificate, and those that do not.

mod clients;
mod orders;

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::SignedDuration;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use serde_json::{Value, json};
use signet::wire::{CreateAcmeEndpoint, CreateEabKey, Policy, Profile};

use crate::acme_client::{AccountKey, Client, Web, base64url, binding};
use crate::dns::{Answer, Dns};
use crate::process::eventually;
use crate::server::{Devices, TestServer};

pub(crate) use clients::{Certbot, free_port};

/// A server with an issuer `default:fleet` and an endpoint `default:web` that is open to the identity `hosts`, names and a place for proofs.
pub(crate) struct Scene {
    pub(crate) t: TestServer,
    pub(crate) dns: Dns,
    pub(crate) web: Web,
    tls: std::net::TcpListener,
}

/// What `hosts` may have certificates for.
const POLICY: &str = r#"
permit (principal == Signet::Identity::"hosts", action == Signet::Action::"IssueCertificate", resource)
when { context has name && (context.name like "dns:*.test" || context.name == "ip:127.0.0.1") };
"#;

impl Scene {
    pub(crate) async fn set() -> Self {
        Self::at(Devices::SoftHsm, SignedDuration::ZERO).await
    }

    /// A scene that much before the machine's own time.
    pub(crate) async fn set_earlier(by: SignedDuration) -> Self {
        Self::at(Devices::SoftHsm, by).await
    }

    async fn at(devices: Devices, earlier: SignedDuration) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (dns, web) = (Dns::start(), Web::start());
        let tls = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let acme = signet::config::Acme {
            url: None,
            resolvers: vec![dns.address()],
            http_port: Some(web.port()),
            https_port: Some(tls.local_addr().unwrap().port()),
        };
        let t = TestServer::configured(devices, |config| config.acme = acme).await;
        t.clock.advance(-earlier);
        let policy = Policy { name: None, text: POLICY.to_owned(), etag: None };
        t.client.put_policy(&"hosts".parse().unwrap(), None, &policy).await.unwrap();
        crate::issuers::root(&t, "fleet").await;
        let wild = json!({"kind": "server", "names": ["dns:*"], "wildcards": true});
        let wild = Profile { name: None, profile: wild, built_in: false, etag: None };
        t.client.put_profile(&"wild".parse().unwrap(), None, &wild).await.unwrap();
        let scene = Self { t, dns, web, tls };
        scene.endpoint("web", |endpoint| endpoint.identity = Some("hosts".parse().unwrap())).await;
        scene
    }

    async fn endpoint(&self, name: &str, change: impl FnOnce(&mut CreateAcmeEndpoint)) {
        let mut body = CreateAcmeEndpoint {
            name: name.parse().unwrap(),
            issuer: "fleet".parse().unwrap(),
            profiles: vec!["server".parse().unwrap(), "wild".parse().unwrap()],
            identity: None,
            groups: vec![],
            challenges: None,
            networks: vec!["127.0.0.1".to_owned()],
            terms: None,
            website: None,
            caa: vec![],
        };
        change(&mut body);
        self.t.client.create_acme_endpoint(&body).await.unwrap();
    }

    pub(crate) fn http(&self) -> reqwest::Client {
        let authority = std::fs::read(self.t.server().own_authority().unwrap()).unwrap();
        let authority = reqwest::Certificate::from_pem(&authority).unwrap();
        reqwest::Client::builder().tls_certs_only([authority]).build().unwrap()
    }

    pub(crate) fn directory(&self, endpoint: &str) -> String {
        format!("https://{}/acme/default/{endpoint}/directory", self.t.server().address())
    }

    /// A client without an account.
    async fn stranger(&self) -> Client {
        Client::new(self.http(), &self.directory("web")).await
    }

    /// A client with one.
    pub(crate) async fn client(&self) -> Client {
        let mut client = self.stranger().await;
        assert_eq!(client.register().await.status, 201);
        client
    }

    /// An order of `names` whose proofs are all there.
    pub(crate) async fn ready(&self, client: &Client, names: &[&str]) -> (String, Value) {
        let (address, order) = client.order(names).await;
        for (number, name) in names.iter().enumerate() {
            self.dns.host(name);
            self.prove(client, &order, number).await;
        }
        (address, order)
    }

    /// How many certificates there are for a host name.
    async fn issued(&self, name: &str) -> usize {
        let query = signet::client::CertificateQuery { name: Some(format!("dns:{name}")), ..Default::default() };
        let found = self.t.client.certificates(&query, &Default::default()).await.unwrap().items;
        found.iter().filter(|one| one.state == "issued").count()
    }

    /// A certificate for `names`, in DER.
    async fn certificate(&self, client: &Client, names: &[&str]) -> Vec<u8> {
        let (_, order) = self.ready(client, names).await;
        let done = client.post(order["finalize"].as_str().unwrap(), &json!({"csr": csr(names).0})).await.json();
        assert_eq!(done["status"], "valid", "{done}");
        ders(&client.post(done["certificate"].as_str().unwrap(), &Value::Null).await.text).remove(0)
    }

    /// Puts the proof where http-01 looks for it.
    fn show(&self, client: &Client, challenge: &Value) {
        let path = format!("/.well-known/acme-challenge/{}", challenge["token"].as_str().unwrap());
        self.web.page(&path, &client.key_authorization(challenge));
    }

    /// Shows control of `name` for the first authorization of an order, by http-01.
    async fn prove(&self, client: &Client, order: &Value, number: usize) {
        let challenge = client.challenge(&order["authorizations"][number], "http-01").await;
        self.show(client, &challenge);
        let ended = client.answer(&challenge).await;
        assert_eq!(ended["status"], "valid", "{ended}");
    }
}

#[tokio::test]
async fn each_kind_of_proof_is_found() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    scene.dns.host("a.test");
    // http-01, to its end.
    let (address, order) = client.order(&["a.test"]).await;
    assert_eq!(order["status"], "pending");
    scene.prove(&client, &order, 0).await;
    assert_eq!(client.read(&address).await["status"], "ready");
    // dns-01 for a wildcard, which has no other.
    let (address, order) = client.order(&["*.a.test"]).await;
    let authorization = client.read(order["authorizations"][0].as_str().unwrap()).await;
    assert_eq!((&authorization["wildcard"], &authorization["identifier"]["value"]), (&json!(true), &json!("a.test")));
    assert_eq!(authorization["challenges"].as_array().unwrap().len(), 1);
    let challenge = client.challenge(&order["authorizations"][0], "dns-01").await;
    let digest = base64url(&client.digest(&challenge));
    scene.dns.set("_acme-challenge.a.test", vec![Answer::Text("other".to_owned()), Answer::Text(digest)]);
    assert_eq!(client.answer(&challenge).await["status"], "valid");
    assert_eq!(client.read(&address).await["status"], "ready");
    // Among so many texts that they come over TCP.
    let (_, order) = client.order(&["many.test"]).await;
    let challenge = client.challenge(&order["authorizations"][0], "dns-01").await;
    let mut texts: Vec<_> = (0..60).map(|number| Answer::Text(format!("{number:043}"))).collect();
    texts.push(Answer::Text(base64url(&client.digest(&challenge))));
    scene.dns.set("_acme-challenge.many.test", texts);
    assert_eq!((client.answer(&challenge).await["status"].as_str(), scene.dns.streams()), (Some("valid"), 1));
    // An alias leads elsewhere, as many have it.
    let (_, order) = client.order(&["b.test"]).await;
    let challenge = client.challenge(&order["authorizations"][0], "dns-01").await;
    scene.dns.set("_acme-challenge.b.test", vec![Answer::Alias("proofs.test".to_owned())]);
    scene.dns.set("proofs.test", vec![Answer::Text(base64url(&client.digest(&challenge)))]);
    assert_eq!(client.answer(&challenge).await["status"], "valid");
    // tls-alpn-01, for a name and for an address.
    for name in ["a.test", "127.0.0.1"] {
        let (address, order) = client.order(&[name]).await;
        let challenge = client.challenge(&order["authorizations"][0], "tls-alpn-01").await;
        let shown = show_by_tls(&scene.tls, name, &client.digest(&challenge));
        let ended = client.answer(&challenge).await;
        assert_eq!(ended["status"], "valid", "{ended}");
        shown.join().unwrap();
        assert_eq!(client.read(&address).await["status"], "ready");
    }
    // All of it is counted.
    assert_eq!(client.post(&client.url("newOrder"), &json!({})).await.problem(), "malformed");
    let metrics = scene.t.client.metrics().await.unwrap();
    for line in [
        "signet_acme_orders_total 6",
        r#"signet_acme_validations_total{challenge="http-01",outcome="valid"} 1"#,
        r#"signet_acme_validations_total{challenge="dns-01",outcome="valid"} 3"#,
        r#"signet_acme_validations_total{challenge="tls-alpn-01",outcome="valid"} 2"#,
        r#"signet_acme_refusals_total{problem="malformed"} 1"#,
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line} in\n{metrics}");
    }
}

/// Answers one handshake for `acme-tls/1`.
fn show_by_tls(listener: &std::net::TcpListener, name: &str, digest: &[u8]) -> std::thread::JoinHandle<()> {
    let listener = listener.try_clone().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    let mut proof = CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 31], [&[4, 32], digest].concat());
    proof.set_criticality(true);
    params.custom_extensions = vec![proof];
    let certificate = params.self_signed(&key).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    // A resolver, because the usual way refuses a certificate with a critical extension that it does not know.
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let chain = vec![certificate.der().clone()];
    let shown = rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(chain, key));
    let mut config = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut session = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut stream).unwrap();
        }
    })
}

#[tokio::test]
async fn proofs_that_are_not_there_end_the_order() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let internal = TestServer::start().await;
    let internal: SocketAddr = internal.server().address();
    scene.dns.host("a.test");
    scene.dns.set("inside.test", vec![Answer::Address([10, 0, 0, 1].into())]);
    scene.dns.set("meta.test", vec![Answer::Address([169, 254, 169, 254].into())]);
    scene
        .dns
        .set("six.test", vec![Answer::Address("::1".parse().unwrap()), Answer::Address("fd00::1".parse().unwrap())]);
    scene.dns.set("circle.test", vec![Answer::Alias("circle.test".to_owned())]);
    type Show = Box<dyn Fn(&str)>;
    let web = &scene.web;
    let redirect = |to: String| -> Show {
        let web = web.clone();
        Box::new(move |path| web.redirect(path, &to))
    };
    let own = web.clone();
    let wrong: Show = Box::new(move |path| own.page(path, "something else"));
    let own = web.clone();
    let huge: Show = Box::new(move |path| own.page(path, &"x".repeat(70_000)));
    let own = web.clone();
    let circle: Show = Box::new(move |path| own.redirect(path, path));
    let nothing = || -> Show { Box::new(|_| {}) };
    let cases: Vec<(&str, Show, &str)> = vec![
        ("a.test", nothing(), "incorrectResponse"),
        ("a.test", wrong, "incorrectResponse"),
        ("a.test", huge, "incorrectResponse"),
        ("a.test", circle, "connection"),
        ("a.test", redirect(format!("http://{internal}/")), "connection"),
        ("a.test", redirect("http://inside.test/".to_owned()), "connection"),
        ("a.test", redirect("http://meta.test/latest/meta-data/".to_owned()), "connection"),
        ("a.test", redirect("http://a.test:22/".to_owned()), "connection"),
        ("a.test", redirect("file:///etc/passwd".to_owned()), "connection"),
        ("inside.test", nothing(), "connection"),
        ("meta.test", nothing(), "connection"),
        ("six.test", nothing(), "connection"),
        ("circle.test", nothing(), "dns"),
        ("unknown.test", nothing(), "dns"),
    ];
    for (number, (name, show, problem)) in cases.iter().enumerate() {
        // Each by an account of its own: failures are counted.
        let client = scene.client().await;
        let (address, order) = client.order(&[name]).await;
        let challenge = client.challenge(&order["authorizations"][0], "http-01").await;
        show(&format!("/.well-known/acme-challenge/{}", challenge["token"].as_str().unwrap()));
        let ended = client.answer(&challenge).await;
        assert_eq!(ended["error"]["type"], format!("urn:ietf:params:acme:error:{problem}"), "{number} {name}: {ended}");
        let order = client.read(&address).await;
        assert_eq!((&order["status"], &order["error"]["type"]), (&json!("invalid"), &ended["error"]["type"]));
        let late = client.post(order["finalize"].as_str().unwrap(), &json!({"csr": "AA"})).await;
        assert_eq!(late.problem(), "orderNotReady");
    }
    // Ten failures for one name, and it is enough for an hour.
    for _ in 0..10 {
        let (_, order) = client.order(&["inside.test"]).await;
        let challenge = client.challenge(&order["authorizations"][0], "http-01").await;
        assert_eq!(client.answer(&challenge).await["status"], "invalid");
    }
    let (_, order) = client.order(&["inside.test"]).await;
    let challenge = client.challenge(&order["authorizations"][0], "http-01").await;
    let refused = client.post(challenge["url"].as_str().unwrap(), &json!({})).await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "rateLimited"));
    scene.t.clock.advance(SignedDuration::from_mins(10));
    assert_eq!(client.answer(&challenge).await["status"], "invalid");
}

#[tokio::test]
async fn caa_records_are_obeyed_where_the_endpoint_has_a_name_in_them() {
    let scene = Scene::set().await;
    scene
        .endpoint("strict", |endpoint| {
            endpoint.identity = Some("hosts".parse().unwrap());
            endpoint.caa = vec!["ca.example".to_owned()];
        })
        .await;
    let mut client = Client::new(scene.http(), &scene.directory("strict")).await;
    client.register().await;
    let account = client.kid.clone().unwrap();
    let address = || Answer::Address([127, 0, 0, 1].into());
    let caa = |tag: &str, value: &str| Answer::Caa(false, tag.to_owned(), value.to_owned());
    let critical = Answer::Caa(true, "tbs".to_owned(), "x".to_owned());
    let cases = [
        (vec![address()], true),
        (vec![address(), caa("issue", "ca.example")], true),
        (vec![address(), caa("issue", &format!("ca.example; accounturi={account}; validationmethods=http-01"))], true),
        (vec![address(), caa("issue", "other.example")], false),
        (vec![address(), caa("issue", "ca.example; validationmethods=dns-01")], false),
        (vec![address(), caa("issue", ";")], false),
        (vec![address(), critical], false),
    ];
    for (number, (answers, good)) in cases.into_iter().enumerate() {
        let name = format!("h{number}.test");
        scene.dns.set(&name, answers);
        let (_, order) = client.order(&[&name]).await;
        let challenge = client.challenge(&order["authorizations"][0], "http-01").await;
        scene.show(&client, &challenge);
        let ended = client.answer(&challenge).await;
        assert_eq!(ended["status"], if good { "valid" } else { "invalid" }, "{number}: {ended}");
        assert_eq!(ended["error"]["type"] == "urn:ietf:params:acme:error:caa", !good, "{number}: {ended}");
    }
}

#[tokio::test]
async fn requests_that_do_not_hold_are_refused() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let other = scene.client().await;
    let (address, order) = client.order(&["a.test"]).await;
    let new_order = client.url("newOrder");
    let payload = json!({"identifiers": [{"type": "dns", "value": "a.test"}]}).to_string();
    // A nonce is good once, also where its request is refused, and only from here.
    let header = client.header(&new_order).await;
    let body = client.key.sign(&header, &payload);
    assert_eq!(client.send(&new_order, &body).await.status, 201);
    let again = client.send(&new_order, &body).await;
    assert_eq!((again.status, again.problem().as_str()), (400, "badNonce"));
    assert!(again.nonce.is_some(), "the next nonce comes with the refusal");
    for nonce in [json!("AAAA"), json!(""), Value::Null] {
        let mut header = client.header(&new_order).await;
        header["nonce"] = nonce;
        if header["nonce"].is_null() {
            header.as_object_mut().unwrap().remove("nonce");
        }
        assert_eq!(client.send(&new_order, &client.key.sign(&header, &payload)).await.problem(), "badNonce");
    }
    // Another address, another key, both, neither.
    let changed = async |change: &dyn Fn(&mut Value)| {
        let mut header = client.header(&new_order).await;
        change(&mut header);
        client.send(&new_order, &client.key.sign(&header, &payload)).await
    };
    let kid = client.kid.clone().unwrap();
    type Change<'c> = Box<dyn Fn(&mut Value) + 'c>;
    let cases: Vec<(Change<'_>, &str)> = vec![
        (Box::new(|header| header["url"] = json!(format!("{}/", header["url"].as_str().unwrap()))), "unauthorized"),
        (Box::new(|header| header["url"] = json!("https://other.test/new-order")), "unauthorized"),
        (Box::new(|header| header["alg"] = json!("HS256")), "badSignatureAlgorithm"),
        (Box::new(|header| header["alg"] = json!("none")), "badSignatureAlgorithm"),
        (Box::new(|header| header["alg"] = json!("RS256")), "badSignatureAlgorithm"),
        (Box::new(|header| header["kid"] = json!(other.kid)), "unauthorized"),
        (Box::new(|header| header["kid"] = json!(format!("{kid}0"))), "accountDoesNotExist"),
        (Box::new(|header| header["kid"] = json!("../account/1")), "accountDoesNotExist"),
        (Box::new(|header| header["jwk"] = client.key.jwk()), "malformed"),
        (Box::new(|header| drop(header.as_object_mut().unwrap().remove("kid"))), "malformed"),
        (Box::new(|header| header["crit"] = json!(["exp"])), "malformed"),
        (
            Box::new(|header| {
                header.as_object_mut().unwrap().remove("kid");
                header["jwk"] = client.key.jwk();
            }),
            "malformed",
        ),
    ];
    for (number, (change, problem)) in cases.iter().enumerate() {
        let answer = changed(change).await;
        assert_eq!(answer.problem(), *problem, "{number}: {answer:?}");
        assert!(answer.nonce.is_some() && answer.status >= 400);
    }
    // Another account's things are not there.
    for url in [address.as_str(), order["authorizations"][0].as_str().unwrap(), order["finalize"].as_str().unwrap()] {
        let payload = if url.ends_with("finalize") { json!({"csr": "AA"}) } else { Value::Null };
        assert_eq!(other.post(url, &payload).await.status, 404, "{url}");
    }
    assert_eq!(other.post(&kid, &Value::Null).await.problem(), "unauthorized");
    // Bodies.
    assert_eq!(client.send_as(&new_order, "application/json", "{}".to_owned()).await.status, 415);
    assert_eq!(client.send_as(&new_order, "application/jose+json", " ".repeat(200_000)).await.status, 413);
    for bad in ["", "{}", "[]", "x", r#"{"protected":"","payload":"","signature":""}"#] {
        let answer = client.send_as(&new_order, "application/jose+json", bad.to_owned()).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "malformed"), "{bad}");
    }
    for (identifiers, problem) in [
        (json!([]), "malformed"),
        (json!([{"type": "dns", "value": "a.test"}, {"type": "dns", "value": "a.test"}]), "malformed"),
        (json!([{"type": "dns", "value": "a b"}]), "malformed"),
        (json!([{"type": "dns", "value": "a.elsewhere"}]), "rejectedIdentifier"),
        (json!([{"type": "dns", "value": "localhost"}]), "rejectedIdentifier"),
        (json!([{"type": "dns", "value": "*.a.test"}]), "rejectedIdentifier"),
        (json!([{"type": "email", "value": "a@b.test"}]), "unsupportedIdentifier"),
        (json!(vec![json!({"type": "dns", "value": "a.test"}); 2000]), "malformed"),
    ] {
        assert_eq!(client.post(&new_order, &json!({"identifiers": identifiers})).await.problem(), problem);
    }
    let rejected =
        json!({"identifiers": [{"type": "dns", "value": "a.test"}, {"type": "dns", "value": "a.elsewhere"}]});
    let rejected = client.post(&new_order, &rejected).await.json();
    assert_eq!(rejected["subproblems"][0]["identifier"]["value"], "a.elsewhere");
    assert_eq!(rejected["subproblems"].as_array().unwrap().len(), 1);
    let body = json!({"identifiers": [{"type": "dns", "value": "a.test"}], "profile": "none"});
    assert_eq!(client.post(&new_order, &body).await.problem(), "invalidProfile");
}

#[tokio::test]
async fn accounts_live_change_and_end() {
    let scene = Scene::set().await;
    let mut client = scene.stranger().await;
    let new_account = client.url("newAccount");
    let none = client.post(&new_account, &json!({"onlyReturnExisting": true})).await;
    assert_eq!(none.problem(), "accountDoesNotExist");
    for (contact, problem) in [("tel:1", "unsupportedContact"), ("mailto:x", "invalidContact")] {
        assert_eq!(client.post(&new_account, &json!({"contact": [contact]})).await.problem(), problem);
    }
    let made = client.register().await;
    assert_eq!((made.status, made.json()["status"].as_str()), (201, Some("valid")));
    let kid = client.kid.take();
    let found = client.post(&new_account, &json!({"onlyReturnExisting": true})).await;
    assert_eq!((found.status, &found.location), (200, &kid));
    client.kid = kid;
    let url = client.kid.clone().unwrap();
    let changed = client.post(&url, &json!({"contact": ["mailto:a@b.test"]})).await.json();
    assert_eq!(changed["contact"], json!(["mailto:a@b.test"]));
    let (order, _) = client.order(&["a.test"]).await;
    assert_eq!(client.read(&format!("{url}/orders")).await["orders"], json!([order]));
    // Another key: the new one signs that it wants to be it.
    let (next, key_change) = (AccountKey::new(), client.url("keyChange"));
    let inner = |key: &AccountKey, account: &str, old: &AccountKey| {
        let header = json!({"alg": "ES256", "jwk": key.jwk(), "url": key_change});
        key.sign(&header, &json!({"account": account, "oldKey": old.jwk()}).to_string())
    };
    let other = scene.client().await;
    let foreign = client.post(&key_change, &inner(&next, other.kid.as_ref().unwrap(), &client.key)).await;
    assert_eq!(foreign.problem(), "malformed");
    let wrong = client.post(&key_change, &inner(&next, &url, &next)).await;
    assert_eq!(wrong.problem(), "malformed");
    let taken = client.post(&key_change, &inner(&other.key, &url, &client.key)).await;
    assert_eq!((taken.status, &taken.location), (409, &other.kid));
    let done = client.post(&key_change, &inner(&next, &url, &client.key)).await;
    assert_eq!(done.status, 200, "{done:?}");
    let old = std::mem::replace(&mut client.key, next);
    client.read(&order).await;
    let refused = client.send(&order, &old.sign(&client.header(&order).await, "")).await;
    assert_eq!(refused.problem(), "unauthorized");
    // Its end.
    let ended = client.post(&url, &json!({"status": "deactivated"})).await.json();
    assert_eq!(ended["status"], "deactivated");
    let refused = client.post(&order, &Value::Null).await;
    assert_eq!((refused.status, refused.problem().as_str()), (401, "unauthorized"));
    client.kid = None;
    let refused = client.post(&new_account, &json!({})).await;
    assert_eq!((refused.status, refused.problem().as_str()), (401, "unauthorized"));
}

#[tokio::test]
async fn bindings_tie_accounts_to_identities() {
    let scene = Scene::set().await;
    scene.endpoint("bound", |endpoint| endpoint.terms = Some("https://ca.example/terms".to_owned())).await;
    let endpoint = "bound".parse().unwrap();
    let body = CreateEabKey { identity: "hosts".parse().unwrap(), groups: vec![], ttl: None, uses: Some(1) };
    let made = scene.t.client.create_eab_key(&endpoint, &body).await.unwrap();
    let (kid, secret) = (made.info.id.clone(), made.key.unwrap());
    let secret = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, &secret.0).unwrap();
    let mut client = Client::new(scene.http(), &scene.directory("bound")).await;
    assert_eq!(client.directory["meta"]["externalAccountRequired"], json!(true));
    let url = client.url("newAccount");
    let terms = client.post(&url, &json!({})).await;
    assert_eq!(terms.problem(), "userActionRequired");
    assert!(terms.links.iter().any(|link| link.contains("terms-of-service")), "{terms:?}");
    assert_eq!(client.register().await.problem(), "externalAccountRequired");
    let bound = |binding: Value| json!({"termsOfServiceAgreed": true, "externalAccountBinding": binding});
    let other = AccountKey::new();
    for (binding, problem) in [
        (binding(&kid, &[7; 32], &url, &client.key.jwk()), "unauthorized"),
        (binding(&"0".repeat(32), &secret, &url, &client.key.jwk()), "unauthorized"),
        (binding(&kid, &secret, "https://other.test/", &client.key.jwk()), "malformed"),
        (binding(&kid, &secret, &url, &other.jwk()), "malformed"),
        (json!({}), "malformed"),
    ] {
        assert_eq!(client.post(&url, &bound(binding)).await.problem(), problem);
    }
    let answer = client.post(&url, &bound(binding(&kid, &secret, &url, &client.key.jwk()))).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    client.kid = answer.location;
    let (order, _) = client.order(&["a.test"]).await;
    // It was good for one account.
    let second = Client::new(scene.http(), &scene.directory("bound")).await;
    let answer = second.post(&url, &bound(binding(&kid, &secret, &url, &second.key.jwk()))).await;
    assert_eq!(answer.problem(), "unauthorized");
    // Who revokes the key refuses its accounts.
    scene.t.client.revoke_eab_key(&endpoint, &kid).await.unwrap();
    assert_eq!(client.post(&order, &Value::Null).await.problem(), "unauthorized");
    let listed = scene.t.client.eab_keys(&endpoint, &Default::default()).await.unwrap().items;
    assert_eq!((listed.len(), listed[0].uses_left, listed[0].revoked.is_some()), (1, Some(0), true));
}

#[tokio::test]
async fn orders_survive_a_restart_and_nonces_do_not() {
    let mut scene = Scene::set().await;
    let client = scene.client().await;
    let (address, _) = client.order(&["a.test"]).await;
    let old = client.header(&address).await;
    let before = scene.t.server().address();
    scene.t.restart().await;
    let after = scene.t.server().address();
    let there = |url: &str| url.replace(&before.to_string(), &after.to_string());
    let mut again = Client::new(scene.http(), &scene.directory("web")).await;
    let mut header = old;
    header["url"] = json!(there(&address));
    header["kid"] = json!(there(client.kid.as_ref().unwrap()));
    let stale = again.send(&there(&address), &client.key.sign(&header, "")).await;
    assert_eq!(stale.problem(), "badNonce");
    again.kid = Some(there(client.kid.as_ref().unwrap()));
    again.key = client.key;
    assert_eq!(again.read(&there(&address)).await["status"], "pending");
}

/// A request for `names`, in base64url, and its key.
pub(crate) fn csr(names: &[&str]) -> (String, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    (base64url(params.serialize_request(&key).unwrap().der()), key)
}

/// The certificates of a chain in PEM, in DER.
pub(crate) fn ders(chain: &str) -> Vec<Vec<u8>> {
    x509_parser::pem::Pem::iter_from_buffer(chain.as_bytes()).map(|pem| pem.unwrap().contents).collect()
}

/// How renewal information names a certificate.
pub(crate) fn renewal_id(der: &[u8]) -> String {
    use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    let authority = certificate.extensions().iter().find_map(|extension| {
        let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() else { return None };
        id.key_identifier.as_ref().map(|id| id.0.to_vec())
    });
    format!("{}.{}", base64url(&authority.unwrap()), base64url(certificate.raw_serial()))
}
