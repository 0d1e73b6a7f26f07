//! ACME through the front: the ways that lead to a certificate, and those that do not.

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

#[tokio::test]
async fn a_certificate_is_issued_renewed_and_revoked() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let (address, order) = scene.ready(&client, &["a.test", "b.test"]).await;
    let finalize = order["finalize"].as_str().unwrap();
    // 1. Only a request for exactly these names, of another key than the account's, is taken.
    for names in [vec!["a.test"], vec!["a.test", "b.test", "c.test"], vec!["a.test", "c.test"], vec![]] {
        let refused = client.post(finalize, &json!({"csr": csr(&names).0})).await;
        assert_eq!(refused.problem(), "badCSR", "{names:?}");
    }
    assert_eq!(client.post(finalize, &json!({"csr": "AAAA"})).await.problem(), "badCSR");
    assert_eq!(client.read(&address).await["status"], "ready");
    // 2. The certificate, and what is above it.
    let (request, key) = csr(&["b.test", "a.test"]);
    let done = client.post(finalize, &json!({"csr": request})).await.json();
    assert_eq!(done["status"], "valid", "{done}");
    let chain = client.post(done["certificate"].as_str().unwrap(), &Value::Null).await;
    assert_eq!(chain.status, 200);
    let leaf = ders(&chain.text).remove(0);
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    assert_eq!(parsed.public_key().raw, rustls_spki(&key));
    // 3. When to renew it, and that one order may.
    let id = renewal_id(&leaf);
    let info = format!("{}/{id}", client.url("renewalInfo"));
    let ask = async || scene.http().get(&info).send().await.unwrap();
    let answer = ask().await;
    assert!(answer.headers().contains_key("retry-after"));
    let window: Value = answer.json().await.unwrap();
    let times = ["start", "end"]
        .map(|part| window["suggestedWindow"][part].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    let life = [parsed.validity().not_before, parsed.validity().not_after].map(|time| time.timestamp());
    assert!(life[0] < times[0].as_second() && times[0] < times[1] && times[1].as_second() < life[1], "{window}");
    let renew = json!({"identifiers": [{"type": "dns", "value": "a.test"}], "replaces": id});
    let other = scene.client().await;
    assert_eq!(other.post(&other.url("newOrder"), &renew).await.problem(), "malformed");
    let renewal = client.post(&client.url("newOrder"), &renew).await;
    assert_eq!((renewal.status, renewal.json()["replaces"].as_str()), (201, Some(id.as_str())));
    let again = client.post(&client.url("newOrder"), &renew).await;
    assert_eq!((again.status, again.problem().as_str()), (409, "alreadyReplaced"));
    // 4. Revoked by an account that controls the names, not by one that does not.
    let revoke = json!({"certificate": base64url(&leaf), "reason": 4});
    let url = client.url("revokeCert");
    assert_eq!(other.post(&url, &revoke).await.problem(), "unauthorized");
    let bad = json!({"certificate": base64url(&leaf), "reason": 2});
    assert_eq!(client.post(&url, &bad).await.problem(), "badRevocationReason");
    scene.ready(&other, &["a.test", "b.test"]).await;
    assert_eq!(other.post(&url, &revoke).await.status, 200);
    assert_eq!(client.post(&url, &revoke).await.problem(), "alreadyRevoked");
    let window: Value = ask().await.json().await.unwrap();
    let end: jiff::Timestamp = window["suggestedWindow"]["end"].as_str().unwrap().parse().unwrap();
    assert!(
        end <= jiff::Timestamp::from_second(signet::types::Clock::Manual(scene.t.clock.clone()).now().as_second() + 1)
            .unwrap()
    );
    for unknown in ["AAAA.AQ", "x", &format!("AAAA.{}", id.split_once('.').unwrap().1)] {
        let answer = scene.http().get(format!("{}/{unknown}", client.url("renewalInfo"))).send().await.unwrap();
        assert!(matches!(answer.status().as_u16(), 400 | 404), "{unknown}");
    }
}

fn rustls_spki(key: &KeyPair) -> Vec<u8> {
    use rcgen::PublicKeyData;
    key.subject_public_key_info()
}

/// An order that replaces a certificate.
fn replacing(names: &[&str], id: &str) -> Value {
    let identifiers: Vec<_> = names.iter().map(|name| json!({"type": "dns", "value": name})).collect();
    json!({"identifiers": identifiers, "replaces": id})
}

#[tokio::test]
async fn a_certificate_is_renewed_when_its_order_is_forgotten() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let (address, _) = client.order(&["other.test"]).await;
    let id = renewal_id(&scene.certificate(&client, &["a.test"]).await);
    scene.t.clock.advance(SignedDuration::from_hours(24 * 31));
    scene.t.server().service().acme_tidy().await.unwrap();
    assert_eq!(client.post(&address, &Value::Null).await.status, 404, "orders are forgotten by now");
    let url = client.url("newOrder");
    let (authority, serial) = id.split_once('.').unwrap();
    let stranger = format!("{}.{serial}", base64url(&[7; 20]));
    for (name, id) in [("a.test", stranger), ("a.test", format!("{authority}.AQ")), ("b.test", id.clone())] {
        assert_eq!(client.post(&url, &replacing(&[name], &id)).await.problem(), "malformed", "{name} {id}");
    }
    let renewal = client.post(&url, &replacing(&["a.test"], &id)).await;
    assert_eq!((renewal.status, renewal.json()["replaces"].as_str()), (201, Some(id.as_str())), "{renewal:?}");
}

#[tokio::test]
async fn a_certificate_is_replaced_out_of_quota_once() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let one = renewal_id(&scene.certificate(&client, &["a.test", "b.test"]).await);
    let two = renewal_id(&scene.certificate(&client, &["c.test"]).await);
    let url = client.url("newOrder");
    // The account's quota is used up by orders of which nothing comes.
    let rejected = json!({"identifiers": [{"type": "dns", "value": "a.elsewhere"}]});
    loop {
        let answers = futures_util::future::join_all((0..20).map(|_| client.post(&url, &rejected))).await;
        if answers.iter().any(|answer| answer.problem() == "rateLimited") {
            break;
        }
    }
    // A renewal goes first, where it is one: for the same names, and the first of its certificate.
    let other = ["d.test".to_owned(), "a.test".to_owned()];
    let others: Vec<_> = other.iter().map(String::as_str).collect();
    assert_eq!(client.post(&url, &replacing(&others, &one)).await.problem(), "rateLimited");
    assert_eq!(client.post(&url, &replacing(&["a.test"], &one)).await.problem(), "rateLimited");
    for (names, id) in [(vec!["b.test", "a.test"], &one), (vec!["c.test"], &two)] {
        let renewal = client.post(&url, &replacing(&names, id)).await;
        assert_eq!(renewal.status, 201, "{renewal:?}");
        let authorization = renewal.json()["authorizations"][0].as_str().unwrap().to_owned();
        assert_eq!(client.post(&authorization, &json!({"status": "deactivated"})).await.status, 200);
        assert_eq!(client.post(&url, &replacing(&names, id)).await.problem(), "rateLimited");
    }
    // Counted, it may be tried again: what became invalid replaces nothing.
    scene.t.clock.advance(SignedDuration::from_hours(3));
    assert_eq!(client.post(&url, &replacing(&["c.test"], &two)).await.status, 201);
    assert_eq!(client.post(&url, &replacing(&["c.test"], &two)).await.problem(), "alreadyReplaced");
    assert_eq!(client.post(&url, &replacing(&["a.test"], &one)).await.status, 201, "one name of two is enough");
}

#[tokio::test]
async fn nothing_is_issued_on_proofs_that_are_too_old() {
    let scene = Scene::at(Devices::Faulty, SignedDuration::ZERO).await;
    let client = scene.client().await;
    let mut orders = Vec::new();
    for name in ["soon.test", "late.test"] {
        orders.push((name, scene.ready(&client, &[name]).await));
    }
    // The device fails while they are finalized.
    scene.t.hsm.plan("C_Sign pre=0x30\n");
    for (name, (address, order)) in &orders {
        let finalize = order["finalize"].as_str().unwrap();
        let answer = client.post(finalize, &json!({"csr": csr(&[name]).0})).await;
        assert_eq!(answer.json()["status"], "processing", "{answer:?}");
        assert_eq!(client.read(address).await["status"], "processing");
    }
    scene.t.hsm.plan("");
    eventually("the device is sound", async || scene.t.client(None).ready().await.ok()).await;
    // Within its time an order goes on, after it there is nothing to go on with.
    scene.t.clock.advance(SignedDuration::from_hours(7));
    let soon = client.read(&orders[0].1.0).await;
    assert_eq!(soon["status"], "valid", "{soon}");
    scene.t.clock.advance(SignedDuration::from_hours(1));
    for _ in 0..2 {
        let late = client.read(&orders[1].1.0).await;
        assert_eq!((&late["status"], &late["error"]["detail"]), (&json!("invalid"), &json!("the order has expired")));
        assert!(late.get("certificate").is_none(), "{late}");
    }
    for (name, count) in [("soon.test", 1), ("late.test", 0)] {
        assert_eq!(scene.issued(name).await, count, "{name}");
    }
}

#[tokio::test]
async fn of_many_finalizations_at_once_comes_one_certificate() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let (address, order) = scene.ready(&client, &["one.test"]).await;
    let url = order["finalize"].as_str().unwrap();
    let requests: Vec<_> = (0..8).map(|_| json!({"csr": csr(&["one.test"]).0})).collect();
    let answers = futures_util::future::join_all(requests.iter().map(|request| client.post(url, request))).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    let late = answers.iter().filter(|answer| answer.problem() == "orderNotReady").count();
    assert_eq!((won, late), (1, 7), "{answers:?}");
    assert_eq!(client.read(&address).await["status"], "valid");
    let query = signet::client::CertificateQuery { name: Some("dns:one.test".to_owned()), ..Default::default() };
    let found = scene.t.client.certificates(&query, &Default::default()).await.unwrap().items;
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn proofs_are_looked_for_by_a_few_at_a_time() {
    let scene = Scene::set().await;
    let (client, other) = (scene.client().await, scene.client().await);
    // Nobody takes the handshakes of tls-alpn-01: each look lasts until it is given up.
    let waiting = async |order: &Value, number: usize| {
        let challenge = client.challenge(&order["authorizations"][number], "tls-alpn-01").await;
        client.post(challenge["url"].as_str().unwrap(), &json!({})).await
    };
    // 1. What is under way for a name counts as failed until it is found.
    scene.dns.host("a.test");
    for _ in 0..10 {
        let (_, order) = client.order(&["a.test"]).await;
        assert_eq!(waiting(&order, 0).await.status, 200);
    }
    let (_, order) = client.order(&["a.test"]).await;
    let refused = waiting(&order, 0).await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "rateLimited"));
    // 2. An account has so many looks at once.
    let names: Vec<_> = (10..signet::service::acme::LOOKS_OF_ACCOUNT).map(|number| format!("h{number}.test")).collect();
    names.iter().for_each(|name| scene.dns.host(name));
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (_, order) = client.order(&names).await;
    for number in 0..names.len() {
        assert_eq!(waiting(&order, number).await.status, 200);
    }
    scene.dns.host("b.test");
    let (_, order) = client.order(&["b.test"]).await;
    let late = client.challenge(&order["authorizations"][0], "http-01").await;
    scene.show(&client, &late);
    let url = late["url"].as_str().unwrap();
    assert_eq!(client.post(url, &json!({})).await.status, 200);
    // Another account's proof is looked for and found in the meantime.
    scene.ready(&other, &["b.test"]).await;
    assert_eq!(client.read(url).await["status"], "processing");
    // 3. Where a look has come to its end, the next one that is asked about begins.
    drop(scene.tls.accept().unwrap());
    assert_eq!(client.answer(&late).await["status"], "valid");
    // What was found is given back.
    for _ in 0..12 {
        scene.ready(&other, &["b.test"]).await;
    }
}

#[tokio::test]
async fn refusals_are_on_record() {
    let scene = Scene::set().await;
    let (mut client, other) = (scene.client().await, scene.client().await);
    let leaf = scene.certificate(&client, &["a.test"]).await;
    let (kid, revoke) = (client.kid.clone().unwrap(), client.url("revokeCert"));
    // Nobody else's account, certificate, list of orders.
    assert_eq!(other.post(&kid, &Value::Null).await.problem(), "unauthorized");
    assert_eq!(other.post(&format!("{kid}/orders"), &Value::Null).await.problem(), "unauthorized");
    let payload = json!({"certificate": base64url(&leaf)});
    assert_eq!(other.post(&revoke, &payload).await.problem(), "unauthorized");
    let stranger = scene.stranger().await;
    assert_eq!(stranger.post(&revoke, &payload).await.problem(), "unauthorized");
    // The key of an account that has ended makes no other.
    assert_eq!(client.post(&kid, &json!({"status": "deactivated"})).await.status, 200);
    client.kid = None;
    assert_eq!(client.post(&client.url("newAccount"), &json!({})).await.problem(), "unauthorized");
    let records = scene.t.client.audit_records(0, Some(1000)).await.unwrap().records;
    let told = |reason: &str| {
        let texts = records.iter().map(|record| serde_json::to_string(record).unwrap());
        texts.filter(|text| text.contains("forbidden") && text.contains(reason)).count()
    };
    assert_eq!(told("this is another account"), 2);
    assert_eq!(told("neither this account nor this key may revoke the certificate"), 2);
    assert_eq!(told("the account is deactivated"), 1);
}

#[tokio::test]
async fn old_orders_are_forgotten_and_nothing_else_is_opened() {
    let scene = Scene::set().await;
    let client = scene.client().await;
    let (old, _) = client.order(&["a.test"]).await;
    let orders = format!("{}/orders", client.kid.as_ref().unwrap());
    assert_eq!(client.read(&orders).await["orders"], json!([old]));
    // What has expired is not listed any more, and remembered for a month.
    scene.t.clock.advance(SignedDuration::from_hours(8));
    assert_eq!(client.read(&orders).await["orders"], json!([]));
    assert_eq!(client.read(&old).await["status"], "invalid");
    scene.t.clock.advance(SignedDuration::from_hours(24 * 30 + 1));
    let (new, _) = client.order(&["a.test"]).await;
    // A record that does not open, and is no order.
    let database = rusqlite::Connection::open(scene.t.data().join("signet.db")).unwrap();
    let changed = "UPDATE records SET value = x'00' WHERE path LIKE 'acme/%/eab/%'";
    let endpoint = "web".parse().unwrap();
    let body = CreateEabKey { identity: "hosts".parse().unwrap(), groups: vec![], ttl: None, uses: None };
    scene.t.client.create_eab_key(&endpoint, &body).await.unwrap();
    assert_eq!(database.execute(changed, []).unwrap(), 1);
    scene.t.server().service().acme_tidy().await.unwrap();
    assert_eq!(client.post(&old, &Value::Null).await.status, 404);
    assert_eq!(client.read(&new).await["status"], "pending");
}

#[tokio::test]
async fn the_python_client_goes_all_ways() {
    let Some(python) = crate::judges::judge("python") else { return };
    let scene = Scene::set().await;
    scene.endpoint("bound", |_| {}).await;
    let body = CreateEabKey { identity: "hosts".parse().unwrap(), groups: vec![], ttl: None, uses: None };
    let made = scene.t.client.create_eab_key(&"bound".parse().unwrap(), &body).await.unwrap();
    let port = free_port();
    scene.web.forward(port);
    for name in ["py.test", "www.py.test"] {
        scene.dns.host(name);
    }
    let mut flows = tokio::process::Command::new(python);
    flows
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/acme_flows.py"))
        .args([
            scene.directory("bound"),
            port.to_string(),
            made.info.id,
            made.key.unwrap().0.clone(),
            "py.test".to_owned(),
        ])
        .env("REQUESTS_CA_BUNDLE", scene.t.server().own_authority().unwrap());
    let output = flows.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.ends_with("deactivated\n"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// certbot with folders of its own, and what every call of it is given.
pub(crate) struct Certbot {
    program: std::path::PathBuf,
    folder: tempfile::TempDir,
    common: Vec<String>,
    authority: std::path::PathBuf,
}

impl Certbot {
    pub(crate) fn new(scene: &Scene, program: std::path::PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut common = vec!["-n".to_owned(), "--server".to_owned(), scene.directory("web")];
        for (option, name) in [("--config-dir", "config"), ("--work-dir", "work"), ("--logs-dir", "logs")] {
            common.extend([option.to_owned(), path(name)]);
        }
        let authority = scene.t.server().own_authority().unwrap().to_owned();
        Self { program, folder, common, authority }
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> String {
        let mut certbot = tokio::process::Command::new(&self.program);
        certbot.args(arguments).args(&self.common).env("REQUESTS_CA_BUNDLE", &self.authority);
        let output = certbot.output().await.unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let log = || std::fs::read_to_string(self.folder.path().join("logs/letsencrypt.log")).unwrap_or_default();
        assert!(output.status.success(), "certbot {arguments:?}\n{said}\n{}", log());
        said
    }

    pub(crate) fn live(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("config/live/{name}/fullchain.pem"))).unwrap()
    }
}

#[tokio::test]
async fn certbot_gets_renews_and_revokes() {
    let Some(program) = crate::judges::judge("certbot") else { return };
    let scene = Scene::set().await;
    let (texts, port) = (tempfile::tempdir().unwrap(), free_port());
    scene.web.forward(port);
    scene.dns.read_from(texts.path());
    let certbot = Certbot::new(&scene, program);
    // 1. http-01, by its own web server.
    scene.dns.host("bot.test");
    let port = port.to_string();
    let get =
        ["certonly", "--standalone", "--http-01-port", &port, "--agree-tos", "-m", "a@bot.test", "-d", "bot.test"];
    certbot.run(&get).await;
    let first = certbot.live("bot.test");
    assert_eq!(ders(&first).len(), 2);
    // 2. Renewed by its own rules: not yet, and then by force.
    certbot.run(&["renew", "--http-01-port", &port, "--no-random-sleep-on-renew"]).await;
    assert_eq!(certbot.live("bot.test"), first);
    certbot.run(&["renew", "--http-01-port", &port, "--no-random-sleep-on-renew", "--force-renewal"]).await;
    assert_ne!(certbot.live("bot.test"), first);
    // 3. dns-01 for a wildcard, by hooks.
    let hook =
        format!("echo \"$CERTBOT_VALIDATION\" >> {}/_acme-challenge.\"$CERTBOT_DOMAIN\"", texts.path().display());
    let wild = ["certonly", "--manual", "--preferred-challenges", "dns", "--manual-auth-hook", &hook];
    let names = ["-d", "*.bot.test", "-d", "bot.test", "--cert-name", "wild", "--required-profile", "wild"];
    certbot.run(&[wild.as_slice(), &names].concat()).await;
    let wild = ders(&certbot.live("wild")).remove(0);
    let (_, parsed) = x509_parser::parse_x509_certificate(&wild).unwrap();
    let names = parsed.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 2);
    // 4. Revoked.
    certbot.run(&["revoke", "--cert-name", "wild", "--reason", "superseded", "--no-delete-after-revoke"]).await;
    let query = signet::client::CertificateQuery { name: Some("dns:*.bot.test".to_owned()), ..Default::default() };
    let found = scene.t.client.certificates(&query, &Default::default()).await.unwrap().items;
    assert_eq!(found.len(), 1);
    assert!(found[0].revoked.is_some(), "{found:?}");
    // 5. Its account ends.
    certbot.run(&["unregister"]).await;
}
