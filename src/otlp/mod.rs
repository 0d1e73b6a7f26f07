//! Sends logs to the one collector that the configuration names: [OTLP over HTTP](https://opentelemetry.io/docs/specs/otlp/#otlphttp), in its
//! JSON encoding.
//!
//! ```text
//! POST /v1/logs HTTP/1.1
//! content-type: application/json
//! authorization: Bearer …                  and whatever else stands in the file of headers
//!
//! {"resourceLogs":[{"resource":{…},"scopeLogs":[{"scope":{…},"logRecords":[{…},…]}]}]}
//! ```
//!
//! One attempt has an end in time. TLS is 1.3, its anchors are those of a file. No redirect is followed and no proxy asked. The files of
//! headers and anchors are read for each connection, so that they can be exchanged while the service runs. Nothing is quoted of an answer.

mod headers;
mod logs;

pub use logs::{Attribute, Batch, LogRecord, Resource, Severity, Value};

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::outbound::{Address, Line, Place};

/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 * 1024;
/// The longest wait that a collector may ask for.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// What the operator says of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where logs go.
    pub place: Place,
    /// The file of further headers, such as one that authenticates.
    pub headers_file: Option<PathBuf>,
    /// How long an attempt may take.
    pub patience: Duration,
}

impl Settings {
    /// Whether its files hold.
    ///
    /// # Errors
    /// [`crate::error::Kind::Invalid`] with the one that does not.
    pub fn check(&self) -> Result<()> {
        self.headers()?;
        self.place.check()
    }

    fn headers(&self) -> Result<HeaderMap> {
        self.headers_file.as_deref().map_or_else(|| Ok(HeaderMap::new()), headers::read)
    }
}

/// A collector, with the connection to it.
#[derive(Debug)]
pub struct Collector {
    settings: Settings,
    line: Option<(Line, HeaderMap)>,
}

/// What a collector made of a batch that it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many of its records it did not accept. It does not say which, and they must not be sent again.
    pub rejected: u64,
}

/// Why nobody knows that a batch was taken.
#[derive(Debug)]
pub struct Refusal {
    /// As a sentence.
    pub error: Error,
    /// What helps.
    pub cure: Cure,
}

/// What helps against a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cure {
    /// To send it again, not before the time that the collector asked for.
    Again(Option<Duration>),
    /// To send less at once, or something else: it does not take this content.
    Other,
    /// That somebody mends it.
    Mend,
}

impl Collector {
    /// The collector of `settings`. It is not asked yet.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self { settings, line: None }
    }

    /// Where it is, without what may be secret of its address.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.settings.place.address
    }

    /// Sends a batch once, at `now`. It was taken where this answers well; where not, it may have been taken all the same.
    ///
    /// # Errors
    /// The refusal.
    pub async fn send(&mut self, batch: &Batch<'_>, now: Timestamp) -> Result<Taken, Refusal> {
        let mend = |error| Refusal { error, cure: Cure::Mend };
        let body = serde_json::to_vec(batch).map_err(|e| mend(Error::internal(format!("a batch of logs: {e}"))))?;
        let patience = self.settings.patience;
        let answer = timeout(patience, self.attempt(body.into())).await;
        let late = || self.failed(format!("gave no answer within {} s", patience.as_secs_f64()));
        let again = |error| Refusal { error, cure: Cure::Again(None) };
        let answer = match answer {
            Ok(answer) => answer.map_err(again)?,
            Err(_) => return Err(again(late())),
        };
        self.understand(&answer, now)
    }

    /// "The client MUST treat" what is not a success by its status: [failures](https://opentelemetry.io/docs/specs/otlp/#failures-1).
    fn understand(&self, answer: &Response<Bytes>, now: Timestamp) -> Result<Taken, Refusal> {
        let status = answer.status();
        if status.is_success() {
            return Ok(taken(answer.body()));
        }
        let why = if status.is_redirection() { ": redirects are not followed" } else { "" };
        let error = self.failed(format!("answers with status {}{why}", status.as_u16()));
        let cure = match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Cure::Again(retry_after(answer.headers(), now)),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => Cure::Other,
            _ => Cure::Mend,
        };
        let hint = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => "look at the headers_file: it says who we are",
            StatusCode::NOT_FOUND => "url is the whole address: it ends in /v1/logs as a rule",
            _ => "the log of the collector says why",
        };
        Err(Refusal { error: error.hint(hint), cure })
    }

    async fn attempt(&mut self, body: Bytes) -> Result<Response<Bytes>> {
        // Taken out while it is used, so that one that is given up half-way is not used again.
        if let Some((mut open, headers)) = self.line.take().filter(|(open, _)| !open.is_closed())
            && let Ok(answer) = open.ask(self.request(&headers, body.clone())?).await
        {
            return self.read(answer, (open, headers)).await;
        }
        let headers = self.settings.headers()?;
        let mut open = self.settings.place.connect().await?;
        let answer = open.ask(self.request(&headers, body)?).await?;
        self.read(answer, (open, headers)).await
    }

    /// Reads what a success says; of what is none, the status is enough. Then the next attempt begins anew: what its files hold may
    /// have been exchanged.
    async fn read<B>(&mut self, answer: Response<B>, line: (Line, HeaderMap)) -> Result<Response<Bytes>>
    where
        B: BodyExt,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (head, body) = answer.into_parts();
        if !head.status.is_success() {
            return Ok(Response::from_parts(head, Bytes::new()));
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await;
        let body = body.map_err(|_| self.failed(format!("gave no answer of at most {MAX_ANSWER} bytes")))?;
        self.line = Some(line);
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    fn request(&self, headers: &HeaderMap, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let address = &self.settings.place.address;
        let mut request = Request::post(address.path())
            .header(header::HOST, address.authority())
            .header(header::USER_AGENT, concat!("signet/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| Error::internal(format!("a request to a collector: {e}")))?;
        request.headers_mut().extend(headers.clone());
        Ok(request)
    }

    fn failed(&self, why: impl std::fmt::Display) -> Error {
        self.settings.place.failed(why)
    }
}

/// What an answer of success says. An answer that says nothing accepted all.
fn taken(body: &[u8]) -> Taken {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Answer {
        partial_success: Partial,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Partial {
        rejected_log_records: Count,
    }
    /// "64-bit integer numbers … are encoded as decimal strings, and either numbers or strings are accepted"
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Count {
        Number(u64),
        Text(String),
    }
    impl Default for Count {
        fn default() -> Self {
            Self::Number(0)
        }
    }
    let answer: Answer = serde_json::from_slice(body).unwrap_or_default();
    let rejected = match answer.partial_success.rejected_log_records {
        Count::Number(number) => number,
        Count::Text(text) => text.parse().unwrap_or_default(),
    };
    Taken { rejected }
}

/// How long a collector asks us to wait: [RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3), seconds or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let then = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
            Duration::try_from(then.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_and_has_an_end() {
        let wait = |text: &str| {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, "2026-01-02T03:04:05Z".parse().unwrap()).map(|wait| wait.as_secs())
        };
        assert_eq!((wait("7"), wait(" 7 "), wait("99999999")), (Some(7), Some(7), Some(3600)));
        assert_eq!(wait("Fri, 02 Jan 2026 03:05:05 GMT"), Some(60));
        assert_eq!(wait("Fri, 02 Jan 2026 03:03:05 GMT"), Some(0));
        assert_eq!((wait("-7"), wait("soon"), wait("")), (None, None, None));
    }

    #[test]
    fn what_was_rejected_is_read_from_any_answer() {
        let rejected = |text: &str| taken(text.as_bytes()).rejected;
        assert_eq!(rejected(r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"x"}}"#), 3);
        assert_eq!(rejected(r#"{"partialSuccess":{"rejectedLogRecords":3}}"#), 3);
        for text in ["", "{}", "null", "ok", r#"{"partialSuccess":{}}"#, r#"{"partialSuccess":{"errorMessage":"x"}}"#] {
            assert_eq!(rejected(text), 0, "{text}");
        }
    }
}
