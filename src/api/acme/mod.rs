//! ACME ([RFC 8555](https://www.rfc-editor.org/rfc/rfc8555)), with addresses ([RFC 8738](https://www.rfc-editor.org/rfc/rfc8738)),
//! tls-alpn-01 ([RFC 8737](https://www.rfc-editor.org/rfc/rfc8737)), renewal information
//! ([RFC 9773](https://www.rfc-editor.org/rfc/rfc9773)) and profiles.
//!
//! ```text
//! request ─▶ route ─▶ read the body ─▶ open: url, nonce, signature, account ─▶ parse ─▶ service ─▶ answer, with a new nonce
//! ```
//!
//! Who calls is who signed the body. Bearer tokens and client certificates mean nothing here, and neither does anything of a
//! request that is not signed.

mod act;
mod answer;
mod body;
mod problem;
mod routes;

pub use body::read as read_body;
pub use routes::{Act, ROUTES, open_routes, signed_routes};

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::routing::{MethodFilter, on};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, LINK};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use act::Call;
use answer::{Addresses, Reply};
use problem::Failure;

use super::work::{Alive, REQUEST_ID, request_id, running, unbroken};
use super::{Peer, Running};
use crate::error::{Error, Kind, Result};
use crate::jose::MAX_JWS;
use crate::service::Service;
use crate::service::acme::{ProblemKind, SignedRequest, refuse};
use crate::types::{EndpointName, Name};

const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");
/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many bodies are read and worked on at once.
const IN_WORK: usize = 256;

/// What all routes share.
struct Api {
    service: Arc<Service>,
    /// What stands before `/acme/` in all addresses, where it is not what the client asked for.
    url: Option<String>,
    bodies: Semaphore,
    alive: Alive,
}

/// The router of ACME, and a way to wait for its operations.
pub fn router(service: Arc<Service>, url: Option<String>) -> (Router, Running) {
    let (alive, running) = running();
    let api = Arc::new(Api { service, url, bodies: Semaphore::new(IN_WORK), alive });
    let mut router = Router::new();
    for (method, path, act) in ROUTES {
        // Each method of the table has a filter; that of GET takes HEAD as well.
        let Ok(filter) = MethodFilter::try_from(method.clone()) else { continue };
        let own = api.clone();
        router = router.route(path, on(filter, move |request| own.serve(path, *act, request)));
    }
    (router, running)
}

impl Api {
    async fn serve(self: Arc<Self>, path: &'static str, act: Act, request: Request<Body>) -> Response<Body> {
        let (id, alive, service) = (request_id(request.headers()), self.alive.clone(), self.service.clone());
        let directory = {
            let base = self.base(&request).unwrap_or_default();
            let mut parts = request.uri().path().split('/').skip(2);
            let (namespace, endpoint) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("<{base}/acme/{namespace}/{endpoint}/directory>;rel=\"index\"")
        };
        let work = {
            let id = id.clone();
            async move { self.answer(path, act, request, id).await }
        };
        let mut response = match unbroken(alive, work).await {
            Ok(response) => response,
            Err(failure) => {
                service.metrics().acme_refused(failure.kind().as_str());
                failure.respond(&id)
            }
        };
        let headers = response.headers_mut();
        // "the server MUST include a Replay-Nonce header field in every successful response to a POST request and SHOULD provide
        // it in error responses as well."
        if act != Act::Directory
            && let Ok(nonce) = HeaderValue::try_from(service.acme_nonce())
        {
            headers.insert(REPLAY_NONCE, nonce);
        }
        if act != Act::Directory
            && let Ok(link) = HeaderValue::try_from(directory)
        {
            headers.append(LINK, link);
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, id);
        }
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        response
    }

    async fn answer(
        &self,
        path: &'static str,
        act: Act,
        request: Request<Body>,
        id: Arc<str>,
    ) -> Result<Response<Body>, Failure> {
        let base = self.base(&request)?;
        let (mut head, body) = request.into_parts();
        let params = RawPathParams::from_request_parts(&mut head, &()).await;
        let params = params.map_err(|_| Error::new(Kind::Invalid, "the address is not UTF-8"))?;
        let params: Vec<(String, String)> =
            params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let param = |name: &str| params.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        let name = |part| -> Result<Name> {
            let none = || Error::new(Kind::NotFound, "there is no such ACME endpoint");
            param(part).and_then(|text| text.parse().ok()).ok_or_else(none)
        };
        let endpoint = EndpointName { namespace: name("namespace")?, name: name("endpoint")? };
        let addresses = Addresses::new(&base, &endpoint);
        let Some(signer) = act.signer() else {
            let reply = act::open(&self.service, act, &endpoint, &addresses, param("certificate")).await?;
            return Ok(reply.respond(head.method == Method::HEAD)?);
        };
        let _share = self.bodies.try_acquire().map_err(|_| {
            Error::new(Kind::Busy, "too many requests are being worked on").hint("try again in a moment")
        })?;
        let body = read(&head, body).await?;
        let peer: &Peer = head.extensions.get().ok_or_else(|| Error::internal("a request without its peer"))?;
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        let (url, accounts) = (format!("{base}{target}"), addresses.accounts());
        let opened = self
            .service
            .acme_open(SignedRequest {
                endpoint: &endpoint,
                body: &body,
                url: &url,
                accounts: &accounts,
                address: Some(peer.address),
                request_id: id,
                what: &format!("POST {path}"),
                signer,
            })
            .await?;
        let terms = opened.endpoint.terms.clone();
        let call = Call { service: self.service.clone(), opened, addresses, url, params: params.clone() };
        let reply: Result<Reply> = act::signed(act, call).await;
        reply.and_then(|reply| reply.respond(false)).map_err(|error| Failure::with_terms(error, terms))
    }

    /// Scheme and host of all addresses: as configured, or as the client knows us.
    fn base(&self, request: &Request<Body>) -> Result<String> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        let wrong = || refuse(ProblemKind::Malformed, "the request names no host, or several");
        let mut hosts = request.headers().get_all(HOST).iter();
        let host = match (request.uri().authority(), hosts.next(), hosts.next()) {
            (Some(authority), _, None) => authority.as_str(),
            (None, Some(host), None) => host.to_str().map_err(|_| wrong())?,
            (_, _, Some(_)) | (None, None, None) => return Err(wrong()),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
        if host.is_empty() || host.len() > 260 || !host.bytes().all(plain) {
            return Err(wrong());
        }
        Ok(format!("https://{host}"))
    }
}

/// The body of a signed request.
async fn read(head: &Parts, body: Body) -> Result<Vec<u8>, Failure> {
    // "requests … MUST have the Content-Type header field set to "application/jose+json"", else 415
    let media_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/jose+json") {
        let error = refuse(ProblemKind::Malformed, "the body must be application/jose+json");
        return Err(Failure::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    let collected = timeout(PATIENCE, Limited::new(body, MAX_JWS).collect()).await;
    let too_slow =
        || Failure::with_status(StatusCode::REQUEST_TIMEOUT, refuse(ProblemKind::Malformed, "the body took too long"));
    match collected.map_err(|_| too_slow())? {
        Ok(body) => Ok(body.to_bytes().to_vec()),
        Err(_) => {
            let text = format!("the body was cut off, or has more than {MAX_JWS} bytes");
            Err(Failure::with_status(StatusCode::PAYLOAD_TOO_LARGE, refuse(ProblemKind::Malformed, text)))
        }
    }
}
