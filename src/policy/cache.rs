//! Remembers what was made for a key: a table of fixed size whose slots are replaced when their hashes meet.
//!
//! No lock: readers of one slot never wait for each other or for a writer. A lost entry costs its next reader the
//! microseconds of making it again, never a different answer: an entry is used only for the very key it was made for.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwapOption;

/// The table.
pub(super) struct Cache<E> {
    slots: Box<[ArcSwapOption<E>]>,
    hasher: RandomState,
}

impl<E> Cache<E> {
    /// An empty table of `size` slots.
    pub(super) fn new(size: usize) -> Self {
        Self { slots: (0..size).map(|_| ArcSwapOption::empty()).collect(), hasher: RandomState::new() }
    }

    /// What is remembered for `key`, as `is` recognises it, or else what `make` makes, remembered if `keep` says so.
    pub(super) fn find_or_make(
        &self,
        key: &impl Hash,
        is: impl FnOnce(&E) -> bool,
        make: impl FnOnce() -> E,
        keep: impl FnOnce(&E) -> bool,
    ) -> Arc<E> {
        let slot = self.slot(key);
        if let Some(known) = slot.and_then(|slot| slot.load_full()).filter(|known| is(known)) {
            return known;
        }
        let made = Arc::new(make());
        if let Some(slot) = slot.filter(|_| keep(&made)) {
            slot.store(Some(made.clone()));
        }
        made
    }

    fn slot(&self, key: &impl Hash) -> Option<&ArcSwapOption<E>> {
        let hash = usize::try_from(self.hasher.hash_one(key) & u64::from(u32::MAX)).ok()?;
        self.slots.get(hash.checked_rem(self.slots.len())?)
    }
}

impl<E> std::fmt::Debug for Cache<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({})", self.slots.len())
    }
}
