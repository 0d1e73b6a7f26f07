//! The HTTP client of the native API: one typed method per route.
//!
//! ```no_run
//! # async fn example() -> signet::error::Result<()> {
//! use signet::client::{Client, Options};
//! let client = Client::new(Options::new("https://kms.example:8443", std::fs::read("ca.pem").unwrap_or_default()))?;
//! println!("{}", client.whoami().await?.principal);
//! # Ok(()) }
//! ```
//!
//! It speaks TLS 1.3 only and trusts only the authorities it was given: neither those of the system, nor a proxy of the
//! environment, nor a redirect. A problem document comes back as the [`Error`](crate::error::Error) of the same kind,
//! with the id of the request in its sentence; that, and *unavailable*, are what every method can return. See [`Options::retry_for`] for what is tried again.

mod acme;
mod certificates;
mod crypto;
mod keys;
mod problem;
mod send;
mod system;
mod tls;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::error::{Error, Kind, Result};
use crate::types::SecretBytes;
use crate::wire::SecretText;

pub use certificates::CertificateQuery;
pub use keys::Transition;
pub use send::Download;

/// How to reach a server, and as whom.
#[derive(Debug)]
pub struct Options {
    /// `https://HOST[:PORT]`; the scheme may be left out.
    pub server: String,
    /// The authorities that may vouch for the server, in PEM. An empty list trusts nobody.
    pub authorities: Vec<u8>,
    /// The bearer token.
    pub token: Option<SecretText>,
    /// The client certificate.
    pub certificate: Option<Certificate>,
    /// How long a connection may take to open: 5 seconds.
    pub connect_timeout: Duration,
    /// How long one attempt may take from its first byte to its last: 30 seconds.
    pub timeout: Duration,
    /// How long after the first attempt another may begin: 10 seconds. What is tried again is a request that did not
    /// reach the server or whose answer was lost, and one answered by *busy* or *unavailable*; never one whose repetition
    /// could do something twice. A change carries an `Idempotency-Key`, the same in all its attempts.
    pub retry_for: Duration,
    /// The longest answer that is read: 32 MiB. A backup is not bound by it.
    pub max_answer: usize,
    /// A file that gets the receipt of each answer, a line each: `signet audit verify --receipts` holds them against the log.
    pub receipts: Option<PathBuf>,
}

/// A client certificate with its private key.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate and those between it and the authority, in PEM.
    pub chain: Vec<u8>,
    /// The private key, in PEM.
    pub key: SecretBytes,
}

impl Options {
    /// The defaults, with no credential.
    #[must_use]
    pub fn new(server: impl Into<String>, authorities: Vec<u8>) -> Self {
        Self {
            server: server.into(),
            authorities,
            token: None,
            certificate: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            retry_for: Duration::from_secs(10),
            max_answer: 32 << 20,
            receipts: None,
        }
    }
}

/// Which page of a list. The default is the first one, of the size the server chooses.
#[derive(Clone, Debug, Default)]
pub struct PageRequest {
    /// How many items at most.
    pub size: Option<u32>,
    /// [`Page::next_page_token`](crate::wire::Page::next_page_token) of the page before.
    pub token: Option<String>,
}

/// A client of one server. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<HeaderValue>,
    timeout: Duration,
    retry_for: Duration,
    max_answer: usize,
    receipts: Option<Arc<File>>,
}

impl Client {
    /// Checks the options; opens no connection yet.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for an address that is not `https`, authorities, a certificate or a token that are none, or a file for
    /// receipts that cannot be opened.
    pub fn new(options: Options) -> Result<Self> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(&options)?)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(options.connect_timeout)
            .user_agent(concat!("signet/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| Error::internal("building the HTTP client").because(e))?;
        Ok(Self {
            http,
            base: base(&options.server)?,
            token: options.token.as_ref().map(bearer).transpose()?,
            timeout: options.timeout,
            retry_for: options.retry_for,
            max_answer: options.max_answer,
            receipts: options.receipts.as_deref().map(receipts).transpose()?,
        })
    }
}

/// Opens the file that receipts are added to.
fn receipts(path: &Path) -> Result<Arc<File>> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened
        .map(Arc::new)
        .map_err(|e| Error::new(Kind::Invalid, format!("receipts cannot be kept in {}: {e}", path.display())))
}

/// The root of a server's address.
fn base(server: &str) -> Result<Url> {
    let refuse = || {
        Error::new(Kind::Invalid, "the address of the server is not of the form https://HOST[:PORT]")
            .hint("for example https://kms.example:8443")
    };
    let text = if server.contains("://") { server.to_owned() } else { format!("https://{server}") };
    let url = Url::parse(&text).map_err(|_| refuse())?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    if url.scheme() == "https" && url.has_host() && bare && anonymous { Ok(url) } else { Err(refuse()) }
}

fn bearer(token: &SecretText) -> Result<HeaderValue> {
    let text = zeroize::Zeroizing::new(format!("Bearer {}", token.0));
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        Error::new(Kind::Invalid, "the token holds characters that no token has")
            .hint("a token is one line that starts with sgt_")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_by_scheme_and_host_only() {
        for (text, shown) in [
            ("kms.example", "https://kms.example/"),
            ("https://kms.example:8443", "https://kms.example:8443/"),
            ("[::1]:8443", "https://[::1]:8443/"),
        ] {
            assert_eq!(base(text).unwrap().as_str(), shown);
        }
        for bad in
            ["http://kms.example", "https://u:p@kms.example", "https://kms.example/api", "https://k?x", "", "https://"]
        {
            assert_eq!(base(bad).unwrap_err().kind(), Kind::Invalid, "{bad}");
        }
    }

    #[test]
    fn a_token_with_a_line_break_is_refused_without_being_shown() {
        let error = bearer(&SecretText("sgt_se\ncret".into())).unwrap_err();
        assert!(!format!("{error:?}").contains("cret"), "{error:?}");
        assert!(!format!("{:?}", bearer(&SecretText("sgt_secret".into())).unwrap()).contains("secret"));
    }
}
