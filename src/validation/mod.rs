//! Asks the network whether somebody controls a name: the only place that connects to where a request says.
//!
//! ```text
//! name ─▶ resolver ─▶ addresses ─▶ rules of the network ─▶ connection to that address ─▶ what is found there
//! ```
//!
//! A name is resolved once per connection, and the connection goes to the address that was checked, so that no answer can be
//! exchanged in between. Everything has an end: 30 seconds for a challenge and its CAA records, 64 KiB for an answer, ten redirects, each of them
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

/// How long all of one challenge may take, with the look at CAA records.
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
    patience: Duration,
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
        Self { resolver, ports, patience: PATIENCE }
    }

    /// Looks for `proof` that somebody controls `host`, at public addresses and those of `networks`, and then for the CAA records
    /// that count for it, where somebody wants to know. An address has none.
    ///
    /// # Errors
    /// Why it was not found; why nobody knows whether issuing is forbidden.
    pub async fn check(&self, host: &Host, proof: &Proof, networks: &Networks, caa: bool) -> Outcome<Vec<CaaRecord>> {
        let look = async {
            match proof {
                Proof::Http { token, authorization } => http::check(self, host, token, authorization, networks).await?,
                Proof::Dns { digest } => self.check_dns(host, digest).await?,
                Proof::TlsAlpn { digest } => tls::check(self, host, digest, networks).await?,
            }
            match host {
                Host::Name(name) if caa => self.resolver.caa(name).await,
                Host::Name(_) | Host::Address(_) => Ok(Vec::new()),
            }
        };
        timeout(self.patience, look).await.unwrap_or_else(|_| {
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

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;

    /// A name server with a TXT record `x` for every name, and no answer to any other question.
    async fn text_alone() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                // Without OPT, which is the last eleven bytes of the query; the kind is the second but one number of what is left.
                let question = &buffer[..length - 11];
                if question[question.len() - 4..][..2] != [0, 16] {
                    continue;
                }
                let record = [0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, 2, 1, b'x'];
                let head = [buffer[0], buffer[1], 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
                socket.send_to(&[&head, &question[12..], &record].concat(), from).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn caa_records_are_part_of_the_look_and_of_its_time() {
        let validator = Validator::new(Resolver::new(vec![text_alone().await]), Ports::default());
        let host = Host::Name("a.test".to_owned());
        let (proof, networks) = (Proof::Dns { digest: "x".to_owned() }, Networks::default());
        assert_eq!(validator.check(&host, &proof, &networks, false).await, Ok(Vec::new()));
        // One question that has no answer is given up after six seconds, the whole look here after one.
        let hasty = Validator { patience: Duration::from_secs(1), ..validator };
        let failure = hasty.check(&host, &proof, &networks, true).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Connection, "{failure}");
    }
}
