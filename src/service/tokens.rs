//! Bearer tokens.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Idempotency, Outcome, Service};
use crate::admission::{Details, Permit, Released};
use crate::audit::Phase;
use crate::auth::registry::TokenRecord;
use crate::auth::token::Token;
use crate::error::{Error, Kind, Result};
use crate::store::{Change, Expected};
use crate::types::operation::{CreateToken, Operation, ReadToken, RevokeToken};
use crate::types::{Caller, Name, Period, Principal, Resource};

/// How long a token lives unless asked otherwise, and at most.
const DEFAULT_TTL: Period = Period::seconds(86_400);
const MAX_TTL: Period = Period::seconds(365 * 86_400);
/// The most groups of one token or identity.
const MAX_GROUPS: usize = 64;
/// Whoever is in this group may hand out any group.
pub(super) const ADMINISTRATORS: &str = "administrators";

/// A token that is wanted.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Who it speaks for.
    pub identity: Name,
    /// The groups.
    pub groups: Vec<Name>,
    /// How long it lives.
    pub ttl: Option<Period>,
    /// How many requests it serves.
    pub uses: Option<u64>,
}

/// A token that was made, or what is known of the one that an earlier, equal request made.
pub struct TokenMade {
    /// Its text, shown this once.
    pub text: Option<Zeroizing<String>>,
    /// What is kept of it.
    pub record: TokenRecord,
}

impl std::fmt::Debug for TokenMade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenMade").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Service {
    /// Makes a token.
    ///
    /// # Errors
    /// `Forbidden` for groups that the caller is not in, `Invalid` for a lifetime or number of uses that cannot be.
    pub async fn create_token(
        &self,
        caller: &Caller,
        new: NewToken,
        idempotency: &Idempotency,
    ) -> Result<Released<TokenMade>> {
        let permit = self.admit::<CreateToken>(caller, Resource::Identity(new.identity.clone())).await?;
        let result = async {
            check_groups(caller, &new.groups)?;
            match self.once(caller, idempotency).await? {
                Ok(Outcome::Token(id)) => {
                    let known = self.parts.registry.token_by_id(&id)?;
                    Ok(TokenMade { text: None, record: known.record.clone() })
                }
                Ok(_) => Err(Error::internal("an idempotency record is of another kind")),
                Err(turn) => {
                    let (token, record) = self.new_token(new)?;
                    let also = turn.record(Outcome::Token(record.id()))?;
                    self.commit_token(&permit, &record, Expected::Absent, also).await?;
                    Ok(TokenMade { text: Some(token.expose()), record })
                }
            }
        };
        let result = result.await;
        let details = match &result {
            Ok(made) => token_details(&made.record),
            Err(_) => Details::default(),
        };
        permit.close(result, details).await
    }

    fn new_token(&self, new: NewToken) -> Result<(Token, TokenRecord)> {
        let NewToken { identity, groups, ttl, uses } = new;
        let ttl = ttl.unwrap_or(DEFAULT_TTL);
        if ttl > MAX_TTL || ttl.as_secs() == 0 || uses == Some(0) {
            let text = format!("a token lives for 1s to {MAX_TTL} and serves at least one request");
            return Err(Error::new(Kind::Invalid, text));
        }
        let created = self.parts.ledger.clock().now();
        let expires = created.checked_add(ttl.as_signed());
        let expires = expires.map_err(|e| Error::new(Kind::Invalid, "the token lives too long").because(e))?;
        let token = Token::generate()?;
        let record = TokenRecord::new(token.hash(), identity, Arc::from(groups), created, expires, uses);
        Ok((token, record))
    }

    async fn commit_token<O: Operation>(
        &self,
        permit: &Permit<O>,
        record: &TokenRecord,
        expected: Expected,
        also: Option<Change>,
    ) -> Result<()> {
        let value = serde_json::to_vec(record).map_err(|e| Error::internal(format!("token: {e}")))?;
        let mut changes = vec![Change { path: record.path(), expected, value: Some(value) }];
        changes.extend(also);
        let leaf = permit.record(Phase::Change, &token_details(record));
        let revision = self.parts.ledger.commit(leaf, changes).await?;
        self.parts.registry.put_token(record.clone(), revision);
        Ok(())
    }

    /// Lists tokens: all that are kept, revoked and expired ones as well.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn list_tokens(&self, caller: &Caller) -> Result<Released<Vec<TokenRecord>>> {
        let permit = self.admit::<ReadToken>(caller, Resource::Service).await?;
        let tokens = self.parts.registry.tokens().iter().map(|known| known.record.clone()).collect();
        permit.close(Ok(tokens), Details::default()).await
    }

    /// Reads what is known of a token.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn read_token(&self, caller: &Caller, id: &str) -> Result<Released<TokenRecord>> {
        let permit = self.admit::<ReadToken>(caller, Resource::Token(id.to_owned())).await?;
        let found = self.parts.registry.token_by_id(id).map(|known| known.record.clone());
        permit.close(found, Details::default()).await
    }

    /// Revokes a token. From the answer on, it opens nothing.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn revoke_token(
        &self,
        caller: &Caller,
        id: &str,
        idempotency: &Idempotency,
    ) -> Result<Released<TokenRecord>> {
        let permit = self.admit::<RevokeToken>(caller, Resource::Token(id.to_owned())).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else {
                return self.parts.registry.token_by_id(id).map(|known| known.record.clone());
            };
            let _changing = self.token_changes.lock().await;
            let known = self.parts.registry.token_by_id(id)?;
            if known.record.revoked.is_some() {
                return Ok(known.record.clone());
            }
            let mut record = known.record.clone();
            record.revoked = Some(self.parts.ledger.clock().now());
            let also = turn.record(Outcome::Token(record.id()))?;
            self.commit_token(&permit, &record, Expected::Revision(known.revision), also).await?;
            Ok(record)
        };
        let result = result.await;
        let details = result.as_ref().map_or_else(|_| Details::default(), token_details);
        permit.close(result, details).await
    }

    /// Makes a token of an administrator for one request within an hour: to make a lasting credential with.
    ///
    /// # Errors
    /// Where it cannot be recorded.
    pub async fn create_first_token(&self) -> Result<Zeroizing<String>> {
        self.create_administrator("init", Name::new("first-administrator")?, Period::seconds(3600), Some(1)).await
    }

    /// Makes a token of an administrator, as the job `job` of the house.
    ///
    /// # Errors
    /// Where it cannot be recorded.
    pub async fn create_administrator(
        &self,
        job: &'static str,
        identity: Name,
        ttl: Period,
        uses: Option<u64>,
    ) -> Result<Zeroizing<String>> {
        let groups = vec![Name::new(ADMINISTRATORS)?];
        let new = NewToken { identity, groups, ttl: Some(ttl), uses };
        let made = self.create_token(&Caller::system(job, job), new, &Idempotency::default()).await?.into_inner();
        made.text.ok_or_else(|| Error::internal("no token was made"))
    }
}

/// Nobody hands out a group that they are not in, administrators and the house aside.
pub(super) fn check_groups(caller: &Caller, groups: &[Name]) -> Result<()> {
    if groups.len() > MAX_GROUPS {
        return Err(Error::new(Kind::Limit, format!("at most {MAX_GROUPS} groups")));
    }
    let all = match caller.principal {
        Principal::System(_) => true,
        Principal::Identity(_) => caller.groups.iter().any(|group| group.as_str() == ADMINISTRATORS),
    };
    match groups.iter().find(|group| !all && !caller.groups.contains(group)) {
        None => Ok(()),
        Some(group) => Err(Error::new(Kind::Forbidden, format!("only a member of {group} can hand it out"))
            .hint("ask a member of that group, or an administrator")),
    }
}

fn token_details(record: &TokenRecord) -> Details {
    let groups: Vec<_> = record.groups.iter().map(Name::as_str).collect();
    Details::default().fact("token", record.id()).fact("identity", &record.identity).fact("groups", groups.join(" "))
}
