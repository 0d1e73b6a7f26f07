//! A supervised device: its worker process is started, watched, replaced and ended here.
//!
//! What a caller may rely on:
//! * A call answers by its deadline. A full house answers [`Class::Busy`] at once.
//! * A worker that dies or hangs is replaced; only what was in flight feels it. What may be done twice (sign, MAC, random)
//!   is done again on the new worker while its deadline lasts; what may not is [`Class::Ambiguous`].
//! * The device proves once a second that its sentinel is there. When it is not, the worker is ended, and with it every
//!   session object, and calls fail until a new worker has found the sentinel again.
//! * A refused PIN is tried once. The next try comes when the PIN file changes or [`Worker::retry`] is called.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::process::Child;
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, timeout};

use super::frame::{Answer, Job};
use super::link::{Link, Route, lost};
use super::{Class, Description, Fault, Generated, Health, Identity, Inventory, KeyRef, KeySpec, PinSource, Settings};
use crate::telemetry::{Metrics, Operation};
use crate::types::{Algorithm, KeyId, Purpose, SecretBytes, Verifier, Version};

/// The most jobs at a device and in its queue.
pub const MAX_JOBS: usize = 1024;
/// How long opening a device may take.
const OPEN_LIMIT: Duration = Duration::from_secs(15);
/// How long making a key may take: RSA-4096 on a slow token.
const GENERATE_LIMIT: Duration = Duration::from_secs(120);
/// The longest pause between two tries to reach a device that is gone.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// How long an orderly end may take.
const END_LIMIT: Duration = Duration::from_secs(3);
/// How often a call is tried, at most: a call that kills its worker must not do so for ever.
const MAX_TRIES: u32 = 3;

/// A supervised device.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    supervisor: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    settings: Settings,
    identity: Option<Identity>,
    program: PathBuf,
    metrics: Metrics,
    state: watch::Sender<State>,
    ending: watch::Sender<bool>,
    retry: Notify,
    jobs: AtomicUsize,
    restarts: AtomicU64,
    /// When the sentinel last proved itself, and what the device said then.
    proved: Mutex<Option<(Instant, Health)>>,
    description: tokio::sync::OnceCell<Description>,
}

#[derive(Clone, Debug)]
enum State {
    Starting,
    Up(Arc<Link>),
    Down(Fault),
}

impl Worker {
    /// Starts to supervise a device. `identity` is what was pinned at enrolment; without it only [`Self::enrol`],
    /// [`Self::describe`] and [`Self::shutdown`] make sense. `program` is this very program.
    #[must_use]
    pub fn start(
        name: &str,
        settings: Settings,
        identity: Option<Identity>,
        program: PathBuf,
        metrics: Metrics,
    ) -> Self {
        let shared = Arc::new(Shared {
            name: name.into(),
            settings,
            identity,
            program,
            metrics,
            state: watch::Sender::new(State::Starting),
            ending: watch::Sender::new(false),
            retry: Notify::new(),
            jobs: AtomicUsize::new(0),
            restarts: AtomicU64::new(0),
            proved: Mutex::new(None),
            description: tokio::sync::OnceCell::new(),
        });
        let supervisor = tokio::spawn(supervise(shared.clone()));
        Self { shared, supervisor: Mutex::new(Some(supervisor)) }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// How it is opened.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// What was pinned of it.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.shared.identity.as_ref()
    }

    /// Whether it answers; otherwise why not.
    ///
    /// # Errors
    /// The fault that keeps it down.
    pub fn state(&self) -> Result<(), Fault> {
        match &*self.shared.state.borrow() {
            State::Up(_) => Ok(()),
            State::Starting => Err(Fault::new(Class::DeviceGone, "the device worker is starting")),
            State::Down(fault) => Err(fault.clone()),
        }
    }

    /// Waits until it answers or is known not to.
    ///
    /// # Errors
    /// The fault that keeps it down.
    pub async fn settled(&self) -> Result<(), Fault> {
        let mut state = self.shared.state.subscribe();
        let _ = state.wait_for(|state| !matches!(state, State::Starting)).await;
        self.state()
    }

    /// When the sentinel last proved itself, and what the device said of itself then.
    #[must_use]
    pub fn proved(&self) -> Option<(Instant, Health)> {
        self.shared.proved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often the worker process was replaced.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::Relaxed)
    }

    /// Tries now to reach a device that is down, a refused PIN included.
    pub fn retry(&self) {
        self.shared.retry.notify_one();
    }

    /// Makes the sentinel and key-encryption keys of a device that is used for the first time.
    ///
    /// # Errors
    /// As [`super::Driver::enrol`].
    pub async fn enrol(&self) -> Result<Identity, Fault> {
        let Answer::Enrolled(identity) = self.long("enrol", Job::Enrol, GENERATE_LIMIT).await? else {
            return Err(unexpected());
        };
        Ok(identity)
    }

    /// What the device is and can do; asked once.
    ///
    /// # Errors
    /// As [`super::Device::describe`].
    pub async fn describe(&self) -> Result<&Description, Fault> {
        let ask = async || {
            let answer = self.long("describe", Job::Describe, GENERATE_LIMIT).await?;
            let Answer::Described(description) = answer else { return Err(unexpected()) };
            Ok(description)
        };
        self.shared.description.get_or_try_init(ask).await
    }

    /// Makes a key.
    ///
    /// # Errors
    /// As [`super::Device::generate`]; never done twice.
    pub async fn generate(&self, spec: KeySpec) -> Result<Generated, Fault> {
        let Answer::Generated(generated) = self.long("generate", Job::Generate(spec), GENERATE_LIMIT).await? else {
            return Err(unexpected());
        };
        Ok(generated)
    }

    /// Destroys a key; gone already is success.
    ///
    /// # Errors
    /// As [`super::Device::destroy`].
    pub async fn destroy(&self, key: KeyRef) -> Result<(), Fault> {
        self.long("destroy", Job::Destroy(key), GENERATE_LIMIT).await.map(|_| ())
    }

    /// Drops what is loaded of a key on all threads.
    ///
    /// # Errors
    /// As [`super::Device::forget`].
    pub async fn forget(&self, id: KeyId, version: Version) -> Result<(), Fault> {
        self.long("forget", Job::Forget { id, version }, GENERATE_LIMIT).await.map(|_| ())
    }

    /// What stands in the token.
    ///
    /// # Errors
    /// As [`super::Device::inventory`].
    pub async fn inventory(&self) -> Result<Inventory, Fault> {
        let Answer::Inventory(inventory) = self.long("inventory", Job::Inventory, GENERATE_LIMIT).await? else {
            return Err(unexpected());
        };
        Ok(inventory)
    }

    /// Random bytes of the device.
    ///
    /// # Errors
    /// As [`super::Device::random`].
    pub async fn random(&self, length: usize) -> Result<SecretBytes, Fault> {
        let job = || Job::Random(length);
        let Answer::Random(bytes) = self.repeatable("random", Route::First, job, self.limit(1)).await? else {
            return Err(unexpected());
        };
        Ok(bytes)
    }

    /// Signs or MACs `input`, which the caller checks before anything is released.
    ///
    /// # Errors
    /// As [`super::Device::sign`] and [`super::Device::mac`].
    pub async fn use_key(&self, key: &Arc<KeyRef>, input: Vec<u8>) -> Result<SecretBytes, Fault> {
        let mut results = self.use_on(key, vec![input], self.limit(1)).await?;
        results.pop().unwrap_or_else(|| Err(Fault::new(Class::Internal, "the device answered nothing")))
    }

    /// As [`Self::use_key`] for many inputs, spread over all threads; one result per input, in order.
    pub async fn use_key_batch(&self, key: &Arc<KeyRef>, inputs: Vec<Vec<u8>>) -> Vec<Result<SecretBytes, Fault>> {
        let limit = self.limit(inputs.len());
        let chunks = chunks(inputs, self.spread(key.algorithm));
        let work = chunks.into_iter().map(|chunk| async move {
            let count = chunk.len();
            let results = self.use_on(key, chunk, limit).await;
            results.unwrap_or_else(|fault| (0..count).map(|_| Err(fault.clone())).collect())
        });
        futures_util::future::join_all(work).await.into_iter().flatten().collect()
    }

    async fn use_on(
        &self,
        key: &Arc<KeyRef>,
        inputs: Vec<Vec<u8>>,
        limit: Duration,
    ) -> Result<Vec<Result<SecretBytes, Fault>>, Fault> {
        let route = match key.algorithm.purpose() {
            Purpose::Sign => Route::Any,
            Purpose::Mac | Purpose::Wrap => Route::First,
        };
        let inputs = Arc::new(inputs);
        let job = || Job::Use { key: key.clone(), inputs: inputs.clone() };
        let answer = self.repeatable(key.algorithm.as_str(), route, job, limit).await?;
        let Answer::Used(results) = answer else { return Err(unexpected()) };
        if results.len() == inputs.len() { Ok(results) } else { Err(unexpected()) }
    }

    /// How many threads work on a batch of this algorithm.
    fn spread(&self, algorithm: Algorithm) -> usize {
        match (&self.shared.settings, algorithm.purpose()) {
            (Settings::Pkcs11(settings), Purpose::Sign) => usize::from(settings.threads).max(1),
            (Settings::Pkcs11(_), Purpose::Mac | Purpose::Wrap) | (Settings::Tpm(_), _) => 1,
        }
    }

    /// How long a job of that many inputs may take: a hardware TPM needs most of a second for one signature.
    fn limit(&self, inputs: usize) -> Duration {
        let inputs = u32::try_from(inputs).unwrap_or(u32::MAX);
        match &self.shared.settings {
            Settings::Pkcs11(_) => Duration::from_secs(2) + Duration::from_millis(20) * inputs.saturating_sub(1),
            Settings::Tpm(_) => Duration::from_secs(5) + Duration::from_millis(500) * inputs.saturating_sub(1),
        }
    }

    /// Ends the worker in order.
    pub async fn shutdown(&self) {
        self.shared.ending.send_replace(true);
        let supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(supervisor) = supervisor {
            let _ = supervisor.await;
        }
    }

    /// A job that is done at most once.
    async fn long(&self, what: &'static str, job: Job, limit: Duration) -> Result<Answer, Fault> {
        let _slot = self.enter()?;
        let (began, deadline) = (Instant::now(), Instant::now() + limit);
        let link = self.link(deadline).await?;
        let answer = link.call_long(job, deadline).await;
        self.count(what, began);
        answer.map_err(|mut fault| {
            if fault.class == Class::WorkerLost {
                fault.class = Class::Ambiguous;
            }
            fault
        })
    }

    /// A job that may be done again where it failed.
    async fn repeatable(
        &self,
        what: &'static str,
        route: Route,
        job: impl Fn() -> Job,
        limit: Duration,
    ) -> Result<Answer, Fault> {
        let _slot = self.enter()?;
        let (began, deadline) = (Instant::now(), Instant::now() + limit);
        let mut tries = 0;
        loop {
            let link = self.link(deadline).await?;
            let answer = link.call(route, job(), deadline).await;
            tries += 1;
            let again = match &answer {
                Ok(_) => false,
                Err(fault) => matches!(fault.class, Class::Retry | Class::WorkerLost),
            };
            if !again || tries == MAX_TRIES || Instant::now() >= deadline {
                self.count(what, began);
                return answer;
            }
            self.shared.metrics.device_retried(&self.shared.name);
        }
    }

    /// Takes a slot of the queue.
    fn enter(&self) -> Result<Slot<'_>, Fault> {
        let slot = Slot(&self.shared);
        let jobs = self.shared.jobs.fetch_add(1, Ordering::Relaxed);
        if jobs >= MAX_JOBS {
            return Err(Fault::new(Class::Busy, "the queue of the device is full"));
        }
        Ok(slot)
    }

    /// The open link, waiting for a replacement that is on its way.
    async fn link(&self, deadline: Instant) -> Result<Arc<Link>, Fault> {
        let mut state = self.shared.state.subscribe();
        let waited = tokio::time::timeout_at(deadline, state.wait_for(|state| !matches!(state, State::Starting))).await;
        match waited {
            Ok(Ok(state)) => match &*state {
                State::Up(link) => Ok(link.clone()),
                State::Down(fault) => Err(fault.clone()),
                State::Starting => Err(lost("the device worker is starting")),
            },
            Ok(Err(_)) | Err(_) => Err(Fault::new(Class::Expired, "the device worker did not start in time")),
        }
    }

    fn count(&self, mechanism: &'static str, began: Instant) {
        let operation = Operation { device: self.shared.name.clone(), mechanism };
        self.shared.metrics.device_operation(&operation, began.elapsed());
    }
}

/// A place in the queue, given back on drop.
struct Slot<'w>(&'w Shared);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.jobs.fetch_sub(1, Ordering::Relaxed);
    }
}

fn unexpected() -> Fault {
    Fault::new(Class::Internal, "the device worker gave another kind of answer")
}

/// Cuts `inputs` so that `threads` share the work and no frame grows too large.
fn chunks(inputs: Vec<Vec<u8>>, threads: usize) -> Vec<Vec<Vec<u8>>> {
    const MOST_ITEMS: usize = 64;
    const MOST_BYTES: usize = super::frame::MAX_FRAME / 2;
    let fair = inputs.len().div_ceil(threads).clamp(1, MOST_ITEMS);
    let (mut chunks, mut chunk, mut bytes) = (vec![], vec![], 0);
    for input in inputs {
        if chunk.len() == fair || (!chunk.is_empty() && bytes + input.len() > MOST_BYTES) {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += input.len();
        chunk.push(input);
    }
    chunks.push(chunk);
    chunks
}

/// Keeps a worker running until the end is asked for.
async fn supervise(shared: Arc<Shared>) {
    let mut ending = shared.ending.subscribe();
    let mut pause = Duration::from_millis(20);
    while !*ending.borrow() {
        let start = Link::start(&shared.program, &shared.settings, shared.identity.as_ref(), OPEN_LIMIT);
        let (why, lived) = match start.await {
            Ok((link, child)) => {
                tracing::info!(device = &*shared.name, "device is up");
                shared.set(State::Up(link.clone()));
                let began = Instant::now();
                let why = tokio::select! {
                    why = link.wait() => Some(why),
                    () = watch_health(&shared, &link) => Some(lost("the device worker died")),
                    _ = ending.wait_for(|ending| *ending) => None,
                };
                end_worker(&link, child, why.as_ref()).await;
                let Some(why) = why else { return };
                shared.restarts.fetch_add(1, Ordering::Relaxed);
                shared.metrics.device_restarted(&shared.name);
                (why, began.elapsed())
            }
            Err(fault) => (fault, Duration::ZERO),
        };
        tracing::warn!(device = &*shared.name, class = ?why.class, cause = %why, "device is down");
        if lived > Duration::from_secs(10) || (!lived.is_zero() && why.class == Class::WorkerLost) {
            // It worked until now: replace it at once, and let callers wait those milliseconds.
            pause = Duration::from_millis(20);
            shared.set(State::Starting);
            if lived > Duration::from_secs(1) {
                continue;
            }
        } else {
            shared.set(State::Down(why.clone()));
        }
        tokio::select! {
            () = wait_before_retry(&shared, &why, pause) => {}
            _ = ending.wait_for(|ending| *ending) => return,
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

impl Shared {
    fn set(&self, state: State) {
        self.metrics.device_up(&self.name, matches!(state, State::Up(_)));
        self.state.send_replace(state);
    }
}

/// Ends a worker: in order where nothing is wrong with it, at once otherwise.
async fn end_worker(link: &Link, mut child: Child, why: Option<&Fault>) {
    link.end(lost("the device worker is ended"));
    let hung = why.is_some_and(|fault| fault.class == Class::WorkerLost);
    if hung || timeout(END_LIMIT, child.wait()).await.is_err() {
        // Kills it by the handle of the process we started, and reaps it.
        let _ = child.kill().await;
    }
}

/// Asks the sentinel again and again; returns only where the link ends by it.
async fn watch_health(shared: &Shared, link: &Link) {
    let Some(identity) = &shared.identity else { return std::future::pending().await };
    let (period, limit) = match shared.settings {
        Settings::Pkcs11(_) => (Duration::from_secs(1), Duration::from_secs(2)),
        Settings::Tpm(_) => (Duration::from_secs(2), Duration::from_secs(10)),
    };
    let verifier = match Verifier::new(Algorithm::EcdsaP256, &identity.sentinel_public) {
        Ok(verifier) => verifier,
        Err(e) => return link.end(Fault::new(Class::Config, format!("the pinned sentinel key: {e}"))),
    };
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !link.is_busy() {
            ask_sentinel(shared, link, &verifier, limit).await;
        }
    }
}

async fn ask_sentinel(shared: &Shared, link: &Link, verifier: &Verifier, limit: Duration) {
    let mut challenge = [0; 32];
    if getrandom::fill(&mut challenge).is_err() {
        return;
    }
    let began = Instant::now();
    let answer = link.call(Route::Control, Job::Health(challenge), began + limit).await;
    shared.metrics.device_operation(&Operation { device: shared.name.clone(), mechanism: "health" }, began.elapsed());
    shared.metrics.device_in_flight(&shared.name, shared.jobs.load(Ordering::Relaxed));
    match answer {
        Ok(Answer::Health(health)) if verifier.verifies(&challenge, &health.signature) => {
            shared.metrics.device_sessions(&shared.name, health.sessions.unwrap_or(health.loaded));
            *shared.proved.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), health));
        }
        Ok(_) => link.end(Fault::new(Class::KeyDamaged, "the sentinel's signature does not verify")),
        Err(fault) if matches!(fault.class, Class::KeyGone | Class::KeyDamaged) => link.end(fault),
        Err(fault) => tracing::warn!(device = &*shared.name, cause = %fault, "the sentinel did not answer"),
    }
}

/// The pause before the next try. A refused PIN waits for another PIN.
async fn wait_before_retry(shared: &Shared, why: &Fault, pause: Duration) {
    let pin_file = match &shared.settings {
        Settings::Pkcs11(settings) => match &settings.pin {
            PinSource::File(path) => Some(path.clone()),
            PinSource::Environment(_) | PinSource::Credential(_) => None,
        },
        Settings::Tpm(_) => None,
    };
    let terminal = matches!(why.class, Class::PinRefused | Class::PinLocked);
    let elapsed = async {
        if !terminal {
            return tokio::time::sleep(pause).await;
        }
        let changed = || pin_file.as_ref().and_then(|path| std::fs::metadata(path).ok()?.modified().ok());
        let before = changed();
        let mut ticks = interval(Duration::from_secs(1));
        while changed() == before {
            ticks.tick().await;
        }
    };
    tokio::select! {
        () = elapsed => {}
        () = shared.retry.notified() => {}
    }
}
