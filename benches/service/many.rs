//! A hundred keys to a million: what making them costs, a start, memory, and whether one of them costs more among many.
//!
//! They are wrapped, of the usual algorithm, and made as a client makes them: in batches of 1,000 through the API. Each size is measured after a
//! restart, so that no key is loaded in the token: the first use of a key unwraps it there.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::json;
use signet::types::Residency;
use signet::wire::Batch;

use crate::load::{self, Connection};
use crate::place::Place;
use crate::softhsm::SoftHsm;
use crate::{DERIVED, new_key, percentile, process};

const SIZES: [u64; 5] = [100, 1000, 10_000, 100_000, 1_000_000];
/// The largest where `BENCH_KEYS` says nothing: a million take a quarter of an hour.
const MOST: u64 = 100_000;
const BATCH: u64 = 1000;
/// How often each is done.
const TIMES: usize = 300;
const CHANGES: usize = 50;
/// How long the server is watched while it has nothing to do.
const IDLE: Duration = Duration::from_secs(3);

/// What came of one size. Times of a request are microseconds, the median and the 99th percentile, through HTTPS.
#[derive(Debug, Serialize)]
pub(crate) struct Many {
    pub(crate) keys: u64,
    /// Keys per second, of those that were added to the size before.
    pub(crate) made: f64,
    /// Processor time of server and worker per key, in microseconds.
    pub(crate) cost: (f64, f64),
    pub(crate) start: Duration,
    /// Resident bytes of the server after the start.
    pub(crate) memory: u64,
    pub(crate) database: u64,
    /// The share of a core that the server takes with nothing to do.
    pub(crate) idle: f64,
    /// A wrap by a key that is not loaded.
    pub(crate) cold: (f64, f64),
    /// A wrap by a key that is.
    pub(crate) warm: (f64, f64),
    /// The making of one key: two commits, one write of the anchor.
    pub(crate) create: (f64, f64),
    /// A page of 100 from anywhere.
    pub(crate) page: (f64, f64),
    /// The page of a namespace that stands behind all others.
    pub(crate) last: (f64, f64),
    /// How long a backup took until its last byte was there, and its bytes.
    pub(crate) backup: (Duration, u64),
}

pub(crate) async fn measure() -> Vec<Many> {
    let most = std::env::var("BENCH_KEYS").map_or(MOST, |text| text.parse().expect("BENCH_KEYS is a number"));
    let hsm = SoftHsm::new();
    let mut place = Place::start(&crate::place::softhsm_section(&hsm)).await;
    place.client().create_key(&new_key("zz:last", DERIVED, Residency::Wrapped)).await.expect("a key");
    let (mut all, mut there) = (Vec::new(), 0);
    for size in SIZES.into_iter().filter(|size| *size <= most) {
        eprintln!("keys/{size}");
        let (began, before) = (Instant::now(), place.spent());
        fill(&place, there, size).await;
        let (elapsed, after, added) = (began.elapsed(), place.spent(), (size - there) as f64);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / added;
        place.restart();
        let mut connection = connection(&place).await;
        let cold = uses(&mut connection, &place, (0..TIMES).map(|turn| spread(turn, size))).await;
        let warm = uses(&mut connection, &place, (0..TIMES).map(|_| spread(1, size))).await;
        let page = pages(&mut connection, &place, size).await;
        let last = gets(&mut connection, &place, |_| "/api/v1/keys?namespace=zz".to_owned()).await;
        let create = creates(&mut connection, &place, size).await;
        let backup = backup(&place).await;
        let before_idle = place.spent().server;
        tokio::time::sleep(IDLE).await;
        let idle = (place.spent().server - before_idle).as_secs_f64() / IDLE.as_secs_f64();
        all.push(Many {
            keys: size,
            made: added / elapsed.as_secs_f64(),
            cost: (each(after.server - before.server), each(after.workers - before.workers)),
            start: place.started(),
            memory: process::resident(place.server()),
            database: std::fs::metadata(place.data().join("signet.db")).expect("the database").len(),
            idle,
            cold,
            warm,
            create,
            page,
            last,
            backup,
        });
        there = size;
    }
    all
}

/// Makes the keys from `there` up to `size`.
async fn fill(place: &Place, mut there: u64, size: u64) {
    let client = place.client();
    while there < size {
        let until = (there + BATCH).min(size);
        let items = (there..until).map(|number| new_key(&name(number), DERIVED, Residency::Wrapped)).collect();
        let made = client.create_keys(&Batch { items }, None).await.expect("keys");
        assert_eq!(made.len() as u64, until - there);
        there = until;
    }
}

fn name(number: u64) -> String {
    format!("key-{number:07}")
}

/// A key anywhere, another one at each turn.
fn spread(turn: usize, size: u64) -> u64 {
    (turn as u64 * 7_919_317 + 13) % size
}

async fn connection(place: &Place) -> Connection {
    let mut one = load::connect(place.address(), &place.authority(), 1).await;
    one.pop().expect("a connection")
}

async fn uses(connection: &mut Connection, place: &Place, keys: impl Iterator<Item = u64>) -> (f64, f64) {
    let body = json!({ "plaintext": "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=" }).to_string();
    let ask = |key| load::request(&format!("/api/v1/keys/{}/wrap", name(key)), place.token(), &body);
    timed(connection, keys.map(ask)).await
}

async fn pages(connection: &mut Connection, place: &Place, size: u64) -> (f64, f64) {
    gets(connection, place, |turn| {
        let after = URL_SAFE_NO_PAD.encode(format!("default:{}", name(spread(turn, size))));
        format!("/api/v1/keys?page_token={after}")
    })
    .await
}

async fn gets(connection: &mut Connection, place: &Place, path: impl Fn(usize) -> String) -> (f64, f64) {
    timed(connection, (0..TIMES).map(|turn| load::get(&path(turn), place.token()))).await
}

async fn creates(connection: &mut Connection, place: &Place, size: u64) -> (f64, f64) {
    let ask = |turn| {
        let key = new_key(&format!("one-of-{size}-{turn}"), DERIVED, Residency::Wrapped);
        load::request("/api/v1/keys", place.token(), &serde_json::to_string(&key).expect("JSON"))
    };
    timed(connection, (0..CHANGES).map(ask)).await
}

/// How long each request took.
async fn timed(connection: &mut Connection, requests: impl Iterator<Item = Vec<u8>>) -> (f64, f64) {
    let mut took = Vec::new();
    for request in requests {
        let began = Instant::now();
        connection.ask(&request).await;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    (percentile(&took, 50), percentile(&took, 99))
}

async fn backup(place: &Place) -> (Duration, u64) {
    let began = Instant::now();
    let client = place.patient_client(Duration::from_secs(600));
    let mut download = client.backup().await.expect("a backup");
    let mut bytes = 0;
    while let Some(piece) = download.piece().await.expect("a piece of it") {
        bytes += piece.len() as u64;
    }
    (began.elapsed(), bytes)
}
