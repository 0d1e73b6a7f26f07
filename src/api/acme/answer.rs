//! What is answered: records as clients know them, and the addresses of everything.

use axum::body::Body;
use http::header::{CONTENT_TYPE, LINK, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::problem::recorded;
use crate::error::{Error, Result};
use crate::service::acme::{
    Account, Authorization, Challenge, ChallengeKind, Endpoint, Id, Order, OrderState, ProblemKind, Recorded,
};
use crate::types::EndpointName;

/// The addresses of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Addresses(String);

impl Addresses {
    pub(super) fn new(base: &str, endpoint: &EndpointName) -> Self {
        Self(format!("{base}/acme/{}/{}", endpoint.namespace, endpoint.name))
    }

    pub(super) fn of(&self, what: &str) -> String {
        format!("{}/{what}", self.0)
    }

    /// What stands before the ids of accounts.
    pub(super) fn accounts(&self) -> String {
        self.of("account/")
    }

    pub(super) fn account(&self, id: Id) -> String {
        format!("{}{id}", self.accounts())
    }

    pub(super) fn order(&self, id: Id) -> String {
        self.of(&format!("order/{id}"))
    }

    pub(super) fn authorization(&self, order: Id, number: usize) -> String {
        self.of(&format!("order/{order}/authorization/{number}"))
    }

    fn challenge(&self, order: Id, number: usize, kind: ChallengeKind) -> String {
        self.of(&format!("order/{order}/authorization/{number}/{kind}"))
    }

    pub(super) fn certificate(&self, order: Id) -> String {
        self.of(&format!("order/{order}/certificate"))
    }

    pub(super) fn directory(&self, endpoint: &Endpoint) -> Value {
        let profiles: Map<String, Value> = endpoint
            .profiles
            .iter()
            .map(|profile| (profile.name.to_string(), json!(format!("the profile {profile}"))))
            .collect();
        let mut meta = json!({
            "externalAccountRequired": endpoint.open_to.is_none(),
            "profiles": profiles,
        });
        if let Some(meta) = meta.as_object_mut() {
            meta.extend(endpoint.terms.iter().map(|terms| ("termsOfService".to_owned(), json!(terms))));
            meta.extend(endpoint.website.iter().map(|website| ("website".to_owned(), json!(website))));
            if !endpoint.caa.is_empty() {
                meta.insert("caaIdentities".to_owned(), json!(endpoint.caa));
            }
        }
        json!({
            "newNonce": self.of("new-nonce"),
            "newAccount": self.of("new-account"),
            "newOrder": self.of("new-order"),
            "revokeCert": self.of("revoke-cert"),
            "keyChange": self.of("key-change"),
            "renewalInfo": self.of("renewal-info"),
            "meta": meta,
        })
    }

    pub(super) fn show_account(&self, account: &Account) -> Value {
        let mut shown = json!({
            "status": account.state,
            "contact": account.contacts.list(),
            "orders": format!("{}/orders", self.account(account.id)),
        });
        if let (Some(shown), Some(_)) = (shown.as_object_mut(), &account.agreed) {
            shown.insert("termsOfServiceAgreed".to_owned(), json!(true));
        }
        shown
    }

    pub(super) fn show_order(&self, order: &Order) -> Value {
        let numbers = 0..order.authorizations.len();
        let mut shown = json!({
            "status": order.state,
            "expires": time(order.expires),
            "identifiers": order.identifiers,
            "profile": order.profile.name,
            "authorizations": numbers.map(|number| self.authorization(order.id, number)).collect::<Vec<_>>(),
            "finalize": format!("{}/finalize", self.order(order.id)),
        });
        if let Some(shown) = shown.as_object_mut() {
            if order.state == OrderState::Valid {
                shown.insert("certificate".to_owned(), json!(self.certificate(order.id)));
            }
            shown.extend(order.error.iter().map(|error| ("error".to_owned(), recorded(error))));
            shown.extend(order.replaces.iter().map(|id| ("replaces".to_owned(), json!(id))));
        }
        shown
    }

    pub(super) fn show_authorization(&self, order: &Order, number: usize, authorization: &Authorization) -> Value {
        let challenges =
            authorization.challenges.iter().map(|challenge| self.show_challenge(order.id, number, challenge));
        let mut shown = json!({
            "identifier": authorization.identifier,
            "status": authorization.state,
            "expires": time(order.expires),
            "challenges": challenges.collect::<Vec<_>>(),
        });
        if let (Some(shown), true) = (shown.as_object_mut(), authorization.wildcard) {
            shown.insert("wildcard".to_owned(), json!(true));
        }
        shown
    }

    pub(super) fn show_challenge(&self, order: Id, number: usize, challenge: &Challenge) -> Value {
        let mut shown = json!({
            "type": challenge.kind,
            "url": self.challenge(order, number, challenge.kind),
            "status": challenge.state,
            "token": challenge.token,
        });
        if let Some(shown) = shown.as_object_mut() {
            shown.extend(challenge.validated.map(|at| ("validated".to_owned(), json!(time(at)))));
            shown.extend(challenge.error.iter().map(|error| ("error".to_owned(), recorded(error))));
        }
        shown
    }
}

/// In whole seconds: some clients read no parts of them.
pub(super) fn time(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

/// An answer and the headers that are its own.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    media_type: &'static str,
    body: String,
    location: Option<String>,
    links: Vec<String>,
    retry_after: Option<std::time::Duration>,
}

impl Reply {
    pub(super) fn json(body: &Value) -> Self {
        Self { media_type: "application/json", body: body.to_string(), ..Self::empty(StatusCode::OK) }
    }

    pub(super) fn chain(pem: String) -> Self {
        Self { media_type: "application/pem-certificate-chain", body: pem, ..Self::empty(StatusCode::OK) }
    }

    pub(super) const fn empty(status: StatusCode) -> Self {
        Self { status, media_type: "", body: String::new(), location: None, links: Vec::new(), retry_after: None }
    }

    /// Another account has the key.
    pub(super) fn taken(account: String) -> Self {
        let problem = Recorded { kind: ProblemKind::Malformed, detail: "another account has this key".to_owned() };
        let mut body = recorded(&problem);
        if let Some(status) = body.get_mut("status") {
            *status = json!(StatusCode::CONFLICT.as_u16());
        }
        let reply = Self { media_type: "application/problem+json", ..Self::json(&body) };
        reply.status(StatusCode::CONFLICT).location(account)
    }

    pub(super) const fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(super) fn location(mut self, location: String) -> Self {
        self.location = Some(location);
        self
    }

    pub(super) fn link(mut self, to: &str, relation: &str) -> Self {
        self.links.push(format!("<{to}>;rel=\"{relation}\""));
        self
    }

    pub(super) const fn retry_after(mut self, wait: std::time::Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(super) fn respond(self, head: bool) -> Result<Response<Body>> {
        let Self { status, media_type, body, location, links, retry_after } = self;
        // HEAD of the one route that has no body is 200: RFC 8555, 7.2.
        let status = if head { StatusCode::OK } else { status };
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let mut add = |name: HeaderName, value: String| -> Result<()> {
            let value = HeaderValue::try_from(value).map_err(|e| Error::internal(format!("{name}: {e}")))?;
            headers.append(name, value);
            Ok(())
        };
        if !media_type.is_empty() {
            add(CONTENT_TYPE, media_type.to_owned())?;
        }
        location.map(|location| add(LOCATION, location)).transpose()?;
        links.into_iter().try_for_each(|link| add(LINK, link))?;
        retry_after.map(|wait| add(RETRY_AFTER, wait.as_secs().max(1).to_string())).transpose()?;
        Ok(response)
    }
}
