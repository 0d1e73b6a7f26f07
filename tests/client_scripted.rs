//! The client against a server that answers by a script: what is sent, what is tried again, what is believed.

#![expect(clippy::unwrap_used, reason = "a test may stop")]

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use signet::client::{Client, Options, PageRequest, Transition};
use signet::error::Kind;
use signet::types::{KeyName, SecretBytes, Version};
use signet::wire::{SecretBase64, TokenText, UpdateKey, Wrap};
use tokio::net::TcpListener;

/// One request as it arrived.
#[derive(Debug)]
struct Seen {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

struct Scripted {
    port: u16,
    authority: Vec<u8>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

type Answer = (u16, &'static [(&'static str, &'static str)], &'static str);

impl Scripted {
    /// A server that gives `answers` in their order, then drops connections.
    async fn start(answers: &[Answer]) -> Self {
        Self::start_with(answers, &rustls::version::TLS13).await
    }

    async fn start_with(answers: &[Answer], version: &'static rustls::SupportedProtocolVersion) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = Arc::new(Mutex::new(answers.iter().copied().collect::<VecDeque<Answer>>()));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, script, record) = (acceptor.clone(), Arc::clone(&script), Arc::clone(&record));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(request, Arc::clone(&script), Arc::clone(&record)));
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { port, authority: made.cert.pem().into_bytes(), seen }
    }

    fn options(&self) -> Options {
        let mut options = Options::new(format!("localhost:{}", self.port), self.authority.clone());
        options.token = Some(TokenText("sgt_example".into()));
        options.retry_for = Duration::from_secs(3);
        options
    }

    fn client(&self) -> Client {
        Client::new(self.options()).unwrap()
    }

    fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn answer(
    request: Request<Incoming>,
    script: Arc<Mutex<VecDeque<Answer>>>,
    record: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let target = head.uri.path_and_query().unwrap().to_string();
    record.lock().unwrap().push(Seen { method: head.method, target, headers: head.headers, body });
    let Some((status, headers, body)) = script.lock().unwrap().pop_front() else {
        return Err(std::io::Error::other("the script is over"));
    };
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    Ok(response)
}

const ME: &str = r#"{"principal":"identity/ci","groups":[],"credential":"token/1"}"#;
const BUSY: &str = r#"{"type":"t","status":503,"code":"unavailable","title":"the device is gone","request_id":"r1"}"#;
const WRAPPED: &str = r#"{"ciphertext":"AAEC","version":2}"#;
const VERSION: &str = r#"{"version":1,"state":"suspended","primary":false,"protection":"hsm","devices":["a"],
    "created":"2026-01-02T03:04:05Z","changed":"2026-01-02T03:04:05Z"}"#;

fn key() -> KeyName {
    "payments:card-data".parse().unwrap()
}

#[tokio::test]
async fn a_request_carries_the_token_and_the_body_of_the_api() {
    let server = Scripted::start(&[(200, &[], WRAPPED)]).await;
    let body = Wrap { plaintext: SecretBase64(SecretBytes::new(b"hi".to_vec())), context: Default::default() };
    let wrapped = server.client().wrap(&key(), &body).await.unwrap();
    assert_eq!((wrapped.ciphertext.0.as_slice(), wrapped.version.number()), (&[0, 1, 2][..], 2));
    let seen = &server.seen()[0];
    assert_eq!((&seen.method, seen.target.as_str()), (&Method::POST, "/api/v1/keys/payments:card-data/wrap"));
    assert_eq!(seen.header("authorization"), Some("Bearer sgt_example"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("idempotency-key"), None);
    assert_eq!(&seen.body[..], br#"{"plaintext":"aGk=","context":{}}"#);
}

#[tokio::test]
async fn a_change_keeps_its_idempotency_key_when_it_is_tried_again() {
    let busy: Answer = (503, &[("retry-after", "0")], BUSY);
    let server = Scripted::start(&[busy, busy, (200, &[], VERSION), (200, &[], VERSION)]).await;
    let client = server.client();
    client.change_version(&key(), Version::FIRST, Transition::Suspend).await.unwrap();
    client.change_version(&key(), Version::FIRST, Transition::Resume).await.unwrap();
    let seen = server.seen();
    let keys: Vec<_> = seen.iter().map(|one| one.header("idempotency-key").unwrap()).collect();
    assert_eq!(seen.len(), 4);
    assert!(keys[0] == keys[1] && keys[1] == keys[2] && keys[2] != keys[3], "{keys:?}");
    assert!(seen[3].target.ends_with("/versions/1/resume"));
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    let server = Scripted::start(&[]).await;
    let mut options = server.options();
    options.retry_for = Duration::from_millis(400);
    let error = Client::new(options).unwrap().whoami().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(server.seen().len() > 1);
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_is_not_begun() {
    let server = Scripted::start(&[(503, &[("retry-after", "60")], BUSY)]).await;
    let error = server.client().whoami().await.unwrap_err();
    assert_eq!((error.kind(), error.public()), (Kind::Unavailable, "the device is gone (request r1)"));
    assert_eq!(error.wait(), Some(Duration::from_secs(60)));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_final() {
    let stale = r#"{"type":"t","status":412,"code":"stale","title":"the key has changed","hint":"read it again"}"#;
    let server = Scripted::start(&[(412, &[("request-id", "r9")], stale)]).await;
    let error = server.client().update_key(&key(), "e1", &UpdateKey::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.public()), (Kind::Stale, "the key has changed (request r9)"));
    assert_eq!(error.mend(), Some("read it again"));
    let seen = server.seen();
    assert_eq!((seen.len(), &seen[0].method, seen[0].header("if-match")), (1, &Method::PATCH, Some("\"e1\"")));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = Scripted::start(&[(307, &[("location", "/elsewhere")], ""), (200, &[], ME)]).await;
    assert!(server.client().whoami().await.is_err());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn answers_have_a_limit_and_must_be_understood() {
    let server = Scripted::start(&[(200, &[], ME), (200, &[], r#"{"plaintext":"c2VjcmV0","version":"secret"}"#)]).await;
    let mut options = server.options();
    options.max_answer = 20;
    assert_eq!(Client::new(options).unwrap().whoami().await.unwrap_err().kind(), Kind::Limit);
    let unwrap = serde_json::from_value(serde_json::json!({"ciphertext": "AAEC"})).unwrap();
    let error = server.client().unwrap(&key(), &unwrap).await.unwrap_err();
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
}

#[tokio::test]
async fn pages_and_names_are_escaped() {
    let empty = r#"{"items":[]}"#;
    let server = Scripted::start(&[(200, &[], empty)]).await;
    let page = PageRequest { size: Some(5), token: Some("a&b=+".into()) };
    server.client().keys(Some(&"payments".parse().unwrap()), &page).await.unwrap();
    assert_eq!(server.seen()[0].target, "/api/v1/keys?namespace=payments&page_size=5&page_token=a%26b%3D%2B");
}

#[tokio::test]
async fn a_backup_comes_piece_by_piece_and_is_not_tried_again() {
    let server = Scripted::start(&[(200, &[], "archive"), (503, &[("retry-after", "0")], BUSY)]).await;
    let mut options = server.options();
    options.max_answer = 1024;
    let client = Client::new(options).unwrap();
    let mut download = client.backup().await.unwrap();
    let mut whole = Vec::new();
    while let Some(piece) = download.piece().await.unwrap() {
        whole.extend_from_slice(&piece);
    }
    assert_eq!(whole, b"archive");
    assert_eq!(client.backup().await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn only_the_named_authority_and_tls_1_3_are_trusted() {
    let [server, other] = [Scripted::start(&[]).await, Scripted::start(&[]).await];
    let mut options = server.options();
    options.authorities.clone_from(&other.authority);
    let error = Client::new(options).unwrap().whoami().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated, "{error:?}");
    let old = Scripted::start_with(&[], &rustls::version::TLS12).await;
    assert!(old.client().whoami().await.is_err());
    assert!(server.seen().is_empty() && old.seen().is_empty());
}

#[tokio::test]
async fn a_server_that_falls_silent_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut options = Options::new(format!("localhost:{port}"), authority.cert.pem().into_bytes());
    options.timeout = Duration::from_millis(200);
    options.retry_for = Duration::ZERO;
    let error = Client::new(options).unwrap().whoami().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    drop(listener);
}
