//! The only way to change state.
//!
//! A change is a batch of records and one leaf of the audit log that vouches for it. The order is a safety property:
//!
//! ```text
//! 1  the batch and its leaf, as `ledger/open`, are committed to the store in one transaction
//! 2  the leaf is durable in the log
//! 3  the change is acknowledged
//! ```
//!
//! A crash between 1 and 2 leaves an open leaf: start-up appends it, so a change is always rolled forward and never
//! forgotten by the log. The anchor of the whole state will stand between 1 and 2.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::audit::{Log, Phase, Record};
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::store::certificates::{Counts, End, Reservation, Row};
use crate::store::{Change, Expected, Store};
use crate::types::{Clock, blocking, sha256};

/// Where the leaf stands that may not be in the log yet.
const OPEN: &str = "ledger/open";
/// How many certificates there are.
const COUNTS: &str = "ledger/certificates";
/// The fact of a leaf that tells it from all others, and vouches for what changed.
const FACT: &str = "change";

/// The one writer of the store and of the changes in the log.
pub struct Ledger {
    store: Arc<dyn Store>,
    log: Arc<Log>,
    clock: Clock,
    /// Held from the commit to the leaf, so that leaves stand in the order of their commits and only the last can be open.
    /// Holds how many certificates there are, once they were counted; a commit that failed leaves that open.
    turn: Mutex<Option<Counts>>,
}

/// A leaf on its way into the log.
#[derive(Serialize, Deserialize)]
struct Open {
    /// How many records the log had before.
    after: u64,
    leaf: Record,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ledger")
    }
}

impl Ledger {
    /// Takes over `store` and `log`, and rolls forward what a crash left open. Answers what it mended.
    ///
    /// # Errors
    /// Where either cannot be read or written.
    pub async fn open(store: Arc<dyn Store>, log: Arc<Log>, clock: Clock) -> Result<(Self, Option<String>)> {
        let ledger = Self { store, log, clock, turn: Mutex::new(None) };
        let mended = ledger.roll_forward().await?;
        ledger.count().await?;
        Ok((ledger, mended))
    }

    async fn roll_forward(&self) -> Result<Option<String>> {
        let store = self.store.clone();
        let Some(record) = blocking(move || store.get(OPEN)).await? else { return Ok(None) };
        let Open { after, leaf } = serde_json::from_slice(&record.value)
            .map_err(|e| Error::new(Kind::Tampered, "the open change of the ledger cannot be read").because(e))?;
        if after > self.log.size() {
            let sizes = format!("the store has seen {after} audit records, the log holds {}", self.log.size());
            return Err(Error::new(Kind::Tampered, sizes)
                .hint("the audit log was cut or put back: restore it, or restore a backup of both"));
        }
        let log = self.log.clone();
        let id = leaf.facts.get(FACT).cloned();
        let known = blocking(move || {
            let mut records = crate::audit::read(log.folder(), after)?;
            Ok(records.any(|record| record.is_ok_and(|(_, record)| record.facts.get(FACT) == id.as_ref())))
        });
        if known.await? {
            return Ok(None);
        }
        let what = format!("{} of {}", leaf.action, leaf.resource);
        crash_point!("ledger.before_roll_forward");
        self.log.append(&leaf).await?;
        crash_point!("ledger.rolled_forward");
        Ok(Some(format!("a crash had come between a change and its audit record: recorded {what}")))
    }

    /// Makes `changes` and records them under `leaf`, whose phase and time are set here. All of it is durable on return.
    /// Answers the revision of the changed records.
    ///
    /// # Errors
    /// `Stale` and `Conflict` where an expectation does not hold: then nothing changed and nothing was recorded.
    /// `Unavailable` where store or log cannot be written: the change may have been made, and a repetition with the same
    /// idempotency key finds out.
    pub async fn commit(&self, leaf: Record, changes: Vec<Change>) -> Result<u64> {
        let mut turn = self.turn.lock().await;
        self.write(&mut turn, leaf, changes, Vec::new()).await
    }

    /// As [`Self::commit`], and reserves certificates that are about to be signed. `take` gets their numbers, in order, before anybody can
    /// see the reservations; what it makes of them is the answer, and is dropped where the commit fails.
    ///
    /// # Errors
    /// As [`Self::commit`]; `Conflict` for a serial number that was used.
    pub async fn reserve<T>(
        &self,
        leaf: Record,
        changes: Vec<Change>,
        mut reservations: Vec<Reservation>,
        take: impl FnOnce(Vec<u64>) -> T,
    ) -> Result<T> {
        let mut turn = self.turn.lock().await;
        let last = self.counted(&mut turn).await?.reserved;
        for (number, reservation) in (last + 1..).zip(&mut reservations) {
            reservation.number = number;
        }
        let taken = take(reservations.iter().map(|reservation| reservation.number).collect());
        self.write(&mut turn, leaf, changes, reservations.into_iter().map(Row::Reserve).collect()).await?;
        Ok(taken)
    }

    /// As [`Self::commit`], and says what came of reservations.
    ///
    /// # Errors
    /// As [`Self::commit`]; `Conflict` for a reservation that has an end.
    pub async fn end(&self, leaf: Record, changes: Vec<Change>, ends: Vec<End>) -> Result<u64> {
        let mut turn = self.turn.lock().await;
        self.write(&mut turn, leaf, changes, ends.into_iter().map(Row::End).collect()).await
    }

    /// Commits while the turn is held.
    async fn write(
        &self,
        turn: &mut Option<Counts>,
        leaf: Record,
        mut changes: Vec<Change>,
        rows: Vec<Row>,
    ) -> Result<u64> {
        let mut counts = *turn;
        if !rows.is_empty() {
            let grown = grow(self.counted(turn).await?, &rows);
            let value = serde_json::to_vec(&grown).map_err(|e| Error::internal(format!("ledger: {e}")))?;
            changes.push(Change { path: COUNTS.to_owned(), expected: Expected::Any, value: Some(value) });
            counts = Some(grown);
            // Whether a commit that fails was made is not known: then the next one counts again.
            *turn = None;
        }
        let mut leaf = Record { phase: Phase::Change, time: self.clock.now().to_string(), ..leaf };
        leaf.outcome = "ok".to_owned();
        leaf.facts.insert(FACT.to_owned(), identify(&changes, &rows)?);
        let open = Open { after: self.log.size(), leaf };
        let value = serde_json::to_vec(&open).map_err(|e| Error::internal(format!("ledger: {e}")))?;
        changes.push(Change { path: OPEN.to_owned(), expected: Expected::Any, value: Some(value) });
        let store = self.store.clone();
        crash_point!("ledger.before_commit");
        let revision = blocking(move || store.commit_rows(&changes, &rows)).await?;
        crash_point!("ledger.committed");
        *turn = counts;
        self.log.append(&open.leaf).await?;
        crash_point!("ledger.recorded");
        Ok(revision)
    }

    /// How many certificates there are, as a sealed record says.
    async fn counted(&self, turn: &mut Option<Counts>) -> Result<Counts> {
        if let Some(counts) = *turn {
            return Ok(counts);
        }
        let store = self.store.clone();
        let Some(record) = blocking(move || store.get(COUNTS)).await? else { return Ok(Counts::default()) };
        let counts = serde_json::from_slice(&record.value)
            .map_err(|e| Error::new(Kind::Tampered, "the count of certificates cannot be read").because(e))?;
        Ok(*turn.insert(counts))
    }

    /// Compares the table of certificates with the sealed count: a row that was removed has no tag to fail.
    async fn count(&self) -> Result<()> {
        let mut turn = self.turn.lock().await;
        let (sealed, store) = (self.counted(&mut turn).await?, self.store.clone());
        let found = blocking(move || store.count_certificates()).await?;
        if found == sealed {
            return Ok(());
        }
        let text = format!(
            "the inventory of certificates holds {} rows, {} names and {} ends, and should hold {}, {} and {}",
            found.reserved, found.names, found.ended, sealed.reserved, sealed.names, sealed.ended
        );
        Err(Error::new(Kind::Tampered, text).hint("rows were added or removed in the database: restore a backup"))
    }

    /// How many certificates were reserved and have no end: they are being signed, or were when the service died.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn unfinished(&self) -> Result<u64> {
        let mut turn = self.turn.lock().await;
        let Counts { reserved, ended, .. } = self.counted(&mut turn).await?;
        Ok(reserved.saturating_sub(ended))
    }

    /// The number of the last reservation.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn reserved(&self) -> Result<u64> {
        let mut turn = self.turn.lock().await;
        Ok(self.counted(&mut turn).await?.reserved)
    }

    /// The store, to read from.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// The time of day.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// The counts once `rows` are there.
fn grow(counts: Counts, rows: &[Row]) -> Counts {
    rows.iter().fold(counts, |counts, row| match row {
        Row::Reserve(one) => {
            Counts { reserved: counts.reserved + 1, names: counts.names + one.names.len() as u64, ..counts }
        }
        Row::End(_) => Counts { ended: counts.ended + 1, ..counts },
    })
}

/// A random part, so that no two changes are the same, and a hash over paths, values and rows, so that the log vouches for
/// them.
fn identify(changes: &[Change], rows: &[Row]) -> Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|e| Error::internal(format!("random bytes: {e}")))?;
    let mut hashes = Vec::new();
    for Change { path, expected: _, value } in changes {
        hashes.extend(sha256(&[path.as_bytes()]));
        hashes.extend(value.as_ref().map_or([0; 32], |value| sha256(&[value])));
    }
    for row in rows {
        hashes.extend(sha256(&[&row.to_bytes()]));
    }
    Ok(format!("{}:{}", hex::encode(random), hex::encode(sha256(&[&hashes]))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Origin, Settings};
    use crate::store::{Sealed, Sqlite, StorageKey};

    /// Whoever looks for reservations that nobody signs finds none that it does not know the number of.
    #[tokio::test]
    async fn a_number_is_taken_before_its_reservation_can_be_seen() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::new(folder.path().join("audit"), Origin::of_instance("test").unwrap());
        let driver = Sqlite::create(&folder.path().join("signet.db")).unwrap();
        let store: Arc<dyn Store> = Arc::new(Sealed::new(driver, StorageKey::generate().unwrap()));
        let log = Arc::new(Log::create(settings).unwrap());
        let (ledger, _) = Ledger::open(store.clone(), log, Clock::default()).await.unwrap();
        let leaf = serde_json::json!({"phase": "change", "time": "", "request": "r", "principal": "identity/a",
            "action": "IssueCertificate", "resource": "issuer/a:b"});
        let leaf = || serde_json::from_value::<Record>(leaf.clone()).unwrap();
        let time = jiff::Timestamp::UNIX_EPOCH;
        let reservation = |serial| Reservation {
            number: 0,
            serial: [serial; 20],
            issuer: "a:b".parse().unwrap(),
            version: crate::types::Version::FIRST,
            profile: "default:server".to_owned(),
            requester: "identity/a".to_owned(),
            subject: String::new(),
            names: Vec::new(),
            not_before: time,
            not_after: time,
            at: time,
            body: vec![1],
            tag: [0; 32],
        };
        let take = |numbers| {
            assert!(store.open_reservations().unwrap().is_empty());
            assert!(ledger.turn.try_lock().is_err(), "nobody else commits before these");
            numbers
        };
        let taken = ledger.reserve(leaf(), Vec::new(), vec![reservation(1), reservation(2)], take).await.unwrap();
        assert_eq!((taken, store.open_reservations().unwrap().len()), (vec![1, 2], 2));
        assert_eq!(ledger.reserved().await.unwrap(), 2);
        // A commit that fails leaves nothing taken.
        let guard = Arc::new(());
        let held = guard.clone();
        let again = ledger.reserve(leaf(), Vec::new(), vec![reservation(1)], |_| held).await;
        assert!(again.is_err() && Arc::strong_count(&guard) == 1);
    }
}
