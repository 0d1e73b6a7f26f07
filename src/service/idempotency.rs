//! A change that is sent twice happens once.
//!
//! A change may carry an idempotency key. What came of it is committed *with* the change, bound to the caller and to the
//! body: a repetition gets the first outcome, another body under the same key is refused. One that comes while the first is
//! under way waits for it.
//!
//! ```text
//! idempotency/HASH      Stored, where HASH is that of principal and key
//! ```
//!
//! Where a token has a limit of uses, the use is taken off together with a record of what it was taken for. The same
//! request under the same key is covered by that use, and it alone: it is tried again where it failed, and answered where it
//! was done. Use and outcome stand in one record, so neither is forgotten without the other.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;

use super::Service;
use crate::error::{Error, Kind, Result};
use crate::keyring::KeyRecord;
use crate::store::{Change, Expected};
use crate::types::{
    Caller, EndpointName, IssuerName, KeyName, Name, Principal, ProfileName, Turns, Version, blocking, sha256,
};
use crate::x509::Serial;

/// The longest key, in bytes.
pub const MAX_KEY: usize = 128;
/// How long an outcome is kept.
const KEEP: SignedDuration = SignedDuration::from_hours(48);
/// How long a use that is over its time stays on record, so that none is forgotten while its repetition is under way.
const GRACE: SignedDuration = SignedDuration::from_hours(1);
/// How long a repetition waits for the first: less than a client waits for its answer, so that it hears of it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The idempotency key of one request, or none.
#[derive(Clone, Debug, Default)]
pub struct Idempotency(Option<(String, [u8; 32])>);

/// What came of a change: enough to build its answer again from what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A key was made, changed or rotated.
    Key(KeyName),
    /// Keys were made together.
    Keys(Vec<KeyName>),
    /// A version changed its state.
    Version(KeyName, Version),
    /// A token was made or revoked.
    Token(String),
    /// An identity was written or removed.
    Identity(Name),
    /// A policy was written or removed.
    Policy(Name),
    /// An ACME endpoint was made or removed.
    AcmeEndpoint(EndpointName),
    /// A key of ACME accounts was made or revoked.
    EabKey(EndpointName, String),
    /// An issuer was made or changed.
    Issuer(IssuerName),
    /// A profile was written or removed.
    Profile(ProfileName),
    /// Certificates were issued; `None` for an item of a batch that failed.
    Certificates(Vec<Option<Serial>>),
    /// An announcement was made or cancelled.
    Announcement(IssuerName, String),
    /// That many certificates were revoked.
    Revoked(usize),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    format: u32,
    body: String,
    at: Timestamp,
    /// The token that was charged for this request, where uses of it are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    charged: Option<String>,
    /// Absent until it was done.
    outcome: Option<Outcome>,
}

/// The right to work on a change, held until it is done.
#[derive(Debug)]
pub(super) struct Turn(Option<Own>);

/// The turn of a request with a key.
#[derive(Debug)]
struct Own {
    path: String,
    /// What stands there, or will, but for the outcome.
    stored: Stored,
    expected: Expected,
    _alone: OwnedMutexGuard<()>,
}

/// What is known of a request before it is charged.
pub(super) enum Charged {
    /// A use was taken off this token for this very request.
    Before,
    /// It was not, and this belongs to the change that takes one off.
    New(Option<Change>),
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

    /// Where the record of `principal` stands, and the body in hex.
    fn place(&self, principal: &Principal) -> Option<(String, String)> {
        let (key, body) = self.0.as_ref()?;
        let name = hex::encode(sha256(&[principal.to_string().as_bytes(), b"\0", key.as_bytes()]));
        Some((format!("idempotency/{name}"), hex::encode(body)))
    }
}

impl Service {
    /// What came of this change before, or the turn to do it now.
    pub(super) async fn once(
        &self,
        caller: &Caller,
        idempotency: &Idempotency,
    ) -> Result<std::result::Result<Outcome, Turn>> {
        let Some((path, body)) = idempotency.place(&caller.principal) else { return Ok(Err(Turn(None))) };
        let alone = alone(&self.in_flight, &path, PATIENCE).await?;
        let mut stored = Stored { format: 1, body, at: self.parts.ledger.clock().now(), charged: None, outcome: None };
        let mut expected = Expected::Absent;
        if let Some((before, revision)) = self.stored(&path).await? {
            if before.body != stored.body {
                return Err(Error::new(Kind::Conflict, "this idempotency key was used for another request")
                    .hint("use a new random key for each change, and the same one only to repeat it"));
            }
            if let Some(outcome) = before.outcome {
                return Ok(Ok(outcome));
            }
            (stored.charged, expected) = (before.charged, Expected::Revision(revision));
        }
        Ok(Err(Turn(Some(Own { path, stored, expected, _alone: alone }))))
    }

    /// Whether a use of `token` was taken off for this very request.
    pub(super) async fn charged(
        &self,
        token: &str,
        principal: &Principal,
        idempotency: &Idempotency,
    ) -> Result<Charged> {
        let Some((path, body)) = idempotency.place(principal) else { return Ok(Charged::New(None)) };
        let now = self.parts.ledger.clock().now();
        if let Some((before, _)) = self.stored(&path).await? {
            let same = before.body == body && before.charged.as_deref() == Some(token);
            let young = before.at.checked_add(KEEP).is_ok_and(|end| now < end);
            return Ok(if same && young { Charged::Before } else { Charged::New(None) });
        }
        let stored = Stored { format: 1, body, at: now, charged: Some(token.to_owned()), outcome: None };
        Ok(Charged::New(Some(stored.put(path, Expected::Absent)?)))
    }

    async fn stored(&self, path: &str) -> Result<Option<(Stored, u64)>> {
        let (store, path) = (self.parts.ledger.store(), path.to_owned());
        let Some(record) = blocking(move || store.get(&path)).await? else { return Ok(None) };
        let stored = serde_json::from_slice(&record.value)
            .map_err(|e| Error::new(Kind::Tampered, "an idempotency record cannot be read").because(e))?;
        Ok(Some((stored, record.revision)))
    }

    /// Removes outcomes that are older than two days.
    ///
    /// # Errors
    /// Where the store cannot be read or written.
    pub async fn forget_outcomes(&self) -> Result<()> {
        let oldest = self.parts.ledger.clock().now().checked_sub(KEEP + GRACE).unwrap_or(Timestamp::MIN);
        let store = self.parts.ledger.store();
        let look = move || {
            let mut changes = Vec::new();
            store.visit("idempotency/", &mut |record| {
                let old = serde_json::from_slice::<Stored>(&record.value).is_ok_and(|stored| stored.at < oldest);
                if old && changes.len() < 500 {
                    changes.push(Change { path: record.path, expected: Expected::Any, value: None });
                }
                Ok(())
            })?;
            Ok(changes)
        };
        let changes = blocking(look).await?;
        if changes.is_empty() {
            return Ok(());
        }
        let leaf = self.parts.admission.record_tidying("forget-outcomes");
        self.parts.ledger.commit(leaf, changes).await.map(drop)
    }
}

impl Stored {
    fn put(&self, path: String, expected: Expected) -> Result<Change> {
        let value = serde_json::to_vec(self).map_err(|e| Error::internal(format!("idempotency: {e}")))?;
        Ok(Change { path, expected, value: Some(value) })
    }
}

impl Turn {
    /// The record to commit with a change of a key.
    pub(super) fn of_key(&self) -> impl FnOnce(&KeyRecord) -> Result<Option<Change>> {
        |key| self.record(Outcome::Key(key.name.clone()))
    }

    /// The record to commit with the change.
    pub(super) fn record(&self, outcome: Outcome) -> Result<Option<Change>> {
        let Some(Own { path, stored, expected, _alone }) = &self.0 else { return Ok(None) };
        let stored = Stored { outcome: Some(outcome), ..stored.clone() };
        stored.put(path.clone(), *expected).map(Some)
    }
}

/// Waits until nobody else works on the change.
async fn alone(turns: &Turns<String>, path: &String, patience: Duration) -> Result<OwnedMutexGuard<()>> {
    timeout(patience, turns.of(path).lock_owned()).await.map_err(|_| {
        Error::new(Kind::Busy, "a request with this idempotency key is still being worked on")
            .hint("send it again with the same key: it is answered by what comes of the first")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_repetition_waits_and_then_is_told_to_come_again() {
        let (turns, path) = (Turns::default(), "idempotency/a".to_owned());
        let first = alone(&turns, &path, PATIENCE).await.unwrap();
        let busy = alone(&turns, &path, Duration::from_millis(1)).await.unwrap_err();
        assert!(busy.kind() == Kind::Busy && busy.wait().is_some(), "{busy:?}");
        alone(&turns, &"idempotency/b".to_owned(), Duration::ZERO).await.unwrap();
        let (second, ()) = tokio::join!(alone(&turns, &path, PATIENCE), async { drop(first) });
        second.unwrap();
    }
}
