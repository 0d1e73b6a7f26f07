//! From an answer that is not a success to an [`Error`].

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use crate::error::{Error, Kind};
use crate::wire::Problem;

const KINDS: [Kind; 14] = [
    Kind::Invalid,
    Kind::Unauthenticated,
    Kind::Forbidden,
    Kind::NotFound,
    Kind::Conflict,
    Kind::Stale,
    Kind::State,
    Kind::Limit,
    Kind::DoesNotOpen,
    Kind::Unsupported,
    Kind::Busy,
    Kind::Unavailable,
    Kind::Tampered,
    Kind::Internal,
];

/// The error that a server told: its kind, sentence and hint, with the request's id in the sentence.
pub(super) fn error(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let mut error = match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => told(status, headers, problem),
        Err(_) => Error::new(by_status(status), named(format!("the server answered {status}"), &request_id(headers)))
            .hint("what answered may not be Signet: check --server and what stands in between"),
    };
    if let Some(after) = retry_after(headers) {
        error = error.retry_after(after);
    }
    error
}

fn told(status: StatusCode, headers: &HeaderMap, problem: Problem) -> Error {
    let kind = KINDS.into_iter().find(|kind| kind.code() == problem.code).unwrap_or_else(|| by_status(status));
    let id = if problem.request_id.is_empty() { request_id(headers) } else { problem.request_id };
    let error = Error::new(kind, named(problem.title, &id));
    match problem.hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn named(sentence: String, request_id: &str) -> String {
    if request_id.is_empty() { sentence } else { format!("{sentence} (request {request_id})") }
}

fn request_id(headers: &HeaderMap) -> String {
    headers.get("request-id").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// How long to wait, [in seconds](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3); the date form is not written by Signet.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// For answers of something in between, and for codes newer than this program.
fn by_status(status: StatusCode) -> Kind {
    match status.as_u16() {
        401 => Kind::Unauthenticated,
        403 => Kind::Forbidden,
        404 => Kind::NotFound,
        409 => Kind::Conflict,
        412 | 428 => Kind::Stale,
        413 => Kind::Limit,
        429 => Kind::Busy,
        501 => Kind::Unsupported,
        502..=504 => Kind::Unavailable,
        400..=499 => Kind::Invalid,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_becomes_the_same_error_with_the_request_in_it() {
        let body =
            br#"{"type":"https://signet.dev/problems/stale","status":412,"code":"stale","title":"the key has changed",
            "hint":"read it again","request_id":"r1"}"#;
        let error = error(StatusCode::PRECONDITION_FAILED, &HeaderMap::new(), body);
        assert_eq!((error.kind(), error.public()), (Kind::Stale, "the key has changed (request r1)"));
        assert_eq!(error.mend(), Some("read it again"));
    }

    #[test]
    fn a_busy_server_says_when() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, "7".parse().unwrap());
        headers.insert("request-id", "r2".parse().unwrap());
        let body = br#"{"type":"x","status":429,"code":"busy","title":"the queue is full"}"#;
        let error = error(StatusCode::TOO_MANY_REQUESTS, &headers, body);
        assert_eq!((error.kind(), error.wait()), (Kind::Busy, Some(Duration::from_secs(7))));
        assert_eq!(error.public(), "the queue is full (request r2)");
    }

    #[test]
    fn what_is_not_a_problem_document_is_judged_by_its_status() {
        for (status, kind) in
            [(502, Kind::Unavailable), (404, Kind::NotFound), (302, Kind::Internal), (418, Kind::Invalid)]
        {
            let error = error(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"<html>");
            assert_eq!(error.kind(), kind, "{status}");
        }
        let unknown = br#"{"type":"x","status":409,"code":"from_the_future","title":"no"}"#;
        assert_eq!(error(StatusCode::CONFLICT, &HeaderMap::new(), unknown).kind(), Kind::Conflict);
    }
}
