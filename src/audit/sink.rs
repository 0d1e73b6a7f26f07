//! A further place of the log, which follows it by a thread of its own: an exact copy in another folder, a collector, or an archive.
//!
//! The log is what waits for it: one that was away, full, hung or removed gets from there what it lacks, and one that has nothing
//! gets all. Nothing waits for a sink but the records of a log that requires it, and these no longer than for the log's own
//! disk; one that is known to be in trouble refuses them at once.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::archive::Folder;
use super::archiving::{Archiving, Shelf};
use super::checkpoint::Origin;
use super::feed::Feed;
use super::mirror::Copying;
use super::queue::{Failure, News, Queue, Reached};
use super::vault::Vault;
use crate::bucket::{Bucket, Settings as BucketSettings};
use crate::error::{Error, Kind, Result};
use crate::otlp::Settings as CollectorSettings;
use crate::types::Name;

/// How often a sink looks for what is new where nobody tells it, at its files, and whether it is back.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// A further place of the log.
#[derive(Clone, Debug)]
pub struct SinkSettings {
    /// Its name.
    pub name: Name,
    /// What it is.
    pub kind: SinkKind,
    /// Whether a record counts only once it is durable there.
    pub required: bool,
}

/// What a sink is.
#[derive(Clone, Debug)]
pub enum SinkKind {
    /// An exact copy in this folder, which holds it and nothing else. It must be there: an empty one where a disk is missing
    /// would be filled in its place.
    Folder(PathBuf),
    /// A collector of OpenTelemetry.
    Otlp(CollectorSettings),
    /// An archive of closed segments.
    Archive(ArchivePlace),
}

/// Where an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchivePlace {
    /// In a folder, which must be there.
    Folder(PathBuf),
    /// In a bucket.
    Bucket(BucketSettings),
}

impl ArchivePlace {
    /// The archive itself.
    pub(super) fn open(&self) -> Result<Box<dyn Shelf>> {
        Ok(match self {
            Self::Folder(folder) => Box::new(Folder(folder.clone())),
            Self::Bucket(settings) => Box::new(Vault(Bucket::new(settings.clone())?)),
        })
    }
}

/// In words.
impl fmt::Display for ArchivePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Bucket(settings) => f.write_str(&settings.shown()),
        }
    }
}

impl SinkKind {
    /// As the configuration names it.
    const fn name(&self) -> &'static str {
        match self {
            Self::Folder(_) => "folder",
            Self::Otlp(_) => "otlp",
            Self::Archive(_) => "archive",
        }
    }
}

/// The longest step of an archive that is a folder: a segment is compressed, and read back.
const SEGMENT_PATIENCE: Duration = Duration::from_secs(120);
/// The wait after a first failure of somebody who is asked over the network, and the longest one.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The wait after so many failures: doubled with each of them.
pub(super) fn rest_after(failures: u32) -> Duration {
    FIRST_REST.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(LONGEST_REST)
}

/// Brings the log to a place, piece by piece.
pub(super) trait Follower: fmt::Debug {
    /// Brings a piece of what is durable, or finds out how far the place is; false where nothing is missing. After an error it is
    /// called again, and finds its way by itself.
    ///
    /// # Errors
    /// What keeps it from its work.
    fn step(&mut self, to: &Reached) -> Result<bool>;

    /// The records that are there.
    fn size(&self) -> u64;

    /// Those of them that the place did not accept.
    fn rejected(&self) -> u64 {
        0
    }

    /// How long it is left alone after a failure, and the step that failed took so long.
    fn rest(&self, took: Duration) -> Duration;

    /// Whether its last failure is to be recorded: one that passes by itself is not.
    fn is_news(&self) -> bool {
        true
    }
}

/// How a sink stands.
#[derive(Clone, Debug)]
pub struct SinkStatus {
    /// Its name.
    pub name: Name,
    /// What it is, as the configuration names it.
    pub kind: &'static str,
    /// Whether records wait for it.
    pub required: bool,
    /// The records that are durable there.
    pub size: u64,
    /// The records that it lacks.
    pub behind: u64,
    /// The records that it was given and did not accept.
    pub rejected: u64,
    /// What keeps it from them.
    pub trouble: Option<String>,
}

/// A sink at work. Dropping it lets it finish what is there, for at most the deadline.
#[derive(Debug)]
pub(super) struct Sink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    settings: SinkSettings,
    log: PathBuf,
    origin: Origin,
    queue: Arc<Queue>,
    deadline: Duration,
    state: Mutex<State>,
    /// Who closes the log waits here for the end of the thread.
    end: Condvar,
    /// The records that are durable there.
    size: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    /// Since when the thread is at its present step; none while nothing is to do.
    busy_since: Option<Instant>,
    trouble: Option<Trouble>,
    rejected: u64,
    ended: bool,
}

#[derive(Clone, Debug)]
struct Trouble {
    failure: Failure,
    since: Instant,
    /// Whether it is recorded.
    told: bool,
}

impl Sink {
    /// Starts to follow the log of `origin` in `log`, which `queue` tells of.
    pub(super) fn start(
        settings: SinkSettings,
        (log, origin): (PathBuf, Origin),
        queue: Arc<Queue>,
        deadline: Duration,
    ) -> Result<Self> {
        let (state, size) = (Mutex::default(), watch::Sender::new(0));
        let shared = Arc::new(Shared { settings, log, origin, queue, deadline, state, end: Condvar::new(), size });
        // Before it opened its folder it is at work, too.
        shared.state().busy_since = Some(Instant::now());
        let own = Arc::clone(&shared);
        thread::Builder::new()
            .name("audit-sink".into())
            .spawn(move || {
                let ended = Ended(own);
                ended.0.follow();
            })
            .map_err(|e| Error::new(Kind::Unavailable, "a sink of the audit log cannot start").because(e))?;
        Ok(Self(shared))
    }

    /// Whether records wait for it.
    pub(super) fn is_required(&self) -> bool {
        self.0.settings.required
    }

    /// Why records that wait for it would wait in vain.
    pub(super) fn refusal(&self) -> Option<Failure> {
        self.0.trouble().map(|trouble| trouble.failure)
    }

    /// It did not get there in time, and is not known to be in trouble.
    pub(super) fn late(&self) -> Failure {
        Failure::hung().of_sink(&self.0.settings.name)
    }

    /// Comes to pass once the first `size` records are durable there, or it is known that they will not be; never where it hangs.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn reaches(&self, size: u64) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let (mut sizes, shared) = (self.0.size.subscribe(), Arc::clone(&self.0));
        async move {
            let failed = || shared.state().trouble.as_ref().map(|trouble| trouble.failure.clone());
            // The sender is in the same hands.
            let _ = sizes.wait_for(|reached| *reached >= size || failed().is_some()).await;
            let there = *shared.size.borrow() >= size;
            failed().filter(|_| !there).map_or(Ok(()), Err)
        }
    }

    /// How it stands.
    pub(super) fn status(&self) -> SinkStatus {
        let (trouble, size) = (self.0.trouble(), *self.0.size.borrow());
        let SinkSettings { name, kind, required } = &self.0.settings;
        let behind = self.0.queue.durable().size().saturating_sub(size);
        let trouble = trouble.map(|trouble| Error::from(trouble.failure).public().to_owned());
        let rejected = self.0.state().rejected;
        SinkStatus { name: name.clone(), kind: kind.name(), required: *required, size, behind, rejected, trouble }
    }

    /// Waits until it has all that the log has now, as long as it gets on.
    pub(super) fn catch_up(&self) {
        let wanted = self.0.queue.durable().size();
        while *self.0.size.borrow() < wanted && self.0.trouble().is_none() {
            let state = self.0.state();
            drop(self.0.end.wait_timeout(state, Duration::from_millis(5)));
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let state = self.0.state();
        drop(self.0.end.wait_timeout_while(state, self.0.deadline, |state| !state.ended));
    }
}

/// Says that the thread is no more, also where it panics.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.end.notify_all();
    }
}

impl Shared {
    /// Nothing is left half-done under this lock, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps it from its work. That it hangs is found by who asks, since it cannot say so itself.
    fn trouble(&self) -> Option<Trouble> {
        let mut state = self.state();
        let patience = match &self.settings.kind {
            SinkKind::Folder(_) => self.deadline,
            // Its attempts have an end of their own, and there may be three in one step.
            SinkKind::Otlp(settings) => self.deadline + settings.patience * 3,
            SinkKind::Archive(ArchivePlace::Folder(_)) => SEGMENT_PATIENCE,
            SinkKind::Archive(ArchivePlace::Bucket(settings)) => SEGMENT_PATIENCE + settings.patience * 6,
        };
        let hangs = state.busy_since.is_some_and(|since| since.elapsed() > patience);
        if hangs && state.trouble.is_none() {
            self.troubled(&mut state, Failure::hung(), true);
        }
        state.trouble.clone()
    }

    /// Keeps what is wrong, named after the sink, and has it recorded the first time that it is news.
    fn troubled(&self, state: &mut State, failure: Failure, is_news: bool) {
        let failure = failure.of_sink(&self.settings.name);
        let before = state.trouble.as_ref().map(|trouble| (trouble.since, trouble.told));
        let (since, told) = before.unwrap_or_else(|| (Instant::now(), false));
        if is_news && !told {
            self.queue.tell(News::alarm(&failure));
        }
        state.trouble = Some(Trouble { failure, since, told: told || is_news });
    }

    fn follower(&self) -> Result<Box<dyn Follower>> {
        let (log, name) = (self.log.clone(), self.settings.name.clone());
        Ok(match self.settings.kind.clone() {
            SinkKind::Folder(folder) => Box::new(Copying::new(log, folder)),
            SinkKind::Otlp(settings) => Box::new(Feed::new(log, name, self.origin.clone(), settings)?),
            SinkKind::Archive(place) => Box::new(Archiving::new(log, place.open()?)),
        })
    }

    /// The thread: follows the log until its end.
    fn follow(&self) {
        let mut follower = match self.follower() {
            Ok(follower) => follower,
            Err(error) => return self.troubled(&mut self.state(), Failure::from(&error), true),
        };
        let mut closed: Option<Instant> = None;
        loop {
            let (reached, closing) = self.queue.reached();
            let began = Instant::now();
            self.state().busy_since = Some(began);
            let step = follower.step(&reached);
            self.state().busy_since = None;
            if step.is_ok() {
                self.state().rejected = follower.rejected();
                self.size.send_if_modified(|size| std::mem::replace(size, follower.size()) != follower.size());
            }
            let (wait, follows) = match step {
                // What it lacks when the log is closed it gets when that is opened again.
                Ok(true) if closing && closed.get_or_insert(began).elapsed() > self.deadline => return,
                Ok(true) => continue,
                Ok(false) => {
                    self.settled();
                    (LOOK, true)
                }
                Err(error) => {
                    self.troubled(&mut self.state(), Failure::from(&error), follower.is_news());
                    // Who waits for a record hears of it; the state is free again by now.
                    self.size.send_modify(|_| ());
                    (follower.rest(began.elapsed()), false)
                }
            };
            if closing {
                return;
            }
            self.queue.await_news(&reached, wait, follows);
        }
    }

    /// It has all there is: what was wrong is over.
    fn settled(&self) {
        let mut state = self.state();
        if let Some(Trouble { failure, since, told: true }) = state.trouble.take() {
            let what = format!(
                "sink {} follows the audit log again, after {} s: {}",
                self.settings.name,
                since.elapsed().as_secs(),
                Error::from(failure).public()
            );
            self.queue.tell(News::mended(what));
        }
    }
}
