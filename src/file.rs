//! Files of any size, encrypted where they are: only a data key of 32 bytes goes to the service and back.
//!
//! ```text
//! file       = header || chunk 0 || chunk 1 || … || last chunk
//! header     = magic "SGNF" (4) || version 1 (1) || length of wrapped (2) || wrapped data key || salt (32)      big-endian
//! key || prefix = HKDF-Expand-SHA-256(data key, "signet file v1" || SHA-256(header), 32 + 7)
//! chunk      = AES-256-GCM(key, nonce, up to 65536 bytes) || tag (16)
//! nonce      = prefix (7) || number of the chunk (4) || 1 for the last chunk, 0 for all others (1)
//! ```
//!
//! This is STREAM ([Hoang, Reyhanitabar, Rogaway, Vizár 2015](https://eprint.iacr.org/2015/189), section 5): chunks that are
//! left out, swapped, repeated, cut off or appended do not open. All chunks but the last are full, and the last is empty only in
//! an empty file, so a plaintext has one number of chunks. The header is bound by the key: changed, nothing opens. The salt makes
//! the key differ even if a caller uses one data key for several files.
//!
//! Memory is constant: two chunks. A chunk is written out once its own tag holds, so **what [`decrypt`] wrote before it failed
//! is the true beginning of a file whose end is missing or wrong**: it must not be taken for the file. [`write_whole`] keeps it
//! from anybody's sight until all is well.
//!
//! Limits: 2^32 chunks, 256 TiB. The length of the plaintext can be seen.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use aead_stream::{NewStream, StreamBE32, StreamPrimitive};
use aes_gcm::Aes256Gcm;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};
use crate::types::{SecretBytes, sha256};

/// The plaintext of each chunk but the last, in bytes.
pub const CHUNK: usize = 64 * 1024;

/// The longest wrapped data key, in bytes.
pub const MAX_WRAPPED: usize = 4096;

const MAGIC: &[u8; 4] = b"SGNF";
const VERSION: u8 = 1;
const SALT: usize = 32;
const TAG: usize = 16;
const KEY: usize = 32;
const PREFIX: usize = 7;
const LABEL: &[u8] = b"signet file v1";

/// The beginning of an encrypted file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    wrapped: Vec<u8>,
    salt: [u8; SALT],
}

impl Header {
    /// Reads the header, and leaves `reader` at the first chunk. Nothing is authenticated until [`decrypt`].
    ///
    /// # Errors
    /// [`Kind::Invalid`] for another kind of file or one that ends here, [`Kind::Unsupported`] for a newer version,
    /// [`Kind::Unavailable`] where it cannot be read.
    pub fn read(reader: &mut dyn Read) -> Result<Self> {
        let start: [u8; MAGIC.len() + 3] = read_array(reader)?;
        let [magic @ .., version, high, low] = start;
        if magic != *MAGIC {
            return Err(not_ours());
        }
        if version != VERSION {
            return Err(Error::new(
                Kind::Unsupported,
                format!("the file has format {version}, this program knows {VERSION}"),
            )
            .hint("use a newer signet"));
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_WRAPPED {
            return Err(not_ours());
        }
        let mut wrapped = vec![0; length];
        reader.read_exact(&mut wrapped).map_err(unreadable)?;
        Ok(Self { wrapped, salt: read_array(reader)? })
    }

    /// The wrapped data key, for the service to unwrap.
    #[must_use]
    pub fn wrapped(&self) -> &[u8] {
        &self.wrapped
    }

    fn fresh(wrapped: &[u8]) -> Result<Self> {
        if wrapped.len() > MAX_WRAPPED {
            return Err(Error::new(Kind::Limit, format!("a wrapped data key has at most {MAX_WRAPPED} bytes")));
        }
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        Ok(Self { wrapped: wrapped.to_vec(), salt })
    }

    fn encode(&self) -> Result<Vec<u8>> {
        let Self { wrapped, salt } = self;
        let length = u16::try_from(wrapped.len()).map_err(|_| not_ours())?;
        Ok([MAGIC.as_slice(), &[VERSION], &length.to_be_bytes(), wrapped, salt].concat())
    }

    /// The cipher of this file.
    fn stream(&self, data_key: &SecretBytes) -> Result<StreamBE32<Aes256Gcm>> {
        struct Length;
        impl KeyType for Length {
            fn len(&self) -> usize {
                KEY + PREFIX
            }
        }
        if data_key.expose().len() != KEY {
            return Err(Error::new(Kind::Invalid, format!("a data key for files has {KEY} bytes")));
        }
        let mut derived = Zeroizing::new([0; KEY + PREFIX]);
        Prk::new_less_safe(HKDF_SHA256, data_key.expose())
            .expand(&[LABEL, &sha256(&[&self.encode()?])], Length)
            .and_then(|okm| okm.fill(derived.as_mut_slice()))
            .map_err(|_| defect())?;
        let (key, prefix) = derived.split_first_chunk::<KEY>().ok_or_else(defect)?;
        let prefix: &[u8; PREFIX] = prefix.try_into().map_err(|_| defect())?;
        Ok(StreamBE32::new(key.into(), prefix.into()))
    }
}

/// Encrypts all of `reader` under `data_key`, after a header with its `wrapped` form, and answers the length of the plaintext.
/// `progress` is told how many bytes of it are done.
///
/// # Errors
/// [`Kind::Unavailable`] where reading or writing fails, [`Kind::Limit`] past 256 TiB, [`Kind::Invalid`] for a data key of
/// another length than 32 bytes. What was written until then does not open.
pub fn encrypt(
    reader: &mut dyn Read,
    writer: &mut dyn Write,
    data_key: &SecretBytes,
    wrapped: &[u8],
    progress: &mut dyn FnMut(u64),
) -> Result<u64> {
    let header = Header::fresh(wrapped)?;
    let stream = header.stream(data_key)?;
    writer.write_all(&header.encode()?).map_err(unwritable)?;
    each_piece(reader, CHUNK, &mut |number, last, piece| {
        let done = position(number, piece.len());
        stream.encrypt_in_place(number, last, b"", piece).map_err(|_| defect())?;
        writer.write_all(piece).map_err(unwritable)?;
        progress(done);
        Ok(done)
    })
}

/// Decrypts what follows `header` in `reader`, and answers the length of the plaintext. **Until this returns `Ok`, what was
/// written must not be taken for the file**: see the module and [`write_whole`].
///
/// # Errors
/// [`Kind::DoesNotOpen`] for a wrong key and for a file that was changed, cut short or added to; the others as [`encrypt`].
pub fn decrypt(
    header: &Header,
    reader: &mut dyn Read,
    writer: &mut dyn Write,
    data_key: &SecretBytes,
    progress: &mut dyn FnMut(u64),
) -> Result<u64> {
    let stream = header.stream(data_key)?;
    each_piece(reader, CHUNK + TAG, &mut |number, last, piece| {
        if stream.decrypt_in_place(number, last, b"", piece).is_err() {
            return Err(why_not(&stream, number, last, piece));
        }
        if piece.is_empty() && number > 0 {
            return Err(damaged(number));
        }
        writer.write_all(piece).map_err(unwritable)?;
        let done = position(number, piece.len());
        progress(done);
        Ok(done)
    })
}

/// Lets `write` fill an unfinished file in the folder of `path`, and gives it that name only when all went well, durably. The
/// file can be read by its owner alone. Where something stands at `path`, it is replaced if `replace` says so.
///
/// # Errors
/// [`Kind::Conflict`] where something stands at `path`, [`Kind::Unavailable`] where it cannot be written, and those of `write`.
pub fn write_whole<T>(path: &Path, replace: bool, write: impl FnOnce(&mut dyn Write) -> Result<T>) -> Result<T> {
    let here = |e: std::io::Error| {
        if e.kind() == ErrorKind::AlreadyExists {
            Error::new(Kind::Conflict, format!("{} exists already", path.display()))
        } else {
            unwritable(e).context(path.display())
        }
    };
    if !replace && path.symlink_metadata().is_ok() {
        return Err(here(ErrorKind::AlreadyExists.into()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut unfinished = tempfile::Builder::new().prefix(".signet-").tempfile_in(folder).map_err(here)?;
    let done = write(unfinished.as_file_mut())?;
    unfinished.as_file().sync_all().map_err(here)?;
    let named = if replace { unfinished.persist(path) } else { unfinished.persist_noclobber(path) };
    named.map_err(|e| here(e.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(here)?;
    Ok(done)
}

/// What is done to a piece of the input: its number, whether it is the last, and its bytes, in place.
type Turn<'a> = dyn FnMut(u32, bool, &mut Vec<u8>) -> Result<u64> + 'a;

/// Cuts `reader` into pieces of `size` bytes and gives each its turn; the answer is that of the last. Reads one piece ahead,
/// because only the end of the input tells which one is the last. A piece has room for a tag, so that it never moves in memory.
fn each_piece(reader: &mut dyn Read, size: usize, turn: &mut Turn<'_>) -> Result<u64> {
    let buffer = || Zeroizing::new(Vec::with_capacity(size + TAG));
    let (mut piece, mut next) = (buffer(), buffer());
    fill(reader, &mut piece, size)?;
    for number in 0..=u32::MAX {
        next.clear();
        if piece.len() == size {
            fill(reader, &mut next, size)?;
        }
        let last = next.is_empty();
        let done = turn(number, last, &mut piece)?;
        if last {
            return Ok(done);
        }
        std::mem::swap(&mut piece, &mut next);
    }
    Err(Error::new(Kind::Limit, "a file has at most 256 TiB"))
}

/// Reads until `buffer` holds `size` bytes or the input ends.
fn fill(reader: &mut dyn Read, buffer: &mut Vec<u8>, size: usize) -> Result<()> {
    buffer.resize(size, 0);
    let mut filled = 0;
    while let Some(space) = buffer.get_mut(filled..).filter(|space| !space.is_empty()) {
        match reader.read(space) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(unreadable(e)),
        }
    }
    buffer.truncate(filled);
    Ok(())
}

/// How much plaintext is done once chunk `number` is.
fn position(number: u32, length: usize) -> u64 {
    u64::from(number) * CHUNK as u64 + length as u64
}

/// Tells a cut and an addition at a chunk's end from other damage: the chunk opens with the other flag.
fn why_not(stream: &StreamBE32<Aes256Gcm>, number: u32, last: bool, piece: &mut Vec<u8>) -> Error {
    let opens_otherwise = stream.decrypt_in_place(number, !last, b"", piece).is_ok();
    match (opens_otherwise, last) {
        (true, true) => Error::new(Kind::DoesNotOpen, "the file is cut short"),
        (true, false) => Error::new(Kind::DoesNotOpen, "something was added to the file"),
        (false, _) => damaged(number),
    }
}

fn damaged(number: u32) -> Error {
    let at = position(number, 0);
    Error::new(
        Kind::DoesNotOpen,
        format!("the file does not open from byte {at} of its plaintext: wrong key, damaged or cut short"),
    )
}

fn read_array<const N: usize>(reader: &mut dyn Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn unreadable(error: std::io::Error) -> Error {
    if error.kind() == ErrorKind::UnexpectedEof {
        return not_ours();
    }
    Error::new(Kind::Unavailable, "the input cannot be read").because(error)
}

fn unwritable(error: std::io::Error) -> Error {
    Error::new(Kind::Unavailable, "the output cannot be written").because(error)
}

fn not_ours() -> Error {
    Error::new(Kind::Invalid, "this is not a file that signet encrypted, or only its beginning")
}

fn defect() -> Error {
    Error::internal("the cipher of a file")
}
