//! Handshakes whose signature a device makes.
//!
//! rustls asks for a signature in the middle of its work and waits for it on the spot: on a thread of requests a slow device
//! would stop everybody. So the client is waited for without a thread, and what comes between its first message and our answer,
//! the signature, is made on a thread of its own, of which there are at most [`SIGNATURES`]:
//!
//! ```text
//! ClientHello (no thread) ─▶ a place ─▶ answer with signature (own thread) ─▶ Finished (no thread)
//!                                   └▶ the client is asked for another ClientHello: the rest (own thread, at most RETRIES)
//! ```
//!
//! A device that hangs costs the handshakes that need it, each until the deadline of handshakes, and nothing else.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::server::Acceptor;
use rustls::sign::{Signer, SigningKey};
use rustls::{HandshakeKind, ServerConfig, SignatureAlgorithm, SignatureScheme};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::error::Result;
use crate::types::PublicKey;

/// How many signatures of handshakes are waited for at once.
const SIGNATURES: usize = 32;
/// How many handshakes there are at once whose client had to be asked twice. Each holds a thread while its client thinks.
const RETRIES: usize = 4;
/// How long a signature may take.
const SIGNATURE: Duration = Duration::from_secs(4);

thread_local! {
    /// Whether this thread may wait for a device.
    static MAY_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Signs what rustls asks for, in DER.
pub type Sign = Arc<dyn Fn(Vec<u8>) -> BoxFuture<'static, Result<Vec<u8>>> + Send + Sync>;

/// A P-256 key in a device, as rustls wants it.
#[derive(Clone)]
pub struct DeviceKey {
    public: PublicKey,
    sign: Sign,
    runtime: Handle,
}

impl DeviceKey {
    /// The key with that public half. Made on the runtime that will do its work.
    #[must_use]
    pub fn new(public: PublicKey, sign: Sign) -> Self {
        Self { public, sign, runtime: Handle::current() }
    }
}

impl std::fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DeviceKey({:?})", self.public)
    }
}

impl SigningKey for DeviceKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let own: Box<dyn Signer> = Box::new(self.clone());
        offered.contains(&own.scheme()).then_some(own)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.public.as_der().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for DeviceKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let failed = |what: &str| rustls::Error::General(format!("the key of the server's certificate: {what}"));
        if !MAY_WAIT.get() {
            return Err(failed("no signature on a thread of requests"));
        }
        let (answer, answered) = sync_channel(1);
        let signature = (self.sign)(message.to_vec());
        self.runtime.spawn(async move {
            // Nobody waits any more where the device was too slow.
            let _ = answer.send(signature.await);
        });
        let signed = answered.recv_timeout(SIGNATURE).map_err(|_| failed("the device does not answer"))?;
        signed.map_err(|error| {
            tracing::warn!(cause = error.chain(), "a handshake could not be signed");
            failed(error.public())
        })
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

/// The places for handshakes that wait for a device.
#[derive(Debug)]
pub(super) struct Places {
    signatures: Arc<Semaphore>,
    retries: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        Self { signatures: Arc::new(Semaphore::new(SIGNATURES)), retries: Arc::new(Semaphore::new(RETRIES)) }
    }
}

impl Places {
    /// A handshake with a certificate whose key is in a device. `limit` is how long all of it may take: whoever calls gives up
    /// then, and no thread is held for longer.
    pub(super) async fn accept(
        &self,
        config: Arc<ServerConfig>,
        stream: TcpStream,
        limit: Duration,
    ) -> io::Result<TlsStream<TcpStream>> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let place = self.signatures.clone().acquire_owned().await.map_err(io::Error::other)?;
        let answer = move || {
            let mut asks_again = false;
            let answered = start.into_stream_with(config, |connection| {
                asks_again = connection.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest);
            });
            // Held until here, also where nobody waits for it any more.
            drop(place);
            (answered, asks_again)
        };
        let (rest, asks_again) = spawn_blocking(|| waiting(answer)).await.map_err(io::Error::other)?;
        if !asks_again {
            return rest.await;
        }
        let place = self.retries.clone().acquire_owned().await.map_err(io::Error::other)?;
        let runtime = Handle::current();
        let rest = move || {
            let ended = runtime.block_on(timeout(limit, rest));
            drop(place);
            ended
        };
        spawn_blocking(|| waiting(rest)).await.map_err(io::Error::other)?.map_err(io::Error::other).flatten()
    }
}

/// Does `work` on a thread that may wait.
fn waiting<T>(work: impl FnOnce() -> T) -> T {
    MAY_WAIT.set(true);
    let done = work();
    MAY_WAIT.set(false);
    done
}
