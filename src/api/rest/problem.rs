//! From an [`Error`] to a problem document ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)): the only place that knows
//! which status a kind has. `docs/status-codes.md` tells for each what to do next.

use axum::body::Body;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};

use crate::error::{Error, Kind};
use crate::wire::Problem;

/// Where the pages of the kinds are.
pub const TYPES: &str = "https://signet.dev/problems/";
/// The longest title, in characters: a sentence may quote what a client sent.
const MAX_TITLE: usize = 1000;

/// Why a request is not answered as it wished, and by which status.
#[derive(Debug)]
pub(super) struct Failure {
    error: Error,
    status: StatusCode,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { status: status(error.kind()), error }
    }
}

impl Failure {
    /// What HTTP has a word of its own for: 405, 408 and 415.
    pub(super) const fn with_status(status: StatusCode, error: Error) -> Self {
        Self { error, status }
    }

    /// The document. The causes that nobody outside may read go to the log, under the id of the request.
    pub(super) fn respond(&self, request_id: &str) -> Response<Body> {
        let Self { error, status } = self;
        log(error, request_id);
        let problem = Problem {
            kind: format!("{TYPES}{}", error.kind().code()),
            status: status.as_u16(),
            code: error.kind().code().to_owned(),
            title: error.public().chars().take(MAX_TITLE).collect(),
            hint: error.mend().map(str::to_owned),
            request_id: request_id.to_owned(),
        };
        // A struct of strings and a number can always be written.
        let mut response = Response::new(Body::from(serde_json::to_vec(&problem).unwrap_or_default()));
        *response.status_mut() = *status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if *status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = error.wait() {
            // In whole seconds, and never zero: "at once" is what the client has just tried.
            headers
                .insert(RETRY_AFTER, HeaderValue::from((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)));
        }
        response
    }
}

/// The status of each kind.
#[must_use]
pub const fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict | Kind::State => StatusCode::CONFLICT,
        Kind::Stale => StatusCode::PRECONDITION_FAILED,
        Kind::Limit => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::DoesNotOpen | Kind::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::Busy | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Tampered | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Logs what an operator should look at; what a client did wrong is its own affair, and in the audit log.
pub(super) fn log(error: &Error, request_id: &str) {
    match error.kind() {
        Kind::Internal | Kind::Tampered => {
            tracing::error!(
                request = request_id,
                code = error.kind().code(),
                cause = error.chain(),
                "a request failed"
            );
        }
        Kind::Unavailable => {
            tracing::warn!(request = request_id, code = error.kind().code(), cause = error.chain(), "a request failed");
        }
        Kind::Invalid
        | Kind::Unauthenticated
        | Kind::Forbidden
        | Kind::NotFound
        | Kind::Conflict
        | Kind::Stale
        | Kind::State
        | Kind::Limit
        | Kind::DoesNotOpen
        | Kind::Unsupported
        | Kind::Busy => {}
    }
}
