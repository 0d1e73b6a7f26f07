//! Connections to the addresses that the configuration names: TLS 1.3 with the anchors of a file, in the clear only to this machine.
//!
//! No redirect is followed and no proxy asked. The file of the anchors is read for each connection, so that it can be exchanged
//! while the service runs. How long a request may take is for the caller to say.

mod address;

pub use address::Address;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::{Error, Kind, Result};

/// How long one connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How many addresses of the host are tried.
const ADDRESSES: usize = 4;
/// The most bytes of the head of an answer.
const MAX_HEAD: usize = 16 * 1024;

/// Somebody who is asked, and how he proves who he is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub address: Address,
    /// The anchors of its certificate in PEM; for https.
    pub anchors: Option<PathBuf>,
}

impl Place {
    /// Whether its file of anchors holds.
    ///
    /// # Errors
    /// [`Kind::Invalid`] where it does not.
    pub fn check(&self) -> Result<()> {
        self.tls().map(drop)
    }

    /// A connection.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where there is none to be had, [`Kind::Invalid`] for the file of anchors.
    pub async fn connect(&self) -> Result<Line> {
        let tls = self.tls()?;
        let stream = self.stream().await?;
        let Some(tls) = tls else { return self.speak(stream).await };
        let name = ServerName::try_from(self.address.host.clone()).map_err(|_| self.failed("has no name in TLS"))?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await;
        self.speak(stream.map_err(|e| self.failed("does not prove who it is, or speaks no TLS 1.3").because(e))?).await
    }

    /// What is said of it: no answer is quoted.
    pub fn failed(&self, why: impl std::fmt::Display) -> Error {
        Error::new(Kind::Unavailable, format!("{} {why}", self.address))
    }

    /// A connection to one of the first addresses of the host; in the clear only to this machine.
    async fn stream(&self) -> Result<TcpStream> {
        let Address { secure, host, port, .. } = &self.address;
        let mut last = self.failed("has no address that may be connected to");
        let addresses = look_up(host.clone(), *port).await.map_err(|e| self.failed("has no address").because(e))?;
        let allowed = |address: &SocketAddr| *secure || address.ip().to_canonical().is_loopback();
        for address in addresses.into_iter().filter(allowed).take(ADDRESSES) {
            last = match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // A small request that waits for more would wait for an acknowledgement.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => self.failed("takes no connection").because(error),
                Err(_) => self.failed(format!("takes no connection within {} s", CONNECT.as_secs())),
            };
        }
        Err(last)
    }

    async fn speak<S>(&self, stream: S) -> Result<Line>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let lost = |e| self.failed("gave no answer in HTTP").because(e);
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // What ends the connection is told to whoever asks.
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Line { sender, place: self.clone(), task })
    }

    /// How TLS is spoken, where it is.
    fn tls(&self) -> Result<Option<ClientConfig>> {
        let Some(path) = self.anchors.as_ref().filter(|_| self.address.secure) else { return Ok(None) };
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
}

/// An open connection. It ends when this is dropped.
#[derive(Debug)]
pub struct Line {
    sender: http1::SendRequest<Full<Bytes>>,
    place: Place,
    task: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Line {
    /// Whether the other side has ended it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request and reads the head of the answer.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where there is none.
    pub async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let place = &self.place;
        self.sender.send_request(request).await.map_err(|e| place.failed("gave no answer in HTTP").because(e))
    }

    /// As [`Self::ask`], with the body of the answer, of at most `most` bytes.
    ///
    /// # Errors
    /// As [`Self::ask`], and where it is longer.
    pub async fn ask_all(&mut self, request: Request<Full<Bytes>>, most: usize) -> Result<Response<Bytes>> {
        let (head, body) = self.ask(request).await?.into_parts();
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|e| self.place.failed(format!("gave no answer of at most {most} bytes")).because(e))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }
}

/// The addresses of a host as the system knows them. On a thread of its own: the system may take its time, and whoever ends the
/// service does not wait for that.
async fn look_up(host: String, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    let (found, answer) = oneshot::channel();
    std::thread::Builder::new().name("outbound-name".to_owned()).spawn(move || {
        // Who no longer waits gets no answer.
        drop(found.send((host.as_str(), port).to_socket_addrs().map(Iterator::collect)));
    })?;
    answer.await.unwrap_or_else(|_| Err(std::io::ErrorKind::Interrupted.into()))
}
