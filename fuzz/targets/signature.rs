//! Signatures that clients send to be verified, and messages that they send to be signed.
#![no_main]

use signet::signing::domain::{allows, allows_digest};
use signet::types::{Algorithm, Domain, SignatureFormat};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for algorithm in Algorithm::ALL.iter().copied() {
        for format in [SignatureFormat::Raw, SignatureFormat::Der, SignatureFormat::Jws] {
            if let Ok(raw) = format.decode(algorithm, bytes) {
                // One signature has one spelling.
                assert_eq!(format.encode(algorithm, &raw).unwrap(), bytes);
            }
        }
    }
    for domain in Domain::ALL.iter().copied() {
        let _ = allows(domain, Algorithm::EcdsaP256, bytes);
        let _ = allows_digest(domain, Algorithm::EcdsaP256, bytes);
    }
});
