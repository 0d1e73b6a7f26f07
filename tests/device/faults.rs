//! Calls that fail, each fault twice: not done, and done but reported failed. And libraries that lie, hang, die or are slow.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use signet::device::{Class, MAX_JOBS};
use signet::types::{Algorithm, KeyId, Residency};
use tokio::time::Instant;

use crate::bench::{Bench, Key, MESSAGE, PATIENCE, eventually, kill, softhsm, worker_processes};
use crate::softhsm::SoftHsm;

/// Codes that tell nothing, or that something went away: general error, function failed, device error, device removed,
/// session handle invalid, token not present, user not logged in.
const CODES: [&str; 7] = ["0x05", "0x06", "0x30", "0x32", "0xB3", "0xE0", "0x101"];

/// Whether the standard gives this code out only before a call acts, so that a library that acts all the same has lied.
fn is_early(code: &str) -> bool {
    code == "0xB3"
}

/// Each code before and after the real call.
fn faults() -> impl Iterator<Item = (&'static str, &'static str)> {
    CODES.iter().flat_map(|&code| [("pre", code), ("post", code)])
}

/// An error that says that the whole device is in doubt costs a worker; the next one is there at once. Any other costs no
/// more than a session.
async fn recovers(bench: &Bench, hsm: &SoftHsm, key: &Key, class: Option<Class>) {
    hsm.plan("");
    // Dozens of faults within seconds, of which each stands for itself.
    bench.worker.retry();
    if class == Some(Class::DeviceGone) {
        let took = bench.works_again(key).await;
        println!("works again after {took:?}");
        bench.warm().await;
    } else {
        bench.works(key).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_generation_leaves_no_key_that_nobody_knows_of() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    bench.warm().await;
    for (when, code) in faults() {
        hsm.plan(&format!("C_GenerateKeyPair once {when}={code}"));
        let (id, fault) = bench.try_make(Algorithm::EcdsaP256, Residency::Resident).await.err().unwrap();
        println!("C_GenerateKeyPair {when}={code}: {:?}", fault.class);
        assert!(matches!(fault.class, Class::Ambiguous | Class::Retry | Class::DeviceGone), "{when} {code}: {fault:?}");
        recovers(&bench, &hsm, &key, Some(fault.class)).await;
        let made = bench.has(id).await;
        assert_eq!(made, when == "post", "{when} {code}");
        assert!(!made || fault.class != Class::Retry || is_early(code), "{when} {code}: made, and called safe");
        clear(&bench, &key, id).await;
    }
    nothing_is_left(&bench).await;
}

/// What reconciliation does with a key that nobody asked for.
async fn clear(bench: &Bench, like: &Key, id: KeyId) {
    let mut orphan = (*like.key).clone();
    orphan.id = id;
    bench.worker.destroy(orphan).await.unwrap();
    assert!(!bench.has(id).await);
}

async fn nothing_is_left(bench: &Bench) {
    let inventory = bench.worker.inventory().await.unwrap();
    assert!(inventory.halves.is_empty() && inventory.foreign == 0, "{inventory:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_wrap_leaves_nothing() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    bench.warm().await;
    let before = bench.worker.inventory().await.unwrap();
    for (when, code) in faults() {
        hsm.plan(&format!("C_WrapKey once {when}={code}"));
        let (_, fault) = bench.try_make(Algorithm::EcdsaP256, Residency::Wrapped).await.err().unwrap();
        assert!(matches!(fault.class, Class::Retry | Class::DeviceGone), "{when} {code}: {fault:?}");
        recovers(&bench, &hsm, &key, Some(fault.class)).await;
        let made = bench.make(Algorithm::EcdsaP256, Residency::Wrapped).await;
        bench.works(&made).await;
    }
    assert_eq!(bench.worker.inventory().await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_use_gives_the_right_answer_or_a_safe_error() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let resident = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    let wrapped = bench.make(Algorithm::EcdsaP384, Residency::Wrapped).await;
    for (key, function) in
        [(&resident, "C_SignInit"), (&resident, "C_Sign"), (&wrapped, "C_Sign"), (&wrapped, "C_UnwrapKey")]
    {
        for (when, code) in faults() {
            if function == "C_UnwrapKey" {
                bench.worker.forget(key.key.id, key.key.version).await.unwrap();
            }
            hsm.plan(&format!("{function} once {when}={code}"));
            let class = match bench.sign(key).await {
                Ok(signature) => {
                    assert!(key.verifies(&signature), "{function} {when} {code}: a wrong signature");
                    None
                }
                Err(fault) => {
                    // Not even a session that was lost is felt by the caller.
                    assert_eq!(fault.class, Class::DeviceGone, "{function} {when} {code}: {fault:?}");
                    Some(fault.class)
                }
            };
            recovers(&bench, &hsm, key, class).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_destruction_is_done_again() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    bench.warm().await;
    for (when, code) in faults() {
        let doomed = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
        hsm.plan(&format!("C_DestroyObject once {when}={code}"));
        let fault = bench.worker.destroy((*doomed.key).clone()).await.unwrap_err();
        assert!(matches!(fault.class, Class::Ambiguous | Class::Retry | Class::DeviceGone), "{when} {code}: {fault:?}");
        recovers(&bench, &hsm, &key, Some(fault.class)).await;
        let stays = bench.has(doomed.key.id).await;
        assert_eq!(stays, when == "pre", "{when} {code}");
        assert!(stays || fault.class != Class::Retry || is_early(code), "{when} {code}: destroyed, and called safe");
        bench.worker.destroy((*doomed.key).clone()).await.unwrap();
        assert!(!bench.has(doomed.key.id).await);
    }
    nothing_is_left(&bench).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_does_not_suffer_from_one_failure() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    let inputs = vec![key.input(MESSAGE); 20];
    for when in ["pre", "post"] {
        hsm.plan(&format!("C_Sign after=5 count=1 {when}=0x30"));
        for signature in bench.worker.use_key_batch(&key.key, inputs.clone()).await {
            assert!(key.verifies(&signature.unwrap()));
        }
    }
    // Where all fail, all say so.
    hsm.plan("C_Sign pre=0x30");
    for signature in bench.worker.use_key_batch(&key.key, inputs.clone()).await {
        assert!(matches!(signature.unwrap_err().class, Class::Retry | Class::DeviceGone | Class::WorkerLost));
    }
    hsm.plan("");
    bench.works_again(&key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_lies_is_taken_down() {
    let Some(hsm) = softhsm() else { return };
    for lie in ["flip", "empty"] {
        let bench = Bench::faulty(&hsm).await;
        let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
        // 1. The signature is handed on as it is: to check it is the front's duty.
        hsm.plan(&format!("C_Sign {lie}"));
        match bench.sign(&key).await {
            Ok(signature) => assert!(!key.verifies(&signature)),
            Err(fault) => assert_eq!(fault.class, Class::DeviceGone, "{lie}: {fault:?}"),
        }
        // 2. The sentinel is checked here, and with it the device falls.
        eventually("the device is down", async || bench.worker.state().is_err()).await;
        assert_eq!(bench.class(&key).await, Some(Class::DeviceGone), "{lie}");
        // 3. An honest device is taken up again.
        hsm.plan("");
        println!("{lie}: works again after {:?}", bench.works_again(&key).await);
        bench.worker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_prove_its_sentinel_is_taken_down() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::HmacSha256, Residency::Wrapped).await;
    // The health check asks for the token's state, and nothing else does.
    hsm.plan("C_GetTokenInfo pre=0x30");
    bench.sign(&key).await.unwrap();
    eventually("the worker is replaced", async || bench.worker.restarts() > 0).await;
    hsm.plan("");
    eventually("the key works again", async || bench.sign(&key).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_library_costs_one_answer_and_one_worker() {
    let (Some(hsm), Some(other)) = (softhsm(), softhsm()) else { return };
    let (bench, beside) = tokio::join!(Bench::faulty(&hsm), Bench::softhsm(&other));
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    let neighbour = beside.make(Algorithm::EcdsaP256, Residency::Resident).await;
    hsm.plan("C_Sign once hang");
    let began = Instant::now();
    let (mut longest, mut failed) = (Duration::ZERO, 0);
    let hung = async {
        // 1. The sentinel's own signature may be the one that hangs; then no caller feels it.
        while bench.worker.restarts() == 0 {
            assert!(began.elapsed() < PATIENCE, "a hung worker is not replaced");
            let asked = Instant::now();
            match bench.sign(&key).await {
                Ok(signature) => assert!(key.verifies(&signature)),
                Err(fault) => {
                    assert_eq!(fault.class, Class::WorkerLost, "{fault:?}");
                    failed += 1;
                }
            }
            longest = longest.max(asked.elapsed());
        }
    };
    // 2. Another device is none the wiser.
    let mut signed_beside = 0;
    let going_on = async {
        loop {
            beside.works(&neighbour).await;
            signed_beside += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = hung => {}
        () = going_on => {}
    }
    assert!(signed_beside > 10, "{signed_beside} signatures beside it");
    assert!(longest < Duration::from_secs(4), "the answer came after {longest:?}");
    assert!(failed <= 1, "{failed} answers were lost");
    // 3. The next one works at once.
    let back = bench.works_again(&key).await;
    println!("answered after {longest:?}, worked {back:?} later; {signed_beside} signatures beside it");
    assert!(back < Duration::from_secs(4), "back after {back:?}");
    assert_eq!(worker_processes(&hsm).len(), 1);
    assert_eq!(beside.worker.restarts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_is_noticed_though_its_caller_has_left() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    hsm.plan("C_Sign once hang");
    let hangs = async || fs::read_to_string(hsm.trace_file()).unwrap().contains("C_Sign hang");
    tokio::select! {
        () = async { while bench.sign(&key).await.is_ok() {} } => {}
        _ = eventually("the call hangs", hangs) => {}
    }
    eventually("the worker is replaced", async || bench.worker.restarts() == 1).await;
    bench.works_again(&key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_dies_is_felt_only_by_what_cannot_be_repeated() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    let wrapped = bench.make(Algorithm::EcdsaP256, Residency::Wrapped).await;
    // 1. What may be repeated is repeated.
    for (deaths, (function, how)) in (1..).zip([
        ("C_Sign", "abort"),
        ("C_Sign", "abort_after"),
        ("C_UnwrapKey", "abort"),
        ("C_GenerateRandom", "abort"),
        ("C_FindObjects", "abort"),
    ]) {
        hsm.plan(&format!("{function} once {how}"));
        bench.works(&key).await;
        bench.works(&wrapped).await;
        bench.worker.random(8).await.unwrap();
        bench.worker.inventory().await.unwrap();
        assert_eq!(bench.worker.restarts(), deaths, "{function} {how}");
        bench.worker.forget(wrapped.key.id, wrapped.key.version).await.unwrap();
        // A worker that dies of each start is started ever more slowly; this one does not.
        let proved = Instant::now();
        eventually("the worker is steady", async || {
            bench.worker.proved().is_some_and(|(at, _)| at > proved + Duration::from_millis(900))
        })
        .await;
    }
    // 2. What may not be repeated is in doubt, and can be looked into.
    for (how, made) in [("abort", false), ("abort_after", true)] {
        bench.warm().await;
        hsm.plan(&format!("C_GenerateKeyPair once {how}"));
        let (id, fault) = bench.try_make(Algorithm::EcdsaP256, Residency::Resident).await.err().unwrap();
        assert_eq!(fault.class, Class::Ambiguous, "{fault:?}");
        assert_eq!(bench.has(id).await, made, "{how}");
        clear(&bench, &key, id).await;
    }
    bench.works(&key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_of_each_call_is_not_started_for_ever_in_a_row() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let (good, bad) = tokio::join!(
        bench.make(Algorithm::EcdsaP256, Residency::Resident),
        bench.make(Algorithm::EcdsaP256, Residency::Wrapped)
    );
    bench.worker.forget(bad.key.id, bad.key.version).await.unwrap();
    hsm.plan("C_UnwrapKey abort");
    let (began, mut asked) = (Instant::now(), 0);
    while began.elapsed() < Duration::from_secs(5) {
        assert!(bench.sign(&bad).await.is_err());
        asked += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let restarts = bench.worker.restarts();
    println!("{asked} deadly calls in {:?} cost {restarts} workers", began.elapsed());
    assert!(restarts < 30, "{restarts} workers");
    bench.works_again(&good).await;
    hsm.plan("");
    bench.works_again(&bad).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_library_is_asked_once() {
    const USES: usize = 6;
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    bench.works(&key).await;
    hsm.plan("C_Sign delay_ms=300");
    hsm.calls();
    for _ in 0..USES {
        bench.works(&key).await;
    }
    let calls = hsm.calls();
    let count = |function: &str| calls.get(function).copied().unwrap_or_default();
    // Each health check is a signature and a look at the token; one may be under way.
    let health = count("C_GetTokenInfo");
    for function in ["C_SignInit", "C_Sign"] {
        let extra = count(function).checked_sub(USES).unwrap();
        assert!((health.saturating_sub(1)..=health + 1).contains(&extra), "{function}: {calls:?}");
    }
    assert_eq!(bench.worker.restarts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_queue_is_busy_and_costs_no_worker() {
    const SURPLUS: usize = 100;
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    hsm.plan("C_Sign delay_ms=100");
    let began = Instant::now();
    let calls: Vec<_> = (0..MAX_JOBS + SURPLUS)
        .map(|_| {
            let (worker, key) = (Arc::clone(&bench.worker), key.clone());
            tokio::spawn(async move {
                let began = Instant::now();
                (worker.use_key(&key.key, key.input(MESSAGE)).await, began.elapsed())
            })
        })
        .collect();
    let (mut signed, mut busy, mut expired) = (0, 0, 0);
    for call in calls {
        let (result, took) = call.await.unwrap();
        assert!(took < Duration::from_secs(5), "an answer after {took:?}");
        match result {
            Ok(signature) => {
                assert!(key.verifies(&signature));
                signed += 1;
            }
            Err(fault) if fault.class == Class::Busy => busy += 1,
            Err(fault) if fault.class == Class::Expired => expired += 1,
            Err(fault) => panic!("{fault:?}"),
        }
    }
    println!("{signed} signed, {busy} busy, {expired} expired in {:?}", began.elapsed());
    assert_eq!(busy, SURPLUS);
    assert!(signed > 0);
    // The device is slow, and not hung.
    hsm.plan("");
    bench.works_again(&key).await;
    assert_eq!(bench.worker.restarts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_leave_take_nothing_with_them() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    hsm.plan("C_Sign delay_ms=1");
    for _ in 0..2 * MAX_JOBS {
        let call = bench.sign(&key);
        let _ = tokio::time::timeout(Duration::from_micros(200), call).await;
    }
    hsm.plan("");
    bench.works_again(&key).await;
    assert_eq!(bench.worker.restarts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_generation_holds_up_nothing_that_is_loaded() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let loaded = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    let unloaded = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    bench.warm().await;
    bench.worker.forget(unloaded.key.id, unloaded.key.version).await.unwrap();
    hsm.plan("C_GenerateKeyPair once delay_ms=4000");
    hsm.calls();
    let (began, mut signed) = (Instant::now(), 0);
    let making = bench.make(Algorithm::EcdsaP256, Residency::Resident);
    let using = async {
        // Whoever makes a key looks first whether it is there, with the token to itself.
        eventually("it is being made", async || hsm.calls().contains_key("C_FindObjectsFinal")).await;
        // 1. The token must not be searched meanwhile: a key that is not loaded waits, and gives up, on each thread.
        let classes = futures_util::future::join_all((0..4).map(|_| bench.class(&unloaded))).await;
        // 2. What is loaded goes on, and so does the health check.
        while began.elapsed() < Duration::from_millis(3500) {
            let asked = Instant::now();
            bench.works(&loaded).await;
            assert!(asked.elapsed() < Duration::from_secs(1), "signed after {:?}", asked.elapsed());
            signed += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (proved, _) = bench.worker.proved().unwrap();
        assert!(proved.elapsed() < Duration::from_millis(2500), "last proved {:?} ago", proved.elapsed());
        classes
    };
    let (made, classes) = tokio::join!(making, using);
    println!("{signed} signatures beside a long generation; the unloaded key: {classes:?}");
    assert!(classes.iter().all(|class| *class == Some(Class::Busy)), "{classes:?}");
    // 3. Nobody took the wait for a hang.
    assert_eq!(bench.worker.restarts(), 0);
    bench.works(&made).await;
    bench.works_again(&unloaded).await;
}

/// A worker that was never asked what its device can do.
async fn replaced(bench: &Bench, hsm: &SoftHsm) {
    // One after the other they would open the breaker.
    bench.worker.retry();
    let before = bench.worker.restarts();
    worker_processes(hsm).into_iter().for_each(kill);
    eventually("the worker is replaced", async || {
        bench.worker.restarts() > before && bench.worker.settled().await.is_ok()
    })
    .await;
}

/// The calls of a probe, each with the number of it that fails.
const PROBES: [(&str, u32); 9] = [
    ("C_GenerateKeyPair", 0),
    ("C_GenerateKeyPair", 4),
    ("C_GenerateKey", 1),
    ("C_SignInit", 3),
    ("C_Sign", 0),
    ("C_Sign", 6),
    ("C_WrapKey", 2),
    ("C_UnwrapKey", 0),
    ("C_GetAttributeValue", 5),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_moment_of_a_probe_costs_no_ability() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let whole = bench.worker.describe().await.unwrap();
    for ((when, code), (function, after)) in faults().zip(PROBES.iter().cycle()) {
        replaced(&bench, &hsm).await;
        hsm.plan(&format!("{function} after={after} once {when}={code}"));
        // The sentinel may be the one that is hit: then the probe is not.
        if let Err(fault) = bench.worker.describe().await {
            assert_eq!(fault.class, Class::DeviceGone, "{function} {when} {code}: {fault:?}");
        }
        eventually("it is described", async || match bench.worker.describe().await {
            Ok(description) => {
                assert!(description.is_as(&whole), "{function} {when} {code}: {description:?}");
                true
            }
            Err(_) => false,
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_answer_costs_an_ability_and_only_for_the_life_of_a_worker() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let whole = bench.worker.describe().await.unwrap();
    let refused = async || {
        let description = bench.worker.describe().await.unwrap();
        let is_refused =
            |residency| description.abilities.iter().all(|one| one.residency != residency || one.refusal.is_some());
        Residency::ALONE.iter().copied().filter(|residency| is_refused(*residency)).collect::<Vec<_>>()
    };
    // 1. A device that keeps failing has not said that it cannot.
    replaced(&bench, &hsm).await;
    hsm.plan("C_WrapKey pre=0x30");
    assert_eq!(bench.worker.describe().await.unwrap_err().class, Class::Retry);
    hsm.plan("");
    assert!(bench.worker.describe().await.unwrap().is_as(&whole));
    // 2. A token that says so cannot, and one that says nothing else than that it failed.
    for code in ["0x69", "0x05"] {
        replaced(&bench, &hsm).await;
        hsm.plan(&format!("C_WrapKey pre={code}"));
        assert_eq!(refused().await, [Residency::Wrapped], "{code}");
        // It was asked, and is not asked again.
        hsm.plan("");
        assert_eq!(refused().await, [Residency::Wrapped], "{code}");
    }
    // 3. The next worker asks anew, and the front believes it.
    replaced(&bench, &hsm).await;
    assert!(bench.worker.describe().await.unwrap().is_as(&whole));
}
