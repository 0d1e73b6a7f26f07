//! The only way to change state.
//!
//! A change is a batch of records and one leaf of the audit log that vouches for it. The order is a safety property:
//!
//! ```text
//! 1  the batch and its leaf, in `ledger/open`, are committed to the store in one transaction
//! 2  the leaf is durable in the log
//! 3  the change is acknowledged
//! ```
//!
//! A crash between 1 and 2 leaves an open leaf: start-up appends it, so a change is always rolled forward and never
//! forgotten by the log. So does a log that cannot be written for a while: the change counts, memory follows the store, and the
//! log takes nothing else before its leaf, so that nothing is acknowledged until it can be written again. The anchor of the whole state will stand between 1 and 2.
//!
//! Changes that wait while another is made share the next transaction, and their leaves one sync of the log: the order holds for
//! each of them, and what the disk takes is shared. Where that transaction is refused, each is made by itself.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Deserializer, Serialize};
use tokio::sync::oneshot;

use crate::audit::{Log, Phase, Record};
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::store::certificates::{Counts, End, Reservation, Row};
use crate::store::{Change, Expected, Store};
use crate::types::{Clock, blocking, sha256};

/// Where the leaves stand that may not be in the log yet.
const OPEN: &str = "ledger/open";
/// How many certificates there are.
const COUNTS: &str = "ledger/certificates";
/// The fact of a leaf that tells it from all others, and vouches for what changed.
const FACT: &str = "change";
/// The most changes that share a transaction.
pub const MOST_CHANGES: usize = 100;
/// The most records and rows of all of them: their leaves stand in one record, and name each.
const MOST_PARTS: usize = 4000;

/// The one writer of the store and of the changes in the log.
pub struct Ledger {
    writer: Arc<Writer>,
}

/// What [`Ledger`] and the task that writes for it share.
struct Writer {
    store: Arc<dyn Store>,
    log: Arc<Log>,
    clock: Clock,
    /// Changes that wait for a transaction. Never held across an await; taken by itself or within `turn`.
    queue: Mutex<Queue>,
    /// Held from a commit to its leaves, so that leaves stand in the order of their commits and only the last can be open.
    turn: tokio::sync::Mutex<Turn>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether a task takes what waits.
    served: bool,
}

/// What is known from one commit to the next.
#[derive(Default)]
struct Turn {
    /// How many certificates there are, once they were counted; a commit that failed leaves that open.
    counts: Option<Counts>,
    /// Whether a leaf of the last commit could not be recorded: nothing is committed before it is.
    unrecorded: bool,
}

/// A change that is asked for, and who waits for it.
struct Waiting {
    change: Asked,
    reply: oneshot::Sender<Result<Made>>,
}

/// What is to change, and the leaf that says so.
struct Asked {
    leaf: Record,
    changes: Vec<Change>,
    rows: Vec<Row>,
}

/// A change that was made.
struct Made {
    revision: u64,
    /// The numbers of its reservations, in order.
    numbers: Vec<u64>,
}

/// Leaves on their way into the log.
#[derive(Serialize, Deserialize)]
struct Open {
    /// How many records the log had before.
    after: u64,
    /// The leaves, in order. A program before this one wrote a `leaf` alone.
    #[serde(alias = "leaf", deserialize_with = "one_or_more")]
    leaves: Vec<Record>,
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
        let writer = Writer { store, log, clock, queue: Mutex::default(), turn: tokio::sync::Mutex::default() };
        let mended = writer.roll_forward().await?;
        let ledger = Self { writer: Arc::new(writer) };
        ledger.count().await?;
        let mended =
            mended.map(|what| format!("a crash had come between a change and its audit record: recorded {what}"));
        Ok((ledger, mended))
    }

    /// Makes `changes` and records them under `leaf`, whose phase and time are set here. All of it is durable on return.
    /// Answers the revision of the changed records, which other changes may have as well.
    ///
    /// # Errors
    /// `Stale` and `Conflict` where an expectation does not hold: then nothing changed and nothing was recorded.
    /// `Unavailable` where the store cannot be written: whether the change was made can be asked by a repetition with the same
    /// idempotency key. Where it was made and the log cannot be written, this is no error: what is in memory follows the store.
    /// But the log then takes nothing else before the leaf, so that no operation can end well and be acknowledged.
    pub async fn commit(&self, leaf: Record, changes: Vec<Change>) -> Result<u64> {
        self.make(Asked { leaf, changes, rows: Vec::new() }).await.map(|made| made.revision)
    }

    /// As [`Self::commit`], and reserves certificates that are about to be signed. Answers their numbers, in order.
    ///
    /// # Errors
    /// As [`Self::commit`]; `Conflict` for a serial number that was used.
    pub async fn reserve(
        &self,
        leaf: Record,
        changes: Vec<Change>,
        reservations: Vec<Reservation>,
    ) -> Result<Vec<u64>> {
        let rows = reservations.into_iter().map(Row::Reserve).collect();
        self.make(Asked { leaf, changes, rows }).await.map(|made| made.numbers)
    }

    /// As [`Self::commit`], and says what came of reservations.
    ///
    /// # Errors
    /// As [`Self::commit`]; `Conflict` for a reservation that has an end.
    pub async fn end(&self, leaf: Record, changes: Vec<Change>, ends: Vec<End>) -> Result<u64> {
        let rows = ends.into_iter().map(Row::End).collect();
        self.make(Asked { leaf, changes, rows }).await.map(|made| made.revision)
    }

    /// Has a change made, with others that wait by then. It is made also where nobody waits for it any more.
    async fn make(&self, change: Asked) -> Result<Made> {
        let (reply, answer) = oneshot::channel();
        let served = {
            let mut queue = self.writer.queue();
            queue.waiting.push_back(Waiting { change, reply });
            std::mem::replace(&mut queue.served, true)
        };
        if !served {
            tokio::spawn(serve(Serving { writer: self.writer.clone(), done: false }));
        }
        answer.await.map_err(|_| Error::internal("a change was lost on its way to the store"))?
    }

    /// Compares the table of certificates with the sealed count: a row that was removed has no tag to fail.
    async fn count(&self) -> Result<()> {
        let mut turn = self.writer.turn.lock().await;
        let (sealed, store) = (self.writer.counted(&mut turn).await?, self.store());
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
        let mut turn = self.writer.turn.lock().await;
        let Counts { reserved, ended, .. } = self.writer.counted(&mut turn).await?;
        Ok(reserved.saturating_sub(ended))
    }

    /// Records what could not be recorded when it was made. Without such a thing it costs nothing.
    ///
    /// # Errors
    /// Where the log still cannot be written.
    pub async fn settle(&self) -> Result<()> {
        let mut turn = self.writer.turn.lock().await;
        self.writer.settle(&mut turn).await
    }

    /// The number of the last reservation.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn reserved(&self) -> Result<u64> {
        let mut turn = self.writer.turn.lock().await;
        Ok(self.writer.counted(&mut turn).await?.reserved)
    }

    /// The store, to read from.
    #[must_use]
    pub fn store(&self) -> Arc<dyn Store> {
        self.writer.store.clone()
    }

    /// The time of day.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.writer.clock
    }
}

/// The task that makes what waits.
struct Serving {
    writer: Arc<Writer>,
    done: bool,
}

impl Drop for Serving {
    /// Where the task was lost, all that wait are told, and the next change begins another one.
    fn drop(&mut self) {
        if !self.done {
            let mut queue = self.writer.queue();
            queue.served = false;
            queue.waiting.clear();
        }
    }
}

/// Makes what waits, until nothing does.
async fn serve(mut serving: Serving) {
    loop {
        let group = {
            let mut queue = serving.writer.queue();
            let group = queue.take();
            queue.served = !group.is_empty();
            group
        };
        if group.is_empty() {
            serving.done = true;
            return;
        }
        serving.writer.make(group).await;
    }
}

impl Queue {
    /// The first that wait and can be made together: no two of them are about the same record.
    fn take(&mut self) -> Vec<Waiting> {
        let (mut paths, mut parts, mut count) = (BTreeSet::new(), 0, 0);
        for Waiting { change: Asked { changes, rows, .. }, .. } in self.waiting.iter().take(MOST_CHANGES) {
            parts += changes.len() + rows.len();
            let apart = changes.iter().all(|change| !paths.contains(change.path.as_str()));
            if count > 0 && (parts > MOST_PARTS || !apart) {
                break;
            }
            paths.extend(changes.iter().map(|change| change.path.as_str()));
            count += 1;
        }
        self.waiting.drain(..count).collect()
    }
}

impl Writer {
    /// Nothing is left half-done under this lock, so a panic elsewhere does not spoil it.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes changes in one transaction, or each in its own where one of them is refused: that is the matter of that one.
    async fn make(&self, group: Vec<Waiting>) {
        let mut turn = self.turn.lock().await;
        let (asked, replies): (Vec<_>, Vec<_>) = group.into_iter().map(|one| (one.change, one.reply)).unzip();
        let outcomes = match self.write(&mut turn, &asked).await {
            Ok(outcomes) => outcomes,
            Err(error) if asked.len() > 1 && nothing_changed(&error) => {
                let mut outcomes = Vec::new();
                for one in asked.chunks(1) {
                    outcomes.extend(self.write(&mut turn, one).await.unwrap_or_else(|error| vec![Err(error)]));
                }
                outcomes
            }
            Err(error) => replies.iter().map(|_| Err(same(&error))).collect(),
        };
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // Who no longer waits for an answer gets none.
            drop(reply.send(outcome));
        }
    }

    /// Makes changes in one transaction and records their leaves. Answers what came of each.
    async fn write(&self, turn: &mut Turn, asked: &[Asked]) -> Result<Vec<Result<Made>>> {
        self.settle(turn).await?;
        let Batch { mut changes, rows, numbers, leaves, counts } = self.batch(turn, asked).await?;
        let open = Open { after: self.log.size(), leaves };
        changes.push(put(OPEN, &open)?);
        // Whether a commit that fails was made is not known: then the next one counts again.
        turn.counts = None;
        let store = self.store.clone();
        crash_point!("ledger.before_commit");
        let revision = match blocking(move || store.commit_rows(&changes, &rows)).await {
            Ok(revision) => revision,
            Err(error) => self.made_after_all(&open, &error).await.ok_or(error)?,
        };
        crash_point!("ledger.committed");
        turn.counts = counts;
        // All are on their way before the first is waited for, so that they share one sync of the log.
        let leaves: Vec<_> = open.leaves.iter().map(|leaf| self.log.append_leaf(leaf)).collect();
        let mut outcomes = Vec::new();
        for (leaf, numbers) in leaves.into_iter().zip(numbers) {
            if let Err(error) = leaf.await {
                tracing::error!(cause = error.chain(), "a change was made and could not be recorded yet");
                turn.unrecorded = true;
                self.log.owe(true);
            }
            outcomes.push(Ok(Made { revision, numbers }));
        }
        crash_point!("ledger.recorded");
        Ok(outcomes)
    }

    /// Records what could not be recorded when it was made.
    async fn settle(&self, turn: &mut Turn) -> Result<()> {
        if turn.unrecorded {
            // Behind all that was on its way into the log by then.
            self.log.inspect().await?;
            self.roll_forward().await?;
            turn.unrecorded = false;
            self.log.owe(false);
        }
        Ok(())
    }

    /// The revision of a commit that failed and was made all the same, as far as the store can be read.
    async fn made_after_all(&self, open: &Open, error: &Error) -> Option<u64> {
        if nothing_changed(error) {
            return None;
        }
        let store = self.store.clone();
        let record = blocking(move || store.get(OPEN)).await.ok()??;
        let stored: Open = serde_json::from_slice(&record.value).ok()?;
        let ids = |open: &Open| open.leaves.iter().map(|leaf| leaf.facts.get(FACT).cloned()).collect::<Vec<_>>();
        (ids(&stored) == ids(open)).then_some(record.revision)
    }

    /// What is committed for changes, but for the open leaves.
    async fn batch(&self, turn: &mut Turn, asked: &[Asked]) -> Result<Batch> {
        let mut batch = Batch { counts: turn.counts, ..Batch::default() };
        if asked.iter().any(|one| !one.rows.is_empty()) {
            batch.counts = Some(self.counted(turn).await?);
        }
        for Asked { leaf, changes, rows } in asked {
            let (mut rows, mut numbers) = (rows.clone(), Vec::new());
            for row in &mut rows {
                let counts = batch.counts.get_or_insert_default();
                match row {
                    Row::Reserve(one) => {
                        counts.reserved += 1;
                        counts.names += one.names.len() as u64;
                        one.number = counts.reserved;
                        numbers.push(one.number);
                    }
                    Row::End(_) => counts.ended += 1,
                }
            }
            let mut leaf = Record { phase: Phase::Change, time: self.clock.now().to_string(), ..leaf.clone() };
            leaf.outcome = "ok".to_owned();
            leaf.facts.insert(FACT.to_owned(), identify(changes, &rows)?);
            batch.leaves.push(leaf);
            batch.numbers.push(numbers);
            batch.changes.extend(changes.iter().cloned());
            batch.rows.append(&mut rows);
        }
        if let Some(counts) = batch.counts.filter(|_| !batch.rows.is_empty()) {
            batch.changes.push(put(COUNTS, &counts)?);
        }
        Ok(batch)
    }

    /// Records the leaves of the last commit that are not in the log. Answers what they are about.
    async fn roll_forward(&self) -> Result<Option<String>> {
        let store = self.store.clone();
        let Some(record) = blocking(move || store.get(OPEN)).await? else { return Ok(None) };
        let Open { after, mut leaves } = serde_json::from_slice(&record.value)
            .map_err(|e| Error::new(Kind::Tampered, "the open change of the ledger cannot be read").because(e))?;
        if after > self.log.size() {
            let sizes = format!("the store has seen {after} audit records, the log holds {}", self.log.size());
            return Err(Error::new(Kind::Tampered, sizes)
                .hint("the audit log was cut or put back: restore it, or restore a backup of both"));
        }
        let log = self.log.clone();
        let known = blocking(move || {
            let records = crate::audit::read(log.folder(), after)?;
            Ok(records.flatten().filter_map(|(_, mut record)| record.facts.remove(FACT)).collect::<BTreeSet<_>>())
        });
        let known = known.await?;
        leaves.retain(|leaf| leaf.facts.get(FACT).is_none_or(|id| !known.contains(id)));
        let mut mended = Vec::new();
        for leaf in &leaves {
            crash_point!("ledger.before_roll_forward");
            self.log.append_leaf(leaf).await?;
            crash_point!("ledger.rolled_forward");
            mended.push(format!("{} of {}", leaf.action, leaf.resource));
        }
        Ok((!mended.is_empty()).then(|| mended.join(", ")))
    }

    /// How many certificates there are, as a sealed record says.
    async fn counted(&self, turn: &mut Turn) -> Result<Counts> {
        if let Some(counts) = turn.counts {
            return Ok(counts);
        }
        let store = self.store.clone();
        let Some(record) = blocking(move || store.get(COUNTS)).await? else { return Ok(Counts::default()) };
        let counts = serde_json::from_slice(&record.value)
            .map_err(|e| Error::new(Kind::Tampered, "the count of certificates cannot be read").because(e))?;
        Ok(*turn.counts.insert(counts))
    }
}

/// What is committed together.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    rows: Vec<Row>,
    leaves: Vec<Record>,
    /// For each change, the numbers of its reservations.
    numbers: Vec<Vec<u64>>,
    /// How many certificates there will be, where that is known.
    counts: Option<Counts>,
}

fn put(path: &str, value: &impl Serialize) -> Result<Change> {
    let value = serde_json::to_vec(value).map_err(|e| Error::internal(format!("{path}: {e}")))?;
    Ok(Change { path: path.to_owned(), expected: Expected::Any, value: Some(value) })
}

fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Record>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Leaves {
        One(Box<Record>),
        More(Vec<Record>),
    }
    Leaves::deserialize(deserializer).map(|leaves| match leaves {
        Leaves::One(leaf) => vec![*leaf],
        Leaves::More(leaves) => leaves,
    })
}

/// Whether a transaction was refused before it was made, for something that is the matter with a change in it.
fn nothing_changed(error: &Error) -> bool {
    matches!(error.kind(), Kind::Stale | Kind::Conflict | Kind::Invalid | Kind::Limit)
}

/// The error once more, for another one whom it concerns.
fn same(error: &Error) -> Error {
    let again = Error::new(error.kind(), error.public().to_owned()).because(error.chain());
    match error.mend() {
        Some(hint) => again.hint(hint.to_owned()),
        None => again,
    }
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
