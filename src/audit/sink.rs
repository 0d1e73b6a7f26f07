//! A further place of the log: an exact copy in another folder, on another disk, which follows the log by a thread of its own.
//!
//! The log is what waits for it: a copy that was away, full, hung or removed gets from there what it lacks, and one whose folder
//! is empty gets all. Nothing waits for a sink but the records of a log that requires it, and these no longer than for the log's own
//! disk; one that is known to be in trouble refuses them at once.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::mirror::Mirror;
use super::queue::{Failure, News, Queue, Reached};
use crate::error::{Error, Kind, Result};
use crate::types::Name;

/// How often a sink looks for what is new where nobody tells it, at its files, and whether it is back.
const LOOK: Duration = Duration::from_secs(1);
/// How much longer than an attempt to open the copy the wait after it is.
const REST: u32 = 10;

/// A further place of the log.
#[derive(Clone, Debug)]
pub struct SinkSettings {
    /// Its name.
    pub name: Name,
    /// The folder, which holds this copy and nothing else. It must be there: an empty one where a disk is missing would be
    /// filled in its place.
    pub folder: PathBuf,
    /// Whether a record counts only once it is durable there.
    pub required: bool,
}

/// How a sink stands.
#[derive(Clone, Debug)]
pub struct SinkStatus {
    /// Its name.
    pub name: Name,
    /// Whether records wait for it.
    pub required: bool,
    /// The records that are durable there.
    pub size: u64,
    /// The records that it lacks.
    pub behind: u64,
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
    ended: bool,
}

#[derive(Clone, Debug)]
struct Trouble {
    failure: Failure,
    since: Instant,
}

impl Sink {
    /// Starts to follow the log in `log`, which `queue` tells of.
    pub(super) fn start(settings: SinkSettings, log: PathBuf, queue: Arc<Queue>, deadline: Duration) -> Result<Self> {
        let (state, size) = (Mutex::default(), watch::Sender::new(0));
        let shared = Arc::new(Shared { settings, log, queue, deadline, state, end: Condvar::new(), size });
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
        let SinkSettings { name, required, .. } = self.0.settings.clone();
        let behind = self.0.queue.durable().size().saturating_sub(size);
        let trouble = trouble.map(|trouble| Error::from(trouble.failure).public().to_owned());
        SinkStatus { name, required, size, behind, trouble }
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
        let hangs = state.busy_since.is_some_and(|since| since.elapsed() > self.deadline);
        if hangs && state.trouble.is_none() {
            self.troubled(&mut state, Failure::hung());
        }
        state.trouble.clone()
    }

    /// Keeps what is wrong, named after the sink, and has it recorded the first time.
    fn troubled(&self, state: &mut State, failure: Failure) {
        let failure = failure.of_sink(&self.settings.name);
        let since = state.trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
        if state.trouble.is_none() {
            self.queue.tell(News::alarm(&failure));
        }
        state.trouble = Some(Trouble { failure, since });
    }

    /// The thread: follows the log until its end.
    fn follow(&self) {
        let mut mirror: Option<Mirror> = None;
        let mut looked = Instant::now();
        loop {
            let (reached, closing) = self.queue.reached();
            self.state().busy_since = Some(Instant::now());
            let began = Instant::now();
            let step = self.step(&mut mirror, &reached, &mut looked);
            self.state().busy_since = None;
            let wait = match step {
                Ok(true) => continue,
                Ok(false) => {
                    self.settled();
                    LOOK
                }
                Err(error) => {
                    mirror = None;
                    self.troubled(&mut self.state(), Failure::from(&error));
                    // Who waits for a record hears of it; the state is free again by now.
                    self.size.send_modify(|_| ());
                    LOOK.max(began.elapsed() * REST)
                }
            };
            if closing {
                return;
            }
            self.queue.await_news(&reached, wait, mirror.is_some());
        }
    }

    /// One step: opens the copy, or copies something, or looks at its files. True where there is more to do.
    fn step(&self, mirror: &mut Option<Mirror>, reached: &Reached, looked: &mut Instant) -> Result<bool> {
        let Some(open) = mirror else {
            // After somebody else's hand showed in it, all of it is compared.
            let all = self.state().trouble.as_ref().is_some_and(|trouble| trouble.failure.kind() == Kind::Tampered);
            let open = Mirror::open(&self.log, &self.settings.folder, reached, all)?;
            self.size.send_replace(open.size());
            *mirror = Some(open);
            return Ok(true);
        };
        if looked.elapsed() >= LOOK {
            open.check()?;
            *looked = Instant::now();
        }
        let more = open.step(reached)?;
        self.size.send_if_modified(|size| std::mem::replace(size, open.size()) != open.size());
        Ok(more)
    }

    /// It has all there is: what was wrong is over.
    fn settled(&self) {
        let mut state = self.state();
        if let Some(Trouble { failure, since }) = state.trouble.take() {
            let what = format!(
                "sink {} holds all of the audit log again, after {} s: {}",
                self.settings.name,
                since.elapsed().as_secs(),
                Error::from(failure).public()
            );
            self.queue.tell(News::mended(what));
        }
    }
}
