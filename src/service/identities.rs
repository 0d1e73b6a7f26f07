//! Identities that prove themselves by client certificates.

use std::sync::Arc;

use super::tokens::check_groups;
use super::{Idempotency, Outcome, Service};
use crate::admission::{Details, Released};
use crate::audit::Phase;
use crate::auth::certificate::Match;
use crate::auth::registry::IdentityRecord;
use crate::error::{Error, Result};
use crate::store::{Change, Expected};
use crate::types::operation::{DeleteIdentity, ReadIdentity, WriteIdentity};
use crate::types::{Caller, Name, Resource};

impl Service {
    /// Stores an identity, in place of one with that name.
    ///
    /// # Errors
    /// `Forbidden` for groups that the caller is not in.
    pub async fn write_identity(
        &self,
        caller: &Caller,
        name: Name,
        groups: Vec<Name>,
        certificates: Vec<Match>,
        idempotency: &Idempotency,
    ) -> Result<Released<IdentityRecord>> {
        let permit = self.admit::<WriteIdentity>(caller, Resource::Identity(name.clone())).await?;
        let result = async {
            check_groups(caller, &groups)?;
            let Err(turn) = self.once(caller, idempotency).await? else {
                return self.parts.registry.identity(&name).map(|known| known.record.clone());
            };
            let record = IdentityRecord::new(name.clone(), Arc::from(groups), certificates)?;
            let value = serde_json::to_vec(&record).map_err(|e| Error::internal(format!("identity: {e}")))?;
            let mut changes = vec![Change { path: record.path(), expected: Expected::Any, value: Some(value) }];
            changes.extend(turn.record(Outcome::Identity(name.clone()))?);
            let leaf = permit.record(Phase::Change, &Details::default());
            let revision = self.parts.ledger.commit(leaf, changes).await?;
            self.parts.registry.put_identity(record.clone(), revision);
            Ok(record)
        };
        let result = result.await;
        permit.close(result, Details::default()).await
    }

    /// Lists identities.
    ///
    /// # Errors
    /// `Forbidden`.
    pub async fn list_identities(&self, caller: &Caller) -> Result<Released<Vec<IdentityRecord>>> {
        let permit = self.admit::<ReadIdentity>(caller, Resource::Service).await?;
        let all = self.parts.registry.identities().iter().map(|known| known.record.clone()).collect();
        permit.close(Ok(all), Details::default()).await
    }

    /// Reads an identity.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn read_identity(&self, caller: &Caller, name: &Name) -> Result<Released<IdentityRecord>> {
        let permit = self.admit::<ReadIdentity>(caller, Resource::Identity(name.clone())).await?;
        let found = self.parts.registry.identity(name).map(|known| known.record.clone());
        permit.close(found, Details::default()).await
    }

    /// Removes an identity. From the answer on, its certificates prove nothing.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete_identity(
        &self,
        caller: &Caller,
        name: &Name,
        idempotency: &Idempotency,
    ) -> Result<Released<()>> {
        let permit = self.admit::<DeleteIdentity>(caller, Resource::Identity(name.clone())).await?;
        let result = async {
            let Err(turn) = self.once(caller, idempotency).await? else { return Ok(()) };
            let known = self.parts.registry.identity(name)?;
            let expected = Expected::Revision(known.revision);
            let mut changes = vec![Change { path: known.record.path(), expected, value: None }];
            changes.extend(turn.record(Outcome::Identity(name.clone()))?);
            self.parts.ledger.commit(permit.record(Phase::Change, &Details::default()), changes).await?;
            self.parts.registry.remove_identity(name);
            Ok(())
        };
        let result = result.await;
        permit.close(result, Details::default()).await
    }
}
