//! What a change costs that devices must vouch for before it is acknowledged, with each kind of anchor: an identity is put, which
//! asks no device for anything else.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;
use signet::wire::{CertificateMatch, Identity};

use crate::place::{Place, softhsm_section, tpm_section};
use crate::softhsm::SoftHsm;
use crate::swtpm::Swtpm;
use crate::{median, percentile};

/// How often each is measured, by turns of an equal part of the time.
const TURNS: u32 = 5;
/// How many ask at once: what waits together shares a commit and the write of an anchor.
const AT_ONCE: [usize; 2] = [1, 8];
/// So few writes a day are spent before the first turn: from then on the anchor rests.
const RESTING: &str = "anchor_writes_per_day = 10\n";

/// What came of it: times are microseconds, processor time is per change.
#[derive(Debug, Serialize)]
pub(crate) struct Changes {
    pub(crate) anchor: &'static str,
    pub(crate) connections: usize,
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) server: f64,
    pub(crate) workers: f64,
}

pub(crate) async fn measure(time: Duration) -> Vec<Changes> {
    let (hsm, tpm) = (SoftHsm::new(), Swtpm::start());
    let (sessions, password) = (tpm_section(&tpm.settings(true)), tpm_section(&tpm.settings(false)));
    let arrangements = [
        ("none: it rests", format!("{}{RESTING}", softhsm_section(&hsm))),
        ("SoftHSM", softhsm_section(&hsm)),
        ("swtpm, sessions", sessions.clone()),
        ("swtpm, passwords", password),
        ("SoftHSM and swtpm", format!("{}[devices.tpm]\n{sessions}", softhsm_section(&hsm))),
    ];
    let mut all = Vec::new();
    for (anchor, devices) in arrangements {
        let place = Place::start(&devices).await;
        turns(&place, 1, Duration::from_millis(500)).await;
        for connections in AT_ONCE {
            let (samples, latencies) = turns(&place, connections, time).await;
            let middle = |pick: fn(&Sample) -> f64| median(&samples.iter().map(pick).collect::<Vec<_>>());
            all.push(Changes {
                anchor,
                connections,
                rate: middle(|sample| sample.rate),
                p50: percentile(&latencies, 50),
                p99: percentile(&latencies, 99),
                server: middle(|sample| sample.server),
                workers: middle(|sample| sample.workers),
            });
        }
    }
    all
}

/// One turn.
struct Sample {
    rate: f64,
    server: f64,
    workers: f64,
}

async fn turns(place: &Place, connections: usize, time: Duration) -> (Vec<Sample>, Vec<Duration>) {
    let clients: Vec<_> = (0..connections).map(|_| place.client()).collect();
    let identity =
        Identity { name: None, groups: vec![], certificates: vec![CertificateMatch::Dns("bench.example".to_owned())] };
    let (mut samples, mut latencies) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let (before, began) = (place.spent(), Instant::now());
        let changing = clients.iter().enumerate().map(|(number, client)| {
            let (name, identity) = (format!("bench-{number}").parse().expect("a name"), &identity);
            async move {
                let mut took = Vec::new();
                while began.elapsed() < time / TURNS {
                    let now = Instant::now();
                    client.put_identity(&name, identity).await.expect("an identity");
                    took.push(now.elapsed());
                }
                took
            }
        });
        let took: Vec<_> = join_all(changing).await.into_iter().flatten().collect();
        let (elapsed, after) = (began.elapsed(), place.spent());
        let each = |time: Duration| time.as_secs_f64() * 1e6 / took.len() as f64;
        samples.push(Sample {
            rate: took.len() as f64 / elapsed.as_secs_f64(),
            server: each(after.server - before.server),
            workers: each(after.workers - before.workers),
        });
        latencies.extend(took);
    }
    latencies.sort_unstable();
    (samples, latencies)
}
