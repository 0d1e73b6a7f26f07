//! What becomes of a request's body that nobody wants to read.
//!
//! A server may answer before a request has ended, and then tell the client to stop by RST_STREAM with NO_ERROR
//! ([RFC 9113, 8.1](https://www.rfc-editor.org/rfc/rfc9113#section-8.1)). "Clients MUST NOT discard responses as a result of
//! receiving such a RST_STREAM", but some do, curl 7.88 among them: they are in the middle of sending, find the stream closed,
//! and never look at the answer. In HTTP/1.1 a connection that is closed while its client sends loses the answer to the reset
//! of TCP. So what was refused is read on for a moment, into nothing, until the client has ended or has had its answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::EXPECT;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::{sleep_until, timeout_at};

/// How long a client may take to see its answer and stop.
const MOMENT: Duration = Duration::from_secs(2);
/// How much is read on: what the client may have sent before it could know.
const MOST: usize = super::connection::STREAM_WINDOW as usize;

/// The body of a request, which lingers where it is dropped unread.
#[derive(Debug)]
pub(super) struct Lingering {
    body: Option<Incoming>,
    /// Whether the client still waits to be asked for it, and so has sent nothing that could be lost
    /// ([RFC 9110, 10.1.1](https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1)).
    waits: bool,
}

impl Lingering {
    pub(super) fn of(request: Request<Incoming>) -> Request<Self> {
        let waits = request.headers().contains_key(EXPECT);
        request.map(|body| Self { body: Some(body), waits })
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // From now on the client has been asked.
        self.waits = false;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(body) = self.body.take().filter(|body| !self.waits && !body.is_end_stream()) else { return };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(read_on(body));
        }
    }
}

/// Reads into nothing for a moment. A client that sends more than it may stands still for the rest of it.
async fn read_on(mut body: Incoming) {
    let until = tokio::time::Instant::now() + MOMENT;
    let mut left = MOST;
    while left > 0 {
        match timeout_at(until, body.frame()).await {
            Ok(Some(Ok(frame))) => left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len)),
            Ok(Some(Err(_)) | None) | Err(_) => return,
        }
    }
    sleep_until(until).await;
}
