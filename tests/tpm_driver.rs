//! The TPM driver against a real software TPM: what it makes and refuses, and how it comes through restarts, strangers,
//! tampering and a broken wire. It shows that a failing TPM costs an error or a little time, and never a wrong answer.
#![cfg(feature = "tpm")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

#[path = "support/swtpm.rs"]
mod swtpm;
#[path = "support/tpm_proxy.rs"]
mod tpm_proxy;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signet::device::tpm::{self, Tpm};
use signet::device::{Class, Device, Driver, Identity, KeyRef, KeySpec, Locator};
use signet::types::{Agreed, Algorithm, KeyId, PcrValues, Pcrs, PublicKey, Residency, SecretBytes, Verifier, Version};
use swtpm::Swtpm;
use tpm_proxy::{Mishap, Proxy};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Auth, EccScheme, HashScheme, RsaExponent, SymmetricDefinitionObject};
use tss_esapi::utils::{create_restricted_decryption_rsa_public, create_unrestricted_signing_ecc_public};

const MODES: [bool; 2] = [true, false];

const SIGNERS: [Algorithm; 7] = [
    Algorithm::EcdsaP256,
    Algorithm::EcdsaP384,
    Algorithm::EcdsaP521,
    Algorithm::Rsa2048Pkcs1,
    Algorithm::Rsa2048Pss,
    Algorithm::Rsa3072Pkcs1,
    Algorithm::Rsa3072Pss,
];

const MACS: [Algorithm; 4] =
    [Algorithm::HmacSha256, Algorithm::HmacSha384, Algorithm::HmacSha512, Algorithm::Aes256GcmDerived];

/// What others wrap for by its public half.
const OPENERS: [Algorithm; 3] = [Algorithm::HpkeP256, Algorithm::Rsa2048Oaep, Algorithm::Rsa3072Oaep];

/// A signing key with the judge of its signatures.
struct Signer {
    key: KeyRef,
    verifier: Verifier,
}

impl Signer {
    fn make(device: &mut dyn Device, algorithm: Algorithm) -> Self {
        let (key, public) = make(device, algorithm);
        let verifier = Verifier::new(algorithm, &public.expect("a signing key has a public half")).unwrap();
        Self { key, verifier }
    }

    fn check(&self, device: &mut dyn Device) {
        let digest = self.key.algorithm.hash().unwrap().digest(b"the message");
        let signature = device.sign(&self.key, &digest).unwrap();
        assert!(self.verifier.verifies(b"the message", &signature), "a signature by another key");
    }
}

fn make(device: &mut dyn Device, algorithm: Algorithm) -> (KeyRef, Option<PublicKey>) {
    let (id, version) = (KeyId::random().unwrap(), Version::FIRST);
    let made = device.generate(&KeySpec { id, version, algorithm, residency: Residency::Wrapped, pcrs: None }).unwrap();
    (KeyRef { id, version, algorithm, locator: made.locator }, made.public)
}

/// An enrolled TPM, opened the way the worker does.
fn enrolled(tpm: &Swtpm, sessions: bool) -> (Tpm, Identity) {
    let settings = tpm.settings(sessions);
    let identity = tpm::open(&settings, None).unwrap().enrol().unwrap();
    (tpm::open(&settings, Some(&identity)).unwrap(), identity)
}

/// Runs one of tpm2-tools, in `folder`.
fn tool(tpm: &Swtpm, folder: &Path, line: &str) -> String {
    let mut words = line.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .current_dir(folder)
        .env("TPM2TOOLS_TCTI", tpm.settings(false).tcti)
        .output()
        .expect("tpm2-tools are installed");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn lockout_counter(tpm: &Swtpm) -> u32 {
    let text = tool(tpm, Path::new("/"), "tpm2_getcap properties-variable");
    let line = text.lines().find(|line| line.contains("LOCKOUT_COUNTER")).expect("a TPM counts failures");
    u32::from_str_radix(line.rsplit("0x").next().unwrap().trim(), 16).unwrap()
}

#[test]
fn each_algorithm_makes_keys_that_work() {
    for sessions in MODES {
        let tpm = Swtpm::start();
        let (driver, _) = enrolled(&tpm, sessions);
        let mut device = driver.session().unwrap();

        // 1. Signing keys sign for their public half, and for no other message.
        for algorithm in SIGNERS {
            let signer = Signer::make(&mut *device, algorithm);
            signer.check(&mut *device);
            let digest = algorithm.hash().unwrap().digest(b"another message");
            let signature = device.sign(&signer.key, &digest).unwrap();
            assert!(!signer.verifier.verifies(b"the message", &signature));
            if let Some(curve) = algorithm.curve() {
                assert_eq!(signature.len(), 2 * curve.size());
            }
        }

        // 2. HMAC keys answer the same each time, other keys something else, and the longest message is 1024 bytes.
        for algorithm in MACS {
            let (key, public) = make(&mut *device, algorithm);
            assert!(public.is_none());
            let tag = device.mac(&key, b"message").unwrap();
            assert_eq!(tag.len(), algorithm.hash().unwrap().size());
            assert_eq!(device.mac(&key, b"message").unwrap(), tag);
            let (other, _) = make(&mut *device, algorithm);
            assert_ne!(device.mac(&other, b"message").unwrap(), tag);
            assert_eq!(device.mac(&key, &[7; 1024]).unwrap().len(), tag.len());
            assert_eq!(device.mac(&key, b"").unwrap().len(), tag.len());
        }

        // 3. A key that agrees does so as software says, signs nothing, and is fed nothing but points of its curve.
        let (key, public) = make(&mut *device, Algorithm::HpkeP256);
        let known = Agreed::with(&public.unwrap()).unwrap();
        assert_eq!(device.agree(&key, &known.point).unwrap(), known.secret.expose());
        let mut off = known.point;
        off[64] ^= 1;
        assert_eq!(device.agree(&key, &off).unwrap_err().class, Class::Refused);
        assert_eq!(device.sign(&key, &[7; 32]).unwrap_err().class, Class::Refused);
        assert_eq!(device.mac(&key, &[7; 32]).unwrap_err().class, Class::Refused);
    }
}

#[test]
fn hmac_keys_are_as_long_as_their_hash() {
    let tpm = Swtpm::start();
    let (driver, _) = enrolled(&tpm, false);
    let mut device = driver.session().unwrap();
    let private_len = |device: &mut dyn Device, algorithm| match make(device, algorithm).0.locator {
        Locator::Tpm { private, .. } => private.len(),
        Locator::Resident | Locator::Wrapped { .. } | Locator::Shared { .. } | Locator::TpmBound { .. } => {
            panic!("a TPM key is a blob")
        }
    };
    let short = private_len(&mut *device, Algorithm::HmacSha256);
    assert_eq!(private_len(&mut *device, Algorithm::HmacSha384), short + 16);
    assert_eq!(private_len(&mut *device, Algorithm::HmacSha512), short + 32);
}

#[test]
fn what_a_tpm_cannot_do_is_said_and_refused() {
    let tpm = Swtpm::start();
    let (driver, _) = enrolled(&tpm, true);
    let mut device = driver.session().unwrap();

    // 1. The description has a row for everything.
    let began = Instant::now();
    let description = device.describe().unwrap();
    println!(
        "described in {:?}: {} {} {}",
        began.elapsed(),
        description.manufacturer,
        description.model,
        description.version
    );
    assert_eq!(description.abilities.len(), Algorithm::ALL.len() * Residency::ALONE.len());
    assert_eq!(description.max_mac_input, 1024);
    assert_eq!(description.manufacturer, "IBM");
    assert!(device.describe().unwrap().is_as(&description));

    // 2. What it says it can, it can (the other test makes them all); what it says it cannot, it refuses by that name.
    for ability in &description.abilities {
        let known = [SIGNERS.as_slice(), &MACS, &OPENERS];
        let able =
            ability.residency == Residency::Wrapped && known.iter().any(|some| some.contains(&ability.algorithm));
        assert_eq!(ability.refusal.is_none(), able, "{ability:?}");
        if let Some(refusal) = &ability.refusal {
            let spec = KeySpec {
                id: KeyId::random().unwrap(),
                version: Version::FIRST,
                algorithm: ability.algorithm,
                residency: ability.residency,
                pcrs: None,
            };
            let fault = device.generate(&spec).unwrap_err();
            assert_eq!((fault.class, &fault.text), (Class::Unsupported, refusal));
        }
    }

    // 3. Input of the wrong form never reaches the TPM.
    let signer = Signer::make(&mut *device, Algorithm::EcdsaP256);
    let (mac, _) = make(&mut *device, Algorithm::HmacSha256);
    for length in [0, 31, 33, 48, 64, 65] {
        assert_eq!(device.sign(&signer.key, &vec![1; length]).unwrap_err().class, Class::Refused);
    }
    let long = device.mac(&mac, &[0; 1025]).unwrap_err();
    assert_eq!(long.class, Class::Refused);
    assert!(long.text.contains("1024"), "{long}");
    assert_eq!(device.sign(&mac, &[1; 32]).unwrap_err().class, Class::Refused);
    assert_eq!(device.mac(&signer.key, b"m").unwrap_err().class, Class::Refused);
    let resident = KeyRef { locator: Locator::Resident, ..signer.key.clone() };
    assert_eq!(device.sign(&resident, &[1; 32]).unwrap_err().class, Class::Unsupported);
    assert_eq!(device.random(1025).unwrap_err().class, Class::Refused);
    signer.check(&mut *device);
}

#[test]
fn random_bytes_come_in_any_length_and_differ() {
    for sessions in MODES {
        let tpm = Swtpm::start();
        let driver = tpm::open(&tpm.settings(sessions), None).unwrap();
        let mut device = driver.session().unwrap();
        for length in [0, 1, 32, 33, 64, 65, 1024] {
            assert_eq!(device.random(length).unwrap().expose().len(), length);
        }
        assert_ne!(device.random(32).unwrap().expose(), device.random(32).unwrap().expose());
    }
}

#[test]
fn keys_survive_restarts_of_the_tpm_and_of_the_driver() {
    for sessions in MODES {
        let mut tpm = Swtpm::start();
        let (driver, identity) = enrolled(&tpm, sessions);
        let mut device = driver.session().unwrap();
        let signers: Vec<_> = SIGNERS.iter().take(4).map(|one| Signer::make(&mut *device, *one)).collect();
        let (mac, _) = make(&mut *device, Algorithm::Aes256GcmDerived);
        let tag = device.mac(&mac, b"m").unwrap();

        // 1. An orderly end and a new driver.
        drop(device);
        driver.shutdown();
        drop(driver);
        tpm.terminate();
        tpm.restart();
        let driver = tpm::open(&tpm.settings(sessions), Some(&identity)).unwrap();
        let mut device = driver.session().unwrap();
        signers.iter().for_each(|signer| signer.check(&mut *device));
        assert_eq!(device.mac(&mac, b"m").unwrap(), tag);

        // 2. A restart between two commands, and again, under each operation in turn.
        tpm.restart();
        signers.iter().for_each(|signer| signer.check(&mut *device));
        tpm.restart();
        assert_eq!(device.mac(&mac, b"m").unwrap(), tag);
        tpm.restart();
        assert_eq!(device.random(40).unwrap().expose().len(), 40);
        tpm.restart();
        Signer::make(&mut *device, Algorithm::EcdsaP256).check(&mut *device);
        tpm.restart();
        device.destroy(&mac).unwrap();
        let verifier = Verifier::new(Algorithm::EcdsaP256, &identity.sentinel_public).unwrap();
        let health = device.health(&[3; 32]).unwrap();
        assert!(verifier.verifies(&[3; 32], &health.signature));
        assert_eq!(health.warning, None);
    }
}

#[test]
fn a_tpm_that_is_away_is_gone_until_it_is_back() {
    for sessions in MODES {
        let mut tpm = Swtpm::start();
        let (driver, _) = enrolled(&tpm, sessions);
        let mut device = driver.session().unwrap();
        let signer = Signer::make(&mut *device, Algorithm::EcdsaP256);
        tpm.kill();
        for _ in 0..3 {
            let fault = device.sign(&signer.key, &[1; 32]).unwrap_err();
            assert_eq!(fault.class, Class::DeviceGone, "{fault}");
            assert_eq!(device.health(&[1; 32]).unwrap_err().class, Class::DeviceGone);
        }
        tpm.restart();
        signer.check(&mut *device);
    }
}

#[test]
fn another_tpm_is_refused() {
    for sessions in MODES {
        let (mut first, second) = (Swtpm::start(), Swtpm::start());
        let (driver, identity) = enrolled(&first, sessions);
        let mut device = driver.session().unwrap();
        let signer = Signer::make(&mut *device, Algorithm::EcdsaP256);

        // 1. At the start.
        let fault = tpm::open(&second.settings(sessions), Some(&identity)).unwrap_err();
        assert_eq!(fault.class, Class::DeviceGone);
        assert!(fault.text.contains("another TPM") && fault.hint.is_some(), "{fault:?}");

        // 2. A key of the first on the second, which has its own identity.
        let (stranger, _) = enrolled(&second, sessions);
        let fault = stranger.session().unwrap().sign(&signer.key, &[1; 32]).unwrap_err();
        assert_eq!(fault.class, Class::KeyGone, "{fault}");
        let unproven = tpm::open(&second.settings(sessions), None).unwrap();
        let fault = unproven.session().unwrap().sign(&signer.key, &[1; 32]).unwrap_err();
        assert_eq!(fault.class, Class::DeviceGone, "{fault}");

        // 3. In the middle of work: the first is cleared while it is away, which makes it another TPM.
        tool(&first, Path::new("/"), "tpm2_clear");
        first.restart();
        assert_eq!(device.sign(&signer.key, &[1; 32]).unwrap_err().class, Class::DeviceGone);
        assert_eq!(device.health(&[1; 32]).unwrap_err().class, Class::DeviceGone);
    }
}

#[test]
fn kills_in_the_middle_of_commands_never_give_a_wrong_answer() {
    for sessions in MODES {
        let mut tpm = Swtpm::start();
        let (driver, _) = enrolled(&tpm, sessions);
        let mut device = driver.session().unwrap();
        let signers: Vec<_> = (0..3).map(|_| Signer::make(&mut *device, Algorithm::EcdsaP256)).collect();
        let digest = Algorithm::EcdsaP256.hash().unwrap().digest(b"m");
        let over = AtomicBool::new(false);
        let (mut signed, mut refused) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..30 {
                    let wait = getrandom::u32().unwrap() % 30_000;
                    swtpm::pause(Duration::from_micros(wait.into()));
                    tpm.restart();
                }
                over.store(true, Ordering::SeqCst);
            });
            for signer in signers.iter().cycle() {
                match device.sign(&signer.key, &digest) {
                    Ok(signature) => {
                        assert!(signer.verifier.verifies(b"m", &signature), "a signature by another key");
                        signed += 1;
                    }
                    Err(fault) => {
                        assert!(matches!(fault.class, Class::DeviceGone | Class::Retry), "{fault}");
                        refused += 1;
                    }
                }
                if over.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        println!("sessions {sessions}: {signed} signed, {refused} refused");
        signers.iter().for_each(|signer| signer.check(&mut *device));
        assert_eq!(lockout_counter(&tpm), 0);
    }
}

/// After a restart, a handle of the first driver stands for a key of the second. With a password and no care, "sign
/// with A" gives a good signature by B.
#[test]
fn a_handle_that_stands_for_another_key_is_never_used() {
    for sessions in MODES {
        let mut tpm = Swtpm::start();
        let (first, identity) = enrolled(&tpm, sessions);
        let mut first = first.session().unwrap();
        let a = Signer::make(&mut *first, Algorithm::EcdsaP256);
        let (mac_a, _) = make(&mut *first, Algorithm::HmacSha256);
        let tag_a = first.mac(&mac_a, b"m").unwrap();
        let second = tpm::open(&tpm.settings(sessions), Some(&identity)).unwrap();
        let mut second = second.session().unwrap();
        let b = Signer::make(&mut *second, Algorithm::EcdsaP256);
        let (mac_b, _) = make(&mut *second, Algorithm::HmacSha256);
        let tag_b = second.mac(&mac_b, b"m").unwrap();

        // 1. Restart with the first driver's handles cached, let the second load its keys into the same places.
        for _ in 0..3 {
            a.check(&mut *first);
            assert_eq!(first.mac(&mac_a, b"m").unwrap(), tag_a);
            tpm.restart();
            b.check(&mut *second);
            assert_eq!(second.mac(&mac_b, b"m").unwrap(), tag_b);
            assert_eq!(first.mac(&mac_a, b"m").unwrap(), tag_a);
            a.check(&mut *first);
        }

        // 2. Without a restart, the two flush each other's keys all the time.
        for _ in 0..10 {
            a.check(&mut *first);
            b.check(&mut *second);
            assert_eq!(first.mac(&mac_a, b"m").unwrap(), tag_a);
            assert_eq!(second.mac(&mac_b, b"m").unwrap(), tag_b);
        }
    }
}

/// A stranger that fills the TPM after a restart: a storage key in the place of ours, a key that counts wrong passwords
/// in the place of our key. Dropping it ends its connection and flushes its keys.
fn stranger(tpm: &Swtpm) -> tss_esapi::Context {
    let mut context = tss_esapi::Context::new(tpm.settings(false).tcti.parse().unwrap()).unwrap();
    let (cipher, bits) = (SymmetricDefinitionObject::AES_128_CFB, RsaKeyBits::Rsa2048);
    let storage = create_restricted_decryption_rsa_public(cipher, bits, RsaExponent::default()).unwrap();
    let scheme = EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256));
    let signing = create_unrestricted_signing_ecc_public(scheme, EccCurve::NistP256).unwrap();
    context.set_sessions((Some(AuthSession::Password), None, None));
    context.create_primary(Hierarchy::Owner, storage, None, None, None, None).unwrap();
    let password = Some(Auth::try_from(b"a stranger's".as_slice()).unwrap());
    context.create_primary(Hierarchy::Owner, signing, password, None, None, None).unwrap();
    context
}

#[test]
fn a_strangers_key_in_the_place_of_ours_is_not_tried() {
    for sessions in MODES {
        let mut tpm = Swtpm::start();
        let (driver, identity) = enrolled(&tpm, sessions);
        let mut device = driver.session().unwrap();
        let signer = Signer::make(&mut *device, Algorithm::EcdsaP256);

        // 1. No password is tried on a key that counts wrong ones.
        for _ in 0..4 {
            signer.check(&mut *device);
            tpm.restart();
            let stranger = stranger(&tpm);
            signer.check(&mut *device);
            drop(stranger);
        }
        assert_eq!(lockout_counter(&tpm), 0);

        // 2. No key is made under a storage key that is not ours.
        signer.check(&mut *device);
        tpm.restart();
        let stranger = stranger(&tpm);
        let made = Signer::make(&mut *device, Algorithm::EcdsaP256);
        drop(stranger);
        tpm.restart();
        let again = tpm::open(&tpm.settings(sessions), Some(&identity)).unwrap();
        made.check(&mut *again.session().unwrap());
    }
}

#[test]
fn more_keys_than_the_tpm_has_places_take_turns() {
    for sessions in MODES {
        let tpm = Swtpm::start();
        let (driver, _) = enrolled(&tpm, sessions);
        let mut device = driver.session().unwrap();
        let signers: Vec<_> = (0..6).map(|_| Signer::make(&mut *device, Algorithm::EcdsaP256)).collect();
        for _ in 0..3 {
            signers.iter().for_each(|signer| signer.check(&mut *device));
        }
        assert!(device.health(&[0; 32]).unwrap().loaded <= 3);
        for signer in &signers {
            device.forget(signer.key.id, signer.key.version).unwrap();
            signer.check(&mut *device);
            device.destroy(&signer.key).unwrap();
            device.destroy(&signer.key).unwrap();
        }
        assert!(device.inventory().unwrap().keys.is_empty());
    }
}

#[test]
fn unclean_stops_never_lead_to_lockout() {
    for sessions in MODES {
        let mut tpm = Swtpm::start();
        let (driver, _) = enrolled(&tpm, sessions);
        let mut device = driver.session().unwrap();
        let signer = Signer::make(&mut *device, Algorithm::EcdsaP256);
        for _ in 0..4 {
            signer.check(&mut *device);
            tpm.kill();
            tpm.restart();
        }
        signer.check(&mut *device);
        assert_eq!(lockout_counter(&tpm), 0);
    }
}

#[test]
fn a_tampered_record_is_never_used() {
    for sessions in MODES {
        let tpm = Swtpm::start();
        let (driver, _) = enrolled(&tpm, sessions);
        let mut device = driver.session().unwrap();
        let good = Signer::make(&mut *device, Algorithm::EcdsaP256);
        let other = Signer::make(&mut *device, Algorithm::EcdsaP256);
        let Locator::Tpm { parent, public, private, auth } = &good.key.locator else { panic!("a blob") };
        let Locator::Tpm { public: public2, private: private2, .. } = &other.key.locator else { panic!("a blob") };
        let with = |public: &[u8], private: &[u8], auth: &[u8]| KeyRef {
            locator: Locator::Tpm {
                parent: parent.clone(),
                public: public.to_vec(),
                private: private.to_vec(),
                auth: SecretBytes::new(auth.to_vec()),
            },
            ..good.key.clone()
        };

        // 1. Each byte of the blobs that is turned, one at a time, while the good key is loaded under the same id.
        let mut broken = Vec::new();
        let step = if sessions { 9 } else { 1 };
        for place in (0..public.len()).step_by(step) {
            let mut public = public.clone();
            public[place] ^= 1;
            broken.push(with(&public, private, auth.expose()));
        }
        for place in (0..private.len()).step_by(step) {
            let mut private = private.clone();
            private[place] ^= 0x80;
            broken.push(with(public, &private, auth.expose()));
        }
        // 2. Halves of two keys, blobs cut short or too long, a wrong authorisation value, another algorithm.
        broken.push(with(public, private2, auth.expose()));
        broken.push(with(public2, private, auth.expose()));
        broken.push(with(&public[..public.len() - 1], private, auth.expose()));
        broken.push(with(public, &[private.as_slice(), &[0]].concat(), auth.expose()));
        broken.push(with(b"", b"", auth.expose()));
        broken.push(with(public, private, &[1; 32]));
        broken.push(with(public, private, &[1; 4096]));
        for key in &broken {
            good.check(&mut *device);
            let fault = device.sign(key, &[1; 32]).unwrap_err();
            assert!(matches!(fault.class, Class::KeyDamaged | Class::KeyGone), "{fault}");
            assert!(!format!("{fault:?}").contains(&hex::encode(auth.expose())));
        }
        let taken_for_rsa = KeyRef { algorithm: Algorithm::Rsa2048Pss, ..good.key.clone() };
        assert_eq!(device.sign(&taken_for_rsa, &[1; 32]).unwrap_err().class, Class::KeyDamaged);
        good.check(&mut *device);
        assert_eq!(lockout_counter(&tpm), 0);
    }
}

#[test]
fn a_broken_wire_costs_time_and_nothing_else() {
    const LOCKOUT: u32 = 0x921;
    const RETRY: u32 = 0x922;
    const NV_RATE: u32 = 0x920;
    const FAILURE: u32 = 0x101;
    for sessions in MODES {
        let tpm = Swtpm::start();
        let wire = Proxy::before(&tpm);
        let settings = wire.settings(sessions);
        let identity = tpm::open(&settings, None).unwrap().enrol().unwrap();
        let driver = tpm::open(&settings, Some(&identity)).unwrap();
        let mut device = driver.session().unwrap();
        let signer = Signer::make(&mut *device, Algorithm::EcdsaP256);
        let (mac, _) = make(&mut *device, Algorithm::HmacSha256);
        let tag = device.mac(&mac, b"m").unwrap();

        // 1. A busy TPM is asked again (libtss2 by itself asks five times), and not for ever.
        wire.plan(tpm_proxy::SIGN, Mishap::Answer(RETRY), 8);
        signer.check(&mut *device);
        assert_eq!(wire.left(), 0);
        wire.plan(tpm_proxy::SIGN, Mishap::Answer(NV_RATE), 2);
        signer.check(&mut *device);
        wire.plan(tpm_proxy::SIGN, Mishap::Answer(RETRY), 1000);
        assert_eq!(device.sign(&signer.key, &[1; 32]).unwrap_err().class, Class::Busy);
        wire.clear();
        signer.check(&mut *device);

        // 2. A lost answer, a TPM that failed once.
        wire.plan(tpm_proxy::SIGN, Mishap::HangUp, 1);
        signer.check(&mut *device);
        wire.plan(tpm_proxy::SIGN, Mishap::Answer(FAILURE), 1);
        signer.check(&mut *device);
        wire.plan(tpm_proxy::CREATE, Mishap::HangUp, 1);
        Signer::make(&mut *device, Algorithm::EcdsaP256).check(&mut *device);
        assert_eq!(wire.left(), 0);

        // 3. Lockout cannot be about a key of ours, so it is asked once more with fresh handles, then said with its
        // mend.
        wire.plan(tpm_proxy::SIGN, Mishap::Answer(LOCKOUT), 1);
        signer.check(&mut *device);
        wire.plan(tpm_proxy::SIGN, Mishap::Answer(LOCKOUT), 2);
        let fault = device.sign(&signer.key, &[1; 32]).unwrap_err();
        assert_eq!(fault.class, Class::PinLocked);
        assert!(fault.hint.unwrap().contains("tpm2_dictionarylockout"));
        assert_eq!(fault.code.unwrap(), "TPM_RC_LOCKOUT 0x921");
        signer.check(&mut *device);

        // 4. An altered HMAC is noticed in a session; without one only the check of the front would.
        wire.plan(tpm_proxy::HMAC, Mishap::Flip(if sessions { 70 } else { 10 }), 1);
        assert_eq!(device.mac(&mac, b"m").unwrap() == tag, sessions);
        assert_eq!(device.mac(&mac, b"m").unwrap(), tag);
        assert_eq!(wire.left(), 0);

        // 5. What it can do is found out of its answers alone.
        for mishap in [Mishap::Answer(RETRY), Mishap::Answer(FAILURE), Mishap::HangUp] {
            let whole = device.describe().unwrap();
            let again = tpm::open(&settings, Some(&identity)).unwrap();
            let mut asked = again.session().unwrap();
            wire.plan(tpm_proxy::CREATE, mishap, 1000);
            let fault = asked.describe().unwrap_err();
            assert!(matches!(fault.class, Class::Busy | Class::DeviceGone), "{mishap:?}: {fault}");
            wire.clear();
            assert!(asked.describe().unwrap().is_as(&whole));
        }
    }
}

/// The judge is tpm2-tools: it derives the same storage key from its description, and makes keys by ours and by weaker
/// templates.
#[test]
fn only_keys_of_the_strict_template_are_used() {
    const STRICT: &str = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda";
    let tpm = Swtpm::start();
    let (driver, identity) = enrolled(&tpm, false);
    let mut device = driver.session().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();

    // 1. The storage key is what its documentation says.
    let primary =
        format!("tpm2_createprimary -C o -G ecc256:aes256cfb -g sha256 -a {STRICT}|restricted|decrypt -c parent");
    tool(&tpm, folder, "tpm2_flushcontext -t");
    tool(&tpm, folder, &primary);
    tool(&tpm, folder, "tpm2_readpublic -c parent -n name");
    let parent = fs::read(folder.join("name")).unwrap();
    assert_eq!(hex::encode(&parent), identity.serial);

    // 2. A key of the strict template is used, whoever made it; a key that could do more is not.
    let auth = "31".repeat(32);
    for (kind, attributes, taken) in [
        ("ecc256:ecdsa-sha256", format!("{STRICT}|sign"), true),
        ("ecc256:ecdsa-sha256", format!("{STRICT}|sign").replace("|noda", ""), false),
        ("ecc256:ecdsa-sha256", format!("{STRICT}|sign").replace("fixedtpm|fixedparent|", ""), false),
        ("ecc256:ecdsa-sha256", format!("{STRICT}|sign|adminwithpolicy"), false),
        ("ecc256:ecdsa-sha384", format!("{STRICT}|sign"), false),
        ("ecc256", format!("{STRICT}|sign"), false),
        ("ecc256", format!("{STRICT}|sign|decrypt"), false),
        ("ecc384:ecdsa-sha256", format!("{STRICT}|sign"), false),
        ("rsa2048:rsassa-sha256", format!("{STRICT}|sign"), false),
    ] {
        tool(&tpm, folder, "tpm2_flushcontext -t");
        tool(
            &tpm,
            folder,
            &format!("tpm2_create -C parent -G {kind} -a {attributes} -p hex:{auth} -u public -r private"),
        );
        tool(&tpm, folder, "tpm2_flushcontext -t");
        let key = KeyRef {
            id: KeyId::random().unwrap(),
            version: Version::FIRST,
            algorithm: Algorithm::EcdsaP256,
            locator: Locator::Tpm {
                parent: parent.clone(),
                public: fs::read(folder.join("public")).unwrap(),
                private: fs::read(folder.join("private")).unwrap(),
                auth: SecretBytes::new(vec![0x31; 32]),
            },
        };
        match device.sign(&key, &[1; 32]) {
            Ok(signature) => assert!(taken && signature.len() == 64, "{kind} {attributes}"),
            Err(fault) => assert!(!taken && fault.class == Class::KeyDamaged, "{kind} {attributes}: {fault}"),
        }
    }
}

fn bound(device: &mut dyn Device, algorithm: Algorithm, pcrs: &str) -> (KeyRef, Option<PublicKey>) {
    let (id, version, pcrs) = (KeyId::random().unwrap(), Version::FIRST, Some(pcrs.parse().unwrap()));
    let made = device.generate(&KeySpec { id, version, algorithm, residency: Residency::Wrapped, pcrs }).unwrap();
    (KeyRef { id, version, algorithm, locator: made.locator }, made.public)
}

/// The same key with other values, blobs or both.
fn rebound(key: &KeyRef, change: impl FnOnce(&mut Vec<u8>, &mut PcrValues)) -> KeyRef {
    let Locator::TpmBound { parent, mut public, private, auth, mut pcrs } = key.locator.duplicate() else { panic!() };
    change(&mut public, &mut pcrs);
    KeyRef { locator: Locator::TpmBound { parent, public, private, auth, pcrs }, ..key.clone() }
}

/// The judge is tpm2-tools: it makes the policy of the same registers in a trial session.
#[test]
fn a_key_that_is_bound_to_pcrs_works_while_they_stand_and_only_then() {
    for sessions in MODES {
        let mut tpm = Swtpm::start();
        let (driver, _) = enrolled(&tpm, sessions);
        let mut device = driver.session().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let digest = Algorithm::EcdsaP256.hash().unwrap().digest(b"m");

        // 1. The policy, of each bank, of one register and of several.
        tool(&tpm, folder, &format!("tpm2_pcrextend 7:sha256={}", "77".repeat(32)));
        for pcrs in ["sha256:7", "sha256:0,2,7", "sha256:0,1,2,3,4,5,6,7", "sha384:7,11", "sha512:23"] {
            let (key, _) = bound(&mut *device, Algorithm::HmacSha256, pcrs);
            for line in [
                "tpm2_startauthsession -S trial",
                &format!("tpm2_policypcr -S trial -l {pcrs}"),
                "tpm2_policyauthvalue -S trial -L policy",
                "tpm2_flushcontext trial",
            ] {
                tool(&tpm, folder, line);
            }
            let policy = fs::read(folder.join("policy")).unwrap();
            let values = key.locator.pcrs().unwrap();
            assert_eq!(hex::encode(values.policy()), hex::encode(&policy), "{pcrs}");
            assert_eq!(values, &device.pcrs(pcrs.parse().unwrap()).unwrap());
            // Attributes and policy of the public area, as the library writes it.
            let Locator::TpmBound { public, .. } = &key.locator else { panic!("not bound") };
            assert_eq!(hex::encode(&public[6..10]), "00040432", "{pcrs}");
            assert_eq!(public[12..44], policy, "{pcrs}");
            device.mac(&key, b"m").unwrap();
        }

        // The judge counts to eight; one answer of a TPM does too.
        let all: Vec<_> = (0..24).map(|register: u8| register.to_string()).collect();
        let (key, _) = bound(&mut *device, Algorithm::HmacSha256, &format!("sha256:{}", all.join(",")));
        device.mac(&key, b"m").unwrap();

        // 2. Keys of each role, beside one that is not bound, more than there are places.
        let free = Signer::make(&mut *device, Algorithm::EcdsaP256);
        let (signer, public) = bound(&mut *device, Algorithm::EcdsaP256, "sha256:7,14");
        let verifier = Verifier::new(Algorithm::EcdsaP256, &public.unwrap()).unwrap();
        let (mac, _) = bound(&mut *device, Algorithm::HmacSha256, "sha256:14");
        let (agrees, public) = bound(&mut *device, Algorithm::HpkeP256, "sha256:14");
        let known = Agreed::with(&public.unwrap()).unwrap();
        let tag = device.mac(&mac, b"m").unwrap();
        let all_work = |device: &mut dyn Device| {
            assert!(verifier.verifies(b"m", &device.sign(&signer, &digest).unwrap()));
            assert_eq!(device.mac(&mac, b"m").unwrap(), tag);
            assert_eq!(device.agree(&agrees, &known.point).unwrap(), known.secret.expose());
            free.check(device);
        };
        (0..3).for_each(|_| all_work(&mut *device));

        // 3. The record says what it is bound to. One that says otherwise, or a policy that was altered, is no key of ours.
        let others = device.pcrs("sha256:7,15".parse().unwrap()).unwrap();
        for wrong in [
            rebound(&signer, |_, pcrs| *pcrs = others.clone()),
            rebound(&signer, |public, _| public[12] ^= 1),
            rebound(&signer, |public, _| public[9] ^= 0x40),
        ] {
            assert_eq!(device.sign(&wrong, &digest).unwrap_err().class, Class::KeyDamaged);
        }
        let Locator::TpmBound { parent, public, private, auth, .. } = signer.locator.duplicate() else { panic!() };
        let loose = KeyRef { locator: Locator::Tpm { parent, public, private, auth }, ..signer.clone() };
        assert_eq!(device.sign(&loose, &digest).unwrap_err().class, Class::KeyDamaged);
        all_work(&mut *device);

        // 4. Extended: refused by name, as often as one asks, with no key of others in the way and no count of wrong passwords.
        tool(&tpm, folder, &format!("tpm2_pcrextend 14:sha256={}", "e4".repeat(32)));
        for _ in 0..6 {
            for fault in [
                device.sign(&signer, &digest).unwrap_err(),
                device.mac(&mac, b"m").unwrap_err(),
                device.agree(&agrees, &known.point).unwrap_err(),
            ] {
                assert_eq!(fault.class, Class::PcrsChanged, "{fault:?}");
                assert!(fault.text.ends_with("something else stands in 14"), "{fault}");
                assert!(fault.hint.unwrap().contains("rotate"));
            }
            free.check(&mut *device);
        }
        assert_eq!(lockout_counter(&tpm), 0);
        assert_eq!(tool(&tpm, folder, "tpm2_getcap handles-loaded-session").lines().count(), usize::from(sessions));

        // 5. Bound anew, to what stands there now; the old one is good again after a restart, and the new one not.
        let (anew, public) = bound(&mut *device, Algorithm::EcdsaP256, "sha256:7,14");
        let judge = Verifier::new(Algorithm::EcdsaP256, &public.unwrap()).unwrap();
        assert!(judge.verifies(b"m", &device.sign(&anew, &digest).unwrap()));
        tpm.restart();
        tool(&tpm, folder, &format!("tpm2_pcrextend 7:sha256={}", "77".repeat(32)));
        all_work(&mut *device);
        let fault = device.sign(&anew, &digest).unwrap_err();
        assert_eq!(fault.class, Class::PcrsChanged, "{fault:?}");
        all_work(&mut *device);
    }
}

/// Whatever extends some register, the kernel's measurements at each start of a program above all, lets a policy session begin again.
#[test]
fn registers_that_others_extend_all_the_time_do_not_stop_a_bound_key() {
    const PCR_CHANGED: u32 = 0x128;
    for sessions in MODES {
        let tpm = Swtpm::start();
        let wire = Proxy::before(&tpm);
        let driver = tpm::open(&wire.settings(sessions), None).unwrap();
        let mut device = driver.session().unwrap();
        let (key, _) = bound(&mut *device, Algorithm::HmacSha256, "sha256:7");
        let tag = device.mac(&key, b"m").unwrap();
        wire.plan(tpm_proxy::HMAC, Mishap::Answer(PCR_CHANGED), 4);
        assert_eq!(device.mac(&key, b"m").unwrap(), tag);
        assert_eq!(wire.left(), 0);
        wire.plan(tpm_proxy::HMAC, Mishap::Answer(PCR_CHANGED), 1000);
        assert_eq!(device.mac(&key, b"m").unwrap_err().class, Class::Retry);
        wire.clear();
        assert_eq!(device.mac(&key, b"m").unwrap(), tag);
        // A bank that this TPM does not keep is refused by name, and no key is made.
        let missing: Pcrs = "sha512:7".parse().unwrap();
        if let Err(fault) = device.pcrs(missing) {
            assert_eq!(fault.class, Class::Unsupported, "{fault}");
        }
    }
}

#[test]
fn shutdown_is_the_last_the_tpm_hears() {
    for sessions in MODES {
        let tpm = Swtpm::start();
        let wire = Proxy::before(&tpm);
        let driver = tpm::open(&wire.settings(sessions), None).unwrap();
        let mut device = driver.session().unwrap();
        let signer = Signer::make(&mut *device, Algorithm::EcdsaP256);
        signer.check(&mut *device);
        drop(device);
        driver.shutdown();
        drop(driver);
        assert_eq!(wire.last(), tpm_proxy::SHUTDOWN);
        for kind in ["transient", "loaded-session", "saved-session"] {
            assert_eq!(tool(&tpm, Path::new("/"), &format!("tpm2_getcap handles-{kind}")), "");
        }
    }
}

/// The driver has no time limit of its own: the worker's supervisor has.
#[test]
fn a_frozen_tpm_blocks_until_it_thaws() {
    let tpm = Swtpm::start();
    let (driver, _) = enrolled(&tpm, true);
    let mut device = driver.session().unwrap();
    let signer = Signer::make(&mut *device, Algorithm::EcdsaP256);
    tpm.freeze();
    let asked = thread::spawn(move || signer.check(&mut *driver.session().unwrap()));
    swtpm::pause(Duration::from_millis(300));
    assert!(!asked.is_finished());
    tpm.thaw();
    asked.join().unwrap();
}

#[test]
fn several_devices_take_turns() {
    let tpm = Swtpm::start();
    let (driver, _) = enrolled(&tpm, false);
    assert_eq!(driver.lanes(), 0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut device = driver.session().unwrap();
                let signer = Signer::make(&mut *device, Algorithm::EcdsaP256);
                (0..10).for_each(|_| signer.check(&mut *device));
            });
        }
    });
}

#[test]
fn an_unenrolled_or_misdescribed_tpm_is_a_matter_of_configuration() {
    let tpm = Swtpm::start();
    let (_, identity) = enrolled(&tpm, false);
    let mut device = tpm::open(&tpm.settings(false), None).unwrap().session().unwrap();
    assert_eq!(device.health(&[0; 32]).unwrap_err().class, Class::Config);
    let wrong = Identity { serial: "no hex".to_owned(), ..identity };
    assert_eq!(tpm::open(&tpm.settings(false), Some(&wrong)).unwrap_err().class, Class::Config);
    let mut settings = tpm.settings(false);
    settings.tcti = "tabrmd:bus_type=session".to_owned();
    assert_eq!(tpm::open(&settings, None).unwrap_err().class, Class::Config);
    tool(&tpm, Path::new("/"), "tpm2_changeauth -c owner password");
    let fault = tpm::open(&tpm.settings(false), None).unwrap_err();
    assert_eq!((fault.class, fault.text.contains("password")), (Class::Config, true));
    tool(&tpm, Path::new("/"), "tpm2_changeauth --object-context owner --object-auth password");
    assert!(tpm::open(&tpm.settings(false), None).is_ok());
}
