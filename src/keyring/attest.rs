//! What devices say of versions: at birth, where it is kept, and again for whoever brings a nonce.

use super::record::attestation_path;
use super::{Key, KeyVersion, Keyring};
use crate::attestation::{Attestation, Claim, Nonce};
use crate::device::{Attest, Class, Fault, KeyRef, Worker};
use crate::error::{Error, Kind, Result};
use crate::types::{Base64Bytes, KeyName, PublicKey, blocking};

impl Keyring {
    /// What the device said when the version was born.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for a version that was born before its device had an attestation key.
    pub async fn attestation(&self, key: &Key, version: &KeyVersion) -> Result<String> {
        let (store, path) = (self.ledger.store(), attestation_path(key.record.id, version.number()));
        let record = blocking(move || store.get(&path)).await?;
        let record = record.ok_or_else(|| {
            let text = format!("version {} of {} was not attested at its birth", version.number(), key.record.name);
            Error::new(Kind::NotFound, text)
                .hint("its device had no attestation key then; once it has, ask with a nonce")
        })?;
        String::from_utf8(record.value).map_err(|e| Error::new(Kind::Tampered, "an attestation is no text").because(e))
    }

    /// What the device says now, for a nonce.
    ///
    /// # Errors
    /// [`Kind::State`] for a destroyed version, [`Kind::Unsupported`] where the device has no attestation key, and those of the
    /// device.
    pub async fn attest(&self, key: &Key, version: &KeyVersion, nonce: Nonce) -> Result<String> {
        let (place, worker) = version.place()?;
        let said = self
            .ask_device(worker, &key.record.name, KeyRef::clone(place), version.record.public_key(), Some(nonce))
            .await?;
        said.ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("device {} has no attestation key", worker.name()))
                .hint("end the service; `signet init --upgrade` makes one")
        })
    }

    /// Has the device attest a version, and reads that back before it is kept or given out. `None` where the device has no
    /// attestation key.
    pub(super) async fn ask_device(
        &self,
        worker: &Worker,
        name: &KeyName,
        key: KeyRef,
        public: Option<PublicKey>,
        nonce: Option<Nonce>,
    ) -> Result<Option<String>, Fault> {
        let Some(own) = worker.identity().and_then(|identity| identity.attestation_key.as_ref()) else {
            return Ok(None);
        };
        let defect = |error: Error| Fault::new(Class::Internal, error.chain());
        let claim = Claim {
            installation: self.ledger.origin().to_string(),
            key: name.clone(),
            id: key.id,
            version: key.version,
            algorithm: key.algorithm,
            residency: key.locator.residency(),
            public_key: public.as_ref().map(|public| Base64Bytes(public.as_der().to_vec())),
            pcrs: key.locator.pcrs().cloned(),
            nonce,
        };
        let binding = claim.binding().map_err(defect)?;
        let evidence = worker.attest(&Attest { key, public, binding }).await?;
        let attestation = Attestation::new(claim, &own.public, evidence);
        attestation.is_signed_by(&own.public).map_err(|error| {
            Fault::new(Class::KeyDamaged, format!("what the device says of the key does not hold: {}", error.chain()))
        })?;
        attestation.encode().map(Some).map_err(defect)
    }
}
