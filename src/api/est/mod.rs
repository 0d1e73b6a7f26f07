//! Enrolment over secure transport, EST ([RFC 7030](https://www.rfc-editor.org/rfc/rfc7030), with the corrections of
//! [RFC 8951](https://www.rfc-editor.org/rfc/rfc8951)): how routers, printers and agents ask for certificates.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /.well-known/est/{label}/cacerts` | the certificates of the issuer and those above it |
//! | `GET /.well-known/est/{label}/csrattrs` | the kinds of keys that are certified |
//! | `POST /.well-known/est/{label}/simpleenroll` | a certificate for the CSR of the body |
//! | `POST /.well-known/est/{label}/simplereenroll` | the same, in place of the certificate of the connection |
//!
//! A label is `NAMESPACE:ISSUER:PROFILE`. Without one, the label of the configuration counts. Who calls is whose certificate the
//! connection shows, or whose bearer token is the password of HTTP Basic. What they may have is asked of the policies in the very
//! words of the native API.

mod words;

pub use words::MAX_BODY;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::routing::{MethodFilter, on};
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use words::Failure;

use super::work::{Alive, REQUEST_ID, request_id, running, unbroken};
use super::{Peer, Running};
use crate::error::{Error, Kind, Result};
use crate::service::{Arrival, Certified, Enrolment, Idempotency, Presented, Service};
use crate::types::{Caller, EstLabel};
use crate::x509::{Csr, certs_only, csr_attributes};

/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many bodies are read and worked on at once.
const IN_WORK: usize = 256;

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Authorities,
    Attributes,
    Enrol,
    EnrolAgain,
    /// What is not offered.
    Absent,
}

impl Act {
    /// "The EST server SHOULD NOT require client authentication or authorization to reply to this request": a client needs the
    /// first to check the server, and the second to make its request.
    const fn is_open(self) -> bool {
        matches!(self, Self::Authorities | Self::Attributes)
    }
}

const GET: Method = Method::GET;
const POST: Method = Method::POST;

/// All routes.
const TABLE: &[(Method, &str, Act)] = &[
    (GET, "/.well-known/est/cacerts", Act::Authorities),
    (GET, "/.well-known/est/csrattrs", Act::Attributes),
    (GET, "/.well-known/est/{label}/cacerts", Act::Authorities),
    (GET, "/.well-known/est/{label}/csrattrs", Act::Attributes),
    (POST, "/.well-known/est/simpleenroll", Act::Enrol),
    (POST, "/.well-known/est/simplereenroll", Act::EnrolAgain),
    (POST, "/.well-known/est/{label}/simpleenroll", Act::Enrol),
    (POST, "/.well-known/est/{label}/simplereenroll", Act::EnrolAgain),
    (POST, "/.well-known/est/fullcmc", Act::Absent),
    (POST, "/.well-known/est/serverkeygen", Act::Absent),
    (POST, "/.well-known/est/{label}/fullcmc", Act::Absent),
    (POST, "/.well-known/est/{label}/serverkeygen", Act::Absent),
];

/// Method and path of the routes that everybody may ask.
pub fn open_routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.iter().filter(|(_, _, act)| act.is_open()).map(|(method, path, _)| (method.as_str(), *path))
}

/// Method and path of the routes that need a credential.
pub fn closed_routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.iter().filter(|(_, _, act)| !act.is_open()).map(|(method, path, _)| (method.as_str(), *path))
}

/// Reads the value of an Authorization header and a body as the routes do; for fuzzing.
pub fn read(authorization: &[u8], body: &[u8]) {
    let value = HeaderValue::from_bytes(authorization).ok();
    let headers = value.into_iter().map(|value| (AUTHORIZATION, value)).collect();
    let _ = (words::password(&headers), words::request(body));
}

/// What all routes share.
struct Api {
    service: Arc<Service>,
    /// What an address without a label means.
    default: Option<EstLabel>,
    bodies: Semaphore,
    alive: Alive,
}

/// The router of EST, and a way to wait for its operations.
pub fn router(service: Arc<Service>, default: Option<EstLabel>) -> (Router, Running) {
    let (alive, running) = running();
    let api = Arc::new(Api { service, default, bodies: Semaphore::new(IN_WORK), alive });
    let mut router = Router::new();
    for (method, path, act) in TABLE {
        // Each method of the table has a filter.
        let Ok(filter) = MethodFilter::try_from(method.clone()) else { continue };
        let own = api.clone();
        router = router.route(path, on(filter, move |request| own.serve(path, *act, request)));
    }
    (router, running)
}

impl Api {
    async fn serve(self: Arc<Self>, path: &'static str, act: Act, request: Request<Body>) -> Response<Body> {
        let (id, alive) = (request_id(request.headers()), self.alive.clone());
        let work = {
            let id = id.clone();
            async move { self.answer(path, act, request, id).await }
        };
        let outcome: Result<_, Failure> = unbroken(alive, work).await;
        let mut response = outcome.unwrap_or_else(|failure| failure.respond(&id));
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, id);
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    async fn answer(
        &self,
        path: &'static str,
        act: Act,
        request: Request<Body>,
        id: Arc<str>,
    ) -> Result<Response<Body>, Failure> {
        let (mut head, body) = request.into_parts();
        let params = RawPathParams::from_request_parts(&mut head, &()).await;
        match act {
            Act::Authorities => {
                let certificates = self.service.issuer_certificates(&self.label(params.ok().as_ref())?.issuer)?;
                Ok(words::answer("application/pkcs7-mime", &certs_only::encode(&certificates)?))
            }
            Act::Attributes => {
                let EstLabel { issuer, profile } = self.label(params.ok().as_ref())?;
                let keys = self.service.certified_keys(&issuer, &profile)?;
                Ok(words::answer("application/csrattrs", &csr_attributes::encode(&keys)?))
            }
            // Who is a stranger learns no more than that.
            Act::Absent => {
                self.authenticate(path, &head, id).await?;
                let error = Error::new(Kind::Unsupported, "this function of EST is not offered")
                    .hint("make the key where it is used, and ask by simpleenroll");
                Err(Failure { status: StatusCode::NOT_IMPLEMENTED, error })
            }
            Act::Enrol | Act::EnrolAgain => {
                let arrival = self.authenticate(path, &head, id).await?;
                let label = self.label(params.ok().as_ref())?;
                words::check_type(&head.headers)?;
                let _share = self.bodies.try_acquire().map_err(|_| {
                    Error::new(Kind::Busy, "too many requests are being worked on").hint("try again in a moment")
                })?;
                // A token is not charged for what is no request.
                let csr = words::request(&collect(body).await?)?;
                let caller = self.service.charge(arrival, path, &Idempotency::default()).await?;
                self.enrol(act, &caller, &label, &head, csr).await
            }
        }
    }

    async fn enrol(
        &self,
        act: Act,
        caller: &Caller,
        label: &EstLabel,
        head: &Parts,
        csr: Csr,
    ) -> Result<Response<Body>, Failure> {
        let enrolment = Enrolment { issuer: &label.issuer, profile: &label.profile, csr };
        let made = if act == Act::EnrolAgain {
            let current = peer(head)?.certificate.clone().ok_or_else(|| {
                Error::new(Kind::Forbidden, "there is no certificate on this connection that could be replaced")
                    .hint("connect with the current certificate; whoever has none asks by simpleenroll")
            })?;
            self.service.enrol_again(caller, &current, enrolment).await?
        } else {
            self.service.enrol_by_csr(caller, enrolment).await?
        };
        // "containing only the certificate that was issued"
        let Certified { entry, .. } = made.into_inner();
        let message = certs_only::encode(&[entry.certificate()?.to_vec()])?;
        Ok(words::answer("application/pkcs7-mime; smime-type=certs-only", &message))
    }

    fn label(&self, params: Option<&RawPathParams>) -> Result<EstLabel> {
        let none = || {
            Error::new(Kind::NotFound, "nothing is enrolled at this address")
                .hint("write /.well-known/est/NAMESPACE:ISSUER:PROFILE/..., or set est.default in the configuration")
        };
        let label = params.ok_or_else(none)?.iter().find(|(name, _)| *name == "label");
        match label {
            Some((_, text)) => text.parse().map_err(|_| none()),
            None => self.default.clone().ok_or_else(none),
        }
    }

    async fn authenticate(&self, path: &'static str, head: &Parts, id: Arc<str>) -> Result<Arrival> {
        let token = words::password(&head.headers);
        let peer = peer(head)?;
        let presented = Presented {
            token: token.as_ref().map(|token| token.as_str()),
            certificate: peer.certificate.as_deref(),
            address: Some(peer.address),
            request_id: id,
            what: path,
            may_repeat: false,
        };
        self.service.authenticate(presented).await.map_err(|error| {
            if error.kind() == Kind::Unauthenticated {
                return error.hint(
                    "the password of HTTP Basic is a bearer token (curl --user NAME:TOKEN); or connect with a certificate",
                );
            }
            error
        })
    }
}

fn peer(head: &Parts) -> Result<&Peer> {
    head.extensions.get().ok_or_else(|| Error::internal("a request without its peer"))
}

async fn collect(body: Body) -> Result<Vec<u8>, Failure> {
    let collected = timeout(PATIENCE, Limited::new(body, MAX_BODY).collect()).await;
    let slow = |_| {
        let error = Error::new(Kind::Limit, "the body did not arrive in time");
        Failure { status: StatusCode::REQUEST_TIMEOUT, error }
    };
    let long = |_| Error::new(Kind::Limit, format!("the body was cut off, or has more than {MAX_BODY} bytes"));
    Ok(collected.map_err(slow)?.map_err(long)?.to_bytes().to_vec())
}
