//! What each route does: the words of a request into a call of the service, and its answer back.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::answer::{Addresses, Reply, time};
use super::body;
use super::routes::Act;
use crate::error::{Error, Kind, Result};
use crate::service::acme::{ChallengeKind, ChallengeState, Id, Opened, Order, OrderState};
use crate::service::{Renewal, Service};
use crate::types::EndpointName;

/// When a client should look again at what is under way.
const SOON: Duration = Duration::from_secs(1);

/// A request whose signature holds.
pub(super) struct Call {
    pub(super) service: Arc<Service>,
    pub(super) opened: Opened,
    pub(super) addresses: Addresses,
    pub(super) url: String,
    pub(super) params: Vec<(String, String)>,
}

/// A request that nobody has to sign.
pub(super) async fn open(
    service: &Service,
    act: Act,
    endpoint: &EndpointName,
    addresses: &Addresses,
    certificate: Option<&str>,
) -> Result<Reply> {
    let endpoint = service.acme_endpoint(endpoint).await?;
    match (act, certificate) {
        (Act::Directory, _) => Ok(Reply::json(&addresses.directory(&endpoint))),
        (Act::NewNonce, _) => Ok(Reply::empty(StatusCode::NO_CONTENT)),
        (Act::RenewalInfo, Some(id)) => {
            let renewal = service.acme_renewal(&endpoint.name, &id.parse()?).await?;
            let Renewal { window, ask_again, early: _, explanation } = renewal;
            let window = json!({ "start": time(window.start), "end": time(window.end) });
            let mut shown = json!({ "suggestedWindow": window });
            if let (Some(shown), Some(explanation)) = (shown.as_object_mut(), explanation) {
                shown.insert("explanationURL".to_owned(), json!(explanation));
            }
            Ok(Reply::json(&shown).retry_after(ask_again))
        }
        (
            Act::RenewalInfo
            | Act::NewAccount
            | Act::Account
            | Act::Orders
            | Act::KeyChange
            | Act::NewOrder
            | Act::Order
            | Act::Authorization
            | Act::Challenge
            | Act::Finalize
            | Act::Certificate
            | Act::Alternate
            | Act::Revoke,
            _,
        ) => Err(Error::internal("a signed route was served open")),
    }
}

/// A request that somebody signed.
pub(super) async fn signed(act: Act, call: Call) -> Result<Reply> {
    match act {
        Act::NewAccount => call.new_account().await,
        Act::Account => call.account().await,
        Act::Orders => call.orders().await,
        Act::KeyChange => call.key_change().await,
        Act::NewOrder => call.new_order().await,
        Act::Order => call.order().await,
        Act::Authorization => call.authorization().await,
        Act::Challenge => call.challenge().await,
        Act::Finalize => call.finalize().await,
        Act::Certificate => call.certificate(0).await,
        Act::Alternate => call.certificate(call.number()?).await,
        Act::Revoke => call.revoke().await,
        Act::Directory | Act::NewNonce | Act::RenewalInfo => Err(Error::internal("an open route was served signed")),
    }
}

impl Call {
    fn param(&self, name: &str) -> Result<&str> {
        let found = self.params.iter().find(|(own, _)| own == name);
        found.map(|(_, text)| text.as_str()).ok_or_else(|| Error::internal(format!("the route has no {name}")))
    }

    fn id(&self) -> Result<Id> {
        self.param("id")?.parse()
    }

    /// In its one spelling.
    fn number(&self) -> Result<usize> {
        let text = self.param("number")?;
        let none = || Error::new(Kind::NotFound, "there is no such thing here");
        text.parse().ok().filter(|number: &usize| number.to_string() == text).ok_or_else(none)
    }

    fn payload(&self) -> &[u8] {
        &self.opened.payload
    }

    fn own_account(&self) -> Result<String> {
        Ok(self.addresses.account(self.opened.account()?.0.id))
    }

    async fn new_account(&self) -> Result<Reply> {
        let new = body::new_account(self.payload())?;
        let (account, made) = self.service.acme_new_account(&self.opened, new, &self.url).await?.into_inner();
        let status = if made { StatusCode::CREATED } else { StatusCode::OK };
        let reply = Reply::json(&self.addresses.show_account(&account)).status(status);
        let terms = self.opened.endpoint.terms.iter();
        let reply = terms.fold(reply, |reply, terms| reply.link(terms, "terms-of-service"));
        Ok(reply.location(self.addresses.account(account.id)))
    }

    async fn account(&self) -> Result<Reply> {
        let wish = body::account(self.payload())?;
        let account = self.service.acme_update_account(&self.opened, self.id()?, wish).await?.into_inner();
        Ok(Reply::json(&self.addresses.show_account(&account)).location(self.addresses.account(account.id)))
    }

    async fn orders(&self) -> Result<Reply> {
        body::nothing(self.payload())?;
        let orders = self.service.acme_orders(&self.opened, self.id()?).await?.into_inner();
        let orders: Vec<_> = orders.into_iter().map(|id| self.addresses.order(id)).collect();
        Ok(Reply::json(&json!({ "orders": orders })))
    }

    async fn key_change(&self) -> Result<Reply> {
        let account_url = self.own_account()?;
        match self.service.acme_change_key(&self.opened, &self.url, &account_url).await?.into_inner() {
            Ok(account) => Ok(Reply::json(&self.addresses.show_account(&account)).location(account_url)),
            // "If there is an existing account with the new key … the server MUST … return … 409 (Conflict) and MUST provide the URL
            // of that account in the Location header field."
            Err(other) => Ok(Reply::taken(self.addresses.account(other))),
        }
    }

    async fn new_order(&self) -> Result<Reply> {
        let wish = body::order(self.payload())?;
        let order = self.service.acme_new_order(&self.opened, wish).await?.into_inner();
        Ok(self.show(&order).status(StatusCode::CREATED))
    }

    fn show(&self, order: &Order) -> Reply {
        let reply = Reply::json(&self.addresses.show_order(order)).location(self.addresses.order(order.id));
        if order.state == OrderState::Processing { reply.retry_after(SOON) } else { reply }
    }

    async fn order(&self) -> Result<Reply> {
        body::nothing(self.payload())?;
        let order = self.read_order().await?;
        Ok(self.show(&order))
    }

    async fn read_order(&self) -> Result<Order> {
        Ok(self.service.acme_order(&self.opened, self.id()?, &self.own_account()?).await?.into_inner())
    }

    async fn authorization(&self) -> Result<Reply> {
        let number = self.number()?;
        let order = if body::authorization(self.payload())? {
            self.service.acme_deactivate(&self.opened, self.id()?, number).await?.into_inner()
        } else {
            self.read_order().await?
        };
        let authorization = order.authorization(number)?;
        let reply = Reply::json(&self.addresses.show_authorization(&order, number, authorization));
        let waiting = authorization.challenges.iter().any(|one| one.state == ChallengeState::Processing);
        Ok(if waiting { reply.retry_after(SOON) } else { reply })
    }

    async fn challenge(&self) -> Result<Reply> {
        let (number, id) = (self.number()?, self.id()?);
        let none = |_| Error::new(Kind::NotFound, "there is no such challenge");
        let kind: ChallengeKind = self.param("kind")?.parse().map_err(none)?;
        let order = if body::challenge(self.payload())? {
            self.service.acme_answer(&self.opened, id, number, kind, &self.own_account()?).await?.into_inner()
        } else {
            self.read_order().await?
        };
        let challenge = order.challenge(number, kind)?;
        let reply = Reply::json(&self.addresses.show_challenge(id, number, challenge))
            .link(&self.addresses.authorization(id, number), "up");
        Ok(if challenge.state == ChallengeState::Processing { reply.retry_after(SOON) } else { reply })
    }

    async fn finalize(&self) -> Result<Reply> {
        let csr = body::finalize(self.payload())?;
        let order = self.service.acme_finalize(&self.opened, self.id()?, csr).await?.into_inner();
        Ok(self.show(&order))
    }

    async fn certificate(&self, number: usize) -> Result<Reply> {
        body::nothing(self.payload())?;
        let id = self.id()?;
        let chains = self.service.acme_chains(&self.opened, id).await?.into_inner();
        let chain = chains.get(number).cloned();
        let chain = chain.ok_or_else(|| Error::new(Kind::NotFound, "the certificate has no such chain"))?;
        let address = |other: usize| match other {
            0 => self.addresses.certificate(id),
            other => format!("{}/{other}", self.addresses.certificate(id)),
        };
        let others = (0..chains.len()).filter(|other| *other != number);
        Ok(others.fold(Reply::chain(chain), |reply, other| reply.link(&address(other), "alternate")))
    }

    async fn revoke(&self) -> Result<Reply> {
        let revocation = body::revoke(self.payload())?;
        self.service.acme_revoke(&self.opened, revocation).await?.into_inner();
        Ok(Reply::empty(StatusCode::OK))
    }
}
