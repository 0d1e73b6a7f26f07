//! What a witness answers: `add-checkpoint`, exactly as [C2SP tlog-witness](https://c2sp.org/tlog-witness#add-checkpoint) says.
//!
//! | status | when |
//! | --- | --- |
//! | 200 | the lines of the cosignature |
//! | 400 | no such request, or an old size above that of the checkpoint |
//! | 403 | no signature by a key of the log |
//! | 404 | the log is not watched |
//! | 409 | another size is known, which is the body; or the same size with another root |
//! | 413 | the body is longer than any request |
//! | 422 | the proof does not hold |
//! | 429, 503 | too often; the device or the disk does not answer |
//!
//! A checkpoint is compared, cosigned and written under one lock and in a task of its own: neither another request nor a client that
//! hangs up comes in between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, post};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::book::{Book, Entry};
use super::key::Cosigner;
use super::request::{Checkpoint, MAX, Request};
use crate::audit::merkle::verify_consistency;
use crate::config::WatchedLog;
use crate::error::{Error, Kind, Result};
use crate::telemetry::Metrics;
use crate::types::{Clock, blocking, sha256};

/// How long a request waits for those before it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a body may take.
const BODY_PATIENCE: Duration = Duration::from_secs(5);
/// How old a cosignature may be that is given again for the same checkpoint. It bounds what strangers who send it again can make
/// the device do.
const AGAIN: Duration = Duration::from_secs(1);
/// How many newer checkpoints of one log are cosigned in a second, and how many at once after a pause.
const RATE: (f64, f64) = (100.0, 200.0);

/// What all requests share.
#[derive(Debug)]
pub(super) struct Front {
    cosigner: Cosigner,
    logs: BTreeMap<String, WatchedLog>,
    /// Held from the comparison to the answer of the disk.
    desk: Mutex<Desk>,
    clock: Clock,
    metrics: Metrics,
}

/// What is changed by requests.
#[derive(Debug)]
struct Desk {
    book: Book,
    /// The last cosignature of each log: when it was made, and its line.
    last: BTreeMap<String, (Instant, String)>,
    pace: BTreeMap<String, Pace>,
}

/// How many checkpoints a log may send now.
#[derive(Debug)]
struct Pace {
    left: f64,
    at: Instant,
}

/// What a request comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Cosigned(String),
    Malformed(&'static str),
    Unsigned,
    Unknown,
    /// Another size is known.
    Known(u64),
    Inconsistent,
    TooOften,
    Unavailable,
}

impl Front {
    pub(super) fn new(
        cosigner: Cosigner,
        logs: BTreeMap<String, WatchedLog>,
        book: Book,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        for (origin, size) in book.sizes() {
            metrics.witnessed(origin, size);
        }
        let desk = Mutex::new(Desk { book, last: BTreeMap::new(), pace: BTreeMap::new() });
        Self { cosigner, logs, desk, clock, metrics }
    }

    /// The routes.
    pub(super) fn router(self: Arc<Self>) -> Router {
        Router::new().route("/add-checkpoint", post(add_checkpoint)).route("/metrics", get(metrics)).with_state(self)
    }

    async fn judge(&self, body: &[u8]) -> Verdict {
        let request = match Request::parse(body) {
            Ok(request) => request,
            Err(what) => return Verdict::Malformed(what),
        };
        let Some(log) = self.logs.get(&request.checkpoint.origin) else { return Verdict::Unknown };
        if !request.checkpoint.note.is_signed_by(&log.keys) {
            return Verdict::Unsigned;
        }
        if request.old > request.checkpoint.size {
            return Verdict::Malformed("the old size is above that of the checkpoint");
        }
        let Ok(mut desk) = timeout(PATIENCE, self.desk.lock()).await else { return Verdict::Unavailable };
        match desk.take(self, request).await {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::error!(cause = error.chain(), "a checkpoint could not be cosigned");
                Verdict::Unavailable
            }
        }
    }
}

impl Desk {
    /// Compares a signed checkpoint with what is known of its log, cosigns it and makes it what is known.
    async fn take(&mut self, front: &Front, request: Request) -> Result<Verdict> {
        let Request { old, path, checkpoint } = request;
        let Checkpoint { note, origin, size, root } = checkpoint;
        // "or zero if it never cosigned a checkpoint for that origin"
        let (known, known_root) =
            self.book.get(&origin).map_or_else(|| (0, sha256(&[])), |entry| (entry.size, entry.root));
        if old != known || (old == size && root != known_root) {
            return Ok(Verdict::Known(known));
        }
        if !verify_consistency(old, &known_root, size, &root, &path) {
            tracing::error!(origin, old, size, "a log sent a checkpoint that does not go on from what it sent before");
            return Ok(Verdict::Inconsistent);
        }
        let fresh = self.last.get(&origin).filter(|(at, _)| size == known && at.elapsed() < AGAIN);
        if let Some((_, line)) = fresh {
            return Ok(Verdict::Cosigned(line.clone()));
        }
        if !self.pace.entry(origin.clone()).or_insert_with(Pace::new).take() {
            return Ok(Verdict::TooOften);
        }
        let time = u64::try_from(front.clock.now().as_second()).unwrap_or(0);
        let line = front.cosigner.cosign(note.text(), time).await?;
        if size != known || self.book.get(&origin).is_none() {
            let entry = Entry { size, root, note: format!("{}\n{line}", note.text()) };
            let (book, log) = (self.book.clone(), origin.clone());
            self.book = blocking(move || book.with(log, entry)).await?;
            front.metrics.witnessed(&origin, size);
        }
        self.last.insert(origin, (Instant::now(), line.clone()));
        Ok(Verdict::Cosigned(line))
    }
}

impl Pace {
    fn new() -> Self {
        Self { left: RATE.1, at: Instant::now() }
    }

    fn take(&mut self) -> bool {
        let (rate, most) = RATE;
        let earned = self.at.elapsed().as_secs_f64() * rate;
        (self.left, self.at) = ((self.left + earned).min(most), Instant::now());
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

async fn add_checkpoint(State(front): State<Arc<Front>>, body: Body) -> Response<Body> {
    let verdict = match timeout(BODY_PATIENCE, axum::body::to_bytes(body, MAX)).await {
        // A client that hangs up ends its connection and not this: what is being written is written.
        Ok(Ok(body)) => {
            let judging = front.clone();
            let task = tokio::spawn(async move { judging.judge(&body).await });
            task.await.unwrap_or(Verdict::Unavailable)
        }
        Ok(Err(_)) => {
            front.metrics.add_checkpoint(413);
            return plain(StatusCode::PAYLOAD_TOO_LARGE, format!("a request has at most {MAX} bytes\n"));
        }
        Err(_) => Verdict::Malformed("the body did not come in time"),
    };
    let answer = answer(verdict);
    front.metrics.add_checkpoint(answer.status().as_u16());
    answer
}

fn answer(verdict: Verdict) -> Response<Body> {
    let later = |mut answer: Response<Body>| {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        answer
    };
    match verdict {
        Verdict::Cosigned(line) => plain(StatusCode::OK, line),
        Verdict::Malformed(what) => plain(StatusCode::BAD_REQUEST, format!("{what}\n")),
        Verdict::Unsigned => plain(StatusCode::FORBIDDEN, "no key of this log signed the checkpoint\n"),
        Verdict::Unknown => plain(StatusCode::NOT_FOUND, "this log is not watched here\n"),
        // "The response body MUST consist of the tree size of the latest cosigned checkpoint in decimal, followed by a newline"
        Verdict::Known(size) => {
            let mut answer = plain(StatusCode::CONFLICT, format!("{size}\n"));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/x.tlog.size"));
            answer
        }
        Verdict::Inconsistent => {
            plain(StatusCode::UNPROCESSABLE_ENTITY, "the proof does not lead from the known checkpoint to this one\n")
        }
        Verdict::TooOften => later(plain(StatusCode::TOO_MANY_REQUESTS, "too many checkpoints of this log\n")),
        Verdict::Unavailable => later(plain(StatusCode::SERVICE_UNAVAILABLE, "the witness cannot cosign now\n")),
    }
}

async fn metrics(State(front): State<Arc<Front>>) -> Response<Body> {
    let mut answer = plain(StatusCode::OK, front.metrics.text());
    let open = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, open);
    answer
}

fn plain(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// A key that no longer fits its configuration.
pub(super) fn another_name(configured: &str, pinned: &str) -> Error {
    Error::new(Kind::Invalid, format!("the witness was made as {pinned}, and the configuration names it {configured}"))
        .hint(
            "its cosignatures bear that name for ever: correct witness.name, or make another witness in another folder",
        )
}
