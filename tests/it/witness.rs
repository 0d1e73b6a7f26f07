//! A witness of its own device, and logs that behave and misbehave.

use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use signet::audit::merkle::{Hash, consistency_proof, leaf_hash, root};
use signet::config::WitnessConfig;
use signet::error::Kind;
use signet::server::Options;
use signet::types::{NoteKey, sha256};
use signet::witness::{Witness, init};

use crate::judges::judge;
use crate::process::Process;
use crate::server::{PROGRAM, pkcs11_stanza, tpm_stanza};
use crate::softhsm::{MODULE, SoftHsm};
use crate::swtpm::Swtpm;

const NAME: &str = "witness.example/w1";

/// A witness with a token and a folder of its own; whether it runs is another matter.
pub(crate) struct Place {
    _hsm: SoftHsm,
    pub(crate) config: WitnessConfig,
    folder: tempfile::TempDir,
    key: Option<NoteKey>,
}

fn options() -> Options {
    Options { program: PROGRAM.into(), ..Options::new().unwrap() }
}

impl Place {
    /// A token and no folder yet.
    pub(crate) fn bare(logs: &[String]) -> Self {
        let (hsm, folder) = (SoftHsm::new(), tempfile::tempdir().unwrap());
        let device = pkcs11_stanza("x", Path::new(MODULE), &hsm).replace("[devices.x]", "[device]");
        let data = folder.path().join("data");
        let mut text = format!("[witness]\nname = {NAME:?}\nlisten = \"127.0.0.1:0\"\ndata = {data:?}\n{device}");
        for log in logs {
            text.push_str(&format!("[[log]]\nkeys = [{log:?}]\n"));
        }
        std::fs::write(folder.path().join("witness.toml"), &text).unwrap();
        Self { _hsm: hsm, config: WitnessConfig::parse(&text).unwrap(), folder, key: None }
    }

    /// One that is set up.
    pub(crate) async fn new(logs: &[String]) -> Self {
        let mut place = Self::bare(logs);
        place.key = Some(init(&place.config, &options()).await.unwrap());
        place
    }

    pub(crate) fn key(&self) -> &NoteKey {
        self.key.as_ref().unwrap()
    }

    /// Watches one more log from the next start on.
    pub(crate) fn watch(&mut self, key: &NoteKey) {
        let log = signet::config::WatchedLog { keys: vec![key.clone()] };
        self.config.logs.insert(key.name().to_owned(), log);
    }

    pub(crate) async fn start(&self) -> Witness {
        Witness::start(&self.config, &options()).await.unwrap()
    }

    pub(crate) async fn refused(&self) -> signet::error::Error {
        Witness::start(&self.config, &options()).await.expect_err("it should not start")
    }

    pub(crate) fn book(&self) -> PathBuf {
        self.config.data.join("logs")
    }

    fn command(&self, verb: &str, crash_point: Option<&str>) -> Process {
        let mut command = tokio::process::Command::new(PROGRAM);
        command.args(["witness", verb, "--config"]).arg(self.folder.path().join("witness.toml"));
        command.env_remove("SIGNET_CRASH_POINT");
        if let Some(point) = crash_point {
            command.env("SIGNET_CRASH_POINT", point);
        }
        Process::spawn(command)
    }
}

/// A log that says what it is told to.
struct FakeLog {
    pair: Ed25519KeyPair,
    origin: &'static str,
    leaves: Vec<Hash>,
}

impl FakeLog {
    fn new(origin: &'static str) -> Self {
        Self { pair: Ed25519KeyPair::generate().unwrap(), origin, leaves: Vec::new() }
    }

    /// The verifier key of signature type 0x01, in the words of the specification.
    fn vkey(&self) -> String {
        let key = [&[1], self.pair.public_key().as_ref()].concat();
        format!("{}+{}+{}", self.origin, hex::encode(self.id()), BASE64.encode(&key))
    }

    fn id(&self) -> [u8; 4] {
        let hash = sha256(&[self.origin.as_bytes(), b"\n\x01", self.pair.public_key().as_ref()]);
        *hash.first_chunk().unwrap()
    }

    fn grow(&mut self, to: u64, what: &str) {
        for n in self.leaves.len() as u64..to {
            self.leaves.push(leaf_hash(format!("{what} {n}").as_bytes()));
        }
    }

    fn checkpoint(&self) -> String {
        let text = format!("{}\n{}\n{}\n", self.origin, self.leaves.len(), BASE64.encode(root(&self.leaves)));
        let signature = [&self.id(), self.pair.sign(text.as_bytes()).as_ref()].concat();
        format!("{text}\n— {} {}\n", self.origin, BASE64.encode(signature))
    }

    /// The request that leads from `old` records to all.
    fn request(&self, old: u64) -> String {
        let size = self.leaves.len() as u64;
        let path = consistency_proof(self.leaves.as_slice(), old.min(size), size).unwrap();
        let path: String = path.iter().map(|hash| BASE64.encode(hash) + "\n").collect();
        format!("old {old}\n{path}\n{}", self.checkpoint())
    }
}

/// Posts with curl: status, content type and body.
fn curl(url: &str, body: &[u8], more: &[&str]) -> (u16, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let (sent, got) = (folder.path().join("sent"), folder.path().join("got"));
    std::fs::write(&sent, body).unwrap();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--write-out", "%{http_code} %{content_type}"]);
    curl.arg("--data-binary").arg(format!("@{}", sent.display())).arg("--output").arg(&got);
    let output = curl.args(more).arg(format!("{url}/add-checkpoint")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = String::from_utf8(output.stdout).unwrap();
    let (status, kind) = line.split_once(' ').unwrap();
    (status.parse().unwrap(), kind.to_owned(), std::fs::read_to_string(&got).unwrap_or_default())
}

/// As [`curl`], off the thread of the test, which serves.
async fn post(url: &str, body: &str) -> (u16, String, String) {
    let (url, body) = (url.to_owned(), body.to_owned());
    tokio::task::spawn_blocking(move || curl(&url, body.as_bytes(), &[])).await.unwrap()
}

/// What the Python judge says of a cosignature: name, time and size.
pub(crate) fn judged(checkpoint: &str, lines: &str, key: &NoteKey) -> Option<String> {
    let python = judge("python")?;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("checkpoint"), checkpoint).unwrap();
    std::fs::write(folder.path().join("lines"), lines).unwrap();
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/judges/witness_judge.py"));
    command.arg(folder.path().join("checkpoint")).arg(folder.path().join("lines")).arg(key.to_string());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_as_the_specification_says() {
    let (mut log, mut other) = (FakeLog::new("example.com/log"), FakeLog::new("example.com/other"));
    let place = Place::new(&[log.vkey(), other.vkey()]).await;
    let witness = place.start().await;
    let url = format!("http://{}", witness.address());

    // 1. The first checkpoint: a cosignature, which a foreign program verifies by the words of the specification.
    log.grow(5, "leaf");
    let (status, _, lines) = post(&url, &log.request(0)).await;
    assert_eq!(status, 200, "{lines}");
    if let Some(said) = judged(&log.checkpoint(), &lines, place.key()) {
        assert!(said.starts_with(&format!("{NAME} ")) && said.ends_with(" 5\n"), "{said}");
    }
    // 2. Who does not know what the witness knows is told.
    let known = |size: u64| (409, "text/x.tlog.size".to_owned(), format!("{size}\n"));
    assert_eq!(post(&url, &log.request(0)).await, known(5));
    // 3. What goes on from there; and the same again, with a time of its own.
    log.grow(9, "leaf");
    assert_eq!(post(&url, &log.request(5)).await.0, 200);
    assert_eq!(post(&url, &log.request(9)).await.0, 200);
    assert_eq!(post(&url, &log.request(5)).await, known(9));
    // 4. Another tree of the same size, and one that does not go on from it.
    let mut fork = FakeLog { pair: log.pair, ..FakeLog::new("example.com/log") };
    fork.grow(9, "other leaf");
    assert_eq!(post(&url, &fork.request(9)).await, known(9));
    fork.grow(12, "other leaf");
    assert_eq!(post(&url, &fork.request(9)).await.0, 422);
    log = FakeLog { pair: fork.pair, ..log };
    log.grow(12, "leaf");
    let proof = log.request(9);
    let (first, rest) = proof.split_once('\n').unwrap();
    let lacking = rest.split_once('\n').unwrap().1;
    assert_eq!(post(&url, &format!("{first}\n{lacking}")).await.0, 422, "a line of the proof is missing");
    // 5. An old size above the new one; an unknown log; a stranger's key, and a signature that is not over this text.
    assert_eq!(post(&url, &log.request(20)).await.0, 400);
    let mut stranger = FakeLog::new("example.com/unknown");
    stranger.grow(1, "leaf");
    assert_eq!(post(&url, &stranger.request(0)).await.0, 404);
    let mut impostor = FakeLog::new("example.com/log");
    impostor.grow(15, "leaf");
    assert_eq!(post(&url, &impostor.request(9)).await.0, 403);
    assert_eq!(post(&url, &log.request(9).replace("\n12\n", "\n13\n")).await.0, 403);
    // 6. What is no request, and what is too long.
    for body in ["", "old 9", "old 09\n\n", "old 9\n\n", "old 9\nx\n\n", &log.request(9).replace("— ", "- ")] {
        assert_eq!(post(&url, body).await.0, 400, "{body}");
    }
    assert_eq!(post(&url, &"a".repeat(100_000)).await.0, 413);
    // 7. A signature of another key beside the log's own is ignored.
    let request = log.request(9);
    let more = format!("{request}— somebody.example/else AAECAwQFBgcI\n");
    assert_eq!(post(&url, &more).await.0, 200);
    // 8. Logs are apart.
    other.grow(3, "leaf");
    assert_eq!(post(&url, &other.request(0)).await.0, 200);
    assert_eq!(post(&url, &log.request(0)).await, known(12));

    // 9. A start later all of it is known, and nobody else may use the folder meanwhile.
    assert_eq!(place.refused().await.kind(), Kind::Conflict);
    let metrics = reqwest_text(&format!("{url}/metrics")).await;
    assert!(metrics.contains("signet_witness_log_records{log=\"example.com/log\"} 12"), "{metrics}");
    assert!(metrics.contains("signet_witness_requests_total{status=\"409\"} 4"), "{metrics}");
    witness.stop().await.unwrap();
    let witness = place.start().await;
    let url = format!("http://{}", witness.address());
    assert_eq!(post(&url, &log.request(0)).await, known(12));
    assert_eq!(post(&url, &other.request(0)).await, known(3));
    witness.stop().await.unwrap();
}

async fn reqwest_text(url: &str) -> String {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::get(url).await.unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_histories_it_cosigns_one_whoever_comes_first() {
    let mut log = FakeLog::new("example.com/log");
    let place = Place::new(&[log.vkey()]).await;
    let witness = place.start().await;
    let url = format!("http://{}", witness.address());
    log.grow(4, "leaf");
    assert_eq!(post(&url, &log.request(0)).await.0, 200);
    // Twelve continuations of the same, no two of which go together, all at once; three rounds.
    let common = log.leaves.clone();
    let mut branches: Vec<Vec<Hash>> = (0..12).map(|_| common.clone()).collect();
    let mut winner = None;
    for round in 1..=3_u64 {
        let (old, size) = (4 * round, 4 * round + 4);
        let mut requests = Vec::new();
        for (number, branch) in branches.iter_mut().enumerate() {
            let mut one = FakeLog { pair: log.pair, origin: log.origin, leaves: std::mem::take(branch) };
            one.grow(size, &format!("branch {number}"));
            requests.push(one.request(old));
            *branch = one.leaves;
            log.pair = one.pair;
        }
        let answers = futures_util::future::join_all(requests.iter().map(|request| post(&url, request))).await;
        let won: Vec<_> = answers.iter().enumerate().filter(|(_, answer)| answer.0 == 200).map(|(n, _)| n).collect();
        assert_eq!(won.len(), 1, "round {round}: {answers:?}");
        assert!(winner.is_none_or(|first| won == [first]), "round {round} went to another history");
        winner = winner.or(Some(won[0]));
        for (_, answer) in answers.iter().enumerate().filter(|(n, _)| !won.contains(n)) {
            assert!(answer.0 == 409 || answer.0 == 422, "{answer:?}");
        }
    }
    witness.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_where_it_has_a_certificate() {
    let mut log = FakeLog::new("example.com/log");
    let mut place = Place::new(&[log.vkey()]).await;
    let made = signet::server::listen::self_signed(&["127.0.0.1".to_owned()], &signet::types::Clock::System).unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = place.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let (chain, key) = (file("tls.pem", made.chain.as_bytes()), file("tls.key", made.key.expose()));
    let ca = file("ca.pem", made.authority.as_bytes());
    place.config.certificate = Some(signet::config::CertificateFiles { chain, key });
    let witness = place.start().await;
    log.grow(3, "leaf");
    let (url, request) = (format!("https://{}", witness.address()), log.request(0));
    let curled =
        tokio::task::spawn_blocking(move || curl(&url, request.as_bytes(), &["--cacert", ca.to_str().unwrap()]));
    assert_eq!(curled.await.unwrap().0, 200);
    witness.reload().unwrap();
    witness.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_remembers_is_not_edited_unnoticed() {
    let mut log = FakeLog::new("example.com/log");
    let mut place = Place::new(&[log.vkey()]).await;
    // 1. It is made once.
    assert_eq!(init(&place.config, &options()).await.unwrap_err().kind(), Kind::Conflict);
    let witness = place.start().await;
    log.grow(7, "leaf");
    assert_eq!(post(&format!("http://{}", witness.address()), &log.request(0)).await.0, 200);
    witness.stop().await.unwrap();
    // 2. Any byte of a checkpoint, a whole entry that was made up, and the file itself.
    let good = std::fs::read_to_string(place.book()).unwrap();
    let twice = format!("{good}{}", good.strip_prefix("signet-witness 1\n").unwrap());
    for bad in [good.replace("\n7\n", "\n6\n"), good[..good.len() - 1].to_owned(), twice, String::new()] {
        std::fs::write(place.book(), bad).unwrap();
        assert_eq!(place.refused().await.kind(), Kind::Tampered);
    }
    std::fs::remove_file(place.book()).unwrap();
    let error = place.refused().await;
    assert!(error.kind() == Kind::Tampered && error.mend().is_some(), "{error:?}");
    std::fs::write(place.book(), good).unwrap();
    // 3. Another name would be another witness; another token is one.
    let name = std::mem::replace(&mut place.config.name, "witness.example/w2".to_owned());
    assert!(place.refused().await.public().contains("was made as"));
    place.config.name = name;
    let own = place.config.device.clone();
    let other = SoftHsm::new();
    place.config.device = signet::device::Settings::Pkcs11(other.settings());
    assert!(place.refused().await.mend().is_some());
    place.config.device = own;
    place.start().await.stop().await.unwrap();
    // 4. A TPM has no Ed25519.
    let tpm = Swtpm::start();
    let text = format!("[witness]\nname = {NAME:?}\n{}", tpm_stanza("x", &tpm).replace("[devices.x]", "[device]"));
    let error = WitnessConfig::parse(&text).unwrap_err();
    assert!(error.kind() == Kind::Unsupported && error.mend().unwrap().contains("pkcs11"), "{error:?}");
}

/// The points of `init`, and those of a checkpoint with whether it is known afterwards.
const INIT: &[&str] = &[
    "witness.before_enrol",
    "witness.enrolled",
    "witness.before_generate",
    "witness.generated",
    "witness.before_pinned",
];
const ADD: &[(&str, bool)] = &[("witness.before_file", false), ("witness.file_written", true)];

/// All points of the witness, for the register of those that are tried.
pub(crate) fn points() -> impl Iterator<Item = &'static str> {
    INIT.iter().copied().chain(ADD.iter().map(|(point, _)| *point)).chain(["witness.pinned"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_makes_no_half_witness() {
    for point in INIT {
        let place = Place::bare(&[]);
        place.command("init", Some(point)).dies(point).await;
        // Nothing starts, nothing is built upon; a new folder is a new beginning.
        assert_eq!(place.refused().await.kind(), Kind::NotFound, "{point}");
        assert_eq!(init(&place.config, &options()).await.unwrap_err().kind(), Kind::Conflict, "{point}");
        std::fs::remove_dir_all(&place.config.data).unwrap();
        init(&place.config, &options()).await.unwrap();
        place.start().await.stop().await.unwrap();
    }
    let place = Place::bare(&[]);
    place.command("init", Some("witness.pinned")).dies("witness.pinned").await;
    place.start().await.stop().await.unwrap();
    let key = place.command("key", None).succeeds().await;
    assert!(key.trim().parse::<NoteKey>().unwrap().cosigns(), "{key}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_makes_it_forget_no_cosignature_that_left() {
    for (point, known) in ADD {
        let mut log = FakeLog::new("example.com/log");
        let place = Place::new(&[log.vkey()]).await;
        let mut process = place.command("serve", Some(&format!("{point}:2")));
        process.serves().await.unwrap();
        let url = process.url();
        log.grow(5, "leaf");
        assert_eq!(post(&url, &log.request(0)).await.0, 200, "{point}");
        log.grow(8, "leaf");
        let (url, request) = (url.clone(), log.request(5));
        let posted = tokio::task::spawn_blocking(move || {
            Command::new("curl")
                .args(["--silent", "--data-binary", &request, &format!("{url}/add-checkpoint")])
                .output()
        });
        process.dies(point).await;
        assert!(posted.await.unwrap().unwrap().stdout.is_empty(), "{point}: an answer left before the end");
        // The one that was answered is known; the other one is known or not, and is cosigned when it comes again.
        let witness = place.start().await;
        let url = format!("http://{}", witness.address());
        let size = if *known { 8 } else { 5 };
        assert_eq!(post(&url, &log.request(0)).await.2, format!("{size}\n"), "{point}");
        assert_eq!(post(&url, &log.request(size)).await.0, 200, "{point}");
        witness.stop().await.unwrap();
    }
}
