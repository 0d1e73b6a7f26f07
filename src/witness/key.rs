//! The key of a witness: Ed25519, in a device, and good for cosignatures only.
//!
//! ```text
//! witness.json     what is pinned of the device, and which key it is
//! ```

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::audit::note::Signature;
use crate::crash_point;
use crate::device::{Identity, KeyRef, KeySpec, Worker};
use crate::error::{Error, Kind, Result};
use crate::types::{Algorithm, KeyId, NoteKey, PublicKey, Residency, Version, cosigned};

const NAME: &str = "witness.json";

/// What is pinned of a witness.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pinned {
    format: u32,
    /// What its cosignatures bear.
    name: String,
    /// What must be met again in the device.
    pub(super) device: Identity,
    /// The key.
    key: KeyRef,
    /// Its public half.
    public: PublicKey,
}

impl Pinned {
    /// Makes the key in a device that was enrolled.
    pub(super) async fn create(name: &str, device: Identity, worker: &Worker) -> Result<Self> {
        let description = worker.describe().await?;
        let able = |residency: &&Residency| {
            let mut rows = description.abilities.iter().filter(|row| row.algorithm == Algorithm::Ed25519);
            rows.any(|row| row.residency == **residency && row.refusal.is_none())
        };
        let residency = *Residency::ALONE.iter().find(able).ok_or_else(|| {
            Error::new(Kind::Unsupported, "the device keeps no Ed25519 keys, which cosignatures are made with")
                .hint("choose another token; `signet status --abilities` shows what one can keep")
        })?;
        let (id, version) = (KeyId::random()?, Version::FIRST);
        crash_point!("witness.before_generate");
        let made =
            worker.generate(KeySpec { id, version, algorithm: Algorithm::Ed25519, residency, pcrs: None }).await?;
        crash_point!("witness.generated");
        let public = made.public.ok_or_else(|| Error::internal("the device gave no public key"))?;
        let key = KeyRef { id, version, algorithm: Algorithm::Ed25519, locator: made.locator };
        Ok(Self { format: 1, name: name.to_owned(), device, key, public })
    }

    /// Reads the file in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let text = std::fs::read(&path).map_err(|e| {
            if e.kind() == std::io::ErrorKind::NotFound {
                let text = format!("{} is not the folder of a witness", folder.display());
                return Error::new(Kind::NotFound, text).hint("`signet witness init` makes one; nothing else does");
            }
            Error::new(Kind::Unavailable, format!("{} cannot be read: {e}", path.display()))
        })?;
        let pinned: Self = serde_json::from_slice(&text)
            .map_err(|e| Error::new(Kind::Tampered, format!("{} cannot be read", path.display())).because(e))?;
        if pinned.format == 1 {
            Ok(pinned)
        } else {
            Err(Error::new(Kind::Invalid, "witness.json was written by a newer program").hint("start that one"))
        }
    }

    /// Writes the file, last of all: without it there is no witness yet.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let unwritable = |e: std::io::Error| Error::new(Kind::Unavailable, "witness.json cannot be written").because(e);
        let text = serde_json::to_vec_pretty(self).map_err(|e| Error::internal(format!("witness.json: {e}")))?;
        let mut file = tempfile::Builder::new().prefix(".witness").tempfile_in(folder).map_err(unwritable)?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).map_err(unwritable)?;
        crash_point!("witness.before_pinned");
        file.persist(folder.join(NAME)).map_err(|e| unwritable(e.error))?;
        crash_point!("witness.pinned");
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(unwritable)
    }

    /// What its cosignatures are verified with.
    pub(super) fn verifier_key(&self) -> Result<NoteKey> {
        NoteKey::of_witness(&self.name, &self.public)
    }
}

/// The key, ready to cosign.
#[derive(Debug)]
pub(super) struct Cosigner {
    worker: Arc<Worker>,
    key: Arc<KeyRef>,
    verifier: NoteKey,
}

impl Cosigner {
    pub(super) fn new(worker: Arc<Worker>, pinned: &Pinned) -> Result<Self> {
        Ok(Self { worker, key: Arc::new(pinned.key.clone()), verifier: pinned.verifier_key()? })
    }

    /// The line of a cosignature over the text of a checkpoint at `time`, in seconds since 1970; it verifies.
    pub(super) async fn cosign(&self, text: &str, time: u64) -> Result<String> {
        let message = cosigned(text, time);
        let signature = self.worker.use_key(&self.key, message.into_bytes()).await?;
        let signature = [&time.to_be_bytes(), signature.expose()].concat();
        if !self.verifier.verifies(text, &signature) {
            return Err(Error::new(Kind::Tampered, "the key of the witness gives signatures that do not verify"));
        }
        Ok(Signature::line(&self.verifier, &signature))
    }
}
