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

mod secrets;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request, StatusCode, header};
use http_body_util::Full;
use jiff::Timestamp;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::outbound::{Address, Place};
use secrets::Secrets;

/// What the operator says of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where messages go.
    pub place: Place,
    /// The file of the secrets that they are signed with.
    pub secret_file: PathBuf,
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
        it.0.place.check()?;
        Ok(it)
    }

    /// The receiver, without what may be secret of its address.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.0.place.address
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
        let secrets = Secrets::read(&self.0.secret_file)?;
        let mut line = self.0.place.connect().await?;
        line.ask(self.request(message, &secrets)?).await.map(|answer| answer.status())
    }

    fn request(&self, message: Message<'_>, secrets: &Secrets) -> Result<Request<Full<Bytes>>> {
        let Message { id, at, body } = message;
        let seconds = at.as_second();
        Request::post(self.0.place.address.path())
            .header(header::HOST, self.0.place.address.authority())
            .header(header::USER_AGENT, concat!("signet/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .header(HeaderName::from_static("webhook-id"), id)
            .header(HeaderName::from_static("webhook-timestamp"), seconds)
            .header(HeaderName::from_static("webhook-signature"), secrets.sign(id, seconds, body.as_bytes()))
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|e| Error::internal(format!("a message: {e}")))
    }

    fn failed(&self, why: impl std::fmt::Display) -> Error {
        self.0.place.failed(why)
    }
}
