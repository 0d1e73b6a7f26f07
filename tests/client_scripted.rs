//! The client against a server that answers by a script: what is sent, what is tried again, what is believed.

#![expect(clippy::unwrap_used, reason = "a test may stop")]

#[path = "support/scripted.rs"]
mod scripted;

use std::time::Duration;

use http::Method;
use scripted::{Answer, Scripted};
use signet::client::{Client, Options, PageRequest, Transition};
use signet::error::Kind;
use signet::types::{KeyName, SecretBytes, Version};
use signet::wire::{SecretBase64, SecretText, UpdateKey, Wrap};
use tokio::net::TcpListener;

fn options(server: &Scripted) -> Options {
    let mut options = Options::new(format!("localhost:{}", server.port), server.authority.clone());
    options.token = Some(SecretText("sgt_example".into()));
    options.retry_for = Duration::from_secs(3);
    options
}

fn client(server: &Scripted) -> Client {
    Client::new(options(server)).unwrap()
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
    let wrapped = client(&server).wrap(&key(), &body).await.unwrap();
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
    let client = client(&server);
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
    let mut options = options(&server);
    options.retry_for = Duration::from_millis(400);
    let error = Client::new(options).unwrap().whoami().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(server.seen().len() > 1);
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_is_not_begun() {
    let server = Scripted::start(&[(503, &[("retry-after", "60")], BUSY)]).await;
    let error = client(&server).whoami().await.unwrap_err();
    assert_eq!((error.kind(), error.public()), (Kind::Unavailable, "the device is gone (request r1)"));
    assert_eq!(error.wait(), Some(Duration::from_secs(60)));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_refusal_is_final() {
    let stale = r#"{"type":"t","status":412,"code":"stale","title":"the key has changed","hint":"read it again"}"#;
    let server = Scripted::start(&[(412, &[("request-id", "r9")], stale)]).await;
    let error = client(&server).update_key(&key(), "e1", &UpdateKey::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.public()), (Kind::Stale, "the key has changed (request r9)"));
    assert_eq!(error.mend(), Some("read it again"));
    let seen = server.seen();
    assert_eq!((seen.len(), &seen[0].method, seen[0].header("if-match")), (1, &Method::PATCH, Some("\"e1\"")));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = Scripted::start(&[(307, &[("location", "/elsewhere")], ""), (200, &[], ME)]).await;
    assert!(client(&server).whoami().await.is_err());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn answers_have_a_limit_and_must_be_understood() {
    let server = Scripted::start(&[(200, &[], ME), (200, &[], r#"{"plaintext":"c2VjcmV0","version":"secret"}"#)]).await;
    let mut options = options(&server);
    options.max_answer = 20;
    assert_eq!(Client::new(options).unwrap().whoami().await.unwrap_err().kind(), Kind::Limit);
    let unwrap = serde_json::from_value(serde_json::json!({"ciphertext": "AAEC"})).unwrap();
    let error = client(&server).unwrap(&key(), &unwrap).await.unwrap_err();
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
}

#[tokio::test]
async fn pages_and_names_are_escaped() {
    let empty = r#"{"items":[]}"#;
    let server = Scripted::start(&[(200, &[], empty)]).await;
    let page = PageRequest { size: Some(5), token: Some("a&b=+".into()) };
    client(&server).keys(Some(&"payments".parse().unwrap()), &page).await.unwrap();
    assert_eq!(server.seen()[0].target, "/api/v1/keys?namespace=payments&page_size=5&page_token=a%26b%3D%2B");
}

#[tokio::test]
async fn a_backup_comes_piece_by_piece_and_is_not_tried_again() {
    let server = Scripted::start(&[(200, &[], "archive"), (503, &[("retry-after", "0")], BUSY)]).await;
    let mut options = options(&server);
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
    let mut options = options(&server);
    options.authorities.clone_from(&other.authority);
    let error = Client::new(options).unwrap().whoami().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated, "{error:?}");
    let old = Scripted::start_with(&[], &rustls::version::TLS12).await;
    assert!(client(&old).whoami().await.is_err());
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
