//! Asks the network whether somebody controls a name: the only place that connects to where a request says.
//!
//! ```text
//! name ─▶ resolver ─▶ addresses ─▶ rules of the network ─▶ connection to that address ─▶ what is found there
//! ```
//!
//! A name is resolved once per connection, and the connection goes to the address that was checked, so that no answer can be
//! exchanged in between. Everything has an end: 30 seconds for a challenge, 64 KiB for an answer, ten redirects, each of them
//! checked like the first address. What is learned is whether the proof was there; nothing that was read is shown.

mod dns;
mod http;
mod network;
mod tls;

pub use dns::{CaaRecord, Message, Resolver};
pub use network::{Network, Networks};

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long all of one challenge may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How many addresses of one name are tried.
const ADDRESSES: usize = 4;

/// Whom a proof is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A host name in lower case, without wildcard.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Why a proof was not found. The sentence may be shown to whoever asked: it quotes nothing that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// The sentence.
    pub text: String,
}

/// The kinds of failure, as ACME tells them apart ([RFC 8555, 6.7](https://www.rfc-editor.org/rfc/rfc8555#section-6.7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The name does not resolve.
    Dns,
    /// No connection, or it may not be made.
    Connection,
    /// The TLS handshake failed.
    Tls,
    /// What was found is not what should be there.
    Incorrect,
    /// A CAA record forbids it.
    Caa,
}

/// The result of a look at the network.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What must be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// `authorization` as a file under `token` ([RFC 8555, 8.3](https://www.rfc-editor.org/rfc/rfc8555#section-8.3)).
    Http {
        /// The name of the file.
        token: String,
        /// Its content.
        authorization: String,
    },
    /// `digest` in a TXT record ([RFC 8555, 8.4](https://www.rfc-editor.org/rfc/rfc8555#section-8.4)).
    Dns {
        /// SHA-256 of the key authorization, in base64url.
        digest: String,
    },
    /// `digest` in a certificate ([RFC 8737](https://www.rfc-editor.org/rfc/rfc8737)).
    TlsAlpn {
        /// SHA-256 of the key authorization.
        digest: [u8; 32],
    },
}

/// Who looks: from which resolver, and at which ports.
#[derive(Clone, Debug)]
pub struct Validator {
    resolver: Resolver,
    ports: Ports,
}

/// Where the proofs are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// http-01, and `http` in redirects.
    pub http: u16,
    /// tls-alpn-01, and `https` in redirects.
    pub https: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self { http: 80, https: 443 }
    }
}

impl Validator {
    /// One that asks `resolver`.
    #[must_use]
    pub const fn new(resolver: Resolver, ports: Ports) -> Self {
        Self { resolver, ports }
    }

    /// The resolver.
    #[must_use]
    pub const fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Looks for `proof` that somebody controls `host`, at public addresses and those of `networks`.
    ///
    /// # Errors
    /// Why it was not found.
    pub async fn check(&self, host: &Host, proof: &Proof, networks: &Networks) -> Outcome<()> {
        let look = async {
            match proof {
                Proof::Http { token, authorization } => http::check(self, host, token, authorization, networks).await,
                Proof::Dns { digest } => self.check_dns(host, digest).await,
                Proof::TlsAlpn { digest } => tls::check(self, host, digest, networks).await,
            }
        };
        timeout(PATIENCE, look).await.unwrap_or_else(|_| {
            Err(Failure::new(FailureKind::Connection, format!("{host} was not looked at within 30 seconds")))
        })
    }

    /// "the client provisions a TXT record containing the digest … under the validation domain name", `_acme-challenge.`
    async fn check_dns(&self, host: &Host, digest: &str) -> Outcome<()> {
        let Host::Name(name) = host else {
            return Err(Failure::new(FailureKind::Dns, "an address has no TXT records"));
        };
        let name = format!("_acme-challenge.{name}");
        let texts = self.resolver.texts(&name).await?;
        if texts.iter().any(|text| text == digest.as_bytes()) {
            return Ok(());
        }
        let found = match texts.len() {
            0 => "no TXT record".to_owned(),
            count => format!("{count} TXT records, none of them the right one"),
        };
        Err(Failure::new(FailureKind::Incorrect, format!("{name} has {found}")))
    }

    /// A connection to `host`, at an address that may be connected to.
    async fn connect(&self, host: &Host, port: u16, networks: &Networks) -> Outcome<TcpStream> {
        let addresses = match host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self.resolver.addresses(name).await?,
        };
        if addresses.is_empty() {
            return Err(Failure::new(FailureKind::Dns, format!("{host} has no address")));
        }
        let mut allowed = addresses.into_iter().filter(|address| networks.allow(*address)).take(ADDRESSES).peekable();
        if allowed.peek().is_none() {
            return Err(Failure::new(
                FailureKind::Connection,
                format!(
                    "{host} has no address that this service connects to: private networks must be allowed by name"
                ),
            ));
        }
        for address in allowed {
            if let Ok(Ok(stream)) = timeout(CONNECT, TcpStream::connect(SocketAddr::new(address, port))).await {
                return Ok(stream);
            }
        }
        Err(Failure::new(FailureKind::Connection, format!("{host} takes no connection on port {port}")))
    }
}
