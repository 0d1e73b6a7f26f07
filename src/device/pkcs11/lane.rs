//! One lane: a session owned by one thread, and the use of keys in it.
//!
//! A use of a loaded key is two calls, `C_SignInit` and `C_Sign`. A call that fails throws the session away, since a call
//! that was lost on the way to the token leaves its session stuck for ever; the next call opens a new one.

use std::sync::Arc;

use pkcs11_raw::{Error, Session, TokenInfo};

use crate::attestation::Evidence;
use crate::device::pkcs11::cache::Loaded;
use crate::device::pkcs11::codes::{self, Effect, Remedy};
use crate::device::pkcs11::shared::Shared;
use crate::device::pkcs11::{abilities, attack, recipe};
use crate::device::{
    AnchorPlace, AnchorSlot, AnchorWrite, Attempt, Attest, AttestationKey, Class, Description, Device, Fault,
    Generated, Health, Identity, Inventory, Kek, KekRole, KeyRef, KeySpec, Locator, PinSource, SharedKek, TpmChallenge,
};
use crate::types::{
    Agreed, CipherCall, Direction, Encapsulated, KeyId, PcrValues, Pcrs, PublicKey, Residency, Role, SecretBytes,
    Version, is_point, sha256,
};

/// The longest message of an HMAC. SoftHSM takes more; network HSMs have frames of about this size.
const MAX_MAC_INPUT: usize = 64 * 1024;
/// The longest text to encrypt, and the longest ciphertext: 64 KiB, a sum and a tag.
const MAX_CIPHER_INPUT: usize = 64 * 1024 + 48;
/// A token with less free memory than this, in bytes, is nearly full: a key takes up to 2 KB, one of ML-DSA 6 KB.
const LITTLE_ROOM: u64 = 8192;
/// The most random bytes per call.
const MAX_RANDOM: usize = 1024;

/// A session of a token and what it shares with the others.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) shared: Arc<Shared>,
    session: Option<Session>,
}

impl Lane {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, session: None }
    }

    /// Works in the session, or in a new one. It is kept only if all went well.
    pub(super) fn run<T, E>(
        &mut self,
        unopened: impl FnOnce(Error) -> E,
        work: impl FnOnce(&Session) -> Result<T, E>,
    ) -> Result<T, E> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.shared.session().map_err(unopened)?,
        };
        let done = work(&session)?;
        self.session = Some(session);
        Ok(done)
    }

    /// One call, or a few that stand together.
    pub(super) fn call<T>(&mut self, work: impl FnOnce(&Session) -> pkcs11_raw::Result<T>) -> pkcs11_raw::Result<T> {
        self.run(|error| error, work)
    }

    /// A call that only looks: once more on a new session, where the old one was no good.
    pub(super) fn look<T>(&mut self, work: impl Fn(&Session) -> pkcs11_raw::Result<T>) -> Result<T, Fault> {
        match self.call(&work) {
            Err(error) if codes::remedy(error) == Remedy::Again => self.call(&work),
            other => other,
        }
        .map_err(|error| self.shared.fault(error, Effect::Idle))
    }

    fn act(&mut self, key: &KeyRef, loaded: &Loaded, data: &[u8]) -> pkcs11_raw::Result<Vec<u8>> {
        self.call(|session| recipe::act(session, key.algorithm, loaded.object, data))
    }

    /// Has a key do its one thing. That it is gone is said only when the sentinel has proved itself: a token that ended all sessions
    /// has ended the login, too, and shows no key at all.
    pub(super) fn use_key(&mut self, key: &KeyRef, data: &[u8]) -> Result<Vec<u8>, Fault> {
        let loaded = self.load(key)?;
        let first = match self.act(key, &loaded, data) {
            // A session that is no good says nothing of the key; what a new one says counts.
            Err(error) if codes::remedy(error) == Remedy::Again => self.act(key, &loaded, data),
            other => other,
        };
        let first = match first {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        drop(loaded);
        match codes::remedy(first) {
            Remedy::Reload | Remedy::Doubt => {
                self.shared.cache.forget((key.id, key.version));
                self.prove_sentinel()?;
            }
            Remedy::Again | Remedy::Report => return Err(self.shared.fault(first, Effect::Idle)),
        }
        // The handle may have been found anew, and its attributes read again: a second answer is the key's own.
        let loaded = self.load(key)?;
        self.act(key, &loaded, data).map_err(|again| {
            let fault = self.shared.fault(again, Effect::Idle);
            if codes::remedy(again) == Remedy::Doubt && again.code == first.code {
                let text =
                    format!("{}, each time with this key, and not with the sentinel: the key is damaged", fault.text);
                return Fault { class: Class::KeyDamaged, text, ..fault };
            }
            fault
        })
    }
}

/// Many tokens say of a ciphertext that does not decrypt no more than that they failed, which the front judges by one of its own.
fn may_be_the_ciphertext(fault: Fault) -> Fault {
    if fault.class == Class::KeyDamaged { Fault { class: Class::Refused, ..fault } } else { fault }
}

fn no_pcrs() -> Fault {
    Fault::new(
        Class::Unsupported,
        "a PKCS#11 token knows nothing of the state of the machine: no key of it is bound to PCRs",
    )
    .hint("keep a key that is bound to PCRs in a TPM, or leave the PCRs out")
}

fn no_endorsement() -> Fault {
    Fault::new(
        Class::Unsupported,
        "a PKCS#11 token has no endorsement key: nobody but its maker's own tools can vouch for it",
    )
    .hint("pin its attestation key: `signet attest key` prints it")
}

/// What the operator should know of a token that still works.
fn warning(info: &TokenInfo) -> Option<String> {
    let flags = info.flags;
    let warnings = [
        (flags.pin_locked, "the PIN is locked: the next start will not log in"),
        (flags.pin_final_try, "one PIN try is left: somebody gives wrong PINs"),
        (flags.pin_count_low, "a wrong PIN was given since the last login"),
        (flags.pin_to_be_changed, "the PIN has expired or is the maker's: change it"),
        (info.free_private_memory.is_some_and(|free| free < LITTLE_ROOM), "the token is nearly full"),
    ];
    warnings.iter().find(|(holds, _)| *holds).map(|(_, text)| (*text).to_owned())
}

impl Device for Lane {
    fn describe(&mut self) -> Result<Description, Fault> {
        let info = &self.shared.info;
        let library = self.shared.module.description().map_err(|error| codes::fault(error, Effect::Idle))?;
        Ok(Description {
            manufacturer: info.manufacturer.clone(),
            model: info.model.clone(),
            version: format!("firmware {}, {library}", info.firmware),
            max_mac_input: MAX_MAC_INPUT,
            abilities: abilities::all(&self.shared)?.to_vec(),
        })
    }

    fn generate(&mut self, spec: &KeySpec) -> Result<Generated, Fault> {
        abilities::require(&self.shared, spec.algorithm, spec.residency)?;
        if spec.pcrs.is_some() {
            return Err(no_pcrs());
        }
        match spec.residency {
            Residency::Resident => self.make_resident(spec),
            Residency::Wrapped | Residency::Shared => self.make_wrapped(spec),
        }
    }

    fn sign(&mut self, key: &KeyRef, input: &[u8]) -> Result<Vec<u8>, Fault> {
        let input = recipe::sign_input(key.algorithm, input)?;
        self.use_key(key, &input)
    }

    fn mac(&mut self, key: &KeyRef, message: &[u8]) -> Result<Vec<u8>, Fault> {
        if key.algorithm.role() != Role::Mac {
            return Err(Fault::new(Class::Refused, format!("{} makes no MACs", key.algorithm)));
        }
        if message.len() > MAX_MAC_INPUT {
            let text =
                format!("a message of {} bytes is longer than the {MAX_MAC_INPUT} this device takes", message.len());
            return Err(Fault::new(Class::Refused, text));
        }
        self.use_key(key, message)
    }

    fn agree(&mut self, key: &KeyRef, point: &[u8]) -> Result<Vec<u8>, Fault> {
        if key.algorithm.role() != Role::Agree {
            return Err(Fault::new(Class::Refused, format!("{} agrees on no secrets", key.algorithm)));
        }
        if !is_point(point) {
            return Err(Fault::new(Class::Refused, "this is no point of P-256"));
        }
        let secret = self.use_key(key, point)?;
        if secret.len() == Agreed::SECRET {
            return Ok(secret);
        }
        Err(Fault::new(Class::Internal, "the token gave a secret of another length"))
    }

    fn decrypt(&mut self, key: &KeyRef, ciphertext: &[u8]) -> Result<Vec<u8>, Fault> {
        if key.algorithm.role() != Role::Decrypt {
            return Err(Fault::new(Class::Refused, format!("{} decrypts nothing", key.algorithm)));
        }
        // Tokens say this in many ways, or ask for more room.
        if Encapsulated::length(key.algorithm) != Some(ciphertext.len()) {
            let text = format!("a ciphertext of {} bytes is not one of {}", ciphertext.len(), key.algorithm);
            return Err(Fault::new(Class::Refused, text));
        }
        self.use_key(key, ciphertext).map_err(may_be_the_ciphertext)
    }

    fn decapsulate(&mut self, key: &KeyRef, ciphertext: &[u8]) -> Result<Vec<u8>, Fault> {
        if key.algorithm.role() != Role::Decapsulate {
            return Err(Fault::new(Class::Refused, format!("{} decapsulates nothing", key.algorithm)));
        }
        if Encapsulated::length(key.algorithm) != Some(ciphertext.len()) {
            let text = format!("a ciphertext of {} bytes is not one of {}", ciphertext.len(), key.algorithm);
            return Err(Fault::new(Class::Refused, text));
        }
        let secret = self.use_key(key, ciphertext)?;
        if secret.len() == Encapsulated::SECRET {
            return Ok(secret);
        }
        Err(Fault::new(Class::Internal, "the token gave a secret of another length"))
    }

    fn cipher(&mut self, key: &KeyRef, input: &[u8]) -> Result<Vec<u8>, Fault> {
        if key.algorithm.role() != Role::Cipher {
            return Err(Fault::new(Class::Refused, format!("{} encrypts nothing by itself", key.algorithm)));
        }
        let (direction, call) =
            CipherCall::parse(input).ok_or_else(|| Fault::new(Class::Refused, "this is no call of a cipher"))?;
        if call.data.len() > MAX_CIPHER_INPUT {
            let text = format!("this device encrypts at most {MAX_CIPHER_INPUT} bytes, not {}", call.data.len());
            return Err(Fault::new(Class::Refused, text));
        }
        let answer = self.use_key(key, input);
        match direction {
            Direction::Encrypt => answer,
            Direction::Decrypt => answer.map_err(may_be_the_ciphertext),
        }
    }

    fn destroy(&mut self, key: &KeyRef) -> Result<(), Fault> {
        self.shared.cache.forget((key.id, key.version));
        self.bury()?;
        match key.locator {
            Locator::Resident => self.destroy_resident(key),
            // The blob is the store's to forget; what was loaded of it is gone.
            Locator::Wrapped { .. } | Locator::Shared { .. } | Locator::Tpm { .. } | Locator::TpmBound { .. } => {
                self.prove_sentinel()
            }
        }
    }

    fn forget(&mut self, id: KeyId, version: Version) -> Result<(), Fault> {
        self.shared.cache.forget((id, version));
        self.bury()
    }

    fn random(&mut self, length: usize) -> Result<SecretBytes, Fault> {
        if length > MAX_RANDOM {
            return Err(Fault::new(Class::Refused, format!("at most {MAX_RANDOM} random bytes at a time")));
        }
        let mut bytes = zeroize::Zeroizing::new(vec![0; length]);
        self.call(|session| session.random(&mut bytes)).map_err(|error| self.shared.fault(error, Effect::Idle))?;
        Ok(SecretBytes::new(std::mem::take(&mut *bytes)))
    }

    fn health(&mut self, challenge: &[u8; 32]) -> Result<Health, Fault> {
        let identity = self.enrolled()?;
        let signature = self.sign(&identity.sentinel, &sha256(&[challenge]))?;
        self.bury()?;
        // A token whose own file is damaged goes on signing, and will not be seen by the next start.
        let info = self.shared.module.token_info(self.shared.slot);
        let info = info.map_err(|error| self.shared.fault(error, Effect::Idle))?;
        let loaded = self.shared.cache.unwrapped() as u64;
        Ok(Health { signature, sessions: info.sessions, loaded, warning: warning(&info) })
    }

    fn attack(&mut self) -> Result<Vec<Attempt>, Fault> {
        attack::all(&self.shared)
    }

    fn inventory(&mut self) -> Result<Inventory, Fault> {
        self.prove_sentinel()?;
        let found = self.list_objects()?;
        // A token that ended all sessions meanwhile has ended the login, too: it shows no key, and says that all is well.
        let identity = self.enrolled()?;
        let KeyRef { id, version, .. } = identity.sentinel;
        if found.keys.contains(&(id, version)) {
            return Ok(found);
        }
        Err(self.shared.gone("the token no longer shows its sentinel"))
    }

    fn make_anchor(&mut self, place: &AnchorPlace) -> Result<(), Fault> {
        self.make_anchor_objects(place)
    }

    fn read_anchor(&mut self, place: &AnchorPlace) -> Result<Vec<AnchorSlot>, Fault> {
        self.anchor_slots(place)
    }

    fn write_anchor(&mut self, write: &AnchorWrite) -> Result<(), Fault> {
        self.replace_anchor_slot(write)
    }

    fn make_attestation_key(&mut self) -> Result<AttestationKey, Fault> {
        self.make_attestation_object()
    }

    fn make_missing_keks(&mut self) -> Result<Vec<Kek>, Fault> {
        let shared = Arc::clone(&self.shared);
        let identity = self.enrolled()?;
        let roles = abilities::roles_without_kek(&shared)?;
        let made = roles
            .into_iter()
            .map(|role| self.make_kek(role, self.shared.wrapping()?))
            .collect::<Result<Vec<_>, _>>()?;
        let mut identity = Identity::clone(&identity);
        identity.keks.extend(made.iter().cloned());
        shared.pin_identity(identity);
        // What it can do is more now.
        *shared.lock_abilities() = None;
        Ok(made)
    }

    fn open_transport(&mut self) -> Result<PublicKey, Fault> {
        self.open_transport_pair()
    }

    fn make_shared(&mut self, roles: &[KekRole], transports: &[PublicKey]) -> Result<Vec<Vec<SharedKek>>, Fault> {
        self.make_shared_keks(roles, transports)
    }

    fn pass_on_shared(&mut self, transport: &PublicKey, officer: &PinSource) -> Result<Vec<SharedKek>, Fault> {
        self.pass_on_shared_keks(transport, officer)
    }

    fn take_shared(&mut self, keks: &[SharedKek]) -> Result<Vec<Kek>, Fault> {
        self.take_shared_keks(keks)
    }

    fn attest(&mut self, wanted: &Attest) -> Result<Evidence, Fault> {
        self.state(wanted).map(Evidence::Pkcs11)
    }

    fn endorsement(&mut self) -> Result<Vec<u8>, Fault> {
        Err(no_endorsement())
    }

    fn pcrs(&mut self, _: Pcrs) -> Result<PcrValues, Fault> {
        Err(no_pcrs())
    }

    fn answer(&mut self, _: &TpmChallenge) -> Result<SecretBytes, Fault> {
        Err(no_endorsement())
    }
}
