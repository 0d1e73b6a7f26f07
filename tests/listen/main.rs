//! The listener over real sockets: who gets in, and what it costs to misbehave.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may stop")]

mod abuse;
mod exhaustion;

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::{get, post};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use signet::api::Peer;
use signet::server::listen::{Limits, SelfMade, Tls, Transport, self_signed, serve, tls_config};
use signet::telemetry::Metrics;
use signet::types::Clock;

/// Limits that a test can wait for, on a machine that has other things to do.
fn quick() -> Limits {
    let short = Duration::from_millis(500);
    Limits { headers: short, idle: short * 2, drain: short * 2, ..Limits::default() }
}

struct Server {
    port: u16,
    tls: Arc<ArcSwap<Tls>>,
    authority: String,
    metrics: Metrics,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

fn made() -> SelfMade {
    self_signed(&["localhost".to_owned()], &Clock::default()).unwrap()
}

impl Server {
    async fn start(limits: Limits) -> Self {
        Self::start_for(limits, None).await
    }

    async fn start_for(limits: Limits, clients: Option<&str>) -> Self {
        let own = made();
        let config = tls_config(own.chain.as_bytes(), &own.key, clients.map(str::as_bytes)).unwrap();
        let tls = Arc::new(ArcSwap::from_pointee(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (stop, stopped) = oneshot::channel();
        let metrics = Metrics::new();
        let transport = Transport::Tls(tls.clone());
        let serving = serve(listener, transport, app(), limits, metrics.clone(), async { drop(stopped.await) });
        let task = tokio::spawn(async { serving.await.unwrap() });
        Self { port, tls, authority: own.authority, metrics, stop: Some(stop), task }
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap()
    }

    async fn http1(&self) -> TlsStream<TcpStream> {
        self.connect(&client(&self.authority, None)).await.unwrap()
    }

    /// A handshake whose outcome the server has told: in TLS 1.3 a refused certificate shows at the first read only.
    async fn connect(&self, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        Self::connect_by(config, self.tcp().await).await
    }

    async fn connect_by(config: &Arc<ClientConfig>, tcp: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(config.clone()).connect(name, tcp).await
    }

    fn connections(&self) -> i64 {
        let text = self.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix("signet_connections ")).unwrap();
        line.parse().unwrap()
    }

    fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }
}

fn app() -> axum::Router {
    let who = |Extension(peer): Extension<Peer>| async move {
        let names = peer.certificate.map_or_else(|| "nobody".to_owned(), |claims| claims.dns().join(","));
        format!("{} {names}", peer.address)
    };
    let slow = || async {
        sleep(Duration::from_millis(300)).await;
        "done"
    };
    let big = || async {
        let piece = bytes::Bytes::from(vec![0; 1 << 20]);
        Body::from_stream(futures_util::stream::iter((0..64).map(move |_| Ok::<_, std::io::Error>(piece.clone()))))
    };
    let never = || async { std::future::pending::<&'static str>().await };
    let echo = |body: bytes::Bytes| async { body };
    let router = axum::Router::new().route("/who", get(who)).route("/slow", get(slow)).route("/big", get(big));
    router.route("/never", get(never)).route("/echo", post(echo))
}

/// A client that speaks HTTP/1.1 and believes `authority`.
fn client(authority: &str, own: Option<&(String, String)>) -> Arc<ClientConfig> {
    Arc::new(client_config(authority, own, &[b"http/1.1"]))
}

fn client_config(authority: &str, own: Option<&(String, String)>, alpn: &[&[u8]]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

fn http2(authority: &str) -> reqwest::Client {
    let config = client_config(authority, None, &[b"h2"]);
    reqwest::Client::builder().tls_backend_preconfigured(config).no_proxy().build().unwrap()
}

/// Sends `bytes` and reads what comes until the end, or for at most five seconds.
async fn exchange(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), bytes: &str) -> String {
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    rest(stream).await
}

async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut answer = Vec::new();
    // A connection that is cut off ends as well as one that is closed.
    let _ = timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.expect("still open after 5 s");
    String::from_utf8(answer).unwrap()
}

/// Reads one answer whose body is `end`.
async fn answer(stream: &mut (impl AsyncReadExt + Unpin), end: &str) {
    let mut seen = Vec::new();
    while !seen.ends_with(end.as_bytes()) {
        let read = timeout(Duration::from_secs(5), stream.read_buf(&mut seen)).await.unwrap().unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&seen));
    }
}

const WHO: &str = "GET /who HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// The authority of clients, with a key that it keeps.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key of a client.
    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["ci.example".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

#[tokio::test]
async fn both_protocols_are_spoken_and_the_peer_is_known() {
    let server = Server::start(Limits::default()).await;
    let mut one = server.http1().await;
    one.write_all(WHO.as_bytes()).await.unwrap();
    answer(&mut one, "127.0.0.1 nobody").await;
    let two = http2(&server.authority);
    let response = two.get(format!("https://localhost:{}/who", server.port)).send().await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert_eq!(response.text().await.unwrap(), "127.0.0.1 nobody");
    let body = vec![7; 300_000];
    let echo = two.post(format!("https://localhost:{}/echo", server.port)).body(body.clone()).send().await.unwrap();
    assert_eq!(echo.bytes().await.unwrap(), body);
    assert_eq!(one.get_ref().1.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_client_certificate_counts_only_where_it_is_good() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = Server::start_for(Limits::default(), Some(&authority.pem)).await;
    let good = authority.issue(|_| {});
    let mut stream = server.connect(&client(&server.authority, Some(&good))).await.unwrap();
    stream.write_all(WHO.as_bytes()).await.unwrap();
    answer(&mut stream, "127.0.0.1 ci.example").await;
    answer(
        &mut {
            let mut none = server.http1().await;
            none.write_all(WHO.as_bytes()).await.unwrap();
            none
        },
        "nobody",
    )
    .await;

    let bad = [
        ("another authority", other.issue(|_| {})),
        (
            "a server's",
            authority.issue(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        ("expired", authority.issue(|params| params.not_after = date_time_ymd(2020, 1, 1))),
        ("not yet", authority.issue(|params| params.not_before = date_time_ymd(2999, 1, 1))),
        // The chain is good, but the claims are not: a SPIFFE id must be the only URI.
        (
            "two ids",
            authority.issue(|params| {
                for id in ["spiffe://example.org/a", "spiffe://example.org/b"] {
                    params.subject_alt_names.push(rcgen::SanType::URI(id.try_into().unwrap()));
                }
            }),
        ),
    ];
    for (what, own) in bad {
        let config = client(&server.authority, Some(&own));
        let mut stream = server.connect(&config).await.unwrap();
        let _ = stream.write_all(WHO.as_bytes()).await;
        assert_eq!(rest(&mut stream).await, "", "{what}");
    }
}

#[tokio::test]
async fn sessions_are_not_resumed() {
    let server = Server::start(Limits::default()).await;
    let config = client(&server.authority, None);
    for _ in 0..2 {
        let mut stream = server.connect(&config).await.unwrap();
        stream.write_all(WHO.as_bytes()).await.unwrap();
        answer(&mut stream, "nobody").await;
        let connection = &stream.get_ref().1;
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(connection.tls13_tickets_received(), 0);
    }
}

/// What openssl, a foreign judge, says of a connection.
async fn openssl(port: u16, arguments: &'static [&'static str]) -> String {
    let run = move || {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]).args(arguments);
        let output = command.stdin(Stdio::null()).output().expect("openssl is part of the tools of the tests");
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test]
async fn openssl_finds_tls_1_3_alone_and_nothing_to_resume() {
    let server = Server::start(quick()).await;
    let new = openssl(server.port, &["-tls1_3"]).await;
    assert!(new.contains("New, TLSv1.3") && new.contains("Early data was not sent"), "{new}");
    assert!(!new.contains("Session-ID:"), "{new}");
    for old in [&["-tls1_2"], &["-tls1_1"]] {
        let refused = openssl(server.port, old).await;
        assert!(refused.contains("Cipher is (NONE)"), "{refused}");
    }
}

#[tokio::test]
async fn a_plain_listener_has_the_same_limits_and_knows_no_certificates() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let limits = Limits { connections: 3, ..quick() };
    let serving = serve(listener, Transport::Plain, app(), limits, Metrics::new(), async { drop(stopped.await) });
    let task = tokio::spawn(serving);
    let connect = || async { TcpStream::connect(address).await.unwrap() };
    // 1. One request after the other, and what no handler should see.
    let mut stream = connect().await;
    for _ in 0..2 {
        stream.write_all(WHO.as_bytes()).await.unwrap();
        answer(&mut stream, "127.0.0.1 nobody").await;
    }
    let chunked = "GET /who HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    assert!(exchange(&mut stream, chunked).await.starts_with("HTTP/1.1 411"));
    // 2. HTTP/2 is not guessed from the first bytes.
    let seen = exchange(&mut connect().await, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(seen.is_empty() || seen.starts_with("HTTP/1.1 4"), "{seen}");
    // 3. Silence costs the connection, and there are no more than there may be.
    let (mut one, mut two, mut three) = (connect().await, connect().await, connect().await);
    assert_eq!(rest(&mut connect().await).await, "", "the fourth is closed at once");
    let (a, b, c) = tokio::join!(rest(&mut one), rest(&mut two), rest(&mut three));
    assert!([a, b, c].iter().all(String::is_empty));
    drop(stop);
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_says_nothing_is_sent_away() {
    let server = Server::start(Limits { handshake: Duration::from_millis(500), ..quick() }).await;
    let begin = Instant::now();
    // 1. Nothing at all, and half a handshake.
    let mut silent = server.tcp().await;
    let mut half = server.tcp().await;
    half.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.unwrap();
    // 2. A handshake and nothing; half a header; a header that dribbles.
    let mut idle = server.http1().await;
    let mut header = server.http1().await;
    header.write_all(b"GET /who HTTP/1.1\r\nhost: loc").await.unwrap();
    let mut dribble = server.http1().await;
    let dribbling = async {
        while dribble.write_all(b"x").await.is_ok() && dribble.flush().await.is_ok() {
            sleep(Duration::from_millis(20)).await;
            assert!(begin.elapsed() < Duration::from_secs(5), "still open after 5 s");
        }
    };
    let ((), a, b, c, d) =
        tokio::join!(dribbling, rest(&mut silent), rest(&mut half), rest(&mut idle), rest(&mut header));
    assert!([a, b, c, d].iter().all(String::is_empty));
    assert!(begin.elapsed() >= Duration::from_millis(500));
}

#[tokio::test]
async fn a_connection_waits_longer_between_requests_than_within_one() {
    // 1. Longer than a head may take, and then a head that does not end.
    let server = Server::start(Limits { idle: Duration::from_secs(60), ..quick() }).await;
    let mut stream = server.http1().await;
    for _ in 0..2 {
        stream.write_all(WHO.as_bytes()).await.unwrap();
        answer(&mut stream, "nobody").await;
        sleep(Duration::from_millis(700)).await;
    }
    assert_eq!(exchange(&mut stream, "GET /who HT").await, "");
    // 2. But not for ever.
    let server = Server::start(quick()).await;
    let mut stream = server.http1().await;
    stream.write_all(WHO.as_bytes()).await.unwrap();
    answer(&mut stream, "nobody").await;
    let begin = Instant::now();
    assert_eq!(rest(&mut stream).await, "");
    assert!(begin.elapsed() > Duration::from_millis(700), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_connection_of_http2_that_asks_nothing_is_closed() {
    let server = Server::start(quick()).await;
    let two = http2(&server.authority);
    two.get(format!("https://localhost:{}/who", server.port)).send().await.unwrap().text().await.unwrap();
    assert_eq!(server.connections(), 1);
    let begin = Instant::now();
    while server.connections() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(5), "still open after 5 s");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(begin.elapsed() > Duration::from_millis(700));
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let server = Server::start(quick()).await;
    let mut stream = server.http1().await;
    stream.write_all(b"GET /big HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let begin = Instant::now();
    while server.connections() > 0 {
        assert!(begin.elapsed() < Duration::from_secs(5), "still open after 5 s");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn headers_have_limits() {
    let server = Server::start(Limits::default()).await;
    let head = |extra: &str| format!("GET /who HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{extra}\r\n");
    let long = format!("x: {}\r\n", "y".repeat(16 * 1024));
    let many: String = (0..63).map(|n| format!("x{n}: y\r\n")).collect();
    let cases = [
        (head(&long), "HTTP/1.1 431"),
        (head(&many), "HTTP/1.1 431"),
        (head("content-length: 1\r\ncontent-length: 2\r\n"), "HTTP/1.1 400"),
        (head("content-length: 5\r\ntransfer-encoding: chunked\r\n"), "HTTP/1.1 411"),
        (head("x: y\r\n z\r\n"), "HTTP/1.1 400"),
        (head(&format!("x: {}\r\n", "y".repeat(8 * 1024))), "HTTP/1.1 200"),
    ];
    for (request, expected) in cases {
        let seen = exchange(&mut server.http1().await, &request).await;
        assert!(seen.starts_with(expected), "{expected}: {seen:.100} for {request:.100}");
    }
    let two = http2(&server.authority).get(format!("https://localhost:{}/who", server.port));
    let long = two.try_clone().unwrap().header("x", "y".repeat(17 * 1024)).send().await;
    assert!(long.is_err() || long.unwrap().status() == 431);
    let mut many = two;
    for n in 0..65 {
        many = many.header(format!("x{n}"), "y");
    }
    assert_eq!(many.send().await.unwrap().status(), 431);
}

#[tokio::test]
async fn connections_have_a_number() {
    let server = Server::start(Limits { connections_per_address: 2, ..Limits::default() }).await;
    let mut first = server.http1().await;
    let _second = server.http1().await;
    assert_eq!(server.connections(), 2);
    assert_eq!(rest(&mut server.tcp().await).await, "", "the third is closed at once");
    // Those who are there are served, and a seat that becomes free can be taken.
    first.write_all(WHO.as_bytes()).await.unwrap();
    answer(&mut first, "nobody").await;
    drop(first);
    while server.connections() > 1 {
        sleep(Duration::from_millis(5)).await;
    }
    answer(
        &mut {
            let mut next = server.http1().await;
            next.write_all(WHO.as_bytes()).await.unwrap();
            next
        },
        "nobody",
    )
    .await;
}

#[tokio::test]
async fn requests_finish_before_the_service_goes_down() {
    let mut server = Server::start(Limits::default()).await;
    let mut idle = server.http1().await;
    idle.write_all(WHO.as_bytes()).await.unwrap();
    answer(&mut idle, "nobody").await;
    let mut one = server.http1().await;
    one.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let two = tokio::spawn(http2(&server.authority).get(format!("https://localhost:{}/slow", server.port)).send());
    let connected = timeout(Duration::from_secs(5), async {
        while server.connections() < 3 {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(50)).await;
    });
    connected.await.unwrap();
    server.stop();
    assert_eq!(rest(&mut idle).await, "", "an idle connection is closed at once");
    let seen = rest(&mut one).await;
    assert!(seen.ends_with("done") && seen.contains("connection: close"), "{seen}");
    assert_eq!(two.await.unwrap().unwrap().text().await.unwrap(), "done");
    timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).await.is_err());
}

#[tokio::test]
async fn a_request_without_an_end_does_not_hold_the_service_up() {
    let mut server = Server::start(quick()).await;
    let mut never = server.http1().await;
    never.write_all(b"GET /never HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    server.stop();
    let begin = Instant::now();
    timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(900));
    assert_eq!(rest(&mut never).await, "");
}

#[tokio::test]
async fn a_new_certificate_is_used_from_the_next_connection_on() {
    let server = Server::start(Limits::default()).await;
    let mut before = server.http1().await;
    let new = made();
    server.tls.store(Arc::new(tls_config(new.chain.as_bytes(), &new.key, None).unwrap()));
    assert!(server.connect(&client(&server.authority, None)).await.is_err(), "the old authority is gone");
    let mut after = server.connect(&client(&new.authority, None)).await.unwrap();
    for stream in [&mut before, &mut after] {
        stream.write_all(WHO.as_bytes()).await.unwrap();
        answer(stream, "nobody").await;
    }
    assert_eq!(after.get_ref().0.peer_addr().unwrap().ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
}
