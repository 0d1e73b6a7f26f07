//! Bearer tokens: how they are drawn, written, recognised and remembered.
//!
//! ```text
//! sgt_ || 43 digits: 32 random bytes || 6 digits: CRC-32 of the 43 digits                                   53 characters
//! ```
//!
//! Both numbers are big-endian in base 62 (`0-9A-Za-z`), padded with `0`. The prefix and the checksum (IEEE, as in zlib)
//! let secret scanners find tokens and tell them from look-alikes without asking anybody; neither makes them secure, the
//! 256 random bits do.
//!
//! The store holds [`TokenHash`], never the token: who reads it cannot use it. A slow hash is for passwords that people
//! choose; 256 random bits cannot be guessed. Logs and the audit name a token by the [`TokenHash::id`], a hash of that
//! hash. The token itself leaves only by [`Token::expose`].

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Kind, Result};
use crate::types::{SecretBytes, lower_hex, same, sha256};

/// What every token begins with.
pub const PREFIX: &str = "sgt_";
/// The length of every token, in bytes.
pub const LENGTH: usize = PREFIX.len() + SECRET_DIGITS + CHECK_DIGITS;

const SECRET_BYTES: usize = 32;
const SECRET_DIGITS: usize = 43;
const CHECK_DIGITS: usize = 6;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Keeps this hash apart from every other SHA-256 of the same bytes.
const HASH_DOMAIN: &[u8] = b"signet token v1\0";

/// A bearer token: zeroed on drop, no `Clone`, no `==`, no `Display`; `Debug` prints its public id.
pub struct Token(SecretBytes);

impl Token {
    /// Draws a new one from the operating system's generator.
    ///
    /// # Errors
    /// [`Kind::Internal`] where the generator fails.
    pub fn generate() -> Result<Self> {
        let mut bytes = vec![0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        Ok(Self(SecretBytes::new(bytes)))
    }

    /// Reads what a client sent. Only the one spelling that [`Self::expose`] writes is accepted, nothing is trimmed.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] with the same sentence whatever is wrong: length, prefix, alphabet, range or checksum.
    pub fn parse(text: &str) -> Result<Self> {
        Self::read(text).ok_or_else(|| {
            Error::new(Kind::Unauthenticated, "the bearer token is not a valid token")
                .hint("check that it was copied whole")
        })
    }

    fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(PREFIX).filter(|_| text.len() == LENGTH)?;
        let (secret, check) = digits.as_bytes().split_at_checked(SECRET_DIGITS)?;
        let bytes = decode(secret);
        let expected = checksum(secret);
        // Both are looked at in every case, so that the time does not tell which of them was wrong.
        same(&expected, check).then_some(())?;
        bytes.map(Self)
    }

    /// The text, for the one answer that hands it out. It is zeroed when it is dropped.
    #[must_use]
    pub fn expose(&self) -> Zeroizing<String> {
        let secret = encode(self.0.expose());
        let mut text = String::with_capacity(LENGTH);
        text.push_str(PREFIX);
        text.extend(secret.iter().chain(&checksum(secret.as_ref())).map(|digit| char::from(*digit)));
        Zeroizing::new(text)
    }

    /// What the store knows it by.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(sha256(&[HASH_DOMAIN, self.0.expose()]))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.hash().id())
    }
}

/// SHA-256 of a token, under a prefix of its own. Not a secret, but nothing for logs: they name the [`Self::id`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// Takes the bytes of a record.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public id: the first 10 bytes of SHA-256 of the hash, in hex. It leads back to neither hash nor token.
    #[must_use]
    pub fn id(&self) -> String {
        hex::encode(sha256(&[&self.0]).get(..10).unwrap_or_default())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenHash(id {})", self.id())
    }
}

impl Serialize for TokenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for TokenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom("the hash of a token is 64 hexadecimal digits, in lower case");
        lower_hex(&text).map(Self).ok_or_else(wrong)
    }
}

fn checksum(secret: &[u8]) -> [u8; CHECK_DIGITS] {
    let mut rest = u64::from(crc32fast::hash(secret));
    let mut digits = [0; CHECK_DIGITS];
    for place in digits.iter_mut().rev() {
        *place = digit(rest % 62);
        rest /= 62;
    }
    digits
}

/// 32 bytes in base 62: division of the whole number by 62, digit by digit from the last.
fn encode(bytes: &[u8]) -> Zeroizing<[u8; SECRET_DIGITS]> {
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut digits = Zeroizing::new([0; SECRET_DIGITS]);
    for place in digits.iter_mut().rev() {
        let mut remainder = 0;
        for byte in number.iter_mut() {
            let value = remainder * 256 + u32::from(*byte);
            *byte = low_byte(value / 62);
            remainder = value % 62;
        }
        *place = digit(remainder.into());
    }
    digits
}

/// The inverse of [`encode`]; nothing for other characters and for numbers beyond 32 bytes.
fn decode(digits: &[u8]) -> Option<SecretBytes> {
    let mut number = vec![0; SECRET_BYTES];
    let mut good = true;
    for digit in digits {
        let value = DIGITS.iter().zip(0_u32..).find_map(|(known, value)| (known == digit).then_some(value));
        good &= value.is_some();
        let mut carry = value.unwrap_or(0);
        for byte in number.iter_mut().rev() {
            let sum = u32::from(*byte) * 62 + carry;
            *byte = low_byte(sum);
            carry = sum / 256;
        }
        good &= carry == 0;
    }
    if !good {
        number.zeroize();
    }
    good.then(|| SecretBytes::new(number))
}

/// The lowest eight bits.
const fn low_byte(value: u32) -> u8 {
    let [.., low] = value.to_be_bytes();
    low
}

/// The digit of a value below 62; larger ones do not occur.
fn digit(value: u64) -> u8 {
    usize::try_from(value).ok().and_then(|value| DIGITS.get(value)).copied().unwrap_or(b'0')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(bytes: [u8; 32]) -> Token {
        Token(SecretBytes::new(bytes.to_vec()))
    }

    #[test]
    fn known_tokens_are_written_for_ever_like_this() {
        let zero = token([0; 32]);
        assert_eq!(zero.expose().as_str(), "sgt_00000000000000000000000000000000000000000002CZclj");
        let most = token([255; 32]);
        assert_eq!(most.expose().as_str(), "sgt_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp13sRzl1");
        assert_eq!(zero.hash().id(), "251ae8fe52a40eb89a17");
    }

    #[test]
    fn numbers_beyond_32_bytes_are_refused() {
        let digits = "z".repeat(SECRET_DIGITS);
        let check = String::from_utf8(checksum(digits.as_bytes()).to_vec()).unwrap();
        assert!(Token::parse(&format!("{PREFIX}{digits}{check}")).is_err());
    }

    #[test]
    fn whatever_is_wrong_the_answer_is_the_same() {
        let good = token([7; 32]).expose();
        let wrong_check = format!("{}{}", &good[..LENGTH - 1], if good.ends_with('0') { '1' } else { '0' });
        let wrong = [
            "",
            "sgt_",
            "x",
            &good[1..],
            &good[..LENGTH - 1],
            &format!("{} ", *good),
            &format!(" {}", *good),
            &good.to_uppercase(),
            &good.replace("sgt_", "SGT_"),
            &wrong_check,
            &format!("sgt_{}", "é".repeat(24)),
            &format!("{}_{}", &good[..10], &good[11..]),
        ];
        for text in wrong {
            let error = Token::parse(text).unwrap_err();
            assert_eq!(error.kind(), Kind::Unauthenticated);
            assert_eq!(error.chain(), "the bearer token is not a valid token");
        }
    }

    #[test]
    fn two_tokens_differ() {
        assert_ne!(Token::generate().unwrap().hash(), Token::generate().unwrap().hash());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: [u8; 32]) {
            let token = token(bytes);
            let text = token.expose();
            prop_assert_eq!(text.len(), LENGTH);
            prop_assert!(text[PREFIX.len()..].bytes().all(|b| b.is_ascii_alphanumeric()));
            let read = Token::parse(&text).unwrap();
            prop_assert_eq!(read.0.expose(), &bytes[..]);
            prop_assert_eq!(read.hash(), token.hash());
        }

        #[test]
        fn one_wrong_character_is_noticed(bytes: [u8; 32], at in PREFIX.len()..LENGTH, to in 0..62_usize) {
            let good = token(bytes).expose();
            let mut text = good.as_bytes().to_vec();
            prop_assume!(text[at] != DIGITS[to]);
            text[at] = DIGITS[to];
            prop_assert!(Token::parse(std::str::from_utf8(&text).unwrap()).is_err());
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,80}") {
            prop_assert!(Token::parse(&text).is_err());
        }

        #[test]
        fn nothing_prints_the_token(bytes: [u8; 32]) {
            let token = token(bytes);
            let text = token.expose();
            let shown = format!("{token:?} {:#?} {:?} {}", token, token.hash(), token.hash().id());
            prop_assert!(!shown.contains(&text[PREFIX.len()..PREFIX.len() + 8]));
            prop_assert!(!shown.contains(&hex::encode(bytes)[..16]));
            prop_assert!(!shown.contains(&hex::encode(token.hash().as_bytes())[..16]));
        }

        #[test]
        fn hashes_are_stored_as_hex(bytes: [u8; 32]) {
            let hash = TokenHash::from_bytes(bytes);
            let text = serde_json::to_string(&hash).unwrap();
            prop_assert_eq!(&text, &format!("\"{}\"", hex::encode(bytes)));
            prop_assert_eq!(serde_json::from_str::<TokenHash>(&text).unwrap(), hash);
        }
    }
}
