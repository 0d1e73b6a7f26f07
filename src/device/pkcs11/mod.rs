//! The driver for PKCS#11 tokens: HSMs, smart cards, SoftHSM.
//!
//! A key is a token object (`resident`) or a blob under a key-encryption key of the token (`wrapped`), made by one strict
//! template (`template.rs`) and named by its `CKA_ID`: 16 bytes of key id, 4 bytes of version. Next to the keys stand one
//! sentinel, which tells "the token is gone" from "the key is gone", and one key-encryption key per role.
//!
//! ```text
//! Token ── Shared ── Module ── the maker's library
//!            ├─ keeper: the session that is logged in and owns unwrapped keys
//!            ├─ cache: (id, version) → handle; at most `loaded_keys` unwrapped ones
//!            └─ Lane, one per owner thread: a session of its own; a use of a loaded key is C_SignInit and C_Sign
//! ```
//!
//! The driver promises the contract of [`Device`]. It does not check results, does not survive a library that hangs or
//! crashes, and does not log in a second time: the worker process around it is replaced instead.

mod abilities;
mod anchor;
mod attack;
mod attest;
mod cache;
pub mod codes;
mod keepsake;
mod lane;
mod load;
mod make;
mod pin;
mod recipe;
mod select;
mod share;
mod shared;
mod template;

use std::sync::{Arc, Mutex, PoisonError};

use crate::device::pkcs11::lane::Lane;
use crate::device::pkcs11::shared::Shared;
use crate::device::{Class, Device, Driver, Fault, Identity, KekRole, KeyRef, KeySpec, Locator, Pkcs11Settings};
use crate::types::{Algorithm, KeyId, PublicKey, Residency, Version};

/// The algorithm of the sentinel and the attestation key: every token has it, and it is quick.
const SENTINEL: Algorithm = Algorithm::EcdsaP256;

/// A token, logged in.
#[derive(Debug)]
pub struct Token {
    lanes: usize,
    /// Taken at the end. Locked only to open a lane.
    shared: Mutex<Option<Arc<Shared>>>,
}

/// Opens a token. With an identity it must be that very token: its serial number is compared, the sentinel proves itself, and
/// the key-encryption keys are there and as they were made. Without one it can only be enrolled.
///
/// # Errors
/// [`Class::Config`] for a module or token that is not there, [`Class::PinRefused`] and [`Class::PinLocked`] after the one
/// attempt to log in, [`Class::DeviceGone`] for another token than the pinned one, [`Class::KeyDamaged`] for its own keys.
pub fn open(settings: &Pkcs11Settings, identity: Option<&Identity>) -> Result<Token, Fault> {
    open_by(settings, identity, true)
}

/// As [`open`]. Where the token says that a wrong PIN was entered since its last login, ours is tried only if we `insist`.
pub(super) fn open_by(settings: &Pkcs11Settings, identity: Option<&Identity>, insist: bool) -> Result<Token, Fault> {
    let shared = Arc::new(Shared::open(settings, insist)?);
    if let Some(identity) = identity {
        if shared.info.serial != identity.serial {
            let text = format!(
                "the token {:?} has the serial number {:?}, and {:?} was enrolled",
                shared.info.label, shared.info.serial, identity.serial
            );
            return Err(Fault::new(Class::DeviceGone, text).hint("put the enrolled token back, or enrol this one"));
        }
        shared.pin_identity(identity.clone());
        let mut lane = Lane::new(Arc::clone(&shared));
        lane.prove_sentinel()?;
        lane.load(&identity.sentinel)?;
        for kek in &identity.keks {
            lane.kek(kek.id, kek.role)?;
        }
    }
    Ok(Token { lanes: usize::from(settings.threads).max(1), shared: Mutex::new(Some(shared)) })
}

impl Token {
    fn shared(&self) -> Result<Arc<Shared>, Fault> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.clone().ok_or_else(|| Fault::new(Class::DeviceGone, "the token was closed"))
    }
}

impl Driver for Token {
    fn lanes(&self) -> usize {
        self.lanes
    }

    fn session(&self) -> Result<Box<dyn Device>, Fault> {
        Ok(Box::new(Lane::new(self.shared()?)))
    }

    fn enrol(&self) -> Result<Identity, Fault> {
        let shared = self.shared()?;
        if let Some(identity) = shared.identity() {
            let text = format!("this token is enrolled: its sentinel is {}", identity.sentinel.id);
            return Err(Fault::new(Class::Refused, text));
        }
        // Before anything is made that would stay.
        abilities::require(&shared, SENTINEL, Residency::Resident).map_err(|fault| Fault {
            text: format!("this token cannot be enrolled, as it would have no sentinel: {}", fault.text),
            ..fault
        })?;
        let roles = wrapping_roles(&shared)?;
        let mut lane = Lane::new(Arc::clone(&shared));
        let mut identity = sentinel(&mut lane)?;
        identity.attestation_key = Some(lane.make_attestation_object()?);
        // A failure from here on leaves keys behind that nothing points to; the inventory shows them, they cost a little room.
        let wrapping = shared.wrapping()?;
        for role in roles {
            identity.keks.push(lane.make_kek(role, wrapping)?);
        }
        shared.pin_identity(identity.clone());
        lane.prove_sentinel()?;
        Ok(identity)
    }

    fn shutdown(&self) {
        // The last owner closes all sessions and finalises the library.
        drop(self.shared.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// The roles for which the token can wrap at least one kind of key.
fn wrapping_roles(shared: &Arc<Shared>) -> Result<Vec<KekRole>, Fault> {
    let abilities = abilities::all(shared)?;
    let can = |role: &KekRole| {
        abilities.iter().any(|ability| {
            ability.residency == Residency::Wrapped
                && ability.refusal.is_none()
                && recipe::kek_role(ability.algorithm) == *role
        })
    };
    Ok(KekRole::ALL.into_iter().filter(can).collect())
}

/// Makes the sentinel.
fn sentinel(lane: &mut Lane) -> Result<Identity, Fault> {
    let (sentinel, sentinel_public) = own_key(lane)?;
    let serial = lane.shared.info.serial.clone();
    Ok(Identity { serial, sentinel, sentinel_public, keks: Vec::new(), attestation_key: None })
}

/// Makes a key of the device's own.
fn own_key(lane: &mut Lane) -> Result<(KeyRef, PublicKey), Fault> {
    let id = KeyId::random().map_err(|error| Fault::new(Class::Internal, error.chain()))?;
    let spec = KeySpec { id, version: Version::FIRST, algorithm: SENTINEL, residency: Residency::Resident, pcrs: None };
    let made = lane.make_resident(&spec)?;
    let public = made.public.ok_or_else(|| Fault::new(Class::Internal, "the token gave a pair no public key"))?;
    Ok((KeyRef { id, version: spec.version, algorithm: SENTINEL, locator: Locator::Resident }, public))
}
