//! All keys in memory: immutable snapshots by name, and where those stand that something is to be done about.
//!
//! A look-up, a page of a list, a change and a tick of the scheduler walk over no keys but those that they answer, so that they take
//! hardly longer among a million keys than among a hundred.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;

use super::Key;
use super::schedule::{Due, due};
use crate::types::{Domain, KeyId, KeyName, Name};

/// All keys.
#[derive(Default)]
pub(super) struct Catalogue {
    /// Protects all tables. Never held across an await or a device call.
    tables: RwLock<Tables>,
}

#[derive(Default)]
struct Tables {
    keys: BTreeMap<KeyName, Entry>,
    /// When there is first something to do about a key.
    due: BTreeMap<(Timestamp, KeyId), KeyName>,
    /// When a key rotates by age.
    rotations: BTreeSet<(Timestamp, KeyId)>,
    /// Keys whose public halves everybody may read.
    published: BTreeSet<KeyName>,
}

struct Entry {
    key: Arc<Key>,
    /// Where it stands among the due ones.
    due: Due,
}

impl Catalogue {
    /// The key with that name.
    pub(super) fn find(&self, name: &KeyName) -> Option<Arc<Key>> {
        self.read().keys.get(name).map(|entry| entry.key.clone())
    }

    pub(super) fn len(&self) -> usize {
        self.read().keys.len()
    }

    /// Puts snapshots in place of earlier ones, all of them at once.
    pub(super) fn put(&self, keys: impl IntoIterator<Item = Arc<Key>>) {
        let mut tables = self.write();
        for key in keys {
            tables.put(key);
        }
    }

    /// Looks again when there is something to do about a key: its counter may have moved that.
    pub(super) fn reconsider(&self, key: &Key) {
        let known =
            |tables: &Tables| tables.keys.get(&key.record.name).is_some_and(|entry| entry.due == due(&entry.key));
        if known(&self.read()) {
            return;
        }
        let mut tables = self.write();
        if let Some(key) = tables.keys.get(&key.record.name).map(|entry| entry.key.clone()) {
            tables.put(key);
        }
    }

    /// At most `limit` keys after `after`, in the order of their names, of one namespace or of all.
    pub(super) fn page(&self, namespace: Option<&Name>, after: Option<&KeyName>, limit: usize) -> Vec<Arc<Key>> {
        // No name stands before this one.
        let first = namespace.and_then(|own| Some(KeyName { namespace: own.clone(), name: Name::new("0").ok()? }));
        let start = match (after, &first) {
            (Some(after), Some(first)) if after < first => Bound::Included(first),
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(first)) => Bound::Included(first),
            (None, None) => Bound::Unbounded,
        };
        let tables = self.read();
        let keys = tables.keys.range((start, Bound::Unbounded));
        keys.take_while(|(name, _)| namespace.is_none_or(|own| name.namespace == *own))
            .take(limit)
            .map(|(_, entry)| entry.key.clone())
            .collect()
    }

    /// The keys about which there is something to do by `now`, what waits longest first.
    pub(super) fn due(&self, now: Timestamp) -> Vec<Arc<Key>> {
        let tables = self.read();
        let names = tables.due.range(..=(now, LAST)).map(|(_, name)| name);
        names.filter_map(|name| tables.keys.get(name)).map(|entry| entry.key.clone()).collect()
    }

    /// How many rotations by age fall due after `from` and before `until`.
    pub(super) fn rotations(&self, from: Timestamp, until: Timestamp) -> usize {
        self.read().rotations.range((Bound::Excluded((from, LAST)), Bound::Excluded((until, FIRST)))).count()
    }

    /// The keys whose public halves everybody may read, in the order of their names.
    pub(super) fn published(&self) -> Vec<Arc<Key>> {
        let tables = self.read();
        tables.published.iter().filter_map(|name| tables.keys.get(name)).map(|entry| entry.key.clone()).collect()
    }

    /// How many these are.
    pub(super) fn count_published(&self) -> usize {
        self.read().published.len()
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }
}

const FIRST: KeyId = KeyId::from_bytes([0; 16]);
const LAST: KeyId = KeyId::from_bytes([0xff; 16]);

impl Tables {
    fn put(&mut self, key: Arc<Key>) {
        let (name, id, due) = (key.record.name.clone(), key.record.id, due(&key));
        if key.record.domain == Some(Domain::Jwt) {
            self.published.insert(name.clone());
        }
        let before = self.keys.insert(name.clone(), Entry { key, due });
        let before = before.map(|entry| entry.due).unwrap_or_default();
        if let Some(at) = before.first {
            self.due.remove(&(at, id));
        }
        if let Some(at) = before.rotation {
            self.rotations.remove(&(at, id));
        }
        self.due.extend(due.first.map(|at| ((at, id), name)));
        self.rotations.extend(due.rotation.map(|at| (at, id)));
    }
}
