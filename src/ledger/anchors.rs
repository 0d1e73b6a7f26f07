//! The anchors of a store: places outside the database that hold its last mark.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::position::{Mark, Seen, State, compare, newest};
use crate::audit::Witnesses;
use crate::crash_point;
use crate::device::{AnchorPlace, AnchorSlot, AnchorWrite, Class, Fault, Worker};
use crate::error::{Error, Kind, Result};

/// What a call of an anchor comes to.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// A place outside the database for two slots.
///
/// **Contract**: a write replaces the slots beside the known one, is durable when it answers, and cut short leaves the known
/// one as it is. Where the slots are not as they were last read, it writes nothing and is [`Class::Refused`].
pub trait Anchor: Send + Sync {
    /// Which one, such as the name of its device.
    fn name(&self) -> &str;

    /// What stands there.
    fn read(&self) -> Answer<'_, Vec<AnchorSlot>>;

    /// Moves it on, where `known` stands there and `others`, and nothing else.
    fn write(&self, known: AnchorSlot, others: Vec<AnchorSlot>, value: AnchorSlot) -> Answer<'_, ()>;

    /// How often a day it may be written, where its memory wears out.
    fn writes_per_day(&self) -> Option<u32>;
}

/// An anchor in a device.
#[derive(Debug)]
pub struct DeviceAnchor {
    worker: Arc<Worker>,
    place: AnchorPlace,
}

impl DeviceAnchor {
    /// The anchor of `place` in the device of `worker`.
    #[must_use]
    pub const fn new(worker: Arc<Worker>, place: AnchorPlace) -> Self {
        Self { worker, place }
    }
}

impl Anchor for DeviceAnchor {
    fn name(&self) -> &str {
        self.worker.name()
    }

    fn read(&self) -> Answer<'_, Vec<AnchorSlot>> {
        Box::pin(self.worker.read_anchor(&self.place))
    }

    fn write(&self, known: AnchorSlot, others: Vec<AnchorSlot>, value: AnchorSlot) -> Answer<'_, ()> {
        Box::pin(self.worker.write_anchor(AnchorWrite { place: self.place.duplicate(), known, others, value }))
    }

    fn writes_per_day(&self) -> Option<u32> {
        self.worker.settings().anchor_writes_per_day()
    }
}

/// The anchors that a ledger is opened with.
#[derive(Default)]
pub struct Anchors {
    pub(super) list: Vec<Arc<dyn Anchor>>,
    pub(super) accept_rollback: bool,
    pub(super) witnesses: Option<Arc<Witnesses>>,
}

impl Anchors {
    /// No anchor: an older database in the place of the present one is not noticed.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Several. Each change is acknowledged once one of them holds it; at a start all of them are read.
    #[must_use]
    pub const fn new(list: Vec<Arc<dyn Anchor>>) -> Self {
        Self { list, accept_rollback: false, witnesses: None }
    }

    /// And these witnesses of the log: each change is acknowledged once those that are required hold it; at a start all of them
    /// are asked.
    #[must_use]
    pub fn witnessed(self, witnesses: Arc<Witnesses>) -> Self {
        Self { witnesses: Some(witnesses), ..self }
    }

    /// Goes on from a store that the anchors do not agree with, and records the gap: for an operator who said so.
    #[must_use]
    pub fn accept_rollback(self, accept_rollback: bool) -> Self {
        Self { accept_rollback, ..self }
    }
}

impl fmt::Debug for Anchors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list.iter().map(|anchor| anchor.name())).finish()
    }
}

/// How an anchor stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnchorStatus {
    /// Which one.
    pub name: String,
    /// The last epoch that it is known to hold.
    pub epoch: Option<u64>,
    /// How many commits it is behind.
    pub behind: u64,
    /// Why it could not be written at the last try.
    pub trouble: Option<String>,
}

/// Whether a change waits for the anchor, or goes with the next checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    Checkpoint,
    Change,
}

/// What came of moving an anchor on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Moved {
    Holds,
    /// It is spared for now: its memory wears out, or it did not answer a moment ago and another one holds.
    Spared,
    Failed,
}

/// An anchor that is written.
pub(super) struct Watched {
    anchor: Arc<dyn Anchor>,
    seen: Seen,
    /// What stood there beside the known slot when it was last read or written.
    others: Vec<AnchorSlot>,
    budget: Option<Budget>,
    trouble: Option<String>,
    /// Its last call was given up: it is asked again at the next checkpoint.
    slow: bool,
    /// Somebody else writes it.
    foreign: bool,
}

impl Watched {
    /// Reads an anchor and compares it with the state of the store. Where they do not agree and that is accepted, the second
    /// part is what they differ in.
    pub(super) async fn open(
        anchor: Arc<dyn Anchor>,
        state: Option<&State>,
        accept: bool,
    ) -> Result<(Self, Option<Gap>)> {
        let slots = anchor.read().await.map_err(|fault| unreadable(anchor.name(), fault))?;
        let (seen, gap) = match compare(state, anchor.name(), &slots) {
            Ok(seen) => (seen, None),
            Err(error) if accept => {
                let found = newest(&slots);
                (Seen::of(found), Some(Gap { found, what: error.public().to_owned() }))
            }
            Err(error) => return Err(error),
        };
        let budget = anchor.writes_per_day().map(Budget::new);
        let others = seen.beside(slots);
        Ok((Self { anchor, seen, others, budget, trouble: None, slow: false, foreign: false }, gap))
    }

    pub(super) fn name(&self) -> &str {
        self.anchor.name()
    }

    pub(super) const fn seen(&self) -> &Seen {
        &self.seen
    }

    pub(super) fn holds(&self, mark: Mark) -> bool {
        self.seen.known == Some(mark) && self.seen.unsure.is_empty()
    }

    pub(super) fn status(&self, mark: Option<Mark>) -> AnchorStatus {
        let epoch = self.seen.known.map(|mark| mark.number);
        let behind = mark.map_or(0, |mark| mark.number.saturating_sub(epoch.unwrap_or(0)));
        AnchorStatus { name: self.name().to_owned(), epoch, behind, trouble: self.trouble.clone() }
    }

    /// Has the anchor hold `mark`.
    async fn advance(&mut self, mark: Mark, urgency: Urgency) -> Moved {
        if self.holds(mark) {
            return Moved::Holds;
        }
        if self.foreign {
            return Moved::Failed;
        }
        if self.budget.as_mut().is_some_and(|budget| !budget.take(urgency)) {
            return Moved::Spared;
        }
        match self.write(mark, urgency).await {
            Ok(()) => {
                self.trouble = None;
                Moved::Holds
            }
            Err(fault) => {
                self.foreign |= fault.class == Class::Refused;
                tracing::error!(anchor = self.name(), cause = %fault, "the anchor could not be moved on");
                self.trouble = Some(fault.to_string());
                Moved::Failed
            }
        }
    }

    /// What becomes of it when it does not answer while another one holds: it is behind.
    fn give_up(&mut self) -> Moved {
        tracing::warn!(anchor = self.name(), "the anchor does not answer, and another one holds");
        self.trouble = Some("it does not answer".to_owned());
        Moved::Failed
    }

    async fn write(&mut self, mark: Mark, urgency: Urgency) -> Result<(), Fault> {
        if !self.seen.unsure.is_empty() {
            let slots = self.anchor.read().await?;
            let foreign = || Fault::new(Class::Refused, "the anchor is not where this service left it");
            self.seen = self.seen.after(&slots).ok_or_else(foreign)?;
            self.others = self.seen.beside(slots);
            if self.holds(mark) {
                return Ok(());
            }
        }
        let (anchor, known, others) = (&self.anchor, self.seen.slot(), self.others.clone());
        // It may stand there, whatever comes of this.
        self.seen.unsure.push(mark);
        match urgency {
            Urgency::Change => {
                crash_point!("ledger.before_anchor");
                anchor.write(known, others, mark.slot()).await?;
                crash_point!("ledger.anchored");
            }
            Urgency::Checkpoint => {
                crash_point!("ledger.before_late_anchor");
                anchor.write(known, others, mark.slot()).await?;
                crash_point!("ledger.anchored_late");
            }
        }
        (self.seen, self.others) = (Seen::of(Some(mark)), vec![known]);
        Ok(())
    }
}

/// An anchor that did not agree with the store.
pub(super) struct Gap {
    /// What it held.
    pub(super) found: Option<Mark>,
    /// What was wrong.
    pub(super) what: String,
}

/// Has the anchors hold `mark`.
///
/// # Errors
/// `Unavailable` where none does that could be written; `Conflict` where somebody else writes one of them.
pub(super) async fn advance(anchors: &mut [Watched], mark: Mark, urgency: Urgency) -> Result<()> {
    // A slow one is left alone only while another one works.
    let works = anchors.iter().any(|anchor| !anchor.slow && anchor.trouble.is_none());
    let asked = anchors.iter().map(|anchor| !(anchor.slow && works && urgency == Urgency::Change));
    let asked: Vec<_> = asked.collect();
    // Whoever is not done when another one holds has but a moment more.
    let held = tokio::sync::Notify::new();
    let given_up = async {
        held.notified().await;
        tokio::time::sleep(MOMENT).await;
    };
    let given_up = futures_util::FutureExt::shared(given_up);
    let moves = anchors.iter_mut().zip(&asked).map(|(anchor, asked)| {
        let (held, given_up) = (&held, given_up.clone());
        async move {
            if !asked {
                return Moved::Spared;
            }
            let moved = tokio::select! {
                moved = anchor.advance(mark, urgency) => Some(moved),
                () = given_up => None,
            };
            anchor.slow = moved.is_none();
            if moved == Some(Moved::Holds) {
                held.notify_one();
            }
            moved.unwrap_or_else(|| anchor.give_up())
        }
    });
    let moved = futures_util::future::join_all(moves).await;
    if let Some(foreign) = anchors.iter().find(|anchor| anchor.foreign) {
        return Err(Error::new(Kind::Conflict, format!("another service moved the anchor in {} on", foreign.name()))
            .hint("two services use one device as one installation: end one of them, and restart the other"));
    }
    if moved.is_empty() || moved.contains(&Moved::Holds) || !moved.contains(&Moved::Failed) {
        return Ok(());
    }
    let names: Vec<_> = anchors.iter().map(Watched::name).collect();
    Err(Error::new(Kind::Unavailable, format!("no anchor can be written: {}", names.join(", ")))
        .hint("bring the device back: the change is made and counts, and the service goes on by itself"))
}

fn unreadable(name: &str, fault: Fault) -> Error {
    let text = format!("the anchor in {name} cannot be read: {fault}");
    let kind = match fault.class {
        Class::KeyGone | Class::KeyDamaged | Class::PcrsChanged => Kind::Tampered,
        Class::Retry | Class::Ambiguous | Class::DeviceGone | Class::PinRefused | Class::PinLocked => Kind::Unavailable,
        Class::Full | Class::Unsupported | Class::Refused | Class::Busy | Class::Expired => Kind::Unavailable,
        Class::WorkerLost | Class::Config | Class::Internal => Kind::Unavailable,
    };
    Error::new(kind, text).hint(
        "somebody removed it, or the device is another one: put the right one back; \
         `signet restore --accept-rollback` makes it again, and records the gap for ever",
    )
}

/// How often an anchor may be written: as many times as a day has room for, spread over the day once they are used up.
#[derive(Debug)]
struct Budget {
    per_day: f64,
    left: f64,
    at: Instant,
}

/// How long the others may take once one holds: a software TPM needs a tenth of it.
const MOMENT: Duration = Duration::from_millis(250);

/// The part of the writes that is kept for what waits for them.
const RESERVE: f64 = 0.5;

impl Budget {
    fn new(per_day: u32) -> Self {
        let per_day = f64::from(per_day);
        Self { per_day, left: per_day, at: Instant::now() }
    }

    fn take(&mut self, urgency: Urgency) -> bool {
        const DAY: f64 = 86_400.0;
        let now = Instant::now();
        let earned = now.duration_since(self.at).as_secs_f64() * self.per_day / DAY;
        (self.left, self.at) = ((self.left + earned).min(self.per_day), now);
        let floor = if urgency == Urgency::Change { 0.0 } else { self.per_day * RESERVE };
        let may = self.left - 1.0 >= floor;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Copy)]
    enum Mood {
        Works,
        Fails,
        Hangs,
    }

    /// An anchor in memory that does as it is told.
    struct Told(&'static str, Mutex<(Mood, [AnchorSlot; 2])>);

    impl Told {
        fn new(name: &'static str) -> Arc<Self> {
            Arc::new(Self(name, Mutex::new((Mood::Works, [AnchorSlot::BLANK; 2]))))
        }

        fn be(&self, mood: Mood) {
            self.1.lock().unwrap().0 = mood;
        }

        fn answer<T: Send + 'static>(&self, act: impl FnOnce(&mut [AnchorSlot; 2]) -> T) -> Answer<'_, T> {
            let mut state = self.1.lock().unwrap();
            match state.0 {
                Mood::Works => {
                    let answer = act(&mut state.1);
                    Box::pin(async { Ok(answer) })
                }
                Mood::Fails => Box::pin(async { Err(Fault::new(Class::DeviceGone, "it is away")) }),
                Mood::Hangs => Box::pin(std::future::pending()),
            }
        }
    }

    impl Anchor for Told {
        fn name(&self) -> &str {
            self.0
        }

        fn read(&self) -> Answer<'_, Vec<AnchorSlot>> {
            self.answer(|slots| slots.to_vec())
        }

        fn write(&self, known: AnchorSlot, others: Vec<AnchorSlot>, value: AnchorSlot) -> Answer<'_, ()> {
            self.answer(move |slots| {
                let known = slots.iter().position(|slot| *slot == known).unwrap();
                assert_eq!(others, [slots[1 - known]]);
                slots[1 - known] = value;
            })
        }

        fn writes_per_day(&self) -> Option<u32> {
            None
        }
    }

    #[tokio::test]
    async fn one_that_hung_is_asked_again_when_the_other_one_fails() {
        let (first, second) = (Told::new("first"), Told::new("second"));
        let mut anchors = Vec::new();
        for anchor in [&first, &second] {
            anchors.push(Watched::open(anchor.clone(), None, false).await.unwrap().0);
        }
        let mark = |number| Mark { number, hash: [7; 32] };
        // 1. One hangs: the other one is enough.
        second.be(Mood::Hangs);
        advance(&mut anchors, mark(1), Urgency::Change).await.unwrap();
        assert!(anchors[0].holds(mark(1)) && !anchors[1].holds(mark(1)));
        // 2. That one fails, and the first comes back meanwhile: it is asked, at the second try at the latest.
        first.be(Mood::Fails);
        second.be(Mood::Works);
        let _ = advance(&mut anchors, mark(2), Urgency::Change).await;
        advance(&mut anchors, mark(2), Urgency::Change).await.unwrap();
        assert!(anchors[1].holds(mark(2)));
        // 3. Where none holds, nothing is acknowledged.
        second.be(Mood::Fails);
        assert!(advance(&mut anchors, mark(3), Urgency::Change).await.is_err());
    }

    #[test]
    fn what_may_wait_leaves_room_for_what_may_not() {
        let mut budget = Budget::new(100);
        let (mut waiting, mut urgent) = (0, 0);
        while budget.take(Urgency::Checkpoint) {
            waiting += 1;
        }
        while budget.take(Urgency::Change) {
            urgent += 1;
        }
        assert_eq!((waiting, urgent), (50, 50));
    }
}
