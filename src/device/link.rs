//! The front's end of one worker process: its sockets, and the jobs that wait for an answer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, Command};
use tokio::sync::{OnceCell, mpsc, oneshot, watch};
use tokio::time::{Duration, Instant, interval, timeout_at};

use super::frame::{Answer, Decoder, Job, Reply, Request, encode, monotonic, set_id};
use super::process::MAX_SOCKETS;
use super::{Class, Description, Effect, Fault, Identity, PinSource, Settings};

/// How long after its deadline a job may still be answered.
const GRACE: Duration = Duration::from_millis(100);
/// How often the threads are looked at, whether one hangs.
const LOOK: Duration = Duration::from_millis(50);
/// A job that may take longer than this is a long one.
const LONG: Duration = Duration::from_secs(15);
/// The most jobs at one thread, those included that nobody waits for any more.
const MAX_WAITING: usize = 4096;

/// Which thread of the worker takes a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The one for everything slow or rare.
    Control,
    /// The one for symmetric keys: these get slower on a second thread.
    First,
    /// Whichever has the least to do.
    Any,
}

/// A worker process that is open for jobs.
#[derive(Debug)]
pub(super) struct Link {
    control: Lane,
    lanes: Vec<Lane>,
    /// Why it is no longer open; `None` while it is.
    ended: watch::Sender<Option<Fault>>,
    /// Whether it ended because a call did not come back.
    hung: AtomicBool,
    /// What the device is and can do, once somebody asked.
    pub(super) description: OnceCell<Arc<Description>>,
    /// Ends with the link; the worker ends with it, even out of a hung call.
    _life: StdStream,
}

#[derive(Debug)]
struct Lane {
    waiting: Mutex<Waiting>,
    /// How many jobs are with the worker; read without the lock to choose a lane.
    load: AtomicUsize,
}

#[derive(Debug)]
struct Waiting {
    /// In the order in which the thread does them: the first is the one it is at.
    jobs: BTreeMap<u64, Pending>,
    next: u64,
    /// When the thread last answered anything.
    answered: Instant,
    /// `None` once the lane is closed.
    outgoing: Option<mpsc::UnboundedSender<Vec<u8>>>,
}

/// A job that is with the worker. It stays here until it is answered, even if nobody waits for it any more: the thread is
/// at it all the same.
#[derive(Debug)]
struct Pending {
    answer: oneshot::Sender<Reply>,
    sent: Instant,
    allowed: Duration,
}

/// How long a job may take, from now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// Until when somebody waits for the answer.
    pub(super) deadline: Instant,
    /// For how long the device may be at it before it counts as hung. More than what is left until the deadline where the
    /// job was tried before.
    pub(super) allowed: Duration,
}

impl Limit {
    /// All of it lies before us.
    pub(super) fn whole(allowed: Duration) -> Self {
        Self { deadline: Instant::now() + allowed, allowed }
    }
}

impl Link {
    /// Starts a worker process and opens its device. The process holds `guard` open until its end. Where a token says that a wrong PIN was
    /// entered, ours is tried only if we `insist`.
    pub(super) async fn start(
        program: &Path,
        settings: &Settings,
        identity: Option<&Identity>,
        guard: Option<&File>,
        insist: bool,
        limit: Duration,
    ) -> Result<(Arc<Self>, Child), Fault> {
        let count = match settings {
            Settings::Pkcs11(settings) => usize::from(settings.threads).min(MAX_SOCKETS - 3),
            // One context, one thread: the control socket serves everything.
            Settings::Tpm(_) => 0,
        };
        let (control, theirs) = pair()?;
        let child = spawn(program, settings, theirs)?;
        let (life, life_theirs) = pair()?;
        let lanes: Vec<_> = (0..count).map(|_| pair()).collect::<Result<_, _>>()?;
        let open = Request {
            deadline: monotonic().saturating_add(nanos(limit)),
            job: Job::Open { settings: Box::new(settings.clone()), identity: identity.cloned().map(Box::new), insist },
        };
        let mut frame = Vec::new();
        encode(0, &open, &mut frame)?;
        let guard = guard.map_or(life_theirs.as_fd(), AsFd::as_fd);
        let theirs: Vec<_> =
            lanes.iter().map(|(_, theirs)| theirs.as_fd()).chain([guard, life_theirs.as_fd()]).collect();
        send_with_sockets(&control, &frame, &theirs)?;
        drop(theirs);
        let (ended, _) = watch::channel(None);
        let mut halves = Vec::new();
        let mut connect = |stream: StdStream| -> Result<Lane, Fault> {
            let (lane, read, write, outgoing) = Lane::new(stream)?;
            halves.push((read, write, outgoing));
            Ok(lane)
        };
        let control = connect(control)?;
        let (first, opened) = oneshot::channel();
        control.lock().jobs.insert(0, Pending { answer: first, sent: Instant::now(), allowed: limit });
        let lanes = lanes.into_iter().map(|(ours, _)| connect(ours)).collect::<Result<_, _>>()?;
        let link = Arc::new(Self {
            control,
            lanes,
            ended,
            hung: AtomicBool::new(false),
            description: OnceCell::new(),
            _life: life,
        });
        let mut halves = halves.into_iter().enumerate();
        let run = |(index, (read, write, outgoing))| {
            tokio::spawn(write_all(link.clone(), write, outgoing));
            tokio::spawn(read_all(link.clone(), index, read));
        };
        // The others are read only once the device is open: a worker that says why it does not open ends at once, and the
        // end of its sockets must not overtake its words. A refused PIN taken for a death would be tried again.
        halves.by_ref().take(1).for_each(run);
        let answer = timeout_at(Instant::now() + limit, opened).await;
        let failure = match answer {
            Ok(Ok(Ok(_))) => {
                halves.for_each(run);
                return Ok((link, child));
            }
            Ok(Ok(Err(fault))) => fault,
            Ok(Err(_)) => lost("the device worker died while it opened the device"),
            Err(_) => Fault::new(Class::DeviceGone, "the device did not open in time"),
        };
        link.end(failure.clone());
        Err(failure)
    }

    /// Hands a job to a thread and waits for its answer, at most until its deadline.
    pub(super) async fn call(&self, route: Route, job: Job, limit: Limit) -> Result<Answer, Fault> {
        let lane = self.lane(route);
        let (sender, receiver) = oneshot::channel();
        let until = monotonic().saturating_add(nanos(limit.deadline.saturating_duration_since(Instant::now())));
        let mut frame = Vec::with_capacity(256);
        encode(0, &Request { deadline: until, job }, &mut frame)?;
        lane.send(frame, Pending { answer: sender, sent: Instant::now(), allowed: limit.allowed })?;
        match timeout_at(limit.deadline + GRACE, receiver).await {
            Ok(Ok(reply)) => {
                if let Some(fault) = device_gone(&reply) {
                    self.end(fault.clone());
                }
                reply
            }
            Ok(Err(_)) => Err(lost("the device worker died")),
            Err(_) => {
                self.end_if_hung();
                Err(lost("the device did not answer in time"))
            }
        }
    }

    /// Ends the link when a thread hangs; otherwise never returns.
    pub(super) async fn watch_threads(&self) {
        let mut looks = interval(LOOK);
        while !self.end_if_hung() {
            looks.tick().await;
        }
    }

    /// A thread hangs when the job it is at takes longer than that job may, whoever waits for it. A long queue is not a
    /// hung thread. Beside a long job on the control thread others may rightly wait: it may hold the lock of the token.
    fn end_if_hung(&self) -> bool {
        let now = Instant::now();
        let lanes = if self.is_busy() { &[] } else { self.lanes.as_slice() };
        let hung = lanes.iter().chain([&self.control]).any(|lane| lane.lock().is_overdue(now));
        if hung {
            self.hung.store(true, Ordering::Relaxed);
            self.end(lost("the device did not answer in time"));
        }
        hung
    }

    /// Ends the link: everything in flight fails, and the worker ends when it reads the end of its sockets.
    pub(super) fn end(&self, why: Fault) {
        self.ended.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(why);
            }
            first
        });
        for lane in self.lanes.iter().chain([&self.control]) {
            let mut waiting = lane.lock();
            waiting.outgoing = None;
            waiting.jobs.clear();
            lane.load.store(0, Ordering::Relaxed);
        }
    }

    /// Waits until the link ends, and says why.
    pub(super) async fn wait(&self) -> Fault {
        let mut ended = self.ended.subscribe();
        let end = ended.wait_for(Option::is_some).await;
        end.ok().and_then(|why| why.clone()).unwrap_or_else(|| lost("the device worker died"))
    }

    /// Whether it ended.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Whether it ended because a call did not come back.
    pub(super) fn is_hung(&self) -> bool {
        self.hung.load(Ordering::Relaxed)
    }

    /// Whether the control thread has a job that may rightly take long.
    pub(super) fn is_busy(&self) -> bool {
        self.control.lock().jobs.values().any(|job| job.allowed > LONG)
    }

    fn lane(&self, route: Route) -> &Lane {
        let chosen = match route {
            Route::Control => None,
            Route::First => self.lanes.first(),
            Route::Any => self.lanes.iter().min_by_key(|lane| lane.load.load(Ordering::Relaxed)),
        };
        chosen.unwrap_or(&self.control)
    }
}

impl Lane {
    #[expect(clippy::type_complexity, reason = "the four parts of a socket, taken apart at once")]
    fn new(
        stream: StdStream,
    ) -> Result<(Self, OwnedReadHalf, OwnedWriteHalf, mpsc::UnboundedReceiver<Vec<u8>>), Fault> {
        let socket = |e: std::io::Error| Fault::new(Class::Internal, format!("worker socket: {e}"));
        stream.set_nonblocking(true).map_err(socket)?;
        let (read, write) = UnixStream::from_std(stream).map_err(socket)?.into_split();
        // Unbounded here, bounded by `MAX_WAITING`.
        let (outgoing, receiver) = mpsc::unbounded_channel();
        let waiting = Waiting { jobs: BTreeMap::new(), next: 1, answered: Instant::now(), outgoing: Some(outgoing) };
        Ok((Self { waiting: Mutex::new(waiting), load: AtomicUsize::new(0) }, read, write, receiver))
    }

    fn send(&self, mut frame: Vec<u8>, job: Pending) -> Result<(), Fault> {
        let mut waiting = self.lock();
        if waiting.jobs.len() >= MAX_WAITING {
            return Err(Fault::new(Class::Busy, "the queue of the device is full"));
        }
        let id = waiting.next;
        set_id(&mut frame, id);
        let Some(outgoing) = &waiting.outgoing else { return Err(lost("the device worker died")) };
        outgoing.send(frame).map_err(|_| lost("the device worker died"))?;
        waiting.next += 1;
        waiting.jobs.insert(id, job);
        self.load.store(waiting.jobs.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Takes out the job that was answered.
    fn answered(&self, id: u64) -> Option<Pending> {
        let mut waiting = self.lock();
        let job = waiting.jobs.remove(&id);
        waiting.answered = Instant::now();
        self.load.store(waiting.jobs.len(), Ordering::Relaxed);
        job
    }

    /// The lock protects the table of waiting jobs; nothing else is locked, and nothing awaited, while it is held.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Whether the thread is at its job for longer than that may take. It began when it had answered the one before.
    fn is_overdue(&self, now: Instant) -> bool {
        let first = self.jobs.first_key_value();
        first.is_some_and(|(_, job)| now > job.sent.max(self.answered) + job.allowed + GRACE)
    }
}

/// The fault that says that the device is gone: for the whole job, or for one input of it.
fn device_gone(reply: &Reply) -> Option<&Fault> {
    let gone = |fault: &&Fault| fault.class.row().breaker == Effect::Opens;
    match reply {
        Err(fault) => Some(fault).filter(gone),
        Ok(Answer::Used(results)) => results.iter().filter_map(|result| result.as_ref().err()).find(gone),
        Ok(_) => None,
    }
}

/// A call that was lost with its worker.
pub(super) fn lost(text: &str) -> Fault {
    Fault::new(Class::WorkerLost, text)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn pair() -> Result<(StdStream, StdStream), Fault> {
    StdStream::pair().map_err(|e| Fault::new(Class::Internal, format!("worker socket: {e}")))
}

/// The worker gets the environment that its device needs and nothing else of ours.
fn spawn(program: &Path, settings: &Settings, stdin: StdStream) -> Result<Child, Fault> {
    let mut command = Command::new(program);
    command.arg("device-worker").stdin(Stdio::from(OwnedFd::from(stdin))).stdout(Stdio::null()).env_clear();
    // Its own group, so that an interrupt at the terminal reaches the front alone, which ends it in order.
    command.process_group(0).kill_on_drop(true).env("TSS2_LOG", "all+NONE");
    let mut pass_on = vec![];
    if let Settings::Pkcs11(settings) = settings {
        command.envs(settings.environment.iter().map(|(name, value)| (name, value)));
        match &settings.pin {
            PinSource::File(_) => {}
            PinSource::Environment(name) => pass_on.push(name.as_str()),
            PinSource::Credential(_) => pass_on.push("CREDENTIALS_DIRECTORY"),
        }
    }
    for name in pass_on {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.spawn().map_err(|e| Fault::new(Class::Config, format!("starting a device worker: {e}")))
}

fn send_with_sockets(control: &StdStream, frame: &[u8], sockets: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), Fault> {
    let broken = |what: String| Fault::new(Class::Internal, format!("handing sockets to a worker: {what}"));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(broken("too many".to_owned()));
    }
    // A worker that ends at once takes its end of the socket with it.
    let sent = sendmsg(control, &[IoSlice::new(frame)], &mut ancillary, SendFlags::NOSIGNAL)
        .map_err(|e| lost(&format!("the device worker did not start: {e}")))?;
    if sent == frame.len() { Ok(()) } else { Err(broken("cut off".to_owned())) }
}

/// Writes what waits, all of it in one call.
async fn write_all(link: Arc<Link>, mut socket: OwnedWriteHalf, mut outgoing: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(mut buffer) = outgoing.recv().await {
        while let Ok(next) = outgoing.try_recv() {
            buffer.extend(next);
        }
        if socket.write_all(&buffer).await.is_err() {
            // Said at once: whoever came here before the reading half sees the end would spend all his tries.
            return link.end(lost("the device worker died"));
        }
        zeroize::Zeroize::zeroize(&mut buffer);
    }
}

/// Hands answers to those who wait, until the socket ends.
async fn read_all(link: Arc<Link>, index: usize, mut socket: OwnedReadHalf) {
    let lane = match index.checked_sub(1) {
        None => Some(&link.control),
        Some(index) => link.lanes.get(index),
    };
    let Some(lane) = lane else { return };
    let (mut decoder, mut bytes) = (Decoder::default(), vec![0; 64 * 1024]);
    let why = loop {
        match socket.read(&mut bytes).await {
            Ok(0) | Err(_) => break lost("the device worker died"),
            Ok(n) => decoder.push(bytes.get_mut(..n).unwrap_or_default()),
        }
        match deliver(lane, &mut decoder) {
            Ok(()) => {}
            Err(fault) => break fault,
        }
    };
    link.end(why);
}

fn deliver(lane: &Lane, decoder: &mut Decoder) -> Result<(), Fault> {
    while let Some((id, reply)) = decoder.next::<Reply>()? {
        if let Some(job) = lane.answered(id) {
            // Whoever asked may have given up: then nobody needs the answer.
            let _ = job.answer.send(reply);
        }
    }
    Ok(())
}
