//! Keys that bind accounts to identities.

use super::{EabKey, Id, Speaker, put};
use crate::admission::{Details, Released};
use crate::error::{Error, Kind, Result};
use crate::service::{Idempotency, Outcome, Service};
use crate::store::Expected;
use crate::types::operation::{CreateEabKey, ReadEabKey, RevokeEabKey};
use crate::types::{Caller, EndpointName, Period, Resource};

/// A binding key that is wanted.
#[derive(Clone, Debug)]
pub struct NewEabKey {
    /// For whom its accounts speak.
    pub speaker: Speaker,
    /// How long accounts can be made with it.
    pub ttl: Option<Period>,
    /// How many.
    pub uses: Option<u64>,
}

impl Service {
    /// Makes a binding key. It is answered this once: a repetition with the same idempotency key answers it without its secret.
    ///
    /// # Errors
    /// `NotFound` for the endpoint, `Forbidden` for groups that the caller is not in, `Invalid` for no uses at all.
    pub async fn create_eab_key(
        &self,
        caller: &Caller,
        endpoint: &EndpointName,
        new: NewEabKey,
        idempotency: &Idempotency,
    ) -> Result<Released<(EabKey, bool)>> {
        let permit = self.admit::<CreateEabKey>(caller, Resource::AcmeEndpoint(endpoint.clone())).await?;
        let result = async {
            self.acme_endpoint(endpoint).await?;
            self.may_speak_for(caller, &new.speaker).await?;
            let turn = match self.once(caller, idempotency).await? {
                Ok(Outcome::EabKey(_, id)) => return Ok((self.eab_key(endpoint, id.parse()?).await?.0, false)),
                Ok(_) => return Err(Error::internal("an idempotency record is of another kind")),
                Err(turn) => turn,
            };
            let NewEabKey { speaker, ttl, uses } = new;
            if uses == Some(0) || ttl.is_some_and(|ttl| ttl.as_secs() == 0) {
                return Err(Error::new(Kind::Invalid, "a binding key is good for at least one account and one second"));
            }
            let now = self.parts.ledger.clock().now();
            let expires = ttl.map(|ttl| now.checked_add(ttl.as_signed())).transpose();
            let expires =
                expires.map_err(|e| Error::new(Kind::Invalid, "the binding key lives too long").because(e))?;
            let key = EabKey::generate(speaker, now, expires, uses)?;
            let mut changes = vec![put(EabKey::path(endpoint, key.id), Expected::Absent, &key)?];
            changes.extend(turn.record(Outcome::EabKey(endpoint.clone(), key.id.to_string()))?);
            self.acme_commit(&permit, &details(&key), changes).await?;
            Ok((key, true))
        };
        let result = result.await;
        let details = result.as_ref().map_or_else(|_| Details::default(), |(key, _)| details(key));
        permit.close(result, details).await
    }

    async fn eab_key(&self, endpoint: &EndpointName, id: Id) -> Result<(EabKey, u64)> {
        let found = self.acme_read(EabKey::path(endpoint, id)).await?;
        found.ok_or_else(|| Error::new(Kind::NotFound, format!("the endpoint {endpoint} has no binding key {id}")))
    }

    /// Lists the binding keys of an endpoint. Whoever shows them leaves their secrets out.
    ///
    /// # Errors
    /// `NotFound` for the endpoint.
    pub async fn list_eab_keys(&self, caller: &Caller, endpoint: &EndpointName) -> Result<Released<Vec<EabKey>>> {
        let permit = self.admit::<ReadEabKey>(caller, Resource::AcmeEndpoint(endpoint.clone())).await?;
        let result = async {
            self.acme_endpoint(endpoint).await?;
            self.acme_scan(EabKey::folder(endpoint)).await
        };
        let result = result.await;
        permit.close(result, Details::default()).await
    }

    /// Revokes a binding key. From the answer on, its accounts are refused.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn revoke_eab_key(
        &self,
        caller: &Caller,
        endpoint: &EndpointName,
        id: Id,
        idempotency: &Idempotency,
    ) -> Result<Released<EabKey>> {
        let permit = self.admit::<RevokeEabKey>(caller, Resource::AcmeEndpoint(endpoint.clone())).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else {
                return Ok(self.eab_key(endpoint, id).await?.0);
            };
            let _enrolling = self.parts.acme.enrolling.lock().await;
            let (mut key, revision) = self.eab_key(endpoint, id).await?;
            if key.revoked.is_none() {
                key.revoked = Some(self.parts.ledger.clock().now());
                let mut changes = vec![put(EabKey::path(endpoint, id), Expected::Revision(revision), &key)?];
                changes.extend(turn.record(Outcome::EabKey(endpoint.clone(), id.to_string()))?);
                self.acme_commit(&permit, &details(&key), changes).await?;
            }
            Ok(key)
        };
        let result = result.await;
        permit.close(result, Details::default().fact("eab", id)).await
    }
}

fn details(key: &EabKey) -> Details {
    Details::default().fact("eab", key.id).fact("identity", &key.speaker.identity)
}
