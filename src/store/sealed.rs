//! Records that the database cannot read, change, swap or relabel.
//!
//! [`Sealed`] wraps a driver and seals each value under a one-time key derived from the storage key:
//!
//! ```text
//! record = magic "SR" (2) || version 1 (1) || salt (32) || AES-256-GCM(subkey, nonce 0, aad, value) || tag (16)
//! subkey = HKDF-Expand-SHA-256(storage key, "signet record v1" || salt, 32)
//! aad    = magic (2) || version (1) || revision (8, big-endian) || path
//! ```
//!
//! The salt is fresh and 256 bits, so each subkey seals one record: the zero nonce is safe and no number of records is too
//! many. The path and the revision are those that the driver keeps beside the value: a record that was moved to another
//! path, swapped with another or given another revision does not open, and is [`Kind::Tampered`].
//!
//! Rows of certificates are not sealed but tagged: see [`super::certificates`].
//!
//! What it does not see: a whole older record put back with the older revision it had, and a record that was removed. Those
//! are for the map root of the ledger.

use std::collections::VecDeque;
use std::fmt;
use std::path::Path;
use std::thread::ScopedJoinHandle;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use aws_lc_rs::hmac;
use zeroize::{Zeroize, Zeroizing};

use super::certificates::{Counts, Cursor, Ending, Found, Page, Row, Search, Serial, Tag};
use super::{Change, Encode, Record, Store};
use crate::error::{Error, Kind, Result};
use crate::types::{IssuerName, SecretBytes, Version};

const MAGIC: &[u8; 3] = b"SR\x01";
const SALT: usize = 32;
const LABEL: &[u8] = b"signet record v1";
const ROW_LABEL: &[u8] = b"signet certificate row v1";
const ANCHOR_LABEL: &[u8] = b"signet anchor v1";

/// The key that seals all records: random, wrapped by the device while at rest. Here it is on a page of its own that is never
/// written to swap space ([`mlock(2)`](https://man7.org/linux/man-pages/man2/mlock.2.html)), and zeroed when dropped.
pub struct StorageKey {
    /// Before the bytes, so that it is let go first. `None` where the system locks no memory for us.
    _lock: Option<region::LockGuard>,
    alone: Box<Alone>,
}

/// Memory that nothing else is on.
#[repr(align(4096))]
struct Alone([u8; StorageKey::LEN]);

impl StorageKey {
    /// Its length in bytes.
    pub const LEN: usize = 32;

    /// Room for one, all zeros.
    fn room() -> Self {
        let alone = Box::new(Alone([0; Self::LEN]));
        let lock = region::lock(alone.0.as_ptr(), Self::LEN);
        if let Err(error) = &lock {
            tracing::warn!(%error, "the key of the store may get into swap space: allow a page of locked memory (ulimit -l, or LimitMEMLOCK=)");
        }
        Self { _lock: lock.ok(), alone }
    }

    const fn bytes(&self) -> &[u8; Self::LEN] {
        &self.alone.0
    }

    /// Draws a new one from the operating system's generator.
    ///
    /// # Errors
    /// [`Kind::Internal`] where the generator fails.
    pub fn generate() -> Result<Self> {
        let mut key = Self::room();
        getrandom::fill(&mut key.alone.0).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        Ok(key)
    }

    /// Its bytes, to be wrapped by the device.
    #[must_use]
    pub fn to_secret(&self) -> SecretBytes {
        SecretBytes::new(self.bytes().to_vec())
    }

    /// The key of the tags of public rows.
    fn row_key(&self) -> Result<hmac::Key> {
        let mut bytes = Zeroizing::new([0; 32]);
        Prk::new_less_safe(HKDF_SHA256, self.bytes())
            .expand(&[ROW_LABEL], Length)
            .and_then(|okm| okm.fill(bytes.as_mut_slice()))
            .map_err(|_| Error::internal("the key of public rows cannot be derived"))?;
        Ok(hmac::Key::new(hmac::HMAC_SHA256, bytes.as_slice()))
    }

    /// What an anchor in `device` must be told: the same for ever, and only who has this key knows it. 32 bytes, the last of
    /// which is not zero.
    ///
    /// # Errors
    /// [`Kind::Internal`] where it cannot be derived.
    pub fn anchor_auth(&self, device: &str) -> Result<SecretBytes> {
        let mut bytes = Zeroizing::new([0; 32]);
        Prk::new_less_safe(HKDF_SHA256, self.bytes())
            .expand(&[ANCHOR_LABEL, device.as_bytes()], Length)
            .and_then(|okm| okm.fill(bytes.as_mut_slice()))
            .map_err(|_| Error::internal("the authorisation value of an anchor cannot be derived"))?;
        // A TPM takes zeros at the end for nothing.
        if let Some(last) = bytes.last_mut() {
            *last |= 1;
        }
        Ok(SecretBytes::new(bytes.to_vec()))
    }

    /// A key for the one record that has this salt.
    fn subkey(&self, salt: &[u8]) -> Result<LessSafeKey> {
        let mut bytes = Zeroizing::new([0; 32]);
        Prk::new_less_safe(HKDF_SHA256, self.bytes())
            .expand(&[LABEL, salt], Length)
            .and_then(|okm| okm.fill(bytes.as_mut_slice()))
            .and_then(|()| UnboundKey::new(&AES_256_GCM, bytes.as_slice()))
            .map(LessSafeKey::new)
            .map_err(|_| Error::internal("the key of a record cannot be derived"))
    }
}

impl TryFrom<SecretBytes> for StorageKey {
    type Error = Error;
    fn try_from(bytes: SecretBytes) -> Result<Self> {
        if bytes.expose().len() != Self::LEN {
            return Err(Error::new(Kind::Invalid, format!("a storage key has {} bytes", Self::LEN)));
        }
        let mut key = Self::room();
        key.alone.0.copy_from_slice(bytes.expose());
        Ok(key)
    }
}

impl Drop for StorageKey {
    fn drop(&mut self) {
        self.alone.0.zeroize();
    }
}

impl fmt::Debug for StorageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorageKey")
    }
}

/// A driver whose values are sealed: see the module.
#[derive(Debug)]
pub struct Sealed<S> {
    driver: S,
    key: StorageKey,
}

/// The tag of a public row.
fn tag(key: &hmac::Key, row: &[u8]) -> Tag {
    let mut tag = Tag::default();
    tag.copy_from_slice(hmac::sign(key, row).as_ref());
    tag
}

/// A certificate whose tags hold.
fn vouch(key: &hmac::Key, found: Found) -> Result<Found> {
    let Found { reservation, end } = &found;
    let own = hmac::verify(key, &reservation.to_bytes(), &reservation.tag).is_ok();
    let ended = end.as_ref().is_none_or(|end| hmac::verify(key, &end.to_bytes(), &end.tag).is_ok());
    if own && ended { Ok(found) } else { Err(changed(&found)) }
}

fn changed(found: &Found) -> Error {
    let serial = hex::encode(found.reservation.serial);
    Error::new(Kind::Tampered, format!("the row of certificate {serial} was changed in the database"))
        .hint("restore it from a backup")
}

impl<S: Store> Sealed<S> {
    /// Seals and opens the records of `driver` under `key`.
    #[must_use]
    pub const fn new(driver: S, key: StorageKey) -> Self {
        Self { driver, key }
    }

    fn open(&self, record: Record) -> Result<Record> {
        let value = open(&self.key, &record.path, record.revision, &record.value).ok_or_else(|| {
            Error::new(Kind::Tampered, format!("the record {} does not open under its seal", record.path))
                .hint("it was changed in the database, or another key sealed it: restore it from a backup")
        })?;
        Ok(Record { value, ..record })
    }

    fn open_all(&self, records: Vec<Record>) -> Result<Vec<Record>> {
        records.into_iter().map(|record| self.open(record)).collect()
    }
}

/// So many records of a visit are opened by whoever visits; the others so many at a time, by so many threads.
const FEW: usize = 2000;
const CHUNK: usize = 1000;
const OPENERS: usize = 2;

/// Waits for a chunk, and shows what was in it.
fn show(
    opened: Option<ScopedJoinHandle<'_, Result<Vec<Record>>>>,
    look: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<()> {
    let Some(opened) = opened else { return Ok(()) };
    let records = opened.join().map_err(|_| Error::internal("a thread that opens records panicked"))?;
    records?.into_iter().try_for_each(look)
}

impl<S: Store> Store for Sealed<S> {
    fn get(&self, path: &str) -> Result<Option<Record>> {
        self.driver.get(path)?.map(|record| self.open(record)).transpose()
    }

    /// Where there are many records, threads of their own open them: a start looks at all there are.
    fn visit(&self, prefix: &str, look: &mut dyn FnMut(Record) -> Result<()>) -> Result<()> {
        std::thread::scope(|scope| {
            let (mut seen, mut chunk, mut opening) = (0, Vec::new(), VecDeque::new());
            self.driver.visit(prefix, &mut |record| {
                seen += 1;
                if seen <= FEW {
                    return look(self.open(record)?);
                }
                chunk.push(record);
                if chunk.len() == CHUNK {
                    let chunk = std::mem::take(&mut chunk);
                    opening.push_back(scope.spawn(move || self.open_all(chunk)));
                }
                if opening.len() <= OPENERS {
                    return Ok(());
                }
                show(opening.pop_front(), look)
            })?;
            while !opening.is_empty() {
                show(opening.pop_front(), look)?;
            }
            self.open_all(chunk)?.into_iter().try_for_each(look)
        })
    }

    fn paths(&self, prefix: &str) -> Result<Vec<String>> {
        self.driver.paths(prefix)
    }

    fn commit_with(&self, changes: &[Change], rows: &[Row], encode: &Encode<'_>) -> Result<u64> {
        let mut rows = rows.to_vec();
        if !rows.is_empty() {
            let key = self.key.row_key()?;
            for row in &mut rows {
                let tag = tag(&key, &row.to_bytes());
                *row.tag_mut() = tag;
            }
        }
        self.driver.commit_with(changes, &rows, &|path, revision, value| {
            let mut value = encode(path, revision, value)?;
            let sealed = seal(&self.key, path, revision, &value);
            value.zeroize();
            sealed
        })
    }

    /// The copy is sealed as the database is.
    fn copy_to(&self, file: &Path) -> Result<()> {
        self.driver.copy_to(file)
    }

    fn certificate(&self, serial: &Serial) -> Result<Option<Found>> {
        let key = self.key.row_key()?;
        self.driver.certificate(serial)?.map(|found| vouch(&key, found)).transpose()
    }

    fn certificates(&self, search: &Search) -> Result<Page> {
        let (page, key) = (self.driver.certificates(search)?, self.key.row_key()?);
        // The indexes are there to find by; what counts is in the row.
        let vouch = |found| {
            vouch(&key, found).and_then(|one| if search.fits(&one.reservation) { Ok(one) } else { Err(changed(&one)) })
        };
        Ok(Page { found: page.found.into_iter().map(vouch).collect::<Result<_>>()?, next: page.next })
    }

    fn open_reservations(&self) -> Result<Vec<Found>> {
        let key = self.key.row_key()?;
        self.driver.open_reservations()?.into_iter().map(|found| vouch(&key, found)).collect()
    }

    fn last_end(&self, issuer: &IssuerName, version: Version, but: &str) -> Result<Option<jiff::Timestamp>> {
        self.driver.last_end(issuer, version, but)
    }

    fn endings(&self, after: Cursor, until: jiff::Timestamp, limit: usize) -> Result<Vec<Ending>> {
        self.driver.endings(after, until, limit)
    }

    fn count_certificates(&self) -> Result<Counts> {
        self.driver.count_certificates()
    }
}

fn seal(key: &StorageKey, path: &str, revision: u64, value: &[u8]) -> Result<Vec<u8>> {
    let mut salt = [0; SALT];
    getrandom::fill(&mut salt).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
    let mut body = value.to_vec();
    key.subkey(&salt)?
        .seal_in_place_append_tag(zero_nonce(), Aad::from(bound_to(path, revision)), &mut body)
        .map_err(|_| Error::internal("a record cannot be sealed"))?;
    Ok([MAGIC.as_slice(), &salt, &body].concat())
}

fn open(key: &StorageKey, path: &str, revision: u64, sealed: &[u8]) -> Option<Vec<u8>> {
    let (salt, body) = sealed.strip_prefix(MAGIC)?.split_at_checked(SALT)?;
    let mut body = body.to_vec();
    let aad = Aad::from(bound_to(path, revision));
    let length = key.subkey(salt).ok()?.open_in_place(zero_nonce(), aad, &mut body).ok()?.len();
    body.truncate(length);
    Some(body)
}

fn bound_to(path: &str, revision: u64) -> Vec<u8> {
    [MAGIC.as_slice(), &revision.to_be_bytes(), path.as_bytes()].concat()
}

/// Safe because no subkey is used twice.
fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        32
    }
}
