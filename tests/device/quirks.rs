//! Tokens with habits of their own: they ignore what a template says, end sessions that are idle, have too few of them, are full, want
//! another PIN, or work again only when the library was finalised.

use std::fs;
use std::process::Command;
use std::time::Duration;

use pkcs11_raw::ck;
use signet::device::Class;
use signet::types::{Algorithm, Residency, Role};
use tokio::time::Instant;

use crate::bench::{Bench, Key, eventually, kill, softhsm, worker_processes};
use crate::proof::proven;
use crate::softhsm::{LABEL, MODULE, SoftHsm, tool};

/// The attributes that our templates state, by name.
const STATED: [(&str, ck::CK_ATTRIBUTE_TYPE); 18] = [
    ("CKA_TOKEN", ck::CKA_TOKEN),
    ("CKA_PRIVATE", ck::CKA_PRIVATE),
    ("CKA_LABEL", ck::CKA_LABEL),
    ("CKA_ID", ck::CKA_ID),
    ("CKA_SENSITIVE", ck::CKA_SENSITIVE),
    ("CKA_EXTRACTABLE", ck::CKA_EXTRACTABLE),
    ("CKA_MODIFIABLE", ck::CKA_MODIFIABLE),
    ("CKA_COPYABLE", ck::CKA_COPYABLE),
    ("CKA_ALLOWED_MECHANISMS", ck::CKA_ALLOWED_MECHANISMS),
    ("CKA_SIGN", ck::CKA_SIGN),
    ("CKA_SIGN_RECOVER", ck::CKA_SIGN_RECOVER),
    ("CKA_VERIFY", ck::CKA_VERIFY),
    ("CKA_ENCRYPT", ck::CKA_ENCRYPT),
    ("CKA_DECRYPT", ck::CKA_DECRYPT),
    ("CKA_WRAP", ck::CKA_WRAP),
    ("CKA_UNWRAP", ck::CKA_UNWRAP),
    ("CKA_DERIVE", ck::CKA_DERIVE),
    ("CKA_VALUE_LEN", ck::CKA_VALUE_LEN),
];
/// Whether a key may be taken though the token ignored this attribute: the template does not state it of such keys, or what SoftHSM
/// chooses by itself is what it states. The object that is only made to be wrapped lives for a moment, and is judged by what
/// unwraps.
fn is_no_matter(name: &str, algorithm: Algorithm, residency: Residency, function: &str) -> bool {
    let is_secret = matches!(algorithm.role(), Role::Mac | Role::Cipher);
    let stated_of_others: &[_] = match is_secret {
        true => &["CKA_SIGN_RECOVER"],
        false => &["CKA_VERIFY", "CKA_ENCRYPT", "CKA_WRAP", "CKA_VALUE_LEN"],
    };
    let own_choice: &[_] = match (function, algorithm.role()) {
        ("C_UnwrapKey", _) => &["CKA_TOKEN", "CKA_VALUE_LEN"],
        (_, Role::Sign | Role::Mac) => &["CKA_EXTRACTABLE", "CKA_DERIVE", "CKA_SIGN"],
        (_, Role::Cipher) => &["CKA_EXTRACTABLE", "CKA_DERIVE", "CKA_ENCRYPT", "CKA_DECRYPT"],
        (_, Role::Agree | Role::Decrypt | Role::Decapsulate) => &["CKA_EXTRACTABLE"],
    };
    let unborn = residency == Residency::Wrapped && function != "C_UnwrapKey";
    unborn || name == "CKA_PRIVATE" || stated_of_others.contains(&name) || own_choice.contains(&name)
}

/// What another program says that a key of the token can do.
fn judged(hsm: &SoftHsm, key: &Key) -> (String, String) {
    let (pin, id) = (fs::read_to_string(hsm.pin_file()).unwrap(), format!("{}00000001", key.key.id));
    let out = Command::new("pkcs11-tool")
        .args([
            "--module",
            MODULE,
            "--token-label",
            LABEL,
            "--login",
            "--pin",
            pin.trim(),
            "--list-objects",
            "--id",
            &id,
        ])
        .envs(hsm.environment())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let object = text.split(" Object;").find(|object| object.contains(&id)).unwrap_or_else(|| panic!("{text}"));
    let line = |what: &str| {
        let found = object.lines().find_map(|line| line.trim().strip_prefix(what));
        found.unwrap_or_else(|| panic!("{object}")).trim().to_owned()
    };
    (line("Usage:"), line("Access:"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ignores_an_attribute_keeps_no_key_of_it() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    bench.warm().await;
    let before = bench.worker.inventory().await.unwrap();
    let (mut tried, mut refused) = (0, 0);
    for (algorithm, function, usage) in [
        (Algorithm::EcdsaP256, "C_GenerateKeyPair", "sign"),
        (Algorithm::HpkeP256, "C_GenerateKeyPair", "derive"),
        // That program does not tell of secrets that sign.
        (Algorithm::HmacSha256, "C_GenerateKey", "none"),
        (Algorithm::Aes256Gcm, "C_GenerateKey", "encrypt, decrypt"),
    ] {
        for residency in Residency::ALONE {
            let unwraps = (residency == Residency::Wrapped).then_some("C_UnwrapKey");
            for function in [function].into_iter().chain(unwraps) {
                for (name, kind) in STATED {
                    let what = format!("{algorithm} {residency}: {function} ignores {name}");
                    hsm.plan(&format!("{function} without={kind:#x}"));
                    match bench.try_make(algorithm, residency).await {
                        Ok(key) => {
                            assert!(is_no_matter(name, algorithm, residency, function), "{what}, and the key is taken");
                            bench.sign(&key).await.unwrap_or_else(|fault| panic!("{what}: {fault:?}"));
                            if residency == Residency::Resident {
                                let access = "sensitive, always sensitive, never extractable, local";
                                assert_eq!(judged(&hsm, &key), (usage.to_owned(), access.to_owned()), "{what}");
                            }
                            bench.worker.destroy((*key.key).clone()).await.unwrap();
                        }
                        Err((_, fault)) => {
                            let expected = [Class::Unsupported, Class::Refused, Class::KeyDamaged, Class::Ambiguous];
                            assert!(expected.contains(&fault.class), "{what}: {fault:?}");
                            refused += 1;
                        }
                    }
                    tried += 1;
                    hsm.plan("");
                    assert_eq!(bench.worker.inventory().await.unwrap(), before, "{what}");
                }
            }
        }
    }
    assert_eq!(bench.worker.restarts(), 0);
    println!("{refused} of {tried} refused");
    assert!(refused > 80, "{refused}");
    proven("keys made by a token that ignores an attribute", tried, "0 taken that are not as they should be");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_end_again_and_again_are_made_again() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let keys = [
        bench.make(Algorithm::EcdsaP256, Residency::Resident).await,
        bench.make(Algorithm::EcdsaP256, Residency::Wrapped).await,
    ];
    let (mut right, mut failed) = (0, 0);
    for _ in 0..10 {
        // The token ends all sessions, and the login with them, before one call; the next worker has its own.
        bench.worker.retry();
        hsm.plan("C_SignInit after=5 once close_sessions\n");
        for turn in 0..20 {
            let key = &keys[turn % keys.len()];
            match bench.sign(key).await {
                Ok(signature) => {
                    assert!(key.verifies(&signature), "a wrong signature");
                    right += 1;
                }
                // Above all no word of a key that is gone.
                Err(fault) => {
                    assert!(matches!(fault.class, Class::DeviceGone | Class::Retry | Class::WorkerLost), "{fault:?}");
                    failed += 1;
                }
            }
        }
        for key in &keys {
            bench.works_again(key).await;
        }
    }
    println!("{right} right, {failed} failed while the token ended all sessions ten times");
    assert!(right > 10, "{right}");
}

/// What a library may say once it is stuck: general error, function failed, device error, device removed, not initialised.
const STUCK: [&str; 5] = ["0x05", "0x06", "0x30", "0x32", "0x190"];

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_is_stuck_is_replaced() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    for (number, code) in (1..).zip(STUCK) {
        // Each stands for itself.
        bench.worker.retry();
        bench.works(&key).await;
        hsm.plan(&format!("C_SignInit once stuck={code}"));
        let began = Instant::now();
        eventually("the worker is replaced", async || {
            if let Ok(signature) = bench.sign(&key).await {
                assert!(key.verifies(&signature), "{code}: a wrong signature");
            }
            bench.worker.restarts() >= number
        })
        .await;
        bench.works_again(&key).await;
        println!("stuck with {code}: works again after {:?}", began.elapsed());
        assert_eq!(bench.worker.restarts(), number, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_too_few_sessions_costs_answers_and_nothing_else() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    let wrapped = bench.make(Algorithm::EcdsaP256, Residency::Wrapped).await;
    // CKR_SESSION_COUNT: for whoever comes first, second, and so on.
    for sessions in 0..4 {
        bench.worker.retry();
        replaced_under(&bench, &hsm, &format!("C_OpenSession after={sessions} pre=0xB1")).await;
        let (mut right, mut classes) = (0, Vec::new());
        for _ in 0..20 {
            for key in [&key, &wrapped] {
                match bench.sign(key).await {
                    Ok(signature) => {
                        assert!(key.verifies(&signature), "a wrong signature");
                        right += 1;
                    }
                    Err(fault) => {
                        let safe = [Class::Retry, Class::DeviceGone, Class::WorkerLost, Class::Expired, Class::Busy];
                        assert!(safe.contains(&fault.class), "{sessions} sessions: {fault:?}");
                        classes.push(fault.class);
                    }
                }
            }
        }
        classes.dedup();
        println!("{sessions} sessions: {right} of 40 right, {classes:?}");
        hsm.plan("");
        bench.works_again(&key).await;
        bench.works_again(&wrapped).await;
    }
}

/// Kills the worker, and has the next one start under a plan.
async fn replaced_under(bench: &Bench, hsm: &SoftHsm, plan: &str) {
    let before = bench.worker.restarts();
    hsm.plan(plan);
    worker_processes(hsm).into_iter().for_each(kill);
    eventually("the worker is replaced", async || bench.worker.restarts() > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_token_refuses_new_keys_and_serves_the_old() {
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    let wrapped = bench.make(Algorithm::EcdsaP256, Residency::Wrapped).await;
    bench.warm().await;
    let before = bench.worker.inventory().await.unwrap();
    // CKR_DEVICE_MEMORY, CKR_TOKEN_RESOURCE_EXCEEDED.
    for code in ["0x31", "0x201"] {
        for when in ["pre", "post"] {
            for residency in Residency::ALONE {
                let plan =
                    ["C_GenerateKeyPair", "C_GenerateKey"].map(|call| format!("{call} {when}={code}\n")).concat();
                hsm.plan(&plan);
                for algorithm in [Algorithm::EcdsaP256, Algorithm::HmacSha256] {
                    let (id, fault) = bench.try_make(algorithm, residency).await.err().unwrap();
                    assert_eq!(fault.class, Class::Full, "{code} {when}: {fault:?}");
                    bench.works(&key).await;
                    bench.works(&wrapped).await;
                    // A token that made it all the same has lied; the pending row has it found.
                    let mut orphan = (*key.key).clone();
                    orphan.id = id;
                    bench.worker.destroy(orphan).await.unwrap();
                }
                hsm.plan("");
                assert_eq!(bench.worker.inventory().await.unwrap(), before, "{code} {when} {residency}");
                bench.make(Algorithm::HmacSha256, Residency::Wrapped).await;
            }
        }
        // No room for the key that a blob holds: an error for this use, and the next one that finds room works.
        bench.worker.forget(wrapped.key.id, wrapped.key.version).await.unwrap();
        hsm.plan(&format!("C_UnwrapKey pre={code}"));
        assert_eq!(bench.class(&wrapped).await, Some(Class::Full), "{code}");
        bench.works(&key).await;
        hsm.plan("");
        bench.works(&wrapped).await;
    }
    assert_eq!(bench.worker.restarts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_that_expires_or_is_changed_costs_nothing_before_the_next_login() {
    const NEW: &str = "71829364";
    let Some(hsm) = softhsm() else { return };
    let bench = Bench::faulty(&hsm).await;
    let key = bench.make(Algorithm::EcdsaP256, Residency::Resident).await;
    // 1. Expired (CKR_PIN_EXPIRED): the login that there is goes on.
    hsm.plan("C_Login pre=0xA3");
    goes_on(&bench, &key).await;
    refused_once(&bench, &hsm, &key).await;
    // 2. The owner sets a new one with the maker's tool, and puts it in place: that is noticed.
    hsm.plan("");
    let old = fs::read_to_string(hsm.pin_file()).unwrap();
    change_pin(&hsm, old.trim(), NEW);
    put_pin(&hsm, NEW);
    bench.works_again(&key).await;
    // 3. Changed by another program while the service runs.
    change_pin(&hsm, NEW, old.trim());
    goes_on(&bench, &key).await;
    refused_once(&bench, &hsm, &key).await;
    put_pin(&hsm, old.trim());
    bench.works_again(&key).await;
}

async fn goes_on(bench: &Bench, key: &Key) {
    let restarts = bench.worker.restarts();
    for _ in 0..50 {
        bench.works(key).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(bench.worker.restarts(), restarts);
}

/// The next worker logs in once, and nobody does so again.
async fn refused_once(bench: &Bench, hsm: &SoftHsm, key: &Key) {
    hsm.calls();
    worker_processes(hsm).into_iter().for_each(kill);
    eventually("the PIN is refused", async || bench.class(key).await == Some(Class::PinRefused)).await;
    let fault = bench.worker.state().unwrap_err();
    assert!(fault.hint.is_some(), "{fault:?}");
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        assert_eq!(bench.class(key).await, Some(Class::PinRefused));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(hsm.calls().get("C_Login"), Some(&1));
}

fn change_pin(hsm: &SoftHsm, old: &str, new: &str) {
    let conf = hsm.conf();
    let set = format!("SOFTHSM2_CONF={}", conf.display());
    let change = ["--change-pin", "--pin", old, "--new-pin", new];
    tool(
        "env",
        &[&[set.as_str(), "pkcs11-tool", "--module", MODULE, "--token-label", LABEL, "--login"], &change[..]].concat(),
    );
}

fn put_pin(hsm: &SoftHsm, pin: &str) {
    let new = hsm.folder().join("pin.new");
    fs::write(&new, format!("{pin}\n")).unwrap();
    fs::set_permissions(&new, fs::metadata(hsm.pin_file()).unwrap().permissions()).unwrap();
    fs::rename(&new, hsm.pin_file()).unwrap();
}
