//! Attestations, bundles and the files of a challenge, from anywhere. Nothing that holds is made here but by its own key.
#![no_main]

use signet::attestation::endorsement::{Answer, Challenge, Endorsement, Kept, Trust};
use signet::attestation::{Attestation, Expected, tpm};
use signet::bundle::{Artifact, Bundle};
use signet::types::PublicKey;

libfuzzer_sys::fuzz_target!(|input: (&[u8], &[u8])| {
    let (bytes, other) = input;
    if let Ok(read) = Attestation::parse(bytes) {
        assert_eq!(read.encode().unwrap().as_bytes(), bytes);
        let own = Expected::of(PublicKey::from_der(read.attestation_key.0.clone()));
        let _ = read.verify(&own);
        assert!(read.verify(&Expected::of(PublicKey::from_der(other.to_vec()))).is_err());
    }
    if let Ok(bundle) = Bundle::parse(bytes) {
        let key = PublicKey::from_der(other.to_vec());
        let artifact = Artifact { sha256: [0; 32], input: other.to_vec() };
        assert!(bundle.verify(&artifact, &Expected::of(key.clone()), &key).is_err());
    }
    let _ = tpm::attestation_key(bytes);
    let _ = Endorsement::verify(bytes, &[other.to_vec()], &[other.to_vec()], jiff::Timestamp::UNIX_EPOCH);
    let _ = (Challenge::parse(bytes), Answer::parse(bytes), Kept::parse(bytes), Trust::parse(bytes));
});
