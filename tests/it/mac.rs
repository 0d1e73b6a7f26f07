//! Message authentication codes.

use signet::error::Kind;
use signet::wire::{Base64, MakeMac, VerifyMac};

use crate::server::{Devices, TestServer, name, new_key};

#[tokio::test]
async fn codes_are_whole_and_checked_by_the_version_that_made_them() {
    let t = TestServer::with(Devices::WithTpm).await;
    for device in ["hsm", "tpm"] {
        for (algorithm, size) in [("hmac-sha256", 32), ("hmac-sha384", 48), ("hmac-sha512", 64)] {
            let text = format!("{device}-{algorithm}");
            let mut new = new_key(&text, algorithm);
            new.device = Some(device.parse().unwrap());
            t.client.create_key(&new).await.unwrap();
            let message = Base64(b"message".to_vec());
            let made = t.client.mac(&name(&text), &MakeMac { message: message.clone() }).await.unwrap();
            assert_eq!(made.mac.0.len(), size);
            t.client.rotate_key(&name(&text), &Default::default()).await.unwrap();
            let verify = |mac: &Base64, version| VerifyMac { message: message.clone(), mac: mac.clone(), version };
            let own = t.client.verify_mac(&name(&text), &verify(&made.mac, Some(made.version))).await.unwrap();
            assert!(own.valid);
            assert!(!t.client.verify_mac(&name(&text), &verify(&made.mac, None)).await.unwrap().valid);
            let short = Base64(made.mac.0[..size - 1].to_vec());
            assert!(!t.client.verify_mac(&name(&text), &verify(&short, Some(made.version))).await.unwrap().valid);
        }
    }
    // What is too long for the device is said, and by how much.
    let long = MakeMac { message: Base64(vec![0; 1025]) };
    let error = t.client.mac(&name("tpm-hmac-sha256"), &long).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Invalid | Kind::Limit), "{error:?}");
    assert!(error.public().contains("1024"), "{error}");
    t.client.mac(&name("hsm-hmac-sha256"), &long).await.unwrap();
}

#[tokio::test]
async fn a_key_to_wrap_never_answers_mac() {
    let t = TestServer::start().await;
    t.key("data", "aes256-gcm-derived").await;
    let error = t.client.mac(&name("data"), &MakeMac { message: Base64(b"m".to_vec()) }).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}
