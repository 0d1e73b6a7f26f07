//! From an [`Error`] to a problem document of ACME ([RFC 8555, 6.7](https://www.rfc-editor.org/rfc/rfc8555#section-6.7)): the only
//! place that knows which status a type has.

use axum::body::Body;
use http::header::{CONTENT_TYPE, LINK, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};

use crate::error::{Error, Kind};
use crate::service::acme::{Problem, ProblemKind, Recorded};

/// What stands before each type.
const PREFIX: &str = "urn:ietf:params:acme:error:";
/// The longest sentence, in characters: it may quote what a client sent.
const MAX_DETAIL: usize = 1000;

/// Why a request is not answered as it wished.
#[derive(Debug)]
pub(super) struct Failure {
    error: Error,
    status: Option<StatusCode>,
    terms: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, status: None, terms: None }
    }
}

impl Failure {
    /// What HTTP has a word of its own for.
    pub(super) const fn with_status(status: StatusCode, error: Error) -> Self {
        Self { error, status: Some(status), terms: None }
    }

    /// As it is; where the terms must be agreed to, with a link to them.
    pub(super) const fn with_terms(error: Error, terms: Option<String>) -> Self {
        Self { error, status: None, terms }
    }

    /// The type of its problem.
    pub(super) fn kind(&self) -> ProblemKind {
        ProblemKind::of(&self.error)
    }

    pub(super) fn respond(&self, request_id: &str) -> Response<Body> {
        let Self { error, status, terms } = self;
        log(error, request_id);
        let kind = ProblemKind::of(error);
        let status = status.unwrap_or_else(|| self::status(kind, error.kind()));
        let mut document = json!({
            "type": format!("{PREFIX}{kind}"),
            "detail": detail(error),
            "status": status.as_u16(),
        });
        if let Some(members) = document.as_object_mut() {
            let subproblems =
                error.cause().map(|Problem { subproblems, .. }| subproblems.as_slice()).unwrap_or_default();
            if !subproblems.is_empty() {
                let one = |sub: &crate::service::acme::Subproblem| {
                    json!({
                        "type": format!("{PREFIX}{}", sub.problem.kind),
                        "detail": sub.problem.detail,
                        "identifier": sub.identifier,
                    })
                };
                members.insert("subproblems".to_owned(), subproblems.iter().map(one).collect());
            }
            if kind == ProblemKind::BadSignatureAlgorithm {
                // "The problem document … MUST contain an "algorithms" field"
                members.insert("algorithms".to_owned(), json!(["ES256", "ES384", "ES512", "EdDSA", "RS256"]));
            }
        }
        let mut response = Response::new(Body::from(document.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = error.wait() {
            headers
                .insert(RETRY_AFTER, HeaderValue::from((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)));
        }
        let terms = terms.as_ref().filter(|_| kind == ProblemKind::UserActionRequired);
        if let Some(Ok(link)) = terms.map(|terms| HeaderValue::try_from(format!("<{terms}>;rel=\"terms-of-service\"")))
        {
            headers.append(LINK, link);
        }
        response
    }
}

/// The sentence, and what to do about it.
fn detail(error: &Error) -> String {
    let hint = error.mend().map(|hint| format!(": {hint}")).unwrap_or_default();
    format!("{}{hint}", error.public()).chars().take(MAX_DETAIL).collect()
}

/// A problem that is the reason of what became invalid.
pub(super) fn recorded(problem: &Recorded) -> Value {
    let status = status(problem.kind, Kind::Invalid).as_u16();
    json!({ "type": format!("{PREFIX}{}", problem.kind), "detail": problem.detail, "status": status })
}

const fn status(kind: ProblemKind, house: Kind) -> StatusCode {
    match kind {
        ProblemKind::AccountDoesNotExist
        | ProblemKind::AlreadyRevoked
        | ProblemKind::BadCsr
        | ProblemKind::BadNonce
        | ProblemKind::BadPublicKey
        | ProblemKind::BadRevocationReason
        | ProblemKind::BadSignatureAlgorithm
        | ProblemKind::Compound
        | ProblemKind::Connection
        | ProblemKind::Dns
        | ProblemKind::InvalidContact
        | ProblemKind::InvalidProfile
        | ProblemKind::Tls
        | ProblemKind::UnsupportedContact
        | ProblemKind::UnsupportedIdentifier => StatusCode::BAD_REQUEST,
        ProblemKind::Caa
        | ProblemKind::ExternalAccountRequired
        | ProblemKind::IncorrectResponse
        | ProblemKind::OrderNotReady
        | ProblemKind::RejectedIdentifier
        | ProblemKind::UserActionRequired => StatusCode::FORBIDDEN,
        ProblemKind::Unauthorized if matches!(house, Kind::Unauthenticated) => StatusCode::UNAUTHORIZED,
        ProblemKind::Unauthorized => StatusCode::FORBIDDEN,
        ProblemKind::AlreadyReplaced => StatusCode::CONFLICT,
        ProblemKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ProblemKind::Malformed => match house {
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Conflict | Kind::Stale => StatusCode::CONFLICT,
            Kind::Invalid
            | Kind::Unauthenticated
            | Kind::Forbidden
            | Kind::State
            | Kind::Limit
            | Kind::DoesNotOpen
            | Kind::Unsupported
            | Kind::Busy
            | Kind::Unavailable
            | Kind::Tampered
            | Kind::Internal => StatusCode::BAD_REQUEST,
        },
        ProblemKind::ServerInternal => match house {
            Kind::Busy | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
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
            | Kind::Tampered
            | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

/// Logs what an operator should look at.
fn log(error: &Error, request_id: &str) {
    if matches!(error.kind(), Kind::Internal | Kind::Tampered | Kind::Unavailable) {
        tracing::error!(request = request_id, code = error.kind().code(), cause = error.chain(), "a request failed");
    }
}
