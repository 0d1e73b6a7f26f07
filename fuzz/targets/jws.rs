//! A signed object, before anybody is known: the first thing that a stranger's bytes meet.
#![no_main]

use signet::jose::{Jws, KeyReference};
use signet::types::SecretBytes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(jws) = Jws::parse(bytes) {
        if let KeyReference::Own(key) = &jws.key {
            let _ = jws.verify(key);
            assert_eq!(key.thumbprint.len(), 43);
        }
        let _ = jws.verify_code(&SecretBytes::new(vec![7; 32]));
    }
});
