//! Wrapping: a ciphertext names the key version that opens it.
//!
//! | algorithm | to wrap, the device | to unwrap, the device |
//! | --- | --- | --- |
//! | `aes256-gcm-derived` | makes the HMAC of header and context, and proves that it is itself | makes it again |
//! | `hpke-p256` | is not asked: the public key is enough | agrees with the point in the ciphertext on a secret |
//! | `ml-kem-768` | is not asked | decapsulates the secret in the ciphertext |
//! | `rsa2048-oaep-sha256` and longer | is not asked | decrypts the seed in the ciphertext |
//! | `aes256-gcm` | encrypts the plaintext, decrypts it again, and proves that it is itself | decrypts it |
//!
//! The rest is done in memory ([`crate::ciphertext`]). What is unwrapped proves itself by its tag, or by a sum where the device has judged the
//! tag. Where it does not, a device that agreed, decapsulated or decrypted must show that the fault is not its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::admission::Permit;
use crate::ciphertext::derived::{self, Header};
use crate::ciphertext::{Label, OpenFailure, check_length, gcm, hpke, oaep, seal_for};
use crate::error::{Error, Kind, Result};
use crate::keyring::{Key, KeyVersion, Keyring, demand, state, wrong_results};
use crate::types::operation::{Includes, Operation, Unwrap, Wrap};
use crate::types::{Context, KeyName, Purpose, Role, SecretBytes, Version};

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
        let results = match key.record.algorithm.role() {
            Role::Agree | Role::Decrypt | Role::Decapsulate => seal_for_public_key(&key, &version, &items),
            Role::Cipher => seal_in_device(&key, &version, &items).await,
            Role::Mac | Role::Sign => seal_by_mac(&key, &version, &items).await,
        };
        Ok(Blobs { version: version.number(), results: results?, key })
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
        let mut groups: BTreeMap<Version, Vec<Asked<'_>>> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            match ask(&key, index, item, allow_compromised) {
                Ok((version, asked)) => groups.entry(version).or_default().push(asked),
                Err(error) => set(&mut results, index, Err(error)),
            }
        }
        for (number, group) in groups {
            let version = key.version(number)?;
            let answers = version.ask(group.iter().map(|asked| asked.input.clone()).collect()).await?;
            for (asked, answer) in group.into_iter().zip(answers) {
                let opened = open(&key, version, &asked, answer).await;
                set(&mut results, asked.index, opened);
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

/// Seals by a key per blob that the device derives.
async fn seal_by_mac(key: &Key, version: &KeyVersion, items: &[Plain]) -> Result<Vec<Result<Vec<u8>>>> {
    let prepared: Vec<_> = items.iter().map(|item| prepare(key, version, item)).collect();
    let inputs = prepared.iter().filter_map(|one| one.as_ref().ok().map(|(_, _, input)| input.clone())).collect();
    let mut macs = version.mac(inputs).await?.into_iter();
    let seal = |(prepared, item): (Result<Prepared>, &Plain)| {
        let (header, hash, _) = prepared?;
        let ikm = ikm(&macs.next().unwrap_or_else(|| Err(no_answer()))?)?;
        derived::seal(&ikm, &header, &hash, item.plaintext.expose())
    };
    Ok(prepared.into_iter().zip(items).map(seal).collect())
}

/// The header of a new blob, the hash of its context, and what the device is asked.
type Prepared = (Header, [u8; 32], Vec<u8>);

fn prepare(key: &Key, version: &KeyVersion, item: &Plain) -> Result<Prepared> {
    check_length(item.plaintext.expose())?;
    let header = Header::fresh(key.record.id, version.number())?;
    let hash = item.context.hash();
    let input = derived::device_input(&header, &hash);
    Ok((header, hash, input))
}

/// Has the device seal.
async fn seal_in_device(key: &Key, version: &KeyVersion, items: &[Plain]) -> Result<Vec<Result<Vec<u8>>>> {
    let prepare = |item: &Plain| {
        let header = gcm::Header::fresh(key.record.id, version.number())?;
        let call = gcm::to_seal(&header, &item.context.hash(), item.plaintext.expose())?;
        Ok((header, call))
    };
    let (headers, calls): (Vec<_>, Vec<_>) = items
        .iter()
        .map(|item| match prepare(item) {
            Ok((header, call)) => (Ok(header), Some(call)),
            Err(error) => (Err(error), None),
        })
        .unzip();
    let mut sealed = version.encrypt(calls.into_iter().flatten().collect()).await?.into_iter();
    let seal = |header: Result<gcm::Header>| {
        let header = header?;
        let sealed = sealed.next().unwrap_or_else(|| Err(no_answer()))?;
        Ok(gcm::blob(&header, sealed.expose()))
    };
    Ok(headers.into_iter().map(seal).collect())
}

/// Seals as whoever has the public key can.
fn seal_for_public_key(key: &Key, version: &KeyVersion, items: &[Plain]) -> Result<Vec<Result<Vec<u8>>>> {
    let public = version.public_key()?;
    let label = Label { algorithm: key.record.algorithm, key_id: key.record.id, version: version.number() };
    let seal = |item: &Plain| seal_for(&public, &label, &item.context.hash(), item.plaintext.expose());
    Ok(items.iter().map(seal).collect())
}

/// What the device is asked for one ciphertext.
struct Asked<'a> {
    /// Its place in the batch.
    index: usize,
    sealed: &'a Sealed,
    hash: [u8; 32],
    input: Vec<u8>,
}

/// The version of this key that may open a blob, and what its device is asked.
fn ask<'a>(key: &Key, index: usize, sealed: &'a Sealed, allow_compromised: bool) -> Result<(Version, Asked<'a>)> {
    let (label, _) = Label::parse(&sealed.blob).map_err(does_not_open)?;
    let Label { algorithm, key_id, version: number } = label;
    if key_id != key.record.id || algorithm != key.record.algorithm {
        return Err(does_not_open(format!("it names the key {key_id} of {algorithm}")));
    }
    let version = key.version(number).map_err(|_| does_not_open(format!("it names version {number}")))?;
    state::may_open(number, version.state(), allow_compromised)?;
    let hash = sealed.context.hash();
    let input = match algorithm.role() {
        Role::Agree | Role::Decapsulate => hpke::enc(&sealed.blob).map_err(does_not_open)?.to_vec(),
        Role::Decrypt => oaep::encrypted_seed(&sealed.blob).map_err(does_not_open)?.to_vec(),
        Role::Cipher => gcm::to_open(&sealed.blob, &hash).map_err(does_not_open)?,
        Role::Mac | Role::Sign => {
            let (header, _) = Header::parse(&sealed.blob).map_err(does_not_open)?;
            derived::device_input(&header, &hash)
        }
    };
    Ok((number, Asked { index, sealed, hash, input }))
}

/// Opens one ciphertext by what the device answered.
async fn open(key: &Key, version: &KeyVersion, asked: &Asked<'_>, answer: Result<SecretBytes>) -> Result<Opened> {
    let (role, Asked { sealed, hash, .. }) = (key.record.algorithm.role(), asked);
    let answer = match answer {
        // Padding or a tag that does not hold: whoever changed the ciphertext learns no more than that it does not open.
        Err(error) if matches!(role, Role::Decrypt | Role::Cipher) && error.kind() == Kind::Invalid => {
            version.acquit(&asked.input, None).await?;
            return Err(does_not_open(error.chain()));
        }
        other => other?,
    };
    let opened = match role {
        Role::Agree | Role::Decapsulate => hpke::open(&answer, &version.public_key()?, &sealed.blob, hash),
        Role::Decrypt => oaep::open(&answer, &sealed.blob, hash),
        Role::Cipher => gcm::open(&answer, &sealed.blob, hash),
        Role::Mac | Role::Sign => derived::open(&*ikm(&answer)?, &sealed.blob, hash),
    };
    let reason = match opened {
        Ok(plaintext) => return Ok(Opened { plaintext, version: version.number() }),
        Err(reason) => reason,
    };
    let doubtful = match role {
        // A context is compared after the tag held: then the device was right.
        Role::Agree | Role::Decapsulate => reason == OpenFailure::Damaged,
        Role::Decrypt => reason == OpenFailure::WrongKeyOrContext,
        // The device let the tag pass: it decrypted to something else than was encrypted.
        Role::Cipher => return Err(wrong_results("a plaintext is not the one that was wrapped: look at the device")),
        Role::Mac | Role::Sign => false,
    };
    if doubtful {
        version.acquit(&asked.input, Some(&answer)).await?;
    }
    Err(does_not_open(reason))
}

fn ikm(mac: &SecretBytes) -> Result<zeroize::Zeroizing<[u8; 32]>> {
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
