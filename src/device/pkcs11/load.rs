//! Loading: how a key's handle is found, and how "not there" is told from "nothing there".

use std::collections::BTreeSet;
use std::sync::Arc;

use pkcs11_raw::{Attribute, Mechanism, Object, ck};

use crate::device::pkcs11::cache::{Keeper, Loaded};
use crate::device::pkcs11::codes::{self, Effect, Remedy};
use crate::device::pkcs11::lane::Lane;
use crate::device::pkcs11::recipe;
use crate::device::pkcs11::template::{self, Life};
use crate::device::{Class, Fault, Identity, Inventory, KekRole, KeyRef, Locator};
use crate::types::{KeyId, Verifier, Version};

/// How many dropped keys the token may refuse to destroy before their whole session is closed.
const MAX_REFUSED: usize = 256;

/// A key-encryption key, with the one mechanism that it wraps by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrapper {
    pub(super) object: Object,
    pub(super) mechanism: Mechanism,
}

impl Lane {
    /// The handle of a key, from the cache or from the token.
    pub(super) fn load(&mut self, key: &KeyRef) -> Result<Arc<Loaded>, Fault> {
        if let Some(loaded) = self.shared.cache.find((key.id, key.version), key.algorithm) {
            return Ok(loaded);
        }
        match &key.locator {
            Locator::Resident => self.load_resident(key),
            Locator::Wrapped { kek, blob } | Locator::Shared { kek, blob } => self.load_wrapped(key, *kek, blob),
            Locator::Tpm { .. } | Locator::TpmBound { .. } => {
                Err(Fault::new(Class::Refused, "this key is a TPM's, and this device is a PKCS#11 token"))
            }
        }
    }

    fn load_resident(&mut self, key: &KeyRef) -> Result<Arc<Loaded>, Fault> {
        let own = self.shared.identity().and_then(|identity| identity.attestation_key.as_ref().map(|own| own.key.id));
        if own == Some(key.id) {
            return Err(Fault::new(
                Class::Refused,
                "this is the attestation key, which signs nothing but attestations",
            ));
        }
        let object = self.find_resident(key)?;
        Ok(self.shared.cache.insert((key.id, key.version), Loaded::resident(object, key.algorithm)))
    }

    /// A token object that is as it was made.
    pub(super) fn find_resident(&mut self, key: &KeyRef) -> Result<Object, Fault> {
        let what = template::label(key.id, key.version);
        let object = self.find_one(key.id, key.version, recipe::class(key.algorithm), &what)?;
        let stated = template::key(key.id, key.version, key.algorithm, Life::Resident);
        let wrong = self.look(|session| template::compare_key(session, object, key.algorithm, &stated, Life::Resident));
        let wrong = wrong.map_err(|fault| self.of_a_key(fault))?;
        accept(&what, wrong)?;
        Ok(object)
    }

    /// The one token object of this id.
    fn find_one(&mut self, id: KeyId, version: Version, class: ck::CK_ULONG, what: &str) -> Result<Object, Fault> {
        let search = template::search(id, version, Some(class));
        let found = self.find(&search)?;
        match found.as_slice() {
            [object] => Ok(*object),
            [] => {
                self.prove_sentinel()?;
                let text = format!("the token is there, and does not have the key {what:?}");
                Err(Fault::new(Class::KeyGone, text).hint("restore the token from its backup, or rotate the key"))
            }
            several => {
                let text = format!("{} objects in the token carry the id of the key {what:?}", several.len());
                Err(Fault::new(Class::KeyDamaged, text).hint("find out who made the others, and remove them"))
            }
        }
    }

    fn find(&mut self, search: &[Attribute]) -> Result<Vec<Object>, Fault> {
        let shared = Arc::clone(&self.shared);
        let _finding = shared.finding()?;
        self.look(|session| session.find(search))
    }

    fn load_wrapped(&mut self, key: &KeyRef, kek: KeyId, blob: &[u8]) -> Result<Arc<Loaded>, Fault> {
        let wrapper = self.kek(kek, recipe::kek_role(key.algorithm))?;
        let keeper = self.keeper()?;
        let mut unwrapped = self.unwrap(&keeper, wrapper, key, blob);
        if unwrapped.as_ref().is_err_and(|error| codes::remedy(*error) == Remedy::Again) {
            self.shared.replace_keeper(&keeper).map_err(|error| self.shared.fault(error, Effect::Idle))?;
            unwrapped = self.unwrap(&self.keeper()?, wrapper, key, blob);
        }
        let first = match unwrapped {
            Ok(loaded) => return loaded,
            Err(error) => error,
        };
        match codes::remedy(first) {
            Remedy::Reload => {
                self.shared.lock_keks().remove(&kek);
                self.prove_sentinel()?;
            }
            Remedy::Doubt => self.prove_sentinel()?,
            Remedy::Again | Remedy::Report => return Err(self.shared.fault(first, Effect::Idle)),
        }
        let wrapper = self.kek(kek, recipe::kek_role(key.algorithm))?;
        let keeper = self.keeper()?;
        let again = match self.unwrap(&keeper, wrapper, key, blob) {
            Ok(loaded) => return loaded,
            Err(error) => error,
        };
        let fault = self.shared.fault(again, Effect::Idle);
        if codes::remedy(again) == Remedy::Doubt && again.code == first.code {
            let what = template::label(key.id, key.version);
            let text = format!("{}: the wrapped key {what:?} does not open, while the sentinel works", fault.text);
            return Err(
                Fault { class: Class::KeyDamaged, text, ..fault }.hint("restore the record of the key, or rotate it")
            );
        }
        Err(fault)
    }

    pub(super) fn keeper(&self) -> Result<Arc<Keeper>, Fault> {
        self.shared.keeper().map_err(|error| self.shared.fault(error, Effect::Idle))
    }

    /// Unwraps a key in the keeper's session and reads it back; what differs is destroyed again, and its attributes named.
    fn unwrap(
        &self,
        keeper: &Arc<Keeper>,
        wrapper: Wrapper,
        key: &KeyRef,
        blob: &[u8],
    ) -> pkcs11_raw::Result<Result<Arc<Loaded>, Fault>> {
        let name = (key.id, key.version);
        let session = keeper.session();
        // Another lane may have been quicker.
        if let Some(loaded) = self.shared.cache.find(name, key.algorithm) {
            return Ok(Ok(loaded));
        }
        let stated = template::key(key.id, key.version, key.algorithm, Life::Loaded);
        let object = session.unwrap(wrapper.mechanism, wrapper.object, blob, &stated)?;
        let wrong = template::compare_key(&session, object, key.algorithm, &stated, Life::Loaded);
        match wrong {
            Ok(None) => {}
            Ok(Some(wrong)) => {
                session.destroy(object)?;
                return Ok(Err(damaged(&template::label(key.id, key.version), &wrong)));
            }
            Err(error) => {
                session.destroy(object)?;
                return Err(error);
            }
        }
        let loaded = Loaded::unwrapped(object, key.algorithm, Arc::clone(keeper));
        let loaded = self.shared.admit(name, loaded, keeper);
        self.shared.cache.bury(keeper, &session);
        Ok(Ok(loaded))
    }

    /// Destroys session objects that were dropped and are no longer in use.
    pub(super) fn bury(&self) -> Result<(), Fault> {
        if !self.shared.cache.has_graves() {
            return Ok(());
        }
        let keeper = self.keeper()?;
        let refused = self.shared.cache.bury(&keeper, &keeper.session());
        if refused > MAX_REFUSED {
            self.shared.replace_keeper(&keeper).map_err(|error| self.shared.fault(error, Effect::Idle))?;
        }
        Ok(())
    }

    /// A key-encryption key of this token.
    pub(super) fn kek(&mut self, id: KeyId, role: KekRole) -> Result<Wrapper, Fault> {
        let identity = self.enrolled()?;
        let Some(kek) = identity.keks.iter().find(|kek| kek.id == id && kek.role == role) else {
            let text =
                format!("the key is wrapped under {id}, which is no key-encryption key of this token for such keys");
            return Err(Fault::new(Class::KeyGone, text).hint("the key was made in another token: use that one"));
        };
        let mechanism = recipe::wrapping(kek.wrapping);
        if let Some(object) = self.shared.lock_keks().get(&id) {
            return Ok(Wrapper { object: *object, mechanism });
        }
        let what = template::label(id, Version::FIRST);
        let object = self.find_one(id, Version::FIRST, ck::CKO_SECRET_KEY, &what)?;
        let life = if kek.shared { Life::Shared } else { Life::Resident };
        let stated = template::kek(id, role, kek.wrapping, life);
        let wrong = self.look(|session| template::compare_kek(session, object, &stated, life));
        let wrong = wrong.map_err(|fault| self.of_a_key(fault))?;
        accept(&what, wrong)?;
        self.shared.lock_keks().insert(id, object);
        Ok(Wrapper { object, mechanism })
    }

    /// What is pinned of the token.
    pub(super) fn enrolled(&self) -> Result<Arc<Identity>, Fault> {
        self.shared.identity().ok_or_else(|| {
            Fault::new(
                Class::DeviceGone,
                "this token was not enrolled: without a sentinel, nothing tells it from another one",
            )
            .hint("enrol it with `signet init`")
        })
    }

    /// A fault that says that a key is gone, said of a token that is there.
    fn of_a_key(&mut self, fault: Fault) -> Fault {
        if fault.class != Class::KeyGone {
            return fault;
        }
        self.prove_sentinel().err().unwrap_or(fault)
    }

    /// Looks for the sentinel afresh and has it sign: after this, "not found" means not there.
    pub(super) fn prove_sentinel(&mut self) -> Result<(), Fault> {
        let identity = self.enrolled()?;
        let sentinel = &identity.sentinel;
        let search = template::search(sentinel.id, sentinel.version, Some(recipe::class(sentinel.algorithm)));
        let found = self.find(&search)?;
        let Some(object) = found.first().copied() else {
            return Err(self.shared.gone("the token does not show its sentinel: it was taken out, or is another one"));
        };
        let mut challenge = [0; 32];
        getrandom::fill(&mut challenge)
            .map_err(|error| Fault::new(Class::Internal, format!("random bytes: {error}")))?;
        let digest = crate::types::sha256(&[&challenge]);
        let mechanism = recipe::mechanism(sentinel.algorithm);
        let signature = self.call(|session| session.sign(mechanism, object, &digest)).map_err(|error| {
            let fault = self.shared.fault(error, Effect::Idle);
            // Found a moment ago, and now not: the token goes away in this very moment.
            if fault.class == Class::KeyGone {
                return self.shared.gone("the token lost its sentinel");
            }
            // Nobody may take it for a word about the key that he asked for.
            if matches!(fault.class, Class::KeyDamaged | Class::Refused | Class::Unsupported) {
                return Fault { class: Class::DeviceGone, text: format!("{}, of the sentinel", fault.text), ..fault };
            }
            fault
        })?;
        let verifier = Verifier::new(sentinel.algorithm, &identity.sentinel_public)
            .map_err(|error| Fault::new(Class::Config, format!("the pinned key of the sentinel: {error}")))?;
        if verifier.verifies_digest(&digest, &signature) {
            Ok(())
        } else {
            Err(self.shared.gone("the sentinel's signature does not verify: this is another token, or it is damaged"))
        }
    }

    /// All token objects, sorted into ours, halves of ours, and others.
    pub(super) fn list_objects(&mut self) -> Result<Inventory, Fault> {
        let shared = Arc::clone(&self.shared);
        let _finding = shared.finding()?;
        let all = [Attribute::flag(ck::CKA_TOKEN, true)];
        let objects = self.look(|session| {
            let read = |object| session.attributes(object, &[ck::CKA_CLASS, ck::CKA_ID, ck::CKA_LABEL]);
            session.find(&all)?.into_iter().map(read).collect::<pkcs11_raw::Result<Vec<_>>>()
        })?;
        let (mut keys, mut publics, mut foreign) = (BTreeSet::new(), BTreeSet::new(), 0);
        for values in objects {
            match sort(&values) {
                Some((name, true)) => {
                    keys.insert(name);
                }
                Some((name, false)) => {
                    publics.insert(name);
                }
                None => foreign += 1,
            }
        }
        let halves = publics.difference(&keys).copied().collect();
        Ok(Inventory { keys: keys.into_iter().collect(), halves, foreign })
    }
}

/// Whose object this is, and whether it is the part that can do something. An id of 20 bytes alone does not make it ours:
/// the habit of others is the SHA-1 of the public key, which is as long.
fn sort(values: &[Option<Vec<u8>>]) -> Option<((KeyId, Version), bool)> {
    let [Some(class), Some(id), Some(label)] = values else { return None };
    let (id, version) = template::parse_id(id)?;
    if *label != template::label(id, version).as_bytes() {
        return None;
    }
    let is = |wanted| Attribute::number(ck::CKA_CLASS, wanted).agrees(class);
    if is(ck::CKO_PRIVATE_KEY) || is(ck::CKO_SECRET_KEY) {
        Some(((id, version), true))
    } else if is(ck::CKO_PUBLIC_KEY) {
        Some(((id, version), false))
    } else {
        None
    }
}

/// Judges what a comparison found.
fn accept(what: &str, wrong: Option<String>) -> Result<(), Fault> {
    wrong.map_or(Ok(()), |wrong| Err(damaged(what, &wrong)))
}

fn damaged(what: &str, wrong: &str) -> Fault {
    Fault::new(Class::KeyDamaged, format!("the key {what:?} in the token is not as it was made: {wrong}"))
        .hint("compare the token with its backup, and rotate the key")
}
