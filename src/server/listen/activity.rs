//! What a connection is doing, and until when it may.
//!
//! ```text
//! fresh ──request──▶ busy ──last answer read──▶ idle ──first byte (HTTP/1.1)──▶ head ──request──▶ busy
//!   │ headers          │ an answer nobody reads: idle   │ idle                     │ headers
//!   └──────────────────┴────────────── closed ──────────┴──────────────────────────┘
//! ```

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Limits;

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    limits: Limits,
    /// Whether bytes between requests begin the next one; those of HTTP/2 may be about anything.
    one_by_one: bool,
    /// The lock is held for one look or change.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Since when, or when an answer was last read from.
    since: Instant,
    /// Requests that are being worked on.
    working: usize,
    /// Answers that are being read.
    sending: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Fresh,
    Idle,
    Head,
}

impl Activity {
    pub(super) fn new(limits: Limits, one_by_one: bool) -> Arc<Self> {
        let state = State { phase: Phase::Fresh, since: Instant::now(), working: 0, sending: 0 };
        Arc::new(Self { limits, one_by_one, state: Mutex::new(state) })
    }

    /// When the connection has to be closed if nothing changes until then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        let limit = match (state.working, state.sending, state.phase) {
            (0, 0, Phase::Fresh | Phase::Head) => self.limits.headers,
            (0, _, _) => self.limits.idle,
            (_, _, _) => return None,
        };
        Some(state.since + limit)
    }

    /// A request has begun.
    pub(super) fn begin(self: &Arc<Self>) -> Request {
        let mut state = self.state();
        state.working += 1;
        state.phase = Phase::Idle;
        Request { activity: self.clone(), sending: false }
    }

    fn read(&self) {
        if !self.one_by_one {
            return;
        }
        let mut state = self.state();
        if state.phase == Phase::Idle && state.working == 0 && state.sending == 0 {
            state.phase = Phase::Head;
            state.since = Instant::now();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being worked on or answered; over when it is dropped.
#[derive(Debug)]
pub(super) struct Request {
    activity: Arc<Activity>,
    sending: bool,
}

impl Request {
    /// The answer is there.
    pub(super) fn answered(mut self, body: Body) -> Body {
        let mut state = self.activity.state();
        state.working = state.working.saturating_sub(1);
        state.sending += 1;
        state.since = Instant::now();
        drop(state);
        self.sending = true;
        Body::new(Watched { body, request: self })
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        let count = if self.sending { &mut state.sending } else { &mut state.working };
        *count = count.saturating_sub(1);
        state.since = Instant::now();
    }
}

/// The body of an answer, whose reading counts as doing something.
struct Watched {
    body: Body,
    request: Request,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.request.activity.state().since = Instant::now();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose first byte after an answer is noticed.
#[derive(Debug)]
pub(super) struct Noticed<S> {
    pub(super) stream: S,
    pub(super) activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Noticed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.activity.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noticed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn left(activity: &Activity) -> Option<u64> {
        activity.deadline().map(|at| (at - Instant::now() + Duration::from_millis(500)).as_secs())
    }

    #[tokio::test]
    async fn each_phase_has_its_own_time() {
        let activity = Activity::new(Limits::default(), true);
        assert_eq!(left(&activity), Some(5), "a new connection says what it wants");
        activity.read();
        let request = activity.begin();
        assert_eq!(left(&activity), None, "a device may take its time");
        let body = request.answered(Body::from("x"));
        assert_eq!(left(&activity), Some(60), "an answer is read");
        drop(body);
        assert_eq!(left(&activity), Some(60), "a connection is used again");
        activity.read();
        assert_eq!(left(&activity), Some(5), "and then at once");
        drop(activity.begin());
        assert_eq!(left(&activity), Some(60));
    }

    #[tokio::test]
    async fn bytes_of_http2_between_requests_begin_nothing() {
        let activity = Activity::new(Limits::default(), false);
        drop(activity.begin());
        activity.read();
        assert_eq!(left(&activity), Some(60));
    }
}
