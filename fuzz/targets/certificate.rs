//! A certificate: as a client's, whose chain was verified and whose names were written by whoever made it; and as anybody's.
#![no_main]

use signet::auth::certificate::{Claims, Match};
use signet::types::Algorithm;
use signet::x509::Certificate;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(claims) = Claims::read(bytes) {
        let _ = (claims.spiffe(), claims.dns(), claims.hash());
    }
    if let Ok(certificate) = Certificate::parse(bytes) {
        assert_eq!(certificate.der(), bytes);
        certificate.sans().iter().for_each(|name| name.check().unwrap());
        let _ = certificate.issuer_view(Algorithm::EcdsaP256);
        let _ = certificate.verify(certificate.public_key());
    }
    let _ = serde_json::from_slice::<Match>(bytes);
});
