//! A supervised device: its worker process is started, watched, replaced and ended here.
//!
//! What a caller may rely on:
//! * A call answers by its deadline. A full house answers [`Class::Busy`] at once.
//! * A worker that dies or hangs is replaced; only what was in flight feels it. What may be done twice (sign, MAC, random,
//!   and all that only looks) is done again on the new worker while its deadline lasts; what may not is
//!   [`Class::Ambiguous`]. A worker that keeps dying young is started ever more slowly, and calls fail meanwhile.
//! * The device proves once a second that its sentinel is there. When it is not, the worker is ended, and with it every
//!   session object, and calls fail until a new worker has found the sentinel again.
//! * A refused PIN is tried once. The next try comes when the PIN file changes or [`Worker::retry`] is called.

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use serde_bytes::ByteBuf;
use tokio::process::Child;
use tokio::sync::{Notify, watch};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, timeout};

use super::frame::{Answer, Job};
use super::link::{Limit, Link, Route, lost};
use super::{
    AnchorPlace, AnchorSlot, AnchorWrite, Attempt, Attest, AttestationKey, Class, Description, Fault, Generated,
    Health, Identity, Inventory, Kek, KeyRef, KeySpec, PinSource, Settings, TpmChallenge,
};
use crate::attestation::Evidence;
use crate::telemetry::{Metrics, Operation};
use crate::types::{Algorithm, KeyId, Role, SecretBytes, Verifier, Version};

/// The most jobs at a device and in its queue.
pub const MAX_JOBS: usize = 1024;
/// How long opening a device may take.
const OPEN_LIMIT: Duration = Duration::from_secs(15);
/// How long making a key may take: RSA-4096 on a slow token.
const GENERATE_LIMIT: Duration = Duration::from_secs(120);
/// How long destroying a key, and dropping what is loaded of one, may take once it is begun. They may wait longer for a key
/// that is being made.
const DESTROY_LIMIT: Duration = Duration::from_secs(15);
const FORGET_LIMIT: Duration = Duration::from_secs(5);
/// How long an anchor may take. It may wait for a key that is being made.
const ANCHOR_LIMIT: Duration = Duration::from_secs(15);
/// How long an attestation may take once it is begun.
const ATTEST_LIMIT: Duration = Duration::from_secs(15);
/// The longest pause between two tries to reach a device that is gone.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// How long an orderly end may take.
const END_LIMIT: Duration = Duration::from_secs(3);
/// How often a call is tried, at most: a call that kills its worker must not do so for ever.
const MAX_TRIES: u32 = 3;
/// The first pause between two tries to reach a device.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// A worker that lived as long did not die of its start.
const STEADY: Duration = Duration::from_secs(1);
/// How many workers may die young one after the other before calls no longer wait for the next.
const MAX_FALLS: u32 = 5;
/// How often the sentinel may fail to prove itself, for reasons that may pass, before the worker is ended.
const MAX_UNPROVED: u32 = 3;

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
    guard: Option<File>,
    metrics: Metrics,
    state: watch::Sender<State>,
    ending: watch::Sender<bool>,
    retry: Notify,
    jobs: AtomicUsize,
    restarts: AtomicU64,
    /// When the sentinel last proved itself, and what the device said then.
    proved: Mutex<Option<(Instant, Health)>>,
}

#[derive(Clone, Debug)]
enum State {
    Starting,
    Up(Arc<Link>),
    Down(Fault),
}

impl State {
    /// Whether it is known what to do with a call. A link that has just ended is about to be replaced.
    fn is_settled(&self) -> bool {
        match self {
            Self::Up(link) => !link.is_ended(),
            Self::Starting => false,
            Self::Down(_) => true,
        }
    }
}

impl Drop for Worker {
    /// The supervisor ends the worker process on its own.
    fn drop(&mut self) {
        self.shared.ending.send_replace(true);
    }
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
        Self::start_guarded(name, settings, identity, program, None, metrics)
    }

    /// As [`Self::start`]. The worker process holds `guard` open until its end, which may come a moment after ours: a lock on
    /// that file tells whether anybody may still change the device.
    #[must_use]
    pub fn start_guarded(
        name: &str,
        settings: Settings,
        identity: Option<Identity>,
        program: PathBuf,
        guard: Option<File>,
        metrics: Metrics,
    ) -> Self {
        let shared = Arc::new(Shared {
            name: name.into(),
            settings,
            identity,
            program,
            guard,
            metrics,
            state: watch::Sender::new(State::Starting),
            ending: watch::Sender::new(false),
            retry: Notify::new(),
            jobs: AtomicUsize::new(0),
            restarts: AtomicU64::new(0),
            proved: Mutex::new(None),
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

    /// Whether an answer that was falsified on its way from the device would be refused: a TPM's are, by the HMAC of the session.
    #[must_use]
    pub fn authenticates_answers(&self) -> bool {
        matches!(&self.shared.settings, Settings::Tpm(settings) if settings.sessions)
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
            State::Up(link) if !link.is_ended() => Ok(()),
            State::Up(_) | State::Starting => Err(Fault::new(Class::DeviceGone, "the device worker is starting")),
            State::Down(fault) => Err(fault.clone()),
        }
    }

    /// Waits until it answers or is known not to.
    ///
    /// # Errors
    /// The fault that keeps it down.
    pub async fn settled(&self) -> Result<(), Fault> {
        let mut state = self.shared.state.subscribe();
        let _ = state.wait_for(State::is_settled).await;
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
        let Answer::Enrolled(identity) = self.long("enrol", Job::Enrol, Limit::whole(GENERATE_LIMIT)).await? else {
            return Err(unexpected());
        };
        Ok(identity)
    }

    /// What the device is and can do; asked once of each worker process, since a new one may have found another firmware.
    ///
    /// # Errors
    /// As [`super::Device::describe`].
    pub async fn describe(&self) -> Result<Arc<Description>, Fault> {
        let limit = Limit::whole(GENERATE_LIMIT);
        let ask = async || {
            let answer = self.repeatable("describe", Route::Control, || Job::Describe, limit).await?;
            let Answer::Described(description) = answer else { return Err(unexpected()) };
            Ok(Arc::new(description))
        };
        let link = self.link(limit.deadline).await?;
        link.description.get_or_try_init(ask).await.cloned()
    }

    /// Makes a key.
    ///
    /// # Errors
    /// As [`super::Device::generate`]; never done twice.
    pub async fn generate(&self, spec: KeySpec) -> Result<Generated, Fault> {
        let Answer::Generated(generated) =
            self.long("generate", Job::Generate(spec), Limit::whole(GENERATE_LIMIT)).await?
        else {
            return Err(unexpected());
        };
        Ok(generated)
    }

    /// Destroys a key; gone already is success.
    ///
    /// # Errors
    /// As [`super::Device::destroy`].
    pub async fn destroy(&self, key: KeyRef) -> Result<(), Fault> {
        let limit = Limit { allowed: DESTROY_LIMIT, ..Limit::whole(GENERATE_LIMIT) };
        self.long("destroy", Job::Destroy(key), limit).await.map(|_| ())
    }

    /// Drops what is loaded of a key on all threads.
    ///
    /// # Errors
    /// As [`super::Device::forget`].
    pub async fn forget(&self, id: KeyId, version: Version) -> Result<(), Fault> {
        let job = || Job::Forget { id, version };
        let limit = Limit { allowed: FORGET_LIMIT, ..Limit::whole(GENERATE_LIMIT) };
        self.repeatable("forget", Route::Control, job, limit).await.map(|_| ())
    }

    /// What stands in the token.
    ///
    /// # Errors
    /// As [`super::Device::inventory`].
    pub async fn inventory(&self) -> Result<Inventory, Fault> {
        let answer =
            self.repeatable("inventory", Route::Control, || Job::Inventory, Limit::whole(GENERATE_LIMIT)).await?;
        let Answer::Inventory(inventory) = answer else { return Err(unexpected()) };
        Ok(inventory)
    }

    /// Tries the known attacks on the device's interface.
    ///
    /// # Errors
    /// As [`super::Device::attack`].
    pub async fn attack(&self) -> Result<Vec<Attempt>, Fault> {
        let answer = self.repeatable("attack", Route::Control, || Job::Attack, Limit::whole(GENERATE_LIMIT)).await?;
        let Answer::Attacked(attempts) = answer else { return Err(unexpected()) };
        Ok(attempts)
    }

    /// Makes room for an anchor.
    ///
    /// # Errors
    /// As [`super::Device::make_anchor`]; never done twice.
    pub async fn make_anchor(&self, place: AnchorPlace) -> Result<(), Fault> {
        self.long("make-anchor", Job::MakeAnchor(place), Limit::whole(ANCHOR_LIMIT)).await.map(|_| ())
    }

    /// What stands in an anchor.
    ///
    /// # Errors
    /// As [`super::Device::read_anchor`].
    pub async fn read_anchor(&self, place: &AnchorPlace) -> Result<Vec<AnchorSlot>, Fault> {
        let job = || Job::ReadAnchor(place.duplicate());
        let answer = self.repeatable("read-anchor", Route::Control, job, Limit::whole(ANCHOR_LIMIT)).await?;
        let Answer::Anchor(slots) = answer else { return Err(unexpected()) };
        Ok(slots)
    }

    /// Moves an anchor on. Where this fails, what stands in it must be read.
    ///
    /// # Errors
    /// As [`super::Device::write_anchor`]; never done twice.
    pub async fn write_anchor(&self, write: AnchorWrite) -> Result<(), Fault> {
        self.long("write-anchor", Job::WriteAnchor(write), Limit::whole(ANCHOR_LIMIT)).await.map(|_| ())
    }

    /// Makes the key that signs attestations.
    ///
    /// # Errors
    /// As [`super::Device::make_attestation_key`]; never done twice.
    pub async fn make_attestation_key(&self) -> Result<AttestationKey, Fault> {
        let limit = Limit::whole(GENERATE_LIMIT);
        let Answer::AttestationKey(made) = self.long("make-attestation-key", Job::MakeAttestationKey, limit).await?
        else {
            return Err(unexpected());
        };
        Ok(made)
    }

    /// Makes the key-encryption keys that the device could use and does not have.
    ///
    /// # Errors
    /// As [`super::Device::make_missing_keks`]; never done twice.
    pub async fn make_missing_keks(&self) -> Result<Vec<Kek>, Fault> {
        let limit = Limit::whole(GENERATE_LIMIT);
        let Answer::Keks(made) = self.long("make-missing-keks", Job::MakeMissingKeks, limit).await? else {
            return Err(unexpected());
        };
        Ok(made)
    }

    /// What the device says of a key.
    ///
    /// # Errors
    /// As [`super::Device::attest`].
    pub async fn attest(&self, wanted: &Attest) -> Result<Evidence, Fault> {
        let job = || Job::Attest(Box::new(wanted.clone()));
        let limit = Limit { allowed: ATTEST_LIMIT, ..Limit::whole(GENERATE_LIMIT) };
        let Answer::Attested(evidence) = self.repeatable("attest", Route::Control, job, limit).await? else {
            return Err(unexpected());
        };
        Ok(*evidence)
    }

    /// What the device keeps as the certificate of its endorsement key.
    ///
    /// # Errors
    /// As [`super::Device::endorsement`].
    pub async fn endorsement(&self) -> Result<Vec<u8>, Fault> {
        let limit = Limit::whole(ATTEST_LIMIT);
        let answer = self.repeatable("endorsement", Route::Control, || Job::Endorsement, limit).await?;
        let Answer::Endorsement(certificate) = answer else { return Err(unexpected()) };
        Ok(certificate)
    }

    /// Opens a challenge.
    ///
    /// # Errors
    /// As [`super::Device::answer`].
    pub async fn answer(&self, challenge: &TpmChallenge) -> Result<SecretBytes, Fault> {
        let (job, limit) = (|| Job::Challenge(challenge.clone()), Limit::whole(ATTEST_LIMIT));
        let Answer::Random(secret) = self.repeatable("answer", Route::Control, job, limit).await? else {
            return Err(unexpected());
        };
        Ok(secret)
    }

    /// Random bytes of the device.
    ///
    /// # Errors
    /// As [`super::Device::random`].
    pub async fn random(&self, length: usize) -> Result<SecretBytes, Fault> {
        let job = || Job::Random(length);
        let Answer::Random(bytes) = self.repeatable("random", Route::First, job, Limit::whole(self.limit(1))).await?
        else {
            return Err(unexpected());
        };
        Ok(bytes)
    }

    /// Signs or MACs `input`, agrees with it, decrypts it or does the call of a cipher, by the role of the key; the caller checks the result before anything is released.
    ///
    /// # Errors
    /// As [`super::Device::sign`], [`super::Device::mac`], [`super::Device::agree`], [`super::Device::decrypt`] and
    /// [`super::Device::cipher`].
    pub async fn use_key(&self, key: &Arc<KeyRef>, input: Vec<u8>) -> Result<SecretBytes, Fault> {
        let mut results = self.use_on(key, vec![input], self.limit(1)).await?;
        results.pop().unwrap_or_else(nothing)
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
        let route = match key.algorithm.role() {
            Role::Sign | Role::Agree | Role::Decrypt => Route::Any,
            Role::Mac | Role::Cipher => Route::First,
        };
        let inputs: Arc<Vec<_>> = Arc::new(inputs.into_iter().map(ByteBuf::from).collect());
        let job = || Job::Use { key: key.clone(), inputs: inputs.clone() };
        let answer = self.repeatable(key.algorithm.as_str(), route, job, Limit::whole(limit)).await?;
        let Answer::Used(mut results) = answer else { return Err(unexpected()) };
        if results.len() != inputs.len() {
            return Err(unexpected());
        }
        // One alone was tried again above. Of many, what failed for a moment is tried again one by one.
        for (result, input) in results.iter_mut().zip(inputs.iter()) {
            if matches!(result, Err(fault) if fault.class == Class::Retry) {
                *result = Box::pin(self.use_on(key, vec![input.to_vec()], self.limit(1)))
                    .await?
                    .pop()
                    .unwrap_or_else(nothing);
                if matches!(result, Err(fault) if fault.class == Class::Retry) {
                    break;
                }
            }
        }
        Ok(results)
    }

    /// How many threads work on a batch of this algorithm.
    fn spread(&self, algorithm: Algorithm) -> usize {
        match (&self.shared.settings, algorithm.role()) {
            (Settings::Pkcs11(settings), Role::Sign | Role::Agree | Role::Decrypt) => {
                usize::from(settings.threads).max(1)
            }
            (Settings::Pkcs11(_), Role::Mac | Role::Cipher) | (Settings::Tpm(_), _) => 1,
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
    async fn long(&self, what: &'static str, job: Job, limit: Limit) -> Result<Answer, Fault> {
        let _slot = self.enter()?;
        let began = Instant::now();
        let link = self.link(limit.deadline).await?;
        let answer = link.call(Route::Control, job, limit).await;
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
        limit: Limit,
    ) -> Result<Answer, Fault> {
        let _slot = self.enter()?;
        let began = Instant::now();
        let mut tries = 0;
        loop {
            let link = self.link(limit.deadline).await?;
            let answer = link.call(route, job(), limit).await;
            tries += 1;
            let late = Instant::now() >= limit.deadline;
            let class = answer.as_ref().err().map(|fault| fault.class);
            let again = matches!(class, Some(Class::Retry | Class::WorkerLost)) && tries < MAX_TRIES && !late;
            if !again {
                self.count(what, began);
                // The thread works on, so it is the queue that was too long.
                let queued = class == Some(Class::WorkerLost) && late && !link.is_ended();
                return if queued { Err(expired()) } else { answer };
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
        let waited = tokio::time::timeout_at(deadline, state.wait_for(State::is_settled)).await;
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

fn nothing() -> Result<SecretBytes, Fault> {
    Err(Fault::new(Class::Internal, "the device answered nothing"))
}

fn expired() -> Fault {
    Fault::new(Class::Expired, "the device did not get to this in time")
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
    let (mut pause, mut falls, mut worked) = (FIRST_PAUSE, 0, false);
    loop {
        // 1. Start it. Before the PIN is read: a PIN that is put in place from now on is another one than was tried.
        let pin = PinStamp::of(&shared.settings);
        let Some(started) = start(&shared).await else { return };
        let why = match started {
            Ok((link, child)) => {
                // 2. Let it work.
                worked = true;
                let began = Instant::now();
                let Some(why) = work(&shared, link, child, &mut falls).await else { return };
                shared.restarts.fetch_add(1, Ordering::Relaxed);
                shared.metrics.device_restarted(&shared.name);
                if began.elapsed() > STEADY {
                    pause = FIRST_PAUSE;
                    if why.class == Class::WorkerLost {
                        continue;
                    }
                }
                why
            }
            Err(mut fault) => {
                // A configuration that worked before is good: what is missing now is the device.
                if is_own_key(&fault) || (worked && fault.class == Class::Config) {
                    fault.class = Class::DeviceGone;
                }
                shared.set(State::Down(fault.clone()));
                fault
            }
        };
        // 3. Wait a while, and longer each time.
        tracing::warn!(device = &*shared.name, class = ?why.class, cause = %why, "device is down");
        let mut ending = shared.ending.subscribe();
        tokio::select! {
            () = wait_before_retry(&shared, &why, pause, pin) => {}
            _ = ending.wait_for(|ending| *ending) => return,
        }
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// Starts a worker; `None` where the end is asked for.
async fn start(shared: &Shared) -> Option<Result<(Arc<Link>, Child), Fault>> {
    let mut ending = shared.ending.subscribe();
    if *ending.borrow() {
        return None;
    }
    // A wish of before this try is fulfilled by it.
    let _ = shared.retry.notified().now_or_never();
    let end = async {
        drop(ending.wait_for(|ending| *ending).await);
        // Some tokens do not survive that a login is killed.
        tokio::time::sleep(END_LIMIT).await;
    };
    let Shared { program, settings, identity, guard, .. } = shared;
    tokio::select! {
        started = Link::start(program, settings, identity.as_ref(), guard.as_ref(), OPEN_LIMIT) => Some(started),
        () = end => None,
    }
}

/// Lets a worker work until its link ends, and says why it did; `None` where the end was asked for.
async fn work(shared: &Shared, link: Arc<Link>, child: Child, falls: &mut u32) -> Option<Fault> {
    tracing::info!(device = &*shared.name, "device is up");
    shared.set(State::Up(link.clone()));
    let (began, mut ending) = (Instant::now(), shared.ending.subscribe());
    let ended = async {
        tokio::select! {
            _ = link.wait() => {}
            () = link.watch_threads() => {}
            () = watch_health(shared, &link) => {}
        }
        link.wait().await
    };
    let why = tokio::select! {
        why = ended => Some(why),
        _ = ending.wait_for(|ending| *ending) => None,
    };
    // Callers must not wait for the end of the old one. Where only the worker was lost, they wait for the new one: it
    // takes milliseconds.
    match &why {
        Some(why) if why.class == Class::WorkerLost => {
            *falls = if began.elapsed() > STEADY { 0 } else { *falls + 1 };
            if *falls <= MAX_FALLS {
                shared.set(State::Starting);
            } else {
                shared.set(State::Down(why.clone()));
            }
        }
        Some(why) => {
            *falls = 0;
            shared.set(State::Down(why.clone()));
        }
        None => {}
    }
    end_worker(&link, child, why.as_ref()).await;
    why
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

/// Asks the sentinel again and again; returns only where it ends the link.
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
    let mut unproved = 0;
    loop {
        ticks.tick().await;
        // A TPM has but one thread: while it makes a key it is alive.
        let route = match (link.is_busy(), &shared.settings) {
            (false, _) => Route::Control,
            (true, Settings::Pkcs11(_)) => Route::Any,
            (true, Settings::Tpm(_)) => continue,
        };
        match ask_sentinel(shared, link, &verifier, route, limit).await {
            Ok(()) => unproved = 0,
            Err(mut fault) => {
                tracing::warn!(device = &*shared.name, cause = %fault, "the sentinel did not answer");
                // Nothing is said about the sentinel by a queue that is too long.
                let passes = matches!(fault.class, Class::Busy | Class::Expired | Class::WorkerLost);
                unproved += u32::from(!passes);
                if unproved >= MAX_UNPROVED || is_own_key(&fault) {
                    fault.class = Class::DeviceGone;
                    return link.end(fault);
                }
            }
        }
    }
}

async fn ask_sentinel(
    shared: &Shared,
    link: &Link,
    verifier: &Verifier,
    route: Route,
    limit: Duration,
) -> Result<(), Fault> {
    let mut challenge = [0; 32];
    getrandom::fill(&mut challenge).map_err(|e| Fault::new(Class::Internal, format!("random bytes: {e}")))?;
    let began = Instant::now();
    let answer = link.call(route, Job::Health(challenge), Limit::whole(limit)).await;
    shared.metrics.device_operation(&Operation { device: shared.name.clone(), mechanism: "health" }, began.elapsed());
    shared.metrics.device_in_flight(&shared.name, shared.jobs.load(Ordering::Relaxed));
    let Answer::Health(health) = answer? else { return Err(unexpected()) };
    if !verifier.verifies(&challenge, &health.signature) {
        return Err(Fault::new(Class::KeyDamaged, "the sentinel's signature does not verify"));
    }
    shared.metrics.device_sessions(&shared.name, health.sessions.unwrap_or(health.loaded));
    *shared.proved.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), health));
    Ok(())
}

/// Whether a fault is about the device's own keys. No caller may take it for one about the key that he asked for.
fn is_own_key(fault: &Fault) -> bool {
    matches!(fault.class, Class::KeyGone | Class::KeyDamaged)
}

/// What tells one PIN file from another, without reading it. `None` where there is none.
#[derive(PartialEq, Eq)]
struct PinStamp(Option<(u64, u64, i64, i64)>);

impl PinStamp {
    fn of(settings: &Settings) -> Self {
        use std::os::unix::fs::MetadataExt;
        let path = match settings {
            Settings::Pkcs11(settings) => match &settings.pin {
                PinSource::File(path) => Some(path),
                PinSource::Environment(_) | PinSource::Credential(_) => None,
            },
            Settings::Tpm(_) => None,
        };
        let file = path.and_then(|path| std::fs::metadata(path).ok());
        Self(file.map(|file| (file.ino(), file.size(), file.mtime(), file.mtime_nsec())))
    }
}

/// The pause before the next try. A refused PIN waits for another PIN than the one of the last try.
async fn wait_before_retry(shared: &Shared, why: &Fault, pause: Duration, tried: PinStamp) {
    let elapsed = async {
        if !matches!(why.class, Class::PinRefused | Class::PinLocked) {
            return tokio::time::sleep(pause).await;
        }
        let mut ticks = interval(Duration::from_secs(1));
        while PinStamp::of(&shared.settings) == tried {
            ticks.tick().await;
        }
    };
    tokio::select! {
        () = elapsed => {}
        () = shared.retry.notified() => {}
    }
}
