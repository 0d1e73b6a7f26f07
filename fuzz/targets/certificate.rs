//! A client certificate: its chain was verified, its names were written by whoever made it.
#![no_main]

use signet::auth::certificate::{Claims, Match};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(claims) = Claims::read(bytes) {
        let _ = (claims.spiffe(), claims.dns(), claims.hash());
    }
    let _ = serde_json::from_slice::<Match>(bytes);
});
