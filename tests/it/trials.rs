//! What each device can do, by trial and on record; and devices that can do less than they should.

use signet::error::Kind;
use signet::types::{Algorithm, Residency};
use signet::wire::{CreateKey, DeviceAbility, DeviceStatus};

use crate::attest::run;
use crate::proof::proven;
use crate::server::{Devices, TestServer, name, new_key};

async fn device(t: &TestServer, name: &str) -> DeviceStatus {
    let devices = t.client.status().await.unwrap().devices;
    devices.into_iter().find(|device| device.name.as_str() == name).unwrap()
}

fn ability<'a>(device: &'a DeviceStatus, algorithm: &str, residency: Residency) -> &'a DeviceAbility {
    let algorithm: Algorithm = algorithm.parse().unwrap();
    let mut rows = device.abilities.iter();
    rows.find(|row| row.algorithm == algorithm && row.residency == residency).unwrap()
}

/// The records of trials in the log: what changed, of which device.
async fn recorded(t: &TestServer) -> Vec<(String, String)> {
    let records = t.client.audit_records(0, Some(1000)).await.unwrap().records;
    let of_trials = records.iter().filter(|one| one["principal"] == "system/trial");
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    of_trials.map(|one| (text(&one["facts"]["device"]), text(&one["reason"]))).collect()
}

#[tokio::test]
async fn what_each_device_can_do_is_on_record_and_a_restart_writes_nothing() {
    let mut t = TestServer::with(Devices::WithTpm).await;
    let objects = t.hsm.ids();
    // 1. What works has a time, where it was used; what does not has a reason, and a code where it is the device's.
    t.server().service().keyring().record_trials().await;
    assert_eq!(recorded(&t).await.len(), 2);
    let (hsm, tpm) = (device(&t, "hsm").await, device(&t, "tpm").await);
    for device in [&hsm, &tpm] {
        assert!(device.tried.is_some() && device.changes.is_empty(), "{device:?}");
        assert_eq!(device.abilities.len(), Algorithm::ALL.len() * Residency::ALONE.len());
    }
    let p256 = ability(&hsm, "ecdsa-p256-sha256", Residency::Resident);
    assert!(p256.micros.is_some_and(|micros| micros > 0) && p256.refusal.is_none(), "{p256:?}");
    let inferred = ability(&hsm, "rsa4096-pss-sha256", Residency::Resident);
    assert!(inferred.micros.is_none() && inferred.refusal.is_none(), "{inferred:?}");
    let edwards = ability(&tpm, "ed25519", Residency::Wrapped);
    assert!(edwards.refusal.is_some() && edwards.code.is_none(), "{edwards:?}");
    assert!(ability(&tpm, "ecdsa-p256-sha256", Residency::Wrapped).micros.is_some());
    // 2. A start finds the same, writes nothing, and leaves nothing in the token.
    t.restart().await;
    t.server().service().keyring().record_trials().await;
    assert_eq!(recorded(&t).await.len(), 2);
    assert_eq!(device(&t, "hsm").await.tried, hsm.tried);
    assert_eq!(t.hsm.ids(), objects);
    // 3. For people.
    let said = run(Some(&t), &["status", "--abilities"], 0).await;
    assert!(said.contains("refused by this program: a TPM keeps no keys of ours in itself"), "{said}");
    assert!(said.contains("not tried") && said.contains("hsm: so since"), "{said}");
}

#[tokio::test]
async fn a_token_that_can_do_less_is_refused_operation_by_operation() {
    let mut t = TestServer::with(Devices::FaultyWithTpm).await;
    t.key("before", "ecdsa-p256-sha256").await;
    let objects = t.hsm.ids();
    t.server().service().keyring().record_trials().await;
    let (first, before) = (device(&t, "hsm").await, recorded(&t).await.len());
    // What the token refuses, with which code, and which algorithms go with that.
    let poor = [
        // Mechanisms that are listed and fail.
        ("C_GenerateKeyPair pre=0x70", "CKR_MECHANISM_INVALID", "ecdsa-p256-sha256", Residency::Resident),
        // Attributes that it does not take.
        ("C_GenerateKeyPair pre=0x12", "CKR_ATTRIBUTE_TYPE_INVALID", "ecdsa-p384-sha384", Residency::Resident),
        // It makes keys and wraps none of them.
        ("C_WrapKey pre=0x54", "CKR_FUNCTION_NOT_SUPPORTED", "ecdsa-p256-sha256", Residency::Wrapped),
    ];
    for (round, (plan, code, algorithm, residency)) in poor.into_iter().enumerate() {
        t.stop().await;
        t.hsm.plan(&format!("{plan}\n"));
        t.start_again().await.unwrap();
        // 1. It is refused by name, with what could be done instead, and other operations go on.
        let key = CreateKey { residency: Some(residency), ..new_key(&format!("key-{round}"), algorithm) };
        let error = t.client.create_key(&key).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{plan}: {error:?}");
        assert!(error.public().contains(code) && error.public().contains("hsm"), "{plan}: {error:?}");
        let mend = error.mend().unwrap();
        assert!(mend.contains("hmac-sha256") && mend.contains("tpm (wrapped)"), "{plan}: {mend}");
        t.key(&format!("code-{round}"), "hmac-sha256").await;
        t.client.sign(&name("before"), &message()).await.unwrap();
        let elsewhere =
            CreateKey { device: Some("tpm".parse().unwrap()), ..new_key(&format!("else-{round}"), algorithm) };
        t.client.create_key(&elsewhere).await.unwrap();
        // 2. On record: what changed, once.
        for _ in 0..2 {
            t.server().service().keyring().record_trials().await;
        }
        let now = device(&t, "hsm").await;
        assert!(now.changes.iter().any(|what| what.contains(code) && what.contains("before: works")), "{now:?}");
        assert_eq!(ability(&now, algorithm, residency).code.as_deref(), Some(code));
        let told = recorded(&t).await;
        assert_eq!(told.len(), before + 2 * round + 1, "{told:?}");
        assert!(told.last().is_some_and(|(device, what)| device == "hsm" && what.contains(code)), "{told:?}");
        // 3. What is mended is found at the next start, and told as well.
        t.stop().await;
        t.hsm.plan("");
        t.start_again().await.unwrap();
        t.server().service().keyring().record_trials().await;
        let mended = device(&t, "hsm").await;
        assert!(mended.changes.iter().all(|what| what.contains("before: refused by the device")), "{mended:?}");
        let same =
            |one: &DeviceAbility, other: &DeviceAbility| (&one.refusal, &one.code) == (&other.refusal, &other.code);
        assert!(mended.abilities.iter().zip(&first.abilities).all(|(one, other)| same(one, other)));
    }
    // 4. Nothing of all the trials stands in the token: what is new there are the keys that were made.
    assert_eq!(t.hsm.ids().len(), objects.len() + poor.len());
    proven(
        "tokens that can do less than they should",
        poor.len(),
        "refused by name, recorded, and found again when mended",
    );
}

fn message() -> signet::wire::Sign {
    signet::wire::Sign { message: Some(signet::wire::Base64(b"x".to_vec())), ..Default::default() }
}
