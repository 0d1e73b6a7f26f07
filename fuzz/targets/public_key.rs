//! A public key, as it stands in the store and as a device gives it.
#![no_main]

use signet::types::{Algorithm, Curve, PublicKey, Verifier};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let key = PublicKey::from_der(bytes.to_vec());
    let _ = (key.raw(), key.to_pem());
    for algorithm in Algorithm::ALL {
        let _ = Verifier::new(*algorithm, &key);
    }
    for curve in [Curve::P256, Curve::P384, Curve::P521] {
        let _ = PublicKey::ec(curve, bytes);
    }
    let _ = PublicKey::ed25519(bytes);
    let _ = PublicKey::ml_dsa_65(bytes);
    let _ = PublicKey::ml_kem_768(bytes);
    let (modulus, exponent) = bytes.split_at(bytes.len() / 2);
    let _ = PublicKey::rsa(modulus, exponent);
});
