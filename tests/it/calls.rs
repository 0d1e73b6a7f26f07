//! How often the device is asked for one operation, as the fault module before it counts.

use signet::types::{Context, Residency};
use signet::wire::{Base64, MakeMac, Sign};

use crate::proof::proven;
use crate::server::{Devices, TestServer, name, new_key};
use crate::wrap::{plain, sealed};

/// How often each operation is done. What the sentinel asks meanwhile is far less.
const TIMES: usize = 200;

/// What a caller asks for, and how many calls of `C_Sign` it may cost: each after its `C_SignInit`, and nothing else.
const OPERATIONS: &[(&str, usize)] = &[
    ("sign, ECDSA P-256", 1),
    // The check value proves the key, and the result is asked for twice: it could have been changed on its way.
    ("MAC", 3),
    ("wrap", 3),
    // What was sealed says by itself whether the key is the right one.
    ("unwrap", 1),
];

#[tokio::test]
async fn each_operation_asks_the_device_as_little_as_it_may() {
    let t = TestServer::with(Devices::Faulty).await;
    let none = Context::default();
    for residency in [Residency::Resident, Residency::Wrapped] {
        for (key, algorithm) in [("sign", "ecdsa-p256-sha256"), ("mac", "hmac-sha256"), ("data", "aes256-gcm-derived")]
        {
            let mut new = new_key(&format!("{key}-{residency}"), algorithm);
            new.residency = Some(residency);
            t.client.create_key(&new).await.unwrap();
        }
        let key = |kind: &str| name(&format!("{kind}-{residency}"));
        let blob = t.client.wrap(&key("data"), &plain(b"secret", &none)).await.unwrap().ciphertext;
        let ask = async |operation: &str| match operation {
            "MAC" => drop(t.client.mac(&key("mac"), &MakeMac { message: Base64(b"text".to_vec()) }).await.unwrap()),
            "wrap" => drop(t.client.wrap(&key("data"), &plain(b"secret", &none)).await.unwrap()),
            "unwrap" => drop(t.client.unwrap(&key("data"), &sealed(&blob, &none)).await.unwrap()),
            _ => {
                let sign = Sign { message: Some(Base64(b"text".to_vec())), ..Sign::default() };
                drop(t.client.sign(&key("sign"), &sign).await.unwrap());
            }
        };
        for (operation, allowed) in OPERATIONS {
            // A wrapped key is unwrapped at its first use, and stays for the next ones.
            ask(operation).await;
            t.hsm.calls();
            for _ in 0..TIMES {
                ask(operation).await;
            }
            let calls = t.hsm.calls();
            let of = |function: &str| calls.get(function).copied().unwrap_or_default();
            let signs = of("C_Sign") / TIMES;
            assert_eq!(signs, *allowed, "{operation}, {residency}: {calls:?}");
            let others = calls.values().sum::<usize>() - of("C_Sign") - of("C_SignInit");
            assert!(others < TIMES / 2, "{operation}, {residency}: {calls:?}");
            proven(
                &format!("device calls for one {operation}, {residency}"),
                2 * signs,
                "C_SignInit and C_Sign, nothing else",
            );
        }
    }
}
