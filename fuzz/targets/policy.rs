//! The text of a policy, as whoever may write policies sends it.
#![no_main]

use signet::policy::validate;
use signet::types::Name;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let name = Name::new("fuzz").unwrap();
    let _ = validate(&name, text);
});
