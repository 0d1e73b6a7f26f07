//! The boundary to the file format: what `signet file` needs of it.

use std::io::{Read, Write};

use crate::error::{Error, Kind, Result};
use crate::types::SecretBytes;

/// The header of an encrypted file.
#[derive(Debug)]
pub(super) struct Header {
    wrapped: Vec<u8>,
}

impl Header {
    /// The wrapped data key.
    pub(super) fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }
}

/// Encrypts all of `reader`; `progress` is told how many bytes were read so far.
pub(super) fn encrypt(
    _reader: &mut dyn Read,
    _writer: &mut dyn Write,
    _data_key: &SecretBytes,
    _wrapped: &[u8],
    _progress: &mut dyn FnMut(u64),
) -> Result<()> {
    Err(missing())
}

/// Reads the header and leaves `reader` behind it.
pub(super) fn read_header(_reader: &mut dyn Read) -> Result<Header> {
    Err(missing())
}

/// Decrypts the rest of `reader`, and fails where any part of it is missing or changed.
pub(super) fn decrypt(
    _header: Header,
    _reader: &mut dyn Read,
    _writer: &mut dyn Write,
    _data_key: &SecretBytes,
    _progress: &mut dyn FnMut(u64),
) -> Result<()> {
    Err(missing())
}

fn missing() -> Error {
    Error::new(Kind::Unsupported, "this build has no file format").hint("wrap files of up to 64 KiB by signet wrap")
}
