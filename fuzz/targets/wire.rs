//! The bodies of requests.
#![no_main]

use serde_json::from_slice;
use signet::wire;

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let _ = from_slice::<wire::CreateKey>(body);
    let _ = from_slice::<wire::UpdateKey>(body);
    let _ = from_slice::<wire::RotateKey>(body);
    let _ = from_slice::<wire::ScheduleDestruction>(body);
    let _ = from_slice::<wire::Batch<wire::Wrap>>(body);
    let _ = from_slice::<wire::Batch<wire::Unwrap>>(body);
    let _ = from_slice::<wire::Batch<wire::Rewrap>>(body);
    let _ = from_slice::<wire::Batch<wire::GenerateDataKey>>(body);
    let _ = from_slice::<wire::Batch<wire::Sign>>(body);
    let _ = from_slice::<wire::Verify>(body);
    let _ = from_slice::<wire::MakeMac>(body);
    let _ = from_slice::<wire::VerifyMac>(body);
    let _ = from_slice::<wire::CreateToken>(body);
    let _ = from_slice::<wire::Identity>(body);
    let _ = from_slice::<wire::Policy>(body);
    let _ = from_slice::<wire::Explain>(body);
    let _ = from_slice::<wire::Announce>(body);
});
