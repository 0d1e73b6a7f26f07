//! Software TPMs that are killed, exchanged and frozen in mid-run.

use std::time::Duration;

use signet::device::{Class, Settings};
use signet::types::{Algorithm, Residency};
use tokio::time::Instant;

use crate::bench::{Bench, Key, PATIENCE, swtpm};
use crate::swtpm::Swtpm;

async fn two_keys(tpm: &Swtpm, sessions: bool) -> (Bench, [Key; 2]) {
    let bench = Bench::enrol(Settings::Tpm(tpm.settings(sessions))).await;
    let first = bench.make(Algorithm::EcdsaP256, Residency::Wrapped).await;
    let second = bench.make(Algorithm::EcdsaP256, Residency::Wrapped).await;
    (bench, [first, second])
}

/// Asks for `time`; what is answered is right, or an error about the device.
async fn no_wrong_answer(bench: &Bench, keys: &[Key], time: Duration) -> usize {
    let (began, mut failed) = (Instant::now(), 0);
    while began.elapsed() < time {
        for key in keys {
            match bench.sign(key).await {
                Ok(signature) => assert!(key.verifies(&signature), "a signature by another key"),
                Err(fault) => {
                    let away = [Class::DeviceGone, Class::WorkerLost, Class::Expired, Class::Retry];
                    assert!(away.contains(&fault.class), "{fault:?}");
                    failed += 1;
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_tpm_is_missed_and_taken_up_again() {
    tokio::join!(goes_and_comes_back(true), goes_and_comes_back(false));
}

async fn goes_and_comes_back(sessions: bool) {
    let Some(mut tpm) = swtpm() else { return };
    let (bench, keys) = two_keys(&tpm, sessions).await;
    tpm.kill();
    assert!(no_wrong_answer(&bench, &keys, Duration::from_millis(700)).await > 0);
    assert_eq!(bench.class(&keys[0]).await, Some(Class::DeviceGone));
    tpm.restart();
    println!("a killed TPM, sessions {sessions}: back after {:?}", bench.works_again(&keys[0]).await);
    bench.works(&keys[1]).await;
    // Killed and restarted between two calls: handles now stand for nothing, or for another key.
    for _ in 0..3 {
        tpm.restart();
        no_wrong_answer(&bench, &keys, Duration::from_millis(50)).await;
        bench.works_again(&keys[1]).await;
        bench.works_again(&keys[0]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tpm_at_the_same_address_is_not_the_enrolled_one() {
    let Some(mut tpm) = swtpm() else { return };
    let (bench, keys) = two_keys(&tpm, true).await;
    let other = tempfile::tempdir().unwrap();
    tpm.exchange(other.path());
    assert!(no_wrong_answer(&bench, &keys, Duration::from_millis(700)).await > 0);
    let fault = bench.sign(&keys[0]).await.unwrap_err();
    assert_eq!(fault.class, Class::DeviceGone);
    assert!(fault.text.contains("another TPM"), "{fault}");
    // The enrolled one comes back, and needs no enrolment.
    tpm.restart();
    bench.works_again(&keys[0]).await;
    bench.works(&keys[1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_tpm_costs_time_and_thaws() {
    let Some(tpm) = swtpm() else { return };
    let (bench, keys) = two_keys(&tpm, false).await;
    tpm.freeze();
    let asked = Instant::now();
    let fault = bench.sign(&keys[0]).await.unwrap_err();
    assert!(asked.elapsed() < Duration::from_secs(7), "answered after {:?}", asked.elapsed());
    assert!(matches!(fault.class, Class::WorkerLost | Class::Expired), "{fault:?}");
    let fault = bench.sign(&keys[1]).await.unwrap_err();
    assert!(matches!(fault.class, Class::WorkerLost | Class::Expired | Class::DeviceGone), "{fault:?}");
    tpm.thaw();
    let back = bench.works_again(&keys[0]).await;
    println!("a frozen TPM: back after {back:?}");
    assert!(back < PATIENCE);
    bench.works(&keys[1]).await;
}
