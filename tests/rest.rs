//! The native API without a listener and without a device: who gets past the front, and what the routes say that need no key.

#![expect(clippy::unwrap_used, reason = "a test may stop")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use signet::admission::Admission;
use signet::api::Peer;
use signet::api::Running;
use signet::api::rest::{BodyLimits, TYPES, open_routes, router, table};
use signet::audit::{Log, Origin, Settings as LogSettings};
use signet::auth::certificate::Claims;
use signet::auth::registry::Registry;
use signet::ca::{Authority, Parts as AuthorityParts};
use signet::device::{Identity, KeyRef, Locator, PinSource, Pkcs11Settings, Settings, TokenSelector, Worker};
use signet::keyring::Keyring;
use signet::ledger::{Anchors, Ledger};
use signet::policy::{ADMINISTRATORS, ADMINISTRATORS_TEXT};
use signet::service::acme::Desk;
use signet::service::{HeadKey, Heads, Idempotency, NewToken, Parts, Service, policies};
use signet::signing::Signing;
use signet::store::{Change, Expected, Sealed, Sqlite, StorageKey, Store};
use signet::telemetry::Metrics;
use signet::types::{Algorithm, Caller, Clock, Credential, Curve, KeyId, Principal, PublicKey, Version};
use signet::validation::{Ports, Resolver, Validator};

struct Api {
    router: Router,
    service: Arc<Service>,
    admin: String,
    running: Running,
    _folder: TempDir,
}

/// A service whose only device does not answer.
async fn service(folder: &Path) -> Arc<Service> {
    let (clock, metrics) = (Clock::default(), Metrics::new());
    let log = LogSettings::new(folder.join("audit"), Origin::of_instance("test").unwrap());
    let log = Arc::new(Log::create(log).unwrap());
    let driver = Sqlite::create(&folder.join("signet.db")).unwrap();
    let store: Arc<dyn Store> = Arc::new(Sealed::new(driver, StorageKey::generate().unwrap()));
    let path = format!("policies/{ADMINISTRATORS}");
    store.commit(&[Change { path, expected: Expected::Absent, value: Some(ADMINISTRATORS_TEXT.into()) }]).unwrap();
    let (ledger, _) = Ledger::open(store.clone(), log.clone(), clock.clone(), Anchors::none()).await.unwrap();
    let ledger = Arc::new(ledger);
    let stored = policies::read_all(&*store).unwrap().into_iter().map(|(name, text, _)| (name, text)).collect();
    let admission = Arc::new(Admission::new(stored, log.clone(), clock, metrics.clone()).unwrap());
    let settings = Settings::Pkcs11(Pkcs11Settings {
        module: "/nowhere.so".into(),
        token: TokenSelector::Label("none".into()),
        pin: PinSource::Environment("NONE".into()),
        threads: 1,
        loaded_keys: 1,
        sync_dir: None,
        environment: Vec::new(),
        network: false,
        anchor_writes_per_day: None,
    });
    let id = KeyId::from_bytes([0; 16]);
    let key = KeyRef { id, version: Version::FIRST, algorithm: Algorithm::EcdsaP256, locator: Locator::Resident };
    let own = rcgen::KeyPair::generate().unwrap();
    let public = PublicKey::ec(Curve::P256, own.public_key_raw()).unwrap();
    let pinned = Identity {
        serial: "1".into(),
        sentinel: key.clone(),
        sentinel_public: public.clone(),
        keks: Vec::new(),
        attestation_key: None,
    };
    let worker = Arc::new(Worker::start("hsm", settings, Some(pinned), "/nowhere/signet".into(), metrics.clone()));
    let devices = BTreeMap::from([("hsm".parse().unwrap(), worker.clone())]);
    let keyring = Keyring::load(ledger.clone(), admission.clone(), devices, vec![], metrics.clone()).unwrap();
    let keyring = Arc::new(keyring);
    let authority = Authority::load(AuthorityParts {
        ledger: ledger.clone(),
        admission: admission.clone(),
        keyring: keyring.clone(),
        signing: Arc::new(Signing::new(keyring.clone())),
        metrics: metrics.clone(),
        url: None,
        notices: None,
    });
    Arc::new(Service::new(Parts {
        keyring,
        authority: Arc::new(authority.unwrap()),
        admission,
        ledger,
        log: log.clone(),
        heads: Arc::new(Heads::new(log, HeadKey::new(worker, key, public).unwrap(), None)),
        retention: None,
        registry: Arc::new(Registry::load(&*store).unwrap()),
        own: None,
        acme: Desk::new(Validator::new(Resolver::new(Vec::new()), Ports::default())).unwrap(),
        metrics,
        instance: "test".into(),
        default_device: "hsm".parse().unwrap(),
        scratch: folder.to_owned(),
        recovered: Vec::new(),
        problems: Vec::new(),
    }))
}

fn peer(certificate: Option<Claims>) -> Peer {
    Peer { address: IpAddr::V4(Ipv4Addr::LOCALHOST), certificate: certificate.map(Arc::new) }
}

/// Method, address, credential, further headers, body.
struct Ask<'a> {
    method: &'a str,
    path: &'a str,
    token: Option<&'a str>,
    headers: &'a [(&'a str, &'a str)],
    body: Value,
}

/// A lasting token of the first administrator: the one that `init` prints serves one request.
async fn administrator(service: &Service) -> String {
    let new = NewToken {
        identity: "first-administrator".parse().unwrap(),
        groups: vec!["administrators".parse().unwrap()],
        ttl: None,
        uses: None,
    };
    let made = service.create_token(&Caller::system("init", "init"), new, &Idempotency::default()).await;
    made.unwrap().into_inner().text.unwrap().to_string()
}

impl Api {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let service = service(folder.path()).await;
        let admin = administrator(&service).await;
        let (router, running) = router(service.clone(), BodyLimits::default());
        Self { router, service, admin, running, _folder: folder }
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// As the administrator.
    async fn ask(&self, method: &str, path: &str, body: Value) -> (Response<()>, Value) {
        self.ask_with(method, path, &[], body).await
    }

    async fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> (Response<()>, Value) {
        let ask = Ask { method, path, token: Some(&self.admin), headers, body };
        read(self.send(request(&ask)).await).await
    }
}

fn request(ask: &Ask<'_>) -> Request<Body> {
    let mut request = Request::builder().method(ask.method).uri(ask.path).extension(peer(None));
    if let Some(token) = ask.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in ask.headers {
        request = request.header(*name, *value);
    }
    if ask.body.is_null() {
        return request.body(Body::empty()).unwrap();
    }
    request.header("content-type", "application/json").body(Body::from(ask.body.to_string())).unwrap()
}

async fn read(response: Response<Body>) -> (Response<()>, Value) {
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, ()), serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn header<'r>(response: &'r Response<()>, name: &str) -> &'r str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// A path that fits a template.
fn fill(template: &str) -> String {
    let id = "0123456789abcdef0123";
    let serial = "7".repeat(40);
    let names = [
        ("{key}", "k"),
        ("{name}", "n"),
        ("{endpoint}", "e"),
        ("{issuer}", "i"),
        ("{profile}", "p"),
        ("{serial}", serial.as_str()),
        ("{index}", "0"),
        ("{size}", "1"),
        ("{level}", "0"),
        ("{*tile}", "000.p/1"),
    ];
    let filled = names.iter().fold(template.to_owned(), |path, (name, value)| path.replace(name, value));
    filled.replace("{version}", "1").replace("{id}", id)
}

#[tokio::test]
async fn a_stranger_learns_nothing_and_no_body_of_theirs_is_read() {
    let api = Api::start().await;
    let unknown = signet::auth::token::Token::generate().unwrap().expose().to_string();
    let own = certificate("nobody.example");
    let credentials: [(&str, Option<String>, Option<Claims>); 6] = [
        ("none", None, None),
        ("no token", Some("Bearer".into()), None),
        ("a malformed token", Some("Bearer sgt_secret".into()), None),
        ("an unknown token", Some(format!("Bearer {unknown}")), None),
        ("another scheme", Some("Basic c2VjcmV0".into()), None),
        ("a certificate of nobody", None, Some(own)),
    ];
    let closed = table().iter().filter(|row| !row.open()).map(|row| (row.method.as_str(), fill(row.path)));
    let missing = ["/api", "/api/v1", "/api/v1/nothing", "/api/v2/keys", "/api/v1/keys/k/", "/api/v1/keys/a%2fb"];
    let missing = missing.iter().map(|path| ("GET", (*path).to_owned()));
    let wrong = [("PUT", "/api/v1/keys".to_owned()), ("DELETE", "/api/v1/status".to_owned())];
    for (method, path) in closed.chain(missing).chain(wrong) {
        for (what, authorization, certificate) in &credentials {
            let read = Arc::new(AtomicBool::new(false));
            let noticed = read.clone();
            let body = futures_util::stream::once(async move {
                noticed.store(true, Ordering::SeqCst);
                Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"{}"))
            });
            let mut request = Request::builder().method(method).uri(&path).extension(peer(certificate.clone()));
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            let response = api.send(request.body(Body::from_stream(body)).unwrap()).await;
            let (head, problem) = self::read(response).await;
            assert_eq!(head.status(), StatusCode::UNAUTHORIZED, "{method} {path} with {what}");
            assert_eq!(header(&head, "www-authenticate"), "Bearer");
            assert_eq!(header(&head, "cache-control"), "no-store");
            assert_eq!(header(&head, "content-type"), "application/problem+json");
            assert_eq!(problem["code"], "unauthenticated");
            assert_eq!(problem["request_id"], header(&head, "request-id"));
            assert!(!problem.to_string().contains("secret"), "{problem}");
            assert!(!read.load(Ordering::SeqCst), "{method} {path}: the body was read");
        }
    }
}

#[tokio::test]
async fn open_routes_answer_anybody_and_the_rest_of_the_world_is_not_there() {
    let api = Api::start().await;
    for (method, path) in open_routes() {
        let bare = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let (head, body) = read(api.send(bare).await).await;
        match path {
            "/health/live" => assert_eq!((head.status().as_u16(), &body["status"]), (200, &json!("live"))),
            // The device of this service does not answer; a stranger learns that something is wrong, not what.
            "/health/ready" => {
                assert_eq!((head.status().as_u16(), header(&head, "retry-after")), (503, "1"));
                assert!(!body.to_string().contains("hsm"), "{body}");
            }
            _ => assert_eq!((body, header(&head, "cache-control")), (json!({"keys": []}), "public, max-age=300")),
        }
    }
    for (method, path, status) in [("GET", "/", 404), ("GET", "/apis", 404), ("POST", "/health/live", 405)] {
        let bare = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let (head, _) = read(api.send(bare).await).await;
        assert_eq!(head.status().as_u16(), status, "{method} {path}");
    }
}

#[tokio::test]
async fn a_request_whose_peer_is_unknown_is_refused() {
    let api = Api::start().await;
    let bare = Request::builder().uri("/api/v1/whoami").header("authorization", format!("Bearer {}", api.admin));
    let (head, problem) = read(api.send(bare.body(Body::empty()).unwrap()).await).await;
    assert_eq!((head.status().as_u16(), &problem["title"]), (500, &json!("internal error")));
}

#[tokio::test]
async fn who_is_known_without_a_policy_gets_nothing() {
    let api = Api::start().await;
    let (_, made) = api.ask("POST", "/api/v1/tokens", json!({"identity": "ci"})).await;
    let token = made["token"].as_str().unwrap();
    // Who they are, and what the API is, everybody may ask who is known at all.
    let known = ["/api/v1/whoami", "/api/v1/openapi.json"];
    for row in table().iter().filter(|row| !row.open() && !known.contains(&row.path)) {
        let path = fill(row.path);
        let body = if row.body_limit == 0 { Value::Null } else { minimal(row.path) };
        let headers = [("if-match", "\"1\"")];
        let ask = Ask { method: row.method.as_str(), path: &path, token: Some(token), headers: &headers, body };
        let (head, problem) = read(api.send(request(&ask)).await).await;
        // What they may not see is not there.
        let expected = if path.starts_with("/api/v1/keys/") || problem["code"] == "not_found" { 404 } else { 403 };
        assert_eq!(head.status().as_u16(), expected, "{} {path}: {problem}", row.method);
        assert_eq!(problem["type"], format!("{TYPES}{}", problem["code"].as_str().unwrap()));
    }
}

/// A request for a certificate of a new key.
fn csr() -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    json!({"csr": csr, "names": ["dns:a.example"]})
}

fn strange_certificate() -> String {
    rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap().cert.pem()
}

/// A body that a route takes.
fn minimal(template: &str) -> Value {
    let key = template.strip_prefix("/api/v1/keys/{key}/").unwrap_or_default();
    let item = match key.trim_end_matches("-batch") {
        "wrap" => json!({"plaintext": "AQ=="}),
        "unwrap" | "rewrap" => json!({"ciphertext": "AQ=="}),
        "sign" | "mac" => json!({"message": "AQ=="}),
        "verify" => json!({"message": "AQ==", "signature": "AQ=="}),
        "mac-verify" => json!({"message": "AQ==", "mac": "AQ=="}),
        _ => json!({}),
    };
    if key.ends_with("-batch") {
        return json!({ "items": [item] });
    }
    match template {
        "/api/v1/keys" => json!({"name": "k", "algorithm": "ed25519"}),
        "/api/v1/keys-batch" => json!({"items": [{"name": "k", "algorithm": "hmac-sha256"}]}),
        "/api/v1/tokens" => json!({"identity": "ci"}),
        "/api/v1/identities/{name}" => json!({"certificates": [{"dns": "a.example"}]}),
        "/api/v1/policies/{name}" => json!({"text": ADMINISTRATORS_TEXT}),
        "/api/v1/issuers" => json!({"name": "ca", "subject": {"common_name": "CA"}, "algorithm": "ed25519"}),
        "/api/v1/issuers/{issuer}/activate" => json!({"version": 2}),
        "/api/v1/issuers/{issuer}/announcements" => json!({"at": "2100-01-01T00:00:00Z"}),
        "/api/v1/issuers/{issuer}/import" => json!({"chain": strange_certificate()}),
        "/api/v1/issuers/{issuer}/cross-sign" => json!({"signer": "other"}),
        "/api/v1/issuers/{issuer}/issue" => json!({"profile": "server", "request": csr()}),
        "/api/v1/issuers/{issuer}/issue-batch" => json!({"profile": "server", "items": [csr()]}),
        "/api/v1/profiles/{profile}" => json!({"profile": {"kind": "client"}}),
        "/api/v1/policies/explain" => json!({"identity": "ci", "action": "Sign"}),
        "/api/v1/acme/endpoints" => json!({"name": "e", "issuer": "i", "profiles": ["p"]}),
        "/api/v1/acme/endpoints/{endpoint}/eab-keys" => json!({"identity": "ci"}),
        _ => item,
    }
}

#[tokio::test]
async fn a_token_is_made_once_listed_and_revoked() {
    let api = Api::start().await;
    let once = [("idempotency-key", "7"), ("request-id", "make-a-token")];
    let new = || json!({"identity": "ci", "ttl": "1h"});
    let (head, made) = api.ask_with("POST", "/api/v1/tokens", &once, new()).await;
    assert_eq!((head.status().as_u16(), header(&head, "request-id")), (201, "make-a-token"));
    let location = header(&head, "location").to_owned();
    assert_eq!(location, format!("/api/v1/tokens/{}", made["id"].as_str().unwrap()));
    // 1. The same again makes nothing, and shows no secret; another body under the same key is refused.
    let (head, again) = api.ask_with("POST", "/api/v1/tokens", &once, new()).await;
    assert_eq!((head.status().as_u16(), &again["id"]), (201, &made["id"]));
    assert!(again.get("token").is_none());
    let (head, _) = api.ask_with("POST", "/api/v1/tokens", &once, json!({"identity": "cd"})).await;
    assert_eq!(head.status(), StatusCode::CONFLICT);
    // 2. Two pages of one each: the administrator's and this one.
    let (_, first) = api.ask("GET", "/api/v1/tokens?page_size=1", Value::Null).await;
    let next = first["next_page_token"].as_str().unwrap();
    let (_, second) = api.ask("GET", &format!("/api/v1/tokens?page_size=1&page_token={next}"), Value::Null).await;
    assert!(second.get("next_page_token").is_none());
    let ids = [&first, &second].map(|page| page["items"][0]["id"].clone());
    assert!(ids[0] != ids[1] && ids.contains(&made["id"]));
    // 3. Revoked, it opens nothing.
    let (head, revoked) = api.ask("DELETE", &location, Value::Null).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert!(revoked["revoked"].is_string());
    let ask =
        Ask { method: "GET", path: "/api/v1/whoami", token: made["token"].as_str(), headers: &[], body: Value::Null };
    assert_eq!(api.send(request(&ask)).await.status(), StatusCode::UNAUTHORIZED);
    // 4. The audit log has the id that the client gave.
    let (_, audit) = api.ask("GET", "/api/v1/audit/records?first=0&limit=1000", Value::Null).await;
    assert!(audit["records"].as_array().unwrap().iter().any(|record| record["request"] == "make-a-token"));
    assert!(!audit.to_string().contains("sgt_"), "a token stands in the audit log");
    let (head, problem) =
        api.ask("GET", &format!("/api/v1/tokens/{}", made["token"].as_str().unwrap()), Value::Null).await;
    assert_eq!(head.status(), StatusCode::BAD_REQUEST);
    assert!(!problem.to_string().contains("sgt_"), "{problem}");
}

#[tokio::test]
async fn a_policy_is_replaced_only_as_it_was_read() {
    let api = Api::start().await;
    let text = |action: &str| json!({"text": format!("permit (principal, action == Signet::Action::\"{action}\", resource);")});
    let path = "/api/v1/policies/readers";
    let (head, stored) = api.ask("PUT", path, text("ReadStatus")).await;
    let etag = header(&head, "etag").to_owned();
    assert_eq!(etag, format!("\"{}\"", stored["etag"].as_str().unwrap()));
    let (head, _) = api.ask_with("PUT", path, &[("if-match", &etag)], text("ReadMetrics")).await;
    assert_eq!(head.status(), StatusCode::OK);
    for (condition, status) in [(etag.as_str(), 412), ("\"x\"", 412), ("*", 400), ("7", 400), ("W/\"7\"", 400)] {
        let (head, problem) = api.ask_with("PUT", path, &[("if-match", condition)], text("ReadStatus")).await;
        assert_eq!(head.status().as_u16(), status, "{condition}: {problem}");
    }
    let (head, problem) = api.ask("PUT", path, json!({"text": "permit"})).await;
    assert_eq!(head.status(), StatusCode::BAD_REQUEST, "{problem}");
    let (head, _) = api.ask("PUT", path, json!({"name": "writers", "text": ADMINISTRATORS_TEXT})).await;
    assert_eq!(head.status(), StatusCode::BAD_REQUEST);
    let explain = json!({"identity": "ci", "action": "ReadMetrics"});
    let (_, explained) = api.ask("POST", "/api/v1/policies/explain", explain).await;
    assert_eq!((&explained["allowed"], &explained["because"]), (&json!(true), &json!(["readers#1"])));
    // The answer to a removal was lost, and the client asks again.
    for _ in 0..2 {
        let (head, _) = api.ask_with("DELETE", path, &[("idempotency-key", "gone")], Value::Null).await;
        assert_eq!(head.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(api.ask("GET", path, Value::Null).await.0.status(), StatusCode::NOT_FOUND);
}

fn certificate(name: &str) -> Claims {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    Claims::read(made.cert.der()).unwrap()
}

#[tokio::test]
async fn a_certificate_is_the_identity_that_expects_it_unless_a_token_speaks() {
    let api = Api::start().await;
    let identity = json!({"groups": ["administrators"], "certificates": [{"dns": "ci.example"}]});
    let (_, stored) = api.ask("PUT", "/api/v1/identities/ci", identity).await;
    assert_eq!(stored["name"], "ci");
    let ask = |token: Option<&str>| {
        let mut request =
            request(&Ask { method: "GET", path: "/api/v1/whoami", token, headers: &[], body: Value::Null });
        request.extensions_mut().insert(peer(Some(certificate("ci.example"))));
        request
    };
    let (_, who) = read(api.send(ask(None)).await).await;
    assert_eq!(who["principal"], "identity/ci");
    let (_, who) = read(api.send(ask(Some(&api.admin))).await).await;
    assert_eq!(who["principal"], "identity/first-administrator");
    assert_eq!(api.send(ask(Some("sgt_x"))).await.status(), StatusCode::UNAUTHORIZED);
    let (head, problem) = api
        .ask("PUT", "/api/v1/identities/cd", json!({"certificates": [{"dns": "a.example"}, {"dns": "*.example"}]}))
        .await;
    assert_eq!(head.status(), StatusCode::BAD_REQUEST);
    assert!(problem["title"].as_str().unwrap().starts_with("certificates: items[1]: "), "{problem}");
    assert_eq!(api.ask("DELETE", "/api/v1/identities/ci", Value::Null).await.0.status(), StatusCode::NO_CONTENT);
    assert_eq!(api.send(ask(None)).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_by_name() {
    let api = Api::start().await;
    let key = || json!({"name": "a", "algorithm": "ed25519"});
    let cases = [
        ("GET", "/api/v1/keys?page_size=0", Value::Null, 400),
        ("GET", "/api/v1/keys?page_size=1001", Value::Null, 400),
        ("GET", "/api/v1/keys?page_size=1&page_size=2", Value::Null, 400),
        ("GET", "/api/v1/keys?page_token=!", Value::Null, 400),
        ("GET", "/api/v1/keys?colour=red", Value::Null, 400),
        ("GET", "/api/v1/whoami?x", Value::Null, 400),
        ("GET", "/api/v1/whoami", json!({}), 400),
        ("GET", "/api/v1/keys/..%2fadmin", Value::Null, 400),
        ("GET", "/api/v1/keys/a%00b", Value::Null, 400),
        ("GET", "/api/v1/keys/%ff", Value::Null, 400),
        ("GET", "/api/v1/keys/a:b:c", Value::Null, 400),
        ("GET", "/api/v1/keys/K", Value::Null, 400),
        ("GET", "/api/v1/keys/%E2%84%AA", Value::Null, 400),
        ("GET", "/api/v1/keys/a/versions/0", Value::Null, 400),
        ("GET", "/api/v1/keys/a", Value::Null, 404),
        ("DELETE", "/api/v1/keys/a?after=1", Value::Null, 400),
        ("PATCH", "/api/v1/keys/a", json!({}), 400),
        ("POST", "/api/v1/keys", json!({"name": "a", "algorithm": "ed25519", "x": 1}), 400),
        ("POST", "/api/v1/keys", json!([]), 400),
        ("POST", "/api/v1/keys", json!({"name": "a".repeat(200_000), "algorithm": "ed25519"}), 413),
        ("POST", "/api/v1/policies/explain", json!({"identity": "a", "action": "Fly"}), 400),
        ("PUT", "/api/v1/policies/explain", json!({"text": ""}), 405),
        ("GET", "/api/v1/nothing", Value::Null, 404),
        ("POST", "/api/v1/keys", key(), 503),
    ];
    for (method, path, body, status) in cases {
        let (head, problem) = api.ask(method, path, body).await;
        assert_eq!(head.status().as_u16(), status, "{method} {path}: {problem}");
        assert_eq!(problem["status"], status);
        assert_eq!(status == 405, !header(&head, "allow").is_empty());
        assert_eq!(status == 503, !header(&head, "retry-after").is_empty());
    }
    let untyped = Request::builder().method("POST").uri("/api/v1/keys").extension(peer(None));
    let untyped = untyped.header("authorization", format!("Bearer {}", api.admin)).body(Body::from("{}")).unwrap();
    assert_eq!(api.send(untyped).await.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn the_service_tells_of_itself() {
    let api = Api::start().await;
    let (head, status) = api.ask("GET", "/api/v1/status", Value::Null).await;
    assert_eq!((head.status().as_u16(), &status["ready"]), (200, &json!(false)));
    assert_eq!(status["devices"][0]["name"], "hsm");
    let (head, _) = api.ask("GET", "/api/v1/metrics", Value::Null).await;
    assert!(header(&head, "content-type").starts_with("application/openmetrics-text"));
    let (_, document) = api.ask("GET", "/api/v1/openapi.json", Value::Null).await;
    assert_eq!(document["openapi"], "3.1.0");
    let (_, head) = api.ask("GET", "/api/v1/audit/head", Value::Null).await;
    assert!(head["public_key"].as_str().unwrap().starts_with("-----BEGIN PUBLIC KEY-----"));
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_nothing() {
    let api = Api::start().await;
    let identity = json!({"certificates": [{"dns": "ci.example"}]});
    let path = "/api/v1/identities/ci";
    let ask = Ask { method: "PUT", path, token: Some(&api.admin), headers: &[], body: identity };
    let mut sent = Box::pin(api.router.clone().oneshot(request(&ask)));
    // The client is there for one look, and then gone.
    assert!(futures_util::poll!(&mut sent).is_pending());
    drop(sent);
    let Api { router, running, service, .. } = api;
    drop(router);
    tokio::time::timeout(Duration::from_secs(5), running.finished()).await.unwrap();
    let administrator = Caller {
        principal: Principal::Identity("first-administrator".parse().unwrap()),
        groups: Arc::from(["administrators".parse().unwrap()]),
        credential: Credential::Process,
        address: None,
        request_id: "look".into(),
    };
    let stored = service.read_identity(&administrator, &"ci".parse().unwrap()).await.unwrap().into_inner();
    assert_eq!(stored.certificates.len(), 1);
}

/// The table of limits, as its reader sees it: what, and how much.
#[test]
fn the_table_of_limits_holds_the_numbers_of_the_code() {
    use signet::{
        api::rest, auth, ca, ciphertext, device, envelope, policy, server, service, signing, store, types, x509,
    };
    let (body, connection) = (BodyLimits::default(), server::listen::Limits::default());
    let log = LogSettings::new("", Origin::of_instance("test").unwrap());
    let seconds = |duration: Duration| format!("{} s", duration.as_secs());
    let rows = [
        ("connections", grouped(connection.connections)),
        ("connections from one IPv4 address", grouped(connection.connections_per_address)),
        ("TLS handshake", seconds(connection.handshake)),
        ("from connection to first request", seconds(connection.headers)),
        ("connection without a request", seconds(connection.idle)),
        ("requests at once on one HTTP/2", connection.streams.to_string()),
        ("bytes of the headers", grouped(connection.header_bytes as usize)),
        ("headers of a request", grouped(connection.header_count)),
        ("silence of an HTTP/2 peer", seconds(connection.ping)),
        ("end of the service", seconds(connection.drain)),
        ("names in a client certificate", grouped(auth::certificate::MAX_NAMES)),
        ("bytes of a body", grouped(rest::BODY)),
        ("bytes of the body of a batch", grouped(rest::BATCH_BODY)),
        ("bytes of the body of a policy", grouped(rest::POLICY_BODY)),
        ("bytes of the body of an EST request", grouped(signet::api::est::MAX_BODY)),
        ("arrival of a body", seconds(body.patience)),
        ("bytes of all bodies", grouped(body.in_work)),
        ("items of a batch", grouped(service::MAX_BATCH)),
        ("items of a page", grouped(service::MAX_PAGE)),
        ("audit records of one answer", grouped(service::MAX_RECORDS)),
        ("bytes of the audit records of one answer", grouped(service::MAX_RECORD_BYTES)),
        ("characters of a request id", grouped(signet::api::MAX_REQUEST_ID)),
        ("characters of an idempotency key", grouped(service::MAX_KEY)),
        ("wait of a repetition", seconds(service::PATIENCE)),
        ("characters of a name", grouped(types::Name::MAX)),
        ("bytes of a plaintext", grouped(ciphertext::MAX_PLAINTEXT)),
        ("bytes of a data key", format!("{} to {}", envelope::DATA_KEY.start(), envelope::DATA_KEY.end())),
        ("entries of a context", grouped(types::Context::MAX_ENTRIES)),
        ("bytes of a context", grouped(types::Context::MAX_BYTES)),
        ("bytes of a message to sign", grouped(signing::MAX_MESSAGE)),
        ("period of time", types::Period::MAX.to_string()),
        ("keys of the domain `jwt`", grouped(signet::keyring::MAX_PUBLISHED)),
        ("versions that the manifest of a backup names", grouped(usize::try_from(service::MAX_BOUND).unwrap())),
        ("shortest rotation by age", types::Rotation::MIN_EVERY.to_string()),
        ("certificate rules of an identity", grouped(auth::registry::IdentityRecord::MAX_CERTIFICATES)),
        ("bytes of a SPIFFE id", grouped(auth::certificate::SpiffeId::MAX)),
        ("bytes of a policy", grouped(policy::MAX_POLICY_BYTES)),
        ("statements of all policies", grouped(policy::MAX_STATEMENTS)),
        ("bytes of an OCSP request", grouped(x509::ocsp::MAX_REQUEST)),
        ("certificates of an OCSP request", grouped(x509::ocsp::MAX_CERTIFICATES)),
        ("bytes of an OCSP nonce", grouped(x509::ocsp::MAX_NONCE)),
        ("OCSP answers that are signed for one request alone, at once", ca::status::FRESH_BURST.to_string()),
        ("jobs at a device", grouped(device::MAX_JOBS)),
        ("bytes of a certificate request", grouped(x509::csr::MAX_CSR)),
        ("attributes, and extensions, of a certificate request", grouped(x509::csr::MAX_PARTS)),
        ("alternative names of a certificate or request", grouped(x509::certificate::MAX_NAMES)),
        ("bytes of an alternative name", grouped(x509::San::MAX)),
        ("bytes of a certificate that is read", grouped(x509::certificate::MAX_CERTIFICATE)),
        ("certificates of one name", grouped(store::certificates::LOOKED_AT)),
        ("changes that share a transaction", grouped(signet::ledger::MOST_CHANGES)),
        ("bytes of the path of a record", grouped(store::MAX_PATH)),
        ("bytes of a record", grouped(store::MAX_VALUE)),
        ("audit records that wait", grouped(log.queue)),
        ("wait for the disk", seconds(log.deadline)),
    ];
    let page = include_str!("../docs/limits.md");
    let says = |cell: Option<&str>, text: &str| {
        let rest = cell.and_then(|cell| cell.trim().strip_prefix(text));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([',', ';', ' ']))
    };
    for (what, number) in rows {
        let found = page.lines().any(|line| {
            let mut cells = line.split('|').skip(1);
            says(cells.next(), what) && says(cells.next(), &number)
        });
        assert!(found, "docs/limits.md does not say {what}: {number}");
    }
}

/// `8388608` as `8,388,608`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[test]
fn the_page_of_status_codes_has_a_row_for_each_kind() {
    use signet::error::Kind;
    let kinds = [
        (Kind::Invalid, 2),
        (Kind::Unauthenticated, 3),
        (Kind::Forbidden, 3),
        (Kind::NotFound, 4),
        (Kind::Conflict, 5),
        (Kind::State, 5),
        (Kind::Stale, 5),
        (Kind::Limit, 8),
        (Kind::DoesNotOpen, 6),
        (Kind::Unsupported, 8),
        (Kind::Busy, 7),
        (Kind::Unavailable, 7),
        (Kind::Tampered, 1),
        (Kind::Internal, 1),
    ];
    let page = include_str!("../docs/status-codes.md");
    for (kind, exit) in kinds {
        let start = format!("| {} | `{}` |", signet::api::rest::status(kind).as_u16(), kind.code());
        let row = page.lines().find(|line| line.starts_with(&start));
        assert!(
            row.is_some_and(|row| row.ends_with(&format!("| {exit} |"))),
            "docs/status-codes.md: {start} ... {exit}"
        );
    }
}
