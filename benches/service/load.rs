//! The load: kept-alive HTTPS connections that ask again as soon as they were answered.
//!
//! One thread, HTTP/1.1 written by hand over rustls: what the load costs is measured, too, and shown beside the figures, since
//! it takes its share of the machine from the server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// One connection.
pub(crate) struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

/// What one turn of some connections came to.
#[derive(Default)]
pub(crate) struct Turn {
    /// How long each request took.
    pub(crate) latencies: Vec<Duration>,
    /// How long all of it took.
    pub(crate) elapsed: Duration,
    /// The body of an answer, to be looked at when the clock has stopped.
    pub(crate) answer: Vec<u8>,
}

/// Opens connections to a server that is vouched for by `authority`, in PEM.
pub(crate) async fn connect(address: SocketAddr, authority: &[u8], count: usize) -> Vec<Connection> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate.expect("a certificate")).expect("a good certificate");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let mut all = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        stream.set_nodelay(true).expect("an option of TCP");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = connector.connect(name, stream).await.expect("the server is who it should be");
        all.push(Connection { stream, buffer: vec![0; 1 << 20] });
    }
    all
}

/// The bytes of a POST.
pub(crate) fn request(path: &str, token: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The bytes of a GET below the certificates.
pub(crate) fn fetch(rest: &str, token: &str) -> Vec<u8> {
    get(&format!("/api/v1/certificates{rest}"), token)
}

/// The bytes of a GET.
pub(crate) fn get(path: &str, token: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n").into_bytes()
}

/// Has each of `connections` send `request` again and again until the time is over, at least once.
pub(crate) async fn turn(connections: &mut [Connection], request: &[u8], time: Duration) -> Turn {
    let began = Instant::now();
    let end = began + time;
    let work = connections.iter_mut().map(|connection| async move {
        let mut turn = Turn::default();
        loop {
            let sent = Instant::now();
            let body = connection.ask(request).await;
            let now = Instant::now();
            turn.latencies.push(now - sent);
            if now >= end {
                turn.answer = body.to_vec();
                return turn;
            }
        }
    });
    let turns = join_all(work).await;
    let elapsed = began.elapsed();
    let mut sum = Turn { elapsed, ..Turn::default() };
    for turn in turns {
        sum.latencies.extend(turn.latencies);
        sum.answer = turn.answer;
    }
    sum
}

impl Connection {
    /// Sends a request and reads its whole answer, which must be a success.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> &[u8] {
        self.stream.write_all(request).await.expect("the server reads");
        self.stream.flush().await.expect("the server reads");
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.expect("the server answers");
            assert!(read > 0, "the server closed the connection");
            filled += read;
            let Some((body, length)) = head(&self.buffer[..filled]) else { continue };
            if filled >= body + length {
                assert_eq!(filled, body + length, "more than one answer to one request");
                return &self.buffer[body..filled];
            }
            if self.buffer.len() < body + length {
                self.buffer.resize(body + length, 0);
            }
        }
    }
}

/// Where the body begins and how long it is, once the head is there.
fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).expect("a head in ASCII");
    assert!(
        head.starts_with("HTTP/1.1 200 ") || head.starts_with("HTTP/1.1 201 "),
        "{}",
        String::from_utf8_lossy(bytes)
    );
    let value = |line: &str| Some(line.split_once(": ")?.1.parse().expect("a length"));
    let length = head.split("\r\n").find(|line| line.len() > 15 && line[..15].eq_ignore_ascii_case("content-length:"));
    Some((end + 4, length.and_then(value).expect("a length")))
}
