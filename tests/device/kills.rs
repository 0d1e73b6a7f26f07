//! Workers that are killed under load: no answer is wrong, and none is lost that can be had again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signet::types::{Algorithm, Residency};
use tokio::time::{Instant, MissedTickBehavior};

use crate::bench::{Bench, Key, eventually, kill, softhsm, worker_processes};
use crate::proof::proven;

/// How many, unless `SIGNET_TEST_WORKER_KILLS` says otherwise.
const KILLS: u64 = 50;
const CALLERS: usize = 8;

#[derive(Default)]
struct Tally {
    right: usize,
    wrong: usize,
    lost: Vec<String>,
    took: Vec<Duration>,
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_under_load_lose_nothing() {
    let Some(hsm) = softhsm() else { return };
    let bench = Arc::new(Bench::softhsm(&hsm).await);
    let keys = [
        bench.make(Algorithm::EcdsaP256, Residency::Resident).await,
        bench.make(Algorithm::EcdsaP256, Residency::Wrapped).await,
    ];
    let over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> =
        (0..CALLERS).map(|n| tokio::spawn(call(bench.clone(), keys[n % keys.len()].clone(), over.clone()))).collect();
    let kills = std::env::var("SIGNET_TEST_WORKER_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    for turn in 0..kills {
        // Each worker is killed after it proved itself: every other one at once, so that the callers of the one before are
        // still with it, the rest after more than a second, as a worker that dies young is replaced ever more slowly.
        eventually("a worker is up", async || bench.worker.restarts() == turn && bench.worker.state().is_ok()).await;
        let up = Instant::now();
        let settled = Duration::from_millis(if turn % 2 == 0 { 20 } else { 1050 });
        eventually("it worked for a while", async || up.elapsed() > settled).await;
        worker_processes(&hsm).into_iter().for_each(kill);
    }
    eventually("the last one is replaced", async || bench.worker.restarts() == kills).await;
    over.store(true, Ordering::SeqCst);
    let mut all = Tally::default();
    for caller in callers {
        let tally = caller.await.unwrap();
        all.right += tally.right;
        all.wrong += tally.wrong;
        all.lost.extend(tally.lost);
        all.took.extend(tally.took);
    }
    all.took.sort_unstable();
    let at = |share: usize| all.took[(all.took.len() - 1) * share / 1000];
    println!(
        "{kills} kills: {} right, {} wrong, {} lost; p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
        all.right,
        all.wrong,
        all.lost.len(),
        at(500),
        at(990),
        at(999),
        at(1000)
    );
    assert_eq!((all.wrong, all.lost), (0, vec![]));
    let outcome =
        format!("0 wrong answers, 0 of {} requests lost, p99 {:?}, longest {:?}", all.right, at(990), at(1000));
    proven("kills of a device worker under load", usize::try_from(kills).unwrap(), &outcome);
    for key in &keys {
        bench.works(key).await;
    }
}

/// One caller, every few milliseconds.
async fn call(bench: Arc<Bench>, key: Key, over: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !over.load(Ordering::SeqCst) {
        ticks.tick().await;
        let began = Instant::now();
        match bench.sign(&key).await {
            Ok(signature) if key.verifies(&signature) => tally.right += 1,
            Ok(_) => tally.wrong += 1,
            Err(fault) => tally.lost.push(format!("{fault:?}")),
        }
        tally.took.push(began.elapsed());
    }
    tally
}
