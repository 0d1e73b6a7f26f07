//! Bodies: how much, how fast, and what they must be.
//!
//! A body is read only after its sender is known, into memory that is zeroed afterwards. It must arrive within ten seconds,
//! or at a kibibyte per second where it is long. All bodies that are being worked on share a budget, so that many large ones
//! cost their senders an answer of *busy*, not the service its memory.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::problem::Failure;
use super::row::RouteRow;
use crate::error::{Error, Kind, Result};

/// What bodies may cost.
#[derive(Clone, Debug)]
pub struct BodyLimits {
    /// How long a short body may take.
    pub patience: Duration,
    /// How many bytes must arrive in each further second.
    pub bytes_per_second: u32,
    /// How many bytes of bodies may be in work at once.
    pub in_work: usize,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self { patience: Duration::from_secs(10), bytes_per_second: 1024, in_work: 256 << 20 }
    }
}

/// The unit of the budget: a semaphore counts no further than 2^61, and no finer is needed.
const UNIT: usize = 1024;

/// The bodies in work.
#[derive(Debug)]
pub(super) struct Budget {
    limits: BodyLimits,
    units: Semaphore,
}

/// A body, and its share of the budget.
#[derive(Debug)]
pub(super) struct Read<'b> {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) share: SemaphorePermit<'b>,
}

impl Budget {
    pub(super) fn new(limits: BodyLimits) -> Self {
        let units = Semaphore::new((limits.in_work / UNIT).min(Semaphore::MAX_PERMITS));
        Self { limits, units }
    }

    /// Reads the body of a request to `row`.
    pub(super) async fn read(&self, row: &RouteRow, headers: &HeaderMap, body: Body) -> Result<Read<'_>, Failure> {
        let empty = HttpBody::is_end_stream(&body);
        if !empty && row.body_limit > 0 {
            check_type(headers)?;
        }
        let announced = announced(headers, row.body_limit)?;
        let length = if empty { 0 } else { announced.unwrap_or(row.body_limit) };
        let share = self.share(length)?;
        // Reserved as a whole: a vector that grows leaves copies behind that nobody zeroes.
        let mut bytes = Zeroizing::new(Vec::with_capacity(length));
        if !empty {
            self.collect(&mut bytes, body, row.body_limit).await?;
        }
        Ok(Read { bytes, share })
    }

    async fn collect(&self, bytes: &mut Vec<u8>, mut body: Body, limit: usize) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            let seconds = bytes.len() as u64 / u64::from(self.limits.bytes_per_second.max(1));
            let deadline = start + self.limits.patience + Duration::from_secs(seconds);
            let Some(frame) = timeout_at(deadline, body.frame()).await.map_err(|_| slow())? else { return Ok(()) };
            let frame = frame.map_err(|e| Error::new(Kind::Invalid, "the body was cut off").because(e.to_string()))?;
            if let Ok(piece) = frame.into_data() {
                append(bytes, &piece, limit)?;
            }
        }
    }

    fn share(&self, length: usize) -> Result<SemaphorePermit<'_>> {
        let units = u32::try_from(length.div_ceil(UNIT)).unwrap_or(u32::MAX);
        self.units.try_acquire_many(units).map_err(|_| {
            Error::new(Kind::Busy, "too many large requests are being worked on").hint("try again in a moment")
        })
    }
}

fn append(bytes: &mut Vec<u8>, piece: &Bytes, limit: usize) -> Result<()> {
    if bytes.len() + piece.len() > limit {
        return Err(too_long(limit));
    }
    bytes.extend_from_slice(piece);
    Ok(())
}

/// The length that the client says, where it says one: refused before a byte of it is read.
fn announced(headers: &HeaderMap, limit: usize) -> Result<Option<usize>> {
    let Some(value) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
    match length.map(usize::try_from) {
        Some(Ok(length)) if length <= limit => Ok(Some(length)),
        Some(_) => Err(too_long(limit)),
        None => Err(Error::new(Kind::Invalid, "the Content-Length is not a number")),
    }
}

fn too_long(limit: usize) -> Error {
    if limit == 0 {
        return Error::new(Kind::Invalid, "this route takes no body");
    }
    Error::new(Kind::Limit, format!("the body of this route has at most {limit} bytes"))
}

fn slow() -> Failure {
    let error = Error::new(Kind::Limit, "the body did not arrive in time");
    Failure::with_status(StatusCode::REQUEST_TIMEOUT, error)
}

/// JSON in UTF-8, and not compressed: nothing is unpacked here.
fn check_type(headers: &HeaderMap) -> Result<(), Failure> {
    let wrong = |text: &'static str| {
        let error = Error::new(Kind::Invalid, text).hint("send `Content-Type: application/json`");
        Err(Failure::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, error))
    };
    if headers.contains_key(CONTENT_ENCODING) {
        return wrong("bodies are not taken compressed");
    }
    let Some(media_type) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return wrong("the body has no media type");
    };
    let (essence, rest) = media_type.split_once(';').unwrap_or((media_type, ""));
    let charset = rest.trim().to_ascii_lowercase();
    if !essence.trim().eq_ignore_ascii_case("application/json") || !matches!(&*charset, "" | "charset=utf-8") {
        return wrong("the body is not JSON by its media type");
    }
    Ok(())
}

/// Reads a body. The parser's sentences quote values, and a value may be a secret: only what is wrong and where is told.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|e| {
        let (line, column) = (e.line(), e.column());
        let error = match e.classify() {
            serde_json::error::Category::Eof => format!("the body ends too early, at line {line} column {column}"),
            serde_json::error::Category::Syntax | serde_json::error::Category::Io => {
                format!("the body is not JSON, at line {line} column {column}")
            }
            serde_json::error::Category::Data => format!("the body, line {line} column {column}: {}", told(&e)),
        };
        Error::new(Kind::Invalid, error)
    })
}

/// What may be told of a value that does not fit: names of fields and what was expected, never the value.
fn told(error: &serde_json::Error) -> String {
    /// The longest sentence, in characters: it may hold the name of a field that the client made up.
    const MOST: usize = 300;
    let text = error.to_string();
    // The parser puts the place behind the sentence; ours stands before it.
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(sentence, _)| sentence);
    let quotes = ["invalid type: ", "invalid value: ", "invalid length: "];
    if quotes.iter().any(|start| text.starts_with(start)) {
        let expected = text.rsplit_once(", expected ").map_or("another value", |(_, expected)| expected);
        return format!("expected {expected}").chars().take(MOST).collect();
    }
    text.chars().take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::rest::routes;
    use crate::wire;

    fn row(path: &str) -> &'static RouteRow {
        routes::table().iter().find(|row| row.path == path && row.body_limit > 0).unwrap()
    }

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn status(failure: &Failure) -> u16 {
        failure.respond("r").status().as_u16()
    }

    #[tokio::test]
    async fn bodies_are_bounded_typed_and_whole() {
        let budget = Budget::new(BodyLimits::default());
        let wrap = row("/api/v1/keys/{key}/wrap");
        let json = || headers(&[(CONTENT_TYPE, "application/json")]);
        let read = budget.read(wrap, &json(), Body::from("{}")).await.unwrap();
        assert_eq!(&**read.bytes, b"{}");
        let cases = [
            (json(), Body::from(vec![b' '; wrap.body_limit + 1]), 413),
            (headers(&[(CONTENT_TYPE, "application/json"), (CONTENT_LENGTH, "99999999")]), Body::from("{}"), 413),
            (headers(&[]), Body::from("{}"), 415),
            (headers(&[(CONTENT_TYPE, "text/plain")]), Body::from("{}"), 415),
            (headers(&[(CONTENT_TYPE, "application/json; charset=latin1")]), Body::from("{}"), 415),
            (headers(&[(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, "gzip")]), Body::from("{}"), 415),
        ];
        for (headers, body, expected) in cases {
            let failure = budget.read(wrap, &headers, body).await.unwrap_err();
            assert_eq!(status(&failure), expected, "{headers:?}");
        }
        let bare = routes::table().iter().find(|row| row.path == "/api/v1/whoami").unwrap();
        assert_eq!(status(&budget.read(bare, &json(), Body::from("{}")).await.unwrap_err()), 400);
        assert!(budget.read(bare, &headers(&[]), Body::empty()).await.unwrap().bytes.is_empty());
    }

    #[tokio::test]
    async fn a_body_that_dribbles_is_given_up() {
        let pieces = futures_util::stream::unfold(0, |sent| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b" ")), sent + 1))
        });
        let budget = Budget::new(BodyLimits { patience: Duration::from_millis(50), ..BodyLimits::default() });
        let json = headers(&[(CONTENT_TYPE, "application/json")]);
        let body = Body::from_stream(pieces);
        let failure = budget.read(row("/api/v1/keys/{key}/wrap"), &json, body).await.unwrap_err();
        assert_eq!(status(&failure), 408);
    }

    #[tokio::test]
    async fn large_bodies_share_a_budget() {
        let budget = Budget::new(BodyLimits { in_work: 8 << 20, ..BodyLimits::default() });
        let batch = row("/api/v1/keys/{key}/wrap-batch");
        let large = headers(&[(CONTENT_TYPE, "application/json"), (CONTENT_LENGTH, &batch.body_limit.to_string())]);
        let first = budget.read(batch, &large, Body::from("{}")).await.unwrap();
        let refused = budget.read(batch, &large, Body::from("{}")).await.unwrap_err();
        assert_eq!(status(&refused), 503);
        drop(first);
        assert!(budget.read(batch, &large, Body::from("{}")).await.is_ok());
    }

    #[test]
    fn what_is_wrong_with_json_is_told_without_its_values() {
        let cases = [
            (r#"{"name":"a","algorithm":"ed25519","colour":1}"#, "unknown field `colour`"),
            (r#"{"name":"a"}"#, "missing field `algorithm`"),
            (r#"{"name":"a","name":"b"}"#, "duplicate field `name`"),
            (r#"{"name":"a","labels":{"x":"1","x":"1"}}"#, "column 33: the name \"x\" is there twice"),
            (r#"{"name":"a","algorithm":"sgt_secret"}"#, "unknown algorithm"),
            (r#"{"name":"a","algorithm":"ed25519","labels":"sgt_secret, expected nothing"}"#, "expected a map"),
            (r#"{"name":"a","algorithm":"ed25519"} x"#, "not JSON"),
            (r#"{"name":"a""#, "ends too early"),
            ("\"\u{1}\"", "not JSON"),
        ];
        for (body, part) in cases {
            let error = json::<wire::CreateKey>(body.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(error.public().contains(part), "{body}: {error}");
            assert!(!error.chain().contains("secret"), "{body}: {}", error.chain());
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(json::<serde_json::Value>(deep.as_bytes()).is_err());
        assert!(json::<wire::Wrap>(b"{\"plaintext\":\"c2VjcmV0\xff\"}").is_err());
    }
}
