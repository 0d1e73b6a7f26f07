//! A supervised device: its worker process is started, watched, replaced and ended here.
//!
//! What a caller may rely on:
//! * A call answers by its deadline. A full house answers [`Class::Busy`] at once.
//! * A worker that dies or hangs is replaced; only what was in flight feels it. What may be done twice (sign, MAC, random,
//!   and all that only looks) is done again on the new worker while its deadline lasts; what may not is
//!   [`Class::Ambiguous`].
//! * The device proves once a second that its sentinel is there. When it is not, the worker is ended, and with it every
//!   session object, and calls fail until a new worker has found the sentinel again.
//! * Where a device is gone or fails again and again, or its new worker takes longer to start than a caller has time, the `breaker` is
//!   open: calls fail at once and say when the next try is, until a new worker has found the sentinel.
//! * A refused PIN is tried once. The next try comes when the PIN file changes or [`Worker::retry`] is called: see `refused`.
//! * Each of these is told once, by [`Worker::events`].

use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use serde_bytes::ByteBuf;
use tokio::process::Child;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, timeout};

use super::breaker::{Breaker, Callers, End};
use super::event::{Event, What};
use super::frame::{Answer, Job};
use super::link::{Limit, Link, Route, lost};
use super::refused::{May, Refused, Stamp};
use super::{
    AnchorPlace, AnchorSlot, AnchorWrite, Attempt, Attest, AttestationKey, Class, Description, Effect, Fault,
    Generated, Health, Identity, Inventory, Kek, KekRole, KeyRef, KeySpec, PinSource, Settings, SharedKek,
    TpmChallenge,
};
use crate::attestation::Evidence;
use crate::telemetry::{Metrics, Operation};
use crate::types::{Algorithm, KeyId, PcrValues, Pcrs, PublicKey, Role, SecretBytes, Verifier, Version};

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
/// How long an orderly end may take.
const END_LIMIT: Duration = Duration::from_secs(3);
/// How often a call is tried, at most: a call that kills its worker must not do so for ever.
const MAX_TRIES: u32 = 3;
/// How often it is looked whether a token still says that a wrong PIN was entered.
const PIN_LOOK: Duration = Duration::from_secs(10);
/// The most events that wait for whoever records them.
const MAX_EVENTS: usize = 128;
/// How often the sentinel may fail to prove itself, for reasons that may pass, before the worker is ended.
const MAX_UNPROVED: u32 = 3;
/// How old the last proof of a device may be that is asked before another one which has the key too: half as long again as the pause
/// between two.
const LIVELY: Duration = Duration::from_millis(1500);

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
    /// Held for a few instructions, and with no other lock.
    breaker: Mutex<Breaker>,
    /// Taken by the supervisor alone.
    refused: Mutex<Refused>,
    events: mpsc::Sender<Event>,
    told: Mutex<Option<mpsc::Receiver<Event>>>,
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
    /// Why, and when it is tried again, where that is known.
    Down(Fault, Option<Instant>),
}

impl State {
    /// Whether it is known what to do with a call. A link that has just ended is about to be replaced.
    fn is_settled(&self) -> bool {
        match self {
            Self::Up(link) => !link.is_ended(),
            Self::Starting => false,
            Self::Down(..) => true,
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
        Self::start_in(name, settings, identity, program, None, metrics)
    }

    /// As [`Self::start`], for a data folder. The worker process holds the lock of it open until its end, which may come a moment after
    /// ours: it tells whether anybody may still change the device. A PIN that was refused is remembered there.
    #[must_use]
    pub fn start_in(
        name: &str,
        settings: Settings,
        identity: Option<Identity>,
        program: PathBuf,
        folder: Option<(File, PathBuf)>,
        metrics: Metrics,
    ) -> Self {
        let (guard, place) = folder.map(|(lock, data)| (lock, data.join(format!("refused-pin.{name}")))).unzip();
        let (events, told) = mpsc::channel(MAX_EVENTS);
        let shared = Arc::new(Shared {
            name: name.into(),
            settings,
            identity,
            program,
            guard,
            metrics,
            state: watch::Sender::new(State::Starting),
            breaker: Mutex::default(),
            refused: Mutex::new(Refused::read(place)),
            events,
            told: Mutex::new(Some(told)),
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
            State::Down(fault, again) => Err(waiting(fault, *again)),
        }
    }

    /// What becomes of it from now on; whoever asks first gets it. What nobody takes in time is lost.
    #[must_use]
    pub fn events(&self) -> Option<mpsc::Receiver<Event>> {
        self.shared.told.lock().unwrap_or_else(PoisonError::into_inner).take()
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

    /// How its breaker stands: `closed`, `open`, or `half-open` while it is tried.
    #[must_use]
    pub fn breaker(&self) -> &'static str {
        match &*self.shared.state.borrow() {
            State::Up(_) | State::Starting => "closed",
            State::Down(_, Some(again)) if *again <= Instant::now() => "half-open",
            State::Down(..) => "open",
        }
    }

    /// When the sentinel last proved itself, and what the device said of itself then.
    #[must_use]
    pub fn proved(&self) -> Option<(Instant, Health)> {
        self.shared.proved.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it answers, and has proved so within the last moments: one that hangs is known to be down only seconds later.
    #[must_use]
    pub fn is_lively(&self) -> bool {
        let proved = self.shared.proved.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(at, _)| *at);
        self.state().is_ok() && proved.is_some_and(|at| at.elapsed() < LIVELY)
    }

    /// How often the worker process was replaced.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::Relaxed)
    }

    /// Tries now to reach a device that is down, a refused PIN included, and forgets how it failed before: a person knows better.
    pub fn retry(&self) {
        self.shared.breaker().forget();
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
        Ok(*identity)
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

    /// Makes a pair for key-encryption keys to come in under.
    ///
    /// # Errors
    /// As [`super::Device::open_transport`]; never done twice.
    pub async fn open_transport(&self) -> Result<PublicKey, Fault> {
        let answer = self.long("open-transport", Job::OpenTransport, Limit::whole(GENERATE_LIMIT)).await?;
        let Answer::Transport(public) = answer else { return Err(unexpected()) };
        Ok(public)
    }

    /// Makes key-encryption keys for several tokens to share: one list for each transport.
    ///
    /// # Errors
    /// As [`super::Device::make_shared`]; never done twice.
    pub async fn make_shared(
        &self,
        roles: Vec<KekRole>,
        transports: Vec<PublicKey>,
    ) -> Result<Vec<Vec<SharedKek>>, Fault> {
        let job = Job::MakeShared { roles, transports };
        let Answer::Shared(made) = self.long("make-shared", job, Limit::whole(GENERATE_LIMIT)).await? else {
            return Err(unexpected());
        };
        Ok(made)
    }

    /// Gives out the key-encryption keys that the device shares, by leave of its security officer.
    ///
    /// # Errors
    /// As [`super::Device::pass_on_shared`]; never done twice.
    pub async fn pass_on_shared(&self, transport: PublicKey, officer: PinSource) -> Result<Vec<SharedKek>, Fault> {
        let job = Job::PassOnShared { transport, officer };
        let Answer::Shared(mut given) = self.long("pass-on-shared", job, Limit::whole(GENERATE_LIMIT)).await? else {
            return Err(unexpected());
        };
        given.pop().ok_or_else(unexpected)
    }

    /// Takes in key-encryption keys that came for the device's own transport.
    ///
    /// # Errors
    /// As [`super::Device::take_shared`]; never done twice.
    pub async fn take_shared(&self, keks: Vec<SharedKek>) -> Result<Vec<Kek>, Fault> {
        let limit = Limit::whole(GENERATE_LIMIT);
        let Answer::Keks(taken) = self.long("take-shared", Job::TakeShared(keks), limit).await? else {
            return Err(unexpected());
        };
        Ok(taken)
    }

    /// Counts uses that this device made in the place of another one that has the key as well.
    pub fn stood_in(&self, uses: usize) {
        self.shared.metrics.device_stood_in(&self.shared.name, uses);
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

    /// What stands in registers of the machine now.
    ///
    /// # Errors
    /// As [`super::Device::pcrs`].
    pub async fn pcrs(&self, wanted: Pcrs) -> Result<PcrValues, Fault> {
        let job = || Job::Pcrs(wanted);
        let answer = self.repeatable("pcrs", Route::Control, job, Limit::whole(self.limit(1))).await?;
        let Answer::Pcrs(values) = answer else { return Err(unexpected()) };
        Ok(values)
    }

    /// Whether the device has registers of the machine, to whose values a key can be bound.
    #[must_use]
    pub fn has_pcrs(&self) -> bool {
        match &self.shared.settings {
            Settings::Pkcs11(_) => false,
            Settings::Tpm(_) => true,
        }
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
            Role::Sign | Role::Agree | Role::Decrypt | Role::Decapsulate => Route::Any,
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
            (Settings::Pkcs11(settings), Role::Sign | Role::Agree | Role::Decrypt | Role::Decapsulate) => {
                usize::from(settings.threads).max(1)
            }
            (Settings::Pkcs11(_), Role::Mac | Role::Cipher) | (Settings::Tpm(_), _) => 1,
        }
    }

    /// How long a job of that many inputs may take: a hardware TPM needs most of a second for one signature.
    fn limit(&self, inputs: usize) -> Duration {
        let others = u32::try_from(inputs).unwrap_or(u32::MAX).saturating_sub(1);
        let each = match &self.shared.settings {
            Settings::Pkcs11(_) => Duration::from_millis(20),
            Settings::Tpm(_) => Duration::from_millis(500),
        };
        one_use(&self.shared.settings) + each * others
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
                State::Down(fault, again) => Err(waiting(fault, *again)),
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

/// How long one use of a key may take.
const fn one_use(settings: &Settings) -> Duration {
    match settings {
        Settings::Pkcs11(_) => Duration::from_secs(2),
        Settings::Tpm(_) => Duration::from_secs(5),
    }
}

/// The fault that keeps a device down, for a caller who wants to know when to come back.
fn waiting(fault: &Fault, again: Option<Instant>) -> Fault {
    let wait = again.map(|again| again.saturating_duration_since(Instant::now()));
    Fault { wait, ..fault.clone() }
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
    let (mut worked, mut asked) = (false, false);
    loop {
        // 1. Start it. Before the PIN is read: a PIN that is put in place from now on is another one than was tried.
        let pin = Stamp::of(&shared.settings);
        let Some(started) = start(&shared, worked, pin, asked).await else { return };
        let (why, callers) = match started {
            Ok((link, child)) => {
                // 2. Let it work.
                worked = true;
                let Some(ended) = work(&shared, link, child).await else { return };
                shared.restarts.fetch_add(1, Ordering::Relaxed);
                shared.metrics.device_restarted(&shared.name);
                ended
            }
            Err(mut fault) => {
                // A configuration that worked before is good: what is missing now is the device.
                if is_own_key(&fault) || (worked && fault.class == Class::Config) {
                    fault.class = Class::DeviceGone;
                }
                shared.breaker().did_not_start();
                (fault, Callers::Refused)
            }
        };
        // 3. Wait a while, and longer each time.
        let mut chance = [0; 4];
        let _ = getrandom::fill(&mut chance);
        let pause = shared.breaker().pause(u32::from_be_bytes(chance));
        tracing::warn!(device = &*shared.name, class = ?why.class, ?pause, cause = %why, "device is down");
        match callers {
            Callers::Refused => shared.set(State::Down(why.clone(), Some(Instant::now() + pause))),
            Callers::Wait => {}
        }
        let mut ending = shared.ending.subscribe();
        tokio::select! {
            wish = wait_before_retry(&shared, &why, pause, pin) => asked = wish,
            _ = ending.wait_for(|ending| *ending) => return,
        }
    }
}

/// Starts a worker, of which a device that is down must prove that it works; `None` where the end is asked for.
async fn start(
    shared: &Shared,
    worked: bool,
    pin: Option<Stamp>,
    asked: bool,
) -> Option<Result<(Arc<Link>, Child), Fault>> {
    let mut ending = shared.ending.subscribe();
    if *ending.borrow() {
        return None;
    }
    // A wish of before this try is fulfilled by it.
    let asked = shared.retry.notified().now_or_never().is_some() || asked;
    let may = shared.refused().may(pin, asked);
    if may == May::Not {
        return Some(Err(not_again()));
    }
    let end = async {
        drop(ending.wait_for(|ending| *ending).await);
        // Some tokens do not survive that a login is killed.
        tokio::time::sleep(END_LIMIT).await;
    };
    // Whoever came before this worker had to be replaced has no time left by then; whoever comes later is not made to wait.
    let patience = async {
        tokio::time::sleep(one_use(&shared.settings)).await;
        if worked && !shared.is_down() {
            shared.set(State::Down(lost("the next device worker takes its time"), None));
        }
        std::future::pending().await
    };
    shared.metrics.device_breaker(&shared.name, if shared.is_down() { HALF_OPEN } else { CLOSED });
    let Shared { program, settings, identity, guard, .. } = shared;
    let insist = may == May::Once;
    let begin = async {
        let started = Link::start(program, settings, identity.as_ref(), guard.as_ref(), insist, OPEN_LIMIT).await;
        shared.remember_pin(pin, &started);
        let (link, child) = started?;
        if shared.is_down()
            && let Err(fault) = prove(shared, &link).await
        {
            end_worker(&link, child, Some(&fault)).await;
            return Err(fault);
        }
        Ok((link, child))
    };
    tokio::select! {
        started = begin => Some(started),
        () = end => None,
        () = patience => None,
    }
}

/// The one probe of a device that was down: its sentinel signs on a lane that callers use.
async fn prove(shared: &Shared, link: &Link) -> Result<(), Fault> {
    let Some(identity) = &shared.identity else { return Ok(()) };
    let verifier = sentinel(identity)?;
    ask_sentinel(shared, link, &verifier, Route::Any, one_use(&shared.settings)).await
}

fn not_again() -> Fault {
    let text = "this PIN was refused, and is not tried again";
    Fault::new(Class::PinRefused, text).hint("put the right PIN in place: another one is tried once")
}

/// Lets a worker work until its link ends, and says why it did, and what becomes of callers; `None` where the end was asked for.
async fn work(shared: &Shared, link: Arc<Link>, child: Child) -> Option<(Fault, Callers)> {
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
    let ended = why.map(|why| {
        let end = match why.class.row().breaker {
            Effect::Counts if link.is_hung() => End::Hung,
            Effect::Counts => End::Died,
            Effect::Opens | Effect::AtStart | Effect::Nothing => End::Gone,
        };
        let callers = shared.breaker().ended(end, began.elapsed());
        match callers {
            Callers::Wait => shared.set(State::Starting),
            Callers::Refused => shared.set(State::Down(why.clone(), None)),
        }
        if end != End::Gone {
            shared.tell(What::Replaced, &why);
        }
        (why, callers)
    });
    // A wish of while it worked is none.
    let _ = shared.retry.notified().now_or_never();
    end_worker(&link, child, ended.as_ref().map(|(why, _)| why)).await;
    ended
}

/// The numbers of the states of the breaker in the metrics.
const CLOSED: i64 = 0;
const HALF_OPEN: i64 = 1;
const OPEN: i64 = 2;

impl Shared {
    fn set(&self, state: State) {
        self.metrics.device_up(&self.name, matches!(state, State::Up(_)));
        self.metrics.device_breaker(&self.name, if matches!(state, State::Down(..)) { OPEN } else { CLOSED });
        let before = match &*self.state.borrow() {
            State::Down(fault, _) => Some(fault.class),
            State::Starting | State::Up(_) => None,
        };
        let about_pin = |class| matches!(class, Class::PinRefused | Class::PinLocked);
        match (&state, before) {
            (State::Down(fault, _), before) if about_pin(fault.class) && before != Some(fault.class) => {
                self.tell(What::PinRefused, fault);
            }
            (State::Down(fault, _), None) => self.tell(What::Opened, fault),
            (State::Up(_), Some(_)) => self.tell(What::Closed, &"the sentinel proved itself"),
            (State::Starting | State::Up(_) | State::Down(..), _) => {}
        }
        self.state.send_replace(state);
    }

    fn is_down(&self) -> bool {
        matches!(*self.state.borrow(), State::Down(..))
    }

    fn tell(&self, what: What, why: &dyn std::fmt::Display) {
        self.metrics.device_event(&self.name, what.as_str());
        // Where nobody listens it is in the log and the metrics all the same.
        let _ = self.events.try_send(Event { what, why: why.to_string() });
    }

    /// A PIN that was entered and refused has a code of the device; one that was not even tried has none.
    fn remember_pin<T>(&self, pin: Option<Stamp>, started: &Result<T, Fault>) {
        match started {
            Ok(_) => self.refused().remember(None),
            Err(Fault { class: Class::PinRefused, code: Some(_), .. }) => self.refused().remember(pin),
            Err(_) => {}
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
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
    let verifier = match sentinel(identity) {
        Ok(verifier) => verifier,
        Err(fault) => return link.end(fault),
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

fn sentinel(identity: &Identity) -> Result<Verifier, Fault> {
    Verifier::new(Algorithm::EcdsaP256, &identity.sentinel_public)
        .map_err(|e| Fault::new(Class::Config, format!("the pinned sentinel key: {e}")))
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

/// The pause before the next try, and whether a person asked for it. A refused PIN waits for another PIN than the one of the last try; one
/// that was not tried also for the token to say of no wrong PIN any more.
async fn wait_before_retry(shared: &Shared, why: &Fault, pause: Duration, tried: Option<Stamp>) -> bool {
    let elapsed = async {
        if !matches!(why.class, Class::PinRefused | Class::PinLocked) {
            return tokio::time::sleep(pause).await;
        }
        let untried = why.class == Class::PinRefused && why.code.is_none();
        let (mut ticks, since) = (interval(Duration::from_secs(1)), Instant::now());
        while Stamp::of(&shared.settings) == tried && !(untried && since.elapsed() > PIN_LOOK) {
            ticks.tick().await;
        }
    };
    tokio::select! {
        () = elapsed => false,
        () = shared.retry.notified() => true,
    }
}
