//! A receiver outside is told of certificates that end, at least once and under one id, whatever it does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use signet::config::{Config, Ending};
use signet::outbound::Place;
use signet::server::{Server, create};
use signet::types::ManualClock;
use signet::webhook::{Settings, Webhook};
use signet::wire::{CertificateWanted, IssueCertificate, IssueCertificates, RevokeCertificate};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::issuers::{new_issuer, root, server, wanted};
use crate::judges::judge;
use crate::process::{Installation, eventually};
use crate::server::{Devices, TestServer, client, lasting, options};

/// What a receiver got.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    head: String,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Got {
    pub(crate) fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub(crate) fn body(&self) -> &str {
        &self.body
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        &self.headers[name]
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The serial numbers that it tells.
    pub(crate) fn serials(&self) -> Vec<String> {
        let body = self.json();
        let all = body["data"]["certificates"].as_array().unwrap();
        all.iter().map(|one| one["serial"].as_str().unwrap().to_owned()).collect()
    }
}

/// What a receiver does with what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers with that status, and a body that never ends.
    Status(u16),
    /// Answers with these bytes.
    Answer(&'static str),
    /// Answers with status 400 where that stands in the body, with 204 elsewhere.
    Refuses(&'static str),
    /// Sends whoever asks to another receiver.
    Redirect(SocketAddr),
    /// Reads, and says nothing.
    Silent,
    /// Reads, and hangs up.
    Closes,
    /// Sends headers without end.
    Chatty,
    /// Does not speak HTTP.
    Strange,
}

/// A receiver of notices on this machine.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    manner: Arc<Mutex<Manner>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// Listens no more, once this returns.
    pub(crate) async fn leave(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    pub(crate) async fn start() -> Self {
        Self::with(None).await
    }

    pub(crate) async fn with(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (got, manner) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Manner::Status(204))));
        let task = tokio::spawn({
            let (got, manner) = (got.clone(), manner.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (got, manner, tls) = (got.clone(), manner.clone(), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => take(stream, &got, &manner).await,
                            Some(tls) => match tls.accept(stream).await {
                                Ok(stream) => take(stream, &got, &manner).await,
                                Err(_) => Some(()),
                            },
                        }
                    });
                }
            }
        });
        Self { address, got, manner, task }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// What it got so far.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

/// One request. Ends early where the other side has gone.
async fn take<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    all: &Mutex<Vec<Got>>,
    manner: &Mutex<Manner>,
) -> Option<()> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        (stream.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let (first, rest) = text.split_once("\r\n").unwrap();
    let headers: BTreeMap<_, _> = rest
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < head + length {
        (stream.read_buf(&mut bytes).await.ok()? > 0).then_some(())?;
    }
    let body = String::from_utf8(bytes[head..].to_vec()).unwrap();
    let mut manner = *manner.lock().unwrap();
    if let Manner::Refuses(text) = manner {
        manner = Manner::Status(if body.contains(text) { 400 } else { 204 });
    }
    all.lock().unwrap().push(Got { head: first.to_owned(), headers, body });
    match manner {
        Manner::Status(status) => {
            stream.write_all(format!("HTTP/1.1 {status} x\r\n").as_bytes()).await.ok()?;
            // "204" has no body, and whatever follows is not looked at.
            stream.write_all(b"content-length: 1000000000\r\n\r\n").await.ok()?;
            loop {
                stream.write_all(&[b'x'; 4096]).await.ok()?;
            }
        }
        Manner::Answer(text) => stream.write_all(text.as_bytes()).await.ok(),
        Manner::Refuses(_) => None,
        Manner::Redirect(to) => {
            let answer = format!("HTTP/1.1 307 x\r\nlocation: http://{to}/other\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.ok()
        }
        Manner::Silent => stream.read_buf(&mut bytes).await.ok().map(drop),
        Manner::Closes => Some(()),
        Manner::Chatty => {
            stream.write_all(b"HTTP/1.1 200 x\r\n").await.ok()?;
            loop {
                stream.write_all(b"x-more: and more\r\n").await.ok()?;
            }
        }
        Manner::Strange => stream.write_all(b"220 mail.example ESMTP\r\n").await.ok(),
    }
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEXT_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD3v1dA0DDy5A=";

/// A file with secrets, for its owner alone.
pub(crate) fn secret_file(folder: &Path) -> PathBuf {
    let path = folder.join("webhook.secret");
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    writeln!(file, "{NEXT_SECRET}\n{SECRET}").unwrap();
    path
}

fn ending(url: &str, folder: &Path) -> Ending {
    let webhook = Settings {
        place: Place { address: url.parse().unwrap(), anchors: None },
        secret_file: secret_file(folder),
        patience: Duration::from_secs(1),
    };
    Ending { webhook, before: vec![] }
}

/// A server that tells a receiver, with an issuer `fleet`.
async fn telling(receiver: &Receiver, folder: &Path) -> TestServer {
    let ending = ending(&format!("http://{}/hook?key=hidden", receiver.address), folder);
    let t = TestServer::configured(Devices::SoftHsm, |config| config.ending = Some(ending)).await;
    root(&t, "fleet").await;
    t
}

/// Looks at the ends of certificates, and sends what waits.
async fn tell(t: &TestServer) {
    let authority = t.server().service().authority();
    authority.look_at_ends().await;
    authority.send_notices().await;
}

/// What the metrics count, and what the status says of the receiver.
async fn known(t: &TestServer) -> (BTreeMap<String, u64>, Option<String>) {
    let metrics = t.client.metrics().await.unwrap();
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("signet_notices_"));
    let counts = lines.filter_map(|line| line.split_once(' ')).map(|(name, count)| {
        let name = name.trim_start_matches("total{outcome=\"").trim_end_matches("\"}");
        (name.to_owned(), count.parse().unwrap())
    });
    let counts = counts.collect();
    let problems = t.client.status().await.unwrap().problems;
    (counts, problems.into_iter().find(|problem| problem.contains("receiver")))
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

#[tokio::test]
async fn what_is_late_is_told_once_over_restarts_and_signed_by_every_secret() {
    let (receiver, place) = (Receiver::start().await, tempfile::tempdir().unwrap());
    let mut t = telling(&receiver, place.path()).await;
    let short = CertificateWanted { lifetime: Some("5m".parse().unwrap()), ..wanted("dns:a.example") };
    let body = IssueCertificate { profile: "server".parse().unwrap(), request: short };
    let first = t.client.issue(&"fleet".parse().unwrap(), &body).await.unwrap();
    tell(&t).await;
    assert!(receiver.got().is_empty());
    // 1. Late: an eighth of its life is left.
    t.clock.advance(first.not_after.duration_since(t.clock_now()) - SignedDuration::from_secs(30));
    tell(&t).await;
    let [got] = &receiver.got()[..] else { panic!("{:?}", receiver.got()) };
    assert_eq!((got.head.as_str(), got.serials()), ("POST /hook?key=hidden HTTP/1.1", vec![first.serial.clone()]));
    let body = got.json();
    let about = &body["data"]["certificates"][0];
    assert_eq!((&body["type"], &body["data"]["late"]), (&"certificates.ending".into(), &1.into()));
    assert_eq!((&about["names"], &about["late"]), (&serde_json::json!(["dns:a.example"]), &true.into()));
    assert_eq!((&about["issuer"], &about["profile"]), (&"default:fleet".into(), &"default:server".into()));
    assert_eq!(about["not_after"].as_str().unwrap(), first.not_after.to_string());
    // 2. The library of Standard Webhooks takes it by either secret, and no other message by these signatures.
    if let Some(python) = judge("python") {
        let verify = |secret: &str, body: &str| {
            let mut command = Command::new(&python);
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/webhook_judge.py");
            let mut child = command
                .args([script, secret])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let message = serde_json::json!({"headers": got.headers, "body": body});
            child.stdin.take().unwrap().write_all(message.to_string().as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(said) }
        };
        for secret in [SECRET, NEXT_SECRET] {
            let read: serde_json::Value = serde_json::from_str(&verify(secret, &got.body).unwrap()).unwrap();
            assert_eq!(read, body);
        }
        let other = verify(SECRET, &got.body.replace("a.example", "b.example")).unwrap_err();
        assert!(other.contains("WebhookVerificationError"), "{other}");
        let stranger = verify("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &got.body).unwrap_err();
        assert!(stranger.contains("WebhookVerificationError"), "{stranger}");
    }
    // 3. Once, whatever comes.
    tell(&t).await;
    t.restart().await;
    tell(&t).await;
    assert_eq!(receiver.got().len(), 1);
    let (counts, problem) = known(&t).await;
    assert_eq!((counts.get("waiting"), problem), (Some(&0), None));
    // 4. What is covered is not told; once its successor is revoked, it is.
    let old = server(&t, "fleet", "dns:b.example").await;
    t.clock.advance(hours(22));
    let new = server(&t, "fleet", "dns:b.example").await;
    tell(&t).await;
    assert_eq!(receiver.got().len(), 1);
    t.client.revoke(&new.serial, &RevokeCertificate::default()).await.unwrap();
    tell(&t).await;
    assert_eq!(receiver.got()[1].serials(), [old.serial]);
    assert_ne!(receiver.got()[1].id(), receiver.got()[0].id());
    // 5. All of it is recorded; and with the end of the certificates it is forgotten.
    t.clock.advance(hours(3));
    tell(&t).await;
    let records = t.client.audit_records(0, Some(1000)).await.unwrap().records;
    let told = |state: &str| {
        let of = records.iter().filter(|one| one["principal"] == "system/notice");
        let of = of.filter(|one| one["facts"]["state"].as_str().unwrap_or_default() == state);
        of.map(|one| one["facts"]["notice"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let ids: Vec<_> = receiver.got().iter().map(|got| got.id().to_owned()).collect();
    assert_eq!((told("written"), told("delivered"), told("").len()), (ids.clone(), ids, 2));
}

#[tokio::test]
async fn a_receiver_that_fails_gets_the_same_notice_again_and_holds_up_nobody() {
    let (receiver, other, place) = (Receiver::start().await, Receiver::start().await, tempfile::tempdir().unwrap());
    let mut t = telling(&receiver, place.path()).await;
    let late = server(&t, "fleet", "dns:a.example").await;
    t.clock.advance(hours(22));
    let manners = [
        (Manner::Status(500), "answers with status 500"),
        (Manner::Status(404), "answers with status 404"),
        (Manner::Redirect(other.address), "answers with status 307: redirects are not followed"),
        (Manner::Silent, "gave no answer within 1 s"),
        (Manner::Closes, "gave no answer in HTTP"),
        (Manner::Chatty, "gave no answer in HTTP"),
        (Manner::Strange, "gave no answer in HTTP"),
    ];
    for (number, (manner, why)) in (1_u64..).zip(manners) {
        receiver.behave(manner);
        // Twice: the second time it has its rest.
        tell(&t).await;
        tell(&t).await;
        assert_eq!(receiver.got().len() as u64, number, "{manner:?}");
        let (counts, problem) = known(&t).await;
        let problem = problem.unwrap();
        assert_eq!((counts["waiting"], counts["failed"]), (1, number));
        assert!(problem.ends_with(&format!("http://{} {why}", receiver.address)), "{manner:?}: {problem}");
        assert!(problem.contains(&format!("failed {number} times")) && !problem.contains("hidden"), "{problem}");
        t.clock.advance(SignedDuration::from_secs(900));
    }
    // The certificate is over by now; whoever was away is told all the same.
    t.clock.advance(hours(1));
    t.restart().await;
    receiver.behave(Manner::Status(202));
    tell(&t).await;
    let got = receiver.got();
    assert_eq!(got.len(), manners.len() + 1);
    assert!(got.iter().all(|one| one.id() == got[0].id() && one.body == got[0].body));
    assert_eq!(got[0].serials(), [late.serial]);
    let stamps: BTreeSet<_> = got.iter().map(|one| one.headers["webhook-timestamp"].clone()).collect();
    assert_eq!(stamps.len(), got.len(), "each attempt has its own time");
    let (counts, problem) = known(&t).await;
    assert_eq!((counts["waiting"], counts["delivered"], problem), (0, 1, None));
    assert!(other.got().is_empty(), "a redirect was followed");
}

#[tokio::test]
async fn nobody_there_is_a_failure_and_ends_after_three_days() {
    let (receiver, place) = (Receiver::start().await, tempfile::tempdir().unwrap());
    let t = telling(&receiver, place.path()).await;
    server(&t, "fleet", "dns:a.example").await;
    t.clock.advance(hours(22));
    receiver.leave().await;
    tell(&t).await;
    let (counts, problem) = known(&t).await;
    assert!(counts["waiting"] == 1 && problem.unwrap().ends_with("takes no connection"));
    // What can no longer be signed is not sent, and the file is read again each time.
    std::fs::write(place.path().join("webhook.secret"), "").unwrap();
    t.clock.advance(hours(71));
    tell(&t).await;
    let (counts, problem) = known(&t).await;
    assert!(counts["failed"] == 2 && problem.unwrap().contains("does not hold one to 4 secrets"));
    t.clock.advance(hours(2));
    tell(&t).await;
    let (counts, _) = known(&t).await;
    assert_eq!((counts["waiting"], counts["given_up"]), (0, 1));
}

#[tokio::test]
async fn many_certificates_share_notices_and_one_that_is_never_taken_holds_up_no_other() {
    let (receiver, place) = (Receiver::start().await, tempfile::tempdir().unwrap());
    let t = telling(&receiver, place.path()).await;
    let items = (0..250).map(|number| wanted(&format!("dns:h{number}.example"))).collect();
    let body = IssueCertificates { profile: "server".parse().unwrap(), items };
    let made = t.client.issue_batch(&"fleet".parse().unwrap(), &body).await.unwrap().results;
    let made: BTreeSet<_> = made.into_iter().map(|one| one.ok.unwrap().serial).collect();
    t.clock.advance(hours(22));
    receiver.behave(Manner::Closes);
    tell(&t).await;
    assert_eq!(known(&t).await.0["waiting"], 3);
    let poison = receiver.got()[0].id().to_owned();
    // The next ones have their turn before it comes again.
    t.clock.advance(hours(1));
    receiver.behave(Manner::Status(200));
    tell(&t).await;
    let got = receiver.got();
    let mut sizes: Vec<_> = got[1..].iter().map(|one| one.serials().len()).collect();
    sizes.sort_unstable();
    assert_eq!((sizes, got[3].id()), (vec![50, 100, 100], poison.as_str()));
    assert!(got.iter().all(|one| one.json()["data"]["late"] == 250 && one.body.len() < 64 * 1024));
    let told: Vec<_> = got[1..].iter().flat_map(Got::serials).collect();
    assert_eq!((told.len(), told.into_iter().collect::<BTreeSet<_>>()), (250, made));
}

/// A receiver's certificate for these names, and the authority that signed it, in PEM.
pub(crate) fn certified(names: &[&str]) -> (TlsAcceptor, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let anchor = params.self_signed(&key).unwrap().pem();
    let authority = rcgen::Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names).unwrap().signed_by(&own, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.serialize_der().into());
    let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    (TlsAcceptor::from(Arc::new(config)), anchor)
}

#[tokio::test]
async fn only_a_receiver_that_proves_its_name_is_told() {
    let place = tempfile::tempdir().unwrap();
    let secret = secret_file(place.path());
    let send = async |receiver: &Receiver, host: &str, anchor: &str| {
        let anchors = place.path().join("anchors.pem");
        std::fs::write(&anchors, anchor).unwrap();
        let address = format!("https://{host}:{}/hook", receiver.address.port()).parse().unwrap();
        let patience = Duration::from_secs(1);
        let place = Place { address, anchors: Some(anchors) };
        let webhook = Webhook::new(Settings { place, secret_file: secret.clone(), patience });
        let message = signet::webhook::Message { id: "msg_1", at: Timestamp::UNIX_EPOCH, body: "{}" };
        webhook.unwrap().send(message).await.map_err(|error| error.chain())
    };
    let (tls, anchor) = certified(&["localhost", "127.0.0.1"]);
    let good = Receiver::with(Some(tls)).await;
    for host in ["localhost", "127.0.0.1"] {
        send(&good, host, &anchor).await.unwrap();
    }
    assert_eq!(good.got().len(), 2);
    // Signed by somebody else; for another name; without TLS.
    let (tls, other) = certified(&["elsewhere.example"]);
    let elsewhere = Receiver::with(Some(tls)).await;
    let clear = Receiver::start().await;
    for (receiver, anchor) in [(&good, &other), (&elsewhere, &other), (&clear, &other)] {
        let why = send(receiver, "localhost", anchor).await.unwrap_err();
        assert!(why.contains("does not prove who it is") || why.ends_with("gave no answer within 1 s"), "{why}");
    }
    assert_eq!((good.got().len(), elsewhere.got().len(), clear.got().len()), (2, 0, 0));
}

/// An installation whose certificate is late by now, and that tells a receiver of it. `told` makes it one that was told already, of a
/// certificate that is over.
pub(crate) async fn installation(receiver: &Receiver, told: bool) -> Installation {
    let mut installation = Installation::bare(Devices::SoftHsm);
    let mut config = Config::read(&installation.config()).unwrap();
    if told {
        config.ending = Some(ending(&format!("http://{}", receiver.address), installation.folder()));
    }
    #[expect(clippy::disallowed_methods, reason = "the processes of these tests live in the time of the system")]
    let clock = ManualClock::at(Timestamp::now().checked_sub(hours(if told { 30 } else { 22 })).unwrap());
    let first = create(&config, &options(&clock)).await.unwrap().token.to_string();
    let server = Server::start(&config, options(&clock)).await.unwrap();
    installation.token = lasting(&client(&server, Some(&first))).await;
    let client = client(&server, Some(&installation.token));
    client.create_issuer(&new_issuer("fleet", "hsm", "ecdsa-p256-sha256")).await.unwrap();
    let body = IssueCertificate { profile: "server".parse().unwrap(), request: wanted("dns:a.example") };
    client.issue(&"fleet".parse().unwrap(), &body).await.unwrap();
    if told {
        clock.advance(hours(22));
        let authority = server.service().authority();
        authority.look_at_ends().await;
        authority.send_notices().await;
    }
    server.stop().await.unwrap();
    installation
}

/// Has the service of an installation tell a receiver.
pub(crate) fn configure(t: &Installation, receiver: &Receiver) {
    let secret = t.folder().join("webhook.secret");
    if !secret.exists() {
        secret_file(t.folder());
    }
    let text = std::fs::read_to_string(t.config()).unwrap();
    let stanza = format!(
        "\n[expiry.webhook]\nurl = \"http://localhost:{}/hook\"\nsecret_file = {secret:?}\nbefore = [\"7d\"]\ntimeout = \"60s\"\n",
        receiver.address.port()
    );
    std::fs::write(t.config(), text + &stanza).unwrap();
}

#[tokio::test]
async fn a_service_tells_by_itself_and_a_receiver_that_hangs_delays_neither_its_work_nor_its_end() {
    let receiver = Receiver::start().await;
    let t = installation(&receiver, false).await;
    configure(&t, &receiver);
    receiver.behave(Manner::Silent);
    let mut service = t.serve().await;
    let got = eventually("the receiver is told", async || receiver.got().first().cloned()).await;
    let client = t.client(Some(&t.token));
    let body = IssueCertificate { profile: "server".parse().unwrap(), request: wanted("dns:b.example") };
    client.issue(&"fleet".parse().unwrap(), &body).await.unwrap();
    let began = Instant::now();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(service.pid()).unwrap()).unwrap(),
        rustix::process::Signal::TERM,
    )
    .unwrap();
    assert!(service.ended().await.success(), "{}", service.said());
    assert!(began.elapsed() < Duration::from_secs(20), "the end took {:?}", began.elapsed());
    // It is told after the next start, by the same id.
    receiver.behave(Manner::Status(200));
    let service = t.serve().await;
    let again = eventually("the receiver is told again", async || receiver.got().get(1).cloned()).await;
    assert_eq!((again.id(), &again.body), (got.id(), &got.body));
    service.kill().await;
    t.audit_is_good();
    // A secret that others can read is no secret: the service says so, and does not start.
    let secret = t.folder().join("webhook.secret");
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mut refused = t.command(&["serve", "--config", t.config().to_str().unwrap()], None);
    assert!(!refused.ended().await.success());
    assert!(refused.said().contains(&format!("hint: chmod 600 {}", secret.display())), "{}", refused.said());
}
