//! The service against the raw device, in one run on one machine: `make bench`.
//!
//! ```text
//! this process ── load ── HTTPS, 1 to 32 kept-alive connections ──▶ signet serve ──▶ device worker ──▶ token 1 or TPM 1
//!      └─ raw device: a copy of this process, without the service ───────────────────────────────────▶ token 2 or TPM 2
//! ```
//!
//! What is compared takes turns every few hundred milliseconds, so that whatever else the machine does strikes all alike, and
//! rates and processor times are medians of those turns. Each turn ends with a look at an
//! answer: a service that answers nonsense quickly is not measured. Nothing here fails on a time.
//!
//! `BENCH_KEYS` is the largest number of keys among which one is used, 100,000 where absent. `BENCH_SECONDS` is the time per cell, 2 where absent. `BENCH_ONLY` picks the rows whose name holds one of these texts, such as
//! `softhsm/resident/ecdsa,changes`, and `BENCH_LOADS` the loads, as in `32 connections,batches of 100`. `BENCH_PROGRAM` names another `signet` to be measured, so that two can be compared without
//! building this again. The table goes to standard output, all figures to `target/bench.json`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a measurement may stop, and prints"
)]

mod changes;
mod handshakes;
mod inventory;
mod issuing;
mod load;
mod many;
mod place;
mod process;
mod raw;
mod report;
#[path = "../../tests/support/softhsm.rs"]
#[allow(unused_macros, reason = "the macro is for tests")]
mod softhsm;
#[path = "../../tests/support/swtpm.rs"]
mod swtpm;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use signet::ciphertext::derived::{self as format, Header};
use signet::client::Client;
use signet::types::{
    Algorithm, Context, Hash, KeyId, KeyName, PublicKey, Residency, SecretBytes, SignatureFormat, Verifier, Version,
};
use signet::wire::{Base64, CreateKey, SecretBase64, Sign, Unwrap, Wrap};

use issuing::Issuing;
use load::Connection;
use place::Place;
use process::own_cpu;
use raw::Raw;
use report::{Cell, House, Load, Report, Row};
use softhsm::SoftHsm;
use swtpm::Swtpm;

/// How often what is compared takes turns.
const ROUNDS: u32 = 5;
/// How many connections send batches: two, so that one is read while the other is worked on.
const BATCHES_AT_ONCE: usize = 2;
/// How many keys a server starts with where its start is measured.
const MANY_KEYS: usize = 1000;

/// How the name of a row begins that issues certificates.
const CERTIFICATE: &str = "certificate-";

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Sign(Algorithm),
    /// Issues a certificate under a key of this algorithm.
    Issue(Algorithm),
    Wrap(Algorithm),
    Unwrap(Algorithm),
}

/// The algorithm of envelopes unless another is asked for.
const DERIVED: Algorithm = Algorithm::Aes256GcmDerived;

impl Operation {
    const fn algorithm(self) -> Algorithm {
        match self {
            Self::Sign(algorithm) | Self::Issue(algorithm) | Self::Wrap(algorithm) | Self::Unwrap(algorithm) => {
                algorithm
            }
        }
    }

    const fn verb(self) -> &'static str {
        match self {
            Self::Sign(_) => "sign",
            Self::Issue(_) => "issue",
            Self::Wrap(_) => "wrap",
            Self::Unwrap(_) => "unwrap",
        }
    }

    fn name(self) -> String {
        match self {
            Self::Sign(algorithm) => algorithm.to_string(),
            Self::Issue(algorithm) => format!("{CERTIFICATE}{algorithm}"),
            Self::Wrap(DERIVED) | Self::Unwrap(DERIVED) => self.verb().to_owned(),
            Self::Wrap(algorithm) | Self::Unwrap(algorithm) => format!("{}-{algorithm}", self.verb()),
        }
    }
}

/// What the environment asks for.
struct Wanted {
    time: Duration,
    only: String,
    loads: Vec<Load>,
}

fn main() {
    if raw::played() {
        return;
    }
    let seconds = std::env::var("BENCH_SECONDS").map_or(2.0, |text| text.parse().expect("BENCH_SECONDS is a number"));
    let mut loads = Load::ALL.to_vec();
    if let Ok(text) = std::env::var("BENCH_LOADS") {
        loads.retain(|load| text.split(',').any(|name| name == load.to_string()));
    }
    let time = Duration::from_secs_f64(seconds);
    let wanted = Wanted { time, only: std::env::var("BENCH_ONLY").unwrap_or_default(), loads };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(wanted.measure());
    report.print();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench.json");
    std::fs::write(&path, report.json()).expect("target/ can be written to");
    println!("all figures: target/bench.json");
}

impl Wanted {
    async fn measure(&self) -> Report {
        let mut report = Report::default();
        report.costs.envelope = self.envelope();
        self.softhsm(&mut report).await;
        for sessions in [true, false] {
            self.swtpm(sessions, &mut report).await;
        }
        if self.wants("changes") {
            eprintln!("changes");
            report.changes = changes::measure(self.time).await;
        }
        if self.wants("handshakes") {
            eprintln!("handshakes");
            report.handshakes = handshakes::measure(self.time).await;
        }
        if self.wants("keys") {
            eprintln!("keys");
            report.many = many::measure().await;
        }
        if self.wants("inventory") {
            eprintln!("inventory");
            report.inventory = Some(inventory::measure().await);
        }
        report
    }

    fn wants(&self, name: &str) -> bool {
        self.only.split(',').any(|only| name.contains(only))
    }

    async fn softhsm(&self, report: &mut Report) {
        let algorithms = [Algorithm::EcdsaP256, Algorithm::Ed25519, Algorithm::Rsa2048Pkcs1];
        let wrapping = [
            Operation::Wrap(DERIVED),
            Operation::Unwrap(DERIVED),
            Operation::Wrap(Algorithm::Aes256Gcm),
            Operation::Unwrap(Algorithm::Aes256Gcm),
            Operation::Unwrap(Algorithm::HpkeP256),
        ];
        let signing = algorithms.map(Operation::Sign).into_iter().chain(wrapping);
        let operations = || signing.clone().chain(algorithms.map(Operation::Issue));
        let mut rows = Vec::new();
        for residency in [Residency::Resident, Residency::Wrapped] {
            rows.extend(operations().map(|operation| (residency, operation)));
        }
        // SoftHSM 2.6 cannot wrap Edwards keys.
        rows.retain(|(residency, one)| (*residency, one.algorithm()) != (Residency::Wrapped, Algorithm::Ed25519));
        rows.retain(|(residency, operation)| self.wants(&row_name("softhsm", *residency, *operation)));
        if rows.is_empty() && !self.wants("house") {
            return;
        }
        let (hsm, raw_hsm) = (SoftHsm::new(), SoftHsm::new());
        let mut place = Place::start(&place::softhsm_section(&hsm)).await;
        if self.wants("house") {
            report.house = Some(House { idle: idle_memory(&place).await, ..House::default() });
        }
        if !rows.is_empty() {
            let mut raw = RawDevice { one: Raw::softhsm(&raw_hsm), other: Some(Raw::softhsm(&raw_hsm)), threads: 2 };
            self.rows("softhsm", &place, &mut raw, &rows, report).await;
        }
        if let Some(house) = &mut report.house {
            house.start = start_with_many_keys(&mut place).await;
        }
    }

    async fn swtpm(&self, sessions: bool, report: &mut Report) {
        let device = if sessions { "swtpm-sessions" } else { "swtpm-password" };
        let signing = [Algorithm::EcdsaP256, Algorithm::Rsa2048Pkcs1].map(Operation::Sign);
        let mut rows: Vec<_> = signing
            .into_iter()
            .chain([Operation::Wrap(DERIVED), Operation::Unwrap(DERIVED)])
            .chain([Algorithm::HpkeP256, Algorithm::Rsa2048Oaep].map(Operation::Unwrap))
            .chain([Operation::Issue(Algorithm::EcdsaP256)])
            .map(|operation| (Residency::Wrapped, operation))
            .collect();
        rows.retain(|(residency, operation)| self.wants(&row_name(device, *residency, *operation)));
        if rows.is_empty() {
            return;
        }
        let (tpm, raw_tpm) = (Swtpm::start(), Swtpm::start());
        let place = Place::start(&place::tpm_section(&tpm.settings(sessions))).await;
        let mut raw = RawDevice { one: Raw::tpm(&raw_tpm.settings(sessions)), other: None, threads: 1 };
        self.rows(device, &place, &mut raw, &rows, report).await;
    }

    async fn rows(
        &self,
        device: &str,
        place: &Place,
        raw: &mut RawDevice,
        rows: &[(Residency, Operation)],
        report: &mut Report,
    ) {
        for (residency, operation) in rows {
            eprintln!("{}", row_name(device, *residency, *operation));
            let subject = Subject::new(&place.client(), *residency, *operation).await;
            if let Some(cost) = subject.check(self.time / 10) {
                report.costs.checks.insert(operation.name(), cost);
            }
            if let Some(cost) = subject.lint(self.time / 10).await {
                report.costs.lint = cost;
            }
            let mut connections = load::connect(place.address(), &place.authority(), Load::MOST).await;
            let row = self.row(device, place, raw, &subject, &mut connections).await;
            report.rows.push(row);
        }
    }

    /// One operation with all loads, raw and through the service by turns.
    async fn row(
        &self,
        device: &str,
        place: &Place,
        raw: &mut RawDevice,
        subject: &Subject,
        connections: &mut [Connection],
    ) -> Row {
        let slice = self.time / ROUNDS;
        let raw_key = format!("{}/{}", subject.residency, subject.operation.algorithm());
        let mut raws: BTreeMap<usize, Vec<raw::Sample>> = BTreeMap::new();
        let mut processes = Vec::new();
        let mut sums: Vec<Sum> = self.loads.iter().map(|load| Sum::new(*load, place, subject)).collect();
        // Each connection is used at once: the server closes those that ask nothing.
        load::turn(connections, &subject.request(Load::Connections(1), place.token()), Duration::ZERO).await;
        for _ in 0..ROUNDS {
            for threads in 1..=raw.threads {
                raws.entry(threads).or_default().push(raw.one.measure(&raw_key, threads, slice));
            }
            if let Some(other) = &mut raw.other {
                processes.push(raw.one.measure_two(other, &raw_key, slice));
            }
            for sum in &mut sums {
                // A batch on a slow device may take longer than all turns together.
                if sum.elapsed < self.time {
                    sum.turn(place, subject, connections, slice).await;
                }
            }
        }
        Row {
            device: device.to_owned(),
            residency: subject.residency,
            operation: subject.operation.name(),
            raw: raws.into_iter().map(|(threads, samples)| (threads, middle(&samples))).collect(),
            processes: (!processes.is_empty()).then(|| middle(&processes)),
            cells: sums.into_iter().map(Sum::cell).collect(),
        }
    }

    /// What the cryptography of one envelope costs beside the device: seal and open, microseconds.
    fn envelope(&self) -> (f64, f64) {
        let (ikm, context, plaintext) = ([7; 32], context(), [9; 32]);
        let id = KeyId::random().unwrap();
        let seal = || {
            let header = Header::fresh(id, Version::FIRST).unwrap();
            let hash = context.hash();
            std::hint::black_box(format::device_input(&header, &hash));
            format::seal(&ikm, &header, &hash, &plaintext).unwrap()
        };
        let blob = seal();
        let open = || {
            let (header, _) = Header::parse(&blob).unwrap();
            let hash = context.hash();
            std::hint::black_box(format::device_input(&header, &hash));
            format::open(&ikm, &blob, &hash).unwrap()
        };
        (cost(self.time / 10, seal), cost(self.time / 10, open))
    }
}

/// The device without the service.
struct RawDevice {
    one: Raw,
    /// A second process at the same token, as a second worker would be.
    other: Option<Raw>,
    threads: usize,
}

/// A key, what is asked of it, and how its answers are judged.
struct Subject {
    client: Client,
    key: KeyName,
    residency: Residency,
    operation: Operation,
    message: Vec<u8>,
    verifier: Option<Verifier>,
    /// What issues, where that is the operation.
    issuing: Option<Issuing>,
    /// A signature over the message, raw.
    signature: Option<Vec<u8>>,
    /// What is unwrapped, again and again.
    blob: Vec<u8>,
}

impl Subject {
    async fn new(client: &Client, residency: Residency, operation: Operation) -> Self {
        let algorithm = operation.algorithm();
        let name = format!("{residency}-{}", operation.name());
        let message = vec![42; 32];
        let mut subject = Self {
            client: client.clone(),
            key: name.parse().expect("a name"),
            residency,
            operation,
            message,
            verifier: None,
            issuing: None,
            signature: None,
            blob: Vec::new(),
        };
        if let Operation::Issue(algorithm) = operation {
            subject.issuing = Some(Issuing::new(client, &name, algorithm, residency).await);
            return subject;
        }
        let key = client.create_key(&new_key(&name, algorithm, residency)).await.expect("a key").name;
        match operation {
            Operation::Sign(algorithm) => {
                let public = client.public_key(&key, None).await.expect("a public key");
                subject.verifier = Some(Verifier::new(algorithm, &public_key(&public.pem)).expect("a verifier"));
                let request = Sign { message: Some(Base64(subject.message.clone())), ..Sign::default() };
                let signed = client.sign(&key, &request).await.expect("a signature").signature;
                let der = STANDARD.decode(signed).unwrap();
                subject.signature = Some(SignatureFormat::Der.decode(algorithm, &der).unwrap());
            }
            Operation::Wrap(_) | Operation::Unwrap(_) => {
                let wrapped = client.wrap(&key, &wrap(&subject.message)).await.expect("a ciphertext");
                subject.blob = wrapped.ciphertext.0;
            }
            Operation::Issue(_) => {}
        }
        subject.key = key;
        subject
    }

    fn request(&self, load: Load, token: &str) -> Vec<u8> {
        if let Some(issuing) = &self.issuing {
            let (path, body) = issuing.ask(load.items());
            return load::request(&format!("/api/v1/{path}"), token, &body.to_string());
        }
        let item = match self.operation {
            Operation::Issue(_) => json!({}),
            Operation::Sign(_) => json!({ "message": STANDARD.encode(&self.message) }),
            Operation::Wrap(_) => json!({ "plaintext": STANDARD.encode(&self.message), "context": context() }),
            Operation::Unwrap(_) => json!({ "ciphertext": STANDARD.encode(&self.blob), "context": context() }),
        };
        let (path, body) = match load {
            Load::Connections(_) => (self.operation.verb().to_owned(), item),
            Load::Batch(items) => (format!("{}-batch", self.operation.verb()), json!({ "items": vec![item; items] })),
        };
        load::request(&format!("/api/v1/keys/{}/{path}", self.key), token, &body.to_string())
    }

    /// Judges an answer: each item is there, and the last one is right.
    async fn judge(&self, load: Load, answer: &[u8]) {
        let answer: serde_json::Value = serde_json::from_slice(answer).expect("JSON");
        let last = match load {
            Load::Connections(_) => &answer,
            Load::Batch(items) => {
                let results = answer["results"].as_array().expect("results");
                assert_eq!(results.len(), items);
                assert!(results.iter().all(|result| result["ok"].is_object()), "an item failed");
                &results[items - 1]["ok"]
            }
        };
        let bytes = |field: &str| STANDARD.decode(last[field].as_str().expect(field)).expect("base64");
        match self.operation {
            Operation::Issue(_) => drop(self.issuing.as_ref().map(|issuing| issuing.judge(last))),
            Operation::Sign(algorithm) => {
                let raw = SignatureFormat::Der.decode(algorithm, &bytes("signature")).expect("a signature");
                assert!(self.verifies(&raw), "the signature does not verify");
            }
            Operation::Wrap(_) => {
                let sealed = Unwrap {
                    ciphertext: Base64(bytes("ciphertext")),
                    context: context(),
                    danger_allow_compromised: false,
                };
                let opened = self.client.unwrap(&self.key, &sealed).await.expect("it opens");
                assert_eq!(opened.plaintext.0.expose(), self.message);
            }
            Operation::Unwrap(_) => assert_eq!(bytes("plaintext"), self.message),
        }
    }

    fn verifies(&self, raw: &[u8]) -> bool {
        let verifier = self.verifier.as_ref().expect("a signing key");
        match verifier.algorithm().hash() {
            Some(_) => verifier.verifies_digest(&Hash::Sha256.digest(&self.message), raw),
            None => verifier.verifies(&self.message, raw),
        }
    }

    /// What the check of one signature costs by itself, in microseconds.
    fn check(&self, time: Duration) -> Option<f64> {
        let signature = self.signature.as_ref()?;
        Some(cost(time, || assert!(self.verifies(signature))))
    }

    /// What the rules cost that a certificate is held against, in microseconds.
    async fn lint(&self, time: Duration) -> Option<f64> {
        let issuing = self.issuing.as_ref()?;
        let (_, body) = issuing.ask(None);
        let body = serde_json::from_value(body).expect("a request");
        let made = self.client.issue(&issuing.name, &body).await.expect("a certificate");
        let certificate = issuing.judge(&json!({ "certificate": made.certificate }));
        Some(cost(time, || issuing.lint(&certificate)))
    }
}

/// One load of one operation, summed over its turns.
struct Sum {
    load: Load,
    request: Vec<u8>,
    rates: Vec<f64>,
    latencies: Vec<Duration>,
    elapsed: Duration,
    /// Processor time per item, of server, workers and load.
    server: Vec<f64>,
    workers: Vec<f64>,
    client: Vec<f64>,
}

impl Sum {
    fn new(load: Load, place: &Place, subject: &Subject) -> Self {
        Self {
            load,
            request: subject.request(load, place.token()),
            rates: Vec::new(),
            latencies: Vec::new(),
            elapsed: Duration::ZERO,
            server: Vec::new(),
            workers: Vec::new(),
            client: Vec::new(),
        }
    }

    async fn turn(&mut self, place: &Place, subject: &Subject, connections: &mut [Connection], time: Duration) {
        let (count, items) = match self.load {
            Load::Connections(count) => (count, 1),
            Load::Batch(items) => (BATCHES_AT_ONCE, items),
        };
        let (before, client) = (place.spent(), own_cpu());
        let turn = load::turn(&mut connections[..count], &self.request, time).await;
        let (after, client) = (place.spent(), own_cpu() - client);
        subject.judge(self.load, &turn.answer).await;
        let done = turn.latencies.len() * items;
        self.rates.push(rate(done, turn.elapsed));
        self.latencies.extend(turn.latencies);
        self.elapsed += turn.elapsed;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / done as f64;
        self.server.push(each(after.server - before.server));
        self.workers.push(each(after.workers - before.workers));
        self.client.push(each(client));
    }

    fn cell(mut self) -> Cell {
        self.latencies.sort_unstable();
        Cell {
            load: self.load,
            rate: median(&self.rates),
            p50: percentile(&self.latencies, 50),
            p99: percentile(&self.latencies, 99),
            server: median(&self.server),
            workers: median(&self.workers),
            client: median(&self.client),
        }
    }
}

fn row_name(device: &str, residency: Residency, operation: Operation) -> String {
    format!("{device}/{residency}/{}", operation.name())
}

fn context() -> Context {
    Context::new([("tenant".to_owned(), "bench".to_owned())].into()).unwrap()
}

fn wrap(plaintext: &[u8]) -> Wrap {
    Wrap { plaintext: SecretBase64(SecretBytes::new(plaintext.to_vec())), context: context() }
}

fn new_key(name: &str, algorithm: Algorithm, residency: Residency) -> CreateKey {
    CreateKey {
        name: name.parse().expect("a name"),
        algorithm,
        device: None,
        residency: Some(residency),
        pcrs: None,
        domain: None,
        rotation: Default::default(),
        retention: Default::default(),
        labels: Default::default(),
        deletion_protection: false,
    }
}

fn public_key(pem: &str) -> PublicKey {
    PublicKey::from_der(der::pem::decode_vec(pem.as_bytes()).expect("PEM").1)
}

/// Resident memory of the server and of its worker, with nothing in the store and nothing to do.
async fn idle_memory(place: &Place) -> (u64, u64) {
    place.client().ready().await.expect("it is ready");
    tokio::time::sleep(Duration::from_secs(2)).await;
    (process::resident(place.server()), place.workers().into_iter().map(process::resident).max().unwrap_or(0))
}

/// How long a start with [`MANY_KEYS`] wrapped keys takes until the server listens.
async fn start_with_many_keys(place: &mut Place) -> Duration {
    let client = place.client();
    for first in (0..MANY_KEYS).step_by(10) {
        let keys = (first..first + 10).map(|number| {
            let key = new_key(&format!("many-{number}"), Algorithm::EcdsaP256, Residency::Wrapped);
            let client = &client;
            async move { client.create_key(&key).await.expect("a key") }
        });
        futures_util::future::join_all(keys).await;
    }
    place.restart();
    place.client().ready().await.expect("it is ready");
    place.started()
}

/// Processor time of `act` alone, in microseconds. Two threads do it, because under load the server has no idle core beside
/// it either, and two cores of a kind are often two halves of one.
fn cost<T>(time: Duration, act: impl Fn() -> T + Sync) -> f64 {
    let (end, cpu) = (Instant::now() + time, own_cpu());
    let run = || {
        let mut count = 0_u32;
        while Instant::now() < end {
            for _ in 0..10 {
                std::hint::black_box(act());
            }
            count += 10;
        }
        count
    };
    let count: u32 = std::thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads.into_iter().map(|thread| thread.join().expect("a thread")).sum()
    });
    (own_cpu() - cpu).as_secs_f64() * 1e6 / f64::from(count)
}

fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// A percentile of sorted times, in microseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[sorted.len() * percent / 100].as_secs_f64() * 1e6
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// The median of each figure.
fn middle(samples: &[raw::Sample]) -> raw::Sample {
    let of = |figure: fn(&raw::Sample) -> f64| median(&samples.iter().map(figure).collect::<Vec<_>>());
    raw::Sample { rate: of(|one| one.rate), cpu: of(|one| one.cpu), p50: of(|one| one.p50), p99: of(|one| one.p99) }
}
