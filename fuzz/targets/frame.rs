//! The worker socket: a worker runs a vendor's library, so the front trusts none of its bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| signet::device::fuzz_frames(bytes));
