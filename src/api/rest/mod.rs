//! The native API: JSON over HTTP, described by the one table in `routes`.
//!
//! ```text
//! request ─▶ route ─▶ authenticate ─▶ read the body ─▶ charge ─▶ parse ─▶ service: admit, act, close ─▶ answer
//! ```
//!
//! Everything from authentication on runs to its end: a client that hangs up cancels nothing. A stranger learns
//! nothing below `/api/`, not even which routes there are, and costs no memory for a body.

mod acme;
mod announcements;
mod answer;
mod audit;
mod batch;
mod body;
mod call;
mod certificates;
mod identities;
mod issuers;
mod keys;
mod mac;
mod openapi;
mod pem;
mod policies;
mod problem;
mod profiles;
mod routes;
mod row;
mod sign;
mod system;
mod tokens;
mod versions;
mod wrap;

pub use body::BodyLimits;
pub use openapi::document;
pub use problem::{TYPES, status};
pub use routes::{BATCH_BODY, BODY, POLICY_BODY, open_routes, table};
pub use row::{Content, Parameter, RouteRow, Shape};

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::routing::{MethodFilter, on};
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};

use body::{Budget, Read};
use call::Call;
use problem::Failure;
use row::{Closed, Endpoint};

use super::work::{Alive, REQUEST_ID, request_id, running, unbroken};
use super::{Peer, Running};
use crate::error::{Error, Kind, Result};
use crate::service::{Arrival, Idempotency, Presented, Service};

/// What all routes share.
pub(crate) struct Api {
    service: Arc<Service>,
    budget: Budget,
    published: system::Published,
    /// Closed once the router and all tasks are gone.
    alive: Alive,
}

/// The router of the native API, and a way to wait for its operations.
pub fn router(service: Arc<Service>, limits: BodyLimits) -> (Router, Running) {
    let (alive, running) = running();
    let api = Arc::new(Api { service, budget: Budget::new(limits), published: system::Published::default(), alive });
    let mut router = Router::new();
    for row in table() {
        // Each method of the table has a filter.
        let Ok(filter) = MethodFilter::try_from(row.method.clone()) else { continue };
        let own = api.clone();
        router = match &row.endpoint {
            Endpoint::Open(answer) => router.route(
                row.path,
                on(filter, move |request: Request<Body>| async move {
                    let id = request_id(request.headers());
                    finish(answer(&own).map_err(Failure::from), &id)
                }),
            ),
            Endpoint::Closed(handler) => {
                router.route(row.path, on(filter, move |request| own.serve(row, handler, request)))
            }
        };
    }
    let (missing, wrong_method) = (api.clone(), api);
    let router = router
        .method_not_allowed_fallback(move |request| wrong_method.refuse(StatusCode::METHOD_NOT_ALLOWED, request))
        .fallback(move |request| missing.refuse(StatusCode::NOT_FOUND, request));
    (router, running)
}

impl Api {
    /// A closed route.
    async fn serve(
        self: Arc<Self>,
        row: &'static RouteRow,
        handler: &'static Closed,
        request: Request<Body>,
    ) -> Response<Body> {
        let (id, alive) = (request_id(request.headers()), self.alive.clone());
        let work = {
            let id = id.clone();
            async move {
                let (mut head, body) = request.into_parts();
                let may_repeat = call::may_repeat(row, &head.headers);
                let arrival = self.authenticate(&head, &id, &row.what, may_repeat).await?;
                let params = RawPathParams::from_request_parts(&mut head, &()).await;
                let params = params.map_err(|_| Error::new(Kind::Invalid, "the address is not UTF-8"))?;
                let Read { bytes, share } = self.budget.read(row, &head.headers, body).await?;
                let idempotency = call::idempotency(row, &head, &bytes)?;
                let caller = self.service.charge(arrival, &row.what, &idempotency).await?;
                let call = Call::new(self.service.clone(), caller, idempotency, row, head, params, bytes)?;
                let answer = handler(call).await;
                drop(share);
                answer
            }
        };
        detached(alive, &id, work).await
    }

    /// What is not in the table. Below `/api/` a stranger gets the answer of every other route there.
    async fn refuse(self: Arc<Self>, status: StatusCode, request: Request<Body>) -> Response<Body> {
        let (id, alive) = (request_id(request.headers()), self.alive.clone());
        let work = {
            let id = id.clone();
            async move {
                let (head, _) = request.into_parts();
                let path = head.uri.path();
                if path == "/api" || path.starts_with("/api/") {
                    let what = "a route that does not exist";
                    let arrival = self.authenticate(&head, &id, what, false).await?;
                    self.service.charge(arrival, what, &Idempotency::default()).await?;
                }
                let (kind, text) = if status == StatusCode::NOT_FOUND {
                    (Kind::NotFound, "there is no such route")
                } else {
                    (Kind::Invalid, "this route has other methods")
                };
                let error = Error::new(kind, text).hint("GET /api/v1/openapi.json tells all routes");
                Err(Failure::with_status(status, error))
            }
        };
        detached(alive, &id, work).await
    }

    async fn authenticate(&self, head: &Parts, id: &Arc<str>, what: &str, may_repeat: bool) -> Result<Arrival> {
        let peer: &Peer = head.extensions.get().ok_or_else(|| Error::internal("a request without its peer"))?;
        let (address, certificate): (IpAddr, _) = (peer.address, peer.certificate.as_deref());
        let token = bearer(&head.headers);
        let request_id = id.clone();
        let presented = Presented { token, certificate, address: Some(address), request_id, what, may_repeat };
        self.service.authenticate(presented).await
    }
}

/// Runs `work` to its end, whatever becomes of the connection.
async fn detached<Work>(alive: Alive, id: &str, work: Work) -> Response<Body>
where
    Work: Future<Output = Result<Response<Body>, Failure>> + Send + 'static,
{
    finish(unbroken(alive, work).await, id)
}

/// The bearer token ([RFC 6750](https://www.rfc-editor.org/rfc/rfc6750#section-2.1)). A header that is there and holds none,
/// or is there twice, is a wrong token: it never lets the certificate speak instead.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return Some("");
    }
    let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
    match parts {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(token.trim_matches(' ')),
        Some(_) | None => Some(""),
    }
}

/// The headers of every answer.
fn finish(outcome: Result<Response<Body>, Failure>, id: &str) -> Response<Body> {
    let mut response = outcome.unwrap_or_else(|failure| failure.respond(id));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn one_bearer_token_counts_and_anything_else_is_a_wrong_one() {
        assert_eq!(bearer(&headers(&[])), None);
        for good in ["Bearer sgt_x", "bearer sgt_x", "BEARER  sgt_x"] {
            assert_eq!(bearer(&headers(&[("authorization", good)])), Some("sgt_x"));
        }
        for bad in ["sgt_x", "Basic sgt_x", "Bearer", "Bearer "] {
            assert_eq!(bearer(&headers(&[("authorization", bad)])), Some(""), "{bad}");
        }
        assert_eq!(bearer(&headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")])), Some(""));
    }
}
