//! What ACME clients sign: any account may send any of it.
#![no_main]

use signet::api::acme::read_body;
use signet::service::acme::Identifier;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    read_body(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        for kind in ["dns", "ip"] {
            if let Ok(name) = Identifier::parse(kind, text) {
                // One name has one spelling, but for the case of letters.
                assert_eq!(name.to_string(), text.to_ascii_lowercase());
                assert_eq!(Identifier::parse(kind, &name.to_string()).ok(), Some(name));
            }
        }
    }
});
