//! One at a time for each name.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// A turn for each name: whoever holds it is alone with what it names.
#[derive(Debug)]
pub struct Turns<N>(Mutex<HashMap<N, Arc<tokio::sync::Mutex<()>>>>);

impl<N> Default for Turns<N> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<N: Clone + Eq + Hash> Turns<N> {
    /// The turn of `name`, to be locked.
    pub fn of(&self, name: &N) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Turns that nobody holds or waits for are forgotten, so that the table does not grow with the names.
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry(name.clone()).or_default().clone()
    }
}
