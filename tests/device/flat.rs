//! What grows with use or with recoveries is found out in the end, at night: nothing may.
//!
//! A process of its own, since memory and descriptors of a test binary are those of all its tests.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use signet::types::{Algorithm, Residency};
use tokio::time::Instant;

use crate::bench::{Bench, Key, eventually, kill, softhsm, worker_processes};
use crate::proof::proven;
use crate::softhsm::SoftHsm;

/// Tells the copy of the test binary where its token is.
const FOLDER: &str = "SIGNET_TEST_FLAT";
/// How many of each kind, unless `SIGNET_TEST_RECOVERIES` says otherwise.
const RECOVERIES: usize = 20;
/// How many uses of keys, unless `SIGNET_TEST_OPERATIONS` says otherwise.
const OPERATIONS: usize = 20_000;
const BATCH: usize = 200;
const CALLERS: usize = 4;
/// What a process may weigh more in the end, in KiB: allocators keep what they had at the busiest moment.
const MORE: usize = 8 * 1024;

fn wanted(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Weight {
    /// Resident, in KiB.
    memory: usize,
    descriptors: usize,
    threads: usize,
}

impl Weight {
    fn of(pid: &str) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let value = |what: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Self { memory: value("VmRSS:"), descriptors, threads: value("Threads:") }
    }

    /// Asserts that this is no more than `before`.
    fn is_no_more_than(self, before: Self, what: &str) {
        assert!(self.memory <= before.memory + MORE, "{what}: {before:?}, then {self:?}");
        assert!(self.descriptors <= before.descriptors, "{what}: {before:?}, then {self:?}");
        assert!(self.threads <= before.threads, "{what}: {before:?}, then {self:?}");
    }
}

/// The service's side, the worker's side, and the sessions of the token, where it counts them.
struct Weights {
    front: Weight,
    worker: Weight,
    sessions: Option<u64>,
}

impl Weights {
    async fn now(bench: &Bench, hsm: &SoftHsm) -> Self {
        // The count is of the next health check; what ended a moment ago is gone by then.
        let asked = Instant::now();
        eventually("a health check", async || bench.worker.proved().is_some_and(|(at, _)| at > asked)).await;
        let (_, health) = bench.worker.proved().unwrap();
        let workers = worker_processes(hsm);
        assert_eq!(workers.len(), 1, "one worker");
        Self { front: Weight::of("self"), worker: Weight::of(&workers[0].to_string()), sessions: health.sessions }
    }

    fn are_no_more_than(&self, before: &Self, what: &str) {
        println!("{what}: the service {:?}, then {:?}", before.front, self.front);
        println!(
            "{what}: the worker {:?}, then {:?}; sessions {:?}, then {:?}",
            before.worker, self.worker, before.sessions, self.sessions
        );
        self.front.is_no_more_than(before.front, what);
        self.worker.is_no_more_than(before.worker, what);
        assert!(self.sessions <= before.sessions, "{what}: {:?} sessions, then {:?}", before.sessions, self.sessions);
    }
}

#[test]
fn nothing_grows_with_recoveries_or_use() {
    let Some(hsm) = softhsm() else { return };
    let copy = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "flat::a_process_of_its_own", "--nocapture", "--test-threads=1"])
        .env(FOLDER, hsm.folder())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&copy.stdout);
    println!("{out}");
    assert!(copy.status.success(), "{}\n{}", copy.status, String::from_utf8_lossy(&copy.stderr));
    assert!(out.contains("1 passed") && out.contains("uses of keys after which"), "it did not run");
}

/// Called by the test above; by itself it has nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_its_own() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let hsm = SoftHsm::at(folder.into());
    let bench = Arc::new(Bench::faulty(&hsm).await);
    let keys = [
        bench.make(Algorithm::HmacSha256, Residency::Wrapped).await,
        bench.make(Algorithm::EcdsaP256, Residency::Resident).await,
    ];
    let recoveries = wanted("SIGNET_TEST_RECOVERIES", RECOVERIES);
    let operations = wanted("SIGNET_TEST_OPERATIONS", OPERATIONS);
    // 1. As busy as it gets, so that allocators have what they want.
    sessions_lost(&bench, &hsm, &keys, 5).await;
    workers_killed(&bench, &hsm, &keys, 5).await;
    uses(&bench, &keys, OPERATIONS).await;
    let before = Weights::now(&bench, &hsm).await;
    // 2. The token loses sessions.
    sessions_lost(&bench, &hsm, &keys, recoveries).await;
    Weights::now(&bench, &hsm).await.are_no_more_than(&before, "sessions lost");
    proven("lost sessions after which nothing has grown", recoveries, "memory, descriptors, threads and sessions");
    // 3. The worker dies. The next one begins small.
    workers_killed(&bench, &hsm, &keys, recoveries).await;
    uses(&bench, &keys, OPERATIONS).await;
    Weights::now(&bench, &hsm).await.are_no_more_than(&before, "workers killed");
    proven("killed workers after which nothing has grown", recoveries, "memory, descriptors, threads and sessions");
    // 4. Use.
    let began = Instant::now();
    uses(&bench, &keys, operations).await;
    println!("{operations} uses in {:?}", began.elapsed());
    Weights::now(&bench, &hsm).await.are_no_more_than(&before, "uses");
    proven("uses of keys after which nothing has grown", operations, "memory, descriptors, threads and sessions");
    bench.worker.shutdown().await;
}

/// Has the token lose a session so many times: each is replaced, and nobody feels it.
async fn sessions_lost(bench: &Bench, hsm: &SoftHsm, keys: &[Key; 2], count: usize) {
    let restarts = bench.worker.restarts();
    // CKR_SESSION_HANDLE_INVALID.
    hsm.plan("C_SignInit every=3 pre=0xB3");
    hsm.calls();
    let (mut opened, mut closed) = (0, 0);
    while opened < count {
        for key in keys.iter().cycle().take(60) {
            bench.sign(key).await.unwrap();
        }
        let calls = hsm.calls();
        opened += calls["C_OpenSession"];
        closed += calls["C_CloseSession"];
    }
    hsm.plan("");
    assert_eq!(bench.worker.restarts(), restarts);
    // One of them may be under way.
    assert!(closed + 1 >= opened, "{opened} sessions opened, {closed} closed");
}

async fn workers_killed(bench: &Bench, hsm: &SoftHsm, keys: &[Key; 2], count: usize) {
    for _ in 0..count {
        // One after the other they would open the breaker.
        bench.worker.retry();
        let before = bench.worker.restarts();
        worker_processes(hsm).into_iter().for_each(kill);
        eventually("the worker is replaced", async || {
            bench.worker.restarts() > before && bench.worker.settled().await.is_ok()
        })
        .await;
        for key in keys {
            bench.sign(key).await.unwrap();
        }
        hsm.calls();
    }
}

async fn uses(bench: &Arc<Bench>, keys: &[Key; 2], count: usize) {
    let callers = (0..CALLERS).map(|number| {
        let (bench, key) = (Arc::clone(bench), keys[number % keys.len()].clone());
        tokio::spawn(async move {
            for _ in 0..count.div_ceil(BATCH * CALLERS) {
                let inputs = vec![key.input(b"text"); BATCH];
                for answer in bench.worker.use_key_batch(&key.key, inputs).await {
                    answer.unwrap();
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
}
