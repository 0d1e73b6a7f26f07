//! Devices that fail again and again: nobody waits for them, and they are taken up again once they work.

use std::sync::Arc;
use std::time::Duration;

use signet::device::{Class, What};
use signet::types::{Algorithm, Residency};
use tokio::time::Instant;

use crate::bench::{Bench, eventually, softhsm};

/// What a refusal may take on a busy machine; it takes microseconds.
const AT_ONCE: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_hangs_again_and_again_keeps_nobody_waiting() {
    let Some(hsm) = softhsm() else { return };
    let bench = Arc::new(Bench::faulty(&hsm).await);
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    let mut events = bench.worker.events().unwrap();
    // 1. Each new worker finds its sentinel, and hangs in the next call.
    hsm.plan("C_Sign after=1 hang\n");
    let began = Instant::now();
    let (mut asked, mut longest) = (0, Duration::ZERO);
    eventually("the breaker is open and stays so", async || {
        let one = Instant::now();
        let fault = bench.sign(&key).await.err();
        (asked, longest) = (asked + 1, longest.max(one.elapsed()));
        fault.is_some_and(|fault| fault.wait.is_some_and(|wait| wait > Duration::from_millis(400)))
    })
    .await;
    println!("open after {:?}; {asked} calls, the longest took {longest:?}", began.elapsed());
    // A use has two seconds, and some for a machine that is busy with other tests.
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    // 2. Refused at once, with the time of the next try, whoever asks and while it is tried.
    let (open, mut refused, mut tried) = (Instant::now(), 0, 0);
    while open.elapsed() < Duration::from_secs(6) {
        let one = Instant::now();
        let fault = bench.sign(&key).await.unwrap_err();
        assert!(one.elapsed() < AT_ONCE, "{:?}: {fault:?}", one.elapsed());
        assert!(matches!(fault.class, Class::WorkerLost | Class::DeviceGone) && fault.wait.is_some(), "{fault:?}");
        (refused, tried) = (refused + 1, tried + usize::from(bench.worker.breaker() == "half-open"));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{refused} calls refused at once, {tried} of them while the device was tried");
    assert!(tried > 0);
    // 3. By itself.
    hsm.plan("");
    let back = bench.works_again(&key).await;
    println!("works again after {back:?}");
    assert_eq!(bench.worker.breaker(), "closed");
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        told.push(event.what);
    }
    assert_eq!(told.iter().filter(|what| **what == What::Replaced).count(), 3, "{told:?}");
    assert_eq!(told.last(), Some(&What::Closed), "{told:?}");
    let count = |wanted| told.iter().filter(|what| **what == wanted).count();
    assert_eq!(count(What::Opened), count(What::Closed), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_comes_and_goes_is_taken_up_ever_more_seldom() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::softhsm(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    let mut returns = Vec::new();
    for _ in 0..8 {
        hsm.take_out();
        eventually("it is missed", async || bench.worker.state().is_err()).await;
        hsm.put_back();
        returns.push(eventually("it is back", async || bench.worker.state().is_ok()).await);
        bench.works(&key).await;
    }
    println!("back after {returns:?}");
    // The sixth time it is called a failing one: half a second at least, then one, then two.
    for (n, least) in [(5, 500), (6, 1000), (7, 2000)] {
        assert!(returns[n] > Duration::from_millis(least - 100), "{returns:?}");
    }
    // A person knows better.
    hsm.take_out();
    eventually("it is missed", async || bench.worker.state().is_err()).await;
    hsm.put_back();
    let asked = Instant::now();
    bench.worker.retry();
    bench.works_again(&key).await;
    println!("back {:?} after a person asked", asked.elapsed());
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
}
