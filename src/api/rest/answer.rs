//! What a handler answers, and how it becomes a response.
//!
//! A handler of a closed route returns `Released<Reply<A>>`: only what the service has recorded can be sent.

use std::fs::File;
use std::io::Read;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LOCATION};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::row::Content;
use crate::error::{Error, Kind, Result};
use crate::service::Released;

/// How much of an archive is read at a time.
const PIECE: usize = 64 * 1024;

/// An answer and the headers that are its own.
#[derive(Debug)]
pub(super) struct Reply<A> {
    answer: A,
    etag: Option<String>,
    location: Option<String>,
}

impl<A> From<A> for Reply<A> {
    fn from(answer: A) -> Self {
        Self { answer, etag: None, location: None }
    }
}

impl<A: Answer> Reply<A> {
    /// Adds the ETag, which is written in quotes.
    pub(super) fn etag(mut self, etag: &str) -> Self {
        self.etag = Some(format!("\"{etag}\""));
        self
    }

    /// Says where what was made can be read. Names and ids have no character that an address would have to escape.
    pub(super) fn location(mut self, path: String) -> Self {
        self.location = Some(path);
        self
    }

    pub(super) fn respond(self, status: StatusCode) -> Result<Response<Body>> {
        let Self { answer, etag, location } = self;
        let mut response = answer.respond()?;
        *response.status_mut() = status;
        for (name, value) in [(ETAG, etag), (LOCATION, location)] {
            if let Some(value) = value {
                let value = HeaderValue::try_from(value).map_err(|e| Error::internal(format!("{name}: {e}")))?;
                response.headers_mut().insert(name, value);
            }
        }
        Ok(response)
    }
}

/// The header that says where the record of an answer stands.
const SIGNET_LOG: HeaderName = HeaderName::from_static("signet-log");

/// The response to a caller who is known, with the receipt of its record.
pub(super) fn respond<A: Answer>(released: Released<Reply<A>>, status: StatusCode) -> Result<Response<Body>> {
    let (reply, receipt) = released.with_receipt();
    let mut response = reply.respond(status)?;
    let receipt = HeaderValue::try_from(receipt.to_string()).map_err(|e| Error::internal(format!("a receipt: {e}")))?;
    response.headers_mut().insert(SIGNET_LOG, receipt);
    Ok(response)
}

/// What can be sent.
pub(super) trait Answer: Send + 'static {
    /// As a response, whose status is not decided yet.
    fn respond(self) -> Result<Response<Body>>;

    /// What the OpenAPI document says of it.
    fn content() -> Content;
}

impl<A: Serialize + ToSchema + Send + 'static> Answer for A {
    /// The bytes may hold a plaintext, so they are zeroed once they are sent.
    fn respond(self) -> Result<Response<Body>> {
        let bytes = serde_json::to_vec(&self).map_err(|e| Error::internal(format!("writing an answer: {e}")))?;
        Ok(typed(Body::from(Bytes::from_owner(Zeroizing::new(bytes))), "application/json"))
    }

    fn content() -> Content {
        Content::json::<A>()
    }
}

/// A text that is ready.
#[derive(Debug)]
pub(super) struct Text<const OPEN_METRICS: bool>(pub(super) String);

/// The metrics.
pub(super) type OpenMetrics = Text<true>;
/// JSON that was written elsewhere.
pub(super) type JsonText = Text<false>;

impl<const OPEN_METRICS: bool> Text<OPEN_METRICS> {
    const TYPE: &str =
        if OPEN_METRICS { "application/openmetrics-text; version=1.0.0; charset=utf-8" } else { "application/json" };
}

impl<const OPEN_METRICS: bool> Answer for Text<OPEN_METRICS> {
    fn respond(self) -> Result<Response<Body>> {
        Ok(typed(Body::from(self.0), Self::TYPE))
    }

    fn content() -> Content {
        Content::Other(Self::TYPE)
    }
}

/// A signed note.
#[derive(Debug)]
pub(super) struct Note(pub(super) String);

impl Note {
    const TYPE: &str = "text/plain; charset=utf-8";
}

impl Answer for Note {
    fn respond(self) -> Result<Response<Body>> {
        Ok(typed(Body::from(self.0), Self::TYPE))
    }

    fn content() -> Content {
        Content::Other(Self::TYPE)
    }
}

/// Bytes that are ready.
#[derive(Debug)]
pub(super) struct Octets(pub(super) Vec<u8>);

impl Octets {
    const TYPE: &str = "application/octet-stream";
}

impl Answer for Octets {
    fn respond(self) -> Result<Response<Body>> {
        Ok(typed(Body::from(self.0), Self::TYPE))
    }

    fn content() -> Content {
        Content::Other(Self::TYPE)
    }
}

/// Nothing to say.
#[derive(Debug)]
pub(super) struct Nothing;

impl Answer for Nothing {
    fn respond(self) -> Result<Response<Body>> {
        Ok(Response::new(Body::empty()))
    }

    fn content() -> Content {
        Content::Nothing
    }
}

/// A tar archive, sent piece by piece and removed once it is sent, or once the client is gone.
#[derive(Debug)]
pub(super) struct Archive(pub(super) tempfile::NamedTempFile);

impl Archive {
    const TYPE: &str = "application/x-tar";
}

impl Answer for Archive {
    fn respond(self) -> Result<Response<Body>> {
        let unreadable = |e| Error::new(Kind::Unavailable, "the backup cannot be read").because(e);
        let length = self.0.as_file().metadata().map_err(unreadable)?.len();
        let pieces = futures_util::stream::try_unfold(self.0, |archive| async move {
            tokio::task::spawn_blocking(move || {
                let piece = read_piece(archive.as_file())?;
                Ok::<_, std::io::Error>((!piece.is_empty()).then_some((piece, archive)))
            })
            .await
            .map_err(std::io::Error::other)?
        });
        let mut response = typed(Body::from_stream(pieces), Self::TYPE);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        Ok(response)
    }

    fn content() -> Content {
        Content::Other(Self::TYPE)
    }
}

fn read_piece(mut file: &File) -> std::io::Result<Bytes> {
    let mut piece = vec![0; PIECE];
    let length = file.read(&mut piece)?;
    piece.truncate(length);
    Ok(piece.into())
}

/// A response of one media type.
pub(super) fn typed(body: Body, media_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
