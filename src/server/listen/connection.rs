//! One connection, from its handshake to its end.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use super::Limits;
use super::activity::{Activity, Noticed};
use super::handshake::Places;
use super::linger::Lingering;
use super::tls::Tls;
use crate::api::Peer;
use crate::auth::certificate::Claims;
use crate::error::Result;

/// How much of a body a client may send before somebody reads it: on one stream, and on all of a connection.
pub(super) const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How many streams a peer may reset before the server has looked at them, and how many it may make fail.
const RESETS: usize = 20;
/// The least that a peer must be allowed to send as one frame, which is enough. It bounds the frames of a header as well:
/// a peer that sends five more of them without an end is closed.
const FRAME: u32 = 16 * 1024;
/// How much the peer may have us remember of its headers. Of ours, h2 remembers as much and not more, whatever a peer allows.
const HEADER_TABLE: u32 = 4 * 1024;
/// How much of an answer waits in a stream for a peer that does not read.
const SEND_BUFFER: usize = 64 * 1024;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    app: Router,
    limits: Limits,
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    places: Places,
}

impl Shared {
    pub(super) fn new(app: Router, limits: Limits) -> Self {
        let mut http1 = http1::Builder::new();
        // `Activity` has the time, because hyper's own does not tell a slow header from a connection that waits.
        http1.header_read_timeout(None).max_header_size(limits.header_bytes as usize);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.header_bytes)
            .header_table_size(HEADER_TABLE)
            .max_frame_size(FRAME)
            .max_send_buf_size(SEND_BUFFER)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(RESETS)
            .keep_alive_interval(limits.ping)
            .keep_alive_timeout(limits.ping);
        Self { app, limits, http1, http2, places: Places::default() }
    }
}

/// Serves one connection. What goes wrong with it is the client's affair, and is only of interest to whoever looks for it.
pub(super) async fn serve(
    stream: TcpStream,
    address: IpAddr,
    tls: Arc<Tls>,
    shared: &Shared,
    mut going_down: watch::Receiver<bool>,
) {
    at_once(&stream);
    let limit = shared.limits.handshake;
    let handshake = timeout(limit, async {
        let config = tls.config.clone();
        if tls.waits {
            shared.places.accept(config, stream, limit).await
        } else {
            TlsAcceptor::from(config).accept(stream).await
        }
    });
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        () = down(&mut going_down) => return,
    };
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%address, cause = %error, "a handshake failed"),
        Err(_) => return tracing::debug!(%address, "a handshake took too long"),
    };
    let certificate = match claims(&stream) {
        Ok(claims) => claims,
        Err(error) => return tracing::info!(%address, cause = error.chain(), "a client certificate cannot be used"),
    };
    let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    speak(stream, Peer { address, certificate }, two, shared, going_down).await;
}

/// Serves one connection without TLS, in HTTP/1.1.
pub(super) async fn serve_plain(
    stream: TcpStream,
    address: IpAddr,
    shared: &Shared,
    going_down: watch::Receiver<bool>,
) {
    at_once(&stream);
    speak(stream, Peer { address, certificate: None }, false, shared, going_down).await;
}

/// A small answer that waits to be sent together with the next one would wait for the client's acknowledgement.
fn at_once(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
}

/// HTTP, from the first request to the end of the connection.
async fn speak(stream: impl Stream, peer: Peer, two: bool, shared: &Shared, going_down: watch::Receiver<bool>) {
    let address = peer.address;
    let activity = Activity::new(shared.limits.clone(), !two);
    let front =
        Front { app: shared.app.clone(), peer, activity: activity.clone(), most_headers: shared.limits.header_count };
    let io = TokioIo::new(Noticed { stream, activity: activity.clone() });
    let ended = if two {
        watched(Two(shared.http2.serve_connection(io, front)), &activity, &shared.limits, going_down).await
    } else {
        watched(One(shared.http1.serve_connection(io, front)), &activity, &shared.limits, going_down).await
    };
    if let Err(error) = ended {
        tracing::debug!(%address, cause = %error, "a connection broke");
    }
}

/// The claims of the client's certificate, read once per connection. One that cannot be used is not the same as none: its
/// owner thinks it counts.
fn claims(stream: &TlsStream<TcpStream>) -> Result<Option<Arc<Claims>>> {
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    leaf.map(|leaf| Claims::read(leaf).map(Arc::new)).transpose()
}

/// A connection of either protocol.
trait Connection: Future<Output = hyper::Result<()>> {
    /// Answers what was asked, and then ends.
    fn finish(self: Pin<&mut Self>);
}

struct One<S: Stream>(http1::Connection<TokioIo<Noticed<S>>, Front>);
struct Two<S: Stream>(http2::Connection<TokioIo<Noticed<S>>, Front, TokioExecutor>);

/// What bytes come and go by.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

macro_rules! connection {
    ($($type:ident),*) => {$(
        impl<S: Stream> Future for $type<S> {
            type Output = hyper::Result<()>;
            fn poll(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
                Pin::new(&mut self.0).poll(context)
            }
        }

        impl<S: Stream> Connection for $type<S> {
            fn finish(mut self: Pin<&mut Self>) {
                Pin::new(&mut self.0).graceful_shutdown();
            }
        }
    )*};
}
connection!(One, Two);

/// Drives a connection until it ends, its time is over, or the service goes down.
async fn watched(
    connection: impl Connection,
    activity: &Activity,
    limits: &Limits,
    mut going_down: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let mut connection = pin!(connection);
    // The deadline moves without telling, so it is looked at twice in the shortest time there is.
    let look = limits.headers.min(limits.idle) / 2;
    loop {
        let next = Instant::now() + look;
        tokio::select! {
            ended = &mut connection => return ended,
            () = sleep_until(activity.deadline().map_or(next, |deadline| deadline.min(next))) => {
                if activity.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
                    connection.as_mut().finish();
                    // Whoever does not even read the end of it is cut off.
                    return timeout(look, connection).await.unwrap_or(Ok(()));
                }
            }
            () = down(&mut going_down) => {
                connection.as_mut().finish();
                let last = Instant::now() + limits.drain;
                return timeout_at(last, connection).await.unwrap_or(Ok(()));
            }
        }
    }
}

/// Waits until the service goes down, or is gone.
async fn down(going_down: &mut watch::Receiver<bool>) {
    let _ = going_down.wait_for(|down| *down).await;
}

/// Puts the peer into each request, and refuses what no handler should see.
#[derive(Debug)]
struct Front {
    app: Router,
    peer: Peer,
    activity: Arc<Activity>,
    most_headers: usize,
}

impl hyper::service::Service<Request<Incoming>> for Front {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = Lingering::of(request);
        let begun = self.activity.begin();
        if let Some(status) = refusal(request.headers(), self.most_headers) {
            let mut response = Response::new(begun.answered(Body::empty()));
            *response.status_mut() = status;
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Box::pin(async move { Ok(response) });
        }
        request.extensions_mut().insert(self.peer.clone());
        let app = self.app.clone();
        Box::pin(async move {
            let response = app.oneshot(request.map(Body::new)).await?;
            Ok(response.map(|body| begun.answered(body)))
        })
    }
}

/// [RFC 9112, 6.1](https://www.rfc-editor.org/rfc/rfc9112#section-6.1): "A server MAY reject a request that contains both
/// Content-Length and Transfer-Encoding", because what stands in between may understand the other one. hyper drops the
/// length of such a request before it can be seen here, so no request may have a Transfer-Encoding: its length is in its head.
fn refusal(headers: &HeaderMap, most: usize) -> Option<StatusCode> {
    if headers.len() > most {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    headers.contains_key(TRANSFER_ENCODING).then_some(StatusCode::LENGTH_REQUIRED)
}
