//! What a token says of damage that is stricter than SoftHSM, and has other words for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use signet::device::{Class, Locator, Outcome, PinSource, Pkcs11Settings, Settings, TokenSelector};
use signet::types::{Algorithm, Residency};

use crate::bench::{Bench, MESSAGE};
use crate::kryoptic::Kryoptic;
use crate::proof::proven;
use crate::skip::skipped;
use crate::softhsm::{fault_module, tool};

/// A blob that was changed in any byte, cut or lengthened is a damaged key, on a token that answers a code of a lost device to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_a_damaged_key() {
    let Some(token) = Kryoptic::new() else { return };
    let bench = Bench::enrol(Settings::Pkcs11(token.settings())).await;
    for algorithm in [Algorithm::HmacSha256, Algorithm::EcdsaP256] {
        let key = bench.make(algorithm, Residency::Wrapped).await;
        let Locator::Wrapped { kek, blob } = &key.key.locator else { panic!("{:?}", key.key) };
        // RFC 5649: 8 bytes more than the key, and padding.
        assert_eq!(blob.len() % 8, 0);
        let (mut first, mut last) = (blob.clone(), blob.clone());
        first[0] ^= 1;
        *last.last_mut().unwrap() ^= 1;
        let longer = [blob.as_slice(), &[0; 8]].concat();
        for damaged in [first, last, longer, blob[8..].to_vec(), blob[..8].to_vec()] {
            let mut other = (*key.key).clone();
            other.locator = Locator::Wrapped { kek: *kek, blob: damaged };
            bench.worker.forget(other.id, other.version).await.unwrap();
            let fault = bench.worker.use_key(&Arc::new(other), key.input(MESSAGE)).await.unwrap_err();
            assert!(matches!(fault.class, Class::KeyDamaged), "{algorithm}: {fault:?}");
        }
        bench.worker.use_key(&key.key, key.input(MESSAGE)).await.unwrap();
    }
    assert_eq!(bench.worker.restarts(), 0);
    bench.worker.shutdown().await;
}

/// NSS shows all that our template states and heeds little of it. No key is kept in it: what wraps is seen to lack its unwrap template,
/// the attacks are seen to work, and what it stores it refuses; nothing is left behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_heed_the_template_keeps_no_key() {
    const SOFTOKN: &str = "/usr/lib/x86_64-linux-gnu/libsoftokn3.so";
    if !Path::new(SOFTOKN).exists() || Command::new("certutil").arg("-H").output().is_err() {
        return skipped("no NSS: the packages libnss3 and libnss3-tools");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let database = format!("sql:{}", folder.path().display());
    fs::write(path("pin"), "20398457\n").unwrap();
    fs::set_permissions(path("pin"), fs::Permissions::from_mode(0o600)).unwrap();
    tool("certutil", &["-N", "-d", &database, "-f", &path("pin")]);
    let parameters = format!("configdir='{database}' certPrefix='' keyPrefix='' secmod='secmod.db'");
    let settings = |module: PathBuf| {
        Settings::Pkcs11(Pkcs11Settings {
            module,
            token: TokenSelector::Label("NSS Certificate DB".to_owned()),
            pin: PinSource::File(path("pin").into()),
            threads: 1,
            loaded_keys: 10,
            sync_dir: None,
            environment: vec![
                ("SIGNET_FAULT_REAL".to_owned(), SOFTOKN.to_owned()),
                ("SIGNET_FAULT_PARAMETERS".to_owned(), parameters.clone()),
            ],
            network: false,
            anchor_writes_per_day: None,
        })
    };
    // 1. By itself it does not start without parameters, which nothing but NSS wants.
    let worker = Bench::unenrolled(settings(SOFTOKN.into()));
    let fault = worker.settled().await.unwrap_err();
    assert_eq!((fault.class, fault.code.as_deref()), (Class::Config, Some("CKR_ARGUMENTS_BAD")), "{fault:?}");
    worker.shutdown().await;
    // 2. With them it starts, logs in, and is asked what it can.
    let worker = Bench::unenrolled(settings(fault_module()));
    worker.settled().await.unwrap();
    let abilities = worker.describe().await.unwrap().abilities.clone();
    for ability in abilities.iter().filter(|one| one.residency == Residency::Wrapped) {
        let refusal = ability.refusal.as_deref().unwrap();
        let unknown = matches!(ability.algorithm, Algorithm::Ed25519 | Algorithm::MlDsa65 | Algorithm::MlKem768);
        assert!(refusal.contains("CKA_UNWRAP_TEMPLATE") || unknown, "{refusal}");
    }
    // 3. The attacks tell what reading back cannot.
    let attempts = worker.attack().await.unwrap();
    let works: Vec<_> = attempts.iter().filter(|one| one.ours == Outcome::Works && !one.owned).collect();
    assert!(works.len() > 8 && works.iter().any(|one| one.attack == "unwrap a key as readable"), "{works:#?}");
    proven(
        "attacks that work on our keys in NSS, which is therefore no place for them",
        works.len(),
        "seen by the battery",
    );
    // 4. Enrolment fails, and leaves nothing.
    let fault = worker.enrol().await.unwrap_err();
    assert!(matches!(fault.class, Class::Unsupported | Class::Ambiguous) && fault.hint.is_some(), "{fault:?}");
    worker.shutdown().await;
    let left = Command::new("certutil").args(["-K", "-d", &database, "-f", &path("pin")]).output().unwrap();
    assert!(String::from_utf8_lossy(&left.stdout).contains("no keys found"), "{left:?}");
}
