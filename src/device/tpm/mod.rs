//! The driver of a TPM 2.0, by tpm2-tss.
//!
//! The TPM holds nothing of ours between two commands but what can be made again: a storage key, derived anew at each
//! start from the TPM's own seed, a session, and the last few keys used. A key is a pair of blobs that only this TPM
//! can load, kept by the caller; so there is nothing on the device to destroy, to list or to fill. The one exception is
//! the anchor, an NV index of 96 bytes.
//!
//! ```text
//! owner seed ── CreatePrimary ── storage key (P-256, AES-256), its Name pinned in Identity.serial
//!                                   ├── sentinel, ECDSA P-256
//!                                   ├── attestation key, ECDSA P-256, restricted
//!                                   ├── key 1 version 1 = { public, private, auth }   at most two loaded at a time
//!                                   └── …
//! ```
//!
//! **Promises.** A key is used only while the TPM itself confirms that the handle stands for it: by the HMAC session,
//! or by reading its Name first (see [`TpmSettings::sessions`]). A restarted, flushed or unreachable TPM costs the
//! caller nothing but time once it is back. No authorisation value is ever part of an error.
//!
//! **Limits.** One command at a time, whatever the number of callers. No Ed25519, no HMAC of more than 1024 bytes. No
//! time limit: a frozen TPM blocks the calling thread for ever, which is for the supervisor of the worker process to
//! end.
//!
//! **Lanes.** [`Driver::lanes`] is 0: the control lane serves everything. Several [`Device`]s may be handed out all the
//! same; they take turns on one engine, one request each.
//!
//! **Environment.** tpm2-tss writes a warning to standard error for each failure, expected ones too. The worker process
//! is started with `TSS2_LOG=all+NONE`.

mod abilities;
mod anchor;
pub mod codes;
mod engine;
pub mod keyfile;
mod link;
mod tcti;
mod template;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use engine::Engine;

use super::{
    AnchorPlace, AnchorSlot, AnchorWrite, Attempt, Attest, AttestationKey, Class, Description, Device, Driver, Fault,
    Generated, Health, Identity, Inventory, Kek, KekRole, KeyRef, KeySpec, PinSource, SharedKek, TpmChallenge,
    TpmSettings,
};
use crate::attestation::Evidence;
use crate::types::{KeyId, PcrValues, Pcrs, PublicKey, SecretBytes, Version};

/// An opened TPM.
pub struct Tpm {
    /// The only way to the TPM. Held for one request, by one thread; no other lock is taken under it.
    engine: Arc<Mutex<Engine>>,
}

/// Opens the TPM and derives its storage key, which must be the one of `identity`. Without one, whatever TPM answers
/// first is kept to, and enrolment is the one thing to do next.
///
/// # Errors
/// [`super::Class::Config`] for a malformed address, [`super::Class::DeviceGone`] where no TPM answers, or another or a
/// cleared one, and the general ones.
pub fn open(settings: &TpmSettings, identity: Option<&Identity>) -> Result<Tpm, Fault> {
    Ok(Tpm { engine: Arc::new(Mutex::new(Engine::open(settings, identity)?)) })
}

impl fmt::Debug for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tpm").finish_non_exhaustive()
    }
}

impl Driver for Tpm {
    fn lanes(&self) -> usize {
        0
    }

    fn session(&self) -> Result<Box<dyn Device>, Fault> {
        Ok(Box::new(Turn { engine: Arc::clone(&self.engine) }))
    }

    fn enrol(&self) -> Result<Identity, Fault> {
        lock(&self.engine).enrol()
    }

    /// Flushes everything and sends TPM2_Shutdown as the last command, so that the next start does not look like an
    /// attack to other users of this TPM.
    fn shutdown(&self) {
        lock(&self.engine).close();
    }
}

/// A right to take turns on the engine.
struct Turn {
    engine: Arc<Mutex<Engine>>,
}

/// The engine. After a panic in the middle of a command it begins with a fresh link.
fn lock(engine: &Mutex<Engine>) -> MutexGuard<'_, Engine> {
    engine.lock().unwrap_or_else(|poisoned| {
        let mut held = poisoned.into_inner();
        held.distrust();
        engine.clear_poison();
        held
    })
}

impl Device for Turn {
    fn describe(&mut self) -> Result<Description, Fault> {
        lock(&self.engine).describe()
    }

    fn generate(&mut self, spec: &KeySpec) -> Result<Generated, Fault> {
        lock(&self.engine).generate(spec)
    }

    fn sign(&mut self, key: &KeyRef, input: &[u8]) -> Result<Vec<u8>, Fault> {
        lock(&self.engine).sign(key, input)
    }

    fn mac(&mut self, key: &KeyRef, message: &[u8]) -> Result<Vec<u8>, Fault> {
        lock(&self.engine).mac(key, message)
    }

    fn agree(&mut self, key: &KeyRef, point: &[u8]) -> Result<Vec<u8>, Fault> {
        lock(&self.engine).agree(key, point)
    }

    fn decrypt(&mut self, key: &KeyRef, ciphertext: &[u8]) -> Result<Vec<u8>, Fault> {
        lock(&self.engine).decrypt(key, ciphertext)
    }

    fn decapsulate(&mut self, _: &KeyRef, _: &[u8]) -> Result<Vec<u8>, Fault> {
        Err(template::no_kem())
    }

    /// The storage key is the only one of its kind.
    fn make_missing_keks(&mut self) -> Result<Vec<Kek>, Fault> {
        Ok(Vec::new())
    }

    fn open_transport(&mut self) -> Result<PublicKey, Fault> {
        Err(shares_none())
    }

    fn make_shared(&mut self, _: &[KekRole], _: &[PublicKey]) -> Result<Vec<Vec<SharedKek>>, Fault> {
        Err(shares_none())
    }

    fn pass_on_shared(&mut self, _: &PublicKey, _: &PinSource) -> Result<Vec<SharedKek>, Fault> {
        Err(shares_none())
    }

    fn take_shared(&mut self, _: &[SharedKek]) -> Result<Vec<Kek>, Fault> {
        Err(shares_none())
    }

    fn cipher(&mut self, _: &KeyRef, _: &[u8]) -> Result<Vec<u8>, Fault> {
        Err(template::no_gcm())
    }

    /// Drops the loaded handle. There is nothing else of the key on the device: it is destroyed when the caller erases
    /// its record, since no other copy of the blobs exists and only this TPM could open them.
    fn destroy(&mut self, key: &KeyRef) -> Result<(), Fault> {
        lock(&self.engine).forget(key.id, key.version)
    }

    fn forget(&mut self, id: KeyId, version: Version) -> Result<(), Fault> {
        lock(&self.engine).forget(id, version)
    }

    fn random(&mut self, length: usize) -> Result<SecretBytes, Fault> {
        lock(&self.engine).random(length)
    }

    fn health(&mut self, challenge: &[u8; 32]) -> Result<Health, Fault> {
        lock(&self.engine).health(challenge)
    }

    /// Always empty: a TPM stores no key of ours.
    fn attack(&mut self) -> Result<Vec<Attempt>, Fault> {
        Err(Fault::new(Class::Unsupported, "the attacks are on the interface of PKCS#11; a TPM has another one"))
    }

    fn inventory(&mut self) -> Result<Inventory, Fault> {
        Ok(Inventory::default())
    }

    fn make_anchor(&mut self, place: &AnchorPlace) -> Result<(), Fault> {
        lock(&self.engine).make_anchor(place)
    }

    fn read_anchor(&mut self, place: &AnchorPlace) -> Result<Vec<AnchorSlot>, Fault> {
        lock(&self.engine).read_anchor(place)
    }

    fn write_anchor(&mut self, write: &AnchorWrite) -> Result<(), Fault> {
        lock(&self.engine).write_anchor(write)
    }

    fn make_attestation_key(&mut self) -> Result<AttestationKey, Fault> {
        lock(&self.engine).make_attestation_key()
    }

    fn attest(&mut self, wanted: &Attest) -> Result<Evidence, Fault> {
        lock(&self.engine).attest(wanted).map(Evidence::Tpm)
    }

    fn endorsement(&mut self) -> Result<Vec<u8>, Fault> {
        lock(&self.engine).endorsement()
    }

    fn pcrs(&mut self, wanted: Pcrs) -> Result<PcrValues, Fault> {
        lock(&self.engine).pcrs(wanted)
    }

    fn answer(&mut self, challenge: &TpmChallenge) -> Result<SecretBytes, Fault> {
        lock(&self.engine).answer(challenge)
    }
}

fn shares_none() -> Fault {
    Fault::new(Class::Unsupported, "a TPM has no key-encryption keys that it could share")
        .hint("keys that are to outlive their device belong into two PKCS#11 tokens")
}
