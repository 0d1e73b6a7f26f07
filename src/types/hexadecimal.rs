//! Bytes in hexadecimal digits, in one spelling.

/// Exactly `N` bytes from `2 * N` digits in lower case: one value has one spelling, so that texts can be compared.
#[must_use]
pub fn lower_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    (!text.bytes().any(|byte| byte.is_ascii_uppercase())).then_some(bytes)
}
