//! From a credential to a caller, in two steps: who it is, before the body of the request is read, and then the use of a
//! token whose uses are counted. Only both together make a caller.

use std::net::IpAddr;
use std::sync::Arc;

use super::idempotency::Charged;
use super::{Idempotency, Service};
use crate::auth::certificate::Claims;
use crate::auth::registry::refused;
use crate::auth::token::Token;
use crate::error::{Error, Kind, Result};
use crate::store::{Change, Expected};
use crate::types::{Caller, Credential, Principal};

/// What a request presents.
#[derive(Debug)]
pub struct Presented<'a> {
    /// The text of a bearer token. Where there is one, nothing else counts.
    pub token: Option<&'a str>,
    /// A client certificate whose chain was verified.
    pub certificate: Option<&'a Claims>,
    /// From where.
    pub address: Option<IpAddr>,
    /// The request.
    pub request_id: Arc<str>,
    /// What was asked for: method and route, for the record of a refusal.
    pub what: &'a str,
    /// Whether it may be the repetition of a change, which a token that is used up still covers.
    pub may_repeat: bool,
}

/// Somebody who is known, before a use is taken off the token.
#[derive(Debug)]
pub struct Arrival {
    caller: Caller,
    /// The token, where its uses are counted.
    counted: Option<Token>,
}

impl Service {
    /// Who a credential proves. A refusal is recorded before it is answered.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`], one sentence for all causes.
    pub async fn authenticate(&self, presented: Presented<'_>) -> Result<Arrival> {
        match self.find_caller(&presented) {
            Ok(arrival) => Ok(arrival),
            Err(error) => {
                let Presented { request_id, address, what, .. } = presented;
                Err(self.refusal(&request_id, address, what, error).await)
            }
        }
    }

    /// Takes a use off a token whose uses are counted, durably, before the request is looked at. The repetition of a change
    /// that the token was charged for is covered by that use.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`] where none is left, as in [`Self::authenticate`].
    pub async fn charge(&self, arrival: Arrival, what: &str, idempotency: &Idempotency) -> Result<Caller> {
        let Arrival { caller, counted } = arrival;
        let Some(token) = counted else { return Ok(caller) };
        match self.take_use(&token, &caller, idempotency).await {
            Ok(()) => Ok(caller),
            Err(error) => Err(self.refusal(&caller.request_id, caller.address, what, error).await),
        }
    }

    fn find_caller(&self, presented: &Presented<'_>) -> Result<Arrival> {
        let now = self.parts.ledger.clock().now();
        let (identity, groups, credential, counted) = match (presented.token, presented.certificate) {
            (Some(text), _) => {
                let token = Token::parse(text)?;
                let known = self.parts.registry.token(&token, now)?;
                let record = &known.record;
                if !presented.may_repeat {
                    record.has_use()?;
                }
                let counted = record.uses_left.map(|_| token);
                (record.identity.clone(), record.groups.clone(), Credential::Token(record.id()), counted)
            }
            (None, Some(claims)) => {
                let known = self.parts.registry.certificate(claims, now)?;
                // A certificate of somebody else's is that authority's to revoke: the handshake has no lists.
                if self.parts.authority.is_revoked(claims.issuer(), claims.serial()) {
                    return Err(refused("the certificate is revoked"));
                }
                let hash = hex::encode(claims.hash());
                (known.record.name.clone(), known.record.groups.clone(), Credential::Certificate(hash), None)
            }
            (None, None) => {
                return Err(Error::new(Kind::Unauthenticated, "this needs a credential")
                    .hint("send `Authorization: Bearer sgt_...`, or connect with a client certificate"));
            }
        };
        let caller = Caller {
            principal: Principal::Identity(identity),
            groups,
            credential,
            address: presented.address,
            request_id: presented.request_id.clone(),
        };
        Ok(Arrival { caller, counted })
    }

    async fn take_use(&self, token: &Token, caller: &Caller, idempotency: &Idempotency) -> Result<()> {
        let _changing = self.token_changes.lock().await;
        // It may have been used up or revoked, or have expired, while the body came or this waited for its turn.
        let known = self.parts.registry.token(token, self.parts.ledger.clock().now())?;
        let mut record = known.record.clone();
        let taken_for = match self.charged(&record.id(), &caller.principal, idempotency).await? {
            Charged::Before => return Ok(()),
            Charged::New(change) => change,
        };
        record.take_use()?;
        let value = serde_json::to_vec(&record).map_err(|e| Error::internal(format!("token: {e}")))?;
        let expected = Expected::Revision(known.revision);
        let mut changes = vec![Change { path: record.path(), expected, value: Some(value) }];
        changes.extend(taken_for);
        let leaf = self.parts.admission.record_charge(caller, &record.id());
        let revision = self.parts.ledger.commit(leaf, changes).await?;
        self.parts.registry.put_token(record, revision);
        Ok(())
    }

    /// Records a refusal, and gives back what is to be answered.
    async fn refusal(&self, request_id: &str, address: Option<IpAddr>, what: &str, error: Error) -> Error {
        let address = address.map(|address| address.to_string()).unwrap_or_default();
        match self.parts.admission.unauthenticated(request_id, &address, what, &error).await {
            Ok(()) => error,
            Err(unrecorded) => unrecorded,
        }
    }
}
