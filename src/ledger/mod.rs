//! The only way to change state.
//!
//! A change is a batch of records and one leaf of the audit log that vouches for it. The order is a safety property:
//!
//! ```text
//! 1  the batch, its leaf and the new state, in `ledger/open`, are committed to the store in one transaction
//! 2  the leaf is durable in the log
//! 3  an anchor outside the database holds the mark of the state, and each witness that is required a head over the leaf
//! 4  the change is acknowledged
//! ```
//!
//! A crash between 1 and 2 leaves an open leaf: start-up appends it and moves the anchors on, so a change is always rolled
//! forward and never forgotten. So does a log or an anchor that cannot be written for a while: the change counts, memory
//! follows the store, and the log takes nothing else before, so that nothing is acknowledged until it can be written again.
//!
//! * [`open`] what is committed beside a change · [`map`] one hash over all records · [`position`] what a state is, and whether an anchor agrees · [`anchors`] writes them · [`start`] compares all of it
//!
//! What may be lost for a second without harm (counters, certificates, orders, outcomes of repeatable calls) does not wait for
//! the anchor, but for [`Ledger::checkpoint`], which takes in the newest signed head of the log as well. [`WAITS`] says which.
//!
//! Changes that wait while another is made share the next transaction, and their leaves one sync of the log: the order holds for
//! each of them, and what the disk takes is shared. Where that transaction is refused, each is made by itself.

mod anchors;
mod map;
mod open;
mod position;
mod start;

pub use anchors::{Anchor, AnchorStatus, Anchors, Answer, DeviceAnchor};
pub use position::Mark;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::oneshot;

use anchors::{Gap, Urgency, Watched, advance};
use map::{Edit, Map};
use open::{Draft, Next, OPEN, Open, opened};
use position::{Seen, State};
use start::{recorded_witnesses, required, take_over};

use crate::audit::{Log, Origin, Phase, Record, WitnessStatus, Witnesses};
use crate::crash_point;
use crate::error::{Error, Kind, Result};
use crate::store::certificates::{Counts, End, Reservation, Row};
use crate::store::{Change, Expected, Store};
use crate::types::{Action, Caller, Clock, Resource, blocking, sha256};

/// How many certificates there are.
const COUNTS: &str = "ledger/certificates";
/// Where it is recorded that the store was put back, for ever.
const GAPS: &str = "ledger/gaps/";
/// Which witnesses changes wait for: one that is on record cannot be left out unnoticed.
const WITNESSES: &str = "ledger/witnesses";
/// The fact of a leaf that tells it from all others, and vouches for what changed.
const FACT: &str = "change";
/// What may be anchored up to a second after it was acknowledged: where the records stand.
const WAITS: &[&str] = &["acme/", "counters/", "idempotency/", "ledger/", "notices/", "pending/"];
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
    /// How the anchors stood after the last turn. Taken within `turn` or by itself.
    standing: Mutex<Vec<AnchorStatus>>,
    /// What the anchors did not vouch for when this was opened, and an operator accepted.
    gap: Option<String>,
    witnesses: Option<Arc<Witnesses>>,
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
    /// Whether the last commit waits for an anchor: nothing is acknowledged before one holds it.
    unanchored: bool,
    /// All live records.
    map: Map,
    /// Where the store stands; `None` before the first commit.
    state: Option<State>,
    anchors: Vec<Watched>,
    /// What is known of anchors that are not configured now and may be so again.
    away: BTreeMap<String, Seen>,
    /// A commit of which it is not known whether it was made.
    doubt: Option<Next>,
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

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ledger")
    }
}

impl Ledger {
    /// Takes over `store`, `log` and `anchors`, compares all three, and rolls forward what a crash left open. Answers what it
    /// mended.
    ///
    /// # Errors
    /// `Tampered` where they do not belong together: the store was changed by another hand, or it or the log was put back.
    /// `Unavailable` where one of them cannot be read or written.
    pub async fn open(
        store: Arc<dyn Store>,
        log: Arc<Log>,
        clock: Clock,
        anchors: Anchors,
    ) -> Result<(Self, Vec<String>)> {
        let witnesses = anchors.witnesses.clone();
        let (turn, gaps) = take_over(&store, &log, anchors).await?;
        let what: Vec<_> = gaps.iter().map(|gap| gap.what.as_str()).collect();
        let gap = (!what.is_empty()).then(|| what.join("; "));
        let (queue, standing) = (Mutex::default(), Mutex::default());
        let writer = Writer { store, log, clock, queue, turn: turn.into(), standing, gap, witnesses };
        let mut mended = Vec::new();
        if let Some(what) = writer.roll_forward().await? {
            mended.push(format!("a crash had come between a change and its audit record: recorded {what}"));
        }
        let ledger = Self { writer: Arc::new(writer) };
        ledger.count().await?;
        mended.extend(ledger.writer.begin(gaps).await?);
        Ok((ledger, mended))
    }

    /// Takes in one more anchor, which from the next change on holds the mark of the state.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn add_anchor(&self, anchor: Arc<dyn Anchor>) -> Result<()> {
        let mut turn = self.writer.turn.lock().await;
        // One that was made for nothing by an attempt that was cut short is blank.
        let (watched, _) = Watched::open(anchor, turn.state.as_ref(), true).await?;
        turn.away.remove(watched.name());
        turn.anchors.push(watched);
        Ok(())
    }

    /// Has the state take in the newest signed head of the log, and the anchors hold it. Where nothing is new it costs nothing.
    ///
    /// # Errors
    /// Where the store cannot be written, or an anchor is written by somebody else.
    pub async fn checkpoint(&self) -> Result<()> {
        let mut turn = self.writer.turn.lock().await;
        self.writer.settle(&mut turn).await?;
        if turn.state.as_ref().is_none_or(|state| state.head != self.writer.head()) {
            self.writer.take_in(&mut turn).await?;
        }
        let anchored = self.writer.anchor(&mut turn, Urgency::Checkpoint).await;
        if let Some(Err(error)) = self.writer.witnesses.as_ref().map(|witnesses| witnesses.agree()) {
            // Two histories: from now on nothing is acknowledged.
            turn.unanchored = true;
            self.writer.log.owe(true);
            return Err(error);
        }
        anchored
    }

    /// Has the witnesses of the log follow its newest signed head.
    pub async fn follow(&self) {
        if let Some(witnesses) = &self.writer.witnesses {
            witnesses.follow().await;
        }
    }

    /// How the witnesses of the log stand.
    #[must_use]
    pub fn witnesses(&self) -> Vec<WitnessStatus> {
        self.writer.witnesses.as_ref().map(|witnesses| witnesses.standing()).unwrap_or_default()
    }

    /// What the anchors did not vouch for when this was opened, and an operator accepted.
    #[must_use]
    pub fn gap(&self) -> Option<String> {
        self.writer.gap.clone()
    }

    /// When an operator last accepted that the store was put back: what it has counted up to then may be too little.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub async fn last_gap(&self) -> Result<Option<Timestamp>> {
        #[derive(serde::Deserialize)]
        struct Accepted {
            time: Timestamp,
        }
        let store = self.store();
        let gaps = blocking(move || store.scan(GAPS)).await?;
        let time = |record: &crate::store::Record| {
            let accepted: Accepted = serde_json::from_slice(&record.value).map_err(|e| {
                Error::new(Kind::Tampered, format!("the record {} cannot be read", record.path)).because(e)
            })?;
            Ok(accepted.time)
        };
        Ok(gaps.iter().map(time).collect::<Result<Vec<_>>>()?.into_iter().max())
    }

    /// How the anchors stand.
    #[must_use]
    pub fn anchors(&self) -> Vec<AnchorStatus> {
        self.writer.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// The origin of the log, which names the installation.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        self.writer.log.origin()
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

    /// Makes changes in one transaction, records their leaves and moves the anchors on. Answers what came of each.
    async fn write(&self, turn: &mut Turn, asked: &[Asked]) -> Result<Vec<Result<Made>>> {
        self.settle(turn).await?;
        let batch = self.batch(turn, asked).await?;
        let (counts, numbers) = (batch.counts, batch.numbers.clone());
        // Whether a commit that fails was made is not known: then the next one counts again.
        turn.counts = None;
        crash_point!("ledger.before_commit");
        let (revision, leaves) = self.commit(turn, batch).await?;
        crash_point!("ledger.committed");
        turn.counts = counts;
        // All are on their way before the first is waited for, so that they share one sync of the log.
        let leaves: Vec<_> = leaves.iter().map(|leaf| self.log.append_leaf(leaf)).collect();
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
        if asked.iter().any(Asked::is_urgent)
            && let Err(error) = self.anchor(turn, Urgency::Change).await
        {
            tracing::error!(cause = error.chain(), "a change was made and could not be anchored yet");
            turn.unanchored = true;
            self.log.owe(true);
        }
        Ok(outcomes)
    }

    /// Commits what only takes in how the log stands now.
    async fn take_in(&self, turn: &mut Turn) -> Result<()> {
        crash_point!("ledger.before_checkpoint");
        let committed = self.commit(turn, Batch::default()).await;
        crash_point!("ledger.checkpointed");
        committed.map(drop)
    }

    /// One transaction. Answers its revision and the leaves that are to be recorded.
    async fn commit(&self, turn: &mut Turn, batch: Batch) -> Result<(u64, Vec<Record>)> {
        let Batch { mut changes, rows, leaves, .. } = batch;
        let draft = self.draft(turn, &changes, leaves);
        changes.push(Change { path: OPEN.to_owned(), expected: Expected::Any, value: Some(Vec::new()) });
        let store = self.store.clone();
        let (committed, next) = blocking(move || Ok(draft.commit(&*store, &changes, &rows))).await?;
        let revision = match committed {
            Err(error) if nothing_changed(&error) => return Err(error),
            Ok(revision) => {
                turn.doubt = next;
                revision
            }
            Err(error) => {
                turn.doubt = next;
                // It may have been made all the same.
                self.look_what_was_made(turn).await.ok().flatten().ok_or(error)?
            }
        };
        Ok((revision, self.believe(turn)))
    }

    /// Has the anchors hold the state and, where somebody waits for that, the witnesses a head over all that is in the log.
    async fn anchor(&self, turn: &mut Turn, urgency: Urgency) -> Result<()> {
        let Some(mark) = turn.state.as_ref().map(State::mark) else { return Ok(()) };
        let witnessed = async {
            match &self.witnesses {
                Some(witnesses) if urgency == Urgency::Change => {
                    witnesses.agree()?;
                    crash_point!("ledger.before_witness");
                    let held = witnesses.hold().await;
                    crash_point!("ledger.witnessed");
                    held
                }
                Some(_) | None => Ok(()),
            }
        };
        let (moved, witnessed) = tokio::join!(advance(&mut turn.anchors, mark, urgency), witnessed);
        self.tell(turn);
        moved.and(witnessed)
    }

    /// Shows how the anchors stand.
    fn tell(&self, turn: &Turn) {
        let mark = turn.state.as_ref().map(State::mark);
        let standing = turn.anchors.iter().map(|anchor| anchor.status(mark)).collect();
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// The newest signed head of the log.
    fn head(&self) -> Option<Mark> {
        self.log.last_head().map(|head| Mark { number: head.size(), hash: *head.root() })
    }

    /// Records and anchors what could not be when it was made.
    async fn settle(&self, turn: &mut Turn) -> Result<()> {
        if turn.doubt.is_some() && self.look_what_was_made(turn).await?.is_some() {
            self.believe(turn);
            turn.unrecorded = true;
            turn.unanchored = true;
            self.log.owe(true);
        }
        if turn.unrecorded {
            // Behind all that was on its way into the log by then.
            self.log.inspect().await?;
            self.roll_forward().await?;
            // A leaf that stood there already may have been late in a sink.
            self.log.held().await?;
            turn.unrecorded = false;
            // What witnesses were sent had no such leaf in it.
            turn.unanchored |= self.witnesses.is_some();
        }
        if turn.unanchored {
            self.anchor(turn, Urgency::Change).await?;
            turn.unanchored = false;
        }
        self.log.owe(false);
        Ok(())
    }

    /// Finds out whether a commit was made of which that is not known: its revision, where it was.
    async fn look_what_was_made(&self, turn: &mut Turn) -> Result<Option<u64>> {
        let Some(next) = &turn.doubt else { return Ok(None) };
        let store = self.store.clone();
        let stored = blocking(move || opened(&*store)).await?;
        let made = stored.filter(|(_, stored)| stored.state == next.open.state).map(|(revision, _)| revision);
        if made.is_none() {
            turn.doubt = None;
        }
        Ok(made)
    }

    /// From now on what was in doubt is so. Answers the leaves that are to be recorded.
    fn believe(&self, turn: &mut Turn) -> Vec<Record> {
        let Some(Next { open, map }) = turn.doubt.take() else { return Vec::new() };
        (turn.state, turn.map) = (open.state, map);
        self.tell(turn);
        open.leaves
    }

    /// What is to be committed with `changes`, but for what only the transaction knows.
    fn draft(&self, turn: &Turn, changes: &[Change], leaves: Vec<Record>) -> Draft {
        let state = State {
            epoch: turn.state.as_ref().map_or(0, |state| state.epoch) + 1,
            map: map::NONE,
            head: self.head(),
            anchors: turn.anchors.iter().map(|anchor| (anchor.name().to_owned(), anchor.seen().clone())).collect(),
            away: turn.away.clone(),
        };
        let edits = changes.iter().map(|change| Edit::new(&change.path, change.value.as_deref())).collect();
        let (after, root) = self.log.root();
        Draft { map: turn.map.clone(), edits, state, after, root, leaves }
    }

    /// The first steps of a ledger: records that the store was put back, where that was accepted, and has all anchors hold
    /// what the store says.
    async fn begin(&self, gaps: Vec<Gap>) -> Result<Option<String>> {
        let mut turn = self.turn.lock().await;
        self.tell(&turn);
        if !gaps.is_empty() {
            // What comes is newer than whatever any anchor saw.
            let newest = gaps.iter().filter_map(|gap| gap.found).map(|mark| mark.number).max().unwrap_or(0);
            if let Some(state) = &mut turn.state {
                state.epoch = state.epoch.max(newest);
            }
            let asked = self.gap_record(&gaps, newest)?;
            for outcome in self.write(&mut turn, &[asked]).await? {
                outcome?;
            }
        } else if turn.state.is_none() {
            self.take_in(&mut turn).await?;
        }
        self.record_witnesses(&mut turn).await?;
        // After a kill they are behind by what may wait, and by no more.
        self.anchor(&mut turn, Urgency::Checkpoint).await?;
        Ok(self.gap.as_ref().map(|gap| format!("an operator accepted what the anchors do not vouch for: {gap}")))
    }

    /// The change that says for ever that the store was put back.
    fn gap_record(&self, gaps: &[Gap], epoch: u64) -> Result<Asked> {
        let caller = Caller::system("restore", "restore");
        let leaf = Record::of(&caller, Action::Start, &Resource::Service, Phase::Change);
        let leaf = Record { reason: self.gap.clone().unwrap_or_default(), ..leaf };
        let found: Vec<_> = gaps.iter().filter_map(|gap| gap.found).collect();
        let record = serde_json::json!({ "time": self.clock.now(), "what": self.gap, "anchors": found });
        Ok(Asked { leaf, changes: vec![put(&format!("{GAPS}{epoch:020}"), &record)?], rows: Vec::new() })
    }

    /// Puts on record which witnesses changes wait for, where that is another set than before.
    async fn record_witnesses(&self, turn: &mut Turn) -> Result<()> {
        let wanted = required(self.witnesses.as_deref());
        let store = self.store.clone();
        if blocking(move || recorded_witnesses(&*store)).await? == wanted {
            return Ok(());
        }
        let leaf = Record::of(&Caller::system("start", "start"), Action::Start, &Resource::Service, Phase::Change);
        let names: Vec<_> = wanted.iter().map(String::as_str).collect();
        let leaf = Record { reason: format!("changes wait for these witnesses: {}", names.join(", ")), ..leaf };
        let asked = Asked { leaf, changes: vec![put(WITNESSES, &wanted)?], rows: Vec::new() };
        for outcome in self.write(turn, &[asked]).await? {
            outcome?;
        }
        Ok(())
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
        let Some((_, Open { after, mut leaves, .. })) = blocking(move || opened(&*store)).await? else {
            return Ok(None);
        };
        if after > self.log.size() {
            let sizes = format!("the store has seen {after} audit records, the log holds {}", self.log.size());
            return Err(Error::new(Kind::Tampered, sizes)
                .hint("the audit log was cut or put back: restore it, or restore a backup of both"));
        }
        let log = self.log.clone();
        let known = blocking(move || {
            let records = crate::audit::read(log.folder(), after.max(log.first()))?;
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

impl Asked {
    /// Whether it is acknowledged only once an anchor holds it.
    fn is_urgent(&self) -> bool {
        let waits = |change: &Change| WAITS.iter().any(|folder| change.path.starts_with(folder));
        !self.changes.iter().all(waits)
    }
}

fn to_json(path: &str, value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::internal(format!("{path}: {e}")))
}

fn put(path: &str, value: &impl Serialize) -> Result<Change> {
    Ok(Change { path: path.to_owned(), expected: Expected::Any, value: Some(to_json(path, value)?) })
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
