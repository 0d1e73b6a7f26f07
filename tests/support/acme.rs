//! An ACME client that can be told to do everything wrong, and the places where it puts its proofs.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A web server that answers paths with what a test tells it.
#[derive(Clone)]
pub(crate) struct Web {
    address: SocketAddr,
    pages: Arc<Mutex<HashMap<String, String>>>,
    /// Where everything is asked for instead.
    forward: Arc<Mutex<Option<u16>>>,
}

impl Web {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pages: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let forward: Arc<Mutex<Option<u16>>> = Arc::default();
        let (known, elsewhere) = (pages.clone(), forward.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(port) = *elsewhere.lock().unwrap() {
                    pass_on(stream, port);
                    continue;
                }
                let mut reader = BufReader::new(stream);
                let mut first = String::new();
                let _ = reader.read_line(&mut first);
                let mut line = String::from("x");
                while line.trim_end() != "" && reader.read_line(&mut line).is_ok() {
                    if line.ends_with("\r\n\r\n") || line == "\r\n" {
                        break;
                    }
                    line.clear();
                }
                let path = first.split(' ').nth(1).unwrap_or_default();
                let none = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned();
                let answer = known.lock().unwrap().get(path).cloned().unwrap_or(none);
                let _ = reader.get_mut().write_all(answer.as_bytes());
            }
        });
        Self { address, pages, forward }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Passes every connection on to another port of this machine.
    pub(crate) fn forward(&self, port: u16) {
        *self.forward.lock().unwrap() = Some(port);
    }

    pub(crate) fn page(&self, path: &str, body: &str) {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        self.pages.lock().unwrap().insert(path.to_owned(), answer);
    }

    pub(crate) fn redirect(&self, path: &str, to: &str) {
        let answer = format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n");
        self.pages.lock().unwrap().insert(path.to_owned(), answer);
    }
}

/// Both directions, until both ends are done.
fn pass_on(stream: TcpStream, port: u16) {
    let Ok(other) = TcpStream::connect(("127.0.0.1", port)) else { return };
    for (mut from, mut to) in [(stream.try_clone().unwrap(), other.try_clone().unwrap()), (other, stream)] {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    }
}

/// A key of an account.
pub(crate) struct AccountKey(EcdsaKeyPair, Vec<u8>);

impl AccountKey {
    pub(crate) fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let bytes = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
        Self(pair, bytes)
    }

    /// The same key, for another client.
    pub(crate) fn copy(&self) -> Self {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.1).unwrap();
        Self(pair, self.1.clone())
    }

    pub(crate) fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        json!({"crv": "P-256", "kty": "EC", "x": base64url(&point[1..33]), "y": base64url(&point[33..])})
    }

    pub(crate) fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let text = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
        base64url(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
    }

    /// A signed object with that header.
    pub(crate) fn sign(&self, header: &Value, payload: &str) -> Value {
        let (protected, payload) = (base64url(header.to_string().as_bytes()), base64url(payload.as_bytes()));
        let signature = self.0.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes()).unwrap();
        json!({"protected": protected, "payload": payload, "signature": base64url(signature.as_ref())})
    }
}

/// An external account binding.
pub(crate) fn binding(kid: &str, key: &[u8], url: &str, account: &Value) -> Value {
    let protected = base64url(json!({"alg": "HS256", "kid": kid, "url": url}).to_string().as_bytes());
    let payload = base64url(account.to_string().as_bytes());
    let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), format!("{protected}.{payload}").as_bytes());
    json!({"protected": protected, "payload": payload, "signature": base64url(code.as_ref())})
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) nonce: Option<String>,
    pub(crate) links: Vec<String>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }

    /// The type of the problem, or nothing.
    pub(crate) fn problem(&self) -> String {
        let json = self.json();
        json["type"].as_str().unwrap_or_default().trim_start_matches("urn:ietf:params:acme:error:").to_owned()
    }
}

/// A client of one endpoint.
pub(crate) struct Client {
    http: reqwest::Client,
    pub(crate) directory: Value,
    pub(crate) key: AccountKey,
    pub(crate) kid: Option<String>,
}

impl Client {
    pub(crate) async fn new(http: reqwest::Client, directory: &str) -> Self {
        let directory = http.get(directory).send().await.unwrap().json().await.unwrap();
        Self { http, directory, key: AccountKey::new(), kid: None }
    }

    pub(crate) fn url(&self, what: &str) -> String {
        self.directory[what].as_str().unwrap().to_owned()
    }

    pub(crate) async fn nonce(&self) -> String {
        let answer = self.http.head(self.url("newNonce")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        answer.headers()["replay-nonce"].to_str().unwrap().to_owned()
    }

    /// The header of a request as it should be.
    pub(crate) async fn header(&self, url: &str) -> Value {
        let nonce = self.nonce().await;
        match &self.kid {
            Some(kid) => json!({"alg": "ES256", "nonce": nonce, "url": url, "kid": kid}),
            None => json!({"alg": "ES256", "nonce": nonce, "url": url, "jwk": self.key.jwk()}),
        }
    }

    pub(crate) async fn send(&self, url: &str, body: &Value) -> Answer {
        self.send_as(url, "application/jose+json", body.to_string()).await
    }

    pub(crate) async fn send_as(&self, url: &str, media_type: &str, body: String) -> Answer {
        let answer = self.http.post(url).header("Content-Type", media_type).body(body).send().await.unwrap();
        let text = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let links = answer.headers().get_all("link").iter().map(|value| value.to_str().unwrap().to_owned()).collect();
        let (location, nonce) = (text("location"), text("replay-nonce"));
        Answer { status: answer.status().as_u16(), location, nonce, links, text: answer.text().await.unwrap() }
    }

    /// A request as it should be; an empty payload reads.
    pub(crate) async fn post(&self, url: &str, payload: &Value) -> Answer {
        let payload = if payload.is_null() { String::new() } else { payload.to_string() };
        let answer = self.send(url, &self.key.sign(&self.header(url).await, &payload)).await;
        assert!(answer.nonce.is_some(), "{answer:?}");
        answer
    }

    pub(crate) async fn read(&self, url: &str) -> Value {
        let answer = self.post(url, &Value::Null).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Makes an account.
    pub(crate) async fn register(&mut self) -> Answer {
        let answer = self.post(&self.url("newAccount"), &json!({"termsOfServiceAgreed": true})).await;
        self.kid = answer.location.clone();
        answer
    }

    /// Makes an order, and answers its address and itself.
    pub(crate) async fn order(&self, names: &[&str]) -> (String, Value) {
        let identifiers: Vec<_> = names
            .iter()
            .map(|name| {
                let kind = if name.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "dns" };
                json!({"type": kind, "value": name})
            })
            .collect();
        let mut order = json!({"identifiers": identifiers});
        if names.iter().any(|name| name.starts_with("*.")) {
            order["profile"] = json!("wild");
        }
        let answer = self.post(&self.url("newOrder"), &order).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        (answer.location.clone().unwrap(), answer.json())
    }

    /// The challenge of one kind of an authorization.
    pub(crate) async fn challenge(&self, authorization: &Value, kind: &str) -> Value {
        let authorization = self.read(authorization.as_str().unwrap()).await;
        let challenges = authorization["challenges"].as_array().unwrap().clone();
        challenges.into_iter().find(|one| one["type"] == kind).unwrap_or_else(|| panic!("no {kind} in {authorization}"))
    }

    pub(crate) fn key_authorization(&self, challenge: &Value) -> String {
        format!("{}.{}", challenge["token"].as_str().unwrap(), self.key.thumbprint())
    }

    pub(crate) fn digest(&self, challenge: &Value) -> Vec<u8> {
        digest::digest(&digest::SHA256, self.key_authorization(challenge).as_bytes()).as_ref().to_vec()
    }

    /// Answers a challenge and waits until it has an end: the service is asked, each question waits for an answer.
    pub(crate) async fn answer(&self, challenge: &Value) -> Value {
        let url = challenge["url"].as_str().unwrap();
        let answer = self.post(url, &json!({})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let challenge = self.read(url).await;
            if !matches!(challenge["status"].as_str(), Some("pending" | "processing")) {
                return challenge;
            }
            assert!(std::time::Instant::now() < until, "{challenge}");
        }
    }
}
