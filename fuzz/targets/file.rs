//! An encrypted file, from anywhere.
#![no_main]

use signet::file::{Header, decrypt};
use signet::types::SecretBytes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut reader = bytes;
    if let Ok(header) = Header::read(&mut reader) {
        let key = SecretBytes::new(vec![7; 32]);
        let _ = header.wrapped();
        assert!(decrypt(&header, &mut reader, &mut std::io::sink(), &key, &mut |_| {}).is_err());
    }
});
