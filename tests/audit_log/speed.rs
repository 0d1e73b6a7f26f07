//! What a record costs. It prints and asserts nothing; run it optimised:
//! `cargo test --profile bench --test audit_log speed -- --ignored --nocapture`

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use signet::audit::{Log, verify};

use super::{Bench, record};

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap()
}

fn micros(time: Duration, records: u64) -> f64 {
    time.as_secs_f64() * 1e6 / records as f64
}

#[ignore = "prints times"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_costs() {
    println!("a record has {} bytes", serde_json::to_vec(&record(123_456)).unwrap().len());
    for appenders in [1u64, 32, 256] {
        let bench = Bench::new();
        let log = Arc::new(bench.create());
        let each = 64_000 / appenders.max(8);
        let (wall, busy) = (Instant::now(), cpu());
        let tasks: Vec<_> = (0..appenders)
            .map(|_| {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    for n in 0..each {
                        log.append(&record(n)).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let (wall, busy, records) = (wall.elapsed(), cpu() - busy, each * appenders);
        let head = Instant::now();
        log.sign_head(&bench.signer).await.unwrap();
        println!(
            "{appenders:3} appenders: {:6.1} us wall, {:5.1} us cpu per record; re-read before a head {:.2} us",
            micros(wall, records),
            micros(busy, records),
            micros(head.elapsed(), records)
        );
    }
}

#[ignore = "prints times"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_records_are_opened_and_verified_in() {
    const RECORDS: u64 = 1_000_000;
    let bench = Bench::new();
    let log = Arc::new(bench.create());
    let mut called = Duration::ZERO;
    for round in 0..RECORDS / 4000 {
        let records: Vec<_> = (0..4000).map(|n| record(round * 4000 + n)).collect();
        let start = Instant::now();
        let all: Vec<_> = records.iter().map(|record| log.append(record)).collect();
        called += start.elapsed();
        for answer in futures_util::future::join_all(all).await {
            answer.unwrap();
        }
        log.sign_head(&bench.signer).await.unwrap();
    }
    println!("append, the caller's side: {:.2} us", micros(called, RECORDS));
    let start = Instant::now();
    for _ in 0..1000 {
        log.inspect().await.unwrap();
    }
    println!("inspect: {:.1} us", micros(start.elapsed(), 1000));
    drop(log);
    let start = Instant::now();
    let opened = Log::open(bench.settings.clone(), Some(&bench.signer.public)).unwrap();
    println!("open: {:.0?}", start.elapsed());
    drop(opened);
    let start = Instant::now();
    let report = verify(&bench.settings.folder, Some(&bench.signer.public)).unwrap();
    println!("verify: {:.2?} for {} records and {} heads", start.elapsed(), report.records, report.heads);
}
