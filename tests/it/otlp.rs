//! The audit log at a collector of OpenTelemetry: all of it, in order, whatever the collector does, and nobody waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::Value;
use signet::audit::{Sent, sent};
use signet::client::Client;
use signet::config::{Sink, SinkKind};
use signet::otlp::Settings;
use signet::outbound::Place;
use signet::server::{Server, create};
use signet::types::ManualClock;
use signet::wire::SinkPosition;

use crate::judges::judge;
use crate::log::{BOUND, sign};
use crate::notices::{Manner, Receiver, certified};
use crate::process::{Installation, eventually};
use crate::server::{Devices, PROGRAM, TestServer, client, lasting, options};
use crate::wrap::{context, plain};

/// A collector that others made: it reads what it gets by their messages.
struct Judge {
    child: Child,
    port: u16,
    got: Arc<Mutex<Vec<Value>>>,
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Judge {
    fn start() -> Option<Self> {
        let python = judge("python")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/otlp_judge.py");
        let mut child = Command::new(python).arg(script).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap().parse().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        std::thread::spawn({
            let got = got.clone();
            move || {
                for line in lines.map_while(Result::ok) {
                    got.lock().unwrap().push(serde_json::from_str(&line).unwrap());
                }
            }
        });
        Some(Self { child, port, got })
    }

    fn got(&self) -> Vec<Value> {
        self.got.lock().unwrap().clone()
    }
}

/// A file of headers, for its owner alone.
fn headers_file(folder: &Path) -> PathBuf {
    let path = folder.join("collector.headers");
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    writeln!(file, "Authorization: Bearer hidden-token").unwrap();
    path
}

fn collector(url: &str, anchors: Option<PathBuf>, folder: &Path) -> Sink {
    let place = Place { address: url.parse().unwrap(), anchors };
    let settings = Settings { place, headers_file: Some(headers_file(folder)), patience: Duration::from_secs(1) };
    Sink { name: "collector".parse().unwrap(), kind: SinkKind::Otlp(settings), required: false }
}

/// A server whose log goes to a collector at that port.
async fn server(port: u16) -> (TestServer, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let sink = collector(&format!("http://127.0.0.1:{port}/v1/logs"), None, folder.path());
    let t = TestServer::configured(Devices::SoftHsm, |config| config.sinks = vec![sink]).await;
    t.key("release", "ecdsa-p256-sha256").await;
    (t, folder)
}

async fn standing(client: &Client) -> SinkPosition {
    client.status().await.unwrap().audit_sinks.remove(0)
}

/// Waits until the collector has all there is: a status is a record itself, which it may lack for a moment.
async fn caught_up(client: &Client) {
    let whole = async || Some(standing(client).await).filter(|sink| sink.problem.is_none() && sink.behind <= 2);
    eventually("the collector has all", whole).await;
}

/// The ids of the records in what a receiver got, with their indexes.
fn ids(receiver: &Receiver) -> Vec<(u64, String)> {
    let bodies: Vec<Value> = receiver.got().iter().map(|got| serde_json::from_str(got.body()).unwrap()).collect();
    let records =
        bodies.iter().flat_map(|body| body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap());
    let id = |record: &Value| {
        let uid = record["attributes"][0]["value"]["stringValue"].as_str().unwrap().to_owned();
        (record["attributes"][1]["value"]["intValue"].as_str().unwrap().parse().unwrap(), uid)
    };
    records.map(id).collect()
}

/// All records up to `size` came, and each has one id over all repeats.
fn all_are_there(receiver: &Receiver, size: u64) {
    let mut known = BTreeMap::new();
    for (index, id) in ids(receiver) {
        assert_eq!(known.entry(index).or_insert_with(|| id.clone()), &id, "record {index}");
    }
    assert!((0..size).all(|index| known.contains_key(&index)), "{size}: {:?}", known.keys());
}

fn position(t: &TestServer) -> Sent {
    sent(&t.data().join("audit"), &"collector".parse().unwrap()).unwrap()
}

#[tokio::test]
async fn a_collector_of_others_reads_each_record_once_over_restarts() {
    let Some(judge) = Judge::start() else { return };
    let (mut t, _place) = server(judge.port).await;
    // 1. A client's trace is that of its records.
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let url = format!("https://{}/api/v1/status", t.server().address());
    let answer = t.http().get(url).bearer_auth(t.token()).header("Request-Id", trace).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    sign(&t.client, "one").await.unwrap();
    t.client(None).status().await.unwrap_err();
    caught_up(&t.client).await;
    // 2. Everywhere it is told how far it is.
    let metrics = t.client.metrics().await.unwrap();
    for line in
        ["signet_audit_sink_up{sink=\"collector\"} 1", "signet_audit_sink_rejected_records{sink=\"collector\"} 0"]
    {
        assert!(metrics.lines().any(|one| one == line), "{metrics}");
    }
    let status = standing(&t.client).await;
    assert!(status.kind == "otlp" && status.size > 5 && !status.required, "{status:?}");
    // 3. After restarts it goes on where it ended.
    for _ in 0..2 {
        t.restart().await;
        sign(&t.client, "again").await.unwrap();
        caught_up(&t.client).await;
    }
    t.stop().await;
    let at = position(&t);
    let findings = signet::doctor::examine(&t.config, Path::new(PROGRAM)).await;
    let finding = findings.iter().find(|one| one.what == "sink collector").unwrap();
    assert!(finding.mend.is_none() && finding.text.contains(&format!("{} of {}", at.size, at.size)), "{finding:?}");
    let got =
        eventually("all were printed", async || Some(judge.got()).filter(|got| got.len() as u64 >= at.size)).await;
    let indexes: Vec<_> = got.iter().map(|one| one["attributes"]["signet.index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, (0..at.size).collect::<Vec<_>>());
    let ids: BTreeSet<_> = got.iter().map(|one| one["attributes"]["log.record.uid"].as_str().unwrap()).collect();
    assert_eq!(ids.len() as u64, at.size);
    // 4. What it understood is what the log says.
    for one in &got {
        let (record, attributes) = (&one["record"], &one["attributes"]);
        let time: Timestamp = record["time"].as_str().unwrap().parse().unwrap();
        assert_eq!(i128::from(one["time"].as_u64().unwrap()), time.as_nanosecond());
        assert_eq!((&attributes["user.id"], &attributes["signet.action"]), (&record["principal"], &record["action"]));
        assert_eq!((&one["event"], &one["authorization"]), (&"signet.audit".into(), &"Bearer hidden-token".into()));
        let traced = record["request"] == trace;
        assert_eq!(one["trace"].as_str().unwrap(), if traced { trace } else { "" });
        let failed = !matches!(record["outcome"].as_str(), None | Some("" | "ok"));
        assert_eq!(attributes.get("error.type").is_some(), failed, "{one}");
        if record["phase"] == "refused" {
            assert_eq!(one["severity"], "SEVERITY_NUMBER_WARN");
        }
    }
    assert!(got.iter().any(|one| one["trace"] == trace) && got.iter().any(|one| one["record"]["phase"] == "refused"));
    assert!(!format!("{:?}", t.config).contains("hidden-token"));
}

#[tokio::test]
async fn a_collector_that_fails_keeps_nobody_waiting_and_gets_all_in_the_end() {
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    let (mut t, _place) = server(receiver.address.port()).await;
    let client = t.impatient_client();
    let manners = [
        (Manner::Answer("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n"), "status 503"),
        (Manner::Answer("HTTP/1.1 429 x\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n"), "status 429"),
        (Manner::Status(500), "status 500"),
        (Manner::Status(404), "status 404"),
        (Manner::Status(401), "status 401"),
        (Manner::Status(400), "status 400"),
        (Manner::Redirect(other.address), "redirects are not followed"),
        (Manner::Silent, "no answer within 1 s"),
        (Manner::Closes, "no answer in HTTP"),
        (Manner::Chatty, "no answer in HTTP"),
        (Manner::Strange, "no answer in HTTP"),
        (Manner::Status(200), "no answer of at most 65536 bytes"),
    ];
    for (manner, why) in manners {
        caught_up(&client).await;
        receiver.behave(manner);
        let began = Instant::now();
        for text in ["one", "two", "three"] {
            sign(&client, text).await.unwrap();
        }
        assert!(began.elapsed() < BOUND, "{manner:?}: {:?}", began.elapsed());
        client.ready().await.unwrap();
        let told = async || standing(&client).await.problem.filter(|problem| problem.contains(why));
        let problem = eventually("it is told", told).await;
        assert!(problem.starts_with("sink collector of the audit log: http://127.0.0.1"), "{problem}");
        receiver.behave(Manner::Status(204));
    }
    caught_up(&client).await;
    let position = standing(&client).await;
    assert_eq!(position.rejected, 0, "{position:?}");
    // What does not pass by itself is on record, and that it is over.
    let records = client.audit_records(0, Some(1000)).await.unwrap().records;
    let told: Vec<_> = records.iter().filter(|one| one["principal"] == "system/log").collect();
    let told = |part: &str| told.iter().any(|one| one["reason"].as_str().unwrap_or_default().contains(part));
    assert!(told("status 404") && told("again, after") && !told("status 429"));
    t.stop().await;
    assert!(other.got().is_empty());
    all_are_there(&receiver, position.size);
}

#[tokio::test]
async fn a_collector_is_not_asked_again_before_the_time_that_it_asked_for() {
    let receiver = Receiver::start().await;
    let (t, _place) = server(receiver.address.port()).await;
    caught_up(&t.client).await;
    receiver.behave(Manner::Answer("HTTP/1.1 503 x\r\nretry-after: 5\r\ncontent-length: 0\r\n\r\n"));
    let before = receiver.got().len();
    sign(&t.client, "one").await.unwrap();
    eventually("it is asked", async || (receiver.got().len() > before).then_some(())).await;
    let (began, asked) = (Instant::now(), receiver.got().len());
    eventually("it is asked again", async || (receiver.got().len() > asked).then_some(())).await;
    assert!(began.elapsed() > Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_a_collector_does_not_take_holds_up_nothing_and_is_counted() {
    let receiver = Receiver::start().await;
    let (mut t, _place) = server(receiver.address.port()).await;
    t.key("data", "aes256-gcm-derived").await;
    caught_up(&t.client).await;
    // 1. It never takes a certain text: that record comes without it, all others as they are.
    receiver.behave(Manner::Refuses("poison"));
    for text in ["a", "poison", "b"] {
        t.client.wrap(&crate::server::name("data"), &plain(b"x", &context(&[("text", text)]))).await.unwrap();
    }
    let rejected = async || Some(standing(&t.client).await.rejected).filter(|rejected| *rejected > 0);
    assert_eq!(eventually("it is counted", rejected).await, 1);
    caught_up(&t.client).await;
    let status = t.client.status().await.unwrap();
    assert_eq!(status.audit_sinks[0].rejected, 1);
    assert!(
        status.problems.iter().any(|one| one == "sink collector did not accept 1 records"),
        "{:?}",
        status.problems
    );
    // 2. It says itself that it dropped some: they are not sent again.
    receiver.behave(Manner::Answer(
        "HTTP/1.1 200 x\r\ncontent-length: 67\r\n\r\n{\"partialSuccess\":{\"rejectedLogRecords\":\"1\",\"errorMessage\":\"full\"}}",
    ));
    let before = receiver.got().len();
    sign(&t.client, "one").await.unwrap();
    let rejected = async || Some(standing(&t.client).await.rejected).filter(|rejected| *rejected > 1);
    eventually("it is counted", rejected).await;
    receiver.behave(Manner::Status(204));
    caught_up(&t.client).await;
    assert!(receiver.got().len() > before);
    let again = ids(&receiver);
    let tail: Vec<_> = again.iter().rev().take(3).collect();
    assert!(tail.windows(2).all(|two| two[0].0 == two[1].0 + 1), "{tail:?}");
    // 3. Over a restart the count is kept.
    let counted = standing(&t.client).await.rejected;
    t.restart().await;
    caught_up(&t.client).await;
    assert_eq!(standing(&t.client).await.rejected, counted);
    // 4. Where the log is another than the one that was sent, it is told.
    t.stop().await;
    let path = t.data().join("audit/sent-collector");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("signet-sent 1 ", "signet-sent 1 1")).unwrap();
    t.start_again().await.unwrap();
    let problem = eventually("it is told", async || standing(&t.client).await.problem).await;
    assert!(problem.contains("sent-collector tells of records that the log does not hold"), "{problem}");
    std::fs::remove_file(&path).unwrap();
    caught_up(&t.client).await;
    all_are_there(&receiver, standing(&t.client).await.size);
}

#[tokio::test]
async fn only_a_collector_that_proves_its_name_gets_the_log() {
    let (tls, anchor) = certified(&["localhost"]);
    let (_, stranger) = certified(&["localhost"]);
    let receiver = Receiver::with(Some(tls)).await;
    let folder = tempfile::tempdir().unwrap();
    let anchors = folder.path().join("anchors.pem");
    std::fs::write(&anchors, stranger).unwrap();
    let url = format!("https://localhost:{}/v1/logs", receiver.address.port());
    let sink = collector(&url, Some(anchors.clone()), folder.path());
    let t = TestServer::configured(Devices::SoftHsm, |config| config.sinks = vec![sink]).await;
    let told = async |part: &str| {
        let told = async || standing(&t.client).await.problem.filter(|problem| problem.contains(part));
        eventually(part, told).await
    };
    told("does not prove who it is").await;
    assert!(receiver.got().is_empty());
    // A file of headers that others can read is not read; both files are looked at again by the running service.
    let headers = folder.path().join("collector.headers");
    let mode = |mode| std::fs::set_permissions(&headers, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    std::fs::write(&anchors, anchor).unwrap();
    told("others can read or change the headers file").await;
    let findings = signet::doctor::examine(&t.config, Path::new(PROGRAM)).await;
    assert!(findings.iter().any(|one| one.what == "sink collector" && one.mend.is_some()), "{findings:?}");
    mode(0o600);
    caught_up(&t.client).await;
    assert!(receiver.got().iter().all(|got| got.header("authorization") == "Bearer hidden-token"));
}

/// The points on the way of writing down how far a collector is.
const POINTS: &[&str] = &["sent.before_name", "sent.named"];

/// All points of this module, for the register.
pub(crate) fn points() -> impl Iterator<Item = &'static str> {
    POINTS.iter().copied()
}

#[tokio::test]
async fn a_death_loses_no_record_on_its_way_to_a_collector() {
    let mut base = Installation::bare(Devices::SoftHsm);
    let config = signet::config::Config::read(&base.config()).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the processes of these tests live in the time of the system")]
    let clock = ManualClock::at(Timestamp::now());
    let first = create(&config, &options(&clock)).await.unwrap().token.to_string();
    let server = Server::start(&config, options(&clock)).await.unwrap();
    base.token = lasting(&client(&server, Some(&first))).await;
    server.stop().await.unwrap();
    for point in POINTS {
        let (receiver, t) = (Receiver::start().await, base.copy());
        let text = std::fs::read_to_string(t.config()).unwrap();
        let port = receiver.address.port();
        let stanza = format!(
            "\n[[audit.sinks]]\nkind = \"otlp\"\nname = \"collector\"\nurl = \"http://127.0.0.1:{port}/v1/logs\"\n"
        );
        std::fs::write(t.config(), text + &stanza).unwrap();
        t.serve_until(point).dies(point).await;
        assert!(!receiver.got().is_empty(), "{point}");
        let service = t.serve().await;
        let client = t.client(Some(&t.token));
        caught_up(&client).await;
        all_are_there(&receiver, standing(&client).await.size);
        service.kill().await;
        t.audit_is_good();
    }
}
