//! Keys that are loaded: where a use finds its handle without asking the token.
//!
//! Handles of token objects stay until they are forgotten. Unwrapped keys are session objects, which cost the token's memory,
//! so there are at most so many of them; the ones not used lately go first (second chance, so that a use writes one flag and
//! moves nothing). What is dropped is destroyed only when no lane is in the middle of a call with it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use pkcs11_raw::{Object, Session};

use crate::types::{Algorithm, KeyId, Version};

/// Which key version.
pub(super) type Name = (KeyId, Version);

/// The session that unwrapped keys belong to, so that they outlive the sessions of lanes. It carries only calls that begin and
/// end in one, hence a call that fails leaves nothing behind in it, and need not cost all keys that hang on it.
#[derive(Debug)]
pub(super) struct Keeper {
    session: Mutex<Session>,
}

impl Keeper {
    pub(super) const fn new(session: Session) -> Self {
        Self { session: Mutex::new(session) }
    }

    /// The session, for one call or two. The lock keeps two lanes from being in one session; under it are taken only the
    /// lock on which keeper is the current one, and the cache's own.
    pub(super) fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle with the one thing it may be used for.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) object: Object,
    pub(super) algorithm: Algorithm,
    /// The owner of a session object; `None` for a token object. Held so that the session outlives each use.
    keeper: Option<Arc<Keeper>>,
    used: AtomicBool,
}

impl Loaded {
    pub(super) const fn resident(object: Object, algorithm: Algorithm) -> Self {
        Self { object, algorithm, keeper: None, used: AtomicBool::new(true) }
    }

    pub(super) const fn unwrapped(object: Object, algorithm: Algorithm, keeper: Arc<Keeper>) -> Self {
        Self { object, algorithm, keeper: Some(keeper), used: AtomicBool::new(true) }
    }
}

/// All loaded keys of the process.
#[derive(Debug)]
pub(super) struct Cache {
    /// Protects the table, for the time of a look-up or a move within memory: no call is made under it.
    table: RwLock<Table>,
    room: usize,
}

#[derive(Debug, Default)]
struct Table {
    keys: HashMap<Name, Arc<Loaded>>,
    /// The unwrapped ones, in the order in which they are asked whether they were used.
    ring: VecDeque<Name>,
    /// Dropped, and not yet destroyed.
    graves: Vec<Arc<Loaded>>,
}

impl Cache {
    pub(super) fn new(room: u32) -> Self {
        Self { table: RwLock::default(), room: usize::try_from(room).unwrap_or(usize::MAX).max(1) }
    }

    /// The handle of a key, if it is loaded for this algorithm.
    pub(super) fn find(&self, name: Name, algorithm: Algorithm) -> Option<Arc<Loaded>> {
        let table = self.read();
        let loaded = table.keys.get(&name).filter(|loaded| loaded.algorithm == algorithm)?;
        loaded.used.store(true, Ordering::Relaxed);
        Some(Arc::clone(loaded))
    }

    /// Adds a key, and drops another one if there is no room.
    pub(super) fn insert(&self, name: Name, loaded: Loaded) -> Arc<Loaded> {
        let loaded = Arc::new(loaded);
        let mut table = self.write();
        table.remove(name);
        if loaded.keeper.is_some() {
            while table.ring.len() >= self.room && table.evict() {}
            table.ring.push_back(name);
        }
        table.keys.insert(name, Arc::clone(&loaded));
        loaded
    }

    /// Drops a key.
    pub(super) fn forget(&self, name: Name) {
        self.write().remove(name);
    }

    /// Drops all keys, without a call for each: their session is closed when the last use of one of them ends.
    pub(super) fn clear(&self) {
        *self.write() = Table::default();
    }

    /// Session objects that the token holds for us.
    pub(super) fn unwrapped(&self) -> usize {
        let table = self.read();
        table.ring.len() + table.graves.len()
    }

    /// Whether there is something for [`Self::bury`] to do.
    pub(super) fn has_graves(&self) -> bool {
        !self.read().graves.is_empty()
    }

    /// Destroys what was dropped and is not in use, in the session of `keeper`. What the token refuses is kept for the next
    /// time, and a number of them is answered.
    pub(super) fn bury(&self, keeper: &Arc<Keeper>, session: &Session) -> usize {
        let mut idle = Vec::new();
        {
            let mut table = self.write();
            let mut kept = Vec::new();
            for grave in table.graves.drain(..) {
                let ours = grave.keeper.as_ref().is_some_and(|owner| Arc::ptr_eq(owner, keeper));
                match Arc::strong_count(&grave) {
                    1 if ours => idle.push(grave),
                    // Of a session that is closed, or closes with its last use: its objects go with it.
                    1 => {}
                    _ => kept.push(grave),
                }
            }
            table.graves = kept;
        }
        let refused: Vec<_> = idle.into_iter().filter(|grave| !is_gone(session.destroy(grave.object))).collect();
        let count = refused.len();
        self.write().graves.extend(refused);
        count
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn remove(&mut self, name: Name) {
        if let Some(loaded) = self.keys.remove(&name)
            && loaded.keeper.is_some()
        {
            self.ring.retain(|other| *other != name);
            self.graves.push(loaded);
        }
    }

    /// Drops the first of the ring that was not used since it was asked last.
    fn evict(&mut self) -> bool {
        while let Some(name) = self.ring.pop_front() {
            let used = self.keys.get(&name).is_some_and(|loaded| loaded.used.swap(false, Ordering::Relaxed));
            if used {
                self.ring.push_back(name);
            } else {
                self.graves.extend(self.keys.remove(&name));
                return true;
            }
        }
        false
    }
}

/// Whether an object is gone after an attempt to destroy it.
fn is_gone(result: pkcs11_raw::Result<()>) -> bool {
    use pkcs11_raw::ck::{CKR_KEY_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID};
    match result {
        Ok(()) => true,
        Err(error) => matches!(error.code, CKR_OBJECT_HANDLE_INVALID | CKR_KEY_HANDLE_INVALID),
    }
}
