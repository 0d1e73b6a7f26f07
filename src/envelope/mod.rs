//! Wrapping: a ciphertext names the key version that opens it.
//!
//! One device call each way: the device's HMAC over header and context gives the key of this one ciphertext, and the rest
//! is done in memory. A wrap is released only after the device key has proved that it is itself; what is unwrapped proves
//! itself by its commitment and its tag.

pub mod format;

use std::collections::BTreeMap;
use std::sync::Arc;

use format::{Header, MAX_PLAINTEXT, OpenFailure};

use crate::admission::Permit;
use crate::error::{Error, Kind, Result};
use crate::keyring::{Key, KeyVersion, Keyring, demand, state};
use crate::types::operation::{Includes, Operation, Unwrap, Wrap};
use crate::types::{Context, KeyName, Purpose, SecretBytes, Version};

/// The shortest and the longest data key, in bytes.
pub const DATA_KEY: std::ops::RangeInclusive<usize> = 16..=64;

/// Wraps and unwraps with the keys of a keyring.
#[derive(Debug)]
pub struct Envelope {
    keyring: Arc<Keyring>,
}

/// What is to be wrapped.
#[derive(Debug)]
pub struct Plain {
    /// The plaintext, up to 64 KiB.
    pub plaintext: SecretBytes,
    /// What must be given again to unwrap it.
    pub context: Context,
}

/// What is to be unwrapped.
#[derive(Debug)]
pub struct Sealed {
    /// The ciphertext.
    pub blob: Vec<u8>,
    /// The context it was wrapped with.
    pub context: Context,
}

/// What was unwrapped.
#[derive(Debug)]
pub struct Opened {
    /// The plaintext.
    pub plaintext: SecretBytes,
    /// The version that opened it.
    pub version: Version,
}

/// What was wrapped, all by one version.
#[derive(Debug)]
pub struct Blobs {
    /// The key.
    pub key: Arc<Key>,
    /// The version.
    pub version: Version,
    /// One blob or reason per item, in order.
    pub results: Vec<Result<Vec<u8>>>,
}

impl Envelope {
    /// Wraps with the keys of `keyring`.
    #[must_use]
    pub const fn new(keyring: Arc<Keyring>) -> Self {
        Self { keyring }
    }

    /// Wraps each item with the version of `name` that protects now.
    ///
    /// # Errors
    /// For all: `State` where no version may protect, `Tampered` where the key did not prove itself, those of counting.
    /// Per item: `Limit` for a plaintext that is too long, and those of the device.
    pub async fn wrap<O: Operation + Includes<Wrap>>(
        &self,
        permit: &Permit<O>,
        name: &KeyName,
        items: Vec<Plain>,
    ) -> Result<Blobs> {
        permit.covers::<Wrap>(name)?;
        demand(&*self.keyring.find(name)?, Purpose::Wrap)?;
        let bytes = items.iter().map(|item| item.plaintext.expose().len()).sum();
        let (key, version) = self.keyring.primary(name, items.len(), bytes).await?;
        let prepared: Vec<_> = items.iter().map(|item| prepare(&key, &version, item)).collect();
        let inputs = prepared.iter().filter_map(|one| one.as_ref().ok().map(|(_, _, input)| input.clone())).collect();
        let mut macs = version.mac(inputs).await?.into_iter();
        let results = prepared
            .into_iter()
            .zip(items)
            .map(|(prepared, item)| {
                let (header, hash, _) = prepared?;
                let ikm = ikm(macs.next())?;
                format::seal(&ikm, &header, &hash, item.plaintext.expose())
            })
            .collect();
        Ok(Blobs { key, version: version.number(), results })
    }

    /// Unwraps each item with the version that its header names.
    ///
    /// # Errors
    /// For all: `NotFound`, `Invalid` for a key of another purpose. Per item: `DoesNotOpen`, one for everything that is wrong
    /// with a ciphertext or its context, with the precise reason as its private cause; `State` where the version may not
    /// open; those of the device.
    pub async fn unwrap<O: Operation + Includes<Unwrap>>(
        &self,
        permit: &Permit<O>,
        name: &KeyName,
        items: Vec<Sealed>,
        allow_compromised: bool,
    ) -> Result<(Arc<Key>, Vec<Result<Opened>>)> {
        permit.covers::<Unwrap>(name)?;
        let key = self.keyring.find(name)?;
        demand(&key, Purpose::Wrap)?;
        let mut results: Vec<Option<Result<Opened>>> = items.iter().map(|_| None).collect();
        // Items of one version go to the device together.
        let mut groups: BTreeMap<Version, Vec<(usize, Header, [u8; 32])>> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            match find_version(&key, item, allow_compromised) {
                Ok(header) => groups.entry(header.version).or_default().push((index, header, item.context.hash())),
                Err(error) => set(&mut results, index, Err(error)),
            }
        }
        for (number, group) in groups {
            let version = key.version(number)?;
            let inputs = group.iter().map(|(_, header, hash)| format::device_input(header, hash)).collect();
            let macs = version.mac_unchecked(inputs).await?;
            for ((index, _, hash), mac) in group.into_iter().zip(macs) {
                let opened = items.get(index).map(|item| open(Some(mac), item, &hash, number));
                set(&mut results, index, opened.unwrap_or_else(|| Err(no_answer())));
            }
        }
        Ok((key, results.into_iter().map(|result| result.unwrap_or_else(|| Err(no_answer()))).collect()))
    }

    /// A random data key of `length` bytes from the operating system's generator.
    ///
    /// # Errors
    /// [`Kind::Invalid`] outside [`DATA_KEY`].
    pub fn data_key(length: usize) -> Result<SecretBytes> {
        if !DATA_KEY.contains(&length) {
            let (shortest, longest) = (DATA_KEY.start(), DATA_KEY.end());
            return Err(Error::new(Kind::Invalid, format!("a data key has {shortest} to {longest} bytes")));
        }
        let mut bytes = vec![0; length];
        getrandom::fill(&mut bytes).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        Ok(SecretBytes::new(bytes))
    }
}

/// The header of a new blob, the hash of its context, and what the device is asked.
fn prepare(key: &Key, version: &KeyVersion, item: &Plain) -> Result<(Header, [u8; 32], Vec<u8>)> {
    if item.plaintext.expose().len() > MAX_PLAINTEXT {
        return Err(Error::new(Kind::Limit, format!("a plaintext has at most {MAX_PLAINTEXT} bytes"))
            .hint("encrypt the data with a data key, and wrap that: `signet file encrypt` does so"));
    }
    let header = Header::fresh(key.record.id, version.number())?;
    let hash = item.context.hash();
    let input = format::device_input(&header, &hash);
    Ok((header, hash, input))
}

/// The header of a blob of this key, whose version may open it.
fn find_version(key: &Key, item: &Sealed, allow_compromised: bool) -> Result<Header> {
    let (header, _) = Header::parse(&item.blob).map_err(does_not_open)?;
    if header.key_id != key.record.id {
        return Err(does_not_open(format!("it names the key {}", header.key_id)));
    }
    let version =
        key.version(header.version).map_err(|_| does_not_open(format!("it names version {}", header.version)))?;
    state::may_open(header.version, version.state(), allow_compromised)?;
    Ok(header)
}

fn open(mac: Option<Result<SecretBytes>>, item: &Sealed, hash: &[u8; 32], version: Version) -> Result<Opened> {
    let ikm = ikm(mac)?;
    let plaintext = format::open(&ikm, &item.blob, hash).map_err(does_not_open::<OpenFailure>)?;
    Ok(Opened { plaintext, version })
}

fn ikm(mac: Option<Result<SecretBytes>>) -> Result<zeroize::Zeroizing<[u8; 32]>> {
    let mac = mac.unwrap_or_else(|| Err(no_answer()))?;
    let bytes =
        <[u8; 32]>::try_from(mac.expose()).map_err(|_| Error::internal("the device gave a code of another length"))?;
    Ok(zeroize::Zeroizing::new(bytes))
}

/// The one answer for every ciphertext that does not open; the reason goes to the audit record only.
fn does_not_open<R: std::fmt::Display>(reason: R) -> Error {
    Error::new(Kind::DoesNotOpen, "the ciphertext does not open")
        .hint("it was made by another key, with another context, or it is damaged")
        .because(reason.to_string())
}

fn no_answer() -> Error {
    Error::internal("an item of a batch got no answer")
}

fn set<T>(results: &mut [Option<T>], index: usize, value: T) {
    if let Some(slot) = results.get_mut(index) {
        *slot = Some(value);
    }
}
