//! What all lanes of one token share: the library, the login, the loaded keys and the locks.
//!
//! Locks, in the order in which they may be taken: `anchor`, then `objects`, then a [`Keeper`]'s session, then `keeper`, then those of
//! the cache; `identity`, `keks`, `births`, `transport` and `abilities` are leaves under which no call is made (`abilities` excepted, which one
//! lane holds while it probes).

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use pkcs11_raw::{Module, Object, Session, Slot, TokenInfo, ck};

use crate::attestation::token::Attributes;
use crate::device::pkcs11::cache::{Cache, Keeper, Loaded, Name};
use crate::device::pkcs11::codes::{self, Effect};
use crate::device::pkcs11::select::{Selected, select};
use crate::device::pkcs11::share::Transport;
use crate::device::pkcs11::{anchor, keepsake, pin, recipe};
use crate::device::{Ability, Class, Fault, Identity, Pkcs11Settings, Wrapping};
use crate::types::KeyId;

/// How long a search waits for a change of the token: longer than all take but some RSA generations, and a fraction of what a
/// use may take, so that what stands behind it in its queue is still served.
const SOON: Duration = Duration::from_millis(500);
/// How many births are kept that wait for their attestation.
const MOST_BIRTHS: usize = 256;
/// How often it looks whether the change is over.
const LOOK: Duration = Duration::from_millis(1);

/// The process's hold on a token.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Pkcs11Settings,
    pub(super) slot: Slot,
    pub(super) info: TokenInfo,
    pub(super) cache: Cache,
    /// Handles of key-encryption keys and of the attestation key.
    keks: Mutex<HashMap<KeyId, Object>>,
    identity: RwLock<Option<Arc<Identity>>>,
    /// Held while probing, so that two lanes do not probe at once.
    abilities: Mutex<Option<Arc<[Ability]>>>,
    /// Makes and destroys token objects: exclusive. Finds: shared. In SoftHSM a search breaks a key generation beside it, and
    /// leaves nameless halves in the token. A use by handle takes no lock.
    objects: RwLock<()>,
    /// How wrapped keys were born that nobody has asked to be attested yet.
    births: Mutex<HashMap<Name, Attributes>>,
    /// What shared key-encryption keys come in under, between two jobs.
    transport: Mutex<Option<Transport>>,
    /// The objects of the anchor.
    anchor: Mutex<anchor::Cached>,
    /// The session that holds the login and the unwrapped keys; `None` after the token was lost.
    keeper: Mutex<Option<Arc<Keeper>>>,
    pub(super) module: Arc<Module>,
}

impl Shared {
    /// Loads the library, finds the token and logs in: once, for all sessions.
    pub(super) fn open(settings: &Pkcs11Settings, insist: bool) -> Result<Self, Fault> {
        if let Some(folder) = &settings.sync_dir {
            keepsake::keep(folder)?;
        }
        let _turn = pin::turn(&settings.pin)?;
        let Selected { module, slot, info } = select(settings, insist)?;
        let pin = pin::read(&settings.pin)?;
        let idle = |error| codes::fault(error, Effect::Idle);
        let session = Session::open(&module, slot).map_err(idle)?;
        match session.login(pin) {
            // The state of login is the process's, and this is its only user: somebody linked the library twice.
            Err(error) if error.code == ck::CKR_USER_ALREADY_LOGGED_IN => {}
            other => other.map_err(|error| {
                let fault = idle(error);
                Fault { text: format!("logging in to the token {:?}: {}", info.label, fault.text), ..fault }
            })?,
        }
        Ok(Self {
            settings: settings.clone(),
            slot,
            info,
            cache: Cache::new(settings.loaded_keys),
            keks: Mutex::default(),
            identity: RwLock::default(),
            abilities: Mutex::default(),
            objects: RwLock::default(),
            births: Mutex::default(),
            transport: Mutex::default(),
            anchor: Mutex::default(),
            keeper: Mutex::new(Some(Arc::new(Keeper::new(session)))),
            module,
        })
    }

    /// A new session.
    pub(super) fn session(&self) -> pkcs11_raw::Result<Session> {
        Session::open(&self.module, self.slot)
    }

    /// The right to search, where it comes soon. A lane that waited for the whole of an RSA generation would keep waiting what
    /// is behind it in its queue, though that may need no search.
    pub(super) fn finding(&self) -> Result<RwLockReadGuard<'_, ()>, Fault> {
        let begin = Instant::now();
        loop {
            match self.objects.try_read() {
                Ok(finding) => return Ok(finding),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if begin.elapsed() < SOON => thread::park_timeout(LOOK),
                Err(TryLockError::WouldBlock) => {
                    return Err(Fault::new(Class::Busy, "the token is making a key, and cannot be searched meanwhile"));
                }
            }
        }
    }

    /// The right to make and destroy token objects.
    pub(super) fn changing(&self) -> RwLockWriteGuard<'_, ()> {
        self.objects.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session for unwrapped keys.
    pub(super) fn keeper(&self) -> pkcs11_raw::Result<Arc<Keeper>> {
        let mut keeper = self.lock_keeper();
        if let Some(keeper) = keeper.as_ref() {
            return Ok(Arc::clone(keeper));
        }
        let new = Arc::new(Keeper::new(self.session()?));
        *keeper = Some(Arc::clone(&new));
        Ok(new)
    }

    /// Puts a new session in the place of `old`, and with it drops all unwrapped keys.
    pub(super) fn replace_keeper(&self, old: &Arc<Keeper>) -> pkcs11_raw::Result<()> {
        let mut keeper = self.lock_keeper();
        if keeper.as_ref().is_some_and(|current| Arc::ptr_eq(current, old)) {
            // First the new one: a token logs out when its last session closes.
            let new = self.session()?;
            self.cache.clear();
            *keeper = Some(Arc::new(Keeper::new(new)));
        }
        Ok(())
    }

    /// Adds an unwrapped key to the cache, unless its keeper was replaced since: then nobody else may find it, and it is
    /// destroyed with its session when this one use ends.
    pub(super) fn admit(&self, name: Name, loaded: Loaded, owner: &Arc<Keeper>) -> Arc<Loaded> {
        let keeper = self.lock_keeper();
        if keeper.as_ref().is_some_and(|current| Arc::ptr_eq(current, owner)) {
            self.cache.insert(name, loaded)
        } else {
            Arc::new(loaded)
        }
    }

    /// Drops all handles and destroys all session objects, by closing their session: done when the token is not there, since
    /// session objects would go on working without it.
    pub(super) fn wipe(&self) {
        self.lock_keks().clear();
        let mut keeper = self.lock_keeper();
        self.cache.clear();
        *keeper = self.session().ok().map(|session| Arc::new(Keeper::new(session)));
    }

    fn lock_keeper(&self) -> MutexGuard<'_, Option<Arc<Keeper>>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps how a wrapped key was born, for its attestation.
    pub(super) fn remember_birth(&self, name: Name, born: Attributes) {
        let mut births = self.births.lock().unwrap_or_else(PoisonError::into_inner);
        // Births whose service went away before it asked.
        if births.len() >= MOST_BIRTHS {
            births.clear();
        }
        births.insert(name, born);
    }

    /// How a wrapped key was born: told once.
    pub(super) fn take_birth(&self, name: Name) -> Option<Attributes> {
        self.births.lock().unwrap_or_else(PoisonError::into_inner).remove(&name)
    }

    pub(super) fn lock_keks(&self) -> MutexGuard<'_, HashMap<KeyId, Object>> {
        self.keks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_transport(&self) -> MutexGuard<'_, Option<Transport>> {
        self.transport.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_anchor(&self) -> MutexGuard<'_, anchor::Cached> {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lock_abilities(&self) -> MutexGuard<'_, Option<Arc<[Ability]>>> {
        self.abilities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is pinned of the token, once it was enrolled.
    pub(super) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the token wraps: as its key-encryption keys were made to; before there are any, by the number that cannot be mistaken,
    /// where the token lists it. Whether it does what it lists is seen by a probe.
    pub(super) fn wrapping(&self) -> Result<Wrapping, Fault> {
        if let Some(kek) = self.identity().and_then(|identity| identity.keks.first().cloned()) {
            return Ok(kek.wrapping);
        }
        let listed = self.module.mechanisms(self.slot).map_err(|error| self.fault(error, Effect::Idle))?;
        let kwp = listed.contains(&recipe::wrapping(Wrapping::Kwp).number());
        Ok(if kwp { Wrapping::Kwp } else { Wrapping::Pad })
    }

    pub(super) fn pin_identity(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(identity));
    }

    /// A failed call as a fault; with the token gone, nothing of it stays loaded.
    pub(super) fn fault(&self, error: pkcs11_raw::Error, effect: Effect) -> Fault {
        let fault = codes::fault(error, effect);
        if fault.class == Class::DeviceGone {
            self.wipe();
        }
        fault
    }

    /// The token is not there.
    pub(super) fn gone(&self, text: impl Into<String>) -> Fault {
        self.wipe();
        let mend = codes::find("CKR_TOKEN_NOT_PRESENT").map(|row| row.mend).unwrap_or_default();
        Fault::new(Class::DeviceGone, text).hint(mend)
    }

    /// Makes a change durable, where the token does not do so by itself.
    pub(super) fn sync(&self) -> Result<(), Fault> {
        let Some(folder) = self.settings.sync_dir.as_ref() else { return Ok(()) };
        let failed = |error: std::io::Error| {
            let text = format!("the token was changed, but {} could not be written to disk: {error}", folder.display());
            Fault::new(Class::Ambiguous, text).hint("check `sync_dir` and the file system below it")
        };
        let folder = File::open(folder).map_err(failed)?;
        rustix::fs::syncfs(&folder).map_err(|error| failed(error.into()))
    }
}
