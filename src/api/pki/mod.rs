//! What relying parties fetch: revocation lists, OCSP answers, the certificates of issuers, trust bundles. All of it is public
//! and signed, so there is no authentication, and plain HTTP will do: whoever checks a certificate has no TLS yet.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /pki/{namespace}/{issuer}/1.crl` | the revocation list of version 1 |
//! | `GET /pki/{namespace}/{issuer}/1.cer` | the certificate of version 1 |
//! | `GET /pki/{namespace}/{issuer}/bundle.pem` | the certificates to trust, in PEM |
//! | `GET /pki/{namespace}/{issuer}/bundle.json` | the same as a [SPIFFE bundle](https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Trust_Domain_and_Bundle.md) |
//! | `POST /pki/{namespace}/{issuer}/ocsp` | the status of a certificate ([RFC 6960, A](https://www.rfc-editor.org/rfc/rfc6960#appendix-A)) |
//! | `GET /pki/{namespace}/{issuer}/ocsp/{base64}` | the same, for caches ([RFC 5019, 5](https://www.rfc-editor.org/rfc/rfc5019#section-5)) |
//!
//! A fetch changes nothing and is not in the audit log; the metrics count it. What is signed for it is recorded.

mod cache;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, RawPathParams};
use axum::routing::{MethodFilter, on};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use self::cache::Freshness;
use crate::error::{Error, Kind, Result};
use crate::service::{MAX_OCSP_REQUEST, Published, Service, StatusAnswer};
use crate::types::{IssuerName, Version};

/// What a route answers with.
#[derive(Clone, Copy, Debug)]
enum What {
    File,
    Bundle,
    SpiffeBundle,
    Status,
    CacheableStatus,
}

/// All routes.
const TABLE: &[(Method, &str, What)] = &[
    (Method::GET, "/pki/{namespace}/{issuer}/{file}", What::File),
    (Method::GET, "/pki/{namespace}/{issuer}/bundle.pem", What::Bundle),
    (Method::GET, "/pki/{namespace}/{issuer}/bundle.json", What::SpiffeBundle),
    (Method::POST, "/pki/{namespace}/{issuer}/ocsp", What::Status),
    (Method::GET, "/pki/{namespace}/{issuer}/ocsp/{*request}", What::CacheableStatus),
];

/// Method and path of each route; none of them has authentication.
pub fn open_routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.iter().map(|(method, path, _)| (method.as_str(), *path))
}

/// The router of these routes.
pub fn router(service: Arc<Service>) -> Router {
    let mut router = Router::new();
    for (method, path, what) in TABLE {
        // Each method of the table has a filter.
        let Ok(filter) = MethodFilter::try_from(method.clone()) else { continue };
        let service = service.clone();
        router = router.route(path, on(filter, move |request| serve(service, *what, request)));
    }
    router
}

async fn serve(service: Arc<Service>, what: What, request: Request<Body>) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    let params = RawPathParams::from_request_parts(&mut head, &()).await;
    let answered = match params {
        Ok(params) => answer(&service, what, &head, &params, body).await,
        Err(_) => Err(no_such_thing()),
    };
    let (name, outcome) = match &answered {
        Ok((name, response)) => (*name, response.status().as_u16()),
        Err(error) => (what.name(), status(error).as_u16()),
    };
    service.metrics().fetched(name, outcome);
    answered.map_or_else(|error| failure(&error), |(_, response)| response)
}

impl What {
    /// In the metrics.
    const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Bundle | Self::SpiffeBundle => "bundle",
            Self::Status | Self::CacheableStatus => "ocsp",
        }
    }
}

async fn answer(
    service: &Service,
    what: What,
    head: &Parts,
    params: &RawPathParams,
    body: Body,
) -> Result<(&'static str, Response<Body>)> {
    let param =
        |name: &str| params.iter().find(|(own, _)| *own == name).map(|(_, text)| text).ok_or_else(no_such_thing);
    // What cannot be a name names nothing.
    let part = |name: &str| param(name)?.parse().map_err(|_| no_such_thing());
    let issuer = IssuerName { namespace: part("namespace")?, name: part("issuer")? };
    let now = service.now();
    let file = |published: &Published, freshness: Freshness| freshness.respond(&head.headers, published, now);
    match what {
        What::File => match param("file")?.split_once('.') {
            Some((number, "crl")) => {
                let list = service.revocation_list(&issuer, version(number)?).await?;
                Ok(("crl", file(&list, Freshness::LIST)))
            }
            Some((number, "cer")) => {
                let certificate = service.issuer_certificate(&issuer, version(number)?)?;
                Ok(("certificate", file(&certificate, Freshness::CERTIFICATE)))
            }
            Some(_) | None => Err(no_such_thing()),
        },
        What::Bundle => Ok(("bundle", file(&service.trust_bundle(&issuer)?, Freshness::BUNDLE))),
        What::SpiffeBundle => Ok(("bundle", file(&service.spiffe_bundle(&issuer)?, Freshness::SPIFFE_BUNDLE))),
        What::Status => {
            if !is_ocsp_request(&head.headers) {
                return Err(Error::new(Kind::Unsupported, "the body of this route is application/ocsp-request"));
            }
            let too_long = |_| Error::new(Kind::Limit, format!("an OCSP request has at most {MAX_OCSP_REQUEST} bytes"));
            let request = to_bytes(body, MAX_OCSP_REQUEST).await.map_err(too_long)?;
            let answer = service.certificate_status(&issuer, &request).await?;
            Ok(("ocsp", of_status(answer, &HeaderMap::new(), now)))
        }
        What::CacheableStatus => {
            let answer = service.certificate_status(&issuer, &from_base64(param("request")?)).await?;
            Ok(("ocsp", of_status(answer, &head.headers, now)))
        }
    }
}

const OCSP_REQUEST: &str = "application/ocsp-request";

/// Media types are compared without regard to case, and may have parameters ([RFC 9110, 8.3.1](https://www.rfc-editor.org/rfc/rfc9110#section-8.3.1)).
fn is_ocsp_request(headers: &HeaderMap) -> bool {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    media_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(OCSP_REQUEST))
}

const OCSP_RESPONSE: &str = "application/ocsp-response";

/// The request of a path, whose percent signs are read already. With or without its `=` signs: some clients leave them out.
/// What is not base64 is no request, and is answered as such.
fn from_base64(text: &str) -> Vec<u8> {
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&STANDARD, lenient).decode(text).unwrap_or_default()
}

/// A version in its one spelling.
fn version(text: &str) -> Result<Version> {
    let plain = !text.starts_with('0') && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| plain);
    number.and_then(|number| Version::new(number).ok()).ok_or_else(no_such_thing)
}

fn of_status(answer: StatusAnswer, headers: &HeaderMap, now: jiff::Timestamp) -> Response<Body> {
    match answer {
        StatusAnswer::Lasting(published) => Freshness::STATUS.respond(headers, &published, now),
        StatusAnswer::Once(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OCSP_RESPONSE));
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
    }
}

/// One answer for whatever is not there: the public side tells nothing of what is.
fn no_such_thing() -> Error {
    Error::new(Kind::NotFound, "there is no such file")
}

/// Programs fetch these files, so a failure is a status and a line for people.
fn failure(error: &Error) -> Response<Body> {
    match error.kind() {
        Kind::Internal | Kind::Tampered | Kind::Unavailable => {
            tracing::warn!(code = error.kind().code(), cause = error.chain(), "a public file could not be served");
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
    let mut response = Response::new(Body::from(format!("{error}\n")));
    *response.status_mut() = status(error);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(wait) = error.wait() {
        headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    response
}

fn status(error: &Error) -> StatusCode {
    match error.kind() {
        Kind::NotFound | Kind::Forbidden | Kind::Unauthenticated => StatusCode::NOT_FOUND,
        Kind::Invalid | Kind::DoesNotOpen => StatusCode::BAD_REQUEST,
        Kind::Unsupported => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Kind::Limit => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Conflict | Kind::State | Kind::Stale => StatusCode::CONFLICT,
        Kind::Busy | Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Tampered | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
