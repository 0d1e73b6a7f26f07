//! What a name server answers, or who pretends to be one.
#![no_main]

use signet::validation::Message;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = Message::parse(bytes);
});
