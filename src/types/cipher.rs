//! What a key is asked that encrypts by itself.
//!
//! ```text
//! direction (1) || nonce (12) || length of aad (2) || aad || data                    big-endian
//! ```

const NONCE: usize = 12;

/// One call of AES-256-GCM. A tag of 128 bits stands at the end of what was encrypted.
#[derive(Clone, Copy)]
pub struct CipherCall<'a> {
    /// Never used for another text by the same key.
    pub nonce: &'a [u8; NONCE],
    /// What is authenticated beside the data.
    pub aad: &'a [u8],
    /// What is to be encrypted, or was.
    pub data: &'a [u8],
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Decrypts, and judges the tag.
    Decrypt,
    /// Encrypts, and adds the tag.
    Encrypt,
}

impl<'a> CipherCall<'a> {
    /// The length of a nonce in bytes: the one that GCM takes as it is.
    pub const NONCE: usize = NONCE;
    /// The length of a tag in bytes: the longest.
    pub const TAG: usize = 16;

    /// The bytes of the module's drawing. What is authenticated is short: a header and a hash.
    #[must_use]
    pub fn encode(&self, direction: Direction) -> Vec<u8> {
        let Self { nonce, aad, data } = *self;
        let direction = match direction {
            Direction::Decrypt => 0,
            Direction::Encrypt => 1,
        };
        let length = u16::try_from(aad.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&[direction], nonce.as_slice(), &length, aad, data].concat()
    }

    /// Reads these bytes.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<(Direction, Self)> {
        let ([direction], rest) = bytes.split_first_chunk()?;
        let direction = match direction {
            0 => Direction::Decrypt,
            1 => Direction::Encrypt,
            _ => return None,
        };
        let (nonce, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (aad, data) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        Some((direction, Self { nonce, aad, data }))
    }
}

impl std::fmt::Debug for CipherCall<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CipherCall({} bytes)", self.data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_reads_as_it_was_written() {
        let call = CipherCall { nonce: &[7; 12], aad: b"beside", data: b"within" };
        for direction in [Direction::Encrypt, Direction::Decrypt] {
            let bytes = call.encode(direction);
            let (read, same) = CipherCall::parse(&bytes).unwrap();
            assert_eq!((read, same.nonce, same.aad, same.data), (direction, &[7; 12], &b"beside"[..], &b"within"[..]));
            assert_eq!(bytes.len(), 15 + 12);
            for length in 0..15 + 6 {
                assert!(CipherCall::parse(&bytes[..length]).is_none(), "{length}");
            }
        }
        assert!(CipherCall::parse(&[2; 40]).is_none());
    }
}
