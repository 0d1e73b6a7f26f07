//! How the store is unsealed: `root.json` in the data folder.
//!
//! It names the root key in the device, holds the storage key as a ciphertext of it, and what is pinned of each device. It is
//! not secret by itself (who has it and not the device has nothing), and what it says is vouched for by a record in the
//! sealed store, so that nobody can swap the pinned identity of a device in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::ciphertext::derived::{Header, device_input, open, seal};
use crate::crash_point;
use crate::device::{AnchorPlace, Identity, KeyRef, KeySpec, Worker};
use crate::error::{Error, Kind, Result};
use crate::store::StorageKey;
use crate::types::{Algorithm, Context, KeyId, Name, PublicKey, Residency, SecretBytes, Version, lower_hex, sha256};

/// What is pinned of an installation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Root {
    format: u32,
    /// The random id of the installation: the origin of its audit log.
    pub(super) instance: String,
    /// The device of the two keys below.
    pub(super) device: Name,
    /// The key that wraps the storage key.
    pub(super) root_key: KeyRef,
    /// The key that signs the heads of the audit log.
    pub(super) log_key: KeyRef,
    /// Its public half.
    pub(super) log_public: PublicKey,
    /// The key that signs them as well, where a device keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) log_ed25519: Option<SecondLogKey>,
    /// The storage key, wrapped.
    storage_key: String,
    /// What is pinned of each device.
    pub(super) devices: BTreeMap<Name, Identity>,
    /// The devices that hold an anchor of the store.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) anchors: BTreeSet<Name>,
}

/// The Ed25519 key of the log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecondLogKey {
    /// Where it is.
    pub(super) device: Name,
    /// Which it is.
    pub(super) key: KeyRef,
    /// Its public half.
    pub(super) public: PublicKey,
    /// Each head of more records bears its signature.
    pub(super) since: u64,
}

impl SecondLogKey {
    /// Makes one in the first device that keeps such keys, that of the house before all others; `None` where none does.
    pub(super) async fn create(
        house: &Name,
        workers: &BTreeMap<Name, Arc<Worker>>,
        since: u64,
    ) -> Result<Option<Self>> {
        let own = workers.get_key_value(house);
        for (device, worker) in own.into_iter().chain(workers.iter().filter(|(name, _)| *name != house)) {
            worker.settled().await?;
            let Some(residency) = able(worker, Algorithm::Ed25519).await? else { continue };
            let (key, public) = make(worker, Algorithm::Ed25519, residency).await?;
            let public = public.ok_or_else(|| Error::internal("the device gave no public key"))?;
            return Ok(Some(Self { device: device.clone(), key, public, since }));
        }
        Ok(None)
    }
}

impl Root {
    /// Where it stands in a data folder.
    pub(super) fn path(data: &Path) -> PathBuf {
        data.join("root.json")
    }

    /// Makes the root key, the keys of the log and a storage key. Answers the storage key as well.
    pub(super) async fn create(
        device: Name,
        workers: &BTreeMap<Name, Arc<Worker>>,
        devices: BTreeMap<Name, Identity>,
    ) -> Result<(Self, StorageKey)> {
        let worker = workers.get(&device).ok_or_else(|| Error::internal("the root device was not started"))?;
        worker.settled().await?;
        let mut instance = [0; 8];
        getrandom::fill(&mut instance).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
        let (root_key, _) = make_for_house(worker, Algorithm::Aes256GcmDerived).await?;
        let (log_key, log_public) = make_for_house(worker, Algorithm::EcdsaP256).await?;
        let log_public = log_public.ok_or_else(|| Error::internal("the device gave no public key"))?;
        let log_ed25519 = SecondLogKey::create(&device, workers, 0).await?;
        let storage_key = StorageKey::generate()?;
        let header = Header::fresh(root_key.id, root_key.version)?;
        let hash = context()?.hash();
        let ikm = ikm(worker, &root_key, &header, &hash).await?;
        let blob = seal(&ikm, &header, &hash, storage_key.to_secret().expose())?;
        // A key that cannot open what it wrapped would lose everything at the next start.
        let again = self::ikm(worker, &root_key, &header, &hash).await?;
        open(&again, &blob, &hash)?;
        let root = Self {
            format: 1,
            instance: hex::encode(instance),
            device,
            root_key,
            log_key,
            log_public,
            log_ed25519,
            storage_key: STANDARD.encode(blob),
            devices,
            anchors: BTreeSet::new(),
        };
        Ok((root, storage_key))
    }

    /// Unwraps the storage key in the device.
    pub(super) async fn unseal(&self, worker: &Worker) -> Result<StorageKey> {
        let broken = || Error::new(Kind::Tampered, "root.json does not hold a storage key");
        let blob = STANDARD.decode(&self.storage_key).map_err(|e| broken().because(e))?;
        let (header, _) = Header::parse(&blob).map_err(|e| broken().because(e.to_string()))?;
        let hash = context()?.hash();
        let ikm = ikm(worker, &self.root_key, &header, &hash).await?;
        let key = open(&ikm, &blob, &hash).map_err(|e| {
            Error::new(Kind::Tampered, "the root key of the device does not open the storage key")
                .hint("this data folder belongs to another token or TPM, or root.json was changed")
                .because(e.to_string())
        })?;
        StorageKey::try_from(key)
    }

    /// Where the anchor of this installation is in `device`.
    pub(super) fn anchor_place(&self, key: &StorageKey, device: &Name) -> Result<AnchorPlace> {
        let instance = lower_hex(&self.instance)
            .ok_or_else(|| Error::new(Kind::Tampered, "root.json names an instance that is none"))?;
        Ok(AnchorPlace { instance, auth: key.anchor_auth(device.as_str())? })
    }

    /// What a record in the sealed store says of this file.
    pub(super) fn fingerprint(&self) -> Result<[u8; 32]> {
        let bytes = serde_json::to_vec(self).map_err(|e| Error::internal(format!("root.json: {e}")))?;
        Ok(sha256(&[&bytes]))
    }

    pub(super) fn read(data: &Path) -> Result<Self> {
        let path = Self::path(data);
        let text = std::fs::read(&path).map_err(|e| {
            if e.kind() == std::io::ErrorKind::NotFound {
                let text = format!("{} is not the data folder of an installation", data.display());
                return Error::new(Kind::NotFound, text).hint("`signet init` makes one; nothing else does");
            }
            Error::new(Kind::Unavailable, format!("{} cannot be read: {e}", path.display()))
        })?;
        let root: Self = serde_json::from_slice(&text)
            .map_err(|e| Error::new(Kind::Tampered, format!("{} cannot be read", path.display())).because(e))?;
        if root.format == 1 {
            Ok(root)
        } else {
            Err(Error::new(Kind::Invalid, "root.json was written by a newer program").hint("start that one"))
        }
    }

    /// Writes the file whole or not at all.
    pub(super) fn write(&self, data: &Path) -> Result<()> {
        let unwritable = |e: std::io::Error| Error::new(Kind::Unavailable, "root.json cannot be written").because(e);
        let text = serde_json::to_vec_pretty(self).map_err(|e| Error::internal(format!("root.json: {e}")))?;
        let mut file = tempfile::Builder::new().prefix(".root").tempfile_in(data).map_err(unwritable)?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(unwritable)?;
        crash_point!("root.written");
        file.persist(Self::path(data)).map_err(|e| unwritable(e.error))?;
        crash_point!("root.renamed");
        std::fs::File::open(data).and_then(|folder| folder.sync_all()).map_err(unwritable)
    }
}

/// The storage key opens with this context and no other: nobody can pass it off as somebody's data key.
fn context() -> Result<Context> {
    Context::new([("signet".to_owned(), "storage key".to_owned())].into())
}

async fn ikm(worker: &Worker, key: &KeyRef, header: &Header, hash: &[u8; 32]) -> Result<zeroize::Zeroizing<[u8; 32]>> {
    let key = Arc::new(key.clone());
    let mac: SecretBytes = worker.use_key(&key, device_input(header, hash)).await?;
    let bytes =
        <[u8; 32]>::try_from(mac.expose()).map_err(|_| Error::internal("the device gave a code of another length"))?;
    Ok(zeroize::Zeroizing::new(bytes))
}

/// How a device keeps keys of that algorithm, resident where it can; `None` where it does not.
async fn able(worker: &Worker, algorithm: Algorithm) -> Result<Option<Residency>> {
    let description = worker.describe().await?;
    let able = |residency: &&Residency| {
        description
            .abilities
            .iter()
            .any(|row| row.algorithm == algorithm && row.residency == **residency && row.refusal.is_none())
    };
    Ok(Residency::ALONE.iter().find(able).copied())
}

/// A key that the house cannot do without.
async fn make_for_house(worker: &Worker, algorithm: Algorithm) -> Result<(KeyRef, Option<PublicKey>)> {
    let residency = able(worker, algorithm).await?.ok_or_else(|| {
        Error::new(
            Kind::Unsupported,
            format!("device {} cannot keep {algorithm} keys, which the house needs", worker.name()),
        )
        .hint("choose another storage.root_device")
    })?;
    make(worker, algorithm, residency).await
}

/// A key of the house.
async fn make(worker: &Worker, algorithm: Algorithm, residency: Residency) -> Result<(KeyRef, Option<PublicKey>)> {
    let (id, version) = (KeyId::random()?, Version::FIRST);
    crash_point!("init.before_generate");
    let made = worker.generate(KeySpec { id, version, algorithm, residency, pcrs: None }).await?;
    crash_point!("init.generated");
    Ok((KeyRef { id, version, algorithm, locator: made.locator }, made.public))
}
