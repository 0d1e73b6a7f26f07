//! The configuration: an operator writes it, and a mistake in it must never be a crash.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = signet::config::Config::parse(text);
});
