//! Remembers what was prepared for a question: a table of fixed size whose slots are replaced when their hashes meet.
//!
//! No lock: readers of one slot never wait for each other or for a writer. A lost entry costs its question the
//! microseconds of preparing it again.

use std::hash::RandomState;
use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::case::Case;
use super::question::{Owned, Question};

/// How many questions are remembered.
const SLOTS: usize = 16_384;

struct Entry {
    question: Owned,
    case: Case,
}

/// The table.
pub(super) struct Cache {
    slots: Box<[ArcSwapOption<Entry>]>,
    hasher: RandomState,
}

impl Cache {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| ArcSwapOption::empty()).collect(), hasher: RandomState::new() }
    }

    /// Applies `answer` to what is remembered for `question`, or else to what `prepare` makes, which is remembered.
    pub(super) fn with<T>(
        &self,
        question: &Question<'_>,
        prepare: impl FnOnce() -> Case,
        answer: impl FnOnce(&Case) -> T,
    ) -> T {
        let Some(slot) = self.slot(question) else { return answer(&prepare()) };
        let known = slot.load();
        match known.as_ref() {
            Some(entry) if entry.question.is(question) => answer(&entry.case),
            Some(_) | None => {
                let entry = Arc::new(Entry { question: Owned::new(question), case: prepare() });
                slot.store(Some(entry.clone()));
                answer(&entry.case)
            }
        }
    }

    fn slot(&self, question: &Question<'_>) -> Option<&ArcSwapOption<Entry>> {
        let hash = question.hash(&self.hasher);
        let at = usize::try_from(hash % SLOTS as u64).ok()?;
        self.slots.get(at)
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cache({})", self.slots.len())
    }
}
