//! The audit log in an archive, in a folder or in the bucket of a store that others made: each segment once it is closed, whatever happens
//! on the way, and verified from what lies there alone.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::{Value, json};
use signet::audit::checkpoint::public_keys_from_pem;
use signet::audit::{Receipts, verify, verify_archived};
use signet::bucket::{Bucket, Settings};
use signet::client::Client;
use signet::config::{Archive, Config, Retention, Sink, SinkKind};
use signet::error::{Error, Kind, Result};
use signet::server::{Server, create};
use signet::types::ManualClock;
use signet::wire::{PruneAudit, SinkPosition};

use crate::judges::judge;
use crate::notices::{Manner, Receiver};
use crate::process::{Installation, eventually};
use crate::server::{Devices, PROGRAM, TestServer, client, lasting, name, new_key, options};
use crate::wrap::{context, plain};

/// A segment of the tests: a few records with long contexts.
const SEGMENT: u64 = 64 * 1024;

/// A store that others made, with a bucket.
struct Store {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    about: Value,
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Store {
    fn start() -> Option<Self> {
        let python = judge("python")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/judges/s3_judge.py");
        let (pipe, out, err) = (Stdio::piped(), Stdio::piped(), Stdio::null());
        let mut child = Command::new(python).arg(script).stdin(pipe).stdout(out).stderr(err).spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut store = Self { child, orders, answers, about: Value::Null };
        store.about = store.line();
        Some(store)
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, order: &Value) -> Value {
        writeln!(self.orders, "{order}").unwrap();
        self.line()
    }

    fn names(&mut self) -> Vec<String> {
        serde_json::from_value(self.ask(&json!({"do": "list"}))).unwrap()
    }

    fn get(&mut self, key: &str) -> Vec<u8> {
        BASE64.decode(self.ask(&json!({"do": "get", "key": key})).as_str().unwrap()).unwrap()
    }

    fn put(&mut self, key: &str, body: &[u8]) {
        self.ask(&json!({"do": "put", "key": key, "body": BASE64.encode(body)}));
    }

    fn text(&self, what: &str) -> String {
        self.about[what].as_str().unwrap().to_owned()
    }

    /// The good credentials, in a file.
    fn credentials(&self, folder: &Path) -> PathBuf {
        credentials(folder, &self.text("id"), &self.text("secret"))
    }

    fn settings(&self, prefix: &str, credentials: PathBuf) -> Settings {
        let address = format!("s3://{}/{prefix}", self.text("bucket"));
        Settings::new(&address, None, Some(self.text("endpoint")), None, credentials).unwrap()
    }
}

/// A file of credentials, for its owner alone; written over what is there.
fn credentials(folder: &Path, id: &str, secret: &str) -> PathBuf {
    let path = folder.join("s3.credentials");
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
    writeln!(file, "[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}").unwrap();
    path
}

fn archived(kind: SinkKind) -> impl FnOnce(&mut Config) {
    |config| {
        config.segment_bytes = SEGMENT;
        config.sinks = vec![Sink { name: "archive".parse().unwrap(), kind, required: false }];
    }
}

/// Writes as many records as make a segment.
async fn fill(client: &Client) {
    let filler = "x".repeat(8000);
    for _ in 0..9 {
        client.wrap(&name("data"), &plain(b"x", &context(&[("filler", &filler)]))).await.unwrap();
    }
}

async fn standing(client: &Client) -> SinkPosition {
    client.status().await.unwrap().audit_sinks.remove(0)
}

/// Waits until the archive has all segments that are closed now.
async fn caught_up(client: &Client, data: &Path) -> SinkPosition {
    let names =
        std::fs::read_dir(data.join("audit")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let first = |name: String| name.strip_prefix("log-")?.strip_suffix(".jsonl")?.parse::<u64>().ok();
    let closed = names.filter_map(first).max().unwrap();
    let all = async || Some(standing(client).await).filter(|sink| sink.problem.is_none() && sink.size >= closed);
    eventually("the archive has all closed segments", all).await
}

async fn told(client: &Client, part: &str) -> String {
    eventually(part, async || standing(client).await.problem.filter(|problem| problem.contains(part))).await
}

/// A verb of ours, with how the store is reached: its exit code, and all that it said.
fn run(words: &[&str], store: &[&str]) -> (i32, String) {
    let said = Command::new(PROGRAM).args(words).args(store).env_remove("SIGNET_CONFIG").output().unwrap();
    (said.status.code().unwrap(), String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
}

/// A store whose clock is another.
const SKEWED: &str = "HTTP/1.1 403 x\r\ndate: Fri, 02 Jan 2026 03:04:05 GMT\r\ncontent-length: 48\r\n\r\n\
    <Error><Code>RequestTimeTooSkewed</Code></Error>";

#[tokio::test]
async fn closed_segments_go_to_a_bucket_of_others_and_are_verified_from_there() {
    let Some(mut store) = Store::start() else { return };
    let place = tempfile::tempdir().unwrap();
    let secret = store.credentials(place.path());
    let settings = store.settings("a", secret.clone());
    let mut t = TestServer::configured(Devices::SoftHsm, archived(SinkKind::Archive(Archive::Bucket(settings)))).await;
    t.key("data", "aes256-gcm-derived").await;
    // 1. As they are closed, and after a restart.
    for round in 1..=2 {
        fill(&t.client).await;
        fill(&t.client).await;
        eventually("a segment came", async || (store.names().len() >= 4 * round).then_some(())).await;
        caught_up(&t.client, t.data()).await;
        t.restart().await;
    }
    let position = caught_up(&t.client, t.data()).await;
    assert_eq!((position.kind.as_str(), position.rejected), ("archive", 0));
    let metrics = t.client.metrics().await.unwrap();
    assert!(metrics.lines().any(|line| line == "signet_audit_sink_up{sink=\"archive\"} 1"), "{metrics}");
    let pem = t.client.audit_head().await.unwrap().public_key;
    let keys = public_keys_from_pem(&pem).unwrap();
    // 2. Others bring it back, and it holds by itself.
    let back = place.path().join("back");
    std::fs::create_dir(&back).unwrap();
    store.ask(&json!({"do": "fetch", "to": back}));
    let report = verify(&back, &keys).unwrap();
    assert!(report.is_good() && report.records == position.size, "{report:?}");
    // 3. So does the command.
    let (log, endpoint) = (place.path().join("log.pem"), store.text("endpoint"));
    std::fs::write(&log, &pem).unwrap();
    let (log, secret) = (log.to_str().unwrap(), secret.to_str().unwrap());
    let own = ["--endpoint", &endpoint, "--credentials", secret];
    let check = || run(&["audit", "verify", "s3://signet-archive/a", "--public-key", log], &own);
    let (code, said) = check();
    assert!(code == 0 && said.contains("WHOLE"), "{said}");
    // 4. By hand into another place, twice; and back.
    let folder = t.data().join("audit");
    let by_hand = || {
        let to = "s3://signet-archive/b";
        let (code, said) = run(&["audit", "archive", folder.to_str().unwrap(), to, "--json"], &own);
        (code, serde_json::from_str::<Value>(&said).unwrap_or(Value::String(said)))
    };
    let ((_, first), (_, second)) = (by_hand(), by_hand());
    assert!(first["written"].as_u64().unwrap() > 1 && first["written"] == first["segments"], "{first}");
    assert_eq!((&second["written"], &second["records"]), (&0.into(), &first["records"]));
    let here = place.path().join("here");
    std::fs::create_dir(&here).unwrap();
    let (code, said) = run(&["audit", "fetch", "s3://signet-archive/b", here.to_str().unwrap()], &own);
    assert!(code == 0 && verify(&here, &keys).unwrap().is_good(), "{said}");
    // 5. What is altered or cut short is named, by who verifies and by the service, and not written over.
    let newest = store.names().into_iter().rfind(|name| name.starts_with("a/log-")).unwrap();
    let good = store.get(&newest);
    let mut altered = good.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    for bad in [altered, good[..middle].to_vec()] {
        store.put(&newest, &bad);
        let (code, said) = check();
        assert!(code == 6 && said.contains(newest.trim_start_matches("a/")), "{code} {said}");
        t.restart().await;
        let problem = told(&t.client, "is not the segment of the log").await;
        assert!(problem.contains(newest.trim_start_matches("a/")), "{problem}");
        assert_eq!(store.get(&newest), bad);
    }
    store.put(&newest, &good);
    caught_up(&t.client, t.data()).await;
    // 6. Something that is none of ours is no archive.
    store.put("a/stranger", b"x");
    t.restart().await;
    told(&t.client, "stranger does not belong in it").await;
    store.ask(&json!({"do": "delete", "key": "a/stranger"}));
    caught_up(&t.client, t.data()).await;
    assert_eq!(check().0, 0);
}

#[tokio::test]
async fn old_records_go_by_themselves_once_the_bucket_holds_them() {
    let Some(mut store) = Store::start() else { return };
    let place = tempfile::tempdir().unwrap();
    let archive = Archive::Bucket(store.settings("p", store.credentials(place.path())));
    let retention = Retention { archive: archive.clone(), keep: Some("1d".parse().unwrap()), automatic: true };
    let t = TestServer::configured(Devices::SoftHsm, |config| {
        archived(SinkKind::Archive(archive))(config);
        config.retention = Some(retention);
    })
    .await;
    t.key("data", "aes256-gcm-derived").await;
    fill(&t.client).await;
    fill(&t.client).await;
    let position = caught_up(&t.client, t.data()).await;
    let (service, everything) = (t.server().service().clone(), PruneAudit { dry_run: true, ..PruneAudit::default() });
    let first = async || t.client.audit_records(0, Some(1)).await.unwrap().first;
    // 1. Nothing that is younger than the configuration says.
    service.retain_audit().await.unwrap();
    assert_eq!((first().await, t.client.audit_prune(&everything).await.unwrap().limits["age"]), (0, 0));
    t.clock.advance(jiff::SignedDuration::from_hours(25));
    t.client.status().await.unwrap();
    // 2. Nothing that the bucket holds no longer, or holds otherwise; and it is named.
    let names: Vec<_> = ["p/log-", "p/heads-"]
        .map(|kind| store.names().into_iter().find(|name| name.starts_with(kind)).unwrap())
        .into();
    for name in &names {
        let good = store.get(name);
        store.put(name, &good[..good.len() - 9]);
        let error = service.retain_audit().await.unwrap_err();
        assert!(error.kind() == Kind::Tampered && error.public().contains(name.trim_start_matches("p/")), "{error}");
        store.ask(&json!({"do": "delete", "key": name}));
        assert_eq!(t.client.audit_prune(&everything).await.unwrap().limits["archive"], 0);
        store.put(name, &good);
    }
    assert_eq!(first().await, 0);
    // 3. What it holds goes, and the record says that nobody asked for it.
    service.retain_audit().await.unwrap();
    assert_eq!(first().await, position.size);
    let page = t.client.audit_records(0, Some(1000)).await.unwrap();
    let act =
        page.records.iter().find(|record| record["action"] == "PruneAudit" && record["phase"] == "intent").unwrap();
    assert_eq!(
        (&act["principal"], &act["facts"]["below"]),
        (&"system/retain".into(), &position.size.to_string().into())
    );
    // Nothing more is due, and that is no record.
    let size = async || t.client.audit_records(0, Some(1)).await.unwrap().size;
    let before = size().await;
    service.retain_audit().await.unwrap();
    assert_eq!(size().await, before + 1);
    // 4. The log goes on in the same bucket; it and what others bring from there are one log.
    t.key("more", "aes256-gcm-derived").await;
    for _ in 0..9 {
        let filler = context(&[("filler", &"x".repeat(8000))]);
        t.client.wrap(&name("more"), &plain(b"x", &filler)).await.unwrap();
    }
    caught_up(&t.client, t.data()).await;
    let back = place.path().join("back");
    std::fs::create_dir(&back).unwrap();
    store.ask(&json!({"do": "fetch", "to": back}));
    let keys = public_keys_from_pem(&t.client.audit_head().await.unwrap().public_key).unwrap();
    let report = verify_archived(&t.data().join("audit"), &keys, Receipts::default(), Some(&back)).unwrap();
    assert!(report.is_good() && report.gone.is_some_and(|gone| gone.archived), "{:?}", report.problems);
    assert!(verify(&back, &keys).unwrap().is_good());
}

#[tokio::test]
async fn a_bucket_that_cannot_be_had_holds_up_nobody_and_gets_all_in_the_end() {
    let Some(store) = Store::start() else { return };
    let place = tempfile::tempdir().unwrap();
    let file = credentials(place.path(), &store.text("id"), "hidden-and-wrong");
    let settings = store.settings("c", file.clone());
    let t =
        TestServer::configured(Devices::SoftHsm, archived(SinkKind::Archive(Archive::Bucket(settings.clone())))).await;
    t.key("data", "aes256-gcm-derived").await;
    fill(&t.client).await;
    fill(&t.client).await;
    // 1. The store checks who we are; what is wrong is told everywhere, and no secret with it.
    let problem = told(&t.client, "does not let us in (SignatureDoesNotMatch)").await;
    credentials(place.path(), "AKIANOBODY", "hidden-and-wrong");
    told(&t.client, "does not let us in (InvalidAccessKeyId)").await;
    t.client.ready().await.unwrap();
    assert!(!problem.contains("hidden") && !format!("{:?}", t.config).contains("hidden"));
    let mode = |mode| std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    mode(0o644);
    told(&t.client, "others can read or change the credentials file").await;
    let findings = signet::doctor::examine(&t.config, Path::new(PROGRAM)).await;
    assert!(findings.iter().any(|one| one.what == "sink archive" && one.mend.is_some()), "{findings:?}");
    mode(0o600);
    store.credentials(place.path());
    caught_up(&t.client, t.data()).await;
    // 2. No such bucket.
    let elsewhere = Settings { bucket: "nowhere".to_owned(), ..settings.clone() };
    assert!(listed(elsewhere).await.unwrap_err().public().ends_with("has no bucket nowhere"));
    // 3. Whatever else an address may do.
    let receiver = Receiver::start().await;
    let endpoint = Some(format!("http://{}", receiver.address));
    let settings = Settings::new("s3://logs", None, endpoint, None, file).unwrap();
    let settings = Settings { patience: Duration::from_secs(1), ..settings };
    let manners = [
        (Manner::Answer(SKEWED), "does not accept our clock: it is"),
        (Manner::Answer("HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n"), "status 503"),
        (Manner::Answer("HTTP/1.1 200 x\r\ncontent-length: 10\r\n\r\n<Contents>"), "a list that cannot be read"),
        (Manner::Status(200), "no whole answer of at most"),
        (Manner::Redirect(receiver.address), "status 307"),
        (Manner::Silent, "no answer within 1 s"),
        (Manner::Closes, "no answer in HTTP"),
        (Manner::Chatty, "no answer in HTTP"),
        (Manner::Strange, "no answer in HTTP"),
    ];
    for (manner, why) in manners {
        receiver.behave(manner);
        let error = listed(settings.clone()).await.unwrap_err();
        assert!(error.kind() == Kind::Unavailable && error.public().contains(why), "{manner:?}: {error}");
    }
    receiver.leave().await;
    assert!(listed(settings).await.unwrap_err().public().contains("takes no connection"));
}

async fn listed(settings: Settings) -> Result<usize, Error> {
    let list = || Bucket::new(settings)?.list().map(|objects| objects.len());
    tokio::task::spawn_blocking(list).await.unwrap()
}

/// The points on the way into an archive: in a bucket, and in a folder. Each twice: of a segment, and of the heads over it.
const IN_BUCKET: &[&str] = &["archive.before_put", "archive.put", "archive.before_put:2", "archive.put:2"];
const IN_FOLDER: &[&str] = &["archive.before_name", "archive.named", "archive.before_name:2", "archive.named:2"];

/// All points of this module, for the register.
pub(crate) fn points() -> impl Iterator<Item = &'static str> {
    IN_BUCKET.iter().chain(IN_FOLDER).copied()
}

/// An installation with closed segments that are nowhere else.
async fn full() -> Installation {
    let mut base = Installation::bare(Devices::SoftHsm);
    let config = Config { segment_bytes: SEGMENT, ..Config::read(&base.config()).unwrap() };
    #[expect(clippy::disallowed_methods, reason = "the processes of these tests live in the time of the system")]
    let clock = ManualClock::at(Timestamp::now());
    let first = create(&config, &options(&clock)).await.unwrap().token.to_string();
    let server = Server::start(&config, options(&clock)).await.unwrap();
    base.token = lasting(&client(&server, Some(&first))).await;
    let client = client(&server, Some(&base.token));
    client.create_key(&new_key("data", "aes256-gcm-derived")).await.unwrap();
    fill(&client).await;
    fill(&client).await;
    server.stop().await.unwrap();
    base
}

#[tokio::test]
async fn a_death_leaves_no_half_archive() {
    let base = full().await;
    let mut store = Store::start();
    let cases = IN_BUCKET.iter().map(|point| (*point, true)).chain(IN_FOLDER.iter().map(|point| (*point, false)));
    for (number, (point, in_bucket)) in cases.enumerate() {
        let (t, archive) = (base.copy(), tempfile::tempdir().unwrap());
        let prefix = format!("death-{number}");
        let stanza = match &store {
            None if in_bucket => continue,
            Some(store) if in_bucket => {
                let secret = store.credentials(t.folder());
                let (bucket, endpoint) = (store.text("bucket"), store.text("endpoint"));
                format!(
                    "kind = \"s3\"\nbucket = {bucket:?}\nprefix = {prefix:?}\nendpoint = {endpoint:?}\ncredentials_file = {secret:?}\n"
                )
            }
            Some(_) | None => format!("kind = \"folder\"\nfolder = {:?}\n", archive.path()),
        };
        let text = std::fs::read_to_string(t.config()).unwrap();
        let stanza = format!("\n[audit]\nsegment_bytes = {SEGMENT}\n[audit.archive]\n{stanza}");
        std::fs::write(t.config(), text + &stanza).unwrap();
        t.serve_until(point).dies(point).await;
        let service = t.serve().await;
        let position = caught_up(&t.client(Some(&t.token)), &t.data()).await;
        service.kill().await;
        t.audit_is_good();
        if in_bucket && let Some(store) = &mut store {
            let all = store.names().into_iter().filter(|name| !name.starts_with(&prefix)).collect::<Vec<_>>();
            all.iter().for_each(|name| drop(store.ask(&json!({"do": "delete", "key": name}))));
            store.ask(&json!({"do": "fetch", "to": archive.path()}));
        }
        let report = verify(archive.path(), None).unwrap();
        assert!(report.is_good() && report.records == position.size, "{point}: {report:?}");
    }
}
