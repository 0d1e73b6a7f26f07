//! Sharing on a bad day: calls that fail and workers that die while key-encryption keys go from one token to another.

use signet::device::{Class, Kek, KekRole, PinSource, Settings, SharedKek};
use signet::types::{Algorithm, KeyId, PublicKey, Residency, Version};

use crate::bench::{Bench, Key, eventually, softhsm};
use crate::softhsm::SoftHsm;

/// Where the transport of another token is, while keys are passed on.
fn transport_name() -> (KeyId, Version) {
    (KeyId::from_bytes(*b"signet transport"), Version::FIRST)
}

fn officer_of(hsm: &SoftHsm) -> PinSource {
    PinSource::File(hsm.folder().join("so-pin"))
}

/// What one token gives to another.
async fn passed_on(
    bench: &Bench,
    hsm: &SoftHsm,
    transport: &PublicKey,
) -> Result<Vec<SharedKek>, signet::device::Fault> {
    bench.worker.pass_on_shared(transport.clone(), officer_of(hsm)).await
}

/// A token behind the fault module that shares keys with nobody yet, a key of its own in it, and another token's transport.
async fn giver(hsm: &SoftHsm) -> (Bench, Key, Vec<Kek>) {
    let mut bench = Bench::faulty(hsm).await;
    let transport = bench.worker.open_transport().await.unwrap();
    let made = bench.worker.make_shared(KekRole::ALL.to_vec(), vec![transport]).await.unwrap();
    let keks = bench.worker.take_shared(made.into_iter().next().unwrap()).await.unwrap();
    bench.identity.keks.extend(keks.clone());
    bench.worker.shutdown().await;
    bench.worker = Bench::open(bench.settings.clone(), &bench.identity).into();
    bench.worker.settled().await.unwrap();
    let key = bench.make(Algorithm::EcdsaP256, Residency::Shared).await;
    (bench, key, keks)
}

/// The device does what it did, and holds no trusted key of the moment after keys were passed on once more.
async fn is_well(bench: &Bench, hsm: &SoftHsm, key: &Key, transport: &PublicKey, what: &str) {
    hsm.plan("");
    bench.worker.retry();
    bench.works_again(key).await;
    let given = eventually_passed_on(bench, hsm, transport).await;
    assert_eq!(given.len(), KekRole::ALL.len(), "{what}");
    let inventory = bench.worker.inventory().await.unwrap();
    assert!(inventory.halves.is_empty() && inventory.foreign == 0, "{what}: {inventory:?}");
    bench.works(key).await;
}

async fn eventually_passed_on(bench: &Bench, hsm: &SoftHsm, transport: &PublicKey) -> Vec<SharedKek> {
    let mut given = Vec::new();
    eventually("keys are passed on", async || {
        let answer = passed_on(bench, hsm, transport).await;
        answer.map(|keks| given = keks).is_ok()
    })
    .await;
    given
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_while_keys_are_passed_on_is_mended_by_the_next_try() {
    let (Some(hsm), Some(other)) = (softhsm(), softhsm()) else { return };
    let (bench, key, _) = giver(&hsm).await;
    let receiver = Bench::enrol(Settings::Pkcs11(other.settings())).await;
    let transport = receiver.worker.open_transport().await.unwrap();
    // 1. A wrong PIN of the officer costs nothing but the try.
    let user = PinSource::File(hsm.pin_file());
    let fault = bench.worker.pass_on_shared(transport.clone(), user).await.unwrap_err();
    assert_eq!(fault.class, Class::PinRefused, "{fault:?}");
    assert!(fault.text.contains("security officer"), "{fault:?}");
    bench.works(&key).await;
    // 2. Deaths: of each moment in which the officer is logged in, or the trusted key is there.
    for plan in [
        "C_Logout once abort",
        "C_Login once abort",
        "C_Login once abort_after",
        "C_CreateObject once abort",
        "C_CreateObject once abort_after",
        "C_WrapKey once abort",
        "C_WrapKey after=3 once abort",
        "C_DestroyObject once abort",
    ] {
        bench.works(&key).await;
        hsm.plan(plan);
        let fault = passed_on(&bench, &hsm, &transport).await.unwrap_err();
        assert_eq!(fault.class, Class::Ambiguous, "{plan}: {fault:?}");
        hsm.plan("");
        bench.worker.retry();
        bench.works_again(&key).await;
        let left = bench.worker.inventory().await.unwrap().halves;
        let made =
            plan.starts_with("C_WrapKey") || plan.starts_with("C_Destroy") || plan == "C_CreateObject once abort_after";
        assert_eq!(left, if made { vec![transport_name()] } else { vec![] }, "{plan}");
        is_well(&bench, &hsm, &key, &transport, plan).await;
    }
    // 3. Codes, not done and done.
    for function in ["C_Logout", "C_Login", "C_CreateObject", "C_WrapKey", "C_DestroyObject"] {
        for fault in ["pre=0x05", "post=0x05", "pre=0x30", "post=0x30", "pre=0xB3"] {
            let plan = format!("{function} once {fault}");
            bench.works(&key).await;
            hsm.plan(&plan);
            let given = passed_on(&bench, &hsm, &transport).await;
            println!("{plan}: {:?}", given.as_ref().map(Vec::len).map_err(|fault| fault.class));
            is_well(&bench, &hsm, &key, &transport, &plan).await;
        }
    }
    // 4. What came in the end is what the other token takes, and opens.
    let given = passed_on(&bench, &hsm, &transport).await.unwrap();
    receiver.worker.take_shared(given).await.unwrap();
    assert_eq!(
        receiver.worker.use_key(&key.key, key.input(crate::bench::MESSAGE)).await.map(|made| key.verifies(&made)),
        Ok(true)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_takes_all_of_the_keys_or_none() {
    let (Some(hsm), Some(other)) = (softhsm(), softhsm()) else { return };
    let (giver, ..) = giver(&other).await;
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    let before = bench.worker.inventory().await.unwrap();
    for plan in [
        "C_UnwrapKey once pre=0x05",
        "C_UnwrapKey after=3 once pre=0x05",
        // It says that a key may leave which nobody made trusted: nothing of it is kept.
        "C_WrapKey once post=0x00",
        "C_WrapKey after=2 once post=0x00",
        // Of a failure nobody knows whether it would let the key out.
        "C_CreateObject after=1 once post=0x05",
        "C_GetAttributeValue after=1 once flip",
    ] {
        let transport = bench.worker.open_transport().await.unwrap();
        let keks = passed_on(&giver, &other, &transport).await.unwrap();
        hsm.plan(plan);
        let fault = bench.worker.take_shared(keks.clone()).await.unwrap_err();
        println!("{plan}: {fault:?}");
        hsm.plan("");
        bench.worker.retry();
        bench.works_again(&key).await;
        assert_eq!(bench.worker.inventory().await.unwrap(), before, "{plan}");
        // The transport was used.
        assert!(bench.worker.take_shared(keks).await.is_err(), "{plan}");
    }
    let transport = bench.worker.open_transport().await.unwrap();
    let keks = passed_on(&giver, &other, &transport).await.unwrap();
    assert_eq!(bench.worker.take_shared(keks).await.unwrap().len(), KekRole::ALL.len());
    // What was taken in and never pinned is taken in again by the next try; what is pinned never.
    let with_keys = bench.worker.inventory().await.unwrap();
    assert_eq!(with_keys.keys.len(), before.keys.len() + KekRole::ALL.len());
    bench.worker.shutdown().await;
    let mut identity = bench.identity.clone();
    for refused in [false, true] {
        let worker = Bench::open(bench.settings.clone(), &identity);
        worker.settled().await.unwrap();
        let transport = worker.open_transport().await.unwrap();
        let keks = passed_on(&giver, &other, &transport).await.unwrap();
        let taken = worker.take_shared(keks).await;
        assert_eq!(taken.as_ref().err().map(|fault| fault.class), refused.then_some(Class::Refused));
        identity.keks.extend(taken.unwrap_or_default());
        assert_eq!(worker.inventory().await.unwrap(), with_keys);
        worker.shutdown().await;
    }
}
