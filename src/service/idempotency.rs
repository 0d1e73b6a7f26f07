//! A change that is sent twice happens once.
//!
//! A change may carry an idempotency key. What came of it is committed *with* the change, bound to the caller and to the
//! body: a repetition gets the first outcome, another body under the same key is refused.
//!
//! ```text
//! idempotency/HASH      Stored, where HASH is that of principal and key
//! ```

use std::sync::PoisonError;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::Service;
use crate::error::{Error, Kind, Result};
use crate::store::{Change, Expected};
use crate::types::{Caller, KeyName, Name, Version, blocking, sha256};

/// The longest key, in bytes.
const MAX_KEY: usize = 128;
/// How long an outcome is kept.
const KEEP: SignedDuration = SignedDuration::from_hours(48);

/// The idempotency key of one request, or none.
#[derive(Clone, Debug, Default)]
pub struct Idempotency(Option<(String, [u8; 32])>);

/// What came of a change: enough to build its answer again from what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A key was made, changed or rotated.
    Key(KeyName),
    /// A version changed its state.
    Version(KeyName, Version),
    /// A token was made or revoked.
    Token(String),
    /// An identity was written or removed.
    Identity(Name),
    /// A policy was written or removed.
    Policy(Name),
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    body: String,
    at: Timestamp,
    outcome: Outcome,
}

/// The right to work on a change, held until it is done.
#[derive(Debug)]
pub(super) struct Turn<'s> {
    service: &'s Service,
    own: Option<(String, String)>,
}

impl Idempotency {
    /// The key of a request with `body` (method, address and content).
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a key that is empty, too long, or not printable ASCII.
    pub fn new(key: Option<&str>, body: &[&[u8]]) -> Result<Self> {
        let Some(key) = key else { return Ok(Self(None)) };
        if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(|b| b.is_ascii_graphic()) {
            let text = format!("an idempotency key has 1 to {MAX_KEY} printable ASCII characters");
            return Err(Error::new(Kind::Invalid, text));
        }
        Ok(Self(Some((key.to_owned(), sha256(body)))))
    }
}

impl Service {
    /// What came of this change before, or the turn to do it now.
    pub(super) async fn once(
        &self,
        caller: &Caller,
        idempotency: &Idempotency,
    ) -> Result<std::result::Result<Outcome, Turn<'_>>> {
        let Some((key, body)) = &idempotency.0 else { return Ok(Err(Turn { service: self, own: None })) };
        let name = hex::encode(sha256(&[caller.principal.to_string().as_bytes(), b"\0", key.as_bytes()]));
        let path = format!("idempotency/{name}");
        let fresh = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone());
        if !fresh {
            return Err(Error::new(Kind::Conflict, "a request with this idempotency key is still being worked on")
                .hint("wait for it, or ask again in a moment"));
        }
        let turn = Turn { service: self, own: Some((path.clone(), hex::encode(body))) };
        let store = self.parts.ledger.store();
        let stored = blocking(move || store.get(&path)).await?;
        let Some(record) = stored else { return Ok(Err(turn)) };
        let stored: Stored = serde_json::from_slice(&record.value)
            .map_err(|e| Error::new(Kind::Tampered, "an idempotency record cannot be read").because(e))?;
        if stored.body != hex::encode(body) {
            return Err(Error::new(Kind::Conflict, "this idempotency key was used for another request")
                .hint("use a new random key for each change, and the same one only to repeat it"));
        }
        Ok(Ok(stored.outcome))
    }

    /// Removes outcomes that are older than two days.
    ///
    /// # Errors
    /// Where the store cannot be read or written.
    pub async fn forget_outcomes(&self) -> Result<()> {
        let oldest = self.parts.ledger.clock().now().checked_sub(KEEP).unwrap_or(Timestamp::MIN);
        let store = self.parts.ledger.store();
        let records = blocking(move || store.scan("idempotency/")).await?;
        let old = |value: &[u8]| serde_json::from_slice::<Stored>(value).is_ok_and(|stored| stored.at < oldest);
        let changes: Vec<_> = records
            .into_iter()
            .filter(|record| old(&record.value))
            .take(500)
            .map(|record| Change { path: record.path, expected: Expected::Any, value: None })
            .collect();
        if changes.is_empty() {
            return Ok(());
        }
        let leaf = self.parts.admission.record_tidying("forget-outcomes");
        self.parts.ledger.commit(leaf, changes).await.map(drop)
    }
}

impl Turn<'_> {
    /// The record to commit with the change.
    pub(super) fn record(&self, outcome: Outcome) -> Result<Option<Change>> {
        let Some((path, body)) = &self.own else { return Ok(None) };
        let at = self.service.parts.ledger.clock().now();
        let stored = Stored { format: 1, body: body.clone(), at, outcome };
        let value = serde_json::to_vec(&stored).map_err(|e| Error::internal(format!("idempotency: {e}")))?;
        Ok(Some(Change { path: path.clone(), expected: Expected::Absent, value: Some(value) }))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.own {
            self.service.in_flight.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
        }
    }
}
