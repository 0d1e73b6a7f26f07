//! What a change costs that devices and witnesses must vouch for before it is acknowledged, with each kind of anchor: an identity
//! is put, which asks no device for anything else.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Serialize;
use signet::audit::checkpoint::{self, Head};
use signet::config::WitnessConfig;
use signet::server::Options;
use signet::types::NoteKey;
use signet::wire::{CertificateMatch, Identity};
use signet::witness::{Witness, init};
use tokio::runtime::Runtime;

use crate::place::{PROGRAM, Place, softhsm_section, tpm_section};
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
    let softhsm = softhsm_section(&hsm);
    let arrangements = [
        ("none: it rests", format!("{softhsm}{RESTING}"), None),
        ("SoftHSM", softhsm.clone(), None),
        ("swtpm, sessions", sessions.clone(), None),
        ("swtpm, passwords", password, None),
        ("SoftHSM and swtpm", format!("{softhsm}[devices.tpm]\n{sessions}"), None),
        ("witness follows", softhsm.clone(), Some(false)),
        ("witness required", softhsm, Some(true)),
    ];
    let mut all = Vec::new();
    for (anchor, devices, witness) in arrangements {
        let mut place = Place::start(&devices).await;
        let _watcher = match witness {
            Some(required) => Some(Watcher::start(&mut place, required).await),
            None => None,
        };
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

/// A witness with a token of its own, on threads of its own: who starts a service waits for it, which asks the witness.
struct Watcher {
    threads: Option<Runtime>,
    _witness: Witness,
    _hsm: SoftHsm,
    _folder: tempfile::TempDir,
}

impl Watcher {
    /// One that cosigns the log of `place`, which knows it from now on.
    async fn start(place: &mut Place, required: bool) -> Self {
        let head = place.client().audit_head().await.expect("a head");
        let origin = Head::parse(&head.note).expect("a checkpoint").origin().to_string();
        let public = checkpoint::public_key_from_pem(&head.public_key).expect("the key of the log");
        let log = NoteKey::of_log(&origin, &public).expect("a verifier key");
        let (hsm, folder) = (SoftHsm::new(), tempfile::tempdir().expect("a temporary folder"));
        let config = format!(
            "[witness]\nname = \"witness.example/bench\"\nlisten = \"127.0.0.1:0\"\ndata = {:?}\n[device]\n{}[[log]]\nkeys = [\"{log}\"]\n",
            folder.path().join("data"),
            softhsm_section(&hsm),
        );
        let config = WitnessConfig::parse(&config).expect("a configuration");
        let threads = Runtime::new().expect("threads");
        let started = threads.spawn(async move {
            let options = || Options { program: PROGRAM.into(), ..Options::new().expect("the options") };
            let key = init(&config, &options()).await.expect("the key of the witness");
            (key, Witness::start(&config, &options()).await.expect("the witness starts"))
        });
        let (key, witness) = started.await.expect("the witness starts");
        let url = format!("http://{}", witness.address());
        place.configure(&format!("[[witness]]\nkey = \"{key}\"\nurl = \"{url}\"\nrequired = {required}\n"));
        Self { threads: Some(threads), _witness: witness, _hsm: hsm, _folder: folder }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
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
