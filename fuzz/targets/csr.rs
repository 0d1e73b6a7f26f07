//! A request for a certificate: what a stranger wrote, with and without the proof that would keep most of it out.
#![no_main]

use signet::x509::{Csr, San, Subject};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(csr) = Csr::parse(bytes) {
        // What was read is what came.
        assert!(bytes.starts_with(b"-----") || csr.der() == bytes);
    }
    if let Ok(csr) = Csr::parse_without_proof(bytes) {
        // Whatever was let in can be written, and has one spelling.
        assert_eq!(Subject::from_der(&csr.subject().to_der().unwrap()).unwrap(), *csr.subject());
        for name in csr.sans() {
            assert_eq!(name.to_string().parse::<San>().unwrap(), *name);
        }
        let _ = (csr.lone_common_name(), format!("{csr:?}"));
    }
});
