//! A signed head of the log: read from disk, and from whoever hands one in.
#![no_main]

use signet::audit::{Head, public_key_from_pem};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(head) = Head::parse(text) {
        // What was read is the only way to write it.
        assert_eq!(head.note(), text);
        let _ = head.signers();
    }
    let _ = public_key_from_pem(text);
});
