//! The listeners: connections over TLS 1.3, or plain ones for what is public and signed, each with limits on all that a client
//! can make last or grow.
//!
//! ```text
//! accept ─▶ seat (caps) ─▶ handshake ─▶ claims of the certificate ─▶ HTTP/2 or HTTP/1.1 by ALPN ─▶ router
//!                      └▶ (plain) ─────────────────────────────────▶ HTTP/1.1 ─────────────────┘
//! ```
//!
//! A connection that may not be, or that does nothing, is closed; what it costs until then is in [`Limits`]. The protocol is
//! the one that was agreed in the handshake: nothing is guessed from the first bytes.

mod activity;
mod connection;
mod handshake;
mod linger;
mod seats;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use self::connection::Shared;
use self::seats::Seats;
use crate::error::Result;
use crate::telemetry::Metrics;

pub use self::handshake::{DeviceKey, Sign};
pub use self::tls::{SelfMade, Tls, self_signed, tls_config};

/// What a client may make last or grow. The defaults are those of `docs/limits.md`.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a request may take from its first byte to the end of its headers, and a new connection to its first request.
    pub headers: Duration,
    /// How long a connection may stay open between requests, and an answer may wait for its reader.
    pub idle: Duration,
    /// How long requests may go on once the service is going down.
    pub drain: Duration,
    /// How many connections there may be.
    pub connections: usize,
    /// How many of them may come from one address: for IPv6, from one network of 64 bits.
    pub connections_per_address: usize,
    /// How many requests one HTTP/2 connection may have open.
    pub streams: u32,
    /// How many bytes the headers of a request may have.
    pub header_bytes: u32,
    /// How many headers a request may have.
    pub header_count: usize,
    /// How often an HTTP/2 peer that says nothing is asked whether it is still there, and how long it may think about it.
    pub ping: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            headers: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            drain: Duration::from_secs(10),
            connections: 1024,
            connections_per_address: 256,
            streams: 100,
            header_bytes: 16 * 1024,
            header_count: 64,
            ping: Duration::from_secs(20),
        }
    }
}

/// How long to wait after a failure to accept, most often for want of file descriptors: at once it would fail again.
const PAUSE: Duration = Duration::from_millis(100);

/// What connections are wrapped in.
#[derive(Clone, Debug)]
pub enum Transport {
    /// TLS. The configuration may be exchanged at any time: new connections use what is there.
    Tls(Arc<ArcSwap<Tls>>),
    /// Nothing: only for what anybody may read and is signed.
    Plain,
}

/// Serves `app` until `shutdown` comes to pass; then takes no more connections, lets requests finish within
/// [`Limits::drain`], and returns.
///
/// # Errors
/// None yet: a listener that cannot accept tries again.
pub async fn serve(
    listener: TcpListener,
    transport: Transport,
    app: Router,
    limits: Limits,
    metrics: Metrics,
    shutdown: impl Future<Output = ()>,
) -> Result<()> {
    let (going_down, watcher) = watch::channel(false);
    let seats = Seats::new(limits.connections, limits.connections_per_address, metrics);
    let drain = limits.drain;
    let shared = Arc::new(Shared::new(app, limits));
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        // The set keeps what has ended until it is asked for.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, address)) => {
                let Some(seat) = seats.take(address.ip()) else { continue };
                let (shared, watcher) = (shared.clone(), watcher.clone());
                let config = match &transport {
                    Transport::Tls(config) => Some(config.load_full()),
                    Transport::Plain => None,
                };
                connections.spawn(async move {
                    match config {
                        Some(config) => connection::serve(stream, seat.address(), config, &shared, watcher).await,
                        None => connection::serve_plain(stream, seat.address(), &shared, watcher).await,
                    }
                    drop(seat);
                });
            }
            Err(error) if of_the_client(&error) => {}
            Err(error) => {
                tracing::warn!(cause = %error, "a connection could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    // Nobody listens where there is no connection.
    let _ = going_down.send(true);
    let finished = timeout(drain, async { while connections.join_next().await.is_some() {} }).await;
    if finished.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "connections were cut off, because they did not finish in time"
        );
        connections.shutdown().await;
    }
    Ok(())
}

/// A client that was gone before it was accepted is no reason to pause.
fn of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
