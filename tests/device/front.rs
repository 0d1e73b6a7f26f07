//! The front dies, and its worker with it: a worker holds the PIN and must not be left alone.

use std::fs;
use std::process::{Command, Stdio};

use signet::device::Settings;
use signet::types::{Algorithm, Residency};

use crate::bench::{Bench, eventually, kill, softhsm, worker_processes};
use crate::softhsm::SoftHsm;

/// Tells the copy of the test binary that it is the front, and where its token is.
const FRONT: &str = "SIGNET_TEST_FRONT";

/// Where the copy's library is when it is killed.
const MOMENTS: &[(&str, &str)] = &[("idle", ""), ("signing", "C_Sign hang"), ("opening", "C_Login hang")];

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_never_outlives_its_front() {
    if let Some(folder) = std::env::var_os(FRONT) {
        return be_the_front(&SoftHsm::at(folder.into())).await;
    }
    futures_util::future::join_all(MOMENTS.iter().map(|(moment, plan)| ends_with_its_front(moment, plan))).await;
}

async fn ends_with_its_front(moment: &str, plan: &str) {
    let Some(hsm) = softhsm() else { return };
    fs::write(hsm.folder().join("next-plan"), plan).unwrap();
    let mut front = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "front::a_worker_never_outlives_its_front", "--nocapture"])
        .env(FRONT, hsm.folder())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // 1. The front stands where it is wanted, with one worker.
    eventually("the front is ready", async || {
        let trace = fs::read_to_string(hsm.trace_file()).unwrap_or_default();
        let there = plan.is_empty() || trace.contains(plan);
        hsm.folder().join("ready").exists() && there && worker_processes(&hsm).len() == 1
    })
    .await;
    // 2. It dies, and the worker soon after.
    kill(i32::try_from(front.id()).unwrap());
    front.wait().unwrap();
    let took = eventually("the worker has ended", async || worker_processes(&hsm).is_empty()).await;
    println!("a worker that was {moment} ended {took:?} after its front");
}

async fn be_the_front(hsm: &SoftHsm) {
    let bench = Bench::faulty(hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    bench.works(&key).await;
    let plan = fs::read_to_string(hsm.folder().join("next-plan")).unwrap();
    hsm.plan(&plan);
    let opening = plan.contains("C_Login").then(|| {
        let Settings::Pkcs11(_) = &bench.settings else { unreachable!("a token") };
        bench.settings.clone()
    });
    let _second = match opening {
        Some(settings) => {
            bench.worker.shutdown().await;
            Some(Bench::open(settings, &bench.identity))
        }
        None => None,
    };
    fs::write(hsm.folder().join("ready"), "").unwrap();
    loop {
        let _ = bench.sign(&key).await;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
