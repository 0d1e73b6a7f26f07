//! What a client of EST sends: a label, an Authorization header, a body.
#![no_main]

use signet::types::EstLabel;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let (label, value, body) = (parts.next(), parts.next(), parts.next());
    if let Some(label) = label.and_then(|label| std::str::from_utf8(label).ok())
        && let Ok(parsed) = label.parse::<EstLabel>()
    {
        assert_eq!(parsed.to_string().parse::<EstLabel>().ok(), Some(parsed));
    }
    signet::api::est::read(value.unwrap_or_default(), body.unwrap_or_default());
});
