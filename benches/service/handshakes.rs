//! Handshakes of TLS 1.3, each a whole one on a connection of its own: the server's key in memory, and in the device.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;
use signet::types::{Algorithm, Residency};

use crate::issuing::Issuing;
use crate::place::{Place, softhsm_section};
use crate::process::own_cpu;
use crate::softhsm::SoftHsm;
use crate::{load, median, percentile};

/// How many connect at once.
const AT_ONCE: usize = 8;
/// How often each is measured, by turns of an equal part of the time.
const TURNS: u32 = 5;

/// What came of it: times are microseconds, processor time is per handshake.
#[derive(Debug, Serialize)]
pub(crate) struct Handshakes {
    /// Where the server's key is.
    pub(crate) key: &'static str,
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) server: f64,
    pub(crate) workers: f64,
    /// What the other end cost.
    pub(crate) client: f64,
}

pub(crate) async fn measure(time: Duration) -> Vec<Handshakes> {
    let hsm = SoftHsm::new();
    let mut place = Place::start(&softhsm_section(&hsm)).await;
    let issuing = Issuing::new(&place.client(), "tls", Algorithm::EcdsaP256, Residency::Wrapped).await;
    let (mut all, mut last) = (Vec::new(), None);
    for (key, device) in [("memory", ""), ("device", "device = \"device\"\n")] {
        place.configure(&format!(
            "[tls]\nissuer = \"{}\"\nnames = [\"localhost\", \"127.0.0.1\"]\n{device}",
            issuing.name
        ));
        last = Some(issued(&place, last).await);
        all.push(turns(&place, key, time).await);
    }
    all
}

/// Waits until the server shows a certificate of its own issuer that is another than `last`. Answers its serial number.
async fn issued(place: &Place, last: Option<String>) -> String {
    loop {
        let shown = place.client().status().await.expect("it answers").certificate.expect("it shows one");
        if let Some(serial) = shown.serial.filter(|serial| shown.source == "issued" && last.as_ref() != Some(serial)) {
            return serial;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn turns(place: &Place, key: &'static str, time: Duration) -> Handshakes {
    let authority = place.authority();
    let (mut rates, mut latencies) = (Vec::new(), Vec::new());
    let (mut server, mut workers, mut client) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (before, own, began) = (place.spent(), own_cpu(), Instant::now());
        let connecting = (0..AT_ONCE).map(|_| async {
            let mut took = Vec::new();
            while began.elapsed() < time / TURNS {
                let now = Instant::now();
                drop(load::connect(place.address(), &authority, 1).await);
                took.push(now.elapsed());
            }
            took
        });
        let took: Vec<_> = join_all(connecting).await.into_iter().flatten().collect();
        let (elapsed, after, own) = (began.elapsed(), place.spent(), own_cpu() - own);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / took.len() as f64;
        rates.push(took.len() as f64 / elapsed.as_secs_f64());
        server.push(each(after.server - before.server));
        workers.push(each(after.workers - before.workers));
        client.push(each(own));
        latencies.extend(took);
    }
    latencies.sort_unstable();
    Handshakes {
        key,
        rate: median(&rates),
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        server: median(&server),
        workers: median(&workers),
        client: median(&client),
    }
}
