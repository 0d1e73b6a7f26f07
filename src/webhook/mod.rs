//! Sends signed messages to the one address that the configuration names, in the manner of
//! [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
//!
//! ```text
//! POST /path HTTP/1.1
//! webhook-id: msg_…                        the same whenever a message is sent again
//! webhook-timestamp: 1767225600            when it is sent, in seconds since 1970
//! webhook-signature: v1,BASE64 v1,BASE64   one for each secret
//!
//! signature = HMAC-SHA-256(secret, id "." timestamp "." body)
//! ```
//!
//! One attempt is one connection, and has an end in time. TLS is 1.3, its anchors are those of a file. No redirect is followed
//! and no proxy asked; of the answer nothing but its status counts, and its body is not read. The files of secrets and
//! anchors are read for each attempt, so that they can be exchanged while the service runs.

mod address;
mod secrets;

pub use address::Address;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderName, Request, StatusCode, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::{Error, Kind, Result};
use secrets::Secrets;

/// How long one connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How many addresses of the host are tried.
const ADDRESSES: usize = 4;
/// The most bytes of the head of an answer.
const MAX_HEAD: usize = 16 * 1024;

/// What the operator says of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where messages go.
    pub address: Address,
    /// The file of the secrets that they are signed with.
    pub secret_file: PathBuf,
    /// The anchors of the receiver's certificate in PEM; for https.
    pub anchors: Option<PathBuf>,
    /// How long an attempt may take.
    pub patience: Duration,
}

/// A receiver.
#[derive(Clone, Debug)]
pub struct Webhook(Settings);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// What a receiver knows it by when it comes again: graphic ASCII without a dot.
    pub id: &'a str,
    /// When it is sent.
    pub at: Timestamp,
    /// JSON.
    pub body: &'a str,
}

impl Webhook {
    /// The receiver of `settings`, whose files hold.
    ///
    /// # Errors
    /// [`Kind::Invalid`] with the file that does not.
    pub fn new(settings: Settings) -> Result<Self> {
        let it = Self(settings);
        Secrets::read(&it.0.secret_file)?;
        it.tls()?;
        Ok(it)
    }

    /// The receiver, without what may be secret of its address.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.0.address
    }

    /// Sends a message once. It was taken where this answers well; where not, it may have been taken all the same.
    ///
    /// # Errors
    /// Why nobody knows that it was taken: a sentence that quotes nothing of the answer.
    pub async fn send(&self, message: Message<'_>) -> Result<()> {
        let patience = self.0.patience;
        let late = || self.failed(format!("gave no answer within {} s", patience.as_secs_f64()));
        let status = timeout(patience, self.attempt(message)).await.map_err(|_| late())??;
        if status.is_success() {
            return Ok(());
        }
        let why = if status.is_redirection() { ": redirects are not followed" } else { "" };
        Err(self.failed(format!("answers with status {}{why}", status.as_u16())))
    }

    async fn attempt(&self, message: Message<'_>) -> Result<StatusCode> {
        let Settings { address, secret_file, .. } = &self.0;
        let secrets = Secrets::read(secret_file)?;
        let tls = self.tls()?;
        let stream = self.connect().await?;
        let request = self.request(message, &secrets)?;
        let Some(tls) = tls else { return self.ask(stream, request).await };
        let name = ServerName::try_from(address.host.clone()).map_err(|_| self.failed("has no name in TLS"))?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
        self.ask(stream.map_err(|e| self.failed("does not prove who it is, or speaks no TLS 1.3").because(e))?, request)
            .await
    }

    /// A connection to one of the first addresses of the host; in the clear only to this machine.
    async fn connect(&self) -> Result<TcpStream> {
        let Address { secure, host, port, .. } = &self.0.address;
        let mut last = self.failed("has no address that may be connected to");
        let addresses = look_up(host.clone(), *port).await.map_err(|e| self.failed("has no address").because(e))?;
        let allowed = |address: &SocketAddr| *secure || address.ip().to_canonical().is_loopback();
        for address in addresses.into_iter().filter(allowed).take(ADDRESSES) {
            last = match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => self.failed("takes no connection").because(error),
                Err(_) => self.failed(format!("takes no connection within {} s", CONNECT.as_secs())),
            };
        }
        Err(last)
    }

    fn request(&self, message: Message<'_>, secrets: &Secrets) -> Result<Request<Full<Bytes>>> {
        let Message { id, at, body } = message;
        let seconds = at.as_second();
        Request::post(self.0.address.path.as_str())
            .header(header::HOST, self.0.address.authority())
            .header(header::USER_AGENT, concat!("signet/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .header(HeaderName::from_static("webhook-id"), id)
            .header(HeaderName::from_static("webhook-timestamp"), seconds)
            .header(HeaderName::from_static("webhook-signature"), secrets.sign(id, seconds, body.as_bytes()))
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|e| Error::internal(format!("a message: {e}")))
    }

    /// Sends a request and reads the head of the answer. The connection ends with this call, however that ends.
    async fn ask<S>(&self, stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let lost = |e| self.failed("gave no answer in HTTP").because(e);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let answer = std::pin::pin!(sender.send_request(request));
        let answer = match select(answer, std::pin::pin!(connection)).await {
            Either::Left((answer, _)) => answer,
            // The end of a connection may be the end of an answer.
            Either::Right((_, answer)) => answer.await,
        };
        answer.map(|answer| answer.status()).map_err(lost)
    }

    /// How TLS is spoken, where it is.
    fn tls(&self) -> Result<Option<ClientConfig>> {
        let Some(path) = self.0.anchors.as_ref().filter(|_| self.0.address.secure) else { return Ok(None) };
        let shown = path.display();
        let pem = std::fs::read(path).map_err(|e| Error::new(Kind::Invalid, format!("{shown} cannot be read: {e}")))?;
        let unfit = || Error::new(Kind::Invalid, format!("{shown} holds no certificates in PEM"));
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            // A bundle of a system may hold some that are not for TLS.
            let (_added, _ignored) = roots.add_parsable_certificates([certificate.map_err(|_| unfit())?]);
        }
        if roots.is_empty() {
            return Err(unfit());
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| Error::internal("TLS 1.3").because(e))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Some(config))
    }

    fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::new(Kind::Unavailable, format!("{} {why}", self.0.address))
    }
}

/// The addresses of a host as the system knows them. On a thread of its own: the system may take its time, and whoever ends the
/// service does not wait for that.
async fn look_up(host: String, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    let (found, answer) = oneshot::channel();
    std::thread::Builder::new().name("webhook-name".to_owned()).spawn(move || {
        // Who no longer waits gets no answer.
        drop(found.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect)));
    })?;
    answer.await.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()))
}
