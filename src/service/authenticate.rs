//! From a credential to a caller.

use std::net::IpAddr;
use std::sync::Arc;

use super::Service;
use crate::auth::certificate::Claims;
use crate::auth::registry::TokenRecord;
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
}

impl Service {
    /// The caller that a credential proves. A token with a limit of uses is charged first, durably. A refusal is recorded
    /// before it is answered.
    ///
    /// # Errors
    /// [`Kind::Unauthenticated`], one sentence for all causes.
    pub async fn authenticate(&self, presented: Presented<'_>) -> Result<Caller> {
        match self.find_caller(&presented).await {
            Ok(caller) => Ok(caller),
            Err(error) => {
                let address = presented.address.map(|address| address.to_string()).unwrap_or_default();
                let admission = &self.parts.admission;
                admission.unauthenticated(&presented.request_id, &address, presented.what, &error).await?;
                Err(error)
            }
        }
    }

    async fn find_caller(&self, presented: &Presented<'_>) -> Result<Caller> {
        let now = self.parts.ledger.clock().now();
        let (identity, groups, credential) = match (presented.token, presented.certificate) {
            (Some(text), _) => {
                let token = Token::parse(text)?;
                let known = self.parts.registry.token(&token, now)?;
                if known.record.uses_left.is_some() {
                    self.charge(&token, presented).await?;
                }
                let record = &known.record;
                (record.identity.clone(), record.groups.clone(), Credential::Token(record.id()))
            }
            (None, Some(claims)) => {
                let known = self.parts.registry.certificate(claims, now)?;
                let hash = hex::encode(claims.hash());
                (known.record.name.clone(), known.record.groups.clone(), Credential::Certificate(hash))
            }
            (None, None) => {
                return Err(Error::new(Kind::Unauthenticated, "this needs a credential")
                    .hint("send `Authorization: Bearer sgt_...`, or connect with a client certificate"));
            }
        };
        Ok(Caller {
            principal: Principal::Identity(identity),
            groups,
            credential,
            address: presented.address,
            request_id: presented.request_id.clone(),
        })
    }

    /// Takes one use off a token, durably, before the request is looked at.
    async fn charge(&self, token: &Token, presented: &Presented<'_>) -> Result<()> {
        let _changing = self.token_changes.lock().await;
        // It may have been used up or revoked while this waited for its turn.
        let known = self.parts.registry.token(token, self.parts.ledger.clock().now())?;
        let mut record = known.record.clone();
        record.uses_left = record.uses_left.map(|left| left.saturating_sub(1));
        let value = serde_json::to_vec(&record).map_err(|e| Error::internal(format!("token: {e}")))?;
        let expected = Expected::Revision(known.revision);
        let change = Change { path: record.path(), expected, value: Some(value) };
        let revision = self.parts.ledger.commit(self.charge_leaf(&record, presented), vec![change]).await?;
        self.parts.registry.put_token(record, revision);
        Ok(())
    }

    fn charge_leaf(&self, token: &TokenRecord, presented: &Presented<'_>) -> crate::audit::Record {
        let caller = Caller {
            principal: Principal::Identity(token.identity.clone()),
            groups: token.groups.clone(),
            credential: Credential::Token(token.id()),
            address: presented.address,
            request_id: presented.request_id.clone(),
        };
        self.parts.admission.record_charge(&caller, &token.id())
    }
}
