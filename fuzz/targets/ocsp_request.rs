//! An OCSP request: anybody may send one.
#![no_main]

use signet::x509::ocsp::{CertificateId, MAX_CERTIFICATES, MAX_NONCE, Request};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = Request::parse(bytes) {
        assert!((1..=MAX_CERTIFICATES).contains(&request.certificates.len()));
        assert!(request.nonce.is_none_or(|nonce| (1..=MAX_NONCE).contains(&nonce.len())));
        for one in &request.certificates {
            if let Some(serial) = one.serial() {
                assert_eq!(CertificateId::new(one.issuer().clone(), &serial), *one);
            }
        }
    }
});
