//! What lies between those who append and the one thread that writes.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::checkpoint::Head;
use super::merkle::{Hash, leaf_hash};
use super::point::Point;
use super::pruned::Pruned;
use super::record::Record;
use super::segment::MAX_LINE;
use crate::error::{Error, Kind, Result};
use crate::types::Name;

/// The shortest wait between two attempts to open the files again.
const REOPEN: Duration = Duration::from_secs(1);
/// How much longer than an attempt, which reads all of the log, the wait after it is.
const REOPEN_REST: u32 = 10;
/// The most things that wait to be recorded of the log itself.
const MAX_NEWS: usize = 64;
/// The most bytes that may wait, whatever their number.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Where an answer goes.
type Reply<T> = oneshot::Sender<Result<T, Failure>>;
/// Where an answer comes from.
pub(super) type Answer<T> = oneshot::Receiver<Result<T, Failure>>;

/// Why something was refused, for all who must be told.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: Kind,
    public: Cow<'static, str>,
    hint: Option<Arc<str>>,
    cause: Option<Arc<str>>,
    /// Whether the log stays refused, or the next one may try again.
    lasting: bool,
}

impl Failure {
    /// The disk has no room.
    pub(super) fn full(cause: &std::io::Error) -> Self {
        let hint = Some("make room on the disk of the log: then the service goes on by itself".into());
        Self { lasting: false, hint, ..Self::broken("there is no room left for the audit log", cause) }
    }

    /// A write or a sync failed: what the disk holds is unknown.
    pub(super) fn broken(public: &'static str, cause: &std::io::Error) -> Self {
        let hint = "look at the disk; the service reads the log again, and goes on by itself once all is there";
        Self { cause: Some(cause.to_string().into()), hint: Some(hint.into()), ..Self::unavailable(public, true) }
    }

    /// Where the log begins could not be written: it stays as it was.
    pub(super) fn unpruned(cause: &std::io::Error) -> Self {
        Self { lasting: false, ..Self::broken("the log could not be pruned, and is as it was", cause) }
    }

    /// The disk takes longer than the deadline.
    pub(super) const fn slow() -> Self {
        Self::unavailable("the disk of the audit log does not answer", false)
    }

    /// As [`Self::slow`], of a sink.
    pub(super) const fn hung() -> Self {
        Self::unavailable("its disk does not answer", false)
    }

    /// The same, of a sink.
    pub(super) fn of_sink(self, name: &Name) -> Self {
        Self { public: format!("sink {name} of the audit log: {}", self.public).into(), ..self }
    }

    /// The writer is gone.
    pub(super) const fn ended() -> Self {
        Self::unavailable("the audit log is closed", true)
    }

    const fn unavailable(public: &'static str, lasting: bool) -> Self {
        Self { kind: Kind::Unavailable, public: Cow::Borrowed(public), hint: None, cause: None, lasting }
    }

    pub(super) const fn lasting(&self) -> bool {
        self.lasting
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let public = error.public().to_owned().into();
        Self { kind: error.kind(), public, hint: error.mend().map(Into::into), cause: None, lasting: true }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { kind, public, hint, cause, lasting: _ } = failure;
        let mut error = Self::new(kind, public);
        if let Some(hint) = hint {
            error = error.hint(hint.to_string());
        }
        if let Some(cause) = cause {
            error = error.because(cause.to_string());
        }
        error
    }
}

/// A record on its way: its leaf hash, and who waits for it. Its line stands in [`Group::bytes`].
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) leaf: Hash,
    pub(super) reply: Reply<u64>,
}

impl Entry {
    /// The entry of a record, and its line with a newline. Both are made by who appends, so that the writer only writes
    /// and syncs.
    pub(super) fn new(record: &Record) -> Result<(Self, Vec<u8>, Answer<u64>)> {
        let mut line = Vec::with_capacity(640);
        serde_json::to_writer(&mut line, record).map_err(|e| Error::internal(format!("writing a record: {e}")))?;
        let leaf = leaf_hash(&line);
        line.push(b'\n');
        if line.len() > MAX_LINE {
            return Err(Error::new(Kind::Limit, format!("an audit record has at most {MAX_LINE} bytes")));
        }
        let (reply, answer) = oneshot::channel();
        Ok((Self { leaf, reply }, line, answer))
    }
}

/// A head that was signed, and where.
#[derive(Clone, Debug)]
pub(super) struct Signed {
    pub(super) head: Head,
    pub(super) point: Point,
}

/// What else the writer does, after the records that came before.
#[derive(Debug)]
pub(super) enum Errand {
    /// Look at all files.
    Inspect(Reply<()>),
    /// Store a head.
    Keep(Box<Signed>, Reply<()>),
    /// Begin behind what is pruned: answers the files that are to be removed.
    Prune(Box<Pruned>, Reply<Vec<PathBuf>>),
    /// Open the files again, after a failure.
    Reopen,
}

impl Errand {
    pub(super) fn inspect() -> (Self, Answer<()>) {
        let (reply, answer) = oneshot::channel();
        (Self::Inspect(reply), answer)
    }

    pub(super) fn keep(signed: Signed) -> (Self, Answer<()>) {
        let (reply, answer) = oneshot::channel();
        (Self::Keep(Box::new(signed), reply), answer)
    }

    pub(super) fn prune(pruned: Pruned) -> (Self, Answer<Vec<PathBuf>>) {
        let (reply, answer) = oneshot::channel();
        (Self::Prune(Box::new(pruned), reply), answer)
    }
}

/// What the writer takes at once.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) entries: Vec<Entry>,
    /// The lines of the entries, one after the other: one buffer for all, which no thread frees for another.
    pub(super) bytes: Vec<u8>,
    pub(super) errands: Vec<Errand>,
}

/// The queue, and what both sides must know of each other.
#[derive(Debug)]
pub(super) struct Queue {
    /// Never held while anything is written or read.
    state: Mutex<State>,
    /// The writer waits here for work.
    work: Condvar,
    /// Who closes the log waits here for the writer's end.
    end: Condvar,
    /// The sinks wait here for what is new.
    grown: Condvar,
    limit: usize,
    deadline: Duration,
}

/// Something that happened to the log or to a sink, for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What, as a sentence.
    pub what: String,
    /// What kind of trouble it is; none where something is over.
    pub trouble: Option<Kind>,
    /// Whether the log itself was refused, and goes on.
    pub reopened: bool,
}

impl News {
    /// Something that is wrong.
    pub(super) fn alarm(failure: &Failure) -> Self {
        Self { what: failure.public.clone().into_owned(), trouble: Some(failure.kind), reopened: false }
    }

    /// Something that is over.
    pub(super) const fn mended(what: String) -> Self {
        Self { what, trouble: None, reopened: false }
    }
}

/// What the files hold when they were opened.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    /// Where the log begins.
    pub(super) begin: Point,
    /// All that is durable.
    pub(super) durable: Point,
    /// The last head.
    pub(super) signed: Option<Signed>,
    /// The bytes of the heads.
    pub(super) head_bytes: u64,
}

/// How far the log is durable.
#[derive(Clone, Debug)]
pub(super) struct Reached {
    pub(super) point: Arc<Point>,
    /// The bytes of the heads.
    pub(super) heads: u64,
}

/// How it stands with opening the files again.
#[derive(Clone, Copy, Debug, Default)]
enum Reopening {
    /// It may be tried.
    #[default]
    Open,
    /// It is under way.
    Now,
    /// It failed, and may be tried again from then on.
    After(Instant),
}

#[derive(Debug)]
struct State {
    waiting: Group,
    /// Whether the writer waits on `work`: only then need it be woken, which costs a system call.
    idle: bool,
    /// Since when the writer is at its present group.
    busy_since: Option<Instant>,
    failure: Option<Failure>,
    /// Whether the files are being opened again, or when that may be tried once more.
    reopening: Reopening,
    /// What happened to the log and its sinks and is not recorded yet, the oldest first.
    news: VecDeque<News>,
    /// The bytes of the heads that are durable.
    head_bytes: u64,
    closing: bool,
    ended: bool,
    /// Where the log begins: behind what was pruned.
    begin: Arc<Point>,
    durable: Arc<Point>,
    signed: Option<Signed>,
}

impl State {
    /// Why nothing can be accepted now.
    fn refusal(&self, deadline: Duration) -> Option<Failure> {
        if let Some(failure) = &self.failure {
            return Some(failure.clone());
        }
        if self.closing || self.ended {
            return Some(Failure::ended());
        }
        // Without this each caller would wait for its whole deadline behind a disk that hangs already.
        self.busy_since.is_some_and(|since| since.elapsed() > deadline).then(Failure::slow)
    }
}

impl Queue {
    pub(super) fn new(extent: Extent, limit: usize, deadline: Duration) -> Self {
        let Extent { begin, durable, signed, head_bytes } = extent;
        let state = State {
            waiting: Group::default(),
            idle: false,
            busy_since: None,
            failure: None,
            reopening: Reopening::Open,
            news: VecDeque::new(),
            head_bytes,
            closing: false,
            ended: false,
            begin: Arc::new(begin),
            durable: Arc::new(durable),
            signed,
        };
        let (state, work, end, grown) = (Mutex::new(state), Condvar::new(), Condvar::new(), Condvar::new());
        Self { state, work, end, grown, limit, deadline }
    }

    /// Nothing is left half-done under this lock, so a panic elsewhere does not spoil it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a record.
    pub(super) fn push(&self, entry: Entry, line: &[u8]) -> Result<()> {
        let mut state = self.state();
        if let Some(failure) = state.refusal(self.deadline) {
            return Err(failure.into());
        }
        if state.waiting.entries.len() >= self.limit || state.waiting.bytes.len() + line.len() > MAX_BYTES {
            return Err(Error::new(Kind::Busy, "too many audit records are waiting for the disk"));
        }
        state.waiting.bytes.extend_from_slice(line);
        state.waiting.entries.push(entry);
        self.wake(state);
        Ok(())
    }

    /// Queues something else.
    pub(super) fn send(&self, errand: Errand) -> Result<()> {
        let mut state = self.state();
        if let Some(failure) = state.refusal(self.deadline) {
            return Err(failure.into());
        }
        state.waiting.errands.push(errand);
        self.wake(state);
        Ok(())
    }

    fn wake(&self, state: MutexGuard<'_, State>) {
        let idle = state.idle;
        drop(state);
        if idle {
            self.work.notify_one();
        }
    }

    /// The writer's side: puts all that waits into `group`, which must be empty. False at the end of the log.
    pub(super) fn take(&self, group: &mut Group) -> bool {
        let mut state = self.state();
        state.busy_since = None;
        while state.waiting.entries.is_empty() && state.waiting.errands.is_empty() {
            if state.closing {
                return false;
            }
            state.idle = true;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle = false;
        }
        std::mem::swap(&mut state.waiting, group);
        state.busy_since = Some(Instant::now());
        true
    }

    /// The writer's side: everything up to `point` is durable.
    pub(super) fn publish(&self, point: Point) {
        self.state().durable = Arc::new(point);
        // Without a sink nobody waits, and this costs nothing.
        self.grown.notify_all();
    }

    /// The writer's side: a head is durable.
    pub(super) fn publish_head(&self, signed: Option<Signed>, bytes: u64) {
        let mut state = self.state();
        (state.signed, state.head_bytes) = (signed, bytes);
        drop(state);
        self.grown.notify_all();
    }

    /// The writer's side: what is below `begin` is about to be removed.
    pub(super) fn publish_begin(&self, begin: Point) {
        self.state().begin = Arc::new(begin);
    }

    /// Where the log begins.
    pub(super) fn begin(&self) -> Arc<Point> {
        Arc::clone(&self.state().begin)
    }

    /// How far the log is durable, and whether it is at its end.
    pub(super) fn reached(&self) -> (Reached, bool) {
        let state = self.state();
        let reached = Reached { point: Arc::clone(&state.durable), heads: state.head_bytes };
        (reached, state.ended)
    }

    /// Waits until more is durable than `last`, where `follows` says so, or for the end of the log, but no longer than `most`.
    pub(super) fn await_news(&self, last: &Reached, most: Duration, follows: bool) {
        let state = self.state();
        let waits = |state: &mut State| {
            let grown = state.durable.size() > last.point.size() || state.head_bytes > last.heads;
            !(state.ended || follows && grown)
        };
        drop(self.grown.wait_timeout_while(state, most, waits));
    }

    /// The writer's side: it is no more.
    pub(super) fn ended(&self) {
        let mut state = self.state();
        state.ended = true;
        // Dropping what waits tells everybody who waits for it.
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
        self.end.notify_all();
        self.grown.notify_all();
    }

    /// From now on everything is refused. The first failure stays, but tampering outranks the others.
    pub(super) fn condemn(&self, failure: Failure) {
        let mut state = self.state();
        if state.failure.as_ref().is_none_or(|old| old.kind != Kind::Tampered && failure.kind == Kind::Tampered) {
            state.failure = Some(failure);
        }
    }

    /// Why the log is refused for good, if it is.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.state().failure.clone()
    }

    /// Has the writer open the files again, where the log is refused and that was not tried a moment ago.
    pub(super) fn reopen(&self) {
        let mut state = self.state();
        let due = match state.reopening {
            Reopening::Open => true,
            Reopening::Now => false,
            Reopening::After(then) => Instant::now() >= then,
        };
        if due && state.failure.is_some() && !state.closing {
            state.reopening = Reopening::Now;
            state.waiting.errands.push(Errand::Reopen);
            self.wake(state);
        }
    }

    /// The writer's side: the files were opened again and hold all that was acknowledged. What had failed is over.
    pub(super) fn reopened(&self, extent: Extent, what: impl IntoIterator<Item = String>) {
        let mut state = self.state();
        let failed = state.failure.take().map(|failure| failure.public).unwrap_or_default();
        let over =
            format!("the audit log was refused ({failed}); it was read again, and holds all that was acknowledged");
        state.news.push_back(News { reopened: true, ..News::mended(over) });
        state.news.extend(what.into_iter().map(News::mended));
        let Extent { begin, durable, signed, head_bytes } = extent;
        (state.begin, state.durable) = (Arc::new(begin), Arc::new(durable));
        (state.signed, state.head_bytes) = (signed, head_bytes);
        state.reopening = Reopening::Open;
        drop(state);
        self.grown.notify_all();
    }

    /// The writer's side: the files could not be opened again, which took so long.
    pub(super) fn not_reopened(&self, took: Duration) {
        self.state().reopening = Reopening::After(Instant::now() + REOPEN.max(took * REOPEN_REST));
    }

    /// Has something recorded. Where very much waits already, the oldest is forgotten.
    pub(super) fn tell(&self, news: News) {
        let mut state = self.state();
        if state.news.len() >= MAX_NEWS {
            state.news.pop_front();
        }
        state.news.push_back(news);
    }

    /// The oldest thing that is not recorded yet.
    pub(super) fn news(&self) -> Option<News> {
        self.state().news.front().cloned()
    }

    /// The oldest is recorded.
    pub(super) fn news_is_recorded(&self) {
        self.state().news.pop_front();
    }

    /// Lets the writer finish what waits, and waits for that, at most for the deadline.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closing = true;
        self.work.notify_one();
        drop(self.end.wait_timeout_while(state, self.deadline, |state| !state.ended));
    }

    /// The last head and all that is durable, or why nothing is accepted.
    pub(super) fn points(&self) -> Result<(Option<Signed>, Point)> {
        let state = self.state();
        match state.refusal(self.deadline) {
            Some(failure) => Err(failure.into()),
            None => Ok((state.signed.clone(), Point::clone(&state.durable))),
        }
    }

    pub(super) fn durable(&self) -> Arc<Point> {
        Arc::clone(&self.state().durable)
    }

    pub(super) fn signed(&self) -> Option<Signed> {
        self.state().signed.clone()
    }
}
