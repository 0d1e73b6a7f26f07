//! Making and destroying keys.
//!
//! A token object is made under the exclusive lock, read back, and destroyed again if it is not what was asked for. A wrapped
//! key, shared or not, is made as a session object, wrapped, and destroyed; from then on only its unwrapped copies exist, which cannot leave.

use std::sync::Arc;

use pkcs11_raw::{Attribute, Mechanism, Object, Session, ck};

use crate::device::pkcs11::attest;
use crate::device::pkcs11::cache::Loaded;
use crate::device::pkcs11::codes::{self, Effect};
use crate::device::pkcs11::lane::Lane;
use crate::device::pkcs11::load::Wrapper;
use crate::device::pkcs11::recipe;
use crate::device::pkcs11::template::{self, Life};
use crate::device::{Class, Fault, Generated, Identity, Kek, KekRole, KeyRef, KeySpec, Locator, Wrapping};
use crate::types::{Algorithm, KeyId, PublicKey, Residency, Version};

/// What a generator call gave: the part that stays, and the public half of a pair.
pub(super) struct Newborn {
    pub(super) key: Object,
    pub(super) public: Option<Object>,
}

/// Makes a key by the strict template.
pub(super) fn newborn(
    session: &Session,
    id: KeyId,
    version: Version,
    algorithm: Algorithm,
    life: Life,
) -> pkcs11_raw::Result<Newborn> {
    let stated = template::newborn(id, version, algorithm, life);
    let generator = recipe::generator(algorithm);
    if recipe::class(algorithm) == ck::CKO_SECRET_KEY {
        return Ok(Newborn { key: session.generate(generator, &stated)?, public: None });
    }
    let half = template::public_half(id, version, algorithm);
    let (public, key) = session.generate_pair(generator, &half, &stated)?;
    Ok(Newborn { key, public: Some(public) })
}

/// Reads the public half of a new key and destroys it: the store keeps public keys.
pub(super) fn take_public(
    session: &Session,
    newborn: &Newborn,
    algorithm: Algorithm,
) -> Result<Option<PublicKey>, Fault> {
    let Some(object) = newborn.public else { return Ok(None) };
    let public = recipe::public_key(session, object, algorithm)?;
    session.destroy(object).map_err(|error| codes::fault(error, Effect::Idle))?;
    Ok(public)
}

impl Lane {
    /// Makes a token object.
    pub(super) fn make_resident(&mut self, spec: &KeySpec) -> Result<Generated, Fault> {
        let KeySpec { id, version, algorithm, residency: _, pcrs: _ } = *spec;
        let shared = Arc::clone(&self.shared);
        let changing = shared.changing();
        self.must_be_new(id, version)?;
        // 1. Make it. A failure here may hide a key.
        let made = self
            .call(|session| newborn(session, id, version, algorithm, Life::Resident))
            .map_err(|error| shared.fault(error, Effect::Change))?;
        // 2. Read both halves; 3. destroy what is not right.
        let stated = template::key(id, version, algorithm, Life::Resident);
        let read = self.run(
            |error| shared.fault(error, Effect::Idle),
            |session| {
                let wrong = template::compare_key(session, made.key, algorithm, &stated, Life::Resident)
                    .map_err(|error| shared.fault(error, Effect::Idle))?;
                ignores(wrong)?;
                take_public(session, &made, algorithm)
            },
        );
        let public = read.map_err(|fault| self.undo(made.key, fault))?;
        // 4. Make it durable. Searches may go on: a slow disk is none of their business.
        drop(changing);
        shared.sync()?;
        shared.cache.insert((id, version), Loaded::resident(made.key, algorithm));
        Ok(Generated { locator: Locator::Resident, public })
    }

    /// Makes a key-encryption key.
    pub(super) fn make_kek(&mut self, role: KekRole, wrapping: Wrapping) -> Result<Kek, Fault> {
        let id = KeyId::random().map_err(|error| Fault::new(Class::Internal, error.chain()))?;
        let shared = Arc::clone(&self.shared);
        let _changing = shared.changing();
        self.must_be_new(id, Version::FIRST)?;
        let stated = template::kek(id, role, wrapping, Life::Resident);
        let object = self
            .call(|session| session.generate(Mechanism::AesKeyGen, &stated))
            .map_err(|error| shared.fault(error, Effect::Change))?;
        let wrong = self
            .call(|session| template::compare_kek(session, object, &stated, Life::Resident))
            .map_err(|error| shared.fault(error, Effect::Idle));
        wrong.and_then(ignores).map_err(|fault| self.undo(object, fault))?;
        shared.sync()?;
        shared.lock_keks().insert(id, object);
        Ok(Kek { role, id, wrapping, shared: false })
    }

    /// Nothing stops a token from keeping two objects of one id; afterwards neither could be used.
    pub(super) fn must_be_new(&mut self, id: KeyId, version: Version) -> Result<(), Fault> {
        let found = self.look(|session| session.find(&template::search(id, version, None)))?;
        if found.is_empty() {
            return Ok(());
        }
        let text = format!("the token has an object with the id of {:?} already", template::label(id, version));
        Err(Fault::new(Class::Refused, text).hint("destroy it first, or take another id"))
    }

    /// Destroys a key that is not right, and says what is left.
    pub(super) fn undo(&mut self, object: Object, fault: Fault) -> Fault {
        match self.call(|session| session.destroy(object)) {
            Ok(()) => fault,
            Err(_) => Fault { class: Class::Ambiguous, ..fault },
        }
    }

    /// Makes a key to be kept outside: nothing of it stays in the token but a copy that is loaded for use.
    pub(super) fn make_wrapped(&mut self, spec: &KeySpec) -> Result<Generated, Fault> {
        let role = recipe::kek_role(spec.algorithm);
        let identity = self.enrolled()?;
        let shared = spec.residency == Residency::Shared;
        let own = identity.keks.iter().find(|kek| kek.role == role && kek.shared == shared);
        let kek = own.map(|kek| kek.id).ok_or_else(|| {
            let text = if shared {
                "this token shares no key-encryption key for such keys with another one"
            } else {
                "this token has no key-encryption key for such keys: it was enrolled without"
            };
            Fault::new(Class::Unsupported, text)
        })?;
        let wrapper = self.kek(kek, role)?;
        let (blob, public) = match self.born_and_wrapped(spec, wrapper) {
            // The key-encryption key's handle is no longer good.
            Err(fault) if fault.class == Class::KeyGone => {
                self.shared.lock_keks().remove(&kek);
                self.prove_sentinel()?;
                let wrapper = self.kek(kek, role)?;
                self.born_and_wrapped(spec, wrapper)?
            }
            other => other?,
        };
        let locator = if shared { Locator::Shared { kek, blob } } else { Locator::Wrapped { kek, blob } };
        let key = KeyRef { id: spec.id, version: spec.version, algorithm: spec.algorithm, locator };
        // A blob that does not open again is no key.
        self.load(&key)?;
        Ok(Generated { locator: key.locator, public })
    }

    /// Makes a session object and wraps it. Where anything fails, it goes with its session.
    fn born_and_wrapped(&mut self, spec: &KeySpec, wrapper: Wrapper) -> Result<(Vec<u8>, Option<PublicKey>), Fault> {
        let shared = Arc::clone(&self.shared);
        let idle = |error| shared.fault(error, Effect::Idle);
        self.run(idle, |session| {
            let made = newborn(session, spec.id, spec.version, spec.algorithm, Life::Unborn).map_err(idle)?;
            let born = attest::shown(session, made.key).map_err(idle)?;
            let blob = session.wrap(wrapper.mechanism, wrapper.object, made.key).map_err(idle)?;
            session.destroy(made.key).map_err(idle)?;
            shared.remember_birth((spec.id, spec.version), born);
            Ok((blob, take_public(session, &made, spec.algorithm)?))
        })
    }

    /// Destroys all token objects of a key's id, looks whether they are gone, and whether the token is still there.
    pub(super) fn destroy_resident(&mut self, key: &KeyRef) -> Result<(), Fault> {
        self.must_not_be_needed(key.id)?;
        let search = template::search(key.id, key.version, None);
        let mut changed = false;
        let result = self.destroy_all(&search, &mut changed).and_then(|()| self.prove_sentinel());
        // Whatever failed last, something was done before it.
        let unsure = |fault: &Fault| changed && fault.class != Class::DeviceGone;
        result.map_err(|fault| if unsure(&fault) { Fault { class: Class::Ambiguous, ..fault } } else { fault })
    }

    fn destroy_all(&mut self, search: &[Attribute], changed: &mut bool) -> Result<(), Fault> {
        let shared = Arc::clone(&self.shared);
        let _changing = shared.changing();
        let found = self.look(|session| session.find(search))?;
        if found.is_empty() {
            return Ok(());
        }
        for object in found {
            self.call(|session| session.destroy(object)).map_err(|error| shared.fault(error, Effect::Change))?;
            *changed = true;
        }
        shared.sync()?;
        if self.look(|session| session.find(search))?.is_empty() {
            return Ok(());
        }
        Err(Fault::new(Class::Ambiguous, "the token said that the key was destroyed, and still shows it"))
    }

    /// Refuses to destroy what all other keys need.
    fn must_not_be_needed(&self, id: KeyId) -> Result<(), Fault> {
        let needed = |identity: &Identity| {
            identity.sentinel.id == id
                || identity.attestation_key.as_ref().is_some_and(|own| own.key.id == id)
                || identity.keks.iter().any(|kek| kek.id == id)
        };
        if self.shared.identity().is_some_and(|identity| needed(&identity)) {
            let text = format!(
                "{id} is the sentinel, the attestation key or a key-encryption key of the token, which all other keys need"
            );
            return Err(Fault::new(Class::Refused, text));
        }
        Ok(())
    }
}

/// A token that leaves attributes out is no place for keys.
pub(super) fn ignores(wrong: Option<String>) -> Result<(), Fault> {
    wrong.map_or(Ok(()), |wrong| {
        let text = format!("this token makes keys otherwise than it was told: {wrong}");
        Err(Fault::new(Class::Unsupported, text).hint("such a token cannot keep keys safe: use another"))
    })
}
