//! A large inventory: what a search costs, a start, and memory.
//!
//! The rows are written by the store itself while the service is down, ten thousand to a transaction, under the storage key that
//! the device unwraps: their tags are real, and the sealed count is. What they say of a certificate is made up, and their
//! bytes are those of one real certificate of their issuer with another serial number, because a million signatures of a
//! software token would take longer than all that is measured. They have no leaves in the audit log. Searches go through the
//! front: HTTPS, a token, a decision and a record for each, every tag checked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;
use signet::ciphertext::derived::{self as format, Header};
use signet::device::{KeyRef, Settings, Worker};
use signet::store::certificates::{Counts, End, Reservation, Row};
use signet::store::{Change, Expected, Sealed, Sqlite, StorageKey, Store};
use signet::telemetry::Metrics;
use signet::types::{Algorithm, Context, Residency, Version};

use crate::issuing::Issuing;
use crate::load::{self, Connection};
use crate::place::{PROGRAM, Place};
use crate::softhsm::SoftHsm;
use crate::{percentile, process};

/// Certificates where `BENCH_CERTIFICATES` says nothing.
const MANY: u64 = 1_000_000;
/// How many rows are written at once.
const CHUNK: usize = 10_000;
/// How many searches of each kind are measured.
const SEARCHES: u64 = 300;

const ISSUERS: [&str; 6] = ["default:a", "default:b", "default:c", "fleet:a", "fleet:b", "fleet:c"];
const PROFILES: [&str; 4] = ["server", "client", "peer", "spiffe"];
const REQUESTERS: u64 = 500;
/// Hosts ask again and again.
const HOSTS: u64 = 100_000;
/// Names that many hosts share.
const SHARED: u64 = 50;
const DAYS: i64 = 400;

/// What came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Inventory {
    pub(crate) certificates: u64,
    /// Seconds.
    pub(crate) filled: f64,
    /// Bytes.
    pub(crate) database: u64,
    /// Until the server listens, with an empty inventory and with all of it.
    pub(crate) start: (Duration, Duration),
    /// Resident bytes of the server, with an empty inventory, after the start, and after all searches.
    pub(crate) memory: (u64, u64, u64),
    pub(crate) searches: Vec<Searched>,
}

/// One kind of search. Microseconds, through the front.
#[derive(Debug, Serialize)]
pub(crate) struct Searched {
    pub(crate) name: &'static str,
    /// Items of a page, at the median.
    pub(crate) items: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// A sequence without luck: xorshift.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

pub(crate) async fn measure() -> Inventory {
    let certificates = std::env::var("BENCH_CERTIFICATES").map_or(MANY, |text| text.parse().expect("a number"));
    let hsm = SoftHsm::new();
    let mut place = Place::start(&crate::place::softhsm_section(&hsm)).await;
    let mut issuers = Vec::new();
    for name in ISSUERS {
        issuers.push(Sample::new(&place, name).await);
    }
    place.restart();
    place.client().ready().await.expect("it is ready");
    let (empty_start, empty) = (place.started(), process::resident(place.server()));
    place.stop();
    let began = Instant::now();
    let database = place.data().join("signet.db");
    fill(&database, storage_key(&place, &hsm).await, &issuers, certificates);
    // The rows came past the ledger, and the records are not those of its last change.
    place.accept_what_is_there();
    let filled = began.elapsed().as_secs_f64();
    let size = std::fs::metadata(&database).expect("the database").len();
    place.restart();
    place.client().ready().await.expect("it is ready");
    let (start, loaded) = (place.started(), process::resident(place.server()));
    let searches = searches(&place, certificates).await;
    Inventory {
        certificates,
        filled,
        database: size,
        start: (empty_start, start),
        memory: (empty, loaded, process::resident(place.server())),
        searches,
    }
}

/// A real certificate of an issuer, in the two parts that the inventory keeps.
struct Sample {
    body: Vec<u8>,
    /// Where the serial number stands in the body.
    serial: usize,
    rest: Vec<u8>,
}

impl Sample {
    async fn new(place: &Place, name: &str) -> Self {
        let client = place.client();
        let issuing = Issuing::new(&client, name, Algorithm::EcdsaP256, Residency::Resident).await;
        let (path, body) = issuing.ask(None);
        let mut connections = load::connect(place.address(), &place.authority(), 1).await;
        let request = load::request(&format!("/api/v1/{path}"), place.token(), &body.to_string());
        let answer = connections[0].ask(&request).await.to_vec();
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        let der = issuing.judge(&answer).der().to_vec();
        let serial = hex::decode(answer["serial"].as_str().expect("a serial number")).expect("hex");
        // SEQUENCE { body, algorithm, signature }, each longer than 255 bytes: the first two have heads of four bytes.
        let content = &der[4..];
        let end = 4 + usize::from(content[2]) * 256 + usize::from(content[3]);
        let (body, rest) = content.split_at(end);
        let at = body.windows(serial.len()).position(|window| window == serial).expect("its serial number");
        Self { body: body.to_vec(), serial: at, rest: rest.to_vec() }
    }
}

/// What the service does at its start: the device opens the storage key.
async fn storage_key(place: &Place, hsm: &SoftHsm) -> StorageKey {
    let text = std::fs::read(place.data().join("root.json")).expect("root.json");
    let root: Value = serde_json::from_slice(&text).expect("JSON");
    let key: KeyRef = serde_json::from_value(root["root_key"].clone()).expect("a key");
    let identity = serde_json::from_value(root["devices"]["device"].clone()).expect("a device");
    let blob = STANDARD.decode(root["storage_key"].as_str().expect("a key")).expect("base64");
    let settings = Settings::Pkcs11(hsm.settings());
    let worker = Worker::start("device", settings, Some(identity), PROGRAM.into(), Metrics::new());
    worker.settled().await.expect("the device opens");
    let hash = Context::new([("signet".to_owned(), "storage key".to_owned())].into()).expect("a context").hash();
    let (header, _) = Header::parse(&blob).expect("a header");
    let input = format::device_input(&header, &hash);
    let code = worker.use_key(&Arc::new(key), input).await.expect("the root key");
    worker.shutdown().await;
    let opened = format::open(&code.expose().try_into().expect("32 bytes"), &blob, &hash).expect("it opens");
    StorageKey::try_from(opened).expect("a storage key")
}

fn fill(database: &std::path::Path, key: StorageKey, issuers: &[Sample], count: u64) {
    let store = Sealed::new(Sqlite::open(database).expect("the database"), key);
    let before: Counts = store
        .get("ledger/certificates")
        .unwrap()
        .map_or_else(Counts::default, |record| serde_json::from_slice(&record.value).expect("the counts"));
    let now = now();
    let mut draw = Draw(0x9e37_79b9_7f4a_7c15);
    let (mut rows, mut counts) = (Vec::new(), before);
    for number in before.reserved + 1..=before.reserved + count {
        let (reservation, end) = one(number, issuers, now, &mut draw);
        counts.reserved += 1;
        counts.ended += 1;
        counts.names += reservation.names.len() as u64;
        rows.extend([Row::Reserve(reservation), Row::End(end)]);
        if rows.len() >= 2 * CHUNK || number == before.reserved + count {
            let value = Some(serde_json::to_vec(&counts).expect("JSON"));
            let change = Change { path: "ledger/certificates".to_owned(), expected: Expected::Any, value };
            store.commit_rows(&[change], &rows).expect("rows are written");
            rows.clear();
        }
    }
}

fn one(number: u64, issuers: &[Sample], now: Timestamp, draw: &mut Draw) -> (Reservation, End) {
    let requester = draw.below(REQUESTERS);
    let issuer = usize::try_from(draw.below(issuers.len() as u64)).expect("small");
    let sample = &issuers[issuer];
    let mut serial = [0x42; 20];
    for part in serial.chunks_mut(8) {
        let bytes = draw.below(u64::MAX).to_be_bytes();
        part.copy_from_slice(&bytes[..part.len()]);
    }
    serial[0] &= 0x7f;
    let mut body = sample.body.clone();
    body[sample.serial..sample.serial + 20].copy_from_slice(&serial);
    let begins = now - SignedDuration::from_secs(draw.below(86400).try_into().expect("small"));
    let lives = i64::try_from(draw.below(DAYS.unsigned_abs() * 86400)).expect("small");
    let reservation = Reservation {
        number,
        serial,
        issuer: ISSUERS[issuer].parse().expect("a name"),
        version: Version::FIRST,
        // Who asks for one kind of certificate seldom asks for another: conditions that exclude each other are the hard ones.
        profile: format!("default:{}", PROFILES[usize::try_from(requester % 4).expect("small")]),
        requester: format!("identity/host-{requester}"),
        subject: String::new(),
        names: vec![format!("dns:h{}.fleet.example", draw.below(HOSTS)), format!("dns:s{}.example", number % SHARED)],
        not_before: begins,
        not_after: now + SignedDuration::from_secs(lives),
        at: now,
        body,
        tag: [0; 32],
    };
    let end = End { number, at: now, signature: Some(sample.rest.clone()), tag: [0; 32] };
    (reservation, end)
}

#[expect(clippy::disallowed_methods, reason = "certificates that end are measured against the service's own clock")]
fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).expect("a time")
}

/// Every search that the API offers, and those of its combinations that are hardest.
async fn searches(place: &Place, certificates: u64) -> Vec<Searched> {
    let now = now();
    let day = move |days: u64| now + SignedDuration::from_hours(24 * i64::try_from(days).expect("small"));
    let page = move |draw: &mut Draw| {
        let place = format!("{}.{}", draw.below(certificates), day(draw.below(DAYS.unsigned_abs())).as_second());
        format!("&page_token={}", URL_SAFE_NO_PAD.encode(place))
    };
    let issuer = |draw: &mut Draw| format!("issuer={}", ISSUERS[usize::try_from(draw.below(6)).expect("small")]);
    let requester = |draw: &mut Draw| format!("requester=identity/host-{}", draw.below(REQUESTERS));
    let profile = |draw: &mut Draw| format!("profile={}", PROFILES[usize::try_from(draw.below(4)).expect("small")]);
    let shared = |draw: &mut Draw| format!("name=dns:s{}.example", draw.below(SHARED));
    let ending = move |draw: &mut Draw| format!("expires_before={}", day(1 + draw.below(60)));
    // What nothing fulfils: each part alone does for many.
    let apart = |draw: &mut Draw| {
        let requester = draw.below(REQUESTERS);
        let other = PROFILES[usize::try_from((requester + 1) % 4).expect("small")];
        format!("requester=identity/host-{requester}&profile={other}")
    };
    type Ask<'a> = Box<dyn Fn(&mut Draw) -> String + 'a>;
    let asks: Vec<(&str, Ask<'_>)> = vec![
        ("all, newest", Box::new(|_| "page_size=100".to_owned())),
        ("all, a deep page", Box::new(|draw| format!("page_size=100{}", page(draw)))),
        ("name of one host", Box::new(|draw| format!("name=dns:h{}.fleet.example", draw.below(HOSTS)))),
        ("name of many, newest", Box::new(shared)),
        ("name of many, a deep page", Box::new(|draw| format!("{}{}", shared(draw), page(draw)))),
        ("name of many, and requester", Box::new(|draw| format!("{}&{}", shared(draw), requester(draw)))),
        ("name of many, and end", Box::new(|draw| format!("{}&{}", shared(draw), ending(draw)))),
        ("name of nobody", Box::new(|draw| format!("name=dns:x{}.example", draw.below(HOSTS)))),
        ("issuer", Box::new(issuer)),
        ("issuer, a deep page", Box::new(|draw| format!("{}{}", issuer(draw), page(draw)))),
        ("namespace", Box::new(|_| "namespace=fleet".to_owned())),
        ("namespace, a deep page", Box::new(|draw| format!("namespace=fleet{}", page(draw)))),
        ("namespace of nobody", Box::new(|_| "namespace=nobody".to_owned())),
        ("profile", Box::new(profile)),
        ("profile, a deep page", Box::new(|draw| format!("{}{}", profile(draw), page(draw)))),
        ("requester", Box::new(requester)),
        ("requester, a deep page", Box::new(|draw| format!("{}{}", requester(draw), page(draw)))),
        ("ends before", Box::new(ending)),
        ("ends before, a deep page", Box::new(|draw| format!("{}{}", ending(draw), page(draw)))),
        (
            "issuer, profile and requester",
            Box::new(|draw| format!("{}&{}&{}", issuer(draw), profile(draw), requester(draw))),
        ),
        (
            "issuer and profile, ends before",
            Box::new(|draw| format!("{}&{}&{}", issuer(draw), profile(draw), ending(draw))),
        ),
        (
            "namespace, ends before, a deep page",
            Box::new(|draw| format!("namespace=fleet&{}{}", ending(draw), page(draw))),
        ),
        ("requester, ends before", Box::new(|draw| format!("{}&{}", requester(draw), ending(draw)))),
        ("requester and a profile that is never hers", Box::new(apart)),
        ("page of 1,000", Box::new(|draw| format!("page_size=1000{}", page(draw)))),
    ];
    let mut connections = load::connect(place.address(), &place.authority(), 1).await;
    let (mut all, mut draw) = (Vec::new(), Draw(88_172_645_463_325_252));
    for (name, ask) in asks {
        all.push(search(name, place, &mut connections[0], || format!("?{}", ask(&mut draw))).await);
    }
    // By serial number: those that the searches above have shown, and more of the same kind.
    let serials = serials(place, &mut connections[0], certificates).await;
    let mut next = serials.iter().cycle();
    all.push(
        search("serial number", place, &mut connections[0], || format!("/{}", next.next().expect("endless"))).await,
    );
    all
}

async fn serials(place: &Place, connection: &mut Connection, certificates: u64) -> Vec<String> {
    let (mut all, mut draw) = (Vec::new(), Draw(7));
    for _ in 0..SEARCHES {
        let token = URL_SAFE_NO_PAD.encode(format!("{}.0", 2 + draw.below(certificates)));
        let answer = connection.ask(&load::fetch(&format!("?page_size=1&page_token={token}"), place.token())).await;
        let answer: Value = serde_json::from_slice(answer).expect("JSON");
        all.push(answer["items"][0]["serial"].as_str().expect("a serial number").to_owned());
    }
    all
}

async fn search(
    name: &'static str,
    place: &Place,
    connection: &mut Connection,
    mut ask: impl FnMut() -> String,
) -> Searched {
    let (mut latencies, mut items) = (Vec::new(), Vec::new());
    for _ in 0..SEARCHES {
        let request = load::fetch(&ask(), place.token());
        let began = Instant::now();
        let answer = connection.ask(&request).await;
        latencies.push(began.elapsed());
        let answer: Value = serde_json::from_slice(answer).expect("JSON");
        items.push(answer["items"].as_array().map_or(1, Vec::len));
    }
    latencies.sort_unstable();
    items.sort_unstable();
    Searched { name, items: items[items.len() / 2], p50: percentile(&latencies, 50), p99: percentile(&latencies, 99) }
}
