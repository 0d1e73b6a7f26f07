//! Tokens that are taken out and put back, and PINs that are refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use signet::device::{Class, Fault, Locator, PinSource, Pkcs11Settings, Settings, TokenSelector};
use signet::types::{Algorithm, Residency};
use tokio::time::Instant;

use crate::bench::{Bench, Key, eventually, softhsm};
use crate::softhsm::SoftHsm;

/// How a token goes away, and how it comes back.
struct Way {
    name: &'static str,
    take: fn(&SoftHsm),
    put: fn(&SoftHsm),
}

const WAYS: &[Way] = &[
    Way { name: "its files are moved away", take: SoftHsm::take_out, put: SoftHsm::put_back },
    Way { name: "its folder is moved away", take: move_folder_away, put: move_folder_back },
    Way { name: "its files are emptied", take: empty_the_files, put: fill_the_files },
];

fn move_folder_away(hsm: &SoftHsm) {
    fs::rename(hsm.tokens(), hsm.folder().join("elsewhere")).unwrap();
}

fn move_folder_back(hsm: &SoftHsm) {
    fs::rename(hsm.folder().join("elsewhere"), hsm.tokens()).unwrap();
}

fn empty_the_files(hsm: &SoftHsm) {
    copy_all(&hsm.tokens(), &hsm.folder().join("aside"));
    for folder in fs::read_dir(hsm.tokens()).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            fs::write(file.unwrap().path(), "").unwrap();
        }
    }
}

fn fill_the_files(hsm: &SoftHsm) {
    copy_all(&hsm.folder().join("aside"), &hsm.tokens());
}

pub(crate) fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// What a caller may be told while the token is away.
fn is_away(fault: &Fault) {
    // A worker that dies of what it finds is lost; nothing says that the key is.
    assert!(matches!(fault.class, Class::DeviceGone | Class::WorkerLost | Class::Expired), "{fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_taken_out_is_missed_within_moments_and_taken_up_again() {
    futures_util::future::join_all(WAYS.iter().map(goes_and_comes_back)).await;
}

async fn goes_and_comes_back(way: &Way) {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::softhsm(&hsm).await;
    let resident = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    let wrapped = bench.make(Algorithm::EcdsaP256, Residency::Wrapped).await;
    let unloaded = bench.make(Algorithm::EcdsaP256, Residency::Wrapped).await;
    bench.works(&wrapped).await;
    bench.worker.forget(unloaded.key.id, unloaded.key.version).await.unwrap();
    // A refused job must not put the health check to sleep.
    bench.try_make(Algorithm::Ed25519, Residency::Wrapped).await.err().unwrap();
    let before = bench.worker.inventory().await.unwrap();
    // 1. Away: soon nothing works, not even the key that is loaded, which would go on without its token.
    (way.take)(&hsm);
    let taken = Instant::now();
    for key in [&wrapped, &resident, &unloaded] {
        eventually("nothing works", async || match bench.sign(key).await {
            Ok(signature) => {
                assert!(key.verifies(&signature), "{}: a wrong signature", way.name);
                false
            }
            Err(fault) => {
                is_away(&fault);
                true
            }
        })
        .await;
    }
    let missed = taken.elapsed();
    assert!(missed < Duration::from_secs(5), "{}: missed after {missed:?}", way.name);
    // 2. And so it stays: no key is made, and none is called lost.
    stays_away(&bench, &[&wrapped, &resident, &unloaded]).await;
    // 3. Back.
    (way.put)(&hsm);
    let back = bench.works_again(&resident).await;
    println!("{}: missed after {missed:?}, back after {back:?}", way.name);
    for key in [&wrapped, &unloaded] {
        bench.works(key).await;
    }
    assert_eq!(bench.worker.inventory().await.unwrap(), before, "{}", way.name);
    bench.worker.shutdown().await;
}

async fn stays_away(bench: &Bench, keys: &[&Key]) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        for key in keys {
            is_away(&bench.sign(key).await.unwrap_err());
        }
        let (_, fault) = bench.try_make(Algorithm::HmacSha256, Residency::Resident).await.err().unwrap();
        assert!(matches!(fault.class, Class::DeviceGone | Class::Ambiguous | Class::WorkerLost), "{fault:?}");
        assert!(bench.worker.inventory().await.is_err());
        assert!(bench.worker.destroy((*keys[0].key).clone()).await.is_err());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let fault = bench.worker.state().unwrap_err();
    assert!(fault.hint.is_some() || fault.class == Class::WorkerLost, "{fault:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_token_under_the_same_label_is_not_the_enrolled_one() {
    let (Some(hsm), Some(other)) = (softhsm(), softhsm()) else { return };
    let bench = Bench::softhsm(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    fs::copy(hsm.pin_file(), other.folder().join("pin-of-the-first")).unwrap();
    hsm.take_out();
    copy_all(&other.tokens(), &hsm.tokens());
    fs::copy(other.pin_file(), hsm.pin_file()).unwrap();
    eventually("the first token is missed", async || bench.class(&key).await == Some(Class::DeviceGone)).await;
    eventually("the other is seen", async || {
        bench.worker.state().is_err_and(|fault| fault.text.contains("was enrolled"))
    })
    .await;
    assert_eq!(bench.class(&key).await, Some(Class::DeviceGone));
    // The enrolled one comes back.
    fs::remove_dir_all(hsm.tokens()).unwrap();
    fs::create_dir(hsm.tokens()).unwrap();
    fs::copy(other.folder().join("pin-of-the-first"), hsm.pin_file()).unwrap();
    hsm.put_back();
    bench.works_again(&key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_pin_is_tried_once() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    bench.worker.shutdown().await;
    let right = fs::read(hsm.pin_file()).unwrap();
    let put = |pin: &[u8]| {
        fs::write(hsm.pin_file(), pin).unwrap();
        fs::set_permissions(hsm.pin_file(), Permissions::from_mode(0o600)).unwrap();
    };
    // 1. Tried once, however long one waits and whoever asks. The refusal must not be overtaken by the end of the process
    // that tells it: a worker that died would be started again, with the same PIN.
    hsm.spoil_pin();
    hsm.calls();
    for number in 0..10 {
        let worker = Bench::open(bench.settings.clone(), &bench.identity);
        let fault = worker.settled().await.unwrap_err();
        assert_eq!(fault.class, Class::PinRefused);
        // The token tells the next ones, which know nothing of each other, that a wrong PIN was entered.
        assert_eq!(fault.code.is_some(), number == 0, "{fault:?}");
        worker.shutdown().await;
    }
    assert_eq!(hsm.calls()["C_Login"], 1);
    let worker = Bench::open(bench.settings.clone(), &bench.identity);
    let bench = Bench { worker: worker.into(), ..bench };
    assert_eq!(bench.worker.settled().await.unwrap_err().class, Class::PinRefused);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        assert_eq!(bench.class(&key).await, Some(Class::PinRefused));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(hsm.calls().get("C_Login"), None);
    // 2. Once more where somebody asks for it.
    bench.worker.retry();
    let mut logins = 0;
    eventually("it is tried again", async || {
        logins += hsm.calls().get("C_Login").copied().unwrap_or_default();
        logins > 0
    })
    .await;
    eventually("it is refused again", async || bench.class(&key).await == Some(Class::PinRefused)).await;
    // 3. The right PIN is noticed by itself.
    put(&right);
    bench.works_again(&key).await;
    logins += hsm.calls()["C_Login"];
    assert_eq!(logins, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_pin_is_not_tried_again() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    bench.worker.shutdown().await;
    // Locked by what the login answers, and by what the token shows, which costs no try at all.
    for (plan, tries) in [("C_Login pre=0xA4", 1), ("C_GetTokenInfo flags=0x40000", 0)] {
        hsm.plan(plan);
        hsm.calls();
        let worker = Bench::open(bench.settings.clone(), &bench.identity);
        let fault = worker.settled().await.unwrap_err();
        assert_eq!(fault.class, Class::PinLocked);
        assert!(fault.hint.is_some_and(|hint| hint.contains("unlock")), "{plan}");
        for _ in 0..20 {
            let fault = worker.use_key(&key.key, vec![0; 32]).await.unwrap_err();
            assert_eq!(fault.class, Class::PinLocked);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(hsm.calls().get("C_Login").copied().unwrap_or_default(), tries, "{plan}");
        // Unlocked at the device, and told so.
        hsm.plan("");
        worker.retry();
        eventually("it is up", async || worker.state().is_ok()).await;
        worker.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_there_is_a_matter_of_configuration() {
    let Some(hsm) = softhsm() else { return };
    let good = hsm.settings();
    let wrong = [
        ("no module", Pkcs11Settings { module: "/nonexistent.so".into(), ..good.clone() }),
        ("no token of the label", Pkcs11Settings { token: TokenSelector::Label("another".into()), ..good.clone() }),
        ("no token of the serial", Pkcs11Settings { token: TokenSelector::Serial("0".into()), ..good.clone() }),
        ("no PIN file", Pkcs11Settings { pin: PinSource::File("/nonexistent".into()), ..good.clone() }),
    ];
    for (name, settings) in wrong {
        let worker = Bench::unenrolled(Settings::Pkcs11(settings));
        let fault = worker.settled().await.unwrap_err();
        assert_eq!(fault.class, Class::Config, "{name}: {fault:?}");
        assert!(fault.hint.is_some() || name == "no PIN file", "{name}: {fault:?}");
        worker.shutdown().await;
    }
    // A program that is not one.
    let none = signet::device::Worker::start(
        "test",
        Settings::Pkcs11(good),
        None,
        "/nonexistent".into(),
        signet::telemetry::Metrics::new(),
    );
    assert_eq!(none.settled().await.unwrap_err().class, Class::Config);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_wrapped_keys_needs_only_their_blobs() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::softhsm(&hsm).await;
    let key = bench.make(Algorithm::HmacSha256, Residency::Wrapped).await;
    let tag = bench.sign(&key).await.unwrap();
    assert!(!bench.has(key.key.id).await);
    let mut spoilt = (*key.key).clone();
    let Locator::Wrapped { blob, .. } = &mut spoilt.locator else { panic!("not wrapped") };
    blob[3] ^= 1;
    bench.worker.forget(key.key.id, key.key.version).await.unwrap();
    let fault = bench.worker.use_key(&std::sync::Arc::new(spoilt), b"m".to_vec()).await.unwrap_err();
    assert_eq!(fault.class, Class::KeyDamaged, "{fault:?}");
    assert_eq!(bench.sign(&key).await.unwrap().expose(), tag.expose());
    assert_eq!(bench.worker.restarts(), 0);
}
