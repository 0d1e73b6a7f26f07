//! The PKCS#11 driver on SoftHSM: each test in a process of its own, with a token of its own.

#[path = "support/softhsm.rs"]
#[macro_use]
mod softhsm;

use signet::device::pkcs11::{self, Token};
use signet::device::{
    Class, Device, Driver, Fault, Identity, KeyRef, KeySpec, Locator, PinSource, Pkcs11Settings, TokenSelector,
};
use signet::types::{Algorithm, KeyId, Purpose, Residency, Verifier, Version};
use softhsm::SoftHsm;

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
        let spec = KeySpec { id: KeyId::random().unwrap(), version: Version::FIRST, algorithm, residency };
        let made = self.device.generate(&spec)?;
        let verifier = made.public.map(|public| Verifier::new(algorithm, &public).unwrap());
        Ok((KeyRef { id: spec.id, version: spec.version, algorithm, locator: made.locator }, verifier))
    }

    fn sign(&mut self, key: &KeyRef) -> Result<Vec<u8>, Fault> {
        let digest = key.algorithm.hash().map(|hash| hash.digest(MESSAGE));
        self.device.sign(key, digest.as_deref().unwrap_or(MESSAGE))
    }

    /// Uses a key in the way that fits it, and judges the result.
    fn works(&mut self, key: &KeyRef, verifier: Option<&Verifier>) {
        match verifier {
            Some(verifier) => assert!(verifier.verifies(MESSAGE, &self.sign(key).unwrap()), "{}", key.algorithm),
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

softhsm_test!(every_algorithm_works_in_both_residencies, |hsm| {
    let mut bench = Bench::open(&hsm.settings());
    let abilities = bench.device.describe().unwrap().abilities;
    assert_eq!(abilities.len(), 2 * Algorithm::ALL.len());
    for algorithm in quick() {
        for residency in Residency::ALL.iter().copied() {
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
    // The one thing that SoftHSM 2.6.1 refuses.
    let refused: Vec<_> = abilities.iter().filter(|ability| ability.refusal.is_some()).collect();
    assert!(refused.iter().all(|one| one.algorithm == Algorithm::Ed25519 && one.residency == Residency::Wrapped));
});
